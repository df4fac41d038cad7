//! The image loaders: what a guest finds in memory, and what is refused, in which words.

use board::RAM_BELOW_4G;
use board::loader::{Entry, FlatOptions, Image, Kind, LoadError, LoadOptions, Mode, Module, load};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn options() -> LoadOptions {
    LoadOptions { memory_size: 64 * MIB, image_name: "guest.flat".to_owned(), ..LoadOptions::default() }
}

/// One program header: type, virtual address, physical address, bytes, size in memory.
struct Header(u32, u64, u64, Vec<u8>, u64);

/// An executable file with these program headers, their bytes after one another.
fn elf(wide: bool, entry: u64, headers: &[Header]) -> Vec<u8> {
    let (header_size, entry_size) = if wide { (64, 56) } else { (52, 32) };
    let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1, 1];
    file.resize(16, 0);
    let mut out = |value: u64, size: usize| file.extend_from_slice(&value.to_le_bytes()[..size]);
    let word = if wide { 8 } else { 4 };
    for (value, size) in [
        (2, 2),
        (if wide { 62 } else { 3 }, 2),
        (1, 4),
        (entry, word),
        (header_size, word),
        (0, word),
        (0, 4),
        (header_size, 2),
        (entry_size, 2),
        (headers.len() as u64, 2),
        (0, 2),
        (0, 2),
        (0, 2),
    ] {
        out(value, size);
    }
    let mut offset = header_size + entry_size * headers.len() as u64;
    for Header(kind, virtual_address, physical, bytes, memory) in headers {
        let size = bytes.len() as u64;
        out(u64::from(*kind), 4);
        if wide {
            out(7, 4);
        }
        for value in [offset, *virtual_address, *physical, size, *memory] {
            out(value, word);
        }
        if !wide {
            out(7, 4);
        }
        out(0x1000, word);
        offset += size;
    }
    for header in headers {
        file.extend_from_slice(&header.3);
    }
    file
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn multiboot_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let mut header = vec![0x1bad_b002, flags, 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags)];
    header.extend_from_slice(addresses);
    words(&header)
}

/// Guest memory after loading, where somebody wrote it.
fn byte(image: &Image, address: u64) -> Option<u8> {
    let segment = image.segments.iter().find(|segment| (segment.physical..segment.zero_to).contains(&address))?;
    Some(segment.bytes.get((address - segment.physical) as usize).copied().unwrap_or(0))
}

fn word(image: &Image, address: u32) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|at| byte(image, u64::from(address) + at).unwrap()))
}

fn quad(image: &Image, address: u64) -> u64 {
    u64::from(word(image, address as u32)) | u64::from(word(image, address as u32 + 4)) << 32
}

fn text(image: &Image, address: u32) -> String {
    (u64::from(address)..).map(|at| byte(image, at).unwrap()).take_while(|byte| *byte != 0).map(char::from).collect()
}

#[test]
fn flat_binaries_enter_in_each_mode() {
    for (base, entry, mode, expected) in [
        (0x7c00, None, Mode::Real16, Entry::Real16 { cs: 0, ip: 0x7c00 }),
        (0x2_3450, Some(0x2_3452), Mode::Real16, Entry::Real16 { cs: 0x2000, ip: 0x3452 }),
        (MIB, None, Mode::Protected32, Entry::Protected32 { eip: 0x10_0000, eax: 0, ebx: 0 }),
        (
            MIB,
            Some(MIB + 3),
            Mode::Long64,
            Entry::Long64 { rip: MIB + 3, rsp: 0x8000, cr3: 0x1000, gdt_base: 0x7000, gdt_limit: 47, code: 8, data: 16 },
        ),
    ] {
        let options = LoadOptions { flat: FlatOptions { base, entry, mode }, ..options() };
        let image = load(b"\x90\x90\x90\xf4", &options).unwrap();
        assert_eq!(image.entry, expected);
        assert_eq!(byte(&image, base + 3), Some(0xf4));
        assert_eq!(byte(&image, base + 4), None);
    }
}

