//! Segmentation: selectors, attributes, descriptors, gates.
//!
//! What is modelled: SDM vol 3, 3.4 "Logical and Linear Addresses" and 5.8 "Privilege Level Checking When Transferring Program Control
//! Between Code Segments"; APM vol 2, chapter 4 "Segmented Virtual Memory".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// A segment selector.
#[bitfield(u16)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Requested privilege level.
    #[bits(2)]
    pub rpl: u8,
    /// Table indicator: set for the LDT.
    pub ti: bool,
    /// Index of the descriptor.
    #[bits(13)]
    pub index: u16,
}

impl Selector {
    /// Whether this is a null selector: index 0 of the GDT, whatever its RPL.
    pub const fn is_null(self) -> bool {
        self.into_bits() & !3 == 0
    }

    /// The selector as an error code names it: without the RPL.
    pub const fn error_code(self) -> u32 {
        (self.into_bits() & !3) as u32
    }
}

/// Attributes of a segment register: the access-rights format of the VMCS, bits 15:0, with bit 16 for "unusable".
/// SDM vol 3, 25.4.1 "Guest Register State", table "Format of Access Rights".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Segment type (bit 0 accessed, bit 1 writable or readable, bit 2 expand-down or conforming, bit 3 code).
    #[bits(4)]
    pub kind: u8,
    /// Descriptor type: set for code and data, clear for system segments.
    pub s: bool,
    /// Descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// Present.
    pub p: bool,
    #[bits(4)]
    __: u8,
    /// Available to software.
    pub avl: bool,
    /// 64-bit code segment.
    pub l: bool,
    /// Default operation size: set for 32-bit.
    pub db: bool,
    /// Granularity: the limit counts 4-KiB units.
    pub g: bool,
    /// The register holds a null selector and may not be used.
    pub unusable: bool,
    #[bits(15)]
    __: u16,
}

impl Attributes {
    /// Code segment (bit 3 of the type, with S set).
    pub const fn is_code(self) -> bool {
        self.s() && self.kind() & 8 != 0
    }

    /// Data segment.
    pub const fn is_data(self) -> bool {
        self.s() && self.kind() & 8 == 0
    }

    /// Data that may be written.
    pub const fn is_writable(self) -> bool {
        self.is_data() && self.kind() & 2 != 0
    }

    /// Data, or code that may be read.
    pub const fn is_readable(self) -> bool {
        self.is_data() || self.is_code() && self.kind() & 2 != 0
    }

    /// Conforming code.
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }

    /// Data whose limit bounds it from below.
    pub const fn is_expand_down(self) -> bool {
        self.is_data() && self.kind() & 4 != 0
    }
}

/// A segment register: its visible selector and its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// The visible part.
    pub selector: Selector,
    /// Linear address of the first byte.
    pub base: u64,
    /// Last valid offset in bytes (granularity applied).
    pub limit: u32,
    /// Type, privilege and sizes.
    pub attributes: Attributes,
}

impl SegmentRegister {
    /// A segment as real-address mode makes it: base is selector * 16, limit 64 KiB, writable and accessed data.
    pub const fn real_mode(selector: u16) -> Self {
        Self {
            selector: Selector::from_bits(selector),
            base: (selector as u64) << 4,
            limit: 0xffff,
            attributes: Attributes::from_bits(0x93),
        }
    }

    /// A segment as virtual-8086 mode makes it: as in real-address mode, but of privilege level 3. SDM vol 3, 27.3.1.2 "Checks on Guest
    /// Segment Registers".
    pub const fn virtual_8086(selector: u16) -> Self {
        Self { attributes: Attributes::from_bits(0xf3), ..Self::real_mode(selector) }
    }

    /// What a load of a null selector leaves: unusable, base and limit zero.
    pub const fn null(selector: Selector) -> Self {
        Self { selector, base: 0, limit: 0, attributes: Attributes::from_bits(1 << 16) }
    }

