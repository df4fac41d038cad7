//! Guests of machine code, under a host in Rust and under a host of machine code: the same silicon makes their exits.

mod common;

use common::{GUEST_CODE, Machine, PAGE_TABLES, VMCS, VMXON};
use cpu::RunExit;
use isa::register::Gpr;
use isa::vmx::VmcsField as F;
use vmx::{EntryOutcome, Operation};

const HOST_CODE: u64 = 0x20_0000;

/// Lets the guest run until its next exit to the host in Rust.
fn go(machine: &mut Machine, launch: bool) {
    let outcome = machine.with(|vmx, cpu| if launch { vmx.vmlaunch(cpu) } else { vmx.vmresume(cpu) });
    assert_eq!(outcome, Ok(EntryOutcome::Entered), "{:x?}", machine.with(|vmx, cpu| vmx.explain(cpu)));
    assert_eq!(machine.run(1000), RunExit::HostEntry);
}

#[test]
fn a_host_in_rust_gets_every_exit_as_the_end_of_a_run() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    // again: vmcall; inc rbx; jmp again
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1, 0x48, 0xff, 0xc3, 0xeb, 0xf8]);
    for turn in 0..100 {
        go(&mut machine, turn == 0);
        assert_eq!(machine.cpu.gpr(Gpr::Rbx), turn);
        assert_eq!((machine.read(F::ExitReason), machine.read(F::ExitInstructionLength)), (18, 3));
        let rip = machine.read(F::GuestRip);
        assert_eq!(rip, GUEST_CODE);
        machine.set(F::GuestRip, rip + 3);
    }
}

#[test]
fn the_other_vendor_s_call_is_undefined_and_exits_if_the_host_wants() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xd9]);
    machine.set(F::ExceptionBitmap, 1 << 6);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::ExitInterruptionInformation)), (0, 0x8000_0306));
    assert_eq!(machine.read(F::GuestRip), GUEST_CODE);
    // The host patches the instruction: three bytes, which the processor has decoded before.
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1]);
    go(&mut machine, false);
    assert_eq!(machine.read(F::ExitReason), 18);
}

#[test]
fn a_hypervisor_of_machine_code_skips_vmcall_and_goes_on() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1, 0x48, 0xff, 0xc3, 0xeb, 0xf8]);
    // Host: vmlaunch; jmp $. Behind it, where exits go: mov eax, 0x681e; vmread rdx, rax; add rdx, 3; vmwrite rax, rdx; dec rcx; jz +3;
    // vmresume; jmp $.
    machine.load(HOST_CODE, &[0x0f, 0x01, 0xc2, 0xeb, 0xfe]);
    machine.load(
        HOST_CODE + 16,
        &[
            0xb8, 0x1e, 0x68, 0x00, 0x00, 0x0f, 0x78, 0xc2, 0x48, 0x83, 0xc2, 0x03, 0x0f, 0x79, 0xc2, 0x48, 0xff, 0xc9, 0x74, 0x03, 0x0f,
            0x01, 0xc3, 0xeb, 0xfe,
        ],
    );
    machine.set(F::HostRip, HOST_CODE + 16);
    machine.cpu.rust_host = false;
    machine.cpu.rip = HOST_CODE;
    machine.cpu.set_gpr(Gpr::Rcx, 50);
    machine.cpu.context_changed();
    assert_eq!(machine.run(10_000), RunExit::Instructions);
    assert_eq!(machine.cpu.rip, HOST_CODE + 16 + 23, "the host spins behind its loop");
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 49);
    assert_eq!(machine.with(|vmx, _| vmx.operation()), Operation::Root);
    assert_eq!(machine.read(F::ExitReason), 18);
}

