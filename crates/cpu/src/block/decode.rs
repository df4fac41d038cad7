//! From bytes at RIP to a block: the search, the fetch with its faults, decoding, and the slots that are made of it.

use super::footprint::Footprint;
use super::{BLANK, Block, Detail, MAXIMUM, Mode, Slot, decoder_at, refresh};
use crate::compile::Meaning;
use crate::direct::stale;
use crate::insn::{Header, Insn, Links, UNLINKABLE};
use crate::state::{Cpu, linear_rip};
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{DecoderError, FlowControl, Instruction};
use isa::register::Segment;
use memory::PAGE_BYTES;
use std::cell::UnsafeCell;

/// The longest instruction in bytes.
const LONGEST: usize = 15;

impl Cpu {
    /// How code at CS:RIP is decoded now.
    pub(crate) fn mode(&self, single: bool) -> Mode {
        let bits = self.code_bits() as u8;
        Mode {
            bits,
            single,
            sse: !self.cr0.em() && !self.cr0.ts() && self.cr4.osfxsr(),
            protected: self.is_protected(),
            rules: self.model.decode_rules(),
            base: if bits == 64 { 0 } else { self.segment(Segment::Cs).base as u32 },
            view: self.view,
        }
    }

    /// The entry of the block at RIP, where the jump cache knows one from another context: it is the same if RIP leads to the same physical
    /// address and code is decoded in the same way, which spares the search.
    pub(crate) fn find_block_again(&mut self, entry: *const Insn) -> Outcome<*const Insn> {
        let (linear, physical) = self.fetch_place()?;
        debug_assert_eq!(self.code_mode, self.mode(false), "a change of mode makes another context");
        let block = Block::at(Block::of_entry(entry));
        if block.print.physical == physical && block.mode == self.code_mode && self.is_current(entry) {
            return Ok(entry);
        }
        self.find_block_at(linear, physical, self.mode(false))
    }

    /// The entry of the block at RIP, decoded if need be. Faults are those of the instruction fetch.
    pub(crate) fn find_block(&mut self, single: bool) -> Outcome<*const Insn> {
        let mode = self.mode(single);
        let (linear, physical) = self.fetch_place()?;
        self.find_block_at(linear, physical, mode)
    }

    /// The linear and the physical address of the instruction at RIP. Faults are those of the instruction fetch.
    #[inline]
    pub(crate) fn fetch_place(&mut self) -> Outcome<(u64, u64)> {
        let linear = self.fetch_linear(self.rip)?;
        Ok((linear, self.fetch_physical(linear)?))
    }

    /// Whether the search would find the block that the jump cache knows in this context: one that was not overwritten and lies in one page,
    /// so that it was never replaced, and that the limit of CS lets be fetched to its end.
    pub(crate) fn is_current(&self, entry: *const Insn) -> bool {
        let block = Block::at(Block::of_entry(entry));
        !block.print.stale && block.print.second.is_none() && self.is_fetchable(self.rip.wrapping_add(block.print.length - 1))
    }

    /// The entry of a block of the instruction at RIP alone.
    pub(crate) fn find_single(&mut self) -> Outcome<*const Insn> {
        if let Some(entry) = self.jumps.find_single(self.rip, self.context)
            && self.is_current(entry)
        {
            return Ok(entry);
        }
        let entry = self.find_block(true)?;
        self.jumps.remember_single(self.rip, self.context, entry);
        Ok(entry)
    }

    fn find_block_at(&mut self, linear: u64, physical: u64, mode: Mode) -> Outcome<*const Insn> {
        if !self.is_ram(physical) {
            return Err(Trap::not_modelled(format!("an instruction fetch from physical address {physical:#x}, which is not RAM")));
        }
        let rip = self.rip;
        let known = self.environment().code.lookup(physical / PAGE_BYTES, rip, mode).filter(|block| block.print.physical == physical);
        if let Some(block) = known {
            if block.print.stale {
                let block = std::ptr::from_mut(block);
                // SAFETY: the code cache keeps the block, and `refresh` reaches nothing of the cache but it.
                if let Some(entry) = self.refresh(unsafe { &mut *block }) {
                    return Ok(entry);
                }
            } else {
                let (entry, second) = (block.entry(), block.print.second);
                let last = rip.wrapping_add(block.print.length - 1);
                // A block over two pages is still the same code if its second page is still mapped to the same place, and every block if the
                // limit of CS still lets it be fetched to its end.
                if self.is_fetchable(last) && second == self.second_page(linear, second)? {
                    return Ok(entry);
                }
            }
        }
        let block = self.decode(linear, physical, mode)?;
        let environment = self.environment();
        let entry = environment.code.insert(environment.memory, block);
        self.forget_old_pages();
        Ok(entry)
    }

