//! What a guest's future follows from, fed into a hasher, so that a search finds out that it was there before.
//!
//! Two guests with the same fingerprint do the same from here on, whatever is scheduled: registers, events that wait, how far the
//! hypervisor's work is, locks, the architectural TLBs, memory and nested or shadow tables are in it. Left out are the time and what only counts (cycles,
//! instructions, exits), because a schedule decides about order and not time decides; the caches of the host; and the board, whose state
//! follows from the accesses that were made to it, which the caller has to add.

use crate::backend::Backend;
use crate::mmu::Mmu;
use crate::vm::Vm;
use memory::Memory;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

/// Lets text be written into a hasher.
struct Text<'h, H>(&'h mut H);

impl<H: Hasher> std::fmt::Write for Text<'_, H> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl<B: Backend> Vm<B> {
    /// Feeds the state of the guest into a hasher; of its memory, what differs from `origin`.
    pub fn fingerprint<H: Hasher>(&mut self, origin: &Memory, into: &mut H) {
        // What happens before anybody goes on.
        self.follow_shadowed_writes();
        for vcpu in 0..self.vcpus.len() {
            let registers = self.registers(vcpu as u32);
            let (cpu, virtual_cpu) = (&self.cpus[vcpu], &self.vcpus[vcpu]);
            // A hasher takes any text.
            let _ = write!(Text(&mut *into), "{registers:?}{:?}{:?}", virtual_cpu.software, virtual_cpu.backend);
            let _ = write!(Text(&mut *into), "{:?}{:?}{:?}", virtual_cpu.job, cpu.inject, cpu.apic.highest_pending());
            (cpu.guest_mode, virtual_cpu.waits, virtual_cpu.granted).hash(into);
            cpu.held_bytes().for_each(|held| held.hash(into));
            cpu.buffered_stores().collect::<Vec<_>>().hash(into);
            cpu.stale_lines().for_each(|line| line.hash(into));
            cpu.translations().hash(into);
        }
        self.common.lock.hash(into);
        let ram = self.common.slots.end() >> 12;
        let tables = match &self.mmu {
            Mmu::Nested(tables) => tables.root() >> 12,
            Mmu::Shadow(tables) => {
                tables.fingerprint(&self.memory, into);
                u64::MAX
            }
        };
        self.memory.differences(origin, |frame, bytes| {
            // Between the guest's RAM and its nested tables lie the control structures, whose content the registers are.
            if frame < ram || frame >= tables {
                (frame, bytes).hash(into);
            }
        });
    }

    /// The linear address of the next instruction of a virtual CPU that is in its guest.
    pub fn guest_place(&self, vcpu: u32) -> Option<u64> {
        let cpu = self.cpus.get(vcpu as usize).filter(|cpu| cpu.guest_mode)?;
        Some(cpu.linear_rip())
    }
}
