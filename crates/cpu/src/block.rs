//! Decoded code: basic blocks, the cache of them by physical page, and their invalidation.
//!
//! A block is a run of instructions at one RIP in one [`Mode`], within one page. It ends at a branch, at an instruction after which the
//! engine must look around, at the page's end, or after [`MAXIMUM`] instructions. An instruction that crosses a page is a block of its own,
//! registered on both pages.
//!
//! **Invalidation.** A write to a page with blocks reports the bytes written (`Memory::take_code_writes`). The header of blocks that hold
//! any of them gets a handler that leads back to the engine, so links and jump caches need no search; the engine then brings the block up
//! to date (`block/refresh.rs`) or decodes it again, in place if it has as many instructions as before. A block that was replaced is freed
//! when there are many, together with everything else, while no handler runs ([`CodeCache::tidy`]).
//!
//! Whoever makes something of blocks has two functions to listen to: [`Block::set_stale`], the only one through which a block that stands
//! ceases to be what its bytes say, and [`CodeCache::tidy`], the only one that frees blocks. A stale block comes back through
//! [`Block::set_fresh`] alone, with its old bytes or with others.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`: a block's slots are a union.
#![expect(unsafe_code, reason = "the slots of a block are a union of header, instructions and links")]

use crate::bus::Environment;
use crate::compile::{Compiler, Meaning, Tier};
use crate::direct::{fall_through, stale};
use crate::insn::{Header, Insn, Links, UNLINKABLE};
use crate::state::{Cpu, ZERO_REGISTER};
use crate::system::Function;
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};
use isa::register::Segment;
use memory::PAGE_BYTES;
use models::DecodeRules;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;

mod footprint;
mod refresh;

use footprint::Footprint;
pub use footprint::Footprints;

/// The largest number of instructions in a block.
pub(crate) const MAXIMUM: usize = 64;
/// How many replaced blocks may wait before the whole cache is cleared.
const MAXIMUM_REPLACED: usize = 4096;
/// How many blocks may be cached before the whole cache is cleared: bounds the host's memory, whatever the guest does.
const MAXIMUM_BLOCKS: usize = 1 << 18;
/// The longest instruction in bytes.
const LONGEST: usize = 15;

/// When code is compiled. Nothing but the speed of a run depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compile {
    /// When it is hot, while the guest runs on.
    #[default]
    Hot,
    /// When it was entered so often, while the guest waits: what is compiled is then the same on every host.
    After(u32),
    /// Never: everything is left to the interpreter.
    Never,
}

/// What decoding depends on beside the bytes and RIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Mode {
    /// 16, 32 or 64.
    pub bits: u8,
    /// Blocks of one instruction, all flags computed.
    pub single: bool,
    /// SSE instructions are usable: CR0.EM and TS clear, CR4.OSFXSR set.
    pub sse: bool,
    /// Neither real-address nor virtual-8086 mode: there are VEX prefixes and the instructions that look at descriptors.
    pub protected: bool,
    /// By whose rules.
    pub rules: DecodeRules,
    /// Base of CS outside 64-bit mode.
    pub base: u32,
    /// `Cpu::view`: which bytes a processor sees instead of those that memory holds. No checkpoint has any but those of memory.
    #[serde(skip)]
    pub view: u32,
}

/// A decoder of code of 16, 32 or 64 bits by a vendor's rules.
pub fn decoder_at(bits: u32, bytes: &[u8], rip: u64, rules: DecodeRules) -> Decoder<'_> {
    let options = match rules {
        DecodeRules::Intel => DecoderOptions::NONE,
        DecodeRules::Amd => DecoderOptions::AMD,
    };
    Decoder::with_ip(bits, bytes, rip, options)
}

/// A slot before it is filled.
pub(crate) const BLANK: Insn = Insn {
    handler: fall_through,
    a: 0,
    b: 0,
    base: ZERO_REGISTER,
    index: ZERO_REGISTER,
    displacement: 0,
    immediate: 0,
    scale: 0,
    c: 0,
    number: 0,
    cost_through: 0,
};

