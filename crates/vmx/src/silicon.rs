//! The state of VMX operation of one logical processor, and its place in the core.
//!
//! Modelled: VMX root and non-root operation, the current and the active VMCSs, IA32_FEATURE_CONTROL and the capability MSRs.
//! The same functions serve a guest program's VMX instructions and a hypervisor in Rust ([`Vmx::with`]). Not modelled: SMM, SMX.

use crate::address_space::AddressSpaces;
use crate::capabilities;
use crate::checks::{Check, Entry, Facts, MsrLoad, Phase, all_failures};
use crate::contexts::Contexts;
use crate::intercept::{Intercepts, PauseLoop};
use crate::vmcs::{Fields, SupportedFields, Vmcs};
use cpu::extension::{AfterExit, Completion, Extension, NestedAccess, NestedPage};
use cpu::state::Cpu;
use cpu::trap::{Access, ControlAccess, Exit, NestedFault, Outcome, PortAccess, Trap, VendorInstruction};
use isa::msr;
use isa::vmx::{CapabilityMsr, EptPointer, VmInstructionError, VmcsField, VmxCapabilities};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a VMX instruction failed. SDM 31.2 "Conventions".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmFail {
    /// There is no current VMCS to take an error number: RFLAGS.CF is set.
    #[error("VMfailInvalid: there is no current VMCS")]
    Invalid,
    /// RFLAGS.ZF is set and the VM-instruction error field holds the number.
    #[error("VMfailValid: {0}")]
    Valid(VmInstructionError),
}

/// Which kind of VMX operation the processor is in. SDM 24.2 "VMX Operation", 24.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// None.
    Off,
    /// VMX root operation.
    Root,
    /// VMX non-root operation: a guest runs.
    NonRoot,
}

/// Bit 0 of IA32_FEATURE_CONTROL: locked.
const FEATURE_CONTROL_LOCK: u64 = 1;
/// Bit 2 of IA32_FEATURE_CONTROL: VMXON outside SMX operation. SDM 24.7 "Enabling and Entering VMX Operation".
const FEATURE_CONTROL_VMXON: u64 = 1 << 2;
/// The bits of IA32_FEATURE_CONTROL that exist without SMX.
const FEATURE_CONTROL_DEFINED: u64 = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;

/// No VMCS is current.
pub(crate) const NO_VMCS: u64 = u64::MAX;

/// What a VM entry was made with that broke a rule, for explanations.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The fields of the VMCS.
    pub fields: Fields,
    /// The rest that the rules looked at.
    pub facts: Facts,
    /// The entry of the VM-entry MSR-load list at which it ended, if it was one.
    pub msr_load: MsrLoad,
}

/// VMX of one logical processor.
#[derive(Clone, Debug)]
pub struct Vmx {
    pub(crate) capabilities: VmxCapabilities,
    pub(crate) operation: Operation,
    pub(crate) vmxon_pointer: u64,
    /// Physical address of the current VMCS, or [`NO_VMCS`].
    pub(crate) current_pointer: u64,
    /// The current VMCS is a shadow VMCS, with which no VM entry is made.
    pub(crate) current_is_shadow: bool,
    /// The current VMCS, where there is one.
    pub(crate) current: Vmcs,
    /// The VMCSs that are active but not current, by physical address.
    pub(crate) active: BTreeMap<u64, Vmcs>,
    pub(crate) address_spaces: AddressSpaces,
    pub(crate) contexts: Contexts,
    /// EPT of the guest that runs.
    pub(crate) ept: EptPointer,
    /// The entry at which the last walk ended suppresses #VE.
    pub(crate) suppresses_ve: bool,
    /// The PAUSEs of a loop of the guest that runs.
    pub(crate) pauses: PauseLoop,
    /// What the VMCS makes the core intercept, for as long as the VMCS does not change.
    pub(crate) intercepts: Intercepts,
    /// Features of the processor outside guests, which may lack some.
    pub(crate) host_features: u128,
    /// For each field, whether the processor has it; it follows from the capabilities.
    pub(crate) supported: SupportedFields,
    /// Reserved bits of IA32_EFER, which follow from the processor's model.
    pub(crate) efer_reserved: u64,
    /// VM exits since power-up, entries that failed not counted.
    pub(crate) exits: u64,
    /// What the last VM entry was refused for, until one is not.
    pub(crate) refused: Option<Box<Refused>>,
    pub(crate) feature_control: u64,
}

