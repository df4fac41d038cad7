//! Values without their types: shown, looked up and compared, for `inspect` and `diff`.

use ciborium::Value;
use std::fmt::Write as _;

/// A number in hexadecimal, or whatever else a leaf is, in one word.
fn leaf(value: &Value) -> String {
    match value {
        Value::Integer(number) => {
            let number = i128::from(*number);
            if (0..10).contains(&number) {
                number.to_string()
            } else if number < 0 {
                format!("-{:#x}", number.unsigned_abs())
            } else {
                format!("{number:#x}")
            }
        }
        Value::Bytes(bytes) if bytes.len() <= 16 => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Float(number) => number.to_string(),
        Value::Text(text) if text.chars().count() <= 100 => format!("{text:?}"),
        Value::Text(text) => format!("{} characters of text", text.chars().count()),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => "none".to_owned(),
        // serde's integers of 128 bits that do not fit into 64.
        Value::Tag(2, inner) => match &**inner {
            Value::Bytes(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("0x{}", digits.trim_start_matches('0'))
            }
            other => leaf(other),
        },
        Value::Tag(tag, inner) => format!("tag {tag} of {}", leaf(inner)),
        Value::Array(list) => format!("{} elements", list.len()),
        Value::Map(map) => format!("{} fields", map.len()),
        _ => "?".to_owned(),
    }
}

/// Whether a value is shown in one line of its own.
fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().all(|element| matches!(element, Value::Integer(_) | Value::Null | Value::Bool(_))),
        Value::Map(map) => map.is_empty(),
        _ => true,
    }
}

fn key(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => leaf(other),
    }
}

/// How many numbers of a list are shown in full; of a longer one those that are not zero.
const SHORT_LIST: usize = 32;

fn list(elements: &[Value]) -> String {
    let zero = Value::from(0);
    if elements.len() <= SHORT_LIST && !(elements.len() > 8 && elements.iter().all(|element| *element == zero)) {
        let words: Vec<String> = elements.iter().map(leaf).collect();
        return format!("[{}]", words.join(", "));
    }
    let kept: Vec<String> = elements
        .iter()
        .enumerate()
        .filter(|(_, element)| **element != zero)
        .take(SHORT_LIST)
        .map(|(at, element)| format!("{at}: {}", leaf(element)))
        .collect();
    let all = elements.iter().filter(|element| **element != zero).count();
    let more = if all > kept.len() { ", ..." } else { "" };
    if kept.is_empty() {
        format!("{} zeros", elements.len())
    } else {
        format!("{} elements, all zero but [{}{more}]", elements.len(), kept.join(", "))
    }
}

/// A value as indented lines of text, numbers in hexadecimal.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Map(map) if !map.is_empty() => {
            for (name, inner) in map {
                write_entry(out, &indent, &key(name), inner, depth);
            }
        }
        Value::Array(elements) if !is_leaf(value) => {
            for (at, inner) in elements.iter().enumerate() {
                write_entry(out, &indent, &at.to_string(), inner, depth);
            }
        }
        other => {
            let _ = writeln!(out, "{indent}{}", one_line(other));
        }
    }
}

fn write_entry(out: &mut String, indent: &str, name: &str, inner: &Value, depth: usize) {
    if is_leaf(inner) {
        let _ = writeln!(out, "{indent}{name}: {}", one_line(inner));
    } else {
        let _ = writeln!(out, "{indent}{name}:");
        write_value(out, inner, depth + 1);
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Array(elements) => list(elements),
        other => leaf(other),
    }
}

/// The value at a path of field names and indices, `segments.0.base`.
///
/// # Errors
/// Names the step that is not there, and what is.
pub fn find<'v>(value: &'v Value, path: &str) -> Result<&'v Value, String> {
    let mut value = value;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (next, known) = match value {
            Value::Map(map) => {
                let found = map.iter().find(|(name, _)| key(name) == step).map(|(_, inner)| inner);
                (found, map.iter().map(|(name, _)| key(name)).collect::<Vec<_>>().join(", "))
            }
            Value::Array(elements) => {
                let found = step.parse::<usize>().ok().and_then(|at| elements.get(at));
                (found, if elements.is_empty() { "nothing".to_owned() } else { format!("0 to {}", elements.len() - 1) })
            }
            other => (None, format!("only the value {}", leaf(other))),
        };
        value = next.ok_or_else(|| format!("there is no `{step}` here, but {known}"))?;
    }
    Ok(value)
}

/// A difference of two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as [`find`] takes it; empty for the values themselves.
    pub path: String,
    /// What the first has there; `None` where it has nothing.
    pub one: Option<String>,
    /// What the second has there.
    pub other: Option<String>,
}

/// Where two values differ, field by field.
pub fn differences(one: &Value, other: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut found, String::new(), Some(one), Some(other));
    found
}

fn compare(found: &mut Vec<Difference>, path: String, one: Option<&Value>, other: Option<&Value>) {
    let inner = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match (one, other) {
        (Some(a), Some(b)) if a == b => {}
        (Some(Value::Map(a)), Some(Value::Map(b))) => {
            let value_of = |map: &'_ [(Value, Value)], name: &Value| map.iter().position(|(known, _)| known == name);
            for (name, mine) in a {
                compare(found, inner(&key(name)), Some(mine), value_of(b, name).map(|at| &b[at].1));
            }
            for (name, theirs) in b.iter().filter(|(name, _)| value_of(a, name).is_none()) {
                compare(found, inner(&key(name)), None, Some(theirs));
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for at in 0..a.len().max(b.len()) {
                compare(found, inner(&at.to_string()), a.get(at), b.get(at));
            }
        }
        (a, b) => found.push(Difference { path, one: a.map(one_line), other: b.map(one_line) }),
    }
}
