//! Between registers and what is in memory: single and double precision, integers, packed decimals.
//!
//! What is modelled: SDM vol 1, 8.3.3 "Data Transfer Instructions", with SDM vol 1, 4.7 "BCD and Packed BCD Integers" and the indefinite values
//! of Tables 4-3 and 4-4.

use super::number::{Calculation, Class, Format, INDEFINITE, INVALID, Operand, Rounded, SIGN, assemble, signed};
use crate::operand::mask;

/// The packed decimal that an invalid conversion gives.
pub(super) const DECIMAL_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// How single and double precision lie in memory: bits of the fraction, bits of the exponent.
fn layout(format: Format) -> (u32, u32) {
    if format.bits == 24 { (23, 8) } else { (52, 11) }
}

/// A number of single or double precision, exactly.
pub(super) fn widen(value: u64, format: Format) -> Operand {
    let (fraction_bits, exponent_bits) = layout(format);
    let sign = value >> (fraction_bits + exponent_bits) & 1 != 0;
    let special = mask(exponent_bits);
    let exponent = value >> fraction_bits & special;
    let significand = value << (63 - fraction_bits) & mask(63);
    let integer = 1 << 63;
    let bits = if exponent == special {
        signed(sign, 0x7fff << 64 | u128::from(integer | significand))
    } else if exponent != 0 {
        assemble(sign, exponent as i32 - format.maximum, integer | significand)
    } else if significand == 0 {
        signed(sign, 0)
    } else {
        let zeros = significand.leading_zeros();
        assemble(sign, format.minimum - zeros as i32, significand << zeros)
    };
    Operand { denormal: exponent == 0 && significand != 0, ..Operand::new(bits) }
}

impl Calculation {
    /// A number as loaded from memory in single or double precision: a signaling NaN becomes a quiet one, a denormal is worth DE.
    pub(super) fn load(&mut self, operand: &Operand) -> u128 {
        let value = self.nan(operand, operand).unwrap_or(operand.bits);
        self.denormals(&[operand]);
        value
    }

    /// Rounded to single or double precision.
    pub(super) fn narrow(&mut self, value: &Operand, format: Format) -> u64 {
        let (fraction_bits, exponent_bits) = layout(format);
        let put = |sign: bool, magnitude: u64| u64::from(sign) << (fraction_bits + exponent_bits) | magnitude;
        let infinity = mask(exponent_bits) << fraction_bits;
        if let Some(nan) = self.nan(value, value) {
            let fraction = nan as u64 >> (63 - fraction_bits) & mask(fraction_bits);
            return put(nan & SIGN != 0, infinity | fraction);
        }
        match value.class {
            Class::Finite { exponent, significand } => match self.round(value.sign, exponent, u128::from(significand) << 64, format) {
                Rounded::Infinity => put(value.sign, infinity),
                Rounded::Number { exponent, significand } => {
                    let fraction = significand >> (63 - fraction_bits);
                    // The integer bit adds one to the exponent.
                    let biased = (exponent - format.minimum) as u64;
                    put(value.sign, (biased << fraction_bits).wrapping_add(fraction) & mask(fraction_bits + exponent_bits))
                }
            },
            Class::Infinity => put(value.sign, infinity),
            _ => put(value.sign, 0),
        }
    }

    /// A signed integer of `bits` bits, or the integer indefinite: only the sign bit set.
    pub(super) fn integer_of(&mut self, value: &Operand, bits: u32) -> u64 {
        let indefinite = 1u64 << (bits - 1);
        match self.magnitude(value, u128::from(indefinite) - u128::from(!value.sign)) {
            Some(magnitude) => (if value.sign { (magnitude as u64).wrapping_neg() } else { magnitude as u64 }) & mask(bits),
            None => indefinite,
        }
    }

    /// A packed decimal of 18 digits.
    pub(super) fn decimal_of(&mut self, value: &Operand) -> u128 {
        let Some(mut magnitude) = self.magnitude(value, 999_999_999_999_999_999) else { return DECIMAL_INDEFINITE };
        let mut digits = 0;
        for at in 0..18 {
            digits |= (magnitude % 10) << (4 * at);
            magnitude /= 10;
        }
        signed(value.sign, digits)
    }

    /// The integer's magnitude, if it is a number and not above `most`.
    fn magnitude(&mut self, value: &Operand, most: u128) -> Option<u128> {
        let mut rounding = *self;
        let magnitude = match value.class {
            Class::Zero => 0,
            Class::Finite { exponent, significand } if exponent < 64 => rounding.integer_part(value.sign, exponent, significand),
            _ => u128::MAX,
        };
        if magnitude > most {
            self.raise(INVALID);
            return None;
        }
        *self = rounding;
        Some(magnitude)
    }
}

/// A packed decimal as a number, which is always exact. Digits above nine have the value that the arithmetic of FBLD gives them.
pub(super) fn from_decimal(value: u128) -> u128 {
    let magnitude = (0..18).rev().fold(0u64, |sum, at| sum.wrapping_mul(10).wrapping_add((value >> (4 * at)) as u64 & 0xf));
    let number =
        if magnitude == 0 { 0 } else { assemble(false, 63 - magnitude.leading_zeros() as i32, magnitude << magnitude.leading_zeros()) };
    number | value & SIGN
}

/// What a masked stack underflow stores instead of a number.
pub(super) fn indefinite(format: Format) -> u64 {
    Calculation::new(0x3f).narrow(&Operand::new(INDEFINITE), format)
}
