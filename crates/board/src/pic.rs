//! The pair of 8259A interrupt controllers, with the edge/level registers of the PC chipset.
//!
//! Source: Intel 8259A datasheet (231468), "Programming the 8259A"; edge/level control as in the 82371SB datasheet.
//! What is modelled: ICW1 to ICW4, OCW1 to OCW3, fully nested, special fully nested and special mask modes, automatic EOI, rotation,
//! polling, spurious interrupts, ELCR. What is not: MCS-80 mode and buffered mode, which a PC cannot use. The LTIM bit of ICW1 is
//! replaced by ELCR, as in every chipset that has one. Before ICW1 a controller requests nothing.

use serde::{Deserialize, Serialize};

/// What the next write to the odd port means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expects {
    Icw2,
    Icw3,
    Icw4,
    Ocw1,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Controller {
    /// Bits of ELCR that can be set.
    level_capable: u8,
    level: u8,
    lines: u8,
    /// Rising edges seen since the last acknowledge.
    edges: u8,
    mask: u8,
    in_service: u8,
    base: u8,
    lowest: u8,
    expects: Expects,
    initialized: bool,
    single: bool,
    needs_icw4: bool,
    cascade: u8,
    automatic_eoi: bool,
    rotate_automatically: bool,
    special_fully_nested: bool,
    special_mask: bool,
    poll: bool,
    read_in_service: bool,
}

impl Controller {
    fn new(level_capable: u8) -> Self {
        Self {
            level_capable,
            level: 0,
            lines: 0,
            edges: 0,
            mask: 0xff,
            in_service: 0,
            base: 0,
            lowest: 7,
            expects: Expects::Ocw1,
            initialized: false,
            single: false,
            needs_icw4: false,
            cascade: 0,
            automatic_eoi: false,
            rotate_automatically: false,
            special_fully_nested: false,
            special_mask: false,
            poll: false,
            read_in_service: false,
        }
    }

