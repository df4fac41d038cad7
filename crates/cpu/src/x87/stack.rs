//! The register stack: tags, faults of the stack, and how an instruction ends.
//!
//! What is modelled: SDM vol 1, 8.1.2 "x87 FPU Data Registers", 8.5.1.1 "Stack Overflow or Underflow Exception (#IS)"; exceptions unmasked, which
//! wait for the next instruction (SDM vol 1, 8.6 "x87 FPU Exception Synchronization"); the pointers and the opcode of the last instruction
//! (SDM vol 1, 8.1.8 "x87 FPU Instruction and Data (Operand) Pointers", 8.1.9 "Last Instruction Opcode").

use super::control::{EXCEPTIONS, SUMMARY, available, wait_for_exceptions};
use super::number::{Calculation, INDEFINITE, INVALID, Operand};
use crate::operand::segment_of;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::Outcome;
use iced_x86::{Instruction, OpKind, Register};
use isa::cpuid::Feature;
use isa::register::Segment;

/// A fault of the stack: bit of the status word.
const STACK_FAULT: u16 = 1 << 6;
/// Condition code C0.
pub(super) const C0: u16 = 1 << 8;
/// Condition code C1.
pub(super) const C1: u16 = 1 << 9;
/// Condition code C2.
pub(super) const C2: u16 = 1 << 10;
/// Condition code C3.
pub(super) const C3: u16 = 1 << 14;
/// TOP in the status word.
const TOP: u16 = 7 << 11;

/// The number of a stack register.
pub(super) fn number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::ST0 as usize) & 7
}

/// What an instruction's results are to do once its exceptions allow.
pub(super) struct Pending<'a> {
    pub cpu: &'a mut Cpu,
    instruction: &'a Instruction,
}

/// Starts an instruction that reports pending exceptions first. What can fault has to be done before [`Pending::end`], and nothing before.
pub(super) fn begin<'a>(cpu: &'a mut Cpu, instruction: &'a Instruction) -> Outcome<Pending<'a>> {
    available(cpu)?;
    wait_for_exceptions(cpu)?;
    Ok(Pending { cpu, instruction })
}

