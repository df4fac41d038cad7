//! Turns a filled-in instruction into bytes, with its prefixes in nasm's order.
//!
//! Modelled: wait, repeat, lock, segment, operand size, address size, mandatory prefix, REX, in this order. The order of
//! legacy prefixes means nothing to a processor (SDM Vol. 2 "Instruction Prefixes"); byte equality with nasm is why it is kept.

use crate::Bits;
use iced_x86::{Encoder, EncodingKind, Instruction, MandatoryPrefix, Register};

/// The prefixes written as words before a mnemonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    /// The byte F2 or F3.
    pub(crate) repeat: Option<u8>,
    pub(crate) lock: bool,
    /// A segment register's prefix byte.
    pub(crate) segment: Option<u8>,
    /// The operand size asked for, in bits.
    pub(crate) operand_size: Option<u32>,
    /// The address size asked for, in bits.
    pub(crate) address_size: Option<u32>,
    pub(crate) rex_w: bool,
}

/// The longest instruction a processor takes, in bytes (SDM Vol. 2 "Instruction Format").
const MAX_LENGTH: usize = 15;

/// An encoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    bytes: [u8; MAX_LENGTH],
    length: u8,
    /// Whether it has an operand-size prefix that is not part of the opcode.
    pub(crate) has_operand_size: bool,
}

impl Encoded {
    /// The bytes of the instruction.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.length)
    }
}

/// The prefix byte of a segment register (SDM Vol. 2 "Instruction Prefixes").
pub(crate) fn segment_prefix(register: Register) -> Option<u8> {
    Some(match register {
        Register::ES => 0x26,
        Register::CS => 0x2e,
        Register::SS => 0x36,
        Register::DS => 0x3e,
        Register::FS => 0x64,
        Register::GS => 0x65,
        _ => return None,
    })
}

/// Encodes `instruction` for `address` with `prefixes`; the fault is the encoder's own sentence.
pub(crate) fn encode(
    encoder: &mut Encoder,
    instruction: &Instruction,
    prefixes: &Prefixes,
    bits: Bits,
    address: u64,
) -> Result<Encoded, String> {
    let first = run(encoder, instruction, address)?;
    let parts = Parts::of(instruction, &first, prefixes, bits)?;
    let whole = parts.join(prefixes)?;
    if whole.len() == first.len() {
        return Ok(whole);
    }
    // What is counted from the end of the instruction has to know about the prefixes added to it.
    let added = whole.len().wrapping_sub(first.len()) as u64;
    let second = run(encoder, instruction, address.wrapping_add(added))?;
    Parts::of(instruction, &second, prefixes, bits)?.join(prefixes)
}

/// The encoder's own bytes.
fn run(encoder: &mut Encoder, instruction: &Instruction, address: u64) -> Result<Vec<u8>, String> {
    let outcome = encoder.encode(instruction, address);
    let bytes = encoder.take_buffer();
    outcome.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// An instruction's bytes taken apart.
struct Parts<'a> {
    wait: bool,
    segment: Option<u8>,
    operand_size: bool,
    address_size: bool,
    mandatory: Option<u8>,
    rex: Option<u8>,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(instruction: &Instruction, bytes: &'a [u8], prefixes: &Prefixes, bits: Bits) -> Result<Self, String> {
        let info = instruction.code().op_code();
        let legacy = info.encoding() == EncodingKind::Legacy;
        let mut mandatory = match info.mandatory_prefix() {
            MandatoryPrefix::P66 if legacy => Some(0x66),
            MandatoryPrefix::PF3 if legacy => Some(0xf3),
            MandatoryPrefix::PF2 if legacy => Some(0xf2),
            _ => None,
        };
        let mut parts =
            Parts { wait: false, segment: prefixes.segment, operand_size: false, address_size: false, mandatory, rex: None, rest: bytes };
        let mut rest = bytes;
        if let (true, [0x9b, after @ ..]) = (info.fwait(), rest) {
            parts.wait = true;
            rest = after;
        }
        // `pause` is F3 90: iced-x86 knows its F3 as part of the opcode.
        while let [byte, after @ ..] = rest {
            match *byte {
                byte if Some(byte) == mandatory => mandatory = None,
                0x66 => parts.operand_size = true,
                0x67 => parts.address_size = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => parts.segment = Some(*byte),
                0xf0 | 0xf2 | 0xf3 => parts.mandatory = Some(*byte),
                _ => break,
            }
            rest = after;
        }
        if let (Bits::SixtyFour, true, [rex @ 0x40..=0x4f, after @ ..]) = (bits, legacy, rest) {
            parts.rex = Some(*rex);
            rest = after;
        }
        parts.rest = rest;
        if let Some(size) = prefixes.operand_size.filter(|&size| size != 64) {
            let by_default = if bits == Bits::Sixteen { 16 } else { 32 };
            parts.operand_size |= size != by_default;
        }
        if let Some(size) = prefixes.address_size {
            parts.address_size |= size != bits.width();
        }
        if prefixes.rex_w {
            if !legacy {
                return Err("a REX prefix cannot be combined with a VEX, EVEX or XOP encoding".to_owned());
            }
            parts.rex = Some(parts.rex.unwrap_or(0x40) | 8);
        }
        Ok(parts)
    }

    fn join(&self, prefixes: &Prefixes) -> Result<Encoded, String> {
        let leading = [
            self.wait.then_some(0x9b),
            prefixes.repeat,
            prefixes.lock.then_some(0xf0),
            self.segment,
            self.operand_size.then_some(0x66),
            self.address_size.then_some(0x67),
            self.mandatory,
            self.rex,
        ];
        let mut bytes = [0; MAX_LENGTH];
        let mut length = 0;
        for byte in leading.into_iter().flatten().chain(self.rest.iter().copied()) {
            *bytes.get_mut(length).ok_or("the instruction is longer than 15 bytes")? = byte;
            length += 1;
        }
        Ok(Encoded { bytes, length: length as u8, has_operand_size: self.operand_size })
    }
}
