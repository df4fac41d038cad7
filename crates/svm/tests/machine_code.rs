//! The silicon driven by instructions: a hypervisor of a few bytes on the bare machine, and a host in Rust, meet the same guest.

mod common;

use common::{GUEST_CODE, HOST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use isa::register::Gpr;
use isa::svm::ExitCode;
use svm::Vmrun;

/// `again: vmrun; add dword [eax + 0x578], 3; dec ecx; jnz again; jmp $`
const HOST: &[u8] = &[0x0f, 0x01, 0xd8, 0x83, 0x80, 0x78, 0x05, 0x00, 0x00, 0x03, 0x49, 0x75, 0xf3, 0xeb, 0xfe];
/// `again: vmmcall; inc ebx; jmp again`
const GUEST: &[u8] = &[0x0f, 0x01, 0xd9, 0x43, 0xeb, 0xfa];

fn machine() -> Machine {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    machine.set_vmcb(&vmcb);
    machine.memory.write(HOST_CODE, HOST).unwrap();
    machine.memory.write(GUEST_CODE, GUEST).unwrap();
    machine
}

#[test]
fn a_hypervisor_of_machine_code_skips_vmmcall_and_goes_on() {
    let mut machine = machine();
    machine.cpu.set_gpr(Gpr::Rax, VMCB);
    machine.cpu.set_gpr(Gpr::Rcx, 100);
    // 100 turns of 4 host instructions; the guest executes 100 VMMCALL and 99 times INC and JMP; then the host spins.
    assert_eq!(machine.run(100 * 4 + 100 + 99 * 2 + 10), RunExit::Instructions);
    assert!(!machine.cpu.guest_mode);
    assert_eq!(machine.cpu.rip, HOST_CODE + 13);
    assert_eq!(machine.cpu.gpr(Gpr::Rcx), 0);
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 99);
    let vmcb = machine.vmcb();
    assert_eq!(vmcb.control.exit_code, ExitCode::VMMCALL);
    assert_eq!((vmcb.save.rip, vmcb.control.next_rip), (GUEST_CODE + 3, GUEST_CODE + 3));
    assert_eq!(machine.with(|svm, _| svm.exits()), 100);
}

#[test]
fn a_single_step_over_vmrun_traps_on_the_hosts_side() {
    let mut machine = machine();
    machine.cpu.set_gpr(Gpr::Rax, VMCB);
    let flags = machine.cpu.rflags();
    machine.cpu.set_rflags(flags.with_tf(true));
    // The first VMRUN and the guest's VMMCALL; behind them the trap meets no IDT.
    machine.cpu.idtr.limit = 0;
    assert_eq!(machine.run(10), RunExit::Shutdown);
    assert!(!machine.cpu.guest_mode);
    assert_eq!((machine.cpu.rip, machine.with(|svm, _| svm.exits())), (HOST_CODE + 3, 1));
    assert_eq!(machine.cpu.dr6.into_bits() & 0x4000, 0x4000);
}

#[test]
fn a_host_in_rust_gets_every_exit_as_the_end_of_a_run() {
    let mut machine = machine();
    machine.cpu.rust_host = true;
    for turn in 0..100 {
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.run(1000), RunExit::HostEntry);
        assert_eq!(machine.cpu.gpr(Gpr::Rbx), turn);
        let mut vmcb = machine.vmcb();
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (ExitCode::VMMCALL, GUEST_CODE));
        vmcb.save.rip = vmcb.control.next_rip;
        machine.set_vmcb(&vmcb);
    }
}
#[test]
fn vmmcall_that_nobody_intercepts_is_undefined() {
    let mut machine = machine();
    machine.cpu.rust_host = true;
    let mut vmcb = machine.vmcb();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, false);
    vmcb.control.intercepts.set(ExitCode::EXCP_UD, true);
    machine.set_vmcb(&vmcb);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(1000), RunExit::HostEntry);
    assert_eq!(machine.vmcb().control.exit_code, ExitCode::EXCP_UD);
}

#[test]
fn debug_registers_are_intercepted_one_by_one() {
    // `mov eax, dr6; mov dr0, eax; mov dr1, eax; vmmcall`
    let code = [0x0f, 0x21, 0xf0, 0x0f, 0x23, 0xc0, 0x0f, 0x23, 0xc8, 0x0f, 0x01, 0xd9];
    // (intercept, exit, offset of the instruction, EXITINFO1)
    let cases = [
        (ExitCode::DR7_READ, ExitCode::VMMCALL, 9, 0),
        (ExitCode::DR6_READ, ExitCode::DR6_READ, 0, 0),
        (ExitCode::DR1_WRITE, ExitCode::DR1_WRITE, 6, 0),
        (ExitCode::DR0_WRITE, ExitCode::DR0_WRITE, 3, 0),
    ];
    for (intercept, code_expected, offset, info) in cases {
        let mut machine = machine();
        machine.cpu.rust_host = true;
        machine.memory.write(GUEST_CODE, &code).unwrap();
        let mut vmcb = machine.vmcb();
        vmcb.control.intercepts.set(intercept, true);
        machine.set_vmcb(&vmcb);
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.run(1000), RunExit::HostEntry);
        let after = machine.vmcb();
        assert_eq!((after.control.exit_code, after.save.rip - GUEST_CODE, after.control.exit_info_1), (code_expected, offset, info));
    }
}

