//! The way from the guest's CR3 to a page, as the guest's own tables say it.
//!
//! Modelled: which tables a walk went through, with the rights gathered in front of each, in all paging modes. Whether a walk is allowed, what
//! it faults with and which flags it sets is the core's to say (`emulator.rs` walks with the spare processor); this module reads a way that the
//! core has just walked once more, to learn where it went, and decides nothing.

use crate::mmu::nested::Slots;
use crate::state::Registers;
use isa::paging::{ADDRESS, DIRTY, NO_EXECUTE, PAGE_SIZE, PRESENT, USER, WRITABLE};
use memory::Memory;
use serde::{Deserialize, Serialize};

/// Rights to a page, or gathered on the way to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rights {
    /// Writes.
    pub write: bool,
    /// Accesses of user programs.
    pub user: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self { write: true, user: true, execute: true };

    /// What is left of them below an entry.
    const fn below(self, entry: u64, wide: bool) -> Self {
        Self {
            write: self.write && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            execute: self.execute && !(wide && entry & NO_EXECUTE != 0),
        }
    }
}

/// The paging of a guest as far as the meaning of its tables depends on it: part of the name of every shadow page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mode {
    /// Levels of the guest's tables: 0 without paging, 2 for 32-bit paging, 3 for PAE, 4.
    pub levels: u8,
    /// CR4.PSE: 32-bit paging has pages of 4 MiB.
    pub large: bool,
    /// EFER.NXE.
    pub no_execute: bool,
    /// CR0.WP.
    pub write_protect: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP.
    pub smap: bool,
    /// CR4.PKE.
    pub keys: bool,
}

impl Mode {
    /// That of a guest.
    pub fn of(registers: &Registers) -> Self {
        let (cr0, cr4, efer) = (registers.cr0, registers.cr4, registers.efer);
        let levels = match (cr0.pg(), cr4.pae(), efer.lma()) {
            (false, ..) => 0,
            (true, false, _) => 2,
            (true, true, false) => 3,
            (true, true, true) => 4,
        };
        let pages = levels != 0;
        Self {
            levels,
            large: levels == 2 && cr4.pse(),
            no_execute: pages && levels != 2 && efer.nxe(),
            write_protect: pages && cr0.wp(),
            smep: pages && cr4.smep(),
            smap: pages && cr4.smap(),
            keys: levels == 4 && cr4.pke(),
        }
    }

    /// Bytes of an entry of the guest's tables.
    pub const fn entry_bytes(self) -> u64 {
        if self.levels == 2 { 4 } else { 8 }
    }
}

/// A table of the guest that a way goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The frame it lies in.
    pub frame: u64,
    /// The rights that the entries above it leave.
    pub rights: Rights,
}

/// A way through the guest's tables to the 4 KiB around a linear address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The guest's tables by level, the lowest first; none below the level that maps the page.
    pub tables: [Option<Table>; 4],
    /// The level whose table maps the page: 1 for a page of 4 KiB; 5 without paging, where no table does.
    pub leaf: u8,
    /// The guest-physical frame.
    pub frame: u64,
    /// The rights that all entries together leave.
    pub rights: Rights,
    /// The page is marked dirty.
    pub dirty: bool,
    /// The protection key, in its place in an entry.
    pub key: u64,
}

/// Bits 62:59 of an entry: the protection key.
pub(super) const KEY: u64 = 0xf << 59;

/// An entry of the guest's tables. What no slot holds reads as ones, as for the core.
fn entry_at(memory: &Memory, slots: &Slots, address: u64, bytes: u64) -> u64 {
    let value = match slots.at(address) {
        Some(_) if bytes == 4 => memory.read_u32(address).map(u64::from).ok(),
        Some(_) => memory.read_u64(address).ok(),
        None => None,
    };
    value.unwrap_or(if bytes == 4 { u64::from(u32::MAX) } else { u64::MAX })
}

impl Path {
    /// The way to a linear address; `None` where an entry is not present, which a walk just before would have found.
    pub fn read(memory: &Memory, slots: &Slots, registers: &Registers, linear: u64) -> Option<Self> {
        let mode = Mode::of(registers);
        let mut path = Self { tables: [None; 4], leaf: 5, frame: linear >> 12, rights: Rights::ALL, dirty: true, key: 0 };
        let mut table = match mode.levels {
            0 => return Some(path),
            2 => registers.cr3 & 0xffff_f000,
            3 => registers.pdptes[(linear >> 30 & 3) as usize] & ADDRESS,
            _ => registers.cr3 & ADDRESS,
        };
        let bytes = mode.entry_bytes();
        for level in (1..=if mode.levels == 4 { 4 } else { 2 }).rev() {
            let (shift, mask) = if mode.levels == 2 { (12 + 10 * (level - 1), 0x3ff) } else { (12 + 9 * (level - 1), 0x1ff) };
            path.tables[level - 1] = Some(Table { frame: table >> 12, rights: path.rights });
            let entry = entry_at(memory, slots, table + (linear >> shift & mask) * bytes, bytes);
            if entry & PRESENT == 0 {
                return None;
            }
            path.rights = path.rights.below(entry, bytes == 8);
            let large = level > 1 && entry & PAGE_SIZE != 0 && (mode.levels != 2 || mode.large);
            if level > 1 && !large {
                table = entry & ADDRESS;
                continue;
            }
            let inside = (1 << shift) - 1;
            let mut base = entry & ADDRESS & !inside;
            if mode.levels == 2 && large {
                // PSE-36: bits 20:13 are bits 39:32 of the address.
                base |= (entry >> 13 & 0xff) << 32;
            }
            path.leaf = level as u8;
            path.frame = (base | linear & inside) >> 12;
            path.dirty = entry & DIRTY != 0;
            path.key = if mode.keys { entry & KEY } else { 0 };
            return Some(path);
        }
        None
    }
}
