//! What the messages are on the link: sections of the stream, one a frame.
//!
//! A frame is one [`stream::Section`]. Its name is `SESSION/MESSAGE`, or `SESSION/state/PART` for a part of the guest's state; its number is
//! the frame's place in the order of all that its side has sent. Both are under the section's checksum, as what it holds is.

use crate::protocol::{Offer, Order, Reply};
use serde::{Deserialize, Serialize};
use stream::{Form, Section};

/// Names of all messages: the source's first, then those of the destination; `ack` is said by both.
pub const MESSAGES: [&str; 16] = [
    "offer", "ram", "state", "round", "stop", "commit", "finish", "abort", "accept", "refuse", "received", "ready", "running", "want",
    "complete", "ack",
];

/// Version of every section that the protocol sends.
const VERSION: u16 = 1;

/// Whether a message is said by the source; `None` where both say it, or nobody.
pub fn is_of_source(message: &str) -> Option<bool> {
    let at = MESSAGES.iter().position(|name| *name == message)?;
    // Abort is said by both.
    (!matches!(message, "ack" | "abort")).then_some(at < 8)
}

/// A piece of the guest.
#[derive(Clone, Debug)]
pub struct Piece(pub Section);

/// A message, whoever says it.
#[derive(Clone, Debug)]
pub enum Message {
    /// Of the source; an offer has its contents beside it.
    Order(Order<Piece>, Option<Offer>),
    /// Of the destination, with a reason for a refusal.
    Reply(Reply, Option<String>),
    /// Everything up to a frame has arrived.
    Ack(Ack),
}

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The frame that is expected next.
    pub next: u32,
    /// Something else came, or came damaged: send again from there.
    pub again: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Numbers {
    #[serde(default)]
    round: u32,
    #[serde(default)]
    pieces: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reason {
    why: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Frame {
    frame: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

/// The name of the message that a section carries, without its session.
pub fn message_of(section: &Section) -> &str {
    let name = section.name().split_once('/').map_or("", |(_, name)| name);
    if name.starts_with("state/") { "state" } else { name }
}

/// The session that a section belongs to.
pub fn session_of(section: &Section) -> Option<u64> {
    section.name().split_once('/')?.0.parse().ok()
}

impl Message {
    /// The section that carries it.
    ///
    /// # Errors
    /// It is too large to be sent.
    pub fn section(&self, session: u64) -> Result<Section, stream::Error> {
        fn value<T: Serialize>(session: u64, name: &str, value: &T) -> Result<Section, stream::Error> {
            Section::value(&format!("{session}/{name}"), VERSION, value)
        }
        match self {
            Self::Order(Order::Offer, offer) => value(session, "offer", offer),
            Self::Order(Order::Piece { piece, .. }, _) => Ok(piece.0.clone()),
            Self::Order(Order::Round { round, pieces }, _) => value(session, "round", &Numbers { round: *round, pieces: *pieces }),
            Self::Order(Order::Stop { pieces }, _) => value(session, "stop", &Numbers { round: 0, pieces: *pieces }),
            Self::Order(Order::Commit, _) => value(session, "commit", &Nothing {}),
            Self::Order(Order::Finish { pieces }, _) => value(session, "finish", &Numbers { round: 0, pieces: *pieces }),
            Self::Order(Order::Abort, _) => value(session, "abort", &Nothing {}),
            Self::Reply(reply, why) => match reply {
                Reply::Accept => value(session, "accept", &Nothing {}),
                Reply::Refuse => value(session, "refuse", &Reason { why: why.clone().unwrap_or_default() }),
                Reply::Received { round } => value(session, "received", &Numbers { round: *round, pieces: 0 }),
                Reply::Ready => value(session, "ready", &Nothing {}),
                Reply::Running => value(session, "running", &Nothing {}),
                Reply::Want { frame } => value(session, "want", &Frame { frame: *frame }),
                Reply::Complete => value(session, "complete", &Nothing {}),
                Reply::Abort => value(session, "abort", &Reason { why: why.clone().unwrap_or_default() }),
            },
            Self::Ack(ack) => value(session, "ack", ack),
        }
    }

    /// The message that a section carries, read by the destination or by the source. `index` is what a piece is the so-manieth of.
    ///
    /// # Errors
    /// It is none.
    pub fn read(section: Section, by_destination: bool, index: u64) -> Result<Self, String> {
        let told = |error: stream::Error| error.to_string();
        let numbers = |section: &Section| section.decode::<Numbers>(VERSION).map_err(told);
        let reason = |section: &Section| section.decode::<Reason>(VERSION).map_err(told).map(|reason| Some(reason.why));
        let name = message_of(&section).to_owned();
        if name == "ack" {
            return section.decode(VERSION).map(Self::Ack).map_err(told);
        }
        if by_destination {
            let order = match name.as_str() {
                "offer" => return Ok(Self::Order(Order::Offer, section.decode(VERSION).map_err(told)?)),
                "ram" if section.form() == Form::Pages => Order::Piece { index, piece: Piece(section) },
                "state" => Order::Piece { index, piece: Piece(section) },
                "round" => numbers(&section).map(|it| Order::Round { round: it.round, pieces: it.pieces })?,
                "stop" => Order::Stop { pieces: numbers(&section)?.pieces },
                "commit" => Order::Commit,
                "finish" => Order::Finish { pieces: numbers(&section)?.pieces },
                "abort" => Order::Abort,
                _ => return Err(format!("`{}` is no message of a source", section.name())),
            };
            return Ok(Self::Order(order, None));
        }
        let reply = match name.as_str() {
            "accept" => Reply::Accept,
            "refuse" => return Ok(Self::Reply(Reply::Refuse, reason(&section)?)),
            "received" => Reply::Received { round: numbers(&section)?.round },
            "ready" => Reply::Ready,
            "running" => Reply::Running,
            "want" => Reply::Want { frame: section.decode::<Frame>(VERSION).map_err(told)?.frame },
            "complete" => Reply::Complete,
            "abort" => return Ok(Self::Reply(Reply::Abort, reason(&section)?)),
            _ => return Err(format!("`{}` is no message of a destination", section.name())),
        };
        Ok(Self::Reply(reply, None))
    }
}
