//! What the engine may keep of host and guest across VM entries and VM exits.
//!
//! Modelled: with "enable VPID", transitions remove nothing from the TLB (SDM 29.4.3.1 "Operations that Invalidate Cached Mappings"), so the
//! host pointers and decoded blocks that the core keeps in front of it stay good for a host or guest that comes back with the same paging.
//! Without it they come back when walks have found the same entries again.
//! Not modelled: more than one guest at a time; the others start with nothing but what the TLB itself holds.

use cpu::state::{ContextMark, Cpu};
use isa::vmx::EptPointer;

/// What translations depend on, but for privilege and code segment, which the core compares itself. Words, so that comparing takes a few
/// instructions.
#[derive(Clone, Copy, Debug)]
struct Paging([u64; 12]);

impl Paging {
    #[inline]
    fn of(cpu: &Cpu, ept: EptPointer) -> Paging {
        let ept = if cpu.nested_paging { ept.into_bits() } else { 0 };
        let alignment_check = u64::from(cpu.system_flags().ac());
        let rest = u64::from(cpu.address_space) << 2 | u64::from(cpu.nested_paging) << 1 | alignment_check;
        let [pdpte_0, pdpte_1, pdpte_2, pdpte_3] = cpu.pdptes;
        Paging([
            cpu.cr0.into_bits(),
            cpu.cr3,
            cpu.cr4.into_bits(),
            cpu.efer.into_bits(),
            pdpte_0,
            pdpte_1,
            pdpte_2,
            pdpte_3,
            cpu.dr7.into_bits(),
            // No page has this address.
            cpu.apic_access_page.unwrap_or(u64::MAX),
            ept,
            rest,
        ])
    }

    /// Whether both are the same, without a branch for each word.
    #[inline]
    fn is(&self, other: &Paging) -> bool {
        self.0.iter().zip(other.0).fold(0, |differences, (one, other)| differences | one ^ other) == 0
    }
}

/// A context that was left.
#[derive(Clone, Copy, Debug)]
struct Kept {
    paging: Paging,
    mark: ContextMark,
    /// The TLB has lost entries of its address space since.
    flushed: bool,
}

/// The contexts of the host and of the guest that ran last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contexts {
    host: Option<Kept>,
    guest: Option<Kept>,
}

fn leave(cpu: &Cpu, ept: EptPointer) -> Option<Kept> {
    Some(Kept { paging: Paging::of(cpu, ept), mark: cpu.mark_context(), flushed: false })
}

fn resume(cpu: &mut Cpu, ept: EptPointer, kept: &Option<Kept>) {
    match kept {
        Some(kept) if kept.paging.is(&Paging::of(cpu, ept)) => {
            if kept.flushed {
                cpu.renew_context(&kept.mark);
            } else {
                cpu.resume_context(&kept.mark);
            }
        }
        _ => cpu.context_changed(),
    }
}

impl Contexts {
    /// Before a VM entry loads anything.
    pub(crate) fn leave_host(&mut self, cpu: &Cpu) {
        self.host = leave(cpu, EptPointer::new());
    }

    /// A VM entry has loaded the guest.
    pub(crate) fn enter_guest(&self, cpu: &mut Cpu, ept: EptPointer) {
        resume(cpu, ept, &self.guest);
    }

    /// Before a VM exit loads anything.
    pub(crate) fn leave_guest(&mut self, cpu: &Cpu, ept: EptPointer) {
        self.guest = leave(cpu, ept);
    }

    /// A VM exit has loaded the host.
    pub(crate) fn enter_host(&self, cpu: &mut Cpu) {
        resume(cpu, EptPointer::new(), &self.host);
    }

    /// The TLB has lost all entries of host or guest, or of both.
    pub(crate) fn flushed(&mut self) {
        for kept in [&mut self.host, &mut self.guest].into_iter().flatten() {
            kept.flushed = true;
        }
    }

    /// Something was removed from the TLB that may have been of any address space.
    pub(crate) fn forget(&mut self) {
        *self = Contexts::default();
    }
}
