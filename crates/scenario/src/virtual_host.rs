//! A guest under the hypervisor.

use crate::file::{Access, Invariant, Policy, Stop};
use crate::host::{ASLEEP, Ending, HOST_SECTION, HOST_VERSION, Host, HostConfig, Loaded, Pause, Totals, Until, enter, not_modelled};
use crate::invariants::{Monitor, MonitorRecord};
use crate::register::{Place, Register};
use crate::verdict::Registers;
use cpu::Cpu;
use cpu::block::Compile;
use hypervisor::{AnyVm, Limits, Moment, PauseId, Rights, VmConfig};
use machine::checkpoint::{self, Checkpoint};
use memory::Memory;
use migration::{Ending as Ended, Report, Settings};
use models::CpuModel;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::Range;
use stream::Writer;
use trace::{Event, Record, Sink, Tee};

/// A hypervisor with its guest.
#[derive(Debug)]
pub struct VirtualHost {
    /// `None` after a move that failed half-way: then there is no guest any more.
    vm: Option<AnyVm>,
    vcpus: u32,
    last: Totals,
    /// The cycle at which a live move left nobody to run it.
    stranded: Option<u64>,
    /// The moment that was asked for last, and its name.
    waiting: Option<(Until, PauseId)>,
    /// The name of the moment at which the run is interrupted.
    interruption: Option<PauseId>,
    /// Moments that came during a live move, and were told to nobody yet.
    passed: Vec<PauseId>,
    policy: Policy,
    /// Who looks at every step, if somebody does.
    monitor: Option<Monitor>,
    violations: Vec<Invariant>,
}

/// What a checkpoint keeps of it, beside the guest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostedRecord {
    waiting: Option<(Until, PauseId)>,
    /// What is known by whoever looks at every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<MonitorRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Invariant>,
}

/// The hypervisor's own word for a moment.
fn moment(until: Until) -> Moment {
    match until {
        Until::Exit(count) => Moment::Exit(count),
        Until::Cycle(cycle) => Moment::Cycle(cycle),
        Until::Instruction(count) => Moment::Instruction(count),
        Until::Hypercall(count) => Moment::Hypercall(count),
        Until::Address { address, pass } => Moment::Address { address, pass },
    }
}

/// The hypervisor's own bounds of a run.
pub(crate) fn bounds_of(limits: &Totals) -> Limits {
    Limits { instructions: limits.instructions, cycles: limits.cycles, exits: limits.exits }
}

/// The hypervisor's own word for a policy; `None` for no hypervisor.
fn policy(policy: Policy) -> Option<hypervisor::Policy> {
    hypervisor::Policy::from_name(crate::load::policy_name(policy))
}

impl VirtualHost {
    /// A hypervisor with its guest loaded.
    ///
    /// # Errors
    /// Says why the processors cannot run it, or why the guest does not fit.
    pub fn new(config: &HostConfig, chosen: Policy, loaded: &Loaded) -> Result<Self, String> {
        let guest_cpu = config.guest_cpu.unwrap_or(config.cpu);
        let mut vm = AnyVm::new(&VmConfig {
            guest_model: config.guest_cpu,
            levelling: config.levelling,
            cpu_count: config.vcpus,
            memory_size: config.memory,
            seed: config.seed,
            policy: policy(chosen).ok_or("there is no hypervisor under the policy `none`")?,
            options: hypervisor::Options { compile: config.compile, ..config.hypervisor },
            ..VmConfig::new(config.cpu)
        })
        .map_err(|error| error.to_string())?;
        match loaded {
            Loaded::Image(image) => vm.load(image).map_err(|error| error.to_string())?,
            Loaded::Program(pieces, states) => {
                for (address, bytes) in pieces {
                    vm.write_memory(*address, bytes).map_err(|error| error.to_string())?;
                }
                for (vcpu, state) in states.iter().enumerate() {
                    let vcpu = vcpu as u32;
                    // A processor that nobody runs: only its registers matter.
                    let mut spare = Cpu::new(guest_cpu, vcpu, config.vcpus, None);
                    enter(&mut spare, state);
                    vm.set_registers(vcpu, &hypervisor::Registers::of(&spare));
                    vm.start(vcpu);
                }
            }
        }
        Ok(Self::of(vm, chosen))
    }

