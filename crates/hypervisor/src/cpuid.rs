//! What CPUID answers in the guest: a table made once, as KVM's user space makes it, and two words that change while the guest runs.
//!
//! Modelled: the guest's CPU model, less VMX and SVM, plus the hypervisor's leaves 0x40000000 and 0x40000001.
//! Not modelled: other hypervisors' leaves (Hyper-V, Xen).

use crate::hypercall;
use isa::cpuid::{CpuidResult, Feature, Output};
use models::{CpuModel, CpuidContext, Vendor};

/// The first of the hypervisor's leaves.
pub const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// Leaf 1, ECX: CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 1, EDX: the local APIC is enabled.
const APIC: u32 = 1 << 9;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    leaf: u32,
    /// `None` where any subleaf gets this answer.
    subleaf: Option<u32>,
    value: CpuidResult,
}

/// All answers for one virtual CPU, in order of leaf and subleaf.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    entries: Vec<Entry>,
    model: &'static CpuModel,
}

/// Leaves whose answer depends on the subleaf.
const WITH_SUBLEAVES: [u32; 5] = [4, 7, 0xb, 0xd, 0x8000_001d];

impl CpuidTable {
    /// The table of virtual CPU `number` of `count`.
    pub fn new(model: &'static CpuModel, number: u32, count: u32, features: u32) -> Self {
        let context = CpuidContext { apic_id: number, cpu_count: count, ..CpuidContext::default() };
        let mut entries = Vec::new();
        for leaf in
            (0..=model.maximum_basic_leaf.min(0xff)).chain(0x8000_0000..=model.maximum_extended_leaf.clamp(0x8000_0000, 0x8000_00ff))
        {
            let subleaves = if WITH_SUBLEAVES.contains(&leaf) { 8 } else { 1 };
            for subleaf in 0..subleaves {
                let value = hide(leaf, subleaf, model.cpuid(leaf, subleaf, &context));
                entries.push(Entry { leaf, subleaf: (subleaves > 1).then_some(subleaf), value });
            }
        }
        let word = |text: &[u8; 12], at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
        let name = b"KVMKVMKVM\0\0\0";
        let signature = CpuidResult { eax: HYPERVISOR_LEAF + 1, ebx: word(name, 0), ecx: word(name, 4), edx: word(name, 8) };
        entries.push(Entry { leaf: HYPERVISOR_LEAF, subleaf: None, value: signature });
        entries.push(Entry { leaf: HYPERVISOR_LEAF + 1, subleaf: None, value: CpuidResult { eax: features, ..CpuidResult::default() } });
        entries.sort_by_key(|entry| (entry.leaf, entry.subleaf));
        Self { entries, model }
    }

    /// The answer, and whether the leaf exists.
    pub fn answer(&self, leaf: u32, subleaf: u32, osxsave: bool, apic_enabled: bool) -> (CpuidResult, bool) {
        let found = self.find(leaf, subleaf);
        let mut value = match found {
            Some(value) => value,
            // SDM vol 2, "CPUID": above the highest basic leaf an Intel processor answers as for that leaf; APM vol 3: AMD's with zeros.
            None if self.model.vendor == Vendor::Intel && self.outside(leaf) => {
                self.find(self.model.maximum_basic_leaf, subleaf).unwrap_or_default()
            }
            None => CpuidResult::default(),
        };
        if leaf == 1 {
            value.ecx = value.ecx & !OSXSAVE | if osxsave { OSXSAVE } else { 0 };
            value.edx = value.edx & !APIC | if apic_enabled { APIC } else { 0 };
        }
        (value, found.is_some())
    }

    /// Whether a leaf is in none of the ranges that exist.
    fn outside(&self, leaf: u32) -> bool {
        match leaf {
            0..HYPERVISOR_LEAF => leaf > self.model.maximum_basic_leaf,
            HYPERVISOR_LEAF..0x4000_0100 => false,
            _ => leaf < 0x8000_0000 || leaf > self.model.maximum_extended_leaf,
        }
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
        let first = self.entries.partition_point(|entry| entry.leaf < leaf);
        let of_leaf = self.entries[first..].iter().take_while(|entry| entry.leaf == leaf);
        of_leaf.into_iter().find(|entry| entry.subleaf.is_none_or(|index| index == subleaf)).map(|entry| entry.value)
    }