/// A slot holds a header, an instruction or links, by its place in the block.
#[derive(Clone, Copy)]
#[repr(C)]
union Slot {
    header: Header,
    insn: Insn,
    links: Links,
}

/// What is known of an instruction beside its slot.
#[derive(Clone, Copy)]
pub(crate) struct Detail {
    pub instruction: Instruction,
    pub function: Function,
    /// What the compiler makes of it.
    pub meaning: Meaning,
}

/// A basic block.
pub struct Block {
    /// Cells, because handlers write links through pointers while the block is shared.
    slots: Box<[UnsafeCell<Slot>]>,
    details: Box<[Detail]>,
    /// RIP behind the last instruction.
    end: u64,
    /// The bytes it was decoded from, and whether some were overwritten: then it waits to be brought up to date.
    print: Footprint,
    rip: u64,
    mode: Mode,
    /// The bytes it was decoded from, for [`Cpu::refresh`]; of a block over two pages none.
    bytes: Vec<u8>,
    /// One bit for each instruction whose flags somebody may look at.
    live: u64,
    /// The last instruction is a terminator, which uses the links.
    terminated: bool,
    pub(crate) tier: Tier,
}

impl Block {
    /// A block with room for `count` instructions.
    fn blank(count: usize) -> Box<Self> {
        let detail = Detail { instruction: Instruction::new(), function: crate::select::undefined, meaning: Meaning::NONE };
        Box::new(Self {
            slots: (0..count + 3).map(|_| UnsafeCell::new(Slot { insn: BLANK })).collect(),
            details: vec![detail; count].into(),
            end: 0,
            print: Footprint::default(),
            rip: 0,
            mode: Mode::default(),
            bytes: Vec::new(),
            live: 0,
            terminated: false,
            tier: Tier::default(),
        })
    }

    /// Slot 1: where control enters.
    pub(crate) fn entry(&self) -> *const Insn {
        // SAFETY: every block has a header, at least one instruction and links.
        unsafe { UnsafeCell::raw_get(self.slots.as_ptr()).add(1).cast::<Insn>() }
    }

    /// Ticks of the whole block.
    #[cfg(feature = "compiler")]
    pub(crate) fn cost(&self) -> u32 {
        // SAFETY: slot 0 is the header.
        unsafe { (*self.slots[0].get()).header.cost }
    }

    /// How many instructions it has.
    #[cfg(feature = "compiler")]
    pub(crate) fn count(&self) -> usize {
        self.details.len()
    }

    /// Whether the last instruction is a terminator, which uses the links; else the next address follows.
    #[cfg(feature = "compiler")]
    pub(crate) fn terminated(&self) -> bool {
        self.terminated
    }

    #[cfg(feature = "compiler")]
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether another block lies on the same page, by its linear and by its physical address: while this one runs, nothing can lead elsewhere.
    #[cfg(feature = "compiler")]
    pub(crate) fn shares_page(&self, other: &Self) -> bool {
        let same = |one: u64, other: u64| one / PAGE_BYTES == other / PAGE_BYTES;
        let within = self.print.second.is_none() && other.print.second.is_none();
        within && same(self.rip, other.rip) && same(self.print.physical, other.print.physical)
    }

    #[cfg(feature = "compiler")]
    pub(crate) fn is_stale(&self) -> bool {
        self.print.stale
    }

    /// The slot of an instruction.
    #[cfg(feature = "compiler")]
    pub(crate) fn slot(&self, number: usize) -> &Insn {
        // SAFETY: behind the header are as many instructions as details; only handlers change them, while they run.
        unsafe { &(*self.slots[number + 1].get()).insn }
    }

    /// What the compiler makes of an instruction.
    #[cfg(feature = "compiler")]
    pub(crate) fn meaning(&self, number: usize) -> Meaning {
        self.details[number].meaning
    }

