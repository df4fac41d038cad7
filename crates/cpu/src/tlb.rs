//! The caches of translations: the architectural TLB, and in front of it the software TLB and the jump cache that handlers use inline.
//!
//! **Architectural TLB.** Entries stay until an instruction that the manuals name removes them (SDM vol 3, 4.10.4 "Invalidation of TLBs and
//! Paging-Structure Caches") or another entry needs the place, so that a missing invalidation shows. Tags: address space (VPID or ASID) and
//! PCID; global entries match any PCID. It is a direct-mapped table: what evicts what depends on addresses alone.
//!
//! **Software TLB.** Linear page -> host pointer, for the accesses of handlers. The low twelve bits of a tag hold a *context*: an even number
//! for supervisor and the odd one above it for user accesses. Changing CR3, a privilege level or anything else that translations depend on
//! just takes the next number; the table is cleared only when the numbers run out. An access that crosses a page never matches, because the
//! tag is computed from its last byte.
//!
//! **Pages with code.** A page that holds decoded code is never in the half for writes: each store to it has to be looked at. A third, small
//! table keeps where such a page is and which of its 64-byte lines hold code, so that looking takes a comparison.
//!
//! **Jump cache.** RIP and context -> decoded block; in the other half of the table, the block of one instruction.

use crate::insn::Insn;
use crate::state::Impossible;
use serde::{Deserialize, Serialize};

/// Entries of each half of the software TLB.
pub(crate) const SOFTWARE_ENTRIES: usize = 4096;
/// Entries of the table of pages with code that are written.
const CODE_PAGE_ENTRIES: usize = 16;
/// Entries of the jump cache.
pub(crate) const JUMP_ENTRIES: usize = 4096;
/// Entries of the architectural TLB for 4-KiB pages; a real one of 2006 to 2021 has 256 to 2048.
const SMALL_ENTRIES: usize = 2048;
/// Entries for 2-MiB, 4-MiB and 1-GiB pages.
const LARGE_ENTRIES: usize = 256;

/// An entry of the software TLB.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct SoftwareEntry {
    /// Linear page and context.
    pub tag: u64,
    /// What to add to the linear address to have the host's.
    pub addend: u64,
}

/// The number of no context in particular: nothing is ever kept under it. See [`Cpu::renew_context`](crate::state::Cpu::renew_context).
pub(crate) const LIMBO: u64 = 0xffe;

/// No page: its bytes are zero, so that an empty table is memory that nobody has touched ([`crate::state::place`]). No context has the number zero.
pub(crate) const EMPTY: SoftwareEntry = SoftwareEntry { tag: 0, addend: 0 };

/// A page with decoded code that may be written, each store looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodePageEntry {
    /// As in [`SoftwareEntry`].
    pub entry: SoftwareEntry,
    /// Physical address of the page.
    pub physical: u64,
    /// One bit for each 64 bytes of it that hold code.
    pub lines: u64,
    /// What `lines` is good for: see `CodeCache::layout`.
    pub layout: u64,
}

impl CodePageEntry {
    /// The host's address of a byte of the page.
    #[inline]
    pub(crate) fn host(&self, linear: u64) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(linear.wrapping_add(self.entry.addend) as usize)
    }
}

const NO_CODE_PAGE: CodePageEntry = CodePageEntry { entry: EMPTY, physical: 0, lines: 0, layout: 0 };

/// Both halves: a page in `write` may be read through it as well. And the pages with code that may be written.
///
/// An empty one in the first epoch consists of zero bytes.
#[repr(C)]
pub(crate) struct SoftwareTlb {
    pub read: [SoftwareEntry; SOFTWARE_ENTRIES],
    pub write: [SoftwareEntry; SOFTWARE_ENTRIES],
    code: [CodePageEntry; CODE_PAGE_ENTRIES],
    /// Something was put in: memory that nobody has touched is not cleared, which would touch it.
    filled: bool,
    last_context: u64,
    /// Changes when the entries of contexts that are not in force may be void: see [`crate::state::ContextMark`].
    pub epoch: u64,
}

