//! VMX driven by Rust calls, as a hypervisor drives it: the life of a VMCS, VM entry, VM exit, and what each instruction refuses.

mod common;

use common::{VMCS, VMXON, read, set, story};
use cpu::extension::AfterExit;
use cpu::state::{Cpu, Shadow};
use cpu::trap::{Event, EventKind, Exception, Exit, Intercept};
use isa::exception::{PageFaultCode, Vector};
use isa::register::{Gpr, Segment};
use isa::vmx::{VmInstructionError, VmcsField as F};
use vmx::{EntryOutcome, Operation, VmFail, Vmx};

/// Makes an exit as the core does.
fn exit(vmx: &mut Vmx, cpu: &mut Cpu, exit: Exit) {
    use cpu::extension::Extension;
    assert_eq!(vmx.exit(cpu, exit), AfterExit::RustHost);
    assert_eq!(vmx.operation(), Operation::Root);
    assert!(!cpu.guest_mode);
}

fn enter(vmx: &mut Vmx, cpu: &mut Cpu) {
    assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered), "{:x?}", vmx.explain(cpu));
}

const HLT: Exit = Exit::Instruction { intercept: Intercept::Hlt, length: 1 };

#[test]
fn a_guest_is_entered_and_left() {
    story(|vmx, cpu| {
        enter(vmx, cpu);
        assert_eq!(vmx.operation(), Operation::NonRoot);
        assert!(cpu.guest_mode && cpu.interception.has(Intercept::Hlt));
        assert_eq!((cpu.rip, cpu.gpr(Gpr::Rsp), cpu.cr3), (0x10_0000, 0x20_0000, 0x9000));
        assert_eq!(cpu.segment(Segment::Gs).base, 0x7777_0000);
        cpu.rip = 0x10_0010;
        exit(vmx, cpu, HLT);
        assert_eq!(read(vmx, cpu, F::ExitReason), 12);
        assert_eq!(read(vmx, cpu, F::ExitInstructionLength), 1);
        assert_eq!(read(vmx, cpu, F::GuestRip), 0x10_0010);
        assert_eq!((cpu.rip, cpu.segment(Segment::Gs).base), (0, 0));
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(VmInstructionError::VmlaunchNonClearVmcs)));
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Entered));
        assert_eq!(cpu.rip, 0x10_0010);
    });
}

#[test]
fn a_broken_rule_fails_the_entry_with_its_phase_s_outcome() {
    story(|vmx, cpu| {
        set(vmx, cpu, F::Cr3TargetCount, 5);
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(VmInstructionError::EntryInvalidControlFields)));
        assert_eq!(read(vmx, cpu, F::VmInstructionError), 7);
        set(vmx, cpu, F::Cr3TargetCount, 0);
        set(vmx, cpu, F::HostCsSelector, 1);
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(VmInstructionError::EntryInvalidHostStateFields)));
        set(vmx, cpu, F::HostCsSelector, 8);
        set(vmx, cpu, F::GuestRflags, 0);
        assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Exited(AfterExit::RustHost)));
        assert_eq!(read(vmx, cpu, F::ExitReason), 0x8000_0021);
        assert_eq!(read(vmx, cpu, F::ExitQualification), 0);
        assert_eq!(vmx.explain(cpu).iter().map(|(_, check)| check.id).collect::<Vec<_>>(), ["guest-rflags-fixed"]);
        set(vmx, cpu, F::GuestRflags, 2);
        // The launch state is still clear, and what was broken is checked again.
        enter(vmx, cpu);
    });
}

#[test]
fn what_held_is_checked_again_when_it_changes() {
    story(|vmx, cpu| {
        enter(vmx, cpu);
        exit(vmx, cpu, HLT);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Entered));
        cpu.cr4 = cpu.cr4.with_vmxe(false);
        exit(vmx, cpu, HLT);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Exited(AfterExit::RustHost)), "the guest's CR4 was saved without VMXE");
        set(vmx, cpu, F::PinBasedControls, 0);
        assert_eq!(vmx.vmresume(cpu), Err(VmFail::Valid(VmInstructionError::EntryInvalidControlFields)));
    });
}

