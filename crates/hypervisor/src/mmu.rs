//! What makes guest-physical memory of host-physical: the tables that the processor walks for a guest.
//!
//! Two kinds, twins behind one type: [`nested`] tables map guest-physical addresses, and the processor walks the guest's own tables by itself;
//! [`shadow`] tables map linear addresses, and the processor walks them instead of the guest's.

pub mod nested;
pub mod shadow;

use memory::Memory;
use nested::{Armed, NestedTables, Slot, Tracking};
use serde::{Deserialize, Serialize};
use shadow::ShadowTables;

/// Which kind of tables a guest runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// Nested paging: EPT or NPT.
    Nested,
    /// Shadow paging.
    Shadow,
}

impl Paging {
    /// Its name, as in scenarios.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Shadow => "shadow",
        }
    }
}

/// The tables of a guest.
#[derive(Clone, Debug)]
pub(crate) enum Mmu {
    /// Nested ones.
    Nested(NestedTables),
    /// Shadow ones.
    Shadow(Box<ShadowTables>),
}

impl Mmu {
    /// Which kind they are.
    pub const fn paging(&self) -> Paging {
        match self {
            Self::Nested(_) => Paging::Nested,
            Self::Shadow(_) => Paging::Shadow,
        }
    }

    /// Drops every mapping; how many there were. The caller flushes what processors hold of them.
    pub fn zap(&mut self, memory: &mut Memory) -> u64 {
        match self {
            Self::Nested(tables) => tables.zap(memory),
            Self::Shadow(tables) => tables.zap(memory),
        }
    }

    /// How writes are told now.
    pub fn tracking(&self) -> Tracking {
        match self {
            Self::Nested(tables) => tables.tracking(),
            Self::Shadow(tables) if tables.protects_clean_pages() => Tracking::Protection,
            Self::Shadow(_) => Tracking::None,
        }
    }

    /// Begins to tell writes in a slot; see [`NestedTables::track`]. Shadow tables have no large mappings, and know one way to tell.
    pub fn track(&mut self, memory: &mut Memory, slot: &Slot, tracking: Tracking, divided: &mut dyn FnMut(u64, u64, u32)) {
        match self {
            Self::Nested(tables) => tables.track(memory, slot, tracking, divided),
            Self::Shadow(tables) => {
                debug_assert_eq!(tracking, Tracking::Protection, "no processor logs what shadow tables map");
                tables.protect_clean_pages(memory);
            }
        }
    }

    /// Ends it.
    pub fn stop_tracking(&mut self) {
        match self {
            Self::Nested(tables) => tables.stop_tracking(),
            Self::Shadow(tables) => tables.stop_protecting(),
        }
    }

    /// Makes a page clean again.
    pub fn clean(&mut self, memory: &mut Memory, guest_physical: u64) {
        match self {
            Self::Nested(tables) => {
                tables.clean(memory, guest_physical);
            }
            Self::Shadow(tables) => tables.clean(memory, guest_physical >> 12),
        }
    }

    /// Lets a page be written that a nested table protects; `None` where none maps it.
    pub fn allow_write(&mut self, memory: &mut Memory, guest_physical: u64) -> Option<Armed> {
        match self {
            Self::Nested(tables) => tables.allow_write(memory, guest_physical),
            Self::Shadow(_) => None,
        }
    }
}
