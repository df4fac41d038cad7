//! Contexts: under which circumstances a host pointer or a decoded block was found for a linear address.
//!
//! What is modelled: nothing of the architecture. Everything that the engine keeps in front of the architectural TLB (see [`crate::tlb`]) is
//! kept under the number of a context. A change of anything that translations follow from begins another context, which finds nothing and asks
//! the TLB. The silicon, which changes everything at once and back again, may take up an old one: at once if nothing was removed from the TLB
//! since ([`Cpu::resume_context`]), else as soon as walks have brought back every entry that the old context's finds came from
//! ([`Cpu::renew_context`]). Those walks are made when they would be made anyway, so that no time is charged that would not be, and all of it.
//! Until then the processor is in *limbo*, where nothing is known; what has to be kept meanwhile begins a context of its own.

use crate::block::Mode;
use crate::state::Cpu;
use crate::tlb::{FetchPage, LIMBO, Translation};

/// The most entries of the TLB that a context is known to come from.
const MOST: usize = 8;
/// How many contexts have their sources kept: a host's, a guest's, and those that are to be replaced by them.
const SETS: usize = 4;
/// No context.
const NONE: u64 = u64::MAX;

/// A context that may be taken up again: see [`Cpu::resume_context`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextMark {
    context: u64,
    epoch: u64,
    mode: Mode,
    set: usize,
}

/// The entries of the TLB that everything kept in a context came from.
#[derive(Clone, Copy, Debug)]
struct Sources {
    /// The context's even number.
    context: u64,
    /// Rises with each use.
    serial: u64,
    /// How many there are; more than [`MOST`]: they are not known.
    count: usize,
    pages: [Translation; MOST],
    /// Under which number a walk last found each: see [`crate::paging::KnownWalks::last`].
    walks: [u64; MOST],
    /// One bit for each that a walk has brought back.
    found: u8,
}

/// Where the contexts come from that may be taken up again.
#[derive(Clone, Debug)]
pub(crate) struct Contexts {
    sets: [Sources; SETS],
    /// The set of the present context.
    present: usize,
    serial: u64,
    /// The context that will be taken up as soon as its sources are all back.
    awaited: Option<ContextMark>,
    /// [`crate::tlb::Tlb::removals`] when the awaiting began.
    removals: u64,
    /// A set that nobody needs.
    free: Option<usize>,
}

impl Contexts {
    pub(crate) fn new() -> Self {
        let set = Sources { context: NONE, serial: 0, count: MOST + 1, pages: [Translation::NONE; MOST], walks: [0; MOST], found: 0 };
        Self { sets: [set; SETS], present: 0, serial: 0, awaited: None, removals: 0, free: None }
    }

    /// Another context begins, with `count` sources.
    fn begin(&mut self, context: u64, count: usize) {
        self.awaited = None;
        self.present = self.free.take().unwrap_or_else(|| {
            let oldest = self.sets.iter().enumerate().min_by_key(|(_, set)| set.serial);
            oldest.map_or(0, |(index, _)| index)
        });
        self.serial += 1;
        let set = &mut self.sets[self.present];
        (set.context, set.serial, set.count) = (context & !1, self.serial, count);
    }

    /// Takes up a context whose sources are kept. `false` if they are not.
    fn take_up(&mut self, mark: &ContextMark) -> bool {
        self.awaited = None;
        self.serial += 1;
        let set = &mut self.sets[mark.set];
        if set.context != mark.context & !1 {
            return false;
        }
        set.serial = self.serial;
        self.present = mark.set;
        true
    }

    /// Something will be kept in the present context that follows from an entry of the TLB, which a walk of this number found.
    #[inline]
    pub(crate) fn note(&mut self, page: &Translation, walk: u64) {
        let set = &mut self.sets[self.present];
        if set.count > MOST || set.place(page, walk).is_some() {
            return;
        }
        if let Some(place) = set.pages.get_mut(set.count) {
            (*place, set.walks[set.count]) = (*page, walk);
        }
        set.count += 1;
    }

    /// What is kept in the present context follows from entries of the TLB that are not known.
    pub(crate) fn note_more(&mut self) {
        self.sets[self.present].count = MOST + 1;
    }
}

