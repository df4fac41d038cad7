//! Why an instruction did not simply complete: exceptions, intercepted events, and what is not modelled.
//!
//! What is modelled: the neutral vocabulary between the core and the silicon. A guest-visible fault is a value of [`Exception`]; an event
//! that the virtualization hardware takes away from the guest is an [`Exit`]; what Trapline does not model is [`NotModelled`] and ends the
//! run. None of them is a Rust error that `?` could confuse with a bug of ours: each is a variant of [`Trap`].

use crate::extension::GuestPage;
use isa::exception::{PageFaultCode, Vector};
use isa::register::Segment;
use serde::{Deserialize, Serialize};

/// A result of something an instruction does.
pub type Outcome<T = ()> = Result<T, Trap>;

/// What ended an instruction before it completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Trap {
    /// An exception to be delivered to the program that runs (unless the silicon intercepts it).
    Exception(Exception),
    /// The event leaves the guest: the silicon makes a VM exit or #VMEXIT of it.
    Exit(Exit),
    /// The run cannot go on.
    NotModelled(Box<NotModelled>),
}

/// What Trapline does not model: the run stops and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("not modelled: {what} (bytes {bytes:02x?}, `{text}`, at RIP {rip:#x})")]
pub struct NotModelled {
    /// What it is.
    pub what: String,
    /// Bytes of the instruction; empty when no instruction is to blame.
    pub bytes: Vec<u8>,
    /// Its text in Intel syntax.
    pub text: String,
    /// RIP of the instruction.
    pub rip: u64,
}

/// An exception with all that its delivery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Which.
    pub vector: Vector,
    /// The error code, for vectors that have one.
    pub error_code: Option<u32>,
    /// For #PF: the linear address for CR2.
    pub address: u64,
    /// For #DB: the bits to set in DR6.
    pub debug: u64,
}

impl Exception {
    /// An exception without error code.
    pub const fn plain(vector: Vector) -> Self {
        Self { vector, error_code: None, address: 0, debug: 0 }
    }

    /// An exception with an error code.
    pub const fn with_code(vector: Vector, error_code: u32) -> Self {
        Self { vector, error_code: Some(error_code), address: 0, debug: 0 }
    }

    /// #PF.
    pub const fn page_fault(address: u64, code: PageFaultCode) -> Self {
        Self { vector: Vector::PageFault, error_code: Some(code.into_bits()), address, debug: 0 }
    }

    /// #DB with the DR6 bits that say why.
    pub const fn debug(bits: u64) -> Self {
        Self { vector: Vector::Debug, error_code: None, address: 0, debug: bits }
    }
}

impl Trap {
    /// #UD.
    pub const UD: Self = Self::Exception(Exception::plain(Vector::InvalidOpcode));
    /// #NM.
    pub const NM: Self = Self::Exception(Exception::plain(Vector::DeviceNotAvailable));
    /// #DE.
    pub const DE: Self = Self::Exception(Exception::plain(Vector::DivideError));
    /// #GP(0).
    pub const GP0: Self = Self::Exception(Exception::with_code(Vector::GeneralProtection, 0));
    /// #SS(0).
    pub const SS0: Self = Self::Exception(Exception::with_code(Vector::StackFault, 0));

    /// #GP with a selector or IDT error code.
    pub const fn gp(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::GeneralProtection, code))
    }

    /// #NP with a selector or IDT error code.
    pub const fn np(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::SegmentNotPresent, code))
    }

    /// #SS with a selector error code.
    pub const fn ss(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::StackFault, code))
    }

    /// #TS with a selector error code.
    pub const fn ts(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::InvalidTss, code))
    }

    /// Something Trapline does not model; the engine adds the instruction that was executing.
    pub fn not_modelled(what: impl Into<String>) -> Self {
        Self::NotModelled(Box::new(NotModelled { what: what.into(), bytes: Vec::new(), text: String::new(), rip: 0 }))
    }
}

/// How an event came about. SDM vol 3, 25.8.3 "VM-Entry Controls for Event Injection"; APM vol 2, 15.20 "Event Injection".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A maskable interrupt from outside.
    External,
    /// A non-maskable interrupt.
    Nmi,
    /// An exception raised by hardware.
    Exception,
    /// INT n.
    SoftwareInterrupt,
    /// INT1 (ICEBP).
    PrivilegedSoftware,
    /// INT3 or INTO.
    SoftwareException,
}

/// An event on its way through the IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// How it came about.
    pub kind: EventKind,
    /// Its vector.
    pub vector: u8,
    /// Error code to push, if any.
    pub error_code: Option<u32>,
    /// Bytes of the instruction that raised a software event: the pushed RIP is behind it.
    pub length: u8,
}

