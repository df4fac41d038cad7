//! Physical memory of a simulated machine: sparse copy-on-write pages and a dirty log.
//!
//! What is modelled: RAM from address 0 up to a size, 4-KiB pages that come into being when first touched, snapshots that share pages until
//! one side writes, a log of pages written, and marks on pages whose bytes somebody has decoded as code, or made other tables from. What is
//! not: anything that is not RAM; devices answer through the bus of the `cpu` crate.

mod page;
mod pool;

use bitvec::vec::BitVec;
use page::Page;
pub use pool::FreshPages;
use pool::Pages;
use std::collections::BTreeSet;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// The largest memory a machine may have: 1 TiB. Pages are made on demand, the index is not.
pub const MAXIMUM_BYTES: u64 = 1 << 40;

/// Pages per leaf of the index.
const LEAF: usize = 512;

type Leaf = [Option<Page>; LEAF];

/// An access that is not wholly inside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("physical address {address:#x} and the {length} bytes from it are not inside the {size:#x} bytes of memory")]
pub struct OutOfRange {
    /// First byte of the access.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The size of memory in bytes.
    pub size: u64,
}

/// A write to a page that holds decoded code or is watched, reported to whoever keeps what follows from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeWrite {
    /// First physical byte written.
    pub address: u64,
    /// Bytes written; never crosses a page.
    pub length: u64,
}

/// A page of RAM that was looked up once, for several reads.
#[derive(Clone, Copy, Debug)]
pub struct PageReader<'a>(Option<&'a Page>);

impl PageReader<'_> {
    /// Copies bytes out. More than the page holds from `offset` on would panic.
    #[inline]
    pub fn read(self, offset: usize, into: &mut [u8]) {
        match self.0 {
            Some(page) => page.read(offset, into),
            None => into.fill(0),
        }
    }

    /// Reads eight bytes, little-endian. More than the page holds from `offset` on would panic.
    #[inline]
    pub fn read_u64(self, offset: usize) -> u64 {
        self.0.map_or(0, |page| page.read_u64(offset))
    }
}

/// A page of RAM that was looked up once, for several writes.
#[derive(Debug)]
pub struct PageWriter<'a>(&'a Page);

impl PageWriter<'_> {
    /// Copies bytes in. More than the page holds from `offset` on would panic.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.0.write(offset, from);
    }
}

/// RAM from physical address zero to `size`.
#[derive(Clone, Debug)]
pub struct Memory {
    leaves: Vec<Option<Box<Leaf>>>,
    /// Where the next page comes from.
    pages: Pages,
    size: u64,
    /// Changes whenever pointers handed out before may no longer be used for what they were handed out for.
    generation: u64,
    code: BitVec<u64>,
    code_writes: Vec<CodeWrite>,
    /// Frames whose writes are reported one by one.
    watched: BTreeSet<u64>,
    watched_writes: Vec<CodeWrite>,
    dirty: Option<BitVec<u64>>,
    journal: Journal,
}

/// Frames that were written by whoever is being noted down.
#[derive(Clone, Debug, Default)]
struct Journal {
    open: bool,
    frames: BTreeSet<u64>,
}

/// The place of a page in the index. The frame is one of RAM.
#[inline]
fn slot(leaves: &mut [Option<Box<Leaf>>], frame: u64) -> &mut Option<Page> {
    let leaf = leaves[frame as usize / LEAF].get_or_insert_with(|| Box::new([const { None }; LEAF]));
    &mut leaf[frame as usize % LEAF]
}

