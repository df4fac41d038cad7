//! Translation: rights, error codes, accessed and dirty flags, reserved bits, what the TLB keeps.

mod common;

use common::{CODE, Machine, PAGES, ROOT, fault};
use cpu::access::Privilege::{self, Implicit, Supervisor, User};
use cpu::trap::Access::{self, Fetch, Read, Write};
use isa::control::{Cr0, Cr4, Efer};
use isa::register::Gpr;
use isa::rflags::Rflags;

const PAGE: u64 = 0x2_0000;
const ENTRY: u64 = PAGES + 8 * (PAGE >> 12);

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const NX: u64 = 1 << 63;

#[test]
fn rights_and_error_codes() {
    /// Entry flags, access, in whose name, WP, SMEP, SMAP, AC: the error code, if it faults.
    type Row = (u64, Access, Privilege, [bool; 4], Option<u32>);
    const NONE: [bool; 4] = [false; 4];
    const WP: [bool; 4] = [true, false, false, false];
    const SMEP: [bool; 4] = [false, true, false, false];
    const SMAP: [bool; 4] = [false, false, true, false];
    const SMAP_AC: [bool; 4] = [false, false, true, true];
    let rows: &[Row] = &[
        (0, Read, Supervisor, NONE, Some(0)),
        (0, Write, Supervisor, NONE, Some(2)),
        (0, Read, User, NONE, Some(4)),
        (0, Write, User, NONE, Some(6)),
        (0, Fetch, User, NONE, Some(0x14)),
        (0, Fetch, Supervisor, NONE, Some(0x10)),
        (P, Read, Supervisor, NONE, None),
        (P, Write, Supervisor, NONE, None),
        (P, Write, Supervisor, WP, Some(3)),
        (P, Write, Implicit, WP, Some(3)),
        (P, Read, User, NONE, Some(5)),
        (P, Write, User, NONE, Some(7)),
        (P, Fetch, User, NONE, Some(0x15)),
        (P | U, Read, User, NONE, None),
        (P | U, Write, User, NONE, Some(7)),
        (P | U, Fetch, User, NONE, None),
        (P | U | W, Write, User, WP, None),
        (P | U | W | NX, Fetch, User, NONE, Some(0x15)),
        (P | W | NX, Fetch, Supervisor, NONE, Some(0x11)),
        (P | U, Fetch, Supervisor, NONE, None),
        (P | U, Fetch, Supervisor, SMEP, Some(0x11)),
        (P, Fetch, Supervisor, SMEP, None),
        (P | U | W, Read, Supervisor, SMAP, Some(1)),
        (P | U | W, Write, Supervisor, SMAP, Some(3)),
        (P | U | W, Read, Supervisor, SMAP_AC, None),
        (P | U | W, Read, Implicit, SMAP_AC, Some(1)),
        (P | U, Write, Supervisor, SMAP_AC, None),
        (P | U, Fetch, Supervisor, SMAP, None),
        (P | U, Read, User, SMAP, None),
    ];
    for row in rows {
        let &(entry, access, privilege, [wp, smep, smap, ac], expected) = row;
        let mut machine = Machine::long("hlt");
        machine.memory.write_u64(ENTRY, PAGE | entry).unwrap();
        machine.cpu.cr0 = machine.cpu.cr0.with_wp(wp);
        machine.cpu.cr4 = machine.cpu.cr4.with_smep(smep).with_smap(smap);
        machine.cpu.set_rflags(Rflags::new().with_ac(ac));
        for time in ["by a walk", "by the TLB"] {
            let outcome = machine.with(|cpu| cpu.translate(PAGE + 0x123, access, privilege));
            assert_eq!(fault(outcome).map(|fault| fault.1.unwrap()), expected, "{row:?} {time}");
        }
    }
}

