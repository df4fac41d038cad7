//! Translation of linear addresses.

use crate::access::Privilege;
use crate::state::Cpu;
use crate::tlb::Translation;
use crate::trap::{Access, Outcome, Trap};

impl Cpu {
    /// Translates a linear address for an access, through the TLB or by a walk; the fault is #PF, or the silicon's.
    pub fn translate(&mut self, linear: u64, _access: Access, _privilege: Privilege) -> Outcome<Translation> {
        if self.cr0.pg() || self.nested_paging {
            return Err(Trap::not_modelled("paging"));
        }
        Ok(Translation {
            linear: linear & !0xfff,
            physical: linear & !0xfff,
            guest_physical: linear & !0xfff,
            bytes: 4096,
            writable: true,
            user: true,
            executable: true,
            dirty: true,
            global: false,
            nested_writable: true,
            nested_executable: true,
        })
    }
}
