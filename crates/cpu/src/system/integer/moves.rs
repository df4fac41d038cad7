//! MOVBE, BSWAP of 16 bits, LEA with addresses of other sizes, XLAT, CLFLUSH and its kin.

use super::width_of;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Access, Outcome};
use iced_x86::Instruction;

pub(super) fn movbe(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let value = cpu.read_operand(instruction, 1)?.swap_bytes() >> (64 - width);
    cpu.write_operand(instruction, 0, value)?;
    Ok(Flow::Next)
}

/// BSWAP with a 16-bit operand is undefined; processors clear the register's low word.
pub(super) fn bswap16(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.write_operand(instruction, 0, 0)?;
    Ok(Flow::Next)
}

/// LEA: the offset, whatever the segment.
pub(super) fn lea(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let offset = cpu.effective_offset(instruction);
    cpu.write_operand(instruction, 0, offset)?;
    Ok(Flow::Next)
}

/// XLAT: iced-x86 describes the table as memory with AL as the index.
pub(super) fn xlat(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let linear = cpu.memory_linear(instruction, 1, Access::Read)?;
    let value = cpu.load(linear, 1)?;
    cpu.write_register(iced_x86::Register::AL, value);
    Ok(Flow::Next)
}

/// CLFLUSH, CLFLUSHOPT, CLWB: there are no caches, but the address is checked as that of a load of one byte.
pub(super) fn cache_line(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let linear = cpu.memory_linear(instruction, 1, Access::Read)?;
    cpu.translate(linear, Access::Read, cpu.privilege())?;
    Ok(Flow::Next)
}
