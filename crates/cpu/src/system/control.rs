//! Control and debug registers, XCR0, and the invalidation of translations.
//!
//! What is modelled: MOV to and from CR0, CR2, CR3, CR4, CR8 and the debug registers, CLTS, LMSW, SMSW, INVLPG, INVPCID, XGETBV, XSETBV,
//! RDPKRU, WRPKRU,
//! with the reserved bits, the changes of mode (SDM vol 3, 10.9 "Mode Switching" and 10.8.5 "Initializing IA-32e Mode") and what each write
//! invalidates (4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches").

use super::{Entry, Flow};
use crate::operand::gpr_number;
use crate::state::Cpu;
use crate::trap::{Access, ControlAccess, ControlAccessKind, Exception, Exit, Intercept, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};
use isa::control::{Cr0, Cr4, cr3, xcr0};
use isa::cpuid::Feature;
use isa::debug::{Dr6, Dr7};
use isa::paging::is_canonical;
use isa::register::Segment;

/// Offset of the task-priority register in the local APIC's page.
const TASK_PRIORITY: u16 = 0x80;
use models::Vendor;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    let register = |operand: u32, kind: fn(Register) -> bool| {
        instruction.op_kind(operand) == OpKind::Register && kind(instruction.op_register(operand))
    };
    match instruction.mnemonic() {
        M::Mov if register(0, Register::is_cr) => Entry::last(mov_to_control),
        M::Mov if register(1, Register::is_cr) => Entry::plain(mov_from_control),
        M::Mov if register(0, Register::is_dr) => Entry::last(mov_to_debug),
        M::Mov if register(1, Register::is_dr) => Entry::plain(mov_from_debug),
        M::Clts => Entry::last(clts),
        M::Lmsw => Entry::last(lmsw),
        M::Smsw => Entry::plain(smsw),
        M::Invlpg => Entry::last(invlpg),
        M::Invpcid => Entry::last(invpcid),
        M::Xgetbv => Entry::plain(xgetbv),
        M::Xsetbv => Entry::last(xsetbv),
        M::Rdpkru => Entry::plain(rdpkru),
        M::Wrpkru => Entry::last(wrpkru),
        _ => None,
    }
}

impl Cpu {
    /// #GP(0) unless at privilege level 0.
    pub(crate) fn require_level_0(&self) -> Outcome {
        if self.cpl == 0 { Ok(()) } else { Err(Trap::GP0) }
    }

    /// An exit if the instruction is intercepted.
    pub(crate) fn intercept(&self, intercept: Intercept, instruction: &Instruction) -> Outcome {
        if self.interception.has(intercept) {
            return Err(Trap::Exit(Exit::Instruction { intercept, length: instruction.len() as u8 }));
        }
        Ok(())
    }

    /// An exit that describes the operand, if the instruction is intercepted.
    pub(crate) fn intercept_operand(&self, intercept: Intercept, instruction: &Instruction) -> Outcome {
        if self.interception.has(intercept) {
            return Err(Trap::Exit(Exit::Operand { intercept, instruction: self.describe_operand(intercept, instruction) }));
        }
        Ok(())
    }

    /// The value that goes into the register, after the silicon's word on it.
    fn intercept_control(&mut self, any: &[Intercept], access: ControlAccess) -> Outcome<u64> {
        if !any.iter().any(|intercept| self.interception.has(*intercept)) {
            return Ok(access.value);
        }
        match self.with_extension(|extension, cpu| extension.control_access(cpu, &access)) {
            Some(Ok(value)) => Ok(value),
            None => Ok(access.value),
            Some(Err(crate::extension::Exits)) => Err(Trap::Exit(Exit::Control(access))),
        }
    }

    /// CR0 as the program reads it: bits that the host owns come from its shadow.
    pub fn visible_cr0(&self) -> u64 {
        let mask = self.interception.cr0_mask;
        self.cr0.into_bits() & !mask | self.interception.cr0_shadow & mask
    }

    /// CR4 as the program reads it.
    pub fn visible_cr4(&self) -> u64 {
        let mask = self.interception.cr4_mask;
        self.cr4.into_bits() & !mask | self.interception.cr4_shadow & mask
    }

    fn extension_allows(&self, register: u8, value: u64) -> Outcome {
        match &self.extension {
            Some(extension) if !extension.allows_control(self, register, value) => Err(Trap::GP0),
            _ => Ok(()),
        }
    }

