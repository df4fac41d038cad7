//! Near jumps, calls and returns in 64-bit mode; Jcc and JMP to a direct target in every mode.

use super::place::Place;
use super::stack::push;
use crate::insn::Insn;
use crate::interpretation::{Branch, Interpretation, Step};
use std::marker::PhantomData;

const RSP: u8 = 4;

/// Jcc.
pub(crate) struct Jcc<const CODE: u8>;

impl<const CODE: u8> Branch for Jcc<CODE> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        let condition = i.condition(CODE);
        Ok(i.branch(insn, condition))
    }
}

/// JMP to a direct target.
pub(crate) struct Jump;

impl Branch for Jump {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        Ok(i.jump(insn))
    }
}

/// JMP to a register or memory operand.
pub(crate) struct JumpIndirect<S>(PhantomData<S>);

impl<S: Place> Branch for JumpIndirect<S> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        let source = S::find(i, insn);
        let target = S::read(i, insn, source)?;
        i.jump_to(insn, target)
    }
}

/// CALL of a direct target.
pub(crate) struct Call;

impl Branch for Call {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        let back = i.next_rip(insn);
        let back = i.constant::<64>(back);
        let stack = push(i, back)?;
        i.set_register(RSP, stack);
        Ok(i.jump(insn))
    }
}

/// CALL of a register or memory operand.
pub(crate) struct CallIndirect<S>(PhantomData<S>);

impl<S: Place> Branch for CallIndirect<S> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        let source = S::find(i, insn);
        let target = S::read(i, insn, source)?;
        // The target is checked before anything is pushed: a CALL to an address that is not canonical faults whole.
        let next = i.jump_to(insn, target)?;
        let back = i.next_rip(insn);
        let back = i.constant::<64>(back);
        let stack = push(i, back)?;
        i.set_register(RSP, stack);
        Ok(next)
    }
}

/// RET, and with a non-zero immediate RET imm16.
pub(crate) struct Return;

impl Branch for Return {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next> {
        let stack = i.register(RSP);
        let target = i.load::<64>(stack)?;
        let next = i.jump_to(insn, target)?;
        let release = i.constant::<64>(8 + insn.immediate);
        let stack = i.add::<64>(stack, release);
        i.set_register(RSP, stack);
        Ok(next)
    }
}
