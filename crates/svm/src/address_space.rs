//! Which of the processor's cached translations survive a VMRUN and a #VMEXIT.
//!
//! What is modelled: APM vol 2, 15.16 "TLB Control": ASIDs keep the entries of host and guests apart, so neither VMRUN nor #VMEXIT removes any
//! by itself. The engine keeps host pointers and decoded blocks in front of the TLB, by context; a guest that is entered again with the same
//! paging finds its context, a host always does. What is not: nothing is cached of the VMCB itself.

use cpu::state::{ContextMark, Cpu};

use crate::npt::NestedRoot;

/// All that translations depend on in a guest, but privilege and code segment, which the core looks at itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressSpace {
    asid: u32,
    controls: [u64; 4],
    alignment_check: bool,
    breakpoints: u64,
    nested: Option<NestedRoot>,
    pdptes: [u64; 4],
}

impl AddressSpace {
    /// That of the guest that is loaded.
    fn of(cpu: &Cpu, nested: Option<NestedRoot>) -> Self {
        Self {
            asid: cpu.address_space,
            controls: [cpu.cr0.into_bits(), cpu.cr3, cpu.cr4.into_bits(), cpu.efer.into_bits()],
            alignment_check: cpu.system_flags().ac(),
            breakpoints: cpu.dr7.into_bits(),
            nested,
            pdptes: cpu.pdptes,
        }
    }
}

/// The contexts that may be taken up again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contexts {
    host: Option<ContextMark>,
    guest: Option<(AddressSpace, ContextMark)>,
}

impl Contexts {
    /// Before VMRUN changes anything.
    pub(crate) fn leave_host(&mut self, cpu: &Cpu) {
        self.host = Some(cpu.mark_context());
    }

    /// The guest is loaded.
    pub(crate) fn enter_guest(&self, cpu: &mut Cpu, nested: Option<NestedRoot>) {
        match &self.guest {
            Some((space, mark)) if *space == AddressSpace::of(cpu, nested) => cpu.resume_context(mark),
            _ => cpu.context_changed(),
        }
    }

    /// The guest is still loaded and will be left.
    pub(crate) fn leave_guest(&mut self, cpu: &Cpu, nested: Option<NestedRoot>) {
        self.guest = Some((AddressSpace::of(cpu, nested), cpu.mark_context()));
    }

    /// The host is loaded as it was at VMRUN.
    pub(crate) fn enter_host(&self, cpu: &mut Cpu) {
        match &self.host {
            Some(mark) => cpu.resume_context(mark),
            None => cpu.context_changed(),
        }
    }

    /// Entries of the TLB were removed: nothing in front of it may outlive them.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
