//! The memory-type range registers, as state: caches are not modelled, so a memory type has no effect.
//!
//! What is modelled: SDM vol 3, 12.11 "Memory Type Range Registers (MTRRs)"; APM vol 2, 7.7 "Memory-Type Range Registers": capability, default
//! type, fixed ranges, as many variable ranges as the model has, and what each refuses. What is not: SMRRs, AMD's RdMem and WrMem bits.

use super::Msr;
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use isa::cpuid::Feature;
use isa::msr;

/// IA32_MTRRCAP: number of variable ranges.
const COUNT: u64 = 0xff;
/// IA32_MTRR_DEF_TYPE: type, FE and E.
const DEFAULT_TYPE: u64 = 0xcff;
/// Reserved bits of a base below the address, and of a mask.
const BASE_RESERVED: u64 = 0xf00;
const MASK_RESERVED: u64 = 0x7ff;

fn exists(cpu: &Cpu) -> bool {
    cpu.has(Feature::Mtrr)
}

/// SDM vol 3, Table 12-8: uncacheable, write combining, write-through, write-protected, write-back.
const fn is_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

/// The fixed range of a number, in the order of addresses.
const fn fixed(number: u32) -> usize {
    match number {
        msr::IA32_MTRR_FIX64K_00000 => 0,
        msr::IA32_MTRR_FIX16K_80000 => 1,
        msr::IA32_MTRR_FIX16K_A0000 => 2,
        _ => 3 + (number - msr::IA32_MTRR_FIX4K_C0000) as usize,
    }
}

fn write_fixed(cpu: &mut Cpu, number: u32, value: u64) -> Outcome {
    if !value.to_le_bytes().iter().all(|kind| is_type(*kind)) {
        return Err(Trap::GP0);
    }
    cpu.msrs.mtrr_fixed[fixed(number)] = value;
    Ok(())
}

/// The variable range's register of a number; nothing for one that the model does not have.
fn variable(cpu: &mut Cpu, number: u32) -> Outcome<&mut u64> {
    let index = number - msr::IA32_MTRR_PHYSBASE0;
    let count = cpu.model.msr(msr::IA32_MTRRCAP).unwrap_or(0) & COUNT;
    if u64::from(index / 2) >= count {
        return Err(Trap::GP0);
    }
    cpu.msrs.mtrr_variable.get_mut(index as usize).ok_or(Trap::GP0)
}

fn write_variable(cpu: &mut Cpu, number: u32, value: u64) -> Outcome {
    let is_base = (number - msr::IA32_MTRR_PHYSBASE0).is_multiple_of(2);
    let low = if is_base { BASE_RESERVED } else { MASK_RESERVED };
    let refused = value & low != 0 || value >> cpu.model.physical_address_bits != 0 || is_base && !is_type(value as u8);
    let place = variable(cpu, number)?;
    if refused {
        return Err(Trap::GP0);
    }
    *place = value;
    Ok(())
}

/// A row of fixed ranges.
const fn fixed_row(first: u32, last: u32) -> Msr {
    Msr { first, last, exists, read: |cpu, number| Ok(cpu.msrs.mtrr_fixed[fixed(number)]), write: write_fixed }
}

/// The rows.
pub(super) static ROWS: &[Msr] = &[
    row!(IA32_MTRRCAP, exists, |cpu, _| Ok(cpu.model.msr(msr::IA32_MTRRCAP).unwrap_or(0)), |_, _, _| Err(Trap::GP0)),
    row!(IA32_MTRR_DEF_TYPE, exists, |cpu, _| Ok(cpu.msrs.mtrr_def_type), |cpu, _, value| {
        if value & !DEFAULT_TYPE != 0 || !is_type(value as u8) {
            return Err(Trap::GP0);
        }
        cpu.msrs.mtrr_def_type = value;
        Ok(())
    }),
    fixed_row(msr::IA32_MTRR_FIX64K_00000, msr::IA32_MTRR_FIX64K_00000),
    fixed_row(msr::IA32_MTRR_FIX16K_80000, msr::IA32_MTRR_FIX16K_A0000),
    fixed_row(msr::IA32_MTRR_FIX4K_C0000, msr::IA32_MTRR_FIX4K_F8000),
    Msr {
        first: msr::IA32_MTRR_PHYSBASE0,
        last: msr::IA32_MTRR_PHYSMASK9,
        exists,
        read: |cpu, number| variable(cpu, number).copied(),
        write: write_variable,
    },
];
