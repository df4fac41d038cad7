//! The container as a whole: what is written is read, and nothing that was damaged is.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stream::{Content, Duplicates, Error, Form, PAGE_BYTES, Problem, Reader, Section, Value, Writer};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registers {
    rax: u64,
    wide: u128,
    names: Vec<String>,
    #[serde(default)]
    later: u8,
}

fn registers() -> Registers {
    Registers { rax: 0x1234_5678_9abc_def0, wide: u128::MAX - 1, names: vec!["ax".into(), "eax".into()], later: 0 }
}

type Page = [u8; PAGE_BYTES];

/// A stream of two values and some pages: zero, repeated, compressible and not.
fn small() -> (Vec<u8>, BTreeMap<u64, Page>) {
    let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
    pages.insert(3, [7; PAGE_BYTES]);
    pages.insert(4, [0; PAGE_BYTES]);
    pages.insert(5, [7; PAGE_BYTES]);
    pages.insert(9, std::array::from_fn(|at| if at < 40 { at as u8 } else { 0 }));
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.value("vcpu/0/regs", 1, &registers()).unwrap();
    writer.section(&Section::value("note", 3, &"x".repeat(400)).unwrap().optional()).unwrap();
    let frames: Vec<u64> = pages.keys().copied().collect();
    writer.pages("memory", 1, &frames, |frame| pages.get(&frame)).unwrap();
    (writer.finish().unwrap(), pages)
}

fn read(bytes: &[u8]) -> Result<Vec<Section>, Error> {
    let mut reader = Reader::new(bytes)?;
    let mut sections = Vec::new();
    while let Some(section) = reader.next_section()? {
        sections.push(section);
    }
    reader.finish()?;
    Ok(sections)
}

/// Applies pages as a memory would.
fn apply(sections: &[Section], memory: &mut BTreeMap<u64, Page>) {
    for section in sections.iter().filter(|section| section.form() == Form::Pages) {
        for (frame, content) in section.pages(1).unwrap().pages() {
            let page = match content {
                Content::Zero => [0; PAGE_BYTES],
                Content::Data(bytes) => *bytes,
                Content::Same(source) => memory[&source],
            };
            memory.insert(frame, page);
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let (bytes, pages) = small();
    let sections = read(&bytes).unwrap();
    let told: Vec<_> = sections.iter().map(|section| (section.name(), section.version(), section.form(), section.is_optional())).collect();
    let expected = [("vcpu/0/regs", 1, Form::Value, false), ("note", 3, Form::Value, true), ("memory", 1, Form::Pages, false)];
    assert_eq!(told, expected);
    assert_eq!(sections[0].decode::<Registers>(1).unwrap(), registers());
    assert!(sections[1].stored_bytes() < sections[1].raw_bytes() / 4, "compressed");
    let mut memory = BTreeMap::new();
    apply(&sections, &mut memory);
    assert_eq!(memory, pages);
}

#[test]
fn a_value_shows_itself_without_its_type() {
    let (bytes, _) = small();
    let tree = read(&bytes).unwrap()[0].tree().unwrap();
    let fields: Vec<_> = tree.as_map().unwrap().iter().map(|(key, _)| key.as_text().unwrap()).collect();
    assert_eq!(fields, ["rax", "wide", "names", "later"]);
}

#[test]
fn sections_are_read_one_at_a_time() {
    let section = Section::value("round", 1, &17u32).unwrap();
    let bytes = section.encode(40);
    let again = Section::read(&mut bytes.as_slice()).unwrap();
    assert_eq!((again.place().number, again.decode::<u32>(1).unwrap()), (Some(40), 17));
}

#[test]
fn an_older_value_gets_defaults_and_a_newer_one_is_refused() {
    let old: Value = Value::Map(vec![
        (Value::Text("rax".into()), 5.into()),
        (Value::Text("wide".into()), 6.into()),
        (Value::Text("names".into()), Value::Array(vec![])),
    ]);
    let decoded: Registers = Section::value("r", 1, &old).unwrap().decode(1).unwrap();
    assert_eq!(decoded, Registers { rax: 5, wide: 6, names: vec![], later: 0 });
    let mut new = old.clone();
    new.as_map_mut().unwrap().push((Value::Text("unheard_of".into()), 1.into()));
    let error = Section::value("r", 1, &new).unwrap().decode::<Registers>(1).unwrap_err();
    assert!(error.to_string().contains("unheard_of"), "{error}");
    let error = Section::value("r", 2, &old).unwrap().decode::<Registers>(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "section `r` (number 0) at offset 0x0: version 2, and this Trapline knows up to 1; read it with the Trapline that wrote it"
    );
}

/// Whether an error about the byte at `at` names the section the byte lies in, by name or, where the name itself is lost, by its number.
fn names_the_section(error: &Error, at: usize, bytes: &[u8]) -> bool {
    let mut begin = 16;
    if at < begin {
        return error.to_string().starts_with("head of the stream at offset 0x0");
    }
    let mut number = 0;
    let mut input = &bytes[begin..];
    while let Ok(section) = Section::read(&mut input) {
        let end = bytes.len() - input.len();
        if at < end {
            let told = error.place.name.as_deref().is_none_or(|name| name == section.name());
            return told && error.place.number == Some(number) && error.place.offset == begin as u64;
        }
        (begin, number) = (end, number + 1);
    }
    false
}

#[test]
fn every_truncation_is_seen_and_names_its_section() {
    let (bytes, _) = small();
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).expect_err("cut off");
        if length == 0 {
            assert!(matches!(error.problem, Problem::NotAStream { .. }), "{error}");
        } else {
            assert!(matches!(error.problem, Problem::Truncated { .. }), "{length}: {error}");
        }
        assert!(names_the_section(&error, length, &bytes), "{length}: {error}");
    }
}

