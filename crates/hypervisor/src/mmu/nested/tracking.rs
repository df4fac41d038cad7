//! Which pages were written, as the nested tables tell it.
//!
//! Modelled: large mappings divided so that pages can be told apart; write permission taken away from a page until its next write
//! (`kvm_mmu_slot_remove_write_access`), or its dirty flag cleared so that the processor logs the next write again
//! (`kvm_mmu_slot_leaf_clear_dirty`). Whoever arms an entry drops what processors hold of it.

use super::{LEVELS, NestedTables, Slot};
use memory::Memory;
use serde::{Deserialize, Serialize};

/// How writes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracking {
    /// Not at all.
    #[default]
    None,
    /// A clean page may not be written: the next write is a fault.
    Protection,
    /// The dirty flag of a clean page is clear: the processor sets it, and logs the page.
    DirtyFlags,
    /// Not at all, but every page is mapped by itself, because its neighbours may be absent.
    Pages,
}

/// An entry that was armed, or disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Host-physical address of the entry.
    pub place: u64,
    /// What it was.
    pub old: u64,
    /// What it is.
    pub new: u64,
}

impl NestedTables {
    /// How writes are told now.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// The entry that maps an address, its place, and the bits of an address below its page.
    fn leaf(&self, memory: &Memory, guest_physical: u64) -> Option<(u64, u64, u32)> {
        let mut table = self.root;
        for shift in LEVELS {
            let place = table + (guest_physical >> shift & 0x1ff) * 8;
            let entry = memory.read_u64(place).unwrap_or(0);
            if entry == 0 {
                return None;
            }
            if shift == 12 || entry & self.format.large != 0 {
                return Some((place, entry, shift));
            }
            table = entry & 0x000f_ffff_ffff_f000;
        }
        None
    }

    /// Begins to tell writes in a slot: large mappings are divided, and every page is clean. `divided` hears of each large mapping: its first
    /// address, its entry, and its level in the words of the kernel (2 for 2 MiB, 3 for 1 GiB).
    pub fn track(&mut self, memory: &mut Memory, slot: &Slot, tracking: Tracking, divided: &mut dyn FnMut(u64, u64, u32)) {
        self.tracking = tracking;
        let mut at = slot.first;
        while at < slot.end {
            let Some((place, entry, shift)) = self.leaf(memory, at) else {
                at += 0x1000;
                continue;
            };
            if shift > 12 {
                divided(at >> shift << shift, entry, (shift - 12) / 9 + 1);
                self.divide(memory, place, entry, shift);
                continue;
            }
            self.arm(memory, place, entry);
            at += 0x1000;
        }
    }

    /// Begins it for mappings to come; the caller drops those that there are.
    pub fn begin_tracking(&mut self, tracking: Tracking) {
        self.tracking = tracking;
    }

    /// Ends it: what is mapped stays as it is, and new mappings are plain ones.
    pub fn stop_tracking(&mut self) {
        self.tracking = Tracking::None;
    }

    /// Replaces a large mapping by a table of the next size.
    fn divide(&mut self, memory: &mut Memory, place: u64, entry: u64, shift: u32) {
        self.mappings -= 1;
        if self.next >= self.end {
            // No page for a table: the mapping goes, and faults bring its pages back.
            let _ = memory.write_u64(place, 0);
            return;
        }
        let _ = memory.write_u64(place, 0);
        let table = self.table_below(memory, place);
        let below = shift - 9;
        let plain = if below == 12 { entry & !self.format.large } else { entry };
        for index in 0..512 {
            let _ = memory.write_u64(table + index * 8, plain + (index << below));
        }
        self.mappings += 512;
    }

    /// Arms an entry of the lowest level.
    fn arm(&self, memory: &mut Memory, place: u64, entry: u64) -> Armed {
        let new = match self.tracking {
            Tracking::None | Tracking::Pages => entry,
            Tracking::Protection => entry & !self.format.writable,
            Tracking::DirtyFlags => entry & !self.format.dirty,
        };
        if new != entry {
            let _ = memory.write_u64(place, new);
        }
        Armed { place, old: entry, new }
    }

