//! Stack instructions and near transfers in the forms that have no handler of their own.
//!
//! What is modelled: PUSH, POP, PUSHA, POPA, ENTER, LEAVE of every operand and stack size; near CALL, RET and JMP of 16 and 32 bits; LOOP
//! and JCXZ. What is not: control-flow enforcement.

use super::{Entry, Flow};
use crate::operand::{mask, segment_of};
use crate::state::Cpu;
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind};
use isa::paging::is_canonical;
use isa::register::{Gpr, Segment};

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    let segment =
        instruction.op_count() == 1 && instruction.op0_kind() == OpKind::Register && segment_of(instruction.op0_register()).is_some();
    match instruction.mnemonic() {
        M::Push => Entry::plain(push),
        M::Pop if !segment => Entry::plain(pop),
        M::Pusha | M::Pushad => Entry::plain(pusha),
        M::Popa | M::Popad => Entry::plain(popa),
        M::Enter => Entry::plain(enter),
        M::Leave => Entry::plain(leave),
        M::Call if instruction.is_call_near() || instruction.is_call_near_indirect() => Entry::last(call),
        M::Jmp if instruction.is_jmp_near_indirect() => Entry::last(jump),
        M::Ret => Entry::last(ret),
        M::Loop | M::Loope | M::Loopne => Entry::last(loop_),
        M::Jcxz | M::Jecxz | M::Jrcxz => Entry::last(jump_if_zero),
        _ => None,
    }
}

/// How many bytes an instruction pushes or pops, RET's immediate not counted.
fn operand_bytes(instruction: &Instruction) -> u8 {
    let released = if instruction.mnemonic() == M::Ret && instruction.op_count() == 1 { instruction.immediate(0) as i32 } else { 0 };
    (instruction.stack_pointer_increment() - released).unsigned_abs() as u8
}

impl Cpu {
    /// Pushes one value on the current stack.
    pub(crate) fn push_value(&mut self, bytes: u8, value: u64) -> Outcome {
        let mut stack = self.current_stack();
        stack.push(self, bytes, value)?;
        self.set_stack_pointer(stack.pointer, stack.bits);
        Ok(())
    }

    /// RIP behind an instruction.
    pub(crate) fn next_rip(&self, instruction: &Instruction) -> u64 {
        self.rip.wrapping_add(instruction.len() as u64) & mask(if self.is_64bit() { 64 } else { 32 })
    }

    /// A near target, truncated to the operand size and checked.
    fn near_target(&self, target: u64, bytes: u8) -> Outcome<u64> {
        let target = target & mask(u32::from(bytes) * 8);
        let inside = if self.is_64bit() { is_canonical(target) } else { target <= u64::from(self.segment(Segment::Cs).limit) };
        if inside { Ok(target) } else { Err(Trap::GP0) }
    }
}

fn push(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let value = cpu.read_operand(instruction, 0)?;
    cpu.push_value(operand_bytes(instruction), value)?;
    Ok(Flow::Next)
}

fn pop(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = operand_bytes(instruction);
    let mut stack = cpu.current_stack();
    let value = stack.pop(cpu, bytes)?;
    // An address with RSP as base, and POP RSP itself, see the incremented RSP. SDM vol 2, POP.
    let old = cpu.gpr(Gpr::Rsp);
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    let written = cpu.write_operand(instruction, 0, value);
    if written.is_err() {
        cpu.set_gpr(Gpr::Rsp, old);
    }
    written.map(|()| Flow::Next)
}

fn pusha(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = if instruction.mnemonic() == M::Pusha { 2 } else { 4 };
    let mut stack = cpu.current_stack();
    for register in 0..8 {
        stack.push(cpu, bytes, cpu.regs[register])?;
    }
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    Ok(Flow::Next)
}

fn popa(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = if instruction.mnemonic() == M::Popa { 2 } else { 4 };
    let mut stack = cpu.current_stack();
    let mut values = [0; 8];
    for value in values.iter_mut().rev() {
        *value = stack.pop(cpu, bytes)?;
    }
    for (register, value) in values.into_iter().enumerate().filter(|(register, _)| *register != Gpr::Rsp.number()) {
        cpu.regs[register] = if bytes == 2 { cpu.regs[register] & !0xffff | value } else { value };
    }
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    Ok(Flow::Next)
}

