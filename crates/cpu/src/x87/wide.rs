//! Numbers of 128 significant bits, in which the transcendental functions are computed.
//!
//! What is modelled: sums, products, quotients and square roots, each with a relative error below 2^-125. There are no infinities and no NaNs;
//! exponents are so small that they cannot overflow.

use std::cmp::Ordering;

/// `significand * 2^(exponent - 127)`, the leading bit of the significand set; or zero, whose significand is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide {
    pub sign: bool,
    pub exponent: i32,
    pub significand: u128,
}

/// The upper half of a product of 256 bits.
fn multiply_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a_high, a_low, b_high, b_low) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (cross, other) = (a_high * b_low, a_low * b_high);
    let carry = ((a_low * b_low) >> 64) + (cross & LOW) + (other & LOW);
    a_high * b_high + (cross >> 64) + (other >> 64) + (carry >> 64)
}

impl Wide {
    pub(super) const ZERO: Self = Self { sign: false, exponent: 0, significand: 0 };
    pub(super) const ONE: Self = Self { sign: false, exponent: 0, significand: 1 << 127 };
    pub(super) const PI: Self = Self { sign: false, exponent: 1, significand: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
    /// The natural logarithm of 2.
    pub(super) const LN_2: Self = Self { sign: false, exponent: -1, significand: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
    /// The binary logarithm of e.
    pub(super) const LOG2_E: Self = Self { sign: false, exponent: 0, significand: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89 };

    /// `value * 2^(exponent - 127)`.
    pub(super) fn new(sign: bool, exponent: i32, value: u128) -> Self {
        if value == 0 {
            return Self::ZERO;
        }
        let zeros = value.leading_zeros();
        Self { sign, exponent: exponent - zeros as i32, significand: value << zeros }
    }

    /// A number as a register has it.
    pub(super) fn from_parts(sign: bool, exponent: i32, significand: u64) -> Self {
        Self::new(sign, exponent, u128::from(significand) << 64)
    }

    /// A small integer.
    pub(super) fn integer(value: i32) -> Self {
        Self::new(value < 0, 127, value.unsigned_abs().into())
    }

    pub(super) fn is_zero(&self) -> bool {
        self.significand == 0
    }

    pub(super) fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    /// Times a power of two.
    pub(super) fn scaled(self, power: i32) -> Self {
        Self { exponent: self.exponent + power, ..self }
    }

    /// The order of two magnitudes.
    pub(super) fn compare_magnitude(&self, other: &Self) -> Ordering {
        let key = |value: &Self| (!value.is_zero(), value.exponent, value.significand);
        if self.is_zero() && other.is_zero() { Ordering::Equal } else { key(self).cmp(&key(other)) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return if self.is_zero() { other } else { self };
        }
        let (large, small) = if self.compare_magnitude(&other) == Ordering::Less { (other, self) } else { (self, other) };
        let distance = large.exponent.abs_diff(small.exponent);
        let shifted = if distance < 128 { small.significand >> distance } else { 0 };
        if large.sign != small.sign {
            return Self::new(large.sign, large.exponent, large.significand - shifted);
        }
        match large.significand.overflowing_add(shifted) {
            (sum, false) => Self { significand: sum, ..large },
            (sum, true) => Self { exponent: large.exponent + 1, significand: sum >> 1 | 1 << 127, ..large },
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    pub(super) fn times(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return Self::ZERO;
        }
        let product = multiply_high(self.significand, other.significand);
        Self::new(self.sign != other.sign, self.exponent + other.exponent + 1, product)
    }

    /// The quotient by a small integer.
    pub(super) fn over_integer(self, divisor: u32) -> Self {
        Self::new(self.sign, self.exponent, self.significand / u128::from(divisor))
    }

    /// The quotient by a number that is not zero.
    pub(super) fn over(self, divisor: Self) -> Self {
        if self.is_zero() {
            return self;
        }
        let (mut rest, mut carry, mut quotient) = (self.significand, false, 0u128);
        for _ in 0..128 {
            quotient <<= 1;
            if carry || rest >= divisor.significand {
                rest = rest.wrapping_sub(divisor.significand);
                quotient |= 1;
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Self::new(self.sign != divisor.sign, self.exponent - divisor.exponent, quotient)
    }

    /// The square root of a number that is not negative.
    pub(super) fn root(self) -> Self {
        if self.is_zero() {
            return self;
        }
        // 64 bits of it, and a step of Newton's method that doubles them.
        let odd = self.exponent & 1;
        let near = (self.significand >> (1 - odd)).isqrt();
        let near = Self::new(false, (self.exponent - odd) / 2, near << 64);
        near.plus(self.over(near)).scaled(-1)
    }
}
