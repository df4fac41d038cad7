//! A guest on one vendor's processors: what it is made of, and how it comes to be.
//!
//! Modelled: one host whose physical CPU *i* runs virtual CPU *i* and nothing else. Guest-physical addresses are host-physical ones; the
//! hypervisor's own pages lie behind the guest's RAM, where no nested table leads.

mod config;
mod userspace;

pub use config::{CreateError, MAXIMUM_MEMORY, MAXIMUM_SHADOW_PAGES, Options, Statistics, VmConfig};

use crate::absent::Absent;
use crate::backend::vmx::{IDENTITY_MAP, identity_map};
use crate::backend::{Backend, PAGES_PER_VCPU, Setup, TscSetting, Unfit};
use crate::cpuid::{self, CpuidTable};
use crate::dirty::DirtyLog;
use crate::emulator::{DeviceBus, Emulator, NoDevices};
use crate::guest_cpu::{GuestCpu, Levelling};
use crate::locks::Lock;
use crate::mmu::nested::{Format, NestedTables, Slots};
use crate::mmu::shadow::ShadowTables;
use crate::mmu::{Mmu, Paging};
use crate::policy::Policy;
use crate::run::{Pauses, Unfinished};
use crate::schedule::Schedule;
use crate::state::Registers;
use crate::vcpu::{Activity, Progress, Software, Vcpu};
use board::{Board, BoardConfig};
use cpu::Cpu;
use cpu::access::{DEVICE_HOLE_END, DEVICE_HOLE_START};
use cpu::apic::{self, LocalApic, register};
use cpu::block::CodeCache;
use cpu::bus::Environment;
use cpu::freedom::MemoryAccess;
use isa::cpuid::Feature;
use machine::schedule::Interleaving;
use memory::Memory;
use models::{CpuModel, Vendor};
use timing::Cost;
use trace::{Event, Sink};

/// Vector of the physical interrupt that fetches a processor out of its guest, as another host processor would.
pub const KICK_VECTOR: u8 = 0xfd;
/// Vector of the host's own timer.
pub const TIMER_VECTOR: u8 = 0xec;

/// What does not depend on the vendor, and moves along as it is.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub guest_model: &'static CpuModel,
    pub guest_features: u128,
    pub levelling: Levelling,
    pub cpuid: Vec<CpuidTable>,
    pub slots: Slots,
    pub board: Board,
    pub policy: Policy,
    pub options: Options,
    pub statistics: Statistics,
    pub pauses: Pauses,
    /// The turn that a pause or a limit broke off.
    pub unfinished: Option<Unfinished>,
    pub interleaving: Interleaving,
    pub serial: Vec<u8>,
    /// Instructions begun on processors that the guest has left behind.
    pub instructions: u64,
    pub tsc: TscSetting,
    /// Something happened that every virtual CPU's turn must end for.
    pub look: bool,
    /// Around the mappings of the guest's memory.
    pub lock: Lock,
    pub schedule: Option<Schedule>,
    /// The time at which the last step of a schedule ended, in ticks.
    pub frontier: u64,
    /// What the hypervisor wrote into the guest's text in the present step of a schedule.
    pub writes: Vec<MemoryAccess>,
    /// Where the present step's write into the guest's text stops.
    pub write_limit: Option<u8>,
    pub watches_steps: bool,
}

impl Common {
    /// What the guest was told of its processor.
    pub const fn guest(&self) -> GuestCpu {
        GuestCpu { model: self.guest_model, levelling: self.levelling }
    }
}

/// What a guest's local APIC offers.
pub(crate) fn apic_features(guest: &GuestCpu) -> apic::Features {
    apic::Features {
        x2apic: guest.has(Feature::X2apic),
        tsc_deadline: guest.has(Feature::TscDeadline),
        physical_address_bits: guest.physical_address_bits(),
        masks_performance: guest.vendor() == Vendor::Intel,
        ..apic::Features::of(guest.model)
    }
}

/// A guest on processors of one vendor. Every part of it is state, but for the caches inside of its processors and the blocks of `code`: see
/// [`Vm::fork`].
#[derive(Debug)]
pub struct Vm<B: Backend> {
    pub(crate) model: &'static CpuModel,
    pub(crate) cpus: Vec<Box<Cpu>>,
    pub(crate) vcpus: Vec<Vcpu<B>>,
    pub(crate) memory: Memory,
    pub(crate) code: CodeCache,
    pub(crate) mmu: Mmu,
    pub(crate) emulator: Emulator,
    /// The processors do without unrestricted guests.
    pub(crate) restricted: bool,
    /// The dirty log, while one is kept.
    pub(crate) dirty: Option<DirtyLog>,
    /// Pages that are still on another host.
    pub(crate) absent: Option<Absent>,
    pub(crate) common: Common,
}

