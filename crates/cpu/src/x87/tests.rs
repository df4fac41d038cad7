//! Known values and edges of the x87 unit. That everything else is as on a processor, the comparison with the host's shows
//! (`tests/host_oracle`).

use super::number::{INDEFINITE, INFINITY, ONE, SIGN};
use crate::sse::tests::{Bench, DATA};
use crate::trap::{Exception, Outcome, Trap};
use isa::control::{Cr0, Efer};
use isa::exception::Vector;
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector};

const TWO: u128 = 0x4000_8000_0000_0000_0000;
const THREE: u128 = 0x4000_c000_0000_0000_0000;
const HALF: u128 = 0x3ffe_8000_0000_0000_0000;
const THIRD: u128 = 0x3ffd_aaaa_aaaa_aaaa_aaab;
const PI: u128 = 0x4000_c90f_daa2_2168_c235;
const SMALLEST: u128 = 0x0001_8000_0000_0000_0000;
const MATH_FAULT: Trap = Trap::Exception(Exception::plain(Vector::MathFault));

/// Instruction, ST(0), ST(1), what ST(0) is then, exceptions, name.
type Row<'a> = (&'a [u8], u128, u128, u128, u16, &'a str);
/// Protected mode, FNSTENV, FLDENV, the words in memory.
type Layout<'a> = (bool, &'a [u8], &'a [u8], &'a [u16]);

/// After FNINIT, with values on the stack, the first of them in ST(0).
fn bench(stack: &[u128]) -> Bench {
    let mut bench = Bench::new();
    bench.run(&[0xdb, 0xe3]).expect("FNINIT");
    for value in stack.iter().rev() {
        push(&mut bench, *value);
    }
    bench
}

fn push(bench: &mut Bench, value: u128) {
    bench.write(DATA, &value.to_le_bytes()[..10]);
    bench.run(&[0xdb, 0x2e]).expect("FLD m80");
}

/// ST(i), if it is not empty.
fn st(bench: &Bench, number: usize) -> Option<u128> {
    let index = (bench.cpu.fpu.top() + number) & 7;
    (bench.cpu.fpu.tag >> index & 1 != 0).then(|| bench.cpu.fpu.registers[index])
}

fn hex(value: Option<u128>) -> String {
    value.map_or("empty".into(), |value| format!("{value:020x}"))
}

#[test]
fn arithmetic_of_known_values() {
    let table: [Row<'_>; 16] = [
        (&[0xd8, 0xc1], ONE, TWO, THREE, 0, "FADD"),
        (&[0xd8, 0xe1], ONE, TWO, SIGN | ONE, 0, "FSUB"),
        (&[0xd8, 0xe9], ONE, TWO, ONE, 0, "FSUBR"),
        (&[0xd8, 0xf1], ONE, THREE, THIRD, 0x20, "FDIV is inexact"),
        (&[0xd8, 0xf1], ONE, 0, INFINITY, 0x04, "FDIV by zero"),
        (&[0xd8, 0xf1], 0, 0, INDEFINITE, 0x01, "zero by zero"),
        (&[0xd8, 0xc1], INFINITY, SIGN | INFINITY, INDEFINITE, 0x01, "infinities of both signs"),
        (&[0xd8, 0xc9], SMALLEST, SMALLEST, 0, 0x30, "FMUL underflows to zero"),
        (&[0xd8, 0xc9], SMALLEST, HALF, 0x4000_0000_0000_0000, 0, "an exact denormal is no underflow"),
        (&[0xd8, 0xc1], 0x3fff_4000_0000_0000_0000, ONE, INDEFINITE, 0x01, "an unnormal is no number"),
        (&[0xd8, 0xc1], 0x7fff_8000_0000_0000_0001, ONE, 0x7fff_c000_0000_0000_0001, 0x01, "a signaling NaN becomes quiet"),
        (&[0xd8, 0xc1], 0x7fff_c000_0000_0000_0001, 0xffff_c000_0000_0000_0002, 0xffff_c000_0000_0000_0002, 0, "the larger of two NaNs"),
        (&[0xd9, 0xfa], TWO, 0, 0x3fff_b504_f333_f9de_6484, 0x20, "FSQRT"),
        (&[0xd9, 0xfc], 0x3fff_c000_0000_0000_0000, 0, TWO, 0x20, "FRNDINT of 1.5 to even"),
        (&[0xd9, 0xfd], THREE, TWO, 0x4002_c000_0000_0000_0000, 0, "FSCALE"),
        (&[0xd9, 0xf8], THREE, TWO, ONE, 0, "FPREM"),
    ];
    for (bytes, a, b, expected, exceptions, name) in table {
        let mut bench = bench(&[a, b]);
        assert_eq!(bench.run(bytes), Ok(()));
        assert_eq!((hex(st(&bench, 0)), bench.cpu.fpu.status & 0x7f), (hex(Some(expected)), exceptions), "{name}");
    }
}

