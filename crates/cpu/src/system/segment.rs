//! Segment registers and descriptor tables.
//!
//! What is modelled: loads of data and stack segments with all checks (SDM vol 3, 5.6 "Privilege Level Checking When Accessing Data
//! Segments", 5.7 "Privilege Level Checking When Loading the SS Register"), LDS and its kin, LGDT, LIDT, LLDT, LTR and their stores, LAR,
//! LSL, VERR, VERW, ARPL (outside protected mode these are #UD by `select`), user-mode instruction prevention, the interrupt shadow of a load of SS.

use super::descriptor::{Found, Purpose};
use super::{Entry, Flow};
use crate::operand::{mask, segment_of};
use crate::state::{Cpu, Shadow};
use crate::trap::{Access, Intercept, Outcome, Trap};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};
use isa::paging::is_canonical;
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister, system};
use models::Vendor;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    let segment = |operand: u32| instruction.op_kind(operand) == OpKind::Register && segment_of(instruction.op_register(operand)).is_some();
    match instruction.mnemonic() {
        M::Mov if segment(0) => Entry::last(mov_to_segment),
        M::Mov if segment(1) => Entry::plain(mov_from_segment),
        M::Pop if segment(0) => Entry::last(pop_segment),
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => Entry::last(load_pointer),
        M::Lgdt | M::Lidt => Entry::last(load_table),
        M::Sgdt | M::Sidt => Entry::plain(store_table),
        M::Lldt => Entry::last(lldt),
        M::Ltr => Entry::last(ltr),
        M::Sldt | M::Str => Entry::plain(store_selector),
        M::Lar | M::Lsl => Entry::plain(lar_lsl),
        M::Verr | M::Verw => Entry::plain(verify),
        M::Arpl => Entry::plain(adjust_privilege),
        _ => None,
    }
}

impl Cpu {
    /// #GP(0) for SGDT, SIDT, SLDT, STR and SMSW of a user program with CR4.UMIP.
    pub(crate) fn refuse_umip(&self) -> Outcome {
        if self.cr4.umip() && self.cpl != 0 && self.cr0.pe() { Err(Trap::GP0) } else { Ok(()) }
    }

    /// What loading a data or stack segment register leaves in it.
    pub(crate) fn data_segment(&mut self, segment: Segment, selector: Selector) -> Outcome<SegmentRegister> {
        if self.is_v86() {
            return Ok(SegmentRegister::virtual_8086(selector.into_bits()));
        }
        if self.is_real() {
            // Limit and attributes stay what they were.
            return Ok(SegmentRegister { selector, base: u64::from(selector.into_bits()) << 4, ..*self.segment(segment) });
        }
        if segment == Segment::Ss {
            return self.stack_segment(selector, self.cpl, self.is_64bit(), Trap::gp);
        }
        self.described_segment(segment, selector, Trap::gp)
    }

