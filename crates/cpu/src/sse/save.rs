//! FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR.
//!
//! What is modelled: the FXSAVE area in its 32-bit and 64-bit (REX.W) forms, EFER.FFXSR, MXCSR_MASK; the XSAVE area in its standard format
//! with the state components x87, SSE and PKRU, the rules of its header, and the initial configurations (SDM vol 1, 13.6 "Processor Tracking of
//! XSAVE-Managed State"). Our choices where the manuals leave one: reserved bytes of the FXSAVE area stay as they are in memory; with
//! CR4.OSFXSR clear neither XMM registers nor MXCSR are saved or restored; XSAVEOPT leaves out components in their initial configuration
//! and never a component for being unmodified.
//! What is not: the compacted format (XSAVEC, XSAVES), further components.

use super::control::{MXCSR_MASK, check_mxcsr};
use crate::state::{Cpu, FpuState};
use crate::system::{Flow, Function};
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M};
use isa::control::xcr0::{PKRU, SSE, X87};
use isa::cpuid::Feature;
use isa::register::Gpr;
use models::DecodeRules;

/// Bytes of the FXSAVE area, which is the legacy region of the XSAVE area.
const LEGACY: u64 = 512;
/// Bytes of the XSAVE header.
const HEADER: u64 = 64;
/// Offset of MXCSR and MXCSR_MASK.
const MXCSR: u64 = 24;
/// Offset of ST0 to ST7, each in 16 bytes.
const ST: u64 = 32;
/// Offset of XMM0 to XMM15.
const XMM: u64 = 160;

impl Cpu {
    /// How many XMM registers the present mode has.
    fn xmm_count(&self) -> usize {
        if self.is_64bit() { 16 } else { 8 }
    }

    /// Whether opcode and pointers stay as they are, in memory or in the processor, because no exception is pending. APM vol 5, FXSAVE: so it is
    /// on AMD's processors without the feature XSaveErPtr (APM vol 3, E.4.7 "Function 8000_0008h").
    fn keeps_pointers(&self, fpu: &FpuState) -> bool {
        self.model.decode_rules() == DecodeRules::Amd && !self.has(Feature::XsaveErrorPointers) && fpu.status & 0x80 == 0
    }

    /// The x87 part of the area. SDM vol 2, FXSAVE, Tables 3-43 to 3-46.
    fn store_x87(&mut self, linear: u64, wide: bool) -> Outcome {
        let fpu = self.fpu.clone();
        let first = u64::from(fpu.control) | u64::from(fpu.status) << 16 | u64::from(fpu.tag) << 32 | u64::from(fpu.opcode) << 48;
        let pointer = |value: u64, segment: u16| if wide { value } else { value & 0xffff_ffff | u64::from(segment) << 32 };
        if self.keeps_pointers(&fpu) {
            self.store(linear, 4, first & 0xffff_ffff)?;
            self.store(self.further(linear, 4), 2, u64::from(fpu.tag))?;
        } else {
            self.store(linear, 8, first)?;
            self.store(self.further(linear, 8), 8, pointer(fpu.instruction, fpu.instruction_segment))?;
            self.store(self.further(linear, 16), 8, pointer(fpu.data, fpu.data_segment))?;
        }
        for (number, at) in (fpu.top()..).zip((ST..XMM).step_by(16)) {
            self.store_wide(self.further(linear, at), fpu.registers[number & 7])?;
        }
        Ok(())
    }

    fn load_x87(&mut self, linear: u64, wide: bool) -> Outcome<FpuState> {
        let first = self.load(linear, 8)?;
        let deprecated = self.has(Feature::FcsFdsDeprecated);
        let pointer = |value: u64| match wide {
            true => (value, 0),
            false => (value & 0xffff_ffff, if deprecated { 0 } else { (value >> 32) as u16 }),
        };
        let (instruction, instruction_segment) = pointer(self.load(self.further(linear, 8), 8)?);
        let (data, data_segment) = pointer(self.load(self.further(linear, 16), 8)?);
        let status = (first >> 16) as u16;
        let mut registers = [0; 8];
        for (number, at) in (usize::from(status >> 11 & 7)..).zip((ST..XMM).step_by(16)) {
            registers[number & 7] = self.load_wide(self.further(linear, at))? & ((1 << 80) - 1);
        }
        let mut fpu = FpuState {
            control: first as u16,
            status,
            tag: (first >> 32) as u8,
            opcode: (first >> 48) as u16 & 0x7ff,
            instruction,
            data,
            instruction_segment,
            data_segment,
            registers,
        };
        crate::x87::adopt(&mut fpu);
        if self.keeps_pointers(&fpu) {
            let old = &self.fpu;
            (fpu.opcode, fpu.instruction, fpu.data) = (old.opcode, old.instruction, old.data);
            (fpu.instruction_segment, fpu.data_segment) = (old.instruction_segment, old.data_segment);
        }
        Ok(fpu)
    }

