//! Building the guest of a scenario: assembling its text, or reading its image.
//!
//! Mistakes in assembly text are shown where they are, inside the JSON string or in the file beside the scenario.

use crate::diagnostic::{Diagnostic, Source, nearest};
use crate::environment;
use crate::file::{Guest, Mode, Start, Vendor};
use crate::load::Loader;
use crate::quantity::{Quantity, parse_number};
use json::{self, NodeKind};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Where assembly and flat code are loaded when the scenario does not say.
pub const DEFAULT_LOAD: u64 = 0x1_0000;
/// The same in real mode: where firmware puts a boot sector.
pub const DEFAULT_REAL_LOAD: u64 = 0x7c00;

/// A guest, ready to be put into a machine.
#[derive(Clone, Debug)]
pub enum Image {
    /// Assembly or flat code and the environment it starts in.
    Program(Program),
    /// A 64-bit ELF executable.
    Elf(Vec<u8>),
    /// A multiboot image.
    Multiboot {
        /// The image.
        bytes: Vec<u8>,
        /// Its name, the first word of its command line.
        name: String,
        /// Its command line.
        command_line: String,
        /// Its modules: name and content.
        modules: Vec<(String, Vec<u8>)>,
    },
}

/// Assembly or flat code and the environment it starts in.
#[derive(Clone, Debug)]
pub struct Program {
    /// Address and bytes of each piece.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Where it starts.
    pub entry: u64,
    /// The environment it starts in.
    pub mode: Mode,
    /// Which CPUs run from the start.
    pub start: Start,
    /// Vectors and the addresses of their handlers.
    pub handlers: Vec<(u8, u64)>,
    /// Labels of the assembly text.
    pub labels: BTreeMap<String, u64>,
}

impl Program {
    /// The memory its environment keeps for itself.
    pub fn reserved(&self) -> Option<Range<u64>> {
        Some(environment::reserved(self.mode)).filter(|range| !range.is_empty())
    }
}

static NO_LABELS: BTreeMap<String, u64> = BTreeMap::new();

impl Image {
    /// Labels that expectations and scripts may use.
    pub fn labels(&self) -> &BTreeMap<String, u64> {
        match self {
            Image::Program(program) => &program.labels,
            Image::Elf(_) | Image::Multiboot { .. } => &NO_LABELS,
        }
    }

    /// The number a quantity stands for, unless its label does not exist.
    pub fn resolve(&self, quantity: &Quantity) -> Option<u64> {
        match quantity {
            Quantity::Number(number) => Some(*number),
            Quantity::Label { name, offset } => self.labels().get(name).map(|address| address.wrapping_add(*offset)),
        }
    }
}

