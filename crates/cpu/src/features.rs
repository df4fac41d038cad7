//! Which instructions a processor model has.

use crate::state::Cpu;
use iced_x86::{CpuidFeature, Instruction, Mnemonic};
use isa::cpuid::Feature;
use models::Capability;

/// What an instruction-set extension needs of the model.
enum Need {
    /// Every processor here has it.
    Nothing,
    /// This feature.
    Feature(Feature),
    /// No processor here has it.
    Absent,
}

fn need(feature: CpuidFeature) -> Need {
    use CpuidFeature as C;
    Need::Feature(match feature {
        C::ADX => Feature::Adx,
        C::BMI1 => Feature::Bmi1,
        C::BMI2 => Feature::Bmi2,
        C::CMOV => Feature::Cmov,
        C::CX8 => Feature::Cx8,
        C::CMPXCHG16B => Feature::Cx16,
        C::CLFSH => Feature::Clfsh,
        C::CLFLUSHOPT => Feature::Clflushopt,
        C::CLWB => Feature::Clwb,
        C::FSGSBASE => Feature::Fsgsbase,
        C::FXSR => Feature::Fxsr,
        C::MONITOR => Feature::Monitor,
        C::MOVBE => Feature::Movbe,
        C::MSR => Feature::Msr,
        C::POPCNT => Feature::Popcnt,
        C::RDPID => Feature::Rdpid,
        C::RDRAND => Feature::Rdrand,
        C::RDSEED => Feature::Rdseed,
        C::SEP => Feature::Sep,
        C::SMAP => Feature::Smap,
        C::SSE => Feature::Sse,
        C::SSE2 => Feature::Sse2,
        C::SSE3 => Feature::Sse3,
        C::SSSE3 => Feature::Ssse3,
        C::SSE4_1 => Feature::Sse41,
        C::SYSCALL => Feature::Syscall,
        C::TSC => Feature::Tsc,
        C::XSAVE => Feature::Xsave,
        C::XSAVEOPT => Feature::Xsaveopt,
        C::XSAVEC => Feature::Xsavec,
        C::XSAVES => Feature::Xsaves,
        C::PREFETCHW => Feature::Prefetchw,
        C::AVX | C::AVX2 | C::FMA | C::F16C | C::AVX512F | C::AES | C::PCLMULQDQ | C::SHA | C::MMX | C::D3NOW | C::SSE4A => {
            return Need::Absent;
        }
        // A guest may lack what its processor has: these two look when they execute, because decoded code outlives a VM exit.
        C::INVPCID | C::RDTSCP => return Need::Nothing,
        // VMX and SVM instructions are the extension's to refuse; what else iced-x86 knows and no row names is as old as the 486, a hint,
        // or ends as "not modelled".
        _ => return Need::Nothing,
    })
}

/// Whether this processor has an instruction; if not, it is #UD.
pub(crate) fn supports(cpu: &Cpu, instruction: &Instruction) -> bool {
    // Sandy Bridge's and K10's successors decode these as the older instruction with an ignored REP prefix where they lack them.
    if matches!(instruction.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt | Mnemonic::Endbr64 | Mnemonic::Endbr32) {
        return true;
    }
    instruction.cpuid_features().iter().all(|feature| match (feature, need(*feature)) {
        (CpuidFeature::SSE4_2, _) if instruction.mnemonic() == Mnemonic::Crc32 => cpu.model.has_capability(Capability::Crc32),
        (CpuidFeature::SSE4_2, _) => cpu.has(Feature::Sse42),
        (_, Need::Nothing) => true,
        (_, Need::Feature(feature)) => cpu.has(feature),
        (_, Need::Absent) => false,
    })
}
