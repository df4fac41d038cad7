//! What a program given as assembly or flat code finds when it starts: tables in memory and the state of its CPU.
//!
//! Three environments, all described in docs/scenarios.md for those who write guests:
//! - `real16`: as firmware leaves a boot sector. All segments 0, interrupts off.
//! - `protected32`: flat 4-GiB segments, paging off, a TSS per CPU.
//! - `long64`: the same segments in their 64-bit forms, the first 4 GiB mapped to themselves (user-accessible, writable, executable; the
//!   first 2 MiB in pages of 4 KiB, the rest in pages of 2 MiB), a TSS per CPU.
//!
//! Where the scenario names handlers, a table leads their vectors to them; otherwise the IDT is empty (in real mode, every vector is 0:0).
//!
//! Not modelled: firmware services. A program that calls `int 10h` runs through an empty vector.

use crate::file::Mode;
use isa::control::{Cr0, Cr4, Efer};
use isa::segment::{Descriptor, SegmentRegister, Selector, TableRegister};
use std::ops::Range;

/// Where the page tables begin: PML4, then PDPT, four page directories, one page table.
pub const PAGE_TABLES: u64 = 0x1000;
/// The page table of the first 2 MiB: the entry of address `a` is at `PAGE_TABLE + (a >> 12) * 8`.
pub const PAGE_TABLE: u64 = 0x7000;
/// The GDT.
pub const GDT: u64 = 0x8000;
/// The task-state segments, one every [`TSS_STRIDE`] bytes.
pub const TSS: u64 = 0x9000;
/// Distance of two task-state segments.
pub const TSS_STRIDE: u64 = 0x80;
/// The interrupt descriptor table; before it 64 task-state segments, the most CPUs there can be.
pub const IDT: u64 = TSS + 64 * TSS_STRIDE;
/// The end of everything the environment keeps in memory.
pub const END: u64 = IDT + 256 * 16;
/// Top of the first CPU's stack; every further CPU has its own, [`STACK_STRIDE`] lower.
pub const STACK: u64 = 0x9_0000;
/// Distance of two stacks.
pub const STACK_STRIDE: u64 = 0x1000;
/// Top of the first CPU's stack in real mode.
pub const REAL_STACK: u64 = 0x7c00;

/// Kernel code of 64 bits.
pub const CODE64: u16 = 0x08;
/// Kernel data.
pub const DATA: u16 = 0x10;
/// User code of 32 bits: what SYSRET loads for compatibility mode, if STAR names it.
pub const USER_CODE32: u16 = 0x18;
/// User data.
pub const USER_DATA: u16 = 0x20;
/// User code of 64 bits.
pub const USER_CODE64: u16 = 0x28;
/// Kernel code of 32 bits.
pub const CODE32: u16 = 0x30;
/// Kernel code of 16 bits.
pub const CODE16: u16 = 0x38;
/// Kernel data of 16 bits.
pub const DATA16: u16 = 0x40;
/// The first CPU's TSS; every further CPU has its own, 16 higher.
pub const TASK: u16 = 0x48;

/// The constants that every guest's assembly text can use, from this table.
pub const CONSTANTS: &[(&str, u64)] = &[
    ("PAGE_TABLE", PAGE_TABLE),
    ("CODE64", CODE64 as u64),
    ("DATA", DATA as u64),
    ("USER_CODE32", USER_CODE32 as u64 | 3),
    ("USER_DATA", USER_DATA as u64 | 3),
    ("USER_CODE64", USER_CODE64 as u64 | 3),
    ("CODE32", CODE32 as u64),
    ("CODE16", CODE16 as u64),
    ("DATA16", DATA16 as u64),
];

/// The state a CPU starts with; what is not here is as after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Control register 0.
    pub cr0: Cr0,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentRegister; 6],
    /// The task register.
    pub tr: SegmentRegister,
    /// The global descriptor table.
    pub gdtr: TableRegister,
    /// The interrupt descriptor table.
    pub idtr: TableRegister,
    /// Where the program starts.
    pub rip: u64,
    /// Top of the CPU's stack.
    pub rsp: u64,
    /// RDI: the number of the CPU.
    pub rdi: u64,
}

/// The descriptors of the GDT below the task-state segments, by index. SDM volume 3, 3.4.5 "Segment Descriptors".
const DESCRIPTORS: [u64; 9] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x00cf_9b00_0000_ffff,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
];

/// Present, writable, accessible to user mode. SDM volume 3, 4.5 "4-Level Paging and 5-Level Paging".
const PAGE: u64 = 7;
/// A 2-MiB page: PS in a page-directory entry.
const LARGE: u64 = PAGE | 1 << 7;

/// The memory an environment takes for itself, which a program must leave alone until it has tables of its own.
pub fn reserved(mode: Mode) -> Range<u64> {
    match mode {
        Mode::Real16 => 0..0x500,
        Mode::Protected32 => GDT..END,
        Mode::Long64 => PAGE_TABLES..END,
    }
}

