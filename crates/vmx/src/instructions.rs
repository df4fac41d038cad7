//! The VMX instructions: what each checks in which order, and what it does.
//!
//! Modelled: SDM chapter 31 "VMX Instruction Reference": VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMREAD, VMWRITE, VMLAUNCH, VMRESUME,
//! VMCALL, VMFUNC, INVEPT, INVVPID. Each is a public method that a hypervisor in Rust calls; a guest program's instruction makes the
//! checks of mode and privilege, gets its operands and then calls the same method. Not modelled: SMM monitors.

use crate::entry::EntryOutcome;
use crate::silicon::{NO_VMCS, Operation, VmFail, Vmx};
use crate::vmcs::{LaunchState, REGION_BYTES, SupportedFields, Vmcs};
use cpu::extension::{AfterExit, Completion};
use cpu::state::{Activity, Cpu};
use cpu::trap::{Access, Exit, Intercept, Operand, Outcome, Trap, VendorInstruction};
use isa::paging::is_canonical;
use isa::register::Gpr;
use isa::vmx::{
    EptPointer, FieldAccess, FieldArea, InveptType, InvvpidType, SecondaryControls, VmFunctionControls, VmInstructionError, VmcsField,
};

/// Bit 31 of the first word of a region: a shadow VMCS.
const SHADOW_INDICATOR: u32 = 1 << 31;

/// RFLAGS.CF, which VMfailInvalid sets.
const CF: u64 = 1;
/// RFLAGS.ZF, which VMfailValid sets.
const ZF: u64 = 1 << 6;

