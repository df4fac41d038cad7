//! Fast system calls, and the bases of FS and GS.
//!
//! What is modelled: SYSCALL and SYSRET with what the vendors do differently (Intel: 64-bit mode only, SYSRET checks RCX; AMD: legacy and
//! compatibility mode too, SYSRET leaves the attributes of SS), SYSENTER and SYSEXIT (AMD: not in long mode), SWAPGS, RDFSBASE and its kin.
//! SDM vol 3, 5.8.7 "Performing Fast Calls to System Procedures" and 5.8.8; APM vol 2, 6.1 "Fast System Call and Return".

use super::{Entry, Flow};
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::{Code, Instruction, Mnemonic as M};
use isa::debug::Dr6;
use isa::paging::is_canonical;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector};
use models::Vendor;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Syscall => Entry::last(syscall),
        M::Sysret | M::Sysretq => Entry::last(sysret),
        M::Sysenter => Entry::last(sysenter),
        M::Sysexit | M::Sysexitq => Entry::last(sysexit),
        M::Swapgs => Entry::plain(swapgs),
        M::Rdfsbase | M::Rdgsbase => Entry::plain(read_base),
        M::Wrfsbase | M::Wrgsbase => Entry::plain(write_base),
        _ => None,
    }
}

/// A flat code segment: accessed, readable, 4 GiB.
fn flat_code(selector: u64, level: u8, long: bool) -> SegmentRegister {
    let attributes = Attributes::new().with_kind(11).with_s(true).with_dpl(level).with_p(true).with_l(long).with_db(!long).with_g(true);
    SegmentRegister { selector: Selector::from_bits(selector as u16), base: 0, limit: u32::MAX, attributes }
}

/// A flat stack segment: accessed, writable, 4 GiB.
fn flat_stack(selector: u64, level: u8) -> SegmentRegister {
    let attributes = Attributes::new().with_kind(3).with_s(true).with_dpl(level).with_p(true).with_db(true).with_g(true);
    SegmentRegister { selector: Selector::from_bits(selector as u16), base: 0, limit: u32::MAX, attributes }
}

fn syscall(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let intel = cpu.vendor == Vendor::Intel;
    if !cpu.efer.sce() || !cpu.is_protected() || intel && !cpu.is_64bit() {
        return Err(Trap::UD);
    }
    let back = cpu.next_rip(instruction);
    let selector = cpu.msrs.star >> 32 & 0xfffc;
    let flags = cpu.rflags();
    cpu.set_gpr(Gpr::Rcx, back);
    cpu.segments[Segment::Ss.number()] = flat_stack(selector + 8, 0);
    // Whether a single-step trap follows is told by TF as the instruction leaves it.
    cpu.trace_cancelled = cpu.long_mode() && Rflags::from_bits(cpu.msrs.fmask).tf();
    if cpu.long_mode() {
        let target = if cpu.is_64bit() { cpu.msrs.lstar } else { cpu.msrs.cstar };
        cpu.set_gpr(Gpr::R11, flags.with_rf(false).into_bits());
        cpu.set_code(flat_code(selector, 0, true), target, 0);
        cpu.set_rflags(Rflags::from_bits(flags.into_bits() & !cpu.msrs.fmask).with_rf(false));
    } else {
        let target = cpu.msrs.star & 0xffff_ffff;
        cpu.set_code(flat_code(selector, 0, false), target, 0);
        cpu.set_rflags(flags.with_if(false).with_vm(false).with_rf(false));
    }
    Ok(Flow::Jump)
}

