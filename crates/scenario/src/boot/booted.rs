//! The run of a guest that was booted, and its checkpoints.
//!
//! The serial output is handed on while the guest runs. Only counts are kept of the events, so that a long run costs what it must; whoever
//! wants the events passes a sink. A checkpoint has the sections of the machine, `boot` (what was booted, how far the run is) and
//! `boot/symbols` (the labels of the image); the image itself is in the guest's memory.

use super::{BootOptions, prepare};
use crate::checkpoint::{self, Checkpoint, Error, take_host};
use crate::file::{Policy, Stop};
use crate::host::{Ending, Host, HostConfig, Pause, Totals, Until};
use crate::run::{MAX_SERIAL, Report, assess_refused, host};
use crate::verdict::stop_name;
use cpu::block::Compile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use stream::{Bytes, Writer};
use trace::{Event, Sink, Summary, SummaryRecord, Transcript};

/// The version of the sections that this module writes.
const VERSION: u16 = 1;
/// What was booted, and how far its run is.
const BOOT: &str = "boot";
/// The labels of the image.
const SYMBOLS: &str = "boot/symbols";

/// Instructions after which the serial output is handed on: some milliseconds of the host's time.
const SLICE: u64 = 1_000_000;
/// Cycles after which it is handed on at the latest: few instructions may take long, as repeated string instructions do.
const SLICE_CYCLES: u64 = 20_000_000;
/// Instructions after which it is handed on to somebody who sees it beside the events, if no VM exit comes before.
const FINE_SLICE: u64 = 1000;

/// What was booted, and how far its run is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootRecord {
    /// The image's name.
    image: String,
    /// The machine's name, as reports show it.
    machine: String,
    /// What happens to hypercalls, or nobody is there for them.
    policy: Policy,
    /// The limit of instructions.
    max_instructions: u64,
    /// The limit of cycles.
    max_cycles: u64,
    /// What the guest wrote to the serial port so far, up to [`MAX_SERIAL`] bytes.
    serial: Bytes,
    /// What was counted so far.
    events: SummaryRecord,
}

/// A booted guest, between two moments of its run.
pub struct Booted {
    host: Box<dyn Host>,
    image: String,
    machine: String,
    policy: Policy,
    max_instructions: u64,
    max_cycles: u64,
    serial: Vec<u8>,
    summary: Summary,
    symbols: BTreeMap<String, u64>,
    /// Serial output is handed on at every VM exit.
    fine: bool,
}

/// How a run goes on from a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// When code is compiled.
    pub compile: Compile,
    /// Whether somebody wants the events.
    pub watched: bool,
    /// Whether those of a guest under a hypervisor tell of what CPUs deliver through its own IDT; on the bare machine they always do.
    pub deliveries: bool,
    /// The limit of instructions since the guest's start, if it is another one now.
    pub max_instructions: Option<u64>,
    /// The limit of cycles since the guest's start, if it is another one now.
    pub max_cycles: Option<u64>,
}

/// Counts every event, and hands it on where somebody wants it: without a copy, because a guest can make millions in a second.
struct Counter<'s, 'a> {
    summary: &'s mut Summary,
    also: Option<&'a mut dyn Sink>,
}

impl Sink for Counter<'_, '_> {
    fn emit(&mut self, cycle: u64, vcpu: u32, event: Event) {
        self.summary.note(cycle, vcpu, &event);
        if let Some(also) = &mut self.also {
            also.emit(cycle, vcpu, event);
        }
    }
}

impl Booted {
    /// A machine with its image loaded. Events are only told where they are watched for.
    ///
    /// # Errors
    /// Says what is wrong with the image or the options.
    pub fn new(options: &BootOptions, watched: bool) -> Result<Self, String> {
        let loaded = prepare(options)?;
        let config = HostConfig {
            cpu: options.cpu,
            vcpus: options.vcpus,
            memory: options.memory,
            seed: 0,
            hypervisor: hypervisor::Options {
                deliveries: watched && options.deliveries,
                paging: options.paging.map(Into::into),
                ..hypervisor::Options::default()
            },
            compile: options.compile,
            // Watching costs a call for every instruction: only where somebody wants the events.
            watch: watched,
            deliveries: options.deliveries,
            guest_cpu: None,
            levelling: hypervisor::guest_cpu::Levelling::NONE,
        };
        Ok(Self {
            host: host(&config, options.policy, &loaded)?,
            image: options.name.clone(),
            machine: format!("{}.{}", options.cpu.name, crate::load::policy_name(options.policy)),
            policy: options.policy,
            max_instructions: options.max_instructions,
            max_cycles: options.max_cycles,
            serial: Vec::new(),
            summary: Summary::new(),
            symbols: board::loader::symbols(&options.image),
            fine: false,
        })
    }

    /// Whether a checkpoint is one of a booted guest.
    pub fn is_in(checkpoint: &Checkpoint) -> bool {
        checkpoint.has(BOOT)
    }

