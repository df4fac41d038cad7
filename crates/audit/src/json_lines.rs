//! An assessment as NDJSON: one object a finding, one an undecided rule, and a summary at the end.
//!
//! Modelled: everything the text tells, numbers as hexadecimal strings because JSON's are not exact beyond 2^53. Not modelled: nothing else.

use crate::assess::{Assessment, Finding, Reading};
use crate::position;
use crate::rule::Outcome;
use crate::text;
use serde_json::{Value, json};

/// Version of the objects' form.
const SCHEMA_VERSION: u32 = 1;

/// The lines. `source` is what was read, for line numbers.
pub fn lines(assessment: &Assessment, source: &str) -> String {
    let mut lines = Vec::new();
    for (index, finding) in assessment.broken.iter().enumerate() {
        lines.push(object(finding, index == 0, false, source));
    }
    lines.extend(assessment.elsewhere.iter().map(|finding| object(finding, false, true, source)));
    for undecided in &assessment.undecided {
        lines.push(json!({
            "schema_version": SCHEMA_VERSION,
            "type": "undecided",
            "id": undecided.rule.id,
            "manual": undecided.rule.manual,
            "section": undecided.rule.section,
            "rule": undecided.rule.rule,
            "missing": undecided.missing,
        }));
    }
    let assumed: Vec<Value> =
        assessment.assumed.iter().map(|assumed| json!({ "name": assumed.name, "value": hexadecimal(assumed.value) })).collect();
    lines.push(json!({
        "schema_version": SCHEMA_VERSION,
        "type": "summary",
        "structure": text::structure(assessment.vendor),
        "cpu": assessment.cpu.name,
        "valid": assessment.valid(),
        "outcome": assessment.broken.first().map(|first| outcome(first.rule.outcome)),
        "first": assessment.broken.first().map(|first| first.rule.id),
        "recorded": assessment.recorded.map(outcome),
        "rules": assessment.rules,
        "broken": assessment.broken.len(),
        "broken_elsewhere": assessment.elsewhere.len(),
        "held": assessment.held,
        "undecided": assessment.undecided.len(),
        "assumed": assumed,
        "remarks": assessment.remarks,
    }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn hexadecimal(value: u64) -> String {
    format!("{value:#x}")
}

pub(crate) fn outcome(outcome: Outcome) -> Value {
    let words = text::outcome(outcome);
    match outcome {
        Outcome::VmFailValid { instruction, error, .. } => {
            json!({ "text": words, "instruction": instruction, "vm_instruction_error": error })
        }
        Outcome::EntryFailure { qualification } => json!({ "text": words, "exit_reason": "0x80000021", "qualification": qualification }),
        Outcome::MsrLoading => json!({ "text": words, "exit_reason": "0x80000022" }),
        Outcome::VmexitInvalid => json!({ "text": words, "exit_code": "0xffffffffffffffff" }),
    }
}

fn object(finding: &Finding, first: bool, elsewhere: bool, source: &str) -> Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "type": "broken",
        "first": first,
        "elsewhere": elsewhere,
        "id": finding.rule.id,
        "manual": finding.rule.manual,
        "section": finding.rule.section,
        "rule": finding.rule.rule,
        "hint": finding.rule.hint,
        "outcome": outcome(finding.rule.outcome),
        "change_together": finding.together,
        "reads": finding.reads.iter().map(|reading| word(reading, source)).collect::<Vec<_>>(),
    })
}

fn word(reading: &Reading, source: &str) -> Value {
    let mut value = json!({
        "name": reading.name,
        "title": reading.title,
        "value": hexadecimal(reading.value),
        "known": reading.known,
    });
    if let Some(place) = &reading.place {
        let (line, column) = position(source, place);
        value["line"] = line.into();
        value["column"] = column.into();
    }
    if let Some(mark) = &reading.mark {
        let named: Vec<Value> = text::runs(mark.bits, &reading.names)
            .into_iter()
            .map(|(high, low)| json!({ "high": high, "low": low, "name": reading.names.of(low).map(|name| name.name.as_str()) }))
            .collect();
        value["wrong"] = json!({ "mask": hexadecimal(mark.bits), "bits": named, "nearest_legal": hexadecimal(mark.nearest) });
        if let Some(settings) = mark.settings {
            value["wrong"]["must_be_one"] = hexadecimal(settings.must).into();
            value["wrong"]["may_be_one"] = hexadecimal(settings.may).into();
            value["wrong"]["allowed_by"] = settings.source.into();
        }
        if let Some((_, name, values)) = &mark.choices {
            value["wrong"]["legal"] = json!({ "of": name, "values": values });
        }
    }
    value
}
