//! RDRAND and RDSEED, from a generator whose state is part of the processor: the same run reads the same numbers.
//!
//! The generator is SplitMix64 (a counter stepped by the golden ratio, then mixed). It always has a number ready, so CF is always set.

use super::{AF, CF, OF, PF, SF, ZF, width_of};
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Exit, Intercept, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic};

impl Cpu {
    /// The next number.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

pub(super) fn read(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let intercept = if instruction.mnemonic() == Mnemonic::Rdrand { Intercept::Rdrand } else { Intercept::Rdseed };
    if cpu.interception.has(intercept) {
        return Err(Trap::Exit(Exit::Instruction { intercept, length: instruction.len() as u8 }));
    }
    let value = cpu.next_random() & mask(width_of(instruction, 0));
    cpu.write_operand(instruction, 0, value)?;
    cpu.set_status(CF | OF | SF | ZF | AF | PF, CF);
    Ok(Flow::Next)
}
