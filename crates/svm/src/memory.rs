//! The nested tables as they lie in physical memory.
//!
//! What is modelled: reads and writes of their entries, each with its cost. What is not: memory types.

use cpu::state::Cpu;

use crate::npt::Tables;

/// Physical memory of a processor.
pub(crate) struct PhysicalTables<'a>(pub &'a mut Cpu);

impl Tables for PhysicalTables<'_> {
    fn read(&mut self, physical: u64, width: u8) -> u64 {
        self.0.charge(self.0.model.costs.nested_walk_level.ticks());
        self.0.read_physical(physical, width)
    }

    fn write(&mut self, physical: u64, width: u8, entry: u64) {
        self.0.charge(self.0.model.costs.accessed_dirty_update.ticks());
        self.0.write_physical(physical, width, entry);
    }
}
