//! The cost tables there are: two processors of 2006 and two modern ones.
//!
//! Each file is one full struct literal. Where only a round trip was measured, the split between exit and entry is assumed and the
//! row's text says so; the sum is what was measured.

mod k8_rev_f;
mod merom;
mod skylake_server;
mod zen3;

use crate::rows::CostModel;

pub use k8_rev_f::K8_REV_F;
pub use merom::MEROM;
pub use skylake_server::SKYLAKE_SERVER;
pub use zen3::ZEN3;

/// Every cost model, oldest first, Intel before AMD.
pub const MODELS: &[&CostModel] = &[&MEROM, &K8_REV_F, &SKYLAKE_SERVER, &ZEN3];
