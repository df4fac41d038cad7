//! Arithmetic on double extended precision: sums, products, quotients, roots, remainders, scaling, rounding to integers, comparison.
//!
//! What is modelled: SDM vol 1, 8.3.5 "Basic Arithmetic Instructions" and 8.3.6 "Comparison and Classification Instructions", bit for bit, with
//! the exceptions of SDM vol 1, 8.5 "x87 FPU Floating-Point Exception Conditions" and their priorities (4.9.2 "Floating-Point Exception
//! Priority").

use super::number::{
    Calculation, Class, Format, INFINITY, INTEGER, Operand, SIGN, ZERO_DIVIDE, assemble, shift_right_sticky, signed, zero,
};
use std::cmp::Ordering;

/// The operations with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// What a partial remainder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remainder {
    /// The remainder.
    pub value: u128,
    /// The quotient.
    pub quotient: Quotient,
}

/// What is known of the quotient of a partial remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotient {
    /// There is none.
    None,
    /// The reduction is not complete.
    Incomplete,
    /// Its low bits.
    Low(u64),
}

impl Calculation {
    /// One of the four operations, with the precision of the control word.
    pub(super) fn arithmetic(&mut self, operation: Operation, a: &Operand, b: &Operand) -> u128 {
        if let Some(nan) = self.nan(a, b) {
            return nan;
        }
        match operation {
            Operation::Add => self.add(a, b),
            Operation::Subtract => self.add(a, &Operand { bits: b.bits ^ SIGN, sign: !b.sign, ..*b }),
            Operation::Multiply => self.multiply(a, b),
            Operation::Divide => self.divide(a, b),
        }
    }

