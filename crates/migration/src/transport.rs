//! Frames in order and once, over a link that loses, repeats, damages and delays them.
//!
//! Modelled: what TCP does for QEMU, as far as a move needs it. Frames are numbered; the receiver takes them in order, says which one it
//! expects next, and asks again when something else or something damaged came. The sender keeps what is not acknowledged and sends it again,
//! ever more patiently, until it gives the link up.
//! Not modelled: congestion control; the window is fixed.

use crate::link::{Link, Side};
use crate::wire::{Ack, Message, message_of, session_of};
use std::collections::VecDeque;
use stream::Section;

/// Frames that may be on their way.
pub const WINDOW: usize = 16;

/// How often frames are sent again before the link is given up.
const PATIENCE: u32 = 8;

#[derive(Clone, Debug)]
struct Sent {
    number: u32,
    message: String,
    bytes: Vec<u8>,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Transport {
    side: Side,
    session: u64,
    next: u32,
    unacknowledged: VecDeque<Sent>,
    expected: u32,
    timeout: u64,
    tries: u32,
    deadline: Option<u64>,
    /// The frame that was sent again last because the other end asked for it.
    repeated: Option<u32>,
    /// Frames that were sent again.
    repeats: u64,
    /// Frames that came damaged.
    damaged: u64,
}

impl Transport {
    /// An end of a new connection.
    pub fn new(side: Side, session: u64, link: &Link) -> Self {
        // There and back, and some time for the other end.
        let timeout = 3 * link.latency() + link.time_of(4096) + 2000;
        Self {
            side,
            session,
            next: 0,
            unacknowledged: VecDeque::new(),
            expected: 0,
            timeout,
            tries: 0,
            deadline: None,
            repeated: None,
            repeats: 0,
            damaged: 0,
        }
    }

    /// Whether another piece of the guest may be sent.
    pub fn has_room(&self) -> bool {
        self.unacknowledged.len() < WINDOW
    }

    /// Whether everything that was sent has arrived.
    pub fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Frames that were sent again, and frames that came damaged.
    pub fn troubles(&self) -> (u64, u64) {
        (self.repeats, self.damaged)
    }

    /// When [`Transport::tick`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Sends a section.
    pub fn send(&mut self, now: u64, section: &Section, link: &mut Link) {
        let sent = Sent { number: self.next, message: message_of(section).to_owned(), bytes: section.encode(self.next) };
        self.next += 1;
        link.send(now, self.side, &sent.message, sent.bytes.clone());
        self.unacknowledged.push_back(sent);
        self.arm(now, link);
    }

    fn arm(&mut self, now: u64, link: &Link) {
        let sent = now.max(link.free_at(self.side));
        self.deadline = (!self.unacknowledged.is_empty()).then(|| sent.saturating_add(self.timeout << self.tries.min(2)));
    }

    fn say(&self, now: u64, again: bool, link: &mut Link) {
        let ack = Message::Ack(Ack { next: self.expected, again });
        // An acknowledgement is small: it can always be made.
        if let Ok(section) = ack.section(self.session) {
            link.send(now, self.side, "ack", section.encode(self.expected));
        }
    }

    fn repeat(&mut self, now: u64, link: &mut Link) {
        for sent in &self.unacknowledged {
            self.repeats += 1;
            link.send(now, self.side, &sent.message, sent.bytes.clone());
        }
        self.arm(now, link);
    }

    /// Takes a frame that has arrived. A section comes out if it is the next one.
    pub fn receive(&mut self, now: u64, bytes: &[u8], link: &mut Link) -> Option<Section> {
        let mut rest = bytes;
        let section = match Section::read(&mut rest) {
            Ok(section) if rest.is_empty() => section,
            _ => {
                self.damaged += 1;
                self.say(now, true, link);
                return None;
            }
        };
        if session_of(&section) != Some(self.session) {
            return None;
        }
        if message_of(&section) == "ack" {
            if let Ok(Message::Ack(ack)) = Message::read(section, true, 0) {
                self.acknowledged(now, ack, link);
            }
            return None;
        }
        let number = section.place().number.unwrap_or(u32::MAX);
        if number != self.expected {
            self.say(now, number > self.expected, link);
            return None;
        }
        self.expected += 1;
        self.say(now, false, link);
        Some(section)
    }

    fn acknowledged(&mut self, now: u64, ack: Ack, link: &mut Link) {
        let before = self.unacknowledged.len();
        while self.unacknowledged.front().is_some_and(|sent| sent.number < ack.next) {
            self.unacknowledged.pop_front();
        }
        if self.unacknowledged.len() < before {
            self.tries = 0;
            self.arm(now, link);
        }
        let first = self.unacknowledged.front().map(|sent| sent.number);
        if ack.again && first == Some(ack.next) && self.repeated != first {
            self.repeated = first;
            self.repeat(now, link);
        }
    }

