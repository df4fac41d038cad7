//! Which bits of a word are wrong: the smallest change of it under which a broken rule holds.
//!
//! Modelled: the rule is asked, nothing is written down twice. Single bits are tried first, then what the capabilities allow, then values of
//! the kinds that rules want (zero, aligned, canonical, within a width, another low byte, another word's value), each brought as near as
//! possible to what is there. The search is bounded by a few thousand questions. Not modelled: changes of more than two words at once.

use crate::rule::{Silicon, Verdict};

/// A change of one word after which a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The word.
    pub word: usize,
    /// The bits that are wrong; zero where so many other values are legal that no bit is to blame.
    pub bits: u64,
    /// A legal value, as near as possible to what is there.
    pub value: u64,
}

/// More single bits than these that would each do are no answer to the question which bit is wrong.
const FEW: usize = 4;

/// Asks a rule about another value of a word.
fn holds(silicon: &mut dyn Silicon, rule: usize, word: usize, value: u64) -> bool {
    let before = silicon.get(word);
    silicon.set(word, value);
    let verdict = silicon.verdict(rule);
    silicon.set(word, before);
    verdict == Verdict::Holds
}

/// How many rules are broken with another value of a word: an example should not break what held.
fn broken(silicon: &mut dyn Silicon, word: usize, value: u64) -> usize {
    let before = silicon.get(word);
    silicon.set(word, value);
    let count = (0..silicon.rules().len()).filter(|&rule| silicon.verdict(rule) == Verdict::Broken).count();
    silicon.set(word, before);
    count
}

/// The smallest change of each of these words that alone makes a broken rule hold; where none does, of two of them together.
pub fn repairs(silicon: &mut dyn Silicon, rule: usize, words: &[usize]) -> Vec<Repair> {
    let alone: Vec<Repair> = words.iter().filter_map(|&word| one(silicon, rule, word, words)).collect();
    if alone.is_empty() { two(silicon, rule, words) } else { alone }
}

fn one(silicon: &mut dyn Silicon, rule: usize, word: usize, words: &[usize]) -> Option<Repair> {
    let (there, mask) = (silicon.get(word), silicon.words()[word].mask);
    let mut single: Vec<u64> = bits(mask).filter(|bit| holds(silicon, rule, word, there ^ bit)).collect();
    // A flag of its own is to blame before a bit of a number.
    let names = silicon.bit_names(word);
    let is_flag = |bit: &u64| names.of(bit.trailing_zeros()).is_some_and(|name| name.width == 1);
    if single.iter().any(is_flag) {
        single.retain(is_flag);
    }
    if let Some(&best) = single.iter().min_by_key(|&&bit| broken(silicon, word, there ^ bit)) {
        let blamed = if single.len() <= FEW { single.iter().fold(0, |all, bit| all | bit) } else { 0 };
        return Some(Repair { word, bits: blamed, value: there ^ best });
    }
    let mut best: Option<u64> = None;
    for candidate in candidates(silicon, rule, word, words) {
        if candidate == there || !holds(silicon, rule, word, candidate) {
            continue;
        }
        let mut value = candidate;
        for bit in bits(there ^ candidate).rev() {
            if holds(silicon, rule, word, value ^ bit) {
                value ^= bit;
            }
        }
        if best.is_none_or(|best| (value ^ there).count_ones() < (best ^ there).count_ones()) {
            best = Some(value);
        }
    }
    best.map(|value| Repair { word, bits: value ^ there, value })
}

fn two(silicon: &mut dyn Silicon, rule: usize, words: &[usize]) -> Vec<Repair> {
    for (index, &first) in words.iter().enumerate() {
        for &second in &words[index + 1..] {
            let there = (silicon.get(first), silicon.get(second));
            for bit in bits(silicon.words()[first].mask) {
                silicon.set(first, there.0 ^ bit);
                let found = bits(silicon.words()[second].mask).find(|other| holds(silicon, rule, second, there.1 ^ other));
                silicon.set(first, there.0);
                if let Some(other) = found {
                    return vec![
                        Repair { word: first, bits: bit, value: there.0 ^ bit },
                        Repair { word: second, bits: other, value: there.1 ^ other },
                    ];
                }
            }
        }
    }
    Vec::new()
}

/// Values worth a question, beside those one bit away.
pub(crate) fn candidates(silicon: &dyn Silicon, rule: usize, word: usize, words: &[usize]) -> Vec<u64> {
    let (there, mask) = (silicon.get(word), silicon.words()[word].mask);
    let mut all = Vec::new();
    if let Some(settings) = silicon.settings(rule, word) {
        all.push((there | settings.must) & settings.may);
    }
    all.extend([0, mask, there & !0xfff, there & 0xffff_ffff, there & 0xffff, there & 0xfff, there & !0x3f, there & !0xf, there & !7]);
    // Canonical, and within the widths that physical addresses have.
    all.extend([((there << 16) as i64 >> 16) as u64, ((there << 7) as i64 >> 7) as u64]);
    all.extend([32, 36, 39, 40, 46, 48, 52].map(|width| there & ((1 << width) - 1)));
    all.extend([32, 36, 39, 40, 46, 48, 52].map(|width| there & ((1 << width) - 1) & !0xfff));
    all.extend((0..=0xff).map(|byte| there & !0xff | byte));
    all.extend((0..=0xff).map(|byte| there & !0xff00 | byte << 8));
    for &other in words.iter().filter(|&&other| other != word) {
        let value = silicon.get(other);
        all.extend([value, value << 4, value >> 4, value.wrapping_add(1), value.wrapping_sub(1)]);
    }
    for value in &mut all {
        *value &= mask;
    }
    all
}

/// The bits of a number, from the lowest.
pub(crate) fn bits(number: u64) -> impl DoubleEndedIterator<Item = u64> {
    (0..64).map(|bit| 1u64 << bit).filter(move |bit| number & bit != 0)
}
