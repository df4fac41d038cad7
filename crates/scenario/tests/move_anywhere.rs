//! Move anywhere: guests of the corpus come to the same end wherever they are moved to the other vendor and back.
//!
//! Here a few moves each of guests under today's policy, as many as fit. `TRAPLINE_MOVES=N` tries up to N exits and N instructions of every guest one by one, as `trapline test
//! scenarios --move other-vendor --moves N` does.

use models::Vendor;
use scenario::file::Policy;
use scenario::load::{Scenario, Variant};
use scenario::movement::{Effort, Outcome, survives};
use scenario::run::Options;
use scenario::snapshot;
use std::path::{Path, PathBuf};

/// Guests that moves do change, and why that is so and stays so.
const KNOWN: [(&str, &str); 2] = [
    (
        "edge-cases/e18-vmcall-real-mode-amd",
        "moved between the patch and the call in real mode, where Intel's VMMCALL is #UD and is not patched (E17)",
    ),
    ("smp/send-ipi", "which CPU's interrupt comes first is a race, and flags show it"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

#[test]
fn guests_survive_moves_at_every_exit_and_at_random_instructions() {
    let wanted = std::env::var("TRAPLINE_MOVES").ok().and_then(|text| text.parse().ok());
    let moves = wanted.unwrap_or(1);
    let mut wrong = String::new();
    let (mut survived, mut made) = (0, 0);
    for file in snapshot::scenario_files(&root()).expect("there is a corpus") {
        let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let story = snapshot::story_name(&root(), &file);
        let asked = |variant: &&Variant| wanted.is_some() || variant.policy == Policy::TrapAndPatch && variant.seed == 0;
        for variant in scenario.variants.iter().filter(asked) {
            let to = match variant.cpu.vendor {
                Vendor::Intel => &models::ZEN3,
                Vendor::Amd => &models::SKYLAKE_SERVER,
            };
            let effort = Effort { exits: moves, instructions: moves, seed: 1 };
            let verdict = survives(&scenario, variant, to, effort, &Options { events: 0, ..Options::default() });
            made += verdict.moves;
            match verdict.outcome {
                Outcome::Survives => survived += 1,
                Outcome::NotComparable(_) => {}
                Outcome::Differs(_) if KNOWN.iter().any(|(known, _)| *known == story) => {}
                Outcome::Differs(findings) => {
                    wrong += &format!("{story} on {}: {findings:#?}\n", variant.name());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(survived >= 30 && made >= 300, "{survived} guests were moved {made} times");
}
