//! Values shown, looked up and compared without their types.

use stream::Value;
use stream::tree::{differences, find, text};

fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect())
}

fn sample(rip: u64) -> Value {
    map(&[
        ("rip", rip.into()),
        ("general", Value::Array(vec![1.into(), 0x1000.into(), Value::Null])),
        ("segments", Value::Array(vec![map(&[("base", 0x10.into()), ("unusable", false.into())])])),
        ("table", Value::Array((0..64).map(|at| Value::from(if at == 7 { 9 } else { 0 })).collect())),
        ("name", "zen3".into()),
    ])
}

#[test]
fn values_are_shown_in_lines() {
    let expected = "rip: 0xfff0\ngeneral: [1, 0x1000, none]\nsegments:\n  0:\n    base: 0x10\n    unusable: false\n\
                    table: 64 elements, all zero but [7: 9]\nname: \"zen3\"\n";
    assert_eq!(text(&sample(0xfff0)), expected);
}

#[test]
fn a_path_finds_a_field_or_says_what_there_is() {
    let value = sample(5);
    assert_eq!(find(&value, "segments.0.base"), Ok(&Value::from(0x10)));
    assert_eq!(find(&value, ""), Ok(&value));
    assert_eq!(find(&value, "segments.1"), Err("there is no `1` here, but 0 to 0".to_owned()));
    assert!(find(&value, "rap").unwrap_err().contains("but rip, general, segments"));
    assert!(find(&value, "rip.x").unwrap_err().contains("only the value 5"));
}

#[test]
fn differences_are_told_by_path() {
    let mut other = sample(6);
    other.as_map_mut().unwrap().push(("more".into(), 1.into()));
    other.as_map_mut().unwrap()[1].1 = Value::Array(vec![1.into()]);
    let found = differences(&sample(5), &other);
    let told: Vec<_> = found.iter().map(|it| (it.path.as_str(), it.one.as_deref(), it.other.as_deref())).collect();
    let expected =
        [("rip", Some("5"), Some("6")), ("general.1", Some("0x1000"), None), ("general.2", Some("none"), None), ("more", None, Some("1"))];
    assert_eq!(told, expected);
    assert!(differences(&sample(5), &sample(5)).is_empty());
}
