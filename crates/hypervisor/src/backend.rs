//! The questions that common code asks of a vendor, about twenty of them. Twins: [`vmx`] and [`svm`].
//!
//! Each doc line ends with the cousin among KVM's `kvm_x86_ops`. No method has a default: a vendor that answers differently says so.
//!
//! # Same question, two answers
//!
//! | question | Intel | AMD |
//! |---|---|---|
//! | where is the guest's state | the VMCS, by VMREAD and VMWRITE; the rest in the processor | the VMCB, by memory; FS, GS, LDTR, TR and the MSRs of system calls by VMSAVE |
//! | where is RAX | in the processor, as every general register but RSP | in the VMCB, as RSP |
//! | how long was the instruction | the VM-exit instruction length field | next RIP less RIP; nothing without that feature |
//! | who owns CR0 and CR4 | a mask and a shadow; bits the guest does not own exit | the guest, but writes of most bits of CR0 and of CR4 are intercepted |
//! | how is a foreign event re-injected | IDT-vectoring information, instruction length included | EXITINTINFO; software events are executed again |
//! | when can an interrupt be injected | interrupt-window exiting | a virtual interrupt with VINTR intercepted |
//! | when does NMI blocking end | the processor knows ("virtual NMIs", NMI-window exiting) | the hypervisor intercepts IRET |
//! | what blocks for one instruction | two bits, STI and MOV SS | one bit |
//! | which pages were written | a log that the processor keeps, or EPT violations | nested page faults |
//! | how are stale translations dropped | INVEPT, or INVVPID; by themselves without VPIDs | TLB_CONTROL at the next VMRUN |
//! | what else exits under shadow paging | #PF, MOV to and from CR3, INVLPG; the masks keep CR0 and CR4 | #PF, MOV to and from CR3, INVLPG, reads of CR0 and CR4 where they differ |
//! | what is the scale of the time-stamp counter | 16.48 in the VMCS | 8.32 in an MSR |

mod shadowed;
pub mod svm;
#[cfg(test)]
mod tests;
pub mod vmx;

use crate::exit::Report;
use crate::mmu::nested::Format;
use crate::state::Registers;
use cpu::state::{Cpu, Shadow};
use cpu::trap::Event;
use isa::rflags::Rflags;
use models::{CpuModel, Vendor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Host-physical pages that each virtual CPU has for its control structures.
pub const PAGES_PER_VCPU: u64 = 8;

/// What a backend needs to know at its creation.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Host-physical pages for control structures, all zero: [`PAGES_PER_VCPU`] of them.
    pub pages: Range<u64>,
    /// Host-physical address of the top nested table; `None` for shadow paging.
    pub nested_root: Option<u64>,
    /// Number of the virtual CPU, from zero.
    pub number: u32,
    /// Do without unrestricted guests, where the vendor has them.
    pub restricted: bool,
    /// MSRs that the guest may access without an exit.
    pub passed_msrs: &'static [u32],
    /// Whose rules the guest expects.
    pub guest_vendor: Vendor,
}

/// The processor cannot run a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The model has no such extension.
    #[error("the CPU model `{0}` has neither VMX nor SVM")]
    NoExtension(&'static str),
    /// Nested paging is missing.
    #[error("the CPU model `{0}` has no nested paging (EPT or NPT): leave the choice open, or ask for shadow paging")]
    NoNestedPaging(&'static str),
    /// Something else that this hypervisor relies on is missing.
    #[error("the CPU model `{model}` lacks {feature}, which this hypervisor relies on")]
    Lacks {
        /// The model.
        model: &'static str,
        /// What.
        feature: &'static str,
    },
    /// An instruction of the extension failed where it never should.
    #[error("{0}")]
    Refused(String),
}

/// A VM entry did not happen: the instruction itself failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EntryRefused(pub String);

/// What the guest could take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// A maskable interrupt.
    pub interrupt: bool,
    /// A non-maskable interrupt.
    pub nmi: bool,
}

/// Ratio and offset of the guest's time-stamp counter over the processor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TscSetting {
    /// Added.
    pub offset: u64,
    /// The guest's rate in that of the processor, 32 fraction bits.
    pub ratio: u64,
}

/// One virtual CPU on one vendor's silicon. Every method but those without `cpu` needs the processor's environment.
pub trait Backend: Sized + Clone + std::fmt::Debug {
    // ---- Life -----------------------------------------------------------------------------------------------------------------------

    /// The vendor.
    const VENDOR: Vendor;
    /// The bytes of its hypercall instruction. `patch_hypercall`
    const HYPERCALL: [u8; 3];
    /// What a checkpoint keeps beside the control structures. `get_nested_state`
    type Record: Serialize + DeserializeOwned;

