//! Whether a guest survives a move to another CPU model at any point: the same scenario again and again, moved there and back at other
//! moments, and each end compared with the end at home.
//!
//! A guest is comparable if it comes to the same end wholly at home and wholly abroad, told of the same processor both times, with the
//! features that both models have: what it does then depends on nothing that the models do differently. Compared are why it stopped, the
//! registers, all memory but the bytes that the hypervisor patched, serial output, and its hypercalls. What it writes for a guest sets the dirty
//! flag of the guest's paging entry as the guest's own writes do, so that these flags are left out of the comparison with the bytes.
//! Not compared: how long it took, and which exits there were.
//!
//! Moves of the scenario's own script are left out, as by `trapline migrate`.
//!
//! The same guests are moved live, over links with faults: `movement/faults.rs`.

pub mod faults;
mod tables;

use crate::file::{Action, Policy, Stop};
use crate::host::{Ending, Host, Pause, Totals, Until};
use crate::lead::{Lead, Led};
use crate::live;
use crate::load::{Scenario, Variant};
use crate::register::Register;
use crate::run::{Options, Report, run_on};
use crate::verdict::stop_name;
use faults::{Drawn, Live};
use isa::paging::{ACCESSED, DIRTY};
use models::CpuModel;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trace::{Event, Sink};

/// The longest guest, in instructions: every journey runs all of them.
pub const MAX_INSTRUCTIONS: u64 = 100_000;
/// The most moves of one journey.
const MAX_MOVES: u64 = 100;

/// How many moves are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// At most so many exits at which a guest moves, spread over all there are.
    pub exits: u64,
    /// So many instructions, at random.
    pub instructions: u64,
    /// So many live moves over links with faults.
    pub faults: u64,
    /// The seed of what is random.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It came to the same end from every moment.
    Survives,
    /// It did not.
    Differs(Vec<Finding>),
    /// There is nothing to compare, by this rule.
    NotComparable(Rule),
}

/// Why there is nothing to compare.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// There is nobody who could move it.
    #[error("without a hypervisor a machine cannot move")]
    NoHypervisor,
    /// The destination cannot run it at all.
    #[error("{0}")]
    Unfit(String),
    /// There is no way to go.
    #[error("it is on {0} already")]
    AtHome(&'static str),
    /// Steps are those of one machine.
    #[error("it goes by steps, which are those of one machine, and a move takes the guest to another")]
    Steps,
    /// The same moment is another one on a journey.
    #[error("its script counts exits, cycles or instructions, which moves change")]
    Counts,
    /// How far the guest comes meanwhile depends on the processor.
    #[error("its script holds the machine for so many cycles")]
    Holds,
    /// Every journey executes all of it.
    #[error("it executes {MAX_INSTRUCTIONS} instructions and more")]
    Long,
    /// It does something that not both models do, or do differently.
    #[error("it is another guest on {abroad}: {differences}")]
    AnotherGuest {
        /// Where.
        abroad: &'static str,
        /// What is different at the end.
        differences: String,
    },
}

/// A journey that ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When the guest moved.
    pub journey: String,
    /// What was different at the end.
    pub differences: Vec<String>,
}

/// What came of a scenario on one of its machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What came of it.
    pub outcome: Outcome,
    /// How many journeys there were.
    pub journeys: u64,
    /// How many moves they made.
    pub moves: u64,
    /// The live moves over links with faults.
    pub live: Vec<Live>,
}

/// The end of a run.
struct End {
    report: Report,
    hypercalls: BTreeMap<u32, Vec<[u64; 5]>>,
    patched: BTreeSet<u64>,
    exits: u64,
    log: Log,
}

/// What a traveller has to tell at the end.
#[derive(Default)]
struct Log {
    memory: Vec<u8>,
    moves: u64,
    /// The live move, and how many instructions had been executed when it was over.
    live: Option<(migration::Report, u64)>,
    /// A moment of the script came during the live move, so that it came behind it.
    late: bool,
}

/// When a guest moves, there and back by turns.
#[derive(Clone, Debug)]
enum Journey {
    /// Never.
    None,
    /// At each exit.
    EveryExit,
    /// At these exits.
    Exits(u64, u64),
    /// Before these instructions.
    Instructions(u64, u64),
    /// There, live, before an instruction, with what goes wrong on the way.
    Live(Box<Drawn>),
    /// Nowhere, but held before these instructions, in ascending order, each for so many cycles.
    Held(Vec<(u64, u64)>),
}

