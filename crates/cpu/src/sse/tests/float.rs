//! Arithmetic and comparison: results, flags, exceptions. Values are bits, so that NaNs and zeros show.

use super::super::float::{Arithmetic, Double, Float, Format, Single};
use super::{Bench, Random};
use crate::trap::{Exception, Trap};
use isa::exception::Vector;
use std::cmp::Ordering;

const XM: Trap = Trap::Exception(Exception::plain(Vector::SimdFloatingPoint));

/// All masked, round to nearest.
const MASKED: u32 = 0x1f80;
const DOWN: u32 = 0x3f80;
const UP: u32 = 0x5f80;
const TOWARD_ZERO: u32 = 0x7f80;
const FTZ: u32 = 0x9f80;
const DAZ: u32 = 0x1fc0;
const IE: u32 = 1;
const DE: u32 = 2;
const ZE: u32 = 4;
const OE: u32 = 8;
const UE: u32 = 16;
const PE: u32 = 32;

const ONE: u64 = 0x3ff0_0000_0000_0000;
const INFINITY: u64 = 0x7ff0_0000_0000_0000;
const INDEFINITE: u64 = 0xfff8_0000_0000_0000;
const QNAN: u64 = 0x7ff8_0000_0000_0123;
const SNAN: u64 = 0x7ff0_0000_0000_0456;
const NEGATIVE: u64 = 1 << 63;
const MAX: u64 = 0x7fef_ffff_ffff_ffff;
const SMALLEST_NORMAL: u64 = 0x0010_0000_0000_0000;
const DENORMAL: u64 = 1;

fn compute<F: Format>(mxcsr: u32, operation: Arithmetic, a: u64, b: u64) -> (u64, u32) {
    let mut float = Float::new(mxcsr);
    let result = float.arithmetic::<F>(operation, a, b);
    (result, float.raised())
}

