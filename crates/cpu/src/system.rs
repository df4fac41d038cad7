//! Instructions that are plain functions over the processor: rare, complicated, or both. Both tiers call them.

use crate::state::Cpu;
use crate::trap::Outcome;
use iced_x86::Instruction;

/// How control goes on after a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next instruction.
    Next,
    /// The next instruction, but the engine looks at everything first (modes, interrupts, a processor put to sleep).
    End,
    /// RIP was set.
    Jump,
    /// The same instruction again (an iteration of a string instruction was done; registers are up to date).
    Again,
}

/// An instruction as a function. On entry `Cpu::rip` is the instruction's own address; on `Err` nothing has changed.
pub(crate) type Function = fn(&mut Cpu, &Instruction) -> Outcome<Flow>;

/// A function with what the decoder must know about it.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub function: Function,
    /// Nothing may follow it in its block.
    pub ends_block: bool,
}

/// The function of an instruction, if it is one.
pub(crate) fn find(instruction: &Instruction) -> Option<Entry> {
    let _ = instruction;
    None
}
