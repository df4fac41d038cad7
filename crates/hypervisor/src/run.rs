//! The loop: virtual CPUs in order of simulated time, from entry to exit to entry.
//!
//! Modelled: the order of turns, blocked virtual CPUs, timers of virtual local APICs, interrupts of the board, pauses that a script asked
//! for, limits. A turn that ends because its time is up leaves the guest where it is, in the guest; an event from elsewhere fetches it out
//! by a physical interrupt, as one host processor does with another.

use crate::backend::Backend;
use crate::emulator::{DeviceBus, NoDevices};
use crate::exit::{Exit, Report};
use crate::steps::{Job, Step, WayIn};
use crate::vcpu::Activity;
use crate::vm::{TIMER_VECTOR, Vm};
use board::Outcome;
use cpu::RunExit;
use cpu::bus::Environment;
use cpu::trap::NotModelled;
use isa::register::Gpr;
use machine::schedule::{Candidate, Turn};
use serde::{Deserialize, Serialize};
use timing::TICKS_PER_CYCLE;
use trace::{Event, Ignore, Name, Sink};

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of all virtual CPUs since the guest's start.
    pub instructions: u64,
    /// Cycles of simulated time.
    pub cycles: u64,
    /// VM exits of all virtual CPUs since the guest's start.
    pub exits: u64,
}

impl Limits {
    /// No bounds.
    pub const NONE: Self = Self { instructions: u64::MAX, cycles: u64::MAX, exits: u64::MAX };
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest asked for it through a device.
    Outcome(Outcome),
    /// Every virtual CPU waits, and nothing can wake one.
    Halted,
    /// A virtual CPU met a triple fault.
    TripleFault {
        /// Which.
        vcpu: u32,
    },
    /// VM entry failed.
    EntryFailure {
        /// On which virtual CPU.
        vcpu: u32,
        /// The rules that were broken.
        reasons: Vec<String>,
    },
    /// User space got an exit that it has no part for.
    Userspace {
        /// Of which virtual CPU.
        vcpu: u32,
        /// Its name, `KVM_EXIT_INTERNAL_ERROR` and so on.
        reason: &'static str,
    },
    /// A virtual CPU exits, or is emulated, for ever at one place.
    Livelock {
        /// Which.
        vcpu: u32,
        /// RIP.
        rip: u64,
        /// The reason of the exits, in the kernel's words.
        reason: String,
    },
    /// Something is not modelled.
    NotModelled {
        /// On which virtual CPU.
        vcpu: u32,
        /// What.
        what: Box<NotModelled>,
    },
    /// The limit of instructions is reached.
    InstructionLimit,
    /// The limit of cycles is reached.
    CycleLimit,
    /// The limit of exits is reached.
    ExitLimit,
    /// A moment that was asked for has come.
    Paused(PauseId),
    /// A virtual CPU waits for a page that is absent.
    PageWanted {
        /// Which virtual CPU.
        vcpu: u32,
        /// The page, by number.
        frame: u64,
    },
    /// Nothing can happen before a page arrives that is absent.
    Waiting,
    /// A step of a schedule was taken, and whoever asked for it may look: see [`Vm::watch_steps`].
    Stepped(Box<Step>),
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// So many VM exits were handled.
    Exit(u64),
    /// The virtual CPU that is furthest behind reaches this cycle.
    Cycle(u64),
    /// So many instructions were begun.
    Instruction(u64),
    /// So many hypercalls were handled.
    Hypercall(u64),
    /// A virtual CPU comes to this linear address, before it executes what is there.
    Address {
        /// The address.
        address: u64,
        /// The how-manieth time, from 1.
        pass: u64,
    },
}

/// Names a pause that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PauseId(u64);

/// The pauses that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pauses {
    waiting: Vec<(PauseId, Moment, u64)>,
    /// Those whose moment came as a virtual CPU was fetched out of its guest, and that nobody was told of yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    came: Vec<PauseId>,
    next: u64,
    /// There is one at an address: instructions are executed one by one.
    addresses: bool,
    /// There is one that counts exits or hypercalls.
    counts: bool,
    /// Where each virtual CPU was looked at last, so that an instruction counts once however often it exits.
    seen: Vec<Option<u64>>,
}

impl Pauses {
    pub fn add(&mut self, moment: Moment) -> PauseId {
        let id = PauseId(self.next);
        self.next += 1;
        self.waiting.push((id, moment, 0));
        self.summarise();
        id
    }

