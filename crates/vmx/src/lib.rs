//! Intel VMX: the silicon.
//!
//! Modelled: VMX operation as SDM volume 3, chapters 24 to 31 describe it: the instructions, the VMCS, the checks of VM entry, VM exits with
//! all their information, EPT, VPIDs, the virtual APIC. Not modelled, and therefore not offered in the capability MSRs: SMM monitors, enclaves,
//! CET state and what [`capabilities`] leaves out.

mod address_space;
pub mod capabilities;
pub mod checks;
mod contexts;
mod entry;
mod ept;
mod exit;
mod exit_information;
mod host;
mod instructions;
pub mod intercept;
mod msr_list;
mod record;
mod segments;
mod silicon;
mod virtual_apic;
pub mod vmcs;

pub use entry::EntryOutcome;
pub use record::{RefusedRecord, VmcsRecord, VmxRecord};
pub use silicon::{Operation, Refused, VmFail, Vmx};
