//! Texts of strangers: whatever stands in them, reading and assessing neither panics nor takes long, and every report can be written.

use audit::{assess, json_lines, read, sarif, text};
use proptest::prelude::*;

const INTEL: &str = include_str!("../../../docs/examples/dmesg-intel.txt");
const AMD: &str = include_str!("../../../docs/examples/dmesg-amd.txt");
const VMCS: &str = include_str!("valid-vmcs.json");
const VMCB: &str = include_str!("valid-vmcb.json");

/// Reads, assesses and reports; a text that cannot be read says where.
fn explain(source: &str) {
    match read(source, None) {
        Ok(mut state) => {
            let assessment = assess(&mut state);
            let report = text::report(&assessment, source, usize::MAX, &|_, text| text.to_owned());
            assert!(report.len() < 1 << 20);
            assert!(json_lines::lines(&assessment, source).lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
            assert_eq!(sarif::document(&assessment, "a", source)["version"], "2.1.0");
        }
        Err(error) => assert!(error.place.start <= error.place.end && error.message.len() < 1000, "{error:?}"),
    }
}

/// A text with some of its bytes replaced, cut out or repeated.
fn mangled(source: &'static str) -> impl Strategy<Value = String> {
    let length = source.len();
    prop::collection::vec((0..length, 0..40_usize, any::<char>(), 0..3_u8), 0..12).prop_map(move |changes| {
        let mut characters: Vec<char> = source.chars().collect();
        for (at, span, with, how) in changes {
            let at = at.min(characters.len());
            let end = (at + span).min(characters.len());
            match how {
                0 => characters[at..end].fill(with),
                1 => drop(characters.drain(at..end)),
                _ => {
                    let copy: Vec<char> = characters[at..end].to_vec();
                    characters.splice(at..at, copy);
                }
            }
        }
        characters.into_iter().collect()
    })
}

/// Other values for the fields of a document.
fn other_values(source: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0..64_u32), 1..20).prop_map(move |changes| {
        let mut document: serde_json::Value = serde_json::from_str(source).unwrap();
        let structure = if source.contains("\"vmcs\"") { "vmcs" } else { "vmcb" };
        let fields = document[structure].as_object_mut().unwrap();
        for (index, value, shift) in changes {
            let key = index.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
            fields.insert(key, serde_json::json!(value >> shift));
        }
        document.to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mangled_dumps(source in prop_oneof![mangled(INTEL), mangled(AMD)]) {
        explain(&source);
    }

    #[test]
    fn mangled_documents(source in prop_oneof![mangled(VMCS), mangled(VMCB)]) {
        explain(&source);
    }

    #[test]
    fn documents_of_other_values(source in prop_oneof![other_values(VMCS), other_values(VMCB)]) {
        explain(&source);
    }

    #[test]
    fn any_text(source in ".{0,400}") {
        explain(&source);
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    for (source, words) in [
        ("", "neither JSON"),
        ("{}", "neither a member `vmcs` nor `vmcb`"),
        ("{\"vmcs\": 5}", "an object of fields is wanted"),
        ("{\"vmcs\": {\"GuestCr5\": 1}}", "there is no field `GuestCr5`. Did you mean"),
        ("{\"vmcs\": {\"GuestCsSelector\": \"0x12345\"}}", "has 16 bits"),
        ("{\"vmcs\": {\"GuestCr0\": -1}}", "write a number"),
        ("{\"vmcs\": {\"GuestCr0\": null}}", "write a number"),
        ("{\"vmcs\": {}, \"vmcb\": {}}", "either `vmcs` or `vmcb`"),
        ("{\"vmcb\": \"00\"}", "4096 bytes are wanted"),
        ("{\"vmcs\": {}, \"cpu\": \"zen3\"}", "zen3 has no VMX"),
        ("{\"vmcs\": {}, \"cpu\": \"z80\"}", "no CPU model `z80`"),
        ("{\"vmcs\": {}, \"complet\": true}", "Did you mean `complete`?"),
        ("{\"vmcs\": {", "a key in double quotes"),
    ] {
        let error = read(source, None).expect_err(source);
        assert!(error.message.contains(words), "{source}: {error}");
    }
}

#[test]
fn a_whole_page_is_a_vmcb() {
    let source = format!("{{\"vmcb\": \"{}\"}}", "00".repeat(4096));
    let mut state = read(&source, None).unwrap();
    assert_eq!(assess(&mut state).broken[0].rule.id, "efer-svme");
}

#[test]
fn names_that_linux_gives_are_known() {
    let vmcs = r#"{"vmcs": {"GUEST_CS_AR_BYTES": "a09bh", "VM_ENTRY_CONTROLS": "0b1000000000", "PIN_BASED_VM_EXEC_CONTROL": 22}}"#;
    let state = audit::read(vmcs, None).unwrap();
    assert_eq!(
        (state.known("GuestCsAccessRights"), state.known("EntryControls"), state.known("PinBasedControls")),
        (Some(0xa09b), Some(0x200), Some(22))
    );
    let vmcb =
        r#"{"vmcb": {"control": {"asid": 7, "int_vector": 65, "int_ctl": "0x1000000"}, "save": {"efer": "0x500", "cs": {"attrib": 1}}}}"#;
    let state = audit::read(vmcb, None).unwrap();
    assert_eq!(
        (state.known("GUEST_ASID"), state.known("V_INTR"), state.known("EFER"), state.known("CS.ATTRIB")),
        (Some(7), Some(0x41_0100_0000), Some(0x500), Some(1))
    );
    for (text, says) in [
        (r#"{"VMCS": {}}"#, "Did you mean `vmcs`?"),
        ("KVM: entry failed, hardware error 0x80000021", "dump_invalid_vmcs=1"),
        (r#"{"vmcb": {"int_ctl": "0x100000000"}}"#, "32 bits"),
    ] {
        let error = audit::read(text, None).unwrap_err();
        assert!(error.message.contains(says), "{error}");
    }
}