#[test]
fn without_vpid_a_changed_mapping_is_seen_behind_every_entry_and_exit() {
    // Host and guest read the same page 64 times; every eighth time the host maps it elsewhere and invalidates nothing.
    const PAGE: u64 = 0x60_0000;
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.memory.write_u64(PAGE, 1).expect("RAM");
    machine.memory.write_u64(0x80_0000, 1000).expect("RAM");
    // again: vmcall; mov rbp, [rsi]; add r10, rbp; jmp again
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1, 0x48, 0x8b, 0x2e, 0x49, 0x01, 0xea, 0xeb, 0xf5]);
    // vmlaunch; jmp $
    machine.load(HOST_CODE, &[0x0f, 0x01, 0xc2, 0xeb, 0xfe]);
    // Where exits go: mov rbx, [rsi]; add rdi, rbx; test cl, 7; jnz +3; xor [r8], r9; mov eax, 0x681e; vmread rdx, rax; add rdx, 3;
    // vmwrite rax, rdx; dec rcx; jz +3; vmresume; jmp $.
    machine.load(
        HOST_CODE + 16,
        &[
            0x48, 0x8b, 0x1e, 0x48, 0x01, 0xdf, 0xf6, 0xc1, 0x07, 0x75, 0x03, 0x4d, 0x31, 0x08, 0xb8, 0x1e, 0x68, 0x00, 0x00, 0x0f, 0x78,
            0xc2, 0x48, 0x83, 0xc2, 0x03, 0x0f, 0x79, 0xc2, 0x48, 0xff, 0xc9, 0x74, 0x03, 0x0f, 0x01, 0xc3, 0xeb, 0xfe,
        ],
    );
    machine.set(F::HostRip, HOST_CODE + 16);
    machine.cpu.rust_host = false;
    machine.cpu.rip = HOST_CODE;
    let values = [
        (Gpr::Rcx, 64),
        (Gpr::Rsi, PAGE),
        (Gpr::Rdi, 0),
        (Gpr::R8, PAGE_TABLES + 0x2000 + 8 * (PAGE >> 21)),
        (Gpr::R9, PAGE ^ 0x80_0000),
        (Gpr::R10, 0),
    ];
    for (register, value) in values {
        machine.cpu.set_gpr(register, value);
    }
    machine.cpu.context_changed();
    assert_eq!(machine.run(10_000), RunExit::Instructions);
    assert_eq!(machine.cpu.gpr(Gpr::Rcx), 0);
    assert_eq!((machine.cpu.gpr(Gpr::Rdi), machine.cpu.gpr(Gpr::R10)), (32 * 1001, 31 + 32 * 1000));
}

#[test]
fn vmx_instructions_set_the_flags_that_the_manual_says() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    // vmresume; jmp $. The VMCS was never launched: VMfailValid(5).
    machine.load(HOST_CODE, &[0x0f, 0x01, 0xc3, 0xeb, 0xfe]);
    machine.cpu.rip = HOST_CODE;
    machine.cpu.set_rflags(isa::rflags::Rflags::from_bits(0x8d7));
    machine.cpu.context_changed();
    assert_eq!(machine.run(10), RunExit::Instructions);
    assert_eq!(machine.cpu.rflags().into_bits() & 0x8d5, 0x40);
    assert_eq!(machine.read(F::VmInstructionError), 5);
    // With no VMCS: VMfailInvalid.
    machine.with(|vmx, cpu| vmx.vmclear(cpu, VMCS)).expect("VMCLEAR");
    machine.cpu.rip = HOST_CODE;
    machine.cpu.context_changed();
    assert_eq!(machine.run(10), RunExit::Instructions);
    assert_eq!(machine.cpu.rflags().into_bits() & 0x8d5, 1);
    assert_eq!(machine.with(|vmx, cpu| vmx.vmptrld(cpu, VMXON)), Err(vmx::VmFail::Invalid));
}