impl Sources {
    /// Which of the sources a page is.
    #[inline]
    fn place(&mut self, page: &Translation, walk: u64) -> Option<usize> {
        let walks = &self.walks[..self.count];
        if walk != 0
            && let Some(place) = walks.iter().position(|known| *known == walk)
        {
            return Some(place);
        }
        let place = self.pages[..self.count].iter().position(|known| known == page)?;
        if walk != 0 {
            self.walks[place] = walk;
        }
        Some(place)
    }
}

impl Cpu {
    /// Call after any change to what translations or decoding depend on: CR0, CR3, CR4, EFER, RFLAGS.AC, nested paging. Cheap; for CS and
    /// CPL alone [`Self::privilege_changed`] is cheaper.
    pub fn context_changed(&mut self) {
        self.leave = true;
        self.code_mode = self.mode(false);
        let (context, anew) = self.software_tlb.next_context(self.cpl == 3);
        self.context = context;
        self.contexts.begin(context, 0);
        if anew {
            self.jumps.clear();
            self.fetch_page = FetchPage::NONE;
        }
    }

    /// Call after a change of CS, CPL or RFLAGS.VM: the context stays what it was for this privilege, unless code is now decoded in another way.
    pub fn privilege_changed(&mut self) {
        self.leave = true;
        if self.mode(false) != self.code_mode {
            return self.context_changed();
        }
        self.context = self.context & !1 | u64::from(self.cpl == 3);
    }

    /// The present context, to come back to: what the engine has cached for it is kept.
    #[inline]
    pub fn mark_context(&self) -> ContextMark {
        // Limbo is not to come back to.
        let epoch = if self.is_in_limbo() { NONE } else { self.software_tlb.epoch };
        ContextMark { context: self.context, epoch, mode: self.code_mode, set: self.contexts.present }
    }

    #[inline]
    fn is_in_limbo(&self) -> bool {
        self.context & !1 == LIMBO
    }

