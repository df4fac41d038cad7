//! A whole bare machine: processors, memory and board, interleaved in simulated time.
//!
//! What is modelled: one to [`MAXIMUM_CPUS`] processors of one model around one memory and one [`board::Board`], loading of images, routing
//! of interrupts, and the interleaving of processors ([`schedule`]). What is not: anything that runs on the machine. The software side's own
//! loop over the same parts is in the `hypervisor` crate.

mod bus;
pub mod checkpoint;
mod load;
pub mod schedule;
mod stop;
pub mod watch;

pub use bus::MachineBus;
pub use load::load_image;
pub use stop::{Limits, Stop};

use board::{Board, BoardConfig};
use cpu::apic::Lint;
use cpu::block::CodeCache;
use cpu::bus::{Bus as _, Environment};
use cpu::extension::Extension;
use cpu::state::Activity;
use cpu::{Cpu, RunExit};
use memory::Memory;
use models::{CpuModel, Vendor};
use schedule::{Interleaving, Turn};
use serde::{Deserialize, Serialize};
use timing::TICKS_PER_CYCLE;

/// The most processors a machine may have: what an 8-bit APIC ID can name.
pub const MAXIMUM_CPUS: u32 = 254;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// The model of every processor.
    pub model: &'static CpuModel,
    /// How many.
    pub cpu_count: u32,
    /// RAM in bytes.
    pub memory_size: u64,
    /// Perturbs the interleaving of processors; 0 leaves it as it is.
    pub seed: u64,
}

/// A machine. Every part of it is state, but for the caches inside of its processors and the blocks of `code`: see [`Machine::fork`].
#[derive(Debug)]
pub struct Machine {
    /// The processors by number.
    pub cpus: Vec<Box<Cpu>>,
    /// RAM.
    pub memory: Memory,
    /// Decoded code of all processors.
    pub code: CodeCache,
    /// The devices.
    pub board: Board,
    interleaving: Interleaving,
    unfinished: Option<Unfinished>,
    serial: Vec<u8>,
}

/// A turn that a limit broke off. It goes on where it was, so that whoever looks in between changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unfinished {
    /// The processor.
    pub number: usize,
    /// When the turn ends, in ticks.
    pub until: u64,
}

/// The silicon of a model's vendor.
pub fn extension_of(model: &'static CpuModel) -> Option<Box<dyn Extension>> {
    match model.vendor {
        Vendor::Intel => model.vmx.as_ref().map(|capabilities| Box::new(vmx::Vmx::new(capabilities)) as Box<dyn Extension>),
        Vendor::Amd => model.svm.map(|capabilities| Box::new(svm::Svm::new(capabilities)) as Box<dyn Extension>),
    }
}

/// The control structure with which a processor's last VM entry or VMRUN broke a rule, for an explanation; nothing if that one was good.
pub fn refused_entry(cpu: &mut Cpu) -> Option<audit::State> {
    let model = cpu.model;
    cpu.with_extension(|extension, _| {
        let extension = extension.as_any();
        if let Some(vmx) = extension.downcast_ref::<vmx::Vmx>() {
            return audit::State::refused_by_vmx(model, vmx);
        }
        extension.downcast_ref::<svm::Svm>().and_then(|svm| audit::State::refused_by_svm(model, svm))
    })?
}

/// The physical address space behind RAM of `size` bytes: what lies above the device hole is moved to 4 GiB.
pub fn address_space(size: u64) -> u64 {
    if size > cpu::access::DEVICE_HOLE_START { size + (cpu::access::DEVICE_HOLE_END - cpu::access::DEVICE_HOLE_START) } else { size }
}

impl Machine {
    /// A machine after power-up.
    pub fn new(config: &MachineConfig) -> Self {
        let count = config.cpu_count.clamp(1, MAXIMUM_CPUS);
        Self {
            cpus: (0..count).map(|number| Cpu::new(config.model, number, count, extension_of(config.model))).collect(),
            memory: Memory::new(address_space(config.memory_size)),
            code: CodeCache::new(),
            board: Board::new(&BoardConfig {
                cpu_count: count,
                ram_size: config.memory_size,
                cycles_per_second: config.model.tsc_hz,
                ..BoardConfig::default()
            }),
            interleaving: Interleaving::new(config.seed),
            unfinished: None,
            serial: Vec::new(),
        }
    }

    /// A machine that goes on exactly as this one; only between runs. Memory is shared until one of the two writes it.
    pub fn fork(&mut self) -> Self {
        Self {
            cpus: self.cpus.iter().map(|cpu| cpu.fork()).collect(),
            memory: self.memory.snapshot(),
            code: self.code.fork(),
            board: self.board.clone(),
            interleaving: self.interleaving.clone(),
            unfinished: self.unfinished,
            serial: self.serial.clone(),
        }
    }

    /// Serial output since the last call.
    pub fn take_serial(&mut self) -> Vec<u8> {
        self.collect_serial();
        std::mem::take(&mut self.serial)
    }

    fn collect_serial(&mut self) {
        self.serial.extend(self.board.serial_output());
    }

    /// Something came from outside of the guest: who runs next is asked anew, even where a limit broke off a turn.
    pub fn look(&mut self) {
        self.unfinished = None;
    }