#[test]
fn precision_and_rounding_control_decide_the_last_bit() {
    // FCW, and 1/3 by it.
    let table = [
        (0x37f, THIRD),
        (0x77f, 0x3ffd_aaaa_aaaa_aaaa_aaaa),
        (0xb7f, THIRD),
        (0x27f, 0x3ffd_aaaa_aaaa_aaaa_a800),
        (0xa7f, 0x3ffd_aaaa_aaaa_aaaa_b000),
        (0x07f, 0x3ffd_aaaa_ab00_0000_0000),
        (0xc7f, 0x3ffd_aaaa_aa00_0000_0000),
    ];
    for (control, expected) in table {
        let mut bench = bench(&[ONE, THREE]);
        bench.cpu.fpu.control = control;
        assert_eq!(bench.run(&[0xd8, 0xf1]), Ok(()));
        assert_eq!(hex(st(&bench, 0)), hex(Some(expected)), "1/3 with FCW {control:#x}");
    }
}

#[test]
fn an_unmasked_exception_waits_for_the_next_instruction() {
    let mut bench = bench(&[ONE, 0]);
    bench.cpu.fpu.control = 0x37b;
    assert_eq!(bench.run(&[0xd8, 0xf1]), Ok(()), "FDIV itself completes");
    assert_eq!(bench.cpu.fpu.status & 0x80ff, 0x8084, "ES and B");
    assert_eq!(st(&bench, 0), Some(ONE), "the operand stays");
    assert_eq!(bench.run(&[0xdf, 0xe0]), Ok(()), "FNSTSW does not wait");
    for waiting in [&[0x9b][..], &[0xd9, 0xe8], &[0xd9, 0xd0], &[0x0f, 0xfc, 0xc0]] {
        let before = bench.cpu.fpu.clone();
        assert_eq!(bench.run(waiting), Err(MATH_FAULT), "{waiting:02x?}");
        assert_eq!(bench.cpu.fpu, before);
    }
    assert_eq!(bench.run(&[0xdb, 0xe2]), Ok(()), "FNCLEX");
    assert_eq!(bench.run(&[0xd9, 0xe8]), Ok(()));
}

#[test]
fn unmasked_overflow_and_underflow_wrap_the_exponent() {
    let table = [
        (0x377, 0x7ffe_8000_0000_0000_0000, 0x1fff_8000_0000_0000_0000, 0x08, "overflow"),
        (0x36f, SMALLEST, 0x6000_8000_0000_0000_0000, 0x10, "underflow"),
    ];
    for (control, value, expected, exception, name) in table {
        let factor = if exception == 8 { TWO } else { HALF };
        let mut bench = bench(&[value, factor]);
        bench.cpu.fpu.control = control;
        assert_eq!(bench.run(&[0xd8, 0xc9]), Ok(()));
        assert_eq!((hex(st(&bench, 0)), bench.cpu.fpu.status & 0x80ff), (hex(Some(expected)), 0x8080 | exception), "{name}");
    }
}

#[test]
fn the_stack_overflows_and_underflows() {
    let mut full = bench(&[ONE; 8]);
    assert_eq!(full.run(&[0xd9, 0xe8]), Ok(()), "FLD1 on a full stack");
    assert_eq!((st(&full, 0), full.cpu.fpu.status & 0x27f), (Some(INDEFINITE), 0x241), "IE, SF, C1");
    let mut empty = bench(&[]);
    assert_eq!(empty.run(&[0xd8, 0xc1]), Ok(()), "FADD of nothing");
    assert_eq!((st(&empty, 0), empty.cpu.fpu.status & 0x27f), (Some(INDEFINITE), 0x41), "IE, SF");
    let mut unmasked = bench(&[]);
    unmasked.cpu.fpu.control = 0x37e;
    assert_eq!(unmasked.run(&[0xd8, 0xc1]), Ok(()));
    assert_eq!((st(&unmasked, 0), unmasked.cpu.fpu.status & 0xff), (None, 0xc1));
}

