//! Running a scenario on one of its machines: script, limits, trace, verdict.
//!
//! The steps of a script are taken in the order of the file: the second waits for its moment only when the first has happened. A step
//! whose moment never comes is a failure of the run.

use crate::checkpoint::{self, Checkpoint, Restored, RunRecord};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::file::{Access, Action, Expect, Hypervisor, Invariant, Levelling, Limits, MigrateAction, Moment, Policy, Stop};
use crate::host::{BareHost, Ending, Host, HostConfig, Pause, Totals, Until, load};
use crate::live;
use crate::load::{Scenario, Variant};
use crate::meaning::{DEFAULT_MEMORY, hex_bytes};
use crate::observe::Observer;
use crate::register::Place;
use crate::verdict::{self, Final, Registers, stop_name};
use crate::virtual_host::VirtualHost;
pub use cpu::block::Compile;
use isa::cpuid::Feature;
use memory::Memory;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;
use stream::Bytes;
use trace::{Event, Sink, Summary, Transcript};

/// In place of a CPU model to move to: the modern one of the other vendor.
pub const OTHER_VENDOR: &str = "other-vendor";
/// The limit of instructions of a scenario that does not set one.
pub const DEFAULT_INSTRUCTIONS: u64 = 10_000_000;
/// The limit of cycles of a scenario that does not set one: half a minute of a processor of 3 GHz. Without any, a guest that sleeps while
/// a timer ticks, and never looks at it, would run for ever.
pub const DEFAULT_CYCLES: u64 = 100_000_000_000;
/// Events of a run that its snapshot shows; the rest is covered by a hash.
pub const SNAPSHOT_EVENTS: usize = 400;
/// The most serial output that is kept, in bytes.
pub const MAX_SERIAL: usize = 16 << 20;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The machine's name.
    pub machine: String,
    /// Why it stopped.
    pub stop: Stop,
    /// The same in words.
    pub detail: String,
    /// What the guest wrote to the debug exit.
    pub exit_code: Option<u32>,
    /// Instructions of all CPUs.
    pub instructions: u64,
    /// Simulated cycles.
    pub cycles: u64,
    /// Registers of each CPU at the end.
    pub registers: Vec<Registers>,
    /// What the guest wrote to the serial port, up to [`MAX_SERIAL`] bytes.
    pub serial: Vec<u8>,
    /// The first events, and a hash of all.
    pub transcript: Transcript,
    /// Counts and times.
    pub summary: Summary,
    /// What the live moves were like.
    pub moves: Vec<migration::Report>,
    /// For each CPU whose last VM entry or VMRUN broke a rule, which rules.
    pub refused: Vec<(u32, audit::Assessment)>,
    /// What did not come true.
    pub failures: Diagnostics,
}

impl Report {
    /// Whether every expectation came true.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The end of the run in one line.
    pub fn summary_line(&self) -> String {
        format!("stopped: {}; {} instructions, {} cycles, {} VM exits", self.detail, self.instructions, self.cycles, self.summary.exits())
    }

