//! Page faults and other exits of shadow paging.
//!
//! Modelled: one function for every page fault of a guest, [`Vm::shadow_fault`]. The core's own walk on the spare processor says whose the fault
//! is, with the error code that the guest would have got, and sets the flags in the guest's tables; what the guest may access is mapped, what is
//! no memory or a table is emulated. All of it is one piece of work, under the lock around the mappings; before 2008 what is emulated, too. Later
//! kernels walk before they take the lock, and look again whether the guest's entries are still the same when they have it. Before an entry the processor gets the tables that the guest's registers ask for.

use super::userspace;
use crate::backend::Backend;
use crate::emulator::Place;
use crate::exit::Report;
use crate::mmu::Mmu;
use crate::mmu::shadow::path::Path;
use crate::mmu::shadow::{Filled, Wish};
use crate::run::Stop;
use crate::steps::Stage;
use crate::vm::{KICK_VECTOR, Vm};
use cpu::access::Privilege;
use cpu::trap::{Access, Trap};
use isa::exception::PageFaultCode;
use isa::paging::is_canonical;
use trace::{Event, Sink};

/// What became of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fixed {
    /// The guest goes on.
    Done,
    /// Software has to make the access.
    Emulate,
}

impl<B: Backend> Vm<B> {
    /// #PF of the processor, which walked shadow tables. `linear` and `code` are the processor's words.
    pub(super) fn shadow_fault(
        &mut self,
        vcpu: usize,
        report: &Report,
        linear: u64,
        code: PageFaultCode,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        self.emit(vcpu, sink, Event::PageFault { rip: report.rip, address: linear, error_code: code.into_bits().into() });
        self.lock_mappings(vcpu, self.fault_hold(), sink);
        self.later(vcpu, Stage::Fill { linear, code: code.into_bits() });
        Ok(())
    }

    /// What is done about it, with the lock, which is given back.
    pub(crate) fn fill_shadow(&mut self, vcpu: usize, linear: u64, code: PageFaultCode, sink: &mut dyn Sink) -> Result<(), Stop> {
        let fixed = self.fix_shadow(vcpu, linear, code, sink);
        // handle_exception() of 2007 held kvm->lock around its emulate_instruction().
        let emulates_locked = self.common.policy.is_of_2007();
        if !emulates_locked {
            self.unlock_mappings(vcpu);
        }
        let outcome = match fixed {
            Ok(Fixed::Done) => Ok(()),
            Ok(Fixed::Emulate) => self.emulate_access(vcpu, sink),
            Err(stop) => Err(stop),
        };
        if emulates_locked {
            self.unlock_mappings(vcpu);
        }
        outcome
    }

    fn fix_shadow(&mut self, vcpu: usize, linear: u64, code: PageFaultCode, sink: &mut dyn Sink) -> Result<Fixed, Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.shadow_fault_fix);
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        let access = if code.fetch() {
            Access::Fetch
        } else if code.write() {
            Access::Write
        } else {
            Access::Read
        };
        let privilege = match code.user() {
            true => Privilege::User,
            // A program at CPL 3 makes no supervisor's accesses: these are the processor's own.
            false if registers.cpl == 3 => Privilege::Implicit,
            false => Privilege::Supervisor,
        };
        // What others wrote to tables comes first. The flags that the walk itself sets are no such write: they change nothing that an entry says, and
        // walk_addr() of 2007, as every walk of KVM since, set them without a word to its write protection.
        self.follow_shadowed_writes();
        let walked = self.emulator.translate_as(&mut self.memory, &mut self.code, linear, access, privilege);
        self.memory.take_watched_writes();
        match walked {
            Ok(Place::Ram(_)) => {}
            Ok(Place::Device(_)) if access == Access::Fetch => {
                self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                return Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 });
            }
            Ok(Place::Device(_)) => return Ok(Fixed::Emulate),
            Err(Trap::Exception(exception)) => return self.fault_of_guest(vcpu, exception, sink).map(|()| Fixed::Done),
            Err(Trap::NotModelled(what)) => return Err(Stop::NotModelled { vcpu: vcpu as u32, what }),
            Err(Trap::Exit(_)) => return Err(self.unwalkable(vcpu)),
        }
        let path = Path::read(&self.memory, &self.common.slots, &registers, linear);
        let Some(path) = path else {
            return Err(self.not_modelled(vcpu, "a walk of the guest's tables that leads elsewhere the second time"));
        };
        // What only a read-only slot or nothing holds now is mapped for the access that was made, and no more.
        let writable = self.common.slots.at(path.frame << 12).is_some_and(|slot| !slot.read_only);
        let (write, fetch) = (access == Access::Write, access == Access::Fetch);
        let wish = Wish { linear, write, fetch, user: code.user(), writable };
        let Mmu::Shadow(tables) = &mut self.mmu else {
            return Err(self.not_modelled(vcpu, "an intercepted page fault under nested paging"));
        };
        match tables.fill(&mut self.memory, vcpu, &path, wish) {
            Filled::Changed => {
                if wish.write {
                    self.note_written(path.frame << 12);
                }
                Ok(Fixed::Done)
            }
            // Another virtual CPU was faster. handle_exception() of 2007 goes back into the guest whenever it writes no table.
            Filled::Nothing { sure } if sure || !code.present() => Ok(Fixed::Done),
            // Nothing that the tables can say makes the processor execute this.
            Filled::Nothing { .. } | Filled::Emulate => Ok(Fixed::Emulate),
        }
    }

    /// INVLPG, where the address is known, or INVPCID. The tables are in step with the guest's, so that only processors hold what is old.
    pub(super) fn invalidate(&mut self, vcpu: usize, report: &Report, linear: Option<u64>, sink: &mut dyn Sink) -> Result<(), Stop> {
        let Some(linear) = linear else {
            self.emulate(vcpu, sink, false)?;
            self.silicon(vcpu, |backend, cpu| backend.flush(cpu));
            return Ok(());
        };
        let costs = self.model.costs;
        self.charge(vcpu, &costs.control_register_handler);
        if is_canonical(linear) {
            self.silicon(vcpu, |backend, cpu| backend.invalidate(cpu, linear));
        }
        self.skip(vcpu, report.length)
    }

    /// Before a processor goes on with its guest: the tables are brought in step with what software wrote, and processors forget what they may
    /// hold of the old.
    #[inline]
    pub(crate) fn follow_shadowed_writes(&mut self) {
        let Mmu::Shadow(tables) = &mut self.mmu else { return };
        if self.memory.has_watched_writes() {
            tables.follow_writes(&mut self.memory);
        }
        if tables.take_stale() {
            self.flush_all();
        }
    }

    /// Before an entry: has the processor walk the tables that the guest's registers ask for.
    pub(crate) fn turn_tables(&mut self, vcpu: usize) {
        if !self.silicon(vcpu, |backend, _| backend.paging_changed()) {
            return;
        }
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.follow_shadowed_writes();
        let Mmu::Shadow(tables) = &mut self.mmu else { return };
        if let Some(root) = tables.turn(&mut self.memory, vcpu, &registers) {
            self.silicon(vcpu, |backend, cpu| backend.set_root(cpu, root));
        }
        self.follow_shadowed_writes();
    }

    /// Under shadow paging the zap of everything is told to other processors by an interrupt, as KVM's `kvm_flush_remote_tlbs` does.
    pub(crate) fn kick_others(&mut self, vcpu: usize) {
        for other in (0..self.vcpus.len()).filter(|other| *other != vcpu) {
            self.kick(other, KICK_VECTOR);
        }
    }
}
