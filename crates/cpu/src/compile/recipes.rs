//! Flags that need not be stored at the end of a block, because registers tell them.
//!
//! A loop mostly ends with a comparison of registers that the jump back leaves as they are. Whoever may have to know the flags at the loop's
//! head (an access that leaves to the interpreter) can make them of the registers as the head finds them: then all that is stored on the way
//! back is which recipe that is, [`super::Handover::flag_code`], and an exit puts the operands beside it.

use super::plan::{Needs, Plan, writes};
use super::{DIFFERENCE, RESULT, SUM};
use crate::block::Block;
use crate::liveness::{STATUS, StatusFlags, is_immediate};
use crate::operand::{gpr_number, is_high_byte};
use iced_x86::{InstructionInfoFactory, Mnemonic, OpKind, Register};

/// How the flags at the end of a block follow from registers as they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub how: How,
    pub width: u32,
    pub register: u8,
    pub other: Source,
}

/// What was done to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Compared,
    Subtracted,
    Added,
    Tested,
}

/// The other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Register(u8),
    Constant(u64),
}

impl Recipe {
    /// What tells the interpreter's side of it.
    pub(super) fn code(&self) -> u64 {
        let kind = match self.how {
            How::Compared | How::Subtracted => DIFFERENCE,
            How::Added => SUM,
            How::Tested => RESULT,
        };
        kind | u64::from(self.width)
    }

    /// The recipe of a block's last instruction that sets flags, if nothing behind it changes its operands.
    fn of(block: &Block, count: usize) -> Option<Self> {
        let mut factory = InstructionInfoFactory::new();
        let mut changed = 0u32;
        for number in (0..count).rev() {
            let instruction = block.instruction(number as u16);
            if StatusFlags::of(instruction).sets_all {
                let how = match instruction.mnemonic() {
                    Mnemonic::Cmp => How::Compared,
                    Mnemonic::Sub => How::Subtracted,
                    Mnemonic::Add => How::Added,
                    Mnemonic::Test => How::Tested,
                    _ => return None,
                };
                let general = |operand: u32| {
                    let register = instruction.op_register(operand);
                    let usable = instruction.op_kind(operand) == OpKind::Register && register.is_gpr() && !is_high_byte(register);
                    usable.then(|| gpr_number(register))
                };
                let register = general(0)?;
                let other = if is_immediate(instruction.op_kind(1)) {
                    Source::Constant(instruction.immediate(1))
                } else {
                    Source::Register(general(1)?)
                };
                // What is changed by itself cannot be told from what it has become.
                let by_itself = other == Source::Register(register) && matches!(how, How::Subtracted | How::Added);
                let stands = |number: u8| changed >> number & 1 == 0;
                let all_stand = stands(register) && !matches!(other, Source::Register(number) if !stands(number));
                let width = instruction.op0_register().size() as u32 * 8;
                return (all_stand && !by_itself).then_some(Self { how, width, register, other });
            }
            if instruction.rflags_modified() & STATUS != 0 {
                return None;
            }
            for used in factory.info(instruction).used_registers() {
                let register = used.register().full_register();
                if register.is_gpr64() && writes(used.access()) {
                    changed |= 1 << (register as u32 - Register::RAX as u32);
                }
            }
        }
        None
    }
}

/// Whether a block, as far as it is compiled, gives all flags new values.
fn sets_all(block: &Block, count: usize) -> bool {
    (0..count).any(|number| StatusFlags::of(block.instruction(number as u16)).sets_all)
}

impl Plan {
    /// Finds the recipes: all ways back to a loop's head must have the same, and all other ways must know the flags well enough to store them.
    pub(super) fn find_recipes(&mut self) {
        for node in &mut self.nodes {
            node.leaves = Recipe::of(Block::at(node.block), node.count);
        }
        for head in 0..self.nodes.len() {
            if self.nodes[head].needs != Needs::Left {
                continue;
            }
            let mut recipe = None;
            let mut good = true;
            for (from, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.compiled_ways().any(|edge| edge.to == head)) {
                good &= sets_all(Block::at(node.block), node.count);
                if from >= head {
                    good &= node.leaves.is_some() && (recipe.is_none() || recipe == node.leaves);
                    recipe = node.leaves;
                }
            }
            self.nodes[head].finds = recipe.filter(|_| good);
        }
    }
}
