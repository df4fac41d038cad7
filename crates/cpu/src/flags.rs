//! The status flags as two words that cost little to make and little to read. What makes them and what conditions read of them is in
//! [`crate::semantics::status`].
//!
//! `result` is the last result, sign-extended to 64 bits: ZF is `result == 0`, SF its sign, PF the parity of its low byte. `aux` holds the
//! rest: CF in bit 63, CF xor OF in bit 62, AF in bit 3, a byte in bits 15:8 that is xored into the byte PF is taken of, and in bit 16 what
//! is xored into SF. Arithmetic leaves the corrections zero; they exist so that every combination of flags (POPF) can be expressed.
//!
//! ```text
//!  63  62  61........17  16   15......8  7..4   3   2..0
//!  CF CF^OF      0       SF^   PF byte^    0    AF    0
//! ```

/// Bit of `aux` that holds CF.
pub(crate) const CARRY: u32 = 63;
/// Bit of `aux` that holds CF xor OF.
pub(crate) const CARRY_XOR_OVERFLOW: u32 = 62;
/// Bit of `aux` that corrects SF.
pub(crate) const SIGN_FIX: u32 = 16;
/// The bits of `aux` that a carry-out word provides: CF, CF xor OF, AF.
pub(crate) const CARRIES: u64 = 0xc000_0000_0000_0008;

/// CF and OF put where `aux` has them; all else zero. The arguments are 0 or 1.
#[inline(always)]
pub(crate) const fn carry_overflow(carry: u64, overflow: u64) -> u64 {
    carry << CARRY | (carry ^ overflow) << CARRY_XOR_OVERFLOW
}

/// CF.
#[inline(always)]
pub(crate) const fn carry(aux: u64) -> bool {
    aux >> CARRY != 0
}

/// OF.
#[inline(always)]
pub(crate) const fn overflow(aux: u64) -> bool {
    (aux >> CARRY ^ aux >> CARRY_XOR_OVERFLOW) & 1 != 0
}

/// SF.
#[inline(always)]
pub(crate) const fn sign(result: u64, aux: u64) -> bool {
    (result >> 63 ^ aux >> SIGN_FIX) & 1 != 0
}

/// PF.
#[inline(always)]
pub(crate) const fn parity(result: u64, aux: u64) -> bool {
    ((result ^ aux >> 8) as u8).count_ones() & 1 == 0
}

/// The six status flags at their places in RFLAGS.
pub(crate) const fn status(result: u64, aux: u64) -> u64 {
    carry(aux) as u64
        | (parity(result, aux) as u64) << 2
        | (aux >> 3 & 1) << 4
        | ((result == 0) as u64) << 6
        | (sign(result, aux) as u64) << 7
        | (overflow(aux) as u64) << 11
}

/// Both words for the status flags of an RFLAGS image.
pub(crate) const fn from_status(rflags: u64) -> (u64, u64) {
    let zero = rflags >> 6 & 1;
    // With ZF the result is zero, whose parity is even and whose sign is clear; else it is one, whose parity is odd.
    let result = 1 - zero;
    let parity_of_result = zero;
    let parity = rflags >> 2 & 1;
    let aux = carry_overflow(rflags & 1, rflags >> 11 & 1)
        | (rflags >> 4 & 1) << 3
        | (parity ^ parity_of_result) << 8
        | (rflags >> 7 & 1) << SIGN_FIX;
    (result, aux)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isa::rflags::STATUS;

    #[test]
    fn every_combination_of_status_flags_survives() {
        for bits in 0..1u64 << 12 {
            let bits = bits & STATUS;
            let (result, aux) = from_status(bits);
            assert_eq!(status(result, aux), bits, "{bits:#x}");
        }
    }
}
