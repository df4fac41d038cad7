//! From the text of a scenario to the runs it stands for, with every mistake shown at its place.
//!
//! Four passes, each only if the one before found nothing: JSON, schema, guest (assembled or read, so that labels are known), meaning.
//! Each pass reports all it finds.

use crate::checkpoint::{Kept, Remembered};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, nearest};
use crate::file::{File, Policy, Vendor, When};
use crate::guest::{self, Image};
use crate::{meaning, schema};
use json::{self, Node};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file a scenario may refer to, in bytes.
pub const MAX_FILE: u64 = 256 << 20;
/// The most machines one scenario may stand for.
pub const MAX_VARIANTS: usize = 1024;

/// Where the files that a scenario names are read from.
pub trait Files {
    /// The whole content of a file, named relative to the scenario.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
}

/// Files of a directory.
#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

impl Files for Directory {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        if Path::new(name).is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is absolute; a scenario names files beside it"));
        }
        read_bounded(&self.0.join(name))
    }
}

/// No files at all: every read fails.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::NotFound, "there are no files here"))
    }
}

/// Reads a regular file of at most [`MAX_FILE`] bytes; devices and pipes, which may never end, are refused.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// The text of a file.
///
/// # Errors
/// Says why it is none, and what else the file may be.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let (bytes, valid) = (error.as_bytes(), error.utf8_error().valid_up_to());
        match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16; save it as UTF-8".to_owned(),
            _ if bytes.starts_with(&stream::MAGIC) => "it is a checkpoint, and no text: `trapline restore` goes on from it".to_owned(),
            [0x7f, b'E', b'L', b'F', ..] => "it is an ELF image, and no text: `trapline boot` boots it".to_owned(),
            _ => {
                let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
                format!("the byte {:#04x} in line {line} is no UTF-8; save it as UTF-8", bytes[valid])
            }
        }
    })
}

/// A scenario that makes sense.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the file says.
    pub file: File,
    /// One entry for every machine of its matrix, in the order CPU models, policies, seeds.
    pub variants: Vec<Variant>,
    /// Its text.
    pub source: Arc<Source>,
    /// The files it names.
    pub files: Kept,
    tree: Node,
}

/// One machine to run a scenario on.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The CPU model the guest starts on.
    pub cpu: &'static models::CpuModel,
    /// What happens to hypercalls there.
    pub policy: Policy,
    /// The seed of the order of CPUs.
    pub seed: u64,
    /// The guest, built for this machine.
    pub image: Arc<Image>,
}

impl Variant {
    /// A name for files and reports: `zen3.trap-and-patch`, with the seed where it is not 0.
    pub fn name(&self) -> String {
        let mut name = format!("{}.{}", self.cpu.name, policy_name(self.policy));
        if self.seed != 0 {
            name += &format!(".seed-{}", self.seed);
        }
        name
    }

    /// Whether every key of `when` fits this machine.
    pub fn fits(&self, when: &When) -> bool {
        when.vendor.is_none_or(|vendor| vendor == vendor_of(self.cpu))
            && when.cpu.as_deref().is_none_or(|cpu| cpu == self.cpu.name)
            && (when.policy.is_empty() || when.policy.contains(&self.policy))
            && when.seed.is_none_or(|seed| seed == self.seed)
    }
}

/// The name of a policy as files write it.
pub fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::None => "none",
        Policy::HypercallPage => "hypercall-page",
        Policy::Classic2007 => "classic-2007",
        Policy::SkipFirstCall => "skip-first-call",
        Policy::TrapAndPatch => "trap-and-patch",
        Policy::PatchOrUd => "patch-or-ud",
        Policy::QuirkOff => "quirk-off",
        Policy::Direct => "direct",
    }
}

/// Whose virtualization extension a CPU model has.
pub fn vendor_of(model: &models::CpuModel) -> Vendor {
    match model.vendor {
        models::Vendor::Intel => Vendor::Intel,
        models::Vendor::Amd => Vendor::Amd,
    }
}

