//! The formats of EXITINFO1 and EXITINFO2, by exit code.
//!
//! Manual: APM volume 2; the section of each format is beside it.
//! What is modelled: IOIO, nested page faults, MSR, MOV CRn and MOV DRn with decode assists, task switches.
//! What is not: formats of AVIC and SEV exits. For INVLPG EXITINFO1 is the linear address, for INTn the vector, for
//! an intercepted #PF EXITINFO1 is the error code and EXITINFO2 the address: these need no structure.

use bitfield_struct::bitfield;

/// EXITINFO1 of VMEXIT_MSR for RDMSR; APM 15.11 "MSR Intercepts".
pub const MSR_READ: u64 = 0;
/// EXITINFO1 of VMEXIT_MSR for WRMSR.
pub const MSR_WRITE: u64 = 1;

/// EXITINFO1 of VMEXIT_IOIO; EXITINFO2 is the address of the next instruction.
///
/// APM 15.10.2 "IN and OUT Behavior".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IoInfo {
    /// TYPE, bit 0: IN, not OUT.
    pub input: bool,
    __: bool,
    /// STR, bit 2: INS or OUTS.
    pub string: bool,
    /// REP, bit 3.
    pub repeated: bool,
    /// SZ8, SZ16, SZ32, bits 6:4: the operand size in bytes (1, 2 or 4).
    #[bits(3)]
    pub size: u8,
    /// A16, A32, A64, bits 9:7: the address size in units of 16 bits (1, 2 or 4).
    #[bits(3)]
    pub address_size: u8,
    /// SEG, bits 12:10: the effective segment of INS or OUTS (ES CS SS DS FS GS), with decode assists.
    #[bits(3)]
    pub segment: u8,
    #[bits(3)]
    __: u8,
    /// PORT, bits 31:16.
    pub port: u16,
    __: u32,
}

/// EXITINFO1 of VMEXIT_NPF; EXITINFO2 is the guest physical address.
///
/// APM 15.25.6 "Nested versus Guest Page Faults, Fault Ordering".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct NestedPageFaultInfo {
    /// P, bit 0: the nested page was present.
    pub present: bool,
    /// RW, bit 1: the access was a write (guest page-table walks with A/D updates are writes).
    pub write: bool,
    /// US, bit 2: always one: nested walks are user accesses.
    pub user: bool,
    /// RSV, bit 3: a reserved bit was set in a nested entry.
    pub reserved_bit: bool,
    /// ID, bit 4: an instruction fetch.
    pub instruction_fetch: bool,
    __: bool,
    /// SS, bit 6: a shadow-stack access.
    pub shadow_stack: bool,
    #[bits(25)]
    __: u32,
    /// Bit 32: the fault came while translating the final guest physical address.
    pub final_translation: bool,
    /// Bit 33: the fault came while translating a guest page-table entry's address.
    pub page_table_walk: bool,
    #[bits(30)]
    __: u32,
}

/// EXITINFO1 of VMEXIT_CRn_READ and VMEXIT_CRn_WRITE with decode assists.
///
/// APM 15.33 "Decode Assists", "MOV CRx/DRx Intercepts".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CrInfo {
    /// Bits 3:0: the general register.
    #[bits(4)]
    pub register: u8,
    #[bits(59)]
    __: u64,
    /// Bit 63: the instruction was MOV CRn; clear for CLTS, LMSW and SMSW.
    pub mov: bool,
}

/// EXITINFO1 of VMEXIT_DRn_READ and VMEXIT_DRn_WRITE with decode assists.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DrInfo {
    /// Bits 3:0: the general register.
    #[bits(4)]
    pub register: u8,
    #[bits(60)]
    __: u64,
}

/// EXITINFO2 of VMEXIT_TASK_SWITCH; EXITINFO1 bits 15:0 are the selector of the incoming TSS.
///
/// APM 15.14.1 "Task Switch Intercept".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TaskSwitchInfo {
    /// Bits 31:0: the error code to push in the new task, if bit 44 is set.
    pub error_code: u32,
    #[bits(4)]
    __: u8,
    /// Bit 36: the switch came from an IRET.
    pub iret: bool,
    __: bool,
    /// Bit 38: the switch came from a far jump.
    pub jump: bool,
    #[bits(5)]
    __: u8,
    /// Bit 44: there is an error code.
    pub has_error_code: bool,
    #[bits(3)]
    __: u8,
    /// Bit 48: the value of RFLAGS.RF that would be saved in the outgoing TSS.
    pub resume_flag: bool,
    #[bits(15)]
    __: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_words() {
        // `out 0x3f8, al` in 64-bit code and `rep insw` from port 0x1f0 in 32-bit code.
        let out = IoInfo::new().with_size(1).with_address_size(4).with_port(0x3f8);
        assert_eq!(out.into_bits(), 0x03f8_0210);
        let ins = IoInfo::new().with_input(true).with_string(true).with_repeated(true).with_size(2).with_address_size(2).with_port(0x1f0);
        assert_eq!(ins.into_bits(), 0x01f0_012d);
    }

    #[test]
    fn nested_page_fault_and_register_words() {
        let fault = NestedPageFaultInfo::new().with_user(true).with_write(true).with_final_translation(true);
        assert_eq!(fault.into_bits(), 0x1_0000_0006);
        assert_eq!(CrInfo::new().with_mov(true).with_register(3).into_bits(), 0x8000_0000_0000_0003);
        assert_eq!(TaskSwitchInfo::new().with_jump(true).with_has_error_code(true).into_bits(), 0x1040_0000_0000);
    }
}
