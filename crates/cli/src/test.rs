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
use scenario::load::{Scenario, Variant};
use scenario::run::{Options, Report};
use scenario::snapshot::{self, Comparison, Trees};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// What came of one scenario on one machine.
struct Item {
    name: String,
    report: Report,
    comparison: Comparison,
}

/// A file that is no scenario.
pub(crate) struct Invalid {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub diagnostics: Diagnostics,
}

impl Invalid {
    /// Tells of it: in the order of the results for programs, on the standard error for people.
    pub fn print(&self, output: &Output) {
        if output.json() {
            let file = self.file.display().to_string();
            let messages: Vec<_> = self.diagnostics.list.iter().map(|diagnostic| diagnostic.render(false)).collect();
            output.print(&format!("{}\n", serde_json::json!({ "schema_version": 1, "file": file, "passed": false, "invalid": messages })));
        } else {
            output.complain(&format!("{}\n", self.diagnostics.render(output.error_colours)));
        }
    }
}

/// What came of the scenarios of one file, and the traces that belong to it, those of machines that were not chosen included.
struct Tested {
    items: Vec<Item>,
    traces: Vec<PathBuf>,
}

/// Runs the scenarios.
pub fn test(arguments: &Test, output: &Output) -> Exit {
    if let Some(model) = &arguments.move_to {
        return crate::moves::moves(arguments, model, output);
    }
    match for_each_file(arguments, output, |trees, file| tested(trees, file, arguments)) {
        Ok(results) => report(arguments, output, results),
        Err(exit) => exit,
    }
}

/// The trees that a path of the command line is about.
fn trees(path: &Path, arguments: &Test) -> io::Result<Trees> {
    match &arguments.snapshots {
        Some(snapshots) => Trees::with(path, snapshots.clone()),
        None => Trees::of(path),
    }
}

/// Runs a task for every file, in parallel, with a bar on a terminal. The results are in the order of the files.
pub(crate) fn for_each_file<T: Send>(arguments: &Test, output: &Output, task: impl Fn(&Trees, &Path) -> T + Sync) -> Result<Vec<T>, Exit> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        match snapshot::scenario_files(path).and_then(|found| Ok((found, trees(path, arguments)?))) {
            Ok((found, trees)) => files.extend(found.into_iter().map(|file| (trees.clone(), file))),
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
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.jobs.unwrap_or(0)).build().map_err(|error| {
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
            .map(|(trees, file)| {
                let result = task(trees, file);
                bar.inc(1);
                result
            })
            .collect()
    });
    bar.finish_and_clear();
    Ok(results)
}

fn tested(trees: &Trees, file: &Path, arguments: &Test) -> Result<Tested, Invalid> {
    let scenario = Scenario::load(file).map_err(|diagnostics| Invalid { file: file.to_owned(), diagnostics })?;
    let story = trees.name(file);
    let trace = |variant: &Variant| snapshot::path(&trees.snapshots, &story, &variant.name());
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let items = scenario
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
                    Err(error) => {
                        let diagnostics = Diagnostic::without_place(format!("{name}, cut: {error}")).into();
                        return Err(Invalid { file: file.to_owned(), diagnostics });
                    }
                }
            } else {
                scenario::run::run(&scenario, variant, &options, None)
            };
            let path = trace(variant);
            let text = report.snapshot(&scenario);
            let comparison = match arguments.accept {
                true => snapshot::accept(&path, &text),
                false => snapshot::compare(&path, &text),
            };
            Ok(Item { name, report, comparison })
        })
        .collect::<Result<_, _>>()?;
    Ok(Tested { items, traces: scenario.variants.iter().map(trace).collect() })
}

/// The reviewed traces that no run belongs to any more: of scenarios that are gone or have another name, of machines that were taken from a matrix.
fn orphans(arguments: &Test, results: &[Result<Tested, Invalid>]) -> io::Result<Vec<PathBuf>> {
    // Who looks at a part knows nothing of the rest, and a scenario that cannot be read may have any machines.
    if arguments.only.is_some() || results.iter().any(Result::is_err) {
        return Ok(Vec::new());
    }
    let made: BTreeSet<&Path> = results.iter().flatten().flat_map(|tested| &tested.traces).map(PathBuf::as_path).collect();
    let mut orphans = BTreeSet::new();
    for path in arguments.paths.iter().filter(|path| path.is_dir()) {
        orphans.extend(trees(path, arguments)?.orphans(path, &|trace| made.contains(trace))?);
    }
    Ok(orphans.into_iter().collect())
}

fn report(arguments: &Test, output: &Output, results: Vec<Result<Tested, Invalid>>) -> Exit {
    let (mut passed, mut failed, mut invalid) = (0_usize, 0_usize, 0_usize);
    for result in &results {
        match result {
            Err(it) => {
                invalid += 1;
                it.print(output);
            }
            Ok(tested) => {
                for item in &tested.items {
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
    if invalid + failed + passed == 0 {
        output.error(format_args!("no scenario or machine has a name with `{}`", arguments.only.as_deref().unwrap_or_default()));
        return Exit::Invalid;
    }
    let orphaned = match orphans(arguments, &results) {
        Ok(orphans) => print_orphans(arguments, output, &orphans),
        Err(error) => {
            output.error(format_args!("cannot read the reviewed traces: {error}"));
            return Exit::Invalid;
        }
    };
    let worth_saying = !output.quiet || failed + invalid + orphaned > 0;
    if !output.json() && worth_saying {
        let word = if failed + invalid + orphaned == 0 { output.paint("1;32", "pass") } else { output.paint("1;31", "FAIL") };
        let mut line = format!("{word}: {passed} passed, {failed} failed");
        if invalid > 0 {
            line += &format!(", {invalid} invalid");
        }
        if orphaned > 0 {
            line += &format!(", {orphaned} without a run");
        }
        if arguments.accept {
            line += "; the traces of this run are accepted";
        }
        output.print(&format!("{line}\n"));
    }
    match (invalid, failed + orphaned) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::Failed,
        _ => Exit::Invalid,
    }
}

/// Tells of traces without a run, or removes them where this run is accepted. How many are left.
fn print_orphans(arguments: &Test, output: &Output, orphans: &[PathBuf]) -> usize {
    let mut left = 0;
    for path in orphans {
        let name = path.display().to_string();
        if arguments.accept {
            match std::fs::remove_file(path) {
                Ok(()) => continue,
                Err(error) => output.error(format_args!("cannot remove {name}: {error}")),
            }
        }
        left += 1;
        if output.json() {
            output
                .print(&format!("{}\n", serde_json::json!({ "schema_version": 1, "name": name, "passed": false, "snapshot": "orphaned" })));
        } else {
            let word = output.paint("1;31", "FAIL");
            output.print(&format!("{word} {name}\nthis reviewed trace belongs to no run; `--accept` removes it\n"));
        }
    }
    left
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
