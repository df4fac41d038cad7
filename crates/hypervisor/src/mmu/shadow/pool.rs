//! Shadow pages: named, found, linked with each other, dropped and recycled.

use super::ShadowTables;
use super::path::{KEY, Mode, Rights};
use isa::paging::{ACCESSED, ADDRESS, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE};
use memory::Memory;
use serde::{Deserialize, Serialize};

/// What a shadow page stands for; two that are equal are one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// The guest's table, or, of a direct page, the first frame that it maps.
    pub frame: u64,
    /// 1 for a page whose entries map pages of 4 KiB, up to 4.
    pub level: u8,
    /// Which part of the table, under 32-bit paging.
    pub quadrant: u8,
    /// It is made from no table: it divides a large page of the guest, or the guest does not page.
    pub direct: bool,
    /// The rights that the entries above leave.
    pub rights: Rights,
    /// The paging mode.
    pub mode: Mode,
}

/// A shadow page.
#[derive(Clone, Debug)]
pub(super) struct ShadowPage {
    pub role: Role,
    /// The entries that refer to it.
    pub parents: Vec<Place>,
    /// Virtual CPUs that walk from it.
    pub roots: u32,
    /// Writes to its table since it was last used.
    pub writes: u32,
    /// When it was last found.
    pub age: u64,
}

/// An entry of a shadow page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    pub fn new(page: u32, index: u64) -> Self {
        Self(page << 9 | (index & 0x1ff) as u32)
    }

    pub const fn page(self) -> u32 {
        self.0 >> 9
    }
}

/// An entry that refers to a table: the rights are all in the lowest entry.
const LINK: u64 = PRESENT | WRITABLE | USER | ACCESSED;
/// What every entry that maps a page has: the guest's own entry holds the flags that the guest sees.
pub(super) const LEAF: u64 = PRESENT | ACCESSED | DIRTY;
/// Entries of a page.
pub(super) const ENTRIES: u64 = 512;
/// Shadow pages that one fault may need.
const RESERVE: usize = 4;

impl ShadowTables {
    /// Host-physical address of a page of the pool.
    pub(super) fn address(&self, page: u32) -> u64 {
        self.first + (u64::from(page) << 12)
    }

    fn place_address(&self, place: Place) -> u64 {
        self.first + (u64::from(place.0) << 3)
    }

    pub(super) fn entry(&self, memory: &Memory, place: Place) -> u64 {
        memory.read_u64(self.place_address(place)).unwrap_or(0)
    }

    pub(super) fn set_entry(&self, memory: &mut Memory, place: Place, entry: u64) {
        let written = memory.write_u64(self.place_address(place), entry);
        debug_assert!(written.is_ok(), "the pool is in memory");
    }

    /// The shadow page that an entry refers to.
    pub(super) fn child(&self, entry: u64) -> Option<u32> {
        let number = (entry & ADDRESS).checked_sub(self.first).filter(|_| entry != 0)? >> 12;
        (number < self.pages.len() as u64).then_some(number as u32)
    }

    /// Makes sure that a fault will not run out of pages in the middle of its work: the oldest that nobody walks from make room.
    pub(super) fn make_room(&mut self, memory: &mut Memory) {
        while self.free.len() < RESERVE {
            let page = |number: u32| self.pages[number as usize].as_ref();
            let oldest = self.by_age.values().copied().find(|number| page(*number).is_some_and(|page| page.roots == 0));
            let Some(oldest) = oldest else { return };
            self.drop_page(memory, oldest);
        }
    }

    /// The page of a role, an empty one where there was none; `None` where the pool has no room.
    pub(super) fn page(&mut self, memory: &mut Memory, role: Role) -> Option<u32> {
        self.age += 1;
        if let Some(&found) = self.by_role.get(&role) {
            if let Some(page) = &mut self.pages[found as usize] {
                self.by_age.remove(&page.age);
                page.age = self.age;
            }
            self.by_age.insert(self.age, found);
            return Some(found);
        }
        let new = self.free.pop()?;
        let cleared = memory.write(self.address(new), &[0; 4096]);
        debug_assert!(cleared.is_ok(), "the pool is in memory");
        self.pages[new as usize] = Some(ShadowPage { role, parents: Vec::new(), roots: 0, writes: 0, age: self.age });
        self.by_role.insert(role, new);
        self.by_age.insert(self.age, new);
        if !role.direct {
            self.by_frame.entry(role.frame).or_default().insert(new);
            self.protect(memory, role.frame);
        }
        Some(new)
    }