#[test]
fn every_damaged_byte_is_seen_and_names_its_section() {
    let (bytes, _) = small();
    for at in 0..bytes.len() {
        for change in [1, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            let error = read(&damaged).expect_err("damaged");
            assert!(names_the_section(&error, at, &bytes), "{at}: {error}");
        }
    }
}

#[test]
fn sections_that_were_lost_repeated_swapped_or_mixed_are_seen() {
    let parts = |texts: &[&str]| {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let mut ends = vec![writer.bytes() as usize];
        for text in texts {
            writer.value("part", 1, text).unwrap();
            ends.push(writer.bytes() as usize);
        }
        let bytes = writer.finish().unwrap();
        ends.push(bytes.len());
        let head = bytes[..16].to_vec();
        (head, ends.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect::<Vec<_>>())
    };
    let (head, ours) = parts(&["a", "b", "c"]);
    let (_, theirs) = parts(&["a", "x", "c"]);
    let joined = |sections: &[&Vec<u8>]| [&head[..], &sections.iter().flat_map(|bytes| bytes.iter().copied()).collect::<Vec<_>>()].concat();
    let [a, b, c, end] = &ours[..] else { panic!("three parts and the end") };
    assert_eq!(read(&joined(&[a, b, c, end])).unwrap().len(), 3);
    for wrong in [&[a, c, end][..], &[a, b, b, c, end], &[b, a, c, end], &[a, b, end]] {
        assert!(matches!(read(&joined(wrong)).unwrap_err().problem, Problem::OutOfOrder { .. }));
    }
    let error = read(&joined(&[a, &theirs[1], c, end])).unwrap_err();
    assert!(matches!(error.problem, Problem::End { .. }), "{error}");
    assert!(matches!(read(&joined(&[a, b, c, end, end])).unwrap_err().problem, Problem::Trailing));
}

#[test]
fn bombs_stay_small() {
    // Claims of lengths that are not there, and items that would take gigabytes.
    let huge = Section::value("bomb", 1, &Value::Array(vec![Value::Null; 5 << 20]));
    assert!(matches!(huge.unwrap_err().problem, Problem::TooMuch { .. }));
    let mut deep = Value::Null;
    for _ in 0..100 {
        deep = Value::Array(vec![deep]);
    }
    assert!(Section::value("bomb", 1, &deep).is_err());
    let mut section = Section::value("bomb", 1, &1u8).unwrap().encode(0);
    // The length stored, with the head's checksum made right again.
    section[16..24].copy_from_slice(&(1u64 << 60).to_le_bytes());
    let checksum = crc(&section[..36]);
    section[36..40].copy_from_slice(&checksum.to_le_bytes());
    let error = Section::read(&mut section.as_slice()).unwrap_err();
    assert!(matches!(error.problem, Problem::TooMuch { what: "bytes stored", .. }), "{error}");
}

/// CRC-32 (IEEE 802.3), bit by bit: another one than the library's.
fn crc(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }))
}

