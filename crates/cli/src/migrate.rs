//! `trapline migrate`: a scenario's guest moved live in the middle of its run, and what that was like; or what it would come to.

use crate::arguments::Migrate;
use crate::exit::Exit;
use crate::output::Output;
use scenario::checkpoint;
use scenario::file::{Link, MigrateAction, MissingFeatures, Policy};
use scenario::live::journey::Journey;
use scenario::live::{self, Check, Fate};
use scenario::load::{Scenario, Variant};
use scenario::run::{Options, Report};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};

/// Moves the guest of each machine that is meant, or asks what that would come to.
pub fn migrate(arguments: &Migrate, output: &Output) -> Exit {
    let Some(scenario) = crate::run::load(&arguments.file, output) else { return Exit::Invalid };
    let attempt = if arguments.check { check(&scenario, arguments, output) } else { move_all(&scenario, arguments, output) };
    attempt.unwrap_or_else(|message| {
        output.error(message);
        Exit::Invalid
    })
}

/// The move that the options describe.
fn action(arguments: &Migrate) -> Result<MigrateAction, String> {
    let action = MigrateAction {
        to: arguments.to.clone(),
        policy: arguments.policy,
        mode: Some(arguments.mode),
        link: Some(Link {
            bandwidth: arguments.bandwidth.clone(),
            latency: arguments.latency.clone(),
            jitter: arguments.jitter.clone(),
            seed: arguments.seed,
        }),
        downtime: arguments.downtime.clone(),
        rounds: arguments.rounds,
        converge: Some(arguments.converge),
        throttle: arguments.throttle,
        missing_features: arguments.accept_missing_features.then_some(MissingFeatures::Accept),
        faults: arguments.faults.clone(),
        mend: arguments.mend,
    };
    match live::mistakes(&action).first() {
        None => Ok(action),
        Some((keys, message)) => Err(match keys.iter().rfind(|key| key.parse::<usize>().is_err()).map(String::as_str) {
            Some("faults") => format!("--fault: {message}"),
            Some(key) => format!("--{key}: {message}"),
            None => message.clone(),
        }),
    }
}

/// The guests that are moved, each with its machine.
fn journeys<'s>(scenario: &'s Scenario, arguments: &Migrate, options: &Options) -> Result<Vec<(&'s Variant, Journey)>, String> {
    let action = action(arguments)?;
    let fitting = crate::run::machines(scenario, arguments.only.as_deref())?;
    // Machines without a hypervisor cannot move; the others of the scenario may.
    let mut movable: Vec<&Variant> = fitting.iter().copied().filter(|variant| variant.policy != Policy::None).collect();
    if movable.is_empty() {
        movable = fitting;
    }
    let journey = |variant: &'s Variant| {
        let at = arguments.at.as_deref().map(|text| checkpoint::moment(text, variant)).transpose()?;
        Ok((variant, Journey::new(scenario, variant, at, &action, arguments.level, options)?))
    };
    movable.into_iter().map(journey).collect()
}

fn options(arguments: &Migrate) -> Options {
    Options { compile: arguments.tiers.compile(), ..Options::default() }
}

fn move_all(scenario: &Scenario, arguments: &Migrate, output: &Output) -> Result<Exit, String> {
    let cannot_write = |error: std::io::Error| {
        let file = arguments.trace.as_deref().unwrap_or("".as_ref());
        format!("cannot write {}: {error}", file.display())
    };
    let options = options(arguments);
    let journeys = journeys(scenario, arguments, &options)?;
    let mut trace = arguments.trace.as_deref().map(File::create).transpose().map_err(cannot_write)?.map(BufWriter::new);
    let mut exit = Exit::Success;
    let mut runs = Vec::new();
    for (variant, journey) in journeys {
        let human = !output.json() && !output.quiet;
        if human {
            output.print(&heading(scenario, variant, &journey, output));
        }
        let mut ndjson = trace.as_mut().map(|file| trace::Writer::new(file, trace::Format::Ndjson));
        let report = journey.run(&options, ndjson.as_mut().map(|writer| writer as &mut dyn trace::Sink));
        if let Some(writer) = ndjson {
            writer.finish().map_err(cannot_write)?;
        }
        let moved = report.moves.last().is_some_and(|it| it.outcome == Fate::Moved);
        if human {
            output.print(&text(&report, &journey, output));
        } else if output.quiet && !(moved && report.passed()) {
            output.complain(&complaint(&report, &journey, output));
        }
        if !moved || !report.passed() {
            exit = Exit::Failed;
        }
        if output.json() {
            let mut document = report.to_json();
            document["judged"] = journey.is_judged().into();
            runs.push(document);
        }
    }
    if output.json() {
        print_json(scenario, arguments, exit, "runs", runs, output);
    }
    if let Some(mut file) = trace {
        file.flush().map_err(cannot_write)?;
    }
    Ok(exit)
}

/// The one document for programs, with what came of each machine under a key.
fn print_json(scenario: &Scenario, arguments: &Migrate, exit: Exit, key: &str, machines: Vec<Value>, output: &Output) {
    let document = json!({
        "schema_version": 1,
        "file": arguments.file.display().to_string(),
        "title": scenario.file.title,
        "passed": exit == Exit::Success,
        key: machines,
    });
    output.print(&format!("{document:#}\n"));
}

