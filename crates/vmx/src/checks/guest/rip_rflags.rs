//! Checks on the guest's RIP and RFLAGS.
//!
//! Modelled: SDM 27.3.1.4, complete; SSP for the auditor only, because no CPU model of ours loads it.

use crate::checks::{Entry, checks};
use isa::paging::is_canonical;
use isa::vmx::{InterruptionType, VmcsField};

/// Reserved bits of RFLAGS that must be 0: 63:22, 15, 5 and 3.
const RFLAGS_RESERVED: u64 = !0x003f_ffff | 1 << 15 | 1 << 5 | 1 << 3;

checks! {
    /// All checks of the phase, in our order.
    CHECKS, "27.3.1.4 Checks on Guest RIP, RFLAGS, and SSP";

    "guest-rip-32-bit", "Outside 64-bit mode, bits 63:32 of RIP are 0", [EntryControls GuestCsAccessRights GuestRip],
        if |e| !is_64_bit(e)
        => |e| e.get(VmcsField::GuestRip) >> 32 == 0;
    // The manual asks for less than a canonical address: bit 47 may differ from those above it.
    "guest-rip-64-bit", "In 64-bit mode, bits 63:48 of RIP are identical", [EntryControls GuestCsAccessRights GuestRip],
        if is_64_bit
        => |e| matches!(e.get(VmcsField::GuestRip) >> 48, 0 | 0xffff),
        hint "A RIP that was advanced by the instruction length may have left the canonical addresses.";
    "guest-rflags-reserved", "Bits 63:22, 15, 5 and 3 of RFLAGS are 0", [GuestRflags]
        => |e| e.get(VmcsField::GuestRflags) & RFLAGS_RESERVED == 0,
        hint "A zeroed structure starts with 2; bits 63:22 do not exist.";
    "guest-rflags-fixed", "Bit 1 of RFLAGS is 1", [GuestRflags] => |e| e.get(VmcsField::GuestRflags) & 2 != 0,
        hint "A zeroed structure lacks it: RFLAGS starts as 2.";
    "guest-rflags-vm", "RFLAGS.VM is 0 in an IA-32e mode guest and in real-address mode", [GuestRflags EntryControls GuestCr0],
        if |e| e.entry().ia32e_mode_guest() || !e.cr0().pe()
        => |e| !e.virtual_8086();
    "guest-rflags-if", "RFLAGS.IF is 1 where an external interrupt is injected", [GuestRflags EntryInterruptionInformation],
        if |e| e.event().valid() && e.event().interruption_type() == InterruptionType::ExternalInterrupt
        => |e| e.get(VmcsField::GuestRflags) >> 9 & 1 != 0,
        hint "Inject an external interrupt only while the guest can take one; until then ask for an exit by \"interrupt-window exiting\".";
    "guest-ssp-aligned", "Bits 1:0 of SSP are 0", [EntryControls GuestSsp], if |e| e.entry().load_cet_state()
        => |e| e.get(VmcsField::GuestSsp) & 3 == 0;
    "guest-ssp-32-bit", "Outside 64-bit mode, bits 63:32 of SSP are 0", [EntryControls GuestCsAccessRights GuestSsp],
        if |e| e.entry().load_cet_state() && !is_64_bit(e)
        => |e| e.get(VmcsField::GuestSsp) >> 32 == 0;
    "guest-ssp-64-bit", "In 64-bit mode, SSP is canonical", [EntryControls GuestCsAccessRights GuestSsp],
        if |e| e.entry().load_cet_state() && is_64_bit(e)
        => |e| is_canonical(e.get(VmcsField::GuestSsp));
}

fn is_64_bit(e: &Entry<'_>) -> bool {
    e.entry().ia32e_mode_guest() && e.rights(VmcsField::GuestCsAccessRights).l()
}