#[test]
fn results_and_flags_of_double_precision() {
    use Arithmetic::{Add, Divide, Multiply, SquareRoot, Subtract};
    // Ten, a tenth, and their like, to the last bit.
    let tenth = 0.1f64.to_bits();
    let table: &[(u32, Arithmetic, u64, u64, u64, u32, &str)] = &[
        (MASKED, Add, ONE, ONE, 2.0f64.to_bits(), 0, "exact"),
        (MASKED, Add, ONE, 0x3c90_0000_0000_0000, ONE, PE, "half a unit in the last place is a tie, to even"),
        (MASKED, Add, ONE + 1, 0x3ca0_0000_0000_0000, ONE + 2, PE, "a tie, to even, upwards"),
        (UP, Add, ONE, DENORMAL, ONE + 1, DE | PE, "anything at all rounds up"),
        (DOWN, Add, ONE, DENORMAL, ONE, DE | PE, "or down"),
        (DOWN, Add, ONE, NEGATIVE | DENORMAL, ONE - 1, DE | PE, "a little less"),
        (TOWARD_ZERO, Add, NEGATIVE | ONE, DENORMAL, NEGATIVE | (ONE - 1), DE | PE, "toward zero"),
        (MASKED, Subtract, ONE, ONE, 0, 0, "a difference of zero is positive"),
        (DOWN, Subtract, ONE, ONE, NEGATIVE, 0, "but negative when rounding down"),
        (MASKED, Add, NEGATIVE, NEGATIVE, NEGATIVE, 0, "negative zeros"),
        (MASKED, Add, SMALLEST_NORMAL, NEGATIVE | DENORMAL, SMALLEST_NORMAL - 1, DE, "sums are never inexact where they are tiny"),
        (FTZ, Add, SMALLEST_NORMAL, NEGATIVE | DENORMAL, 0, DE | UE | PE, "flushed to zero"),
        (DAZ, Add, SMALLEST_NORMAL, NEGATIVE | DENORMAL, SMALLEST_NORMAL, 0, "denormals are zeros"),
        (MASKED, Subtract, INFINITY, INFINITY, INDEFINITE, IE, "infinity less infinity"),
        (MASKED, Add, INFINITY, DENORMAL, INFINITY, DE, "infinity and a denormal"),
        (MASKED, Add, MAX, MAX, INFINITY, OE | PE, "overflow"),
        (TOWARD_ZERO, Add, MAX, MAX, MAX, OE | PE, "overflow toward zero"),
        (DOWN, Subtract, NEGATIVE | MAX, MAX, NEGATIVE | INFINITY, OE | PE, "overflow downwards"),
        (UP, Subtract, NEGATIVE | MAX, MAX, NEGATIVE | MAX, OE | PE, "overflow of a negative number when rounding up"),
        (MASKED, Multiply, tenth, tenth, 0x3f84_7ae1_47ae_147c, PE, "a tenth squared"),
        (MASKED, Multiply, 0, INFINITY, INDEFINITE, IE, "zero times infinity"),
        (MASKED, Multiply, SMALLEST_NORMAL, 0.5f64.to_bits(), SMALLEST_NORMAL >> 1, 0, "exact and tiny is no underflow"),
        (FTZ, Multiply, SMALLEST_NORMAL, 0.5f64.to_bits(), 0, UE | PE, "unless flushed"),
        (MASKED, Multiply, SMALLEST_NORMAL, tenth, 0x0001_9999_9999_999a, UE | PE, "inexact and tiny is one"),
        (MASKED | PE, Multiply, 0x001f_ffff_ffff_ffff, 0.5f64.to_bits(), SMALLEST_NORMAL, UE | PE, "rounded up to normal, but tiny"),
        (MASKED, Multiply, 0x0170_0000_0200_0000, 0x3e8f_ffff_fc00_0000, SMALLEST_NORMAL, PE, "tininess is found after rounding"),
        (MASKED, Divide, ONE, 10.0f64.to_bits(), tenth, PE, "one tenth"),
        (DOWN, Divide, ONE, 10.0f64.to_bits(), tenth - 1, PE, "one tenth, rounded down"),
        (MASKED, Divide, ONE, NEGATIVE, NEGATIVE | INFINITY, ZE, "by negative zero"),
        (MASKED, Divide, DENORMAL, 0, INFINITY, ZE, "a denormal by zero is not worth its own flag"),
        (MASKED, Divide, 0, 0, INDEFINITE, IE, "zero by zero"),
        (MASKED, Divide, INFINITY, INFINITY, INDEFINITE, IE, "infinity by infinity"),
        (MASKED, Divide, INFINITY, 0, INFINITY, 0, "infinity by zero is no division by zero"),
        (MASKED, SquareRoot, 0, 2.0f64.to_bits(), 0x3ff6_a09e_667f_3bcd, PE, "the root of two"),
        (DOWN, SquareRoot, 0, 2.0f64.to_bits(), 0x3ff6_a09e_667f_3bcc, PE, "the root of two, rounded down"),
        (MASKED, SquareRoot, 0, 9.0f64.to_bits(), 3.0f64.to_bits(), 0, "an exact root"),
        (MASKED, SquareRoot, 0, NEGATIVE, NEGATIVE, 0, "of negative zero"),
        (MASKED, SquareRoot, 0, NEGATIVE | ONE, INDEFINITE, IE, "of a negative number"),
        (MASKED, SquareRoot, 0, DENORMAL, 0x1e60_0000_0000_0000, DE, "of the smallest denormal, 2^-537"),
        (MASKED, Add, QNAN, SNAN, QNAN, IE, "the first NaN"),
        (MASKED, Add, SNAN, QNAN, SNAN | 1 << 51, IE, "the first NaN, made quiet"),
        (MASKED, Add, ONE, SNAN, SNAN | 1 << 51, IE, "the only NaN, made quiet"),
        (MASKED, Subtract, ONE, NEGATIVE | QNAN, NEGATIVE | QNAN, 0, "a NaN keeps its sign when subtracted"),
        (MASKED, Multiply, DENORMAL, QNAN, QNAN, 0, "a quiet NaN hides a denormal"),
    ];
    for (mxcsr, operation, a, b, result, raised, name) in table {
        let (found, flags) = compute::<Double>(*mxcsr, *operation, *a, *b);
        assert_eq!((format!("{found:016x}"), flags), (format!("{result:016x}"), *raised), "{operation:?}: {name}");
    }
}

