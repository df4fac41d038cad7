//! Conversions between single, double, and integers in XMM or general-purpose registers; rounding to integers. Those that involve MMX registers are not modelled.

use super::float::{Double, Float, Format, PRECISION, ROUNDING_SHIFT, Single};
use crate::operand::{mask, sign_extend};
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// Elements of `FROM` bits become elements of `TO` bits, as many as the wider of them leaves room for; what is left of the destination is
/// cleared.
#[inline(always)]
fn packed<const FROM: u32, const TO: u32>(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(&mut Float, u64) -> u64) -> Outcome<Flow> {
    cpu.require_sse()?;
    // A source of which only half is used is a quadword in memory.
    let source = if FROM < TO { u128::from(cpu.source_low(instruction, 1, 8)?) } else { cpu.source(instruction, 1)? };
    let mut float = cpu.float();
    let mut result = 0;
    for element in 0..128 / if FROM < TO { TO } else { FROM } {
        let value = (source >> (FROM * element)) as u64 & mask(FROM);
        result |= u128::from(f(&mut float, value)) << (TO * element);
    }
    cpu.settle(float)?;
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

/// CVTSS2SD, CVTSD2SS.
fn scalar<F: Format, T: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = cpu.source_low(instruction, 1, (F::BITS / 8) as u8)?;
    let mut float = cpu.float();
    let result = float.convert::<F, T>(value);
    cpu.settle(float)?;
    let old = cpu.xmm_operand(instruction, 0) as u64;
    cpu.set_xmm_low(instruction, old & !mask(T::BITS) | result);
    Ok(Flow::Next)
}

/// CVTSI2SS, CVTSI2SD.
fn from_integer<F: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let bits = u32::from(cpu.operand_bytes(instruction, 1)) * 8;
    let value = sign_extend(bits, cpu.read_operand(instruction, 1)?);
    let mut float = cpu.float();
    let result = float.number_of::<F>(value as i64);
    cpu.settle(float)?;
    let old = cpu.xmm_operand(instruction, 0) as u64;
    cpu.set_xmm_low(instruction, old & !mask(F::BITS) | result);
    Ok(Flow::Next)
}

/// CVTSS2SI, CVTSD2SI, and with `TRUNCATED` CVTTSS2SI, CVTTSD2SI.
fn to_integer<F: Format, const TRUNCATED: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = cpu.source_low(instruction, 1, (F::BITS / 8) as u8)?;
    let register = instruction.op0_register();
    let mut float = cpu.float();
    let result = float.integer_of::<F>(value, register.size() as u32 * 8, TRUNCATED);
    cpu.settle(float)?;
    cpu.write_register(register, result);
    Ok(Flow::Next)
}

/// The value of ROUNDPS and its kin: the immediate's bit 2 leaves rounding to MXCSR, its bit 3 keeps PE down.
fn integral<F: Format>(float: &mut Float, value: u64, mxcsr: u32, immediate: u8) -> u64 {
    let control = if immediate & 4 != 0 { mxcsr } else { u32::from(immediate & 3) << ROUNDING_SHIFT };
    if immediate & 8 == 0 {
        return float.integral::<F>(value, control);
    }
    let mut silent = Float::new(mxcsr);
    let result = silent.integral::<F>(value, control);
    float.raise(silent.raised() & !PRECISION);
    result
}

/// ROUNDPS, ROUNDPD.
fn round_packed<F: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mxcsr = cpu.mxcsr;
    super::arithmetic::packed::<F>(cpu, instruction, |float, _, value| integral::<F>(float, value, mxcsr, instruction.immediate8()))
}

/// ROUNDSS, ROUNDSD.
fn round_scalar<F: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mxcsr = cpu.mxcsr;
    super::arithmetic::scalar::<F>(cpu, instruction, |float, _, value| integral::<F>(float, value, mxcsr, instruction.immediate8()))
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Cvtss2sd => scalar::<Single, Double>,
        M::Cvtsd2ss => scalar::<Double, Single>,
        M::Cvtsi2ss => from_integer::<Single>,
        M::Cvtsi2sd => from_integer::<Double>,
        M::Cvtss2si => to_integer::<Single, false>,
        M::Cvtsd2si => to_integer::<Double, false>,
        M::Cvttss2si => to_integer::<Single, true>,
        M::Cvttsd2si => to_integer::<Double, true>,
        M::Roundps => round_packed::<Single>,
        M::Roundpd => round_packed::<Double>,
        M::Roundss => round_scalar::<Single>,
        M::Roundsd => round_scalar::<Double>,
        M::Cvtps2pd => |cpu, instruction| packed::<32, 64>(cpu, instruction, |float, value| float.convert::<Single, Double>(value)),
        M::Cvtpd2ps => |cpu, instruction| packed::<64, 32>(cpu, instruction, |float, value| float.convert::<Double, Single>(value)),
        M::Cvtdq2ps => {
            |cpu, instruction| packed::<32, 32>(cpu, instruction, |float, value| float.number_of::<Single>(i64::from(value as i32)))
        }
        M::Cvtdq2pd => {
            |cpu, instruction| packed::<32, 64>(cpu, instruction, |float, value| float.number_of::<Double>(i64::from(value as i32)))
        }
        M::Cvtps2dq => |cpu, instruction| packed::<32, 32>(cpu, instruction, |float, value| float.integer_of::<Single>(value, 32, false)),
        M::Cvttps2dq => |cpu, instruction| packed::<32, 32>(cpu, instruction, |float, value| float.integer_of::<Single>(value, 32, true)),
        M::Cvtpd2dq => |cpu, instruction| packed::<64, 32>(cpu, instruction, |float, value| float.integer_of::<Double>(value, 32, false)),
        M::Cvttpd2dq => |cpu, instruction| packed::<64, 32>(cpu, instruction, |float, value| float.integer_of::<Double>(value, 32, true)),
        _ => return None,
    })
}
