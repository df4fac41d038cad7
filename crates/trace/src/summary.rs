//! Counts of events and times per exit reason: the table of `perf kvm stat report`, over simulated cycles.
//!
//! The time of an exit is, as there, from its `kvm_exit` to the next `kvm_entry` of the same CPU; `vm_exit` and `vm_entry` of a guest
//! that is itself a hypervisor are counted the same way. A summary formats nothing while it counts, so it can watch every run.

use crate::event::{Event, Kind};
use crate::sink::Sink;
use crate::value::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is known of the exits with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExitStatistics {
    /// The reason.
    pub reason: Name,
    /// How many exits.
    pub samples: u64,
    /// How many of them were followed by an entry, and so have a time.
    pub timed: u64,
    /// Cycles of all timed exits.
    pub total: u64,
    /// Fewest cycles of one exit; 0 when none was timed.
    pub minimum: u64,
    /// Most cycles of one exit.
    pub maximum: u64,
    /// Sum of the squares, for the deviation.
    #[serde(skip)]
    squares: u128,
}

impl ExitStatistics {
    fn new(reason: Name) -> Self {
        Self { reason, samples: 0, timed: 0, total: 0, minimum: 0, maximum: 0, squares: 0 }
    }

    fn add_time(&mut self, cycles: u64) {
        self.minimum = if self.timed == 0 { cycles } else { self.minimum.min(cycles) };
        self.maximum = self.maximum.max(cycles);
        self.timed += 1;
        self.total = self.total.saturating_add(cycles);
        self.squares = self.squares.saturating_add(u128::from(cycles) * u128::from(cycles));
    }

    /// Mean cycles of a timed exit.
    pub fn mean(&self) -> f64 {
        if self.timed == 0 { 0.0 } else { self.total as f64 / self.timed as f64 }
    }

    /// Standard deviation of the mean, in per cent of the mean, as `perf` prints it.
    pub fn relative_deviation(&self) -> f64 {
        if self.timed < 2 || self.total == 0 {
            return 0.0;
        }
        let count = u128::from(self.timed);
        let total = u128::from(self.total);
        // Exact integers up to the division, so that the figure is the same on every host.
        let spread = (count.saturating_mul(self.squares)).saturating_sub(total.saturating_mul(total));
        let variance = spread as f64 / (count * (count - 1)) as f64;
        (variance / count as f64).sqrt() / self.mean() * 100.0
    }
}

/// What was counted so far: what a checkpoint keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummaryRecord {
    /// How many events of each kind, by its name.
    kinds: BTreeMap<String, u64>,
    exits: Vec<ExitRecord>,
    open: Vec<Option<(usize, u64)>>,
}

/// See [`ExitStatistics`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitRecord {
    reason: String,
    samples: u64,
    timed: u64,
    total: u64,
    minimum: u64,
    maximum: u64,
    squares: u128,
}

/// Counts of every kind of event, and statistics of exits.
#[derive(Clone, Debug)]
pub struct Summary {
    kinds: [u64; Kind::ALL.len()],
    exits: Vec<ExitStatistics>,
    /// Index of the reason seen last.
    last: usize,
    /// Per CPU: the exit that waits for its entry.
    open: Vec<Option<(usize, u64)>>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { kinds: [0; Kind::ALL.len()], exits: Vec::new(), last: 0, open: Vec::new() }
    }
}

impl Summary {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was counted so far.
    pub fn record(&self) -> SummaryRecord {
        let kinds = Kind::ALL.iter().map(|kind| (kind.name().to_owned(), self.count(*kind))).filter(|(_, count)| *count > 0);
        let exits = self.exits.iter().map(|row| {
            let ExitStatistics { reason, samples, timed, total, minimum, maximum, squares } = *row;
            ExitRecord { reason: reason.to_string(), samples, timed, total, minimum, maximum, squares }
        });
        SummaryRecord { kinds: kinds.collect(), exits: exits.collect(), open: self.open.clone() }
    }

