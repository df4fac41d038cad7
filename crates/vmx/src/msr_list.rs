//! The lists of MSRs that VM entry and VM exit load and store.
//!
//! Modelled: SDM 25.7.2 "VM-Exit Controls for MSRs", 27.4 "Loading MSRs", 28.4 "Saving MSRs" and 28.6 "Loading MSRs". What an entry may be is a
//! table, [`crate::checks::msr_loading`]; loading at VM exit asks the same. A list longer than IA32_VMX_MISC recommends is cut off there by failing, so
//! that no guest can make one instruction run for ever.

use crate::checks::{Check, Entry, MsrLoad, Phase};
use crate::silicon::Vmx;
use crate::vmcs::Fields;
use cpu::state::Cpu;
use isa::vmx::VmcsField;

/// IA32_SMBASE, which only SMM reads.
const IA32_SMBASE: u32 = 0x9e;

/// Bytes of an entry: the MSR's number, four reserved bytes, eight bytes of data.
const ENTRY_BYTES: u64 = 16;

/// An entry of a list could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEntry;

impl Vmx {
    /// Loads every MSR of a list; fails with the first entry that breaks a rule.
    pub(crate) fn load_msrs(&mut self, cpu: &mut Cpu, address: VmcsField, count: VmcsField) -> Result<(), MsrLoad> {
        let (address, count) = (self.current.get(address), self.current.get(count));
        for number in 0..count {
            let place = address + number * ENTRY_BYTES;
            let head = cpu.read_physical(place, 8);
            let mut entry = MsrLoad {
                number: number as u32 + 1,
                index: head as u32,
                reserved: (head >> 32) as u32,
                value: cpu.read_physical(place + 8, 8),
                refused: false,
            };
            cpu.charge(cpu.model.costs.msr_list_entry.ticks.into());
            if self.broken_rule(&entry).is_some() {
                return Err(entry);
            }
            entry.refused = cpu.write_msr(entry.index, entry.value).is_err();
            if entry.refused {
                return Err(entry);
            }
        }
        Ok(())
    }

    /// The rule that an entry to be loaded breaks.
    fn broken_rule(&self, entry: &MsrLoad) -> Option<&'static Check> {
        // The list of VM exit is judged by the same rules, whatever the count of the other list.
        let mut fields = Fields::default();
        fields.set(VmcsField::EntryMsrLoadCount, 1);
        let view = Entry { fields: &fields, capabilities: &self.capabilities, facts: Default::default(), msr_load: *entry };
        Phase::MsrLoading.first_failure(&view)
    }

    /// Stores every MSR of the VM-exit MSR-store list.
    pub(crate) fn store_msrs(&mut self, cpu: &mut Cpu) -> Result<(), BadEntry> {
        let address = self.current.get(VmcsField::ExitMsrStoreAddress);
        for number in 0..self.current.get(VmcsField::ExitMsrStoreCount) {
            if number >= self.capabilities.misc.maximum_msr_list().into() {
                return Err(BadEntry);
            }
            cpu.charge(cpu.model.costs.msr_list_entry.ticks.into());
            let entry = address + number * ENTRY_BYTES;
            let head = cpu.read_physical(entry, 8);
            let index = head as u32;
            if head >> 32 != 0 || index >> 8 == 8 || index == IA32_SMBASE {
                return Err(BadEntry);
            }
            let value = cpu.read_msr(index).map_err(|_| BadEntry)?;
            cpu.write_physical(entry + 8, 8, value);
        }
        Ok(())
    }
}