#[test]
fn protection_keys_refuse_data_in_user_pages() {
    const KEY_3: u64 = 3 << 59;
    const ACCESS_DISABLE: u32 = 1 << 6;
    const WRITE_DISABLE: u32 = 1 << 7;
    // Entry flags, access, in whose name, CR0.WP, CR4.PKE, PKRU: the error code, if it faults.
    let rows = [
        (P | W | U | KEY_3, Read, User, true, true, ACCESS_DISABLE, Some(0x25)),
        (P | W | U | KEY_3, Read, Supervisor, true, true, ACCESS_DISABLE, Some(0x21)),
        (P | W | U | KEY_3, Read, Implicit, true, true, ACCESS_DISABLE, Some(0x21)),
        (P | W | U | KEY_3, Write, User, true, true, WRITE_DISABLE, Some(0x27)),
        (P | W | U | KEY_3, Write, User, false, true, WRITE_DISABLE, Some(0x27)),
        (P | W | U | KEY_3, Write, Supervisor, true, true, WRITE_DISABLE, Some(0x23)),
        (P | W | U | KEY_3, Write, Supervisor, false, true, WRITE_DISABLE, None),
        (P | W | U | KEY_3, Read, User, true, true, WRITE_DISABLE, None),
        (P | W | U | KEY_3, Fetch, User, true, true, ACCESS_DISABLE, None),
        (P | W | U | KEY_3, Read, User, true, false, ACCESS_DISABLE, None),
        (P | W | U | KEY_3, Read, User, true, true, !(ACCESS_DISABLE | WRITE_DISABLE), None),
        (P | W | KEY_3, Read, Supervisor, true, true, u32::MAX, None),
        (P | W | U, Read, User, true, true, 1, Some(0x25)),
        // The key is told of, whatever else refuses the access.
        (P | U | KEY_3, Write, User, true, true, WRITE_DISABLE, Some(0x27)),
        (KEY_3, Read, User, true, true, ACCESS_DISABLE, Some(4)),
    ];
    for row in rows {
        let (entry, access, privilege, wp, pke, pkru, expected) = row;
        let mut machine = Machine::long("hlt");
        machine.memory.write_u64(ENTRY, PAGE | entry).unwrap();
        machine.cpu.cr0 = machine.cpu.cr0.with_wp(wp);
        machine.cpu.cr4 = machine.cpu.cr4.with_pke(pke);
        machine.cpu.set_pkru(pkru);
        for time in ["by a walk", "by the TLB"] {
            let outcome = machine.with(|cpu| cpu.translate(PAGE + 0x123, access, privilege));
            assert_eq!(fault(outcome).map(|fault| fault.1.unwrap()), expected, "{row:x?} {time}");
        }
    }
}

