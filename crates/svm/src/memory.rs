//! Physical memory as the silicon reaches it: the VMCB, the permission maps and the nested tables.
//!
//! What is modelled: RAM. Where there is no RAM, reads give all ones and writes go nowhere, as on an undriven bus.

use cpu::state::Cpu;

use crate::npt::Tables;

/// Reads bytes; all ones where there is no RAM.
pub(crate) fn read(cpu: &mut Cpu, physical: u64, into: &mut [u8]) {
    if cpu.memory().read(physical, into).is_err() {
        into.fill(0xff);
    }
}

/// Writes bytes; nowhere where there is no RAM.
pub(crate) fn write(cpu: &mut Cpu, physical: u64, from: &[u8]) {
    cpu.write_physical(physical, from);
}

/// The nested tables lie in physical memory.
pub(crate) struct PhysicalTables<'a>(pub &'a mut Cpu);

impl Tables for PhysicalTables<'_> {
    fn read(&mut self, physical: u64, width: u8) -> u64 {
        let mut bytes = [0; 8];
        let (used, _) = bytes.split_at_mut(usize::from(width.min(8)));
        read(self.0, physical, used);
        self.0.charge(self.0.model.costs.nested_walk_level.ticks());
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, physical: u64, width: u8, entry: u64) {
        let bytes = entry.to_le_bytes();
        let (used, _) = bytes.split_at(usize::from(width.min(8)));
        write(self.0, physical, used);
        self.0.charge(self.0.model.costs.accessed_dirty_update.ticks());
    }
}
