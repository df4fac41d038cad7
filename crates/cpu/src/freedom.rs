//! What the architecture leaves open about when other processors see a store, and a log of what one step of a processor touched.
//!
//! What is modelled, for whoever decides about every step of every processor (the `explore` command, and schedules that replay what it found):
//!
//! - **A store in two parts.** A store that is not promised to be seen whole may be seen by others when only one part of it is done: one that
//!   crosses a cache line or page on Intel (SDM vol 3, 9.1.1 "Guaranteed Atomic Operations"), one that leaves its naturally aligned quadword on
//!   AMD (APM vol 2, 7.3.2 "Access Atomicity"). Either part may come first. The processor itself goes on when the other part is done, so it
//!   never sees the difference. Locked instructions are whole.
//! - **Stale bytes.** A processor may go on executing what it fetched ahead before another one changed it, until it serializes (SDM vol 3,
//!   9.1.3 "Handling Self- and Cross-Modifying Code"; APM vol 2, 7.6.1 "Cache Organization and Operation"). Stale are whole
//!   lines of 64 bytes; a VM exit and the instructions of [`serializes`] end it, and so does a store of its own to the line.
//! - **Store buffers.** A store may wait, seen by nobody but the processor itself, while later loads are done: `freedom/buffer.rs`.
//!
//! What is not modelled: speculation.
//!
//! Nothing of it costs anything while it is off: an observed processor keeps no page in its software TLB, so that every access comes by here,
//! and executes instruction by instruction. What is charged is the same, for both only ever spare a look into the architectural TLB.

use crate::state::Cpu;
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register as R};
use models::Vendor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod buffer;

pub use buffer::{BUFFER_ENTRIES, BufferedStore};

/// Bytes of a cache line.
pub const LINE_BYTES: u64 = 64;

/// How a piece of physical memory was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It was read.
    Read,
    /// It was written, and held this before, little-endian.
    Write {
        /// What it held.
        old: u64,
    },
    /// It will be written: the store waits in the processor's buffer, and is a write when it leaves it.
    Buffered,
    /// An instruction was fetched from it.
    Fetch,
}

/// An access to RAM; it does not cross a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAccess {
    /// First physical address.
    pub physical: u64,
    /// Bytes, at most 15.
    pub length: u64,
    /// What for.
    pub touch: Touch,
}

/// The instruction that a step executed, as the processor saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its linear address.
    pub linear: u64,
    /// Where it was fetched from.
    pub physical: u64,
    /// Where the rest of it was fetched from, if it crosses a page.
    pub second: Option<u64>,
    /// Its bytes.
    pub bytes: [u8; 15],
    /// How many.
    pub length: u8,
    /// It reads the time, on which nothing may depend that is searched without it.
    pub reads_time: bool,
    /// It is PAUSE: the program waits for another processor.
    pub pauses: bool,
}

/// Which part of a store is done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The bytes in front of the boundary.
    Low,
    /// The bytes behind it.
    High,
}

/// State of an observed processor: a fork takes it along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freedoms {
    /// What the present step touched.
    accesses: Vec<MemoryAccess>,
    executed: Option<Executed>,
    /// The present instruction is locked: its stores are whole.
    locked: bool,
    /// A store of the present step could have been split.
    could_split: bool,
    /// The next store that may be split is.
    split: Option<Part>,
    /// Bytes of a store whose other part is done: address and value.
    held: Vec<(u64, u8)>,
    buffer: buffer::Buffer,
    /// Lines as they were fetched ahead, by physical address.
    stale: BTreeMap<u64, [u8; LINE_BYTES as usize]>,
}

/// What a checkpoint keeps of an observed processor between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreedomRecord {
    /// Bytes of a store whose other part is done: physical address and value.
    pub held: Vec<(u64, u8)>,
    /// Lines as they were fetched ahead: physical address, and 64 bytes as little-endian words.
    pub stale: Vec<(u64, [u64; 8])>,
    /// The stores that wait in the store buffer, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffer: Vec<BufferedStore>,
}

