//! How a processor model keeps its last branches: how many, under which MSRs, and which bits of IA32_DEBUGCTL it has.
//!
//! What is modelled: SDM vol 3, chapter 18 "Debug, Branch Profile, TSC, and Intel Resource Director Technology (Intel RDT) Features" for
//! Intel; APM vol 2, 13.1.1 "Software-Debug Resources" for AMD, whose one record is a stack of depth 1. What the records hold is the core's
//! matter (`cpu::last_branches`). What is not: branch trace messages and stores, architectural last-branch records.

/// Last-branch records of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBranchMsrs {
    /// Records in the stack, a power of two of at most 32.
    pub depth: u8,
    /// Number of the MSR with the source of record 0; those of the others follow.
    pub from: u32,
    /// Number of the MSR with the target of record 0.
    pub to: u32,
    /// Number of the MSR with the information on record 0: cycles since the record before.
    pub info: Option<u32>,
    /// MSR with the number of the newest record.
    pub top: Option<u32>,
    /// MSR that says which branches are not recorded.
    pub select: Option<u32>,
    /// WRMSR may write the records.
    pub writable: bool,
    /// Bits of IA32_DEBUGCTL that are not reserved.
    pub debugctl: u64,
}

/// LBR and BTF of IA32_DEBUGCTL.
const LBR_AND_BTF: u64 = 3;

impl LastBranchMsrs {
    /// Four records. SDM vol 3, 18.5 "Last Branch, Interrupt, and Exception Recording (Intel Core 2 Duo and Intel Atom Processors)".
    pub const CORE_2: LastBranchMsrs = LastBranchMsrs {
        depth: 4,
        from: 0x40,
        to: 0x60,
        info: None,
        top: Some(isa::msr::MSR_LASTBRANCH_TOS),
        select: None,
        writable: true,
        debugctl: LBR_AND_BTF,
    };

    /// Thirty-two records. SDM vol 3, 18.12 "Last Branch, Call Stack, Interrupt, and Exception Recording for Processors based on Skylake
    /// Microarchitecture".
    pub const SKYLAKE: LastBranchMsrs = LastBranchMsrs {
        depth: 32,
        from: 0x680,
        to: 0x6c0,
        info: Some(0xdc0),
        top: Some(isa::msr::MSR_LASTBRANCH_TOS),
        select: Some(isa::msr::MSR_LBR_SELECT),
        writable: true,
        debugctl: LBR_AND_BTF,
    };

    /// One record, read-only; bits 5:2 of DebugCtl drive pins and have no other effect. APM vol 2, 13.1.1.6 "Debug-Control MSR
    /// (DebugCtl)".
    pub const AMD: LastBranchMsrs = LastBranchMsrs {
        depth: 1,
        from: isa::msr::LASTBRANCHFROMIP,
        to: isa::msr::LASTBRANCHTOIP,
        info: None,
        top: None,
        select: None,
        writable: false,
        debugctl: LBR_AND_BTF | 0x3c,
    };
}
