//! ELF executables: their loadable segments at their physical addresses.
//!
//! Source: System V Application Binary Interface, chapter 4 "Object Files" and chapter 5 "Program Loading".
//! What is modelled: ET_EXEC files for i386 (entered in 32-bit protected mode) and x86-64 (entered in 64-bit mode). The entry point is a
//! virtual address; it is translated with the segment that holds it.

use elf::ElfBytes;
use elf::abi::{ELFMAGIC, EM_386, EM_X86_64, ET_EXEC, PT_INTERP, PT_LOAD};
use elf::endian::AnyEndian;
use elf::file::Class;

use super::error::{LoadError, Part};
use super::layout::{Layout, entry_below_4g};
use super::{Entry, Image, LoadOptions, long_mode};

pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(&ELFMAGIC)
}

pub(super) fn load(file: &[u8], options: &LoadOptions) -> Result<Image, LoadError> {
    let mut layout = Layout::new(options.memory_size);
    let Executable { entry, class } = place(file, &mut layout)?;
    let entry = match class {
        Class::ELF32 => Entry::Protected32 { eip: entry_below_4g(entry)?, eax: 0, ebx: 0 },
        Class::ELF64 => long_mode::enter(&mut layout, entry)?,
    };
    Ok(Image { segments: layout.into_segments(), entry })
}

/// What the header says of an executable that was placed.
pub(super) struct Executable {
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// 32 or 64 bits.
    pub class: Class,
}

/// Places the segments of the executable in `file`.
pub(super) fn place(file: &[u8], layout: &mut Layout) -> Result<Executable, LoadError> {
    let malformed = |error: elf::ParseError| LoadError::MalformedElf { problem: error.to_string() };
    let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(malformed)?;
    let header = &elf.ehdr;
    let foreign = |field, value: u16, wanted| LoadError::ForeignElf { field, value: u64::from(value), wanted };
    if header.endianness != AnyEndian::Little {
        return Err(foreign("EI_DATA", 2, "1 (little-endian)"));
    }
    if header.e_type != ET_EXEC {
        return Err(foreign("e_type", header.e_type, "2 (ET_EXEC)"));
    }
    match (header.class, header.e_machine) {
        (Class::ELF32, EM_386) | (Class::ELF64, EM_X86_64) => {}
        (Class::ELF32, machine) => return Err(foreign("e_machine", machine, "3 (EM_386) in a 32-bit file")),
        (Class::ELF64, machine) => return Err(foreign("e_machine", machine, "62 (EM_X86_64) in a 64-bit file")),
    }
    let mut entry = None;
    let mut placed = false;
    for (index, segment) in elf.segments().into_iter().flatten().enumerate() {
        if segment.p_type == PT_INTERP {
            return Err(LoadError::DynamicElf { index });
        }
        if segment.p_type != PT_LOAD || segment.p_memsz == 0 {
            continue;
        }
        let part = Part::ElfSegment(index);
        if segment.p_filesz > segment.p_memsz {
            return Err(LoadError::LargerThanMemorySize { part, file_size: segment.p_filesz, memory_size: segment.p_memsz });
        }
        let bytes = slice(file, segment.p_offset, segment.p_filesz).ok_or(LoadError::OutsideFile {
            part,
            offset: segment.p_offset,
            size: segment.p_filesz,
            file_size: file.len() as u64,
        })?;
        layout.place(part, segment.p_paddr, segment.p_memsz, bytes)?;
        let within = header.e_entry.wrapping_sub(segment.p_vaddr);
        if entry.is_none() && within < segment.p_memsz {
            entry = Some(segment.p_paddr + within);
        }
        placed = true;
    }
    if !placed {
        return Err(LoadError::NothingToLoad);
    }
    let entry = entry.ok_or(LoadError::EntryOutsideImage { entry: header.e_entry })?;
    Ok(Executable { entry, class: header.class })
}

/// The bytes of `file` from `offset`, if it has so many.
pub(super) fn slice(file: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}