    /// The text that is reviewed: story, end, exits, trace.
    pub fn snapshot(&self, scenario: &Scenario) -> String {
        let mut text = format!("{}\n{}\non {}\n\n", scenario.file.title, scenario.file.teaches, self.machine);
        text += &self.transcript.text();
        let _ = write!(text, "\n{}\n", self.summary_line());
        if self.summary.exits() > 0 {
            let _ = write!(text, "\n{}", self.summary.table());
        }
        if !self.serial.is_empty() {
            let serial = String::from_utf8_lossy(&self.serial);
            let _ = write!(text, "\nserial output:\n{serial}");
        }
        for it in &self.moves {
            let _ = write!(text, "\n{}", it.text());
        }
        // Lines must not end in spaces, so that reviewing tools leave them alone.
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The same for programs; numbers that can exceed 2^53 are strings.
    pub fn to_json(&self) -> Value {
        let registers: Vec<Value> = self
            .registers
            .iter()
            .map(|registers| {
                crate::register::Register::all()
                    .filter(|register| !matches!(register, crate::register::Register::Low(_)))
                    .map(|register| (register.name().to_owned(), Value::from(format!("{:#x}", registers.get(register)))))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect();
        let exits: Vec<Value> = self.summary.statistics().iter().map(|row| serde_json::to_value(row).unwrap_or_default()).collect();
        let failures: Vec<Value> = self
            .failures
            .list
            .iter()
            .map(|failure| {
                let (line, column) = failure.position().unwrap_or_default();
                json!({ "message": failure.message, "line": line, "column": column })
            })
            .collect();
        let refused: Vec<Value> = self
            .refused
            .iter()
            .map(|(vcpu, assessment)| {
                let rules: Vec<&str> = assessment.broken.iter().map(|finding| finding.rule.id).collect();
                json!({ "vcpu": vcpu, "outcome": assessment.broken.first().map(|first| audit::text::outcome(first.rule.outcome)), "rules": rules })
            })
            .collect();
        json!({
            "machine": self.machine,
            "stop": stop_name(self.stop),
            "detail": self.detail,
            "exit_code": self.exit_code,
            "instructions": self.instructions.to_string(),
            "cycles": self.cycles.to_string(),
            "exits": exits,
            "events": self.summary.total(),
            "trace_hash": (self.transcript.total() > 0).then(|| format!("{:#018x}", self.transcript.hash())),
            "registers": registers,
            "serial": String::from_utf8_lossy(&self.serial),
            "moves": self.moves.iter().map(live::report_json).collect::<Vec<_>>(),
            "refused_entries": refused,
            "failures": failures,
        })
    }
}

/// How a run is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events are kept.
    pub events: usize,
    /// When code is compiled.
    pub compile: Compile,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: SNAPSHOT_EVENTS, compile: Compile::default() }
    }
}

/// What a scenario chooses of the hypervisor.
fn options_of(file: &Hypervisor) -> hypervisor::Options {
    let default = hypervisor::Options::default();
    let hidden = match &file.hidden_features {
        Some(crate::quantity::Quantity::Number(bits)) => *bits as u32,
        _ => default.hidden_features,
    };
    hypervisor::Options {
        prefault: file.prefault.unwrap_or(default.prefault),
        force_emulation_prefix: file.force_emulation_prefix.unwrap_or(default.force_emulation_prefix),
        exit_hypercall: file.exit_hypercall.unwrap_or(default.exit_hypercall),
        enforce_features: file.enforce_features.unwrap_or(default.enforce_features),
        hidden_features: hidden,
        hyperv: file.hyperv.unwrap_or(default.hyperv),
        unrestricted_guest: file.unrestricted_guest.unwrap_or(default.unrestricted_guest),
        paging: file.paging.map(Into::into),
        ..default
    }
}

/// How a scenario narrows the guest's CPUID. Loading has checked the names.
fn levelling_of(file: &Levelling) -> hypervisor::guest_cpu::Levelling {
    let models = file.common.iter().filter_map(|name| models::find(name).ok());
    let levelled = models.fold(hypervisor::guest_cpu::Levelling::NONE, hypervisor::guest_cpu::Levelling::common);
    let removed = file.remove.iter().filter_map(|name| Feature::from_name(name));
    let levelled = removed.fold(levelled, hypervisor::guest_cpu::Levelling::without);
    let signature = file.vendor.as_ref().and_then(|name| name.as_bytes().try_into().ok());
    hypervisor::guest_cpu::Levelling { signature, ..levelled }
}

/// What the machine of a variant is made of.
pub(crate) fn host_config(scenario: &Scenario, variant: &Variant, compile: Compile) -> HostConfig {
    let machine = &scenario.file.machine;
    // Under a hypervisor the kernel's trace points tell the story, and they have none for deliveries.
    let deliveries = scenario.file.deliveries.unwrap_or(variant.policy == Policy::None);
    HostConfig {
        cpu: variant.cpu,
        vcpus: machine.vcpus.unwrap_or(1),
        memory: machine.memory.map_or(DEFAULT_MEMORY, |size| size.0),
        seed: variant.seed,
        hypervisor: hypervisor::Options { deliveries, ..options_of(&scenario.file.hypervisor) },
        compile,
        watch: true,
        deliveries,
        guest_cpu: scenario.file.hypervisor.guest_cpu.as_deref().and_then(|name| models::find(name).ok()),
        levelling: levelling_of(&scenario.file.hypervisor.levelling),
    }
}

