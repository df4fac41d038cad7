//! Checkpoints of a scenario's run: the machine, and all that is needed to go on as `run` would and to judge the end as `run` would.
//!
//! Sections beside those of the machine: `scenario` (its text, and which of its machines), `scenario/files` (the files it names), `run` (the
//! place in the script, serial output, what was watched). The text and the files are in the stream, so that a checkpoint needs nothing but
//! itself and a Trapline.

use crate::diagnostic::Diagnostics;
use crate::file::Policy;
use crate::host::{BareHost, Host, Until};
use crate::load::{Files, Scenario, Variant};
use crate::observe::ObserverRecord;
use crate::quantity::parse_number;
use crate::virtual_host::VirtualHost;
use cpu::block::Compile;
pub use machine::checkpoint::{Checkpoint, Error};
use memory::Memory;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use stream::{Bytes, Writer};

/// The version of the sections that this module writes.
const VERSION: u16 = 1;
/// What the scenario is.
const SCENARIO: &str = "scenario";
/// The files it names.
const FILES: &str = "scenario/files";
/// How far the run is.
const RUN: &str = "run";

/// Files that are read, and remembered.
pub(crate) struct Remembered<'f> {
    from: &'f dyn Files,
    read: RefCell<BTreeMap<String, Bytes>>,
}

impl<'f> Remembered<'f> {
    /// Remembers what is read from these.
    pub fn new(from: &'f dyn Files) -> Self {
        Self { from, read: RefCell::default() }
    }

    /// What was read.
    pub fn into_files(self) -> Kept {
        Kept(self.read.into_inner())
    }
}

impl Files for Remembered<'_> {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let bytes = self.from.read(name)?;
        self.read.borrow_mut().insert(name.to_owned(), Bytes(bytes.clone()));
        Ok(bytes)
    }
}

/// Files that a scenario names, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept(BTreeMap<String, Bytes>);

impl Files for Kept {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the checkpoint does not have it");
        self.0.get(name).map(|bytes| bytes.0.clone()).ok_or_else(missing)
    }
}

/// What the scenario is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioRecord {
    /// How messages call it.
    name: String,
    /// Its text.
    text: String,
    /// The name of the machine.
    machine: String,
}

/// How far a run is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRecord {
    /// The step of the script that is waited for.
    pub next: usize,
    /// What happens to hypercalls now.
    pub policy: Policy,
    /// What the guest wrote to the serial port so far.
    pub serial: Bytes,
    /// What was watched so far.
    pub observer: ObserverRecord,
    /// What the live moves so far were like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<migration::Report>,
}

/// A run that goes on from a checkpoint.
#[derive(Debug)]
pub struct Restored {
    /// The scenario, as it was.
    pub scenario: Scenario,
    /// Which of its machines runs.
    pub variant: Variant,
    pub(crate) host: RestoredHost,
    pub(crate) run: RunRecord,
}

/// The machine of a checkpoint.
#[derive(Debug)]
pub(crate) enum RestoredHost {
    /// Without a hypervisor.
    Bare(Box<BareHost>),
    /// Under the hypervisor.
    Hosted(Box<VirtualHost>),
}

impl RestoredHost {
    pub(crate) fn into_host(self) -> Box<dyn Host> {
        match self {
            Self::Bare(host) => host,
            Self::Hosted(host) => host,
        }
    }

    /// Tells events from now on or not, whatever whoever wrote the checkpoint wanted; see [`HostConfig::watch`](crate::host::HostConfig).
    pub(crate) fn watch(&mut self, watched: bool, deliveries: bool) {
        match self {
            Self::Bare(host) => host.watch(watched.then_some(deliveries)),
            Self::Hosted(host) => host.log_deliveries(watched && deliveries),
        }
    }
}

/// A checkpoint cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The stream, or a section of it.
    #[error(transparent)]
    Checkpoint(#[from] Error),
    /// The scenario in it.
    #[error("the scenario in the checkpoint is not one that this Trapline runs")]
    Scenario(Diagnostics),
}

/// Writes a run between two of its moments.
pub(crate) fn write(to: &mut dyn Write, scenario: &Scenario, variant: &Variant, host: &mut dyn Host, run: &RunRecord) -> Result<(), Error> {
    let mut writer = Writer::new(to)?;
    let record = ScenarioRecord { name: scenario.source.name.clone(), text: scenario.source.text.clone(), machine: variant.name() };
    writer.value(SCENARIO, VERSION, &record)?;
    writer.value(FILES, VERSION, &scenario.files)?;
    writer.value(RUN, VERSION, run)?;
    host.checkpoint(&mut writer)?;
    writer.finish()?;
    Ok(())
}

