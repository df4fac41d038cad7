//! The 82093AA I/O APIC: 24 inputs, each with a redirection entry.
//!
//! Source: Intel 82093AA datasheet (290566), section 3.0 "Register Description".
//! What is modelled: the register window, edge and level triggering, polarity, remote IRR with re-delivery, all delivery modes.
//! A message is accepted as soon as it is sent, so the delivery status bit always reads idle. What is not: the EOI register and the
//! MSI capability of later parts.

use isa::apic::{ApicMessage, BROADCAST, DeliveryMode};
use serde::{Deserialize, Serialize};

/// Number of inputs.
pub const PINS: usize = 24;
/// Guest-physical address of the register page.
pub const BASE: u64 = 0xfec0_0000;

/// Version 0x11, highest redirection entry 23.
const VERSION: u32 = 0x0017_0011;

const POLARITY_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger, mask, destination.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ioapic {
    select: u8,
    id: u8,
    redirection: [u64; PINS],
    lines: u32,
    messages: Vec<ApicMessage>,
}

impl Default for Ioapic {
    fn default() -> Self {
        Self { select: 0, id: 0, redirection: [MASKED; PINS], lines: 0, messages: Vec::new() }
    }
}

impl Ioapic {
    /// Reads the register at `offset` in the page: 0x00 the selector, 0x10 the window; 0 elsewhere.
    pub fn read(&self, offset: u64) -> u32 {
        match offset & !3 {
            0x00 => u32::from(self.select),
            0x10 => match self.select {
                // The arbitration identifier is loaded whenever the identifier is written, and there is no bus to rotate it.
                0x00 | 0x02 => u32::from(self.id) << 24,
                0x01 => VERSION,
                select => match self.redirection.get(usize::from(select.wrapping_sub(0x10) / 2)) {
                    Some(entry) if select >= 0x10 => (entry >> (32 * (select & 1))) as u32,
                    _ => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes the register at `offset`.
    pub fn write(&mut self, offset: u64, value: u32) {
        match (offset & !3, self.select) {
            (0x00, _) => self.select = value as u8,
            (0x10, 0x00) => self.id = (value >> 24) as u8 & 0x0f,
            (0x10, select @ 0x10..) => {
                let pin = usize::from((select - 0x10) / 2);
                let Some(entry) = self.redirection.get_mut(pin) else {
                    return;
                };
                let shift = 32 * u32::from(select & 1);
                let written = *entry & !(0xffff_ffff << shift) | u64::from(value) << shift;
                *entry = written & WRITABLE | *entry & REMOTE_IRR;
                if *entry & LEVEL == 0 {
                    // The bit is undefined for edges; software clears a stuck one by a visit to edge mode.
                    *entry &= !REMOTE_IRR;
                }
                self.deliver_level(pin);
            }
            _ => {}
        }
    }

    /// Drives input `pin`; out of range is ignored.
    pub fn set_line(&mut self, pin: usize, high: bool) {
        let Some(entry) = self.redirection.get(pin).copied() else {
            return;
        };
        let asserted_before = self.asserted(pin);
        self.lines = self.lines & !(1 << pin) | u32::from(high) << pin;
        if !asserted_before && self.asserted(pin) && entry & (LEVEL | MASKED) == 0 {
            // An edge on a masked input is neither delivered nor kept.
            self.send(pin);
        }
        if !self.asserted(pin) && !carries_vector(entry) {
            self.redirection[pin] &= !REMOTE_IRR;
        }
        self.deliver_level(pin);
    }

    /// Whether input `pin` is unmasked.
    pub fn unmasked(&self, pin: usize) -> bool {
        self.redirection.get(pin).is_some_and(|entry| entry & MASKED == 0)
    }

    /// An end of interrupt that a local APIC broadcast: level entries of that vector may deliver again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = &mut self.redirection[pin];
            if *entry as u8 == vector && *entry & LEVEL != 0 {
                *entry &= !REMOTE_IRR;
                self.deliver_level(pin);
            }
        }
    }

    /// The messages since the last call, in order.
    pub fn take_messages(&mut self) -> Vec<ApicMessage> {
        std::mem::take(&mut self.messages)
    }

    /// Whether messages wait.
    pub fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    fn asserted(&self, pin: usize) -> bool {
        (self.lines >> pin & 1 != 0) != (self.redirection[pin] & POLARITY_LOW != 0)
    }

    fn deliver_level(&mut self, pin: usize) {
        let entry = self.redirection[pin];
        if entry & LEVEL != 0 && entry & (MASKED | REMOTE_IRR) == 0 && self.asserted(pin) {
            self.send(pin);
        }
    }

    fn send(&mut self, pin: usize) {
        let entry = &mut self.redirection[pin];
        // Code 3 is reserved, and a start-up message cannot come from an input: nothing is sent.
        let Some(mode) = DeliveryMode::from_code((*entry >> 8) as u8) else {
            return;
        };
        if mode == DeliveryMode::Startup {
            return;
        }
        let destination = match (*entry >> 56) as u32 {
            0xff => BROADCAST,
            destination => destination,
        };
        let level = *entry & LEVEL != 0;
        if level {
            // For a mode without a vector this only marks the edge as seen, until the line falls.
            *entry |= REMOTE_IRR;
        }
        self.messages.push(ApicMessage {
            destination,
            logical: *entry & 1 << 11 != 0,
            mode,
            vector: *entry as u8,
            level: level && carries_vector(*entry),
        });
    }
}

/// Whether the delivery mode of `entry` carries a vector. The other modes are edge-triggered even when programmed as level: only these
/// wait for an end of interrupt.
fn carries_vector(entry: u64) -> bool {
    matches!(DeliveryMode::from_code((entry >> 8) as u8), Some(DeliveryMode::Fixed | DeliveryMode::LowestPriority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ioapic: &mut Ioapic, register: u32, value: u32) {
        ioapic.write(0x00, register);
        ioapic.write(0x10, value);
    }

    fn read(ioapic: &mut Ioapic, register: u32) -> u32 {
        ioapic.write(0x00, register);
        ioapic.read(0x10)
    }

    fn program(ioapic: &mut Ioapic, pin: u32, low: u32, destination: u32) {
        write(ioapic, 0x11 + 2 * pin, destination << 24);
        write(ioapic, 0x10 + 2 * pin, low);
    }

    fn vectors(ioapic: &mut Ioapic) -> Vec<u8> {
        ioapic.take_messages().iter().map(|message| message.vector).collect()
    }

    #[test]
    fn registers() {
        let mut ioapic = Ioapic::default();
        write(&mut ioapic, 0, 0xffff_ffff);
        for (register, expected) in [(0, 0x0f00_0000), (1, 0x0017_0011), (2, 0x0f00_0000), (0x10, 0x1_0000), (0x40, 0), (0x0f, 0)] {
            assert_eq!(read(&mut ioapic, register), expected, "{register:#x}");
        }
        program(&mut ioapic, 23, 0xffff_ffff, 0x5a);
        assert_eq!(read(&mut ioapic, 0x3e), 0x1_afff, "status bits are read-only, the rest reserved");
        assert_eq!(read(&mut ioapic, 0x3f), 0x5a00_0000);
    }

    #[test]
    fn edges_are_sent_once_and_lost_while_masked() {
        let mut ioapic = Ioapic::default();
        program(&mut ioapic, 4, 0x1_0044, 2);
        ioapic.set_line(4, true);
        program(&mut ioapic, 4, 0x0_0044, 2);
        assert_eq!(vectors(&mut ioapic), [0; 0]);
        ioapic.set_line(4, false);
        ioapic.set_line(4, true);
        ioapic.set_line(4, true);
        assert_eq!(
            ioapic.take_messages(),
            [ApicMessage { destination: 2, logical: false, mode: DeliveryMode::Fixed, vector: 0x44, level: false }]
        );
    }

    #[test]
    fn levels_are_sent_again_after_end_of_interrupt_while_asserted() {
        let mut ioapic = Ioapic::default();
        program(&mut ioapic, 9, 0x0_8855, 0xff);
        ioapic.set_line(9, true);
        let messages = ioapic.take_messages();
        assert_eq!((messages[0].destination, messages[0].logical, messages[0].level), (BROADCAST, true, true));
        assert_eq!(read(&mut ioapic, 0x22) & 0x4000, 0x4000, "remote IRR");
        ioapic.set_line(9, false);
        ioapic.set_line(9, true);
        assert_eq!(vectors(&mut ioapic), [0; 0], "waits for the end of interrupt");
        ioapic.end_of_interrupt(0x56);
        assert_eq!(vectors(&mut ioapic), [0; 0], "another vector");
        ioapic.end_of_interrupt(0x55);
        assert_eq!(vectors(&mut ioapic), [0x55]);
        ioapic.set_line(9, false);
        ioapic.end_of_interrupt(0x55);
        assert_eq!(vectors(&mut ioapic), [0; 0]);
        assert_eq!(read(&mut ioapic, 0x22) & 0x4000, 0);
    }

    #[test]
    fn a_masked_level_waits_and_a_visit_to_edge_mode_clears_remote_irr() {
        let mut ioapic = Ioapic::default();
        program(&mut ioapic, 5, 0x1_8060, 0);
        ioapic.set_line(5, true);
        assert_eq!(vectors(&mut ioapic), [0; 0]);
        program(&mut ioapic, 5, 0x0_8060, 0);
        assert_eq!(vectors(&mut ioapic), [0x60]);
        program(&mut ioapic, 5, 0x1_0060, 0);
        program(&mut ioapic, 5, 0x0_8060, 0);
        assert_eq!(vectors(&mut ioapic), [0x60]);
    }

    #[test]
    fn polarity_inverts() {
        let mut ioapic = Ioapic::default();
        program(&mut ioapic, 7, 0x0_2070, 0);
        ioapic.set_line(7, true);
        assert_eq!(vectors(&mut ioapic), [0; 0]);
        ioapic.set_line(7, false);
        assert_eq!(vectors(&mut ioapic), [0x70]);
    }

    #[test]
    fn delivery_modes() {
        for (code, expected) in [
            (0, Some(DeliveryMode::Fixed)),
            (1, Some(DeliveryMode::LowestPriority)),
            (2, Some(DeliveryMode::Smi)),
            (3, None),
            (4, Some(DeliveryMode::Nmi)),
            (5, Some(DeliveryMode::Init)),
            (6, None),
            (7, Some(DeliveryMode::ExtInt)),
        ] {
            let mut ioapic = Ioapic::default();
            program(&mut ioapic, 0, code << 8, 0);
            ioapic.set_line(0, true);
            assert_eq!(ioapic.take_messages().first().map(|message| message.mode), expected, "{code}");
        }
    }
}
