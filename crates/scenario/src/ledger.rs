//! The ledger of a move between two CPU models, for whoever prints it.

pub use hypervisor::guest_cpu::{GuestCpu, Levelling};
pub use hypervisor::ledger::{Cell, Entry, Table, TableRow, Verdict, table};

/// The feature of a name in files.
pub fn feature(name: &str) -> Option<isa::cpuid::Feature> {
    isa::cpuid::Feature::from_name(name)
}