    /// Runs until the guest stops itself, nothing can happen any more, or a limit is reached.
    ///
    /// Limits change nothing but where the run ends: the next one goes on as this one would have.
    pub fn run(&mut self, limits: &Limits) -> Stop {
        let end = limits.cycles.saturating_mul(TICKS_PER_CYCLE);
        loop {
            let (turn, order) = match self.unfinished {
                Some(turn) => (turn, None),
                None => {
                    if let Some(outcome) = self.board.outcome() {
                        self.collect_serial();
                        return Stop::Outcome(outcome);
                    }
                    self.deliver_board_interrupts();
                    let next_board = self.board.next_event().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
                    let cpus = self.cpus.iter().map(|cpu| schedule::Candidate {
                        now: cpu.now(),
                        runnable: cpu.is_runnable(),
                        wakes: cpu.next_event(),
                    });
                    let mut order = self.interleaving.clone();
                    match order.next(cpus, next_board) {
                        Turn::Run { number, until } => (Unfinished { number, until }, Some(order)),
                        // Devices may tick for ever in front of processors that cannot hear them. (An I/O APIC programmed to send NMIs could;
                        // no device of this board makes it.)
                        Turn::Advance { .. } if self.cpus.iter().all(|cpu| cpu.is_deaf()) => return self.stopped(Stop::Halted),
                        Turn::Advance { to } => {
                            if to >= end {
                                return self.stopped(Stop::CycleLimit);
                            }
                            self.advance(to);
                            continue;
                        }
                        Turn::Dead => return self.stopped(Stop::Halted),
                    }
                }
            };
            let Unfinished { number, until } = turn;
            if self.cpus[number].now() >= end {
                return self.stopped(Stop::CycleLimit);
            }
            let allowed = limits.instructions.saturating_sub(self.instructions());
            if allowed == 0 {
                return self.stopped(Stop::InstructionLimit);
            }
            // No limit is in front of the turn: else the order is as if nobody had asked for it.
            if let Some(order) = order {
                self.interleaving = order;
            }
            let (exit, attention) = self.run_one(number, until.min(end), allowed);
            let cpu = &self.cpus[number];
            let full = cpu.deliveries_are_full();
            // What only the caller's limits, or the log that somebody has to take, have broken off.
            let broken_off = matches!(exit, RunExit::Time | RunExit::Instructions) || exit == RunExit::Attention && full;
            self.unfinished = (broken_off && !attention && cpu.now() < until).then_some(turn);
            match exit {
                RunExit::Attention if full => return self.stopped(Stop::Deliveries),
                RunExit::Time | RunExit::Instructions | RunExit::Idle | RunExit::Attention => {}
                RunExit::Shutdown => return self.stopped(Stop::Shutdown { cpu: number as u32 }),
                RunExit::HostEntry => unreachable!("a bare machine's host is machine code"),
                RunExit::NotModelled(what) => return self.stopped(Stop::NotModelled { cpu: number as u32, what }),
            }
        }
    }

    /// Instructions that all processors have begun.
    fn instructions(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.instructions()).sum()
    }

    fn stopped(&mut self, stop: Stop) -> Stop {
        self.collect_serial();
        stop
    }

    /// Runs one processor and passes on what it sent. Whether something happened that must be looked at before it goes on.
    fn run_one(&mut self, number: usize, until: u64, allowed: u64) -> (RunExit, bool) {
        let mut bus = MachineBus::new(&mut self.board);
        let processor = &mut self.cpus[number];
        let instructions = processor.instructions().saturating_add(allowed);
        let exit = processor.run(&mut Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus }, until, instructions);
        let attention = bus.attention();
        let sent = bus.take_sent();
        let now = self.cpus[number].now();
        for message in sent {
            let targets = cpu::apic::routing::ipi_targets(&message, number, self.cpus.iter().map(|cpu| &cpu.apic));
            for target in targets {
                self.reach(target, now);
                self.cpus[target].accept(&message.message);
            }
        }
        (exit, attention)
    }

    /// A processor that sleeps in the past of `now` is brought up to it before something reaches it.
    fn reach(&mut self, number: usize, now: u64) {
        let cpu = &mut self.cpus[number];
        if cpu.activity != Activity::Active && cpu.now() < now {
            cpu.set_now(now);
        }
    }

    /// Brings every sleeping processor and the board to a time at which something happens.
    fn advance(&mut self, to: u64) {
        self.board.advance(to.div_ceil(TICKS_PER_CYCLE));
        for number in 0..self.cpus.len() {
            self.reach(number, to);
        }
    }

    /// Messages of the I/O APIC and the line of the 8259.
    fn deliver_board_interrupts(&mut self) {
        if self.board.has_messages() {
            let now = self.cpus.iter().map(|cpu| cpu.now()).min().unwrap_or(0);
            let messages: Vec<_> = self.board.take_messages().collect();
            for message in messages {
                for target in cpu::apic::routing::targets(&message, self.cpus.iter().map(|cpu| &cpu.apic)) {
                    self.reach(target, now);
                    self.cpus[target].accept(&message);
                }
            }
        }
        // The 8259's output is wired to LINT0 of the first processor.
        let line = self.board.extint();
        self.cpus[0].set_lint(Lint::Lint0, line);
        self.cpus[0].ignore_numeric_error = self.board.ignores_numeric_error();
    }
}
