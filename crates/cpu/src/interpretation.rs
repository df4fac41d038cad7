//! The interface between the meaning of an instruction and whoever interprets it.
//!
//! Each instruction is a type that implements [`Operation`] (falls through to the next) or [`Branch`] (ends a block) once, generic over
//! [`Interpretation`]: the direct interpreter's values are `u64`, a compiler's are its own.
//!
//! **Rule:** an operation performs everything that can fault before it first sets a register or a flag. That makes faults precise, and lets
//! the direct interpreter run an instruction a second time when the inline path was not enough.
//!
//! Widths are const generics in bits: 8, 16, 32 or 64. A value of width `W` has its upper bits clear. Registers are always 64 bits wide.

use crate::insn::Insn;

/// Which rule makes the status flags of a result. `a` and `b` are the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagRule {
    /// `a + b` or `a + b + CF`.
    Add,
    /// `a - b` or `a - b - CF`.
    Subtract,
    /// AND, OR, XOR: CF and OF clear.
    Logic,
    /// `a + 1`, CF unchanged.
    Increment,
    /// `a - 1`, CF unchanged.
    Decrement,
    /// CF and OF are the single bit `b`: the product did not fit. The other flags are undefined; SF, ZF, PF are of the result, AF clear.
    Multiply,
    /// Shift left of `a` by `b`, 1 to W.
    ShiftLeft,
    /// Logical shift right of `a` by `b`, 1 to W.
    ShiftRight,
    /// Arithmetic shift right of `a` by `b`, 1 to W.
    ShiftArithmetic,
    /// Rotation left by `b`: only CF and OF change.
    RotateLeft,
    /// Rotation right by `b`: only CF and OF change.
    RotateRight,
}

/// Who interprets.
pub(crate) trait Interpretation {
    /// An integer of 8 to 64 bits.
    type Value: Copy;
    /// A double-precision number: the low half of an XMM register.
    type Double: Copy;
    /// The instruction could not be completed.
    type Stop;
    /// Where control goes after a block.
    type Next;

    fn constant<const W: u32>(&mut self, value: u64) -> Self::Value;
    fn register(&mut self, number: u8) -> Self::Value;
    fn set_register(&mut self, number: u8, value: Self::Value);

    fn load<const W: u32>(&mut self, address: Self::Value) -> Result<Self::Value, Self::Stop>;
    /// Reads what the same instruction then stores: faults as a store does, so that the store cannot.
    fn load_for_update<const W: u32>(&mut self, address: Self::Value) -> Result<Self::Value, Self::Stop>;
    fn store<const W: u32>(&mut self, address: Self::Value, value: Self::Value) -> Result<(), Self::Stop>;
    /// Any operand of the instruction, by the slow way that knows segments, address sizes and high bytes.
    fn operand<const W: u32>(&mut self, insn: &Insn, operand: u32, update: bool) -> Result<Self::Value, Self::Stop>;
    fn set_operand<const W: u32>(&mut self, insn: &Insn, operand: u32, value: Self::Value) -> Result<(), Self::Stop>;

    /// The low `W` bits.
    fn truncate<const W: u32>(&mut self, value: Self::Value) -> Self::Value;
    /// From `W` to 64 bits.
    fn zero_extend<const W: u32>(&mut self, value: Self::Value) -> Self::Value;
    /// From `W` to 64 bits.
    fn sign_extend<const W: u32>(&mut self, value: Self::Value) -> Self::Value;

    fn add<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn subtract<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn multiply<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// The upper 64 bits of a product.
    fn multiply_high(&mut self, a: Self::Value, b: Self::Value, signed: bool) -> Self::Value;
    fn and<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn or<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn xor<const W: u32>(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn not<const W: u32>(&mut self, a: Self::Value) -> Self::Value;
    /// Shift or rotation by a count of 1 to 63; counts of `W` and more (8 and 16 bits) shift everything out.
    fn shift<const W: u32>(&mut self, rule: FlagRule, a: Self::Value, count: Self::Value) -> Self::Value;
    /// 1 if the values differ, else 0.
    fn differ(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `yes` if the condition (0 or 1) is 1, else `no`.
    fn select(&mut self, condition: Self::Value, yes: Self::Value, no: Self::Value) -> Self::Value;
    /// The bytes of a 32- or 64-bit value in opposite order.
    fn swap_bytes<const W: u32>(&mut self, a: Self::Value) -> Self::Value;

    /// Sets the status flags by a rule.
    fn set_flags<const W: u32>(&mut self, rule: FlagRule, a: Self::Value, b: Self::Value, result: Self::Value);
    /// As `set_flags`, if `condition` is 1.
    fn set_flags_if<const W: u32>(&mut self, condition: Self::Value, rule: FlagRule, a: Self::Value, b: Self::Value, result: Self::Value);
    /// CF, 0 or 1.
    fn carry(&mut self) -> Self::Value;
    /// A condition code, 0 or 1.
    fn condition(&mut self, code: u8) -> Self::Value;

    /// The low half of an XMM register as a number.
    fn double(&mut self, number: u8) -> Self::Double;
    fn set_double(&mut self, number: u8, value: Self::Double);
    /// Half (0 low, 1 high) of an XMM register as bits.
    fn xmm_half(&mut self, number: u8, half: u8) -> Self::Value;
    fn set_xmm_half(&mut self, number: u8, half: u8, value: Self::Value);
    fn double_from_bits(&mut self, value: Self::Value) -> Self::Double;
    /// ADDSD, SUBSD, MULSD, DIVSD with MXCSR's rounding, flags and exceptions. Stops if anything but a plain result comes out.
    fn double_arithmetic(
        &mut self,
        insn: &Insn,
        kind: DoubleOperation,
        a: Self::Double,
        b: Self::Double,
    ) -> Result<Self::Double, Self::Stop>;

    /// Goes to the taken target if the condition is 1, else to the next instruction.
    fn branch(&mut self, insn: &Insn, condition: Self::Value) -> Self::Next;
    /// Goes to the taken target.
    fn jump(&mut self, insn: &Insn) -> Self::Next;
    /// Goes to a computed RIP in 64-bit mode; #GP(0) if it is not canonical.
    fn jump_to(&mut self, insn: &Insn, target: Self::Value) -> Result<Self::Next, Self::Stop>;
    /// RIP of the instruction behind a terminator: a constant in every interpretation.
    fn next_rip(&mut self, insn: &Insn) -> u64;
}

/// The double-precision operations that have handlers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoubleOperation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Shorthand for what an interpretation's fallible method returns.
pub(crate) type Step<I, T = ()> = Result<T, <I as Interpretation>::Stop>;

/// An instruction that falls through.
pub(crate) trait Operation {
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I>;
}

/// An instruction that ends a block.
pub(crate) trait Branch {
    fn execute<I: Interpretation>(i: &mut I, insn: &Insn) -> Step<I, I::Next>;
}
