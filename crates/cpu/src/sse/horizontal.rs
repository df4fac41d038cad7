//! Operations between lanes of one register: horizontal sums, alternating addition and subtraction, dot products, sums of differences.
//!
//! What is modelled: SDM vol 1, 12.3 "SSE3 Instructions" of packed addition and subtraction, PHADD and PHSUB of SSSE3 with their MMX twins, DPPS,
//! DPPD and MPSADBW of SSE4.1. A dot product is computed in steps: an unmasked exception of a step keeps the next one from being done.

use super::arithmetic::packed;
use super::float::{Arithmetic, Double, Format, Single};
use super::operand::binary_of_width;
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// PHADD, PHSUB and their kin: neighbours of the first operand, then of the second, by `f`.
fn neighbours(cpu: &mut Cpu, instruction: &Instruction, bits: u32, f: impl Fn(i32, i32) -> i32) -> Outcome<Flow> {
    let lane = |value: u128, at: u32| (value >> (bits * at)) as i32;
    binary_of_width(cpu, instruction, |a, b, width| {
        let half = width / bits / 2;
        (0..2 * half).fold(0, |result, at| {
            let (from, first) = if at < half { (a, 2 * at) } else { (b, 2 * (at - half)) };
            let value = f(lane(from, first), lane(from, first + 1)) as u32 & mask(bits) as u32;
            result | u128::from(value) << (bits * at)
        })
    })
}

/// With words of 16 bits in the low halves.
fn saturated(f: impl Fn(i16, i16) -> i16) -> impl Fn(i32, i32) -> i32 {
    move |a, b| i32::from(f(a as i16, b as i16))
}

/// HADDPS and its kin: neighbours of the first operand, then of the second.
fn float_neighbours<F: Format>(cpu: &mut Cpu, instruction: &Instruction, operation: Arithmetic) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source(instruction, 1)?;
    let a = cpu.xmm_operand(instruction, 0);
    let half = 64 / F::BITS;
    let mut float = cpu.float();
    let mut result = 0;
    for at in 0..2 * half {
        let (from, first) = if at < half { (a, 2 * at) } else { (b, 2 * (at - half)) };
        let element = |at: u32| (from >> (F::BITS * at)) as u64 & mask(F::BITS);
        result |= u128::from(float.arithmetic::<F>(operation, element(first), element(first + 1))) << (F::BITS * at);
    }
    cpu.settle(float)?;
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

/// ADDSUBPS, ADDSUBPD: the even elements are subtracted, the odd ones added.
fn alternating<F: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let odd = std::cell::Cell::new(true);
    packed::<F>(cpu, instruction, |float, a, b| {
        odd.set(!odd.get());
        float.arithmetic::<F>(if odd.get() { Arithmetic::Add } else { Arithmetic::Subtract }, a, b)
    })
}

/// DPPS, DPPD: products where the immediate's upper half says so, their sum to where its lower half says so.
fn dot_product<F: Format>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source(instruction, 1)?;
    let a = cpu.xmm_operand(instruction, 0);
    let chosen = instruction.immediate8();
    let count = (128 / F::BITS) as usize;
    let mut float = cpu.float();
    let mut values = [0; 4];
    for at in (0..count).filter(|at| chosen >> (4 + at) & 1 != 0) {
        let element = |value: u128| (value >> (F::BITS as usize * at)) as u64 & mask(F::BITS);
        values[at] = float.arithmetic::<F>(Arithmetic::Multiply, element(a), element(b));
    }
    cpu.settle(float)?;
    // Every lane adds its partner to itself, as the processor does: which of two NaNs comes out depends on the lane, and (found by
    // experiment on an Intel processor) the first of DPPS's two steps adds the lane to its partner instead.
    let mut distance = 1;
    while distance < count {
        let mut step = cpu.float();
        let before = values;
        for at in 0..count {
            let (own, partner) = (before[at], before[at ^ distance]);
            let (a, b) = if 2 * distance < count { (partner, own) } else { (own, partner) };
            values[at] = step.arithmetic::<F>(Arithmetic::Add, a, b);
        }
        cpu.settle(step)?;
        distance *= 2;
    }
    let places = (0..count).filter(|at| chosen >> at & 1 != 0);
    cpu.set_xmm(instruction, places.fold(0, |result, at| result | u128::from(values[at]) << (F::BITS as usize * at)));
    Ok(Flow::Next)
}

/// MPSADBW: eight sums of the absolute differences between four bytes of the second operand and four of the first, from eight places on.
fn sums_of_differences(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selectors = instruction.immediate8();
    binary_of_width(cpu, instruction, |a, b, _| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        let (first, block) = (usize::from(selectors >> 2 & 1) * 4, usize::from(selectors & 3) * 4);
        (0..8).fold(0, |result, at| {
            let sum: u16 = (0..4).map(|byte| u16::from(a[first + at + byte].abs_diff(b[block + byte]))).sum();
            result | u128::from(sum) << (16 * at)
        })
    })
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Phaddw => |cpu, instruction| neighbours(cpu, instruction, 16, i32::wrapping_add),
        M::Phaddd => |cpu, instruction| neighbours(cpu, instruction, 32, i32::wrapping_add),
        M::Phaddsw => |cpu, instruction| neighbours(cpu, instruction, 16, saturated(i16::saturating_add)),
        M::Phsubw => |cpu, instruction| neighbours(cpu, instruction, 16, i32::wrapping_sub),
        M::Phsubd => |cpu, instruction| neighbours(cpu, instruction, 32, i32::wrapping_sub),
        M::Phsubsw => |cpu, instruction| neighbours(cpu, instruction, 16, saturated(i16::saturating_sub)),
        M::Haddps => |cpu, instruction| float_neighbours::<Single>(cpu, instruction, Arithmetic::Add),
        M::Haddpd => |cpu, instruction| float_neighbours::<Double>(cpu, instruction, Arithmetic::Add),
        M::Hsubps => |cpu, instruction| float_neighbours::<Single>(cpu, instruction, Arithmetic::Subtract),
        M::Hsubpd => |cpu, instruction| float_neighbours::<Double>(cpu, instruction, Arithmetic::Subtract),
        M::Addsubps => alternating::<Single>,
        M::Addsubpd => alternating::<Double>,
        M::Dpps => dot_product::<Single>,
        M::Dppd => dot_product::<Double>,
        M::Mpsadbw => sums_of_differences,
        _ => return None,
    })
}
