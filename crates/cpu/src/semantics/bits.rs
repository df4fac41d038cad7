//! BT, BTS, BTR, BTC of a register with a register or immediate index. Bit strings in memory are plain functions.

use super::place::{read_register, write_register};
use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Operation, Step};

/// Numbers of the operations: test, set, reset, complement.
pub(crate) const BT: u8 = 0;
/// See [`BT`].
pub(crate) const BTS: u8 = 1;
/// See [`BT`].
pub(crate) const BTR: u8 = 2;
/// See [`BT`].
pub(crate) const BTC: u8 = 3;

/// CF becomes bit `b` (or the immediate, with `IMMEDIATE`) modulo `W` of register `a`; then the bit is set, reset or complemented.
pub(crate) struct BitTest<const K: u8, const W: u32, const IMMEDIATE: bool>;

impl<const K: u8, const W: u32, const IMMEDIATE: bool> Operation for BitTest<K, W, IMMEDIATE> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let value = read_register::<I, W>(i, insn.a);
        let index = if IMMEDIATE { i.constant::<W>(insn.immediate) } else { read_register::<I, W>(i, insn.b) };
        let modulus = i.constant::<W>(u64::from(W) - 1);
        let index = i.and::<W>(index, modulus);
        // A rotation brings the bit to where a rotation's flag rule looks for CF; OF, which the manual leaves undefined, follows that rule.
        let one = i.constant::<W>(1);
        let bit = i.shift::<W>(FlagRule::ShiftLeft, one, index);
        let low = i.shift::<W>(FlagRule::ShiftRight, value, index);
        if K != BT {
            let changed = match K {
                BTS => i.or::<W>(value, bit),
                BTC => i.xor::<W>(value, bit),
                _ => {
                    let others = i.not::<W>(bit);
                    i.and::<W>(value, others)
                }
            };
            write_register::<I, W>(i, insn.a, changed);
        }
        i.set_flags::<W>(FlagRule::RotateLeft, low, one, low);
        Ok(())
    }
}
