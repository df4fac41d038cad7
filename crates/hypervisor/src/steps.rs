//! The work of one virtual CPU in steps, between which others may run: an instruction, an entry, a piece of what the hypervisor does.
//!
//! Modelled: the handling of an exit, in pieces where others could see it half done. The pieces of a patch are its writes, page by page; the
//! commit of 2007 takes the lock, drops every mapping, writes and gives the lock back; a page fault takes the lock and maps. In a run of
//! simulated time a virtual CPU goes through its pieces as long as its turn lasts; whoever decides about every step ([`Vm::step`]) may put
//! steps of others between any two.

use crate::backend::Backend;
use crate::exit::Report;
use crate::locks::Hold;
use crate::mmu::Mmu;
use crate::mmu::nested::{Slot, Slots};
use crate::policy::patch::{TextWrite, Then};
use crate::run::{Limits, Stop};
use crate::state::Registers;
use crate::vcpu::Activity;
use crate::vm::Vm;
use cpu::RunExit;
use cpu::freedom::{Executed, LINE_BYTES, MemoryAccess, Part, Touch};
use isa::exception::PageFaultCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trace::Sink;

/// What the hypervisor does next for a virtual CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// It looks at the exit.
    Begin,
    /// It writes into the guest's text, a piece at a time.
    Write(Box<TextWrite>),
    /// It has the lock and drops every mapping, as the commit of 2007 did before it patched.
    Zap(Box<Registers>, usize),
    /// It has the lock and maps a page; `writes` says that the dirty log has to know.
    Map { slot: Slot, guest_physical: u64, writes: bool },
    /// It has the lock and looks at a page fault of shadow paging: the linear address and the processor's error code.
    Fill { linear: u64, code: u32 },
}

impl Stage {
    /// Whether it is done with the lock around the mappings.
    pub const fn needs_lock(&self) -> bool {
        match self {
            Self::Begin => false,
            Self::Write(write) => matches!(write.then, Then::Call { .. }),
            Self::Zap(..) | Self::Map { .. } | Self::Fill { .. } => true,
        }
    }

    /// Whether it can be one of a guest with these slots.
    pub fn is_possible(&self, slots: &Slots) -> bool {
        match self {
            Self::Begin | Self::Zap(..) | Self::Fill { .. } => true,
            Self::Write(write) => write.done < write.bytes.len(),
            Self::Map { slot, guest_physical, .. } => slots.at(*guest_physical) == Some(slot),
        }
    }
}

/// What the thread of a virtual CPU waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// The lock around the mappings.
    Lock(Hold),
    /// An absent page, by number.
    Page(u64),
}

/// How a virtual CPU gets into its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayIn {
    /// It does not: it sleeps.
    Asleep,
    /// Its processor would refuse the entry: software goes on for it.
    Emulate,
    /// By a VM entry.
    Enter,
}

/// An exit that is being handled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub report: Report,
    pub stage: Stage,
}

impl Job {
    pub fn begin(report: Report) -> Self {
        Self { report, stage: Stage::Begin }
    }
}

/// Which of the architecture's freedoms a step makes use of. See [`cpu::freedom`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Freedom {
    /// A store of the guest that need not be seen whole is done in two parts, this one first.
    pub split: Option<Part>,
    /// The hypervisor's write into the guest's text stops behind so many bytes.
    pub bytes: Option<u8>,
    /// These virtual CPUs go on with the bytes that the step overwrites, until they serialize.
    pub stale: Vec<u32>,
    /// The first store of the guest in the step waits in the processor's store buffer, and so do all behind it until that is empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub buffer: bool,
    /// The step is no instruction: the oldest store that waits in the processor's store buffer becomes visible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

impl Freedom {
    /// That the oldest store that waits becomes visible.
    pub fn drain() -> Self {
        Self { drain: true, ..Self::default() }
    }

    /// Whether there is one.
    pub fn is_used(&self) -> bool {
        *self != Self::default()
    }
}

