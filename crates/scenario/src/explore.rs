//! Searching the interleavings of a guest's virtual CPUs, and the architecture's freedoms, for one that breaks what a scenario promises.
//!
//! Modelled: every order of steps ([`hypervisor::Step`]) with at most so many *deviations* from the plain order, exhaustively; then random
//! orders by priorities. A deviation is a preemption (another virtual CPU goes on although this one could) or the use of a freedom
//! ([`hypervisor::Freedom`]). docs/explore.md says how, what is assumed, and what the numbers of a report mean.
//!
//! - `knowledge`: which instructions touch what others touch, so that only in front of them it matters who goes on;
//! - `execution`: one run from the beginning, along a schedule;
//! - `search`: which runs, and what they found;
//! - `minimise`: the shortest schedule that still breaks the promise, written as a scenario.
//!
//! A result does not depend on how many threads look for it.

mod execution;
mod knowledge;
mod minimise;
mod search;

pub use execution::Finding;
pub use minimise::document;

use crate::file::{Invariant, Policy};
use crate::host::{HostConfig, load};
use crate::load::{Scenario, Variant};
use crate::run::host_config;
use crate::virtual_host::VirtualHost;
use hypervisor::Turn;
use serde_json::{Value, json};

/// How much is searched.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most deviations of a run of the exhaustive part.
    pub preemptions: u32,
    /// The most runs.
    pub budget: u64,
    /// Of the random part.
    pub seed: u64,
    /// Which stores may wait in a store buffer.
    pub store_buffers: StoreBuffers,
}

/// Which stores of a guest a search lets wait in a store buffer, where none waits yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreBuffers {
    /// None: every store is visible at once.
    Off,
    /// Those behind which a load of other shared memory comes before the buffer has to be empty: without one, a store that waits is a store
    /// that is done later.
    #[default]
    BeforeLoads,
    /// All to shared memory.
    Everywhere,
}

impl StoreBuffers {
    /// Its name, as the command has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::BeforeLoads => "before-loads",
            Self::Everywhere => "everywhere",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { preemptions: 2, budget: 10_000, seed: 1, store_buffers: StoreBuffers::default() }
    }
}

/// What came of a search on one machine.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// The machine's name.
    pub machine: String,
    /// Runs of the exhaustive part, and of those before it that only gathered knowledge.
    pub runs: u64,
    /// Runs that gathered knowledge.
    pub gathering: u64,
    /// States that are different, at choice points.
    pub states: u64,
    /// Choice points that runs came to, one already known included, at which a run ends.
    pub points: u64,
    /// The number of deviations up to which everything was searched; `None` where the budget did not suffice for the plain order.
    pub bound: Option<u32>,
    /// No run was cut short by the bound: more deviations lead nowhere else.
    pub complete: bool,
    /// Random runs.
    pub random: u64,
    /// Steps of the longest run.
    pub steps: u64,
    /// How many deviations the random runs aim at.
    pub depth: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The guest reads the time, or has it read by a timer: states that differ in it were taken for the same.
    pub reads_time: bool,
    /// Runs of the minimisation.
    pub minimising: u64,
    /// What was found.
    pub finding: Option<Finding>,
    /// The schedule that leads there.
    pub schedule: Vec<Turn>,
    /// How many of its turns are preemptions or freedoms.
    pub deviations: u32,
}

impl Exploration {
    /// The chance that one random run finds a fault that needs `depth` orderings, for the report.
    pub fn chance(&self) -> String {
        format!("1/({} x {}^{})", self.vcpus, self.steps, self.depth.saturating_sub(1))
    }

