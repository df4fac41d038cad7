//! What a run needs of a machine, and the bare machine's way to give it.
//!
//! Two hosts exist: the bare machine here, and the hypervisor with its guest in [`crate::virtual_host`].

use crate::environment::{self, EntryState};
use crate::file::{Access, Invariant, Policy, Start, Stop};
use crate::guest::{Image, Program};
use crate::register::{Place, Register};
use crate::verdict::Registers;
use board::Outcome;
use board::loader::{self, Kind, LoadOptions, Module};
use cpu::Cpu;
use cpu::block::Compile;
use cpu::state::Activity;
use isa::control::{Cr0, Cr4, Efer};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use machine::checkpoint::{self, Checkpoint};
use machine::watch::Watch;
use machine::{Machine, MachineConfig};
use memory::Memory;
use migration::Settings;
use models::CpuModel;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::Range;
use stream::Writer;
use trace::Sink;

/// The section that holds what a host is beside its machine.
pub(crate) const HOST_SECTION: &str = "host";
/// Its version.
pub(crate) const HOST_VERSION: u16 = 1;

/// What is said when every CPU sleeps.
pub const ASLEEP: &str = "every CPU sleeps, and nothing can wake one";

/// What is said where only a hypervisor could do something.
pub const NOBODY: &str = "without a hypervisor there is nobody who could";

/// What is said of a bare machine that is to move.
pub const IMMOVABLE: &str = "a machine without a hypervisor cannot move";

/// Why a run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The reason.
    pub stop: Stop,
    /// The same in words, with what is known besides.
    pub detail: String,
    /// What the guest wrote to the debug exit.
    pub exit_code: Option<u32>,
}

impl Ending {
    /// An end with its words.
    pub fn new(stop: Stop, detail: impl Into<String>) -> Self {
        Self { stop, detail: detail.into(), exit_code: None }
    }

    /// The end that a guest asked for through a device.
    pub fn asked(outcome: Outcome) -> Self {
        match outcome {
            Outcome::DebugExit { code } => {
                Self { exit_code: Some(code), ..Self::new(Stop::DebugExit, format!("the guest wrote {code:#x} to the debug exit")) }
            }
            Outcome::Shutdown => Self::new(Stop::Shutdown, "the guest asked for its shutdown"),
            Outcome::Reset { cause } => Self::new(Stop::Reset, format!("the guest asked for a reset ({cause:?})")),
        }
    }
}

/// Totals since the start of a run, and bounds for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Instructions of all CPUs.
    pub instructions: u64,
    /// Cycles of simulated time.
    pub cycles: u64,
    /// VM exits.
    pub exits: u64,
    /// Hypercalls.
    pub hypercalls: u64,
}

/// A moment that a host is to wait for, its labels resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// So many VM exits.
    Exit(u64),
    /// This cycle.
    Cycle(u64),
    /// So many instructions.
    Instruction(u64),
    /// So many hypercalls.
    Hypercall(u64),
    /// A CPU is about to execute the instruction at a linear address.
    Address {
        /// The address.
        address: u64,
        /// The how-manieth time.
        pass: u64,
    },
}

/// Why a host gives control back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The moment has come.
    Moment,
    /// A limit is reached.
    Limit(Stop),
    /// The moment of [`Host::interrupt_at`] has come.
    Interrupted,
    /// The run is over.
    Over(Ending),
}

