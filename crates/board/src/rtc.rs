//! The MC146818 real-time clock with its CMOS memory, at ports 0x70 and 0x71.
//!
//! Source: Motorola MC146818A datasheet; the bytes beyond its 14 registers as the PC firmware convention has them.
//! What is modelled: time and calendar in BCD and binary, 12 and 24 hours, the update cycle with its flag, alarm, periodic interrupt, the
//! divider chain and its reset, century and memory-size bytes. The first second starts at cycle 0 with the configured date, never the
//! host's. What is not: daylight saving, the square-wave pin, and the other two crystals (with their divider settings the clock stands).

use serde::{Deserialize, Serialize};

/// A date and time of day without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DateTime {
    /// Year, 0 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute.
    pub minute: u8,
    /// Second.
    pub second: u8,
}

impl Default for DateTime {
    fn default() -> Self {
        Self { year: 2026, month: 1, day: 1, hour: 0, minute: 0, second: 0 }
    }
}

impl DateTime {
    fn days_in_month(&self) -> u8 {
        let leap = self.year.is_multiple_of(4) && !self.year.is_multiple_of(100) || self.year.is_multiple_of(400);
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn next_day(&mut self) {
        if self.day < self.days_in_month() {
            self.day += 1;
        } else if self.month < 12 {
            (self.day, self.month) = (1, self.month + 1);
        } else {
            (self.day, self.month, self.year) = (1, 1, (self.year + 1) % 10_000);
        }
    }

    fn second_of_day(&self) -> u32 {
        (u32::from(self.hour) * 60 + u32::from(self.minute)) * 60 + u32::from(self.second)
    }

    /// Moves on by `seconds`; the number of midnights passed.
    fn add_seconds(&mut self, seconds: u64) -> u64 {
        let total = u64::from(self.second_of_day()).saturating_add(seconds);
        let (days, rest) = (total / 86_400, total % 86_400);
        // The calendar repeats after 400 years of the Gregorian cycle, so the loop is bounded.
        for _ in 0..days % 146_097 {
            self.next_day();
        }
        let centuries = (days / 146_097 % 25) as u16 * 400;
        self.year = (self.year + centuries) % 10_000;
        (self.hour, self.minute, self.second) = ((rest / 3600) as u8, (rest / 60 % 60) as u8, (rest % 60) as u8);
        days
    }

    /// Day of the week, Sunday = 1, by Zeller's congruence.
    fn weekday(&self) -> u8 {
        let (year, month) = if self.month < 3 {
            (u32::from(self.year) + 9_999, u32::from(self.month) + 12)
        } else {
            (u32::from(self.year) + 10_000, u32::from(self.month))
        };
        let saturday_is_zero = (u32::from(self.day) + 13 * (month + 1) / 5 + year + year / 4 - year / 100 + year / 400) % 7;
        match saturday_is_zero {
            0 => 7,
            day => day as u8,
        }
    }
}

// Registers.
const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REGISTER_A: usize = 0x0a;
const REGISTER_B: usize = 0x0b;
const REGISTER_C: usize = 0x0c;
const REGISTER_D: usize = 0x0d;
const CENTURY: usize = 0x32;

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_24_HOURS: u8 = 0x02;
const B_BINARY: u8 = 0x04;
/// Periodic, alarm and update-ended, at the same places as enables in register B and as flags in register C.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const HOUR_PM: u8 = 0x80;

/// Pulses of the 32.768 kHz crystal in a second.
const SECOND: u64 = 32_768;
/// The flag goes up 244 us before the 1984 us of the update cycle: 2228 us, rounded to pulses.
const UPDATE_PULSES: u64 = 73;

/// The clock and its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {
    index: u8,
    nmi_masked: bool,
    /// 128 bytes, the registers included.
    memory: Vec<u8>,
    /// The pulse up to which this state is current.
    tick: u64,
    /// What to add to the pulse number to get the position of the divider chain.
    phase: u64,
}

impl Rtc {
    /// Whether a clock can be so, which may come from anywhere.
    pub(crate) fn is_possible(&self) -> bool {
        self.memory.len() == 128 && self.index < 128 && self.tick < 1 << 48 && self.phase < 1 << 48
    }