impl Scenario {
    /// Reads a scenario and the files it names.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let unreadable =
            |error: &dyn std::fmt::Display| Diagnostics::from(Diagnostic::without_place(format!("cannot read {name}: {error}")));
        let bytes = read_bounded(path).map_err(|error| unreadable(&error))?;
        let text = text(bytes).map_err(|why| unreadable(&why))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, text, &Directory(directory.to_owned()))
    }

    /// The machines whose names contain a text, or all.
    pub fn machines(&self, only: Option<&str>) -> impl Iterator<Item = &Variant> {
        self.variants.iter().filter(move |variant| only.is_none_or(|only| variant.name().contains(only)))
    }

    /// Whether its runs go by steps. A guest that does cannot move: steps are those of one machine.
    pub fn goes_by_steps(&self) -> bool {
        !self.file.schedule.is_empty() || self.file.invariants.is_some()
    }

    /// The node of the file at a path of keys and indices; where the path ends early, the last node there is.
    pub fn node(&self, path: &[&str]) -> &Node {
        find(&self.tree, path)
    }

    /// Reads a scenario from a text; `name` is how messages call it.
    pub fn parse(name: &str, text: String, files: &dyn Files) -> Result<Self, Diagnostics> {
        let source = Arc::new(Source { name: name.to_owned(), text });
        let tree = json::parse(&source.text).map_err(|error| {
            let mut diagnostic = Diagnostic::new(&source, error.span, error.message);
            if let Some(first) = error.related {
                diagnostic = diagnostic.related(first, "the first one is here");
            }
            Diagnostics::from(diagnostic)
        })?;
        let mut diagnostics = Diagnostics::default();
        schema::check(&source, &tree, &mut diagnostics);
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        let file: File = serde_json::from_value(tree.to_value())
            .map_err(|error| Diagnostics::from(Diagnostic::new(&source, tree.span.start..tree.span.start, error.to_string())))?;
        let remembered = Remembered::new(files);
        let mut loader = Loader { source, tree, file, files: &remembered, diagnostics };
        let machines = loader.machines();
        let mut variants = Vec::new();
        if loader.diagnostics.is_empty() {
            variants = loader.variants(&machines);
        }
        if loader.diagnostics.is_empty() {
            meaning::check(&mut loader, &variants);
        }
        let Loader { source, tree, file, diagnostics, .. } = loader;
        match diagnostics.is_empty() {
            true => Ok(Self { file, variants, source, files: remembered.into_files(), tree }),
            false => {
                let mut diagnostics = diagnostics;
                let place = |diagnostic: &Diagnostic| (diagnostic.source.as_ref().map(|source| source.name.clone()), diagnostic.span.start);
                diagnostics.list.sort_by_key(place);
                Err(diagnostics)
            }
        }
    }
}

/// The node at a path of keys and indices; where the path ends early, the last node there is.
fn find<'n>(tree: &'n Node, path: &[&str]) -> &'n Node {
    let mut node = tree;
    for step in path {
        let next = node.get(step).or_else(|| step.parse().ok().and_then(|index| node.element(index)));
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

/// A scenario on its way.
pub(crate) struct Loader<'f> {
    pub source: Arc<Source>,
    pub tree: Node,
    pub file: File,
    pub files: &'f dyn Files,
    pub diagnostics: Diagnostics,
}

