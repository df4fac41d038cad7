//! RDRAND and RDSEED, from a generator whose state is part of the processor: the same run reads the same numbers.
//!
//! The generator is SplitMix64. It always has a number ready, so CF is always set.

use super::{AF, CF, OF, PF, SF, ZF, width_of};
use crate::operand::mask;
use crate::random::split_mix_64;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Exit, Intercept, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic};

pub(super) fn read(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let intercept = if instruction.mnemonic() == Mnemonic::Rdrand { Intercept::Rdrand } else { Intercept::Rdseed };
    if cpu.interception.has(intercept) {
        return Err(Trap::Exit(Exit::Instruction { intercept, length: instruction.len() as u8 }));
    }
    let value = split_mix_64(&mut cpu.random) & mask(width_of(instruction, 0));
    cpu.write_operand(instruction, 0, value)?;
    cpu.set_status(CF | OF | SF | ZF | AF | PF, CF);
    Ok(Flow::Next)
}
