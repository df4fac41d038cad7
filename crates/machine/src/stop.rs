//! How a run ends.

use board::Outcome;
use cpu::trap::NotModelled;

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of all processors together.
    pub instructions: u64,
    /// Cycles of simulated time.
    pub cycles: u64,
}

impl Limits {
    /// No bounds.
    pub const NONE: Self = Self { instructions: u64::MAX, cycles: u64::MAX };
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest asked for it through a device.
    Outcome(Outcome),
    /// Every processor sleeps and nothing can wake one.
    Halted,
    /// A processor shut down: a triple fault.
    Shutdown {
        /// Which.
        cpu: u32,
    },
    /// The limit of instructions is reached.
    InstructionLimit,
    /// The limit of cycles is reached.
    CycleLimit,
    /// A processor's log of deliveries is full: whoever asked for it has to take it before the run goes on.
    Deliveries,
    /// The guest did something that is not modelled.
    NotModelled {
        /// On which processor.
        cpu: u32,
        /// What.
        what: Box<NotModelled>,
    },
}
