//! Which double-precision registers hold ordinary numbers at the heads of loops, so that their first use there needs no check.
//!
//! Arithmetic is compiled with a check that its operands are no denormals and its result is ordinary. What has passed such a check stays
//! ordinary until something else is moved to the register; where all ways into a block agree on that, the block may rely on it. Control that
//! comes through a door has passed no check, so the door makes it.

use super::plan::{Plan, is_double_arithmetic};
use crate::block::Block;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, Register};

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
        let writes = !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        if writes && used.register().is_vector_register() {
            plain &= !(1 << (used.register().number() as u32));
        }
    }
    match ordinary {
        Some((to, true)) => plain | 1 << to,
        _ => plain,
    }
}

impl Plan {
    /// Finds them: the most that all ways into each block agree on.
    pub(super) fn find_plain(&mut self) {
        if !self.doubles {
            return;
        }
        // Of what is never written nothing is known but what a door finds, and nobody has to hand it on.
        self.nodes.iter_mut().for_each(|node| node.plain = self.used_low);
        let mut factory = InstructionInfoFactory::new();
        loop {
            let mut changed = false;
            for from in 0..self.nodes.len() {
                let (block, count) = (Block::at(self.nodes[from].block), self.nodes[from].count);
                let instructions = (0..count).map(|number| block.instruction(number as u16));
                let plain = instructions.fold(self.nodes[from].plain, |plain, instruction| behind(plain, instruction, &mut factory));
                let targets: Vec<usize> = self.nodes[from].compiled_ways().map(|edge| edge.to).collect();
                for to in targets {
                    changed |= self.nodes[to].plain & !plain != 0;
                    self.nodes[to].plain &= plain;
                }
            }
            if !changed {
                break;
            }
        }
        // Only what a block uses, so that a door need not refuse what does not matter.
        for node in &mut self.nodes {
            node.plain &= own_operands(Block::at(node.block), node.count);
        }
    }
}

/// The registers that arithmetic of a block has as operands.
fn own_operands(block: &Block, count: usize) -> u32 {
    let arithmetic = (0..count).map(|number| block.instruction(number as u16)).filter(|instruction| is_double_arithmetic(instruction));
    arithmetic.flat_map(|instruction| [xmm(instruction, 0), xmm(instruction, 1)]).flatten().fold(0, |bits, number| bits | 1 << number)
}
