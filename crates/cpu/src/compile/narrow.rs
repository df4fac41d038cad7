//! Which general registers hold 32-bit numbers at the beginnings of blocks, so that there the upper half need not be cleared again.
//!
//! A write of 32 bits clears the upper half (SDM vol 1, 3.4.1.1 "General-Purpose Registers in 64-Bit Mode"). Within a block the compiler
//! sees that for itself; where several ways meet it sees nothing, and each move between such registers is an instruction of its own. Where
//! all ways into a block agree, the block may rely on it. Control that comes through a door has come no way, so the door looks.

use super::plan::{Plan, writes};
use crate::operand::gpr_number;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register};

fn bit(register: Register) -> u32 {
    1 << gpr_number(register)
}

/// The narrow registers behind an instruction, by those before it.
fn behind(mut narrow: u32, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u32 {
    let info = factory.info(instruction);
    let written = info.used_registers().iter().filter(|used| writes(used.access()) && used.register().is_gpr());
    written.for_each(|used| narrow &= !bit(used.register()));
    let register = instruction.op_register(0);
    if instruction.op_kind(0) == OpKind::Register && register.is_gpr32() && always_writes(instruction) {
        narrow |= bit(register);
    }
    narrow
}

/// Whether an instruction writes its first operand whatever the others hold. BSF, CMOVcc, and shifts by nothing may leave it alone.
fn always_writes(instruction: &Instruction) -> bool {
    use M::*;
    let mnemonic = instruction.mnemonic();
    let moves = matches!(mnemonic, Mov | Movzx | Movsx | Movsxd | Lea | Pop | Bswap);
    let arithmetic = matches!(mnemonic, Add | Adc | Sub | Sbb | Inc | Dec | Neg | Imul | And | Or | Xor | Not);
    let shifts = matches!(mnemonic, Shl | Shr | Sar | Rol | Ror);
    moves || arithmetic || shifts && instruction.op_kind(1) == OpKind::Immediate8 && instruction.immediate8() & 31 != 0
}

/// The registers that an instruction, or what follows it, reads the lower half of, by those that what follows reads.
fn before(wanted: u32, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u32 {
    let used = factory.info(instruction).used_registers();
    let written = used.iter().filter(|used| writes(used.access()) && used.register().is_gpr());
    let wanted = written.fold(wanted, |wanted, used| wanted & !bit(used.register()));
    let read = used.iter().filter(|used| !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite) && used.register().is_gpr32());
    read.fold(wanted, |wanted, used| wanted | bit(used.register()))
}

impl Plan {
    /// Finds them.
    pub(super) fn find_narrow(&mut self) {
        let narrow = self.agreed(self.written, behind, before);
        self.nodes.iter_mut().zip(narrow).for_each(|(node, narrow)| node.narrow = narrow);
    }
}
