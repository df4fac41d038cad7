//! `trapline migrate`: a scenario's guest moved live in the middle of its run, and what that was like.
//!
//! The move is a step put into the scenario's script. Of its expectations those remain that say what the guest computes, which a move must not
//! change: how it stops, its registers, its memory, what it prints.

use crate::arguments::{Migrate, MoveModeName};
use crate::exit::Exit;
use crate::output::Output;
use scenario::load::{Directory, Scenario};
use scenario::run::{Options, Report};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Moves the guest of each machine that is meant.
pub fn migrate(arguments: &Migrate, output: &Output) -> Exit {
    let scenario = match Scenario::load(&arguments.file) {
        Ok(scenario) => scenario,
        Err(diagnostics) => {
            output.complain(&diagnostics.render(output.error_colours));
            return Exit::Invalid;
        }
    };
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let mut trace = match arguments.trace.as_deref().map(File::create).transpose() {
        Ok(trace) => trace.map(BufWriter::new),
        Err(error) => {
            output.error(format_args!("cannot write the trace: {error}"));
            return Exit::Invalid;
        }
    };
    let mut exit = Exit::Success;
    let mut runs = Vec::new();
    for (index, variant) in scenario.variants.iter().enumerate() {
        if arguments.only.as_ref().is_some_and(|only| !variant.name().contains(only.as_str())) {
            continue;
        }
        let at = match &arguments.at {
            Some(at) => at.clone(),
            None => {
                // In the middle of the run as it is without a move.
                let plain = scenario::run::run(&scenario, variant, &Options { events: 0, ..options }, None);
                json!({ "cycle": (plain.cycles / 2).max(1) })
            }
        };
        let moved = match with_move(&scenario, arguments, &at) {
            Ok(moved) => moved,
            Err(message) => {
                output.complain(&message);
                return Exit::Invalid;
            }
        };
        let Some(variant) = moved.variants.get(index) else { continue };
        if !output.json() && !output.quiet {
            output.print(&format!("{} on {}\n", scenario.file.title, output.paint("1", &variant.name())));
        }
        let mut ndjson = trace.as_mut().map(|file| trace::Writer::new(file, trace::Format::Ndjson));
        let sink = ndjson.as_mut().map(|writer| writer as &mut dyn trace::Sink);
        let report = scenario::run::run(&moved, variant, &options, sink);
        if let Some(Err(error)) = ndjson.map(|writer| writer.finish().map(|_| ())) {
            output.error(format_args!("cannot write the trace: {error}"));
            return Exit::Invalid;
        }
        if !output.json() && !output.quiet {
            output.print(&text(&report, output));
        }
        let came_through = report.moves.first().is_some_and(|it| it.outcome == "moved" || it.outcome == "moved-in-doubt");
        if !report.passed() || !came_through {
            exit = Exit::Failed;
        }
        runs.push(report);
    }
    if runs.is_empty() {
        output.error("no machine of the scenario has a name with that text");
        return Exit::Invalid;
    }
    if output.json() {
        let document = json!({
            "schema_version": 1,
            "file": arguments.file.display().to_string(),
            "passed": exit == Exit::Success,
            "runs": runs.iter().map(Report::to_json).collect::<Vec<_>>(),
        });
        output.print(&format!("{document:#}\n"));
    }
    if let Some(Err(error)) = trace.map(|mut file| file.flush()) {
        output.error(format_args!("cannot write the trace: {error}"));
        return Exit::Invalid;
    }
    exit
}

/// The scenario with the move in its script.
fn with_move(scenario: &Scenario, arguments: &Migrate, at: &Value) -> Result<Scenario, String> {
    let mut file = scenario.value();
    let mut action = json!({
        "to": arguments.to,
        "mode": match arguments.mode { MoveModeName::PreCopy => "pre-copy", MoveModeName::PostCopy => "post-copy" },
        "link": { "bandwidth": arguments.bandwidth, "latency": arguments.latency, "jitter": arguments.jitter, "seed": arguments.seed },
        "downtime": arguments.downtime,
        "rounds": arguments.rounds,
        "converge": arguments.converge.name(),
        "faults": arguments.faults,
    });
    if let Some(policy) = &arguments.policy {
        action["policy"] = json!(policy);
    }
    let step = json!({ "at": at, "do": [{ "migrate": action }] });
    let mut script: Vec<Value> = file.get("script").and_then(Value::as_array).cloned().unwrap_or_default();
    // A move that the scenario has itself would be another story.
    for step in &mut script {
        if let Some(actions) = step.get_mut("do").and_then(Value::as_array_mut) {
            actions.retain(|action| action.get("migrate").is_none());
        }
    }
    script.retain(|step| step.get("do").and_then(Value::as_array).is_some_and(|actions| !actions.is_empty()));
    script.push(step);
    file["script"] = Value::Array(script);
    if let Some(expect) = file.get_mut("expect").and_then(Value::as_object_mut) {
        let kept = ["stop", "exit_code", "registers", "memory", "serial", "serial_contains"];
        expect.retain(|key, _| kept.contains(&key.as_str()));
    }
    if let Some(file) = file.as_object_mut() {
        file.remove("cases");
    }
    let directory = arguments.file.parent().unwrap_or(Path::new(""));
    let name = format!("{} with the move", arguments.file.display());
    Scenario::parse(&name, format!("{file:#}"), &Directory(directory.to_owned())).map_err(|diagnostics| diagnostics.render(false))
}

/// What is printed of one machine.
fn text(report: &Report, output: &Output) -> String {
    let mut text = String::new();
    for it in &report.moves {
        text += &format!("{}\n", it.text());
        if output.verbose {
            for mark in &it.marks {
                text += &format!("{:>14} {:>11}: {}\n", mark.cycle, mark.side, mark.what);
            }
            text += "\n";
        }
    }
    text += &format!("{}\n", report.summary_line());
    if report.moves.is_empty() {
        text += "the guest's run was over before the moment of the move: give an earlier one with --at\n";
    } else if report.moves.iter().any(|it| it.outcome == "over") {
        text += "the guest's run was over before the hand-over: move it earlier (--at) or over a faster link (--bandwidth)\n";
    }
    if report.passed() {
        text += &format!("{}: the guest came out as its scenario expects\n\n", output.paint("1;32", "pass"));
    } else {
        text += &format!("{}\n{}\n", output.paint("1;31", "FAIL"), report.failures.render(output.colours));
    }
    text
}