impl Vmx {
    /// The silicon of a processor that was designed to have these capabilities, after power-up.
    pub fn new(designed: &VmxCapabilities) -> Vmx {
        let capabilities = capabilities::offered(designed);
        let mut supported = [false; VmcsField::COUNT];
        for &field in VmcsField::ALL {
            supported[field.index()] = capabilities.has_field(field);
        }
        Vmx {
            capabilities,
            operation: Operation::Off,
            vmxon_pointer: 0,
            current_pointer: NO_VMCS,
            current_is_shadow: false,
            current: Vmcs::default(),
            active: BTreeMap::new(),
            address_spaces: AddressSpaces::default(),
            contexts: Contexts::default(),
            ept: EptPointer::new(),
            suppresses_ve: true,
            pauses: PauseLoop::default(),
            intercepts: Intercepts::default(),
            host_features: 0,
            supported,
            efer_reserved: 0,
            exits: 0,
            refused: None,
            feature_control: 0,
        }
    }

    /// Lets a closure drive a processor's VMX, as a hypervisor in Rust does; `None` where the processor has none.
    pub fn with<T>(cpu: &mut Cpu, call: impl FnOnce(&mut Vmx, &mut Cpu) -> T) -> Option<T> {
        cpu.with_extension(|extension, cpu| extension.as_any().downcast_mut::<Vmx>().map(|vmx| call(vmx, cpu)))?
    }

    /// A processor's VMX by itself.
    #[inline]
    pub fn of(cpu: &mut Cpu) -> Option<&mut Vmx> {
        cpu.extension_mut()?.as_any().downcast_mut()
    }

    /// What the capability MSRs report.
    pub const fn capabilities(&self) -> &VmxCapabilities {
        &self.capabilities
    }

    /// Which kind of VMX operation the processor is in.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Physical address of the current VMCS.
    pub const fn current_pointer(&self) -> Option<u64> {
        if self.current_pointer == NO_VMCS { None } else { Some(self.current_pointer) }
    }

    /// VM exits since power-up; VM entries that failed are none.
    pub const fn exits(&self) -> u64 {
        self.exits
    }

    /// What the last VM entry broke a rule with; nothing if it broke none.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_deref()
    }

    /// The current VMCS, to be looked at without any instruction: for traces, dumps and explanations, not for a hypervisor.
    pub fn inspect(&self) -> Option<&Vmcs> {
        self.current_pointer().map(|_| &self.current)
    }

    /// Every rule that the current VMCS breaks, as no hardware can tell.
    pub fn explain(&self, cpu: &mut Cpu) -> Vec<(Phase, &'static Check)> {
        let facts = self.facts(cpu);
        all_failures(&Entry { fields: self.current.fields(), capabilities: &self.capabilities, facts, msr_load: MsrLoad::default() })
            .collect()
    }

    /// Whether software may execute VMXON.
    pub(crate) const fn vmxon_enabled(&self) -> bool {
        let needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;
        self.feature_control & needed == needed
    }

    /// Sets IA32_FEATURE_CONTROL as firmware does that enables VMX and locks the register.
    pub const fn enable_by_firmware(&mut self) {
        self.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;
    }

    /// Ends an instruction with an error of the current VMCS, or without one where none is current. SDM 31.2 "Conventions", VMfail.
    pub(crate) fn fail(&mut self, error: VmInstructionError) -> VmFail {
        if self.current_pointer == NO_VMCS {
            return VmFail::Invalid;
        }
        self.current.set(VmcsField::VmInstructionError, error.number().into());
        VmFail::Valid(error)
    }

    /// Whether the bits of CR0 and CR4 that VMX operation fixes have their values.
    pub(crate) const fn allows_cr0(&self, value: u64, unrestricted: bool) -> bool {
        let fixed0 = self.capabilities.cr0_fixed0 & if unrestricted { !0x8000_0001 } else { u64::MAX };
        value & fixed0 == fixed0 && value & !self.capabilities.cr0_fixed1 == 0
    }

    pub(crate) const fn allows_cr4(&self, value: u64) -> bool {
        value & self.capabilities.cr4_fixed0 == self.capabilities.cr4_fixed0 && value & !self.capabilities.cr4_fixed1 == 0
    }
}

