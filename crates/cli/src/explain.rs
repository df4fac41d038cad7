//! `trapline explain`: which rules of an entry a VMCS or VMCB breaks, and the tables as a manual at hand.

use crate::arguments::{Explain, Format, Manual};
use crate::exit::Exit;
use crate::input::is_standard;
use crate::output::Output;
use audit::ReadError;
use scenario::diagnostic::{Diagnostic, Diagnostics, Source};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use stream::{Contents, Value, tree};

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
    let (table, found) = match manual {
        Manual::Exit(_) => ("exits", audit::manual::exit(name)),
        Manual::Field(_) => ("fields", audit::manual::field(name)),
        Manual::Check(_) => ("checks", audit::manual::check(name)),
        Manual::Msr(_) => ("msrs", audit::manual::msr(name)),
    };
    match found {
        Ok(answer) if output.json() => {
            output.print(&format!("{:#}\n", serde_json::json!({ "schema_version": 1, table: answer.rows })));
            Exit::Success
        }
        Ok(answer) => {
            output.print(&answer.text);
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
    if !is_standard(file) && is_stream(file) {
        return explain_checkpoint(file, output);
    }
    let (name, text) = match read(file) {
        Ok(read) => read,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    if audit::recognise(&text) == audit::Content::OtherJson && !is_standard(file) {
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

/// Whether a file is a stream; what cannot be read is none.
fn is_stream(file: &Path) -> bool {
    let mut begin = [0; stream::MAGIC.len()];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == stream::MAGIC
}

/// The control structures of a checkpoint as they stand, one for each CPU that has one.
fn control_structures(contents: &Contents) -> Result<Vec<(String, audit::State)>, String> {
    let tree = |name: &str| contents.values.get(name).map(|section| section.tree().map_err(|error| error.to_string())).transpose();
    let made_of = match tree("hypervisor")? {
        Some(value) => Some(value),
        None => tree("machine")?,
    };
    let name = made_of.as_ref().and_then(|value| tree::find(value, "model").ok()).and_then(Value::as_text);
    let model = models::find(name.ok_or("this is no checkpoint of a machine")?).map_err(|error| error.to_string())?;
    let number =
        |value: &Value, path: &str| tree::find(value, path).ok().and_then(Value::as_integer).and_then(|word| u64::try_from(word).ok());
    let mut states = Vec::new();
    for cpu in 0.. {
        let (vmx, svm) = (tree(&format!("cpu/{cpu}/vmx"))?, tree(&format!("cpu/{cpu}/svm"))?);
        let state = match (vmx, svm) {
            (Some(vmx), _) => {
                let Some(address) = number(&vmx, "current_pointer") else { continue };
                let mut state = audit::State::on_machine(model).map_err(|error| error.message)?;
                for (field, value) in tree::find(&vmx, "current.fields").ok().and_then(Value::as_map).into_iter().flatten() {
                    let value = value.as_integer().and_then(|word| u64::try_from(word).ok());
                    if let (Some(field), Some(value)) = (field.as_text(), value) {
                        state.set(field, value, 0..0).map_err(|error| error.message)?;
                    }
                }
                (format!("CPU {cpu}, VMCS at {address:#x}"), state)
            }
            (None, Some(svm)) => {
                let address = number(&svm, "vmcb").filter(|address| *address != 0);
                let Some(address) = address else { continue };
                let zero = [0; stream::PAGE_BYTES];
                let page = contents.pages.get("memory/pages").and_then(|pages| pages.get(&(address / stream::PAGE_BYTES as u64)));
                let state = audit::State::vmcb(page.map_or(&zero, |page| &**page), Some(model), audit::Source::Machine);
                (format!("CPU {cpu}, VMCB at {address:#x}"), state.map_err(|error| error.message)?)
            }
            (None, None) => break,
        };
        states.push(state);
    }
    Ok(states)
}

/// Says which rules the VMCS or VMCB of each CPU in a checkpoint breaks.
fn explain_checkpoint(file: &Path, output: &Output) -> Exit {
    let read = std::fs::File::open(file).map_err(|error| error.to_string()).and_then(|file| {
        let (contents, error) = Contents::read(std::io::BufReader::new(file));
        error.map_or(Ok(contents), |error| Err(error.to_string()))
    });
    let states = match read.and_then(|contents| control_structures(&contents)) {
        Ok(states) => states,
        Err(message) => {
            output.error(format_args!("{}: {message}", file.display()));
            return Exit::Invalid;
        }
    };
    if output.format == Format::Sarif {
        output.error("a checkpoint is no text that SARIF could point into");
        return Exit::Invalid;
    }
    let mut exit = Exit::Success;
    if states.is_empty() && !output.json() && !output.quiet {
        output.print("no CPU has a VMCS or VMCB\n");
    }
    for (name, mut state) in states {
        let assessment = audit::assess(&mut state);
        if !assessment.valid() {
            exit = Exit::Failed;
        }
        if output.json() {
            output.print(&audit::json_lines::lines(&assessment, ""));
        } else if !output.quiet || !assessment.valid() {
            let most = if output.verbose { usize::MAX } else { audit::text::SHOWN };
            let report = audit::text::report(&assessment, "", most, &|code, text| output.paint(code, text));
            output.print(&format!("{}\n{report}\n", output.paint("1", &name)));
        }
    }
    exit
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
            output.print(&format!(
                "{name}: {}\n{}\n",
                report.summary_line(),
                crate::run::refused(&report, output.verbose, &|code, text| output.paint(code, text))
            ));
        }
    }
    exit
}

/// The name to show and the text. A log may hold bytes that are no UTF-8: they are no part of what is looked for.
fn read(file: &Path) -> Result<(String, String), String> {
    let (name, bytes) = if is_standard(file) {
        ("standard input".to_owned(), crate::input::standard(audit::MAX_SIZE as u64))
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
