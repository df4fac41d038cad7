//! What a #VMEXIT reports, and what a VMRUN and a #VMEXIT leave in registers and memory.

mod common;

use common::{GUEST_CODE, HOST_CODE, IOPM, MSRPM, Machine, VMCB, guest};
use cpu::extension::{AfterExit, Extension, GuestPage};
use cpu::state::Shadow;
use cpu::trap::{
    Access, ControlAccess, ControlAccessKind, Event, EventKind, Exception, Exit, Intercept, MemoryOperand, NestedFault, Operand,
    PortAccess, TaskSwitchSource, VendorInstruction,
};
use isa::exception::{PageFaultCode, Vector};
use isa::register::{Gpr, Segment};
use isa::svm::{CleanBits, EventInformation, EventType, ExitCode, TlbControl, Vmcb};
use svm::Vmrun;

/// Enters the guest by a host in Rust, makes an exit, and gives back the VMCB.
fn exit_of(prepare: impl FnOnce(&mut Vmcb), exit: Exit) -> Vmcb {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    prepare(&mut vmcb);
    machine.set_vmcb(&vmcb);
    machine.cpu.rust_host = true;
    machine.with(|svm, cpu| {
        assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
        assert_eq!(svm.exit(cpu, exit), AfterExit::RustHost);
    });
    machine.vmcb()
}

const ALL: fn(&mut Vmcb) = |vmcb| {
    vmcb.control.intercepts.0 = [u32::MAX; 6];
    vmcb.control.nested_control.set_np_enable(true);
};

fn nested(access: Access, table_walk: bool, present: bool, reserved: bool) -> Exit {
    Exit::Nested(NestedFault {
        guest_physical: 0xfee0_0123,
        linear: None,
        access,
        table_walk,
        user: false,
        misconfiguration: false,
        reserved,
        present,
        rights: 0,
        guest: GuestPage::UNPAGED,
        log_full: false,
        nmi_unblocking: false,
    })
}

fn port(port: u16, width: u8, input: bool, string: bool) -> Exit {
    Exit::Port(PortAccess {
        port,
        width,
        input,
        string,
        repeat: string,
        immediate: false,
        segment: Segment::Ds,
        address_bits: 32,
        linear: 0,
        length: 2,
    })
}

fn control(register: u8, kind: ControlAccessKind) -> Exit {
    Exit::Control(ControlAccess { register, kind, gpr: 3, value: 0x8000_0011, memory: None, length: 3 })
}

