//! Which double-precision registers hold ordinary numbers at the heads of loops, so that their first use there needs no check.
//!
//! Arithmetic is compiled with a check that its operands are no denormals and its result is ordinary. What has passed such a check stays
//! ordinary until something else is moved to the register; where all ways into a block agree on that, the block may rely on it. Control that
//! comes through a door has passed no check, so the door makes it.

use super::plan::{Plan, is_double_arithmetic, writes};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic as M, Register};

/// The number of an XMM register operand.
fn xmm(instruction: &Instruction, operand: u32) -> Option<u32> {
    let register = instruction.op_register(operand);
    (operand < instruction.op_count() && register.is_xmm()).then(|| register as u32 - Register::XMM0 as u32)
}

/// The ordinary registers behind an instruction, by those before it.
fn behind(mut plain: u32, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u32 {
    let (to, from) = (xmm(instruction, 0), xmm(instruction, 1));
    if is_double_arithmetic(instruction) {
        return plain | [to, from].into_iter().flatten().fold(0, |bits, number| bits | 1 << number);
    }
    let ordinary = match (instruction.mnemonic(), to, from) {
        // The string instruction of this name has no register operands.
        (M::Movsd | M::Movapd | M::Movaps | M::Movupd | M::Movups | M::Movdqa | M::Movdqu, Some(to), Some(from)) => {
            Some((to, plain >> from & 1 != 0))
        }
        (M::Xorps | M::Xorpd | M::Pxor, Some(to), from) if from == Some(to) => Some((to, true)),
        _ => None,
    };
    for used in factory.info(instruction).used_registers() {
        if writes(used.access()) && used.register().is_vector_register() {
            plain &= !(1 << (used.register().number() as u32));
        }
    }
    match ordinary {
        Some((to, true)) => plain | 1 << to,
        _ => plain,
    }
}

/// The registers that have to be ordinary in front of an instruction, by those behind it: its operands, and what it moves on.
fn before(wanted: u32, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u32 {
    let (to, from) = (xmm(instruction, 0), xmm(instruction, 1));
    if is_double_arithmetic(instruction) {
        return [to, from].into_iter().flatten().fold(wanted, |wanted, number| wanted | 1 << number);
    }
    let moved = to.zip(from).filter(|(to, _)| wanted >> to & 1 != 0).map_or(0, |(_, from)| 1 << from);
    let used = factory.info(instruction).used_registers().iter();
    let written = used.filter(|used| writes(used.access()) && used.register().is_vector_register());
    written.fold(wanted, |wanted, used| wanted & !(1 << used.register().number())) | moved
}

impl Plan {
    /// Finds them.
    pub(super) fn find_plain(&mut self) {
        if !self.doubles {
            return;
        }
        let plain = self.agreed(self.used_low, behind, before);
        self.nodes.iter_mut().zip(plain).for_each(|(node, plain)| node.plain = plain);
    }
}
