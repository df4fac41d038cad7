//! The walk of the extended page tables.
//!
//! Modelled: SDM 29.3 "The Extended Page Table Mechanism (EPT)" with a page-walk length of 4: pages of 4 KiB, 2 MiB and 1 GiB, rights,
//! mode-based execute control, violations and their conversion to #VE, misconfigurations, accessed and dirty flags, page-modification
//! logging. Not modelled: sub-page permissions, the effect of memory types on caches, and a walk length of 5; none of them is offered.

use crate::checks::{Check, Entry, Facts, Phase};
use crate::exit_information::Information;
use crate::silicon::Vmx;
use crate::vmcs::Fields;
use cpu::extension::{NestedAccess, NestedPage};
use cpu::state::Cpu;
use cpu::trap::{Access, Exception, Exit, NestedFault, Trap};
use isa::exception::Vector;
use isa::vmx::{EptEntry, EptPointer, EptVpidCapabilities, ExitReason, PrimaryControls, SecondaryControls, VmcsField};

/// Levels of the tables.
const LEVELS: u32 = 4;

/// Entries of the page-modification log.
const LOG_ENTRIES: u64 = 512;

/// The rights that entries give, and a [`NestedFault`] tells.
const READ: u8 = 1;
const WRITE: u8 = 2;
/// Without mode-based execute control for every linear address, with it for supervisor-mode ones.
const EXECUTE: u8 = 4;
/// For user-mode linear addresses.
const USER_EXECUTE: u8 = 8;

/// What the controls say of the walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EptFeatures {
    /// "mode-based execute control for EPT".
    pub(crate) mode_based_execute: bool,
    /// "enable PML".
    pub(crate) logs_modified_pages: bool,
    /// "EPT-violation #VE".
    pub(crate) converts_violations: bool,
}

impl EptFeatures {
    pub(crate) fn of(fields: &Fields) -> EptFeatures {
        let secondary = fields.secondary();
        EptFeatures {
            mode_based_execute: secondary.mode_based_execute_control_for_ept(),
            logs_modified_pages: secondary.enable_pml(),
            converts_violations: secondary.ept_violation_ve(),
        }
    }
}

/// The rights that an entry gives. Without mode-based execute control one bit speaks for both modes.
const fn rights_of(entry: EptEntry, mode_based: bool) -> u8 {
    let bits = entry.into_bits() as u8 & (READ | WRITE | EXECUTE);
    let user = if mode_based { entry.user_execute() } else { entry.execute() };
    bits | if user { USER_EXECUTE } else { 0 }
}

/// Bits that the index of one level takes.
const INDEX_BITS: u32 = 9;

/// First bit of a guest-physical address below the index of a level: 39, 30, 21 and 12 for levels 4 to 1.
const fn shift(level: u32) -> u32 {
    12 + (level - 1) * INDEX_BITS
}

