//! Any bytes as the decisions of a structured program: it passes through the same states whether code is compiled or not.
#![no_main]
#![allow(dead_code, reason = "the modules are those of the lockstep tests, which use more of them")]

#[path = "../../crates/machine/tests/lockstep/choices.rs"]
mod choices;
#[path = "../../crates/machine/tests/lockstep/flow.rs"]
mod flow;
#[path = "../../crates/machine/tests/lockstep/hosted.rs"]
mod hosted;
#[path = "../../crates/machine/tests/lockstep/integers.rs"]
mod integers;
#[path = "../../crates/machine/tests/lockstep/place.rs"]
mod place;
#[path = "../../crates/machine/tests/lockstep/program.rs"]
mod program;
#[path = "../../crates/machine/tests/lockstep/surroundings.rs"]
mod surroundings;
#[path = "../../crates/machine/tests/lockstep/twins.rs"]
mod twins;
#[path = "../../crates/machine/tests/lockstep/vectors.rs"]
mod vectors;
#[path = "../../crates/machine/tests/lockstep/writer.rs"]
mod writer;

use choices::Choices;
use libfuzzer_sys::fuzz_target;
use place::Case;
use twins::lockstep;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else { return };
    let case = Case::new(&mut Choices::given(input));
    let after = [1, 2, 5, 50][usize::from(choice) % 4];
    // With the top bit set, as a guest of a small hypervisor.
    let make = || if choice < 128 { case.machine() } else { hosted::hosted(&case, &mut Choices::seeded(choice.into())) };
    let (twins, ..) = lockstep(make, after, choice.into(), 20_000).unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(twins.compiled.code.compiled_regions().1, 0, "the plan promises what can be compiled");
});