impl Memory {
    /// Memory of `size` bytes, rounded up to whole pages and capped at [`MAXIMUM_BYTES`], all zero.
    pub fn new(size: u64) -> Self {
        let size = size.min(MAXIMUM_BYTES).next_multiple_of(PAGE_BYTES);
        let pages = (size / PAGE_BYTES) as usize;
        Self {
            leaves: (0..pages.div_ceil(LEAF)).map(|_| None).collect(),
            pages: Pages::default(),
            size,
            generation: 1,
            code: BitVec::repeat(false, pages),
            code_writes: Vec::new(),
            watched: BTreeSet::new(),
            watched_writes: Vec::new(),
            dirty: None,
            journal: Journal::default(),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A number that changes when host pointers from [`Memory::read_pointer`] and [`Memory::write_pointer`] must be forgotten.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn check(&self, address: u64, length: u64) -> Result<(), OutOfRange> {
        match address.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(OutOfRange { address, length, size: self.size }),
        }
    }

    fn page(&self, frame: u64) -> Option<&Page> {
        self.leaves[frame as usize / LEAF].as_ref()?[frame as usize % LEAF].as_ref()
    }

    /// The page itself, made if it was never touched, and owned by this memory alone.
    fn own_page(&mut self, frame: u64) -> &Page {
        let page = slot(&mut self.leaves, frame).get_or_insert_with(|| self.pages.zeroed());
        if !page.is_alone() {
            *page = self.pages.duplicate(page);
            // Pointers to the shared page may be in use for reading.
            self.generation += 1;
        }
        page
    }

    /// Host pointer to the 4096 bytes of a page, for reading only; `None` outside RAM.
    ///
    /// Good until [`Memory::generation`] changes or the memory is dropped.
    pub fn read_pointer(&mut self, frame: u64) -> Option<*const u8> {
        if frame >= self.size / PAGE_BYTES {
            return None;
        }
        if let Some(page) = self.page(frame) {
            return Some(page.pointer());
        }
        Some(self.own_page(frame).pointer())
    }

    /// Host pointer to the 4096 bytes of a page, for reading and writing; `None` outside RAM. Marks the page dirty.
    ///
    /// Good until [`Memory::generation`] changes or the memory is dropped. Writes through it bypass the marks: take none for a page with
    /// [`Memory::has_code`] or [`Memory::is_watched`].
    pub fn write_pointer(&mut self, frame: u64) -> Option<*mut u8> {
        if frame >= self.size / PAGE_BYTES {
            return None;
        }
        self.note_write(frame);
        Some(self.own_page(frame).pointer().cast_mut())
    }

    /// A page to read from; `None` outside RAM.
    #[inline]
    pub fn page_reader(&self, address: u64) -> Option<PageReader<'_>> {
        (address < self.size).then(|| PageReader(self.page(address / PAGE_BYTES)))
    }