impl Journey {
    fn words(&self) -> String {
        match self {
            Self::None => "at home".to_owned(),
            Self::EveryExit => "there and back at every exit".to_owned(),
            Self::Exits(there, back) => format!("there at exit {there}, back at exit {back}"),
            Self::Instructions(there, back) => format!("there at instruction {there}, back at instruction {back}"),
            Self::Live(drawn) => format!("live at instruction {}", drawn.at),
            Self::Held(holds) => format!("held at instructions for so many cycles: {holds:?}"),
        }
    }

    /// The bound of the next move behind `made` of them.
    fn bound(&self, made: u64, totals: &Totals) -> (u64, u64) {
        match *self {
            Self::EveryExit if made < MAX_MOVES => (totals.exits + 1, u64::MAX),
            Self::Exits(there, _) if made == 0 => (there, u64::MAX),
            Self::Exits(_, back) if made == 1 => (back.max(totals.exits + 1), u64::MAX),
            Self::Instructions(there, _) if made == 0 => (u64::MAX, there),
            Self::Instructions(_, back) if made == 1 => (u64::MAX, back.max(totals.instructions + 1)),
            _ => (u64::MAX, u64::MAX),
        }
    }

    /// Where the run is interrupted once.
    fn interruption(&self) -> Option<Until> {
        match self {
            Self::Live(drawn) => Some(Until::Instruction(drawn.at)),
            Self::Held(holds) => holds.first().map(|(at, _)| Until::Instruction(*at)),
            _ => None,
        }
    }
}

/// A host whose guest moves at moments that the script knows nothing of.
struct Traveller {
    journey: Journey,
    /// The next bound: exits, instructions.
    bound: (u64, u64),
    /// When it is interrupted, until that is asked for.
    interruption: Option<Until>,
    home: &'static CpuModel,
    abroad: &'static CpuModel,
    policy: Policy,
    memory: u64,
    /// What is looked at when all is over.
    log: Rc<RefCell<Log>>,
}

impl Traveller {
    /// Moves, if it is time. Whether it was.
    fn travel(&mut self, host: &mut dyn Host, limits: &Totals, sink: &mut dyn Sink) -> Result<bool, String> {
        let totals = host.totals();
        let due = totals.exits >= self.bound.0 && totals.exits < limits.exits
            || totals.instructions >= self.bound.1 && totals.instructions < limits.instructions;
        if due {
            let made = self.log.borrow().moves;
            let to = if made.is_multiple_of(2) { self.abroad } else { self.home };
            host.migrate(to, self.policy, sink)?;
            self.log.borrow_mut().moves = made + 1;
            self.bound = self.journey.bound(made + 1, &host.totals());
        }
        Ok(due)
    }

