//! The filter in front of the PAUSE intercept.
//!
//! What is modelled: APM vol 2, 15.14.4 "Pause Intercept Filtering": a counter that VMRUN loads and each PAUSE counts down, an exit when it
//! would fall below zero; a threshold of cycles, and a PAUSE later than that behind the one before loads the counter anew.
//! What is not: the filter without the intercept, which has no effect.

use cpu::state::Cpu;
use serde::{Deserialize, Serialize};

use crate::Svm;

/// What is counted while a guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseFilter {
    /// PAUSEs that still pass.
    left: u16,
    /// When the last PAUSE was, in cycles; none since VMRUN.
    last: Option<u64>,
}

impl Svm {
    /// At VMRUN.
    pub(crate) fn load_pause_filter(&mut self) {
        self.pause_filter = PauseFilter { left: self.control.pause_filter_count, last: None };
    }

    /// Whether a PAUSE that is intercepted exits.
    pub(crate) fn pause_exits(&mut self, cpu: &Cpu) -> bool {
        let features = self.capabilities.features;
        let count = self.control.pause_filter_count;
        if !features.pause_filter() || count == 0 {
            return true;
        }
        let now = cpu.cycles();
        let threshold = u64::from(self.control.pause_filter_threshold);
        let last = self.pause_filter.last.replace(now);
        if features.pause_filter_threshold() && threshold != 0 && last.is_some_and(|last| now - last > threshold) {
            self.pause_filter.left = count;
        }
        match self.pause_filter.left.checked_sub(1) {
            Some(left) => self.pause_filter.left = left,
            None => return true,
        }
        false
    }
}
