//! Moves in every direction.

use super::{Bench, DATA, GP0};
use crate::trap::{Exception, Trap};
use isa::exception::PageFaultCode;
use isa::register::Segment;

const A: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
const B: u128 = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110;
const LOW: u128 = u64::MAX as u128;

#[test]
fn between_registers() {
    let table: [(&[u8], u128, &str); 9] = [
        (&[0x0f, 0x28, 0xc1], B, "MOVAPS"),
        (&[0x66, 0x0f, 0x6f, 0xc1], B, "MOVDQA"),
        (&[0xf3, 0x0f, 0x6f, 0xc1], B, "MOVDQU"),
        (&[0xf3, 0x0f, 0x10, 0xc1], A >> 32 << 32 | B & 0xffff_ffff, "MOVSS keeps the rest"),
        (&[0xf2, 0x0f, 0x10, 0xc1], A >> 64 << 64 | B & LOW, "MOVSD keeps the rest"),
        (&[0xf3, 0x0f, 0x7e, 0xc1], B & LOW, "MOVQ clears the rest"),
        (&[0x66, 0x0f, 0xd6, 0xc8], B & LOW, "MOVQ, the other encoding"),
        (&[0x0f, 0x12, 0xc1], A >> 64 << 64 | B >> 64, "MOVHLPS"),
        (&[0x0f, 0x16, 0xc1], A & LOW | B << 64, "MOVLHPS"),
    ];
    let mut bench = Bench::new();
    for (bytes, expected, name) in table {
        assert_eq!(bench.binary(bytes, A, B).map(|value| format!("{value:032x}")), Ok(format!("{expected:032x}")), "{name}");
    }
}

#[test]
fn from_memory() {
    // ModRM 46 is [rsi+disp8].
    let table: [(&[u8], u128, &str); 9] = [
        (&[0x0f, 0x28, 0x46, 0x10], B, "MOVAPS"),
        (&[0x0f, 0x10, 0x46, 0x10], B, "MOVUPS"),
        (&[0xf3, 0x0f, 0x10, 0x46, 0x10], B & 0xffff_ffff, "MOVSS clears the rest"),
        (&[0xf2, 0x0f, 0x10, 0x46, 0x10], B & LOW, "MOVSD clears the rest"),
        (&[0x66, 0x0f, 0x6e, 0x46, 0x10], B & 0xffff_ffff, "MOVD"),
        (&[0xf3, 0x0f, 0x7e, 0x46, 0x10], B & LOW, "MOVQ"),
        (&[0x0f, 0x12, 0x46, 0x10], A >> 64 << 64 | B & LOW, "MOVLPS"),
        (&[0x66, 0x0f, 0x16, 0x46, 0x10], A & LOW | B << 64, "MOVHPD"),
        (&[0xf2, 0x0f, 0x5a, 0x46, 0x28], A >> 32 << 32 | 0x3f80_0000, "CVTSD2SS of 1.0 keeps the rest"),
    ];
    let mut bench = Bench::new();
    bench.write(DATA + 0x10, &B.to_le_bytes());
    bench.write(DATA + 0x28, &1.0f64.to_le_bytes());
    for (bytes, expected, name) in table {
        assert_eq!(bench.binary(bytes, A, 0).map(|value| format!("{value:032x}")), Ok(format!("{expected:032x}")), "{name}");
    }
}

