//! Nested paging: guest-physical to physical addresses, through tables of the host's own format.
//!
//! What is modelled: APM vol 2, 15.25 "Nested Paging". The nested tables have the paging mode that the host used when it executed VMRUN
//! (15.25.3): 4-level, PAE or 32-bit. Every access of a guest is a user access to them, and the guest's own page-table walks are writes
//! (15.25.6 "Nested versus Guest Page Faults, Fault Ordering"). Accessed and dirty bits are set as in ordinary paging. Reserved bits fault.
//!
//! With the guest mode execute trap (15.25.13 "Guest Mode Execute Trap Extension") the U/S bit says instead where code of privilege levels 0 to 2
//! may be.
//!
//! What is not: 5-level nested tables, read-only guest page tables, encryption.

use cpu::extension::{GuestPage, NestedPage};
use cpu::trap::{Access, NestedFault};
use serde::{Deserialize, Serialize};

use isa::paging::{ACCESSED, ADDRESS, DIRTY, GLOBAL, NO_EXECUTE, PAGE_SIZE, PRESENT, PagingMode, USER, WRITABLE};

/// Physical memory, as a walk of the nested tables needs it.
pub trait Tables {
    /// Reads a page-table entry of 4 or 8 bytes.
    fn read(&mut self, physical: u64, width: u8) -> u64;

    /// Writes back an entry whose accessed or dirty bit was set.
    fn write(&mut self, physical: u64, width: u8, entry: u64);
}

/// The root of the nested tables and what of the host decides about them; fixed at VMRUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedRoot {
    /// N_CR3.
    pub n_cr3: u64,
    /// Levels of the host's paging mode: 4, 3 (PAE) or 2 (32-bit).
    pub levels: u8,
    /// EFER.NXE of the host.
    pub no_execute: bool,
    /// EFER.NXE or CR4.SMEP of the host: only then does EXITINFO1 tell fetches from reads, as the error code of #PF does.
    pub tells_fetches: bool,
    /// CR4.PSE of the host, for 4-MiB pages of 32-bit tables.
    pub page_size_extensions: bool,
    /// Bits of a physical address, MAXPHYADDR.
    pub physical_bits: u32,
    /// 1-GiB pages are offered.
    pub gigabyte_pages: bool,
    /// The guest mode execute trap is enabled.
    pub execute_trap: bool,
}

impl NestedRoot {
    /// Levels of a paging mode; nothing without paging, with which nested paging cannot be enabled.
    #[must_use]
    pub const fn levels_of(mode: PagingMode) -> Option<u8> {
        match mode {
            PagingMode::None => None,
            PagingMode::Bits32 => Some(2),
            PagingMode::Pae => Some(3),
            PagingMode::Level4 => Some(4),
        }
    }

    const fn entry_width(&self) -> u8 {
        if self.levels == 2 { 4 } else { 8 }
    }

    const fn index_bits(&self) -> u32 {
        if self.levels == 2 { 10 } else { 9 }
    }

    /// First bit of the guest-physical address that the tables do not translate.
    const fn address_bits(&self) -> u32 {
        match self.levels {
            4 => 48,
            _ => 32,
        }
    }

    /// The table that `n_cr3` points at.
    const fn table(&self) -> u64 {
        match self.levels {
            4 => self.n_cr3 & ADDRESS,
            3 => self.n_cr3 & 0xffff_ffe0,
            _ => self.n_cr3 & 0xffff_f000,
        }
    }

    /// Bits that must be zero in an entry at `level` (1 is the last).
    const fn reserved(&self, level: u8, large: bool) -> u64 {
        if self.levels == 2 {
            // 32-bit tables have no reserved bits but those of a 4-MiB page: bit 21 (PSE-36 uses bits 20:13 as address bits 39:32).
            return if large { 1 << 21 } else { 0 };
        }
        let mut reserved = 0x000f_ffff_ffff_f000 & !((1 << self.physical_bits) - 1);
        if !self.no_execute {
            reserved |= NO_EXECUTE;
        }
        if self.levels == 3 {
            reserved |= 0x7ff0_0000_0000_0000;
            if level == 3 {
                // PAE PDPEs: bits 2:1, 8:5 and 63.
                return reserved | 0x8000_0000_0000_01e6;
            }
        }
        if level == 4 {
            // APM 5.3.3 "4-Level Paging": bit 8 of a PML4E must be zero, too.
            reserved |= PAGE_SIZE | GLOBAL;
        } else if level == 3 && !self.gigabyte_pages {
            reserved |= PAGE_SIZE;
        }
        if large {
            // Address bits below the page, but bit 12, which is PAT.
            reserved |= ((1 << (12 + 9 * (level as u32 - 1))) - 1) & !0x1fff;
        }
        reserved
    }