    /// Makes a page clean again; `None` where it is not mapped.
    pub fn clean(&mut self, memory: &mut Memory, guest_physical: u64) -> Option<Armed> {
        let (place, entry, shift) = self.leaf(memory, guest_physical)?;
        (shift == 12).then(|| self.arm(memory, place, entry))
    }

    /// Lets a page be written that was protected; `None` where it is not mapped.
    pub fn allow_write(&mut self, memory: &mut Memory, guest_physical: u64) -> Option<Armed> {
        let (place, old, _) = self.leaf(memory, guest_physical)?;
        let new = old | self.format.writable;
        if new != old {
            let _ = memory.write_u64(place, new);
        }
        Some(Armed { place, old, new })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slots;
    use super::super::tests::FORMAT;
    use super::*;

    #[test]
    fn large_mappings_are_divided_and_clean() {
        let slots = Slots::ram(16 << 20);
        let slot = *slots.at(0).unwrap();
        for (tracking, bit) in [(Tracking::Protection, FORMAT.writable), (Tracking::DirtyFlags, FORMAT.dirty)] {
            let mut memory = Memory::new(32 << 20);
            let mut tables = NestedTables::new(FORMAT, 16 << 20..18 << 20, None);
            tables.map_slot(&mut memory, &slot);
            let (place, entry, _) = tables.leaf(&memory, 0x20_0000).unwrap();
            memory.write_u64(place, entry | FORMAT.dirty).unwrap();
            let mut divided = Vec::new();
            tables.track(&mut memory, &slot, tracking, &mut |address, _, level| divided.push((address, level)));
            assert_eq!(divided.len(), 8);
            assert_eq!(divided[1], (0x20_0000, 2));
            assert_eq!(tables.mappings(), 4096);
            for page in (0..16_u64 << 20).step_by(4096) {
                let (_, entry, shift) = tables.leaf(&memory, page).unwrap();
                assert_eq!((entry & 0x000f_ffff_ffff_f000, shift, entry & bit), (page, 12, 0), "{page:#x} {entry:#x}");
            }
        }
    }

    #[test]
    fn a_page_is_armed_again() {
        let slots = Slots::ram(16 << 20);
        let mut memory = Memory::new(32 << 20);
        let mut tables = NestedTables::new(FORMAT, 16 << 20..18 << 20, None);
        tables.track(&mut memory, slots.at(0).unwrap(), Tracking::Protection, &mut |_, _, _| panic!("nothing is mapped"));
        assert_eq!(tables.clean(&mut memory, 0x5000), None);
        tables.map(&mut memory, slots.at(0).unwrap(), 0x5123);
        assert_eq!(tables.mappings(), 1, "one small page");
        let allowed = tables.allow_write(&mut memory, 0x5123).unwrap();
        assert_eq!((allowed.old & FORMAT.writable, allowed.new & FORMAT.writable), (0, FORMAT.writable));
        let again = tables.clean(&mut memory, 0x5000).unwrap();
        assert_eq!((again.old, again.new), (allowed.new, allowed.old));
    }

    #[test]
    fn without_pages_for_tables_a_mapping_goes() {
        let slots = Slots::ram(16 << 20);
        let mut memory = Memory::new(32 << 20);
        let mut tables = NestedTables::new(FORMAT, 16 << 20..(16 << 20) + 0x5000, None);
        tables.map_slot(&mut memory, slots.at(0).unwrap());
        tables.track(&mut memory, slots.at(0).unwrap(), Tracking::DirtyFlags, &mut |_, _, _| ());
        assert!(tables.mappings() < 4096);
        assert!(tables.leaf(&memory, 0).is_some_and(|(_, _, shift)| shift == 12) && tables.leaf(&memory, 15 << 20).is_none());
    }
}
