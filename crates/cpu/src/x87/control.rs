//! Control words, status words and environments, and what every x87 instruction does before it computes.
//!
//! What is modelled: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FNOP, FWAIT, FNSTENV, FLDENV, FNSAVE, FRSTOR, with their waiting forms; #NM by
//! CR0.EM, CR0.TS and CR0.MP (SDM vol 3, Table 9-3 "Recommended Settings of EM and MP Flags on IA-32 Processors"); #MF for an exception that is
//! pending and not masked; the four layouts of the environment (SDM vol 1, 8.1.10 "Saving the x87 FPU's State with FSTENV/FNSTENV and
//! FSAVE/FNSAVE"). With CR0.NE clear errors go by the FERR# pin instead of #MF, which is asserted with the error, as since the P6 (SDM vol 1,
//! D.2.2 "MS-DOS Compatibility Sub-mode in the P6 Family and Pentium 4 Processors"; APM vol 2, 3.1.1 "CR0 Register", NE): the next instruction
//! that waits freezes the processor until an interrupt comes, unless the IGNNE# pin lets it go on. What is not: the pin at a world switch of
//! SVM that changes CR0.NE; it follows at the next change of the error or of CR0.

use super::number::{Class, Operand};
use crate::state::{Cpu, FpuState};
use crate::system::{Flow, Function};
use crate::trap::{Access, Exception, Exit, Intercept, Outcome, Trap};
use iced_x86::{Instruction, MemorySize, Mnemonic as M};
use isa::exception::Vector;

/// Exceptions in the status word, and their masks in the control word.
pub(super) const EXCEPTIONS: u16 = 0x3f;
/// Error summary and busy in the status word, which mirror each other.
pub(super) const SUMMARY: u16 = 0x8080;
/// Bits of the control word that exist and can be changed; bit 6 is always set.
const CONTROL: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

/// #NM for an ESC instruction. SDM vol 3, 2.5 "Control Registers", EM and TS.
pub(super) fn available(cpu: &Cpu) -> Outcome {
    if cpu.cr0.em() || cpu.cr0.ts() { Err(Trap::NM) } else { Ok(()) }
}

/// #MF if an unmasked exception is pending, or a frozen processor: what waiting instructions begin with. SDM vol 1, 8.7 "Handling x87 FPU
/// Exceptions in Software".
pub(crate) fn wait_for_exceptions(cpu: &Cpu) -> Outcome {
    if cpu.fpu.status & 0x80 == 0 {
        return Ok(());
    }
    if cpu.cr0.ne() {
        Err(Trap::Exception(Exception::plain(Vector::MathFault)))
    } else if cpu.ignores_numeric_errors() {
        Ok(())
    } else {
        Err(FREEZE)
    }
}

/// HWCR: the signal of the MSR IGNNE and not the pin counts (AMD).
const IGNNE_EMULATION: u64 = 1 << 8;

/// The processor stops in front of an instruction that waits: for the silicon, if it wants to know, else until an interrupt comes.
const FREEZE: Trap = Trap::Exit(Exit::Instruction { intercept: Intercept::FerrFreeze, length: 0 });

impl Cpu {
    /// The IGNNE# pin, or what stands in for it: the MSR IGNNE, with the bit of HWCR that emulates the port (APM vol 2, 15.30.2).
    const fn ignores_numeric_errors(&self) -> bool {
        if self.msrs.amd[1] & IGNNE_EMULATION != 0 { self.msrs.ignne & 1 != 0 } else { self.ignore_numeric_error }
    }

    /// Drives the FERR# pin after something that may have changed the error or CR0.NE.
    pub(crate) fn drive_numeric_error(&mut self) {
        let asserted = self.fpu.status & 0x80 != 0 && !self.cr0.ne();
        if asserted != self.numeric_error {
            self.numeric_error = asserted;
            self.leave = true;
            // Outside of a run nobody is wired to it.
            if !self.environment.is_null() {
                let number = self.number;
                self.environment().bus.numeric_error(number, asserted);
            }
        }
    }
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

/// An ESC instruction that may end or begin an error.
fn changing<const WAITING: bool>(cpu: &mut Cpu, f: impl FnOnce(&mut Cpu) -> Outcome) -> Outcome<Flow> {
    let flow = escape::<WAITING>(cpu, f)?;
    cpu.drive_numeric_error();
    Ok(flow)
}

fn initialize<const WAITING: bool>(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    changing::<WAITING>(cpu, |cpu| {
        // The registers keep their contents.
        cpu.fpu = FpuState { registers: cpu.fpu.registers, ..FpuState::initial() };
        Ok(())
    })
}

fn clear_exceptions<const WAITING: bool>(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    changing::<WAITING>(cpu, |cpu| {
        cpu.fpu.status &= 0x7f00;
        Ok(())
    })
}

fn load_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    changing::<true>(cpu, |cpu| {
        cpu.fpu.control = cpu.read_operand(instruction, 0)? as u16;
        adopt(&mut cpu.fpu);
        Ok(())
    })
}

