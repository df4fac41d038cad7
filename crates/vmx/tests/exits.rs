//! What each VM exit reports.

mod common;

use common::{GUEST_CODE, read, set, story};
use cpu::extension::{AfterExit, Extension, GuestPage};
use cpu::state::{Cpu, Shadow};
use cpu::trap::{
    Access, ControlAccess, ControlAccessKind, Event, EventKind, Exception, Exit, Intercept, MemoryOperand, NestedFault, Operand,
    PortAccess, TaskSwitchSource, VendorInstruction,
};
use isa::exception::Vector;
use isa::register::Segment;
use isa::vmx::{ExitReason, VmcsField as F};
use vmx::{EntryOutcome, Vmx};

/// Enters the guest, makes an exit, and looks at the VMCS.
fn exit_of(exit: Exit, look: impl FnOnce(&mut Vmx, &mut Cpu)) {
    story(|vmx, cpu| {
        assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
        assert_eq!(vmx.exit(cpu, exit), AfterExit::RustHost);
        look(vmx, cpu);
    });
}

fn port(port: u16, width: u8, input: bool, string: bool, immediate: bool) -> Exit {
    Exit::Port(PortAccess {
        port,
        width,
        input,
        string,
        repeat: string,
        immediate,
        segment: Segment::Es,
        address_bits: 64,
        linear: 0x7000,
        length: 2,
    })
}

fn control(register: u8, kind: ControlAccessKind, value: u64) -> Exit {
    Exit::Control(ControlAccess { register, kind, gpr: 3, value, memory: None, length: 3 })
}

fn operand(intercept: Intercept, register: u8, operand: Operand) -> Exit {
    let instruction = VendorInstruction { operation: intercept, length: 5, address_bits: 64, operand_bits: 64, register, operand };
    Exit::Operand { intercept, instruction }
}

/// `[rax + r9 * 4 + 0x10]`, RAX and R9 being 0.
const MEMORY: Operand =
    Operand::Memory(MemoryOperand { segment: Segment::Ds, base: Some(0), index: Some(9), scale: 2, displacement: 0x10, offset: 0x10 });

#[test]
fn reasons_qualifications_and_lengths() {
    use ExitReason as R;
    let instruction = |intercept, length| Exit::Instruction { intercept, length };
    let debug = |register, write| Exit::DebugRegister { register, write, gpr: 2, length: 3 };
    // (event, reason, qualification, instruction length)
    let cases = [
        (instruction(Intercept::Cpuid, 2), R::Cpuid, 0, 2),
        (instruction(Intercept::Vmcall, 3), R::Vmcall, 0, 3),
        (instruction(Intercept::Wbinvd, 2), R::WbinvdOrWbnoinvd, 0, 2),
        (instruction(Intercept::Xsetbv, 3), R::Xsetbv, 0, 3),
        (Exit::Msr { index: 0x10, write: false, length: 2 }, R::Rdmsr, 0, 2),
        (Exit::Msr { index: 0x10, write: true, length: 2 }, R::Wrmsr, 0, 2),
        (port(0x3f8, 1, false, false, false), R::IoInstruction, 0x03f8_0000, 2),
        (port(0x60, 1, true, false, true), R::IoInstruction, 0x0060_0048, 2),
        (port(0x1f0, 2, true, true, false), R::IoInstruction, 0x01f0_0039, 2),
        (port(0xcfc, 4, false, false, false), R::IoInstruction, 0x0cfc_0003, 2),
        (control(0, ControlAccessKind::MovTo, 0), R::ControlRegisterAccess, 0x300, 3),
        (control(3, ControlAccessKind::MovFrom, 0), R::ControlRegisterAccess, 0x313, 3),
        (control(4, ControlAccessKind::MovTo, 0), R::ControlRegisterAccess, 0x304, 3),
        (control(8, ControlAccessKind::MovTo, 0), R::ControlRegisterAccess, 0x308, 3),
        (control(0, ControlAccessKind::Clts, 0), R::ControlRegisterAccess, 0x20, 3),
        (control(0, ControlAccessKind::Lmsw, 0x1235), R::ControlRegisterAccess, 0x1235_0030, 3),
        (debug(7, true), R::MovDr, 0x207, 3),
        (debug(6, false), R::MovDr, 0x216, 3),
        (Exit::TripleFault, R::TripleFault, 0, 0),
        (Exit::Init, R::InitSignal, 0, 0),
        (Exit::Sipi { vector: 0x9a }, R::StartUpIpi, 0x9a, 0),
        (Exit::InterruptWindow, R::InterruptWindow, 0, 0),
        (Exit::NmiWindow, R::NmiWindow, 0, 0),
        (Exit::MonitorTrap, R::MonitorTrapFlag, 0, 0),
        (Exit::PreemptionTimer, R::PreemptionTimerExpired, 0, 0),
        (
            Exit::TaskSwitch { selector: 0x28, source: TaskSwitchSource::Jump, length: 7, error_code: None, resume_flag: false },
            R::TaskSwitch,
            0x8000_0028,
            7,
        ),
        (operand(Intercept::Invlpg, 7, MEMORY), R::Invlpg, 0x10, 5),
        (operand(Intercept::Vmread, 3, MEMORY), R::Vmread, 0x10, 5),
        (operand(Intercept::Lidt, 3, MEMORY), R::GdtrOrIdtrAccess, 0x10, 5),
        (operand(Intercept::Str, 1, Operand::Register(2)), R::LdtrOrTrAccess, 0, 5),
    ];
    for (exit, reason, qualification, length) in cases {
        exit_of(exit, |vmx, cpu| {
            assert_eq!(read(vmx, cpu, F::ExitReason), reason as u64, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::ExitQualification), qualification, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::ExitInstructionLength), length, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::ExitInterruptionInformation), 0, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::IdtVectoringInformation), 0, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::GuestRip), GUEST_CODE);
        });
    }
}

