//! ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST, INC, DEC, NEG, NOT.

use super::place::Place;
use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Operation, Step};
use std::marker::PhantomData;

/// What a two-operand instruction computes.
pub(crate) trait Function {
    /// Whether the destination is written.
    const WRITES: bool = true;
    /// How its flags follow.
    const RULE: FlagRule;
    fn apply<I: Interpretation, const W: u32>(i: &mut I, a: I::Value, b: I::Value) -> I::Value;
}

macro_rules! functions {
    ($($name:ident $rule:ident $writes:literal |$i:ident, $a:ident, $b:ident| $value:expr;)*) => { $(
        pub(crate) struct $name;
        impl Function for $name {
            const WRITES: bool = $writes;
            const RULE: FlagRule = FlagRule::$rule;
            #[inline(always)]
            fn apply<I: Interpretation, const W: u32>($i: &mut I, $a: I::Value, $b: I::Value) -> I::Value { $value }
        }
    )* };
}

functions! {
    Add Add true |i, a, b| i.add::<W>(a, b);
    Adc Add true |i, a, b| {
        let sum = i.add::<W>(a, b);
        let carry = i.carry();
        let carry = i.truncate::<W>(carry);
        i.add::<W>(sum, carry)
    };
    Sub Subtract true |i, a, b| i.subtract::<W>(a, b);
    Sbb Subtract true |i, a, b| {
        let difference = i.subtract::<W>(a, b);
        let carry = i.carry();
        let carry = i.truncate::<W>(carry);
        i.subtract::<W>(difference, carry)
    };
    Cmp Subtract false |i, a, b| i.subtract::<W>(a, b);
    And Logic true |i, a, b| i.and::<W>(a, b);
    Test Logic false |i, a, b| i.and::<W>(a, b);
    Or Logic true |i, a, b| i.or::<W>(a, b);
    Xor Logic true |i, a, b| i.xor::<W>(a, b);
}

/// `D = F(D, S)`. Without `FLAGS` nobody reads the flags before they are set again.
pub(crate) struct Binary<F, D, S, const W: u32, const FLAGS: bool>(PhantomData<(F, D, S)>);

impl<F: Function, D: Place, S: Place, const W: u32, const FLAGS: bool> Operation for Binary<F, D, S, W, FLAGS> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let destination = D::find(i, insn);
        let source = S::find(i, insn);
        let b = S::read(i, insn, source)?;
        let a = if F::WRITES { D::read_for_update(i, insn, destination)? } else { D::read(i, insn, destination)? };
        let result = F::apply::<I, W>(i, a, b);
        if F::WRITES {
            D::write(i, insn, destination, result)?;
        }
        if FLAGS {
            i.set_flags::<W>(F::RULE, a, b, result);
        }
        Ok(())
    }
}

/// What a one-operand instruction does: INC, DEC, NEG, NOT.
pub(crate) const INC: u8 = 0;
/// See [`INC`].
pub(crate) const DEC: u8 = 1;
/// See [`INC`].
pub(crate) const NEG: u8 = 2;
/// See [`INC`].
pub(crate) const NOT: u8 = 3;

/// `D = K(D)`.
pub(crate) struct Unary<const K: u8, D, const W: u32>(PhantomData<D>);

impl<const K: u8, D: Place, const W: u32> Operation for Unary<K, D, W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let place = D::find(i, insn);
        let old = D::read_for_update(i, insn, place)?;
        let zero = i.constant::<W>(0);
        let one = i.constant::<W>(1);
        let (rule, a, b, result) = match K {
            INC => (FlagRule::Increment, old, one, i.add::<W>(old, one)),
            DEC => (FlagRule::Decrement, old, one, i.subtract::<W>(old, one)),
            NEG => (FlagRule::Subtract, zero, old, i.subtract::<W>(zero, old)),
            _ => (FlagRule::Logic, old, old, i.not::<W>(old)),
        };
        D::write(i, insn, place, result)?;
        if K != NOT {
            i.set_flags::<W>(rule, a, b, result);
        }
        Ok(())
    }
}