/// Words from memory as the processor keeps them: without control bits that do not exist, error summary and busy as they follow from exceptions
/// and masks.
pub(crate) fn adopt(fpu: &mut FpuState) {
    fpu.control = fpu.control & CONTROL | CONTROL_FIXED;
    summarize(fpu);
}

/// Error summary and busy follow from exceptions and masks.
fn summarize(fpu: &mut FpuState) {
    let pending = fpu.status & !fpu.control & EXCEPTIONS != 0;
    fpu.status = fpu.status & !SUMMARY | if pending { SUMMARY } else { 0 };
}

fn store_control<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| cpu.write_operand(instruction, 0, u64::from(cpu.fpu.control)))
}

fn store_status<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |cpu| cpu.write_operand(instruction, 0, u64::from(cpu.fpu.status)))
}

/// FNOP, which only leaves its address behind.
fn nothing(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    escape::<true>(cpu, |cpu| {
        cpu.record_x87(instruction, false);
        Ok(())
    })
}

/// FNENI, FNDISI, FNSETPM, which the 387 and later do not heed.
fn unheeded<const WAITING: bool>(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    escape::<WAITING>(cpu, |_| Ok(()))
}

/// The layout of an environment in memory.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of the environment: 14 or 28.
    bytes: u64,
    /// Pointers are linear addresses made of segment and offset.
    real: bool,
}

impl Layout {
    fn of(cpu: &Cpu, instruction: &Instruction) -> Self {
        let small = matches!(instruction.memory_size(), MemorySize::FpuEnv14 | MemorySize::FpuState94);
        Self { bytes: if small { 14 } else { 28 }, real: !cpu.is_protected() }
    }

    /// Bytes of each of the seven fields.
    fn field(self) -> u8 {
        (self.bytes / 7) as u8
    }
}

/// The tag word with two bits for each register. SDM vol 1, 8.1.7 "x87 FPU Tag Word".
fn full_tags(fpu: &FpuState) -> u16 {
    (0..8).fold(0, |word, number| {
        let tag = match Operand::new(fpu.registers[number]) {
            _ if fpu.tag >> number & 1 == 0 => 3,
            Operand { class: Class::Zero, .. } => 1,
            Operand { class: Class::Finite { .. }, denormal: false, .. } => 0,
            _ => 2,
        };
        word | tag << (2 * number)
    })
}

/// The seven fields of an environment, upwards.
fn environment(fpu: &FpuState, layout: Layout) -> [u32; 7] {
    let (instruction, data) = (fpu.instruction as u32, fpu.data as u32);
    let (code, segment) = (u32::from(fpu.instruction_segment), u32::from(fpu.data_segment));
    let opcode = u32::from(fpu.opcode);
    // What 32 bits leave of a word is all ones.
    let word = |value: u16| if layout.bytes == 28 { 0xffff_0000 | u32::from(value) } else { u32::from(value) };
    let [control, status, tags] = [fpu.control, fpu.status, full_tags(fpu)].map(word);
    let pointers = match (layout.bytes, layout.real) {
        (28, false) => [instruction, opcode << 16 | code, data, 0xffff_0000 | segment],
        (_, false) => [instruction & 0xffff, code, data & 0xffff, segment],
        (bytes, true) => {
            let (instruction, data) = ((code << 4).wrapping_add(instruction), (segment << 4).wrapping_add(data));
            if bytes == 28 {
                [
                    0xffff_0000 | instruction & 0xffff,
                    instruction >> 16 << 12 & 0x0fff_f000 | opcode,
                    0xffff_0000 | data & 0xffff,
                    data >> 16 << 12 & 0x0fff_f000,
                ]
            } else {
                [instruction & 0xffff, instruction >> 4 & 0xf000 | opcode, data & 0xffff, data >> 4 & 0xf000]
            }
        }
    };
    let [a, b, c, d] = pointers;
    [control, status, tags, a, b, c, d]
}