#[test]
fn instructions_with_operands_describe_them() {
    // (event, instruction information)
    let cases = [
        // Scaling 2, address size 64, DS, index R9, base RAX, Reg2 RBX.
        (operand(Intercept::Vmread, 3, MEMORY), 0x3025_8102),
        // Reg1 RCX in place of memory.
        (operand(Intercept::Vmwrite, 2, Operand::Register(1)), 0x2000_0508),
        // Identity 3 is LIDT; the operand size is not 16 bits.
        (operand(Intercept::Lidt, 3, MEMORY), 0x3025_8902),
        // Identity 1 is STR, to RDX.
        (operand(Intercept::Str, 1, Operand::Register(2)), 0x1000_0510),
        (operand(Intercept::Invlpg, 7, MEMORY), 0),
        // INS tells its address size; ES is 0.
        (port(0x60, 1, true, true, false), 0x100),
    ];
    for (exit, information) in cases {
        exit_of(exit, |vmx, cpu| assert_eq!(read(vmx, cpu, F::ExitInstructionInformation), information, "{exit:?}"));
    }
}

#[test]
fn events_have_interruption_information() {
    let int1 = Exit::SoftwareInterrupt { vector: 1, length: 1 };
    // (event, reason, interruption information, instruction length)
    let cases = [
        (Exit::Nmi, 0, 0x8000_0202, 0),
        (Exit::ExternalInterrupt { vector: Some(0x31) }, 1, 0x8000_0031, 0),
        (Exit::ExternalInterrupt { vector: None }, 1, 0, 0),
        (int1, 0, 0x8000_0501, 1),
        (Exit::Exception(Exception::plain(Vector::Overflow)), 0, 0x8000_0604, 1),
        (Exit::Exception(Exception::with_code(Vector::DoubleFault, 0)), 0, 0x8000_0b08, 0),
    ];
    for (exit, reason, information, length) in cases {
        exit_of(exit, |vmx, cpu| {
            assert_eq!(read(vmx, cpu, F::ExitReason), reason, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::ExitInterruptionInformation), information, "{exit:?}");
            assert_eq!(read(vmx, cpu, F::ExitInstructionLength), length, "{exit:?}");
            assert_eq!(cpu.nmi_blocked, matches!(exit, Exit::Nmi), "after an NMI exits, NMIs are blocked");
        });
    }
}

/// A write to a page that is not there.
const WRITE_FAULT: NestedFault = NestedFault {
    guest_physical: 0xfee0_0123,
    linear: Some(0x1_2345),
    access: Access::Write,
    table_walk: false,
    user: false,
    misconfiguration: false,
    reserved: false,
    present: false,
    rights: 0,
    guest: GuestPage { user: false, writable: false, executable: true },
    log_full: false,
    nmi_unblocking: false,
};

#[test]
fn ept_faults_report_access_and_rights() {
    let fault = WRITE_FAULT;
    // (fault, reason, qualification)
    let cases = [
        (fault, 48, 0x182),
        (NestedFault { access: Access::Fetch, rights: 3, present: true, ..fault }, 48, 0x19c),
        (NestedFault { access: Access::Read, table_walk: true, rights: 4, ..fault }, 48, 0xa1),
        // Setting the accessed flag of a guest's entry is one access that reads and writes.
        (NestedFault { table_walk: true, rights: 1, present: true, ..fault }, 48, 0x8b),
        (NestedFault { linear: None, access: Access::Read, ..fault }, 48, 0x1),
        (NestedFault { misconfiguration: true, ..fault }, 49, 0),
    ];
    for (fault, reason, qualification) in cases {
        exit_of(Exit::Nested(fault), |vmx, cpu| {
            assert_eq!(read(vmx, cpu, F::ExitReason), reason, "{fault:?}");
            assert_eq!(read(vmx, cpu, F::ExitQualification), qualification, "{fault:?}");
            assert_eq!(read(vmx, cpu, F::GuestPhysicalAddress), 0xfee0_0123);
        });
    }
}

