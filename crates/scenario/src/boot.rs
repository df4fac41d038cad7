//! Booting an image without a scenario: what `trapline boot` does.
//!
//! This file knows the images; [`booted`] runs what was made of them.

mod booted;

pub use booted::{Booted, RestoreOptions};

use crate::file::{Mode, Paging, Policy, Start, Vendor};
use crate::guest::Program;
use crate::host::{Loaded, load_program};
use crate::meaning::{MAX_MEMORY, MIN_MEMORY};
use crate::run::Report;
use board::loader::{self, LoadError, LoadOptions, Module};
use cpu::block::Compile;
use models::CpuModel;
use std::collections::BTreeMap;
use std::io::Write;
use trace::Sink;

/// What the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Multiboot where there is a header, else ELF.
    Detect,
    /// Machine code without any header.
    Flat {
        /// Where it is loaded, and starts.
        base: u64,
        /// The environment it starts in.
        mode: Mode,
    },
}

/// What is booted on what.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// The image.
    pub image: Vec<u8>,
    /// Its name, the first word of a multiboot command line.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The rest of the command line.
    pub command_line: String,
    /// Multiboot modules: name and content.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The CPU model.
    pub cpu: &'static CpuModel,
    /// The hypercall policy, or [`Policy::None`].
    pub policy: Policy,
    /// Nested or shadow paging under the hypervisor; `None`: what the CPU model has.
    pub paging: Option<Paging>,
    /// How many CPUs.
    pub vcpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// Whether events tell of what CPUs deliver through the guest's own IDT.
    pub deliveries: bool,
    /// The limit of instructions.
    pub max_instructions: u64,
    /// The limit of cycles, for guests that sleep for ever while a timer ticks.
    pub max_cycles: u64,
    /// When code is compiled.
    pub compile: Compile,
}

/// The CPU model of a name, or the modern one of a vendor.
///
/// # Errors
/// Says which models there are.
pub fn model(name: Option<&str>, vendor: Option<Vendor>) -> Result<&'static CpuModel, String> {
    match (name, vendor) {
        (Some(name), _) => models::find(name).map_err(|error| error.to_string()),
        (None, Some(Vendor::Amd)) => Ok(models::default_for(models::Vendor::Amd)),
        (None, _) => Ok(models::default_for(models::Vendor::Intel)),
    }
}

fn prepare(options: &BootOptions) -> Result<Loaded, String> {
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&options.memory) || !options.memory.is_multiple_of(4096) {
        return Err("RAM is from 1M to 3G, in whole pages of 4K".to_owned());
    }
    if let Kind::Flat { base, mode } = options.kind {
        let end = base.saturating_add(options.image.len() as u64);
        if options.image.is_empty() || end > options.memory {
            return Err(format!("the image's {} bytes do not fit into RAM at {base:#x}", options.image.len()));
        }
        if mode == Mode::Real16 && base > 0xffff {
            return Err("in real mode code starts at 0xffff at most".to_owned());
        }
        let program = Program {
            pieces: vec![(base, options.image.clone())],
            entry: base,
            mode,
            start: Start::First,
            handlers: Vec::new(),
            labels: BTreeMap::new(),
        };
        return Ok(load_program(&program, options.vcpus));
    }
    let modules = options.modules.iter().map(|(text, bytes)| Module { text: text.clone(), bytes: bytes.clone() }).collect();
    let multiboot = LoadOptions {
        kind: loader::Kind::Multiboot,
        memory_size: options.memory,
        image_name: options.name.clone(),
        command_line: options.command_line.clone(),
        modules,
        ..LoadOptions::default()
    };
    match loader::load(&options.image, &multiboot) {
        Err(LoadError::NoMultibootHeader) if options.image.starts_with(b"\x7fELF") => {
            let elf = LoadOptions { kind: loader::Kind::Elf, image_name: String::new(), ..multiboot };
            loader::load(&options.image, &elf).map(Loaded::Image).map_err(|error| error.to_string())
        }
        Err(LoadError::NoMultibootHeader) => {
            Err("the image has neither a multiboot header nor is it ELF; `--flat ADDRESS` boots it as bare code".to_owned())
        }
        Err(error) => Err(error.to_string()),
        Ok(image) => Ok(Loaded::Image(image)),
    }
}

/// Boots an image and runs it to its end. Its serial output goes to `serial` as it comes, every event to `also`.
///
/// # Errors
/// Says what is wrong with the image or the options.
pub fn boot(options: &BootOptions, serial: &mut dyn Write, also: Option<&mut dyn Sink>) -> Result<Report, String> {
    let mut booted = Booted::new(options, also.is_some())?;
    Ok(booted.run(None, serial, also).expect("no moment is waited for"))
}
