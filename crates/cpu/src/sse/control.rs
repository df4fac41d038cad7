//! MXCSR: LDMXCSR, STMXCSR, and what becomes of the exceptions that an instruction raised.

use super::float::Float;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::{Access, Exception, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M};
use isa::exception::Vector;

/// The bits of MXCSR that may be set, as FXSAVE reports them in MXCSR_MASK. SDM vol 1, 11.6.6 "Guidelines for Writing to the MXCSR
/// Register". Bit 17 (misaligned exception mask, AMD) is in no model.
pub(super) const MXCSR_MASK: u32 = 0xffff;

impl Cpu {
    /// MXCSR as an instruction sees it.
    #[inline(always)]
    pub(super) fn float(&self) -> Float {
        Float::new(self.mxcsr)
    }

    /// Sets the flags of what was raised, in whichever element, and faults if any of it is not masked: #XM, or #UD where the operating
    /// system did not ask for that. The flags are set either way; the destination is not. SDM vol 1, 11.5.3 "Generating SIMD Floating-Point
    /// Exceptions".
    #[inline]
    pub(super) fn settle(&mut self, float: Float) -> Outcome {
        self.mxcsr |= float.raised();
        if float.unmasked() == 0 {
            return Ok(());
        }
        Err(if self.cr4.osxmmexcpt() { Trap::Exception(Exception::plain(Vector::SimdFloatingPoint)) } else { Trap::UD })
    }

    /// Sets MXCSR; #GP(0) for reserved bits.
    pub(super) fn set_mxcsr(&mut self, value: u32) -> Outcome {
        check_mxcsr(value)?;
        self.mxcsr = value;
        Ok(())
    }
}

/// #GP(0) for reserved bits.
pub(super) fn check_mxcsr(value: u32) -> Outcome {
    if value & !MXCSR_MASK != 0 { Err(Trap::GP0) } else { Ok(()) }
}

fn load_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let linear = cpu.memory_linear(instruction, 4, Access::Read)?;
    let value = cpu.load(linear, 4)? as u32;
    cpu.set_mxcsr(value)?;
    Ok(Flow::Next)
}

fn store_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let linear = cpu.memory_linear(instruction, 4, Access::Write)?;
    cpu.store(linear, 4, u64::from(cpu.mxcsr))?;
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Ldmxcsr => load_control,
        M::Stmxcsr => store_control,
        _ => return None,
    })
}
