//! Double extended precision: what the 80 bits of a register mean, and how results are rounded into them.
//!
//! What is modelled: all encodings of SDM vol 1, 8.2.2 "Unsupported Double Extended-Precision Floating-Point Encodings and Pseudo-Denormals";
//! the rules for NaN operands (SDM vol 1, Table 4-7 "Rules for Handling NaNs"); rounding and precision control; overflow and underflow, masked
//! and unmasked (SDM vol 1, 8.5.4 "Numeric Overflow Exception (#O)", 8.5.5 "Numeric Underflow Exception (#U)"); tininess after rounding.
//! Everything is done on integers, so results do not depend on the host.

/// Invalid operation: bit of the status word, and of its mask in the control word.
pub(super) const INVALID: u16 = 1 << 0;
/// Denormal operand.
pub(super) const DENORMAL: u16 = 1 << 1;
/// Division by zero.
pub(super) const ZERO_DIVIDE: u16 = 1 << 2;
/// Overflow.
pub(super) const OVERFLOW: u16 = 1 << 3;
/// Underflow.
pub(super) const UNDERFLOW: u16 = 1 << 4;
/// Inexact result.
pub(super) const PRECISION: u16 = 1 << 5;
/// The exceptions found by looking at the operands, before anything is computed.
const PRE_COMPUTATION: u16 = INVALID | DENORMAL | ZERO_DIVIDE;

/// The sign bit of a register.
pub(super) const SIGN: u128 = 1 << 79;
/// The explicit integer bit of the significand.
pub(super) const INTEGER: u64 = 1 << 63;
/// The bit of the significand that tells a quiet NaN from a signaling one.
const QUIET: u64 = 1 << 62;
/// The exponent field of infinities and NaNs.
const SPECIAL: u128 = 0x7fff;
/// What is added to an exponent.
pub(super) const BIAS: i32 = 0x3fff;
/// The smallest exponent of a normal number.
const MINIMUM: i32 = 1 - BIAS;
/// By how much the exponent of a result that overflowed or underflowed is changed when the exception is not masked.
const WRAP: i32 = 0x6000;

/// Positive infinity.
pub(super) const INFINITY: u128 = SPECIAL << 64 | INTEGER as u128;
/// The quiet NaN that invalid operations give. SDM vol 1, 4.8.3.7 "QNaN Floating-Point Indefinite".
pub(super) const INDEFINITE: u128 = SIGN | INFINITY | QUIET as u128;
/// One.
pub(super) const ONE: u128 = (BIAS as u128) << 64 | INTEGER as u128;

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    /// `significand * 2^(exponent - 63)`, the leading bit of the significand set.
    Finite {
        exponent: i32,
        significand: u64,
    },
    Infinity,
    Nan {
        signaling: bool,
    },
    /// Unnormal, pseudo-infinity or pseudo-NaN: not a number that the processor computes with.
    Unsupported,
}

/// An operand taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    /// The register.
    pub bits: u128,
    /// Negative.
    pub sign: bool,
    /// What it is.
    pub class: Class,
    /// It is a denormal or pseudo-denormal, or was one in the format that it came from.
    pub denormal: bool,
}

impl Operand {
    /// From a register.
    pub(super) fn new(bits: u128) -> Self {
        let (exponent, significand) = ((bits >> 64 & SPECIAL) as i32, bits as u64);
        let normal = significand & INTEGER != 0;
        let (class, denormal) = match exponent {
            0 if significand == 0 => (Class::Zero, false),
            0 => {
                let zeros = significand.leading_zeros();
                (Class::Finite { exponent: MINIMUM - zeros as i32, significand: significand << zeros }, true)
            }
            _ if !normal => (Class::Unsupported, false),
            0x7fff if significand == INTEGER => (Class::Infinity, false),
            0x7fff => (Class::Nan { signaling: significand & QUIET == 0 }, false),
            _ => (Class::Finite { exponent: exponent - BIAS, significand }, false),
        };
        Self { bits, sign: bits & SIGN != 0, class, denormal }
    }

    /// Whether it is a NaN.
    pub(super) fn is_nan(&self) -> bool {
        matches!(self.class, Class::Nan { .. })
    }
}

/// `magnitude` with a sign.
pub(super) fn signed(sign: bool, magnitude: u128) -> u128 {
    if sign { magnitude | SIGN } else { magnitude }
}

/// Zero with a sign.
pub(super) fn zero(sign: bool) -> u128 {
    signed(sign, 0)
}

