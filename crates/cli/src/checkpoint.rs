//! `trapline checkpoint` and `trapline restore`: a run on disk, and the rest of it.

use crate::arguments::{Checkpoint, Restore};
use crate::exit::Exit;
use crate::input::is_standard;
use crate::output::Output;
use scenario::boot::Booted;
use scenario::checkpoint;
use scenario::host::{Totals, Until};
use scenario::load::{Scenario, Variant};
use scenario::run::{After, Interrupt, Interrupted, Options};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

/// A checkpoint that was written, and the moment of it.
pub struct Written<'a> {
    /// The file.
    pub file: &'a Path,
    /// What runs.
    pub title: String,
    /// Its machine.
    pub machine: String,
    /// The size of the file.
    pub bytes: u64,
    /// How far the run was.
    pub totals: Totals,
}

impl Written<'_> {
    /// For people.
    pub fn text(&self, output: &Output) -> String {
        let Totals { instructions, cycles, exits, .. } = self.totals;
        format!(
            "{} on {}: {} bytes in {}\nat {instructions} instructions, {cycles} cycles, {exits} VM exits\n",
            self.title,
            output.paint("1", &self.machine),
            self.bytes,
            self.file.display(),
        )
    }

    /// For programs; numbers that can exceed 2^53 are strings.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema_version": 1,
            "file": self.file.display().to_string(),
            "machine": self.machine,
            "bytes": self.bytes,
            "instructions": self.totals.instructions.to_string(),
            "cycles": self.totals.cycles.to_string(),
            "exits": self.totals.exits,
        })
    }
}

/// Writes a checkpoint to a file. Its size in bytes. An earlier file of this name is replaced by a whole one, or left as it was.
///
/// # Errors
/// Says why it cannot be written.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), checkpoint::Error>) -> Result<u64, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    // Of a link what it leads to is replaced; what is no file (a pipe, a device) can only be written.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let part = match place.metadata() {
        Ok(metadata) if !metadata.is_file() => None,
        _ => place.file_name().map(|name| {
            let mut name = name.to_owned();
            name.push(".part");
            place.with_file_name(name)
        }),
    };
    let file = File::create(part.as_ref().unwrap_or(&place)).map_err(|error| cannot(&error))?;
    let mut buffered = BufWriter::new(&file);
    let written = write(&mut buffered).map_err(|error| cannot(&error)).and_then(|()| buffered.flush().map_err(|error| cannot(&error)));
    drop(buffered);
    let settled = match (&part, written) {
        (Some(part), Ok(())) => std::fs::rename(part, &place).map_err(|error| cannot(&error)),
        (_, written) => written,
    };
    if let (Some(part), Err(_)) = (&part, &settled) {
        let _ = std::fs::remove_file(part);
    }
    settled.map(|()| file.metadata().map_or(0, |metadata| metadata.len()))
}

/// Interrupts a run once, and writes it.
struct Once<'a> {
    at: Option<Until>,
    file: &'a Path,
    /// Whether the run goes on behind that.
    goes_on: bool,
    outcome: Option<Result<(Totals, u64), String>>,
}

impl Interrupt for Once<'_> {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.at.take()
    }

    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        let written = write_file(self.file, |to| run.checkpoint(to));
        self.outcome = Some(written.map(|bytes| (run.totals(), bytes)));
        if self.goes_on && matches!(self.outcome, Some(Ok(_))) { After::GoOn } else { After::Leave }
    }
}

/// The one machine of a scenario that is meant.
fn only<'s>(scenario: &'s Scenario, text: Option<&str>) -> Result<&'s Variant, String> {
    let fitting = crate::run::machines(scenario, text)?;
    match fitting[..] {
        [variant] => Ok(variant),
        _ => {
            let names: Vec<String> = fitting.iter().map(|variant| variant.name()).collect();
            Err(format!("a checkpoint is of one machine; choose one with --only: {}", names.join(", ")))
        }
    }
}

