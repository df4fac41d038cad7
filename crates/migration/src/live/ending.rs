//! When a move is over, and what is said of it.

use super::{Ending, Live, Outcome};
use crate::link::Side;
use crate::protocol::{destination, source};
use crate::report::{Fate, Mended};
use hypervisor::{AnyVm, Stop};
use trace::Event;

/// Where the guest is.
pub(super) const fn fate(ending: &Ending) -> Fate {
    match ending {
        Ending::Moved => Fate::Moved,
        Ending::MovedInDoubt => Fate::MovedInDoubt,
        Ending::Stayed => Fate::Stayed,
        Ending::Stranded => Fate::Stranded,
        Ending::Over(_) => Fate::Over,
    }
}

impl Live<'_> {
    /// Whether it is over.
    pub(super) fn ending(&mut self) -> Option<Ending> {
        use destination::State as D;
        use source::State as S;
        if self.over.is_some() {
            return Some(self.guest_is_over());
        }
        match (self.source.state(), self.destination.state()) {
            (S::Done, _) => Some(Ending::Moved),
            (S::Failed | S::Reclaimed, _) => Some(Ending::Stayed),
            // A dead source: what was not handed over is lost, but for a copy that nobody may run by itself.
            (S::Dead, D::Running) if self.incoming.missing.is_empty() => Some(Ending::MovedInDoubt),
            (S::Dead, D::Running | D::Idle | D::Receiving | D::Discarded | D::Dead) => Some(Ending::Stranded),
            (S::Dead, D::Prepared) if self.link.next_arrival().is_none() => Some(Ending::Stranded),
            // With post-copy what has run there is lost with its host.
            (S::Committed | S::Serving, D::Dead) => Some(Ending::Stranded),
            (S::Committed | S::Serving, _) if self.given_up == [true; 2] && !self.link_comes_back() => Some(self.at_a_standstill()),
            _ => None,
        }
    }

    pub(super) fn link_comes_back(&self) -> bool {
        self.link.down_until().is_some_and(|until| until != u64::MAX)
    }

    /// Nothing more will happen by itself.
    pub(super) fn at_a_standstill(&self) -> Ending {
        match (self.source.state(), self.destination.state()) {
            (_, destination::State::Running) if self.incoming.missing.is_empty() => Ending::MovedInDoubt,
            _ if self.source.may_run() => Ending::Stayed,
            _ => Ending::Stranded,
        }
    }

    pub(super) fn guest_is_over(&self) -> Ending {
        Ending::Over(self.over.clone().unwrap_or(Stop::Halted))
    }

    pub(super) fn finish(mut self, ending: Ending) -> Outcome {
        let why = self.why.clone().unwrap_or_else(|| "the link is down".to_owned());
        let in_doubt = self.destination.state() == destination::State::Prepared;
        let words = match &ending {
            Ending::Moved => "moved".to_owned(),
            Ending::MovedInDoubt if self.source.state() == source::State::Dead => {
                format!("moved, and nobody is left at the source to know it: {why}")
            }
            Ending::MovedInDoubt => format!("moved, but the source does not know it and keeps its paused copy: {why}"),
            Ending::Stayed => format!("not moved, the guest goes on at the source: {why}"),
            Ending::Stranded if in_doubt && self.source.state() == source::State::Dead => format!(
                "the guest runs nowhere: {why}; the destination has all of it and was never told to run it: once it is certain that the source is \
                 off, it may be told so by hand"
            ),
            Ending::Stranded if in_doubt => format!(
                "the guest runs nowhere: {why}; both sides have all of it, and the commit did not arrive: connect them again, or make sure that \
                 one is off for good and give the other the right to run by hand"
            ),
            Ending::Stranded => format!("the guest runs nowhere: {why}"),
            Ending::Over(_) => "the guest's run was over before the move".to_owned(),
        };
        let words = match self.report.mended {
            Some(Mended { how, was }) => format!("{words} (first {}, until {})", was.name(), how.words()),
            None => words,
        };
        let at_source = matches!(ending, Ending::Stayed)
            || matches!(ending, Ending::Over(_)) && !self.destination.may_run()
            || matches!(ending, Ending::Stranded) && self.vm.is_some() && !self.destination.may_run();
        let mut vm = if at_source { self.vm.take() } else { self.incoming.vm.take() };
        if let Some(vm) = &mut vm
            && at_source
            && !matches!(ending, Ending::Stranded)
        {
            // It goes on without a log. An error would be found again by the next run.
            let _ = vm.stop_dirty_log(self.sink);
        }
        self.tell_incidents();
        let ((repeats, damaged), (repeats_there, damaged_there)) = (self.ends[0].troubles(), self.ends[1].troubles());
        self.report.repeats = repeats + repeats_there;
        self.report.damaged = damaged + damaged_there;
        self.report.bytes = self.link.bytes(Side::Source);
        self.report.state_bytes = self.incoming.state_bytes;
        self.report.stuck = vm.as_ref().filter(|vm| matches!(ending, Ending::Stranded) && vm.absent_pages() > 0).map(AnyVm::cycles);
        self.report.ledger = std::mem::take(&mut self.incoming.ledger);
        self.report.end = self.now;
        self.report.outcome = fate(&ending);
        self.report.ending.clone_from(&words);
        self.report.marks.sort_by_key(|mark| mark.cycle);
        self.sink.emit(self.now, 0, Event::Handover { side: "both", what: words });
        let last = if vm.is_none() { self.last } else { None };
        Outcome { vm, ending, report: self.report, passed: self.passed, last }
    }
}
