//! The fields of a VMCS, in one table.
//!
//! Modelled: every field of SDM Appendix B "Field Encoding in VMCS", with its encoding, its title and the control that must exist for
//! the field to exist. From the table come the dense enum, the names, the dump and the checks that an encoding agrees with its heading.
//! Not modelled: the "high" access type is no field of its own; bit 0 of an encoding is handled once, by [`FieldAccess`].

use super::control::{
    ControlBit, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, TertiaryControls, VmFunctionControls,
};
use serde::{Deserialize, Serialize};

/// Width of a VMCS field: bits 14:13 of its encoding, SDM Appendix B "Field Encoding in VMCS".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum FieldWidth {
    /// 16 bits.
    Word = 0,
    /// 64 bits.
    Quadword = 1,
    /// 32 bits.
    Doubleword = 2,
    /// Natural width: 64 bits on a processor that supports Intel 64 architecture, 32 bits otherwise.
    Natural = 3,
}

impl FieldWidth {
    /// The bits that a field of this width can hold on a processor with Intel 64 architecture.
    pub const fn mask(self) -> u64 {
        match self {
            FieldWidth::Word => 0xffff,
            FieldWidth::Doubleword => 0xffff_ffff,
            FieldWidth::Quadword | FieldWidth::Natural => u64::MAX,
        }
    }

    /// Size in bytes on a processor with Intel 64 architecture.
    pub const fn bytes(self) -> u8 {
        match self {
            FieldWidth::Word => 2,
            FieldWidth::Doubleword => 4,
            FieldWidth::Quadword | FieldWidth::Natural => 8,
        }
    }
}

/// Area of a VMCS field: bits 11:10 of its encoding, SDM Appendix B "Field Encoding in VMCS".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum FieldArea {
    /// VM-execution, VM-exit and VM-entry control fields.
    Control = 0,
    /// VM-exit information fields, which are read-only unless IA32_VMX_MISC bit 29 is set.
    ExitInformation = 1,
    /// Guest-state area.
    Guest = 2,
    /// Host-state area.
    Host = 3,
}

/// How an operand of VMREAD or VMWRITE names a field: the field, and whether bit 0 (access type "high") selects its upper 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldAccess {
    /// The field.
    pub field: VmcsField,
    /// True where only bits 63:32 of a 64-bit field are accessed.
    pub high: bool,
}

impl FieldAccess {
    /// Decodes an operand of VMREAD or VMWRITE; `None` names no field of the architecture.
    ///
    /// SDM Appendix B "Field Encoding in VMCS": only 64-bit fields have the access type "high"; bits 31:15 and 12 are reserved.
    #[inline]
    pub const fn from_operand(operand: u64) -> Option<FieldAccess> {
        if operand > 0x7fff {
            return None;
        }
        let high = operand & 1 != 0;
        match VmcsField::from_encoding(operand as u16 & !1) {
            Some(field) if !high || matches!(field.width(), FieldWidth::Quadword) => Some(FieldAccess { field, high }),
            _ => None,
        }
    }

    /// The value that VMREAD returns when the field holds `stored`.
    pub const fn read(self, stored: u64) -> u64 {
        if self.high { stored >> 32 } else { stored }
    }

    /// What the field holds after VMWRITE of `value` when it held `stored`.
    pub const fn write(self, stored: u64, value: u64) -> u64 {
        if self.high { stored & 0xffff_ffff | value << 32 } else { value & self.field.width().mask() }
    }
}

/// Computes the encoding's width and area and compares them with the heading that a row stands under.
const fn agrees(encoding: u16, width: FieldWidth, area: FieldArea) -> bool {
    encoding >> 13 & 3 == width as u16 && encoding >> 10 & 3 == area as u16 && encoding & 0x9001 == 0
}

