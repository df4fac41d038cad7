//! The virtual APIC: the APIC-access page, x2APIC MSRs, virtual interrupts, posted interrupts.

mod common;

use common::{GUEST_CODE, Machine};
use isa::apic::{ApicMessage, DeliveryMode};
use isa::register::Gpr;
use isa::vmx::{ControlBit, SecondaryControls as S, VmcsField as F};
use models::SKYLAKE_SERVER;

const VIRTUAL_APIC: u64 = 0x6_0000;
const APIC_ACCESS: u64 = 0x7_0000;
const IDT: u64 = 0x8_0000;
const HANDLERS: u64 = 0x9_0000;
const GDT: u64 = 0xa_0000;
const DESCRIPTOR: u64 = 0xb_0000;

/// A guest with a virtual-APIC page whose handler of vector `v` is a VMCALL at `HANDLERS + 16 * v`.
fn machine(source: &str, controls: &[ControlBit]) -> Machine {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest(source);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 21);
    machine.add_secondary(controls);
    let pin = machine.read(F::PinBasedControls);
    machine.set(F::PinBasedControls, pin | 1);
    machine.memory.write_u64(GDT + 8, 0x00af_9b00_0000_ffff).unwrap();
    for vector in 0..256u64 {
        let handler = HANDLERS + 16 * vector;
        machine.load(handler, &[0x0f, 0x01, 0xc1]);
        machine.memory.write_u64(IDT + vector * 16, 0x8e00 << 32 | 8 << 16 | handler & 0xffff | (handler >> 16) << 48).unwrap();
    }
    for (field, value) in [
        (F::VirtualApicAddress, VIRTUAL_APIC),
        (F::ApicAccessAddress, APIC_ACCESS),
        (F::GuestIdtrBase, IDT),
        (F::GuestIdtrLimit, 0xfff),
        (F::GuestGdtrBase, GDT),
        (F::GuestGdtrLimit, 0xff),
    ] {
        machine.set(field, value);
    }
    machine
}

fn register(machine: &Machine, offset: u64) -> u32 {
    machine.memory.read_u32(VIRTUAL_APIC + offset).unwrap()
}

fn set_register(machine: &mut Machine, offset: u64, value: u32) {
    machine.memory.write(VIRTUAL_APIC + offset, &value.to_le_bytes()).unwrap();
}

/// Sets a vector in one of the registers of 256 bits.
fn set_vector(machine: &mut Machine, offset: u64, vector: u8) {
    let at = offset + u64::from(vector / 32) * 16;
    let old = register(machine, at);
    set_register(machine, at, old | 1 << (vector % 32));
}

fn has_vector(machine: &Machine, offset: u64, vector: u8) -> bool {
    register(machine, offset + u64::from(vector / 32) * 16) >> (vector % 32) & 1 != 0
}

/// The vector of the handler at whose VMCALL the guest exited.
fn handler(machine: &mut Machine) -> u64 {
    assert_eq!(machine.read(F::ExitReason), 18);
    (machine.read(F::GuestRip) - HANDLERS) / 16
}

#[test]
fn an_apic_access_exits_where_it_is_not_virtualized() {
    let registers: &[ControlBit] = &[S::VIRTUALIZE_APIC_ACCESSES, S::APIC_REGISTER_VIRTUALIZATION];
    let plain = &registers[..1];
    // (controls, instruction, qualification; none where it does not exit)
    let rows: &[(&[ControlBit], &str, Option<u64>)] = &[
        (plain, "mov eax, [0x70020]", Some(0x20)),
        (plain, "mov [0x70020], eax", Some(0x1020)),
        (plain, "mov eax, 0x70300\njmp rax", Some(0x2300)),
        (plain, "mov eax, [0x70080]", None),
        (plain, "mov rax, [0x70080]", Some(0x80)),
        (plain, "mov ax, [0x70082]", None),
        (plain, "mov eax, [0x70081]", Some(0x81)),
        (registers, "mov eax, [0x70020]", None),
        (registers, "mov eax, [0x700a0]", Some(0xa0)),
        (registers, "mov [0x70030], eax", Some(0x1030)),
        (registers, "mov eax, [0x70100]", None),
    ];
    for (controls, instruction, qualification) in rows {
        let mut machine = machine(&format!("{instruction}\nvmcall"), controls);
        let reason = machine.enter(true);
        assert_eq!(reason, if qualification.is_some() { 44 } else { 18 }, "{instruction}");
        if let Some(qualification) = qualification {
            assert_eq!(machine.read(F::ExitQualification), *qualification, "{instruction}");
            let fetch = qualification >> 12 == 2;
            assert_eq!(machine.read(F::GuestRip) == GUEST_CODE, !fetch, "{instruction}");
            assert_eq!(machine.read(F::ExitInstructionLength) == 0, fetch, "{instruction}");
        }
    }
}

