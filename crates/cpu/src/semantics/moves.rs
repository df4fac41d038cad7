//! MOV, MOVZX, MOVSX, MOVSXD, LEA, CMOVcc, SETcc, XCHG of registers, BSWAP, CBW family, NOP.

use super::place::{Any, Place, address, read_register, write_register};
use crate::insn::Insn;
use crate::interpretation::{FlagRule, Interpretation, Operation, Step};
use std::marker::PhantomData;

/// `D = S`.
pub(crate) struct Mov<D, S>(PhantomData<(D, S)>);

impl<D: Place, S: Place> Operation for Mov<D, S> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let destination = D::find(i, insn);
        let source = S::find(i, insn);
        let value = S::read(i, insn, source)?;
        D::write(i, insn, destination, value)
    }
}

/// MOVZX and MOVSX: register `a` of `W` bits from a narrower source.
pub(crate) struct Extend<S, const W: u32, const SIGNED: bool>(PhantomData<S>);

impl<S: Place, const W: u32, const SIGNED: bool> Operation for Extend<S, W, SIGNED> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let value = S::read(i, insn, source)?;
        let value = match (SIGNED, S::W) {
            (true, 8) => i.sign_extend::<8>(value),
            (true, 16) => i.sign_extend::<16>(value),
            (true, _) => i.sign_extend::<32>(value),
            (false, 8) => i.zero_extend::<8>(value),
            (false, 16) => i.zero_extend::<16>(value),
            (false, _) => i.zero_extend::<32>(value),
        };
        let value = i.truncate::<W>(value);
        write_register::<I, W>(i, insn.a, value);
        Ok(())
    }
}

/// LEA in 64-bit mode with a 64-bit address.
pub(crate) struct Lea<const W: u32, const INDEXED: bool>;

impl<const W: u32, const INDEXED: bool> Operation for Lea<W, INDEXED> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let value = address::<I, INDEXED>(i, insn);
        let value = i.truncate::<W>(value);
        write_register::<I, W>(i, insn.a, value);
        Ok(())
    }
}

/// CMOVcc: the source is read whatever the condition, and a 32-bit destination is zero-extended in either case.
pub(crate) struct Cmov<S, const W: u32>(PhantomData<S>);

impl<S: Place, const W: u32> Operation for Cmov<S, W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let source = S::find(i, insn);
        let new = S::read(i, insn, source)?;
        let old = read_register::<I, W>(i, insn.a);
        let condition = i.condition(insn.c);
        let value = i.select(condition, new, old);
        write_register::<I, W>(i, insn.a, value);
        Ok(())
    }
}

/// SETcc.
pub(crate) struct Set<D>(PhantomData<D>);

impl<D: Place> Operation for Set<D> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let place = D::find(i, insn);
        let value = i.condition(insn.c);
        let value = i.truncate::<8>(value);
        D::write(i, insn, place, value)
    }
}

/// XCHG of registers `a` and `b`.
pub(crate) struct ExchangeRegisters<const W: u32>;

impl<const W: u32> Operation for ExchangeRegisters<W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let a = read_register::<I, W>(i, insn.a);
        let b = read_register::<I, W>(i, insn.b);
        write_register::<I, W>(i, insn.a, b);
        write_register::<I, W>(i, insn.b, a);
        Ok(())
    }
}

/// XCHG of any two operands, one of which may be memory.
pub(crate) struct Exchange<const W: u32>;

impl<const W: u32> Operation for Exchange<W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let a = Any::<W, 0>::read_for_update(i, insn, ())?;
        let b = Any::<W, 1>::read_for_update(i, insn, ())?;
        // Operand 0 is the one that may be memory; the write cannot fault after the read for update.
        Any::<W, 0>::write(i, insn, (), b)?;
        Any::<W, 1>::write(i, insn, (), a)
    }
}

/// BSWAP of 32 or 64 bits.
pub(crate) struct SwapBytes<const W: u32>;

impl<const W: u32> Operation for SwapBytes<W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I> {
        let value = read_register::<I, W>(i, insn.a);
        let value = i.swap_bytes::<W>(value);
        write_register::<I, W>(i, insn.a, value);
        Ok(())
    }
}

/// CBW, CWDE, CDQE: RAX of `W` bits from its lower half.
pub(crate) struct ExtendAccumulator<const W: u32>;

impl<const W: u32> Operation for ExtendAccumulator<W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, _: &Insn) -> Step<I> {
        let value = i.register(0);
        let value = match W {
            16 => {
                let half = i.truncate::<8>(value);
                i.sign_extend::<8>(half)
            }
            32 => {
                let half = i.truncate::<16>(value);
                i.sign_extend::<16>(half)
            }
            _ => {
                let half = i.truncate::<32>(value);
                i.sign_extend::<32>(half)
            }
        };
        let value = i.truncate::<W>(value);
        write_register::<I, W>(i, 0, value);
        Ok(())
    }
}

/// CWD, CDQ, CQO: RDX of `W` bits filled with the sign of RAX.
pub(crate) struct FillSign<const W: u32>;

impl<const W: u32> Operation for FillSign<W> {
    #[inline(always)]
    fn execute<I: Interpretation>(i: &mut I, _: &Insn) -> Step<I> {
        let value = read_register::<I, W>(i, 0);
        let count = i.constant::<W>(u64::from(W) - 1);
        let sign = i.shift::<W>(FlagRule::ShiftArithmetic, value, count);
        write_register::<I, W>(i, 2, sign);
        Ok(())
    }
}

/// NOP, prefetches, fences: nothing that this machine could tell.
pub(crate) struct Nothing;

impl Operation for Nothing {
    #[inline(always)]
    fn execute<I: Interpretation>(_: &mut I, _: &Insn) -> Step<I> {
        Ok(())
    }
}
