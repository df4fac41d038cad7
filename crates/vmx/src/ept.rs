//! The walk of the extended page tables.
//!
//! Modelled: SDM 29.3 "The Extended Page Table Mechanism (EPT)" with a page-walk length of 4: pages of 4 KiB, 2 MiB and 1 GiB, rights,
//! violations, misconfigurations, accessed and dirty flags. Not modelled: mode-based execute control, sub-page permissions, the effect of
//! memory types on caches, and a walk length of 5; none of them is offered.

use crate::silicon::Vmx;
use cpu::extension::{NestedAccess, NestedPage};
use cpu::state::Cpu;
use cpu::trap::{Access, NestedFault};
use isa::vmx::{EptEntry, EptPointer, EptVpidCapabilities, VmcsField};

/// Levels of the tables.
const LEVELS: u32 = 4;

/// Bits that the index of one level takes.
const INDEX_BITS: u32 = 9;

/// First bit of a guest-physical address below the index of a level: 39, 30, 21 and 12 for levels 4 to 1.
const fn shift(level: u32) -> u32 {
    12 + (level - 1) * INDEX_BITS
}

/// What is wrong with an entry. SDM 29.3.3.1 "EPT Misconfigurations".
fn is_misconfigured(entry: EptEntry, level: u32, capabilities: &EptVpidCapabilities, physical_address_width: u8) -> bool {
    if entry.write() && !entry.read() {
        return true;
    }
    if entry.execute() && !entry.read() && !capabilities.execute_only() {
        return true;
    }
    let beyond = u64::MAX.checked_shl(u32::from(physical_address_width)).unwrap_or(0);
    if entry.address() & beyond != 0 {
        return true;
    }
    if is_page(entry, level) {
        let size_supported = match level {
            1 => true,
            2 => capabilities.pages_2_mib(),
            _ => capabilities.pages_1_gib(),
        };
        let within_page = (1 << shift(level)) - 1;
        return !size_supported || entry.address() & within_page != 0 || !matches!(entry.memory_type(), 0 | 1 | 4..=6);
    }
    // In an entry that refers to a table, bits 6:3 are reserved, and bit 7 at the top level.
    entry.into_bits() & 0x78 != 0 || level == LEVELS && entry.large_page()
}

/// Whether an entry maps a page rather than referring to a table.
const fn is_page(entry: EptEntry, level: u32) -> bool {
    level == 1 || level < LEVELS && entry.large_page()
}

impl Vmx {
    /// Translates a guest-physical address through the EPT of the guest that runs.
    pub(crate) fn walk(&mut self, cpu: &mut Cpu, guest_physical: u64, access: NestedAccess) -> Result<NestedPage, NestedFault> {
        let pointer = self.ept;
        let flags = pointer.accessed_dirty();
        // With accessed and dirty flags, accesses to the guest's paging structures are writes. SDM 29.3.5.
        let writes = access.access == Access::Write || access.table_walk && flags;
        let fault = NestedFault {
            guest_physical,
            linear: access.linear,
            access: access.access,
            table_walk: access.table_walk,
            user: access.user,
            misconfiguration: false,
            reserved: false,
            present: false,
            rights: 0,
            nmi_unblocking: false,
        };
        // Bits beyond what four levels translate must be 0; without a width of its own a guest-physical address is cut by the walk.
        if guest_physical >> (shift(LEVELS) + INDEX_BITS) != 0 {
            return Err(fault);
        }
        let mut rights = 7u8;
        let mut table = pointer.table();
        let mut passed = [(0u64, EptEntry::new()); LEVELS as usize];
        let mut level = LEVELS;
        let page = loop {
            let place = table + (guest_physical >> shift(level) & ((1 << INDEX_BITS) - 1)) * 8;
            let entry = EptEntry::from_bits(cpu.read_physical(place, 8));
            passed[(LEVELS - level) as usize] = (place, entry);
            cpu.charge(cpu.model.costs.nested_walk_level.ticks.into());
            if !entry.present(false) {
                return Err(fault);
            }
            if is_misconfigured(entry, level, &self.capabilities.ept_vpid, cpu.model.physical_address_bits) {
                return Err(NestedFault { misconfiguration: true, ..fault });
            }
            rights &= entry.into_bits() as u8 & 7;
            if is_page(entry, level) {
                break entry;
            }
            table = entry.address();
            level -= 1;
        };
        let allowed = match access.access {
            _ if writes => rights & 2 != 0 && (rights & 1 != 0),
            Access::Read | Access::Write => rights & 1 != 0,
            Access::Fetch => rights & 4 != 0,
        };
        if !allowed {
            return Err(NestedFault { present: rights != 0, rights, ..fault });
        }
        if flags {
            for (at, (place, entry)) in passed.iter().take((LEVELS - level + 1) as usize).enumerate() {
                let leaf = at as u32 == LEVELS - level;
                let marked = entry.with_accessed(true).with_dirty(entry.dirty() || leaf && writes);
                if marked != *entry {
                    cpu.charge(cpu.model.costs.accessed_dirty_update.ticks.into());
                    cpu.write_physical(*place, 8, marked.into_bits());
                }
            }
        }
        let bytes = 1u64 << shift(level);
        Ok(NestedPage {
            physical: page.address() & !(bytes - 1) | guest_physical & (bytes - 1),
            bytes,
            readable: rights & 1 != 0,
            writable: rights & 2 != 0 && (!flags || writes || page.dirty()),
            executable: rights & 4 != 0,
        })
    }