#[test]
fn an_access_during_delivery_is_an_exit_of_its_own_kind() {
    let mut machine = machine("mov esp, 0x70800\nint 0x80", &[S::VIRTUALIZE_APIC_ACCESSES, S::APIC_REGISTER_VIRTUALIZATION]);
    assert_eq!(machine.enter(true), 44);
    assert_eq!(machine.read(F::ExitQualification) >> 12, 3);
    assert_eq!(machine.read(F::IdtVectoringInformation), 0x8000_0480);
    assert_eq!(machine.read(F::ExitInstructionLength), 2);
}

#[test]
fn the_guest_s_own_page_table_in_the_page_is_a_guest_physical_access() {
    let mut machine = machine("mov eax, [0x40000000]", &[S::VIRTUALIZE_APIC_ACCESSES]);
    machine.enable_ept(0);
    machine.memory.write_u64(common::PAGE_TABLES + 0x1008, APIC_ACCESS | 7).unwrap();
    assert_eq!(machine.enter(true), 44);
    assert_eq!(machine.read(F::ExitQualification), 15 << 12);
}

#[test]
fn an_apic_write_exits_behind_the_instruction() {
    let controls = [S::VIRTUALIZE_APIC_ACCESSES, S::APIC_REGISTER_VIRTUALIZATION];
    // (register, whether it exits, value kept)
    let rows = [(0x320u64, true, 0x1234_5678), (0xb0, true, 0x1234_5678), (0x310, false, 0x1200_0000), (0x80, false, 0x78)];
    for (offset, exits, kept) in rows {
        let mut machine = machine(&format!("mov dword [0x70000 + {offset:#x}], 0x12345678\nvmcall"), &controls);
        assert_eq!(machine.enter(true), if exits { 56 } else { 18 }, "{offset:#x}");
        assert_eq!(register(&machine, offset), kept);
        if exits {
            assert_eq!((machine.read(F::ExitQualification), machine.read(F::GuestRip)), (offset, GUEST_CODE + 11));
        }
    }
}