    /// Writes CR0 as software does: checks, mode changes, invalidation.
    pub fn write_cr0(&mut self, value: u64) -> Outcome {
        if value >> 32 != 0 {
            return Err(Trap::GP0);
        }
        let new = Cr0::from_bits(value & Cr0::DEFINED | Cr0::new().with_et(true).into_bits());
        let old = self.cr0;
        if new.nw() && !new.cd() || new.pg() && !new.pe() {
            return Err(Trap::GP0);
        }
        self.extension_allows(0, new.into_bits())?;
        let code_is_long = self.segment(Segment::Cs).attributes.l();
        let mut efer = self.efer;
        if new.pg() && !old.pg() && efer.lme() {
            if !self.cr4.pae() || code_is_long {
                return Err(Trap::GP0);
            }
            efer.set_lma(true);
        }
        if !new.pg() && old.pg() {
            if self.cr4.pcide() || self.is_64bit() {
                return Err(Trap::GP0);
            }
            efer.set_lma(false);
        }
        let changed = old.into_bits() ^ new.into_bits();
        let reloads = Cr0::new().with_pg(true).with_cd(true).with_nw(true).into_bits();
        if new.pg() && self.cr4.pae() && !efer.lma() && changed & reloads != 0 {
            self.load_pdptes(self.cr3)?;
        }
        self.cr0 = new;
        self.efer = efer;
        self.drive_numeric_error();
        if new.pg() != old.pg() {
            self.tlb.flush_address_space(self.address_space);
        }
        self.context_changed();
        Ok(())
    }

    /// Writes CR3 as software does. `value` may have bit 63 set to keep translations when CR4.PCIDE is.
    pub fn write_cr3(&mut self, value: u64) -> Outcome {
        let keeps = self.cr4.pcide() && value & cr3::NO_FLUSH != 0;
        let value = if self.cr4.pcide() { value & !cr3::NO_FLUSH } else { value };
        if self.long_mode() && value >> self.model.physical_address_bits != 0 {
            return Err(Trap::GP0);
        }
        if self.cr0.pg() && self.cr4.pae() && !self.long_mode() {
            self.load_pdptes(value)?;
        }
        self.cr3 = value;
        if !keeps {
            let pcid = self.pcid();
            self.tlb.flush_pcid(self.address_space, pcid);
        }
        self.context_changed();
        Ok(())
    }

    /// Writes CR4 as software does.
    pub fn write_cr4(&mut self, value: u64) -> Outcome {
        if value & !models::cr4_of(self.features).into_bits() != 0 {
            return Err(Trap::GP0);
        }
        let (old, new) = (self.cr4, Cr4::from_bits(value));
        // A guest may lack what its processor has.
        let absent = |feature| !self.has(feature);
        if new.pke() && absent(Feature::Pku) || new.umip() && absent(Feature::Umip) || new.mce() && absent(Feature::Mce) {
            return Err(Trap::GP0);
        }
        if self.long_mode() && !new.pae() {
            return Err(Trap::GP0);
        }
        if new.pcide() && !old.pcide() && (!self.long_mode() || self.cr3 & cr3::PCID != 0) {
            return Err(Trap::GP0);
        }
        self.extension_allows(4, value)?;
        let changed = Cr4::from_bits(old.into_bits() ^ value);
        let tables = changed.pse() || changed.pae() || changed.pge();
        if self.cr0.pg() && new.pae() && !self.long_mode() && (tables || changed.smep()) {
            self.load_pdptes(self.cr3)?;
        }
        self.cr4 = new;
        if tables || old.pcide() && !new.pcide() {
            self.tlb.flush_address_space(self.address_space);
        } else if new.smep() && changed.smep() {
            let pcid = self.pcid();
            self.tlb.flush_pcid(self.address_space, pcid);
        }
        self.context_changed();
        Ok(())
    }

    /// CR8: the task-priority class, the silicon's own while it virtualizes it.
    fn read_cr8(&self) -> u64 {
        u64::from(self.virtual_tpr.map_or_else(|| self.apic.cr8(), |tpr| tpr >> 4))
    }