/// Whether an instruction ends all that was fetched ahead. SDM vol 3, 9.3 "Serializing Instructions"; APM vol 2, 7.6.4 "Serializing
/// Instructions".
pub fn serializes(instruction: &Instruction) -> bool {
    let to_register = |range: std::ops::RangeInclusive<R>| {
        instruction.mnemonic() == M::Mov && instruction.op0_kind() == OpKind::Register && range.contains(&instruction.op0_register())
    };
    matches!(
        instruction.mnemonic(),
        M::Cpuid
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Rsm
            | M::Serialize
            | M::Invd
            | M::Wbinvd
            | M::Invlpg
            | M::Invept
            | M::Invvpid
            | M::Invlpga
            | M::Lgdt
            | M::Lidt
            | M::Lldt
            | M::Ltr
            | M::Wrmsr
    ) || to_register(R::CR0..=R::CR7)
        || to_register(R::DR0..=R::DR15)
}

impl Cpu {
    /// Begins or ends observation.
    pub fn observe(&mut self, observed: bool) {
        if self.freedoms.is_some() != observed {
            self.freedoms = observed.then(Box::default);
            self.view = 0;
            self.software_tlb.clear();
            self.context_changed();
        }
    }

    /// Whether it is observed.
    pub fn is_observed(&self) -> bool {
        self.freedoms.is_some()
    }

    /// What was touched since the last call, and the last instruction executed.
    pub fn take_accesses(&mut self) -> (Vec<MemoryAccess>, Option<Executed>) {
        self.freedoms.as_mut().map_or((Vec::new(), None), |freedoms| (std::mem::take(&mut freedoms.accesses), freedoms.executed.take()))
    }

    /// Has the next store that may be split done in two parts: see [`Self::release`].
    pub fn split_store(&mut self, first: Part) {
        if let Some(freedoms) = &mut self.freedoms {
            freedoms.split = Some(first);
        }
    }

    /// Whether the last step had a store that could have been split. No wish for a split outlives a step.
    pub fn could_split(&mut self) -> bool {
        self.freedoms.as_mut().is_some_and(|freedoms| {
            freedoms.split = None;
            std::mem::take(&mut freedoms.could_split)
        })
    }

    /// Whether a part of a store is not done yet: [`Self::release`] comes before anything else that this processor does.
    pub fn holds_back(&self) -> bool {
        self.freedoms.as_ref().is_some_and(|freedoms| !freedoms.held.is_empty())
    }

    /// Does the part of a store that was held back. Needs the environment.
    pub fn release(&mut self) {
        let Some(freedoms) = &mut self.freedoms else { return };
        for (physical, byte) in std::mem::take(&mut freedoms.held) {
            self.note_write(physical, 1);
            self.write_physical_bytes(physical, &[byte]);
        }
    }

    /// Lets the processor go on with a line as it was. One that it has already stays as it is.
    pub fn keep_line(&mut self, physical: u64, bytes: [u8; LINE_BYTES as usize]) {
        if let Some(freedoms) = &mut self.freedoms {
            freedoms.stale.entry(physical & !(LINE_BYTES - 1)).or_insert(bytes);
            self.view_changed();
        }
    }

    /// What a checkpoint keeps; nothing of a processor that is not observed. Only between two steps.
    pub fn freedom_record(&self) -> Option<FreedomRecord> {
        let freedoms = self.freedoms.as_ref()?;
        let words = |bytes: &[u8; LINE_BYTES as usize]| {
            let (words, _) = bytes.as_chunks();
            std::array::from_fn(|at| u64::from_le_bytes(words[at]))
        };
        let stale = freedoms.stale.iter().map(|(line, bytes)| (*line, words(bytes))).collect();
        Some(FreedomRecord { held: freedoms.held.clone(), stale, buffer: freedoms.buffer.stores.clone() })
    }

