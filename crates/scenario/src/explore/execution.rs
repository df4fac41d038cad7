//! One run of a subject from its beginning: along a schedule, and then in the plain order or by priorities.

use super::Subject;
use super::knowledge::{Choices, Knowledge};
use crate::diagnostic::Diagnostics;
use crate::host::{Ending, Host};
use crate::invariants::{Monitor, Violation};
use crate::observe::Observer;
use crate::run::{End, limits_of};
use crate::verdict;
use crate::virtual_host::{VirtualHost, bounds_of};
use cpu::freedom::Part;
use hypervisor::{Freedom, Order, Schedule, StepKind, Stop, Turn};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use trace::{Record, Tee};

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An invariant, at a step.
    Invariant(Violation),
    /// What the scenario expects at the end: the failures in words.
    Expectation(Vec<String>),
    /// The run ended in something that is not modelled.
    NotModelled(String),
}

impl Finding {
    /// What does not hold, for comparing findings.
    pub fn name(&self) -> String {
        match self {
            Self::Invariant(violation) => violation.invariant.name(),
            Self::Expectation(_) => "expect".to_owned(),
            Self::NotModelled(_) => "unsupported".to_owned(),
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Invariant(violation) => format!("{}: {}", violation.invariant.name(), violation.detail),
            Self::Expectation(failures) => format!("expect: {}", failures.join("; ")),
            Self::NotModelled(what) => format!("unsupported: {what}"),
        }
    }
}

/// What else could have been done at a point of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative {
    pub vcpu: u32,
    pub freedom: Freedom,
    /// It is a deviation.
    pub costs: bool,
}

/// A point of a run where something could have been chosen.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// How many turns of the run there were before it, and how many steps of the last of them.
    pub before: (usize, u64),
    /// The state, and whose turn it is.
    pub key: u128,
    pub alternatives: Vec<Alternative>,
}

/// How a run goes on behind its schedule.
pub(super) enum Then<'p> {
    /// In the plain order; choice points are told of. It ends at one whose state was seen with as few deviations: what comes behind is known.
    Plain { choices: &'p Choices, seen: &'p BTreeMap<u128, u32>, deviations: u32 },
    /// By priorities, without choice points.
    Priorities(Priorities<'p>),
    /// In the plain order, without choice points: to see what comes of it.
    Replay,
}

/// Probabilistic concurrency testing: the runnable virtual CPU of the highest priority goes on; at random steps the one that does gets
/// the lowest.
pub(super) struct Priorities<'p> {
    pub choices: &'p Choices,
    pub random: u64,
    /// By virtual CPU, higher first.
    pub of: Vec<u64>,
    /// Steps at which the priority of who goes on falls, in ascending order.
    pub changes: Vec<u64>,
}

impl Priorities<'_> {
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % below.max(1)
    }
}

/// What came of a run.
pub(super) struct Run {
    /// What was done.
    pub turns: Vec<Turn>,
    /// Behind the schedule, in order.
    pub points: Vec<Point>,
    pub finding: Option<Finding>,
    pub knowledge: Knowledge,
    pub steps: u64,
    /// It took [`MOST_STEPS`], and was not over.
    pub endless: bool,
}

/// The turns in front of a point of a run.
pub(super) fn turns_before(turns: &[Turn], (count, steps): (usize, u64)) -> Vec<Turn> {
    let mut before = turns[..count].to_vec();
    if let Some(last) = before.last_mut()
        && last.steps != steps
    {
        // What its last step makes use of came later.
        (last.steps, last.freedom) = (steps, Freedom::default());
    }
    before
}

/// The most steps of a run that is searched.
pub(super) const MOST_STEPS: u64 = 1 << 16;

/// A subject that was loaded: what every run is a fork of.
pub(super) struct Loaded {
    host: VirtualHost,
    monitor: Monitor,
}

impl Loaded {
    pub fn new(subject: &Subject<'_>) -> Result<Self, String> {
        let mut host = subject.host()?;
        let vm = host.vm_mut().ok_or("there is no guest")?;
        let monitor = Monitor::new(&subject.wanted, subject.variant.policy, vm);
        Ok(Self { host, monitor })
    }

