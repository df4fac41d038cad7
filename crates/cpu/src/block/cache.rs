//! All decoded code of a machine, by physical page, and what a store to it makes stale.

use super::footprint::Footprint;
use super::{Block, Compile, Detail, Mode};
use crate::bus::Environment;
use crate::compile::Compiler;
use crate::insn::Insn;
use memory::PAGE_BYTES;
use std::collections::BTreeMap;

/// How many replaced blocks may wait before the whole cache is cleared.
const MAXIMUM_REPLACED: usize = 4096;
/// How many blocks may be cached before the whole cache is cleared: bounds the host's memory, whatever the guest does.
pub(super) const MAXIMUM_BLOCKS: usize = 1 << 18;

#[derive(Default)]
pub(super) struct CodePage {
    pub(super) blocks: BTreeMap<(u64, Mode), Box<Block>>,
    /// Places of blocks that are decoded again when they are needed: a store there costs what it costs where code is decoded.
    pub(super) prints: BTreeMap<(u64, Mode), Footprint>,
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
    pub(super) pages: BTreeMap<u64, CodePage>,
    /// Blocks whose place another has taken.
    #[expect(clippy::vec_box, reason = "links and jump caches still point to them: they may not move")]
    replaced: Vec<Box<Block>>,
    /// Room for decoding, kept from block to block.
    pub(super) scratch: Vec<Detail>,
    pub(super) count: usize,
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

    pub(super) fn lookup(&mut self, frame: u64, rip: u64, mode: Mode) -> Option<&mut Block> {
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
    pub(super) fn clear(&mut self, memory: &mut memory::Memory) {
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
    pub(super) fn vacancy(&mut self, frame: u64, rip: u64, mode: Mode, count: usize) -> Box<Block> {
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
    pub(super) fn extent(&self, physical: u64, rip: u64, mode: Mode) -> usize {
        let print = self.pages.get(&(physical / PAGE_BYTES)).and_then(|page| page.prints.get(&(rip, mode)));
        print.filter(|print| !print.stale && print.physical == physical).map_or(usize::MAX, |print| print.length as usize)
    }

    pub(super) fn insert(&mut self, memory: &mut memory::Memory, block: Box<Block>) -> *const Insn {
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
    pub(super) fn cover(&mut self, print: &Footprint) -> &mut CodePage {
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
