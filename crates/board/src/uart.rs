//! The 16550A serial port.
//!
//! Source: National Semiconductor PC16550D datasheet, section 8 "Registers".
//! What is modelled: all twelve registers, both FIFOs, the interrupt priorities, loopback, and OUT2 as the gate of the interrupt line, as
//! on every PC. A character takes no simulated time: the transmitter is empty again as soon as it is written, and a character time-out is
//! reported at once instead of four character times later. What is not: line errors (parity, framing, break), because the other end of
//! the line is a byte stream, and the baud rate, whose divisor is kept but not used.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes sent by the guest that nobody drained yet are kept up to this many; the rest is counted and lost.
pub const OUTPUT_LIMIT: usize = 16 << 20;

const FIFO_SIZE: usize = 16;

// Interrupt enable register.
const IER_DATA: u8 = 0x01;
const IER_TRANSMITTER: u8 = 0x02;
const IER_LINE: u8 = 0x04;
const IER_MODEM: u8 = 0x08;
// Line control register.
const LCR_DIVISOR_LATCH: u8 = 0x80;
// Modem control register.
const MCR_OUT2: u8 = 0x08;
const MCR_LOOPBACK: u8 = 0x10;
// Line status register.
const LSR_DATA_READY: u8 = 0x01;
const LSR_OVERRUN: u8 = 0x02;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;
// Modem status register.
const MSR_DELTAS: u8 = 0x0f;
/// The other end of the line is always there and ready: clear to send, data set ready, carrier detect.
const MSR_CONNECTED: u8 = 0xb0;

/// The reasons for an interrupt in the order in which IIR reports them (Table "Interrupt Control Functions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    LineStatus = 0x06,
    DataAvailable = 0x04,
    CharacterTimeout = 0x0c,
    TransmitterEmpty = 0x02,
    ModemStatus = 0x00,
}

/// One serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uart {
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    overrun: bool,
    modem_status: u8,
    scratch: u8,
    divisor: u16,
    transmitter_interrupt: bool,
    receiver: VecDeque<u8>,
    /// What the host sent and the receiver had no room for yet: the other end obeys flow control, so nothing is lost.
    waiting: VecDeque<u8>,
    output: Vec<u8>,
    lost: u64,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            interrupt_enable: 0,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            overrun: false,
            modem_status: MSR_CONNECTED,
            scratch: 0,
            divisor: 0,
            transmitter_interrupt: false,
            receiver: VecDeque::new(),
            waiting: VecDeque::new(),
            output: Vec::new(),
            lost: 0,
        }
    }
}

impl Uart {
    /// Reads register 0 to 7.
    pub fn read(&mut self, register: u8) -> u8 {
        let divisor_latch = self.line_control & LCR_DIVISOR_LATCH != 0;
        match register & 7 {
            0 if divisor_latch => self.divisor as u8,
            1 if divisor_latch => (self.divisor >> 8) as u8,
            0 => {
                let byte = self.receiver.pop_front().unwrap_or(0);
                self.refill();
                byte
            }
            1 => self.interrupt_enable,
            2 => {
                let fifos = if self.fifo_enabled() { 0xc0 } else { 0 };
                match self.cause() {
                    None => fifos | 0x01,
                    Some(cause) => {
                        if cause == Cause::TransmitterEmpty {
                            self.transmitter_interrupt = false;
                        }
                        fifos | cause as u8
                    }
                }
            }
            3 => self.line_control,
            4 => self.modem_control,
            5 => {
                let status = self.line_status();
                self.overrun = false;
                status
            }
            6 => {
                let status = self.modem_status;
                self.modem_status &= !MSR_DELTAS;
                status
            }
            _ => self.scratch,
        }
    }