impl SoftwareTlb {
    /// A context that no entry has, and whether the numbers began anew: whatever else is kept by context is then void.
    pub(crate) fn next_context(&mut self, user: bool) -> (u64, bool) {
        self.last_context += 2;
        let anew = self.last_context >= LIMBO;
        if anew {
            self.clear();
            // Zero marks empty entries.
            self.last_context = 2;
        }
        (self.last_context | user as u64, anew)
    }

    pub(crate) const fn slot(linear: u64) -> usize {
        (linear >> 12) as usize & (SOFTWARE_ENTRIES - 1)
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.read.fill(EMPTY);
            self.write.fill(EMPTY);
            self.code.fill(NO_CODE_PAGE);
        }
        self.epoch += 1;
    }

    /// Keeps a page for reads, and for writes if it may be written.
    pub(crate) fn set(&mut self, linear: u64, entry: SoftwareEntry, writable: bool) {
        debug_assert_ne!(entry.tag & 0xffe, LIMBO, "nothing is kept in limbo");
        self.filled = true;
        let slot = Self::slot(linear);
        self.read[slot] = entry;
        if writable {
            self.write[slot] = entry;
        }
    }

    const fn code_slot(linear: u64) -> usize {
        (linear >> 12) as usize & (CODE_PAGE_ENTRIES - 1)
    }

    /// The page with code that holds all `length` bytes of a store, if it is known in a context.
    #[inline]
    pub(crate) fn code_page(&self, linear: u64, length: u64, context: u64) -> Option<&CodePageEntry> {
        let found = &self.code[Self::code_slot(linear)];
        let last = linear.wrapping_add(length - 1);
        (last & !0xfff | context == found.entry.tag).then_some(found)
    }

    /// Keeps a page with code.
    pub(crate) fn set_code_page(&mut self, linear: u64, found: CodePageEntry) {
        debug_assert_ne!(found.entry.tag & 0xffe, LIMBO, "nothing is kept in limbo");
        self.filled = true;
        self.code[Self::code_slot(linear)] = found;
    }

    /// Removes one 4-KiB page in every context.
    pub(crate) fn forget(&mut self, linear: u64) {
        self.read[Self::slot(linear)] = EMPTY;
        self.write[Self::slot(linear)] = EMPTY;
        self.code[Self::code_slot(linear)] = NO_CODE_PAGE;
    }
}

/// An entry of the jump cache.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct JumpEntry {
    pub rip: u64,
    pub context: u64,
    pub entry: *const Insn,
}

/// Where code at an address was decoded to. An empty one consists of zero bytes.
#[repr(C)]
pub(crate) struct JumpCache {
    pub entries: [JumpEntry; JUMP_ENTRIES],
    /// As in [`SoftwareTlb`].
    filled: bool,
}

impl JumpCache {
    const EMPTY: JumpEntry = JumpEntry { rip: 0, context: 0, entry: std::ptr::null() };

    pub(crate) const fn slot(rip: u64) -> usize {
        (rip ^ rip >> 12) as usize & (JUMP_ENTRIES - 1)
    }

    /// Where code at an address is, as the context sees it.
    #[inline(always)]
    pub(crate) fn find(&self, rip: u64, context: u64) -> Option<*const Insn> {
        self.find_in(Self::slot(rip), rip, context)
    }

    #[inline(always)]
    fn find_in(&self, slot: usize, rip: u64, context: u64) -> Option<*const Insn> {
        let entry = &self.entries[slot];
        (entry.rip == rip && entry.context == context).then_some(entry.entry)
    }

    /// Where code at an address was in whatever context came last.
    pub(crate) fn find_any(&self, rip: u64) -> Option<*const Insn> {
        let entry = &self.entries[Self::slot(rip)];
        (entry.rip == rip && !entry.entry.is_null()).then_some(entry.entry)
    }

