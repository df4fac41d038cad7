//! The store buffer of an observed processor: stores of the program that wait there are seen by nobody but itself.
//!
//! What is modelled is what the manuals leave open about ordinary stores and loads (SDM vol 3, 9.2.2 "Memory Ordering in P6 and More Recent
//! Processor Families" and the examples of 9.2.3; APM vol 2, 7.2 "Multiprocessor Memory Access Ordering"), in the form that Owens, Sarkar and
//! Sewell gave it ("A Better x86 Memory Model: x86-TSO", 2009): one buffer for each processor, first in, first out; loads of the processor
//! itself see what waits in it, byte by byte; the oldest store may become visible at any time. Stores behind one that waits wait as well.
//!
//! What empties it (SDM vol 3, 12.10 "Store Buffer"; APM vol 2, 7.5.1 "Write Buffering"): MFENCE, locked instructions and XCHG with
//! memory, the instructions of [`super::serializes`], IN and OUT, the delivery of exceptions and interrupts, VM exits, accesses to devices, and HLT,
//! behind which nothing else could. Of VM exits only the APM says it (#VMEXIT, in 7.5.1); for VMX it is a decision. Not SFENCE and LFENCE: they
//! do not keep a load from being done before an earlier store.
//!
//! What the processor does by itself comes past the buffer. A fetch or a page walk that meets a store in it empties it first, so a
//! program sees its own stores to its code and its tables. The stores of the processor itself (descriptors, stacks of inner levels) empty it.
//!
//! What is not modelled: weakly-ordered stores (non-temporal ones, write-combining memory, SDM vol 3, 9.2.4 "Fast-String Operation and Out-of-Order
//! Stores"), which are ordered as any others are.

use super::{Freedoms, MemoryAccess, Part, Touch, serializes};
use crate::access::Privilege;
use crate::state::Cpu;
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// The most stores that wait. No manual promises a number; among the processors here Zen 3 has the most entries.
pub const BUFFER_ENTRIES: usize = 64;

/// A store that waits: physical addresses and their bytes.
pub type BufferedStore = Vec<(u64, u8)>;

/// The buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    /// The oldest first.
    pub(super) stores: Vec<BufferedStore>,
    /// The next store waits here.
    wanted: bool,
    /// What the present store has put here so far; none is under way, or it goes to memory.
    present: Option<BufferedStore>,
    /// A store of the present step waits, or could have.
    could: bool,
    /// How many accesses of the present step came before it was last empty for certain.
    emptied: Option<usize>,
}

impl Buffer {
    /// A store was made that could have waited.
    pub(super) fn note_possible(&mut self, possible: bool) {
        self.could |= possible;
    }
}

/// Whether an instruction is done only when every earlier store is visible.
fn empties(instruction: &Instruction) -> bool {
    let ports = [M::In, M::Insb, M::Insw, M::Insd, M::Out, M::Outsb, M::Outsw, M::Outsd];
    serializes(instruction) || matches!(instruction.mnemonic(), M::Mfence | M::Hlt | M::Mwait) || ports.contains(&instruction.mnemonic())
}

impl Freedoms {
    /// The bytes of an access, with what waits over them.
    fn forward(&self, physical: u64, bytes: &mut [u8]) {
        for &(address, byte) in self.buffer.stores.iter().flatten() {
            if let Some(place) = address.checked_sub(physical).and_then(|offset| bytes.get_mut(offset as usize)) {
                *place = byte;
            }
        }
    }

    /// Whether a store to any of these bytes waits.
    fn waits_at(&self, physical: u64, bytes: u64) -> bool {
        self.buffer.stores.iter().flatten().any(|(address, _)| (physical..physical + bytes).contains(address))
    }

    /// Ends the present store as far as it came.
    fn end_store(&mut self) {
        if let Some(store) = self.buffer.present.take().filter(|store| !store.is_empty()) {
            self.buffer.stores.push(store);
        }
    }
}

impl Cpu {
    /// Has the next store of the program wait in the store buffer, and so every one behind it until the buffer is empty.
    pub fn buffer_store(&mut self) {
        if let Some(freedoms) = &mut self.freedoms {
            freedoms.buffer.wanted = true;
        }
    }

    /// Whether the last step had a store that waits, or could have. No wish for one outlives a step.
    pub fn could_buffer(&mut self) -> bool {
        self.freedoms.as_mut().is_some_and(|freedoms| {
            freedoms.buffer.wanted = false;
            std::mem::take(&mut freedoms.buffer.could)
        })
    }

    /// Whether every store before it was visible at some moment of the last step: how many of the step's accesses came before the last such moment.
    pub fn emptied(&mut self) -> Option<usize> {
        self.freedoms.as_mut().and_then(|freedoms| freedoms.buffer.emptied.take())
    }

    /// Whether a store waits in the store buffer.
    #[inline]
    pub fn buffers_stores(&self) -> bool {
        self.freedoms.as_ref().is_some_and(|freedoms| !freedoms.buffer.stores.is_empty())
    }