/// The last byte of a vendor's own hypercall instruction, and of the other's.
fn opcodes(vendor: Vendor) -> [(&'static str, u64); 2] {
    match vendor {
        Vendor::Intel => [("NATIVE", 0xc1), ("FOREIGN", 0xd9)],
        Vendor::Amd => [("NATIVE", 0xd9), ("FOREIGN", 0xc1)],
    }
}

/// Builds the guest for the machines of one vendor; reports to `loader` what is wrong.
pub(crate) fn build(loader: &mut Loader<'_>, vendor: Vendor) -> Option<Image> {
    let guest = loader.file.guest.clone();
    let kinds = [
        ("assembly", guest.assembly.is_some()),
        ("file", guest.file.is_some()),
        ("flat", guest.flat.is_some()),
        ("elf", guest.elf.is_some()),
        ("multiboot", guest.multiboot.is_some()),
    ];
    let present: Vec<&str> = kinds.iter().filter(|(_, present)| *present).map(|(kind, _)| *kind).collect();
    let [kind] = present[..] else {
        let mut diagnostic = loader.at(&["guest"], "a guest is exactly one of `assembly`, `file`, `flat`, `elf` and `multiboot`");
        if !present.is_empty() {
            diagnostic = diagnostic.hint(format!("this one has {}", present.join(" and ")));
        }
        loader.report(diagnostic);
        return None;
    };
    let program = matches!(kind, "assembly" | "file" | "flat");
    for (key, given, wanted) in [
        ("load", guest.load.is_some(), program),
        ("mode", guest.mode.is_some(), program),
        ("start", guest.start.is_some(), program),
        ("handlers", !guest.handlers.is_empty(), program),
        ("constants", !guest.constants.is_empty(), matches!(kind, "assembly" | "file")),
        ("command_line", guest.command_line.is_some(), kind == "multiboot"),
        ("modules", !guest.modules.is_empty(), kind == "multiboot"),
    ] {
        if given && !wanted {
            let diagnostic = loader.at_key(&["guest", key], format!("`{key}` has no meaning for a guest given as `{kind}`"));
            loader.report(diagnostic);
        }
    }
    if !loader.diagnostics.is_empty() {
        return None;
    }
    match kind {
        "elf" => read(loader, &guest.elf?, &["guest", "elf"]).map(Image::Elf),
        "multiboot" => {
            let name = guest.multiboot?;
            let bytes = read(loader, &name, &["guest", "multiboot"])?;
            let mut modules = Vec::new();
            for (index, name) in guest.modules.iter().enumerate() {
                modules.push((name.clone(), read(loader, name, &["guest", "modules", &index.to_string()])?));
            }
            Some(Image::Multiboot { bytes, name, command_line: guest.command_line.unwrap_or_default(), modules })
        }
        _ => program_image(loader, &guest, vendor).map(Image::Program),
    }
}

/// The handlers of a program, once its labels are known.
fn handlers(loader: &mut Loader<'_>, guest: &Guest, labels: &BTreeMap<String, u64>) -> Vec<(u8, u64)> {
    let mut handlers: Vec<(u8, u64)> = Vec::new();
    for (key, quantity) in &guest.handlers {
        let path = ["guest", "handlers", key.as_str()];
        let vector = parse_number(key).and_then(|number| u8::try_from(number).ok());
        let address = match quantity {
            Quantity::Number(address) => Some(*address),
            Quantity::Label { name, offset } => labels.get(name).map(|address| address.wrapping_add(*offset)),
        };
        let diagnostic = match (vector, address) {
            (Some(vector), Some(_)) if handlers.iter().any(|(known, _)| *known == vector) => {
                loader.at_key(&path, format!("vector {vector} has a handler already"))
            }
            (Some(vector), Some(address)) => {
                handlers.push((vector, address));
                continue;
            }
            (None, _) => loader.at_key(&path, "a vector is a number from 0 to 255, written \"14\" or \"0x20\""),
            (_, None) => {
                let hint = nearest(&quantity.to_string(), labels.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
                loader.at(&path, format!("the guest has no label `{quantity}`")).maybe_hint(hint)
            }
        };
        loader.report(diagnostic);
    }
    handlers
}

fn read(loader: &mut Loader<'_>, name: &str, path: &[&str]) -> Option<Vec<u8>> {
    match loader.files.read(name) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let why = if error.kind() == std::io::ErrorKind::NotFound { "there is none".to_owned() } else { error.to_string() };
            let diagnostic = loader.at(path, format!("cannot read this file: {why}"));
            loader.report(diagnostic);
            None
        }
    }
}

