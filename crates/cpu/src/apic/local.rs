//! Interrupts from inside the processor package: the local vector table, the LINT pins, and the end of an interrupt.
//!
//! Source: SDM 11.5.1 "Local Vector Table", 11.8.5 "Signaling Interrupt Servicing Completion".

use isa::apic::DeliveryMode;

use super::register::{self, Register};
use super::{Accepted, LVT_LEVEL, LVT_MASK, LVT_REMOTE_IRR, LocalApic, Mode};

pub(super) const TIMER: usize = 0;
pub(super) const LINT0: usize = 3;

/// The LVT entry that a local interrupt goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// The APIC timer.
    Timer = 0,
    /// The thermal sensor.
    Thermal = 1,
    /// An overflow of a performance-monitoring counter.
    Performance = 2,
    /// The LINT0 pin.
    Lint0 = 3,
    /// The LINT1 pin.
    Lint1 = 4,
    /// An error that the APIC found.
    Error = 5,
}

/// A local interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// LINT0, where a PC has the 8259's output.
    Lint0 = 0,
    /// LINT1, where a PC has NMI.
    Lint1 = 1,
}

impl LocalApic {
    /// Signals a local interrupt; the mask and the delivery mode of its LVT entry decide.
    pub fn raise(&mut self, source: LocalSource) -> Accepted {
        let index = source as usize;
        let entry = self.local_vector_table[index];
        if self.mode() == Mode::Disabled || entry & LVT_MASK != 0 {
            return Accepted::Ignored;
        }
        let mode = match source {
            LocalSource::Timer | LocalSource::Error => Some(DeliveryMode::Fixed),
            _ => DeliveryMode::from_code((entry >> 8) as u8),
        };
        if source == LocalSource::Performance && self.features.masks_performance {
            // SDM 11.5.1: this entry masks itself when it interrupts; AMD's does not.
            self.local_vector_table[index] |= LVT_MASK;
        }
        match mode {
            Some(DeliveryMode::Fixed) => {
                let level = entry & LVT_LEVEL != 0 && source == LocalSource::Lint0;
                let accepted = self.request(entry as u8, level);
                if level && accepted == Accepted::Interrupt {
                    self.local_vector_table[index] |= LVT_REMOTE_IRR;
                }
                accepted
            }
            Some(DeliveryMode::Smi) => Accepted::Smi,
            Some(DeliveryMode::Nmi) => Accepted::Nmi,
            Some(DeliveryMode::Init) if source != LocalSource::Performance => Accepted::Init,
            Some(DeliveryMode::ExtInt) if matches!(source, LocalSource::Lint0 | LocalSource::Lint1) => Accepted::ExtInt,
            // The other codes are not supported in the LVT.
            _ => Accepted::Ignored,
        }
    }

    /// Drives a LINT pin (high is asserted, whatever the polarity bit, which describes wires that are not modelled). What the pin
    /// causes at this moment; an ExtINT lasts as long as the pin and is answered by [`Self::extint`].
    pub fn set_lint(&mut self, pin: Lint, high: bool) -> Accepted {
        let was_high = std::mem::replace(&mut self.lint[pin as usize], high);
        let rose = high && !was_high;
        if self.mode() == Mode::Disabled {
            // SDM 11.4.3: LINT0 and LINT1 are INTR and NMI then.
            return match pin {
                Lint::Lint0 if rose => Accepted::ExtInt,
                Lint::Lint1 if rose => Accepted::Nmi,
                _ => Accepted::Ignored,
            };
        }
        let level = self.level_lint(pin);
        if rose || high && level { self.signal_lint(pin) } else { Accepted::Ignored }
    }

    /// Whether the 8259 requests an interrupt through a LINT pin: it is high, unmasked and in ExtINT mode.
    pub fn extint(&self) -> bool {
        match self.mode() {
            Mode::Disabled => self.lint[0],
            _ => self
                .lint
                .iter()
                .zip(&self.local_vector_table[LINT0..])
                .any(|(high, entry)| *high && entry & LVT_MASK == 0 && entry >> 8 & 7 == DeliveryMode::ExtInt as u32),
        }
    }

    /// Ends the highest interrupt in service; its vector if it was level-triggered.
    pub(super) fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = self.in_service.highest()?;
        self.in_service.remove(vector);
        if !self.trigger_mode.contains(vector) {
            return None;
        }
        for pin in [Lint::Lint0, Lint::Lint1] {
            let entry = &mut self.local_vector_table[LINT0 + pin as usize];
            if *entry & LVT_REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !LVT_REMOTE_IRR;
                if self.lint[pin as usize] {
                    self.signal_lint(pin);
                }
            }
        }
        Some(vector)
    }

    pub(super) fn set_local_vector(&mut self, register: &Register, value: u32) {
        let index = ((register.offset - register::LVT_TIMER) >> 4) as usize;
        let mut value = value | self.local_vector_table[index] & LVT_REMOTE_IRR;
        if value & LVT_LEVEL == 0 {
            value &= !LVT_REMOTE_IRR;
        }
        if !self.software_enabled() {
            // SDM 11.4.7.2: the masks cannot be cleared while software-disabled.
            value |= LVT_MASK;
        }
        if index == TIMER {
            if !self.features.tsc_deadline {
                value &= !super::timer::LVT_TSC_DEADLINE;
            }
            self.timer.set_mode(value);
        }
        self.local_vector_table[index] = value;
        let pin = match register.offset {
            register::LVT_LINT0 => Lint::Lint0,
            register::LVT_LINT1 => Lint::Lint1,
            _ => return,
        };
        if self.lint[pin as usize] && self.level_lint(pin) {
            self.signal_lint(pin);
        }
    }

    fn signal_lint(&mut self, pin: Lint) -> Accepted {
        if self.local_vector_table[LINT0 + pin as usize] & LVT_REMOTE_IRR != 0 {
            return Accepted::Ignored;
        }
        self.raise(match pin {
            Lint::Lint0 => LocalSource::Lint0,
            Lint::Lint1 => LocalSource::Lint1,
        })
    }

    /// Whether the pin is a level-triggered fixed interrupt. SDM 11.5.1: LINT1 knows edges only.
    fn level_lint(&self, pin: Lint) -> bool {
        let entry = self.local_vector_table[LINT0 + pin as usize];
        pin == Lint::Lint0 && entry & LVT_LEVEL != 0 && entry >> 8 & 7 == DeliveryMode::Fixed as u32
    }
}
