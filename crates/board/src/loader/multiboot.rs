//! Multiboot 1 images.
//!
//! Source: Multiboot Specification version 0.6.96, 3.1 "OS image format", 3.2 "Machine state", 3.3 "Boot information format".
//! What is modelled: the header, its address fields (which win over ELF's, as 3.1.3 says), ELF images; and of the boot information: memory
//! sizes, command line, modules, memory map, loader name. What is not: video modes (a header that requires one is refused), boot device,
//! symbols, drives, APM.

use super::elf;
use super::error::{LoadError, Part};
use super::layout::{Layout, entry_below_4g};
use super::{Entry, Image, LoadOptions, ram};

/// The header's magic number.
pub const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX holds at entry.
pub const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The name in the boot information.
pub const LOADER_NAME: &str = "Trapline";
/// Where the boot information goes if the image leaves room there.
pub const INFORMATION: u64 = 0x9000;

/// The header lies completely within this many bytes.
const SEARCH: usize = 8192;
const PAGE: u64 = 0x1000;

// Flags of the header.
const ALIGN_MODULES: u32 = 1 << 0;
const MEMORY_INFORMATION: u32 = 1 << 1;
const ADDRESS_FIELDS: u32 = 1 << 16;
/// The bits by which an image requires a feature; the others are hints.
const REQUIREMENTS: u32 = 0xffff;

/// Bytes of the information structure, up to and including the framebuffer fields, which stay zero.
const INFORMATION_SIZE: usize = 120;
/// Memory, command line, modules, memory map, loader name.
const INFORMATION_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

/// Low memory ends here; the rest of the first MiB belongs to devices and firmware.
const LOW_MEMORY_END: u64 = 0xa_0000;
const HIGH_MEMORY: u64 = 0x10_0000;

