//! Packed integers and bitwise logic.
//!
//! What is modelled: the instructions of SDM vol 1, 11.4.2 "SSE2 64-Bit and 128-Bit SIMD Integer Instructions", and their twins on MMX
//! registers; the logicals of SSE and SSE2. None of them looks at MXCSR. What came later is in `supplement`.

use super::operand::binary;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

/// `f` over pairs of lanes of one width.
macro_rules! lanes {
    ($name:ident, $lane:ty) => {
        #[inline(always)]
        pub(super) fn $name(a: u128, b: u128, f: impl Fn($lane, $lane) -> $lane) -> u128 {
            let mut result = 0;
            for shift in (0..128).step_by(<$lane>::BITS as usize) {
                result |= u128::from(f((a >> shift) as $lane, (b >> shift) as $lane)) << shift;
            }
            result
        }
    };
}
lanes!(bytes, u8);
lanes!(words, u16);
lanes!(doublewords, u32);
lanes!(quadwords, u64);

/// An operation on signed lanes as one on their bits.
macro_rules! signed {
    ($name:ident, $signed:ty, $bits:ty) => {
        #[inline(always)]
        pub(super) fn $name(f: impl Fn($signed, $signed) -> $signed) -> impl Fn($bits, $bits) -> $bits {
            move |a, b| f(a as $signed, b as $signed) as $bits
        }
    };
}
signed!(signed_byte, i8, u8);
signed!(signed_word, i16, u16);
signed!(signed_doubleword, i32, u32);

/// All ones for true.
macro_rules! truth {
    ($name:ident, $signed:ty, $bits:ty) => {
        #[inline(always)]
        pub(super) fn $name(f: impl Fn($signed, $signed) -> bool) -> impl Fn($bits, $bits) -> $bits {
            move |a, b| if f(a as $signed, b as $signed) { <$bits>::MAX } else { 0 }
        }
    };
}
truth!(byte_truth, i8, u8);
truth!(word_truth, i16, u16);
truth!(doubleword_truth, i32, u32);
truth!(quadword_truth, i64, u64);

fn average_byte(a: u8, b: u8) -> u8 {
    (u16::from(a) + u16::from(b)).div_ceil(2) as u8
}

fn average_word(a: u16, b: u16) -> u16 {
    (u32::from(a) + u32::from(b)).div_ceil(2) as u16
}

fn high_signed(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

fn high_unsigned(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

/// PMADDWD: sums of adjacent products.
fn multiply_add(a: u32, b: u32) -> u32 {
    let product = |shift: u32| i32::from((a >> shift) as i16) * i32::from((b >> shift) as i16);
    product(0).wrapping_add(product(16)) as u32
}

/// PSADBW: the sum of absolute differences of eight bytes.
fn sum_of_differences(a: u64, b: u64) -> u64 {
    let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    pairs.map(|(a, b)| u64::from(a.abs_diff(b))).sum()
}

/// PMULUDQ: the product of the low halves.
fn multiply_unsigned(a: u64, b: u64) -> u64 {
    (a & 0xffff_ffff) * (b & 0xffff_ffff)
}

/// Shifts: the count is an immediate or the low quadword of a register or memory.
#[inline(always)]
fn shift(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u64) -> u128) -> Outcome<Flow> {
    cpu.require_vector(instruction)?;
    let count = match instruction.op1_kind() {
        OpKind::Immediate8 => u64::from(instruction.immediate8()),
        _ => cpu.vector_source(instruction, 1)? as u64,
    };
    let a = cpu.vector_operand(instruction, 0);
    cpu.set_vector(instruction, f(a, count));
    Ok(Flow::Next)
}

/// The count as `shl` takes it, if it leaves anything of a lane.
fn count(bits: u32, count: u64) -> Option<u32> {
    (count < u64::from(bits)).then_some(count as u32)
}

/// One row per instruction: its shape (the function above that finds the operands) and what it does with them.
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
                _ => return None,
            })
        }
    };
}