/// A schedule in the hypervisor's own words.
fn turns_of(schedule: &[crate::file::Turn]) -> Vec<hypervisor::Turn> {
    use cpu::freedom::Part;
    let turn = |turn: &crate::file::Turn| {
        let split = turn.split.map(|part| match part {
            crate::file::Part::Low => Part::Low,
            crate::file::Part::High => Part::High,
        });
        let freedom = hypervisor::Freedom { split, bytes: turn.bytes, stale: turn.stale.clone(), buffer: turn.buffer, drain: turn.drain };
        hypervisor::Turn { vcpu: turn.cpu, steps: turn.steps, freedom }
    };
    schedule.iter().map(turn).collect()
}

/// The machine of a policy, with its guest loaded.
///
/// # Errors
/// Says why the guest does not fit.
pub fn host(config: &HostConfig, policy: Policy, loaded: &crate::host::Loaded) -> Result<Box<dyn Host>, String> {
    Ok(match policy {
        Policy::None => Box::new(BareHost::new(config, loaded)?),
        policy => Box::new(VirtualHost::new(config, policy, loaded)?),
    })
}

/// Interrupts a run at moments, which shows nowhere in it.
pub trait Interrupt {
    /// The next moment; asked for at the start and behind every interruption.
    fn next(&mut self, totals: &Totals) -> Option<Until>;
    /// The moment has come.
    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After;
}

/// Whether a run goes on behind an interruption.
#[derive(Debug)]
pub enum After {
    /// It does.
    GoOn,
    /// It goes on as the run of this checkpoint, which must be one of the same machine of the same scenario.
    GoOnFrom(Box<Checkpoint>),
    /// The guest moves, and the run goes on if there is still a guest to run.
    Move(Box<MigrateAction>),
    /// It does not.
    Leave,
}

/// A run that is interrupted.
pub struct Interrupted<'a> {
    scenario: &'a Scenario,
    variant: &'a Variant,
    host: &'a mut dyn Host,
    run: RunRecord,
}

impl Interrupted<'_> {
    /// Writes a checkpoint.
    ///
    /// # Errors
    /// The operating system's; or there is no machine any more.
    pub fn checkpoint(&mut self, to: &mut dyn Write) -> Result<(), checkpoint::Error> {
        checkpoint::write(to, self.scenario, self.variant, self.host, &self.run)
    }

    /// Totals so far.
    pub fn totals(&self) -> Totals {
        self.host.totals()
    }

    /// What a live move would come to.
    ///
    /// # Errors
    /// Says why there is nothing to move.
    pub fn check_move(&mut self, action: &MigrateAction) -> Result<migration::Check, String> {
        let model = live::destination(&action.to, self.host.model())?;
        let settings = live::settings(action, model, action.policy.unwrap_or(self.run.policy), self.run.moves.len());
        self.host.check_move(&settings)
    }
}

/// Runs a scenario on one of its machines; `also` gets every event besides.
pub fn run(scenario: &Scenario, variant: &Variant, options: &Options, also: Option<&mut dyn Sink>) -> Report {
    run_on(scenario, variant, options, also, |host| host)
}

/// The same with interruptions; nothing if one of them left it.
///
/// # Errors
/// A checkpoint that the run was to go on from is none of it.
pub fn run_interrupted<'o>(
    scenario: &'o Scenario,
    variant: &'o Variant,
    options: &Options,
    also: Option<&mut dyn Sink>,
    interrupt: &'o mut dyn Interrupt,
) -> Result<Option<Report>, checkpoint::Error> {
    let expectations = verdict::applicable(scenario, variant);
    let expects: Vec<_> = expectations.iter().map(|(_, expect)| *expect).collect();
    let observer = Observer::new(&expects, options.events, also);
    match machine_of(scenario, variant, options) {
        Ok(host) => {
            let director = Director {
                scenario,
                variant,
                host,
                serial: Vec::new(),
                next: 0,
                policy: variant.policy,
                moves: Vec::new(),
                interrupt: Some(interrupt),
                compile: options.compile,
            };
            finish(director, observer, &expectations)
        }
        Err(message) => Ok(Some(refused(scenario, variant, observer, message))),
    }
}

/// Goes on from a checkpoint; `also` gets every event from there on.
pub fn run_restored(restored: Restored, options: &Options, also: Option<&mut dyn Sink>) -> Report {
    go_on(restored, options, also, None).ok().flatten().expect("nobody interrupts the run")
}