/// Takes how far a run is out of a checkpoint.
pub(crate) fn take_run(from: &mut Checkpoint) -> Result<RunRecord, Error> {
    from.take(RUN, VERSION)
}

/// Takes a machine out of a checkpoint.
pub(crate) fn take_host(
    from: &mut Checkpoint,
    policy: Policy,
    compile: Compile,
    loaded: &dyn Fn() -> Option<Memory>,
) -> Result<RestoredHost, Error> {
    Ok(match policy {
        Policy::None => RestoredHost::Bare(Box::new(BareHost::restore(from, compile)?)),
        _ => RestoredHost::Hosted(Box::new(VirtualHost::restore(from, policy, compile, loaded)?)),
    })
}

/// Takes a run out of a checkpoint.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(mut from: Checkpoint, compile: Compile) -> Result<Restored, RestoreError> {
    let record: ScenarioRecord = from.take(SCENARIO, VERSION)?;
    let files: Kept = from.take(FILES, VERSION)?;
    let scenario = Scenario::parse(&record.name, record.text, &files).map_err(RestoreError::Scenario)?;
    let variant = scenario.variants.iter().find(|variant| variant.name() == record.machine).cloned();
    let variant = variant.ok_or_else(|| Error::impossible(SCENARIO, format!("it has no machine `{}`", record.machine)))?;
    let run = take_run(&mut from)?;
    if run.next > scenario.file.script.len() || run.serial.0.len() > crate::run::MAX_SERIAL {
        return Err(Error::impossible(RUN, "a place in the script that there is not, or more serial output than is kept").into());
    }
    let host = take_host(&mut from, variant.policy, compile, &|| crate::run::loaded_memory(&scenario, &variant))?;
    from.finish()?;
    Ok(Restored { scenario, variant, host, run })
}

/// A moment of a scenario's machine as the command line writes it: see [`moment_of`].
///
/// # Errors
/// Says what is wrong with it, for this machine.
pub fn moment(text: &str, variant: &Variant) -> Result<Until, String> {
    moment_of(text, variant.policy, variant.image.labels())
}

/// A moment as the command line writes it: `exit:3`, `cycle:5000`, `instruction:12`, `hypercall:1`, `label:loop` or `label:loop:4`,
/// `address:0x10000` or `address:0x10000:4`.
///
/// # Errors
/// Says what is wrong with it, for a machine with this policy and a guest with these labels.
pub fn moment_of(text: &str, policy: Policy, labels: &BTreeMap<String, u64>) -> Result<Until, String> {
    const FORM: &str = "write exit:N, cycle:N, instruction:N, hypercall:N, label:NAME or address:N, the last two also with :PASS";
    let (kind, rest) = text.split_once(':').ok_or(FORM)?;
    let number = |text: &str| parse_number(text).ok_or_else(|| format!("`{text}` is no number; {FORM}"));
    // Without a pass it is the first.
    let passed = |rest: &str| match rest.rsplit_once(':') {
        Some((place, pass)) => number(pass).map(|pass| (place.to_owned(), pass)),
        None => Ok((rest.to_owned(), 1)),
    };
    Ok(match kind {
        "exit" | "hypercall" if policy == Policy::None => return Err(format!("a machine without a hypervisor has no {kind}s to wait for")),
        "exit" => Until::Exit(number(rest)?),
        "hypercall" => Until::Hypercall(number(rest)?),
        "cycle" => Until::Cycle(number(rest)?),
        "instruction" => Until::Instruction(number(rest)?),
        "address" => {
            let (address, pass) = passed(rest)?;
            Until::Address { address: number(&address)?, pass }
        }
        "label" => {
            // A name may have a colon in it.
            let (name, pass) = if labels.contains_key(rest) { (rest.to_owned(), 1) } else { passed(rest)? };
            let address = labels.get(&name).copied().ok_or_else(|| no_label(&name, labels))?;
            Until::Address { address, pass }
        }
        _ => return Err(format!("`{kind}` is no kind of moment; {FORM}")),
    })
}

/// The most labels that a message lists: a kernel has a hundred thousand.
const LISTED: usize = 40;

/// What is said of a label that there is not.
fn no_label(name: &str, labels: &BTreeMap<String, u64>) -> String {
    if labels.is_empty() {
        return format!("the guest has no label `{name}`, but none at all; address:N waits for an address");
    }
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    match names.get(..LISTED) {
        Some(_) => format!("the guest has no label `{name}`, but {} others", names.len()),
        None => format!("the guest has no label `{name}`, but {}", names.join(", ")),
    }
}