/// What an environment in memory says; the registers are those of `old`.
fn from_environment(fields: [u32; 7], layout: Layout, old: &FpuState) -> FpuState {
    let [control, status, tags, a, b, c, d] = fields;
    let tag = (0..8).filter(|number| tags >> (2 * number) & 3 != 3).fold(0, |all, number| all | 1 << number);
    let (instruction, instruction_segment, opcode, data, data_segment) = match (layout.bytes, layout.real) {
        (28, false) => (a, b as u16, b >> 16, c, d as u16),
        (_, false) => (a, b as u16, 0, c, d as u16),
        (28, true) => (a & 0xffff | (b & 0x0fff_f000) << 4, 0, b, c & 0xffff | (d & 0x0fff_f000) << 4, 0),
        (_, true) => (a | (b & 0xf000) << 4, 0, b, c | (d & 0xf000) << 4, 0),
    };
    let mut fpu = FpuState {
        control: control as u16,
        status: status as u16,
        tag,
        opcode: opcode as u16 & 0x7ff,
        instruction: instruction.into(),
        data: data.into(),
        instruction_segment,
        data_segment,
        registers: old.registers,
    };
    adopt(&mut fpu);
    fpu
}

/// The address of an environment or state, all of whose bytes can be accessed.
fn environment_address(cpu: &mut Cpu, instruction: &Instruction, bytes: u64, access: Access) -> Outcome<u64> {
    let linear = cpu.memory_linear(instruction, bytes, access)?;
    cpu.check_range(linear, bytes, access)?;
    Ok(linear)
}

fn write_environment(cpu: &mut Cpu, linear: u64, layout: Layout) -> Outcome {
    let fields = environment(&cpu.fpu, layout);
    for (value, at) in fields.into_iter().zip((0..).step_by(layout.field().into())) {
        cpu.store(cpu.further(linear, at), layout.field(), value.into())?;
    }
    Ok(())
}

fn read_environment(cpu: &mut Cpu, linear: u64, layout: Layout) -> Outcome<FpuState> {
    let mut fields = [0; 7];
    for (field, at) in fields.iter_mut().zip((0..).step_by(layout.field().into())) {
        *field = cpu.load(cpu.further(linear, at), layout.field())? as u32;
    }
    Ok(from_environment(fields, layout, &cpu.fpu))
}

/// FNSTENV: afterwards all exceptions are masked.
fn store_environment<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    changing::<WAITING>(cpu, |cpu| {
        let layout = Layout::of(cpu, instruction);
        let linear = environment_address(cpu, instruction, layout.bytes, Access::Write)?;
        write_environment(cpu, linear, layout)?;
        cpu.fpu.control |= EXCEPTIONS;
        summarize(&mut cpu.fpu);
        Ok(())
    })
}

fn load_environment(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    changing::<true>(cpu, |cpu| {
        let layout = Layout::of(cpu, instruction);
        let linear = environment_address(cpu, instruction, layout.bytes, Access::Read)?;
        cpu.fpu = read_environment(cpu, linear, layout)?;
        Ok(())
    })
}

/// FNSAVE: the environment and ST(0) to ST(7); afterwards the state is that of FNINIT.
fn save<const WAITING: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    changing::<WAITING>(cpu, |cpu| {
        let layout = Layout::of(cpu, instruction);
        let linear = environment_address(cpu, instruction, layout.bytes + 80, Access::Write)?;
        write_environment(cpu, linear, layout)?;
        for stack in 0..8 {
            let value = cpu.fpu.registers[(cpu.fpu.top() + stack) & 7];
            let at = cpu.further(linear, layout.bytes + 10 * stack as u64);
            cpu.store(at, 8, value as u64)?;
            cpu.store(cpu.further(at, 8), 2, (value >> 64) as u64)?;
        }
        cpu.fpu = FpuState { registers: cpu.fpu.registers, ..FpuState::initial() };
        Ok(())
    })
}

fn restore(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    changing::<true>(cpu, |cpu| {
        let layout = Layout::of(cpu, instruction);
        let linear = environment_address(cpu, instruction, layout.bytes + 80, Access::Read)?;
        let mut fpu = read_environment(cpu, linear, layout)?;
        for stack in 0..8 {
            let at = cpu.further(linear, layout.bytes + 10 * stack as u64);
            let low = cpu.load(at, 8)?;
            let high = cpu.load(cpu.further(at, 8), 2)?;
            fpu.registers[(fpu.top() + stack) & 7] = u128::from(high) << 64 | u128::from(low);
        }
        cpu.fpu = fpu;
        Ok(())
    })
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
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
        M::Fnstenv => store_environment::<false>,
        M::Fstenv => store_environment::<true>,
        M::Fldenv => load_environment,
        M::Fnsave => save::<false>,
        M::Fsave => save::<true>,
        M::Frstor => restore,
        M::Fnop => nothing,
        M::Fneni | M::Fndisi | M::Fnsetpm => unheeded::<false>,
        M::Feni | M::Fdisi | M::Fsetpm => unheeded::<true>,
        _ => return None,
    })
}