    /// What a journey does where it is interrupted. The end of the run, if it does not go on behind that.
    fn interrupted(&mut self, host: &mut dyn Host, limits: &Totals, sink: &mut dyn Sink) -> Result<Option<Pause>, String> {
        match &mut self.journey {
            Journey::Live(drawn) => {
                let (report, pause) = host.move_live(&live::settings(&drawn.action, self.abroad, self.policy, 0), limits, sink)?;
                self.log.borrow_mut().live = Some((report, host.totals().instructions));
                Ok(pause)
            }
            Journey::Held(holds) => {
                let (_, cycles) = holds.remove(0);
                host.hold(cycles, sink)?;
                host.interrupt_at(self.journey.interruption());
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

impl Lead for Traveller {
    fn run(&mut self, host: &mut Box<dyn Host>, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        if let Some(moment) = self.interruption.take() {
            host.interrupt_at(Some(moment));
        }
        let pause = loop {
            let bounds = Totals { exits: limits.exits.min(self.bound.0), instructions: limits.instructions.min(self.bound.1), ..*limits };
            let pause = host.run(&bounds, until, sink);
            if pause == Pause::Moment {
                let mut log = self.log.borrow_mut();
                log.late |= log.live.as_ref().is_some_and(|(_, executed)| *executed == host.totals().instructions);
            }
            let went_on = match pause {
                Pause::Limit(Stop::ExitLimit | Stop::InstructionLimit) => {
                    self.travel(&mut **host, limits, sink).map(|moved| if moved { None } else { Some(pause) })
                }
                Pause::Interrupted => self.interrupted(&mut **host, limits, sink),
                pause => Ok(Some(pause)),
            };
            match went_on {
                Ok(None) => {}
                Ok(Some(pause)) => break pause,
                Err(message) => break Pause::Over(Ending::new(Stop::Unsupported, format!("the machine cannot move: {message}"))),
            }
        };
        if !matches!(pause, Pause::Moment) {
            let mut memory = vec![0; self.memory as usize];
            host.read_memory(0, &mut memory);
            self.log.borrow_mut().memory = memory;
        }
        pause
    }
}

/// Keeps the hypercalls and the places of patches.
#[derive(Default)]
struct Calls {
    /// By CPU: whose comes first is not the guest's to say.
    hypercalls: BTreeMap<u32, Vec<[u64; 5]>>,
    patched: BTreeSet<u64>,
    exits: u64,
}

/// The most places of memory that a finding names.
const MAX_PLACES: usize = 4;
/// The most hypercalls of a CPU that are compared one by one.
const MAX_CALLS: usize = 4096;

impl Sink for Calls {
    fn emit(&mut self, _: u64, vcpu: u32, event: Event) {
        match event {
            Event::Hypercall { nr, a0, a1, a2, a3 } => {
                let calls = self.hypercalls.entry(vcpu).or_default();
                if calls.len() < MAX_CALLS {
                    calls.push([nr, a0, a1, a2, a3]);
                }
            }
            Event::Patch { gpa, new, .. } => self.patched.extend((0..new.as_slice().len() as u64).map(|at| gpa + at)),
            Event::Exit { .. } => self.exits += 1,
            _ => {}
        }
    }
}

/// Why a scenario's machine cannot be asked.
fn incomparable(scenario: &Scenario, variant: &Variant, to: &'static CpuModel) -> Option<Rule> {
    if variant.policy == Policy::None {
        return Some(Rule::NoHypervisor);
    }
    if let Err(error) = hypervisor::check_model(to, scenario.file.hypervisor.paging.map(Into::into)) {
        return Some(Rule::Unfit(error.to_string()));
    }
    if variant.cpu.name == to.name {
        return Some(Rule::AtHome(to.name));
    }
    if scenario.goes_by_steps() {
        return Some(Rule::Steps);
    }
    let counts = |step: &crate::file::Step| step.at.exit.is_some() || step.at.cycle.is_some() || step.at.instruction.is_some();
    if scenario.file.script.iter().any(counts) {
        return Some(Rule::Counts);
    }
    if scenario.file.script.iter().flat_map(|step| &step.actions).any(|action| matches!(action, Action::Pause(_))) {
        return Some(Rule::Holds);
    }
    None
}

/// A scenario without the moves of its script, and without the steps at its end that do nothing else: nobody waits behind them.
fn without_moves(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    let script = &mut scenario.file.script;
    for step in script.iter_mut() {
        step.actions.retain(|action| !matches!(action, Action::Migrate(_)));
    }
    while script.last().is_some_and(|step| step.actions.is_empty()) {
        script.pop();
    }
    scenario
}

/// Asks whether a scenario's guest survives moves to a model and back.
pub fn survives(scenario: &Scenario, variant: &Variant, to: &'static CpuModel, effort: Effort, options: &Options) -> Verdict {
    let none = |why: Rule, journeys| Verdict { outcome: Outcome::NotComparable(why), journeys, moves: 0, live: Vec::new() };
    let mut scenario = without_moves(scenario);
    if let Some(why) = incomparable(&scenario, variant, to) {
        return none(why, 0);
    }
    // The same guest everywhere: told of its home, with what both models have.
    let told = &mut scenario.file.hypervisor;
    told.guest_cpu.get_or_insert_with(|| variant.cpu.name.to_owned());
    told.levelling.common.extend([variant.cpu.name.to_owned(), to.name.to_owned()]);
    let limits = &mut scenario.file.limits;
    limits.instructions = Some(limits.instructions.unwrap_or(MAX_INSTRUCTIONS).min(MAX_INSTRUCTIONS));
    let run = |cpu: &'static CpuModel, journey: Journey| {
        let variant = Variant { cpu, ..variant.clone() };
        travel(&scenario, &variant, to, journey, options)
    };
    let home = run(variant.cpu, Journey::None);
    if home.report.stop == Stop::InstructionLimit {
        return none(Rule::Long, 1);
    }
    let abroad = run(to, Journey::None);
    let differences = compare(&home, &abroad);
    if !differences.is_empty() {
        return none(Rule::AnotherGuest { abroad: to.name, differences: differences.join("; ") }, 2);
    }
    let mut journeys = vec![Journey::EveryExit];
    let step = home.exits.div_ceil(effort.exits.max(1)).max(1);
    if effort.exits > 0 {
        journeys.extend((1..=home.exits).step_by(step as usize).map(|exit| Journey::Exits(exit, exit + 1)));
    }
    let mut random = effort.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) % bound.max(1)
    };
    for _ in 0..effort.instructions {
        let there = next(home.report.instructions);
        journeys.push(Journey::Instructions(there, there + 1 + next(16)));
    }
    let (mut findings, mut moves) = (Vec::new(), 0);
    let count = journeys.len() as u64;
    for journey in journeys {
        let words = journey.words();
        let end = run(variant.cpu, journey);
        moves += end.log.moves;
        let differences = compare(&home, &end);
        if !differences.is_empty() {
            findings.push(Finding { journey: words, differences });
        }
    }
    let live = faults::moves(&scenario, variant, to, effort, &home, &run);
    findings.extend(live.iter().filter_map(Live::finding));
    let outcome = if findings.is_empty() { Outcome::Survives } else { Outcome::Differs(findings) };
    Verdict { outcome, journeys: count, moves, live }
}

fn travel(scenario: &Scenario, variant: &Variant, to: &'static CpuModel, journey: Journey, options: &Options) -> End {
    let log = Rc::new(RefCell::new(Log::default()));
    let mut calls = Calls::default();
    let memory = scenario.file.machine.memory.map_or(crate::meaning::DEFAULT_MEMORY, |size| size.0);
    let (shared, home, policy) = (Rc::clone(&log), variant.cpu, variant.policy);
    let report = run_on(scenario, variant, options, Some(&mut calls), |host| {
        let bound = journey.bound(0, &Totals { instructions: 0, cycles: 0, exits: 0, hypercalls: 0 });
        let interruption = journey.interruption();
        Box::new(Led { host, lead: Traveller { journey, bound, interruption, home, abroad: to, policy, memory, log: shared } })
    });
    let log = std::mem::take(&mut *log.borrow_mut());
    End { report, hypercalls: calls.hypercalls, patched: calls.patched, exits: calls.exits, log }
}

/// What is different at the end of two runs.
fn compare(home: &End, other: &End) -> Vec<String> {
    let mut differences = Vec::new();
    let (one, two) = (&home.report, &other.report);
    if (one.stop, one.exit_code) != (two.stop, two.exit_code) {
        differences.push(format!("it stopped with {} ({}) instead of {}", stop_name(two.stop), two.detail, stop_name(one.stop)));
    }
    for (vcpu, (registers, others)) in one.registers.iter().zip(&two.registers).enumerate() {
        for register in Register::all().filter(|register| !matches!(register, Register::Low(_))) {
            let (value, changed) = (registers.get(register), others.get(register));
            if value != changed {
                let place = if vcpu == 0 { String::new() } else { format!("cpu{vcpu}.") };
                differences.push(format!("{place}{} is {changed:#x} instead of {value:#x}", register.name()));
            }
        }
    }
    if one.serial != two.serial {
        differences.push("the serial output is another".to_owned());
    }
    if home.hypercalls != other.hypercalls {
        let count = |end: &End| end.hypercalls.values().map(Vec::len).sum::<usize>();
        differences.push(format!("{} hypercalls instead of {}, or others", count(other), count(home)));
    }
    let places = changed_places(home, other);
    if !places.is_empty() {
        differences.push(format!("memory at {} is another", places.join(", ")));
    }
    differences
}

/// The first places where two memories differ and nobody patched.
fn changed_places(home: &End, other: &End) -> Vec<String> {
    const PAGE: usize = 4096;
    let frames: BTreeSet<u64> = home.patched.union(&other.patched).map(|address| address >> 12).collect();
    let mut flags = BTreeSet::new();
    for end in [home, other] {
        for registers in &end.report.registers {
            flags.append(&mut tables::entries_of(&end.log.memory, registers, &frames));
        }
    }
    let mut places = Vec::new();
    for (number, (one, two)) in home.log.memory.chunks(PAGE).zip(other.log.memory.chunks(PAGE)).enumerate() {
        if one == two {
            continue;
        }
        for at in (0..one.len()).filter(|&at| one[at] != two[at]) {
            let address = (number * PAGE + at) as u64;
            // Entries of both sizes have their flags in the first byte.
            let flag = flags.contains(&address) && u64::from(one[at] ^ two[at]) & !(ACCESSED | DIRTY) == 0;
            if !flag && !home.patched.contains(&address) && !other.patched.contains(&address) {
                places.push(format!("{address:#x}"));
                if places.len() == MAX_PLACES {
                    return places;
                }
            }
        }
    }
    places
}
