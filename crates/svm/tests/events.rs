//! Events on their way into a guest: injected, virtual, physical; and what interrupts their delivery.

mod common;

use common::{GUEST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use isa::paging::{PRESENT, USER, WRITABLE};
use isa::svm::{EventInformation, EventType, ExitCode, Vmcb};
use svm::Vmrun;

const GDT: u64 = 0x9000;
const IDT: u64 = 0xa000;
/// Every vector leads here: `vmmcall`.
const HANDLER: u64 = 0x3_1000;
const STACK: u64 = 0x8000;

/// A guest of `jmp $` with interrupts enabled and an IDT.
fn machine(prepare: impl FnOnce(&mut Vmcb)) -> Machine {
    let mut machine = Machine::new();
    machine.cpu.rust_host = true;
    machine.memory.write(GUEST_CODE, &[0xeb, 0xfe]).unwrap();
    machine.memory.write(HANDLER, &[0x0f, 0x01, 0xd9]).unwrap();
    machine.memory.write_u64(GDT + 8, 0x00cf_9b00_0000_ffff).unwrap();
    for vector in 0..256 {
        machine.memory.write_u64(IDT + vector * 8, HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48).unwrap();
    }
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    vmcb.control.intercepts.set(ExitCode::SHUTDOWN, true);
    vmcb.save.rflags = 0x202;
    vmcb.save.rsp = STACK;
    (vmcb.save.gdtr.base, vmcb.save.gdtr.limit) = (GDT, 0xf);
    (vmcb.save.idtr.base, vmcb.save.idtr.limit) = (IDT, 0x7ff);
    prepare(&mut vmcb);
    machine.set_vmcb(&vmcb);
    machine
}

fn enter(machine: &mut Machine) -> Vmcb {
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(1000), RunExit::HostEntry);
    machine.vmcb()
}

fn stacked(machine: &Machine, from_top: u64) -> u64 {
    u64::from(machine.memory.read_u32(STACK - 4 * from_top).unwrap())
}

#[test]
fn an_injected_event_reaches_its_handler() {
    // (event, NRIP, words pushed, RIP on the stack, top of the stack)
    let cases = [
        (EventInformation::event(EventType::Interrupt, 0x30), 0, 3, GUEST_CODE, GUEST_CODE),
        (EventInformation::event(EventType::Nmi, 0), 0, 3, GUEST_CODE, GUEST_CODE),
        (EventInformation::exception(6, None), 0, 3, GUEST_CODE, GUEST_CODE),
        (EventInformation::exception(13, Some(0x18)), 0, 4, GUEST_CODE, 0x18),
        (EventInformation::event(EventType::SoftwareInterrupt, 0x80), GUEST_CODE + 2, 3, GUEST_CODE + 2, GUEST_CODE + 2),
        (EventInformation::exception(3, None), GUEST_CODE + 1, 3, GUEST_CODE + 1, GUEST_CODE + 1),
    ];
    for (event, next_rip, words, rip, top) in cases {
        let mut machine = machine(|vmcb| {
            vmcb.control.event_injection = event;
            vmcb.control.next_rip = next_rip;
        });
        let vmcb = enter(&mut machine);
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (ExitCode::VMMCALL, HANDLER), "{event:?}");
        assert_eq!(vmcb.save.rsp, STACK - 4 * words, "{event:?}");
        assert_eq!((stacked(&machine, 3), stacked(&machine, words)), (rip, top), "{event:?}");
        assert!(!vmcb.control.event_injection.valid());
        assert_eq!(vmcb.save.rflags & 0x200, 0, "an interrupt gate");
    }
}

#[test]
fn an_intercepted_delivery_reports_the_event() {
    const ROOT: u64 = 0x8_0000;
    let all = PRESENT | WRITABLE | USER;
    let event = EventInformation::exception(14, Some(2));
    let mut machine = machine(|vmcb| {
        vmcb.control.event_injection = event;
        vmcb.control.nested_control = vmcb.control.nested_control.with_np_enable(true);
        vmcb.control.n_cr3 = ROOT;
    });
    for level in 0..3 {
        machine.memory.write_u64(ROOT + level * 0x1000, (ROOT + (level + 1) * 0x1000) | all).unwrap();
    }
    for page in (0..256).filter(|page| *page != IDT >> 12) {
        machine.memory.write_u64(ROOT + 0x3000 + page * 8, (page << 12) | all).unwrap();
    }
    let vmcb = enter(&mut machine);
    assert_eq!((vmcb.control.exit_code, vmcb.control.exit_info_2), (ExitCode::NPF, IDT + 14 * 8));
    assert_eq!(vmcb.control.exit_int_info, event);
    assert_eq!((vmcb.save.rip, vmcb.save.rsp), (GUEST_CODE, STACK));
    assert!(!vmcb.control.event_injection.valid());
}

