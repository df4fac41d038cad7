//! The 8254 programmable interval timer: three counters on one 1.193 MHz input.
//!
//! Source: Intel 8254 datasheet (231164), "Mode Definitions" and "Programming the 82C54".
//! What is modelled: modes 0 to 5, binary and BCD, gates, the counter-latch and read-back commands, the null-count flag, all at the exact
//! input pulse. Time is given as the number of complete input pulses. A count written at pulse t reaches the counting element at pulse
//! t + 1, as the datasheet draws it. What is not: a count of 1 in modes 2 and 3, which the datasheet forbids, counts as 2.
//! Until its first control word a counter does nothing and its output is high, as the mode 3 that firmware leaves has it.

use serde::{Deserialize, Serialize};

/// Which bytes of the count a port access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low = 1,
    High = 2,
    LowThenHigh = 3,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    mode: u8,
    bcd: bool,
    access: Access,
    /// The count register CR; 0 stands for the largest count.
    register: u16,
    /// The low byte of a two-byte write whose high byte is still to come.
    half_written: Option<u8>,
    high_byte_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    null_count: bool,
    /// A count was written since the control word.
    has_count: bool,
    gate: bool,
    output: bool,
    /// The value of the counting element CE at pulse `since`, and whether it counts from there.
    element: u32,
    since: u64,
    counting: bool,
    /// A one-shot mode has not reached its end yet.
    armed: bool,
    /// The low pulse of a strobe (modes 4 and 5) is on.
    strobe: bool,
    /// The pulse at which CE takes over CR.
    load_at: Option<u64>,
}