/// An event of the guest that leaves it. Neutral: the silicon turns it into an exit reason or exit code with its own information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// An instruction with no information but itself (CPUID, HLT, RDTSC, VMCALL...). It was not executed.
    Instruction {
        /// Which.
        intercept: Intercept,
        /// Its length in bytes.
        length: u8,
    },
    /// An instruction with a memory or register operand that the exit describes (INVLPG, LGDT, VMX instructions...). Not executed.
    Operand {
        /// Which.
        intercept: Intercept,
        /// Its length and operand.
        instruction: VendorInstruction,
    },
    /// An exception; `Cpu::delivering` tells the event during whose delivery it arose.
    Exception(Exception),
    /// INT n, INT3, INTO, INT1 intercepted as instruction (SVM only).
    SoftwareInterrupt {
        /// The vector.
        vector: u8,
        /// Length of the instruction in bytes.
        length: u8,
    },
    /// An external interrupt is pending. The vector is `None` while it is still with the interrupt controller.
    ExternalInterrupt {
        /// Vector, when it has been acknowledged.
        vector: Option<u8>,
    },
    /// A non-maskable interrupt is pending.
    Nmi,
    /// A system-management interrupt is pending.
    Smi,
    /// INIT signal.
    Init,
    /// Start-up IPI while waiting for one.
    Sipi {
        /// Its vector.
        vector: u8,
    },
    /// The guest can take an interrupt now and somebody wanted to know (VMX interrupt window, SVM VINTR).
    InterruptWindow,
    /// The guest can take an NMI now and somebody wanted to know.
    NmiWindow,
    /// A third fault during delivery of a double fault, or another shutdown condition.
    TripleFault,
    /// IN, OUT, INS, OUTS.
    Port(PortAccess),
    /// RDMSR, WRMSR.
    Msr {
        /// ECX.
        index: u32,
        /// WRMSR.
        write: bool,
        /// Length of the instruction in bytes.
        length: u8,
    },
    /// An access to a control register.
    Control(ControlAccess),
    /// MOV to or from a debug register.
    DebugRegister {
        /// 0 to 7.
        register: u8,
        /// MOV to the debug register.
        write: bool,
        /// The general-purpose register.
        gpr: u8,
        /// Length of the instruction in bytes.
        length: u8,
    },
    /// A guest-physical address could not be translated or used.
    Nested(NestedFault),
    /// An access to the APIC-access page (VMX).
    ApicAccess {
        /// Offset in the page.
        offset: u16,
        /// What for.
        access: Access,
        /// Of an entry of the guest's paging structures: an access by guest-physical address.
        table_walk: bool,
        /// Length of the instruction in bytes; 0 where none is to blame.
        length: u8,
    },
    /// A register of the virtual APIC was written (VMX).
    ApicWrite {
        /// Its offset.
        offset: u16,
    },
    /// A virtual interrupt has ended of which the host wants to know (VMX).
    VirtualizedEoi {
        /// Its vector.
        vector: u8,
    },
    /// A task switch.
    TaskSwitch {
        /// Selector of the new TSS.
        selector: u16,
        /// What caused it.
        source: TaskSwitchSource,
        /// Length of the instruction in bytes (0 through a gate by an external event).
        length: u8,
        /// Error code pushed on the new stack, if any.
        error_code: Option<u32>,
        /// RFLAGS.RF as it would be saved in the old TSS.
        resume_flag: bool,
    },
    /// The preemption timer counted down (VMX).
    PreemptionTimer,
    /// The monitor trap flag (VMX).
    MonitorTrap,
    /// The guest lowered its virtual TPR below the threshold (VMX).
    TprBelowThreshold,
}

/// What caused a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jump,
    /// A task gate in the IDT.
    Gate,
}

/// A port access as an exit describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAccess {
    /// Port number.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub width: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub repeat: bool,
    /// The port number is an immediate operand.
    pub immediate: bool,
    /// Segment of the memory operand of OUTS (ES for INS).
    pub segment: Segment,
    /// 16, 32 or 64: the address size of INS and OUTS.
    pub address_bits: u8,
    /// Linear address of the memory operand of INS and OUTS.
    pub linear: u64,
    /// Length of the instruction in bytes.
    pub length: u8,
}

/// An access to CR0, CR2, CR3, CR4 or CR8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAccess {
    /// Number of the control register.
    pub register: u8,
    /// How.
    pub kind: ControlAccessKind,
    /// The general-purpose register of a MOV.
    pub gpr: u8,
    /// The value to be written (MOV, and the 16 bits of LMSW).
    pub value: u64,
    /// Linear address of the memory operand of LMSW, if it has one.
    pub memory: Option<u64>,
    /// Length of the instruction in bytes.
    pub length: u8,
}

