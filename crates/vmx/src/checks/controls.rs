//! Checks on the VM-execution, VM-exit and VM-entry control fields.
//!
//! Modelled: SDM 27.2.1 "Checks on VMX Controls". Not modelled: rules of SMM monitors beyond the two controls that must be 0 outside SMM.

use super::{Check, Entry, checks};
use isa::vmx::{EptPointer, InterruptionType, SecondaryControls, VmFunctionControls, VmcsField};

/// All checks of the phase, in our order: execution, exit, entry.
pub const CHECKS: &[Check] = &{
    let mut all = [EXECUTION[0]; EXECUTION.len() + EXIT.len() + ENTRY.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < EXECUTION.len() {
            EXECUTION[index]
        } else if index < EXECUTION.len() + EXIT.len() {
            EXIT[index - EXECUTION.len()]
        } else {
            ENTRY[index - EXECUTION.len() - EXIT.len()]
        };
        index += 1;
    }
    all
};

checks! {
    /// Checks on the VM-execution control fields.
    EXECUTION, "27.2.1.1 VM-Execution Control Fields";

    "pin-based-allowed", "Each pin-based control has a setting that IA32_VMX_(TRUE_)PINBASED_CTLS allows", [PinBasedControls]
        => |e| e.capabilities.pin_based.allow(e.pin_based().into_bits()),
        hint "Write (wanted | MSR[31:0]) & MSR[63:32]; where IA32_VMX_BASIC[55] is 1 the MSR is the TRUE one.";
    "primary-allowed", "Each primary processor-based control has a setting that IA32_VMX_(TRUE_)PROCBASED_CTLS allows",
        [PrimaryProcessorBasedControls]
        => |e| e.capabilities.primary.allow(e.primary().into_bits()),
        hint "Write (wanted | MSR[31:0]) & MSR[63:32]; where IA32_VMX_BASIC[55] is 1 the MSR is the TRUE one.";
    "secondary-allowed", "Each secondary processor-based control has a setting that IA32_VMX_PROCBASED_CTLS2 allows",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.primary().activate_secondary_controls()
        => |e| e.capabilities.secondary.allow(e.secondary().into_bits()),
        hint "AND the word with IA32_VMX_PROCBASED_CTLS2[63:32]: an older processor allows less than the one it was written on.";
    "tertiary-allowed", "Each tertiary processor-based control that is 1 is allowed by IA32_VMX_PROCBASED_CTLS3",
        [PrimaryProcessorBasedControls TertiaryProcessorBasedControls], if |e| e.primary().activate_tertiary_controls()
        => |e| e.tertiary().into_bits() & !e.capabilities.tertiary == 0;
    "cr3-target-count", "The CR3-target count is not greater than IA32_VMX_MISC reports", [Cr3TargetCount]
        => |e| e.get(VmcsField::Cr3TargetCount) <= u64::from(e.capabilities.misc.cr3_target_count());
    "io-bitmap-a-address", "I/O bitmap A lies in a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls IoBitmapAAddress], if |e| e.primary().use_io_bitmaps()
        => |e| e.is_page_address(VmcsField::IoBitmapAAddress),
        hint "The field takes a physical address, not a virtual one.";
    "io-bitmap-b-address", "I/O bitmap B lies in a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls IoBitmapBAddress], if |e| e.primary().use_io_bitmaps()
        => |e| e.is_page_address(VmcsField::IoBitmapBAddress),
        hint "The field takes a physical address, not a virtual one.";
    "msr-bitmap-address", "The MSR bitmaps lie in a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls MsrBitmapAddress], if |e| e.primary().use_msr_bitmaps()
        => |e| e.is_page_address(VmcsField::MsrBitmapAddress),
        hint "The field takes a physical address, not a virtual one.";
    "virtual-apic-address", "The virtual-APIC page is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls VirtualApicAddress], if |e| e.primary().use_tpr_shadow()
        => |e| e.is_page_address(VmcsField::VirtualApicAddress),
        hint "The field takes a physical address, not a virtual one.";
    "tpr-threshold-reserved", "Bits 31:4 of the TPR threshold are 0 without virtual-interrupt delivery",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls TprThreshold],
        if |e| e.primary().use_tpr_shadow() && !e.secondary().virtual_interrupt_delivery()
        => |e| e.get(VmcsField::TprThreshold) & !0xf == 0;
    "tpr-threshold-above-virtual-tpr", "The TPR threshold is not greater than bits 7:4 of the virtual task-priority register",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls TprThreshold],
        if |e| e.primary().use_tpr_shadow()
            && !e.secondary().virtualize_apic_accesses()
            && !e.secondary().virtual_interrupt_delivery()
        => |e| e.get(VmcsField::TprThreshold) & 0xf <= u64::from(e.facts.virtual_tpr >> 4);
    "apic-virtualization-needs-tpr-shadow",
        "Without \"use TPR shadow\", x2APIC-mode, APIC-register and interrupt-delivery virtualization are 0",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| !e.primary().use_tpr_shadow()
        => |e| {
            let secondary = e.secondary();
            !(secondary.virtualize_x2apic_mode() || secondary.apic_register_virtualization() || secondary.virtual_interrupt_delivery())
        };
    "virtual-nmis-need-nmi-exiting", "Without \"NMI exiting\", \"virtual NMIs\" is 0", [PinBasedControls],
        if |e| !e.pin_based().nmi_exiting()
        => |e| !e.pin_based().virtual_nmis(),
        hint "Set \"NMI exiting\" too: without it NMIs go to the guest and nothing is virtual about them.";
    "nmi-window-needs-virtual-nmis", "Without \"virtual NMIs\", \"NMI-window exiting\" is 0",
        [PinBasedControls PrimaryProcessorBasedControls], if |e| !e.pin_based().virtual_nmis()
        => |e| !e.primary().nmi_window_exiting();
    "apic-access-address", "The APIC-access page is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls ApicAccessAddress],
        if |e| e.secondary().virtualize_apic_accesses()
        => |e| e.is_page_address(VmcsField::ApicAccessAddress);
    "x2apic-excludes-apic-accesses", "With \"virtualize x2APIC mode\", \"virtualize APIC accesses\" is 0",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.secondary().virtualize_x2apic_mode()
        => |e| !e.secondary().virtualize_apic_accesses();
    "interrupt-delivery-needs-external-interrupt-exiting", "With \"virtual-interrupt delivery\", \"external-interrupt exiting\" is 1",
        [PinBasedControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
        if |e| e.secondary().virtual_interrupt_delivery()
        => |e| e.pin_based().external_interrupt_exiting();
    "posted-interrupts-need-delivery", "With \"process posted interrupts\", \"virtual-interrupt delivery\" is 1",
        [PinBasedControls PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.pin_based().process_posted_interrupts()
        => |e| e.secondary().virtual_interrupt_delivery();
    "posted-interrupts-need-acknowledge", "With \"process posted interrupts\", \"acknowledge interrupt on exit\" is 1",
        [PinBasedControls PrimaryExitControls], if |e| e.pin_based().process_posted_interrupts()
        => |e| e.exit().acknowledge_interrupt_on_exit();
    "posted-interrupt-vector", "The posted-interrupt notification vector is at most 255",
        [PinBasedControls PostedInterruptNotificationVector], if |e| e.pin_based().process_posted_interrupts()
        => |e| e.get(VmcsField::PostedInterruptNotificationVector) <= 0xff;
    "posted-interrupt-descriptor-address", "The posted-interrupt descriptor is 64-byte aligned within the physical-address width",
        [PinBasedControls PostedInterruptDescriptorAddress], if |e| e.pin_based().process_posted_interrupts()
        => |e| {
            let address = e.get(VmcsField::PostedInterruptDescriptorAddress);
            address & 0x3f == 0 && e.within_physical_width(address)
        };
    "vpid-not-zero", "With \"enable VPID\", the VPID is not 0",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VirtualProcessorIdentifier], if |e| e.secondary().enable_vpid()
        => |e| e.get(VmcsField::VirtualProcessorIdentifier) != 0,
        hint "VPID 0 is the host's own; number guests from 1.";
    "eptp-memory-type", "The EPT memory type is one that IA32_VMX_EPT_VPID_CAP reports",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls EptPointer], if |e| e.secondary().enable_ept()
        => |e| match ept_pointer(e).memory_type() {
            0 => e.capabilities.ept_vpid.uncacheable(),
            6 => e.capabilities.ept_vpid.write_back(),
            _ => false,
        },
        hint "Bits 2:0 are 6 for write-back tables.";
    "eptp-walk-length", "The EPT page-walk length is one that IA32_VMX_EPT_VPID_CAP reports",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls EptPointer], if |e| e.secondary().enable_ept()
        => |e| match ept_pointer(e).walk_length_minus_one() {
            3 => e.capabilities.ept_vpid.walk_length_4(),
            4 => e.capabilities.ept_vpid.walk_length_5(),
            _ => false,
        },
        hint "Bits 5:3 are the number of levels less one: 3 for four levels.";
    "eptp-accessed-dirty", "Accessed and dirty flags for EPT are enabled only where IA32_VMX_EPT_VPID_CAP reports them",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls EptPointer], if |e| e.secondary().enable_ept()
        => |e| !ept_pointer(e).accessed_dirty() || e.capabilities.ept_vpid.accessed_dirty();
    "eptp-supervisor-shadow-stack", "Supervisor shadow-stack control is enabled only where IA32_VMX_EPT_VPID_CAP reports it",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls EptPointer], if |e| e.secondary().enable_ept()
        => |e| !ept_pointer(e).supervisor_shadow_stack() || e.capabilities.ept_vpid.supervisor_shadow_stack();
    "eptp-reserved", "Bits 11:8 of the EPT pointer and those beyond the physical-address width are 0",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls EptPointer], if |e| e.secondary().enable_ept()
        => |e| ept_pointer(e).reserved() == 0 && e.within_physical_width(ept_pointer(e).table()),
        hint "Bits 11:8 are reserved and the table's address is physical: PML4 | 6 | 3 << 3.";
    "pml-needs-ept", "With \"enable PML\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.secondary().enable_pml()
        => |e| e.secondary().enable_ept();
    "pml-address", "The page-modification log is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls PmlAddress], if |e| e.secondary().enable_pml()
        => |e| e.is_page_address(VmcsField::PmlAddress);
    "unrestricted-guest-needs-ept", "With \"unrestricted guest\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.secondary().unrestricted_guest()
        => |e| e.secondary().enable_ept(),
        hint "Turn EPT on as well, or leave the guest in protected mode with paging.";
    "mode-based-execute-needs-ept", "With \"mode-based execute control for EPT\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.secondary().mode_based_execute_control_for_ept()
        => |e| e.secondary().enable_ept();
    "sub-page-write-needs-ept", "With \"sub-page write permissions for EPT\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| e.secondary().sub_page_write_permissions_for_ept()
        => |e| e.secondary().enable_ept();
    "sub-page-table-address", "The sub-page-permission table is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls SubPagePermissionTablePointer],
        if |e| e.secondary().sub_page_write_permissions_for_ept()
        => |e| e.is_page_address(VmcsField::SubPagePermissionTablePointer);
    "vm-functions-allowed", "Each VM function that is enabled is allowed by IA32_VMX_VMFUNC",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VmFunctionControls], if |e| e.secondary().enable_vm_functions()
        => |e| e.get(VmcsField::VmFunctionControls) & !e.capabilities.vm_functions == 0;
    "eptp-switching-needs-ept", "With \"EPTP switching\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VmFunctionControls], if eptp_switching
        => |e| e.secondary().enable_ept();
    "eptp-list-address", "The EPTP list is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VmFunctionControls EptpListAddress], if eptp_switching
        => |e| e.is_page_address(VmcsField::EptpListAddress);
    "vmread-bitmap-address", "The VMREAD bitmap is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VmreadBitmapAddress], if |e| e.secondary().vmcs_shadowing()
        => |e| e.is_page_address(VmcsField::VmreadBitmapAddress);
    "vmwrite-bitmap-address", "The VMWRITE bitmap is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VmwriteBitmapAddress], if |e| e.secondary().vmcs_shadowing()
        => |e| e.is_page_address(VmcsField::VmwriteBitmapAddress);
    "virtualization-exception-address", "The virtualization-exception information area is a 4 KiB page within the physical-address width",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls VirtualizationExceptionInformationAddress],
        if |e| e.secondary().ept_violation_ve()
        => |e| e.is_page_address(VmcsField::VirtualizationExceptionInformationAddress);
    "pt-guest-physical-needs-ept", "With \"Intel PT uses guest physical addresses\", \"enable EPT\" is 1",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
        if |e| e.secondary().intel_pt_uses_guest_physical_addresses()
        => |e| e.secondary().enable_ept();
    "pt-guest-physical-needs-rtit", "With \"Intel PT uses guest physical addresses\", IA32_RTIT_CTL is loaded on entry and cleared on exit",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls PrimaryExitControls EntryControls],
        if |e| e.secondary().intel_pt_uses_guest_physical_addresses()
        => |e| e.entry().load_ia32_rtit_ctl() && e.exit().clear_ia32_rtit_ctl();
    "tsc-multiplier-not-zero", "With \"use TSC scaling\", the TSC multiplier is not 0",
        [PrimaryProcessorBasedControls SecondaryProcessorBasedControls TscMultiplier], if |e| e.secondary().use_tsc_scaling()
        => |e| e.get(VmcsField::TscMultiplier) != 0;
}

