//! VMX aborts: exits that cannot be completed, and the indicator that tells why; the lists of MSRs whose entries are bad.

mod common;

use common::{GUEST_CODE, Machine, VMCS};
use cpu::RunExit;
use isa::vmx::{SecondaryControls, VmcsField as F};
use models::SKYLAKE_SERVER;
use vmx::{EntryOutcome, Operation};

const LIST: u64 = 0x5_0000;

/// The abort indicator after an exit that could not be completed.
fn abort(setup: impl FnOnce(&mut Machine)) -> u64 {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest("vmcall");
    setup(&mut machine);
    let outcome = machine.with(|vmx, cpu| vmx.vmlaunch(cpu));
    assert_eq!(outcome, Ok(EntryOutcome::Entered), "{:x?}", machine.with(|vmx, cpu| vmx.explain(cpu)));
    assert_eq!(machine.run(100), RunExit::Shutdown);
    assert!(!machine.cpu.guest_mode);
    assert_eq!(machine.with(|vmx, _| vmx.operation()), Operation::Root);
    // An INIT signal is blocked in root operation: the processor stays where it is.
    machine.cpu.init_pending = true;
    assert_eq!(machine.run(100), RunExit::Shutdown);
    u64::from(machine.memory.read_u32(VMCS + 4).unwrap())
}

fn list(machine: &mut Machine, address: F, count: F, head: u64, value: u64) {
    machine.memory.write_u64(LIST, head).unwrap();
    machine.memory.write_u64(LIST + 8, value).unwrap();
    machine.set(address, LIST);
    machine.set(count, 1);
}

#[test]
fn saving_guest_msrs() {
    // (first quadword of the entry)
    for head in [0x9e, 0x808, 0x1_c000_0102, 0x1234_5678] {
        assert_eq!(abort(|machine| list(machine, F::ExitMsrStoreAddress, F::ExitMsrStoreCount, head, 0)), 1, "{head:#x}");
    }
}

#[test]
fn loading_host_msrs() {
    // (first quadword of the entry, value)
    for (head, value) in [(0xc000_0100, 0), (0xc000_0101, 0), (0x9b, 0), (0x808, 0), (0x1_c000_0102, 0), (0x277, 2), (0xc000_0080, 1 << 1)]
    {
        assert_eq!(abort(|machine| list(machine, F::ExitMsrLoadAddress, F::ExitMsrLoadCount, head, value)), 4, "{head:#x}");
    }
}

/// A 32-bit host with PAE paging, and a 32-bit guest.
fn legacy(machine: &mut Machine, pdpte: u64) {
    const PAGES: u64 = 0xb_0000;
    const PDPTES: u64 = 0xb_1000;
    machine.memory.write_u64(PAGES, 0x87).unwrap();
    machine.memory.write_u64(PDPTES, pdpte).unwrap();
    machine.cpu.efer = isa::control::Efer::new();
    machine.cpu.context_changed();
    let (entry, exit) = (machine.read(F::EntryControls), machine.read(F::PrimaryExitControls));
    machine.set(F::EntryControls, entry & !(1 << 9));
    machine.set(F::PrimaryExitControls, exit & !(1 << 9));
    for (field, value) in
        [(F::GuestCr3, PAGES), (F::GuestCr4, 0x2010), (F::GuestCsAccessRights, 0xc09b), (F::HostCr3, PDPTES), (F::HostCr4, 0x2020)]
    {
        machine.set(field, value);
    }
}

#[test]
fn host_page_directory_pointers() {
    // A reserved bit.
    assert_eq!(abort(|machine| legacy(machine, 0x1003)), 2);
}

#[test]
fn a_guest_in_ia_32e_mode_and_a_host_that_is_not() {
    const TOP: u64 = 0xe_0000;
    let indicator = abort(|machine| {
        legacy(machine, 0);
        // An unrestricted guest without paging, which turns IA-32e mode on by itself.
        machine.enable_ept(0);
        machine.add_secondary(&[SecondaryControls::UNRESTRICTED_GUEST]);
        let source = format!(
            "mov eax, {TOP:#x}
             mov cr3, eax
             mov eax, 0x2020
             mov cr4, eax
             mov ecx, 0xc0000080
             mov eax, 0x100
             xor edx, edx
             wrmsr
             mov eax, 0x80000031
             mov cr0, eax
             vmcall"
        );
        let options = assembler::Options { origin: GUEST_CODE, bits: assembler::Bits::ThirtyTwo, ..Default::default() };
        machine.load(GUEST_CODE, &assembler::assemble(&source, &options).unwrap().bytes);
        machine.memory.write_u64(TOP, (TOP + 0x1000) | 3).unwrap();
        machine.memory.write_u64(TOP + 0x1000, (TOP + 0x2000) | 3).unwrap();
        machine.memory.write_u64(TOP + 0x2000, 0x83).unwrap();
        let primary = machine.read(F::PrimaryProcessorBasedControls);
        // MSR bitmaps that let everything through.
        machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 28);
        machine.set(F::MsrBitmapAddress, 0xd_0000);
        machine.set(F::GuestCr0, 0x31);
    });
    assert_eq!(indicator, 6);
}