    /// VM function 0, EPTP switching: takes EPT pointer number ECX of the list. SDM 26.5.6.3 "EPTP Switching".
    ///
    /// `false` means that the VM function exits.
    pub(crate) fn switch_ept(&mut self, cpu: &mut Cpu, number: u64) -> bool {
        if number >= 512 {
            return false;
        }
        let list = self.current.get(VmcsField::EptpListAddress);
        let pointer = EptPointer::from_bits(cpu.read_physical(list + number * 8, 8));
        let old = self.current.get(VmcsField::EptPointer);
        self.current.set(VmcsField::EptPointer, pointer.into_bits());
        let facts = self.facts(cpu);
        let view = crate::checks::Entry { fields: self.current.fields(), capabilities: &self.capabilities, facts };
        let mut rules = crate::checks::Phase::Controls.checks().iter().filter(|check| check.id.starts_with("eptp-"));
        if rules.any(|check| check.fails(&view)) {
            self.current.set(VmcsField::EptPointer, old);
            return false;
        }
        self.enter_address_space(cpu);
        cpu.context_changed();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: EptVpidCapabilities =
        EptVpidCapabilities::new().with_execute_only(true).with_pages_2_mib(true).with_pages_1_gib(true);

    #[test]
    fn what_is_misconfigured() {
        let nothing = EptVpidCapabilities::new();
        let rows = [
            ("read-write page", 0x1037, 1, EVERYTHING, false),
            ("write without read", 0x1032, 1, EVERYTHING, true),
            ("execute only", 0x1034, 1, EVERYTHING, false),
            ("execute only, not supported", 0x1034, 1, nothing, true),
            ("memory type 2", 0x1017, 1, EVERYTHING, true),
            ("memory type 7", 0x103f, 1, EVERYTHING, true),
            ("2 MiB page", 0x20_00b7, 2, EVERYTHING, false),
            ("2 MiB page, not aligned", 0x20_10b7, 2, EVERYTHING, true),
            ("2 MiB page, not supported", 0x20_00b7, 2, nothing, true),
            ("1 GiB page", 0x4000_00b7, 3, EVERYTHING, false),
            ("table", 0x1007, 2, EVERYTHING, false),
            ("table with a memory type", 0x1037, 2, EVERYTHING, true),
            ("top level with bit 7", 0x1087, 4, EVERYTHING, true),
            ("address too wide", 1 << 46 | 0x37, 1, EVERYTHING, true),
        ];
        for (name, bits, level, capabilities, expected) in rows {
            assert_eq!(is_misconfigured(EptEntry::from_bits(bits), level, &capabilities, 46), expected, "{name}");
        }
    }
}
