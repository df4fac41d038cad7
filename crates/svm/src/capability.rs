//! What a processor offers of SVM, from which CPUID leaf 8000_000A and the meaning of the VMCB follow.
//!
//! What is modelled: the features of [`MODELLED`]. A processor model may have fewer of them; it can never offer more, so that no guest is told
//! of something that does not work.

use isa::svm::SvmFeatures;

/// The features that this silicon has. A model offers those of them that the real processor had.
pub const MODELLED: SvmFeatures = SvmFeatures::new()
    .with_nested_paging(true)
    .with_svm_lock(true)
    .with_next_rip_save(true)
    .with_tsc_rate_msr(true)
    .with_vmcb_clean(true)
    .with_flush_by_asid(true)
    .with_decode_assists(true)
    .with_virtual_gif(true);

/// What one processor offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// EDX of CPUID leaf 8000_000A.
    pub features: SvmFeatures,
    /// EBX of the leaf: address space identifiers, zero included.
    pub asids: u32,
}

impl Capability {
    /// What is offered of a real processor's leaf: its EBX and EDX.
    #[must_use]
    pub const fn of(asids: u32, features: SvmFeatures) -> Self {
        Self { features: SvmFeatures::from_bits(features.into_bits() & MODELLED.into_bits()), asids }
    }

    /// CPUID leaf 8000_000A: EAX, EBX, ECX, EDX.
    #[must_use]
    pub const fn cpuid(&self) -> [u32; 4] {
        [isa::svm::cpuid::SVM_REVISION as u32, self.asids, 0, self.features.into_bits()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_is_not_modelled_is_not_offered() {
        let real = SvmFeatures::new().with_nested_paging(true).with_avic(true).with_ibs_virtualization(true);
        assert_eq!(Capability::of(32768, real).cpuid(), [1, 32768, 0, 1]);
    }
}
