//! `trapline boot`: an image on a machine, its serial output to the terminal, its verdict as exit code; and `trapline restore` of such a run.

use crate::arguments::{Boot, Cut, Restore, VendorName};
use crate::checkpoint::{Written, cannot_go_on, write_file};
use crate::exit::Exit;
use crate::output::Output;
use scenario::boot::{BootOptions, Booted, Kind, RestoreOptions};
use scenario::checkpoint::Checkpoint;
use scenario::file::{Mode, Policy, Stop, Vendor};
use scenario::load::read_bounded;
use scenario::run::Report;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use trace::{Format, Sink, Writer};

/// Boots the image.
pub fn boot(arguments: &Boot, output: &Output) -> Exit {
    match attempt(arguments, output) {
        Ok(exit) => exit,
        Err(message) => {
            output.error(message);
            Exit::Invalid
        }
    }
}

fn word<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    // The words, and the message with all of them, are those of scenario files.
    serde_json::from_value(text.into()).map_err(|error| format!("unknown {what}: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path).map(BufWriter::new).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn attempt(arguments: &Boot, output: &Output) -> Result<Exit, String> {
    let policy: Policy = word(&arguments.hypervisor, "hypercall policy")?;
    let mode: Mode = word(&arguments.mode, "mode")?;
    let vendor = arguments.vendor.map(|vendor| match vendor {
        VendorName::Intel => Vendor::Intel,
        VendorName::Amd => Vendor::Amd,
    });
    let cpu = scenario::boot::model(arguments.cpu.as_deref(), vendor)?;
    let mut modules = Vec::new();
    for path in &arguments.modules {
        modules.push((path.display().to_string(), read(path)?));
    }
    let options = BootOptions {
        image: read(&arguments.image)?,
        name: arguments.image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        kind: match arguments.flat {
            Some(base) => Kind::Flat { base, mode },
            None => Kind::Detect,
        },
        command_line: arguments.append.clone(),
        modules,
        cpu,
        policy,
        paging: arguments.paging.as_deref().map(|paging| word(paging, "kind of paging")).transpose()?,
        vcpus: arguments.vcpus,
        memory: arguments.memory,
        deliveries: policy == Policy::None || arguments.deliveries,
        max_instructions: arguments.max_instructions,
        max_cycles: arguments.max_cycles,
        compile: arguments.tiers.compile(),
    };
    let streams = Streams::new(arguments.serial.as_deref(), arguments.trace.as_deref(), output)?;
    let booted = Booted::new(&options, streams.trace.is_some())?;
    run(booted, &arguments.cut, streams, output)
}

/// Where the output of a guest goes, and its events.
struct Streams {
    serial: Box<dyn Write>,
    trace: Option<Writer<Box<dyn Write>>>,
}

impl Streams {
    fn new(serial: Option<&Path>, trace: Option<&Path>, output: &Output) -> Result<Self, String> {
        let serial: Box<dyn Write> = match serial {
            Some(path) => Box::new(create(path)?),
            None if output.json() => Box::new(io::sink()),
            None => Box::new(io::stdout()),
        };
        let trace = match trace {
            None => None,
            Some(path) if path.as_os_str() == "-" => {
                Some(Writer::new(Box::new(BufWriter::new(io::stdout())) as Box<dyn Write>, Format::Text))
            }
            Some(path) => Some(Writer::new(Box::new(create(path)?) as Box<dyn Write>, Format::Ndjson)),
        };
        Ok(Self { serial, trace })
    }
}

/// Goes on from a checkpoint of a booted guest.
pub fn restore(checkpoint: Checkpoint, arguments: &Restore, output: &Output) -> Result<Exit, String> {
    let streams = Streams::new(arguments.serial.as_deref(), arguments.trace.as_deref(), output)?;
    let options = RestoreOptions {
        compile: arguments.tiers.compile(),
        watched: streams.trace.is_some(),
        deliveries: arguments.deliveries,
        max_instructions: arguments.max_instructions,
        max_cycles: arguments.max_cycles,
    };
    let booted = Booted::restore(checkpoint, &options).map_err(|error| cannot_go_on(arguments, error))?;
    run(booted, &arguments.cut, streams, output)
}

/// Runs a guest, to its end or to a checkpoint.
fn run(mut booted: Booted, cut: &Cut, mut streams: Streams, output: &Output) -> Result<Exit, String> {
    let until = cut.at.as_deref().map(|at| booted.moment(at)).transpose()?;
    let mut go_on = |booted: &mut Booted, until| {
        let sink = streams.trace.as_mut().map(|writer| writer as &mut dyn Sink);
        booted.run(until, &mut streams.serial, sink)
    };
    let (mut written, mut report) = (None, go_on(&mut booted, until));
    if let (None, Some(file)) = (&report, &cut.checkpoint) {
        let bytes = write_file(file, |to| booted.checkpoint(to))?;
        let done = Written { file, title: booted.image().to_owned(), machine: booted.machine().to_owned(), bytes, totals: booted.totals() };
        if !output.json() && !output.quiet {
            // The serial output has the standard output for itself.
            output.complain(&done.text(output));
        }
        written = Some(done);
        if !cut.stop {
            report = go_on(&mut booted, None);
        }
    }
    streams.serial.flush().map_err(|error| format!("cannot write the serial output: {error}"))?;
    if let Some(writer) = streams.trace {
        writer.finish().map_err(|error| format!("cannot write the trace: {error}"))?;
    }
    if let Some(report) = &report {
        show(report, written.as_ref(), output);
    } else if let (true, Some(written)) = (output.json(), &written) {
        output.print(&format!("{:#}\n", written.json()));
    }
    if let (Some(at), None) = (&cut.at, &written) {
        output.error(format_args!("the run was over before {at}, and nothing was written"));
        return Ok(report.as_ref().map_or(Exit::Failed, exit_of).max(Exit::Failed));
    }
    Ok(report.as_ref().map_or(Exit::Success, exit_of))
}

fn show(report: &Report, written: Option<&Written<'_>>, output: &Output) {
    if output.json() {
        let mut document = report.to_json();
        if let Some(written) = written {
            document["checkpoint"] = written.json();
        }
        output.print(&format!("{document:#}\n"));
    } else if !output.quiet {
        // The serial output has the standard output for itself.
        output.complain(&format!("{}\n", report.summary_line()));
        if output.verbose {
            if report.summary.exits() > 0 {
                output.complain(&format!("\n{}", report.summary.table()));
            }
            for (vcpu, registers) in report.registers.iter().enumerate() {
                output.complain(&format!("\ncpu {vcpu}\n{}", registers.text()));
            }
        }
    }
}

/// A guest succeeds when it stops itself and says so.
fn exit_of(report: &Report) -> Exit {
    match report.stop {
        Stop::Halted | Stop::Shutdown | Stop::Script => Exit::Success,
        Stop::DebugExit if report.exit_code == Some(0) => Exit::Success,
        Stop::DebugExit | Stop::TripleFault | Stop::Reset | Stop::EntryFailure | Stop::Livelock | Stop::Stranded => Exit::Failed,
        Stop::InstructionLimit | Stop::CycleLimit | Stop::ExitLimit | Stop::Unsupported | Stop::UserspaceExit => Exit::Unfinished,
    }
}
