//! The manual at hand: what is found by which name, and that programs get the rows that people read.

use audit::manual::{Answer, Unknown, check, exit, field, msr};
use serde_json::{Value, json};

#[test]
fn exits_are_found_by_any_of_their_names() {
    for query in ["48", "0x30", "EPT violation", "ept_violation", "EPT_VIOLATION"] {
        assert!(exit(Some(query)).unwrap().text.contains("EPT violation"), "{query}");
    }
    for query in ["npf", "VMEXIT_NPF", "0x400", "400h"] {
        let text = exit(Some(query)).unwrap().text;
        assert!(text.contains("VMEXIT_NPF") && text.contains("EPT violation"), "{query}: {text}");
    }
    assert!(exit(Some("0x80000021")).unwrap().text.contains("invalid guest state"));
    for query in ["-1", "0xffffffffffffffff"] {
        assert!(exit(Some(query)).unwrap().text.contains("VMEXIT_INVALID"), "{query}");
    }
    assert!(exit(Some("-9")).is_err());
    assert!(exit(Some("0xffffffff")).unwrap().text.contains("VMEXIT_INVALID"));
    assert!(exit(Some("ept violatoin")).unwrap_err().to_string().contains("Did you mean"));
}

#[test]
fn fields_of_both_vendors_stand_together() {
    let text = field(Some("guest_cr4")).unwrap().text;
    assert!(text.contains("0x6804") && text.contains("VMCB offset 548h") && text.contains("guest-cr4-fixed"), "{text}");
    for query in ["0x6804", "CR4", "Guest CR4"] {
        assert!(field(Some(query)).unwrap().text.contains("Guest CR4"), "{query}");
    }
    assert!(field(Some("GuestCr5")).unwrap_err().to_string().contains("`GuestCr4`"));
}

#[test]
fn msrs_and_checks_are_found() {
    for query in ["IA32_VMX_PROCBASED_CTLS2", "vmx_procbased_ctls2", "0x48b", "MSR_IA32_VMX_PROCBASED_CTLS2"] {
        assert!(msr(Some(query)).unwrap().text.contains("enable EPT"), "{query}");
    }
    assert!(check(Some("asid_zero")).unwrap().text.contains("VMEXIT_INVALID"));
    assert_eq!(msr(Some("zzz")).unwrap_err().to_string(), "there is no MSR `zzz`. `trapline explain msr` lists all there are.");
    assert!(check(Some("asid-zer")).unwrap_err().to_string().contains("`asid-zero`"));
    for all in [exit(None), field(None), check(None), msr(None)] {
        assert!(all.unwrap().text.lines().count() > 60);
    }
}

#[test]
fn rows_hold_the_columns_of_the_tables() {
    let rows = exit(Some("npf")).unwrap().rows;
    assert_eq!((&rows[0]["vendor"], &rows[0]["number"], &rows[0]["name"]), (&"SVM".into(), &"0x400".into(), &"VMEXIT_NPF".into()));
    assert_eq!((&rows[1]["name"], &rows[1]["linux"]), (&"EptViolation".into(), &"EPT_VIOLATION".into()));
    assert_eq!(rows[0]["counterparts"][0]["name"], rows[1]["name"]);
    assert_eq!(rows[0]["information"]["bits"][1], json!({ "low": 1, "width": 1, "name": "write" }));
    let vmrun = &exit(Some("vmrun")).unwrap().rows[0];
    assert_eq!(vmrun["intercept"], json!({ "word": "INTERCEPTS[4]", "offset": "0x10", "bit": 0 }));
    let rows = field(Some("guest_tr_access_rights")).unwrap().rows;
    assert_eq!((&rows[0]["encoding"], &rows[0]["width"], &rows[0]["checks"][0]), (&"0x4822".into(), &32.into(), &"guest-tr-type".into()));
    assert_eq!((&rows[1]["offset"], &rows[0]["counterparts"][0]), (&"0x492".into(), &rows[1]["name"]));
    let rows = field(Some("ept_pointer")).unwrap().rows;
    assert_eq!(rows[0]["requires_one_of"], json!(["enable EPT"]));
    let rows = check(Some("guest-tr-type")).unwrap().rows;
    assert_eq!((&rows[0]["reads"][1], &rows[0]["outcome"]["exit_reason"]), (&"EntryControls".into(), &"0x80000021".into()));
    let rows = msr(Some("0x48b")).unwrap().rows;
    assert!(rows[0]["values"][0]["may_be_either"].as_array().unwrap().contains(&json!({ "bit": 1, "name": "enable EPT" })));
    assert_eq!(msr(Some("efer")).unwrap().rows[0]["values"][0]["must_be_one"], Value::Null);
}

/// A table without a name gives every row, and each row is what its own name gives.
#[test]
fn all_rows_are_those_of_their_names() {
    type LookUp = fn(Option<&str>) -> Result<Answer, Unknown>;
    for (look_up, most) in [(exit as LookUp, 40), (field, 40), (check, 400), (msr, 400)] {
        let all = look_up(None).unwrap().rows;
        assert!(all.len() > 60);
        for row in all.iter().take(most) {
            let name = row["name"].as_str().unwrap();
            assert!(look_up(Some(name)).unwrap().rows.contains(row), "{name}");
        }
    }
}
