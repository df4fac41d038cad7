//! The format of EVENTINJ and EXITINTINFO: an event that VMRUN delivers, or whose delivery #VMEXIT interrupted.
//!
//! Manual: APM volume 2, 15.20 "Event Injection" and 15.7.2 "Intercepts During IDT Interrupt Delivery".
//! What is modelled: the whole 64-bit word. What is not: which combinations VMRUN refuses, which is the `svm` crate's.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kind of an event, bits 10:8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventType {
    /// 0: external or virtual interrupt.
    Interrupt = 0,
    /// 2: non-maskable interrupt; the vector field is ignored.
    Nmi = 2,
    /// 3: exception, a fault or a trap.
    Exception = 3,
    /// 4: software interrupt, the INTn instruction.
    SoftwareInterrupt = 4,
    /// 1, 5, 6 or 7: reserved.
    Reserved = 7,
}

impl EventType {
    /// The encoding.
    #[must_use]
    pub const fn into_bits(self) -> u8 {
        self as u8
    }

    /// The kind of an encoding of 3 bits; what is reserved is [`EventType::Reserved`].
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Interrupt,
            2 => Self::Nmi,
            3 => Self::Exception,
            4 => Self::SoftwareInterrupt,
            _ => Self::Reserved,
        }
    }
}

/// An event in EVENTINJ (0A8h) or EXITINTINFO (088h).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EventInformation {
    /// VECTOR, bits 7:0: the IDT vector, ignored for an NMI.
    pub vector: u8,
    /// TYPE, bits 10:8.
    #[bits(3)]
    pub event_type: EventType,
    /// EV, bit 11: an error code is pushed.
    pub error_code_valid: bool,
    #[bits(19)]
    __: u32,
    /// V, bit 31: the word holds an event.
    pub valid: bool,
    /// ERRORCODE, bits 63:32.
    pub error_code: u32,
}

impl EventInformation {
    /// A valid event without an error code.
    #[must_use]
    pub const fn event(event_type: EventType, vector: u8) -> Self {
        Self::new().with_valid(true).with_event_type(event_type).with_vector(vector)
    }

    /// A valid exception, with its error code if it has one.
    #[must_use]
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        let event = Self::event(EventType::Exception, vector);
        match error_code {
            Some(code) => event.with_error_code_valid(true).with_error_code(code),
            None => event,
        }
    }

    /// The low half, as the kernel's trace prints it in `intr_info`.
    #[must_use]
    pub const fn low(self) -> u32 {
        self.into_bits() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_manuals() {
        assert_eq!(EventInformation::exception(14, Some(2)).into_bits(), 0x0000_0002_8000_0b0e);
        assert_eq!(EventInformation::exception(6, None).into_bits(), 0x8000_0306);
        assert_eq!(EventInformation::event(EventType::Nmi, 2).into_bits(), 0x8000_0202);
        assert_eq!(EventInformation::event(EventType::Interrupt, 0x30).into_bits(), 0x8000_0030);
        assert_eq!(EventInformation::event(EventType::SoftwareInterrupt, 0x80).into_bits(), 0x8000_0480);
    }

    #[test]
    fn reserved_types_are_one_kind() {
        for bits in [1, 5, 6, 7] {
            assert_eq!(EventType::from_bits(bits), EventType::Reserved);
        }
    }
}
