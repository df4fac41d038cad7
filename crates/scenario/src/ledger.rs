//! The ledger of a move between two CPU models, for whoever prints it.

pub use hypervisor::guest_cpu::{GuestCpu, Levelling};
use isa::cpuid::Feature;

pub use hypervisor::ledger::{Cell, Entry, Table, TableRow, Verdict, table};

/// The feature of a name in files.
///
/// # Errors
/// Says which name may have been meant.
pub fn feature(name: &str) -> Result<Feature, String> {
    Feature::from_name(name).ok_or_else(|| {
        let names: Vec<String> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        match crate::diagnostic::nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("unknown feature `{name}`; did you mean `{near}`?"),
            None => format!("unknown feature `{name}`; there are {}", names.join(", ")),
        }
    })
}
