//! Where code was decoded: all that anybody can tell of a code cache from outside.
//!
//! What is modelled: a store to bytes that a processor has decoded, and not found overwritten since, clears its pipeline, which costs time
//! (`Cpu::store_code`). So the places of blocks are state, though the blocks themselves are not: a fork of a machine, or one that comes out of
//! a checkpoint, begins with the places alone, and decodes each block again when it is entered.

use super::cache::MAXIMUM_BLOCKS;
use super::{CodeCache, MAXIMUM, Mode};
use memory::PAGE_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The bytes that a block was decoded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footprint {
    /// Physical address of the first byte.
    pub physical: u64,
    /// Physical address of the first byte on a second page.
    pub second: Option<u64>,
    /// Length in bytes.
    pub length: u64,
    /// Some of them were overwritten since.
    pub stale: bool,
}

impl Footprint {
    /// How many of its bytes lie on the page of the first.
    pub fn on_first_page(&self) -> u64 {
        self.second.map_or(self.length, |_| PAGE_BYTES - self.physical % PAGE_BYTES)
    }

    /// Whether a store makes it stale.
    pub fn is_met_by(&self, address: u64, length: u64) -> bool {
        let first = self.on_first_page();
        let hit = |start: u64, bytes: u64| address < start + bytes && start < address + length;
        !self.stale && (hit(self.physical, first) || self.second.is_some_and(|start| hit(start, self.length - first)))
    }
}

/// The places of all blocks of a code cache: what a checkpoint keeps of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprints(Vec<(u64, Mode, Footprint)>);

impl Footprints {
    /// The frames on which the places lie, in ascending order; nothing if one cannot be in memory of so many bytes, or cannot be at all.
    pub fn checked_frames(&self, memory_size: u64) -> Option<Vec<u64>> {
        let mut frames = BTreeSet::new();
        for (_, mode, print) in &self.0 {
            let possible = matches!(mode.bits, 16 | 32 | 64) && (1..=MAXIMUM as u64 * 15).contains(&print.length);
            let end = print.physical.checked_add(print.on_first_page().min(print.length))?;
            let in_page = (print.physical ^ (end - 1)) & !(PAGE_BYTES - 1) == 0;
            let second = print.second.unwrap_or(0);
            let goes_over = print.second.is_none() || second & (PAGE_BYTES - 1) == 0 && print.on_first_page() < print.length;
            if !possible || !in_page || !goes_over || end > memory_size || second >= memory_size {
                return None;
            }
            frames.insert(print.physical / PAGE_BYTES);
            frames.extend(print.second.map(|second| second / PAGE_BYTES));
        }
        (self.0.len() <= MAXIMUM_BLOCKS).then(|| frames.into_iter().collect())
    }
}

impl CodeCache {
    /// Where code was decoded.
    pub fn footprints(&self) -> Footprints {
        let mut prints: Vec<_> = self
            .pages
            .values()
            .flat_map(|page| {
                let blocks = page.blocks.iter().map(|((rip, mode), block)| (*rip, *mode, block.print));
                blocks.chain(page.prints.iter().map(|((rip, mode), print)| (*rip, *mode, *print)))
            })
            .collect();
        prints.sort_unstable_by_key(|(rip, mode, print)| (print.physical / PAGE_BYTES, *rip, *mode));
        Footprints(prints)
    }

    /// Drops what was decoded from bytes that were written since: [`Self::footprints`] tells of such writes then.
    pub fn take_writes(&mut self, memory: &mut memory::Memory) {
        for write in memory.take_code_writes() {
            self.invalidate(write.address, write.length);
        }
    }

    /// A cache without blocks for a machine that had decoded code in these places. The pages of its memory must be marked
    /// ([`memory::Memory::mark_code`]) as they were.
    pub fn with_footprints(footprints: &Footprints) -> Self {
        let mut cache = Self::new();
        for (rip, mode, print) in &footprints.0 {
            let added = cache.cover(print).prints.insert((*rip, *mode), *print).is_none();
            cache.count += usize::from(added);
        }
        cache
    }

    /// A cache without blocks for a fork of the machine, whose memory is a [`memory::Memory::snapshot`].
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut cache = Self::with_footprints(&self.footprints());
        cache.compiler.set(self.compiler.when());
        cache
    }
}
