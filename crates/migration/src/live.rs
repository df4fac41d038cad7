//! A move from offer to hand-over: two hosts, the link and the guest on one timeline, the cycles of the source's processors.
//!
//! The loop asks what happens next (a frame arrives, a timer runs out, the sender can send again), lets the guest run until then on the side
//! that may run it, and lets it happen. Nothing of it depends on the host that simulates.

mod destination_side;
mod ending;
mod mend;
mod source_side;

use crate::fault::{AnyFault, Fault, FaultKind, HostFault};
use crate::link::{Link, LinkSettings, Side, cycles_of};
use crate::offer::{self, MissingFeatures};
use crate::protocol::destination::{self, Destination};
use crate::protocol::source::{self, Source};
use crate::protocol::{Offer, Session};
use crate::receiver::Incoming;
use crate::report::{At, Mark, Report, Round};
use crate::sender::Outgoing;
use crate::transport::Transport;
use ending::fate;
use hypervisor::live::Departure;
use hypervisor::{AnyVm, Limits, PauseId, Policy, Statistics, Stop};
pub use mend::Mend;
use models::CpuModel;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use stream::Section;
use trace::{Event, Sink};

/// How memory travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Before the guest is handed over.
    #[default]
    PreCopy,
    /// One pass before, and the rest after.
    PostCopy,
}

impl Mode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
        }
    }
}

/// What is done about a guest that writes faster than its memory travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convergence {
    /// It is throttled, more and more, and after the last round given up (QEMU's `auto-converge`).
    #[default]
    Throttle,
    /// After the last round the move is given up.
    GiveUp,
    /// After the last round it is paused, however long the rest takes.
    Pause,
    /// After the last round it is handed over, and the rest follows.
    PostCopy,
}

/// How a guest is moved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The processor model of the destination.
    pub to: &'static CpuModel,
    /// The hypercall policy there; `None`: the same.
    pub policy: Option<Policy>,
    /// How memory travels.
    pub mode: Mode,
    /// The link.
    pub link: LinkSettings,
    /// The most nanoseconds that the guest may be paused.
    pub downtime: u64,
    /// The most rounds.
    pub rounds: u32,
    /// What is done if that is not enough.
    pub convergence: Convergence,
    /// Percent of the time for which virtual CPUs are held from the start, up to 99, so that a guest of few instructions is not over before its
    /// memory has travelled.
    pub throttle: u8,
    /// Whether the destination takes a guest that was told of features that its processors lack.
    pub missing_features: MissingFeatures,
    /// What goes wrong.
    pub faults: Vec<AnyFault>,
    /// What a person does if the guest is stranded.
    pub mend: Option<Mend>,
    /// Number of the attempt: of one guest it only grows.
    pub session: u64,
}

impl Settings {
    /// A move to a model, with what QEMU would take: 300 ms, pre-copy.
    pub fn new(to: &'static CpuModel) -> Self {
        Self {
            to,
            policy: None,
            mode: Mode::PreCopy,
            link: LinkSettings::default(),
            downtime: 300_000_000,
            rounds: 30,
            convergence: Convergence::Throttle,
            throttle: 0,
            missing_features: MissingFeatures::Refuse,
            faults: Vec::new(),
            mend: None,
            session: 1,
        }
    }
}

/// What came of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest runs at the destination, and the source knows it.
    Moved,
    /// It runs at the destination, and the source, which does not know, keeps its paused copy.
    MovedInDoubt,
    /// It runs at the source.
    Stayed,
    /// It runs nowhere.
    Stranded,
    /// The guest's own run was over before the move was.
    Over(Stop),
}

/// A move that is over.
#[derive(Debug)]
pub struct Outcome {
    /// The guest, where it runs; where it runs nowhere, what is left of it.
    pub vm: Option<AnyVm>,
    /// What came of it.
    pub ending: Ending,
    /// What it was like, with the ending in words.
    pub report: Report,
    /// Pauses that were asked for and whose moments came on the way. The guest does not stop for them again.
    pub passed: Vec<PauseId>,
    /// Where nothing is left of the guest: how many instructions it had executed, and its counts.
    pub last: Option<(u64, Statistics)>,
}

