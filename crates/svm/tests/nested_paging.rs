//! Guests behind nested page tables: what faults, what is reported, what the TLB keeps.

mod common;

use common::{GUEST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use isa::paging::{NO_EXECUTE, PRESENT, USER, WRITABLE};
use isa::register::Gpr;
use isa::svm::{ExitCode, NestedPageFaultInfo, TlbControl, Vmcb};
use svm::Vmrun;

/// Nested tables: PML4, PDPT, PD and one PT for the first 2 MiB.
const ROOT: u64 = 0x8_0000;
const LAST: u64 = 0x8_3000;
const ALL: u64 = PRESENT | WRITABLE | USER;

/// A machine whose guest runs `code` behind an identity map of the first MiB.
fn machine(code: &[u8], prepare: impl FnOnce(&mut Vmcb)) -> Machine {
    let mut machine = Machine::new();
    machine.cpu.rust_host = true;
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    vmcb.control.nested_control = vmcb.control.nested_control.with_np_enable(true);
    vmcb.control.n_cr3 = ROOT;
    prepare(&mut vmcb);
    machine.set_vmcb(&vmcb);
    machine.memory.write(GUEST_CODE, code).unwrap();
    for level in 0..3 {
        machine.memory.write_u64(ROOT + level * 0x1000, (ROOT + (level + 1) * 0x1000) | ALL).unwrap();
    }
    for page in 0..256 {
        map(&mut machine, page << 12, page << 12 | ALL);
    }
    machine
}

fn map(machine: &mut Machine, guest_physical: u64, entry: u64) {
    machine.memory.write_u64(LAST + (guest_physical >> 12) * 8, entry).unwrap();
}

/// Runs the guest to its next exit.
fn enter(machine: &mut Machine) -> Vmcb {
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(1000), RunExit::HostEntry);
    machine.vmcb()
}

/// `mov eax, [0x5010]; mov [0x6020], eax; vmmcall`
const COPY: &[u8] = &[0xa1, 0x10, 0x50, 0, 0, 0xa3, 0x20, 0x60, 0, 0, 0x0f, 0x01, 0xd9];

fn info() -> NestedPageFaultInfo {
    NestedPageFaultInfo::new().with_user(true).with_final_translation(true)
}

#[test]
fn a_guest_reads_and_writes_where_the_tables_say() {
    let mut machine = machine(COPY, |_| {});
    map(&mut machine, 0x5000, 0x4_5000 | ALL);
    map(&mut machine, 0x6000, 0x4_6000 | ALL);
    machine.memory.write_u32(0x4_5010, 0xcafe).unwrap();
    let vmcb = enter(&mut machine);
    assert_eq!((vmcb.control.exit_code, vmcb.save.rax), (ExitCode::VMMCALL, 0xcafe));
    assert_eq!(machine.memory.read_u32(0x4_6020), Ok(0xcafe));
}

#[test]
fn faults_say_where_and_why_and_the_instruction_runs_again() {
    let mut machine = machine(COPY, |_| {});
    map(&mut machine, 0x5000, 0);
    map(&mut machine, 0x6000, 0x6000 | PRESENT | USER);
    let control = enter(&mut machine).control;
    assert_eq!((control.exit_code, control.exit_info_2), (ExitCode::NPF, 0x5010));
    assert_eq!(NestedPageFaultInfo::from_bits(control.exit_info_1), info());
    assert_eq!(machine.vmcb().save.rip, GUEST_CODE);
    assert_eq!((control.bytes_fetched, &control.instruction_bytes[..5]), (15, &COPY[..5]), "decode assists tell the instruction");

    map(&mut machine, 0x5000, 0x5000 | ALL);
    let control = enter(&mut machine).control;
    assert_eq!((control.exit_code, control.exit_info_2), (ExitCode::NPF, 0x6020));
    assert_eq!(NestedPageFaultInfo::from_bits(control.exit_info_1), info().with_present(true).with_write(true));
    assert_eq!(machine.vmcb().save.rip, GUEST_CODE + 5);

    map(&mut machine, 0x6000, 0x6000 | ALL);
    assert_eq!(enter(&mut machine).control.exit_code, ExitCode::VMMCALL);
}

#[test]
fn a_page_without_execution_cannot_be_fetched() {
    let mut machine = machine(COPY, |_| {});
    map(&mut machine, GUEST_CODE, GUEST_CODE | ALL | NO_EXECUTE);
    let control = enter(&mut machine).control;
    assert_eq!((control.exit_code, control.exit_info_2), (ExitCode::NPF, GUEST_CODE));
    assert_eq!(NestedPageFaultInfo::from_bits(control.exit_info_1), info().with_present(true).with_instruction_fetch(true));
    assert_eq!(control.bytes_fetched, 0);
}

