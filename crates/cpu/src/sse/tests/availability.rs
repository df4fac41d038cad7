//! What keeps an SSE instruction from executing: #UD, #NM, alignment.

use super::{Bench, DATA, GP0, decode};
use crate::trap::Trap;
use isa::register::Gpr;

/// One instruction of every function, the memory operand (if any) at [rsi]; whether it is 16 bytes that must be aligned.
const INSTRUCTIONS: &[(&[u8], bool, &str)] = &[
    (&[0x0f, 0x58, 0x06], true, "ADDPS"),
    (&[0x66, 0x0f, 0x58, 0x06], true, "ADDPD"),
    (&[0xf3, 0x0f, 0x58, 0x06], false, "ADDSS"),
    (&[0xf2, 0x0f, 0x58, 0x06], false, "ADDSD"),
    (&[0x66, 0x0f, 0x51, 0x06], true, "SQRTPD"),
    (&[0x0f, 0x5d, 0x06], true, "MINPS"),
    (&[0x0f, 0x54, 0x06], true, "ANDPS"),
    (&[0x0f, 0x57, 0xc1], false, "XORPS"),
    (&[0x0f, 0xc2, 0x06, 0], true, "CMPPS"),
    (&[0xf2, 0x0f, 0xc2, 0x06, 0], false, "CMPSD"),
    (&[0x66, 0x0f, 0x2f, 0x06], false, "COMISD"),
    (&[0x0f, 0x2e, 0x06], false, "UCOMISS"),
    (&[0x0f, 0x5b, 0x06], true, "CVTDQ2PS"),
    (&[0x0f, 0x5a, 0x06], false, "CVTPS2PD"),
    (&[0x66, 0x0f, 0x5a, 0x06], true, "CVTPD2PS"),
    (&[0xf3, 0x0f, 0xe6, 0x06], false, "CVTDQ2PD"),
    (&[0xf2, 0x0f, 0xe6, 0x06], true, "CVTPD2DQ"),
    (&[0xf2, 0x0f, 0x2d, 0x06], false, "CVTSD2SI"),
    (&[0xf3, 0x0f, 0x2a, 0x06], false, "CVTSI2SS"),
    (&[0xf3, 0x0f, 0x5a, 0x06], false, "CVTSS2SD"),
    (&[0x0f, 0x53, 0x06], true, "RCPPS"),
    (&[0xf3, 0x0f, 0x52, 0x06], false, "RSQRTSS"),
    (&[0x0f, 0x28, 0x06], true, "MOVAPS"),
    (&[0x0f, 0x28, 0xc1], false, "MOVAPS between registers"),
    (&[0x66, 0x0f, 0x7f, 0x06], true, "MOVDQA to memory"),
    (&[0x0f, 0x2b, 0x06], true, "MOVNTPS"),
    (&[0x66, 0x0f, 0xe7, 0x06], true, "MOVNTDQ"),
    (&[0x0f, 0x10, 0x06], false, "MOVUPS"),
    (&[0xf3, 0x0f, 0x7f, 0x06], false, "MOVDQU to memory"),
    (&[0xf3, 0x0f, 0x10, 0x06], false, "MOVSS"),
    (&[0xf2, 0x0f, 0x10, 0xc1], false, "MOVSD between registers"),
    (&[0xf2, 0x0f, 0x11, 0x06], false, "MOVSD to memory"),
    (&[0x66, 0x0f, 0x6e, 0xc0], false, "MOVD"),
    (&[0xf3, 0x0f, 0x7e, 0x06], false, "MOVQ"),
    (&[0x0f, 0x12, 0x06], false, "MOVLPS"),
    (&[0x0f, 0x12, 0xc1], false, "MOVHLPS"),
    (&[0x0f, 0x17, 0x06], false, "MOVHPS to memory"),
    (&[0x0f, 0x50, 0xc1], false, "MOVMSKPS"),
    (&[0x66, 0x0f, 0xf7, 0xc1], false, "MASKMOVDQU"),
    (&[0x66, 0x0f, 0xfc, 0x06], true, "PADDB"),
    (&[0x66, 0x0f, 0xf1, 0x06], true, "PSLLW"),
    (&[0x66, 0x0f, 0x71, 0xf0, 1], false, "PSLLW by immediate"),
    (&[0x66, 0x0f, 0x60, 0x06], true, "PUNPCKLBW"),
    (&[0x0f, 0x14, 0x06], true, "UNPCKLPS"),
    (&[0x0f, 0xc6, 0x06, 0], true, "SHUFPS"),
    (&[0x66, 0x0f, 0x70, 0x06, 0], true, "PSHUFD"),
    (&[0x66, 0x0f, 0xc4, 0x06, 0], false, "PINSRW"),
    (&[0x66, 0x0f, 0xc5, 0xc1, 0], false, "PEXTRW"),
    (&[0x66, 0x0f, 0xd7, 0xc1], false, "PMOVMSKB"),
    (&[0xf2, 0x0f, 0x7c, 0x06], true, "HADDPS"),
    (&[0x66, 0x0f, 0xd0, 0x06], true, "ADDSUBPD"),
    (&[0xf2, 0x0f, 0x12, 0x06], false, "MOVDDUP"),
    (&[0xf3, 0x0f, 0x12, 0x06], true, "MOVSLDUP"),
    (&[0xf2, 0x0f, 0xf0, 0x06], false, "LDDQU"),
    (&[0x66, 0x0f, 0x38, 0x00, 0x06], true, "PSHUFB"),
    (&[0x66, 0x0f, 0x38, 0x01, 0x06], true, "PHADDW"),
    (&[0x66, 0x0f, 0x38, 0x10, 0x06], true, "PBLENDVB"),
    (&[0x66, 0x0f, 0x38, 0x17, 0x06], true, "PTEST"),
    (&[0x66, 0x0f, 0x38, 0x20, 0x06], false, "PMOVSXBW"),
    (&[0x66, 0x0f, 0x38, 0x2a, 0x06], true, "MOVNTDQA"),
    (&[0x66, 0x0f, 0x38, 0x40, 0x06], true, "PMULLD"),
    (&[0x66, 0x0f, 0x3a, 0x08, 0x06, 0], true, "ROUNDPS"),
    (&[0x66, 0x0f, 0x3a, 0x0b, 0x06, 0], false, "ROUNDSD"),
    (&[0x66, 0x0f, 0x3a, 0x0f, 0x06, 3], true, "PALIGNR"),
    (&[0x66, 0x0f, 0x3a, 0x14, 0x06, 3], false, "PEXTRB"),
    (&[0x66, 0x0f, 0x3a, 0x21, 0x06, 3], false, "INSERTPS"),
    (&[0x66, 0x0f, 0x3a, 0x22, 0x06, 3], false, "PINSRD"),
    (&[0x66, 0x0f, 0x3a, 0x40, 0x06, 0xff], true, "DPPS"),
    (&[0x66, 0x0f, 0x3a, 0x42, 0x06, 3], true, "MPSADBW"),
    (&[0x66, 0x0f, 0x3a, 0x44, 0x06, 0], true, "PCLMULQDQ"),
    (&[0x66, 0x0f, 0x3a, 0x61, 0x06, 0], false, "PCMPESTRI"),
    (&[0x66, 0x0f, 0x3a, 0x62, 0x06, 0], false, "PCMPISTRM"),
    (&[0x66, 0x0f, 0x38, 0xdc, 0x06], true, "AESENC"),
    (&[0x66, 0x0f, 0x3a, 0xdf, 0x06, 1], true, "AESKEYGENASSIST"),
    (&[0x0f, 0xae, 0x16], false, "LDMXCSR"),
    (&[0x0f, 0xae, 0x1e], false, "STMXCSR"),
];