impl Vmx {
    /// Executes a VMX instruction of a program.
    pub(crate) fn execute_instruction(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion> {
        let operation = instruction.operation;
        let mode = cpu.cr0.pe() && !cpu.is_v86() && (!cpu.long_mode() || cpu.is_64bit());
        match operation {
            Intercept::Vmxon if !mode || !cpu.cr4.vmxe() => return Err(Trap::UD),
            Intercept::Vmxon if self.operation == Operation::Off => {
                if cpu.cpl > 0
                    || !self.allows_cr0(cpu.cr0.into_bits(), false)
                    || !self.allows_cr4(cpu.cr4.into_bits())
                    || !self.vmxon_enabled()
                {
                    return Err(Trap::GP0);
                }
                let region = load_operand(cpu, instruction, 8)?;
                let result = self.vmxon(cpu, region);
                return Ok(complete(cpu, result));
            }
            // Unlike the others, VMCALL leaves a guest in any mode, and is checked for its mode only in root operation.
            Intercept::Vmcall if self.operation == Operation::NonRoot => return Err(exit(instruction)),
            Intercept::Vmfunc => return self.execute_vmfunc(cpu, instruction),
            Intercept::Vmxon
            | Intercept::Vmxoff
            | Intercept::Vmclear
            | Intercept::Vmptrld
            | Intercept::Vmptrst
            | Intercept::Vmread
            | Intercept::Vmwrite
            | Intercept::Vmlaunch
            | Intercept::Vmresume
            | Intercept::Vmcall
            | Intercept::Invept
            | Intercept::Invvpid => {}
            _ => return Err(Trap::UD),
        }
        if self.operation == Operation::Off || !mode || !self.exists(operation) {
            return Err(Trap::UD);
        }
        if self.operation == Operation::NonRoot && !self.is_shadowed(cpu, instruction) {
            return Err(exit(instruction));
        }
        if cpu.cpl > 0 {
            return Err(Trap::GP0);
        }
        let result = match operation {
            Intercept::Vmxon => Err(self.fail(VmInstructionError::VmxonInVmxRoot)),
            Intercept::Vmcall => Err(self.fail(VmInstructionError::VmcallInVmxRoot)),
            Intercept::Vmxoff => {
                self.vmxoff(cpu);
                Ok(())
            }
            Intercept::Vmclear => {
                let region = load_operand(cpu, instruction, 8)?;
                self.vmclear(cpu, region)
            }
            Intercept::Vmptrld => {
                let region = load_operand(cpu, instruction, 8)?;
                self.vmptrld(cpu, region)
            }
            Intercept::Vmptrst => {
                let pointer = self.vmptrst(cpu);
                store_operand(cpu, instruction, 8, pointer)?;
                Ok(())
            }
            Intercept::Vmread if self.operation == Operation::NonRoot => self.read_shadow(cpu, instruction)?,
            Intercept::Vmwrite if self.operation == Operation::NonRoot => self.write_shadow(cpu, instruction)?,
            Intercept::Vmread => self.execute_vmread(cpu, instruction)?,
            Intercept::Vmwrite => self.execute_vmwrite(cpu, instruction)?,
            Intercept::Vmlaunch | Intercept::Vmresume => {
                // What RIP and RFLAGS are matters only if the entry fails; then the instruction completes.
                let outcome = if operation == Intercept::Vmlaunch { self.vmlaunch(cpu) } else { self.vmresume(cpu) };
                return match outcome {
                    Ok(EntryOutcome::Entered) => Ok(Completion::Entered),
                    Ok(EntryOutcome::Exited(AfterExit::MachineCode)) => Ok(Completion::Entered),
                    Ok(EntryOutcome::Exited(AfterExit::RustHost)) => {
                        Err(Trap::not_modelled("a VM entry by machine code on a processor whose host is Rust"))
                    }
                    Ok(EntryOutcome::Exited(AfterExit::Shutdown)) => {
                        cpu.activity = Activity::Shutdown;
                        Ok(Completion::Entered)
                    }
                    Err(fail) => Ok(complete(cpu, Err(fail))),
                };
            }
            Intercept::Invept | Intercept::Invvpid => self.execute_invalidation(cpu, instruction)?,
            _ => return Err(Trap::UD),
        };
        Ok(complete(cpu, result))
    }

    /// Whether the processor has the instruction.
    fn exists(&self, operation: Intercept) -> bool {
        match operation {
            Intercept::Invept => self.capabilities.ept_vpid.invept(),
            Intercept::Invvpid => self.capabilities.ept_vpid.invvpid(),
            _ => true,
        }
    }

    /// Whether VMREAD or VMWRITE of a guest accesses the shadow VMCS instead of exiting. SDM 26.1.3 "Instructions That Cause VM Exits
    /// Conditionally", items VMREAD and VMWRITE.
    fn is_shadowed(&self, cpu: &Cpu, instruction: &VendorInstruction) -> bool {
        let fields = self.current.fields();
        let bitmap = match instruction.operation {
            Intercept::Vmread => VmcsField::VmreadBitmapAddress,
            Intercept::Vmwrite => VmcsField::VmwriteBitmapAddress,
            _ => return false,
        };
        let field = named_field(cpu, instruction);
        if !fields.secondary().vmcs_shadowing() || field >> 15 != 0 {
            return false;
        }
        cpu.read_physical(fields.get(bitmap) + (field >> 3), 1) >> (field & 7) & 1 == 0
    }

    /// VMREAD of a guest from the shadow VMCS. SDM 25.10 "VMCS Types: Ordinary and Shadow".
    fn read_shadow(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Result<(), VmFail>> {
        let operand = named_field(cpu, instruction);
        let found = self.with_shadow(cpu, |vmx, vmcs| vmx.existing_field(operand).map(|access| access.read(vmcs.get(access.field))));
        let value = match found {
            Ok(value) => value,
            Err(fail) => return Ok(Err(fail)),
        };
        cpu.charge(cpu.model.costs.vmread.ticks.into());
        store_operand(cpu, instruction, native_bytes(cpu), value)?;
        Ok(Ok(()))
    }

    /// VMWRITE of a guest to the shadow VMCS.
    fn write_shadow(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Result<(), VmFail>> {
        if self.current.get(VmcsField::VmcsLinkPointer) == u64::MAX {
            return Ok(Err(VmFail::Invalid));
        }
        let value = load_operand(cpu, instruction, native_bytes(cpu))?;
        let operand = named_field(cpu, instruction);
        cpu.charge(cpu.model.costs.vmwrite.ticks.into());
        Ok(self.with_shadow(cpu, |vmx, vmcs| {
            let access = vmx.existing_field(operand)?;
            if !vmx.may_be_written(access.field) {
                return Err(VmInstructionError::VmwriteReadOnlyComponent);
            }
            let written = access.write(vmcs.get(access.field), value);
            vmcs.set(access.field, written);
            Ok(())
        }))
    }

    /// Works on the VMCS that the link pointer names: in the processor where it is active there, else in its region. What goes wrong is
    /// told in the current VMCS.
    fn with_shadow<T>(&mut self, cpu: &mut Cpu, work: impl FnOnce(&Vmx, &mut Vmcs) -> Result<T, VmInstructionError>) -> Result<T, VmFail> {
        let region = self.current.get(VmcsField::VmcsLinkPointer);
        if region == u64::MAX {
            return Err(VmFail::Invalid);
        }
        if let Some(mut vmcs) = self.active.remove(&region) {
            let result = work(self, &mut vmcs);
            self.active.insert(region, vmcs);
            return result.map_err(|error| self.fail(error));
        }
        let before = read_region(cpu, region, &self.supported);
        let mut vmcs = before.clone();
        let result = work(self, &mut vmcs);
        if vmcs.fields() != before.fields() {
            cpu.write_physical_bytes(region + Vmcs::DATA, &vmcs.to_region(&self.supported));
        }
        result.map_err(|error| self.fail(error))
    }

    /// The field that an operand names.
    fn existing_field(&self, operand: u64) -> Result<FieldAccess, VmInstructionError> {
        match FieldAccess::from_operand(operand) {
            Some(access) if self.supported[access.field.index()] => Ok(access),
            _ => Err(VmInstructionError::UnsupportedVmcsComponent),
        }
    }

    /// Whether VMWRITE may write to a field.
    fn may_be_written(&self, field: VmcsField) -> bool {
        field.area() != FieldArea::ExitInformation || self.capabilities.misc.vmwrite_exit_information()
    }

    fn execute_vmread(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Result<(), VmFail>> {
        // The destination is the r/m operand, the field is named by the register operand.
        let operand = named_field(cpu, instruction);
        let access = match self.find_field(operand) {
            Ok(access) => access,
            Err(fail) => return Ok(Err(fail)),
        };
        let value = access.read(self.current.get(access.field));
        cpu.charge(cpu.model.costs.vmread.ticks.into());
        store_operand(cpu, instruction, native_bytes(cpu), value)?;
        Ok(Ok(()))
    }

    fn execute_vmwrite(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Result<(), VmFail>> {
        if self.current_pointer == NO_VMCS {
            return Ok(Err(VmFail::Invalid));
        }
        let value = load_operand(cpu, instruction, native_bytes(cpu))?;
        let operand = named_field(cpu, instruction);
        cpu.charge(cpu.model.costs.vmwrite.ticks.into());
        Ok(self.write_operand(operand, value))
    }

    /// VMREAD or VMWRITE of 64-bit registers, at CPL 0, with nothing in its way: the same as [`Self::execute_instruction`] does.
    #[inline]
    pub(crate) fn access_plain_field(&mut self, operand: u64, value: Option<u64>) -> Option<u64> {
        if self.operation != Operation::Root || self.current_pointer == NO_VMCS {
            return None;
        }
        let access = FieldAccess::from_operand(operand).filter(|access| self.supported[access.field.index()])?;
        let stored = self.current.get(access.field);
        let Some(value) = value else { return Some(access.read(stored)) };
        if access.field.area() == FieldArea::ExitInformation && !self.capabilities.misc.vmwrite_exit_information() {
            return None;
        }
        self.current.set(access.field, access.write(stored, value));
        Some(value)
    }

    fn execute_invalidation(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Result<(), VmFail>> {
        let kind = named_field(cpu, instruction);
        let Operand::Memory(memory) = instruction.operand else { return Err(Trap::UD) };
        let linear = cpu.segment_address(memory.segment, memory.offset, 16, Access::Read)?;
        let descriptor = [cpu.load(linear, 8)?, cpu.load(linear.wrapping_add(8), 8)?];
        Ok(if instruction.operation == Intercept::Invept {
            self.invept(cpu, kind, descriptor)
        } else {
            self.invvpid(cpu, kind, descriptor)
        })
    }

    /// SDM "VMFUNC - Invoke VM function": #UD outside a guest, without the control, and for a function number above 63.
    fn execute_vmfunc(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion> {
        let function = cpu.gpr(Gpr::Rax) as u32;
        let fields = self.current.fields();
        if self.operation != Operation::NonRoot || !fields.secondary().enable_vm_functions() || function > 63 {
            return Err(Trap::UD);
        }
        let controls = VmFunctionControls::from_bits(fields.get(VmcsField::VmFunctionControls));
        let number = cpu.gpr(Gpr::Rcx) & 0xffff_ffff;
        if function != 0 || !controls.eptp_switching() || !self.switch_ept(cpu, number) {
            return Err(exit(instruction));
        }
        Ok(Completion::Next)
    }

    /// Whether the address of a region is aligned and within the width of addresses.
    pub(crate) fn is_region(&self, cpu: &Cpu, region: u64) -> bool {
        let width = if self.capabilities.basic.addresses_limited_to_32_bits() { 32 } else { cpu.model.physical_address_bits };
        region & 0xfff == 0 && region.checked_shr(width.into()).unwrap_or(0) == 0
    }

    /// VMXON, outside VMX operation: enters VMX root operation.
    ///
    /// # Errors
    /// [`VmFail::Invalid`] where the address is not that of a region with the processor's revision identifier. Rust callers in VMX
    /// operation get "VMXON executed in VMX root operation".
    pub fn vmxon(&mut self, cpu: &mut Cpu, region: u64) -> Result<(), VmFail> {
        if self.operation != Operation::Off {
            return Err(self.fail(VmInstructionError::VmxonInVmxRoot));
        }
        cpu.charge(cpu.model.costs.vmxon.ticks.into());
        if !self.is_region(cpu, region) || cpu.read_physical(region, 4) as u32 != self.capabilities.basic.revision() {
            return Err(VmFail::Invalid);
        }
        self.operation = Operation::Root;
        self.efer_reserved = !cpu.model.supported_efer().into_bits();
        self.vmxon_pointer = region;
        self.current_pointer = NO_VMCS;
        Ok(())
    }

    /// VMXOFF: leaves VMX operation. VMCSs that are still active are written to their regions, where they keep their launch state.
    pub fn vmxoff(&mut self, cpu: &mut Cpu) {
        cpu.charge(cpu.model.costs.vmxoff.ticks.into());
        self.put_aside();
        for (region, vmcs) in std::mem::take(&mut self.active) {
            cpu.write_physical_bytes(region + Vmcs::DATA, &vmcs.to_region(&self.supported));
        }
        self.operation = Operation::Off;
    }

    /// Makes no VMCS current; the one that was stays active.
    fn put_aside(&mut self) {
        if self.current_pointer != NO_VMCS {
            self.active.insert(self.current_pointer, std::mem::take(&mut self.current));
            self.current_pointer = NO_VMCS;
        }
    }

    /// VMCLEAR: writes a VMCS to its region and makes its launch state clear.
    ///
    /// # Errors
    /// An address that is no region's, or the VMXON pointer.
    pub fn vmclear(&mut self, cpu: &mut Cpu, region: u64) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.vmclear.ticks.into());
        if !self.is_region(cpu, region) {
            return Err(self.fail(VmInstructionError::VmclearInvalidAddress));
        }
        if region == self.vmxon_pointer {
            return Err(self.fail(VmInstructionError::VmclearVmxonPointer));
        }
        if region == self.current_pointer {
            self.put_aside();
        }
        let mut vmcs = match self.active.remove(&region) {
            Some(vmcs) => vmcs,
            None => read_region(cpu, region, &self.supported),
        };
        vmcs.launch_state = LaunchState::Clear;
        cpu.write_physical_bytes(region + Vmcs::DATA, &vmcs.to_region(&self.supported));
        Ok(())
    }

    /// VMPTRLD: makes a VMCS active and current.
    ///
    /// # Errors
    /// An address that is no region's, the VMXON pointer, or a region without the processor's revision identifier.
    pub fn vmptrld(&mut self, cpu: &mut Cpu, region: u64) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.vmptrld.ticks.into());
        if !self.is_region(cpu, region) {
            return Err(self.fail(VmInstructionError::VmptrldInvalidAddress));
        }
        if region == self.vmxon_pointer {
            return Err(self.fail(VmInstructionError::VmptrldVmxonPointer));
        }
        let revision = cpu.read_physical(region, 4) as u32;
        let shadow = revision & SHADOW_INDICATOR != 0;
        let shadows = self.capabilities.may_be_one(SecondaryControls::VMCS_SHADOWING);
        if revision & !SHADOW_INDICATOR != self.capabilities.basic.revision() || shadow && !shadows {
            return Err(self.fail(VmInstructionError::VmptrldIncorrectRevision));
        }
        if region != self.current_pointer {
            self.put_aside();
            self.current = match self.active.remove(&region) {
                Some(vmcs) => vmcs,
                None => read_region(cpu, region, &self.supported),
            };
            self.current_pointer = region;
        }
        self.current_is_shadow = shadow;
        Ok(())
    }

    /// VMPTRST: the address of the current VMCS, or all ones.
    pub fn vmptrst(&self, cpu: &mut Cpu) -> u64 {
        cpu.charge(cpu.model.costs.vmptrst.ticks.into());
        self.current_pointer
    }

    /// The field that an operand of VMREAD or VMWRITE names, where there is a current VMCS and the processor has the field.
    fn find_field(&mut self, operand: u64) -> Result<FieldAccess, VmFail> {
        if self.current_pointer == NO_VMCS {
            return Err(VmFail::Invalid);
        }
        self.existing_field(operand).map_err(|error| self.fail(error))
    }

    /// VMREAD of a whole field.
    ///
    /// # Errors
    /// No current VMCS, or a field that the processor does not have.
    #[inline]
    pub fn vmread(&mut self, cpu: &mut Cpu, field: VmcsField) -> Result<u64, VmFail> {
        cpu.charge(cpu.model.costs.vmread.ticks.into());
        self.read(field)
    }

    /// VMWRITE of a whole field.
    ///
    /// # Errors
    /// No current VMCS, a field that the processor does not have, or a read-only one.
    #[inline]
    pub fn vmwrite(&mut self, cpu: &mut Cpu, field: VmcsField, value: u64) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.vmwrite.ticks.into());
        self.write(field, value)
    }

    /// The same as [`Self::vmread`] for who has the processor only: the silicon need not be taken out of it.
    ///
    /// # Errors
    /// As there; [`VmFail::Invalid`] also where the processor has no VMX.
    #[inline]
    pub fn vmread_of(cpu: &mut Cpu, field: VmcsField) -> Result<u64, VmFail> {
        cpu.charge(cpu.model.costs.vmread.ticks.into());
        Vmx::of(cpu).map_or(Err(VmFail::Invalid), |vmx| vmx.read(field))
    }

    /// The same as [`Self::vmwrite`] likewise.
    ///
    /// # Errors
    /// As there; [`VmFail::Invalid`] also where the processor has no VMX.
    #[inline]
    pub fn vmwrite_of(cpu: &mut Cpu, field: VmcsField, value: u64) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.vmwrite.ticks.into());
        Vmx::of(cpu).map_or(Err(VmFail::Invalid), |vmx| vmx.write(field, value))
    }

    #[inline]
    fn read(&mut self, field: VmcsField) -> Result<u64, VmFail> {
        if self.current_pointer == NO_VMCS {
            return Err(VmFail::Invalid);
        }
        if !self.supported[field.index()] {
            return Err(self.fail(VmInstructionError::UnsupportedVmcsComponent));
        }
        Ok(self.current.get(field))
    }

    #[inline]
    fn write(&mut self, field: VmcsField, value: u64) -> Result<(), VmFail> {
        if self.current_pointer == NO_VMCS || !self.supported[field.index()] || !self.may_be_written(field) {
            return self.write_operand(field.encoding().into(), value);
        }
        self.current.set(field, value);
        Ok(())
    }

    fn write_operand(&mut self, operand: u64, value: u64) -> Result<(), VmFail> {
        let access = self.find_field(operand)?;
        let field = access.field;
        if !self.may_be_written(field) {
            return Err(self.fail(VmInstructionError::VmwriteReadOnlyComponent));
        }
        let written = access.write(self.current.get(field), value);
        self.current.set(field, written);
        Ok(())
    }

    /// INVEPT. The descriptor is an EPT pointer and a reserved quadword.
    ///
    /// # Errors
    /// A type that the processor does not have, or an EPT pointer that VM entry would not take.
    pub fn invept(&mut self, cpu: &mut Cpu, kind: u64, descriptor: [u64; 2]) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.invept.ticks.into());
        let capabilities = &self.capabilities.ept_vpid;
        let spaces: Vec<u32> = match InveptType::from_number(kind) {
            Some(InveptType::SingleContext) if capabilities.invept_single_context() => {
                let pointer = EptPointer::from_bits(descriptor[0]);
                if !self.accepts_ept_pointer(cpu, pointer) || descriptor[1] != 0 {
                    return Err(self.fail(VmInstructionError::InvalidInvalidationOperand));
                }
                self.address_spaces.with_ept_root(pointer.table()).collect()
            }
            Some(InveptType::AllContext) if capabilities.invept_all_context() => self.address_spaces.with_any_ept().collect(),
            _ => return Err(self.fail(VmInstructionError::InvalidInvalidationOperand)),
        };
        self.contexts.forget();
        for space in spaces {
            cpu.tlb().flush_address_space(space);
        }
        cpu.context_changed();
        Ok(())
    }

    /// INVVPID. The descriptor holds the VPID in bits 15:0 and a linear address in its second quadword.
    ///
    /// # Errors
    /// A type that the processor does not have, reserved bits, VPID 0 or an address that is not canonical.
    pub fn invvpid(&mut self, cpu: &mut Cpu, kind: u64, descriptor: [u64; 2]) -> Result<(), VmFail> {
        cpu.charge(cpu.model.costs.invvpid.ticks.into());
        let capabilities = &self.capabilities.ept_vpid;
        let (vpid, linear) = (descriptor[0] as u16, descriptor[1]);
        let kind = match InvvpidType::from_number(kind) {
            Some(kind @ InvvpidType::IndividualAddress) if capabilities.invvpid_individual_address() => Some(kind),
            Some(kind @ InvvpidType::SingleContext) if capabilities.invvpid_single_context() => Some(kind),
            Some(kind @ InvvpidType::AllContext) if capabilities.invvpid_all_context() => Some(kind),
            Some(kind @ InvvpidType::SingleContextRetainingGlobals) if capabilities.invvpid_single_context_retaining_globals() => {
                Some(kind)
            }
            _ => None,
        };
        let valid = |kind: &InvvpidType| match kind {
            InvvpidType::AllContext => true,
            InvvpidType::IndividualAddress => vpid != 0 && is_canonical(linear),
            InvvpidType::SingleContext | InvvpidType::SingleContextRetainingGlobals => vpid != 0,
        };
        let Some(kind) = kind.filter(|kind| descriptor[0] >> 16 == 0 && valid(kind)) else {
            return Err(self.fail(VmInstructionError::InvalidInvalidationOperand));
        };
        let spaces: Vec<u32> = match kind {
            InvvpidType::AllContext => self.address_spaces.with_any_vpid().collect(),
            _ => self.address_spaces.with_vpid(vpid).collect(),
        };
        self.contexts.forget();
        for space in spaces {
            match kind {
                InvvpidType::IndividualAddress => cpu.tlb().flush_linear(linear, space),
                InvvpidType::SingleContextRetainingGlobals => cpu.tlb().flush_non_global(space),
                InvvpidType::AllContext | InvvpidType::SingleContext => cpu.tlb().flush_address_space(space),
            }
        }
        cpu.context_changed();
        Ok(())
    }
}

