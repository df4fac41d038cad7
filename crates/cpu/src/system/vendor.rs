//! The instructions of VMX and SVM: decoded here, executed by the silicon.
//!
//! What is modelled: the description of the instruction that the silicon gets, operand included. A processor without virtualization hardware
//! answers #UD. What is not: GETSEC and SEAMCALL and their kin, which are decoded as nothing of ours.

use super::{Entry, Flow};
use crate::extension::Completion;
use crate::operand::{gpr_number, segment_of};
use crate::state::Cpu;
use crate::trap::{Intercept, MemoryOperand, Operand, Outcome, Trap, VendorInstruction};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use isa::register::Segment;

/// Which instruction of VMX or SVM it is.
fn operation(instruction: &Instruction) -> Option<Intercept> {
    Some(match instruction.mnemonic() {
        Mnemonic::Vmrun => Intercept::Vmrun,
        Mnemonic::Vmload => Intercept::Vmload,
        Mnemonic::Vmsave => Intercept::Vmsave,
        Mnemonic::Vmmcall => Intercept::Vmmcall,
        Mnemonic::Stgi => Intercept::Stgi,
        Mnemonic::Clgi => Intercept::Clgi,
        Mnemonic::Skinit => Intercept::Skinit,
        Mnemonic::Invlpga => Intercept::Invlpga,
        Mnemonic::Vmcall => Intercept::Vmcall,
        Mnemonic::Vmclear => Intercept::Vmclear,
        Mnemonic::Vmlaunch => Intercept::Vmlaunch,
        Mnemonic::Vmptrld => Intercept::Vmptrld,
        Mnemonic::Vmptrst => Intercept::Vmptrst,
        Mnemonic::Vmread => Intercept::Vmread,
        Mnemonic::Vmresume => Intercept::Vmresume,
        Mnemonic::Vmwrite => Intercept::Vmwrite,
        Mnemonic::Vmxoff => Intercept::Vmxoff,
        Mnemonic::Vmxon => Intercept::Vmxon,
        Mnemonic::Invept => Intercept::Invept,
        Mnemonic::Invvpid => Intercept::Invvpid,
        Mnemonic::Vmfunc => Intercept::Vmfunc,
        _ => return None,
    })
}

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match operation(instruction)? {
        // They change nothing that decoding, privilege or interrupts depend on: when they complete, the next instruction follows.
        Intercept::Vmread => Entry::plain(vmread),
        Intercept::Vmwrite => Entry::plain(vmwrite),
        _ => Entry::last(execute),
    }
}

/// VMREAD in its other forms; of registers it has a handler of its own, [`crate::direct::field`].
fn vmread(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    access_field(cpu, Intercept::Vmread, instruction)
}

/// VMWRITE likewise.
fn vmwrite(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    access_field(cpu, Intercept::Vmwrite, instruction)
}

fn access_field(cpu: &mut Cpu, operation: Intercept, instruction: &Instruction) -> Outcome<Flow> {
    let described = cpu.describe_operand(operation, instruction);
    match cpu.with_extension(|extension, cpu| extension.execute(cpu, &described)) {
        None => Err(Trap::UD),
        Some(outcome) => outcome.map(|_| Flow::Next),
    }
}

fn execute(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let Some(operation) = operation(instruction) else { return Err(Trap::UD) };
    let described = cpu.describe_operand(operation, instruction);
    match cpu.with_extension(|extension, cpu| extension.execute(cpu, &described)) {
        None => Err(Trap::UD),
        Some(Err(trap)) => Err(trap),
        Some(Ok(Completion::Next)) => Ok(Flow::End),
        Some(Ok(Completion::Entered)) => {
            cpu.leave = true;
            // A single step over the entry is no trap of the guest; the silicon knows whose it is.
            cpu.trace_cancelled = true;
            Ok(Flow::Jump)
        }
    }
}

/// The width of rAX as the address operand of VMRUN, VMLOAD, VMSAVE and INVLPGA, which have no memory operand to tell it.
fn implicit_address_bits(code: Code) -> Option<u8> {
    match code {
        Code::Vmrunw | Code::Vmloadw | Code::Vmsavew | Code::Invlpgaw => Some(16),
        Code::Vmrund | Code::Vmloadd | Code::Vmsaved | Code::Invlpgad => Some(32),
        Code::Vmrunq | Code::Vmloadq | Code::Vmsaveq | Code::Invlpgaq => Some(64),
        _ => None,
    }
}