fn bench() -> Bench {
    let mut bench = Bench::new();
    // Also good as MXCSR.
    bench.write(DATA, &[0x80, 0x1f, 0, 0].repeat(8));
    bench.set_xmm(0, 0x3ff0_0000_3ff0_0000_3ff0_0000_3ff0_0000);
    bench.set_xmm(1, 0x4000_0000_4000_0000_4000_0000_4000_0080);
    bench
}

#[test]
fn unusable_sse_is_undefined_or_not_available() {
    for (bytes, _, name) in INSTRUCTIONS {
        assert_eq!(bench().run(bytes), Ok(()), "{name}");
        // CR0.EM, CR0.TS, CR4.OSFXSR.
        for (em, ts, osfxsr, expected) in [
            (true, false, true, Trap::UD),
            (false, false, false, Trap::UD),
            (true, true, true, Trap::UD),
            (false, true, false, Trap::UD),
            (false, true, true, Trap::NM),
        ] {
            let mut bench = bench();
            bench.cpu.cr0 = bench.cpu.cr0.with_em(em).with_ts(ts);
            bench.cpu.cr4.set_osfxsr(osfxsr);
            let before = (bench.cpu.xmm, bench.cpu.regs, bench.cpu.mxcsr, bench.read::<32>(DATA));
            assert_eq!(bench.run(bytes), Err(expected), "{name}, EM {em}, TS {ts}, OSFXSR {osfxsr}");
            assert_eq!((bench.cpu.xmm, bench.cpu.regs, bench.cpu.mxcsr, bench.read::<32>(DATA)), before, "{name}");
        }
    }
}