    /// Where control goes from its end.
    #[cfg(feature = "compiler")]
    pub(crate) fn links(&self) -> Links {
        let at = self.details.len() + if self.terminated { 1 } else { 2 };
        // SAFETY: `assemble` put the links there, and only handlers change them, while they run.
        unsafe { (*self.slots[at].get()).links }
    }

    /// A block that the cache of this machine owns.
    pub(crate) fn at<'a>(block: *const Self) -> &'a Self {
        // SAFETY: the compiler asks for blocks that links, the jump cache or regions lead to, while a handler runs: none is freed then.
        unsafe { &*block }
    }

    /// The block whose entry a link or the jump cache holds.
    pub(crate) fn of_entry(entry: *const Insn) -> *const Self {
        // SAFETY: as in `at`; the header precedes the entry.
        unsafe { (*entry.sub(1).cast::<Header>()).block }
    }

    /// Physical address of the first byte, and of the first one on a second page.
    pub(crate) fn place(&self) -> (u64, Option<u64>) {
        (self.print.physical, self.print.second)
    }

    pub(crate) fn instruction(&self, number: u16) -> &Instruction {
        &self.details[usize::from(number)].instruction
    }

    /// The function of an instruction that is one, and the instruction.
    #[inline]
    pub(crate) fn function_of(&self, number: u16) -> (Function, &Instruction) {
        let detail = &self.details[usize::from(number)];
        (detail.function, &detail.instruction)
    }

    /// RIP of an instruction, or behind the last one.
    pub(crate) fn rip_of(&self, number: u16) -> u64 {
        self.details.get(usize::from(number)).map_or(self.end, |detail| detail.instruction.ip())
    }

    /// Whether links may lead to it: not if the mapping of a second page could change behind their back.
    pub(crate) fn may_be_linked(&self) -> bool {
        self.print.second.is_none()
    }

    /// Some of its bytes were overwritten: whoever enters it is led back to the engine. The one place where that happens.
    fn set_stale(&mut self) {
        self.print.stale = true;
        self.slots[0].get_mut().header.handler = stale;
    }

    /// It is again what its bytes say.
    fn set_fresh(&mut self, compiler: &Compiler) {
        self.print.stale = false;
        let front = compiler.front(&mut self.tier, self.mode);
        // SAFETY: slot 1 is an instruction.
        let first = unsafe { self.slots[1].get_mut().insn.handler };
        self.slots[0].get_mut().header.handler = front.unwrap_or(first);
    }
}

#[derive(Default)]
struct CodePage {
    blocks: BTreeMap<(u64, Mode), Box<Block>>,
    /// Places of blocks that are decoded again when they are needed: a store there costs what it costs where code is decoded.
    prints: BTreeMap<(u64, Mode), Footprint>,
    /// One bit for each 64 bytes that some block covers.
    lines: u64,
    /// Frames on which blocks begin that end on this page.
    previous: Vec<u64>,
}

impl CodePage {
    fn invalidate(&mut self, compiler: &mut Compiler, address: u64, length: u64) -> bool {
        let mut found = false;
        for block in self.blocks.values_mut().filter(|block| block.print.is_met_by(address, length)) {
            compiler.forget(block);
            block.set_stale();
            found = true;
        }
        for print in self.prints.values_mut().filter(|print| print.is_met_by(address, length)) {
            print.stale = true;
            found = true;
        }
        found
    }
}

/// One bit for each 64 bytes of a page that hold some of `length` bytes from an offset.
#[inline]
pub(crate) const fn lines_of(offset: u64, length: u64) -> u64 {
    let end = offset + length - 1;
    let (first, last) = (offset / 64, if end < PAGE_BYTES { end / 64 } else { 63 });
    (u64::MAX >> (63 - (last - first))) << first
}

