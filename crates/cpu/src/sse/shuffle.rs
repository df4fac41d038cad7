//! Rearrangement of lanes: shuffles, unpacks, packs, blends, widening, insertion and extraction; from SSE to SSE4.1 and SSE4A, and the MMX twins.

use super::operand::{binary_of_width, is_xmm, vector_bits};
use crate::operand::{mask, sign_extend};
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
fn interleave(a: u128, b: u128, width: u32, bits: u32, high: bool) -> u128 {
    let count = width / 2 / bits;
    let first = if high { count } else { 0 };
    (0..count)
        .fold(0, |result, at| result | lane(a, bits, first + at) << (2 * bits * at) | lane(b, bits, first + at) << (2 * bits * at + bits))
}

/// PACK: every lane of both operands, saturated to half its width.
fn pack(a: u128, b: u128, width: u32, bits: u32, saturate: impl Fn(i32) -> u32) -> u128 {
    let half = bits / 2;
    let count = width / bits;
    let narrow = |value: u128| {
        (0..count).fold(0, |result, at| {
            let signed = (lane(value, bits, at) as i32) << (32 - bits) >> (32 - bits);
            result | (u128::from(saturate(signed)) & ((1 << half) - 1)) << (half * at)
        })
    };
    narrow(a) | narrow(b) << (width / 2)
}

#[inline(always)]
fn immediate(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u128, u8) -> u128) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |a, b, _| f(a, b, instruction.immediate8()))
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: one lane to a general-purpose register, zero-extended, or to memory.
fn extract<const BITS: u32>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let source = instruction.op1_register();
    if source.is_mm() {
        cpu.require_mmx()?
    } else {
        cpu.require_sse()?
    }
    let lanes = if source.is_mm() { 64 } else { 128 } / BITS;
    let value = lane(cpu.vector_operand(instruction, 1), BITS, u32::from(instruction.immediate8()) & (lanes - 1));
    cpu.write_operand(instruction, 0, value as u64)?;
    if source.is_mm() {
        cpu.enter_mmx();
    }
    Ok(Flow::Next)
}

/// PINSRB, PINSRW, PINSRD, PINSRQ: one lane from a general-purpose register or memory.
fn insert<const BITS: u32>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_vector(instruction)?;
    let keep = (1u128 << BITS) - 1;
    let value = u128::from(cpu.read_operand(instruction, 1)?) & keep;
    let shift = BITS * (u32::from(instruction.immediate8()) & (vector_bits(instruction) / BITS - 1));
    let old = cpu.vector_operand(instruction, 0);
    cpu.set_vector(instruction, old & !(keep << shift) | value << shift);
    Ok(Flow::Next)
}

/// INSERTPS: one of the source's doublewords, or one of memory, to any place; then any places are cleared. The immediate says all that.
fn insert_single(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let selectors = u32::from(instruction.immediate8());
    let value = if is_xmm(instruction, 1) {
        lane(cpu.xmm_operand(instruction, 1), 32, selectors >> 6)
    } else {
        u128::from(cpu.source_low(instruction, 1, 4)?)
    };
    let shift = 32 * (selectors >> 4 & 3);
    let inserted = cpu.xmm_operand(instruction, 0) & !(0xffff_ffff << shift) | value << shift;
    cpu.set_xmm(instruction, blend(inserted, 0, 32, |at| selectors >> at & 1 != 0));
    Ok(Flow::Next)
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: the sign bits of the lanes.
fn signs(cpu: &mut Cpu, instruction: &Instruction, bits: u32) -> Outcome<Flow> {
    let source = instruction.op1_register();
    if source.is_mm() {
        cpu.require_mmx()?
    } else {
        cpu.require_sse()?
    }
    let value = cpu.vector_operand(instruction, 1);
    let signs = (0..128 / bits).fold(0, |result, at| result | (value >> (bits * at + bits - 1) & 1) << at);
    cpu.write_register(instruction.op0_register(), signs as u64);
    if source.is_mm() {
        cpu.enter_mmx();
    }
    Ok(Flow::Next)
}

/// Lane by lane `b` where `chosen` says so and `a` where not.
fn blend(a: u128, b: u128, bits: u32, chosen: impl Fn(u32) -> bool) -> u128 {
    (0..128 / bits).fold(0, |result, at| result | lane(if chosen(at) { b } else { a }, bits, at) << (bits * at))
}

/// BLENDVPS, BLENDVPD, PBLENDVB: the top bits of the lanes of XMM0 choose.
fn blend_by_register(cpu: &mut Cpu, instruction: &Instruction, bits: u32) -> Outcome<Flow> {
    let [low, high] = cpu.xmm[0];
    let chosen = u128::from(high) << 64 | u128::from(low);
    binary_of_width(cpu, instruction, |a, b, _| blend(a, b, bits, |at| chosen >> (bits * at + bits - 1) & 1 != 0))
}

/// BLENDPS, BLENDPD, PBLENDW: the bits of the immediate choose.
fn blend_by_immediate(cpu: &mut Cpu, instruction: &Instruction, bits: u32) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |a, b, _| blend(a, b, bits, |at| instruction.immediate8() >> at & 1 != 0))
}

