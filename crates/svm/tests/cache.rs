//! VMCB state caching, APM vol 2, 15.15: for every group of clean bits, a change that is not told is not seen, and one that is told is.

mod common;

use common::{GUEST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use cpu::state::{Cpu, Shadow};
use cpu::trap::Intercept;
use isa::register::{Gpr, Segment};
use isa::svm::{CleanBits, ExitCode, Vmcb, VmcbField};
use models::{CpuModel, K8_REV_F, ZEN3};
use svm::Vmrun;
use zerocopy::IntoBytes as _;

/// A machine whose guest of VMMCALLs has run once.
fn ran(model: &'static CpuModel) -> (Machine, Vmcb) {
    let mut machine = Machine::of(model);
    machine.cpu.rust_host = true;
    machine.memory.write(GUEST_CODE, &[0x0f, 0x01, 0xd9].repeat(8)).unwrap();
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    vmcb.control.intercepts.set(ExitCode::MSR, true);
    vmcb.control.virtual_interrupt = vmcb.control.virtual_interrupt.with_v_intr_masking(true);
    // Nested tables of one page of 1 GiB, for who has nested paging.
    vmcb.control.nested_control = vmcb.control.nested_control.with_np_enable(true);
    vmcb.control.n_cr3 = 0x8_0000;
    machine.memory.write_u64(0x8_0000, 0x8_1007).unwrap();
    machine.memory.write_u64(0x8_1000, 0x87).unwrap();
    machine.set_vmcb(&vmcb);
    run(&mut machine, VMCB);
    let vmcb = machine.vmcb();
    (machine, vmcb)
}

fn run(machine: &mut Machine, vmcb: u64) {
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, vmcb)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100), RunExit::HostEntry);
}

/// A field, another value of it, what the guest then has of it, the bit that belongs to it.
type Row = (&'static str, u64, fn(&Cpu) -> u64, Option<fn(CleanBits, bool) -> CleanBits>);

const ROWS: &[Row] = &[
    ("INTERCEPTS[3]", 1 << 18 | 1 << 28, |cpu| cpu.interception.has(Intercept::Cpuid).into(), Some(CleanBits::with_intercepts)),
    ("TSC_OFFSET", 77, |cpu| cpu.guest_tsc.offset, Some(CleanBits::with_intercepts)),
    ("GUEST_ASID", 5, |cpu| cpu.address_space.into(), Some(CleanBits::with_asid)),
    ("V_INTR", 1 << 24 | 9, |cpu| cpu.virtual_tpr.unwrap_or(0).into(), Some(CleanBits::with_virtual_interrupt)),
    ("G_PAT", 0x0007_0406_0007_0405, |cpu| cpu.msrs.pat, Some(CleanBits::with_nested_paging)),
    ("CR3", 0x7000, |cpu| cpu.cr3, Some(CleanBits::with_control_registers)),
    ("CR0", 0x13, |cpu| cpu.cr0.into_bits(), Some(CleanBits::with_control_registers)),
    ("CR4", 0x10, |cpu| cpu.cr4.into_bits(), Some(CleanBits::with_control_registers)),
    ("EFER", 0x1001, |cpu| cpu.efer.into_bits(), Some(CleanBits::with_control_registers)),
    ("DR6", 0xffff_0ff1, |cpu| cpu.dr6.into_bits(), Some(CleanBits::with_debug_registers)),
    ("DR7", 0x401, |cpu| cpu.dr7.into_bits(), Some(CleanBits::with_debug_registers)),
    ("GDTR.BASE", 0x9000, |cpu| cpu.gdtr.base, Some(CleanBits::with_descriptor_tables)),
    ("IDTR.LIMIT", 0x7f, |cpu| cpu.idtr.limit.into(), Some(CleanBits::with_descriptor_tables)),
    ("DS.LIMIT", 0xfffff, |cpu| cpu.segment(Segment::Ds).limit.into(), Some(CleanBits::with_segments)),
    ("CPL", 3, |cpu| cpu.cpl.into(), Some(CleanBits::with_segments)),
    ("CR2", 0x1234, |cpu| cpu.cr2, Some(CleanBits::with_cr2)),
    // No bit belongs to these.
    ("NP_CONTROL", 0, |cpu| cpu.nested_paging.into(), None),
    ("RAX", 0x99, |cpu| cpu.gpr(Gpr::Rax), None),
    ("RSP", 0x4444, |cpu| cpu.gpr(Gpr::Rsp), None),
    ("RIP", GUEST_CODE + 3, |cpu| cpu.rip, None),
    ("RFLAGS", 0x202, |cpu| cpu.rflags().into_bits(), None),
    ("INTERRUPT_SHADOW", 1, |cpu| (cpu.shadow == Shadow::Sti).into(), None),
    ("EVENTINJ", 0x8000_0080, |cpu| cpu.inject.is_some().into(), None),
];

/// What the guest has of a field after a change of it, with these clean bits.
fn after_change(model: &'static CpuModel, row: &Row, clean: CleanBits) -> (u64, u64) {
    let (mut machine, before) = ran(model);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    let old = (row.2)(&machine.cpu);
    assert_eq!(machine.run(100), RunExit::HostEntry);
    let mut vmcb = before;
    VmcbField::find(row.0).unwrap().set(vmcb.as_mut_bytes(), row.1);
    vmcb.control.clean = clean;
    machine.set_vmcb(&vmcb);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)), "{}", row.0);
    (old, (row.2)(&machine.cpu))
}