    /// A fork that another thread may have.
    pub fn fork(&mut self) -> Self {
        Self { host: self.host.fork_host(), monitor: self.monitor.clone() }
    }

    /// Runs it to its end. It is used up.
    pub fn run(mut self, subject: &Subject<'_>, schedule: &[Turn], mut then: Then<'_>) -> Run {
        let expectations = verdict::applicable(subject.scenario, subject.variant);
        let expects: Vec<_> = expectations.iter().map(|(_, expect)| *expect).collect();
        let mut observer = Observer::new(&expects, 0, None);
        let bounds = bounds_of(&limits_of(subject.scenario));
        let mut run =
            Run { turns: Vec::new(), points: Vec::new(), finding: None, knowledge: Knowledge::default(), steps: 0, endless: false };
        let mut script = Schedule::new(schedule.to_vec());
        let mut order = Order::default();
        let ending = loop {
            let Some(vm) = self.host.vm_mut() else { break Ending::new(crate::file::Stop::Unsupported, "there is no guest") };
            if let Some(outcome) = vm.board().outcome() {
                break VirtualHost::ending(Stop::Outcome(outcome));
            }
            if run.steps >= MOST_STEPS {
                run.endless = true;
                return run;
            }
            if vm.instructions() >= bounds.instructions {
                break VirtualHost::ending(Stop::InstructionLimit);
            }
            if vm.statistics().exits >= bounds.exits {
                break VirtualHost::ending(Stop::ExitLimit);
            }
            let ready = match vm.ready(&bounds) {
                Ok(ready) => ready,
                Err(stop) => break VirtualHost::ending(stop),
            };
            let buffers: Vec<bool> = (0..ready.len() as u32).map(|vcpu| vm.buffers_stores(vcpu)).collect();
            let Some((plain, by_itself)) = order.next(&ready, &buffers) else {
                break VirtualHost::ending(Stop::CycleLimit);
            };
            let waiting = Waiting { ready: &ready, buffers: &buffers };
            let (vcpu, freedom) = match script.turn(&ready) {
                Some((vcpu, freedom)) => (vcpu as u32, freedom),
                None => match &mut then {
                    Then::Replay => (plain as u32, by_itself),
                    Then::Plain { choices, seen, deviations } => {
                        if let Some(alternatives) = alternatives(vm, choices, &order, &waiting, plain as u32, &by_itself) {
                            let key = key(vm, &self.monitor, &observer, &order, (plain as u32, by_itself.drain));
                            let before = (run.turns.len(), run.turns.last().map_or(0, |turn| turn.steps));
                            run.points.push(Point { before, key, alternatives });
                            if seen.get(&key).is_some_and(|least| least <= deviations) {
                                run.knowledge.steps = run.steps;
                                return run;
                            }
                        }
                        (plain as u32, by_itself)
                    }
                    Then::Priorities(priorities) => by_priority(vm, priorities, &order, &waiting, run.steps),
                },
            };
            let place = vm.guest_place(vcpu);
            let mut records: Vec<Record> = Vec::new();
            let outcome = vm.step(vcpu, &freedom, &bounds, &mut Tee(&mut records, &mut observer));
            append(&mut run.turns, Turn { vcpu, steps: 1, freedom });
            run.steps += 1;
            let step = match outcome {
                Ok(step) => step,
                Err(stop) => break VirtualHost::ending(stop),
            };
            run.knowledge.note(&step, place);
            order.note(vcpu as usize, step.kind, step.pauses);
            if step.kind == StepKind::Rest {
                order.yields = false;
            }
            if let Some(violation) = self.monitor.look(vm, &step, &records).into_iter().next() {
                run.finding = Some(Finding::Invariant(violation));
                break Ending::new(crate::file::Stop::Script, "an invariant does not hold");
            }
        };
        run.knowledge.steps = run.steps;
        if run.finding.is_none() {
            run.finding = self.judge(subject, &expectations, &observer, ending);
        }
        run
    }