#[test]
fn each_exit_reports_its_code_and_details() {
    let instruction = |intercept, length| Exit::Instruction { intercept, length };
    let invlpg = Exit::Operand {
        intercept: Intercept::Invlpg,
        instruction: VendorInstruction {
            operation: Intercept::Invlpg,
            length: 4,
            address_bits: 32,
            operand_bits: 32,
            register: 7,
            operand: Operand::Memory(MemoryOperand {
                segment: Segment::Ds,
                base: None,
                index: None,
                scale: 0,
                displacement: 0x5000,
                offset: 0x5000,
            }),
        },
    };
    let page_fault = Exception::page_fault(0xdead_b000, PageFaultCode::new().with_write(true));
    // (event, EXITCODE, EXITINFO1, EXITINFO2, bytes to the next instruction)
    let cases = [
        (instruction(Intercept::Cpuid, 2), ExitCode::CPUID, 0, 0, Some(2)),
        (instruction(Intercept::Vmmcall, 3), ExitCode::VMMCALL, 0, 0, Some(3)),
        (instruction(Intercept::Hlt, 1), ExitCode::HLT, 0, 0, Some(1)),
        (invlpg, ExitCode::INVLPG, 0x5000, 0, Some(4)),
        (Exit::SoftwareInterrupt { vector: 0x80, length: 2 }, ExitCode::SWINT, 0x80, 0, Some(2)),
        (Exit::Exception(Exception::plain(Vector::InvalidOpcode)), ExitCode::EXCP_UD, 0, 0, None),
        (Exit::Exception(Exception::with_code(Vector::GeneralProtection, 0x18)), ExitCode::EXCP_GP, 0x18, 0, None),
        (Exit::Exception(page_fault), ExitCode::EXCP_PF, 2, 0xdead_b000, None),
        (Exit::ExternalInterrupt { vector: None }, ExitCode::INTR, 0, 0, None),
        (Exit::Nmi, ExitCode::NMI, 0, 0, None),
        (Exit::Init, ExitCode::INIT, 0, 0, None),
        (Exit::InterruptWindow, ExitCode::VINTR, 0, 0, None),
        (Exit::TripleFault, ExitCode::SHUTDOWN, 0, 0, None),
        (port(0x3f8, 1, false, false), ExitCode::IOIO, 0x03f8_0110, GUEST_CODE + 2, Some(2)),
        (port(0x1f0, 2, true, true), ExitCode::IOIO, 0x01f0_0d2d, GUEST_CODE + 2, Some(2)),
        (Exit::Msr { index: 0xc000_0080, write: true, length: 2 }, ExitCode::MSR, 1, 0, Some(2)),
        (Exit::Msr { index: 0xc000_0080, write: false, length: 2 }, ExitCode::MSR, 0, 0, Some(2)),
        (control(4, ControlAccessKind::MovTo), ExitCode::CR4_WRITE, 1 << 63 | 3, 0, Some(3)),
        (control(3, ControlAccessKind::MovFrom), ExitCode::CR3_READ, 1 << 63 | 3, 0, Some(3)),
        (control(0, ControlAccessKind::Clts), ExitCode::CR0_WRITE, 0, 0, Some(3)),
        (control(0, ControlAccessKind::Smsw), ExitCode::CR0_READ, 0, 0, Some(3)),
        (Exit::DebugRegister { register: 7, write: true, gpr: 2, length: 3 }, ExitCode::DR7_WRITE, 2, 0, Some(3)),
        (nested(Access::Write, false, false, false), ExitCode::NPF, 0x1_0000_0006, 0xfee0_0123, None),
        (nested(Access::Read, true, true, false), ExitCode::NPF, 0x2_0000_0007, 0xfee0_0123, None),
        (nested(Access::Fetch, false, true, true), ExitCode::NPF, 0x1_0000_001d, 0xfee0_0123, None),
        (
            Exit::TaskSwitch { selector: 0x28, source: TaskSwitchSource::Jump, length: 7, error_code: None, resume_flag: false },
            ExitCode::TASK_SWITCH,
            0x28,
            1 << 38,
            None,
        ),
    ];
    for (exit, code, info_1, info_2, next) in cases {
        let control = exit_of(ALL, exit).control;
        assert_eq!(control.exit_code, code);
        assert_eq!((control.exit_info_1, control.exit_info_2), (info_1, info_2), "{code:?}");
        assert_eq!(control.next_rip, next.map_or(0, |length: u64| GUEST_CODE + length), "{code:?}");
        assert_eq!(control.exit_int_info, EventInformation::new(), "{code:?}");
    }
}

#[test]
fn a_processor_of_2006_reports_neither_next_rip_nor_operands() {
    let mut machine = Machine::of(&models::K8_REV_F);
    let mut vmcb = guest();
    ALL(&mut vmcb);
    machine.set_vmcb(&vmcb);
    for exit in [control(4, ControlAccessKind::MovTo), Exit::SoftwareInterrupt { vector: 3, length: 2 }] {
        machine.cpu.rust_host = true;
        machine.with(|svm, cpu| {
            assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
            svm.exit(cpu, exit)
        });
        let control = machine.vmcb().control;
        assert_eq!((control.exit_info_1, control.next_rip), (0, 0), "{:?}", control.exit_code);
    }
}

#[test]
fn selective_writes_have_their_own_code() {
    let control = exit_of(|vmcb| vmcb.control.intercepts.set(ExitCode::CR0_SEL_WRITE, true), control(0, ControlAccessKind::MovTo)).control;
    assert_eq!(control.exit_code, ExitCode::CR0_SEL_WRITE);
}

#[test]
fn an_interrupted_delivery_is_reported() {
    let cases = [
        (EventKind::External, 0x30, None, EventInformation::event(EventType::Interrupt, 0x30)),
        (EventKind::Nmi, 2, None, EventInformation::event(EventType::Nmi, 2)),
        (EventKind::Exception, 14, Some(2), EventInformation::exception(14, Some(2))),
        (EventKind::SoftwareInterrupt, 0x80, None, EventInformation::event(EventType::SoftwareInterrupt, 0x80)),
        (EventKind::SoftwareException, 3, None, EventInformation::exception(3, None)),
    ];
    for (kind, vector, error_code, expected) in cases {
        let mut machine = Machine::new();
        machine.set_vmcb(&guest());
        machine.cpu.rust_host = true;
        machine.with(|svm, cpu| {
            assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
            cpu.delivering = Some(Event { kind, vector, error_code, length: 2 });
            svm.exit(cpu, nested(Access::Read, false, false, false));
            assert_eq!(cpu.delivering, None);
        });
        assert_eq!(machine.vmcb().control.exit_int_info, expected);
    }
}