#[test]
fn a_change_that_no_clean_bit_tells_is_not_seen() {
    for row in ROWS {
        let all = CleanBits::from_bits(u32::MAX);
        for (clean, seen) in [
            (CleanBits::new(), true),
            (all, row.3.is_none()),
            (row.3.map_or(all, |with| with(all, false)), true),
            (row.3.map_or(all, |with| with(CleanBits::new(), true)), row.3.is_none()),
        ] {
            let (old, new) = after_change(&ZEN3, row, clean);
            assert_eq!(new != old, seen, "{} with {clean:?}", row.0);
        }
        // A processor of 2006 caches nothing of a VMCB, and has no nested paging.
        if !matches!(row.0, "NP_CONTROL" | "G_PAT") {
            let (old, new) = after_change(&K8_REV_F, row, all);
            assert_ne!(new, old, "{}", row.0);
        }
    }
}

#[test]
fn the_permission_maps_are_kept_by_their_address() {
    for (clean, entered) in [(CleanBits::new().with_permission_maps(true), true), (CleanBits::new(), false)] {
        let (mut machine, mut vmcb) = ran(&ZEN3);
        vmcb.control.msrpm_base_pa = u64::MAX;
        vmcb.control.clean = clean;
        machine.set_vmcb(&vmcb);
        let outcome = machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)).unwrap();
        assert_eq!(matches!(outcome, Vmrun::Entered), entered);
    }
}

#[test]
fn only_the_vmcb_that_ran_last_is_kept() {
    const OTHER: u64 = VMCB + 0x1000;
    let changed = |vmcb: &Vmcb| {
        let mut vmcb = *vmcb;
        vmcb.save.cr2 = 0x1234;
        vmcb.control.clean = CleanBits::from_bits(u32::MAX);
        vmcb
    };
    // The same bytes at another address, and then the first again.
    let (mut machine, vmcb) = ran(&ZEN3);
    machine.memory.write(OTHER, changed(&vmcb).as_bytes()).unwrap();
    run(&mut machine, OTHER);
    assert_eq!(machine.cpu.cr2, 0x1234);
    machine.set_vmcb(&changed(&vmcb));
    machine.cpu.cr2 = 0;
    run(&mut machine, VMCB);
    assert_eq!(machine.cpu.cr2, 0x1234);
    // After VMEXIT_INVALID nothing is kept.
    let (mut machine, vmcb) = ran(&ZEN3);
    let mut bad = vmcb;
    bad.save.efer = 0;
    machine.set_vmcb(&bad);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Invalid(_))));
    machine.set_vmcb(&changed(&vmcb));
    run(&mut machine, VMCB);
    assert_eq!(machine.cpu.cr2, 0x1234);
}

#[test]
fn last_branches_are_kept_while_they_are_the_guests_own() {
    for (clean, expected) in [(CleanBits::new().with_last_branch(true), 0), (CleanBits::new(), 0x7777)] {
        let (mut machine, mut vmcb) = ran(&ZEN3);
        vmcb.control.virtual_extensions = vmcb.control.virtual_extensions.with_lbr_virtualization(true);
        machine.set_vmcb(&vmcb);
        run(&mut machine, VMCB);
        let mut vmcb = machine.vmcb();
        vmcb.save.last_branch_from = 0x7777;
        vmcb.control.clean = clean;
        machine.set_vmcb(&vmcb);
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.cpu.last_branches.newest().from, expected, "{clean:?}");
    }
}
