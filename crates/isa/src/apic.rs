//! The words in which interrupt controllers talk: delivery modes and the messages of the interrupt bus.
//!
//! What is modelled: SDM vol 3, 11.6.1 "Interrupt Command Register (ICR)" and 11.11.1 "Message Address Register Format", which the 82093AA
//! I/O APIC's redirection entries share. What is not: message-signalled interrupts as memory writes.

use serde::{Deserialize, Serialize};

/// How an interrupt message asks its target to behave (ICR, LVT, redirection entry and MSI bits 10:8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum DeliveryMode {
    /// The vector, to every addressed processor.
    Fixed = 0,
    /// The vector, to the one addressed processor that runs at the lowest priority.
    LowestPriority = 1,
    /// A system management interrupt.
    Smi = 2,
    /// A non-maskable interrupt.
    Nmi = 4,
    /// An INIT: the processor waits for a start-up message.
    Init = 5,
    /// A start-up message; the vector is the number of the 4 KiB page of the first instruction.
    Startup = 6,
    /// The vector comes from the 8259 pair, in an interrupt-acknowledge cycle.
    ExtInt = 7,
}

impl DeliveryMode {
    /// The mode with this three-bit code; `None` for the reserved code 3.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::Startup),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// The destination that means every processor, whatever the width of its APIC's identifier.
pub const BROADCAST: u32 = u32::MAX;

/// One message on the interrupt bus, from an I/O APIC or from another processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ApicMessage {
    /// APIC identifier (physical) or logical identifier; [`BROADCAST`] for everybody.
    pub destination: u32,
    /// Whether `destination` is logical.
    pub logical: bool,
    /// What the target is to do.
    pub mode: DeliveryMode,
    /// The vector, for the modes that carry one.
    pub vector: u8,
    /// Whether the trigger mode is level: the target's end of interrupt is broadcast to the I/O APIC.
    pub level: bool,
}
