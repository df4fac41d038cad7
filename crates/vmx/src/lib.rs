//! Intel VMX: the silicon.
//!
//! Modelled: VMX operation as SDM volume 3, chapters 24 to 31 describe it: the instructions, the VMCS, the checks of VM entry, VM exits with
//! all their information, EPT, VPIDs. Not modelled, and therefore not offered in the capability MSRs: SMM monitors, enclaves, posted
//! interrupts, VMCS shadowing, PML, CET state and what [`capabilities`] leaves out.

pub mod checks;
pub mod vmcs;