impl Loader<'_> {
    /// The node at a path of keys and indices; where the path ends early, the last node there is.
    pub fn node(&self, path: &[&str]) -> &Node {
        find(&self.tree, path)
    }

    /// A diagnostic about the value at a path.
    pub fn at(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(&self.source, self.node(path).span.clone(), message)
    }

    /// A diagnostic about the key at the end of a path.
    pub fn at_key(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        let span = match path.split_last() {
            Some((key, parents)) => match &self.node(parents).kind {
                json::NodeKind::Object(members) => members.iter().find(|member| member.key == **key).map(|member| member.key_span.clone()),
                _ => None,
            },
            None => None,
        };
        let span = span.unwrap_or_else(|| self.node(path).span.clone());
        Diagnostic::new(&self.source, span, message)
    }

    /// Reports a mistake.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// The CPU model of this name, or a diagnostic at `path`.
    pub fn model(&mut self, name: &str, path: &[&str]) -> Option<&'static models::CpuModel> {
        let model = models::find(name).ok();
        if model.is_none() {
            let names = models::MODELS.iter().map(|model| model.name);
            let hint = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known models: {}", names.collect::<Vec<_>>().join(", ")),
            };
            let shown: String = name.chars().take(60).collect();
            let diagnostic = self.at(path, format!("unknown CPU model `{shown}`")).hint(hint);
            self.report(diagnostic);
        }
        model
    }

    /// The machines of the matrix: CPU model, policy, seed.
    fn machines(&mut self) -> Vec<(&'static models::CpuModel, Policy, u64)> {
        let (machine, matrix) = (self.file.machine.clone(), self.file.matrix.clone());
        for (single, key, list) in [
            (machine.cpu.is_some(), ["machine", "cpu"], ("cpu", matrix.cpu.len())),
            (self.file.hypervisor.policy.is_some(), ["hypervisor", "policy"], ("policy", matrix.policy.len())),
            (machine.seed.is_some(), ["machine", "seed"], ("seed", matrix.seed.len())),
        ] {
            if single && list.1 > 0 {
                let diagnostic = self
                    .at_key(&["matrix", list.0], format!("`matrix.{}` and `{}.{}` exclude each other", list.0, key[0], key[1]))
                    .hint(format!("remove `{}` from `{}`", key[1], key[0]));
                self.report(diagnostic);
            }
        }
        let models: Vec<_> = if matrix.cpu.is_empty() {
            match &machine.cpu {
                Some(name) => self.model(name, &["machine", "cpu"]).into_iter().collect(),
                None => {
                    let names: Vec<_> = models::MODELS.iter().map(|model| model.name).collect();
                    let hint = format!(
                        "write `\"machine\": {{\"cpu\": ...}}`, or a list of models in `\"matrix\": {{\"cpu\": [...]}}`; there are {}",
                        names.join(", ")
                    );
                    let diagnostic = self.at(&["machine"], "no CPU model is given").hint(hint);
                    self.report(diagnostic);
                    Vec::new()
                }
            }
        } else {
            (0..matrix.cpu.len()).filter_map(|index| self.model(&matrix.cpu[index], &["matrix", "cpu", &index.to_string()])).collect()
        };
        let policies = match (matrix.policy.is_empty(), self.file.hypervisor.policy) {
            (true, policy) => vec![policy.unwrap_or_default()],
            (false, _) => matrix.policy,
        };
        let seeds = if matrix.seed.is_empty() { vec![machine.seed.unwrap_or(0)] } else { matrix.seed };
        self.refuse_repetition("cpu", &models.iter().map(|model| model.name).collect::<Vec<_>>());
        self.refuse_repetition("policy", &policies);
        self.refuse_repetition("seed", &seeds);
        let count = models.len().saturating_mul(policies.len()).saturating_mul(seeds.len());
        if count > MAX_VARIANTS {
            let diagnostic = self.at(&["matrix"], format!("the matrix stands for {count} machines; at most {MAX_VARIANTS} are run"));
            self.report(diagnostic);
            return Vec::new();
        }
        let mut machines = Vec::new();
        for &model in &models {
            for &policy in &policies {
                machines.extend(seeds.iter().map(|&seed| (model, policy, seed)));
            }
        }
        machines
    }

    fn refuse_repetition<T: PartialEq>(&mut self, key: &str, values: &[T]) {
        // Quadratic only up to the first repetition or the bound, whichever comes first.
        let values = &values[..values.len().min(MAX_VARIANTS)];
        if let Some(index) = (0..values.len()).find(|&index| values[..index].contains(&values[index])) {
            let diagnostic = self.at(&["matrix", key, &index.to_string()], "this value stands in the list already");
            self.report(diagnostic);
        }
    }

    /// The guest is built once per vendor, because its constants differ.
    fn variants(&mut self, machines: &[(&'static models::CpuModel, Policy, u64)]) -> Vec<Variant> {
        let mut images: Vec<(Vendor, Arc<Image>)> = Vec::new();
        let mut variants = Vec::new();
        for &(cpu, policy, seed) in machines {
            let vendor = vendor_of(cpu);
            let image = match images.iter().find(|(built, _)| *built == vendor) {
                Some((_, image)) => Arc::clone(image),
                None => match guest::build(self, vendor) {
                    Some(image) => {
                        let image = Arc::new(image);
                        images.push((vendor, Arc::clone(&image)));
                        image
                    }
                    // Every mistake of a guest shows on the first vendor already, or would be shown twice.
                    None => return Vec::new(),
                },
            };
            variants.push(Variant { cpu, policy, seed, image });
        }
        variants
    }
}
