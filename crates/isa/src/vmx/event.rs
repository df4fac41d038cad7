//! The formats in which VMX tells of events: interruption information and IDT-vectoring information.
//!
//! Modelled: the VM-entry interruption-information field, the VM-exit interruption-information field and the IDT-vectoring information
//! field, which share one layout. Not modelled: the event data of FRED, which the pinned manual does not have.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Kind of event: bits 10:8 of the interruption-information formats, SDM 25.8.3 "VM-Entry Controls for Event Injection".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum InterruptionType {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// Reserved; injecting it fails VM entry.
    Reserved = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Hardware exception, such as #PF.
    HardwareException = 3,
    /// Software interrupt: INT n.
    SoftwareInterrupt = 4,
    /// Privileged software exception: INT1.
    PrivilegedSoftwareException = 5,
    /// Software exception: INT3 or INTO.
    SoftwareException = 6,
    /// Other event: on VM entry, a pending MTF VM exit.
    OtherEvent = 7,
}

impl InterruptionType {
    const fn from_bits(bits: u8) -> InterruptionType {
        match bits & 7 {
            0 => InterruptionType::ExternalInterrupt,
            1 => InterruptionType::Reserved,
            2 => InterruptionType::Nmi,
            3 => InterruptionType::HardwareException,
            4 => InterruptionType::SoftwareInterrupt,
            5 => InterruptionType::PrivilegedSoftwareException,
            6 => InterruptionType::SoftwareException,
            _ => InterruptionType::OtherEvent,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }

    /// True for the kinds that an instruction raises on purpose, whose delivery pushes the address after the instruction.
    ///
    /// SDM 27.6.1 "Vectored-Event Injection".
    pub const fn is_software(self) -> bool {
        matches!(
            self,
            InterruptionType::SoftwareInterrupt | InterruptionType::PrivilegedSoftwareException | InterruptionType::SoftwareException
        )
    }
}

/// The interruption-information format, SDM 25.8.3 "VM-Entry Controls for Event Injection", 25.9.2 "Information for VM Exits Due to
/// Vectored Events" and 25.9.3 "Information for VM Exits That Occur During Event Delivery".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptionInformation {
    /// Vector of the interrupt or exception.
    pub vector: u8,
    /// Kind of event.
    #[bits(3)]
    pub interruption_type: InterruptionType,
    /// An error code goes with it (on VM entry: is to be delivered).
    pub error_code_valid: bool,
    /// NMI unblocking due to IRET (VM-exit information only; undefined in IDT-vectoring information, reserved on VM entry).
    pub nmi_unblocking_due_to_iret: bool,
    /// Reserved; not 0 fails VM entry.
    #[bits(18)]
    pub reserved: u32,
    /// The field holds an event.
    pub valid: bool,
}

impl InterruptionInformation {
    /// A valid event of this kind and vector, with or without an error code.
    pub const fn event(interruption_type: InterruptionType, vector: u8, error_code_valid: bool) -> InterruptionInformation {
        InterruptionInformation::new()
            .with_vector(vector)
            .with_interruption_type(interruption_type)
            .with_error_code_valid(error_code_valid)
            .with_valid(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_words_that_hypervisors_print() {
        use InterruptionType::*;
        let rows = [
            (InterruptionInformation::event(HardwareException, 6, false), 0x8000_0306),
            (InterruptionInformation::event(HardwareException, 14, true), 0x8000_0b0e),
            (InterruptionInformation::event(Nmi, 2, false), 0x8000_0202),
            (InterruptionInformation::event(ExternalInterrupt, 0xec, false), 0x8000_00ec),
            (InterruptionInformation::event(SoftwareException, 3, false), 0x8000_0603),
        ];
        for (event, word) in rows {
            assert_eq!(event.into_bits(), word);
            assert_eq!(InterruptionInformation::from_bits(word), event);
        }
    }

    #[test]
    fn every_type_goes_both_ways() {
        for bits in 0..8 {
            assert_eq!(InterruptionType::from_bits(bits).into_bits(), bits);
        }
    }
}