#[test]
fn page_tables_of_the_guest_must_be_writable() {
    // 32-bit paging with one 4-MiB page at 0; the directory lies at 0x7000.
    let mut machine = machine(COPY, |vmcb| {
        vmcb.save.cr0 = 0x8000_0011;
        vmcb.save.cr3 = 0x7000;
        vmcb.save.cr4 = 0x10;
    });
    machine.memory.write_u32(0x7000, 0x87).unwrap();
    map(&mut machine, 0x7000, 0x7000 | PRESENT | USER);
    let control = enter(&mut machine).control;
    assert_eq!((control.exit_code, control.exit_info_2), (ExitCode::NPF, 0x7000));
    let expected = info().with_final_translation(false).with_page_table_walk(true).with_present(true).with_write(true);
    assert_eq!(NestedPageFaultInfo::from_bits(control.exit_info_1), expected);
    map(&mut machine, 0x7000, 0x7000 | ALL);
    assert_eq!(enter(&mut machine).control.exit_code, ExitCode::VMMCALL);
    assert_eq!(machine.memory.read_u32(0x7000), Ok(0xe7), "accessed and dirty in the guest's entry");
}

#[test]
fn page_directory_pointers_of_pae_are_read_by_each_walk() {
    // (entry, exit, error code): PAE with one 2-MiB page at 0; the pointers lie at 0x7000, the directory at 0x9000.
    let cases = [
        (0x9001, ExitCode::VMMCALL, 0),
        (0x9000, ExitCode::EXCP_PF, 0),
        (0x9001 | 1 << 52, ExitCode::EXCP_PF, 0x9),
        (0x9003, ExitCode::EXCP_PF, 0x9),
    ];
    for (entry, code, error) in cases {
        let mut machine = machine(COPY, |vmcb| {
            vmcb.control.intercepts.set(ExitCode::EXCP_PF, true);
            vmcb.save.cr0 = 0x8000_0011;
            vmcb.save.cr3 = 0x7000;
            vmcb.save.cr4 = 0x20;
        });
        machine.memory.write_u64(0x7000, entry).unwrap();
        machine.memory.write_u64(0x9000, 0x87).unwrap();
        let control = enter(&mut machine).control;
        assert_eq!(control.exit_code, code, "{entry:#x}");
        if code == ExitCode::EXCP_PF {
            assert_eq!((control.exit_info_1, control.exit_info_2), (error, GUEST_CODE), "{entry:#x}");
        }
    }
}

#[test]
fn a_changed_entry_is_seen_after_a_flush_and_not_before() {
    // `again: mov eax, [0x5010]; vmmcall; jmp again`
    let code = [0xa1, 0x10, 0x50, 0, 0, 0x0f, 0x01, 0xd9, 0xeb, 0xf6];
    let mut machine = machine(&code, |_| {});
    machine.memory.write_u32(0x5010, 1).unwrap();
    machine.memory.write_u32(0x4_5010, 2).unwrap();
    let skip = |machine: &mut Machine, flush| {
        let mut vmcb = machine.vmcb();
        vmcb.save.rip = vmcb.control.next_rip;
        vmcb.control.tlb_control = flush;
        machine.set_vmcb(&vmcb);
    };
    assert_eq!(enter(&mut machine).save.rax, 1);
    map(&mut machine, 0x5000, 0x4_5000 | ALL);
    skip(&mut machine, TlbControl::DO_NOTHING);
    assert_eq!(enter(&mut machine).save.rax, 1, "the TLB still has the old page: nobody told it");
    skip(&mut machine, TlbControl::FLUSH_GUEST);
    assert_eq!(enter(&mut machine).save.rax, 2);
}

#[test]
fn the_guest_has_a_pat_of_its_own() {
    let mut machine = machine(COPY, |vmcb| vmcb.save.g_pat = 0x0606_0606_0606_0606);
    machine.with(|svm, cpu| {
        let host = cpu.msrs.pat;
        assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
        assert_eq!(cpu.msrs.pat, 0x0606_0606_0606_0606);
        cpu.msrs.pat = 0x0404_0404_0404_0404;
        cpu::extension::Extension::exit(svm, cpu, cpu::trap::Exit::Nmi);
        assert_eq!(cpu.msrs.pat, host);
    });
    assert_eq!(machine.vmcb().save.g_pat, 0x0404_0404_0404_0404);
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0);
}