/// A guest in real-address mode under EPT, which maps the first 2 MiB but for the page at 0x8000.
fn real_mode_guest(code: &[u8]) -> Machine {
    const EPT: u64 = 0x4_0000;
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    let mut put = |at: u64, entry: u64| machine.memory.write_u64(at, entry).expect("RAM");
    put(EPT, EPT + 0x1007);
    put(EPT + 0x1000, EPT + 0x2007);
    put(EPT + 0x2000, EPT + 0x3007);
    for page in 0..512 {
        // Guest-physical page n lies in physical page n + 256.
        let rights = if page == 8 { 0 } else { 0x37 };
        put(EPT + 0x3000 + page * 8, (page + 256) << 12 | rights);
    }
    machine.load(0x10_0000 + 0x7c00, code);
    let secondary = machine.with(|vmx, _| vmx.capabilities().secondary.adjust(1 << 1 | 1 << 7 | 1 << 5));
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 31);
    machine.set(F::SecondaryProcessorBasedControls, secondary.into());
    machine.set(F::VirtualProcessorIdentifier, 7);
    machine.set(F::EptPointer, EPT | 0x5e);
    let entry = machine.read(F::EntryControls);
    machine.set(F::EntryControls, entry & !(1 << 9));
    machine.set(F::GuestCr0, 0x30);
    machine.set(F::GuestCr4, 0x2000);
    machine.set(F::GuestRip, 0x7c00);
    machine.set(F::GuestRsp, 0x7000);
    for (selector, limit, rights) in [
        (F::GuestEsSelector, F::GuestEsLimit, F::GuestEsAccessRights),
        (F::GuestCsSelector, F::GuestCsLimit, F::GuestCsAccessRights),
        (F::GuestSsSelector, F::GuestSsLimit, F::GuestSsAccessRights),
        (F::GuestDsSelector, F::GuestDsLimit, F::GuestDsAccessRights),
        (F::GuestFsSelector, F::GuestFsLimit, F::GuestFsAccessRights),
        (F::GuestGsSelector, F::GuestGsLimit, F::GuestGsAccessRights),
    ] {
        machine.set(selector, 0);
        machine.set(limit, 0xffff);
        machine.set(rights, if rights == F::GuestCsAccessRights { 0x9b } else { 0x93 });
    }
    machine.set(F::GuestGsBase, 0);
    machine
}

#[test]
fn ept_translates_and_reports_what_it_does_not_map() {
    // mov ax, [0x7000]; mov [0x6000], ax; mov [0x8004], ax; vmcall
    let mut machine = real_mode_guest(&[0xa1, 0x00, 0x70, 0xa3, 0x00, 0x60, 0xa3, 0x04, 0x80, 0x0f, 0x01, 0xc1]);
    machine.load(0x10_7000, &[0x34, 0x12]);
    go(&mut machine, true);
    assert_eq!(machine.memory.read_u16(0x10_6000), Ok(0x1234), "the store before went through EPT");
    assert_eq!(machine.read(F::ExitReason), 48);
    assert_eq!(machine.read(F::GuestPhysicalAddress), 0x8004);
    // A write of a linear address, to the final page, which has no rights at all; without paging it counts as a user-mode, writable one.
    assert_eq!(machine.read(F::ExitQualification), 0x782);
    assert_eq!(machine.read(F::GuestLinearAddress), 0x8004);
    assert_eq!(machine.read(F::GuestRip), 0x7c06);
    // Dirty flags are set where the guest wrote, and only there.
    let entry = |machine: &Machine, page: u64| machine.memory.read_u64(0x4_3000 + page * 8).expect("RAM") >> 8 & 3;
    assert_eq!((entry(&machine, 6), entry(&machine, 7)), (3, 1));
    // The host maps the page and tells nobody: a page that was not present is not cached. SDM 29.4.2.
    machine.memory.write_u64(0x4_3000 + 64, 0x10_8037).expect("RAM");
    go(&mut machine, false);
    assert_eq!(machine.read(F::ExitReason), 18);
    assert_eq!(machine.memory.read_u16(0x10_8004), Ok(0x1234));
}

#[test]
fn a_missing_invept_shows() {
    // again: mov ax, [0x6000]; vmcall; jmp again
    let mut machine = real_mode_guest(&[0xa1, 0x00, 0x60, 0x0f, 0x01, 0xc1, 0xeb, 0xf8]);
    machine.load(0x10_6000, &[1, 0]);
    machine.load(0x10_5000, &[2, 0]);
    let next = |machine: &mut Machine| {
        let rip = machine.read(F::GuestRip);
        machine.set(F::GuestRip, rip + 3);
        go(machine, false);
        machine.cpu.gpr(Gpr::Rax)
    };
    go(&mut machine, true);
    assert_eq!(machine.cpu.gpr(Gpr::Rax), 1);
    machine.memory.write_u64(0x4_3000 + 48, 0x10_5037).expect("RAM");
    assert_eq!(next(&mut machine), 1, "the translation is cached by VPID and EPT pointer");
    let pointer = machine.read(F::EptPointer);
    machine.with(|vmx, cpu| vmx.invept(cpu, 1, [pointer, 0])).expect("INVEPT");
    assert_eq!(next(&mut machine), 2);
}

#[test]
fn a_misconfigured_entry_has_its_own_reason() {
    let mut machine = real_mode_guest(&[0xa1, 0x00, 0x60]);
    machine.memory.write_u64(0x4_3000 + 48, 0x10_6032).expect("RAM");
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestPhysicalAddress)), (49, 0x6000));
}