#[test]
fn a_round_trip_moves_the_guest_and_gives_the_host_back() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.clean = CleanBits::from_bits(u32::MAX);
    vmcb.control.event_injection = EventInformation::event(EventType::Interrupt, 0x31);
    vmcb.save.gdtr.base = 0x5000;
    vmcb.save.gdtr.limit = 0x1f;
    vmcb.save.cr2 = 0x77;
    machine.set_vmcb(&vmcb);
    machine.cpu.set_gpr(Gpr::Rax, VMCB);
    machine.cpu.set_gpr(Gpr::Rsp, 0x7000);
    machine.cpu.gdtr.base = 0x6000;
    let vmrun = VendorInstruction {
        operation: Intercept::Vmrun,
        length: 3,
        address_bits: 32,
        operand_bits: 32,
        register: 0,
        operand: Operand::None,
    };
    machine.with(|svm, cpu| {
        svm.clgi(cpu);
        svm.execute(cpu, &vmrun).unwrap();
        assert!(cpu.guest_mode && svm.gif() && !cpu.events_held);
        assert_eq!((cpu.rip, cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rsp)), (GUEST_CODE, 0x1234, 0x8000));
        assert_eq!((cpu.gdtr.base, cpu.gdtr.limit, cpu.cr2, cpu.address_space), (0x5000, 0x1f, 0x77, 1));
        assert_eq!(cpu.inject, Some(Event { kind: EventKind::External, vector: 0x31, error_code: None, length: 0 }));
        cpu.inject = None;
        // The guest does something.
        cpu.rip += 0x10;
        cpu.set_gpr(Gpr::Rax, 0xabcd);
        cpu.set_gpr(Gpr::Rbx, 0x55);
        cpu.cr2 = 0x88;
        cpu.shadow = Shadow::Sti;
        assert_eq!(svm.exit(cpu, Exit::Nmi), AfterExit::MachineCode);
        assert!(cpu.nmi_pending, "an intercepted NMI waits for the host");
        assert!(!cpu.guest_mode && !svm.gif() && cpu.events_held);
        assert_eq!((cpu.rip, cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rsp)), (HOST_CODE + 3, VMCB, 0x7000));
        assert_eq!((cpu.gdtr.base, cpu.address_space, cpu.shadow), (0x6000, 0, Shadow::None));
        assert_eq!(cpu.gpr(Gpr::Rbx), 0x55, "the other general registers are the software's to switch");
        assert_eq!(cpu.cr2, 0x88, "CR2 is not the host's to get back");
    });
    let after = machine.vmcb();
    let changed: Vec<_> = after.control.changed_since(&vmcb.control).map(|field| field.name).collect();
    assert_eq!(changed, ["INTERRUPT_SHADOW", "EXITCODE", "EVENTINJ"]);
    assert!(!after.control.event_injection.valid());
    let changed: Vec<_> = after.save.changed_since(&vmcb.save).map(|field| field.name).collect();
    assert_eq!(changed, ["RIP", "RAX", "CR2"]);
}

#[test]
fn a_broken_rule_ends_with_vmexit_invalid_and_loads_nothing() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.guest_asid = 0;
    machine.set_vmcb(&vmcb);
    machine.with(|svm, cpu| {
        let Ok(Vmrun::Invalid(check)) = svm.vmrun(cpu, VMCB) else { panic!("the VMCB is invalid") };
        assert_eq!(check.id, "asid-zero");
        assert_eq!(svm.last_failure().map(|check| check.id), Some("asid-zero"));
        assert!(!cpu.guest_mode && !svm.gif());
        assert_eq!(cpu.rip, HOST_CODE);
        assert!(svm.vmrun(cpu, VMCB + 8).is_err());
        assert!(svm.vmrun(cpu, 1 << 60).is_err());
    });
    let after = machine.vmcb();
    assert_eq!(after.control.exit_code, ExitCode::INVALID);
    assert_eq!(after.save, vmcb.save);
}

