//! What makes guest-physical memory of host-physical: the tables that the processor walks for a guest.

pub mod nested;