/// The host's arithmetic and ours on integers: PM clear keeps the shortcut away. Only results that are not NaNs can be compared.
#[test]
fn integers_agree_with_the_host_when_rounding_to_nearest() {
    let mut random = Random(0xf10a7);
    let mut compared = 0;
    for _ in 0..20_000 {
        for operation in [Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide, Arithmetic::SquareRoot] {
            let a = random.next();
            // Near in magnitude, or anything.
            let b =
                if random.next() & 1 == 0 { a ^ random.next() >> (random.next() % 60 + 4) ^ random.next() << 63 } else { random.next() };
            let double = Double::host(operation, a, b).0;
            if !f64::from_bits(double).is_nan() {
                assert_eq!(compute::<Double>(0x0f80, operation, a, b).0, double, "{operation:?} {a:016x} {b:016x}");
                compared += 1;
            }
            let (a, b) = (a & 0xffff_ffff, b & 0xffff_ffff);
            let single = Single::host(operation, a, b).0;
            if !f32::from_bits(single as u32).is_nan() {
                assert_eq!(compute::<Single>(0x0f80, operation, a, b).0, single, "{operation:?} {a:08x} {b:08x}");
                compared += 1;
            }
        }
    }
    assert!(compared > 150_000, "{compared}");
}

/// With the shortcut open, flags and results are what the integers say.
#[test]
fn the_shortcut_changes_nothing() {
    let mut random = Random(0x5407);
    for _ in 0..20_000 {
        for operation in [Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide, Arithmetic::SquareRoot] {
            // Few significant bits, so that exact results are frequent.
            let mut short = || random.next() & 0xfff8_0000_0000_0000u64 >> (random.next() % 20) | random.next() & 0xfff0_0000_0000_0000;
            let (a, b) = (short(), short());
            for precision in [0, PE] {
                let quick = compute::<Double>(MASKED | precision, operation, a, b);
                // Unmasking precision closes it, and changes neither results nor flags.
                let slow = compute::<Double>((MASKED | precision) & !(PE << 7), operation, a, b);
                assert_eq!((quick.0, quick.1 & !precision), (slow.0, slow.1 & !precision), "{operation:?} {a:016x} {b:016x} {precision}");
            }
        }
    }
}

#[test]
fn extremes_and_order() {
    let table: &[(u64, u64, u64, u64, u32, &str)] = &[
        (ONE, NEGATIVE | ONE, NEGATIVE | ONE, ONE, 0, "one and minus one"),
        (NEGATIVE | MAX, NEGATIVE | ONE, NEGATIVE | MAX, NEGATIVE | ONE, 0, "two negative numbers"),
        (0, NEGATIVE, NEGATIVE, NEGATIVE, 0, "of two zeros the second"),
        (NEGATIVE, 0, 0, 0, 0, "whichever it is"),
        (QNAN, ONE, ONE, ONE, IE, "beside a NaN the second"),
        (ONE, SNAN, SNAN, SNAN, IE, "even if that is a signaling one, and unchanged"),
        (DENORMAL, ONE, DENORMAL, ONE, DE, "a denormal"),
    ];
    for (a, b, least, most, raised, name) in table {
        for (wanted, result) in [(Ordering::Less, least), (Ordering::Greater, most)] {
            let mut float = Float::new(MASKED);
            assert_eq!(float.extremum::<Double>(*a, *b, wanted), *result, "{name}");
            assert_eq!(float.raised(), *raised, "{name}");
        }
    }
    let mut float = Float::new(DAZ);
    assert_eq!(float.extremum::<Double>(NEGATIVE | DENORMAL, ONE, Ordering::Less), NEGATIVE, "a denormal that is a zero comes out as one");
}

#[test]
fn eight_predicates() {
    // Pairs: less, equal, greater, quiet NaN, signaling NaN. Truth by predicate number, and the flag of the quiet NaN.
    let pairs = [(ONE, 2.0f64.to_bits()), (0, NEGATIVE), (ONE, NEGATIVE | ONE), (QNAN, ONE), (ONE, SNAN)];
    let truths: [([u64; 5], u32); 8] = [
        ([0, 1, 0, 0, 0], 0),
        ([1, 0, 0, 0, 0], IE),
        ([1, 1, 0, 0, 0], IE),
        ([0, 0, 0, 1, 1], 0),
        ([1, 0, 1, 1, 1], 0),
        ([0, 1, 1, 1, 1], IE),
        ([0, 0, 1, 1, 1], IE),
        ([1, 1, 1, 0, 0], 0),
    ];
    let mut bench = Bench::new();
    for (number, (truth, quiet)) in truths.into_iter().enumerate() {
        for (at, (a, b)) in pairs.into_iter().enumerate() {
            bench.cpu.mxcsr = MASKED;
            let mask = 0u64.wrapping_sub(truth[at]);
            let result = bench.binary(&[0xf2, 0x0f, 0xc2, 0xc1, number as u8], u128::from(a) | 7 << 64, u128::from(b));
            assert_eq!(result, Ok(u128::from(mask) | 7 << 64), "predicate {number}, pair {at}");
            let expected = match at {
                3 => quiet,
                4 => IE,
                _ => 0,
            };
            assert_eq!(bench.cpu.mxcsr, MASKED | expected, "predicate {number}, pair {at}");
        }
    }
}

