//! Cut anywhere: a run that is taken through checkpoints tells the story that it tells uninterrupted, to the byte.
//!
//! Each story of the corpus is cut at its VM exits and at random instructions, as `trapline test scenarios --cut` does it.

use scenario::cut::{Everywhere, MOST};
use scenario::load::{Directory, Scenario};
use scenario::run::{Options, run, run_interrupted};
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
        if scenario.goes_by_steps() {
            continue;
        }
        for variant in &scenario.variants {
            stories += 1;
            let whole = run(&scenario, variant, &Options::default(), None);
            let mut everywhere = Everywhere::new(variant, stories, MOST);
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
