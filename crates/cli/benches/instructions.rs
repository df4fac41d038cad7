//! Host instructions for one turn of each workload of `trapline bench`, counted by valgrind: numbers that a busy machine does not change.
//!
//! `cargo bench -p trapline` prints them beside those of `instructions.txt`, which are reviewed like a snapshot, and fails where one grew by more
//! than a fiftieth; `UPDATE_BENCHES=1` writes them anew. The start of the program and the building of the machine are taken away: each number
//! is the difference of a long run and a short one, divided by the turns. Hot code is compiled while the guest waits, and what the compiler
//! itself executes is part of both runs, so that almost all of it is taken away too.

#[path = "../src/bench/workloads.rs"]
mod workloads;

use scenario::file::Stop;
use scenario::run::Compile;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use workloads::{Column, Counted, GROUPS, Workload};

/// Turns of the short run: enough for all hot code to be compiled.
const SHORT: u64 = 20_000;
/// Turns of the long run.
const LONG: u64 = 60_000;
/// Entries after which code is compiled.
const HOT: u32 = 1000;
/// The growth that is let pass, in percent.
const TOLERANCE: f64 = 2.0;

fn workload(name: &str, column: &str) -> Option<(&'static Workload, usize, &'static [Column; 2])> {
    GROUPS.iter().find_map(|group| {
        let workload = group.workloads.iter().find(|workload| workload.name == name)?;
        let number = group.columns.iter().position(|other| other.title == column)?;
        Some((workload, number, &group.columns))
    })
}

/// What valgrind watches.
fn run(name: &str, column: &str, turns: u64) -> Result<(), String> {
    let (workload, column, columns) = workload(name, column).ok_or_else(|| format!("there is no {name} on {column}"))?;
    let machine = workload.machine(column, columns, turns, Compile::After(HOT))?;
    let report = scenario::boot::boot(&machine, &mut std::io::sink(), None)?;
    if report.stop == Stop::Halted { Ok(()) } else { Err(report.detail) }
}

/// Host instructions of a run.
fn count(name: &str, column: &str, turns: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--one", name, column, &turns.to_string()])
        .output()
        .map_err(|error| format!("cannot start valgrind (on Debian: apt install valgrind): {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, number)| number.trim().parse().ok()).ok_or_else(|| format!("{name} on {column} did not end well:\n{text}"))
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn measure() -> Result<bool, String> {
    let before = std::fs::read_to_string(file()).unwrap_or_default();
    let mut now = String::new();
    let mut well = true;
    for group in GROUPS {
        let per = if group.counted == Counted::Turns { "a turn is one event" } else { "a turn is some instructions" };
        println!("{} ({per})", group.title);
        for workload in group.workloads {
            for Column { title, .. } in &group.columns {
                let name = format!("{} ({title})", workload.name);
                let turn = (count(workload.name, title, LONG)? - count(workload.name, title, SHORT)?) as f64 / (LONG - SHORT) as f64;
                let line = format!("{name:48}{turn:>10.1}\n");
                let old = before.lines().find_map(|line| line.strip_prefix(&format!("{name:48}"))?.trim().parse::<f64>().ok());
                let change = old.map_or(f64::NAN, |old| (turn / old - 1.0) * 100.0);
                well &= change.is_nan() || change <= TOLERANCE;
                println!("  {}{}", line.trim_end(), if change.is_nan() { String::new() } else { format!("{change:+8.1} %") });
                let _ = write!(now, "{line}");
            }
        }
    }
    if std::env::var_os("UPDATE_BENCHES").is_some() {
        std::fs::write(file(), now).map_err(|error| error.to_string())?;
        return Ok(true);
    }
    Ok(well)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--one", name, column, turns] => {
            turns.parse().map_err(|_| "a number of turns".to_owned()).and_then(|turns| run(name, column, turns).map(|()| true))
        }
        // `cargo test --benches` builds it and looks whether it starts.
        _ if !arguments.contains(&"--bench") => Ok(true),
        _ => measure(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("some grew by more than {TOLERANCE} %; where that is meant, UPDATE_BENCHES=1 writes them anew");
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
