//! What the processor keeps of a VMCB from #VMEXIT to the next VMRUN.
//!
//! What is modelled: APM vol 2, 15.15 "VMCB State Caching". The groups of 15.15.3 "VMCB Clean Field" stay in the processor; VMRUN of the same VMCB
//! reads from memory only those whose clean bit is zero, and everything that no group holds. So a field that the host changes without clearing
//! its bit keeps its old value, which the manual allows ("the clean bits are a hint") and some real processors do: here a forgotten bit shows every
//! time. One VMCB is kept, the one whose guest ran last; VMRUN of another address reads all of it, as does VMRUN after VMEXIT_INVALID.
//!
//! What is not: more than one VMCB; the groups AVIC and CET, which are not offered. The contents of the permission maps are never kept.

use std::ops::Range;

use cpu::state::Cpu;
use isa::svm::CleanBits;
use zerocopy::IntoBytes;

use crate::Svm;
use crate::instructions::SAVE_AREA;

/// Where NRIP is.
const NRIP: Range<usize> = 0x0c8..0x0d0;
/// How much of the control area VMRUN reads in one piece: behind it lie only extensions that are not offered, NRIP and the clean bits.
const CONTROL_READ: usize = 0x0c0;
/// How much of the state save area VMRUN reads, up to G_PAT. The last-branch registers behind it are read where they are switched.
const SAVE_READ: usize = 0x270;
/// Where the clean bits are.
const CLEAN: usize = 0x0c0;

/// A part of one of the two areas, and the bit that lets the processor keep it.
struct Group {
    bit: fn(CleanBits) -> bool,
    range: Range<usize>,
}

macro_rules! groups {
    ($(#[$doc:meta])* $table:ident: $($bit:ident $($range:expr),+;)*) => {
        $(#[$doc])*
        const $table: &[Group] = &[$($(Group { bit: |clean| clean.$bit(), range: $range },)+)*];
    };
}

groups! {
    /// The groups of the control area.
    CONTROL:
    intercepts 0x000..0x018, 0x03c..0x040, 0x050..0x058;
    permission_maps 0x040..0x050;
    asid 0x058..0x05c;
    virtual_interrupt 0x060..0x068;
    nested_paging 0x0b0..0x0b8;
}

groups! {
    /// The groups of the state save area.
    SAVE:
    segments 0x000..0x040, 0x0cb..0x0cc;
    descriptor_tables 0x060..0x070, 0x080..0x090;
    control_registers 0x0d0..0x0d8, 0x148..0x160;
    debug_registers 0x160..0x170;
    cr2 0x240..0x248;
    nested_paging 0x268..0x270;
}

/// What is read whatever the clean bits say: TLB_CONTROL, the interrupt shadow, EVENTINJ, which the manual names as not cached; and the enables of
/// nested paging and extensions, of which it says nothing.
const CONTROL_ALWAYS: &[Range<usize>] = &[0x05c..0x060, 0x068..0x070, 0x090..0x098, 0x0a8..0x0b0, 0x0b8..0x0c0];
/// RFLAGS, RIP, RSP and RAX.
const SAVE_ALWAYS: &[Range<usize>] = &[0x170..0x180, 0x1d8..0x1e0, 0x1f8..0x200];

impl Svm {
    /// What VMRUN reads of the VMCB. NRIP is read for events that return to it.
    pub(crate) fn read_vmcb(&mut self, cpu: &Cpu) {
        let (control, save) = (self.control.as_mut_bytes(), self.save.as_mut_bytes());
        let kept = self.kept == Some(self.vmcb) && self.capabilities.features.vmcb_clean();
        self.clean = CleanBits::new();
        let Some(page) = cpu.physical_page(self.vmcb) else {
            // No RAM, which reads as ones.
            control[..CONTROL_READ].fill(0xff);
            control[NRIP].fill(0xff);
            save[..SAVE_READ].fill(0xff);
            return;
        };
        page.read(NRIP.start, &mut control[NRIP]);
        if kept {
            let mut bits = [0; 4];
            page.read(CLEAN, &mut bits);
            self.clean = CleanBits::from_bits(u32::from_le_bytes(bits));
        }
        if self.clean == CleanBits::new() {
            page.read(0, &mut control[..CONTROL_READ]);
            page.read(SAVE_AREA as usize, &mut save[..SAVE_READ]);
            return;
        }
        let clean = self.clean;
        let changed = |groups: &'static [Group]| groups.iter().filter(move |group| !(group.bit)(clean)).map(|group| group.range.clone());
        for range in CONTROL_ALWAYS.iter().cloned().chain(changed(CONTROL)) {
            page.read(range.start, &mut control[range]);
        }
        for range in SAVE_ALWAYS.iter().cloned().chain(changed(SAVE)) {
            page.read(SAVE_AREA as usize + range.start, &mut save[range]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No byte belongs to two groups, and what is always read to none.
    #[test]
    fn groups_do_not_overlap() {
        for (groups, always, size) in [(CONTROL, CONTROL_ALWAYS, CONTROL_READ), (SAVE, SAVE_ALWAYS, SAVE_READ)] {
            let mut seen = vec![0; size];
            for range in groups.iter().map(|group| group.range.clone()).chain(always.iter().cloned()) {
                seen[range].iter_mut().for_each(|count| *count += 1);
            }
            assert!(seen.iter().all(|count| *count <= 1), "{seen:?}");
        }
    }
}
