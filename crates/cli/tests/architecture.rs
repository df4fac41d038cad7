//! The house as it is drawn: dependencies between crates, and what every source file owes its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two levels below the root").to_owned()
}

/// The `arrows` block of docs/architecture.md: crate -> what it depends on.
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let block = text.split("```arrows\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of arrows");
    block
        .lines()
        .map(|line| {
            let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("`{line}` is no arrow"));
            (from.trim().to_owned(), to.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
        })
        .collect()
}

/// Dependencies between our own crates, development dependencies left out.
fn built() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let short = |name: &str| name.strip_prefix("trapline-").unwrap_or(name).to_owned();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let ours = list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .filter(|name| name.starts_with("trapline"))
                .map(|name| short(&name))
                .collect();
            (short(&text(&package["name"])), ours)
        })
        .collect()
}

#[test]
fn the_drawing_is_the_house() {
    assert_eq!(drawn(), built(), "docs/architecture.md (left) and the manifests (right) differ");
}

#[test]
fn arrows_run_upwards_and_vendors_do_not_meet() {
    let arrows = drawn();
    let mut order: Vec<&String> = Vec::new();
    let mut rest: BTreeSet<&String> = arrows.keys().collect();
    while !rest.is_empty() {
        let free: Vec<&String> = rest.iter().copied().filter(|name| arrows[*name].iter().all(|below| order.contains(&below))).collect();
        assert!(!free.is_empty(), "a circle among {rest:?}");
        for name in free {
            rest.remove(name);
            order.push(name);
        }
    }
    assert!(!arrows["vmx"].contains("svm") && !arrows["svm"].contains("vmx"));
    assert!(!arrows["cpu"].contains("vmx") && !arrows["cpu"].contains("svm"));
    assert!(arrows.values().all(|below| !below.contains("trapline")), "nothing depends on the command");
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Modules that docs/architecture.md allows `unsafe`: it lists them in one line of code spans.
fn allowed_unsafe() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let line = text.lines().find(|line| line.starts_with("- `unsafe` is allowed in")).expect("the line on `unsafe`");
    line.split('`')
        .skip(3)
        .step_by(2)
        .flat_map(|span| match span.split_once("::{") {
            Some((base, names)) => names.trim_end_matches('}').split(',').map(|name| format!("{base}::{}", name.trim())).collect(),
            None => vec![span.to_owned()],
        })
        .collect()
}

#[test]
fn every_source_file_opens_with_its_subject_and_unsafe_keeps_to_its_modules() {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates") {
        sources(&entry.expect("an entry").path().join("src"), &mut files);
    }
    files.sort();
    let allowed = allowed_unsafe();
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source file");
        let relative = path.strip_prefix(root().join("crates")).expect("inside crates").to_string_lossy().replace("/src/", "::");
        let module = relative.trim_end_matches(".rs").replace('/', "::");
        if !text.starts_with("//!") {
            wrong.push(format!("{relative} does not open with //!"));
        }
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let has_unsafe = code.clone().any(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"));
        if has_unsafe && !allowed.iter().any(|name| module == *name || module.starts_with(&format!("{name}::"))) {
            wrong.push(format!("{relative} uses unsafe, which docs/architecture.md does not allow there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
