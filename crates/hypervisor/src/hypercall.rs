//! KVM's hypercalls: one table.
//!
//! Modelled: the calls of Linux's include/uapi/linux/kvm_para.h that exist on x86, with KVM's convention: number in RAX, arguments in RBX,
//! RCX, RDX and RSI, result in RAX, all of them 32 bits wide outside 64-bit mode, CPL 0 only. Not modelled: Hyper-V's and Xen's calls.

use crate::policy::Policy;

/// The results that a call may have, negated.
pub mod errno {
    /// Operation not permitted.
    pub const EPERM: i64 = -1;
    /// Bad address.
    pub const EFAULT: i64 = -14;
    /// Invalid argument.
    pub const EINVAL: i64 = -22;
    /// Operation not supported.
    pub const EOPNOTSUPP: i64 = -95;
    /// There is no such hypercall.
    pub const ENOSYS: i64 = -1000;
}

/// Which code answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Returns zero: the exit alone gives pending interrupts their chance.
    Null,
    /// Wakes a virtual CPU.
    KickCpu,
    /// Writes the time of the host and the time-stamp counter that goes with it.
    ClockPairing,
    /// Sends interrupts to a set of virtual CPUs.
    SendIpi,
    /// Gives the processor to another virtual CPU.
    SchedYield,
    /// Tells user space that pages change between encrypted and not.
    MapGpaRange,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub number: u64,
    /// Its name, less `KVM_HC_`.
    pub name: &'static str,
    /// The bit of CPUID leaf 0x40000001, EAX, that tells of it.
    pub feature: Option<u32>,
    /// Who answers.
    pub handler: Handler,
    /// What it is for.
    pub doc: &'static str,
}

/// The calls that exist.
pub const TABLE: &[Row] = &[
    Row { number: 1, name: "VAPIC_POLL_IRQ", feature: None, handler: Handler::Null, doc: "lets the host deliver what is pending" },
    Row {
        number: 5,
        name: "KICK_CPU",
        feature: Some(7),
        handler: Handler::KickCpu,
        doc: "a0 flags, a1 APIC ID: wakes a CPU that waits for a lock",
    },
    Row {
        number: 9,
        name: "CLOCK_PAIRING",
        feature: None,
        handler: Handler::ClockPairing,
        doc: "a0 address, a1 type 0: writes seconds, nanoseconds, TSC, flags",
    },
    Row {
        number: 10,
        name: "SEND_IPI",
        feature: Some(11),
        handler: Handler::SendIpi,
        doc: "a0 and a1 bitmap, a2 lowest APIC ID, a3 ICR: how many CPUs it reached",
    },
    Row { number: 11, name: "SCHED_YIELD", feature: Some(13), handler: Handler::SchedYield, doc: "a0 APIC ID of the CPU that should run" },
    Row {
        number: 12,
        name: "MAP_GPA_RANGE",
        feature: Some(16),
        handler: Handler::MapGpaRange,
        doc: "a0 address, a1 pages, a2 attributes: leaves for user space",
    },
];

/// The call of a number, as far as a policy's age has it.
pub fn find(policy: Policy, number: u64) -> Option<&'static Row> {
    // In 2007 there was the mechanism and not one call yet.
    if policy == Policy::Classic2007 {
        return None;
    }
    TABLE.iter().find(|row| row.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_features_differ() {
        assert!(TABLE.is_sorted_by_key(|row| row.number));
        let mut features: Vec<_> = TABLE.iter().filter_map(|row| row.feature).collect();
        features.dedup();
        assert_eq!(features, [7, 11, 13, 16]);
    }

    #[test]
    fn the_commit_of_2007_had_no_calls() {
        assert!(find(Policy::Classic2007, 1).is_none());
        assert_eq!(find(Policy::TrapAndPatch, 5).map(|row| row.name), Some("KICK_CPU"));
        assert!(find(Policy::TrapAndPatch, 2).is_none());
    }
}
