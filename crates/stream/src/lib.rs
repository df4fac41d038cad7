//! The stream: one container for checkpoints on disk and for guests on their way over a link. It knows no machine.
//!
//! A stream is a head and then *sections*, one behind the other. Each has a name, a version of its own, a number that counts up, its length
//! and checksums; it can be written, sent, checked and read by itself ([`Section`]). The last one says how many there were, so that a stream
//! that was cut off is never taken for a whole one. All integers are little-endian.
//!
//! ```text
//! head      8  89 54 52 4c 0d 0a 1a 0a: the magic, which a transfer as text destroys
//!           4  version of the format: 1
//!           4  CRC-32 of these twelve bytes
//!
//! section   4  "SECT"
//!           4  its number, from zero
//!           2  version of what it holds
//!           1  form: 0 the end, 1 a value, 2 pages
//!           1  flags: bit 0 compressed by zstd, bit 1 whoever does not know the section may skip it
//!           2  bytes of the name
//!           2  zero
//!           8  bytes stored
//!           8  bytes of the contents: of the CBOR of a value, or of all pages that are told of
//!           n  the name: a to z, 0 to 9, and - _ . /
//!           4  CRC-32 of all this
//!           m  what is stored
//!           4  CRC-32 of what is stored
//! ```
//!
//! - A *value* is CBOR (RFC 8949) of a serde type with the names of its fields, so that tools show every section without knowing its type.
//!   A field that is added gets a default, and the version stays. A change of meaning raises the version.
//! - *Pages* are runs of frames, see [`pages`].
//! - The *end* is a value: the number of sections before it, and a CRC-32 over their checksums.
//!
//! Whatever is read is taken for hostile: lengths are bounded, claims allocate nothing, and an [`Error`] tells of section and offset.

mod bytes;
mod cbor;
mod compress;
pub mod contents;
mod error;
mod header;
pub mod pages;
mod reader;
mod section;
pub mod tree;
mod writer;

pub use bytes::Bytes;
pub use ciborium::Value;
pub use contents::Contents;
pub use error::{Error, Place, Problem};
pub use header::{FORMAT, Form, MAGIC};
pub use pages::{Batch, Content, Duplicates, PAGE_BYTES};
pub use reader::Reader;
pub use section::Section;
pub use writer::Writer;

/// The most bytes that the CBOR of a value may have.
pub const MAXIMUM_VALUE_BYTES: u64 = 64 << 20;

/// The most data items that a value may have: what bounds the memory of a decoded one.
pub const MAXIMUM_VALUE_ITEMS: u64 = 4 << 20;

/// How deep a value may be nested.
pub const MAXIMUM_VALUE_DEPTH: usize = 64;
