//! Memory slots, and the nested page tables that map them.
//!
//! Modelled: guest-physical memory as a list of slots, each of them RAM or read-only; a page of a slot lies at the host-physical address
//! equal to its guest-physical one. Tables of four levels with the largest pages that fit, built in the hypervisor's own pages, dropped
//! whole by a zap, and filled again by faults. What no slot covers is the devices'.

mod tracking;

pub use tracking::{Armed, Tracking};

use memory::Memory;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The most slots a guest may have: each edge between two may cost two tables.
pub const MAXIMUM_SLOTS: usize = 64;

/// What the guest may do with a range of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Nothing: there is no memory there.
    Absent,
    /// Read and execute. A write goes to user space, as to a ROM.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// First guest-physical address.
    pub first: u64,
    /// First address behind it.
    pub end: u64,
    /// Writes go to user space.
    pub read_only: bool,
}

/// The slots were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The range is empty, wraps around, or does not begin and end at a page.
    #[error("{first:#x} to {end:#x} is not a range of whole pages")]
    NotPages {
        /// Its first address.
        first: u64,
        /// The first behind it.
        end: u64,
    },
    /// There is no RAM to back it.
    #[error("{first:#x} to {end:#x} is not all RAM")]
    NotRam {
        /// Its first address.
        first: u64,
        /// The first behind it.
        end: u64,
    },
    /// Too many.
    #[error("there can be no more than {MAXIMUM_SLOTS} memory slots")]
    TooMany,
}

/// All slots of a guest, in order of address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    slots: Vec<Slot>,
    ram: Vec<Slot>,
}

impl Slots {
    /// RAM of `size` bytes around the device hole.
    pub fn ram(size: u64) -> Self {
        let low = size.min(cpu::access::DEVICE_HOLE_START);
        let mut slots = vec![Slot { first: 0, end: low, read_only: false }];
        if size > low {
            let first = cpu::access::DEVICE_HOLE_END;
            slots.push(Slot { first, end: first + size - low, read_only: false });
        }
        Self { ram: slots.clone(), slots }
    }

    /// The slot of an address.
    pub fn at(&self, guest_physical: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| (slot.first..slot.end).contains(&guest_physical))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Whether a guest with so much RAM can have these slots, which may come from anywhere.
    pub(crate) fn is_possible(&self, ram_size: u64) -> bool {
        let inside = |slot: &Slot| self.ram.iter().any(|ram| ram.first <= slot.first && slot.end <= ram.end);
        let whole = |slot: &Slot| slot.first < slot.end && (slot.first | slot.end) & 0xfff == 0;
        let ordered = self.slots.windows(2).all(|pair| pair[0].end <= pair[1].first);
        self.ram == Self::ram(ram_size).ram
            && self.slots.len() <= MAXIMUM_SLOTS
            && ordered
            && self.slots.iter().all(|slot| whole(slot) && inside(slot))
    }

    /// The first address behind all RAM.
    pub fn end(&self) -> u64 {
        self.ram.last().map_or(0, |slot| slot.end)
    }

    /// Whether an address lies in RAM, whatever the guest may do with it.
    pub fn is_ram(&self, guest_physical: u64) -> bool {
        self.ram.iter().any(|slot| (slot.first..slot.end).contains(&guest_physical))
    }

    /// The ranges of RAM, in order of address.
    pub fn ram_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.ram.iter().map(|slot| slot.first..slot.end)
    }

    /// How many pages of RAM there are.
    pub fn ram_pages(&self) -> u64 {
        self.ram.iter().map(|slot| (slot.end - slot.first) >> 12).sum()
    }

    /// Changes the rights of a range.
    ///
    /// # Errors
    /// The range is not one of whole pages of RAM, or there would be too many slots.
    pub fn protect(&mut self, range: Range<u64>, rights: Rights) -> Result<(), SlotError> {
        let Range { start: first, end } = range;
        if first >= end || (first | end) & 0xfff != 0 {
            return Err(SlotError::NotPages { first, end });
        }
        if !self.ram.iter().any(|slot| slot.first <= first && end <= slot.end) {
            return Err(SlotError::NotRam { first, end });
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(self.slots.len() + 2);
        for slot in &self.slots {
            // What of the slot lies outside of the range, on either side.
            slots.extend((slot.first < first).then(|| Slot { end: slot.end.min(first), ..*slot }).filter(|left| left.first < left.end));
            slots.extend((slot.end > end).then(|| Slot { first: slot.first.max(end), ..*slot }).filter(|right| right.first < right.end));
        }
        if rights != Rights::Absent {
            slots.push(Slot { first, end, read_only: rights == Rights::ReadOnly });
        }
        slots.sort_by_key(|slot| slot.first);
        slots.dedup_by(|next, slot| {
            let joins = slot.end == next.first && slot.read_only == next.read_only;
            if joins {
                slot.end = next.end;
            }
            joins
        });
        if slots.len() > MAXIMUM_SLOTS {
            return Err(SlotError::TooMany);
        }
        self.slots = slots;
        Ok(())
    }
}