fn heading(scenario: &Scenario, variant: &Variant, journey: &Journey, output: &Output) -> String {
    format!("{} on {}, at {}\n", scenario.file.title, output.paint("1", &variant.name()), journey.moment())
}

/// What else may be done about a guest that was not moved.
fn hint(report: &Report, journey: &Journey) -> Option<String> {
    let Some(it) = report.moves.last() else {
        return Some(format!("the guest's run was over before {}: give an earlier moment with --at", journey.moment()));
    };
    match it.outcome {
        Fate::Over => Some("move it earlier (--at) or over a faster link (--bandwidth, --latency)".to_owned()),
        Fate::Stayed if it.ending.contains("level its CPUID") => {
            Some("--level tells it of what both models have, --accept-missing-features has it taken all the same".to_owned())
        }
        _ => None,
    }
}

/// What is printed of one machine.
fn text(report: &Report, journey: &Journey, output: &Output) -> String {
    let mut text = String::new();
    for it in &report.moves {
        text += &it.text();
        if output.verbose {
            text.push('\n');
            for mark in &it.marks {
                let _ = writeln!(text, "{:>14} {:>11}: {}", mark.cycle, mark.at.name(), mark.what);
            }
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", report.summary_line());
    if let Some(hint) = hint(report, journey) {
        let _ = writeln!(text, "{}: {hint}", output.paint("1;36", "hint"));
    }
    text += &crate::run::refused(report, output.verbose, &|code, text| output.paint(code, text));
    if report.passed() && !journey.is_judged() {
        text += "not judged: what the scenario expects does not come true without the moves of its own script\n\n";
    } else if report.passed() {
        let _ = writeln!(text, "{}: the guest came to the end that its scenario expects\n", output.paint("1;32", "pass"));
    } else {
        let _ = writeln!(text, "{}\n{}", output.paint("1;31", "FAIL"), report.failures.render(output.colours));
    }
    text
}

/// The same where only what went wrong is wanted.
fn complaint(report: &Report, journey: &Journey, output: &Output) -> String {
    let mut text = String::new();
    for it in report.moves.iter().filter(|it| it.outcome != Fate::Moved) {
        let _ = writeln!(text, "{}: {}", report.machine, it.ending);
    }
    if let Some(hint) = hint(report, journey) {
        let _ = writeln!(text, "{}: {hint}", report.machine);
    }
    text + &report.failures.render(output.error_colours)
}

// ---- `--check` ---------------------------------------------------------------------------------------------------------------------------

fn check(scenario: &Scenario, arguments: &Migrate, output: &Output) -> Result<Exit, String> {
    let options = options(arguments);
    let mut exit = Exit::Success;
    let mut documents = Vec::new();
    for (variant, journey) in journeys(scenario, arguments, &options)? {
        let check = journey.check(&options);
        if !matches!(&check, Ok(check) if check.refusal.is_none()) {
            exit = Exit::Failed;
        }
        if output.json() {
            documents.push(check_json(variant, &journey, &check));
            continue;
        }
        match &check {
            Err(message) => output.error(format_args!("{}: {message}", variant.name())),
            Ok(check) if output.quiet => {
                if let Some(refusal) = &check.refusal {
                    output.complain(&format!("{}: {} refuses: {refusal}\n", variant.name(), check.ledger.to));
                }
            }
            Ok(check) => output.print(&(heading(scenario, variant, &journey, output) + &check_text(check, output))),
        }
    }
    if output.json() {
        print_json(scenario, arguments, exit, "checks", documents, output);
    }
    Ok(exit)
}

fn check_json(variant: &Variant, journey: &Journey, check: &Result<Check, String>) -> Value {
    let (check, error) = match check {
        Ok(check) => (serde_json::to_value(check).unwrap_or_default(), None),
        Err(message) => (Value::Null, Some(message)),
    };
    json!({ "machine": variant.name(), "at": journey.moment(), "check": check, "error": error })
}

fn check_text(check: &Check, output: &Output) -> String {
    let offer = &check.offer;
    let plural = if offer.cpus == 1 { "" } else { "s" };
    let mut text = format!(
        "from {} to {}: {} CPU{plural}, {} pages, told of {} with {} features and {} bits of physical addresses\n",
        check.ledger.from,
        check.ledger.to,
        offer.cpus,
        offer.pages,
        offer.guest,
        offer.features.len(),
        offer.address_bits
    );
    let _ = match &check.refusal {
        None => writeln!(text, "{}: {} takes the guest", output.paint("1;32", "accept"), check.ledger.to),
        Some(refusal) => writeln!(text, "{}: {refusal}", output.paint("1;31", "refuse")),
    };
    text += "\nWhat the move would change now:\n";
    text += &crate::ledger::entries(&check.ledger.now, "nothing", output);
    text += "\nWhat this guest may find there:\n";
    text += &crate::ledger::entries(&check.ledger.possible, "no difference", output);
    if check.refusal.is_some() || !check.ledger.levelling.is_empty() {
        let _ = writeln!(
            text,
            "\nIn a scenario, \"hypervisor\": {{ \"levelling\": {{ \"common\": [\"{}\", \"{}\"] }} }} keeps it from what it would miss; here, --level.",
            offer.guest, check.ledger.to
        );
    }
    text.push('\n');
    text
}
