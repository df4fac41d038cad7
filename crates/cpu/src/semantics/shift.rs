//! SHL, SHR, SAR, ROL, ROR by an immediate or by CL. Rotations through carry and double shifts are plain functions.

use super::place::{Place, read_register};
use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Operation, Step};
use std::marker::PhantomData;

/// Numbers of the operations, for the const generic below.
pub(crate) const SHL: u8 = 0;
/// See [`SHL`].
pub(crate) const SHR: u8 = 1;
/// See [`SHL`].
pub(crate) const SAR: u8 = 2;
/// See [`SHL`].
pub(crate) const ROL: u8 = 3;
/// See [`SHL`].
pub(crate) const ROR: u8 = 4;

const fn rule(kind: u8) -> FlagRule {
    match kind {
        SHL => FlagRule::ShiftLeft,
        SHR => FlagRule::ShiftRight,
        SAR => FlagRule::ShiftArithmetic,
        ROL => FlagRule::RotateLeft,
        _ => FlagRule::RotateRight,
    }
}

/// Shift or rotation by an immediate of 1 to 31 (63): selection turns a count of zero into no operation.
pub(crate) struct ShiftImmediate<const K: u8, D, const W: u32, const FLAGS: bool>(PhantomData<D>);

impl<const K: u8, D: Place, const W: u32, const FLAGS: bool> Operation for ShiftImmediate<K, D, W, FLAGS> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let place = D::find(i, insn);
        let value = D::read_for_update(i, insn, place)?;
        let count = i.constant::<W>(insn.immediate);
        let result = i.shift::<W>(rule(K), value, count);
        D::write(i, insn, place, result)?;
        if FLAGS {
            i.set_flags::<W>(rule(K), value, count, result);
        }
        Ok(())
    }
}

/// Shift or rotation by CL, masked to five bits (six for 64-bit operands); a count of zero changes no flag.
pub(crate) struct ShiftByCl<const K: u8, D, const W: u32>(PhantomData<D>);

impl<const K: u8, D: Place, const W: u32> Operation for ShiftByCl<K, D, W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let place = D::find(i, insn);
        let value = D::read_for_update(i, insn, place)?;
        let count = read_register::<I, W>(i, 1);
        let bits = i.constant::<W>(if W == 64 { 63 } else { 31 });
        let count = i.and::<W>(count, bits);
        let result = i.shift::<W>(rule(K), value, count);
        D::write(i, insn, place, result)?;
        let zero = i.constant::<W>(0);
        let counted = i.differ(count, zero);
        i.set_flags_if::<W>(counted, rule(K), value, count, result);
        Ok(())
    }
}
