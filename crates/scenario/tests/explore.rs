//! Exploring finds what is wrong with the flawed stories of `scenarios/smp`, finds nothing in the sound ones, and says the same whoever helps.
//! What it finds and how far it looks stands in docs/explore.md: `UPDATE_DOCS=1 cargo test -p trapline-scenario --test explore` writes that anew.
//!
//! With `EXPLORE_TO_THE_END=1` in the environment the sound ones are searched until no interleaving is left, which takes minutes.

use scenario::explore::{Exploration, Finding, Options, StoreBuffers, document, explore};
use scenario::load::{Directory, Scenario};
use scenario::run;
use std::path::{Path, PathBuf};
use trace::Event;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/smp")
}

fn story(name: &str) -> Scenario {
    Scenario::load(&directory().join(name)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn options() -> Options {
    Options { preemptions: 2, budget: 200, ..Options::default() }
}

/// Explores a story on every machine whose name contains a text.
fn all(scenario: &Scenario, only: &str, options: &Options) -> Vec<Exploration> {
    scenario.machines(Some(only)).map(|variant| explore(scenario, variant, options, &|_| {}).expect("it can be explored")).collect()
}

/// Holds a table of the page to what was found.
fn page_says(name: &str, table: &str) {
    // Another test may be writing the other table.
    static PAGE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = PAGE.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/explore.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let [begin, end] = [format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n")];
    let from = page.find(&begin).expect("the table begins") + begin.len();
    let to = page.find(&end).expect("the table ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &page[..from], &page[to..])).expect("the page can be written");
        return;
    }
    assert!(page[from..to] == *table, "docs/explore.md is not what exploring finds; UPDATE_DOCS=1 writes it anew:\n{table}");
}

/// Runs the scenario that a search has written: it shows the same violation, in the same words.
fn replays(scenario: &Scenario, exploration: &Exploration, finding: &Finding) {
    let variant = scenario.variants.iter().find(|variant| variant.name() == exploration.machine).expect("it is one of them");
    let text = document(scenario, variant, finding, &exploration.schedule).to_string();
    let replay = Scenario::parse("replay", text, &Directory(directory())).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let report = run::run(&replay, &replay.variants[0], &run::Options::default(), None);
    match finding {
        // What breaks an invariant is expected to, and is told of in the trace.
        Finding::Invariant(violation) => {
            assert!(report.passed(), "{}", report.failures);
            let told = report.transcript.records().iter().find_map(|record| match &record.event {
                Event::Violation { invariant, detail } => Some((record.vcpu, invariant.clone(), detail.clone())),
                _ => None,
            });
            assert_eq!(told, Some((violation.vcpu, violation.invariant.name(), violation.detail.clone())));
        }
        // What breaks an expectation still does.
        Finding::Expectation(words) => {
            let failures: Vec<String> = report.failures.list.iter().map(|failure| failure.message.clone()).collect();
            assert_eq!(failures, *words);
        }
        Finding::NotModelled(what) => panic!("{what}"),
    }
}

#[test]
fn what_is_flawed_is_found_on_every_machine_and_replayed() {
    let rows = [
        ("prefixed.json", "", 2, "intact-text", 0),
        ("two-pages.json", "trap-and-patch", 4, "whole-patches", 1),
        ("two-pages-read-only.json", "trap-and-patch", 2, "whole-patches", 1),
        ("lock-naive.json", "", 2, "expect", 2),
        ("modify-naive.json", "", 2, "expect", 2),
        ("store-torn.json", "", 2, "expect", 2),
        ("peterson.json", "", 2, "expect", 2),
        ("sleeper.json", "", 2, "expect", 2),
    ];
    let mut table = "| story | machine | what was found | deviations | turns | runs |\n|---|---|---|---|---|---|\n".to_owned();
    for (name, only, machines, invariant, deviations) in rows {
        let scenario = story(name);
        let found = all(&scenario, only, &options());
        assert_eq!(found.len(), machines, "{name}");
        for exploration in found {
            let finding = exploration.finding.as_ref().unwrap_or_else(|| panic!("{name} on {}: nothing", exploration.machine));
            assert_eq!((finding.name().as_str(), exploration.deviations), (invariant, deviations), "{name}: {}", finding.text());
            replays(&scenario, &exploration, finding);
            table += &format!(
                "| `{}` | {} | {} | {deviations} | {} | {} |\n",
                name.trim_end_matches(".json"),
                exploration.machine,
                finding.text(),
                exploration.schedule.len(),
                exploration.gathering + exploration.runs,
            );
        }
    }
    page_says("what is flawed", &table);
}

#[test]
fn what_is_sound_passes_with_its_coverage() {
    let rows = [
        ("whole.json", "", 2),
        ("two-pages.json", "classic-2007", 4),
        ("two-pages-read-only.json", "classic-2007", 2),
        ("lock-correct.json", "", 2),
        ("modify-correct.json", "", 2),
        ("store-whole.json", "", 2),
        ("one-site.json", "zen3.trap-and-patch.seed-1", 1),
        ("peterson-fenced.json", "", 2),
        ("sleeper-fenced.json", "", 2),
    ];
    let to_the_end = std::env::var_os("EXPLORE_TO_THE_END").is_some();
    let options = if to_the_end { Options { preemptions: 64, budget: 1 << 20, ..Options::default() } } else { options() };
    let mut table = "| story | machine | every schedule with | exhaustive runs | states | choice points | random runs |\n".to_owned();
    table += "|---|---|---|---|---|---|---|\n";
    for (name, only, machines) in rows {
        let found = all(&story(name), only, &options);
        assert_eq!(found.len(), machines, "{name}");
        for exploration in found {
            let text = exploration.text(&options);
            assert!(exploration.finding.is_none(), "{name} on {}:\n{text}", exploration.machine);
            let enough = if to_the_end { 64 } else { 1 };
            assert!(exploration.complete || exploration.bound.is_some_and(|bound| bound >= enough), "{name}:\n{text}");
            assert!(exploration.states > 0 && exploration.points >= exploration.states, "{name}:\n{text}");
            let coverage = match exploration.bound {
                _ if exploration.complete => "any number of deviations".to_owned(),
                bound => format!("at most {}", bound.unwrap_or(0)),
            };
            table += &format!(
                "| `{}` | {} | {coverage} | {} | {} | {} | {} |\n",
                name.trim_end_matches(".json"),
                exploration.machine,
                exploration.runs,
                exploration.states,
                exploration.points,
                exploration.random,
            );
        }
    }
    page_says(if to_the_end { "to the end" } else { "what is sound" }, &table);
}

/// The examples of the SDM's section on memory ordering, and between them the fences: the story, its example, and whether it is allowed.
const EXAMPLES: [(&str, &str, bool); 13] = [
    ("order-stores", "9-1", false),
    ("order-loads-stores", "9-2", false),
    ("order-store-load", "9-3", true),
    ("order-store-load-fenced", "9-3 with MFENCE", false),
    ("order-store-load-sfence", "9-3 with SFENCE", true),
    ("order-store-load-lfence", "9-3 with LFENCE", true),
    ("order-same-location", "9-4", false),
    ("order-forwarding", "9-5", true),
    ("order-transitive", "9-6", false),
    ("order-two-readers", "9-7", false),
    ("order-locks", "9-8", false),
    ("order-locked-load", "9-9", false),
    ("order-locked-store", "9-10", false),
];

#[test]
fn what_the_manuals_examples_allow_is_found_and_nothing_else() {
    let to_the_end = Options { preemptions: 64, budget: 100_000, ..Options::default() };
    let everything = std::env::var_os("EXPLORE_TO_THE_END").is_some();
    let mut table = "| example | story | machine | the manual | what was found | schedules | states |\n".to_owned();
    table += "|---|---|---|---|---|---|---|\n";
    for (name, example, allowed) in EXAMPLES {
        let scenario = story(&format!("{name}.json"));
        if everything && scenario.file.machine.vcpus == Some(2) {
            // To their end they are searched every time.
            continue;
        }
        // Three CPUs have thousands of interleavings, and four forty thousand.
        let many = !everything && scenario.file.machine.vcpus > Some(2);
        let options = if many { Options { budget: 400, ..to_the_end } } else { to_the_end };
        let found = all(&scenario, "", &options);
        assert_eq!(found.len(), 2, "{name}");
        for exploration in found {
            let text = exploration.text(&options);
            assert_eq!(exploration.finding.is_some(), allowed, "{name} on {}:\n{text}", exploration.machine);
            let what = if let Some(finding) = &exploration.finding {
                replays(&scenario, &exploration, finding);
                format!("seen, with {} deviations", exploration.deviations)
            } else {
                assert!(exploration.complete || many, "{name} on {}:\n{text}", exploration.machine);
                match exploration.bound {
                    _ if exploration.complete => "never, in any schedule".to_owned(),
                    bound => format!("never, with at most {} deviations", bound.unwrap_or(0)),
                }
            };
            table += &format!(
                "| {example} | `{name}` | {} | {} | {what} | {} | {} |\n",
                exploration.machine,
                if allowed { "allowed" } else { "forbidden" },
                exploration.runs,
                exploration.states
            );
        }
    }
    if !everything {
        page_says("what the manual allows", &table);
    }
}

/// Where a store may wait and where not changes what is looked at, but not what is found.
#[test]
fn stores_that_wait_elsewhere_show_nothing_more() {
    let small =
        ["order-stores", "order-loads-stores", "order-store-load", "order-store-load-fenced", "order-same-location", "order-locked-load"];
    for (name, _, allowed) in EXAMPLES.into_iter().filter(|(name, ..)| small.contains(name)) {
        let scenario = story(&format!("{name}.json"));
        for (store_buffers, found) in [(StoreBuffers::Everywhere, allowed), (StoreBuffers::Off, false)] {
            let options = Options { preemptions: 64, budget: 1 << 16, store_buffers, ..Options::default() };
            for exploration in all(&scenario, "zen3", &options) {
                let text = exploration.text(&options);
                assert_eq!((exploration.finding.is_some(), exploration.complete), (found, !found), "{name}, {store_buffers:?}:\n{text}");
            }
        }
    }
}

#[test]
fn nothing_depends_on_who_helps() {
    let told = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("there are threads");
        let options = Options { budget: 100, ..options() };
        pool.install(|| {
            let stories = [
                ("lock-naive.json", "zen3"),
                ("two-pages.json", "k8-rev-f.classic-2007"),
                ("store-whole.json", "zen3"),
                ("peterson.json", "zen3"),
            ];
            stories
                .map(|(name, only)| all(&story(name), only, &options).iter().map(|found| found.to_json().to_string()).collect::<Vec<_>>())
        })
    };
    assert_eq!(told(1), told(3));
}

#[test]
fn what_cannot_be_explored_says_why() {
    let text = r#"{ "title": "t", "teaches": "t", "machine": { "cpu": "zen3", "vcpus": 2 }, "guest": { "assembly": ["hlt"] }, REST }"#;
    let refusal = |rest: &str| {
        let scenario = Scenario::parse("it", text.replace("REST", rest), &Directory(directory()))
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        explore(&scenario, &scenario.variants[0], &options(), &|_| {}).expect_err("it cannot be explored")
    };
    assert!(refusal(r#""hypervisor": { "policy": "none" }"#).contains("bare machine"));
    assert!(refusal(r#""script": [{ "at": { "exit": 1 }, "do": [{ "nmi": {} }] }]"#).contains("script"));
    assert!(refusal(r#""schedule": [{ "cpu": 0, "steps": 1 }]"#).contains("schedule"));
}