fn sysret(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let intel = cpu.vendor == Vendor::Intel;
    if !cpu.efer.sce() || intel && !cpu.is_64bit() {
        return Err(Trap::UD);
    }
    if cpu.cpl != 0 || !cpu.is_protected() {
        return Err(Trap::GP0);
    }
    let long = instruction.code() == Code::Sysretq;
    let target = if long { cpu.gpr(Gpr::Rcx) } else { cpu.gpr(Gpr::Rcx) & 0xffff_ffff };
    if intel && !is_canonical(target) {
        return Err(Trap::GP0);
    }
    let base = cpu.msrs.star >> 48;
    let flags =
        if cpu.long_mode() { Rflags::from_bits(cpu.gpr(Gpr::R11)).with_rf(false).with_vm(false) } else { cpu.rflags().with_if(true) };
    let stack = flat_stack((base + 8) | 3, 3);
    let ss = &mut cpu.segments[Segment::Ss.number()];
    if intel {
        *ss = stack;
    } else {
        // APM vol 3, SYSRET: only the selector of SS is set.
        ss.selector = stack.selector;
    }
    let selector = if long { base + 16 } else { base } | 3;
    cpu.set_code(flat_code(selector, 3, long), target, 3);
    cpu.set_rflags(flags);
    // Unlike IRET, it is followed by a single-step trap if it sets TF, and by none if it clears it.
    cpu.trace_cancelled = true;
    if flags.tf() {
        cpu.pending_debug |= Dr6::new().with_bs(true).into_bits();
    }
    Ok(Flow::Jump)
}

/// The selector of IA32_SYSENTER_CS, or the fault when these instructions cannot be used.
fn sysenter_selector(cpu: &Cpu) -> Outcome<u64> {
    if cpu.vendor == Vendor::Amd && cpu.long_mode() {
        return Err(Trap::UD);
    }
    let selector = cpu.msrs.sysenter_cs & 0xfffc;
    if cpu.is_real() || selector == 0 { Err(Trap::GP0) } else { Ok(selector) }
}

fn sysenter(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    let selector = sysenter_selector(cpu)?;
    let long = cpu.long_mode();
    let width = if long { u64::MAX } else { 0xffff_ffff };
    let flags = cpu.rflags().with_vm(false).with_if(false).with_rf(false);
    cpu.segments[Segment::Ss.number()] = flat_stack(selector + 8, 0);
    cpu.set_gpr(Gpr::Rsp, cpu.msrs.sysenter_esp & width);
    let target = cpu.msrs.sysenter_eip & width;
    cpu.set_code(flat_code(selector, 0, long), target, 0);
    cpu.set_rflags(flags);
    Ok(Flow::Jump)
}

fn sysexit(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selector = sysenter_selector(cpu)?;
    cpu.require_level_0()?;
    let long = instruction.code() == Code::Sysexitq;
    let width = if long { u64::MAX } else { 0xffff_ffff };
    let (target, stack) = (cpu.gpr(Gpr::Rdx) & width, cpu.gpr(Gpr::Rcx) & width);
    if long && !(is_canonical(target) && is_canonical(stack)) {
        return Err(Trap::GP0);
    }
    let (code, data) = if long { (selector + 32, selector + 40) } else { (selector + 16, selector + 24) };
    cpu.segments[Segment::Ss.number()] = flat_stack(data | 3, 3);
    cpu.set_gpr(Gpr::Rsp, stack);
    cpu.set_code(flat_code(code | 3, 3, long), target, 3);
    Ok(Flow::Jump)
}

fn swapgs(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    if !cpu.is_64bit() {
        return Err(Trap::UD);
    }
    cpu.require_level_0()?;
    std::mem::swap(&mut cpu.segments[Segment::Gs.number()].base, &mut cpu.msrs.kernel_gs_base);
    Ok(Flow::Next)
}

/// The segment of RDFSBASE and its kin.
fn based(cpu: &Cpu, instruction: &Instruction) -> Outcome<Segment> {
    if !cpu.cr4.fsgsbase() || !cpu.is_64bit() {
        return Err(Trap::UD);
    }
    Ok(if matches!(instruction.mnemonic(), M::Rdfsbase | M::Wrfsbase) { Segment::Fs } else { Segment::Gs })
}

fn read_base(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let segment = based(cpu, instruction)?;
    cpu.write_register(instruction.op0_register(), cpu.segment(segment).base);
    Ok(Flow::Next)
}

fn write_base(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let segment = based(cpu, instruction)?;
    let value = cpu.read_register(instruction.op0_register());
    if !is_canonical(value) {
        return Err(Trap::GP0);
    }
    cpu.segments[segment.number()].base = value;
    Ok(Flow::Next)
}
