//! Which of the status flags an instruction needs and sets, and who may look at the ones it leaves.
//!
//! Both tiers leave out the work of flags that nobody sees; both ask here what an instruction does with them.

use crate::block::{Detail, MAXIMUM};
use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind, RflagsBits};

pub(crate) const STATUS: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// What an instruction does with the status flags.
pub(crate) struct StatusFlags {
    /// It looks at some of them.
    pub reads: bool,
    /// It changes some of them and leaves others as they were, or may: whoever looks behind it may see those before it.
    #[cfg(feature = "compiler")]
    pub mixes: bool,
    /// Whatever happens it gives all of them new values, unless it faults.
    pub sets_all: bool,
}

impl StatusFlags {
    pub(crate) fn of(instruction: &Instruction) -> Self {
        let changed = instruction.rflags_modified() & STATUS;
        let sets_all = changed == STATUS && !may_leave_all(instruction);
        Self {
            reads: instruction.rflags_read() & STATUS != 0,
            #[cfg(feature = "compiler")]
            mixes: changed != 0 && !sets_all,
            sets_all,
        }
    }
}

/// A shift by nothing and a string instruction repeated no times change no flag.
fn may_leave_all(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar if instruction.op1_kind() != OpKind::Register => {
            let quadword = match instruction.op0_kind() {
                OpKind::Register => instruction.op0_register().is_gpr64(),
                _ => instruction.memory_size().size() == 8,
            };
            instruction.immediate(1) & if quadword { 63 } else { 31 } == 0
        }
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd => true,
        _ => instruction.has_rep_prefix() || instruction.has_repne_prefix(),
    }
}

/// For each instruction, whether somebody may look at the flags it leaves: a later instruction of the block, the code behind the block, or a
/// fault handler.
pub(crate) fn live_flags(details: &[Detail]) -> [bool; MAXIMUM] {
    let mut live = true;
    let mut result = [true; MAXIMUM];
    for (place, Detail { instruction, .. }) in result[..details.len()].iter_mut().zip(details).rev() {
        *place = live;
        let flags = StatusFlags::of(instruction);
        live = live && !flags.sets_all || flags.reads || may_fault(instruction);
    }
    result
}

/// Whether an instruction may end in something else than the next one.
fn may_fault(instruction: &Instruction) -> bool {
    touches_memory(instruction) || instruction.flow_control() != FlowControl::Next || crate::system::find(instruction).is_some()
}

/// Whether it reads or writes memory. LEA and long NOPs only name it.
pub(crate) fn touches_memory(instruction: &Instruction) -> bool {
    let names_memory = (0..instruction.op_count()).any(|operand| !is_register_or_immediate(instruction.op_kind(operand)));
    names_memory && !matches!(instruction.mnemonic(), M::Lea | M::Nop) || instruction.is_stack_instruction()
}

fn is_register_or_immediate(kind: OpKind) -> bool {
    matches!(kind, OpKind::Register | OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64) || is_immediate(kind)
}

/// An immediate operand of whatever width.
pub(crate) fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}
