//! What the instruction emulator of the commit of 2007 made of an instruction that raised #UD: nothing was asked but whether it could be
//! decoded.
//!
//! Modelled: which opcodes it had, the hypercalls, and the instructions whose effect on a guest is plain: those with no effect at all
//! (opcode 0F 01 /7 on a register was taken for INVLPG, control registers that do not exist could be written), MOV from control registers
//! (zero where there is none), LEA of a register (a MOV). Everything it could not decode is #UD.
//!
//! Not modelled, and told by name, so that the run ends with bytes and RIP: what it executed although the processor does not, because it
//! looked neither at LOCK nor at the reg field of a group; and what it did with register operands, which it never met before #UD came to
//! it: it wrote through a null pointer of the host's, or used a value that was never set.
//!
//! The facts are those of drivers/kvm/x86_emulate.c of Linux at the commit 7aa81cc0, in this project's own words.

use isa::register::Gpr;

/// What becomes of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is a hypercall.
    Hypercall,
    /// It cannot be decoded or is refused: the guest gets its #UD.
    Refused,
    /// Fewer bytes could be fetched than it has: nothing happens, and the guest tries again.
    Truncated,
    /// RIP goes on behind it, and nothing else happens.
    Nothing,
    /// A control register is read, zero where there is none of that number.
    ReadControl {
        /// Its number.
        number: u8,
        /// Where to.
        to: Gpr,
    },
    /// A register is copied.
    Move {
        /// From here.
        from: Gpr,
        /// To there.
        to: Gpr,
        /// Bytes of the operand.
        bytes: u8,
    },
    /// It was executed in a way that is not modelled.
    NotModelled(&'static str),
}

/// An instruction and its bytes as far as they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub verdict: Verdict,
    /// Length, for those that are executed.
    pub length: usize,
}

/// Size of operands and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 16 bits.
    Sixteen,
    /// 32 bits.
    ThirtyTwo,
    /// 64-bit mode.
    SixtyFour,
}

/// The most prefixes, REX not counted; one more was taken for an opcode.
const PREFIXES: usize = 8;

/// How an opcode names its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operands {
    /// There is no such opcode.
    Unknown,
    /// None, or an immediate: no ModRM byte.
    Plain,
    /// A ModRM byte whose operand is written.
    Written,
    /// A ModRM byte whose operand is read.
    Read,
}

/// The opcodes of one byte.
const fn one_byte(opcode: u8) -> Operands {
    match opcode {
        0x00..=0x3f => match opcode & 7 {
            0 | 1 => Operands::Written,
            2 | 3 => Operands::Read,
            // Of the forms with an immediate only that of AND.
            _ if opcode == 0x24 || opcode == 0x25 => Operands::Plain,
            _ => Operands::Unknown,
        },
        0x50..=0x5f | 0x6a | 0x6c..=0x6f | 0x70..=0x7f | 0x9c | 0x9d | 0xa0..=0xa7 | 0xaa..=0xaf => Operands::Plain,
        0xc3 | 0xe8 | 0xe9 | 0xeb | 0xf4 => Operands::Plain,
        0x63 | 0x8a | 0x8b | 0x8d => Operands::Read,
        0x80..=0x89 | 0x8f | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 | 0xf6 | 0xf7 | 0xfe | 0xff => Operands::Written,
        _ => Operands::Unknown,
    }
}

/// The opcodes behind 0F.
const fn two_bytes(opcode: u8) -> Operands {
    match opcode {
        0x06 | 0x08 | 0x09 | 0x30 | 0x32 | 0x80..=0x8f => Operands::Plain,
        0x01 | 0x0d | 0x18 | 0x20..=0x23 | 0x40..=0x4f | 0xb6 | 0xb7 | 0xbe | 0xbf => Operands::Read,
        0xa3 | 0xab | 0xb0 | 0xb1 | 0xb3 | 0xba | 0xbb | 0xc3 | 0xc7 => Operands::Written,
        _ => Operands::Unknown,
    }
}

