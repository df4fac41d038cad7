//! Exit qualifications: what more there is to say about an exit, one layout for each reason that has one.
//!
//! Modelled: the tables of SDM 28.2.1 "Basic VM-Exit Information" that are bit fields. A qualification that is a linear address or a
//! displacement (INVLPG, page faults, VMREAD and its like) is a plain `u64` and needs no type. Not modelled: SPP-related events.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Exit qualification of debug exceptions, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugQualification {
    /// B3-B0: the breakpoint conditions that were met.
    #[bits(4)]
    pub breakpoints: u8,
    #[bits(7)]
    __: u8,
    /// BLD: a bus lock was acquired.
    pub bus_lock_detected: bool,
    __: bool,
    /// BD: a debug register was accessed while DR7.GD was set.
    pub debug_register_access: bool,
    /// BS: single step, or a taken branch while DEBUGCTL.BTF was set.
    pub single_step: bool,
    __: bool,
    /// RTM: the exception happened inside an RTM region.
    pub restricted_transactional_memory: bool,
    #[bits(47)]
    __: u64,
}

/// What started a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum TaskSwitchSource {
    /// CALL instruction.
    Call = 0,
    /// IRET instruction.
    Iret = 1,
    /// JMP instruction.
    Jmp = 2,
    /// Task gate in the IDT.
    TaskGateInIdt = 3,
}

impl TaskSwitchSource {
    const fn from_bits(bits: u8) -> TaskSwitchSource {
        match bits & 3 {
            0 => TaskSwitchSource::Call,
            1 => TaskSwitchSource::Iret,
            2 => TaskSwitchSource::Jmp,
            _ => TaskSwitchSource::TaskGateInIdt,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// Exit qualification of task switches, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSwitchQualification {
    /// Selector of the task-state segment that the guest tried to switch to.
    pub selector: u16,
    #[bits(14)]
    __: u16,
    /// What started the switch.
    #[bits(2)]
    pub source: TaskSwitchSource,
    __: u32,
}

/// How a control register was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ControlRegisterAccessType {
    /// MOV to CR.
    MovToCr = 0,
    /// MOV from CR.
    MovFromCr = 1,
    /// CLTS.
    Clts = 2,
    /// LMSW.
    Lmsw = 3,
}

impl ControlRegisterAccessType {
    const fn from_bits(bits: u8) -> ControlRegisterAccessType {
        match bits & 3 {
            0 => ControlRegisterAccessType::MovToCr,
            1 => ControlRegisterAccessType::MovFromCr,
            2 => ControlRegisterAccessType::Clts,
            _ => ControlRegisterAccessType::Lmsw,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// Exit qualification of control-register accesses, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRegisterQualification {
    /// Number of the control register; 0 for CLTS and LMSW.
    #[bits(4)]
    pub register: u8,
    /// How it was accessed.
    #[bits(2)]
    pub access_type: ControlRegisterAccessType,
    /// LMSW: the operand is in memory.
    pub lmsw_memory_operand: bool,
    __: bool,
    /// MOV CR: number of the general-purpose register.
    #[bits(4)]
    pub general_register: u8,
    #[bits(4)]
    __: u8,
    /// LMSW: the source data.
    pub lmsw_source: u16,
    __: u32,
}

/// Exit qualification of MOV DR, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct MovDrQualification {
    /// Number of the debug register.
    #[bits(3)]
    pub register: u8,
    __: bool,
    /// MOV from DR (otherwise MOV to DR).
    pub from_debug_register: bool,
    #[bits(3)]
    __: u8,
    /// Number of the general-purpose register.
    #[bits(4)]
    pub general_register: u8,
    #[bits(52)]
    __: u64,
}

/// Exit qualification of I/O instructions, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct IoQualification {
    /// Size of the access in bytes, less one: 0, 1 or 3.
    #[bits(3)]
    pub size_minus_one: u8,
    /// IN or INS (otherwise OUT or OUTS).
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// REP prefixed.
    pub repeated: bool,
    /// The port is an immediate operand (otherwise in DX).
    pub immediate: bool,
    #[bits(9)]
    __: u16,
    /// Port number.
    pub port: u16,
    __: u32,
}

impl IoQualification {
    /// Size of the access in bytes.
    pub const fn size(self) -> u8 {
        self.size_minus_one() + 1
    }
}

/// How a guest reached the APIC-access page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ApicAccessType {
    /// Linear access for a data read during instruction execution.
    LinearRead = 0,
    /// Linear access for a data write during instruction execution.
    LinearWrite = 1,
    /// Linear access for an instruction fetch.
    LinearFetch = 2,
    /// Linear access (read or write) during event delivery.
    LinearEventDelivery = 3,
    /// Guest-physical access during event delivery.
    PhysicalEventDelivery = 10,
    /// Guest-physical access for an instruction fetch or during instruction execution.
    PhysicalInstruction = 15,
}