    fn write_cr8(&mut self, value: u64) -> Outcome {
        if value > 15 {
            return Err(Trap::GP0);
        }
        match &mut self.virtual_tpr {
            Some(tpr) => {
                *tpr = (value as u8) << 4;
                self.apic_write = self.interception.follows_task_priority.then_some(TASK_PRIORITY);
            }
            None => self.apic.set_cr8(value as u8),
        }
        self.leave = true;
        Ok(())
    }
}

/// The number of a control or debug register operand.
fn number(register: Register) -> u8 {
    let first = if register.is_cr() { Register::CR0 } else { Register::DR0 };
    (register as u32 - first as u32) as u8
}

/// What intercepts a read or a write of a control register.
const fn reads(register: u8) -> &'static [Intercept] {
    match register {
        0 => &[Intercept::Cr0Read],
        2 => &[Intercept::Cr2Read],
        3 => &[Intercept::Cr3Read],
        4 => &[Intercept::Cr4Read],
        _ => &[Intercept::Cr8Read],
    }
}

const fn writes(register: u8) -> &'static [Intercept] {
    match register {
        0 => &[Intercept::Cr0Write, Intercept::Cr0SelectiveWrite],
        2 => &[Intercept::Cr2Write],
        3 => &[Intercept::Cr3Write],
        4 => &[Intercept::Cr4Write],
        _ => &[Intercept::Cr8Write],
    }
}

/// #UD for a control register that does not exist.
fn existing(register: u8) -> Outcome {
    if matches!(register, 0 | 2 | 3 | 4 | 8) { Ok(()) } else { Err(Trap::UD) }
}

/// MOV CRn, r.
fn mov_to_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let register = number(instruction.op_register(0));
    existing(register)?;
    cpu.require_level_0()?;
    let source = instruction.op_register(1);
    let access = ControlAccess {
        register,
        kind: ControlAccessKind::MovTo,
        gpr: gpr_number(source),
        value: cpu.read_register(source),
        memory: None,
        length: instruction.len() as u8,
    };
    let value = cpu.intercept_control(writes(register), access)?;
    match register {
        0 => cpu.write_cr0(value)?,
        2 => cpu.cr2 = value,
        3 => cpu.write_cr3(value)?,
        4 => cpu.write_cr4(value)?,
        _ => cpu.write_cr8(value)?,
    }
    Ok(Flow::End)
}

/// MOV r, CRn.
fn mov_from_control(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let register = number(instruction.op_register(1));
    existing(register)?;
    cpu.require_level_0()?;
    let target = instruction.op_register(0);
    let value = match register {
        0 => cpu.visible_cr0(),
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.visible_cr4(),
        _ => cpu.read_cr8(),
    };
    let access = ControlAccess {
        register,
        kind: ControlAccessKind::MovFrom,
        gpr: gpr_number(target),
        value,
        memory: None,
        length: instruction.len() as u8,
    };
    cpu.intercept_control(reads(register), access)?;
    cpu.write_register(target, value);
    Ok(Flow::Next)
}

/// CLTS.
fn clts(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    let access = ControlAccess {
        register: 0,
        kind: ControlAccessKind::Clts,
        gpr: 0,
        value: cpu.cr0.with_ts(false).into_bits(),
        memory: None,
        length: instruction.len() as u8,
    };
    let value = cpu.intercept_control(writes(0), access)?;
    cpu.cr0 = Cr0::from_bits(value);
    cpu.context_changed();
    Ok(Flow::End)
}

/// LMSW: loads PE, MP, EM and TS, and cannot clear PE.
fn lmsw(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    let memory = instruction.op0_kind() == OpKind::Memory;
    let value = cpu.read_operand(instruction, 0)? & 0xffff;
    let access = ControlAccess {
        register: 0,
        kind: ControlAccessKind::Lmsw,
        gpr: if memory { 0 } else { gpr_number(instruction.op0_register()) },
        value,
        memory: if memory { Some(cpu.memory_linear(instruction, 2, Access::Read)?) } else { None },
        length: instruction.len() as u8,
    };
    let value = cpu.intercept_control(writes(0), access)?;
    let kept = cpu.cr0.into_bits() & !0xe;
    cpu.write_cr0(kept | value & 0xf)?;
    Ok(Flow::End)
}

