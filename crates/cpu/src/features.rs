//! Which instructions a processor model has.

use crate::state::Cpu;
use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind};
use isa::cpuid::Feature;

/// What an instruction-set extension needs of the model.
enum Need {
    /// Every processor here has it.
    Nothing,
    /// This feature.
    Feature(Feature),
    /// No processor here has it.
    Absent,
}

/// What an extension needs; `None` for one that no row names.
fn need(feature: CpuidFeature) -> Option<Need> {
    use CpuidFeature as C;
    Some(Need::Feature(match feature {
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
        C::PKU => Feature::Pku,
        C::POPCNT => Feature::Popcnt,
        C::RDPID => Feature::Rdpid,
        C::RDPRU => Feature::Rdpru,
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
        C::LZCNT => Feature::Lzcnt,
        C::SSE4_2 => Feature::Sse42,
        C::AES => Feature::Aes,
        C::MMX => Feature::Mmx,
        C::PCLMULQDQ => Feature::Pclmulqdq,
        C::SSE4A => Feature::Sse4a,
        C::AVX | C::AVX2 | C::FMA | C::F16C | C::AVX512F | C::SHA | C::D3NOW => return Some(Need::Absent),
        C::SMX
        | C::SGX1
        | C::PCONFIG
        | C::WAITPKG
        | C::KL
        | C::ENQCMD
        | C::RTM
        | C::MCOMMIT
        | C::INVLPGB
        | C::CLZERO
        | C::MONITORX
        | C::WBNOINVD => return Some(Need::Absent),
        // A guest may lack what its processor has: these two look when they execute, because decoded code outlives a VM exit.
        C::INVPCID | C::RDTSCP => return Some(Need::Nothing),
        // Every processor here has what the 486 and the first 64-bit processors had, and hints that others ignore. What the 8086 or the 386
        // alone had is decoded only on demand.
        C::INTEL8086 | C::INTEL186 | C::INTEL286 | C::INTEL386 | C::INTEL486 | C::X64 | C::SMM | C::PAUSE | C::MULTIBYTENOP => {
            return Some(Need::Nothing);
        }
        C::INTEL8086_ONLY | C::INTEL286_ONLY | C::INTEL386_ONLY => return Some(Need::Nothing),
        C::CPUID | C::RDPMC | C::CET_IBT | C::PREFETCHWT1 => return Some(Need::Nothing),
        C::FPU | C::FPU287 | C::FPU287XL_ONLY | C::FPU387 | C::FPU387SL_ONLY => return Some(Need::Nothing),
        // VMX and SVM instructions are the extension's to refuse.
        C::VMX | C::INVEPT | C::INVVPID | C::SVM | C::SKINIT | C::SKINIT_or_SVM => return Some(Need::Nothing),
        _ => return None,
    }))
}

/// Whether this processor has an instruction; if not, it is #UD.
pub(crate) fn supports(cpu: &Cpu, instruction: &Instruction) -> bool {
    // Sandy Bridge's and K10's successors decode these as the older instruction with an ignored REP prefix where they lack them.
    if matches!(instruction.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt | Mnemonic::Endbr64 | Mnemonic::Endbr32) {
        return true;
    }
    let control = |operand| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_cr();
    if instruction.has_lock_prefix() && instruction.mnemonic() == Mnemonic::Mov && (control(0) || control(1)) {
        return cpu.has(Feature::AltMovCr8);
    }
    instruction.cpuid_features().iter().all(|feature| match need(*feature) {
        // What no row names ends as "not modelled".
        None | Some(Need::Nothing) => true,
        Some(Need::Feature(feature)) => cpu.has(feature),
        Some(Need::Absent) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_modelled_instruction_has_a_row() {
        let mut missing = BTreeSet::new();
        crate::encodings::for_each_modelled(|instruction| {
            for feature in instruction.cpuid_features().iter().filter(|feature| need(**feature).is_none()) {
                missing.insert(format!("{feature:?} of {:?}", instruction.mnemonic()));
            }
        });
        assert!(missing.is_empty(), "modelled, but no row says which processors have it: {missing:?}");
    }
}
