//! A checkpoint from anywhere: whatever is in it, reading it ends in an error, or running it in a stop.

mod damage;

use scenario::boot::{BootOptions, Booted, Kind, RestoreOptions, model};
use scenario::checkpoint::{self, Checkpoint};
use scenario::file::{Mode, Policy};
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

/// Damages a checkpoint so often in these sections, and goes on from what is left of it; `go_on` says why it refused.
fn go_on_from_damaged(
    name: &str,
    whole: &[u8],
    sections: impl Fn(&str) -> bool,
    cases: u64,
    go_on: impl Fn(Checkpoint) -> Result<(), String> + std::panic::RefUnwindSafe,
) {
    let (mut refused, mut ran, mut panics) = (0, 0, Vec::new());
    for case in 0..cases {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(case + 1) | 1;
        let mut choose = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 11
        };
        let (bytes, place) = damage::damaged(whole, &sections, &mut choose);
        let outcome = std::panic::catch_unwind(|| go_on(Checkpoint::read(bytes.as_slice()).map_err(|error| error.to_string())?));
        match outcome {
            Ok(Err(error)) => {
                assert!(!error.is_empty());
                refused += 1;
            }
            Ok(Ok(())) => ran += 1,
            Err(_) => panics.push(format!("{name} case {case}: {place}")),
        }
    }
    assert!(panics.is_empty(), "{} panics:\n{}", panics.len(), panics.join("\n"));
    assert!(refused > 3 && ran > 3, "{name}: {refused} refused, {ran} ran");
}

fn cases() -> u64 {
    std::env::var("TRAPLINE_DAMAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// The same of runs by steps, in the middle of a store of which others see one half, with a CPU that goes on with old bytes.
const BY_STEPS: &str = r#"{ "title": "t", "teaches": "t.", "matrix": { "cpu": ["skylake-server", "zen3"] }, "machine": { "vcpus": 2, "memory": "1M" },
  "hypervisor": { "policy": "trap-and-patch" }, "limits": { "instructions": 400, "cycles": 4000000 },
  "schedule": [{ "cpu": 1, "steps": 5 }, { "cpu": 0, "steps": 4, "split": "high", "stale": [1] }, { "cpu": 1, "steps": 3 }, { "cpu": 0, "steps": 40 }],
  "invariants": ["intact-text", "whole-patches", "one-trap-per-site", "registers-kept", "one-byte-changes", "patched-pages-dirty"],
  "guest": { "start": "all", "assembly": ["mov ecx, 20", "again: mov [again + 62], rcx", "vmmcall", "vmcall", "dec ecx", "jnz again", "sti", "hlt",
    "times 64 nop"] } }"#;

/// And with stores that wait: in front of instruction 4, two of CPU 0's are in its store buffer, and a load has come before both.
const BUFFERED: &str = r#"{ "title": "t", "teaches": "t.", "matrix": { "cpu": ["skylake-server", "zen3"] }, "machine": { "vcpus": 2, "memory": "1M" },
  "hypervisor": { "policy": "trap-and-patch" }, "limits": { "instructions": 400, "cycles": 4000000 },
  "schedule": [{ "cpu": 0, "steps": 3, "buffer": true }, { "cpu": 0, "steps": 2 }, { "cpu": 1, "steps": 4, "drain": true }, { "cpu": 0, "steps": 9 }],
  "guest": { "start": "all", "assembly": ["mov ecx, 20", "again: mov [0x8ffc], rcx", "mov [0x8008], ecx", "mov rdx, [0x8ff8]", "vmmcall", "vmcall",
    "dec ecx", "jnz again", "sti", "hlt"] } }"#;