#[test]
fn an_injected_interrupt_goes_through_the_guest_s_table() {
    // cs:ip of vector 0x21 is 0:0x7d00, where a VMCALL waits.
    let mut machine = real_mode_guest(&[0xf4]);
    machine.load(0x10_0084, &[0x00, 0x7d, 0x00, 0x00]);
    machine.load(0x10_7d00, &[0x0f, 0x01, 0xc1]);
    machine.set(F::GuestIdtrLimit, 0x3ff);
    machine.set(F::EntryInterruptionInformation, 0x8000_0021);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (18, 0x7d00));
    assert_eq!(machine.read(F::GuestRsp), 0x6ffa);
    assert_eq!(machine.memory.read_u16(0x10_6ffa), Ok(0x7c00), "RIP was pushed");
}

#[test]
fn windows_open_at_the_guest_s_boundary() {
    // nop; nop, the first in the shadow of STI.
    let mut machine = real_mode_guest(&[0x90, 0x90]);
    machine.set(F::GuestInterruptibilityState, 1);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 2);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (7, 0x7c01), "one instruction behind STI");
}

#[test]
fn the_monitor_trap_flag_exits_behind_one_instruction() {
    let mut machine = real_mode_guest(&[0x90, 0x90, 0x90]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 27);
    for rip in 0x7c01..0x7c03 {
        go(&mut machine, rip == 0x7c01);
        assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (37, rip));
    }
}

#[test]
fn the_preemption_timer_ends_a_loop() {
    // jmp $
    let mut machine = real_mode_guest(&[0xeb, 0xfe]);
    let pin = machine.read(F::PinBasedControls);
    machine.set(F::PinBasedControls, pin | 1 << 6);
    machine.set(F::VmxPreemptionTimerValue, 5);
    let outcome = machine.with(|vmx, cpu| vmx.vmlaunch(cpu));
    assert_eq!(outcome, Ok(EntryOutcome::Entered));
    let before = machine.cpu.now();
    let deadline = machine.cpu.preemption_deadline.expect("the timer runs");
    let mut bus = common::NoDevices;
    let mut environment = cpu::bus::Environment { memory: &mut machine.memory, code: &mut machine.code, bus: &mut bus };
    assert_eq!(machine.cpu.run(&mut environment, deadline, u64::MAX), RunExit::Time);
    assert!(deadline - before <= 5 << 7 << 3, "five counts of the timer");
    assert_eq!(machine.run(1), RunExit::HostEntry);
    assert_eq!(machine.read(F::ExitReason), 52);
}

#[test]
fn a_guest_has_rdtscp_only_where_the_host_lets_it() {
    // again: rdtscp; vmcall; jmp again
    let mut machine = real_mode_guest(&[0x0f, 0x01, 0xf9, 0x0f, 0x01, 0xc1, 0xeb, 0xf8]);
    machine.set(F::ExceptionBitmap, 1 << 6);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (0, 0x7c00));
    let secondary = machine.read(F::SecondaryProcessorBasedControls);
    machine.set(F::SecondaryProcessorBasedControls, secondary | 1 << 3);
    go(&mut machine, false);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (18, 0x7c03));
}

#[test]
fn time_stamps_are_offset_for_the_guest() {
    // rdtsc; vmcall
    let mut machine = real_mode_guest(&[0x0f, 0x31, 0x0f, 0x01, 0xc1]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary & !(1 << 12) | 1 << 3);
    machine.set(F::TscOffset, 0x1234_0000_0000);
    go(&mut machine, true);
    assert_eq!(machine.read(F::ExitReason), 18);
    assert_eq!(machine.cpu.gpr(Gpr::Rdx), 0x1234);
}

#[test]
fn the_guest_owns_the_bits_of_cr0_that_the_host_leaves_it() {
    // mov eax, cr0; or eax, 1 << 3; mov cr0, eax; mov ebx, cr0; or eax, 1 << 1; mov cr0, eax
    let mut machine = real_mode_guest(&[
        0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x08, 0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc3, 0x66, 0x83, 0xc8, 0x02, 0x0f, 0x22, 0xc0,
    ]);
    machine.set(F::Cr0GuestHostMask, !0x8);
    machine.set(F::Cr0ReadShadow, 0x10);
    go(&mut machine, true);
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0x18, "the shadow, and the guest's own bit");
    assert_eq!(machine.read(F::GuestCr0) & 0x3f, 0x38, "the real bits stayed what the host made them");
    // MOV to CR0 from RAX.
    assert_eq!((machine.read(F::ExitReason), machine.read(F::ExitQualification)), (28, 0));
    assert_eq!(machine.cpu.gpr(Gpr::Rax), 0x1a);
}

