//! One section, by itself: made, encoded, read, decoded.

use crate::cbor;
use crate::error::{Error, Place, Problem};
use crate::header::{self, Form, Header};
use crate::pages::{self, Batch, Table};
use crate::{MAXIMUM_VALUE_BYTES, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};

/// Values shorter than this are not worth compressing.
const WORTH_COMPRESSING: usize = 256;

/// How hard zstd tries with values.
const VALUE_LEVEL: i32 = 3;

/// Room that is made before bytes have arrived.
const FIRST_ROOM: u64 = 64 << 10;

/// One section.
#[derive(Clone, Debug)]
pub struct Section {
    pub(crate) name: String,
    pub(crate) version: u16,
    pub(crate) form: Form,
    pub(crate) optional: bool,
    pub(crate) compressed: bool,
    pub(crate) raw: u64,
    pub(crate) stored: Vec<u8>,
    pub(crate) place: Place,
    /// Checksum of head and of what is stored, as read.
    pub(crate) checksums: (u32, u32),
}

impl Section {
    fn made(name: &str, version: u16, form: Form, raw: u64, stored: Vec<u8>, compressed: bool) -> Result<Self, Error> {
        let place = Place { offset: 0, number: Some(0), name: Some(name.to_owned()), after: None };
        if !header::is_name(name.as_bytes()) {
            return Err(Problem::Name { found: name.to_owned() }.at(&place));
        }
        Ok(Self { name: name.to_owned(), version, form, optional: false, compressed, raw, stored, place, checksums: (0, 0) })
    }

    /// A section that holds a value.
    ///
    /// # Errors
    /// The name cannot name a section, or the value is too large or not serializable.
    pub fn value<T: Serialize + ?Sized>(name: &str, version: u16, value: &T) -> Result<Self, Error> {
        Self::of_value(name, version, Form::Value, value)
    }

