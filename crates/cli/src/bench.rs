//! `trapline bench`: what this machine does in a second. The only place where the host's clock is read, and none of it reaches a guest.
//!
//! Each number is the median of several runs, each of a new machine; beside it how far the runs were apart. Whoever changes the simulator
//! keeps the JSON of the state before and compares (`--against`).

mod workloads;

use crate::arguments::Bench;
use crate::exit::Exit;
use crate::output::Output;
use rayon::prelude::*;
use scenario::boot::boot;
use scenario::file::Stop;
use scenario::load::{Files, Scenario};
use scenario::run::Options;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
#[expect(clippy::disallowed_types, reason = "what is measured here is the host")]
use std::time::Instant;
use workloads::{Column, Counted, GROUPS, Workload};

/// Runs of which the median is taken.
const RUNS: usize = 5;
/// A small story, for what a scenario costs.
const STORY: &str = include_str!("bench/scenario.json");
/// How many stories one run tells.
const STORIES: usize = 200;

/// One measured number.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    group: String,
    name: String,
    column: String,
    /// `1/s`, or `s`.
    unit: String,
    /// The median.
    value: f64,
    lowest: f64,
    highest: f64,
}

/// A report for programs.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    schema_version: u32,
    rows: Vec<Row>,
}

/// The median of measurements, with the least and the greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// The host's time that something takes.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_types, reason = "what is measured here is the host")]
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Times everything that is asked for.
pub fn bench(arguments: &Bench, output: &Output) -> Exit {
    match attempt(arguments, output) {
        Ok(exit) => exit,
        Err(message) => {
            output.error(message);
            Exit::Invalid
        }
    }
}

fn attempt(arguments: &Bench, output: &Output) -> Result<Exit, String> {
    let before = arguments.against.as_deref().map(read).transpose()?;
    let mut table = Table { before, rows: Vec::new(), output };
    if arguments.files.is_empty() {
        built_in(arguments, &mut table)?;
    } else {
        for file in &arguments.files {
            let Some(scenario) = crate::run::load(file, output) else { return Ok(Exit::Invalid) };
            measure_scenario(arguments, &scenario, &mut table)?;
        }
    }
    if table.rows.is_empty() {
        return Err(format!("nothing that is measured has a name with `{}`", arguments.only.as_deref().unwrap_or_default()));
    }
    if output.json() {
        let document =
            serde_json::to_string_pretty(&Document { schema_version: 1, rows: table.rows }).map_err(|error| error.to_string())?;
        output.print(&(document + "\n"));
    }
    Ok(Exit::Success)
}

fn read(path: &Path) -> Result<Vec<Row>, String> {
    let text = scenario::load::read_bounded(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| format!("{} is no report of `trapline bench --format json`: {error}", path.display()))?;
    Ok(document.rows)
}

fn built_in(arguments: &Bench, table: &mut Table<'_>) -> Result<(), String> {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for group in GROUPS {
        let rows: Vec<&Workload> = group.workloads.iter().filter(|workload| wanted(workload.name)).collect();
        if !rows.is_empty() {
            table.head(group.title, &group.columns.map(|Column { title, .. }| title));
        }
        for workload in rows {
            let mut cells = Vec::new();
            for (number, column) in group.columns.iter().enumerate() {
                let rate = measure(arguments, workload, number, &group.columns, group.counted)?;
                cells.push(table.row(group.title, workload.name, column.title, "1/s", rate));
            }
            table.line(workload.name, &cells);
        }
    }
    if wanted("scenarios") {
        let threads = rayon::current_num_threads();
        table.head("Scenarios", &[""]);
        let name = format!("runs a second, {threads} threads");
        let rate = spread((0..RUNS).map(|_| stories_a_second()).collect::<Result<_, _>>()?);
        let cell = table.row("Scenarios", &name, "", "1/s", rate);
        table.line(&name, &[cell]);
    }
    if wanted("start") {
        let name = "`trapline run`, start to exit";
        let seconds = spread(start_to_exit()?);
        let cell = table.row("Scenarios", name, "", "s", seconds);
        table.line(name, &[cell]);
    }
    Ok(())
}

