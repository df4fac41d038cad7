//! The simulated link between two hosts: bandwidth, latency, jitter, and what goes wrong on the way.
//!
//! Modelled: one lane in each direction, on which frames follow each other; each takes its bytes' time at the sender, then the latency, then
//! a jitter that a seed chooses. Frames do not overtake each other unless a fault says so. Faults strike single frames by message and count,
//! or at random, or the whole link. All of it is a function of seed, frames and times.
//! Not modelled: other traffic, and what a network card costs its host.

use crate::fault::{Fault, FaultKind, Strike};
use std::collections::BTreeMap;

/// An end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The host that has the guest at the start.
    Source,
    /// The other one.
    Destination,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Bits in a second, each way.
    pub bits_per_second: u64,
    /// Nanoseconds from one end to the other.
    pub latency: u64,
    /// The most nanoseconds that a frame takes beyond that.
    pub jitter: u64,
    /// Chooses jitter and random faults.
    pub seed: u64,
}

impl Default for LinkSettings {
    /// What two hosts in one rack have: ten gigabits, fifty microseconds.
    fn default() -> Self {
        Self { bits_per_second: 10_000_000_000, latency: 50_000, jitter: 0, seed: 1 }
    }
}

/// Cycles of a clock of so many hertz in so many nanoseconds.
pub fn cycles_of(nanoseconds: u64, hertz: u64) -> u64 {
    u64::try_from(u128::from(nanoseconds) * u128::from(hertz) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Nanoseconds of so many cycles.
pub fn nanoseconds_of(cycles: u64, hertz: u64) -> u64 {
    u64::try_from(u128::from(cycles) * 1_000_000_000 / u128::from(hertz.max(1))).unwrap_or(u64::MAX)
}

/// A frame that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub at: Side,
    /// What.
    pub bytes: Vec<u8>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What.
    pub kind: FaultKind,
    /// The message that it struck.
    pub message: String,
}

/// A generator of random numbers whose every number follows from its seed: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound; zero where the bound is.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

#[derive(Clone, Debug, Default)]
struct Lane {
    /// When its sender has sent what it was given.
    free_at: u64,
    /// When the last frame arrives.
    last_arrival: u64,
    /// A frame that waits to be overtaken.
    held: Option<(u64, Vec<u8>)>,
}

/// The link.
#[derive(Clone, Debug)]
pub struct Link {
    settings: LinkSettings,
    hertz: u64,
    dice: Dice,
    lanes: [Lane; 2],
    flying: BTreeMap<(u64, u64), Arrival>,
    order: u64,
    faults: Vec<Fault>,
    /// How often each message was sent.
    sent: BTreeMap<String, u64>,
    down_until: Option<u64>,
    incidents: Vec<(u64, Incident)>,
    bytes: [u64; 2],
}

impl Link {
    /// A link between hosts whose timeline has so many cycles in a second.
    pub fn new(settings: LinkSettings, hertz: u64, faults: Vec<Fault>) -> Self {
        Self {
            settings,
            hertz,
            dice: Dice::new(settings.seed),
            lanes: [Lane::default(), Lane::default()],
            flying: BTreeMap::new(),
            order: 0,
            faults,
            sent: BTreeMap::new(),
            down_until: None,
            incidents: Vec::new(),
            bytes: [0, 0],
        }
    }

    /// Cycles that so many bytes take at the sender.
    pub fn time_of(&self, bytes: u64) -> u64 {
        let bits = u128::from(bytes) * 8 * u128::from(self.hertz);
        u64::try_from(bits.div_ceil(u128::from(self.settings.bits_per_second.max(1)))).unwrap_or(u64::MAX)
    }

    /// Cycles from one end to the other at most.
    pub fn latency(&self) -> u64 {
        cycles_of(self.settings.latency.saturating_add(self.settings.jitter), self.hertz)
    }

    /// When a side has sent what it was given.
    pub fn free_at(&self, from: Side) -> u64 {
        self.lanes[from as usize].free_at
    }

    /// Bytes that a side has sent.
    pub fn bytes(&self, from: Side) -> u64 {
        self.bytes[from as usize]
    }

    /// Whether the link is cut at a time.
    pub fn is_down(&self, now: u64) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }

    /// Until when it is cut; `u64::MAX` for good.
    pub fn down_until(&self) -> Option<u64> {
        self.down_until
    }

    /// What went wrong since the last call.
    pub fn take_incidents(&mut self) -> Vec<(u64, Incident)> {
        std::mem::take(&mut self.incidents)
    }

    /// Cuts the link until a time.
    pub fn cut(&mut self, until: u64) {
        self.down_until = Some(until);
        // What is on the way does not arrive.
        self.flying.clear();
        for lane in &mut self.lanes {
            lane.held = None;
        }
    }

    /// There is a link again.
    pub fn repair(&mut self) {
        self.down_until = None;
    }

    /// A side sends a frame that carries a message.
    pub fn send(&mut self, now: u64, from: Side, message: &str, mut bytes: Vec<u8>) {
        let count = self.sent.entry(message.to_owned()).or_default();
        *count += 1;
        let count = *count;
        let time = self.time_of(bytes.len() as u64);
        self.bytes[from as usize] += bytes.len() as u64;
        let start = now.max(self.lanes[from as usize].free_at);
        self.lanes[from as usize].free_at = start.saturating_add(time);
        let fault = self.strike(message, count);
        if let Some(kind) = fault {
            self.incidents.push((now, Incident { kind, message: message.to_owned() }));
        }
        if let Some(FaultKind::Cut { nanoseconds }) = fault {
            let until = nanoseconds.map_or(u64::MAX, |time| now.saturating_add(cycles_of(time, self.hertz)));
            self.cut(until);
        }
        if self.is_down(now) {
            return;
        }
        let jitter = self.dice.below(cycles_of(self.settings.jitter, self.hertz).saturating_add(1));
        let lane = &mut self.lanes[from as usize];
        let latency = cycles_of(self.settings.latency, self.hertz);
        let mut arrival = lane.free_at.saturating_add(latency).saturating_add(jitter).max(lane.last_arrival);
        lane.last_arrival = arrival;
        let mut copies = 1;
        match fault {
            Some(FaultKind::Drop) => copies = 0,
            Some(FaultKind::Duplicate) => copies = 2,
            Some(FaultKind::Delay { nanoseconds }) => arrival = arrival.saturating_add(cycles_of(nanoseconds, self.hertz)),
            Some(FaultKind::Reorder) => {
                // The next frame goes first; if none comes, it arrives by itself much later.
                lane.held = Some((arrival, bytes));
                return;
            }
            Some(FaultKind::Truncate) => {
                let keep = self.dice.below(bytes.len() as u64);
                bytes.truncate(keep as usize);
            }
            Some(FaultKind::Corrupt) => {
                let bit = self.dice.below(bytes.len() as u64 * 8);
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Some(FaultKind::Cut { .. }) | None => {}
        }
        for _ in 0..copies {
            self.fly(arrival, from, bytes.clone());
        }
        if let Some((_, held)) = self.lanes[from as usize].held.take() {
            self.fly(arrival, from, held);
        }
    }

    fn fly(&mut self, arrival: u64, from: Side, bytes: Vec<u8>) {
        self.order += 1;
        self.flying.insert((arrival, self.order), Arrival { at: from.other(), bytes });
    }

    /// The fault that strikes a message that is sent for the so-manieth time, if one does.
    fn strike(&mut self, message: &str, count: u64) -> Option<FaultKind> {
        let mut struck = None;
        for fault in &self.faults {
            let hits = match &fault.strike {
                Strike::Message { name, nth } => name == message && *nth == count,
                Strike::Random { per_million } => self.dice.below(1_000_000) < u64::from(*per_million),
            };
            if hits && struck.is_none() {
                struck = Some(fault.kind);
            }
        }
        struck
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<u64> {
        self.flying.keys().next().map(|(time, _)| *time)
    }

    /// A frame that has arrived by a time.
    pub fn take_arrival(&mut self, now: u64) -> Option<Arrival> {
        let key = *self.flying.keys().next()?;
        if key.0 > now {
            return None;
        }
        self.flying.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(faults: &[&str]) -> Link {
        let faults = faults.iter().map(|text| Fault::parse(text).unwrap()).collect();
        Link::new(LinkSettings { bits_per_second: 8_000_000_000, latency: 1000, jitter: 0, seed: 7 }, 1_000_000_000, faults)
    }

    fn arrivals(link: &mut Link) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(time) = link.next_arrival() {
            all.push((time, link.take_arrival(time).unwrap().bytes));
        }
        all
    }

    #[test]
    fn bytes_take_time_and_follow_each_other() {
        let mut link = link(&[]);
        link.send(0, Side::Source, "ram", vec![1; 500]);
        link.send(100, Side::Source, "ram", vec![2; 100]);
        link.send(0, Side::Destination, "ack", vec![3; 10]);
        let times: Vec<(u64, u8)> = arrivals(&mut link).into_iter().map(|(time, bytes)| (time, bytes[0])).collect();
        assert_eq!(times, [(1010, 3), (1500, 1), (1600, 2)]);
        assert_eq!((link.bytes(Side::Source), link.bytes(Side::Destination)), (600, 10));
    }

    #[test]
    fn every_fault_does_what_its_name_says() {
        for (fault, expected) in [
            ("drop@ram:2", vec![(1001, vec![1]), (1003, vec![3])]),
            ("duplicate@ram:2", vec![(1001, vec![1]), (1002, vec![2]), (1002, vec![2]), (1003, vec![3])]),
            ("delay=1us@ram:2", vec![(1001, vec![1]), (1003, vec![3]), (2002, vec![2])]),
            ("reorder@ram:2", vec![(1001, vec![1]), (1003, vec![3]), (1003, vec![2])]),
            ("cut@ram:2", vec![]),
            ("truncate@ram:2", vec![(1001, vec![1]), (1002, vec![]), (1003, vec![3])]),
        ] {
            let mut link = link(&[fault]);
            for byte in 1..4 {
                link.send(0, Side::Source, "ram", vec![byte]);
            }
            assert_eq!(arrivals(&mut link), expected, "{fault}");
            assert_eq!(link.take_incidents().len(), 1, "{fault}");
        }
        let mut link = link(&["corrupt@ram:1"]);
        link.send(0, Side::Source, "ram", vec![0; 64]);
        let ones: u32 = arrivals(&mut link)[0].1.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
    }

    #[test]
    fn a_cut_can_be_mended_and_jitter_is_bounded_and_repeats() {
        let mut cut = link(&["cut=5us@ram:1"]);
        cut.send(0, Side::Source, "ram", vec![1]);
        cut.send(4000, Side::Source, "ram", vec![2]);
        cut.send(5000, Side::Source, "ram", vec![3]);
        assert_eq!(arrivals(&mut cut), [(6001, vec![3])]);
        let run = |seed| {
            let settings = LinkSettings { jitter: 500, seed, ..LinkSettings::default() };
            let mut link = Link::new(settings, 1_000_000_000, Vec::new());
            for at in 0..50 {
                link.send(at * 10_000, Side::Source, "ram", vec![0; 100]);
            }
            arrivals(&mut link).into_iter().map(|(time, _)| time).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        for (at, time) in run(3).into_iter().enumerate() {
            let plain = at as u64 * 10_000 + 80 + 50_000;
            assert!((plain..=plain + 500).contains(&time), "{at} {time}");
        }
    }
}
