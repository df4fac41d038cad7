//! The system part of RFLAGS: CLI, STI, CLAC, STAC, PUSHF, POPF.
//!
//! What is modelled: IOPL, the interrupt shadow of STI, all operand sizes, VIF in the place of IF (CR4.VME and CR4.PVI).

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
    /// What POPF and IRET make of a flags image at the present privilege. SDM vol 2, POPF, Table 4-15.
    #[inline]
    pub(crate) fn merged_flags(&self, image: u64, bytes: u8, keeps_resume: bool) -> Rflags {
        const VIRTUAL_8086: u64 = Rflags::new().with_vm(true).into_bits();
        const RESUME: u64 = Rflags::new().with_rf(true).into_bits();
        const PRIVILEGED: u64 = Rflags::new().with_vif(true).with_vip(true).with_iopl(3).into_bits();
        const INTERRUPTS: u64 = Rflags::new().with_if(true).into_bits();
        let mut writable = isa::rflags::DEFINED & !VIRTUAL_8086;
        if !keeps_resume {
            writable &= !RESUME;
        }
        if self.cpl != 0 {
            writable &= !PRIVILEGED;
            if self.cpl > self.system_flags().iopl() {
                writable &= !INTERRUPTS;
            }
        }
        if bytes == 2 {
            writable &= 0xffff;
        }
        // All status flags are writable.
        Rflags::from_bits(self.system_flags & !writable | image & writable)
    }
}

fn cli(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    let flags = cpu.system_flags();
    let new = match (cpu.has_io_privilege(), cpu.has_virtual_interrupt_flag()) {
        (true, _) => flags.with_if(false),
        (false, true) => flags.with_vif(false),
        (false, false) => return Err(Trap::GP0),
    };
    cpu.system_flags = new.into_bits();
    Ok(Flow::Next)
}

fn sti(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    if !cpu.has_io_privilege() {
        if !cpu.has_virtual_interrupt_flag() || cpu.system_flags().vip() {
            return Err(Trap::GP0);
        }
        cpu.system_flags = cpu.system_flags().with_vif(true).into_bits();
        return Ok(Flow::End);
    }
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
    let stands_in = cpu.is_v86() && cpu.require_v86_privilege(bytes)?;
    let flags = if stands_in { cpu.shown_flags() } else { cpu.rflags() };
    cpu.push_value(bytes, flags.with_vm(false).with_rf(false).into_bits())?;
    Ok(Flow::Next)
}

fn popf(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Popf, instruction)?;
    let bytes = instruction.stack_pointer_increment().unsigned_abs() as u8;
    let v86 = cpu.is_v86();
    let stands_in = v86 && cpu.require_v86_privilege(bytes)?;
    let mut stack = cpu.current_stack();
    let image = stack.pop(cpu, bytes)?;
    let mut flags = cpu.merged_flags(image, bytes, false).with_rf(false);
    if stands_in {
        flags = cpu.with_virtual_flag(flags, image)?;
    } else if bytes != 2 && !v86 {
        flags = flags.with_vif(false).with_vip(false);
    }
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    cpu.set_rflags(flags);
    Ok(Flow::End)
}