    /// Whether what the scenario expects came true.
    fn judge(
        &mut self,
        subject: &Subject<'_>,
        expectations: &[(Vec<String>, &crate::file::Expect)],
        observer: &Observer<'_>,
        ending: Ending,
    ) -> Option<Finding> {
        let registers = (0..self.host.vcpus()).map(|vcpu| self.host.registers(vcpu)).collect();
        let serial = self.host.take_serial();
        let detail = ending.detail.clone();
        let unsupported = ending.stop == crate::file::Stop::Unsupported;
        let end = End { registers, host: &self.host, serial, moves: Vec::new(), ending, violations: None };
        let failures: Diagnostics = verdict::judge(subject.scenario, subject.variant, expectations, observer, &end);
        let expects_it = expectations.iter().any(|(_, expect)| expect.stop == Some(crate::file::Stop::Unsupported));
        if unsupported && !expects_it {
            return Some(Finding::NotModelled(detail));
        }
        let words: Vec<String> = failures.list.iter().map(|failure| failure.message.clone()).collect();
        (!words.is_empty()).then_some(Finding::Expectation(words))
    }
}

/// Adds steps to the turns; a turn ends where its virtual CPU changes, or behind the use of a freedom.
pub(super) fn append(turns: &mut Vec<Turn>, more: Turn) {
    match turns.last_mut() {
        Some(last) if last.vcpu == more.vcpu && !last.freedom.is_used() => {
            last.steps += more.steps;
            last.freedom = more.freedom;
        }
        _ => turns.push(more),
    }
}

/// Who waits for what at a point of a run.
struct Waiting<'w> {
    /// Who can take a step.
    ready: &'w [bool],
    /// In whose store buffer something waits.
    buffers: &'w [bool],
}

/// What could be done instead of the plain order's step, which is `by_itself` of `plain`; `None` where nothing else matters.
fn alternatives(
    vm: &hypervisor::AnyVm,
    choices: &Choices,
    order: &Order,
    waiting: &Waiting<'_>,
    plain: u32,
    by_itself: &Freedom,
) -> Option<Vec<Alternative>> {
    let &Waiting { ready, buffers } = waiting;
    let current = order.vcpu as u32;
    // Whoever waits lets another one go on for nothing, but what it has not yet let others see becomes visible first.
    let free = (plain != current || order.yields) && !by_itself.drain;
    let place = vm.guest_place(plain);
    let empties = |place| buffers[plain as usize] && choices.empties(place);
    let visible = free
        || by_itself.drain
        || vm.is_in_host(plain)
        || vm.holds_back(plain)
        || place.is_some_and(|place| choices.is_visible(place) || empties(place));
    if !visible {
        return None;
    }
    let others = (0..ready.len() as u32).filter(|vcpu| *vcpu != plain && ready[*vcpu as usize]);
    // Going on with one that says that it waits leads nowhere that its next look would not.
    let others = others.filter(|vcpu| !(free && *vcpu == current));
    let mut found: Vec<Alternative> = others.map(|vcpu| Alternative { vcpu, freedom: Freedom::default(), costs: !free }).collect();
    if !by_itself.drain {
        found.extend(freedoms(vm, choices, plain, place).into_iter().map(|freedom| Alternative { vcpu: plain, freedom, costs: true }));
    }
    // The oldest store that waits anywhere may become visible now.
    let drains = (0..buffers.len() as u32).filter(|vcpu| buffers[*vcpu as usize] && !(by_itself.drain && *vcpu == plain));
    found.extend(drains.map(|vcpu| Alternative { vcpu, freedom: Freedom::drain(), costs: true }));
    (!found.is_empty()).then_some(found)
}

