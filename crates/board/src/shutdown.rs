//! The power-off port of Bochs and QEMU at 0x8900: a state machine that waits for the letters of `Shutdown`.
//!
//! What is modelled: the letters in order, one byte each; a wrong letter starts again.

use serde::{Deserialize, Serialize};

const WORD: &[u8] = b"Shutdown";

/// How many letters were right so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownPort {
    matched: u8,
}

impl ShutdownPort {
    /// Takes one letter; true when it completes the word.
    pub fn write(&mut self, letter: u8) -> bool {
        if WORD.get(usize::from(self.matched)) == Some(&letter) {
            self.matched += 1;
        } else {
            // No proper suffix of a prefix of the word is a prefix of it but the first letter itself.
            self.matched = u8::from(letter == WORD[0]);
        }
        if usize::from(self.matched) < WORD.len() {
            return false;
        }
        self.matched = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_in_order_counts() {
        for (letters, expected) in
            [("Shutdown", true), ("ShutShutdown", true), ("SShutdown", true), ("shutdown", false), ("Shutdow", false), ("Shut down", false)]
        {
            let mut port = ShutdownPort::default();
            let fired = letters.bytes().filter(|letter| port.write(*letter)).count();
            assert_eq!(fired == 1, expected, "{letters}");
        }
    }
}