fn program_image(loader: &mut Loader<'_>, guest: &Guest, vendor: Vendor) -> Option<Program> {
    let mode = guest.mode.unwrap_or_default();
    let default = if mode == Mode::Real16 { DEFAULT_REAL_LOAD } else { DEFAULT_LOAD };
    let load = match guest.load {
        None => default,
        Some(Quantity::Number(load)) => load,
        Some(Quantity::Label { .. }) => {
            let diagnostic = loader.at(&["guest", "load"], "the load address is a number: labels are not known before it");
            loader.report(diagnostic);
            return None;
        }
    };
    let highest = match mode {
        Mode::Real16 => 0xffff,
        Mode::Protected32 | Mode::Long64 => 0xffff_ffff,
    };
    if load > highest {
        let diagnostic = loader.at(&["guest", "load"], format!("in this mode code starts at {highest:#x} at most"));
        loader.report(diagnostic);
        return None;
    }
    let start = guest.start.unwrap_or_default();
    if let Some(name) = &guest.flat {
        let bytes = read(loader, name, &["guest", "flat"])?;
        let labels = BTreeMap::new();
        let handlers = handlers(loader, guest, &labels);
        return Some(Program { pieces: vec![(load, bytes)], entry: load, mode, start, handlers, labels });
    }
    let text = Text::of(loader, guest)?;
    let mut constants: Vec<(String, u64)> =
        environment::CONSTANTS.iter().copied().chain(opcodes(vendor)).map(|(name, value)| (name.to_owned(), value)).collect();
    for (name, value) in &guest.constants {
        match value {
            Quantity::Number(value) if !constants.iter().any(|(known, _)| known == name) => constants.push((name.clone(), *value)),
            Quantity::Number(_) => {
                let diagnostic = loader.at_key(&["guest", "constants", name], format!("every guest has a constant `{name}` already"));
                loader.report(diagnostic);
                return None;
            }
            Quantity::Label { .. } => {
                let diagnostic = loader.at(&["guest", "constants", name], "a constant is a number: labels are not known yet");
                loader.report(diagnostic);
                return None;
            }
        }
    }
    // Constants stand behind the text, so that places in it stay what they are.
    let mut source = text.joined.clone();
    source.push('\n');
    for (name, value) in &constants {
        source += &format!("{name} equ {value:#x}\n");
    }
    let bits = match mode {
        Mode::Real16 => assembler::Bits::Sixteen,
        Mode::Protected32 => assembler::Bits::ThirtyTwo,
        Mode::Long64 => assembler::Bits::SixtyFour,
    };
    match assembler::assemble(&source, &assembler::Options { origin: load, bits, ..assembler::Options::default() }) {
        Ok(assembled) => {
            if assembled.bytes.is_empty() {
                let diagnostic = loader.at(&["guest"], "the guest has no code");
                loader.report(diagnostic);
                return None;
            }
            let labels = assembled.symbols;
            let handlers = handlers(loader, guest, &labels);
            Some(Program { pieces: vec![(assembled.origin, assembled.bytes)], entry: load, mode, start, handlers, labels })
        }
        Err(mistakes) => {
            for mistake in mistakes {
                let (source, span) = text.place(&loader.source, mistake.span);
                loader.report(Diagnostic::new(&source, span, mistake.message).maybe_hint(mistake.help));
            }
            None
        }
    }
}

/// Assembly text, and how its bytes map back to where they were written.
struct Text {
    joined: String,
    origin: Origin,
}

enum Origin {
    /// A file beside the scenario.
    File(Arc<Source>),
    /// Strings of the scenario: the place of each in the joined text and in the JSON, quotes included.
    Strings(Vec<(Range<usize>, Range<usize>)>),
}

impl Text {
    fn of(loader: &mut Loader<'_>, guest: &Guest) -> Option<Self> {
        if let Some(name) = &guest.file {
            let bytes = read(loader, name, &["guest", "file"])?;
            return match String::from_utf8(bytes) {
                Ok(text) => {
                    let source = Source { name: beside(&loader.source.name, name), text: text.clone() };
                    Some(Self { joined: text, origin: Origin::File(Arc::new(source)) })
                }
                Err(_) => {
                    let diagnostic = loader.at(&["guest", "file"], "this file is no UTF-8 text");
                    loader.report(diagnostic);
                    None
                }
            };
        }
        let node = loader.node(&["guest", "assembly"]);
        let strings = match &node.kind {
            NodeKind::Array(elements) => elements.iter().collect(),
            _ => vec![node],
        };
        let mut joined = String::new();
        let mut places = Vec::new();
        for string in strings {
            let NodeKind::String(line) = &string.kind else { continue };
            let start = joined.len();
            joined += line;
            places.push((start..joined.len(), string.span.clone()));
            joined.push('\n');
        }
        Some(Self { joined, origin: Origin::Strings(places) })
    }

    fn place(&self, scenario: &Arc<Source>, span: Range<usize>) -> (Arc<Source>, Range<usize>) {
        match &self.origin {
            Origin::File(source) => (Arc::clone(source), span),
            Origin::Strings(places) => {
                // A span may end in a later string; the first one is shown.
                let found = places.iter().rev().find(|(joined, _)| joined.start <= span.start);
                let place = match found {
                    Some((joined, raw)) => {
                        let inside = |at: usize| at.min(joined.end) - joined.start;
                        json::inside_string(&scenario.text, raw, inside(span.start)..inside(span.end.max(span.start)))
                    }
                    None => 0..0,
                };
                (Arc::clone(scenario), place)
            }
        }
    }
}

/// The name under which messages show a file beside the scenario.
fn beside(scenario: &str, name: &str) -> String {
    match scenario.rfind('/') {
        Some(at) => format!("{}{name}", &scenario[..=at]),
        None => name.to_owned(),
    }
}
