//! RCL, RCR, SHLD, SHRD.

use super::{AF, CF, OF, PF, SF, ZF, flag, result_flags, width_of};
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic};

/// RCL and RCR: a rotation of one bit more than the operand has. OF is made for every count by the rule for a count of one.
pub(super) fn through_carry(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let count = cpu.read_operand(instruction, 1)? as u32 & if width == 64 { 63 } else { 31 };
    let value = cpu.read_operand_for_update(instruction, 0)?;
    let turn = count % (width + 1);
    let left = if instruction.mnemonic() == Mnemonic::Rcl || turn == 0 { turn } else { width + 1 - turn };
    let wide = u128::from(value) | u128::from(cpu.rflags().cf()) << width;
    let wide = (wide << left | wide >> (width + 1 - left)) & ((1 << (width + 1)) - 1);
    let result = wide as u64 & mask(width);
    cpu.write_operand(instruction, 0, result)?;
    // A whole turn of an 8- or 16-bit operand changes no flag.
    if turn != 0 {
        let carry = wide >> width & 1 != 0;
        let top = result >> (width - 1) & 1 != 0;
        let next = result >> (width - 2) & 1 != 0;
        let overflow = if instruction.mnemonic() == Mnemonic::Rcl { top != carry } else { top != next };
        cpu.set_status(CF | OF, flag(CF, carry) | flag(OF, overflow));
    }
    Ok(Flow::Next)
}

/// SHLD and SHRD. A count above 16 for 16-bit operands, undefined by the manual, goes on into a second copy of the destination.
pub(super) fn double(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let count = cpu.read_operand(instruction, 2)? as u32 & if width == 64 { 63 } else { 31 };
    let filling = u128::from(cpu.read_operand(instruction, 1)?);
    let value = cpu.read_operand_for_update(instruction, 0)?;
    if count == 0 {
        cpu.write_operand(instruction, 0, value)?;
        return Ok(Flow::Next);
    }
    let wide = u128::from(value);
    let (result, carry) = if instruction.mnemonic() == Mnemonic::Shld {
        if width == 16 {
            let all = wide << 32 | filling << 16 | wide;
            ((all << count >> 32) as u64, all >> (48 - count) & 1 != 0)
        } else {
            let all = wide << width | filling;
            ((all << count >> width) as u64, wide >> (width - count) & 1 != 0)
        }
    } else {
        let all = if width == 16 { wide << 32 | filling << 16 | wide } else { filling << width | wide };
        ((all >> count) as u64, all >> (count - 1) & 1 != 0)
    };
    let result = result & mask(width);
    cpu.write_operand(instruction, 0, result)?;
    let overflow = (value ^ result) >> (width - 1) & 1 != 0;
    cpu.set_status(CF | OF | SF | ZF | PF | AF, result_flags(width, result) | flag(CF, carry) | flag(OF, overflow));
    Ok(Flow::Next)
}
