//! The JSON Schema of scenario files, and a check of a file against it that finds every mistake, each with its place.
//!
//! serde stops at the first mistake and tells a line at best. The schema is generated from the types serde fills, so a check against it
//! accepts exactly what serde accepts; a test holds the two together. Of JSON Schema only what schemars generates from
//! [`crate::file`] is interpreted; any other keyword is refused by a test, not ignored.

use crate::diagnostic::{Diagnostic, Diagnostics, Source, nearest};
use crate::file::File;
use crate::quantity::{QUANTITY_FORMAT, Quantity, SIZE_FORMAT, Size};
use json::{Node, NodeKind};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::{Arc, LazyLock};

/// The schema as a document, draft 2020-12; made once.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>().to_value());
    &DOCUMENT
}

/// A type of scenario files whose values are words.
pub trait Word: JsonSchema + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: JsonSchema + DeserializeOwned + Clone + Send + Sync + 'static> Word for T {}

/// The words of a type, each with what it means.
pub fn words<T: Word>() -> Vec<(String, String)> {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    let text = |value: &Value| flat(value.as_str().unwrap_or_default());
    schema["oneOf"].as_array().into_iter().flatten().map(|choice| (text(&choice["const"]), text(&choice["description"]))).collect()
}

/// The reference of all keys as Markdown, for docs/scenarios.md.
pub fn reference() -> String {
    let document = document();
    let mut text = String::new();
    section("A scenario", document, &mut text);
    for (name, schema) in document["$defs"].as_object().into_iter().flatten() {
        section(name, schema, &mut text);
    }
    text
}

/// One type: its sentence, then a table of its keys or words.
fn section(name: &str, schema: &Value, text: &mut String) {
    *text += &format!("\n### {name}\n\n{}\n", flat(schema["description"].as_str().unwrap_or_default()));
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(properties) = schema["properties"].as_object() {
        *text += "\n| key | value | meaning |\n|---|---|---|\n";
        for (key, property) in properties {
            let star = if required.contains(&key.as_str()) { " (required)" } else { "" };
            let meaning = flat(property["description"].as_str().unwrap_or_default());
            *text += &format!("| `{key}`{star} | {} | {meaning} |\n", kind(property));
        }
        return;
    }
    let words: Vec<(String, String, String)> = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|choice| {
            let meaning = flat(choice["description"].as_str().unwrap_or_default());
            let words =
                choice["const"].as_str().into_iter().chain(choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str));
            let words = words.map(|word| (word.to_owned(), String::new()));
            let keys = choice["properties"].as_object().into_iter().flatten();
            let keys = keys.map(|(key, property)| (key.clone(), kind(property)));
            words.chain(keys).map(|(word, kind)| (word, kind, meaning.clone())).collect::<Vec<_>>()
        })
        .collect();
    if words.is_empty() {
        return;
    }
    let with_kind = words.iter().any(|(_, kind, _)| !kind.is_empty());
    *text += if with_kind { "\n| key | value | meaning |\n|---|---|---|\n" } else { "\n| word | meaning |\n|---|---|\n" };
    for (word, kind, meaning) in words {
        *text += &if with_kind { format!("| `{word}` | {kind} | {meaning} |\n") } else { format!("| `{word}` | {meaning} |\n") };
    }
}