    pub(crate) fn remember(&mut self, rip: u64, context: u64, entry: *const Insn) {
        self.put(Self::slot(rip), JumpEntry { rip, context, entry });
    }

    fn put(&mut self, slot: usize, entry: JumpEntry) {
        debug_assert_ne!(entry.context & !1, LIMBO, "nothing is kept in limbo");
        self.filled = true;
        self.entries[slot] = entry;
    }

    /// Where a block of one instruction is: as far from an address's own place as can be, where no other look-up takes it for anything.
    const fn single_slot(rip: u64) -> usize {
        Self::slot(rip) ^ (JUMP_ENTRIES / 2)
    }

    /// Where the instruction at an address is as a block of its own, as the context sees it.
    pub(crate) fn find_single(&self, rip: u64, context: u64) -> Option<*const Insn> {
        self.find_in(Self::single_slot(rip), rip, context)
    }

    pub(crate) fn remember_single(&mut self, rip: u64, context: u64, entry: *const Insn) {
        self.put(Self::single_slot(rip), JumpEntry { rip, context, entry });
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.entries.fill(Self::EMPTY);
        }
    }

    /// Removes the entry of an address in whatever context.
    pub(crate) fn forget(&mut self, rip: u64) {
        self.entries[Self::slot(rip)] = Self::EMPTY;
    }
}

/// Where the page of the last instruction fetch was found in the architectural TLB.
///
/// A look-up of the TLB changes nothing, so one that would find the same entry again need not be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchPage {
    /// Linear page and context, as in [`SoftwareEntry`]. Whatever decides whether the fetch is allowed makes another context.
    pub tag: u64,
    /// The bits of a linear address that name a page of this size.
    pub mask: u64,
    /// [`Tlb::version`] after it was found.
    pub version: u64,
    /// Physical address of the page.
    pub physical: u64,
}

impl FetchPage {
    pub(crate) const NONE: Self = Self { tag: EMPTY.tag, mask: !0xfff, version: 0, physical: 0 };
}

/// A cached translation of one linear page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Translation {
    /// First linear address of the page.
    pub linear: u64,
    /// Physical address (of the host's memory, behind nested paging) of the page's first byte.
    pub physical: u64,
    /// Guest-physical address of the page's first byte; equal to `physical` without nested paging.
    pub guest_physical: u64,
    /// Bytes of the page: 4 KiB, 2 MiB, 4 MiB or 1 GiB; the smaller of the guest's and the nested page.
    pub bytes: u64,
    /// The R/W bits of all levels are set.
    pub writable: bool,
    /// The U/S bits of all levels are set.
    pub user: bool,
    /// No XD bit of any level is set.
    pub executable: bool,
    /// The protection key, bits 62:59 of the entry that maps the page; zero in modes without keys.
    pub key: u8,
    /// The D bit is set, so that a write needs no walk.
    pub dirty: bool,
    /// The G bit is set and CR4.PGE was.
    pub global: bool,
    /// Nested paging allows reads.
    pub nested_readable: bool,
    /// Nested paging allows writes without further ado.
    pub nested_writable: bool,
    /// Nested paging allows fetches.
    pub nested_executable: bool,
}

impl Translation {
    /// No page at all.
    pub(crate) const NONE: Self = Self {
        linear: 0,
        physical: 0,
        guest_physical: 0,
        bytes: 0,
        writable: false,
        user: false,
        executable: false,
        key: 0,
        dirty: false,
        global: false,
        nested_readable: false,
        nested_writable: false,
        nested_executable: false,
    };