checks! {
    /// Checks on the VM-exit control fields.
    EXIT, "27.2.1.2 VM-Exit Control Fields";

    "exit-allowed", "Each VM-exit control has a setting that IA32_VMX_(TRUE_)EXIT_CTLS allows", [PrimaryExitControls]
        => |e| e.capabilities.exit.allow(e.exit().into_bits()),
        hint "Write (wanted | MSR[31:0]) & MSR[63:32]; where IA32_VMX_BASIC[55] is 1 the MSR is the TRUE one.";
    "secondary-exit-allowed", "Each secondary VM-exit control that is 1 is allowed by IA32_VMX_EXIT_CTLS2",
        [PrimaryExitControls SecondaryExitControls], if |e| e.exit().activate_secondary_controls()
        => |e| e.secondary_exit().into_bits() & !e.capabilities.secondary_exit == 0;
    "save-timer-needs-timer", "Without \"activate VMX-preemption timer\", \"save VMX-preemption timer value\" is 0",
        [PinBasedControls PrimaryExitControls], if |e| !e.pin_based().activate_vmx_preemption_timer()
        => |e| !e.exit().save_vmx_preemption_timer_value();
    "exit-msr-store-list", "The VM-exit MSR-store list is 16-byte aligned and within the physical-address width",
        [ExitMsrStoreCount ExitMsrStoreAddress], if |e| e.get(VmcsField::ExitMsrStoreCount) != 0
        => |e| e.is_msr_list(VmcsField::ExitMsrStoreAddress, VmcsField::ExitMsrStoreCount);
    "exit-msr-load-list", "The VM-exit MSR-load list is 16-byte aligned and within the physical-address width",
        [ExitMsrLoadCount ExitMsrLoadAddress], if |e| e.get(VmcsField::ExitMsrLoadCount) != 0
        => |e| e.is_msr_list(VmcsField::ExitMsrLoadAddress, VmcsField::ExitMsrLoadCount);
}

