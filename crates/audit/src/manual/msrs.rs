//! Model-specific registers.

use super::{Answer, Unknown, WIDTH, hexadecimal, number};
use crate::spelling::plain;
use crate::text::listed;
use isa::vmx::{CapabilityMsr, ControlBit, ControlWord};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One MSR as the tables have it.
struct Row {
    number: u32,
    name: &'static str,
    description: &'static str,
}

impl Row {
    fn all() -> Vec<Self> {
        let rows = isa::msr::ALL.iter().zip(isa::msr::DESCRIPTIONS);
        rows.map(|(&(number, name), &(_, description))| Self { number, name, description }).collect()
    }

    /// What it holds at power-up, by the name of the CPU model.
    fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        models::MODELS.iter().filter_map(|cpu| Some((cpu.name, cpu.msr(self.number)?)))
    }

    fn describe(&self, out: &mut String) {
        let _ = writeln!(out, "{} ({:#x}): {}", self.name, self.number, self.description);
        for (cpu, value) in self.values() {
            let _ = writeln!(out, "  {cpu:<16} {value:#018x}");
            for (what, controls) in controls_of(self.number, value).into_iter().flatten().filter(|(_, controls)| !controls.is_empty()) {
                let items: Vec<String> = controls.iter().map(|(bit, name)| format!("{bit} {name}")).collect();
                let _ = writeln!(out, "    {what}:");
                for line in listed(&items, WIDTH - 6) {
                    let _ = writeln!(out, "      {line}");
                }
            }
        }
    }

    fn columns(&self) -> Value {
        let values = self.values().map(|(cpu, value)| {
            let controls = controls_of(self.number, value).map(|groups| {
                groups.map(|(_, controls)| controls.into_iter().map(|(bit, name)| json!({ "bit": bit, "name": name })).collect::<Vec<_>>())
            });
            let [must, may] = controls.map_or([None, None], |groups| groups.map(Some));
            json!({ "cpu": cpu, "value": hexadecimal(value), "must_be_one": must, "may_be_either": may })
        });
        json!({
            "number": hexadecimal(self.number.into()),
            "name": self.name,
            "title": self.description,
            "values": values.collect::<Vec<_>>(),
        })
    }
}

/// What a model-specific register is, and what each CPU model has in it at power-up: by its name or number; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn msr(query: Option<&str>) -> Result<Answer, Unknown> {
    let all = Row::all();
    let Some(query) = query else {
        let line = |row: &Row| format!("{:#10x}  {:<30} {}\n", row.number, row.name, row.description);
        return Ok(Answer { text: all.iter().map(line).collect(), rows: all.iter().map(Row::columns).collect() });
    };
    let wanted = plain(query);
    let by_number = number(query);
    let without_prefix = |name: &str| plain(name).trim_start_matches("ia32").to_owned();
    let found = all.iter().filter(|row| match by_number {
        Some(wanted) => wanted == u64::from(row.number),
        None => plain(row.name) == wanted || without_prefix(row.name) == wanted.trim_start_matches("msr").trim_start_matches("ia32"),
    });
    let rows: Vec<&Row> = found.collect();
    if rows.is_empty() {
        return Err(Unknown::new("msr", query, all.iter().map(|row| row.name)));
    }
    let mut text = String::new();
    for row in &rows {
        row.describe(&mut text);
    }
    Ok(Answer { text, rows: rows.into_iter().map(Row::columns).collect() })
}

/// Bits of a control word by number, with their names.
type Controls = Vec<(u8, &'static str)>;

/// The controls that a capability MSR demands and those that it leaves to the hypervisor; of another MSR, nothing.
fn controls_of(number: u32, value: u64) -> Option<[(&'static str, Controls); 2]> {
    let word = match CapabilityMsr::from_number(number)? {
        CapabilityMsr::PinBased | CapabilityMsr::TruePinBased => ControlWord::PinBased,
        CapabilityMsr::Primary | CapabilityMsr::TruePrimary => ControlWord::Primary,
        CapabilityMsr::Secondary => ControlWord::Secondary,
        CapabilityMsr::Exit | CapabilityMsr::TrueExit => ControlWord::Exit,
        CapabilityMsr::Entry | CapabilityMsr::TrueEntry => ControlWord::Entry,
        _ => return None,
    };
    let (must, may) = (value as u32, (value >> 32) as u32);
    let named = |mask: u32| -> Controls {
        let bits = (0..32u8).filter(|bit| mask >> bit & 1 != 0);
        bits.filter_map(|bit| Some((bit, ControlBit { word, bit }.name()?))).collect()
    };
    Some([("must be 1", named(must)), ("may be 0 or 1", named(may & !must))])
}
