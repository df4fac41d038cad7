//! The machine at the boundary between valid and invalid: for every rule that a processor of ours can break, a state in which all rules hold
//! enters, and the smallest change that breaks exactly one ends as that rule's phase says.

use audit::boundary::{Boundary, Value, boundaries};
use audit::{Outcome, State};
use cpu::block::CodeCache;
use cpu::bus::{Environment, NoDevices};
use cpu::state::{Cpu, Shadow};
use isa::svm::{VMCB_SIZE, VmcbField};
use isa::vmx::{FieldArea, VmcsField as F};
use memory::Memory;
use std::collections::BTreeSet;
use svm::Svm;
use vmx::{EntryOutcome, VmFail, Vmx};

/// Bytes of memory; the words that rules read there lie below.
const MEMORY: u64 = 1 << 24;
const VMXON: u64 = 0x1000;
const VMCS: u64 = 0x2000;
const VMCB: u64 = 0x3000;
/// A page for whatever a field points to.
const PAGE: u64 = 0x6000;

type Seed = Vec<(&'static str, u64)>;

fn with(base: &Seed, changes: &[(&'static str, u64)]) -> Seed {
    base.iter().chain(changes).copied().collect()
}

/// Valid states of VMX from which the search starts: a 64-bit guest, and what kinds of entry there are.
fn vmx_seeds(model: &models::CpuModel) -> Vec<Seed> {
    let capabilities = vmx::capabilities::offered(model.vmx.as_ref().expect("VMX"));
    let pin = u64::from(capabilities.pin_based.adjust(0));
    let primary = u64::from(capabilities.primary.adjust(1 << 31));
    let exit = u64::from(capabilities.exit.adjust(1 << 9 | 1 << 15));
    let entry = |wanted: u32| u64::from(capabilities.entry.adjust(wanted));
    let ia32e = 1 << 9;
    let mut base: Seed = vec![
        ("PinBasedControls", pin),
        ("PrimaryProcessorBasedControls", primary),
        ("PrimaryExitControls", exit),
        ("EntryControls", entry(ia32e)),
        ("HostCr0", 0x8001_0033),
        ("HostCr4", 0x2020),
        ("HostCsSelector", 8),
        ("HostSsSelector", 16),
        ("HostTrSelector", 24),
        ("GuestCr0", 0x8001_0033),
        ("GuestCr3", 0x9000),
        ("GuestCr4", 0x2020),
        ("GuestEfer", 0x500),
        ("GuestDr7", 0x400),
        ("GuestRip", 0x1000),
        ("GuestRflags", 0x202),
        ("GuestCsSelector", 8),
        ("GuestCsAccessRights", 0xa09b),
        ("GuestTrSelector", 24),
        ("GuestTrAccessRights", 0x8b),
        ("GuestTrLimit", 0x67),
        ("GuestLdtrSelector", 32),
        ("GuestLdtrAccessRights", 0x82),
        ("GuestLdtrLimit", 0xfff),
        ("GuestGdtrLimit", 0xffff),
        ("GuestIdtrLimit", 0xffff),
        ("processor.current_vmcs", VMCS),
    ];
    for (selector, rights) in [
        ("GuestSsSelector", "GuestSsAccessRights"),
        ("GuestDsSelector", "GuestDsAccessRights"),
        ("GuestEsSelector", "GuestEsAccessRights"),
        ("GuestFsSelector", "GuestFsAccessRights"),
        ("GuestGsSelector", "GuestGsAccessRights"),
    ] {
        base.extend([(selector, 16), (rights, 0xc093)]);
    }
    base.extend(["Cs", "Ss", "Ds", "Es", "Fs", "Gs"].map(|segment| (limit(segment), 0xffff_ffff)));
    let pae = [("EntryControls", entry(0)), ("GuestCsAccessRights", 0xc09b), ("GuestEfer", 0)];
    let ept = [("SecondaryProcessorBasedControls", 0b1010_0010), ("EptPointer", 0x1_001e), ("VirtualProcessorIdentifier", 1)];
    let event = |kind: u64, vector: u64| ("EntryInterruptionInformation", 1 << 31 | kind << 8 | vector);
    let mut virtual_8086 = pae.to_vec();
    virtual_8086.push(("GuestRflags", 0x2_0202));
    for segment in ["Cs", "Ss", "Ds", "Es", "Fs", "Gs"] {
        virtual_8086.extend([(limit(segment), 0xffff), (rights(segment), 0xf3), (base_of(segment), 0x80), (selector(segment), 8)]);
    }
    let host32 = [
        ("PrimaryExitControls", u64::from(capabilities.exit.adjust(1 << 15))),
        ("processor.long_mode", 0),
        ("EntryControls", entry(0)),
        ("GuestCsAccessRights", 0xc09b),
        ("GuestEfer", 0),
    ];
    let mut seeds = vec![base.clone(), with(&base, &ept), with(&base, &pae), with(&base, &[&pae[..], &ept].concat())];
    seeds.push(with(&base, &virtual_8086));
    seeds.push(with(&base, &host32));
    for injected in [event(0, 32), event(2, 2), event(3, 13 | 1 << 11), event(3, 6), event(4, 0x80), event(7, 0)].map(|event| [event]) {
        seeds.push(with(&with(&base, &[("EntryInstructionLength", 2)]), &injected));
    }
    let load = u64::from(capabilities.exit.adjust(1 << 9 | 1 << 15 | 1 << 19 | 1 << 21));
    let loads = [("PrimaryExitControls", load), ("HostEfer", 0x500), ("EntryControls", entry(ia32e | 1 << 14 | 1 << 15))];
    seeds.push(with(&base, &loads));
    seeds.push(with(&base, &[("EntryControls", entry(1 << 15)), ("GuestCsAccessRights", 0xc09b), ("GuestEfer", 0)]));
    seeds.push(with(&base, &[("VmcsLinkPointer", PAGE), ("memory.link_pointer_revision", capabilities.basic.revision().into())]));
    seeds.push(with(&base, &[("GuestActivityState", 1)]));
    seeds.push(with(&base, &[("GuestActivityState", 1), event(0, 32)]));
    seeds.push(with(&base, &[("GuestInterruptibilityState", 1)]));
    seeds.push(with(&base, &[("GuestInterruptibilityState", 2)]));
    let lists = ["EntryMsrLoad", "ExitMsrLoad", "ExitMsrStore"].map(|list| (count(list), 1));
    seeds.push(with(&base, &lists));
    let tpr = [("PrimaryProcessorBasedControls", primary | 1 << 21), ("VirtualApicAddress", PAGE), ("memory.virtual_tpr", 0xff)];
    seeds.push(with(&base, &tpr));
    // Interrupts that are delivered virtually, and posted.
    let virtualized = [
        ("PinBasedControls", pin | 1),
        ("PrimaryExitControls", exit | 1 << 15),
        ("SecondaryProcessorBasedControls", 1 << 9),
        ("PostedInterruptDescriptorAddress", PAGE + 0x800),
    ];
    seeds.push(with(&with(&base, &tpr), &virtualized));
    seeds.push(with(&with(&base, &tpr), &[&virtualized[1..], &[("PinBasedControls", pin | 1 | 1 << 7)]].concat()));
    seeds.push(with(&base, &[&ept[1..], &[("SecondaryProcessorBasedControls", 1 << 1 | 1 << 13), ("VmFunctionControls", 1)]].concat()));
    seeds.push(with(&base, &[("PinBasedControls", pin | 1 << 3 | 1 << 5), event(2, 2)]));
    seeds.push(with(&base, &[("entry.vmresume", 1), ("region.launched", 1)]));
    seeds.push(with(&base, &[("SecondaryProcessorBasedControls", 1 << 25), ("TscMultiplier", 1 << 48)]));
    // A list with one MSR: any value, one whose number is a bit away from that of FS's base, and one a bit away from what only SMM writes.
    for (index, msr) in [(0x10, 0), (0xc000_0102, 0), (0x1b, 0xfee0_0900)] {
        let list = [("EntryMsrLoadCount", 1), ("EntryMsrLoadAddress", PAGE), ("memory.entry_msr_load.number", 1)];
        let entry = [("memory.entry_msr_load.index", index), ("memory.entry_msr_load.value", msr)];
        seeds.push(with(&with(&base, &list), &entry));
    }
    // A guest at privilege level 3, one in a conforming code segment, and one with neither paging nor long mode.
    let user = [("GuestCsSelector", 11), ("GuestCsAccessRights", 0xa0fb), ("GuestSsSelector", 0x13), ("GuestSsAccessRights", 0xc0f3)];
    seeds.push(with(&base, &user));
    seeds.push(with(&base, &[("GuestCsAccessRights", 0xa09f)]));
    seeds.push(with(&base, &[&ept[..], &[("GuestCsAccessRights", 0xa09f), ("GuestActivityState", 1)]].concat()));
    seeds.push(with(&base, &[&pae[..], &ept, &[("GuestCr0", 0x31), event(3, 13 | 1 << 11)]].concat()));
    seeds
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn limit(segment: &str) -> &'static str {
    leak(format!("Guest{segment}Limit"))
}

fn rights(segment: &str) -> &'static str {
    leak(format!("Guest{segment}AccessRights"))
}

fn base_of(segment: &str) -> &'static str {
    leak(format!("Guest{segment}Base"))
}

fn selector(segment: &str) -> &'static str {
    leak(format!("Guest{segment}Selector"))
}