#[test]
fn long_mode_structures_map_four_gigabytes_to_themselves() {
    let image = load(b"\xf4", &options()).unwrap();
    let Entry::Long64 { cr3, gdt_base, code, .. } = image.entry else { panic!("{:?}", image.entry) };
    for address in [0, 0x1f_ffff, 0x20_0000, MIB, 0xc000_0000, 0xfec0_0000, 0xffff_ffff_u64] {
        let table = |table: u64, shift: u32| quad(&image, (table & !0xfff) + 8 * (address >> shift & 0x1ff));
        let leaf = table(table(table(cr3, 39), 30), 21);
        assert_eq!(leaf & 0xfff, 0x87, "{address:#x}");
        assert_eq!((leaf & !0xfff) + (address & 0x1f_ffff), address);
    }
    let descriptor = quad(&image, gdt_base + u64::from(code));
    assert_eq!(descriptor >> 40 & 0xff, 0x9b, "present code");
    assert_eq!(descriptor >> 53 & 1, 1, "64-bit");
}

#[test]
fn elf64_loads_at_physical_addresses_and_translates_its_entry() {
    let file = elf(
        true,
        0xffff_8000_0020_0004,
        &[
            Header(1, 0xffff_8000_0020_0000, 0x20_0000, b"codecode".to_vec(), 8),
            Header(4, 0, 0, b"note".to_vec(), 4),
            Header(1, 0xffff_8000_0030_0000, 0x30_0000, b"data".to_vec(), 0x1000),
            Header(1, 0, 0, vec![], 0),
        ],
    );
    let image = load(&file, &options()).unwrap();
    assert!(matches!(image.entry, Entry::Long64 { rip: 0x20_0004, .. }), "{:?}", image.entry);
    let places: Vec<_> = image.segments.iter().map(|segment| (segment.physical, segment.bytes.len(), segment.zero_to)).collect();
    assert_eq!(places, [(0x1000, 0x6030, 0x8000), (0x20_0000, 8, 0x20_0008), (0x30_0000, 4, 0x30_1000)]);
}

#[test]
fn multiboot_elf_gets_its_information() {
    let mut code = multiboot_header(0x3, &[]);
    code.extend_from_slice(b"\xf4");
    let file = elf(false, 0x10_000c, &[Header(1, 0x10_0000, 0x10_0000, code, 0x2345)]);
    let module = |text: &str, bytes: &[u8]| Module { text: text.to_owned(), bytes: bytes.to_vec() };
    let options = LoadOptions {
        command_line: "a  b=c".to_owned(),
        modules: vec![module("initrd one", b"first"), module("", &[7; 0x1001])],
        ..options()
    };
    let image = load(&file, &options).unwrap();
    let Entry::Protected32 { eip: 0x10_000c, eax: 0x2bad_b002, ebx } = image.entry else { panic!("{:?}", image.entry) };
    assert_eq!(ebx, 0x9000);
    assert_eq!(word(&image, ebx), 0x24d);
    assert_eq!((word(&image, ebx + 4), word(&image, ebx + 8)), (640, 63 * 1024));
    assert_eq!(text(&image, word(&image, ebx + 16)), "guest.flat a  b=c");
    assert_eq!(text(&image, word(&image, ebx + 64)), "Trapline");
    assert_eq!(word(&image, ebx + 20), 2);
    let modules = word(&image, ebx + 24);
    let fields: Vec<u32> = (0..8).map(|index| word(&image, modules + 4 * index)).collect();
    assert_eq!(fields[..2], [0x10_3000, 0x10_3005]);
    assert_eq!(fields[4..6], [0x10_4000, 0x10_5001]);
    assert_eq!((text(&image, fields[2]), text(&image, fields[6])), ("initrd one".to_owned(), String::new()));
    assert_eq!((byte(&image, 0x10_3004), byte(&image, 0x10_5000)), (Some(b't'), Some(7)));
    let (length, map) = (word(&image, ebx + 44), word(&image, ebx + 48));
    let entries: Vec<_> = (map..map + length)
        .step_by(24)
        .map(|entry| {
            (word(&image, entry), quad(&image, u64::from(entry) + 4), quad(&image, u64::from(entry) + 12), word(&image, entry + 20))
        })
        .collect();
    assert_eq!(entries, [(20, 0, 0xa_0000, 1), (20, 0xa_0000, 0x6_0000, 2), (20, MIB, 63 * MIB, 1)]);
}

