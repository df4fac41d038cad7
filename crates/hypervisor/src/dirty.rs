//! The dirty log: which pages of the guest's memory were written since somebody last asked.
//!
//! Modelled: what Linux KVM does. When a log is started, large mappings are divided (`eager_page_split`) and every page is clean. Processors
//! with a page-modification log tell of their writes through it: it is emptied after every exit, and a full one exits. On all others clean
//! pages are write-protected, and the first write to one is a fault that is mended without a lock. What the hypervisor and its devices
//! write themselves they note down (`mark_page_dirty`). Whoever reads the log has every virtual CPU fetched out of its guest, so that
//! nothing waits in a processor, and makes it forget its translations.
//! Not modelled: logs of single memory slots, the dirty ring, and the lock that a reader of the log holds meanwhile.

use crate::backend::Backend;
use crate::mmu::Paging;
use crate::mmu::nested::{Slot, Tracking};
use crate::run::Stop;
use crate::vm::Vm;
use cpu::trap::Access;
use models::Vendor;
use std::collections::BTreeSet;
use timing::Cost;
use trace::{Event, Sink};

/// A dirty log that is being kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirtyLog {
    frames: BTreeSet<u64>,
}

impl DirtyLog {
    /// The frames in it, in ascending order.
    pub fn frames(&self) -> Vec<u64> {
        self.frames.iter().copied().collect()
    }

    /// A log with these frames.
    pub fn of(frames: Vec<u64>) -> Self {
        Self { frames: frames.into_iter().collect() }
    }
}

/// What a dirty log said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyPages {
    /// The pages by number, in ascending order.
    pub frames: Vec<u64>,
    /// Cycles that reading took whoever asked. Virtual CPUs have paid for their own exits.
    pub cycles: u64,
}

/// How writes are told, in words.
const fn words(tracking: Tracking) -> &'static str {
    match tracking {
        Tracking::None | Tracking::Pages => "nothing",
        Tracking::Protection => "write protection",
        Tracking::DirtyFlags => "page-modification log",
    }
}

/// Cycles of so many times a piece of work.
fn cycles(cost: &Cost, count: u64) -> u64 {
    (u64::from(cost.ticks) * count) / timing::TICKS_PER_CYCLE
}

impl<B: Backend> Vm<B> {
    /// Starts a dirty log in which every page is clean; how many cycles that took whoever asked. One that is kept already begins anew.
    ///
    /// # Errors
    /// A virtual CPU could not be fetched out of its guest.
    pub fn start_dirty_log(&mut self, sink: &mut dyn Sink) -> Result<u64, Stop> {
        // The page-modification log is part of EPT.
        let nested = self.mmu.paging() == Paging::Nested;
        let by_processor = nested && self.common.options.page_modification_log && B::logs_writes(self.model);
        let tracking = if by_processor { Tracking::DirtyFlags } else { Tracking::Protection };
        self.fetch_out_all(sink)?;
        let slots: Vec<Slot> = self.common.slots.iter().copied().collect();
        let mut divided = Vec::new();
        for slot in &slots {
            self.mmu.track(&mut self.memory, slot, tracking, &mut |address, entry, level| divided.push((address >> 12, entry, level)));
        }
        for &(gfn, spte, level) in &divided {
            self.emit(0, sink, Event::SplitHugePage { gfn, spte, level });
        }
        if nested {
            for vcpu in 0..self.vcpus.len() {
                self.silicon(vcpu, |backend, cpu| backend.log_writes(cpu, by_processor));
            }
        }
        self.flush_charged();
        self.dirty = Some(DirtyLog::default());
        self.memory.take_journal();
        self.memory.open_journal(true);
        let costs = self.model.costs;
        let taken =
            cycles(&costs.large_page_split, divided.len() as u64) + cycles(&costs.dirty_log_word, self.common.slots.ram_pages() / 64);
        self.emit(0, sink, Event::DirtyLog { action: "start", by: words(tracking), pages: 0, cycles: taken });
        Ok(taken)
    }

    /// The pages written since the log was started or last read; all are clean again. Nothing where no log is kept.
    ///
    /// # Errors
    /// A virtual CPU could not be fetched out of its guest.
    pub fn take_dirty_log(&mut self, sink: &mut dyn Sink) -> Result<DirtyPages, Stop> {
        if self.dirty.is_none() {
            return Ok(DirtyPages::default());
        }
        self.fetch_out_all(sink)?;
        for vcpu in 0..self.vcpus.len() {
            self.empty_log(vcpu);
        }
        self.take_journal();
        let frames: Vec<u64> = self.dirty.as_mut().map(|log| std::mem::take(&mut log.frames)).unwrap_or_default().into_iter().collect();
        for frame in &frames {
            self.mmu.clean(&mut self.memory, frame << 12);
        }
        // Writes to the tables themselves are no business of the guest's.
        self.memory.take_journal();
        if !frames.is_empty() {
            self.flush_charged();
        }
        let costs = self.model.costs;
        let words_looked_at = self.common.slots.ram_pages().div_ceil(64);
        let taken = cycles(&costs.dirty_log_word, words_looked_at) + cycles(&costs.dirty_log_page, frames.len() as u64);
        let by = words(self.mmu.tracking());
        self.emit(0, sink, Event::DirtyLog { action: "read", by, pages: frames.len() as u64, cycles: taken });
        Ok(DirtyPages { frames, cycles: taken })
    }

