//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: comparisons of strings of bytes or words.
//!
//! What is modelled: SDM vol 2, 4.1 "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM", all of it. Their memory
//! operand needs no alignment.

use super::operand::is_xmm;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::{Access, Outcome};
use iced_x86::{Instruction, Mnemonic as M};
use isa::register::Gpr;
use isa::rflags::Rflags;

/// A string in a register: its elements, sign- or zero-extended, and how many of them are valid.
struct Text {
    elements: [i32; 16],
    length: usize,
}

impl Text {
    /// Elements as bits 1:0 of the immediate say; all valid.
    fn new(value: u128, control: u8) -> Self {
        let words = control & 1 != 0;
        let elements = std::array::from_fn(|at| match (words, control & 2 != 0) {
            (true, _) if at >= 8 => 0,
            (true, false) => i32::from((value >> (16 * at)) as u16),
            (true, true) => i32::from((value >> (16 * at)) as i16),
            (false, false) => i32::from((value >> (8 * at)) as u8),
            (false, true) => i32::from((value >> (8 * at)) as i8),
        });
        Self { elements, length: if words { 8 } else { 16 } }
    }

    /// With the length that a register tells: its magnitude, at most all elements.
    fn explicit(mut self, length: i64) -> Self {
        self.length = usize::try_from(length.unsigned_abs()).map_or(self.length, |length| length.min(self.length));
        self
    }

    /// Ended by its first zero element.
    fn implicit(mut self) -> Self {
        self.length = self.elements[..self.length].iter().position(|element| *element == 0).unwrap_or(self.length);
        self
    }
}

/// The first intermediate result: a bit for each element of `b`. SDM vol 2, 4.1.3 "Aggregation Operation" and 4.1.6 "Valid/Invalid Override
/// of Comparisons".
fn aggregate(a: &Text, b: &Text, count: usize, control: u8) -> u32 {
    let valid_a = &a.elements[..a.length];
    let holds = |at: usize| {
        let element = b.elements[at];
        match control >> 2 & 3 {
            // Equal any.
            0 => at < b.length && valid_a.contains(&element),
            // Ranges: pairs of a lower and an upper bound.
            1 => at < b.length && valid_a.chunks_exact(2).any(|bounds| (bounds[0]..=bounds[1]).contains(&element)),
            // Equal each: what is valid in neither counts as equal.
            2 => match (at < a.length, at < b.length) {
                (true, true) => a.elements[at] == element,
                (false, false) => true,
                _ => false,
            },
            // Equal ordered: `a` as a whole, as far as it is valid and `b` reaches.
            _ => (0..count - at).all(|k| k >= a.length || (at + k < b.length && a.elements[k] == b.elements[at + k])),
        }
    };
    (0..count).fold(0, |bits, at| bits | u32::from(holds(at)) << at)
}

/// The four instructions: `EXPLICIT` lengths in (E)AX and (E)DX, `INDEX` to ECX or a mask to XMM0.
fn compare<const EXPLICIT: bool, const INDEX: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_sse()?;
    let control = instruction.immediate8();
    let b = if is_xmm(instruction, 1) {
        cpu.xmm_operand(instruction, 1)
    } else {
        let linear = cpu.memory_linear(instruction, 16, Access::Read)?;
        cpu.load_wide(linear)?
    };
    let (a, b) = (Text::new(cpu.xmm_operand(instruction, 0), control), Text::new(b, control));
    let count = a.length;
    let (a, b) = if EXPLICIT {
        let wide = matches!(instruction.mnemonic(), M::Pcmpestri64 | M::Pcmpestrm64);
        let length = |register: Gpr| {
            let value = cpu.gpr(register);
            if wide { value as i64 } else { i64::from(value as i32) }
        };
        (a.explicit(length(Gpr::Rax)), b.explicit(length(Gpr::Rdx)))
    } else {
        (a.implicit(), b.implicit())
    };
    let all = (1u32 << count) - 1;
    let first = aggregate(&a, &b, count, control);
    // SDM vol 2, 4.1.4 "Polarity".
    let second = match control >> 4 & 3 {
        1 => first ^ all,
        3 => first ^ ((1u32 << b.length) - 1),
        _ => first,
    };
    let from_the_top = control & 0x40 != 0;
    if INDEX {
        let index = match second {
            0 => count as u32,
            _ if from_the_top => second.ilog2(),
            _ => second.trailing_zeros(),
        };
        cpu.set_gpr(Gpr::Rcx, u64::from(index));
    } else {
        let bits = 128 / count;
        let element = (1u128 << bits) - 1;
        let mask = if from_the_top {
            (0..count).filter(|at| second >> at & 1 != 0).fold(0, |mask, at| mask | element << (bits * at))
        } else {
            u128::from(second)
        };
        cpu.xmm[0] = [mask as u64, (mask >> 64) as u64];
    }
    let status = Rflags::new().with_cf(second != 0).with_zf(b.length < count).with_sf(a.length < count).with_of(second & 1 != 0);
    cpu.set_all_status(status.into_bits());
    Ok(Flow::Next)
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Pcmpestri | M::Pcmpestri64 => compare::<true, true>,
        M::Pcmpestrm | M::Pcmpestrm64 => compare::<true, false>,
        M::Pcmpistri => compare::<false, true>,
        M::Pcmpistrm => compare::<false, false>,
        _ => return None,
    })
}