fn made_pages(count: u64) -> BTreeMap<u64, Page> {
    let mut state = 1u64;
    (0..count)
        .map(|frame| {
            let kind = frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61;
            let page = std::array::from_fn(|at| match kind {
                0 | 1 => 0,
                2 => 0x55,
                3 => (at / 64) as u8 ^ frame as u8,
                _ => {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 56) as u8
                }
            });
            (frame * 3 / 2, page)
        })
        .collect()
}

#[test]
fn the_bytes_are_the_same_with_any_number_of_threads() {
    let mut pages = made_pages(5000);
    // Some are tables, which are compressed otherwise.
    for (frame, page) in pages.iter_mut().filter(|(frame, _)| *frame / 1000 % 2 == 1) {
        for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mixed = (frame * 512 + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            *word = (0x7f3a_0000_0000 | mixed & 0xfff8).to_le_bytes();
        }
    }
    let frames: Vec<u64> = pages.keys().copied().collect();
    let write = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut writer = Writer::new(Vec::new()).unwrap();
            writer.pages("memory", 1, &frames, |frame| pages.get(&frame)).unwrap();
            writer.finish().unwrap()
        })
    };
    let one = write(1);
    assert_eq!(one, write(2));
    assert_eq!(one, write(5));
    let mut memory = BTreeMap::new();
    apply(&read(&one).unwrap(), &mut memory);
    assert_eq!(memory, pages);
}

#[test]
fn a_stream_that_cannot_be_written_ends_the_making_of_sections() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let pages = made_pages(10_000);
    let frames: Vec<u64> = pages.keys().copied().collect();
    for room in [100, 100_000, 2_000_000] {
        let mut writer = Writer::new(Full(room)).unwrap();
        let error = writer.pages("memory", 1, &frames, |frame| pages.get(&frame)).unwrap_err();
        assert!(matches!(error.problem, Problem::Io(_)), "{error}");
    }
}

#[test]
fn sections_that_stand_by_themselves_are_read_in_any_order() {
    let pages = made_pages(1000);
    let frames: Vec<u64> = pages.keys().copied().collect();
    let mut sections = Vec::new();
    let made: Result<(), Error> = stream::pages::encode(
        "memory",
        1,
        &frames,
        Duplicates::OfSection,
        |frame| pages.get(&frame),
        |section| {
            sections.push(section);
            Ok(None)
        },
    );
    made.unwrap();
    assert!(sections.len() > 3);
    sections.reverse();
    let mut memory = BTreeMap::new();
    apply(&sections, &mut memory);
    assert_eq!(memory, pages);
}

proptest! {
    #[test]
    fn any_pages_come_back(kinds in proptest::collection::btree_map(0u64..2000, 0u8..6, 0..600)) {
        let pages: BTreeMap<u64, Page> = kinds.iter().map(|(frame, kind)| (*frame, [*kind / 2; PAGE_BYTES])).collect();
        let frames: Vec<u64> = pages.keys().copied().collect();
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.pages("memory", 1, &frames, |frame| pages.get(&frame)).unwrap();
        let mut memory = BTreeMap::new();
        apply(&read(&writer.finish().unwrap()).unwrap(), &mut memory);
        prop_assert_eq!(memory, pages);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..700, head in any::<bool>()) {
        if head {
            // Bytes in the middle of a stream that is right up to there.
            let (mut right, _) = small();
            right.truncate(at);
            right.append(&mut bytes);
            bytes = right;
        }
        if let Ok(sections) = read(&bytes) {
            for section in sections {
                let _ = (section.tree(), section.pages(1), section.decode::<Registers>(1));
            }
        }
    }

    #[test]
    fn no_contents_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), form in 1u8..3, flags in 0u8..4, raw in any::<u16>()) {
        // A section whose checksums are right, around any contents.
        let mut section = b"SECT\0\0\0\0\x01\0".to_vec();
        section.extend([form, flags, 1, 0, 0, 0]);
        section.extend((bytes.len() as u64).to_le_bytes());
        section.extend((if form == 2 { u64::from(raw % 32) * 4096 } else { u64::from(raw) }).to_le_bytes());
        section.push(b'x');
        section.extend(crc(&section).to_le_bytes());
        section.extend(&bytes);
        section.extend(crc(&bytes).to_le_bytes());
        let section = Section::read(&mut section.as_slice()).unwrap();
        let _ = (section.tree(), section.decode::<Registers>(1));
        if let Ok(batch) = section.pages(1) {
            let _ = batch.pages().count();
        }
    }
}
