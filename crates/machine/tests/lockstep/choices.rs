//! Where the decisions of a generated program come from: a seed, or the bytes of a fuzzer.

use cpu::random::split_mix_64;

/// A stream of decisions.
pub struct Choices<'b> {
    state: u64,
    bytes: Option<(&'b [u8], usize)>,
}

impl Choices<'_> {
    /// The same decisions on every machine.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed, bytes: None }
    }

    pub fn word(&mut self) -> u64 {
        if let Some((bytes, at)) = &mut self.bytes {
            let mut word = [0; 8];
            let taken = bytes.len().saturating_sub(*at).min(8);
            word[..taken].copy_from_slice(&bytes[*at..*at + taken]);
            *at += taken;
            return u64::from_le_bytes(word);
        }
        split_mix_64(&mut self.state)
    }

    /// A number less than `bound`. A fuzzer spends as few bytes as it takes.
    pub fn below(&mut self, bound: u64) -> u64 {
        let Some((bytes, at)) = &mut self.bytes else { return self.word() % bound };
        let mut value = 0;
        let mut reach = 1u64;
        while reach < bound {
            value = value << 8 | u64::from(bytes.get(*at).copied().unwrap_or_default());
            *at = (*at + 1).min(bytes.len());
            reach = reach.saturating_mul(256);
        }
        value % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == bound - 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Nothing is left to decide with.
    pub fn exhausted(&self) -> bool {
        self.bytes.is_some_and(|(bytes, at)| at >= bytes.len())
    }
}

impl<'b> Choices<'b> {
    /// Decisions of a fuzzer; when its bytes are used up, every further one is the first of its kind.
    pub fn given(bytes: &'b [u8]) -> Self {
        Self { state: 0, bytes: Some((bytes, 0)) }
    }
}
