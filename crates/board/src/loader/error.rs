//! Why an image cannot be loaded: what is wrong, where, and what to do about it.

use std::fmt;

use thiserror::Error;

/// A piece that is placed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The program header with this number.
    ElfSegment(usize),
    /// A flat binary.
    FlatBinary,
    /// The text that the address fields of a Multiboot header describe.
    MultibootText,
    /// The Multiboot module with this number.
    MultibootModule(usize),
    /// The Multiboot information structure with its strings.
    MultibootInformation,
    /// Page tables, GDT and stack of a 64-bit entry.
    LongModeStructures,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ElfSegment(index) => write!(f, "ELF segment {index}"),
            Self::FlatBinary => f.write_str("the flat binary"),
            Self::MultibootText => f.write_str("the Multiboot image"),
            Self::MultibootModule(index) => write!(f, "Multiboot module {index}"),
            Self::MultibootInformation => f.write_str("the Multiboot information"),
            Self::LongModeStructures => f.write_str("the loader's page tables, GDT and stack"),
        }
    }
}

/// Why an image cannot be loaded. [`LoadError::help`] says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The ELF structures do not parse.
    #[error("malformed ELF file: {problem}")]
    MalformedElf {
        /// What the parser found.
        problem: String,
    },
    /// An ELF file for something else.
    #[error("ELF header field {field} is {value:#x}, wanted {wanted}")]
    ForeignElf {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it should be.
        wanted: &'static str,
    },
    /// The executable needs a dynamic linker.
    #[error("program header {index} asks for a dynamic linker")]
    DynamicElf {
        /// Number of the program header.
        index: usize,
    },
    /// No segment occupies memory.
    #[error("the ELF file has no segment to load")]
    NothingToLoad,
    /// A segment's bytes are not in the file.
    #[error("{part} needs bytes {offset:#x}+{size:#x} of a file of {file_size:#x}")]
    OutsideFile {
        /// The segment.
        part: Part,
        /// Offset of its first byte in the file.
        offset: u64,
        /// How many bytes.
        size: u64,
        /// Bytes in the file.
        file_size: u64,
    },
    /// A segment is larger in the file than in memory.
    #[error("{part} has {file_size:#x} bytes in the file but only {memory_size:#x} in memory")]
    LargerThanMemorySize {
        /// The segment.
        part: Part,
        /// Bytes in the file.
        file_size: u64,
        /// Bytes in memory.
        memory_size: u64,
    },
    /// A piece does not lie in RAM.
    #[error("{part} at {start:#x}+{size:#x} does not lie in the {memory_size:#x} bytes of memory")]
    OutsideMemory {
        /// The piece.
        part: Part,
        /// Guest-physical address of its first byte.
        start: u64,
        /// Bytes in memory.
        size: u64,
        /// Bytes of RAM.
        memory_size: u64,
    },
    /// Two pieces share memory.
    #[error("{part} at {start:#x}+{size:#x} overlaps {other} at {other_start:#x}+{other_size:#x}")]
    Overlap {
        /// The piece that was to be placed.
        part: Part,
        /// Its address.
        start: u64,
        /// Its size.
        size: u64,
        /// The piece that was there.
        other: Part,
        /// Its address.
        other_start: u64,
        /// Its size.
        other_size: u64,
    },
    /// The first instruction is not part of what was loaded.
    #[error("entry point {entry:#x} is not in the loaded image")]
    EntryOutsideImage {
        /// Guest-physical address.
        entry: u64,
    },
    /// The first instruction cannot be reached in the mode of the entry.
    #[error("entry point {entry:#x} cannot be reached in {mode}, which ends at {limit:#x}")]
    EntryOutOfReach {
        /// Guest-physical address.
        entry: u64,
        /// Name of the mode.
        mode: &'static str,
        /// First address out of reach.
        limit: u64,
    },
    /// There is no Multiboot header.
    #[error("no Multiboot header in the first 8192 bytes")]
    NoMultibootHeader,
    /// The header demands a feature that this loader does not have.
    #[error("the Multiboot header at offset {offset:#x} requires features {bits:#06x}, which are not modelled")]
    MultibootRequirement {
        /// Offset of the header in the file.
        offset: u64,
        /// The bits of its flags field.
        bits: u32,
    },
    /// The address fields of the header contradict each other or the file.
    #[error("the Multiboot header at offset {offset:#x} has {field} {value:#x}: {problem}")]
    MultibootAddress {
        /// Offset of the header in the file.
        offset: u64,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The header has no address fields and the file is no ELF file.
    #[error("the Multiboot header at offset {offset:#x} has no address fields, and the file is not ELF")]
    MultibootWithoutAddresses {
        /// Offset of the header in the file.
        offset: u64,
    },
    /// Only a Multiboot image can be given this.
    #[error("{what}, but the image has no Multiboot header to receive it")]
    NotMultiboot {
        /// What was given, in words.
        what: &'static str,
    },
    /// A text that is passed as a C string contains its terminator.
    #[error("{what} contains a NUL character at byte {at}")]
    NulInText {
        /// Which text.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

impl LoadError {
    /// What the user can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Empty => "give the path of a flat binary, an ELF executable or a Multiboot image",
            Self::MalformedElf { .. } | Self::OutsideFile { .. } => {
                "the file may be truncated; `readelf -hl` shows what it claims to contain"
            }
            Self::LargerThanMemorySize { .. } => "the program header is wrong: p_filesz may not exceed p_memsz",
            Self::ForeignElf { .. } => "build a statically linked executable (ET_EXEC) for i386 or x86-64",
            Self::DynamicElf { .. } => "link statically and without position independence: -static -no-pie",
            Self::NothingToLoad => "an object file must be linked first",
            Self::OutsideMemory { .. } => "give the machine more memory, or link the image to a lower address",
            Self::Overlap { .. } => "link the image to another address; 0x1000 to 0x8000 is the loader's in a 64-bit entry",
            Self::EntryOutsideImage { .. } => "check the entry symbol of the link, or the entry address of a flat binary",
            Self::EntryOutOfReach { .. } => "load the image lower, or enter it in a wider mode",
            Self::NoMultibootHeader => "the header must be 4-byte aligned, complete and with a right checksum",
            Self::MultibootRequirement { .. } => "clear these flags in the header; there is no video mode to set",
            Self::MultibootAddress { .. } => "check the five address fields of the header against the link",
            Self::MultibootWithoutAddresses { .. } => "set flag bit 16 and the address fields, or wrap the image in ELF",
            Self::NotMultiboot { .. } => "leave it out, or build the image with a Multiboot header",
            Self::NulInText { .. } => "the guest would see the text end there; remove it",
        }
    }
}