/// Share of the time for which virtual CPUs are held at first, and by how much it grows, in percent: QEMU's `cpu-throttle-initial` and
/// `cpu-throttle-increment`.
const THROTTLE: (u8, u8) = (20, 10);
/// The most: QEMU's `max-cpu-throttle`.
const MOST_THROTTLE: u8 = 99;
/// For how long a throttled virtual CPU runs before it is held. QEMU has ten milliseconds; this suits guests that are moved in less (assumed).
const THROTTLE_SLICE: u64 = 100_000;
/// The same where it is held from the start: some VM exits and some hundred instructions (assumed).
const EARLY_SLICE: u64 = 2_000;
/// How often a person connects two hosts again before there is no use in it.
const RECONNECTIONS: u32 = 8;
/// Nanoseconds, and times the latency besides, after which a source that waits for an answer and hears nothing gives up (assumed; QEMU waits
/// for as long as TCP does).
const PATIENCE: (u64, u64) = (10_000_000, 100);

struct Live<'s> {
    settings: &'s Settings,
    limits: Limits,
    sink: &'s mut dyn Sink,
    hertz: u64,
    now: u64,
    size: u64,
    source: Source,
    destination: Destination,
    vm: Option<AnyVm>,
    incoming: Incoming,
    judge: offer::Destination<'s>,
    offer: Offer,
    departure: Option<Departure>,
    link: Link,
    ends: [Transport; 2],
    given_up: [bool; 2],
    host_faults: Vec<HostFault>,
    outgoing: Outgoing,
    parts: VecDeque<Section>,
    copying: bool,
    stopping: bool,
    handing_over_late: bool,
    busy_until: u64,
    round: Round,
    bytes_at_round: u64,
    waiting_for_round: bool,
    high_rounds: u32,
    throttle: u8,
    /// For how long a throttled virtual CPU runs before it is held, and until when it does now.
    slice: u64,
    slice_end: u64,
    why: Option<String>,
    over: Option<Stop>,
    passed: Vec<PauseId>,
    last: Option<(u64, Statistics)>,
    /// When the source last heard anything of the destination.
    heard: u64,
    report: Report,
}

/// Moves a guest. It runs meanwhile, within limits; the trace gets what it does and what the two hosts say.
pub fn migrate(vm: AnyVm, settings: &Settings, limits: &Limits, sink: &mut dyn Sink) -> Outcome {
    Live::new(vm, settings, limits, sink).run()
}

impl<'s> Live<'s> {
    fn new(vm: AnyVm, settings: &'s Settings, limits: &Limits, sink: &'s mut dyn Sink) -> Self {
        let hertz = vm.model().tsc_hz;
        let mut link_faults: Vec<Fault> = Vec::new();
        let mut host_faults = Vec::new();
        for fault in &settings.faults {
            match fault {
                AnyFault::Link(fault) => link_faults.push(fault.clone()),
                AnyFault::Host(fault) => host_faults.push(fault.clone()),
            }
        }
        let link = Link::new(settings.link, hertz, link_faults);
        let ends = [Transport::new(Side::Source, settings.session, &link), Transport::new(Side::Destination, settings.session, &link)];
        let size = vm.ram().last().map_or(0, |range| range.end);
        let offer = Offer::of(&vm, settings);
        let judge = offer::Destination::new(settings, vm.options().paging);
        let now = vm.cycles();
        let report = Report {
            from: vm.model().name.to_owned(),
            to: settings.to.name.to_owned(),
            hertz,
            mode: settings.mode,
            start: now,
            ..Report::default()
        };
        Self {
            settings,
            limits: *limits,
            sink,
            hertz,
            now,
            size,
            source: Source::new(Session { number: settings.session, destination: 1 }, offer.post_copy),
            destination: Destination::new(1),
            vm: Some(vm),
            incoming: Incoming::default(),
            judge,
            offer,
            departure: None,
            link,
            ends,
            given_up: [false; 2],
            host_faults,
            outgoing: Outgoing::default(),
            parts: VecDeque::new(),
            copying: false,
            stopping: false,
            handing_over_late: false,
            busy_until: now,
            round: Round::default(),
            bytes_at_round: 0,
            waiting_for_round: false,
            high_rounds: 0,
            throttle: settings.throttle.min(MOST_THROTTLE),
            slice: cycles_of(if settings.throttle > 0 { EARLY_SLICE } else { THROTTLE_SLICE }, hertz),
            slice_end: 0,
            why: None,
            over: None,
            passed: Vec::new(),
            last: None,
            heard: now,
            report,
        }
    }

