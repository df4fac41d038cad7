//! PCLMULQDQ and the six AES instructions.
//!
//! What is modelled: SDM vol 1, 12.13 "AESNI and PCLMULQDQ", with the tables of FIPS 197 computed from their definition when Trapline is compiled.

use super::operand::binary_of_width;
use crate::state::Cpu;
use crate::system::{Flow, Function};
use crate::trap::Outcome;
use iced_x86::{Instruction, Mnemonic as M};

/// The product of two bytes as polynomials modulo x^8 + x^4 + x^3 + x + 1.
const fn product(a: u8, b: u8) -> u8 {
    let (mut sum, mut a, mut b) = (0, a, b);
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    sum
}

/// S-box and inverse S-box. FIPS 197, 5.1.1 "SubBytes": the multiplicative inverse, then an affine map of its bits.
const SUBSTITUTIONS: ([u8; 256], [u8; 256]) = {
    let (mut forward, mut backward) = ([0; 256], [0; 256]);
    // Powers of 3, which generates the field, and of its inverse.
    let (mut power, mut inverse) = (1u8, 1u8);
    let mut count = 0;
    while count < 256 {
        let (byte, value) = if count == 255 { (0, 0) } else { (power, inverse) };
        let mapped = value ^ value.rotate_left(1) ^ value.rotate_left(2) ^ value.rotate_left(3) ^ value.rotate_left(4) ^ 0x63;
        forward[byte as usize] = mapped;
        backward[mapped as usize] = byte;
        power = product(power, 3);
        inverse = product(inverse, 0xf6);
        count += 1;
    }
    (forward, backward)
};

/// The bytes of the state, column by column.
type State = [u8; 16];

fn substitute(state: State, table: &[u8; 256]) -> State {
    state.map(|byte| table[usize::from(byte)])
}

/// ShiftRows (`step` 5) and its inverse (`step` 13): row `r` is rotated by `r` columns.
fn shift_rows(state: State, step: usize) -> State {
    std::array::from_fn(|at| state[at * step % 16])
}

/// MixColumns and its inverse: each column multiplied by a circulant matrix, given by its first row.
fn mix_columns(state: State, row: [u8; 4]) -> State {
    std::array::from_fn(|at| {
        let column = &state[at & !3..][..4];
        (0..4).fold(0, |sum, other| sum ^ product(row[(other + 4 - at % 4) % 4], column[other]))
    })
}

const FORWARD: [u8; 4] = [2, 3, 1, 1];
const BACKWARD: [u8; 4] = [14, 11, 13, 9];

/// One round: `LAST` without the mixing of columns.
fn encrypt<const LAST: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |state, key, _| {
        let state = substitute(shift_rows(state.to_le_bytes(), 5), &SUBSTITUTIONS.0);
        u128::from_le_bytes(if LAST { state } else { mix_columns(state, FORWARD) }) ^ key
    })
}

/// One round of the equivalent inverse cipher.
fn decrypt<const LAST: bool>(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |state, key, _| {
        let state = substitute(shift_rows(state.to_le_bytes(), 13), &SUBSTITUTIONS.1);
        u128::from_le_bytes(if LAST { state } else { mix_columns(state, BACKWARD) }) ^ key
    })
}

/// AESIMC.
fn inverse_mix(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |_, key, _| u128::from_le_bytes(mix_columns(key.to_le_bytes(), BACKWARD)))
}

/// AESKEYGENASSIST: the odd doublewords substituted, plain and rotated with the round constant.
fn assist(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    binary_of_width(cpu, instruction, |_, key, _| {
        let substituted = u128::from_le_bytes(substitute(key.to_le_bytes(), &SUBSTITUTIONS.0));
        let pair = |word: u32| {
            let rotated = word.rotate_right(8) ^ u32::from(instruction.immediate8());
            u128::from(rotated) << 32 | u128::from(word)
        };
        pair((substituted >> 96) as u32) << 64 | pair((substituted >> 32) as u32)
    })
}

/// PCLMULQDQ: the carry-less product of one quadword of each operand.
fn carryless(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let selectors = instruction.immediate8();
    binary_of_width(cpu, instruction, |a, b, _| {
        let half = |value: u128, high: bool| if high { value >> 64 } else { value & u128::from(u64::MAX) };
        let (a, b) = (half(a, selectors & 1 != 0), half(b, selectors & 0x10 != 0));
        (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |sum, bit| sum ^ a << bit)
    })
}

/// The function of an instruction of this module.
pub(super) fn find(mnemonic: M) -> Option<Function> {
    Some(match mnemonic {
        M::Aesenc => encrypt::<false>,
        M::Aesenclast => encrypt::<true>,
        M::Aesdec => decrypt::<false>,
        M::Aesdeclast => decrypt::<true>,
        M::Aesimc => inverse_mix,
        M::Aeskeygenassist => assist,
        M::Pclmulqdq => carryless,
        _ => return None,
    })
}