    pub(crate) fn of_value<T: Serialize + ?Sized>(name: &str, version: u16, form: Form, value: &T) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let written = ciborium::into_writer(value, &mut bytes).map_err(|error| Problem::Value(error.to_string()));
        let mut section = Self::made(name, version, form, 0, Vec::new(), false)?;
        // What is written is what would be read again.
        written.and_then(|()| limit("bytes", bytes.len() as u64, MAXIMUM_VALUE_BYTES)).map_err(|problem| problem.at(&section.place))?;
        cbor::check(&bytes).map_err(|problem| problem.at(&section.place))?;
        section.raw = bytes.len() as u64;
        let smaller = if bytes.len() < WORTH_COMPRESSING {
            None
        } else {
            let compressed = zstd::bulk::compress(&bytes, VALUE_LEVEL);
            Some(compressed.map_err(|error| Problem::Compression(error.to_string()).at(&section.place))?)
        };
        match smaller.filter(|compressed| compressed.len() < bytes.len()) {
            Some(compressed) => (section.stored, section.compressed) = (compressed, true),
            None => section.stored = bytes,
        }
        Ok(section)
    }

    pub(crate) fn of_pages(name: &str, version: u16, pages: u64, stored: Vec<u8>, compressed: bool) -> Result<Self, Error> {
        Self::made(name, version, Form::Pages, pages * pages::PAGE_BYTES as u64, stored, compressed)
    }

    /// The same, which whoever does not know it may skip.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of what it holds.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// What it holds.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Whether whoever does not know it may skip it.
    pub fn is_optional(&self) -> bool {
        self.optional
    }

    /// Bytes of the contents: of the CBOR of a value, or of all pages that are told of.
    pub fn raw_bytes(&self) -> u64 {
        self.raw
    }

    /// Bytes that are stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.len() as u64
    }

    /// CRC-32 of what is stored.
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.stored)
    }

    /// Where it was read. A section that was made has no place yet: number zero at offset zero.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The buffer of the contents, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.stored
    }

    fn header(&self, number: u32) -> Header {
        Header {
            number,
            version: self.version,
            form: self.form,
            compressed: self.compressed,
            optional: self.optional,
            stored: self.stored.len() as u64,
            raw: self.raw,
            name: self.name.clone(),
        }
    }

    /// The bytes of the section as number so-and-so of a stream.
    pub fn encode(&self, number: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.stored.len() + 128);
        // Writing into a vector does not fail.
        let _ = self.write(number, &mut bytes);
        bytes
    }

    /// Writes the section as number so-and-so. Returns its two checksums.
    pub(crate) fn write(&self, number: u32, to: &mut impl Write) -> io::Result<(u32, u32)> {
        let head = self.header(number).encode();
        let contents = crc32fast::hash(&self.stored);
        to.write_all(&head)?;
        to.write_all(&self.stored)?;
        to.write_all(&contents.to_le_bytes())?;
        let checksum = &head[head.len() - 4..];
        Ok((u32::from_le_bytes([checksum[0], checksum[1], checksum[2], checksum[3]]), contents))
    }

    /// Reads one section, whatever its number: for whoever gets them one at a time and asks for order himself ([`Section::place`] has the number).
    ///
    /// # Errors
    /// See [`Problem`]. The place tells of offsets from where reading began.
    pub fn read(from: &mut impl Read) -> Result<Self, Error> {
        Self::read_at(from, Place::default(), Vec::new())
    }

    /// Reads one section at a place, its contents into a buffer that may have been another's.
    pub(crate) fn read_at(from: &mut impl Read, mut place: Place, buffer: Vec<u8>) -> Result<Self, Error> {
        let expected = place.number;
        place.number = Some(expected.unwrap_or(0));
        let (header, head) = Header::read(from, &mut place).map_err(|problem| problem.at(&place))?;
        if expected.is_some_and(|number| number != header.number) {
            return Err(Problem::OutOfOrder { found: header.number }.at(&place));
        }
        place.number = Some(header.number);
        Self::read_contents(from, header, head, place.clone(), buffer).map_err(|problem| problem.at(&place))
    }

    fn read_contents(from: &mut impl Read, header: Header, head: u32, place: Place, mut stored: Vec<u8>) -> Result<Self, Problem> {
        let (most_stored, most_raw) = match header.form {
            Form::End | Form::Value => (MAXIMUM_VALUE_BYTES, MAXIMUM_VALUE_BYTES),
            Form::Pages => (pages::MAXIMUM_STORED, pages::MAXIMUM_RAW),
        };
        limit("bytes stored", header.stored, most_stored)?;
        limit("bytes of contents", header.raw, most_raw)?;
        stored.clear();
        stored.reserve(header.stored.min(FIRST_ROOM) as usize);
        from.by_ref().take(header.stored).read_to_end(&mut stored).map_err(Problem::Io)?;
        if (stored.len() as u64) < header.stored {
            return Err(Problem::Truncated { wanted: header.stored, found: stored.len() as u64 });
        }
        let mut checksum = [0; 4];
        header::fill_all(from, &mut checksum)?;
        let (told, computed) = (u32::from_le_bytes(checksum), crc32fast::hash(&stored));
        if told != computed {
            return Err(Problem::Checksum { what: "contents", stored: told, computed });
        }
        Ok(Self {
            name: header.name,
            version: header.version,
            form: header.form,
            optional: header.optional,
            compressed: header.compressed,
            raw: header.raw,
            stored,
            place,
            checksums: (head, computed),
        })
    }

    /// The CBOR of a value, its shape checked.
    fn cbor(&self) -> Result<std::borrow::Cow<'_, [u8]>, Problem> {
        if self.form == Form::Pages {
            return Err(Problem::WrongForm { wanted: Form::Value, found: self.form });
        }
        let bytes =
            if self.compressed { decompress(&self.stored, self.raw)?.into() } else { std::borrow::Cow::Borrowed(self.stored.as_slice()) };
        if bytes.len() as u64 != self.raw {
            return Err(Problem::Contradiction { what: "bytes of contents", claimed: self.raw, found: bytes.len() as u64 });
        }
        cbor::check(&bytes)?;
        Ok(bytes)
    }

    /// The value, of a type whose newest version is `known`.
    ///
    /// # Errors
    /// It is newer, is no value or not one of this type.
    pub fn decode<T: DeserializeOwned>(&self, known: u16) -> Result<T, Error> {
        let decoded = || {
            if self.version > known {
                return Err(Problem::Version { found: self.version, known });
            }
            ciborium::from_reader(&*self.cbor()?).map_err(|error| not_the_type(&error))
        };
        decoded().map_err(|problem| problem.at(&self.place))
    }

    /// The value as a tree, whatever its type.
    ///
    /// # Errors
    /// It is no value, or malformed.
    pub fn tree(&self) -> Result<Value, Error> {
        let decoded = || ciborium::from_reader(&*self.cbor()?).map_err(|error| not_the_type(&error));
        decoded().map_err(|problem: Problem| problem.at(&self.place))
    }

    /// The pages, of a section whose newest version is `known`.
    ///
    /// # Errors
    /// It is newer, holds no pages or malformed ones.
    pub fn pages(&self, known: u16) -> Result<Batch, Error> {
        self.decode_pages(known, || Batch::decode(&self.stored, self.compressed, self.raw))
    }

    /// The table of the pages, of a section whose newest version is `known`.
    ///
    /// # Errors
    /// It is newer, holds no pages or a malformed table.
    pub fn page_table(&self, known: u16) -> Result<Table, Error> {
        self.decode_pages(known, || Table::decode(&self.stored, self.raw))
    }

    fn decode_pages<T>(&self, known: u16, decode: impl FnOnce() -> Result<T, Problem>) -> Result<T, Error> {
        let decoded = match self.form {
            Form::Pages if self.version > known => Err(Problem::Version { found: self.version, known }),
            Form::Pages => decode(),
            found => Err(Problem::WrongForm { wanted: Form::Pages, found }),
        };
        decoded.map_err(|problem| problem.at(&self.place))
    }

    /// Fills `into` with the stored pages that this section's table tells of.
    pub(crate) fn stored_pages(&self, table: &Table, into: &mut [u8]) -> Result<(), Error> {
        table.fill(&self.stored, self.compressed, into).map_err(|problem| problem.at(&self.place))
    }
}

fn not_the_type<E: std::fmt::Display>(error: &ciborium::de::Error<E>) -> Problem {
    Problem::Value(match error {
        ciborium::de::Error::Semantic(_, what) => format!("it is not what this section holds: {what}"),
        ciborium::de::Error::Syntax(at) => format!("malformed CBOR at byte {at} of the contents"),
        ciborium::de::Error::RecursionLimitExceeded => "nested too deeply".to_owned(),
        ciborium::de::Error::Io(_) => "the CBOR ends too early".to_owned(),
    })
}

/// Refuses more than a limit.
pub(crate) fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), Problem> {
    if found <= limit { Ok(()) } else { Err(Problem::TooMuch { what, found, limit }) }
}

/// Decompresses into no more than what the head tells of.
pub(crate) fn decompress(stored: &[u8], raw: u64) -> Result<Vec<u8>, Problem> {
    zstd::bulk::decompress(stored, raw as usize).map_err(|error| Problem::Compression(error.to_string()))
}
