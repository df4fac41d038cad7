//! A log of what the processor delivers through its IDT, for whoever traces a run.
//!
//! Modelled: every attempt at a delivery, in order, also one that itself faults, and the triple fault. Not kept unless it is asked for:
//! then a delivery costs the host one test more, and instructions nothing.

use crate::state::Cpu;
use crate::trap::{Event, EventKind};
use isa::exception::Vector;
use serde::{Deserialize, Serialize};

/// Entries of a log that is full: the run ends with `RunExit::Attention`, so that somebody takes them.
const FULL: usize = 4096;

/// What was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// An event.
    Event {
        /// Which.
        event: Event,
        /// CR2, for a page fault.
        cr2: Option<u64>,
    },
    /// Nothing: no handler could be reached, and the processor shut down.
    TripleFault,
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// When, in cycles.
    pub cycle: u64,
    /// RIP that the handler sees on its stack; at a triple fault RIP.
    pub rip: u64,
    /// The processor was in guest mode.
    pub guest: bool,
    /// What.
    pub what: Delivered,
}

impl Cpu {
    /// Begins or ends a log of deliveries.
    pub fn log_deliveries(&mut self, wanted: bool) {
        self.deliveries = wanted.then(Vec::new);
        self.deliveries_full = false;
    }

    /// The deliveries since the last call.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        self.deliveries_full = false;
        self.deliveries.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a log of deliveries is kept.
    pub fn logs_deliveries(&self) -> bool {
        self.deliveries.is_some()
    }

    /// Whether the log of deliveries waits for [`Self::take_deliveries`] before the processor goes on.
    pub fn deliveries_are_full(&self) -> bool {
        self.deliveries_full
    }

    #[inline]
    pub(crate) fn log_event(&mut self, event: &Event) {
        if self.deliveries.is_some() {
            self.log_wanted_event(event);
        }
    }

    #[cold]
    fn log_wanted_event(&mut self, event: &Event) {
        let fault = event.kind == EventKind::Exception && event.vector == Vector::PageFault as u8;
        self.log(self.return_rip(event), Delivered::Event { event: *event, cr2: fault.then_some(self.cr2) });
    }

    pub(crate) fn log_triple_fault(&mut self) {
        self.log(self.rip, Delivered::TripleFault);
    }

    fn log(&mut self, rip: u64, what: Delivered) {
        let (cycle, guest) = (self.cycles(), self.guest_mode);
        if let Some(log) = &mut self.deliveries {
            log.push(Delivery { cycle, rip, guest, what });
            self.deliveries_full = log.len() >= FULL;
        }
    }
}