/// A machine as a run sees it.
pub trait Host {
    /// Runs until the moment has come, a limit is reached or the run is over.
    ///
    /// A moment is waited for until it comes: the same one must be passed again after a limit.
    fn run(&mut self, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause;
    /// Has the next run end at a moment, which shows nowhere: the run goes on afterwards as if it had not ended. With nothing, no run ends so.
    fn interrupt_at(&mut self, moment: Option<Until>);
    /// Writes the machine.
    ///
    /// # Errors
    /// The operating system's; or there is no machine any more.
    fn checkpoint(&mut self, writer: &mut Writer<&mut dyn Write>) -> Result<(), checkpoint::Error>;
    /// Goes on as the machine of a checkpoint of itself; whoever waits for an interruption of the run waits on. `loaded` knows memory as the guest
    /// was loaded.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    fn renew(&mut self, from: &mut Checkpoint, compile: Compile, loaded: &dyn Fn() -> Option<Memory>) -> Result<(), checkpoint::Error>;
    /// Totals so far; the cycles are those of the CPU that is furthest ahead.
    fn totals(&self) -> Totals;
    /// The model of the processors now; nothing where the guest was lost in a move.
    fn model(&self) -> Option<&'static CpuModel>;
    /// How many CPUs there are.
    fn vcpus(&self) -> u32;
    /// For each CPU whose last VM entry or VMRUN broke a rule, what it was made with.
    fn refused_entries(&mut self) -> Vec<(u32, audit::State)>;
    /// Registers of a CPU.
    fn registers(&mut self, vcpu: u32) -> Registers;
    /// Changes a register.
    fn set_register(&mut self, place: Place, value: u64);
    /// Reads guest-physical memory; `false` where there is no RAM.
    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool;
    /// Writes guest-physical memory; `false` where there is no RAM.
    fn write_memory(&mut self, address: u64, from: &[u8]) -> bool;
    /// Changes what the guest may do with a range of its memory.
    ///
    /// # Errors
    /// Says why it cannot be changed.
    fn protect(&mut self, range: Range<u64>, access: Access) -> Result<(), String>;
    /// Serial output since the last call.
    fn take_serial(&mut self) -> Vec<u8>;
    /// Bytes for the guest to read from its serial port.
    fn serial_input(&mut self, bytes: &[u8]);
    /// An interrupt for the local APIC of a CPU.
    fn interrupt(&mut self, vcpu: u32, vector: u8);
    /// A non-maskable interrupt for a CPU.
    fn nmi(&mut self, vcpu: u32);
    /// An exception for a CPU at its next VM entry; the bare machine has nobody who could.
    fn exception(&mut self, vcpu: u32, vector: u8, error_code: Option<u32>, address: u64);
    /// An overflow of a performance counter at the local APIC of a CPU.
    fn counter_overflow(&mut self, vcpu: u32);
    /// Holds every CPU for so many cycles, while time, timers and devices go on.
    ///
    /// # Errors
    /// Says why they cannot be held.
    fn hold(&mut self, cycles: u64, sink: &mut dyn Sink) -> Result<(), String>;
    /// Goes on by a schedule, and holds every step to invariants.
    ///
    /// # Errors
    /// Says why it cannot.
    fn follow(&mut self, turns: Vec<hypervisor::Turn>, invariants: &[Invariant]) -> Result<(), String>;
    /// The invariants that did not hold so far.
    fn violations(&self) -> Vec<Invariant>;
    /// A machine that goes on exactly as this one.
    fn fork(&mut self) -> Box<dyn Host>;
    /// Moves the guest to another CPU model.
    ///
    /// # Errors
    /// Says why it cannot move.
    fn migrate(&mut self, to: &'static CpuModel, policy: Policy, sink: &mut dyn Sink) -> Result<(), String>;
    /// Moves the guest over a link while it runs, within limits, and tells how that went. With a pause the run does not go on: nobody may run
    /// the guest, or its run was over before.
    ///
    /// # Errors
    /// Says why there is nothing to move.
    fn move_live(
        &mut self,
        settings: &Settings,
        limits: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(migration::Report, Option<Pause>), String>;
    /// What a live move would come to.
    ///
    /// # Errors
    /// Says why there is nothing to move.
    fn check_move(&mut self, settings: &Settings) -> Result<migration::Check, String>;
}

/// What a machine is made of.
#[derive(Clone, Copy, Debug)]
pub struct HostConfig {
    /// Its CPU model.
    pub cpu: &'static CpuModel,
    /// How many CPUs.
    pub vcpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// Perturbs the order of CPUs.
    pub seed: u64,
    /// What may be chosen of the hypervisor, but for `compile`.
    pub hypervisor: hypervisor::Options,
    /// When code is compiled.
    pub compile: Compile,
    /// Whether the bare machine is watched, instruction by instruction, for deliveries, and VM entries and exits of its guest.
    pub watch: bool,
    /// Whether the trace tells of what CPUs deliver through the guest's own IDT.
    pub deliveries: bool,
    /// The model that the guest's CPUID tells of, if it is another one.
    pub guest_cpu: Option<&'static CpuModel>,
    /// What is taken away from that model's CPUID.
    pub levelling: hypervisor::guest_cpu::Levelling,
}

/// What an image becomes when it is loaded: bytes for memory, and the state of every CPU that starts.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// A program in one of this crate's environments: pieces of memory, and entry states by CPU.
    Program(Vec<(u64, Vec<u8>)>, Vec<EntryState>),
    /// An image with an entry of its own.
    Image(loader::Image),
}

/// Prepares an image for a machine.
///
/// # Errors
/// Says what is wrong with the image.
pub fn load(image: &Image, vcpus: u32, memory: u64) -> Result<Loaded, String> {
    match image {
        Image::Program(program) => Ok(load_program(program, vcpus)),
        Image::Elf(bytes) => {
            let options = LoadOptions { kind: Kind::Elf, memory_size: memory, ..LoadOptions::default() };
            loader::load(bytes, &options).map(Loaded::Image).map_err(|error| crate::boot::with_help(&error))
        }
        Image::Multiboot { bytes, name, command_line, modules } => {
            let modules = modules.iter().map(|(text, bytes)| Module { text: text.clone(), bytes: bytes.clone() }).collect();
            let options = LoadOptions {
                kind: Kind::Multiboot,
                memory_size: memory,
                image_name: name.clone(),
                command_line: command_line.clone(),
                modules,
                ..LoadOptions::default()
            };
            loader::load(bytes, &options).map(Loaded::Image).map_err(|error| crate::boot::with_help(&error))
        }
    }
}

/// Prepares a program for a machine.
pub fn load_program(program: &Program, vcpus: u32) -> Loaded {
    let mut pieces = environment::tables(program.mode, vcpus, &program.handlers);
    pieces.extend(program.pieces.iter().cloned());
    let starting = if program.start == Start::All { vcpus } else { 1 };
    let has_handlers = !program.handlers.is_empty();
    let states = (0..starting).map(|vcpu| environment::entry_state(program.mode, program.entry, vcpu, vcpus, has_handlers)).collect();
    Loaded::Program(pieces, states)
}

/// Puts a CPU into the state its program starts in.
pub fn enter(cpu: &mut Cpu, state: &EntryState) {
    cpu.regs = [0; 17];
    cpu.cr0 = state.cr0;
    cpu.cr3 = state.cr3;
    cpu.cr4 = state.cr4;
    cpu.efer = state.efer;
    cpu.segments = state.segments;
    cpu.tr = state.tr;
    cpu.gdtr = state.gdtr;
    cpu.idtr = state.idtr;
    cpu.rip = state.rip;
    cpu.set_gpr(Gpr::Rsp, state.rsp);
    cpu.set_gpr(Gpr::Rdi, state.rdi);
    cpu.set_rflags(Rflags::new().normalized());
    cpu.cpl = 0;
    cpu.activity = Activity::Active;
    if state.rdi == 0 {
        // As firmware leaves it: the 8259's interrupts reach the first CPU through LINT0.
        cpu.apic.set_virtual_wire();
    }
    cpu.flush_tlb();
}

/// The registers of a CPU as reports show them.
pub fn registers_of(cpu: &Cpu) -> Registers {
    let mut general = [0; 16];
    general.copy_from_slice(&cpu.regs[..16]);
    Registers {
        general,
        rip: cpu.rip,
        rflags: cpu.rflags().into_bits(),
        control: [cpu.cr0.into_bits(), cpu.cr2, cpu.cr3, cpu.cr4.into_bits()],
        efer: cpu.efer.into_bits(),
        selectors: cpu.segments.map(|segment| segment.selector.into_bits()),
        cpl: cpu.cpl,
    }
}

/// Changes a register of a CPU; registers that cannot be changed alone are refused when a scenario is loaded.
pub fn set_register_of(cpu: &mut Cpu, register: Register, value: u64) {
    match register {
        Register::Gpr(gpr) => cpu.set_gpr(gpr, value),
        Register::Rip => cpu.rip = value,
        Register::Rflags => cpu.set_rflags(Rflags::from_bits(value).normalized()),
        Register::Control(0) => cpu.cr0 = Cr0::from_bits(value),
        Register::Control(2) => cpu.cr2 = value,
        Register::Control(3) => cpu.cr3 = value,
        Register::Control(_) => cpu.cr4 = Cr4::from_bits(value),
        Register::Efer => cpu.efer = Efer::from_bits(value),
        Register::Low(_) | Register::Selector(_) | Register::Cpl => {}
    }
    cpu.flush_tlb();
}

/// The linear address of a CPU's next instruction and how many it has begun, unless it sleeps.
pub fn place_of(cpu: &Cpu) -> Option<(u64, u64)> {
    let base = if cpu.is_64bit() { 0 } else { cpu.segment(Segment::Cs).base };
    (cpu.activity == Activity::Active).then(|| (base.wrapping_add(cpu.rip), cpu.instructions()))
}

/// A machine without a hypervisor.
#[derive(Debug)]
pub struct BareHost {
    machine: Machine,
    /// With it, every instruction is watched for deliveries, and for VM entries and exits of a guest that is a hypervisor.
    watch: Option<Watch>,
    /// Arrivals at the address that is waited for.
    arrivals: Option<Arrivals>,
    /// When the run is interrupted, and arrivals at that address.
    interruption: Option<(Until, Option<Arrivals>)>,
}

/// What a checkpoint keeps of a bare machine's host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BareRecord {
    watch: Option<Watch>,
    arrivals: Option<Arrivals>,
}

/// Arrivals of CPUs at an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrivals {
    address: u64,
    seen: u64,
    /// Per CPU: how many instructions it had begun when it was last counted, so that no arrival counts twice.
    counted: Vec<Option<u64>>,
}

