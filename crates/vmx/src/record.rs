//! VMX of a processor as a record: what a checkpoint keeps of it.
//!
//! Modelled: everything of VMX operation that lies in the processor and not in memory: the kind of operation, the VMCSs that are active, the
//! numbers that its address spaces have in the TLB, PAUSE loops. What follows from these is found anew: which rules a VMCS has to pass again,
//! what its controls intercept, contexts of the engine.

use crate::address_space::{AddressSpaces, AddressSpacesRecord};
use crate::checks::{Facts, MsrLoad};
use crate::contexts::Contexts;
use crate::intercept::{Intercepts, PauseLoop};
use crate::silicon::{NO_VMCS, Operation, Refused, Vmx};
use crate::vmcs::{Fields, LaunchState, Vmcs};
use cpu::state::{Cpu, Impossible};
use isa::vmx::{EptPointer, VmcsField};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fields of a VMCS that are not zero.
type FieldValues = BTreeMap<VmcsField, u64>;

/// A VMCS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmcsRecord {
    /// Launch state.
    pub launch_state: LaunchState,
    /// Fields that are not zero.
    pub fields: FieldValues,
}

/// What the last VM entry was refused for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedRecord {
    /// Fields that are not zero.
    pub fields: FieldValues,
    /// The rest that the rules looked at.
    pub facts: Facts,
    /// The entry of the VM-entry MSR-load list at which it ended, if it was one.
    pub msr_load: MsrLoad,
}

/// VMX of a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmxRecord {
    /// Which kind of VMX operation.
    pub operation: Operation,
    /// The VMXON pointer.
    pub vmxon_pointer: u64,
    /// Physical address of the current VMCS.
    pub current_pointer: Option<u64>,
    /// It is a shadow VMCS.
    pub current_is_shadow: bool,
    /// The current VMCS.
    pub current: Option<VmcsRecord>,
    /// The VMCSs that are active but not current, by physical address.
    pub active: BTreeMap<u64, VmcsRecord>,
    /// Numbers of address spaces in the TLB.
    pub address_spaces: AddressSpacesRecord,
    /// The EPT pointer of the guest that runs.
    pub ept: EptPointer,
    /// The entry at which the last walk ended suppresses #VE.
    pub suppresses_ve: bool,
    /// The PAUSEs of a loop.
    pub pauses: PauseLoop,
    /// Features of the processor outside guests.
    pub host_features: u128,
    /// Bits of IA32_EFER that VMXON found reserved.
    pub efer_reserved: u64,
    /// VM exits since power-up.
    pub exits: u64,
    /// What the last VM entry was refused for.
    pub refused: Option<RefusedRecord>,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
}

fn values(fields: &Fields) -> FieldValues {
    VmcsField::ALL.iter().map(|field| (*field, fields.get(*field))).filter(|(_, value)| *value != 0).collect()
}

fn fields(values: &FieldValues) -> Fields {
    let mut fields = Fields::default();
    for (field, value) in values {
        fields.set(*field, *value);
    }
    fields
}

impl Vmcs {
    pub(crate) fn to_record(&self) -> VmcsRecord {
        VmcsRecord { launch_state: self.launch_state, fields: values(self.fields()) }
    }

    pub(crate) fn of_record(record: &VmcsRecord) -> Vmcs {
        let mut vmcs = Vmcs::default();
        for (field, value) in &record.fields {
            vmcs.set(*field, *value);
        }
        vmcs.launch_state = record.launch_state;
        vmcs
    }
}

