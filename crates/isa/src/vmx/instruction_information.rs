//! The VM-exit instruction-information field.
//!
//! Modelled: the tables of SDM 28.2.5 "Information for VM Exits Due to Instruction Execution". They never put two meanings into one place
//! except in bits 31:28, so one layout serves all; which parts are defined depends on the instruction. Not modelled: LOADIWKEY's table.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// The VM-exit instruction-information field, SDM 28.2.5 "Information for VM Exits Due to Instruction Execution".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct InstructionInformation {
    /// Scaling of the index register: 0 no scaling, 1 by 2, 2 by 4, 3 by 8.
    #[bits(2)]
    pub scaling: u8,
    __: bool,
    /// Reg1: number of the general-purpose register that is the operand (where `register_operand` is set), or that RDRAND fills.
    #[bits(4)]
    pub register1: u8,
    /// Address size: 0 is 16 bits, 1 is 32 bits, 2 is 64 bits.
    #[bits(3)]
    pub address_size: u8,
    /// The operand is a register (otherwise in memory).
    pub register_operand: bool,
    /// Operand size: 0 is 16 bits, 1 is 32 bits, 2 is 64 bits.
    #[bits(2)]
    pub operand_size: u8,
    #[bits(2)]
    __: u8,
    /// Segment register: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS.
    #[bits(3)]
    pub segment: u8,
    /// Number of the index register.
    #[bits(4)]
    pub index: u8,
    /// There is no index register.
    pub index_invalid: bool,
    /// Number of the base register.
    #[bits(4)]
    pub base: u8,
    /// There is no base register.
    pub base_invalid: bool,
    /// Reg2: the second register operand of VMREAD, VMWRITE, INVEPT, INVVPID and INVPCID. For descriptor-table instructions the low
    /// two bits are the instruction identity instead; see [`DescriptorTableInstruction`] and [`LdtrOrTrInstruction`].
    #[bits(4)]
    pub register2: u8,
}

/// Instruction identity of an exit with reason "access to GDTR or IDTR".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum DescriptorTableInstruction {
    /// SGDT.
    Sgdt = 0,
    /// SIDT.
    Sidt = 1,
    /// LGDT.
    Lgdt = 2,
    /// LIDT.
    Lidt = 3,
}

/// Instruction identity of an exit with reason "access to LDTR or TR".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum LdtrOrTrInstruction {
    /// SLDT.
    Sldt = 0,
    /// STR.
    Str = 1,
    /// LLDT.
    Lldt = 2,
    /// LTR.
    Ltr = 3,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stand_where_the_manual_s_tables_put_them() {
        let rows = [
            (InstructionInformation::new().with_scaling(3).into_bits(), 0x3),
            (InstructionInformation::new().with_register1(15).into_bits(), 0x78),
            (InstructionInformation::new().with_address_size(2).into_bits(), 0x100),
            (InstructionInformation::new().with_register_operand(true).into_bits(), 0x400),
            (InstructionInformation::new().with_operand_size(3).into_bits(), 0x1800),
            (InstructionInformation::new().with_segment(7).into_bits(), 0x3_8000),
            (InstructionInformation::new().with_index(15).into_bits(), 0x3c_0000),
            (InstructionInformation::new().with_index_invalid(true).into_bits(), 0x40_0000),
            (InstructionInformation::new().with_base(15).into_bits(), 0x780_0000),
            (InstructionInformation::new().with_base_invalid(true).into_bits(), 0x800_0000),
            (InstructionInformation::new().with_register2(15).into_bits(), 0xf000_0000),
        ];
        for (bits, expected) in rows {
            assert_eq!(bits, expected);
        }
    }
}
