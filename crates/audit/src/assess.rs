//! What the rules say of a control structure: all that are broken, and all that cannot be decided.
//!
//! Modelled: every rule, in the machine's order; the first that is broken is what hardware would have answered with. Where the structure
//! itself records that an entry ended with exit reason 0x80000021, the rules of control fields and host state must have held on that
//! processor: what they find only tells that it is another one than the model.
//! Not modelled: rules that hang on three unknown words at once count as decided.

use crate::bits::BitNames;
use crate::repair::{Repair, bits, candidates, repairs};
use crate::rule::{Outcome, Rule, Settings, Silicon, Verdict};
use crate::state::{Source, State};
use models::{CpuModel, Vendor};
use std::ops::Range;

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The bits that are wrong; zero where so many other values are legal that no bit is to blame.
    pub bits: u64,
    /// A legal value, as near as possible to what is there.
    pub nearest: u64,
    /// What the processor's capabilities allow, where the rule is about them.
    pub settings: Option<Settings>,
    /// The legal values of the one named run of bits that is wrong: its lowest bit, its name, the values.
    pub choices: Option<(u32, String, Vec<u64>)>,
}

/// A word that a broken rule reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The bits that it can hold.
    pub mask: u64,
    /// Its value.
    pub value: u64,
    /// Whether the reading held it.
    pub known: bool,
    /// Where it stands.
    pub place: Option<Range<usize>>,
    /// The names of its bits.
    pub names: BitNames,
    /// What is wrong with it; nothing where a change of it alone does not help.
    pub mark: Option<Mark>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Its place in the machine's order.
    pub number: usize,
    /// What it reads.
    pub reads: Vec<Reading>,
    /// Whether both of two marked words must change, where neither does alone.
    pub together: bool,
}

/// A rule that cannot be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The rule.
    pub rule: Rule,
    /// Its place in the machine's order.
    pub number: usize,
    /// Names of the words that it hangs on and that the reading does not hold.
    pub missing: Vec<String>,
}

/// A word that the reading does not hold and that some rule hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Its name.
    pub name: String,
    /// What was assumed.
    pub value: u64,
}

/// What the rules say.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// Whose rules.
    pub vendor: Vendor,
    /// On which processor.
    pub cpu: &'static CpuModel,
    /// What was read.
    pub source: Source,
    /// How many rules there are.
    pub rules: usize,
    /// How many of them apply and hold.
    pub held: usize,
    /// The broken ones, in the machine's order: the first is what hardware would have answered with.
    pub broken: Vec<Finding>,
    /// Broken ones that must have held on the processor that recorded the structure.
    pub elsewhere: Vec<Finding>,
    /// Those that cannot be decided.
    pub undecided: Vec<Undecided>,
    /// The words that those hang on.
    pub assumed: Vec<Assumed>,
    /// What the structure itself records of an entry that failed.
    pub recorded: Option<Outcome>,
    /// What to say about the reading.
    pub remarks: Vec<String>,
}

impl Assessment {
    /// How many undecided rules come before the first broken one: hardware may have stopped at one of them.
    pub fn undecided_before(&self) -> usize {
        let first = self.broken.first().map_or(0, |first| first.number);
        self.undecided.iter().filter(|undecided| undecided.number < first).count()
    }

