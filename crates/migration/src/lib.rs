//! Live migration: the guest runs on while its memory travels, and is handed over so that exactly one side may run it.
//!
//! Modelled: pre-copy in rounds over the dirty log of the hypervisor, with throttling, giving up or a change to post-copy where it does not
//! converge; post-copy with pages fetched on demand and pushed in the background; a simulated link with everything that can go wrong on it;
//! hosts that die. All of it in simulated time on one timeline, the cycles of the source's processors.
//! Not modelled: several links, compression by dictionary (xbzrle), storage, and the time that the destination's host needs to store pages.
//!
//! # The parts
//!
//! | file | what |
//! |---|---|
//! | `protocol`, `protocol/*` | who may run the guest: two pure state machines and the invariant |
//! | `wire` | messages as sections of the stream |
//! | `transport` | frames in order and once |
//! | `link`, `fault` | the simulated link, and what goes wrong |
//! | `offer` | what the source tells of its guest first, and whether a destination takes it |
//! | `live` | a move from offer to hand-over: source, destination, link and guest on one timeline |
//! | `sender`, `receiver` | what each host does |
//! | `report` | what a move was like |

pub mod fault;
pub mod link;
pub mod live;
mod offer;
pub mod protocol;
mod receiver;
pub mod report;
mod sender;
pub mod transport;
pub mod wire;

pub use fault::{AnyFault, Fault, FaultKind, HostFault, parse_time};
pub use link::{LinkSettings, Side};
pub use live::{Convergence, Ending, Mend, Mode, Outcome, Settings, migrate};
pub use offer::{Check, MissingFeatures, check};
pub use report::{At, Fate, HOST_DIES, Mended, Report, Round};