impl Counter {
    fn new() -> Self {
        Self {
            mode: 0,
            bcd: false,
            access: Access::LowThenHigh,
            register: 0,
            half_written: None,
            high_byte_next: false,
            latched_count: None,
            latched_status: None,
            null_count: true,
            has_count: false,
            gate: true,
            output: true,
            element: 0,
            since: 0,
            counting: false,
            armed: false,
            strobe: false,
            load_at: None,
        }
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// What CE loads from CR.
    fn reload(&self) -> u32 {
        let count = if self.bcd { from_bcd(self.register) } else { u32::from(self.register) };
        match count {
            0 => self.modulus(),
            1 if self.periodic() => 2,
            count => count,
        }
    }

    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn write_control(&mut self, control: u8) {
        self.mode = match control >> 1 & 7 {
            mode @ 0..=5 => mode,
            mode => mode & 3,
        };
        self.bcd = control & 1 != 0;
        self.access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        self.half_written = None;
        self.high_byte_next = false;
        self.latched_count = None;
        self.latched_status = None;
        self.null_count = true;
        self.has_count = false;
        self.counting = false;
        self.armed = false;
        self.strobe = false;
        self.load_at = None;
        self.output = self.mode != 0;
    }

    fn write_count(&mut self, byte: u8, tick: u64) {
        self.register = match (self.access, self.half_written.take()) {
            (Access::Low, _) => u16::from(byte),
            (Access::High, _) => u16::from(byte) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from(byte) << 8 | u16::from(low),
            (Access::LowThenHigh, None) => {
                self.half_written = Some(byte);
                if self.mode == 0 {
                    // The first byte stops the counting, and OUT falls without waiting for a pulse.
                    self.freeze(tick);
                    self.armed = false;
                    self.output = false;
                }
                return;
            }
        };
        let first = !self.has_count;
        self.has_count = true;
        self.null_count = true;
        match self.mode {
            0 => {
                self.output = false;
                self.load_at = Some(tick.saturating_add(1));
            }
            4 => self.load_at = Some(tick.saturating_add(1)),
            // A later count is taken over at the end of the running period, and by 1 and 5 at the next trigger.
            2 | 3 if first && self.gate => self.load_at = Some(tick.saturating_add(1)),
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (0 | 4, false) => self.freeze(tick),
            (0 | 4, true) => {
                // Only a counting element that was loaded, and is not waiting for half a count, goes on.
                self.counting = self.has_count && self.half_written.is_none() && !self.waits_for_first_load();
                self.since = tick;
            }
            (2 | 3, false) => {
                self.freeze(tick);
                self.load_at = None;
                self.output = true;
            }
            (_, true) if self.has_count => self.load_at = Some(tick.saturating_add(1)),
            _ => {}
        }
    }

    fn waits_for_first_load(&self) -> bool {
        self.load_at.is_some() && !self.armed
    }

    fn freeze(&mut self, tick: u64) {
        self.element = self.value(tick);
        self.since = tick;
        self.counting = false;
    }

    /// The counting element at `tick`, between 0 and the modulus.
    fn value(&self, tick: u64) -> u32 {
        if !self.counting {
            return self.element;
        }
        let elapsed = tick.saturating_sub(self.since);
        let modulus = u64::from(self.modulus());
        let element = u64::from(self.element);
        let value = match self.mode {
            2 => element.saturating_sub(elapsed),
            3 => (element & !1).saturating_sub(elapsed.saturating_mul(2)),
            // The one-shot modes wrap around and count on.
            _ => (element + modulus - elapsed % modulus) % modulus,
        };
        value as u32
    }

    /// The length of the present half of a square wave, in pulses: of an odd count the high half is one pulse longer.
    fn half_period(&self) -> u64 {
        u64::from(if self.output { self.element.div_ceil(2) } else { self.element / 2 })
    }

    /// The pulse at which the counter changes by itself, other than by counting.
    fn next(&self) -> Option<u64> {
        let counted = if !self.counting {
            None
        } else {
            let element = u64::from(self.element);
            let pulses = match self.mode {
                2 => Some(if self.output { element - 1 } else { element }),
                3 => Some(self.half_period()),
                _ if self.strobe => Some(element + 1),
                _ if self.armed => Some(element),
                _ => None,
            };
            pulses.map(|pulses| self.since.saturating_add(pulses))
        };
        match (self.load_at, counted) {
            (Some(load), Some(counted)) => Some(load.min(counted)),
            (load, counted) => load.or(counted),
        }
    }

    /// Runs to `tick`; true when the output rose at least once on the way.
    fn advance(&mut self, tick: u64) -> bool {
        let mut rose = false;
        while let Some(at) = self.next().filter(|at| *at <= tick) {
            if at == u64::MAX {
                // The end of simulated time: nothing follows.
                break;
            }
            let before = self.output;
            if self.load_at == Some(at) {
                self.load(at);
            } else {
                self.turn(at);
            }
            rose |= !before && self.output;
            // Whole periods at once: each holds one rise, and leaves the counter as it was.
            if self.periodic() && self.counting && self.output && self.load_at.is_none() && self.element == self.reload() {
                let period = u64::from(self.element);
                let periods = tick.saturating_sub(self.since) / period;
                if self.since.saturating_add(period) <= tick && periods > 1 {
                    self.since += (periods - 1) * period;
                    rose = true;
                }
            }
        }
        rose
    }

    fn load(&mut self, at: u64) {
        self.load_at = None;
        self.element = self.reload();
        self.since = at;
        self.null_count = false;
        self.armed = true;
        self.strobe = false;
        match self.mode {
            0 | 4 => self.counting = self.gate,
            1 => {
                self.counting = true;
                self.output = false;
            }
            _ => self.counting = true,
        }
        if self.mode != 0 && self.mode != 1 {
            self.output = true;
        }
    }

    /// The counting element reached the point where the output changes.
    fn turn(&mut self, at: u64) {
        match self.mode {
            0 | 1 => {
                self.output = true;
                self.armed = false;
            }
            2 if self.output => self.output = false,
            2 | 3 => {
                self.output = !self.output;
                self.element = self.reload();
                self.since = at;
                self.null_count = false;
            }
            _ if self.strobe => {
                self.output = true;
                self.strobe = false;
                self.armed = false;
            }
            _ => {
                self.output = false;
                self.strobe = true;
            }
        }
    }

    fn count(&self, tick: u64) -> u16 {
        let value = self.value(tick) % self.modulus();
        if self.bcd { to_bcd(value) } else { value as u16 }
    }

    fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(tick));
        }
    }

    fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            self.latched_status = Some(
                u8::from(self.output) << 7
                    | u8::from(self.null_count) << 6
                    | (self.access as u8) << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let count = self.latched_count.unwrap_or_else(|| self.count(tick));
        let (high, last) = match self.access {
            Access::Low => (false, true),
            Access::High => (true, true),
            Access::LowThenHigh => (self.high_byte_next, self.high_byte_next),
        };
        if self.access == Access::LowThenHigh {
            self.high_byte_next = !self.high_byte_next;
        }
        if last {
            self.latched_count = None;
        }
        if high { (count >> 8) as u8 } else { count as u8 }
    }
}

