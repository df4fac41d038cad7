//! ELF executables: their loadable segments at their physical addresses.
//!
//! Source: System V Application Binary Interface, chapter 4 "Object Files" and chapter 5 "Program Loading".
//! What is modelled: ET_EXEC files for i386 (entered in 32-bit protected mode) and x86-64 (entered in 64-bit mode). The entry point is a
//! virtual address; it is translated with the segment that holds it.

use elf::ElfBytes;
use elf::abi::{ELFMAGIC, EM_386, EM_X86_64, ET_EXEC, PT_INTERP, PT_LOAD, SHT_SYMTAB, STT_FUNC, STT_NOTYPE, STT_OBJECT};
use elf::endian::AnyEndian;
use elf::file::Class;
use elf::symbol::SymbolTable;
use std::collections::BTreeMap;

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

/// The most bytes that names of symbols have in all: a kernel's have 4 MiB.
const MAX_NAMES: usize = 64 << 20;
/// The longest name of a symbol, in bytes.
const MAX_NAME: usize = 4096;

/// The names that the symbol table of the executable in `file` gives to addresses, which are linear ones; none where there is no such table.
/// Of symbols with one name the first counts: local ones come first.
pub(super) fn symbols(file: &[u8]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let Ok(elf) = ElfBytes::<AnyEndian>::minimal_parse(file) else { return found };
    let Some(sections) = elf.section_headers() else { return found };
    let Some(table) = sections.iter().find(|section| section.sh_type == SHT_SYMTAB) else { return found };
    let names = sections.get(table.sh_link as usize).ok().and_then(|section| slice(file, section.sh_offset, section.sh_size));
    let (Some(names), Some(symbols)) = (names, slice(file, table.sh_offset, table.sh_size)) else { return found };
    let mut room = MAX_NAMES;
    for symbol in SymbolTable::new(elf.ehdr.endianness, elf.ehdr.class, symbols).iter() {
        // Sections and files have names of another kind.
        if symbol.is_undefined() || !matches!(symbol.st_symtype(), STT_NOTYPE | STT_OBJECT | STT_FUNC) {
            continue;
        }
        let name = names.get(symbol.st_name as usize..).unwrap_or_default();
        let name = &name[..name.len().min(MAX_NAME)];
        let Some(length) = name.iter().position(|byte| *byte == 0).filter(|length| *length > 0) else { continue };
        let Some(left) = room.checked_sub(length) else { break };
        if let Ok(name) = std::str::from_utf8(&name[..length])
            && !found.contains_key(name)
        {
            room = left;
            found.insert(name.to_owned(), symbol.st_value);
        }
    }
    found
}

/// The bytes of `file` from `offset`, if it has so many.
pub(super) fn slice(file: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}