/// What kind of step it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// An instruction of the guest, or the delivery of an event.
    Guest,
    /// The rest of a store.
    Rest,
    /// A store that waited became visible: it is nobody's turn.
    Drain,
    /// An entry.
    Entry,
    /// A piece of the hypervisor's work.
    Host,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose it was.
    pub vcpu: u32,
    /// What it was.
    pub kind: StepKind,
    /// The guest says that it waits.
    pub pauses: bool,
    /// RAM of the guest that it touched.
    pub accesses: Vec<MemoryAccess>,
    /// The instruction that it executed, on the processor or by software.
    pub executed: Option<Executed>,
    /// It had a store that need not have been seen whole.
    pub could_split: bool,
    /// It had a store of the guest that waits in the store buffer, or could.
    pub could_buffer: bool,
    /// Every store of the virtual CPU was visible at some moment of the step: how many of its accesses came before the last such moment.
    pub emptied: Option<usize>,
}

impl<B: Backend> Vm<B> {
    /// Whether a virtual CPU can take a step.
    pub(crate) fn can_step(&mut self, vcpu: usize) -> bool {
        if self.vcpus[vcpu].waits.is_some() {
            return false;
        }
        self.cpus[vcpu].guest_mode || self.vcpus[vcpu].job.is_some() || self.wakes(vcpu)
    }

    /// Whether the next step of a virtual CPU is a piece of the hypervisor's work, and how many bytes of text it writes at most.
    pub fn next_piece(&self, vcpu: u32) -> Option<usize> {
        let job = self.vcpus.get(vcpu as usize)?.job.as_ref()?;
        Some(if let Stage::Write(write) = &job.stage { write.piece().len() } else { 0 })
    }

    /// Whether a virtual CPU is out of its guest: its next step is the hypervisor's.
    pub fn is_in_host(&self, vcpu: u32) -> bool {
        self.cpus.get(vcpu as usize).is_some_and(|cpu| !cpu.guest_mode)
    }

    /// Whether the next step of a virtual CPU is the rest of a store.
    pub fn holds_back(&self, vcpu: u32) -> bool {
        self.cpus.get(vcpu as usize).is_some_and(|cpu| cpu.holds_back())
    }

    /// Whether a store of a virtual CPU waits in its processor's store buffer.
    pub fn buffers_stores(&self, vcpu: u32) -> bool {
        self.cpus.get(vcpu as usize).is_some_and(|cpu| cpu.buffers_stores())
    }

    /// Takes one step of a virtual CPU, whoever's turn it would be in simulated time. Its time is no earlier than that of the last step.
    ///
    /// # Errors
    /// The end of the run.
    pub fn step(&mut self, vcpu: u32, freedom: &Freedom, limits: &Limits, sink: &mut dyn Sink) -> Result<Step, Stop> {
        let vcpu = self.index(vcpu);
        if self.cpus[vcpu].now() < self.common.frontier {
            self.cpus[vcpu].set_now(self.common.frontier);
        }
        self.common.writes.clear();
        self.cpus[vcpu].take_accesses();
        self.cpus[vcpu].emptied();
        self.emulator.processor().take_accesses();
        let kind = self.take_step(vcpu, freedom, limits, sink)?;
        self.common.frontier = self.common.frontier.max(self.cpus[vcpu].now());
        let (could_split, could_buffer) = (self.cpus[vcpu].could_split(), self.cpus[vcpu].could_buffer());
        let emptied = self.cpus[vcpu].emptied();
        let (mut accesses, executed) = self.cpus[vcpu].take_accesses();
        // What software did for the guest.
        let (mut emulated, by_software) = self.emulator.processor().take_accesses();
        let executed = executed.or(by_software);
        accesses.append(&mut emulated);
        accesses.append(&mut self.common.writes);
        self.keep_stale(freedom, &accesses);
        let pauses = executed.is_some_and(|executed| executed.pauses);
        Ok(Step { vcpu: vcpu as u32, kind, pauses, accesses, executed, could_split, could_buffer, emptied })
    }