/// How a vendor writes an entry of its nested tables.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// An entry that refers to a table.
    pub table: fn(address: u64) -> u64,
    /// An entry that maps a page; `large` above the lowest level.
    pub page: fn(address: u64, large: bool, writable: bool) -> u64,
    /// The largest page, as the number of its address bits: 12, 21 or 30.
    pub largest: u32,
    /// The bit of an entry that allows writing.
    pub writable: u64,
    /// The bit of an entry that says that the page was written, where the processor sets it.
    pub dirty: u64,
    /// The bit of an entry above the lowest level that maps a page.
    pub large: u64,
}

/// The tables, in a range of pages that is theirs.
#[derive(Clone, Debug)]
pub struct NestedTables {
    format: Format,
    root: u64,
    next: u64,
    end: u64,
    mappings: u64,
    /// A page of the hypervisor's own that the guest-physical address space has as well, and keeps: guest-physical, host-physical.
    fixed: Option<(u64, u64)>,
    tracking: Tracking,
}

/// What a checkpoint keeps of the tables, beside the pages they lie in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NestedRecord {
    root: u64,
    next: u64,
    end: u64,
    mappings: u64,
    fixed: Option<(u64, u64)>,
    tracking: Tracking,
}

/// Shifts of the levels, from the top.
const LEVELS: [u32; 4] = [39, 30, 21, 12];

impl NestedTables {
    /// Pages that a guest with that much memory may need.
    pub fn pages(memory: u64) -> u64 {
        // With a dirty log every page is mapped by itself.
        (memory >> 21) + (memory >> 30) + 16 + 4 * MAXIMUM_SLOTS as u64
    }

    /// Empty tables in a range of host-physical pages.
    pub fn new(format: Format, pages: Range<u64>, fixed: Option<(u64, u64)>) -> Self {
        Self { format, root: pages.start, next: pages.start + 0x1000, end: pages.end, mappings: 0, fixed, tracking: Tracking::None }
    }

    /// What a checkpoint keeps.
    pub(crate) fn record(&self) -> NestedRecord {
        let Self { format: _, root, next, end, mappings, fixed, tracking } = self;
        NestedRecord { root: *root, next: *next, end: *end, mappings: *mappings, fixed: *fixed, tracking: *tracking }
    }