    /// Whether a guest with so many virtual CPUs can have these, which may come from anywhere.
    pub fn is_possible(&self, vcpus: usize) -> bool {
        let mut again = self.clone();
        again.summarise();
        let known = |id: &PauseId| id.0 < self.next;
        again == *self && self.seen.len() <= vcpus && self.waiting.iter().all(|(id, ..)| known(id)) && self.came.iter().all(known)
    }

    fn summarise(&mut self) {
        self.addresses = self.waiting.iter().any(|(_, moment, _)| matches!(moment, Moment::Address { .. }));
        self.counts = self.waiting.iter().any(|(_, moment, _)| matches!(moment, Moment::Exit(_) | Moment::Hypercall(_)));
        if !self.addresses {
            self.seen.clear();
        }
    }

    /// Waits for a moment no more.
    pub fn forget(&mut self, pause: PauseId) {
        self.waiting.retain(|(id, ..)| *id != pause);
        self.came.retain(|id| *id != pause);
        self.summarise();
    }

    fn take(&mut self, index: usize) -> PauseId {
        let (id, ..) = self.waiting.remove(index);
        self.summarise();
        id
    }

    /// The earliest moment among those that are a cycle, in ticks.
    pub fn next_tick(&self) -> u64 {
        let cycles = self.waiting.iter().filter_map(|(_, moment, _)| match moment {
            Moment::Cycle(cycle) => Some(cycle.saturating_mul(TICKS_PER_CYCLE)),
            _ => None,
        });
        cycles.min().unwrap_or(u64::MAX)
    }

    fn next_instruction(&self) -> u64 {
        let counts = self.waiting.iter().filter_map(|(_, moment, _)| match moment {
            Moment::Instruction(count) => Some(*count),
            _ => None,
        });
        counts.min().unwrap_or(u64::MAX)
    }

    /// A virtual CPU is about to execute the instruction at a linear address.
    fn arrives(&mut self, vcpu: usize, address: u64) -> Option<PauseId> {
        if self.seen.len() <= vcpu {
            self.seen.resize(vcpu + 1, None);
        }
        if self.seen[vcpu] == Some(address) {
            return None;
        }
        self.seen[vcpu] = Some(address);
        let mut hit = None;
        for (index, (_, moment, passes)) in self.waiting.iter_mut().enumerate() {
            if let Moment::Address { address: wanted, pass } = moment
                && *wanted == address
            {
                *passes += 1;
                if *passes >= *pass && hit.is_none() {
                    hit = Some(index);
                }
            }
        }
        hit.map(|index| self.take(index))
    }

    /// The instruction that was seen completed: the next arrival counts, even at the same address.
    pub fn completed(&mut self, vcpu: usize) {
        if let Some(seen) = self.seen.get_mut(vcpu) {
            *seen = None;
        }
    }
}

/// A turn that was broken off because somebody wants to look. It goes on where it was, so that looking changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unfinished {
    /// The virtual CPU.
    pub number: usize,
    /// When the turn ends, in ticks.
    pub until: u64,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By itself.
    Over,
    /// For a pause or a limit.
    BrokenOff,
}

impl<B: Backend> Vm<B> {
    /// Runs until the guest stops itself, nothing can happen any more, a limit is reached or a moment comes.
    pub fn run(&mut self, sink: &mut dyn Sink, limits: &Limits) -> Stop {
        let stop = self.run_on(sink, limits);
        self.collect_serial();
        stop
    }