/// All decoded code of a machine.
#[derive(Default)]
pub struct CodeCache {
    pages: BTreeMap<u64, CodePage>,
    /// Blocks whose place another has taken.
    #[expect(clippy::vec_box, reason = "links and jump caches still point to them: they may not move")]
    replaced: Vec<Box<Block>>,
    /// Room for decoding, kept from block to block.
    scratch: Vec<Detail>,
    count: usize,
    generation: u64,
    layout: u64,
    pub(crate) compiler: Compiler,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CodeCache of {} blocks", self.count)
    }
}

// SAFETY: the raw pointers inside blocks (their links and header) lead into blocks of the same cache, which moves as a whole.
unsafe impl Send for CodeCache {}

impl CodeCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self { generation: 1, layout: 1, ..Self::default() }
    }

    /// Says when code is compiled. Blocks that are decoded already keep what they began with.
    pub fn compile(&mut self, when: Compile) {
        self.compiler.set(when);
    }

    /// How many regions were compiled so far, and how many could not be.
    pub fn compiled_regions(&self) -> (u64, u64) {
        (self.compiler.made, self.compiler.refused)
    }

    /// Changes whenever entries of blocks handed out before must be forgotten.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn lookup(&mut self, frame: u64, rip: u64, mode: Mode) -> Option<&mut Block> {
        self.pages.get_mut(&frame)?.blocks.get_mut(&(rip, mode)).map(|block| &mut **block)
    }

    /// Which lines of a page may hold code: see [`lines_of`].
    pub(crate) fn lines(&self, frame: u64) -> u64 {
        self.pages.get(&frame).map_or(0, |page| page.lines)
    }

    /// Changes, and is never zero, whenever [`Self::lines`] changes for some page.
    #[inline]
    pub(crate) fn layout(&self) -> u64 {
        self.layout
    }

    /// Makes the blocks stale that hold any of the bytes, which lie in one page. Returns whether there were any.
    pub(crate) fn invalidate(&mut self, address: u64, length: u64) -> bool {
        let frame = address / PAGE_BYTES;
        let Some(page) = self.pages.get_mut(&frame) else { return false };
        if page.lines & lines_of(address % PAGE_BYTES, length) == 0 {
            return false;
        }
        let mut found = page.invalidate(&mut self.compiler, address, length);
        if !page.previous.is_empty() {
            for frame in page.previous.clone() {
                found |= self.pages.get_mut(&frame).is_some_and(|page| page.invalidate(&mut self.compiler, address, length));
            }
        }
        found
    }

    /// Frees what is stale, and everything when there is too much; then the generation is another. Only while no handler runs.
    #[inline]
    fn tidy(&mut self, memory: &mut memory::Memory) {
        if self.count >= MAXIMUM_BLOCKS {
            self.clear(memory);
        } else if self.replaced.len() >= MAXIMUM_REPLACED {
            self.free();
        }
    }

    /// Frees every block and forgets even where code was. When that happens follows from the guest alone.
    #[cold]
    fn clear(&mut self, memory: &mut memory::Memory) {
        for frame in self.pages.keys() {
            memory.unmark_code(*frame);
        }
        self.free();
        self.pages.clear();
        self.count = 0;
        self.layout += 1;
    }

    /// Frees every block, and only remembers where each was.
    #[cold]
    fn free(&mut self) {
        self.compiler.clear();
        for page in self.pages.values_mut() {
            let blocks = std::mem::take(&mut page.blocks);
            page.prints.extend(blocks.into_iter().map(|(key, block)| (key, block.print)));
        }
        self.replaced.clear();
        self.generation += 1;
    }

    /// The block to build for an address: the stale one of that place if it has as many instructions, else a new one.
    fn vacancy(&mut self, frame: u64, rip: u64, mode: Mode, count: usize) -> Box<Block> {
        let Some(page) = self.pages.get_mut(&frame) else { return Block::blank(count) };
        self.count -= usize::from(page.prints.remove(&(rip, mode)).is_some());
        let Some(old) = page.blocks.remove(&(rip, mode)) else { return Block::blank(count) };
        self.count -= 1;
        // It may not be stale: a block over two pages is also decoded again when its second page is another.
        self.compiler.forget(&old);
        if old.details.len() == count {
            return old;
        }
        let mut block = Block::blank(count);
        block.tier.succeed(&old.tier);
        // Links and jump caches may still lead to it.
        self.replaced.push(old);
        block
    }

    /// How long a block at this place is: as long as it was before only its place was kept, whatever the limit of CS and the mapping of the
    /// next page were then.
    fn extent(&self, physical: u64, rip: u64, mode: Mode) -> usize {
        let print = self.pages.get(&(physical / PAGE_BYTES)).and_then(|page| page.prints.get(&(rip, mode)));
        print.filter(|print| !print.stale && print.physical == physical).map_or(usize::MAX, |print| print.length as usize)
    }

    fn insert(&mut self, memory: &mut memory::Memory, block: Box<Block>) -> *const Insn {
        let entry = block.entry();
        if let Some(second) = block.print.second {
            memory.mark_code(second / PAGE_BYTES);
        }
        memory.mark_code(block.print.physical / PAGE_BYTES);
        self.cover(&block.print).blocks.insert((block.rip, block.mode), block);
        self.count += 1;
        entry
    }

    /// Notes on which lines of which pages a block lies. Returns the page on which it begins.
    fn cover(&mut self, print: &Footprint) -> &mut CodePage {
        let frame = print.physical / PAGE_BYTES;
        let on_first = print.on_first_page();
        if let Some(second) = print.second {
            let next = self.pages.entry(second / PAGE_BYTES).or_default();
            let lines = next.lines | lines_of(0, print.length - on_first);
            self.layout += u64::from(std::mem::replace(&mut next.lines, lines) != lines);
            if !next.previous.contains(&frame) {
                next.previous.push(frame);
            }
        }
        let page = self.pages.entry(frame).or_default();
        let lines = page.lines | lines_of(print.physical % PAGE_BYTES, on_first);
        self.layout += u64::from(std::mem::replace(&mut page.lines, lines) != lines);
        page
    }
}

