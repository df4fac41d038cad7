//! `trapline boot`: an image on a machine, its serial output to the terminal, its verdict as exit code; and `trapline restore` of such a run.

use crate::arguments::{Boot, Cut, Restore, VendorName};
use crate::checkpoint::{Written, cannot_go_on, write_file};
use crate::exit::Exit;
use crate::input::is_standard;
use crate::output::Output;
use crate::run::refused;
use crate::streams::Streams;
use scenario::boot::{BootOptions, Booted, Kind, RestoreOptions};
use scenario::checkpoint::Checkpoint;
use scenario::file::{Policy, Stop, Vendor};
use scenario::load::read_bounded;
use scenario::run::Report;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use trace::Sink;

/// The most bytes that are taken from the standard input for a guest.
const MAX_TYPED: u64 = 16 << 20;

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

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn attempt(arguments: &Boot, output: &Output) -> Result<Exit, String> {
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
            Some(base) => Kind::Flat { base, mode: arguments.mode },
            None => Kind::Detect,
        },
        command_line: arguments.append.clone(),
        modules,
        cpu,
        policy: arguments.hypervisor,
        paging: arguments.paging,
        vcpus: arguments.vcpus,
        memory: arguments.memory,
        deliveries: arguments.hypervisor == Policy::None || arguments.deliveries,
        max_instructions: arguments.max_instructions,
        max_cycles: arguments.max_cycles,
        compile: arguments.tiers.compile(),
    };
    let input = arguments.serial_input.as_deref().map(typed).transpose()?;
    // Files are made when it is certain that there is something to write.
    let mut booted = Booted::new(&options, arguments.trace.is_some())?;
    let alone = arguments.cut.checkpoint.is_some();
    let streams = Streams::new(arguments.serial.as_deref(), arguments.trace.as_deref(), alone, output)?;
    if let Some(input) = input {
        booted.serial_input(&input);
    }
    run(booted, &arguments.cut, streams, output)
}

/// What somebody typed for the guest before it starts.
fn typed(path: &Path) -> Result<Vec<u8>, String> {
    if !is_standard(path) {
        return read(path);
    }
    crate::input::standard(MAX_TYPED).map_err(|error| format!("cannot read the standard input: {error}"))
}

/// Goes on from a checkpoint of a booted guest.
pub fn restore(checkpoint: Checkpoint, arguments: &Restore, output: &Output) -> Result<Exit, String> {
    let options = RestoreOptions {
        compile: arguments.tiers.compile(),
        watched: arguments.trace.is_some(),
        deliveries: arguments.deliveries,
        max_instructions: arguments.max_instructions,
        max_cycles: arguments.max_cycles,
    };
    let booted = Booted::restore(checkpoint, &options).map_err(|error| cannot_go_on(arguments, error))?;
    let alone = arguments.cut.checkpoint.is_some();
    let streams = Streams::new(arguments.serial.as_deref(), arguments.trace.as_deref(), alone, output)?;
    run(booted, &arguments.cut, streams, output)
}

/// Runs a guest, to its end or to a checkpoint.
fn run(booted: Booted, cut: &Cut, streams: Streams, output: &Output) -> Result<Exit, String> {
    match go_on(booted, cut, streams, output) {
        Ok(exit) => Ok(exit),
        // Nobody reads on (`| head`): there is nobody to go on for, and nobody to tell.
        Err(Failure::Stream(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Unfinished),
        // What goes wrong on the standard output is told at the end of the command.
        Err(Failure::Stream(_)) if crate::output::failure().is_some() => Ok(Exit::Invalid),
        Err(Failure::Stream(error)) => Err(error.to_string()),
        Err(Failure::Other(message)) => Err(message),
    }
}

/// Why a run ends before its end.
enum Failure {
    /// A stream could not be written.
    Stream(io::Error),
    /// Something else, in words.
    Other(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

fn go_on(mut booted: Booted, cut: &Cut, mut streams: Streams, output: &Output) -> Result<Exit, Failure> {
    let until = cut.at.as_deref().map(|at| booted.moment(at)).transpose()?;
    if streams.together {
        booted.hand_on_finely();
    }
    let mut part = |booted: &mut Booted, until| {
        let sink = streams.trace.as_mut().map(|writer| writer as &mut dyn Sink);
        booted.run(until, &mut streams.serial, sink)
    };
    let (mut written, mut report) = (None, part(&mut booted, until)?);
    if let (None, Some(file)) = (&report, &cut.checkpoint) {
        let bytes = write_file(file, |to| booted.checkpoint(to))?;
        let done = Written { file, title: booted.image().to_owned(), machine: booted.machine().to_owned(), bytes, totals: booted.totals() };
        if !output.json() && !output.quiet {
            // The serial output has the standard output for itself.
            output.complain(&done.text(output));
        }
        written = Some(done);
        if !cut.stop {
            report = part(&mut booted, None)?;
        }
    }
    let traced = streams.trace.is_some();
    if let Some(writer) = streams.trace {
        writer.finish()?;
    }
    streams.serial.flush()?;
    if let Some(report) = &report {
        show(report, traced, written.as_ref(), output);
    } else if let (true, Some(written)) = (output.json(), &written) {
        output.print(&format!("{:#}\n", written.json()));
    }
    if let (Some(at), None) = (&cut.at, &written) {
        output.error(format_args!("the run was over before {at}, and nothing was written"));
        return Ok(report.as_ref().map_or(Exit::Failed, exit_of).max(Exit::Failed));
    }
    Ok(report.as_ref().map_or(Exit::Success, exit_of))
}

/// How to find out more about an end.
fn hint(stop: Stop) -> Option<&'static str> {
    match stop {
        Stop::TripleFault => {
            Some("--trace - shows the exceptions that led to it (under a hypervisor with --deliveries), --verbose the registers")
        }
        Stop::Livelock | Stop::UserspaceExit => Some("--trace - shows the exits that led to it, --verbose the registers"),
        Stop::InstructionLimit => Some("--max-instructions sets the limit, --verbose shows where the guest was"),
        Stop::CycleLimit => Some("--max-cycles sets the limit, --verbose shows where the guest was"),
        _ => None,
    }
}

fn show(report: &Report, traced: bool, written: Option<&Written<'_>>, output: &Output) {
    if output.json() {
        let mut document = report.to_json();
        document["schema_version"] = 1.into();
        if let Some(written) = written {
            document["checkpoint"] = written.json();
        }
        output.print(&format!("{document:#}\n"));
    } else if !output.quiet {
        // The serial output has the standard output for itself.
        output.complain(&format!("{}\n", report.summary_line()));
        // A guest that says that all is well may have had entries refused on purpose.
        let content = matches!(report.stop, Stop::DebugExit | Stop::Shutdown) && exit_of(report) == Exit::Success;
        if output.verbose || !content {
            output.complain(&refused(report, output.verbose, &|code, text| output.paint_error(code, text)));
        }
        if let (Some(hint), false) = (hint(report.stop), traced) {
            output.complain(&format!("hint: {hint}\n"));
        }
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