#[test]
fn order_as_flags() {
    // UCOMISD and COMISD: ZF, PF, CF as the low bits of RFLAGS; what MXCSR gets.
    let table: [(u64, u64, u64, u32, u32, &str); 5] = [
        (ONE, 2.0f64.to_bits(), 0x01, 0, 0, "less"),
        (0, NEGATIVE, 0x40, 0, 0, "equal"),
        (ONE, NEGATIVE | ONE, 0x00, 0, 0, "greater"),
        (QNAN, ONE, 0x45, 0, IE, "unordered, quiet"),
        (ONE, SNAN, 0x45, IE, IE, "unordered, signaling"),
    ];
    let mut bench = Bench::new();
    for (a, b, status, unordered, ordered, name) in table {
        for (opcode, raised) in [(0x2e, unordered), (0x2f, ordered)] {
            bench.cpu.mxcsr = MASKED;
            bench.cpu.set_rflags(isa::rflags::Rflags::from_bits(0x8d7));
            assert!(bench.binary(&[0x66, 0x0f, opcode, 0xc1], a.into(), b.into()).is_ok());
            assert_eq!(bench.cpu.rflags().into_bits() & 0x8d5, status, "{opcode:x}: {name}");
            assert_eq!(bench.cpu.mxcsr, MASKED | raised, "{opcode:x}: {name}");
        }
    }
    // An unmasked exception leaves the flags.
    bench.cpu.mxcsr = MASKED & !(IE << 7);
    bench.cpu.set_rflags(isa::rflags::Rflags::from_bits(0x8d7));
    assert_eq!(bench.binary(&[0x66, 0x0f, 0x2f, 0xc1], QNAN.into(), 0), Err(XM));
    assert_eq!(bench.cpu.rflags().into_bits() & 0x8d5, 0x8d5);
}