/// The freedoms of the next step of a virtual CPU.
fn freedoms(vm: &hypervisor::AnyVm, choices: &Choices, vcpu: u32, place: Option<u64>) -> Vec<Freedom> {
    let mut found = Vec::new();
    if vm.holds_back(vcpu) {
        return found;
    }
    // Out of its guest a processor has fetched nothing of it ahead.
    let stale = |place| {
        choices
            .may_be_stale(place, vcpu)
            .filter(|other| !vm.is_in_host(*other))
            .map(|other| Freedom { stale: vec![other], ..Freedom::default() })
    };
    if let Some(bytes) = vm.next_piece(vcpu).filter(|bytes| *bytes > 0) {
        found.extend((1..bytes as u8).map(|bytes| Freedom { bytes: Some(bytes), ..Freedom::default() }));
        found.extend(stale(None));
    } else if let Some(place) = place {
        let split = choices.may_split(place).then_some([Some(Part::Low), Some(Part::High)]);
        let splits = || split.into_iter().flatten();
        found.extend(splits().map(|split| Freedom { split, ..Freedom::default() }));
        found.extend(stale(Some(place)));
        // Behind one that waits every store does.
        if choices.may_buffer(place) && !vm.buffers_stores(vcpu) {
            found.extend(std::iter::once(None).chain(splits()).map(|split| Freedom { split, buffer: true, ..Freedom::default() }));
        }
    }
    found
}

/// What the run's future follows from.
fn key(vm: &mut hypervisor::AnyVm, monitor: &Monitor, observer: &Observer<'_>, order: &Order, plain: (u32, bool)) -> u128 {
    let mut low = DefaultHasher::new();
    vm.fingerprint(monitor.loaded(), &mut low);
    monitor.fingerprint(&mut low);
    observer.fingerprint(&mut low);
    (order.vcpu, order.yields, plain).hash(&mut low);
    let first = low.finish();
    // The second half is the hash of the same, continued.
    0x5eed_u64.hash(&mut low);
    u128::from(first) << 64 | u128::from(low.finish())
}

/// The next step by priorities.
fn by_priority(vm: &hypervisor::AnyVm, priorities: &mut Priorities<'_>, order: &Order, waiting: &Waiting<'_>, step: u64) -> (u32, Freedom) {
    let &Waiting { ready, buffers } = waiting;
    let highest = |priorities: &Priorities<'_>, but: Option<usize>| {
        (0..ready.len()).filter(|vcpu| ready[*vcpu] && Some(*vcpu) != but).max_by_key(|vcpu| priorities.of[*vcpu])
    };
    let waits = (order.yields || order.run >= hypervisor::PATIENCE).then_some(order.vcpu);
    // No store waits for ever.
    if waits.is_some_and(|vcpu| ready[vcpu] && buffers[vcpu]) && priorities.draw(4) != 0 {
        return (order.vcpu as u32, Freedom::drain());
    }
    let mut chosen = highest(&*priorities, waits).or_else(|| highest(&*priorities, None)).unwrap_or(0);
    while priorities.changes.first().is_some_and(|change| *change <= step) {
        // Lower than all so far: those that fell before fell to higher numbers.
        priorities.of[chosen] = priorities.changes.len() as u64 - 1;
        priorities.changes.remove(0);
        chosen = highest(&*priorities, waits).or_else(|| highest(&*priorities, None)).unwrap_or(0);
    }
    let vcpu = chosen as u32;
    let mut offered = freedoms(vm, priorities.choices, vcpu, vm.guest_place(vcpu));
    offered.extend(buffers[chosen].then(Freedom::drain));
    // One chance in four to make use of one that is offered.
    let pick = priorities.draw(4 * offered.len().max(1) as u64) as usize;
    (vcpu, offered.get(pick).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turns_before_a_point_are_those_that_a_run_had_there() {
        let stale = Freedom { stale: vec![1], ..Freedom::default() };
        let steps = [(0, Freedom::default()), (0, stale), (0, Freedom::default()), (0, Freedom::default()), (1, Freedom::default())];
        let (mut turns, mut points) = (Vec::new(), Vec::new());
        for (vcpu, freedom) in steps {
            points.push(((turns.len(), turns.last().map_or(0, |turn: &Turn| turn.steps)), turns.clone()));
            append(&mut turns, Turn { vcpu, steps: 1, freedom });
        }
        for (before, then) in points {
            assert_eq!(turns_before(&turns, before), then);
        }
    }
}
