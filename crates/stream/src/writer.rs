//! Writing a stream.

use crate::error::{Error, Place, Problem};
use crate::header::{self, Form};
use crate::pages::{self, Duplicates, PAGE_BYTES};
use crate::section::Section;
use serde::{Deserialize, Serialize};
use std::io::Write;

/// The name of the last section.
const END: &str = "end";

/// What the last section holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// Sections before it.
    sections: u32,
    /// CRC-32 over the two checksums of each.
    digest: u32,
}

/// The checksum over checksums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest(crc32fast::Hasher);

impl Digest {
    pub(crate) fn add(&mut self, (head, contents): (u32, u32)) {
        self.0.update(&head.to_le_bytes());
        self.0.update(&contents.to_le_bytes());
    }

    fn value(&self) -> u32 {
        self.0.clone().finalize()
    }
}

impl End {
    pub(crate) fn check(&self, sections: u32, digest: &Digest) -> Result<(), Problem> {
        if self.sections != sections {
            return Err(Problem::End { what: "sections", claimed: self.sections.into(), found: sections.into() });
        }
        if self.digest != digest.value() {
            return Err(Problem::End { what: "the checksum", claimed: self.digest.into(), found: digest.value().into() });
        }
        Ok(())
    }
}

/// A stream that is written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    number: u32,
    bytes: u64,
    digest: Digest,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(mut to: W) -> Result<Self, Error> {
        let head = header::head();
        to.write_all(&head).map_err(|error| Problem::Io(error).at(&Place::default()))?;
        Ok(Self { to, number: 0, bytes: head.len() as u64, digest: Digest::default() })
    }

    /// Writes a section as the next one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn section(&mut self, section: &Section) -> Result<(), Error> {
        let place = Place { offset: self.bytes, number: Some(self.number), name: Some(section.name.clone()), after: None };
        let checksums = section.write(self.number, &mut self.to).map_err(|error| Problem::Io(error).at(&place))?;
        self.digest.add(checksums);
        self.bytes += (header::FIXED + section.name.len() + 4 + 4) as u64 + section.stored.len() as u64;
        let limit = u64::from(u32::MAX);
        self.number = self.number.checked_add(1).ok_or_else(|| Problem::TooMuch { what: "sections", found: limit, limit }.at(&place))?;
        Ok(())
    }

    /// Writes a section that holds a value.
    ///
    /// # Errors
    /// See [`Section::value`]; the operating system's.
    pub fn value<T: Serialize + ?Sized>(&mut self, name: &str, version: u16, value: &T) -> Result<(), Error> {
        self.section(&Section::value(name, version, value)?)
    }

    /// Writes sections that hold pages, see [`pages::encode`].
    ///
    /// # Errors
    /// See [`Section::value`]; the operating system's.
    pub fn pages<'a>(
        &mut self,
        name: &str,
        version: u16,
        frames: &[u64],
        page: impl Fn(u64) -> Option<&'a [u8; PAGE_BYTES]> + Sync,
    ) -> Result<(), Error> {
        pages::encode(name, version, frames, Duplicates::OfCall, page, |section| {
            self.section(&section)?;
            Ok(Some(section))
        })
    }

    /// How many bytes were written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the end.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(mut self) -> Result<W, Error> {
        let end = End { sections: self.number, digest: self.digest.value() };
        self.section(&Section::of_value(END, 1, Form::End, &end)?)?;
        let place = Place { offset: self.bytes, number: Some(self.number), name: Some(END.to_owned()), after: None };
        self.to.flush().map_err(|error| Problem::Io(error).at(&place))?;
        Ok(self.to)
    }
}