/// Length and place of a field of EXTRQ and INSERTQ; a length of zero is 64.
fn field(length: u8, place: u8) -> (u64, u32) {
    let length = u32::from(length & 0x3f);
    (mask(if length == 0 { 64 } else { length }), u32::from(place & 0x3f))
}

/// EXTRQ: a field of the low quadword, to its bottom. APM vol 4, EXTRQ; the upper half, which it leaves undefined, stays.
fn extract_field(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let (keep, place) = if is_xmm(instruction, 1) {
        let control = cpu.xmm_operand(instruction, 1);
        field(control as u8, (control >> 8) as u8)
    } else {
        field(instruction.immediate8(), instruction.immediate8_2nd())
    };
    let value = cpu.xmm_operand(instruction, 0) as u64;
    cpu.set_xmm_low(instruction, value >> place & keep);
    Ok(Flow::Next)
}

/// INSERTQ: the bottom of the source's low quadword, to a field of the destination's. APM vol 4, INSERTQ; the upper half stays here, too.
fn insert_field(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let source = cpu.xmm_operand(instruction, 1);
    let (keep, place) = if instruction.op_count() > 2 {
        field(instruction.immediate8(), instruction.immediate8_2nd())
    } else {
        field((source >> 64) as u8, (source >> 72) as u8)
    };
    let value = cpu.xmm_operand(instruction, 0) as u64;
    cpu.set_xmm_low(instruction, value & !(keep << place) | (source as u64 & keep) << place);
    Ok(Flow::Next)
}

/// PSHUFB: each byte of the second operand says which byte of the first comes to its place, or none if its top bit is set.
fn shuffle_bytes(a: u128, b: u128, width: u32) -> u128 {
    let count = width / 8;
    (0..count).fold(0, |result, at| {
        let selector = lane(b, 8, at) as u32;
        if selector & 0x80 != 0 { result } else { result | lane(a, 8, selector & (count - 1)) << (8 * at) }
    })
}

/// PALIGNR: the two operands side by side, shifted right by bytes.
fn align(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |a, b, width| {
        let count = 8 * u32::from(instruction.immediate8());
        match count {
            0 => b,
            _ if count < width => b >> count | a << (width - count),
            _ if count < 2 * width => a >> (count - width),
            _ => 0,
        }
    })
}

/// PMOVSX and PMOVZX: the low lanes of a register, or as many bytes of memory as they are, each widened.
fn widen<const FROM: u32, const TO: u32, const SIGNED: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let count = 128 / TO;
    let source = cpu.source_low(instruction, 1, (count * FROM / 8) as u8)?;
    let result = (0..count).fold(0, |result, at| {
        let value = source >> (FROM * at) & mask(FROM);
        let value = if SIGNED { sign_extend(FROM, value) & mask(TO) } else { value };
        result | u128::from(value) << (TO * at)
    });
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

