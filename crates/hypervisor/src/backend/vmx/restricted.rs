//! A guest without the control "unrestricted guest", as KVM runs one with its parameter `unrestricted_guest=0`.
//!
//! Modelled: paging that the guest has off is on for the processor, with a page table that maps 4 GiB to themselves (KVM's "identity map");
//! which states of a guest VM entry refuses then, so that software has to emulate until the state is valid again.
//! Not modelled: real mode as virtual-8086 mode. KVM runs so what fits into that mode and emulates the rest; here real mode is emulated
//! always.

use crate::state::Registers;
use isa::register::Segment;
use serde::{Deserialize, Serialize};

/// Guest-physical address of the page table that maps everything to itself, where KVM has its own.
pub(crate) const IDENTITY_MAP: u64 = 0xfffb_c000;
/// P, R/W, U/S, A, D and PS of its entries, which map 4 MiB each.
const IDENTITY_ENTRY: u32 = 0xe7;

/// The page table: 1024 entries of 32-bit paging with pages of 4 MiB.
pub(crate) fn identity_map() -> [u8; 4096] {
    let mut page = [0; 4096];
    for (index, entry) in page.chunks_exact_mut(4).enumerate() {
        entry.copy_from_slice(&((index as u32) << 22 | IDENTITY_ENTRY).to_le_bytes());
    }
    page
}

/// What the guest wrote to registers that the processor has something else in.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restricted {
    /// Paging is off for the guest.
    pub paging_off: bool,
    cr3: u64,
    lme: bool,
}

impl Restricted {
    /// Notes what the guest has. The answer is what the processor gets.
    pub fn hide(&mut self, registers: &Registers) -> Registers {
        *self = Self { paging_off: !registers.cr0.pg(), cr3: registers.cr3, lme: registers.efer.lme() };
        let mut real = registers.clone();
        if self.paging_off {
            real.cr3 = IDENTITY_MAP;
            real.efer = real.efer.with_lme(false);
            real.cr4 = real.cr4.with_pae(false).with_pse(true).with_pcide(false).with_smep(false).with_smap(false);
        }
        real
    }

    /// Puts back what the guest wrote. CR0 and CR4 come from their shadows.
    pub fn show(&self, registers: &mut Registers) {
        if self.paging_off {
            registers.cr3 = self.cr3;
            registers.efer = registers.efer.with_lme(self.lme);
        }
    }
}

/// Whether VM entry would refuse a state, for a rule that holds without unrestricted guests only: real mode, and what the way out of it leaves.
///
/// SDM 27.3.1.1 "Checks on Guest Control Registers, Debug Registers, and MSRs" and 27.3.1.2 "Checks on Guest Segment Registers".
pub(super) fn refuses(registers: &Registers) -> bool {
    if !registers.cr0.pe() {
        return true;
    }
    if registers.rflags.vm() {
        return false;
    }
    let segment = |segment: Segment| &registers.segments[segment as usize];
    let (cs, ss) = (segment(Segment::Cs), segment(Segment::Ss));
    let (ss_level, ss_rpl) = (ss.attributes.dpl(), ss.selector.rpl());
    let data = |segment: &isa::segment::SegmentRegister| {
        let attributes = segment.attributes;
        let checked = !attributes.unusable() && attributes.p() && attributes.kind() <= 11;
        checked && attributes.dpl() < segment.selector.rpl()
    };
    let code = match cs.attributes.kind() {
        9 | 11 => cs.attributes.dpl() != ss_level,
        13 | 15 => cs.attributes.dpl() > ss_level,
        // A data segment, as real mode has it.
        _ => true,
    };
    code || cs.selector.rpl() != ss_rpl
        || ss_level != ss_rpl
        || [Segment::Ds, Segment::Es, Segment::Fs, Segment::Gs].into_iter().any(|number| data(segment(number)))
}
