//! DIV and IDIV. #DE for a zero divisor and for a quotient that does not fit; the flags, all undefined, stay.

use super::width_of;
use crate::operand::{mask, sign_extend};
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Outcome, Trap};
use iced_x86::{Instruction, Register};
use isa::register::Gpr;

/// The dividend: AX, or the pair of DX and AX of the operand's width.
fn dividend(cpu: &Cpu, width: u32) -> u128 {
    let low = cpu.gpr(Gpr::Rax);
    if width == 8 {
        return u128::from(low & 0xffff);
    }
    u128::from(cpu.gpr(Gpr::Rdx) & mask(width)) << width | u128::from(low & mask(width))
}

/// Sets quotient and remainder.
fn finish(cpu: &mut Cpu, width: u32, quotient: u64, remainder: u64) {
    let (low, high) = match width {
        8 => (Register::AL, Register::AH),
        16 => (Register::AX, Register::DX),
        32 => (Register::EAX, Register::EDX),
        _ => (Register::RAX, Register::RDX),
    };
    cpu.write_register(low, quotient);
    cpu.write_register(high, remainder);
}

pub(super) fn div(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let divisor = u128::from(cpu.read_operand(instruction, 0)?);
    let dividend = dividend(cpu, width);
    let quotient = dividend.checked_div(divisor).filter(|quotient| *quotient <= u128::from(mask(width))).ok_or(Trap::DE)?;
    finish(cpu, width, quotient as u64, (dividend % divisor) as u64);
    Ok(Flow::Next)
}

pub(super) fn idiv(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let width = width_of(instruction, 0);
    let divisor = i128::from(sign_extend(width, cpu.read_operand(instruction, 0)?) as i64);
    let unused = 128 - 2 * width;
    let dividend = (dividend(cpu, width) << unused) as i128 >> unused;
    // The only quotient that overflows even 128 bits is that of the least number and -1, which does not fit any width.
    let quotient = dividend.checked_div(divisor).ok_or(Trap::DE)?;
    let fits = i64::try_from(quotient).is_ok_and(|quotient| sign_extend(width, quotient as u64) == quotient as u64);
    if !fits {
        return Err(Trap::DE);
    }
    finish(cpu, width, quotient as u64, (dividend % divisor) as u64);
    Ok(Flow::Next)
}
