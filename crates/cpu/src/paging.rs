//! Translation of linear addresses.
//!
//! What is modelled: 32-bit paging with 4-MiB pages and PSE-36, PAE paging, 4-level paging with 2-MiB and 1-GiB pages; rights with CR0.WP,
//! SMEP, SMAP and NX; accessed and dirty flags; PCIDs and global pages; the TLB, which keeps an entry until software removes it, but never
//! faults because of a stale one (SDM vol 3, 4.10.4.3 "Optional Invalidation"); nested paging of every guest-physical address by the
//! silicon; protection keys of user pages. What is not: 5-level paging, paging-structure caches.

use crate::access::Privilege;
use crate::extension::{GuestPage, NestedAccess, NestedPage};
use crate::state::Cpu;
use crate::tlb::Translation;
use crate::trap::{Access, Exception, Exit, Outcome, Trap};
use isa::cpuid::Feature;
use isa::exception::PageFaultCode;
use isa::paging::{ACCESSED, ADDRESS, DIRTY, GLOBAL, NO_EXECUTE, PAGE_BYTES, PAGE_SIZE, PRESENT, PagingMode, USER, WRITABLE};
use models::Vendor;

mod known;

pub(crate) use known::KnownWalks;
use known::Trail;

/// The tag in place of a PCID of translations made without paging (behind nested paging): never equal to one.
const UNPAGED: u16 = 0x1000;

/// Bits of a PAE page-directory-pointer-table entry that are reserved below the address. SDM vol 3, Table 4-8.
const PDPTE_RESERVED: u64 = 0x1e6;

/// What a translation is for.
#[derive(Clone, Copy)]
struct Request {
    linear: u64,
    access: Access,
    privilege: Privilege,
}

impl Request {
    const fn is_user(&self) -> bool {
        matches!(self.privilege, Privilege::User)
    }

    fn nested(&self, access: Access, table_walk: bool) -> NestedAccess {
        NestedAccess { access, table_walk, user: self.is_user(), linear: Some(self.linear), guest: GuestPage::UNPAGED }
    }
}

/// The formats of the entries of a paging mode, as the walk needs them.
#[derive(Clone, Copy)]
struct Formats {
    /// Bytes of an entry.
    entry_bytes: u64,
    /// Reserved bits of an entry that refers to a table, or of a 4-KiB page's.
    reserved: u64,
    /// Reserved bits of a 4-MiB page's entry.
    reserved_large: u64,
    /// Reserved bits of an entry of the top level of 4-level paging.
    reserved_top: u64,
    /// Bit 7 may map a page of 2 or 4 MiB.
    large: bool,
    /// Bit 7 may map a page of 1 GiB; else it is reserved there.
    gigabytes: bool,
}

/// A level of a paging mode.
#[derive(Clone, Copy)]
struct Level {
    /// Bit 7 may map a page.
    maps_pages: bool,
    /// Reserved bits of an entry that refers to a table, or of a 4-KiB page's.
    reserved: u64,
    /// Reserved bits of an entry that maps a large page.
    reserved_large: u64,
}

impl Formats {
    /// The level whose index begins at a bit of the linear address.
    #[inline(always)]
    fn level(&self, shift: u32) -> Level {
        let reserved = self.reserved;
        match shift {
            39 => Level { maps_pages: false, reserved: self.reserved_top, reserved_large: 0 },
            30 => {
                let size = if self.gigabytes { 0 } else { PAGE_SIZE };
                Level { maps_pages: self.gigabytes, reserved: reserved | size, reserved_large: reserved | ((1 << 30) - 1) & !0x1fff }
            }
            22 => Level { maps_pages: self.large, reserved, reserved_large: self.reserved_large },
            21 => Level { maps_pages: true, reserved, reserved_large: reserved | ((1 << 21) - 1) & !0x1fff },
            _ => Level { maps_pages: false, reserved, reserved_large: 0 },
        }
    }
}

