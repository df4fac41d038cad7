//! The lists of MSRs that VM entry and VM exit load and store.
//!
//! Modelled: SDM 25.7.2 "VM-Exit Controls for MSRs", 27.4 "Loading MSRs", 28.4 "Saving MSRs" and 28.6 "Loading MSRs". A list longer than
//! IA32_VMX_MISC recommends is cut off there by failing, so that no guest can make one instruction run for ever.

use crate::silicon::Vmx;
use cpu::state::Cpu;
use isa::msr;
use isa::vmx::VmcsField;

/// IA32_SMM_MONITOR_CTL, which only SMM writes.
const IA32_SMM_MONITOR_CTL: u32 = 0x9b;
/// IA32_SMBASE, which only SMM reads.
const IA32_SMBASE: u32 = 0x9e;

/// Bytes of an entry: the MSR's number, four reserved bytes, eight bytes of data.
const ENTRY_BYTES: u64 = 16;

/// An entry of a list, counted from 1, could not be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEntry(pub u64);

impl Vmx {
    /// Loads every MSR of a list.
    pub(crate) fn load_msrs(&mut self, cpu: &mut Cpu, address: VmcsField, count: VmcsField) -> Result<(), BadEntry> {
        let (address, count) = (self.current.get(address), self.current.get(count));
        for number in 0..count {
            let bad = BadEntry(number + 1);
            if number >= self.capabilities.misc.maximum_msr_list().into() {
                return Err(bad);
            }
            cpu.charge(cpu.model.costs.msr_list_entry.ticks.into());
            let entry = address + number * ENTRY_BYTES;
            let head = cpu.read_physical(entry, 8);
            let data = cpu.read_physical(entry + 8, 8);
            let index = head as u32;
            if head >> 32 != 0 || !may_load(index) || cpu.write_msr(index, data).is_err() {
                return Err(bad);
            }
        }
        Ok(())
    }

    /// Stores every MSR of the VM-exit MSR-store list.
    pub(crate) fn store_msrs(&mut self, cpu: &mut Cpu) -> Result<(), BadEntry> {
        let address = self.current.get(VmcsField::ExitMsrStoreAddress);
        for number in 0..self.current.get(VmcsField::ExitMsrStoreCount) {
            let bad = BadEntry(number + 1);
            if number >= self.capabilities.misc.maximum_msr_list().into() {
                return Err(bad);
            }
            cpu.charge(cpu.model.costs.msr_list_entry.ticks.into());
            let entry = address + number * ENTRY_BYTES;
            let head = cpu.read_physical(entry, 8);
            let index = head as u32;
            if head >> 32 != 0 || is_x2apic(index) || index == IA32_SMBASE {
                return Err(bad);
            }
            let value = cpu.read_msr(index).map_err(|_| bad)?;
            cpu.write_physical(entry + 8, 8, value);
        }
        Ok(())
    }
}

const fn is_x2apic(index: u32) -> bool {
    index >> 8 == 8
}

/// Whether the list may name the MSR: not the bases of FS and GS, not the local APIC's, not those that only SMM writes.
const fn may_load(index: u32) -> bool {
    !matches!(index, msr::IA32_FS_BASE | msr::IA32_GS_BASE | IA32_SMM_MONITOR_CTL | msr::IA32_BIOS_UPDT_TRIG) && !is_x2apic(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_msrs_may_not_be_in_a_list() {
        for index in [0xc000_0100, 0xc000_0101, 0x800, 0x8ff] {
            assert!(!may_load(index), "{index:#x}");
        }
        for index in [0xc000_0102, 0xc000_0082, 0x900, 0x7ff] {
            assert!(may_load(index), "{index:#x}");
        }
    }
}