/// A description in one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// What a value is, with links to the types of this page.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let choices: Vec<String> = choices.iter().filter(|choice| choice["type"] != "null").map(kind).collect();
        return choices.join(" or ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    let names: Vec<String> = names
        .into_iter()
        .map(|name| match name {
            "array" => format!("list of {}", kind(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("names, each with {}", kind(&schema["additionalProperties"]))
            }
            "boolean" => "`true` or `false`".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    let mut text = names.join(" or ");
    if let (Some(minimum), Some(maximum)) = (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        text += &format!(", {minimum} to {maximum}");
    }
    text
}

/// Adds a diagnostic for everything in `node` that the schema does not allow.
pub fn check(source: &Arc<Source>, node: &Node, diagnostics: &mut Diagnostics) {
    Checker { root: document(), source, diagnostics }.check(document(), node, "the scenario");
}

struct Checker<'a> {
    root: &'a Value,
    source: &'a Arc<Source>,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Checker<'a> {
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        // The generator nests references once; the bound only guards against a schema that refers to itself.
        for _ in 0..8 {
            match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
                Some(pointer) => schema = self.root.pointer(pointer).unwrap_or(&Value::Null),
                None => break,
            }
        }
        schema
    }

    fn report(&mut self, node: &Node, message: String, hint: Option<String>) {
        self.diagnostics.push(Diagnostic::new(self.source, node.span.clone(), message).maybe_hint(hint));
    }

    fn check(&mut self, schema: &'a Value, node: &Node, what: &str) {
        let schema = self.resolve(schema);
        if let Some(alternatives) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            return self.check_alternatives(alternatives, node, what);
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            return self.check_words(&words, node, what);
        }
        if let Some(format) = schema["format"].as_str()
            && let NodeKind::String(text) = &node.kind
        {
            let expected = match format {
                "size" if Size::parse(text).is_none() => Some(SIZE_FORMAT),
                "quantity" if Quantity::parse(text).is_none() => Some(QUANTITY_FORMAT),
                _ => None,
            };
            if let Some(expected) = expected {
                self.report(node, format!("{what} cannot be read"), Some(format!("write {expected}")));
                return;
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        if !types.iter().any(|name| fits(name, node)) {
            let expected: Vec<&str> = types.iter().filter(|name| **name != "null").map(|name| describe(name)).collect();
            self.report(node, format!("{what} is {}, but should be {}", node.describe(), expected.join(" or ")), None);
            return;
        }
        match &node.kind {
            NodeKind::Number(number) => {
                let value = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).unwrap_or_default();
                let bound = |name: &str| schema[name].as_i64().map(i128::from).or_else(|| schema[name].as_u64().map(i128::from));
                let limit = match schema["format"].as_str() {
                    Some("uint8") => i128::from(u8::MAX),
                    Some("uint32") => i128::from(u32::MAX),
                    _ => i128::from(u64::MAX),
                };
                let minimum = bound("minimum").unwrap_or(i128::from(i64::MIN));
                let maximum = bound("maximum").unwrap_or(limit).min(limit);
                if !(minimum..=maximum).contains(&value) {
                    let allowed =
                        if maximum == i128::from(u64::MAX) { format!("{minimum} or more") } else { format!("from {minimum} to {maximum}") };
                    self.report(node, format!("{what} is {value}, but should be {allowed}"), None);
                }
            }
            NodeKind::String(text) => {
                let length = text.chars().count() as u64;
                let (minimum, maximum) = (schema["minLength"].as_u64().unwrap_or(0), schema["maxLength"].as_u64().unwrap_or(u64::MAX));
                if !(minimum..=maximum).contains(&length) {
                    let allowed = if minimum == maximum { minimum.to_string() } else { format!("{minimum} to {maximum}") };
                    self.report(node, format!("{what} has {length} characters, but should have {allowed}"), None);
                }
            }
            NodeKind::Array(elements) => {
                for element in elements {
                    self.check(&schema["items"], element, &format!("an element of {what}"));
                }
            }
            NodeKind::Object(_) => self.check_object(schema, node, what),
            _ => {}
        }
    }

    fn check_object(&mut self, schema: &'a Value, node: &Node, what: &str) {
        let NodeKind::Object(members) = &node.kind else {
            return;
        };
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        for member in members {
            if let Some(property) = schema["properties"].get(&member.key) {
                self.check(property, &member.value, &format!("`{}`", member.key));
            } else if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
                self.check(values, &member.value, &format!("`{}`", clip(&member.key)));
            } else {
                let hint = match nearest(&member.key, properties.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known keys: {}", list(properties.keys().map(String::as_str))),
                };
                self.diagnostics.push(
                    Diagnostic::new(self.source, member.key_span.clone(), format!("unknown key `{}` in {what}", clip(&member.key)))
                        .hint(hint),
                );
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if node.get(key).is_none() {
                let hint = properties.get(key).and_then(|property| self.resolve_description(property));
                self.diagnostics.push(
                    Diagnostic::new(self.source, node.span.start..node.span.start + 1, format!("{what} lacks the key `{key}`"))
                        .maybe_hint(hint.map(|text| format!("`{key}`: {text}"))),
                );
            }
        }
    }

    fn resolve_description(&self, property: &Value) -> Option<String> {
        property["description"].as_str().map(|text| text.lines().next().unwrap_or_default().to_owned())
    }

    /// An enum: alternatives that are words, or objects with one key each; or a type that may be `null`.
    fn check_alternatives(&mut self, alternatives: &'a [Value], node: &Node, what: &str) {
        let choices: Vec<&Value> =
            alternatives.iter().map(|choice| self.resolve(choice)).filter(|choice| choice["type"] != "null").collect();
        if choices.len() < alternatives.len() && matches!(node.kind, NodeKind::Null) {
            return;
        }
        if let [choice] = choices[..] {
            return self.check(choice, node, what);
        }
        let words: Vec<&str> = choices
            .iter()
            .flat_map(|choice| {
                choice["const"].as_str().into_iter().chain(choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str))
            })
            .collect();
        if !words.is_empty() && !choices.iter().any(|choice| choice["type"] == "object") {
            return self.check_words(&words, node, what);
        }
        let keys: Vec<&str> = choices
            .iter()
            .filter_map(|choice| choice["properties"].as_object())
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect();
        match &node.kind {
            NodeKind::Object(members) if members.len() == 1 => {
                let member = &members[0];
                match choices.iter().find(|choice| choice["properties"].get(&member.key).is_some()) {
                    Some(choice) => self.check(&choice["properties"][member.key.as_str()], &member.value, &format!("`{}`", member.key)),
                    None => {
                        let hint = match nearest(&member.key, keys.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("known: {}", list(keys.iter().copied())),
                        };
                        self.diagnostics.push(
                            Diagnostic::new(self.source, member.key_span.clone(), format!("{what} cannot be `{}`", clip(&member.key)))
                                .hint(hint),
                        );
                    }
                }
            }
            _ => self.report(
                node,
                format!("{what} should be an object with exactly one key"),
                Some(format!("one of: {}", list(keys.iter().copied()))),
            ),
        }
    }

    fn check_words(&mut self, words: &[&str], node: &Node, what: &str) {
        match &node.kind {
            NodeKind::String(text) if words.contains(&text.as_str()) => {}
            NodeKind::String(text) => {
                let hint = match nearest(text, words.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of: {}", list(words.iter().copied())),
                };
                self.report(node, format!("{what} cannot be `{}`", clip(text)), Some(hint));
            }
            _ => self.report(
                node,
                format!("{what} is {}, but should be a string", node.describe()),
                Some(format!("one of: {}", list(words.iter().copied()))),
            ),
        }
    }
}

fn fits(type_name: &str, node: &Node) -> bool {
    match (type_name, &node.kind) {
        ("integer", NodeKind::Number(number)) => !number.is_f64(),
        ("null", NodeKind::Null)
        | ("boolean", NodeKind::Boolean(_))
        | ("number", NodeKind::Number(_))
        | ("string", NodeKind::String(_))
        | ("array", NodeKind::Array(_))
        | ("object", NodeKind::Object(_)) => true,
        _ => false,
    }
}

fn describe(type_name: &str) -> &'static str {
    match type_name {
        "integer" => "an integer",
        "boolean" => "a boolean",
        "number" => "a number",
        "string" => "a string",
        "array" => "an array",
        _ => "an object",
    }
}

fn list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Words of a hostile file are quoted in messages, but not by the megabyte.
fn clip(text: &str) -> String {
    if text.chars().count() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text.to_owned() }
}