/// The levels of a paging mode from the top: the first bit of the linear address that indexes the table, which is also the logarithm of the
/// size of a page mapped there, and the width of the index.
const fn levels(mode: PagingMode) -> &'static [(u32, u32)] {
    match mode {
        PagingMode::None => &[],
        PagingMode::Bits32 => &[(22, 10), (12, 10)],
        PagingMode::Pae => &[(21, 9), (12, 9)],
        PagingMode::Level4 => &[(39, 9), (30, 9), (21, 9), (12, 9)],
    }
}

/// Rights gathered on the way down.
#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
    /// The protection key of the page.
    key: u8,
}

impl Cpu {
    /// The paging mode in force. SDM vol 3, 4.1.1 "Four Paging Modes".
    pub fn paging_mode(&self) -> PagingMode {
        match (self.cr0.pg(), self.cr4.pae(), self.efer.lma()) {
            (false, ..) => PagingMode::None,
            (true, false, _) => PagingMode::Bits32,
            (true, true, false) => PagingMode::Pae,
            (true, true, true) => PagingMode::Level4,
        }
    }

    /// The PCID that tags the TLB's entries now.
    pub fn pcid(&self) -> u16 {
        match (self.cr0.pg(), self.cr4.pcide()) {
            (false, _) => UNPAGED,
            (true, true) => (self.cr3 & isa::control::cr3::PCID) as u16,
            (true, false) => 0,
        }
    }

    /// Bits at and above the processor's physical-address width, below bit 52.
    fn beyond_physical(&self) -> u64 {
        ADDRESS & !((1 << self.model.physical_address_bits) - 1)
    }

    /// The entry of the TLB for an access that it serves as it stands, without a walk.
    #[inline]
    pub(crate) fn cached(&self, linear: u64, access: Access, privilege: Privilege) -> Option<&Translation> {
        let found = self.tlb.lookup(linear, self.address_space, self.pcid())?;
        self.serves(found, Request { linear, access, privilege }).then_some(found)
    }

    /// Whether an entry of the TLB serves an access without a walk.
    #[inline]
    fn serves(&self, found: &Translation, request: Request) -> bool {
        let complete = match request.access {
            Access::Read => found.nested_readable,
            Access::Write => found.dirty && found.nested_writable,
            Access::Fetch => found.nested_executable,
        };
        complete && self.allows(rights_of(found), request)
    }

    /// Translates a linear address for an access, through the TLB or by a walk; the fault is #PF, or the silicon's.
    pub fn translate(&mut self, linear: u64, access: Access, privilege: Privilege) -> Outcome<Translation> {
        if self.cr0.pg() || self.nested_paging {
            let request = Request { linear, access, privilege };
            match self.tlb.lookup(linear, self.address_space, self.pcid()) {
                Some(&found) if self.serves(&found, request) => {
                    self.note_found(&found);
                    return Ok(found);
                }
                None => self.walk_missing(request)?,
                Some(&found) => self.walk_insufficient(request, found)?,
            }
            return Ok(self.walked);
        }
        Ok(identity(linear & !(PAGE_BYTES - 1)))
    }

    /// Walks for an address that the TLB has an entry of, which does not serve.
    #[inline(never)]
    fn walk_insufficient(&mut self, request: Request, old: Translation) -> Outcome {
        // The walk is to find whether it still holds.
        let largest = self.tlb.flush_page(request.linear, self.address_space, self.pcid());
        if largest > old.bytes {
            self.lost_page(request.linear, largest, old.physical);
        }
        let walked = self.walk_or_repeat(request);
        // SDM vol 3, 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches": a page fault leaves no entry for its address.
        if walked.is_err() || !self.walked.extends(&old) {
            self.lost_page(old.linear, old.bytes, old.physical);
        }
        walked?;
        self.keep_walked();
        Ok(())
    }

    /// Walks for an address that the TLB has no entry of.
    fn walk_missing(&mut self, request: Request) -> Outcome {
        self.walk_or_repeat(request)?;
        self.keep_walked();
        Ok(())
    }

