//! What this silicon can do: a CPU model's VMX capabilities, less what is not modelled.
//!
//! Modelled: a control whose behaviour is missing here is not offered, so that software that asks for it fails VM entry, as on a processor
//! without it. Not modelled: anything this table leaves out.

use isa::vmx::{
    AllowedSettings, ControlBit, ControlWord, EntryControls, EptVpidCapabilities, ExitControls, PinBasedControls, PrimaryControls,
    SecondaryControls, VmFunctionControls, VmxCapabilities,
};

/// Every control that has its effect here.
const IMPLEMENTED: &[ControlBit] = &[
    PinBasedControls::EXTERNAL_INTERRUPT_EXITING,
    PinBasedControls::NMI_EXITING,
    PinBasedControls::VIRTUAL_NMIS,
    PinBasedControls::ACTIVATE_VMX_PREEMPTION_TIMER,
    PinBasedControls::PROCESS_POSTED_INTERRUPTS,
    PrimaryControls::INTERRUPT_WINDOW_EXITING,
    PrimaryControls::USE_TSC_OFFSETTING,
    PrimaryControls::HLT_EXITING,
    PrimaryControls::INVLPG_EXITING,
    PrimaryControls::MWAIT_EXITING,
    PrimaryControls::RDPMC_EXITING,
    PrimaryControls::RDTSC_EXITING,
    PrimaryControls::CR3_LOAD_EXITING,
    PrimaryControls::CR3_STORE_EXITING,
    PrimaryControls::CR8_LOAD_EXITING,
    PrimaryControls::CR8_STORE_EXITING,
    PrimaryControls::USE_TPR_SHADOW,
    PrimaryControls::NMI_WINDOW_EXITING,
    PrimaryControls::MOV_DR_EXITING,
    PrimaryControls::UNCONDITIONAL_IO_EXITING,
    PrimaryControls::USE_IO_BITMAPS,
    PrimaryControls::MONITOR_TRAP_FLAG,
    PrimaryControls::USE_MSR_BITMAPS,
    PrimaryControls::MONITOR_EXITING,
    PrimaryControls::PAUSE_EXITING,
    PrimaryControls::ACTIVATE_SECONDARY_CONTROLS,
    SecondaryControls::VIRTUALIZE_APIC_ACCESSES,
    SecondaryControls::ENABLE_EPT,
    SecondaryControls::DESCRIPTOR_TABLE_EXITING,
    SecondaryControls::ENABLE_RDTSCP,
    SecondaryControls::VIRTUALIZE_X2APIC_MODE,
    SecondaryControls::ENABLE_VPID,
    SecondaryControls::WBINVD_EXITING,
    SecondaryControls::UNRESTRICTED_GUEST,
    SecondaryControls::APIC_REGISTER_VIRTUALIZATION,
    SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY,
    SecondaryControls::PAUSE_LOOP_EXITING,
    SecondaryControls::RDRAND_EXITING,
    SecondaryControls::ENABLE_INVPCID,
    SecondaryControls::ENABLE_VM_FUNCTIONS,
    SecondaryControls::VMCS_SHADOWING,
    SecondaryControls::RDSEED_EXITING,
    SecondaryControls::ENABLE_PML,
    SecondaryControls::EPT_VIOLATION_VE,
    SecondaryControls::ENABLE_XSAVES_XRSTORS,
    SecondaryControls::MODE_BASED_EXECUTE_CONTROL_FOR_EPT,
    SecondaryControls::USE_TSC_SCALING,
    ExitControls::SAVE_DEBUG_CONTROLS,
    ExitControls::HOST_ADDRESS_SPACE_SIZE,
    ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
    ExitControls::SAVE_IA32_PAT,
    ExitControls::LOAD_IA32_PAT,
    ExitControls::SAVE_IA32_EFER,
    ExitControls::LOAD_IA32_EFER,
    ExitControls::SAVE_VMX_PREEMPTION_TIMER_VALUE,
    EntryControls::LOAD_DEBUG_CONTROLS,
    EntryControls::IA32E_MODE_GUEST,
    EntryControls::LOAD_IA32_PAT,
    EntryControls::LOAD_IA32_EFER,
    VmFunctionControls::EPTP_SWITCHING,
];

