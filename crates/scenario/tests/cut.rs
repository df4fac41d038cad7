//! Cut anywhere: a run that is taken through checkpoints tells the story that it tells uninterrupted, to the byte.
//!
//! Each story of the corpus is cut at its VM exits and at random instructions, as `trapline test scenarios --cut` does it; and a script can do it.

use scenario::checkpoint::{self, Checkpoint, restore};
use scenario::cut::{Everywhere, MOST};
use scenario::host::{Totals, Until};
use scenario::load::{Directory, Scenario};
use scenario::run::{After, Compile, Interrupt, Interrupted, Options, run, run_interrupted, run_restored};
use scenario::snapshot;
use std::path::Path;

#[test]
fn a_story_survives_checkpoints_anywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let (mut stories, mut cuts, mut wrong) = (0u64, 0u64, String::new());
    for file in snapshot::scenario_files(&root).expect("there is a corpus") {
        let text = std::fs::read_to_string(&file).expect("a scenario is text");
        let directory = Directory(file.parent().expect("a scenario lies in a directory").to_owned());
        let scenario = Scenario::parse(&file.display().to_string(), text, &directory).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            stories += 1;
            let whole = run(&scenario, variant, &Options::default(), None);
            // With somebody who looks at every step a checkpoint loads the guest anew, to know what was loaded.
            let most = if scenario.goes_by_steps() { MOST / 8 } else { MOST };
            let mut everywhere = Everywhere::new(variant, stories, most);
            let cut = run_interrupted(&scenario, variant, &Options::default(), None, &mut everywhere);
            cuts += u64::from(everywhere.cuts);
            let name = format!("{} on {}", file.display(), variant.name());
            let cut = match (everywhere.outcome, cut) {
                (Ok(()), Ok(Some(cut))) => cut,
                (outcome, cut) => {
                    wrong += &format!("{name}: {outcome:?} {:?}\n", cut.err().map(|error| error.to_string()));
                    continue;
                }
            };
            let tell =
                |report: &scenario::run::Report| format!("{}{:#?}{:#}", report.snapshot(&scenario), report.registers, report.to_json());
            let (whole, cut) = (tell(&whole), tell(&cut));
            if whole != cut {
                let (at, (left, right)) =
                    whole.lines().zip(cut.lines()).enumerate().find(|(_, (left, right))| left != right).unwrap_or((0, ("", "")));
                wrong += &format!("{name}, line {at}:\n  {left}\n  {right}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cuts > 5 * stories, "only {cuts} cuts of {stories} stories");
}

/// The action `checkpoint` shows nowhere but in the line that tells of it.
#[test]
fn a_script_goes_through_checkpoints_unseen() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/smp/through-checkpoints.json");
    let with = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let mut without = with.clone();
    without.file.script.clear();
    for variant in &with.variants {
        let (through, plain) = (run(&with, variant, &Options::default(), None), run(&without, variant, &Options::default(), None));
        let trace = |report: &scenario::run::Report| report.transcript.text();
        let (told, unseen): (Vec<String>, Vec<String>) =
            trace(&through).lines().map(str::to_owned).partition(|line| line.contains("trapline_script"));
        assert!(told.len() == 4 && told.iter().all(|line| line.contains("checkpoint \"")), "{told:#?}");
        assert_eq!(unseen, trace(&plain).lines().collect::<Vec<_>>(), "{}", variant.name());
        assert_eq!(format!("{:?}", through.registers), format!("{:?}", plain.registers));
        assert!(through.passed(), "{}", through.failures);
    }
}

/// Writes a run in front of an instruction, and leaves it there.
struct Leave(Option<Until>, Vec<u8>);

impl Interrupt for Leave {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.0.take()
    }
    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        run.checkpoint(&mut self.1).expect("vectors take everything");
        After::Leave
    }
}

