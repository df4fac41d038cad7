//! Operands of an instruction as iced-x86 decoded it: for the instructions whose speed does not depend on a handler of their own.
//!
//! What is modelled: effective addresses with all address sizes, segment bases, limits and rights (SDM vol 3, 5.3 "Limit Checking" and 5.4
//! "Type Checking"), general-purpose registers of every width, segment registers, immediates.

use crate::state::Cpu;
use crate::trap::{Access, Outcome, Trap};
use iced_x86::{Instruction, OpKind, Register};
use isa::paging::is_canonical;
use isa::register::Segment;

/// The segment register that iced-x86 names.
pub(crate) fn segment_of(register: Register) -> Option<Segment> {
    Some(match register {
        Register::ES => Segment::Es,
        Register::CS => Segment::Cs,
        Register::SS => Segment::Ss,
        Register::DS => Segment::Ds,
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        _ => return None,
    })
}

/// The encoding of a general-purpose register of any width.
pub(crate) fn gpr_number(register: Register) -> u8 {
    (register.full_register() as u32).wrapping_sub(Register::RAX as u32) as u8
}

/// Whether a register is AH, CH, DH or BH.
pub(crate) fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// A mask of the low `bits` bits.
#[inline(always)]
pub const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Sign-extends the low `bits` bits.
#[inline(always)]
pub const fn sign_extend(bits: u32, value: u64) -> u64 {
    ((value << (64 - bits)) as i64 >> (64 - bits)) as u64
}

impl Cpu {
    /// A general-purpose register of any width, zero-extended.
    pub fn read_register(&self, register: Register) -> u64 {
        let value = self.regs[usize::from(gpr_number(register))];
        if is_high_byte(register) { value >> 8 & 0xff } else { value & mask(register.size() as u32 * 8) }
    }

    /// Sets a general-purpose register of any width: 32-bit writes clear the upper half, narrower ones keep the rest.
    pub fn write_register(&mut self, register: Register, value: u64) {
        let place = &mut self.regs[usize::from(gpr_number(register))];
        *place = match register.size() {
            1 if is_high_byte(register) => *place & !0xff00 | (value & 0xff) << 8,
            1 => *place & !0xff | value & 0xff,
            2 => *place & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// The offset of an instruction's memory operand in its segment, truncated to the address size.
    pub fn effective_offset(&self, instruction: &Instruction) -> u64 {
        if instruction.is_ip_rel_memory_operand() {
            return instruction.ip_rel_memory_address();
        }
        let part = |register: Register| if register == Register::None { 0 } else { self.read_register(register) };
        let base = part(instruction.memory_base());
        let index = part(instruction.memory_index()).wrapping_mul(u64::from(instruction.memory_index_scale()));
        let sum = base.wrapping_add(index).wrapping_add(instruction.memory_displacement64());
        sum & mask(self.address_bits(instruction))
    }

    /// The address size of an instruction's memory operand: 16, 32 or 64 bits.
    pub fn address_bits(&self, instruction: &Instruction) -> u32 {
        let named = [instruction.memory_base(), instruction.memory_index()].into_iter().find(|register| *register != Register::None);
        match named {
            Some(Register::RIP) => 64,
            Some(Register::EIP) => 32,
            Some(register) => register.size() as u32 * 8,
            None => match instruction.memory_displ_size() {
                8 => 64,
                4 => 32,
                2 => 16,
                _ => self.code_bits(),
            },
        }
    }

    /// The linear address of `bytes` bytes at an offset of a segment, with the segment's checks.
    pub fn segment_address(&self, segment: Segment, offset: u64, bytes: u64, access: Access) -> Outcome<u64> {
        let register = self.segment(segment);
        let fault = if segment == Segment::Ss { Trap::SS0 } else { Trap::GP0 };
        if self.is_64bit() {
            let base = if matches!(segment, Segment::Fs | Segment::Gs) { register.base } else { 0 };
            let linear = base.wrapping_add(offset);
            let inside = is_canonical(linear) && is_canonical(linear.wrapping_add(bytes - 1));
            return if inside { Ok(linear) } else { Err(fault) };
        }
        let attributes = register.attributes;
        if self.is_protected() {
            let allowed = register.is_usable()
                && match access {
                    Access::Read => attributes.is_readable(),
                    Access::Write => attributes.is_writable(),
                    Access::Fetch => attributes.is_code(),
                };
            if !allowed {
                return Err(fault);
            }
        }
        let (limit, last) = (u64::from(register.limit), offset.wrapping_add(bytes - 1));
        let inside = if attributes.is_expand_down() {
            offset > limit && last <= if attributes.db() { 0xffff_ffff } else { 0xffff }
        } else {
            last <= limit
        };
        if inside && last >= offset { Ok(register.base.wrapping_add(offset) & 0xffff_ffff) } else { Err(fault) }
    }

    /// The linear address of an instruction's memory operand.
    pub fn memory_linear(&self, instruction: &Instruction, bytes: u64, access: Access) -> Outcome<u64> {
        let segment = segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds);
        self.segment_address(segment, self.effective_offset(instruction), bytes, access)
    }

    /// Bytes of an operand.
    pub fn operand_bytes(&self, instruction: &Instruction, operand: u32) -> u8 {
        match instruction.op_kind(operand) {
            OpKind::Register => instruction.op_register(operand).size() as u8,
            _ => instruction.memory_size().size() as u8,
        }
    }

    /// Reads operand `operand`: a register, memory, or an immediate (sign-extended as encoded).
    pub fn read_operand(&mut self, instruction: &Instruction, operand: u32) -> Outcome<u64> {
        self.read_operand_as(instruction, operand, Access::Read)
    }

    /// Reads an operand that the instruction will write, too.
    pub fn read_operand_for_update(&mut self, instruction: &Instruction, operand: u32) -> Outcome<u64> {
        self.read_operand_as(instruction, operand, Access::Write)
    }

    fn read_operand_as(&mut self, instruction: &Instruction, operand: u32, access: Access) -> Outcome<u64> {
        match instruction.op_kind(operand) {
            OpKind::Register => {
                let register = instruction.op_register(operand);
                match segment_of(register) {
                    Some(segment) => Ok(u64::from(self.segment(segment).selector.into_bits())),
                    None => Ok(self.read_register(register)),
                }
            }
            OpKind::Memory => {
                let bytes = self.operand_bytes(instruction, operand);
                let linear = self.memory_linear(instruction, u64::from(bytes), access)?;
                self.load_as(linear, bytes, access, self.privilege())
            }
            _ => Ok(instruction.immediate(operand)),
        }
    }

    /// Writes operand `operand`: a general-purpose register or memory.
    pub fn write_operand(&mut self, instruction: &Instruction, operand: u32, value: u64) -> Outcome {
        if instruction.op_kind(operand) == OpKind::Register {
            self.write_register(instruction.op_register(operand), value);
            return Ok(());
        }
        let bytes = self.operand_bytes(instruction, operand);
        let linear = self.memory_linear(instruction, u64::from(bytes), Access::Write)?;
        self.store(linear, bytes, value)
    }
}
