//! The control words of a VMCS, each bit with the manual's name.
//!
//! Modelled: pin-based, primary, secondary and tertiary processor-based VM-execution controls, VM-exit and secondary VM-exit controls,
//! VM-entry controls and VM-function controls. From each table come the accessors, the bit constants and the names in messages.
//! Not modelled: which of them a processor allows is the CPU model's matter (see [`super::capability`]).

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the control words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ControlWord {
    /// Pin-based VM-execution controls.
    PinBased,
    /// Primary processor-based VM-execution controls.
    Primary,
    /// Secondary processor-based VM-execution controls.
    Secondary,
    /// Tertiary processor-based VM-execution controls.
    Tertiary,
    /// Primary VM-exit controls.
    Exit,
    /// Secondary VM-exit controls.
    SecondaryExit,
    /// VM-entry controls.
    Entry,
    /// VM-function controls.
    VmFunction,
    /// No control word: a feature that no control of the CPU models here can allow.
    Unavailable,
}

/// One bit of one control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ControlBit {
    /// The word.
    pub word: ControlWord,
    /// The number of the bit in it.
    pub bit: u8,
}

impl ControlBit {
    /// Stands for secure arbitration mode (SEAM), the module of Trust Domain Extensions, which no control enables.
    pub const SECURE_ARBITRATION_MODE: ControlBit = ControlBit { word: ControlWord::Unavailable, bit: 0 };

    /// The manual's name of the bit; `None` where it is reserved.
    pub fn name(self) -> Option<&'static str> {
        let names = match self.word {
            ControlWord::PinBased => PinBasedControls::NAMES,
            ControlWord::Primary => PrimaryControls::NAMES,
            ControlWord::Secondary => SecondaryControls::NAMES,
            ControlWord::Tertiary => TertiaryControls::NAMES,
            ControlWord::Exit => ExitControls::NAMES,
            ControlWord::SecondaryExit => SecondaryExitControls::NAMES,
            ControlWord::Entry => EntryControls::NAMES,
            ControlWord::VmFunction => VmFunctionControls::NAMES,
            ControlWord::Unavailable => &[(0, "secure arbitration mode")],
        };
        names.iter().find(|(bit, _)| *bit == self.bit).map(|(_, name)| *name)
    }
}

