//! Loads, stores, arithmetic and comparisons: the instructions that compilers use.
//!
//! What is modelled: SDM vol 1, 8.3.2 to 8.3.6, with memory operands of every type; FCMOVcc; what happens to an empty or full stack; when a
//! store or a pop is kept from being done by an exception that is not masked.

use super::arithmetic::{Operation, integer};
use super::convert::{DECIMAL_INDEFINITE, from_decimal, indefinite, widen};
use super::number::{Calculation, Class, Format, INDEFINITE, INVALID, OVERFLOW, Operand, SIGN, UNDERFLOW};
use super::stack::{C0, C1, C2, C3, Pending, begin, number};
use crate::operand::sign_extend;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::{Access, Outcome};
use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind};
use isa::rflags::Rflags;
use std::cmp::Ordering;

/// One, and the constants that FLDPI and its kin load: 68 bits of their significands.
const ONE_BITS: u128 = 1 << 67;
const LOG2_10: u128 = 0xd_49a7_84bc_d1b8_afe4;
const LOG2_E: u128 = 0xb_8aa3_b295_c17f_0bbb;
const PI: u128 = 0xc_90fd_aa22_168c_234c;
const LOG10_2: u128 = 0x9_a209_a84f_bcff_7988;
const LN_2: u128 = 0xb_1721_7f7d_1cf7_9abc;

impl Cpu {
    /// A memory operand as a number: single, double, or an integer, all of them exact.
    fn x87_memory(&mut self, instruction: &Instruction) -> Outcome<Operand> {
        let bytes = instruction.memory_size().size() as u8;
        let linear = self.memory_linear(instruction, u64::from(bytes), Access::Read)?;
        let value = self.load(linear, bytes)?;
        Ok(match instruction.memory_size() {
            MemorySize::Float32 => widen(value, Format::SINGLE),
            MemorySize::Float64 => widen(value, Format::DOUBLE),
            _ => Operand::new(integer(sign_extend(u32::from(bytes) * 8, value) as i64)),
        })
    }

    /// Ten bytes of memory.
    fn load_ten(&mut self, instruction: &Instruction) -> Outcome<u128> {
        let linear = self.memory_linear(instruction, 10, Access::Read)?;
        self.check_range(linear, 10, Access::Read)?;
        let low = self.load(linear, 8)?;
        let high = self.load(self.further(linear, 8), 2)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    fn store_ten(&mut self, instruction: &Instruction, value: u128) -> Outcome {
        let linear = self.memory_linear(instruction, 10, Access::Write)?;
        self.check_range(linear, 10, Access::Write)?;
        self.store(linear, 8, value as u64)?;
        self.store(self.further(linear, 8), 2, (value >> 64) as u64)
    }
}

fn is_register(instruction: &Instruction, operand: u32) -> bool {
    operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register
}

/// The number of the stack register that is an operand.
fn stack_operand(instruction: &Instruction, operand: u32) -> usize {
    number(instruction.op_register(operand))
}

/// FLD ST(i), and FLD m32, m64, FILD.
fn load(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    if instruction.op0_kind() == OpKind::Register {
        let source = if is_register(instruction, 1) { 1 } else { 0 };
        let full = pending.stack(7).is_some();
        return match pending.stack(stack_operand(instruction, source)) {
            Some(value) => {
                let calculation = pending.calculation();
                pending.finish_push(calculation, value)
            }
            None => pending.stack_fault(full, |pending| pending.push(INDEFINITE)),
        };
    }
    let operand = pending.cpu.x87_memory(instruction)?;
    let mut calculation = pending.calculation();
    let value = calculation.load(&operand);
    // Found by experiment on an Intel processor: DE does not keep the number from being loaded, masked or not.
    if pending.stack(7).is_none() && calculation.raised() & INVALID == 0 {
        pending.push(value);
        return pending.finish(calculation, |_| ());
    }
    pending.finish_push(calculation, value)
}

/// FLD m80 and FBLD, which raise nothing but stack faults.
fn load_exact(cpu: &mut Cpu, instruction: &Instruction, decode: fn(u128) -> u128) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let value = decode(pending.cpu.load_ten(instruction)?);
    let calculation = pending.calculation();
    pending.finish_push(calculation, value)
}