/// SMSW: the low bits of CR0, to a register as wide as it is.
fn smsw(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.refuse_umip()?;
    let memory = instruction.op0_kind() == OpKind::Memory;
    let value = cpu.visible_cr0();
    let access = ControlAccess {
        register: 0,
        kind: ControlAccessKind::Smsw,
        gpr: if memory { 0 } else { gpr_number(instruction.op0_register()) },
        value,
        memory: None,
        length: instruction.len() as u8,
    };
    cpu.intercept_control(reads(0), access)?;
    cpu.write_operand(instruction, 0, value)?;
    Ok(Flow::Next)
}

/// The debug register that an operand means: 4 and 5 are names of 6 and 7 unless CR4.DE is set. General detection comes last.
fn debug_register(cpu: &Cpu, instruction: &Instruction, operand: u32, write: bool) -> Outcome<u8> {
    let register = number(instruction.op_register(operand));
    let interception = &cpu.interception;
    let (intercept, exempt) =
        if write { (Intercept::DrWrite, interception.debug_writes_exempt) } else { (Intercept::DrRead, interception.debug_reads_exempt) };
    let exits = interception.has(intercept) && exempt >> register & 1 == 0;
    let gpr = gpr_number(instruction.op_register(1 - operand));
    let exit = Trap::Exit(Exit::DebugRegister { register, write, gpr, length: instruction.len() as u8 });
    let exits_first = cpu.vendor == Vendor::Intel;
    if exits && exits_first {
        // SDM vol 3, 26.1.3: such an exit comes before #GP for the privilege level and #UD for DR4 and DR5.
        return Err(exit);
    }
    if register > 7 || matches!(register, 4 | 5) && cpu.cr4.de() {
        return Err(Trap::UD);
    }
    cpu.require_level_0()?;
    if cpu.dr7.gd() {
        return Err(Trap::Exception(Exception::debug(Dr6::new().with_bd(true).into_bits())));
    }
    if exits {
        // APM vol 2, 15.9 "Instruction Intercepts": here the exceptions come first.
        return Err(exit);
    }
    Ok(if matches!(register, 4 | 5) { register + 2 } else { register })
}

/// Bits of DR6 that software can write.
const DR6_WRITABLE: u64 = 0xe00f;
/// Bits of DR7 that software can write: the enables, LE and GE, GD, the conditions.
const DR7_WRITABLE: u64 = 0xffff_23ff;

/// MOV DRn, r.
fn mov_to_debug(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let register = debug_register(cpu, instruction, 0, true)?;
    let value = cpu.read_register(instruction.op_register(1));
    match register {
        6 | 7 if value >> 32 != 0 => return Err(Trap::GP0),
        6 => cpu.dr6 = Dr6::from_bits(value & DR6_WRITABLE | Dr6::RESET),
        7 => cpu.dr7 = Dr7::from_bits(value & DR7_WRITABLE | Dr7::RESET),
        register => cpu.dr[usize::from(register & 3)] = value,
    }
    // Pages that the inline path serves are not watched: it starts anew.
    cpu.context_changed();
    Ok(Flow::End)
}

/// MOV r, DRn.
fn mov_from_debug(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let value = match debug_register(cpu, instruction, 1, false)? {
        6 => cpu.dr6.into_bits(),
        7 => cpu.dr7.into_bits(),
        register => cpu.dr[usize::from(register & 3)],
    };
    cpu.write_register(instruction.op_register(0), value);
    Ok(Flow::Next)
}

impl Cpu {
    /// Removes the cached translations of one page, and what the engine cached in front of them.
    pub fn invalidate_page(&mut self, linear: u64) {
        let (space, pcid) = (self.address_space, self.pcid());
        let cached = self.tlb.lookup(linear, space, pcid).copied();
        let largest = self.tlb.flush_page(linear, space, pcid);
        // The inline path holds 4-KiB pieces of larger pages; decoded code is found by linear address.
        let only_data = cached.is_some_and(|page| {
            let frame = (page.physical + (linear & (page.bytes - 1))) >> 12;
            largest == 4096 && self.is_ram(frame << 12) && !self.environment().memory.has_code(frame)
        });
        if only_data {
            self.software_tlb.forget(linear);
        } else {
            self.context_changed();
        }
    }
}

