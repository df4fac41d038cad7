//! What the core reaches outside itself: memory, devices, other processors.

use crate::apic::IcrMessage;
use crate::block::CodeCache;
use memory::Memory;

/// The devices around the core. Times are simulated CPU cycles.
pub trait Bus {
    /// IN of 1, 2 or 4 bytes.
    fn port_read(&mut self, port: u16, width: u8, now: u64) -> u32;

    /// OUT of 1, 2 or 4 bytes.
    fn port_write(&mut self, port: u16, width: u8, value: u32, now: u64);

    /// A read of 1, 2, 4 or 8 bytes outside RAM.
    fn memory_read(&mut self, physical: u64, width: u8, now: u64) -> u64;

    /// A write of 1, 2, 4 or 8 bytes outside RAM.
    fn memory_write(&mut self, physical: u64, width: u8, value: u64, now: u64);

    /// A local APIC sends an interprocessor interrupt.
    fn send(&mut self, source: u32, message: IcrMessage, now: u64);

    /// A local APIC broadcasts an end of interrupt for a level-triggered vector.
    fn end_of_interrupt(&mut self, vector: u8);

    /// The interrupt-acknowledge cycle of an ExtINT: the 8259's vector.
    fn acknowledge(&mut self) -> u8;

    /// The FERR# pin of a processor goes up or down. Where nothing is wired to it that has no effect.
    fn numeric_error(&mut self, _processor: u32, _asserted: bool) {}

    /// Whether something happened that the machine must look at before the processor goes on (an IPI, a stop, a changed line).
    fn attention(&self) -> bool;
}

/// A bus with nothing on it: reads find it floating, all ones, and writes go nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

impl Bus for NoDevices {
    fn port_read(&mut self, _: u16, width: u8, _: u64) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(width))
    }

    fn port_write(&mut self, _: u16, _: u8, _: u32, _: u64) {}

    fn memory_read(&mut self, _: u64, width: u8, _: u64) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(width))
    }

    fn memory_write(&mut self, _: u64, _: u8, _: u64, _: u64) {}

    fn send(&mut self, _: u32, _: IcrMessage, _: u64) {}

    fn end_of_interrupt(&mut self, _: u8) {}

    fn acknowledge(&mut self) -> u8 {
        u8::MAX
    }

    fn attention(&self) -> bool {
        false
    }
}

/// Everything outside the core, for the time of one run.
pub struct Environment<'a> {
    /// RAM.
    pub memory: &'a mut Memory,
    /// Decoded code, shared by the processors of a machine.
    pub code: &'a mut CodeCache,
    /// Devices.
    pub bus: &'a mut dyn Bus,
}
