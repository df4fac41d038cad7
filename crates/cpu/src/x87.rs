//! The x87 unit: eight registers of 80 bits as a stack, and every instruction on them.
//!
//! What is modelled: the instruction set of SDM vol 1, 8.3 "x87 FPU Instruction Set", with tags, condition codes, precision and rounding control,
//! the six exceptions masked and unmasked, stack faults, environments. Arithmetic is that of `number` and `arithmetic`, on integers of our own:
//! every bit and flag is compared with a processor's. The transcendental functions are computed to more than 100 bits and rounded once, so
//! they are the same on every host; a real processor's last bit may differ.
//! What is not: errors by the FERR# pin (CR0.NE clear), which end the run; the processor's own way to approximate.

mod arithmetic;
mod basic;
mod control;
mod convert;
mod further;
mod number;
mod stack;
#[cfg(test)]
mod tests;
mod transcendental;
mod wide;

pub(crate) use control::{adopt, wait_for_exceptions};

use crate::system::{Entry, Function};
use iced_x86::Instruction;

/// The function of an instruction, if it is one of this module's.
pub(crate) fn find(instruction: &Instruction) -> Option<Entry> {
    let function: Option<Function> =
        basic::find(instruction).or_else(|| further::find(instruction.mnemonic())).or_else(|| control::find(instruction.mnemonic()));
    function.and_then(Entry::plain)
}
