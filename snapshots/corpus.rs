//! The corpus: every scenario on every machine of its matrix comes true, and its trace is the reviewed one.
//!
//! `cargo insta review` (or `INSTA_UPDATE=always`) accepts changed traces; `trapline test scenarios` compares with the same files. The test
//! belongs to the crate `scenario` and lies here because `cargo insta` finds pending traces in the folders of tests only.

use cpu::block::Compile;
use scenario::load::Scenario;
use scenario::run::{Options, run};
use scenario::snapshot;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn root(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory)
}

fn scenarios() -> Vec<(String, Scenario)> {
    let root = root("scenarios");
    let files = snapshot::scenario_files(&root).expect("there is a corpus");
    files
        .iter()
        .map(|file| {
            let scenario = Scenario::load(file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            (snapshot::story_name(&root, file), scenario)
        })
        .collect()
}

#[test]
fn every_scenario_comes_true_and_traces_as_reviewed() {
    let mut wrong = String::new();
    let mut known = BTreeSet::new();
    for (story, scenario) in scenarios() {
        for variant in &scenario.variants {
            let report = run(&scenario, variant, &Options::default(), None);
            if !report.passed() {
                wrong += &format!("{story} on {}:\n{}\n", variant.name(), report.failures);
            }
            let path = snapshot::path(&root("snapshots"), &story, &variant.name());
            known.insert(path.file_name().map(ToOwned::to_owned));
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(path.parent().expect("a snapshot lies in a directory"));
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in ASCII").to_owned();
            let text = report.snapshot(&scenario);
            // All of them are compared before the test fails, so that one review shows everything.
            let compared = catch_unwind(AssertUnwindSafe(|| settings.bind(|| insta::assert_snapshot!(name, text))));
            if compared.is_err() {
                wrong += &format!("{story} on {}: the trace is not the reviewed one\n", variant.name());
            }
        }
    }
    assert!(known.len() >= 60, "the corpus has {} machines", known.len());
    // What `explain` says of the classic mistakes belongs to the crate `audit`.
    let explained = root("snapshots/explain");
    for file in files_below(&root("snapshots")).into_iter().filter(|file| !file.starts_with(&explained)) {
        if file.extension().is_some_and(|extension| extension == "snap") && !known.contains(&file.file_name().map(ToOwned::to_owned)) {
            wrong += &format!("{} belongs to no scenario\n", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn every_scenario_names_the_schema_and_teaches_a_sentence() {
    for (story, scenario) in scenarios() {
        assert_eq!(scenario.file.schema.as_deref(), Some("../scenario.schema.json"), "{story}");
        assert!(scenario.file.teaches.ends_with('.'), "{story}: {}", scenario.file.teaches);
    }
}

/// The same scenario gives the same trace to the byte, also with a stop and another observer in between.
#[test]
fn a_run_is_a_function_of_its_scenario() {
    for (story, scenario) in scenarios() {
        if !(story.starts_with("smp/") || story.starts_with("migration/")) {
            continue;
        }
        for variant in &scenario.variants {
            let first = run(&scenario, variant, &Options::default(), None);
            let mut counts = trace::Summary::new();
            let second = run(&scenario, variant, &Options { events: 3, ..Options::default() }, Some(&mut counts));
            assert_eq!(first.transcript.hash(), second.transcript.hash(), "{story} on {}", variant.name());
            assert_eq!(first.registers, second.registers, "{story} on {}", variant.name());
            assert_eq!(first.summary.exits(), counts.exits());
        }
    }
}

/// However early code is compiled, and whether it is at all, every trace is the same to the byte.
#[test]
fn a_run_does_not_depend_on_what_is_compiled() {
    for (story, scenario) in scenarios() {
        for variant in &scenario.variants {
            let [interpreted, others @ ..] = [Compile::Never, Compile::After(1), Compile::After(3)]
                .map(|compile| run(&scenario, variant, &Options { compile, ..Options::default() }, None));
            for other in others {
                assert_eq!(interpreted.snapshot(&scenario), other.snapshot(&scenario), "{story} on {}", variant.name());
                assert_eq!(interpreted.transcript.hash(), other.transcript.hash(), "{story} on {}", variant.name());
                assert_eq!(interpreted.registers, other.registers, "{story} on {}", variant.name());
            }
        }
    }
}
