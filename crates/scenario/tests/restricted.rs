//! Every story of a guest under the hypervisor comes true as well on an Intel processor that is denied unrestricted guests: what VM entry
//! refuses then is emulated, and guests cannot tell.

use scenario::load::{Directory, Scenario};
use scenario::run::{Options, run};
use scenario::snapshot;
use serde_json::Value;
use std::path::Path;

#[test]
fn guests_cannot_tell_whether_they_are_unrestricted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let (mut wrong, mut runs) = (String::new(), 0);
    for file in snapshot::scenario_files(&root).expect("there is a corpus") {
        let text = std::fs::read_to_string(&file).expect("a scenario is text");
        let Ok(mut document) = serde_json::from_str::<Value>(&text) else { continue };
        // The one thing that a guest can tell.
        if document["shows"].as_array().is_some_and(|shows| shows.contains(&"E31".into())) {
            continue;
        }
        if !document["hypervisor"].is_object() {
            document["hypervisor"] = serde_json::json!({});
        }
        document["hypervisor"]["unrestricted_guest"] = false.into();
        let directory = Directory(file.parent().expect("a scenario lies in a directory").to_owned());
        let scenario = Scenario::parse(&file.display().to_string(), document.to_string(), &directory)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            if variant.policy == scenario::file::Policy::None || scenario::load::vendor_of(variant.cpu) == scenario::file::Vendor::Amd {
                continue;
            }
            runs += 1;
            let report = run(&scenario, variant, &Options::default(), None);
            if !report.passed() {
                wrong += &format!("{} on {}:\n{}\n", file.display(), variant.name(), report.failures);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(runs > 60, "only {runs} stories were told");
}
