//! A move that a scenario does not know of: its guest is moved in the middle of its run, and must come to the end that the scenario expects.
//!
//! Moves of the scenario's own script are left out. Of its expectations those remain that say what the guest computes, which a move must not
//! change: how it stops, its registers, its memory, what it prints. They are judged only if they come true without any move: those of a
//! scenario that moves by itself may be about that.

use crate::file::{Action, Expect, MigrateAction, Policy};
use crate::host::{IMMOVABLE, Totals, Until};
use crate::live::{Check, destination};
use crate::load::{Scenario, Variant};
use crate::run::{After, Interrupt, Interrupted, Options, Report, run, run_interrupted};
use trace::Sink;

/// A scenario whose guest is moved.
#[derive(Clone, Debug)]
pub struct Journey {
    scenario: Scenario,
    variant: Variant,
    at: Until,
    action: MigrateAction,
    judged: bool,
}

/// Interrupts a run once.
struct Once<'a> {
    at: Option<Until>,
    action: &'a MigrateAction,
    only_check: bool,
    check: Option<Result<Check, String>>,
}

impl Interrupt for Once<'_> {
    fn next(&mut self, _: &Totals) -> Option<Until> {
        self.at.take()
    }

    fn interrupted(&mut self, run: &mut Interrupted<'_>) -> After {
        if self.only_check {
            self.check = Some(run.check_move(self.action));
            return After::Leave;
        }
        After::Move(Box::new(self.action.clone()))
    }
}

/// An expectation without what moves change.
fn lasting(expect: &Expect) -> Expect {
    let Expect { stop, exit_code, registers, memory, serial, serial_contains, .. } = expect.clone();
    Expect { stop, exit_code, registers, memory, serial, serial_contains, ..Expect::default() }
}

impl Journey {
    /// The guest of a scenario on one of its machines, moved at a moment, or when half of its instructions are executed. With `level` it is told of what
    /// both models have, and of nothing else.
    ///
    /// # Errors
    /// Says why it cannot be moved.
    pub fn new(
        scenario: &Scenario,
        variant: &Variant,
        at: Option<Until>,
        action: &MigrateAction,
        level: bool,
        options: &Options,
    ) -> Result<Self, String> {
        if variant.policy == Policy::None || action.policy == Some(Policy::None) {
            return Err(IMMOVABLE.to_owned());
        }
        if scenario.goes_by_steps() {
            return Err(
                "its `schedule` and `invariants` are about the steps of one machine, and a move takes the guest to another".to_owned()
            );
        }
        let to = destination(&action.to, Some(variant.cpu))?;
        let mut scenario = scenario.clone();
        let file = &mut scenario.file;
        // The steps stay, so that those behind them wait for the same moments.
        for step in &mut file.script {
            step.actions.retain(|action| !matches!(action, Action::Migrate(_)));
        }
        file.expect = lasting(&file.expect);
        for case in &mut file.cases {
            case.expect = lasting(&case.expect);
        }
        if level {
            file.hypervisor.levelling.common.extend([variant.cpu.name.to_owned(), to.name.to_owned()]);
        }
        let plain = run(&scenario, variant, &Options { events: 0, ..*options }, None);
        let judged = plain.passed();
        if !judged {
            scenario.file.expect = Expect::default();
            scenario.file.cases.clear();
        }
        let at = at.unwrap_or(Until::Instruction(plain.instructions / 2));
        Ok(Self { scenario, variant: variant.clone(), at, action: action.clone(), judged })
    }

    /// Whether the end of the run is judged.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// When it moves, in words.
    pub fn moment(&self) -> String {
        match self.at {
            Until::Exit(count) => format!("exit {count}"),
            Until::Cycle(cycle) => format!("cycle {cycle}"),
            Until::Instruction(count) => format!("instruction {count}"),
            Until::Hypercall(count) => format!("hypercall {count}"),
            Until::Address { address, pass } => {
                let labels = self.variant.image.labels();
                let name = labels.iter().find(|(_, at)| **at == address).map_or_else(|| format!("{address:#x}"), |(name, _)| name.clone());
                format!("{name}, pass {pass}")
            }
        }
    }

    /// Runs it; `also` gets every event. The report has a move in it, unless the run was over before its moment.
    pub fn run(&self, options: &Options, also: Option<&mut dyn Sink>) -> Report {
        let mut once = self.once(false);
        let report = run_interrupted(&self.scenario, &self.variant, options, also, &mut once);
        report.ok().flatten().expect("nobody leaves the run, or puts a checkpoint in its place")
    }

    /// Runs it up to the moment, and asks what the move would come to.
    ///
    /// # Errors
    /// The run was over before.
    pub fn check(&self, options: &Options) -> Result<Check, String> {
        let mut once = self.once(true);
        let report = run_interrupted(&self.scenario, &self.variant, &Options { events: 0, ..*options }, None, &mut once);
        match (once.check, report) {
            (Some(check), _) => check,
            (None, Ok(Some(report))) => Err(format!("the run was over before {}: {}", self.moment(), report.summary_line())),
            (None, Ok(None)) => Err("the run was left".to_owned()),
            (None, Err(error)) => Err(error.to_string()),
        }
    }

    fn once(&self, only_check: bool) -> Once<'_> {
        Once { at: Some(self.at), action: &self.action, only_check, check: None }
    }
}
