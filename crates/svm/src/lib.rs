//! AMD SVM: the silicon, plugged into the core through [`cpu::extension::Extension`].
//!
//! Manual: APM vol 2, chapter 15 "Secure Virtual Machine"; the revision is pinned in docs/manuals.md.
//!
//! What is modelled: VMRUN, VMLOAD, VMSAVE, VMMCALL, STGI, CLGI, INVLPGA and SKINIT; the consistency checks; #VMEXIT; every intercept whose event the
//! core has ([`intercept::realised`] lists them all); the permission maps; decode assists and next RIP; EVENTINJ and EXITINTINFO; virtual
//! interrupts and the masking of physical ones; the global interrupt flag and its virtual twin; nested paging; ASIDs and TLB_CONTROL; TSC offset
//! and ratio; LBR virtualization; the filter of PAUSE; virtual VMLOAD and VMSAVE; VMCB state caching by clean bits ([`cache`]).
//!
//! What is not, and is therefore not offered in CPUID ([`capability::MODELLED`]): AVIC, virtual NMI, encrypted guests.
//!
//! The silicon is driven in two ways by the same code. Guest code on the bare machine executes the instructions, through
//! [`cpu::extension::Extension::execute`], and a #VMEXIT goes on behind VMRUN. A hypervisor written in Rust calls [`Svm::vmrun`] and its
//! companions; then a #VMEXIT ends the run. Which of the two it is, [`cpu::state::Cpu::rust_host`] says.

mod address_space;
mod cache;
pub mod capability;
pub mod check;
mod entry;
mod exit;
mod extension;
mod instructions;
pub mod intercept;
mod last_branches;
mod memory;
mod msr;
pub mod npt;
mod pause;
mod record;
mod secure_startup;

pub use entry::Vmrun;
pub use record::{AreaRecord, SvmRecord};

use address_space::Contexts;
use cpu::trap::Trap;
use intercept::Translator;
use isa::segment::{SegmentRegister, TableRegister};
use isa::svm::msr::{TscRatio, VmCr};
use isa::svm::{CleanBits, ControlArea, SaveArea};
use models::SvmCapabilities;
use npt::NestedRoot;
use serde::{Deserialize, Serialize};

/// The SVM hardware of one processor.
#[derive(Clone, Debug)]
pub struct Svm {
    /// What is offered.
    capabilities: SvmCapabilities,
    /// What VMRUN's checks compare with.
    limits: Option<check::Limits>,
    /// VM_CR.
    vm_cr: VmCr,
    /// VM_HSAVE_PA. The host's state is kept in this structure and not in that page: APM 15.30.4 "VM_HSAVE_PA MSR" leaves open what is
    /// stored there, and forbids software to look.
    hsave_pa: u64,
    /// TSC Ratio.
    tsc_ratio: TscRatio,
    /// The global interrupt flag.
    gif: bool,
    /// Physical address of the VMCB whose guest runs.
    vmcb: u64,
    /// The VMCB of which the two areas below are what a #VMEXIT left: what clean bits let VMRUN keep.
    kept: Option<u64>,
    /// The clean bits that the last VMRUN obeyed.
    clean: CleanBits,
    /// The save area below holds last-branch registers of the VMCB that is kept.
    branches_kept: bool,
    /// The VMCB's control area, as it was at VMRUN and then at #VMEXIT.
    control: Box<ControlArea>,
    /// Its state save area, likewise.
    save: Box<SaveArea>,
    /// The nested tables of the guest, with nested paging.
    nested: Option<NestedRoot>,
    /// The host behind VMRUN.
    host: Host,
    /// The host's last-branch records while a guest with its own runs.
    host_branches: Option<last_branches::Records>,
    /// The filter in front of the PAUSE intercept.
    pause_filter: pause::PauseFilter,
    /// What the engine keeps for host and guest.
    contexts: Contexts,
    /// What the intercept words came to last.
    translator: Translator,
    /// How many #VMEXITs there were.
    exits: u64,
    /// The rule that the last VMRUN broke, if it ended with VMEXIT_INVALID.
    last_failure: Option<&'static check::Check>,
}

/// VMRUN, VMLOAD or VMSAVE of an address that is not that of a page of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{vmcb:#x} is not the physical address of a VMCB: not page-aligned, or too large")]
pub struct AddressFault {
    /// The address.
    pub vmcb: u64,
}

/// To machine code it is #GP(0).
impl From<AddressFault> for Trap {
    fn from(_: AddressFault) -> Self {
        Self::GP0
    }
}

/// The host's state that VMRUN saves and #VMEXIT loads; APM 15.5.1 "Basic Operation", "Saving Host State".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    segments: [SegmentRegister; 4],
    gdtr: TableRegister,
    idtr: TableRegister,
    efer: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    rflags: u64,
    rip: u64,
    rsp: u64,
    rax: u64,
    pat: u64,
}

impl Svm {
    /// Physical address of the VMCB whose guest runs, or ran last.
    pub fn vmcb(&self) -> u64 {
        self.vmcb
    }

    /// The hardware after power-up: GIF set, SVM neither locked nor disabled.
    #[must_use]
    pub fn new(model: SvmCapabilities) -> Self {
        Self {
            capabilities: capability::offered(model),
            limits: None,
            vm_cr: VmCr::new(),
            hsave_pa: 0,
            tsc_ratio: TscRatio::ONE,
            gif: true,
            vmcb: 0,
            kept: None,
            clean: CleanBits::new(),
            branches_kept: false,
            control: Box::new(ControlArea::zeroed()),
            save: Box::new(SaveArea::zeroed()),
            nested: None,
            host: Host {
                segments: [SegmentRegister::real_mode(0); 4],
                gdtr: TableRegister::default(),
                idtr: TableRegister::default(),
                efer: 0,
                cr0: 0,
                cr3: 0,
                cr4: 0,
                rflags: 2,
                rip: 0,
                rsp: 0,
                rax: 0,
                pat: 0,
            },
            host_branches: None,
            pause_filter: pause::PauseFilter::default(),
            contexts: Contexts::default(),
            translator: Translator::new(),
            exits: 0,
            last_failure: None,
        }
    }

    /// What this processor offers.
    #[must_use]
    pub const fn capabilities(&self) -> &SvmCapabilities {
        &self.capabilities
    }

    /// How many times a guest was left, VMRUNs that failed their checks included.
    #[must_use]
    pub const fn exits(&self) -> u64 {
        self.exits
    }

    /// The global interrupt flag.
    #[must_use]
    pub const fn gif(&self) -> bool {
        self.gif
    }

    /// The VMCB with which the last VMRUN broke a rule; nothing if it entered the guest.
    #[must_use]
    pub fn refused(&self) -> Option<isa::svm::Vmcb> {
        self.last_failure.map(|_| isa::svm::Vmcb { control: *self.control, save: *self.save })
    }

    /// The rule that the last VMRUN broke; nothing if it entered the guest.
    #[must_use]
    pub const fn last_failure(&self) -> Option<&'static check::Check> {
        self.last_failure
    }
}
