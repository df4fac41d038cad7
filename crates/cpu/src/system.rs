//! Instructions that are plain functions over the processor: rare, complicated, or both. Both tiers call them.

mod call;
mod control;
pub(crate) mod descriptor;
mod far;
mod flags;
mod integer;
mod interrupt;
mod msr;
mod ports;
mod processor;
mod segment;
mod stack;
mod strings;
mod vendor;
pub(crate) mod virtual_8086;

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

impl Entry {
    /// Other instructions may follow it in its block.
    pub(crate) const fn plain(function: Function) -> Option<Self> {
        Some(Self { function, ends_block: false })
    }

    /// Nothing may follow it in its block: it changes what decoding, privilege or interrupts depend on, or may never go on to the next
    /// instruction.
    pub(crate) const fn last(function: Function) -> Option<Self> {
        Some(Self { function, ends_block: true })
    }
}

/// Whether an instruction is among those that every block is full of and whose every form has semantics: a short cut of `find`.
fn is_everyday(instruction: &Instruction) -> bool {
    use iced_x86::{Mnemonic as M, OpKind};
    match instruction.mnemonic() {
        M::Add | M::Adc | M::Sub | M::Sbb | M::And | M::Or | M::Xor | M::Cmp | M::Test | M::Inc | M::Dec | M::Neg | M::Not => true,
        M::Mov => (0..2).all(|operand| instruction.op_kind(operand) != OpKind::Register || instruction.op_register(operand).is_gpr()),
        _ => false,
    }
}

/// The function of an instruction, if it is one. Asked only when a block is decoded.
pub(crate) fn find(instruction: &Instruction) -> Option<Entry> {
    if is_everyday(instruction) {
        return None;
    }
    integer::find(instruction)
        .or_else(|| strings::find(instruction))
        .or_else(|| vendor::find(instruction))
        .or_else(|| ports::find(instruction))
        .or_else(|| crate::sse::find(instruction))
        .or_else(|| crate::x87::find(instruction))
        .or_else(|| stack::find(instruction))
        .or_else(|| control::find(instruction))
        .or_else(|| segment::find(instruction))
        .or_else(|| far::find(instruction))
        .or_else(|| interrupt::find(instruction))
        .or_else(|| flags::find(instruction))
        .or_else(|| call::find(instruction))
        .or_else(|| msr::find(instruction))
        .or_else(|| processor::find(instruction))
}