#[test]
fn ports_and_msrs_exit_as_their_bitmaps_say() {
    const BITMAPS: u64 = 0x5_0000;
    // in al, 0x40; in al, 0x41; mov ecx, 0x174; rdmsr; mov ecx, 0x175; rdmsr
    let mut machine =
        real_mode_guest(&[0xe4, 0x40, 0xe4, 0x41, 0x66, 0xb9, 0x74, 0x01, 0, 0, 0x0f, 0x32, 0x66, 0xb9, 0x75, 0x01, 0, 0, 0x0f, 0x32]);
    machine.load(BITMAPS + 8, &[0b10]);
    machine.load(BITMAPS + 0x2000 + 0x175 / 8, &[1 << 5]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 25 | 1 << 28);
    machine.set(F::IoBitmapAAddress, BITMAPS);
    machine.set(F::IoBitmapBAddress, BITMAPS + 0x1000);
    machine.set(F::MsrBitmapAddress, BITMAPS + 0x2000);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (30, 0x7c02));
    assert_eq!(machine.read(F::ExitQualification), 0x41_0048);
    machine.set(F::GuestRip, 0x7c04);
    go(&mut machine, false);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (31, 0x7c12));
}

#[test]
fn a_triple_fault_leaves_the_guest() {
    // ud2, with no interrupt table at all.
    let mut machine = real_mode_guest(&[0x0f, 0x0b]);
    go(&mut machine, true);
    assert_eq!(machine.read(F::ExitReason), 2);
}

#[test]
fn a_halted_guest_stays_halted_until_an_event_is_injected() {
    // hlt; vector 0x21 leads to a VMCALL at 0:0x7d00.
    let mut machine = real_mode_guest(&[0xf4]);
    machine.load(0x10_0084, &[0x00, 0x7d, 0x00, 0x00]);
    machine.load(0x10_7d00, &[0x0f, 0x01, 0xc1]);
    machine.set(F::GuestIdtrLimit, 0x3ff);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary & !(1 << 7));
    let pin = machine.read(F::PinBasedControls);
    machine.set(F::PinBasedControls, pin | 1 << 6);
    machine.set(F::VmxPreemptionTimerValue, 1000);
    assert_eq!(machine.with(|vmx, cpu| vmx.vmlaunch(cpu)), Ok(EntryOutcome::Entered));
    assert_eq!(machine.run(10), RunExit::Idle);
    // The preemption timer counts while the guest sleeps.
    let expiry = machine.cpu.next_event().expect("the timer runs");
    machine.cpu.set_now(expiry);
    assert_eq!(machine.run(10), RunExit::HostEntry);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestActivityState), machine.read(F::GuestRip)), (52, 1, 0x7c01));
    machine.set(F::EntryInterruptionInformation, 0x8000_0021);
    go(&mut machine, false);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestActivityState), machine.read(F::GuestRip)), (18, 0, 0x7d00));
    assert_eq!(machine.memory.read_u16(0x10_6ffa), Ok(0x7c01), "the handler returns behind HLT");
}

#[test]
fn lowering_the_virtual_tpr_below_the_threshold_exits() {
    const PAGE: u64 = 0x6_0000;
    // mov eax, 6; mov cr8, eax; mov eax, 2; mov cr8, eax; nop
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.load(GUEST_CODE, &[0xb8, 6, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0xb8, 2, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0x90]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary & !(3 << 19) | 1 << 21);
    machine.set(F::VirtualApicAddress, PAGE);
    machine.load(PAGE + 0x80, &[0x80]);
    machine.set(F::TprThreshold, 5);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip)), (43, GUEST_CODE + 18));
    assert_eq!(machine.memory.read_u8(PAGE + 0x80), Ok(0x20));
    // With the TPR below the threshold no entry is possible.
    let outcome = machine.with(|vmx, cpu| vmx.vmresume(cpu));
    assert_eq!(outcome, Err(vmx::VmFail::Valid(isa::vmx::VmInstructionError::EntryInvalidControlFields)));
}