/// What is wrong with an entry. SDM 29.3.3.1 "EPT Misconfigurations".
fn is_misconfigured(entry: EptEntry, level: u32, capabilities: &EptVpidCapabilities, mode_based: bool, physical_address_width: u8) -> bool {
    if entry.write() && !entry.read() {
        return true;
    }
    if (entry.execute() || mode_based && entry.user_execute()) && !entry.read() && !capabilities.execute_only() {
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
            guest: access.guest,
            log_full: false,
            nmi_unblocking: cpu.iret_unblocked_nmi,
        };
        self.suppresses_ve = true;
        // Bits beyond what four levels translate must be 0; without a width of its own a guest-physical address is cut by the walk.
        if guest_physical >> (shift(LEVELS) + INDEX_BITS) != 0 {
            return Err(fault);
        }
        let mode_based = self.intercepts.ept.mode_based_execute;
        let mut rights = READ | WRITE | EXECUTE | USER_EXECUTE;
        let mut table = pointer.table();
        let mut passed = [(0u64, EptEntry::new()); LEVELS as usize];
        let mut level = LEVELS;
        let page = loop {
            let place = table + (guest_physical >> shift(level) & ((1 << INDEX_BITS) - 1)) * 8;
            let entry = EptEntry::from_bits(cpu.read_physical(place, 8));
            passed[(LEVELS - level) as usize] = (place, entry);
            cpu.charge(cpu.model.costs.nested_walk_level.ticks.into());
            if !entry.present(mode_based) {
                self.suppresses_ve = entry.suppress_ve();
                return Err(fault);
            }
            if is_misconfigured(entry, level, &self.capabilities.ept_vpid, mode_based, cpu.model.physical_address_bits) {
                return Err(NestedFault { misconfiguration: true, ..fault });
            }
            rights &= rights_of(entry, mode_based);
            if is_page(entry, level) {
                break entry;
            }
            table = entry.address();
            level -= 1;
        };
        // With mode-based execute control, what counts is whether the linear address is a user-mode one. SDM 29.3.3.2 "EPT Violations".
        let executable = rights & if access.guest.user { USER_EXECUTE } else { EXECUTE } != 0;
        let allowed = match access.access {
            _ if writes => rights & WRITE != 0 && rights & READ != 0,
            Access::Read | Access::Write => rights & READ != 0,
            Access::Fetch => executable,
        };
        if !allowed {
            self.suppresses_ve = page.suppress_ve();
            return Err(NestedFault { present: rights != 0, rights, ..fault });
        }
        if flags {
            if writes && !page.dirty() && self.intercepts.ept.logs_modified_pages && !self.log_modified_page(cpu, guest_physical) {
                return Err(NestedFault { log_full: true, ..fault });
            }
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
            readable: rights & READ != 0,
            writable: rights & WRITE != 0 && (!flags || writes || page.dirty()),
            executable,
        })
    }

    /// Adds a page to the page-modification log. SDM 29.3.6 "Page-Modification Logging".
    ///
    /// `false` means that the log is full.
    fn log_modified_page(&mut self, cpu: &mut Cpu, guest_physical: u64) -> bool {
        let index = self.current.get(VmcsField::PmlIndex);
        if index >= LOG_ENTRIES {
            return false;
        }
        cpu.write_physical(self.current.get(VmcsField::PmlAddress) + index * 8, 8, guest_physical & !0xfff);
        self.current.set(VmcsField::PmlIndex, index.wrapping_sub(1));
        true
    }

    /// What becomes of a fault of the walk. SDM 26.5.7 "Virtualization Exceptions": an EPT violation whose entry does not suppress it is #VE,
    /// unless the guest is outside protected mode, an event is being delivered, or the information of the last #VE was not taken yet.
    pub(crate) fn convert_fault(&mut self, cpu: &mut Cpu, fault: NestedFault) -> Trap {
        let area = self.current.get(VmcsField::VirtualizationExceptionInformationAddress);
        let converts = self.intercepts.ept.converts_violations
            && !fault.misconfiguration
            && !fault.log_full
            && !self.suppresses_ve
            && cpu.cr0.pe()
            && cpu.delivering.is_none()
            && cpu.read_physical(area + 4, 4) == 0;
        if !converts {
            return Trap::Exit(Exit::Nested(fault));
        }
        let information = Information::of(cpu, &Exit::Nested(fault), &self.capabilities, self.current.fields());
        cpu.write_physical(area, 4, ExitReason::EptViolation as u64);
        cpu.write_physical(area + 4, 4, 0xffff_ffff);
        cpu.write_physical(area + 8, 8, information.qualification);
        cpu.write_physical(area + 16, 8, fault.linear.unwrap_or(0));
        cpu.write_physical(area + 24, 8, fault.guest_physical);
        cpu.write_physical(area + 32, 2, self.current.get(VmcsField::EptpIndex));
        Trap::Exception(Exception::plain(Vector::Virtualization))
    }

    /// Whether VM entry with "enable EPT" would take an EPT pointer.
    pub(crate) fn accepts_ept_pointer(&self, cpu: &Cpu, pointer: EptPointer) -> bool {
        let mut fields = Fields::default();
        let secondary = SecondaryControls::default().with_enable_ept(true);
        let primary = PrimaryControls::default().with_activate_secondary_controls(true);
        fields.set(VmcsField::PrimaryProcessorBasedControls, primary.into_bits().into());
        fields.set(VmcsField::SecondaryProcessorBasedControls, secondary.into_bits().into());
        fields.set(VmcsField::EptPointer, pointer.into_bits());
        let facts = Facts { physical_address_width: cpu.model.physical_address_bits, ..Facts::default() };
        let view = Entry { fields: &fields, capabilities: &self.capabilities, facts, msr_load: Default::default() };
        let reads_pointer = |check: &&Check| check.reads.contains(&VmcsField::EptPointer);
        !Phase::Controls.checks().iter().filter(reads_pointer).any(|check| check.fails(&view))
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
        if !self.accepts_ept_pointer(cpu, pointer) {
            return false;
        }
        self.current.set(VmcsField::EptPointer, pointer.into_bits());
        if self.intercepts.ept.converts_violations {
            self.current.set(VmcsField::EptpIndex, number);
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
            assert_eq!(is_misconfigured(EptEntry::from_bits(bits), level, &capabilities, false, 46), expected, "{name}");
        }
    }
}
