//! The schema beside the scenarios and the reference in the book are the ones the command prints.

use std::path::Path;
use std::process::Command;

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().expect("the command runs");
    String::from_utf8(output.stdout).expect("text")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).expect("the file is there")
}

#[test]
fn the_schema_beside_the_scenarios_is_current() {
    let current = printed(&["schema"]) == file("scenarios/scenario.schema.json");
    assert!(current, "write it anew: trapline schema > scenarios/scenario.schema.json");
}

#[test]
fn the_reference_in_the_book_is_current() {
    let page = file("docs/scenarios.md");
    let (_, reference) = page.split_once("<!-- from here on: trapline schema --reference -->\n").expect("the page has a reference");
    assert!(reference == printed(&["schema", "--reference"]), "write it anew, behind the mark: trapline schema --reference");
}
