//! `trapline checkpoint` and `trapline restore`: a run on disk, and the rest of it.

use crate::arguments::{Checkpoint, Restore};
use crate::exit::Exit;
use crate::output::Output;
use scenario::checkpoint;
use scenario::host::{Totals, Until};
use scenario::load::{Scenario, Variant};
use scenario::run::{After, Interrupt, Interrupted, Options};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

/// Interrupts a run once, and writes it.
struct Once<'a> {
    at: Option<Until>,
    file: &'a Path,
    outcome: Option<Result<(Totals, u64), String>>,
}

impl Interrupt for Once<'_> {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.at.take()
    }

    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        let written = File::create(self.file).map_err(|error| error.to_string()).and_then(|file| {
            run.checkpoint(&mut BufWriter::new(&file)).map_err(|error| error.to_string())?;
            Ok(file.metadata().map_or(0, |metadata| metadata.len()))
        });
        self.outcome = Some(written.map(|bytes| (run.totals(), bytes)));
        After::Leave
    }
}

/// The one machine of a scenario that is meant.
fn only<'s>(scenario: &'s Scenario, text: Option<&str>) -> Result<&'s Variant, String> {
    let mut fitting = scenario.machines(text);
    let names = || scenario.variants.iter().map(Variant::name).collect::<Vec<_>>().join(", ");
    match (fitting.next(), fitting.next()) {
        (Some(variant), None) => Ok(variant),
        (None, _) => Err(format!("no machine of the scenario has a name with that text, but {}", names())),
        (Some(_), Some(_)) => Err(format!("a checkpoint is of one machine; choose one with --only: {}", names())),
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
    let mut once = Once { at: Some(at), file: &arguments.output, outcome: None };
    let report = scenario::run::run_interrupted(&scenario, variant, &options, None, &mut once);
    let (totals, bytes) = match (once.outcome, report) {
        (Some(Ok(written)), _) => written,
        (Some(Err(error)), _) => {
            output.error(format_args!("cannot write {}: {error}", arguments.output.display()));
            return Exit::Invalid;
        }
        (None, Ok(Some(report))) => {
            output.error(format_args!("the run was over before {}, and nothing was written: {}", arguments.at, report.summary_line()));
            return Exit::Failed;
        }
        (None, Ok(None) | Err(_)) => return Exit::Internal,
    };
    if output.json() {
        let document = serde_json::json!({
            "schema_version": 1,
            "file": arguments.output.display().to_string(),
            "machine": variant.name(),
            "bytes": bytes,
            "instructions": totals.instructions.to_string(),
            "cycles": totals.cycles.to_string(),
            "exits": totals.exits,
        });
        output.print(&format!("{document:#}\n"));
    } else if !output.quiet {
        output.print(&format!(
            "{} on {}: {} bytes in {}\nat {} instructions, {} cycles, {} VM exits\n",
            scenario.file.title,
            output.paint("1", &variant.name()),
            bytes,
            arguments.output.display(),
            totals.instructions,
            totals.cycles,
            totals.exits
        ));
    }
    Exit::Success
}

/// Goes on from a checkpoint, and judges the end.
pub fn restore(arguments: &Restore, output: &Output) -> Exit {
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let read = File::open(&arguments.file).map_err(|error| error.to_string()).and_then(|file| {
        let checkpoint = checkpoint::Checkpoint::read(BufReader::new(file)).map_err(|error| error.to_string())?;
        checkpoint::restore(checkpoint, options.compile).map_err(|error| match error {
            checkpoint::RestoreError::Scenario(ref diagnostics) => format!("{error}\n{}", diagnostics.render(output.error_colours)),
            checkpoint::RestoreError::Checkpoint(error) => error.to_string(),
        })
    });
    let restored = match read {
        Ok(restored) => restored,
        Err(error) => {
            output.error(format_args!("cannot go on from {}: {error}", arguments.file.display()));
            return Exit::Invalid;
        }
    };
    let (title, name) = (restored.scenario.file.title.clone(), restored.variant.name());
    let heading = format!("{title} on {}, from {}\n", output.paint("1", &name), arguments.file.display());
    let runs = [(heading, |sink: &mut dyn trace::Sink| scenario::run::run_restored(restored, &options, Some(sink)))];
    crate::run::print_runs(runs, &arguments.file, &title, arguments.trace.as_deref(), output)
}
