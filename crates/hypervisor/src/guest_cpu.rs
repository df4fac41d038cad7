//! What a guest is told of its processor, and whose rules it expects of it.
//!
//! Modelled: a processor model, narrowed to what several models have in common ("levelling"), less features by name, under another vendor's
//! name if somebody wants that. As in KVM, the name alone decides whose rules the hypervisor follows where it stands in for the processor:
//! `AuthenticAMD` and `HygonGenuine` are AMD-compatible, every other name is Intel-compatible.
//! Not modelled: levelling of anything but feature bits and the width of physical addresses (caches, family, brand stay the model's).

use isa::cpuid::Feature;
use models::{CpuModel, Vendor};
use serde::{Deserialize, Serialize};

/// Features of processors that no guest is told of, and why.
pub const NOT_OFFERED: [(Feature, &str); 10] = [
    (Feature::Vmx, "guests are no hypervisors"),
    (Feature::Svm, "guests are no hypervisors"),
    (Feature::Skinit, "guests are no hypervisors"),
    (Feature::Monitor, "a guest that waits by itself would keep its physical CPU"),
    (Feature::Nrips, "guests are no hypervisors"),
    (Feature::TscAdjust, "the virtual CPUs of a guest share one offset of the time-stamp counter"),
    (Feature::Umip, "Intel's processors here lack it, and it is not emulated"),
    (Feature::EffectiveFrequency, "the counters are those of the processor, not of the guest"),
    (Feature::EffectiveFrequencyReadOnly, "the counters are those of the processor, not of the guest"),
    (Feature::Rdpru, "it reads those counters"),
];

/// How a guest's CPUID is narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levelling {
    /// Features that may stay, one [`Feature::bit`] each.
    pub keep: u128,
    /// The most bits that physical addresses may have.
    pub physical_address_bits: u8,
    /// The twelve characters of CPUID leaf 0, if they are not the model's.
    pub signature: Option<[u8; 12]>,
}

impl Levelling {
    /// The model as it is.
    pub const NONE: Self = Self { keep: u128::MAX, physical_address_bits: u8::MAX, signature: None };

    /// What a model has in common with those so far.
    #[must_use]
    pub fn common(self, model: &CpuModel) -> Self {
        let bits = self.physical_address_bits.min(model.physical_address_bits);
        Self { keep: self.keep & (model.features() | Feature::Hypervisor.bit()), physical_address_bits: bits, ..self }
    }

    /// Without a feature.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self { keep: self.keep & !feature.bit(), ..self }
    }
}

/// A levelling in streams: features by name, because their numbers may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LevellingRecord {
    without: Vec<String>,
    physical_address_bits: u8,
    signature: Option<String>,
}

impl Levelling {
    pub(crate) fn record(&self) -> LevellingRecord {
        let without = Feature::ALL.iter().filter(|feature| self.keep & feature.bit() == 0).map(|feature| feature.name()).collect();
        let signature = self.signature.map(|name| String::from_utf8_lossy(&name).into_owned());
        LevellingRecord { without, physical_address_bits: self.physical_address_bits, signature }
    }

    pub(crate) fn of_record(record: &LevellingRecord) -> Result<Self, &'static str> {
        let mut levelling = Self { physical_address_bits: record.physical_address_bits, ..Self::NONE };
        for name in &record.without {
            levelling = levelling.without(Feature::from_name(name).ok_or("a feature that there is not")?);
        }
        if let Some(name) = &record.signature {
            levelling.signature = Some(name.as_bytes().try_into().map_err(|_| "a vendor's name that has not twelve characters")?);
        }
        Ok(levelling)
    }
}

impl Default for Levelling {
    fn default() -> Self {
        Self::NONE
    }
}

/// The processor that a guest is told of.
#[derive(Clone, Copy, Debug)]
pub struct GuestCpu {
    /// The model.
    pub model: &'static CpuModel,
    /// What is taken away from it.
    pub levelling: Levelling,
}

impl GuestCpu {
    /// A model as it is.
    pub const fn of(model: &'static CpuModel) -> Self {
        Self { model, levelling: Levelling::NONE }
    }

    /// Its features.
    pub fn features(&self) -> u128 {
        let hidden = NOT_OFFERED.iter().fold(0, |set, (feature, _)| set | feature.bit());
        self.model.features() & !hidden & self.levelling.keep | Feature::Hypervisor.bit()
    }

    /// Whether it is told of a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features() & feature.bit() != 0
    }

    /// The vendor's name in CPUID leaf 0.
    pub fn signature(&self) -> [u8; 12] {
        self.levelling.signature.unwrap_or(*self.model.vendor.signature())
    }

    /// Whose rules it expects.
    pub fn vendor(&self) -> Vendor {
        match &self.signature() {
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Intel,
        }
    }

    /// The width of physical addresses.
    pub fn physical_address_bits(&self) -> u8 {
        self.model.physical_address_bits.min(self.levelling.physical_address_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levelling_keeps_what_all_models_have() {
        for model in models::MODELS {
            let levelling = models::MODELS.iter().fold(Levelling::NONE, |levelling, other| levelling.common(other));
            let guest = GuestCpu { model, levelling };
            for other in models::MODELS {
                assert_eq!(guest.features() & !other.features() & !Feature::Hypervisor.bit(), 0, "{} on {}", model.name, other.name);
                assert!(guest.physical_address_bits() <= other.physical_address_bits);
            }
            assert!(guest.has(Feature::Sse2) && guest.has(Feature::LongMode));
            assert!(!GuestCpu { model, levelling: levelling.without(Feature::Sse2) }.has(Feature::Sse2));
        }
    }

    #[test]
    fn a_levelling_goes_through_a_record() {
        let common = Levelling::NONE.common(&models::ZEN3).without(Feature::Sse4a);
        for levelling in [Levelling::NONE, common, Levelling { signature: Some(*b"HygonGenuine"), ..common }] {
            let read = Levelling::of_record(&levelling.record()).unwrap();
            let (one, two) =
                (GuestCpu { model: &models::SKYLAKE_SERVER, levelling }, GuestCpu { model: &models::SKYLAKE_SERVER, levelling: read });
            assert_eq!(
                (one.features(), one.signature(), one.physical_address_bits()),
                (two.features(), two.signature(), two.physical_address_bits())
            );
        }
    }

    #[test]
    fn the_name_alone_decides_whose_rules_hold() {
        for (name, vendor) in [
            (b"AuthenticAMD", Vendor::Amd),
            (b"HygonGenuine", Vendor::Amd),
            (b"GenuineIntel", Vendor::Intel),
            (b"CentaurHauls", Vendor::Intel),
            (b"TraplineTest", Vendor::Intel),
        ] {
            let levelling = Levelling { signature: Some(*name), ..Levelling::NONE };
            for model in models::MODELS {
                assert_eq!(GuestCpu { model, levelling }.vendor(), vendor);
            }
        }
        for model in models::MODELS {
            assert_eq!(GuestCpu::of(model).vendor(), model.vendor);
        }
    }
}
