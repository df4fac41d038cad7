//! SKINIT, and INIT as a security exception.

mod common;

use common::{GUEST_CODE, HOST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use cpu::extension::Extension as _;
use isa::control::Efer;
use isa::msr;
use isa::register::{Gpr, Segment};
use isa::svm::ExitCode;
use models::{K8_REV_F, ZEN3};

const LOADER: u64 = 0x4_0000;

#[test]
fn skinit_starts_the_secure_loader() {
    for svme in [true, false] {
        let mut machine = Machine::new();
        machine.cpu.efer = Efer::new().with_svme(svme);
        machine.memory.write(HOST_CODE, &[0x0f, 0x01, 0xde]).unwrap();
        // The entry point at 20H of the block; EAX points somewhere into it.
        machine.memory.write(LOADER, &[0x20, 0, 0x40, 0]).unwrap();
        machine.memory.write(LOADER + 0x20, &[0x50, 0xeb, 0xfe]).unwrap();
        machine.cpu.set_gpr(Gpr::Rax, 0xffff_0000_0000_0000 | LOADER | 0x1234);
        machine.cpu.set_gpr(Gpr::Rbx, 7);
        machine.cpu.nmi_pending = true;
        machine.with(|svm, cpu| svm.clgi(cpu));
        machine.run(3);
        let cpu = &machine.cpu;
        assert_eq!((cpu.rip, cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rbx)), (LOADER + 0x21, LOADER, 0));
        assert_eq!((cpu.gpr(Gpr::Rsp), cpu.gpr(Gpr::Rdx)), (LOADER + 0x1_0000 - 4, u64::from(ZEN3.signature())));
        assert_eq!(machine.memory.read_u32(LOADER + 0xfffc).unwrap() as u64, LOADER, "the stack ends with the block");
        assert_eq!((cpu.cr0.into_bits() & 0x8000_0001, cpu.efer.into_bits(), cpu.cpl), (1, 0, 0));
        assert_eq!((cpu.segment(Segment::Cs).selector.into_bits(), cpu.segment(Segment::Ss).selector.into_bits()), (8, 0x10));
        assert!(cpu.segment(Segment::Cs).attributes.db() && cpu.segment(Segment::Ds).limit == 0xffff);
        assert!(cpu.nmi_pending && cpu.events_held, "GIF is clear");
        let vm_cr = machine.with(|svm, cpu| svm.read_msr(cpu, msr::VM_CR)).unwrap().unwrap();
        assert_eq!(vm_cr, 7, "DPD, R_INIT, DIS_A20M");
    }
}

#[test]
fn skinit_is_refused_where_it_must_be() {
    // Without the feature it is #UD, which without an IDT shuts the processor down; at another privilege level #GP.
    for (model, level) in [(&K8_REV_F, 0), (&ZEN3, 3)] {
        let mut machine = Machine::of(model);
        machine.memory.write(HOST_CODE, &[0x0f, 0x01, 0xde]).unwrap();
        machine.cpu.cpl = level;
        machine.cpu.set_gpr(Gpr::Rax, LOADER);
        assert_eq!(machine.run(3), RunExit::Shutdown, "{}", model.name);
        assert_eq!(machine.cpu.rip, HOST_CODE);
    }
    // With other processors the handshake would be needed.
    let mut machine = Machine::new();
    machine.memory.write(HOST_CODE, &[0x0f, 0x01, 0xde]).unwrap();
    machine.cpu.cpu_count = 2;
    assert!(matches!(machine.run(1), RunExit::NotModelled(_)));
}

#[test]
fn an_intercepted_init_is_still_pending_for_the_host() {
    let mut machine = Machine::new();
    machine.memory.write(HOST_CODE, &[0x0f, 0x01, 0xd8, 0x90, 0x0f, 0x01, 0xdc, 0x90]).unwrap();
    machine.memory.write(GUEST_CODE, &[0x90, 0xeb, 0xfd]).unwrap();
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::INIT, true);
    machine.set_vmcb(&vmcb);
    machine.cpu.set_gpr(Gpr::Rax, VMCB);
    machine.cpu.init_pending = true;
    machine.with(|svm, cpu| svm.clgi(cpu));
    machine.run(2);
    assert_eq!(machine.vmcb().control.exit_code, ExitCode::INIT);
    assert!(machine.cpu.init_pending && machine.cpu.events_held);
    // STGI lets it in.
    machine.run(3);
    assert!(!machine.cpu.init_pending);
    assert_eq!(machine.cpu.cr0.into_bits() & 1, 0, "the processor starts anew");
}
