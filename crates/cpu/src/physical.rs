//! Physical memory as the silicon reaches it: VMCS and VMCB, bitmaps, lists, nested tables.
//!
//! What is modelled: RAM. Where there is none, reads give all ones and writes go nowhere, as on an undriven bus: devices do not answer the
//! silicon's own accesses.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`: it dereferences the environment of the present run.
#![expect(unsafe_code, reason = "the environment of the present run")]

use crate::access::{DEVICE_HOLE_END, DEVICE_HOLE_START};
use crate::state::Cpu;
use memory::{Memory, PageReader, PageWriter};

impl Cpu {
    #[inline]
    pub(crate) fn memory(&self) -> &Memory {
        // SAFETY: as for `Cpu::environment`: the pointer is good during a run and inside `Cpu::with_environment`, and no mutable reference
        // into the environment lives across a call of this method, which takes the whole processor.
        let environment = unsafe { self.environment.as_ref() };
        environment.expect("an access to memory outside a run").memory
    }

    /// A page of RAM, looked up once for several reads; `None` where there is none.
    #[inline]
    pub fn physical_page(&self, physical: u64) -> Option<PageReader<'_>> {
        if (DEVICE_HOLE_START..DEVICE_HOLE_END).contains(&physical) {
            return None;
        }
        self.memory().page_reader(physical)
    }

    /// Lets a closure write into a page of RAM that is looked up once. `false`, with nothing done, where there is none, and where the page
    /// holds decoded code.
    #[inline]
    pub fn write_physical_page(&mut self, physical: u64, write: impl FnOnce(&PageWriter<'_>)) -> bool {
        if (DEVICE_HOLE_START..DEVICE_HOLE_END).contains(&physical) {
            return false;
        }
        let Some(page) = self.environment().memory.page_writer(physical) else { return false };
        write(&page);
        // The page may have been shared with a snapshot until now.
        self.forget_old_pages();
        true
    }

    /// Reads bytes of physical memory.
    pub fn read_physical_bytes(&self, physical: u64, into: &mut [u8]) {
        let hole = physical < DEVICE_HOLE_END && physical.saturating_add(into.len() as u64) > DEVICE_HOLE_START;
        if hole || self.memory().read(physical, into).is_err() {
            into.fill(0xff);
        }
    }

    /// Writes bytes of physical memory. Decoded code that they change is dropped.
    pub fn write_physical_bytes(&mut self, physical: u64, from: &[u8]) {
        if physical < DEVICE_HOLE_END && physical.saturating_add(from.len() as u64) > DEVICE_HOLE_START {
            return;
        }
        let environment = self.environment();
        if environment.memory.write(physical, from).is_ok() && environment.memory.has_code_writes() {
            environment.drop_written_code();
            self.leave = true;
        }
        self.forget_old_pages();
    }

    /// Writes several pieces of one page of physical memory: offsets in the page, and bytes.
    pub fn write_physical_pieces(&mut self, page: u64, pieces: &[(usize, &[u8])]) {
        if (DEVICE_HOLE_START..DEVICE_HOLE_END).contains(&page) {
            return;
        }
        let environment = self.environment();
        if environment.memory.write_pieces(page, pieces).is_ok() && environment.memory.has_code_writes() {
            environment.drop_written_code();
            self.leave = true;
        }
        self.forget_old_pages();
    }

    /// Reads a little-endian number of 1 to 8 bytes.
    pub fn read_physical(&self, physical: u64, bytes: u8) -> u64 {
        let bytes = bytes.clamp(1, 8);
        let hole = physical < DEVICE_HOLE_END && physical.saturating_add(bytes.into()) > DEVICE_HOLE_START;
        // The fields of control blocks and the entries of tables, by one load: what lies behind them in their page does no harm.
        if physical & 0xfff <= 0xff8 && !hole {
            let value = self.memory().page_reader(physical).map_or(u64::MAX, |page| page.read_u64((physical & 0xfff) as usize));
            return value & u64::MAX >> (64 - 8 * u32::from(bytes));
        }
        let mut value = [0; 8];
        self.read_physical_bytes(physical, &mut value[..usize::from(bytes)]);
        u64::from_le_bytes(value)
    }

    /// Writes a little-endian number of 1 to 8 bytes.
    pub fn write_physical(&mut self, physical: u64, bytes: u8, value: u64) {
        if bytes == 8 && physical & 0xfff <= 0xff8 {
            let offset = (physical & 0xfff) as usize;
            if self.write_physical_page(physical, |page| page.write(offset, &value.to_le_bytes())) {
                return;
            }
        }
        self.write_physical_bytes(physical, &value.to_le_bytes()[..usize::from(bytes.min(8))]);
    }
}