    /// A walk into `walked`.
    #[inline]
    fn walk_or_repeat(&mut self, request: Request) -> Outcome {
        let mode = self.paging_mode();
        if !self.buffers_stores() && self.repeat_walk(mode, request) {
            debug_assert!(self.walk_agrees(mode, request), "a known walk is what a walk finds");
            return Ok(());
        }
        self.walk_nested(mode, request)
    }

    /// Puts `walked` into the TLB.
    #[inline]
    pub(crate) fn keep_walked(&mut self) {
        if let Some(displaced) = self.tlb.insert_walked(self.walked, self.address_space, self.pcid(), self.known_walks.last()) {
            self.lost_page(displaced.linear, displaced.bytes, displaced.physical);
        }
        self.note_walk();
    }

    /// The TLB has lost an entry by itself: nothing that the engine keeps in front of it may outlive it, or what an access costs would
    /// depend on what the host happens to keep.
    fn lost_page(&mut self, linear: u64, bytes: u64, physical: u64) {
        let frame = physical >> 12;
        if bytes == PAGE_BYTES && !(self.is_ram(physical) && self.environment().memory.has_code(frame)) {
            return self.software_tlb.forget(linear);
        }
        // Decoded code is found by linear address, and pieces of larger pages are spread over the table: every context is void.
        self.software_tlb.epoch += 1;
        self.context_changed();
        // The present instruction may yet keep something that it found before.
        self.contexts.note_more();
    }

    /// A walk made in full.
    #[inline(never)]
    fn walk_nested(&mut self, mode: PagingMode, request: Request) -> Outcome {
        let linear = request.linear;
        let mut trail = Trail::default();
        let (page, nested) = self.walk(mode, request, &mut trail)?;
        let bytes = page.bytes.min(nested.bytes);
        let inside = linear & (bytes - 1);
        self.walked = Translation {
            linear: linear - inside,
            physical: nested.physical - inside,
            guest_physical: page.guest_physical + (linear & (page.bytes - 1)) - inside,
            bytes,
            nested_readable: nested.readable,
            nested_writable: nested.writable,
            nested_executable: nested.executable,
            ..page
        };
        self.keep_walk(mode, request, &trail);
        Ok(())
    }

    /// Whether a walk made in full comes to the same end.
    fn walk_agrees(&mut self, mode: PagingMode, request: Request) -> bool {
        let (budget, mut trail) = (self.budget, Trail::default());
        let walked = self.walk(mode, request, &mut trail);
        self.budget = budget;
        !trail.is_unclean() && walked.is_ok_and(|(walked, _)| Translation { linear: self.walked.linear, ..walked } == self.walked)
    }

    /// Whether a fetch by the program is served by a page, and a walk for it comes to that page.
    pub(crate) fn fetch_agrees(&mut self, linear: u64, page: Translation) -> bool {
        let request = Request { linear, access: Access::Fetch, privilege: self.privilege() };
        self.walked = page;
        self.serves(&page, request) && self.walk_agrees(self.paging_mode(), request)
    }

    /// Whether rights suffice. SDM vol 3, 4.6.1 "Determination of Access Rights".
    fn allows(&self, rights: Rights, request: Request) -> bool {
        if self.key_refuses(rights, request) {
            return false;
        }
        let supervisor_of_user = !request.is_user() && rights.user;
        match (request.is_user(), request.access) {
            (true, Access::Read) => rights.user,
            (true, Access::Write) => rights.user && rights.writable,
            (true, Access::Fetch) => rights.user && rights.executable,
            (false, Access::Fetch) => rights.executable && !(supervisor_of_user && self.cr4.smep()),
            (false, access) => {
                let lifted = request.privilege == Privilege::Supervisor && self.system_flags().ac();
                let refused = supervisor_of_user && self.cr4.smap() && !lifted;
                !refused && (access == Access::Read || rights.writable || !self.cr0.wp())
            }
        }
    }

