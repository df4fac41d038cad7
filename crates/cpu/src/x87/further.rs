//! FSQRT, FPREM, FPREM1, FSCALE, FXTRACT, FRNDINT, and the transcendental instructions.
//!
//! What is modelled: SDM vol 1, 8.3.5 "Basic Arithmetic Instructions", 8.3.7 "Trigonometric Instructions" and 8.3.11 "Logarithmic,
//! Exponential, and Scale". What the functions are is in `arithmetic` and `transcendental`; here is what they do to stack and condition codes.

use super::arithmetic::Quotient;
use super::number::{Calculation, INDEFINITE, ONE, Operand};
use super::stack::{C0, C1, C2, C3, begin};
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// ST(0) by a function of itself.
fn unary(cpu: &mut Cpu, instruction: &Instruction, f: fn(&mut Calculation, &Operand) -> u128) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let Some(operand) = pending.operand(0) else { return pending.underflow(0, 0) };
    let mut calculation = pending.calculation();
    let result = f(&mut calculation, &operand);
    pending.finish(calculation, |pending| pending.set(0, result))
}

/// A function of ST(0) and ST(1): to ST(0), or with a pop to ST(1), which is ST(0) then.
fn binary(cpu: &mut Cpu, instruction: &Instruction, pops: u16, f: fn(&mut Calculation, &Operand, &Operand) -> u128) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let (Some(a), Some(b)) = (pending.operand(0), pending.operand(1)) else { return pending.underflow(usize::from(pops), pops) };
    let mut calculation = pending.calculation();
    let result = f(&mut calculation, &a, &b);
    pending.finish(calculation, |pending| {
        pending.set(usize::from(pops), result);
        pending.pop(pops);
    })
}

/// FPREM and FPREM1: C2 tells that the reduction is not complete; C0, C3 and C1 are the low bits of the quotient.
fn remainder(cpu: &mut Cpu, instruction: &Instruction, nearest: bool) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let (Some(a), Some(b)) = (pending.operand(0), pending.operand(1)) else {
        pending.conditions(C2, 0);
        return pending.underflow(0, 0);
    };
    let mut calculation = pending.calculation();
    let remainder = calculation.remainder(&a, &b, nearest);
    let (which, bits) = match remainder.quotient {
        Quotient::None => (C2, 0),
        Quotient::Incomplete => (C0 | C1 | C2 | C3, C2),
        Quotient::Low(quotient) => {
            let codes = [(4, C0), (2, C3), (1, C1)].into_iter().filter(|(bit, _)| quotient & bit != 0);
            (C0 | C1 | C2 | C3, codes.fold(0, |all, (_, code)| all | code))
        }
    };
    pending.conditions(C2, 0);
    pending.finish(calculation, |pending| {
        pending.set(0, remainder.value);
        pending.conditions(which, bits);
    })
}

/// FXTRACT: the exponent replaces the number, and the significand is pushed.
fn extract(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let overflow = pending.stack(0).is_some();
    let Some(operand) = pending.operand(0).filter(|_| pending.stack(7).is_none()) else {
        return pending.stack_fault(overflow, |pending| {
            pending.set(0, INDEFINITE);
            pending.push(INDEFINITE);
        });
    };
    let mut calculation = pending.calculation();
    let (exponent, significand) = calculation.extract(&operand);
    pending.finish(calculation, |pending| {
        pending.set(0, exponent);
        pending.push(significand);
    })
}

/// FSIN and FCOS: C2 tells that the number is out of range.
fn trigonometric(cpu: &mut Cpu, instruction: &Instruction, f: fn(&mut Calculation, &Operand) -> Option<u128>) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let Some(operand) = pending.operand(0) else {
        pending.conditions(C2, 0);
        return pending.underflow(0, 0);
    };
    let mut calculation = pending.calculation();
    let result = f(&mut calculation, &operand);
    pending.conditions(C2, if result.is_none() { C2 } else { 0 });
    pending.finish(calculation, |pending| {
        if let Some(result) = result {
            pending.set(0, result);
        }
    })
}

/// FSINCOS and FPTAN: the first result replaces the number, the second is pushed.
fn trigonometric_pair(
    cpu: &mut Cpu,
    instruction: &Instruction,
    f: fn(&mut Calculation, &Operand) -> Option<(u128, u128)>,
) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let overflow = pending.stack(0).is_some();
    let Some(operand) = pending.operand(0).filter(|_| pending.stack(7).is_none()) else {
        pending.conditions(C2, 0);
        return pending.stack_fault(overflow, |pending| {
            pending.set(0, INDEFINITE);
            pending.push(INDEFINITE);
        });
    };
    let mut calculation = pending.calculation();
    let result = f(&mut calculation, &operand);
    pending.conditions(C2, if result.is_none() { C2 } else { 0 });
    pending.finish(calculation, |pending| {
        if let Some((first, second)) = result {
            pending.set(0, first);
            pending.push(second);
        }
    })
}

/// FPTAN: a NaN is pushed twice, a tangent with a one.
fn tangent(calculation: &mut Calculation, operand: &Operand) -> Option<(u128, u128)> {
    let result = calculation.tangent(operand)?;
    let is_nan = Operand::new(result).is_nan();
    Some((result, if is_nan { result } else { ONE }))
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Fsqrt => |cpu, instruction| unary(cpu, instruction, Calculation::square_root),
        M::Frndint => |cpu, instruction| unary(cpu, instruction, Calculation::round_to_integer),
        M::Fscale => |cpu, instruction| binary(cpu, instruction, 0, Calculation::scale),
        M::Fxtract => extract,
        M::Fprem => |cpu, instruction| remainder(cpu, instruction, false),
        M::Fprem1 => |cpu, instruction| remainder(cpu, instruction, true),
        M::F2xm1 => |cpu, instruction| unary(cpu, instruction, Calculation::power_minus_one),
        M::Fyl2x => |cpu, instruction| binary(cpu, instruction, 1, Calculation::logarithm),
        M::Fyl2xp1 => |cpu, instruction| binary(cpu, instruction, 1, Calculation::logarithm_plus_one),
        M::Fpatan => |cpu, instruction| binary(cpu, instruction, 1, Calculation::arctangent),
        M::Fsin => |cpu, instruction| trigonometric(cpu, instruction, Calculation::sine),
        M::Fcos => |cpu, instruction| trigonometric(cpu, instruction, Calculation::cosine),
        M::Fsincos => |cpu, instruction| trigonometric_pair(cpu, instruction, Calculation::sine_and_cosine),
        M::Fptan => |cpu, instruction| trigonometric_pair(cpu, instruction, tangent),
        _ => return None,
    })
}
