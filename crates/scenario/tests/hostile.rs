//! A checkpoint from anywhere: whatever is in it, reading it ends in an error, or running it in a stop.

mod damage;

use scenario::checkpoint::{self, Checkpoint};
use scenario::host::{Totals, Until};
use scenario::load::{NoFiles, Scenario};
use scenario::run::{After, Compile, Interrupt, Interrupted, Options, run_interrupted, run_restored};

/// Checkpoints that are made of each story. `TRAPLINE_DAMAGE=N` in the environment makes it N.
const CASES: u64 = 120;

const STORY: &str = r#"{ "title": "t", "teaches": "t.", "matrix": { "cpu": ["skylake-server", "zen3"] }, "machine": { "vcpus": 2, "memory": "1M" },
  "hypervisor": { "policy": "POLICY" }, "limits": { "instructions": 400, "cycles": 4000000 },
  "guest": { "start": "all", "assembly": ["mov ecx, 20", "again: mov [0x8000], rcx", "CALL", "dec ecx", "jnz again", "sti", "hlt"] } }"#;

/// Keeps a run as it is at an instruction.
struct Keep(Option<Until>, Vec<u8>);

impl Interrupt for Keep {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.0.take()
    }
    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        run.checkpoint(&mut self.1).expect("vectors take everything");
        After::Leave
    }
}

#[test]
fn a_checkpoint_with_any_value_in_it_ends_in_an_error_or_a_stop() {
    let cases = std::env::var("TRAPLINE_DAMAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let (mut refused, mut ran, mut panics) = (0, 0, Vec::new());
    for (policy, call) in [("none", "nop"), ("trap-and-patch", "vmmcall")] {
        let text = STORY.replace("POLICY", policy).replace("CALL", call);
        let scenario = Scenario::parse("story.json", text, &NoFiles).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            let mut keep = Keep(Some(Until::Instruction(37)), Vec::new());
            let left = run_interrupted(&scenario, variant, &Options::default(), None, &mut keep);
            assert!(matches!(left, Ok(None)), "the moment comes");
            for case in 0..cases {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(case + 1) | 1;
                let mut choose = || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random >> 11
                };
                let (bytes, place) = damage::damaged(&keep.1, &mut choose);
                let outcome = std::panic::catch_unwind(|| {
                    let read = Checkpoint::read(bytes.as_slice()).map_err(|error| error.to_string());
                    let restored = read.and_then(|read| checkpoint::restore(read, Compile::Never).map_err(|error| error.to_string()));
                    restored.map(|restored| run_restored(restored, &Options { compile: Compile::Never, ..Options::default() }, None))
                });
                match outcome {
                    Ok(Err(error)) => {
                        assert!(!error.is_empty());
                        refused += 1;
                    }
                    Ok(Ok(_)) => ran += 1,
                    Err(_) => panics.push(format!("{} case {case}: {place}", variant.name())),
                }
            }
        }
    }
    assert!(panics.is_empty(), "{} panics:\n{}", panics.len(), panics.join("\n"));
    assert!(refused > 20 && ran > 20, "{refused} refused, {ran} ran");
}