fn count(list: &str) -> &'static str {
    leak(format!("{list}Count"))
}

fn value(values: &[Value], name: &str) -> u64 {
    values.iter().rev().find(|(word, _)| word == name).map_or(0, |(_, value)| *value)
}

/// What the machine makes of a VM entry with these words.
fn enter_vmx(model: &'static models::CpuModel, words: &[Value]) -> Result<(), Outcome> {
    let mut memory = Memory::new(MEMORY);
    let vmcs = value(words, "processor.current_vmcs");
    let revision = vmx::capabilities::offered(model.vmx.as_ref().expect("VMX")).basic.revision();
    memory.write_u32(VMXON, revision).expect("RAM");
    memory.write_u32(vmcs, value(words, "region.revision") as u32).expect("RAM");
    let mut put = |at: u64, bytes: &[u8]| {
        if at < MEMORY - 64 {
            memory.write(at, bytes).expect("RAM");
        }
    };
    let pdptes = [0, 1, 2, 3].map(|index| value(words, &format!("memory.pdptes[{index}]")));
    for (index, entry) in pdptes.iter().enumerate() {
        put((value(words, "GuestCr3") & 0xffff_ffe0) + 8 * index as u64, &entry.to_le_bytes());
    }
    put(value(words, "VirtualApicAddress") + 0x80, &[value(words, "memory.virtual_tpr") as u8]);
    let number = value(words, "memory.entry_msr_load.number");
    if number != 0 {
        let head = value(words, "memory.entry_msr_load.reserved") << 32 | value(words, "memory.entry_msr_load.index");
        put(value(words, "EntryMsrLoadAddress"), &head.to_le_bytes());
        put(value(words, "EntryMsrLoadAddress") + 8, &value(words, "memory.entry_msr_load.value").to_le_bytes());
    }
    let link = value(words, "VmcsLinkPointer");
    if link != vmcs {
        put(link & !0xfff, &(value(words, "memory.link_pointer_revision") as u32).to_le_bytes());
    }
    let mut cpu = Cpu::new(model, 0, 1, Some(Box::new(Vmx::new(model.vmx.as_ref().expect("VMX")))));
    let (mut code, mut bus) = (CodeCache::new(), NoDevices);
    let mut environment = Environment { memory: &mut memory, code: &mut code, bus: &mut bus };
    cpu.with_environment(&mut environment, |cpu| {
        Vmx::with(cpu, |vmx, cpu| {
            vmx.prepare_rust_host(cpu);
            vmx.vmxon(cpu, VMXON).expect("VMXON");
            vmx.vmclear(cpu, vmcs).expect("VMCLEAR");
            // VMCLEAR makes the launch state clear; ours lies behind the abort indicator.
            cpu.write_physical(vmcs + 8, 1, value(words, "region.launched"));
            if let Err(fail) = vmx.vmptrld(cpu, vmcs) {
                return Err(of_fail("VMPTRLD", fail));
            }
            for (name, value) in words {
                let Some(field) = F::from_identifier(name).filter(|field| field.area() != FieldArea::ExitInformation) else { continue };
                // A field that the processor lacks cannot be written; then no rule may hang on it.
                let _ = vmx.vmwrite(cpu, field, *value);
            }
            let vmresume = value(words, "entry.vmresume") != 0;
            let long_mode = value(words, "processor.long_mode") != 0;
            cpu.efer = cpu.efer.with_lma(long_mode);
            if value(words, "entry.mov_ss_blocking") != 0 {
                cpu.shadow = Shadow::MovSs;
            }
            let instruction = if vmresume { "VMRESUME" } else { "VMLAUNCH" };
            match if vmresume { vmx.vmresume(cpu) } else { vmx.vmlaunch(cpu) } {
                Ok(EntryOutcome::Entered) => Ok(()),
                Ok(EntryOutcome::Exited(_)) => {
                    let reason = vmx.vmread(cpu, F::ExitReason).expect("VMREAD");
                    let qualification = vmx.vmread(cpu, F::ExitQualification).expect("VMREAD");
                    match reason {
                        0x8000_0021 => Err(Outcome::EntryFailure { qualification }),
                        0x8000_0022 if number != 0 => {
                            assert_eq!(qualification, number, "the qualification is the number of the entry");
                            Err(Outcome::MsrLoading)
                        }
                        // A pending MTF VM exit that was injected follows a good entry, and so does the failure to load what lies in memory.
                        _ => Ok(()),
                    }
                }
                Err(fail) => Err(of_fail(instruction, fail)),
            }
        })
        .expect("the processor has VMX")
    })
}

