//! Shadow page tables: what the processor walks instead of the guest's own tables, where it cannot walk both.
//!
//! Modelled: shadow pages in the hypervisor's own bounded pool, each named by its role (the guest's frame, level, rights above it, paging mode);
//! they are filled by page faults, shared between address spaces and virtual CPUs, recycled when the pool is empty, and kept in step with the
//! guest's tables by write protection: no shadow entry lets a frame be written that is a table, and every write to one, whoever makes it, is
//! reported by [`Memory::watch`] and drops the entries made from it. Large pages of the guest are mapped in pieces of 4 KiB, and global pages
//! are not, as it was in 2007.
//! Not modelled: tables that may be out of step until INVLPG, entries made before they are needed.
//!
//! | file | what |
//! |---|---|
//! | `path` | the guest's tables, read: which a walk went through |
//! | `pool` | shadow pages: named, found, linked, dropped, recycled |
//! | `fill` | one page fault: from the way in the guest's tables to an entry |
//! | `roots` | which tables each virtual CPU walks |
//! | `record` | all of it in a checkpoint |

mod fill;
pub mod path;
mod pool;
mod record;
mod roots;
#[cfg(test)]
mod tests;

pub use fill::{Filled, Wish};
pub use pool::Role;
pub(crate) use record::ShadowRecord;

use memory::Memory;
use path::Mode;
use pool::{Place, ShadowPage};
use roots::Roots;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The tables, in a range of pages that is theirs.
#[derive(Clone, Debug)]
pub struct ShadowTables {
    /// Host-physical address of the first page of the pool.
    first: u64,
    /// Every page of the pool; `None` is free.
    pages: Vec<Option<ShadowPage>>,
    /// Free pages; the last is taken next.
    free: Vec<u32>,
    /// Every shadow page by its name.
    by_role: BTreeMap<Role, u32>,
    /// The shadow pages made from a guest's frame, which is therefore a table.
    by_frame: BTreeMap<u64, BTreeSet<u32>>,
    /// The shadow pages by age, the least recently found first.
    by_age: BTreeMap<u64, u32>,
    age: u64,
    /// The entries that map a guest's frame.
    maps: BTreeMap<u64, BTreeSet<Place>>,
    /// Entries that map pages.
    mappings: u64,
    /// What each virtual CPU walks.
    roots: Vec<Roots>,
    /// Where the four entries of PAE paging lie for each virtual CPU.
    quartets: u64,
    /// An entry was dropped or narrowed: processors may hold what it said.
    stale: bool,
    /// A dirty log is kept: a clean page is not mapped writable before its first write.
    logs: bool,
}

/// Writes to a table without a use in between after which it is no table any more, as KVM's `last_pt_write_count` has it.
const FLOOD: u32 = 3;

impl ShadowTables {
    /// Pages that tables with so large a pool need for so many virtual CPUs.
    pub fn pages(pool: u32, cpus: usize) -> u64 {
        u64::from(pool) + (cpus as u64 * 32).div_ceil(4096)
    }

    /// Empty tables in a range of host-physical pages, all below 4 GiB.
    pub fn new(pages: Range<u64>, cpus: usize) -> Self {
        let quartets = (cpus as u64 * 32).next_multiple_of(4096);
        let first = pages.start + quartets;
        let count = (pages.end.saturating_sub(first) >> 12) as u32;
        Self {
            first,
            pages: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            by_role: BTreeMap::new(),
            by_frame: BTreeMap::new(),
            by_age: BTreeMap::new(),
            age: 0,
            maps: BTreeMap::new(),
            mappings: 0,
            roots: vec![Roots::default(); cpus],
            quartets: pages.start,
            stale: false,
            logs: false,
        }
    }

    /// How many pages of 4 KiB are mapped.
    pub fn mappings(&self) -> u64 {
        self.mappings
    }

    /// How many pages of the pool are in use.
    pub fn used(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// Whether a frame is a table of the guest.
    pub fn is_table(&self, frame: u64) -> bool {
        self.by_frame.contains_key(&frame)
    }

    /// Whether processors may hold what the tables no longer say, since the last call.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Drops every shadow page; how many pages were mapped. Those that virtual CPUs walk from stay, without an entry.
    pub fn zap(&mut self, memory: &mut Memory) -> u64 {
        let mappings = self.mappings;
        let all: Vec<u32> = self.by_role.values().copied().collect();
        for page in all {
            self.drop_page(memory, page);
        }
        debug_assert_eq!(self.mappings, 0);
        self.stale = true;
        mappings
    }

    /// Whether clean pages are protected for a dirty log.
    pub const fn protects_clean_pages(&self) -> bool {
        self.logs
    }

    /// Begins to tell writes by faults: every page is clean.
    pub fn protect_clean_pages(&mut self, memory: &mut Memory) {
        self.logs = true;
        let frames: Vec<u64> = self.maps.keys().copied().collect();
        for frame in frames {
            self.clean(memory, frame);
        }
    }

    /// Ends it: pages become writable by faults.
    pub const fn stop_protecting(&mut self) {
        self.logs = false;
    }

    /// Makes a page clean: its next write is a fault.
    pub fn clean(&mut self, memory: &mut Memory, frame: u64) {
        self.forbid_writes(memory, frame);
    }

    /// Follows the writes to tables that memory has told of.
    pub fn follow_writes(&mut self, memory: &mut Memory) {
        for write in memory.take_watched_writes() {
            let pages: Vec<u32> = self.by_frame.get(&(write.address >> 12)).into_iter().flatten().copied().collect();
            for page in pages {
                self.follow_write(memory, page, write.address & 0xfff, write.length);
            }
        }
    }

    /// A write to the table that a shadow page was made from: the entries that it touched are dropped. What is written again and again
    /// without a use, or in other pieces than entries, is no table any more.
    fn follow_write(&mut self, memory: &mut Memory, number: u32, offset: u64, length: u64) {
        let Some(page) = &mut self.pages[number as usize] else { return };
        let Role { mode, level, quadrant, .. } = page.role;
        page.writes += 1;
        let bytes = mode.entry_bytes();
        let last = offset + length.max(1) - 1;
        let in_pieces = length < 4 || (offset ^ last) & !(bytes - 1) != 0;
        if in_pieces || page.writes >= FLOOD && page.roots == 0 {
            return self.drop_page(memory, number);
        }
        for index in entries_of(mode, level, quadrant, offset / bytes) {
            self.drop_entry(memory, Place::new(number, index));
        }
    }
}

/// The entries of a shadow page that are made from an entry of the guest's table. Under 32-bit paging a table of the guest has twice as many
/// entries as one of the processor's, and an entry of its directory covers twice as much.
fn entries_of(mode: Mode, level: u8, quadrant: u8, index: u64) -> Range<u64> {
    if mode.levels != 2 {
        return index..index + 1;
    }
    let per_page = if level == 1 { 512 } else { 256 };
    let Some(inside) = index.checked_sub(u64::from(quadrant) * per_page).filter(|inside| *inside < per_page) else { return 0..0 };
    if level == 1 { inside..inside + 1 } else { 2 * inside..2 * inside + 2 }
}