macro_rules! control_word {
    ($(#[$doc:meta])* $type:ident: $repr:ident, $word:ident {
        $($bit:literal $name:literal => $constant:ident, $get:ident, $with:ident;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type($repr);

        impl $type {
            /// The number and the manual's name of every bit that is not reserved, in ascending order.
            pub const NAMES: &[(u8, &'static str)] = &[$(($bit, $name),)*];

            $(#[doc = concat!("The bit \"", $name, "\".")]
            pub const $constant: ControlBit = ControlBit { word: ControlWord::$word, bit: $bit };)*

            /// The word with these bits, reserved ones included.
            pub const fn from_bits(bits: $repr) -> $type {
                $type(bits)
            }

            /// All bits.
            pub const fn into_bits(self) -> $repr {
                self.0
            }

            $(#[doc = concat!("True where \"", $name, "\" is 1.")]
            pub const fn $get(self) -> bool {
                self.0 & 1 << $bit != 0
            }

            #[doc = concat!("The word with \"", $name, "\" as given.")]
            #[must_use]
            pub const fn $with(self, value: bool) -> $type {
                $type(self.0 & !(1 << $bit) | (value as $repr) << $bit)
            })*
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($type), "({:#x}"), self.0)?;
                for (bit, name) in Self::NAMES {
                    if self.0 >> bit & 1 != 0 {
                        write!(formatter, ", {name}")?;
                    }
                }
                formatter.write_str(")")
            }
        }
    };
}

control_word! {
    /// Pin-based VM-execution controls, SDM 25.6.1 "Pin-Based VM-Execution Controls".
    PinBasedControls: u32, PinBased {
        0 "external-interrupt exiting" => EXTERNAL_INTERRUPT_EXITING, external_interrupt_exiting, with_external_interrupt_exiting;
        3 "NMI exiting" => NMI_EXITING, nmi_exiting, with_nmi_exiting;
        5 "virtual NMIs" => VIRTUAL_NMIS, virtual_nmis, with_virtual_nmis;
        6 "activate VMX-preemption timer" => ACTIVATE_VMX_PREEMPTION_TIMER, activate_vmx_preemption_timer, with_activate_vmx_preemption_timer;
        7 "process posted interrupts" => PROCESS_POSTED_INTERRUPTS, process_posted_interrupts, with_process_posted_interrupts;
    }
}

control_word! {
    /// Primary processor-based VM-execution controls, SDM 25.6.2 "Processor-Based VM-Execution Controls".
    PrimaryControls: u32, Primary {
        2 "interrupt-window exiting" => INTERRUPT_WINDOW_EXITING, interrupt_window_exiting, with_interrupt_window_exiting;
        3 "use TSC offsetting" => USE_TSC_OFFSETTING, use_tsc_offsetting, with_use_tsc_offsetting;
        7 "HLT exiting" => HLT_EXITING, hlt_exiting, with_hlt_exiting;
        9 "INVLPG exiting" => INVLPG_EXITING, invlpg_exiting, with_invlpg_exiting;
        10 "MWAIT exiting" => MWAIT_EXITING, mwait_exiting, with_mwait_exiting;
        11 "RDPMC exiting" => RDPMC_EXITING, rdpmc_exiting, with_rdpmc_exiting;
        12 "RDTSC exiting" => RDTSC_EXITING, rdtsc_exiting, with_rdtsc_exiting;
        15 "CR3-load exiting" => CR3_LOAD_EXITING, cr3_load_exiting, with_cr3_load_exiting;
        16 "CR3-store exiting" => CR3_STORE_EXITING, cr3_store_exiting, with_cr3_store_exiting;
        17 "activate tertiary controls" => ACTIVATE_TERTIARY_CONTROLS, activate_tertiary_controls, with_activate_tertiary_controls;
        19 "CR8-load exiting" => CR8_LOAD_EXITING, cr8_load_exiting, with_cr8_load_exiting;
        20 "CR8-store exiting" => CR8_STORE_EXITING, cr8_store_exiting, with_cr8_store_exiting;
        21 "use TPR shadow" => USE_TPR_SHADOW, use_tpr_shadow, with_use_tpr_shadow;
        22 "NMI-window exiting" => NMI_WINDOW_EXITING, nmi_window_exiting, with_nmi_window_exiting;
        23 "MOV-DR exiting" => MOV_DR_EXITING, mov_dr_exiting, with_mov_dr_exiting;
        24 "unconditional I/O exiting" => UNCONDITIONAL_IO_EXITING, unconditional_io_exiting, with_unconditional_io_exiting;
        25 "use I/O bitmaps" => USE_IO_BITMAPS, use_io_bitmaps, with_use_io_bitmaps;
        27 "monitor trap flag" => MONITOR_TRAP_FLAG, monitor_trap_flag, with_monitor_trap_flag;
        28 "use MSR bitmaps" => USE_MSR_BITMAPS, use_msr_bitmaps, with_use_msr_bitmaps;
        29 "MONITOR exiting" => MONITOR_EXITING, monitor_exiting, with_monitor_exiting;
        30 "PAUSE exiting" => PAUSE_EXITING, pause_exiting, with_pause_exiting;
        31 "activate secondary controls" => ACTIVATE_SECONDARY_CONTROLS, activate_secondary_controls, with_activate_secondary_controls;
    }
}

control_word! {
    /// Secondary processor-based VM-execution controls, SDM 25.6.2 "Processor-Based VM-Execution Controls".
    SecondaryControls: u32, Secondary {
        0 "virtualize APIC accesses" => VIRTUALIZE_APIC_ACCESSES, virtualize_apic_accesses, with_virtualize_apic_accesses;
        1 "enable EPT" => ENABLE_EPT, enable_ept, with_enable_ept;
        2 "descriptor-table exiting" => DESCRIPTOR_TABLE_EXITING, descriptor_table_exiting, with_descriptor_table_exiting;
        3 "enable RDTSCP" => ENABLE_RDTSCP, enable_rdtscp, with_enable_rdtscp;
        4 "virtualize x2APIC mode" => VIRTUALIZE_X2APIC_MODE, virtualize_x2apic_mode, with_virtualize_x2apic_mode;
        5 "enable VPID" => ENABLE_VPID, enable_vpid, with_enable_vpid;
        6 "WBINVD exiting" => WBINVD_EXITING, wbinvd_exiting, with_wbinvd_exiting;
        7 "unrestricted guest" => UNRESTRICTED_GUEST, unrestricted_guest, with_unrestricted_guest;
        8 "APIC-register virtualization" => APIC_REGISTER_VIRTUALIZATION, apic_register_virtualization, with_apic_register_virtualization;
        9 "virtual-interrupt delivery" => VIRTUAL_INTERRUPT_DELIVERY, virtual_interrupt_delivery, with_virtual_interrupt_delivery;
        10 "PAUSE-loop exiting" => PAUSE_LOOP_EXITING, pause_loop_exiting, with_pause_loop_exiting;
        11 "RDRAND exiting" => RDRAND_EXITING, rdrand_exiting, with_rdrand_exiting;
        12 "enable INVPCID" => ENABLE_INVPCID, enable_invpcid, with_enable_invpcid;
        13 "enable VM functions" => ENABLE_VM_FUNCTIONS, enable_vm_functions, with_enable_vm_functions;
        14 "VMCS shadowing" => VMCS_SHADOWING, vmcs_shadowing, with_vmcs_shadowing;
        15 "enable ENCLS exiting" => ENABLE_ENCLS_EXITING, enable_encls_exiting, with_enable_encls_exiting;
        16 "RDSEED exiting" => RDSEED_EXITING, rdseed_exiting, with_rdseed_exiting;
        17 "enable PML" => ENABLE_PML, enable_pml, with_enable_pml;
        18 "EPT-violation #VE" => EPT_VIOLATION_VE, ept_violation_ve, with_ept_violation_ve;
        19 "conceal VMX from PT" => CONCEAL_VMX_FROM_PT, conceal_vmx_from_pt, with_conceal_vmx_from_pt;
        20 "enable XSAVES/XRSTORS" => ENABLE_XSAVES_XRSTORS, enable_xsaves_xrstors, with_enable_xsaves_xrstors;
        21 "PASID translation" => PASID_TRANSLATION, pasid_translation, with_pasid_translation;
        22 "mode-based execute control for EPT" => MODE_BASED_EXECUTE_CONTROL_FOR_EPT, mode_based_execute_control_for_ept, with_mode_based_execute_control_for_ept;
        23 "sub-page write permissions for EPT" => SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT, sub_page_write_permissions_for_ept, with_sub_page_write_permissions_for_ept;
        24 "Intel PT uses guest physical addresses" => INTEL_PT_USES_GUEST_PHYSICAL_ADDRESSES, intel_pt_uses_guest_physical_addresses, with_intel_pt_uses_guest_physical_addresses;
        25 "use TSC scaling" => USE_TSC_SCALING, use_tsc_scaling, with_use_tsc_scaling;
        26 "enable user wait and pause" => ENABLE_USER_WAIT_AND_PAUSE, enable_user_wait_and_pause, with_enable_user_wait_and_pause;
        27 "enable PCONFIG" => ENABLE_PCONFIG, enable_pconfig, with_enable_pconfig;
        28 "enable ENCLV exiting" => ENABLE_ENCLV_EXITING, enable_enclv_exiting, with_enable_enclv_exiting;
        30 "VMM bus-lock detection" => VMM_BUS_LOCK_DETECTION, vmm_bus_lock_detection, with_vmm_bus_lock_detection;
        31 "instruction timeout" => INSTRUCTION_TIMEOUT, instruction_timeout, with_instruction_timeout;
    }
}

control_word! {
    /// Tertiary processor-based VM-execution controls, SDM 25.6.2 "Processor-Based VM-Execution Controls".
    TertiaryControls: u64, Tertiary {
        0 "LOADIWKEY exiting" => LOADIWKEY_EXITING, loadiwkey_exiting, with_loadiwkey_exiting;
        1 "enable HLAT" => ENABLE_HLAT, enable_hlat, with_enable_hlat;
        2 "EPT paging-write control" => EPT_PAGING_WRITE_CONTROL, ept_paging_write_control, with_ept_paging_write_control;
        3 "guest-paging verification" => GUEST_PAGING_VERIFICATION, guest_paging_verification, with_guest_paging_verification;
        4 "IPI virtualization" => IPI_VIRTUALIZATION, ipi_virtualization, with_ipi_virtualization;
        6 "enable MSR-list instructions" => ENABLE_MSR_LIST_INSTRUCTIONS, enable_msr_list_instructions, with_enable_msr_list_instructions;
        7 "virtualize IA32_SPEC_CTRL" => VIRTUALIZE_IA32_SPEC_CTRL, virtualize_ia32_spec_ctrl, with_virtualize_ia32_spec_ctrl;
    }
}

control_word! {
    /// Primary VM-exit controls, SDM 25.7.1 "VM-Exit Controls".
    ExitControls: u32, Exit {
        2 "save debug controls" => SAVE_DEBUG_CONTROLS, save_debug_controls, with_save_debug_controls;
        9 "host address-space size" => HOST_ADDRESS_SPACE_SIZE, host_address_space_size, with_host_address_space_size;
        12 "load IA32_PERF_GLOBAL_CTRL" => LOAD_IA32_PERF_GLOBAL_CTRL, load_ia32_perf_global_ctrl, with_load_ia32_perf_global_ctrl;
        15 "acknowledge interrupt on exit" => ACKNOWLEDGE_INTERRUPT_ON_EXIT, acknowledge_interrupt_on_exit, with_acknowledge_interrupt_on_exit;
        18 "save IA32_PAT" => SAVE_IA32_PAT, save_ia32_pat, with_save_ia32_pat;
        19 "load IA32_PAT" => LOAD_IA32_PAT, load_ia32_pat, with_load_ia32_pat;
        20 "save IA32_EFER" => SAVE_IA32_EFER, save_ia32_efer, with_save_ia32_efer;
        21 "load IA32_EFER" => LOAD_IA32_EFER, load_ia32_efer, with_load_ia32_efer;
        22 "save VMX-preemption timer value" => SAVE_VMX_PREEMPTION_TIMER_VALUE, save_vmx_preemption_timer_value, with_save_vmx_preemption_timer_value;
        23 "clear IA32_BNDCFGS" => CLEAR_IA32_BNDCFGS, clear_ia32_bndcfgs, with_clear_ia32_bndcfgs;
        24 "conceal VMX from PT" => CONCEAL_VMX_FROM_PT, conceal_vmx_from_pt, with_conceal_vmx_from_pt;
        25 "clear IA32_RTIT_CTL" => CLEAR_IA32_RTIT_CTL, clear_ia32_rtit_ctl, with_clear_ia32_rtit_ctl;
        26 "clear IA32_LBR_CTL" => CLEAR_IA32_LBR_CTL, clear_ia32_lbr_ctl, with_clear_ia32_lbr_ctl;
        27 "clear UINV" => CLEAR_UINV, clear_uinv, with_clear_uinv;
        28 "load CET state" => LOAD_CET_STATE, load_cet_state, with_load_cet_state;
        29 "load PKRS" => LOAD_PKRS, load_pkrs, with_load_pkrs;
        30 "save IA32_PERF_GLOBAL_CTRL" => SAVE_IA32_PERF_GLOBAL_CTRL, save_ia32_perf_global_ctrl, with_save_ia32_perf_global_ctrl;
        31 "activate secondary controls" => ACTIVATE_SECONDARY_CONTROLS, activate_secondary_controls, with_activate_secondary_controls;
    }
}

control_word! {
    /// Secondary VM-exit controls, SDM 25.7.1 "VM-Exit Controls".
    SecondaryExitControls: u64, SecondaryExit {
        3 "prematurely busy shadow stack" => PREMATURELY_BUSY_SHADOW_STACK, prematurely_busy_shadow_stack, with_prematurely_busy_shadow_stack;
    }
}

control_word! {
    /// VM-entry controls, SDM 25.8.1 "VM-Entry Controls".
    EntryControls: u32, Entry {
        2 "load debug controls" => LOAD_DEBUG_CONTROLS, load_debug_controls, with_load_debug_controls;
        9 "IA-32e mode guest" => IA32E_MODE_GUEST, ia32e_mode_guest, with_ia32e_mode_guest;
        10 "entry to SMM" => ENTRY_TO_SMM, entry_to_smm, with_entry_to_smm;
        11 "deactivate dual-monitor treatment" => DEACTIVATE_DUAL_MONITOR_TREATMENT, deactivate_dual_monitor_treatment, with_deactivate_dual_monitor_treatment;
        13 "load IA32_PERF_GLOBAL_CTRL" => LOAD_IA32_PERF_GLOBAL_CTRL, load_ia32_perf_global_ctrl, with_load_ia32_perf_global_ctrl;
        14 "load IA32_PAT" => LOAD_IA32_PAT, load_ia32_pat, with_load_ia32_pat;
        15 "load IA32_EFER" => LOAD_IA32_EFER, load_ia32_efer, with_load_ia32_efer;
        16 "load IA32_BNDCFGS" => LOAD_IA32_BNDCFGS, load_ia32_bndcfgs, with_load_ia32_bndcfgs;
        17 "conceal VMX from PT" => CONCEAL_VMX_FROM_PT, conceal_vmx_from_pt, with_conceal_vmx_from_pt;
        18 "load IA32_RTIT_CTL" => LOAD_IA32_RTIT_CTL, load_ia32_rtit_ctl, with_load_ia32_rtit_ctl;
        19 "load UINV" => LOAD_UINV, load_uinv, with_load_uinv;
        20 "load CET state" => LOAD_CET_STATE, load_cet_state, with_load_cet_state;
        21 "load guest IA32_LBR_CTL" => LOAD_GUEST_IA32_LBR_CTL, load_guest_ia32_lbr_ctl, with_load_guest_ia32_lbr_ctl;
        22 "load PKRS" => LOAD_PKRS, load_pkrs, with_load_pkrs;
    }
}

control_word! {
    /// VM-function controls, SDM 25.6.14 "VM-Function Controls".
    VmFunctionControls: u64, VmFunction {
        0 "EPTP switching" => EPTP_SWITCHING, eptp_switching, with_eptp_switching;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accessor_reads_the_bit_of_its_constant() {
        let bit = PrimaryControls::USE_MSR_BITMAPS;
        assert_eq!(bit.name(), Some("use MSR bitmaps"));
        let word = PrimaryControls::default().with_use_msr_bitmaps(true);
        assert_eq!(word.into_bits(), 1 << bit.bit);
        assert!(word.use_msr_bitmaps() && !word.monitor_exiting());
        assert_eq!(word.with_use_msr_bitmaps(false), PrimaryControls::default());
    }

    #[test]
    fn a_reserved_bit_has_no_name() {
        assert_eq!(ControlBit { word: ControlWord::Secondary, bit: 29 }.name(), None);
        assert_eq!(ControlBit::SECURE_ARBITRATION_MODE.name(), Some("secure arbitration mode"));
    }

    #[test]
    fn the_debug_text_names_the_bits_that_are_set() {
        let word = EntryControls::from_bits(1 << 9 | 1 << 15);
        assert_eq!(format!("{word:?}"), "EntryControls(0x8200, IA-32e mode guest, load IA32_EFER)");
    }

    #[test]
    fn names_stand_in_ascending_order_of_bits() {
        for names in [
            PinBasedControls::NAMES,
            PrimaryControls::NAMES,
            SecondaryControls::NAMES,
            TertiaryControls::NAMES,
            ExitControls::NAMES,
            EntryControls::NAMES,
        ] {
            assert!(names.is_sorted_by(|a, b| a.0 < b.0), "{names:?}");
        }
    }
}