#[test]
fn each_instruction_exits_when_its_bit_is_set_and_only_then() {
    // (bytes, intercept, EXITINFO1)
    let cases: [(&[u8], ExitCode, u64); 24] = [
        (&[0x0f, 0xa2], ExitCode::CPUID, 0),
        (&[0xf4], ExitCode::HLT, 0),
        (&[0x0f, 0x31], ExitCode::RDTSC, 0),
        (&[0x0f, 0x01, 0xf9], ExitCode::RDTSCP, 0),
        (&[0x0f, 0x33], ExitCode::RDPMC, 0),
        (&[0x9c], ExitCode::PUSHF, 0),
        (&[0x9d], ExitCode::POPF, 0),
        (&[0xcf], ExitCode::IRET, 0),
        (&[0xcd, 0x80], ExitCode::SWINT, 0x80),
        (&[0xcd, 0x01], ExitCode::SWINT, 1),
        (&[0xf1], ExitCode::ICEBP, 0),
        (&[0x0f, 0x08], ExitCode::INVD, 0),
        (&[0x0f, 0x09], ExitCode::WBINVD, 0),
        (&[0xf3, 0x90], ExitCode::PAUSE, 0),
        (&[0x0f, 0x01, 0x3d, 0x00, 0x50, 0, 0], ExitCode::INVLPG, 0x5000),
        (&[0x0f, 0x01, 0x0d, 0x00, 0x50, 0, 0], ExitCode::IDTR_READ, 0),
        (&[0x0f, 0x01, 0x1d, 0x00, 0x50, 0, 0], ExitCode::IDTR_WRITE, 0),
        (&[0x0f, 0x01, 0x15, 0x00, 0x50, 0, 0], ExitCode::GDTR_WRITE, 0),
        (&[0x0f, 0x20, 0xc3], ExitCode::CR0_READ, 1 << 63 | 3),
        (&[0x0f, 0x22, 0xd9], ExitCode::CR3_WRITE, 1 << 63 | 1),
        (&[0x0f, 0x06], ExitCode::CR0_WRITE, 0),
        (&[0x0f, 0x01, 0xd8], ExitCode::VMRUN, 0),
        (&[0x0f, 0x01, 0xda], ExitCode::VMLOAD, 0),
        (&[0x0f, 0x01, 0xdd], ExitCode::CLGI, 0),
    ];
    for (bytes, intercept, info) in cases {
        for intercepted in [true, false] {
            if !intercepted && intercept == ExitCode::VMRUN {
                continue;
            }
            let mut machine = machine();
            machine.cpu.rust_host = true;
            machine.memory.write(GUEST_CODE, bytes).unwrap();
            machine.memory.write(GUEST_CODE + bytes.len() as u64, &[0x0f, 0x01, 0xd9]).unwrap();
            let mut vmcb = machine.vmcb();
            vmcb.control.intercepts.set(intercept, intercepted);
            machine.set_vmcb(&vmcb);
            assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
            let end = machine.run(1);
            let control = machine.vmcb().control;
            if intercepted {
                assert_eq!(end, RunExit::HostEntry, "{intercept:?}");
                assert_eq!((control.exit_code, control.exit_info_1), (intercept, info));
                assert_eq!(control.next_rip, GUEST_CODE + bytes.len() as u64, "{intercept:?}");
            } else {
                assert!(end != RunExit::HostEntry || control.exit_code != intercept, "{intercept:?}");
            }
        }
    }
}

