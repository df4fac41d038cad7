//! The transcendental functions: sine, cosine, tangent, arctangent, powers of two, binary logarithms.
//!
//! What is modelled: SDM vol 1, 8.3.7 "Trigonometric Instructions" and 8.3.11 "Logarithmic, Exponential, and Scale", with the special cases of
//! the tables at FPATAN, FYL2X and their kin in SDM vol 2; angles reduced by the 66-bit pi of SDM vol 1, 8.3.8 "Approximation of Pi". A
//! result is computed to more than 100 bits and rounded once, by the rounding control. SDM vol 1, 8.3.10 "Transcendental Instruction
//! Accuracy" asks for an error below one unit in the last place.
//! What is not: the bits that a real processor's shorter way leaves different.

use super::number::{Calculation, Class, Format, INFINITY, INTEGER, ONE, Operand, PRECISION, SIGN, UNDERFLOW, ZERO_DIVIDE, signed, zero};
use super::wide::Wide;
use std::cmp::Ordering;

/// Pi times 2^66, and a half of it times 2^67.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;
/// Bits of a fraction of half of [`PI_66`].
const HALF_PI_BITS: i32 = 67;
/// Angles below this power of two are in range.
const RANGE: i32 = 63;
/// Minus a half.
const MINUS_HALF: u128 = SIGN | 0x3ffe << 64 | INTEGER as u128;

/// `first` and what follows it, term by term, until nothing changes any more.
fn series(first: Wide, mut next: impl FnMut(u32) -> Wide) -> Wide {
    let mut sum = first;
    for n in 1.. {
        let term = next(n);
        if term.is_zero() || term.exponent < sum.exponent - 129 {
            break;
        }
        sum = sum.plus(term);
    }
    sum
}

/// Sine and cosine of an angle of at most pi / 4.
fn small_sine(angle: Wide) -> Wide {
    let square = angle.times(angle).negated();
    let mut power = angle;
    series(angle, |n| {
        power = power.times(square).over_integer(2 * n * (2 * n + 1));
        power
    })
}

fn small_cosine(angle: Wide) -> Wide {
    let square = angle.times(angle).negated();
    let mut power = Wide::ONE;
    series(Wide::ONE, |n| {
        power = power.times(square).over_integer((2 * n - 1) * 2 * n);
        power
    })
}

/// The odd powers of a number below 1, each over its exponent, with signs by turns if `alternating`: arctangent, and its hyperbolic twin.
fn odd_powers(value: Wide, alternating: bool) -> Wide {
    let square = value.times(value);
    let square = if alternating { square.negated() } else { square };
    let mut power = value;
    series(value, |n| {
        power = power.times(square);
        power.over_integer(2 * n + 1)
    })
}

/// The arctangent of a number from 0 to 1.
fn small_arctangent(mut value: Wide) -> Wide {
    // The tangent of half the angle, three times.
    for _ in 0..3 {
        let hypotenuse = Wide::ONE.plus(value.times(value)).root();
        value = value.over(Wide::ONE.plus(hypotenuse));
    }
    odd_powers(value, true).scaled(3)
}

/// An angle as a multiple of pi / 2, of which two bits are kept, and what is left, at most pi / 4.
fn reduce(exponent: i32, significand: u64) -> (u32, Wide) {
    let plain = Wide::from_parts(false, exponent, significand);
    let shift = exponent - 63 + HALF_PI_BITS;
    if shift <= 0 {
        return (0, plain);
    }
    let (mut rest, mut multiple) = (u128::from(significand), 0u32);
    for _ in 0..shift {
        rest <<= 1;
        multiple <<= 1;
        if rest >= PI_66 {
            rest -= PI_66;
            multiple |= 1;
        }
    }
    let beyond = rest > PI_66 / 2;
    if beyond {
        rest = PI_66 - rest;
        multiple = multiple.wrapping_add(1);
    }
    (multiple & 3, Wide::new(beyond, 127 - HALF_PI_BITS, rest))
}

/// The binary logarithm of a positive number given as one and something: `(exponent, m - 1)` with m from the root of a half to the root of 2.
/// The result is exact only for a power of two.
fn binary_logarithm(exponent: i32, beyond_one: Wide) -> Wide {
    let ratio = beyond_one.over(beyond_one.plus(Wide::integer(2)));
    let fraction = odd_powers(ratio, false).scaled(1).times(Wide::LOG2_E);
    Wide::integer(exponent).plus(fraction)
}

/// Splits a positive number for [`binary_logarithm`].
fn split(value: Wide) -> (i32, Wide) {
    const ROOT_OF_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let up = value.significand > ROOT_OF_2;
    let exponent = value.exponent + i32::from(up);
    (exponent, value.scaled(-exponent).minus(Wide::ONE))
}