#[test]
fn comparisons_and_classes() {
    // ST(0), ST(1), C3 C2 C0 of FCOM, whether FCOM and FUCOM are invalid.
    const NAN: u128 = 0x7fff_c000_0000_0000_0000;
    for (a, b, conditions, ordered) in
        [(TWO, ONE, 0, true), (ONE, TWO, 0x100, true), (ONE, ONE, 0x4000, true), (0, SIGN, 0x4000, true), (NAN, ONE, 0x4500, false)]
    {
        for (bytes, invalid, name) in [([0xd8, 0xd1], !ordered, "FCOM"), ([0xdd, 0xe1], false, "FUCOM")] {
            let mut bench = bench(&[a, b]);
            assert_eq!(bench.run(&bytes), Ok(()));
            let status = bench.cpu.fpu.status;
            assert_eq!((status & 0x4500, status & 1 != 0), (conditions, invalid), "{name} of {a:020x} and {b:020x}");
        }
    }
    // C3 C2 C1 C0 of FXAM.
    let classes = [
        (SIGN, 0x4200),
        (ONE, 0x0400),
        (SIGN | INFINITY, 0x0700),
        (NAN, 0x0100),
        (1, 0x4400),
        (0x8000_0000_0000_0000, 0x4400),
        (0x3fff_4000_0000_0000_0000, 0),
    ];
    for (value, conditions) in classes {
        let mut bench = bench(&[value]);
        assert_eq!(bench.run(&[0xd9, 0xe5]), Ok(()));
        assert_eq!(bench.cpu.fpu.status & 0x4700, conditions, "FXAM of {value:020x}");
    }
}

