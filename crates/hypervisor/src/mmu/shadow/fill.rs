//! One page fault: from the way in the guest's tables to an entry that lets the access happen.
//!
//! CR0.WP is always set in the processor. A guest that has it clear may write, as a supervisor, what its tables call read-only: such a page is
//! mapped writable and for supervisors only, until a user program wants it back; with SMEP, which would let the supervisor execute it now, it is
//! not executable. SMAP and protection keys look at the user bit of every access, so that with either such a write is emulated instead.

use super::ShadowTables;
use super::path::{Mode, Path, Rights};
use super::pool::{LEAF, Place, Role};
use isa::paging::{NO_EXECUTE, USER, WRITABLE};
use memory::Memory;

/// The access that faulted, which the guest's tables allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its linear address.
    pub linear: u64,
    /// It writes.
    pub write: bool,
    /// It fetches an instruction.
    pub fetch: bool,
    /// It is a user program's.
    pub user: bool,
    /// The frame may be written: its slot is not read-only.
    pub writable: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The tables say something new: the access is to be tried again.
    Changed,
    /// They said so before: another virtual CPU was faster, or no entry can help. It is `sure` that the processor makes the access now, where
    /// nothing but the entry decides.
    Nothing {
        /// See above.
        sure: bool,
    },
    /// It writes a table of the guest, or what no entry can express.
    Emulate,
}

impl ShadowTables {
    /// Lets an access of a virtual CPU happen.
    pub fn fill(&mut self, memory: &mut Memory, vcpu: usize, path: &Path, wish: Wish) -> Filled {
        let four = self.roots[vcpu].pages[1..] == [None; 3];
        let quarter = if four { 0 } else { (wish.linear >> 30 & 3) as usize };
        let Some(root) = self.roots[vcpu].pages[quarter] else { return Filled::Emulate };
        self.make_room(memory);
        let Some(role) = self.pages[root as usize].as_ref().map(|page| page.role) else { return Filled::Emulate };
        let mut changed = false;
        let mut page = root;
        for level in (2..=role.level).rev() {
            let place = Place::new(page, wish.linear >> (12 + 9 * (u32::from(level) - 1)));
            let below = below(role, path, level - 1, wish.linear);
            let old = self.entry(memory, place);
            let known = self.child(old).filter(|child| self.pages[*child as usize].as_ref().is_some_and(|page| page.role == below));
            page = match known {
                Some(child) => child,
                None => {
                    let Some(child) = self.page(memory, below) else { return Filled::Emulate };
                    self.link(memory, place, child);
                    self.used_table(page);
                    changed = true;
                    child
                }
            };
        }
        let Some(entry) = self.leaf(role, path, wish) else { return Filled::Emulate };
        let place = Place::new(page, wish.linear >> 12);
        if self.entry(memory, place) == entry {
            return if changed { Filled::Changed } else { Filled::Nothing { sure: allows(entry, wish, role.mode) } };
        }
        self.map(memory, place, path.frame, entry);
        self.used_table(page);
        Filled::Changed
    }

    /// A table was used: writes to it are counted anew.
    fn used_table(&mut self, page: u32) {
        if let Some(page) = &mut self.pages[page as usize] {
            page.writes = 0;
        }
    }

    /// The entry for a page; `None` where there is none that would do.
    fn leaf(&self, role: Role, path: &Path, wish: Wish) -> Option<u64> {
        let Rights { mut write, mut user, mut execute } = path.rights;
        let mode = role.mode;
        let writable = wish.writable && !self.is_table(path.frame);
        if wish.write && !writable {
            return None;
        }
        if wish.write && !wish.user && !write && !mode.write_protect {
            if user && (mode.smap || mode.keys) {
                return None;
            }
            execute &= !(user && mode.smep);
            (write, user) = (true, false);
        }
        let write = write && writable && (path.dirty || mode.levels == 0) && (wish.write || !self.logs);
        let rights = if write { WRITABLE } else { 0 } | if user { USER } else { 0 } | if execute { 0 } else { NO_EXECUTE };
        Some(path.frame << 12 | LEAF | path.key | rights)
    }
}

/// Whether it is sure that an entry lets the processor make an access.
fn allows(entry: u64, wish: Wish, mode: Mode) -> bool {
    let Wish { write, fetch, user, .. } = wish;
    let refused = write && entry & WRITABLE == 0 || user && entry & USER == 0 || fetch && entry & NO_EXECUTE != 0;
    !refused && !mode.smep && !mode.smap && !mode.keys
}

/// The name of the page below an entry of a level above it.
fn below(root: Role, path: &Path, level: u8, linear: u64) -> Role {
    let mode = root.mode;
    let shift = 9 * u32::from(level);
    match path.tables[usize::from(level) - 1] {
        Some(table) if level >= path.leaf => {
            let quadrant = if mode.levels == 2 && level == 1 { (linear >> 21 & 1) as u8 } else { 0 };
            Role { frame: table.frame, level, quadrant, direct: false, rights: table.rights, mode }
        }
        _ => {
            let rights = Rights { write: path.rights.write && path.dirty, ..path.rights };
            Role { frame: path.frame >> shift << shift, level, quadrant: 0, direct: true, rights, mode }
        }
    }
}
