//! MUL and IMUL. Divisions are plain functions, because they fault on a value.

use super::place::{Place, read_register, write_register};
use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Operation, Step};
use std::marker::PhantomData;

/// The low and high halves of a product of two `W`-bit values, each `W` bits wide.
#[inline(always)]
fn product<I: Interpretation, const W: u32>(i: &mut I, a: I::Value, b: I::Value, signed: bool) -> (I::Value, I::Value) {
    if W == 64 {
        return (i.multiply::<64>(a, b), i.multiply_high(a, b, signed));
    }
    let (a, b) = if signed { (i.sign_extend::<W>(a), i.sign_extend::<W>(b)) } else { (i.zero_extend::<W>(a), i.zero_extend::<W>(b)) };
    let whole = i.multiply::<64>(a, b);
    let count = i.constant::<64>(u64::from(W));
    let high = i.shift::<64>(FlagRule::ShiftRight, whole, count);
    (i.truncate::<W>(whole), i.truncate::<W>(high))
}

/// Whether the high half says more than the low one: CF and OF of a multiplication.
#[inline(always)]
fn significant<I: Interpretation, const W: u32>(i: &mut I, low: I::Value, high: I::Value, signed: bool) -> I::Value {
    let expected = if signed {
        let count = i.constant::<W>(u64::from(W) - 1);
        i.shift::<W>(FlagRule::ShiftArithmetic, low, count)
    } else {
        i.constant::<W>(0)
    };
    i.differ(high, expected)
}

/// IMUL with two operands (`D = D * S`, D register `a`) or three (`a = S * immediate`).
pub(crate) struct Imul<S, const W: u32, const IMMEDIATE: bool>(PhantomData<S>);

impl<S: Place, const W: u32, const IMMEDIATE: bool> Operation for Imul<S, W, IMMEDIATE> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let a = S::read(i, insn, source)?;
        let b = if IMMEDIATE { i.constant::<W>(insn.immediate) } else { read_register::<I, W>(i, insn.a) };
        let (low, high) = product::<I, W>(i, a, b, true);
        let overflow = significant::<I, W>(i, low, high, true);
        write_register::<I, W>(i, insn.a, low);
        i.set_flags::<W>(FlagRule::Multiply, a, overflow, low);
        Ok(())
    }
}

/// MUL and IMUL with one operand of 16, 32 or 64 bits: RDX:RAX = RAX * S.
pub(crate) struct Wide<S, const W: u32, const SIGNED: bool>(PhantomData<S>);

impl<S: Place, const W: u32, const SIGNED: bool> Operation for Wide<S, W, SIGNED> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let b = S::read(i, insn, source)?;
        let a = read_register::<I, W>(i, 0);
        let (low, high) = product::<I, W>(i, a, b, SIGNED);
        let overflow = significant::<I, W>(i, low, high, SIGNED);
        if W == 8 {
            // AX holds both halves.
            let count = i.constant::<64>(8);
            let high = i.zero_extend::<8>(high);
            let high = i.shift::<64>(FlagRule::ShiftLeft, high, count);
            let low_wide = i.zero_extend::<8>(low);
            let both = i.or::<64>(high, low_wide);
            let both = i.truncate::<16>(both);
            write_register::<I, 16>(i, 0, both);
        } else {
            write_register::<I, W>(i, 0, low);
            write_register::<I, W>(i, 2, high);
        }
        i.set_flags::<W>(FlagRule::Multiply, a, overflow, low);
        Ok(())
    }
}
