//! A processor model, and how one is found.
//!
//! What is modelled: everything that distinguishes one processor from another and that software can see. What is not: anything that
//! changes while a processor runs.

use crate::cache::Cache;
use crate::cpuid::CpuidRow;
use crate::last_branches::LastBranchMsrs;
use crate::supported::{supported_cr4, supported_efer};
use isa::control::{Cr4, Efer};
use isa::cpuid::{Feature, Output};
use isa::svm::SvmFeatures;
use isa::svm::cpuid::SVM_LEAF;
use isa::vmx::{CapabilityMsr, VmxCapabilities};
use serde::{Deserialize, Serialize};
use timing::CostModel;

/// Every model, oldest first, Intel before AMD.
pub const MODELS: &[&CpuModel] = &[&crate::MEROM, &crate::K8_REV_F, &crate::SKYLAKE_SERVER, &crate::ZEN3];

/// Who made the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// Intel: VMX.
    Intel,
    /// AMD: SVM.
    Amd,
}

impl Vendor {
    /// The twelve characters of CPUID leaf 0.
    pub const fn signature(self) -> &'static [u8; 12] {
        match self {
            Self::Intel => b"GenuineIntel",
            Self::Amd => b"AuthenticAMD",
        }
    }
}

/// By whose rules the bytes of an instruction are read, where the vendors differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum DecodeRules {
    /// SDM vol 2, chapter 2 "Instruction Format": near branches of 64-bit mode have 64 bits whatever the prefixes (appendix A.2.1, "f64").
    #[default]
    Intel,
    /// APM vol 3, 1.2.2 "Operand-Size Override Prefix" and the pages of CALL, JMP, Jcc, LOOP and RET: an operand-size prefix makes near
    /// branches of 64-bit mode 16 bits wide; far pointers in memory have no 64-bit offset; UD0 has no ModRM byte; LOCK MOV CR0 is MOV CR8.
    Amd,
}

/// What a processor with SVM offers, APM vol 3, E.4.9 "Function 8000_000A" "SVM Features".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SvmCapabilities {
    /// EBX: address space identifiers, zero included.
    pub asids: u32,
    /// EDX.
    pub features: SvmFeatures,
}

/// An MSR with the value it has at power-up, where that differs between models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsrValue {
    /// The number that RDMSR takes.
    pub number: u32,
    /// The value.
    pub value: u64,
}

/// A processor model.
#[derive(Debug)]
pub struct CpuModel {
    /// The name by which it is found.
    pub name: &'static str,
    /// The processor, in words.
    pub title: &'static str,
    /// Who made it.
    pub vendor: Vendor,
    /// The year it was first sold.
    pub year: u16,
    /// Cycles of the time stamp counter in a second; one for each core cycle.
    pub tsc_hz: u64,
    /// Width of a physical address, in bits.
    pub physical_address_bits: u8,
    /// Width of a linear address in 64-bit mode, in bits.
    pub linear_address_bits: u8,
    /// EAX of CPUID leaf 1: family, model and stepping; also EDX at reset.
    pub signature: u32,
    /// The brand string, at most 47 characters.
    pub brand: &'static str,
    /// Highest basic CPUID leaf.
    pub maximum_basic_leaf: u32,
    /// Highest extended CPUID leaf.
    pub maximum_extended_leaf: u32,
    /// The features that CPUID reports.
    pub cpuid_features: &'static [Feature],
    /// Its caches, which CPUID describes; they have no other effect.
    pub caches: &'static [Cache],
    /// CPUID leaves that follow from nothing else here.
    pub cpuid_rows: &'static [CpuidRow],
    /// MSRs whose value at power-up is this model's own.
    pub(crate) msrs: &'static [MsrValue],
    /// Its last-branch records.
    pub last_branches: LastBranchMsrs,
    /// The VMX capability MSRs; `None` without VMX.
    pub vmx: Option<VmxCapabilities>,
    /// CPUID leaf 8000_000A; `None` without SVM.
    pub svm: Option<SvmCapabilities>,
    /// What its instructions and events cost.
    pub costs: &'static CostModel,
}