    /// Whether whoever relied on `old` may rely on this one: the same page with no fewer rights.
    pub(crate) fn extends(&self, old: &Self) -> bool {
        let rights =
            |page: &Self| [page.writable, page.executable, page.dirty, page.nested_readable, page.nested_writable, page.nested_executable];
        let place = |page: &Self| (page.linear, page.physical, page.bytes, page.user, page.key);
        place(self) == place(old) && rights(self).iter().zip(rights(old)).all(|(new, old)| *new || !old)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Hash, Serialize, Deserialize)]
struct Slot {
    address_space: u32,
    pcid: u16,
    translation: Translation,
}

/// An entry of a table, or what is left of one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: Slot,
    /// False: the entry was removed, and only waits for a walk to bring it back as it was. Nobody else sees it.
    live: bool,
    /// The number of the walk that found it, or zero: see [`crate::paging::KnownWalks::last`].
    walk: u64,
}

/// Up to how many entries a table keeps what is left of those that are removed: sweeping takes the time of both.
const MOST_LEFT: usize = 8;

/// A direct-mapped table that is swept in the time its entries take, not its places.
#[derive(Clone, Debug)]
struct Table {
    /// For each place the number of its entry in `entries`, counted from one; zero: it is empty.
    places: Vec<u16>,
    /// The entries, in no order.
    entries: Vec<Entry>,
}

impl Table {
    fn new(places: usize) -> Self {
        Self { places: vec![0; places], entries: Vec::new() }
    }

    /// The place of a page. Address spaces are spread, because host and guest tend to use the same addresses.
    #[inline]
    fn place(&self, linear: u64, bytes: u64, address_space: u32) -> usize {
        let page = (linear >> bytes.trailing_zeros()) as usize;
        page.wrapping_add((address_space as usize).wrapping_mul(0x155)) & (self.places.len() - 1)
    }

    fn place_of(&self, slot: &Slot) -> usize {
        self.place(slot.translation.linear, slot.translation.bytes, slot.address_space)
    }

    /// Where in `entries` the one at the place of a page is.
    #[inline]
    fn number(&self, linear: u64, bytes: u64, address_space: u32) -> Option<usize> {
        usize::from(self.places[self.place(linear, bytes, address_space)]).checked_sub(1)
    }

    /// Where in `entries` the entry is that serves an address.
    #[inline]
    fn find(&self, linear: u64, bytes: u64, address_space: u32, pcid: u16) -> Option<usize> {
        let number = self.number(linear, bytes, address_space)?;
        let Entry { slot, live, .. } = &self.entries[number];
        let hit = *live
            && slot.address_space == address_space
            && linear & !(slot.translation.bytes - 1) == slot.translation.linear
            && (slot.pcid == pcid || slot.translation.global);
        hit.then_some(number)
    }

    #[inline]
    fn lookup(&self, linear: u64, bytes: u64, address_space: u32, pcid: u16) -> Option<&Translation> {
        self.find(linear, bytes, address_space, pcid).map(|number| &self.entries[number].slot.translation)
    }

    fn insert(&mut self, slot: Slot, walk: u64) -> Option<Translation> {
        let place = self.place_of(&slot);
        let entry = Entry { slot, live: true, walk };
        match self.places[place] {
            0 => {
                self.entries.push(entry);
                self.places[place] = self.entries.len() as u16;
                None
            }
            number => {
                let old = std::mem::replace(&mut self.entries[usize::from(number) - 1], entry);
                old.live.then_some(old.slot.translation)
            }
        }
    }

    /// Brings back an entry that was removed, if it is one that the walk of a number found. Whether it did.
    #[inline]
    fn bring_back(&mut self, page: &Translation, address_space: u32, pcid: u16, walk: u64) -> bool {
        let Some(number) = self.number(page.linear, page.bytes, address_space) else { return false };
        let Entry { slot, live, walk: found } = &mut self.entries[number];
        // Walks of one number came to the same.
        let same = !*live && *found == walk && slot.address_space == address_space && slot.pcid == pcid;
        debug_assert!(!same || slot.translation == *page);
        *live |= same;
        same
    }

