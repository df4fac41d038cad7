//! What CPUID answers in the guest: a table made once, as KVM's user space makes it, and the words that change while the guest runs.
//!
//! Modelled: the guest's CPU model as [`GuestCpu`] has it, plus the hypervisor's leaves 0x40000000 and 0x40000001; where the guest is shown
//! Hyper-V's there, KVM's are at 0x40000100, as in KVM. Not modelled: Xen's leaves.

use crate::guest_cpu::GuestCpu;
use crate::hypercall;
use crate::hyperv;
use isa::control::xcr0;
use isa::cpuid::{CpuidResult, Feature, Output};
use models::{CpuidContext, Vendor};

/// The first of the hypervisor's leaves.
pub const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// The first of KVM's leaves where another interface has the place.
const SECOND_LEAF: u32 = 0x4000_0100;
/// The end of the hypervisor's leaves.
const HYPERVISOR_END: u32 = 0x4000_0200;
/// Leaf 1, ECX: CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 7, ECX: CR4.PKE.
const OSPKE: u32 = 1 << 4;
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
    guest: GuestCpu,
    /// KVM's first leaf.
    kvm: u32,
}

/// What CPUID's answer depends on of a running virtual CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub ospke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// The local APIC is enabled.
    pub apic_enabled: bool,
}

/// Leaves whose answer depends on the subleaf.
const WITH_SUBLEAVES: [u32; 5] = [4, 7, 0xb, 0xd, 0x8000_001d];

impl CpuidTable {
    /// The table of virtual CPU `number` of `count`, with KVM's feature word, and with Hyper-V's interface in front if that is wanted.
    pub fn new(guest: &GuestCpu, number: u32, count: u32, features: u32, hyperv: bool) -> Self {
        let model = guest.model;
        let context = CpuidContext { apic_id: number, cpu_count: count, ..CpuidContext::default() };
        let mut entries = Vec::new();
        for leaf in
            (0..=model.maximum_basic_leaf.min(0xff)).chain(0x8000_0000..=model.maximum_extended_leaf.clamp(0x8000_0000, 0x8000_00ff))
        {
            let subleaves = if WITH_SUBLEAVES.contains(&leaf) { 10 } else { 1 };
            for subleaf in 0..subleaves {
                let value = adapt(guest, leaf, subleaf, model.cpuid(leaf, subleaf, &context));
                entries.push(Entry { leaf, subleaf: (subleaves > 1).then_some(subleaf), value });
            }
        }
        let word = |text: &[u8; 12], at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
        let name = b"KVMKVMKVM\0\0\0";
        let kvm = if hyperv { SECOND_LEAF } else { HYPERVISOR_LEAF };
        let signature = CpuidResult { eax: kvm + 1, ebx: word(name, 0), ecx: word(name, 4), edx: word(name, 8) };
        entries.push(Entry { leaf: kvm, subleaf: None, value: signature });
        entries.push(Entry { leaf: kvm + 1, subleaf: None, value: CpuidResult { eax: features, ..CpuidResult::default() } });
        if hyperv {
            entries.extend((HYPERVISOR_LEAF..).zip(hyperv::cpuid_leaves()).map(|(leaf, value)| Entry { leaf, subleaf: None, value }));
        }
        entries.sort_by_key(|entry| (entry.leaf, entry.subleaf));
        Self { entries, guest: *guest, kvm }
    }

    /// The answer, and whether the leaf exists.
    pub fn answer(&self, leaf: u32, subleaf: u32, running: &Running) -> (CpuidResult, bool) {
        let found = self.find(leaf, subleaf);
        let mut value = match found {
            Some(value) => value,
            // SDM vol 2, "CPUID": above the highest basic leaf an Intel processor answers as for that leaf; APM vol 3: AMD's with zeros.
            None if self.guest.model.vendor == Vendor::Intel && self.outside(leaf) => {
                self.find(self.guest.model.maximum_basic_leaf, subleaf).unwrap_or_default()
            }
            None => CpuidResult::default(),
        };
        match (leaf, subleaf) {
            (1, _) => {
                value.ecx = value.ecx & !OSXSAVE | if running.osxsave { OSXSAVE } else { 0 };
                value.edx = value.edx & !APIC | if running.apic_enabled { APIC } else { 0 };
            }
            (7, 0) if running.ospke && found.is_some() => value.ecx |= OSPKE,
            // The size of the area for what XCR0 has now; that of all there is is in ECX.
            (0xd, 0) if running.xcr0 & xcr0::PKRU != 0 => value.ebx = value.ecx,
            _ => {}
        }
        (value, found.is_some())
    }