    /// Whether the protection key of a page refuses a data access. SDM vol 3, 4.6.2 "Protection Keys"; APM vol 2, 5.6.6 "Memory Protection Keys".
    fn key_refuses(&self, rights: Rights, request: Request) -> bool {
        if !self.cr4.pke() || !self.long_mode() || !rights.user || request.access == Access::Fetch {
            return false;
        }
        let denied = self.pkru >> (2 * rights.key);
        let write = request.access == Access::Write && (request.is_user() || self.cr0.wp());
        denied & 1 != 0 || denied & 2 != 0 && write
    }

    /// #PF for a page whose rights do not suffice.
    #[cold]
    #[inline(never)]
    fn rights_fault(&self, rights: Rights, request: Request) -> Trap {
        let key = self.key_refuses(rights, request);
        match self.page_fault(request, true, false) {
            Trap::Exception(fault) => {
                let code = PageFaultCode::from_bits(fault.error_code.unwrap_or(0)).with_key(key);
                Trap::Exception(Exception::page_fault(request.linear, code))
            }
            other => other,
        }
    }

    /// #PF. SDM vol 3, 4.7 "Page-Fault Exceptions".
    #[cold]
    #[inline(never)]
    fn page_fault(&self, request: Request, present: bool, reserved: bool) -> Trap {
        let tells_fetches = self.cr4.smep() || self.cr4.pae() && self.efer.nxe();
        let code = PageFaultCode::new()
            .with_present(present)
            .with_write(request.access == Access::Write)
            .with_user(request.is_user())
            .with_reserved(reserved)
            .with_fetch(request.access == Access::Fetch && tells_fetches);
        Trap::Exception(Exception::page_fault(request.linear, code))
    }

    /// A guest-physical address made physical.
    #[inline]
    fn nested_page(&mut self, guest_physical: u64, access: NestedAccess) -> Outcome<NestedPage> {
        if self.nested_paging {
            return self.nested_walk(guest_physical, access);
        }
        Ok(NestedPage { physical: guest_physical, bytes: 1 << 30, readable: true, writable: true, executable: true })
    }

    #[inline(never)]
    fn nested_walk(&mut self, guest_physical: u64, access: NestedAccess) -> Outcome<NestedPage> {
        let translated = self.with_extension(|extension, cpu| {
            extension.translate(cpu, guest_physical, access).map_err(|fault| extension.nested_fault(cpu, fault))
        });
        match translated {
            Some(Ok(page)) if access.table_walk && self.is_apic_access(page.physical) => {
                let offset = (page.physical & 0xfff) as u16;
                Err(Trap::Exit(Exit::ApicAccess { offset, access: access.access, table_walk: true, length: 0 }))
            }
            Some(outcome) => outcome,
            None => Err(Trap::not_modelled("an access through nested paging while the silicon itself works")),
        }
    }

    /// Reads an entry of a paging structure. What is no RAM reads as ones, as an unclaimed bus does.
    #[inline]
    fn read_entry(&mut self, physical: u64, bytes: u64) -> u64 {
        if !self.is_ram(physical) {
            return if bytes == 4 { u64::from(u32::MAX) } else { u64::MAX };
        }
        self.drain_met(physical, bytes);
        let memory = &self.environment().memory;
        let value = if bytes == 4 { memory.read_u32(physical).map(u64::from) } else { memory.read_u64(physical) };
        value.unwrap_or(u64::MAX)
    }

    /// Sets flags in an entry, as one access with the read that showed them clear.
    #[cold]
    #[inline(never)]
    fn set_entry(&mut self, guest: u64, physical: u64, bytes: u64, value: u64, request: Request, writable: bool) -> Outcome {
        let physical = if writable { physical } else { self.nested_page(guest, request.nested(Access::Write, true))?.physical };
        self.charge(self.model.costs.accessed_dirty_update.ticks());
        if self.is_ram(physical) {
            let environment = self.environment();
            let written = environment.memory.write(physical, &value.to_le_bytes()[..bytes as usize]);
            debug_assert!(written.is_ok(), "the entry is in RAM");
            if environment.memory.has_code_writes() && environment.drop_written_code() {
                self.leave = true;
            }
            // The write may have made the page this memory's own.
            self.forget_old_pages();
        }
        Ok(())
    }