/// Turns or instructions a second.
fn measure(
    arguments: &Bench,
    workload: &Workload,
    column: usize,
    columns: &[Column; 2],
    counted: Counted,
) -> Result<(f64, f64, f64), String> {
    let run = |turns: u64| {
        let machine = workload.machine(column, columns, turns, arguments.tiers.compile())?;
        let (report, time) = timed(|| boot(&machine, &mut std::io::sink(), None));
        let report = report?;
        if report.stop != Stop::Halted {
            return Err(format!("{} on {} did not end well: {}", workload.name, machine.cpu.name, report.detail));
        }
        let count = if counted == Counted::Turns { turns } else { report.instructions };
        Ok((count as f64, time.as_secs_f64()))
    };
    // As many turns as fill the time of one run.
    let goal = arguments.seconds / RUNS as f64;
    let mut turns = 1000_u64;
    loop {
        let (_, time) = run(turns)?;
        let factor = goal / time.max(1e-6);
        if factor < 2.0 {
            break;
        }
        turns = (turns as f64 * factor.min(20.0)) as u64;
        if turns > u64::from(u32::MAX) {
            turns = u32::MAX.into();
            break;
        }
    }
    let rates = (0..RUNS).map(|_| run(turns).map(|(count, time)| count / time)).collect::<Result<Vec<_>, String>>()?;
    Ok(spread(rates))
}

/// No other files.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

fn stories_a_second() -> Result<f64, String> {
    let (results, time) = timed(|| {
        (0..STORIES)
            .into_par_iter()
            .map(|_| {
                let scenario = Scenario::parse("scenario.json", STORY.to_owned(), &NoFiles).map_err(|mistakes| mistakes.render(false))?;
                for variant in &scenario.variants {
                    let report = scenario::run::run(&scenario, variant, &Options::default(), None);
                    if !report.passed() {
                        return Err(report.failures.render(false));
                    }
                }
                Ok(scenario.variants.len())
            })
            .collect::<Result<Vec<_>, String>>()
    });
    Ok(results?.into_iter().sum::<usize>() as f64 / time.as_secs_f64())
}

/// A file that goes when it is no longer needed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Seconds of a whole process that runs a small scenario.
fn start_to_exit() -> Result<Vec<f64>, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let file = Temporary(std::env::temp_dir().join(format!("trapline-bench-{}.json", std::process::id())));
    std::fs::write(&file.0, STORY).map_err(|error| format!("cannot write {}: {error}", file.0.display()))?;
    (0..2 * RUNS)
        .map(|_| {
            let mut command = Command::new(&program);
            command.arg("run").arg("--quiet").arg(&file.0).stdout(Stdio::null()).stderr(Stdio::null());
            let (status, time) = timed(|| command.status());
            match status {
                Ok(status) if status.success() => Ok(time.as_secs_f64()),
                Ok(status) => Err(format!("`trapline run` ended with {status}")),
                Err(error) => Err(format!("cannot start {}: {error}", program.display())),
            }
        })
        .collect()
}

