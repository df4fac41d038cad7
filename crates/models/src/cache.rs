//! Caches, as CPUID describes them.
//!
//! What is modelled: one description of each cache, from which Intel's leaf 4 (SDM vol 2, "CPUID", table 3-8) and AMD's leaves
//! 8000_0005, 8000_0006 and 8000_001D (APM vol 3, E.4.4, E.4.5, E.4.15) follow. What is not: caches themselves; no access is faster or
//! slower for them.

use isa::cpuid::CpuidResult;
use serde::Serialize;

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Data only.
    Data = 1,
    /// Instructions only.
    Instruction = 2,
    /// Both.
    Unified = 3,
}

/// One cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 to 3.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Ways of associativity.
    pub ways: u32,
    /// Number of sets.
    pub sets: u32,
    /// Bytes in a line.
    pub line_bytes: u32,
    /// True if all cores of the package share it; otherwise each core has its own.
    pub shared: bool,
}

impl Cache {
    /// The size in KBytes.
    pub const fn kbytes(&self) -> u32 {
        self.ways * self.sets * self.line_bytes / 1024
    }

    /// The subleaf of leaf 4 (Intel) or 8000_001D (AMD) for this cache. `core_ids` is the number of APIC IDs set aside for the cores of
    /// the package; AMD leaves bits 31:26 of EAX reserved, so it is told apart by `cores_in_eax`.
    pub(crate) fn parameters(&self, core_ids: u32, cores_in_eax: bool) -> CpuidResult {
        // The fields hold 12 and 6 bits; a machine with more processors reports the most that can be told.
        let sharing = if self.shared { (core_ids - 1).min(0xfff) } else { 0 };
        let cores = if cores_in_eax { (core_ids - 1).min(0x3f) } else { 0 };
        const SELF_INITIALIZING: u32 = 1 << 8;
        CpuidResult {
            eax: self.kind as u32 | u32::from(self.level) << 5 | SELF_INITIALIZING | sharing << 14 | cores << 26,
            ebx: (self.line_bytes - 1) | (self.ways - 1) << 22,
            ecx: self.sets - 1,
            edx: 0,
        }
    }

    /// ECX or EDX of AMD's leaf 8000_0005 for a first-level cache.
    pub(crate) const fn amd_level_1(&self) -> u32 {
        const LINES_PER_TAG: u32 = 1;
        self.kbytes() << 24 | self.ways << 16 | LINES_PER_TAG << 8 | self.line_bytes
    }

    /// ECX of leaf 8000_0006 for a second-level cache; Intel has the same fields without lines per tag.
    pub(crate) const fn level_2(&self, lines_per_tag: u32) -> u32 {
        self.kbytes() << 16 | associativity_code(self.ways) << 12 | lines_per_tag << 8 | self.line_bytes
    }

    /// EDX of leaf 8000_0006 for a third-level cache: the size is in units of 512 KBytes.
    pub(crate) const fn amd_level_3(&self) -> u32 {
        const LINES_PER_TAG: u32 = 1;
        (self.kbytes() / 512) << 18 | associativity_code(self.ways) << 12 | LINES_PER_TAG << 8 | self.line_bytes
    }
}

/// APM vol 3, E.4.5 "Function 8000_0006", table of L2/L3 cache associativity codes; 9 refers to leaf 8000_001D.
const fn associativity_code(ways: u32) -> u32 {
    match ways {
        1 => 1,
        2 => 2,
        4 => 4,
        8 => 6,
        16 => 8,
        32 => 0xa,
        48 => 0xb,
        64 => 0xc,
        96 => 0xd,
        128 => 0xe,
        _ => 9,
    }
}