    fn store_mxcsr(&mut self, linear: u64) -> Outcome {
        self.store(self.further(linear, MXCSR), 8, u64::from(self.mxcsr) | u64::from(MXCSR_MASK) << 32)
    }

    /// MXCSR in the area, checked.
    fn load_mxcsr(&mut self, linear: u64) -> Outcome<u32> {
        let value = self.load(self.further(linear, MXCSR), 4)? as u32;
        check_mxcsr(value)?;
        Ok(value)
    }

    fn store_xmm(&mut self, linear: u64) -> Outcome {
        for number in 0..self.xmm_count() {
            let [low, high] = self.xmm[number];
            let at = self.further(linear, XMM + 16 * number as u64);
            self.store_wide(at, u128::from(high) << 64 | u128::from(low))?;
        }
        Ok(())
    }

    /// The registers that the present mode has from the area, the others as they are.
    fn load_xmm(&mut self, linear: u64) -> Outcome<[[u64; 2]; 16]> {
        let mut registers = self.xmm;
        for (number, register) in registers.iter_mut().enumerate().take(self.xmm_count()) {
            let value = self.load_wide(self.further(linear, XMM + 16 * number as u64))?;
            *register = [value as u64, (value >> 64) as u64];
        }
        Ok(registers)
    }

    /// The state components that are not in their initial configuration. SDM vol 1, 13.6. MXCSR does not count.
    fn components_in_use(&self) -> u64 {
        let x87 = if self.fpu == FpuState::initial() { 0 } else { X87 };
        let sse = if self.xmm[..self.xmm_count()].iter().all(|register| *register == [0; 2]) { 0 } else { SSE };
        let keys = if self.pkru == 0 { 0 } else { PKRU };
        x87 | sse | keys
    }

    /// Whether EFER.FFXSR keeps the XMM registers out of FXSAVE and FXRSTOR. APM vol 2, "Fast FXSAVE/FXRSTOR".
    fn fast_fxsave(&self) -> bool {
        self.efer.ffxsr() && self.cpl == 0 && self.is_64bit()
    }
}

fn is_wide(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), M::Fxsave64 | M::Fxrstor64 | M::Xsave64 | M::Xsaveopt64 | M::Xrstor64)
}

/// The checks that FXSAVE and FXRSTOR share, and the address of their area.
fn fxsave_area(cpu: &mut Cpu, instruction: &Instruction, access: Access) -> Outcome<u64> {
    if cpu.cr0.em() || cpu.cr0.ts() {
        return Err(Trap::NM);
    }
    let linear = cpu.memory_linear(instruction, LEGACY, access)?;
    if linear & 15 != 0 {
        return Err(Trap::GP0);
    }
    cpu.check_range(linear, LEGACY, access)?;
    Ok(linear)
}

fn fxsave(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let linear = fxsave_area(cpu, instruction, Access::Write)?;
    cpu.store_x87(linear, is_wide(instruction))?;
    if cpu.cr4.osfxsr() {
        cpu.store_mxcsr(linear)?;
        if !cpu.fast_fxsave() {
            cpu.store_xmm(linear)?;
        }
    }
    Ok(Flow::Next)
}

fn fxrstor(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let linear = fxsave_area(cpu, instruction, Access::Read)?;
    let fpu = cpu.load_x87(linear, is_wide(instruction))?;
    if cpu.cr4.osfxsr() {
        let mxcsr = cpu.load_mxcsr(linear)?;
        if !cpu.fast_fxsave() {
            cpu.xmm = cpu.load_xmm(linear)?;
        }
        cpu.mxcsr = mxcsr;
    }
    cpu.fpu = fpu;
    cpu.drive_numeric_error();
    Ok(Flow::Next)
}