impl Cpu {
    /// Describes an instruction to the silicon: its r/m operand in its parts, and the register that goes with it.
    pub(crate) fn describe_operand(&self, operation: Intercept, instruction: &Instruction) -> VendorInstruction {
        if instruction.op_count() == 2 && (0..2).all(|at| instruction.op_kind(at) == OpKind::Register) {
            // VMREAD and VMWRITE of registers, which a hypervisor executes most.
            let [first, second] = [instruction.op0_register(), instruction.op1_register()].map(gpr_number);
            let (register, rm) = if operation == Intercept::Vmwrite { (first, second) } else { (second, first) };
            return VendorInstruction {
                operation,
                length: instruction.len() as u8,
                address_bits: self.code_bits() as u8,
                operand_bits: if self.is_64bit() { 64 } else { 32 },
                register,
                operand: Operand::Register(rm),
            };
        }
        if instruction.op_count() == 0 {
            return VendorInstruction {
                operation,
                length: instruction.len() as u8,
                address_bits: implicit_address_bits(instruction.code()).unwrap_or(self.code_bits() as u8),
                operand_bits: if self.is_64bit() { 64 } else { 32 },
                register: 0,
                operand: Operand::None,
            };
        }
        let number = |register: Register| (register != Register::None).then(|| gpr_number(register));
        let mut is_memory = false;
        let mut registers = [None; 2];
        for at in 0..instruction.op_count() {
            match instruction.op_kind(at) {
                OpKind::Memory => is_memory = true,
                OpKind::Register => {
                    let place = usize::from(registers[0].is_some());
                    registers[place] = Some(gpr_number(instruction.op_register(at)));
                }
                _ => {}
            }
        }
        // Of two registers the r/m operand is the first, but for VMWRITE; a single register goes with a memory operand.
        let (register, rm) = match registers {
            [Some(register), _] if is_memory => (register, None),
            [Some(register), Some(rm)] if operation == Intercept::Vmwrite => (register, Some(rm)),
            [Some(rm), register] => (register.unwrap_or(0), Some(rm)),
            _ => (0, None),
        };
        let operand = if is_memory {
            let relative = instruction.is_ip_rel_memory_operand();
            Operand::Memory(MemoryOperand {
                segment: segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds),
                base: number(instruction.memory_base()).filter(|_| !relative),
                index: number(instruction.memory_index()),
                scale: instruction.memory_index_scale().trailing_zeros() as u8,
                // The displacement of a RIP-relative operand as iced-x86 tells it is the address; the manuals' is the distance.
                displacement: if relative {
                    instruction.ip_rel_memory_address().wrapping_sub(instruction.next_ip())
                } else {
                    instruction.memory_displacement64()
                },
                offset: self.effective_offset(instruction),
            })
        } else {
            rm.map_or(Operand::None, Operand::Register)
        };
        let address_bits = implicit_address_bits(instruction.code()).unwrap_or_else(|| self.address_bits(instruction) as u8);
        VendorInstruction {
            operation,
            length: instruction.len() as u8,
            address_bits,
            operand_bits: if self.is_64bit() { 64 } else { 32 },
            register,
            operand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bits: u32, bytes: &[u8]) -> Instruction {
        Decoder::with_ip(bits, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn encodings_name_their_operations() {
        let cases: [(&[u8], Intercept); 12] = [
            (&[0x0f, 0x01, 0xd8], Intercept::Vmrun),
            (&[0x0f, 0x01, 0xd9], Intercept::Vmmcall),
            (&[0x0f, 0x01, 0xda], Intercept::Vmload),
            (&[0x0f, 0x01, 0xdb], Intercept::Vmsave),
            (&[0x0f, 0x01, 0xdc], Intercept::Stgi),
            (&[0x0f, 0x01, 0xdd], Intercept::Clgi),
            (&[0x0f, 0x01, 0xde], Intercept::Skinit),
            (&[0x0f, 0x01, 0xdf], Intercept::Invlpga),
            (&[0x0f, 0x01, 0xc1], Intercept::Vmcall),
            (&[0x0f, 0x01, 0xc2], Intercept::Vmlaunch),
            (&[0x0f, 0x01, 0xc4], Intercept::Vmxoff),
            (&[0x0f, 0x01, 0xd4], Intercept::Vmfunc),
        ];
        for (bytes, expected) in cases {
            assert_eq!(operation(&decode(64, bytes)), Some(expected));
        }
        assert_eq!(operation(&decode(64, &[0x0f, 0xa2])), None);
    }

    #[test]
    fn operands_are_taken_apart() {
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        cpu.efer = cpu.efer.with_lma(true);
        cpu.segments[Segment::Cs as usize].attributes.set_l(true);
        cpu.regs[0] = 0x5000;
        cpu.regs[9] = 0x10;
        // vmread [rax + r9*4 + 8], rbx
        let described = cpu.describe_operand(Intercept::Vmread, &decode(64, &[0x42, 0x0f, 0x78, 0x5c, 0x88, 0x08]));
        let memory = MemoryOperand { segment: Segment::Ds, base: Some(0), index: Some(9), scale: 2, displacement: 8, offset: 0x5048 };
        assert_eq!((described.register, described.operand, described.address_bits), (3, Operand::Memory(memory), 64));
        // vmwrite rdx, rcx: the field is in the reg operand, the value in r/m.
        let described = cpu.describe_operand(Intercept::Vmwrite, &decode(64, &[0x0f, 0x79, 0xd1]));
        assert_eq!((described.register, described.operand), (2, Operand::Register(1)));
        // vmread rcx, rdx: the value goes to r/m, the field is in the reg operand.
        let described = cpu.describe_operand(Intercept::Vmread, &decode(64, &[0x0f, 0x78, 0xd1]));
        assert_eq!((described.register, described.operand), (2, Operand::Register(1)));
        // vmptrld [rip + 0x20]
        let described = cpu.describe_operand(Intercept::Vmptrld, &decode(64, &[0x0f, 0xc7, 0x35, 0x20, 0, 0, 0]));
        let Operand::Memory(memory) = described.operand else { panic!("a memory operand") };
        assert_eq!((memory.base, memory.displacement, memory.offset), (None, 0x20, 0x1027));
        // vmrun eax, with an address-size prefix
        let described = cpu.describe_operand(Intercept::Vmrun, &decode(64, &[0x67, 0x0f, 0x01, 0xd8]));
        assert_eq!((described.address_bits, described.length), (32, 4));
    }
}
