//! Pages of memory: what is zero or was there before is not stored, the rest is compressed in batches.
//!
//! The contents of a section of pages:
//!
//! ```text
//!  4  number of runs
//! 24  each run, frames ascending:
//!      1  kind: 0 zero, 1 stored, 2 the same as another
//!      3  zero
//!      4  how many frames
//!      8  the first frame
//!      8  of kind 2 the frame that all of them equal as the stream stands here; else zero
//!  m  the stored pages one behind the other: as they are, or one zstd frame
//! ```
//!
//! Batches are made and compressed in parallel, and come out in order: which pages share a batch, which is the first of several that are
//! equal, and every byte depend on the frames and their contents alone.

use crate::error::{Error, Problem};
use crate::section::{Section, decompress};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// The most pages that a section tells of.
pub const BATCH: usize = 256;

/// Batches that are worked on together.
const GROUP: usize = 16;

/// How hard zstd tries. What is gained by more is less than the time it takes.
const LEVEL: i32 = 1;

const RUN_BYTES: usize = 24;

pub(crate) const MAXIMUM_RAW: u64 = (BATCH * PAGE_BYTES) as u64;

/// The table of runs and the pages as they are: compressed ones are fewer.
pub(crate) const MAXIMUM_STORED: u64 = MAXIMUM_RAW + (4 + BATCH * RUN_BYTES) as u64;

static ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// What pages may be said to equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// Earlier pages of the same section: each can be read by itself.
    OfSection,
    /// Earlier pages of the same call of [`encode`]: its sections must be read in order, and all of them.
    OfCall,
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Zeros.
    Zero,
    /// These bytes.
    Data(&'a [u8; PAGE_BYTES]),
    /// What the frame of this number holds, as the stream stands here.
    Same(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zero,
    Data,
    Same(u64),
}

#[derive(Clone, Copy, Debug)]
struct Run {
    kind: Kind,
    first: u64,
    count: u32,
}

/// The pages of one section, decoded.
#[derive(Clone, Debug)]
pub struct Batch {
    runs: Vec<Run>,
    data: Vec<u8>,
}

/// Makes sections out of frames, in ascending order without repetitions, and hands out each. A page that is `None` is zero.
///
/// # Errors
/// The name cannot name a section, or `emit`'s.
pub fn encode<'a, E: From<Error>>(
    name: &str,
    version: u16,
    frames: &[u64],
    duplicates: Duplicates,
    page: impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync,
    mut emit: impl FnMut(Section) -> Result<(), E>,
) -> Result<(), E> {
    // The first frame with each hash.
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for group in frames.chunks(BATCH * GROUP) {
        let hashes: Vec<Option<u64>> = group
            .par_iter()
            .with_min_len(BATCH / 4)
            .map(|frame| page(*frame).filter(|bytes| !is_zero(bytes)).map(|bytes| xxh3_64(bytes)))
            .collect();
        let mut kinds = Vec::with_capacity(group.len());
        for (at, (&frame, hash)) in group.iter().zip(&hashes).enumerate() {
            if at % BATCH == 0 && duplicates == Duplicates::OfSection {
                seen.clear();
            }
            let Some(hash) = hash else {
                kinds.push(Kind::Zero);
                continue;
            };
            let first = *seen.entry(*hash).or_insert(frame);
            // Guests can make hashes meet; equal is what has equal bytes.
            let same = first != frame && page(first) == page(frame);
            kinds.push(if same { Kind::Same(first) } else { Kind::Data });
        }
        let sections: Vec<Result<Section, Error>> = group
            .par_chunks(BATCH)
            .zip(kinds.par_chunks(BATCH))
            .map(|(frames, kinds)| encode_batch(name, version, frames, kinds, &page))
            .collect();
        for section in sections {
            emit(section?)?;
        }
    }
    Ok(())
}

fn is_zero(bytes: &[u8; PAGE_BYTES]) -> bool {
    // Most pages that are not zero show it at once.
    bytes[..64] == ZERO[..64] && *bytes == ZERO
}

