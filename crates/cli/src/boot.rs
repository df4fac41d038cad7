//! `trapline boot`: an image on a machine, its serial output to the terminal, its verdict as exit code.

use crate::arguments::{Boot, VendorName};
use crate::exit::Exit;
use crate::output::Output;
use scenario::boot::{BootOptions, Kind};
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
    let mut serial: Box<dyn Write> = match &arguments.serial {
        Some(path) => Box::new(create(path)?),
        None if output.json() => Box::new(io::sink()),
        None => Box::new(io::stdout()),
    };
    let mut trace = match &arguments.trace {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Writer::new(Box::new(BufWriter::new(io::stdout())) as Box<dyn Write>, Format::Text)),
        Some(path) => Some(Writer::new(Box::new(create(path)?) as Box<dyn Write>, Format::Ndjson)),
    };
    let report = {
        let sink = trace.as_mut().map(|writer| writer as &mut dyn Sink);
        scenario::boot::boot(&options, &mut serial, sink)?
    };
    serial.flush().map_err(|error| format!("cannot write the serial output: {error}"))?;
    if let Some(writer) = trace {
        writer.finish().map_err(|error| format!("cannot write the trace: {error}"))?;
    }
    show(&report, output);
    Ok(exit_of(&report))
}

fn show(report: &Report, output: &Output) {
    if output.json() {
        output.print(&format!("{:#}\n", report.to_json()));
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