    /// A clock that shows `start` at pulse 0, with the memory sizes of a machine of `ram_below_4g` and `ram_above_4g` bytes.
    pub fn new(start: DateTime, ram_below_4g: u64, ram_above_4g: u64, cpu_count: u32) -> Self {
        let mut rtc = Self { index: 0, nmi_masked: false, memory: vec![0; 128], tick: 0, phase: 0 };
        rtc.memory[REGISTER_A] = 0x26;
        rtc.memory[REGISTER_B] = B_24_HOURS;
        rtc.memory[REGISTER_D] = 0x80;
        rtc.store_time(&start, start.weekday());
        let mut word = |low: usize, value: u64| {
            rtc.memory[low] = value as u8;
            rtc.memory[low + 1] = (value >> 8) as u8;
        };
        // Base memory in KiB, memory above 1 MiB in KiB (twice), above 16 MiB in 64 KiB: each stops at 65535.
        word(0x15, (ram_below_4g >> 10).min(640));
        let extended = (ram_below_4g.saturating_sub(1 << 20) >> 10).min(0xffff);
        word(0x17, extended);
        word(0x30, extended);
        word(0x34, (ram_below_4g.saturating_sub(16 << 20) >> 16).min(0xffff));
        // Memory above 4 GiB in 64 KiB, three bytes; then the number of further processors: both as QEMU and Bochs tell their firmware.
        let high = ram_above_4g >> 16;
        for (byte, at) in (0x5b..=0x5d).enumerate() {
            rtc.memory[at] = (high.min(0xff_ffff) >> (8 * byte)) as u8;
        }
        rtc.memory[0x5f] = u8::try_from(cpu_count.saturating_sub(1)).unwrap_or(u8::MAX);
        rtc
    }