impl Calculation {
    /// Rounds a result. It counts as inexact, but what is beyond 128 bits does not take part in rounding: as on an Intel processor, the sine of
    /// a tiny angle is the angle in all rounding modes.
    fn inexact(&mut self, value: Wide) -> u128 {
        let result = self.rounded(value.sign, value.exponent, value.significand, Format::EXTENDED);
        let tiny = result >> 64 & 0x7fff == 0;
        self.raise(if tiny { PRECISION | UNDERFLOW } else { PRECISION });
        result
    }

    /// FSIN; `None` if the angle is out of range.
    pub(super) fn sine(&mut self, angle: &Operand) -> Option<u128> {
        self.angle(angle, |calculation, sine, _| calculation.inexact(sine()), |operand| operand.bits)
    }

    /// FCOS.
    pub(super) fn cosine(&mut self, angle: &Operand) -> Option<u128> {
        self.angle(angle, |calculation, _, cosine| calculation.inexact(cosine()), |_| ONE)
    }

    /// FSINCOS.
    pub(super) fn sine_and_cosine(&mut self, angle: &Operand) -> Option<(u128, u128)> {
        let sine = self.sine(angle)?;
        let cosine = self.cosine(angle)?;
        Some((sine, cosine))
    }

    /// FPTAN.
    pub(super) fn tangent(&mut self, angle: &Operand) -> Option<u128> {
        self.angle(angle, |calculation, sine, cosine| calculation.inexact(sine().over(cosine())), |operand| operand.bits)
    }

    /// What the trigonometric functions share: `f` gets sine and cosine of the angle, `of_zero` is the result for zero.
    fn angle(
        &mut self,
        angle: &Operand,
        f: impl FnOnce(&mut Self, &dyn Fn() -> Wide, &dyn Fn() -> Wide) -> u128,
        of_zero: impl FnOnce(&Operand) -> u128,
    ) -> Option<u128> {
        if let Some(nan) = self.nan(angle, angle) {
            return Some(nan);
        }
        match angle.class {
            Class::Zero => Some(of_zero(angle)),
            Class::Finite { exponent, .. } if exponent >= RANGE => None,
            Class::Finite { exponent, significand } => {
                self.denormals(&[angle]);
                let (quarter, rest) = reduce(exponent, significand);
                let with_sign = |negative: bool, value: Wide| if negative { value.negated() } else { value };
                let sine = || {
                    let value = if quarter & 1 == 0 { small_sine(rest) } else { small_cosine(rest) };
                    with_sign(angle.sign != (quarter & 2 != 0), value)
                };
                let cosine = || {
                    let value = if quarter & 1 == 0 { small_cosine(rest) } else { small_sine(rest) };
                    with_sign(matches!(quarter, 1 | 2), value)
                };
                Some(f(self, &sine, &cosine))
            }
            _ => Some(self.invalid()),
        }
    }

    /// FPATAN: the angle of the point with the abscissa `x` (ST(0)) and the ordinate `y` (ST(1)). SDM vol 2, FPATAN, Table 3-30.
    pub(super) fn arctangent(&mut self, x: &Operand, y: &Operand) -> u128 {
        if let Some(nan) = self.nan(x, y) {
            return nan;
        }
        self.denormals(&[x, y]);
        let quarters = |count: i32| Wide::PI.times(Wide::integer(count)).scaled(-2);
        let magnitude = match (y.class, x.class) {
            (Class::Zero, _) if !x.sign => return zero(y.sign),
            (Class::Zero, _) => Wide::PI,
            (Class::Infinity, Class::Infinity) => quarters(if x.sign { 3 } else { 1 }),
            (Class::Infinity, _) | (_, Class::Zero) => quarters(2),
            (_, Class::Infinity) if !x.sign => return zero(y.sign),
            (_, Class::Infinity) => Wide::PI,
            (Class::Finite { exponent: ey, significand: sy }, Class::Finite { exponent: ex, significand: sx }) => {
                let (ordinate, abscissa) = (Wide::from_parts(false, ey, sy), Wide::from_parts(false, ex, sx));
                let steep = ordinate.compare_magnitude(&abscissa) == Ordering::Greater;
                let ratio = if steep { abscissa.over(ordinate) } else { ordinate.over(abscissa) };
                // The angle is the ratio itself when that is tiny.
                let angle = if ratio.exponent < -80 { ratio } else { small_arctangent(ratio) };
                let angle = if steep { quarters(2).minus(angle) } else { angle };
                if x.sign { Wide::PI.minus(angle) } else { angle }
            }
            _ => return self.invalid(),
        };
        self.inexact(if y.sign { magnitude.negated() } else { magnitude })
    }