    fn run(mut self) -> Outcome {
        self.source_takes(source::Input::Begin);
        let mut ending = self.go_on();
        if let Some(mend) = self.settings.mend {
            for _ in 0..RECONNECTIONS {
                if !self.mend(&ending, mend) {
                    break;
                }
                ending = self.go_on();
            }
        }
        self.finish(ending)
    }

    /// Lets everything happen that happens by itself.
    fn go_on(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.ending() {
                return ending;
            }
            self.produce();
            if let Some(ending) = self.ending() {
                return ending;
            }
            let Some(next) = self.next_time() else { return self.at_a_standstill() };
            self.run_guest(next);
            if self.over.is_some() {
                return self.guest_is_over();
            }
            // What the guest asked for while it ran comes first.
            let next = self.next_time().map_or(next, |time| time.min(next));
            self.now = self.now.max(next);
            while let Some(arrival) = self.link.take_arrival(self.now) {
                self.arrived(arrival.at, &arrival.bytes);
            }
            self.tick();
            self.tell_incidents();
        }
    }

    /// The invariant, looked at behind every step of either machine.
    fn hold_to_the_invariant(&self) {
        let (source, destination) = (&self.source, &self.destination);
        assert!(!(source.has_right() && destination.may_run()), "two sides have the right to run the guest: {source:?}, {destination:?}");
    }

    // ---- Time -----------------------------------------------------------------------------------------------------------------------

    /// When something happens next; `None` if nothing ever will.
    fn next_time(&self) -> Option<u64> {
        let deadlines = [Side::Source, Side::Destination].into_iter().filter(|side| !self.is_silent(*side));
        let deadlines = deadlines.filter_map(|side| self.ends[side as usize].deadline());
        let produces = self.has_something_to_send().then(|| self.busy_until.max(self.link.free_at(Side::Source)));
        let repair = self.link.down_until().filter(|until| *until != u64::MAX && *until > self.now && self.given_up != [false; 2]);
        let times = self.link.next_arrival().into_iter().chain(deadlines).chain(produces).chain(repair).chain(self.patience_ends());
        times.min().map(|time| time.max(self.now))
    }

    /// Whether a side says nothing any more.
    fn is_silent(&self, side: Side) -> bool {
        let dead = match side {
            Side::Source => self.source.state() == source::State::Dead,
            Side::Destination => self.destination.state() == destination::State::Dead,
        };
        dead || self.given_up[side as usize]
    }

    /// When a source that waits for an answer gives up, as it may before the commit.
    fn patience_ends(&self) -> Option<u64> {
        let waits = match self.source.state() {
            source::State::Offered | source::State::Stopped => true,
            source::State::Copying => self.waiting_for_round,
            _ => false,
        };
        let patience = cycles_of(PATIENCE.0, self.hertz).saturating_add(self.link.latency().saturating_mul(PATIENCE.1));
        waits.then(|| self.heard.saturating_add(patience))
    }

    fn has_something_to_send(&self) -> bool {
        if !self.ends[0].has_room() || self.given_up[0] || self.source.state() == source::State::Dead {
            return false;
        }
        match self.source.state() {
            source::State::Copying => self.copying && !self.waiting_for_round,
            source::State::Serving => !self.outgoing.is_empty() || self.handing_over_late,
            _ => false,
        }
    }

    /// Lets the guest run up to a time where it may.
    fn run_guest(&mut self, until: u64) {
        let throttled = self.throttle > 0 && self.source.may_run();
        loop {
            let (vm, at_source) = match (self.source.may_run(), self.destination.may_run()) {
                (true, _) => (&mut self.vm, true),
                (false, true) => (&mut self.incoming.vm, false),
                (false, false) => return,
            };
            let Some(vm) = vm else { return };
            let mut end = until.min(self.limits.cycles);
            if throttled && at_source {
                end = end.min(self.slice_end);
            }
            let stop = vm.run(self.sink, &Limits { cycles: end, ..self.limits });
            match stop {
                Stop::CycleLimit if end == self.limits.cycles && end < until => self.over = Some(Stop::CycleLimit),
                Stop::CycleLimit if throttled && at_source && end < until => {
                    // Held for the share of the time that is asked for.
                    let slice = self.slice;
                    let held = slice * u64::from(self.throttle) / u64::from(100 - self.throttle.min(MOST_THROTTLE));
                    if let Err(stop) = vm.hold(held, self.sink) {
                        self.over = Some(stop);
                        return;
                    }
                    self.slice_end = vm.cycles().saturating_add(slice);
                    continue;
                }
                // Whoever asked for it is told when the move is over.
                Stop::Paused(pause) => {
                    self.passed.push(pause);
                    continue;
                }
                // A guest that sleeps for good is moved asleep.
                Stop::CycleLimit | Stop::Waiting | Stop::Halted => {}
                Stop::PageWanted { vcpu, frame } => {
                    let at = vm.cycles_of(vcpu);
                    self.now = self.now.max(at.min(until));
                    self.report.fetched += 1;
                    self.destination_takes(destination::Input::Missing { frame });
                }
                other => self.over = Some(other),
            }
            return;
        }
    }

    fn tick(&mut self) {
        for (side, index) in [(Side::Source, 0), (Side::Destination, 1)] {
            if self.is_silent(side) {
                continue;
            }
            if self.ends[index].tick(self.now, &mut self.link) {
                self.given_up[index] = true;
                self.mark(side, "gives the link up".to_owned());
                if side == Side::Source {
                    self.why.get_or_insert_with(|| "the link is down".to_owned());
                    self.source_takes(source::Input::LinkDown);
                }
            }
        }
        let mended = self.link.down_until().is_some_and(|until| until != u64::MAX && until <= self.now);
        if mended && self.given_up != [false; 2] {
            for (given_up, end) in self.given_up.iter_mut().zip(&mut self.ends) {
                if std::mem::take(given_up) {
                    end.reconnect(self.now, &mut self.link);
                }
            }
            self.mark(Side::Source, "there is a link again".to_owned());
        }
        if self.patience_ends().is_some_and(|end| end <= self.now) {
            self.why.get_or_insert_with(|| "the destination does not answer".to_owned());
            self.source_takes(source::Input::GiveUp);
        }
    }

    // ---- What is told -------------------------------------------------------------------------------------------------------------------

    fn mark(&mut self, side: Side, what: String) {
        self.sink.emit(self.now, 0, Event::Handover { side: side.name(), what: what.clone() });
        self.report.marks.push(Mark { cycle: self.now, at: side.into(), what });
    }

    fn tell_incidents(&mut self) {
        for (cycle, incident) in self.link.take_incidents() {
            let what = incident.kind.name();
            self.sink.emit(cycle, 0, Event::LinkFault { what, message: incident.message.clone() });
            let what = match incident.kind {
                FaultKind::Cut { nanoseconds: None } => format!("{what} {} for good", incident.message),
                _ => format!("{what} {}", incident.message),
            };
            self.report.marks.push(Mark { cycle, at: At::Link, what });
        }
    }
}
