//! The tables against themselves and against the evidence beside them.

use std::collections::{BTreeMap, BTreeSet};
use timing::{Charge, Cost, CostModel, Event, InstructionClass, MODELS, OverrideError, SoftwareWork, Ticks, Why};

#[test]
fn every_row_of_every_model_says_why() {
    for model in MODELS {
        for row in model.rows() {
            let text = row.cost.why.text();
            assert!(text.len() >= 8, "{}.{}: `{text}` is no reason", model.name, row.name);
            assert!(!row.doc.is_empty() && row.doc.ends_with('.'), "{}: `{}`", row.name, row.doc);
            let absent = matches!(row.cost.why, Why::Absent(_));
            assert!(!absent || row.cost.ticks == 0, "{}.{} is absent and costs something", model.name, row.name);
        }
    }
}

#[test]
fn an_instruction_that_exists_takes_time() {
    for model in MODELS {
        for &class in InstructionClass::ALL {
            let cost = model.instruction(class);
            assert!(cost.ticks >= 1 || matches!(cost.why, Why::Absent(_)), "{}.{}", model.name, class.name());
        }
    }
}

#[test]
fn row_names_are_unique_and_the_same_in_serde() {
    let names: Vec<_> = MODELS[0].rows().map(|row| row.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let in_json = |row: serde_json::Result<serde_json::Value>| row.unwrap().as_str().unwrap().to_owned();
    for &row in InstructionClass::ALL {
        assert_eq!(in_json(serde_json::to_value(row)), row.name());
    }
    for &row in Event::ALL {
        assert_eq!(in_json(serde_json::to_value(row)), row.name());
    }
    for &row in SoftwareWork::ALL {
        assert_eq!(in_json(serde_json::to_value(row)), row.name());
    }
}

#[test]
fn a_model_is_exported_with_its_sources() {
    let json = serde_json::to_value(CostModel::by_name("merom").unwrap()).unwrap();
    assert_eq!(json["alu"]["cycles"], "0.25");
    assert_eq!(json["vm_exit"]["kind"], "measured");
    let rows = MODELS[0].rows().count();
    assert_eq!(json.as_object().unwrap().len(), rows + 2, "every row, the name and the title");
}

#[test]
fn models_are_found_by_name_and_the_error_lists_them() {
    for model in MODELS {
        assert_eq!(CostModel::by_name(model.name).unwrap().name, model.name);
    }
    assert_eq!(
        CostModel::by_name("pentium").unwrap_err().to_string(),
        "no cost model `pentium`; there are merom, k8-rev-f, skylake-server, zen3"
    );
}

/// Every row that quotes LLVM's model or InstLatx64 has the number that is in the evidence file, and every line of evidence is used.
#[test]
fn quoted_rows_agree_with_the_evidence() {
    let llvm = "reciprocal throughput of: ";
    let files = [
        ("skylake-server", llvm, include_str!("../src/models/skylake_server.llvm.txt")),
        ("zen3", llvm, include_str!("../src/models/zen3.llvm.txt")),
        ("merom", "InstLatx64, Core 2 X6800 (06F6H): ", include_str!("../src/models/merom.instlatx64.txt")),
        ("k8-rev-f", "InstLatx64, Athlon 64 X2 3800+ (K8 revision E): ", include_str!("../src/models/k8_rev_f.instlatx64.txt")),
        ("skylake-server", "InstLatx64, Skylake-X i7-7900X: ", include_str!("../src/models/skylake_server.instlatx64.txt")),
        ("zen3", "InstLatx64, Zen 3 R9-5950X: ", include_str!("../src/models/zen3.instlatx64.txt")),
    ];
    for (name, source, text) in files {
        let evidence: BTreeMap<&str, f64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(" | ").expect("shape | number"))
            .map(|(shape, number)| (shape, number.parse().expect("a number")))
            .collect();
        let mut used = BTreeSet::new();
        for row in CostModel::by_name(name).unwrap().rows() {
            let Some((_, shape)) = row.cost.why.text().split_once(source) else { continue };
            // A text that ends in "cycles" or a difference tells its numbers itself.
            if shape.contains(" cycles") {
                continue;
            }
            let cycles = evidence.get(shape).unwrap_or_else(|| panic!("{name}.{}: no evidence for `{shape}`", row.name));
            let ticks = ((cycles * 4.0).round() as u32).max(1);
            assert_eq!(row.cost.ticks, ticks, "{name}.{}: `{shape}` takes {cycles} cycles", row.name);
            used.insert(shape);
        }
        let quoted: BTreeSet<_> = evidence.keys().copied().collect();
        assert_eq!(used, quoted, "{name}: lines of evidence that no row uses");
    }
}

