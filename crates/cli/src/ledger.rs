//! `trapline ledger`: what a move between two CPU models would cost a guest.

use crate::arguments::Ledger;
use crate::exit::Exit;
use crate::output::Output;
use models::CpuModel;
use scenario::ledger::{Cell, Entry, GuestCpu, Levelling, Table, Verdict};
use std::fmt::Write as _;

/// Prints the table.
pub fn ledger(arguments: &Ledger, output: &Output) -> Exit {
    let table = match read(arguments) {
        Ok(table) => table,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    if output.json() {
        match serde_json::to_value(&table) {
            Ok(mut document) => {
                if let Some(members) = document.as_object_mut() {
                    members.insert("schema_version".into(), 1.into());
                }
                output.print(&format!("{document:#}\n"));
            }
            Err(error) => {
                output.error(error);
                return Exit::Internal;
            }
        }
    } else {
        output.print(&text(&table, output));
    }
    Exit::Success
}

fn read(arguments: &Ledger) -> Result<Table, String> {
    let find = |name: &str| models::find(name).map_err(|error| error.to_string());
    let (from, to) = (find(&arguments.from)?, find(&arguments.to)?);
    let model: &'static CpuModel = match &arguments.guest_cpu {
        Some(name) => find(name)?,
        None => from,
    };
    let mut levelling = Levelling::NONE;
    for name in &arguments.common {
        levelling = levelling.common(find(name)?);
    }
    for name in &arguments.without {
        levelling = levelling.without(scenario::ledger::feature(name)?);
    }
    if let Some(name) = &arguments.vendor {
        let signature = name.as_bytes().try_into().map_err(|_| format!("`{name}` has not the twelve characters of a vendor's name"))?;
        levelling.signature = Some(signature);
    }
    Ok(scenario::ledger::table(&GuestCpu { model, levelling }, from, to))
}

fn text(table: &Table, output: &Output) -> String {
    let mut text = format!(
        "From {} to {}, of a guest that was told of {} by the name of {}\n",
        table.from, table.to, table.guest_cpu, table.guest_vendor
    );
    if let Some(why) = &table.unfit {
        let _ = writeln!(text, "{}: {why}", output.paint("1;31", "impossible"));
    }
    let width = table.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let from = table.rows.iter().map(|row| cell(&row.from).len()).max().unwrap_or(0);
    let _ = writeln!(text, "\n{:width$}  {:from$}  {}", "state", table.from, table.to);
    for row in &table.rows {
        let _ = writeln!(text, "{:width$}  {:from$}  {}", row.name, cell(&row.from), cell(&row.to));
    }
    let _ = writeln!(text, "\nWhat is not exact on {}, where it applies:", table.to);
    for row in &table.rows {
        if let Some(reason) = row.to.reason {
            let _ = writeln!(text, "  {} {}: {reason}", row.name, row.to.carry);
        }
    }
    for (model, features) in [(table.from, &table.only_from), (table.to, &table.only_to)] {
        let _ = writeln!(text, "\nOnly {model} has: {}", if features.is_empty() { "nothing".to_owned() } else { features.join(", ") });
    }
    let _ = writeln!(text, "\nWhat this guest may find:");
    text += &entries(&table.possible, "no difference", output);
    text += &levelling(&table.levelling);
    text
}

/// Lines of a ledger, or the word for none.
pub fn entries(entries: &[Entry], none: &str, output: &Output) -> String {
    if entries.is_empty() {
        return format!("  {none}\n");
    }
    let mut text = String::new();
    for entry in entries {
        let colour = match entry.verdict {
            Verdict::Emulated => "32",
            Verdict::Narrowed => "33",
            Verdict::Lost => "31",
        };
        let _ = writeln!(text, "  {}", entry.to_string().replacen(entry.verdict.word(), &output.paint(colour, entry.verdict.word()), 1));
    }
    text
}

/// How a scenario keeps its guest from features that it would miss; empty where there are none.
fn levelling(features: &[String]) -> String {
    if features.is_empty() {
        return String::new();
    }
    let names: Vec<String> = features.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "\nIn a scenario, \"hypervisor\": {{ \"levelling\": {{ \"remove\": [{}] }} }} keeps it from what it would miss.\n",
        names.join(", ")
    )
}

fn cell(cell: &Cell) -> String {
    match cell.keeper {
        Some(keeper) => format!("{}, {}", cell.carry, keeper.word()),
        None => cell.carry.to_owned(),
    }
}
