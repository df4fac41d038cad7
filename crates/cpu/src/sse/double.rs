//! Scalar double-precision arithmetic by the host's own, where that is certain to give the guest's result and flags.

use super::float::{Arithmetic, Double};
use crate::interpretation::DoubleOperation;
use crate::state::Cpu;
use crate::trap::Outcome;

/// MXCSR bits that the inline path looks at: PE set already (the result may be inexact), PM set, round to nearest, no DAZ, no FTZ.
const NEEDED: u32 = 0x0000_1020;
const LOOKED_AT: u32 = 0x0000_f060;

/// Whether MXCSR is such that the inline path can serve ordinary numbers.
#[inline(always)]
pub(crate) fn plain_doubles(mxcsr: u32) -> bool {
    mxcsr & LOOKED_AT == NEEDED
}

/// The result, if neither operand nor result is special: then the only flag that can rise is PE, which is up already.
#[inline(always)]
pub(crate) fn fast_double(mxcsr: u32, kind: DoubleOperation, a: f64, b: f64) -> Option<f64> {
    if !plain_doubles(mxcsr) {
        return None;
    }
    let result = match kind {
        DoubleOperation::Add => a + b,
        DoubleOperation::Subtract => a - b,
        DoubleOperation::Multiply => a * b,
        DoubleOperation::Divide => a / b,
    };
    // Exponents: all ones is infinity or NaN, zero is zero or denormal.
    let exponent = |value: f64| value.to_bits() >> 52 & 0x7ff;
    let plain = |value: f64| exponent(value).wrapping_sub(1) < 0x7fe || value.to_bits() << 1 == 0;
    // A result of zero or near it may be an underflow; even the smallest normal number may have been rounded up from a tiny one.
    let normal_result = exponent(result).wrapping_sub(2) < 0x7fd;
    let exact_zero = matches!(kind, DoubleOperation::Add | DoubleOperation::Subtract) && result == 0.0;
    (plain(a) && plain(b) && (normal_result || exact_zero)).then_some(result)
}

impl Cpu {
    /// ADDSD and its kin with everything MXCSR asks for.
    pub(crate) fn double_arithmetic(&mut self, kind: DoubleOperation, a: u64, b: u64) -> Outcome<u64> {
        let operation = match kind {
            DoubleOperation::Add => Arithmetic::Add,
            DoubleOperation::Subtract => Arithmetic::Subtract,
            DoubleOperation::Multiply => Arithmetic::Multiply,
            DoubleOperation::Divide => Arithmetic::Divide,
        };
        let mut float = self.float();
        let result = float.arithmetic::<Double>(operation, a, b);
        self.settle(float)?;
        Ok(result)
    }
}