    /// What nested tables look like on a model; an error where it cannot run guests. `check_processor_compatibility`
    fn nested_format(model: &'static CpuModel) -> Result<Format, Unfit>;
    /// Whether a model can run guests under shadow paging; an error where it cannot run any. `check_processor_compatibility`
    fn fit_for_shadow_paging(model: &'static CpuModel) -> Result<(), Unfit>;
    /// Turns virtualization on and sets up the control structures; [`Backend::load`] comes next. `vcpu_create`, `hardware_enable`
    fn create(cpu: &mut Cpu, setup: &Setup) -> Result<Self, Unfit>;
    /// Turns virtualization off. `vcpu_free`, `hardware_disable`
    fn destroy(self, cpu: &mut Cpu);
    /// What is not in the control structures. `get_nested_state`
    fn record(&self) -> Self::Record;
    /// Takes that up, on a virtual CPU that was just created. `set_nested_state`
    fn restore(&mut self, record: Self::Record);

    // ---- Run ------------------------------------------------------------------------------------------------------------------------

    /// Whether an entry would be refused for a state that the guest brought about by itself, so that software must emulate. `emulation_required`
    fn refuses(&mut self, cpu: &mut Cpu) -> bool;
    /// Enters the guest; the processor's next run executes it. `Ok(false)` where the entry failed its checks: there is a report. `vcpu_run`
    fn enter(&mut self, cpu: &mut Cpu) -> Result<bool, EntryRefused>;
    /// After an exit: why. `get_exit_info`, `handle_exit`
    fn report(&mut self, cpu: &mut Cpu) -> Report;
    /// RIP of the guest. `cache_reg`
    fn rip(&self) -> u64;
    /// Sets RIP. `skip_emulated_instruction`
    fn set_rip(&mut self, cpu: &mut Cpu, rip: u64);
    /// RFLAGS of the guest. `get_rflags`
    fn rflags(&mut self, cpu: &mut Cpu) -> Rflags;
    /// Whether the guest is in 64-bit mode (EFER.LMA and CS.L). `get_cs_db_l_bits`
    fn is_64bit(&mut self, cpu: &mut Cpu) -> bool;
    /// Whether EFER.LMA is set. `get_msr`
    fn long_mode(&mut self, cpu: &mut Cpu) -> bool;
    /// Privilege level of the guest. `get_cpl`
    fn cpl(&mut self, cpu: &mut Cpu) -> u8;

    // ---- Events ---------------------------------------------------------------------------------------------------------------------

    /// The event whose delivery the exit interrupted, if it has to be injected again. `complete_interrupts`
    fn interrupted(&mut self, cpu: &mut Cpu) -> Option<Event>;
    /// What the guest could take now. `interrupt_allowed`, `nmi_allowed`
    fn window(&mut self, cpu: &mut Cpu) -> Window;
    /// Asks for an exit as soon as the guest can take what is set. `enable_irq_window`, `enable_nmi_window`
    fn request_window(&mut self, cpu: &mut Cpu, wanted: Window);
    /// Injects an event at the next entry. `inject_irq`, `inject_nmi`, `inject_exception`
    fn inject(&mut self, cpu: &mut Cpu, event: &Event);
    /// What the next entry injects, as `kvm_entry` shows it. `get_entry_info`
    fn injected(&self) -> (u32, u32);
    /// What an exception leaves beside its event: CR2 for #PF, bits of DR6 for #DB. `set_dr7`, and KVM's `arch.cr2`
    fn set_exception_state(&mut self, cpu: &mut Cpu, address: Option<u64>, debug: u64);
    /// Blocking of interrupts for one instruction. `get_interrupt_shadow`
    fn shadow(&mut self, cpu: &mut Cpu) -> Shadow;
    /// Sets it. `set_interrupt_shadow`
    fn set_shadow(&mut self, cpu: &mut Cpu, shadow: Shadow);

    // ---- Policy ---------------------------------------------------------------------------------------------------------------------

    /// Which exceptions exit, one bit for each vector, beside those that paging needs. `update_exception_bitmap`
    fn intercept_exceptions(&mut self, cpu: &mut Cpu, vectors: u32);
    /// Drops every translation that came from the nested or shadow tables. `flush_tlb_all`
    fn flush(&mut self, cpu: &mut Cpu);
    /// Drops the translations of a linear address. `flush_tlb_gva`
    fn invalidate(&mut self, cpu: &mut Cpu, linear: u64);
    /// Under shadow paging: whether registers were loaded since the last call, so that the tables may have to be others. `load_mmu_pgd`
    fn paging_changed(&mut self) -> bool;
    /// Under shadow paging: has the processor walk other tables from the next entry on. `load_mmu_pgd`
    fn set_root(&mut self, cpu: &mut Cpu, root: u64);
    /// Sets the guest's time-stamp counter; `false` where the ratio is not one and the processor cannot scale. `write_tsc_offset`,
    /// `write_tsc_multiplier`
    fn set_tsc(&mut self, cpu: &mut Cpu, setting: TscSetting) -> bool;
    /// CR8 for guests that read and write it without an exit; `None` where both exit. `sync_lapic_to_cr8`
    fn task_priority(&mut self, cpu: &mut Cpu) -> Option<u8>;
    /// Tells the silicon what the guest reads in CR8. `update_cr8_intercept`
    fn set_task_priority(&mut self, cpu: &mut Cpu, class: u8);

    // ---- Dirty log --------------------------------------------------------------------------------------------------------------------

    /// Whether processors of a model log the pages that a guest writes. `cpu_dirty_log_size`
    fn logs_writes(model: &'static CpuModel) -> bool;
    /// Turns the processor's log on or off. `update_cpu_dirty_logging`
    fn log_writes(&mut self, cpu: &mut Cpu, on: bool);
    /// The guest-physical addresses in the processor's log, which is empty afterwards. `flush_pml_buffer`
    fn take_logged(&mut self, cpu: &mut Cpu) -> Vec<u64>;

    // ---- State ----------------------------------------------------------------------------------------------------------------------

    /// Loads registers into the control structures and the processor. `set_segment`, `set_cr0`, ...
    fn load(&mut self, cpu: &mut Cpu, registers: &Registers);
    /// Saves the registers. `get_segment`, `cache_reg`, ...
    fn save(&mut self, cpu: &mut Cpu) -> Registers;
    /// Puts what the guest wrote into registers where the processor in guest mode has something else. `decache_cr3`
    fn show(&self, registers: &mut Registers);
    /// Why an entry failed: the rules that were broken. `dump_vmcs`, `dump_vmcb`
    fn explain(&mut self, cpu: &mut Cpu) -> Vec<String>;
}