#[test]
fn unmasked_exceptions_keep_the_destination() {
    const ADDPD: &[u8] = &[0x66, 0x0f, 0x58, 0xc1];
    let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let inexact = (ONE, 0x3c90_0000_0000_0000);
    // What is not masked; operands of the high and of the low element; flags.
    type Row = (u32, (u64, u64), (u64, u64), u32, &'static str);
    let table: [Row; 5] = [
        (PE, inexact, (ONE, ONE), PE, "one element alone"),
        (PE, inexact, (ONE, SNAN), IE | PE, "flags of both"),
        (IE, inexact, (ONE, SNAN), IE, "operands that stop hide results"),
        (DE, (ONE, DENORMAL), (MAX, MAX), DE, "of other elements, too"),
        (UE, (SMALLEST_NORMAL, NEGATIVE | DENORMAL), (ONE, ONE), DE | UE, "unmasked underflow needs no inexact result"),
    ];
    for (unmasked, high, low, raised, name) in table {
        for (enabled, trap) in [(true, XM), (false, Trap::UD)] {
            let mut bench = Bench::new();
            bench.cpu.cr4.set_osxmmexcpt(enabled);
            bench.cpu.mxcsr = MASKED & !(unmasked << 7);
            let (a, b) = (join(high.0, low.0), join(high.1, low.1));
            assert_eq!(bench.binary(ADDPD, a, b), Err(trap), "{name}");
            assert_eq!(bench.xmm(0), a, "{name}");
            assert_eq!(bench.cpu.mxcsr & 0x3f, raised, "{name}");
        }
    }
}

#[test]
fn packed_and_scalar_operate_on_their_elements() {
    let a = u128::from_le_bytes([1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat().try_into().expect("16 bytes"));
    let b = u128::from_le_bytes([0.5f32, 0.25, -8.0, 16.0].map(f32::to_le_bytes).concat().try_into().expect("16 bytes"));
    let singles = |value: u128| -> [f32; 4] { std::array::from_fn(|at| f32::from_bits((value >> (32 * at)) as u32)) };
    let table: [(&[u8], [f32; 4], &str); 8] = [
        (&[0x0f, 0x58, 0xc1], [1.5, 2.25, -5.0, 20.0], "ADDPS"),
        (&[0x0f, 0x5c, 0xc1], [0.5, 1.75, 11.0, -12.0], "SUBPS"),
        (&[0x0f, 0x59, 0xc1], [0.5, 0.5, -24.0, 64.0], "MULPS"),
        (&[0x0f, 0x5e, 0xc1], [2.0, 8.0, -0.375, 0.25], "DIVPS"),
        (&[0x0f, 0x5d, 0xc1], [0.5, 0.25, -8.0, 4.0], "MINPS"),
        (&[0x0f, 0x5f, 0xc1], [1.0, 2.0, 3.0, 16.0], "MAXPS"),
        (&[0xf3, 0x0f, 0x5e, 0xc1], [2.0, 2.0, 3.0, 4.0], "DIVSS"),
        (&[0xf3, 0x0f, 0x51, 0xc0], [1.0, 2.0, 3.0, 4.0], "SQRTSS"),
    ];
    let mut bench = Bench::new();
    for (bytes, expected, name) in table {
        assert_eq!(bench.binary(bytes, a, b).map(singles), Ok(expected), "{name}");
    }
    assert_eq!(bench.cpu.mxcsr, MASKED, "all exact");
}

#[test]
fn approximations_are_within_the_architectural_bound() {
    use super::super::approximation::{reciprocal, reciprocal_root};
    let mut random = Random(0xacc0);
    for _ in 0..100_000 {
        // Exponents that leave room for a normal result.
        let bits = random.next() as u32 & 0x807f_ffff | ((random.next() % 250 + 2) as u32) << 23;
        let value = f64::from(f32::from_bits(bits));
        let error = |found: u32, exact: f64| ((f64::from(f32::from_bits(found)) - exact) / exact).abs();
        assert!(error(reciprocal(bits), 1.0 / value) <= 1.5 / 4096.0, "{bits:08x}");
        let bits = bits & 0x7fff_ffff;
        assert!(error(reciprocal_root(bits), 1.0 / value.abs().sqrt()) <= 1.5 / 4096.0, "{bits:08x}");
    }
    let table = [
        (0x0000_0000, 0x7f80_0000, 0x7f80_0000, "zero"),
        (0x8000_0001, 0xff80_0000, 0xff80_0000, "a negative denormal counts as zero"),
        (0x7f80_0000, 0x0000_0000, 0x0000_0000, "infinity"),
        (0xff80_0000, 0x8000_0000, 0xffc0_0000, "negative infinity"),
        (0x7f80_0001, 0x7fc0_0001, 0x7fc0_0001, "a signaling NaN"),
        (0x3f80_0000, 0x3f80_0000, 0x3f80_0000, "one"),
        (0x4080_0000, 0x3e80_0000, 0x3f00_0000, "four"),
    ];
    for (value, inverse, root, name) in table {
        assert_eq!(reciprocal(value), inverse, "{name}");
        assert_eq!(reciprocal_root(value), root, "{name}");
    }
    assert_eq!(reciprocal(0x7f00_0000), 0, "the reciprocal of 2^127 would be denormal");
    let mut bench = Bench::new();
    bench.cpu.mxcsr = 0;
    assert_eq!(
        bench.binary(&[0x0f, 0x53, 0xc1], 0, 0x7f80_0001_8000_0001_0000_0000_4000_0000),
        Ok(0x7fc0_0001_ff80_0000_7f80_0000_3f00_0000)
    );
    assert_eq!(bench.binary(&[0xf3, 0x0f, 0x52, 0xc1], 7 << 32, 0x4080_0000), Ok(7 << 32 | 0x3f00_0000));
    assert_eq!(bench.cpu.mxcsr, 0, "neither reads nor writes MXCSR");
}
