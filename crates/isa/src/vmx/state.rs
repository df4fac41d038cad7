//! Guest non-register state with a format of its own: interruptibility, activity, pending debug exceptions.
//!
//! Modelled: SDM 25.4.2 "Guest Non-Register State". The access-rights format is [`crate::segment::Attributes`].

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Guest interruptibility state, SDM 25.4.2 "Guest Non-Register State".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruptibility {
    /// Blocking by STI.
    pub blocking_by_sti: bool,
    /// Blocking by MOV SS.
    pub blocking_by_mov_ss: bool,
    /// Blocking by SMI.
    pub blocking_by_smi: bool,
    /// Blocking by NMI (with "virtual NMIs": virtual-NMI blocking).
    pub blocking_by_nmi: bool,
    /// Enclave interruption.
    pub enclave_interruption: bool,
    /// Reserved; VM entry checks it to be 0.
    #[bits(27)]
    pub reserved: u32,
}

/// Guest activity state, SDM 25.4.2 "Guest Non-Register State".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u32)]
pub enum ActivityState {
    /// The processor executes instructions.
    Active = 0,
    /// Inactive because of HLT.
    Hlt = 1,
    /// Inactive because of a triple fault or another serious error.
    Shutdown = 2,
    /// Inactive, waiting for a start-up IPI.
    WaitForSipi = 3,
}

impl ActivityState {
    /// The state with this number; `None` where the number is reserved.
    pub const fn from_number(number: u64) -> Option<ActivityState> {
        match number {
            0 => Some(ActivityState::Active),
            1 => Some(ActivityState::Hlt),
            2 => Some(ActivityState::Shutdown),
            3 => Some(ActivityState::WaitForSipi),
            _ => None,
        }
    }
}

/// Guest pending debug exceptions, SDM 25.4.2 "Guest Non-Register State".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDebugExceptions {
    /// B3-B0: breakpoint conditions that were met, even if not enabled in DR7.
    #[bits(4)]
    pub breakpoints: u8,
    /// Reserved; VM entry checks it to be 0.
    #[bits(7)]
    pub reserved_low: u8,
    /// BLD: a bus lock was acquired.
    pub bus_lock_detected: bool,
    /// At least one data or I/O breakpoint was met and was enabled in DR7.
    pub enabled_breakpoint: bool,
    /// Reserved; VM entry checks it to be 0.
    pub reserved_13: bool,
    /// BS: a single-step debug exception is pending.
    pub single_step: bool,
    /// Reserved; VM entry checks it to be 0.
    pub reserved_15: bool,
    /// RTM: a debug exception inside an RTM region is pending.
    pub restricted_transactional_memory: bool,
    /// Reserved; VM entry checks it to be 0.
    #[bits(47)]
    pub reserved_high: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_single_bits() {
        assert_eq!(Interruptibility::new().with_blocking_by_nmi(true).into_bits(), 8);
        assert_eq!(PendingDebugExceptions::new().with_single_step(true).into_bits(), 1 << 14);
        assert_eq!(PendingDebugExceptions::new().with_enabled_breakpoint(true).into_bits(), 1 << 12);
        assert_eq!(PendingDebugExceptions::new().with_restricted_transactional_memory(true).into_bits(), 1 << 16);
    }

    #[test]
    fn a_reserved_activity_is_none() {
        for number in 0..4 {
            assert_eq!(ActivityState::from_number(number).map(|state| state as u64), Some(number));
        }
        assert_eq!(ActivityState::from_number(4), None);
        assert_eq!(ActivityState::from_number(1 << 32), None);
    }
}