/// MOVSLDUP, MOVSHDUP: every second doubleword, twice.
fn duplicate(cpu: &mut Cpu, instruction: &Instruction, first: u32) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |_, b, _| (0..4).fold(0, |result, at| result | lane(b, 32, at & 2 | first) << (32 * at)))
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
                M::Pextrb => extract::<8>,
                M::Pextrw => extract::<16>,
                M::Pextrd | M::Extractps => extract::<32>,
                M::Pextrq => extract::<64>,
                M::Pinsrb => insert::<8>,
                M::Pinsrw => insert::<16>,
                M::Pinsrd => insert::<32>,
                M::Pinsrq => insert::<64>,
                M::Insertps => insert_single,
                M::Extrq => extract_field,
                M::Insertq => insert_field,
                M::Palignr => align,
                M::Pmovsxbw => widen::<8, 16, true>,
                M::Pmovsxbd => widen::<8, 32, true>,
                M::Pmovsxbq => widen::<8, 64, true>,
                M::Pmovsxwd => widen::<16, 32, true>,
                M::Pmovsxwq => widen::<16, 64, true>,
                M::Pmovsxdq => widen::<32, 64, true>,
                M::Pmovzxbw => widen::<8, 16, false>,
                M::Pmovzxbd => widen::<8, 32, false>,
                M::Pmovzxbq => widen::<8, 64, false>,
                M::Pmovzxwd => widen::<16, 32, false>,
                M::Pmovzxwq => widen::<16, 64, false>,
                M::Pmovzxdq => widen::<32, 64, false>,
                _ => return None,
            })
        }
    };
}

table! {
    immediate Pshufd => |_, b, selectors| select(b, 32, 0, selectors);
    immediate Pshuflw => |_, b, selectors| shuffle_low_words(b, selectors);
    immediate Pshufhw => |_, b, selectors| shuffle_high_words(b, selectors);
    immediate Pshufw => |_, b, selectors| select(b, 16, 0, selectors);
    immediate Shufps => shuffle_single;
    immediate Shufpd => shuffle_double;

    binary_of_width Punpcklbw => |a, b, width| interleave(a, b, width, 8, false);
    binary_of_width Punpcklwd => |a, b, width| interleave(a, b, width, 16, false);
    binary_of_width Punpckldq => |a, b, width| interleave(a, b, width, 32, false);
    binary_of_width Punpcklqdq => |a, b, width| interleave(a, b, width, 64, false);
    binary_of_width Punpckhbw => |a, b, width| interleave(a, b, width, 8, true);
    binary_of_width Punpckhwd => |a, b, width| interleave(a, b, width, 16, true);
    binary_of_width Punpckhdq => |a, b, width| interleave(a, b, width, 32, true);
    binary_of_width Punpckhqdq => |a, b, width| interleave(a, b, width, 64, true);
    binary_of_width Unpcklps => |a, b, width| interleave(a, b, width, 32, false);
    binary_of_width Unpcklpd => |a, b, width| interleave(a, b, width, 64, false);
    binary_of_width Unpckhps => |a, b, width| interleave(a, b, width, 32, true);
    binary_of_width Unpckhpd => |a, b, width| interleave(a, b, width, 64, true);

    binary_of_width Packsswb => |a, b, width| pack(a, b, width, 16, |value| value.clamp(-0x80, 0x7f) as u32);
    binary_of_width Packuswb => |a, b, width| pack(a, b, width, 16, |value| value.clamp(0, 0xff) as u32);
    binary_of_width Packusdw => |a, b, width| pack(a, b, width, 32, |value| value.clamp(0, 0xffff) as u32);
    binary_of_width Packssdw => |a, b, width| pack(a, b, width, 32, |value| value.clamp(-0x8000, 0x7fff) as u32);

    binary_of_width Pshufb => shuffle_bytes;

    blend_by_register Blendvps => 32;
    blend_by_register Blendvpd => 64;
    blend_by_register Pblendvb => 8;
    blend_by_immediate Blendps => 32;
    blend_by_immediate Blendpd => 64;
    blend_by_immediate Pblendw => 16;

    duplicate Movsldup => 0;
    duplicate Movshdup => 1;

    signs Pmovmskb => 8;
    signs Movmskps => 32;
    signs Movmskpd => 64;
}
