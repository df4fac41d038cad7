//! Cut anywhere: a run that is taken through checkpoints, one after the other, and must not show it.
//!
//! At each interruption the run is written, read again, and goes on as what was read; the machine that wrote it is dropped. What only speeds
//! a machine up is lost every time. The trace, the counts and the verdict of such a run are those of one that nobody interrupted.

use crate::checkpoint::Checkpoint;
use crate::file::Policy;
use crate::host::{Totals, Until};
use crate::load::Variant;
use crate::run::{After, Interrupt, Interrupted};

/// Interruptions behind which a run is left alone, so that a long one ends.
pub const MOST: u32 = 400;

/// Takes a run through a checkpoint at every VM exit, and at instructions in between that a generator chooses.
#[derive(Debug)]
pub struct Everywhere {
    random: u64,
    left: u32,
    /// There are VM exits to wait for.
    exits: bool,
    /// How often the run was cut.
    pub cuts: u32,
    /// Why one of the checkpoints could not be written or read.
    pub outcome: Result<(), String>,
}

impl Everywhere {
    /// Cuts of a run on this machine, at most so many. Their places follow from the machine's name and a number.
    pub fn new(variant: &Variant, seed: u64, most: u32) -> Self {
        let name = format!("{} {seed}", variant.name());
        // FNV-1a; never zero.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self { random: hash | 1, left: most, exits: variant.policy != Policy::None, cuts: 0, outcome: Ok(()) }
    }

    /// The next number of the generator (xorshift64).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Interrupt for Everywhere {
    fn next(&mut self, totals: &Totals) -> Option<Until> {
        self.left = self.left.checked_sub(1)?;
        let random = self.next_random();
        Some(match random % 3 {
            // Near, and now and then far: stories happen at the beginning.
            0 => Until::Instruction(totals.instructions + 1 + (random >> 8) % 7),
            1 if self.left.is_multiple_of(8) => Until::Instruction(totals.instructions + 1 + (random >> 8) % 5000),
            _ if !self.exits => Until::Instruction(totals.instructions + 1 + (random >> 8) % 50),
            _ => Until::Exit(totals.exits + 1),
        })
    }

    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        self.cuts += 1;
        let mut bytes = Vec::new();
        let again = run.checkpoint(&mut bytes).and_then(|()| Checkpoint::read(bytes.as_slice()));
        match again {
            Ok(checkpoint) => After::GoOnFrom(Box::new(checkpoint)),
            Err(error) => {
                self.outcome = Err(error.to_string());
                After::GoOn
            }
        }
    }
}
