//! What a processor offers of SVM, from which CPUID leaf 8000_000A and the meaning of the VMCB follow.
//!
//! What is modelled: the features of [`MODELLED`]. A processor model may have fewer of them; it can never offer more, so that no guest is told
//! of something that does not work.

use isa::svm::SvmFeatures;
use models::SvmCapabilities;

/// The features that this silicon has. A model offers those of them that the real processor had.
pub const MODELLED: SvmFeatures = SvmFeatures::new()
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
    .with_gmet(true);

/// What is offered of a model's capabilities: those that are modelled.
#[must_use]
pub const fn offered(model: SvmCapabilities) -> SvmCapabilities {
    SvmCapabilities { features: SvmFeatures::from_bits(model.features.into_bits() & MODELLED.into_bits()), ..model }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_model_tells_of_a_feature_that_is_not_modelled() {
        for model in models::MODELS {
            if let Some(capabilities) = model.svm {
                assert_eq!(offered(capabilities), capabilities, "{}", model.name);
            }
        }
    }
}