    fn of(vm: AnyVm, policy: Policy) -> Self {
        Self {
            vcpus: vm.cpu_count(),
            vm: Some(vm),
            last: Totals { instructions: 0, cycles: 0, exits: 0, hypercalls: 0 },
            stranded: None,
            waiting: None,
            interruption: None,
            passed: Vec::new(),
            policy,
            monitor: None,
            violations: Vec::new(),
        }
    }

    /// The guest of a checkpoint. `loaded` knows memory as the guest was loaded, which is asked for only where every step is looked at.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    pub fn restore(
        from: &mut Checkpoint,
        policy: Policy,
        compile: Compile,
        loaded: &dyn Fn() -> Option<Memory>,
    ) -> Result<Self, checkpoint::Error> {
        let record: HostedRecord = from.take(HOST_SECTION, HOST_VERSION)?;
        let mut vm = AnyVm::restore(from)?;
        vm.compile(compile);
        let impossible = |what: &str| checkpoint::Error::impossible(HOST_SECTION, what);
        let monitor = match record.monitor {
            None => None,
            Some(monitor) => {
                let loaded = loaded().ok_or_else(|| impossible("it is held to invariants, and nobody knows what was loaded"))?;
                Some(Monitor::restore(monitor, policy, loaded, &vm).map_err(impossible)?)
            }
        };
        if vm.watches_steps() != monitor.is_some() {
            return Err(impossible("steps that nobody looks at, or somebody who looks at none"));
        }
        Ok(Self { waiting: record.waiting, monitor, violations: record.violations, ..Self::of(vm, policy) })
    }

    /// Memory as the guest was loaded.
    pub fn into_memory(mut self) -> Option<Memory> {
        self.vm.as_mut().map(|vm| vm.memory_mut().snapshot())
    }

    /// Has the trace tell from now on of what the guest's own IDT delivers, or not.
    pub fn log_deliveries(&mut self, wanted: bool) {
        if let Some(vm) = &mut self.vm {
            vm.log_deliveries(wanted);
        }
    }

    /// The end of a run in this crate's words.
    pub(crate) fn ending(stop: hypervisor::Stop) -> Ending {
        match stop {
            hypervisor::Stop::Outcome(outcome) => Ending::asked(outcome),
            hypervisor::Stop::Halted => Ending::new(Stop::Halted, ASLEEP),
            hypervisor::Stop::TripleFault { vcpu } => Ending::new(Stop::TripleFault, format!("triple fault on CPU {vcpu}")),
            hypervisor::Stop::EntryFailure { vcpu, reasons } => {
                Ending::new(Stop::EntryFailure, format!("VM entry of CPU {vcpu} failed: {}", reasons.join("; ")))
            }
            hypervisor::Stop::Userspace { vcpu, reason } => {
                Ending::new(Stop::UserspaceExit, format!("user space has no part for {reason} of CPU {vcpu}"))
            }
            hypervisor::Stop::PageWanted { .. } | hypervisor::Stop::Waiting => {
                Ending::new(Stop::Stranded, "the guest waits for memory that is on another host, and nobody brings it")
            }
            hypervisor::Stop::Livelock { vcpu, rip, reason } => {
                Ending::new(Stop::Livelock, format!("CPU {vcpu} stays at {rip:#x} for ever, with {reason}"))
            }
            hypervisor::Stop::NotModelled { vcpu, what } => not_modelled(vcpu, &what),
            hypervisor::Stop::InstructionLimit => Ending::new(Stop::InstructionLimit, "the limit of instructions is reached"),
            hypervisor::Stop::CycleLimit => Ending::new(Stop::CycleLimit, "the limit of cycles is reached"),
            hypervisor::Stop::ExitLimit => Ending::new(Stop::ExitLimit, "the limit of VM exits is reached"),
            hypervisor::Stop::Paused(_) | hypervisor::Stop::Stepped(_) => Ending::new(Stop::Script, "a pause that nobody waits for"),
        }
    }

    /// The guest; none after a move that failed.
    pub(crate) fn vm_mut(&mut self) -> Option<&mut AnyVm> {
        self.vm.as_mut()
    }

    /// See [`Host::fork`].
    pub(crate) fn fork_host(&mut self) -> Self {
        Self {
            vm: self.vm.as_mut().map(AnyVm::fork),
            vcpus: self.vcpus,
            last: self.last,
            stranded: self.stranded,
            waiting: self.waiting,
            interruption: None,
            passed: self.passed.clone(),
            policy: self.policy,
            monitor: self.monitor.clone(),
            violations: self.violations.clone(),
        }
    }

    /// The name of a pause at a moment, asked for once.
    fn pause(&mut self, until: Until) -> Option<PauseId> {
        if let Some((known, id)) = self.waiting
            && known == until
        {
            return Some(id);
        }
        let id = self.vm.as_mut()?.pause_at(moment(until));
        self.waiting = Some((until, id));
        Some(id)
    }

    /// What came during a live move comes behind it: first the moment that is waited for, because a checkpoint at the other one does not know of
    /// it any more.
    fn passed(&mut self, wanted: Option<PauseId>) -> Option<Pause> {
        let mut take = |wanted: Option<PauseId>| {
            let at = self.passed.iter().position(|passed| Some(*passed) == wanted)?;
            Some(self.passed.remove(at))
        };
        if take(wanted).is_some() {
            self.waiting = None;
            return Some(Pause::Moment);
        }
        let interrupted = take(self.interruption);
        self.passed.clear();
        interrupted.map(|_| {
            self.interruption = None;
            Pause::Interrupted
        })
    }
}