    /// The formats of the entries in a paging mode (SDM vol 3, Tables 4-4 to 4-19).
    fn formats(&self, mode: PagingMode) -> Formats {
        if mode == PagingMode::Bits32 {
            // SDM vol 3, Table 4-4: with PSE-36, bits 20:13 of the entry are bits 39:32 of the address, as far as the processor has them.
            let wide = if self.has(Feature::Pse36) { u32::from(self.model.physical_address_bits).clamp(32, 40) - 32 } else { 0 };
            let reserved_large = 0x3f_e000 & !(((1 << wide) - 1) << 13);
            return Formats { entry_bytes: 4, reserved: 0, reserved_large, reserved_top: 0, large: self.cr4.pse(), gigabytes: false };
        }
        let mut reserved = self.beyond_physical();
        if mode == PagingMode::Pae {
            reserved |= 0x7ff0_0000_0000_0000;
        }
        if !self.efer.nxe() {
            reserved |= NO_EXECUTE;
        }
        // APM vol 2, 5.3.3 "4-Level Paging": bit 8 of a PML4E must be zero there.
        let bit_8 = if self.vendor == Vendor::Amd { GLOBAL } else { 0 };
        let reserved_top = reserved | PAGE_SIZE | bit_8;
        Formats { entry_bytes: 8, reserved, reserved_large: 0, reserved_top, large: true, gigabytes: self.has(Feature::Page1gb) }
    }

    /// Walks the paging structures and then translates the guest-physical result. SDM vol 3, 4.3 to 4.5, 4.8 "Accessed and Dirty Flags".
    ///
    /// The page returned has the guest's own size and addresses; the nested page is that of the very byte.
    fn walk(&mut self, mode: PagingMode, request: Request, trail: &mut Trail) -> Outcome<(Translation, NestedPage)> {
        let linear = request.linear;
        if mode == PagingMode::None {
            let nested = self.nested_page(linear, request.nested(request.access, false))?;
            return Ok((Translation { bytes: 1 << 30, ..identity(linear & !((1 << 30) - 1)) }, nested));
        }
        let mut rights = Rights { writable: true, user: true, executable: true, key: 0 };
        let mut table = match mode {
            PagingMode::Bits32 => self.cr3 & 0xffff_f000,
            PagingMode::Pae => {
                let index = linear >> 30 & 3;
                let pdpte = if self.walks_pdptes() {
                    self.charge(self.model.costs.page_walk_level.ticks());
                    let guest = (self.cr3 & 0xffff_ffe0) + 8 * index;
                    let place = self.nested_page(guest, request.nested(Access::Read, true))?;
                    self.read_entry(place.physical, 8)
                } else {
                    self.pdptes[index as usize]
                };
                if pdpte & PRESENT == 0 {
                    return Err(self.page_fault(request, false, false));
                }
                if pdpte & self.pdpte_reserved() != 0 {
                    return Err(self.page_fault(request, true, true));
                }
                pdpte & ADDRESS
            }
            _ => self.cr3 & ADDRESS,
        };
        let formats = self.formats(mode);
        for &(shift, index_bits) in levels(mode) {
            let level = formats.level(shift);
            let guest = table + (linear >> shift & ((1 << index_bits) - 1)) * formats.entry_bytes;
            self.charge(self.model.costs.page_walk_level.ticks());
            let (physical, writable) = if self.nested_paging {
                let place = self.nested_page(guest, request.nested(Access::Read, true))?;
                (place.physical, place.writable)
            } else {
                (guest, true)
            };
            let entry = self.read_entry(physical, formats.entry_bytes);
            if entry & PRESENT == 0 {
                return Err(self.page_fault(request, false, false));
            }
            let large = level.maps_pages && entry & PAGE_SIZE != 0;
            if entry & if large { level.reserved_large } else { level.reserved } != 0 {
                return Err(self.page_fault(request, true, true));
            }
            rights.writable &= entry & WRITABLE != 0;
            rights.user &= entry & USER != 0;
            rights.executable &= formats.entry_bytes == 4 || entry & NO_EXECUTE == 0;
            let leaf = large || shift == 12;
            if leaf {
                rights.key = if mode == PagingMode::Level4 { (entry >> 59 & 0xf) as u8 } else { 0 };
                if !self.allows(rights, request) {
                    return Err(self.rights_fault(rights, request));
                }
            }
            let flags = if leaf && request.access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
            trail.add(physical, entry, entry & flags == flags);
            if entry & flags != flags {
                self.set_entry(guest, physical, formats.entry_bytes, entry | flags, request, writable)?;
            }
            if !leaf {
                table = entry & ADDRESS;
                continue;
            }
            let bytes = 1u64 << shift;
            let mut base = entry & ADDRESS & !(bytes - 1);
            if mode == PagingMode::Bits32 && large {
                base |= (entry >> 13 & 0xff) << 32;
            }
            let guest = GuestPage { user: rights.user, writable: rights.writable, executable: rights.executable };
            let nested =
                self.nested_page(base + (linear & (bytes - 1)), NestedAccess { guest, ..request.nested(request.access, false) })?;
            let page = Translation {
                linear: linear & !(bytes - 1),
                physical: base,
                guest_physical: base,
                bytes,
                writable: rights.writable,
                user: rights.user,
                executable: rights.executable,
                key: rights.key,
                dirty: (entry | flags) & DIRTY != 0,
                global: entry & GLOBAL != 0 && self.cr4.pge(),
                nested_readable: nested.readable,
                nested_writable: nested.writable,
                nested_executable: nested.executable,
            };
            return Ok((page, nested));
        }
        Err(Trap::not_modelled("a paging mode without a last level"))
    }