impl Extension for Vmx {
    fn execute(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion> {
        self.execute_instruction(cpu, instruction)
    }

    fn plain_field(&mut self, operand: u64, value: Option<u64>) -> Option<u64> {
        self.access_plain_field(operand, value)
    }

    fn exit(&mut self, cpu: &mut Cpu, exit: Exit) -> AfterExit {
        self.vm_exit(cpu, exit)
    }

    fn read_msr(&mut self, cpu: &Cpu, index: u32) -> Option<Outcome<u64>> {
        if let Some(value) = self.read_virtual_msr(cpu, index) {
            return Some(Ok(value));
        }
        if index == msr::IA32_FEATURE_CONTROL {
            return Some(Ok(self.feature_control));
        }
        let capability = CapabilityMsr::from_number(index)?;
        Some(self.capabilities.read(capability).ok_or(Trap::GP0))
    }

    fn write_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Outcome> {
        if let Some(outcome) = self.write_virtual_msr(cpu, index, value) {
            return Some(outcome);
        }
        if index == msr::IA32_FEATURE_CONTROL {
            // SDM 24.7: once locked, the register is read-only until reset.
            let refused = self.feature_control & FEATURE_CONTROL_LOCK != 0 || value & !FEATURE_CONTROL_DEFINED != 0;
            if refused {
                return Some(Err(Trap::GP0));
            }
            self.feature_control = value;
            return Some(Ok(()));
        }
        CapabilityMsr::from_number(index).map(|_| Err(Trap::GP0))
    }

    fn intercepts_port(&mut self, cpu: &Cpu, access: &PortAccess) -> bool {
        self.port_exits(cpu, access)
    }

    fn intercepts_msr(&mut self, cpu: &Cpu, index: u32, write: bool) -> bool {
        self.msr_exits(cpu, index, write)
    }

    fn control_access(&mut self, cpu: &Cpu, access: &ControlAccess) -> Result<u64, cpu::extension::Exits> {
        self.control_register_access(cpu, access)
    }

    fn translate(&mut self, cpu: &mut Cpu, guest_physical: u64, access: NestedAccess) -> Result<NestedPage, NestedFault> {
        self.walk(cpu, guest_physical, access)
    }

    fn nested_fault(&mut self, cpu: &mut Cpu, fault: NestedFault) -> Trap {
        self.convert_fault(cpu, fault)
    }

    fn access_apic_page(&mut self, cpu: &mut Cpu, offset: u16, bytes: u8, write: Option<u64>, access: Access) -> Outcome<u64> {
        Vmx::access_apic_page(self, cpu, offset, bytes, write, access)
    }

    fn complete_apic_write(&mut self, cpu: &mut Cpu, register: u16) -> Option<Exit> {
        Vmx::complete_apic_write(self, cpu, register)
    }

    fn deliver_virtual_interrupt(&mut self, cpu: &mut Cpu) -> u8 {
        Vmx::deliver_virtual_interrupt(self, cpu)
    }

    fn external_interrupt(&mut self, cpu: &mut Cpu) -> Option<Exit> {
        Vmx::external_interrupt(self, cpu)
    }

    fn intercepts_pause(&mut self, cpu: &Cpu) -> bool {
        self.pause_exits(cpu)
    }

    fn allows_control(&self, _cpu: &Cpu, register: u8, value: u64) -> bool {
        // SDM 24.8 "Restrictions on VMX Operation"; 26.3 "Changes to Instruction Behavior in VMX Non-Root Operation".
        match (self.operation, register) {
            (Operation::Off, _) => true,
            (operation, 0) => {
                let guest = operation == Operation::NonRoot;
                self.allows_cr0(value, guest && self.current.fields().secondary().unrestricted_guest())
            }
            (_, 4) => self.allows_cr4(value),
            _ => true,
        }
    }

    fn blocks_init(&self, _cpu: &Cpu) -> bool {
        // SDM 24.8 "Restrictions on VMX Operation": INIT is blocked in root operation; in a guest it causes a VM exit.
        self.operation == Operation::Root
    }

    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcs::region_bytes;

    #[test]
    fn every_model_s_region_has_room_for_its_fields() {
        for model in models::MODELS {
            let Some(designed) = &model.vmx else { continue };
            let vmx = Vmx::new(designed);
            assert!(region_bytes(&vmx.supported) <= usize::from(vmx.capabilities.basic.region_size()), "{}", model.name);
        }
    }
}