/// FLD1 and the other constants: 66 bits of significand that the rounding control rounds. SDM vol 1, 8.3.4 "Load Constant Instructions".
fn constant(cpu: &mut Cpu, instruction: &Instruction, exponent: i32, significand: u128) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let inexact = u128::from(significand != ONE_BITS);
    let value = pending.calculation().rounded(false, exponent, significand << 60 | inexact, Format::EXTENDED);
    let calculation = pending.calculation();
    pending.finish_push(calculation, value)
}

fn zero(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let calculation = pending.calculation();
    pending.finish_push(calculation, 0)
}

/// FST and FSTP to a register.
fn store_register(cpu: &mut Cpu, instruction: &Instruction, pops: u16) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let destination = stack_operand(instruction, 0);
    match pending.stack(0) {
        Some(value) => {
            pending.set(destination, value);
            pending.pop(pops);
            pending.end()
        }
        None => pending.underflow(destination, pops),
    }
}

/// FST m32, m64: an unmasked OE or UE keeps memory and stack as they were, too.
fn store_number(cpu: &mut Cpu, instruction: &Instruction, format: Format, pops: u16) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let mut calculation = pending.calculation();
    let value = pending.operand(0).map(|operand| calculation.narrow(&operand, format));
    store(pending, instruction, calculation, value, indefinite(format), pops)
}

/// FIST, FISTP, FISTTP.
fn store_integer(cpu: &mut Cpu, instruction: &Instruction, truncated: bool, pops: u16) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let bits = instruction.memory_size().size() as u32 * 8;
    let mut calculation = pending.calculation();
    if truncated {
        calculation = calculation.with_rounding(3);
    }
    let value = pending.operand(0).map(|operand| calculation.integer_of(&operand, bits));
    store(pending, instruction, calculation, value, 1 << (bits - 1), pops)
}

/// Ends a store of at most eight bytes. `None` as value: the register is empty.
fn store(
    pending: Pending<'_>,
    instruction: &Instruction,
    calculation: Calculation,
    value: Option<u64>,
    indefinite: u64,
    pops: u16,
) -> Outcome<Flow> {
    let bytes = instruction.memory_size().size() as u8;
    let held = calculation.unmasked() & (INVALID | OVERFLOW | UNDERFLOW) != 0 || value.is_none() && pending.is_unmasked(INVALID);
    let linear = pending.cpu.memory_linear(instruction, u64::from(bytes), Access::Write)?;
    if held {
        pending.cpu.check_range(linear, u64::from(bytes), Access::Write)?;
    } else {
        pending.cpu.store(linear, bytes, value.unwrap_or(indefinite))?;
    }
    match value {
        None => pending.stack_fault(false, |pending| pending.pop(pops)),
        Some(_) if held => pending.finish(calculation.without_result(), |_| ()),
        Some(_) => pending.finish(calculation, |pending| pending.pop(pops)),
    }
}

/// FSTP m80, and FBSTP.
fn store_ten(cpu: &mut Cpu, instruction: &Instruction, decimal: bool) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let mut calculation = pending.calculation();
    let value = pending.operand(0).map(|operand| if decimal { calculation.decimal_of(&operand) } else { operand.bits });
    let held = calculation.stopped() || value.is_none() && pending.is_unmasked(INVALID);
    if held {
        let linear = pending.cpu.memory_linear(instruction, 10, Access::Write)?;
        pending.cpu.check_range(linear, 10, Access::Write)?;
    } else {
        let otherwise = if decimal { DECIMAL_INDEFINITE } else { INDEFINITE };
        pending.cpu.store_ten(instruction, value.unwrap_or(otherwise))?;
    }
    match value {
        None => pending.stack_fault(false, |pending| pending.pop(1)),
        Some(_) => pending.finish(calculation, |pending| pending.pop(1)),
    }
}

