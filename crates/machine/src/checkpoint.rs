//! Checkpoints: a machine as sections of a stream, and back.
//!
//! Modelled: all that decides how a run goes on (see the fields of [`Cpu`], where the line is drawn), so that a machine that comes out of a
//! stream goes on to the byte as the one that went in. The host's caches are left out and begin empty. Names of sections are those of KVM's
//! groups of state where there is one. What this module knows of, memory and processors, is the same for a machine under the hypervisor.
//! Not modelled: how code is compiled, which is the reader's own business and shows nowhere.

use crate::schedule::Interleaving;
use crate::{Machine, MachineConfig, Unfinished, extension_of};
use board::Board;
use cpu::Cpu;
use cpu::block::{CodeCache, Footprints};
use cpu::freedom::FreedomRecord;
use cpu::state::{CpuRecord, Impossible};
use memory::{MAXIMUM_BYTES, Memory, PAGE_BYTES};
use models::CpuModel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use stream::pages::{Kind, Table};
use stream::{Bytes, Form, Reader, Section, Writer};

/// The version of every section that this module writes.
const VERSION: u16 = 1;

/// Name of the section that tells of memory; its pages are in `memory/pages`.
const MEMORY: &str = "memory";
/// Name of the sections that hold its pages.
const PAGES: &str = "memory/pages";
/// Sections of pages that are decoded together.
const GROUP: usize = 16;

/// A checkpoint cannot be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is damaged, or is none.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// A section is of a state that cannot be.
    #[error("section `{section}`: {what}")]
    Impossible {
        /// Which section.
        section: String,
        /// Why.
        what: String,
    },
    /// A section is missing.
    #[error("there is no section `{0}`; this is no checkpoint of the kind that was asked for (`trapline inspect` shows what it is)")]
    Missing(String),
    /// There is a section twice.
    #[error("section `{0}` comes twice; whatever wrote the stream is no Trapline")]
    Twice(String),
    /// A section that nobody asked for, and that must not be skipped.
    #[error("section `{0}` means nothing to this Trapline; read the checkpoint with the Trapline that wrote it")]
    Unknown(String),
}

impl Error {
    /// A section of a state that cannot be.
    pub fn impossible(section: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Impossible { section: section.into(), what: what.to_string() }
    }
}

/// A checkpoint that was read: its sections, taken out one after the other.
#[derive(Debug)]
pub struct Checkpoint {
    values: BTreeMap<String, Section>,
    memory: Option<Memory>,
}

/// What is told of memory, beside its pages.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryRecord {
    /// Bytes.
    size: u64,
    /// Pages that are not zero, or were at some time.
    pages: u64,
    /// Frames that were written since the dirty log was last taken, if one is kept.
    dirty: Option<Vec<u64>>,
    /// Whether writes are noted down, and the frames that were.
    journal: (bool, Vec<u64>),
}

impl Checkpoint {
    /// Reads a stream to its end. Memory is put together as it comes.
    ///
    /// # Errors
    /// The stream is damaged, or its sections cannot be those of a checkpoint.
    pub fn read(from: impl Read) -> Result<Self, Error> {
        let mut reader = Reader::new(from)?;
        let mut checkpoint = Self { values: BTreeMap::new(), memory: None };
        let mut waiting = Vec::new();
        let mut told = None;
        while let Some(section) = reader.next_section()? {
            if section.form() == Form::Pages && section.name() == PAGES {
                waiting.push(section);
                if waiting.len() == GROUP {
                    checkpoint.fill(&waiting)?;
                    reader.recycle(waiting.drain(..));
                }
                continue;
            }
            let name = section.name().to_owned();
            if name == MEMORY {
                let record: MemoryRecord = section.decode(VERSION)?;
                if record.size > MAXIMUM_BYTES || !record.size.is_multiple_of(PAGE_BYTES) {
                    return Err(Error::impossible(name, format!("{:#x} bytes of memory", record.size)));
                }
                checkpoint.memory = Some(Memory::new(record.size));
                told = Some(record);
            }
            if checkpoint.values.insert(name.clone(), section).is_some() {
                return Err(Error::Twice(name));
            }
        }
        checkpoint.fill(&waiting)?;
        reader.finish()?;
        if let (Some(MemoryRecord { size, dirty, journal: (open, frames), .. }), Some(memory)) = (told, &mut checkpoint.memory) {
            let logged = dirty.iter().flatten().chain(&frames);
            if logged.max().is_some_and(|last| *last >= size / PAGE_BYTES) {
                return Err(Error::impossible(MEMORY, "a dirty log of frames that there are not"));
            }
            if let Some(dirty) = dirty {
                memory.restore_dirty_log(&dirty);
            }
            memory.restore_journal(open, frames);
        }
        checkpoint.values.remove(MEMORY);
        Ok(checkpoint)
    }

