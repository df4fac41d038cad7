//! The mistakes that authors of hypervisors make most, each in an otherwise valid VMCS or VMCB: the report names that rule first.

use audit::{assess, read, text};
use serde_json::{Value, json};
use std::path::Path;

const VMCS: &str = include_str!("valid-vmcs.json");
const VMCB: &str = include_str!("valid-vmcb.json");

/// A mistake: its name, what is changed and to which value, the rule that the report names first.
type Mistake = (&'static str, Vec<(&'static str, Value)>, &'static str);

fn vmcs_mistakes() -> Vec<Mistake> {
    vec![
        ("wrong revision identifier", vec![("/region/revision", json!("0x10"))], "vmptrld-revision"),
        ("control not allowed", vec![("/vmcs/PrimaryProcessorBasedControls", json!("0x80000000"))], "primary-allowed"),
        ("virtual address of the MSR bitmap", vec![("/vmcs/MsrBitmapAddress", json!("0xffff888012345008"))], "msr-bitmap-address"),
        ("walk length in the EPT pointer", vec![("/vmcs/EptPointer", json!("0x0000000103f19066"))], "eptp-walk-length"),
        ("host without a task register", vec![("/vmcs/HostTrSelector", json!(0))], "host-tr-not-null"),
        ("host selector with an RPL", vec![("/vmcs/HostDsSelector", json!("0x2b"))], "host-ds-selector"),
        ("host RIP not canonical", vec![("/vmcs/HostRip", json!("0x0001ffffc0a1444f"))], "host-64-bit-rip"),
        ("64-bit host not told", vec![("/vmcs/PrimaryExitControls", json!("0x002fedff"))], "host-efer-lma"),
        ("CR4.VMXE clear in the guest's CR4", vec![("/vmcs/GuestCr4", json!("0x000006f0"))], "guest-cr4-fixed"),
        ("CR0.NE clear in the guest's CR0", vec![("/vmcs/GuestCr0", json!("0x80050011"))], "guest-cr0-fixed"),
        ("IA-32e mode guest without LMA", vec![("/vmcs/GuestEfer", json!("0x901"))], "guest-efer-lma"),
        ("available TSS", vec![("/vmcs/GuestTrAccessRights", json!("0x89"))], "guest-tr-type"),
        ("unusable TR", vec![("/vmcs/GuestTrAccessRights", json!("0x1008b"))], "guest-tr-usable"),
        ("granularity against the limit", vec![("/vmcs/GuestCsLimit", json!("0xfffffffe"))], "guest-cs-granularity"),
        ("code segment not accessed", vec![("/vmcs/GuestCsAccessRights", json!("0xa09a"))], "guest-cs-type"),
        ("zeroed RFLAGS", vec![("/vmcs/GuestRflags", json!(0))], "guest-rflags-fixed"),
        (
            "interrupt injected with IF clear",
            vec![("/vmcs/EntryInterruptionInformation", json!("0x80000030")), ("/vmcs/GuestRflags", json!("0x46"))],
            "guest-rflags-if",
        ),
        (
            "page fault injected without error code",
            vec![("/vmcs/EntryInterruptionInformation", json!("0x8000030e"))],
            "injected-error-code-vector",
        ),
        ("reserved activity state", vec![("/vmcs/GuestActivityState", json!(4))], "guest-activity-supported"),
        (
            "FS base in the MSR-load list",
            vec![
                ("/vmcs/EntryMsrLoadCount", json!(3)),
                ("/vmcs/EntryMsrLoadAddress", json!("0x103f1b000")),
                (
                    "/memory/entry_msr_load",
                    json!([
                        { "index": "0xc0000081", "value": "0x23001000000000" },
                        { "index": "0xc0000100", "value": "0x7f1234567000" },
                        { "index": "0x808", "value": 0 }
                    ]),
                ),
            ],
            "msr-load-base",
        ),
        (
            "address not canonical in the MSR-load list",
            vec![
                ("/vmcs/EntryMsrLoadCount", json!(3)),
                (
                    "/memory/entry_msr_load",
                    json!([
                        { "index": "0x48", "value": 1 },
                        { "index": "0xc0000082", "value": "0x8000ffff81a00000" }
                    ]),
                ),
            ],
            "msr-load-value",
        ),
        ("VMCS link pointer to no page", vec![("/vmcs/VmcsLinkPointer", json!("0x1008"))], "link-pointer-address"),
    ]
}