    /// A frame is a table now: whoever can write it shall not.
    fn protect(&mut self, memory: &mut Memory, frame: u64) {
        memory.watch(frame);
        self.forbid_writes(memory, frame);
    }

    /// Takes the right to write away from every entry that maps a frame.
    pub(super) fn forbid_writes(&mut self, memory: &mut Memory, frame: u64) {
        for place in self.maps.get(&frame).into_iter().flatten() {
            let entry = self.entry(memory, *place);
            if entry & WRITABLE != 0 {
                self.set_entry(memory, *place, entry & !WRITABLE);
                self.stale = true;
            }
        }
    }

    /// Makes an entry refer to a page.
    pub(super) fn link(&mut self, memory: &mut Memory, place: Place, child: u32) {
        self.drop_entry(memory, place);
        self.set_entry(memory, place, self.address(child) | LINK);
        if let Some(page) = &mut self.pages[child as usize] {
            page.parents.push(place);
        }
    }

    /// Makes an entry of a lowest page map a frame.
    pub(super) fn map(&mut self, memory: &mut Memory, place: Place, frame: u64, entry: u64) {
        let old = self.entry(memory, place);
        if old != 0 && (old & ADDRESS) >> 12 == frame {
            // Other rights to the same frame: what was wider must not stand in any processor.
            let lost = old & !entry & (WRITABLE | USER) | entry & !old & NO_EXECUTE | (old ^ entry) & KEY;
            self.stale |= lost != 0;
        } else {
            self.drop_entry(memory, place);
            self.maps.entry(frame).or_default().insert(place);
            self.mappings += 1;
        }
        self.set_entry(memory, place, entry);
    }

    /// Empties an entry.
    pub(super) fn drop_entry(&mut self, memory: &mut Memory, place: Place) {
        let entry = self.entry(memory, place);
        if entry == 0 {
            return;
        }
        self.set_entry(memory, place, 0);
        self.stale = true;
        let level = self.pages[place.page() as usize].as_ref().map_or(0, |page| page.role.level);
        if level > 1 {
            if let Some(page) = self.child(entry).and_then(|child| self.pages[child as usize].as_mut()) {
                page.parents.retain(|parent| *parent != place);
            }
            return;
        }
        let frame = (entry & ADDRESS) >> 12;
        self.mappings -= 1;
        if let Some(places) = self.maps.get_mut(&frame) {
            places.remove(&place);
            if places.is_empty() {
                self.maps.remove(&frame);
            }
        }
    }

    /// Drops a shadow page with all its entries, and the entries that refer to it. One that a virtual CPU walks from stays, empty.
    pub(super) fn drop_page(&mut self, memory: &mut Memory, number: u32) {
        let mut entries = [0; 4096];
        let _ = memory.read(self.address(number), &mut entries);
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            if entry != [0; 8] {
                self.drop_entry(memory, Place::new(number, index as u64));
            }
        }
        let Some(page) = &mut self.pages[number as usize] else { return };
        page.writes = 0;
        if page.roots > 0 {
            return;
        }
        let (role, age) = (page.role, page.age);
        for parent in std::mem::take(&mut page.parents) {
            self.set_entry(memory, parent, 0);
            self.stale = true;
        }
        self.pages[number as usize] = None;
        self.free.push(number);
        self.by_role.remove(&role);
        self.by_age.remove(&age);
        if !role.direct
            && let Some(pages) = self.by_frame.get_mut(&role.frame)
        {
            pages.remove(&number);
            if pages.is_empty() {
                self.by_frame.remove(&role.frame);
                memory.unwatch(role.frame);
            }
        }
    }
}
