//! One page of bytes that may be reached through raw pointers and through copies alike.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`.
#![expect(unsafe_code, reason = "pages are read and written through host pointers kept in the software TLB")]

use std::cell::UnsafeCell;

/// 4096 bytes. The cell makes it legal to write through a pointer while others to the same page exist.
#[repr(align(4096))]
pub(crate) struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: a page is written only by the `Memory` that is its single owner (`Memory::own_page` duplicates a shared one first), and a
// `Memory` is used by one thread at a time; threads that share a page after a snapshot only read it.
unsafe impl Sync for Page {}

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Page")
    }
}

impl Page {
    pub(crate) fn zeroed() -> Self {
        Self(UnsafeCell::new([0; 4096]))
    }

    pub(crate) fn duplicate(&self) -> Self {
        let copy = Self::zeroed();
        // SAFETY: both point to 4096 bytes, and the copy is not yet known to anybody else.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer(), copy.0.get().cast::<u8>(), 4096) };
        copy
    }

    pub(crate) fn pointer(&self) -> *const u8 {
        self.0.get().cast::<u8>()
    }

    /// The bytes, for as long as whoever could write them is borrowed.
    pub(crate) fn bytes(&self) -> &[u8; 4096] {
        // SAFETY: pages are written by their `Memory` while it is borrowed mutably, or through pointers that it gave to whoever borrows it
        // mutably while he uses them; the reference keeps it from being so.
        unsafe { &*self.0.get() }
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
        // SAFETY: as for `read`; the cell allows the write, and `Memory::own_page` has made sure that nobody else reads this page.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.0.get().cast::<u8>().add(offset), from.len()) };
    }
}
