//! What a guest and its host are made of, within which limits, and what a run counts.

use crate::backend::Unfit;
use crate::guest_cpu::Levelling;
use crate::mmu::Paging;
use crate::policy::Policy;
use cpu::block::Compile;
use models::CpuModel;
use serde::{Deserialize, Serialize};

/// The most memory a guest may have: 64 GiB.
pub const MAXIMUM_MEMORY: u64 = 64 << 30;
/// The most pages of a pool of shadow pages: 256 MiB of them.
pub const MAXIMUM_SHADOW_PAGES: u32 = 1 << 16;

/// What may be chosen besides the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Map all memory at the start; otherwise pages are mapped when they are touched.
    pub prefault: bool,
    /// KVM's `force_emulation_prefix`: `ud2; .ascii "kvm"` in front of an instruction has it emulated.
    pub force_emulation_prefix: bool,
    /// KVM_CAP_EXIT_HYPERCALL with MAP_GPA_RANGE: the call exists and leaves for user space.
    pub exit_hypercall: bool,
    /// KVM_CAP_ENFORCE_PV_FEATURE_CPUID: a call whose feature the guest's CPUID lacks is answered with -1000.
    pub enforce_features: bool,
    /// Feature bits to be left out of CPUID leaf 0x40000001.
    pub hidden_features: u32,
    /// A piece of Hyper-V's interface instead of KVM's at CPUID leaf 0x40000000: its hypercall page.
    pub hyperv: bool,
    /// KVM's `unrestricted_guest`: VM entry takes a guest in real mode or without paging, and in the states in between. Intel only; AMD's
    /// always does.
    pub unrestricted_guest: bool,
    /// Nested or shadow paging; `None`: nested where the processors have it.
    pub paging: Option<Paging>,
    /// Pages of the pool that shadow tables are made of; KVM had 1024 in 2007. No fewer are taken than four for each virtual CPU and 16.
    pub shadow_pages: u32,
    /// Tell of what the guest's processors deliver through the guest's own IDT.
    pub deliveries: bool,
    /// KVM's `pml`: the dirty log is the processor's own page-modification log, where it has one. Intel only.
    pub page_modification_log: bool,
    /// Exits, or emulated instructions, without progress after which a run ends as a livelock.
    pub livelock: u64,
    /// When code is compiled.
    pub compile: Compile,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefault: true,
            force_emulation_prefix: false,
            exit_hypercall: true,
            enforce_features: false,
            hidden_features: 0,
            hyperv: false,
            unrestricted_guest: true,
            paging: None,
            shadow_pages: 1024,
            deliveries: false,
            page_modification_log: true,
            livelock: 10_000,
            compile: Compile::default(),
        }
    }
}

/// What a guest and its host are made of.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// Model of the physical processors.
    pub model: &'static CpuModel,
    /// Model that the guest's CPUID tells of; `None`: that of the processors.
    pub guest_model: Option<&'static CpuModel>,
    /// What is taken away from that model's CPUID.
    pub levelling: Levelling,
    /// Virtual CPUs, and as many physical ones.
    pub cpu_count: u32,
    /// RAM in bytes.
    pub memory_size: u64,
    /// Perturbs the interleaving of processors; 0 leaves it as it is.
    pub seed: u64,
    /// What happens to hypercalls.
    pub policy: Policy,
    /// The rest.
    pub options: Options,
}

impl VmConfig {
    /// One virtual CPU, 16 MiB, today's KVM.
    pub fn new(model: &'static CpuModel) -> Self {
        Self {
            model,
            guest_model: None,
            levelling: Levelling::NONE,
            cpu_count: 1,
            memory_size: 16 << 20,
            seed: 0,
            policy: Policy::default(),
            options: Options::default(),
        }
    }
}

/// A guest could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The processors cannot run it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Too much memory, or none.
    #[error("{0:#x} bytes of memory: a guest has whole pages, at least one and at most {MAXIMUM_MEMORY:#x} bytes")]
    MemorySize(u64),
    /// Shadow paging with more memory than fits below the device hole together with the tables.
    #[error(
        "{0:#x} bytes of memory are too much for shadow paging: its tables lie behind memory, and a processor outside of long mode reaches \
         none above 4 GiB; give the guest less than 3 GiB, or nested paging"
    )]
    TooMuchToShadow(u64),
    /// Too many processors, or none.
    #[error("{0} virtual CPUs: a guest has at least 1 and at most {max}", max = machine::MAXIMUM_CPUS)]
    CpuCount(u32),
}

/// What a run has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// VM exits of all virtual CPUs.
    pub exits: u64,
    /// Hypercalls that reached the hypervisor.
    pub hypercalls: u64,
    /// Writes of the hypervisor into the guest's text.
    pub patches: u64,
    /// Moves to another processor model.
    pub migrations: u64,
}