    /// Puts pages into memory.
    fn fill(&mut self, sections: &[Section]) -> Result<(), Error> {
        if sections.is_empty() {
            return Ok(());
        }
        let Some(memory) = &mut self.memory else { return Err(Error::Missing(MEMORY.to_owned())) };
        let tables: Vec<Table> = sections.iter().map(|section| section.page_table(VERSION)).collect::<Result<_, _>>()?;
        // What is stored is decompressed to where it stays.
        let mut fresh = memory.fresh_pages(tables.iter().map(Table::stored_bytes).sum::<usize>() / PAGE_BYTES as usize);
        for filled in stream::pages::decode_into(sections, &tables, fresh.bytes()) {
            filled?;
        }
        for (section, table) in sections.iter().zip(&tables) {
            for (frame, kind) in table.pages() {
                let done = match kind {
                    Kind::Zero => memory.clear_page(frame),
                    Kind::Data => memory.put_page(frame, &mut fresh),
                    Kind::Same(source) => memory.share_page(source, frame),
                };
                done.map_err(|error| Error::impossible(section.name(), error))?;
            }
        }
        Ok(())
    }

    /// Whether there is a section.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes a section out.
    ///
    /// # Errors
    /// It is missing, newer than `known` or not one of this type.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str, known: u16) -> Result<T, Error> {
        let section = self.values.remove(name).ok_or_else(|| Error::Missing(name.to_owned()))?;
        Ok(section.decode(known)?)
    }

    /// Takes the memory out.
    ///
    /// # Errors
    /// There is none.
    pub fn take_memory(&mut self) -> Result<Memory, Error> {
        self.memory.take().ok_or_else(|| Error::Missing(MEMORY.to_owned()))
    }

    /// Asks that nothing is left that must not be skipped.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(self) -> Result<(), Error> {
        match self.values.into_iter().find(|(_, section)| !section.is_optional()) {
            Some((name, _)) => Err(Error::Unknown(name)),
            None => Ok(()),
        }
    }
}

/// Writes memory.
///
/// # Errors
/// The operating system's.
pub fn write_memory<W: Write>(writer: &mut Writer<W>, memory: &Memory) -> Result<(), Error> {
    let frames: Vec<u64> = memory.touched_frames().collect();
    let record = MemoryRecord { size: memory.size(), pages: frames.len() as u64, dirty: memory.dirty_log(), journal: memory.journal() };
    writer.value(MEMORY, VERSION, &record)?;
    Ok(writer.pages(PAGES, VERSION, &frames, |frame| memory.page_bytes(frame))?)
}

/// Writes the groups of a processor's record, each as a section `PREFIX/NAME`.
macro_rules! groups {
    ($($group:ident),*) => {
        fn write_groups<W: Write>(writer: &mut Writer<W>, prefix: &str, record: &CpuRecord) -> Result<(), Error> {
            let CpuRecord { $($group),* } = record;
            $(writer.value(&format!("{prefix}/{}", stringify!($group)), VERSION, $group)?;)*
            Ok(())
        }

        fn take_groups(from: &mut Checkpoint, prefix: &str) -> Result<CpuRecord, Error> {
            Ok(CpuRecord { $($group: from.take(&format!("{prefix}/{}", stringify!($group)), VERSION)?),* })
        }
    };
}

