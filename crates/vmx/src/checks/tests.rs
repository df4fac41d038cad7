//! For every check: a VMCS in which it applies and every check holds, and a change that breaks it and nothing else.

use super::*;
use isa::vmx::{AllowedSettings, EptVpidCapabilities, VmcsField as F, VmxBasic, VmxMisc};

/// A processor that offers everything, so that each rule can be met without the check of the control words getting in the way.
fn everything() -> VmxCapabilities {
    let all = AllowedSettings::new().with_may_be_one(u32::MAX);
    VmxCapabilities {
        basic: VmxBasic::new().with_revision(0x1234),
        pin_based: all,
        primary: all,
        secondary: all,
        tertiary: u64::MAX,
        exit: all,
        secondary_exit: u64::MAX,
        entry: all,
        misc: VmxMisc::new()
            .with_cr3_target_count(4)
            .with_activity_hlt(true)
            .with_activity_shutdown(true)
            .with_activity_wait_for_sipi(true)
            .with_msr_list_limit(0),
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x01ff_ffff,
        ept_vpid: EptVpidCapabilities::new().with_walk_length_4(true).with_write_back(true),
        vm_functions: 1,
    }
}

fn facts() -> Facts {
    Facts {
        physical_address_width: 46,
        host_long_mode: true,
        efer_reserved: !0xd01,
        debugctl_reserved: !3,
        perf_global_ctrl_reserved: !0x7_0000_000f,
        current_vmcs: 0x5000,
        linked_revision: 0x1234,
        virtual_tpr: 0x80,
        pdptes: [0; 4],
    }
}

const ACTIVATE: (F, u64) = (F::PrimaryProcessorBasedControls, 1 << 31);

/// A 64-bit guest of a 64-bit host, with every control 0 that can be.
fn valid() -> Fields {
    let mut fields = Fields::default();
    for (field, value) in [
        (F::PrimaryExitControls, 1 << 9 | 1 << 15),
        (F::EntryControls, 1 << 9 | 1 << 2 | 1 << 15),
        (F::VmcsLinkPointer, u64::MAX),
        (F::HostCr0, 0x8001_0033),
        (F::HostCr4, 0x2020),
        (F::HostCsSelector, 8),
        (F::HostSsSelector, 16),
        (F::HostTrSelector, 24),
        (F::GuestCr0, 0x8001_0033),
        (F::GuestCr4, 0x2020),
        (F::GuestEfer, 0x500),
        (F::GuestDr7, 0x400),
        (F::GuestRip, 0x1000),
        (F::GuestRflags, 0x202),
        (F::GuestCsSelector, 8),
        (F::GuestSsSelector, 16),
        (F::GuestDsSelector, 16),
        (F::GuestEsSelector, 16),
        (F::GuestFsSelector, 16),
        (F::GuestGsSelector, 16),
        (F::GuestTrSelector, 24),
        (F::GuestCsAccessRights, 0xa09b),
        (F::GuestSsAccessRights, 0xc093),
        (F::GuestDsAccessRights, 0xc093),
        (F::GuestEsAccessRights, 0xc093),
        (F::GuestFsAccessRights, 0xc093),
        (F::GuestGsAccessRights, 0xc093),
        (F::GuestTrAccessRights, 0x8b),
        (F::GuestLdtrAccessRights, 0x82),
        (F::GuestTrLimit, 0x67),
        (F::GuestLdtrLimit, 0xfff),
        (F::GuestGdtrLimit, 0xffff),
        (F::GuestIdtrLimit, 0xffff),
    ] {
        fields.set(field, value);
    }
    for limit in [F::GuestCsLimit, F::GuestSsLimit, F::GuestDsLimit, F::GuestEsLimit, F::GuestFsLimit, F::GuestGsLimit] {
        fields.set(limit, 0xffff_ffff);
    }
    fields
}

