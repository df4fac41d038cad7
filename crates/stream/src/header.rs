//! The bytes in front: head of the stream, head of a section.

use crate::error::{Place, Problem};
use std::io::{self, Read};

/// The version of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// What a stream begins with. Like PNG's: a byte that is no ASCII, then what transfers as text change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89TRL\r\n\x1a\n";

/// What a section begins with.
pub(crate) const SECTION: [u8; 4] = *b"SECT";

/// Bytes of the head of a section in front of its name.
pub(crate) const FIXED: usize = 32;

/// The longest name.
pub(crate) const MAXIMUM_NAME: usize = 64;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The end of the stream.
    End,
    /// CBOR of one value.
    Value,
    /// Pages of memory.
    Pages,
}

impl std::fmt::Display for Form {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::End => "the end of a stream",
            Self::Value => "a value",
            Self::Pages => "pages",
        })
    }
}

/// The head of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub number: u32,
    pub version: u16,
    pub form: Form,
    pub compressed: bool,
    pub optional: bool,
    pub stored: u64,
    pub raw: u64,
    pub name: String,
}

/// Whether a section may have the name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./".contains(byte);
    (1..=MAXIMUM_NAME).contains(&name.len()) && name.iter().all(allowed)
}

/// The head of a stream.
pub(crate) fn head() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads until the buffer is full or the stream ends; how many bytes came.
pub(crate) fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills the buffer, or says that the stream ends.
pub(crate) fn fill_all(from: &mut impl Read, into: &mut [u8]) -> Result<(), Problem> {
    let found = fill(from, into).map_err(Problem::Io)?;
    if found == into.len() { Ok(()) } else { Err(Problem::Truncated { wanted: into.len() as u64, found: found as u64 }) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Reads the head of a stream.
pub(crate) fn read_head(from: &mut impl Read) -> Result<(), Problem> {
    let mut bytes = [0; 16];
    let found = fill(from, &mut bytes).map_err(Problem::Io)?;
    if !MAGIC.starts_with(&bytes[..found.min(8)]) || found == 0 {
        return Err(Problem::NotAStream { found: bytes[..found.min(8)].to_vec() });
    }
    if found < bytes.len() {
        return Err(Problem::Truncated { wanted: bytes.len() as u64, found: found as u64 });
    }
    let (stored, computed) = (u32_at(&bytes, 12), crc32fast::hash(&bytes[..12]));
    if stored != computed {
        return Err(Problem::Checksum { what: "head", stored, computed });
    }
    match u32_at(&bytes, 8) {
        FORMAT => Ok(()),
        found => Err(Problem::Format { found }),
    }
}

impl Header {
    /// The bytes, checksum included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.name.len() + 4);
        bytes.extend(SECTION);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        bytes.push(match self.form {
            Form::End => 0,
            Form::Value => 1,
            Form::Pages => 2,
        });
        bytes.push(u8::from(self.compressed) | u8::from(self.optional) << 1);
        bytes.extend((self.name.len() as u16).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.stored.to_le_bytes());
        bytes.extend(self.raw.to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a head and its checksum. The place gets the name, once it can be believed.
    pub(crate) fn read(from: &mut impl Read, place: &mut Place) -> Result<(Self, u32), Problem> {
        let mut fixed = [0; FIXED];
        let found = fill(from, &mut fixed).map_err(Problem::Io)?;
        let begin = found.min(SECTION.len());
        if fixed[..begin] != SECTION[..begin] {
            return Err(Problem::NoSection { found: [fixed[0], fixed[1], fixed[2], fixed[3]] });
        }
        if found < FIXED {
            return Err(Problem::Truncated { wanted: FIXED as u64, found: found as u64 });
        }
        let length = usize::from(u16_at(&fixed, 12));
        if !(1..=MAXIMUM_NAME).contains(&length) {
            return Err(Problem::TooMuch { what: "bytes of the name", found: length as u64, limit: MAXIMUM_NAME as u64 });
        }
        let mut rest = [0; MAXIMUM_NAME + 4];
        let rest = &mut rest[..length + 4];
        fill_all(from, rest)?;
        let (name, checksum) = rest.split_at(length);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&fixed);
        hasher.update(name);
        let (stored, computed) = (u32_at(checksum, 0), hasher.finalize());
        if stored != computed {
            return Err(Problem::Checksum { what: "head", stored, computed });
        }
        let text = String::from_utf8_lossy(name).into_owned();
        if !is_name(name) {
            return Err(Problem::Name { found: text });
        }
        place.name = Some(text.clone());
        let form = match fixed[10] {
            0 => Form::End,
            1 => Form::Value,
            2 => Form::Pages,
            other => return Err(Problem::Unknown { what: "form", found: other.into() }),
        };
        if fixed[11] & !3 != 0 {
            return Err(Problem::Unknown { what: "flags", found: fixed[11].into() });
        }
        if u16_at(&fixed, 14) != 0 {
            return Err(Problem::Unknown { what: "reserved bytes", found: u16_at(&fixed, 14).into() });
        }
        let header = Self {
            number: u32_at(&fixed, 4),
            version: u16_at(&fixed, 8),
            form,
            compressed: fixed[11] & 1 != 0,
            optional: fixed[11] & 2 != 0,
            stored: u64_at(&fixed, 16),
            raw: u64_at(&fixed, 24),
            name: text,
        };
        Ok((header, computed))
    }
}
