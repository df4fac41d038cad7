//! Memory that is still on another host: what touches it waits until it has arrived.
//!
//! Modelled: pages that no nested table maps, so that the guest's first access is a fault; the virtual CPU then waits, as a thread does whose
//! page `userfaultfd` has to bring, and the others run on. The hypervisor's own accesses for the guest wait in the same way: a piece of the
//! handling of an exit that meets an absent page is done again from its beginning when that has come.
//! Not modelled: pages of which a part is absent, and absent pages of a guest under shadow paging.

use crate::backend::Backend;
use crate::exit::Exit;
use crate::mmu::Mmu;
use crate::mmu::nested::Tracking;
use crate::run::Stop;
use crate::steps::{Job, Stage, Wait};
use crate::vm::Vm;
use memory::OutOfRange;
use std::collections::{BTreeSet, VecDeque};
use timing::TICKS_PER_CYCLE;
use trace::{Event, Record, Sink};

/// Pages cannot be absent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory can arrive behind a guest only under nested paging, and this guest has shadow tables")]
pub struct NoNestedPaging;

/// The pages that are absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Absent {
    frames: BTreeSet<u64>,
    /// Who asked for what, and nobody was told yet.
    wanted: VecDeque<(u32, u64)>,
}

impl<B: Backend> Vm<B> {
    /// Says which pages are absent, by number. The nested tables map every page by itself until all have arrived.
    ///
    /// # Errors
    /// The guest runs under shadow paging.
    pub fn set_absent_pages(&mut self, frames: BTreeSet<u64>) -> Result<(), NoNestedPaging> {
        let Mmu::Nested(nested) = &mut self.mmu else { return Err(NoNestedPaging) };
        nested.begin_tracking(Tracking::Pages);
        self.emulator.set_absent(&frames);
        self.absent = Some(Absent { frames, wanted: VecDeque::new() });
        self.zap();
        Ok(())
    }

    /// Puts a page where it was absent, at a cycle; virtual CPUs that wait for it go on then. The answer is how many cycles they have waited,
    /// together. A page that is here already is left as it is.
    ///
    /// # Errors
    /// There is no RAM.
    pub fn supply_page(&mut self, frame: u64, bytes: &[u8; 4096], cycle: u64) -> Result<u64, OutOfRange> {
        let Some(absent) = &mut self.absent else { return Ok(0) };
        if !absent.frames.remove(&frame) {
            return Ok(0);
        }
        let all_here = absent.frames.is_empty();
        self.emulator.set_present(frame);
        // A page that was never touched stays so.
        if bytes.iter().any(|byte| *byte != 0) {
            self.memory.write(frame << 12, bytes)?;
            self.renew_arrived_hypercall_page(frame)?;
        }
        let mut waited = 0;
        for (vcpu, cpu) in self.vcpus.iter_mut().zip(&mut self.cpus) {
            if vcpu.waits == Some(Wait::Page(frame)) {
                vcpu.waits = None;
                let now = cpu.now();
                let then = cycle.saturating_mul(TICKS_PER_CYCLE).max(now);
                waited += (then - now) / TICKS_PER_CYCLE;
                cpu.set_now(then);
            }
        }
        if all_here {
            self.absent = None;
            self.mmu.stop_tracking();
            self.zap();
            if self.common.options.prefault {
                self.map_everything();
            }
        }
        Ok(waited)
    }

    /// How many pages are absent.
    pub fn absent_pages(&self) -> u64 {
        self.absent.as_ref().map_or(0, |absent| absent.frames.len() as u64)
    }

    /// Whether a page is absent.
    pub(crate) fn is_absent(&self, guest_physical: u64) -> bool {
        self.absent.as_ref().is_some_and(|absent| absent.frames.contains(&(guest_physical >> 12)))
    }

    /// Software is about to touch bytes of the guest's memory: whether it has to wait for them.
    pub(crate) fn must_wait(&mut self, guest_physical: u64, length: u64) -> bool {
        let last = guest_physical.saturating_add(length.saturating_sub(1));
        let missing = [guest_physical, last].into_iter().find(|address| self.is_absent(*address));
        if let Some(address) = missing {
            self.emulator.note_absent(address >> 12);
        }
        missing.is_some()
    }

    /// A virtual CPU waits for a page from now on.
    pub(crate) fn wait_for(&mut self, vcpu: usize, frame: u64, sink: &mut dyn Sink) {
        self.vcpus[vcpu].waits = Some(Wait::Page(frame));
        self.emit(vcpu, sink, Event::PageWait { gfn: frame });
        if let Some(absent) = &mut self.absent {
            absent.wanted.push_back((vcpu as u32, frame));
        }
        self.common.look = true;
    }

    /// The page that somebody asked for since the last call.
    pub(crate) fn next_wanted(&mut self) -> Option<Stop> {
        let (vcpu, frame) = self.absent.as_mut()?.wanted.pop_front()?;
        Some(Stop::PageWanted { vcpu, frame })
    }

    /// Whether a virtual CPU waits for a page.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.vcpus.iter().any(|vcpu| matches!(vcpu.waits, Some(Wait::Page(_))))
    }

    /// Does the next piece of a job while pages are absent: on a copy of everything, which is thrown away if it met one.
    pub(crate) fn try_piece(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        if let Some(Job { report, stage: Stage::Begin }) = &self.vcpus[vcpu].job
            && let Exit::NestedFault { guest_physical, error_code, malformed: false, .. } = report.exit
            && self.is_absent(guest_physical)
        {
            let rip = report.rip;
            self.vcpus[vcpu].job = None;
            self.common.statistics.exits += 1;
            self.emit(vcpu, sink, Event::PageFault { rip, address: guest_physical, error_code });
            self.wait_for(vcpu, guest_physical >> 12, sink);
            return Ok(());
        }
        self.attempt(vcpu, sink, |trial, sink| trial.do_piece(vcpu, sink)).map(drop)
    }

    /// Does something on a copy of everything. If it met an absent page the copy is thrown away, and the virtual CPU waits: `false`.
    pub(crate) fn attempt(
        &mut self,
        vcpu: usize,
        sink: &mut dyn Sink,
        act: impl FnOnce(&mut Self, &mut dyn Sink) -> Result<(), Stop>,
    ) -> Result<bool, Stop> {
        let mut told: Vec<Record> = Vec::new();
        let mut trial = self.fork();
        let done = act(&mut trial, &mut told);
        if let Some(frame) = trial.emulator.take_absent() {
            self.wait_for(vcpu, frame, sink);
            return Ok(false);
        }
        *self = trial;
        for Record { cycle, vcpu, event } in told {
            sink.emit(cycle, vcpu, event);
        }
        done.map(|()| true)
    }
}
