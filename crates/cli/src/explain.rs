//! `trapline explain`: which rules of an entry a VMCS or VMCB breaks, and the tables as a manual at hand.

use crate::arguments::{Explain, Format, Manual};
use crate::exit::Exit;
use crate::output::Output;
use audit::ReadError;
use scenario::diagnostic::{Diagnostic, Diagnostics, Source};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Explains what the arguments name.
pub fn explain(arguments: &Explain, output: &Output) -> Exit {
    match (&arguments.manual, &arguments.file) {
        (Some(manual), _) => look_up(manual, output),
        (None, Some(file)) => explain_file(file, arguments.cpu.as_deref(), output),
        (None, None) => Exit::Invalid,
    }
}

/// Shows a row of a table, or all of them.
fn look_up(manual: &Manual, output: &Output) -> Exit {
    let (Manual::Exit(row) | Manual::Field(row) | Manual::Check(row) | Manual::Msr(row)) = manual;
    let name = row.name.join(" ");
    let name = (!name.is_empty()).then_some(name.as_str());
    let found = match manual {
        Manual::Exit(_) => audit::manual::exit(name),
        Manual::Field(_) => audit::manual::field(name),
        Manual::Check(_) => audit::manual::check(name),
        Manual::Msr(_) => audit::manual::msr(name),
    };
    match found {
        Ok(text) if output.json() => {
            output.print(&format!("{:#}\n", serde_json::json!({ "schema_version": 1, "text": text })));
            Exit::Success
        }
        Ok(text) => {
            output.print(&text);
            Exit::Success
        }
        Err(unknown) => {
            output.error(unknown);
            Exit::Invalid
        }
    }
}

/// Says which rules a control structure breaks.
fn explain_file(file: &Path, cpu: Option<&str>, output: &Output) -> Exit {
    let (name, text) = match read(file) {
        Ok(read) => read,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    if audit::recognise(&text) == audit::Content::OtherJson && file.as_os_str() != "-" {
        return explain_scenario(file, output);
    }
    let cpu = match cpu.map(models::find).transpose() {
        Ok(cpu) => cpu,
        Err(error) => {
            output.error(error);
            return Exit::Invalid;
        }
    };
    let mut state = match audit::read(&text, cpu) {
        Ok(state) => state,
        Err(error) => {
            output.complain(&complaint(&name, text, error).render(output.error_colours));
            return Exit::Invalid;
        }
    };
    let assessment = audit::assess(&mut state);
    if output.format == Format::Sarif {
        output.print(&format!("{:#}\n", audit::sarif::document(&assessment, &name, &text)));
    } else if output.json() {
        output.print(&audit::json_lines::lines(&assessment, &text));
    } else if !output.quiet || !assessment.valid() {
        let most = if output.verbose { usize::MAX } else { audit::text::SHOWN };
        output.print(&audit::text::report(&assessment, &text, most, &|code, text| output.paint(code, text)));
    }
    if assessment.valid() { Exit::Success } else { Exit::Failed }
}

/// Runs a scenario and says which rules the entries broke that its machines refused last.
fn explain_scenario(file: &Path, output: &Output) -> Exit {
    let scenario = match scenario::load::Scenario::load(file) {
        Ok(scenario) => scenario,
        Err(diagnostics) => {
            output.error("this JSON has neither a member `vmcs` nor `vmcb`; as a scenario, it is not valid either");
            output.complain(&diagnostics.render(output.error_colours));
            return Exit::Invalid;
        }
    };
    if output.format == Format::Sarif {
        output.error("a scenario is no control structure that SARIF could point into");
        return Exit::Invalid;
    }
    let mut exit = Exit::Success;
    for variant in &scenario.variants {
        let report = scenario::run::run(&scenario, variant, &scenario::run::Options::default(), None);
        let name = output.paint("1", &variant.name());
        if !report.refused.is_empty() {
            exit = Exit::Failed;
        }
        if output.json() {
            for (_, assessment) in &report.refused {
                output.print(&audit::json_lines::lines(assessment, ""));
            }
        } else if report.refused.is_empty() {
            output.print(&format!("{name}: no CPU was left with a refused entry; {}\n", report.summary_line()));
        } else {
            output.print(&format!("{name}: {}\n{}\n", report.summary_line(), crate::run::refused(&report, output)));
        }
    }
    exit
}

/// The name to show and the text. A log may hold bytes that are no UTF-8: they are no part of what is looked for.
fn read(file: &Path) -> Result<(String, String), String> {
    let (name, bytes) = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let limit = audit::MAX_SIZE as u64 + 1;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
        ("standard input".to_owned(), read.map(|_| bytes))
    } else {
        (file.display().to_string(), scenario::load::read_bounded(file))
    };
    let bytes = bytes.map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok((name, String::from_utf8_lossy(&bytes).into_owned()))
}

fn complaint(name: &str, text: String, error: ReadError) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    if error.place.is_empty() {
        diagnostics.push(Diagnostic::without_place(format!("{name}: {error}")));
    } else {
        let source = Arc::new(Source { name: name.to_owned(), text });
        diagnostics.push(Diagnostic::new(&source, error.place, error.message));
    }
    diagnostics
}