impl ApicAccessType {
    const fn from_bits(bits: u8) -> ApicAccessType {
        match bits {
            0 => ApicAccessType::LinearRead,
            1 => ApicAccessType::LinearWrite,
            2 => ApicAccessType::LinearFetch,
            3 => ApicAccessType::LinearEventDelivery,
            10 => ApicAccessType::PhysicalEventDelivery,
            _ => ApicAccessType::PhysicalInstruction,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// Exit qualification of APIC accesses, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ApicAccessQualification {
    /// Offset of the access within the page (linear accesses).
    #[bits(12)]
    pub offset: u16,
    /// Kind of access.
    #[bits(4)]
    pub access_type: ApicAccessType,
    /// The access was asynchronous to instruction execution.
    pub asynchronous: bool,
    #[bits(47)]
    __: u64,
}

/// Exit qualification of EPT violations, SDM 28.2.1 "Basic VM-Exit Information".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct EptViolationQualification {
    /// The access was a data read.
    pub read: bool,
    /// The access was a data write.
    pub write: bool,
    /// The access was an instruction fetch.
    pub fetch: bool,
    /// The guest-physical address was readable.
    pub readable: bool,
    /// The guest-physical address was writeable.
    pub writable: bool,
    /// The guest-physical address was executable (with mode-based execute control: for supervisor-mode linear addresses).
    pub executable: bool,
    /// With mode-based execute control: the address was executable for user-mode linear addresses; otherwise undefined.
    pub user_executable: bool,
    /// The guest-linear address field is valid.
    pub linear_address_valid: bool,
    /// The access was to the translation of a linear address (otherwise to a paging-structure entry).
    pub translation_of_linear_address: bool,
    /// Advanced information: the linear address is a user-mode address.
    pub user_mode_linear_address: bool,
    /// Advanced information: paging translates the linear address to a read/write page.
    pub read_write_page: bool,
    /// Advanced information: paging translates the linear address to an execute-disable page.
    pub execute_disable_page: bool,
    /// NMI unblocking due to IRET.
    pub nmi_unblocking_due_to_iret: bool,
    /// The access was a shadow-stack access.
    pub shadow_stack_access: bool,
    /// The address was a supervisor shadow-stack page by EPT.
    pub supervisor_shadow_stack: bool,
    /// Caused by guest-paging verification.
    pub guest_paging_verification: bool,
    /// The access was asynchronous to instruction execution.
    pub asynchronous: bool,
    #[bits(47)]
    __: u64,
}

/// Exit qualification of a VM-entry failure due to invalid guest state, SDM 27.8 "VM-Entry Failures During or After Loading Guest State".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u64)]
pub enum InvalidGuestStateQualification {
    /// Not used by the architecture, or a failure with no more to say.
    Unspecified = 0,
    /// A PDPTE that cannot be loaded.
    Pdptes = 2,
    /// An NMI is to be injected while STI or MOV SS blocks.
    NmiInjection = 3,
    /// The VMCS link pointer is invalid.
    VmcsLinkPointer = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_qualification_reads_as_the_manual_s_table() {
        let out = IoQualification::new().with_size_minus_one(0).with_port(0x3f8);
        assert_eq!(out.into_bits(), 0x03f8_0000);
        let rep_insw = IoQualification::from_bits(0x01f0_0039);
        assert!(rep_insw.input() && rep_insw.string() && rep_insw.repeated() && !rep_insw.immediate());
        assert_eq!((rep_insw.size(), rep_insw.port()), (2, 0x1f0));
    }

    #[test]
    fn a_control_register_qualification_reads_as_the_manual_s_table() {
        let mov = ControlRegisterQualification::from_bits(0x0b14);
        assert_eq!(mov.register(), 4);
        assert_eq!(mov.access_type(), ControlRegisterAccessType::MovFromCr);
        assert_eq!(mov.general_register(), 11);
        let lmsw = ControlRegisterQualification::from_bits(0x1234_0070);
        assert_eq!(lmsw.access_type(), ControlRegisterAccessType::Lmsw);
        assert!(lmsw.lmsw_memory_operand());
        assert_eq!(lmsw.lmsw_source(), 0x1234);
    }

    #[test]
    fn the_places_of_single_bits() {
        let rows = [
            (DebugQualification::new().with_single_step(true).into_bits(), 14),
            (DebugQualification::new().with_debug_register_access(true).into_bits(), 13),
            (DebugQualification::new().with_restricted_transactional_memory(true).into_bits(), 16),
            (MovDrQualification::new().with_from_debug_register(true).into_bits(), 4),
            (EptViolationQualification::new().with_linear_address_valid(true).into_bits(), 7),
            (EptViolationQualification::new().with_nmi_unblocking_due_to_iret(true).into_bits(), 12),
            (ApicAccessQualification::new().with_asynchronous(true).into_bits(), 16),
            (TaskSwitchQualification::new().with_source(TaskSwitchSource::Jmp).into_bits(), 31),
        ];
        for (bits, place) in rows {
            assert_eq!(bits, 1 << place);
        }
    }
}