/// Whatever waits in a store buffer is part of a checkpoint: a run by a schedule that uses one is cut in front of every instruction.
#[test]
fn a_store_that_waits_survives_a_checkpoint() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/smp");
    for name in ["order-store-load-seen.json", "order-forwarding-seen.json", "peterson-both-in.json", "sleeper-lost.json"] {
        let scenario = Scenario::load(&directory.join(name)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            let whole = run(&scenario, variant, &Options::default(), None);
            let (mut cuts, mut waiting) = (0, 0);
            for at in 0.. {
                let mut leave = Leave(Some(Until::Instruction(at)), Vec::new());
                if run_interrupted(&scenario, variant, &Options::default(), None, &mut leave).expect("it can be written").is_some() {
                    break;
                }
                let (contents, error) = stream::Contents::read(leave.1.as_slice());
                assert!(error.is_none(), "{error:?}");
                let waits = |(name, section): (&String, &stream::Section)| {
                    name.ends_with("/freedoms") && format!("{:?}", section.tree().expect("it is a value")).contains("buffer")
                };
                waiting += usize::from(contents.values.iter().any(waits));
                let checkpoint = Checkpoint::read(leave.1.as_slice()).expect("what was written can be read");
                let restored = restore(checkpoint, Compile::Never).unwrap_or_else(|error| panic!("{error}"));
                let rest = run_restored(restored, &Options::default(), None);
                let tell = |report: &scenario::run::Report| (report.snapshot(&scenario), format!("{:?}", report.registers));
                assert_eq!(tell(&rest), tell(&whole), "{name} on {} in front of {at}", variant.name());
                cuts += 1;
            }
            assert!(cuts > 10 && waiting > 0, "{name}: {waiting} of {cuts} cuts");
        }
    }
}

/// Writes a checkpoint at a moment, and lets the run go on.
struct WriteAt {
    at: Option<Until>,
    written: Option<(Totals, Vec<u8>)>,
}

impl Interrupt for WriteAt {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.at.take()
    }

    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        let mut bytes = Vec::new();
        run.checkpoint(&mut bytes).expect("there is a machine");
        self.written = Some((run.totals(), bytes));
        After::GoOn
    }
}

/// Between two hosts there is no one machine that could be written.
#[test]
fn a_moment_in_the_middle_of_a_live_move_comes_behind_it() {
    for story in ["live-pre-copy", "live-post-copy", "live-cut-before-commit", "live-there-and-back"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scenarios/migration/{story}.json"));
        let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            let tell = |report: &scenario::run::Report| format!("{}{:#}", report.snapshot(&scenario), report.to_json());
            let mut sent: Vec<trace::Record> = Vec::new();
            let whole = run(&scenario, variant, &Options::default(), Some(&mut sent));
            let (start, end) = (whole.moves[0].start, whole.moves[0].end);
            // An exit in the middle of the move, which is one more moment than those of time.
            let exits =
                |until: u64| sent.iter().filter(|it| it.cycle < until && matches!(it.event, trace::Event::Exit { .. })).count() as u64;
            let moments = (1..8).map(|part| Until::Cycle(start + (end - start) * part / 8)).chain([Until::Exit(exits(start) + 1)]);
            for moment in moments {
                let what = format!("{story} on {}, {moment:?}", variant.name());
                let mut interrupt = WriteAt { at: Some(moment), written: None };
                let through = run_interrupted(&scenario, variant, &Options::default(), None, &mut interrupt).unwrap().unwrap();
                assert_eq!(tell(&through), tell(&whole), "{what}: the run does not show it");
                let (totals, bytes) = interrupt.written.unwrap_or_else(|| panic!("{what}: it never came"));
                assert!(totals.cycles >= end, "{what}: at cycle {}, and the move was over at {end}", totals.cycles);
                let restored = checkpoint::restore(Checkpoint::read(bytes.as_slice()).unwrap(), Compile::Never).unwrap();
                let rest = run_restored(restored, &Options::default(), None);
                assert_eq!(tell(&rest), tell(&whole), "{what}: the rest is another");
            }
        }
    }
}