    fn run_on(&mut self, sink: &mut dyn Sink, limits: &Limits) -> Stop {
        let end = limits.cycles.saturating_mul(TICKS_PER_CYCLE);
        loop {
            let unfinished = self.common.unfinished;
            if unfinished.is_none() {
                if let Some(outcome) = self.common.board.outcome() {
                    return Stop::Outcome(outcome);
                }
                self.pass_board_interrupts();
            }
            if let Some(pause) = self.due_pause() {
                return Stop::Paused(pause);
            }
            if let Some(wanted) = self.next_wanted() {
                return wanted;
            }
            if self.instructions() >= limits.instructions {
                return Stop::InstructionLimit;
            }
            if self.common.statistics.exits >= limits.exits {
                return Stop::ExitLimit;
            }
            if self.common.schedule.is_some() {
                if self.common.frontier >= end {
                    return Stop::CycleLimit;
                }
                if let Err(stop) = self.run_turn_of_schedule(limits, sink) {
                    return stop;
                }
                continue;
            }
            if let Some(turn) = unfinished {
                if self.cpus[turn.number].now() >= end {
                    return Stop::CycleLimit;
                }
                if let Err(stop) = self.turn(turn, true, limits, sink) {
                    return stop;
                }
                continue;
            }
            let next_board = self.common.board.next_event().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
            // A copy of one word, so that the order can be asked for while the candidates ask the silicon.
            let mut order = self.common.interleaving.clone();
            let turn = order.next((0..self.cpus.len()).map(|vcpu| self.candidate(vcpu)), next_board);
            // A cycle comes to a virtual CPU that waits for a page only with the page, however far the others are.
            let stop_at = if self.somebody_waits() { end } else { end.min(self.common.pauses.next_tick()) };
            match turn {
                Turn::Run { number, until } => {
                    if self.cpus[number].now() >= end {
                        return Stop::CycleLimit;
                    }
                    self.common.interleaving = order;
                    if let Err(stop) = self.turn(Unfinished { number, until }, false, limits, sink) {
                        return stop;
                    }
                }
                // Devices may tick for ever in front of virtual CPUs that cannot hear them.
                Turn::Advance { .. } | Turn::Dead if stop_at == end && self.is_deaf() => return Stop::Halted,
                Turn::Advance { to } => {
                    if to >= end {
                        return Stop::CycleLimit;
                    }
                    self.advance(to.min(stop_at));
                }
                // Nothing but what waits for a cycle can happen any more.
                Turn::Dead if stop_at < end => self.advance(stop_at),
                Turn::Dead if self.somebody_waits() => return Stop::Waiting,
                Turn::Dead => return Stop::Halted,
            }
        }
    }

    fn candidate(&mut self, vcpu: usize) -> Candidate {
        let runnable = self.vcpus[vcpu].waits.is_none() && self.wakes(vcpu);
        let wakes = self.vcpus[vcpu].software.apic.next_event().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
        Candidate { now: self.cpus[vcpu].now(), runnable, wakes }
    }

    /// Whether a virtual CPU runs, or has something to wake for.
    pub(crate) fn wakes(&mut self, vcpu: usize) -> bool {
        let software = &self.vcpus[vcpu].software;
        match software.activity {
            Activity::Running => true,
            Activity::Halted => {
                let urgent = software.nmis > 0 || software.init || software.kicked;
                urgent || self.has_interrupt(vcpu) && self.silicon(vcpu, |backend, cpu| backend.rflags(cpu)).r#if()
            }
            Activity::WaitForSipi => software.sipi.is_some() || software.init,
        }
    }

    /// Whether every virtual CPU sleeps so deeply that no timer and no device wakes it: halted with interrupts off, or waiting for a
    /// start-up message.
    pub(crate) fn is_deaf(&mut self) -> bool {
        (0..self.vcpus.len()).all(|vcpu| {
            if self.wakes(vcpu) {
                return false;
            }
            match self.vcpus[vcpu].software.activity {
                Activity::Running => false,
                Activity::Halted => !self.silicon(vcpu, |backend, cpu| backend.rflags(cpu)).r#if(),
                Activity::WaitForSipi => true,
            }
        })
    }

    /// A pause whose moment has come.
    fn due_pause(&mut self) -> Option<PauseId> {
        if !self.common.pauses.came.is_empty() {
            return Some(self.common.pauses.came.remove(0));
        }
        if self.common.pauses.waiting.is_empty() {
            return None;
        }
        let running = self.vcpus.iter().zip(&self.cpus).filter(|(vcpu, _)| vcpu.software.activity == Activity::Running);
        let behind = running.map(|(_, cpu)| cpu.now()).min();
        let behind = behind.or_else(|| self.cpus.iter().map(|cpu| cpu.now()).max()).unwrap_or(0) / TICKS_PER_CYCLE;
        let (exits, hypercalls) = (self.common.statistics.exits, self.common.statistics.hypercalls);
        let instructions = self.instructions();
        let index = self.common.pauses.waiting.iter().position(|(_, moment, _)| match *moment {
            Moment::Exit(count) => exits >= count,
            Moment::Hypercall(count) => hypercalls >= count,
            Moment::Cycle(cycle) => behind >= cycle,
            Moment::Instruction(count) => instructions >= count,
            Moment::Address { .. } => false,
        })?;
        Some(self.common.pauses.take(index))
    }

    /// Brings every virtual CPU that waits, and the board, to a time at which something happens.
    pub(crate) fn advance(&mut self, to: u64) {
        let cycle = to.div_ceil(TICKS_PER_CYCLE);
        self.common.board.advance(cycle);
        for vcpu in 0..self.vcpus.len() {
            self.reach(vcpu, to);
            self.run_timer(vcpu, cycle);
        }
    }