/// The sums that were measured are met by the rows they were split into.
#[test]
fn measured_round_trips_are_met() {
    let both_ways = |name: &str| {
        let model = CostModel::by_name(name).unwrap();
        (model.vm_exit.time() + model.vm_entry.time()).cycles()
    };
    assert_eq!(both_ways("merom"), 1579, "Agesen and others 2012, table 1");
    let zen3 = CostModel::by_name("zen3").unwrap();
    let around_vmrun = both_ways("zen3") + (zen3.vmload.time() * 2 + zen3.vmsave.time()).cycles();
    assert_eq!(around_vmrun, 1360, "Roth 2020");
    let in_software = (zen3.exit_dispatch.time() + zen3.hypercall_handler.time()).cycles();
    assert_eq!(around_vmrun + in_software, 3388, "TUM CVM_eval 2024, VMMCALL");
    let k8 = CostModel::by_name("k8-rev-f").unwrap();
    let null_hypercall = both_ways("k8-rev-f") + (k8.exit_dispatch.time() + k8.hypercall_handler.time()).cycles();
    assert_eq!(null_hypercall, 3300, "Xen commit f64b7618e1");
    let skylake = CostModel::by_name("skylake-server").unwrap();
    let light = both_ways("skylake-server") + (skylake.exit_dispatch.time() + skylake.hypercall_handler.time()).cycles();
    assert_eq!(light, 1500, "Christopherson 2021");
}

#[test]
fn a_charge_knows_its_assumed_share() {
    let mut charge = Charge::ZERO;
    assert_eq!(charge.share_assumed(), 0);
    charge.add(&Cost::in_cycles(3, Why::Measured("a bench")), 1);
    charge.add(&Cost::in_cycles(1, Why::Assumed("a guess")), 1);
    assert_eq!((charge.total, charge.assumed), (Ticks(16), Ticks(4)));
    assert_eq!(charge.share_assumed(), 250);
    charge += Charge { total: Ticks(u64::MAX), assumed: Ticks(u64::MAX) };
    assert_eq!(charge.share_assumed(), 1000, "sums and shares saturate and do not wrap");
}

#[test]
fn quarters_of_a_cycle_are_printed_exactly() {
    let printed = [0, 1, 2, 3, 4, 93].map(|ticks| Ticks(ticks).to_string());
    assert_eq!(printed, ["0", "0.25", "0.50", "0.75", "1", "23.25"]);
}

#[test]
fn a_scenario_may_replace_a_row_that_exists() {
    let mut model = CostModel::by_name("merom").unwrap().clone();
    model.set_cycles("vm_exit", 2000).unwrap();
    assert_eq!(model.vm_exit.time().cycles(), 2000);
    assert_eq!(model.vm_exit.why.kind(), "scenario");
    assert!(model.vm_exit.why.is_assumed());
    assert_eq!(model.set_cycles("vmexit", 1).unwrap_err().to_string(), "no cost row `vmexit`");
    assert_eq!(model.set_cycles("walk_level", 1).unwrap_err().to_string(), "no cost row `walk_level`; did you mean `page_walk_level`?");
    assert_eq!(
        model.set_cycles("vmload", 1).unwrap_err().to_string(),
        "`vmload` cannot happen on this processor: no SVM on this processor"
    );
    assert!(matches!(model.set_cycles("vm_exit", u64::MAX), Err(OverrideError::TooLarge { limit, .. }) if limit == 0x3fff_ffff));
}

#[test]
fn the_printed_tables() {
    for model in MODELS {
        insta::assert_snapshot!(format!("costs-{}", model.name), model.report());
    }
}