/// FADD and its kin in all forms: memory to ST(0), or a register to another; `REVERSED` as FSUBR and FDIVR.
fn arithmetic(cpu: &mut Cpu, instruction: &Instruction, operation: Operation, reversed: bool, pops: u16) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let (destination, source) = if is_register(instruction, 0) {
        let destination = stack_operand(instruction, 0);
        let source = if is_register(instruction, 1) { stack_operand(instruction, 1) } else { 0 };
        (destination, pending.operand(source))
    } else {
        (0, Some(pending.cpu.x87_memory(instruction)?))
    };
    let (Some(a), Some(b)) = (pending.operand(destination), source) else { return pending.underflow(destination, pops) };
    let mut calculation = pending.calculation();
    let result = if reversed { calculation.arithmetic(operation, &b, &a) } else { calculation.arithmetic(operation, &a, &b) };
    pending.finish(calculation, |pending| {
        pending.set(destination, result);
        pending.pop(pops);
    })
}

/// C3, C2 and C0 for an order. SDM vol 1, Table 8-6 "Setting of x87 FPU Condition Code Flags for Floating-Point Number Comparisons".
fn order_conditions(order: Option<Ordering>) -> u16 {
    match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        None => C3 | C2 | C0,
    }
}

/// FCOM, FUCOM, FICOM and their kin, and FTST: with ST(0) first. `SIGNAL`: any NaN is invalid.
fn compare(cpu: &mut Cpu, instruction: &Instruction, signal: bool, pops: u16) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let other = match instruction.mnemonic() {
        M::Ftst => Some(Operand::new(0)),
        M::Fcompp | M::Fucompp => pending.operand(1),
        _ if is_register(instruction, 1) => pending.operand(stack_operand(instruction, 1)),
        _ if is_register(instruction, 0) => pending.operand(stack_operand(instruction, 0)),
        _ => Some(pending.cpu.x87_memory(instruction)?),
    };
    let (Some(a), Some(b)) = (pending.operand(0), other) else {
        pending.conditions(C3 | C2 | C0, order_conditions(None));
        return pending.stack_fault(false, |pending| pending.pop(pops));
    };
    let mut calculation = pending.calculation();
    let order = calculation.compare(&a, &b, signal);
    pending.conditions(C3 | C2 | C0, order_conditions(order));
    pending.finish(calculation, |pending| pending.pop(pops))
}

/// FCOMI, FUCOMI and their kin: the order to ZF, PF, CF.
fn compare_to_flags(cpu: &mut Cpu, instruction: &Instruction, signal: bool, pops: u16) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let set = |pending: &mut Pending<'_>, order: Option<Ordering>| {
        let status = match order {
            None => Rflags::new().with_zf(true).with_pf(true).with_cf(true),
            Some(Ordering::Greater) => Rflags::new(),
            Some(Ordering::Less) => Rflags::new().with_cf(true),
            Some(Ordering::Equal) => Rflags::new().with_zf(true),
        };
        pending.cpu.set_all_status(status.into_bits());
        pending.pop(pops);
    };
    let (Some(a), Some(b)) = (pending.operand(0), pending.operand(stack_operand(instruction, 1))) else {
        return pending.stack_fault(false, |pending| set(pending, None));
    };
    let mut calculation = pending.calculation();
    let order = calculation.compare(&a, &b, signal);
    pending.finish(calculation, |pending| set(pending, order))
}

/// FXAM: the class of ST(0) in C3, C2 and C0, its sign in C1. SDM vol 2, FXAM, Table 3-42 "FXAM Results".
fn examine(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let pending = begin(cpu, instruction)?;
    let value = Operand::new(pending.contents(0));
    let class = match value.class {
        _ if pending.stack(0).is_none() => C3 | C0,
        Class::Unsupported => 0,
        Class::Nan { .. } => C0,
        Class::Finite { .. } if value.denormal => C3 | C2,
        Class::Finite { .. } => C2,
        Class::Infinity => C2 | C0,
        Class::Zero => C3,
    };
    let calculation = pending.calculation();
    pending.finish(calculation, |pending| {
        pending.conditions(C3 | C2 | C1 | C0, class | if value.sign { C1 } else { 0 });
    })
}

