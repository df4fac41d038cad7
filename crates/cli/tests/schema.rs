//! The schema beside the scenarios is the one the command prints.

use std::path::Path;
use std::process::Command;

#[test]
fn the_schema_beside_the_scenarios_is_current() {
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).arg("schema").output().expect("the command runs");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/scenario.schema.json");
    let text = std::fs::read_to_string(&file).expect("the file is there");
    assert!(output.stdout == text.as_bytes(), "write it anew: trapline schema > scenarios/scenario.schema.json");
}
