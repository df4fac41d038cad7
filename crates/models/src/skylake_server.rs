//! Skylake server: Intel Xeon Scalable of 2017.
//!
//! What is modelled: VMX with EPT, VPID, unrestricted guest, virtual NMIs, preemption timer, monitor trap flag, PAT and EFER in the VMCS, the
//! TRUE capability MSRs, the virtual APIC with posted interrupts, VMCS shadowing, VM functions, page-modification logging, #VE, mode-based
//! execute control, TSC scaling, PAUSE-loop exiting.
//!
//! What is not, though the real processor has it: machine checks, MTRRs, AVX to AVX-512, SMX, CLFLUSHOPT, CLWB,
//! protection keys, TSX, XSAVEOPT and its kin, processor trace, performance counters; of VMX: XSAVES, what conceals VMX from processor
//! trace, the dual-monitor treatment of SMM.

use crate::cache::{Cache, CacheKind};
use crate::cpuid::CpuidRow;
use crate::last_branches::LastBranchMsrs;
use crate::model::{CpuModel, MsrValue, Vendor};
use crate::supported::supported_cr4;
use crate::vmx::settings;
use isa::cpuid::{CpuidResult, Feature};
use isa::msr;
use isa::vmx::{
    ControlWord, EntryControls, EptVpidCapabilities, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls,
    VmFunctionControls, VmxBasic, VmxCapabilities, VmxMisc,
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
    Feature::Mce,
    Feature::Cx8,
    Feature::Apic,
    Feature::Sep,
    Feature::Mtrr,
    Feature::Pge,
    Feature::Mca,
    Feature::Cmov,
    Feature::Pat,
    Feature::Pse36,
    Feature::Clfsh,
    Feature::Mmx,
    Feature::Fxsr,
    Feature::Sse,
    Feature::Sse2,
    Feature::Sse3,
    Feature::Pclmulqdq,
    Feature::Monitor,
    Feature::Vmx,
    Feature::Ssse3,
    Feature::Cx16,
    Feature::Pcid,
    Feature::Sse41,
    Feature::Sse42,
    Feature::X2apic,
    Feature::Movbe,
    Feature::Popcnt,
    Feature::TscDeadline,
    Feature::Aes,
    Feature::Xsave,
    Feature::Rdrand,
    Feature::Arat,
    Feature::Fsgsbase,
    Feature::TscAdjust,
    Feature::Bmi1,
    Feature::FdpExceptionsOnly,
    Feature::Smep,
    Feature::Bmi2,
    Feature::Erms,
    Feature::Invpcid,
    Feature::FcsFdsDeprecated,
    Feature::Rdseed,
    Feature::Adx,
    Feature::Smap,
    Feature::Clflushopt,
    Feature::Clwb,
    Feature::Pku,
    Feature::Syscall,
    Feature::Nx,
    Feature::Page1gb,
    Feature::Rdtscp,
    Feature::LongMode,
    Feature::Lahf64,
    Feature::Lzcnt,
    Feature::Prefetchw,
    Feature::InvariantTsc,
    Feature::EffectiveFrequency,
];

/// Default1 controls of the primary processor-based word that may be 0 by the TRUE MSR: CR3-load and CR3-store exiting.
const PRIMARY_MAY_BE_ZERO: u32 = 1 << PrimaryControls::CR3_LOAD_EXITING.bit | 1 << PrimaryControls::CR3_STORE_EXITING.bit;
/// Likewise of the VM-exit controls.
const EXIT_MAY_BE_ZERO: u32 = 1 << ExitControls::SAVE_DEBUG_CONTROLS.bit;
/// Likewise of the VM-entry controls.
const ENTRY_MAY_BE_ZERO: u32 = 1 << EntryControls::LOAD_DEBUG_CONTROLS.bit;

