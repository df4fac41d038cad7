//! An assessment as SARIF 2.1.0, which editors and code hosts show beside the file.
//!
//! Modelled: one run with one rule a broken or undecided row and one result each; the location is that of the first wrong word in what was read.
//! Not modelled: fixes, because the file is a dump of what another program wrote.

use crate::assess::{Assessment, Finding};
use crate::position;
use crate::rule::Rule;
use crate::text;
use serde_json::{Value, json};
use std::ops::Range;

/// Where the form is described.
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The document. `name` is the file that was read and `source` its text.
pub fn document(assessment: &Assessment, name: &str, source: &str) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    let mut results: Vec<Value> = Vec::new();
    for (level, finding) in
        assessment.broken.iter().map(|finding| ("error", finding)).chain(assessment.elsewhere.iter().map(|finding| ("note", finding)))
    {
        let message = message(finding);
        let place =
            finding.reads.iter().filter(|reading| reading.mark.is_some()).chain(&finding.reads).find_map(|reading| reading.place.clone());
        results.push(result(&finding.rule, rules.len(), level, &message, place.as_ref(), name, source));
        rules.push(rule(&finding.rule));
    }
    for undecided in &assessment.undecided {
        let message = format!("not decidable, because {} is not known: {}", undecided.missing.join(" and "), undecided.rule.rule);
        results.push(result(&undecided.rule, rules.len(), "note", &message, None, name, source));
        rules.push(rule(&undecided.rule));
    }
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "trapline explain", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn message(finding: &Finding) -> String {
    let words: Vec<String> = finding
        .reads
        .iter()
        .filter(|reading| reading.mark.is_some())
        .map(|reading| {
            let bits = reading.mark.as_ref().map_or(0, |mark| mark.bits);
            let wrong = if bits == 0 { String::new() } else { format!(" (wrong bits {bits:#x})") };
            format!("{} is {:#x}{wrong}", reading.name, reading.value)
        })
        .collect();
    let mut message = format!("{}: {}.", text::outcome(finding.rule.outcome), finding.rule.rule);
    if !words.is_empty() {
        message.push_str(&format!(" {}.", words.join(if finding.together { " and " } else { ", or " })));
    }
    message
}

fn rule(row: &Rule) -> Value {
    let mut rule = json!({
        "id": row.id,
        "shortDescription": { "text": row.rule },
        "fullDescription": { "text": format!("{}, {}: {}.", row.manual, row.section, row.rule) },
    });
    if !row.hint.is_empty() {
        rule["help"] = json!({ "text": row.hint });
    }
    rule
}

fn result(row: &Rule, index: usize, level: &str, message: &str, place: Option<&Range<usize>>, name: &str, source: &str) -> Value {
    let mut location = json!({ "artifactLocation": { "uri": uri(name) } });
    if let Some(place) = place {
        let (line, column) = position(source, place);
        let (end_line, end_column) = position(source, &(place.end..place.end));
        location["region"] = json!({ "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column });
    }
    json!({
        "ruleId": row.id,
        "ruleIndex": index,
        "level": level,
        "message": { "text": message },
        "locations": [{ "physicalLocation": location }],
    })
}

/// A path as a URI reference: what may not stand there is percent-encoded.
fn uri(name: &str) -> String {
    let mut uri = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_points_at_the_word() {
        let source = "{\n  \"vmcb\": { \"EFER\": 0,\n    \"GUEST_ASID\": 0 }\n}";
        let mut state = crate::read(source, None).unwrap();
        let assessment = crate::assess(&mut state);
        let document = document(&assessment, "a file.json", source);
        assert_eq!(document["version"], "2.1.0");
        let run = &document["runs"][0];
        let (rules, results) = (run["tool"]["driver"]["rules"].as_array().unwrap(), run["results"].as_array().unwrap());
        assert_eq!(rules.len(), results.len());
        for result in results {
            assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], result["ruleId"]);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        }
        let asid = results.iter().find(|result| result["ruleId"] == "asid-zero").unwrap();
        let location = &asid["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "a%20file.json");
        assert_eq!((&location["region"]["startLine"], &location["region"]["startColumn"]), (&json!(3), &json!(5)));
    }
}
