//! MMX: when its instructions execute, and what they do to the x87 state under them.

use super::{Bench, DATA};
use crate::trap::{Exception, Trap};
use isa::exception::Vector;
use isa::register::Gpr;

/// One instruction of every function, the memory operand (if any) at [rsi].
const INSTRUCTIONS: &[(&[u8], &str)] = &[
    (&[0x0f, 0xfc, 0xc1], "PADDB mm0, mm1"),
    (&[0x0f, 0xf1, 0x06], "PSLLW mm0, [rsi]"),
    (&[0x0f, 0x71, 0xf0, 1], "PSLLW mm0, 1"),
    (&[0x0f, 0x60, 0xc1], "PUNPCKLBW mm0, mm1"),
    (&[0x0f, 0x6e, 0xc0], "MOVD mm0, eax"),
    (&[0x0f, 0x7e, 0xc0], "MOVD eax, mm0"),
    (&[0x0f, 0x7f, 0x06], "MOVQ [rsi], mm0"),
    (&[0x0f, 0xe7, 0x06], "MOVNTQ [rsi], mm0"),
    (&[0x0f, 0xf7, 0xc1], "MASKMOVQ mm0, mm1"),
    (&[0x0f, 0xc5, 0xc1, 0], "PEXTRW eax, mm1, 0"),
    (&[0x0f, 0xc4, 0xc1, 0], "PINSRW mm0, ecx, 0"),
    (&[0x0f, 0xd7, 0xc1], "PMOVMSKB eax, mm1"),
    (&[0x0f, 0x70, 0xc1, 0x1b], "PSHUFW mm0, mm1, 1bh"),
    (&[0x0f, 0x38, 0x00, 0xc1], "PSHUFB mm0, mm1"),
    (&[0x0f, 0x3a, 0x0f, 0xc1, 3], "PALIGNR mm0, mm1, 3"),
    (&[0xf2, 0x0f, 0xd6, 0xc1], "MOVDQ2Q mm0, xmm1"),
    (&[0xf3, 0x0f, 0xd6, 0xc1], "MOVQ2DQ xmm0, mm1"),
    (&[0x0f, 0x2a, 0xc1], "CVTPI2PS xmm0, mm1"),
    (&[0x0f, 0x2d, 0xc1], "CVTPS2PI mm0, xmm1"),
    (&[0x66, 0x0f, 0x2c, 0xc1], "CVTTPD2PI mm0, xmm1"),
    (&[0x0f, 0x77], "EMMS"),
];

/// TOP is 5, and two registers hold something.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.cpu.fpu.status = 5 << 11 | 0x4100;
    bench.cpu.fpu.tag = 0b0110_0000;
    bench.cpu.fpu.registers = std::array::from_fn(|number| 0x3fff << 64 | (1 << 63) | number as u128);
    bench
}

#[test]
fn unusable_mmx_is_undefined_not_available_or_an_x87_error() {
    for (bytes, name) in INSTRUCTIONS {
        let mut em = bench();
        em.cpu.cr0.set_em(true);
        assert_eq!(em.run(bytes), Err(Trap::UD), "{name} with CR0.EM");
        let mut ts = bench();
        ts.cpu.cr0.set_ts(true);
        assert_eq!(ts.run(bytes), Err(Trap::NM), "{name} with CR0.TS");
        let mut pending = bench();
        pending.cpu.fpu.control = 0x37e;
        pending.cpu.fpu.status |= 0x8081;
        let before = pending.cpu.fpu.clone();
        assert_eq!(pending.run(bytes), Err(Trap::Exception(Exception::plain(Vector::MathFault))), "{name}");
        assert_eq!(pending.cpu.fpu, before, "{name}");
    }
}

#[test]
fn every_mmx_instruction_takes_the_x87_stack_over() {
    for (bytes, name) in INSTRUCTIONS {
        let mut bench = bench();
        bench.cpu.set_gpr(Gpr::Rdi, DATA);
        assert_eq!(bench.run(bytes), Ok(()), "{name}");
        let expected = if *name == "EMMS" { 0 } else { 0xff };
        assert_eq!((bench.cpu.fpu.tag, bench.cpu.fpu.status), (expected, 0x4100), "{name}: tags, and TOP 0 with the rest of FSW");
    }
    let mut bench = bench();
    assert_eq!(bench.run(&[0x66, 0x0f, 0x2a, 0x06]), Ok(()), "CVTPI2PD xmm0, [rsi]");
    assert_eq!((bench.cpu.fpu.tag, bench.cpu.fpu.top()), (0b0110_0000, 5), "but not what uses no MMX register");
}

#[test]
fn a_written_register_is_a_nan_to_the_x87_unit() {
    let mut bench = bench();
    bench.cpu.regs[0] = 0x0123_4567_89ab_cdef;
    assert_eq!(bench.run(&[0x48, 0x0f, 0x6e, 0xd0]), Ok(()), "MOVQ mm2, rax");
    assert_eq!(bench.cpu.fpu.registers[2], 0xffff_0123_4567_89ab_cdef);
    assert_eq!(bench.cpu.fpu.registers[3], 0x3fff_8000_0000_0000_0003, "the others stay");
}