    /// Where the page behind the one of `linear` is now, if the block has a second page.
    pub(super) fn second_page(&mut self, linear: u64, second: Option<u64>) -> Outcome<Option<u64>> {
        if second.is_none() {
            return Ok(None);
        }
        let next = (linear | (PAGE_BYTES - 1)).wrapping_add(1);
        let page = self.translate_fetch(next)?;
        Ok(Some(page.physical + (next & (page.bytes - 1))))
    }

    /// The linear address of an instruction byte, within the limit of CS.
    fn fetch_linear(&self, rip: u64) -> Outcome<u64> {
        if self.is_64bit() {
            return Ok(rip);
        }
        let cs = self.segment(Segment::Cs);
        if rip > u64::from(cs.limit) { Err(Trap::GP0) } else { Ok(linear_rip(false, cs.base, rip)) }
    }

    /// Whether a byte of code is within the limit of CS.
    fn is_fetchable(&self, rip: u64) -> bool {
        self.is_64bit() || rip <= u64::from(self.segment(Segment::Cs).limit)
    }

    fn decode(&mut self, linear: u64, physical: u64, mode: Mode) -> Outcome<Box<Block>> {
        let rip = self.rip;
        let extent = self.environment().code.extent(physical, rip, mode);
        let in_page = (PAGE_BYTES - physical % PAGE_BYTES) as usize;
        // SDM vol 3, 5.3: bytes behind the limit of CS cannot be fetched.
        let limit = if mode.bits == 64 { u64::MAX } else { u64::from(self.segment(Segment::Cs).limit) - rip };
        let available = in_page.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        let environment = self.environment();
        let mut details = std::mem::take(&mut environment.code.scratch);
        details.clear();
        let outcome = self.decode_into(&mut details, linear, physical, mode, limit, available, extent);
        let block = outcome.map(|second| self.assemble(rip, physical, second, mode, &mut details));
        self.environment().code.scratch = details;
        block
    }