macro_rules! vmcs_fields {
    ($($width:ident $area:ident { $($name:ident = $encoding:literal, $title:literal $(if $($word:ident . $bit:ident)|+)?;)* })*) => {
        /// A field of the VMCS; as an integer, its dense index into storage of [`VmcsField::COUNT`] values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum VmcsField {
            $($(#[doc = concat!($title, ", encoding ", stringify!($encoding), ".")] $name,)*)*
        }

        $($(const _: () = assert!(
            agrees($encoding, FieldWidth::$width, FieldArea::$area),
            concat!(stringify!($name), " does not belong under its heading")
        );)*)*

        impl VmcsField {
            /// Every field, in the order of the SDM's tables.
            pub const ALL: &[VmcsField] = &[$($(VmcsField::$name,)*)*];

            /// Number of fields.
            pub const COUNT: usize = Self::ALL.len();

            const ENCODINGS: [u16; Self::COUNT] = [$($($encoding,)*)*];
            const TITLES: [&'static str; Self::COUNT] = [$($($title,)*)*];
            const IDENTIFIERS: [&'static str; Self::COUNT] = [$($(stringify!($name),)*)*];
            const REQUIREMENTS: [&'static [ControlBit]; Self::COUNT] = [$($(&[$($($word::$bit,)+)?],)*)*];
        }
    };
}

vmcs_fields! {
    Word Control {
        VirtualProcessorIdentifier = 0x0000, "Virtual-processor identifier (VPID)" if SecondaryControls.ENABLE_VPID;
        PostedInterruptNotificationVector = 0x0002, "Posted-interrupt notification vector" if PinBasedControls.PROCESS_POSTED_INTERRUPTS;
        EptpIndex = 0x0004, "EPTP index" if SecondaryControls.EPT_VIOLATION_VE;
        HlatPrefixSize = 0x0006, "HLAT prefix size" if TertiaryControls.ENABLE_HLAT;
        LastPidPointerIndex = 0x0008, "Last PID-pointer index" if TertiaryControls.IPI_VIRTUALIZATION;
    }
    Word Guest {
        GuestEsSelector = 0x0800, "Guest ES selector";
        GuestCsSelector = 0x0802, "Guest CS selector";
        GuestSsSelector = 0x0804, "Guest SS selector";
        GuestDsSelector = 0x0806, "Guest DS selector";
        GuestFsSelector = 0x0808, "Guest FS selector";
        GuestGsSelector = 0x080a, "Guest GS selector";
        GuestLdtrSelector = 0x080c, "Guest LDTR selector";
        GuestTrSelector = 0x080e, "Guest TR selector";
        GuestInterruptStatus = 0x0810, "Guest interrupt status" if SecondaryControls.VIRTUAL_INTERRUPT_DELIVERY;
        PmlIndex = 0x0812, "PML index" if SecondaryControls.ENABLE_PML;
        GuestUinv = 0x0814, "Guest UINV" if ExitControls.CLEAR_UINV | EntryControls.LOAD_UINV;
    }
    Word Host {
        HostEsSelector = 0x0c00, "Host ES selector";
        HostCsSelector = 0x0c02, "Host CS selector";
        HostSsSelector = 0x0c04, "Host SS selector";
        HostDsSelector = 0x0c06, "Host DS selector";
        HostFsSelector = 0x0c08, "Host FS selector";
        HostGsSelector = 0x0c0a, "Host GS selector";
        HostTrSelector = 0x0c0c, "Host TR selector";
    }
    Quadword Control {
        IoBitmapAAddress = 0x2000, "Address of I/O bitmap A";
        IoBitmapBAddress = 0x2002, "Address of I/O bitmap B";
        MsrBitmapAddress = 0x2004, "Address of MSR bitmaps" if PrimaryControls.USE_MSR_BITMAPS;
        ExitMsrStoreAddress = 0x2006, "VM-exit MSR-store address";
        ExitMsrLoadAddress = 0x2008, "VM-exit MSR-load address";
        EntryMsrLoadAddress = 0x200a, "VM-entry MSR-load address";
        ExecutiveVmcsPointer = 0x200c, "Executive-VMCS pointer";
        PmlAddress = 0x200e, "PML address" if SecondaryControls.ENABLE_PML;
        TscOffset = 0x2010, "TSC offset";
        VirtualApicAddress = 0x2012, "Virtual-APIC address" if PrimaryControls.USE_TPR_SHADOW;
        ApicAccessAddress = 0x2014, "APIC-access address" if SecondaryControls.VIRTUALIZE_APIC_ACCESSES;
        PostedInterruptDescriptorAddress = 0x2016, "Posted-interrupt descriptor address" if PinBasedControls.PROCESS_POSTED_INTERRUPTS;
        VmFunctionControls = 0x2018, "VM-function controls" if SecondaryControls.ENABLE_VM_FUNCTIONS;
        EptPointer = 0x201a, "EPT pointer (EPTP)" if SecondaryControls.ENABLE_EPT;
        EoiExitBitmap0 = 0x201c, "EOI-exit bitmap 0" if SecondaryControls.VIRTUAL_INTERRUPT_DELIVERY;
        EoiExitBitmap1 = 0x201e, "EOI-exit bitmap 1" if SecondaryControls.VIRTUAL_INTERRUPT_DELIVERY;
        EoiExitBitmap2 = 0x2020, "EOI-exit bitmap 2" if SecondaryControls.VIRTUAL_INTERRUPT_DELIVERY;
        EoiExitBitmap3 = 0x2022, "EOI-exit bitmap 3" if SecondaryControls.VIRTUAL_INTERRUPT_DELIVERY;
        EptpListAddress = 0x2024, "EPTP-list address" if VmFunctionControls.EPTP_SWITCHING;
        VmreadBitmapAddress = 0x2026, "VMREAD-bitmap address" if SecondaryControls.VMCS_SHADOWING;
        VmwriteBitmapAddress = 0x2028, "VMWRITE-bitmap address" if SecondaryControls.VMCS_SHADOWING;
        VirtualizationExceptionInformationAddress = 0x202a, "Virtualization-exception information address"
            if SecondaryControls.EPT_VIOLATION_VE;
        XssExitingBitmap = 0x202c, "XSS-exiting bitmap" if SecondaryControls.ENABLE_XSAVES_XRSTORS;
        EnclsExitingBitmap = 0x202e, "ENCLS-exiting bitmap" if SecondaryControls.ENABLE_ENCLS_EXITING;
        SubPagePermissionTablePointer = 0x2030, "Sub-page-permission-table pointer"
            if SecondaryControls.SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT;
        TscMultiplier = 0x2032, "TSC multiplier" if SecondaryControls.USE_TSC_SCALING;
        TertiaryProcessorBasedControls = 0x2034, "Tertiary processor-based VM-execution controls"
            if PrimaryControls.ACTIVATE_TERTIARY_CONTROLS;
        EnclvExitingBitmap = 0x2036, "ENCLV-exiting bitmap" if SecondaryControls.ENABLE_ENCLV_EXITING;
        LowPasidDirectoryAddress = 0x2038, "Low PASID directory address" if SecondaryControls.PASID_TRANSLATION;
        HighPasidDirectoryAddress = 0x203a, "High PASID directory address" if SecondaryControls.PASID_TRANSLATION;
        SharedEptPointer = 0x203c, "Shared EPT pointer" if ControlBit.SECURE_ARBITRATION_MODE;
        PconfigExitingBitmap = 0x203e, "PCONFIG-exiting bitmap" if SecondaryControls.ENABLE_PCONFIG;
        HlatPointer = 0x2040, "Hypervisor-managed linear-address translation pointer" if TertiaryControls.ENABLE_HLAT;
        PidPointerTableAddress = 0x2042, "PID-pointer table address" if TertiaryControls.IPI_VIRTUALIZATION;
        SecondaryExitControls = 0x2044, "Secondary VM-exit controls" if ExitControls.ACTIVATE_SECONDARY_CONTROLS;
        SpecCtrlMask = 0x204a, "IA32_SPEC_CTRL mask" if TertiaryControls.VIRTUALIZE_IA32_SPEC_CTRL;
        SpecCtrlShadow = 0x204c, "IA32_SPEC_CTRL shadow" if TertiaryControls.VIRTUALIZE_IA32_SPEC_CTRL;
    }
    Quadword ExitInformation {
        GuestPhysicalAddress = 0x2400, "Guest-physical address" if SecondaryControls.ENABLE_EPT;
    }
    Quadword Guest {
        VmcsLinkPointer = 0x2800, "VMCS link pointer";
        GuestDebugctl = 0x2802, "Guest IA32_DEBUGCTL";
        GuestPat = 0x2804, "Guest IA32_PAT" if EntryControls.LOAD_IA32_PAT | ExitControls.SAVE_IA32_PAT;
        GuestEfer = 0x2806, "Guest IA32_EFER" if EntryControls.LOAD_IA32_EFER | ExitControls.SAVE_IA32_EFER;
        GuestPerfGlobalCtrl = 0x2808, "Guest IA32_PERF_GLOBAL_CTRL" if EntryControls.LOAD_IA32_PERF_GLOBAL_CTRL;
        GuestPdpte0 = 0x280a, "Guest PDPTE0" if SecondaryControls.ENABLE_EPT;
        GuestPdpte1 = 0x280c, "Guest PDPTE1" if SecondaryControls.ENABLE_EPT;
        GuestPdpte2 = 0x280e, "Guest PDPTE2" if SecondaryControls.ENABLE_EPT;
        GuestPdpte3 = 0x2810, "Guest PDPTE3" if SecondaryControls.ENABLE_EPT;
        GuestBndcfgs = 0x2812, "Guest IA32_BNDCFGS" if EntryControls.LOAD_IA32_BNDCFGS | ExitControls.CLEAR_IA32_BNDCFGS;
        GuestRtitCtl = 0x2814, "Guest IA32_RTIT_CTL" if EntryControls.LOAD_IA32_RTIT_CTL | ExitControls.CLEAR_IA32_RTIT_CTL;
        GuestLbrCtl = 0x2816, "Guest IA32_LBR_CTL" if EntryControls.LOAD_GUEST_IA32_LBR_CTL | ExitControls.CLEAR_IA32_LBR_CTL;
        GuestPkrs = 0x2818, "Guest IA32_PKRS" if EntryControls.LOAD_PKRS;
    }
    Quadword Host {
        HostPat = 0x2c00, "Host IA32_PAT" if ExitControls.LOAD_IA32_PAT;
        HostEfer = 0x2c02, "Host IA32_EFER" if ExitControls.LOAD_IA32_EFER;
        HostPerfGlobalCtrl = 0x2c04, "Host IA32_PERF_GLOBAL_CTRL" if ExitControls.LOAD_IA32_PERF_GLOBAL_CTRL;
        HostPkrs = 0x2c06, "Host IA32_PKRS" if ExitControls.LOAD_PKRS;
    }
    Doubleword Control {
        PinBasedControls = 0x4000, "Pin-based VM-execution controls";
        PrimaryProcessorBasedControls = 0x4002, "Primary processor-based VM-execution controls";
        ExceptionBitmap = 0x4004, "Exception bitmap";
        PageFaultErrorCodeMask = 0x4006, "Page-fault error-code mask";
        PageFaultErrorCodeMatch = 0x4008, "Page-fault error-code match";
        Cr3TargetCount = 0x400a, "CR3-target count";
        PrimaryExitControls = 0x400c, "Primary VM-exit controls";
        ExitMsrStoreCount = 0x400e, "VM-exit MSR-store count";
        ExitMsrLoadCount = 0x4010, "VM-exit MSR-load count";
        EntryControls = 0x4012, "VM-entry controls";
        EntryMsrLoadCount = 0x4014, "VM-entry MSR-load count";
        EntryInterruptionInformation = 0x4016, "VM-entry interruption-information field";
        EntryExceptionErrorCode = 0x4018, "VM-entry exception error code";
        EntryInstructionLength = 0x401a, "VM-entry instruction length";
        TprThreshold = 0x401c, "TPR threshold" if PrimaryControls.USE_TPR_SHADOW;
        SecondaryProcessorBasedControls = 0x401e, "Secondary processor-based VM-execution controls"
            if PrimaryControls.ACTIVATE_SECONDARY_CONTROLS;
        PleGap = 0x4020, "PLE_Gap" if SecondaryControls.PAUSE_LOOP_EXITING;
        PleWindow = 0x4022, "PLE_Window" if SecondaryControls.PAUSE_LOOP_EXITING;
        InstructionTimeoutControl = 0x4024, "Instruction-timeout control" if SecondaryControls.INSTRUCTION_TIMEOUT;
    }
    Doubleword ExitInformation {
        VmInstructionError = 0x4400, "VM-instruction error";
        ExitReason = 0x4402, "Exit reason";
        ExitInterruptionInformation = 0x4404, "VM-exit interruption information";
        ExitInterruptionErrorCode = 0x4406, "VM-exit interruption error code";
        IdtVectoringInformation = 0x4408, "IDT-vectoring information field";
        IdtVectoringErrorCode = 0x440a, "IDT-vectoring error code";
        ExitInstructionLength = 0x440c, "VM-exit instruction length";
        ExitInstructionInformation = 0x440e, "VM-exit instruction information";
    }
    Doubleword Guest {
        GuestEsLimit = 0x4800, "Guest ES limit";
        GuestCsLimit = 0x4802, "Guest CS limit";
        GuestSsLimit = 0x4804, "Guest SS limit";
        GuestDsLimit = 0x4806, "Guest DS limit";
        GuestFsLimit = 0x4808, "Guest FS limit";
        GuestGsLimit = 0x480a, "Guest GS limit";
        GuestLdtrLimit = 0x480c, "Guest LDTR limit";
        GuestTrLimit = 0x480e, "Guest TR limit";
        GuestGdtrLimit = 0x4810, "Guest GDTR limit";
        GuestIdtrLimit = 0x4812, "Guest IDTR limit";
        GuestEsAccessRights = 0x4814, "Guest ES access rights";
        GuestCsAccessRights = 0x4816, "Guest CS access rights";
        GuestSsAccessRights = 0x4818, "Guest SS access rights";
        GuestDsAccessRights = 0x481a, "Guest DS access rights";
        GuestFsAccessRights = 0x481c, "Guest FS access rights";
        GuestGsAccessRights = 0x481e, "Guest GS access rights";
        GuestLdtrAccessRights = 0x4820, "Guest LDTR access rights";
        GuestTrAccessRights = 0x4822, "Guest TR access rights";
        GuestInterruptibilityState = 0x4824, "Guest interruptibility state";
        GuestActivityState = 0x4826, "Guest activity state";
        GuestSmbase = 0x4828, "Guest SMBASE";
        GuestSysenterCs = 0x482a, "Guest IA32_SYSENTER_CS";
        VmxPreemptionTimerValue = 0x482e, "VMX-preemption timer value" if PinBasedControls.ACTIVATE_VMX_PREEMPTION_TIMER;
    }
    Doubleword Host {
        HostSysenterCs = 0x4c00, "Host IA32_SYSENTER_CS";
    }
    Natural Control {
        Cr0GuestHostMask = 0x6000, "CR0 guest/host mask";
        Cr4GuestHostMask = 0x6002, "CR4 guest/host mask";
        Cr0ReadShadow = 0x6004, "CR0 read shadow";
        Cr4ReadShadow = 0x6006, "CR4 read shadow";
        Cr3TargetValue0 = 0x6008, "CR3-target value 0";
        Cr3TargetValue1 = 0x600a, "CR3-target value 1";
        Cr3TargetValue2 = 0x600c, "CR3-target value 2";
        Cr3TargetValue3 = 0x600e, "CR3-target value 3";
    }
    Natural ExitInformation {
        ExitQualification = 0x6400, "Exit qualification";
        IoRcx = 0x6402, "I/O RCX";
        IoRsi = 0x6404, "I/O RSI";
        IoRdi = 0x6406, "I/O RDI";
        IoRip = 0x6408, "I/O RIP";
        GuestLinearAddress = 0x640a, "Guest-linear address";
    }
    Natural Guest {
        GuestCr0 = 0x6800, "Guest CR0";
        GuestCr3 = 0x6802, "Guest CR3";
        GuestCr4 = 0x6804, "Guest CR4";
        GuestEsBase = 0x6806, "Guest ES base";
        GuestCsBase = 0x6808, "Guest CS base";
        GuestSsBase = 0x680a, "Guest SS base";
        GuestDsBase = 0x680c, "Guest DS base";
        GuestFsBase = 0x680e, "Guest FS base";
        GuestGsBase = 0x6810, "Guest GS base";
        GuestLdtrBase = 0x6812, "Guest LDTR base";
        GuestTrBase = 0x6814, "Guest TR base";
        GuestGdtrBase = 0x6816, "Guest GDTR base";
        GuestIdtrBase = 0x6818, "Guest IDTR base";
        GuestDr7 = 0x681a, "Guest DR7";
        GuestRsp = 0x681c, "Guest RSP";
        GuestRip = 0x681e, "Guest RIP";
        GuestRflags = 0x6820, "Guest RFLAGS";
        GuestPendingDebugExceptions = 0x6822, "Guest pending debug exceptions";
        GuestSysenterEsp = 0x6824, "Guest IA32_SYSENTER_ESP";
        GuestSysenterEip = 0x6826, "Guest IA32_SYSENTER_EIP";
        GuestSCet = 0x6828, "Guest IA32_S_CET" if EntryControls.LOAD_CET_STATE;
        GuestSsp = 0x682a, "Guest SSP" if EntryControls.LOAD_CET_STATE;
        GuestInterruptSspTableAddress = 0x682c, "Guest IA32_INTERRUPT_SSP_TABLE_ADDR" if EntryControls.LOAD_CET_STATE;
    }
    Natural Host {
        HostCr0 = 0x6c00, "Host CR0";
        HostCr3 = 0x6c02, "Host CR3";
        HostCr4 = 0x6c04, "Host CR4";
        HostFsBase = 0x6c06, "Host FS base";
        HostGsBase = 0x6c08, "Host GS base";
        HostTrBase = 0x6c0a, "Host TR base";
        HostGdtrBase = 0x6c0c, "Host GDTR base";
        HostIdtrBase = 0x6c0e, "Host IDTR base";
        HostSysenterEsp = 0x6c10, "Host IA32_SYSENTER_ESP";
        HostSysenterEip = 0x6c12, "Host IA32_SYSENTER_EIP";
        HostRsp = 0x6c14, "Host RSP";
        HostRip = 0x6c16, "Host RIP";
        HostSCet = 0x6c18, "Host IA32_S_CET" if ExitControls.LOAD_CET_STATE;
        HostSsp = 0x6c1a, "Host SSP" if ExitControls.LOAD_CET_STATE;
        HostInterruptSspTableAddress = 0x6c1c, "Host IA32_INTERRUPT_SSP_TABLE_ADDR" if ExitControls.LOAD_CET_STATE;
    }
}

/// Bits 14:1 of an encoding, which alone differ among fields.
const ENCODING_PLACES: usize = 1 << 14;

/// The fields by bits 14:1 of their encodings.
static BY_ENCODING: [Option<VmcsField>; ENCODING_PLACES] = {
    let mut table = [None; ENCODING_PLACES];
    let mut index = 0;
    while index < VmcsField::COUNT {
        let place = (VmcsField::ENCODINGS[index] >> 1) as usize;
        assert!(table[place].is_none(), "two fields have one encoding");
        table[place] = Some(VmcsField::ALL[index]);
        index += 1;
    }
    table
};

impl VmcsField {
    /// The encoding that VMREAD and VMWRITE take, with access type "full".
    #[inline]
    pub const fn encoding(self) -> u16 {
        Self::ENCODINGS[self as usize]
    }

    /// The field with this encoding (access type "full"); `None` where the architecture has none.
    #[inline]
    pub const fn from_encoding(encoding: u16) -> Option<VmcsField> {
        if encoding & 0x8001 != 0 {
            return None;
        }
        BY_ENCODING[(encoding >> 1) as usize]
    }

    /// Width, from bits 14:13 of the encoding.
    #[inline]
    pub const fn width(self) -> FieldWidth {
        match self.encoding() >> 13 & 3 {
            0 => FieldWidth::Word,
            1 => FieldWidth::Quadword,
            2 => FieldWidth::Doubleword,
            _ => FieldWidth::Natural,
        }
    }

    /// Area, from bits 11:10 of the encoding.
    #[inline]
    pub const fn area(self) -> FieldArea {
        match self.encoding() >> 10 & 3 {
            0 => FieldArea::Control,
            1 => FieldArea::ExitInformation,
            2 => FieldArea::Guest,
            _ => FieldArea::Host,
        }
    }

    /// The manual's title of the field, for dumps and messages.
    pub const fn name(self) -> &'static str {
        Self::TITLES[self as usize]
    }

    /// The field's name in this project's sources and JSON, such as `GuestCr0`.
    pub const fn identifier(self) -> &'static str {
        Self::IDENTIFIERS[self as usize]
    }

    /// The field with this [identifier](Self::identifier).
    pub fn from_identifier(identifier: &str) -> Option<VmcsField> {
        Self::ALL.iter().copied().find(|field| field.identifier() == identifier)
    }

    /// The controls of which at least one must be allowed to be 1 for the field to exist; empty where it always exists.
    ///
    /// SDM Appendix B "Field Encoding in VMCS", the notes under each table.
    pub const fn requires_one_of(self) -> &'static [ControlBit] {
        Self::REQUIREMENTS[self as usize]
    }

    /// Index of the field in dense storage.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The bits of the encoding that index the field within its width and area (9:1), as IA32_VMX_VMCS_ENUM reports the highest.
    pub const fn index_within_area(self) -> u16 {
        self.encoding() >> 1 & 0x1ff
    }
}

impl std::fmt::Display for VmcsField {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_encoding_and_identifier() {
        for &field in VmcsField::ALL {
            assert_eq!(VmcsField::from_encoding(field.encoding()), Some(field));
            assert_eq!(VmcsField::from_identifier(field.identifier()), Some(field));
            assert_eq!(VmcsField::ALL[field.index()], field);
        }
    }

    #[test]
    fn no_other_encoding_is_found() {
        let found = (0..=u16::MAX).filter_map(VmcsField::from_encoding).count();
        assert_eq!(found, VmcsField::COUNT);
    }

    #[test]
    fn only_64_bit_fields_have_a_high_half() {
        for &field in VmcsField::ALL {
            let high = FieldAccess::from_operand(u64::from(field.encoding()) | 1);
            assert_eq!(high.is_some(), field.width() == FieldWidth::Quadword, "{field}");
        }
    }

    #[test]
    fn an_operand_with_reserved_bits_names_no_field() {
        let operand = u64::from(VmcsField::GuestCr0.encoding());
        assert!(FieldAccess::from_operand(operand).is_some());
        for bit in (12..13).chain(15..64) {
            assert_eq!(FieldAccess::from_operand(operand | 1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn the_high_half_is_read_and_written_alone() {
        let low = FieldAccess::from_operand(0x201a).unwrap();
        let high = FieldAccess::from_operand(0x201b).unwrap();
        let stored = 0x1111_2222_3333_4444;
        assert_eq!(low.read(stored), stored);
        assert_eq!(high.read(stored), 0x1111_2222);
        assert_eq!(high.write(stored, 0xaaaa_bbbb), 0xaaaa_bbbb_3333_4444);
        assert_eq!(low.write(stored, 5), 5);
    }

    #[test]
    fn a_write_is_cut_to_the_width_of_the_field() {
        for (operand, expected) in [(0x0800, 0x7788), (0x4800, 0x5566_7788), (0x6800, 0x1122_3344_5566_7788)] {
            let access = FieldAccess::from_operand(operand).unwrap();
            assert_eq!(access.write(u64::MAX, 0x1122_3344_5566_7788), expected, "{operand:#x}");
        }
    }
}