    /// Writes register 0 to 7.
    pub fn write(&mut self, register: u8, value: u8) {
        let divisor_latch = self.line_control & LCR_DIVISOR_LATCH != 0;
        match register & 7 {
            0 if divisor_latch => self.divisor = self.divisor & 0xff00 | u16::from(value),
            1 if divisor_latch => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            0 => self.transmit(value),
            1 => {
                // Enabling the interrupt while the holding register is empty, which it always is, raises it.
                if value & !self.interrupt_enable & IER_TRANSMITTER != 0 {
                    self.transmitter_interrupt = true;
                }
                self.interrupt_enable = value & 0x0f;
            }
            2 => self.write_fifo_control(value),
            3 => self.line_control = value,
            4 => {
                self.modem_control = value & 0x1f;
                self.update_modem_status();
                self.refill();
            }
            5 | 6 => {}
            _ => self.scratch = value,
        }
    }

    /// The state of the interrupt line.
    pub fn interrupt(&self) -> bool {
        // In loopback the OUT2 pin is forced inactive, and the gate closes.
        self.modem_control & (MCR_OUT2 | MCR_LOOPBACK) == MCR_OUT2 && self.cause().is_some()
    }

    /// Bytes from the other end of the line.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.refill();
    }

    /// What the guest sent since the last call.
    pub fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How many bytes were lost because [`OUTPUT_LIMIT`] was reached.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The divisor of the baud rate that the guest programmed.
    pub fn divisor(&self) -> u16 {
        self.divisor
    }

    fn fifo_enabled(&self) -> bool {
        self.fifo_control & 1 != 0
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled() { FIFO_SIZE } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        match (self.fifo_enabled(), self.fifo_control >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn refill(&mut self) {
        // In loopback the receiver listens to the transmitter, and the line waits.
        while self.modem_control & MCR_LOOPBACK == 0 && self.receiver.len() < self.capacity() {
            let Some(byte) = self.waiting.pop_front() else {
                break;
            };
            self.receiver.push_back(byte);
        }
    }

    fn transmit(&mut self, byte: u8) {
        if self.modem_control & MCR_LOOPBACK != 0 {
            if self.receiver.len() < self.capacity() {
                self.receiver.push_back(byte);
            } else {
                self.overrun = true;
                if !self.fifo_enabled() {
                    // Without FIFOs the new character overwrites the old one; with them it is lost in the shift register.
                    self.receiver[0] = byte;
                }
            }
        } else if self.output.len() < OUTPUT_LIMIT {
            self.output.push(byte);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
        self.transmitter_interrupt = true;
    }

    fn write_fifo_control(&mut self, value: u8) {
        if (value ^ self.fifo_control) & 1 != 0 {
            self.receiver.clear();
        }
        if value & 1 == 0 {
            // The other bits are only written together with bit 0.
            self.fifo_control = 0;
        } else {
            if value & 0x02 != 0 {
                self.receiver.clear();
            }
            self.fifo_control = value & 0xc9;
        }
        self.refill();
    }

    fn line_status(&self) -> u8 {
        LSR_TRANSMITTER_EMPTY | if self.receiver.is_empty() { 0 } else { LSR_DATA_READY } | if self.overrun { LSR_OVERRUN } else { 0 }
    }

    fn update_modem_status(&mut self) {
        let old = self.modem_status;
        let lines = if self.modem_control & MCR_LOOPBACK != 0 {
            // RTS drives CTS, DTR drives DSR, OUT1 drives RI, OUT2 drives DCD.
            let control = self.modem_control;
            (control & 0x02) << 3 | (control & 0x01) << 5 | (control & 0x0c) << 4
        } else {
            MSR_CONNECTED
        };
        let changed = (old ^ lines) >> 4;
        // The ring indicator counts its trailing edge only.
        let deltas = changed & 0x0b | (old & !lines) >> 4 & 0x04;
        self.modem_status = lines | old & MSR_DELTAS | deltas;
    }

    fn cause(&self) -> Option<Cause> {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        if enabled(IER_LINE) && self.overrun {
            Some(Cause::LineStatus)
        } else if enabled(IER_DATA) && self.receiver.len() >= self.trigger_level() {
            Some(Cause::DataAvailable)
        } else if enabled(IER_DATA) && !self.receiver.is_empty() {
            Some(Cause::CharacterTimeout)
        } else if enabled(IER_TRANSMITTER) && self.transmitter_interrupt {
            Some(Cause::TransmitterEmpty)
        } else if enabled(IER_MODEM) && self.modem_status & MSR_DELTAS != 0 {
            Some(Cause::ModemStatus)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uart(writes: &[(u8, u8)]) -> Uart {
        let mut uart = Uart::default();
        for (register, value) in writes {
            uart.write(*register, *value);
        }
        uart
    }

    #[test]
    fn transmits_and_keeps_the_divisor_apart() {
        let mut uart = uart(&[(3, 0x80), (0, 0x01), (1, 0x02), (3, 0x03), (0, b'h'), (0, b'i')]);
        assert_eq!(uart.drain(), b"hi");
        assert_eq!(uart.divisor(), 0x0201);
        assert_eq!(uart.read(5), 0x60);
        assert_eq!(uart.drain(), b"");
    }

    #[test]
    fn identification_reports_causes_in_order_of_priority() {
        // FIFO with trigger level 4, loopback so that overruns can be made, all interrupts enabled.
        let mut uart = uart(&[(2, 0x41), (4, 0x10), (6, 0)]);
        uart.read(6);
        uart.write(1, 0x0f);
        for byte in 0..17 {
            uart.write(0, byte);
        }
        // Toggle DTR: a modem status change waits below all the rest.
        uart.write(4, 0x11);
        assert_eq!(uart.read(2), 0xc6, "overrun");
        assert_eq!(uart.read(5), 0x63);
        assert_eq!(uart.read(2), 0xc4, "data available");
        for byte in 0..13 {
            assert_eq!(uart.read(0), byte);
        }
        assert_eq!(uart.read(2), 0xcc, "three bytes are below the trigger level: time-out");
        for byte in 13..16 {
            assert_eq!(uart.read(0), byte);
        }
        assert_eq!(uart.read(2), 0xc2, "transmitter empty");
        assert_eq!(uart.read(2), 0xc0, "reading it cleared it: modem status is next");
        assert_eq!(uart.read(6), 0x22);
        assert_eq!(uart.read(2), 0xc1, "none");
    }

    #[test]
    fn transmitter_interrupt_follows_enable_write_and_identification() {
        let mut uart = uart(&[(4, 0x08), (1, 0x02)]);
        assert!(uart.interrupt(), "enabling raises it");
        assert_eq!(uart.read(2), 0x02);
        assert!(!uart.interrupt());
        uart.write(0, b'x');
        assert!(uart.interrupt(), "the character left at once");
        uart.write(4, 0x00);
        assert!(!uart.interrupt(), "OUT2 gates the line");
        uart.write(4, 0x18);
        assert!(!uart.interrupt(), "loopback cuts OUT2");
        uart.write(4, 0x08);
        assert!(uart.interrupt());
        uart.write(1, 0x00);
        assert!(!uart.interrupt());
    }

    #[test]
    fn receiver_keeps_what_the_host_sends() {
        let mut uart = uart(&[(4, 0x08), (1, 0x01)]);
        let sent: Vec<u8> = (0..100).collect();
        uart.receive(&sent);
        assert!(uart.interrupt());
        let mut got = Vec::new();
        while uart.read(5) & 1 != 0 {
            got.push(uart.read(0));
        }
        assert_eq!(got, sent);
        assert_eq!(uart.read(5), 0x60, "no overrun");
        assert!(!uart.interrupt());
        uart.receive(b"abc");
        uart.write(2, 0x03);
        assert_eq!(uart.read(0), b'b', "changing the FIFO mode loses what was in the one-byte buffer");
    }

    #[test]
    fn loopback_without_fifo_overwrites() {
        let mut uart = uart(&[(4, 0x10), (0, 1), (0, 2)]);
        assert_eq!(uart.read(5), 0x63);
        assert_eq!(uart.read(0), 2);
        assert_eq!(uart.drain(), b"");
        uart.write(4, 0x1f);
        assert_eq!(uart.read(6) & 0xf0, 0xf0, "all outputs come back");
        uart.write(4, 0x1b);
        assert_eq!(uart.read(6) & 0x44, 0x04, "the trailing edge of the ring indicator");
    }
}
