//! Arithmetic of packed and scalar single and double precision.
//!
//! Each element is computed on its own; the exceptions of all are collected, and one unmasked exception keeps the whole destination as it
//! was. SDM vol 1, 11.5.3 "Generating SIMD Floating-Point Exceptions".

use super::float::{Arithmetic, Double, Float, Format, Single};
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};
use std::cmp::Ordering;

/// All elements of register and register or aligned memory.
#[inline(always)]
pub(super) fn packed<F: Format>(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(&mut Float, u64, u64) -> u64) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source(instruction, 1)?;
    let a = cpu.xmm_operand(instruction, 0);
    let mut float = cpu.float();
    let mut result = 0;
    for shift in (0..128).step_by(F::BITS as usize) {
        let element = |value: u128| (value >> shift) as u64 & mask(F::BITS);
        result |= u128::from(f(&mut float, element(a), element(b))) << shift;
    }
    cpu.settle(float)?;
    cpu.set_xmm(instruction, result);
    Ok(Flow::Next)
}

/// The lowest element; the others stay.
#[inline(always)]
pub(super) fn scalar<F: Format>(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(&mut Float, u64, u64) -> u64) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source_low(instruction, 1, (F::BITS / 8) as u8)?;
    let a = cpu.xmm_operand(instruction, 0) as u64;
    let mut float = cpu.float();
    let result = f(&mut float, a & mask(F::BITS), b);
    cpu.settle(float)?;
    cpu.set_xmm_low(instruction, a & !mask(F::BITS) | result);
    Ok(Flow::Next)
}

/// One row per operation: the four instructions that do it, and how.
macro_rules! table {
    ($($ps:ident $pd:ident $ss:ident $sd:ident => $method:ident $operation:expr;)*) => {
        /// The function of an instruction of this module.
        pub(super) fn find(mnemonic: M) -> Option<Function> {
            Some(match mnemonic {
                $(
                    M::$ps => |cpu, instruction| packed::<Single>(cpu, instruction, |float, a, b| table!(@$method Single, float, a, b, $operation)),
                    M::$pd => |cpu, instruction| packed::<Double>(cpu, instruction, |float, a, b| table!(@$method Double, float, a, b, $operation)),
                    M::$ss => |cpu, instruction| scalar::<Single>(cpu, instruction, |float, a, b| table!(@$method Single, float, a, b, $operation)),
                    M::$sd => |cpu, instruction| scalar::<Double>(cpu, instruction, |float, a, b| table!(@$method Double, float, a, b, $operation)),
                )*
                _ => return None,
            })
        }
    };
    (@arithmetic $format:ident, $float:ident, $a:ident, $b:ident, $operation:expr) => { $float.arithmetic::<$format>($operation, $a, $b) };
    (@extremum $format:ident, $float:ident, $a:ident, $b:ident, $operation:expr) => { $float.extremum::<$format>($a, $b, $operation) };
}

table! {
    Addps Addpd Addss Addsd => arithmetic Arithmetic::Add;
    Subps Subpd Subss Subsd => arithmetic Arithmetic::Subtract;
    Mulps Mulpd Mulss Mulsd => arithmetic Arithmetic::Multiply;
    Divps Divpd Divss Divsd => arithmetic Arithmetic::Divide;
    Sqrtps Sqrtpd Sqrtss Sqrtsd => arithmetic Arithmetic::SquareRoot;
    Minps Minpd Minss Minsd => extremum Ordering::Less;
    Maxps Maxpd Maxss Maxsd => extremum Ordering::Greater;
}
