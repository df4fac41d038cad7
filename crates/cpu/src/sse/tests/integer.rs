//! Packed integers and shuffles: known values and edges.

use super::{Bench, DATA};

#[test]
fn arithmetic_of_known_values() {
    const A: u128 = 0x8000_7fff_ffff_0001_0203_0405_fe01_0080;
    const B: u128 = 0x8000_7fff_0001_ffff_0102_0304_0201_0080;
    // Bytes behind 66 0F, and XMM0 from A and B.
    let table: [(&[u8], u128, &str); 14] = [
        (&[0xfd, 0xc1], 0x0000_fffe_0000_0000_0305_0709_0002_0100, "PADDW wraps"),
        (&[0xed, 0xc1], 0x8000_7fff_0000_0000_0305_0709_0002_0100, "PADDSW saturates"),
        (&[0xdd, 0xc1], 0xffff_fffe_ffff_ffff_0305_0709_ffff_0100, "PADDUSW saturates"),
        (&[0xe5, 0xc1], 0x4000_3fff_ffff_ffff_0002_000c_fffc_0000, "PMULHW is signed"),
        (&[0xe4, 0xc1], 0x4000_3fff_0000_0000_0002_000c_01fd_0000, "PMULHUW is not"),
        (&[0xf5, 0xc1], 0x7fff_0001_ffff_fffe_000e_261a_fffc_4001, "PMADDWD"),
        (&[0x75, 0xc1], 0xffff_ffff_0000_0000_0000_0000_0000_ffff, "PCMPEQW"),
        (&[0x65, 0xc1], 0x0000_0000_0000_ffff_ffff_ffff_0000_0000, "PCMPGTW is signed"),
        (&[0x73, 0xf8, 3], A << 24, "PSLLDQ by immediate"),
        (&[0x73, 0xd8, 15], A >> 120, "PSRLDQ by immediate"),
        (&[0x73, 0xd8, 16], 0, "PSRLDQ by 16 leaves nothing"),
        (&[0x71, 0xe0, 200], 0xffff_0000_ffff_0000_0000_0000_ffff_0000, "PSRAW by more than 15 leaves signs"),
        (&[0x72, 0xf0, 32], 0, "PSLLD by 32 leaves nothing"),
        (&[0x73, 0xd0, 8], 0x0080_007f_ffff_ff00_0002_0304_05fe_0100, "PSRLQ by immediate"),
    ];
    let mut bench = Bench::new();
    for (bytes, expected, name) in table {
        let bytes = [&[0x66u8, 0x0f][..], bytes].concat();
        assert_eq!(bench.binary(&bytes, A, B).map(|value| format!("{value:032x}")), Ok(format!("{expected:032x}")), "{name}");
    }
}

#[test]
fn words_are_inserted_extracted_and_signs_collected() {
    let value = 0x8000_7fff_ffff_0001_0203_0405_fe01_0080_u128;
    let mut bench = Bench::new();
    bench.set_xmm(1, value);
    let table: [(&[u8], u64, &str); 6] = [
        (&[0x66, 0x0f, 0xc5, 0xc1, 0], 0x0080, "PEXTRW EAX, XMM1, 0"),
        (&[0x66, 0x0f, 0xc5, 0xc1, 7], 0x8000, "PEXTRW EAX, XMM1, 7"),
        (&[0x66, 0x0f, 0xc5, 0xc1, 0xf9], 0xfe01, "PEXTRW looks at three bits"),
        (&[0x66, 0x0f, 0xd7, 0xc1], 0b1001_1100_0000_1001, "PMOVMSKB"),
        (&[0x0f, 0x50, 0xc1], 0b1101, "MOVMSKPS"),
        (&[0x66, 0x0f, 0x50, 0xc1], 0b10, "MOVMSKPD"),
    ];
    for (bytes, expected, name) in table {
        bench.cpu.regs[0] = u64::MAX;
        assert_eq!(bench.run(bytes), Ok(()));
        assert_eq!(bench.cpu.regs[0], expected, "{name}");
    }
    bench.cpu.regs[0] = 0xaaaa_5555_1234_9876;
    bench.set_xmm(0, value);
    assert_eq!(bench.run(&[0x66, 0x0f, 0xc4, 0xc0, 0xfe]), Ok(()));
    assert_eq!(bench.xmm(0), 0x8000_9876_ffff_0001_0203_0405_fe01_0080, "PINSRW from a register, selector 6 of three bits");
    bench.write(DATA + 1, &[0xcd, 0xab]);
    assert_eq!(bench.run(&[0x66, 0x0f, 0xc4, 0x46, 1, 0]), Ok(()));
    assert_eq!(bench.xmm(0) as u16, 0xabcd, "PINSRW from unaligned memory");
}

