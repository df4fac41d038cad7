//! The unit of time, one cost with its source, and the running sum that knows how much of it is assumed.
//!
//! Integers only: the same additions give the same time on every machine.

use core::fmt;
use core::ops::{Add, AddAssign, Mul};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

/// Ticks in one cycle. Four, so that the smallest cost (one tick) lets a four-wide core retire four instructions in a cycle.
pub const TICKS_PER_CYCLE: u64 = 4;

/// An amount of simulated time in quarters of a core cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticks(pub u64);

impl Ticks {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// That many whole cycles; saturates at the largest time that can be told.
    pub const fn from_cycles(cycles: u64) -> Self {
        Self(cycles.saturating_mul(TICKS_PER_CYCLE))
    }

    /// The whole cycles that have passed, rounded down.
    pub const fn cycles(self) -> u64 {
        self.0 / TICKS_PER_CYCLE
    }

    /// The sum, or the largest time that can be told.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero where `other` is the longer time.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Ticks {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl Mul<u64> for Ticks {
    type Output = Self;
    fn mul(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

/// In cycles, with quarters where there are any: `3`, `0.25`.
impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (self.0 % TICKS_PER_CYCLE) * 100 / TICKS_PER_CYCLE;
        let text = if hundredths == 0 { format!("{}", self.cycles()) } else { format!("{}.{hundredths:02}", self.cycles()) };
        f.pad(&text)
    }
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "source", rename_all = "snake_case")]
pub enum Why {
    /// Somebody measured it, on this core or on the one named in the text.
    Measured(&'static str),
    /// A vendor's manual or a published table says so.
    Manual(&'static str),
    /// Nobody we can name measured it: the reasoning behind the guess.
    Assumed(&'static str),
    /// The event cannot happen on this processor: why not. The cost is zero.
    Absent(&'static str),
    /// The scenario replaced the number. The text is fixed; the trace names the row and the value.
    Scenario(&'static str),
}

impl Why {
    /// The kind in one lower-case word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Manual(_) => "manual",
            Self::Assumed(_) => "assumed",
            Self::Absent(_) => "absent",
            Self::Scenario(_) => "scenario",
        }
    }

    /// The source or the reasoning.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Measured(text) | Self::Manual(text) | Self::Assumed(text) | Self::Absent(text) | Self::Scenario(text) => text,
        }
    }

    /// True for a number that rests on nobody's measurement or table. A scenario's own number counts as assumed.
    pub const fn is_assumed(&self) -> bool {
        matches!(self, Self::Assumed(_) | Self::Scenario(_))
    }
}

/// What one instruction, event or piece of work costs, and where the number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The time, in quarters of a cycle.
    pub ticks: u32,
    /// The source of the number.
    pub why: Why,
}

impl Cost {
    /// A cost in quarters of a cycle: for instruction classes.
    pub const fn in_ticks(ticks: u32, why: Why) -> Self {
        Self { ticks, why }
    }

    /// A cost in whole cycles: for events and for work. Saturates.
    pub const fn in_cycles(cycles: u32, why: Why) -> Self {
        Self { ticks: cycles.saturating_mul(TICKS_PER_CYCLE as u32), why }
    }

    /// The row of an event that cannot happen on this processor.
    pub const fn absent(reason: &'static str) -> Self {
        Self { ticks: 0, why: Why::Absent(reason) }
    }

    /// The time it takes, in quarters of a cycle: what a processor charges.
    pub const fn ticks(&self) -> u64 {
        self.ticks as u64
    }

    /// The time it takes.
    pub const fn time(&self) -> Ticks {
        Ticks(self.ticks as u64)
    }
}

/// As cycles (a decimal string, since quarters are exact in it), kind and source.
impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Cost", 3)?;
        fields.serialize_field("cycles", &self.time().to_string())?;
        fields.serialize_field("kind", self.why.kind())?;
        fields.serialize_field("source", self.why.text())?;
        fields.end()
    }
}

/// A sum of costs that remembers how much of it is assumed. A block's static charge is such a sum, computed when it is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// All of the time.
    pub total: Ticks,
    /// The part of `total` whose cost rows are [`Why::Assumed`] or [`Why::Scenario`].
    pub assumed: Ticks,
}

impl Charge {
    /// Nothing charged.
    pub const ZERO: Self = Self { total: Ticks::ZERO, assumed: Ticks::ZERO };

    /// Adds `cost`, `count` times.
    pub fn add(&mut self, cost: &Cost, count: u64) {
        let time = cost.time() * count;
        self.total += time;
        if cost.why.is_assumed() {
            self.assumed += time;
        }
    }

    /// The share of the time that rests on assumed numbers, in tenths of a percent (0 to 1000), rounded down. Nothing charged: 0.
    pub const fn share_assumed(&self) -> u32 {
        if self.total.0 == 0 {
            return 0;
        }
        // 128 bits: a time near the largest one times a thousand must not wrap.
        (self.assumed.0 as u128 * 1000 / self.total.0 as u128) as u32
    }
}

impl From<Cost> for Charge {
    fn from(cost: Cost) -> Self {
        let mut charge = Self::ZERO;
        charge.add(&cost, 1);
        charge
    }
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.assumed += other.assumed;
    }
}