table! {
    binary Andps => |a, b| a & b;
    binary Andpd => |a, b| a & b;
    binary Pand => |a, b| a & b;
    binary Andnps => |a, b| !a & b;
    binary Andnpd => |a, b| !a & b;
    binary Pandn => |a, b| !a & b;
    binary Orps => |a, b| a | b;
    binary Orpd => |a, b| a | b;
    binary Por => |a, b| a | b;
    binary Xorps => |a, b| a ^ b;
    binary Xorpd => |a, b| a ^ b;
    binary Pxor => |a, b| a ^ b;

    binary Paddb => |a, b| bytes(a, b, u8::wrapping_add);
    binary Paddw => |a, b| words(a, b, u16::wrapping_add);
    binary Paddd => |a, b| doublewords(a, b, u32::wrapping_add);
    binary Paddq => |a, b| quadwords(a, b, u64::wrapping_add);
    binary Paddsb => |a, b| bytes(a, b, signed_byte(i8::saturating_add));
    binary Paddsw => |a, b| words(a, b, signed_word(i16::saturating_add));
    binary Paddusb => |a, b| bytes(a, b, u8::saturating_add);
    binary Paddusw => |a, b| words(a, b, u16::saturating_add);
    binary Psubb => |a, b| bytes(a, b, u8::wrapping_sub);
    binary Psubw => |a, b| words(a, b, u16::wrapping_sub);
    binary Psubd => |a, b| doublewords(a, b, u32::wrapping_sub);
    binary Psubq => |a, b| quadwords(a, b, u64::wrapping_sub);
    binary Psubsb => |a, b| bytes(a, b, signed_byte(i8::saturating_sub));
    binary Psubsw => |a, b| words(a, b, signed_word(i16::saturating_sub));
    binary Psubusb => |a, b| bytes(a, b, u8::saturating_sub);
    binary Psubusw => |a, b| words(a, b, u16::saturating_sub);

    binary Pmullw => |a, b| words(a, b, u16::wrapping_mul);
    binary Pmulhw => |a, b| words(a, b, signed_word(high_signed));
    binary Pmulhuw => |a, b| words(a, b, high_unsigned);
    binary Pmuludq => |a, b| quadwords(a, b, multiply_unsigned);
    binary Pmaddwd => |a, b| doublewords(a, b, multiply_add);
    binary Psadbw => |a, b| quadwords(a, b, sum_of_differences);
    binary Pavgb => |a, b| bytes(a, b, average_byte);
    binary Pavgw => |a, b| words(a, b, average_word);
    binary Pminub => |a, b| bytes(a, b, u8::min);
    binary Pmaxub => |a, b| bytes(a, b, u8::max);
    binary Pminsw => |a, b| words(a, b, signed_word(i16::min));
    binary Pmaxsw => |a, b| words(a, b, signed_word(i16::max));

    binary Pcmpeqb => |a, b| bytes(a, b, byte_truth(|a, b| a == b));
    binary Pcmpeqw => |a, b| words(a, b, word_truth(|a, b| a == b));
    binary Pcmpeqd => |a, b| doublewords(a, b, doubleword_truth(|a, b| a == b));
    binary Pcmpgtb => |a, b| bytes(a, b, byte_truth(|a, b| a > b));
    binary Pcmpgtw => |a, b| words(a, b, word_truth(|a, b| a > b));
    binary Pcmpgtd => |a, b| doublewords(a, b, doubleword_truth(|a, b| a > b));

    shift Psllw => |a, n| count(16, n).map_or(0, |n| words(a, 0, |a, _| a << n));
    shift Pslld => |a, n| count(32, n).map_or(0, |n| doublewords(a, 0, |a, _| a << n));
    shift Psllq => |a, n| count(64, n).map_or(0, |n| quadwords(a, 0, |a, _| a << n));
    shift Psrlw => |a, n| count(16, n).map_or(0, |n| words(a, 0, |a, _| a >> n));
    shift Psrld => |a, n| count(32, n).map_or(0, |n| doublewords(a, 0, |a, _| a >> n));
    shift Psrlq => |a, n| count(64, n).map_or(0, |n| quadwords(a, 0, |a, _| a >> n));
    shift Psraw => |a, n| words(a, 0, |a, _| (a as i16 >> n.min(15)) as u16);
    shift Psrad => |a, n| doublewords(a, 0, |a, _| (a as i32 >> n.min(31)) as u32);
    shift Pslldq => |a, n| count(16, n).map_or(0, |n| a << (8 * n));
    shift Psrldq => |a, n| count(16, n).map_or(0, |n| a >> (8 * n));
}
