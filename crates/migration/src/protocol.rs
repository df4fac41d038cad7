//! Who may run the guest: the two state machines of a move, and what they say to each other.
//!
//! Pure: neither machine knows a link, a clock or a guest. Each takes an input and answers with what is to be done. They rely on nothing of
//! the link: messages may be lost, come twice, late or in another order; what is damaged counts as lost. A machine that is told of no
//! message at all stays safe, it only does not get on.
//!
//! # The invariant
//!
//! The *right to run* is one token. The source has it until it sends [`Order::Commit`]; from the moment the destination receives that, the
//! destination has it. In between nobody has it: it lies in the record of the hand-over that the source keeps, and that names one
//! destination.
//!
//! 1. At no time may two sides run the guest.
//! 2. Who receives the right has all that the source acknowledged: the destination says [`Reply::Ready`] only when it has stored every piece of
//!    memory and state that the source sent, and the source sends nothing after [`Order::Stop`].
//! 3. The source frees the guest only when it has heard that the destination runs it.
//!
//! # Two generals
//!
//! No protocol can make both sides certain when the link may die. This one puts the doubt where it costs least:
//!
//! - The link dies before the commit is sent: the source goes on, whatever the destination has. What waits there is never run unless somebody
//!   says so.
//! - It dies after the commit was sent, and before the answer came: the source stays paused for ever, because the destination may run. If the
//!   commit was lost, both are paused. Nothing is lost, and nobody runs: as soon as there is a link again the commit is repeated, and until
//!   then only a person who has made sure that one side is off for good may give the other the right ([`source::Input::PeerIsOff`],
//!   [`destination::Input::PeerIsOff`]).

pub mod destination;
pub mod source;

use serde::{Deserialize, Serialize};

/// Names one attempt to move a guest to one destination. The numbers of a source only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// Number of the attempt.
    pub number: u64,
    /// The destination that is meant.
    pub destination: u64,
}

/// What the source tells of the guest before it sends any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// Version of the protocol.
    pub version: u16,
    /// The processor model that the guest runs on.
    pub from: String,
    /// The processor model that the guest was told of.
    pub guest: String,
    /// CPUID features that the guest was told of, by name.
    pub features: Vec<String>,
    /// Width of the physical addresses that it was told of.
    pub address_bits: u8,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Pages of RAM.
    pub pages: u64,
    /// The guest may be handed over before all of its memory has arrived.
    pub post_copy: bool,
}

/// Version of the protocol.
pub const VERSION: u16 = 1;

/// What the source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Order<P> {
    /// Here is a guest.
    Offer,
    /// A piece of memory or state, by its place in the order of all pieces.
    Piece {
        /// From zero.
        index: u64,
        /// What it is.
        piece: P,
    },
    /// A round is over.
    Round {
        /// Its number, from one.
        round: u32,
        /// Pieces sent so far.
        pieces: u64,
    },
    /// The guest is paused, and this was everything; or all but the memory that follows the hand-over.
    Stop {
        /// Pieces sent.
        pieces: u64,
    },
    /// Run it. Whoever sends this never runs the guest again.
    Commit,
    /// All of the memory was sent (post-copy).
    Finish {
        /// Pieces sent.
        pieces: u64,
    },
    /// It is off.
    Abort,
}

/// What the destination says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// Send it.
    Accept,
    /// It is not wanted here.
    Refuse,
    /// Everything up to the end of a round is stored.
    Received {
        /// The round.
        round: u32,
    },
    /// Everything is stored, and the guest can be run at once.
    Ready,
    /// It runs.
    Running,
    /// A page is needed now (post-copy).
    Want {
        /// Its number.
        frame: u64,
    },
    /// All memory is here (post-copy).
    Complete,
    /// It cannot be stored any more.
    Abort,
}
