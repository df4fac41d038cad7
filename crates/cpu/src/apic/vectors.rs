//! A set of interrupt vectors, as the 256-bit registers IRR, ISR and TMR hold it.

use serde::{Deserialize, Serialize};

/// One bit for each vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet {
    words: [u32; 8],
}

impl VectorSet {
    pub fn insert(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    pub fn remove(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    pub fn contains(&self, vector: u8) -> bool {
        self.words[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The highest vector.
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = self.words.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some((index as u32 * 32 + word.ilog2()) as u8)
    }

    /// The 32-bit register number `index`, 0 to 7.
    pub fn word(&self, index: u32) -> u32 {
        self.words.get(index as usize).copied().unwrap_or(0)
    }
}
