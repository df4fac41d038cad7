//! The rules of VMRUN as the auditor sees them: the rows of `svm::check`.
//!
//! Modelled: all of them, over the named words of a VMCB. Not modelled: #GP for an address of the VMCB, which no VMCB can show.

use crate::bits::BitNames;
use crate::processor;
use crate::rule::{Outcome, Rule, Settings, Silicon, Verdict, Word};
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::svm::{SvmFeatures, VMCB_SIZE, VmcbField};
use models::CpuModel;
use std::sync::LazyLock;
use svm::check::{CHECKS, Entry, Limits};
use zerocopy::{FromBytes, IntoBytes};

/// What is looked at beside the VMCB: name, title, bits, and whether the usual value of a processor may be taken for granted.
const EXTRAS: [(&str, &str, u64, bool); 5] = [
    ("memory.pdptes[0]", "PDPTE0 in memory at the guest's CR3", u64::MAX, false),
    ("memory.pdptes[1]", "PDPTE1 in memory at the guest's CR3", u64::MAX, false),
    ("memory.pdptes[2]", "PDPTE2 in memory at the guest's CR3", u64::MAX, false),
    ("memory.pdptes[3]", "PDPTE3 in memory at the guest's CR3", u64::MAX, false),
    ("processor.paging", "CR0.PG of the processor that executes VMRUN", 1, true),
];

/// The words of a VMCB and of what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Vmcb {
    words: Vec<Word>,
    block: Box<isa::svm::Vmcb>,
    pdptes: [u64; 4],
    limits: Limits,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let number = |name: &&str| VmcbField::all().iter().position(|field| field.name == **name);
    CHECKS
        .iter()
        .map(|check| Rule {
            id: check.id,
            manual: "APM vol 2",
            section: check.section,
            rule: check.rule,
            hint: check.hint,
            outcome: Outcome::VmexitInvalid,
            reads: check.reads.iter().filter_map(number).collect(),
        })
        .collect()
});

/// Every rule of SVM.
pub(crate) fn rules() -> &'static [Rule] {
    &RULES
}

/// Bits of a present page-directory-pointer entry that must be zero whatever the processor's width of addresses. APM volume 2, 5.2.3 "PAE
/// Paging".
const PDPTE_RESERVED: u64 = 0xfff0_0000_0000_01e6;

impl Vmcb {
    /// A VMCB of assumed values on a processor with these features.
    pub(crate) fn new(cpu: &CpuModel, features: SvmFeatures) -> Vmcb {
        let mut words: Vec<Word> = VmcbField::all()
            .iter()
            .map(|field| Word {
                name: field.name.clone(),
                title: format!("VMCB offset {:03X}h", field.offset),
                mask: field.mask(),
                assumed: 0,
                // What few dumps hold, and who uses no shadow stacks leaves zero.
                environment: field.name == "S_CET",
            })
            .collect();
        for (name, title, mask, environment) in EXTRAS {
            words.push(Word { name: name.to_owned(), title: title.to_owned(), mask, assumed: environment.into(), environment });
        }
        let beyond = u64::MAX.checked_shl(u32::from(cpu.physical_address_bits)).unwrap_or(0);
        Vmcb {
            words,
            block: Box::new(isa::svm::Vmcb::zeroed()),
            pdptes: [0; 4],
            limits: Limits {
                physical_bits: u32::from(cpu.physical_address_bits),
                pdpte_reserved: PDPTE_RESERVED | beyond,
                cr4: processor::cr4(cpu),
                efer: processor::efer(cpu),
                long_mode: cpu.has(Feature::LongMode),
                host_paging: true,
                features,
            },
        }
    }

    /// The same on Trapline's own silicon, which has no bits of CR4 and EFER beyond its model's.
    pub(crate) fn on_machine(cpu: &CpuModel, features: SvmFeatures) -> Vmcb {
        let mut vmcb = Vmcb::new(cpu, features);
        vmcb.limits.cr4 = cpu.supported_cr4().into_bits();
        vmcb.limits.efer = cpu.supported_efer().into_bits();
        vmcb
    }

    /// A VMCB of these bytes.
    pub(crate) fn load(&mut self, bytes: &[u8; VMCB_SIZE]) {
        if let Ok(block) = isa::svm::Vmcb::read_from_bytes(bytes) {
            *self.block = block;
        }
    }

    /// The entries that VMRUN reads from memory: in legacy PAE mode without nested paging.
    fn pdptes(&self) -> Option<[u64; 4]> {
        let save = &self.block.save;
        let (cr0, cr4, efer) = (Cr0::from_bits(save.cr0), Cr4::from_bits(save.cr4), Efer::from_bits(save.efer));
        let nested = self.limits.features.nested_paging() && self.block.control.nested_control.np_enable();
        (cr0.pg() && cr4.pae() && !efer.lme() && !nested).then_some(self.pdptes)
    }
}

impl Silicon for Vmcb {
    fn words(&self) -> &[Word] {
        &self.words
    }

    fn fields(&self) -> usize {
        VmcbField::all().len()
    }

    fn rules(&self) -> &[Rule] {
        rules()
    }

    fn get(&self, word: usize) -> u64 {
        match (VmcbField::all().get(word), word.wrapping_sub(self.fields())) {
            (Some(field), _) => field.get(self.block.as_bytes()),
            (None, index @ 0..=3) => self.pdptes[index],
            (None, _) => self.limits.host_paging.into(),
        }
    }

    fn set(&mut self, word: usize, value: u64) {
        match (VmcbField::all().get(word), word.wrapping_sub(self.fields())) {
            (Some(field), _) => field.set(self.block.as_mut_bytes(), value),
            (None, index @ 0..=3) => self.pdptes[index] = value,
            (None, _) => self.limits.host_paging = value & 1 != 0,
        }
    }

    fn verdict(&self, rule: usize) -> Verdict {
        let entry = Entry { control: &self.block.control, save: &self.block.save, pdptes: self.pdptes(), limits: &self.limits };
        match CHECKS.get(rule) {
            Some(check) if !(check.applies)(&entry) => Verdict::NotApplicable,
            Some(check) if (check.holds)(&entry) => Verdict::Holds,
            Some(_) => Verdict::Broken,
            None => Verdict::NotApplicable,
        }
    }

    fn bit_names(&self, word: usize) -> BitNames {
        VmcbField::all().get(word).map(|field| BitNames::vmcb(&field.name)).unwrap_or_default()
    }

    fn settings(&self, rule: usize, word: usize) -> Option<Settings> {
        match (rules().get(rule)?.id, VmcbField::all().get(word)?.name.as_str()) {
            ("efer-reserved", "EFER") => Some(Settings {
                must: 0,
                may: self.limits.efer | Efer::new().with_lme(true).with_lma(true).into_bits(),
                source: "the bits of EFER that the processor has",
            }),
            ("cr4-reserved", "CR4") => Some(Settings { must: 0, may: self.limits.cr4, source: "the bits of CR4 that the processor has" }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_keeps_what_it_is_given() {
        let cpu = &models::ZEN3;
        let mut vmcb = Vmcb::new(cpu, cpu.svm.unwrap().features);
        for word in 0..vmcb.words().len() {
            vmcb.set(word, u64::MAX);
            assert_eq!(vmcb.get(word), vmcb.words()[word].mask, "{}", vmcb.words()[word].name);
        }
    }

    #[test]
    fn the_words_of_a_rule_are_found() {
        for (rule, check) in rules().iter().zip(CHECKS) {
            assert_eq!(rule.reads.len(), check.reads.len(), "{}", rule.id);
        }
    }
}
