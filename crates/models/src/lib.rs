//! Processor models as data: CPUID, capabilities and costs.
//!
//! What is modelled: four processors, for each vendor one of 2006 and a modern one. A model reports through CPUID and its capability
//! MSRs exactly what Trapline can do, and never more than the real processor could: AVX, machine checks, MTRRs, MONITOR, random
//! numbers and performance counters are missing everywhere.
//!
//! What is not: the state of a processor (crate `cpu`), and what a hypervisor tells its guest (crate `hypervisor`).

mod cache;
mod cpuid;
mod export;
mod k8_rev_f;
mod last_branches;
mod merom;
mod model;
mod skylake_server;
mod supported;
mod vmx;
mod zen3;

pub use cache::{Cache, CacheKind};
pub use cpuid::{CpuidContext, CpuidRow};
pub use export::{ControlDump, CpuidDump, ModelExport};
pub use k8_rev_f::K8_REV_F;
pub use last_branches::LastBranchMsrs;
pub use merom::MEROM;
pub use model::{CpuModel, DecodeRules, MODELS, SvmCapabilities, UnknownCpuModel, Vendor, default_for, find};
pub use skylake_server::SKYLAKE_SERVER;
pub use supported::{cr4_of, efer_of};
pub use zen3::ZEN3;
