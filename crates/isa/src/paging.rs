//! Page-table entries of ordinary paging (32-bit, PAE, 4-level); EPT entries are in `vmx`.
//!
//! What is modelled: SDM vol 3, chapter 4 "Paging"; APM vol 2, chapter 5 "Page Translation and Protection".

/// The entry is present.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// User-mode accesses are allowed.
pub const USER: u64 = 1 << 2;
/// Page-level write-through.
pub const WRITE_THROUGH: u64 = 1 << 3;
/// Page-level cache disable.
pub const CACHE_DISABLE: u64 = 1 << 4;
/// The entry was used for a translation.
pub const ACCESSED: u64 = 1 << 5;
/// The page was written.
pub const DIRTY: u64 = 1 << 6;
/// The entry maps a page rather than a table (PDPTE, PDE).
pub const PAGE_SIZE: u64 = 1 << 7;
/// The translation survives a write of CR3 (with CR4.PGE).
pub const GLOBAL: u64 = 1 << 8;
/// Instruction fetches are refused (with EFER.NXE).
pub const NO_EXECUTE: u64 = 1 << 63;

/// Physical address bits of an entry, 51:12, before masking with the processor's MAXPHYADDR.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes of the smallest page.
pub const PAGE_BYTES: u64 = 4096;

/// Which of the paging modes is in force. SDM vol 3, 4.1.1 "Four Paging Modes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingMode {
    /// CR0.PG clear: linear addresses are physical.
    None,
    /// 32-bit paging: two levels of 4-byte entries.
    Bits32,
    /// PAE paging: three levels of 8-byte entries.
    Pae,
    /// 4-level paging.
    Level4,
}

/// Whether a linear address is canonical for 48-bit linear addresses.
pub const fn is_canonical(linear: u64) -> bool {
    ((linear as i64) << 16 >> 16) as u64 == linear
}