/// Turns the guest into one in virtual-8086 mode.
const VIRTUAL_8086: &[(F, u64)] = &[
    (F::GuestRflags, 0x2_0202),
    (F::GuestCsAccessRights, 0xf3),
    (F::GuestSsAccessRights, 0xf3),
    (F::GuestDsAccessRights, 0xf3),
    (F::GuestEsAccessRights, 0xf3),
    (F::GuestFsAccessRights, 0xf3),
    (F::GuestGsAccessRights, 0xf3),
    (F::GuestCsLimit, 0xffff),
    (F::GuestSsLimit, 0xffff),
    (F::GuestDsLimit, 0xffff),
    (F::GuestEsLimit, 0xffff),
    (F::GuestFsLimit, 0xffff),
    (F::GuestGsLimit, 0xffff),
    (F::GuestCsBase, 0x80),
    (F::GuestSsBase, 0x100),
    (F::GuestDsBase, 0x100),
    (F::GuestEsBase, 0x100),
    (F::GuestFsBase, 0x100),
    (F::GuestGsBase, 0x100),
];

/// Takes the guest out of IA-32e mode.
const LEGACY: &[(F, u64)] = &[(F::EntryControls, 0)];

/// A 32-bit guest with PAE paging.
const PAE_GUEST: &[(F, u64)] = &[(F::EntryControls, 0), (F::GuestCsAccessRights, 0xc09b)];

/// A 32-bit host of a 32-bit guest.
const HOST_32_BIT: &[(F, u64)] = &[(F::PrimaryExitControls, 1 << 15), (F::EntryControls, 0), (F::GuestCsAccessRights, 0xc09b)];

#[derive(Clone, Copy)]
struct Row {
    id: &'static str,
    /// A VMCS in which the check applies and holds, as a change of [`valid`].
    setup: &'static [&'static [(F, u64)]],
    /// What breaks it then.
    breaking: &'static [(F, u64)],
    /// Change of the facts that goes with the setup.
    setup_facts: fn(&mut Facts),
    /// Change of the facts that breaks it.
    breaking_facts: fn(&mut Facts),
    /// The entry of the VM-entry MSR-load list that goes with the setup.
    setup_msr: fn(&mut MsrLoad),
    /// Change of it that breaks the check.
    breaking_msr: fn(&mut MsrLoad),
    /// Change of the capabilities.
    capabilities: fn(&mut VmxCapabilities),
    /// Change of the capabilities that breaks it.
    breaking_capabilities: fn(&mut VmxCapabilities),
    /// Another check that says the same here, so that it cannot be broken alone.
    also: &'static [&'static str],
}

const ROW: Row = Row {
    id: "",
    setup: &[],
    breaking: &[],
    setup_facts: |_| {},
    breaking_facts: |_| {},
    setup_msr: |_| {},
    breaking_msr: |_| {},
    capabilities: |_| {},
    breaking_capabilities: |_| {},
    also: &[],
};

macro_rules! rows {
    ($($id:literal $([$($setup:expr),*])? => $($field:ident = $value:expr),* $(; $($part:ident $change:expr),*)?;)*) => {
        &[$({
            let row = Row { id: $id, setup: const { &[$($($setup),*)?] }, breaking: const { &[$((F::$field, $value)),*] }, ..ROW };
            $($(let row = Row { $part: $change, ..row };)*)?
            row
        }),*]
    };
}

const EPT: &[(F, u64)] = &[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 1), (F::EptPointer, 0x1_001e)];

const fn event(kind: u64, vector: u64) -> u64 {
    1 << 31 | kind << 8 | vector
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(control_rows());
    rows.extend(host_rows());
    rows.extend(guest_rows());
    rows.extend(msr_rows());
    for segment in ["cs", "ss", "ds", "es", "fs", "gs"] {
        rows.extend(segment_rows(segment));
    }
    rows
}

mod rows;
use rows::{control_rows, guest_rows, host_rows, msr_rows, segment_rows};

fn failures(fields: &Fields, capabilities: &VmxCapabilities, facts: Facts, msr_load: MsrLoad) -> Vec<&'static str> {
    let entry = Entry { fields, capabilities, facts, msr_load };
    all_failures(&entry).map(|(_, check)| check.id).collect()
}

