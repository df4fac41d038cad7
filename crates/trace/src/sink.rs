//! Where events go: nowhere, into a bounded transcript, into a writer, or to two places at once.
//!
//! A machine emits into `&mut dyn Sink` and never asks what becomes of it. Nothing is formatted unless a sink writes text.

use crate::event::{Event, Record, VERSION};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io;

/// A consumer of events.
pub trait Sink {
    /// Takes one event; `cycle` is the simulated time of CPU `vcpu`.
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event);
}

/// Throws every event away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignore;

impl Sink for Ignore {
    fn emit(&mut self, _: u64, _: u32, _: Event) {}
}

/// Keeps every event, for tests and short runs.
impl Sink for Vec<Record> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        self.push(Record { cycle, vcpu, event });
    }
}

/// Hands every event to the first, then to the second.
#[derive(Clone, Debug, Default)]
pub struct Tee<A, B>(pub A, pub B);

impl<A: Sink, B: Sink> Sink for Tee<A, B> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        self.0.emit(cycle, vcpu, event.clone());
        self.1.emit(cycle, vcpu, event);
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        (**self).emit(cycle, vcpu, event);
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        (**self).emit(cycle, vcpu, event);
    }
}

impl<S: Sink> Sink for Option<S> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        if let Some(sink) = self {
            sink.emit(cycle, vcpu, event);
        }
    }
}

/// What a transcript is so far: what a checkpoint keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscriptRecord {
    /// Lines of the events that are kept.
    lines: Vec<String>,
    /// How many events there were in all.
    total: u64,
    /// The hash of all canonical lines.
    hash: u64,
}

/// Keeps the first events of a run, and the count and a hash of all of them, so that a snapshot stays small and still notices a change
/// anywhere in the run.
///
/// The hash is FNV-1a in 64 bits (offset basis 0xcbf29ce484222325, prime 0x100000001b3) over the canonical lines of every event, each
/// with its newline.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// Lines of the events in front of a checkpoint.
    before: Vec<String>,
    kept: Vec<Record>,
    cap: usize,
    total: u64,
    hash: u64,
    line: String,
}

impl Transcript {
    /// Keeps at most `cap` events.
    pub fn new(cap: usize) -> Self {
        Self { before: Vec::new(), kept: Vec::new(), cap, total: 0, hash: 0xcbf2_9ce4_8422_2325, line: String::new() }
    }

    /// What it is so far.
    pub fn record(&self) -> TranscriptRecord {
        let lines = self.before.iter().cloned().chain(self.kept.iter().map(Record::to_string)).collect();
        TranscriptRecord { lines, total: self.total, hash: self.hash }
    }

    /// Goes on from there: no events but those behind it are kept, beside the lines in front of it.
    pub fn restore(&mut self, record: TranscriptRecord) {
        self.before = record.lines;
        self.before.truncate(self.cap);
        self.kept.clear();
        (self.total, self.hash) = (record.total.clamp(self.before.len() as u64, 1 << 50), record.hash);
    }

    /// The events kept, in order; those in front of a checkpoint left out.
    pub fn records(&self) -> &[Record] {
        &self.kept
    }

    /// How many events there were in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The hash of all canonical lines so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The canonical line of the latest event, without its newline; empty before the first.
    pub fn last_line(&self) -> &str {
        self.line.trim_end_matches('\n')
    }

    /// The canonical text: the lines kept and, if there were more, one line with their number and the hash of the whole.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.before {
            let _ = writeln!(text, "{line}");
        }
        for record in &self.kept {
            let _ = writeln!(text, "{record}");
        }
        let more = self.total.saturating_sub((self.before.len() + self.kept.len()) as u64);
        if more > 0 {
            let _ = writeln!(text, "... {more} more events, FNV-1a of the whole text {:#018x}", self.hash);
        }
        text
    }
}

impl Sink for Transcript {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        let record = Record { cycle, vcpu, event };
        self.line.clear();
        let _ = writeln!(self.line, "{record}");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.total += 1;
        if self.before.len() + self.kept.len() < self.cap {
            self.kept.push(record);
        }
    }
}

/// How a [`Writer`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The canonical text, one line per event.
    Text,
    /// One JSON object per line after a header line `{"format":"trapline-trace","schema_version":1}`; numbers that can exceed 2^53 are
    /// strings such as `"0x10"`.
    Ndjson,
}

/// Writes events as they come. The first error of the writer ends the writing and is kept for [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    format: Format,
    error: Option<io::Error>,
}

impl<W: io::Write> Writer<W> {
    /// A writer in this format; NDJSON begins with its header line at once.
    pub fn new(mut output: W, format: Format) -> Self {
        let error = match format {
            Format::Text => None,
            Format::Ndjson => writeln!(output, "{{\"format\":\"trapline-trace\",\"schema_version\":{VERSION}}}").err(),
        };
        Self { output, format, error }
    }

    /// Flushes, and reports the first error of any write.
    pub fn finish(mut self) -> io::Result<W> {
        match self.error {
            Some(error) => Err(error),
            None => self.output.flush().map(|()| self.output),
        }
    }
}

impl<W: io::Write> Sink for Writer<W> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        if self.error.is_some() {
            return;
        }
        let record = Record { cycle, vcpu, event };
        let result = match self.format {
            Format::Text => writeln!(self.output, "{record}"),
            Format::Ndjson => writeln!(self.output, "{}", record.to_json()),
        };
        self.error = result.err();
    }
}