/// The same with interruptions; nothing if one of them left it.
///
/// # Errors
/// A checkpoint that the run was to go on from is none of it.
pub fn run_restored_interrupted(
    restored: Restored,
    options: &Options,
    also: Option<&mut dyn Sink>,
    interrupt: &mut dyn Interrupt,
) -> Result<Option<Report>, checkpoint::Error> {
    go_on(restored, options, also, Some(interrupt))
}

fn go_on(
    restored: Restored,
    options: &Options,
    also: Option<&mut dyn Sink>,
    interrupt: Option<&mut dyn Interrupt>,
) -> Result<Option<Report>, checkpoint::Error> {
    let Restored { scenario, variant, host, run } = restored;
    let expectations = verdict::applicable(&scenario, &variant);
    let expects: Vec<_> = expectations.iter().map(|(_, expect)| *expect).collect();
    let mut observer = Observer::new(&expects, options.events, also);
    observer.restore(run.observer);
    let director = Director {
        scenario: &scenario,
        variant: &variant,
        host: host.into_host(),
        serial: run.serial.0,
        next: run.next,
        policy: run.policy,
        moves: run.moves,
        interrupt: interrupt.map(|interrupt| interrupt as &mut dyn Interrupt),
        compile: options.compile,
    };
    finish(director, observer, &expectations)
}

/// The same on what `through` makes of the machine: something that looks at it between its runs, or goes on with another one.
pub fn run_on(
    scenario: &Scenario,
    variant: &Variant,
    options: &Options,
    also: Option<&mut dyn Sink>,
    through: impl FnOnce(Box<dyn Host>) -> Box<dyn Host>,
) -> Report {
    let expectations = verdict::applicable(scenario, variant);
    let expects: Vec<_> = expectations.iter().map(|(_, expect)| *expect).collect();
    let observer = Observer::new(&expects, options.events, also);
    match machine_of(scenario, variant, options) {
        Ok(host) => {
            let director = Director {
                scenario,
                variant,
                host: through(host),
                serial: Vec::new(),
                next: 0,
                policy: variant.policy,
                moves: Vec::new(),
                interrupt: None,
                compile: options.compile,
            };
            finish(director, observer, &expectations).ok().flatten().expect("nobody interrupts the run")
        }
        Err(message) => refused(scenario, variant, observer, message),
    }
}

/// The machine that a scenario starts on.
fn machine_of(scenario: &Scenario, variant: &Variant, options: &Options) -> Result<Box<dyn Host>, String> {
    let config = host_config(scenario, variant, options.compile);
    let loaded = load(&variant.image, config.vcpus, config.memory)?;
    let mut host = host(&config, variant.policy, &loaded)?;
    let invariants = scenario.file.invariants.as_deref().unwrap_or_default();
    if !scenario.file.schedule.is_empty() || !invariants.is_empty() {
        host.follow(turns_of(&scenario.file.schedule), invariants)?;
    }
    Ok(host)
}

/// Memory as the guest of a scenario is loaded, under its hypervisor; nothing where it cannot be loaded, or there is none.
pub(crate) fn loaded_memory(scenario: &Scenario, variant: &Variant) -> Option<Memory> {
    let config = host_config(scenario, variant, Compile::Never);
    let loaded = load(&variant.image, config.vcpus, config.memory).ok()?;
    VirtualHost::new(&config, variant.policy, &loaded).ok()?.into_memory()
}

/// Runs to the end, and judges it. Nothing if the run was left.
fn finish(
    mut director: Director<'_>,
    mut observer: Observer<'_>,
    expectations: &[(Vec<String>, &Expect)],
) -> Result<Option<Report>, checkpoint::Error> {
    let Some(ending) = director.run(&mut observer)? else { return Ok(None) };
    let Director { scenario, variant, mut host, serial, next: unreached, moves, .. } = director;
    let totals = host.totals();
    observer.emit(totals.cycles, 0, Event::Stop { reason: format!("{}: {}", stop_name(ending.stop), ending.detail) });
    let refused_entries = assess_refused(&mut *host);
    let violations = Some(host.violations());
    let registers = (0..host.vcpus()).map(|vcpu| host.registers(vcpu)).collect();
    let end = End { registers, host: &*host, serial, moves, ending, violations };
    let mut failures = verdict::judge(scenario, variant, expectations, &observer, &end);
    for index in unreached..scenario.file.script.len() {
        let span = scenario.node(&["script", &index.to_string(), "at"]).span.clone();
        failures.push(Diagnostic::new(&scenario.source, span, "the run was over before this moment of the script"));
    }
    Ok(Some(Report {
        machine: variant.name(),
        stop: end.ending.stop,
        detail: end.ending.detail,
        exit_code: end.ending.exit_code,
        instructions: totals.instructions,
        cycles: totals.cycles,
        registers: end.registers,
        serial: end.serial,
        transcript: observer.transcript,
        summary: observer.summary,
        moves: end.moves,
        refused: refused_entries,
        failures,
    }))
}

