//! What a move was like: numbers by round, and what happened when.

use crate::link::Side;
use crate::live::{Mend, Mode};
use serde::{Deserialize, Serialize};

/// Where a guest is when its move is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It runs at the destination, and the source knows it.
    Moved,
    /// It runs at the destination, and the source does not know it.
    MovedInDoubt,
    /// It runs at the source.
    Stayed,
    /// It runs nowhere.
    Stranded,
    /// Its own run was over before the move was.
    #[default]
    Over,
}

impl Fate {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::MovedInDoubt => "moved-in-doubt",
            Self::Stayed => "stayed",
            Self::Stranded => "stranded",
            Self::Over => "over",
        }
    }

    /// Whether the guest runs at the destination.
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Moved | Self::MovedInDoubt)
    }
}

/// Where something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// At the source.
    Source,
    /// At the destination.
    Destination,
    /// On the link.
    Link,
}

impl At {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Link => "link",
        }
    }
}

impl From<Side> for At {
    fn from(side: Side) -> Self {
        match side {
            Side::Source => Self::Source,
            Side::Destination => Self::Destination,
        }
    }
}

/// One pass over the memory that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Its number, from one.
    pub number: u32,
    /// The cycle at which it began.
    pub start: u64,
    /// The cycle at which the destination had all of it.
    pub end: u64,
    /// Pages sent.
    pub pages: u64,
    /// Those of them that were not zero.
    pub full: u64,
    /// Bytes on the link, repetitions included.
    pub bytes: u64,
    /// Pages that the guest wrote meanwhile, and that remain to be sent.
    pub remaining: u64,
    /// Pages that the guest writes in a second.
    pub dirty_rate: u64,
    /// Nanoseconds that the guest would be paused if the rest were sent now.
    pub expected_downtime: u64,
    /// Percent of the time that virtual CPUs were held.
    pub throttle: u8,
}

impl Round {
    /// Cycles from beginning to end.
    pub fn cycles(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// When.
    pub cycle: u64,
    /// Where.
    pub at: At,
    /// What.
    pub what: String,
}

/// What a mark says of a host's death.
pub const HOST_DIES: &str = "the host dies";

/// A guest that was stranded, and what a person did about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mended {
    /// What was done.
    pub how: Mend,
    /// What had come of the move before.
    pub was: Fate,
}

/// A move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// CPU model that the guest came from.
    pub from: String,
    /// CPU model that it was to go to.
    pub to: String,
    /// Cycles in a second of the timeline.
    pub hertz: u64,
    /// How memory travelled.
    pub mode: Mode,
    /// The cycle at which the offer was made.
    pub start: u64,
    /// The cycle at which it was over.
    pub end: u64,
    /// The rounds of pre-copy.
    pub rounds: Vec<Round>,
    /// The cycle at which the guest was paused, for the last time.
    pub paused: Option<u64>,
    /// The cycle at which it ran again, here or there.
    pub resumed: Option<u64>,
    /// The cycle from which on it waits for ever for a page that is on the other host (post-copy).
    pub stuck: Option<u64>,
    /// Pages sent while it was paused.
    pub paused_pages: u64,
    /// Bytes of virtual CPUs and board.
    pub state_bytes: u64,
    /// Bytes that the source sent in all.
    pub bytes: u64,
    /// Frames that were sent again.
    pub repeats: u64,
    /// Frames that came damaged.
    pub damaged: u64,
    /// Pages that the guest waited for at the destination (post-copy).
    pub fetched: u64,
    /// Cycles that virtual CPUs waited for them, together.
    pub waited: u64,
    /// Pages that were pushed after the hand-over (post-copy).
    pub pushed: u64,
    /// What could not be carried, or only with a change.
    pub ledger: Vec<String>,
    /// What happened, in order.
    pub marks: Vec<Mark>,
    /// What a person did about it in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<Mended>,
    /// What came of it.
    pub outcome: Fate,
    /// The same in words.
    pub ending: String,
}

impl Report {
    /// Cycles that the guest ran nowhere; `None` if it was never paused, or never ran again.
    pub fn downtime(&self) -> Option<u64> {
        Some(self.resumed?.saturating_sub(self.paused?))
    }

    /// Cycles in nanoseconds.
    pub fn nanoseconds(&self, cycles: u64) -> u64 {
        crate::link::nanoseconds_of(cycles, self.hertz)
    }
}

/// Columns of the picture.
const WIDTH: u64 = 64;

/// Nanoseconds as people read them.
pub fn time_text(nanoseconds: u64) -> String {
    let (unit, name) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, tenths) = (nanoseconds / unit, nanoseconds % unit * 10 / unit);
    if whole < 100 { format!("{whole}.{tenths} {name}") } else { format!("{whole} {name}") }
}

/// A number as people read it.
fn count_text(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}K", number / 1000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

impl Report {
    fn time(&self, cycles: u64) -> String {
        time_text(self.nanoseconds(cycles))
    }