#[test]
fn faults_of_delivery_end_in_shutdown_unless_one_is_intercepted() {
    // (exception intercepted, exit, EXITINTINFO): without an IDT every delivery is #GP.
    let event = EventInformation::event(EventType::Interrupt, 0x30);
    let cases = [
        (None, ExitCode::SHUTDOWN, EventInformation::new()),
        (Some(ExitCode::EXCP_GP), ExitCode::EXCP_GP, event),
        (Some(ExitCode::EXCP_DF), ExitCode::EXCP_DF, EventInformation::new()),
    ];
    for (intercept, code, interrupted) in cases {
        let mut machine = machine(|vmcb| {
            vmcb.control.event_injection = event;
            vmcb.save.idtr.limit = 0;
            if let Some(intercept) = intercept {
                vmcb.control.intercepts.set(intercept, true);
            }
        });
        let control = enter(&mut machine).control;
        assert_eq!((control.exit_code, control.exit_int_info), (code, interrupted));
    }
}

#[test]
fn a_virtual_interrupt_is_taken_or_announced() {
    for intercepted in [false, true] {
        let mut machine = machine(|vmcb| {
            let word = vmcb.control.virtual_interrupt;
            vmcb.control.virtual_interrupt = word.with_v_irq(true).with_v_intr_vector(0x41).with_v_ign_tpr(true).with_v_intr_masking(true);
            vmcb.control.intercepts.set(ExitCode::VINTR, intercepted);
        });
        let vmcb = enter(&mut machine);
        let (code, rip) = if intercepted { (ExitCode::VINTR, GUEST_CODE) } else { (ExitCode::VMMCALL, HANDLER) };
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (code, rip));
        assert_eq!(vmcb.control.virtual_interrupt.v_irq(), intercepted, "what was taken is no longer pending");
    }
}

#[test]
fn what_masks_a_virtual_interrupt() {
    let word = isa::svm::VirtualInterrupt::new().with_v_irq(true).with_v_intr_vector(0x41).with_v_intr_prio(4).with_v_intr_masking(true);
    // (the word, RFLAGS, interrupt shadow, taken)
    let cases = [
        (word, 0x202, false, true),
        (word, 0x2, false, false),
        (word.with_v_tpr(4), 0x202, false, false),
        (word.with_v_tpr(4).with_v_ign_tpr(true), 0x202, false, true),
        (word.with_v_tpr(3), 0x202, false, true),
        (word.with_v_gif_enable(true), 0x202, false, false),
        (word.with_v_gif_enable(true).with_v_gif(true), 0x202, false, true),
        (word, 0x202, true, true),
    ];
    for (word, rflags, shadow, taken) in cases {
        let mut machine = machine(|vmcb| {
            vmcb.control.virtual_interrupt = word;
            vmcb.control.interrupt_state.set_interrupt_shadow(shadow);
            vmcb.save.rflags = rflags;
        });
        assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
        let expected = if taken { RunExit::HostEntry } else { RunExit::Instructions };
        assert_eq!(machine.run(10), expected, "{word:?} {rflags:#x} {shadow}");
    }
}

#[test]
fn a_physical_nmi_exits_or_is_the_guests() {
    for intercepted in [false, true] {
        let mut machine = machine(|vmcb| vmcb.control.intercepts.set(ExitCode::NMI, intercepted));
        machine.cpu.nmi_pending = true;
        let vmcb = enter(&mut machine);
        let (code, rip) = if intercepted { (ExitCode::NMI, GUEST_CODE) } else { (ExitCode::VMMCALL, HANDLER) };
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (code, rip));
        assert!(machine.cpu.events_held, "GIF is clear behind a #VMEXIT");
    }
}

#[test]
fn an_injected_event_comes_before_what_is_pending() {
    let mut machine = machine(|vmcb| {
        vmcb.control.intercepts.set(ExitCode::NMI, true);
        vmcb.control.event_injection = EventInformation::event(EventType::Interrupt, 0x30);
    });
    machine.cpu.nmi_pending = true;
    let vmcb = enter(&mut machine);
    assert_eq!((vmcb.control.exit_code, vmcb.save.rip, vmcb.save.rsp), (ExitCode::NMI, HANDLER, STACK - 12));
}

#[test]
fn intercepted_debug_exceptions_leave_their_bits_in_dr6() {
    let mut machine = machine(|vmcb| {
        vmcb.control.intercepts.set(ExitCode::EXCP_DB, true);
        vmcb.save.rflags = 0x102;
    });
    let vmcb = enter(&mut machine);
    assert_eq!(vmcb.control.exit_code, ExitCode::EXCP_DB);
    assert_eq!(vmcb.save.dr6 & 0x4000, 0x4000, "single-step");
}
