//! `trapline run`: one scenario on its machines, trace and verdict.

use crate::arguments::Run;
use crate::exit::Exit;
use crate::output::{Output, Standard};
use scenario::load::{Scenario, Variant};
use scenario::run::{Options, Report};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The scenario of a file; what is wrong with it is told.
pub fn load(file: &Path, output: &Output) -> Option<Scenario> {
    Scenario::load(file).map_err(|diagnostics| output.complain(&diagnostics.render(output.error_colours))).ok()
}

/// The machines whose names contain a text, or all; never none.
///
/// # Errors
/// Says which there are.
pub fn machines<'s>(scenario: &'s Scenario, only: Option<&str>) -> Result<Vec<&'s Variant>, String> {
    let fitting: Vec<&Variant> = scenario.machines(only).collect();
    match (fitting.is_empty(), only) {
        (true, Some(only)) => {
            let names: Vec<String> = scenario.variants.iter().map(Variant::name).collect();
            Err(format!("no machine of the scenario has a name with `{only}`, but {}", names.join(", ")))
        }
        _ => Ok(fitting),
    }
}

/// Runs the scenario.
pub fn run(arguments: &Run, output: &Output) -> Exit {
    let Some(scenario) = load(&arguments.file, output) else { return Exit::Invalid };
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let chosen = match machines(&scenario, arguments.only.as_deref()) {
        Ok(chosen) => chosen,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    let runs = chosen.into_iter().map(|variant| {
        let heading = format!("{} on {}\n", scenario.file.title, output.paint("1", &variant.name()));
        (heading, |sink: &mut dyn trace::Sink| Some(scenario::run::run(&scenario, variant, &options, Some(sink))))
    });
    print_runs(runs, &arguments.file, &scenario.file.title, arguments.trace.as_deref(), output)
}

/// Makes runs, each with its heading, and prints what came of them. One that was left on its way has no report, and nothing is judged: for
/// programs, whoever left it prints.
pub fn print_runs<R: FnOnce(&mut dyn trace::Sink) -> Option<Report>>(
    runs: impl IntoIterator<Item = (String, R)>,
    file: &Path,
    title: &str,
    trace: Option<&Path>,
    output: &Output,
) -> Exit {
    let mut trace = match trace {
        None => None,
        Some(path) => match File::create(path) {
            Ok(file) => Some(BufWriter::new(file)),
            Err(error) => {
                output.error(format_args!("cannot write {}: {error}", path.display()));
                return Exit::Invalid;
            }
        },
    };
    let mut exit = Exit::Success;
    let (mut reports, mut left) = (Vec::new(), false);
    for (heading, run) in runs {
        let human = !output.json() && !output.quiet;
        if human {
            output.print(&heading);
        }
        let mut text = human.then(|| trace::Writer::new(BufWriter::new(Standard), trace::Format::Text));
        let mut ndjson = trace.as_mut().map(|file| trace::Writer::new(file, trace::Format::Ndjson));
        let report = run(&mut trace::Tee(text.as_mut(), ndjson.as_mut()));
        // What goes wrong on the standard output is told at the end of the command.
        let _ = text.map(trace::Writer::finish);
        if let Some(Err(error)) = ndjson.map(|writer| writer.finish().map(|_| ())) {
            output.error(format_args!("cannot write the trace: {error}"));
            return Exit::Invalid;
        }
        let Some(report) = report else {
            left = true;
            continue;
        };
        if human {
            output.print(&verdict(&report, output));
        } else if output.quiet && !report.passed() {
            output.complain(&report.failures.render(output.error_colours));
        }
        if !report.passed() {
            exit = Exit::Failed;
        }
        reports.push(report);
    }
    if output.json() && !left {
        let document = serde_json::json!({
            "schema_version": 1,
            "file": file.display().to_string(),
            "title": title,
            "passed": exit == Exit::Success,
            "runs": reports.iter().map(Report::to_json).collect::<Vec<_>>(),
        });
        output.print(&format!("{document:#}\n"));
    }
    if let Some(Err(error)) = trace.map(|mut file| file.flush()) {
        output.error(format_args!("cannot write the trace: {error}"));
        return Exit::Invalid;
    }
    exit
}

/// What is printed after the trace of one machine.
fn verdict(report: &Report, output: &Output) -> String {
    let mut text = format!("\n{}\n", report.summary_line());
    if output.verbose {
        if report.summary.exits() > 0 {
            text += &format!("\n{}", report.summary.table());
        }
        for (vcpu, registers) in report.registers.iter().enumerate() {
            text += &format!("\ncpu {vcpu}\n{}", registers.text());
        }
    }
    if !report.serial.is_empty() {
        let serial = String::from_utf8_lossy(&report.serial);
        text += &format!("\nserial output:\n{serial}{}", if serial.ends_with('\n') { "" } else { "\n" });
    }
    for it in &report.moves {
        text += &format!("\n{}", it.text());
    }
    text += &refused(report, output.verbose, &|code, text| output.paint(code, text));
    if report.passed() {
        text += &format!("{}: every expectation came true\n\n", output.paint("1;32", "pass"));
    } else {
        text += &format!("{}\n{}\n", output.paint("1;31", "FAIL"), report.failures.render(output.colours));
    }
    text
}

/// Which rules the last entries broke that the machine refused; empty if it refused none. `paint` colours a text by an ANSI code.
pub fn refused(report: &Report, verbose: bool, paint: &dyn Fn(&str, &str) -> String) -> String {
    let most = if verbose { usize::MAX } else { audit::text::SHOWN };
    let mut text = String::new();
    for (vcpu, assessment) in &report.refused {
        let report = audit::text::report(assessment, "", most, paint);
        text += &format!("\nthe last VM entry of CPU {vcpu} was refused\n{report}\n");
    }
    text
}
