//! Rules of entry.

use super::{Answer, Unknown, WIDTH};
use crate::json_lines;
use crate::rule::Rule;
use crate::spelling::plain;
use crate::text::{listed, outcome, wrapped};
use crate::{svm_rules, vmx_rules};
use isa::svm::VmcbField;
use isa::vmx::VmcsField;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a rule of entry says: by its id; all of them without one.
///
/// # Errors
/// There is none of that name.
pub fn check(query: Option<&str>) -> Result<Answer, Unknown> {
    let both = || [vmx_rules::rules(), svm_rules::rules()].into_iter().flatten();
    let Some(query) = query else {
        let mut out = String::new();
        let mut section = "";
        for rule in both() {
            if rule.section != section {
                section = rule.section;
                let _ = writeln!(out, "{}, {section}", rule.manual);
            }
            let _ = writeln!(out, "  {:<44} {}", rule.id, rule.rule);
        }
        return Ok(Answer { text: out, rows: both().map(columns).collect() });
    };
    let rows: Vec<&Rule> = both().filter(|rule| plain(rule.id) == plain(query)).collect();
    if rows.is_empty() {
        return Err(Unknown::new("check", query, both().map(|rule| rule.id)));
    }
    let mut text = String::new();
    for rule in &rows {
        describe(rule, &mut text);
    }
    Ok(Answer { text, rows: rows.into_iter().map(columns).collect() })
}

fn columns(rule: &Rule) -> Value {
    json!({
        "vendor": if of_vmx(rule) { "VMX" } else { "SVM" },
        "name": rule.id,
        "manual": rule.manual,
        "section": rule.section,
        "rule": rule.rule,
        "outcome": json_lines::outcome(rule.outcome),
        "reads": word_names(rule),
        "hint": (!rule.hint.is_empty()).then_some(rule.hint),
    })
}

fn of_vmx(rule: &Rule) -> bool {
    rule.manual.starts_with("SDM")
}

pub(crate) fn word_names(rule: &Rule) -> Vec<String> {
    let vmx = of_vmx(rule);
    let name = |&word: &usize| match vmx {
        true => VmcsField::ALL.get(word).map_or_else(|| vmx_rules::extra_name(word), |field| field.identifier().to_owned()),
        false => VmcbField::all().get(word).map_or_else(String::new, |field| field.name.clone()),
    };
    rule.reads.iter().map(name).collect()
}

fn describe(rule: &Rule, out: &mut String) {
    let _ = writeln!(out, "{}   {}, {}", rule.id, rule.manual, rule.section);
    for line in wrapped(&format!("{}.", rule.rule), WIDTH) {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "  broken: {}", outcome(rule.outcome));
    for (index, line) in listed(&word_names(rule), WIDTH - 9).into_iter().enumerate() {
        let _ = writeln!(out, "  {}{line}", if index == 0 { "reads: " } else { "       " });
    }
    if !rule.hint.is_empty() {
        for (index, line) in wrapped(rule.hint, WIDTH - 8).into_iter().enumerate() {
            let _ = writeln!(out, "  {}{line}", if index == 0 { "hint: " } else { "      " });
        }
    }
}
