//! Scenario files: schema, loading with spans, running, expectations.
//!
//! A scenario goes through [`json`] (text to tree with places), [`schema`] (form), [`load`] and `meaning` (sense, matrix, guest), then a
//! machine runs every [`load::Variant`] of it while [`observe`] watches, and [`verdict`] compares with what was expected.

pub mod boot;
pub mod checkpoint;
pub mod cut;
pub mod diagnostic;
pub mod environment;
pub mod explore;
pub mod file;
pub mod guest;
pub mod host;
mod invariants;
pub mod lead;
pub mod ledger;
pub mod live;
pub mod load;
mod meaning;
pub mod movement;
pub mod observe;
pub mod quantity;
pub mod register;
pub mod run;
pub mod schema;
pub mod snapshot;
pub mod verdict;
pub mod virtual_host;
