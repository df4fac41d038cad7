//! `trapline test`: trees of scenarios, in parallel, against expectations and reviewed traces.
//!
//! The order of the output is the order of the files' names, whatever finishes first.

use crate::arguments::Test;
use crate::exit::Exit;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;
use scenario::cut::{Everywhere, MOST};
use scenario::diagnostic::{Diagnostic, Diagnostics};
use scenario::load::Scenario;
use scenario::run::{Options, Report};
use scenario::snapshot::{self, Comparison};
use std::path::{Path, PathBuf};

/// What came of one scenario on one machine.
struct Item {
    name: String,
    report: Report,
    comparison: Comparison,
}

/// Runs the scenarios.
pub fn test(arguments: &Test, output: &Output) -> Exit {
    if let Some(model) = &arguments.move_to {
        return crate::moves::moves(arguments, model, output);
    }
    let snapshots = arguments.snapshots.clone().unwrap_or_else(|| beside(&arguments.paths[0]));
    match for_each_file(&arguments.paths, arguments.jobs, output, |root, file| items(root, file, &snapshots, arguments)) {
        Ok(results) => report(arguments, output, results),
        Err(exit) => exit,
    }
}

/// Runs a task for every file, in parallel, with a bar on a terminal. The results are in the order of the files.
pub(crate) fn for_each_file<T: Send>(
    paths: &[PathBuf],
    jobs: Option<usize>,
    output: &Output,
    task: impl Fn(&Path, &Path) -> T + Sync,
) -> Result<Vec<T>, Exit> {
    let mut files = Vec::new();
    for path in paths {
        match snapshot::scenario_files(path) {
            Ok(found) => files.extend(found.into_iter().map(|file| (path.clone(), file))),
            Err(error) => {
                output.error(format_args!("cannot read {}: {error}", path.display()));
                return Err(Exit::Invalid);
            }
        }
    }
    if files.is_empty() {
        output.error("no scenarios (files that end in .json) are there");
        return Err(Exit::Invalid);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.unwrap_or(0)).build().map_err(|error| {
        output.error(error);
        Exit::Internal
    })?;
    let target = if output.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(files.len() as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    // One task per file and per machine would balance better, but a file is loaded once for all its machines.
    let results = pool.install(|| {
        files
            .par_iter()
            .map(|(root, file)| {
                let result = task(root, file);
                bar.inc(1);
                result
            })
            .collect()
    });
    bar.finish_and_clear();
    Ok(results)
}

/// The directory of snapshots that belongs to a directory of scenarios.
fn beside(path: &Path) -> PathBuf {
    let directory = if path.is_dir() { Some(path) } else { path.parent() };
    directory
        .into_iter()
        .flat_map(Path::ancestors)
        .map(|ancestor| match ancestor.parent() {
            Some(parent) => parent.join("snapshots"),
            None => PathBuf::from("snapshots"),
        })
        .find(|candidate| candidate.is_dir())
        .unwrap_or_else(|| PathBuf::from("snapshots"))
}

fn items(root: &Path, file: &Path, snapshots: &Path, arguments: &Test) -> Result<Vec<Item>, Diagnostics> {
    let scenario = Scenario::load(file)?;
    let story = snapshot::story_name(root, file);
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    scenario
        .variants
        .iter()
        .map(|variant| (format!("{story} on {}", variant.name()), variant))
        .filter(|(name, _)| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str())))
        .map(|(name, variant)| {
            let report = if arguments.cut {
                let mut everywhere = Everywhere::new(variant, 0, MOST);
                let report = scenario::run::run_interrupted(&scenario, variant, &options, None, &mut everywhere);
                let whole = report.map_err(|error| error.to_string()).and_then(|report| everywhere.outcome.map(|()| report));
                match whole {
                    Ok(report) => report.expect("no interruption leaves the run"),
                    Err(error) => return Err(Diagnostic::without_place(format!("{name}, cut: {error}")).into()),
                }
            } else {
                scenario::run::run(&scenario, variant, &options, None)
            };
            let path = snapshot::path(snapshots, &story, &variant.name());
            let text = report.snapshot(&scenario);
            let comparison = match arguments.accept {
                true => snapshot::accept(&path, &text),
                false => snapshot::compare(&path, &text),
            };
            Ok(Item { name, report, comparison })
        })
        .collect()
}

fn report(arguments: &Test, output: &Output, results: Vec<Result<Vec<Item>, Diagnostics>>) -> Exit {
    let (mut passed, mut failed, mut invalid) = (0_usize, 0_usize, 0_usize);
    for result in &results {
        match result {
            Err(diagnostics) => {
                invalid += 1;
                if output.json() {
                    let messages: Vec<_> = diagnostics.list.iter().map(|diagnostic| diagnostic.render(false)).collect();
                    output.print(&format!("{}\n", serde_json::json!({ "schema_version": 1, "invalid": messages })));
                } else {
                    output.complain(&format!("{}\n", diagnostics.render(output.error_colours)));
                }
            }
            Ok(items) => {
                for item in items {
                    let good = item.report.passed() && item.comparison.good();
                    if good {
                        passed += 1;
                    } else {
                        failed += 1;
                    }
                    print_item(item, good, output);
                }
            }
        }
    }
    let worth_saying = !output.quiet || failed + invalid > 0;
    if !output.json() && worth_saying {
        let word = if failed + invalid == 0 { output.paint("1;32", "pass") } else { output.paint("1;31", "FAIL") };
        let mut line = format!("{word}: {passed} passed, {failed} failed");
        if invalid > 0 {
            line += &format!(", {invalid} invalid");
        }
        if arguments.accept {
            line += "; the traces of this run are accepted";
        }
        output.print(&format!("{line}\n"));
    }
    match (invalid, failed, passed) {
        (0, 0, 0) => {
            output.error("no scenario or machine has a name with that text");
            Exit::Invalid
        }
        (0, 0, _) => Exit::Success,
        (0, ..) => Exit::Failed,
        _ => Exit::Invalid,
    }
}

fn print_item(item: &Item, good: bool, output: &Output) {
    if output.json() {
        let mut document = item.report.to_json();
        if let Some(members) = document.as_object_mut() {
            members.insert("schema_version".into(), 1.into());
            members.insert("name".into(), item.name.as_str().into());
            members.insert("passed".into(), good.into());
            members.insert("snapshot".into(), item.comparison.word().into());
        }
        output.print(&format!("{document}\n"));
        return;
    }
    if good {
        if output.verbose {
            output.print(&format!("{} {}\n", output.paint("32", "pass"), item.name));
        }
        return;
    }
    output.print(&format!("{} {}\n", output.paint("1;31", "FAIL"), output.paint("1", &item.name)));
    if !item.report.passed() {
        output.print(&item.report.failures.render(output.colours));
    }
    output.print(&item.comparison.explain(&|code, text| output.paint(code, text)));
}
