//! What the source does in a move: rounds, the pause, the frames that it sends.

use super::{Convergence, Live, MOST_THROTTLE, Mode, THROTTLE};
use crate::fault::HostFault;
use crate::link::{Side, nanoseconds_of};
use crate::protocol::destination;
use crate::protocol::{Order, source};
use crate::report::{HOST_DIES, Round};
use crate::sender::{Outgoing, pages_section};
use crate::wire::Message;
use hypervisor::live::Departure;
use std::collections::{BTreeSet, VecDeque};
use stream::Section;
use timing::TICKS_PER_CYCLE;
use trace::Event;

impl Live<'_> {
    pub(super) fn source_takes(&mut self, input: source::Input) {
        let before = self.source.state();
        let actions = self.source.take(input);
        self.hold_to_the_invariant();
        if self.source.state() != before {
            match self.source.state() {
                source::State::Failed => self.mark(Side::Source, "the guest goes on here".to_owned()),
                source::State::Dead => self.mark(Side::Source, HOST_DIES.to_owned()),
                source::State::Done => self.mark(Side::Source, "frees the guest".to_owned()),
                _ => {}
            }
        }
        for action in actions {
            match action {
                source::Action::Say(order) => self.say(order),
                source::Action::Copy => self.begin_copy(),
                source::Action::Pause => self.pause(),
                source::Action::Resume => self.resume(),
                source::Action::Send { frame } => self.outgoing.urge(frame),
                source::Action::Push => self.handing_over_late = true,
                source::Action::Free => {
                    self.vm = None;
                    self.departure = None;
                }
            }
        }
    }

    pub(super) fn say(&mut self, order: Order<()>) {
        let name = match &order {
            Order::Offer => "offer",
            Order::Piece { .. } => return,
            Order::Round { .. } => "round",
            Order::Stop { .. } => "stop",
            Order::Commit => "commit",
            Order::Finish { .. } => "finish",
            Order::Abort => "abort",
        };
        let order = match order {
            Order::Offer | Order::Piece { .. } => Order::Offer,
            Order::Round { round, pieces } => Order::Round { round, pieces },
            Order::Stop { pieces } => Order::Stop { pieces },
            Order::Commit => Order::Commit,
            Order::Finish { pieces } => Order::Finish { pieces },
            Order::Abort => Order::Abort,
        };
        let offer = (name == "offer").then(|| self.offer.clone());
        self.send(Side::Source, name, &Message::Order(order, offer));
    }

    /// Sends a message, unless the host dies first.
    pub(super) fn send(&mut self, side: Side, name: &str, message: &Message) {
        let of_source = side == Side::Source;
        if !matches!(name, "round" | "received" | "want") {
            self.mark(side, format!("says {name}"));
        }
        if self.dies(of_source, name, false) {
            return;
        }
        match message.section(self.settings.session) {
            Ok(section) => self.ends[side as usize].send(self.now, &section, &mut self.link),
            Err(error) => self.mark(side, format!("cannot say {name}: {error}")),
        }
        self.dies(of_source, name, true);
    }

    pub(super) fn dies(&mut self, of_source: bool, name: &str, behind: bool) -> bool {
        let hit = self.host_faults.iter().any(|fault| match fault {
            HostFault::Dies { source, message } => !behind && *source == of_source && message == name,
            HostFault::DiesAfter { source, message } => behind && *source == of_source && message == name,
            _ => false,
        });
        if hit {
            let host = if of_source { "source" } else { "destination" };
            let place = if behind { "behind" } else { "in front of" };
            self.why = Some(format!("the {host}'s host died {place} the message `{name}`"));
            self.die(if of_source { Side::Source } else { Side::Destination });
        }
        hit
    }

    /// A host dies, with what it has of the guest.
    pub(super) fn die(&mut self, side: Side) {
        let lost = match side {
            Side::Source => {
                self.source_takes(source::Input::Die);
                self.vm.take()
            }
            Side::Destination => {
                self.destination_takes(destination::Input::Die);
                self.incoming.vm.take()
            }
        };
        self.last = lost.map(|vm| (vm.instructions(), vm.statistics())).or(self.last);
    }

    pub(super) fn begin_copy(&mut self) {
        let Some(vm) = &mut self.vm else { return };
        match vm.start_dirty_log(self.sink) {
            Ok(cycles) => self.busy_until = self.busy_until.max(self.now) + cycles,
            Err(stop) => {
                self.over = Some(stop);
                return;
            }
        }
        let frames: Vec<u64> = vm.ram().into_iter().flat_map(|range| range.start >> 12..range.end >> 12).collect();
        self.outgoing = Outgoing::of(frames);
        self.copying = true;
        self.begin_round();
    }

    pub(super) fn begin_round(&mut self) {
        self.heard = self.now;
        self.round = Round { number: self.source.round() + 1, start: self.now, throttle: self.throttle, ..Round::default() };
        self.bytes_at_round = self.link.bytes(Side::Source);
        self.waiting_for_round = false;
    }

    /// What the source sends by itself, one frame at a time.
    pub(super) fn produce(&mut self) {
        while self.has_something_to_send() && self.busy_until.max(self.link.free_at(Side::Source)) <= self.now && self.over.is_none() {
            if self.outgoing.is_empty() || self.stopping && self.handing_over_late {
                self.produce_end();
                continue;
            }
            let frames = self.outgoing.next_batch();
            let Some(vm) = &self.vm else { return };
            let (section, full) = match pages_section(vm, self.settings.session, &frames) {
                Ok((section, full)) => {
                    let costs = vm.model().costs;
                    let ticks =
                        u64::from(costs.migrate_page.ticks) * full + u64::from(costs.zero_page_check.ticks) * (frames.len() as u64 - full);
                    self.busy_until = self.now + ticks / TICKS_PER_CYCLE;
                    (section, full)
                }
                Err(error) => {
                    self.why = Some(error.to_string());
                    self.source_takes(source::Input::GiveUp);
                    return;
                }
            };
            if self.source.state() == source::State::Serving {
                self.report.pushed += frames.len() as u64;
            } else if self.stopping {
                self.report.paused_pages += frames.len() as u64;
            } else {
                self.round.pages += frames.len() as u64;
                self.round.full += full;
            }
            self.piece("ram", section);
        }
    }

    pub(super) fn piece(&mut self, name: &str, section: Section) {
        if self.dies(true, name, false) {
            return;
        }
        if self.source.next_piece().is_some() {
            // Its pages or part are made already; it is sent when the processor has done that.
            self.ends[0].send(self.busy_until.max(self.now), &section, &mut self.link);
        }
        self.dies(true, name, true);
    }

    /// There are no more pages to send: the round is over, or the state follows, or everything was sent.
    pub(super) fn produce_end(&mut self) {
        if self.source.state() == source::State::Serving {
            self.handing_over_late = false;
            self.source_takes(source::Input::Pushed);
        } else if self.stopping {
            match self.parts.pop_front() {
                Some(part) => self.piece("state", part),
                None => {
                    self.heard = self.now;
                    (self.copying, self.stopping, self.handing_over_late) = (false, false, false);
                    self.source_takes(source::Input::Stopped);
                }
            }
        } else {
            self.waiting_for_round = true;
            self.heard = self.now;
            self.source_takes(source::Input::EndRound);
        }
    }

    /// The destination has all of a round: what now?
    pub(super) fn round_received(&mut self) {
        let Some(vm) = &mut self.vm else { return };
        let dirty = match vm.take_dirty_log(self.sink) {
            Ok(dirty) => dirty,
            Err(stop) => {
                self.over = Some(stop);
                return;
            }
        };
        self.busy_until = self.busy_until.max(self.now) + dirty.cycles;
        self.round.end = self.now;
        self.round.bytes = self.link.bytes(Side::Source) - self.bytes_at_round;
        self.round.remaining = dirty.frames.len() as u64;
        let cycles = self.round.cycles().max(1);
        let per_second = |count: u64| u64::try_from(u128::from(count) * u128::from(self.hertz) / u128::from(cycles)).unwrap_or(u64::MAX);
        self.round.dirty_rate = per_second(self.round.remaining);
        // As QEMU reckons: the rest at the rate of this round, in which zero pages cost next to nothing, and the rest is taken to have none; and
        // the state and the three messages of the hand-over.
        let sent = if self.round.full == 0 { self.round.pages } else { self.round.full };
        let rate = per_second(sent.max(1));
        let rest = u128::from(self.round.remaining) * 1_000_000_000 / u128::from(rate.max(1));
        let handing_over = nanoseconds_of(3 * self.link.latency(), self.hertz);
        self.round.expected_downtime = u64::try_from(rest).unwrap_or(u64::MAX).saturating_add(handing_over);
        let round = self.round.clone();
        self.sink.emit(
            self.now,
            0,
            Event::Round {
                round: round.number,
                pages: round.pages,
                bytes: round.bytes,
                cycles: round.cycles(),
                remaining: round.remaining,
                dirty_rate: round.dirty_rate,
                downtime: round.expected_downtime,
                throttle: round.throttle,
            },
        );
        // QEMU's sign of a guest that does not converge: it wrote more than half of what was sent, twice.
        let high = round.remaining * 2 > sent;
        self.high_rounds = if high { self.high_rounds + 1 } else { 0 };
        self.report.rounds.push(round.clone());
        self.outgoing.extend(dirty.frames);
        if self.settings.mode == Mode::PostCopy || round.expected_downtime <= self.settings.downtime {
            self.source_takes(source::Input::Stop);
        } else if round.number >= self.settings.rounds {
            match self.settings.convergence {
                Convergence::GiveUp | Convergence::Throttle => {
                    self.why = Some(format!(
                        "after {} rounds the guest would still be paused for {} us, and {} us are allowed",
                        round.number,
                        round.expected_downtime / 1000,
                        self.settings.downtime / 1000
                    ));
                    self.source_takes(source::Input::GiveUp);
                }
                Convergence::Pause | Convergence::PostCopy => self.source_takes(source::Input::Stop),
            }
        } else {
            if self.settings.convergence == Convergence::Throttle && self.high_rounds >= 2 {
                self.high_rounds = 0;
                self.throttle = if self.throttle == 0 { THROTTLE.0 } else { (self.throttle + THROTTLE.1).min(MOST_THROTTLE) };
                self.slice_end = self.now.saturating_add(self.slice);
                self.mark(Side::Source, format!("holds the virtual CPUs for {} % of the time", self.throttle));
            }
            self.begin_round();
        }
    }

    /// Whether memory follows the hand-over.
    pub(super) fn follows(&self) -> bool {
        self.settings.mode == Mode::PostCopy || self.settings.convergence == Convergence::PostCopy && !self.small_enough()
    }

    pub(super) fn small_enough(&self) -> bool {
        self.report.rounds.last().is_some_and(|round| round.expected_downtime <= self.settings.downtime)
    }

    /// Pauses the guest and makes everything ready that is still to be sent.
    pub(super) fn pause(&mut self) {
        let follows = self.follows();
        let Some(vm) = &mut self.vm else { return };
        self.throttle = 0;
        // A guest that sleeps, or is held, is behind or ahead of the hosts.
        let ahead = vm.cycles();
        let aligned = if ahead < self.now { vm.hold(self.now - ahead, self.sink) } else { Ok(()) };
        self.now = self.now.max(ahead);
        self.report.paused = Some(self.now);
        let taken = aligned.and_then(|()| vm.depart(self.sink)).and_then(|departure| Ok((departure, vm.take_dirty_log(self.sink)?)));
        let (departure, dirty) = match taken {
            Ok(taken) => taken,
            Err(stop) => {
                self.over = Some(stop);
                return;
            }
        };
        let costs = vm.model().costs;
        self.busy_until = self.busy_until.max(self.now) + dirty.cycles + u64::from(costs.migrate_save.ticks) / TICKS_PER_CYCLE;
        self.mark(Side::Source, "the guest is paused".to_owned());
        self.outgoing.extend(dirty.frames);
        let missing = if follows { self.outgoing.hold_back() } else { Default::default() };
        match parts(&departure, self.settings.session, &missing) {
            Ok(parts) => self.parts = parts,
            Err(error) => {
                self.why = Some(error.to_string());
                self.source_takes(source::Input::GiveUp);
                return;
            }
        }
        self.departure = Some(departure);
        self.stopping = true;
        self.waiting_for_round = false;
        self.handing_over_late = follows;
    }

    pub(super) fn resume(&mut self) {
        let Some(vm) = &mut self.vm else { return };
        let behind = vm.cycles();
        if behind < self.now
            && let Err(stop) = vm.hold(self.now - behind, self.sink)
        {
            self.over = Some(stop);
        }
        self.report.resumed = Some(self.now);
    }
}

/// The parts of a guest's state, in the order in which they are sent.
fn parts(departure: &Departure, session: u64, missing: &BTreeSet<u64>) -> Result<VecDeque<Section>, stream::Error> {
    let mut parts = VecDeque::new();
    for (number, record) in departure.records().iter().enumerate() {
        parts.push_back(Section::value(&format!("{session}/state/vcpu-{number}"), 1, record)?);
    }
    parts.push_back(Section::value(&format!("{session}/state/board"), 1, departure.board())?);
    parts.push_back(Section::value(&format!("{session}/state/slots"), 1, departure.slots())?);
    if !missing.is_empty() {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &frame in missing {
            match ranges.last_mut() {
                Some((_, end)) if *end == frame => *end += 1,
                _ => ranges.push((frame, frame + 1)),
            }
        }
        parts.push_back(Section::value(&format!("{session}/state/missing"), 1, &ranges)?);
    }
    Ok(parts)
}
