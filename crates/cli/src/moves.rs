//! `trapline test --move`: whether guests survive a move to another CPU model anywhere, and over links on which something goes wrong.

use crate::arguments::Test;
use crate::exit::Exit;
use crate::output::Output;
use crate::test::{Invalid, for_each_file};
use models::{CpuModel, Vendor};
use scenario::load::Scenario;
use scenario::movement::{Effort, Outcome, Verdict, survives};
use scenario::run::Options;
use serde_json::json;

/// A machine of a scenario and what came of it.
type Item = (String, Verdict);

/// Asks every guest.
pub fn moves(arguments: &Test, to: &str, output: &Output) -> Exit {
    let options = Options { events: 0, compile: arguments.tiers.compile() };
    let effort = Effort { exits: arguments.moves, instructions: arguments.moves, faults: arguments.faults, seed: 1 };
    let results = for_each_file(arguments, output, |trees, file| -> Result<Vec<Item>, Invalid> {
        let scenario = Scenario::load(file).map_err(|diagnostics| Invalid { file: file.to_owned(), diagnostics })?;
        let story = trees.name(file);
        let named = scenario.variants.iter().map(|variant| (format!("{story} on {}", variant.name()), variant));
        Ok(named
            .filter(|(name, _)| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str())))
            .map(|(name, variant)| (name, survives(&scenario, variant, model(to, variant.cpu), effort, &options)))
            .collect())
    });
    match results {
        Ok(results) => report(arguments, output, &results),
        Err(exit) => exit,
    }
}

/// The model that a name means for a guest at home on another.
fn model(name: &str, home: &CpuModel) -> &'static CpuModel {
    let other = match home.vendor {
        Vendor::Intel => Vendor::Amd,
        Vendor::Amd => Vendor::Intel,
    };
    models::find(name).unwrap_or_else(|_| models::default_for(other))
}

fn report(arguments: &Test, output: &Output, results: &[Result<Vec<Item>, Invalid>]) -> Exit {
    let (mut survived, mut failed, mut other, mut invalid, mut moves) = (0_usize, 0_usize, 0_usize, 0_usize, 0_u64);
    for result in results {
        let items = match result {
            Ok(items) => items,
            Err(it) => {
                invalid += 1;
                it.print(output);
                continue;
            }
        };
        for (name, verdict) in items {
            moves += verdict.moves + verdict.live.len() as u64;
            let (word, colour, lines) = match &verdict.outcome {
                Outcome::Survives => ("survives", "32", Vec::new()),
                Outcome::NotComparable(why) => ("not comparable", "33", vec![why.to_string()]),
                Outcome::Differs(findings) => {
                    let line =
                        |finding: &scenario::movement::Finding| format!("moved {}: {}", finding.journey, finding.differences.join("; "));
                    ("DIFFERS", "1;31", findings.iter().map(line).collect())
                }
            };
            match verdict.outcome {
                Outcome::Survives => survived += 1,
                Outcome::NotComparable(_) => other += 1,
                Outcome::Differs(_) => failed += 1,
            }
            if output.json() {
                let document = json!({
                    "schema_version": 1, "name": name, "outcome": word.to_lowercase(), "journeys": verdict.journeys, "moves": verdict.moves, "live_moves": verdict.live.len(),
                    "findings": lines,
                });
                output.print(&format!("{document}\n"));
            } else if failed > 0 && word == "DIFFERS" || output.verbose {
                let moved = if verdict.moves > 0 { format!(" ({} moves)", verdict.moves) } else { String::new() };
                output.print(&format!("{} {name}{moved}\n", output.paint(colour, word)));
                for line in lines.iter().take(8) {
                    output.print(&format!("  {line}\n"));
                }
            }
        }
    }
    if invalid + failed + survived + other == 0 {
        output.error(format_args!("no scenario or machine has a name with `{}`", arguments.only.as_deref().unwrap_or_default()));
        return Exit::Invalid;
    }
    if !output.json() {
        let good = failed + invalid == 0;
        let word = if good { output.paint("1;32", "pass") } else { output.paint("1;31", "FAIL") };
        output.print(&format!("{word}: {survived} survive {moves} moves, {failed} differ, {other} not comparable\n"));
    }
    match (invalid, failed) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::Failed,
        _ => Exit::Invalid,
    }
}