    /// Whether no rule is broken.
    pub fn valid(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Asks every rule.
pub fn assess(state: &mut State) -> Assessment {
    let recorded = recorded(state);
    let msr_list = msr_list(state);
    let silicon = state.silicon.as_mut();
    let mut remarks = state.remarks.clone();
    remarks.extend(msr_list);
    if let Some(reason) = behind_controls(recorded) {
        let learned = silicon.learn();
        if !learned.is_empty() {
            remarks.push(format!(
                "the processor that recorded exit reason {reason} accepted bits of {} that {} has not; they are taken for legal",
                learned.join(", "),
                state.cpu.name
            ));
        }
    }
    let mut assessment = Assessment {
        vendor: state.vendor,
        cpu: state.cpu,
        source: state.source,
        rules: silicon.rules().len(),
        held: 0,
        broken: Vec::new(),
        elsewhere: Vec::new(),
        undecided: Vec::new(),
        assumed: Vec::new(),
        recorded,
        remarks,
    };
    // Controls and host state come first: where the guest's state was refused, they had been found good.
    let known_good = |rule: &Rule| match recorded {
        Some(Outcome::EntryFailure { .. }) => matches!(rule.outcome, Outcome::VmFailValid { .. }),
        Some(Outcome::MsrLoading) => matches!(rule.outcome, Outcome::VmFailValid { .. } | Outcome::EntryFailure { .. }),
        _ => false,
    };
    let mut hung_on = vec![false; silicon.words().len()];
    for number in 0..silicon.rules().len() {
        let rule = silicon.rules()[number].clone();
        let verdict = silicon.verdict(number);
        let reads = reads(silicon, number, &rule);
        let unknown: Vec<usize> = reads.iter().copied().filter(|&word| !state.known[word] && !silicon.words()[word].environment).collect();
        let missing = hangs_on(silicon, number, verdict == Verdict::Broken, &unknown, &reads);
        if !missing.is_empty() && known_good(&rule) {
            assessment.held += 1;
            continue;
        }
        if !missing.is_empty() {
            for &word in &missing {
                hung_on[word] = true;
            }
            let missing = missing.iter().map(|&word| silicon.words()[word].name.clone()).collect();
            assessment.undecided.push(Undecided { rule, number, missing });
            continue;
        }
        match verdict {
            Verdict::NotApplicable => {}
            Verdict::Holds => assessment.held += 1,
            Verdict::Broken => {
                let contradicted = known_good(&rule);
                let finding = finding(silicon, number, rule, &reads, &state.known, &state.places);
                if contradicted { assessment.elsewhere.push(finding) } else { assessment.broken.push(finding) }
            }
        }
    }
    for (word, _) in hung_on.iter().enumerate().filter(|(_, hung_on)| **hung_on) {
        assessment.assumed.push(Assumed { name: silicon.words()[word].name.clone(), value: silicon.get(word) });
    }
    assessment
}

/// Puts the first entry of the VM-entry MSR-load list that breaks a rule where the rules look; says what there is to say of the others.
fn msr_list(state: &mut State) -> Vec<String> {
    let mut remarks = Vec::new();
    if state.vendor != Vendor::Intel {
        return remarks;
    }
    let (count, held) = (state.known("EntryMsrLoadCount").unwrap_or(0), state.msr_loads.len() as u64);
    if state.source == Source::Machine {
        return remarks;
    }
    if count > held {
        remarks.push(format!(
            "of the {count} in the VM-entry MSR-load list, {} {} not in this {} (`memory.entry_msr_load`) and count as good",
            count - held,
            if count - held == 1 { "is" } else { "are" },
            state.source.name()
        ));
    }
    let (mut stopped, mut others, mut strange) = (false, Vec::new(), Vec::new());
    for (entry, place) in state.msr_loads.clone().iter().take(count as usize) {
        let known = state.silicon.look_at_msr(entry);
        let broken = (0..state.silicon.rules().len())
            .any(|rule| state.silicon.rules()[rule].outcome == Outcome::MsrLoading && state.silicon.verdict(rule) == Verdict::Broken);
        if broken && !stopped {
            stopped = true;
            for word in state.silicon.fields()..state.silicon.words().len() {
                if state.silicon.words()[word].name.starts_with("memory.entry_msr_load") {
                    state.known[word] = true;
                    state.places[word] = Some(place.clone());
                }
            }
            state.stopped_at = Some(*entry);
        } else if broken {
            others.push(format!("{} (MSR {:#x})", entry.number, entry.index));
        } else if !known {
            strange.push(format!("{} (MSR {:#x})", entry.number, entry.index));
        }
    }
    state.silicon.look_at_msr(&state.stopped_at.unwrap_or_default());
    if !others.is_empty() {
        remarks.push(format!("of the VM-entry MSR-load list these entries break rules, too: {}", others.join(", ")));
    }
    if !strange.is_empty() {
        remarks.push(format!(
            "{} of Trapline has not the MSRs of these entries of the VM-entry MSR-load list, so they count as good: {}",
            state.cpu.name,
            strange.join(", ")
        ));
    }
    remarks
}

/// The exit reason of an entry that failed behind its controls and the host's state.
pub(crate) const fn behind_controls(recorded: Option<Outcome>) -> Option<&'static str> {
    match recorded {
        Some(Outcome::EntryFailure { .. }) => Some("0x80000021"),
        Some(Outcome::MsrLoading) => Some("0x80000022"),
        _ => None,
    }
}

/// What the exit-information fields record of a failed entry.
fn recorded(state: &State) -> Option<Outcome> {
    match state.vendor {
        Vendor::Intel => match state.known("ExitReason")? {
            0x8000_0021 => Some(Outcome::EntryFailure { qualification: state.known("ExitQualification").unwrap_or(0) }),
            0x8000_0022 => Some(Outcome::MsrLoading),
            _ => None,
        },
        Vendor::Amd => {
            // Linux printed 32 bits of it once.
            let code = state.known("EXITCODE")?;
            (code == u64::MAX || code == 0xffff_ffff).then_some(Outcome::VmexitInvalid)
        }
    }
}

/// The words that a rule reads: the fields of its row, and whatever beside the structure changes its verdict.
fn reads(silicon: &mut dyn Silicon, number: usize, rule: &Rule) -> Vec<usize> {
    let mut reads = rule.reads.clone();
    let verdict = silicon.verdict(number);
    for word in silicon.fields()..silicon.words().len() {
        let (there, mask) = (silicon.get(word), silicon.words()[word].mask);
        let mut others: Vec<u64> = bits(mask).map(|bit| there ^ bit).collect();
        others.extend(rule.reads.iter().map(|&read| silicon.get(read) & mask));
        let matters = others.into_iter().any(|value| {
            silicon.set(word, value);
            silicon.verdict(number) != verdict
        });
        silicon.set(word, there);
        if matters && !reads.contains(&word) {
            reads.push(word);
        }
    }
    reads
}

/// Which unknown words could make a broken rule not broken, or the other way round.
fn hangs_on(silicon: &mut dyn Silicon, rule: usize, broken: bool, unknown: &[usize], reads: &[usize]) -> Vec<usize> {
    let mut hangs: Vec<usize> = Vec::new();
    for &word in unknown {
        if differs(silicon, rule, broken, word, reads) {
            hangs.push(word);
        }
    }
    if hangs.is_empty() {
        for (index, &first) in unknown.iter().enumerate() {
            let there = silicon.get(first);
            for &second in &unknown[index + 1..] {
                for bit in bits(silicon.words()[first].mask) {
                    silicon.set(first, there ^ bit);
                    let found = differs(silicon, rule, broken, second, &[]);
                    silicon.set(first, there);
                    if found {
                        return vec![first, second];
                    }
                }
            }
        }
    }
    hangs
}

fn differs(silicon: &mut dyn Silicon, rule: usize, broken: bool, word: usize, reads: &[usize]) -> bool {
    let there = silicon.get(word);
    let single: Vec<u64> = bits(silicon.words()[word].mask).map(|bit| there ^ bit).collect();
    let more = if reads.is_empty() { Vec::new() } else { candidates(silicon, rule, word, reads) };
    let found = single.into_iter().chain(more).any(|value| {
        silicon.set(word, value);
        (silicon.verdict(rule) == Verdict::Broken) != broken
    });
    silicon.set(word, there);
    found
}

fn finding(
    silicon: &mut dyn Silicon,
    number: usize,
    rule: Rule,
    reads: &[usize],
    known: &[bool],
    places: &[Option<Range<usize>>],
) -> Finding {
    let repairs = repairs(silicon, number, reads);
    let mut together = false;
    let mut readings = Vec::new();
    for &word in reads {
        let names = silicon.bit_names(word);
        let repair = repairs.iter().find(|repair| repair.word == word);
        let mark = repair.map(|repair| Mark {
            bits: repair.bits,
            nearest: repair.value,
            settings: silicon.settings(number, word),
            choices: choices(silicon, number, repair, &names),
        });
        let row = &silicon.words()[word];
        readings.push(Reading {
            name: row.name.clone(),
            title: row.title.clone(),
            mask: row.mask,
            value: silicon.get(word),
            known: known[word],
            place: places[word].clone(),
            names,
            mark,
        });
    }
    if let [first, second] = repairs[..] {
        let before = silicon.get(first.word);
        silicon.set(first.word, first.value);
        together = silicon.verdict(number) == Verdict::Broken;
        silicon.set(first.word, before);
        together &= first.word != second.word;
    }
    Finding { rule, number, reads: readings, together }
}

/// If all wrong bits lie in one named run of several bits, the values of that run which are legal with everything else as it is.
fn choices(silicon: &mut dyn Silicon, rule: usize, repair: &Repair, names: &BitNames) -> Option<(u32, String, Vec<u64>)> {
    let name = names.of(repair.bits.checked_ilog2()?)?;
    let run = (1u64 << name.width).wrapping_sub(1) << name.low;
    if !(2..=8).contains(&name.width) || repair.bits & !run != 0 {
        return None;
    }
    let there = silicon.get(repair.word);
    let mut legal = Vec::new();
    for value in 0..1u64 << name.width {
        silicon.set(repair.word, there & !run | value << name.low);
        if silicon.verdict(rule) == Verdict::Holds {
            legal.push(value);
        }
    }
    silicon.set(repair.word, there);
    (!legal.is_empty() && legal.len() <= 8).then(|| (name.low, name.name.clone(), legal))
}