/// FCHS and FABS.
fn change_sign(cpu: &mut Cpu, instruction: &Instruction, change: fn(u128) -> u128) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    match pending.stack(0) {
        Some(value) => {
            pending.set(0, change(value));
            pending.end()
        }
        None => pending.underflow(0, 0),
    }
}

/// FXCH.
fn exchange(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let other = stack_operand(instruction, if is_register(instruction, 1) { 1 } else { 0 });
    match (pending.stack(0), pending.stack(other)) {
        (Some(a), Some(b)) => {
            pending.set(0, b);
            pending.set(other, a);
            pending.end()
        }
        (a, b) => pending.stack_fault(false, |pending| {
            pending.set(0, b.unwrap_or(INDEFINITE));
            pending.set(other, a.unwrap_or(INDEFINITE));
        }),
    }
}

/// FCMOVcc.
fn conditional_move(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    let flags = pending.cpu.rflags();
    let holds = match instruction.mnemonic() {
        M::Fcmovb => flags.cf(),
        M::Fcmove => flags.zf(),
        M::Fcmovbe => flags.cf() || flags.zf(),
        M::Fcmovu => flags.pf(),
        M::Fcmovnb => !flags.cf(),
        M::Fcmovne => !flags.zf(),
        M::Fcmovnbe => !(flags.cf() || flags.zf()),
        _ => !flags.pf(),
    };
    match (pending.stack(0), pending.stack(stack_operand(instruction, 1))) {
        (Some(_), Some(value)) => {
            if holds {
                pending.set(0, value);
            }
            pending.end()
        }
        _ => pending.underflow(0, 0),
    }
}

/// FFREE, and FFREEP, which also pops.
fn free(cpu: &mut Cpu, instruction: &Instruction, pops: u16) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    pending.empty(stack_operand(instruction, 0));
    pending.pop(pops);
    pending.end()
}

/// FINCSTP and FDECSTP.
fn turn(cpu: &mut Cpu, instruction: &Instruction, by: u16) -> Outcome<Flow> {
    let mut pending = begin(cpu, instruction)?;
    pending.turn(by);
    pending.end()
}