    /// Whether a leaf is in none of the ranges that exist.
    fn outside(&self, leaf: u32) -> bool {
        match leaf {
            0..HYPERVISOR_LEAF => leaf > self.guest.model.maximum_basic_leaf,
            HYPERVISOR_LEAF..HYPERVISOR_END => false,
            _ => leaf < 0x8000_0000 || leaf > self.guest.model.maximum_extended_leaf,
        }
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
        let first = self.entries.partition_point(|entry| entry.leaf < leaf);
        let of_leaf = self.entries[first..].iter().take_while(|entry| entry.leaf == leaf);
        of_leaf.into_iter().find(|entry| entry.subleaf.is_none_or(|index| index == subleaf)).map(|entry| entry.value)
    }

    /// KVM's feature word.
    pub fn hypervisor_features(&self) -> u32 {
        self.find(self.kvm + 1, 0).map_or(0, |value| value.eax)
    }

    /// Whether the hypervisor tells of a feature of its own.
    pub fn has_hypervisor_feature(&self, bit: u32) -> bool {
        self.hypervisor_features() >> bit & 1 != 0
    }
}

/// Features of leaf 1's EDX that AMD repeats in that of leaf 8000_0001. APM vol 3, E.4.2.
const REPEATED: u32 = 0x0183_f3ff;

/// A leaf of the model as the guest may see it: under a hypervisor, under the name it was given, and without what it is not told of.
fn adapt(guest: &GuestCpu, leaf: u32, subleaf: u32, mut value: CpuidResult) -> CpuidResult {
    let features = guest.features();
    let mut repeated = 0;
    for &feature in Feature::ALL.iter().filter(|&&feature| features & feature.bit() == 0) {
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
        if at == 1 && output == Output::Edx {
            repeated |= 1 << bit;
        }
    }
    let named = leaf == 0 || leaf == 0x8000_0000 && guest.model.vendor == Vendor::Amd;
    if let Some(name) = guest.levelling.signature.filter(|_| named) {
        let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
        (value.ebx, value.edx, value.ecx) = (word(0), word(4), word(8));
    }
    match leaf {
        1 => value.ecx |= 1 << Feature::Hypervisor.place().3,
        // MONITOR and MWAIT.
        5 => value = CpuidResult::default(),
        0xd if features & Feature::Xsave.bit() == 0 => value = CpuidResult::default(),
        0xd if features & Feature::Pku.bit() == 0 => match subleaf {
            0 => {
                value.eax &= !(xcr0::PKRU as u32);
                value.ecx = value.ebx;
            }
            9 => value = CpuidResult::default(),
            _ => {}
        },
        0x8000_0001 if guest.model.vendor == Vendor::Amd => value.edx &= !(repeated & REPEATED),
        0x8000_0008 => {
            value.eax = value.eax & !0xff | u32::from(guest.physical_address_bits());
            // What RDPRU reads, which no guest is told of.
            value.edx = 0;
        }
        isa::svm::cpuid::SVM_LEAF => value = CpuidResult::default(),
        _ => {}
    }
    value
}