/// A normal number put together.
pub(super) fn assemble(sign: bool, exponent: i32, significand: u64) -> u128 {
    signed(sign, ((exponent + BIAS) as u128) << 64 | u128::from(significand))
}

/// Shifts right and keeps in the last bit whether anything was lost.
pub(super) fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..128 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// A destination's format, as rounding sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Bits of the significand, the integer bit included.
    pub bits: u32,
    /// Smallest exponent of a normal number.
    pub minimum: i32,
    /// Largest exponent of a number.
    pub maximum: i32,
}

impl Format {
    /// A register with all its precision.
    pub(super) const EXTENDED: Self = Self { bits: 64, minimum: MINIMUM, maximum: BIAS };
    /// Single precision in memory.
    pub(super) const SINGLE: Self = Self { bits: 24, minimum: -126, maximum: 127 };
    /// Double precision in memory.
    pub(super) const DOUBLE: Self = Self { bits: 53, minimum: -1022, maximum: 1023 };
}

/// A result after rounding: zero, `significand * 2^(exponent - 63)`, or infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounded {
    /// Of a number below the normal ones, `exponent` is the format's minimum and the leading bit of the significand is clear.
    Number {
        exponent: i32,
        significand: u64,
    },
    Infinity,
}

/// One instruction's view of the control word: what it asks for, and what has been raised so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calculation {
    control: u16,
    raised: u16,
    /// The result was rounded up in magnitude.
    up: bool,
}

impl Calculation {
    /// With the control word as it is.
    pub(super) fn new(control: u16) -> Self {
        Self { control, raised: 0, up: false }
    }

    /// The exceptions that the operations raised. When the operands alone raise an unmasked exception, nothing is computed.
    pub(super) fn raised(&self) -> u16 {
        if self.stopped() { self.raised & PRE_COMPUTATION } else { self.raised }
    }

    /// The exceptions that are raised and not masked.
    pub(super) fn unmasked(&self) -> u16 {
        self.raised() & !self.control & 0x3f
    }

    /// As it is when no result is stored: then nothing was rounded.
    pub(super) fn without_result(mut self) -> Self {
        self.raised &= !PRECISION;
        self.up = false;
        self
    }

    /// Whether the operation is over, because its operands alone raise an unmasked exception.
    pub(super) fn stopped(&self) -> bool {
        self.raised & !self.control & PRE_COMPUTATION != 0
    }

    /// Whether the result was rounded up.
    pub(super) fn rounded_up(&self) -> bool {
        self.up && !self.stopped()
    }

    /// Notes which way the result was rounded.
    pub(super) fn note_rounding(&mut self, up: bool) {
        self.up = up;
    }

    fn masked(&self, exception: u16) -> bool {
        self.control & exception != 0
    }

    /// Notes exceptions.
    pub(super) fn raise(&mut self, exceptions: u16) {
        self.raised |= exceptions;
    }

