//! What runs have shown about who touches what.
//!
//! Two steps of different virtual CPUs may change places unless one of them writes what the other touches; then only the order of steps that
//! touch shared memory can matter, and it is enough to choose in front of those. Which they are is not known beforehand: every run adds
//! to it, and a search whose runs add something begins again. Modelled: accesses of instructions to RAM by words of eight bytes, fetches
//! included, and writes of the hypervisor into text. Walks of page tables are not counted.

use cpu::freedom::{LINE_BYTES, Touch};
use hypervisor::{Step, StepKind};
use std::collections::{BTreeMap, BTreeSet};

/// The most words that are told apart; beyond, every instruction counts as touching shared memory.
const MOST: usize = 1 << 18;

/// Who touches a word, one bit for each virtual CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Users {
    readers: u64,
    writers: u64,
    fetchers: u64,
}

impl Users {
    fn is_shared(self) -> bool {
        let all = self.readers | self.writers | self.fetchers;
        self.writers != 0 && all.count_ones() > 1
    }
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    words: BTreeMap<u64, Users>,
    /// The words that an instruction touches, by its address.
    touched: BTreeMap<u64, BTreeSet<u64>>,
    /// Instructions with a store that need not be seen whole.
    splittable: BTreeSet<u64>,
    /// The words that an instruction writes.
    written: BTreeMap<u64, BTreeSet<u64>>,
    overflow: bool,
    pub reads_time: bool,
    pub steps: u64,
}

impl Knowledge {
    /// Adds what a step did. `place` is the address of the instruction, if it was one.
    pub fn note(&mut self, step: &Step, place: Option<u64>) {
        let bit = 1u64 << (step.vcpu & 63);
        for access in &step.accesses {
            for word in access.physical >> 3..=(access.physical + access.length.max(1) - 1) >> 3 {
                let users = self.words.entry(word).or_default();
                match access.touch {
                    Touch::Read => users.readers |= bit,
                    Touch::Write { .. } => users.writers |= bit,
                    Touch::Fetch => users.fetchers |= bit,
                }
                let Some(place) = place else { continue };
                self.touched.entry(place).or_default().insert(word);
                if matches!(access.touch, Touch::Write { .. }) {
                    self.written.entry(place).or_default().insert(word);
                }
            }
        }
        if let Some(place) = place.filter(|_| step.could_split) {
            self.splittable.insert(place);
        }
        self.overflow |= self.words.len() + self.touched.len() > MOST;
        self.reads_time |= step.kind == StepKind::Guest && step.executed.is_some_and(|executed| executed.reads_time);
    }

    /// Takes over what another run has shown.
    pub fn merge(&mut self, other: &Self) {
        for (word, users) in &other.words {
            let mine = self.words.entry(*word).or_default();
            mine.readers |= users.readers;
            mine.writers |= users.writers;
            mine.fetchers |= users.fetchers;
        }
        for (place, words) in &other.touched {
            self.touched.entry(*place).or_default().extend(words);
        }
        for (place, words) in &other.written {
            self.written.entry(*place).or_default().extend(words);
        }
        self.splittable.extend(&other.splittable);
        self.overflow |= other.overflow;
        self.reads_time |= other.reads_time;
        self.steps = self.steps.max(other.steps);
    }

    /// What follows from it for choosing.
    pub fn choices(&self) -> Choices {
        let shared: BTreeSet<u64> = self.words.iter().filter(|(_, users)| users.is_shared()).map(|(word, _)| *word).collect();
        let meets = |words: &BTreeSet<u64>| words.iter().any(|word| shared.contains(word));
        let visible: BTreeSet<u64> = self.touched.iter().filter(|(_, words)| meets(words)).map(|(place, _)| *place).collect();
        // Lines from which each virtual CPU fetches: whoever writes there may be seen late.
        let mut lines: BTreeMap<u64, u64> = BTreeMap::new();
        for (word, users) in self.words.iter().filter(|(_, users)| users.fetchers != 0) {
            *lines.entry(word * 8 / LINE_BYTES).or_default() |= users.fetchers;
        }
        let fetched =
            |words: &BTreeSet<u64>| words.iter().filter_map(|word| lines.get(&(word * 8 / LINE_BYTES))).fold(0, |all, mask| all | mask);
        let stale = self.written.iter().map(|(place, words)| (*place, fetched(words))).filter(|(_, mask)| *mask != 0).collect();
        let splittable = self.splittable.intersection(&visible).copied().collect();
        let fetchers = lines.values().fold(0, |all, mask| all | mask);
        Choices { visible, splittable, stale, fetchers, all: self.overflow }
    }
}

/// Where something is to be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choices {
    /// Instructions in front of which it matters who goes on.
    visible: BTreeSet<u64>,
    /// Instructions with a store that others may see in two parts.
    splittable: BTreeSet<u64>,
    /// Instructions that write what virtual CPUs execute: which, one bit each.
    stale: BTreeMap<u64, u64>,
    /// Every virtual CPU that executes anything.
    fetchers: u64,
    all: bool,
}

impl Choices {
    /// Whether it matters who goes on in front of an instruction.
    pub fn is_visible(&self, place: u64) -> bool {
        self.all || self.visible.contains(&place)
    }

    /// Whether its store may be seen in two parts.
    pub fn may_split(&self, place: u64) -> bool {
        self.splittable.contains(&place)
    }

    /// The virtual CPUs other than `vcpu` that may go on with what the instruction overwrites; without a place, what the hypervisor does.
    pub fn may_be_stale(&self, place: Option<u64>, vcpu: u32) -> impl Iterator<Item = u32> {
        let mask = match place {
            Some(place) => self.stale.get(&place).copied().unwrap_or(0),
            None => self.fetchers,
        };
        (0..64).filter(move |other| mask >> other & 1 != 0 && *other != vcpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpu::freedom::MemoryAccess;

    fn step(vcpu: u32, physical: u64, touch: Touch) -> Step {
        let accesses = vec![MemoryAccess { physical, length: 4, touch }];
        Step { vcpu, kind: StepKind::Guest, pauses: false, accesses, executed: None, could_split: false }
    }

    #[test]
    fn what_only_one_writes_and_nobody_else_touches_is_nobodys_business() {
        let mut knowledge = Knowledge::default();
        knowledge.note(&step(0, 0x100, Touch::Write { old: 0 }), Some(0x10));
        knowledge.note(&step(1, 0x200, Touch::Read), Some(0x20));
        knowledge.note(&step(0, 0x200, Touch::Read), Some(0x11));
        assert_eq!(knowledge.choices().visible.len(), 0);
        knowledge.note(&step(1, 0x104, Touch::Read), Some(0x21));
        let choices = knowledge.choices();
        assert!(choices.is_visible(0x10) && choices.is_visible(0x21));
        assert!(!choices.is_visible(0x20) && !choices.is_visible(0x11));
    }

    #[test]
    fn whoever_executes_a_line_may_see_a_write_to_it_late() {
        let mut knowledge = Knowledge::default();
        knowledge.note(&step(1, 0x1040, Touch::Fetch), Some(0x40));
        knowledge.note(&step(0, 0x1078, Touch::Write { old: 0 }), Some(0x10));
        let stale: Vec<u32> = knowledge.choices().may_be_stale(Some(0x10), 0).collect();
        assert_eq!(stale, [1]);
    }
}