/// The offset of the header in the file: the first place with the magic number and a right checksum.
pub fn find_header(file: &[u8]) -> Option<usize> {
    let searched = &file[..file.len().min(SEARCH)];
    (0..searched.len()).step_by(4).find(|offset| {
        let field = |index: usize| word(searched, offset + 4 * index);
        match (field(0), field(1), field(2)) {
            (Some(HEADER_MAGIC), Some(flags), Some(checksum)) => {
                HEADER_MAGIC.wrapping_add(flags).wrapping_add(checksum) == 0
                    // A header that promises address fields must have them within the searched bytes.
                    && (flags & ADDRESS_FIELDS == 0 || field(7).is_some())
            }
            _ => false,
        }
    })
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn load(file: &[u8], options: &LoadOptions) -> Result<Image, LoadError> {
    let offset = find_header(file).ok_or(LoadError::NoMultibootHeader)?;
    let flags = word(file, offset + 4).unwrap_or(0);
    let unknown = flags & REQUIREMENTS & !(ALIGN_MODULES | MEMORY_INFORMATION);
    if unknown != 0 {
        return Err(LoadError::MultibootRequirement { offset: offset as u64, bits: unknown });
    }
    let mut layout = Layout::new(options.memory_size);
    let entry = if flags & ADDRESS_FIELDS != 0 {
        place_by_address_fields(file, offset, &mut layout)?
    } else if elf::is_elf(file) {
        elf::place(file, &mut layout)?.entry
    } else {
        return Err(LoadError::MultibootWithoutAddresses { offset: offset as u64 });
    };
    let eip = entry_below_4g(entry)?;
    let mut modules = Vec::new();
    for (index, module) in options.modules.iter().enumerate() {
        let start = layout.end_below_4g().next_multiple_of(PAGE);
        let size = module.bytes.len() as u64;
        layout.place(Part::MultibootModule(index), start, size, &module.bytes)?;
        modules.push((start, start + size));
    }
    let ebx = place_information(options, &modules, &mut layout)?;
    Ok(Image { segments: layout.into_segments(), entry: Entry::Protected32 { eip, eax: LOADER_MAGIC, ebx } })
}

/// 3.1.3 "The address fields of Multiboot header"; returns the entry address.
fn place_by_address_fields(file: &[u8], offset: usize, layout: &mut Layout) -> Result<u64, LoadError> {
    let field = |index: usize| word(file, offset + 4 * index).map_or(0, u64::from);
    let [header, load, load_end, bss_end, entry] = [3, 4, 5, 6, 7].map(field);
    let wrong = |field, value, problem| LoadError::MultibootAddress { offset: offset as u64, field, value, problem };
    let file_offset = header.checked_sub(load).ok_or_else(|| wrong("load_addr", load, "it is above header_addr")).and_then(|before| {
        (offset as u64).checked_sub(before).ok_or_else(|| wrong("load_addr", load, "it lies before the start of the file"))
    })?;
    let bytes = match load_end {
        // Zero: text and data are the whole rest of the file.
        0 => elf::slice(file, file_offset, file.len() as u64 - file_offset),
        _ => {
            let size = load_end.checked_sub(load).ok_or_else(|| wrong("load_end_addr", load_end, "it is below load_addr"))?;
            elf::slice(file, file_offset, size)
        }
    };
    let bytes = bytes.ok_or_else(|| wrong("load_end_addr", load_end, "the file ends before it"))?;
    let loaded_end = load + bytes.len() as u64;
    let end = match bss_end {
        0 => loaded_end,
        _ if bss_end < loaded_end => return Err(wrong("bss_end_addr", bss_end, "it is below load_end_addr")),
        _ => bss_end,
    };
    layout.place(Part::MultibootText, load, end - load, bytes)?;
    layout.check_entry(entry)?;
    Ok(entry)
}

/// The blob of the information structure and what it points to, under construction for one address.
struct Information {
    base: u64,
    bytes: Vec<u8>,
}

impl Information {
    fn append(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        // The blob is checked to lie below 4 GiB when it is placed.
        address as u32
    }

    fn append_text(&mut self, text: &str) -> u32 {
        let address = self.append(text.as_bytes());
        self.bytes.push(0);
        address
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Places the boot information; returns its address.
fn place_information(options: &LoadOptions, modules: &[(u64, u64)], layout: &mut Layout) -> Result<u32, LoadError> {
    let texts = options.modules.iter().map(|module| ("a module's text", module.text.as_str()));
    let own = [("the image name", options.image_name.as_str()), ("the command line", options.command_line.as_str())];
    for (what, text) in own.into_iter().chain(texts) {
        if let Some(at) = text.find('\0') {
            return Err(LoadError::NulInText { what, at });
        }
    }
    let low = information(options, modules, INFORMATION);
    let size = low.len() as u64;
    if INFORMATION + size <= LOW_MEMORY_END && layout.place(Part::MultibootInformation, INFORMATION, size, &low).is_ok() {
        return Ok(INFORMATION as u32);
    }
    let base = layout.end_below_4g().next_multiple_of(PAGE);
    layout.place(Part::MultibootInformation, base, size, &information(options, modules, base))?;
    entry_below_4g(base)
}

fn information(options: &LoadOptions, modules: &[(u64, u64)], base: u64) -> Vec<u8> {
    let mut information = Information { base, bytes: vec![0; INFORMATION_SIZE] };
    information.set(0, INFORMATION_FLAGS);
    let [(_, low_end), _] = ram(options.memory_size);
    information.set(4, (low_end.min(LOW_MEMORY_END) >> 10) as u32);
    information.set(8, (low_end.saturating_sub(HIGH_MEMORY) >> 10) as u32);
    let command_line = match (options.image_name.as_str(), options.command_line.as_str()) {
        (name, "") => name.to_owned(),
        (name, arguments) => format!("{name} {arguments}"),
    };
    let command_line = information.append_text(&command_line);
    information.set(16, command_line);
    let mut list = Vec::new();
    for (module, (start, end)) in options.modules.iter().zip(modules) {
        let text = information.append_text(&module.text);
        for field in [*start as u32, *end as u32, text, 0] {
            list.extend_from_slice(&field.to_le_bytes());
        }
    }
    let list = information.append(&list);
    information.set(20, modules.len() as u32);
    information.set(24, list);
    let map = memory_map(options.memory_size);
    let address = information.append(&map);
    information.set(44, map.len() as u32);
    information.set(48, address);
    let name = information.append_text(LOADER_NAME);
    information.set(64, name);
    information.bytes
}

/// The memory map: 24-byte entries of size (20), base, length and type (1 for RAM, 2 for reserved).
fn memory_map(memory_size: u64) -> Vec<u8> {
    let [(_, low_end), (high_start, high_end)] = ram(memory_size);
    let mut map = Vec::new();
    for (start, end, kind) in
        [(0, low_end.min(LOW_MEMORY_END), 1_u32), (LOW_MEMORY_END, HIGH_MEMORY, 2), (HIGH_MEMORY, low_end, 1), (high_start, high_end, 1)]
    {
        if start < end {
            map.extend_from_slice(&20_u32.to_le_bytes());
            map.extend_from_slice(&start.to_le_bytes());
            map.extend_from_slice(&(end - start).to_le_bytes());
            map.extend_from_slice(&kind.to_le_bytes());
        }
    }
    map
}