    /// The stores that wait, the oldest first.
    pub fn buffered_stores(&self) -> impl Iterator<Item = &BufferedStore> {
        self.freedoms.iter().flat_map(|freedoms| freedoms.buffer.stores.iter())
    }

    /// Makes the oldest store that waits visible. Needs the environment.
    pub fn drain_store(&mut self) {
        let Some(freedoms) = self.freedoms.as_mut().filter(|freedoms| !freedoms.buffer.stores.is_empty()) else { return };
        let store = freedoms.buffer.stores.remove(0);
        for run in store.chunk_by(|(before, _), (after, _)| before + 1 == *after && after & 0xfff != 0) {
            let bytes: Vec<u8> = run.iter().map(|(_, byte)| *byte).collect();
            self.note_write(run[0].0, bytes.len() as u8);
            self.write_physical_bytes(run[0].0, &bytes);
        }
    }

    /// Makes every store that waits visible. Needs the environment.
    #[inline]
    pub fn drain_stores(&mut self) {
        if self.is_observed() {
            self.drain_observed();
        }
    }

    #[cold]
    fn drain_observed(&mut self) {
        let Some(freedoms) = &mut self.freedoms else { return };
        freedoms.end_store();
        freedoms.buffer.emptied = Some(freedoms.accesses.len());
        while self.buffers_stores() {
            self.drain_store();
        }
    }

    /// Empties the buffer if it holds bytes that the processor is about to read by itself. Whether it did.
    #[inline]
    pub(crate) fn drain_met(&mut self, physical: u64, bytes: u64) -> bool {
        let meets = self.freedoms.as_ref().is_some_and(|freedoms| freedoms.waits_at(physical, bytes));
        if meets {
            self.drain_stores();
        }
        meets
    }

    /// Empties the buffer in front of an instruction that waits for that.
    pub(super) fn drain_before(&mut self, instruction: &Instruction, locked: bool) {
        if locked || empties(instruction) {
            self.drain_stores();
        }
    }

    /// What the program reads: memory's bytes, little-endian, with its own stores over them that wait.
    pub(crate) fn forwarded(&self, physical: u64, bytes: u8, value: u64) -> u64 {
        let Some(freedoms) = self.freedoms.as_ref().filter(|freedoms| !freedoms.buffer.stores.is_empty()) else { return value };
        let mut read = value.to_le_bytes();
        freedoms.forward(physical, &mut read[..usize::from(bytes)]);
        u64::from_le_bytes(read)
    }

    /// Puts a piece of the present store into the buffer, if that is where it goes.
    pub(crate) fn buffer_piece(&mut self, physical: u64, bytes: u8, value: u64) -> bool {
        let Some(freedoms) = &mut self.freedoms else { return false };
        let Some(store) = &mut freedoms.buffer.present else { return false };
        store.extend((physical..).zip(value.to_le_bytes()).take(bytes.into()));
        freedoms.accesses.push(MemoryAccess { physical, length: bytes.into(), touch: Touch::Buffered });
        true
    }

    /// A store of an observed processor, made by `store`: into the buffer, if one waits there or this one is to; else to memory, perhaps in
    /// two parts.
    pub(crate) fn store_observed(
        &mut self,
        linear: u64,
        bytes: u8,
        privilege: Privilege,
        store: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        if privilege == Privilege::Implicit {
            self.drain_stores();
            return store(self);
        }
        let Some(freedoms) = self.freedoms.as_mut().filter(|freedoms| !freedoms.locked) else { return store(self) };
        if freedoms.buffer.stores.is_empty() && !freedoms.buffer.wanted {
            return self.store_visibly(linear, bytes, store);
        }
        // As two, if it is torn.
        while self.buffered_stores().count() + 2 > BUFFER_ENTRIES {
            self.drain_store();
        }
        let first = self.tearing_point(linear, bytes);
        let Some(freedoms) = &mut self.freedoms else { return Ok(()) };
        freedoms.buffer.present = Some(Vec::with_capacity(bytes.into()));
        let outcome = store(self);
        let Some(freedoms) = &mut self.freedoms else { return outcome };
        let made = freedoms.buffer.present.take().unwrap_or_default();
        if outcome.is_err() || made.is_empty() {
            // It was none to memory; one that faults has written nothing.
            return outcome;
        }
        (freedoms.buffer.could, freedoms.buffer.wanted) = (true, false);
        let torn = first.filter(|_| made.len() == usize::from(bytes));
        freedoms.could_split |= torn.is_some();
        match torn.and_then(|first| Some((first as usize, freedoms.split.take()?))) {
            None => freedoms.buffer.stores.push(made),
            Some((first, part)) => {
                let (low, high) = made.split_at(first);
                let parts = if part == Part::Low { [low, high] } else { [high, low] };
                freedoms.buffer.stores.extend(parts.map(<[_]>::to_vec));
            }
        }
        Ok(())
    }
}
