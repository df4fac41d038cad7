//! Packed integers and shuffles against the host's own instructions, over edges and random values.

use super::{Bench, DATA, Random};

#[cfg(target_arch = "x86_64")]
mod host {
    use super::*;
    use std::arch::x86_64::*;

    fn from(value: __m128i) -> u128 {
        let half = |value| _mm_cvtsi128_si64(value) as u64;
        u128::from(half(_mm_unpackhi_epi64(value, value))) << 64 | u128::from(half(value))
    }

    fn to(value: u128) -> __m128i {
        _mm_set_epi64x((value >> 64) as i64, value as i64)
    }

    /// Opcode behind 66 0F, its immediate if it has one, and the host's intrinsic.
    type Row = (u8, Option<u8>, fn(__m128i, __m128i) -> __m128i);

    macro_rules! rows {
        ($($opcode:literal $intrinsic:ident;)*) => { [$(($opcode, None, |a, b| $intrinsic(a, b))),*] };
    }

    #[test]
    fn agree_with_the_host() {
        let mut table: Vec<Row> = rows! {
            0xfc _mm_add_epi8; 0xfd _mm_add_epi16; 0xfe _mm_add_epi32; 0xd4 _mm_add_epi64;
            0xec _mm_adds_epi8; 0xed _mm_adds_epi16; 0xdc _mm_adds_epu8; 0xdd _mm_adds_epu16;
            0xf8 _mm_sub_epi8; 0xf9 _mm_sub_epi16; 0xfa _mm_sub_epi32; 0xfb _mm_sub_epi64;
            0xe8 _mm_subs_epi8; 0xe9 _mm_subs_epi16; 0xd8 _mm_subs_epu8; 0xd9 _mm_subs_epu16;
            0xd5 _mm_mullo_epi16; 0xe5 _mm_mulhi_epi16; 0xe4 _mm_mulhi_epu16; 0xf4 _mm_mul_epu32;
            0xf5 _mm_madd_epi16; 0xf6 _mm_sad_epu8; 0xe0 _mm_avg_epu8; 0xe3 _mm_avg_epu16;
            0xda _mm_min_epu8; 0xde _mm_max_epu8; 0xea _mm_min_epi16; 0xee _mm_max_epi16;
            0x74 _mm_cmpeq_epi8; 0x75 _mm_cmpeq_epi16; 0x76 _mm_cmpeq_epi32;
            0x64 _mm_cmpgt_epi8; 0x65 _mm_cmpgt_epi16; 0x66 _mm_cmpgt_epi32;
            0xdb _mm_and_si128; 0xdf _mm_andnot_si128; 0xeb _mm_or_si128; 0xef _mm_xor_si128;
            0x54 _mm_and_si128; 0x55 _mm_andnot_si128; 0x56 _mm_or_si128; 0x57 _mm_xor_si128;
            0x63 _mm_packs_epi16; 0x6b _mm_packs_epi32; 0x67 _mm_packus_epi16;
            0x60 _mm_unpacklo_epi8; 0x61 _mm_unpacklo_epi16; 0x62 _mm_unpacklo_epi32; 0x6c _mm_unpacklo_epi64;
            0x68 _mm_unpackhi_epi8; 0x69 _mm_unpackhi_epi16; 0x6a _mm_unpackhi_epi32; 0x6d _mm_unpackhi_epi64;
            0x14 _mm_unpacklo_epi64; 0x15 _mm_unpackhi_epi64;
            0xf1 _mm_sll_epi16; 0xf2 _mm_sll_epi32; 0xf3 _mm_sll_epi64;
            0xd1 _mm_srl_epi16; 0xd2 _mm_srl_epi32; 0xd3 _mm_srl_epi64; 0xe1 _mm_sra_epi16; 0xe2 _mm_sra_epi32;
        }
        .to_vec();
        macro_rules! immediates {
            ($($number:literal)*) => { $(
                table.push((0x70, Some($number), |_, b| _mm_shuffle_epi32::<$number>(b)));
                table.push((0xc6, Some($number), |a, b| _mm_castpd_si128(_mm_shuffle_pd::<{ $number & 3 }>(_mm_castsi128_pd(a), _mm_castsi128_pd(b)))));
            )* };
        }
        immediates!(0x00 0x01 0x02 0x03 0x1b 0x27 0x4e 0x93 0xb1 0xe4 0xff);
        let mut random = Random(0x5eed);
        let mut bench = Bench::new();
        for (opcode, immediate, intrinsic) in table {
            for round in 0..200 {
                let (a, mut b) = (random.wide(), random.wide());
                // Every second shift has a count that leaves something.
                let shifts = matches!(opcode, 0xd1..=0xd3 | 0xe1 | 0xe2 | 0xf1..=0xf3);
                if shifts && round % 2 == 0 {
                    b = b >> 64 << 64 | u128::from(random.next() % 66);
                }
                let mut bytes = vec![0x66, 0x0f, opcode, 0xc1];
                bytes.extend(immediate);
                let expected = from(intrinsic(to(a), to(b)));
                assert_eq!(bench.binary(&bytes, a, b), Ok(expected), "{bytes:02x?} {a:032x} {b:032x}");
                // The same from memory.
                bench.write(DATA, &b.to_le_bytes());
                bytes[3] = 0x06;
                assert_eq!(bench.binary(&bytes, a, 0), Ok(expected), "{bytes:02x?} {a:032x} {b:032x}");
            }
        }
    }
}

#[test]
fn arithmetic_of_known_values() {
    const A: u128 = 0x8000_7fff_ffff_0001_0203_0405_fe01_0080;
    const B: u128 = 0x8000_7fff_0001_ffff_0102_0304_0201_0080;
    // Bytes behind 66 0F, and XMM0 from A and B.
    let table: [(&[u8], 0x0000_fffe_0000_0000_0305_0709_0002_0100, "PADDW wraps"),
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
        let bytes = [&[0x66, 0x0f], bytes].concat();
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