    /// Decodes up to `available` bytes of one page, and no instruction behind `extent` bytes. Returns where the second page of an instruction
    /// that crosses it is.
    #[expect(clippy::too_many_arguments, reason = "one caller")]
    fn decode_into(
        &mut self,
        details: &mut Vec<Detail>,
        linear: u64,
        physical: u64,
        mode: Mode,
        limit: u64,
        available: usize,
        extent: usize,
    ) -> Outcome<Option<u64>> {
        let rip = self.rip;
        let in_page = (PAGE_BYTES - physical % PAGE_BYTES) as usize;
        let page = self.environment().memory.read_pointer(physical / PAGE_BYTES).expect("the page is RAM");
        // SAFETY: the pointer is good for the 4096 bytes of the page while the memory's generation stands, and nothing below writes memory
        // before the slice was last used.
        let bytes = unsafe { std::slice::from_raw_parts(page.add((physical % PAGE_BYTES) as usize), available) };
        let viewed = if mode.view == 0 { None } else { self.viewed_page(physical) };
        let bytes = viewed.as_ref().map_or(bytes, |page| &page[(physical % PAGE_BYTES) as usize..][..available]);
        let maximum = if mode.single { 1 } else { MAXIMUM };
        let mut decoder = decoder_at(u32::from(mode.bits), bytes, rip, mode.rules);
        let mut ends = false;
        let mut second = None;
        while details.len() < maximum && !ends {
            let at = decoder.position();
            if at >= available.min(extent) {
                break;
            }
            let mut instruction = decoder.decode();
            if decoder.last_error() == DecoderError::NoMoreBytes && at + LONGEST > available {
                if !details.is_empty() {
                    break;
                }
                if available < in_page {
                    return Err(Trap::GP0);
                }
                // Copied before the second page is translated, which may set accessed bits in this very page.
                let mut whole = [0; 2 * LONGEST];
                let have = available - at;
                whole[..have].copy_from_slice(&bytes[at..]);
                let next = linear.wrapping_add(in_page as u64);
                let next = if mode.bits == 64 { next } else { next & 0xffff_ffff };
                let page = self.translate_fetch(next)?;
                let start = page.physical + (next & (page.bytes - 1));
                let more = LONGEST.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1) - available);
                if !self.is_ram(start) || self.environment().memory.read(start, &mut whole[have..have + more]).is_err() {
                    return Err(Trap::not_modelled(format!("an instruction fetch from physical address {start:#x}, which is not RAM")));
                }
                self.view_bytes(start, &mut whole[have..have + more]);
                let mut decoder = decoder_at(u32::from(mode.bits), &whole[..have + more], rip, mode.rules);
                instruction = decoder.decode();
                if decoder.last_error() == DecoderError::NoMoreBytes {
                    return Err(Trap::GP0);
                }
                second = (decoder.position() > in_page).then_some(start);
                ends = true;
            }
            ends |= crate::select::ends_block(&instruction);
            details.push(Detail { instruction, function: crate::select::undefined, meaning: Meaning::NONE });
        }
        Ok(second)
    }

    /// Makes the slots of a block from its decoded instructions.
    fn assemble(&mut self, rip: u64, physical: u64, second: Option<u64>, mode: Mode, details: &mut [Detail]) -> Box<Block> {
        let count = details.len();
        let end = details.last().map_or(rip, |detail| detail.instruction.next_ip());
        let live = crate::liveness::live_flags(details);
        let mut block = self.environment().code.vacancy(physical / PAGE_BYTES, rip, mode, count);
        let blank = BLANK;
        let last = details[count - 1].instruction;
        let is_branch =
            matches!(last.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call)
                && last.is_jcc_short_or_near() | last.is_jmp_short_or_near() | last.is_call_near();
        let slots = &mut block.slots;
        let mut cost = 0u32;
        let mut terminated = false;
        for (number, detail) in details.iter_mut().enumerate() {
            let mut insn = Insn { number: number as u16, ..blank };
            let chosen = crate::select::choose(self, &detail.instruction, mode, live[number], &mut insn);
            insn.handler = chosen.handler;
            (detail.function, detail.meaning) = (chosen.function, chosen.meaning);
            cost = cost.saturating_add(chosen.cost.max(1));
            insn.cost_through = cost;
            terminated = chosen.terminates;
            *slots[number + 1].get_mut() = Slot { insn };
        }
        if !mode.single && terminated && count > 1 {
            // SAFETY: both slots are instructions.
            let first = unsafe { &mut slots[count - 1].get_mut().insn };
            if let Some(handler) = crate::select::fuse(&details[count - 2].instruction, &last, first) {
                first.handler = handler;
            }
        }
        // A terminator uses the slot behind it for its links; another last instruction is followed by the fall-through handler.
        let links_at = if terminated { count + 1 } else { count + 2 };
        if !terminated {
            *slots[count + 1].get_mut() = Slot { insn: Insn { number: count as u16, cost_through: cost, ..blank } };
        }
        let taken = if is_branch { last.near_branch_target() } else { end };
        let mask = if mode.bits == 64 { u64::MAX } else { 0xffff_ffff };
        // Only on the same page is it certain that a successor stays the same code.
        let link = |target: u64| {
            let stays = !mode.single && second.is_none() && target & !(PAGE_BYTES - 1) == rip & !(PAGE_BYTES - 1);
            if stays { std::ptr::null() } else { UNLINKABLE }
        };
        let owner: *const Block = &*block;
        let slots = &block.slots;
        // SAFETY: slots have the size and alignment of headers and links, and both places are inside.
        unsafe {
            let base = UnsafeCell::raw_get(slots.as_ptr());
            base.cast::<Header>().write(Header { block: owner, cost, count: count as u32, rip, handler: stale });
            base.add(links_at)
                .cast::<Links>()
                .write(Links { entry: [link(end & mask), link(taken & mask)], target: [end & mask, taken & mask] });
        }
        block.details.copy_from_slice(details);
        block.end = end & mask;
        block.print = Footprint { physical, second, length: end.wrapping_sub(rip), stale: true };
        block.rip = rip;
        block.mode = mode;
        block.live = refresh::live_bits(&live[..count]);
        block.terminated = terminated;
        self.keep_bytes(&mut block);
        block.set_fresh(&self.environment().code.compiler);
        block
    }

    /// The linear address at which the bytes of an instruction that failed can be read again, for a message.
    pub(crate) fn instruction_bytes(&mut self, instruction: &Instruction) -> Vec<u8> {
        let mut bytes = vec![0; instruction.len()];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let rip = instruction.ip().wrapping_add(at as u64);
            let Ok(linear) = self.fetch_linear(rip) else { return Vec::new() };
            let Ok(page) = self.translate(linear, Access::Fetch, self.privilege()) else { return Vec::new() };
            let physical = page.physical + (linear & (page.bytes - 1));
            *byte = self.environment().memory.read_u8(physical).unwrap_or(0);
        }
        bytes
    }
}
