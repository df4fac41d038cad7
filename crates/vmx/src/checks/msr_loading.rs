//! Rules about each entry of the VM-entry MSR-load list.
//!
//! Modelled: SDM 27.4 "Loading MSRs", complete, and the longest list by 25.7.2. The entries are looked at one after the other while they are loaded:
//! those before the one that breaks a rule have been. Not modelled: nothing else.

use super::{Entry, checks};
use isa::msr;
use isa::vmx::VmcsField;

/// IA32_SMM_MONITOR_CTL, which only SMM writes.
const IA32_SMM_MONITOR_CTL: u32 = 0x9b;

checks! {
    /// All checks of the phase, in our order.
    CHECKS, "27.4 Loading MSRs";

    "msr-load-count", "The list has no more entries than IA32_VMX_MISC recommends", [EntryMsrLoadCount], if loads
        => |e| e.msr_load.number <= e.capabilities.misc.maximum_msr_list(),
        hint "512 times (IA32_VMX_MISC[27:25] + 1). SDM 25.7.2 leaves open what a processor does beyond: Trapline stops at the first entry too many.";
    "msr-load-base", "An entry names neither IA32_FS_BASE nor IA32_GS_BASE", [EntryMsrLoadCount], if loads
        => |e| !matches!(e.msr_load.index, msr::IA32_FS_BASE | msr::IA32_GS_BASE),
        hint "The bases of FS and GS are fields of the guest-state area.";
    "msr-load-x2apic", "An entry names no register of the local APIC in x2APIC mode (MSRs 800H to 8FFH)", [EntryMsrLoadCount], if loads
        => |e| e.msr_load.index >> 8 != 8,
        hint "Write the local APIC's registers before the entry.";
    "msr-load-smm", "Outside SMM, an entry names no MSR that only SMM writes (IA32_SMM_MONITOR_CTL)", [EntryMsrLoadCount], if loads
        => |e| e.msr_load.index != IA32_SMM_MONITOR_CTL;
    "msr-load-microcode", "An entry does not name IA32_BIOS_UPDT_TRIG, which processors do not load here", [EntryMsrLoadCount], if loads
        => |e| e.msr_load.index != msr::IA32_BIOS_UPDT_TRIG,
        hint "Load microcode by WRMSR, outside of VM entry.";
    "msr-load-reserved", "Bits 63:32 of an entry are 0", [EntryMsrLoadCount], if loads
        => |e| e.msr_load.reserved == 0,
        hint "An entry has 16 bytes: the MSR, four bytes of zero, eight bytes of value.";
    "msr-load-value", "WRMSR at privilege level 0 would take the value of an entry", [EntryMsrLoadCount], if loads
        => |e| !e.msr_load.refused,
        hint "The MSR does not exist on this processor, is read-only, or the value has a reserved bit or an address that is not canonical.";
}

/// Whether there is an entry to look at.
fn loads(e: &Entry<'_>) -> bool {
    e.msr_load.number != 0 && e.get(VmcsField::EntryMsrLoadCount) != 0
}