/// Why a run of the guest gives control back, in this crate's words.
fn pause_of(stop: hypervisor::Stop) -> Pause {
    match stop {
        hypervisor::Stop::InstructionLimit => Pause::Limit(Stop::InstructionLimit),
        hypervisor::Stop::CycleLimit => Pause::Limit(Stop::CycleLimit),
        hypervisor::Stop::ExitLimit => Pause::Limit(Stop::ExitLimit),
        stop => Pause::Over(VirtualHost::ending(stop)),
    }
}

/// What is said where a move has left nothing of the guest.
const LOST: &str = "the guest was lost in a move";

impl Host for VirtualHost {
    fn run(&mut self, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        let wanted = until.and_then(|until| self.pause(until));
        if let Some(pause) = self.passed(wanted) {
            return pause;
        }
        let limits = bounds_of(limits);
        loop {
            let Some(vm) = &mut self.vm else {
                return Pause::Over(Ending::new(Stop::Unsupported, LOST));
            };
            let mut records: Vec<Record> = Vec::new();
            let stop = match self.monitor {
                None => vm.run(sink, &limits),
                Some(_) => vm.run(&mut Tee(&mut records, &mut *sink), &limits),
            };
            match stop {
                hypervisor::Stop::Paused(pause) if Some(pause) == wanted => {
                    self.waiting = None;
                    return Pause::Moment;
                }
                hypervisor::Stop::Paused(pause) if Some(pause) == self.interruption => {
                    self.interruption = None;
                    return Pause::Interrupted;
                }
                // A moment that is waited for no more.
                hypervisor::Stop::Paused(_) => {}
                hypervisor::Stop::Stepped(step) => {
                    let Some(monitor) = &mut self.monitor else { continue };
                    for violation in monitor.look(vm, &step, &records) {
                        let invariant = violation.invariant.name();
                        sink.emit(vm.cycles(), violation.vcpu, Event::Violation { invariant, detail: violation.detail });
                        if !self.violations.contains(&violation.invariant) {
                            self.violations.push(violation.invariant);
                        }
                    }
                }
                stop => return pause_of(stop),
            }
        }
    }

