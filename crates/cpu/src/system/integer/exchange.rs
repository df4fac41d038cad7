//! CMPXCHG, CMPXCHG8B, CMPXCHG16B, XADD. One processor runs at a time, so LOCK has nothing to add to what they do.

use super::{ZF, flag, width_of};
use crate::direct::set_flags;
use crate::interpretation::FlagRule;
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use isa::register::Gpr;

/// CMPXCHG. Memory is written in either case, with its old value if the comparison fails; a register is not, not even its upper half.
pub(super) fn cmpxchg(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let accumulator = [Register::AL, Register::AX, Register::EAX, Register::RAX][width.trailing_zeros() as usize - 3];
    let old = cpu.read_operand_for_update(instruction, 0)?;
    let expected = cpu.read_register(accumulator);
    let new = cpu.read_operand(instruction, 1)?;
    let difference = expected.wrapping_sub(old) & mask(width);
    if difference == 0 {
        cpu.write_operand(instruction, 0, new)?;
    } else {
        if instruction.op_kind(0) == OpKind::Memory {
            cpu.write_operand(instruction, 0, old)?;
        }
        cpu.write_register(accumulator, old);
    }
    set_flags(cpu, width, FlagRule::Subtract, expected, old, difference);
    Ok(Flow::Next)
}

/// CMPXCHG8B and CMPXCHG16B. The latter demands alignment.
pub(super) fn cmpxchg_pair(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if instruction.op_kind(0) == OpKind::Register {
        return Err(Trap::UD);
    }
    let bytes = if instruction.mnemonic() == Mnemonic::Cmpxchg16b { 8u8 } else { 4 };
    let linear = cpu.memory_linear(instruction, 2 * u64::from(bytes), Access::Write)?;
    if bytes == 8 && linear & 15 != 0 {
        return Err(Trap::GP0);
    }
    let limit = mask(u32::from(bytes) * 8);
    let pair = |cpu: &Cpu, low: Gpr, high: Gpr| (cpu.gpr(low) & limit, cpu.gpr(high) & limit);
    // Eight bytes are read at once, so that a page fault on the second page comes before anything else.
    let (low, high) = if bytes == 8 {
        (cpu.load_for_update(linear, 8)?, cpu.load_for_update(linear.wrapping_add(8), 8)?)
    } else {
        let both = cpu.load_for_update(linear, 8)?;
        (both & limit, both >> 32)
    };
    let equal = (low, high) == pair(cpu, Gpr::Rax, Gpr::Rdx);
    let (new_low, new_high) = if equal { pair(cpu, Gpr::Rbx, Gpr::Rcx) } else { (low, high) };
    if bytes == 8 {
        cpu.store(linear, 8, new_low)?;
        cpu.store(linear.wrapping_add(8), 8, new_high)?;
    } else {
        cpu.store(linear, 8, new_low | new_high << 32)?;
    }
    if !equal {
        cpu.set_gpr(Gpr::Rax, low);
        cpu.set_gpr(Gpr::Rdx, high);
    }
    cpu.set_status(ZF, flag(ZF, equal));
    Ok(Flow::Next)
}

/// XADD: with the same register twice it holds the sum.
pub(super) fn xadd(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let old = cpu.read_operand_for_update(instruction, 0)?;
    let added = cpu.read_operand(instruction, 1)?;
    let sum = old.wrapping_add(added) & mask(width);
    if instruction.op_kind(0) == OpKind::Memory {
        cpu.write_operand(instruction, 0, sum)?;
        cpu.write_operand(instruction, 1, old)?;
    } else {
        cpu.write_operand(instruction, 1, old)?;
        cpu.write_operand(instruction, 0, sum)?;
    }
    set_flags(cpu, width, FlagRule::Add, old, added, sum);
    Ok(Flow::Next)
}
