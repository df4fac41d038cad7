//! Checks on the guest-state area, one module for each section of SDM 27.3.1 "Checks on the Guest State Area".

pub mod control_registers;
pub mod non_register;
pub mod pdpte;
pub mod rip_rflags;
pub mod segments;
pub mod tables;