    fn set_line(&mut self, line: u8, high: bool) {
        let bit = 1 << line;
        if high {
            if self.lines & bit == 0 {
                self.edges |= bit;
            }
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
    }

    /// The interrupt request register. A request must stay until it is acknowledged, in either trigger mode.
    fn requests(&self) -> u8 {
        self.lines & (self.level | self.edges)
    }

    /// The set bit with the highest priority: 0 is the highest, counted from the one after `lowest`.
    fn first(&self, bits: u8) -> Option<u8> {
        (1..=8).map(|step| (self.lowest + step) & 7).find(|line| bits & 1 << line != 0)
    }

    fn rank(&self, line: u8) -> u8 {
        line.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The request that the INT output stands for.
    fn pending(&self) -> Option<u8> {
        if !self.initialized || self.expects != Expects::Ocw1 {
            return None;
        }
        let candidate = self.first(self.requests() & !self.mask)?;
        let mut blocking = self.in_service;
        if self.special_mask {
            blocking &= !self.mask;
        }
        if self.special_fully_nested {
            // A slave in service does not lock out further requests from the same slave.
            blocking &= !self.cascade;
        }
        match self.first(blocking) {
            Some(served) if self.rank(served) <= self.rank(candidate) => None,
            _ => Some(candidate),
        }
    }

    fn acknowledge(&mut self, line: u8) {
        self.edges &= !(1 << line);
        if !self.automatic_eoi {
            self.in_service |= 1 << line;
        } else if self.rotate_automatically {
            self.lowest = line;
        }
    }

    fn read(&mut self, odd: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            // After the poll command the next read is an interrupt acknowledge.
            return match self.pending() {
                Some(line) => {
                    self.acknowledge(line);
                    0x80 | line
                }
                None => 0,
            };
        }
        match (odd, self.read_in_service) {
            (true, _) => self.mask,
            (false, true) => self.in_service,
            (false, false) => self.requests(),
        }
    }

    fn write(&mut self, odd: bool, value: u8) {
        match (odd, self.expects) {
            (false, _) if value & 0x10 != 0 => self.write_icw1(value),
            (false, _) if value & 0x08 != 0 => self.write_ocw3(value),
            (false, _) => self.write_ocw2(value),
            (true, Expects::Icw2) => {
                self.base = value & 0xf8;
                self.expects = match (self.single, self.needs_icw4) {
                    (false, _) => Expects::Icw3,
                    (true, true) => Expects::Icw4,
                    (true, false) => Expects::Ocw1,
                };
            }
            (true, Expects::Icw3) => {
                self.cascade = value;
                self.expects = if self.needs_icw4 { Expects::Icw4 } else { Expects::Ocw1 };
            }
            (true, Expects::Icw4) => {
                self.automatic_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                self.expects = Expects::Ocw1;
            }
            (true, Expects::Ocw1) => self.mask = value,
        }
    }

    fn write_icw1(&mut self, value: u8) {
        // ICW1 forgets edges seen so far and the mask, gives IR7 the lowest priority, leaves special mask mode and selects IRR for
        // reading. Without an ICW4 to follow, all its functions are off.
        *self = Self {
            level: self.level,
            lines: self.lines,
            mask: 0,
            base: self.base,
            expects: Expects::Icw2,
            initialized: true,
            single: value & 0x02 != 0,
            needs_icw4: value & 0x01 != 0,
            ..Self::new(self.level_capable)
        };
    }

    fn write_ocw2(&mut self, value: u8) {
        let line = value & 7;
        match value >> 5 {
            0b000 => self.rotate_automatically = false,
            0b100 => self.rotate_automatically = true,
            0b001 | 0b101 => {
                // In special mask mode a masked in-service bit is not cleared by a non-specific EOI.
                let candidates = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
                if let Some(served) = self.first(candidates) {
                    self.in_service &= !(1 << served);
                    if value >> 5 == 0b101 {
                        self.lowest = served;
                    }
                }
            }
            0b011 => self.in_service &= !(1 << line),
            0b111 => {
                self.in_service &= !(1 << line);
                self.lowest = line;
            }
            0b110 => self.lowest = line,
            // 0b010: no operation.
            _ => {}
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 {
            self.read_in_service = value & 0x01 != 0;
        }
    }
}

/// Master and slave, cascaded through the master's input 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pic {
    master: Controller,
    slave: Controller,
}

impl Default for Pic {
    fn default() -> Self {
        // The timer, the keyboard, the cascade, the clock and the coprocessor are edge-triggered whatever ELCR says.
        Self { master: Controller::new(0xf8), slave: Controller::new(0xde) }
    }
}

const CASCADE: u8 = 2;

impl Pic {
    /// Drives input `irq`, 0 to 15.
    pub fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            0..8 if irq != CASCADE => self.master.set_line(irq, high),
            8..16 => self.slave.set_line(irq - 8, high),
            _ => {}
        }
        self.cascade();
    }

    /// The INT output of the pair.
    pub fn output(&self) -> bool {
        self.master.pending().is_some()
    }

    /// Whether input `irq` could reach the output if it changed; a masked input still shows in the request register.
    pub fn unmasked(&self, irq: u8) -> bool {
        match irq {
            0..8 => self.master.initialized && self.master.mask & 1 << irq == 0,
            _ => self.slave.initialized && self.slave.mask & 1 << (irq & 7) == 0,
        }
    }

    /// The interrupt-acknowledge cycle: the vector. Without a request it is the spurious level 7, which enters no service.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(line) = self.master.pending() else {
            return self.master.base | 7;
        };
        self.master.acknowledge(line);
        if line != CASCADE || self.master.single {
            return self.master.base | line;
        }
        let vector = match self.slave.pending() {
            Some(line) => {
                self.slave.acknowledge(line);
                self.slave.base | line
            }
            None => self.slave.base | 7,
        };
        // The slave's output falls during the cycle: a further request is a new edge for the master.
        self.master.set_line(CASCADE, false);
        self.cascade();
        vector
    }

    /// Reads port 0x20, 0x21, 0xa0, 0xa1, 0x4d0 or 0x4d1.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x4d0 => self.master.level,
            0x4d1 => self.slave.level,
            _ if port & 0x80 == 0 => self.master.read(port & 1 != 0),
            _ => self.slave.read(port & 1 != 0),
        };
        self.cascade();
        value
    }

    /// Writes one of the same ports.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x4d0 => self.master.level = value & self.master.level_capable,
            0x4d1 => self.slave.level = value & self.slave.level_capable,
            _ if port & 0x80 == 0 => self.master.write(port & 1 != 0, value),
            _ => self.slave.write(port & 1 != 0, value),
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        let pending = self.slave.pending().is_some();
        self.master.set_line(CASCADE, pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pic(icw4: u8) -> Pic {
        let mut pic = Pic::default();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 0x04),
            (0x21, icw4),
            (0x21, 0),
            (0xa0, 0x11),
            (0xa1, 0x28),
            (0xa1, 0x02),
            (0xa1, icw4 & 0x0f),
            (0xa1, 0),
        ] {
            pic.write(port, value);
        }
        pic
    }

    fn raise(pic: &mut Pic, irqs: &[u8]) {
        for irq in irqs {
            pic.set_line(*irq, false);
            pic.set_line(*irq, true);
        }
    }

    fn in_service(pic: &mut Pic) -> (u8, u8) {
        pic.write(0x20, 0x0b);
        pic.write(0xa0, 0x0b);
        (pic.read(0x20), pic.read(0xa0))
    }

    #[test]
    fn fully_nested_priorities_and_end_of_interrupt() {
        let mut pic = pic(0x01);
        raise(&mut pic, &[4, 6, 10]);
        assert_eq!(pic.acknowledge(), 0x2a, "the slave sits on input 2, above 4 and 6");
        assert!(!pic.output(), "nothing of lower priority gets through");
        raise(&mut pic, &[1]);
        assert_eq!(pic.acknowledge(), 0x21, "a higher one does");
        assert_eq!(in_service(&mut pic), (0x06, 0x04));
        pic.write(0x20, 0x20);
        assert_eq!(in_service(&mut pic), (0x04, 0x04), "a non-specific EOI ends the highest");
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x62);
        assert_eq!(in_service(&mut pic), (0, 0));
        assert_eq!(pic.acknowledge(), 0x24);
        pic.write(0x20, 0x20);
        assert_eq!(pic.acknowledge(), 0x26);
    }

    #[test]
    fn edges_are_taken_once_and_levels_again() {
        let mut pic = pic(0x01);
        pic.write(0x4d0, 0xff);
        assert_eq!(pic.read(0x4d0), 0xf8, "0, 1 and 2 stay edge-triggered");
        raise(&mut pic, &[1, 5]);
        for (vector, again) in [(0x21, false), (0x25, true)] {
            assert_eq!(pic.acknowledge(), vector);
            pic.write(0x20, 0x20);
            pic.write(0x20, 0x0a);
            assert_eq!(pic.read(0x20) & (1 << (vector & 7)) != 0, again);
        }
        pic.set_line(5, false);
        assert!(!pic.output());
    }

    #[test]
    fn a_request_that_goes_away_is_spurious() {
        let mut pic = pic(0x01);
        raise(&mut pic, &[3]);
        pic.set_line(3, false);
        assert_eq!(pic.acknowledge(), 0x27);
        assert_eq!(in_service(&mut pic), (0, 0));
    }

    #[test]
    fn masks_hide_and_special_mask_mode_opens_lower_levels() {
        let mut pic = pic(0x01);
        pic.write(0x21, 0x10);
        raise(&mut pic, &[4, 5]);
        assert_eq!(pic.acknowledge(), 0x25);
        pic.write(0x21, 0x00);
        assert_eq!(pic.acknowledge(), 0x24, "unmasking shows the request that was kept");
        raise(&mut pic, &[7]);
        assert!(!pic.output());
        pic.write(0x20, 0x68);
        pic.write(0x21, 0x30);
        assert_eq!(pic.acknowledge(), 0x27, "4 and 5 are in service but masked");
        pic.write(0x20, 0x20);
        assert_eq!(in_service(&mut pic), (0x30, 0), "the non-specific EOI passed over the masked ones");
    }

    #[test]
    fn rotation_moves_the_lowest_priority() {
        let mut pic = pic(0x01);
        pic.write(0x20, 0xc3);
        raise(&mut pic, &[0, 3, 4]);
        assert_eq!(pic.acknowledge(), 0x24, "3 is lowest, so 4 is highest");
        pic.write(0x20, 0xa0);
        raise(&mut pic, &[4]);
        assert_eq!(pic.acknowledge(), 0x20, "rotated: 4 is lowest now, 5 highest");
        pic.write(0x20, 0xe0);
        assert_eq!(pic.acknowledge(), 0x23, "rotated on a specific EOI: 0 is lowest, then 1, 2, 3");
    }

    #[test]
    fn automatic_eoi_keeps_nothing_in_service() {
        let mut pic = pic(0x03);
        pic.write(0x20, 0x80);
        raise(&mut pic, &[0, 1, 8, 9]);
        assert_eq!(pic.acknowledge(), 0x20);
        raise(&mut pic, &[0]);
        assert_eq!(pic.acknowledge(), 0x21, "rotate in automatic EOI: 0 became lowest");
        assert_eq!(pic.acknowledge(), 0x28);
        assert_eq!(in_service(&mut pic), (0, 0));
        assert_eq!(pic.acknowledge(), 0x20, "after 2 the order is 3 to 7, then 0");
        assert_eq!(pic.acknowledge(), 0x29, "the slave's second request was a new edge");
        assert!(!pic.output());
    }

    #[test]
    fn special_fully_nested_lets_the_slave_nest() {
        for (icw4, nests) in [(0x01, false), (0x11, true)] {
            let mut pic = pic(icw4);
            raise(&mut pic, &[12]);
            assert_eq!(pic.acknowledge(), 0x2c);
            raise(&mut pic, &[9]);
            assert_eq!(pic.output(), nests, "{icw4:#x}");
        }
    }

    #[test]
    fn polling_acknowledges() {
        let mut pic = pic(0x01);
        pic.write(0x20, 0x0c);
        assert_eq!(pic.read(0x20), 0);
        raise(&mut pic, &[6]);
        pic.write(0x20, 0x0c);
        assert_eq!(pic.read(0x20), 0x86);
        assert_eq!(in_service(&mut pic), (0x40, 0));
    }

    #[test]
    fn before_and_during_initialization_nothing_is_requested() {
        let mut fresh = Pic::default();
        raise(&mut fresh, &[0, 8]);
        assert!(!fresh.output());
        let mut pic = pic(0x01);
        raise(&mut pic, &[1]);
        pic.write(0x20, 0x11);
        assert!(!pic.output());
        for value in [0x20, 0x04, 0x01] {
            pic.write(0x21, value);
        }
        assert!(!pic.output(), "the edge from before was forgotten");
        raise(&mut pic, &[1]);
        assert!(pic.output());
    }
}
