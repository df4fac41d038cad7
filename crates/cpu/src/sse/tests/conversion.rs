//! Conversions between the formats and integers.

use super::super::float::{Double, Float, Single};
use super::{Bench, DATA};
use isa::register::Gpr;

const MASKED: u32 = 0x1f80;
const DOWN: u32 = 0x3f80;
const UP: u32 = 0x5f80;
const DAZ: u32 = 0x1fc0;
const IE: u32 = 1;
const DE: u32 = 2;
const OE: u32 = 8;
const UE: u32 = 16;
const PE: u32 = 32;

#[test]
fn to_integers() {
    const INDEFINITE: u64 = 0x8000_0000;
    const WIDE_INDEFINITE: u64 = 1 << 63;
    let table: &[(f64, u32, u32, bool, u64, u32)] = &[
        // Value, MXCSR, bits, truncated, result, flags.
        (1.0, MASKED, 32, false, 1, 0),
        (1.5, MASKED, 32, false, 2, PE),
        (2.5, MASKED, 32, false, 2, PE),
        (2.5, MASKED, 32, true, 2, PE),
        (-2.5, DOWN, 32, false, 0xffff_fffd, PE),
        (-2.5, DOWN, 32, true, 0xffff_fffe, PE),
        (-2.5, DOWN, 64, false, 0xffff_ffff_ffff_fffd, PE),
        (0.25, UP, 64, false, 1, PE),
        (-0.25, UP, 64, false, 0, PE),
        (-0.0, MASKED, 64, false, 0, 0),
        (1e-300, UP, 32, false, 1, PE),
        (5e-324, MASKED, 32, false, 0, PE),
        (5e-324, UP, 32, false, 1, PE),
        (5e-324, DAZ, 32, false, 0, 0),
        (2147483647.0, MASKED, 32, false, 0x7fff_ffff, 0),
        (2147483647.5, MASKED, 32, false, INDEFINITE, IE),
        (2147483647.5, MASKED, 32, true, 0x7fff_ffff, PE),
        (2147483648.0, MASKED, 32, false, INDEFINITE, IE),
        (-2147483648.0, MASKED, 32, false, INDEFINITE, 0),
        (-2147483648.5, MASKED, 32, false, INDEFINITE, PE),
        (-2147483649.0, MASKED, 32, false, INDEFINITE, IE),
        (2147483648.0, MASKED, 64, false, 0x8000_0000, 0),
        (9223372036854774784.0, MASKED, 64, false, 0x7fff_ffff_ffff_fc00, 0),
        (9223372036854775808.0, MASKED, 64, false, WIDE_INDEFINITE, IE),
        (-9223372036854775808.0, MASKED, 64, false, WIDE_INDEFINITE, 0),
        (-9223372036854777856.0, MASKED, 64, false, WIDE_INDEFINITE, IE),
        (f64::INFINITY, MASKED, 32, true, INDEFINITE, IE),
        (f64::NAN, MASKED, 64, true, WIDE_INDEFINITE, IE),
    ];
    for (value, mxcsr, bits, truncated, result, raised) in table {
        let mut float = Float::new(*mxcsr);
        assert_eq!(float.integer_of::<Double>(value.to_bits(), *bits, *truncated), *result, "{value} to {bits} bits, {truncated}");
        assert_eq!(float.raised(), *raised, "{value} to {bits} bits, {truncated}");
    }
}

#[test]
fn from_integers() {
    let mut float = Float::new(MASKED);
    for value in [0i64, 1, -1, i64::from(i32::MIN), (1 << 53) - 1, i64::MIN] {
        assert_eq!(float.number_of::<Double>(value), (value as f64).to_bits(), "{value}");
    }
    assert_eq!(float.raised(), 0, "all exact");
    for (mxcsr, value, result) in
        [(MASKED, (1 << 24) + 1, 16_777_216.0f32), (UP, (1 << 24) + 1, 16_777_218.0), (DOWN, -(1 << 24) - 1, -16_777_218.0)]
    {
        let mut float = Float::new(mxcsr);
        assert_eq!(float.number_of::<Single>(value), u64::from(result.to_bits()), "{value}");
        assert_eq!(float.raised(), PE);
    }
}

