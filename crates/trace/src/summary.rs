//! Counts of events and times per exit reason: the table of `perf kvm stat report`, over simulated cycles.
//!
//! The time of an exit is, as there, from its `kvm_exit` to the next `kvm_entry` of the same CPU; `vm_exit` and `vm_entry` of a guest
//! that is itself a hypervisor are counted the same way. A summary formats nothing while it counts, so it can watch every run.

use crate::event::{Event, Kind};
use crate::sink::Sink;
use crate::value::Name;
use serde::Serialize;
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

    /// How many events of this kind there were.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
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
