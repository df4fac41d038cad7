//! Integer instructions that are plain functions: divisions, double and through-carry shifts, bit strings, bit manipulation, compare and
//! exchange, decimal adjustment, flags, and the like.
//!
//! What is modelled: SDM vol 2, each instruction by its name; APM vol 3 agrees in what is defined. Where the manuals leave a flag or a result
//! undefined, what recent Intel processors do is done where that is known (the host-oracle test says where), else the flag stays.

mod bits;
mod decimal;
mod divide;
mod exchange;
mod manipulate;
mod moves;
mod random;
mod shift;

use super::{Entry, Flow};
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, OpKind};
use isa::rflags::Rflags;

/// CF at its place in RFLAGS.
const CF: u64 = Rflags::new().with_cf(true).into_bits();
/// PF.
const PF: u64 = Rflags::new().with_pf(true).into_bits();
/// AF.
const AF: u64 = Rflags::new().with_af(true).into_bits();
/// ZF.
const ZF: u64 = Rflags::new().with_zf(true).into_bits();
/// SF.
const SF: u64 = Rflags::new().with_sf(true).into_bits();
/// OF.
const OF: u64 = Rflags::new().with_of(true).into_bits();

/// A flag if a condition holds.
const fn flag(bit: u64, condition: bool) -> u64 {
    if condition { bit } else { 0 }
}

/// SF, ZF and PF of a result of `width` bits.
const fn result_flags(width: u32, result: u64) -> u64 {
    flag(SF, result >> (width - 1) & 1 != 0) | flag(ZF, result == 0) | flag(PF, (result as u8).count_ones() & 1 == 0)
}

/// Width of an operand in bits.
fn width_of(instruction: &Instruction, operand: u32) -> u32 {
    match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).size() as u32 * 8,
        _ => instruction.memory_size().size() as u32 * 8,
    }
}

/// The function of an instruction of this module.
pub(crate) fn find(instruction: &Instruction) -> Option<Entry> {
    if instruction.encoding() == EncodingKind::VEX {
        return Entry::plain(match instruction.mnemonic() {
            M::Andn | M::Bextr | M::Blsi | M::Blsmsk | M::Blsr | M::Bzhi | M::Pdep | M::Pext => manipulate::with_flags,
            M::Mulx => manipulate::mulx,
            M::Rorx | M::Sarx | M::Shlx | M::Shrx => manipulate::shift,
            _ => return None,
        });
    }
    Entry::plain(match instruction.mnemonic() {
        M::Div => divide::div,
        M::Idiv => divide::idiv,
        M::Rcl | M::Rcr => shift::through_carry,
        M::Shld | M::Shrd => shift::double,
        M::Bt | M::Bts | M::Btr | M::Btc => bits::bit_test,
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt => bits::scan,
        M::Popcnt => bits::popcnt,
        M::Crc32 => bits::crc32,
        M::Adcx | M::Adox => manipulate::add_with_one_flag,
        M::Movbe => moves::movbe,
        M::Bswap => moves::bswap16,
        M::Lea => moves::lea,
        M::Xlatb => moves::xlat,
        M::Cmpxchg => exchange::cmpxchg,
        M::Cmpxchg8b | M::Cmpxchg16b => exchange::cmpxchg_pair,
        M::Xadd => exchange::xadd,
        M::Aaa | M::Aas => decimal::ascii_adjust,
        M::Daa | M::Das => decimal::decimal_adjust,
        M::Aam => decimal::aam,
        M::Aad => decimal::aad,
        M::Salc => decimal::salc,
        M::Bound => decimal::bound,
        M::Lahf => lahf,
        M::Sahf => sahf,
        M::Clc | M::Stc | M::Cmc | M::Cld | M::Std => set_flag,
        M::Clflush | M::Clflushopt | M::Clwb => moves::cache_line,
        M::Rdrand | M::Rdseed => random::read,
        _ => return None,
    })
}

/// LAHF and SAHF are #UD in 64-bit mode on the first processors that had it.
fn check_lahf(cpu: &Cpu) -> Outcome {
    if cpu.is_64bit() && !cpu.has(isa::cpuid::Feature::Lahf64) { Err(Trap::UD) } else { Ok(()) }
}

fn lahf(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    check_lahf(cpu)?;
    let flags = cpu.rflags().into_bits() & 0xff;
    cpu.write_register(iced_x86::Register::AH, flags);
    Ok(Flow::Next)
}

fn sahf(cpu: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    check_lahf(cpu)?;
    let flags = cpu.read_register(iced_x86::Register::AH);
    cpu.set_status(SF | ZF | AF | PF | CF, flags);
    Ok(Flow::Next)
}

/// CLC, STC, CMC, CLD, STD.
fn set_flag(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let carry = cpu.rflags().cf();
    match instruction.mnemonic() {
        M::Clc => cpu.set_status(CF, 0),
        M::Stc => cpu.set_status(CF, CF),
        M::Cmc => cpu.set_status(CF, flag(CF, !carry)),
        direction => cpu.system_flags = cpu.system_flags().with_df(direction == M::Std).into_bits(),
    }
    Ok(Flow::Next)
}
