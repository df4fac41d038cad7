//! A guest on one vendor's processors: what it is made of, and how it comes to be.
//!
//! Modelled: one host whose physical CPU *i* runs virtual CPU *i* and nothing else. Guest-physical addresses are host-physical ones; the
//! hypervisor's own pages lie behind the guest's RAM, where no nested table leads.

use crate::absent::Absent;
use crate::backend::vmx::{IDENTITY_MAP, identity_map};
use crate::backend::{Backend, PAGES_PER_VCPU, Setup, TscSetting, Unfit};
use crate::cpuid::{self, CpuidTable};
use crate::dirty::DirtyLog;
use crate::emulator::{DeviceBus, Emulator, NoDevices};
use crate::guest_cpu::{GuestCpu, Levelling};
use crate::locks::Lock;
use crate::mmu::nested::{Format, NestedTables, Rights, SlotError, Slots};
use crate::mmu::shadow::ShadowTables;
use crate::mmu::{Mmu, Paging};
use crate::policy::Policy;
use crate::run::{Moment, PauseId, Pauses, Unfinished};
use crate::schedule::Schedule;
use crate::state::Registers;
use crate::vcpu::{Activity, Progress, Software, Vcpu};
use board::loader::Image;
use board::{Board, BoardConfig};
use cpu::Cpu;
use cpu::access::{DEVICE_HOLE_END, DEVICE_HOLE_START};
use cpu::apic::{self, LocalApic, LocalSource, register};
use cpu::block::{CodeCache, Compile};
use cpu::bus::Environment;
use cpu::freedom::MemoryAccess;
use cpu::trap::Exception;
use isa::apic::{ApicMessage, DeliveryMode};
use isa::cpuid::Feature;
use isa::exception::Vector;
use machine::schedule::Interleaving;
use memory::{Memory, OutOfRange};
use models::{CpuModel, Vendor};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use timing::Cost;
use trace::{Event, Sink};