#[test]
fn memory_beyond_the_gap_is_mapped_above_4_gib() {
    let file = elf(false, 0x10_000c, &[Header(1, 0x10_0000, 0x10_0000, multiboot_header(0, &[0, 0]), 20)]);
    let image = load(&file, &LoadOptions { memory_size: RAM_BELOW_4G + 5 * MIB, ..options() }).unwrap();
    assert_eq!(word(&image, 0x9008), ((RAM_BELOW_4G - MIB) >> 10) as u32);
    let map = word(&image, 0x9030);
    assert_eq!(word(&image, 0x902c), 4 * 24);
    assert_eq!(quad(&image, u64::from(map) + 3 * 24 + 4), 1 << 32);
    assert_eq!(quad(&image, u64::from(map) + 3 * 24 + 12), 5 * MIB);
}

#[test]
fn address_fields_place_a_raw_image() {
    let mut file = b"skipped.".to_vec();
    file.extend_from_slice(&multiboot_header(0x1_0000, &[0x20_0004, 0x20_0000, 0x20_0028, 0x20_0100, 0x20_0024]));
    file.extend_from_slice(b"CODEmore, not loaded");
    let image = load(&file, &options()).unwrap();
    assert!(matches!(image.entry, Entry::Protected32 { eip: 0x20_0024, eax: 0x2bad_b002, ebx: 0x9000 }));
    let text = &image.segments[1];
    assert_eq!((text.physical, text.zero_to), (0x20_0000, 0x20_0100));
    assert_eq!((&text.bytes[..4], &text.bytes[36..]), (b"ped.".as_slice(), b"CODE".as_slice()));
    // Zero end addresses: the whole file, and no bss.
    let file = multiboot_header(0x1_0000, &[0x20_0000, 0x20_0000, 0, 0, 0x20_0000]);
    let image = load(&file, &options()).unwrap();
    assert_eq!(image.segments[1].zero_to, 0x20_0020);
}

#[test]
fn information_moves_out_of_the_way() {
    let file = elf(false, 0x9000, &[Header(1, 0x9000, 0x9000, multiboot_header(0, &[0, 0]), 0x100)]);
    let image = load(&file, &options()).unwrap();
    assert!(matches!(image.entry, Entry::Protected32 { ebx: 0xa000, .. }), "{:?}", image.entry);
    assert_eq!(text(&image, word(&image, 0xa010)), "guest.flat");
}

#[test]
fn kinds_are_detected_and_can_be_forced() {
    let file = elf(false, 0x10_0000, &[Header(1, 0x10_0000, 0x10_0000, multiboot_header(0, &[0, 0]), 20)]);
    for (kind, eax) in [(Kind::Auto, Some(0x2bad_b002)), (Kind::Elf, Some(0)), (Kind::Multiboot, Some(0x2bad_b002)), (Kind::Flat, None)] {
        let image = load(&file, &LoadOptions { kind, ..options() }).unwrap();
        let found = if let Entry::Protected32 { eax, .. } = image.entry { Some(eax) } else { None };
        assert_eq!(found, eax, "{kind:?}");
    }
}

