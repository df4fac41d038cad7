//! BMI1, BMI2 and ADX.

use super::{AF, CF, OF, PF, SF, ZF, flag, result_flags, width_of};
use crate::operand::{mask, sign_extend};
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M};
use isa::register::Gpr;

/// VEX-encoded instructions exist in protected mode only. SDM vol 2, 2.7.1 "Exceptions Conditions for VEX-Encoded GPR Instructions".
fn check_mode(cpu: &Cpu) -> Outcome {
    if cpu.is_protected() { Ok(()) } else { Err(Trap::UD) }
}

/// Bits of `value` put where `selector` has ones, from the lowest upwards.
fn deposit(value: u64, mut selector: u64) -> u64 {
    let mut result = 0;
    let mut bit = 1u64;
    while selector != 0 {
        let lowest = selector & selector.wrapping_neg();
        if value & bit != 0 {
            result |= lowest;
        }
        selector ^= lowest;
        bit <<= 1;
    }
    result
}

/// Bits of `value` where `selector` has ones, packed together at the bottom.
fn extract(value: u64, mut selector: u64) -> u64 {
    let mut result = 0;
    let mut bit = 1u64;
    while selector != 0 {
        let lowest = selector & selector.wrapping_neg();
        if value & lowest != 0 {
            result |= bit;
        }
        selector ^= lowest;
        bit <<= 1;
    }
    result
}

/// ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, and PDEP and PEXT, which change no flag.
pub(super) fn with_flags(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    check_mode(cpu)?;
    let width = width_of(instruction, 0);
    let bits = u64::from(width);
    let a = cpu.read_operand(instruction, 1)?;
    let b = if instruction.op_count() > 2 { cpu.read_operand(instruction, 2)? } else { 0 };
    let limit = mask(width);
    let (result, carry) = match instruction.mnemonic() {
        M::Andn => (!a & b & limit, false),
        M::Bextr => {
            let (start, length) = (b & 0xff, b >> 8 & 0xff);
            let shifted = if start < bits { a >> start } else { 0 };
            (shifted & mask(length.min(64) as u32), false)
        }
        M::Blsi => (a & a.wrapping_neg() & limit, a != 0),
        M::Blsmsk => ((a ^ a.wrapping_sub(1)) & limit, a == 0),
        M::Blsr => (a & a.wrapping_sub(1) & limit, a == 0),
        M::Bzhi => {
            let index = b & 0xff;
            (if index < bits { a & mask(index as u32) } else { a }, index >= bits)
        }
        mnemonic => {
            let result = if mnemonic == M::Pdep { deposit(a, b) } else { extract(a, b) };
            cpu.write_operand(instruction, 0, result)?;
            return Ok(Flow::Next);
        }
    };
    cpu.write_operand(instruction, 0, result)?;
    // AF and PF, undefined, are cleared; so is the undefined SF of BEXTR unless the result has the sign.
    cpu.set_status(CF | ZF | SF | OF | AF | PF, flag(CF, carry) | result_flags(width, result) & !PF);
    Ok(Flow::Next)
}

/// MULX: if both destinations are the same register, it holds the high half.
pub(super) fn mulx(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    check_mode(cpu)?;
    let width = width_of(instruction, 0);
    let source = cpu.read_operand(instruction, 2)?;
    let product = u128::from(source) * u128::from(cpu.gpr(Gpr::Rdx) & mask(width));
    cpu.write_operand(instruction, 1, product as u64 & mask(width))?;
    cpu.write_operand(instruction, 0, (product >> width) as u64 & mask(width))?;
    Ok(Flow::Next)
}

/// RORX, SARX, SHLX, SHRX: no flag changes.
pub(super) fn shift(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    check_mode(cpu)?;
    let width = width_of(instruction, 0);
    let value = cpu.read_operand(instruction, 1)?;
    let count = cpu.read_operand(instruction, 2)? as u32 & (width - 1);
    let result = match instruction.mnemonic() {
        M::Rorx if count == 0 => value,
        M::Rorx => value >> count | value << (width - count),
        M::Sarx => (sign_extend(width, value) as i64 >> count) as u64,
        M::Shlx => value << count,
        _ => value >> count,
    };
    cpu.write_operand(instruction, 0, result & mask(width))?;
    Ok(Flow::Next)
}

/// ADCX and ADOX: an addition with CF or OF as carry in and out, the other flags untouched.
pub(super) fn add_with_one_flag(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let bit = if instruction.mnemonic() == M::Adcx { CF } else { OF };
    let carry = cpu.rflags().into_bits() & bit != 0;
    let source = cpu.read_operand(instruction, 1)?;
    let sum = u128::from(cpu.read_operand(instruction, 0)?) + u128::from(source) + u128::from(carry);
    cpu.write_operand(instruction, 0, sum as u64 & mask(width))?;
    cpu.set_status(bit, flag(bit, sum >> width != 0));
    Ok(Flow::Next)
}
