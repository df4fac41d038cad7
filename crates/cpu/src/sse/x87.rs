//! The x87 instructions that only move state, and what every x87 instruction does before it computes.
//!
//! What is modelled: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FNOP, FWAIT, with their waiting forms; #NM by CR0.EM, CR0.TS and CR0.MP (SDM vol 3,
//! Table 9-3 "Recommended Settings of EM and MP Flags on IA-32 Processors"); #MF for an exception that FLDCW or FXRSTOR left pending and
//! unmasked. What is not: arithmetic, loads and stores of ST registers, environments (FNSTENV, FNSAVE), and errors by the FERR# pin.

use crate::state::{Cpu, FpuState};
use crate::system::{Flow, Function};
use crate::trap::{Exception, Outcome, Trap};
use iced_x86::{CpuidFeature, Instruction, Mnemonic as M};
use isa::exception::Vector;

/// Exceptions in the status word, and their masks in the control word.
const EXCEPTIONS: u16 = 0x3f;
/// Error summary and busy in the status word, which mirror each other.
const SUMMARY: u16 = 0x8080;
/// Bits of the control word that exist and can be changed; bit 6 is always set.
const CONTROL: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

/// #NM for an ESC instruction. SDM vol 3, 2.5 "Control Registers", EM and TS.
fn available(cpu: &Cpu) -> Outcome {
    if cpu.cr0.em() || cpu.cr0.ts() { Err(Trap::NM) } else { Ok(()) }
}

/// #MF if an unmasked exception is pending: what waiting instructions begin with. SDM vol 1, 8.7 "Handling x87 FPU Exceptions in Software".
pub(super) fn wait_for_exceptions(cpu: &Cpu) -> Outcome {
    if cpu.fpu.status & 0x80 == 0 {
        return Ok(());
    }
    Err(if cpu.cr0.ne() {
        Trap::Exception(Exception::plain(Vector::MathFault))
    } else {
        Trap::not_modelled("an x87 error reported by the FERR# pin (CR0.NE clear)")
    })
}

fn wait(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    if cpu.cr0.mp() && cpu.cr0.ts() {
        return Err(Trap::NM);
    }
    wait_for_exceptions(cpu)?;
    Ok(Flow::Next)
}

/// An ESC instruction, with `WAITING` one that first reports pending exceptions.
#[inline(always)]
fn escape<const WAITING: bool>(cpu: &mut Cpu, f: impl FnOnce(&mut Cpu) -> Outcome) -> Outcome<Flow> {
    available(cpu)?;
    if WAITING {
        wait_for_exceptions(cpu)?;
    }
    f(cpu)?;
    Ok(Flow::Next)
}

fn initialize<const WAITING: bool>(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| {
        // The registers keep their contents.
        cpu.fpu = FpuState { registers: cpu.fpu.registers, ..FpuState::initial() };
        Ok(())
    })
}

fn clear_exceptions<const WAITING: bool>(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| {
        cpu.fpu.status &= 0x7f00;
        Ok(())
    })
}

fn load_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<true>(cpu, |cpu| {
        cpu.fpu.control = cpu.read_operand(instruction, 0)? as u16 & CONTROL | CONTROL_FIXED;
        let pending = cpu.fpu.status & !cpu.fpu.control & EXCEPTIONS != 0;
        cpu.fpu.status = cpu.fpu.status & !SUMMARY | if pending { SUMMARY } else { 0 };
        Ok(())
    })
}

fn store_control<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| cpu.write_operand(instruction, 0, u64::from(cpu.fpu.control)))
}

fn store_status<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| cpu.write_operand(instruction, 0, u64::from(cpu.fpu.status)))
}

fn nothing(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    escape::<true>(cpu, |_| Ok(()))
}

/// Any other x87 instruction: not available, or not modelled.
fn arithmetic(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<false>(cpu, |_| Err(Trap::not_modelled(format!("the x87 instruction {:?}", instruction.mnemonic()))))
}

/// The function of an instruction of this module.
pub(super) fn find(instruction: &Instruction) -> Option<Function> {
    Some(match instruction.mnemonic() {
        M::Wait => wait,
        M::Fninit => initialize::<false>,
        M::Finit => initialize::<true>,
        M::Fnclex => clear_exceptions::<false>,
        M::Fclex => clear_exceptions::<true>,
        M::Fldcw => load_control,
        M::Fnstcw => store_control::<false>,
        M::Fstcw => store_control::<true>,
        M::Fnstsw => store_status::<false>,
        M::Fstsw => store_status::<true>,
        M::Fnop => nothing,
        _ => {
            let x87 = |feature: &CpuidFeature| matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387);
            return instruction.cpuid_features().iter().any(x87).then_some(arithmetic);
        }
    })
}
