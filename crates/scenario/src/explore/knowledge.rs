//! What runs have shown about who touches what.
//!
//! Two steps of different virtual CPUs may change places unless one of them writes what the other touches; then only the order of steps that
//! touch shared memory can matter, and it is enough to choose in front of those. Which they are is not known beforehand: every run adds
//! to it, and a search whose runs add something begins again. Modelled: accesses of instructions to RAM by words of eight bytes, fetches
//! included, and writes of the hypervisor into text. Walks of page tables are not counted.
//!
//! A store that waits in a store buffer is, for everybody, the same as one that its processor does later, unless the processor reads something
//! meanwhile that it could not have read before the store: so a store may wait only if a load of shared memory, which the store does not
//! wholly answer, was seen behind it before the buffer had to be empty. (A fetch is no such load: one that comes early is a stale line.)

use super::StoreBuffers;
use cpu::freedom::{BUFFER_ENTRIES, LINE_BYTES, MemoryAccess, Touch};
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

/// A store of the run at hand behind which nothing was seen yet that empties the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    vcpu: u32,
    place: u64,
    physical: u64,
    length: u64,
    /// Stores of the same virtual CPU behind it.
    behind: usize,
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
    /// Instructions with a store that may wait, and the words that were read behind it while it could have.
    overtaken: BTreeMap<u64, BTreeSet<u64>>,
    /// Instructions behind which no store waits any more.
    emptying: BTreeSet<u64>,
    /// Of the run at hand.
    open: Vec<Open>,
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
                    Touch::Write { .. } | Touch::Buffered => users.writers |= bit,
                    Touch::Fetch => users.fetchers |= bit,
                }
                let Some(place) = place else { continue };
                self.touched.entry(place).or_default().insert(word);
                if matches!(access.touch, Touch::Write { .. } | Touch::Buffered) {
                    self.written.entry(place).or_default().insert(word);
                }
            }
        }
        if let Some(place) = place {
            if step.could_split {
                self.splittable.insert(place);
            }
            self.note_order(step, place);
        }
        self.overflow |= self.words.len() + self.touched.len() > MOST;
        self.reads_time |= step.kind == StepKind::Guest && step.executed.is_some_and(|executed| executed.reads_time);
    }

    /// Adds what an instruction reads behind stores that may wait, and its own stores to them.
    fn note_order(&mut self, step: &Step, place: u64) {
        if step.emptied.is_some() {
            self.emptying.insert(place);
        }
        if step.could_buffer {
            self.overtaken.entry(place).or_default();
        }
        for (number, access) in step.accesses.iter().enumerate() {
            if step.emptied == Some(number) {
                self.open.retain(|open| open.vcpu != step.vcpu);
            }
            match access.touch {
                Touch::Read => self.note_overtaking(step.vcpu, access),
                Touch::Write { .. } | Touch::Buffered if step.could_buffer => {
                    let new = Open { vcpu: step.vcpu, place, physical: access.physical, length: access.length, behind: 0 };
                    let again = |open: &Open| Open { behind: 0, ..*open } == new;
                    self.open.retain(|open| !again(open));
                    self.open.iter_mut().filter(|open| open.vcpu == step.vcpu).for_each(|open| open.behind += 1);
                    self.open.retain(|open| open.behind < BUFFER_ENTRIES);
                    self.open.push(new);
                }
                _ => {}
            }
        }
        if step.emptied.is_some_and(|number| number >= step.accesses.len()) {
            self.open.retain(|open| open.vcpu != step.vcpu);
        }
    }

    fn note_overtaking(&mut self, vcpu: u32, read: &MemoryAccess) {
        let end = read.physical + read.length;
        let answers = |open: &Open| open.physical <= read.physical && end <= open.physical + open.length;
        for open in self.open.iter().filter(|open| open.vcpu == vcpu && !answers(open)) {
            self.overtaken.entry(open.place).or_default().extend(read.physical >> 3..=(end - 1) >> 3);
        }
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
        for (place, words) in &other.overtaken {
            self.overtaken.entry(*place).or_default().extend(words);
        }
        self.emptying.extend(&other.emptying);
        self.overflow |= other.overflow;
        self.reads_time |= other.reads_time;
        self.steps = self.steps.max(other.steps);
    }

    /// What follows from it for choosing.
    pub fn choices(&self, store_buffers: StoreBuffers) -> Choices {
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
        let may_wait = |place: &u64, words: &BTreeSet<u64>| {
            let overtaken = match store_buffers {
                StoreBuffers::Off => false,
                StoreBuffers::BeforeLoads => self.overflow || meets(words),
                StoreBuffers::Everywhere => true,
            };
            overtaken && (self.overflow || self.written.get(place).is_some_and(meets))
        };
        let buffered: BTreeSet<u64> =
            self.overtaken.iter().filter(|(place, words)| may_wait(place, words)).map(|(place, _)| *place).collect();
        // Where nothing waits, nothing is emptied.
        let emptying = if buffered.is_empty() { BTreeSet::new() } else { self.emptying.clone() };
        Choices { visible, splittable, stale, buffered, emptying, fetchers, all: self.overflow }
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
    /// Instructions with a store that may wait in the store buffer.
    buffered: BTreeSet<u64>,
    /// Instructions behind which none waits any more.
    emptying: BTreeSet<u64>,
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

    /// Whether its store may wait in the store buffer.
    pub fn may_buffer(&self, place: u64) -> bool {
        self.buffered.contains(&place)
    }

    /// Whether what waits in the store buffer becomes visible with it.
    pub fn empties(&self, place: u64) -> bool {
        self.emptying.contains(&place)
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
        let could_buffer = matches!(touch, Touch::Write { .. });
        Step { vcpu, kind: StepKind::Guest, pauses: false, accesses, executed: None, could_split: false, could_buffer, emptied: None }
    }

    fn choices(knowledge: &Knowledge) -> Choices {
        knowledge.choices(StoreBuffers::BeforeLoads)
    }

    #[test]
    fn what_only_one_writes_and_nobody_else_touches_is_nobodys_business() {
        let mut knowledge = Knowledge::default();
        knowledge.note(&step(0, 0x100, Touch::Write { old: 0 }), Some(0x10));
        knowledge.note(&step(1, 0x200, Touch::Read), Some(0x20));
        knowledge.note(&step(0, 0x200, Touch::Read), Some(0x11));
        assert_eq!(choices(&knowledge).visible.len(), 0);
        knowledge.note(&step(1, 0x104, Touch::Read), Some(0x21));
        let choices = choices(&knowledge);
        assert!(choices.is_visible(0x10) && choices.is_visible(0x21));
        assert!(!choices.is_visible(0x20) && !choices.is_visible(0x11));
    }

    #[test]
    fn whoever_executes_a_line_may_see_a_write_to_it_late() {
        let mut knowledge = Knowledge::default();
        knowledge.note(&step(1, 0x1040, Touch::Fetch), Some(0x40));
        knowledge.note(&step(0, 0x1078, Touch::Write { old: 0 }), Some(0x10));
        let stale: Vec<u32> = choices(&knowledge).may_be_stale(Some(0x10), 0).collect();
        assert_eq!(stale, [1]);
    }

    #[test]
    fn a_store_may_wait_where_a_load_of_other_shared_memory_comes_before_what_empties_the_buffer() {
        const WRITE: Touch = Touch::Write { old: 0 };
        let may_wait = |behind: &[Step]| {
            let mut knowledge = Knowledge::default();
            // Another one writes both words.
            knowledge.note(&step(1, 0x100, WRITE), Some(0x20));
            knowledge.note(&step(1, 0x200, WRITE), Some(0x21));
            knowledge.note(&step(0, 0x100, WRITE), Some(0x10));
            behind.iter().zip(0x11..).for_each(|(step, place)| knowledge.note(step, Some(place)));
            let buffered = choices(&knowledge).may_buffer(0x10);
            assert!(knowledge.choices(StoreBuffers::Everywhere).may_buffer(0x10));
            assert!(!knowledge.choices(StoreBuffers::Off).may_buffer(0x10));
            buffered
        };
        let read = |physical| step(0, physical, Touch::Read);
        let fence = |emptied, physical| Step { emptied: Some(emptied), ..read(physical) };
        assert!(!may_wait(&[]));
        assert!(!may_wait(&[read(0x300)]), "nobody else's business");
        assert!(!may_wait(&[read(0x100)]), "what the store itself answers");
        assert!(may_wait(&[read(0x102)]), "what it answers in part");
        assert!(may_wait(&[read(0x200)]));
        assert!(may_wait(&[read(0x300), step(0, 0x300, WRITE), read(0x200)]));
        assert!(!may_wait(&[fence(0, 0x200)]), "a locked instruction");
        assert!(!may_wait(&[fence(1, 0x300), read(0x200)]), "an exit");
        assert!(may_wait(&[fence(1, 0x200)]), "a load whose instruction exits then");
        assert!(!may_wait(&[step(1, 0x200, Touch::Read)]), "another one's load");
    }
}
