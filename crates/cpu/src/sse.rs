//! SSE to SSE4.2 and SSE4A, AES and PCLMULQDQ, MXCSR, FXSAVE and XSAVE.
//!
//! What is modelled: every legacy-encoded instruction on XMM and MMX registers, with the alignment rule of their memory operands
//! (SDM vol 1, 11.4.1.1 and 4.1.1 "Alignment of Words, Doublewords, Quadwords, and Double Quadwords"), their availability (SDM vol 3, 2.5
//! "Control Registers", and 13.1.3 "Initialization of the SSE Extensions"), MXCSR with all six exceptions masked and unmasked, rounding,
//! denormals-are-zeros and flush-to-zero; FXSAVE, XSAVE and their kin for x87 and SSE state.
//! What is not: AVX, 3DNow!. They end as not modelled, or as #UD where CPUID lacks them.
//!
//! The few instructions that compiled code is full of have handlers of their own in [`crate::semantics::double`]; they are found here, too,
//! because a processor on which SSE is not usable now has to execute them as functions that say so.

mod approximation;
mod arithmetic;
mod compare;
mod control;
mod convert;
mod cryptography;
pub(crate) mod double;
mod float;
mod horizontal;
mod integer;
mod mmx;
mod moves;
mod operand;
mod save;
mod shuffle;
mod supplement;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use crate::state::Cpu;
use crate::system::{Entry, Function};
use crate::trap::{Outcome, Trap};
use iced_x86::Instruction;

/// The function of an instruction, if it is one of this module's.
pub(crate) fn find(instruction: &Instruction) -> Option<Entry> {
    let function: Option<Function> = mmx::find(instruction)
        .or_else(|| moves::find(instruction))
        .or_else(|| integer::find(instruction.mnemonic()))
        .or_else(|| supplement::find(instruction.mnemonic()))
        .or_else(|| shuffle::find(instruction.mnemonic()))
        .or_else(|| arithmetic::find(instruction.mnemonic()))
        .or_else(|| horizontal::find(instruction.mnemonic()))
        .or_else(|| compare::find(instruction))
        .or_else(|| convert::find(instruction.mnemonic()))
        .or_else(|| approximation::find(instruction.mnemonic()))
        .or_else(|| control::find(instruction.mnemonic()))
        .or_else(|| save::find(instruction.mnemonic()))
        .or_else(|| text::find(instruction.mnemonic()))
        .or_else(|| cryptography::find(instruction.mnemonic()));
    function.and_then(Entry::plain)
}

impl Cpu {
    /// Faults if SSE instructions cannot be executed now. SDM vol 3, Table 13-1 "Action Taken for Combinations of OSFXSR, OSXMMEXCPT, SSE,
    /// SSE2, SSE3, EM, MP, and TS".
    pub(crate) fn require_sse(&self) -> Outcome {
        if self.cr0.em() || !self.cr4.osfxsr() {
            return Err(Trap::UD);
        }
        if self.cr0.ts() { Err(Trap::NM) } else { Ok(()) }
    }
}