    /// Translates a guest-physical address for an access, setting accessed and dirty bits on the way.
    ///
    /// # Errors
    /// The nested page fault, for a missing or forbidden page or a reserved bit.
    pub fn translate(&self, tables: &mut impl Tables, guest_physical: u64, walk: Walk) -> Result<NestedPage, NestedFault> {
        let access = if walk.table_walk { Access::Write } else { walk.access };
        let fault = |present: bool, reserved: bool, rights: u8| NestedFault {
            guest_physical,
            linear: walk.linear,
            access,
            table_walk: walk.table_walk,
            user: walk.user,
            misconfiguration: false,
            reserved,
            present,
            rights,
            guest: GuestPage::UNPAGED,
            log_full: false,
            nmi_unblocking: false,
        };
        if guest_physical >> self.address_bits() != 0 {
            return Err(fault(false, false, 0));
        }
        let width = self.entry_width();
        let (mut writable, mut user, mut executable) = (true, true, true);
        let mut table = self.table();
        let mut level = self.levels;
        // The entries passed, to set their accessed bits once the access is known to be allowed.
        let mut passed = [(0_u64, 0_u64); 4];
        let mut count = 0;
        loop {
            let shift = 12 + self.index_bits() * (u32::from(level) - 1);
            // The PDPT of PAE has 4 entries: the address has no bits above 32, so the index is below 4.
            let index = (guest_physical >> shift) & ((1 << self.index_bits()) - 1);
            let address = table + index * u64::from(width);
            let entry = tables.read(address, width);
            if entry & PRESENT == 0 {
                return Err(fault(false, false, 0));
            }
            let pdpe_of_pae = self.levels == 3 && level == 3;
            let large = entry & PAGE_SIZE != 0
                && match (self.levels, level) {
                    (2, 2) => self.page_size_extensions,
                    (_, 2) => true,
                    (4, 3) => self.gigabyte_pages,
                    _ => false,
                };
            if entry & self.reserved(level, large) != 0 {
                return Err(fault(true, true, 0));
            }
            if !pdpe_of_pae {
                writable &= entry & WRITABLE != 0;
                user &= entry & USER != 0;
                executable &= !(width == 8 && self.no_execute && entry & NO_EXECUTE != 0);
                if let Some(slot) = passed.get_mut(count) {
                    *slot = (address, entry);
                    count += 1;
                }
            }
            if level == 1 || large {
                // Table 15-21 "GMET Page Configuration": a page is open to all, but code of the guest's kernel may not be where U/S is 1. What
                // only user mode may execute is not kept as executable: privilege is not in the TLB's tags.
                let open = user || self.execute_trap;
                let everybody = executable && !(self.execute_trap && user);
                let rights =
                    u8::from(open) | u8::from(open && writable) << 1 | u8::from(open && (everybody || executable && walk.user)) << 2;
                let wanted = match access {
                    Access::Read => 1,
                    Access::Write => 2,
                    Access::Fetch => 4,
                };
                if rights & wanted == 0 {
                    return Err(fault(true, false, rights));
                }
                let last = count.saturating_sub(1);
                let mut dirty = false;
                for (position, (address, entry)) in passed.iter().take(count).enumerate() {
                    let mut update = entry | ACCESSED;
                    if position == last {
                        if access == Access::Write {
                            update |= DIRTY;
                        }
                        dirty = update & DIRTY != 0;
                    }
                    if update != *entry {
                        tables.write(*address, width, update);
                    }
                }
                let bytes = 1_u64 << shift;
                let base = if width == 4 && large {
                    entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
                } else if width == 4 {
                    entry & 0xffff_f000
                } else {
                    entry & ADDRESS
                };
                return Ok(NestedPage {
                    physical: base & !(bytes - 1) | guest_physical & (bytes - 1),
                    bytes,
                    readable: true,
                    writable: rights & 2 != 0 && dirty,
                    executable: open && everybody,
                });
            }
            table = if width == 4 { entry & 0xffff_f000 } else { entry & ADDRESS };
            level -= 1;
        }
    }
}

