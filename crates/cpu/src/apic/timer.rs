//! The APIC timer.
//!
//! Source: SDM 11.5.4 "APIC Timer", 11.5.4.1 "TSC-Deadline Mode".
//! What is modelled: one-shot, periodic and TSC-deadline modes, the divide configuration, counts exact to the cycle. The time-stamp
//! counter runs at one tick per cycle. The reserved mode 3 counts as one-shot. What is not: the timer's stop in deep sleep states.

use serde::{Deserialize, Serialize};

/// LVT bit 17: periodic.
const LVT_PERIODIC: u32 = 1 << 17;
/// LVT bit 18: TSC-deadline.
pub(super) const LVT_TSC_DEADLINE: u32 = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

/// The timer's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    cycles_per_bus_clock: u32,
    mode: Mode,
    divide: u32,
    initial: u32,
    /// The count at cycle `since`; zero when stopped.
    count: u32,
    since: u64,
    /// The value of IA32_TSC_DEADLINE, and the cycle at which the counter reaches it; zero when not armed.
    deadline: u64,
    deadline_cycle: u64,
}

impl Timer {
    pub fn new(cycles_per_bus_clock: u32) -> Self {
        Self {
            cycles_per_bus_clock: cycles_per_bus_clock.max(1),
            mode: Mode::OneShot,
            divide: 0,
            initial: 0,
            count: 0,
            since: 0,
            deadline: 0,
            deadline_cycle: 0,
        }
    }

    /// Whether this is its input clock.
    pub fn has_clock(&self, cycles_per_bus_clock: u32) -> bool {
        self.cycles_per_bus_clock == cycles_per_bus_clock.max(1)
    }

    pub fn initial_count(&self) -> u32 {
        self.initial
    }

    pub fn divide(&self) -> u32 {
        self.divide
    }

    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// The count at `now`, up to which the timer has been run. In TSC-deadline mode it is always zero.
    pub fn current_count(&self, now: u64) -> u32 {
        let elapsed = now.saturating_sub(self.since) / self.cycles_per_count();
        u64::from(self.count).saturating_sub(elapsed) as u32
    }

    /// A write of the initial-count register. In TSC-deadline mode it is ignored.
    pub fn start(&mut self, initial: u32, now: u64) {
        if self.mode != Mode::TscDeadline {
            self.initial = initial;
            self.count = initial;
            self.since = now;
        }
    }

    /// A write of the divide configuration register: the present count goes on at the new rate.
    pub fn set_divide(&mut self, divide: u32, now: u64) {
        self.count = self.current_count(now);
        self.since = now;
        self.divide = divide;
    }

    /// The LVT entry was written: its mode. A change to or from TSC-deadline mode disarms the timer.
    pub fn set_mode(&mut self, entry: u32) {
        let mode = match (entry & LVT_TSC_DEADLINE != 0, entry & LVT_PERIODIC != 0) {
            (false, true) => Mode::Periodic,
            (true, false) => Mode::TscDeadline,
            _ => Mode::OneShot,
        };
        if (mode == Mode::TscDeadline) != (self.mode == Mode::TscDeadline) {
            self.initial = 0;
            self.count = 0;
            self.deadline = 0;
        }
        self.mode = mode;
    }

    /// A write of IA32_TSC_DEADLINE when the counter is `tsc`. Zero disarms; a time that has passed expires at once.
    pub fn set_deadline(&mut self, deadline: u64, tsc: u64, now: u64) {
        if self.mode == Mode::TscDeadline {
            self.deadline = deadline;
            self.deadline_cycle = now.saturating_add(deadline.saturating_sub(tsc));
        }
    }

    /// The cycle at which the timer expires next.
    pub fn expiry(&self) -> Option<u64> {
        match self.mode {
            Mode::TscDeadline => (self.deadline != 0).then_some(self.deadline_cycle),
            // A count too long for simulated time never ends.
            _ => match self.count {
                0 => None,
                count => self.since.checked_add(self.cycles(count)?),
            },
        }
    }

    /// Runs up to `now`; true when the timer expired, once or more often.
    pub fn advance(&mut self, now: u64) -> bool {
        let Some(expiry) = self.expiry().filter(|expiry| *expiry <= now) else { return false };
        match self.mode {
            Mode::TscDeadline => self.deadline = 0,
            Mode::OneShot => self.count = 0,
            Mode::Periodic => {
                self.count = self.initial;
                self.since = expiry;
                if let Some(period) = self.cycles(self.initial).filter(|period| *period > 0) {
                    self.since += (now - expiry) / period * period;
                }
            }
        }
        true
    }

    fn cycles(&self, count: u32) -> Option<u64> {
        u64::from(count).checked_mul(self.cycles_per_count())
    }

    /// Table "Divide Configuration Register": bits 3, 1 and 0 are 2, 4, 8, 16, 32, 64, 128, 1.
    fn cycles_per_count(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        u64::from(self.cycles_per_bus_clock) << ((code + 1) & 7)
    }
}
