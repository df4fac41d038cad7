//! A guest on processors of either vendor: what a user of this crate holds, because a move changes the vendor.

use crate::absent::NoNestedPaging;
use crate::backend::svm::SvmBackend;
use crate::backend::vmx::VmxBackend;
use crate::backend::{Backend, Unfit};
use crate::dirty::DirtyPages;
use crate::guest_cpu::GuestCpu;
use crate::ledger::Check;
use crate::live::Departure;
use crate::migrate::{MigrationError, Parcel};
use crate::mmu::Paging;
use crate::mmu::nested::{Rights, SlotError};
use crate::policy::Policy;
use crate::run::{Limits, Moment, PauseId, Stop};
use crate::schedule::Schedule;
use crate::state::Registers;
use crate::steps::{Freedom, Step};
use crate::vcpu::Activity;
use crate::vm::{CreateError, Options, Statistics, Vm, VmConfig, tables};
use board::Board;
use board::loader::Image;
use cpu::block::Compile;
use isa::exception::Vector;
use memory::{Memory, OutOfRange};
use models::{CpuModel, Vendor};
use std::collections::BTreeSet;
use std::ops::Range;
use trace::Sink;

/// A guest.
#[derive(Debug)]
pub enum AnyVm {
    /// On processors with VMX.
    Vmx(Vm<VmxBackend>),
    /// On processors with SVM.
    Svm(Vm<SvmBackend>),
}

/// Whether processors of a model can run guests, with the paging that is asked for.
///
/// # Errors
/// See [`Unfit`].
pub fn check_model(model: &'static CpuModel, paging: Option<Paging>) -> Result<(), Unfit> {
    match model.vendor {
        Vendor::Intel => tables::<VmxBackend>(model, paging).map(drop),
        Vendor::Amd => tables::<SvmBackend>(model, paging).map(drop),
    }
}

/// Whether guests run under shadow paging on processors of a model, with the paging that is asked for.
pub fn shadows(model: &'static CpuModel, paging: Option<Paging>) -> bool {
    match model.vendor {
        Vendor::Intel => matches!(tables::<VmxBackend>(model, paging), Ok(None)),
        Vendor::Amd => matches!(tables::<SvmBackend>(model, paging), Ok(None)),
    }
}

impl AnyVm {
    /// For each virtual CPU whose last VM entry or VMRUN broke a rule, what it was made with: for explanations.
    pub fn refused_entries(&mut self) -> Vec<(u32, audit::State)> {
        let cpus = match self {
            Self::Vmx(vm) => &mut vm.cpus,
            Self::Svm(vm) => &mut vm.cpus,
        };
        cpus.iter_mut().zip(0..).filter_map(|(cpu, number)| machine::refused_entry(cpu).map(|state| (number, state))).collect()
    }
}