#[test]
fn to_memory() {
    let stored = |count: usize, from: usize| {
        let mut bytes = [0xcc; 16];
        bytes[..count].copy_from_slice(&A.to_le_bytes()[from..from + count]);
        bytes
    };
    let table: [(&[u8], [u8; 16], &str); 10] = [
        (&[0x0f, 0x29, 0x06], stored(16, 0), "MOVAPS"),
        (&[0x66, 0x0f, 0x11, 0x06], stored(16, 0), "MOVUPD"),
        (&[0x66, 0x0f, 0xe7, 0x06], stored(16, 0), "MOVNTDQ"),
        (&[0x0f, 0x2b, 0x06], stored(16, 0), "MOVNTPS"),
        (&[0xf3, 0x0f, 0x11, 0x06], stored(4, 0), "MOVSS"),
        (&[0xf2, 0x0f, 0x11, 0x06], stored(8, 0), "MOVSD"),
        (&[0x66, 0x0f, 0x7e, 0x06], stored(4, 0), "MOVD"),
        (&[0x66, 0x48, 0x0f, 0x7e, 0x06], stored(8, 0), "MOVQ"),
        (&[0x0f, 0x13, 0x06], stored(8, 0), "MOVLPS"),
        (&[0x66, 0x0f, 0x17, 0x06], stored(8, 8), "MOVHPD"),
    ];
    let mut bench = Bench::new();
    for (bytes, expected, name) in table {
        bench.write(DATA, &[0xcc; 16]);
        bench.set_xmm(0, A);
        assert_eq!(bench.run(bytes), Ok(()), "{name}");
        assert_eq!(bench.read(DATA), expected, "{name}");
    }
}

#[test]
fn registers_of_both_kinds() {
    let mut bench = Bench::new();
    bench.set_xmm(0, A);
    bench.cpu.regs[0] = u64::MAX;
    assert_eq!(bench.run(&[0x66, 0x0f, 0x7e, 0xc0]), Ok(()));
    assert_eq!(bench.cpu.regs[0], 0x0302_0100, "MOVD EAX, XMM0 clears the upper half of RAX");
    assert_eq!(bench.run(&[0x66, 0x48, 0x0f, 0x7e, 0xc0]), Ok(()));
    assert_eq!(bench.cpu.regs[0], A as u64, "MOVQ RAX, XMM0");
    assert_eq!(bench.run(&[0x66, 0x4c, 0x0f, 0x6e, 0xf8]), Ok(()));
    assert_eq!(bench.xmm(15), A & LOW, "MOVQ XMM15, RAX");
    assert_eq!(bench.run(&[0x0f, 0xc3, 0x06]), Ok(()));
    assert_eq!(bench.read(DATA), 0x0302_0100u32.to_le_bytes(), "MOVNTI");
}

#[test]
fn an_access_may_cross_a_page_but_not_a_limit() {
    let mut bench = Bench::new();
    bench.set_xmm(0, A);
    for at in 0xff1..0x1000 {
        bench.cpu.regs[6] = DATA + at;
        assert_eq!(bench.run(&[0x0f, 0x11, 0x06]), Ok(()), "MOVUPS [rsi], xmm0");
        assert_eq!(bench.read(DATA + at), A.to_le_bytes());
        assert_eq!(bench.run(&[0x0f, 0x10, 0x0e]), Ok(()), "MOVUPS xmm1, [rsi]");
        assert_eq!(bench.xmm(1), A);
    }
    // The end of the canonical addresses.
    bench.cpu.regs[6] = 0x7fff_ffff_fff8;
    assert_eq!(bench.run(&[0x0f, 0x10, 0x06]), GP0);
    bench.cpu.efer.set_lma(false);
    bench.cpu.segments[Segment::Ss as usize].limit = 0x300f;
    bench.cpu.segments[Segment::Ds as usize].limit = 0x300f;
    let mut at = |address: u64, bytes: &[u8]| {
        bench.cpu.regs[6] = address;
        bench.run(bytes)
    };
    assert_eq!(at(0x3000, &[0x67, 0x0f, 0x10, 0x06]), Ok(()));
    assert_eq!(at(0x3001, &[0x67, 0x0f, 0x10, 0x06]), GP0);
    assert_eq!(at(0x3001, &[0x67, 0x36, 0x0f, 0x10, 0x06]), Err(Trap::SS0));
    assert_eq!(at(0x3000, &[0x67, 0x36, 0x0f, 0x28, 0x06]), Ok(()));
    assert_eq!(at(0x2ff8, &[0x67, 0x36, 0x0f, 0x28, 0x06]), GP0, "alignment is #GP in every segment");
}