impl BareHost {
    /// A machine with its guest loaded.
    ///
    /// # Errors
    /// Says why the guest does not fit.
    pub fn new(config: &HostConfig, loaded: &Loaded) -> Result<Self, String> {
        let mut machine =
            Machine::new(&MachineConfig { model: config.cpu, cpu_count: config.vcpus, memory_size: config.memory, seed: config.seed });
        machine.code.compile(config.compile);
        match loaded {
            Loaded::Program(pieces, states) => {
                for (address, bytes) in pieces {
                    machine.memory.write(*address, bytes).map_err(|error| error.to_string())?;
                }
                for (cpu, state) in machine.cpus.iter_mut().zip(states) {
                    enter(cpu, state);
                }
            }
            Loaded::Image(image) => {
                machine::load_image(image, &mut machine.memory, 0, &mut machine.cpus[0]).map_err(|error| error.to_string())?;
            }
        }
        let watch = config.watch.then(|| Watch::new(&mut machine, config.deliveries));
        Ok(Self { machine, watch, arrivals: None, interruption: None })
    }

    /// The machine of a checkpoint.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    pub fn restore(from: &mut Checkpoint, compile: Compile) -> Result<Self, checkpoint::Error> {
        let record: BareRecord = from.take(HOST_SECTION, HOST_VERSION)?;
        let mut machine = Machine::restore(from)?;
        machine.code.compile(compile);
        let count = machine.cpus.len();
        if machine.cpus.iter().any(|cpu| cpu.logs_deliveries() != record.watch.is_some()) {
            return Err(checkpoint::Error::impossible(HOST_SECTION, "a log of deliveries that nobody takes, or none where one is wanted"));
        }
        if record.arrivals.as_ref().is_some_and(|arrivals| arrivals.counted.len() != count) {
            return Err(checkpoint::Error::impossible(HOST_SECTION, "arrivals of other CPUs than there are"));
        }
        Ok(Self { machine, watch: record.watch, arrivals: record.arrivals, interruption: None })
    }

    /// Watches from now on, with or without deliveries, or does not.
    pub fn watch(&mut self, deliveries: Option<bool>) {
        match (&mut self.watch, deliveries) {
            (Some(watch), Some(deliveries)) => watch.tell_deliveries(deliveries),
            (none, Some(deliveries)) => *none = Some(Watch::new(&mut self.machine, deliveries)),
            (watch, None) => {
                *watch = None;
                for cpu in &mut self.machine.cpus {
                    cpu.log_deliveries(false);
                }
            }
        }
    }

    /// Whether a moment has come. What counts arrivals is made when it is first needed.
    fn has_come(machine: &Machine, totals: &Totals, moment: Until, arrivals: &mut Option<Arrivals>) -> bool {
        match moment {
            Until::Cycle(cycle) => totals.cycles >= cycle,
            Until::Instruction(count) => totals.instructions >= count,
            Until::Address { address, pass } => Self::arrived(machine, address, arrivals) >= pass,
            // There are no exits and no hypercalls here; loading refuses to wait for them.
            Until::Exit(_) | Until::Hypercall(_) => false,
        }
    }

    /// How often a CPU has come to an address so far.
    fn arrived(machine: &Machine, address: u64, arrivals: &mut Option<Arrivals>) -> u64 {
        let arrivals = match arrivals {
            Some(arrivals) if arrivals.address == address => arrivals,
            other => other.insert(Arrivals { address, seen: 0, counted: vec![None; machine.cpus.len()] }),
        };
        for (cpu, counted) in machine.cpus.iter().zip(&mut arrivals.counted) {
            if let Some((place, begun)) = place_of(cpu)
                && place == address
                && *counted != Some(begun)
            {
                *counted = Some(begun);
                arrivals.seen += 1;
            }
        }
        arrivals.seen
    }
}

