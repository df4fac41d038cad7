//! Which runs are made: first all with no deviation, then all with one, and so on; then random ones.
//!
//! A node is a schedule. Its run goes along the schedule and on in the plain order, and every choice point behind the schedule that was never
//! seen in any run with as few deviations gives new nodes, one for each alternative. Runs are made in batches of [`BATCH`], whose results are
//! looked at in the order of their nodes, so that nothing depends on which thread was first. Where runs show instructions to touch
//! shared memory that were not known to, choice points may have been passed over, and the search begins again with what is known now.

use super::execution::{Finding, Loaded, MOST_STEPS, Priorities, Run, Then, append, turns_before};
use super::knowledge::{Choices, Knowledge};
use super::minimise;
use super::{Exploration, Options, Subject};
use hypervisor::{Freedom, Turn};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs between two looks at their results.
const BATCH: usize = 64;
/// Random runs before the search, to know who touches what.
const GATHERING: u64 = 16;
/// Deviations that random runs aim at: orderings that a fault needs.
const DEPTH: u32 = 3;

/// The most that a search remembers, of nodes, of states, and of turns of the runs that nodes come from: some 2 GiB. What is left then is not
/// searched exhaustively.
const MOST_KEPT: usize = 1 << 24;

/// A schedule to be tried: that of an earlier run up to a point, and one step that goes another way.
#[derive(Clone, Debug)]
struct Node {
    run: Arc<Vec<Turn>>,
    before: (usize, u64),
    step: Option<(u32, Freedom)>,
    deviations: u32,
}

impl Node {
    fn turns(&self) -> Vec<Turn> {
        let mut turns = turns_before(&self.run, self.before);
        if let Some((vcpu, freedom)) = self.step.clone() {
            append(&mut turns, Turn { vcpu, steps: 1, freedom });
        }
        turns
    }
}

/// A search in progress.
struct Search<'s> {
    subject: &'s Subject<'s>,
    origin: Loaded,
    options: Options,
    knowledge: Knowledge,
    done: u64,
    gathering: u64,
    progress: &'s (dyn Fn(u64) + Sync),
}

/// What the exhaustive part came to.
struct Exhausted {
    runs: u64,
    states: u64,
    points: u64,
    bound: Option<u32>,
    complete: bool,
    found: Option<Found>,
}

/// What was found, and the schedule that leads there.
type Found = (Finding, Vec<Turn>);

/// Why a pass over the tree ended.
enum Pass {
    Done(Exhausted),
    /// More is known than when it began.
    Again,
    /// A run does not come to an end.
    Endless,
}

pub(super) fn search(subject: &Subject<'_>, options: &Options, progress: &(dyn Fn(u64) + Sync)) -> Result<Exploration, String> {
    let origin = Loaded::new(subject)?;
    let mut search = Search { subject, origin, options: *options, knowledge: Knowledge::default(), done: 0, gathering: 0, progress };
    let (mut found, gathered) = search.gather().ok_or_else(endless)?;
    let mut exhausted = Exhausted { runs: 0, states: 0, points: 0, bound: None, complete: false, found: None };
    if found.is_none() {
        exhausted = loop {
            match search.exhaust() {
                Pass::Done(exhausted) => break exhausted,
                Pass::Again => {}
                Pass::Endless => return Err(endless()),
            }
        };
        found = exhausted.found.take();
    }
    // What a run before the search met by chance, and the search did not.
    found = found.or(gathered);
    let mut random = 0;
    if found.is_none() && !exhausted.complete {
        (random, found) = search.randomly().ok_or_else(endless)?;
    }
    let (mut schedule, mut minimising, mut deviations) = (Vec::new(), 0, 0);
    let mut finding = None;
    if let Some((what, turns)) = found {
        let short = minimise::minimise(subject, &mut search.origin, &what, turns);
        (schedule, minimising, deviations) = (short.turns, short.runs, short.deviations);
        finding = Some(short.finding);
    }
    Ok(Exploration {
        machine: subject.variant.name(),
        runs: exhausted.runs,
        gathering: search.gathering,
        states: exhausted.states,
        points: exhausted.points,
        bound: exhausted.bound,
        complete: exhausted.complete,
        random,
        steps: search.knowledge.steps,
        depth: DEPTH,
        vcpus: subject.config.vcpus,
        reads_time: search.knowledge.reads_time,
        minimising,
        finding,
        schedule,
        deviations,
    })
}

