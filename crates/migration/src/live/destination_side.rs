//! What the destination does in a move, and what arrives at either side.

use super::Live;
use crate::link::Side;
use crate::protocol::{Order, Reply, destination, source};
use crate::receiver::Incoming;
use crate::report::HOST_DIES;
use crate::wire::{Message, Piece};
use hypervisor::AnyVm;
use std::collections::BTreeSet;
use timing::TICKS_PER_CYCLE;

impl Live<'_> {
    pub(super) fn destination_takes(&mut self, input: destination::Input<Piece>) {
        let was_dead = self.destination.state() == destination::State::Dead;
        let actions = self.destination.take(input);
        self.hold_to_the_invariant();
        if !was_dead && self.destination.state() == destination::State::Dead {
            self.mark(Side::Destination, HOST_DIES.to_owned());
        }
        for action in actions {
            match action {
                destination::Action::Say(reply) => self.answer(reply),
                destination::Action::Judge => {
                    self.incoming = Incoming::default();
                    let judged = self.judge.judge(&self.offer);
                    if let Err(why) = &judged {
                        self.why = Some(format!("the destination refuses: {why}"));
                    }
                    self.destination_takes(destination::Input::Judged(judged.is_ok()));
                }
                destination::Action::Store(Piece(section)) => match self.incoming.store(section, self.now, self.size, &self.host_faults) {
                    Ok(waited) => self.report.waited += waited,
                    Err(why) => {
                        self.why = Some(format!("the destination cannot go on: {why}"));
                        self.destination_takes(destination::Input::Full);
                    }
                },
                destination::Action::Run => self.start_there(),
                destination::Action::Discard => {
                    self.incoming = Incoming::default();
                    self.mark(Side::Destination, "throws away what has arrived".to_owned());
                }
            }
        }
    }

    pub(super) fn answer(&mut self, reply: Reply) {
        let name = match reply {
            Reply::Accept => "accept",
            Reply::Refuse => "refuse",
            Reply::Received { .. } => "received",
            Reply::Ready => "ready",
            Reply::Running => "running",
            Reply::Want { .. } => "want",
            Reply::Complete => "complete",
            Reply::Abort => "abort",
        };
        let why = matches!(reply, Reply::Refuse | Reply::Abort).then(|| self.why.clone().unwrap_or_default());
        self.send(Side::Destination, name, &Message::Reply(reply, why));
    }

    /// Everything is here: makes the guest, before it is said that it could run.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        let departure = self.departure.clone().ok_or("the source has not paused its guest")?;
        self.incoming.prepare(departure, self.settings.to, self.settings.policy, self.size, self.sink)?;
        if let (Some(here), Some(there)) = (&self.vm, &self.incoming.vm) {
            debug_assert_eq!(first_difference(here, there, &self.incoming.missing), None, "memory has arrived as it was");
        }
        Ok(())
    }

    pub(super) fn start_there(&mut self) {
        let Some(vm) = &mut self.incoming.vm else { return };
        let there = vm.cycles();
        if there < self.now
            && let Err(stop) = vm.hold(self.now - there, self.sink)
        {
            self.over = Some(stop);
        }
        self.report.resumed = Some(self.now.max(there));
    }

    pub(super) fn arrived(&mut self, at: Side, bytes: &[u8]) {
        let dead = match at {
            Side::Source => self.source.state() == source::State::Dead,
            Side::Destination => self.destination.state() == destination::State::Dead,
        };
        if dead {
            return;
        }
        if at == Side::Source {
            self.heard = self.now;
        }
        let Some(section) = self.ends[at as usize].receive(self.now, bytes, &mut self.link) else { return };
        let message = match Message::read(section, at == Side::Destination, self.destination.stored()) {
            Ok(message) => message,
            Err(why) => {
                // The other side speaks another language: it cannot go on.
                self.why = Some(why);
                if at == Side::Destination {
                    self.destination_takes(destination::Input::Full)
                } else {
                    self.source_takes(source::Input::GiveUp)
                }
                return;
            }
        };
        let session = self.source.session();
        match message {
            Message::Order(order, offer) => {
                if let Some(offer) = offer {
                    self.offer = offer;
                }
                if let Order::Stop { pieces } = order
                    && pieces == self.destination.stored()
                    && self.destination.state() == destination::State::Receiving
                {
                    if let Err(why) = self.prepare() {
                        self.why = Some(format!("the destination cannot make the guest: {why}"));
                        self.destination_takes(destination::Input::Full);
                        return;
                    }
                    // Loading the state takes the destination's time.
                    self.now += u64::from(self.settings.to.costs.migrate_load.ticks) / TICKS_PER_CYCLE;
                }
                self.destination_takes(destination::Input::Order(session, order));
            }
            Message::Reply(reply, why) => {
                if let Some(why) = why.filter(|why| !why.is_empty()) {
                    self.why = Some(why);
                }
                let serving = self.source.state();
                self.source_takes(source::Input::Reply(session, reply));
                if matches!(reply, Reply::Received { .. }) && serving == source::State::Copying && self.waiting_for_round {
                    self.round_received();
                }
            }
            Message::Ack(_) => {}
        }
    }
}

/// The first page that is another there than here, beside those that are missing.
fn first_difference(here: &AnyVm, there: &AnyVm, missing: &BTreeSet<u64>) -> Option<u64> {
    let (mut one, mut other) = ([0; 4096], [0; 4096]);
    here.ram().into_iter().flat_map(|range| range.start >> 12..range.end >> 12).find(|frame| {
        let same = here.read_memory(frame << 12, &mut one) == there.read_memory(frame << 12, &mut other) && one == other;
        // A page that the destination has written anew has its own instruction.
        let renewed = there.hypercall_page() == Some(frame << 12);
        !missing.contains(frame) && !renewed && !same
    })
}
