//! An exit in neutral words, and the five words that KVM's trace tells of it.
//!
//! An [`Exit`] is neutral where the meanings of both vendors coincide; whatever else there is, is [`Exit::Vendor`] and no business of
//! common code. The raw words go into the trace beside it ([`ExitInfo`]).

use cpu::trap::{Access, TaskSwitchSource};
use trace::Name;

/// Why the guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The vendor's own hypercall instruction.
    Hypercall,
    /// An exception of the guest that is intercepted.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code.
        error_code: Option<u32>,
        /// CR2 for #PF, the bits of DR6 for #DB.
        detail: u64,
    },
    /// CPUID.
    Cpuid,
    /// HLT.
    Halt,
    /// IN, OUT, INS or OUTS.
    Port(Port),
    /// RDMSR or WRMSR; the number is in ECX.
    Msr {
        /// WRMSR.
        write: bool,
    },
    /// An access to a control register that has to be emulated.
    Control {
        /// Its number.
        register: u8,
        /// A write, CLTS and LMSW included.
        write: bool,
        /// The general-purpose register of a MOV; `None` for CLTS, LMSW, SMSW or where the silicon does not tell.
        gpr: Option<u8>,
    },
    /// A guest-physical address could not be used.
    NestedFault {
        /// The address.
        guest_physical: u64,
        /// What for.
        access: Access,
        /// Write permission was wanted: for a write, or by a walk that may set flags in the guest's own tables.
        writes: bool,
        /// The words that `kvm_page_fault` shows.
        error_code: u64,
        /// An entry of the nested tables is malformed: ours to explain, never the guest's.
        malformed: bool,
    },
    /// The log of modified pages is full (VMX); it was emptied after the exit.
    LogFull,
    /// INVLPG or INVPCID, under shadow paging.
    Invalidate {
        /// The linear address of INVLPG, where the silicon tells it.
        linear: Option<u64>,
    },
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// IRET is about to be executed, and NMIs were blocked (SVM).
    Iret,
    /// A physical interrupt arrived: the host's business.
    ExternalInterrupt,
    /// A physical NMI arrived: the host's business.
    Nmi,
    /// A triple fault.
    Shutdown,
    /// XSETBV.
    Xsetbv,
    /// INVD or WBINVD: caches are not modelled, so they do nothing.
    CacheFlush,
    /// An instruction that the guest's CPUID does not tell of: VMX and SVM instructions, MONITOR, MWAIT, RDPRU. It is #UD.
    NotOffered,
    /// RDPMC: #GP(0), as there are no counters.
    PerformanceCounter,
    /// The processor froze in front of an instruction that waits for an x87 error, which CR0.NE clear keeps from being #MF (SVM).
    NumericError,
    /// VM entry failed its checks of the guest's state, or VMRUN those of the VMCB.
    EntryFailure,
    /// A hardware task switch, which did not happen.
    TaskSwitch(TaskSwitch),
    /// Anything else, by the vendor's number.
    Vendor(u64),
}

/// IN, OUT, INS or OUTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub width: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
}

/// A hardware task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new TSS.
    pub selector: u16,
    /// What caused it.
    pub source: TaskSwitchSource,
    /// An instruction caused it: the old task goes on behind it.
    pub by_instruction: bool,
    /// Error code for the new stack.
    pub error_code: Option<u32>,
    /// RFLAGS.RF as it is to be saved.
    pub resume_flag: bool,
}

/// The words of `kvm_exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// The reason in the kernel's words.
    pub reason: Name,
    /// VM entry failed (bit 31 of Intel's exit reason).
    pub failed_entry: bool,
    /// Exit qualification, or EXITINFO1.
    pub info1: u64,
    /// IDT-vectoring information, or EXITINFO2.
    pub info2: u64,
    /// VM-exit interruption information, or EXITINTINFO.
    pub intr_info: u32,
    /// The error code that goes with `intr_info`.
    pub error_code: u32,
}

/// What the backend tells of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why.
    pub exit: Exit,
    /// RIP of the guest.
    pub rip: u64,
    /// Length in bytes of the instruction that exited; `None` where it has to be found by decoding.
    pub length: Option<u8>,
    /// The raw words.
    pub info: ExitInfo,
}