#[test]
fn refusals_say_what_and_where() {
    let one = |entry, physical, bytes: &[u8], size| elf(true, entry, &[Header(1, physical, physical, bytes.to_vec(), size)]);
    let good = || one(MIB, MIB, b"code", 4);
    let patched = |offset: usize, bytes: &[u8]| {
        let mut file = good();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    let header = |flags, addresses: &[u32]| multiboot_header(flags, addresses);
    let cases: Vec<(Vec<u8>, LoadOptions, &str)> = vec![
        (vec![], options(), "the file is empty"),
        (b"\x7fELF".to_vec(), options(), "malformed ELF file: "),
        (patched(5, &[2]), options(), "malformed ELF file: "),
        (patched(16, &[3, 0]), options(), "ELF header field e_type is 0x3, wanted 2 (ET_EXEC)"),
        (patched(18, &[183]), options(), "ELF header field e_machine is 0xb7, wanted 62 (EM_X86_64) in a 64-bit file"),
        (patched(64, &[3]), options(), "program header 0 asks for a dynamic linker"),
        (patched(64, &[4]), options(), "the ELF file has no segment to load"),
        (patched(72, &[0xff; 8]), options(), "ELF segment 0 needs bytes 0xffffffffffffffff+0x4 of a file of 0x7c"),
        (patched(96, &[5]), options(), "ELF segment 0 has 0x5 bytes in the file but only 0x4 in memory"),
        (one(MIB, 64 * MIB - 3, b"code", 4), options(), "ELF segment 0 at 0x3fffffd+0x4 does not lie in the 0x4000000 bytes of memory"),
        (
            one(MIB, u64::MAX, b"code", 4),
            options(),
            "ELF segment 0 at 0xffffffffffffffff+0x4 does not lie in the 0x4000000 bytes of memory",
        ),
        (one(MIB, MIB, b"code", u64::MAX), options(), "ELF segment 0 at 0x100000+0xffffffffffffffff does not lie"),
        (
            elf(true, MIB, &[Header(1, MIB, MIB, b"code".to_vec(), 9), Header(1, 0, MIB + 8, vec![], 8)]),
            options(),
            "ELF segment 1 at 0x100008+0x8 overlaps ELF segment 0 at 0x100000+0x9",
        ),
        (
            one(0x7000, 0x7000, b"code", 4),
            options(),
            "the loader's page tables, GDT and stack at 0x1000+0x7000 overlaps ELF segment 0 at 0x7000+0x4",
        ),
        (one(MIB + 4, MIB, b"code", 4), options(), "entry point 0x100004 is not in the loaded image"),
        (
            one(1 << 32, 1 << 32, b"code", 4),
            LoadOptions { memory_size: RAM_BELOW_4G + MIB, ..options() },
            "entry point 0x100000000 cannot be reached in the loader's 64-bit page tables, which ends at 0x100000000",
        ),
        (
            good(),
            LoadOptions { command_line: "x".to_owned(), ..options() },
            "a command line was given, but the image has no Multiboot header",
        ),
        (
            good(),
            LoadOptions { modules: vec![Module { text: String::new(), bytes: vec![] }], ..options() },
            "modules were given, but the image has no Multiboot header",
        ),
        (good(), LoadOptions { kind: Kind::Multiboot, ..options() }, "no Multiboot header in the first 8192 bytes"),
        (header(0x4, &[0; 5]), options(), "the Multiboot header at offset 0x0 requires features 0x0004, which are not modelled"),
        (header(0, &[]), options(), "the Multiboot header at offset 0x0 has no address fields, and the file is not ELF"),
        (
            header(0x1_0000, &[0x1000, 0x2000, 0, 0, 0]),
            options(),
            "the Multiboot header at offset 0x0 has load_addr 0x2000: it is above header_addr",
        ),
        (
            header(0x1_0000, &[0x2000, 0x1000, 0, 0, 0]),
            options(),
            "the Multiboot header at offset 0x0 has load_addr 0x1000: it lies before the start",
        ),
        (
            header(0x1_0000, &[0x2000, 0x2000, 0x1000, 0, 0]),
            options(),
            "the Multiboot header at offset 0x0 has load_end_addr 0x1000: it is below",
        ),
        (
            header(0x1_0000, &[0x2000, 0x2000, 0x2021, 0, 0]),
            options(),
            "the Multiboot header at offset 0x0 has load_end_addr 0x2021: the file ends",
        ),
        (
            header(0x1_0000, &[0x2000, 0x2000, 0, 0x2001, 0]),
            options(),
            "the Multiboot header at offset 0x0 has bss_end_addr 0x2001: it is below",
        ),
        (header(0x1_0000, &[0x2000, 0x2000, 0, 0, 0]), options(), "entry point 0x0 is not in the loaded image"),
        (header(0x1_0000, &[0x2000, 0x2000, 0, u32::MAX, 0x2000]), options(), "the Multiboot image at 0x2000+0xffffdfff does not lie"),
        (
            header(0x1_0000, &[0x2000, 0x2000, 0, 0, 0x2000]),
            LoadOptions { command_line: "a\0b".to_owned(), ..options() },
            "the command line contains a NUL character at byte 1",
        ),
        (
            header(0x1_0000, &[0x2000, 0x2000, 0, 0, 0x2000]),
            LoadOptions { modules: vec![Module { text: String::new(), bytes: vec![0; 64 << 20] }], ..options() },
            "Multiboot module 0 at 0x3000+0x4000000 does not lie",
        ),
        (
            b"x".to_vec(),
            LoadOptions { flat: FlatOptions { base: MIB, entry: None, mode: Mode::Real16 }, ..options() },
            "entry point 0x100000 cannot be reached in real mode",
        ),
        (
            b"x".to_vec(),
            LoadOptions { flat: FlatOptions { base: MIB, entry: Some(MIB + 1), mode: Mode::Long64 }, ..options() },
            "entry point 0x100001 is not",
        ),
        (
            b"x".to_vec(),
            LoadOptions { memory_size: 0, ..options() },
            "the flat binary at 0x100000+0x1 does not lie in the 0x0 bytes of memory",
        ),
    ];
    for (file, options, expected) in cases {
        let error = load(&file, &options).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}\nwanted: {expected}");
        assert!(!error.help().is_empty());
    }
}