#[test]
fn permission_maps_decide_by_port_and_msr() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.intercepts = vmcb.control.intercepts.with(ExitCode::IOIO).with(ExitCode::MSR);
    machine.set_vmcb(&vmcb);
    machine.memory.write(IOPM + 0x3f8 / 8, &[0x20]).unwrap();
    machine.memory.write(MSRPM + 0x820, &[0b10]).unwrap();
    machine.with(|svm, cpu| {
        assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
        let ports = [(0x3fd, 1, true), (0x3fc, 1, false), (0x3fc, 2, true), (0x3fa, 4, true), (0x3f8, 4, false), (0x3fe, 1, false)];
        for (number, width, expected) in ports {
            let Exit::Port(access) = port(number, width, true, false) else { unreachable!() };
            assert_eq!(svm.intercepts_port(cpu, &access), expected, "{number:#x} {width}");
        }
        let msrs = [(0xc000_0080, true, true), (0xc000_0080, false, false), (0x10, false, false), (0x4000_0000, false, true)];
        for (index, write, expected) in msrs {
            assert_eq!(svm.intercepts_msr(cpu, index, write), expected, "{index:#x}");
        }
    });
}

#[test]
fn software_events_return_behind_their_instruction() {
    // (event, NRIP - RIP, length given to the core, RIP after VMRUN)
    let cases = [
        (EventInformation::event(EventType::SoftwareInterrupt, 0x80), 2, 2, GUEST_CODE),
        (EventInformation::exception(3, None), 1, 1, GUEST_CODE),
        (EventInformation::exception(13, Some(0)), 2, 0, GUEST_CODE),
        (EventInformation::event(EventType::SoftwareInterrupt, 0x80), 0x1000, 0, GUEST_CODE + 0x1000),
    ];
    for (event, distance, length, rip) in cases {
        let mut machine = Machine::new();
        let mut vmcb = guest();
        vmcb.control.event_injection = event;
        vmcb.control.next_rip = GUEST_CODE + distance;
        machine.set_vmcb(&vmcb);
        machine.with(|svm, cpu| {
            assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
            assert_eq!((cpu.inject.map(|event| event.length), cpu.rip), (Some(length), rip));
        });
    }
}

#[test]
fn vmload_and_vmsave_move_the_same_fields() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.save.fs.base = 0x1_0000_8000_0000;
    vmcb.save.tr.selector = 0x28;
    vmcb.save.tr.attributes = vmcb.save.tr.attributes.with_present(true).with_segment_type(11);
    vmcb.save.kernel_gs_base = 0x1111;
    vmcb.save.star = 0x23_0010_0000_0000;
    vmcb.save.sfmask = 0x4_7700;
    vmcb.save.sysenter_eip = 0x2222;
    machine.set_vmcb(&vmcb);
    machine.with(|svm, cpu| {
        svm.vmload(cpu, VMCB).unwrap();
        assert_eq!(cpu.segment(Segment::Fs).base, 0x8000_0000, "bits 63:48 follow bit 47");
        assert_eq!((cpu.tr.selector.into_bits(), cpu.msrs.kernel_gs_base, cpu.msrs.sysenter_eip), (0x28, 0x1111, 0x2222));
        svm.vmsave(cpu, VMCB + 0x1000).unwrap();
    });
    let mut copy = vec![0; 0x1000];
    machine.memory.read(VMCB + 0x1000, &mut copy).unwrap();
    let copy: Vmcb = zerocopy::FromBytes::read_from_bytes(&copy).unwrap();
    assert_eq!((copy.save.tr, copy.save.star, copy.save.sfmask), (vmcb.save.tr, vmcb.save.star, vmcb.save.sfmask));
    assert_eq!((copy.save.rip, copy.save.cs.selector), (0, 0), "VMSAVE leaves the fields of VMRUN alone");
}

