//! The compact form of a decoded instruction, and how instructions lie in a block.
//!
//! ```text
//!  slot 0     Header  block, cost and count of the whole block
//!  slot 1..n  Insn    one an instruction (two fused ones still take two)
//!  slot n+1   Links   after the last instruction: where control goes next, and the RIPs
//! ```
//!
//! All slots have the same size, so that a handler finds the next instruction, the header and the links by counting.

use crate::block::Block;
use crate::state::Cpu;

/// The code of one operation: performs its instruction and calls the next one's handler.
pub(crate) type Handler = unsafe extern "C" fn(*mut Cpu, *const Insn);

/// One instruction.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Insn {
    pub handler: Handler,
    /// First register operand (destination).
    pub a: u8,
    /// Second register operand (source).
    pub b: u8,
    /// Base register of the memory operand; `ZERO_REGISTER` if none.
    pub base: u8,
    /// Index register; `ZERO_REGISTER` if none.
    pub index: u8,
    /// Displacement.
    pub displacement: i32,
    /// Immediate operand, sign-extended to 64 bits; or a pointer-free payload of the operation.
    pub immediate: u64,
    /// Scale of the index as a power of two.
    pub scale: u8,
    /// Third register operand of the few instructions that have one.
    pub c: u8,
    /// Number of the instruction in its block.
    pub number: u16,
    /// Ticks of this instruction and all before it in the block.
    pub cost_through: u32,
}

/// Slot 0 of a block.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Header {
    pub block: *const Block,
    /// Ticks of the whole block.
    pub cost: u32,
    /// Instructions of the block.
    pub count: u32,
    /// RIP of the first instruction.
    pub rip: u64,
    /// What a paid entry calls: the first instruction's handler, or whoever stands in front of it (`compile`, or `direct::stale`).
    pub handler: Handler,
}

/// The slot after the last instruction.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Links {
    /// Entries of the next block: fall-through and taken. Null until looked up; [`UNLINKABLE`] if only the jump cache may lead there.
    pub entry: [*const Insn; 2],
    /// Their RIPs.
    pub target: [u64; 2],
}

/// In place of an entry: the target lies on another page, whose mapping may change while this block stands.
pub(crate) const UNLINKABLE: *const Insn = std::ptr::without_provenance(1);

const _: () = assert!(size_of::<Insn>() == 32 && size_of::<Links>() == 32 && size_of::<Header>() == 32);