/// Xeon Gold 6130.
pub const SKYLAKE_SERVER: CpuModel = CpuModel {
    name: "skylake-server",
    title: "Intel Xeon Scalable, Skylake server",
    vendor: Vendor::Intel,
    year: 2017,
    tsc_hz: 2_100_000_000,
    physical_address_bits: 46,
    linear_address_bits: 48,
    // Family 6, model 55H, stepping 4.
    signature: 0x0005_0654,
    brand: "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz",
    maximum_basic_leaf: 0x16,
    maximum_extended_leaf: 0x8000_0008,
    cpuid_features: FEATURES,
    caches: &[
        Cache { level: 1, kind: CacheKind::Data, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 1, kind: CacheKind::Instruction, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 2, kind: CacheKind::Unified, ways: 16, sets: 1024, line_bytes: 64, shared: false },
        Cache { level: 3, kind: CacheKind::Unified, ways: 11, sets: 32768, line_bytes: 64, shared: true },
    ],
    cpuid_rows: &[
        CpuidRow {
            leaf: 2,
            value: CpuidResult { eax: 0x7603_6301, ebx: 0x00f0_b5ff, ecx: 0, edx: 0x00c3_0000 },
            doc: "76, b5: instruction TLBs; 03, 63, c3: data and shared TLBs; f0: prefetch; ff: caches are in leaf 4",
        },
        CpuidRow {
            leaf: 5,
            value: CpuidResult { eax: 0x40, ebx: 0x40, ecx: 3, edx: 0x2020 },
            doc: "MONITOR watches lines of 64 bytes; ECX bit 0 of MWAIT is there; C1 and C3 with two sub-states each",
        },
        CpuidRow {
            leaf: 0x15,
            value: CpuidResult { eax: 2, ebx: 168, ecx: 25_000_000, edx: 0 },
            doc: "time stamp counter: crystal of 25 MHz times 168/2; the real part leaves the crystal out",
        },
        CpuidRow {
            leaf: 0x16,
            value: CpuidResult { eax: 2100, ebx: 3700, ecx: 100, edx: 0 },
            doc: "MHz of base, turbo and bus; the core runs at the base frequency",
        },
    ],
    msrs: &[
        // Nothing locked: whoever runs first is the firmware (SDM vol 3, 24.7 "Enabling and Entering VMX Operation").
        MsrValue { number: msr::IA32_FEATURE_CONTROL, value: 0 },
        MsrValue { number: msr::IA32_PLATFORM_ID, value: 0 },
        MsrValue { number: msr::IA32_BIOS_SIGN_ID, value: 0 },
        // Twenty banks. The real part tells of CMCI, thresholds, software recovery and extended logging, too.
        MsrValue { number: msr::IA32_MCG_CAP, value: 0x14 },
        // Ten variable ranges, fixed ranges, write combining. The real part has SMRRs.
        MsrValue { number: msr::IA32_MTRRCAP, value: 0x50a },
        // Bit 0: fast strings. Bits 11 and 12: no branch trace storage, no precise event sampling. Bit 18: MONITOR.
        MsrValue { number: msr::IA32_MISC_ENABLE, value: 0x4_1801 },
    ],
    last_branches: LastBranchMsrs::SKYLAKE,
    vmx: Some(VmxCapabilities {
        // Revision 4; 1024 bytes; write-back; INS and OUTS describe themselves; TRUE MSRs.
        basic: VmxBasic::new()
            .with_revision(4)
            .with_region_size(0x400)
            .with_memory_type(6)
            .with_io_instruction_information(true)
            .with_true_controls(true),
        pin_based: settings(
            ControlWord::PinBased,
            VmxCapabilities::PIN_BASED_DEFAULT1,
            0,
            &[
                PinBasedControls::EXTERNAL_INTERRUPT_EXITING,
                PinBasedControls::NMI_EXITING,
                PinBasedControls::VIRTUAL_NMIS,
                PinBasedControls::ACTIVATE_VMX_PREEMPTION_TIMER,
                PinBasedControls::PROCESS_POSTED_INTERRUPTS,
            ],
        ),
        primary: settings(
            ControlWord::Primary,
            VmxCapabilities::PRIMARY_DEFAULT1 & !PRIMARY_MAY_BE_ZERO,
            VmxCapabilities::PRIMARY_DEFAULT1,
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
                PrimaryControls::NMI_WINDOW_EXITING,
                PrimaryControls::MOV_DR_EXITING,
                PrimaryControls::UNCONDITIONAL_IO_EXITING,
                PrimaryControls::USE_IO_BITMAPS,
                PrimaryControls::MONITOR_TRAP_FLAG,
                PrimaryControls::USE_MSR_BITMAPS,
                PrimaryControls::MONITOR_EXITING,
                PrimaryControls::PAUSE_EXITING,
                PrimaryControls::ACTIVATE_SECONDARY_CONTROLS,
            ],
        ),
        secondary: settings(
            ControlWord::Secondary,
            0,
            0,
            &[
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
                SecondaryControls::MODE_BASED_EXECUTE_CONTROL_FOR_EPT,
                SecondaryControls::USE_TSC_SCALING,
            ],
        ),
        tertiary: 0,
        exit: settings(
            ControlWord::Exit,
            VmxCapabilities::EXIT_DEFAULT1 & !EXIT_MAY_BE_ZERO,
            VmxCapabilities::EXIT_DEFAULT1,
            &[
                ExitControls::HOST_ADDRESS_SPACE_SIZE,
                ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
                ExitControls::SAVE_IA32_PAT,
                ExitControls::LOAD_IA32_PAT,
                ExitControls::SAVE_IA32_EFER,
                ExitControls::LOAD_IA32_EFER,
                ExitControls::SAVE_VMX_PREEMPTION_TIMER_VALUE,
            ],
        ),
        secondary_exit: 0,
        entry: settings(
            ControlWord::Entry,
            VmxCapabilities::ENTRY_DEFAULT1 & !ENTRY_MAY_BE_ZERO,
            VmxCapabilities::ENTRY_DEFAULT1,
            &[EntryControls::IA32E_MODE_GUEST, EntryControls::LOAD_IA32_PAT, EntryControls::LOAD_IA32_EFER],
        ),
        misc: VmxMisc::new()
            // One tick of the preemption timer is 2^7 of the time stamp counter.
            .with_preemption_timer_rate(7)
            .with_store_efer_lma(true)
            .with_activity_hlt(true)
            .with_activity_shutdown(true)
            .with_activity_wait_for_sipi(true)
            .with_cr3_target_count(4)
            .with_vmwrite_exit_information(true)
            .with_zero_length_injection(true),
        // PE, NE and PG; SDM A.7 "VMX-Fixed Bits in CR0". An unrestricted guest is let off PE and PG.
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        // VMXE; SDM A.8 "VMX-Fixed Bits in CR4".
        cr4_fixed0: 0x2000,
        cr4_fixed1: supported_cr4(FEATURES).into_bits(),
        ept_vpid: EptVpidCapabilities::new()
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
            .with_invvpid_single_context_retaining_globals(true),
        vm_functions: 1 << VmFunctionControls::EPTP_SWITCHING.bit,
    }),
    svm: None,
    costs: &timing::SKYLAKE_SERVER,
};
