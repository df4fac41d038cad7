//! Which tables each virtual CPU walks: the one at the top of four levels, or the four below the entries of PAE paging.
//!
//! A guest outside of long mode runs with PAE paging, whatever its own is: SDM vol 3, 4.4.1 "PDPTE Registers" and APM vol 2, 15.25.10 "Legacy
//! PAE Mode" have the processor read the four entries at VM entry, so that they lie in memory for each virtual CPU.

use super::ShadowTables;
use super::path::{Mode, Rights};
use super::pool::Role;
use crate::state::Registers;
use isa::paging::{ADDRESS, PRESENT};
use memory::Memory;
use serde::{Deserialize, Serialize};

/// What a virtual CPU walks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Roots {
    /// The names of the pages.
    pub roles: Option<[Option<Role>; 4]>,
    /// The pages.
    pub pages: [Option<u32>; 4],
}

/// The names of the pages that a guest's walks begin at: one, or one for each GiB.
fn roles(registers: &Registers) -> [Option<Role>; 4] {
    let mode = Mode::of(registers);
    let table = |frame: u64, level: u8, quadrant: u8| Role { frame, level, quadrant, direct: false, rights: Rights::ALL, mode };
    let quarter = |number: usize| {
        let quadrant = number as u8;
        match mode.levels {
            0 => Some(Role { direct: true, quadrant: 0, ..table((number as u64) << 18, 2, 0) }),
            2 => Some(table((registers.cr3 & 0xffff_f000) >> 12, 2, quadrant)),
            _ => {
                let entry = registers.pdptes[number];
                (entry & PRESENT != 0).then(|| table((entry & ADDRESS) >> 12, 2, 0))
            }
        }
    };
    match mode.levels {
        4 => [Some(table((registers.cr3 & ADDRESS) >> 12, 4, 0)), None, None, None],
        _ => [0, 1, 2, 3].map(quarter),
    }
}

impl ShadowTables {
    /// Has a virtual CPU walk what its registers say. The value for its CR3, if that is another one now or the entries behind it are.
    pub fn turn(&mut self, memory: &mut Memory, vcpu: usize, registers: &Registers) -> Option<u64> {
        let roles = roles(registers);
        if self.roots[vcpu].roles == Some(roles) {
            return None;
        }
        // What it walked until now is not among what makes room: it may be the same page.
        self.make_room(memory);
        self.leave(vcpu);
        let mut pages = [None; 4];
        for (page, role) in pages.iter_mut().zip(roles) {
            *page = role.and_then(|role| self.page(memory, role));
            if let Some(found) = page.and_then(|number: u32| self.pages[number as usize].as_mut()) {
                found.roots += 1;
            }
        }
        self.roots[vcpu] = super::Roots { roles: Some(roles), pages };
        if Mode::of(registers).levels == 4 {
            return pages[0].map(|page| self.address(page));
        }
        let quartet = self.quartets + vcpu as u64 * 32;
        for (index, page) in pages.into_iter().enumerate() {
            // SDM vol 3, Table 4-8: an entry of PAE paging's first level is its address and the present bit.
            let entry = page.map_or(0, |page| self.address(page) | PRESENT);
            let written = memory.write_u64(quartet + 8 * index as u64, entry);
            debug_assert!(written.is_ok(), "the tables are in memory");
        }
        Some(quartet)
    }

    /// Has a virtual CPU walk nothing.
    pub fn leave(&mut self, vcpu: usize) {
        for number in std::mem::take(&mut self.roots[vcpu]).pages.into_iter().flatten() {
            if let Some(page) = &mut self.pages[number as usize] {
                page.roots -= 1;
            }
        }
    }
}
