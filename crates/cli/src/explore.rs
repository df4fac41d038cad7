//! `trapline explore`: searches the interleavings of a scenario's CPUs.

use crate::arguments::Explore;
use crate::exit::Exit;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use scenario::explore::{Exploration, Options, document};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// Explores the scenario.
pub fn explore(arguments: &Explore, output: &Output) -> Exit {
    let Some(scenario) = crate::run::load(&arguments.file, output) else { return Exit::Invalid };
    let variants = match crate::run::machines(&scenario, arguments.only.as_deref()) {
        Ok(variants) => variants,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    // A search may take long: what can be known of the file is known before it.
    if let Some(path) = &arguments.output
        && let Err(message) = writable(path)
    {
        output.error(message);
        return Exit::Invalid;
    }
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(arguments.jobs.unwrap_or(0)).build() {
        Ok(pool) => pool,
        Err(error) => {
            output.error(error);
            return Exit::Internal;
        }
    };
    let options = Options {
        preemptions: arguments.preemptions,
        budget: arguments.budget,
        seed: arguments.seed,
        store_buffers: arguments.store_buffers.into(),
    };
    let mut found: Vec<Exploration> = Vec::new();
    let mut written = false;
    for variant in variants {
        let target = if output.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(options.budget), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of at most {len} runs on {msg}") {
            bar.set_style(style);
        }
        bar.set_message(variant.name());
        let searched = pool.install(|| scenario::explore::explore(&scenario, variant, &options, &|done| bar.set_position(done)));
        bar.finish_and_clear();
        let exploration = match searched {
            Ok(exploration) => exploration,
            Err(error) => {
                output.error(format_args!("{} on {}: {error}", arguments.file.display(), variant.name()));
                return Exit::Invalid;
            }
        };
        if !output.json() && (!output.quiet || exploration.finding.is_some()) {
            let name = output.paint("1", &exploration.machine);
            output.print(&format!("{} on {name}\n{}", scenario.file.title, exploration.text(&options)));
            if output.verbose && exploration.finding.is_some() {
                // As a scenario's key `schedule` has them.
                let document = exploration.to_json();
                for turn in document["schedule"].as_array().into_iter().flatten() {
                    output.print(&format!("               {turn}\n"));
                }
            }
            output.print("\n");
        }
        if let (Some(finding), Some(path), false) = (&exploration.finding, &arguments.output, written) {
            let mut document = document(&scenario, variant, finding, &exploration.schedule);
            relocate(&mut document, &arguments.file, path);
            if let Err(error) = std::fs::write(path, format!("{document:#}\n")) {
                output.error(format_args!("cannot write {}: {error}", path.display()));
                return Exit::Invalid;
            }
            written = true;
        }
        found.push(exploration);
    }
    let violated = found.iter().any(|exploration| exploration.finding.is_some());
    if output.json() {
        let document = serde_json::json!({
            "schema_version": 1,
            "file": arguments.file.display().to_string(),
            "title": scenario.file.title,
            "preemptions": options.preemptions,
            "budget": options.budget,
            "seed": options.seed,
            "store_buffers": options.store_buffers.name(),
            "passed": !violated,
            "machines": found.iter().map(Exploration::to_json).collect::<Vec<_>>(),
        });
        output.print(&format!("{document:#}\n"));
    }
    if violated { Exit::Failed } else { Exit::Success }
}

/// The directory that a file lies in, or will.
fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file can be made there; it is not made.
fn writable(path: &Path) -> Result<(), String> {
    let there = match path.metadata() {
        Ok(_) => std::fs::OpenOptions::new().append(true).open(path).map(|_| ()),
        Err(_) => std::fs::read_dir(directory(path)).map(|_| ()),
    };
    there.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// What lies beside a scenario is named from where its copy is written.
fn relocate(document: &mut Value, from: &Path, to: &Path) {
    let (Ok(from), Ok(to)) = (directory(from).canonicalize(), directory(to).canonicalize()) else { return };
    let way = way(&to, &from);
    let move_name = |name: &mut Value| {
        if let Some(text) = name.as_str().filter(|text| Path::new(text).is_relative()) {
            *name = way.join(text).display().to_string().into();
        }
    };
    if let Some(schema) = document.get_mut("$schema") {
        move_name(schema);
    }
    let Some(guest) = document.get_mut("guest") else { return };
    for key in ["file", "flat", "elf", "multiboot"] {
        if let Some(name) = guest.get_mut(key) {
            move_name(name);
        }
    }
    guest.get_mut("modules").and_then(Value::as_array_mut).into_iter().flatten().for_each(move_name);
}

/// The way from one directory to another; both are absolute.
fn way(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
    std::iter::repeat_n(Component::ParentDir, from.len() - shared).chain(to[shared..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leads_up_and_down() {
        let way = |from, to| way(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(way("/a/b/c", "/a/d"), "../../d");
        assert_eq!(way("/a/b", "/a/b"), "");
        assert_eq!(way("/a", "/a/b/c"), "b/c");
    }
}
