//! One page of bytes that may be reached through raw pointers and through copies alike.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`.
#![expect(unsafe_code, reason = "pages are read and written through host pointers kept in the software TLB")]

use crate::pool::Spot;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// 4096 bytes of a pool, aligned to 4096. Clones are the same bytes: whoever writes has made sure that he is alone.
#[derive(Clone)]
pub(crate) struct Page {
    bytes: NonNull<[u8; 4096]>,
    /// Keeps the bytes where they are; how many hold it is how many share the page.
    spot: Arc<Spot>,
}

// SAFETY: a page is written only by the `Memory` that is its single owner (`Memory::own_page` duplicates a shared one first), and a
// `Memory` is used by one thread at a time; threads that share a page after a snapshot only read it. The spot may be let go by any thread.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Page")
    }
}

impl Page {
    /// The page at a spot that nobody else has.
    pub(crate) fn new(spot: Spot) -> Self {
        Self { bytes: spot.bytes(), spot: Arc::new(spot) }
    }

    /// Whether no other memory has this page.
    pub(crate) fn is_alone(&self) -> bool {
        // Nobody makes weak pointers. The fence lets what another thread read of a snapshot that it dropped come before what is written now.
        let alone = Arc::strong_count(&self.spot) == 1;
        if alone {
            fence(Ordering::Acquire);
        }
        alone
    }

    /// Whether it is the same page, not only an equal one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }

    pub(crate) fn pointer(&self) -> *const u8 {
        self.bytes.as_ptr().cast::<u8>()
    }

    /// The bytes, for as long as whoever could write them is borrowed.
    pub(crate) fn bytes(&self) -> &[u8; 4096] {
        // SAFETY: pages are written by their `Memory` while it is borrowed mutably, or through pointers that it gave to whoever borrows it
        // mutably while he uses them; the reference keeps it from being so. The spot, which lives as long, keeps the bytes.
        unsafe { self.bytes.as_ref() }
    }

    /// Copies out. The caller keeps `offset + into.len()` within the page; more would panic.
    #[inline]
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= 4096);
        // SAFETY: the range was just checked, and `into` is a Rust slice, which cannot overlap a page that is only reached by pointer.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer().add(offset), into.as_mut_ptr(), into.len()) };
    }

    /// Reads eight bytes. The caller keeps them within the page; more would panic.
    #[inline]
    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        assert!(offset + 8 <= 4096);
        // SAFETY: the range was just checked.
        u64::from_le(unsafe { self.pointer().add(offset).cast::<u64>().read_unaligned() })
    }

    /// Copies in; `Memory` has made this page its own. More than the page would panic.
    #[inline]
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= 4096);
        // SAFETY: as for `read`; the spot's bytes may be written through its pointer, and `Memory::own_page` has made sure that nobody else
        // reads this page.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.bytes.as_ptr().cast::<u8>().add(offset), from.len()) };
    }
}
