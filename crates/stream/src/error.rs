//! What can be wrong with a stream: where, what, and what to do about it.

use crate::header::Form;

/// Where in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the beginning of the stream.
    pub offset: u64,
    /// The number of the section; `None` in front of the first.
    pub number: Option<u32>,
    /// Its name, once that is known.
    pub name: Option<String>,
    /// The section in front of it, for when the name is not known.
    pub after: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.number, &self.name, &self.after) {
            (None, ..) => write!(formatter, "head of the stream")?,
            (Some(number), Some(name), _) => write!(formatter, "section `{name}` (number {number})")?,
            (Some(number), None, Some(after)) => write!(formatter, "section number {number}, behind `{after}`,")?,
            (Some(number), None, None) => write!(formatter, "section number {number}")?,
        }
        write!(formatter, " at offset {:#x}", self.offset)
    }
}

/// A stream that cannot be read, or a section that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What, and what to do.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system could not read or write.
    #[error("{0}")]
    Io(std::io::Error),
    /// The magic is missing.
    #[error("begins with {found:02x?} and not with the magic of a stream; `trapline checkpoint` writes one")]
    NotAStream {
        /// The bytes that are there.
        found: Vec<u8>,
    },
    /// The format is one of the future.
    #[error("format version {found}, and this Trapline reads version {}; read it with the Trapline that wrote it", crate::FORMAT)]
    Format {
        /// The version that is there.
        found: u32,
    },
    /// The stream ends too early.
    #[error("the stream ends here, with {found} of {wanted} bytes; it was cut off: copy or send it again")]
    Truncated {
        /// Bytes that should be there.
        wanted: u64,
        /// Bytes that are.
        found: u64,
    },
    /// Bytes have changed.
    #[error("the checksum of the {what} is {stored:#010x}, the bytes give {computed:#010x}; it was damaged: copy or send it again")]
    Checksum {
        /// Of what.
        what: &'static str,
        /// The checksum that is there.
        stored: u32,
        /// The one that should be.
        computed: u32,
    },
    /// No section begins where one should.
    #[error("no section begins here, but {found:02x?}; bytes were lost or added in front of it: copy or send it again")]
    NoSection {
        /// The bytes that are there.
        found: [u8; 4],
    },
    /// A section is missing, or came twice.
    #[error("it says that it is number {found}; a section was lost, repeated or moved: send the stream again in order")]
    OutOfOrder {
        /// The number in the section.
        found: u32,
    },
    /// A part of the head has a value that means nothing.
    #[error("{what} {found:#x} means nothing in format version {}; whatever wrote it is newer or no Trapline", crate::FORMAT)]
    Unknown {
        /// Which part.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// A name that sections cannot have.
    #[error("`{found}` cannot name a section: 1 to 64 of a to z, 0 to 9, and - _ . /")]
    Name {
        /// The name.
        found: String,
    },
    /// Longer than anything that is written.
    #[error("{what}: {found}, and no more than {limit} are read; whatever wrote it is no Trapline")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is claimed.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// What zstd says.
    #[error("cannot be decompressed ({0}); it was damaged before its checksum was made")]
    Compression(String),
    /// Contents that contradict their head.
    #[error("{what}: the head says {claimed}, the contents {found}; it was damaged before its checksum was made")]
    Contradiction {
        /// Of what.
        what: &'static str,
        /// What the head says.
        claimed: u64,
        /// What is there.
        found: u64,
    },
    /// A section of one form where another was asked for.
    #[error("holds {found}, and {wanted} was asked for")]
    WrongForm {
        /// What was asked for.
        wanted: Form,
        /// What is there.
        found: Form,
    },
    /// What the section holds is of the future.
    #[error("version {found}, and this Trapline knows up to {known}; read it with the Trapline that wrote it")]
    Version {
        /// The version that is there.
        found: u16,
        /// The newest one that is known.
        known: u16,
    },
    /// The CBOR is malformed, or is not of the type that the section has.
    #[error("{0}")]
    Value(String),
    /// Runs of pages that cannot be.
    #[error("{0}; whatever wrote it is no Trapline")]
    Pages(String),
    /// The end does not fit what came before it.
    #[error("the end tells of {what} {claimed:#x}, read were {found:#x}; sections of different streams were mixed: copy or send it again")]
    End {
        /// Of what.
        what: &'static str,
        /// What the end says.
        claimed: u64,
        /// What was read.
        found: u64,
    },
    /// Something follows the end.
    #[error("bytes follow the end of the stream; several were joined, or the file was overwritten in part")]
    Trailing,
}

impl Problem {
    /// The problem at a place.
    pub(crate) fn at(self, place: &Place) -> Error {
        Error { place: place.clone(), problem: self }
    }
}