const LOCKED: Verdict = Verdict::NotModelled("the emulator of 2007 executes an instruction as if it had no LOCK prefix");
const GROUP: Verdict = Verdict::NotModelled("the emulator of 2007 takes an undefined member of a group for another one");
const NULL: Verdict = Verdict::NotModelled("the emulator of 2007 writes a register operand through a null pointer of the host's");
const UNSET: Verdict = Verdict::NotModelled("the emulator of 2007 uses a register operand that it never read");
const EXCHANGE: Verdict = Verdict::NotModelled("the emulator of 2007 takes an instruction for CMPXCHG8B");

/// Decodes an instruction.
pub(super) fn decode(bytes: &[u8], mode: Mode) -> Decoded {
    let mut at = 0;
    let verdict = verdict(bytes, mode, &mut at).unwrap_or(Verdict::Truncated);
    Decoded { verdict, length: at }
}

fn verdict(bytes: &[u8], mode: Mode, at: &mut usize) -> Option<Verdict> {
    let mut next = || {
        let byte = bytes.get(*at).copied();
        *at += usize::from(byte.is_some());
        byte
    };
    let mut operand: u8 = if mode == Mode::Sixteen { 2 } else { 4 };
    let (mut lock, mut repeat) = (false, false);
    let mut opcode = 0;
    for _ in 0..PREFIXES {
        opcode = next()?;
        match opcode {
            0x66 => operand ^= 6,
            0xf0 => lock = true,
            0xf2 | 0xf3 => repeat = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => {}
            _ => break,
        }
    }
    let mut rex = 0;
    if mode == Mode::SixtyFour && opcode & 0xf0 == 0x40 {
        rex = opcode;
        if rex & 8 != 0 {
            operand = 8;
        }
        opcode = next()?;
    }
    let two = opcode == 0x0f;
    let operands = if two {
        opcode = next()?;
        two_bytes(opcode)
    } else {
        one_byte(opcode)
    };
    let (register, other, direct) = match operands {
        Operands::Unknown => return Some(Verdict::Refused),
        // Without an operand of its own an instruction is undefined for its LOCK alone. CMPS and SCAS were not there.
        Operands::Plain if !two && matches!(opcode, 0xa6 | 0xa7 | 0xae | 0xaf) && !repeat => return Some(Verdict::Refused),
        Operands::Plain if two && matches!(opcode, 0x08 | 0x09) => return Some(Verdict::Nothing),
        Operands::Plain => return Some(LOCKED),
        Operands::Written | Operands::Read => {
            let byte = next()?;
            (byte >> 3 & 7 | (rex & 4) << 1, byte & 7 | (rex & 1) << 3, byte >> 6 == 3)
        }
    };
    let gpr = |number: u8| Gpr::ALL[usize::from(number & 15)];
    let written = if direct { NULL } else { LOCKED };
    let undefined = if lock {
        written
    } else if direct {
        NULL
    } else {
        GROUP
    };
    Some(match (two, opcode, register) {
        (true, 0x01, 0 | 3) if direct && other == 1 => Verdict::Hypercall,
        (true, 0x01, 2 | 3) => {
            if direct {
                UNSET
            } else {
                LOCKED
            }
        }
        (true, 0x01, 4 | 6) if direct => LOCKED,
        (true, 0x01, 7) => {
            if direct {
                Verdict::Nothing
            } else {
                LOCKED
            }
        }
        (true, 0x01, _) => Verdict::Refused,
        (true, 0x20..=0x23, _) if !direct => Verdict::Refused,
        (true, 0x20, number) => Verdict::ReadControl { number, to: gpr(other) },
        (true, 0x22, 0 | 2..=4) => LOCKED,
        (true, 0x22, _) => Verdict::Nothing,
        (true, 0x21, 4..) => Verdict::Refused,
        (true, 0x21 | 0x23, _) => LOCKED,
        (true, 0xc7, _) => EXCHANGE,
        (true, 0xba, 0..=3) => undefined,
        (true, 0x40..=0x4f | 0xb6 | 0xb7 | 0xbe | 0xbf, _) if direct => UNSET,
        (true, 0x0d | 0x18, _) if direct => Verdict::Nothing,
        (true, ..) if operands == Operands::Written => written,
        (true, ..) => LOCKED,
        (false, 0x63, _) if mode != Mode::SixtyFour => Verdict::Refused,
        (false, 0x8d, _) if direct => Verdict::Move { from: gpr(other), to: gpr(register), bytes: operand },
        (false, 0xf6 | 0xf7, 4..=7) | (false, 0xfe | 0xff, 2 | 3 | 5 | 7) | (false, 0xfe, 4) => Verdict::Refused,
        (false, 0x8f | 0xc6 | 0xc7, 1..) | (false, 0x82, _) | (false, 0xfe, 6) => undefined,
        (false, ..) if operands == Operands::Written => written,
        (false, ..) if direct => UNSET,
        (false, ..) => LOCKED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_could_decode() {
        use Mode::{Sixteen, SixtyFour, ThirtyTwo};
        let read = |number, to| Verdict::ReadControl { number, to };
        let rows: &[(&[u8], Mode, Verdict, usize)] = &[
            (&[0x0f, 0x01, 0xc1], SixtyFour, Verdict::Hypercall, 3),
            (&[0x0f, 0x01, 0xd9], Sixteen, Verdict::Hypercall, 3),
            // No check of LOCK, and prefixes belong to the instruction.
            (&[0xf0, 0x66, 0x48, 0x0f, 0x01, 0xd9], SixtyFour, Verdict::Hypercall, 6),
            // REX.B and REX.R name another instruction.
            (&[0x41, 0x0f, 0x01, 0xc1], SixtyFour, Verdict::Refused, 4),
            (&[0x44, 0x0f, 0x01, 0xc1], SixtyFour, Verdict::Refused, 4),
            (&[0x44, 0x0f, 0x01, 0xc1], ThirtyTwo, Verdict::Refused, 1),
            // A legacy prefix behind REX, and a ninth prefix, were taken for opcodes.
            (&[0x48, 0x66, 0x0f, 0x01, 0xc1], SixtyFour, Verdict::Refused, 2),
            (&[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0x01, 0xc1], SixtyFour, Verdict::Refused, 8),
            // UD2, SYSCALL, SYSENTER, MOVBE, VEX, PUSH ES, x87.
            (&[0x0f, 0x0b], SixtyFour, Verdict::Refused, 2),
            (&[0x0f, 0x05], ThirtyTwo, Verdict::Refused, 2),
            (&[0x0f, 0x34], SixtyFour, Verdict::Refused, 2),
            (&[0x0f, 0x38, 0xf0, 0x00], SixtyFour, Verdict::Refused, 2),
            (&[0xc5, 0xf8, 0x77], SixtyFour, Verdict::Refused, 1),
            (&[0x06], SixtyFour, Verdict::Refused, 1),
            (&[0xd9, 0xd1], SixtyFour, Verdict::Refused, 1),
            // SWAPGS outside of 64-bit mode, MONITORX.
            (&[0x0f, 0x01, 0xf8], ThirtyTwo, Verdict::Nothing, 3),
            (&[0x0f, 0x01, 0xfa], SixtyFour, Verdict::Nothing, 3),
            // XGETBV was LGDT of nothing, STGI was LIDT, CLAC nothing at all.
            (&[0x0f, 0x01, 0xd0], SixtyFour, UNSET, 3),
            (&[0x0f, 0x01, 0xdc], SixtyFour, UNSET, 3),
            (&[0x0f, 0x01, 0xca], SixtyFour, Verdict::Refused, 3),
            // Control and debug registers.
            (&[0x0f, 0x20, 0xc8], SixtyFour, read(1, Gpr::Rax), 3),
            (&[0x45, 0x0f, 0x20, 0xcb], SixtyFour, read(9, Gpr::R11), 4),
            (&[0xf0, 0x0f, 0x20, 0xc3], SixtyFour, read(0, Gpr::Rbx), 4),
            (&[0x0f, 0x22, 0xe8], SixtyFour, Verdict::Nothing, 3),
            (&[0xf0, 0x0f, 0x22, 0xc0], SixtyFour, LOCKED, 4),
            (&[0x0f, 0x21, 0xe0], SixtyFour, Verdict::Refused, 3),
            // LEA of a register.
            (&[0x8d, 0xc3], SixtyFour, Verdict::Move { from: Gpr::Rbx, to: Gpr::Rax, bytes: 4 }, 2),
            (&[0x66, 0x8d, 0xc3], SixtyFour, Verdict::Move { from: Gpr::Rbx, to: Gpr::Rax, bytes: 2 }, 3),
            (&[0x49, 0x8d, 0xc3], SixtyFour, Verdict::Move { from: Gpr::R11, to: Gpr::Rax, bytes: 8 }, 3),
            (&[0x66, 0x8d, 0xc3], Sixteen, Verdict::Move { from: Gpr::Rbx, to: Gpr::Rax, bytes: 4 }, 3),
            // LOCK where it may not be, and undefined members of groups.
            (&[0xf0, 0x89, 0x03], SixtyFour, LOCKED, 3),
            (&[0xf0, 0x01, 0xd8], SixtyFour, NULL, 3),
            (&[0xf0, 0xf4], SixtyFour, LOCKED, 2),
            (&[0xf0, 0x0f, 0x09], SixtyFour, Verdict::Nothing, 3),
            (&[0xf0, 0xa6], SixtyFour, Verdict::Refused, 2),
            (&[0xf0, 0xf3, 0xa6], SixtyFour, LOCKED, 3),
            (&[0xc7, 0x08], SixtyFour, GROUP, 2),
            (&[0xc6, 0xf8, 0x00], SixtyFour, NULL, 2),
            (&[0x8f, 0x08], SixtyFour, GROUP, 2),
            (&[0x82, 0x00, 0x01], SixtyFour, GROUP, 2),
            (&[0x0f, 0xba, 0x00, 0x01], SixtyFour, GROUP, 3),
            (&[0x0f, 0xc3, 0xc0], SixtyFour, NULL, 3),
            (&[0xff, 0xf8], SixtyFour, Verdict::Refused, 2),
            (&[0xfe, 0x30], SixtyFour, GROUP, 2),
            // RDRAND, and VMPTRLD.
            (&[0x0f, 0xc7, 0xf0], SixtyFour, EXCHANGE, 3),
            (&[0x0f, 0xc7, 0x30], SixtyFour, EXCHANGE, 3),
            // ARPL in real mode.
            (&[0x63, 0xc0], Sixteen, Verdict::Refused, 2),
            (&[0x0f], SixtyFour, Verdict::Truncated, 1),
            (&[0xf0], SixtyFour, Verdict::Truncated, 1),
            (&[], SixtyFour, Verdict::Truncated, 0),
        ];
        for &(bytes, mode, verdict, length) in rows {
            assert_eq!(decode(bytes, mode), Decoded { verdict, length }, "{bytes:02x?} {mode:?}");
        }
    }

    /// Any bytes get a verdict, in any mode, within their length.
    #[test]
    fn no_bytes_panic() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut bytes = random.to_le_bytes();
            if random & 1 != 0 {
                bytes[0] = 0x0f;
            }
            for mode in [Mode::Sixteen, Mode::ThirtyTwo, Mode::SixtyFour] {
                let length = (random >> 60) as usize % 9;
                assert!(decode(&bytes[..length], mode).length <= length);
            }
        }
    }
}
