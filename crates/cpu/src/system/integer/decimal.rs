//! AAA, AAS, DAA, DAS, AAM, AAD, SALC, BOUND: instructions that 64-bit mode does not have.

use super::{AF, CF, OF, PF, SF, ZF, flag, result_flags};
use crate::operand::sign_extend;
use crate::state::Cpu;
use crate::system::Flow;
use crate::trap::{Access, Exception, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic, Register};
use isa::exception::Vector;

/// AAA and AAS. OF, SF, ZF and PF are undefined: OF is cleared, the others are of AL.
pub(super) fn ascii_adjust(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let ax = cpu.read_register(Register::AX);
    let adjust = ax & 0xf > 9 || cpu.rflags().af();
    let ax = match (adjust, instruction.mnemonic()) {
        (false, _) => ax,
        (true, Mnemonic::Aaa) => ax.wrapping_add(0x106),
        (true, _) => ax.wrapping_sub(0x106),
    };
    let ax = ax & 0xff0f;
    cpu.write_register(Register::AX, ax);
    cpu.set_status(CF | AF | OF | SF | ZF | PF, flag(CF | AF, adjust) | result_flags(8, ax & 0xff));
    Ok(Flow::Next)
}

/// DAA and DAS. OF is undefined and cleared.
pub(super) fn decimal_adjust(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let old = cpu.read_register(Register::AL);
    let (old_carry, old_adjust) = (cpu.rflags().cf(), cpu.rflags().af());
    let adds = instruction.mnemonic() == Mnemonic::Daa;
    let low = old & 0xf > 9 || old_adjust;
    let high = old > 0x99 || old_carry;
    let correction = u64::from(low) * 6 + u64::from(high) * 0x60;
    let al = if adds { old.wrapping_add(correction) } else { old.wrapping_sub(correction) } & 0xff;
    // DAS also borrows when the lower digit's correction does.
    let carry = high || (!adds && low && old < 6);
    cpu.write_register(Register::AL, al);
    cpu.set_status(CF | AF | OF | SF | ZF | PF, flag(CF, carry) | flag(AF, low) | result_flags(8, al));
    Ok(Flow::Next)
}

/// AAM: #DE for a base of zero. CF, OF and AF are undefined and cleared.
pub(super) fn aam(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let base = instruction.immediate8();
    let al = cpu.read_register(Register::AL) as u8;
    let (quotient, remainder) = al.checked_div(base).map(|quotient| (quotient, al % base)).ok_or(Trap::DE)?;
    cpu.write_register(Register::AX, u64::from(quotient) << 8 | u64::from(remainder));
    cpu.set_status(CF | AF | OF | SF | ZF | PF, result_flags(8, remainder.into()));
    Ok(Flow::Next)
}

/// AAD. CF, OF and AF are undefined and cleared.
pub(super) fn aad(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let [al, ah] = [Register::AL, Register::AH].map(|register| cpu.read_register(register));
    let sum = (al + ah * u64::from(instruction.immediate8())) & 0xff;
    cpu.write_register(Register::AX, sum);
    cpu.set_status(CF | AF | OF | SF | ZF | PF, result_flags(8, sum));
    Ok(Flow::Next)
}

/// SALC: AL becomes FFH if CF is set, else zero.
pub(super) fn salc(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    let value = if cpu.rflags().cf() { 0xff } else { 0 };
    cpu.write_register(Register::AL, value);
    Ok(Flow::Next)
}

/// BOUND: #BR if a signed index lies outside the two bounds in memory.
pub(super) fn bound(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let bytes = instruction.op_register(0).size() as u8;
    let width = u32::from(bytes) * 8;
    let linear = cpu.memory_linear(instruction, 2 * u64::from(bytes), Access::Read)?;
    let lower = cpu.load(linear, bytes)?;
    let upper = cpu.load(linear.wrapping_add(u64::from(bytes)) & 0xffff_ffff, bytes)?;
    let index = cpu.read_operand(instruction, 0)?;
    let [index, lower, upper] = [index, lower, upper].map(|value| sign_extend(width, value) as i64);
    if index < lower || index > upper {
        return Err(Trap::Exception(Exception::plain(Vector::BoundRange)));
    }
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use crate::state::Cpu;
    use crate::system::integer::find;
    use crate::trap::Trap;
    use iced_x86::{Decoder, DecoderOptions};
    use isa::register::Gpr;
    use isa::rflags::Rflags;

    /// Executes 32-bit code of one instruction on AX and RFLAGS.
    fn execute(bytes: &[u8], ax: u64, rflags: u64) -> Result<(u64, u64), Trap> {
        let mut cpu = Cpu::new(models::find("merom").expect("the model exists"), 0, 1, None);
        cpu.set_gpr(Gpr::Rax, ax);
        cpu.set_rflags(Rflags::from_bits(rflags));
        let instruction = Decoder::new(32, bytes, DecoderOptions::NONE).decode();
        let entry = find(&instruction).expect("the instruction is here");
        (entry.function)(&mut cpu, &instruction)?;
        Ok((cpu.gpr(Gpr::Rax), cpu.rflags().into_bits() & 0x8d5))
    }

    const CF: u64 = 1;
    const PF: u64 = 4;
    const AF: u64 = 0x10;
    const ZF: u64 = 0x40;
    const SF: u64 = 0x80;

    #[test]
    fn results_are_those_of_the_manual() {
        // Instruction, AX and flags before, AX and flags after. The examples of DAA and DAS in SDM vol 2 are among them.
        type Row = (&'static str, &'static [u8], u64, u64, u64, u64);
        let rows: [Row; 14] = [
            ("aaa", &[0x37], 0x000a, 0, 0x0100, CF | AF | ZF | PF),
            ("aaa", &[0x37], 0x0005, 0, 0x0005, PF),
            ("aaa", &[0x37], 0x02fa, 0, 0x0400, CF | AF | ZF | PF),
            ("aas", &[0x3f], 0x020f, 0, 0x0109, CF | AF | PF),
            ("aas", &[0x3f], 0x0213, AF, 0x010d, CF | AF),
            ("daa", &[0x27], 0xae, 0, 0x14, CF | AF | PF),
            ("daa", &[0x27], 0x2e, AF, 0x34, AF),
            ("daa", &[0x27], 0x42, CF, 0xa2, CF | SF),
            ("das", &[0x2f], 0xee, CF | AF, 0x88, CF | AF | SF | PF),
            ("das", &[0x2f], 0x03, AF, 0xfd, CF | AF | SF),
            ("aam", &[0xd4, 10], 0xff4f, 0, 0x0709, PF),
            ("aad", &[0xd5, 10], 0x0709, 0, 0x004f, 0),
            ("salc", &[0xd6], 0x1200, CF, 0x12ff, CF),
            ("salc", &[0xd6], 0x12ff, 0, 0x1200, 0),
        ];
        for (text, bytes, ax, flags, expected, expected_flags) in rows {
            assert_eq!(execute(bytes, ax, flags), Ok((expected, expected_flags)), "{text} of {ax:#x} with {flags:#x}");
        }
    }

    #[test]
    fn a_base_of_zero_is_a_divide_error() {
        assert_eq!(execute(&[0xd4, 0], 0x1234, 0), Err(Trap::DE));
    }
}