    fn interrupt_at(&mut self, until: Option<Until>) {
        let Some(vm) = &mut self.vm else { return };
        if let Some(id) = self.interruption.take() {
            vm.forget_pause(id);
        }
        self.interruption = until.map(|until| vm.pause_at(moment(until)));
    }

    fn checkpoint(&mut self, writer: &mut Writer<&mut dyn Write>) -> Result<(), checkpoint::Error> {
        let vm = self.vm.as_mut().ok_or_else(|| checkpoint::Error::impossible(HOST_SECTION, LOST))?;
        let monitor = self.monitor.as_ref().map(Monitor::record);
        writer.value(HOST_SECTION, HOST_VERSION, &HostedRecord { waiting: self.waiting, monitor, violations: self.violations.clone() })?;
        vm.checkpoint(writer)
    }

    fn renew(&mut self, from: &mut Checkpoint, compile: Compile, loaded: &dyn Fn() -> Option<Memory>) -> Result<(), checkpoint::Error> {
        let (interruption, passed) = (self.interruption, std::mem::take(&mut self.passed));
        *self = Self { interruption, passed, ..Self::restore(from, self.policy, compile, loaded)? };
        Ok(())
    }

    fn totals(&self) -> Totals {
        let Some(vm) = &self.vm else { return self.last };
        let statistics = vm.statistics();
        let cycles = vm.cycles().max(self.stranded.unwrap_or(0));
        Totals { instructions: vm.instructions(), cycles, exits: statistics.exits, hypercalls: statistics.hypercalls }
    }