#[test]
fn every_model_with_vmx_runs_a_guest() {
    for model in models::MODELS.iter().filter(|model| model.vmx.is_some()) {
        let mut machine = Machine::new(model);
        machine.load(GUEST_CODE, &[0x0f, 0xa2]);
        go(&mut machine, true);
        assert_eq!(machine.read(F::ExitReason), 10, "{}", model.name);
    }
}

/// Whatever software writes into a VMCS, and whatever the guest then does, the simulator goes on.
#[test]
fn no_vmcs_makes_the_simulator_stumble() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut entered = 0;
    for round in 0..3000 {
        let mut machine = if round & 1 == 0 { real_mode_guest(&[0xf4]) } else { Machine::new(&models::SKYLAKE_SERVER) };
        let code: Vec<u8> = (0..64).map(|_| random() as u8).collect();
        machine.load(GUEST_CODE, &code);
        machine.load(0x10_7c00, &code);
        for _ in 0..random() % 6 {
            let field = F::ALL[(random() % F::COUNT as u64) as usize];
            let value = match random() % 4 {
                0 => random(),
                1 => 1 << (random() % 64),
                2 => random() & 0xffff_f000,
                _ => {
                    let old = machine.with(|vmx, cpu| vmx.vmread(cpu, field)).unwrap_or(0);
                    old ^ 1 << (random() % 64)
                }
            };
            // Fields that the processor does not have are refused; that is part of the game.
            let _refused = machine.with(|vmx, cpu| vmx.vmwrite(cpu, field, value));
        }
        if machine.with(|vmx, cpu| vmx.vmlaunch(cpu)) == Ok(EntryOutcome::Entered) {
            entered += 1;
            machine.run(200);
        }
    }
    assert!(entered > 500, "most stories fail at entry: {entered}");
}

/// A guest in virtual-8086 mode at 0000:1000, in a VMCS whose host is 64-bit; IOPL 3, a monitor at level 0 behind its IDT at 0x5000.
fn v86_guest() -> Machine {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    let entry = machine.read(F::EntryControls);
    machine.set(F::EntryControls, entry & !(1 << 9));
    let cr4 = machine.read(F::GuestCr4);
    // 32-bit paging with 4-MiB pages.
    machine.set(F::GuestCr4, cr4 & !(1 << 5) | 1 << 4);
    machine.memory.write_u32(0xf000, 0x87).expect("RAM");
    machine.set(F::GuestCr3, 0xf000);
    machine.set(F::GuestRflags, 0x2_3002);
    machine.set(F::GuestRip, 0x1000);
    machine.set(F::GuestRsp, 0x4000);
    let segments = [
        (F::GuestEsSelector, F::GuestEsBase, F::GuestEsLimit, F::GuestEsAccessRights, 0x300),
        (F::GuestCsSelector, F::GuestCsBase, F::GuestCsLimit, F::GuestCsAccessRights, 0),
        (F::GuestSsSelector, F::GuestSsBase, F::GuestSsLimit, F::GuestSsAccessRights, 0),
        (F::GuestDsSelector, F::GuestDsBase, F::GuestDsLimit, F::GuestDsAccessRights, 0x200),
        (F::GuestFsSelector, F::GuestFsBase, F::GuestFsLimit, F::GuestFsAccessRights, 0),
        (F::GuestGsSelector, F::GuestGsBase, F::GuestGsLimit, F::GuestGsAccessRights, 0x123),
    ];
    for (selector, base, limit, rights, value) in segments {
        machine.set(selector, value);
        machine.set(base, value << 4);
        machine.set(limit, 0xffff);
        machine.set(rights, 0xf3);
    }
    machine
}

#[test]
fn a_guest_in_virtual_8086_mode_leaves_by_vmcall_and_comes_back() {
    let mut machine = v86_guest();
    // mov ax, gs; mov ds, ax; vmcall; mov bx, ds; vmcall
    machine.load(0x1000, &[0x8c, 0xe8, 0x8e, 0xd8, 0x0f, 0x01, 0xc1, 0x8c, 0xdb, 0x0f, 0x01, 0xc1]);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip), machine.read(F::ExitInstructionLength)), (18, 0x1004, 3));
    assert_eq!(
        (machine.read(F::GuestDsSelector), machine.read(F::GuestDsBase), machine.read(F::GuestDsAccessRights)),
        (0x123, 0x1230, 0xf3)
    );
    assert_eq!(machine.read(F::GuestRflags) & 0x2_3000, 0x2_3000);
    assert!(!machine.cpu.is_v86(), "the host is in 64-bit mode");
    machine.set(F::GuestRip, 0x1007);
    go(&mut machine, false);
    assert_eq!((machine.read(F::GuestRip), machine.cpu.gpr(Gpr::Rbx) & 0xffff), (0x1009, 0x123));
}

