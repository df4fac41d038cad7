//! Conversion between CPU cycles, the unit of simulated time, and the ticks of a device's own oscillator.
//!
//! What is modelled: ideal oscillators that all started at cycle 0. Integers only, so every host computes the same tick.

use serde::{Deserialize, Serialize};

/// The frequency of an oscillator in hertz, as an exact fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frequency {
    /// Numerator, in hertz.
    pub numerator: u32,
    /// Denominator; never zero.
    pub denominator: u32,
}

impl Frequency {
    /// The ACPI power-management timer: a quarter of the PC's 14.31818 MHz crystal (ACPI 4.8.2.1 "Power Management Timer").
    pub const PM_TIMER: Self = Self { numerator: 3_579_545, denominator: 1 };
    /// The 8254's input: a twelfth of the PC's 14.31818 MHz crystal, 1193181.67 Hz.
    pub const PIT: Self = Self { numerator: 3_579_545, denominator: 3 };
    /// The real-time clock's crystal.
    pub const RTC: Self = Self { numerator: 32_768, denominator: 1 };
}

/// The conversion: how many cycles a second has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    cycles_per_second: u64,
}

impl Clock {
    /// A clock of `cycles_per_second`; zero is taken as one, so that no conversion divides by zero.
    pub const fn new(cycles_per_second: u64) -> Self {
        Self { cycles_per_second: if cycles_per_second == 0 { 1 } else { cycles_per_second } }
    }

    /// Cycles in a second.
    pub const fn cycles_per_second(&self) -> u64 {
        self.cycles_per_second
    }

    /// How many ticks of `frequency` are complete at cycle `now`; saturates.
    pub fn ticks(&self, now: u64, frequency: Frequency) -> u64 {
        let ticks = u128::from(now) * u128::from(frequency.numerator)
            / (u128::from(self.cycles_per_second) * u128::from(frequency.denominator.max(1)));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The first cycle at which `tick` ticks of `frequency` are complete; `None` beyond the end of simulated time.
    pub fn cycle_of(&self, tick: u64, frequency: Frequency) -> Option<u64> {
        let per_tick = u128::from(self.cycles_per_second) * u128::from(frequency.denominator);
        let cycles = u128::from(tick).checked_mul(per_tick)?.div_ceil(u128::from(frequency.numerator.max(1)));
        u64::try_from(cycles).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_complete_at_its_cycle_and_not_before() {
        for cycles_per_second in [1, 1_000, 3_579_545, 2_000_000_000, 3_000_000_001] {
            let clock = Clock::new(cycles_per_second);
            for frequency in [Frequency::PIT, Frequency::PM_TIMER, Frequency::RTC] {
                for tick in [1, 2, 3, 1_000, 65_537, 1 << 40] {
                    let cycle = clock.cycle_of(tick, frequency).unwrap();
                    assert!(clock.ticks(cycle, frequency) >= tick, "{cycles_per_second} {frequency:?} {tick}");
                    assert!(clock.ticks(cycle - 1, frequency) < tick, "{cycles_per_second} {frequency:?} {tick}");
                }
            }
        }
    }

    #[test]
    fn the_end_of_time_saturates() {
        let clock = Clock::new(0);
        assert_eq!(clock.ticks(u64::MAX, Frequency::PIT), u64::MAX);
        assert_eq!(Clock::new(u64::MAX).cycle_of(u64::MAX, Frequency::RTC), None);
    }
}
