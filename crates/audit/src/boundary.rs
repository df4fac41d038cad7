//! States at the boundary between valid and invalid: for a rule, one in which every rule holds, and a change after which exactly that one is broken.
//!
//! Modelled: the search asks the rules and knows nothing else about them. From valid states (seeds) it looks for one where the rule applies,
//! flipping bits of the words that the rule reads if need be, and then for a change of one or two of these words that breaks it and no other.
//! Not modelled: what no change of two words from a seed reaches; such rules are named, never passed over.

use crate::repair::{bits, candidates};
use crate::rule::{Outcome, Silicon, Verdict};
use crate::state::State;

/// The name of a word and its value.
pub type Value = (String, u64);

/// Both sides of the boundary at one rule.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// The rule's id.
    pub rule: &'static str,
    /// What follows where it is broken.
    pub outcome: Outcome,
    /// Every word of a state in which the rule applies and all rules hold.
    pub valid: Vec<Value>,
    /// The words to change so that exactly this rule is broken.
    pub breaking: Vec<Value>,
}

/// The boundary of every rule that is reached from the seeds, and the ids of those that are not. Each seed is a change of the state.
pub fn boundaries(state: &mut State, seeds: &[Vec<(&str, u64)>]) -> (Vec<Boundary>, Vec<&'static str>) {
    let seeds: Vec<Vec<(usize, u64)>> =
        seeds.iter().map(|seed| seed.iter().filter_map(|(name, value)| state.find(name).map(|word| (word, *value))).collect()).collect();
    let silicon = state.silicon.as_mut();
    let clean: Vec<u64> = (0..silicon.words().len()).map(|word| silicon.get(word)).collect();
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for rule in 0..silicon.rules().len() {
        match boundary(silicon, rule, &clean, &seeds) {
            Some(boundary) => found.push(boundary),
            None => missing.push(silicon.rules()[rule].id),
        }
    }
    load(silicon, &clean);
    (found, missing)
}

fn load(silicon: &mut dyn Silicon, values: &[u64]) {
    for (word, value) in values.iter().enumerate() {
        silicon.set(word, *value);
    }
}

fn boundary(silicon: &mut dyn Silicon, rule: usize, clean: &[u64], seeds: &[Vec<(usize, u64)>]) -> Option<Boundary> {
    let words: Vec<usize> = silicon.rules()[rule].reads.iter().copied().chain(silicon.fields()..silicon.words().len()).collect();
    for flip in [false, true] {
        for seed in seeds {
            load(silicon, clean);
            for &(word, value) in seed {
                silicon.set(word, value);
            }
            if any_broken(silicon, None) {
                continue;
            }
            if let Some(boundary) = from_here(silicon, rule, &words, flip) {
                return Some(boundary);
            }
        }
    }
    None
}

/// Looks for the boundary from the state that is loaded, if need be after one flip of a bit that makes the rule apply.
fn from_here(silicon: &mut dyn Silicon, rule: usize, words: &[usize], flip: bool) -> Option<Boundary> {
    if !flip {
        return if silicon.verdict(rule) == Verdict::Holds { breaking(silicon, rule, words, true) } else { None };
    }
    let fields = silicon.fields();
    for &word in words.iter().filter(|&&word| word < fields) {
        let there = silicon.get(word);
        for bit in bits(silicon.words()[word].mask) {
            silicon.set(word, there ^ bit);
            let found = if silicon.verdict(rule) == Verdict::Holds { breaking(silicon, rule, words, false) } else { None };
            silicon.set(word, there);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// A change of one or two words that breaks exactly this rule, where all rules hold.
fn breaking(silicon: &mut dyn Silicon, rule: usize, words: &[usize], pairs: bool) -> Option<Boundary> {
    if any_broken(silicon, None) {
        return None;
    }
    let tell = |silicon: &dyn Silicon, changed: &[(usize, u64)]| {
        let name = |word: usize| silicon.words()[word].name.clone();
        Boundary {
            rule: silicon.rules()[rule].id,
            outcome: silicon.rules()[rule].outcome,
            valid: (0..silicon.words().len()).map(|word| (name(word), silicon.get(word))).collect(),
            breaking: changed.iter().map(|&(word, value)| (name(word), value)).collect(),
        }
    };
    for &word in words.iter().rev() {
        let there = silicon.get(word);
        for value in values(silicon, rule, word, words) {
            silicon.set(word, value);
            let broken = silicon.verdict(rule) == Verdict::Broken && !any_broken(silicon, Some(rule));
            silicon.set(word, there);
            if broken {
                return Some(tell(silicon, &[(word, value)]));
            }
        }
    }
    let fields: Vec<usize> = words.iter().copied().filter(|&word| pairs && word < silicon.fields()).collect();
    for (index, &first) in fields.iter().enumerate() {
        for &second in &fields[index + 1..] {
            let there = (silicon.get(first), silicon.get(second));
            for one in bits(silicon.words()[first].mask) {
                silicon.set(first, there.0 ^ one);
                for two in bits(silicon.words()[second].mask) {
                    silicon.set(second, there.1 ^ two);
                    let broken = silicon.verdict(rule) == Verdict::Broken && !any_broken(silicon, Some(rule));
                    silicon.set(second, there.1);
                    if broken {
                        silicon.set(first, there.0);
                        return Some(tell(silicon, &[(first, there.0 ^ one), (second, there.1 ^ two)]));
                    }
                }
                silicon.set(first, there.0);
            }
        }
    }
    None
}

fn values(silicon: &dyn Silicon, rule: usize, word: usize, words: &[usize]) -> Vec<u64> {
    let (there, mask) = (silicon.get(word), silicon.words()[word].mask);
    let mut values: Vec<u64> = bits(mask).map(|bit| there ^ bit).collect();
    values.extend(candidates(silicon, rule, word, words));
    values.retain(|value| *value != there);
    values
}

/// Whether a rule is broken, but for one.
fn any_broken(silicon: &dyn Silicon, except: Option<usize>) -> bool {
    (0..silicon.rules().len()).any(|rule| Some(rule) != except && silicon.verdict(rule) == Verdict::Broken)
}