impl Environment<'_> {
    /// Drops blocks that hold bytes written through `Memory::write`. Returns whether there were any.
    pub(crate) fn drop_written_code(&mut self) -> bool {
        let mut found = false;
        for write in self.memory.take_code_writes() {
            found |= self.code.invalidate(write.address, write.length);
        }
        found
    }

    /// See [`CodeCache::tidy`].
    #[inline]
    pub(crate) fn tidy_code(&mut self) {
        self.code.tidy(self.memory);
    }
}

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
        let linear = self.fetch_linear(self.rip)?;
        let physical = self.fetch_physical(linear)?;
        debug_assert_eq!(self.code_mode, self.mode(false), "a change of mode makes another context");
        let block = Block::at(Block::of_entry(entry));
        // One that is not stale and lies in one page was never replaced.
        let wanted = Footprint { physical, second: None, stale: false, ..block.print };
        let last = self.rip.wrapping_add(block.print.length - 1);
        if block.print == wanted && block.mode == self.code_mode && self.is_fetchable(last) {
            return Ok(entry);
        }
        self.find_block_at(linear, physical, self.mode(false))
    }

    /// The entry of the block at RIP, decoded if need be. Faults are those of the instruction fetch.
    pub(crate) fn find_block(&mut self, single: bool) -> Outcome<*const Insn> {
        let mode = self.mode(single);
        let linear = self.fetch_linear(self.rip)?;
        let physical = self.fetch_physical(linear)?;
        self.find_block_at(linear, physical, mode)
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
    fn second_page(&mut self, linear: u64, second: Option<u64>) -> Outcome<Option<u64>> {
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
        if rip > u64::from(cs.limit) { Err(Trap::GP0) } else { Ok(cs.base.wrapping_add(rip) & 0xffff_ffff) }
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