#[test]
fn shuffles_of_known_values() {
    const A: u128 = 0x0007_0006_0005_0004_0003_0002_0001_0000;
    const B: u128 = 0x000f_000e_000d_000c_000b_000a_0009_0008;
    let table: [(&[u8], u128, &str); 6] = [
        (&[0x66, 0x0f, 0x70, 0xc1, 0x1b], 0x0009_0008_000b_000a_000d_000c_000f_000e, "PSHUFD reverses"),
        (&[0xf2, 0x0f, 0x70, 0xc1, 0x1b], 0x000f_000e_000d_000c_0008_0009_000a_000b, "PSHUFLW reverses the low half"),
        (&[0xf3, 0x0f, 0x70, 0xc1, 0x1b], 0x000c_000d_000e_000f_000b_000a_0009_0008, "PSHUFHW reverses the high half"),
        (&[0x0f, 0xc6, 0xc1, 0b10_01_11_00], 0x000d_000c_000b_000a_0007_0006_0001_0000, "SHUFPS: two of each"),
        (&[0x66, 0x0f, 0xc6, 0xc1, 0b01], 0x000b_000a_0009_0008_0007_0006_0005_0004, "SHUFPD: one of each"),
        (&[0x0f, 0x15, 0xc1], 0x000f_000e_0007_0006_000d_000c_0005_0004, "UNPCKHPS"),
    ];
    let mut bench = Bench::new();
    for (bytes, expected, name) in table {
        assert_eq!(bench.binary(bytes, A, B).map(|value| format!("{value:032x}")), Ok(format!("{expected:032x}")), "{name}");
    }
}

#[test]
fn fields_are_extracted_and_inserted() {
    const A: u128 = 0xdead << 64 | 0x0123_4567_89ab_cdef;
    // Behind the low quadword of the source: a length of 8 and a place of 16.
    const B: u128 = 0x1008 << 64 | 0xfff_f5a5;
    let table: [(&[u8], u128, u128, &str); 5] = [
        (&[0x66, 0x0f, 0x78, 0xc0, 12, 4], B, 0xdead << 64 | 0xcde, "EXTRQ of 12 bits from bit 4"),
        (&[0x66, 0x0f, 0x78, 0xc0, 0, 0], B, A, "EXTRQ of 64 bits"),
        (&[0x66, 0x0f, 0x79, 0xc1], 0x0408, 0xdead << 64 | 0xde, "EXTRQ by a register: 8 bits from bit 4"),
        (&[0xf2, 0x0f, 0x78, 0xc1, 12, 32], B, 0xdead << 64 | 0x0123_45a5_89ab_cdef, "INSERTQ of 12 bits at bit 32"),
        (&[0xf2, 0x0f, 0x79, 0xc1], B, 0xdead << 64 | 0x0123_4567_89a5_cdef, "INSERTQ by a register"),
    ];
    let mut bench = Bench::new();
    for (bytes, b, expected, name) in table {
        assert_eq!(bench.binary(bytes, A, b).map(|value| format!("{value:032x}")), Ok(format!("{expected:032x}")), "{name}");
    }
    bench.set_xmm(0, A);
    assert_eq!(bench.run(&[0xf3, 0x0f, 0x2b, 0x46, 1]), Ok(()), "MOVNTSS needs no alignment");
    assert_eq!(bench.read(DATA), [0, 0xef, 0xcd, 0xab, 0x89, 0]);
}