    /// A table of the rounds, a picture of where the guest ran, and what else there was.
    pub fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let _ = writeln!(text, "live move from {} to {}, {}: {}", self.from, self.to, self.mode.name(), self.ending);
        if !self.rounds.is_empty() {
            let _ = writeln!(
                text,
                "\n{:>6} {:>8} {:>8} {:>8} {:>9} {:>10} {:>9} {:>18} {:>9}",
                "round", "pages", "not zero", "bytes", "time", "remaining", "dirty/s", "expected downtime", "throttle"
            );
        }
        for round in &self.rounds {
            let _ = writeln!(
                text,
                "{:>6} {:>8} {:>8} {:>8} {:>9} {:>10} {:>9} {:>18} {:>8}%",
                round.number,
                round.pages,
                round.full,
                count_text(round.bytes),
                self.time(round.cycles()),
                round.remaining,
                count_text(round.dirty_rate),
                time_text(round.expected_downtime),
                round.throttle
            );
        }
        text += &self.picture();
        if let Some(downtime) = self.downtime() {
            let _ = writeln!(
                text,
                "paused for {} ({downtime} cycles), with {} pages and {} bytes of state sent meanwhile",
                self.time(downtime),
                self.paused_pages,
                self.state_bytes
            );
        }
        let _ = writeln!(text, "{} and {} bytes in all", self.time(self.end.saturating_sub(self.start)), count_text(self.bytes));
        if self.fetched + self.pushed > 0 {
            let _ = writeln!(
                text,
                "after the hand-over {} pages followed; the guest asked for {} and waited for {}",
                self.pushed,
                self.fetched,
                self.time(self.waited)
            );
        }
        if self.repeats + self.damaged > 0 {
            let _ = writeln!(text, "{} frames were sent again, {} came damaged", self.repeats, self.damaged);
        }
        for line in &self.ledger {
            let _ = writeln!(text, "ledger: {line}");
        }
        text
    }

    /// Where the guest ran, and which round was on the way: a column is a piece of time.
    fn picture(&self) -> String {
        use std::fmt::Write as _;
        let last = [Some(self.end), self.resumed, self.paused].into_iter().flatten().max().unwrap_or(0);
        // A little more than the move itself, so that what comes behind it shows.
        let span = last.saturating_sub(self.start).max(1);
        let span = span.saturating_add(span / 16 + 1);
        let moved = self.resumed.is_some() && self.outcome.is_there() || self.fetched + self.pushed > 0;
        let mut rows = [String::new(), String::new(), String::new()];
        for column in 0..WIDTH {
            let at = self.start.saturating_add(u64::try_from(u128::from(span) * u128::from(column) / u128::from(WIDTH)).unwrap_or(span));
            let round = self.rounds.iter().find(|round| (round.start..round.end).contains(&at)).map(|round| round.number);
            rows[0].push(match round {
                Some(number) => char::from_digit(number % 10, 10).unwrap_or('?'),
                None if self.paused.is_some_and(|paused| at >= paused) && self.resumed.is_none_or(|resumed| at < resumed) => '*',
                None if moved && self.pushed > 0 && self.resumed.is_some_and(|resumed| at >= resumed) && at < self.end => '+',
                None => ' ',
            });
            let paused = self.paused.is_some_and(|paused| at >= paused);
            let resumed = self.resumed.is_some_and(|resumed| at >= resumed);
            let stranded = self.outcome == Fate::Stranded && at >= self.end;
            let stuck = self.stuck.is_some_and(|stuck| at >= stuck);
            let (here, there) = match (paused, resumed) {
                _ if stranded => (' ', ' '),
                (false, _) => ('#', ' '),
                (true, false) => ('.', ' '),
                (true, true) if moved && stuck => (' ', '.'),
                (true, true) if moved => (' ', '#'),
                (true, true) => ('#', ' '),
            };
            rows[1].push(here);
            rows[2].push(there);
        }
        let mut text = String::from("\n");
        for (name, row) in ["round", "source", "destination"].iter().zip(&rows) {
            let _ = writeln!(text, "{name:>12} |{}", row.trim_end());
        }
        let end = self.time(span);
        let _ = writeln!(text, "{:>12} 0{:>width$}   # runs, . waits, 1-9 round, * rest, + follows", "", end, width = WIDTH as usize - 1);
        text += "\n";
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_short() {
        let shown: Vec<String> = [0, 999, 1500, 99_999, 100_000, 12_345_678, 3_000_000_000].map(time_text).into();
        assert_eq!(shown, ["0 ns", "999 ns", "1.5 us", "99.9 us", "100 us", "12.3 ms", "3.0 s"]);
        assert_eq!([9_999, 10_000, 9_999_999, 10_000_000].map(count_text), ["9999", "10K", "9999K", "10M"]);
    }

    #[test]
    fn the_picture_shows_where_the_guest_ran() {
        let round = |number, start, end| Round { number, start, end, pages: 10, ..Round::default() };
        let report = Report {
            outcome: Fate::Moved,
            hertz: 1_000_000_000,
            rounds: vec![round(1, 0, 4000), round(2, 4000, 5000)],
            paused: Some(5000),
            resumed: Some(6000),
            end: 6200,
            ..Report::default()
        };
        let text = report.text();
        let rows: Vec<&str> = text.lines().filter(|line| line.contains('|')).collect();
        assert!(rows[0].contains("1112222") && rows[0].contains("22**"), "{text}");
        assert!(rows[1].contains("##..") && !rows[1].contains(".#"), "{text}");
        assert!(rows[2].ends_with("##"), "{text}");
        let stayed = Report { outcome: Fate::Stayed, ..report };
        assert!(stayed.text().lines().any(|line| line.contains("source") && line.contains("..##")), "{}", stayed.text());
    }
}
