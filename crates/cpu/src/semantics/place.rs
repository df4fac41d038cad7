//! Where operands are: a place is found once, then read and written.

use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Step};
use crate::operand::mask;

/// An operand of `W` bits.
pub(crate) trait Place {
    /// Its width in bits.
    const W: u32;
    /// Where it was found.
    type At<I: Interpretation>: Copy;
    fn find<I: Interpretation>(i: &mut I, insn: &Insn) -> Self::At<I>;
    fn read<I: Interpretation>(i: &mut I, insn: &Insn, at: Self::At<I>) -> Step<I, I::Value>;
    /// Reads what will be written: faults as the write would.
    fn read_for_update<I: Interpretation>(i: &mut I, insn: &Insn, at: Self::At<I>) -> Step<I, I::Value>;
    fn write<I: Interpretation>(i: &mut I, insn: &Insn, at: Self::At<I>, value: I::Value) -> Step<I>;
}

/// The register `Insn::a`.
pub(crate) struct RegA<const W: u32>;
/// The register `Insn::b`.
pub(crate) struct RegB<const W: u32>;
/// The immediate.
pub(crate) struct Imm<const W: u32>;
/// Memory in 64-bit mode at `base + displacement`, or with `INDEXED` at `base + index * scale + displacement`.
pub(crate) struct Mem<const W: u32, const INDEXED: bool>;
/// Operand number `N` wherever it is: by the slow way.
pub(crate) struct Any<const W: u32, const N: u32>;

/// Sets a register of `W` bits: 32-bit writes clear the upper half, narrower ones keep the rest.
#[inline(always)]
pub(crate) fn write_register<I: Interpretation, const W: u32>(i: &mut I, number: u8, value: I::Value) {
    let value = i.zero_extend::<W>(value);
    if W >= 32 {
        return i.set_register(number, value);
    }
    let old = i.register(number);
    let keep = i.constant::<64>(!mask(W));
    let old = i.and::<64>(old, keep);
    let value = i.or::<64>(old, value);
    i.set_register(number, value);
}

/// Reads a register of `W` bits.
#[inline(always)]
pub(crate) fn read_register<I: Interpretation, const W: u32>(i: &mut I, number: u8) -> I::Value {
    let value = i.register(number);
    i.truncate::<W>(value)
}

macro_rules! register_place {
    ($place:ident, $field:ident) => {
        impl<const W: u32> Place for $place<W> {
            const W: u32 = W;
            type At<I: Interpretation> = ();
            #[inline(always)]
            fn find<I: Interpretation>(_: &mut I, _: &Insn) {}
            #[inline(always)]
            fn read<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
                Ok(read_register::<I, W>(i, insn.$field))
            }
            #[inline(always)]
            fn read_for_update<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
                Ok(read_register::<I, W>(i, insn.$field))
            }
            #[inline(always)]
            fn write<I: Interpretation>(i: &mut I, insn: &Insn, (): (), value: I::Value) -> Step<I> {
                write_register::<I, W>(i, insn.$field, value);
                Ok(())
            }
        }
    };
}
register_place!(RegA, a);
register_place!(RegB, b);

impl<const W: u32> Place for Imm<W> {
    const W: u32 = W;
    type At<I: Interpretation> = ();
    #[inline(always)]
    fn find<I: Interpretation>(_: &mut I, _: &Insn) {}
    #[inline(always)]
    fn read<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
        Ok(i.constant::<W>(insn.immediate))
    }
    #[inline(always)]
    fn read_for_update<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
        Self::read(i, insn, ())
    }
    #[inline(always)]
    fn write<I: Interpretation>(_: &mut I, _: &Insn, (): (), _: I::Value) -> Step<I> {
        unreachable!("selection makes no immediate a destination")
    }
}

/// The address of a memory operand that selection found to be flat.
#[inline(always)]
pub(crate) fn address<I: Interpretation, const INDEXED: bool>(i: &mut I, insn: &Insn) -> I::Value {
    let base = i.register(insn.base);
    let displacement = i.constant::<64>(i64::from(insn.displacement) as u64);
    let sum = i.add::<64>(base, displacement);
    if !INDEXED {
        return sum;
    }
    let index = i.register(insn.index);
    let scale = i.constant::<64>(u64::from(insn.scale));
    let index = i.shift::<64>(FlagRule::ShiftLeft, index, scale);
    i.add::<64>(sum, index)
}

impl<const W: u32, const INDEXED: bool> Place for Mem<W, INDEXED> {
    const W: u32 = W;
    type At<I: Interpretation> = I::Value;
    #[inline(always)]
    fn find<I: Interpretation>(i: &mut I, insn: &Insn) -> I::Value {
        address::<I, INDEXED>(i, insn)
    }
    #[inline(always)]
    fn read<I: Interpretation>(i: &mut I, _: &Insn, at: I::Value) -> Step<I, I::Value> {
        i.load::<W>(at)
    }
    #[inline(always)]
    fn read_for_update<I: Interpretation>(i: &mut I, _: &Insn, at: I::Value) -> Step<I, I::Value> {
        i.load_for_update::<W>(at)
    }
    #[inline(always)]
    fn write<I: Interpretation>(i: &mut I, _: &Insn, at: I::Value, value: I::Value) -> Step<I> {
        i.store::<W>(at, value)
    }
}

impl<const W: u32, const N: u32> Place for Any<W, N> {
    const W: u32 = W;
    type At<I: Interpretation> = ();
    #[inline(always)]
    fn find<I: Interpretation>(_: &mut I, _: &Insn) {}
    #[inline(always)]
    fn read<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
        i.operand::<W>(insn, N, false)
    }
    #[inline(always)]
    fn read_for_update<I: Interpretation>(i: &mut I, insn: &Insn, (): ()) -> Step<I, I::Value> {
        i.operand::<W>(insn, N, true)
    }
    #[inline(always)]
    fn write<I: Interpretation>(i: &mut I, insn: &Insn, (): (), value: I::Value) -> Step<I> {
        i.set_operand::<W>(insn, N, value)
    }
}