/// 4-level paging with the page of [`DATA`] as it is, and the next one mapped by an entry with the low bits `next`.
fn paged(next: u64) -> Bench {
    const TABLES: [u64; 4] = [0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000];
    let mut bench = Bench::new();
    for pair in TABLES.windows(2) {
        bench.write(pair[0], &(pair[1] | 7).to_le_bytes());
    }
    bench.write(TABLES[3] + 8 * (DATA >> 12), &(DATA | 7).to_le_bytes());
    bench.write(TABLES[3] + 8 * (DATA >> 12) + 8, &((DATA + 0x1000) | next).to_le_bytes());
    bench.cpu.cr0 = bench.cpu.cr0.with_pg(true).with_wp(true);
    bench.cpu.cr4.set_pae(true);
    bench.cpu.cr3 = TABLES[0];
    bench.cpu.flush_tlb();
    bench
}

#[test]
fn an_access_that_crosses_pages_faults_as_one() {
    let page_fault = |code: u32| Trap::Exception(Exception::page_fault(DATA + 0x1000, PageFaultCode::from_bits(code)));
    // Bytes, distance of the operand from the end of its page, write.
    let table: [(&[u8], u64, bool, &str); 7] = [
        (&[0x0f, 0x10, 0x06], 8, false, "MOVUPS"),
        (&[0x0f, 0x11, 0x06], 8, true, "MOVUPS to memory"),
        (&[0x0f, 0x11, 0x06], 1, true, "MOVUPS to memory"),
        (&[0xf2, 0x0f, 0x11, 0x06], 4, true, "MOVSD to memory"),
        (&[0x0f, 0xae, 0x06], 16, true, "FXSAVE"),
        (&[0x0f, 0xae, 0x0e], 496, false, "FXRSTOR"),
        (&[0x0f, 0xae, 0x26], 512, true, "XSAVE"),
    ];
    for (bytes, before_end, write, name) in table {
        for (present, next) in [(false, 0), (true, 5)] {
            let mut bench = paged(next);
            bench.cpu.regs[6] = DATA + 0x1000 - before_end;
            bench.cpu.regs[0] = 3;
            let expected = match (present, write) {
                (true, false) => Ok(()),
                _ => Err(page_fault(u32::from(present) | u32::from(write) << 1)),
            };
            let before = bench.read::<0x2000>(DATA);
            assert_eq!(bench.run(bytes), expected, "{name}, next page present: {present}");
            assert!(bench.read::<0x2000>(DATA) == before, "{name} wrote something");
        }
        let mut bench = paged(7);
        bench.cpu.regs[6] = DATA + 0x1000 - before_end;
        assert_eq!(bench.run(bytes), Ok(()), "{name}");
    }
}

#[test]
fn masked_bytes_alone_are_stored() {
    let mut bench = Bench::new();
    bench.write(DATA, &[0xcc; 16]);
    let mask = 0x0000_0000_0000_0080_7fff_0000_0000_0081_u128;
    assert_eq!(bench.binary(&[0x66, 0x0f, 0xf7, 0xc1], A, mask), Ok(A));
    let mut expected = [0xcc; 16];
    (expected[0], expected[6], expected[8]) = (0, 6, 8);
    assert_eq!(bench.read(DATA), expected);
    // Bytes that are not stored cannot fault.
    bench.cpu.regs[7] = 0x7fff_ffff_fff8;
    assert_eq!(bench.binary(&[0x66, 0x0f, 0xf7, 0xc1], A, 0x7f << 64), Ok(A));
    assert_eq!(bench.binary(&[0x66, 0x0f, 0xf7, 0xc1], A, 0x80 << 64), Err(Trap::GP0));
}
