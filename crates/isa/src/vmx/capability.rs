//! The VMX capability MSRs: which number, and what their bits say.
//!
//! Modelled: every MSR of SDM Appendix A "VMX Capability Reporting Facility", and one struct that a CPU model fills with what its
//! processor offers. Not modelled: the values themselves, which belong to the CPU models.

use super::control::{ControlBit, ControlWord, ExitControls, PrimaryControls, SecondaryControls};
use super::field::VmcsField;
use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

macro_rules! capability_msrs {
    ($($name:ident = $number:literal, $manual:literal;)*) => {
        /// A VMX capability MSR, SDM Appendix A "VMX Capability Reporting Facility".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u32)]
        pub enum CapabilityMsr {
            $(#[doc = concat!($manual, ".")] $name = $number,)*
        }

        impl CapabilityMsr {
            /// Every capability MSR, in ascending order.
            pub const ALL: &[CapabilityMsr] = &[$(CapabilityMsr::$name,)*];

            /// The number that RDMSR takes.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The manual's name.
            pub const fn name(self) -> &'static str {
                match self { $(CapabilityMsr::$name => $manual,)* }
            }

            /// The capability MSR with this number; `None` where the number is another's.
            pub const fn from_number(number: u32) -> Option<CapabilityMsr> {
                match number { $($number => Some(CapabilityMsr::$name),)* _ => None }
            }
        }
    };
}

capability_msrs! {
    Basic = 0x480, "IA32_VMX_BASIC";
    PinBased = 0x481, "IA32_VMX_PINBASED_CTLS";
    Primary = 0x482, "IA32_VMX_PROCBASED_CTLS";
    Exit = 0x483, "IA32_VMX_EXIT_CTLS";
    Entry = 0x484, "IA32_VMX_ENTRY_CTLS";
    Misc = 0x485, "IA32_VMX_MISC";
    Cr0Fixed0 = 0x486, "IA32_VMX_CR0_FIXED0";
    Cr0Fixed1 = 0x487, "IA32_VMX_CR0_FIXED1";
    Cr4Fixed0 = 0x488, "IA32_VMX_CR4_FIXED0";
    Cr4Fixed1 = 0x489, "IA32_VMX_CR4_FIXED1";
    VmcsEnum = 0x48a, "IA32_VMX_VMCS_ENUM";
    Secondary = 0x48b, "IA32_VMX_PROCBASED_CTLS2";
    EptVpid = 0x48c, "IA32_VMX_EPT_VPID_CAP";
    TruePinBased = 0x48d, "IA32_VMX_TRUE_PINBASED_CTLS";
    TruePrimary = 0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS";
    TrueExit = 0x48f, "IA32_VMX_TRUE_EXIT_CTLS";
    TrueEntry = 0x490, "IA32_VMX_TRUE_ENTRY_CTLS";
    VmFunction = 0x491, "IA32_VMX_VMFUNC";
    Tertiary = 0x492, "IA32_VMX_PROCBASED_CTLS3";
    SecondaryExit = 0x493, "IA32_VMX_EXIT_CTLS2";
}

/// IA32_VMX_BASIC, SDM A.1 "Basic VMX Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct VmxBasic {
    /// VMCS revision identifier.
    #[bits(31)]
    pub revision: u32,
    __: bool,
    /// Bytes to allocate for a VMXON or VMCS region, at most 4096.
    #[bits(13)]
    pub region_size: u16,
    #[bits(3)]
    __: u8,
    /// Physical addresses of VMXON regions, VMCSs and what they point to are limited to 32 bits.
    pub addresses_limited_to_32_bits: bool,
    /// The dual-monitor treatment of SMIs and SMM is supported.
    pub dual_monitor: bool,
    /// Memory type for accesses to VMCSs: 0 uncacheable, 6 write-back.
    #[bits(4)]
    pub memory_type: u8,
    /// Exits due to INS and OUTS report in the instruction-information field.
    pub io_instruction_information: bool,
    /// The TRUE capability MSRs exist: default1 controls may be 0.
    pub true_controls: bool,
    /// VM entry can inject any hardware exception with or without an error code.
    pub any_error_code: bool,
    #[bits(7)]
    __: u8,
}

