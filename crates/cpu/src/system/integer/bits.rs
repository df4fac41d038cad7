//! BT, BTS, BTR, BTC; BSF, BSR, TZCNT, LZCNT; POPCNT; CRC32.

use super::{AF, CF, OF, PF, SF, ZF, flag, width_of};
use crate::operand::{mask, segment_of, sign_extend};
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Access, Outcome};
use iced_x86::{Instruction, Mnemonic, OpKind};
use isa::cpuid::Feature;
use isa::register::Segment;

fn changed(mnemonic: Mnemonic, value: u64, bit: u64) -> u64 {
    match mnemonic {
        Mnemonic::Bts => value | bit,
        Mnemonic::Btr => value & !bit,
        Mnemonic::Btc => value ^ bit,
        _ => value,
    }
}

/// The bit tests in all forms. With a memory operand, a register index reaches any bit of a string that starts there, in either direction.
pub(super) fn bit_test(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mnemonic = instruction.mnemonic();
    let width = width_of(instruction, 0);
    let index = cpu.read_operand(instruction, 1)?;
    let bit = 1u64 << (index & u64::from(width - 1));
    if instruction.op_kind(0) == OpKind::Register {
        let value = cpu.read_operand(instruction, 0)?;
        if mnemonic != Mnemonic::Bt {
            cpu.write_operand(instruction, 0, changed(mnemonic, value, bit))?;
        }
        cpu.set_status(CF, flag(CF, value & bit != 0));
        return Ok(Flow::Next);
    }
    let bytes = (width / 8) as u8;
    let elements =
        if instruction.op_kind(1) == OpKind::Register { (sign_extend(width, index) as i64) >> width.trailing_zeros() } else { 0 };
    let offset = cpu.effective_offset(instruction).wrapping_add((elements as u64).wrapping_mul(u64::from(bytes)));
    let offset = offset & mask(cpu.address_bits(instruction));
    let segment = segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds);
    let access = if mnemonic == Mnemonic::Bt { Access::Read } else { Access::Write };
    let linear = cpu.segment_address(segment, offset, u64::from(bytes), access)?;
    let value = cpu.load_as(linear, bytes, access, cpu.privilege())?;
    if mnemonic != Mnemonic::Bt {
        cpu.store(linear, bytes, changed(mnemonic, value, bit))?;
    }
    cpu.set_status(CF, flag(CF, value & bit != 0));
    Ok(Flow::Next)
}

/// BSF and BSR, and TZCNT and LZCNT, which processors that lack them execute as the older ones.
///
/// BSF and BSR of zero leave the destination as it is, which AMD documents and Intel does.
pub(super) fn scan(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let source = cpu.read_operand(instruction, 1)?;
    let leading = u64::from(source.leading_zeros().wrapping_sub(64 - width));
    let trailing = u64::from(source.trailing_zeros().min(width));
    let result = match instruction.mnemonic() {
        Mnemonic::Tzcnt if cpu.has(Feature::Bmi1) => Some(trailing),
        Mnemonic::Lzcnt if cpu.has(Feature::Lzcnt) => Some(leading),
        _ => None,
    };
    if let Some(result) = result {
        cpu.write_operand(instruction, 0, result)?;
        cpu.set_status(CF | ZF, flag(CF, source == 0) | flag(ZF, result == 0));
        return Ok(Flow::Next);
    }
    let forward = matches!(instruction.mnemonic(), Mnemonic::Bsf | Mnemonic::Tzcnt);
    if source != 0 {
        let index = if forward { trailing } else { u64::from(width) - 1 - leading };
        cpu.write_operand(instruction, 0, index)?;
    }
    cpu.set_status(ZF, flag(ZF, source == 0));
    Ok(Flow::Next)
}

pub(super) fn popcnt(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let source = cpu.read_operand(instruction, 1)?;
    cpu.write_operand(instruction, 0, u64::from(source.count_ones()))?;
    cpu.set_status(CF | PF | AF | ZF | SF | OF, flag(ZF, source == 0));
    Ok(Flow::Next)
}

/// The polynomial of CRC32 (11EDC6F41H), bits in opposite order.
const POLYNOMIAL: u32 = 0x1edc_6f41u32.reverse_bits();

pub(super) fn crc32(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 1);
    let source = cpu.read_operand(instruction, 1)?;
    let mut sum = cpu.read_operand(instruction, 0)? as u32;
    for byte in &source.to_le_bytes()[..width as usize / 8] {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 != 0 { POLYNOMIAL } else { 0 };
        }
    }
    cpu.write_operand(instruction, 0, u64::from(sum))?;
    Ok(Flow::Next)
}
