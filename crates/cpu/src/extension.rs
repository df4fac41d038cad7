//! The place where a vendor's virtualization hardware plugs into the core.
//!
//! The core knows no vendor. It knows that a set of events may be *intercepted* ([`Interception`], filled in by the silicon at entry and
//! looked at by the core with one bit test), and that somebody behind the trait [`Extension`] turns an intercepted [`Exit`] into a VM exit.
//!
//! Flow of one exit: an instruction returns `Err(Trap::Exit(..))`, or an exception meets a set bit in `Interception::exceptions`; the engine
//! rolls back to the instruction's start and calls [`Extension::exit`]; the silicon saves the guest, loads the host, charges the cycles and
//! says where execution goes on: at the host's RIP as ordinary machine code, or in Rust ([`AfterExit::RustHost`]), which ends the run with
//! [`crate::engine::RunExit::HostEntry`].

use crate::state::Cpu;
use crate::trap::{Access, ControlAccess, Exit, Intercept, NestedFault, Outcome, PortAccess, Trap, VendorInstruction};
use isa::exception::Vector;
use serde::{Deserialize, Serialize};

/// What the silicon intercepts while a guest runs. All clear outside guest mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interception {
    /// One bit per [`Intercept`].
    pub set: u128,
    /// One bit per exception vector; bit 14 is refined by `page_fault`.
    pub exceptions: u32,
    /// VMX page-fault error-code mask and match: #PF exits if `(code & mask == match) == bit 14`. `(0, 0)` leaves bit 14 alone.
    pub page_fault: (u32, u32),
    /// Debug registers that are exempt from `DrRead`, one bit each: SVM intercepts them one by one.
    pub debug_reads_exempt: u16,
    /// Debug registers that are exempt from `DrWrite`.
    pub debug_writes_exempt: u16,
    /// Bits of CR0 and CR4 that the guest does not own: reads return the shadow's bits (VMX); zero where there is no shadow (SVM).
    pub cr0_mask: u64,
    /// What the guest reads in the masked bits of CR0.
    pub cr0_shadow: u64,
    /// Bits of CR4 that the guest does not own.
    pub cr4_mask: u64,
    /// What the guest reads in the masked bits of CR4.
    pub cr4_shadow: u64,
    /// NMIs exit, and what blocks NMIs in the guest blocks only those that are injected (VMX's "virtual NMIs").
    pub virtual_nmis: bool,
    /// The silicon is told of external interrupts before they exit (VMX's posted interrupts).
    pub posts_interrupts: bool,
    /// The silicon is told of changes of the virtual TPR (VMX's virtual-interrupt delivery).
    pub follows_task_priority: bool,
    /// IRET leaves blocking by NMI as it is (VMX's "NMI exiting" without "virtual NMIs").
    pub keeps_nmi_blocking: bool,
    /// The guest exits behind the write that lowers the class of its virtual TPR below this one; zero never.
    pub tpr_threshold: u8,
}

impl Interception {
    /// Whether an instruction or event is intercepted.
    #[inline]
    pub const fn has(&self, intercept: Intercept) -> bool {
        self.set >> intercept as u8 & 1 != 0
    }

    /// Adds an intercept.
    pub const fn add(&mut self, intercept: Intercept) {
        self.set |= 1 << intercept as u8;
    }

    /// Whether an exception with this error code exits.
    pub const fn exception(&self, vector: Vector, error_code: Option<u32>) -> bool {
        let bit = self.exceptions >> vector as u8 & 1 != 0;
        match (vector, error_code) {
            // SDM vol 3, 26.2 "Other Causes of VM Exits", item Exceptions.
            (Vector::PageFault, Some(code)) => (code & self.page_fault.0 == self.page_fault.1) == bit,
            _ => bit,
        }
    }
}

/// Where execution goes on after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExit {
    /// The host is machine code: the state is loaded, execution goes on at its RIP.
    MachineCode,
    /// The host is Rust: the run ends with `RunExit::HostEntry`.
    RustHost,
    /// The exit failed in a way that shuts the processor down (a VMX abort).
    Shutdown,
}

/// The access makes a VM exit instead of happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exits;

/// A guest-physical page translated by nested paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedPage {
    /// Physical address of the byte asked for.
    pub physical: u64,
    /// Bytes of the nested page it lies in: 4 KiB, 2 MiB or 1 GiB.
    pub bytes: u64,
    /// Reads are allowed.
    pub readable: bool,
    /// Writes are allowed and no dirty bit remains to be set.
    pub writable: bool,
    /// Fetches are allowed.
    pub executable: bool,
}

/// What the guest-physical access is, beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedAccess {
    /// What for.
    pub access: Access,
    /// Of a guest page-table entry.
    pub table_walk: bool,
    /// In user mode.
    pub user: bool,
    /// The linear address behind it, if any.
    pub linear: Option<u64>,
    /// The page that the guest's own paging gives the linear address; of no meaning for a `table_walk`.
    pub guest: GuestPage,
}

/// What a guest's paging structures say of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPage {
    /// A user-mode address.
    pub user: bool,
    /// A read/write page.
    pub writable: bool,
    /// Fetches are allowed.
    pub executable: bool,
}