    /// Removes an entry; the last takes its number.
    fn take(&mut self, number: usize) -> Slot {
        let slot = self.entries.swap_remove(number).slot;
        let place = self.place_of(&slot);
        self.places[place] = 0;
        if let Some(moved) = self.entries.get(number) {
            let place = self.place_of(&moved.slot);
            self.places[place] = number as u16 + 1;
        }
        slot
    }

    #[inline]
    fn retain(&mut self, keep: impl Fn(&Slot) -> bool) {
        if self.entries.len() <= MOST_LEFT {
            self.entries.iter_mut().for_each(|entry| entry.live &= keep(&entry.slot));
        } else {
            self.retain_anew(keep);
        }
    }

    #[inline(never)]
    fn retain_anew(&mut self, keep: impl Fn(&Slot) -> bool) {
        let mut kept = 0;
        for number in 0..self.entries.len() {
            let entry = &self.entries[number];
            let (stays, place) = (entry.live && keep(&entry.slot), self.place_of(&entry.slot));
            if stays {
                self.entries.swap(kept, number);
                kept += 1;
            }
            self.places[place] = if stays { kept as u16 } else { 0 };
        }
        self.entries.truncate(kept);
    }

    /// Removes the entry that serves an address. Returns the bytes of its page.
    fn remove(&mut self, linear: u64, bytes: u64, address_space: u32, pcid: u16) -> u64 {
        let found = self.find(linear, bytes, address_space, pcid);
        found.map_or(0, |number| self.take(number).translation.bytes)
    }

    /// What the entries hold, in no order.
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.entries.iter().filter(|entry| entry.live).map(|entry| &entry.slot)
    }

    /// What the entries hold, in order of place.
    fn in_order(&self) -> impl Iterator<Item = &Slot> {
        let entries = self.places.iter().filter_map(|number| self.entries.get(usize::from(*number).checked_sub(1)?));
        entries.filter(|entry| entry.live).map(|entry| &entry.slot)
    }
}

/// What a TLB holds: address space, PCID and translation of each entry, in order of place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TlbRecord(Vec<Slot>);

/// Sizes of pages that the table for large pages holds.
const LARGE_PAGES: [u64; 3] = [1 << 21, 1 << 22, 1 << 30];

