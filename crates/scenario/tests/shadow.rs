//! Every story of a guest under the hypervisor ends the same under shadow paging as under nested paging: in the same registers, with the same
//! memory and serial output.

use scenario::file::Stop;
use scenario::load::{Directory, Scenario};
use scenario::run::{Options, Report, run};
use scenario::snapshot;
use serde_json::Value;
use std::path::Path;

/// Stories whose registers hold the time, or whose CPUs race so that time decides: they must come true, but may end in other registers, as
/// those do that end when a live move left nobody to run the guest.
const OF_TIME: &[&str] = &[
    "clock-pairing.json",
    "tsc.json",
    "pause.json",
    "send-ipi.json",
    "one-site.json",
    "m25-tsc-aux.json",
    "lock-correct.json",
    "lock-naive.json",
    "prefixed-corrupt.json",
    "prefixed.json",
    "store-torn.json",
    "store-whole.json",
];

/// Why a story may end otherwise, or cannot be told.
fn excused(file: &Path, document: &Value) -> Option<&'static str> {
    if file.ends_with("e09-stale-text.json") {
        return Some("it forgets an invalidation, and shadow tables never hold what is old");
    }
    let shows = |case: &str| document["shows"].as_array().is_some_and(|shows| shows.contains(&case.into()));
    if shows("E31") {
        return Some("on Intel the guest is one without unrestricted guests, which this one can tell");
    }
    if file.ends_with("m19-time-stamp-counter.json") {
        return Some("it expects exact counts of time");
    }
    if shows("M20") || shows("M23") || shows("M24") {
        return Some("it shows what nested paging leaves to the processor, and the hypervisor's walk does as the guest was told");
    }
    if document.get("schedule").is_some() {
        return Some("its schedule counts steps, of which there are others");
    }
    let script = document["script"].as_array();
    let counts = |at: &Value| ["exit", "cycle", "instruction"].iter().any(|key| at.get(key).is_some());
    if script.is_some_and(|script| script.iter().any(|step| counts(&step["at"]))) {
        return Some("its script counts exits, cycles or instructions, of which there are others");
    }
    let mut actions = script.into_iter().flatten().flat_map(|step| step["do"].as_array().into_iter().flatten());
    let follows = |action: &Value| ["mode", "converge"].iter().any(|key| action["migrate"][key] == "post-copy");
    if actions.any(follows) {
        return Some("memory follows a guest only under nested paging");
    }
    None
}

/// What of a story is not about how it ends.
fn without_counts(document: &mut Value) {
    let strip = |holder: &mut Value| {
        if let Some(expect) = holder.get_mut("expect").and_then(Value::as_object_mut) {
            for key in ["exits", "events", "trace", "trace_lacks"] {
                expect.remove(key);
            }
            // How long a move takes follows from what the guest's writes cost.
            for it in expect.get_mut("moves").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
                it.retain(|key, _| key == "outcome");
            }
        }
    };
    strip(document);
    for case in document.get_mut("cases").and_then(Value::as_array_mut).into_iter().flatten() {
        strip(case);
    }
}

fn told(file: &Path, mut document: Value, paging: &str) -> Vec<(String, Report)> {
    if !document["hypervisor"].is_object() {
        document["hypervisor"] = serde_json::json!({});
    }
    document["hypervisor"]["paging"] = paging.into();
    without_counts(&mut document);
    let directory = Directory(file.parent().expect("a scenario lies in a directory").to_owned());
    let scenario = Scenario::parse(&file.display().to_string(), document.to_string(), &directory)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let hypervised = scenario.variants.iter().filter(|variant| variant.policy != scenario::file::Policy::None);
    hypervised
        .filter(|variant| !matches!(variant.cpu.name, "merom" | "k8-rev-f"))
        .map(|variant| (variant.name(), run(&scenario, variant, &Options::default(), None)))
        .collect()
}

/// The manual's examples of memory ordering, `order-...`, are races by their nature.
fn is_of_time(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    OF_TIME.contains(&name) || name.starts_with("order-")
}

#[test]
fn stories_end_the_same_under_shadow_paging() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let (mut wrong, mut runs, mut out) = (String::new(), 0, 0);
    for file in snapshot::scenario_files(&root).expect("there is a corpus") {
        let text = std::fs::read_to_string(&file).expect("a scenario is text");
        let Ok(document) = serde_json::from_str::<Value>(&text) else { continue };
        if excused(&file, &document).is_some() {
            out += 1;
            continue;
        }
        let (nested, shadow) = (told(&file, document.clone(), "nested"), told(&file, document, "shadow"));
        for ((name, one), (_, two)) in nested.iter().zip(&shadow) {
            runs += 1;
            let at = format!("{} on {name}", file.display());
            if !two.passed() {
                wrong += &format!("{at}:\n{}\n", two.failures);
            } else if (one.stop, &one.serial) != (two.stop, &two.serial) {
                wrong += &format!("{at}: it ends with {:?} ({}) instead of {:?}\n", two.stop, two.detail, one.stop);
            } else if one.registers != two.registers && !is_of_time(&file) && one.stop != Stop::Stranded {
                let text = |report: &Report| report.registers.iter().map(|registers| registers.text()).collect::<String>();
                wrong += &format!("{at}: registers\n{}\ninstead of\n{}\n", text(two), text(one));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(runs > 60 && out < 30, "{runs} stories were told, {out} were not");
}
