//! Binary floating point on integers: bit- and flag-exact IEEE 754 with the conventions of SSE.
//!
//! What is modelled: addition, subtraction, multiplication, division, square root, conversions, ordering, minimum and maximum for single and
//! double precision; the four rounding modes, denormals-are-zeros, flush-to-zero; the six exceptions with their priorities (SDM vol 1, 11.5.2
//! "SIMD Floating-Point Exception Conditions", 4.9.2 "Floating-Point Exception Priority"); the NaN a NaN operand gives (SDM vol 1, Table 4-7
//! "Rules for Handling NaNs"); tininess after rounding (SDM vol 1, 4.9.1.5 "Numeric Underflow Exception").
//!
//! Where nothing but a plain result can come out, [`Float::arithmetic`] lets the host's own arithmetic do it.

use std::cmp::Ordering;

/// Invalid operation: bit of MXCSR, and of [`Float::raised()`].
pub(super) const INVALID: u32 = 1 << 0;
/// Denormal operand.
pub(super) const DENORMAL: u32 = 1 << 1;
/// Division by zero.
pub(super) const ZERO_DIVIDE: u32 = 1 << 2;
/// Overflow.
pub(super) const OVERFLOW: u32 = 1 << 3;
/// Underflow.
pub(super) const UNDERFLOW: u32 = 1 << 4;
/// Inexact result.
pub(super) const PRECISION: u32 = 1 << 5;
/// All six.
pub(super) const EXCEPTIONS: u32 = 0x3f;
/// Denormals are zeros.
pub(super) const DAZ: u32 = 1 << 6;
/// Distance from an exception's flag to its mask.
pub(super) const MASK_SHIFT: u32 = 7;
/// Rounding control, two bits.
pub(super) const ROUNDING_SHIFT: u32 = 13;
/// Flush to zero.
const FTZ: u32 = 1 << 15;
/// The exceptions found by looking at the operands, before anything is computed.
const PRE_COMPUTATION: u32 = INVALID | DENORMAL | ZERO_DIVIDE;

/// The operations that the host's arithmetic can do, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Of the second operand.
    SquareRoot,
}

/// A binary floating-point format. Values are its bits in a `u64`.
pub(super) trait Format: Copy {
    /// Bits of the fraction.
    const FRACTION: u32;
    /// All bits.
    const BITS: u32;
    /// The exponent of infinities and NaNs.
    const SPECIAL: u64 = (1 << (Self::BITS - 1 - Self::FRACTION)) - 1;
    /// What is added to an exponent.
    const BIAS: i32 = (Self::SPECIAL >> 1) as i32;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// The leading bit of the fraction: set in quiet NaNs.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    /// The bits of the fraction.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    /// Infinity.
    const INFINITY: u64 = Self::SPECIAL << Self::FRACTION;
    /// The quiet NaN that invalid operations give. SDM vol 1, 4.8.3.7 "QNaN Floating-Point Indefinite".
    const INDEFINITE: u64 = Self::SIGN | Self::INFINITY | Self::QUIET;

    /// The host's result, rounded to nearest, and whether it is certainly exact.
    fn host(operation: Arithmetic, a: u64, b: u64) -> (u64, bool);
}

/// Single precision.
#[derive(Clone, Copy)]
pub(super) struct Single;
/// Double precision.
#[derive(Clone, Copy)]
pub(super) struct Double;

/// Significant bits of a normal number.
#[inline(always)]
fn significant_bits<F: Format>(value: u64) -> u32 {
    F::FRACTION + 1 - (value | 1 << F::FRACTION).trailing_zeros()
}