#[test]
fn in_virtual_8086_mode_other_vmx_instructions_are_undefined_before_they_exit() {
    // vmclear [0], vmlaunch, vmxoff, vmread ax: what is #UD there does not leave the guest as the instruction.
    for bytes in [&[0x66, 0x0f, 0xc7, 0x36, 0, 0][..], &[0x0f, 0x01, 0xc2], &[0x0f, 0x01, 0xc4], &[0x0f, 0x78, 0xc0]] {
        let mut machine = v86_guest();
        machine.load(0x1000, bytes);
        machine.set(F::ExceptionBitmap, 1 << 6);
        go(&mut machine, true);
        assert_eq!((machine.read(F::ExitReason), machine.read(F::ExitInterruptionInformation)), (0, 0x8000_0306), "{bytes:x?}");
    }
}

#[test]
fn an_event_injected_into_virtual_8086_mode_goes_through_the_idt_to_level_0() {
    let mut machine = v86_guest();
    // IDT entry 0x20: level 0 code at 0x1_0000, with the GDT and the TSS at 0x6000 and 0x7000; the handler is VMCALL.
    machine.memory.write_u64(0x5000 + 0x20 * 8, 0x0001_8e00_0008_0000).expect("RAM");
    machine.memory.write_u64(0x6008, 0x00cf_9b00_0000_ffff).expect("RAM");
    machine.memory.write_u64(0x6010, 0x00cf_9300_0000_ffff).expect("RAM");
    machine.memory.write_u64(0x7004, 0x10_0000_8000).expect("RAM");
    for (field, value) in [(F::GuestIdtrBase, 0x5000), (F::GuestIdtrLimit, 0x7ff), (F::GuestGdtrBase, 0x6000), (F::GuestGdtrLimit, 0x1f)] {
        machine.set(field, value);
    }
    machine.set(F::GuestTrBase, 0x7000);
    machine.set(F::EntryInterruptionInformation, 0x8000_0020);
    machine.set(F::GuestRflags, 0x2_3202);
    machine.load(0x1_0000, &[0x0f, 0x01, 0xc1]);
    go(&mut machine, true);
    assert_eq!((machine.read(F::ExitReason), machine.read(F::GuestRip), machine.read(F::GuestCsSelector)), (18, 0x1_0000, 8));
    assert_eq!((machine.read(F::GuestRflags), machine.read(F::GuestRsp)), (0x3002, 0x8000 - 36));
    let frame: Vec<u32> = (0..9).map(|word| machine.memory.read_u32(0x8000 - 36 + 4 * word).expect("RAM")).collect();
    assert_eq!(frame, [0x1000, 0, 0x2_3202, 0x4000, 0, 0x300, 0x200, 0, 0x123]);
    assert_eq!(machine.read(F::GuestDsAccessRights) >> 16, 1, "unusable");
}

