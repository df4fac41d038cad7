//! K8 revision F: AMD Athlon 64 X2 of 2006, the first AMD processor with SVM.
//!
//! What is modelled: SVM as it began: revision 1 and no feature of leaf 8000_000A. No nested paging, so a hypervisor needs shadow paging;
//! no next RIP and no decode assists, so it has to decode instructions itself; no flush by ASID, so a flush takes every guest's entries.
//!
//! What is not, though the real processor has it: machine checks, MTRRs, 3DNow!, performance counters, TLB geometry in CPUID; and EFER.LMSLE, which no
//! CPUID bit tells of: with it every access of data in 64-bit mode has a limit (APM vol 2, 4.12.2 "Data Limit Checks in 64-bit Mode"), where
//! code of both tiers has none, so the bit is reserved here. Hypervisors never let guests set it unless they run hypervisors.

use crate::cache::{Cache, CacheKind};
use crate::last_branches::LastBranchMsrs;
use crate::model::{CpuModel, MsrValue, SvmCapabilities, Vendor};
use isa::cpuid::Feature;
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
    Feature::Cx16,
    Feature::Syscall,
    Feature::Nx,
    Feature::MmxExtensions,
    Feature::Ffxsr,
    Feature::Rdtscp,
    Feature::LongMode,
    Feature::Lahf64,
    Feature::Svm,
    Feature::AltMovCr8,
];

/// Athlon 64 X2 4600+.
pub const K8_REV_F: CpuModel = CpuModel {
    name: "k8-rev-f",
    title: "AMD Athlon 64 X2, K8 revision F",
    vendor: Vendor::Amd,
    year: 2006,
    tsc_hz: 2_400_000_000,
    physical_address_bits: 40,
    linear_address_bits: 48,
    // Family 15, model 43H, stepping 2.
    signature: 0x0004_0f32,
    brand: "AMD Athlon(tm) 64 X2 Dual Core Processor 4600+",
    maximum_basic_leaf: 1,
    maximum_extended_leaf: 0x8000_0018,
    cpuid_features: FEATURES,
    caches: &[
        Cache { level: 1, kind: CacheKind::Data, ways: 2, sets: 512, line_bytes: 64, shared: false },
        Cache { level: 1, kind: CacheKind::Instruction, ways: 2, sets: 512, line_bytes: 64, shared: false },
        Cache { level: 2, kind: CacheKind::Unified, ways: 16, sets: 512, line_bytes: 64, shared: false },
    ],
    cpuid_rows: &[],
    msrs: &[
        MsrValue { number: msr::IA32_BIOS_SIGN_ID, value: 0 },
        MsrValue { number: msr::SYSCFG, value: 0 },
        MsrValue { number: msr::HWCR, value: 0 },
        // Neither locked nor disabled: EFER.SVME can be set (APM vol 2, 15.4 "Enabling SVM").
        MsrValue { number: msr::VM_CR, value: 0 },
    ],
    last_branches: LastBranchMsrs::AMD,
    vmx: None,
    svm: Some(SvmCapabilities { asids: 64, features: SvmFeatures::new() }),
    costs: &timing::K8_REV_F,
};
