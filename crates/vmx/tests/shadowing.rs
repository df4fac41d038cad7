//! VMCS shadowing: VMREAD and VMWRITE of a guest, and what may be done with a shadow VMCS.

mod common;

use common::{Machine, VMCS};
use isa::register::Gpr;
use isa::rflags::Rflags;
use isa::vmx::{SecondaryControls, VmInstructionError, VmcsField as F};
use models::{MEROM, SKYLAKE_SERVER};
use vmx::VmFail;

const SHADOW: u64 = 0x3000;
const READS: u64 = 0x6_0000;
const WRITES: u64 = 0x6_1000;

/// A guest with a shadow VMCS whose guest RIP is 0x1111, and bitmaps that let it access everything.
fn machine(source: &str) -> Machine {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest(source);
    machine.with(|vmx, cpu| {
        let revision = u64::from(vmx.capabilities().basic.revision()) | 1 << 31;
        cpu.write_physical(SHADOW, 4, revision);
        vmx.vmclear(cpu, SHADOW).unwrap();
        vmx.vmptrld(cpu, SHADOW).unwrap();
        vmx.vmwrite(cpu, F::GuestRip, 0x1111).unwrap();
        vmx.vmclear(cpu, SHADOW).unwrap();
        vmx.vmptrld(cpu, VMCS).unwrap();
    });
    machine.add_secondary(&[SecondaryControls::VMCS_SHADOWING]);
    for (field, value) in [(F::VmcsLinkPointer, SHADOW), (F::VmreadBitmapAddress, READS), (F::VmwriteBitmapAddress, WRITES)] {
        machine.set(field, value);
    }
    machine
}

/// A field of the shadow VMCS, as VMPTRLD finds it.
fn shadow(machine: &mut Machine, field: F) -> u64 {
    machine.with(|vmx, cpu| {
        vmx.vmptrld(cpu, SHADOW).unwrap();
        let value = vmx.vmread(cpu, field).unwrap();
        vmx.vmptrld(cpu, VMCS).unwrap();
        value
    })
}

#[test]
fn a_guest_reads_and_writes_the_shadow() {
    let mut machine = machine(
        "mov eax, 0x681e
         vmread rbx, rax
         lea rcx, [rbx + 1]
         vmwrite rax, rcx
         vmread rdx, rax
         vmcall",
    );
    assert_eq!(machine.enter(true), 18);
    assert_eq!((machine.cpu.gpr(Gpr::Rbx), machine.cpu.gpr(Gpr::Rdx)), (0x1111, 0x1112));
    assert_eq!(shadow(&mut machine, F::GuestRip), 0x1112);
}

#[test]
fn vmread() {
    // (the field's encoding in the guest's register, the byte of the bitmap that has the field's bit, exits)
    let rows = [(0x681e_u64, 0u8, false), (0x681e, 1 << (0x1e & 7), true), (0x1_681e, 0, true)];
    for (encoding, bits, exits) in rows {
        let mut machine = machine(&format!("mov rax, {encoding:#x}\nvmread rbx, rax\nvmcall"));
        machine.load(READS + (0x681e >> 3), &[bits]);
        assert_eq!(machine.enter(true), if exits { 23 } else { 18 }, "{encoding:#x} {bits:#x}");
    }
}

#[test]
fn vmwrite() {
    let rows = [(0x681e_u64, 0u8, false), (0x681e, 1 << (0x1e & 7), true), (0x1_681e, 0, true)];
    for (encoding, bits, exits) in rows {
        let mut machine = machine(&format!("mov rax, {encoding:#x}\nvmwrite rax, rbx\nvmcall"));
        machine.load(WRITES + (0x681e >> 3), &[bits]);
        assert_eq!(machine.enter(true), if exits { 25 } else { 18 }, "{encoding:#x} {bits:#x}");
    }
}

#[test]
fn an_access_that_fails_tells_so_in_the_current_vmcs() {
    let mut machine = machine("mov eax, 0x7ffe\nvmread rbx, rax\nvmcall");
    assert_eq!(machine.enter(true), 18);
    let flags = Rflags::from_bits(machine.read(F::GuestRflags));
    assert!(flags.zf() && !flags.cf());
    assert_eq!((machine.read(F::VmInstructionError), shadow(&mut machine, F::VmInstructionError)), (12, 0));
    // Without a shadow VMCS: VMfailInvalid.
    machine.set(F::VmcsLinkPointer, u64::MAX);
    machine.set(F::GuestRip, common::GUEST_CODE);
    assert_eq!(machine.enter(false), 18);
    let flags = Rflags::from_bits(machine.read(F::GuestRflags));
    assert!(!flags.zf() && flags.cf());
}

#[test]
fn no_guest_is_entered_with_a_shadow_vmcs() {
    let mut machine = machine("vmcall");
    machine.with(|vmx, cpu| {
        vmx.vmptrld(cpu, SHADOW).unwrap();
        assert_eq!(vmx.vmlaunch(cpu), Err(VmFail::Invalid));
        assert_eq!(vmx.vmresume(cpu), Err(VmFail::Invalid));
    });
    // A processor without VMCS shadowing does not even load it.
    let mut machine = Machine::new(&MEROM);
    machine.with(|vmx, cpu| {
        cpu.write_physical(SHADOW, 4, u64::from(vmx.capabilities().basic.revision()) | 1 << 31);
        assert_eq!(vmx.vmptrld(cpu, SHADOW), Err(VmFail::Valid(VmInstructionError::VmptrldIncorrectRevision)));
    });
}