fn stack(mode: Mode, vcpu: u32) -> u64 {
    match mode {
        Mode::Real16 => REAL_STACK - u64::from(vcpu) * 0x100,
        Mode::Protected32 | Mode::Long64 => STACK - u64::from(vcpu) * STACK_STRIDE,
    }
}

/// Interrupt gates to the handlers, each a vector and its address. Vectors 3, 4 and those from 32 on may be raised by user mode.
///
/// SDM volume 3, 6.11 "IDT Descriptors", 6.14.1 "64-Bit Mode IDT", 20.1.4 "Interrupt and Exception Handling" (real mode).
fn gates(mode: Mode, handlers: &[(u8, u64)]) -> Vec<(u64, Vec<u8>)> {
    let user = |vector: u8| if matches!(vector, 3 | 4 | 32..) { 0xee_u64 } else { 0x8e };
    let gate = |code: u16, vector: u8, handler: u64| {
        (handler & 0xffff) | u64::from(code) << 16 | user(vector) << 40 | (handler >> 16 & 0xffff) << 48
    };
    handlers
        .iter()
        .map(|&(vector, handler)| {
            let index = u64::from(vector);
            match mode {
                Mode::Real16 => (index * 4, (handler as u32 & 0xffff).to_le_bytes().to_vec()),
                Mode::Protected32 => (IDT + index * 8, words([gate(CODE32, vector, handler)])),
                Mode::Long64 => (IDT + index * 16, words([gate(CODE64, vector, handler), handler >> 32])),
            }
        })
        .collect()
}

/// The tables to be written to memory before the program: address and bytes of each.
pub fn tables(mode: Mode, vcpus: u32, handlers: &[(u8, u64)]) -> Vec<(u64, Vec<u8>)> {
    let mut pieces = gates(mode, handlers);
    if mode == Mode::Real16 {
        return pieces;
    }
    let mut gdt: Vec<u64> = DESCRIPTORS.to_vec();
    for vcpu in 0..vcpus {
        let base = TSS + u64::from(vcpu) * TSS_STRIDE;
        gdt.extend([task_descriptor(base), 0]);
        let top = stack(mode, vcpu);
        let mut task = [0_u8; 0x68];
        if mode == Mode::Long64 {
            // RSP0. SDM volume 3, 7.7 "Task Management in 64-bit Mode".
            task[4..12].copy_from_slice(&top.to_le_bytes());
        } else {
            // ESP0 and SS0. SDM volume 3, 7.2.1 "Task-State Segment (TSS)".
            task[4..8].copy_from_slice(&(top as u32).to_le_bytes());
            task[8..10].copy_from_slice(&DATA.to_le_bytes());
        }
        // The I/O permission map lies beyond the limit: no port is open to user mode.
        task[0x66..0x68].copy_from_slice(&0x68_u16.to_le_bytes());
        pieces.push((base, task.to_vec()));
    }
    pieces.push((GDT, words(gdt)));
    if mode == Mode::Long64 {
        let directory = |index: u64| PAGE_TABLES + 0x2000 + index * 0x1000;
        pieces.push((PAGE_TABLES, words([(PAGE_TABLES + 0x1000) | PAGE])));
        pieces.push((PAGE_TABLES + 0x1000, words((0..4).map(|index| directory(index) | PAGE))));
        let large = (0..4 * 512).map(|index| if index == 0 { PAGE_TABLE | PAGE } else { index << 21 | LARGE });
        pieces.push((directory(0), words(large)));
        pieces.push((PAGE_TABLE, words((0..512).map(|index| index << 12 | PAGE))));
    }
    pieces
}