    /// The report for people.
    pub fn text(&self, asked: &Options) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| text += &format!("  {name:<12} {value}\n");
        let bound = match self.bound {
            None if self.finding.is_some() => "up to the violation, in the plain order or with no deviation from it".to_owned(),
            None => "not even every schedule without deviations: the budget is used up".to_owned(),
            Some(_) if self.complete => "complete: every interleaving of the choice points, with every freedom there".to_owned(),
            Some(bound) => {
                let then = if self.finding.is_some() { ", and up to the violation" } else { "" };
                format!("every schedule with at most {bound} of {} deviations (preemptions, freedoms){then}", asked.preemptions)
            }
        };
        row("coverage", bound);
        row("runs", format!("{} exhaustive, {} before them to find the choice points", self.runs, self.gathering));
        row("states", format!("{} different at {} choice points", self.states, self.points));
        if self.random > 0 {
            let chance = self.chance();
            row(
                "random",
                format!(
                    "{} runs by priorities: each finds a fault of depth {} with a chance of at least {chance}",
                    self.random, self.depth
                ),
            );
        }
        row("longest run", format!("{} steps", self.steps));
        if asked.store_buffers == StoreBuffers::Off {
            row("assumption", "every store is visible at once: no store buffers".to_owned());
        }
        if self.reads_time {
            row("assumption", "the guest reads the time, which the search leaves out: coverage is that of its order alone".to_owned());
        }
        match &self.finding {
            None => row("violations", "none".to_owned()),
            Some(finding) => {
                row("violation", finding.text());
                let (turns, deviations) = (counted(self.schedule.len() as u64, "turn"), counted(self.deviations.into(), "deviation"));
                row("schedule", format!("{turns}, {deviations}, after {} to make it short", counted(self.minimising, "run")));
            }
        }
        text
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "machine": self.machine,
            "runs": self.runs,
            "gathering_runs": self.gathering,
            "states": self.states,
            "choice_points": self.points,
            "bound": self.bound,
            "complete": self.complete,
            "random_runs": self.random,
            "random_depth": self.depth,
            "steps": self.steps,
            "reads_time": self.reads_time,
            "minimising_runs": self.minimising,
            "violation": self.finding.as_ref().map(|finding| json!({ "invariant": finding.name(), "detail": finding.text() })),
            "schedule": minimise::schedule(&self.schedule),
            "deviations": self.deviations,
        })
    }
}

/// A number of things, with their name in the singular where it is one.
fn counted(number: u64, name: &str) -> String {
    format!("{number} {name}{}", if number == 1 { "" } else { "s" })
}

/// What is looked for where a scenario does not say.
const DEFAULT_INVARIANTS: &[Invariant] = &[
    Invariant::IntactText,
    Invariant::OneTrapPerSite,
    Invariant::RegistersKept,
    Invariant::OneByteChanges,
    Invariant::FailedPatchChangesNothing,
    Invariant::PatchedPagesDirty,
];

/// A scenario on one of its machines, ready to be run again and again.
pub(crate) struct Subject<'s> {
    scenario: &'s Scenario,
    variant: &'s Variant,
    config: HostConfig,
    loaded: crate::host::Loaded,
    wanted: Vec<Invariant>,
}

impl Subject<'_> {
    fn host(&self) -> Result<VirtualHost, String> {
        let mut host = VirtualHost::new(&self.config, self.variant.policy, &self.loaded)?;
        host.vm_mut().ok_or("there is no guest")?.follow(hypervisor::Schedule::default());
        Ok(host)
    }
}

/// Searches. `progress` hears of the runs done.
///
/// # Errors
/// Says why the scenario cannot be searched.
pub fn explore(scenario: &Scenario, variant: &Variant, options: &Options, progress: &(dyn Fn(u64) + Sync)) -> Result<Exploration, String> {
    if variant.policy == Policy::None {
        return Err("only guests under a hypervisor can be explored: the bare machine has no steps to choose among".to_owned());
    }
    if !scenario.file.script.is_empty() {
        return Err("a scenario with a script cannot be explored: what a script does has a time of its own".to_owned());
    }
    if !scenario.file.schedule.is_empty() {
        return Err("a scenario with a schedule is one interleaving; without its `schedule` it can be explored".to_owned());
    }
    let config = host_config(scenario, variant, cpu::block::Compile::Never);
    let loaded = load(&variant.image, config.vcpus, config.memory)?;
    let wanted = scenario.file.invariants.clone().unwrap_or_else(|| DEFAULT_INVARIANTS.to_vec());
    let subject = Subject { scenario, variant, config, loaded, wanted };
    search::search(&subject, options, progress)
}