/// Layout of the 32-bit control words' capability MSRs, SDM A.3 "VM-Execution Controls", A.4 "VM-Exit Controls", A.5 "VM-Entry Controls".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedSettings {
    /// Allowed 0-settings: a control must be 1 where its bit here is 1.
    pub must_be_one: u32,
    /// Allowed 1-settings: a control may be 1 where its bit here is 1.
    pub may_be_one: u32,
}

impl AllowedSettings {
    /// True where each bit of `controls` has a setting that is allowed.
    pub const fn allow(self, controls: u32) -> bool {
        controls & self.must_be_one() == self.must_be_one() && controls & !self.may_be_one() == 0
    }

    /// `wanted`, with what must be 1 added and what must be 0 taken away: what software writes into the VMCS.
    pub const fn adjust(self, wanted: u32) -> u32 {
        (wanted | self.must_be_one()) & self.may_be_one()
    }
}

/// IA32_VMX_MISC, SDM A.6 "Miscellaneous Data".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct VmxMisc {
    /// The VMX-preemption timer counts down by 1 each time this bit of the TSC changes.
    #[bits(5)]
    pub preemption_timer_rate: u8,
    /// VM exits store IA32_EFER.LMA into the "IA-32e mode guest" VM-entry control.
    pub store_efer_lma: bool,
    /// The activity state HLT is supported.
    pub activity_hlt: bool,
    /// The activity state shutdown is supported.
    pub activity_shutdown: bool,
    /// The activity state wait-for-SIPI is supported.
    pub activity_wait_for_sipi: bool,
    #[bits(5)]
    __: u8,
    /// Intel Processor Trace can be used in VMX operation.
    pub processor_trace: bool,
    /// RDMSR in SMM can read IA32_SMBASE.
    pub rdmsr_smbase: bool,
    /// Number of CR3-target values.
    #[bits(9)]
    pub cr3_target_count: u16,
    /// The recommended limit of MSR lists is 512 times (this + 1).
    #[bits(3)]
    pub msr_list_limit: u8,
    /// IA32_SMM_MONITOR_CTL bit 2 can be set.
    pub smm_monitor_bit_2: bool,
    /// VMWRITE can write to any supported field, VM-exit information fields included.
    pub vmwrite_exit_information: bool,
    /// VM entry can inject a software event with an instruction length of 0.
    pub zero_length_injection: bool,
    __: bool,
    /// MSEG revision identifier.
    pub mseg_revision: u32,
}

impl VmxMisc {
    /// The recommended limit of the number of entries in an MSR list.
    pub const fn maximum_msr_list(self) -> u32 {
        512 * (self.msr_list_limit() as u32 + 1)
    }
}

/// IA32_VMX_VMCS_ENUM, SDM A.9 "VMCS Enumeration".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct VmcsEnum {
    __: bool,
    /// Highest index (bits 9:1 of an encoding) of any field that the processor supports.
    #[bits(9)]
    pub highest_index: u16,
    #[bits(54)]
    __: u64,
}

/// IA32_VMX_EPT_VPID_CAP, SDM A.10 "VPID and EPT Capabilities".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct EptVpidCapabilities {
    /// Execute-only translations.
    pub execute_only: bool,
    #[bits(5)]
    __: u8,
    /// Page-walk length of 4.
    pub walk_length_4: bool,
    /// Page-walk length of 5.
    pub walk_length_5: bool,
    /// EPT paging structures may be uncacheable.
    pub uncacheable: bool,
    #[bits(5)]
    __: u8,
    /// EPT paging structures may be write-back.
    pub write_back: bool,
    __: bool,
    /// 2 MiB pages.
    pub pages_2_mib: bool,
    /// 1 GiB pages.
    pub pages_1_gib: bool,
    #[bits(2)]
    __: u8,
    /// INVEPT is supported.
    pub invept: bool,
    /// Accessed and dirty flags for EPT.
    pub accessed_dirty: bool,
    /// Advanced VM-exit information for EPT violations.
    pub advanced_violation_information: bool,
    /// Supervisor shadow-stack control.
    pub supervisor_shadow_stack: bool,
    __: bool,
    /// INVEPT type "single-context".
    pub invept_single_context: bool,
    /// INVEPT type "all-context".
    pub invept_all_context: bool,
    #[bits(5)]
    __: u8,
    /// INVVPID is supported.
    pub invvpid: bool,
    #[bits(7)]
    __: u8,
    /// INVVPID type "individual-address".
    pub invvpid_individual_address: bool,
    /// INVVPID type "single-context".
    pub invvpid_single_context: bool,
    /// INVVPID type "all-context".
    pub invvpid_all_context: bool,
    /// INVVPID type "single-context-retaining-globals".
    pub invvpid_single_context_retaining_globals: bool,
    #[bits(4)]
    __: u8,
    /// Maximum HLAT prefix size.
    #[bits(6)]
    pub maximum_hlat_prefix: u8,
    #[bits(10)]
    __: u16,
}