    /// A page to write into; `None` outside RAM, and where the page holds decoded code or is watched, so that somebody has to be told of each
    /// write. Marks the page dirty.
    #[inline]
    pub fn page_writer(&mut self, address: u64) -> Option<PageWriter<'_>> {
        let frame = address / PAGE_BYTES;
        if address >= self.size || self.has_code(frame) || self.is_watched(frame) {
            return None;
        }
        self.note_write(frame);
        Some(PageWriter(self.own_page(frame)))
    }

    fn note_write(&mut self, frame: u64) {
        if let Some(dirty) = &mut self.dirty {
            dirty.set(frame as usize, true);
        }
        if self.journal.open {
            self.journal.frames.insert(frame);
        }
    }

    /// Copies bytes out.
    pub fn read(&self, mut address: u64, mut into: &mut [u8]) -> Result<(), OutOfRange> {
        self.check(address, into.len() as u64)?;
        while !into.is_empty() {
            let offset = (address % PAGE_BYTES) as usize;
            let (part, rest) = into.split_at_mut(into.len().min(PAGE_BYTES as usize - offset));
            match self.page(address / PAGE_BYTES) {
                Some(page) => page.read(offset, part),
                None => part.fill(0),
            }
            address += part.len() as u64;
            into = rest;
        }
        Ok(())
    }

    /// Copies bytes in. A write to a page with code is also put on the list that [`Memory::take_code_writes`] returns.
    pub fn write(&mut self, mut address: u64, mut from: &[u8]) -> Result<(), OutOfRange> {
        self.check(address, from.len() as u64)?;
        while !from.is_empty() {
            let offset = (address % PAGE_BYTES) as usize;
            let frame = address / PAGE_BYTES;
            let (part, rest) = from.split_at(from.len().min(PAGE_BYTES as usize - offset));
            self.note_write(frame);
            if self.code[frame as usize] {
                self.code_writes.push(CodeWrite { address, length: part.len() as u64 });
            }
            if self.is_watched(frame) {
                self.watched_writes.push(CodeWrite { address, length: part.len() as u64 });
            }
            self.own_page(frame).write(offset, part);
            address += part.len() as u64;
            from = rest;
        }
        Ok(())
    }

    /// Copies several pieces into one page: each an offset in the page and bytes that end inside it. All or nothing.
    pub fn write_pieces(&mut self, page: u64, pieces: &[(usize, &[u8])]) -> Result<(), OutOfRange> {
        let address = page & !(PAGE_BYTES - 1);
        self.check(address, PAGE_BYTES)?;
        for (offset, bytes) in pieces {
            if offset.checked_add(bytes.len()).is_none_or(|end| end > PAGE_BYTES as usize) {
                return Err(OutOfRange { address: address.saturating_add(*offset as u64), length: bytes.len() as u64, size: self.size });
            }
        }
        let frame = address / PAGE_BYTES;
        self.note_write(frame);
        if self.code[frame as usize] {
            let writes = pieces.iter().map(|(offset, bytes)| CodeWrite { address: address + *offset as u64, length: bytes.len() as u64 });
            self.code_writes.extend(writes);
        }
        if self.is_watched(frame) {
            let writes = pieces.iter().map(|(offset, bytes)| CodeWrite { address: address + *offset as u64, length: bytes.len() as u64 });
            self.watched_writes.extend(writes);
        }
        let page = self.own_page(frame);
        for (offset, bytes) in pieces {
            page.write(*offset, bytes);
        }
        Ok(())
    }

    /// Reads a little-endian integer of `N` bytes, zero-extended.
    fn read_integer<const N: usize>(&self, address: u64) -> Result<u64, OutOfRange> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes[..N])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads one byte.
    pub fn read_u8(&self, address: u64) -> Result<u8, OutOfRange> {
        self.read_integer::<1>(address).map(|value| value as u8)
    }

    /// Reads two bytes, little-endian.
    pub fn read_u16(&self, address: u64) -> Result<u16, OutOfRange> {
        self.read_integer::<2>(address).map(|value| value as u16)
    }

    /// Reads four bytes, little-endian.
    pub fn read_u32(&self, address: u64) -> Result<u32, OutOfRange> {
        self.read_integer::<4>(address).map(|value| value as u32)
    }

    /// Reads eight bytes, little-endian.
    #[inline]
    pub fn read_u64(&self, address: u64) -> Result<u64, OutOfRange> {
        let offset = (address % PAGE_BYTES) as usize;
        // Page walks read little else: eight bytes of one page.
        if address < self.size && offset <= PAGE_BYTES as usize - 8 {
            return Ok(self.page(address / PAGE_BYTES).map_or(0, |page| page.read_u64(offset)));
        }
        self.read_integer::<8>(address)
    }

    /// Writes four bytes, little-endian.
    pub fn write_u32(&mut self, address: u64, value: u32) -> Result<(), OutOfRange> {
        self.write(address, &value.to_le_bytes())
    }

    /// Writes eight bytes, little-endian.
    pub fn write_u64(&mut self, address: u64, value: u64) -> Result<(), OutOfRange> {
        self.write(address, &value.to_le_bytes())
    }

    /// Marks a page as holding decoded code: pointers for writing handed out before are void.
    pub fn mark_code(&mut self, frame: u64) {
        if !self.code.replace(frame as usize, true) {
            self.generation += 1;
        }
    }

    /// Takes the mark away again.
    pub fn unmark_code(&mut self, frame: u64) {
        self.code.set(frame as usize, false);
    }

    /// Whether the page holds decoded code; `false` outside RAM.
    pub fn has_code(&self, frame: u64) -> bool {
        self.code.get(frame as usize).is_some_and(|mark| *mark)
    }

    /// Whether [`Memory::take_code_writes`] would return anything.
    pub fn has_code_writes(&self) -> bool {
        !self.code_writes.is_empty()
    }

    /// The writes to pages with code since the last call.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        std::mem::take(&mut self.code_writes)
    }

    /// Has every write to a page reported: pointers for writing handed out before are void.
    pub fn watch(&mut self, frame: u64) {
        if self.watched.insert(frame) {
            self.generation += 1;
        }
    }

    /// Ends that.
    pub fn unwatch(&mut self, frame: u64) {
        self.watched.remove(&frame);
    }

    /// Ends that for every page, and forgets what was not taken.
    pub fn unwatch_all(&mut self) {
        self.watched.clear();
        self.watched_writes.clear();
    }

    /// Whether writes to the page are reported.
    #[inline]
    pub fn is_watched(&self, frame: u64) -> bool {
        !self.watched.is_empty() && self.watched.contains(&frame)
    }

    /// Whether [`Memory::take_watched_writes`] would return anything.
    #[inline]
    pub fn has_watched_writes(&self) -> bool {
        !self.watched_writes.is_empty()
    }

    /// The writes to watched pages since the last call, in their order.
    pub fn take_watched_writes(&mut self) -> Vec<CodeWrite> {
        std::mem::take(&mut self.watched_writes)
    }

    /// Starts a dirty log in which every page is clean.
    pub fn start_dirty_log(&mut self) {
        self.dirty = Some(BitVec::repeat(false, (self.size / PAGE_BYTES) as usize));
        self.generation += 1;
    }

    /// The frames written since the log was started or last taken, in ascending order; empty when no log is kept.
    pub fn take_dirty_log(&mut self) -> Vec<u64> {
        let Some(dirty) = &mut self.dirty else { return Vec::new() };
        let frames = dirty.iter_ones().map(|frame| frame as u64).collect();
        dirty.fill(false);
        self.generation += 1;
        frames
    }

    /// Whether a frame is dirty in the log being kept.
    pub fn is_dirty(&self, frame: u64) -> bool {
        self.dirty.as_ref().and_then(|dirty| dirty.get(frame as usize)).is_some_and(|bit| *bit)
    }

    /// Opens or closes the journal: while it is open, the frames that are written are noted down. Pointers handed out before write unseen.
    /// Whoever wants to know what one writer does opens it for the time of that writer. The answer is whether it was open before.
    pub fn open_journal(&mut self, open: bool) -> bool {
        std::mem::replace(&mut self.journal.open, open)
    }

    /// The frames noted down since the last call, in ascending order.
    pub fn take_journal(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.journal.frames)
    }

    /// The journal without taking it: whether it is open, and the frames in ascending order.
    pub fn journal(&self) -> (bool, Vec<u64>) {
        (self.journal.open, self.journal.frames.iter().copied().collect())
    }

    /// Takes up a journal as it was.
    pub fn restore_journal(&mut self, open: bool, frames: Vec<u64>) {
        self.journal = Journal { open, frames: frames.into_iter().collect() };
    }

    /// Makes whole pages zero by forgetting them, from frame `first` up to and without frame `end`. Pointers handed out before are void.
    pub fn forget(&mut self, first: u64, end: u64) {
        let end = end.min(self.size / PAGE_BYTES);
        let mut frame = first;
        while frame < end {
            let Some(leaf) = self.leaves[frame as usize / LEAF].as_mut() else {
                frame = (frame / LEAF as u64 + 1) * LEAF as u64;
                continue;
            };
            if leaf[frame as usize % LEAF].take().is_some() {
                self.note_write(frame);
                if self.code[frame as usize] {
                    self.code_writes.push(CodeWrite { address: frame * PAGE_BYTES, length: PAGE_BYTES });
                }
            }
            frame += 1;
        }
        self.generation += 1;
    }

    /// A copy that shares all pages until one side writes them. Pointers handed out before are void.
    pub fn snapshot(&mut self) -> Self {
        self.generation += 1;
        self.clone()
    }

    /// The bytes of a page, or `None` where it was never touched, and so is zero, or lies outside RAM.
    pub fn page_bytes(&self, frame: u64) -> Option<&[u8; PAGE_BYTES as usize]> {
        if frame >= self.size / PAGE_BYTES {
            return None;
        }
        self.page(frame).map(|page| page.bytes())
    }

    fn page_address(&self, frame: u64) -> Result<u64, OutOfRange> {
        let address = frame.saturating_mul(PAGE_BYTES);
        self.check(address, PAGE_BYTES).map(|()| address)
    }

    /// Replaces a whole page.
    ///
    /// # Errors
    /// It lies outside RAM.
    pub fn set_page(&mut self, frame: u64, bytes: &[u8; PAGE_BYTES as usize]) -> Result<(), OutOfRange> {
        let address = self.page_address(frame)?;
        self.write(address, bytes)
    }

    /// Pages in a row for [`Memory::put_page`], to be filled first: with what is decompressed, say, which is then copied nowhere.
    pub fn fresh_pages(&self, count: usize) -> FreshPages {
        self.pages.fresh(count)
    }

    /// Replaces a whole page by the first of these, and takes it off them. Without one left, the page becomes zero.
    ///
    /// # Errors
    /// It lies outside RAM.
    pub fn put_page(&mut self, frame: u64, from: &mut FreshPages) -> Result<(), OutOfRange> {
        self.page_address(frame)?;
        match from.take() {
            Some(page) => self.place_page(frame, page),
            None => self.clear_page(frame),
        }
    }

    /// Makes a page zero. One that was never touched stays so.
    ///
    /// # Errors
    /// It lies outside RAM.
    pub fn clear_page(&mut self, frame: u64) -> Result<(), OutOfRange> {
        let address = self.page_address(frame)?;
        if self.page(frame).is_some() { self.write(address, &[0; PAGE_BYTES as usize]) } else { Ok(()) }
    }

    /// Makes a page equal to another. The two share their bytes until one is written.
    ///
    /// # Errors
    /// One of them lies outside RAM.
    pub fn share_page(&mut self, source: u64, frame: u64) -> Result<(), OutOfRange> {
        self.page_address(source)?;
        self.page_address(frame)?;
        let Some(page) = self.page(source).cloned() else { return self.clear_page(frame) };
        // Pointers for writing to the source are void.
        self.generation += 1;
        self.place_page(frame, page)
    }

    /// Makes a page the one of a frame in RAM, or equal to it where somebody may hold pointers to the old one or has to be told.
    fn place_page(&mut self, frame: u64, page: Page) -> Result<(), OutOfRange> {
        if self.has_code(frame) || self.is_watched(frame) || self.page(frame).is_some() {
            let address = self.page_address(frame)?;
            return self.write(address, page.bytes());
        }
        self.note_write(frame);
        *slot(&mut self.leaves, frame) = Some(page);
        Ok(())
    }

    /// The frames in the dirty log, in ascending order, without taking them; `None` when no log is kept.
    pub fn dirty_log(&self) -> Option<Vec<u64>> {
        self.dirty.as_ref().map(|dirty| dirty.iter_ones().map(|frame| frame as u64).collect())
    }

    /// Starts a dirty log in which these frames are dirty; those outside RAM are left out.
    pub fn restore_dirty_log(&mut self, frames: &[u64]) {
        self.start_dirty_log();
        if let Some(dirty) = &mut self.dirty {
            for frame in frames.iter().filter(|frame| **frame < self.size / PAGE_BYTES) {
                dirty.set(*frame as usize, true);
            }
        }
    }

    /// Shows the pages that are not the same in another memory of this size, in ascending order. Pages that both share are not looked at.
    pub fn differences(&self, other: &Self, mut show: impl FnMut(u64, &[u8; PAGE_BYTES as usize])) {
        const ZERO: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        for (at, leaf) in self.leaves.iter().enumerate() {
            let others = other.leaves.get(at).and_then(Option::as_deref);
            if leaf.is_none() && others.is_none() {
                continue;
            }
            for slot in 0..LEAF {
                let pages = [leaf.as_deref(), others].map(|leaf| leaf.and_then(|leaf| leaf[slot].as_ref()));
                let shared = match pages {
                    [Some(mine), Some(others)] => mine.is(others),
                    [None, None] => true,
                    _ => false,
                };
                if shared {
                    continue;
                }
                let [bytes, old] = pages.map(|page| page.map_or(&ZERO, |page| page.bytes()));
                if bytes != old {
                    show((at * LEAF + slot) as u64, bytes);
                }
            }
        }
    }

    /// Frames that exist, in ascending order: all others are zero.
    pub fn touched_frames(&self) -> impl Iterator<Item = u64> + '_ {
        self.leaves.iter().enumerate().filter_map(|(at, leaf)| Some((at, leaf.as_ref()?))).flat_map(|(at, leaf)| {
            leaf.iter().enumerate().filter(|(_, page)| page.is_some()).map(move |(slot, _)| (at * LEAF + slot) as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_reads_zero_and_makes_no_page() {
        let memory = Memory::new(1 << 30);
        assert_eq!(memory.read_u64(0x12345), Ok(0));
        assert_eq!(memory.touched_frames().count(), 0);
    }

    #[test]
    fn a_write_over_a_page_boundary_reads_back() {
        let mut memory = Memory::new(0x3000);
        memory.write(0xffd, &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(memory.read_u64(0xffc), Ok(0x0006_0504_0302_0100));
        assert_eq!(memory.touched_frames().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn the_journal_tells_of_one_writer_only() {
        let mut memory = Memory::new(0x4000);
        memory.write(0, &[1]).unwrap();
        assert!(!memory.open_journal(true));
        memory.write(0x1ffe, &[1, 2, 3]).unwrap();
        assert!(memory.open_journal(false));
        memory.write(0x3000, &[1]).unwrap();
        assert_eq!(memory.take_journal().into_iter().collect::<Vec<_>>(), [1, 2]);
        assert!(memory.take_journal().is_empty());
    }

    #[test]
    fn pages_that_are_forgotten_read_zero_and_code_hears_of_it() {
        let mut memory = Memory::new(4 << 20);
        for frame in [0, 1, 511, 512, 700] {
            memory.write(frame << 12, &[7]).unwrap();
        }
        memory.mark_code(512);
        let before = memory.generation();
        memory.forget(1, 700);
        assert_eq!(memory.touched_frames().collect::<Vec<_>>(), [0, 700]);
        assert_eq!(memory.take_code_writes(), [CodeWrite { address: 512 << 12, length: 4096 }]);
        assert_ne!(memory.generation(), before);
        memory.forget(700, u64::MAX);
        assert_eq!(memory.read_u8(700 << 12), Ok(0));
    }

    #[test]
    fn pages_are_set_cleared_and_shared() {
        let mut memory = Memory::new(0x4000);
        memory.start_dirty_log();
        memory.set_page(1, &[7; 4096]).unwrap();
        memory.share_page(1, 3).unwrap();
        memory.write(0x1000, &[9]).unwrap();
        assert_eq!((memory.read_u16(0x1000), memory.read_u16(0x3000)), (Ok(0x709), Ok(0x707)), "shared until it is written");
        memory.share_page(3, 1).unwrap();
        let mut fresh = memory.fresh_pages(2);
        fresh.bytes()[..4096].fill(4);
        fresh.bytes()[4096..].fill(5);
        memory.put_page(3, &mut fresh).unwrap();
        assert!(memory.put_page(4, &mut fresh).is_err());
        let mut other = Memory::new(0x4000);
        other.put_page(2, &mut fresh).unwrap();
        other.put_page(3, &mut fresh).unwrap();
        assert_eq!((memory.read_u16(0x3ffe), other.read_u16(0x2000), other.read_u8(0x3000)), (Ok(0x404), Ok(0x505), Ok(0)));
        memory.clear_page(3).unwrap();
        memory.clear_page(2).unwrap();
        assert_eq!((memory.read_u16(0x1000), memory.read_u16(0x3000)), (Ok(0x707), Ok(0)));
        assert_eq!(memory.touched_frames().collect::<Vec<_>>(), [1, 3], "what is zero need not exist");
        assert_eq!(memory.dirty_log(), Some(vec![1, 3]));
        assert!(memory.page_bytes(2).is_none() && memory.page_bytes(4).is_none() && memory.page_bytes(1) == Some(&[7; 4096]));
        assert!(memory.set_page(4, &[0; 4096]).is_err() && memory.share_page(1, u64::MAX).is_err() && memory.share_page(4, 1).is_err());
    }

    #[test]
    fn pieces_of_a_page_are_written_together_or_not_at_all() {
        let mut memory = Memory::new(0x2000);
        memory.write_pieces(0x1000, &[(0x10, &[1]), (0xffe, &[2, 3])]).unwrap();
        assert_eq!((memory.read_u8(0x1010), memory.read_u16(0x1ffe)), (Ok(1), Ok(0x302)));
        assert!(memory.write_pieces(0x1000, &[(0x10, &[9]), (0xfff, &[9, 9])]).is_err());
        assert!(memory.write_pieces(0x2000, &[]).is_err());
        assert_eq!(memory.read_u8(0x1010), Ok(1));
    }

    #[test]
    fn a_page_looked_up_once_is_the_page() {
        let mut memory = Memory::new(0x3000);
        memory.start_dirty_log();
        assert_eq!(memory.page_reader(0x1000).map(|page| page.read_u64(0xff8)), Some(0), "never touched");
        memory.page_writer(0x1234).unwrap().write(0xffe, &[1, 2]);
        let mut bytes = [0; 3];
        memory.page_reader(0x1000).unwrap().read(0xffd, &mut bytes);
        assert_eq!((bytes, memory.read_u16(0x1ffe), memory.take_dirty_log()), ([0, 1, 2], Ok(0x201), vec![1]));
        let snapshot = memory.snapshot();
        memory.page_writer(0x1000).unwrap().write(0, &[9]);
        assert_eq!((snapshot.read_u8(0x1000), memory.read_u8(0x1000)), (Ok(0), Ok(9)));
        memory.mark_code(2);
        assert!(memory.page_writer(0x2000).is_none(), "writes to code are reported");
        assert!(memory.page_writer(0x3000).is_none() && memory.page_reader(u64::MAX).is_none());
    }

    #[test]
    fn accesses_outside_are_refused_whole() {
        let mut memory = Memory::new(0x1000);
        assert!(memory.write(0xfff, &[1, 2]).is_err());
        assert_eq!(memory.read_u8(0xfff), Ok(0));
        assert!(memory.read_u64(u64::MAX - 3).is_err());
        assert!(memory.read_pointer(1).is_none() && memory.write_pointer(u64::MAX / 4096).is_none());
    }

    #[test]
    fn a_snapshot_keeps_its_bytes_when_the_original_changes() {
        let mut memory = Memory::new(0x2000);
        memory.write_u64(0x10, 1).unwrap();
        let before = memory.generation();
        let snapshot = memory.snapshot();
        memory.write_u64(0x10, 2).unwrap();
        assert_eq!((snapshot.read_u64(0x10), memory.read_u64(0x10)), (Ok(1), Ok(2)));
        assert_ne!(before, memory.generation(), "pointers to the shared page are void");
    }

    #[test]
    fn the_dirty_log_names_written_pages_once() {
        let mut memory = Memory::new(0x10000);
        memory.start_dirty_log();
        memory.write(0x5fff, &[1, 1]).unwrap();
        memory.write_pointer(2);
        assert_eq!(memory.take_dirty_log(), [2, 5, 6]);
        assert!(memory.take_dirty_log().is_empty());
    }

    #[test]
    fn writes_to_marked_pages_are_reported_per_page() {
        let mut memory = Memory::new(0x10000);
        memory.mark_code(1);
        memory.write(0xffe, &[0; 4]).unwrap();
        assert_eq!(memory.take_code_writes(), [CodeWrite { address: 0x1000, length: 2 }]);
        assert!(!memory.has_code_writes());
    }

    #[test]
    fn writes_to_watched_pages_are_reported_one_by_one() {
        let mut memory = Memory::new(0x10000);
        let before = memory.generation();
        memory.watch(1);
        assert_ne!(before, memory.generation(), "pointers for writing are void");
        assert!(memory.page_writer(0x1008).is_none(), "no way around the report");
        memory.write(0xffe, &[0; 4]).unwrap();
        memory.write_pieces(0x1000, &[(8, &[1, 2])]).unwrap();
        let seen = memory.take_watched_writes();
        assert_eq!(seen, [CodeWrite { address: 0x1000, length: 2 }, CodeWrite { address: 0x1008, length: 2 }]);
        memory.unwatch(1);
        memory.write_u32(0x1000, 7).unwrap();
        assert!(!memory.has_watched_writes() && memory.page_writer(0x1000).is_some());
    }
}