    /// F2XM1. Outside -1 to 1 the result is undefined; as on an Intel processor the number stays as it is.
    pub(super) fn power_minus_one(&mut self, x: &Operand) -> u128 {
        if let Some(nan) = self.nan(x, x) {
            return nan;
        }
        self.denormals(&[x]);
        match x.class {
            Class::Finite { exponent: 0, significand: INTEGER } => {
                self.raise(PRECISION);
                if x.sign { MINUS_HALF } else { ONE }
            }
            Class::Finite { exponent: ..0, .. } => {
                let Class::Finite { exponent, significand } = x.class else { return x.bits };
                let argument = Wide::from_parts(x.sign, exponent, significand).times(Wide::LN_2);
                let mut power = argument;
                let result = series(argument, |n| {
                    power = power.times(argument).over_integer(n + 1);
                    power
                });
                self.inexact(result)
            }
            Class::Infinity if x.sign => SIGN | ONE,
            Class::Finite { .. } => {
                self.raise(PRECISION);
                x.bits
            }
            _ => x.bits,
        }
    }

    /// FYL2X: `y` (ST(1)) times the binary logarithm of `x` (ST(0)). SDM vol 2, FYL2X, Table 3-48.
    pub(super) fn logarithm(&mut self, x: &Operand, y: &Operand) -> u128 {
        if let Some(nan) = self.nan(x, y) {
            return nan;
        }
        if x.sign && x.class != Class::Zero {
            return self.invalid();
        }
        match (x.class, y.class) {
            (Class::Zero, Class::Zero) | (Class::Infinity, Class::Zero) => self.invalid(),
            (Class::Zero, Class::Infinity) => signed(!y.sign, INFINITY),
            (Class::Zero, _) => {
                self.raise(ZERO_DIVIDE);
                signed(!y.sign, INFINITY)
            }
            (Class::Infinity, _) => {
                self.denormals(&[y]);
                signed(y.sign, INFINITY)
            }
            (Class::Finite { exponent, significand }, _) => {
                let is_one = exponent == 0 && significand == INTEGER;
                if is_one && y.class == Class::Infinity {
                    return self.invalid();
                }
                self.denormals(&[x, y]);
                self.product_of_logarithm(split(Wide::from_parts(false, exponent, significand)), exponent < 0, y)
            }
            _ => self.invalid(),
        }
    }

    /// FYL2XP1: `y` times the binary logarithm of one more than `x`. Outside of what the manual defines, too, as far as it exists.
    pub(super) fn logarithm_plus_one(&mut self, x: &Operand, y: &Operand) -> u128 {
        if let Some(nan) = self.nan(x, y) {
            return nan;
        }
        match x.class {
            Class::Zero => {
                if y.class == Class::Infinity {
                    return self.invalid();
                }
                self.denormals(&[y]);
                zero(x.sign != y.sign)
            }
            Class::Finite { exponent, significand } => {
                let value = Wide::from_parts(x.sign, exponent, significand);
                let sum = Wide::ONE.plus(value);
                self.denormals(&[x, y]);
                if x.sign && exponent >= 0 && matches!(y.class, Class::Finite { .. }) {
                    // Undefined; an Intel processor gives the number itself.
                    self.raise(PRECISION);
                    return x.bits;
                }
                // Near one the sum has lost what makes the difference.
                let parts = if exponent < -2 { (0, value) } else { split(sum) };
                self.product_of_logarithm(parts, x.sign, y)
            }
            Class::Infinity if !x.sign && y.class != Class::Zero => {
                self.denormals(&[y]);
                signed(y.sign, INFINITY)
            }
            _ => self.invalid(),
        }
    }

    /// `y` times a logarithm, which is negative if `below_one`.
    fn product_of_logarithm(&mut self, (exponent, beyond_one): (i32, Wide), below_one: bool, y: &Operand) -> u128 {
        let sign = below_one != y.sign;
        match y.class {
            Class::Zero => zero(sign),
            Class::Infinity => signed(sign, INFINITY),
            Class::Finite { exponent: power, significand } => {
                let factor = Wide::from_parts(y.sign, power, significand);
                if beyond_one.is_zero() {
                    let product = factor.times(Wide::integer(exponent));
                    if product.is_zero() {
                        return zero(y.sign);
                    }
                    return self.inexact(product);
                }
                self.inexact(factor.times(binary_logarithm(exponent, beyond_one)))
            }
            _ => self.invalid(),
        }
    }
}