checks! {
    /// Checks on the VM-entry control fields.
    ENTRY, "27.2.1.3 VM-Entry Control Fields";

    "entry-allowed", "Each VM-entry control has a setting that IA32_VMX_(TRUE_)ENTRY_CTLS allows", [EntryControls]
        => |e| e.capabilities.entry.allow(e.entry().into_bits()),
        hint "Write (wanted | MSR[31:0]) & MSR[63:32]; where IA32_VMX_BASIC[55] is 1 the MSR is the TRUE one.";
    "injected-type-defined", "The type of an injected event is not reserved", [EntryInterruptionInformation],
        if |e| e.event().valid()
        => |e| e.event().interruption_type() != InterruptionType::Reserved;
    "injected-mtf-supported", "A pending MTF VM exit is injected only where the monitor trap flag is supported",
        [EntryInterruptionInformation], if |e| injects(e, InterruptionType::OtherEvent)
        => |e| e.capabilities.may_be_one(isa::vmx::PrimaryControls::MONITOR_TRAP_FLAG);
    "injected-nmi-vector", "The vector of an injected NMI is 2", [EntryInterruptionInformation],
        if |e| injects(e, InterruptionType::Nmi)
        => |e| e.event().vector() == 2;
    "injected-exception-vector", "The vector of an injected hardware exception is at most 31", [EntryInterruptionInformation],
        if |e| injects(e, InterruptionType::HardwareException)
        => |e| e.event().vector() <= 31;
    "injected-other-vector", "The vector of an injected other event is 0", [EntryInterruptionInformation],
        if |e| injects(e, InterruptionType::OtherEvent)
        => |e| e.event().vector() == 0;
    "injected-error-code-type", "Only a hardware exception delivers an error code", [EntryInterruptionInformation],
        if |e| e.event().valid() && e.event().error_code_valid()
        => |e| e.event().interruption_type() == InterruptionType::HardwareException;
    "injected-error-code-mode", "An unrestricted guest in real-address mode gets no error code",
        [EntryInterruptionInformation PrimaryProcessorBasedControls SecondaryProcessorBasedControls GuestCr0],
        if |e| e.event().valid() && e.event().error_code_valid()
        => delivers_error_codes;
    "injected-error-code-vector", "A hardware exception delivers an error code exactly where its vector has one",
        [EntryInterruptionInformation PrimaryProcessorBasedControls SecondaryProcessorBasedControls GuestCr0],
        if |e| injects(e, InterruptionType::HardwareException) && delivers_error_codes(e) && !e.capabilities.basic.any_error_code()
        => |e| e.event().error_code_valid() == has_error_code(e.event().vector()),
        hint "Set bit 11 for #DF, #TS, #NP, #SS, #GP, #PF and #AC, and for no other vector.";
    "injected-reserved", "Bits 30:12 of the VM-entry interruption-information field are 0", [EntryInterruptionInformation],
        if |e| e.event().valid()
        => |e| e.event().reserved() == 0 && !e.event().nmi_unblocking_due_to_iret(),
        hint "Clear bit 31 when nothing is to be injected; bits 30:12 are no part of a copied IDT-vectoring field.";
    "injected-error-code-reserved", "Bits 31:16 of the VM-entry exception error code are 0",
        [EntryInterruptionInformation EntryExceptionErrorCode], if |e| e.event().valid() && e.event().error_code_valid()
        => |e| e.get(VmcsField::EntryExceptionErrorCode) >> 16 == 0;
    "injected-instruction-length", "The instruction length of an injected software event is 1 to 15, or 0 where IA32_VMX_MISC allows it",
        [EntryInterruptionInformation EntryInstructionLength],
        if |e| e.event().valid() && e.event().interruption_type().is_software()
        => |e| match e.get(VmcsField::EntryInstructionLength) {
            0 => e.capabilities.misc.zero_length_injection(),
            length => length <= 15,
        },
        hint "A software event that is injected again takes the VM-exit instruction length.";
    "entry-msr-load-list", "The VM-entry MSR-load list is 16-byte aligned and within the physical-address width",
        [EntryMsrLoadCount EntryMsrLoadAddress], if |e| e.get(VmcsField::EntryMsrLoadCount) != 0
        => |e| e.is_msr_list(VmcsField::EntryMsrLoadAddress, VmcsField::EntryMsrLoadCount);
    "entry-not-to-smm", "Outside SMM, \"entry to SMM\" and \"deactivate dual-monitor treatment\" are 0", [EntryControls]
        => |e| !e.entry().entry_to_smm() && !e.entry().deactivate_dual_monitor_treatment();
}

fn ept_pointer(e: &Entry<'_>) -> EptPointer {
    EptPointer::from_bits(e.get(VmcsField::EptPointer))
}

fn eptp_switching(e: &Entry<'_>) -> bool {
    let controls = VmFunctionControls::from_bits(e.get(VmcsField::VmFunctionControls));
    e.secondary().enable_vm_functions() && controls.eptp_switching()
}

fn injects(e: &Entry<'_>, interruption_type: InterruptionType) -> bool {
    e.event().valid() && e.event().interruption_type() == interruption_type
}

/// Whether the guest is in a mode whose exceptions push error codes, as far as the check looks at it.
fn delivers_error_codes(e: &Entry<'_>) -> bool {
    let secondary: SecondaryControls = e.secondary();
    !secondary.unrestricted_guest() || e.cr0().pe()
}

/// The vectors with an error code that the check lists: #DF, #TS, #NP, #SS, #GP, #PF, #AC.
fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}
