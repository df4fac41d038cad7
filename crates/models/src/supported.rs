//! Which bits of CR4 and EFER a processor has, as a consequence of its features.
//!
//! What is modelled: SDM vol 3, 2.5 "Control Registers"; APM vol 2, 3.1.3 "CR4 Register" and 3.1.7 "Extended Feature Enable Register
//! (EFER)". One table, from which the reserved bits of the core and IA32_VMX_CR4_FIXED1 follow.

use isa::control::{Cr4, Efer};
use isa::cpuid::Feature;

/// The bit of CR4 that each feature brings.
const CR4: &[(Feature, Cr4)] = &[
    (Feature::Vme, Cr4::new().with_vme(true).with_pvi(true)),
    (Feature::Tsc, Cr4::new().with_tsd(true)),
    (Feature::De, Cr4::new().with_de(true)),
    (Feature::Pse, Cr4::new().with_pse(true)),
    (Feature::Pae, Cr4::new().with_pae(true)),
    (Feature::Mce, Cr4::new().with_mce(true)),
    (Feature::Pge, Cr4::new().with_pge(true)),
    (Feature::Fxsr, Cr4::new().with_osfxsr(true)),
    (Feature::Sse, Cr4::new().with_osxmmexcpt(true)),
    (Feature::Umip, Cr4::new().with_umip(true)),
    (Feature::La57, Cr4::new().with_la57(true)),
    (Feature::Vmx, Cr4::new().with_vmxe(true)),
    (Feature::Fsgsbase, Cr4::new().with_fsgsbase(true)),
    (Feature::Pcid, Cr4::new().with_pcide(true)),
    (Feature::Xsave, Cr4::new().with_osxsave(true)),
    (Feature::Smep, Cr4::new().with_smep(true)),
    (Feature::Smap, Cr4::new().with_smap(true)),
    (Feature::Pku, Cr4::new().with_pke(true)),
];

/// The bit of EFER that each feature brings.
const EFER: &[(Feature, Efer)] = &[
    (Feature::Syscall, Efer::new().with_sce(true)),
    (Feature::LongMode, Efer::new().with_lme(true).with_lma(true)),
    (Feature::Nx, Efer::new().with_nxe(true)),
    (Feature::Svm, Efer::new().with_svme(true)),
    (Feature::Ffxsr, Efer::new().with_ffxsr(true)),
    (Feature::Tce, Efer::new().with_tce(true)),
];

/// True where the list has the feature.
const fn contains(features: &[Feature], wanted: Feature) -> bool {
    let mut index = 0;
    while index < features.len() {
        if features[index] as u32 == wanted as u32 {
            return true;
        }
        index += 1;
    }
    false
}

/// The bits of CR4 that software may set where these features are in force, one [`Feature::bit`] each; PCE always.
pub fn cr4_of(features: u128) -> Cr4 {
    let bits = CR4.iter().filter(|(feature, _)| features & feature.bit() != 0).fold(0, |bits, (_, of)| bits | of.into_bits());
    Cr4::from_bits(bits).with_pce(true)
}

/// The bits of EFER that software may set where these features are in force, LMA, which it may not, included.
pub fn efer_of(features: u128) -> Efer {
    Efer::from_bits(EFER.iter().filter(|(feature, _)| features & feature.bit() != 0).fold(0, |bits, (_, of)| bits | of.into_bits()))
}

/// The bits of CR4 that a processor with these features has. PCE, which no feature reports, every processor here has.
pub(crate) const fn supported_cr4(features: &[Feature]) -> Cr4 {
    let mut bits = Cr4::new().with_pce(true).into_bits();
    let mut index = 0;
    while index < CR4.len() {
        if contains(features, CR4[index].0) {
            bits |= CR4[index].1.into_bits();
        }
        index += 1;
    }
    Cr4::from_bits(bits)
}

/// The bits of EFER that a processor with these features has.
pub(crate) const fn supported_efer(features: &[Feature]) -> Efer {
    let mut bits = 0;
    let mut index = 0;
    while index < EFER.len() {
        if contains(features, EFER[index].0) {
            bits |= EFER[index].1.into_bits();
        }
        index += 1;
    }
    Efer::from_bits(bits)
}
