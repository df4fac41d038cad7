//! The debug registers DR6 and DR7.
//!
//! What is modelled: SDM vol 3, 18.2 "Debug Registers"; APM vol 2, 13.1 "Software-Debug Resources".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// DR6, the debug status register.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Dr6 {
    /// Which of the four breakpoint conditions were met.
    #[bits(4)]
    pub b: u8,
    #[bits(7)]
    __: u8,
    /// Clear when a bus lock raised the exception; set otherwise.
    pub bld: bool,
    __: bool,
    /// The next instruction accesses a debug register.
    pub bd: bool,
    /// Single step.
    pub bs: bool,
    /// Task switch.
    pub bt: bool,
    /// Clear when the exception arose inside a transaction; set otherwise.
    pub rtm: bool,
    #[bits(47)]
    __: u64,
}

impl Dr6 {
    /// Bits 31:16 and 11:4 read as one: the value after reset.
    pub const RESET: u64 = 0xffff_0ff0;
}

/// DR7, the debug control register, by its flag bits; the four breakpoints are read through `breakpoint`.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Dr7 {
    /// Local and global enables of the four breakpoints, two bits each.
    pub enables: u8,
    /// Local exact breakpoint enable.
    pub le: bool,
    /// Global exact breakpoint enable.
    pub ge: bool,
    /// Always one.
    pub fixed: bool,
    /// Restricted transactional memory debugging.
    pub rtm: bool,
    __: bool,
    /// General detect enable.
    pub gd: bool,
    #[bits(2)]
    __: u8,
    /// R/W and LEN of the four breakpoints, four bits each.
    pub conditions: u16,
    __: u32,
}

impl Dr7 {
    /// The value after reset.
    pub const RESET: u64 = 0x400;
}

/// What a breakpoint watches: the R/W field of DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakpointKind {
    /// Instruction execution.
    Execute,
    /// Data writes.
    Write,
    /// I/O reads and writes (CR4.DE set).
    Io,
    /// Data reads and writes, not fetches.
    Access,
}

impl Dr7 {
    /// Breakpoint `index` (0..4): its kind and its length in bytes, if it is enabled locally or globally.
    pub const fn breakpoint(self, index: u32) -> Option<(BreakpointKind, u64)> {
        if (self.enables() >> (2 * index)) & 3 == 0 {
            return None;
        }
        let condition = (self.conditions() >> (4 * index)) & 0xf;
        let kind = match condition & 3 {
            0 => BreakpointKind::Execute,
            1 => BreakpointKind::Write,
            2 => BreakpointKind::Io,
            _ => BreakpointKind::Access,
        };
        let length = match condition >> 2 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        };
        Some((kind, length))
    }
}
