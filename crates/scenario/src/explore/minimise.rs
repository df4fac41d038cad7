//! From a schedule that leads to a finding to a short one that still does, and from there to a scenario.
//!
//! What is tried, over and over until nothing helps: to leave a turn out, to do without a freedom, to shorten a turn. A try is kept if its
//! run has a finding of the same name and the schedule is smaller: fewer deviations, then fewer turns, then fewer steps.

use super::Subject;
use super::execution::{Finding, Loaded, Then, append};
use super::search::count_deviations;
use crate::load::{Scenario, Variant, policy_name};
use cpu::freedom::Part;
use hypervisor::{Freedom, Turn};
use serde_json::{Value, json};

/// The most runs that are made for it.
const MOST: u64 = 400;

/// A short schedule.
pub(super) struct Short {
    pub turns: Vec<Turn>,
    pub finding: Finding,
    pub runs: u64,
    pub deviations: u32,
}

/// Joins turns of the same virtual CPU.
fn joined(turns: &[Turn]) -> Vec<Turn> {
    let mut joined = Vec::new();
    for turn in turns.iter().filter(|turn| turn.steps > 0) {
        append(&mut joined, turn.clone());
    }
    joined
}

/// What a freedom that is used may be replaced by: none, and where two are used at once, one of them.
fn lesser(freedom: &Freedom) -> Vec<Freedom> {
    let mut lesser = vec![Freedom::default(), Freedom { split: None, ..freedom.clone() }, Freedom { buffer: false, ..freedom.clone() }];
    lesser.dedup();
    lesser.retain(|less| less != freedom);
    lesser
}

/// What is to become small.
fn size(turns: &[Turn]) -> (u32, usize, u64) {
    (count_deviations(turns), turns.len(), turns.iter().map(|turn| turn.steps).sum())
}

pub(super) fn minimise(subject: &Subject<'_>, origin: &mut Loaded, finding: &Finding, turns: Vec<Turn>) -> Short {
    let mut short = Short { turns: joined(&turns), finding: finding.clone(), runs: 0, deviations: 0 };
    loop {
        let before = size(&short.turns);
        let candidates = |turns: &[Turn]| {
            let mut list: Vec<Vec<Turn>> = Vec::new();
            // The plain order may get there by itself from some point on.
            for keep in [turns.len() / 2, turns.len().saturating_sub(1)] {
                list.push(turns[..keep].to_vec());
            }
            for at in (0..turns.len()).rev() {
                let mut without = turns.to_vec();
                without.remove(at);
                list.push(without);
                for freedom in lesser(&turns[at].freedom) {
                    let mut plain = turns.to_vec();
                    plain[at].freedom = freedom;
                    list.push(plain);
                }
            }
            for at in 0..turns.len() {
                for steps in [turns[at].steps / 2, turns[at].steps.saturating_sub(1)] {
                    if steps > 0 && steps < turns[at].steps {
                        let mut shorter = turns.to_vec();
                        shorter[at].steps = steps;
                        list.push(shorter);
                    }
                }
            }
            list
        };
        for candidate in candidates(&short.turns) {
            let candidate = joined(&candidate);
            if size(&candidate) >= size(&short.turns) || short.runs >= MOST {
                continue;
            }
            short.runs += 1;
            let run = origin.fork().run(subject, &candidate, Then::Replay);
            if let Some(found) = run.finding.filter(|found| found.name() == finding.name()) {
                (short.turns, short.finding) = (candidate, found);
                break;
            }
        }
        if size(&short.turns) >= before || short.runs >= MOST {
            short.deviations = count_deviations(&short.turns);
            return short;
        }
    }
}

/// A schedule as scenarios write it.
pub(super) fn schedule(turns: &[Turn]) -> Value {
    let turn = |turn: &Turn| {
        let mut value = json!({ "cpu": turn.vcpu, "steps": turn.steps });
        if let Some(part) = turn.freedom.split {
            value["split"] = if part == Part::Low { "low" } else { "high" }.into();
        }
        if let Some(bytes) = turn.freedom.bytes {
            value["bytes"] = bytes.into();
        }
        if !turn.freedom.stale.is_empty() {
            value["stale"] = turn.freedom.stale.clone().into();
        }
        for (name, used) in [("buffer", turn.freedom.buffer), ("drain", turn.freedom.drain)] {
            if used {
                value[name] = true.into();
            }
        }
        value
    };
    turns.iter().map(turn).collect::<Vec<_>>().into()
}

/// The scenario that replays a finding: the same guest on the one machine, with the schedule.
pub fn document(scenario: &Scenario, variant: &Variant, finding: &Finding, turns: &[Turn]) -> Value {
    let mut value: Value = serde_json::from_str(&scenario.source.text).unwrap_or_default();
    let Some(object) = value.as_object_mut() else { return value };
    object.remove("matrix");
    object.insert("title".to_owned(), format!("{}: a violation", scenario.file.title).into());
    object.insert("teaches".to_owned(), format!("What exploring found on {}: {}.", variant.name(), finding.text()).into());
    let section = |object: &mut serde_json::Map<String, Value>, name: &str, key: &str, text: Value| {
        let section = object.entry(name.to_owned()).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(key.to_owned(), text);
        }
    };
    section(object, "machine", "cpu", variant.cpu.name.into());
    section(object, "hypervisor", "policy", policy_name(variant.policy).into());
    // Without a turn the order would be that of simulated time; the plain one begins so.
    let first = [Turn { vcpu: 0, steps: 1, freedom: Freedom::default() }];
    object.insert("schedule".to_owned(), schedule(if turns.is_empty() { &first } else { turns }));
    if let Finding::Invariant(violation) = finding {
        let name: Value = violation.invariant.name().into();
        object.insert("invariants".to_owned(), json!([name]));
        object.insert("expect".to_owned(), json!({ "violations": [name] }));
        object.remove("cases");
    }
    value
}