fn of_fail(instruction: &'static str, fail: VmFail) -> Outcome {
    match fail {
        VmFail::Valid(error) => Outcome::VmFailValid { instruction, error: error.number(), meaning: error.text() },
        // VMPTRLD without a current VMCS has nowhere to put its error.
        VmFail::Invalid => Outcome::VmFailValid { instruction, error: 11, meaning: "" },
    }
}

/// Whether two outcomes are the same to software.
fn same(left: Outcome, right: Outcome) -> bool {
    match (left, right) {
        (Outcome::VmFailValid { error: left, .. }, Outcome::VmFailValid { error: right, .. }) => left == right,
        _ => left == right,
    }
}

fn judge(boundaries: &[Boundary], enter: impl Fn(&[Value]) -> Result<(), Outcome>) {
    let mut wrong = Vec::new();
    for boundary in boundaries {
        if let Err(outcome) = enter(&boundary.valid) {
            wrong.push(format!("{}: the valid state does not enter: {outcome}", boundary.rule));
        }
        let broken: Vec<Value> = boundary.valid.iter().chain(&boundary.breaking).cloned().collect();
        match enter(&broken) {
            Err(outcome) if same(outcome, boundary.outcome) => {}
            Err(outcome) => wrong.push(format!("{} {:x?}: {outcome} instead of {}", boundary.rule, boundary.breaking, boundary.outcome)),
            Ok(()) => wrong.push(format!("{}: the machine enters with {:x?}", boundary.rule, boundary.breaking)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules of VMX that no state of this processor can break alone, or none near the seeds; `vmx/src/checks/tests/rows.rs` has them on a
/// processor that offers everything.
const BEYOND_VMX: &[&str] = &[
    // Controls and bits that it does not offer.
    "tertiary-allowed",
    "sub-page-write-needs-ept",
    "sub-page-table-address",
    "pt-guest-physical-needs-ept",
    "pt-guest-physical-needs-rtit",
    "secondary-exit-allowed",
    "entry-not-to-smm",
    "host-cr4-cet",
    "guest-cr4-cet",
    "host-perf-global-ctrl",
    "host-s-cet",
    "host-ssp-aligned",
    "host-interrupt-ssp-table",
    "host-pkrs",
    "host-32-bit-cet",
    "host-64-bit-cet",
    "guest-perf-global-ctrl",
    "guest-bndcfgs-reserved",
    "guest-bndcfgs-base",
    "guest-rtit-ctl",
    "guest-s-cet",
    "guest-s-cet-base",
    "guest-interrupt-ssp-table",
    "guest-lbr-ctl",
    "guest-pkrs",
    "guest-uinv",
    "guest-ssp-aligned",
    "guest-ssp-32-bit",
    "guest-ssp-64-bit",
    // What it does offer, so that nobody can go without.
    "eptp-accessed-dirty",
    "injected-mtf-supported",
    // "host-32-bit-at-entry" says the same.
    "host-32-bit-guest",
    // Every register of a guest in virtual-8086 mode is another.
    "guest-rflags-vm",
];

/// One too many is a matter of the whole list: the entries in front would have to be good. `vmx/tests/operation.rs` has it.
const OF_LISTS: &[&str] = &["msr-load-count"];

#[test]
fn vmx_entry_agrees_with_every_rule_at_its_boundary() {
    let model = &models::SKYLAKE_SERVER;
    let mut state = State::on_machine(model).expect("VMX");
    let (mut found, missing) = boundaries(&mut state, &vmx_seeds(model));
    found.retain(|boundary| !OF_LISTS.contains(&boundary.rule));
    assert_eq!(BTreeSet::from_iter(missing), BTreeSet::from_iter(BEYOND_VMX.iter().copied()), "rules that are not reached");
    judge(&found, |words| enter_vmx(model, words));
}

/// What the machine makes of VMRUN with these words.
fn enter_svm(model: &'static models::CpuModel, words: &[Value]) -> Result<(), Outcome> {
    let mut bytes = vec![0; VMCB_SIZE];
    for field in VmcbField::all() {
        field.set(&mut bytes, value(words, &field.name));
    }
    let mut memory = Memory::new(MEMORY);
    for index in 0..4 {
        let at = (value(words, "CR3") & 0xffff_ffe0) + 8 * index;
        if at < MEMORY - 64 {
            memory.write_u64(at, value(words, &format!("memory.pdptes[{index}]"))).expect("RAM");
        }
    }
    memory.write(VMCB, &bytes).expect("RAM");
    let mut cpu = Cpu::new(model, 0, 1, Some(Box::new(Svm::new(model.svm.expect("SVM")))));
    let paging = value(words, "processor.paging") != 0;
    // A host in Rust counts as one with paging.
    cpu.rust_host = paging;
    let (mut code, mut bus) = (CodeCache::new(), NoDevices);
    let mut environment = Environment { memory: &mut memory, code: &mut code, bus: &mut bus };
    cpu.with_environment(&mut environment, |cpu| {
        cpu.with_extension(|extension, cpu| {
            let svm = extension.as_any().downcast_mut::<Svm>().expect("SVM");
            match svm.vmrun(cpu, VMCB).expect("the address is good") {
                svm::Vmrun::Entered => Ok(()),
                svm::Vmrun::Invalid(_) => Err(Outcome::VmexitInvalid),
            }
        })
        .expect("there is an extension")
    })
}

fn svm_seeds() -> Vec<Seed> {
    let base: Seed = vec![
        ("INTERCEPTS[3]", 1 << 27 | 1 << 28),
        ("INTERCEPTS[4]", 1),
        ("IOPM_BASE_PA", 0x1_0000),
        ("MSRPM_BASE_PA", 0x2_0000),
        ("GUEST_ASID", 1),
        ("EFER", 0x1500),
        ("CR0", 0x8000_0011),
        ("CR3", 0x9000),
        ("CR4", 0x20),
        ("DR6", 0xffff_0ff0),
        ("DR7", 0x400),
        ("RFLAGS", 2),
        ("G_PAT", 0x0007_0406_0007_0406),
        ("CS.ATTRIB", 0xa9b),
    ];
    vec![
        base.clone(),
        with(&base, &[("NP_CONTROL", 1), ("N_CR3", 0x5000)]),
        with(&base, &[("EFER", 0x1000), ("CS.ATTRIB", 0xc9b)]),
        with(&base, &[("EVENTINJ", 0x8000_030e)]),
        with(&base, &[("V_INTR", 1 << 26), ("INTERCEPTS[3]", 1 << 27 | 1 << 28 | 2)]),
        with(&base, &[("CR4", 0x80_0020), ("CR0", 0x8001_0011)]),
    ]
}

/// Rules of SVM that no state of this processor can break alone; the tests of `svm/src/check.rs` have them on one that can.
const BEYOND_SVM: &[&str] = &["efer-long-mode-supported", "cr4-cet-without-wp", "s-cet-reserved", "virtual-nmi-needs-intercept"];

#[test]
fn vmrun_agrees_with_every_rule_at_its_boundary() {
    let model = &models::ZEN3;
    let mut state = State::on_machine(model).expect("SVM");
    let (found, missing) = boundaries(&mut state, &svm_seeds());
    assert_eq!(BTreeSet::from_iter(missing), BTreeSet::from_iter(BEYOND_SVM.iter().copied()), "rules that are not reached");
    judge(&found, |words| enter_svm(model, words));
}