    /// Whether the page-directory-pointer-table entries of PAE paging are read by every walk and not held in registers. APM vol 2, 15.25.10
    /// "Legacy PAE Mode": behind SVM's nested paging.
    fn walks_pdptes(&self) -> bool {
        self.nested_paging && self.walks_pdptes
    }

    /// Bits of a present page-directory-pointer-table entry that must be zero.
    pub fn pdpte_reserved(&self) -> u64 {
        PDPTE_RESERVED | 0xfff0_0000_0000_0000 | self.beyond_physical()
    }

    /// Loads the four page-directory-pointer-table entries of PAE paging from the table that a value of CR3 points to; #GP(0) if one is
    /// malformed, and then none is loaded. SDM vol 3, 4.4.1 "PDPTE Registers".
    pub fn load_pdptes(&mut self, cr3: u64) -> Outcome {
        if self.walks_pdptes() {
            return Ok(());
        }
        let mut loaded = [0; 4];
        let reserved = self.pdpte_reserved();
        for (index, entry) in loaded.iter_mut().enumerate() {
            let guest = (cr3 & 0xffff_ffe0) + 8 * index as u64;
            let access = NestedAccess { access: Access::Read, table_walk: true, user: false, linear: None, guest: GuestPage::UNPAGED };
            let physical = self.nested_page(guest, access)?.physical;
            *entry = self.read_entry(physical, 8);
            if *entry & PRESENT != 0 && *entry & reserved != 0 {
                return Err(Trap::GP0);
            }
        }
        self.pdptes = loaded;
        Ok(())
    }
}

const fn rights_of(page: &Translation) -> Rights {
    Rights { writable: page.writable, user: page.user, executable: page.executable, key: page.key }
}

/// The translation without paging.
const fn identity(linear: u64) -> Translation {
    Translation {
        linear,
        physical: linear,
        guest_physical: linear,
        bytes: PAGE_BYTES,
        writable: true,
        user: true,
        executable: true,
        key: 0,
        dirty: true,
        global: false,
        nested_readable: true,
        nested_writable: true,
        nested_executable: true,
    }
}