/// The checks that XSAVE and XRSTOR share: the address of their area, and the requested-feature bitmap.
fn xsave_area(cpu: &mut Cpu, instruction: &Instruction, access: Access) -> Outcome<(u64, u64)> {
    if !cpu.cr4.osxsave() {
        return Err(Trap::UD);
    }
    if cpu.cr0.ts() {
        return Err(Trap::NM);
    }
    let linear = cpu.memory_linear(instruction, LEGACY + HEADER, access)?;
    if linear & 63 != 0 {
        return Err(Trap::GP0);
    }
    let mask = cpu.gpr(Gpr::Rdx) << 32 | cpu.gpr(Gpr::Rax) & 0xffff_ffff;
    Ok((linear, mask & cpu.xcr0))
}

/// XSAVE, and XSAVEOPT, which leaves out what is in its initial configuration. SDM vol 1, 13.7 "Operation of XSAVE", 13.9 "Operation of
/// XSAVEOPT".
fn xsave<const OPTIMIZED: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (linear, requested) = xsave_area(cpu, instruction, Access::Write)?;
    let header = cpu.further(linear, LEGACY);
    let in_use = cpu.components_in_use() & requested;
    let saved = if OPTIMIZED { in_use } else { requested };
    cpu.check_range(header, HEADER, Access::Write)?;
    if requested & (X87 | SSE) != 0 {
        cpu.check_range(linear, LEGACY, Access::Write)?;
    }
    let keys = cpu.further(linear, cpu.model.pkru_offset().into());
    if saved & PKRU != 0 {
        cpu.check_range(keys, 8, Access::Write)?;
    }
    let old = cpu.load(header, 8)?;
    if saved & X87 != 0 {
        cpu.store_x87(linear, is_wide(instruction))?;
    }
    if saved & SSE != 0 {
        cpu.store_xmm(linear)?;
    }
    if requested & SSE != 0 {
        cpu.store_mxcsr(linear)?;
    }
    if saved & PKRU != 0 {
        cpu.store(keys, 8, u64::from(cpu.pkru))?;
    }
    cpu.store(header, 8, old & !requested | in_use)?;
    Ok(Flow::Next)
}

/// XRSTOR of the standard format. SDM vol 1, 13.8.1 "Standard Form of XRSTOR".
fn xrstor(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (linear, requested) = xsave_area(cpu, instruction, Access::Read)?;
    let header = cpu.further(linear, LEGACY);
    let present = cpu.load(header, 8)?;
    // Without XSAVEC, bytes 23:8 of the header must be zero, and XCOMP_BV with them.
    let reserved = cpu.load(cpu.further(header, 8), 8)? | cpu.load(cpu.further(header, 16), 8)?;
    if present & !cpu.xcr0 != 0 || reserved != 0 {
        return Err(Trap::GP0);
    }
    let (loaded, mut fpu, mut xmm, mut mxcsr) = (requested & present, cpu.fpu.clone(), cpu.xmm, cpu.mxcsr);
    if requested & X87 != 0 {
        fpu = if loaded & X87 != 0 { cpu.load_x87(linear, is_wide(instruction))? } else { FpuState::initial() };
    }
    if requested & SSE != 0 {
        mxcsr = cpu.load_mxcsr(linear)?;
        if loaded & SSE != 0 {
            xmm = cpu.load_xmm(linear)?;
        } else {
            xmm[..cpu.xmm_count()].fill([0; 2]);
        }
    }
    let keys = if loaded & PKRU != 0 { cpu.load(cpu.further(linear, cpu.model.pkru_offset().into()), 4)? as u32 } else { 0 };
    (cpu.fpu, cpu.xmm, cpu.mxcsr) = (fpu, xmm, mxcsr);
    cpu.drive_numeric_error();
    if requested & PKRU != 0 {
        cpu.set_pkru(keys);
    }
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Fxsave | M::Fxsave64 => fxsave,
        M::Fxrstor | M::Fxrstor64 => fxrstor,
        M::Xsave | M::Xsave64 => xsave::<false>,
        M::Xsaveopt | M::Xsaveopt64 => xsave::<true>,
        M::Xrstor | M::Xrstor64 => xrstor,
        _ => return None,
    })
}
