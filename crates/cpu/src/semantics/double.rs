//! The scalar double-precision instructions and 128-bit moves that compiled code is full of. All other SSE is in [`crate::sse`].

use super::place::{Place, address};
use crate::insn::Insn;
use crate::interpretation::{DoubleOperation, Interpretation, Operation, Step};
use std::marker::PhantomData;

/// Numbers of the operations, for the const generic below.
const fn kind(number: u8) -> DoubleOperation {
    match number {
        0 => DoubleOperation::Add,
        1 => DoubleOperation::Subtract,
        2 => DoubleOperation::Multiply,
        _ => DoubleOperation::Divide,
    }
}

/// ADDSD, SUBSD, MULSD, DIVSD with register `b` as the source.
pub(crate) struct DoubleRegister<const K: u8>;

impl<const K: u8> Operation for DoubleRegister<K> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let (a, b) = (i.double(insn.a), i.double(insn.b));
        let result = i.double_arithmetic(insn, kind(K), a, b)?;
        i.set_double(insn.a, result);
        Ok(())
    }
}

/// The same with a memory source.
pub(crate) struct DoubleMemory<const K: u8, S>(PhantomData<S>);

impl<const K: u8, S: Place> Operation for DoubleMemory<K, S> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let b = S::read(i, insn, source)?;
        let (a, b) = (i.double(insn.a), i.double_from_bits(b));
        let result = i.double_arithmetic(insn, kind(K), a, b)?;
        i.set_double(insn.a, result);
        Ok(())
    }
}

/// MOVSD, MOVQ and MOVSS, MOVD from memory of `W` bits: the rest of the register is cleared.
pub(crate) struct LoadLow<S, const W: u32>(PhantomData<S>);

impl<S: Place, const W: u32> Operation for LoadLow<S, W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let value = S::read(i, insn, source)?;
        let value = i.zero_extend::<W>(value);
        let zero = i.constant::<64>(0);
        i.set_xmm_half(insn.a, 0, value);
        i.set_xmm_half(insn.a, 1, zero);
        Ok(())
    }
}

/// MOVSD, MOVQ, MOVSS, MOVD to memory: the low `W` bits of register `b`.
pub(crate) struct StoreLow<D, const W: u32>(PhantomData<D>);

impl<D: Place, const W: u32> Operation for StoreLow<D, W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let place = D::find(i, insn);
        let value = i.xmm_half(insn.b, 0);
        let value = i.truncate::<W>(value);
        D::write(i, insn, place, value)
    }
}

/// MOVSD between registers: the high half stays.
pub(crate) struct MoveLow;

impl Operation for MoveLow {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let value = i.xmm_half(insn.b, 0);
        i.set_xmm_half(insn.a, 0, value);
        Ok(())
    }
}

/// MOVAPS, MOVAPD, MOVDQA, MOVUPS, MOVUPD, MOVDQU between registers.
pub(crate) struct MoveWhole;

impl Operation for MoveWhole {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let (low, high) = (i.xmm_half(insn.b, 0), i.xmm_half(insn.b, 1));
        i.set_xmm_half(insn.a, 0, low);
        i.set_xmm_half(insn.a, 1, high);
        Ok(())
    }
}

/// MOVUPS, MOVUPD, MOVDQU from memory.
pub(crate) struct LoadWhole<const INDEXED: bool>;

impl<const INDEXED: bool> Operation for LoadWhole<INDEXED> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let at = address::<I, INDEXED>(i, insn);
        let low = i.load::<64>(at)?;
        let eight = i.constant::<64>(8);
        let at = i.add::<64>(at, eight);
        let high = i.load::<64>(at)?;
        i.set_xmm_half(insn.a, 0, low);
        i.set_xmm_half(insn.a, 1, high);
        Ok(())
    }
}

/// XORPS, XORPD, PXOR between registers.
pub(crate) struct XorWhole;

impl Operation for XorWhole {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        for half in 0..2 {
            let (a, b) = (i.xmm_half(insn.a, half), i.xmm_half(insn.b, half));
            let value = i.xor::<64>(a, b);
            i.set_xmm_half(insn.a, half, value);
        }
        Ok(())
    }
}