#[test]
fn virtual_interrupts_wait_for_priority_and_if() {
    // The guest's requesting vector is 61H. (RFLAGS.IF, TPR, vector in service, what the guest does before its VMCALL, taken)
    let rows = [
        (true, 0u32, 0u16, "nop", true),
        (false, 0, 0, "nop", false),
        (false, 0, 0, "sti\nnop", true),
        (true, 0x60, 0, "nop", false),
        (true, 0x5f, 0, "nop", true),
        (true, 0, 0x62, "nop", false),
        (true, 0x70, 0, "mov eax, 5\nmov cr8, rax", true),
        (true, 0x70, 0, "mov eax, 6\nmov cr8, rax", false),
        (true, 0x70, 0, "mov dword [0x70080], 0x50", true),
        (true, 0, 0x72, "mov dword [0x700b0], 0", true),
        (true, 0, 0x72, "hlt", false),
    ];
    for (flag, tpr, servicing, source, taken) in rows {
        let controls = [S::VIRTUALIZE_APIC_ACCESSES, S::VIRTUAL_INTERRUPT_DELIVERY];
        let mut machine = machine(&format!("{source}\nvmcall"), &controls);
        let primary = machine.read(F::PrimaryProcessorBasedControls);
        machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 7);
        machine.set(F::GuestRflags, 2 | u64::from(flag) << 9);
        machine.set(F::GuestInterruptStatus, u64::from(servicing) << 8 | 0x61);
        set_vector(&mut machine, 0x200, 0x61);
        set_vector(&mut machine, 0x200, 0x41);
        if servicing != 0 {
            set_vector(&mut machine, 0x100, servicing as u8);
        }
        set_register(&mut machine, 0x80, tpr);
        let reason = machine.enter(true);
        let row = format!("{flag} {tpr:#x} {servicing:#x} {source}");
        if !taken {
            let expected = if source == "hlt" { (12, GUEST_CODE) } else { (18, machine.read(F::GuestRip)) };
            assert_eq!((reason, machine.read(F::GuestRip)), expected, "{row}");
            assert!(machine.read(F::GuestRip) < HANDLERS || machine.read(F::GuestRip) >= GUEST_CODE, "{row}");
            continue;
        }
        assert_eq!(handler(&mut machine), 0x61, "{row}");
        assert_eq!(machine.read(F::GuestInterruptStatus), 0x6141, "{row}");
        assert!(has_vector(&machine, 0x100, 0x61) && !has_vector(&machine, 0x200, 0x61), "{row}");
        assert_eq!(register(&machine, 0xa0), 0x60, "PPR: {row}");
    }
}

#[test]
fn a_virtual_interrupt_wakes_a_halted_guest() {
    let mut machine = machine("hlt", &[S::VIRTUAL_INTERRUPT_DELIVERY]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary & !(1 << 7));
    machine.set(F::GuestActivityState, 1);
    machine.set(F::GuestInterruptStatus, 0x61);
    assert_eq!(machine.enter(true), 18);
    assert_eq!(handler(&mut machine), 0x61);
}

#[test]
fn interrupt_window_exiting_comes_instead_of_a_virtual_interrupt() {
    let mut machine = machine("nop", &[S::VIRTUAL_INTERRUPT_DELIVERY]);
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 2);
    machine.set(F::GuestInterruptStatus, 0x61);
    assert_eq!(machine.enter(true), 7);
}

#[test]
fn a_virtualized_eoi_exits_for_vectors_of_the_bitmap() {
    for (vector, exits) in [(0x51u8, true), (0x50, false)] {
        let controls = [S::VIRTUALIZE_APIC_ACCESSES, S::VIRTUAL_INTERRUPT_DELIVERY];
        let mut machine = machine("mov dword [0x700b0], 0\nvmcall", &controls);
        machine.set(F::EoiExitBitmap1, 1 << (0x51 - 64));
        machine.set(F::GuestInterruptStatus, u64::from(vector) << 8);
        set_vector(&mut machine, 0x100, vector);
        set_vector(&mut machine, 0x100, 0x31);
        assert_eq!(machine.enter(true), if exits { 45 } else { 18 });
        if exits {
            assert_eq!((machine.read(F::ExitQualification), machine.read(F::GuestRip)), (0x51, GUEST_CODE + 11));
        }
        assert_eq!(machine.read(F::GuestInterruptStatus), 0x3100);
        assert_eq!((register(&machine, 0xa0), has_vector(&machine, 0x100, vector)), (0x30, false));
    }
}