#[test]
fn instructions_need_svm_privilege_and_an_aligned_vmcb() {
    use cpu::trap::Trap;
    let operations = [Intercept::Vmrun, Intercept::Vmload, Intercept::Vmsave, Intercept::Stgi, Intercept::Clgi, Intercept::Invlpga];
    let run = |machine: &mut Machine, operation| {
        let instruction =
            VendorInstruction { operation, length: 3, address_bits: 32, operand_bits: 32, register: 0, operand: Operand::None };
        machine.with(|svm, cpu| svm.execute(cpu, &instruction)).err()
    };
    for operation in operations {
        let mut machine = Machine::new();
        machine.cpu.cpl = 3;
        assert_eq!(run(&mut machine, operation), Some(Trap::GP0), "{operation:?}");
        machine.cpu.efer = machine.cpu.efer.with_svme(false);
        // STGI goes with SKINIT, which is there without SVM.
        let without = if operation == Intercept::Stgi { Trap::GP0 } else { Trap::UD };
        assert_eq!(run(&mut machine, operation), Some(without), "{operation:?}");
    }
    for operation in [Intercept::Vmrun, Intercept::Vmload, Intercept::Vmsave] {
        let mut machine = Machine::new();
        machine.cpu.set_gpr(Gpr::Rax, VMCB + 0x10);
        assert_eq!(run(&mut machine, operation), Some(Trap::GP0), "{operation:?}");
    }
    for operation in [Intercept::Vmmcall, Intercept::Vmcall, Intercept::Vmxon] {
        assert_eq!(run(&mut Machine::new(), operation), Some(Trap::UD), "{operation:?}");
    }
}

#[test]
fn virtual_interrupts_and_masking() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VINTR, true);
    let word = vmcb.control.virtual_interrupt.with_v_irq(true).with_v_intr_vector(0x41).with_v_intr_prio(5).with_v_tpr(5);
    // (the word, allowed, CR8 is virtual)
    let cases = [
        (word, false, false),
        (word.with_v_tpr(4), true, false),
        (word.with_v_ign_tpr(true), true, false),
        (word.with_v_intr_masking(true), true, true),
        (word.with_v_tpr(4).with_v_gif_enable(true), false, false),
        (word.with_v_tpr(4).with_v_gif_enable(true).with_v_gif(true), true, false),
    ];
    for (word, allowed, masking) in cases {
        vmcb.control.virtual_interrupt = word;
        machine.set_vmcb(&vmcb);
        machine.cpu.rust_host = true;
        machine.with(|svm, cpu| {
            assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
            let pending = cpu.virtual_interrupt.expect("V_IRQ is set");
            assert_eq!((pending.vector, pending.allowed, cpu.virtual_tpr.is_some()), (0x41, allowed, masking), "{word:?}");
            assert_eq!(cpu.physical_interrupt_flag, masking.then_some(true));
            assert!(cpu.interception.has(Intercept::InterruptWindow));
            svm.exit(cpu, Exit::Nmi);
            assert!(cpu.virtual_interrupt.is_none() && cpu.virtual_tpr.is_none() && cpu.physical_interrupt_flag.is_none());
        });
        assert_eq!(machine.vmcb().control.virtual_interrupt, word, "nothing was taken, nothing changes");
    }
    machine.with(|svm, cpu| {
        assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
        cpu.virtual_interrupt = None;
        svm.exit(cpu, Exit::Nmi);
    });
    assert!(!machine.vmcb().control.virtual_interrupt.v_irq(), "a virtual interrupt that was taken is gone");
}

#[test]
fn tlb_control_flushes_what_it_says() {
    use cpu::tlb::Translation;
    let page = |linear: u64, global| Translation {
        linear,
        physical: 0,
        guest_physical: 0,
        bytes: 4096,
        writable: true,
        user: true,
        executable: true,
        key: 0,
        dirty: true,
        global,
        nested_readable: true,
        nested_writable: true,
        nested_executable: true,
    };
    // (TLB_CONTROL, what remains of: this guest's, this guest's global, another guest's)
    let cases = [
        (TlbControl::DO_NOTHING, [true, true, true]),
        (TlbControl::FLUSH_ALL, [false, false, false]),
        (TlbControl::FLUSH_GUEST, [false, false, true]),
        (TlbControl::FLUSH_GUEST_NON_GLOBAL, [false, true, true]),
    ];
    for (control, remains) in cases {
        let mut machine = Machine::new();
        let mut vmcb = guest();
        vmcb.control.tlb_control = control;
        machine.set_vmcb(&vmcb);
        machine.cpu.tlb().insert(page(0x1000, false), 1, 0);
        machine.cpu.tlb().insert(page(0x2000, true), 1, 0);
        machine.cpu.tlb().insert(page(0x3000, false), 2, 0);
        machine.with(|svm, cpu| {
            assert!(matches!(svm.vmrun(cpu, VMCB), Ok(Vmrun::Entered)));
            let found = [(0x1000, 1), (0x2000, 1), (0x3000, 2)].map(|(linear, asid)| cpu.tlb().lookup(linear, asid, 0).is_some());
            assert_eq!(found, remains, "{control:?}");
        });
    }
}