/// What is said about something that is not modelled.
pub fn not_modelled(cpu: u32, what: &cpu::trap::NotModelled) -> Ending {
    let mut detail = format!("not modelled: {} at RIP {:#x} of CPU {cpu}", what.what, what.rip);
    if !what.bytes.is_empty() {
        let bytes: Vec<String> = what.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        detail += &format!(", bytes {} ({})", bytes.join(" "), what.text);
    }
    Ending::new(Stop::Unsupported, detail)
}

impl Host for BareHost {
    fn run(&mut self, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        loop {
            let totals = self.totals();
            let mut bounds = machine::Limits { instructions: limits.instructions, cycles: limits.cycles };
            if let Some(until) = until
                && Self::has_come(&self.machine, &totals, until, &mut self.arrivals)
            {
                self.arrivals = None;
                return Pause::Moment;
            }
            if let Some((moment, arrivals)) = &mut self.interruption
                && Self::has_come(&self.machine, &totals, *moment, arrivals)
            {
                self.interruption = None;
                return Pause::Interrupted;
            }
            for moment in until.into_iter().chain(self.interruption.as_ref().map(|(moment, _)| *moment)) {
                match moment {
                    Until::Cycle(cycle) => bounds.cycles = bounds.cycles.min(cycle),
                    Until::Instruction(count) => bounds.instructions = bounds.instructions.min(count),
                    Until::Address { .. } => bounds.instructions = bounds.instructions.min(totals.instructions + 1),
                    Until::Exit(_) | Until::Hypercall(_) => {}
                }
            }
            if totals.instructions >= limits.instructions {
                return Pause::Limit(Stop::InstructionLimit);
            }
            if self.watch.is_some() {
                bounds.instructions = bounds.instructions.min(totals.instructions + 1);
            }
            let stop = self.machine.run(&bounds);
            if let Some(watch) = &mut self.watch {
                watch.look(&mut self.machine, sink);
            }
            let ending = match stop {
                machine::Stop::InstructionLimit | machine::Stop::Deliveries => continue,
                // A moment: `totals` tells of the CPU that is furthest ahead, which may not be there yet.
                machine::Stop::CycleLimit if bounds.cycles < limits.cycles => {
                    if until == Some(Until::Cycle(bounds.cycles)) {
                        return Pause::Moment;
                    }
                    self.interruption = None;
                    return Pause::Interrupted;
                }
                machine::Stop::CycleLimit => return Pause::Limit(Stop::CycleLimit),
                machine::Stop::Outcome(outcome) => Ending::asked(outcome),
                machine::Stop::Halted => Ending::new(Stop::Halted, ASLEEP),
                machine::Stop::Shutdown { cpu } => Ending::new(Stop::TripleFault, format!("triple fault on CPU {cpu}")),
                machine::Stop::NotModelled { cpu, what } => not_modelled(cpu, &what),
            };
            return Pause::Over(ending);
        }
    }