    /// Time has passed. `true` when the link is given up.
    pub fn tick(&mut self, now: u64, link: &mut Link) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        if self.tries >= PATIENCE {
            self.deadline = None;
            return true;
        }
        self.tries += 1;
        self.repeated = None;
        self.repeat(now, link);
        false
    }

    /// There is a link again: what was not acknowledged is sent again.
    pub fn reconnect(&mut self, now: u64, link: &mut Link) {
        self.tries = 0;
        self.repeated = None;
        self.repeat(now, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultKind, Strike};
    use crate::link::LinkSettings;
    use crate::protocol::{Order, Reply};

    /// Sends messages from both ends and runs until nothing moves any more. What arrived at each end, and whether somebody gave up.
    fn exchange(faults: Vec<Fault>, seed: u64) -> ([Vec<String>; 2], bool) {
        let mut link = Link::new(LinkSettings { seed, jitter: 5_000, ..LinkSettings::default() }, 3_000_000_000, faults);
        let mut ends = [Transport::new(Side::Source, 7, &link), Transport::new(Side::Destination, 7, &link)];
        let mut got = [Vec::new(), Vec::new()];
        let (mut now, mut down) = (0, false);
        for round in 1..=30 {
            let order = Message::Order(Order::Round { round, pieces: 0 }, None).section(7).unwrap();
            let reply = Message::Reply(Reply::Received { round }, None).section(7).unwrap();
            ends[0].send(now, &order, &mut link);
            ends[1].send(now, &reply, &mut link);
            now += 1000;
        }
        let deadline = |ends: &[Transport; 2]| ends.iter().filter_map(Transport::deadline).min();
        while let Some(next) = [link.next_arrival(), deadline(&ends)].into_iter().flatten().min() {
            now = now.max(next);
            while let Some(arrival) = link.take_arrival(now) {
                let end = &mut ends[arrival.at as usize];
                if let Some(section) = end.receive(now, &arrival.bytes, &mut link) {
                    got[arrival.at as usize].push(format!("{:?}", Message::read(section, arrival.at == Side::Destination, 0).unwrap()));
                }
            }
            for end in &mut ends {
                down |= end.tick(now, &mut link);
            }
            assert!(now < 1 << 50, "no end");
        }
        (got, down)
    }

    fn expected() -> [Vec<String>; 2] {
        let replies = (1..=30).map(|round| format!("{:?}", Message::Reply(Reply::Received { round }, None))).collect();
        let orders =
            (1..=30).map(|round| format!("{:?}", Message::Order(Order::<crate::wire::Piece>::Round { round, pieces: 0 }, None))).collect();
        [replies, orders]
    }

    #[test]
    fn one_fault_anywhere_delays_and_loses_nothing() {
        for kind in FaultKind::ALL {
            for name in ["round", "received", "ack"] {
                for nth in [1, 2, 15, 29, 30] {
                    let fault = Fault { kind, strike: Strike::Message { name: name.to_owned(), nth } };
                    let (got, down) = exchange(vec![fault.clone()], 1);
                    if kind == (FaultKind::Cut { nanoseconds: None }) {
                        for (got, wanted) in got.iter().zip(expected()) {
                            assert_eq!(got[..], wanted[..got.len()], "{fault:?}: what arrives is a beginning");
                        }
                    } else {
                        assert_eq!(got, expected(), "{fault:?}");
                        assert!(!down, "{fault:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_faults_of_all_kinds_lose_nothing() {
        for seed in 0..20 {
            let faults = FaultKind::ALL
                .iter()
                .filter(|kind| !matches!(kind, FaultKind::Cut { .. }))
                .map(|kind| Fault { kind: *kind, strike: Strike::Random { per_million: 30_000 } })
                .collect();
            let (got, down) = exchange(faults, seed);
            assert_eq!((got, down), (expected(), false), "seed {seed}");
        }
    }

    #[test]
    fn every_bit_of_a_frame_is_under_a_checksum() {
        let link = Link::new(LinkSettings::default(), 1_000_000_000, Vec::new());
        let frame = Message::Order(Order::Stop { pieces: 12 }, None).section(3).unwrap().encode(0);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut own = link.clone();
            let mut end = Transport::new(Side::Destination, 3, &own);
            assert!(end.receive(0, &damaged, &mut own).is_none(), "bit {bit}");
        }
        for length in 0..frame.len() {
            let mut own = link.clone();
            let mut end = Transport::new(Side::Destination, 3, &own);
            assert!(end.receive(0, &frame[..length], &mut own).is_none(), "{length} bytes");
        }
    }
}