#[test]
fn sixteen_bytes_are_aligned_but_where_the_name_says_otherwise() {
    for (bytes, aligned, name) in INSTRUCTIONS {
        for offset in [1, 4, 8] {
            let mut bench = bench();
            bench.cpu.set_gpr(Gpr::Rsi, DATA + offset);
            // MXCSR as found at an odd address would be refused for its bits.
            if *name == "LDMXCSR" {
                bench.write(DATA + offset, &[0x80, 0x1f, 0, 0]);
            }
            let before = (bench.cpu.xmm, bench.read::<32>(DATA));
            let expected = if *aligned { GP0 } else { Ok(()) };
            assert_eq!(bench.run(bytes), expected, "{name} at {offset}");
            if *aligned {
                assert_eq!((bench.cpu.xmm, bench.read::<32>(DATA)), before, "{name}");
            }
        }
    }
}

#[test]
fn two_string_instructions_share_their_names_with_scalar_ones() {
    assert!(super::super::find(&decode(&[0xa5])).is_none(), "MOVSD");
    assert!(super::super::find(&decode(&[0xa7])).is_none(), "CMPSD");
}

#[test]
fn movnti_needs_no_sse_state() {
    let mut bench = bench();
    bench.cpu.cr0 = bench.cpu.cr0.with_em(true).with_ts(true);
    bench.cpu.regs[0] = 0x1122_3344;
    assert_eq!(bench.run(&[0x0f, 0xc3, 0x06]), Ok(()));
    assert_eq!(bench.read(DATA), 0x1122_3344u32.to_le_bytes());
}

#[test]
fn mxcsr_takes_no_reserved_bits() {
    let mut bench = bench();
    for bit in 0..32 {
        bench.write(DATA, &(1u32 << bit).to_le_bytes());
        bench.cpu.mxcsr = 0x1f80;
        let expected = if bit < 16 { Ok(()) } else { GP0 };
        assert_eq!(bench.run(&[0x0f, 0xae, 0x16]), expected, "bit {bit}");
        assert_eq!(bench.cpu.mxcsr, if bit < 16 { 1 << bit } else { 0x1f80 });
    }
    bench.cpu.mxcsr = 0x9fc1;
    assert_eq!(bench.run(&[0x0f, 0xae, 0x1e]), Ok(()));
    assert_eq!(bench.read(DATA), 0x9fc1u32.to_le_bytes());
}