/// Everything that the capability MSRs of one processor report, as data of a CPU model.
///
/// The control words hold the TRUE settings; what the older MSRs report follows from them and the default1 class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmxCapabilities {
    /// IA32_VMX_BASIC.
    pub basic: VmxBasic,
    /// IA32_VMX_TRUE_PINBASED_CTLS.
    pub pin_based: AllowedSettings,
    /// IA32_VMX_TRUE_PROCBASED_CTLS.
    pub primary: AllowedSettings,
    /// IA32_VMX_PROCBASED_CTLS2; it exists where the primary controls may activate the secondary ones.
    pub secondary: AllowedSettings,
    /// IA32_VMX_PROCBASED_CTLS3: allowed 1-settings; it exists where the primary controls may activate the tertiary ones.
    pub tertiary: u64,
    /// IA32_VMX_TRUE_EXIT_CTLS.
    pub exit: AllowedSettings,
    /// IA32_VMX_EXIT_CTLS2: allowed 1-settings; it exists where the VM-exit controls may activate the secondary ones.
    pub secondary_exit: u64,
    /// IA32_VMX_TRUE_ENTRY_CTLS.
    pub entry: AllowedSettings,
    /// IA32_VMX_MISC.
    pub misc: VmxMisc,
    /// IA32_VMX_CR0_FIXED0: bits of CR0 that must be 1 in VMX operation.
    pub cr0_fixed0: u64,
    /// IA32_VMX_CR0_FIXED1: bits of CR0 that may be 1 in VMX operation.
    pub cr0_fixed1: u64,
    /// IA32_VMX_CR4_FIXED0: bits of CR4 that must be 1 in VMX operation.
    pub cr4_fixed0: u64,
    /// IA32_VMX_CR4_FIXED1: bits of CR4 that may be 1 in VMX operation.
    pub cr4_fixed1: u64,
    /// IA32_VMX_EPT_VPID_CAP; it exists where the secondary controls allow "enable EPT" or "enable VPID".
    pub ept_vpid: EptVpidCapabilities,
    /// IA32_VMX_VMFUNC: allowed VM functions; it exists where the secondary controls allow "enable VM functions".
    pub vm_functions: u64,
}

impl VmxCapabilities {
    /// Default1 class of the pin-based controls, SDM A.3.1 "Pin-Based VM-Execution Controls".
    pub const PIN_BASED_DEFAULT1: u32 = 0x0000_0016;
    /// Default1 class of the primary processor-based controls, SDM A.3.2 "Primary Processor-Based VM-Execution Controls".
    pub const PRIMARY_DEFAULT1: u32 = 0x0401_e172;
    /// Default1 class of the VM-exit controls, SDM A.4.1 "Primary VM-Exit Controls".
    pub const EXIT_DEFAULT1: u32 = 0x0003_6dff;
    /// Default1 class of the VM-entry controls, SDM A.5 "VM-Entry Controls".
    pub const ENTRY_DEFAULT1: u32 = 0x0000_11ff;

