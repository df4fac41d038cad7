//! The software side: a small KVM over VMX and SVM.
//!
//! Modelled: what Linux KVM does for a guest on x86, from VM exit to VM entry, with its hypercall scheme of every age ([`policy`]), an
//! in-kernel local APIC for each virtual CPU, the board as its user-space half, nested or shadow paging ([`mmu`]), and the move of a running
//! guest to a processor of the other vendor ([`migrate`]). Not modelled: nested virtualization, several guests at once.
//!
//! # The parts
//!
//! | file | what |
//! |---|---|
//! | `vm`, `run` | [`Vm`]: processors, memory, virtual CPUs; the loop that runs them in order of simulated time |
//! | `any` | [`AnyVm`]: a [`Vm`] of either vendor, what a user of this crate holds |
//! | `backend` | the questions that common code asks of a vendor; twins `backend/vmx` and `backend/svm` |
//! | `exit` | an exit in neutral words |
//! | `handle/*` | one handler for each kind of exit |
//! | `policy`, `policy/*` | what happens to hypercalls and to #UD |
//! | `hypercall` | the table of KVM's hypercalls |
//! | `hyperv` | the hypercall page of Hyper-V and what can be called through it |
//! | `mmu`, `mmu/*` | memory slots, and the tables that the processor walks for the guest |
//! | `emulator` | one instruction of the guest executed by software: the core again, with devices in front |
//! | `state` | the table of what a virtual CPU consists of, and what each vendor cannot carry |
//! | `dirty` | which pages of memory were written |
//! | `ledger` | what a move costs: losses now, losses that may come, levelling against them |
//! | `guest_cpu` | what a guest is told of its processor, and whose rules it expects |
//! | `live`, `absent` | a guest on its way between two hosts, and memory that has not arrived |
//! | `migrate` | the move to another processor model |
//!
//! # How it is used
//!
//! ```text
//! let mut vm = AnyVm::new(&VmConfig { cpu_count: 1, memory_size: 16 << 20, policy: Policy::TrapAndPatch, ..VmConfig::new(model) })?;
//! vm.load(&image)?;                                   // board::loader::Image: memory, and the registers of vCPU 0
//! vm.write_memory(0x5000, &bytes)?;                   // guest-physical; also read_memory, memory()
//! let mut r = vm.registers(1); r.rip = ..; vm.set_registers(1, &r); vm.start(1);      // a second CPU that runs from the start
//! let at = vm.pause_at(Moment::Exit(3));              // also Cycle, Instruction, Hypercall, Address { address, pass }
//! loop {
//!     match vm.run(&mut sink, &Limits { instructions, cycles, exits }) {
//!         Stop::Paused(pause) if pause == at => (vm, ledger) = vm.migrate(other_model, Some(policy), &mut sink)?,
//!         stop => break stop,
//!     }
//! }
//! // Between runs: vm.interrupt(vcpu, vector), vm.nmi(vcpu), vm.exception(vcpu, vector, code), vm.write_memory, vm.protect(range, rights),
//! // vm.board_mut().serial_input(bytes), vm.take_serial(), vm.registers(vcpu), vm.set_registers(vcpu, ..), vm.statistics().
//! ```

mod absent;
mod any;
pub mod backend;
mod checkpoint;
pub mod cpuid;
pub mod dirty;
mod emulator;
mod events;
pub mod exit;
mod fingerprint;
pub mod guest_cpu;
mod handle;
pub mod hypercall;
mod hyperv;
pub mod ledger;
pub mod live;
mod locks;
pub mod migrate;
pub mod mmu;
pub mod policy;
mod run;
mod schedule;
pub mod state;
mod steps;
mod vcpu;
mod vm;

pub use any::{AnyVm, check_model, shadows};
pub use dirty::DirtyPages;
pub use migrate::MigrationError;
pub use mmu::Paging;
pub use mmu::nested::{Rights, SlotError};
pub use policy::Policy;
pub use run::{Limits, Moment, PauseId, Stop};
pub use schedule::{Order, PATIENCE, Schedule, Turn};
pub use state::Registers;
pub use steps::{Freedom, Step, StepKind};
pub use vcpu::{Activity, Completion, Software, VcpuRecord};
pub use vm::{CreateError, MAXIMUM_MEMORY, Options, Statistics, Vm, VmConfig};
