//! The text that Linux prints of a VMCS or VMCB when an entry failed.
//! (placeholder)
use crate::state::{ReadError, State};
use models::{CpuModel, Vendor};
/// Vendor.
pub fn vendor(_text: &str) -> Option<Vendor> {
    None
}
/// Read.
pub fn read(_t: &str, _v: Vendor, _c: Option<&'static CpuModel>) -> Result<State, ReadError> {
    Err(ReadError::new(0..0, ""))
}