    /// True where the control may be 1.
    pub const fn may_be_one(&self, control: ControlBit) -> bool {
        let allowed = match control.word {
            ControlWord::PinBased => self.pin_based.may_be_one() as u64,
            ControlWord::Primary => self.primary.may_be_one() as u64,
            ControlWord::Secondary if self.has_secondary() => self.secondary.may_be_one() as u64,
            ControlWord::Tertiary if self.has_tertiary() => self.tertiary,
            ControlWord::Exit => self.exit.may_be_one() as u64,
            ControlWord::SecondaryExit if self.has_secondary_exit() => self.secondary_exit,
            ControlWord::Entry => self.entry.may_be_one() as u64,
            ControlWord::VmFunction if self.has_secondary() => self.vm_functions,
            _ => 0,
        };
        allowed >> control.bit & 1 != 0
    }

    /// True where the processor has secondary processor-based controls.
    pub const fn has_secondary(&self) -> bool {
        self.primary.may_be_one() >> PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bit & 1 != 0
    }

    /// True where the processor has tertiary processor-based controls.
    pub const fn has_tertiary(&self) -> bool {
        self.primary.may_be_one() >> PrimaryControls::ACTIVATE_TERTIARY_CONTROLS.bit & 1 != 0
    }

    /// True where the processor has secondary VM-exit controls.
    pub const fn has_secondary_exit(&self) -> bool {
        self.exit.may_be_one() >> ExitControls::ACTIVATE_SECONDARY_CONTROLS.bit & 1 != 0
    }

    /// True where the processor has the field.
    pub fn has_field(&self, field: VmcsField) -> bool {
        let requirements = field.requires_one_of();
        requirements.is_empty() || requirements.iter().any(|&control| self.may_be_one(control))
    }

