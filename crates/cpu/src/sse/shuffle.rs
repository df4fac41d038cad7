//! Rearrangement of lanes: shuffles, unpacks, packs, insertion and extraction.

use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// Lane `index` of `bits` bits.
#[inline(always)]
fn lane(value: u128, bits: u32, index: u32) -> u128 {
    value >> (bits * index) & ((1 << bits) - 1)
}

/// Four doublewords of a register or memory, by four two-bit selectors.
fn select(value: u128, bits: u32, first: u32, selectors: u8) -> u128 {
    (0..4).fold(0, |result, at| result | lane(value, bits, first + u32::from(selectors >> (2 * at) & 3)) << (bits * at))
}

fn shuffle_low_words(a: u128, selectors: u8) -> u128 {
    a & !u128::from(u64::MAX) | select(a, 16, 0, selectors)
}

fn shuffle_high_words(a: u128, selectors: u8) -> u128 {
    a & u128::from(u64::MAX) | select(a, 16, 4, selectors) << 64
}

/// SHUFPS: two of the destination's doublewords, then two of the source's.
fn shuffle_single(a: u128, b: u128, selectors: u8) -> u128 {
    let low = select(a, 32, 0, selectors) & u128::from(u64::MAX);
    low | (select(b, 32, 0, selectors) >> 64) << 64
}

/// SHUFPD: one quadword of each.
fn shuffle_double(a: u128, b: u128, selectors: u8) -> u128 {
    lane(a, 64, u32::from(selectors & 1)) | lane(b, 64, u32::from(selectors >> 1 & 1)) << 64
}

/// PUNPCKL and PUNPCKH: the lanes of one half of each operand, by turns.
fn interleave(a: u128, b: u128, bits: u32, high: bool) -> u128 {
    let count = 64 / bits;
    let first = if high { count } else { 0 };
    (0..count)
        .fold(0, |result, at| result | lane(a, bits, first + at) << (2 * bits * at) | lane(b, bits, first + at) << (2 * bits * at + bits))
}

/// PACK: every lane of both operands, saturated to half its width.
fn pack(a: u128, b: u128, bits: u32, saturate: impl Fn(i32) -> u32) -> u128 {
    let half = bits / 2;
    let count = 128 / bits;
    let narrow = |value: u128| {
        (0..count).fold(0, |result, at| {
            let signed = (lane(value, bits, at) as i32) << (32 - bits) >> (32 - bits);
            result | (u128::from(saturate(signed)) & ((1 << half) - 1)) << (half * at)
        })
    };
    narrow(a) | narrow(b) << 64
}

#[inline(always)]
fn binary(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u128) -> u128) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source(instruction, 1)?;
    let a = cpu.xmm_operand(instruction, 0);
    cpu.set_xmm(instruction, f(a, b));
    Ok(Flow::Next)
}

#[inline(always)]
fn immediate(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u128, u8) -> u128) -> Outcome<Flow> {
    binary(cpu, instruction, |a, b| f(a, b, instruction.immediate8()))
}

fn extract_word(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let word = lane(cpu.xmm_operand(instruction, 1), 16, u32::from(instruction.immediate8() & 7));
    cpu.write_register(instruction.op0_register(), word as u64);
    Ok(Flow::Next)
}

fn insert_word(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let word = u128::from(cpu.read_operand(instruction, 1)? as u16);
    let shift = 16 * u32::from(instruction.immediate8() & 7);
    let old = cpu.xmm_operand(instruction, 0);
    cpu.set_xmm(instruction, old & !(0xffff << shift) | word << shift);
    Ok(Flow::Next)
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: the sign bits of the lanes.
fn signs(cpu: &mut Cpu, instruction: &Instruction, bits: u32) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = cpu.xmm_operand(instruction, 1);
    let signs = (0..128 / bits).fold(0, |result, at| result | (value >> (bits * at + bits - 1) & 1) << at);
    cpu.write_register(instruction.op0_register(), signs as u64);
    Ok(Flow::Next)
}

/// One row per instruction: its shape and what it does with the operands.
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
                M::Pextrw => extract_word,
                M::Pinsrw => insert_word,
                _ => return None,
            })
        }
    };
}

table! {
    immediate Pshufd => |_, b, selectors| select(b, 32, 0, selectors);
    immediate Pshuflw => |_, b, selectors| shuffle_low_words(b, selectors);
    immediate Pshufhw => |_, b, selectors| shuffle_high_words(b, selectors);
    immediate Shufps => shuffle_single;
    immediate Shufpd => shuffle_double;

    binary Punpcklbw => |a, b| interleave(a, b, 8, false);
    binary Punpcklwd => |a, b| interleave(a, b, 16, false);
    binary Punpckldq => |a, b| interleave(a, b, 32, false);
    binary Punpcklqdq => |a, b| interleave(a, b, 64, false);
    binary Punpckhbw => |a, b| interleave(a, b, 8, true);
    binary Punpckhwd => |a, b| interleave(a, b, 16, true);
    binary Punpckhdq => |a, b| interleave(a, b, 32, true);
    binary Punpckhqdq => |a, b| interleave(a, b, 64, true);
    binary Unpcklps => |a, b| interleave(a, b, 32, false);
    binary Unpcklpd => |a, b| interleave(a, b, 64, false);
    binary Unpckhps => |a, b| interleave(a, b, 32, true);
    binary Unpckhpd => |a, b| interleave(a, b, 64, true);

    binary Packsswb => |a, b| pack(a, b, 16, |value| value.clamp(-0x80, 0x7f) as u32);
    binary Packuswb => |a, b| pack(a, b, 16, |value| value.clamp(0, 0xff) as u32);
    binary Packssdw => |a, b| pack(a, b, 32, |value| value.clamp(-0x8000, 0x7fff) as u32);

    signs Pmovmskb => 8;
    signs Movmskps => 32;
    signs Movmskpd => 64;
}
