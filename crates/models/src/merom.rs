//! Merom: Intel Core 2 of 2006, the Intel processor of the year in which KVM was written.
//!
//! What is modelled: VMX as it began: no EPT, no VPID, no unrestricted guest, no virtual NMIs, no NMI-window exiting, no secondary
//! controls, no PAT or EFER in the VMCS. A hypervisor needs shadow paging here, and an emulator (or virtual-8086 mode)
//! for a guest in real mode. No 1-GByte pages, RDTSCP, x2APIC, PCID or XSAVE.
//!
//! What is not, though the real processor has it: machine checks, MTRRs, MONITOR, SMX,
//! the dual-monitor treatment of SMM, performance counters.

use crate::cache::{Cache, CacheKind};
use crate::cpuid::CpuidRow;
use crate::last_branches::LastBranchMsrs;
use crate::model::{CpuModel, MsrValue, Vendor};
use crate::supported::supported_cr4;
use crate::vmx::settings;
use isa::cpuid::{CpuidResult, Feature};
use isa::msr;
use isa::vmx::{
    AllowedSettings, ControlWord, EntryControls, EptVpidCapabilities, ExitControls, PinBasedControls, PrimaryControls, VmxBasic,
    VmxCapabilities, VmxMisc,
};

/// In the order of [`Feature::ALL`].
const FEATURES: &[Feature] = &[
    Feature::Fpu,
    Feature::Vme,
    Feature::De,
    Feature::Pse,
    Feature::Tsc,
    Feature::Msr,
    Feature::Pae,
    Feature::Cx8,
    Feature::Apic,
    Feature::Sep,
    Feature::Pge,
    Feature::Cmov,
    Feature::Pat,
    Feature::Pse36,
    Feature::Clfsh,
    Feature::Mmx,
    Feature::Fxsr,
    Feature::Sse,
    Feature::Sse2,
    Feature::Sse3,
    Feature::Monitor,
    Feature::Vmx,
    Feature::Ssse3,
    Feature::Cx16,
    Feature::Syscall,
    Feature::Nx,
    Feature::LongMode,
    Feature::Lahf64,
    Feature::EffectiveFrequency,
];

/// Core 2 Duo T7200.
pub const MEROM: CpuModel = CpuModel {
    name: "merom",
    title: "Intel Core 2 Duo, Merom",
    vendor: Vendor::Intel,
    year: 2006,
    tsc_hz: 2_000_000_000,
    physical_address_bits: 36,
    linear_address_bits: 48,
    // Family 6, model 15, stepping 6.
    signature: 0x0000_06f6,
    brand: "Intel(R) Core(TM)2 CPU         T7200  @ 2.00GHz",
    maximum_basic_leaf: 0xa,
    maximum_extended_leaf: 0x8000_0008,
    cpuid_features: FEATURES,
    caches: &[
        Cache { level: 1, kind: CacheKind::Data, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 1, kind: CacheKind::Instruction, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 2, kind: CacheKind::Unified, ways: 16, sets: 4096, line_bytes: 64, shared: true },
    ],
    cpuid_rows: &[
        CpuidRow {
            leaf: 2,
            value: CpuidResult { eax: 0x05b0_b101, ebx: 0x0056_57f0, ecx: 0, edx: 0x2cb4_3049 },
            doc: "05, 56, 57, b4: data TLBs; b0, b1: instruction TLBs; f0: prefetch; 2c, 30: L1 32 KBytes each; 49: L2 4 MBytes",
        },
        CpuidRow {
            leaf: 5,
            value: CpuidResult { eax: 0x40, ebx: 0x40, ecx: 3, edx: 0x20 },
            doc: "MONITOR watches lines of 64 bytes; ECX bit 0 of MWAIT is there; C1 with two sub-states",
        },
    ],
    msrs: &[
        // Nothing locked: whoever runs first is the firmware (SDM vol 3, 24.7 "Enabling and Entering VMX Operation").
        MsrValue { number: msr::IA32_FEATURE_CONTROL, value: 0 },
        MsrValue { number: msr::IA32_PLATFORM_ID, value: 0 },
        MsrValue { number: msr::IA32_BIOS_SIGN_ID, value: 0 },
        // Bit 0: fast strings. Bits 11 and 12: no branch trace storage, no precise event sampling. Bit 18: MONITOR.
        MsrValue { number: msr::IA32_MISC_ENABLE, value: 0x4_1801 },
    ],
    last_branches: LastBranchMsrs::CORE_2,
    vmx: Some(VmxCapabilities {
        // Revision 7; 1024 bytes; write-back.
        basic: VmxBasic::new().with_revision(7).with_region_size(0x400).with_memory_type(6),
        pin_based: settings(
            ControlWord::PinBased,
            VmxCapabilities::PIN_BASED_DEFAULT1,
            0,
            &[PinBasedControls::EXTERNAL_INTERRUPT_EXITING, PinBasedControls::NMI_EXITING],
        ),
        primary: settings(
            ControlWord::Primary,
            VmxCapabilities::PRIMARY_DEFAULT1,
            0,
            &[
                PrimaryControls::INTERRUPT_WINDOW_EXITING,
                PrimaryControls::USE_TSC_OFFSETTING,
                PrimaryControls::HLT_EXITING,
                PrimaryControls::INVLPG_EXITING,
                PrimaryControls::MWAIT_EXITING,
                PrimaryControls::RDPMC_EXITING,
                PrimaryControls::RDTSC_EXITING,
                PrimaryControls::CR8_LOAD_EXITING,
                PrimaryControls::CR8_STORE_EXITING,
                PrimaryControls::USE_TPR_SHADOW,
                PrimaryControls::MOV_DR_EXITING,
                PrimaryControls::UNCONDITIONAL_IO_EXITING,
                PrimaryControls::USE_IO_BITMAPS,
                PrimaryControls::USE_MSR_BITMAPS,
                PrimaryControls::MONITOR_EXITING,
                PrimaryControls::PAUSE_EXITING,
            ],
        ),
        secondary: AllowedSettings::new(),
        tertiary: 0,
        exit: settings(
            ControlWord::Exit,
            VmxCapabilities::EXIT_DEFAULT1,
            0,
            &[ExitControls::HOST_ADDRESS_SPACE_SIZE, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT],
        ),
        secondary_exit: 0,
        entry: settings(ControlWord::Entry, VmxCapabilities::ENTRY_DEFAULT1, 0, &[EntryControls::IA32E_MODE_GUEST]),
        misc: VmxMisc::new()
            .with_activity_hlt(true)
            .with_activity_shutdown(true)
            .with_activity_wait_for_sipi(true)
            .with_cr3_target_count(4),
        // PE, NE and PG; SDM A.7 "VMX-Fixed Bits in CR0".
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        // VMXE; SDM A.8 "VMX-Fixed Bits in CR4".
        cr4_fixed0: 0x2000,
        cr4_fixed1: supported_cr4(FEATURES).into_bits(),
        ept_vpid: EptVpidCapabilities::new(),
        vm_functions: 0,
    }),
    svm: None,
    costs: &timing::MEROM,
};