#[test]
fn an_interrupt_for_oneself_is_virtual() {
    let page = [S::VIRTUALIZE_APIC_ACCESSES, S::VIRTUAL_INTERRUPT_DELIVERY];
    let msrs = [S::VIRTUALIZE_X2APIC_MODE, S::VIRTUAL_INTERRUPT_DELIVERY];
    // (controls, what the guest does, the reason of its exit)
    let rows = [
        (page, "mov dword [0x70300], 0x40061\nnop", 18),
        (page, "mov dword [0x70300], 0x00061\nnop", 56),
        (msrs, "mov ecx, 0x83f\nmov eax, 0x61\nxor edx, edx\nwrmsr\nnop", 18),
        (msrs, "mov ecx, 0x83f\nmov eax, 0x01\nxor edx, edx\nwrmsr\nnop", 56),
    ];
    for (controls, source, reason) in rows {
        let mut machine = machine(&format!("{source}\nvmcall"), &controls);
        let primary = machine.read(F::PrimaryProcessorBasedControls);
        // MSR bitmaps that let everything through.
        machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 28);
        machine.set(F::MsrBitmapAddress, 0xc_0000);
        assert_eq!(machine.enter(true), reason, "{source}");
        if reason == 18 {
            assert_eq!(handler(&mut machine), 0x61, "{source}");
        }
    }
}

#[test]
fn x2apic_msrs_are_read_from_the_virtual_apic_page() {
    let all = [S::VIRTUALIZE_X2APIC_MODE, S::APIC_REGISTER_VIRTUALIZATION];
    // (controls, MSR, value read; none where #GP comes, because the processor's own APIC is not in x2APIC mode)
    let rows: [(&[ControlBit], u32, Option<u64>); 4] =
        [(&all, 0x808, Some(0x35)), (&all, 0x80d, Some(0x1234_5678)), (&all[..1], 0x808, Some(0x35)), (&all[..1], 0x80d, None)];
    for (controls, index, expected) in rows {
        let mut machine = machine(&format!("mov ecx, {index:#x}\nrdmsr\nvmcall"), controls);
        let primary = machine.read(F::PrimaryProcessorBasedControls);
        machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 28);
        machine.set(F::MsrBitmapAddress, 0xc_0000);
        machine.set(F::ExceptionBitmap, 1 << 13);
        set_register(&mut machine, 0x80, 0x35);
        set_register(&mut machine, 0xd0, 0x1234_5678);
        let reason = machine.enter(true);
        assert_eq!(reason, if expected.is_some() { 18 } else { 0 }, "{index:#x}");
        if let Some(expected) = expected {
            assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.gpr(Gpr::Rdx)), (expected, 0));
        }
    }
}

#[test]
fn posted_interrupts_reach_the_guest_without_an_exit() {
    // (vector that comes, whether it is the notification)
    for (vector, posted) in [(0xf2u8, true), (0xf3, false)] {
        let mut machine = machine("sti\nagain: jmp again", &[S::VIRTUAL_INTERRUPT_DELIVERY]);
        let (pin, exit) = (machine.read(F::PinBasedControls), machine.read(F::PrimaryExitControls));
        machine.set(F::PinBasedControls, pin | 1 << 7);
        machine.set(F::PrimaryExitControls, exit | 1 << 15);
        machine.set(F::PostedInterruptNotificationVector, 0xf2);
        machine.set(F::PostedInterruptDescriptorAddress, DESCRIPTOR);
        // Vectors 41H and 61H are requested, and the notification is outstanding; bit 1 is the host's own.
        machine.memory.write_u64(DESCRIPTOR + 8, 1 << 1 | 1 << 33).unwrap();
        machine.memory.write_u64(DESCRIPTOR + 32, 3).unwrap();
        machine.cpu.apic.write(0xf0, 0x1ff, 0);
        machine.cpu.accept(&ApicMessage { destination: 0, logical: false, mode: DeliveryMode::Fixed, vector, level: false });
        let reason = machine.enter(true);
        assert!(!machine.cpu.apic.requested(vector));
        assert_eq!(machine.cpu.apic.in_service(vector), !posted);
        if posted {
            assert_eq!((reason, handler(&mut machine)), (18, 0x61));
            assert_eq!(machine.read(F::GuestInterruptStatus), 0x6141);
            assert_eq!((machine.memory.read_u64(DESCRIPTOR + 8), machine.memory.read_u64(DESCRIPTOR + 32)), (Ok(0), Ok(2)));
        } else {
            assert_eq!((reason, machine.read(F::ExitInterruptionInformation)), (1, 0x8000_00f3));
        }
    }
}
