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
use std::ops::Range;
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
    if options.policy == Policy::None && options.paging.is_some() {
        return Err("on the bare machine there are no tables of a hypervisor: leave the kind of paging out, or choose a policy".to_owned());
    }
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
        if !options.command_line.is_empty() || !options.modules.is_empty() {
            let what = if options.modules.is_empty() { "a command line" } else { "modules" };
            return Err(format!("flat code has nowhere to receive {what}; a multiboot image has"));
        }
        let program = Program {
            pieces: vec![(base, options.image.clone())],
            entry: base,
            mode,
            start: Start::First,
            handlers: Vec::new(),
            labels: BTreeMap::new(),
        };
        if let Some(taken) = program.reserved().filter(|taken| base < taken.end && taken.start < end) {
            let Range { start, end: behind } = taken;
            let help = "load it elsewhere, for example at 0x10000 (in real mode at 0x7c00)";
            return Err(format!(
                "the image at {base:#x}..{end:#x} lies over the environment's own memory at {start:#x}..{behind:#x}; {help}"
            ));
        }
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
            loader::load(&options.image, &elf).map(Loaded::Image).map_err(|error| with_help(&error))
        }
        Err(LoadError::NoMultibootHeader) => {
            Err(format!("the image has neither a multiboot header nor is it ELF; {}", advice(&options.image)))
        }
        Err(error) => Err(with_help(&error)),
        Ok(image) => Ok(Loaded::Image(image)),
    }
}

/// What is wrong with an image, and what can be done about it.
pub(crate) fn with_help(error: &LoadError) -> String {
    format!("{error}; {}", error.help())
}

/// What can be done with a file that is no image.
fn advice(image: &[u8]) -> &'static str {
    // "HdrS" of the boot protocol's header, Documentation/arch/x86/boot.rst.
    const LINUX: &[u8] = b"HdrS";
    let text = std::str::from_utf8(image).ok().map(str::trim_start);
    match text {
        _ if image.starts_with(&stream::MAGIC) => "it is a checkpoint: `trapline restore` goes on from it",
        _ if image.get(0x202..0x206) == Some(LINUX) => "it is a Linux kernel, whose boot protocol is not modelled",
        Some(text) if text.starts_with('{') => "it is JSON: `trapline run` runs scenarios",
        Some(text) if !text.is_empty() => {
            "it is text: `trapline asm --output FILE` makes code of assembly text, which `--flat ADDRESS` boots"
        }
        _ => "`--flat ADDRESS` boots it as bare code",
    }
}

/// Boots an image and runs it to its end. Its serial output goes to `serial` as it comes, every event to `also`.
///
/// # Errors
/// Says what is wrong with the image or the options.
pub fn boot(options: &BootOptions, serial: &mut dyn Write, also: Option<&mut dyn Sink>) -> Result<Report, String> {
    let mut booted = Booted::new(options, also.is_some())?;
    let report = booted.run(None, serial, also).map_err(|error| error.to_string())?;
    Ok(report.expect("no moment is waited for"))
}
