//! What the rules of both vendors look like to the auditor: numbered words, numbered rules, and a verdict.
//!
//! Modelled: one shape over the twin tables of `vmx` and `svm`. Not modelled: anything that only one of them has; that is in their adapters.

use crate::bits::BitNames;

/// A number that rules read: a field, or something beside the control structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its name in reports and JSON: `GuestCr0`, `CS.ATTRIB`, `memory.virtual_tpr`.
    pub name: String,
    /// The manual's title, or what it is in words.
    pub title: String,
    /// The bits that it can hold.
    pub mask: u64,
    /// What is assumed where a reading does not hold it.
    pub assumed: u64,
    /// Whether it describes the processor that makes the entry, whose usual value may be taken for granted.
    pub environment: bool,
}

/// What follows from a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction ends with VMfailValid and this VM-instruction error.
    VmFailValid {
        /// The instruction, for example "VMPTRLD" or "VM entry".
        instruction: &'static str,
        /// The number in the VM-instruction error field.
        error: u32,
        /// What the manual calls it.
        meaning: &'static str,
    },
    /// A VM exit with reason 33 and bit 31 set.
    EntryFailure {
        /// The exit qualification.
        qualification: u64,
    },
    /// A VM exit with reason 34 and bit 31 set; the exit qualification is the number of the list's entry.
    MsrLoading,
    /// #VMEXIT with VMEXIT_INVALID.
    VmexitInvalid,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::VmFailValid { instruction, error, meaning } => {
                write!(formatter, "{instruction} ends with VMfailValid, error {error} ({meaning})")
            }
            Outcome::EntryFailure { qualification } => {
                write!(formatter, "VM entry ends with exit reason 0x80000021 (invalid guest state), qualification {qualification}")
            }
            Outcome::MsrLoading => formatter
                .write_str("VM entry ends with exit reason 0x80000022 (MSR loading), the exit qualification is the number of the entry"),
            Outcome::VmexitInvalid => formatter.write_str("VMRUN ends with VMEXIT_INVALID (EXITCODE -1)"),
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique among the vendor's rules.
    pub id: &'static str,
    /// "SDM vol 3" or "APM vol 2".
    pub manual: &'static str,
    /// Section of the manual: number and title.
    pub section: &'static str,
    /// The rule in one sentence, as what must hold.
    pub rule: &'static str,
    /// What to do about it; may be empty.
    pub hint: &'static str,
    /// What follows if it is broken.
    pub outcome: Outcome,
    /// The words that it reads, by number.
    pub reads: Vec<usize>,
}

/// What a rule says of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has nothing to say here.
    NotApplicable,
    /// It is obeyed.
    Holds,
    /// It is broken.
    Broken,
}

/// The rules of one vendor over one control structure.
pub trait Silicon: std::fmt::Debug {
    /// Every word, the fields of the control structure first.
    fn words(&self) -> &[Word];
    /// How many of the words are fields.
    fn fields(&self) -> usize;
    /// Every rule, in the order in which the machine looks.
    fn rules(&self) -> &[Rule];
    /// Value of a word.
    fn get(&self, word: usize) -> u64;
    /// Sets a word, cut to its mask.
    fn set(&mut self, word: usize, value: u64);
    /// What a rule says.
    fn verdict(&self, rule: usize) -> Verdict;
    /// Takes the processor for one that accepts the controls and the host state, as one does that refuses only the guest's; names the words by
    /// which it must be another one than the model.
    fn learn(&mut self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Puts an entry of the VM-entry MSR-load list where the rules look at one; says whether its MSR is one that the model has.
    fn look_at_msr(&mut self, _entry: &vmx::checks::MsrLoad) -> bool {
        true
    }
    /// The names of the bits of a word.
    fn bit_names(&self, word: usize) -> BitNames;
    /// The bits that must be 1 and those that may be 1, where the processor's capabilities say so of the word.
    fn settings(&self, rule: usize, word: usize) -> Option<Settings>;
}

/// Which bits of a word must and which may be 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// They must be 1.
    pub must: u64,
    /// They may be 1.
    pub may: u64,
    /// Where the processor says so: an MSR, or words.
    pub source: &'static str,
}