    fn take_step(&mut self, vcpu: usize, freedom: &Freedom, limits: &Limits, sink: &mut dyn Sink) -> Result<StepKind, Stop> {
        if self.cpus[vcpu].holds_back() {
            self.silicon(vcpu, |_, cpu| cpu.release());
            return Ok(StepKind::Rest);
        }
        if freedom.drain {
            self.silicon(vcpu, |_, cpu| cpu.drain_store());
            return Ok(StepKind::Drain);
        }
        let cycle = self.cpus[vcpu].cycles();
        self.run_timer(vcpu, cycle);
        if self.vcpus[vcpu].job.is_some() {
            self.common.write_limit = freedom.bytes;
            self.go_on(vcpu, sink)?;
            self.common.write_limit = None;
            return Ok(StepKind::Host);
        }
        if !self.cpus[vcpu].guest_mode {
            return match self.way_in(vcpu)? {
                WayIn::Asleep => Ok(StepKind::Host),
                WayIn::Emulate => self.emulate_refused(vcpu, sink).map(|()| StepKind::Host),
                WayIn::Enter => self.enter(vcpu, sink).map(|_| StepKind::Entry),
            };
        }
        if let Some(pause) = self.arrival(vcpu) {
            return Err(Stop::Paused(pause));
        }
        if let Some(first) = freedom.split {
            self.cpus[vcpu].split_store(first);
        }
        if freedom.buffer {
            self.cpus[vcpu].buffer_store();
        }
        match self.execute(vcpu, u64::MAX, limits, sink) {
            RunExit::HostEntry => {
                let report = self.note_exit(vcpu, sink);
                self.vcpus[vcpu].job = Some(Job::begin(report));
            }
            RunExit::Time | RunExit::Attention | RunExit::Instructions => {}
            other => return Err(self.ended(vcpu, other)),
        }
        Ok(StepKind::Guest)
    }

    /// The virtual CPUs that were to go on with old bytes do.
    fn keep_stale(&mut self, freedom: &Freedom, accesses: &[MemoryAccess]) {
        if freedom.stale.is_empty() {
            return;
        }
        let mut lines = BTreeMap::new();
        for access in accesses.iter().rev() {
            let Touch::Write { old } = access.touch else { continue };
            for (at, byte) in old.to_le_bytes().into_iter().take(access.length as usize).enumerate() {
                let address = access.physical + at as u64;
                let (start, offset) = (address & !(LINE_BYTES - 1), address & (LINE_BYTES - 1));
                let line = lines.entry(start).or_insert_with(|| {
                    let mut bytes = [0; LINE_BYTES as usize];
                    // The line was written, so it is RAM.
                    let _ = self.memory.read(start, &mut bytes);
                    bytes
                });
                line[offset as usize] = byte;
            }
        }
        for &vcpu in &freedom.stale {
            // A VM exit serializes: a processor that is out of its guest has fetched nothing of it ahead.
            if let Some(cpu) = self.cpus.get_mut(vcpu as usize).filter(|cpu| cpu.guest_mode) {
                lines.iter().for_each(|(line, bytes)| cpu.keep_line(*line, *bytes));
            }
        }
    }

    /// What is done next for a virtual CPU, instead of now: others may come between.
    pub(crate) fn later(&mut self, vcpu: usize, stage: Stage) {
        self.vcpus[vcpu].next = Some(stage);
    }

    /// Does the next piece of the job of a virtual CPU. One that meets an absent page is not done: the virtual CPU waits.
    pub(crate) fn go_on(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.absent.is_some() { self.try_piece(vcpu, sink) } else { self.do_piece(vcpu, sink) }
    }

    /// Does the next piece of the job of a virtual CPU.
    pub(crate) fn do_piece(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        let Some(Job { report, stage }) = self.vcpus[vcpu].job.take() else { return Ok(()) };
        self.tell_granted(vcpu, sink);
        let outcome = match stage {
            Stage::Begin => self.handle(vcpu, &report, sink),
            stage => self.do_stage(vcpu, stage, sink),
        };
        self.piece_done(vcpu, &report, outcome)
    }