/// A user's own scenario on each of its machines.
fn measure_scenario(arguments: &Bench, scenario: &Scenario, table: &mut Table<'_>) -> Result<(), String> {
    let options = Options { compile: arguments.tiers.compile(), ..Options::default() };
    let columns = ["runs a second", "instructions a second", "VM exits a second"];
    let title = &scenario.file.title;
    let variants: Vec<_> = scenario.machines(arguments.only.as_deref()).collect();
    if !variants.is_empty() {
        table.head(title, &columns);
    }
    for variant in variants {
        let once = || timed(|| scenario::run::run(scenario, variant, &options, None));
        let (report, time) = once();
        let batch = (arguments.seconds / RUNS as f64 / time.as_secs_f64().max(1e-6)).clamp(1.0, 1e6) as usize;
        let rates = spread((0..RUNS).map(|_| batch as f64 / timed(|| (0..batch).for_each(|_| drop(once()))).1.as_secs_f64()).collect());
        let times = |count: u64| (rates.0 * count as f64, rates.1 * count as f64, rates.2 * count as f64);
        let name = variant.name();
        let cells = [rates, times(report.instructions), times(report.summary.exits())];
        let cells: Vec<String> =
            cells.into_iter().zip(columns).map(|(rate, column)| table.row(title, &name, column, "1/s", rate)).collect();
        table.line(&name, &cells);
    }
    Ok(())
}

/// The report as it grows.
struct Table<'o> {
    before: Option<Vec<Row>>,
    rows: Vec<Row>,
    output: &'o Output,
}

impl Table<'_> {
    fn human(&self) -> bool {
        !self.output.json()
    }

    fn head(&self, title: &str, columns: &[&str]) {
        if self.human() {
            let gap = if self.output.quiet { "" } else { "\n" };
            let columns: String = columns.iter().map(|column| format!("{column:>22}")).collect();
            self.output.print(&format!("{gap}{}{columns}\n", self.output.paint("1", &format!("{title:34}"))));
        }
    }

    fn line(&self, name: &str, cells: &[String]) {
        if self.human() {
            let cells: String = cells.iter().map(|cell| format!("{cell:>22}")).collect();
            self.output.print(&format!("  {name:32}{cells}\n"));
        }
    }

    /// Keeps a number, and says what stands for it in the table.
    fn row(&mut self, group: &str, name: &str, column: &str, unit: &str, (value, lowest, highest): (f64, f64, f64)) -> String {
        let mut text = amount(value, unit);
        let apart = (highest - lowest) / value / 2.0 * 100.0;
        if apart.is_finite() {
            text += &format!(" ±{apart:>2.0} %");
        }
        let same = |row: &&Row| (&*row.group, &*row.name, &*row.column) == (group, name, column);
        if let Some(row) = self.before.as_ref().and_then(|rows| rows.iter().find(same)) {
            text += &format!(" ×{:.2}", value / row.value);
        }
        let [group, name, column, unit] = [group, name, column, unit].map(str::to_owned);
        self.rows.push(Row { group, name, column, unit, value, lowest, highest });
        text
    }
}

/// A number with three digits.
fn amount(value: f64, unit: &str) -> String {
    let (value, prefix) = match value {
        1e9.. => (value / 1e9, " G"),
        1e6.. => (value / 1e6, " M"),
        1e3.. => (value / 1e3, " k"),
        ..1.0 if value > 0.0 => (value * 1e3, " m"),
        _ => (value, ""),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let unit = if unit == "s" { "s" } else { "" };
    format!("{value:.digits$}{prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::workloads::GROUPS;
    use scenario::boot::boot;
    use scenario::file::{Policy, Stop};
    use scenario::run::Compile;

    /// Every guest does on every machine what its row says: it makes its turns, and each turn the event.
    #[test]
    fn every_workload_makes_its_turns() {
        for group in GROUPS {
            for workload in group.workloads {
                for column in 0..2 {
                    let run = |turns| {
                        let machine = workload.machine(column, &group.columns, turns, Compile::default()).expect("the guest assembles");
                        let report = boot(&machine, &mut std::io::sink(), None).expect("it fits");
                        assert_eq!(report.stop, Stop::Halted, "{} on {}: {}", workload.name, machine.cpu.name, report.detail);
                        report
                    };
                    let (few, many) = (run(10), run(30));
                    assert!(many.instructions >= few.instructions + 20, "{}", workload.name);
                    if workload.policy != Policy::None {
                        assert_eq!(many.summary.exits(), few.summary.exits() + 20, "{}", workload.name);
                    }
                }
            }
        }
    }
}
