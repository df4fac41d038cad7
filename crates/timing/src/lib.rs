//! What things cost: cost tables per processor model, each number with its source.
//!
//! What is modelled: a fixed cost for each class of instruction, for each event of the silicon and for each piece of hypervisor
//! work. Costs are added up; the sum is the simulated time. One cycle is four [`Ticks`], so a four-wide core can retire four simple
//! instructions a cycle with integers only. The numbers of instruction classes are reciprocal throughputs, of predicted branches and
//! cache hits.
//!
//! What is not: dependency chains, branch misprediction, caches, memory bandwidth, frequency changes. A run is cycle-approximate.
//!
//! The rows are declared once, in `rows.rs`; a model is a full struct literal, so a forgotten row does not compile.

mod cost;
mod models;
mod rows;
mod table;

pub use cost::{Charge, Cost, TICKS_PER_CYCLE, Ticks, Why};
pub use models::{K8_REV_F, MEROM, MODELS, SKYLAKE_SERVER, ZEN3};
pub use rows::{CostModel, Event, Group, InstructionClass, Row, SoftwareWork};
pub use table::{OverrideError, UnknownCostModel};
