//! The system part of RFLAGS: CLI, STI, CLAC, STAC, PUSHF, POPF.
//!
//! What is modelled: IOPL, the interrupt shadow of STI, all operand sizes. What is not: CR4.VME and CR4.PVI, which no processor model has.

use super::{Entry, Flow};
use crate::state::{Cpu, Shadow};
use crate::trap::{Intercept, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M};
use isa::rflags::Rflags;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Cli => Entry::plain(cli),
        M::Sti => Entry::last(sti),
        M::Clac => Entry::last(clac),
        M::Stac => Entry::last(stac),
        M::Pushf | M::Pushfd | M::Pushfq => Entry::plain(pushf),
        M::Popf | M::Popfd | M::Popfq => Entry::last(popf),
        _ => None,
    }
}

impl Cpu {
    /// #GP(0) where the privilege level is above IOPL.
    fn require_io_privilege(&self) -> Outcome {
        if self.is_real() || self.cpl <= self.system_flags().iopl() { Ok(()) } else { Err(Trap::GP0) }
    }

    /// What POPF and IRET make of a flags image at the present privilege. SDM vol 2, POPF, Table 4-15.
    pub(crate) fn merged_flags(&self, image: u64, bytes: u8, keeps_resume: bool) -> Rflags {
        let mut writable = isa::rflags::DEFINED & !Rflags::new().with_vm(true).into_bits();
        if !keeps_resume {
            writable &= !Rflags::new().with_rf(true).into_bits();
        }
        if self.cpl != 0 {
            let virtual_flags = Rflags::new().with_vif(true).with_vip(true);
            writable &= !(virtual_flags.into_bits() | Rflags::new().with_iopl(3).into_bits());
            if self.cpl > self.system_flags().iopl() {
                writable &= !Rflags::new().with_if(true).into_bits();
            }
        }
        if bytes == 2 {
            writable &= 0xffff;
        }
        Rflags::from_bits(self.rflags().into_bits() & !writable | image & writable)
    }
}

fn cli(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    cpu.require_io_privilege()?;
    cpu.system_flags = cpu.system_flags().with_if(false).into_bits();
    Ok(Flow::Next)
}

fn sti(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    cpu.require_io_privilege()?;
    if !cpu.system_flags().r#if() {
        cpu.system_flags = cpu.system_flags().with_if(true).into_bits();
        cpu.shadow = Shadow::Sti;
        cpu.shadow_set = true;
    }
    Ok(Flow::End)
}

fn set_access_control(cpu: &mut Cpu, value: bool) -> Outcome<Flow> {
    if cpu.cpl != 0 {
        return Err(Trap::UD);
    }
    let flags = cpu.rflags().with_ac(value);
    cpu.set_rflags(flags);
    Ok(Flow::End)
}

fn clac(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    set_access_control(cpu, false)
}

fn stac(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    set_access_control(cpu, true)
}

fn pushf(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Pushf, instruction)?;
    let bytes = instruction.stack_pointer_increment().unsigned_abs() as u8;
    let value = cpu.rflags().with_vm(false).with_rf(false).into_bits();
    cpu.push_value(bytes, value)?;
    Ok(Flow::Next)
}

fn popf(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Popf, instruction)?;
    let bytes = instruction.stack_pointer_increment().unsigned_abs() as u8;
    let mut stack = cpu.current_stack();
    let image = stack.pop(cpu, bytes)?;
    let mut flags = cpu.merged_flags(image, bytes, false).with_rf(false);
    if bytes != 2 {
        flags = flags.with_vif(false).with_vip(false);
    }
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    cpu.set_rflags(flags);
    Ok(Flow::End)
}