/// A guest in virtual-8086 mode at 0000:1000 with a monitor at level 0 behind its IDT at 0x5000.
fn v86_guest() -> (Machine, isa::svm::Vmcb) {
    use isa::segment::{Attributes, SegmentRegister};
    let mut machine = Machine::new();
    machine.cpu.rust_host = true;
    let mut vmcb = guest();
    for code in [ExitCode::VMMCALL, ExitCode(0x46)] {
        vmcb.control.intercepts.set(code, true);
    }
    let save = &mut vmcb.save;
    save.rflags = 0x2_3002;
    // What the VMCB says of the level does not matter.
    save.cpl = 0;
    (save.rip, save.rsp) = (0x1000, 0x4000);
    for (place, selector) in [(&mut save.es, 0x300), (&mut save.cs, 0), (&mut save.ss, 0), (&mut save.ds, 0x200)] {
        *place = SegmentRegister::virtual_8086(selector).into();
    }
    save.idtr = isa::svm::SegmentRegister { base: 0x5000, limit: 0x7ff, ..save.idtr };
    save.gdtr = isa::svm::SegmentRegister { base: 0x6000, limit: 0x1f, ..save.gdtr };
    // FS, GS and TR are for VMLOAD; a host in Rust puts them in place itself.
    machine.cpu.segments[4] = SegmentRegister::virtual_8086(0);
    machine.cpu.segments[5] = SegmentRegister::virtual_8086(0x123);
    machine.cpu.tr = SegmentRegister { base: 0x7000, limit: 0x67, attributes: Attributes::from_bits(0x8b), ..machine.cpu.tr };
    machine.memory.write_u64(0x5000 + 0x20 * 8, 0x0001_8e00_0008_0000).unwrap();
    machine.memory.write_u64(0x6008, 0x00cf_9b00_0000_ffff).unwrap();
    machine.memory.write_u64(0x6010, 0x00cf_9300_0000_ffff).unwrap();
    machine.memory.write_u64(0x7004, 0x10_0000_8000).unwrap();
    (machine, vmcb)
}

#[test]
fn a_guest_in_virtual_8086_mode_leaves_by_vmmcall_and_comes_back() {
    let (mut machine, vmcb) = v86_guest();
    machine.set_vmcb(&vmcb);
    // mov ax, gs; mov ds, ax; vmmcall; mov bx, ds; vmmcall
    machine.memory.write(0x1000, &[0x8c, 0xe8, 0x8e, 0xd8, 0x0f, 0x01, 0xd9, 0x8c, 0xdb, 0x0f, 0x01, 0xd9]).unwrap();
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100), RunExit::HostEntry);
    let mut vmcb = machine.vmcb();
    assert_eq!((vmcb.control.exit_code, vmcb.save.rip, vmcb.save.cpl), (ExitCode::VMMCALL, 0x1004, 3));
    assert_eq!((vmcb.save.ds.selector, vmcb.save.ds.base, vmcb.save.rflags & 0x2_3000), (0x123, 0x1230, 0x2_3000));
    vmcb.save.rip = vmcb.control.next_rip;
    machine.set_vmcb(&vmcb);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100), RunExit::HostEntry);
    assert_eq!((machine.vmcb().save.rip, machine.cpu.gpr(Gpr::Rbx) & 0xffff), (0x1009, 0x123));
}

#[test]
fn in_virtual_8086_mode_the_instructions_of_svm_are_undefined_before_they_exit() {
    // vmrun, vmload, vmsave, stgi, clgi, invlpga
    for last in [0xd8, 0xda, 0xdb, 0xdc, 0xdd, 0xdf] {
        let (mut machine, mut vmcb) = v86_guest();
        vmcb.control.intercepts.0[4] = u32::MAX;
        machine.set_vmcb(&vmcb);
        machine.memory.write(0x1000, &[0x0f, 0x01, last]).unwrap();
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.run(100), RunExit::HostEntry);
        assert_eq!(machine.vmcb().control.exit_code.0, 0x46, "0f 01 {last:x}");
    }
}

#[test]
fn an_event_injected_into_virtual_8086_mode_goes_through_the_idt_to_level_0() {
    let (mut machine, mut vmcb) = v86_guest();
    vmcb.control.event_injection = isa::svm::EventInformation::new().with_valid(true).with_vector(0x20);
    machine.set_vmcb(&vmcb);
    machine.memory.write(0x1_0000, &[0x0f, 0x01, 0xd9]).unwrap();
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100), RunExit::HostEntry);
    let vmcb = machine.vmcb();
    assert_eq!((vmcb.control.exit_code, vmcb.save.rip, vmcb.save.cpl, vmcb.save.cs.selector), (ExitCode::VMMCALL, 0x1_0000, 0, 8));
    assert_eq!((vmcb.save.rflags, vmcb.save.rsp), (0x3002, 0x8000 - 36));
    let frame: Vec<u32> = (0..9).map(|word| machine.memory.read_u32(0x8000 - 36 + 4 * word).unwrap()).collect();
    assert_eq!(frame, [0x1000, 0, 0x2_3002, 0x4000, 0, 0x300, 0x200, 0, 0x123]);
}

