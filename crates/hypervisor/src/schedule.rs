//! A schedule that is data: which virtual CPU takes how many steps, and where one of the architecture's freedoms is used.
//!
//! Modelled: every interleaving of steps ([`Vm::step`]). A virtual CPU that has to wait although it could go on is one whose host processor
//! does something else for a while; when it goes on, its time is no earlier than that of what happened meanwhile, so the times of a scheduled
//! run rise from line to line. Where the schedule ends, the plain order takes over: a virtual CPU goes on until it blocks or says that it
//! waits (PAUSE), or has taken [`PATIENCE`] steps, and then it is the next one's turn, as soon as the first one's store buffer is empty: no
//! store waits for ever.

use crate::backend::Backend;
use crate::run::{Limits, Stop};
use crate::steps::{Freedom, StepKind};
use crate::vm::Vm;
use serde::{Deserialize, Serialize};
use timing::TICKS_PER_CYCLE;
use trace::Sink;

/// Steps after which the plain order lets another virtual CPU go on: some programs wait without saying so.
pub const PATIENCE: u64 = 1000;

/// Some steps of one virtual CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which.
    pub vcpu: u32,
    /// How many.
    pub steps: u64,
    /// What the last of them makes use of.
    pub freedom: Freedom,
}

/// The turns of a run, and how far they have come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    turns: Vec<Turn>,
    /// The present turn, and the steps of it that were taken.
    at: usize,
    taken: u64,
    order: Order,
}

impl Schedule {
    /// A schedule.
    pub fn new(turns: Vec<Turn>) -> Self {
        Self { turns, ..Self::default() }
    }

    /// Whether it can be one of so many virtual CPUs.
    pub(crate) fn is_possible(&self, vcpus: usize) -> bool {
        self.at <= self.turns.len() && self.order.vcpu < vcpus && self.order.run <= PATIENCE
    }

    /// Whose step is next by the turns, and what it makes use of; `None` behind their end. `ready` says who can take one.
    pub fn turn(&mut self, ready: &[bool]) -> Option<(usize, Freedom)> {
        while let Some(turn) = self.turns.get(self.at) {
            let vcpu = turn.vcpu as usize;
            if self.taken < turn.steps && ready.get(vcpu).is_some_and(|ready| *ready) {
                self.taken += 1;
                let last = self.taken == turn.steps;
                return Some((vcpu, if last { turn.freedom.clone() } else { Freedom::default() }));
            }
            (self.at, self.taken) = (self.at + 1, 0);
        }
        None
    }

    /// Whose step is next, by the turns or in the plain order behind them. `buffers` says in whose store buffer something waits.
    fn next(&mut self, ready: &[bool], buffers: &[bool]) -> Option<(usize, Freedom)> {
        self.turn(ready).or_else(|| self.order.next(ready, buffers))
    }
}

/// The plain order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Whose turn it is.
    pub vcpu: usize,
    /// The steps that it has taken, one after the other.
    pub run: u64,
    /// It lets another one go on.
    pub yields: bool,
}

impl Order {
    /// Whose step is next; one whose turn is over empties its store buffer first. `buffers` says in whose something waits.
    pub fn next(&self, ready: &[bool], buffers: &[bool]) -> Option<(usize, Freedom)> {
        let patient = !self.yields && self.run < PATIENCE;
        let [is_ready, waits] = [ready, buffers].map(|of| of.get(self.vcpu).is_some_and(|is| *is));
        if is_ready && (patient || waits) {
            return Some((self.vcpu, if patient { Freedom::default() } else { Freedom::drain() }));
        }
        let next = (1..=ready.len()).map(|distance| (self.vcpu + distance) % ready.len()).find(|vcpu| ready[*vcpu])?;
        Some((next, Freedom::default()))
    }

    /// A step was taken. A drain is no turn of anybody's.
    pub fn note(&mut self, vcpu: usize, kind: StepKind, pauses: bool) {
        if kind == StepKind::Drain {
            return;
        }
        self.run = if vcpu == self.vcpu && !self.yields { self.run + 1 } else { 1 };
        (self.vcpu, self.yields) = (vcpu, pauses);
        if self.run > PATIENCE {
            self.run = 1;
        }
    }
}

impl<B: Backend> Vm<B> {
    /// Runs by the schedule. The prelude of [`Vm::run`] is the caller's.
    pub(crate) fn run_turn_of_schedule(&mut self, limits: &Limits, sink: &mut dyn Sink) -> Result<(), Stop> {
        let ready = self.ready(limits)?;
        if !ready.contains(&true) {
            // Time has come to a moment at which somebody looks: no turn is over for that.
            return Ok(());
        }
        let Some(schedule) = &mut self.common.schedule else { return Ok(()) };
        let place = (schedule.at, schedule.taken);
        let buffers: Vec<bool> = self.cpus.iter().map(|cpu| cpu.buffers_stores()).collect();
        let Some((vcpu, freedom)) = schedule.next(&ready, &buffers) else { return Ok(()) };
        let step = self.step(vcpu as u32, &freedom, limits, sink);
        if let (Err(Stop::Paused(_)), Some(schedule)) = (&step, &mut self.common.schedule) {
            // The step was not taken: somebody looks in front of it.
            (schedule.at, schedule.taken) = place;
        }
        let step = step?;
        if let Some(schedule) = &mut self.common.schedule {
            schedule.order.note(vcpu, step.kind, step.pauses);
        }
        if self.common.watches_steps { Err(Stop::Stepped(Box::new(step))) } else { Ok(()) }
    }

