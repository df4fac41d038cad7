//! Blocks that are needed again after some of their bytes were overwritten.
//!
//! What is modelled: nothing of its own. A block keeps the bytes it was decoded from; where they are as before it is good as it stands,
//! where another immediate is all that is new that is patched, and where instructions of the same lengths have come in the old ones' places
//! only those are decoded. Everything else is decoded from the start
//! ([`Cpu::find_block`]): blocks over two pages, 16-bit code, other lengths or costs, another end, a changed branch at the end, and changes
//! that make other instructions' flags visible.

use super::{BLANK, Block, MAXIMUM, Mode, Slot, decoder_at};
use crate::insn::Insn;
use crate::liveness::live_flags;
use crate::select::{choose, ends_block, fuse};
use crate::state::Cpu;
use iced_x86::{DecoderError, Instruction, Mnemonic as M, OpKind};
use isa::register::Segment;
use memory::PAGE_BYTES;

/// One bit for each instruction of [`live_flags`].
pub(super) fn live_bits(live: &[bool]) -> u64 {
    live.iter().rev().fold(0, |bits, live| bits << 1 | u64::from(*live))
}

/// Whether an instruction's immediate is nothing but a number to its handler, its cost and everything else that is chosen for it.
fn has_plain_immediate(instruction: &Instruction) -> bool {
    let known = matches!(instruction.mnemonic(), M::Mov | M::Add | M::Adc | M::Sub | M::Sbb | M::And | M::Or | M::Xor | M::Cmp | M::Test);
    known && instruction.op_count() == 2
}

/// Gives an instruction another immediate, if that is all in which its bytes differ. Returns it as slots have it.
fn new_immediate(instruction: &mut Instruction, old: &[u8], new: &[u8]) -> Option<u64> {
    let bytes = match instruction.op1_kind() {
        OpKind::Immediate8 | OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => 1,
        OpKind::Immediate16 => 2,
        OpKind::Immediate32 | OpKind::Immediate32to64 => 4,
        OpKind::Immediate64 => 8,
        _ => return None,
    };
    // An immediate is the end of its instruction. SDM vol 2, 2.1 "Instruction Format for Protected Mode, Real-address Mode, and
    // Virtual-8086 Mode".
    let front = old.len() - bytes;
    if !has_plain_immediate(instruction) || old[..front] != new[..front] {
        return None;
    }
    let mut value = [0; 8];
    value[..bytes].copy_from_slice(&new[front..]);
    let unsigned = u64::from_le_bytes(value);
    match instruction.op1_kind() {
        OpKind::Immediate8 => instruction.set_immediate8(unsigned as u8),
        OpKind::Immediate8to16 => instruction.set_immediate8to16(i16::from(unsigned as i8)),
        OpKind::Immediate8to32 => instruction.set_immediate8to32(i32::from(unsigned as i8)),
        OpKind::Immediate8to64 => instruction.set_immediate8to64(i64::from(unsigned as i8)),
        OpKind::Immediate16 => instruction.set_immediate16(unsigned as u16),
        OpKind::Immediate32 => instruction.set_immediate32(unsigned as u32),
        OpKind::Immediate32to64 => instruction.set_immediate32to64(i64::from(unsigned as i32)),
        _ => instruction.set_immediate64(unsigned),
    }
    Some(instruction.immediate(1))
}

impl Cpu {
    /// The bytes at the place of a block as they are now; none for a block over two pages, or outside the limit of CS.
    ///
    /// # Safety
    /// The caller must be done with them before this or another processor touches memory.
    unsafe fn present_bytes<'a>(&mut self, block: &Block) -> &'a [u8] {
        let limit = if block.mode.bits == 64 { u64::MAX } else { u64::from(self.segment(Segment::Cs).limit) };
        if block.mode.view != 0
            || block.print.second.is_some()
            || block.rip.checked_add(block.print.length - 1).is_none_or(|last| last > limit)
        {
            return &[];
        }
        let page = self.environment().memory.read_pointer(block.print.physical / PAGE_BYTES).expect("the page is RAM");
        // SAFETY: the pointer is good for the 4096 bytes of the page until memory is touched, and the block lies in one page.
        unsafe { std::slice::from_raw_parts(page.add((block.print.physical % PAGE_BYTES) as usize), block.print.length as usize) }
    }