/// INVLPG.
fn invlpg(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept_operand(Intercept::Invlpg, instruction)?;
    let segment = crate::operand::segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds);
    let offset = cpu.effective_offset(instruction);
    let linear = if cpu.is_64bit() {
        let base = if matches!(segment, Segment::Fs | Segment::Gs) { cpu.segment(segment).base } else { 0 };
        base.wrapping_add(offset)
    } else {
        cpu.segment(segment).base.wrapping_add(offset) & 0xffff_ffff
    };
    // An address that is not canonical is no error: nothing is cached for it.
    if is_canonical(linear) {
        cpu.invalidate_page(linear);
    }
    Ok(Flow::End)
}

/// INVPCID.
fn invpcid(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_feature(Feature::Invpcid)?;
    cpu.require_level_0()?;
    cpu.intercept_operand(Intercept::Invpcid, instruction)?;
    let linear = cpu.memory_linear(instruction, 16, Access::Read)?;
    let (tag, address) = (cpu.load(linear, 8)?, cpu.load(linear.wrapping_add(8), 8)?);
    let kind = cpu.read_register(instruction.op_register(0));
    let pcid = (tag & cr3::PCID) as u16;
    if kind > 3 || tag & !cr3::PCID != 0 || kind <= 1 && pcid != 0 && !cpu.cr4.pcide() || kind == 0 && !is_canonical(address) {
        return Err(Trap::GP0);
    }
    let space = cpu.address_space;
    match kind {
        0 => {
            cpu.tlb.flush_page(address, space, pcid);
        }
        1 => cpu.tlb.flush_pcid(space, pcid),
        2 => cpu.tlb.flush_address_space(space),
        _ => cpu.tlb.flush_non_global(space),
    }
    cpu.context_changed();
    Ok(Flow::End)
}

/// XGETBV.
fn xgetbv(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    if !cpu.cr4.osxsave() {
        return Err(Trap::UD);
    }
    if cpu.read_register(Register::ECX) != 0 {
        return Err(Trap::GP0);
    }
    let value = cpu.xcr0;
    cpu.write_register(Register::EAX, value & 0xffff_ffff);
    cpu.write_register(Register::EDX, value >> 32);
    Ok(Flow::Next)
}

/// XSETBV.
fn xsetbv(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if !cpu.cr4.osxsave() {
        return Err(Trap::UD);
    }
    // APM vol 2, table 15-7: the intercept comes before #GP; SDM vol 3, 26.1.1: faults based on privilege level come before the VM exit.
    if cpu.model.vendor == Vendor::Amd {
        cpu.intercept(Intercept::Xsetbv, instruction)?;
    }
    cpu.require_level_0()?;
    cpu.intercept(Intercept::Xsetbv, instruction)?;
    let value = cpu.read_register(Register::EDX) << 32 | cpu.read_register(Register::EAX);
    let keys = if cpu.has(Feature::Pku) { xcr0::PKRU } else { 0 };
    let allowed = value & xcr0::X87 != 0 && value & !(xcr0::X87 | xcr0::SSE | keys) == 0;
    if cpu.read_register(Register::ECX) != 0 || !allowed {
        return Err(Trap::GP0);
    }
    cpu.xcr0 = value;
    cpu.leave = true;
    Ok(Flow::End)
}

/// What RDPKRU and WRPKRU refuse: CR4.PKE clear, then ECX. SDM vol 2, "RDPKRU", "WRPKRU".
fn require_keys(cpu: &Cpu) -> Outcome {
    if !cpu.cr4.pke() {
        return Err(Trap::UD);
    }
    if cpu.read_register(Register::ECX) != 0 { Err(Trap::GP0) } else { Ok(()) }
}

/// RDPKRU.
fn rdpkru(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    require_keys(cpu)?;
    cpu.write_register(Register::EAX, u64::from(cpu.pkru));
    cpu.write_register(Register::EDX, 0);
    Ok(Flow::Next)
}

/// WRPKRU.
fn wrpkru(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    require_keys(cpu)?;
    if cpu.read_register(Register::EDX) != 0 {
        return Err(Trap::GP0);
    }
    cpu.set_pkru(cpu.read_register(Register::EAX) as u32);
    Ok(Flow::End)
}

impl Cpu {
    /// Sets PKRU, and with it the rights in user pages, in every context: VM entries and exits do not switch it.
    pub fn set_pkru(&mut self, value: u32) {
        if self.pkru != value {
            self.pkru = value;
            self.software_tlb.epoch += 1;
            self.context_changed();
        }
    }
}
