//! The structures of a 64-bit entry: page tables, GDT and stack, in low memory.
//!
//! What is modelled: the first 4 GiB mapped to themselves with 2 MiB pages, present, writable and accessible from user mode, the devices
//! below 4 GiB included; a GDT in the order that SYSCALL and SYSRET need (STAR bits 47:32 = 0x08, bits 63:48 = 0x18). Addresses:
//!
//! | from | to | what |
//! |---|---|---|
//! | 0x1000 | 0x2000 | PML4 table, for CR3 |
//! | 0x2000 | 0x3000 | page-directory-pointer table |
//! | 0x3000 | 0x7000 | four page directories |
//! | 0x7000 | 0x7030 | GDT: null, code, data, 32-bit user code, user data, user code |
//! | 0x7030 | 0x8000 | stack, growing down from the end |

use super::error::{LoadError, Part};
use super::{Entry, layout::Layout};

/// Address of the first structure, the PML4 table.
pub const START: u64 = 0x1000;
/// First address after the structures: the top of the stack.
pub const END: u64 = 0x8000;
/// Selector of the 64-bit code segment.
pub const CODE: u16 = 0x08;
/// Selector of the data segment.
pub const DATA: u16 = 0x10;

const PAGE_DIRECTORY_POINTERS: u64 = 0x2000;
const PAGE_DIRECTORIES: u64 = 0x3000;
const GDT_BASE: u64 = 0x7000;

/// Present, writable, user.
const TABLE: u64 = 0x7;
/// The same and page size.
const LARGE_PAGE: u64 = 0x87;

/// Segment descriptors with base 0, limit 4 GiB and the accessed bit set, so that loading one writes nothing.
const GDT: [u64; 6] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];

/// Places the structures and returns the entry at `rip`.
pub(super) fn enter(layout: &mut Layout, rip: u64) -> Result<Entry, LoadError> {
    const LIMIT: u64 = 1 << 32;
    if rip >= LIMIT {
        return Err(LoadError::EntryOutOfReach { entry: rip, mode: "the loader's 64-bit page tables", limit: LIMIT });
    }
    let mut bytes = vec![0; (GDT_BASE - START) as usize + size_of_val(&GDT)];
    let mut write = |address: u64, value: u64| {
        let at = (address - START) as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    write(START, PAGE_DIRECTORY_POINTERS | TABLE);
    for directory in 0..4 {
        let address = PAGE_DIRECTORIES + 0x1000 * directory;
        write(PAGE_DIRECTORY_POINTERS + 8 * directory, address | TABLE);
        for entry in 0..512 {
            write(address + 8 * entry, directory << 30 | entry << 21 | LARGE_PAGE);
        }
    }
    for (address, descriptor) in (GDT_BASE..).step_by(8).zip(GDT) {
        write(address, descriptor);
    }
    layout.place(Part::LongModeStructures, START, END - START, &bytes)?;
    Ok(Entry::Long64 { rip, rsp: END, cr3: START, gdt_base: GDT_BASE, gdt_limit: size_of_val(&GDT) as u16 - 1, code: CODE, data: DATA })
}