    /// The registers' format with the precision that the control word asks for. SDM vol 1, 8.1.5.2 "Precision Control Field".
    pub(super) fn precision(&self) -> Format {
        let bits = match self.control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        };
        Format { bits, ..Format::EXTENDED }
    }

    /// Whether the rounding control says down.
    pub(super) fn rounds_down(&self) -> bool {
        self.control >> 10 & 3 == 1
    }

    /// The same with another rounding control: 0 nearest, 1 down, 2 up, 3 towards zero.
    pub(super) fn with_rounding(mut self, rounding: u16) -> Self {
        self.control = self.control & !0xc00 | rounding << 10;
        self
    }

    /// The result of an invalid operation.
    pub(super) fn invalid(&mut self) -> u128 {
        self.raise(INVALID);
        INDEFINITE
    }

    /// The result if an operand is unsupported or a NaN: of two NaNs the quiet one, else the one with the larger significand, else the
    /// positive one.
    pub(super) fn nan(&mut self, a: &Operand, b: &Operand) -> Option<u128> {
        if a.class == Class::Unsupported || b.class == Class::Unsupported {
            return Some(self.invalid());
        }
        let signaling = |operand: &Operand| operand.class == Class::Nan { signaling: true };
        if signaling(a) || signaling(b) {
            self.raise(INVALID);
        }
        let quiet = |operand: &Operand| operand.bits | u128::from(QUIET);
        match (a.is_nan(), b.is_nan()) {
            (false, false) => None,
            (true, false) => Some(quiet(a)),
            (false, true) => Some(quiet(b)),
            (true, true) if signaling(a) != signaling(b) => Some(quiet(if signaling(a) { b } else { a })),
            (true, true) => {
                let key = |operand: &Operand| (operand.bits as u64, !operand.sign);
                Some(quiet(if key(a) >= key(b) { a } else { b }))
            }
        }
    }

    /// DE for operands that are denormal. SDM vol 1, 8.5.2 "Denormal Operand Exception (#D)".
    pub(super) fn denormals(&mut self, operands: &[&Operand]) {
        if operands.iter().any(|operand| operand.denormal) {
            self.raise(DENORMAL);
        }
    }

    /// Whether rounding goes up in magnitude. `rest` is what is cut off, with half a unit at bit 127.
    fn rounds_up(&self, sign: bool, odd: bool, rest: u128) -> bool {
        match self.control >> 10 & 3 {
            0 => rest > 1 << 127 || rest == 1 << 127 && odd,
            1 => sign && rest != 0,
            2 => !sign && rest != 0,
            _ => false,
        }
    }

    /// The leading `bits` (at most 64) bits of a significand, rounded: they, whether anything was cut off, whether that rounded up.
    pub(super) fn cut(&self, sign: bool, significand: u128, bits: u32) -> (u128, bool, bool) {
        let (kept, rest) = (if bits == 0 { 0 } else { significand >> (128 - bits) }, significand << bits);
        let up = self.rounds_up(sign, kept & 1 != 0, rest);
        (kept + u128::from(up), rest != 0, up)
    }

    /// Rounds `significand * 2^(exponent - 127)`, whose leading bit is set and whose last may be sticky, to a format. With OE or UE unmasked
    /// the exponent is changed as for a result in a register.
    pub(super) fn round(&mut self, sign: bool, exponent: i32, significand: u128, format: Format) -> Rounded {
        let (mut kept, inexact, up) = self.cut(sign, significand, format.bits);
        let mut rounded_exponent = exponent;
        if kept >> format.bits != 0 {
            kept >>= 1;
            rounded_exponent += 1;
        }
        let number = |exponent: i32, kept: u128| Rounded::Number { exponent, significand: (kept as u64) << (64 - format.bits) };
        if rounded_exponent > format.maximum {
            if self.masked(OVERFLOW) {
                return self.overflow(sign, format);
            }
            self.raise(OVERFLOW);
            rounded_exponent -= WRAP;
        } else if rounded_exponent < format.minimum {
            if self.masked(UNDERFLOW) {
                let shifted = shift_right_sticky(significand, (format.minimum - exponent) as u32);
                let (kept, inexact, up) = self.cut(sign, shifted, format.bits);
                if inexact {
                    self.raise(UNDERFLOW | PRECISION);
                }
                self.up = up;
                return number(format.minimum, kept);
            }
            self.raise(UNDERFLOW);
            rounded_exponent += WRAP;
        }
        if inexact {
            self.raise(PRECISION);
        }
        self.up = up;
        number(rounded_exponent, kept)
    }

    /// A result that is too large, masked. SDM vol 1, Table 4-10 "Masked Responses to Numeric Overflow".
    fn overflow(&mut self, sign: bool, format: Format) -> Rounded {
        self.raise(OVERFLOW | PRECISION);
        self.up = self.rounds_up(sign, true, u128::MAX);
        if self.up { Rounded::Infinity } else { Rounded::Number { exponent: format.maximum, significand: u64::MAX << (64 - format.bits) } }
    }

    /// Rounds into a register.
    pub(super) fn rounded(&mut self, sign: bool, exponent: i32, significand: u128, format: Format) -> u128 {
        match self.round(sign, exponent, significand, format) {
            Rounded::Infinity => signed(sign, INFINITY),
            Rounded::Number { exponent, significand } if significand & INTEGER != 0 => {
                // Even with a changed exponent a result may be out of range (FSCALE): it becomes an infinity or zero.
                if (MINIMUM..=BIAS).contains(&exponent) {
                    return assemble(sign, exponent, significand);
                }
                self.raise(PRECISION);
                self.up = exponent > BIAS;
                if exponent > BIAS { signed(sign, INFINITY) } else { zero(sign) }
            }
            Rounded::Number { significand, .. } => signed(sign, u128::from(significand)),
        }
    }

    /// A register's number as it is, which raises UE if that is unmasked and the number denormal.
    pub(super) fn same(&mut self, sign: bool, exponent: i32, significand: u64, format: Format) -> u128 {
        self.rounded(sign, exponent, u128::from(significand) << 64, format)
    }
}
