//! Whom a message reaches.
//!
//! Source: SDM 11.6.2 "Determining IPI Destination", 11.12.10 "Determining IPI Destination in x2APIC Mode".
//! What is modelled: physical and logical destinations in the flat and the cluster model and in x2APIC mode, shorthands, and lowest-priority
//! arbitration by processor priority, the lowest number winning a tie.

use isa::apic::{ApicMessage, BROADCAST, DeliveryMode};

use super::{IcrMessage, LocalApic, Mode, Shorthand};

/// The broadcast destination of an 8-bit identifier.
const XAPIC_BROADCAST: u32 = 0xff;
/// The destination format (bits 31:28) of the flat model.
const FLAT: u32 = 0xf;

impl LocalApic {
    /// Whether a message with this destination is for this APIC.
    pub fn matches(&self, destination: u32, logical: bool) -> bool {
        let mode = self.mode();
        let everybody = destination == BROADCAST || mode == Mode::Xapic && destination == XAPIC_BROADCAST;
        match (mode, logical) {
            (Mode::Disabled, _) => false,
            _ if everybody => true,
            (Mode::Xapic | Mode::X2apic, false) => destination == self.id,
            (Mode::Xapic, true) => {
                let own = self.logical_destination >> 24;
                if self.destination_format >> 28 == FLAT {
                    own & destination & 0xff != 0
                } else {
                    own >> 4 == destination >> 4 && own & destination & 0xf != 0
                }
            }
            (Mode::X2apic, true) => {
                let own = self.logical_destination;
                own >> 16 == destination >> 16 && own & destination & 0xffff != 0
            }
        }
    }
}

/// The numbers of the APICs that take `message` from an I/O APIC, in ascending order.
pub fn targets<'a>(message: &ApicMessage, apics: impl IntoIterator<Item = &'a LocalApic>) -> Vec<usize> {
    let addressed = apics.into_iter().enumerate().filter(|(_, apic)| apic.matches(message.destination, message.logical));
    arbitrate(message, addressed)
}

/// The numbers of the APICs that take `message` from APIC number `sender`, in ascending order.
pub fn ipi_targets<'a>(message: &IcrMessage, sender: usize, apics: impl IntoIterator<Item = &'a LocalApic>) -> Vec<usize> {
    let addressed = apics.into_iter().enumerate().filter(|(number, apic)| match message.shorthand {
        Shorthand::None => apic.matches(message.message.destination, message.message.logical),
        Shorthand::OneSelf => *number == sender,
        Shorthand::AllIncludingSelf => apic.mode() != Mode::Disabled,
        Shorthand::AllExcludingSelf => *number != sender && apic.mode() != Mode::Disabled,
    });
    arbitrate(&message.message, addressed)
}

fn arbitrate<'a>(message: &ApicMessage, addressed: impl Iterator<Item = (usize, &'a LocalApic)>) -> Vec<usize> {
    if message.mode != DeliveryMode::LowestPriority {
        return addressed.map(|(number, _)| number).collect();
    }
    addressed
        .filter(|(_, apic)| apic.software_enabled())
        .min_by_key(|(number, apic)| (apic.processor_priority(), *number))
        .map(|(number, _)| number)
        .into_iter()
        .collect()
}