    /// Whether the register may be used for accesses outside 64-bit mode.
    pub const fn is_usable(&self) -> bool {
        !self.attributes.unusable()
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

/// A segment descriptor as it lies in the GDT or LDT (8 bytes; 16-byte system descriptors add `base_high`).
/// SDM vol 3, 3.4.5 "Segment Descriptors".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Linear base, bits 31:0.
    pub const fn base(self) -> u64 {
        (self.0 >> 16) & 0xff_ffff | (self.0 >> 32) & 0xff00_0000
    }

    /// Limit in bytes, granularity applied.
    pub const fn limit(self) -> u32 {
        let raw = (self.0 & 0xffff | (self.0 >> 32) & 0xf_0000) as u32;
        if self.attributes().g() { raw << 12 | 0xfff } else { raw }
    }

    /// Attributes in the register's format.
    pub const fn attributes(self) -> Attributes {
        Attributes::from_bits((self.0 >> 40) as u32 & 0xf0ff)
    }

    /// Whether the accessed flag of a code or data descriptor is set.
    pub const fn is_accessed(self) -> bool {
        self.0 & 1 << 40 != 0
    }

    /// The segment register that a load of this descriptor leaves.
    pub const fn load(self, selector: Selector) -> SegmentRegister {
        SegmentRegister { selector, base: self.base(), limit: self.limit(), attributes: self.attributes() }
    }
}

/// Types of system descriptors (S clear). SDM vol 3, Table 3-2 "System-Segment and Gate-Descriptor Types".
pub mod system {
    /// 16-bit TSS, available.
    pub const TSS16_AVAILABLE: u8 = 1;
    /// LDT.
    pub const LDT: u8 = 2;
    /// 16-bit TSS, busy.
    pub const TSS16_BUSY: u8 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE16: u8 = 4;
    /// Task gate.
    pub const TASK_GATE: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT_GATE16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE16: u8 = 7;
    /// 32-bit or 64-bit TSS, available.
    pub const TSS_AVAILABLE: u8 = 9;
    /// 32-bit or 64-bit TSS, busy.
    pub const TSS_BUSY: u8 = 11;
    /// 32-bit or 64-bit call gate.
    pub const CALL_GATE: u8 = 12;
    /// 32-bit or 64-bit interrupt gate.
    pub const INTERRUPT_GATE: u8 = 14;
    /// 32-bit or 64-bit trap gate.
    pub const TRAP_GATE: u8 = 15;
}

/// A call, interrupt, trap or task gate: the low eight bytes, and in long mode the upper offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Low eight bytes.
    pub low: u64,
    /// High eight bytes (long mode only; zero otherwise).
    pub high: u64,
}

impl Gate {
    /// Target selector (TSS selector in a task gate).
    pub const fn selector(self) -> Selector {
        Selector::from_bits((self.low >> 16) as u16)
    }

    /// Target offset; the caller truncates it for 16-bit gates.
    pub const fn offset(self) -> u64 {
        self.low & 0xffff | (self.low >> 32) & 0xffff_0000 | (self.high & 0xffff_ffff) << 32
    }

    /// Attributes (type, DPL, P).
    pub const fn attributes(self) -> Attributes {
        Attributes::from_bits((self.low >> 40) as u32 & 0xff)
    }

    /// Parameter count of a call gate.
    pub const fn parameters(self) -> u8 {
        (self.low >> 32) as u8 & 0x1f
    }

    /// Interrupt-stack-table index of a long-mode interrupt gate.
    pub const fn ist(self) -> u8 {
        (self.low >> 32) as u8 & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_long_mode_code_descriptor_decodes() {
        let descriptor = Descriptor(0x00af_9b00_0000_ffff);
        assert_eq!(descriptor.base(), 0);
        assert_eq!(descriptor.limit(), u32::MAX);
        assert!(descriptor.attributes().is_code() && descriptor.attributes().l() && descriptor.attributes().p());
    }

    #[test]
    fn a_descriptor_spreads_base_and_limit_over_its_bytes() {
        let descriptor = Descriptor(0x1240_92ab_cdef_1234);
        assert_eq!((descriptor.base(), descriptor.limit()), (0x12ab_cdef, 0x1234));
        assert!(descriptor.attributes().is_writable() && descriptor.attributes().db());
    }

    #[test]
    fn a_long_mode_gate_joins_three_offset_parts() {
        let gate = Gate { low: 0xdead_8e03_0008_beef, high: 0xffff_ffff };
        assert_eq!(gate.offset(), 0xffff_ffff_dead_beef);
        assert_eq!((gate.selector().into_bits(), gate.ist(), gate.attributes().kind()), (8, 3, system::INTERRUPT_GATE));
    }
}
