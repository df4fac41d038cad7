//! Booting an image without a scenario: what `trapline boot` does.
//!
//! The serial output is handed on while the guest runs. Only counts are kept of the events, so that a long run costs what it must; whoever
//! wants the events passes a sink.

use crate::file::{Mode, Paging, Policy, Start, Stop, Vendor};
use crate::guest::Program;
use crate::host::{Ending, HostConfig, Loaded, Pause, Totals, load_program};
use crate::meaning::{MAX_MEMORY, MIN_MEMORY};
use crate::run::{MAX_SERIAL, Report, host};
use crate::verdict::stop_name;
use board::loader::{self, LoadError, LoadOptions, Module};
use cpu::block::Compile;
use models::CpuModel;
use std::collections::BTreeMap;
use std::io::Write;
use trace::{Event, Sink, Summary, Transcript};

/// Instructions after which the serial output is handed on: some milliseconds of the host's time.
const SLICE: u64 = 1_000_000;
/// Cycles after which it is handed on at the latest: few instructions may take long, as repeated string instructions do.
const SLICE_CYCLES: u64 = 20_000_000;

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

/// Counts every event, and hands it on where somebody wants it: without a copy, because a guest can make millions in a second.
struct Counter<'s> {
    summary: Summary,
    also: Option<&'s mut dyn Sink>,
}

impl Sink for Counter<'_> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        self.summary.note(cycle, vcpu, &event);
        if let Some(also) = &mut self.also {
            also.emit(cycle, vcpu, event);
        }
    }
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
    let loaded = prepare(options)?;
    let config = HostConfig {
        cpu: options.cpu,
        vcpus: options.vcpus,
        memory: options.memory,
        seed: 0,
        hypervisor: hypervisor::Options {
            deliveries: also.is_some() && options.deliveries,
            paging: options.paging.map(Into::into),
            ..hypervisor::Options::default()
        },
        compile: options.compile,
        // Watching costs a call for every instruction: only where somebody wants the events.
        watch: also.is_some(),
        deliveries: options.deliveries,
        guest_cpu: None,
        levelling: hypervisor::guest_cpu::Levelling::NONE,
    };
    let mut host = host(&config, options.policy, &loaded)?;
    let mut sink = Counter { summary: Summary::new(), also };
    let mut kept = Vec::new();
    let mut slice_end = SLICE_CYCLES;
    let ending = loop {
        let totals = host.totals();
        if totals.instructions >= options.max_instructions {
            break Ending::new(Stop::InstructionLimit, format!("the limit of {} instructions is reached", options.max_instructions));
        }
        let limits = Totals {
            instructions: options.max_instructions.min(totals.instructions.saturating_add(SLICE)),
            cycles: options.max_cycles.min(slice_end),
            exits: u64::MAX,
            hypercalls: u64::MAX,
        };
        let pause = host.run(&limits, None, &mut sink);
        let output = host.take_serial();
        if !output.is_empty() {
            // A reader of the serial port that goes away does not stop the guest.
            let _ = serial.write_all(&output).and_then(|()| serial.flush());
            kept.extend(&output[..output.len().min(MAX_SERIAL - kept.len())]);
        }
        match pause {
            Pause::Over(ending) => break ending,
            Pause::Limit(Stop::CycleLimit) if slice_end >= options.max_cycles => {
                break Ending::new(Stop::CycleLimit, format!("the limit of {} cycles is reached", options.max_cycles));
            }
            // A guest that sleeps does not reach the end of the slice: the next slice ends later all the same.
            Pause::Limit(_) | Pause::Moment | Pause::Interrupted => {
                slice_end = slice_end.max(host.totals().cycles).saturating_add(SLICE_CYCLES)
            }
        }
    };
    let refused = crate::run::assess_refused(&mut *host);
    let totals = host.totals();
    sink.emit(totals.cycles, 0, Event::Stop { reason: format!("{}: {}", stop_name(ending.stop), ending.detail) });
    Ok(Report {
        machine: format!("{}.{}", options.cpu.name, crate::load::policy_name(options.policy)),
        stop: ending.stop,
        detail: ending.detail,
        exit_code: ending.exit_code,
        instructions: totals.instructions,
        cycles: totals.cycles,
        registers: (0..host.vcpus()).map(|vcpu| host.registers(vcpu)).collect(),
        serial: kept,
        moves: Vec::new(),
        transcript: Transcript::new(0),
        summary: sink.summary,
        refused,
        failures: Default::default(),
    })
}