    /// Something will be kept of the present context: if there is none, one begins, and the one that is awaited still is.
    #[inline]
    fn leave_limbo(&mut self) {
        if self.is_in_limbo() {
            self.begin_meanwhile();
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_meanwhile(&mut self) {
        let (leave, awaited) = (self.leave, self.contexts.awaited);
        self.context_changed();
        self.leave = leave;
        self.contexts.awaited = awaited.filter(|mark| mark.epoch == self.software_tlb.epoch);
    }

    /// Instead of [`Self::context_changed`], when everything that translations depend on is again as it was at the mark, and nothing was
    /// removed from the TLB for that address space since. The silicon does it at VM entries and exits.
    pub fn resume_context(&mut self, mark: &ContextMark) {
        if mark.epoch != self.software_tlb.epoch || mark.mode != self.mode(false) {
            return self.context_changed();
        }
        self.leave = true;
        self.code_mode = mark.mode;
        self.context = mark.context & !1 | u64::from(self.cpl == 3);
        if !self.contexts.take_up(mark) {
            self.contexts.begin(self.context, MOST + 1);
        }
    }

    /// Instead of [`Self::context_changed`], when CR0, CR3, CR4, EFER and whatever else translations depend on are again as they were at the
    /// mark, but entries of the TLB were removed for that address space since: the context is another one until walks have brought back all
    /// that it came from.
    pub fn renew_context(&mut self, mark: &ContextMark) {
        let set = &mut self.contexts.sets[mark.set];
        let known = set.context == mark.context & !1 && (1..=MOST).contains(&set.count) && mark.epoch == self.software_tlb.epoch;
        if !known || !self.is_decoded_as(&mark.mode) {
            return self.context_changed();
        }
        self.leave = true;
        self.code_mode = mark.mode;
        self.context = LIMBO | u64::from(self.cpl == 3);
        self.contexts.sets[mark.set].found = 0;
        self.contexts.awaited = Some(*mark);
        self.contexts.removals = self.tlb.removals();
    }

    /// Whether code is decoded as it was in a mode, if CR0, CR4 and EFER are as they were.
    #[inline]
    fn is_decoded_as(&self, mode: &Mode) -> bool {
        if mode.bits == 64 && self.is_64bit() {
            debug_assert_eq!(Mode { view: mode.view, ..self.mode(false) }, *mode);
            return mode.view == self.view;
        }
        *mode == self.mode(false)
    }

    /// What was found in the TLB is for something that will be kept.
    #[inline]
    pub(crate) fn note_found(&mut self, page: &Translation) {
        self.leave_limbo();
        self.contexts.note(page, 0);
    }

    /// A walk has put the page `walked` into the TLB, and what it is for will be kept.
    #[inline]
    pub(crate) fn note_walk(&mut self) {
        let back = match self.contexts.awaited {
            Some(mark) => self.bring_back(&mark),
            None => false,
        };
        if !back {
            self.leave_limbo();
            self.contexts.note(&self.walked, self.known_walks.last());
        }
    }

    /// Whether walks may bring a context back.
    #[inline]
    pub(crate) fn awaits_context(&self) -> bool {
        self.contexts.awaited.is_some()
    }

    /// Makes the walk for the fetch at RIP if it is all that a context waits for, and takes that context up. Whether it did; if not, whatever
    /// of it is left to do is done by an ordinary fetch.
    #[inline]
    pub(crate) fn fetch_awaited(&mut self) -> bool {
        let Some(mark) = self.contexts.awaited else { return false };
        let alone = self.contexts.sets[mark.set].count == 1 && mark.epoch == self.software_tlb.epoch;
        alone && self.refetch(mark.set) && self.take_up_awaited(&mark)
    }

    /// Makes the walk that the fetch at RIP would make, where everything that translations follow from is as it was in a context that came from
    /// one page alone: [`Self::translate`] with all that is known already left out. Where it is not as simple as that, whatever is left to do
    /// is left to that, and the answer is false.
    #[inline]
    fn refetch(&mut self, set: usize) -> bool {
        let (page, walk) = (&self.contexts.sets[set].pages[0], self.contexts.sets[set].walks[0]);
        let linear = self.rip;
        let plain =
            linear & !(page.bytes - 1) == page.linear && self.is_64bit() && self.apic_access_page.is_none() && !self.buffers_stores();
        let (space, pcid) = (self.address_space, self.pcid());
        if !plain || self.tlb.lookup(linear, space, pcid).is_some() {
            return false;
        }
        let Some(levels) = self.known_fetch(linear, walk) else { return false };
        let back = self.tlb.bring_back(page, space, pcid, walk);
        self.charge_walk(levels, walk);
        debug_assert!(self.fetch_agrees(linear, self.contexts.sets[set].pages[0]), "a known walk is what a walk finds");
        if !back {
            self.walked = self.contexts.sets[set].pages[0];
            self.keep_walked();
        }
        back
    }

    /// Notes that a source of the awaited context is back, and takes up the context if it is the last. Whether it did.
    fn bring_back(&mut self, mark: &ContextMark) -> bool {
        let set = &mut self.contexts.sets[mark.set];
        let Some(last) = set.place(&self.walked, self.known_walks.last()) else { return false };
        set.found |= 1 << last;
        if u32::from(set.found) != (1 << set.count) - 1 {
            return false;
        }
        let set = &self.contexts.sets[mark.set];
        let (space, pcid) = (self.address_space, self.pcid());
        // None of those before it has had to make room for another.
        let mut others = set.pages[..set.count].iter().enumerate().filter(|(at, _)| *at != last);
        let stand = self.contexts.removals == self.tlb.removals()
            || others.all(|(_, page)| self.tlb.lookup(page.linear, space, pcid) == Some(page));
        if !stand || mark.epoch != self.software_tlb.epoch {
            self.contexts.awaited = None;
            return false;
        }
        self.take_up_awaited(mark)
    }

    /// Takes up the awaited context, whose sources are all back, in place of the one in between. Whether its sources were still its own.
    #[inline]
    fn take_up_awaited(&mut self, mark: &ContextMark) -> bool {
        let meanwhile = (!self.is_in_limbo()).then_some(self.contexts.present);
        if !self.contexts.take_up(mark) {
            return false;
        }
        if let Some(meanwhile) = meanwhile {
            self.contexts.sets[meanwhile].context = NONE;
            self.contexts.free = Some(meanwhile);
        }
        self.context = mark.context & !1 | u64::from(self.cpl == 3);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(linear: u64) -> Translation {
        Translation { linear, physical: linear, guest_physical: linear, bytes: 4096, executable: true, ..Translation::NONE }
    }

    /// A walk as `translate` makes it known.
    fn walk(cpu: &mut Cpu, page: &Translation) {
        let (space, pcid) = (cpu.address_space, cpu.pcid());
        cpu.tlb.insert(*page, space, pcid);
        cpu.walked = *page;
        cpu.note_walk();
    }

    #[test]
    fn a_context_comes_back_when_all_that_it_came_from_is_back() {
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        cpu.context_changed();
        let old = cpu.context;
        walk(&mut cpu, &page(0x1000));
        walk(&mut cpu, &page(0x2000));
        let mark = cpu.mark_context();
        for round in 0..10 {
            cpu.context_changed();
            cpu.tlb.flush_all();
            cpu.renew_context(&mark);
            assert_ne!(cpu.context, old, "round {round}");
            walk(&mut cpu, &page(0x2000));
            // A page that it does not know does not matter.
            walk(&mut cpu, &page(0x5000 + (round << 12)));
            assert_ne!(cpu.context, old, "round {round}");
            walk(&mut cpu, &page(0x1000));
            assert_eq!(cpu.context, old, "round {round}");
        }
    }

    #[test]
    fn a_context_stays_away_when_a_page_is_another() {
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        let moved = Translation { physical: 0x9000, ..page(0x1000) };
        let dirty = Translation { dirty: true, ..page(0x1000) };
        for other in [moved, dirty] {
            cpu.context_changed();
            let old = cpu.context;
            walk(&mut cpu, &page(0x1000));
            let mark = cpu.mark_context();
            cpu.tlb.flush_all();
            cpu.renew_context(&mark);
            walk(&mut cpu, &other);
            assert_ne!(cpu.context, old);
        }
    }

    #[test]
    fn a_context_stays_away_when_a_page_had_to_make_room_or_the_awaiting_was_ended() {
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        cpu.context_changed();
        let old = cpu.context;
        // Two pages of one place in the TLB.
        let pages = [page(0x1000), page(0x1000 + (2048 << 12))];
        pages.iter().for_each(|page| walk(&mut cpu, page));
        let mark = cpu.mark_context();
        cpu.tlb.flush_all();
        cpu.renew_context(&mark);
        pages.iter().for_each(|page| walk(&mut cpu, page));
        assert_ne!(cpu.context, old);

        cpu.context_changed();
        let old = cpu.context;
        walk(&mut cpu, &page(0x1000));
        let mark = cpu.mark_context();
        cpu.tlb.flush_all();
        cpu.renew_context(&mark);
        cpu.context_changed();
        walk(&mut cpu, &page(0x1000));
        assert_ne!(cpu.context, old, "a change in between");
        let mark = cpu.mark_context();
        cpu.flush_tlb();
        cpu.renew_context(&mark);
        walk(&mut cpu, &page(0x1000));
        assert_ne!(cpu.context, mark.context, "everything was voided");
    }

    #[test]
    fn a_context_of_many_pages_stays_away() {
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        cpu.context_changed();
        let old = cpu.context;
        let pages: Vec<_> = (1..=MOST as u64 + 1).map(|number| page(number << 12)).collect();
        pages.iter().for_each(|page| walk(&mut cpu, page));
        let mark = cpu.mark_context();
        cpu.tlb.flush_all();
        cpu.renew_context(&mark);
        pages.iter().for_each(|page| walk(&mut cpu, page));
        assert_ne!(cpu.context, old);
    }

    #[test]
    fn a_context_whose_number_comes_back_finds_no_code_of_the_old_one() {
        let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
        let old = cpu.context;
        cpu.jumps.remember(0x1000, old, std::ptr::null());
        let mark = cpu.mark_context();
        cpu.context_changed();
        cpu.resume_context(&mark);
        assert!(cpu.context == old && cpu.jumps.find(0x1000, old).is_some(), "taken up again with all it had");
        loop {
            cpu.context_changed();
            if cpu.context == old {
                break;
            }
        }
        assert_eq!(cpu.jumps.find(0x1000, cpu.context), None);
        cpu.resume_context(&mark);
        assert_ne!(cpu.context, old, "the mark is void");
    }

    #[test]
    fn a_flush_of_everything_voids_the_marks() {
        let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
        let mark = cpu.mark_context();
        cpu.flush_tlb();
        let after = cpu.context;
        cpu.resume_context(&mark);
        assert!(cpu.context != mark.context && cpu.context != after);
    }
}