/// Reads a VMCS from memory.
fn read_region(cpu: &Cpu, region: u64, supported: &SupportedFields) -> Vmcs {
    let mut bytes = [0; REGION_BYTES];
    cpu.read_physical_bytes(region, &mut bytes);
    Vmcs::from_region(&bytes, supported)
}

/// The trap with which an instruction leaves the guest.
fn exit(instruction: &VendorInstruction) -> Trap {
    Trap::Exit(match instruction.operand {
        Operand::None => Exit::Instruction { intercept: instruction.operation, length: instruction.length },
        Operand::Register(_) | Operand::Memory(_) => Exit::Operand { intercept: instruction.operation, instruction: *instruction },
    })
}

/// Bytes of VMREAD's and VMWRITE's operands: 8 in 64-bit mode, otherwise 4.
fn native_bytes(cpu: &Cpu) -> u8 {
    if cpu.is_64bit() { 8 } else { 4 }
}

/// The register operand: the encoding of a field, or the type of an invalidation.
fn named_field(cpu: &Cpu, instruction: &VendorInstruction) -> u64 {
    let value = cpu.regs[usize::from(instruction.register & 15)];
    if cpu.is_64bit() { value } else { value & 0xffff_ffff }
}

fn load_operand(cpu: &mut Cpu, instruction: &VendorInstruction, bytes: u8) -> Outcome<u64> {
    match instruction.operand {
        Operand::Memory(memory) => {
            let linear = cpu.segment_address(memory.segment, memory.offset, bytes.into(), Access::Read)?;
            cpu.load(linear, bytes)
        }
        Operand::Register(number) => {
            let value = cpu.regs[usize::from(number & 15)];
            Ok(if bytes == 8 { value } else { value & 0xffff_ffff })
        }
        Operand::None => Err(Trap::UD),
    }
}

fn store_operand(cpu: &mut Cpu, instruction: &VendorInstruction, bytes: u8, value: u64) -> Outcome {
    match instruction.operand {
        Operand::Memory(memory) => {
            let linear = cpu.segment_address(memory.segment, memory.offset, bytes.into(), Access::Write)?;
            cpu.store(linear, bytes, value)
        }
        Operand::Register(number) => {
            cpu.regs[usize::from(number & 15)] = if bytes == 8 { value } else { value & 0xffff_ffff };
            Ok(())
        }
        Operand::None => Err(Trap::UD),
    }
}

/// VMsucceed, VMfailInvalid or VMfailValid: all six status flags are written. SDM 31.2 "Conventions".
fn complete(cpu: &mut Cpu, result: Result<(), VmFail>) -> Completion {
    let flags = match result {
        Ok(()) => 0,
        Err(VmFail::Invalid) => CF,
        Err(VmFail::Valid(_)) => ZF,
    };
    cpu.set_all_status(flags);
    Completion::Next
}
