//! Move anywhere: guests of the corpus come to the same end wherever they are moved to the other vendor and back.
//!
//! Every machine of every story is asked, with a few moves each. `TRAPLINE_MOVES=N` tries up to N exits and N instructions of every guest one by
//! one, as `trapline test scenarios --move other-vendor --moves N` does. What is left out is left out by a rule of [`scenario::movement`], never by
//! name; but whoever is another guest abroad, or does not survive, has to say here why that is so and stays so, and nobody else may.
//! The same guests are moved live, over links on which random things go wrong; `TRAPLINE_FAULTS=N`, or `full`, makes more such moves of each.
//! docs/move-anywhere.md tells all of it: `UPDATE_DOCS=1 cargo test -p trapline-scenario --test move_anywhere` writes it anew.

use models::Vendor;
use scenario::file::{MoveMode, Policy};
use scenario::live::Fate;
use scenario::load::{Scenario, Variant, policy_name};
use scenario::movement::faults::{End, KINDS, Live};
use scenario::movement::{Effort, Outcome, Rule, survives};
use scenario::run::Options;
use scenario::snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Guests that moves do change: story, policy, why.
const CHANGED: &[(&str, Policy, &str)] = &[
    (
        "edge-cases/e18-vmcall-real-mode-amd",
        Policy::TrapAndPatch,
        "moved between the patch and the call in real mode, where Intel's VMMCALL is #UD and is not patched (E17)",
    ),
    (
        "edge-cases/e05-vmmcall-user-mode-intel",
        Policy::TrapAndPatch,
        "moved between the patch and the call at privilege level 3, where AMD answers VMCALL with #GP(0) (E4)",
    ),
    (
        "edge-cases/e35-skipped-first-call",
        Policy::SkipFirstCall,
        "a move makes the guest's instruction foreign again, and the first call of a foreign one is lost",
    ),
    (
        "hypercall-life/hypercall-page",
        Policy::HypercallPage,
        "the page that the guest calls was written for the vendor on which it asked for it, and nobody writes it anew: what the commit of 2007 was made to mend",
    ),
    ("hypercall-life/page-read-only", Policy::HypercallPage, "the same; the page cannot even be written"),
    (
        "hypercall-life/policies",
        Policy::SkipFirstCall,
        "each move makes the guest's instruction foreign again, and the first call of a foreign one is lost (E35)",
    ),
    ("smp/peterson-fenced", Policy::TrapAndPatch, "which CPU is let in first is a race, and a move holds both"),
    ("smp/send-ipi", Policy::TrapAndPatch, "which CPU's interrupt comes first is a race, and flags show it"),
];