/// How a control register is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlAccessKind {
    /// MOV to the control register.
    MovTo,
    /// MOV from the control register.
    MovFrom,
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw,
    /// SMSW (intercepted by SVM as a read of CR0).
    Smsw,
}

/// What an access to memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write, and the read half of a read-modify-write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// Why a guest-physical address could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedFault {
    /// The guest-physical address.
    pub guest_physical: u64,
    /// The guest-linear address, if the access had one.
    pub linear: Option<u64>,
    /// What the access was for. The access to an entry of the guest's own page tables is a read, or a write when A or D bits are set.
    pub access: Access,
    /// The access was to a guest page-table entry, not to the final address.
    pub table_walk: bool,
    /// The access was made in user mode (CPL 3).
    pub user: bool,
    /// An entry of the nested tables is malformed: a misconfiguration rather than a violation.
    pub misconfiguration: bool,
    /// Reserved bits were set in an entry (NPT).
    pub reserved: bool,
    /// The nested entries were present.
    pub present: bool,
    /// Rights the nested tables give: bit 0 read, 1 write, 2 execute, 3 execute in user mode where that is a right of its own.
    pub rights: u8,
    /// What the guest's paging says of the linear address.
    pub guest: GuestPage,
    /// The log of modified pages is full (VMX): neither violation nor misconfiguration.
    pub log_full: bool,
    /// The event that was being delivered unblocked NMIs by IRET (VMX qualification bit 12).
    pub nmi_unblocking: bool,
}

/// Instructions and events that the silicon may intercept. One bit each in [`crate::extension::Interception`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the instruction or event it names")]
pub enum Intercept {
    Cpuid,
    Hlt,
    Invd,
    Wbinvd,
    Invlpg,
    Rdpmc,
    Rdtsc,
    Rdtscp,
    Monitor,
    Mwait,
    Pause,
    Rdrand,
    Rdseed,
    Invpcid,
    Xsetbv,
    Xsaves,
    Xrstors,
    Rsm,
    Pushf,
    Popf,
    Iret,
    IntN,
    Icebp,
    Sidt,
    Sgdt,
    Sldt,
    Str,
    Lidt,
    Lgdt,
    Lldt,
    Ltr,
    Ports,
    Msrs,
    Cr0Write,
    Cr0SelectiveWrite,
    Cr0Read,
    Cr2Read,
    Cr2Write,
    Cr3Read,
    Cr3Write,
    Cr4Read,
    Cr4Write,
    Cr8Read,
    Cr8Write,
    DrRead,
    DrWrite,
    TaskSwitch,
    ExternalInterrupt,
    Nmi,
    Smi,
    Init,
    Shutdown,
    InterruptWindow,
    NmiWindow,
    MonitorTrap,
    Vmcall,
    Vmmcall,
    Vmrun,
    Vmload,
    Vmsave,
    Stgi,
    Clgi,
    Skinit,
    Invlpga,
    Vmclear,
    Vmlaunch,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmresume,
    Vmwrite,
    Vmxoff,
    Vmxon,
    Invept,
    Invvpid,
    Vmfunc,
    Umwait,
    Encls,
    Getsec,
    // From here on in the order in which they came: records of processors hold sets of intercepts by number.
    Rdpru,
    FerrFreeze,
}

/// An instruction of VMX or SVM, or one whose operand an exit describes: what is known from decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorInstruction {
    /// Which.
    pub operation: Intercept,
    /// Its length in bytes.
    pub length: u8,
    /// 16, 32 or 64: the address size.
    pub address_bits: u8,
    /// 16, 32 or 64: the operand size.
    pub operand_bits: u8,
    /// The ModR/M.reg field with its REX extension.
    pub register: u8,
    /// The r/m operand.
    pub operand: Operand,
}

/// An r/m operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// The instruction has none.
    None,
    /// A general-purpose register.
    Register(u8),
    /// Memory.
    Memory(MemoryOperand),
}

/// A memory operand in its parts, and where it points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryOperand {
    /// Segment in force.
    pub segment: Segment,
    /// Base register.
    pub base: Option<u8>,
    /// Index register.
    pub index: Option<u8>,
    /// Scale as a power of two, 0 to 3.
    pub scale: u8,
    /// Displacement, sign-extended.
    pub displacement: u64,
    /// Effective address: the offset in the segment.
    pub offset: u64,
}