/// Nested tables and their format, or shadow tables: what was asked for, else what a model has.
pub(crate) fn tables<B: Backend>(model: &'static CpuModel, paging: Option<Paging>) -> Result<Option<Format>, Unfit> {
    let shadow = || B::fit_for_shadow_paging(model).map(|()| None);
    match (paging, B::nested_format(model)) {
        (Some(Paging::Shadow), _) | (None, Err(Unfit::NoNestedPaging(_))) => shadow(),
        (_, format) => format.map(Some),
    }
}

/// Where the hypervisor's own pages begin: behind RAM, and behind the device hole if they do not fit below it.
fn own_pages(ram_end: u64, bytes: u64) -> u64 {
    if ram_end < DEVICE_HOLE_END && ram_end + bytes > DEVICE_HOLE_START { DEVICE_HOLE_END } else { ram_end }
}

impl<B: Backend> Vm<B> {
    /// A guest after power-up, on a host whose processors have virtualization turned on.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn new(config: &VmConfig) -> Result<Self, CreateError> {
        let size = config.memory_size;
        if size == 0 || size > MAXIMUM_MEMORY || size & 0xfff != 0 {
            return Err(CreateError::MemorySize(size));
        }
        if config.cpu_count == 0 || config.cpu_count > machine::MAXIMUM_CPUS {
            return Err(CreateError::CpuCount(config.cpu_count));
        }
        let guest_model = config.guest_model.unwrap_or(config.model);
        let guest = GuestCpu { model: guest_model, levelling: config.levelling };
        let hidden = config.options.hidden_features;
        let has_calls = config.policy.has_calls();
        let map_gpa = config.options.exit_hypercall;
        let features =
            cpuid::hypervisor_features(|row| has_calls && (map_gpa || row.handler != crate::hypercall::Handler::MapGpaRange)) & !hidden;
        let mut board = Board::new(&BoardConfig {
            cpu_count: config.cpu_count,
            ram_size: size,
            cycles_per_second: config.model.tsc_hz,
            ..BoardConfig::default()
        });
        board.advance(0);
        let slots = Slots::ram(size);
        let common = Common {
            guest_model,
            guest_features: guest.features(),
            levelling: config.levelling,
            cpuid: (0..config.cpu_count)
                .map(|number| CpuidTable::new(&guest, number, config.cpu_count, features, config.options.hyperv))
                .collect(),
            slots,
            board,
            policy: config.policy,
            options: config.options,
            statistics: Statistics::default(),
            pauses: Pauses::default(),
            unfinished: None,
            interleaving: Interleaving::new(config.seed),
            serial: Vec::new(),
            instructions: 0,
            tsc: TscSetting { offset: 0, ratio: 1 << 32 },
            look: false,
            lock: Lock::default(),
            schedule: None,
            frontier: 0,
            writes: Vec::new(),
            write_limit: None,
            watches_steps: false,
        };
        let mut software: Vec<Software> =
            (0..config.cpu_count).map(|number| Software::new(LocalApic::new(number, number == 0, apic_features(&guest)), number)).collect();
        if let Some(first) = software.first_mut() {
            // What firmware leaves.
            first.apic.set_virtual_wire();
        }
        let reset = |number: u32| {
            let mut cpu = Cpu::new(guest_model, number, config.cpu_count, None);
            cpu.reset();
            Registers::of(&cpu)
        };
        let registers = (0..config.cpu_count).map(reset).collect();
        let memory = Memory::new(0);
        Self::assemble(config.model, common, software, registers, memory, 0)
    }

    /// Puts a guest together on fresh processors. `memory` is the guest's RAM from where it was before, or nothing yet. `now` is the time in
    /// ticks.
    pub(crate) fn assemble(
        model: &'static CpuModel,
        common: Common,
        software: Vec<Software>,
        registers: Vec<Registers>,
        memory: Memory,
        now: u64,
    ) -> Result<Self, CreateError> {
        let format = tables::<B>(model, common.options.paging)?;
        let (count, shadow) = (software.len() as u64, format.is_none());
        let pool = common.options.shadow_pages.clamp(4 * count as u32 + 16, MAXIMUM_SHADOW_PAGES);
        let table_pages = if shadow { ShadowTables::pages(pool, software.len()) } else { NestedTables::pages(common.slots.end()) };
        let vcpu_pages = count * PAGES_PER_VCPU;
        // "Unrestricted guest" needs EPT.
        let restricted = B::VENDOR == Vendor::Intel && (shadow || !common.options.unrestricted_guest);
        let identity_mapped = restricted && !shadow;
        let bytes = (table_pages + vcpu_pages + u64::from(identity_mapped)) << 12;
        let first = own_pages(common.slots.end(), bytes);
        if shadow && first + bytes > DEVICE_HOLE_START {
            return Err(CreateError::TooMuchToShadow(common.slots.end()));
        }
        let mut memory = if memory.size() >= first + bytes { memory } else { grow(&memory, first + bytes) };
        // Tables of a former host.
        memory.unwatch_all();
        let tables = first + (vcpu_pages << 12);
        let identity = tables + (table_pages << 12);
        let fixed = identity_mapped.then_some((IDENTITY_MAP, identity));
        let mmu = match format {
            Some(format) => Mmu::Nested(NestedTables::new(format, tables..identity, fixed)),
            None => Mmu::Shadow(Box::new(ShadowTables::new(tables..identity, software.len()))),
        };
        let emulator = Emulator::new(&common.guest(), B::VENDOR == Vendor::Amd && !shadow, &common.slots);
        let mut vm = Self {
            model,
            cpus: Vec::new(),
            vcpus: Vec::new(),
            memory,
            code: CodeCache::new(),
            mmu,
            emulator,
            restricted,
            dirty: None,
            absent: None,
            common,
        };
        vm.code.compile(vm.common.options.compile);
        // Whatever a former host left there.
        vm.memory.forget(first >> 12, (first + bytes) >> 12);
        if identity_mapped {
            let _ = vm.memory.write(identity, &identity_map());
        }
        let mut nested_root = None;
        if let Mmu::Nested(nested) = &mut vm.mmu {
            nested.map_fixed(&mut vm.memory);
            nested_root = Some(nested.root());
        }
        for (number, (software, registers)) in software.into_iter().zip(registers).enumerate() {
            let number = number as u32;
            let mut cpu = Cpu::new(model, number, count as u32, machine::extension_of(model));
            cpu.set_now(now);
            cpu.log_deliveries(vm.common.options.deliveries);
            cpu.observe(vm.common.schedule.is_some());
            cpu.activity = cpu::state::Activity::Active;
            // The host's own APIC: software-enabled, so that kicks arrive.
            cpu.apic.write(register::SVR, 0x1ff, 0);
            let start = first + u64::from(number) * (PAGES_PER_VCPU << 12);
            let setup = Setup {
                pages: start..start + (PAGES_PER_VCPU << 12),
                nested_root,
                number,
                restricted,
                passed_msrs: crate::handle::msr::passed(B::VENDOR, vm.common.guest().vendor()),
                guest_vendor: vm.common.guest().vendor(),
            };
            let mut devices = NoDevices;
            let mut bus = DeviceBus(&mut devices);
            let mut environment = Environment { memory: &mut vm.memory, code: &mut vm.code, bus: &mut bus };
            let (policy, tsc) = (vm.common.policy, vm.common.tsc);
            let backend = cpu.with_environment(&mut environment, |cpu| {
                let mut backend = B::create(cpu, &setup)?;
                backend.intercept_exceptions(cpu, policy.intercepted_exceptions());
                backend.load(cpu, &registers);
                backend.set_tsc(cpu, tsc);
                Ok::<_, Unfit>(backend)
            })?;
            cpu.set_now(now);
            vm.cpus.push(cpu);
            vm.vcpus.push(Vcpu { backend, software, progress: Progress::new(), job: None, next: None, waits: None, granted: false });
        }
        if vm.common.options.prefault {
            vm.map_everything();
        }
        Ok(vm)
    }

    /// A guest that goes on exactly as this one, on processors that do as well; only while none of them executes: between runs, or
    /// between an exit and its handling. Memory is shared until one of the two writes it.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self {
            model: self.model,
            cpus: self.cpus.iter().map(|cpu| cpu.fork()).collect(),
            vcpus: self.vcpus.clone(),
            memory: self.memory.snapshot(),
            code: self.code.fork(),
            mmu: self.mmu.clone(),
            emulator: self.emulator.fork(),
            restricted: self.restricted,
            dirty: self.dirty.clone(),
            absent: self.absent.clone(),
            common: self.common.clone(),
        }
    }

    pub(crate) fn map_everything(&mut self) {
        let Mmu::Nested(nested) = &mut self.mmu else { return };
        for slot in self.common.slots.iter() {
            nested.map_slot(&mut self.memory, slot);
        }
    }

    /// Lets a closure use the backend and the processor of a virtual CPU, without a charge: the cost rows of the hypervisor's work are
    /// measurements of whole handlers, VMREADs and VMWRITEs included.
    pub(crate) fn silicon<T>(&mut self, vcpu: usize, call: impl FnOnce(&mut B, &mut Cpu) -> T) -> T {
        let now = self.cpus[vcpu].now();
        let result = self.silicon_charged(vcpu, call);
        self.cpus[vcpu].set_now(now);
        result
    }

    /// The same with all that the silicon charges: for entries.
    pub(crate) fn silicon_charged<T>(&mut self, vcpu: usize, call: impl FnOnce(&mut B, &mut Cpu) -> T) -> T {
        let journal = self.memory.open_journal(false);
        let mut devices = NoDevices;
        let mut bus = DeviceBus(&mut devices);
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus };
        let backend = &mut self.vcpus[vcpu].backend;
        let result = self.cpus[vcpu].with_environment(&mut environment, |cpu| call(backend, cpu));
        self.memory.open_journal(journal);
        result
    }

    /// Charges work of the hypervisor.
    pub(crate) fn charge(&mut self, vcpu: usize, cost: &Cost) {
        self.cpus[vcpu].charge(cost.ticks());
    }

    /// Tells of an event on a virtual CPU now.
    pub(crate) fn emit(&self, vcpu: usize, sink: &mut dyn Sink, event: Event) {
        sink.emit(self.cpus[vcpu].cycles(), vcpu as u32, event);
    }

    /// Which kind of tables the guest runs with.
    pub fn paging(&self) -> Paging {
        self.mmu.paging()
    }

    /// What was chosen besides the policy.
    pub fn options(&self) -> Options {
        self.common.options
    }

    /// The model of the physical processors.
    pub fn model(&self) -> &'static CpuModel {
        self.model
    }

    /// How many virtual CPUs there are.
    pub fn cpu_count(&self) -> u32 {
        self.vcpus.len() as u32
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.common.policy
    }

    /// What was counted so far.
    pub fn statistics(&self) -> Statistics {
        self.common.statistics
    }

    /// Instructions that all virtual CPUs have begun.
    pub fn instructions(&self) -> u64 {
        self.common.instructions + self.cpus.iter().map(|cpu| cpu.instructions()).sum::<u64>()
    }

    /// The time in cycles of the virtual CPU that is furthest ahead.
    pub fn cycles(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.cycles()).max().unwrap_or(0)
    }

    /// The time in cycles of one virtual CPU.
    pub fn cycles_of(&self, vcpu: u32) -> u64 {
        self.cpus[self.index(vcpu)].cycles()
    }

    /// The hypercall instruction of the processors that the guest runs on.
    pub const fn hypercall_bytes(&self) -> [u8; 3] {
        B::HYPERCALL
    }

    /// What the guest's CPUID tells of.
    pub fn guest_cpu(&self) -> GuestCpu {
        self.common.guest()
    }

    /// What a virtual CPU is doing.
    pub fn activity(&self, vcpu: u32) -> Option<Activity> {
        self.vcpus.get(vcpu as usize).map(|vcpu| vcpu.software.activity)
    }

    /// The index of a virtual CPU; the first where there is no such CPU.
    pub(crate) fn index(&self, vcpu: u32) -> usize {
        let vcpu = vcpu as usize;
        if vcpu < self.vcpus.len() { vcpu } else { 0 }
    }

    /// Drops every mapping, on every processor; how many there were.
    pub(crate) fn zap(&mut self) -> u64 {
        let mappings = self.mmu.zap(&mut self.memory);
        self.flush_all();
        mappings
    }

    /// Makes every processor forget translations that came from the nested tables.
    pub(crate) fn flush_all(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            if self.cpus[vcpu].guest_mode {
                // A processor in its guest is fetched out by the host, which flushes there.
                self.cpus[vcpu].flush_tlb();
                if self.cpus[vcpu].buffers_stores() {
                    self.silicon(vcpu, |_, cpu| cpu.drain_stores());
                }
            } else {
                self.silicon(vcpu, |backend, cpu| backend.flush(cpu));
            }
        }
    }
}

/// Memory of a larger size with the same contents.
fn grow(memory: &Memory, size: u64) -> Memory {
    let mut larger = Memory::new(size);
    let frames: Vec<u64> = memory.touched_frames().collect();
    let mut page = [0; 4096];
    for frame in frames {
        if memory.read(frame << 12, &mut page).is_ok() {
            let _ = larger.write(frame << 12, &page);
        }
    }
    larger
}