fn from_bcd(value: u16) -> u32 {
    let digit = |shift: u32| u32::from(value >> shift & 0xf);
    (digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)) % 10_000
}

fn to_bcd(value: u32) -> u16 {
    ((value / 1000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | (value % 10)) as u16
}

/// The chip. Counters 0 and 1 have their gates tied high, counter 2 is gated by bit 0 of port 0x61.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pit {
    counters: [Counter; 3],
}

impl Default for Pit {
    fn default() -> Self {
        let mut counters = [Counter::new(), Counter::new(), Counter::new()];
        counters[2].gate = false;
        Self { counters }
    }
}

impl Pit {
    /// Whether a timer can be so, which may come from anywhere.
    pub(crate) fn is_possible(&self) -> bool {
        self.counters.iter().all(|counter| {
            let times = counter.since < 1 << 48 && counter.load_at.is_none_or(|tick| tick < 1 << 48);
            counter.mode <= 5 && counter.element <= 0x1_0000 && times
        })
    }

    /// Reads counter port 0x40 to 0x42 (`port` 0 to 2); the control port does not answer and reads as ones.
    pub fn read(&mut self, port: u8, tick: u64) -> u8 {
        match self.counters.get_mut(usize::from(port)) {
            Some(counter) => {
                counter.advance(tick);
                counter.read(tick)
            }
            None => 0xff,
        }
    }

    /// Writes counter port 0 to 2 or the control port 3. The caller has run counter 0 up to `tick` with [`Self::advance`].
    pub fn write(&mut self, port: u8, value: u8, tick: u64) {
        if let Some(counter) = self.counters.get_mut(usize::from(port)) {
            counter.advance(tick);
            counter.write_count(value, tick);
            return;
        }
        if value >> 6 == 3 {
            // Read-back: the bits that latch are active low.
            for (number, counter) in self.counters.iter_mut().enumerate() {
                if value & 2 << number != 0 {
                    counter.advance(tick);
                    if value & 0x20 == 0 {
                        counter.latch_count(tick);
                    }
                    if value & 0x10 == 0 {
                        counter.latch_status();
                    }
                }
            }
            return;
        }
        let counter = &mut self.counters[usize::from(value >> 6)];
        counter.advance(tick);
        if value & 0x30 == 0 {
            counter.latch_count(tick);
        } else {
            counter.freeze(tick);
            counter.write_control(value);
        }
    }

    /// Runs counter 0 up to `tick`; true when its output rose at least once on the way.
    pub fn advance(&mut self, tick: u64) -> bool {
        self.counters[0].advance(tick)
    }

    /// The output of counter 0, which is IRQ0, as of the last [`Self::advance`].
    pub fn interrupt(&self) -> bool {
        self.counters[0].output
    }

    /// The pulse at which the output of counter 0 may change next.
    pub fn next_event(&self) -> Option<u64> {
        self.counters[0].next()
    }

    /// The output of counter 2, which port 0x61 shows in bit 5.
    pub fn speaker(&mut self, tick: u64) -> bool {
        self.counters[2].advance(tick);
        self.counters[2].output
    }

    /// Drives the gate of counter 2.
    pub fn set_speaker_gate(&mut self, gate: bool, tick: u64) {
        self.counters[2].advance(tick);
        self.counters[2].set_gate(gate, tick);
    }
}

#[cfg(test)]
mod tests;
