//! Zen 3: AMD EPYC 7003 ("Milan") of 2021.
//!
//! What is modelled: SVM with nested paging, LBR virtualization, SVM lock, next RIP, TSC ratio, VMCB clean bits, flush by ASID, decode assists,
//! PAUSE filter and threshold, virtual VMLOAD and VMSAVE, virtual GIF, the guest mode execute trap, and SKINIT; machine-check registers, MTRRs, UMIP and protection keys.
//!
//! What is not, though the real processor has it: AVX, AVX2, MONITORX, INVLPGB,
//! shadow stacks, XSAVEOPT and its kin, memory encryption, counting performance counters, TLB geometry in CPUID; of SVM: AVIC, which
//! takes a local APIC whose registers lie in memory, and what came after.

use crate::cache::{Cache, CacheKind};
use crate::cpuid::CpuidRow;
use crate::last_branches::LastBranchMsrs;
use crate::model::{CpuModel, MsrValue, SvmCapabilities, Vendor};
use isa::cpuid::{CpuidResult, Feature};
use isa::msr;
use isa::svm::SvmFeatures;

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
    Feature::Ssse3,
    Feature::Cx16,
    Feature::Pcid,
    Feature::Sse41,
    Feature::Sse42,
    Feature::X2apic,
    Feature::Movbe,
    Feature::Popcnt,
    Feature::Aes,
    Feature::Xsave,
    Feature::Rdrand,
    Feature::Arat,
    Feature::Fsgsbase,
    Feature::Bmi1,
    Feature::Smep,
    Feature::Bmi2,
    Feature::Erms,
    Feature::Invpcid,
    Feature::Rdseed,
    Feature::Adx,
    Feature::Smap,
    Feature::Clflushopt,
    Feature::Clwb,
    Feature::Umip,
    Feature::Pku,
    Feature::Rdpid,
    Feature::Syscall,
    Feature::Nx,
    Feature::MmxExtensions,
    Feature::Ffxsr,
    Feature::Page1gb,
    Feature::Rdtscp,
    Feature::LongMode,
    Feature::Lahf64,
    Feature::Svm,
    Feature::AltMovCr8,
    Feature::Lzcnt,
    Feature::Sse4a,
    Feature::Prefetchw,
    Feature::Skinit,
    Feature::Topoext,
    Feature::InvariantTsc,
    Feature::XsaveErrorPointers,
    Feature::Tce,
    Feature::EferLmsleUnsupported,
    Feature::EffectiveFrequency,
    Feature::EffectiveFrequencyReadOnly,
    Feature::Rdpru,
];

/// EPYC 7313.
pub const ZEN3: CpuModel = CpuModel {
    name: "zen3",
    title: "AMD EPYC 7003, Zen 3",
    vendor: Vendor::Amd,
    year: 2021,
    tsc_hz: 3_000_000_000,
    physical_address_bits: 48,
    linear_address_bits: 48,
    // Family 19H, model 1, stepping 1.
    signature: 0x00a0_0f11,
    brand: "AMD EPYC 7313 16-Core Processor",
    maximum_basic_leaf: 0x10,
    // The real part goes on to 8000_0023; what is there is not modelled.
    maximum_extended_leaf: 0x8000_001e,
    cpuid_features: FEATURES,
    caches: &[
        Cache { level: 1, kind: CacheKind::Data, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 1, kind: CacheKind::Instruction, ways: 8, sets: 64, line_bytes: 64, shared: false },
        Cache { level: 2, kind: CacheKind::Unified, ways: 8, sets: 1024, line_bytes: 64, shared: false },
        Cache { level: 3, kind: CacheKind::Unified, ways: 16, sets: 32768, line_bytes: 64, shared: true },
    ],
    cpuid_rows: &[CpuidRow {
        leaf: 5,
        value: CpuidResult { eax: 0x40, ebx: 0x40, ecx: 3, edx: 0x11 },
        doc: "MONITOR watches lines of 64 bytes; ECX bit 0 of MWAIT is there; C0 and C1 with one sub-state each",
    }],
    msrs: &[
        MsrValue { number: msr::IA32_BIOS_SIGN_ID, value: 0 },
        // MCG_CTL, and 23 banks, which is Zen 1's number: of Milan's no public record was found, and errors of "bank 27" that people report
        // from AMD's servers speak for more.
        MsrValue { number: msr::IA32_MCG_CAP, value: 0x117 },
        // Eight variable ranges, fixed ranges, write combining.
        MsrValue { number: msr::IA32_MTRRCAP, value: 0x508 },
        MsrValue { number: msr::SYSCFG, value: 0 },
        MsrValue { number: msr::HWCR, value: 0 },
        // Neither locked nor disabled: EFER.SVME can be set (APM vol 2, 15.4 "Enabling SVM").
        MsrValue { number: msr::VM_CR, value: 0 },
    ],
    last_branches: LastBranchMsrs::AMD,
    vmx: None,
    svm: Some(SvmCapabilities {
        asids: 32768,
        features: SvmFeatures::new()
            .with_nested_paging(true)
            .with_lbr_virtualization(true)
            .with_svm_lock(true)
            .with_next_rip_save(true)
            .with_tsc_rate_msr(true)
            .with_vmcb_clean(true)
            .with_flush_by_asid(true)
            .with_decode_assists(true)
            .with_pause_filter(true)
            .with_pause_filter_threshold(true)
            .with_virtual_vmload_vmsave(true)
            .with_virtual_gif(true)
            .with_gmet(true),
    }),
    costs: &timing::ZEN3,
};