impl Pending<'_> {
    fn index(&self, stack: usize) -> usize {
        (self.cpu.fpu.top() + stack) & 7
    }

    /// ST(i), if it is not empty.
    pub(super) fn stack(&self, stack: usize) -> Option<u128> {
        let index = self.index(stack);
        (self.cpu.fpu.tag >> index & 1 != 0).then(|| self.cpu.fpu.registers[index])
    }

    /// ST(i) taken apart, if it is not empty.
    pub(super) fn operand(&self, stack: usize) -> Option<Operand> {
        self.stack(stack).map(Operand::new)
    }

    /// What is in ST(i), empty or not.
    pub(super) fn contents(&self, stack: usize) -> u128 {
        self.cpu.fpu.registers[self.index(stack)]
    }

    /// Sets ST(i), which is not empty then.
    pub(super) fn set(&mut self, stack: usize, value: u128) {
        let index = self.index(stack);
        self.cpu.fpu.registers[index] = value;
        self.cpu.fpu.tag |= 1 << index;
    }

    /// Empties ST(i).
    pub(super) fn empty(&mut self, stack: usize) {
        self.cpu.fpu.tag &= !(1 << self.index(stack));
    }

    /// Moves TOP.
    pub(super) fn turn(&mut self, by: u16) {
        let status = self.cpu.fpu.status;
        self.cpu.fpu.status = status & !TOP | (status & TOP).wrapping_add(by << 11) & TOP;
    }

    /// Takes values off the stack.
    pub(super) fn pop(&mut self, count: u16) {
        for _ in 0..count {
            self.empty(0);
            self.turn(1);
        }
    }

    /// Puts a value on the stack, whatever was there.
    pub(super) fn push(&mut self, value: u128) {
        self.turn(7);
        self.set(0, value);
    }

    /// Whether an exception would not be masked.
    pub(super) fn is_unmasked(&self, exception: u16) -> bool {
        self.cpu.fpu.control & exception == 0
    }

    /// Replaces condition codes.
    pub(super) fn conditions(&mut self, which: u16, bits: u16) {
        self.cpu.fpu.status = self.cpu.fpu.status & !which | bits & which;
    }

    /// Enters exceptions into the status word, with the pointers if one of them is not masked; C1 tells which way a result was rounded or a
    /// stack fault went. Whether the masked response is to be carried out: all exceptions but PE, OE and UE in a register prevent it.
    fn raise(&mut self, exceptions: u16, c1: bool) {
        self.conditions(C1, if c1 { C1 } else { 0 });
        let fpu = &mut self.cpu.fpu;
        fpu.status |= exceptions;
        let unmasked = fpu.status & !fpu.control & EXCEPTIONS != 0;
        if unmasked {
            fpu.status |= SUMMARY;
            self.cpu.drive_numeric_error();
        }
        self.record(unmasked);
    }

    /// Notes the instruction for FSTENV and its kin.
    fn record(&mut self, unmasked: bool) {
        self.cpu.record_x87(self.instruction, unmasked);
    }

    /// Ends an instruction that raises nothing: C1 is cleared.
    pub(super) fn end(mut self) -> Outcome<Flow> {
        self.raise(0, false);
        Ok(Flow::Next)
    }

    /// Ends an instruction by what it calculated. `store` is carried out unless an exception of the operands is not masked.
    pub(super) fn finish(mut self, calculation: Calculation, store: impl FnOnce(&mut Self)) -> Outcome<Flow> {
        self.raise(calculation.raised(), calculation.rounded_up());
        if !calculation.stopped() {
            store(&mut self);
        }
        Ok(Flow::Next)
    }

    /// Ends an instruction that found an empty register (or, with `overflow`, one that is not). `store` is carried out if that is masked.
    pub(super) fn stack_fault(mut self, overflow: bool, store: impl FnOnce(&mut Self)) -> Outcome<Flow> {
        self.raise(INVALID | STACK_FAULT, overflow);
        if self.cpu.fpu.control & INVALID != 0 {
            store(&mut self);
        }
        Ok(Flow::Next)
    }

    /// As [`Pending::stack_fault`] for an empty register: the indefinite goes to ST(i).
    pub(super) fn underflow(self, stack: usize, pops: u16) -> Outcome<Flow> {
        self.stack_fault(false, |pending| {
            pending.set(stack, INDEFINITE);
            pending.pop(pops);
        })
    }

    /// Ends an instruction that pushes a value.
    pub(super) fn finish_push(self, calculation: Calculation, value: u128) -> Outcome<Flow> {
        if self.stack(7).is_some() {
            return self.stack_fault(true, |pending| pending.push(INDEFINITE));
        }
        self.finish(calculation, |pending| pending.push(value))
    }

    /// The control word's view of the calculation that begins.
    pub(super) fn calculation(&self) -> Calculation {
        Calculation::new(self.cpu.fpu.control)
    }
}

impl Cpu {
    /// Notes instruction, operand and opcode of an x87 instruction. The opcode is that of the last instruction with an exception that is not
    /// masked (SDM vol 1, 8.1.9.1 "Fopcode Compatibility Sub-mode"), and so is the operand where CPUID says so.
    pub(super) fn record_x87(&mut self, instruction: &Instruction, unmasked: bool) {
        let deprecated = self.has(Feature::FcsFdsDeprecated);
        self.fpu.instruction = self.rip;
        if !deprecated {
            self.fpu.instruction_segment = self.segment(Segment::Cs).selector.into_bits();
        }
        if unmasked {
            let bytes = self.instruction_bytes(instruction);
            let escape = bytes.iter().position(|byte| byte & 0xf8 == 0xd8);
            if let Some([first, second]) = escape.and_then(|at| bytes.get(at..at + 2)) {
                self.fpu.opcode = u16::from(first & 7) << 8 | u16::from(*second);
            }
        }
        if !unmasked && self.has(Feature::FdpExceptionsOnly) {
            return;
        }
        if (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory) {
            self.fpu.data = self.effective_offset(instruction);
            if !deprecated {
                let segment = segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds);
                self.fpu.data_segment = self.segment(segment).selector.into_bits();
            }
        }
    }
}
