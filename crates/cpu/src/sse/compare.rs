//! Comparisons: to masks (CMPPS and its kin) and to the status flags (COMISS, UCOMISS and their kin).

use super::arithmetic::{packed, scalar};
use super::float::{Double, Float, Format, Single};
use super::operand::is_xmm;
use crate::flags;
use crate::operand::mask;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};
use isa::rflags::Rflags;
use std::cmp::Ordering;

/// The eight predicates of the legacy encodings. SDM vol 2, CMPPD, Table 3-1 "Comparison Predicate for CMPPD and CMPPS Instructions".
fn predicate<F: Format>(float: &mut Float, a: u64, b: u64, number: u8) -> u64 {
    // LT, LE and their negations find any NaN invalid.
    let order = match number & 3 {
        1 | 2 => float.compare::<F, true>(a, b),
        _ => float.compare::<F, false>(a, b),
    };
    let holds = match number & 3 {
        0 => order == Some(Ordering::Equal),
        1 => order == Some(Ordering::Less),
        2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => order.is_none(),
    };
    if holds != (number & 4 != 0) { mask(F::BITS) } else { 0 }
}

/// COMISx (`SIGNAL`: any NaN is invalid) and UCOMISx: ZF, PF, CF tell the order; OF, SF, AF are cleared.
fn to_flags<F: Format, const SIGNAL: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let b = cpu.source_low(instruction, 1, (F::BITS / 8) as u8)?;
    let a = cpu.xmm_operand(instruction, 0) as u64 & mask(F::BITS);
    let mut float = cpu.float();
    let order = float.compare::<F, SIGNAL>(a, b);
    cpu.settle(float)?;
    let status = match order {
        None => Rflags::new().with_zf(true).with_pf(true).with_cf(true),
        Some(Ordering::Greater) => Rflags::new(),
        Some(Ordering::Less) => Rflags::new().with_cf(true),
        Some(Ordering::Equal) => Rflags::new().with_zf(true),
    };
    (cpu.flag_result, cpu.flag_aux) = flags::from_status(status.into_bits());
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(instruction: &Instruction) -> Option<Function> {
    Some(match instruction.mnemonic() {
        M::Cmpps => {
            |cpu, instruction| packed::<Single>(cpu, instruction, |float, a, b| predicate::<Single>(float, a, b, instruction.immediate8()))
        }
        M::Cmppd => {
            |cpu, instruction| packed::<Double>(cpu, instruction, |float, a, b| predicate::<Double>(float, a, b, instruction.immediate8()))
        }
        M::Cmpss => {
            |cpu, instruction| scalar::<Single>(cpu, instruction, |float, a, b| predicate::<Single>(float, a, b, instruction.immediate8()))
        }
        // The string instruction has the same name.
        M::Cmpsd if is_xmm(instruction, 0) => {
            |cpu, instruction| scalar::<Double>(cpu, instruction, |float, a, b| predicate::<Double>(float, a, b, instruction.immediate8()))
        }
        M::Comiss => to_flags::<Single, true>,
        M::Comisd => to_flags::<Double, true>,
        M::Ucomiss => to_flags::<Single, false>,
        M::Ucomisd => to_flags::<Double, false>,
        _ => return None,
    })
}
