//! Packed integers of SSSE3, SSE4.1 and SSE4.2, and the MMX twins that SSSE3 has.
//!
//! What is modelled: the instructions of SDM vol 1, 12.6 "SSSE3 Instructions", 12.10 "SSE4.1 Instruction Set" and 12.11 "SSE4.2 Instruction
//! Set" that compute with integers. Shuffles and blends are in `shuffle`, strings in `text`, sums of absolute differences and dot products
//! in `horizontal`.

use super::integer::{bytes, doublewords, quadword_truth, quadwords, signed_doubleword, signed_word, words};
use super::operand::binary;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};
use isa::rflags::Rflags;

/// PSIGN: `a` with the sign of `b`, zero where `b` is zero.
macro_rules! with_sign {
    ($name:ident, $signed:ty, $bits:ty) => {
        fn $name(a: $bits, b: $bits) -> $bits {
            match (b as $signed).signum() {
                0 => 0,
                1 => a,
                _ => a.wrapping_neg(),
            }
        }
    };
}
with_sign!(signed_by_byte, i8, u8);
with_sign!(signed_by_word, i16, u16);
with_sign!(signed_by_doubleword, i32, u32);

/// PMULHRSW: the product's bits 30:15, rounded.
fn high_rounded(a: i16, b: i16) -> i16 {
    ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16
}

/// PMADDUBSW: unsigned bytes times signed bytes, sums of adjacent products, saturated.
fn multiply_add_bytes(a: u16, b: u16) -> u16 {
    let product = |shift: u32| i32::from((a >> shift) as u8) * i32::from((b >> shift) as i8);
    (product(0) + product(8)).clamp(i16::MIN.into(), i16::MAX.into()) as u16
}

/// PMULDQ: the signed product of the low halves.
fn multiply_signed(a: u64, b: u64) -> u64 {
    (i64::from(a as i32) * i64::from(b as i32)) as u64
}

/// PHMINPOSUW: the smallest of eight words, and where the first of that value is.
fn minimum_and_place(value: u128) -> u128 {
    let word = |at: u32| (value >> (16 * at)) as u16;
    let (minimum, place) = (0..8).map(|at| (word(at), at)).min().expect("there are eight");
    u128::from(minimum) | u128::from(place) << 16
}

/// PTEST: ZF if the operands have no bit in common, CF if the first has all bits of the second; the other status flags are cleared.
fn test(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source(instruction, 1)?;
    let a = cpu.xmm_operand(instruction, 0);
    cpu.set_all_status(Rflags::new().with_zf(a & b == 0).with_cf(!a & b == 0).into_bits());
    Ok(Flow::Next)
}

/// One row per instruction: its shape (the function that finds the operands) and what it does with them.
macro_rules! table {
    ($($shape:ident $mnemonic:ident => $f:expr;)*) => {
        /// The function of an instruction of this module.
        pub(super) fn find(mnemonic: M) -> Option<Function> {
            Some(match mnemonic {
                $(M::$mnemonic => {
                    fn function(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
                        $shape(cpu, instruction, $f)
                    }
                    function
                })*
                M::Ptest => test,
                _ => return None,
            })
        }
    };
}

table! {
    binary Pabsb => |_, b| bytes(b, 0, |b, _| (b as i8).unsigned_abs());
    binary Pabsw => |_, b| words(b, 0, |b, _| (b as i16).unsigned_abs());
    binary Pabsd => |_, b| doublewords(b, 0, |b, _| (b as i32).unsigned_abs());
    binary Psignb => |a, b| bytes(a, b, signed_by_byte);
    binary Psignw => |a, b| words(a, b, signed_by_word);
    binary Psignd => |a, b| doublewords(a, b, signed_by_doubleword);
    binary Pmulhrsw => |a, b| words(a, b, signed_word(high_rounded));
    binary Pmaddubsw => |a, b| words(a, b, multiply_add_bytes);

    binary Pminsb => |a, b| bytes(a, b, |a, b| (a as i8).min(b as i8) as u8);
    binary Pmaxsb => |a, b| bytes(a, b, |a, b| (a as i8).max(b as i8) as u8);
    binary Pminuw => |a, b| words(a, b, u16::min);
    binary Pmaxuw => |a, b| words(a, b, u16::max);
    binary Pminsd => |a, b| doublewords(a, b, signed_doubleword(i32::min));
    binary Pmaxsd => |a, b| doublewords(a, b, signed_doubleword(i32::max));
    binary Pminud => |a, b| doublewords(a, b, u32::min);
    binary Pmaxud => |a, b| doublewords(a, b, u32::max);
    binary Pmulld => |a, b| doublewords(a, b, u32::wrapping_mul);
    binary Pmuldq => |a, b| quadwords(a, b, multiply_signed);
    binary Pcmpeqq => |a, b| quadwords(a, b, quadword_truth(|a, b| a == b));
    binary Pcmpgtq => |a, b| quadwords(a, b, quadword_truth(|a, b| a > b));
    binary Phminposuw => |_, b| minimum_and_place(b);
}
