//! Moves between XMM registers, memory and general-purpose registers.

use super::operand::is_xmm;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::{Access, Outcome};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

const LOW: u128 = u64::MAX as u128;

/// The whole register, `ALIGNED` when memory must be.
fn whole<const ALIGNED: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let address = |cpu: &Cpu, access: Access| match ALIGNED {
        true => cpu.aligned_address(instruction, access),
        false => cpu.memory_linear(instruction, 16, access),
    };
    if !is_xmm(instruction, 0) {
        let linear = address(cpu, Access::Write)?;
        let value = cpu.xmm_operand(instruction, 1);
        cpu.store_wide(linear, value)?;
        return Ok(Flow::Next);
    }
    let value = if is_xmm(instruction, 1) {
        cpu.xmm_operand(instruction, 1)
    } else {
        let linear = address(cpu, Access::Read)?;
        cpu.load_wide(linear)?
    };
    cpu.set_xmm(instruction, value);
    Ok(Flow::Next)
}

/// MOVSS, MOVSD: between registers the rest of the destination stays; a load clears it.
fn scalar<const BYTES: u8>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    if !is_xmm(instruction, 0) {
        return store_part::<BYTES, 0>(cpu, instruction);
    }
    let value = u128::from(cpu.source_low(instruction, 1, BYTES)?);
    let kept = if is_xmm(instruction, 1) { cpu.xmm_operand(instruction, 0) >> (8 * BYTES) << (8 * BYTES) } else { 0 };
    cpu.set_xmm(instruction, kept | value);
    Ok(Flow::Next)
}

/// The bytes of register operand 1 from bit `FROM` on, to memory.
fn store_part<const BYTES: u8, const FROM: u32>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let linear = cpu.memory_linear(instruction, u64::from(BYTES), Access::Write)?;
    let value = cpu.xmm_operand(instruction, 1) >> FROM;
    cpu.store(linear, BYTES, value as u64)?;
    Ok(Flow::Next)
}

/// MOVD, MOVQ: the rest of an XMM destination is cleared.
fn zero_extended(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = if is_xmm(instruction, 1) { cpu.xmm_operand(instruction, 1) as u64 } else { cpu.read_operand(instruction, 1)? };
    if is_xmm(instruction, 0) {
        cpu.set_xmm(instruction, u128::from(value));
    } else {
        cpu.write_operand(instruction, 0, value)?;
    }
    Ok(Flow::Next)
}

/// MOVLPS, MOVLPD: the low half to or from memory.
fn low_half(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if !is_xmm(instruction, 0) {
        return store_part::<8, 0>(cpu, instruction);
    }
    cpu.require_sse()?;
    let value = cpu.source_low(instruction, 1, 8)?;
    cpu.set_xmm_low(instruction, value);
    Ok(Flow::Next)
}

/// MOVHPS, MOVHPD to or from memory, and MOVLHPS between registers: the high half.
fn high_half(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if !is_xmm(instruction, 0) {
        return store_part::<8, 64>(cpu, instruction);
    }
    cpu.require_sse()?;
    let value = cpu.source_low(instruction, 1, 8)?;
    let old = cpu.xmm_operand(instruction, 0);
    cpu.set_xmm(instruction, old & LOW | u128::from(value) << 64);
    Ok(Flow::Next)
}

/// MOVHLPS.
fn high_to_low(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = cpu.xmm_operand(instruction, 1) >> 64;
    cpu.set_xmm_low(instruction, value as u64);
    Ok(Flow::Next)
}

/// MOVDDUP.
fn low_half_twice(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = u128::from(cpu.source_low(instruction, 1, 8)?);
    cpu.set_xmm(instruction, value << 64 | value);
    Ok(Flow::Next)
}

/// MOVNTI: an ordinary store of a general-purpose register, which needs no SSE state.
fn store_register(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let value = cpu.read_operand(instruction, 1)?;
    cpu.write_operand(instruction, 0, value)?;
    Ok(Flow::Next)
}

/// MASKMOVDQU: the bytes whose mask byte has its top bit set. Nothing faults on account of the others.
fn masked_store(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let value = cpu.xmm_operand(instruction, 1).to_le_bytes();
    let mask = cpu.xmm_operand(instruction, 2).to_le_bytes();
    cpu.store_chosen(instruction, &value, &mask)?;
    Ok(Flow::Next)
}

impl Cpu {
    /// Stores the bytes of `value` whose byte in `mask` has its top bit set, all or none, where MASKMOVDQU and MASKMOVQ store them.
    pub(super) fn store_chosen(&mut self, instruction: &Instruction, value: &[u8], mask: &[u8]) -> Outcome {
        for write in [false, true] {
            for at in (0..value.len()).filter(|at| mask[*at] & 0x80 != 0) {
                let linear = self.implicit_destination(instruction, at as u64, 1)?;
                if write {
                    self.store(linear, 1, u64::from(value[at]))?;
                } else {
                    self.check_range(linear, 1, Access::Write)?;
                }
            }
        }
        Ok(())
    }
}

/// The function of an instruction of this module.
pub(super) fn find(instruction: &Instruction) -> Option<Function> {
    Some(match instruction.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => whole::<true>,
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => whole::<false>,
        M::Movss => scalar::<4>,
        M::Movntss => store_part::<4, 0>,
        M::Movntsd => store_part::<8, 0>,
        // The string instruction has the same name.
        M::Movsd if is_xmm(instruction, 0) || is_xmm(instruction, 1) => scalar::<8>,
        M::Movd | M::Movq => zero_extended,
        M::Movlps | M::Movlpd => low_half,
        M::Movhps | M::Movhpd | M::Movlhps => high_half,
        M::Movhlps => high_to_low,
        M::Movddup => low_half_twice,
        M::Movnti if instruction.op1_kind() == OpKind::Register => store_register,
        M::Maskmovdqu => masked_store,
        _ => return None,
    })
}
