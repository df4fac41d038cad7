//! Which cost class an instruction belongs to.

use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind};
use timing::InstructionClass as Class;

/// The class of an instruction.
pub(crate) fn of(instruction: &Instruction) -> Class {
    let destination_in_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    let memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    match instruction.mnemonic() {
        M::Nop => Class::Nop,
        M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => {
            match (memory, destination_in_memory) {
                (false, _) => Class::RegisterMove,
                (true, true) => Class::Store,
                (true, false) => Class::Load,
            }
        }
        M::Lea => Class::Lea,
        M::Push => Class::Push,
        M::Pop => Class::Pop,
        M::Imul | M::Mul => {
            if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register && instruction.op0_register().size() == 8 {
                Class::Multiply64
            } else {
                Class::Multiply32
            }
        }
        _ => match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => Class::Branch,
            FlowControl::IndirectBranch => Class::BranchIndirect,
            FlowControl::Call | FlowControl::IndirectCall => Class::Call,
            FlowControl::Return => Class::NearReturn,
            _ if memory && destination_in_memory => Class::ReadModifyWrite,
            _ if memory => Class::LoadOp,
            _ => Class::Alu,
        },
    }
}