impl Vmx {
    /// The state; only between runs.
    pub fn to_record(&self) -> VmxRecord {
        // A new field has to be placed: in the record, or among what follows from it.
        let Vmx {
            operation,
            vmxon_pointer,
            current_pointer: _,
            current_is_shadow,
            current,
            active,
            address_spaces,
            ept,
            suppresses_ve,
            pauses,
            host_features,
            efer_reserved,
            exits,
            refused,
            feature_control,
            // From the model.
            capabilities: _,
            supported: _,
            // From the current VMCS.
            intercepts: _,
            // Caches of the host.
            contexts: _,
        } = self;
        let current_pointer = self.current_pointer();
        VmxRecord {
            operation: *operation,
            vmxon_pointer: *vmxon_pointer,
            current_pointer,
            current_is_shadow: *current_is_shadow,
            current: current_pointer.map(|_| current.to_record()),
            active: active.iter().map(|(address, vmcs)| (*address, vmcs.to_record())).collect(),
            address_spaces: address_spaces.record(),
            ept: *ept,
            suppresses_ve: *suppresses_ve,
            pauses: *pauses,
            host_features: *host_features,
            efer_reserved: *efer_reserved,
            exits: *exits,
            refused: refused.as_ref().map(|refused| RefusedRecord {
                fields: values(&refused.fields),
                facts: refused.facts,
                msr_load: refused.msr_load,
            }),
            feature_control: *feature_control,
        }
    }

    /// Takes up the state of a record, on a processor that was just made and whose own record was taken up already.
    ///
    /// # Errors
    /// The record is of a state that VMX cannot be in.
    pub fn restore(&mut self, cpu: &Cpu, record: &VmxRecord) -> Result<(), Impossible> {
        let impossible = |what: &str| Err(Impossible(what.to_owned()));
        // No processor lives to count so many, and a counter that ran over would be a defect of ours.
        if record.exits >> 62 != 0 {
            return Err(Impossible(format!("{:#x} exits", record.exits)));
        }
        if record.current.is_some() != record.current_pointer.is_some() || record.current_pointer == Some(NO_VMCS) {
            return impossible("a current VMCS without its address, or the reverse");
        }
        if (record.operation == Operation::NonRoot) != cpu.guest_mode {
            return impossible("VMX non-root operation without a guest, or the reverse");
        }
        if cpu.nested_paging && !cpu.guest_mode {
            return impossible("EPT without a guest");
        }
        if record.operation == Operation::NonRoot && record.current.is_none() {
            return impossible("VMX non-root operation without a current VMCS");
        }
        let regions = record.active.keys().chain(&record.current_pointer).chain([&record.vmxon_pointer]);
        if let Some(region) = regions.copied().find(|region| !self.is_region(cpu, *region)) {
            return Err(Impossible(format!("a region at {region:#x}, which no VMXON or VMPTRLD takes")));
        }
        if record.active.len() > usize::from(u16::MAX) {
            return impossible("more than 65,535 active VMCSs");
        }
        self.operation = record.operation;
        self.vmxon_pointer = record.vmxon_pointer;
        self.current_pointer = record.current_pointer.unwrap_or(NO_VMCS);
        self.current_is_shadow = record.current_is_shadow;
        self.current = record.current.as_ref().map(Vmcs::of_record).unwrap_or_default();
        self.active = record.active.iter().map(|(address, vmcs)| (*address, Vmcs::of_record(vmcs))).collect();
        self.address_spaces = AddressSpaces::of_record(&record.address_spaces)?;
        self.ept = record.ept;
        self.suppresses_ve = record.suppresses_ve;
        self.pauses = record.pauses;
        self.host_features = record.host_features;
        self.efer_reserved = record.efer_reserved;
        self.exits = record.exits;
        self.refused = record
            .refused
            .as_ref()
            .map(|refused| Box::new(Refused { fields: fields(&refused.fields), facts: refused.facts, msr_load: refused.msr_load }));
        self.feature_control = record.feature_control;
        self.contexts = Contexts::default();
        self.intercepts = Intercepts::default();
        if self.operation == Operation::NonRoot {
            self.current.take_controls_changed();
            self.intercepts = Intercepts::of(self.current_pointer, self.current.fields());
        }
        Ok(())
    }
}