/// Runs up to a moment and writes the run.
pub fn checkpoint(arguments: &Checkpoint, output: &Output) -> Exit {
    let Some(scenario) = crate::run::load(&arguments.file, output) else { return Exit::Invalid };
    let chosen = only(&scenario, arguments.only.as_deref());
    let (variant, at) = match chosen.and_then(|variant| Ok((variant, checkpoint::moment(&arguments.at, variant)?))) {
        Ok(chosen) => chosen,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let mut once = Once { at: Some(at), file: &arguments.output, goes_on: false, outcome: None };
    let report = scenario::run::run_interrupted(&scenario, variant, &options, None, &mut once);
    match (once.outcome, report) {
        (Some(Ok((totals, bytes))), _) => {
            let title = scenario.file.title.clone();
            let written = Written { file: &arguments.output, title, machine: variant.name(), bytes, totals };
            if output.json() {
                output.print(&format!("{:#}\n", written.json()));
            } else if !output.quiet {
                output.print(&written.text(output));
            }
            Exit::Success
        }
        (Some(Err(error)), _) => {
            output.error(error);
            Exit::Invalid
        }
        (None, Ok(Some(report))) => {
            output.error(format_args!("the run was over before {}, and nothing was written: {}", arguments.at, report.summary_line()));
            Exit::Failed
        }
        (None, Ok(None) | Err(_)) => Exit::Internal,
    }
}

/// What is said of a file that is no run to go on from.
pub fn cannot_go_on(arguments: &Restore, error: impl std::fmt::Display) -> String {
    format!("cannot go on from {}: {error}", arguments.file.display())
}

/// Goes on from a checkpoint, and judges the end.
pub fn restore(arguments: &Restore, output: &Output) -> Exit {
    let read = File::open(&arguments.file).map_err(|error| error.to_string());
    let read = read.and_then(|file| checkpoint::Checkpoint::read(BufReader::new(file)).map_err(|error| error.to_string()));
    let restored = read.map_err(|error| cannot_go_on(arguments, error)).and_then(|checkpoint| {
        if Booted::is_in(&checkpoint) {
            crate::boot::restore(checkpoint, arguments, output)
        } else {
            restore_scenario(checkpoint, arguments, output)
        }
    });
    restored.unwrap_or_else(|error| {
        output.error(error);
        Exit::Invalid
    })
}

fn restore_scenario(checkpoint: checkpoint::Checkpoint, arguments: &Restore, output: &Output) -> Result<Exit, String> {
    let for_guests = [
        ("--serial", arguments.serial.is_some()),
        ("--deliveries", arguments.deliveries),
        ("--max-instructions", arguments.max_instructions.is_some()),
        ("--max-cycles", arguments.max_cycles.is_some()),
    ];
    if let Some((option, _)) = for_guests.iter().find(|(_, given)| *given) {
        return Err(format!("{option} is for guests of `trapline boot`, and {} is a scenario's run", arguments.file.display()));
    }
    if arguments.trace.as_deref().is_some_and(is_standard) {
        return Err("--trace: the standard output has the trace of a scenario as text; name a file for NDJSON".to_owned());
    }
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let restored = checkpoint::restore(checkpoint, options.compile).map_err(|error| match error {
        checkpoint::RestoreError::Scenario(ref diagnostics) => {
            cannot_go_on(arguments, format_args!("{error}\n{}", diagnostics.render(output.error_colours)))
        }
        checkpoint::RestoreError::Checkpoint(error) => cannot_go_on(arguments, error),
    })?;
    let at = arguments.cut.at.as_deref().map(|at| checkpoint::moment(at, &restored.variant)).transpose()?;
    let file = arguments.cut.checkpoint.clone().unwrap_or_default();
    let mut once = Once { at, file: &file, goes_on: !arguments.cut.stop, outcome: None };
    let (title, name) = (restored.scenario.file.title.clone(), restored.variant.name());
    let heading = format!("{title} on {}, from {}\n", output.paint("1", &name), arguments.file.display());
    let interrupt = &mut once;
    let runs = [(heading, move |sink: &mut dyn trace::Sink| {
        scenario::run::run_restored_interrupted(restored, &options, Some(sink), interrupt).ok().flatten()
    })];
    let exit = crate::run::print_runs(runs, &arguments.file, &title, arguments.trace.as_deref(), output);
    match (once.outcome, &arguments.cut.at) {
        (Some(Err(error)), _) => Err(error),
        (Some(Ok((totals, bytes))), _) => {
            let written = Written { file: &file, title, machine: name, bytes, totals };
            if output.json() && arguments.cut.stop {
                // Nothing was judged; programs get what `trapline checkpoint` prints.
                output.print(&format!("{:#}\n", written.json()));
            } else if !output.json() && !output.quiet {
                output.complain(&written.text(output));
            }
            Ok(exit)
        }
        (None, Some(at)) => {
            output.error(format_args!("the run was over before {at}, and nothing was written"));
            Ok(exit.max(Exit::Failed))
        }
        (None, None) => Ok(exit),
    }
}