#[test]
fn an_exit_during_delivery_tells_of_the_event_that_was_delivered() {
    let fault = Exit::Exception(Exception::with_code(Vector::SegmentNotPresent, 0x10));
    let double = Exit::Exception(Exception::with_code(Vector::DoubleFault, 0));
    let event = |kind, vector, error_code| Event { kind, vector, error_code, length: 2 };
    // (event, exit, IDT-vectoring information, its error code, instruction length)
    let cases = [
        (event(EventKind::External, 0x31, None), fault, 0x8000_0031, 0, 0),
        (event(EventKind::Nmi, 2, None), fault, 0x8000_0202, 0, 0),
        (event(EventKind::Exception, 14, Some(6)), fault, 0x8000_0b0e, 6, 0),
        (event(EventKind::SoftwareInterrupt, 0x80, None), fault, 0x8000_0480, 0, 2),
        (event(EventKind::SoftwareException, 3, None), fault, 0x8000_0603, 0, 2),
        (event(EventKind::Exception, 13, Some(0)), double, 0, 0, 0),
        (event(EventKind::Exception, 13, Some(0)), Exit::TripleFault, 0, 0, 0),
    ];
    for (event, exit, information, code, length) in cases {
        story(|vmx, cpu| {
            set(vmx, cpu, F::ExceptionBitmap, u32::MAX.into());
            assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
            cpu.delivering = Some(event);
            assert_eq!(vmx.exit(cpu, exit), AfterExit::RustHost);
            assert_eq!(read(vmx, cpu, F::IdtVectoringInformation), information, "{event:?}");
            assert_eq!(read(vmx, cpu, F::IdtVectoringErrorCode), code, "{event:?}");
            assert_eq!(read(vmx, cpu, F::ExitInstructionLength), length, "{event:?}");
            assert_eq!(cpu.delivering, None);
        });
    }
}

/// SDM 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP": 1 where an instruction is to be executed again, else as the event would have pushed it.
#[test]
fn a_nested_fault_saves_rf_as_the_event_would_have_pushed_it() {
    let fault = WRITE_FAULT;
    let event = |kind, vector| Some(Event { kind, vector, error_code: None, length: 2 });
    // The event in delivery, RF before, RF saved.
    let cases = [
        (None, false, true),
        (event(EventKind::External, 0x31), false, false),
        (event(EventKind::External, 0x31), true, true),
        (event(EventKind::SoftwareInterrupt, 0x80), true, false),
        (event(EventKind::Exception, 14), false, true),
        (event(EventKind::Exception, 1), false, false),
    ];
    for (delivering, before, saved) in cases {
        story(|vmx, cpu| {
            assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
            cpu.delivering = delivering;
            let flags = cpu.rflags().with_rf(before);
            cpu.set_rflags(flags);
            vmx.exit(cpu, Exit::Nested(fault));
            assert_eq!(read(vmx, cpu, F::GuestRflags) >> 16 & 1, u64::from(saved), "{delivering:?} with RF {before}");
        });
    }
}

#[test]
fn debug_exceptions_stay_pending_only_over_exits_that_come_before_them() {
    // What the guest met before the exit, whether MOV SS holds it back, the exit, what is saved. SDM 28.3.4 "Saving Non-Register State".
    let hlt = Exit::Instruction { intercept: Intercept::Hlt, length: 1 };
    let cases = [
        (2, Shadow::None, Exit::MonitorTrap, 0x1002),
        (1 << 14, Shadow::None, Exit::Init, 0x4000),
        (1, Shadow::None, Exit::TprBelowThreshold, 0x1001),
        (1, Shadow::None, hlt, 0),
        (1 << 14, Shadow::Sti, hlt, 0),
        (1, Shadow::MovSs, hlt, 0x1001),
    ];
    for (pending, shadow, exit, saved) in cases {
        story(|vmx, cpu| {
            assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
            (cpu.pending_debug, cpu.shadow) = (pending, shadow);
            let name = format!("{exit:?} with {pending:#x} behind {shadow:?}");
            vmx.exit(cpu, exit);
            assert_eq!((read(vmx, cpu, F::GuestPendingDebugExceptions), cpu.pending_debug), (saved, 0), "{name}");
        });
    }
}