/// A story written in front of an instruction, on each of its machines, and damaged: in all sections, and as often in those of its steps, if it
/// goes by steps.
fn damage_story(text: &str, at: u64, is_as_meant: impl Fn(&stream::Contents) -> bool) {
    let scenario = Scenario::parse("story.json", text.to_owned(), &NoFiles).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    for variant in &scenario.variants {
        let mut keep = Keep(Some(Until::Instruction(at)), Vec::new());
        let left = run_interrupted(&scenario, variant, &Options::default(), None, &mut keep);
        assert!(matches!(left, Ok(None)), "the moment comes");
        assert!(is_as_meant(&stream::Contents::read(keep.1.as_slice()).0), "{}", variant.name());
        let go_on = |read| {
            let restored = checkpoint::restore(read, Compile::Never).map_err(|error| error.to_string())?;
            run_restored(restored, &Options { compile: Compile::Never, ..Options::default() }, None);
            Ok(())
        };
        go_on_from_damaged(&variant.name(), &keep.1, |_| true, cases(), go_on);
        if scenario.goes_by_steps() {
            let of_steps = |section: &str| section == "schedule" || section.ends_with("/freedoms");
            go_on_from_damaged(&variant.name(), &keep.1, of_steps, cases(), go_on);
        }
    }
}

#[test]
fn a_checkpoint_with_any_value_in_it_ends_in_an_error_or_a_stop() {
    for (policy, call) in [("none", "nop"), ("trap-and-patch", "vmmcall")] {
        damage_story(&STORY.replace("POLICY", policy).replace("CALL", call), 37, |_| true);
    }
}

/// What the processors' freedoms are in the middle of, as text.
fn freedoms(contents: &stream::Contents) -> String {
    let sections = contents.values.iter().filter(|(name, _)| name.ends_with("/freedoms"));
    sections.map(|(_, section)| format!("{:?}", section.tree().expect("it is a value"))).collect()
}

#[test]
fn so_does_one_in_the_middle_of_a_schedule() {
    damage_story(BY_STEPS, 5, |contents| freedoms(contents).contains("stale"));
    damage_story(BUFFERED, 4, |contents| freedoms(contents).contains("buffer"));
}

#[test]
fn so_does_one_of_a_booted_guest() {
    let source = "mov ecx, 20\n mov edx, 0x3f8\n again: mov eax, ecx\n out dx, al\n dec ecx\n jnz again\n hlt";
    let assembled = assembler::Options { origin: 0x10000, bits: assembler::Bits::SixtyFour, ..assembler::Options::default() };
    for (cpu, policy) in [("skylake-server", Policy::None), ("zen3", Policy::TrapAndPatch)] {
        let options = BootOptions {
            image: assembler::assemble(source, &assembled).expect("it assembles").bytes,
            name: "guest".to_owned(),
            kind: Kind::Flat { base: 0x10000, mode: Mode::Long64 },
            command_line: String::new(),
            modules: Vec::new(),
            cpu: model(Some(cpu), None).expect("there is such a model"),
            policy,
            paging: None,
            vcpus: 2,
            memory: 1 << 20,
            deliveries: true,
            max_instructions: 400,
            max_cycles: 4_000_000,
            compile: Compile::Never,
        };
        let mut booted = Booted::new(&options, true).expect("it can be booted");
        assert!(booted.run(Some(Until::Instruction(37)), &mut std::io::sink(), None).expect("nothing is written").is_none());
        let mut whole = Vec::new();
        booted.checkpoint(&mut whole).expect("vectors take everything");
        go_on_from_damaged(
            cpu,
            &whole,
            |_| true,
            cases(),
            |read| {
                let options = RestoreOptions {
                    compile: Compile::Never,
                    watched: true,
                    deliveries: true,
                    max_instructions: Some(400),
                    max_cycles: Some(4_000_000),
                };
                let mut booted = Booted::restore(read, &options).map_err(|error| error.to_string())?;
                let mut summary = trace::Summary::new();
                booted.run(None, &mut std::io::sink(), Some(&mut summary)).map_err(|error| error.to_string())?;
                Ok(())
            },
        );
    }
}
