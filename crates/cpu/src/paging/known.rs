//! Page walks whose outcome is known: the structures they read hold what they held when they were last walked.
//!
//! What is modelled: nothing of the architecture. The architectural TLB says when a walk is made, and a walk that is made is charged and
//! reads all its entries from memory; only the conclusions from them are kept, under everything that they follow from. So a paging structure
//! may be changed by whomever, a flag cleared, CR3 pointed elsewhere: the walk is then made in full. What is not kept: walks that faulted or
//! had to set a flag, walks behind nested paging and those of other modes than 4-level paging.

use super::Request;
use crate::state::Cpu;
use crate::tlb::Translation;
use crate::trap::Access;
use isa::cpuid::Feature;
use isa::paging::PagingMode;
use memory::Memory;

/// How many walks are kept.
const PLACES: usize = 64;

/// Everything but the entries that a walk's outcome follows from: CR3, CR0, CR4 and EFER; what was asked for; and the rest, bit by bit. Words, so
/// that comparing takes a few instructions.
#[derive(Clone, Copy, Debug)]
struct Circumstances([u64; 6]);

/// Which of the words says what was asked for.
const ASKED: usize = 4;

/// The linear page of a request, with access and privilege where the place in the page would be.
#[inline]
fn asked(request: Request) -> u64 {
    request.linear & !0xfff | (request.access as u64) << 4 | request.privilege as u64
}

impl Circumstances {
    #[inline]
    fn of(cpu: &Cpu, request: Request) -> Self {
        let gigabyte_pages = u64::from(cpu.has(Feature::Page1gb));
        let alignment_check = u64::from(cpu.system_flags().ac());
        let rest = u64::from(cpu.pkru) << 32 | gigabyte_pages << 1 | alignment_check;
        Self([cpu.cr3, cpu.cr0.into_bits(), cpu.cr4.into_bits(), cpu.efer.into_bits(), asked(request), rest])
    }

    /// Whether both are the same, without a branch for each word.
    #[inline]
    fn are(&self, others: &Self) -> bool {
        self.0.iter().zip(others.0).fold(0, |differences, (one, other)| differences | one ^ other) == 0
    }
}

/// The entries of a walk: where each is and what it held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trail {
    entries: [(u64, u64); 4],
    length: usize,
    /// Something else than reading happened on the way.
    unclean: bool,
}

impl Trail {
    /// Adds an entry; `settled` says that its flags were set already.
    #[inline]
    pub(super) fn add(&mut self, physical: u64, entry: u64, settled: bool) {
        match self.entries.get_mut(self.length) {
            Some(place) => *place = (physical, entry),
            None => self.unclean = true,
        }
        self.length += 1;
        self.unclean |= !settled;
    }

    /// Whether the entries hold what they held.
    #[inline]
    fn stands(&self, memory: &Memory) -> bool {
        self.entries[..self.length].iter().all(|&(physical, entry)| memory.read_u64(physical) == Ok(entry))
    }

    /// Whether something else than reading happened on the way.
    pub(super) fn is_unclean(&self) -> bool {
        self.unclean
    }
}

#[derive(Clone, Copy, Debug)]
struct KnownWalk {
    circumstances: Circumstances,
    trail: Trail,
    outcome: Translation,
    /// See [`KnownWalks::last`].
    serial: u64,
}

/// The walks that are known, by linear page.
#[derive(Clone, Debug)]
pub(crate) struct KnownWalks {
    places: Box<[Option<KnownWalk>; PLACES]>,
    /// How many were kept so far.
    kept: u64,
    /// A number for the outcome of the last walk: two walks with one number came to the same. 0: none.
    last: u64,
}

impl KnownWalks {
    pub(crate) fn new() -> Self {
        Self { places: Box::new([None; PLACES]), kept: 0, last: 0 }
    }

    /// None, with numbers that go on behind those of others: entries of the TLB may have theirs.
    pub(crate) fn behind(others: &Self) -> Self {
        Self { kept: others.kept, ..Self::new() }
    }

    #[inline]
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    const fn place(linear: u64) -> usize {
        (linear >> 12 ^ linear >> 18) as usize & (PLACES - 1)
    }
}

impl Cpu {
    /// Puts the outcome of a walk that would read what it read last time into `walked`, charged as the walk would be. `false`, with nothing
    /// done, if it is not known.
    #[inline]
    pub(super) fn repeat_walk(&mut self, mode: PagingMode, request: Request) -> bool {
        let Some(known) = &self.known_walks.places[KnownWalks::place(request.linear)] else { return false };
        if mode != PagingMode::Level4 || self.nested_paging || !known.circumstances.are(&Circumstances::of(self, request)) {
            return false;
        }
        if !known.trail.stands(self.memory()) {
            return false;
        }
        let (levels, serial) = (known.trail.length as u64, known.serial);
        self.walked = known.outcome;
        self.charge_walk(levels, serial);
        true
    }

    /// How many levels a walk has for a fetch by the program, where nothing but the entries and the privilege can have changed since the walk of
    /// a number. `None` if it would not come to what that one did, or nobody knows.
    #[inline]
    pub(crate) fn known_fetch(&self, linear: u64, walk: u64) -> Option<u64> {
        let known = self.known_walks.places[KnownWalks::place(linear)].as_ref()?;
        let request = Request { linear, access: Access::Fetch, privilege: self.privilege() };
        let same = known.serial == walk && known.circumstances.0[ASKED] == asked(request);
        (same && known.trail.stands(self.memory())).then_some(known.trail.length as u64)
    }

    /// Charges a walk that is known.
    #[inline]
    pub(crate) fn charge_walk(&mut self, levels: u64, serial: u64) {
        self.known_walks.last = serial;
        self.charge(levels * self.model.costs.page_walk_level.ticks());
    }

    /// Keeps a walk that did nothing but read RAM.
    pub(super) fn keep_walk(&mut self, mode: PagingMode, request: Request, trail: &Trail) {
        self.known_walks.last = 0;
        if mode != PagingMode::Level4 || self.nested_paging || trail.unclean {
            return;
        }
        if trail.entries[..trail.length].iter().all(|(physical, _)| self.is_ram(*physical)) {
            let circumstances = Circumstances::of(self, request);
            let (outcome, walks) = (self.walked, &mut self.known_walks);
            walks.kept += 1;
            walks.last = walks.kept;
            walks.places[KnownWalks::place(request.linear)] = Some(KnownWalk { circumstances, trail: *trail, outcome, serial: walks.kept });
        }
    }
}
