//! How stored pages become a zstd frame, and how hard zstd tries.
//!
//! Most of zstd's time goes into matches. Tables of numbers that differ little from each other, of pointers above all, have one in every word: all
//! but a few of its bytes are those of the word before. Finding and telling so many takes three times as long as giving frequent bytes short
//! codes, and what is gained by it is at most a byte or two a word. So a batch of such tables is compressed without matches, if a sample says
//! that they are worth no more than that. Both are zstd frames; who reads need not know.
//!
//! All that decides is what the pages hold.

use crate::pages::PAGE_BYTES;
use std::cell::RefCell;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch};

/// How hard zstd tries. What is gained by more is less than the time it takes.
const LEVEL: i32 = 1;

/// A level at which zstd skips so much that it finds no matches; it would leave the bytes as they are, too, but is told not to.
const NO_MATCHES: i32 = -100_000;

/// Fewer pages than these take no time that is worth a look.
const WORTH_A_LOOK: usize = 64;

/// One page of so many is looked at.
const LOOKED_AT: usize = 4;

/// Pages of the sample, in pieces of so many in a row.
const SAMPLE: usize = 16;
const PIECE: usize = 4;

/// What a thread needs to compress. Kept, because the kernel makes every page zero that is given back to it and taken again.
#[derive(Default)]
struct Scratch {
    /// The pages in a row.
    row: Vec<u8>,
    /// Some of them.
    sample: Vec<u8>,
    /// What becomes of them; as long as ever was needed.
    frame: Vec<u8>,
    compressors: Option<Compressors>,
}

struct Compressors {
    with_matches: Compressor<'static>,
    without: Compressor<'static>,
}

impl Compressors {
    fn new() -> Option<Self> {
        let mut without = Compressor::new(NO_MATCHES).ok()?;
        without.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable)).ok()?;
        // There is nothing to be remembered.
        without.set_parameter(CParameter::HashLog(6)).ok()?;
        Some(Self { with_matches: Compressor::new(LEVEL).ok()?, without })
    }

    /// The one that suits the pages.
    fn suited(&mut self, row: &[u8], sample: &mut Vec<u8>, frame: &mut [u8]) -> &mut Compressor<'static> {
        let (pages, _) = row.as_chunks::<PAGE_BYTES>();
        if pages.len() < WORTH_A_LOOK || !are_tables(pages) {
            return &mut self.with_matches;
        }
        sample.clear();
        let pieces = pages.chunks_exact(PIECE);
        let step = pieces.len() / (SAMPLE / PIECE);
        pieces.step_by(step).take(SAMPLE / PIECE).for_each(|piece| sample.extend_from_slice(piece.as_flattened()));
        let mut length = |compressor: &mut Compressor<'static>| compressor.compress_to_buffer(sample, frame).unwrap_or(sample.len());
        let (with, without) = (length(&mut self.with_matches), length(&mut self.without));
        if with * 5 < without * 2 { &mut self.with_matches } else { &mut self.without }
    }
}

/// Whether pages are tables: of four words three have the upper half of the one before, and not its lower half.
fn are_tables(pages: &[[u8; PAGE_BYTES]]) -> bool {
    let (mut near, mut all) = (0, 0);
    for page in pages.iter().step_by(LOOKED_AT) {
        let (words, _) = page.as_chunks::<8>();
        let changes = words.windows(2).map(|pair| u64::from_le_bytes(pair[0]) ^ u64::from_le_bytes(pair[1]));
        near += changes.map(|change| usize::from((1..1 << 32).contains(&change))).sum::<usize>();
        all += words.len();
    }
    near * 4 >= all * 3
}

/// Puts pages behind what is there, as one zstd frame, or as they are if that is no more. Whether it is a frame.
pub fn compress<'a>(pages: impl Iterator<Item = &'a [u8; PAGE_BYTES]>, stored: &mut Vec<u8>) -> bool {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|Scratch { row, sample, frame, compressors }| {
        row.clear();
        pages.for_each(|page| row.extend_from_slice(page));
        if frame.len() < row.len() {
            frame.resize(row.len(), 0);
        }
        if compressors.is_none() {
            *compressors = Compressors::new();
        }
        let length = compressors.as_mut().and_then(|compressors| {
            let compressor = compressors.suited(row, sample, frame);
            // One byte less than the pages: no room is an answer, too.
            compressor.compress_to_buffer(row, &mut frame[..row.len() - 1]).ok()
        });
        stored.extend_from_slice(length.map_or(row, |length| &frame[..length]));
        length.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn pages(count: usize, mut word: impl FnMut(u64) -> u64) -> Vec<[u8; PAGE_BYTES]> {
        let mut number = 0;
        let page = |_| {
            let mut page = [0; PAGE_BYTES];
            for bytes in page.as_chunks_mut::<8>().0 {
                *bytes = word(number).to_le_bytes();
                number += 1;
            }
            page
        };
        (0..count).map(page).collect()
    }

    fn stored(pages: &[[u8; PAGE_BYTES]]) -> (Vec<u8>, bool) {
        let mut stored = vec![1, 2, 3];
        let is_frame = compress(pages.iter(), &mut stored);
        assert_eq!(stored[..3], [1, 2, 3], "what was there stays");
        (stored.split_off(3), is_frame)
    }

    fn with_matches(pages: &[[u8; PAGE_BYTES]]) -> Vec<u8> {
        zstd::bulk::compress(pages.as_flattened(), LEVEL).unwrap()
    }

    #[test]
    fn pointers_are_compressed_without_matches_and_come_back() {
        let mut state = 1;
        let pointers = pages(256, |_| 0x0000_7f3a_0000_0000 | random(&mut state) & 0xfff8);
        let (frame, is_frame) = stored(&pointers);
        assert!(is_frame);
        assert_ne!(frame, with_matches(&pointers));
        assert!(frame.len() < pointers.as_flattened().len() / 2, "{}", frame.len());
        assert_eq!(zstd::bulk::decompress(&frame, 1 << 20).unwrap(), pointers.as_flattened());
        // The same whatever was compressed before.
        assert_eq!(stored(&pointers).0, frame);
    }

    #[test]
    fn whatever_repeats_itself_is_compressed_with_matches() {
        let mut state = 1;
        let records: Vec<u64> = (0..100).map(|_| 0x0000_7f3a_0000_0000 | random(&mut state) & 0xff_fff8).collect();
        let stories = [
            pages(256, |number| records[number as usize % 100]),
            pages(256, |number| number / 4096),
            pages(256, |number| if number % 64 == 0 { number } else { 0 }),
            pages(256, |_| u64::from_le_bytes(*b"textbook") ^ ((random(&mut state) % 3) << 40)),
            pages(WORTH_A_LOOK - 1, |_| random(&mut state) & 0xff_fff8),
        ];
        for pages in stories {
            assert!(stored(&pages) == (with_matches(&pages), true));
        }
    }

    #[test]
    fn what_does_not_compress_stays_as_it_is() {
        let mut state = 1;
        let noise = pages(256, |_| random(&mut state));
        let (bytes, is_frame) = stored(&noise);
        assert!(!is_frame && bytes == noise.as_flattened());
    }
}
