//! PUSH and POP in 64-bit mode with 64-bit operands, LEAVE. Everything else about the stack is a plain function.

use super::place::Place;
use crate::insn::Insn;
use crate::interpretation::{Interpretation, Operation, Step};
use std::marker::PhantomData;

const RSP: u8 = 4;
const RBP: u8 = 5;

/// Stores below RSP and returns the new RSP; the caller sets it when nothing can fault any more.
#[inline(always)]
pub(crate) fn push<I: Interpretation>(i: &mut I, value: I::Value) -> Step<I, I::Value> {
    let stack = i.register(RSP);
    let eight = i.constant::<64>(8);
    let stack = i.subtract::<64>(stack, eight);
    i.store::<64>(stack, value)?;
    Ok(stack)
}

/// PUSH.
pub(crate) struct Push<S>(PhantomData<S>);

impl<S: Place> Operation for Push<S> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let value = S::read(i, insn, source)?;
        let stack = push(i, value)?;
        i.set_register(RSP, stack);
        Ok(())
    }
}

/// POP to register `a`.
pub(crate) struct Pop;

impl Operation for Pop {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let stack = i.register(RSP);
        let value = i.load::<64>(stack)?;
        let eight = i.constant::<64>(8);
        let stack = i.add::<64>(stack, eight);
        i.set_register(RSP, stack);
        // POP RSP leaves the value that was popped.
        i.set_register(insn.a, value);
        Ok(())
    }
}

/// LEAVE.
pub(crate) struct Leave;

impl Operation for Leave {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, _: &Insn) -> Step<I> {
        let frame = i.register(RBP);
        let value = i.load::<64>(frame)?;
        let eight = i.constant::<64>(8);
        let stack = i.add::<64>(frame, eight);
        i.set_register(RSP, stack);
        i.set_register(RBP, value);
        Ok(())
    }
}
