//! Intel VMX: the silicon.