    /// A virtual CPU that waits in the past of `now` is brought up to it before something reaches it.
    pub(crate) fn reach(&mut self, vcpu: usize, now: u64) {
        if self.vcpus[vcpu].software.activity != Activity::Running && self.cpus[vcpu].now() < now {
            self.cpus[vcpu].set_now(now);
        }
    }

    /// Runs the timer of a virtual local APIC. When it interrupts a guest that runs, the host's timer fetches it out.
    pub(crate) fn run_timer(&mut self, vcpu: usize, cycle: u64) {
        let apic = &mut self.vcpus[vcpu].software.apic;
        if apic.next_event().is_some_and(|event| event <= cycle) && apic.advance(cycle) {
            self.kick(vcpu, TIMER_VECTOR);
        }
    }

    /// One virtual CPU's turn, or the rest of one that was broken off.
    fn turn(&mut self, turn: Unfinished, goes_on: bool, limits: &Limits, sink: &mut dyn Sink) -> Result<(), Stop> {
        let vcpu = turn.number;
        if !goes_on {
            self.run_timer(vcpu, self.cpus[vcpu].cycles());
        }
        self.common.unfinished = None;
        // A cycle has come for all as soon as it has for the one that is furthest behind.
        let pause = self.common.pauses.next_tick();
        let mut others = self.vcpus.iter().zip(&self.cpus).enumerate().filter(|(other, _)| *other != vcpu);
        let others_behind = others.any(|(_, (other, cpu))| other.software.activity == Activity::Running && cpu.now() < pause);
        let until = if others_behind { turn.until } else { turn.until.min(pause) };
        // The limit may be an earlier one than when the turn began.
        let until = until.min(limits.cycles.saturating_mul(TICKS_PER_CYCLE));
        let ended = self.turn_until(vcpu, until, limits, sink);
        let broken_off = match &ended {
            Ok(Ended::BrokenOff) | Err(Stop::Paused(_)) => self.cpus[vcpu].now() < turn.until,
            Ok(Ended::Over) | Err(_) => false,
        };
        self.common.unfinished = broken_off.then_some(turn);
        ended.map(|_| ())
    }

    fn turn_until(&mut self, vcpu: usize, until: u64, limits: &Limits, sink: &mut dyn Sink) -> Result<Ended, Stop> {
        loop {
            // An exit that met an absent page waits for it, and is handled again.
            if self.vcpus[vcpu].waits.is_some() {
                return Ok(Ended::Over);
            }
            if !self.cpus[vcpu].guest_mode {
                while self.vcpus[vcpu].job.is_some() {
                    self.go_on(vcpu, sink)?;
                    if self.vcpus[vcpu].waits.is_some() {
                        return Ok(Ended::Over);
                    }
                    if self.vcpus[vcpu].job.is_none() {
                        if let Some(ended) = self.turn_ends(vcpu, until, limits) {
                            return Ok(ended);
                        }
                    } else if self.cpus[vcpu].now() >= until {
                        return Ok(Ended::BrokenOff);
                    }
                }
                let way = self.way_in(vcpu)?;
                if way == WayIn::Asleep {
                    return Ok(Ended::Over);
                }
                if way == WayIn::Emulate {
                    if self.absent.is_none() {
                        self.emulate_refused(vcpu, sink)?;
                    } else if !self.attempt(vcpu, sink, |trial, sink| trial.emulate_refused(vcpu, sink))? {
                        return Ok(Ended::Over);
                    }
                    let bound = limits.instructions.min(self.common.pauses.next_instruction());
                    if let Some(ended) = self.turn_ends(vcpu, until, limits) {
                        return Ok(ended);
                    }
                    if self.instructions() >= bound {
                        return Ok(Ended::BrokenOff);
                    }
                    continue;
                }
                if self.enter(vcpu, sink)? {
                    continue;
                }
            } else if let Some(pause) = self.arrival(vcpu) {
                return Err(Stop::Paused(pause));
            }
            match self.execute(vcpu, until, limits, sink) {
                RunExit::HostEntry => {
                    let report = self.note_exit(vcpu, sink);
                    if self.cpus.len() > 1 {
                        // What others do before this moment comes before what the hypervisor does about the exit.
                        self.vcpus[vcpu].job = Some(Job::begin(report));
                        return Ok(Ended::Over);
                    }
                    if self.absent.is_none() {
                        self.handle_noted(vcpu, &report, sink)?;
                    } else {
                        self.vcpus[vcpu].job = Some(Job::begin(report));
                    }
                    if self.vcpus[vcpu].job.is_some() {
                        self.finish(vcpu, sink)?;
                    }
                    if let Some(ended) = self.turn_ends(vcpu, until, limits) {
                        return Ok(ended);
                    }
                }
                RunExit::Time => return Ok(Ended::BrokenOff),
                RunExit::Attention => return Ok(Ended::Over),
                RunExit::Instructions => {
                    if !self.common.pauses.addresses || self.cpus[vcpu].now() >= until {
                        return Ok(Ended::BrokenOff);
                    }
                    if self.instructions() >= limits.instructions.min(self.common.pauses.next_instruction()) {
                        return Ok(Ended::BrokenOff);
                    }
                }
                other => return Err(self.ended(vcpu, other)),
            }
            if self.cpus[vcpu].now() >= until {
                return Ok(Ended::BrokenOff);
            }
        }
    }