#[test]
fn the_valid_vmcs_is_valid() {
    assert_eq!(failures(&valid(), &everything(), facts(), MsrLoad::default()), [""; 0]);
}

#[test]
fn every_check_has_a_row_that_satisfies_and_breaks_exactly_it() {
    let checks: Vec<_> = Phase::ALL.iter().flat_map(|phase| phase.checks()).collect();
    let mut missing: Vec<_> = checks.iter().map(|check| check.id).collect();
    let mut wrong = Vec::new();
    for row in rows() {
        missing.retain(|id| *id != row.id);
        let check = checks.iter().find(|check| check.id == row.id).unwrap_or_else(|| panic!("no check {}", row.id));
        let mut capabilities = everything();
        (row.capabilities)(&mut capabilities);
        let mut facts = facts();
        (row.setup_facts)(&mut facts);
        let mut fields = valid();
        for &(field, value) in row.setup.iter().copied().flatten() {
            fields.set(field, value);
        }
        let mut msr_load = MsrLoad::default();
        (row.setup_msr)(&mut msr_load);
        let before = failures(&fields, &capabilities, facts, msr_load);
        if !before.is_empty() {
            wrong.push(format!("{}: before the change, {before:?} fail", row.id));
        }
        if !(check.applies)(&Entry { fields: &fields, capabilities: &capabilities, facts, msr_load }) {
            wrong.push(format!("{}: does not apply before the change", row.id));
        }
        for &(field, value) in row.breaking {
            fields.set(field, value);
        }
        (row.breaking_facts)(&mut facts);
        (row.breaking_msr)(&mut msr_load);
        (row.breaking_capabilities)(&mut capabilities);
        let mut after = failures(&fields, &capabilities, facts, msr_load);
        after.retain(|id| !row.also.contains(id));
        if after != [row.id] {
            wrong.push(format!("{}: after the change, {after:?} fail", row.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(missing, [""; 0], "checks without a row");
}

#[test]
fn ids_are_unique() {
    let mut ids: Vec<_> = Phase::ALL.iter().flat_map(|phase| phase.checks()).map(|check| check.id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

/// The memory of checks that held rests on `reads`: a field that a row does not list must not change what it says.
#[test]
fn a_check_looks_at_no_field_that_it_does_not_list() {
    let capabilities = everything();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..60 {
        let mut fields = valid();
        for &field in F::ALL {
            match random() % 3 {
                0 => fields.set(field, random()),
                1 => fields.set(field, fields.get(field) ^ 1 << (random() % 64)),
                _ => {}
            }
        }
        for check in Phase::ALL.iter().flat_map(|phase| phase.checks()) {
            let say = |fields: &Fields| {
                let entry = Entry { fields, capabilities: &capabilities, facts: facts(), msr_load: MsrLoad::default() };
                ((check.applies)(&entry), check.fails(&entry))
            };
            let said = say(&fields);
            for &field in F::ALL.iter().filter(|field| !check.reads.contains(field)) {
                let mut changed = fields.clone();
                changed.set(field, random());
                assert_eq!(say(&changed), said, "{} looks at {field}", check.id);
            }
            for &field in check.reads {
                let mut changed = fields.clone();
                changed.set(field, fields.get(field) ^ random() & !Phases::looked_at(field));
                assert_eq!(say(&changed), said, "{} looks at other bits of {field}", check.id);
            }
        }
    }
}

#[test]
fn each_phase_owns_its_outcome() {
    let mut fields = valid();
    fields.set(F::VmcsLinkPointer, 0x6001);
    let entry = Entry { fields: &fields, capabilities: &everything(), facts: facts(), msr_load: MsrLoad::default() };
    let phase = Phase::ALL.iter().find(|phase| phase.first_failure(&entry).is_some()).unwrap();
    assert_eq!(phase.outcome(), PhaseOutcome::InvalidGuestState(InvalidGuestStateQualification::VmcsLinkPointer));
    assert_eq!(InvalidGuestStateQualification::VmcsLinkPointer as u64, 4);
}
