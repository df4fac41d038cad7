//! Operands of 128 bits: XMM registers, and memory that faults as one access. Instructions that have an MMX twin find their operands by
//! the methods named `vector`, which serve registers of either kind; of an MMX register the upper 64 bits read as zero.

use crate::operand::{mask, segment_of};
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Instruction, OpKind, Register};

/// The number of an XMM register.
pub(super) fn xmm_number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::XMM0 as usize) & 15
}

/// Whether an operand is an XMM register.
pub(super) fn is_xmm(instruction: &Instruction, operand: u32) -> bool {
    operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_xmm()
}

/// Bits of the register that is operand 0 of an instruction with an MMX twin: 64 or 128.
pub(super) fn vector_bits(instruction: &Instruction) -> u32 {
    if instruction.op0_register().is_mm() { 64 } else { 128 }
}

/// Destination, and source in a register or memory, of an instruction that may have an MMX twin. `f` gets both, and the bits of a register.
#[inline(always)]
pub(super) fn binary_of_width(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u128, u32) -> u128) -> Outcome<Flow> {
    cpu.require_vector(instruction)?;
    let b = cpu.vector_source(instruction, 1)?;
    let a = cpu.vector_operand(instruction, 0);
    cpu.set_vector(instruction, f(a, b, vector_bits(instruction)));
    Ok(Flow::Next)
}

/// As [`binary_of_width`], for lanes that do not care how many they are.
#[inline(always)]
pub(super) fn binary(cpu: &mut Cpu, instruction: &Instruction, f: impl Fn(u128, u128) -> u128) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |a, b, _| f(a, b))
}

impl Cpu {
    /// Faults if the instruction cannot be executed now: by the rules of MMX if its destination is an MMX register, by those of SSE if not.
    #[inline(always)]
    pub(super) fn require_vector(&self, instruction: &Instruction) -> Outcome {
        if vector_bits(instruction) == 64 { self.require_mmx() } else { self.require_sse() }
    }

    /// The XMM or MMX register that is operand `operand`.
    #[inline(always)]
    pub(super) fn vector_operand(&self, instruction: &Instruction, operand: u32) -> u128 {
        let register = instruction.op_register(operand);
        if register.is_mm() { u128::from(self.mmx(register)) } else { self.xmm_operand(instruction, operand) }
    }

    /// An XMM or MMX register, or memory: 16 bytes that must be aligned, or 8 bytes if operand 0 is an MMX register.
    #[inline(always)]
    pub(super) fn vector_source(&mut self, instruction: &Instruction, operand: u32) -> Outcome<u128> {
        if vector_bits(instruction) == 64 {
            return self.mmx_source(instruction, operand).map(u128::from);
        }
        self.source(instruction, operand)
    }

    /// Sets the XMM or MMX register that is operand 0.
    #[inline(always)]
    pub(super) fn set_vector(&mut self, instruction: &Instruction, value: u128) {
        let register = instruction.op0_register();
        if register.is_mm() { self.set_mmx(register, value as u64) } else { self.set_xmm(instruction, value) }
    }

    /// The XMM register that is operand `operand`.
    pub(super) fn xmm_operand(&self, instruction: &Instruction, operand: u32) -> u128 {
        let [low, high] = self.xmm[xmm_number(instruction.op_register(operand))];
        u128::from(high) << 64 | u128::from(low)
    }

    /// Sets the XMM register that is operand 0.
    pub(super) fn set_xmm(&mut self, instruction: &Instruction, value: u128) {
        self.xmm[xmm_number(instruction.op0_register())] = [value as u64, (value >> 64) as u64];
    }

    /// Sets the low half of the XMM register that is operand 0.
    pub(super) fn set_xmm_low(&mut self, instruction: &Instruction, value: u64) {
        self.xmm[xmm_number(instruction.op0_register())][0] = value;
    }

    /// The linear address of an operand of 16 bytes, aligned or else #GP(0).
    pub(super) fn aligned_address(&self, instruction: &Instruction, access: Access) -> Outcome<u64> {
        let linear = self.memory_linear(instruction, 16, access)?;
        if linear & 15 == 0 { Ok(linear) } else { Err(Trap::GP0) }
    }

    /// An XMM register, or 16 bytes of memory that must be aligned.
    pub(super) fn source(&mut self, instruction: &Instruction, operand: u32) -> Outcome<u128> {
        if instruction.op_kind(operand) == OpKind::Register {
            return Ok(self.xmm_operand(instruction, operand));
        }
        let linear = self.aligned_address(instruction, Access::Read)?;
        self.load_wide(linear)
    }

    /// The low `bytes` bytes of an XMM register, or as many of memory, which need no alignment.
    pub(super) fn source_low(&mut self, instruction: &Instruction, operand: u32, bytes: u8) -> Outcome<u64> {
        if instruction.op_kind(operand) == OpKind::Register {
            return Ok(self.xmm_operand(instruction, operand) as u64 & mask(u32::from(bytes) * 8));
        }
        let linear = self.memory_linear(instruction, u64::from(bytes), Access::Read)?;
        self.load(linear, bytes)
    }

    /// A linear address further on, which wraps at 4 GiB outside long mode.
    pub(crate) fn further(&self, linear: u64, bytes: u64) -> u64 {
        let sum = linear.wrapping_add(bytes);
        if self.long_mode() { sum } else { sum & 0xffff_ffff }
    }

    /// Faults as an access to `bytes` bytes (at most a page) would, without making it.
    pub(crate) fn check_range(&mut self, linear: u64, bytes: u64, access: Access) -> Outcome {
        let privilege = self.privilege();
        self.translate(linear, access, privilege)?;
        if (linear & 0xfff) + bytes > 4096 {
            let last_page = self.further(linear, bytes - 1) & !0xfff;
            self.translate(last_page, access, privilege)?;
        }
        Ok(())
    }

    /// Reads 16 bytes at a linear address.
    pub(super) fn load_wide(&mut self, linear: u64) -> Outcome<u128> {
        if linear & 0xfff > 0xff0 {
            // Devices must not be read before the second page is known to be there.
            self.check_range(linear, 16, Access::Read)?;
        }
        let low = self.load(linear, 8)?;
        let high = self.load(self.further(linear, 8), 8)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 16 bytes at a linear address, all or none.
    pub(super) fn store_wide(&mut self, linear: u64, value: u128) -> Outcome {
        if linear & 0xfff > 0xff0 {
            self.check_range(linear, 16, Access::Write)?;
        }
        self.store(linear, 8, value as u64)?;
        self.store(self.further(linear, 8), 8, (value >> 64) as u64)
    }

    /// Linear address of the destination of MASKMOVDQU: `bytes` bytes from `skip` on at DS:rDI (or another segment by prefix).
    pub(super) fn implicit_destination(&self, instruction: &Instruction, skip: u64, bytes: u64) -> Outcome<u64> {
        let bits = match instruction.op0_kind() {
            OpKind::MemorySegRDI => 64,
            OpKind::MemorySegEDI => 32,
            _ => 16,
        };
        let offset = self.regs[isa::register::Gpr::Rdi.number()].wrapping_add(skip) & mask(bits);
        let segment = segment_of(instruction.memory_segment()).unwrap_or(isa::register::Segment::Ds);
        self.segment_address(segment, offset, bytes, Access::Write)
    }
}
