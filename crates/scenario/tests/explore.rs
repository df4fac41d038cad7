//! Exploring finds what is wrong with the flawed stories of `scenarios/smp`, finds nothing in the sound ones, and says the same whoever helps.
//!
//! `EXPLORE_PREEMPTIONS` and `EXPLORE_BUDGET` in the environment make the searches larger.

use scenario::explore::{Exploration, Options, document, explore};
use scenario::load::{Directory, Scenario};
use scenario::run;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/smp")
}

fn story(name: &str) -> Scenario {
    Scenario::load(&directory().join(name)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn options() -> Options {
    Options { preemptions: number("EXPLORE_PREEMPTIONS", 2) as u32, budget: number("EXPLORE_BUDGET", 600), seed: 1 }
}

/// Explores a story on every machine whose name contains a text.
fn all(scenario: &Scenario, only: &str, options: &Options) -> Vec<Exploration> {
    let variants = scenario.variants.iter().filter(|variant| variant.name().contains(only));
    variants.map(|variant| explore(scenario, variant, options, &|_| {}).expect("it can be explored")).collect()
}

#[test]
fn what_is_flawed_is_found_on_both_vendors_and_replayed() {
    let rows = [
        ("prefixed.json", "", "intact-text", 0),
        ("two-pages.json", "trap-and-patch", "whole-patches", 1),
        ("lock-naive.json", "", "expect", 2),
        ("modify-naive.json", "", "expect", 2),
        ("store-torn.json", "", "expect", 2),
    ];
    for (name, only, invariant, deviations) in rows {
        let scenario = story(name);
        let found = all(&scenario, only, &options());
        assert_eq!(found.len(), 2, "{name}");
        for exploration in found {
            let finding = exploration.finding.as_ref().unwrap_or_else(|| panic!("{name} on {}: nothing", exploration.machine));
            assert_eq!((finding.name().as_str(), exploration.deviations), (invariant, deviations), "{name}: {}", finding.text());
            let variant = scenario.variants.iter().find(|variant| variant.name() == exploration.machine).expect("it is one of them");
            let text = document(&scenario, variant, finding, &exploration.schedule).to_string();
            let replay = Scenario::parse("replay", text, &Directory(directory())).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            let report = run::run(&replay, &replay.variants[0], &run::Options::default(), None);
            // What breaks an invariant is expected to; what breaks an expectation still does.
            assert_eq!(report.passed(), invariant != "expect", "{name}: {}", report.failures);
        }
    }
}

#[test]
fn what_is_sound_passes_with_its_coverage() {
    let rows = [
        ("whole.json", ""),
        ("two-pages.json", "classic-2007"),
        ("lock-correct.json", ""),
        ("modify-correct.json", ""),
        ("store-whole.json", ""),
        ("one-site.json", "zen3.trap-and-patch.seed-1"),
    ];
    for (name, only) in rows {
        for exploration in all(&story(name), only, &options()) {
            let text = exploration.text(&options());
            assert!(exploration.finding.is_none(), "{name} on {}:\n{text}", exploration.machine);
            assert!(exploration.complete || exploration.bound.is_some_and(|bound| bound >= 1), "{name}:\n{text}");
            assert!(exploration.states > 0 && exploration.points >= exploration.states, "{name}:\n{text}");
        }
    }
}

#[test]
fn nothing_depends_on_who_helps() {
    let told = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("there are threads");
        let options = Options { budget: 200, ..options() };
        pool.install(|| {
            let stories = ["lock-naive.json", "two-pages.json", "store-whole.json"];
            stories.map(|name| all(&story(name), "zen3", &options).iter().map(|found| found.to_json().to_string()).collect::<Vec<_>>())
        })
    };
    assert_eq!(told(1), told(3));
}

#[test]
fn what_cannot_be_explored_says_why() {
    let text = r#"{ "title": "t", "teaches": "t", "machine": { "cpu": "zen3", "vcpus": 2 }, "guest": { "assembly": ["hlt"] }, REST }"#;
    let refusal = |rest: &str| {
        let scenario = Scenario::parse("it", text.replace("REST", rest), &Directory(directory()))
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        explore(&scenario, &scenario.variants[0], &options(), &|_| {}).expect_err("it cannot be explored")
    };
    assert!(refusal(r#""hypervisor": { "policy": "none" }"#).contains("bare machine"));
    assert!(refusal(r#""script": [{ "at": { "exit": 1 }, "do": [{ "nmi": {} }] }]"#).contains("script"));
    assert!(refusal(r#""schedule": [{ "cpu": 0, "steps": 1 }]"#).contains("schedule"));
}
