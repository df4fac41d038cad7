//! Guest-state fields that have a format of their own: access rights, interruptibility, activity, pending debug exceptions.
//!
//! Modelled: SDM 25.4.1 "Guest Register State" and 25.4.2 "Guest Non-Register State". The meaning of segment types is in `isa::segment`.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Segment access rights as a VMCS holds them, SDM 25.4.1 "Guest Register State".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRights {
    /// Segment type, as in bits 11:8 of a descriptor's second word.
    #[bits(4)]
    pub segment_type: u8,
    /// S: code or data segment (otherwise system).
    pub code_or_data: bool,
    /// DPL: descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// P: segment present.
    pub present: bool,
    /// Reserved; VM entry checks it to be 0 where the segment is usable.
    #[bits(4)]
    pub reserved_low: u8,
    /// AVL: available for use by system software.
    pub available: bool,
    /// L: 64-bit mode active (CS only).
    pub long: bool,
    /// D/B: default operation size (1 is 32 bits).
    pub default_big: bool,
    /// G: granularity (limit in units of 4 KiB).
    pub granularity: bool,
    /// Segment unusable, as after a null selector was loaded.
    pub unusable: bool,
    /// Reserved; VM entry checks it to be 0 where the segment is usable.
    #[bits(15)]
    pub reserved_high: u16,
}

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
    fn a_flat_64_bit_code_segment() {
        let rights = AccessRights::from_bits(0xa09b);
        assert_eq!(rights.segment_type(), 0xb);
        assert!(rights.code_or_data() && rights.present() && rights.long() && rights.granularity());
        assert!(!rights.default_big() && !rights.unusable());
        assert!(AccessRights::from_bits(0x1_0000).unusable());
    }

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