/// Which rules the entries broke that the CPUs of a machine were refused last.
pub(crate) fn assess_refused(host: &mut dyn Host) -> Vec<(u32, audit::Assessment)> {
    host.refused_entries().into_iter().map(|(vcpu, mut state)| (vcpu, audit::assess(&mut state))).collect()
}

/// The report of a guest that could not be loaded.
fn refused(scenario: &Scenario, variant: &Variant, observer: Observer<'_>, message: String) -> Report {
    let span = scenario.node(&["guest"]).span.clone();
    Report {
        machine: variant.name(),
        stop: Stop::Unsupported,
        detail: format!("the guest could not be loaded: {message}"),
        exit_code: None,
        instructions: 0,
        cycles: 0,
        registers: Vec::new(),
        serial: Vec::new(),
        transcript: observer.transcript,
        summary: observer.summary,
        moves: Vec::new(),
        refused: Vec::new(),
        failures: Diagnostic::new(&scenario.source, span, format!("the guest could not be loaded: {message}")).into(),
    }
}

pub(crate) struct End<'h> {
    pub registers: Vec<Registers>,
    pub host: &'h dyn Host,
    pub serial: Vec<u8>,
    pub moves: Vec<migration::Report>,
    pub ending: Ending,
    /// The invariants that did not hold, if that is to be judged.
    pub violations: Option<Vec<Invariant>>,
}

impl Final for End<'_> {
    fn registers(&self) -> &[Registers] {
        &self.registers
    }
    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.host.read_memory(address, into)
    }
    fn serial(&self) -> &[u8] {
        &self.serial
    }
    fn moves(&self) -> &[migration::Report] {
        &self.moves
    }
    fn stop(&self) -> Stop {
        self.ending.stop
    }
    fn exit_code(&self) -> Option<u32> {
        self.ending.exit_code
    }
    fn violations(&self) -> Option<&[Invariant]> {
        self.violations.as_deref()
    }
}

/// The limits of a scenario.
pub(crate) fn limits_of(scenario: &Scenario) -> Totals {
    let Limits { instructions, cycles, exits } = scenario.file.limits;
    Totals {
        instructions: instructions.unwrap_or(DEFAULT_INSTRUCTIONS),
        cycles: cycles.unwrap_or(DEFAULT_CYCLES),
        exits: exits.unwrap_or(u64::MAX),
        hypercalls: u64::MAX,
    }
}

/// Leads a machine through a script.
pub(crate) struct Director<'r> {
    scenario: &'r Scenario,
    variant: &'r Variant,
    pub host: Box<dyn Host>,
    serial: Vec<u8>,
    /// The step of the script that is waited for.
    next: usize,
    pub policy: Policy,
    /// What the live moves were like.
    pub moves: Vec<migration::Report>,
    interrupt: Option<&'r mut dyn Interrupt>,
    compile: Compile,
}

