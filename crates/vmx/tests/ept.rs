//! EPT beyond violations and misconfigurations: mode-based execute control, what an exit tells of the guest's own paging, the log of
//! modified pages, #VE, EPTP switching, NMIs that an IRET unblocked.

mod common;

use common::{EPT, EPT_FLAGS, GUEST_CODE, Machine, PAGE_TABLES, USER_EXECUTE};
use isa::register::Gpr;
use isa::vmx::{SecondaryControls, VmcsField as F};
use models::SKYLAKE_SERVER;

/// A page of the first 2 MiB that the tests take rights from.
const PAGE: u64 = 0x5_0000;
const LOG: u64 = 0x6_0000;
const READ: u64 = 1;
const EXECUTE: u64 = 4;
const WRITE_BACK: u64 = 0x30;

fn machine(source: &str, flags: u64, controls: &[isa::vmx::ControlBit]) -> Machine {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest(source);
    machine.enable_ept(flags);
    machine.add_secondary(controls);
    machine
}

/// Makes the guest's own paging map `PAGE` with these rights, by a table of 4-KiB pages.
fn guest_page(machine: &mut Machine, rights: u64) {
    const TABLE: u64 = 0xc000;
    for page in 0..512 {
        machine.memory.write_u64(TABLE + page * 8, page << 12 | 7).unwrap();
    }
    machine.memory.write_u64(TABLE + (PAGE >> 12) * 8, PAGE | rights).unwrap();
    for (at, entry) in [(0, PAGE_TABLES + 0x1007), (0x1000, PAGE_TABLES + 0x2007), (0x2000, TABLE | 7)] {
        machine.memory.write_u64(PAGE_TABLES + at, entry).unwrap();
    }
}

#[test]
fn an_ept_violation_tells_what_the_guest_s_own_paging_gives() {
    // (rights of the guest's page, bits 11:9 of the qualification)
    let rows = [(1u64, 0u64), (1 | 4, 1), (1 | 2, 2), (7, 3), (1 | 1 << 63, 4), (7 | 1 << 63, 7)];
    for (rights, expected) in rows {
        let mut machine = machine(&format!("mov eax, [{PAGE:#x}]"), 0, &[]);
        guest_page(&mut machine, rights);
        // EFER.NXE, so that bit 63 counts.
        machine.cpu.efer = machine.cpu.efer.with_nxe(true);
        machine.map(PAGE, PAGE | EXECUTE | WRITE_BACK);
        assert_eq!(machine.enter(true), 48, "{rights:#x}");
        let qualification = machine.read(F::ExitQualification);
        assert_eq!(qualification >> 9 & 7, expected, "{rights:#x}");
        assert_eq!(qualification & 0x1ff, 0x1a1, "a read of an execute-only page, by its linear address");
    }
}

#[test]
fn mode_based_execute_control_looks_at_the_mode_of_the_address() {
    // (the guest's page is a user-mode one, rights in EPT, whether the fetch is a violation)
    let rows = [
        (false, READ | EXECUTE, false),
        (false, READ | USER_EXECUTE, true),
        (true, READ | EXECUTE, true),
        (true, READ | USER_EXECUTE, false),
        (true, USER_EXECUTE, false),
        (false, READ, true),
    ];
    for (user, rights, violation) in rows {
        let control = SecondaryControls::MODE_BASED_EXECUTE_CONTROL_FOR_EPT;
        let mut machine = machine(&format!("mov eax, {PAGE:#x}\njmp rax"), 0, &[control]);
        machine.load(PAGE, &[0x0f, 0x01, 0xc1]);
        guest_page(&mut machine, if user { 7 } else { 3 });
        machine.map(PAGE, PAGE | rights | WRITE_BACK);
        let expected = if violation { 48 } else { 18 };
        assert_eq!(machine.enter(true), expected, "user {user}, rights {rights:#x}");
        if violation {
            let qualification = machine.read(F::ExitQualification);
            assert_eq!(qualification & 4, 4, "a fetch");
            assert_eq!((qualification >> 5 & 1, qualification >> 6 & 1), (rights >> 2 & 1, rights >> 10 & 1));
        }
    }
}

