//! What lies where in memory while an image is put together: everything in RAM, nothing twice.

use std::collections::BTreeMap;

use super::error::{LoadError, Part};
use super::{Segment, ram};

/// The pieces so far, by address.
pub struct Layout {
    memory_size: u64,
    pieces: BTreeMap<u64, (u64, Part, Vec<u8>)>,
}

impl Layout {
    /// An empty memory of `memory_size` bytes.
    pub fn new(memory_size: u64) -> Self {
        Self { memory_size, pieces: BTreeMap::new() }
    }

    /// Places `bytes` at `start`, followed by zeros up to `size` bytes. A piece without size is left out. Bytes are copied only after
    /// the piece was found to fit, so that no file can make the host allocate more than the guest's memory.
    pub fn place(&mut self, part: Part, start: u64, size: u64, bytes: &[u8]) -> Result<(), LoadError> {
        if size == 0 {
            return Ok(());
        }
        let outside = LoadError::OutsideMemory { part, start, size, memory_size: self.memory_size };
        let Some(end) = start.checked_add(size) else { return Err(outside) };
        if !ram(self.memory_size).iter().any(|(first, last)| *first <= start && end <= *last) {
            return Err(outside);
        }
        // Pieces do not overlap each other, so only the last one that starts below `end` can reach into this one.
        if let Some((other_start, (other_end, other, _))) = self.pieces.range(..end).next_back()
            && *other_end > start
        {
            return Err(LoadError::Overlap {
                part,
                start,
                size,
                other: *other,
                other_start: *other_start,
                other_size: other_end - other_start,
            });
        }
        self.pieces.insert(start, (end, part, bytes.to_vec()));
        Ok(())
    }

    /// The end of the highest piece below 4 GiB.
    pub fn end_below_4g(&self) -> u64 {
        self.pieces.range(..1 << 32).next_back().map_or(0, |(_, (end, ..))| *end)
    }

    /// Fails unless `entry` lies in a piece.
    pub fn check_entry(&self, entry: u64) -> Result<(), LoadError> {
        match self.pieces.range(..=entry).next_back() {
            Some((_, (end, ..))) if entry < *end => Ok(()),
            _ => Err(LoadError::EntryOutsideImage { entry }),
        }
    }

    /// The pieces in order of address.
    pub fn into_segments(self) -> Vec<Segment> {
        let segment = |(physical, (zero_to, _, bytes))| Segment { physical, bytes, zero_to };
        self.pieces.into_iter().map(segment).collect()
    }
}

/// Fails unless `entry` is below `limit`; the narrowed address otherwise.
pub fn entry_below_4g(entry: u64) -> Result<u32, LoadError> {
    u32::try_from(entry).map_err(|_| LoadError::EntryOutOfReach { entry, mode: "32-bit protected mode", limit: 1 << 32 })
}