    /// The value that RDMSR returns; `None` where the processor has no such MSR.
    pub fn read(&self, msr: CapabilityMsr) -> Option<u64> {
        let with_default1 =
            |settings: AllowedSettings, default1: u32| settings.with_must_be_one(settings.must_be_one() | default1).into_bits();
        let only = |exists: bool, value: u64| exists.then_some(value);
        let true_controls = self.basic.true_controls();
        match msr {
            CapabilityMsr::Basic => Some(self.basic.into_bits()),
            CapabilityMsr::PinBased => Some(with_default1(self.pin_based, Self::PIN_BASED_DEFAULT1)),
            CapabilityMsr::Primary => Some(with_default1(self.primary, Self::PRIMARY_DEFAULT1)),
            CapabilityMsr::Exit => Some(with_default1(self.exit, Self::EXIT_DEFAULT1)),
            CapabilityMsr::Entry => Some(with_default1(self.entry, Self::ENTRY_DEFAULT1)),
            CapabilityMsr::Misc => Some(self.misc.into_bits()),
            CapabilityMsr::Cr0Fixed0 => Some(self.cr0_fixed0),
            CapabilityMsr::Cr0Fixed1 => Some(self.cr0_fixed1),
            CapabilityMsr::Cr4Fixed0 => Some(self.cr4_fixed0),
            CapabilityMsr::Cr4Fixed1 => Some(self.cr4_fixed1),
            CapabilityMsr::VmcsEnum => {
                let fields = VmcsField::ALL.iter().filter(|&&field| self.has_field(field));
                let highest = fields.map(|field| field.index_within_area()).max().unwrap_or(0);
                Some(VmcsEnum::new().with_highest_index(highest).into_bits())
            }
            CapabilityMsr::Secondary => only(self.has_secondary(), self.secondary.into_bits()),
            CapabilityMsr::EptVpid => {
                let exists = self.may_be_one(SecondaryControls::ENABLE_EPT) || self.may_be_one(SecondaryControls::ENABLE_VPID);
                only(exists, self.ept_vpid.into_bits())
            }
            CapabilityMsr::TruePinBased => only(true_controls, self.pin_based.into_bits()),
            CapabilityMsr::TruePrimary => only(true_controls, self.primary.into_bits()),
            CapabilityMsr::TrueExit => only(true_controls, self.exit.into_bits()),
            CapabilityMsr::TrueEntry => only(true_controls, self.entry.into_bits()),
            CapabilityMsr::VmFunction => only(self.may_be_one(SecondaryControls::ENABLE_VM_FUNCTIONS), self.vm_functions),
            CapabilityMsr::Tertiary => only(self.has_tertiary(), self.tertiary),
            CapabilityMsr::SecondaryExit => only(self.has_secondary_exit(), self.secondary_exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways_without_a_gap() {
        for (index, &msr) in CapabilityMsr::ALL.iter().enumerate() {
            assert_eq!(msr.number(), 0x480 + index as u32);
            assert_eq!(CapabilityMsr::from_number(msr.number()), Some(msr));
        }
        assert_eq!(CapabilityMsr::from_number(0x494), None);
    }

    #[test]
    fn a_setting_is_allowed_by_both_halves() {
        let settings = AllowedSettings::new().with_must_be_one(0b0011).with_may_be_one(0b0111);
        assert!(settings.allow(0b0011) && settings.allow(0b0111));
        assert!(!settings.allow(0b0001) && !settings.allow(0b1011));
        assert_eq!(settings.adjust(0b1100), 0b0111);
    }

    #[test]
    fn the_places_of_capability_bits() {
        let rows = [
            (VmxBasic::new().with_true_controls(true).into_bits(), 55),
            (VmxBasic::new().with_dual_monitor(true).into_bits(), 49),
            (VmxMisc::new().with_store_efer_lma(true).into_bits(), 5),
            (VmxMisc::new().with_cr3_target_count(1).into_bits(), 16),
            (VmxMisc::new().with_vmwrite_exit_information(true).into_bits(), 29),
            (VmcsEnum::new().with_highest_index(1).into_bits(), 1),
            (EptVpidCapabilities::new().with_walk_length_4(true).into_bits(), 6),
            (EptVpidCapabilities::new().with_write_back(true).into_bits(), 14),
            (EptVpidCapabilities::new().with_pages_1_gib(true).into_bits(), 17),
            (EptVpidCapabilities::new().with_accessed_dirty(true).into_bits(), 21),
            (EptVpidCapabilities::new().with_invept_all_context(true).into_bits(), 26),
            (EptVpidCapabilities::new().with_invvpid(true).into_bits(), 32),
            (EptVpidCapabilities::new().with_invvpid_single_context_retaining_globals(true).into_bits(), 43),
            (EptVpidCapabilities::new().with_maximum_hlat_prefix(1).into_bits(), 48),
        ];
        for (bits, place) in rows {
            assert_eq!(bits, 1 << place);
        }
    }

    fn merom_like() -> VmxCapabilities {
        VmxCapabilities {
            basic: VmxBasic::new().with_revision(7),
            primary: AllowedSettings::new().with_must_be_one(0x0400_6172).with_may_be_one(0x77b9_fffe),
            ..VmxCapabilities::default()
        }
    }

    #[test]
    fn a_processor_without_secondary_controls_has_neither_their_msr_nor_their_fields() {
        let capabilities = merom_like();
        assert_eq!(capabilities.read(CapabilityMsr::Secondary), None);
        assert_eq!(capabilities.read(CapabilityMsr::EptVpid), None);
        assert!(!capabilities.has_field(VmcsField::EptPointer));
        assert!(capabilities.has_field(VmcsField::VirtualApicAddress));
        assert!(capabilities.has_field(VmcsField::GuestRip));
    }

    #[test]
    fn the_older_msr_reports_the_default1_class_as_fixed() {
        let capabilities = merom_like();
        assert_eq!(capabilities.read(CapabilityMsr::Primary), Some(0x77b9_fffe_0401_e172));
        assert_eq!(capabilities.read(CapabilityMsr::TruePrimary), None);
    }

    #[test]
    fn the_enumeration_reports_the_highest_index_of_the_fields_that_exist() {
        let highest = |capabilities: &VmxCapabilities| capabilities.read(CapabilityMsr::VmcsEnum).map(|bits| bits >> 1);
        assert_eq!(highest(&merom_like()), Some(0x15));
        let mut timer = merom_like();
        timer.pin_based.set_may_be_one(1 << 6);
        assert_eq!(highest(&timer), Some(0x17));
    }
}