#[test]
fn a_multiboot_header_must_be_aligned_complete_and_near_the_start() {
    let header = multiboot_header(0x1_0000, &[0x20_0000, 0x20_0000, 0, 0, 0x20_0000]);
    for (offset, found) in [(0, true), (4, true), (2, false), (8160, true), (8164, false), (8192, false)] {
        let mut file = vec![0; offset];
        file.extend_from_slice(&header);
        let result = load(&file, &LoadOptions { kind: Kind::Multiboot, ..options() });
        assert_eq!(!matches!(result, Err(LoadError::NoMultibootHeader)), found, "{offset}");
    }
}

fn well_formed(image: &Image, memory_size: u64) {
    let mut end = 0;
    for segment in &image.segments {
        assert!(segment.physical >= end && segment.zero_to >= segment.physical + segment.bytes.len() as u64);
        assert!(segment.zero_to <= memory_size);
        end = segment.zero_to;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>(), kind in 0_usize..4, memory in 0..4 * MIB) {
        let mut file = file;
        if magic {
            file.splice(..file.len().min(6), *b"\x7fELF\x02\x01");
        }
        let kind = [Kind::Auto, Kind::Flat, Kind::Elf, Kind::Multiboot][kind];
        if let Ok(image) = load(&file, &LoadOptions { kind, memory_size: memory, ..options() }) {
            well_formed(&image, memory);
        }
    }

    #[test]
    fn mutated_images_never_panic(
        wide in any::<bool>(),
        flags in prop::sample::select(vec![None, Some(0), Some(0x1_0003)]),
        edits in prop::collection::vec((0_usize..260, any::<u8>()), 0..6),
        cut in 0_usize..400,
    ) {
        let mut code = flags.map_or_else(Vec::new, |flags| multiboot_header(flags, &[0x10_0000, 0x10_0000, 0x10_0020, 0x10_2000, 0x10_0004]));
        code.resize(48, 0x90);
        let mut file = elf(wide, 0x10_0000, &[
            Header(1, 0x10_0000, 0x10_0000, code, 64),
            Header(1, 0x10_1000, 0x10_1000, vec![1; 20], 0x2000),
        ]);
        for (at, value) in edits {
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        file.truncate(file.len().saturating_sub(cut.saturating_sub(300)));
        let memory_size = 16 * MIB;
        let mut options = LoadOptions { memory_size, ..options() };
        if flags.is_some() {
            options.modules.push(Module { text: "m".to_owned(), bytes: vec![3; 5000] });
        }
        if let Ok(image) = load(&file, &options) {
            well_formed(&image, memory_size);
        }
    }
}