/// The function of an instruction of this module.
pub(super) fn find(instruction: &Instruction) -> Option<Function> {
    use Operation::{Add, Divide, Multiply, Subtract};
    let size = instruction.memory_size();
    let register = is_register(instruction, 0);
    Some(match instruction.mnemonic() {
        M::Fld if size == MemorySize::Float80 => |cpu, instruction| load_exact(cpu, instruction, |value| value),
        M::Fld | M::Fild => load,
        M::Fbld => |cpu, instruction| load_exact(cpu, instruction, from_decimal),
        M::Fld1 => |cpu, instruction| constant(cpu, instruction, 0, ONE_BITS),
        M::Fldl2t => |cpu, instruction| constant(cpu, instruction, 1, LOG2_10),
        M::Fldl2e => |cpu, instruction| constant(cpu, instruction, 0, LOG2_E),
        M::Fldpi => |cpu, instruction| constant(cpu, instruction, 1, PI),
        M::Fldlg2 => |cpu, instruction| constant(cpu, instruction, -2, LOG10_2),
        M::Fldln2 => |cpu, instruction| constant(cpu, instruction, -1, LN_2),
        M::Fldz => zero,
        M::Fst if register => |cpu, instruction| store_register(cpu, instruction, 0),
        M::Fstp | M::Fstpnce if register => |cpu, instruction| store_register(cpu, instruction, 1),
        M::Fst if size == MemorySize::Float32 => |cpu, instruction| store_number(cpu, instruction, Format::SINGLE, 0),
        M::Fst => |cpu, instruction| store_number(cpu, instruction, Format::DOUBLE, 0),
        M::Fstp if size == MemorySize::Float32 => |cpu, instruction| store_number(cpu, instruction, Format::SINGLE, 1),
        M::Fstp if size == MemorySize::Float64 => |cpu, instruction| store_number(cpu, instruction, Format::DOUBLE, 1),
        M::Fstp => |cpu, instruction| store_ten(cpu, instruction, false),
        M::Fbstp => |cpu, instruction| store_ten(cpu, instruction, true),
        M::Fist => |cpu, instruction| store_integer(cpu, instruction, false, 0),
        M::Fistp => |cpu, instruction| store_integer(cpu, instruction, false, 1),
        M::Fisttp => |cpu, instruction| store_integer(cpu, instruction, true, 1),
        M::Fadd | M::Fiadd => |cpu, instruction| arithmetic(cpu, instruction, Add, false, 0),
        M::Faddp => |cpu, instruction| arithmetic(cpu, instruction, Add, false, 1),
        M::Fmul | M::Fimul => |cpu, instruction| arithmetic(cpu, instruction, Multiply, false, 0),
        M::Fmulp => |cpu, instruction| arithmetic(cpu, instruction, Multiply, false, 1),
        M::Fsub | M::Fisub => |cpu, instruction| arithmetic(cpu, instruction, Subtract, false, 0),
        M::Fsubp => |cpu, instruction| arithmetic(cpu, instruction, Subtract, false, 1),
        M::Fsubr | M::Fisubr => |cpu, instruction| arithmetic(cpu, instruction, Subtract, true, 0),
        M::Fsubrp => |cpu, instruction| arithmetic(cpu, instruction, Subtract, true, 1),
        M::Fdiv | M::Fidiv => |cpu, instruction| arithmetic(cpu, instruction, Divide, false, 0),
        M::Fdivp => |cpu, instruction| arithmetic(cpu, instruction, Divide, false, 1),
        M::Fdivr | M::Fidivr => |cpu, instruction| arithmetic(cpu, instruction, Divide, true, 0),
        M::Fdivrp => |cpu, instruction| arithmetic(cpu, instruction, Divide, true, 1),
        M::Fcom | M::Ficom | M::Ftst => |cpu, instruction| compare(cpu, instruction, true, 0),
        M::Fcomp | M::Ficomp => |cpu, instruction| compare(cpu, instruction, true, 1),
        M::Fcompp => |cpu, instruction| compare(cpu, instruction, true, 2),
        M::Fucom => |cpu, instruction| compare(cpu, instruction, false, 0),
        M::Fucomp => |cpu, instruction| compare(cpu, instruction, false, 1),
        M::Fucompp => |cpu, instruction| compare(cpu, instruction, false, 2),
        M::Fcomi => |cpu, instruction| compare_to_flags(cpu, instruction, true, 0),
        M::Fcomip => |cpu, instruction| compare_to_flags(cpu, instruction, true, 1),
        M::Fucomi => |cpu, instruction| compare_to_flags(cpu, instruction, false, 0),
        M::Fucomip => |cpu, instruction| compare_to_flags(cpu, instruction, false, 1),
        M::Fxam => examine,
        M::Fchs => |cpu, instruction| change_sign(cpu, instruction, |value| value ^ SIGN),
        M::Fabs => |cpu, instruction| change_sign(cpu, instruction, |value| value & !SIGN),
        M::Fxch => exchange,
        M::Fcmovb | M::Fcmove | M::Fcmovbe | M::Fcmovu | M::Fcmovnb | M::Fcmovne | M::Fcmovnbe | M::Fcmovnu => conditional_move,
        M::Ffree => |cpu, instruction| free(cpu, instruction, 0),
        M::Ffreep => |cpu, instruction| free(cpu, instruction, 1),
        M::Fincstp => |cpu, instruction| turn(cpu, instruction, 1),
        M::Fdecstp => |cpu, instruction| turn(cpu, instruction, 7),
        _ => return None,
    })
}