#[test]
fn entry_right_after_mov_ss_is_refused() {
    story(|vmx, cpu| {
        cpu.shadow = Shadow::MovSs;
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(VmInstructionError::EntryEventsBlockedByMovSs)));
    });
}

#[test]
fn exceptions_say_what_they_were() {
    let page_fault = Exception::page_fault(0xdead_b000, PageFaultCode::new().with_write(true));
    // The exception; reason, interruption information, error code, qualification; RFLAGS.RF afterwards.
    let rows = [
        (Exception::plain(Vector::InvalidOpcode), 0x8000_0306, 0, 0, true),
        (page_fault, 0x8000_0b0e, 2, 0xdead_b000, true),
        (Exception::plain(Vector::Breakpoint), 0x8000_0603, 0, 0, false),
        (Exception::debug(1 << 14), 0x8000_0301, 0, 1 << 14, false),
    ];
    for (exception, information, code, qualification, resume) in rows {
        story(|vmx, cpu| {
            enter(vmx, cpu);
            exit(vmx, cpu, Exit::Exception(exception));
            assert_eq!(read(vmx, cpu, F::ExitReason), 0);
            assert_eq!(read(vmx, cpu, F::ExitInterruptionInformation), information);
            assert_eq!(read(vmx, cpu, F::ExitInterruptionErrorCode), code);
            assert_eq!(read(vmx, cpu, F::ExitQualification), qualification);
            assert_eq!(read(vmx, cpu, F::GuestRflags) >> 16 & 1 != 0, resume);
        });
    }
}

#[test]
fn a_fault_during_delivery_tells_of_both_events() {
    story(|vmx, cpu| {
        enter(vmx, cpu);
        cpu.delivering = Some(Event { kind: EventKind::SoftwareInterrupt, vector: 0x80, error_code: None, length: 2 });
        exit(vmx, cpu, Exit::Exception(Exception::with_code(Vector::GeneralProtection, 0x402)));
        assert_eq!(read(vmx, cpu, F::ExitInterruptionInformation), 0x8000_0b0d);
        assert_eq!(read(vmx, cpu, F::IdtVectoringInformation), 0x8000_0480);
        assert_eq!(read(vmx, cpu, F::ExitInstructionLength), 2);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Entered));
        exit(vmx, cpu, HLT);
        assert_eq!(read(vmx, cpu, F::IdtVectoringInformation), 0, "an exit outside a delivery says so");
        assert_eq!(read(vmx, cpu, F::ExitInterruptionInformation), 0);
    });
}

#[test]
fn an_event_is_injected_once() {
    story(|vmx, cpu| {
        set(vmx, cpu, F::EntryInterruptionInformation, 0x8000_0b0e);
        set(vmx, cpu, F::EntryExceptionErrorCode, 6);
        enter(vmx, cpu);
        let event = Event { kind: EventKind::Exception, vector: 14, error_code: Some(6), length: 0 };
        assert_eq!(cpu.inject, Some(event));
        exit(vmx, cpu, HLT);
        assert_eq!(read(vmx, cpu, F::EntryInterruptionInformation), 0x0000_0b0e, "the exit clears the valid bit");
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Entered));
        assert_eq!(cpu.inject, None);
    });
}

#[test]
fn a_vmcs_lives_in_its_region_when_it_is_not_active() {
    story(|vmx, cpu| {
        set(vmx, cpu, F::GuestRip, 0x1234_5678);
        enter(vmx, cpu);
        exit(vmx, cpu, HLT);
        vmx.vmclear(cpu, VMCS).expect("VMCLEAR");
        assert_eq!(vmx.vmread(cpu, F::GuestRip), Err(VmFail::Invalid), "no VMCS is current");
        vmx.vmxoff(cpu);
        // Another processor may load it: all there is to know lies in memory.
        let mut other = Vmx::new(models::SKYLAKE_SERVER.vmx.as_ref().expect("VMX"));
        other.prepare_rust_host(cpu);
        other.vmxon(cpu, VMXON).expect("VMXON");
        other.vmptrld(cpu, VMCS).expect("VMPTRLD");
        assert_eq!(other.vmread(cpu, F::GuestRip), Ok(0x1234_5678));
        assert_eq!(other.vmlaunch(cpu), Ok(EntryOutcome::Entered), "VMCLEAR made it clear");
    });
}

