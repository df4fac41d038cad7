//! MMX registers: the low 64 bits of the x87 registers.
//!
//! What is modelled: when MMX instructions may execute, and what they do to x87 state (SDM vol 3, 13.2 "The MMX State and MMX Register
//! Aliasing" and 13.2.1 "Effect of MMX, x87 FPU, FXSAVE, and FXRSTOR Instructions on the x87 FPU Tag Word"); moves and conversions between
//! MMX registers and others, and EMMS. Instructions that compute share their functions with their SSE twins.

use super::float::{Double, Float, Single};
use super::operand::is_xmm;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::{Access, Outcome, Trap};
use crate::x87::wait_for_exceptions;
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

/// TOP in the status word.
const TOP: u16 = 0x3800;

/// The number of an MMX register.
fn number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::MM0 as usize) & 7
}

impl Cpu {
    /// Faults if MMX instructions cannot be executed now. SDM vol 3, 13.1 "Emulation of the MMX Instruction Set", Table 13-1 "Action Taken By
    /// MMX Instructions for Different Combinations of EM, MP and TS".
    pub(super) fn require_mmx(&self) -> Outcome {
        if self.cr0.em() {
            return Err(Trap::UD);
        }
        if self.cr0.ts() {
            return Err(Trap::NM);
        }
        wait_for_exceptions(self)
    }

    /// What every MMX instruction does (EMMS empties the registers after it): TOP becomes 0, and all registers are valid.
    pub(super) fn enter_mmx(&mut self) {
        self.fpu.status &= !TOP;
        self.fpu.tag = 0xff;
    }

    /// An MMX register.
    pub(super) fn mmx(&self, register: Register) -> u64 {
        self.fpu.registers[number(register)] as u64
    }

    /// Sets an MMX register; the rest of the x87 register becomes all ones.
    pub(super) fn set_mmx(&mut self, register: Register, value: u64) {
        self.enter_mmx();
        self.fpu.registers[number(register)] = 0xffff << 64 | u128::from(value);
    }

    /// An MMX register, or 8 bytes of memory.
    pub(super) fn mmx_source(&mut self, instruction: &Instruction, operand: u32) -> Outcome<u64> {
        if instruction.op_kind(operand) == OpKind::Register {
            return Ok(self.mmx(instruction.op_register(operand)));
        }
        let linear = self.memory_linear(instruction, 8, Access::Read)?;
        self.load(linear, 8)
    }
}

/// MOVD and MOVQ with an MMX register on either side, and MOVNTQ.
fn transfer(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_mmx()?;
    let register = |operand: u32| match instruction.op_kind(operand) {
        OpKind::Register if instruction.op_register(operand).is_mm() => Some(instruction.op_register(operand)),
        _ => None,
    };
    let value = match register(1) {
        Some(source) => cpu.mmx(source),
        None => cpu.read_operand(instruction, 1)?,
    };
    match register(0) {
        Some(destination) => cpu.set_mmx(destination, value),
        None => {
            cpu.write_operand(instruction, 0, value)?;
            cpu.enter_mmx();
        }
    }
    Ok(Flow::Next)
}

/// MASKMOVQ: the bytes whose mask byte has its top bit set. Nothing faults on account of the others.
fn masked_store(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_mmx()?;
    let value = cpu.mmx(instruction.op_register(1)).to_le_bytes();
    let mask = cpu.mmx(instruction.op_register(2)).to_le_bytes();
    cpu.store_chosen(instruction, &value, &mask)?;
    cpu.enter_mmx();
    Ok(Flow::Next)
}

/// MOVDQ2Q and MOVQ2DQ, which use registers of both kinds.
fn between_kinds(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    cpu.require_mmx()?;
    if is_xmm(instruction, 0) {
        let value = cpu.mmx(instruction.op_register(1));
        cpu.set_xmm(instruction, value.into());
        cpu.enter_mmx();
    } else {
        let value = cpu.xmm_operand(instruction, 1) as u64;
        cpu.set_mmx(instruction.op0_register(), value);
    }
    Ok(Flow::Next)
}

/// CVTPI2PS, CVTPI2PD: two signed doublewords to an XMM register.
fn from_integers(cpu: &mut Cpu, instruction: &Instruction, double: bool) -> Outcome<Flow> {
    cpu.require_sse()?;
    let from_register = instruction.op1_kind() == OpKind::Register;
    // With memory as the source there is no transition to MMX (SDM vol 2, CVTPI2PD; for CVTPI2PS found by experiment on an Intel processor).
    if from_register {
        cpu.require_mmx()?;
    }
    let value = cpu.mmx_source(instruction, 1)?;
    let mut float = cpu.float();
    let numbers = [value as i32, (value >> 32) as i32].map(i64::from);
    let result = if double {
        let [low, high] = numbers.map(|number| float.number_of::<Double>(number));
        u128::from(high) << 64 | u128::from(low)
    } else {
        let [low, high] = numbers.map(|number| float.number_of::<Single>(number));
        cpu.xmm_operand(instruction, 0) >> 64 << 64 | u128::from(high << 32 | low)
    };
    if from_register {
        cpu.enter_mmx();
    }
    cpu.settle(float)?;
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

/// CVTPS2PI, CVTPD2PI and with truncation CVTTPS2PI, CVTTPD2PI: two signed doublewords to an MMX register.
fn to_integers(cpu: &mut Cpu, instruction: &Instruction, double: bool, truncated: bool) -> Outcome<Flow> {
    cpu.require_sse()?;
    cpu.require_mmx()?;
    let source = if double { cpu.source(instruction, 1)? } else { cpu.source_low(instruction, 1, 8)?.into() };
    let mut float = cpu.float();
    let integer = |float: &mut Float, element: u32| match double {
        true => float.integer_of::<Double>((source >> (64 * element)) as u64, 32, truncated),
        false => float.integer_of::<Single>(u64::from((source >> (32 * element)) as u32), 32, truncated),
    };
    let [low, high] = [0, 1].map(|element| integer(&mut float, element));
    // Found by experiment on an Intel processor: the transition comes before a floating-point exception.
    cpu.enter_mmx();
    cpu.settle(float)?;
    cpu.set_mmx(instruction.op0_register(), high << 32 | low);
    Ok(Flow::Next)
}

/// EMMS: all registers are empty. That TOP becomes 0, too, was found by experiment on an Intel processor.
fn leave(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    cpu.require_mmx()?;
    cpu.enter_mmx();
    cpu.fpu.tag = 0;
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(instruction: &Instruction) -> Option<Function> {
    let is_mm = |operand: u32| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_mm();
    Some(match instruction.mnemonic() {
        M::Movd | M::Movq if is_mm(0) || is_mm(1) => transfer,
        M::Movntq => transfer,
        M::Maskmovq => masked_store,
        M::Movdq2q | M::Movq2dq => between_kinds,
        M::Cvtpi2ps => |cpu, instruction| from_integers(cpu, instruction, false),
        M::Cvtpi2pd => |cpu, instruction| from_integers(cpu, instruction, true),
        M::Cvtps2pi => |cpu, instruction| to_integers(cpu, instruction, false, false),
        M::Cvttps2pi => |cpu, instruction| to_integers(cpu, instruction, false, true),
        M::Cvtpd2pi => |cpu, instruction| to_integers(cpu, instruction, true, false),
        M::Cvttpd2pi => |cpu, instruction| to_integers(cpu, instruction, true, true),
        M::Emms => leave,
        _ => return None,
    })
}