fn words(values: impl IntoIterator<Item = u64>) -> Vec<u8> {
    values.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// A busy TSS of 0x68 bytes, type 11. SDM volume 3, 7.2.2 "TSS Descriptor".
fn task_descriptor(base: u64) -> u64 {
    0x67 | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56
}

/// The state of CPU `vcpu` of `vcpus` at the first instruction of the program.
pub fn entry_state(mode: Mode, entry: u64, vcpu: u32, vcpus: u32, has_handlers: bool) -> EntryState {
    let load = |selector: u16| {
        let descriptor = DESCRIPTORS[usize::from(selector >> 3)];
        Descriptor(descriptor).load(Selector::from_bits(selector))
    };
    let flat = |code: u16| {
        let data = load(DATA);
        [data, load(code), data, data, data, data]
    };
    // After a reset: NW and CD set. A program wants caches on, and ET is always set.
    let cr0 = Cr0::new().with_et(true).with_ne(true);
    let reset_task =
        SegmentRegister { selector: Selector::from_bits(0), base: 0, limit: 0xffff, attributes: isa::segment::Attributes::from_bits(0x8b) };
    let task_selector = TASK + 16 * vcpu as u16;
    let task = Descriptor(task_descriptor(TSS + u64::from(vcpu) * TSS_STRIDE)).load(Selector::from_bits(task_selector));
    let gdtr = TableRegister { base: GDT, limit: (DESCRIPTORS.len() as u32 * 8 + vcpus * 16 - 1) as u16 };
    let sse = Cr4::new().with_osfxsr(true).with_osxmmexcpt(true);
    let state = EntryState {
        cr0,
        cr3: 0,
        cr4: Cr4::new(),
        efer: Efer::new(),
        segments: [SegmentRegister::real_mode(0); 6],
        tr: reset_task,
        gdtr: TableRegister { base: 0, limit: 0xffff },
        idtr: TableRegister { base: 0, limit: 0x3ff },
        rip: entry,
        rsp: stack(mode, vcpu),
        rdi: u64::from(vcpu),
    };
    let idtr = match (has_handlers, mode) {
        (false, _) => TableRegister { base: 0, limit: 0 },
        (true, Mode::Long64) => TableRegister { base: IDT, limit: 256 * 16 - 1 },
        (true, _) => TableRegister { base: IDT, limit: 256 * 8 - 1 },
    };
    let tables = EntryState { tr: task, gdtr, idtr, ..state };
    match mode {
        Mode::Real16 => state,
        Mode::Protected32 => EntryState { cr0: cr0.with_pe(true).with_mp(true).with_wp(true), cr4: sse, segments: flat(CODE32), ..tables },
        Mode::Long64 => EntryState {
            cr0: cr0.with_pe(true).with_mp(true).with_wp(true).with_pg(true),
            cr3: PAGE_TABLES,
            cr4: sse.with_pae(true),
            efer: Efer::new().with_lme(true).with_lma(true).with_nxe(true).with_sce(true),
            segments: flat(CODE64),
            ..tables
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[(u64, Vec<u8>)], address: u64) -> u64 {
        let (start, bytes) = pieces
            .iter()
            .find(|(start, bytes)| (*start..start + bytes.len() as u64).contains(&address))
            .expect("the address lies in a table");
        let at = (address - start) as usize;
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn four_gigabytes_are_mapped_to_themselves() {
        let pieces = tables(Mode::Long64, 1, &[]);
        for address in [0, 0x1000, 0x1f_f123, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xfee0_0300, 0xffff_ffff_u64] {
            let mut table = entry_state(Mode::Long64, 0, 0, 1, false).cr3;
            let mut shift = 39;
            let physical = loop {
                let entry = read(&pieces, table + (address >> shift & 0x1ff) * 8);
                assert_eq!(entry & 7, 7, "{address:#x}");
                let base = entry & 0x000f_ffff_ffff_f000;
                if shift == 12 || entry & 1 << 7 != 0 {
                    break base + (address & ((1 << shift) - 1));
                }
                table = base;
                shift -= 9;
            };
            assert_eq!(physical, address);
        }
    }

    #[test]
    fn pieces_stay_in_what_is_reserved_and_do_not_overlap() {
        for mode in [Mode::Real16, Mode::Protected32, Mode::Long64] {
            let mut pieces = tables(mode, 64, &[(0, 0x10000), (255, 0x10000)]);
            pieces.sort();
            for (start, bytes) in &pieces {
                let reserved = reserved(mode);
                assert!(reserved.start <= *start && start + bytes.len() as u64 <= reserved.end, "{start:#x}");
            }
            for pair in pieces.windows(2) {
                assert!(pair[0].0 + pair[0].1.len() as u64 <= pair[1].0);
            }
        }
    }

    #[test]
    fn segments_are_what_their_names_say() {
        let long = entry_state(Mode::Long64, 0x10000, 1, 2, true);
        let code = long.segments[1];
        assert!(code.attributes.is_code() && code.attributes.l() && !code.attributes.db() && code.attributes.dpl() == 0);
        let task = long.tr;
        assert_eq!((task.base, task.limit, task.attributes.kind(), task.selector.into_bits()), (TSS + TSS_STRIDE, 0x67, 11, TASK + 16));
        assert_eq!(long.gdtr.limit, 9 * 8 + 2 * 16 - 1);
        let protected = entry_state(Mode::Protected32, 0x10000, 0, 1, true);
        assert!(protected.segments[1].attributes.db() && protected.segments[1].limit == 0xffff_ffff);
        for (selector, dpl, long_mode, big) in [
            (CODE64, 0, true, false),
            (USER_CODE32, 3, false, true),
            (USER_CODE64, 3, true, false),
            (CODE32, 0, false, true),
            (CODE16, 0, false, false),
        ] {
            let attributes = Descriptor(DESCRIPTORS[usize::from(selector >> 3)]).load(Selector::from_bits(selector)).attributes;
            assert!(attributes.is_code() && attributes.is_readable(), "{selector:#x}");
            assert_eq!((attributes.dpl(), attributes.l(), attributes.db()), (dpl, long_mode, big), "{selector:#x}");
        }
    }
}
