//! Checks on the guest's non-register state.
//!
//! Modelled: SDM 27.3.1.5. Not modelled: enclaves and SMM. The manual lets a processor refuse an NMI while STI blocks (with an exit
//! qualification of its own); ours does not.

use crate::checks::{Entry, checks};
use isa::vmx::{ActivityState, Interruptibility, InterruptionType, PendingDebugExceptions, VmcsField};

checks! {
    /// The checks but for those of the VMCS link pointer, in our order.
    CHECKS, "27.3.1.5 Checks on Guest Non-Register State";

    "guest-activity-supported", "The activity state is one that IA32_VMX_MISC reports", [GuestActivityState]
        => |e| match activity(e) {
            Some(ActivityState::Active) => true,
            Some(ActivityState::Hlt) => e.capabilities.misc.activity_hlt(),
            Some(ActivityState::Shutdown) => e.capabilities.misc.activity_shutdown(),
            Some(ActivityState::WaitForSipi) => e.capabilities.misc.activity_wait_for_sipi(),
            None => false,
        },
        hint "0 is active, 1 HLT, 2 shutdown, 3 wait-for-SIPI.";
    "guest-activity-hlt-dpl", "The activity state HLT goes with DPL 0 of SS", [GuestActivityState GuestSsAccessRights],
        if |e| activity(e) == Some(ActivityState::Hlt)
        => |e| e.rights(VmcsField::GuestSsAccessRights).dpl() == 0;
    "guest-activity-blocking", "Where STI or MOV SS blocks, the activity state is active", [GuestActivityState GuestInterruptibilityState],
        if blocking
        => |e| activity(e) == Some(ActivityState::Active),
        hint "Clear the blocking by STI or MOV SS when you put the guest into HLT.";
    "guest-activity-injection", "The injected event is one that the activity state lets through",
        [GuestActivityState EntryInterruptionInformation], if |e| e.event().valid()
        => injection_fits_activity;
    "guest-interruptibility-reserved", "Bits 31:5 of the interruptibility state are 0", [GuestInterruptibilityState]
        => |e| interruptibility(e).reserved() == 0;
    "guest-interruptibility-both", "Not both STI and MOV SS block", [GuestInterruptibilityState]
        => |e| !(interruptibility(e).blocking_by_sti() && interruptibility(e).blocking_by_mov_ss());
    "guest-interruptibility-sti-if", "STI blocks only where RFLAGS.IF is 1", [GuestInterruptibilityState GuestRflags],
        if |e| interruptibility(e).blocking_by_sti()
        => |e| e.get(VmcsField::GuestRflags) >> 9 & 1 != 0,
        hint "Clear bit 0 when IF is cleared.";
    "guest-interruptibility-external", "Neither STI nor MOV SS blocks where an external interrupt is injected",
        [GuestInterruptibilityState EntryInterruptionInformation], if |e| injects(e, InterruptionType::ExternalInterrupt)
        => |e| !blocking(e),
        hint "Wait for the interrupt window, or clear the blocking when the instruction under it is emulated.";
    "guest-interruptibility-nmi-mov-ss", "MOV SS does not block where an NMI is injected",
        [GuestInterruptibilityState EntryInterruptionInformation], if |e| injects(e, InterruptionType::Nmi)
        => |e| !interruptibility(e).blocking_by_mov_ss();
    "guest-interruptibility-smi", "Outside SMM, SMI does not block", [GuestInterruptibilityState]
        => |e| !interruptibility(e).blocking_by_smi();
    "guest-interruptibility-virtual-nmi", "With \"virtual NMIs\", NMIs are not blocked where an NMI is injected",
        [GuestInterruptibilityState EntryInterruptionInformation PinBasedControls],
        if |e| injects(e, InterruptionType::Nmi) && e.pin_based().virtual_nmis()
        => |e| !interruptibility(e).blocking_by_nmi();
    "guest-interruptibility-enclave", "No enclave was interrupted on a processor without SGX", [GuestInterruptibilityState]
        => |e| !interruptibility(e).enclave_interruption();
    "guest-pending-debug-reserved", "Reserved bits of the pending debug exceptions are 0", [GuestPendingDebugExceptions]
        => |e| {
            let pending = pending_debug(e);
            pending.reserved_low() == 0
                && !pending.bus_lock_detected()
                && !pending.reserved_13()
                && !pending.reserved_15()
                && !pending.restricted_transactional_memory()
                && pending.reserved_high() == 0
        };
    "guest-pending-debug-single-step", "Where STI, MOV SS or HLT holds a single step back, pending BS says whether there is one",
        [GuestPendingDebugExceptions GuestInterruptibilityState GuestActivityState GuestRflags GuestDebugctl],
        if |e| blocking(e) || activity(e) == Some(ActivityState::Hlt)
        => |e| {
            let single_step = e.get(VmcsField::GuestRflags) >> 8 & 1 != 0 && e.get(VmcsField::GuestDebugctl) & 2 == 0;
            pending_debug(e).single_step() == single_step
        },
        hint "With TF 1, BTF 0 and blocking by STI or MOV SS, bit 14 (BS) is 1.";
}