    /// Goes on from there. `name` knows the reasons of exits by their text; what it does not know is left out.
    pub fn of_record(record: &SummaryRecord, name: impl Fn(&str) -> Option<Name>) -> Self {
        // A record may come from anywhere: more than this nobody counts, and nothing overflows on top of it.
        let counted = |count: u64| count.min(1 << 50);
        let mut summary = Self::new();
        for kind in Kind::ALL {
            summary.kinds[*kind as usize] = counted(record.kinds.get(kind.name()).copied().unwrap_or(0));
        }
        // Where each row of the record went.
        let mut places = Vec::new();
        for row in &record.exits {
            let ExitRecord { total, minimum, maximum, squares, .. } = *row;
            let (samples, timed) = (counted(row.samples), counted(row.timed));
            places.push(name(&row.reason).map(|reason| {
                summary.exits.push(ExitStatistics { reason, samples, timed, total, minimum, maximum, squares });
                summary.exits.len() - 1
            }));
        }
        let place = |open: &(usize, u64)| Some((places.get(open.0).copied().flatten()?, open.1));
        summary.open = record.open.iter().map(|open| open.as_ref().and_then(place)).collect();
        summary
    }

    /// How many events of this kind there were.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    /// How many events there were in all.
    pub fn total(&self) -> u64 {
        self.kinds.iter().sum()
    }

    /// How many exits there were in all.
    pub fn exits(&self) -> u64 {
        self.count(Kind::Exit) + self.count(Kind::SiliconExit)
    }

    /// How many exits had this reason.
    pub fn exits_with(&self, reason: &str) -> u64 {
        self.exits.iter().filter(|exit| exit.reason.to_string() == reason).map(|exit| exit.samples).sum()
    }

    /// Every reason seen, the most frequent first, ties by name.
    pub fn statistics(&self) -> Vec<&ExitStatistics> {
        let mut rows: Vec<_> = self.exits.iter().collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.samples), row.reason));
        rows
    }

    /// The table of `perf kvm stat report`, with cycles in the place of microseconds.
    pub fn table(&self) -> String {
        let samples: u64 = self.exits.iter().map(|row| row.samples).sum();
        let time: u64 = self.exits.iter().map(|row| row.total).fold(0, u64::saturating_add);
        let share = |part: u64, whole: u64| {
            if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
        };
        let mut text = String::from("Analyze events for all VMs, all VCPUs (times in cycles):\n\n");
        let _ = writeln!(
            text,
            "{:>24} {:>10} {:>9} {:>9} {:>10} {:>10} {:>22}\n",
            "VM-EXIT", "Samples", "Samples%", "Time%", "Min Time", "Max Time", "Avg time"
        );
        for row in self.statistics() {
            let average = format!("{:.2} ( +- {:6.2}% )", row.mean(), row.relative_deviation());
            let _ = writeln!(
                text,
                "{:>24} {:>10} {:>8.2}% {:>8.2}% {:>10} {:>10} {average:>22}",
                row.reason.to_string(),
                row.samples,
                share(row.samples, samples),
                share(row.total, time),
                row.minimum,
                row.maximum,
            );
        }
        let _ = writeln!(text, "\nTotal Samples:{samples}, Total events handled time:{time} cycles.");
        text
    }

    fn exit(&mut self, cycle: u64, vcpu: u32, reason: Name) {
        if self.exits.get(self.last).is_none_or(|row| row.reason != reason) {
            self.last = self.exits.iter().position(|row| row.reason == reason).unwrap_or_else(|| {
                self.exits.push(ExitStatistics::new(reason));
                self.exits.len() - 1
            });
        }
        let index = self.last;
        self.exits[index].samples += 1;
        let vcpu = vcpu as usize;
        if self.open.len() <= vcpu {
            self.open.resize(vcpu + 1, None);
        }
        self.open[vcpu] = Some((index, cycle));
    }

    fn entry(&mut self, cycle: u64, vcpu: u32) {
        if let Some((index, start)) = self.open.get_mut(vcpu as usize).and_then(Option::take) {
            self.exits[index].add_time(cycle.saturating_sub(start));
        }
    }
}

impl Summary {
    /// Counts an event without taking it.
    pub fn note(&mut self, cycle: u64, vcpu: u32, event: &Event) {
        self.kinds[event.kind() as usize] += 1;
        match event {
            Event::Exit { reason, .. } | Event::SiliconExit { reason, .. } => self.exit(cycle, vcpu, *reason),
            Event::Entry { .. } | Event::SiliconEntry { .. } => self.entry(cycle, vcpu),
            _ => {}
        }
    }
}

impl Sink for Summary {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        self.note(cycle, vcpu, &event);
    }
}
