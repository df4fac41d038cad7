//! Delivery of exceptions and interrupts, and what is looked at between instructions.

use crate::engine::RunExit;
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::Instruction;

impl Cpu {
    /// Takes a trap of `instruction` (none when it could not be fetched) to the program's handler or to the silicon.
    pub(crate) fn raise(&mut self, trap: Trap, _instruction: Option<&Instruction>) -> Result<(), RunExit> {
        match trap {
            Trap::Exit(exit) => self.leave_guest(exit),
            _ => Err(RunExit::Shutdown),
        }
    }

    /// What happens at an instruction boundary, in the order of SDM vol 3, Table 6-2 "Priority Among Concurrent Events".
    pub(crate) fn boundary(&mut self) -> Result<(), RunExit> {
        Ok(())
    }

    pub(crate) fn apic_offset(&self, _physical: u64) -> Option<u32> {
        None
    }

    pub(crate) fn apic_load(&mut self, _offset: u32, _bytes: u8) -> u64 {
        0
    }

    pub(crate) fn apic_store(&mut self, _offset: u32, _bytes: u8, _value: u64) {}

    #[expect(dead_code, reason = "delivery comes")]
    fn deliver(&mut self) -> Outcome<()> {
        Ok(())
    }
}
