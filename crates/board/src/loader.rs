//! Loaders of guest images: from a file's bytes to a description of memory and of the first processor's state.
//!
//! What is modelled: flat binaries, ELF32 and ELF64 executables, Multiboot 1 images (specification version 0.6.96) as ELF or with address
//! fields, with command line, memory map and modules. The result is a pure value; whoever owns a machine copies [`Image::segments`] into
//! memory, each followed by zeros up to [`Segment::zero_to`], and sets the registers that [`Entry`] names. What is not: compressed images,
//! the Linux boot protocol, Multiboot 2, position-independent and dynamically linked executables.
//!
//! Where the loaders put what is not in the file:
//!
//! | what | where |
//! |---|---|
//! | page tables, GDT and stack of a 64-bit entry | 0x1000 to 0x8000, see [`long_mode`] |
//! | Multiboot modules | from the page after the highest segment upwards, page-aligned |
//! | Multiboot information | from 0x9000 below 640 KiB; where the image is in the way, after the last module |
//!
//! Nothing may overlap, and all of it must lie in RAM: below [`RAM_BELOW_4G`], and from 4 GiB upwards for the rest of the memory.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::board::RAM_BELOW_4G;

mod elf;
mod error;
mod flat;
mod layout;
pub mod long_mode;
pub mod multiboot;

pub use error::{LoadError, Part};

/// A stretch of guest-physical memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Guest-physical address of the first byte.
    pub physical: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Guest-physical address up to which zeros follow the bytes; at least `physical` plus their number.
    pub zero_to: u64,
}

/// The state in which the first processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Real mode, interrupts off, all data segments at 0.
    Real16 {
        /// Code segment selector; its base is 16 times as much.
        cs: u16,
        /// Instruction pointer.
        ip: u16,
    },
    /// Protected mode without paging (Multiboot 3.2 "Machine state"): flat 4 GiB 32-bit code and data segments in the hidden parts of the
    /// segment registers, interrupts off, A20 open. ESP, GDTR and IDTR are not defined.
    Protected32 {
        /// Instruction pointer.
        eip: u32,
        /// The boot loader's magic for Multiboot, else 0.
        eax: u32,
        /// The address of the Multiboot information, else 0.
        ebx: u32,
    },
    /// 64-bit mode with paging as [`long_mode`] describes it: CR0.PE, CR0.PG, CR4.PAE, EFER.LME and EFER.LMA set, interrupts off, and no IDT.
    Long64 {
        /// Instruction pointer.
        rip: u64,
        /// Stack pointer: the top of the stack that the loader provides.
        rsp: u64,
        /// Guest-physical address of the top-level page table.
        cr3: u64,
        /// Address of the GDT.
        gdt_base: u64,
        /// Limit of the GDT.
        gdt_limit: u16,
        /// Selector of the 64-bit code segment, for CS.
        code: u16,
        /// Selector of the data segment, for SS, DS, ES, FS and GS.
        data: u16,
    },
}

/// A guest ready to be put into a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What memory holds, in order of address, without overlap. The rest of memory is zero.
    pub segments: Vec<Segment>,
    /// Where the first processor starts, and how.
    pub entry: Entry,
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Multiboot if there is a header, else ELF if there is ELF's magic number, else flat.
    #[default]
    Auto,
    /// Bytes to be put at an address.
    Flat,
    /// An ELF executable, a Multiboot header ignored.
    Elf,
    /// An image with a Multiboot header.
    Multiboot,
}

/// The mode in which a flat binary starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// [`Entry::Real16`].
    Real16,
    /// [`Entry::Protected32`].
    Protected32,
    /// [`Entry::Long64`].
    #[default]
    Long64,
}

/// How to place a flat binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlatOptions {
    /// Guest-physical address of the first byte.
    pub base: u64,
    /// Guest-physical address of the first instruction; the base if `None`.
    pub entry: Option<u64>,
    /// The mode of the processor.
    pub mode: Mode,
}

impl Default for FlatOptions {
    fn default() -> Self {
        Self { base: 0x10_0000, entry: None, mode: Mode::default() }
    }
}

/// A Multiboot module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its string: by convention the file name, then arguments.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What the loader is told besides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadOptions {
    /// What the file is.
    pub kind: Kind,
    /// Bytes of RAM.
    pub memory_size: u64,
    /// The name of the image, the first word of a Multiboot command line.
    pub image_name: String,
    /// The arguments after it, verbatim. Only Multiboot can pass them.
    pub command_line: String,
    /// Modules. Only Multiboot can pass them.
    pub modules: Vec<Module>,
    /// Placement of a flat binary.
    pub flat: FlatOptions,
}

/// Reads an image.
///
/// # Errors
/// [`LoadError`] when the file is malformed, does not fit into memory, or asks for what the loader does not have.
pub fn load(file: &[u8], options: &LoadOptions) -> Result<Image, LoadError> {
    if file.is_empty() {
        return Err(LoadError::Empty);
    }
    let kind = match options.kind {
        Kind::Auto if multiboot::find_header(file).is_some() => Kind::Multiboot,
        Kind::Auto if elf::is_elf(file) => Kind::Elf,
        Kind::Auto => Kind::Flat,
        kind => kind,
    };
    if kind != Kind::Multiboot {
        let what = if !options.command_line.is_empty() {
            Some("a command line was given")
        } else if !options.modules.is_empty() {
            Some("modules were given")
        } else {
            None
        };
        if let Some(what) = what {
            return Err(LoadError::NotMultiboot { what });
        }
    }
    match kind {
        Kind::Multiboot => multiboot::load(file, options),
        Kind::Elf => elf::load(file, options),
        Kind::Flat | Kind::Auto => flat::load(file, options),
    }
}

/// The labels of an image: names that the symbol table of an ELF file, or of a Multiboot image that is one, gives to linear addresses. Empty where
/// there is none.
pub fn symbols(file: &[u8]) -> BTreeMap<String, u64> {
    elf::symbols(file)
}

/// The stretches of RAM of a machine with `memory_size` bytes, as start and end.
fn ram(memory_size: u64) -> [(u64, u64); 2] {
    let low = memory_size.min(RAM_BELOW_4G);
    [(0, low), (1 << 32, (1_u64 << 32).saturating_add(memory_size - low))]
}