    /// A write to port 0x70: the register number, and in bit 7 the mask of the NMI input.
    pub fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
        self.nmi_masked = value & 0x80 != 0;
    }

    /// Whether bit 7 of port 0x70 masks the chipset's NMI. No device here raises one.
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// A read of port 0x71. The caller has run the clock up to now.
    pub fn read(&mut self) -> u8 {
        let index = usize::from(self.index);
        match index {
            REGISTER_A => self.memory[REGISTER_A] | if self.updating() { A_UPDATE_IN_PROGRESS } else { 0 },
            REGISTER_C => {
                let value = self.memory[REGISTER_C] | u8::from(self.interrupt()) << 7;
                self.memory[REGISTER_C] = 0;
                value
            }
            _ => self.memory[index],
        }
    }

    /// A write of port 0x71. The caller has run the clock up to now.
    pub fn write(&mut self, value: u8) {
        match usize::from(self.index) {
            REGISTER_A => {
                let ran = self.running();
                self.memory[REGISTER_A] = value & !A_UPDATE_IN_PROGRESS;
                if !ran && self.running() {
                    // After a divider reset the first update comes half a second later.
                    self.phase = (SECOND + SECOND / 2 - self.tick % SECOND) % SECOND;
                }
            }
            REGISTER_B => {
                // Setting SET clears UIE.
                self.memory[REGISTER_B] = if value & B_SET != 0 { value & !UPDATE } else { value };
            }
            REGISTER_C | REGISTER_D => {}
            index => self.memory[index] = value,
        }
    }

    /// The interrupt line, IRQ8.
    pub fn interrupt(&self) -> bool {
        self.memory[REGISTER_B] & self.memory[REGISTER_C] & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Runs up to pulse `tick` of the crystal.
    pub fn advance(&mut self, tick: u64) {
        if tick <= self.tick {
            return;
        }
        let (before, after) = (self.chain(), tick.saturating_add(self.phase));
        self.tick = tick;
        if !self.running() {
            return;
        }
        if let Some(period) = self.period()
            && after / period > before / period
        {
            self.memory[REGISTER_C] |= PERIODIC;
        }
        let seconds = after / SECOND - before / SECOND;
        if seconds > 0 && self.memory[REGISTER_B] & B_SET == 0 {
            self.update(seconds);
        }
    }

    /// The pulse at which the interrupt line may rise by itself.
    pub fn next_event(&self) -> Option<u64> {
        if self.interrupt() || !self.running() {
            return None;
        }
        let enabled = |bit| self.memory[REGISTER_B] & bit != 0;
        let chain = self.chain();
        let periodic = self.period().filter(|_| enabled(PERIODIC)).map(|period| (chain / period + 1).saturating_mul(period));
        let seconds = if enabled(B_SET) {
            None
        } else if enabled(UPDATE) {
            Some(1)
        } else if enabled(ALARM) {
            self.next_alarm(self.time().second_of_day())
        } else {
            None
        };
        let seconds = seconds.map(|seconds| (chain / SECOND).saturating_add(seconds).saturating_mul(SECOND));
        let next = match (periodic, seconds) {
            (Some(periodic), Some(seconds)) => periodic.min(seconds),
            (periodic, seconds) => periodic.or(seconds)?,
        };
        next.checked_sub(self.phase)
    }

    fn chain(&self) -> u64 {
        self.tick.saturating_add(self.phase)
    }

    /// Whether the divider is set for the 32.768 kHz crystal and not held in reset.
    fn running(&self) -> bool {
        self.memory[REGISTER_A] & 0x70 == 0x20
    }

    fn updating(&self) -> bool {
        self.running() && self.memory[REGISTER_B] & B_SET == 0 && self.chain() % SECOND >= SECOND - UPDATE_PULSES
    }

    /// Pulses between periodic interrupts (Table "Periodic Interrupt Rate and Square Wave Output Frequency").
    fn period(&self) -> Option<u64> {
        match self.memory[REGISTER_A] & 0x0f {
            0 => None,
            rate @ 1..=2 => Some(64 << rate),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn update(&mut self, seconds: u64) {
        let mut time = self.time();
        let weekday = self.decode(self.memory[WEEKDAY]).clamp(1, 7) - 1;
        if self.next_alarm(time.second_of_day()).is_some_and(|alarm| alarm <= seconds) {
            self.memory[REGISTER_C] |= ALARM;
        }
        let days = time.add_seconds(seconds);
        self.store_time(&time, (u64::from(weekday) + days % 7) as u8 % 7 + 1);
        self.memory[REGISTER_C] |= UPDATE;
    }

    fn decode(&self, value: u8) -> u8 {
        if self.memory[REGISTER_B] & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    fn encode(&self, value: u8) -> u8 {
        if self.memory[REGISTER_B] & B_BINARY != 0 { value } else { ((value / 10 % 10) << 4) | (value % 10) }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.memory[REGISTER_B] & B_24_HOURS != 0 {
            return self.decode(value);
        }
        self.decode(value & !HOUR_PM) % 12 + if value & HOUR_PM != 0 { 12 } else { 0 }
    }

    /// The registers as a time; what a guest wrote out of range is brought into range.
    fn time(&self) -> DateTime {
        let field = |register: usize| self.decode(self.memory[register]);
        let mut time = DateTime {
            year: u16::from(field(CENTURY)) % 100 * 100 + u16::from(field(YEAR)) % 100,
            month: field(MONTH).clamp(1, 12),
            day: field(DAY),
            hour: self.decode_hour(self.memory[HOURS]) % 24,
            minute: field(MINUTES) % 60,
            second: field(SECONDS) % 60,
        };
        time.day = time.day.clamp(1, time.days_in_month());
        time
    }

    fn store_time(&mut self, time: &DateTime, weekday: u8) {
        let hour = if self.memory[REGISTER_B] & B_24_HOURS != 0 {
            self.encode(time.hour)
        } else {
            let twelve = (time.hour + 11) % 12 + 1;
            self.encode(twelve) | if time.hour >= 12 { HOUR_PM } else { 0 }
        };
        for (register, value) in [
            (SECONDS, self.encode(time.second)),
            (MINUTES, self.encode(time.minute)),
            (HOURS, hour),
            (WEEKDAY, self.encode(weekday)),
            (DAY, self.encode(time.day)),
            (MONTH, self.encode(time.month)),
            (YEAR, self.encode((time.year % 100) as u8)),
            (CENTURY, self.encode((time.year / 100 % 100) as u8)),
        ] {
            self.memory[register] = value;
        }
    }

    /// Seconds from `now` (a second of the day) to the next alarm, 1 to 86400; `None` when its registers match no time.
    fn next_alarm(&self, now: u32) -> Option<u64> {
        // An alarm byte of 0xc0 to 0xff fits every time.
        let wanted = |register: usize| Some(self.memory[register]).filter(|value| *value < 0xc0);
        let hour = wanted(HOURS_ALARM).map(|value| u32::from(self.decode_hour(value)));
        let minute = wanted(MINUTES_ALARM).map(|value| u32::from(self.decode(value)));
        let second = wanted(SECONDS_ALARM).map(|value| u32::from(self.decode(value)));
        let fits = |wanted: Option<u32>, value: u32| wanted.is_none_or(|wanted| wanted == value);
        let mut at = now + 1;
        while at <= now + 86_400 {
            let of_day = at % 86_400;
            if !fits(hour, of_day / 3600) {
                at += 3600 - of_day % 3600;
            } else if !fits(minute, of_day / 60 % 60) {
                at += 60 - of_day % 60;
            } else if !fits(second, of_day % 60) {
                at += 1;
            } else {
                return Some(u64::from(at - now));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