    fn add(&mut self, a: &Operand, b: &Operand) -> u128 {
        if a.class == Class::Infinity && b.class == Class::Infinity && a.sign != b.sign {
            return self.invalid();
        }
        self.denormals(&[a, b]);
        let format = self.precision();
        match (a.class, b.class) {
            (Class::Infinity, _) => a.bits,
            (_, Class::Infinity) => b.bits,
            (Class::Zero, Class::Zero) => zero(if a.sign == b.sign { a.sign } else { self.rounds_down() }),
            (Class::Finite { exponent, significand }, Class::Zero) => self.same(a.sign, exponent, significand, format),
            (Class::Zero, Class::Finite { exponent, significand }) => self.same(b.sign, exponent, significand, format),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                // The larger magnitude first; one spare bit above, 63 below.
                let swap = (eb, sb) > (ea, sa);
                let (sign, exponent, large) = if swap { (b.sign, eb, sb) } else { (a.sign, ea, sa) };
                let small = if swap { sa } else { sb };
                let (large, small) = (u128::from(large) << 63, u128::from(small) << 63);
                let small = shift_right_sticky(small, ea.abs_diff(eb));
                let sum = if a.sign == b.sign { large + small } else { large - small };
                if sum == 0 {
                    return zero(self.rounds_down());
                }
                let zeros = sum.leading_zeros();
                self.rounded(sign, exponent + 1 - zeros as i32, sum << zeros, format)
            }
            // NaNs and what is unsupported do not come here.
            _ => self.invalid(),
        }
    }

    fn multiply(&mut self, a: &Operand, b: &Operand) -> u128 {
        if matches!((a.class, b.class), (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero)) {
            return self.invalid();
        }
        self.denormals(&[a, b]);
        let sign = a.sign != b.sign;
        match (a.class, b.class) {
            (Class::Infinity, _) | (_, Class::Infinity) => signed(sign, INFINITY),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                let product = u128::from(sa) * u128::from(sb);
                let zeros = product.leading_zeros();
                self.rounded(sign, ea + eb + 1 - zeros as i32, product << zeros, self.precision())
            }
            _ => zero(sign),
        }
    }

    fn divide(&mut self, a: &Operand, b: &Operand) -> u128 {
        if matches!((a.class, b.class), (Class::Zero, Class::Zero) | (Class::Infinity, Class::Infinity)) {
            return self.invalid();
        }
        let sign = a.sign != b.sign;
        if matches!((a.class, b.class), (Class::Finite { .. }, Class::Zero)) {
            self.raise(ZERO_DIVIDE);
            return signed(sign, INFINITY);
        }
        self.denormals(&[a, b]);
        match (a.class, b.class) {
            (Class::Infinity, _) => signed(sign, INFINITY),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                let divisor = u128::from(sb);
                let (high, rest) = ((u128::from(sa) << 63) / divisor, (u128::from(sa) << 63) % divisor);
                let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
                let quotient = high << 64 | low | u128::from(rest != 0);
                let zeros = quotient.leading_zeros();
                self.rounded(sign, ea - eb - zeros as i32, quotient << zeros, self.precision())
            }
            _ => zero(sign),
        }
    }

    /// FSQRT.
    pub(super) fn square_root(&mut self, a: &Operand) -> u128 {
        if let Some(nan) = self.nan(a, a) {
            return nan;
        }
        if a.sign && a.class != Class::Zero {
            return self.invalid();
        }
        self.denormals(&[a]);
        let Class::Finite { exponent, significand } = a.class else { return a.bits };
        let radicand = u128::from(significand) << (63 + (exponent & 1));
        let root = radicand.isqrt();
        let rest = radicand - root * root;
        // Behind the last bit of the root: whether the rest is more than half a unit, and whether there is one.
        let low = u128::from(rest > root) << 63 | u128::from(rest != 0);
        self.rounded(false, exponent >> 1, root << 64 | low, self.precision())
    }

    /// FRNDINT: the nearest integer, by the rounding control.
    pub(super) fn round_to_integer(&mut self, a: &Operand) -> u128 {
        if let Some(nan) = self.nan(a, a) {
            return nan;
        }
        self.denormals(&[a]);
        let Class::Finite { exponent, significand } = a.class else { return a.bits };
        if exponent >= 63 {
            return a.bits;
        }
        let magnitude = self.integer_part(a.sign, exponent, significand);
        if magnitude == 0 {
            return zero(a.sign);
        }
        let zeros = magnitude.leading_zeros() as i32 - 64;
        assemble(a.sign, 63 - zeros, (magnitude as u64) << zeros)
    }

    /// The magnitude of a number below 2^64, rounded to an integer.
    pub(super) fn integer_part(&mut self, sign: bool, exponent: i32, significand: u64) -> u128 {
        let wide = u128::from(significand) << 64;
        let (magnitude, inexact, up) = match exponent {
            0.. => self.cut(sign, wide, exponent as u32 + 1),
            _ => self.cut(sign, shift_right_sticky(wide, exponent.unsigned_abs() - 1), 0),
        };
        if inexact {
            self.raise(super::number::PRECISION);
        }
        self.note_rounding(up);
        magnitude
    }

    /// FSCALE: `a` times two to the power of the integer part of `b`.
    pub(super) fn scale(&mut self, a: &Operand, b: &Operand) -> u128 {
        if let Some(nan) = self.nan(a, b) {
            return nan;
        }
        if b.class == Class::Infinity && matches!((a.class, b.sign), (Class::Zero, false) | (Class::Infinity, true)) {
            return self.invalid();
        }
        self.denormals(&[a, b]);
        match (a.class, b.class) {
            (Class::Zero | Class::Infinity, _) => a.bits,
            (_, Class::Infinity) if b.sign => zero(a.sign),
            (_, Class::Infinity) => signed(a.sign, INFINITY),
            (Class::Finite { exponent, significand }, Class::Finite { exponent: power, significand: by }) => {
                // Beyond 2^16 everything overflows or underflows, even after a change of the exponent.
                let distance = match power {
                    ..0 => 0,
                    0..17 => (by >> (63 - power)) as i32,
                    _ => 1 << 17,
                };
                let distance = if b.sign { -distance } else { distance };
                self.same(a.sign, exponent + distance, significand, Format::EXTENDED)
            }
            (Class::Finite { exponent, significand }, _) => self.same(a.sign, exponent, significand, Format::EXTENDED),
            _ => self.invalid(),
        }
    }

    /// FXTRACT: the exponent as a number, and the number with its exponent taken away.
    pub(super) fn extract(&mut self, a: &Operand) -> (u128, u128) {
        if let Some(nan) = self.nan(a, a) {
            return (nan, nan);
        }
        self.denormals(&[a]);
        match a.class {
            Class::Zero => {
                self.raise(ZERO_DIVIDE);
                (SIGN | INFINITY, a.bits)
            }
            Class::Finite { exponent, significand } => (integer(exponent.into()), assemble(a.sign, 0, significand)),
            _ => (INFINITY, a.bits),
        }
    }

    /// FPREM, and FPREM1 with `nearest`: the remainder of `a` by `b`, whose quotient is truncated or rounded to nearest. Always exact.
    pub(super) fn remainder(&mut self, a: &Operand, b: &Operand, nearest: bool) -> Remainder {
        let done = |value: u128| Remainder { value, quotient: Quotient::Low(0) };
        let none = |value: u128| Remainder { value, quotient: Quotient::None };
        if let Some(nan) = self.nan(a, b) {
            return none(nan);
        }
        if a.class == Class::Infinity || b.class == Class::Zero {
            return none(self.invalid());
        }
        self.denormals(&[a, b]);
        let (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) = (a.class, b.class) else {
            // Zero, or a number below infinity: as it is, but for a pseudo-denormal, which becomes a normal number.
            let pseudo = a.denormal && a.bits as u64 & INTEGER != 0;
            return done(a.bits | u128::from(pseudo) << 64);
        };
        let distance = ea - eb;
        if distance < -1 || distance < 0 && !nearest {
            return done(self.same(a.sign, ea, sa, Format::EXTENDED));
        }
        // SDM vol 2, FPREM: a reduction by 2^64 and more takes several steps; how many bits each one takes is the processor's choice.
        let steps = if distance < 64 { distance } else { distance & 0x1f | 0x20 };
        let (mut rest, divisor) = (u128::from(sa), u128::from(sb));
        let mut quotient = 0u64;
        let mut scale = eb;
        if distance < 64 {
            if distance == -1 {
                // The dividend is between a quarter of the divisor and the divisor: keep one more bit.
                scale -= 1;
            } else {
                for _ in 0..=steps {
                    quotient <<= 1;
                    if rest >= divisor {
                        rest -= divisor;
                        quotient |= 1;
                    }
                    rest <<= 1;
                }
                rest >>= 1;
            }
            let mut sign = a.sign;
            if nearest {
                let unit = if distance == -1 { divisor << 1 } else { divisor };
                let twice = rest << 1;
                if twice > unit || twice == unit && quotient & 1 != 0 {
                    rest = unit - rest;
                    quotient = quotient.wrapping_add(1);
                    sign = !sign;
                }
            }
            return Remainder { value: self.reduced(sign, a.sign, scale, rest), quotient: Quotient::Low(quotient) };
        }
        for _ in 0..=steps {
            if rest >= divisor {
                rest -= divisor;
            }
            rest <<= 1;
        }
        rest >>= 1;
        Remainder { value: self.reduced(a.sign, a.sign, ea - steps, rest), quotient: Quotient::Incomplete }
    }

    /// A remainder of `rest * 2^(exponent - 63)`; zero has the sign of the dividend.
    fn reduced(&mut self, sign: bool, sign_of_zero: bool, exponent: i32, rest: u128) -> u128 {
        if rest == 0 {
            return zero(sign_of_zero);
        }
        let zeros = rest.leading_zeros();
        self.rounded(sign, exponent + 64 - zeros as i32, rest << zeros, Format::EXTENDED)
    }

    /// The order of two numbers; `None` if there is none, which is invalid for signaling NaNs and what is unsupported, and with `signal` for any
    /// NaN.
    pub(super) fn compare(&mut self, a: &Operand, b: &Operand, signal: bool) -> Option<Ordering> {
        if self.nan(a, b).is_some() {
            if signal {
                self.invalid();
            }
            return None;
        }
        self.denormals(&[a, b]);
        let key = |operand: &Operand| {
            let magnitude = match operand.class {
                Class::Finite { exponent, significand } => (1, exponent, significand),
                Class::Infinity => (2, 0, 0),
                _ => (0, 0, 0),
            };
            (operand.sign && magnitude.0 != 0, magnitude)
        };
        let ((negative_a, a), (negative_b, b)) = (key(a), key(b));
        Some(match (negative_a, negative_b) {
            (false, false) => a.cmp(&b),
            (true, true) => b.cmp(&a),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        })
    }
}

/// A signed integer, which is always exact.
pub(super) fn integer(value: i64) -> u128 {
    if value == 0 {
        return 0;
    }
    let magnitude = value.unsigned_abs();
    let zeros = magnitude.leading_zeros();
    assemble(value < 0, 63 - zeros as i32, magnitude << zeros)
}
