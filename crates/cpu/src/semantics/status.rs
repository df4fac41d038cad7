//! The rules of the status flags: from operands and result to the two flag words, and from the words to a condition.
//!
//! The layout of the words is in [`crate::flags`]. Like every instruction, the rules stand here once, for all interpretations.

use crate::flags::{CARRIES, CARRY, CARRY_XOR_OVERFLOW, SIGN_FIX};
use crate::interpretation::{FlagRule, Interpretation};

/// Bit `number` of `value`, as 0 or 1.
#[inline(always)]
fn bit<I: Interpretation>(i: &mut I, value: I::Value, number: u32) -> I::Value {
    let count = i.constant::<64>(u64::from(number));
    let value = if number == 0 { value } else { i.shift::<64>(FlagRule::ShiftRight, value, count) };
    let one = i.constant::<64>(1);
    i.and::<64>(value, one)
}

#[inline(always)]
fn left<I: Interpretation>(i: &mut I, value: I::Value, count: u32) -> I::Value {
    let count = i.constant::<64>(u64::from(count));
    i.shift::<64>(FlagRule::ShiftLeft, value, count)
}

/// CF and OF (0 or 1) where the second word has them; all else zero.
#[inline(always)]
fn carry_overflow<I: Interpretation>(i: &mut I, carry: I::Value, overflow: I::Value) -> I::Value {
    let differ = i.xor::<64>(carry, overflow);
    let carry = left(i, carry, CARRY);
    let differ = left(i, differ, CARRY_XOR_OVERFLOW);
    i.or::<64>(carry, differ)
}

/// The second word from the carries out of each bit position of an addition, or the borrows of a subtraction.
#[inline(always)]
fn from_carries<I: Interpretation, const W: u32>(i: &mut I, carries: I::Value) -> I::Value {
    if W == 64 {
        let kept = i.constant::<64>(CARRIES);
        return i.and::<64>(carries, kept);
    }
    let high = left(i, carries, 64 - W);
    let kept = i.constant::<64>(3 << CARRY_XOR_OVERFLOW);
    let high = i.and::<64>(high, kept);
    let eight = i.constant::<64>(8);
    let low = i.and::<64>(carries, eight);
    i.or::<64>(high, low)
}

/// The second word with CF and OF replaced.
#[inline(always)]
fn with_carry_overflow<I: Interpretation>(i: &mut I, aux: I::Value, carry: I::Value, overflow: I::Value) -> I::Value {
    let others = i.constant::<64>(!(3 << CARRY_XOR_OVERFLOW));
    let others = i.and::<64>(aux, others);
    let new = carry_overflow(i, carry, overflow);
    i.or::<64>(others, new)
}

/// CF and OF after INC and DEC: CF as it was, OF if the result is `extreme`; and AF, which the low four bits tell.
#[inline(always)]
fn stepped<I: Interpretation, const W: u32>(i: &mut I, aux: I::Value, result: I::Value, extreme: u64, wrapped: u64) -> I::Value {
    let one = i.constant::<64>(1);
    let same = |i: &mut I, value: I::Value, other: u64| {
        let other = i.constant::<64>(other);
        let differ = i.differ(value, other);
        let differ = i.zero_extend::<8>(differ);
        i.xor::<64>(differ, one)
    };
    let overflow = same(i, result, extreme);
    let carry = bit(i, aux, CARRY);
    let nibble = i.constant::<64>(0xf);
    let nibble = i.and::<64>(result, nibble);
    let adjust = same(i, nibble, wrapped);
    let adjust = left(i, adjust, 3);
    let words = carry_overflow(i, carry, overflow);
    i.or::<64>(words, adjust)
}

