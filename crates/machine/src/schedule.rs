//! Which processor runs next, and until when: in order of simulated time, ties by number.
//!
//! The processor that is furthest behind runs until it is [`QUANTUM`] ahead of the next one, or until something happens. A seed varies the
//! quantum from turn to turn by a generator of its own, so that other interleavings come about, replayably.

use serde::{Deserialize, Serialize};
use timing::TICKS_PER_CYCLE;

/// How far one processor may run ahead of another, in ticks: 1,000 cycles, less than an interprocessor interrupt takes.
pub const QUANTUM: u64 = 1000 * TICKS_PER_CYCLE;

/// What the scheduler knows of a processor. Times are in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its own time.
    pub now: u64,
    /// It has something to execute or to take.
    pub runnable: bool,
    /// When a timer of its own next does something.
    pub wakes: Option<u64>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A processor runs until a time.
    Run {
        /// Which.
        number: usize,
        /// Until when, in ticks.
        until: u64,
    },
    /// Nobody runs; time goes on to the next event.
    Advance {
        /// To when, in ticks.
        to: u64,
    },
    /// Nobody runs and nothing will ever happen.
    Dead,
}

/// The order of turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interleaving {
    seed: u64,
}

impl Interleaving {
    /// An order; seed 0 is the plain one.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The quantum of this turn: the plain one, or 1 to 2,000 cycles by the seed's generator (xorshift64).
    fn quantum(&mut self) -> u64 {
        if self.seed == 0 {
            return QUANTUM;
        }
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % 2000 + 1) * TICKS_PER_CYCLE
    }

    /// Who runs next. `event` is when something outside the processors next happens.
    pub fn next(&mut self, candidates: impl Iterator<Item = Candidate>, event: Option<u64>) -> Turn {
        let mut best: Option<(usize, u64, Option<u64>)> = None;
        // The earliest time of any other runnable processor, and the earliest wake-up of any that sleeps.
        let (mut other, mut wake) = (None::<u64>, event);
        for (number, candidate) in candidates.enumerate() {
            if !candidate.runnable {
                wake = earlier(wake, candidate.wakes);
                continue;
            }
            match best {
                Some((_, now, _)) if now <= candidate.now => other = earlier(other, Some(candidate.now)),
                _ => {
                    other = earlier(other, best.map(|(_, now, _)| now));
                    best = Some((number, candidate.now, candidate.wakes));
                }
            }
        }
        let Some((number, now, own)) = best else {
            return wake.map_or(Turn::Dead, |to| Turn::Advance { to });
        };
        // Something is due before the one that is furthest behind goes on.
        if let Some(to) = wake.filter(|to| *to <= now) {
            return Turn::Advance { to };
        }
        let mut until = earlier(wake, own.filter(|own| *own > now)).unwrap_or(u64::MAX);
        if let Some(other) = other {
            until = until.min(other.saturating_add(self.quantum()));
        }
        Turn::Run { number, until: until.max(now + 1) }
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runnable(now: u64) -> Candidate {
        Candidate { now, runnable: true, wakes: None }
    }

    #[test]
    fn the_processor_furthest_behind_runs_and_ties_go_to_the_lower_number() {
        let mut order = Interleaving::new(0);
        let turn = order.next([runnable(50), runnable(40), runnable(40)].into_iter(), None);
        assert_eq!(turn, Turn::Run { number: 1, until: 40 + QUANTUM });
    }

    #[test]
    fn a_sleeper_that_wakes_bounds_the_turn() {
        let sleeper = Candidate { now: 0, runnable: false, wakes: Some(70) };
        let mut order = Interleaving::new(0);
        assert_eq!(order.next([runnable(10), sleeper].into_iter(), Some(90)), Turn::Run { number: 0, until: 70 });
        assert_eq!(order.next([runnable(80), sleeper].into_iter(), Some(90)), Turn::Advance { to: 70 });
    }

    #[test]
    fn without_anybody_time_jumps_or_ends() {
        let mut order = Interleaving::new(0);
        let sleeper = Candidate { now: 5, runnable: false, wakes: None };
        assert_eq!(order.next([sleeper].into_iter(), Some(7)), Turn::Advance { to: 7 });
        assert_eq!(order.next([sleeper].into_iter(), None), Turn::Dead);
    }

    #[test]
    fn a_seed_gives_the_same_turns_again() {
        let turns = |seed| {
            let mut order = Interleaving::new(seed);
            (0..20).map(|now| order.next([runnable(now), runnable(now)].into_iter(), None)).collect::<Vec<_>>()
        };
        assert_eq!(turns(7), turns(7));
        assert_ne!(turns(7), turns(8));
    }
}
