//! Any bytes as a stream, and a checkpoint in which any one value is another: an error, or a run that ends in a stop.
#![no_main]

#[path = "../../crates/scenario/tests/damage/mod.rs"]
mod damage;

use libfuzzer_sys::fuzz_target;
use scenario::checkpoint::{self, Checkpoint};
use scenario::run::{Compile, Options, run_restored};
use stream::contents::Contents;

/// Checkpoints of an earlier version, which are read for ever.
const SEEDS: [&[u8]; 2] = [
    include_bytes!("../../crates/cli/tests/golden/format-1-skylake-server.tlcp"),
    include_bytes!("../../crates/cli/tests/golden/format-1-zen3.tlcp"),
];

fuzz_target!(|bytes: &[u8]| {
    let (contents, _) = Contents::read(bytes);
    for section in contents.values.values() {
        let _ = section.tree();
    }
    let mut words = bytes.chunks(8).map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    let mut choose = || words.next().unwrap_or(0);
    let seed = SEEDS[choose() as usize % SEEDS.len()];
    let (damaged, _) = damage::damaged(seed, |_| true, &mut choose);
    let Ok(read) = Checkpoint::read(damaged.as_slice()) else { return };
    if let Ok(restored) = checkpoint::restore(read, Compile::Never) {
        let _ = run_restored(restored, &Options { compile: Compile::Never, ..Options::default() }, None);
    }
});