    /// Handles an exit that was told of, as far as that is done in one piece.
    #[inline]
    pub(crate) fn handle_noted(&mut self, vcpu: usize, report: &Report, sink: &mut dyn Sink) -> Result<(), Stop> {
        let outcome = self.handle(vcpu, report, sink);
        self.piece_done(vcpu, report, outcome)
    }

    /// Behind a piece of handling an exit: another one waits, or it was the last.
    #[inline(always)]
    fn piece_done(&mut self, vcpu: usize, report: &Report, outcome: Result<(), Stop>) -> Result<(), Stop> {
        match self.vcpus[vcpu].next.take() {
            Some(stage) if outcome.is_ok() => {
                self.vcpus[vcpu].job = Some(Job { report: *report, stage });
                self.follow_shadowed_writes();
                Ok(())
            }
            _ => {
                // An exit counts when it is handled.
                self.common.statistics.exits += 1;
                outcome?;
                self.follow_shadowed_writes();
                self.check_progress(vcpu, report)
            }
        }
    }

    fn do_stage(&mut self, vcpu: usize, stage: Stage, sink: &mut dyn Sink) -> Result<(), Stop> {
        match stage {
            Stage::Begin => Ok(()),
            Stage::Write(write) => self.write_step(vcpu, *write, sink),
            Stage::Zap(registers, length) => {
                self.classic_zap(vcpu, *registers, length, sink);
                Ok(())
            }
            Stage::Fill { linear, code } => self.fill_shadow(vcpu, linear, PageFaultCode::from_bits(code), sink),
            Stage::Map { slot, guest_physical, writes } => {
                self.map_page(vcpu, &slot, guest_physical);
                if writes && !slot.read_only {
                    self.note_mapped_write(guest_physical);
                }
                Ok(())
            }
        }
    }

    /// Does everything that is left to do outside of a job: what an emulation without an exit has begun.
    pub(crate) fn do_stages(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        while let Some(stage) = self.vcpus[vcpu].next.take() {
            self.do_stage(vcpu, stage, sink)?;
        }
        Ok(())
    }

    /// Does the whole job of a virtual CPU, and first that of whoever it waits for; up to where somebody needs a page that is absent.
    pub(crate) fn finish(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        while self.vcpus[vcpu].job.is_some() {
            // Nobody who has the lock waits for it.
            let next = match self.vcpus[vcpu].waits {
                Some(Wait::Lock(_)) => self.common.lock.holder().unwrap_or(vcpu),
                _ => vcpu,
            };
            if matches!(self.vcpus[next].waits, Some(Wait::Page(_))) {
                return Ok(());
            }
            self.go_on(next, sink)?;
        }
        Ok(())
    }

    /// What is to be done with a virtual CPU that is out of its guest, with no exit left to handle; one that has something to wake for runs.
    #[inline(always)]
    pub(crate) fn way_in(&mut self, vcpu: usize) -> Result<WayIn, Stop> {
        self.take_signals(vcpu);
        if !self.wakes(vcpu) {
            return Ok(WayIn::Asleep);
        }
        let software = &mut self.vcpus[vcpu].software;
        if software.activity == Activity::Halted {
            // A kick wakes once.
            software.kicked = false;
        }
        software.activity = Activity::Running;
        if let Some(pause) = self.arrival(vcpu) {
            return Err(Stop::Paused(pause));
        }
        let refused = self.restricted && self.silicon(vcpu, |backend, cpu| backend.refuses(cpu));
        Ok(if refused { WayIn::Emulate } else { WayIn::Enter })
    }

    /// Maps the page of a fault, and gives the lock back.
    fn map_page(&mut self, vcpu: usize, slot: &Slot, guest_physical: u64) {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.nested_fault_fix);
        if let Mmu::Nested(nested) = &mut self.mmu
            && nested.map(&mut self.memory, slot, guest_physical)
        {
            self.flush_all();
        }
        self.unlock_mappings(vcpu);
    }
}
