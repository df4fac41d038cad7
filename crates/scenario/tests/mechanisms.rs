//! The mechanisms of the silicon and the scenarios that show them, docs/mechanisms.md:
//! `UPDATE_DOCS=1 cargo test -p trapline-scenario --test mechanisms` writes it anew.

use models::Vendor;
use scenario::load::Scenario;
use scenario::snapshot;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A vendor's part in a mechanism.
enum Cell {
    /// A scenario shows it.
    Shown,
    /// There is none, for the reason given.
    None(&'static str),
}

use Cell::{None as Not, Shown};

/// The name in `shows`, what it is, and what Intel and AMD have of it.
const MECHANISMS: &[(&str, &str, [Cell; 2])] = &[
    ("interrupt-window", "The host wants to know when the guest can take an interrupt", [Shown, Shown]),
    ("nmi-window", "The same for an NMI; on AMD by the intercept of IRET", [Shown, Shown]),
    (
        "virtual-nmis",
        "The processor keeps the guest's blocking by NMI",
        [Shown, Not("virtual NMIs came with Zen 4: the hypervisor remembers it")],
    ),
    ("inject-interrupt", "Injection of an external interrupt", [Shown, Shown]),
    ("inject-nmi", "Injection of an NMI", [Shown, Shown]),
    ("inject-exception", "Injection of an exception with an error code", [Shown, Shown]),
    ("inject-software", "Injection of a software interrupt", [Shown, Shown]),
    ("interrupted-delivery", "An exit during the delivery of an event: IDT-vectoring information, EXITINTINFO", [Shown, Shown]),
    ("interrupt-shadow", "Blocking by STI and MOV SS across exits", [Shown, Shown]),
    ("held-events", "Everything is held back by the silicon", [Not("VMX has nothing like the global interrupt flag"), Shown]),
    ("nested-violation", "EPT violation, nested page fault", [Shown, Shown]),
    (
        "nested-misconfiguration",
        "An entry of nested tables that no processor accepts",
        [Shown, Not("NPT has no second kind: reserved bits are told by a bit of EXITINFO1, in `svm/nested-page-faults`")],
    ),
    ("accessed-dirty", "Accessed and dirty flags in nested tables", [Shown, Shown]),
    ("modification-log", "The page-modification log", [Shown, Not("no AMD processor of these years has one")]),
    ("stale-translation", "An entry of nested tables changed without INVEPT or INVLPGA", [Shown, Shown]),
    ("virtualization-exception", "A violation that goes to the guest itself, #VE", [Shown, Not("SVM has no such thing")]),
    ("vm-functions", "The guest switches its nested tables itself", [Shown, Not("SVM has no such thing")]),
    ("execute-control", "Nested tables tell the kernel's code from that of programs", [Shown, Shown]),
    ("port-bitmap", "Ports one by one", [Shown, Shown]),
    ("msr-bitmap", "Model-specific registers one by one", [Shown, Shown]),
    ("control-registers", "Masks and shadows, or intercepts, of control registers", [Shown, Shown]),
    ("task-priority", "The guest's CR8: TPR shadow and threshold, V_TPR", [Shown, Shown]),
    (
        "virtual-interrupts",
        "The processor evaluates and delivers virtual interrupts",
        [Shown, Not("AVIC is not offered; V_IRQ is in `svm/task-priority`")],
    ),
    ("posted-interrupts", "An interrupt for a running guest without an exit", [Shown, Not("AVIC and its doorbell are not offered")]),
    ("preemption-timer", "The guest leaves after a time", [Shown, Not("SVM has no timer; hosts use the local APIC's")]),
    ("monitor-trap", "The guest leaves after an instruction", [Shown, Not("SVM has none; hosts set RFLAGS.TF")]),
    ("pause", "A guest that spins leaves: PAUSE-loop exiting, PAUSE filter", [Shown, Shown]),
    ("nested-assists", "Help for guests that are hypervisors: VMCS shadowing, virtual VMLOAD", [Shown, Shown]),
    (
        "kept-state",
        "What the processor keeps of the control structure",
        [Not("a VMCS is reached by instructions only, so nothing can be stale"), Shown],
    ),
    ("last-branches", "Last-branch records of host and guest", [Shown, Shown]),
    ("time-stamp-counter", "Offset and scale of the time-stamp counter", [Shown, Shown]),
    ("task-switch", "A hardware task switch", [Shown, Shown]),
    ("numeric-error", "An x87 error with CR0.NE clear", [Shown, Shown]),
    ("shutdown", "A triple fault", [Shown, Shown]),
    ("refused-entry", "Entries that the checks refuse", [Shown, Shown]),
];

/// In the order of the cells.
const VENDORS: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];

const COMMAND: &str = "UPDATE_DOCS=1 cargo test -p trapline-scenario --test mechanisms";

fn root(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory)
}

/// Names of the scenarios by mechanism and vendor that they show.
fn shown() -> BTreeMap<(String, Vendor), Vec<String>> {
    let root = root("scenarios");
    let mut shown: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for file in snapshot::scenario_files(&root).expect("there is a corpus") {
        let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for vendor in VENDORS {
            if scenario.variants.iter().any(|variant| variant.cpu.vendor == vendor) {
                for name in scenario.file.shows.iter().filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase())) {
                    shown.entry((name.clone(), vendor)).or_default().push(snapshot::story_name(&root, &file));
                }
            }
        }
    }
    shown
}

#[test]
fn every_mechanism_is_shown_on_both_vendors_or_says_why_not() {
    let shown = shown();
    let mut wrong = String::new();
    for ((name, _), scenarios) in &shown {
        if !MECHANISMS.iter().any(|(known, ..)| known == name) {
            let _ = writeln!(wrong, "{scenarios:?} show {name}, which is no mechanism of the table");
        }
    }
    for (name, _, cells) in MECHANISMS {
        for (vendor, cell) in VENDORS.into_iter().zip(cells) {
            match (cell, shown.get(&((*name).to_owned(), vendor))) {
                (Shown, None) => writeln!(wrong, "no scenario shows {name} on {vendor:?}").expect("a String takes all"),
                (Not(_), Some(scenarios)) => {
                    writeln!(wrong, "{scenarios:?} show {name} on {vendor:?} after all").expect("a String takes all");
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_page_of_mechanisms_is_current() {
    let shown = shown();
    let mut page = format!(
        "# Mechanisms\n\nWhat the silicon of both vendors does for a hypervisor, and the scenarios that show it: in their key `shows` they say \
         so. A cell without one says why.\n[silicon.md](silicon.md) tells how it is modelled. This page is written by a test: \
         `{COMMAND}`.\n\n| mechanism | what | Intel | AMD |\n|---|---|---|---|\n"
    );
    for (name, what, cells) in MECHANISMS {
        let cell = |(vendor, cell): (Vendor, &Cell)| match cell {
            Shown => {
                let stories = shown.get(&((*name).to_owned(), vendor)).map_or(&[][..], Vec::as_slice);
                stories.iter().map(|story| format!("`{story}`")).collect::<Vec<_>>().join(", ")
            }
            Not(why) => format!("none: {why}"),
        };
        let [intel, amd] = [0, 1].map(|index| cell((VENDORS[index], &cells[index])));
        let _ = writeln!(page, "| `{name}` | {what} | {intel} | {amd} |");
    }
    let file = root("docs/mechanisms.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let current = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(current == page, "docs/mechanisms.md is not current: {COMMAND}");
}
