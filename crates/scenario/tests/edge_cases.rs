//! The catalogue of edge cases, docs/edge-cases.md: `UPDATE_DOCS=1 cargo test -p trapline-scenario --test edge_cases` writes it anew.

mod catalogue;

use catalogue::Catalogue;
use catalogue::Status::{self, Missing, Shown};

const CONFIDENTIAL: Status = Missing("confidential guests are not modelled");
const NESTED: Status = Missing("guests that are hypervisors themselves run on the bare machine only");

/// The cases, with what happens under today's KVM if nothing else is said.
const CASES: &[(&str, &str, Status)] = &[
    ("E1", "The native instruction at privilege level 0: one exit, the result in RAX, RIP three bytes on", Shown),
    ("E2", "The foreign instruction in writable text: #UD exits, three bytes change, and the native one exits", Shown),
    ("E3", "The foreign instruction, quirk off: #UD, and no byte changes", Shown),
    ("E4", "VMCALL at privilege level 3 on AMD: #GP(0) rather than #UD, also with the quirk off", Shown),
    ("E5", "VMMCALL at privilege level 3 on Intel: patched where the user may write, and refused with -1; else a page fault", Shown),
    ("E6", "The native instruction at privilege level 3: it exits, and the call is refused with -1", Shown),
    ("E7", "Read-only text, CR0.WP set: page fault, error code 3, CR2 is RIP", Shown),
    ("E8", "Read-only text, CR0.WP clear: patched", Shown),
    ("E9", "Text that is not mapped any more, but still in the TLB: #UD", Shown),
    ("E10", "A call over a page boundary, both pages writable: two writes", Shown),
    ("E11", "The same, second page read-only: page fault at the second page, and the opcode is unchanged", Shown),
    ("E12", "The same, first page read-only: page fault at RIP, nothing is written", Shown),
    ("E13", "A call in the last three canonical bytes: it succeeds, and the next fetch is #GP(0)", Shown),
    ("E14", "LOCK before the foreign instruction: #UD", Shown),
    ("E15", "Other prefixes: the patch starts at the prefix and leaves a remnant behind", Shown),
    ("E16", "A code segment with a base: RIP is taken for a linear address, and the wrong bytes are patched for ever", Shown),
    ("E17", "VMMCALL in real mode or virtual-8086 mode on Intel: #UD, not patched", Shown),
    ("E18", "VMCALL on AMD: patched in real mode, #GP(0) in virtual-8086 mode", Shown),
    ("E19", "Text in a read-only memory slot: the write leaves for user space, for ever", Shown),
    ("E20", "Text in private memory of a confidential guest: cannot be patched", CONFIDENTIAL),
    ("E21", "SEV: #UD is not intercepted; SEV-ES calls by VMGEXIT", CONFIDENTIAL),
    ("E22", "TDX: TDCALL instead of VMCALL", CONFIDENTIAL),
    ("E23", "TF set: a single-step trap with RIP still at the call, then the call", Shown),
    ("E24", "Behind STI: the patch consumes the shadow, so an interrupt comes before the call", Shown),
    ("E25", "Forced emulation of the native instruction: it is rewritten with itself, which read-only text refuses", Shown),
    ("E26", "Two CPUs at one call site: both may trap, both write the same bytes", Shown),
    ("E27", "VMMCALL of a nested guest on AMD that its hypervisor does not intercept: #UD; formerly an endless loop", NESTED),
    ("E28", "VMCALL of a nested guest on Intel: exits to its own hypervisor", NESTED),
    ("E29", "VMMCALL of a nested guest on Intel: never patched", NESTED),
    ("E30", "VMCALL of a nested guest on AMD: the outer hypervisor patches its text", NESTED),
    ("E31", "Guest state that VM entry refuses, without unrestricted guests: emulated, where patching and trying again never ends", Shown),
    ("E32", "An unknown number: -1000, in the width of the mode", Shown),
    ("E33", "Compatibility mode: registers count as 32 bits today, as 64 in 2007", Shown),
    ("E34", "A call whose feature bit the guest lacks: works, unless features are enforced", Shown),
    ("E35", "Historic: the first result lost (2007), the first call skipped on Intel (to 2015)", Shown),
    (
        "E36",
        "A native instruction that raises #UD for another reason: patched with itself for ever",
        Missing("only E27 could bring it about"),
    ),
];

const CATALOGUE: Catalogue = Catalogue {
    letter: 'E',
    cases: CASES,
    page: "docs/edge-cases.md",
    head: "# Edge cases\n\nWhat a hypercall can meet, and the scenarios that show it: in their key `shows` they say so. What happens is said for \
           KVM of today.",
    directory: "scenarios/edge-cases",
    test: "edge_cases",
};

#[test]
fn every_edge_case_is_shown_or_says_why_not() {
    CATALOGUE.check_cases();
}

#[test]
fn names_and_keys_agree() {
    CATALOGUE.check_names();
}

#[test]
fn the_page_of_edge_cases_is_current() {
    CATALOGUE.check_page();
}