    /// The stop for an end of a processor's run that ends the whole run.
    pub(crate) fn ended(&self, vcpu: usize, exit: RunExit) -> Stop {
        match exit {
            RunExit::Shutdown => Stop::TripleFault { vcpu: vcpu as u32 },
            RunExit::NotModelled(what) => Stop::NotModelled { vcpu: vcpu as u32, what },
            _ => self.not_modelled(vcpu, "a guest that sleeps without a VM exit"),
        }
    }

    /// Whether an exit left something that must be looked at before the guest goes on, or the time is up. One that breaks off at the end of
    /// its turn's own time is over.
    fn turn_ends(&mut self, vcpu: usize, until: u64, limits: &Limits) -> Option<Ended> {
        if std::mem::take(&mut self.common.look) {
            return Some(Ended::Over);
        }
        let asked = self.common.pauses.counts || self.common.statistics.exits >= limits.exits;
        (asked || self.cpus[vcpu].now() >= until).then_some(Ended::BrokenOff)
    }

    /// The stop for something that is not modelled.
    pub(crate) fn not_modelled(&self, vcpu: usize, what: &str) -> Stop {
        let rip = self.vcpus[vcpu].backend.rip();
        let what = NotModelled { what: what.to_owned(), bytes: Vec::new(), text: String::new(), rip };
        Stop::NotModelled { vcpu: vcpu as u32, what: Box::new(what) }
    }

    /// The pause that waits where a virtual CPU is now.
    #[inline(always)]
    pub(crate) fn arrival(&mut self, vcpu: usize) -> Option<PauseId> {
        if self.common.pauses.addresses { self.awaited_arrival(vcpu) } else { None }
    }

    fn awaited_arrival(&mut self, vcpu: usize) -> Option<PauseId> {
        let cpu = &self.cpus[vcpu];
        let address = if cpu.guest_mode { cpu.linear_rip() } else { self.silicon(vcpu, |backend, cpu| backend.save(cpu)).linear_rip() };
        self.common.pauses.arrives(vcpu, address)
    }