    /// Whether the hypervisor tells of a feature of its own.
    pub fn has_hypervisor_feature(&self, bit: u32) -> bool {
        self.find(HYPERVISOR_LEAF + 1, 0).is_some_and(|value| value.eax >> bit & 1 != 0)
    }
}

/// Features of processors that no guest has: virtualization, and those whose registers this hypervisor neither keeps for a guest nor moves.
const HIDDEN: [Feature; 10] = [
    Feature::Vmx,
    Feature::Svm,
    Feature::Skinit,
    Feature::Monitor,
    Feature::Mce,
    Feature::Mca,
    Feature::Mtrr,
    Feature::TscAdjust,
    Feature::Umip,
    Feature::Pku,
];
/// Those of leaf 1's EDX.
const REPEATED: u32 = 1 << Feature::Mce.place().3 | 1 << Feature::Mca.place().3 | 1 << Feature::Mtrr.place().3;

/// A leaf of the model as the guest may see it: under a hypervisor, and without what is hidden.
fn hide(leaf: u32, subleaf: u32, mut value: CpuidResult) -> CpuidResult {
    for feature in HIDDEN {
        let (at, sub, output, bit) = feature.place();
        if (at, sub) == (leaf, subleaf) {
            let word = match output {
                Output::Eax => &mut value.eax,
                Output::Ebx => &mut value.ebx,
                Output::Ecx => &mut value.ecx,
                Output::Edx => &mut value.edx,
            };
            *word &= !(1 << bit);
        }
    }
    match leaf {
        1 => value.ecx |= 1 << Feature::Hypervisor.place().3,
        // MONITOR and MWAIT.
        5 => value = CpuidResult::default(),
        0xd if subleaf == 0 => {
            value.eax &= !(isa::control::xcr0::PKRU as u32);
            value.ecx = value.ebx;
        }
        // AMD repeats there what leaf 1 has.
        0x8000_0001 => value.edx &= !REPEATED,
        isa::svm::cpuid::SVM_LEAF => value = CpuidResult::default(),
        _ => {}
    }
    value
}

/// The features of a model that its guest has.
pub fn guest_features(model: &'static CpuModel) -> u128 {
    model.features() & !HIDDEN.iter().fold(0, |set, feature| set | feature.bit()) | Feature::Hypervisor.bit()
}

/// The feature word of leaf 0x40000001 for a set of hypercalls that are there.
pub fn hypervisor_features(enabled: impl Fn(&hypercall::Row) -> bool) -> u32 {
    hypercall::TABLE.iter().filter(|row| enabled(row)).filter_map(|row| row.feature).fold(0, |word, bit| word | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hypervisor_signs_its_leaf() {
        let table = CpuidTable::new(&models::SKYLAKE_SERVER, 0, 1, 0x880);
        let (value, found) = table.answer(HYPERVISOR_LEAF, 0, false, true);
        assert!(found);
        assert_eq!((value.eax, value.ebx, value.ecx, value.edx), (0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d));
        assert_eq!(table.answer(HYPERVISOR_LEAF + 1, 0, false, true).0.eax, 0x880);
        assert!(table.has_hypervisor_feature(7) && !table.has_hypervisor_feature(16));
    }

    #[test]
    fn virtualization_is_hidden_and_the_hypervisor_shown() {
        for model in models::MODELS {
            let table = CpuidTable::new(model, 0, 1, 0);
            let (one, _) = table.answer(1, 0, true, true);
            assert_eq!((one.ecx >> 5 & 1, one.ecx >> 31, one.ecx >> 27 & 1), (0, 1, 1), "{}", model.name);
            assert_eq!(table.answer(0x8000_0001, 0, false, true).0.ecx >> 2 & 1, 0, "{}", model.name);
            assert_eq!(table.answer(1, 0, false, false).0.edx >> 9 & 1, 0, "{}", model.name);
        }
    }

    #[test]
    fn a_leaf_above_the_last_answers_as_the_vendor_does() {
        let intel = CpuidTable::new(&models::SKYLAKE_SERVER, 0, 1, 0);
        let last = intel.answer(models::SKYLAKE_SERVER.maximum_basic_leaf, 0, false, true).0;
        assert_eq!(intel.answer(0x1000, 0, false, true), (last, false));
        let amd = CpuidTable::new(&models::ZEN3, 0, 1, 0);
        assert_eq!(amd.answer(0x1000, 0, false, true), (CpuidResult::default(), false));
    }
}