#[test]
fn page_modification_log_full() {
    let source = format!(
        "mov byte [{PAGE:#x}], 1
         mov byte [{PAGE:#x} + 0x800], 1
         mov byte [{:#x}], 1
         mov byte [{:#x}], 1
         vmcall",
        PAGE + 0x1123,
        PAGE + 0x2000
    );
    let mut machine = machine(&source, EPT_FLAGS, &[SecondaryControls::ENABLE_PML]);
    machine.set(F::PmlAddress, LOG);
    machine.set(F::PmlIndex, 0);
    // There is room for one page, which the first walk of the guest's own tables takes.
    assert_eq!(machine.enter(true), 62);
    assert_eq!((machine.read(F::ExitQualification), machine.read(F::PmlIndex)), (0, 0xffff));
    assert_eq!(machine.memory.read_u64(LOG), Ok(PAGE_TABLES));
    machine.set(F::PmlIndex, 511);
    assert_eq!(machine.enter(false), 18);
    let index = machine.read(F::PmlIndex);
    let logged: Vec<u64> = (index + 1..512).rev().map(|at| machine.memory.read_u64(LOG + at * 8).unwrap()).collect();
    assert!(logged.ends_with(&[PAGE, PAGE + 0x1000, PAGE + 0x2000]), "{logged:x?}");
    let dirty = |machine: &Machine, page: u64| machine.memory.read_u64(EPT + 0x3000 + (page >> 12) * 8).unwrap() >> 9 & 1;
    assert_eq!((dirty(&machine, PAGE), dirty(&machine, PAGE + 0x3000)), (1, 0));
}

#[test]
fn a_violation_that_is_not_suppressed_is_a_virtualization_exception() {
    const INFORMATION: u64 = 0x7_0000;
    const IDT: u64 = 0x8_0000;
    const HANDLER: u64 = 0x9_0000;
    const GDT: u64 = 0xa_0000;
    // (bit 63 of the entry, what the area holds at offset 4, exit)
    let rows = [(0u64, 0u64, 18), (1 << 63, 0, 48), (0, 0xffff_ffff, 48)];
    for (suppress, taken, reason) in rows {
        let source = format!("mov eax, [{PAGE:#x} + 8]");
        let mut machine = machine(&source, 0, &[SecondaryControls::EPT_VIOLATION_VE]);
        machine.memory.write_u64(INFORMATION, taken << 32).unwrap();
        machine.set(F::VirtualizationExceptionInformationAddress, INFORMATION);
        machine.set(F::EptpIndex, 7);
        machine.load(HANDLER, &[0x0f, 0x01, 0xc1]);
        machine.memory.write_u64(GDT + 8, 0x00af_9b00_0000_ffff).unwrap();
        machine.memory.write_u64(IDT + 20 * 16, 0x8e00 << 32 | 8 << 16 | HANDLER & 0xffff | (HANDLER >> 16) << 48).unwrap();
        for (field, value) in [(F::GuestIdtrBase, IDT), (F::GuestIdtrLimit, 0xfff), (F::GuestGdtrBase, GDT), (F::GuestGdtrLimit, 0xff)] {
            machine.set(field, value);
        }
        machine.map(PAGE, suppress);
        assert_eq!(machine.enter(true), reason);
        if reason == 18 {
            assert_eq!(machine.read(F::GuestRip), HANDLER);
            let word = |offset: u64| machine.memory.read_u64(INFORMATION + offset).unwrap();
            assert_eq!([word(0), word(8) & 0x1ff, word(16), word(24), word(32)], [0xffff_ffff_0000_0030, 0x181, PAGE + 8, PAGE + 8, 7]);
        }
    }
}

#[test]
fn vmfunc_switches_to_another_ept_of_the_list() {
    const LIST: u64 = 0x7_0000;
    const OTHER: u64 = 0x48_0000;
    // VM function 0 with EPT pointer number 1, and a look at memory.
    let source = format!("mov ecx, 1\nxor eax, eax\nvmfunc\nmov ebx, [{PAGE:#x}]\nmov ecx, 2\nvmfunc");
    let mut machine = machine(&source, 0, &[SecondaryControls::ENABLE_VM_FUNCTIONS, SecondaryControls::EPT_VIOLATION_VE]);
    machine.set(F::VmFunctionControls, 1);
    machine.set(F::EptpListAddress, LIST);
    machine.set(F::VirtualizationExceptionInformationAddress, 0x7_1000);
    for table in 0..4 {
        let mut bytes = [0; 4096];
        machine.memory.read(EPT + table * 0x1000, &mut bytes).unwrap();
        machine.memory.write(OTHER + table * 0x1000, &bytes).unwrap();
        if table < 3 {
            let first = machine.memory.read_u64(OTHER + table * 0x1000).unwrap();
            machine.memory.write_u64(OTHER + table * 0x1000, first + OTHER - EPT).unwrap();
        }
    }
    // Page PAGE is another one there.
    machine.memory.write_u64(OTHER + 0x3000 + (PAGE >> 12) * 8, LOG | 0x37).unwrap();
    machine.memory.write_u64(LOG, 0x1234).unwrap();
    machine.memory.write_u64(LIST + 8, OTHER | 0x1e).unwrap();
    // Number 2 is no EPT pointer.
    machine.memory.write_u64(LIST + 16, OTHER | 0x1f).unwrap();
    assert_eq!(machine.enter(true), 59);
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0x1234);
    assert_eq!((machine.read(F::EptPointer), machine.read(F::EptpIndex)), (OTHER | 0x1e, 1));
}

#[test]
fn an_iret_that_exits_tells_that_it_unblocked_nmis() {
    // (virtual NMIs, blocked before, bit 12 of the qualification, blocked in the guest behind it)
    let rows = [(true, true, 1, 0), (true, false, 0, 0)];
    for (virtual_nmis, blocked, unblocked, after) in rows {
        let mut machine = machine(&format!("mov esp, {PAGE:#x}\niretq"), 0, &[]);
        let pin = machine.read(F::PinBasedControls);
        machine.set(F::PinBasedControls, pin | 1 << 3 | u64::from(virtual_nmis) << 5);
        machine.set(F::GuestInterruptibilityState, u64::from(blocked) << 3);
        machine.map(PAGE, 0);
        assert_eq!(machine.enter(true), 48);
        assert_eq!(machine.read(F::ExitQualification) >> 12 & 1, unblocked);
        assert_eq!(machine.read(F::GuestInterruptibilityState) >> 3 & 1, after);
    }
}

#[test]
fn iret_leaves_blocking_alone_where_nmis_exit_without_virtual_nmis() {
    for (exiting, blocked) in [(true, 1), (false, 0)] {
        let mut machine =
            machine("mov rbx, rsp\npush 16\npush rbx\npush 2\npush 8\nlea rax, [rel next]\npush rax\niretq\nnext: vmcall", 0, &[]);
        const GDT: u64 = 0xa_0000;
        machine.memory.write_u64(GDT + 8, 0x00af_9b00_0000_ffff).unwrap();
        machine.memory.write_u64(GDT + 16, 0x00cf_9300_0000_ffff).unwrap();
        machine.set(F::GuestGdtrBase, GDT);
        machine.set(F::GuestGdtrLimit, 0xff);
        let pin = machine.read(F::PinBasedControls);
        machine.set(F::PinBasedControls, pin | u64::from(exiting) << 3);
        machine.set(F::GuestInterruptibilityState, 1 << 3);
        assert_eq!(machine.enter(true), 18);
        assert_eq!(machine.read(F::GuestInterruptibilityState) >> 3 & 1, blocked);
        assert_eq!(machine.read(F::GuestRip) - GUEST_CODE, 20);
    }
}
