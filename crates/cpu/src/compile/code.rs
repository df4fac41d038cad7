//! Executable memory: written first, then made executable and read-only, and unmapped with the region.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`.
#![expect(unsafe_code, reason = "bytes become a function")]

use crate::state::Cpu;
use memmap2::{Mmap, MmapMut};

/// The code of one region.
pub(super) struct Code(Mmap);

impl Code {
    /// Executable memory that holds `bytes`. Fails if the host gives none.
    pub(super) fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let mut memory = MmapMut::map_anon(bytes.len())?;
        memory.copy_from_slice(bytes);
        memory.make_exec().map(Self)
    }

    /// Bytes of code.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The compiled function: processor and number of the entry.
    pub(super) fn function(&self) -> extern "C" fn(*mut Cpu, u64) {
        // SAFETY: the bytes are what `Workshop::compile` made of a function with this signature and the host's calling convention, and
        // they start with its first instruction. Who calls it keeps the region, and so the mapping, alive.
        unsafe { std::mem::transmute::<*const u8, extern "C" fn(*mut Cpu, u64)>(self.0.as_ptr()) }
    }
}