groups!(regs, sregs, debugregs, xcrs, xsave, msrs, vcpu_events, lapic, guest, progress, tlb);

/// Writes a processor with its silicon.
///
/// # Errors
/// The operating system's.
pub fn write_cpu<W: Write>(writer: &mut Writer<W>, prefix: &str, cpu: &mut Cpu) -> Result<(), Error> {
    write_groups(writer, prefix, &cpu.record())?;
    let (vmx, svm) = cpu
        .with_extension(|extension, _| {
            let silicon = extension.as_any();
            (silicon.downcast_ref::<vmx::Vmx>().map(vmx::Vmx::to_record), silicon.downcast_ref::<svm::Svm>().map(svm::Svm::to_record))
        })
        .unwrap_or_default();
    if let Some(record) = vmx {
        writer.value(&format!("{prefix}/vmx"), VERSION, &record)?;
    }
    if let Some(record) = svm {
        writer.value(&format!("{prefix}/svm"), VERSION, &record)?;
    }
    if let Some(record) = cpu.freedom_record() {
        writer.value(&format!("{prefix}/freedoms"), VERSION, &record)?;
    }
    Ok(())
}

/// Takes a processor's sections up, on a processor that was just made.
///
/// # Errors
/// They are missing, or of a state that cannot be.
pub fn take_cpu(from: &mut Checkpoint, prefix: &str, cpu: &mut Cpu) -> Result<(), Error> {
    let record = take_groups(from, prefix)?;
    let told = |error: Impossible| Error::impossible(prefix, error);
    cpu.restore(&record).map_err(told)?;
    let (vmx, svm) = (format!("{prefix}/vmx"), format!("{prefix}/svm"));
    let outcome = cpu.with_extension(|extension, cpu| {
        let silicon = extension.as_any();
        if let Some(silicon) = silicon.downcast_mut::<vmx::Vmx>() {
            return silicon.restore(cpu, &from.take(&vmx, VERSION)?).map_err(|error| Error::impossible(&vmx, error));
        }
        match silicon.downcast_mut::<svm::Svm>() {
            Some(silicon) => silicon.restore(cpu, &from.take(&svm, VERSION)?).map_err(|error| Error::impossible(&svm, error)),
            None => Ok(()),
        }
    });
    match outcome {
        Some(outcome) => outcome,
        None if cpu.guest_mode => Err(Error::impossible(prefix, "a guest on a processor without virtualization")),
        None => Ok(()),
    }
}

/// Takes up what others do not see yet of an observed processor's stores, and what it fetched ahead, in memory of so many bytes. Whether it was
/// observed.
///
/// # Errors
/// The section is of a state that cannot be.
pub fn take_freedoms(from: &mut Checkpoint, prefix: &str, cpu: &mut Cpu, memory: u64) -> Result<bool, Error> {
    let name = format!("{prefix}/freedoms");
    if !from.has(&name) {
        return Ok(false);
    }
    let record: FreedomRecord = from.take(&name, VERSION)?;
    cpu.restore_freedoms(&record, memory).map_err(|what| Error::impossible(name, what))?;
    Ok(true)
}

/// Writes where code was decoded, which stores to it are charged for. Whoever calls has handed all writes to the code cache.
///
/// # Errors
/// The operating system's.
pub fn write_code<W: Write>(writer: &mut Writer<W>, code: &CodeCache) -> Result<(), Error> {
    Ok(writer.value("code", VERSION, &code.footprints())?)
}

