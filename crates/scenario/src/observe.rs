//! What is watched while a scenario runs: the transcript, the counts, and what its expectations say about the trace.
//!
//! Lists of a run's hypercalls and patches are bounded, because a guest can make millions; an expectation on a longer list fails.

use crate::file::Expect;
use serde::{Deserialize, Serialize};
use trace::{Event, Sink, Summary, SummaryRecord, Transcript, TranscriptRecord};

/// The most hypercalls and patches that are remembered one by one.
pub const MAX_LIST: usize = 4096;

/// Progress of one `expect` through the trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    /// Texts still to come, in order; the first `found` have been seen.
    sequence: Vec<String>,
    found: usize,
    /// Texts that must not occur, with the first line that has them.
    forbidden: Vec<(String, Option<String>)>,
}

/// A list with a bound.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounded {
    /// The first [`MAX_LIST`] values.
    pub values: Vec<u64>,
    /// How many there were.
    pub total: u64,
}

impl Bounded {
    fn push(&mut self, value: u64) {
        self.total += 1;
        if self.values.len() < MAX_LIST {
            self.values.push(value);
        }
    }
}

/// What was watched so far: what a checkpoint keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserverRecord {
    transcript: TranscriptRecord,
    summary: SummaryRecord,
    hypercalls: Bounded,
    patched: Bounded,
    watches: Vec<Watch>,
}

/// The sink of a scenario's run.
pub struct Observer<'s> {
    /// The first events, and a hash of all.
    pub transcript: Transcript,
    /// Counts and times.
    pub summary: Summary,
    /// Numbers of the hypercalls.
    pub hypercalls: Bounded,
    /// Guest-physical addresses of the patches.
    pub patched: Bounded,
    watches: Vec<Watch>,
    /// Exits and events whose numbers are expected.
    counted: (Vec<String>, Vec<String>),
    /// A second consumer of every event.
    also: Option<&'s mut dyn Sink>,
}

impl<'s> Observer<'s> {
    /// Watches for these expectations, keeps `cap` events, and hands every event to `also`.
    pub fn new(expectations: &[&Expect], cap: usize, also: Option<&'s mut dyn Sink>) -> Self {
        let watches = expectations
            .iter()
            .map(|expect| Watch {
                sequence: expect.trace.clone(),
                found: 0,
                forbidden: expect.trace_lacks.iter().map(|text| (text.clone(), None)).collect(),
            })
            .collect();
        Self {
            transcript: Transcript::new(cap),
            summary: Summary::new(),
            hypercalls: Bounded::default(),
            patched: Bounded::default(),
            watches,
            counted: (
                expectations.iter().flat_map(|expect| expect.exits.keys().cloned()).collect(),
                expectations.iter().flat_map(|expect| expect.events.keys().cloned()).collect(),
            ),
            also,
        }
    }

    /// What was watched so far.
    pub fn record(&self) -> ObserverRecord {
        ObserverRecord {
            transcript: self.transcript.record(),
            summary: self.summary.record(),
            hypercalls: self.hypercalls.clone(),
            patched: self.patched.clone(),
            watches: self.watches.clone(),
        }
    }

    /// Goes on from there. What is watched for are the expectations as they stand.
    pub fn restore(&mut self, record: ObserverRecord) {
        self.transcript.restore(record.transcript);
        self.summary = Summary::of_record(&record.summary, machine::watch::reason);
        (self.hypercalls, self.patched) = (record.hypercalls, record.patched);
        for list in [&mut self.hypercalls, &mut self.patched] {
            list.values.truncate(MAX_LIST);
            list.total = list.total.clamp(list.values.len() as u64, 1 << 50);
        }
        for (watch, before) in self.watches.iter_mut().zip(record.watches) {
            if watch.sequence == before.sequence && watch.forbidden.len() == before.forbidden.len() {
                *watch = Watch { found: before.found.min(before.sequence.len()), ..before };
            }
        }
    }

    /// Feeds what the verdict will depend on into a hasher.
    pub fn fingerprint(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (&self.hypercalls.values, self.hypercalls.total, &self.patched.values, self.patched.total).hash(into);
        for watch in &self.watches {
            (watch.found, watch.forbidden.iter().map(|(_, line)| line.is_some()).collect::<Vec<_>>()).hash(into);
        }
        for name in &self.counted.0 {
            self.summary.exits_with(name).hash(into);
        }
        for kind in trace::Kind::ALL.iter().filter(|kind| self.counted.1.iter().any(|name| name == kind.name())) {
            self.summary.count(*kind).hash(into);
        }
    }

    /// How many texts of the sequence of expectation `index` were found, in order.
    pub fn found(&self, index: usize) -> usize {
        self.watches[index].found
    }

    /// The forbidden texts of expectation `index`, each with the first line that has it.
    pub fn forbidden(&self, index: usize) -> &[(String, Option<String>)] {
        &self.watches[index].forbidden
    }
}

impl Sink for Observer<'_> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        match &event {
            Event::Hypercall { nr, .. } => self.hypercalls.push(*nr),
            Event::Patch { gpa, .. } => self.patched.push(*gpa),
            _ => {}
        }
        self.summary.note(cycle, vcpu, &event);
        if let Some(also) = &mut self.also {
            also.emit(cycle, vcpu, event.clone());
        }
        self.transcript.emit(cycle, vcpu, event);
        let line = self.transcript.last_line();
        for watch in &mut self.watches {
            if watch.sequence.get(watch.found).is_some_and(|text| line.contains(text.as_str())) {
                watch.found += 1;
            }
            for (text, first) in &mut watch.forbidden {
                if first.is_none() && line.contains(text.as_str()) {
                    *first = Some(line.to_owned());
                }
            }
        }
    }
}
