//! Small values that events carry: names, byte strings, exception mnemonics.
//!
//! All of them are `Copy` and allocate nothing, because a run can emit a million events a second.

use serde::{Serialize, Serializer};
use std::fmt;

/// The name of an exit reason, a register or the like; codes without a name print as hexadecimal, as the kernel's tables do.
#[derive(Clone, Copy, Debug, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A name from a table of the architecture.
    Text(&'static str),
    /// A code that the table does not name.
    Code(u64),
}

impl PartialEq for Name {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            // Names come from tables: where they lie decides nearly always.
            (Name::Text(one), Name::Text(two)) => std::ptr::eq(*one, *two) || one == two,
            (Name::Code(one), Name::Code(two)) => one == two,
            _ => false,
        }
    }
}

impl From<&'static str> for Name {
    fn from(text: &'static str) -> Self {
        Name::Text(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Text(text) => f.write_str(text),
            Name::Code(code) => write!(f, "{code:#x}"),
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Up to fifteen bytes, the longest an x86 instruction can be (SDM volume 2, 2.3.11 "AVX Instruction Length").
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteString {
    length: u8,
    bytes: [u8; 15],
}

impl ByteString {
    /// Keeps the first fifteen of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let length = bytes.len().min(15);
        let mut kept = [0; 15];
        kept[..length].copy_from_slice(&bytes[..length]);
        Self { length: length as u8, bytes: kept }
    }

    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for ByteString {
    fn from(bytes: [u8; N]) -> Self {
        Self::new(&bytes)
    }
}

impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_slice().iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The mnemonic of an exception vector without its `#`, for example `PF` for 14.
///
/// SDM volume 3, 6.15 "Exception and Interrupt Reference"; APM volume 2, 8.2 "Vectors", for 28 to 30.
pub fn exception_name(vector: u8) -> Option<&'static str> {
    Some(match vector {
        0 => "DE",
        1 => "DB",
        2 => "NMI",
        3 => "BP",
        4 => "OF",
        5 => "BR",
        6 => "UD",
        7 => "NM",
        8 => "DF",
        10 => "TS",
        11 => "NP",
        12 => "SS",
        13 => "GP",
        14 => "PF",
        16 => "MF",
        17 => "AC",
        18 => "MC",
        19 => "XM",
        20 => "VE",
        21 => "CP",
        28 => "HV",
        29 => "VC",
        30 => "SX",
        _ => return None,
    })
}

/// An exception as traces show it: `#PF (0x3)`, or the vector in hexadecimal where it has no mnemonic.
pub(crate) struct Exception(pub u8, pub Option<u32>);

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match exception_name(self.0) {
            Some(name) => write!(f, "#{name}")?,
            None => write!(f, "#{:#x}", self.0)?,
        }
        match self.1 {
            Some(code) => write!(f, " ({code:#x})"),
            None => Ok(()),
        }
    }
}

/// `" word"` when the flag is set, nothing otherwise: the kernel prints its flags so.
pub(crate) struct Flag(pub bool, pub &'static str);

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 { write!(f, " {}", self.1) } else { Ok(()) }
    }
}

/// `read` or `write`.
pub(crate) fn direction(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

/// Numbers that may exceed what JSON readers keep exactly (2^53), written as `"0x..."`.
pub(crate) fn hexadecimal<S: Serializer, T: fmt::LowerHex>(number: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#x}"))
}

/// As [`hexadecimal`], `null` for an absent number.
pub(crate) fn optional_hexadecimal<S: Serializer, T: fmt::LowerHex>(number: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => hexadecimal(number, serializer),
        None => serializer.serialize_none(),
    }
}
