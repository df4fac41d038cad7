//! Where pages come from: long stretches of the host's memory, of which pages are taken one behind the other and come back when nobody has them.
//!
//! Modelled is nothing here. A page for itself would cost the host's allocator two of its own (its counts in front of an aligned page) and the
//! kernel a fault each; a stretch of some mebibytes is asked for as huge pages, with one fault for 512 pages and one entry of the host's TLB.
//! A machine that touches little has little: stretches begin with four pages and each is as long as all before it together.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`.
#![expect(unsafe_code, reason = "stretches of the host's memory are taken and given back by pointer")]

use crate::page::Page;
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: usize = 4096;

/// Pages of the first stretch.
const FEWEST: usize = 4;

/// Pages of the longest one: 32 MiB.
const MOST: usize = 8192;

/// Pages of the shortest that is worth a mapping of its own: a huge page of the host.
const HUGE: usize = 512;

/// A stretch of the host's memory, zero at first.
enum Stretch {
    /// From the allocator: its first byte, and the layout it was asked for with.
    Heap(NonNull<u8>, Layout),
    /// From the kernel.
    Map(#[expect(dead_code, reason = "kept for what it does when it is dropped")] MmapMut),
}

impl Stretch {
    /// So many pages, and the first of them. There is room for one alignment more than pages need.
    fn new(pages: usize) -> (Self, NonNull<u8>) {
        let align = if pages >= HUGE { HUGE * PAGE } else { PAGE };
        let bytes = pages * PAGE + align;
        let (stretch, start) = match (pages >= HUGE).then(|| MmapMut::map_anon(bytes)) {
            Some(Ok(mut map)) => {
                // Only speed depends on it.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                let start = map.as_mut_ptr();
                (Self::Map(map), start)
            }
            _ => {
                // With the least alignment the allocator takes pages that the kernel has made zero, and makes none zero itself.
                let layout = Layout::from_size_align(bytes, 16).unwrap_or(Layout::new::<u64>());
                // SAFETY: the size is not zero.
                let start = unsafe { alloc_zeroed(layout) };
                let Some(first) = NonNull::new(start) else { handle_alloc_error(layout) };
                (Self::Heap(first, layout), start)
            }
        };
        // SAFETY: no more than `align` is added, for which there is room; so the sum is no null pointer.
        let first = unsafe { NonNull::new_unchecked(start.add(start.align_offset(align))) };
        (stretch, first)
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        if let Self::Heap(start, layout) = *self {
            // SAFETY: it was allocated with this layout, and whoever had pages of it held the pool.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

#[derive(Default)]
struct Inner {
    /// What pages lie in, kept until the pool goes.
    stretches: Vec<Stretch>,
    /// The first page that was never taken of the last stretch, and how many there are.
    next: Option<NonNull<u8>>,
    left: usize,
    /// Pages of all stretches.
    made: usize,
    /// Pages that came back, with what they held.
    free: Vec<NonNull<u8>>,
}

// SAFETY: the pointers are to memory that the stretches own; nothing of it belongs to a thread.
unsafe impl Send for Inner {}

impl Inner {
    /// Another stretch of so many pages; the first of them.
    fn make(&mut self, pages: usize) -> NonNull<u8> {
        let (stretch, first) = Stretch::new(pages);
        self.stretches.push(stretch);
        self.made += pages;
        first
    }
}

/// The stretches behind the pages of one memory, and of its snapshots as far as they still share them.
#[derive(Default)]
struct Pool(Mutex<Inner>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pool")
    }
}

impl Pool {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // Nothing in here panics half-way.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A page of a pool that somebody has, and gives back when he goes.
#[derive(Debug)]
pub(crate) struct Spot {
    at: NonNull<u8>,
    pool: Arc<Pool>,
}

// SAFETY: see `Page`; giving a spot back takes the pool's lock.
unsafe impl Send for Spot {}
// SAFETY: as above.
unsafe impl Sync for Spot {}

impl Spot {
    pub(crate) fn bytes(&self) -> NonNull<[u8; PAGE]> {
        self.at.cast()
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.pool.with(|inner| inner.free.push(self.at));
    }
}

/// Makes pages.
#[derive(Debug, Default)]
pub(crate) struct Pages(Arc<Pool>);

impl Clone for Pages {
    /// A snapshot's new pages come from a pool of its own, so that what it takes goes with it.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Pages {
    /// A page of zeros.
    pub(crate) fn zeroed(&self) -> Page {
        let at = self.0.with(|inner| {
            if let Some(at) = inner.free.pop() {
                // SAFETY: a spot that came back is a page that nobody has.
                unsafe { at.write_bytes(0, PAGE) };
                return at;
            }
            if inner.left == 0 {
                let pages = inner.made.clamp(FEWEST, MOST);
                (inner.next, inner.left) = (Some(inner.make(pages)), pages);
            }
            let at = inner.next.unwrap_or(NonNull::dangling());
            // SAFETY: `left` pages lie behind `next` in its stretch, and there is one.
            inner.next = Some(unsafe { at.add(PAGE) });
            inner.left -= 1;
            at
        });
        Page::new(Spot { at, pool: Arc::clone(&self.0) })
    }

    /// A page with the bytes of another.
    pub(crate) fn duplicate(&self, page: &Page) -> Page {
        let copy = self.zeroed();
        copy.write(0, page.bytes());
        copy
    }

    /// Pages in a row, to be filled.
    pub(crate) fn fresh(&self, count: usize) -> FreshPages {
        let first = (count > 0).then(|| self.0.with(|inner| inner.make(count)));
        FreshPages { first: first.unwrap_or(NonNull::dangling()), count, pool: Arc::clone(&self.0) }
    }
}

/// Pages that lie in a row until a memory takes them: to be filled by whoever knows their bytes, also by several threads.
#[derive(Debug)]
pub struct FreshPages {
    first: NonNull<u8>,
    count: usize,
    pool: Arc<Pool>,
}

impl FreshPages {
    /// All bytes of them, zero at first.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: from `first` on there are as many pages, or none, that only this value knows; the pool keeps them.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.count * PAGE) }
    }

    /// Takes the first of them off.
    pub(crate) fn take(&mut self) -> Option<Page> {
        self.count = self.count.checked_sub(1)?;
        let at = self.first;
        // SAFETY: there was one more, so this is inside of the stretch or right behind it.
        self.first = unsafe { at.add(PAGE) };
        Some(Page::new(Spot { at, pool: Arc::clone(&self.pool) }))
    }
}

impl Drop for FreshPages {
    fn drop(&mut self) {
        // What no memory has taken is free.
        while self.take().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_apart_and_aligned_and_come_back() {
        let pages = Pages::default();
        let some: Vec<Page> = (0..2000).map(|_| pages.zeroed()).collect();
        for (number, page) in some.iter().enumerate() {
            assert!(page.bytes() == &[0; PAGE] && page.pointer().align_offset(PAGE) == 0);
            page.write(0, &[number as u8; PAGE]);
        }
        assert!(some.iter().enumerate().all(|(number, page)| page.bytes() == &[number as u8; PAGE]));
        let made = pages.0.with(|inner| inner.made);
        drop(some);
        let again: Vec<Page> = (0..2000).map(|_| pages.zeroed()).collect();
        assert!(again.iter().all(|page| page.bytes() == &[0; PAGE]), "what came back is zero again");
        assert_eq!(pages.0.with(|inner| inner.made), made, "nothing new was asked of the host");
    }

    #[test]
    fn a_page_outlives_the_memory_it_was_made_for() {
        let pages = Pages::default();
        let page = pages.zeroed();
        page.write(7, &[1, 2]);
        drop(pages);
        assert_eq!(page.read_u64(7), 0x201);
    }

    #[test]
    fn fresh_pages_are_taken_in_their_order() {
        let pages = Pages::default();
        for count in [0, 1, 3, HUGE + 1] {
            let mut fresh = pages.fresh(count);
            for (number, page) in fresh.bytes().chunks_exact_mut(PAGE).enumerate() {
                assert_eq!(page, [0; PAGE]);
                page.fill((number as u8).wrapping_add(1));
            }
            let taken: Vec<Page> = std::iter::from_fn(|| fresh.take()).collect();
            assert_eq!(taken.len(), count);
            assert!(taken.iter().enumerate().all(|(number, page)| page.bytes() == &[(number as u8).wrapping_add(1); PAGE]));
        }
    }
}