    /// Ends the dirty log: memory is mapped by large pages again.
    ///
    /// # Errors
    /// A virtual CPU could not be fetched out of its guest.
    pub fn stop_dirty_log(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.dirty.is_none() {
            return Ok(());
        }
        self.fetch_out_all(sink)?;
        let by = words(self.mmu.tracking());
        for vcpu in 0..self.vcpus.len() {
            self.empty_log(vcpu);
            if self.mmu.paging() == Paging::Nested {
                self.silicon(vcpu, |backend, cpu| backend.log_writes(cpu, false));
            }
        }
        self.take_journal();
        self.memory.open_journal(false);
        let pages = self.dirty.take().map_or(0, |log| log.frames.len() as u64);
        self.mmu.stop_tracking();
        self.zap();
        if self.common.options.prefault {
            self.map_everything();
        }
        let costs = self.model.costs;
        self.emit(0, sink, Event::DirtyLog { action: "stop", by, pages, cycles: cycles(&costs.mmu_zap, 1) });
        Ok(())
    }

    /// Fetches every virtual CPU that is in its guest out of it.
    fn fetch_out_all(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        for vcpu in 0..self.vcpus.len() {
            if self.cpus[vcpu].guest_mode {
                self.fetch_out_traced(vcpu, sink)?;
            }
        }
        Ok(())
    }

    /// Has every processor forget translations, at its own expense. On AMD the next VMRUN does it, and charges for it.
    fn flush_charged(&mut self) {
        self.flush_all();
        if B::VENDOR == Vendor::Intel {
            let costs = self.model.costs;
            for vcpu in 0..self.vcpus.len() {
                self.charge(vcpu, &costs.invept);
            }
        }
    }

    /// After an exit: takes over what the processor logged.
    pub(crate) fn empty_log(&mut self, vcpu: usize) {
        if self.mmu.tracking() != Tracking::DirtyFlags || self.dirty.is_none() {
            return;
        }
        let logged = self.silicon(vcpu, |backend, cpu| backend.take_logged(cpu));
        let costs = self.model.costs;
        for _ in &logged {
            self.charge(vcpu, &costs.modification_log_entry);
        }
        if let Some(log) = &mut self.dirty {
            // The processor logs what it translated, the hypervisor's own pages included.
            log.frames.extend(logged.into_iter().filter(|address| self.common.slots.is_ram(*address)).map(|address| address >> 12));
        }
    }

    /// Takes over what software wrote.
    fn take_journal(&mut self) {
        let journal = self.memory.take_journal();
        if let Some(log) = &mut self.dirty {
            log.frames.extend(journal.into_iter().filter(|frame| self.common.slots.is_ram(frame << 12)));
        }
    }

    /// A write to a page that is mapped and protected by the log alone: lets it happen. `false` where something else is the matter.
    pub(crate) fn allow_logged_write(&mut self, vcpu: usize, guest_physical: u64, access: Access, sink: &mut dyn Sink) -> bool {
        if self.mmu.tracking() != Tracking::Protection {
            return false;
        }
        let Some(armed) = self.mmu.allow_write(&mut self.memory, guest_physical) else { return false };
        let costs = self.model.costs;
        self.charge(vcpu, &costs.dirty_fault_fix);
        self.note_written(guest_physical);
        // Present, a write; on AMD the access of a guest's table counts as one, too.
        let error_code = 0b11 | u64::from(access == Access::Fetch) << 4;
        let spurious = armed.old == armed.new;
        let (old, new) = (armed.old, armed.new);
        self.emit(vcpu, sink, Event::FastPageFault { gva: guest_physical, error_code, sptep: armed.place, old, new, spurious });
        true
    }

    /// A page was mapped because of a write, in a nested table.
    pub(crate) fn note_mapped_write(&mut self, guest_physical: u64) {
        if self.mmu.tracking() == Tracking::Protection {
            self.mmu.allow_write(&mut self.memory, guest_physical);
            self.note_written(guest_physical);
        }
    }

    pub(crate) fn note_written(&mut self, guest_physical: u64) {
        if let Some(log) = &mut self.dirty {
            log.frames.insert(guest_physical >> 12);
        }
    }
}