#[test]
fn instructions_refuse_what_the_manual_says() {
    use VmInstructionError as E;
    story(|vmx, cpu| {
        let valid = |error| Err(VmFail::Valid(error));
        assert_eq!(vmx.vmxon(cpu, VMXON), valid(E::VmxonInVmxRoot));
        assert_eq!(vmx.vmclear(cpu, 0x2001), valid(E::VmclearInvalidAddress));
        assert_eq!(vmx.vmclear(cpu, 1 << 46), valid(E::VmclearInvalidAddress));
        assert_eq!(vmx.vmclear(cpu, VMXON), valid(E::VmclearVmxonPointer));
        assert_eq!(vmx.vmptrld(cpu, 1 << 60), valid(E::VmptrldInvalidAddress));
        assert_eq!(vmx.vmptrld(cpu, VMXON), valid(E::VmptrldVmxonPointer));
        assert_eq!(vmx.vmptrld(cpu, 0x3000), valid(E::VmptrldIncorrectRevision));
        assert_eq!(vmx.vmresume(cpu), Err(VmFail::Valid(E::VmresumeNonLaunchedVmcs)));
        assert_eq!(vmx.vmwrite(cpu, F::GuestPkrs, 0), valid(E::UnsupportedVmcsComponent));
        assert_eq!(vmx.vmread(cpu, F::GuestPkrs), Err(VmFail::Valid(E::UnsupportedVmcsComponent)));
        assert_eq!(vmx.vmptrst(cpu), VMCS);
        // The launch state is looked at before the fields, MOV SS before the launch state, and the controls before the host.
        set(vmx, cpu, F::HostCr0, 0);
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(E::EntryInvalidHostStateFields)));
        set(vmx, cpu, F::Cr3TargetCount, 5);
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Valid(E::EntryInvalidControlFields)));
        assert_eq!(vmx.vmresume(cpu), Err(VmFail::Valid(E::VmresumeNonLaunchedVmcs)));
        cpu.shadow = cpu::state::Shadow::MovSs;
        assert_eq!(vmx.vmresume(cpu), Err(VmFail::Valid(E::EntryEventsBlockedByMovSs)));
        assert_eq!(read(vmx, cpu, F::VmInstructionError), 26);
        // Without a current VMCS there is none to tell the number.
        vmx.vmclear(cpu, VMCS).expect("VMCLEAR");
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Invalid));
        assert_eq!(vmx.vmclear(cpu, VMXON), Err(VmFail::Invalid));
    });
    // A processor that shows its exit information as read-only.
    let mut capabilities = models::MEROM.vmx.clone().expect("VMX");
    capabilities.misc.set_vmwrite_exit_information(false);
    story(|_, cpu| {
        let mut vmx = Vmx::new(&capabilities);
        vmx.prepare_rust_host(cpu);
        cpu.write_physical(VMXON, 4, capabilities.basic.revision().into());
        cpu.write_physical(VMCS, 4, capabilities.basic.revision().into());
        vmx.vmxon(cpu, VMXON).expect("VMXON");
        vmx.vmptrld(cpu, VMCS).expect("VMPTRLD");
        assert_eq!(vmx.vmwrite(cpu, F::ExitReason, 0), Err(VmFail::Valid(E::VmwriteReadOnlyComponent)));
    });
}

