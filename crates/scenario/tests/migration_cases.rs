//! The catalogue of migration cases, docs/migration-cases.md: `UPDATE_DOCS=1 cargo test -p trapline-scenario --test migration_cases` writes it
//! anew.

mod catalogue;

use catalogue::Catalogue;
use catalogue::Status::{self, Missing, Shown};

/// The cases, with what happens under today's KVM if nothing else is said.
const CASES: &[(&str, &str, Status)] = &[
    ("M1", "Writable text, there and back: one #UD and one patch for each site and hop, then native speed", Shown),
    (
        "M2",
        "Read-only text: the guest lives until its first hypercall, a page fault with error code 3; it goes on where #UD comes instead and its \
         handler mends the instruction (`patch-or-ud`, `quirk-off`), or where the call is answered in place (`direct`)",
        Shown,
    ),
    ("M3", "The quirk off on the destination: #UD; the guest mends the instruction, or dies", Shown),
    (
        "M4",
        "A 32-bit program that calls by SYSENTER (booted on Intel) or SYSCALL (booted on AMD): the other vendor raises #UD, and the hypervisor \
         emulates the call, with an exit each",
        Shown,
    ),
    (
        "M5",
        "The same where the guest was told of the wrong vendor: #UD; but SYSCALL in compatibility mode works on AMD and cannot be made to fail",
        Shown,
    ),
    ("M6", "Addresses of SYSENTER above 32 bits: AMD's registers lose them; kept by the hypervisor for Intel-compatible guests", Shown),
    ("M7", "SYSENTER in 64-bit mode: works on Intel, is #UD on AMD and not emulated", Shown),
    ("M8", "Attributes of segments: accessed, granularity, busy and unusable are made to fit, or VM entry would fail", Shown),
    ("M9", "Two ways of packing the same attributes, one without a bit for unusable", Shown),
    ("M10", "The privilege level, which AMD keeps apart and Intel in the DPL of SS", Shown),
    ("M11", "An event in delivery: crosses as what it is and is injected again, once", Shown),
    ("M12", "INT n in delivery: does not cross; the instruction is executed again", Shown),
    ("M13", "An error code with bits 31:16: cut off on Intel", Shown),
    ("M14", "The interrupt shadow: AMD has one bit for two kinds, and what comes back is the stronger one", Shown),
    ("M15", "A shadow with TF: marked as a pending step for Intel; other pending debug exceptions are lost on AMD", Shown),
    ("M16", "Blocking by NMI: in the VMCS on Intel, remembered until IRET on AMD", Shown),
    ("M17", "An NMI in delivery: blocking is taken back before it is injected again", Shown),
    (
        "M18",
        "Bits of EFER that AMD alone has (FFXSR, TCE): cleared on Intel, and a write of one is refused there; a move back does not bring them back",
        Shown,
    ),
    ("M19", "The time-stamp counter: goes on at the guest's own rate, scaled in the format of either vendor", Shown),
    ("M20", "Entries of PAE paging: held in registers on Intel, read by every walk on AMD", Shown),
    ("M21", "Registers of one vendor: kept by the hypervisor for the model that the guest was told of", Shown),
    ("M22", "XSAVE: PKRU lies elsewhere; lost, unless the guest is not told of protection keys", Shown),
    ("M23", "More or fewer address bits than the guest was told of: reserved bits are none, or addresses are reserved", Shown),
    ("M24", "1-GiB pages work where the processor has them, whatever CPUID says", Shown),
    ("M25", "The upper half of IA32_TSC_AUX: refused or ignored, as the guest's vendor does", Shown),
    ("M26", "The interrupt of a performance counter masks its entry, or does not, as the guest's vendor does", Shown),
    ("M27", "A code breakpoint behind MOV SS: held back by Intel, taken by AMD; the processor decides", Shown),
    ("M28", "What a kernel found out when it booted: SYSRET and the stack segment, null selectors and bases", Shown),
    ("M29", "A guest that runs a guest itself", Missing("guests that are hypervisors themselves run on the bare machine only")),
    ("M30", "Whose rules: AMD's for AuthenticAMD and HygonGenuine, Intel's for every other name", Shown),
    ("M31", "The task priority: four bits in AMD's silicon, all eight in the local APIC", Shown),
    ("M32", "The hypercall page of Hyper-V: the destination writes it anew with its own instruction, so nothing has to be patched", Shown),
];

const CATALOGUE: Catalogue = Catalogue {
    letter: 'M',
    cases: CASES,
    page: "docs/migration-cases.md",
    head: "# Migration cases\n\nWhat a guest can meet that moves to the other vendor, and the scenarios that show it: in their key `shows` they say so. \
           What happens is said for KVM of\ntoday. `trapline ledger FROM TO` says which of it a pair of models has in store, and [the \
           hypervisor](hypervisor.md#moving-to-the-other-vendor) how a move works.",
    directory: "scenarios/migration",
    test: "migration_cases",
};

#[test]
fn every_migration_case_is_shown_or_says_why_not() {
    CATALOGUE.check_cases();
}

#[test]
fn names_and_keys_agree() {
    CATALOGUE.check_names();
}

#[test]
fn the_page_of_migration_cases_is_current() {
    CATALOGUE.check_page();
}