impl Director<'_> {
    /// Asks for the next interruption.
    fn ask(&mut self) {
        if let Some(interrupt) = &mut self.interrupt {
            let moment = interrupt.next(&self.host.totals());
            self.host.interrupt_at(moment);
        }
    }

    /// Lets whoever interrupts look. Where the run does not go on: its end, unless it was left.
    fn interrupted(&mut self, observer: &mut Observer<'_>) -> Result<ControlFlow<Option<Ending>>, checkpoint::Error> {
        let Some(interrupt) = self.interrupt.take() else { return Ok(ControlFlow::Continue(())) };
        let run = self.record(observer);
        let (scenario, variant) = (self.scenario, self.variant);
        let after = interrupt.interrupted(&mut Interrupted { scenario, variant, host: &mut *self.host, run });
        self.interrupt = Some(interrupt);
        match after {
            After::GoOn => {}
            After::Leave => return Ok(ControlFlow::Break(None)),
            After::Move(action) => {
                let words = live::words(&action);
                observer.emit(self.host.totals().cycles, 0, Event::Script { at: "this moment".to_owned(), action: words });
                if let Some(ending) = self.migrate(&action, observer) {
                    return Ok(ControlFlow::Break(Some(ending)));
                }
            }
            After::GoOnFrom(checkpoint) => self.take_up(*checkpoint, observer)?,
        }
        self.ask();
        Ok(ControlFlow::Continue(()))
    }

    /// How far the run is.
    fn record(&self, observer: &Observer<'_>) -> RunRecord {
        let serial = Bytes(self.serial.clone());
        RunRecord { next: self.next, policy: self.policy, serial, observer: observer.record(), moves: self.moves.clone() }
    }

    /// Goes on as the run of a checkpoint of itself.
    fn take_up(&mut self, mut checkpoint: Checkpoint, observer: &mut Observer<'_>) -> Result<(), checkpoint::Error> {
        let run = checkpoint::take_run(&mut checkpoint)?;
        self.host.renew(&mut checkpoint, self.compile, &|| loaded_memory(self.scenario, self.variant))?;
        (self.serial, self.next, self.policy, self.moves) = (run.serial.0, run.next, run.policy, run.moves);
        observer.restore(run.observer);
        Ok(())
    }

    /// Writes the run, reads it again and goes on as what was read.
    fn go_through_checkpoint(&mut self, observer: &mut Observer<'_>) -> Result<(), checkpoint::Error> {
        let mut bytes = Vec::new();
        let record = self.record(observer);
        checkpoint::write(&mut bytes, self.scenario, self.variant, &mut *self.host, &record)?;
        self.take_up(Checkpoint::read(bytes.as_slice())?, observer)
    }

    /// The limits of the scenario.
    pub fn limits(&self) -> Totals {
        limits_of(self.scenario)
    }

    fn run(&mut self, sink: &mut Observer<'_>) -> Result<Option<Ending>, checkpoint::Error> {
        let limits = self.limits();
        let steps = &self.scenario.file.script;
        self.ask();
        loop {
            let step = steps.get(self.next);
            let pause = self.host.run(&limits, step.and_then(|step| self.until(&step.at)), sink);
            self.keep_serial();
            match (pause, step) {
                (Pause::Over(ending), _) => return Ok(Some(ending)),
                (Pause::Limit(stop), _) => return Ok(Some(limit(stop, &limits))),
                (Pause::Interrupted, _) => {
                    if let ControlFlow::Break(ending) = self.interrupted(sink)? {
                        return Ok(ending);
                    }
                }
                (Pause::Moment, None) => {}
                (Pause::Moment, Some(step)) => {
                    self.next += 1;
                    for action in &step.actions {
                        if let Some(ending) = self.act(&step.at, action, sink) {
                            return Ok(Some(ending));
                        }
                    }
                }
            }
        }
    }

    /// Keeps what the guest wrote to the serial port since the last time.
    pub fn keep_serial(&mut self) {
        let output = self.host.take_serial();
        let room = MAX_SERIAL - self.serial.len();
        self.serial.extend(&output[..output.len().min(room)]);
    }

    /// A moment with its labels resolved.
    fn until(&self, moment: &Moment) -> Option<Until> {
        let label = moment
            .label
            .as_ref()
            .map(|label| Until::Address { address: self.variant.image.resolve(label).unwrap_or_default(), pass: moment.pass.unwrap_or(1) });
        label
            .or(moment.exit.map(Until::Exit))
            .or(moment.cycle.map(Until::Cycle))
            .or(moment.instruction.map(Until::Instruction))
            .or(moment.hypercall.map(Until::Hypercall))
    }

    fn act(&mut self, at: &Moment, action: &Action, sink: &mut Observer<'_>) -> Option<Ending> {
        let image = &self.variant.image;
        let value = |quantity| image.resolve(quantity).unwrap_or_default();
        let words = match action {
            Action::Migrate(migrate) => live::words(migrate),
            Action::Interrupt(interrupt) => format!("interrupt {:#x} on CPU {}", interrupt.vector, interrupt.vcpu),
            Action::Nmi(nmi) => format!("NMI on CPU {}", nmi.vcpu),
            Action::Exception(exception) => match exception.error_code.as_ref().map(value) {
                Some(code) => format!("exception {:#x}, error code {code:#x}, on CPU {}", exception.vector, exception.vcpu),
                None => format!("exception {:#x} on CPU {}", exception.vector, exception.vcpu),
            },
            Action::CounterOverflow(counter) => format!("overflow of a counter on CPU {}", counter.vcpu),
            Action::Write(write) => format!("write {} to {:#x}", write.bytes, value(&write.address)),
            Action::Protect(protect) => {
                let access = match protect.access {
                    Access::None => "no memory",
                    Access::ReadOnly => "read-only",
                    Access::ReadWrite => "writable",
                };
                format!("{access} at {:#x}, {:#x} bytes", value(&protect.address), protect.size.0)
            }
            Action::Register(register) => format!("set {} to {:#x}", register.name, value(&register.value)),
            Action::SerialInput(text) => format!("serial input {text:?}"),
            Action::Pause(pause) => format!("pause of {} cycles", pause.cycles),
            Action::Checkpoint(name) => format!("checkpoint {name:?}, and go on from it"),
            Action::Stop(why) => format!("stop: {why}"),
        };
        let cycle = self.host.totals().cycles;
        sink.emit(cycle, 0, Event::Script { at: moment_words(at), action: words });
        match action {
            Action::Migrate(migrate) => return self.migrate(migrate, sink),
            Action::Interrupt(interrupt) => self.host.interrupt(interrupt.vcpu, interrupt.vector),
            Action::Nmi(nmi) => self.host.nmi(nmi.vcpu),
            Action::Exception(exception) => {
                let code = exception.error_code.as_ref().map(|code| value(code) as u32);
                let address = exception.address.as_ref().map_or(0, value);
                self.host.exception(exception.vcpu, exception.vector, code, address);
            }
            Action::CounterOverflow(counter) => self.host.counter_overflow(counter.vcpu),
            Action::Write(write) => {
                // Loading has checked the bytes and the address.
                self.host.write_memory(value(&write.address), &hex_bytes(&write.bytes).unwrap_or_default());
            }
            Action::Protect(protect) => {
                let start = value(&protect.address);
                if let Err(message) = self.host.protect(start..start.saturating_add(protect.size.0), protect.access) {
                    return Some(Ending::new(Stop::Unsupported, format!("memory cannot be protected: {message}")));
                }
            }
            Action::Register(register) => {
                if let Some(place) = Place::parse(&register.name) {
                    self.host.set_register(place, value(&register.value));
                }
            }
            Action::SerialInput(text) => self.host.serial_input(text.as_bytes()),
            Action::Pause(pause) => {
                if let Err(message) = self.host.hold(pause.cycles, sink) {
                    return Some(Ending::new(Stop::Unsupported, format!("the machine cannot pause: {message}")));
                }
            }
            Action::Checkpoint(name) => {
                if let Err(error) = self.go_through_checkpoint(sink) {
                    return Some(Ending::new(Stop::Unsupported, format!("there is no way through the checkpoint {name:?}: {error}")));
                }
            }
            Action::Stop(why) => return Some(Ending::new(Stop::Script, why.clone())),
        }
        None
    }
}

/// The end by a limit.
pub(crate) fn limit(stop: Stop, limits: &Totals) -> Ending {
    let detail = match stop {
        Stop::CycleLimit => format!("the limit of {} cycles is reached", limits.cycles),
        Stop::ExitLimit => format!("the limit of {} VM exits is reached", limits.exits),
        _ => format!("the limit of {} instructions is reached", limits.instructions),
    };
    Ending::new(stop, detail)
}

fn moment_words(moment: &Moment) -> String {
    let numbers = [("exit", moment.exit), ("cycle", moment.cycle), ("instruction", moment.instruction), ("hypercall", moment.hypercall)];
    if let Some((word, Some(number))) = numbers.iter().find(|(_, number)| number.is_some()) {
        return format!("{word} {number}");
    }
    match (&moment.label, moment.pass) {
        (Some(label), Some(pass)) => format!("{label}, pass {pass}"),
        (Some(label), None) => format!("{label}"),
        (None, _) => String::new(),
    }
}
