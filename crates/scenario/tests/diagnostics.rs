//! Every file of tests/invalid is refused, and what is said about it is read by people: see the snapshots.

use scenario::file::File;
use scenario::load::{NoFiles, Scenario};

#[test]
fn every_mistake_is_shown_at_its_place() {
    insta::glob!("invalid/*.json", |path| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
        // Named relative to the repository, because snapshots must not hold a host's paths.
        let text = std::fs::read_to_string(path).expect("the file is there");
        let directory = scenario::load::Directory(path.parent().expect("a file lies in a directory").to_owned());
        let diagnostics = Scenario::parse(&format!("invalid/{name}"), text, &directory).expect_err(name);
        for diagnostic in &diagnostics.list {
            assert!(diagnostic.position().is_some(), "{name}: {}", diagnostic.message);
        }
        insta::assert_snapshot!(diagnostics.render(false));
    });
}

/// The check against the schema and serde are two readers of the same types: what the first passes, the second takes, and what the
/// second refuses, the first has refused.
#[test]
fn schema_and_types_accept_the_same() {
    let whole = include_str!("whole.json");
    Scenario::parse("whole.json", whole.to_owned(), &NoFiles).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let value: serde_json::Value = serde_json::from_str(whole).expect("the file is JSON");
    let mut tried = 0;
    for path in pointers(&value) {
        for replacement in [
            serde_json::json!(null),
            serde_json::json!(true),
            serde_json::json!(7),
            serde_json::json!(-7),
            serde_json::json!(1.5),
            serde_json::json!("word"),
            serde_json::json!("0x10"),
            serde_json::json!([]),
            serde_json::json!(["word"]),
            serde_json::json!({}),
            serde_json::json!({ "word": 1 }),
        ] {
            let mut changed = value.clone();
            *changed.pointer_mut(&path).expect("the path was found in the value") = replacement.clone();
            let types = serde_json::from_value::<File>(changed.clone()).map(|_| ());
            let text = changed.to_string();
            let source = std::sync::Arc::new(scenario::diagnostic::Source { name: "changed.json".into(), text });
            let tree = json::parse(&source.text).expect("serde_json writes JSON");
            let mut diagnostics = scenario::diagnostic::Diagnostics::default();
            scenario::schema::check(&source, &tree, &mut diagnostics);
            // The schema also knows ranges, which the types leave to it; and serde would take an array for a struct, field by field.
            let range = diagnostics
                .list
                .iter()
                .all(|diagnostic| diagnostic.message.contains("should be from") || diagnostic.message.contains(" or more"));
            let stricter = types.is_ok() && (range || replacement.is_array());
            assert!(types.is_ok() == diagnostics.is_empty() || stricter, "{path} = {replacement}: {types:?}\n{diagnostics}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

/// JSON pointers to every value inside a value.
fn pointers(value: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), value)];
    while let Some((path, value)) = waiting.pop() {
        match value {
            serde_json::Value::Object(members) => waiting.extend(members.iter().map(|(key, value)| (format!("{path}/{key}"), value))),
            serde_json::Value::Array(elements) => {
                waiting.extend(elements.iter().enumerate().map(|(index, value)| (format!("{path}/{index}"), value)))
            }
            _ => {}
        }
        found.push(path);
    }
    found
}

/// The check interprets these keywords of JSON Schema; a type that makes schemars use another would be checked too little.
#[test]
fn the_schema_uses_only_keywords_that_are_checked() {
    let mut unknown = std::collections::BTreeSet::new();
    let mut waiting = vec![scenario::schema::document()];
    while let Some(schema) = waiting.pop() {
        let Some(members) = schema.as_object() else { continue };
        for (key, value) in members {
            match key.as_str() {
                "properties" | "$defs" => waiting.extend(value.as_object().into_iter().flat_map(|map| map.values())),
                "items" | "additionalProperties" => waiting.push(value),
                "anyOf" | "oneOf" => waiting.extend(value.as_array().into_iter().flatten()),
                "type" | "enum" | "const" | "required" | "minimum" | "maximum" | "minLength" | "maxLength" | "format" | "$ref" => {}
                "$schema" | "title" | "description" | "default" => {}
                other => {
                    unknown.insert(other.to_owned());
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn whole() -> Vec<u8> {
        include_bytes!("whole.json").to_vec()
    }

    fn attempt(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            match Scenario::parse("hostile.json", text.to_owned(), &NoFiles) {
                Ok(scenario) => assert!(!scenario.variants.is_empty()),
                Err(diagnostics) => {
                    assert!(!diagnostics.is_empty());
                    assert!(diagnostics.render(false).len() < 400_000);
                    let _ = diagnostics.render(true);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            attempt(text.as_bytes());
        }

        #[test]
        fn any_json_like_text_is_read_or_refused(text in r#"([\[\]{}:,"\\0-9a-z \n-]|"[a-z]{1,6}"){0,60}"#) {
            attempt(text.as_bytes());
        }

        #[test]
        fn a_changed_scenario_is_read_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8)) {
            let mut bytes = whole();
            for (index, byte, kind) in changes {
                let at = index.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte & 0x7f,
                    1 => { bytes.remove(at); }
                    2 => bytes.insert(at, b"\"{}[],:0\\\n"[usize::from(byte) % 10]),
                    _ => { let end = (at + usize::from(byte)).min(bytes.len()); let piece = bytes[at..end].to_vec(); bytes.splice(at..at, piece); }
                }
            }
            attempt(&bytes);
        }

        #[test]
        fn any_word_in_any_place_is_read_or_refused(index in any::<prop::sample::Index>(), word in "\\PC{0,40}") {
            let mut value: serde_json::Value = serde_json::from_slice(&whole()).expect("the file is JSON");
            let paths = pointers(&value);
            *value.pointer_mut(index.get(paths.as_slice()).as_str()).expect("the path was found in the value") = word.into();
            attempt(value.to_string().as_bytes());
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        attempt("[".repeat(1 << 20).as_bytes());
        attempt("{\"a\":".repeat(1 << 18).as_bytes());
        attempt(format!("{{{}}}", (0..20_000).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",")).as_bytes());
        attempt(" ".repeat(17 << 20).as_bytes());
    }
}
