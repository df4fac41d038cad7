//! Runs by steps: the interleaving of the CPUs as data, and what must hold at every step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Some steps of one CPU. A step is an instruction, a VM entry, or a piece of the hypervisor's work.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The CPU.
    pub cpu: u32,
    /// How many steps it takes; fewer, where it cannot go on.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// The store of the last step, which need not be seen whole, is done in two parts: others may come before the second.
    #[serde(default)]
    pub split: Option<Part>,
    /// The hypervisor's write into the guest's text in the last step stops behind so many bytes.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2))]
    pub bytes: Option<u8>,
    /// These CPUs go on with the bytes that the last step overwrites, as if they had fetched them before, until they serialize.
    #[serde(default)]
    pub stale: Vec<u32>,
    /// The first store of the last step waits in the CPU's store buffer, and every one behind it until that is empty: other CPUs do not see
    /// them yet.
    #[serde(default)]
    pub buffer: bool,
    /// The last step is no instruction: the oldest store that waits in the CPU's store buffer becomes visible.
    #[serde(default)]
    pub drain: bool,
}

/// Which part of a store is done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The bytes in front of the boundary.
    Low,
    /// The bytes behind it.
    High,
}

/// Something that must hold at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// Every instruction that is executed is as it was loaded, or as the guest itself wrote it, or a whole native hypercall in place of a whole
    /// foreign one.
    IntactText,
    /// No CPU executes bytes of a patch that is half written.
    WholePatches,
    /// No CPU is trapped by a hypercall that was patched for it.
    OneTrapPerSite,
    /// A call changes RAX and RIP alone; a patch changes no register.
    RegistersKept,
    /// The patch of a hypercall without prefixes changes one byte at most.
    OneByteChanges,
    /// A patch that fails changes no byte.
    FailedPatchChangesNothing,
    /// The dirty log has every page that was patched.
    PatchedPagesDirty,
}

impl Invariant {
    /// Its name, as files write it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }
}