fn vmcb_mistakes() -> Vec<Mistake> {
    vec![
        ("EFER.SVME clear", vec![("/vmcb/EFER", json!("0xd01"))], "efer-svme"),
        ("long mode without PAE", vec![("/vmcb/CR4", json!("0x6d0"))], "long-mode-needs-pae"),
        ("CS both 64-bit and 32-bit", vec![("/vmcb/CS/ATTRIB", json!("0xe9b"))], "cs-long-and-default"),
        ("reserved bit of CR4", vec![("/vmcb/CR4", json!("0x26f0"))], "cr4-reserved"),
        ("sign-extended CR0", vec![("/vmcb/CR0", json!("0xffffffff80010033"))], "cr0-high"),
        ("VMRUN not intercepted", vec![("/vmcb/INTERCEPTS/4", json!("0x224e"))], "vmrun-intercept"),
        ("ASID 0", vec![("/vmcb/GUEST_ASID", json!(0))], "asid-zero"),
        ("MSR permission map out of range", vec![("/vmcb/MSRPM_BASE_PA", json!("0xffff888012345000"))], "msrpm-address"),
        ("NMI injected as an exception", vec![("/vmcb/EVENTINJ", json!("0x80000302"))], "event-vector"),
        ("G_PAT with a reserved type", vec![("/vmcb/G_PAT", json!("0x0007040600070306"))], "g-pat"),
    ]
}

/// The document with some values changed, as a person would have written it.
fn changed(valid: &str, changes: &[(&str, Value)]) -> String {
    let mut document: Value = serde_json::from_str(valid).unwrap();
    for (path, value) in changes {
        let (parent, key) = path.rsplit_once('/').unwrap();
        if document.pointer(parent).is_none() {
            document[parent.trim_start_matches('/')] = json!({});
        }
        match document.pointer_mut(parent).unwrap() {
            Value::Array(elements) => elements[key.parse::<usize>().unwrap()] = value.clone(),
            object => object[key] = value.clone(),
        }
    }
    format!("{document:#}\n")
}

fn report(document: &str) -> (Option<&'static str>, String) {
    let mut state = read(document, None).unwrap_or_else(|error| panic!("{error}: {document}"));
    let assessment = assess(&mut state);
    let first = assessment.broken.first().map(|finding| finding.rule.id);
    (first, text::report(&assessment, document, text::SHOWN, &|_, text| text.to_owned()))
}

#[test]
fn the_valid_ones_are_valid() {
    for valid in [VMCS, VMCB] {
        let (first, report) = report(valid);
        assert_eq!(first, None, "{report}");
        assert!(report.starts_with("VALID"), "{report}");
    }
}

#[test]
fn each_mistake_is_named_first() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../snapshots/explain"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    let mut count = 0;
    for (valid, mistakes) in [(VMCS, vmcs_mistakes()), (VMCB, vmcb_mistakes())] {
        for (name, changes, rule) in mistakes {
            let document = changed(valid, &changes);
            let (first, report) = report(&document);
            assert_eq!(first, Some(rule), "{name}:\n{report}");
            let slug: String =
                name.chars().filter(|c| *c != '\'').map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
            insta::assert_snapshot!(slug, report);
            count += 1;
        }
    }
    assert!(count >= 20);
}

#[test]
fn what_linux_printed_is_explained() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../snapshots/explain"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    for (name, dump, rule) in [
        ("kvm-intel-dump", include_str!("../../../docs/examples/dmesg-intel.txt"), "guest-rflags-if"),
        ("kvm-amd-dump", include_str!("../../../docs/examples/dmesg-amd.txt"), "long-mode-needs-pae"),
    ] {
        let (first, report) = report(dump);
        assert_eq!(first, Some(rule), "{name}:\n{report}");
        insta::assert_snapshot!(name, report);
    }
}