/// A guest in 32-bit protected mode at 0x1000 whose GDT at 0x6000 has an available TSS at 0x28, a busy one at 0x30, and whose IDT at 0x5000
/// leads vectors 6 and 0x20 through task gates to the first.
fn task_guest(code: &[u8]) -> (Machine, isa::svm::Vmcb) {
    let (mut machine, mut vmcb) = v86_guest();
    let flat = guest().save;
    let save = &mut vmcb.save;
    (save.es, save.cs, save.ss, save.ds) = (flat.es, flat.cs, flat.ss, flat.ds);
    save.rflags = 2;
    save.gdtr.limit = 0x3f;
    vmcb.control.intercepts.set(ExitCode(0x46), false);
    vmcb.control.intercepts.set(ExitCode::TASK_SWITCH, true);
    machine.memory.write_u64(0x6028, 0x0000_8900_7200_0067).unwrap();
    machine.memory.write_u64(0x6030, 0x0000_8b00_7400_0067).unwrap();
    for vector in [6, 0x20] {
        machine.memory.write_u64(0x5000 + vector * 8, 0x0000_8500_0028_0000).unwrap();
    }
    machine.cpu.tr.selector = isa::segment::Selector::from_bits(0x30);
    machine.memory.write(0x1000, code).unwrap();
    (machine, vmcb)
}

#[test]
fn a_task_switch_exits_behind_the_checks_of_the_new_tss() {
    // Code; EXITINFO2; EXITINTINFO.
    let rows: [(&[u8], u64, u64); 4] = [
        (&[0xea, 0, 0, 0, 0, 0x28, 0], 1 << 38, 0),
        (&[0x9a, 0, 0, 0, 0, 0x28, 0], 0, 0),
        (&[0xcd, 0x20], 0, 0x8000_0420),
        (&[0x0f, 0x0b], 1 << 48, 0x8000_0306),
    ];
    for (code, info_2, event) in rows {
        let (mut machine, vmcb) = task_guest(code);
        machine.set_vmcb(&vmcb);
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.run(100), RunExit::HostEntry);
        let vmcb = machine.vmcb();
        let control = &vmcb.control;
        assert_eq!((control.exit_code, control.exit_info_1, control.exit_info_2), (ExitCode::TASK_SWITCH, 0x28, info_2), "{code:x?}");
        assert_eq!((control.exit_int_info.into_bits(), vmcb.save.rip), (event, 0x1000), "{code:x?}");
        assert_eq!(machine.memory.read_u64(0x6028), Ok(0x0000_8900_7200_0067), "nothing has happened");
    }
    // What the processor refuses does not exit as a task switch: a busy TSS, IRET with NT set to a task that is not.
    for (code, vector, error) in [(&[0xea, 0, 0, 0, 0, 0x30, 0][..], 13, 0x30), (&[0xcf], 10, 0x28)] {
        let (mut machine, mut vmcb) = task_guest(code);
        vmcb.save.rflags = 0x4002;
        vmcb.control.intercepts.set(ExitCode::exception(vector), true);
        machine.set_vmcb(&vmcb);
        machine.memory.write_u32(0x7000, 0x28).unwrap();
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        assert_eq!(machine.run(100), RunExit::HostEntry);
        let control = machine.vmcb().control;
        assert_eq!((control.exit_code, control.exit_info_1), (ExitCode::exception(vector), error), "{code:x?}");
    }
}

#[test]
fn without_the_intercept_a_guest_switches_tasks_by_itself() {
    let (mut machine, mut vmcb) = task_guest(&[0xea, 0, 0, 0, 0, 0x28, 0]);
    vmcb.control.intercepts.set(ExitCode::TASK_SWITCH, false);
    // CR3 and CR0 writes are intercepted, but a task switch is neither.
    vmcb.control.intercepts.set(ExitCode::cr_write(0), true);
    vmcb.control.intercepts.set(ExitCode::cr_write(3), true);
    machine.set_vmcb(&vmcb);
    for (offset, word) in [(0x20, 0x1800), (0x24, 2), (0x28, 0xaaaa), (0x38, 0x9000), (0x48, 16), (0x4c, 8), (0x50, 16), (0x54, 16)] {
        machine.memory.write_u32(0x7200 + offset, word).unwrap();
    }
    machine.memory.write(0x1800, &[0x0f, 0x01, 0xd9]).unwrap();
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100), RunExit::HostEntry);
    let save = machine.vmcb().save;
    assert_eq!((machine.vmcb().control.exit_code, save.rip, save.rax, save.rsp), (ExitCode::VMMCALL, 0x1800, 0xaaaa, 0x9000));
    assert_eq!((machine.cpu.tr.selector.into_bits(), save.cr0 & 8), (0x28, 8));
}