#[test]
fn between_formats() {
    let narrow: &[(u64, u32, u64, u32, &str)] = &[
        (1.5f64.to_bits(), MASKED, 0x3fc0_0000, 0, "exact"),
        (0.1f64.to_bits(), MASKED, 0x3dcc_cccd, PE, "inexact"),
        (1e300f64.to_bits(), MASKED, 0x7f80_0000, OE | PE, "overflow"),
        (1e300f64.to_bits(), DOWN, 0x7f7f_ffff, OE | PE, "overflow, rounded down"),
        (1e-40f64.to_bits(), MASKED, 0x0001_16c2, UE | PE, "a denormal result"),
        (1e-40f64.to_bits(), MASKED | 0x8000, 0, UE | PE, "flushed"),
        (5e-324f64.to_bits(), MASKED, 0, DE | UE | PE, "a denormal operand"),
        (5e-324f64.to_bits() | 1 << 63, DAZ, 0x8000_0000, 0, "a denormal that is a zero"),
        (0x7ff8_0000_2000_0001, MASKED, 0x7fc0_0001, 0, "a NaN keeps its leading bits"),
        (0xfff0_0000_2000_0000, MASKED, 0xffc0_0001, IE, "a signaling NaN becomes quiet"),
        (0xfff0_0000_0000_0000, MASKED, 0xff80_0000, 0, "infinity"),
    ];
    for (value, mxcsr, result, raised, name) in narrow {
        let mut float = Float::new(*mxcsr);
        assert_eq!((float.convert::<Double, Single>(*value), float.raised()), (*result, *raised), "{name}");
    }
    let widen: &[(u64, u64, u32, &str)] = &[
        (0x3fc0_0000, 1.5f64.to_bits(), 0, "exact"),
        (0x0000_0001, 0x36a0_0000_0000_0000, DE, "the smallest denormal is normal in double precision"),
        (0x7fc0_0001, 0x7ff8_0000_2000_0000, 0, "a NaN"),
        (0xff80_0001, 0xfff8_0000_2000_0000, IE, "a signaling NaN"),
        (0x8000_0000, 1 << 63, 0, "negative zero"),
    ];
    for (value, result, raised, name) in widen {
        let mut float = Float::new(MASKED);
        assert_eq!((float.convert::<Single, Double>(*value), float.raised()), (*result, *raised), "{name}");
    }
}

#[test]
fn packed_conversions_take_and_give_the_right_elements() {
    let singles = |values: [f32; 4]| values.iter().rev().fold(0, |result, value| result << 32 | u128::from(value.to_bits()));
    let doubles = |low: f64, high: f64| u128::from(high.to_bits()) << 64 | u128::from(low.to_bits());
    let integers = |values: [i32; 4]| values.iter().rev().fold(0, |result, value| result << 32 | u128::from(*value as u32));
    let table: [(&[u8], u128, u128, &str); 9] = [
        (&[0x0f, 0x5a, 0xc1], singles([1.5, -2.0, 9.0, 9.0]), doubles(1.5, -2.0), "CVTPS2PD"),
        (&[0x66, 0x0f, 0x5a, 0xc1], doubles(1.5, -2.0), singles([1.5, -2.0, 0.0, 0.0]), "CVTPD2PS clears the high half"),
        (&[0x0f, 0x5b, 0xc1], integers([1, -2, 3, i32::MIN]), singles([1.0, -2.0, 3.0, -2147483648.0]), "CVTDQ2PS"),
        (&[0x66, 0x0f, 0x5b, 0xc1], singles([1.5, -2.5, 3e9, 0.0]), integers([2, -2, i32::MIN, 0]), "CVTPS2DQ"),
        (&[0xf3, 0x0f, 0x5b, 0xc1], singles([1.5, -2.5, -3e9, 0.0]), integers([1, -2, i32::MIN, 0]), "CVTTPS2DQ"),
        (&[0xf3, 0x0f, 0xe6, 0xc1], integers([7, -8, 9, 9]), doubles(7.0, -8.0), "CVTDQ2PD"),
        (&[0xf2, 0x0f, 0xe6, 0xc1], doubles(1.5, -2.5), integers([2, -2, 0, 0]), "CVTPD2DQ clears the high half"),
        (&[0x66, 0x0f, 0xe6, 0xc1], doubles(1.9, -2.9), integers([1, -2, 0, 0]), "CVTTPD2DQ clears the high half"),
        (&[0xf2, 0x0f, 0x5a, 0xc1], doubles(0.5, 9.0), u128::MAX >> 32 << 32 | 0x3f00_0000, "CVTSD2SS keeps the rest"),
    ];
    let mut bench = Bench::new();
    for (bytes, source, expected, name) in table {
        let found = bench.binary(bytes, u128::MAX, source).map(|value| format!("{value:032x}"));
        assert_eq!(found, Ok(format!("{expected:032x}")), "{name}");
    }
}

#[test]
fn general_purpose_registers_and_memory() {
    let mut bench = Bench::new();
    bench.cpu.set_gpr(Gpr::Rax, 0xffff_ffff_0000_0005);
    assert_eq!(bench.binary(&[0xf2, 0x0f, 0x2a, 0xc0], 0, 0), Ok(5.0f64.to_bits().into()), "CVTSI2SD XMM0, EAX");
    assert_eq!(bench.binary(&[0xf2, 0x48, 0x0f, 0x2a, 0xc0], 0, 0), Ok((-4294967291.0f64).to_bits().into()), "CVTSI2SD XMM0, RAX");
    bench.write(DATA, &(-3i32).to_le_bytes());
    assert_eq!(bench.binary(&[0xf3, 0x0f, 0x2a, 0x06], 7 << 32, 0), Ok(7 << 32 | 0xc040_0000), "CVTSI2SS XMM0, [RSI]");
    bench.set_xmm(1, (-7.75f64).to_bits().into());
    assert_eq!(bench.run(&[0xf2, 0x0f, 0x2c, 0xc1]), Ok(()));
    assert_eq!(bench.cpu.gpr(Gpr::Rax), 0xffff_fff9, "CVTTSD2SI EAX, XMM1 clears the upper half of RAX");
    assert_eq!(bench.run(&[0xf2, 0x48, 0x0f, 0x2d, 0xc1]), Ok(()));
    assert_eq!(bench.cpu.gpr(Gpr::Rax), (-8i64) as u64, "CVTSD2SI RAX, XMM1");
}
