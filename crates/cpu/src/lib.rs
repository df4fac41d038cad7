//! The processor core, which knows no vendor: decoding, execution, paging, exceptions, local APIC.
//!
//! The way of an instruction: [`engine`] finds a block, [`block`] decodes one, `select` gives each instruction a handler made from its
//! `semantics` (or a function of `system`), `direct` runs them. What an instruction cannot complete by itself is a [`trap::Trap`]; the
//! engine takes it to the program's handler (`delivery`) or to the silicon behind [`extension::Extension`].

pub mod access;
pub mod apic;
pub mod block;
pub mod bus;
mod class;
#[cfg(feature = "compiler")]
mod compile;
#[cfg(not(feature = "compiler"))]
#[path = "compile/absent.rs"]
mod compile;
mod context;
mod delivery;
mod direct;
#[cfg(test)]
mod encodings;
pub mod engine;
pub mod extension;
mod features;
mod flags;
pub mod freedom;
mod insn;
mod interpretation;
pub mod last_branches;
mod liveness;
pub mod operand;
mod paging;
mod physical;
pub mod random;
mod select;
mod semantics;
mod sse;
pub mod state;
mod system;
pub mod tlb;
pub mod trap;
mod x87;

pub use delivery::log::{Delivered, Delivery};
pub use delivery::task::TaskSwitch;
pub use engine::RunExit;
pub use state::Cpu;
