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