/// What the guest-physical access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Read, write or fetch.
    pub access: Access,
    /// Of an entry of the guest's own page tables.
    pub table_walk: bool,
    /// In user mode of the guest.
    pub user: bool,
    /// The linear address behind it, if any.
    pub linear: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Memory of page-table entries by address.
    #[derive(Default)]
    struct Entries(BTreeMap<u64, u64>);

    impl Tables for Entries {
        fn read(&mut self, physical: u64, _: u8) -> u64 {
            self.0.get(&physical).copied().unwrap_or(0)
        }

        fn write(&mut self, physical: u64, _: u8, entry: u64) {
            self.0.insert(physical, entry);
        }
    }

    const RIGHTS: u64 = PRESENT | WRITABLE | USER;

    fn root(levels: u8) -> NestedRoot {
        NestedRoot {
            n_cr3: 0x1000,
            levels,
            no_execute: true,
            tells_fetches: true,
            page_size_extensions: true,
            physical_bits: 48,
            gigabyte_pages: true,
            execute_trap: false,
        }
    }

    fn data(access: Access) -> Walk {
        Walk { access, table_walk: false, user: false, linear: None }
    }

    /// Guest-physical 0x40_0020_3123 through four levels to 0x7000.
    fn four_levels(last: u64) -> Entries {
        Entries(BTreeMap::from([
            (0x1000, 0x2000 | RIGHTS),
            (0x2000 + 0x100 * 8, 0x3000 | RIGHTS),
            (0x3000 + 8, 0x4000 | RIGHTS),
            (0x4000 + 3 * 8, last),
        ]))
    }

    const ADDRESS_4: u64 = 0x40_0020_3123;

    #[test]
    fn a_walk_sets_accessed_and_dirty() {
        let mut tables = four_levels(0x7000 | RIGHTS);
        let page = root(4).translate(&mut tables, ADDRESS_4, data(Access::Read)).unwrap();
        assert_eq!((page.physical, page.bytes), (0x7123, 4096));
        assert!(page.readable && !page.writable && page.executable, "the dirty bit remains to be set");
        assert_eq!(tables.0[&0x1000], 0x2000 | RIGHTS | ACCESSED);
        assert_eq!(tables.0[&0x4018], 0x7000 | RIGHTS | ACCESSED);
        let page = root(4).translate(&mut tables, ADDRESS_4, data(Access::Write)).unwrap();
        assert!(page.writable);
        assert_eq!(tables.0[&0x4018], 0x7000 | RIGHTS | ACCESSED | DIRTY);
        assert_eq!(tables.0[&0x1000], 0x2000 | RIGHTS | ACCESSED, "only the last entry becomes dirty");
    }

    #[test]
    fn what_faults_and_how() {
        // (last entry, access, present, reserved); a fault leaves the tables as they were.
        let cases = [
            (0, Access::Read, false, false),
            (0x7000 | PRESENT | WRITABLE, Access::Read, true, false),
            (0x7000 | PRESENT | USER, Access::Write, true, false),
            (0x7000 | RIGHTS | NO_EXECUTE, Access::Fetch, true, false),
            (1 << 48 | RIGHTS, Access::Read, true, true),
        ];
        for (last, access, present, reserved) in cases {
            let mut tables = four_levels(last);
            let fault = root(4).translate(&mut tables, ADDRESS_4, data(access)).unwrap_err();
            assert_eq!((fault.present, fault.reserved, fault.guest_physical), (present, reserved, ADDRESS_4));
            assert_eq!(tables.0, four_levels(last).0);
        }
    }

    #[test]
    fn the_execute_trap_makes_u_s_a_matter_of_code() {
        // (last entry, user mode, access, allowed, kept as executable): APM table 15-21, and data.
        let user = RIGHTS;
        let supervisor = PRESENT | WRITABLE;
        let cases = [
            (user, true, Access::Fetch, true, false),
            (user, false, Access::Fetch, false, false),
            (supervisor, true, Access::Fetch, true, true),
            (supervisor, false, Access::Fetch, true, true),
            (supervisor | NO_EXECUTE, true, Access::Fetch, false, false),
            (supervisor | NO_EXECUTE, false, Access::Fetch, false, false),
            (user, false, Access::Read, true, false),
            (supervisor, true, Access::Write, true, true),
        ];
        for (entry, in_user_mode, access, allowed, kept) in cases {
            let walk = Walk { user: in_user_mode, ..data(access) };
            let found = NestedRoot { execute_trap: true, ..root(4) }.translate(&mut four_levels(0x7000 | entry), ADDRESS_4, walk);
            assert_eq!(found.map(|page| page.executable).ok(), allowed.then_some(kept), "{entry:#x} {in_user_mode} {access:?}");
        }
    }

    #[test]
    fn guest_table_walks_are_writes() {
        let mut tables = four_levels(0x7000 | PRESENT | USER);
        let walk = Walk { table_walk: true, ..data(Access::Read) };
        let fault = root(4).translate(&mut tables, ADDRESS_4, walk).unwrap_err();
        assert!(fault.table_walk && fault.present && fault.access == Access::Write);
        let mut tables = four_levels(0x7000 | RIGHTS);
        assert!(root(4).translate(&mut tables, ADDRESS_4, walk).unwrap().writable);
    }

    #[test]
    fn large_pages_of_every_mode() {
        let mut tables = Entries(BTreeMap::from([(0x1000, 0x2000 | RIGHTS), (0x2008, 0x8000_0000 | RIGHTS | PAGE_SIZE)]));
        let page = root(4).translate(&mut tables, 0x4000_1234, data(Access::Read)).unwrap();
        assert_eq!((page.physical, page.bytes), (0x8000_1234, 1 << 30));
        let no_gigabytes = NestedRoot { gigabyte_pages: false, ..root(4) };
        assert!(no_gigabytes.translate(&mut tables, 0x4000_1234, data(Access::Read)).unwrap_err().reserved);

        // PAE: the entry of the first table has no rights.
        let mut tables = Entries(BTreeMap::from([(0x1018, 0x2000 | PRESENT), (0x2008, 0xa0_0000 | RIGHTS | PAGE_SIZE)]));
        let page = root(3).translate(&mut tables, 0xc020_1234, data(Access::Write)).unwrap();
        assert_eq!((page.physical, page.bytes), (0xa0_1234, 2 << 20));
        assert_eq!(tables.0[&0x1018], 0x2000 | PRESENT, "PAE PDPEs have no accessed bit");
        assert!(!root(3).translate(&mut tables, 1 << 32, data(Access::Read)).unwrap_err().present);

        // 32-bit: a 4-MiB page with PSE-36 address bits.
        let mut tables = Entries(BTreeMap::from([(0x1004, 0x0040_0000 | 1 << 13 | RIGHTS | PAGE_SIZE)]));
        let page = root(2).translate(&mut tables, 0x0040_1234, data(Access::Read)).unwrap();
        assert_eq!((page.physical, page.bytes), (0x1_0040_1234, 4 << 20));
    }

    #[test]
    fn reserved_bits_by_level() {
        // (address of the entry, bit, with NX): each faults as a reserved bit.
        let cases =
            [(0x1000, 7, true), (0x1000, 8, true), (0x1000, 63, false), (0x2800, 63, false), (0x4018, 51, true), (0x4018, 63, false)];
        for (address, bit, no_execute) in cases {
            let mut tables = four_levels(0x7000 | RIGHTS);
            *tables.0.get_mut(&address).unwrap() |= 1 << bit;
            let fault = NestedRoot { no_execute, ..root(4) }.translate(&mut tables, ADDRESS_4, data(Access::Read)).unwrap_err();
            assert!(fault.reserved && fault.present, "bit {bit} of the entry at {address:#x}");
        }
        let mut tables = four_levels(0x7000 | RIGHTS | GLOBAL);
        assert!(root(4).translate(&mut tables, ADDRESS_4, data(Access::Read)).is_ok(), "the last level has a global bit");
    }

    #[test]
    fn misaligned_large_pages_are_reserved() {
        let mut tables =
            Entries(BTreeMap::from([(0x1000, 0x2000 | RIGHTS), (0x2000, 0x3000 | RIGHTS), (0x3000, 0x2000 | RIGHTS | PAGE_SIZE)]));
        assert!(root(4).translate(&mut tables, 0, data(Access::Read)).unwrap_err().reserved);
    }
}