/// The feature word of leaf 0x40000001 for a set of hypercalls that are there.
pub fn hypervisor_features(enabled: impl Fn(&hypercall::Row) -> bool) -> u32 {
    hypercall::TABLE.iter().filter(|row| enabled(row)).filter_map(|row| row.feature).fold(0, |word, bit| word | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_cpu::Levelling;

    const ON: Running = Running { osxsave: false, ospke: false, xcr0: 1, apic_enabled: true };

    #[test]
    fn what_is_levelled_away_is_nowhere() {
        for model in models::MODELS {
            let everything = models::MODELS.iter().fold(Levelling::NONE, |levelling, other| levelling.common(other));
            let guest = GuestCpu { model, levelling: Levelling { signature: Some(*b"TraplineTest"), ..everything } };
            let table = CpuidTable::new(&guest, 0, 1, 0, false);
            for &feature in Feature::ALL {
                let (leaf, subleaf, output, bit) = feature.place();
                let (value, _) = table.answer(leaf, subleaf, &ON);
                let word = match output {
                    Output::Eax => value.eax,
                    Output::Ebx => value.ebx,
                    Output::Ecx => value.ecx,
                    Output::Edx => value.edx,
                };
                let inside = leaf <= model.maximum_basic_leaf || (0x8000_0000..=model.maximum_extended_leaf).contains(&leaf);
                assert!(!inside || guest.has(feature) == (word >> bit & 1 != 0), "{} {feature:?}", model.name);
            }
            let (name, _) = table.answer(0, 0, &ON);
            assert_eq!((name.ebx, name.edx, name.ecx), (0x7061_7254, 0x656e_696c, 0x7473_6554));
            let (repeated, _) = table.answer(0x8000_0001, 0, &ON);
            assert_eq!(repeated.edx & 1 << Feature::Mtrr.place().3 != 0, model.vendor == Vendor::Amd && guest.has(Feature::Mtrr));
        }
    }

    #[test]
    fn protection_keys_show_when_they_are_used() {
        for model in [&models::SKYLAKE_SERVER, &models::ZEN3] {
            let table = CpuidTable::new(&GuestCpu::of(model), 0, 1, 0, false);
            assert_eq!(table.answer(7, 0, &ON).0.ecx >> 3 & 3, 1);
            assert_eq!(table.answer(7, 0, &Running { ospke: true, ..ON }).0.ecx >> 3 & 3, 3);
            let (now, later) = (table.answer(0xd, 0, &ON).0, table.answer(0xd, 0, &Running { xcr0: 0x203, ..ON }).0);
            assert_eq!((now.ebx, later.ebx, later.ecx), (576, model.pkru_offset() + 8, model.pkru_offset() + 8));
            assert_eq!(table.answer(0xd, 9, &ON).0.ebx, model.pkru_offset());
        }
    }

    #[test]
    fn the_hypervisor_signs_its_leaf() {
        let table = CpuidTable::new(&GuestCpu::of(&models::SKYLAKE_SERVER), 0, 1, 0x880, false);
        let (value, found) = table.answer(HYPERVISOR_LEAF, 0, &ON);
        assert!(found);
        assert_eq!((value.eax, value.ebx, value.ecx, value.edx), (0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d));
        assert_eq!(table.answer(HYPERVISOR_LEAF + 1, 0, &ON).0.eax, 0x880);
        assert!(table.has_hypervisor_feature(7) && !table.has_hypervisor_feature(16));
    }

    #[test]
    fn behind_hyper_v_the_hypervisor_signs_a_later_leaf() {
        let table = CpuidTable::new(&GuestCpu::of(&models::SKYLAKE_SERVER), 0, 1, 0x880, true);
        let leaf = |number| table.answer(number, 0, &ON).0;
        assert_eq!((leaf(HYPERVISOR_LEAF).eax, leaf(HYPERVISOR_LEAF).ebx), (0x4000_0005, 0x7263_694d));
        assert_eq!((leaf(SECOND_LEAF).eax, leaf(SECOND_LEAF).ebx, leaf(SECOND_LEAF + 1).eax), (0x4000_0101, 0x4b4d_564b, 0x880));
        assert!(table.has_hypervisor_feature(7));
    }

    #[test]
    fn virtualization_is_hidden_and_the_hypervisor_shown() {
        for model in models::MODELS {
            let table = CpuidTable::new(&GuestCpu::of(model), 0, 1, 0, false);
            let (one, _) = table.answer(1, 0, &Running { osxsave: true, ..ON });
            assert_eq!((one.ecx >> 5 & 1, one.ecx >> 31, one.ecx >> 27 & 1), (0, 1, 1), "{}", model.name);
            assert_eq!(table.answer(0x8000_0001, 0, &ON).0.ecx >> 2 & 1, 0, "{}", model.name);
            assert_eq!(table.answer(1, 0, &Running::default()).0.edx >> 9 & 1, 0, "{}", model.name);
        }
    }

    #[test]
    fn a_leaf_above_the_last_answers_as_the_vendor_does() {
        let intel = CpuidTable::new(&GuestCpu::of(&models::SKYLAKE_SERVER), 0, 1, 0, false);
        let last = intel.answer(models::SKYLAKE_SERVER.maximum_basic_leaf, 0, &ON).0;
        assert_eq!(intel.answer(0x1000, 0, &ON), (last, false));
        let amd = CpuidTable::new(&GuestCpu::of(&models::ZEN3), 0, 1, 0, false);
        assert_eq!(amd.answer(0x1000, 0, &ON), (CpuidResult::default(), false));
    }
}