/// The architectural TLB of one processor.
#[derive(Clone, Debug)]
pub struct Tlb {
    small: Table,
    large: Table,
    /// The sizes of which `large` may hold pages, added up.
    sizes: u64,
    /// See [`Tlb::version`].
    version: u64,
    /// See [`Tlb::removals`].
    removals: u64,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self { small: Table::new(SMALL_ENTRIES), large: Table::new(LARGE_ENTRIES), sizes: 0, version: 0, removals: 0 }
    }

    /// A number that follows from what is cached, for whoever compares states.
    pub(crate) fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        // In whatever order they came.
        self.small.slots().chain(self.large.slots()).fold(0, |sum: u64, slot| {
            let mut hasher = DefaultHasher::new();
            slot.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    }

    /// The translation of an address, if one is cached.
    pub fn lookup(&self, linear: u64, address_space: u32, pcid: u16) -> Option<&Translation> {
        self.small.lookup(linear, 4096, address_space, pcid).or_else(|| {
            let mut sizes = LARGE_PAGES.into_iter().filter(|bytes| self.sizes & bytes != 0);
            sizes.find_map(|bytes| self.large.lookup(linear, bytes, address_space, pcid))
        })
    }

    /// Another number whenever an entry may have come or gone: while it stands, what was found once is found again.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Another number whenever an entry may have gone: while it stands, whatever was inserted is there.
    #[inline]
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    /// Caches a translation. Returns the one, of whatever address space, that had to make room for it.
    pub fn insert(&mut self, translation: Translation, address_space: u32, pcid: u16) -> Option<Translation> {
        self.insert_walked(translation, address_space, pcid, 0)
    }

    /// Caches a translation that the walk of a number came to.
    #[inline]
    pub(crate) fn insert_walked(&mut self, translation: Translation, address_space: u32, pcid: u16, walk: u64) -> Option<Translation> {
        self.version += 1;
        let slot = Slot { address_space, pcid, translation };
        let displaced = if translation.bytes == 4096 {
            self.small.insert(slot, walk)
        } else {
            self.sizes |= translation.bytes;
            self.large.insert(slot, walk)
        };
        self.removals += u64::from(displaced.is_some());
        displaced
    }

    /// Caches a translation again that the walk of a number came to, if what it was is still here: [`Tlb::insert_walked`], for less. Whether it did.
    #[inline]
    pub(crate) fn bring_back(&mut self, page: &Translation, address_space: u32, pcid: u16, walk: u64) -> bool {
        let table = if page.bytes == 4096 { &mut self.small } else { &mut self.large };
        let back = walk != 0 && table.bring_back(page, address_space, pcid, walk);
        self.version += u64::from(back);
        back
    }

    /// What it holds.
    pub(crate) fn record(&self) -> TlbRecord {
        TlbRecord(self.small.in_order().chain(self.large.in_order()).copied().collect())
    }

    /// Takes up what a record holds.
    pub(crate) fn restore(&mut self, record: &TlbRecord) -> Result<(), Impossible> {
        self.flush_all();
        for slot in &record.0 {
            let page = &slot.translation;
            let sizes = page.bytes == 4096 || LARGE_PAGES.contains(&page.bytes);
            let aligned = sizes && (page.linear | page.physical | page.guest_physical) & (page.bytes - 1) == 0;
            if !aligned || (page.physical | page.guest_physical) >> 52 != 0 || page.key > 15 {
                return Err(Impossible(format!(
                    "an entry of the TLB for {:#x}, {:#x} bytes at {:#x}",
                    page.linear, page.bytes, page.physical
                )));
            }
            self.insert(*page, slot.address_space, slot.pcid);
        }
        Ok(())
    }

    #[inline]
    fn retain(&mut self, keep: impl Fn(&Slot) -> bool) {
        self.version += 1;
        self.removals += 1;
        self.small.retain(&keep);
        self.large.retain(&keep);
        if self.large.entries.is_empty() {
            self.sizes = 0;
        }
    }

    /// Removes everything.
    pub fn flush_all(&mut self) {
        self.retain(|_| false);
    }

    /// Removes all entries of an address space (VPID or ASID), global ones included.
    pub fn flush_address_space(&mut self, address_space: u32) {
        self.retain(|slot| slot.address_space != address_space);
    }

    /// Removes the entries of one PCID that are not global, as a write of CR3 does.
    pub fn flush_pcid(&mut self, address_space: u32, pcid: u16) {
        self.retain(|slot| slot.address_space != address_space || slot.pcid != pcid || slot.translation.global);
    }

    /// Removes the entries of an address space that are not global, whatever their PCID.
    pub fn flush_non_global(&mut self, address_space: u32) {
        self.retain(|slot| slot.address_space != address_space || slot.translation.global);
    }

    /// Removes the entries of an address space for one linear address, whatever their PCID, as INVVPID and INVLPGA do.
    pub fn flush_linear(&mut self, linear: u64, address_space: u32) {
        self.retain(|slot| slot.address_space != address_space || linear & !(slot.translation.bytes - 1) != slot.translation.linear);
    }

    /// Removes the entries for one linear address, global ones included, as INVLPG does. Returns the largest page removed, in bytes.
    pub fn flush_page(&mut self, linear: u64, address_space: u32, pcid: u16) -> u64 {
        self.version += 1;
        self.removals += 1;
        let small = self.small.remove(linear, 4096, address_space, pcid);
        let large = LARGE_PAGES.map(|bytes| self.large.remove(linear, bytes, address_space, pcid));
        large.into_iter().fold(small, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(linear: u64, bytes: u64, global: bool) -> Translation {
        Translation {
            linear,
            physical: linear + 0x10_0000,
            guest_physical: linear + 0x10_0000,
            bytes,
            writable: true,
            user: true,
            executable: true,
            key: 0,
            dirty: true,
            global,
            nested_readable: true,
            nested_writable: true,
            nested_executable: true,
        }
    }

    #[test]
    fn an_entry_matches_its_address_space_and_pcid_only() {
        let mut tlb = Tlb::new();
        tlb.insert(page(0x5000, 4096, false), 1, 7);
        assert!(tlb.lookup(0x5fff, 1, 7).is_some());
        assert!(tlb.lookup(0x5fff, 1, 8).is_none() && tlb.lookup(0x5fff, 2, 7).is_none() && tlb.lookup(0x6000, 1, 7).is_none());
    }

    #[test]
    fn a_write_of_cr3_keeps_global_entries_and_other_pcids() {
        let mut tlb = Tlb::new();
        tlb.insert(page(0x1000, 4096, true), 0, 1);
        tlb.insert(page(0x2000, 4096, false), 0, 1);
        tlb.insert(page(0x20_0000, 1 << 21, false), 0, 2);
        tlb.flush_pcid(0, 1);
        assert!(tlb.lookup(0x1000, 0, 9).is_some(), "global entries match any PCID");
        assert!(tlb.lookup(0x2000, 0, 1).is_none());
        assert!(tlb.lookup(0x3f_ffff, 0, 2).is_some());
    }

    #[test]
    fn invalidating_a_page_removes_a_large_one_that_holds_it() {
        let mut tlb = Tlb::new();
        tlb.insert(page(0x4000_0000, 1 << 30, true), 0, 0);
        assert_eq!(tlb.flush_page(0x5234_5678, 0, 0), 1 << 30);
        assert!(tlb.lookup(0x4000_0000, 0, 0).is_none());
    }

    #[test]
    fn contexts_differ_until_the_table_is_cleared() {
        let mut cpu = crate::state::Cpu::new(&models::ZEN3, 0, 1, None);
        let tlb = &mut cpu.software_tlb;
        let first = tlb.next_context(false).0;
        tlb.set(0, SoftwareEntry { tag: first, addend: 1 }, false);
        let mut seen = vec![first];
        while tlb.read[0].tag != EMPTY.tag {
            let next = tlb.next_context(true).0;
            assert!(next & 1 == 1 && (3..0x1000).contains(&next));
            seen.push(next);
        }
        assert!(seen.len() > 2000);
    }

    #[test]
    fn a_table_finds_after_removals_what_it_holds_and_nothing_else() {
        let mut tlb = Tlb::new();
        let pages: Vec<u64> = (0..300).map(|number| number * 0x7000).collect();
        pages.iter().for_each(|linear| assert_eq!(tlb.insert(page(*linear, 4096, false), linear.count_ones() % 3, 0), None));
        tlb.flush_address_space(1);
        for linear in pages.iter().filter(|linear| linear.is_multiple_of(5)) {
            tlb.flush_page(*linear, linear.count_ones() % 3, 0);
        }
        let stays = |linear: u64| linear.count_ones() % 3 != 1 && !linear.is_multiple_of(5);
        for linear in &pages {
            let found = tlb.lookup(*linear, linear.count_ones() % 3, 0).map(|page| page.linear);
            assert_eq!(found, stays(*linear).then_some(*linear));
        }
        assert_eq!(tlb.record().0.len(), pages.iter().filter(|linear| stays(**linear)).count());
        let mut again = Tlb::new();
        again.restore(&tlb.record()).expect("a record of its own");
        assert!(again.record() == tlb.record() && again.fingerprint() == tlb.fingerprint());
    }
}