#[test]
fn invalidations_refuse_what_the_manual_says() {
    const POINTER: u64 = 0x5_001e;
    // (type, descriptor, refused)
    let invept = [
        (0, [POINTER, 0], true),
        (1, [POINTER, 0], false),
        (2, [0, 0], false),
        (3, [POINTER, 0], true),
        // What VM entry would not take: memory type, walk length, reserved bits, width.
        (1, [0x5_0019, 0], true),
        (1, [0x5_0016, 0], true),
        (1, [0x5_011e, 0], true),
        (1, [1 << 46 | POINTER, 0], true),
        (1, [POINTER, 1], true),
    ];
    let invvpid = [
        (0, [1, 0x1000], false),
        (0, [0, 0x1000], true),
        (0, [1, 1 << 50], true),
        (1, [1, 0], false),
        (1, [0, 0], true),
        (1, [1 << 16 | 1, 0], true),
        (2, [0, 0], false),
        (3, [1, 0], false),
        (3, [0, 0], true),
        (4, [1, 0], true),
    ];
    story(|vmx, cpu| {
        let refused = Err(VmFail::Valid(VmInstructionError::InvalidInvalidationOperand));
        for (kind, descriptor, fails) in invept {
            assert_eq!(vmx.invept(cpu, kind, descriptor), if fails { refused } else { Ok(()) }, "INVEPT {kind} {descriptor:x?}");
        }
        for (kind, descriptor, fails) in invvpid {
            assert_eq!(vmx.invvpid(cpu, kind, descriptor), if fails { refused } else { Ok(()) }, "INVVPID {kind} {descriptor:x?}");
        }
    });
}

#[test]
fn msr_lists_are_loaded_and_stored() {
    story(|vmx, cpu| {
        const LIST: u64 = 0x5000;
        let entry = |cpu: &mut Cpu, number: u64, index: u64, value: u64| {
            cpu.write_physical(LIST + number * 16, 8, index);
            cpu.write_physical(LIST + number * 16 + 8, 8, value);
        };
        entry(cpu, 0, 0xc000_0082, 0xffff_8000_0000_1000);
        entry(cpu, 1, 0xc000_0102, 0x4000);
        set(vmx, cpu, F::EntryMsrLoadAddress, LIST);
        set(vmx, cpu, F::EntryMsrLoadCount, 2);
        set(vmx, cpu, F::ExitMsrStoreAddress, LIST);
        set(vmx, cpu, F::ExitMsrStoreCount, 2);
        enter(vmx, cpu);
        assert_eq!((cpu.msrs.lstar, cpu.msrs.kernel_gs_base), (0xffff_8000_0000_1000, 0x4000));
        cpu.msrs.kernel_gs_base = 0x4444;
        exit(vmx, cpu, HLT);
        assert_eq!(cpu.read_physical(LIST + 24, 8), 0x4444);
        // An MSR that no list may load: the exit qualification counts entries from 1.
        entry(cpu, 1, 0xc000_0100, 0);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Exited(AfterExit::RustHost)));
        assert_eq!(read(vmx, cpu, F::ExitReason), 0x8000_0022);
        assert_eq!(read(vmx, cpu, F::ExitQualification), 2);
        assert_eq!(vmx.refused().map(|refused| refused.msr_load.index), Some(0xc000_0100));
        // A value that WRMSR would not take; the entry in front of it is loaded all the same.
        entry(cpu, 0, 0xc000_0102, 0x5000);
        entry(cpu, 1, 0xc000_0082, 1 << 63);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Exited(AfterExit::RustHost)));
        assert_eq!((read(vmx, cpu, F::ExitReason), read(vmx, cpu, F::ExitQualification)), (0x8000_0022, 2));
        assert_eq!(vmx.refused().map(|refused| refused.msr_load.refused), Some(true));
        assert_eq!((cpu.msrs.kernel_gs_base, cpu.msrs.lstar), (0x5000, 0xffff_8000_0000_1000));
        // 512 is what IA32_VMX_MISC recommends: the entry behind it is one too many.
        for number in 0..513 {
            entry(cpu, number, 0xc000_0102, number);
        }
        set(vmx, cpu, F::EntryMsrLoadCount, 513);
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Exited(AfterExit::RustHost)));
        assert_eq!((read(vmx, cpu, F::ExitReason), read(vmx, cpu, F::ExitQualification)), (0x8000_0022, 513));
        assert_eq!(cpu.msrs.kernel_gs_base, 511);
    });
}

#[test]
fn a_round_trip_costs_what_the_model_says() {
    story(|vmx, cpu| {
        enter(vmx, cpu);
        exit(vmx, cpu, HLT);
        let before = cpu.now();
        assert_eq!(vmx.vmresume(cpu), Ok(EntryOutcome::Entered));
        exit(vmx, cpu, HLT);
        let costs = cpu.model.costs;
        assert_eq!(cpu.now() - before, u64::from(costs.vm_entry.ticks) + u64::from(costs.vm_exit.ticks));
    });
}