    /// What loading a data segment register leaves in it outside real-address and virtual-8086 mode; `fault` makes #GP or #TS of a selector
    /// code.
    pub(crate) fn described_segment(&mut self, segment: Segment, selector: Selector, fault: fn(u32) -> Trap) -> Outcome<SegmentRegister> {
        if selector.is_null() {
            let mut null = SegmentRegister::null(selector);
            if self.vendor == Vendor::Amd {
                // APM vol 2, 4.5.3: a null selector leaves the hidden base and limit alone.
                let old = self.segment(segment);
                (null.base, null.limit) = (old.base, old.limit);
            }
            return Ok(null);
        }
        let code = selector.error_code();
        let found = self.find_descriptor(selector, || fault(code))?;
        let attributes = found.descriptor.attributes();
        let guarded = !attributes.is_conforming();
        if !attributes.is_readable() || guarded && (selector.rpl() > attributes.dpl() || self.cpl > attributes.dpl()) {
            return Err(fault(code));
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        self.access_descriptor(selector, found)
    }

    /// What loading SS at a privilege level leaves in it; `fault` makes #GP or #TS of a selector code.
    #[inline]
    pub(crate) fn stack_segment(&mut self, selector: Selector, level: u8, long: bool, fault: fn(u32) -> Trap) -> Outcome<SegmentRegister> {
        if selector.is_null() {
            if !long || level == 3 || selector.rpl() != level {
                return Err(fault(0));
            }
            let mut null = SegmentRegister::null(selector);
            null.attributes.set_dpl(level);
            return Ok(null);
        }
        let code = selector.error_code();
        let found = self.find_descriptor(selector, || fault(code))?;
        let purpose = Purpose::Stack { level };
        if let Some(register) = self.known_segments.find(purpose, selector, found.descriptor) {
            return Ok(*register);
        }
        let attributes = found.descriptor.attributes();
        if selector.rpl() != level || attributes.dpl() != level || !attributes.is_writable() {
            return Err(fault(code));
        }
        if !attributes.p() {
            return Err(Trap::ss(code));
        }
        let register = self.access_descriptor(selector, found)?;
        self.known_segments.keep(purpose, selector, found.descriptor, register);
        Ok(register)
    }

    /// Puts a segment register in place. Bases outside FS and GS never matter to decoded 64-bit code; elsewhere they are looked up.
    fn set_segment(&mut self, segment: Segment, value: SegmentRegister) {
        self.segments[segment.number()] = value;
        if segment == Segment::Ss {
            self.shadow = Shadow::MovSs;
            self.shadow_set = true;
            self.leave = true;
        }
    }
}

fn named(register: Register) -> Outcome<Segment> {
    match segment_of(register) {
        Some(Segment::Cs) | None => Err(Trap::UD),
        Some(segment) => Ok(segment),
    }
}

fn mov_to_segment(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let segment = named(instruction.op0_register())?;
    let selector = if instruction.op1_kind() == OpKind::Memory {
        let linear = cpu.memory_linear(instruction, 2, Access::Read)?;
        cpu.load(linear, 2)?
    } else {
        cpu.read_register(instruction.op1_register())
    };
    let value = cpu.data_segment(segment, Selector::from_bits(selector as u16))?;
    cpu.set_segment(segment, value);
    Ok(Flow::End)
}

fn mov_from_segment(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selector = cpu.read_operand(instruction, 1)?;
    if instruction.op0_kind() == OpKind::Memory {
        let linear = cpu.memory_linear(instruction, 2, Access::Write)?;
        cpu.store(linear, 2, selector)?;
    } else {
        cpu.write_register(instruction.op0_register(), selector);
    }
    Ok(Flow::Next)
}

fn pop_segment(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let segment = named(instruction.op0_register())?;
    let bytes = instruction.stack_pointer_increment().unsigned_abs() as u8;
    let mut stack = cpu.current_stack();
    // Only the selector is read, however wide the place is.
    let selector = stack.peek(cpu, 0, 2)?;
    stack.skip(u64::from(bytes));
    let value = cpu.data_segment(segment, Selector::from_bits(selector as u16))?;
    cpu.set_stack_pointer(stack.pointer, stack.bits);
    cpu.set_segment(segment, value);
    Ok(Flow::End)
}

/// LDS, LES, LFS, LGS, LSS.
fn load_pointer(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let segment = match instruction.mnemonic() {
        M::Lds => Segment::Ds,
        M::Les => Segment::Es,
        M::Lfs => Segment::Fs,
        M::Lgs => Segment::Gs,
        _ => Segment::Ss,
    };
    let target = instruction.op0_register();
    let bytes = target.size() as u8;
    let linear = cpu.memory_linear(instruction, u64::from(bytes) + 2, Access::Read)?;
    let offset = cpu.load(linear, bytes)?;
    let selector = cpu.load(linear.wrapping_add(u64::from(bytes)), 2)?;
    let value = cpu.data_segment(segment, Selector::from_bits(selector as u16))?;
    cpu.segments[segment.number()] = value;
    cpu.write_register(target, offset);
    Ok(Flow::End)
}

/// LGDT, LIDT.
fn load_table(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    let global = instruction.mnemonic() == M::Lgdt;
    cpu.intercept_operand(if global { Intercept::Lgdt } else { Intercept::Lidt }, instruction)?;
    let long = cpu.is_64bit();
    let bytes = if long { 8 } else { 4 };
    let linear = cpu.memory_linear(instruction, 2 + u64::from(bytes), Access::Read)?;
    let limit = cpu.load(linear, 2)? as u16;
    let mut base = cpu.load(linear.wrapping_add(2), bytes)?;
    if matches!(instruction.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base &= 0xff_ffff;
    }
    if long && !is_canonical(base) {
        return Err(Trap::GP0);
    }
    *(if global { &mut cpu.gdtr } else { &mut cpu.idtr }) = TableRegister { base, limit };
    Ok(Flow::End)
}

/// SGDT, SIDT.
fn store_table(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.refuse_umip()?;
    let global = instruction.mnemonic() == M::Sgdt;
    cpu.intercept_operand(if global { Intercept::Sgdt } else { Intercept::Sidt }, instruction)?;
    let table = if global { cpu.gdtr } else { cpu.idtr };
    let bytes = if cpu.is_64bit() { 8 } else { 4 };
    let linear = cpu.memory_linear(instruction, 2 + u64::from(bytes), Access::Write)?;
    cpu.translate(
        linear.wrapping_add(2 + u64::from(bytes) - 1) & mask(if cpu.is_64bit() { 64 } else { 32 }),
        Access::Write,
        cpu.privilege(),
    )?;
    cpu.store(linear, 2, u64::from(table.limit))?;
    cpu.store(linear.wrapping_add(2), bytes, table.base)?;
    Ok(Flow::Next)
}

/// The descriptor of an LDT or TSS, checked but for what differs between LLDT and LTR.
fn system_segment(cpu: &mut Cpu, selector: Selector, fits: fn(u8, bool) -> bool) -> Outcome<(SegmentRegister, Found)> {
    let code = selector.error_code();
    if selector.ti() {
        return Err(Trap::gp(code));
    }
    let found = cpu.find_descriptor(selector, || Trap::gp(code))?;
    let attributes = found.descriptor.attributes();
    if attributes.s() || !fits(attributes.kind(), cpu.long_mode()) {
        return Err(Trap::gp(code));
    }
    let mut register = found.descriptor.load(selector);
    if cpu.long_mode() {
        let upper = cpu.upper_descriptor(selector, found, Trap::gp(code))?;
        register.base |= upper << 32;
        // Bits 44:40 of the upper half are a type that must be zero.
        if upper >> 40 & 0x1f != 0 || !is_canonical(register.base) {
            return Err(Trap::gp(code));
        }
    }
    if !attributes.p() {
        return Err(Trap::np(code));
    }
    Ok((register, found))
}

fn selector_operand(cpu: &mut Cpu, instruction: &Instruction, operand: u32) -> Outcome<Selector> {
    let value = if instruction.op_kind(operand) == OpKind::Memory {
        let linear = cpu.memory_linear(instruction, 2, Access::Read)?;
        cpu.load(linear, 2)?
    } else {
        cpu.read_register(instruction.op_register(operand))
    };
    Ok(Selector::from_bits(value as u16))
}

fn lldt(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept_operand(Intercept::Lldt, instruction)?;
    let selector = selector_operand(cpu, instruction, 0)?;
    cpu.ldtr =
        if selector.is_null() { SegmentRegister::null(selector) } else { system_segment(cpu, selector, |kind, _| kind == system::LDT)?.0 };
    Ok(Flow::End)
}

fn ltr(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept_operand(Intercept::Ltr, instruction)?;
    let selector = selector_operand(cpu, instruction, 0)?;
    if selector.is_null() {
        return Err(Trap::GP0);
    }
    let (mut register, found) = system_segment(cpu, selector, super::descriptor::is_available_tss)?;
    // The descriptor and the register become busy.
    let busy = found.descriptor.0 | 2 << 40;
    cpu.store_system(found.address.wrapping_add(5), 1, busy >> 40 & 0xff)?;
    register.attributes.set_kind(register.attributes.kind() | 2);
    cpu.tr = register;
    Ok(Flow::End)
}

/// SLDT, STR.
fn store_selector(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.refuse_umip()?;
    let local = instruction.mnemonic() == M::Sldt;
    cpu.intercept_operand(if local { Intercept::Sldt } else { Intercept::Str }, instruction)?;
    let selector = u64::from(if local { cpu.ldtr } else { cpu.tr }.selector.into_bits());
    if instruction.op0_kind() == OpKind::Memory {
        let linear = cpu.memory_linear(instruction, 2, Access::Write)?;
        cpu.store(linear, 2, selector)?;
    } else {
        cpu.write_register(instruction.op0_register(), selector);
    }
    Ok(Flow::Next)
}

/// The descriptor that LAR, LSL, VERR and VERW look at, if the program may see it.
fn visible_descriptor(cpu: &mut Cpu, selector: Selector) -> Outcome<Option<Found>> {
    if selector.is_null() {
        return Ok(None);
    }
    let found = match cpu.find_descriptor(selector, || Trap::GP0) {
        Ok(found) => found,
        Err(trap) if trap == Trap::GP0 => return Ok(None),
        Err(other) => return Err(other),
    };
    let attributes = found.descriptor.attributes();
    let seen = attributes.is_conforming() || selector.rpl().max(cpu.cpl) <= attributes.dpl();
    Ok(seen.then_some(found))
}

fn set_zero_flag(cpu: &mut Cpu, value: bool) {
    let flags = cpu.rflags().with_zf(value);
    cpu.set_rflags(flags);
}

fn lar_lsl(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selector = selector_operand(cpu, instruction, 1)?;
    let access = instruction.mnemonic() == M::Lar;
    let long = cpu.long_mode();
    let fits = |attributes: Attributes| {
        let kind = attributes.kind();
        attributes.s()
            || match kind {
                system::LDT | system::TSS_AVAILABLE | system::TSS_BUSY => true,
                system::TSS16_AVAILABLE | system::TSS16_BUSY => !long,
                system::CALL_GATE => access,
                system::CALL_GATE16 | system::TASK_GATE => access && !long,
                _ => false,
            }
    };
    let found = visible_descriptor(cpu, selector)?.filter(|found| fits(found.descriptor.attributes()));
    if let Some(found) = found {
        let value = if access { found.descriptor.0 >> 32 & 0x00ff_ff00 } else { u64::from(found.descriptor.limit()) };
        cpu.write_register(instruction.op0_register(), value);
    }
    set_zero_flag(cpu, found.is_some());
    Ok(Flow::Next)
}

fn verify(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selector = selector_operand(cpu, instruction, 0)?;
    let reads = instruction.mnemonic() == M::Verr;
    let fits = |attributes: Attributes| if reads { attributes.is_readable() } else { attributes.is_writable() };
    let found = visible_descriptor(cpu, selector)?.filter(|found| fits(found.descriptor.attributes()));
    set_zero_flag(cpu, found.is_some());
    Ok(Flow::Next)
}

/// ARPL.
fn adjust_privilege(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selector = Selector::from_bits(cpu.read_operand_for_update(instruction, 0)? as u16);
    let minimum = Selector::from_bits(cpu.read_register(instruction.op1_register()) as u16).rpl();
    let raised = selector.rpl() < minimum;
    if raised {
        cpu.write_operand(instruction, 0, u64::from(selector.with_rpl(minimum).into_bits()))?;
    }
    set_zero_flag(cpu, raised);
    Ok(Flow::Next)
}
