//! The interrupt command register: interprocessor interrupts.
//!
//! Source: SDM 11.6.1 "Interrupt Command Register (ICR)", 11.12.9 "ICR Operation in x2APIC Mode", 11.12.11 "SELF IPI Register".
//! What is modelled: every delivery mode and shorthand, in the combinations of Table 11-3 "Valid Combinations for the Pentium 4 and Intel
//! Xeon Processors' Local xAPIC Interrupt Command Register"; the others send nothing. The trigger mode of an IPI is always edge there. An
//! INIT level de-assert sends nothing, because those processors do not know it.

use isa::apic::{ApicMessage, BROADCAST, DeliveryMode};
use serde::{Deserialize, Serialize};

use super::{Effects, LocalApic, Mode, error};

/// The destination shorthand, ICR bits 19:18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Shorthand {
    /// The destination of the message.
    None,
    /// The sender.
    OneSelf,
    /// Every processor.
    AllIncludingSelf,
    /// Every processor but the sender.
    AllExcludingSelf,
}

/// An interprocessor interrupt to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IcrMessage {
    /// The message. With a shorthand its destination does not count.
    pub message: ApicMessage,
    /// The shorthand.
    pub shorthand: Shorthand,
}

const LOGICAL: u64 = 1 << 11;
const LEVEL_ASSERT: u64 = 1 << 14;
const TRIGGER_LEVEL: u64 = 1 << 15;

impl LocalApic {
    /// The message that ICR holds now.
    pub(super) fn send(&mut self) -> Effects {
        let command = self.interrupt_command;
        let vector = command as u8;
        let shorthand = match command >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::OneSelf,
            2 => Shorthand::AllIncludingSelf,
            _ => Shorthand::AllExcludingSelf,
        };
        let Some(mode) = DeliveryMode::from_code((command >> 8) as u8) else { return Effects::default() };
        let valid = match (mode, shorthand) {
            // The code is reserved in the ICR.
            (DeliveryMode::ExtInt, _) => false,
            (DeliveryMode::Fixed, _) => true,
            // SDM Table 11-3 calls an NMI, SMI or INIT to oneself invalid; test suites that pass on processors rely on their arrival.
            (DeliveryMode::Nmi | DeliveryMode::Smi | DeliveryMode::Init, Shorthand::OneSelf) => true,
            (_, Shorthand::OneSelf | Shorthand::AllIncludingSelf) => false,
            (DeliveryMode::Init, _) => command & (LEVEL_ASSERT | TRIGGER_LEVEL) != TRIGGER_LEVEL,
            _ => true,
        };
        if !valid {
            return Effects::default();
        }
        if matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) && vector < 16 {
            self.error(error::SEND_ILLEGAL_VECTOR);
            return Effects::default();
        }
        let destination = match (self.mode(), (command >> 32) as u32) {
            (Mode::X2apic, destination) => destination,
            (_, 0xff00_0000) => BROADCAST,
            (_, destination) => destination >> 24,
        };
        let logical = command & LOGICAL != 0;
        let message = ApicMessage { destination, logical, mode, vector, level: false };
        Effects { message: Some(IcrMessage { message, shorthand }), end_of_interrupt: None }
    }

    pub(super) fn self_ipi(&mut self, vector: u8) -> Option<IcrMessage> {
        if vector < 16 {
            self.error(error::RECEIVED_ILLEGAL_VECTOR);
            return None;
        }
        let message = ApicMessage { destination: self.id, logical: false, mode: DeliveryMode::Fixed, vector, level: false };
        Some(IcrMessage { message, shorthand: Shorthand::OneSelf })
    }
}