    /// Goes on by a schedule instead of in the order of simulated time. From now on every processor is observed.
    pub fn follow(&mut self, schedule: Schedule) {
        self.common.schedule = Some(schedule);
        self.common.frontier = self.cpus.iter().map(|cpu| cpu.now()).max().unwrap_or(0);
        self.cpus.iter_mut().for_each(|cpu| cpu.observe(true));
        self.emulator.processor().observe(true);
    }

    /// Whether a run by a schedule ends behind each step, with [`Stop::Stepped`].
    pub fn watch_steps(&mut self, watched: bool) {
        self.common.watches_steps = watched;
    }

    /// See [`Self::watch_steps`].
    pub fn watches_steps(&self) -> bool {
        self.common.watches_steps
    }

    /// Who can take a step. Where nobody can, time goes on to where somebody may; where that never comes, the run is over.
    ///
    /// # Errors
    /// The end of the run.
    pub fn ready(&mut self, limits: &Limits) -> Result<Vec<bool>, Stop> {
        let end = limits.cycles.saturating_mul(TICKS_PER_CYCLE).min(self.common.pauses.next_tick());
        loop {
            let board = self.common.board.next_event().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
            if board.is_some_and(|event| event <= self.common.frontier) {
                self.advance(self.common.frontier);
            }
            self.pass_board_interrupts();
            let ready: Vec<bool> = (0..self.cpus.len()).map(|vcpu| self.can_step(vcpu)).collect();
            if ready.contains(&true) {
                return Ok(ready);
            }
            let timers = self.vcpus.iter().filter_map(|vcpu| vcpu.software.apic.next_event());
            let timer = timers.min().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
            let event = [board, timer].into_iter().flatten().min();
            let Some(event) = event.filter(|_| !self.is_deaf()) else { return Err(Stop::Halted) };
            if event >= limits.cycles.saturating_mul(TICKS_PER_CYCLE) {
                return Err(Stop::CycleLimit);
            }
            self.common.frontier = self.common.frontier.max(event.min(end));
            self.advance(self.common.frontier);
            if self.common.frontier >= end {
                return Ok(ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_order_lets_one_run_until_it_blocks_pauses_or_takes_too_long() {
        let mut order = Order::default();
        let next = |order: &Order, ready: &[bool]| order.next(ready, &[false, false]).map(|(vcpu, _)| vcpu);
        assert_eq!(next(&order, &[true, true]), Some(0));
        order.note(0, StepKind::Guest, false);
        assert_eq!(next(&order, &[true, true]), Some(0));
        assert_eq!(next(&order, &[false, true]), Some(1));
        order.note(0, StepKind::Guest, true);
        assert_eq!(next(&order, &[true, true]), Some(1));
        assert_eq!(next(&order, &[true, false]), Some(0), "nobody else can");
        order.note(1, StepKind::Guest, false);
        for _ in 1..PATIENCE {
            assert_eq!(next(&order, &[true, true]), Some(1));
            order.note(1, StepKind::Guest, false);
        }
        assert_eq!(next(&order, &[true, true]), Some(0));
    }

    #[test]
    fn turns_come_first_and_those_of_who_cannot_go_on_are_passed_over() {
        let turn = |vcpu, steps| Turn { vcpu, steps, freedom: Freedom::default() };
        let mut schedule = Schedule::new(vec![turn(1, 2), turn(0, 1), turn(7, 3)]);
        let next = |schedule: &mut Schedule, ready: &[bool]| schedule.next(ready, &[false, false]).map(|(vcpu, _)| vcpu);
        assert_eq!(next(&mut schedule, &[true, true]), Some(1));
        assert_eq!(next(&mut schedule, &[true, false]), Some(0));
        assert_eq!(next(&mut schedule, &[true, true]), Some(0), "the plain order");
        assert_eq!(next(&mut schedule, &[false, false]), None);
    }

    #[test]
    fn whoever_lets_another_one_go_on_empties_its_store_buffer_first() {
        let mut order = Order::default();
        let (ready, buffers) = ([true, true], [true, true]);
        assert_eq!(order.next(&ready, &buffers), Some((0, Freedom::default())), "it goes on with what waits");
        order.note(0, StepKind::Guest, true);
        for _ in 0..2 {
            assert_eq!(order.next(&ready, &buffers), Some((0, Freedom::drain())));
            order.note(0, StepKind::Drain, false);
        }
        assert_eq!(order.next(&ready, &[false, true]), Some((1, Freedom::default())));
        order.note(0, StepKind::Drain, false);
        assert_eq!(order.next(&ready, &[false, true]), Some((1, Freedom::default())), "a drain is nobody's turn");
    }
}