    fn interrupt_at(&mut self, moment: Option<Until>) {
        self.interruption = moment.map(|moment| (moment, None));
    }

    fn checkpoint(&mut self, writer: &mut Writer<&mut dyn Write>) -> Result<(), checkpoint::Error> {
        writer.value(HOST_SECTION, HOST_VERSION, &BareRecord { watch: self.watch.clone(), arrivals: self.arrivals.clone() })?;
        self.machine.checkpoint(writer)
    }

    fn renew(&mut self, from: &mut Checkpoint, compile: Compile, _: &dyn Fn() -> Option<Memory>) -> Result<(), checkpoint::Error> {
        *self = Self { interruption: self.interruption.take(), ..Self::restore(from, compile)? };
        Ok(())
    }

    fn totals(&self) -> Totals {
        Totals {
            instructions: self.machine.cpus.iter().map(|cpu| cpu.instructions()).sum(),
            cycles: self.machine.cpus.iter().map(|cpu| cpu.cycles()).max().unwrap_or(0),
            exits: 0,
            hypercalls: 0,
        }
    }

    fn model(&self) -> Option<&'static CpuModel> {
        self.machine.cpus.first().map(|cpu| cpu.model)
    }

    fn vcpus(&self) -> u32 {
        self.machine.cpus.len() as u32
    }

    fn refused_entries(&mut self) -> Vec<(u32, audit::State)> {
        let cpus = self.machine.cpus.iter_mut().zip(0..);
        cpus.filter_map(|(cpu, number)| machine::refused_entry(cpu).map(|state| (number, state))).collect()
    }

    fn registers(&mut self, vcpu: u32) -> Registers {
        registers_of(&self.machine.cpus[vcpu as usize])
    }

    fn set_register(&mut self, place: Place, value: u64) {
        self.machine.look();
        set_register_of(&mut self.machine.cpus[place.vcpu as usize], place.register, value);
    }

    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.machine.memory.read(address, into).is_ok()
    }

    fn write_memory(&mut self, address: u64, from: &[u8]) -> bool {
        self.machine.memory.write(address, from).is_ok()
    }

    fn protect(&mut self, _: Range<u64>, _: Access) -> Result<(), String> {
        Err(NOBODY.to_owned())
    }

    fn take_serial(&mut self) -> Vec<u8> {
        self.machine.take_serial()
    }

    fn serial_input(&mut self, bytes: &[u8]) {
        self.machine.look();
        self.machine.board.serial_input(bytes);
    }

    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        self.machine.look();
        self.machine.cpus[vcpu as usize].accept(&fixed(vector));
    }

    fn nmi(&mut self, vcpu: u32) {
        self.machine.look();
        self.machine.cpus[vcpu as usize].nmi_pending = true;
    }

    /// Loading refuses it: there is no VM entry.
    fn exception(&mut self, _: u32, _: u8, _: Option<u32>, _: u64) {}

    fn counter_overflow(&mut self, vcpu: u32) {
        self.machine.look();
        self.machine.cpus[vcpu as usize].counter_overflow();
    }

    fn hold(&mut self, _: u64, _: &mut dyn Sink) -> Result<(), String> {
        Err(NOBODY.to_owned())
    }

    fn fork(&mut self) -> Box<dyn Host> {
        Box::new(Self { machine: self.machine.fork(), watch: self.watch.clone(), arrivals: self.arrivals.clone(), interruption: None })
    }

    fn migrate(&mut self, _: &'static CpuModel, _: Policy, _: &mut dyn Sink) -> Result<(), String> {
        Err(IMMOVABLE.to_owned())
    }

    fn move_live(&mut self, _: &Settings, _: &Totals, _: &mut dyn Sink) -> Result<(migration::Report, Option<Pause>), String> {
        Err(IMMOVABLE.to_owned())
    }

    fn check_move(&mut self, _: &Settings) -> Result<migration::Check, String> {
        Err(IMMOVABLE.to_owned())
    }

    fn follow(&mut self, _: Vec<hypervisor::Turn>, _: &[Invariant]) -> Result<(), String> {
        Err("the bare machine has no steps to choose among".to_owned())
    }

    fn violations(&self) -> Vec<Invariant> {
        Vec::new()
    }
}

/// A fixed, edge-triggered interrupt as the bus carries it.
pub fn fixed(vector: u8) -> isa::apic::ApicMessage {
    isa::apic::ApicMessage { destination: 0, logical: false, mode: isa::apic::DeliveryMode::Fixed, vector, level: false }
}
