//! The control registers CR0, CR3, CR4, EFER and XCR0.
//!
//! What is modelled: SDM vol 3, 2.5 "Control Registers"; APM vol 2, 3.1 "System-Control Registers".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// CR0.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Cr0 {
    /// Protection enable.
    pub pe: bool,
    /// Monitor coprocessor.
    pub mp: bool,
    /// Emulation.
    pub em: bool,
    /// Task switched.
    pub ts: bool,
    /// Extension type; always one.
    pub et: bool,
    /// Numeric error.
    pub ne: bool,
    #[bits(10)]
    __: u16,
    /// Write protect.
    pub wp: bool,
    __: bool,
    /// Alignment mask.
    pub am: bool,
    #[bits(10)]
    __: u16,
    /// Not write-through.
    pub nw: bool,
    /// Cache disable.
    pub cd: bool,
    /// Paging.
    pub pg: bool,
    __: u32,
}

impl Cr0 {
    /// The bits that have a meaning.
    pub const DEFINED: u64 = 0xe005_003f;
}

/// CR4.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Cr4 {
    /// Virtual-8086 mode extensions.
    pub vme: bool,
    /// Protected-mode virtual interrupts.
    pub pvi: bool,
    /// Time stamp disable.
    pub tsd: bool,
    /// Debugging extensions.
    pub de: bool,
    /// Page size extensions.
    pub pse: bool,
    /// Physical address extension.
    pub pae: bool,
    /// Machine-check enable.
    pub mce: bool,
    /// Page global enable.
    pub pge: bool,
    /// Performance-monitoring counter enable.
    pub pce: bool,
    /// Operating system support for FXSAVE and FXRSTOR.
    pub osfxsr: bool,
    /// Operating system support for unmasked SIMD floating-point exceptions.
    pub osxmmexcpt: bool,
    /// User-mode instruction prevention.
    pub umip: bool,
    /// 57-bit linear addresses.
    pub la57: bool,
    /// VMX enable.
    pub vmxe: bool,
    /// SMX enable.
    pub smxe: bool,
    __: bool,
    /// FSGSBASE enable.
    pub fsgsbase: bool,
    /// PCID enable.
    pub pcide: bool,
    /// XSAVE and processor extended states enable.
    pub osxsave: bool,
    /// Key locker enable.
    pub kl: bool,
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// Protection keys for user-mode pages.
    pub pke: bool,
    /// Control-flow enforcement.
    pub cet: bool,
    /// Protection keys for supervisor-mode pages.
    pub pks: bool,
    #[bits(39)]
    __: u64,
}

/// IA32_EFER / EFER.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Efer {
    /// SYSCALL enable.
    pub sce: bool,
    #[bits(7)]
    __: u8,
    /// Long mode enable.
    pub lme: bool,
    __: bool,
    /// Long mode active.
    pub lma: bool,
    /// No-execute enable.
    pub nxe: bool,
    /// Secure virtual machine enable (AMD).
    pub svme: bool,
    /// Long mode segment limit enable (AMD).
    pub lmsle: bool,
    /// Fast FXSAVE and FXRSTOR (AMD).
    pub ffxsr: bool,
    /// Translation cache extension (AMD): INVLPG may keep entries of upper levels, of which no cache here holds any.
    pub tce: bool,
    #[bits(48)]
    __: u64,
}

/// The bits of CR3 that are not the page-table address.
pub mod cr3 {
    /// Page-level write-through, bit 3 (only when CR4.PCIDE is clear).
    pub const PWT: u64 = 1 << 3;
    /// Page-level cache disable, bit 4 (only when CR4.PCIDE is clear).
    pub const PCD: u64 = 1 << 4;
    /// The process-context identifier (only when CR4.PCIDE is set).
    pub const PCID: u64 = 0xfff;
    /// In the source operand of MOV to CR3 with CR4.PCIDE set: keep the PCID's translations.
    pub const NO_FLUSH: u64 = 1 << 63;
}

/// XCR0, SDM vol 1, 13.3 "Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
pub mod xcr0 {
    /// x87 state; always set.
    pub const X87: u64 = 1 << 0;
    /// SSE state (XMM registers and MXCSR).
    pub const SSE: u64 = 1 << 1;
    /// AVX state.
    pub const AVX: u64 = 1 << 2;
    /// PKRU, the rights of protection keys.
    pub const PKRU: u64 = 1 << 9;
}