impl Search<'_> {
    fn left(&self) -> u64 {
        self.options.budget.saturating_sub(self.done)
    }

    /// Makes runs, each from its own fork, and returns them in order.
    fn batch<'c, T: Sync>(
        &mut self,
        items: &[T],
        choices: &'c Choices,
        then: impl Fn(&T, &'c Choices) -> (Vec<Turn>, Then<'c>) + Sync,
    ) -> Vec<Run> {
        let subject = self.subject;
        // A machine stays with its thread, which makes one and forks it for every run of its part.
        let part = items.len().div_ceil(rayon::current_num_threads()).max(4);
        let runs: Vec<Run> = items
            .par_chunks(part)
            .flat_map_iter(|items| {
                // The same was made before the search.
                let origin = Loaded::new(subject).ok();
                let run = |origin: &mut Loaded, item| {
                    let (turns, then) = then(item, choices);
                    origin.fork().run(subject, &turns, then)
                };
                origin.map(|mut origin| items.iter().map(|item| run(&mut origin, item)).collect::<Vec<_>>()).unwrap_or_default()
            })
            .collect();
        self.done += items.len() as u64;
        (self.progress)(self.done);
        runs
    }

    /// The plain order and some random ones: who touches what. Nothing where one does not come to an end.
    fn gather(&mut self) -> Option<(Option<Found>, Option<Found>)> {
        let (choices, seen) = (Choices::default(), BTreeMap::new());
        let mut runs = self.batch(&[()], &choices, |(), choices| (Vec::new(), Then::Plain { choices, seen: &seen, deviations: 0 }));
        self.knowledge.steps = runs[0].steps;
        let count = GATHERING.min(self.left());
        let plans: Vec<Plan> = (0..count).map(|number| self.plan(number)).collect();
        runs.extend(self.batch(&plans, &choices, |plan, choices| (Vec::new(), Then::Priorities(plan.priorities(choices)))));
        self.gathering = self.done;
        for run in &runs {
            self.knowledge.merge(&run.knowledge);
        }
        if runs.iter().any(|run| run.endless) {
            return None;
        }
        let mut found = runs.into_iter().map(|run| run.finding.map(|finding| (finding, run.turns)));
        Some((found.next().flatten(), found.flatten().next()))
    }

    /// One pass over the tree of schedules.
    fn exhaust(&mut self) -> Pass {
        let choices = self.knowledge.choices(self.options.store_buffers);
        let mut seen: BTreeMap<u128, u32> = BTreeMap::new();
        let (mut runs, mut points) = (0, 0);
        let mut cut = false;
        let mut level = vec![Node { run: Arc::new(Vec::new()), before: (0, 0), step: None, deviations: 0 }];
        let mut kept = 0;
        let mut bound = None;
        for deviations in 0..=self.options.preemptions {
            let mut next = Vec::new();
            let mut at = 0;
            // Free alternatives add to the level at hand.
            while at < level.len() {
                let end = level.len().min(at + BATCH.min(self.left() as usize));
                if end == at || kept + seen.len() + level.len() + next.len() > MOST_KEPT {
                    return Pass::Done(Exhausted { runs, states: seen.len() as u64, points, bound, complete: false, found: None });
                }
                let nodes = level[at..end].to_vec();
                at = end;
                let known = &seen;
                let results = self.batch(&nodes, &choices, |node, choices| {
                    (node.turns(), Then::Plain { choices, seen: known, deviations: node.deviations })
                });
                runs += results.len() as u64;
                let mut found = None;
                for (node, run) in nodes.iter().zip(results) {
                    self.knowledge.merge(&run.knowledge);
                    if run.endless {
                        return Pass::Endless;
                    }
                    let turns = Arc::new(run.turns);
                    points += run.points.len() as u64;
                    if found.is_none() {
                        found = run.finding.map(|finding| (finding, turns.to_vec()));
                    }
                    let before = level.len() + next.len();
                    for point in run.points {
                        let known = seen.get(&point.key).is_some_and(|least| *least <= node.deviations);
                        if known {
                            // What comes behind was searched from there.
                            break;
                        }
                        seen.insert(point.key, node.deviations);
                        for alternative in point.alternatives {
                            let cost = node.deviations + u32::from(alternative.costs);
                            let step = Some((alternative.vcpu, alternative.freedom));
                            let child = Node { run: Arc::clone(&turns), before: point.before, step, deviations: cost };
                            if cost == deviations {
                                level.push(child);
                            } else if cost <= self.options.preemptions {
                                next.push(child);
                            } else {
                                cut = true;
                            }
                        }
                    }
                    if level.len() + next.len() > before {
                        kept += turns.len();
                    }
                }
                if let Some(found) = found {
                    let states = seen.len() as u64;
                    return Pass::Done(Exhausted { runs, states, points, bound, complete: false, found: Some(found) });
                }
                if self.knowledge.choices(self.options.store_buffers) != choices {
                    self.gathering += runs;
                    return Pass::Again;
                }
            }
            bound = Some(deviations);
            level = next;
        }
        Pass::Done(Exhausted { runs, states: seen.len() as u64, points, bound, complete: !cut, found: None })
    }

    /// Random runs with what is left of the budget. Nothing where one does not come to an end.
    fn randomly(&mut self) -> Option<(u64, Option<Found>)> {
        let choices = self.knowledge.choices(self.options.store_buffers);
        let mut made = 0;
        while self.left() > 0 {
            let count = self.left().min(BATCH as u64);
            let plans: Vec<Plan> = (0..count).map(|number| self.plan(GATHERING + made + number)).collect();
            let runs = self.batch(&plans, &choices, |plan, choices| (Vec::new(), Then::Priorities(plan.priorities(choices))));
            made += count;
            for run in &runs {
                self.knowledge.steps = self.knowledge.steps.max(run.steps);
            }
            if runs.iter().any(|run| run.endless) {
                return None;
            }
            if let Some(found) = runs.into_iter().find_map(|run| run.finding.map(|finding| (finding, run.turns))) {
                return Some((made, Some(found)));
            }
        }
        Some((made, None))
    }

    /// The random choices of a run.
    fn plan(&self, number: u64) -> Plan {
        Plan { seed: self.options.seed, number, vcpus: self.subject.config.vcpus, steps: self.knowledge.steps.max(1) }
    }
}