macro_rules! format {
    ($format:ident, $host:ty, $bits:ty, $fraction:literal) => {
        impl Format for $format {
            const FRACTION: u32 = $fraction;
            const BITS: u32 = <$bits>::BITS;

            #[inline(always)]
            fn host(operation: Arithmetic, a: u64, b: u64) -> (u64, bool) {
                let (a, b) = (<$host>::from_bits(a as $bits), <$host>::from_bits(b as $bits));
                let bits = |value: $host| significant_bits::<Self>(u64::from(value.to_bits()));
                // A product is exact when its factors have few enough significant bits; a quotient or root when multiplying gives it back.
                let fits = |a: $host, b: $host| bits(a) + bits(b) <= $fraction + 1;
                let sum = |a: $host, b: $host| {
                    // The error of a sum is a number of the same format, and these steps find it.
                    let sum = a + b;
                    let part = sum - a;
                    (sum, (a - (sum - part)) + (b - part) == 0.0)
                };
                let (result, exact) = match operation {
                    Arithmetic::Add => sum(a, b),
                    Arithmetic::Subtract => sum(a, -b),
                    Arithmetic::Multiply => (a * b, fits(a, b)),
                    Arithmetic::Divide => {
                        let quotient = a / b;
                        (quotient, fits(quotient, b) && quotient * b == a)
                    }
                    Arithmetic::SquareRoot => {
                        let root = b.sqrt();
                        (root, fits(root, root) && root * root == b)
                    }
                };
                (u64::from(result.to_bits()), exact)
            }
        }
    };
}
format!(Single, f32, u32, 23);
format!(Double, f64, u64, 52);

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Zero,
    /// `significand * 2^(exponent - 63)`, the leading bit of the significand set.
    Finite {
        exponent: i32,
        significand: u64,
    },
    Infinity,
    Nan,
}

/// An operand taken apart.
#[derive(Clone, Copy)]
struct Operand {
    bits: u64,
    sign: bool,
    class: Class,
    denormal: bool,
}

/// One instruction's view of MXCSR: what it asks for, and what has been raised so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Float {
    control: u32,
    raised: u32,
}

/// Shifts right and keeps in the last bit whether anything was lost.
fn shift_right_sticky(value: u64, count: u32) -> u64 {
    match count {
        0 => value,
        1..64 => value >> count | u64::from(value << (64 - count) != 0),
        _ => u64::from(value != 0),
    }
}

fn is_nan<F: Format>(value: u64) -> bool {
    value & !F::SIGN > F::INFINITY
}

fn is_signaling<F: Format>(value: u64) -> bool {
    is_nan::<F>(value) && value & F::QUIET == 0
}

impl Float {
    /// With MXCSR as it is.
    pub(super) fn new(mxcsr: u32) -> Self {
        Self { control: mxcsr, raised: 0 }
    }

    /// The exceptions that the operations raised, as bits of MXCSR. When the operands of any element alone raise an unmasked exception,
    /// no element is computed, and no exception of a result is seen. (Found by experiment on an Intel processor.)
    pub(super) fn raised(&self) -> u32 {
        if self.stopped() { self.raised & PRE_COMPUTATION } else { self.raised }
    }

    /// The exceptions that are raised and not masked.
    pub(super) fn unmasked(&self) -> u32 {
        self.raised & !(self.control >> MASK_SHIFT) & EXCEPTIONS
    }

    /// Whether the operation is over, because its operands alone raise an unmasked exception.
    fn stopped(&self) -> bool {
        self.unmasked() & PRE_COMPUTATION != 0
    }

    fn masked(&self, exception: u32) -> bool {
        self.control >> MASK_SHIFT & exception != 0
    }

    /// Notes exceptions.
    pub(super) fn raise(&mut self, exceptions: u32) {
        self.raised |= exceptions;
    }

    fn operand<F: Format>(&self, bits: u64) -> Operand {
        let sign = bits & F::SIGN != 0;
        let fraction = bits & F::FRACTION_MASK;
        let exponent = bits >> F::FRACTION & F::SPECIAL;
        let (class, denormal) = if exponent == F::SPECIAL {
            (if fraction == 0 { Class::Infinity } else { Class::Nan }, false)
        } else if exponent != 0 {
            let significand = (fraction | 1 << F::FRACTION) << (63 - F::FRACTION);
            (Class::Finite { exponent: exponent as i32 - F::BIAS, significand }, false)
        } else if fraction == 0 || self.control & DAZ != 0 {
            (Class::Zero, false)
        } else {
            let zeros = fraction.leading_zeros();
            let exponent = (63 - F::FRACTION) as i32 - zeros as i32 + 1 - F::BIAS;
            (Class::Finite { exponent, significand: fraction << zeros }, true)
        };
        Operand { bits, sign, class, denormal }
    }