/// What is implemented of IA32_VMX_EPT_VPID_CAP.
const EPT_VPID: EptVpidCapabilities = EptVpidCapabilities::new()
    .with_execute_only(true)
    .with_walk_length_4(true)
    .with_uncacheable(true)
    .with_write_back(true)
    .with_pages_2_mib(true)
    .with_pages_1_gib(true)
    .with_invept(true)
    .with_accessed_dirty(true)
    .with_advanced_violation_information(true)
    .with_invept_single_context(true)
    .with_invept_all_context(true)
    .with_invvpid(true)
    .with_invvpid_individual_address(true)
    .with_invvpid_single_context(true)
    .with_invvpid_all_context(true)
    .with_invvpid_single_context_retaining_globals(true);

/// The bits of a control word that are implemented.
fn implemented(word: ControlWord) -> u64 {
    IMPLEMENTED.iter().filter(|control| control.word == word).fold(0, |bits, control| bits | 1 << control.bit)
}

/// What the silicon of a processor offers that was designed to have `designed`.
pub fn offered(designed: &VmxCapabilities) -> VmxCapabilities {
    let settings = |settings: AllowedSettings, word: ControlWord| {
        // A bit that must be 1 stays allowed: software cannot ask for its absence.
        settings.with_may_be_one(settings.may_be_one() & (implemented(word) as u32 | settings.must_be_one()))
    };
    // The default1 controls with no name may be 1 as well: they have no effect.
    let with_default1 = |offered: AllowedSettings, designed: AllowedSettings, default1: u32, names: &[(u8, &str)]| {
        let named = names.iter().fold(0u32, |bits, (bit, _)| bits | 1 << bit);
        offered.with_may_be_one(offered.may_be_one() | designed.may_be_one() & default1 & !named)
    };
    VmxCapabilities {
        basic: designed.basic.with_dual_monitor(false),
        pin_based: with_default1(
            settings(designed.pin_based, ControlWord::PinBased),
            designed.pin_based,
            VmxCapabilities::PIN_BASED_DEFAULT1,
            PinBasedControls::NAMES,
        ),
        primary: with_default1(
            settings(designed.primary, ControlWord::Primary),
            designed.primary,
            VmxCapabilities::PRIMARY_DEFAULT1,
            PrimaryControls::NAMES,
        ),
        secondary: settings(designed.secondary, ControlWord::Secondary),
        tertiary: designed.tertiary & implemented(ControlWord::Tertiary),
        exit: with_default1(settings(designed.exit, ControlWord::Exit), designed.exit, VmxCapabilities::EXIT_DEFAULT1, ExitControls::NAMES),
        secondary_exit: designed.secondary_exit & implemented(ControlWord::SecondaryExit),
        entry: with_default1(
            settings(designed.entry, ControlWord::Entry),
            designed.entry,
            VmxCapabilities::ENTRY_DEFAULT1,
            EntryControls::NAMES,
        ),
        misc: designed.misc.with_processor_trace(false).with_smm_monitor_bit_2(false).with_mseg_revision(0),
        ept_vpid: EptVpidCapabilities::from_bits(designed.ept_vpid.into_bits() & EPT_VPID.into_bits()),
        vm_functions: designed.vm_functions & implemented(ControlWord::VmFunction),
        ..designed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_modelled_is_not_offered() {
        let everything = VmxCapabilities {
            pin_based: AllowedSettings::new().with_may_be_one(u32::MAX),
            primary: AllowedSettings::new().with_may_be_one(u32::MAX),
            secondary: AllowedSettings::new().with_may_be_one(u32::MAX),
            tertiary: u64::MAX,
            vm_functions: u64::MAX,
            ..VmxCapabilities::default()
        };
        let offered = offered(&everything);
        assert!(!offered.may_be_one(SecondaryControls::INTEL_PT_USES_GUEST_PHYSICAL_ADDRESSES));
        assert!(!offered.may_be_one(SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT));
        assert!(!offered.has_tertiary());
        assert_eq!(offered.vm_functions, 1);
        for &control in IMPLEMENTED.iter().filter(|control| control.word == ControlWord::Primary) {
            assert!(offered.may_be_one(control), "{:?}", control.name());
        }
    }

    #[test]
    fn default1_bits_without_a_name_stay_allowed() {
        let designed = VmxCapabilities {
            primary: AllowedSettings::new().with_must_be_one(0x0400_6172).with_may_be_one(u32::MAX),
            ..VmxCapabilities::default()
        };
        let offered = offered(&designed);
        assert_eq!(offered.primary.may_be_one() & 0x0400_6172, 0x0400_6172);
        assert!(offered.primary.allow(offered.primary.adjust(0)));
    }
}