#[test]
fn a_new_pkru_holds_for_the_next_access_to_a_page_that_was_just_used() {
    let source = format!(
        "mov [{PAGE:#x}], eax
         xor ecx, ecx
         xor edx, edx
         mov eax, 2
         wrpkru
         mov ebx, [{PAGE:#x}]
         inc esi
         mov [{PAGE:#x}], eax
         hlt"
    );
    let mut machine = Machine::long(&source);
    machine.cpu.cr4 = machine.cpu.cr4.with_pke(true);
    machine.cpu.cr0 = machine.cpu.cr0.with_wp(true);
    // Everything else is the supervisor's: stacks and tables, too.
    for page in 0..512 {
        let at = PAGES + 8 * page;
        let entry = machine.memory.read_u64(at).unwrap();
        machine.memory.write_u64(at, if at == ENTRY { entry } else { entry & !U }).unwrap();
    }
    assert_eq!(machine.run_to_handler(), Some(14));
    assert_eq!((machine.cpu.gpr(Gpr::Rsi), machine.cpu.cr2), (1, PAGE));
}

#[test]
fn user_and_writable_must_hold_at_every_level() {
    for (table, keep, code) in [(ROOT, 5, 7), (0x2000, 5, 7), (0x3000, 5, 7), (ROOT, 3, 7), (0x2000, 3, 7), (0x3000, 3, 7)] {
        let mut machine = Machine::long("hlt");
        let entry = machine.memory.read_u64(table).unwrap();
        machine.memory.write_u64(table, entry & !7 | keep).unwrap();
        let outcome = machine.with(|cpu| cpu.translate(PAGE, Write, User));
        assert_eq!(fault(outcome), Some((14, Some(code))), "{table:#x} {keep}");
    }
}

#[test]
fn reserved_bits_fault_with_their_flag() {
    // Table, bits set, NXE: reserved or not. The Skylake server has 46 physical address bits.
    let rows = [
        (ROOT, 1 << 7, true, true),
        (ROOT, 1 << 46, true, true),
        (0x2000, 1 << 51, true, true),
        (0x3000, 1 << 46, true, true),
        (ENTRY, 1 << 46, true, true),
        (ENTRY, 1 << 45, true, false),
        (ENTRY, 1 << 52, true, false),
        (ENTRY, 1 << 62, true, false),
        (ENTRY, 1 << 63, false, true),
        (ENTRY, 1 << 63, true, false),
        // A 2-MiB page whose address has a bit below 21.
        (0x3008, 1 << 13, true, true),
        (0x3008, 1 << 20, true, true),
        (0x3008, 1 << 12, true, false),
    ];
    for (table, bits, nxe, reserved) in rows {
        let mut machine = Machine::long("hlt");
        machine.cpu.efer = machine.cpu.efer.with_nxe(nxe);
        let entry = machine.memory.read_u64(table).unwrap();
        machine.memory.write_u64(table, entry | bits).unwrap();
        let linear = if table == 0x3008 { 0x20_0000 } else { PAGE };
        let outcome = machine.with(|cpu| cpu.translate(linear, Read, Supervisor));
        assert_eq!(fault(outcome), reserved.then_some((14, Some(9))), "{table:#x} {bits:#x}");
    }
}

#[test]
fn accessed_and_dirty_flags_are_set_where_the_walk_goes() {
    let mut machine = Machine::long("hlt");
    let flags = |machine: &Machine| [ROOT, 0x2000, 0x3000, ENTRY].map(|at| machine.memory.read_u64(at).unwrap() & 0x60);
    machine.with(|cpu| cpu.translate(PAGE, Read, Supervisor)).unwrap();
    assert_eq!(flags(&machine), [0x20, 0x20, 0x20, 0x20]);
    machine.with(|cpu| cpu.translate(PAGE, Write, Supervisor)).unwrap();
    assert_eq!(flags(&machine), [0x20, 0x20, 0x20, 0x60]);
    // A refused write sets neither in the last entry.
    machine.memory.write_u64(ENTRY + 8, PAGE | 0x1000 | P).unwrap();
    assert!(machine.with(|cpu| cpu.translate(PAGE + 0x1000, Write, User)).is_err());
    assert_eq!(machine.memory.read_u64(ENTRY + 8).unwrap() & 0x60, 0);
}

#[test]
fn a_stale_translation_is_used_until_it_is_invalidated() {
    // The entry is changed to the next page between the loads; the TLB still knows the old one.
    let source = format!(
        "mov dword [{PAGE:#x}], 1
         mov dword [{next:#x}], 2
         mov eax, [{PAGE:#x}]
         add qword [{ENTRY:#x}], 0x1000
         mov ebx, [{PAGE:#x}]
         invlpg [{PAGE:#x}]
         mov ecx, [{PAGE:#x}]
         sub qword [{ENTRY:#x}], 0x1000
         mov edx, [{PAGE:#x}]
         mov rsi, cr3
         mov cr3, rsi
         mov esi, [{PAGE:#x}]
         hlt",
        next = PAGE + 0x1000
    );
    let mut machine = Machine::long(&source);
    assert_eq!(machine.run_to_handler(), None);
    let [a, b, c, d, e] = [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].map(|register| machine.cpu.gpr(register));
    assert_eq!([a, b, c, d, e], [1, 1, 2, 2, 1]);
}

#[test]
fn a_global_page_survives_a_write_of_cr3_and_not_one_of_cr4_pge() {
    let source = format!(
        "or qword [{ENTRY:#x}], 0x100
         invlpg [{PAGE:#x}]
         mov eax, [{PAGE:#x}]
         add qword [{ENTRY:#x}], 0x1000
         mov rsi, cr3
         mov cr3, rsi
         mov ebx, [{PAGE:#x}]
         mov rsi, cr4
         btr esi, 7
         mov cr4, rsi
         mov ecx, [{PAGE:#x}]
         hlt"
    );
    let mut machine = Machine::long(&source);
    machine.memory.write_u32(PAGE, 1).unwrap();
    machine.memory.write_u32(PAGE + 0x1000, 2).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!([Gpr::Rax, Gpr::Rbx, Gpr::Rcx].map(|register| machine.cpu.gpr(register)), [1, 1, 2]);
}

#[test]
fn process_context_identifiers_keep_translations_apart() {
    // With PCIDs, a load of CR3 with bit 63 set keeps what the PCID had.
    let source = format!(
        "mov rax, cr4
         bts rax, 17
         mov cr4, rax
         mov eax, [{PAGE:#x}]
         mov rsi, {ROOT:#x} | 5
         mov cr3, rsi
         add qword [{ENTRY:#x}], 0x1000
         mov rsi, (1 << 63) | {ROOT:#x}
         mov cr3, rsi
         mov ebx, [{PAGE:#x}]
         mov rsi, (1 << 63) | {ROOT:#x} | 5
         mov cr3, rsi
         mov ecx, [{PAGE:#x}]
         mov rsi, {ROOT:#x}
         mov cr3, rsi
         mov edx, [{PAGE:#x}]
         hlt"
    );
    let mut machine = Machine::long(&source);
    machine.memory.write_u32(PAGE, 1).unwrap();
    machine.memory.write_u32(PAGE + 0x1000, 2).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!([Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].map(|register| machine.cpu.gpr(register)), [1, 1, 2, 2]);
}

#[test]
fn a_remapped_page_of_code_is_fetched_anew() {
    // `there` is called, remapped to other code and called again after INVLPG.
    let source = format!(
        "call there_page
         add qword [{entry:#x}], 0x1000
         invlpg [there_page]
         call there_page
         hlt
         align 4096
         there_page: inc eax
         ret
         align 4096
         add eax, 0x10
         ret",
        entry = PAGES + 8 * ((CODE >> 12) + 1)
    );
    let mut machine = Machine::long(&source);
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.gpr(Gpr::Rax), 0x11);
}

#[test]
fn paging_of_32_bits_and_pae() {
    // Mode: 32-bit or PAE; linear, expected physical or error code.
    let mut machine = Machine::protected("hlt");
    machine.cpu.cr0 = Cr0::from_bits(0x8001_0011);
    machine.cpu.cr4 = Cr4::new().with_pse(true);
    machine.cpu.cr3 = 0x40000;
    machine.memory.write_u32(0x40000, 0x41007).unwrap();
    machine.memory.write_u32(0x40004, 0x0040_0087).unwrap();
    machine.memory.write_u32(0x40008, 0x0060_0087).unwrap();
    // PSE-36: bits 20:13 are the address bits 39:32.
    machine.memory.write_u32(0x4000c, 0x0040_2087).unwrap();
    machine.memory.write_u32(0x41000 + 4 * 5, 0x7003).unwrap();
    let rows = [
        (0x5123, Ok(0x7123)),
        (0x6000, Err(0)),
        (0x40_1234, Ok(0x40_1234)),
        (0x80_0000, Err(9)),
        (0xc0_0010, Ok(0x1_0040_0010)),
        (0x100_0000, Err(0)),
    ];
    for (linear, expected) in rows {
        let found = machine.with(|cpu| cpu.translate(linear, Read, Supervisor));
        match expected {
            Ok(physical) => {
                let page = found.unwrap();
                assert_eq!(page.physical + (linear & (page.bytes - 1)), physical, "{linear:#x}");
            }
            Err(code) => assert_eq!(fault(found), Some((14, Some(code))), "{linear:#x}"),
        }
    }
    // PAE.
    machine.cpu.cr4 = Cr4::new().with_pae(true);
    machine.cpu.efer = Efer::new().with_nxe(true);
    machine.cpu.flush_tlb();
    for (at, entry) in [(0x42000, 0x43001u64), (0x42018, 0x43001), (0x43000, 0x44007), (0x43008, 0x60_00e7), (0x44008, NX | 0x9007)] {
        machine.memory.write_u64(at, entry).unwrap();
    }
    machine.with(|cpu| cpu.write_cr3(0x42000)).unwrap();
    let rows = [
        (0x1abc, Read, Ok(0x9abc)),
        (0x1abc, Fetch, Err(0x11)),
        (0x20_0004, Read, Ok(0x60_0004)),
        (0xc000_1000, Read, Ok(0x9000)),
        (0x4000_0000, Read, Err(0)),
    ];
    for (linear, access, expected) in rows {
        let found = machine.with(|cpu| cpu.translate(linear, access, Supervisor));
        match expected {
            Ok(physical) => {
                let page = found.unwrap();
                assert_eq!(page.physical + (linear & (page.bytes - 1)), physical, "{linear:#x}");
            }
            Err(code) => assert_eq!(fault(found), Some((14, Some(code))), "{linear:#x}"),
        }
    }
    // A malformed page-directory-pointer-table entry is #GP(0) at the load of CR3, and nothing changes.
    machine.memory.write_u64(0x42008, 0x43003).unwrap();
    assert_eq!(fault(machine.with(|cpu| cpu.write_cr3(0x42000))), Some((13, Some(0))));
    assert_eq!(machine.cpu.pdptes[1], 0);
}