fn encode_batch<'a>(
    name: &str,
    version: u16,
    frames: &[u64],
    kinds: &[Kind],
    page: &(impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync),
) -> Result<Section, Error> {
    let mut runs: Vec<Run> = Vec::new();
    let mut data = Vec::with_capacity(kinds.iter().filter(|kind| **kind == Kind::Data).count() * PAGE_BYTES);
    for (&frame, &kind) in frames.iter().zip(kinds) {
        match runs.last_mut() {
            Some(run) if run.kind == kind && run.first + u64::from(run.count) == frame => run.count += 1,
            _ => runs.push(Run { kind, first: frame, count: 1 }),
        }
        if kind == Kind::Data {
            data.extend_from_slice(page(frame).unwrap_or(&ZERO));
        }
    }
    let mut stored = Vec::with_capacity(4 + runs.len() * RUN_BYTES + data.len());
    stored.extend((runs.len() as u32).to_le_bytes());
    for run in &runs {
        let (kind, source) = match run.kind {
            Kind::Zero => (0u32, 0),
            Kind::Data => (1, 0),
            Kind::Same(source) => (2, source),
        };
        stored.extend(kind.to_le_bytes());
        stored.extend(run.count.to_le_bytes());
        stored.extend(run.first.to_le_bytes());
        stored.extend(source.to_le_bytes());
    }
    let smaller = if data.is_empty() { None } else { zstd::bulk::compress(&data, LEVEL).ok().filter(|smaller| smaller.len() < data.len()) };
    let compressed = smaller.is_some();
    stored.extend(smaller.unwrap_or(data));
    Section::of_pages(name, version, frames.len() as u64, stored, compressed)
}

/// Decodes sections of pages in parallel; the answers are in their order.
pub fn decode_all(sections: &[Section], known: u16) -> Vec<Result<Batch, Error>> {
    sections.par_iter().map(|section| section.pages(known)).collect()
}

fn word(bytes: &[u8], at: usize) -> Result<[u8; 4], Problem> {
    let four = bytes.get(at..at + 4).ok_or_else(|| Problem::Pages("the table of runs is longer than the contents".to_owned()))?;
    Ok([four[0], four[1], four[2], four[3]])
}

impl Batch {
    /// Decodes what a section stores; `raw` is how many bytes its pages have.
    pub(crate) fn decode(stored: &[u8], compressed: bool, raw: u64) -> Result<Self, Problem> {
        let word = |at| word(stored, at).map(u32::from_le_bytes);
        let long = |at| Ok::<u64, Problem>(u64::from(word(at)?) | u64::from(word(at + 4)?) << 32);
        let count = word(0)? as usize;
        if count > BATCH {
            return Err(Problem::TooMuch { what: "runs of pages", found: count as u64, limit: BATCH as u64 });
        }
        let mut runs = Vec::with_capacity(count);
        // The first frame that may come next.
        let mut next = 0;
        let (mut pages, mut data_pages) = (0u64, 0u64);
        for at in (4..).step_by(RUN_BYTES).take(count) {
            let (kind, count, first, source) = (word(at)?, word(at + 4)?, long(at + 8)?, long(at + 16)?);
            let kind = match kind {
                0 if source == 0 => Kind::Zero,
                1 if source == 0 => Kind::Data,
                2 => Kind::Same(source),
                _ => return Err(Problem::Pages(format!("a run of pages of kind {kind:#x} from {source:#x}"))),
            };
            let end = first.checked_add(count.into()).filter(|end| *end <= 1 << 52);
            let Some(end) = end.filter(|_| count > 0 && first >= next) else {
                return Err(Problem::Pages(format!("{count} pages from frame {first:#x} on, behind frame {next:#x}")));
            };
            next = end;
            pages += u64::from(count);
            data_pages += if kind == Kind::Data { u64::from(count) } else { 0 };
            runs.push(Run { kind, first, count });
        }
        if pages * PAGE_BYTES as u64 != raw {
            return Err(Problem::Contradiction { what: "bytes of pages", claimed: raw, found: pages * PAGE_BYTES as u64 });
        }
        let stored = &stored[4 + count * RUN_BYTES..];
        // No more than `raw`, which is bounded.
        let bytes = data_pages * PAGE_BYTES as u64;
        let data = if compressed { decompress(stored, bytes)? } else { stored.to_vec() };
        if data.len() as u64 != bytes {
            return Err(Problem::Contradiction { what: "bytes of stored pages", claimed: bytes, found: data.len() as u64 });
        }
        Ok(Self { runs, data })
    }

    /// Frames and what they hold, in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Content<'_>)> {
        let (data, _) = self.data.as_chunks::<PAGE_BYTES>();
        let mut data = data.iter();
        self.runs.iter().flat_map(|run| run.frames().map(move |frame| (frame, run.kind))).map(move |(frame, kind)| {
            let content = match kind {
                Kind::Zero => Content::Zero,
                // There is a page for each: `decode` has counted them.
                Kind::Data => data.next().map_or(Content::Zero, Content::Data),
                Kind::Same(source) => Content::Same(source),
            };
            (frame, content)
        })
    }
}

impl Run {
    fn frames(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.count)
    }
}