/// A guest in 32-bit protected mode at 0x1000 whose GDT at 0x6000 has an available TSS at 0x28, a busy one at 0x30, and whose IDT at 0x5000
/// leads vectors 6 and 0x20 through task gates to the first.
fn task_guest(code: &[u8]) -> Machine {
    let mut machine = v86_guest();
    machine.set(F::GuestRflags, 2);
    let segments = [
        (F::GuestEsSelector, F::GuestEsBase, F::GuestEsLimit, F::GuestEsAccessRights, 16, 0xc093),
        (F::GuestCsSelector, F::GuestCsBase, F::GuestCsLimit, F::GuestCsAccessRights, 8, 0xc09b),
        (F::GuestSsSelector, F::GuestSsBase, F::GuestSsLimit, F::GuestSsAccessRights, 16, 0xc093),
        (F::GuestDsSelector, F::GuestDsBase, F::GuestDsLimit, F::GuestDsAccessRights, 16, 0xc093),
        (F::GuestFsSelector, F::GuestFsBase, F::GuestFsLimit, F::GuestFsAccessRights, 16, 0xc093),
        (F::GuestGsSelector, F::GuestGsBase, F::GuestGsLimit, F::GuestGsAccessRights, 16, 0xc093),
    ];
    for (selector, base, limit, rights, value, attributes) in segments {
        machine.set(selector, value);
        machine.set(base, 0);
        machine.set(limit, 0xffff_ffff);
        machine.set(rights, attributes);
    }
    machine.memory.write_u64(0x6028, 0x0000_8900_7200_0067).expect("RAM");
    machine.memory.write_u64(0x6030, 0x0000_8b00_7400_0067).expect("RAM");
    for vector in [6, 0x20] {
        machine.memory.write_u64(0x5000 + vector * 8, 0x0000_8500_0028_0000).expect("RAM");
    }
    for (field, value) in [(F::GuestIdtrBase, 0x5000), (F::GuestIdtrLimit, 0x7ff), (F::GuestGdtrBase, 0x6000), (F::GuestGdtrLimit, 0x3f)] {
        machine.set(field, value);
    }
    machine.set(F::GuestTrBase, 0x7000);
    machine.load(0x1000, code);
    machine
}

#[test]
fn a_task_switch_exits_behind_the_checks_of_the_new_tss() {
    // Code; source of the switch; length; IDT-vectoring information; RF in the saved RFLAGS.
    let rows: [(&[u8], u64, u64, u64, bool); 4] = [
        (&[0xea, 0, 0, 0, 0, 0x28, 0], 2, 7, 0, false),
        (&[0x9a, 0, 0, 0, 0, 0x28, 0], 0, 7, 0, false),
        (&[0xcd, 0x20], 3, 2, 0x8000_0420, false),
        (&[0x0f, 0x0b], 3, 0, 0x8000_0306, true),
    ];
    for (code, source, length, vectoring, resume) in rows {
        let mut machine = task_guest(code);
        go(&mut machine, true);
        assert_eq!((machine.read(F::ExitReason), machine.read(F::ExitQualification)), (9, source << 30 | 0x28), "{code:x?}");
        assert_eq!((machine.read(F::ExitInstructionLength), machine.read(F::IdtVectoringInformation)), (length, vectoring), "{code:x?}");
        assert_eq!((machine.read(F::GuestRip), machine.read(F::GuestRflags) >> 16 & 1 != 0), (0x1000, resume), "{code:x?}");
        assert_eq!(machine.memory.read_u64(0x6028), Ok(0x0000_8900_7200_0067), "nothing has happened");
    }
    // What the processor refuses does not exit as a task switch: a busy TSS, IRET with NT set to a task that is not.
    for (code, vector, error) in [(&[0xea, 0, 0, 0, 0, 0x30, 0][..], 13, 0x30), (&[0xcf], 10, 0x28)] {
        let mut machine = task_guest(code);
        machine.set(F::GuestRflags, 0x4002);
        machine.memory.write_u32(0x7000, 0x28).expect("RAM");
        machine.set(F::ExceptionBitmap, 1 << vector);
        go(&mut machine, true);
        let found = (machine.read(F::ExitReason), machine.read(F::ExitInterruptionInformation), machine.read(F::ExitInterruptionErrorCode));
        assert_eq!(found, (0, 0x8000_0b00 | vector, error), "{code:x?}");
    }
}

#[test]
fn debug_controls_are_loaded_and_saved_and_cleared_by_an_exit() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    // jmp +1; nop; vmcall
    machine.load(GUEST_CODE, &[0xeb, 0x01, 0x90, 0x0f, 0x01, 0xc1]);
    let (entry, exit) = (machine.read(F::EntryControls), machine.read(F::PrimaryExitControls));
    machine.set(F::EntryControls, entry | 1 << 2);
    machine.set(F::PrimaryExitControls, exit | 1 << 2);
    machine.set(F::GuestDebugctl, 1);
    go(&mut machine, true);
    assert_eq!(machine.read(F::ExitReason), 18);
    assert_eq!((machine.cpu.msrs.debugctl, machine.read(F::GuestDebugctl)), (0, 1));
    let newest = machine.cpu.last_branches.newest();
    assert_eq!((newest.from, newest.to), (GUEST_CODE, GUEST_CODE + 3));
}