/// Takes up where code was decoded; the blocks themselves are decoded again when they are needed. Marks its pages in memory.
///
/// # Errors
/// The section is missing, or tells of places that there are not.
pub fn take_code(from: &mut Checkpoint, memory: &mut Memory) -> Result<CodeCache, Error> {
    let prints: Footprints = from.take("code", VERSION)?;
    let frames = prints.checked_frames(memory.size()).ok_or_else(|| Error::impossible("code", "code at places that are no memory"))?;
    for frame in frames {
        memory.mark_code(frame);
    }
    Ok(CodeCache::with_footprints(&prints))
}

/// Takes the devices out. Their seconds have the length that those of the model have with which they were made.
///
/// # Errors
/// The section is missing, or of a state that cannot be.
pub fn take_board(from: &mut Checkpoint, cpu_count: u32) -> Result<Board, Error> {
    let board: Board = from.take("board", VERSION)?;
    let possible = models::MODELS.iter().any(|model| board.is_possible(cpu_count, model.tsc_hz));
    if possible { Ok(board) } else { Err(Error::impossible("board", "devices that cannot be so")) }
}

/// What a bare machine is beside its parts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineRecord {
    /// Name of the processors' model.
    model: String,
    /// How many processors.
    cpu_count: u32,
    /// State of the generator behind the order of turns.
    interleaving: Interleaving,
    /// The turn that a limit broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unfinished: Option<Unfinished>,
    /// Serial output that nobody has taken yet.
    serial: Bytes,
}

/// The model of a name.
///
/// # Errors
/// There is none.
pub fn model_of(section: &str, name: &str) -> Result<&'static CpuModel, Error> {
    models::find(name).map_err(|_| Error::impossible(section, format!("`{name}` is no CPU model of this Trapline")))
}

impl Machine {
    /// Writes the machine; only between runs.
    ///
    /// # Errors
    /// The operating system's.
    pub fn checkpoint<W: Write>(&mut self, writer: &mut Writer<W>) -> Result<(), Error> {
        self.code.take_writes(&mut self.memory);
        let record = MachineRecord {
            model: self.cpus[0].model.name.to_owned(),
            cpu_count: self.cpus.len() as u32,
            interleaving: self.interleaving.clone(),
            unfinished: self.unfinished,
            serial: Bytes(self.serial.clone()),
        };
        writer.value("machine", VERSION, &record)?;
        for (number, cpu) in self.cpus.iter_mut().enumerate() {
            write_cpu(writer, &format!("cpu/{number}"), cpu)?;
        }
        writer.value("board", VERSION, &self.board)?;
        write_code(writer, &self.code)?;
        write_memory(writer, &self.memory)
    }

    /// The machine of a checkpoint.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    pub fn restore(from: &mut Checkpoint) -> Result<Self, Error> {
        let record: MachineRecord = from.take("machine", VERSION)?;
        let model = model_of("machine", &record.model)?;
        if !(1..=crate::MAXIMUM_CPUS).contains(&record.cpu_count) {
            return Err(Error::impossible("machine", format!("{} processors", record.cpu_count)));
        }
        if record.unfinished.is_some_and(|turn| turn.number >= record.cpu_count as usize) {
            return Err(Error::impossible("machine", "a turn of a processor that there is not"));
        }
        let mut memory = from.take_memory()?;
        let mut machine = Machine::new(&MachineConfig { model, cpu_count: record.cpu_count, memory_size: 0, seed: 0 });
        for number in 0..record.cpu_count {
            let mut cpu = Cpu::new(model, number, record.cpu_count, extension_of(model));
            take_cpu(from, &format!("cpu/{number}"), &mut cpu)?;
            machine.cpus[number as usize] = cpu;
        }
        machine.board = take_board(from, record.cpu_count)?;
        machine.code = take_code(from, &mut memory)?;
        machine.memory = memory;
        (machine.interleaving, machine.unfinished) = (record.interleaving, record.unfinished);
        machine.serial = record.serial.0;
        Ok(machine)
    }
}