    /// `bits`, but zero of its sign if denormals are zeros and it is one.
    fn flushed<F: Format>(&self, bits: u64) -> u64 {
        let denormal = bits >> F::FRACTION & F::SPECIAL == 0;
        if denormal && self.control & DAZ != 0 { bits & F::SIGN } else { bits }
    }

    fn invalid<F: Format>(&mut self) -> u64 {
        self.raise(INVALID);
        F::INDEFINITE
    }

    /// The result if an operand is a NaN: the first that is, made quiet.
    fn nan<F: Format>(&mut self, a: u64, b: u64) -> Option<u64> {
        if is_signaling::<F>(a) || is_signaling::<F>(b) {
            self.raise(INVALID);
        }
        [a, b].into_iter().find(|value| is_nan::<F>(*value)).map(|value| value | F::QUIET)
    }

    /// Whether rounding goes up in magnitude. `rest` is what is cut off, with half a unit at bit 63.
    fn rounds_up(&self, sign: bool, odd: bool, rest: u64) -> bool {
        match self.control >> ROUNDING_SHIFT & 3 {
            0 => rest > 1 << 63 || rest == 1 << 63 && odd,
            1 => sign && rest != 0,
            2 => !sign && rest != 0,
            _ => false,
        }
    }

    /// Cuts off `count` (1 to 63) bits and rounds; and whether anything was cut off.
    fn cut(&self, sign: bool, significand: u64, count: u32) -> (u64, bool) {
        let (kept, rest) = (significand >> count, significand << (64 - count));
        (kept + u64::from(self.rounds_up(sign, kept & 1 != 0, rest)), rest != 0)
    }

    /// Rounds `significand * 2^(exponent - 63)` to the format. The leading bit of the significand is set, its last may be sticky.
    fn round<F: Format>(&mut self, sign: bool, exponent: i32, significand: u64) -> u64 {
        let signed = |magnitude: u64| if sign { magnitude | F::SIGN } else { magnitude };
        let excess = 63 - F::FRACTION;
        let biased = exponent + F::BIAS;
        let (rounded, inexact) = self.cut(sign, significand, excess);
        // Rounding may carry into the next binade; adding fraction and exponent instead of joining them does the right thing.
        let carried = rounded >> (F::FRACTION + 1) != 0;
        if biased + i32::from(carried) >= F::SPECIAL as i32 {
            return signed(self.overflow::<F>(sign, inexact));
        }
        if biased >= 1 {
            if inexact {
                self.raise(PRECISION);
            }
            return signed((((biased - 1) as u64) << F::FRACTION) + rounded);
        }
        let tiny = !(biased == 0 && carried);
        if tiny && !self.masked(UNDERFLOW) {
            self.raise(if inexact { UNDERFLOW | PRECISION } else { UNDERFLOW });
            return signed(0);
        }
        if tiny && self.control & FTZ != 0 {
            self.raise(UNDERFLOW | PRECISION);
            return signed(0);
        }
        let (rounded, inexact) = self.cut(sign, shift_right_sticky(significand, (1 - biased) as u32), excess);
        if inexact {
            self.raise(if tiny { UNDERFLOW | PRECISION } else { PRECISION });
        }
        signed(rounded)
    }

    /// The magnitude of a result that is too large. SDM vol 1, Table 4-10 "Masked Responses to Numeric Overflow".
    fn overflow<F: Format>(&mut self, sign: bool, inexact: bool) -> u64 {
        if !self.masked(OVERFLOW) {
            self.raise(if inexact { OVERFLOW | PRECISION } else { OVERFLOW });
            return 0;
        }
        self.raise(OVERFLOW | PRECISION);
        let to_infinity = self.rounds_up(sign, true, u64::MAX);
        if to_infinity { F::INFINITY } else { F::INFINITY - 1 }
    }

    /// One of the five operations.
    #[inline]
    pub(super) fn arithmetic<F: Format>(&mut self, operation: Arithmetic, a: u64, b: u64) -> u64 {
        match self.plain::<F>(operation, a, b) {
            Some(result) => result,
            None => self.careful::<F>(operation, a, b),
        }
    }