/// ENTER. SDM vol 2, ENTER.
fn enter(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes: u8 = match instruction.code() {
        Code::Enterw_imm16_imm8 => 2,
        Code::Enterd_imm16_imm8 => 4,
        _ => 8,
    };
    let (size, level) = (u64::from(instruction.immediate16()), instruction.immediate8_2nd() & 31);
    let frame_pointer = cpu.gpr(Gpr::Rbp);
    let mut stack = cpu.current_stack();
    stack.push(cpu, bytes, frame_pointer)?;
    let frame = stack.pointer;
    let mut display = stack.clone();
    for _ in 1..level {
        // The frame pointers of the enclosing levels lie below the caller's frame pointer.
        let from = frame_pointer.wrapping_sub(u64::from(bytes)) & mask(stack.bits);
        display.pointer = if display.pointer == frame { from } else { display.pointer.wrapping_sub(u64::from(bytes)) & mask(stack.bits) };
        let value = display.peek(cpu, 0, bytes)?;
        stack.push(cpu, bytes, value)?;
    }
    if level > 0 {
        stack.push(cpu, bytes, frame)?;
    }
    let top = stack.pointer.wrapping_sub(size) & mask(stack.bits);
    // The new top must be writable, or ENTER faults as a whole.
    let linear = cpu.stack_linear(&stack.segment, stack.flat, top, 1).ok_or(Trap::SS0)?;
    cpu.translate(linear, Access::Write, stack.privilege)?;
    let old = cpu.gpr(Gpr::Rbp);
    cpu.set_gpr(Gpr::Rbp, if bytes == 2 { old & !0xffff | frame & 0xffff } else { frame });
    cpu.set_stack_pointer(top, stack.bits);
    Ok(Flow::Next)
}

fn leave(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes: u8 = match instruction.code() {
        Code::Leavew => 2,
        Code::Leaved => 4,
        _ => 8,
    };
    let mut stack = cpu.current_stack();
    stack.pointer = cpu.gpr(Gpr::Rbp) & mask(stack.bits);
    let value = stack.pop(cpu, bytes)?;
    let old = cpu.gpr(Gpr::Rbp);
    cpu.set_gpr(Gpr::Rbp, if bytes == 2 { old & !0xffff | value } else { value });
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    Ok(Flow::Next)
}

/// The target of a near transfer: the immediate's, or the operand.
fn target(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<u64> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => Ok(instruction.near_branch_target()),
        _ => cpu.read_operand(instruction, 0),
    }
}

fn call(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = operand_bytes(instruction);
    let target = target(cpu, instruction)?;
    let target = cpu.near_target(target, bytes)?;
    let back = cpu.next_rip(instruction);
    cpu.push_value(bytes, back)?;
    cpu.rip = target;
    Ok(Flow::Jump)
}

fn jump(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = cpu.operand_bytes(instruction, 0);
    let target = target(cpu, instruction)?;
    cpu.rip = cpu.near_target(target, bytes)?;
    Ok(Flow::Jump)
}

fn ret(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = operand_bytes(instruction);
    let mut stack = cpu.current_stack();
    let target = stack.pop(cpu, bytes)?;
    let target = cpu.near_target(target, bytes)?;
    if instruction.op_count() == 1 {
        stack.skip(instruction.immediate(0));
    }
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    cpu.rip = target;
    Ok(Flow::Jump)
}

/// The counter register of LOOP and JCXZ by the address size.
fn counter_bits(instruction: &Instruction) -> u32 {
    match instruction.code() {
        Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32
        | Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX => 16,
        Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64
        | Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX => 32,
        _ => 64,
    }
}

fn branch_if(cpu: &mut Cpu, instruction: &Instruction, taken: bool) -> Outcome<Flow> {
    cpu.rip = if taken { instruction.near_branch_target() } else { cpu.next_rip(instruction) };
    Ok(Flow::Jump)
}

fn loop_(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bits = counter_bits(instruction);
    let old = cpu.gpr(Gpr::Rcx);
    let count = old.wrapping_sub(1) & mask(bits);
    let zero = cpu.rflags().zf();
    let taken = count != 0
        && match instruction.mnemonic() {
            M::Loope => zero,
            M::Loopne => !zero,
            _ => true,
        };
    if taken {
        cpu.near_target(instruction.near_branch_target(), 8)?;
    }
    cpu.set_gpr(Gpr::Rcx, if bits == 16 { old & !0xffff | count } else { count });
    branch_if(cpu, instruction, taken)
}

fn jump_if_zero(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let taken = cpu.gpr(Gpr::Rcx) & mask(counter_bits(instruction)) == 0;
    if taken {
        cpu.near_target(instruction.near_branch_target(), 8)?;
    }
    branch_if(cpu, instruction, taken)
}
