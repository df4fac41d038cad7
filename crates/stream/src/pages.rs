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

use crate::compress::compress;
use crate::error::{Error, Problem};
use crate::section::Section;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{channel, sync_channel};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// The most pages that a section tells of.
pub const BATCH: usize = 256;

/// Batches that are worked on together.
const GROUP: usize = 16;

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

/// The same without the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Zeros.
    Zero,
    /// The next of the stored pages.
    Data,
    /// What the frame of this number holds, as the stream stands here.
    Same(u64),
}

#[derive(Clone, Copy, Debug)]
struct Run {
    kind: Kind,
    first: u64,
    count: u32,
}

/// Which pages a section tells of. The bytes of the stored ones are behind it.
#[derive(Clone, Debug)]
pub struct Table {
    runs: Vec<Run>,
    /// Pages whose bytes are stored.
    stored: usize,
    /// Where they are in the contents.
    at: usize,
}

/// The pages of one section, decoded.
#[derive(Clone, Debug)]
pub struct Batch {
    table: Table,
    data: Vec<u8>,
}

/// Makes sections out of frames, in ascending order without repetitions, and hands out each. A page that is `None` is zero. Sections that
/// come back from `emit` lend their buffers to later ones. Where there is much, sections are made while earlier ones are written.
///
/// # Errors
/// The name cannot name a section, or `emit`'s.
pub fn encode<'a, E: From<Error>>(
    name: &str,
    version: u16,
    frames: &[u64],
    duplicates: Duplicates,
    page: impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync,
    mut emit: impl FnMut(Section) -> Result<Option<Section>, E>,
) -> Result<(), E> {
    // The first frame with each hash.
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let groups = frames.chunks(BATCH * GROUP);
    let encode_group = |group: &[u64], seen: &mut BTreeMap<u64, u64>, spare: Vec<Vec<u8>>| {
        let kinds = kinds(group, duplicates, seen, &page);
        let spare = spare.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let batches: Vec<_> = group.chunks(BATCH).zip(kinds.chunks(BATCH)).zip(spare).collect();
        batches
            .into_par_iter()
            .map(|((frames, kinds), buffer)| encode_batch(name, version, frames, kinds, buffer.unwrap_or_default(), &page))
            .collect::<Vec<_>>()
    };
    if groups.len() < 2 || rayon::current_num_threads() == 1 {
        for group in groups {
            for section in encode_group(group, &mut seen, Vec::new()) {
                emit(section?)?;
            }
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (made, sections) = sync_channel(1);
        let (done_with, spare) = channel();
        scope.spawn(move || {
            let encoded = |group| encode_group(group, &mut seen, spare.try_iter().map(Section::into_buffer).take(GROUP).collect());
            // Nobody takes any more what was made when `emit` has failed.
            let _ = groups.map(encoded).try_for_each(|group| made.send(group));
        });
        for section in sections.into_iter().flatten() {
            if let Some(section) = emit(section?)? {
                // The other thread may have made all that there is.
                let _ = done_with.send(section);
            }
        }
        Ok(())
    })
}

/// What each page of a group is.
fn kinds<'a>(
    group: &[u64],
    duplicates: Duplicates,
    seen: &mut BTreeMap<u64, u64>,
    page: &(impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync),
) -> Vec<Kind> {
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
    kinds
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
    mut stored: Vec<u8>,
    page: &(impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync),
) -> Result<Section, Error> {
    let mut runs: Vec<Run> = Vec::new();
    for (&frame, &kind) in frames.iter().zip(kinds) {
        match runs.last_mut() {
            Some(run) if run.kind == kind && run.first + u64::from(run.count) == frame => run.count += 1,
            _ => runs.push(Run { kind, first: frame, count: 1 }),
        }
    }
    let data = frames.iter().zip(kinds).filter(|(_, kind)| **kind == Kind::Data).map(|(frame, _)| page(*frame).unwrap_or(&ZERO));
    stored.clear();
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
    let compressed = kinds.contains(&Kind::Data) && compress(data, &mut stored);
    Section::of_pages(name, version, frames.len() as u64, stored, compressed)
}

/// Decodes sections of pages in parallel; the answers are in their order.
pub fn decode_all(sections: &[Section], known: u16) -> Vec<Result<Batch, Error>> {
    sections.par_iter().map(|section| section.pages(known)).collect()
}

/// Decodes the stored pages of sections in parallel, one behind the other into `room`, which has as many bytes as their tables tell of; the
/// answers are in their order.
pub fn decode_into(sections: &[Section], tables: &[Table], mut room: &mut [u8]) -> Vec<Result<(), Error>> {
    let mut pieces = Vec::with_capacity(sections.len());
    for (section, table) in sections.iter().zip(tables) {
        let (piece, rest) = std::mem::take(&mut room).split_at_mut(table.stored_bytes());
        pieces.push((section, table, piece));
        room = rest;
    }
    pieces.into_par_iter().map(|(section, table, piece)| section.stored_pages(table, piece)).collect()
}

fn word(bytes: &[u8], at: usize) -> Result<[u8; 4], Problem> {
    let four = bytes.get(at..at + 4).ok_or_else(|| Problem::Pages("the table of runs is longer than the contents".to_owned()))?;
    Ok([four[0], four[1], four[2], four[3]])
}

impl Table {
    /// Decodes the table of what a section stores; `raw` is how many bytes its pages have.
    pub(crate) fn decode(stored: &[u8], raw: u64) -> Result<Self, Problem> {
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
        // No more than `raw`, which is bounded.
        Ok(Self { runs, stored: data_pages as usize, at: 4 + count * RUN_BYTES })
    }

    /// Fills `into`, which has as many bytes as the stored pages.
    pub(crate) fn fill(&self, stored: &[u8], compressed: bool, into: &mut [u8]) -> Result<(), Problem> {
        let stored = &stored[self.at..];
        let found = if compressed {
            zstd::bulk::decompress_to_buffer(stored, into).map_err(|error| Problem::Compression(error.to_string()))?
        } else {
            if stored.len() == into.len() {
                into.copy_from_slice(stored);
            }
            stored.len()
        };
        if found != into.len() {
            return Err(Problem::Contradiction { what: "bytes of stored pages", claimed: into.len() as u64, found: found as u64 });
        }
        Ok(())
    }

    /// Bytes of the stored pages.
    pub fn stored_bytes(&self) -> usize {
        self.stored * PAGE_BYTES
    }

    /// Frames and what they are, in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Kind)> {
        self.runs.iter().flat_map(|run| run.frames().map(move |frame| (frame, run.kind)))
    }
}

impl Batch {
    /// Decodes what a section stores; `raw` is how many bytes its pages have.
    pub(crate) fn decode(stored: &[u8], compressed: bool, raw: u64) -> Result<Self, Problem> {
        let table = Table::decode(stored, raw)?;
        let mut data = vec![0; table.stored_bytes()];
        table.fill(stored, compressed, &mut data)?;
        Ok(Self { table, data })
    }

    /// Frames and what they hold, in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Content<'_>)> {
        let (data, _) = self.data.as_chunks::<PAGE_BYTES>();
        let mut data = data.iter();
        self.table.pages().map(move |(frame, kind)| {
            let content = match kind {
                Kind::Zero => Content::Zero,
                // There is a page for each: the table has counted them.
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