/// The most memory a guest may have: 64 GiB.
pub const MAXIMUM_MEMORY: u64 = 64 << 30;
/// The most pages of a pool of shadow pages: 256 MiB of them.
pub const MAXIMUM_SHADOW_PAGES: u32 = 1 << 16;
/// Vector of the physical interrupt that fetches a processor out of its guest, as another host processor would.
pub const KICK_VECTOR: u8 = 0xfd;
/// Vector of the host's own timer.
pub const TIMER_VECTOR: u8 = 0xec;

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
            cpuid: (0..config.cpu_count).map(|number| CpuidTable::new(&guest, number, config.cpu_count, features)).collect(),
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

    /// What the guest's CPUID tells of.
    pub fn guest_cpu(&self) -> GuestCpu {
        self.common.guest()
    }

    /// What a virtual CPU is doing.
    pub fn activity(&self, vcpu: u32) -> Option<Activity> {
        self.vcpus.get(vcpu as usize).map(|vcpu| vcpu.software.activity)
    }

    /// Loads an image: memory, and the registers of virtual CPU 0.
    ///
    /// # Errors
    /// The image does not fit into RAM. Nothing is written then.
    pub fn load(&mut self, image: &Image) -> Result<(), OutOfRange> {
        let size = self.common.slots.end();
        for segment in &image.segments {
            let length = segment.bytes.len() as u64;
            if segment.physical.checked_add(length).is_none_or(|end| end > size) {
                return Err(OutOfRange { address: segment.physical, length, size });
            }
        }
        let mut spare = Cpu::new(self.common.guest_model, 0, 1, None);
        machine::load_image(image, &mut self.memory, 0, &mut spare)?;
        self.set_registers(0, &Registers::of(&spare));
        Ok(())
    }

    /// The registers of a virtual CPU as the guest would see them now; those of the first where there is no such CPU.
    pub fn registers(&mut self, vcpu: u32) -> Registers {
        let vcpu = self.index(vcpu);
        if self.cpus[vcpu].guest_mode {
            let mut registers = Registers::of(&self.cpus[vcpu]);
            self.vcpus[vcpu].backend.show(&mut registers);
            return self.guest_view(vcpu, registers);
        }
        self.silicon(vcpu, |backend, cpu| backend.save(cpu))
    }

    /// The registers of a processor in guest mode, with the control registers as the guest reads them.
    fn guest_view(&self, vcpu: usize, mut registers: Registers) -> Registers {
        let interception = &self.cpus[vcpu].interception;
        let view = |real: u64, mask: u64, shadow: u64| real & !mask | shadow & mask;
        registers.cr0 = isa::control::Cr0::from_bits(view(registers.cr0.into_bits(), interception.cr0_mask, interception.cr0_shadow));
        registers.cr4 = isa::control::Cr4::from_bits(view(registers.cr4.into_bits(), interception.cr4_mask, interception.cr4_shadow));
        registers.efer = registers.efer.with_svme(false);
        registers
    }

    /// Sets the registers of a virtual CPU. One that is in the guest right now is fetched out first, at the next run, without a trace.
    pub fn set_registers(&mut self, vcpu: u32, registers: &Registers) {
        let vcpu = self.index(vcpu);
        self.fetch_out(vcpu);
        self.silicon(vcpu, |backend, cpu| backend.load(cpu, registers));
    }

    /// Makes a virtual CPU run that waits for a start-up message.
    pub fn start(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        self.vcpus[vcpu].software.activity = Activity::Running;
    }

    /// The index of a virtual CPU; the first where there is no such CPU.
    pub(crate) fn index(&self, vcpu: u32) -> usize {
        let vcpu = vcpu as usize;
        if vcpu < self.vcpus.len() { vcpu } else { 0 }
    }

    /// Reads guest-physical memory.
    ///
    /// # Errors
    /// There is no RAM.
    pub fn read_memory(&self, guest_physical: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        self.check_ram(guest_physical, into.len())?;
        self.memory.read(guest_physical, into)
    }

    /// Writes guest-physical memory, as a device does: rights of slots do not matter.
    ///
    /// # Errors
    /// There is no RAM.
    pub fn write_memory(&mut self, guest_physical: u64, from: &[u8]) -> Result<(), OutOfRange> {
        self.check_ram(guest_physical, from.len())?;
        self.memory.write(guest_physical, from)
    }

    fn check_ram(&self, address: u64, length: usize) -> Result<(), OutOfRange> {
        let (length, size) = (length as u64, self.common.slots.end());
        let fits = address.checked_add(length).is_some_and(|end| end <= size);
        if fits { Ok(()) } else { Err(OutOfRange { address, length, size }) }
    }

    /// The guest's memory; behind its RAM lie the hypervisor's pages.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The guest's memory, for dirty logs and snapshots.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Changes what the guest may do with a range of its memory; every mapping is dropped for it.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn protect(&mut self, range: Range<u64>, rights: Rights) -> Result<(), SlotError> {
        self.common.slots.protect(range, rights)?;
        self.emulator.set_slots(&self.common.slots);
        self.zap();
        if self.common.options.prefault {
            self.map_everything();
        }
        Ok(())
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
            } else {
                self.silicon(vcpu, |backend, cpu| backend.flush(cpu));
            }
        }
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.common.board
    }

    /// The board, for input to its devices.
    pub fn board_mut(&mut self) -> &mut Board {
        &mut self.common.board
    }

    /// Serial output since the last call.
    pub fn take_serial(&mut self) -> Vec<u8> {
        self.collect_serial();
        std::mem::take(&mut self.common.serial)
    }

    pub(crate) fn collect_serial(&mut self) {
        let output = self.common.board.serial_output();
        self.common.serial.extend(output);
    }

    /// Asks for a pause of the run at a moment. It happens once.
    pub fn pause_at(&mut self, moment: Moment) -> PauseId {
        self.common.pauses.add(moment)
    }

    /// Waits for a moment no more.
    pub fn forget_pause(&mut self, pause: PauseId) {
        self.common.pauses.forget(pause);
    }

    /// Sets when code is compiled, on which nothing but the speed depends.
    pub fn compile(&mut self, when: Compile) {
        self.common.options.compile = when;
        self.code.compile(when);
    }

    /// Raises an interrupt at the local APIC of a virtual CPU.
    pub fn interrupt(&mut self, vcpu: u32, vector: u8) {
        let vcpu = self.index(vcpu);
        self.accept(vcpu, DeliveryMode::Fixed, vector);
    }

    /// Raises a non-maskable interrupt.
    pub fn nmi(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        self.accept(vcpu, DeliveryMode::Nmi, 2);
    }

    /// Signals an overflow of a performance counter to the local APIC of a virtual CPU, as a counter would.
    pub fn counter_overflow(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        let accepted = self.vcpus[vcpu].software.apic.raise(LocalSource::Performance);
        self.accepted(vcpu, accepted);
    }

    /// Raises an exception in the guest at its next entry. An address goes to CR2.
    pub fn exception(&mut self, vcpu: u32, vector: Vector, error_code: Option<u32>, address: u64) {
        let vcpu = self.index(vcpu);
        self.queue_exception(vcpu, Exception { vector, error_code, address, debug: 0 });
        self.kick(vcpu, KICK_VECTOR);
    }

    fn accept(&mut self, vcpu: usize, mode: DeliveryMode, vector: u8) {
        let destination = self.vcpus[vcpu].software.apic.id();
        self.deliver(vcpu, &ApicMessage { destination, logical: false, mode, vector, level: false });
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