checks! {
    /// The checks of the VMCS link pointer, in our order.
    LINK_POINTER_CHECKS, "27.3.1.5 Checks on Guest Non-Register State";

    "link-pointer-address", "The VMCS link pointer is all ones or that of a 4 KiB page within the physical-address width",
        [VmcsLinkPointer], if linked
        => |e| e.is_page_address(VmcsField::VmcsLinkPointer),
        hint "Write all ones, both halves, unless \"VMCS shadowing\" uses it: a zeroed VMCS has 0 there.";
    "link-pointer-revision", "The linked VMCS has the processor's revision identifier, and is a shadow VMCS exactly with \"VMCS shadowing\"",
        [VmcsLinkPointer PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if linked
        => |e| {
            let shadow = u32::from(e.secondary().vmcs_shadowing()) << 31;
            e.facts.linked_revision == e.capabilities.basic.revision() | shadow
        },
        hint "With \"VMCS shadowing\" the linked region starts with the revision identifier and bit 31 set.";
    "link-pointer-current", "The VMCS link pointer is not that of the current VMCS", [VmcsLinkPointer], if linked
        => |e| e.get(VmcsField::VmcsLinkPointer) != e.facts.current_vmcs;
}

fn activity(e: &Entry<'_>) -> Option<ActivityState> {
    ActivityState::from_number(e.get(VmcsField::GuestActivityState))
}

fn interruptibility(e: &Entry<'_>) -> Interruptibility {
    Interruptibility::from_bits(e.get(VmcsField::GuestInterruptibilityState) as u32)
}

fn pending_debug(e: &Entry<'_>) -> PendingDebugExceptions {
    PendingDebugExceptions::from_bits(e.get(VmcsField::GuestPendingDebugExceptions))
}

fn blocking(e: &Entry<'_>) -> bool {
    interruptibility(e).blocking_by_sti() || interruptibility(e).blocking_by_mov_ss()
}

fn injects(e: &Entry<'_>, interruption_type: InterruptionType) -> bool {
    e.event().valid() && e.event().interruption_type() == interruption_type
}

fn linked(e: &Entry<'_>) -> bool {
    e.get(VmcsField::VmcsLinkPointer) != u64::MAX
}

/// HLT lets through external interrupts, NMIs, #DB, #MC and a pending MTF VM exit; shutdown NMIs and #MC; wait-for-SIPI nothing.
fn injection_fits_activity(e: &Entry<'_>) -> bool {
    let (event, vector) = (e.event().interruption_type(), e.event().vector());
    match activity(e) {
        Some(ActivityState::Hlt) => match event {
            InterruptionType::ExternalInterrupt | InterruptionType::Nmi => true,
            InterruptionType::HardwareException => matches!(vector, 1 | 18),
            InterruptionType::OtherEvent => vector == 0,
            _ => false,
        },
        Some(ActivityState::Shutdown) => event == InterruptionType::Nmi || event == InterruptionType::HardwareException && vector == 18,
        Some(ActivityState::WaitForSipi) => false,
        Some(ActivityState::Active) | None => true,
    }
}