impl CpuModel {
    /// The family, model and stepping, as CPUID leaf 1 and EDX at reset have them.
    pub const fn signature(&self) -> u32 {
        self.signature
    }

    /// Family, model and stepping as software computes them from the signature (SDM vol 2, "CPUID", figure 3-6).
    pub const fn family_model_stepping(&self) -> (u32, u32, u32) {
        let (family, model) = (self.signature >> 8 & 0xf, self.signature >> 4 & 0xf);
        let extended = matches!(family, 6 | 15);
        let full_family = if family == 15 { family + (self.signature >> 20 & 0xff) } else { family };
        let full_model = if extended { model | (self.signature >> 12 & 0xf0) } else { model };
        (full_family, full_model, self.signature & 0xf)
    }

    /// By whose rules it decodes.
    pub const fn decode_rules(&self) -> DecodeRules {
        match self.vendor {
            Vendor::Intel => DecodeRules::Intel,
            Vendor::Amd => DecodeRules::Amd,
        }
    }

    /// True where CPUID reports the feature (for SYSCALL on Intel: in 64-bit mode).
    pub fn has(&self, feature: Feature) -> bool {
        match (feature.place(), &self.svm) {
            ((SVM_LEAF, _, Output::Edx, bit), Some(svm)) => svm.features.into_bits() >> bit & 1 != 0,
            _ => self.cpuid_features.contains(&feature),
        }
    }

    /// Every feature that CPUID reports, one [`Feature::bit`] each.
    pub fn features(&self) -> u128 {
        let listed = self.cpuid_features.iter().fold(0, |set, feature| set | feature.bit());
        let of_svm = Feature::ALL.iter().filter(|feature| feature.place().0 == SVM_LEAF && self.has(**feature));
        of_svm.fold(listed, |set, feature| set | feature.bit())
    }

    /// The bits of CR4 that software may set; the others are reserved.
    pub const fn supported_cr4(&self) -> Cr4 {
        supported_cr4(self.cpuid_features)
    }

    /// The bits of EFER that software may set (LMA, which it may not, included); the others are reserved.
    pub const fn supported_efer(&self) -> Efer {
        supported_efer(self.cpuid_features)
    }

    /// The value at power-up of an MSR that is a constant or a reset value of this model; `None` for any other MSR.
    ///
    /// The VMX capability MSRs are among them.
    pub fn msr(&self, number: u32) -> Option<u64> {
        if let Some(row) = self.msrs.iter().find(|row| row.number == number) {
            return Some(row.value);
        }
        self.vmx.as_ref()?.read(CapabilityMsr::from_number(number)?)
    }
}

/// No processor model has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CPU model `{name}`; there are {known}")]
pub struct UnknownCpuModel {
    /// What was asked for.
    pub name: String,
    /// The names there are, separated by commas.
    pub known: String,
}

/// The model of that name.
///
/// # Errors
/// Says which names there are.
pub fn find(name: &str) -> Result<&'static CpuModel, UnknownCpuModel> {
    MODELS.iter().copied().find(|model| model.name == name).ok_or_else(|| UnknownCpuModel {
        name: name.to_owned(),
        known: MODELS.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
    })
}

/// The model that stands for a vendor when none is named: the modern one.
pub const fn default_for(vendor: Vendor) -> &'static CpuModel {
    match vendor {
        Vendor::Intel => &crate::SKYLAKE_SERVER,
        Vendor::Amd => &crate::ZEN3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_what_its_cpuid_words_tell() {
        for model in crate::MODELS {
            for &feature in Feature::ALL {
                let (leaf, subleaf, output, bit) = feature.place();
                let words = model.feature_words(leaf, subleaf);
                let word = match output {
                    Output::Eax => words.eax,
                    Output::Ebx => words.ebx,
                    Output::Ecx => words.ecx,
                    Output::Edx => words.edx,
                };
                assert_eq!(model.has(feature), word >> bit & 1 != 0, "{feature:?} of {}", model.name);
                assert_eq!(model.features() & feature.bit() != 0, model.has(feature), "{feature:?} of {}", model.name);
            }
        }
    }
}