/// What the random choices of a run follow from.
struct Plan {
    seed: u64,
    number: u64,
    vcpus: u32,
    steps: u64,
}

impl Plan {
    fn priorities<'c>(&self, choices: &'c Choices) -> Priorities<'c> {
        // Neighbouring numbers have nothing in common.
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut draw = || cpu::random::split_mix_64(&mut state);
        // Above all that priorities fall to; equal ones go to the higher number.
        let of = (0..self.vcpus).map(|_| u64::from(DEPTH) + draw() % (1 << 32)).collect();
        let mut changes: Vec<u64> = (1..DEPTH).map(|_| draw() % self.steps).collect();
        changes.sort_unstable();
        Priorities { choices, random: draw() | 1, of, changes }
    }
}

/// Why a guest with such a run cannot be searched.
fn endless() -> String {
    format!("a run takes more than {MOST_STEPS} steps: make the guest shorter, or give the scenario a lower limit of instructions")
}

/// How many turns of a schedule are deviations, as far as the schedule alone tells: all but the first that end in a preemption or a freedom.
pub(super) fn count_deviations(turns: &[Turn]) -> u32 {
    // That a store becomes visible is nobody's turn.
    let goes_on: Vec<u32> = turns.iter().filter(|turn| !(turn.freedom.drain && turn.steps == 1)).map(|turn| turn.vcpu).collect();
    let switches = goes_on.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let freedoms = turns.iter().filter(|turn| turn.freedom.is_used()).count();
    (switches + freedoms) as u32
}
