//! The local APIC.

/// An interprocessor interrupt on its way.
#[derive(Clone, Copy, Debug)]
pub struct IcrMessage;

/// The local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic;

impl LocalApic {
    /// One APIC.
    pub fn new(_id: u32, _bootstrap: bool) -> Self {
        Self
    }
}