    /// Takes a run out of a checkpoint.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    pub fn restore(mut from: Checkpoint, options: &RestoreOptions) -> Result<Self, Error> {
        let record: BootRecord = from.take(BOOT, VERSION)?;
        let symbols = from.take(SYMBOLS, VERSION)?;
        if record.serial.0.len() > MAX_SERIAL {
            return Err(Error::impossible(BOOT, "more serial output than is kept"));
        }
        let mut host = take_host(&mut from, record.policy, options.compile, &|| None)?;
        from.finish()?;
        host.watch(options.watched, options.deliveries || record.policy == Policy::None);
        Ok(Self {
            host: host.into_host(),
            image: record.image,
            machine: record.machine,
            policy: record.policy,
            max_instructions: options.max_instructions.unwrap_or(record.max_instructions),
            max_cycles: options.max_cycles.unwrap_or(record.max_cycles),
            serial: record.serial.0,
            summary: Summary::of_record(&record.events, machine::watch::reason),
            symbols,
            fine: false,
        })
    }

    /// Has serial output handed on at every VM exit, for whoever shows it beside the events. It takes longer, and shows nowhere else.
    pub fn hand_on_finely(&mut self) {
        self.fine = true;
    }

    /// Writes the run, from which [`Self::restore`] goes on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn checkpoint(&mut self, to: &mut dyn Write) -> Result<(), Error> {
        let mut writer = Writer::new(to)?;
        let record = BootRecord {
            image: self.image.clone(),
            machine: self.machine.clone(),
            policy: self.policy,
            max_instructions: self.max_instructions,
            max_cycles: self.max_cycles,
            serial: Bytes(self.serial.clone()),
            events: self.summary.record(),
        };
        writer.value(BOOT, VERSION, &record)?;
        writer.value(SYMBOLS, VERSION, &self.symbols)?;
        self.host.checkpoint(&mut writer)?;
        writer.finish()?;
        Ok(())
    }

    /// The image's name.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The machine's name.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Totals so far.
    pub fn totals(&self) -> Totals {
        self.host.totals()
    }

    /// A moment of this guest as the command line writes it. Passes of an address are counted from here on.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn moment(&self, text: &str) -> Result<Until, String> {
        checkpoint::moment_of(text, self.policy, &self.symbols)
    }

    /// Bytes that the guest finds at its serial port, behind those that it has not read yet.
    pub fn serial_input(&mut self, bytes: &[u8]) {
        self.host.serial_input(bytes);
    }

    /// Runs up to a moment, or to the end: then there is a report. Serial output goes to `serial` as it comes, every event to `also`; `serial` is
    /// flushed again and again, whether something was written or not. That a moment is waited for, and what comes of it, shows nowhere in the run.
    ///
    /// # Errors
    /// Those of `serial`, at which the run stops on its way.
    pub fn run(&mut self, until: Option<Until>, serial: &mut dyn Write, also: Option<&mut dyn Sink>) -> io::Result<Option<Report>> {
        let Self { host, summary, .. } = self;
        host.interrupt_at(until);
        let mut sink = Counter { summary, also };
        let mut slice_end = host.totals().cycles.saturating_add(SLICE_CYCLES);
        let ending = loop {
            let totals = host.totals();
            if totals.instructions >= self.max_instructions {
                break Ending::new(Stop::InstructionLimit, format!("the limit of {} instructions is reached", self.max_instructions));
            }
            let (slice, exits) = if self.fine { (FINE_SLICE, totals.exits.saturating_add(1)) } else { (SLICE, u64::MAX) };
            let limits = Totals {
                instructions: self.max_instructions.min(totals.instructions.saturating_add(slice)),
                cycles: self.max_cycles.min(slice_end),
                exits,
                hypercalls: u64::MAX,
            };
            let pause = host.run(&limits, None, &mut sink);
            let output = host.take_serial();
            if !output.is_empty() {
                self.serial.extend(&output[..output.len().min(MAX_SERIAL - self.serial.len())]);
                serial.write_all(&output)?;
            }
            serial.flush()?;
            match pause {
                Pause::Over(ending) => break ending,
                Pause::Interrupted | Pause::Moment => return Ok(None),
                Pause::Limit(Stop::CycleLimit) if slice_end >= self.max_cycles => {
                    break Ending::new(Stop::CycleLimit, format!("the limit of {} cycles is reached", self.max_cycles));
                }
                // A guest that sleeps does not reach the end of the slice: the next slice ends later all the same.
                Pause::Limit(_) => slice_end = slice_end.max(host.totals().cycles).saturating_add(SLICE_CYCLES),
            }
        };
        let refused = assess_refused(&mut **host);
        let totals = host.totals();
        sink.emit(totals.cycles, 0, Event::Stop { reason: format!("{}: {}", stop_name(ending.stop), ending.detail) });
        Ok(Some(Report {
            machine: self.machine.clone(),
            stop: ending.stop,
            detail: ending.detail,
            exit_code: ending.exit_code,
            instructions: totals.instructions,
            cycles: totals.cycles,
            registers: (0..host.vcpus()).map(|vcpu| host.registers(vcpu)).collect(),
            serial: self.serial.clone(),
            moves: Vec::new(),
            transcript: Transcript::new(0),
            summary: self.summary.clone(),
            refused,
            failures: Default::default(),
        }))
    }
}