    /// Goes on from there, observed.
    ///
    /// # Errors
    /// Says what cannot be in memory of `memory` bytes.
    pub fn restore_freedoms(&mut self, record: &FreedomRecord, memory: u64) -> Result<(), &'static str> {
        // The largest store that is split is one of 64 bytes.
        if record.held.len() > 64 || record.held.iter().any(|(physical, _)| *physical >= memory) {
            return Err("a store held back that is none to memory");
        }
        let line = |line: u64| line.is_multiple_of(LINE_BYTES) && line < memory;
        if !record.stale.iter().all(|(start, _)| line(*start)) {
            return Err("lines fetched ahead that are none of memory");
        }
        let store = |store: &BufferedStore| (1..=64).contains(&store.len()) && store.iter().all(|(physical, _)| *physical < memory);
        if record.buffer.len() > BUFFER_ENTRIES || !record.buffer.iter().all(store) {
            return Err("stores in the store buffer that are none to memory, or more than it holds");
        }
        // What a VM exit empties, and what the rest of a store comes before.
        if !(record.buffer.is_empty() || self.guest_mode && record.held.is_empty()) {
            return Err("stores in the store buffer behind what empties it");
        }
        self.observe(true);
        for (start, words) in &record.stale {
            let mut bytes = [0; LINE_BYTES as usize];
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            self.keep_line(*start, bytes);
        }
        if let Some(freedoms) = &mut self.freedoms {
            freedoms.held = record.held.clone();
            freedoms.buffer.stores = record.buffer.clone();
        }
        Ok(())
    }

    /// The lines that it sees as they were, for whoever compares states.
    pub fn stale_lines(&self) -> impl Iterator<Item = (u64, &[u8; LINE_BYTES as usize])> {
        self.freedoms.iter().flat_map(|freedoms| freedoms.stale.iter().map(|(line, bytes)| (*line, bytes)))
    }

    /// The bytes that are held back, for whoever compares states.
    pub fn held_bytes(&self) -> impl Iterator<Item = (u64, u8)> {
        self.freedoms.iter().flat_map(|freedoms| freedoms.held.iter().copied())
    }

    /// A number that follows from the entries of the architectural TLB, for whoever compares states.
    pub fn translations(&self) -> u64 {
        self.tlb.fingerprint()
    }

    /// Forgets what was fetched ahead.
    pub(crate) fn serialize(&mut self) {
        if let Some(freedoms) = &mut self.freedoms
            && !freedoms.stale.is_empty()
        {
            freedoms.stale.clear();
            self.view_changed();
        }
    }

    /// Code is decoded from other bytes than before: whatever was decoded in this view is found no more.
    fn view_changed(&mut self) {
        let empty = self.freedoms.as_ref().is_none_or(|freedoms| freedoms.stale.is_empty());
        self.views += 1;
        // Numbers of different processors differ.
        self.view = if empty { 0 } else { self.views << 8 | self.number & 0xff };
        self.context_changed();
    }

    /// Puts stale lines over bytes that were read from physical memory; they lie in one page.
    pub(crate) fn view_bytes(&self, physical: u64, bytes: &mut [u8]) {
        let Some(freedoms) = &self.freedoms else { return };
        let end = physical + bytes.len() as u64;
        for (line, old) in freedoms.stale.range(physical.saturating_sub(LINE_BYTES - 1)..end) {
            for (at, byte) in old.iter().enumerate() {
                if let Some(place) = (line + at as u64).checked_sub(physical).and_then(|offset| bytes.get_mut(offset as usize)) {
                    *place = *byte;
                }
            }
        }
    }

    /// A page as this processor fetches from it, if that is not what memory holds.
    pub(crate) fn viewed_page(&self, physical: u64) -> Option<Box<[u8; 4096]>> {
        let page = physical & !0xfff;
        let freedoms = self.freedoms.as_ref()?;
        freedoms.stale.range(page..page + 0x1000).next()?;
        let mut bytes = Box::new([0; 4096]);
        self.read_physical_bytes(page, &mut bytes[..]);
        self.view_bytes(page, &mut bytes[..]);
        Some(bytes)
    }

    /// Notes the instruction that the step is about to execute.
    pub(crate) fn note_instruction(&mut self, instruction: &Instruction, linear: u64, physical: u64, second: Option<u64>) {
        let mut bytes = [0; 15];
        let length = instruction.len().min(15);
        let first = second.map_or(length, |_| length.min(0x1000 - (physical & 0xfff) as usize));
        self.read_physical_bytes(physical, &mut bytes[..first]);
        self.view_bytes(physical, &mut bytes[..first]);
        if let Some(second) = second {
            self.read_physical_bytes(second, &mut bytes[first..length]);
            self.view_bytes(second, &mut bytes[first..length]);
        }
        let Some(freedoms) = &mut self.freedoms else { return };
        let touch = Touch::Fetch;
        freedoms.accesses.push(MemoryAccess { physical, length: first as u64, touch });
        if let Some(physical) = second {
            freedoms.accesses.push(MemoryAccess { physical, length: (length - first) as u64, touch });
        }
        let exchanges = instruction.mnemonic() == M::Xchg && instruction.op0_kind() == OpKind::Memory;
        let locked = instruction.has_lock_prefix() || exchanges;
        freedoms.locked = locked;
        freedoms.executed = Some(Executed {
            linear,
            physical,
            second,
            bytes,
            length: length as u8,
            reads_time: matches!(instruction.mnemonic(), M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpru),
            pauses: instruction.mnemonic() == M::Pause,
        });
        self.drain_before(instruction, locked);
    }

    /// Notes a read of RAM.
    #[cold]
    pub(crate) fn note_read(&mut self, physical: u64, length: u8) {
        if let Some(freedoms) = &mut self.freedoms {
            freedoms.accesses.push(MemoryAccess { physical, length: length.into(), touch: Touch::Read });
        }
    }

    /// Notes a write of RAM that is about to be made; it does not cross a page.
    #[cold]
    pub(crate) fn note_write(&mut self, physical: u64, length: u8) {
        let old = self.read_physical(physical, length);
        let Some(freedoms) = &mut self.freedoms else { return };
        freedoms.accesses.push(MemoryAccess { physical, length: length.into(), touch: Touch::Write { old } });
        let lines = physical.saturating_sub(LINE_BYTES - 1)..physical + u64::from(length);
        let met: Vec<u64> = freedoms.stale.range(lines).map(|(line, _)| *line).collect();
        // SDM vol 3, 9.1.3: a processor sees its own stores to code.
        for line in &met {
            freedoms.stale.remove(line);
        }
        if !met.is_empty() {
            self.view_changed();
        }
    }

    /// Where a store may be torn: how many of its bytes lie in front of the boundary.
    fn tearing_point(&self, linear: u64, bytes: u8) -> Option<u64> {
        let unit = match self.model.vendor {
            Vendor::Intel => LINE_BYTES,
            Vendor::Amd => 8,
        };
        let first = unit - (linear & (unit - 1));
        (first < u64::from(bytes)).then_some(first)
    }

    /// A store of an observed processor that does not wait: made as any other by `store`; then the part that is to come later is taken back.
    fn store_visibly(&mut self, linear: u64, bytes: u8, store: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        let from = self.freedoms.as_ref().map_or(0, |freedoms| freedoms.accesses.len());
        store(self)?;
        let first = self.tearing_point(linear, bytes);
        let Some(freedoms) = &mut self.freedoms else { return Ok(()) };
        // The pieces that went to RAM, in order of the store's bytes; devices are not split.
        let pieces: Vec<MemoryAccess> = freedoms.accesses[from..].to_vec();
        let written: u64 = pieces.iter().filter(|piece| matches!(piece.touch, Touch::Write { .. })).map(|piece| piece.length).sum();
        freedoms.buffer.note_possible(written > 0);
        let Some(first) = first.filter(|_| written == u64::from(bytes)) else { return Ok(()) };
        freedoms.could_split = true;
        let Some(part) = freedoms.split.take() else { return Ok(()) };
        let mut at = 0;
        for piece in pieces {
            let Touch::Write { old } = piece.touch else { continue };
            for offset in 0..piece.length {
                let later = match part {
                    Part::Low => at >= first,
                    Part::High => at < first,
                };
                at += 1;
                if later {
                    let physical = piece.physical + offset;
                    let byte = self.read_physical(physical, 1) as u8;
                    if let Some(freedoms) = &mut self.freedoms {
                        freedoms.held.push((physical, byte));
                    }
                    self.write_physical_bytes(physical, &[(old >> (8 * offset)) as u8]);
                }
            }
        }
        Ok(())
    }
}