    /// Keeps what a block was decoded from, unless what it ended at lies outside of it: an instruction that goes on in the next page.
    pub(super) fn keep_bytes(&mut self, block: &mut Block) {
        block.bytes.clear();
        let Some(last) = block.details.last() else { return };
        let ends_by_itself = block.mode.single || block.details.len() == MAXIMUM || ends_block(&last.instruction);
        if !ends_by_itself && !(block.print.physical + block.print.length).is_multiple_of(PAGE_BYTES) {
            return;
        }
        // SAFETY: they are copied at once.
        let bytes = unsafe { self.present_bytes(block) };
        block.bytes.extend_from_slice(bytes);
    }

    /// Brings a stale block up to date in its place and returns its entry; `None` if it has to be decoded from the start.
    pub(super) fn refresh(&mut self, block: &mut Block) -> Option<*const Insn> {
        // SAFETY: decoding reads the processor's state and the block only.
        let bytes = unsafe { self.present_bytes(block) };
        if bytes.is_empty() || bytes.len() != block.bytes.len() {
            return None;
        }
        if bytes != &block.bytes[..] {
            if self.renew(block, bytes).is_none() {
                // Its instructions are no longer those of its bytes.
                block.bytes.clear();
                return None;
            }
            block.bytes.copy_from_slice(bytes);
        }
        block.set_fresh(&self.environment().code.compiler);
        Some(block.entry())
    }

    /// Decodes the instructions anew whose bytes have changed. On `None` some may be, and the block is still stale.
    fn renew(&self, block: &mut Block, bytes: &[u8]) -> Option<()> {
        let Mode { bits, single, rules, .. } = block.mode;
        let last = block.details.len() - 1;
        let mut changed = 0u64;
        let mut at = 0;
        for (number, detail) in block.details.iter_mut().enumerate() {
            let length = detail.instruction.len();
            let (old, new) = (&block.bytes[at..at + length], &bytes[at..at + length]);
            if new != old {
                if let Some(immediate) = new_immediate(&mut detail.instruction, old, new) {
                    block.slots[number + 1].get_mut().insn.immediate = immediate;
                    at += length;
                    continue;
                }
                let mut decoder = decoder_at(u32::from(bits), &bytes[at..], detail.instruction.ip(), rules);
                let instruction = decoder.decode();
                let fits = decoder.last_error() != DecoderError::NoMoreBytes
                    && instruction.len() == length
                    && ends_block(&instruction) == ends_block(&detail.instruction);
                if !fits || bits == 16 {
                    return None;
                }
                detail.instruction = instruction;
                changed |= 1 << number;
            }
            at += length;
        }
        if changed == 0 {
            return Some(());
        }
        // The links of a branch are its target's.
        if changed >> last & 1 != 0 && block.terminated || live_bits(&live_flags(&block.details)[..=last]) != block.live {
            return None;
        }
        while changed != 0 {
            let number = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            // SAFETY: the slots behind the header are instructions.
            let (before, through) = unsafe {
                let before = if number == 0 { 0 } else { block.slots[number].get_mut().insn.cost_through };
                (before, block.slots[number + 1].get_mut().insn.cost_through)
            };
            let mut insn = Insn { number: number as u16, cost_through: through, ..BLANK };
            let detail = &mut block.details[number];
            let chosen = choose(self, &detail.instruction, block.mode, block.live >> number & 1 != 0, &mut insn);
            if chosen.terminates || before.saturating_add(chosen.cost.max(1)) != through {
                return None;
            }
            (detail.function, detail.meaning) = (chosen.function, chosen.meaning);
            insn.handler = chosen.handler;
            if !single
                && block.terminated
                && number + 1 == last
                && let Some(handler) = fuse(&block.details[number].instruction, &block.details[last].instruction, &mut insn)
            {
                insn.handler = handler;
            }
            *block.slots[number + 1].get_mut() = Slot { insn };
        }
        Some(())
    }
}