/// Methods that are the same on either vendor, and only passed on.
macro_rules! passed_on {
    (@call & mut $this:ident, $name:ident($($argument:ident),*)) => {
        match $this {
            Self::Vmx(vm) => vm.$name($($argument),*),
            Self::Svm(vm) => vm.$name($($argument),*),
        }
    };
    (@call & $this:ident, $name:ident($($argument:ident),*)) => {
        match $this {
            Self::Vmx(vm) => vm.$name($($argument),*),
            Self::Svm(vm) => vm.$name($($argument),*),
        }
    };
    ($($(#[$doc:meta])* fn $name:ident(($($this:tt)+) $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        impl AnyVm {
            $($(#[$doc])*
            pub fn $name($($this)+ $(, $argument: $type)*) $(-> $result)? {
                passed_on!(@call $($this)+, $name($($argument),*))
            })*
        }
    };
}

passed_on! {
    /// See [`Vm::run`].
    fn run((&mut self), sink: &mut dyn Sink, limits: &Limits) -> Stop;
    /// See [`Vm::step`].
    ///
    /// # Errors
    /// The end of the run.
    fn step((&mut self), vcpu: u32, freedom: &Freedom, limits: &Limits, sink: &mut dyn Sink) -> Result<Step, Stop>;
    /// See [`Vm::ready`].
    ///
    /// # Errors
    /// The end of the run.
    fn ready((&mut self), limits: &Limits) -> Result<Vec<bool>, Stop>;
    /// See [`Vm::guest_place`].
    fn guest_place((&self), vcpu: u32) -> Option<u64>;
    /// See [`Vm::follow`].
    fn follow((&mut self), schedule: Schedule);
    /// See [`Vm::holds_back`].
    fn holds_back((&self), vcpu: u32) -> bool;
    /// See [`Vm::buffers_stores`].
    fn buffers_stores((&self), vcpu: u32) -> bool;
    /// See [`Vm::watch_steps`].
    fn watch_steps((&mut self), watched: bool);
    /// See [`Vm::watches_steps`].
    fn watches_steps((&self)) -> bool;
    /// See [`Vm::next_piece`].
    fn next_piece((&self), vcpu: u32) -> Option<usize>;
    /// See [`Vm::is_in_host`].
    fn is_in_host((&self), vcpu: u32) -> bool;
    /// See [`Vm::model`].
    fn model((&self)) -> &'static CpuModel;
    /// See [`Vm::paging`].
    fn paging((&self)) -> Paging;
    /// See [`Vm::log_deliveries`].
    fn log_deliveries((&mut self), wanted: bool);
    /// See [`Vm::options`].
    fn options((&self)) -> Options;
    /// See [`Vm::cpu_count`].
    fn cpu_count((&self)) -> u32;
    /// See [`Vm::policy`].
    fn policy((&self)) -> Policy;
    /// See [`Vm::statistics`].
    fn statistics((&self)) -> Statistics;
    /// See [`Vm::instructions`].
    fn instructions((&self)) -> u64;
    /// See [`Vm::cycles`].
    fn cycles((&self)) -> u64;
    /// See [`Vm::activity`].
    fn activity((&self), vcpu: u32) -> Option<Activity>;
    /// See [`Vm::load`].
    ///
    /// # Errors
    /// The image does not fit into RAM.
    fn load((&mut self), image: &Image) -> Result<(), OutOfRange>;
    /// See [`Vm::registers`].
    fn registers((&mut self), vcpu: u32) -> Registers;
    /// See [`Vm::set_registers`].
    fn set_registers((&mut self), vcpu: u32, registers: &Registers);
    /// See [`Vm::start`].
    fn start((&mut self), vcpu: u32);
    /// See [`Vm::read_memory`].
    ///
    /// # Errors
    /// There is no RAM.
    fn read_memory((&self), guest_physical: u64, into: &mut [u8]) -> Result<(), OutOfRange>;
    /// See [`Vm::write_memory`].
    ///
    /// # Errors
    /// There is no RAM.
    fn write_memory((&mut self), guest_physical: u64, from: &[u8]) -> Result<(), OutOfRange>;
    /// See [`Vm::memory`].
    fn memory((&self)) -> &Memory;
    /// See [`Vm::memory_mut`].
    fn memory_mut((&mut self)) -> &mut Memory;
    /// See [`Vm::protect`].
    ///
    /// # Errors
    /// See [`SlotError`].
    fn protect((&mut self), range: Range<u64>, rights: Rights) -> Result<(), SlotError>;
    /// See [`Vm::board`].
    fn board((&self)) -> &Board;
    /// See [`Vm::board_mut`].
    fn board_mut((&mut self)) -> &mut Board;
    /// See [`Vm::take_serial`].
    fn take_serial((&mut self)) -> Vec<u8>;
    /// See [`Vm::pause_at`].
    fn pause_at((&mut self), moment: Moment) -> PauseId;
    /// See [`Vm::forget_pause`].
    fn forget_pause((&mut self), pause: PauseId);
    /// See [`Vm::compile`].
    fn compile((&mut self), when: Compile);
    /// See [`Vm::check`].
    fn check((&mut self), to: &'static CpuModel) -> Check;
    /// See [`Vm::hold`].
    ///
    /// # Errors
    /// See there.
    fn hold((&mut self), cycles: u64, sink: &mut dyn Sink) -> Result<(), Stop>;
    /// See [`Vm::start_dirty_log`].
    ///
    /// # Errors
    /// See there.
    fn start_dirty_log((&mut self), sink: &mut dyn Sink) -> Result<u64, Stop>;
    /// See [`Vm::take_dirty_log`].
    ///
    /// # Errors
    /// See there.
    fn take_dirty_log((&mut self), sink: &mut dyn Sink) -> Result<DirtyPages, Stop>;
    /// See [`Vm::stop_dirty_log`].
    ///
    /// # Errors
    /// See there.
    fn stop_dirty_log((&mut self), sink: &mut dyn Sink) -> Result<(), Stop>;
    /// See [`Vm::depart`].
    ///
    /// # Errors
    /// See there.
    fn depart((&mut self), sink: &mut dyn Sink) -> Result<Departure, Stop>;
    /// See [`Vm::ram`].
    fn ram((&self)) -> Vec<Range<u64>>;
    /// See [`Vm::cycles_of`].
    fn cycles_of((&self), vcpu: u32) -> u64;
    /// See [`Vm::hypercall_bytes`].
    fn hypercall_bytes((&self)) -> [u8; 3];
    /// See [`Vm::guest_cpu`].
    fn guest_cpu((&self)) -> GuestCpu;
    /// See [`Vm::set_absent_pages`].
    ///
    /// # Errors
    /// See there.
    fn set_absent_pages((&mut self), frames: BTreeSet<u64>) -> Result<(), NoNestedPaging>;
    /// See [`Vm::absent_pages`].
    fn absent_pages((&self)) -> u64;
    /// See [`Vm::hypercall_page`].
    fn hypercall_page((&self)) -> Option<u64>;
    /// See [`Vm::supply_page`].
    ///
    /// # Errors
    /// There is no RAM.
    fn supply_page((&mut self), frame: u64, bytes: &[u8; 4096], cycle: u64) -> Result<u64, OutOfRange>;
    /// See [`Vm::interrupt`].
    fn interrupt((&mut self), vcpu: u32, vector: u8);
    /// See [`Vm::counter_overflow`].
    fn counter_overflow((&mut self), vcpu: u32);
    /// See [`Vm::nmi`].
    fn nmi((&mut self), vcpu: u32);
    /// See [`Vm::exception`].
    fn exception((&mut self), vcpu: u32, vector: Vector, error_code: Option<u32>, address: u64);
}

impl AnyVm {
    /// A guest after power-up, on processors of the model that the configuration names.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn new(config: &VmConfig) -> Result<Self, CreateError> {
        Ok(match config.model.vendor {
            Vendor::Intel => Self::Vmx(Vm::new(config)?),
            Vendor::Amd => Self::Svm(Vm::new(config)?),
        })
    }

    /// See [`Vm::fingerprint`].
    pub fn fingerprint<H: std::hash::Hasher>(&mut self, origin: &Memory, into: &mut H) {
        match self {
            Self::Vmx(vm) => vm.fingerprint(origin, into),
            Self::Svm(vm) => vm.fingerprint(origin, into),
        }
    }

    /// See [`Vm::fork`].
    #[must_use]
    pub fn fork(&mut self) -> Self {
        match self {
            Self::Vmx(vm) => Self::Vmx(vm.fork()),
            Self::Svm(vm) => Self::Svm(vm.fork()),
        }
    }

    /// Moves the guest to processors of another model and tells what that cost, one sentence for each loss. Virtual CPUs that are in the
    /// guest are fetched out of it first, which shows in the trace.
    ///
    /// # Errors
    /// See [`MigrationError`]; the guest is gone then. [`check_model`] tells beforehand whether the processors are fit.
    pub fn migrate(
        self,
        model: &'static CpuModel,
        policy: Option<Policy>,
        sink: &mut dyn Sink,
    ) -> Result<(Self, Vec<String>), MigrationError> {
        check_model(model, self.options().paging)?;
        match self {
            Self::Vmx(vm) => migrate(vm, model, policy, sink),
            Self::Svm(vm) => migrate(vm, model, policy, sink),
        }
    }

    /// Makes a guest of what came from processors of `from`, and tells of the move. Also one sentence for each loss.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub(crate) fn unpack(
        mut parcel: Parcel,
        from: &'static CpuModel,
        model: &'static CpuModel,
        policy: Option<Policy>,
        sink: &mut dyn Sink,
    ) -> Result<(Self, Vec<String>), MigrationError> {
        parcel.common.policy = policy.unwrap_or(parcel.common.policy);
        let mut ledger = Vec::new();
        let mut moved = match model.vendor {
            Vendor::Intel => Self::Vmx(Vm::unpack(parcel, from, model, &mut ledger)?),
            Vendor::Amd => Self::Svm(Vm::unpack(parcel, from, model, &mut ledger)?),
        };
        match &mut moved {
            Self::Vmx(vm) => vm.emit_migration(from, &ledger, sink),
            Self::Svm(vm) => vm.emit_migration(from, &ledger, sink),
        }
        Ok((moved, ledger))
    }
}

fn migrate<B: Backend>(
    mut vm: Vm<B>,
    model: &'static CpuModel,
    policy: Option<Policy>,
    sink: &mut dyn Sink,
) -> Result<(AnyVm, Vec<String>), MigrationError> {
    let from = vm.model();
    vm.pause_all(sink).map_err(MigrationError::NotPaused)?;
    AnyVm::unpack(vm.pack(), from, model, policy, sink)
}