#[test]
fn integers_and_decimals() {
    let mut bench = bench(&[]);
    bench.write(DATA, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(bench.run(&[0xdf, 0x2e]), Ok(()), "FILD m64");
    assert_eq!(hex(st(&bench, 0)), "403dfffffffffffffffe");
    assert_eq!(bench.run(&[0xdf, 0x1e]), Ok(()), "FISTP m16");
    assert_eq!((bench.read(DATA), bench.cpu.fpu.status & 1), ([0x00, 0x80], 1), "does not fit: the integer indefinite");
    let digits = [0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0, 0, 0x80];
    bench.write(DATA, &digits);
    assert_eq!(bench.run(&[0xdf, 0x26]), Ok(()), "FBLD");
    assert_eq!(hex(st(&bench, 0)), "c019eb79a2a000000000", "-123456789");
    bench.write(DATA, &[0; 10]);
    assert_eq!(bench.run(&[0xdf, 0x36]), Ok(()), "FBSTP");
    assert_eq!(bench.read(DATA), digits);
    push(&mut bench, 0x403a_de0b_6b3a_7640_0000);
    assert_eq!(bench.run(&[0xdf, 0x36]), Ok(()), "FBSTP of 10^18");
    assert_eq!(bench.read(DATA), [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], "has too many digits");
}

#[test]
fn functions_of_known_values() {
    let table: [(&[u8], u128, u128, u128, &str); 10] = [
        (&[0xd9, 0xfe], ONE, 0, 0x3ffe_d76a_a478_4867_7021, "sin 1"),
        (&[0xd9, 0xff], ONE, 0, 0x3ffe_8a51_407d_a834_5c92, "cos 1"),
        (&[0xd9, 0xff], 0, 0, ONE, "cos 0"),
        (&[0xd9, 0xf3], ONE, ONE, 0x3ffe_c90f_daa2_2168_c235, "atan 1 is pi/4"),
        (&[0xd9, 0xf3], SIGN | ONE, 0, PI, "the angle of -1 is pi"),
        (&[0xd9, 0xf0], HALF, 0, 0x3ffd_d413_cccf_e779_9211, "2^0.5 - 1"),
        (&[0xd9, 0xf0], SIGN | ONE, 0, SIGN | HALF, "2^-1 - 1"),
        (&[0xd9, 0xf1], 0x4002_8000_0000_0000_0000, ONE, THREE, "log2 8"),
        (&[0xd9, 0xf1], THREE, ONE, 0x3fff_cae0_0d1c_fdeb_43d0, "log2 3"),
        (&[0xd9, 0xf9], 0x3fb9_8000_0000_0000_0000, ONE, 0x3fb9_b8aa_3b29_5c17_f0bc, "log2 (1 + 2^-70)"),
    ];
    for (bytes, x, y, expected, name) in table {
        let mut bench = bench(&[x, y]);
        assert_eq!(bench.run(bytes), Ok(()));
        assert_eq!(hex(st(&bench, 0)), hex(Some(expected)), "{name}");
    }
    let mut tangent = bench(&[ONE]);
    assert_eq!(tangent.run(&[0xd9, 0xf2]), Ok(()), "FPTAN");
    assert_eq!([st(&tangent, 0), st(&tangent, 1)].map(hex), [ONE, 0x3fff_c759_22e5_f71d_2dc5].map(|value| hex(Some(value))));
    let mut far = bench(&[0x403e_8000_0000_0000_0000]);
    assert_eq!(far.run(&[0xd9, 0xfe]), Ok(()));
    assert_eq!((st(&far, 0), far.cpu.fpu.status & 0x400), (Some(0x403e_8000_0000_0000_0000), 0x400), "2^63 is out of range: C2");
}

/// 16-bit code, in real or protected mode, with CS and DS at 0x100.
fn sixteen_bits(protected: bool) -> Bench {
    let mut bench = bench(&[ONE]);
    bench.cpu.efer = Efer::new();
    bench.cpu.cr0 = Cr0::from_bits(if protected { 0x31 } else { 0x30 });
    for segment in Segment::ALL {
        let attributes = Attributes::from_bits(if *segment == Segment::Cs { 0x9b } else { 0x93 });
        let register = SegmentRegister { selector: Selector::from_bits(0x100), base: 0x1000, limit: 0xffff, attributes };
        bench.cpu.segments[*segment as usize] = register;
    }
    bench.cpu.cpl = 0;
    bench.cpu.context_changed();
    bench.cpu.fpu.instruction = 0x2345;
    bench.cpu.fpu.instruction_segment = 0x100;
    bench.cpu.fpu.data = 0xabcd;
    bench.cpu.fpu.data_segment = 0xf000;
    bench.cpu.fpu.opcode = 0x5a5;
    bench
}

#[test]
fn the_environment_has_four_layouts() {
    // FNSTENV at DS:2000H, which is 3000H.
    const STORE: &[u8] = &[0xd9, 0x36, 0x00, 0x20];
    const STORE_32: &[u8] = &[0x66, 0xd9, 0x36, 0x00, 0x20];
    const LOAD: &[u8] = &[0xd9, 0x26, 0x00, 0x20];
    const LOAD_32: &[u8] = &[0x66, 0xd9, 0x26, 0x00, 0x20];
    let words = |bytes: &[u8]| bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
    let table: [Layout<'_>; 4] = [
        (true, STORE, LOAD, &[0x37f, 0x3800, 0x3fff, 0x2345, 0x100, 0xabcd, 0xf000]),
        (false, STORE, LOAD, &[0x37f, 0x3800, 0x3fff, 0x3345, 0x05a5, 0xabcd, 0xf000]),
        (true, STORE_32, LOAD_32, &[0x37f, !0, 0x3800, !0, 0x3fff, !0, 0x2345, 0, 0x100, 0x5a5, 0xabcd, 0, 0xf000, !0]),
        (false, STORE_32, LOAD_32, &[0x37f, !0, 0x3800, !0, 0x3fff, !0, 0x3345, !0, 0x05a5, 0, 0xabcd, !0, 0xf000, 0]),
    ];
    for (protected, store, load, expected) in table {
        let mut bench = sixteen_bits(protected);
        bench.write(0x3000, &[0xcc; 32]);
        let before = bench.cpu.fpu.clone();
        assert_eq!(bench.run_in(16, store), Ok(()));
        let bytes: [u8; 28] = bench.read(0x3000);
        assert_eq!(words(&bytes[..2 * expected.len()]), expected, "protected {protected}, {} bytes", 2 * expected.len());
        assert_eq!(bench.cpu.fpu.control, 0x37f);
        bench.cpu.fpu.status = 0;
        bench.cpu.fpu.tag = 0;
        assert_eq!(bench.run_in(16, load), Ok(()));
        assert_eq!((bench.cpu.fpu.status, bench.cpu.fpu.tag), (before.status, before.tag), "FLDENV");
    }
}

#[test]
fn state_is_saved_and_restored_whole() -> Outcome {
    let mut bench = bench(&[ONE, TWO, THREE]);
    let before = bench.cpu.fpu.clone();
    bench.run(&[0xdd, 0x36])?;
    assert_eq!((bench.cpu.fpu.tag, bench.cpu.fpu.status, bench.cpu.fpu.control), (0, 0, 0x37f), "FNSAVE initializes");
    let first: [u8; 10] = bench.read(DATA + 28);
    assert_eq!(first, ONE.to_le_bytes()[..10], "ST(0) comes first");
    bench.run(&[0xdd, 0x26])?;
    assert_eq!(bench.cpu.fpu.registers, before.registers, "FRSTOR");
    assert_eq!((bench.cpu.fpu.tag, bench.cpu.fpu.top()), (before.tag, before.top()));
    Ok(())
}