    /// The host's result where neither operands nor result are special and MXCSR asks for nothing special: then only PE could rise, and
    /// it either is up or the result is exact.
    #[inline(always)]
    fn plain<F: Format>(&self, operation: Arithmetic, a: u64, b: u64) -> Option<u64> {
        const PRECISION_MASK: u32 = PRECISION << MASK_SHIFT;
        if self.control & (FTZ | 3 << ROUNDING_SHIFT | PRECISION_MASK | DAZ) != PRECISION_MASK {
            return None;
        }
        let exponent = |value: u64| value >> F::FRACTION & F::SPECIAL;
        let zero = |value: u64| value & !F::SIGN == 0;
        let ordinary = |value: u64| exponent(value).wrapping_sub(1) < F::SPECIAL - 1 || zero(value);
        let root = operation == Arithmetic::SquareRoot;
        if !((root || ordinary(a)) && ordinary(b)) || root && b & F::SIGN != 0 {
            return None;
        }
        let (result, exact) = F::host(operation, a, b);
        // The smallest normal number may have been rounded up from a tiny one, which is an underflow.
        let ordinary_result = exponent(result).wrapping_sub(2) < F::SPECIAL - 2;
        let true_zero = zero(result)
            && match operation {
                Arithmetic::Add | Arithmetic::Subtract => true,
                Arithmetic::Multiply => zero(a) || zero(b),
                Arithmetic::Divide => zero(a),
                Arithmetic::SquareRoot => zero(b),
            };
        let known = exact || (self.control | self.raised) & PRECISION != 0;
        (known && ordinary_result || true_zero).then_some(result)
    }

    #[cold]
    fn careful<F: Format>(&mut self, operation: Arithmetic, a: u64, b: u64) -> u64 {
        match operation {
            Arithmetic::Add => self.add::<F>(a, b),
            Arithmetic::Subtract if is_nan::<F>(b) => self.add::<F>(a, b),
            Arithmetic::Subtract => self.add::<F>(a, b ^ F::SIGN),
            Arithmetic::Multiply => self.multiply::<F>(a, b),
            Arithmetic::Divide => self.divide::<F>(a, b),
            Arithmetic::SquareRoot => self.square_root::<F>(b),
        }
    }