    /// Takes that up, on tables that were just made for the same guest.
    pub(crate) fn restore(&mut self, record: &NestedRecord) -> Result<(), &'static str> {
        let places = (record.root, record.end, record.fixed) == (self.root, self.end, self.fixed);
        if !places || record.next & 0xfff != 0 || !(self.root + 0x1000..=self.end).contains(&record.next) {
            return Err("nested tables at other places than those of such a guest");
        }
        if record.mappings > 1 << 40 {
            return Err("more mappings than there can be");
        }
        (self.next, self.mappings, self.tracking) = (record.next, record.mappings, record.tracking);
        Ok(())
    }

    /// Host-physical address of the top table.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many pages are mapped, whatever their size.
    pub fn mappings(&self) -> u64 {
        self.mappings
    }

    /// Removes every mapping; how many there were. The caller flushes what processors hold of them.
    pub fn zap(&mut self, memory: &mut Memory) -> u64 {
        let mut page = self.root;
        while page < self.next {
            // The hypervisor's pages are RAM behind the guest's.
            let _ = memory.write(page, &[0; 4096]);
            page += 0x1000;
        }
        self.next = self.root + 0x1000;
        self.map_fixed(memory);
        std::mem::take(&mut self.mappings)
    }

    /// Maps the page that is always there; it does not count as a mapping.
    pub fn map_fixed(&mut self, memory: &mut Memory) {
        let Some((address, page)) = self.fixed else { return };
        let mut table = self.root;
        for shift in &LEVELS[..3] {
            table = self.table_below(memory, table + (address >> shift & 0x1ff) * 8);
        }
        let _ = memory.write_u64(table + (address >> 12 & 0x1ff) * 8, (self.format.page)(page, false, true));
    }

    /// The table that an entry refers to, made if there is none.
    fn table_below(&mut self, memory: &mut Memory, place: u64) -> u64 {
        let entry = memory.read_u64(place).unwrap_or(0);
        if entry != 0 {
            return entry & 0x000f_ffff_ffff_f000;
        }
        let new = self.next;
        self.next += 0x1000;
        let _ = memory.write(new, &[0; 4096]);
        let _ = memory.write_u64(place, (self.format.table)(new));
        new
    }

    /// Maps the largest possible page of a slot around an address. Where the pages for tables are used up, everything else is dropped
    /// first, and the answer is `true`: the caller flushes.
    pub fn map(&mut self, memory: &mut Memory, slot: &Slot, guest_physical: u64) -> bool {
        if self.next + 3 * 0x1000 > self.end {
            self.zap(memory);
            self.map_page(memory, slot, guest_physical);
            return true;
        }
        self.map_page(memory, slot, guest_physical);
        false
    }

    /// Maps a whole slot.
    pub fn map_slot(&mut self, memory: &mut Memory, slot: &Slot) {
        let mut at = slot.first;
        while at < slot.end && self.next + 3 * 0x1000 <= self.end {
            at = self.map_page(memory, slot, at);
        }
    }

    /// Maps the page around an address and returns the first address behind it.
    fn map_page(&mut self, memory: &mut Memory, slot: &Slot, address: u64) -> u64 {
        let largest = if self.tracking == Tracking::None { self.format.largest } else { 12 };
        let fits = |shift: u32| {
            let first = address >> shift << shift;
            shift <= largest && first >= slot.first && first + (1 << shift) <= slot.end
        };
        let leaf = *LEVELS[1..].iter().find(|shift| fits(**shift)).unwrap_or(&12);
        let mut table = self.root;
        for shift in LEVELS {
            let place = table + (address >> shift & 0x1ff) * 8;
            let base = address >> shift << shift;
            if shift == leaf {
                let writable = !slot.read_only && self.tracking != Tracking::Protection;
                let entry = (self.format.page)(base, shift > 12, writable);
                if memory.read_u64(place) == Ok(0) {
                    self.mappings += 1;
                }
                let _ = memory.write_u64(place, entry);
                break;
            }
            table = self.table_below(memory, place);
        }
        (address >> leaf << leaf) + (1 << leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const FORMAT: Format = Format {
        table: |address| address | 7,
        page: |address, large, writable| address | 5 | u64::from(large) << 7 | u64::from(writable) << 1,
        largest: 21,
        writable: 2,
        dirty: 1 << 6,
        large: 1 << 7,
    };

    #[test]
    fn protecting_splits_and_joins_slots() {
        let mut slots = Slots::ram(16 << 20);
        slots.protect(0x3000..0x5000, Rights::ReadOnly).unwrap();
        slots.protect(0x4000..0x5000, Rights::Absent).unwrap();
        let seen: Vec<_> = slots.iter().map(|slot| (slot.first, slot.end, slot.read_only)).collect();
        assert_eq!(seen, [(0, 0x3000, false), (0x3000, 0x4000, true), (0x5000, 16 << 20, false)]);
        assert!(slots.at(0x4000).is_none());
        slots.protect(0x3000..0x5000, Rights::ReadWrite).unwrap();
        assert_eq!(slots, Slots::ram(16 << 20));
    }

    #[test]
    fn ranges_that_are_no_ram_are_refused() {
        let mut slots = Slots::ram(16 << 20);
        assert!(matches!(slots.protect(0..0x10, Rights::Absent), Err(SlotError::NotPages { .. })));
        assert!(matches!(slots.protect(0x100_0000..0x100_1000, Rights::ReadOnly), Err(SlotError::NotRam { .. })));
    }

    #[test]
    fn a_large_page_is_used_where_the_slot_holds_it_all() {
        let mut memory = Memory::new(32 << 20);
        let mut slots = Slots::ram(16 << 20);
        slots.protect(0x20_1000..0x20_2000, Rights::ReadOnly).unwrap();
        let mut tables = NestedTables::new(FORMAT, 16 << 20..17 << 20, None);
        for slot in slots.iter() {
            tables.map_slot(&mut memory, slot);
        }
        // Seven large pages, and 512 small ones where the read-only page lies.
        assert_eq!(tables.mappings(), 7 + 512);
        assert_eq!(tables.zap(&mut memory), 519);
        assert_eq!(memory.read_u64(tables.root()), Ok(0));
        assert!(!tables.map(&mut memory, slots.at(0x20_1000).unwrap(), 0x20_1000));
        assert_eq!(tables.mappings(), 1);
    }

    #[test]
    fn tables_that_run_out_of_pages_start_again() {
        let mut memory = Memory::new(32 << 20);
        let slots = Slots::ram(16 << 20);
        let mut tables = NestedTables::new(FORMAT, 16 << 20..(16 << 20) + 0x4000, None);
        assert!(tables.map(&mut memory, slots.at(0).unwrap(), 0) || tables.map(&mut memory, slots.at(0).unwrap(), 1 << 21));
        assert!(tables.mappings() >= 1);
    }
}
