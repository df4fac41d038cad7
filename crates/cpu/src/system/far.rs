//! Far JMP, CALL and RET.
//!
//! What is modelled: real-address and virtual-8086 mode; code segments, conforming or not; call gates of 16, 32 and 64 bits with a change
//! of stack; returns to the same or an outer level (SDM vol 3, 5.8 "Privilege Level Checking When Transferring Program Control Between Code
//! Segments"); task gates and TSS descriptors.

use super::descriptor::{Purpose, Stack, privilege_of};
use super::{Entry, Flow};
use crate::delivery::task::TaskSwitch;
use crate::operand::mask;
use crate::state::Cpu;
use crate::trap::{Access, Outcome, TaskSwitchSource, Trap};
use iced_x86::{Instruction, Mnemonic as M, OpKind};
use isa::paging::is_canonical;
use isa::register::Segment;
use isa::segment::{Attributes, Gate, SegmentRegister, Selector, system};

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Jmp if instruction.is_jmp_far() || instruction.is_jmp_far_indirect() => Entry::last(jump),
        M::Call if instruction.is_call_far() || instruction.is_call_far_indirect() => Entry::last(call),
        M::Retf => Entry::last(ret),
        _ => None,
    }
}

/// A far pointer operand: selector, offset and bytes of the operand size.
fn pointer(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<(Selector, u64, u8)> {
    match instruction.op0_kind() {
        OpKind::FarBranch16 => Ok((Selector::from_bits(instruction.far_branch_selector()), u64::from(instruction.far_branch16()), 2)),
        OpKind::FarBranch32 => Ok((Selector::from_bits(instruction.far_branch_selector()), u64::from(instruction.far_branch32()), 4)),
        _ => {
            let bytes = (instruction.memory_size().size() - 2) as u8;
            let linear = cpu.memory_linear(instruction, u64::from(bytes) + 2, Access::Read)?;
            let offset = cpu.load(linear, bytes)?;
            let selector = cpu.load(linear.wrapping_add(u64::from(bytes)), 2)?;
            Ok((Selector::from_bits(selector as u16), offset, bytes))
        }
    }
}

impl Cpu {
    /// Switches tasks for an instruction. A fault of the new task is taken at the next instruction boundary, where RIP is the new task's.
    pub(super) fn switch_by_instruction(&mut self, selector: Selector, source: TaskSwitchSource, instruction: &Instruction) -> Outcome {
        let switch = TaskSwitch {
            selector,
            source,
            back: self.next_rip(instruction),
            flags: self.rflags().with_rf(false),
            length: instruction.len() as u8,
            error_code: None,
        };
        self.task_fault = self.switch_tasks(&switch)?;
        Ok(())
    }

    /// Puts a code segment and RIP in place.
    #[inline]
    pub(crate) fn set_code(&mut self, code: SegmentRegister, rip: u64, level: u8) {
        let old = std::mem::replace(&mut self.segments[Segment::Cs.number()], code);
        self.rip = rip;
        self.leave = true;
        // Neither the context nor the decoding mode depends on anything else of CS.
        if (old.base, old.attributes, self.cpl) != (code.base, code.attributes, level) {
            self.cpl = level;
            self.privilege_changed();
        }
    }

    /// CS after a transfer in real-address mode, where limit and attributes stay, or in virtual-8086 mode.
    pub(crate) fn real_code(&self, selector: Selector) -> SegmentRegister {
        if self.is_v86() {
            return SegmentRegister::virtual_8086(selector.into_bits());
        }
        SegmentRegister { selector, base: u64::from(selector.into_bits()) << 4, ..*self.segment(Segment::Cs) }
    }

    /// #GP(0) for an offset outside a code segment.
    #[inline]
    pub(crate) fn check_offset(&self, attributes: Attributes, limit: u32, offset: u64) -> Outcome {
        let inside = if self.long_mode() && attributes.l() { is_canonical(offset) } else { offset <= u64::from(limit) };
        if inside { Ok(()) } else { Err(Trap::GP0) }
    }

    /// In long mode a code segment may not be both 64-bit and 32-bit.
    fn code_is_malformed(&self, attributes: Attributes) -> bool {
        self.long_mode() && attributes.l() && attributes.db()
    }
}

/// Where a far transfer leads.
enum Destination {
    /// A code segment at the present level.
    Code(SegmentRegister),
    /// A call gate.
    Gate(Gate),
    /// Another task, which runs already.
    Task,
}

/// Looks a far pointer's selector up and checks a direct transfer.
fn destination(
    cpu: &mut Cpu,
    selector: Selector,
    offset: u64,
    source: TaskSwitchSource,
    instruction: &Instruction,
) -> Outcome<Destination> {
    if selector.is_null() {
        return Err(Trap::GP0);
    }
    let code = selector.error_code();
    let found = cpu.find_descriptor(selector, || Trap::gp(code))?;
    let attributes = found.descriptor.attributes();
    if attributes.is_code() {
        let allowed =
            if attributes.is_conforming() { attributes.dpl() <= cpu.cpl } else { selector.rpl() <= cpu.cpl && attributes.dpl() == cpu.cpl };
        if !allowed || cpu.code_is_malformed(attributes) {
            return Err(Trap::gp(code));
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        cpu.check_offset(attributes, found.descriptor.limit(), offset)?;
        return Ok(Destination::Code(cpu.access_descriptor(selector.with_rpl(cpu.cpl), found)?));
    }
    let long = cpu.long_mode();
    let kind = attributes.kind();
    let known = match kind {
        system::CALL_GATE => true,
        system::CALL_GATE16 | system::TASK_GATE | system::TSS_AVAILABLE | system::TSS16_AVAILABLE => !long,
        _ => false,
    };
    if attributes.s() || !known || attributes.dpl() < cpu.cpl.max(selector.rpl()) {
        return Err(Trap::gp(code));
    }
    if !attributes.p() {
        return Err(Trap::np(code));
    }
    if !matches!(kind, system::CALL_GATE | system::CALL_GATE16) {
        let task = if kind == system::TASK_GATE { Gate { low: found.descriptor.0, high: 0 }.selector() } else { selector };
        cpu.switch_by_instruction(task, source, instruction)?;
        return Ok(Destination::Task);
    }
    let mut gate = Gate { low: found.descriptor.0, high: 0 };
    if long {
        gate.high = cpu.upper_descriptor(selector, found, Trap::gp(code))?;
        if gate.high >> 40 & 0x1f != 0 {
            return Err(Trap::gp(code));
        }
    }
    Ok(Destination::Gate(gate))
}

/// The code segment behind a call gate, its offset, and the level it runs at.
fn behind_gate(cpu: &mut Cpu, gate: Gate, calls: bool) -> Outcome<(SegmentRegister, u64, u8)> {
    let selector = gate.selector();
    if selector.is_null() {
        return Err(Trap::GP0);
    }
    let code = selector.error_code();
    let found = cpu.find_descriptor(selector, || Trap::gp(code))?;
    let attributes = found.descriptor.attributes();
    let long = cpu.long_mode();
    let level_fits = attributes.dpl() <= cpu.cpl && (calls || attributes.is_conforming() || attributes.dpl() == cpu.cpl);
    if !attributes.is_code() || !level_fits || long && (!attributes.l() || attributes.db()) {
        return Err(Trap::gp(code));
    }
    if !attributes.p() {
        return Err(Trap::np(code));
    }
    let level = if attributes.is_conforming() { cpu.cpl } else { attributes.dpl() };
    let offset = if gate.attributes().kind() == system::CALL_GATE { gate.offset() } else { gate.offset() & 0xffff };
    cpu.check_offset(attributes, found.descriptor.limit(), offset)?;
    Ok((cpu.access_descriptor(selector.with_rpl(level), found)?, offset, level))
}

fn jump(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (selector, offset, _) = pointer(cpu, instruction)?;
    if cpu.has_8086_segments() {
        let code = cpu.real_code(selector);
        cpu.check_offset(code.attributes, code.limit, offset)?;
        cpu.set_code(code, offset, cpu.cpl);
        return Ok(Flow::Jump);
    }
    let level = cpu.cpl;
    match destination(cpu, selector, offset, TaskSwitchSource::Jump, instruction)? {
        Destination::Code(code) => cpu.set_code(code, offset, level),
        Destination::Gate(gate) => {
            let (code, offset, level) = behind_gate(cpu, gate, false)?;
            cpu.set_code(code, offset, level);
        }
        Destination::Task => {}
    }
    Ok(Flow::Jump)
}

fn call(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (selector, offset, bytes) = pointer(cpu, instruction)?;
    let back = cpu.next_rip(instruction);
    let old_code = u64::from(cpu.segment(Segment::Cs).selector.into_bits());
    let mut stack = cpu.current_stack();
    if cpu.has_8086_segments() {
        let code = cpu.real_code(selector);
        cpu.check_offset(code.attributes, code.limit, offset)?;
        stack.push(cpu, bytes, old_code)?;
        stack.push(cpu, bytes, back)?;
        cpu.set_stack_pointer(stack.pointer, stack.bits);
        cpu.set_code(code, offset, cpu.cpl);
        return Ok(Flow::Jump);
    }
    let gate = match destination(cpu, selector, offset, TaskSwitchSource::Call, instruction)? {
        Destination::Code(code) => {
            stack.push(cpu, bytes, old_code)?;
            stack.push(cpu, bytes, back)?;
            cpu.set_stack_pointer(stack.pointer, stack.bits);
            cpu.set_code(code, offset, cpu.cpl);
            return Ok(Flow::Jump);
        }
        Destination::Gate(gate) => gate,
        Destination::Task => return Ok(Flow::Jump),
    };
    let (code, offset, level) = behind_gate(cpu, gate, true)?;
    let long = cpu.long_mode();
    let bytes = match (long, gate.attributes().kind()) {
        (true, _) => 8,
        (false, system::CALL_GATE) => 4,
        _ => 2,
    };
    let mut new_stack = None;
    if level != cpu.cpl {
        let outer = stack.clone();
        let (old_ss, old_rsp) = (u64::from(cpu.segment(Segment::Ss).selector.into_bits()), cpu.regs[4]);
        stack = if long {
            let pointer = cpu.long_stack_pointer(level, 0, 0)?;
            let mut segment = SegmentRegister::null(Selector::new().with_rpl(level));
            segment.attributes.set_dpl(level);
            Stack { segment, pointer, bits: 64, flat: true, privilege: privilege_of(level), fault: 0 }
        } else {
            cpu.inner_stack(level, 0)?
        };
        new_stack = Some(stack.segment);
        stack.push(cpu, bytes, old_ss)?;
        stack.push(cpu, bytes, old_rsp)?;
        if !long {
            for parameter in (0..u64::from(gate.parameters())).rev() {
                let value = outer.peek(cpu, parameter * u64::from(bytes), bytes)?;
                stack.push(cpu, bytes, value)?;
            }
        }
    }
    stack.push(cpu, bytes, old_code)?;
    stack.push(cpu, bytes, back)?;
    if let Some(segment) = new_stack {
        cpu.segments[Segment::Ss.number()] = segment;
    }
    cpu.set_code(code, offset, level);
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    Ok(Flow::Jump)
}

/// What a far return or IRET goes back to.
pub(super) struct Return {
    pub code: SegmentRegister,
    pub rip: u64,
    pub level: u8,
}

impl Cpu {
    /// Checks the code segment of a far return or IRET. SDM vol 2, RET and IRET.
    #[inline]
    pub(super) fn return_target(&mut self, selector: Selector, rip: u64) -> Outcome<Return> {
        if selector.is_null() {
            return Err(Trap::GP0);
        }
        let code = selector.error_code();
        let found = self.find_descriptor(selector, || Trap::gp(code))?;
        let level = selector.rpl();
        let purpose = Purpose::Return { from: self.cpl, long: self.long_mode() };
        if let Some(&code) = self.known_segments.find(purpose, selector, found.descriptor) {
            self.check_offset(code.attributes, code.limit, rip)?;
            return Ok(Return { code, rip, level });
        }
        let attributes = found.descriptor.attributes();
        let fits = attributes.is_code()
            && level >= self.cpl
            && if attributes.is_conforming() { attributes.dpl() <= level } else { attributes.dpl() == level };
        if !fits || self.code_is_malformed(attributes) {
            return Err(Trap::gp(code));
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        self.check_offset(attributes, found.descriptor.limit(), rip)?;
        let code = self.access_descriptor(selector, found)?;
        self.known_segments.keep(purpose, selector, found.descriptor, code);
        Ok(Return { code, rip, level })
    }

    /// Whether code of a segment runs in 64-bit mode.
    pub(super) fn runs_long(&self, code: &SegmentRegister) -> bool {
        self.long_mode() && code.attributes.l()
    }

    /// Goes to the same or an outer level with its stack; data segments that an outer level may not use become null. SDM vol 2, IRET:
    /// "RETURN-TO-OUTER-PRIVILEGE-LEVEL" does so, "RETURN-TO-SAME-PRIVILEGE-LEVEL" does not.
    #[inline]
    pub(super) fn set_outer(&mut self, target: &Return, stack: SegmentRegister, pointer: u64) {
        let long = self.runs_long(&target.code);
        let outwards = target.level > self.cpl;
        self.segments[Segment::Ss.number()] = stack;
        self.set_code(target.code, target.rip, target.level);
        let bits = if long {
            64
        } else if stack.attributes.db() {
            32
        } else {
            16
        };
        self.set_stack_pointer(pointer, bits);
        if !outwards {
            return;
        }
        for segment in [Segment::Es, Segment::Ds, Segment::Fs, Segment::Gs] {
            let register = self.segment(segment);
            let attributes = register.attributes;
            let inner = (attributes.is_data() || attributes.is_code() && !attributes.is_conforming()) && attributes.dpl() < target.level;
            if register.is_usable() && inner {
                // The base stays, as software relies on that keeps its own in GS.
                let register = &mut self.segments[segment.number()];
                register.selector = Selector::new();
                register.attributes.set_unusable(true);
            }
        }
    }
}

fn ret(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let released = if instruction.op_count() == 1 { instruction.immediate(0) } else { 0 };
    let bytes = (i64::from(instruction.stack_pointer_increment()) - released as i64) as u8 / 2;
    let mut stack = cpu.current_stack();
    let rip = stack.pop(cpu, bytes)?;
    let selector = Selector::from_bits(stack.pop(cpu, bytes)? as u16);
    if cpu.has_8086_segments() {
        let code = cpu.real_code(selector);
        cpu.check_offset(code.attributes, code.limit, rip)?;
        stack.skip(released);
        cpu.set_stack_pointer(stack.pointer, stack.bits);
        cpu.set_code(code, rip, cpu.cpl);
        return Ok(Flow::Jump);
    }
    let target = cpu.return_target(selector, rip)?;
    stack.skip(released);
    if target.level == cpu.cpl {
        cpu.set_stack_pointer(stack.pointer, stack.bits);
        cpu.set_code(target.code, target.rip, target.level);
        return Ok(Flow::Jump);
    }
    let pointer = stack.pop(cpu, bytes)?;
    let outer = Selector::from_bits(stack.pop(cpu, bytes)? as u16);
    let segment = cpu.stack_segment(outer, target.level, cpu.runs_long(&target.code), Trap::gp)?;
    cpu.set_outer(&target, segment, pointer.wrapping_add(released) & mask(64));
    Ok(Flow::Jump)
}
