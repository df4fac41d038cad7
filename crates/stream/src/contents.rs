//! A whole stream in memory: its sections in order, its values by name, its pages by frame. For tools that look at streams.

use crate::error::Error;
use crate::header::Form;
use crate::pages::{self, Content, PAGE_BYTES};
use crate::reader::Reader;
use crate::section::Section;
use crate::tree::{self, Difference};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Sections of pages that are decoded together.
const GROUP: usize = 16;

/// Bytes that may be equal between two differences of memory that are told as one.
const NEAR: usize = 4;

/// Pages by frame; those that are not told of are zero.
pub type Pages = BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>;

/// What a section looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Version of what it holds.
    pub version: u16,
    /// Its form.
    pub form: Form,
    /// Whether whoever does not know it may skip it.
    pub optional: bool,
    /// How many sections in a row these are: those of one name that hold pages are told as one.
    pub count: u64,
    /// Bytes of the contents.
    pub raw: u64,
    /// Bytes stored.
    pub stored: u64,
    /// CRC-32 of what is stored; of several sections of the last.
    pub checksum: u32,
}

/// A stream that was read.
#[derive(Debug, Default)]
pub struct Contents {
    /// The sections in order.
    pub sections: Vec<Summary>,
    /// Those that hold values, by name; of several of one name the last.
    pub values: BTreeMap<String, Section>,
    /// Pages by the name of their sections.
    pub pages: BTreeMap<String, Pages>,
}

impl Contents {
    /// Reads a stream to its end, or to what is wrong with it; what came before that is there.
    pub fn read(from: impl Read) -> (Self, Option<Error>) {
        let mut contents = Self::default();
        let error = contents.fill(from).err();
        (contents, error)
    }

    fn fill(&mut self, from: impl Read) -> Result<(), Error> {
        let mut reader = Reader::new(from)?;
        let mut waiting: Vec<Section> = Vec::new();
        while let Some(section) = reader.next_section()? {
            self.note(&section);
            if section.form() == Form::Pages {
                waiting.push(section);
            } else {
                self.values.insert(section.name().to_owned(), section);
            }
            if waiting.len() == GROUP {
                self.take_pages(&mut waiting)?;
            }
        }
        self.take_pages(&mut waiting)?;
        reader.finish()
    }

    fn note(&mut self, section: &Section) {
        match self.sections.last_mut() {
            Some(last) if section.form() == Form::Pages && last.name == section.name() && last.version == section.version() => {
                last.count += 1;
                last.raw += section.raw_bytes();
                last.stored += section.stored_bytes();
                last.checksum = section.checksum();
            }
            _ => self.sections.push(Summary {
                name: section.name().to_owned(),
                version: section.version(),
                form: section.form(),
                optional: section.is_optional(),
                count: 1,
                raw: section.raw_bytes(),
                stored: section.stored_bytes(),
                checksum: section.checksum(),
            }),
        }
    }

    fn take_pages(&mut self, sections: &mut Vec<Section>) -> Result<(), Error> {
        let zero = Arc::new([0; PAGE_BYTES]);
        for (section, batch) in sections.iter().zip(pages::decode_all(sections, u16::MAX)) {
            let pages = self.pages.entry(section.name().to_owned()).or_default();
            for (frame, content) in batch?.pages() {
                let page = match content {
                    Content::Zero => Arc::clone(&zero),
                    Content::Data(bytes) => Arc::new(*bytes),
                    Content::Same(source) => Arc::clone(pages.get(&source).unwrap_or(&zero)),
                };
                pages.insert(frame, page);
            }
        }
        sections.clear();
        Ok(())
    }

    /// The section and the path in it that a text names: `cpu/0/sregs.cs.base`.
    ///
    /// # Errors
    /// No section has that name; says which there are.
    pub fn find(&self, text: &str) -> Result<(&str, String), String> {
        let names = self.sections.iter().map(|section| section.name.as_str());
        let fitting = names.clone().filter(|name| text == *name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
        match fitting.max_by_key(|name| name.len()) {
            Some(name) => Ok((name, text[name.len()..].trim_start_matches('.').to_owned())),
            None => Err(format!("there is no section `{text}`, but {}", names.collect::<Vec<_>>().join(", "))),
        }
    }

    /// Where two streams differ: values field by field, then memory.
    ///
    /// # Errors
    /// A value is malformed.
    pub fn differences(&self, other: &Self) -> Result<Differences, Error> {
        let mut found = Differences::default();
        let names: std::collections::BTreeSet<&String> = self.values.keys().chain(other.values.keys()).collect();
        for name in names {
            let told = |section: Option<&Section>| section.map(|_| "a section".to_owned());
            match (self.values.get(name), other.values.get(name)) {
                (Some(one), Some(two)) => {
                    if one.version() != two.version() {
                        let version = |section: &Section| Some(format!("version {}", section.version()));
                        found.values.push((name.clone(), Difference { path: String::new(), one: version(one), other: version(two) }));
                    }
                    let differences = tree::differences(&one.tree()?, &two.tree()?);
                    found.values.extend(differences.into_iter().map(|difference| (name.clone(), difference)));
                }
                (one, two) => {
                    found.values.push((name.clone(), Difference { path: String::new(), one: told(one), other: told(two) }));
                }
            }
        }
        let none = Pages::new();
        let names: std::collections::BTreeSet<&String> = self.pages.keys().chain(other.pages.keys()).collect();
        for name in names {
            let (one, two) = (self.pages.get(name).unwrap_or(&none), other.pages.get(name).unwrap_or(&none));
            for difference in memory_differences(one, two) {
                found.memory.push((name.clone(), difference));
            }
        }
        Ok(found)
    }
}

/// Bytes of memory that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDifference {
    /// Address of the first byte.
    pub address: u64,
    /// What the first has there.
    pub one: Vec<u8>,
    /// What the second has.
    pub other: Vec<u8>,
}

/// Where two streams differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Values: the section, and where in it.
    pub values: Vec<(String, Difference)>,
    /// Memory: the name of its sections, and where.
    pub memory: Vec<(String, MemoryDifference)>,
}

impl Differences {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.memory.is_empty()
    }
}

fn memory_differences(one: &Pages, other: &Pages) -> Vec<MemoryDifference> {
    let zero = Arc::new([0; PAGE_BYTES]);
    let frames: std::collections::BTreeSet<u64> = one.keys().chain(other.keys()).copied().collect();
    let mut found: Vec<MemoryDifference> = Vec::new();
    for frame in frames {
        let (a, b) = (one.get(&frame).unwrap_or(&zero), other.get(&frame).unwrap_or(&zero));
        if Arc::ptr_eq(a, b) || a == b {
            continue;
        }
        let mut at = 0;
        while let Some(first) = (at..PAGE_BYTES).find(|at| a[*at] != b[*at]) {
            let mut end = first + 1;
            while let Some(next) = (end..(end + NEAR).min(PAGE_BYTES)).find(|at| a[*at] != b[*at]) {
                end = next + 1;
            }
            found.push(MemoryDifference {
                address: frame.saturating_mul(PAGE_BYTES as u64) + first as u64,
                one: a[first..end].to_vec(),
                other: b[first..end].to_vec(),
            });
            at = end;
        }
    }
    found
}

/// The contents of a page as lines of sixteen bytes; lines of zeros are left out.
pub fn dump(address: u64, bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)) {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            chunk.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect();
        out += &format!("{:#010x}  {:<47}  {text}\n", address + line as u64 * 16, hex.join(" "));
    }
    out
}