    fn add<F: Format>(&mut self, a: u64, b: u64) -> u64 {
        if let Some(nan) = self.nan::<F>(a, b) {
            return nan;
        }
        let (a, b) = (self.operand::<F>(a), self.operand::<F>(b));
        if a.class == Class::Infinity && b.class == Class::Infinity && a.sign != b.sign {
            return self.invalid::<F>();
        }
        if a.denormal || b.denormal {
            self.raise(DENORMAL);
        }
        if self.stopped() {
            return 0;
        }
        let zero = |negative: bool| if negative { F::SIGN } else { 0 };
        let round_down = self.control >> ROUNDING_SHIFT & 3 == 1;
        match (a.class, b.class) {
            (Class::Infinity, _) => a.bits,
            (_, Class::Infinity) => b.bits,
            (Class::Zero, Class::Zero) => zero(if a.sign == b.sign { a.sign } else { round_down }),
            (Class::Finite { exponent, significand }, Class::Zero) => self.round::<F>(a.sign, exponent, significand),
            (Class::Zero, Class::Finite { exponent, significand }) => self.round::<F>(b.sign, exponent, significand),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                // The larger magnitude first; two spare bits above, 62 below.
                let swap = (eb, sb) > (ea, sa);
                let (sign, exponent, large) = if swap { (b.sign, eb, sb) } else { (a.sign, ea, sa) };
                let (distance, small) = if swap { (eb - ea, sa) } else { (ea - eb, sb) };
                let (large, small) = (u128::from(large) << 62, u128::from(small) << 62);
                let small = match distance {
                    0..126 => small >> distance | u128::from(small << (127 - distance) << 1 != 0),
                    _ => 1,
                };
                let sum = if a.sign == b.sign { large + small } else { large - small };
                if sum == 0 {
                    return zero(round_down);
                }
                let zeros = sum.leading_zeros();
                let sum = sum << zeros;
                self.round::<F>(sign, exponent + 2 - zeros as i32, (sum >> 64) as u64 | u64::from(sum as u64 != 0))
            }
            (Class::Nan, _) | (_, Class::Nan) => F::INDEFINITE,
        }
    }

    fn multiply<F: Format>(&mut self, a: u64, b: u64) -> u64 {
        if let Some(nan) = self.nan::<F>(a, b) {
            return nan;
        }
        let (a, b) = (self.operand::<F>(a), self.operand::<F>(b));
        if matches!((a.class, b.class), (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero)) {
            return self.invalid::<F>();
        }
        if a.denormal || b.denormal {
            self.raise(DENORMAL);
        }
        if self.stopped() {
            return 0;
        }
        let sign = a.sign != b.sign;
        let signed = |magnitude: u64| if sign { magnitude | F::SIGN } else { magnitude };
        match (a.class, b.class) {
            (Class::Infinity, _) | (_, Class::Infinity) => signed(F::INFINITY),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                let product = u128::from(sa) * u128::from(sb);
                let zeros = product.leading_zeros();
                let product = product << zeros;
                self.round::<F>(sign, ea + eb + 1 - zeros as i32, (product >> 64) as u64 | u64::from(product as u64 != 0))
            }
            _ => signed(0),
        }
    }

    fn divide<F: Format>(&mut self, a: u64, b: u64) -> u64 {
        if let Some(nan) = self.nan::<F>(a, b) {
            return nan;
        }
        let (a, b) = (self.operand::<F>(a), self.operand::<F>(b));
        if matches!((a.class, b.class), (Class::Zero, Class::Zero) | (Class::Infinity, Class::Infinity)) {
            return self.invalid::<F>();
        }
        let sign = a.sign != b.sign;
        let signed = |magnitude: u64| if sign { magnitude | F::SIGN } else { magnitude };
        if matches!((a.class, b.class), (Class::Finite { .. }, Class::Zero)) {
            self.raise(ZERO_DIVIDE);
            return signed(F::INFINITY);
        }
        if a.denormal || b.denormal {
            self.raise(DENORMAL);
        }
        if self.stopped() {
            return 0;
        }
        match (a.class, b.class) {
            (Class::Infinity, _) => signed(F::INFINITY),
            (Class::Finite { exponent: ea, significand: sa }, Class::Finite { exponent: eb, significand: sb }) => {
                let (dividend, divisor) = (u128::from(sa) << 63, u128::from(sb));
                let (quotient, rest) = ((dividend / divisor) as u64, dividend % divisor);
                let zeros = quotient.leading_zeros();
                self.round::<F>(sign, ea - eb - zeros as i32, quotient << zeros | u64::from(rest != 0))
            }
            _ => signed(0),
        }
    }

    fn square_root<F: Format>(&mut self, value: u64) -> u64 {
        if let Some(nan) = self.nan::<F>(value, value) {
            return nan;
        }
        let operand = self.operand::<F>(value);
        if operand.sign && operand.class != Class::Zero {
            return self.invalid::<F>();
        }
        if operand.denormal {
            self.raise(DENORMAL);
        }
        if self.stopped() {
            return 0;
        }
        match operand.class {
            Class::Zero => value & F::SIGN,
            Class::Finite { exponent, significand } => {
                let radicand = u128::from(significand) << (63 + (exponent & 1));
                let root = radicand.isqrt();
                self.round::<F>(false, exponent >> 1, root as u64 | u64::from(root * root != radicand))
            }
            Class::Infinity | Class::Nan => value,
        }
    }

    /// The order of two numbers; `None` if one is a NaN, which is invalid if it is a signaling one, or any with `SIGNAL`.
    pub(super) fn compare<F: Format, const SIGNAL: bool>(&mut self, a: u64, b: u64) -> Option<Ordering> {
        if is_nan::<F>(a) || is_nan::<F>(b) {
            if SIGNAL || is_signaling::<F>(a) || is_signaling::<F>(b) {
                self.raise(INVALID);
            }
            return None;
        }
        if self.operand::<F>(a).denormal || self.operand::<F>(b).denormal {
            self.raise(DENORMAL);
        }
        // As integers: negative numbers backwards, both zeros zero.
        let key = |bits: u64| {
            let magnitude = (bits & !F::SIGN) as i64;
            if bits & F::SIGN != 0 { -magnitude } else { magnitude }
        };
        Some(key(self.flushed::<F>(a)).cmp(&key(self.flushed::<F>(b))))
    }

    /// MIN (`wanted` is `Less`) and MAX (`Greater`): the first operand only if it truly is, so the second of two zeros and beside a NaN.
    pub(super) fn extremum<F: Format>(&mut self, a: u64, b: u64, wanted: Ordering) -> u64 {
        let order = self.compare::<F, true>(a, b);
        let chosen = if order == Some(wanted) { a } else { b };
        self.flushed::<F>(chosen)
    }

    /// A signed integer as a floating-point number.
    pub(super) fn number_of<F: Format>(&mut self, value: i64) -> u64 {
        if value == 0 {
            return 0;
        }
        let magnitude = value.unsigned_abs();
        let zeros = magnitude.leading_zeros();
        self.round::<F>(value < 0, 63 - zeros as i32, magnitude << zeros)
    }

    /// A floating-point number as a signed integer of `bits` bits, rounded as MXCSR says or `truncated`. What does not fit is the integer
    /// indefinite: only the sign bit set. A denormal is not worth an exception of its own here.
    pub(super) fn integer_of<F: Format>(&mut self, value: u64, bits: u32, truncated: bool) -> u64 {
        let operand = self.operand::<F>(value);
        let indefinite = 1u64 << (bits - 1);
        let (exponent, significand) = match operand.class {
            Class::Zero => return 0,
            Class::Finite { exponent, significand } if exponent < 64 => (exponent, significand),
            _ => {
                self.raise(INVALID);
                return indefinite;
            }
        };
        let control = if truncated { 3 << ROUNDING_SHIFT } else { self.control };
        let (magnitude, inexact) = match 63 - exponent {
            0 => (significand, false),
            count @ 1..64 => Self::new(control).cut(operand.sign, significand, count as u32),
            // Less than one: 62 bits in front of it and what remains is sticky.
            count => Self::new(control).cut(operand.sign, shift_right_sticky(significand, (count - 62) as u32), 62),
        };
        if magnitude > indefinite - u64::from(!operand.sign) {
            self.raise(INVALID);
            return indefinite;
        }
        if inexact {
            self.raise(PRECISION);
        }
        let value = if operand.sign { magnitude.wrapping_neg() } else { magnitude };
        value & (indefinite << 1).wrapping_sub(1)
    }

    /// Rounded to an integer of the same format, by the rounding control of `control` (as in MXCSR). PE tells whether that changed anything.
    pub(super) fn integral<F: Format>(&mut self, value: u64, control: u32) -> u64 {
        if let Some(nan) = self.nan::<F>(value, value) {
            return nan;
        }
        let operand = self.operand::<F>(value);
        let (exponent, significand) = match operand.class {
            Class::Zero => return value & F::SIGN,
            Class::Finite { exponent, significand } if exponent < F::FRACTION as i32 => (exponent, significand),
            _ => return value,
        };
        let rounding = Self::new(control);
        let (magnitude, inexact) = match 63 - exponent {
            count @ 1..64 => rounding.cut(operand.sign, significand, count as u32),
            count => rounding.cut(operand.sign, shift_right_sticky(significand, (count - 62) as u32), 62),
        };
        if inexact {
            self.raise(PRECISION);
        }
        if magnitude == 0 {
            return value & F::SIGN;
        }
        let zeros = magnitude.leading_zeros();
        self.round::<F>(operand.sign, 63 - zeros as i32, magnitude << zeros)
    }

    /// From one format to another.
    pub(super) fn convert<F: Format, T: Format>(&mut self, value: u64) -> u64 {
        let operand = self.operand::<F>(value);
        let signed = |magnitude: u64| if operand.sign { magnitude | T::SIGN } else { magnitude };
        match operand.class {
            Class::Nan => {
                if is_signaling::<F>(value) {
                    self.raise(INVALID);
                }
                // The leading bits of the fraction are kept.
                let fraction = (value & F::FRACTION_MASK) << (63 - F::FRACTION) >> (63 - T::FRACTION);
                signed(T::INFINITY | T::QUIET | fraction)
            }
            Class::Infinity => signed(T::INFINITY),
            Class::Zero => signed(0),
            Class::Finite { exponent, significand } => {
                if operand.denormal {
                    self.raise(DENORMAL);
                }
                if self.stopped() { 0 } else { self.round::<T>(operand.sign, exponent, significand) }
            }
        }
    }
}