    fn model(&self) -> Option<&'static CpuModel> {
        self.vm.as_ref().map(AnyVm::model)
    }

    fn vcpus(&self) -> u32 {
        self.vcpus
    }

    fn refused_entries(&mut self) -> Vec<(u32, audit::State)> {
        self.vm.as_mut().map(hypervisor::AnyVm::refused_entries).unwrap_or_default()
    }

    fn registers(&mut self, vcpu: u32) -> Registers {
        let Some(vm) = &mut self.vm else { return Registers::default() };
        let registers = vm.registers(vcpu);
        Registers {
            general: registers.gprs,
            rip: registers.rip,
            rflags: registers.rflags.into_bits(),
            control: [registers.cr0.into_bits(), registers.cr2, registers.cr3, registers.cr4.into_bits()],
            efer: registers.efer.into_bits(),
            selectors: registers.segments.map(|segment| segment.selector.into_bits()),
            cpl: registers.cpl,
        }
    }

    fn set_register(&mut self, place: Place, value: u64) {
        let Some(vm) = &mut self.vm else { return };
        let mut registers = vm.registers(place.vcpu);
        match place.register {
            Register::Gpr(gpr) => registers.gprs[gpr.number()] = value,
            Register::Rip => registers.rip = value,
            Register::Rflags => registers.rflags = isa::rflags::Rflags::from_bits(value).normalized(),
            Register::Control(0) => registers.cr0 = isa::control::Cr0::from_bits(value),
            Register::Control(2) => registers.cr2 = value,
            Register::Control(3) => registers.cr3 = value,
            Register::Control(_) => registers.cr4 = isa::control::Cr4::from_bits(value),
            Register::Efer => registers.efer = isa::control::Efer::from_bits(value),
            Register::Low(_) | Register::Selector(_) | Register::Cpl => {}
        }
        vm.set_registers(place.vcpu, &registers);
    }

    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.vm.as_ref().is_some_and(|vm| vm.read_memory(address, into).is_ok())
    }

    fn write_memory(&mut self, address: u64, from: &[u8]) -> bool {
        self.vm.as_mut().is_some_and(|vm| vm.write_memory(address, from).is_ok())
    }

    fn protect(&mut self, range: Range<u64>, access: Access) -> Result<(), String> {
        let rights = match access {
            Access::None => Rights::Absent,
            Access::ReadOnly => Rights::ReadOnly,
            Access::ReadWrite => Rights::ReadWrite,
        };
        let vm = self.vm.as_mut().ok_or(LOST)?;
        vm.protect(range, rights).map_err(|error| error.to_string())
    }

    fn take_serial(&mut self) -> Vec<u8> {
        self.vm.as_mut().map(AnyVm::take_serial).unwrap_or_default()
    }

    fn serial_input(&mut self, bytes: &[u8]) {
        if let Some(vm) = &mut self.vm {
            vm.board_mut().serial_input(bytes);
        }
    }

    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        if let Some(vm) = &mut self.vm {
            vm.interrupt(vcpu, vector);
        }
    }

    fn nmi(&mut self, vcpu: u32) {
        if let Some(vm) = &mut self.vm {
            vm.nmi(vcpu);
        }
    }

    fn exception(&mut self, vcpu: u32, vector: u8, error_code: Option<u32>, address: u64) {
        if let (Some(vm), Some(vector)) = (&mut self.vm, isa::exception::Vector::from_number(vector)) {
            vm.exception(vcpu, vector, error_code, address);
        }
    }

    fn counter_overflow(&mut self, vcpu: u32) {
        if let Some(vm) = &mut self.vm {
            vm.counter_overflow(vcpu);
        }
    }

    fn hold(&mut self, cycles: u64, sink: &mut dyn Sink) -> Result<(), String> {
        let vm = self.vm.as_mut().ok_or(LOST)?;
        vm.hold(cycles, sink).map_err(|stop| format!("a CPU does not leave its guest: {stop:?}"))
    }

    fn follow(&mut self, turns: Vec<hypervisor::Turn>, invariants: &[Invariant]) -> Result<(), String> {
        let vm = self.vm.as_mut().ok_or(LOST)?;
        vm.follow(hypervisor::Schedule::new(turns));
        if !invariants.is_empty() {
            self.monitor = Some(Monitor::new(invariants, self.policy, vm));
            vm.watch_steps(true);
        }
        Ok(())
    }

    fn violations(&self) -> Vec<Invariant> {
        self.violations.clone()
    }

    fn fork(&mut self) -> Box<dyn Host> {
        Box::new(self.fork_host())
    }

    fn migrate(&mut self, to: &'static CpuModel, chosen: Policy, sink: &mut dyn Sink) -> Result<(), String> {
        let options = self.vm.as_ref().ok_or(LOST)?.options();
        hypervisor::check_model(to, options.paging).map_err(|error| error.to_string())?;
        self.last = self.totals();
        let vm = self.vm.take().ok_or(LOST)?;
        let (vm, _) = vm.migrate(to, policy(chosen), sink).map_err(|error| error.to_string())?;
        self.vm = Some(vm);
        Ok(())
    }

    fn move_live(&mut self, settings: &Settings, limits: &Totals, sink: &mut dyn Sink) -> Result<(Report, Option<Pause>), String> {
        self.last = self.totals();
        let vm = self.vm.take().ok_or(LOST)?;
        let outcome = migration::migrate(vm, settings, &bounds_of(limits), sink);
        self.vm = outcome.vm;
        self.passed.extend(outcome.passed);
        self.last = match outcome.last {
            Some((instructions, counts)) => {
                Totals { instructions, cycles: outcome.report.end, exits: counts.exits, hypercalls: counts.hypercalls }
            }
            None => Totals { cycles: outcome.report.end, ..self.last },
        };
        let pause = match outcome.ending {
            Ended::Moved | Ended::MovedInDoubt | Ended::Stayed => None,
            Ended::Stranded => {
                self.stranded = Some(outcome.report.end);
                Some(Pause::Over(Ending::new(Stop::Stranded, outcome.report.ending.clone())))
            }
            Ended::Over(stop) => Some(pause_of(stop)),
        };
        Ok((outcome.report, pause))
    }

    fn check_move(&mut self, settings: &Settings) -> Result<migration::Check, String> {
        Ok(migration::check(self.vm.as_mut().ok_or(LOST)?, settings))
    }
}
