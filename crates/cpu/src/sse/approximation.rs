//! RCPPS, RCPSS, RSQRTPS, RSQRTSS: approximations, which differ from vendor to vendor and from core to core.
//!
//! What is modelled: the architectural bound, a relative error of at most 1.5 * 2^-12 (SDM vol 2, RCPPS and RSQRTPS), and the special cases
//! of both manuals. Ours is the same on every model: the exact value truncated to 23 fraction bits, then rounded to 12 of them, halves up,
//! so the relative error is about 2^-13 at most. MXCSR is neither read nor written: denormal operands count as zeros, and results that would be
//! denormal are zeros.

use super::float::{Format, Single};
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

const SIGN: u32 = Single::SIGN as u32;
const INFINITY: u32 = Single::INFINITY as u32;
const QUIET: u32 = Single::QUIET as u32;
/// The bits that the approximation clears.
const CLEARED: u32 = (1 << (23 - 12)) - 1;

/// Assembles a positive number from its exponent and its significand with 23 fraction bits, rounded to 12. A carry reaches the exponent.
fn assemble(exponent: i32, significand: u64) -> u32 {
    if exponent < -126 {
        return 0;
    }
    let bits = ((exponent + 126) as u32) << 23;
    (bits + significand as u32).wrapping_add(CLEARED.div_ceil(2)) & !CLEARED
}

/// Exponent and significand (23 fraction bits) of a normal number.
fn parts(magnitude: u32) -> (i32, u64) {
    ((magnitude >> 23) as i32 - 127, u64::from(magnitude & 0x7f_ffff | 0x80_0000))
}

/// 1/x.
pub(super) fn reciprocal(value: u32) -> u32 {
    let (sign, magnitude) = (value & SIGN, value & !SIGN);
    if magnitude > INFINITY {
        return value | QUIET;
    }
    if magnitude >> 23 == 0 {
        return sign | INFINITY;
    }
    if magnitude == INFINITY {
        return sign;
    }
    let (exponent, significand) = parts(magnitude);
    // 1/m is one, or it is between 1/2 and 1: 2/m, with 23 fraction bits, is 2^47 / significand.
    let result = if significand == 0x80_0000 { assemble(-exponent, 0x80_0000) } else { assemble(-exponent - 1, (1 << 47) / significand) };
    sign | result
}

/// 1/sqrt(x).
pub(super) fn reciprocal_root(value: u32) -> u32 {
    let (sign, magnitude) = (value & SIGN, value & !SIGN);
    if magnitude > INFINITY {
        return value | QUIET;
    }
    if magnitude >> 23 == 0 {
        return sign | INFINITY;
    }
    if sign != 0 {
        return Single::INDEFINITE as u32;
    }
    if magnitude == INFINITY {
        return 0;
    }
    let (exponent, significand) = parts(magnitude);
    // x = m * 4^k with m from 1 to 4, so that the result is 1/sqrt(m), from 1/2 to 1, times 2^-k.
    let (half, m) = (exponent >> 1, significand << (exponent & 1));
    if m == 0x80_0000 {
        return assemble(-half, 0x80_0000);
    }
    // 2/sqrt(m) is between 1 and 2; with 23 fraction bits it is the root of 2^48 / m, and `m` carries a factor of 2^23.
    assemble(-half - 1, ((1u128 << 71) / u128::from(m)).isqrt() as u64)
}

fn packed(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u32) -> u32) -> Outcome<Flow> {
    cpu.require_sse()?;
    let source = cpu.source(instruction, 1)?;
    let result = (0..128).step_by(32).fold(0, |result, shift| result | u128::from(f((source >> shift) as u32)) << shift);
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

fn scalar(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u32) -> u32) -> Outcome<Flow> {
    cpu.require_sse()?;
    let source = cpu.source_low(instruction, 1, 4)? as u32;
    let old = cpu.xmm_operand(instruction, 0) as u64;
    cpu.set_xmm_low(instruction, old >> 32 << 32 | u64::from(f(source)));
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Rcpps => |cpu, instruction| packed(cpu, instruction, reciprocal),
        M::Rcpss => |cpu, instruction| scalar(cpu, instruction, reciprocal),
        M::Rsqrtps => |cpu, instruction| packed(cpu, instruction, reciprocal_root),
        M::Rsqrtss => |cpu, instruction| scalar(cpu, instruction, reciprocal_root),
        _ => return None,
    })
}