impl GuestPage {
    /// Without paging: every address is a user-mode address of a read/write page.
    pub const UNPAGED: GuestPage = GuestPage { user: true, writable: true, executable: true };
}

/// What the silicon did with a vendor instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Executed: RIP goes to the next instruction.
    Next,
    /// The state was replaced, RIP included (VM entry); `Cpu::inject` may hold an event to deliver first.
    Entered,
}

/// A vendor's virtualization hardware.
///
/// Calls never nest: the core takes the extension out of the [`Cpu`] for the time of a call, so a method may use every method of `Cpu` that
/// reads and writes memory or registers, but none that could exit.
pub trait Extension: Send + std::fmt::Debug {
    /// Executes a VMX or SVM instruction. `Err` of #UD when it is the other vendor's, or when the extension is not enabled.
    fn execute(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion>;

    /// The value of the field that the operand of a VMREAD names, or, with a value, what a VMWRITE makes of it: for instructions of 64-bit
    /// registers at CPL 0, the shape in which hypervisors execute them most, and only if they do nothing else. `None`, with nothing done,
    /// where there is more to it (an exit, a fault, a failure) or no VMCS at all: then [`Self::execute`] is asked. The core charges for it.
    fn plain_field(&mut self, _operand: u64, _value: Option<u64>) -> Option<u64> {
        None
    }

    /// Makes the VM exit. RIP is that of the instruction, nothing of which has happened; `cpu.delivering` tells an interrupted delivery.
    fn exit(&mut self, cpu: &mut Cpu, exit: Exit) -> AfterExit;

    /// Reads one of the extension's own MSRs; `None` if it has no such MSR.
    fn read_msr(&mut self, cpu: &Cpu, index: u32) -> Option<Outcome<u64>>;

    /// Writes one of the extension's own MSRs; `None` if it has no such MSR.
    fn write_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Outcome>;

    /// With `Intercept::Ports` set: whether this access exits.
    fn intercepts_port(&mut self, cpu: &Cpu, access: &PortAccess) -> bool;

    /// With `Intercept::Msrs` set: whether this access exits.
    fn intercepts_msr(&mut self, cpu: &Cpu, index: u32, write: bool) -> bool;

    /// With the register's intercept set: whether this access exits (VMX masks and CR3 targets, SVM selective writes). If it does not, the
    /// value to write, which for VMX takes the masked bits from the register itself.
    fn control_access(&mut self, cpu: &Cpu, access: &ControlAccess) -> Result<u64, Exits>;

    /// Translates a guest-physical address (only called while `cpu.nested_paging` is set).
    fn translate(&mut self, cpu: &mut Cpu, guest_physical: u64, access: NestedAccess) -> Result<NestedPage, NestedFault>;

    /// What becomes of a fault of [`Extension::translate`]: an exit, unless the silicon makes an exception of it.
    fn nested_fault(&mut self, _cpu: &mut Cpu, fault: NestedFault) -> Trap {
        Trap::Exit(Exit::Nested(fault))
    }

    /// With `Intercept::Pause` set: whether this PAUSE exits.
    fn intercepts_pause(&mut self, _cpu: &Cpu) -> bool {
        true
    }

    /// A data access of the program to a register in the APIC-access page ([`Cpu::apic_access_page`]): the value read, unless it exits. What
    /// a write leads to waits for [`Extension::complete_apic_write`].
    fn access_apic_page(&mut self, _cpu: &mut Cpu, offset: u16, _bytes: u8, _write: Option<u64>, access: Access) -> Outcome<u64> {
        Err(Trap::Exit(Exit::ApicAccess { offset, access, table_walk: false, length: 0 }))
    }

    /// What follows a write to a register of the virtual APIC, behind the instruction.
    fn complete_apic_write(&mut self, _cpu: &mut Cpu, _register: u16) -> Option<Exit> {
        None
    }

    /// With [`Cpu::virtual_interrupt_recognized`]: the vector of the virtual interrupt that the guest takes now.
    fn deliver_virtual_interrupt(&mut self, _cpu: &mut Cpu) -> u8 {
        0
    }

    /// With `Interception::posts_interrupts`: an external interrupt has come; `None` if no exit comes of it.
    fn external_interrupt(&mut self, _cpu: &mut Cpu) -> Option<Exit> {
        Some(Exit::ExternalInterrupt { vector: None })
    }

    /// Checks a value for CR0 or CR4 against bits that the extension fixes (VMX operation); `false` means #GP(0).
    fn allows_control(&self, cpu: &Cpu, register: u8, value: u64) -> bool;

    /// Whether INIT signals are blocked now (VMX root operation, SVM with GIF clear).
    fn blocks_init(&self, cpu: &Cpu) -> bool;

    /// Whether an INIT signal becomes the exception #SX instead (VM_CR.R_INIT).
    fn redirects_init(&self) -> bool {
        false
    }

    /// A copy for a checkpoint.
    fn duplicate(&self) -> Box<dyn Extension>;

    /// The concrete type, for the software side that drives this silicon by Rust calls.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}
