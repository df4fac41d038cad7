//! Registers of paging under shadow paging: what the guest wrote, and what the processor has instead.
//!
//! The processor walks shadow tables of four levels where the guest is in long mode, and tables of PAE paging everywhere else, without paging
//! too: CR3 is the hypervisor's, CR0.PG and CR4.PAE are set, CR0.WP is set so that the supervisor does not write what is protected, and EFER.NXE
//! is set so that any page can be made one without code. Of the rest the processor has what the guest has, while the guest pages.

use crate::state::Registers;
use isa::control::{Cr0, Cr4, Efer};
use serde::{Deserialize, Serialize};

/// Bits of CR0 that a guest can change without an exit.
const OWN_CR0: u64 = Cr0::new().with_ts(true).with_mp(true).into_bits();

/// What the guest wrote.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shadowed {
    cr0: Cr0,
    cr3: u64,
    pub cr4: Cr4,
    pub efer: Efer,
    pdptes: [u64; 4],
    /// The processor's CR3.
    pub root: u64,
    /// Registers were loaded since the hypervisor last looked.
    pub changed: bool,
}

impl Shadowed {
    pub const fn new() -> Self {
        Self { cr0: Cr0::new(), cr3: 0, cr4: Cr4::new(), efer: Efer::new(), pdptes: [0; 4], root: 0, changed: true }
    }

    /// Notes what the guest has. The answer is what the processor gets.
    pub fn hide(&mut self, registers: &Registers) -> Registers {
        let Registers { cr0, cr3, cr4, efer, pdptes, .. } = *registers;
        *self = Self { cr0, cr3, cr4, efer, pdptes, root: self.root, changed: true };
        let mut real = registers.clone();
        real.cr0 = cr0.with_pg(true).with_wp(true);
        real.cr3 = self.root;
        real.cr4 = cr4.with_pae(true).with_pcide(false);
        if !cr0.pg() {
            real.cr4 = real.cr4.with_smep(false).with_smap(false).with_pke(false);
        }
        real.efer = efer.with_nxe(true).with_lme(efer.lma());
        real
    }

    /// Puts back what the guest wrote. Of CR4 only what no exit tells of is the processor's: the vendors differ in what that is.
    pub fn show(&self, registers: &mut Registers) {
        let own = registers.cr0.into_bits() & OWN_CR0;
        registers.cr0 = Cr0::from_bits(self.cr0.into_bits() & !OWN_CR0 | own);
        registers.cr3 = self.cr3;
        registers.efer = self.efer;
        registers.pdptes = self.pdptes;
    }
}
