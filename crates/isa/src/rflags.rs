//! The RFLAGS register.
//!
//! What is modelled: SDM vol 1, 3.4.3 "EFLAGS Register"; APM vol 2, 3.1.6 "RFLAGS Register".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// RFLAGS. Bit 1 always reads as one; `normalized` makes it so.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Rflags {
    /// Carry flag.
    pub cf: bool,
    /// Always one.
    pub fixed: bool,
    /// Parity flag.
    pub pf: bool,
    __: bool,
    /// Auxiliary carry flag.
    pub af: bool,
    __: bool,
    /// Zero flag.
    pub zf: bool,
    /// Sign flag.
    pub sf: bool,
    /// Trap flag.
    pub tf: bool,
    /// Interrupt enable flag.
    pub r#if: bool,
    /// Direction flag.
    pub df: bool,
    /// Overflow flag.
    pub of: bool,
    /// I/O privilege level.
    #[bits(2)]
    pub iopl: u8,
    /// Nested task.
    pub nt: bool,
    __: bool,
    /// Resume flag.
    pub rf: bool,
    /// Virtual-8086 mode.
    pub vm: bool,
    /// Alignment check, and access control under SMAP.
    pub ac: bool,
    /// Virtual interrupt flag.
    pub vif: bool,
    /// Virtual interrupt pending.
    pub vip: bool,
    /// CPUID can be executed.
    pub id: bool,
    #[bits(42)]
    __: u64,
}

/// The six status flags that arithmetic writes: CF, PF, AF, ZF, SF, OF.
pub const STATUS: u64 = 0x8d5;

/// Every bit that is not reserved.
pub const DEFINED: u64 = 0x003f_7fd7;

impl Rflags {
    /// The value with bit 1 set and all reserved bits clear, as any load of RFLAGS leaves it.
    pub const fn normalized(self) -> Self {
        Self::from_bits((self.into_bits() & DEFINED) | 2)
    }
}
