//! INT n, INT3, INTO, INT1 and IRET.
//!
//! What is modelled: software events through the IDT of every mode, returns in and between all modes, to the task that was interrupted by this
//! one, unblocking of NMIs.

use super::{Entry, Flow};
use crate::operand::mask;
use crate::state::Cpu;
use crate::trap::{Event, EventKind, Exception, Exit, Intercept, Outcome, TaskSwitchSource, Trap};
use iced_x86::{Code, Instruction, Mnemonic as M};
use isa::debug::Dr6;
use isa::exception::Vector;
use isa::rflags::Rflags;
use isa::segment::Selector;
use models::Vendor;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Int => Entry::last(int),
        M::Int3 => Entry::last(int3),
        M::Into => Entry::last(into),
        M::Int1 => Entry::last(int1),
        M::Iret | M::Iretd | M::Iretq => Entry::last(iret),
        _ => None,
    }
}

fn software(cpu: &mut Cpu, instruction: &Instruction, kind: EventKind, vector: u8) -> Outcome<Flow> {
    cpu.charge(cpu.model.costs.exception_delivery.ticks());
    cpu.deliver(Event { kind, vector, error_code: None, length: instruction.len() as u8 })?;
    Ok(Flow::Jump)
}

fn int(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let vector = instruction.immediate8();
    if cpu.interception.has(Intercept::IntN) {
        return Err(Trap::Exit(Exit::SoftwareInterrupt { vector, length: instruction.len() as u8 }));
    }
    if cpu.is_v86() && cpu.interrupt_in_v86(vector, instruction)? {
        return Ok(Flow::Jump);
    }
    software(cpu, instruction, EventKind::SoftwareInterrupt, vector)
}

/// A trap that exits as the exception it raises.
fn software_exception(cpu: &mut Cpu, instruction: &Instruction, vector: Vector) -> Outcome<Flow> {
    if cpu.guest_mode && cpu.interception.exception(vector, None) {
        return Err(Trap::Exit(Exit::Exception(Exception::plain(vector))));
    }
    software(cpu, instruction, EventKind::SoftwareException, vector as u8)
}

fn int3(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    software_exception(cpu, instruction, Vector::Breakpoint)
}

fn into(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if cpu.rflags().of() { software_exception(cpu, instruction, Vector::Overflow) } else { Ok(Flow::Next) }
}

fn int1(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    // APM vol 2, 15.12.2: INT1 does not trigger the #DB intercept, it has one of its own. VMX has the exception bitmap.
    let is_exception = cpu.model.vendor == Vendor::Intel && cpu.guest_mode && cpu.interception.exception(Vector::Debug, None);
    if cpu.interception.has(Intercept::Icebp) || is_exception {
        return Err(Trap::Exit(Exit::SoftwareInterrupt { vector: Vector::Debug as u8, length: instruction.len() as u8 }));
    }
    // Data breakpoints that a load of SS held back are part of this #DB.
    let held = std::mem::take(&mut cpu.pending_debug);
    let flow = software(cpu, instruction, EventKind::PrivilegedSoftware, Vector::Debug as u8)?;
    cpu.dr6 = Dr6::from_bits(cpu.dr6.into_bits() | held);
    Ok(flow)
}

fn iret(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Iret, instruction)?;
    if !cpu.nmi_blocked || cpu.interception.keeps_nmi_blocking {
        return return_from_interrupt(cpu, instruction);
    }
    // SDM vol 3, 6.7.1 "Handling Multiple NMIs": even an IRET that faults ends the blocking.
    cpu.nmi_blocked = false;
    cpu.iret_unblocked_nmi = true;
    let outcome = return_from_interrupt(cpu, instruction)?;
    cpu.iret_unblocked_nmi = false;
    Ok(outcome)
}

fn return_from_interrupt(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes: u8 = match instruction.code() {
        Code::Iretw => 2,
        Code::Iretd => 4,
        _ => 8,
    };
    if cpu.is_v86() {
        return cpu.iret_in_v86(bytes);
    }
    let long = cpu.long_mode();
    if cpu.is_protected() && cpu.system_flags().nt() {
        if long {
            return Err(Trap::GP0);
        }
        let link = cpu.load_system(cpu.table_address(cpu.tr.base), 2)?;
        cpu.switch_by_instruction(Selector::from_bits(link as u16), TaskSwitchSource::Iret, instruction)?;
        return Ok(Flow::Jump);
    }
    let mut stack = cpu.current_stack();
    // RIP, CS, RFLAGS, and where they are popped at all RSP and SS.
    let mut frame = [0; 5];
    let whole = stack.peek_all(cpu, bytes, &mut frame);
    if !whole {
        for word in &mut frame[..3] {
            *word = stack.pop(cpu, bytes)?;
        }
    }
    let [rip, selector, image, ..] = frame;
    let selector = Selector::from_bits(selector as u16);
    if cpu.is_real() {
        let code = cpu.real_code(selector);
        cpu.check_offset(code.attributes, code.limit, rip)?;
        cpu.set_stack_pointer(stack.pointer, stack.bits);
        let flags = cpu.merged_flags(image, bytes, true);
        cpu.set_code(code, rip, 0);
        cpu.set_rflags(flags);
        return Ok(Flow::Jump);
    }
    if Rflags::from_bits(image).vm() && cpu.cpl == 0 && !long && bytes != 2 {
        return cpu.enter_v86(stack, rip, selector, image);
    }
    let target = cpu.return_target(selector, rip & mask(u32::from(bytes) * 8))?;
    let flags = cpu.merged_flags(image, bytes, true);
    if target.level == cpu.cpl && !cpu.is_64bit() {
        cpu.set_stack_pointer(stack.pointer, stack.bits);
        cpu.set_code(target.code, target.rip, target.level);
        cpu.set_rflags(flags);
        return Ok(Flow::Jump);
    }
    if !whole {
        for word in &mut frame[3..] {
            *word = stack.pop(cpu, bytes)?;
        }
    }
    let [.., pointer, outer] = frame;
    let outer = Selector::from_bits(outer as u16);
    let segment = cpu.stack_segment(outer, target.level, cpu.runs_long(&target.code), Trap::gp)?;
    cpu.set_outer(&target, segment, pointer);
    cpu.set_rflags(flags);
    Ok(Flow::Jump)
}