/// Stories whose guest is another one abroad although it shows no case of the catalogues, and why.
const OTHERS: &[(&str, &str)] = &[
    ("exits/triple-fault", "at the shutdown Intel saves RFLAGS with RF set, and AMD as they were"),
    ("exits/tsc", "it reads the time-stamp counter, which counts another processor's cycles"),
    (
        "hypercall-life/classic-unmodelled",
        "its run ends in the middle of a #UD exit, at which Intel saves RFLAGS with RF set, and AMD as they were",
    ),
    ("hypercall-life/clock-pairing", "it asks for the time"),
    ("migration/old-amd-intel-amd", "the first call of a foreign instruction loses its result, that of a native one does not (E35)"),
    ("migration/old-intel-amd-intel", "the same"),
    ("migration/story-2007", "before 2007 the other vendor's call is the guest's own #UD, and in 2007 its first result is lost (E35)"),
    ("migration/v86-amd-to-intel", "a foreign call in virtual-8086 mode is the guest's own #UD, and stays foreign (E17, E18)"),
    ("migration/v86-intel-to-amd", "the same"),
    ("migration/year-2007", "the first call of a foreign instruction loses its result, that of a native one does not (E35)"),
    ("smp/lock-correct", "which CPU has the lock first is a race, and what instructions cost decides it"),
    ("smp/lock-naive", "the same"),
    ("smp/order-forwarding", "which CPU's access comes first is a race, and what instructions cost decides it"),
    ("smp/order-loads-stores", "the same"),
    ("smp/order-locked-load", "the same"),
    ("smp/order-locked-store", "the same"),
    ("smp/order-locks", "the same"),
    ("smp/order-same-location", "the same"),
    ("smp/order-store-load", "the same"),
    ("smp/order-store-load-fenced", "the same"),
    ("smp/order-store-load-lfence", "the same"),
    ("smp/order-store-load-sfence", "the same"),
    ("smp/order-stores", "the same"),
    ("smp/order-transitive", "the same"),
    ("smp/order-two-readers", "the same"),
    ("smp/sleeper", "whether it sleeps before it is called is a race, and what instructions cost decides it"),
    ("smp/sleeper-fenced", "the same"),
    ("smp/store-torn", "what a CPU saw last of the other's stores is a race, and what instructions cost decides it"),
    ("smp/store-whole", "the same"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What came of the corpus.
#[derive(Default)]
struct Told {
    survived: u64,
    journeys: u64,
    moves: u64,
    live: Vec<Live>,
    /// Stories whose guest came to an end to which it comes at home only when it is held there.
    timely: BTreeSet<String>,
    /// Machines by the words of the rule that left them out.
    rules: BTreeMap<String, u64>,
    /// Rows of the tables above that were needed.
    changed: BTreeSet<usize>,
    others: BTreeSet<usize>,
    /// Cases that the guests show who are others abroad, with the stories.
    cases: BTreeMap<String, BTreeSet<String>>,
    wrong: String,
}

/// The sentence of a rule, without what is particular to one guest.
fn words(rule: &Rule) -> String {
    match rule {
        Rule::Unfit(_) => "the destination cannot run it at all".to_owned(),
        Rule::AtHome(_) => "it is there already".to_owned(),
        Rule::AnotherGuest { .. } => "it is another guest abroad: for which reason, stands below".to_owned(),
        rule => rule.to_string(),
    }
}

fn ask(told: &mut Told, scenario: &Scenario, story: &str, variant: &Variant, effort: Effort) {
    let to = match variant.cpu.vendor {
        Vendor::Intel => &models::ZEN3,
        Vendor::Amd => &models::SKYLAKE_SERVER,
    };
    let verdict = survives(scenario, variant, to, effort, &Options { events: 0, ..Options::default() });
    (told.moves, told.journeys) = (told.moves + verdict.moves, told.journeys + verdict.journeys);
    if verdict.live.iter().any(|live| live.end == End::Held) {
        told.timely.insert(story.to_owned());
    }
    told.live.extend(verdict.live);
    match verdict.outcome {
        Outcome::Survives => told.survived += 1,
        Outcome::NotComparable(rule) => {
            *told.rules.entry(words(&rule)).or_default() += 1;
            if !matches!(rule, Rule::AnotherGuest { .. }) {
                return;
            }
            match OTHERS.iter().position(|(known, _)| *known == story) {
                Some(row) => drop(told.others.insert(row)),
                None if scenario.file.shows.is_empty() => {
                    let _ = writeln!(told.wrong, "{story} on {}: {rule}, and nothing says why", variant.name());
                }
                None => {
                    for case in &scenario.file.shows {
                        told.cases.entry(case.clone()).or_default().insert(story.to_owned());
                    }
                }
            }
        }
        Outcome::Differs(findings) => match CHANGED.iter().position(|(known, policy, _)| *known == story && *policy == variant.policy) {
            Some(row) => drop(told.changed.insert(row)),
            None => {
                let _ = writeln!(told.wrong, "{story} on {}: {findings:#?}", variant.name());
            }
        },
    }
}

/// What docs/move-anywhere.md says behind its mark.
fn page(told: &Told) -> String {
    let mut text = "\n| machines of the corpus | what came of them |\n|---|---|\n".to_owned();
    let _ = writeln!(text, "| {} | they come to the same end from everywhere |", told.survived);
    for (rule, count) in &told.rules {
        let _ = writeln!(text, "| {count} | {rule} |");
    }
    text += "\nGuests that moves do change:\n\n| story | policy | why that is so and stays so |\n|---|---|---|\n";
    for (story, policy, why) in CHANGED {
        let _ = writeln!(text, "| `{story}` | `{}` | {why} |", policy_name(*policy));
    }
    text += "\nGuests that are others abroad, because they are about a difference:\n\n| case | stories |\n|---|---|\n";
    let number = |case: &str| (case.chars().next(), case[1..].parse::<u32>().unwrap_or(0));
    let mut cases: Vec<_> = told.cases.iter().collect();
    cases.sort_by_key(|(case, _)| number(case));
    for (case, stories) in cases {
        let stories: Vec<String> = stories.iter().map(|story| format!("`{story}`")).collect();
        let page = if case.starts_with('M') { "migration-cases.md" } else { "edge-cases.md" };
        let _ = writeln!(text, "| [{case}]({page}) | {} |", stories.join(", "));
    }
    text += "\nAnd for another reason:\n\n| story | why |\n|---|---|\n";
    for (story, why) in OTHERS {
        let _ = writeln!(text, "| `{story}` | {why} |");
    }
    text + &live_text(told)
}

/// The part about live moves.
fn live_text(told: &Told) -> String {
    let mut text = "\n## Live, with faults\n\n| what came of it | pre-copy | post-copy |\n|---|---|---|\n".to_owned();
    let mut row = |what: &str, fits: &dyn Fn(&Live) -> bool| {
        let count = |mode: MoveMode| told.live.iter().filter(|live| live.mode == mode && fits(live)).count();
        let _ = writeln!(text, "| {what} | {} | {} |", count(MoveMode::PreCopy), count(MoveMode::PostCopy));
    };
    row("moves", &|_| true);
    row("moved", &|live| live.fate() == Fate::Moved);
    row("moved in doubt", &|live| live.fate() == Fate::MovedInDoubt);
    row("stayed", &|live| live.fate() == Fate::Stayed);
    row("the guest's run was over before", &|live| live.fate() == Fate::Over);
    row("stranded", &|live| live.fate() == Fate::Stranded);
    for mend in scenario::live::Mend::ALL {
        let helped = |live: &Live| live.fate() == Fate::Stranded && live.report.mended.is_some_and(|it| it.how == mend);
        row(&format!("— and {}", mend.words()), &|live| live.end != End::Lost && helped(live));
    }
    row("— and lost with a host", &|live| live.end == End::Lost);
    row("the guest executed instructions behind the hand-over", &|live| live.report.resumed.is_some() && live.behind > 0);
    row("not compared: a moment of the guest's script came during the move", &|live| live.end == End::Late);
    row("another end, which the guest comes to at home, too, if it is held for no longer", &|live| live.end == End::Held);
    let struck: Vec<&str> = told.live.iter().flat_map(Live::struck).collect();
    text += "\n| fault | how often it struck |\n|---|---|\n";
    for kind in KINDS {
        let _ = writeln!(text, "| {kind} | {} |", struck.iter().filter(|struck| **struck == kind).count());
    }
    let stories: Vec<String> = told.timely.iter().map(|story| format!("`{story}`")).collect();
    if !stories.is_empty() {
        let _ = writeln!(text, "\nIts end depends on how long it is held: {}.", stories.join(", "));
    }
    text
}

#[test]
fn guests_survive_moves_at_every_exit_and_at_random_instructions() {
    let wanted = std::env::var("TRAPLINE_MOVES").ok().and_then(|text| text.parse().ok());
    let moves = wanted.unwrap_or(1);
    let faults = std::env::var("TRAPLINE_FAULTS").ok().map(|text| if text == "full" { 64 } else { text.parse().unwrap_or(1) });
    let effort = Effort { exits: moves, instructions: moves, faults: faults.unwrap_or(1), seed: 1 };
    let mut told = Told::default();
    let scenarios = root().join("scenarios");
    for file in snapshot::scenario_files(&scenarios).expect("there is a corpus") {
        let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let story = snapshot::story_name(&scenarios, &file);
        for variant in &scenario.variants {
            ask(&mut told, &scenario, &story, variant, effort);
        }
    }
    for (row, (story, policy, _)) in CHANGED.iter().enumerate().filter(|(row, _)| !told.changed.contains(row)) {
        let _ = writeln!(told.wrong, "row {row}, {story} under {policy:?}, survives: it needs no excuse any more");
    }
    for (row, (story, _)) in OTHERS.iter().enumerate().filter(|(row, _)| !told.others.contains(row)) {
        let _ = writeln!(told.wrong, "row {row}, {story}, is the same guest abroad: it needs no excuse any more");
    }
    println!("{} survive; {} journeys, {} moves{}", told.survived, told.journeys, told.moves, live_text(&told));
    assert!(told.wrong.is_empty(), "{}", told.wrong);
    assert!(told.survived >= 60 && told.moves >= 2000, "{} guests were moved {} times", told.survived, told.moves);
    if wanted.is_some() || faults.is_some() {
        // More moves find a race more often: the page counts what the few of CI find.
        return;
    }
    const MARK: &str = "<!-- from here on: crates/scenario/tests/move_anywhere.rs -->\n";
    let path = root().join("docs/move-anywhere.md");
    let text = std::fs::read_to_string(&path).expect("there is a page");
    let (head, table) = text.split_once(MARK).expect("the page has a mark");
    let now = page(&told);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{MARK}{now}")).expect("the page can be written");
    } else {
        assert!(table == now, "{} is not what moves say; UPDATE_DOCS=1 writes it anew:\n{now}", path.display());
    }
}
