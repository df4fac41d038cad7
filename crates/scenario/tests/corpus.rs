//! Every scenario of the corpus loads.

use scenario::load::Scenario;
use std::path::Path;

#[test]
fn loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut bad = String::new();
    for file in scenario::snapshot::scenario_files(&root).expect("there is a corpus") {
        if let Err(d) = Scenario::load(&file) {
            bad += &d.render(false);
        }
    }
    assert!(bad.is_empty(), "{bad}");
}
