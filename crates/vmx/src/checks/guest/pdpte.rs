//! Checks on the guest's page-directory-pointer-table entries.
//!
//! Modelled: SDM 27.3.1.6, complete: with EPT the fields of the VMCS are checked, without it the entries in memory at CR3.

use crate::checks::{Entry, checks};
use isa::vmx::VmcsField;

checks! {
    /// All checks of the phase, in our order.
    CHECKS, "27.3.1.6 Checks on Guest Page-Directory-Pointer-Table Entries";

    "guest-pdpte-0", "PDPTE0, if present, has no reserved bit set",
        [GuestPdpte0 GuestCr0 GuestCr3 GuestCr4 EntryControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if pae_paging
        => |e| is_valid(e, 0, VmcsField::GuestPdpte0);
    "guest-pdpte-1", "PDPTE1, if present, has no reserved bit set",
        [GuestPdpte1 GuestCr0 GuestCr3 GuestCr4 EntryControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if pae_paging
        => |e| is_valid(e, 1, VmcsField::GuestPdpte1);
    "guest-pdpte-2", "PDPTE2, if present, has no reserved bit set",
        [GuestPdpte2 GuestCr0 GuestCr3 GuestCr4 EntryControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if pae_paging
        => |e| is_valid(e, 2, VmcsField::GuestPdpte2);
    "guest-pdpte-3", "PDPTE3, if present, has no reserved bit set",
        [GuestPdpte3 GuestCr0 GuestCr3 GuestCr4 EntryControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if pae_paging
        => |e| is_valid(e, 3, VmcsField::GuestPdpte3);
}

/// Whether the guest will use PAE paging.
pub fn pae_paging(e: &Entry<'_>) -> bool {
    e.cr0().pg() && e.cr4().pae() && !e.entry().ia32e_mode_guest()
}

/// Bits 2:1, 8:5 and those beyond the physical-address width are reserved. SDM 4.4.1 "PDPTE Registers".
fn is_valid(e: &Entry<'_>, index: usize, field: VmcsField) -> bool {
    let entry = if e.secondary().enable_ept() { e.get(field) } else { e.facts.pdptes[index] };
    let beyond = u64::MAX.checked_shl(u32::from(e.facts.physical_address_width)).unwrap_or(0);
    entry & 1 == 0 || entry & (0x1e6 | beyond) == 0
}
