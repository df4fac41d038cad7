//! Finding a cost model, changing a row, and printing the table with the source of every number.
//!
//! What is printed comes from the rows of `rows.rs`; there is no second list.

use crate::cost::{Cost, TICKS_PER_CYCLE, Ticks, Why};
use crate::models::MODELS;
use crate::rows::{CostModel, Group};
use core::fmt::Write as _;

/// No cost model has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cost model `{name}`; there are {known}")]
pub struct UnknownCostModel {
    /// What was asked for.
    pub name: String,
    /// The names there are, separated by commas.
    pub known: String,
}

/// Why a row could not be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// No row has that name.
    #[error("no cost row `{name}`{hint}")]
    UnknownRow {
        /// What was asked for.
        name: String,
        /// Empty, or `; did you mean ...?`.
        hint: String,
    },
    /// The number does not fit in a row.
    #[error("{cycles} cycles for `{name}` is more than the {limit} a row can hold")]
    TooLarge {
        /// The row.
        name: String,
        /// The number asked for.
        cycles: u64,
        /// The largest number.
        limit: u64,
    },
    /// The event cannot happen on this processor, so a cost for it would never be charged.
    #[error("`{name}` cannot happen on this processor: {reason}")]
    Absent {
        /// The row.
        name: String,
        /// The table's reason.
        reason: &'static str,
    },
}

impl CostModel {
    /// The model of that name.
    ///
    /// # Errors
    /// Says which names there are.
    pub fn by_name(name: &str) -> Result<&'static Self, UnknownCostModel> {
        MODELS.iter().copied().find(|model| model.name == name).ok_or_else(|| UnknownCostModel {
            name: name.to_owned(),
            known: MODELS.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Replaces a row by a scenario's number of cycles. The row's source becomes [`Why::Scenario`].
    ///
    /// # Errors
    /// The row must exist, must be possible on this processor, and must be able to hold the number.
    pub fn set_cycles(&mut self, name: &str, cycles: u64) -> Result<(), OverrideError> {
        let limit = u64::from(u32::MAX) / TICKS_PER_CYCLE;
        let nearest = self.nearest(name);
        let row = self.row_mut(name).ok_or_else(|| OverrideError::UnknownRow {
            name: name.to_owned(),
            hint: nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?")),
        })?;
        if let Why::Absent(reason) = row.why {
            return Err(OverrideError::Absent { name: name.to_owned(), reason });
        }
        let amount = u32::try_from(cycles).ok().filter(|&amount| u64::from(amount) <= limit).ok_or_else(|| OverrideError::TooLarge {
            name: name.to_owned(),
            cycles,
            limit,
        })?;
        *row = Cost::in_cycles(amount, Why::Scenario("replaced by the scenario"));
        Ok(())
    }

    /// The row whose name begins with or contains what was typed, or is contained in it.
    fn nearest(&self, name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return None;
        }
        self.rows()
            .map(|row| row.name)
            .filter(|known| known.contains(name) || name.contains(known))
            .min_by_key(|known| known.len().abs_diff(name.len()))
    }

    /// How many rows have a source of that kind.
    pub fn count(&self, kind: &str) -> usize {
        self.rows().filter(|row| row.cost.why.kind() == kind).count()
    }

    /// The whole table as text: group, row, cycles, kind of source, source.
    pub fn report(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {} (1 cycle = {TICKS_PER_CYCLE} ticks)", self.name, self.title);
        let mut group = None;
        for row in self.rows() {
            if group != Some(row.group) {
                group = Some(row.group);
                let _ = writeln!(text, "\n{}", heading(row.group));
            }
            let time: Ticks = row.cost.time();
            let _ = writeln!(text, "  {:<26} {:>9}  {:<8}  {}", row.name, time, row.cost.why.kind(), row.cost.why.text());
        }
        let _ = writeln!(
            text,
            "\nrows: {} measured, {} manual, {} assumed, {} absent",
            self.count("measured"),
            self.count("manual"),
            self.count("assumed"),
            self.count("absent")
        );
        text
    }
}

/// The line above a group.
const fn heading(group: Group) -> &'static str {
    match group {
        Group::Instruction => "Instruction classes (cycles, in quarters)",
        Group::Event => "Events of the silicon (cycles)",
        Group::Software => "Work of the hypervisor (cycles)",
    }
}