    /// Lets the processor execute its guest.
    pub(crate) fn execute(&mut self, vcpu: usize, until: u64, limits: &Limits, sink: &mut dyn Sink) -> RunExit {
        let bound = limits.instructions.min(self.common.pauses.next_instruction());
        let own = self.cpus[vcpu].instructions();
        let left = if bound == u64::MAX { u64::MAX } else { bound.saturating_sub(self.instructions()) };
        self.follow_shadowed_writes();
        let steps = self.common.pauses.addresses || self.common.schedule.is_some();
        let allowed = own.saturating_add(if steps { left.min(1) } else { left });
        let journal = self.memory.open_journal(false);
        let mut devices = NoDevices;
        let mut bus = DeviceBus(&mut devices);
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus };
        let exit = self.cpus[vcpu].run(&mut environment, until, allowed);
        self.memory.open_journal(journal);
        if self.common.options.deliveries {
            for it in self.cpus[vcpu].take_deliveries() {
                if let Some(event) = machine::watch::delivery(&it, true) {
                    sink.emit(it.cycle, vcpu as u32, event);
                }
            }
        }
        if steps && exit != RunExit::HostEntry && self.cpus[vcpu].instructions() > own {
            self.common.pauses.completed(vcpu);
        }
        exit
    }

    /// Enters the guest. `true` where there was an exit at once, which is handled already.
    #[inline(always)]
    pub(crate) fn enter(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<bool, Stop> {
        self.complete_userspace(vcpu);
        self.turn_tables(vcpu);
        self.inject_pending(vcpu, sink);
        let backend = &self.vcpus[vcpu].backend;
        let (intr_info, error_code) = backend.injected();
        let rip = backend.rip();
        self.emit(vcpu, sink, Event::Entry { rip, intr_info, error_code });
        match self.silicon_charged(vcpu, |backend, cpu| backend.enter(cpu)) {
            Ok(true) => Ok(false),
            Ok(false) => {
                self.exited(vcpu, sink)?;
                Ok(true)
            }
            Err(refused) => {
                let mut reasons = vec![refused.0];
                reasons.extend(self.silicon(vcpu, |backend, cpu| backend.explain(cpu)));
                Err(Stop::EntryFailure { vcpu: vcpu as u32, reasons })
            }
        }
    }

    /// After an exit: tells of it and handles it.
    pub(crate) fn exited(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        let report = self.note_exit(vcpu, sink);
        self.vcpus[vcpu].job = Some(Job::begin(report));
        self.finish(vcpu, sink)
    }

    /// After an exit: reads what it was, and tells of it.
    pub(crate) fn note_exit(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Report {
        let report = self.silicon(vcpu, |backend, cpu| backend.report(cpu));
        let info = report.info;
        self.emit(
            vcpu,
            sink,
            Event::Exit {
                reason: info.reason,
                failed_entry: info.failed_entry,
                rip: report.rip,
                info1: info.info1,
                info2: info.info2,
                intr_info: info.intr_info,
                error_code: info.error_code,
            },
        );
        let costs = self.model.costs;
        self.charge(vcpu, &costs.exit_dispatch);
        self.empty_log(vcpu);
        if report.exit != Exit::EntryFailure {
            let (event, priority) = self.silicon(vcpu, |backend, cpu| (backend.interrupted(cpu), backend.task_priority(cpu)));
            let software = &mut self.vcpus[vcpu].software;
            software.requeued = event;
            if let Some(class) = priority
                && class != software.told_priority
            {
                software.told_priority = class;
                software.apic.set_cr8(class);
            }
        }
        report
    }

    /// Ends the run of a guest that exits for ever without going on.
    pub(crate) fn check_progress(&mut self, vcpu: usize, report: &Report) -> Result<(), Stop> {
        let waits = matches!(report.exit, Exit::ExternalInterrupt | Exit::Nmi | Exit::InterruptWindow | Exit::NmiWindow);
        if waits {
            return Ok(());
        }
        if self.vcpus[vcpu].backend.rip() != report.rip || self.vcpus[vcpu].software.exception.is_some() {
            self.vcpus[vcpu].progress.moved();
            return Ok(());
        }
        let rcx = self.cpus[vcpu].gpr(Gpr::Rcx);
        let count = self.vcpus[vcpu].progress.stuck(report.rip, rcx, report.info.reason);
        if count >= self.common.options.livelock {
            let reason = match report.info.reason {
                Name::Text(text) => text.to_owned(),
                Name::Code(code) => format!("{code:#x}"),
            };
            return Err(Stop::Livelock { vcpu: vcpu as u32, rip: report.rip, reason });
        }
        Ok(())
    }

    /// Fetches a virtual CPU out of its guest by a physical interrupt, if it is in it, and handles what exit there is.
    pub(crate) fn fetch_out_traced(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        if !self.cpus[vcpu].guest_mode {
            return self.finish(vcpu, sink);
        }
        self.kick(vcpu, crate::vm::KICK_VECTOR);
        let limits = Limits::NONE;
        // Behind STI, and where the interrupt is held back by another shadow, an instruction is executed first; it may be one that is waited for.
        if let Some(pause) = self.arrival(vcpu) {
            self.common.pauses.came.push(pause);
        }
        match self.execute(vcpu, u64::MAX, &limits, sink) {
            RunExit::HostEntry => self.exited(vcpu, sink),
            RunExit::NotModelled(what) => Err(Stop::NotModelled { vcpu: vcpu as u32, what }),
            other => Err(self.not_modelled(vcpu, &format!("{other:?} where a physical interrupt was to end the guest's run"))),
        }
    }

    /// The same without a trace, for a caller that has none. What cannot go on then fails again at the next run.
    pub(crate) fn fetch_out(&mut self, vcpu: usize) {
        let _ = self.fetch_out_traced(vcpu, &mut Ignore);
    }
}