/// The two flag words after an operation on values of `W` bits. `old` are the words before it.
#[inline(always)]
pub(crate) fn flag_words<I: Interpretation, const W: u32>(
    i: &mut I,
    rule: FlagRule,
    a: I::Value,
    b: I::Value,
    result: I::Value,
    old: (I::Value, I::Value),
) -> (I::Value, I::Value) {
    let signed = i.sign_extend::<W>(result);
    let (narrow, a, b, result) = (a, i.zero_extend::<W>(a), i.zero_extend::<W>(b), i.zero_extend::<W>(result));
    let one = i.constant::<64>(1);
    let aux = match rule {
        FlagRule::Add => {
            let both = i.and::<64>(a, b);
            let either = i.or::<64>(a, b);
            let absent = i.not::<64>(result);
            let passed = i.and::<64>(either, absent);
            let carries = i.or::<64>(both, passed);
            from_carries::<I, W>(i, carries)
        }
        FlagRule::Subtract => {
            let absent = i.not::<64>(a);
            let both = i.and::<64>(absent, b);
            let either = i.or::<64>(absent, b);
            let passed = i.and::<64>(either, result);
            let borrows = i.or::<64>(both, passed);
            from_carries::<I, W>(i, borrows)
        }
        FlagRule::Logic => i.constant::<64>(0),
        FlagRule::Increment => stepped::<I, W>(i, old.1, result, 1 << (W - 1), 0),
        FlagRule::Decrement => stepped::<I, W>(i, old.1, result, (1 << (W - 1)) - 1, 0xf),
        FlagRule::Multiply => carry_overflow(i, b, b),
        FlagRule::ShiftLeft => {
            // The last bit shifted out. Narrow values are shifted in 64 bits, so that counts above the width give the zeros they must.
            let carry = if W == 64 {
                let width = i.constant::<64>(64);
                let number = i.subtract::<64>(width, b);
                let last = i.shift::<64>(FlagRule::ShiftRight, a, number);
                i.and::<64>(last, one)
            } else {
                let wide = i.shift::<64>(FlagRule::ShiftLeft, a, b);
                bit(i, wide, W)
            };
            let sign = bit(i, result, W - 1);
            let overflow = i.xor::<64>(carry, sign);
            carry_overflow(i, carry, overflow)
        }
        FlagRule::ShiftRight => {
            let number = i.subtract::<64>(b, one);
            let last = i.shift::<64>(FlagRule::ShiftRight, a, number);
            let carry = i.and::<64>(last, one);
            let overflow = bit(i, a, W - 1);
            carry_overflow(i, carry, overflow)
        }
        FlagRule::ShiftArithmetic => {
            let wide = i.sign_extend::<W>(narrow);
            let number = i.subtract::<64>(b, one);
            let last = i.shift::<64>(FlagRule::ShiftArithmetic, wide, number);
            let carry = i.and::<64>(last, one);
            let overflow = i.constant::<64>(0);
            carry_overflow(i, carry, overflow)
        }
        FlagRule::RotateLeft => {
            let carry = bit(i, result, 0);
            let sign = bit(i, result, W - 1);
            let overflow = i.xor::<64>(carry, sign);
            return (old.0, with_carry_overflow(i, old.1, carry, overflow));
        }
        FlagRule::RotateRight => {
            let carry = bit(i, result, W - 1);
            let next = bit(i, result, W - 2);
            let overflow = i.xor::<64>(carry, next);
            return (old.0, with_carry_overflow(i, old.1, carry, overflow));
        }
    };
    (signed, aux)
}

/// A condition by its encoding in Jcc, SETcc, CMOVcc: 0 or 1. SDM vol 1, appendix B "EFLAGS Condition Codes".
#[inline(always)]
pub(crate) fn condition<I: Interpretation>(i: &mut I, code: u8, (result, aux): (I::Value, I::Value)) -> I::Value {
    let one = i.constant::<64>(1);
    let zero_flag = |i: &mut I| {
        let zero = i.constant::<64>(0);
        let differ = i.differ(result, zero);
        let differ = i.zero_extend::<8>(differ);
        i.xor::<64>(differ, one)
    };
    let overflow = |i: &mut I| {
        let carry = bit(i, aux, CARRY);
        let differ = bit(i, aux, CARRY_XOR_OVERFLOW);
        i.xor::<64>(carry, differ)
    };
    let sign = |i: &mut I| {
        let sign = bit(i, result, 63);
        let fix = bit(i, aux, SIGN_FIX);
        i.xor::<64>(sign, fix)
    };
    let less = |i: &mut I| {
        let (sign, overflow) = (sign(i), overflow(i));
        i.xor::<64>(sign, overflow)
    };
    let or_zero = |i: &mut I, value: I::Value| {
        let zero = zero_flag(i);
        i.or::<64>(value, zero)
    };
    let value = match code >> 1 {
        0 => overflow(i),
        1 => bit(i, aux, CARRY),
        2 => zero_flag(i),
        3 => {
            let carry = bit(i, aux, CARRY);
            or_zero(i, carry)
        }
        4 => sign(i),
        5 => {
            // Even parity of the low byte.
            let eight = i.constant::<64>(8);
            let fix = i.shift::<64>(FlagRule::ShiftRight, aux, eight);
            let mut byte = i.xor::<64>(result, fix);
            for count in [4, 2, 1] {
                let count = i.constant::<64>(count);
                let shifted = i.shift::<64>(FlagRule::ShiftRight, byte, count);
                byte = i.xor::<64>(byte, shifted);
            }
            let odd = bit(i, byte, 0);
            i.xor::<64>(odd, one)
        }
        6 => less(i),
        _ => {
            let less = less(i);
            or_zero(i, less)
        }
    };
    if code & 1 == 0 { value } else { i.xor::<64>(value, one) }
}

#[cfg(test)]
mod tests {
    use super::condition;
    use crate::direct::Direct;
    use crate::flags::from_status;
    use crate::state::Cpu;
    use isa::rflags::STATUS;

    #[test]
    fn conditions_agree_with_their_definition() {
        let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
        let mut direct = Direct::<false>(&raw mut *cpu);
        for bits in (0..1u64 << 12).map(|bits| bits & STATUS) {
            let [cf, pf, zf, sf, of] = [0, 2, 6, 7, 11].map(|bit| bits >> bit & 1 != 0);
            let expected = [of, cf, zf, cf | zf, sf, pf, sf != of, zf | (sf != of)];
            for code in 0..16u8 {
                let holds = expected[code as usize / 2] != (code & 1 != 0);
                assert_eq!(condition(&mut direct, code, from_status(bits)), u64::from(holds), "{bits:#x} {code}");
            }
        }
    }
}
