//! Checkpoints: a guest with its host as sections of a stream, and back.
//!
//! Modelled: everything of guest and host that decides how the run goes on, so that it goes on to the byte: virtual CPUs that are in the guest
//! stay there, exits that wait stay unhandled, a turn that was broken off is finished. Processors, memory, decoded code and board are those of
//! [`machine::checkpoint`]. Not modelled: another number of processors or another model at the other side; that is what a move is for.

use crate::any::AnyVm;
use crate::backend::{Backend, TscSetting};
use crate::cpuid::CpuidTable;
use crate::dirty::DirtyLog;
use crate::guest_cpu::{GuestCpu, Levelling, LevellingRecord};
use crate::locks::{Hold, Lock};
use crate::mmu::Mmu;
use crate::mmu::nested::{NestedRecord, Slots};
use crate::mmu::shadow::ShadowRecord;
use crate::policy::Policy;
use crate::run::{Pauses, Unfinished};
use crate::schedule::Schedule;
use crate::steps::{Job, Stage, Wait};
use crate::vcpu::{Progress, Software};
use crate::vm::{Common, MAXIMUM_MEMORY, Options, Statistics, Vm, VmConfig, apic_features};
use cpu::Cpu;
use machine::checkpoint::{
    Checkpoint, Error, model_of, take_board, take_code, take_cpu, take_freedoms, write_code, write_cpu, write_memory,
};
use machine::schedule::Interleaving;
use models::Vendor;
use serde::{Deserialize, Serialize};
use std::io::Write;
use stream::{Bytes, Writer};

/// The version of every section that this module writes.
const VERSION: u16 = 1;

/// Name of the section that says what the guest and its host are made of.
const HYPERVISOR: &str = "hypervisor";

/// Name of the section that says whose step is next, where a schedule decides.
const SCHEDULE: &str = "schedule";

/// A guest and its host, beside their parts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VmRecord {
    /// Name of the physical processors' model.
    model: String,
    /// Name of the model that the guest's CPUID tells of.
    guest_model: String,
    /// What that model's CPUID is narrowed by.
    levelling: LevellingRecord,
    /// Virtual CPUs.
    cpu_count: u32,
    /// Bytes of RAM.
    memory_size: u64,
    /// What happens to hypercalls.
    policy: Policy,
    /// The rest of what may be chosen.
    options: Options,
    /// The hypervisor's features in CPUID leaf 0x40000001.
    features: u32,
    /// What was counted.
    statistics: Statistics,
    /// State of the generator behind the order of turns.
    interleaving: Interleaving,
    /// The turn that was broken off.
    unfinished: Option<Unfinished>,
    /// The moments that are waited for.
    pauses: Pauses,
    /// Serial output that nobody has taken yet.
    serial: Bytes,
    /// Instructions begun on processors that the guest has left behind.
    instructions: u64,
    /// Ratio and offset of the guest's time-stamp counter.
    tsc: TscSetting,
    /// Every turn must end.
    look: bool,
    /// The lock around the mappings.
    #[serde(default)]
    lock: Lock,
    /// Frames in the dirty log, if one is kept.
    dirty: Option<Vec<u64>>,
}

/// A run by steps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleRecord {
    /// The turns, and how far they have come.
    schedule: Schedule,
    /// The time of the last step, in ticks.
    frontier: u64,
    /// The run ends behind each step.
    watched: bool,
}

/// The hypervisor's own part of a virtual CPU, beside its backend.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VcpuSection {
    /// What no vendor has a say in.
    software: Software,
    /// Whether it goes anywhere.
    progress: ProgressRecord,
    /// An exit was told of, and waits for its handling.
    unhandled: bool,
    /// How far its handling is; nothing of it is done where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    /// Its thread waits for the lock around the mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waits: Option<Hold>,
    /// It has waited, and has the lock now.
    #[serde(default)]
    granted: bool,
}

/// See [`Progress`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressRecord {
    /// RIP of the exits.
    pub rip: u64,
    /// RCX behind them.
    pub rcx: u64,
    /// Their reason.
    pub reason: String,
    /// How many there were.
    pub count: u64,
}

impl<B: Backend> Vm<B> {
    fn checkpoint<W: Write>(&mut self, writer: &mut Writer<W>) -> Result<(), Error> {
        if self.absent.is_some() {
            return Err(Error::impossible(HYPERVISOR, "pages of its memory are still on another host"));
        }
        self.code.take_writes(&mut self.memory);
        self.follow_shadowed_writes();
        // A new part of the guest has to be placed here: in a section, or among what follows from others.
        let Common {
            guest_model,
            guest_features: _,
            levelling,
            cpuid,
            slots,
            board,
            policy,
            options,
            statistics,
            pauses,
            unfinished,
            interleaving,
            serial,
            instructions,
            tsc,
            look,
            lock,
            schedule,
            frontier,
            watches_steps,
            // Between two steps of a schedule these are void.
            writes: _,
            write_limit: _,
        } = &self.common;
        let features = cpuid.first().map_or(0, |table| table.hypervisor_features());
        let record = VmRecord {
            model: self.model.name.to_owned(),
            guest_model: guest_model.name.to_owned(),
            levelling: levelling.record(),
            cpu_count: self.vcpus.len() as u32,
            memory_size: slots.ram_pages() << 12,
            policy: *policy,
            options: *options,
            features,
            statistics: *statistics,
            interleaving: interleaving.clone(),
            unfinished: *unfinished,
            pauses: pauses.clone(),
            serial: Bytes(serial.clone()),
            instructions: *instructions,
            tsc: *tsc,
            look: *look,
            lock: lock.clone(),
            dirty: self.dirty.as_ref().map(DirtyLog::frames),
        };
        writer.value(HYPERVISOR, VERSION, &record)?;
        if let Some(schedule) = schedule {
            writer.value(
                SCHEDULE,
                VERSION,
                &ScheduleRecord { schedule: schedule.clone(), frontier: *frontier, watched: *watches_steps },
            )?;
        }
        writer.value("slots", VERSION, slots)?;
        match &self.mmu {
            Mmu::Nested(tables) => writer.value("nested", VERSION, &tables.record())?,
            Mmu::Shadow(tables) => writer.value("shadow", VERSION, &tables.record())?,
        }
        writer.value("board", VERSION, board)?;
        for (number, (vcpu, cpu)) in self.vcpus.iter().zip(&mut self.cpus).enumerate() {
            let section = VcpuSection {
                software: vcpu.software.clone(),
                progress: vcpu.progress.record(),
                unhandled: vcpu.job.is_some(),
                stage: vcpu.job.as_ref().map(|job| job.stage.clone()).filter(|stage| *stage != Stage::Begin),
                waits: match vcpu.waits {
                    Some(Wait::Lock(hold)) => Some(hold),
                    // Nobody waits for an absent page where none is.
                    Some(Wait::Page(_)) | None => None,
                },
                granted: vcpu.granted,
            };
            writer.value(&format!("vcpu/{number}/software"), VERSION, &section)?;
            writer.value(&format!("vcpu/{number}/backend"), VERSION, &vcpu.backend.record())?;
            write_cpu(writer, &format!("cpu/{number}"), cpu)?;
        }
        // What the last emulation left there is void at the next.
        self.emulator.processor().flush_tlb();
        write_cpu(writer, "emulator", self.emulator.processor())?;
        write_code(writer, &self.code)?;
        write_memory(writer, &self.memory)
    }

    fn restore(from: &mut Checkpoint, record: VmRecord) -> Result<Self, Error> {
        let model = model_of(HYPERVISOR, &record.model)?;
        let guest_model = model_of(HYPERVISOR, &record.guest_model)?;
        // What was never written is no memory of the reader's, however much of it there is.
        let levelling = Levelling::of_record(&record.levelling).map_err(|what| Error::impossible(HYPERVISOR, what))?;
        let guest = GuestCpu { model: guest_model, levelling };
        let config = VmConfig {
            model,
            guest_model: Some(guest_model),
            levelling,
            cpu_count: record.cpu_count,
            memory_size: record.memory_size,
            seed: 0,
            policy: record.policy,
            options: Options { prefault: false, ..record.options },
        };
        let mut vm = Self::new(&config).map_err(|error| Error::impossible(HYPERVISOR, error))?;
        let Statistics { exits, hypercalls, patches, migrations } = record.statistics;
        if [exits, hypercalls, patches, migrations, record.instructions].iter().any(|count| *count >= 1 << 56) {
            return Err(Error::impossible(HYPERVISOR, "counts that no run reaches"));
        }
        let memory = from.take_memory()?;
        if memory.size() < vm.memory.size() || memory.size() > 2 * MAXIMUM_MEMORY {
            return Err(Error::impossible("memory", format!("{:#x} bytes for a guest that has {:#x}", memory.size(), record.memory_size)));
        }
        vm.memory = memory;
        let by_steps: Option<ScheduleRecord> = if from.has(SCHEDULE) { Some(from.take(SCHEDULE, VERSION)?) } else { None };
        if by_steps.as_ref().is_some_and(|record| !record.schedule.is_possible(vm.vcpus.len()) || record.frontier >= 1 << 62) {
            return Err(Error::impossible(SCHEDULE, "turns that there are not, of virtual CPUs that there are not, or at no time"));
        }
        let slots: Slots = from.take("slots", VERSION)?;
        if !slots.is_possible(record.memory_size) {
            return Err(Error::impossible("slots", "memory slots outside of RAM, or in disorder"));
        }
        vm.emulator.set_slots(&slots);
        match &mut vm.mmu {
            Mmu::Nested(tables) => {
                let record: NestedRecord = from.take("nested", VERSION)?;
                tables.restore(&record).map_err(|what| Error::impossible("nested", what))?;
            }
            Mmu::Shadow(tables) => {
                let record: ShadowRecord = from.take("shadow", VERSION)?;
                tables.restore(&mut vm.memory, record).map_err(|what| Error::impossible("shadow", what))?;
            }
        }
        let apic = apic_features(&guest);
        let (mut unhandled, mut waits) = (Vec::new(), Vec::new());
        for number in 0..record.cpu_count {
            let index = number as usize;
            let name = format!("vcpu/{number}/software");
            let section: VcpuSection = from.take(&name, VERSION)?;
            let software = section.software;
            if !software.apic.is_possible(apic) || software.completion.is_some_and(|completion| completion.length > 15) {
                return Err(Error::impossible(name, "a virtual CPU of another model, or one that waits for an endless instruction"));
            }
            vm.vcpus[index].software = software;
            vm.vcpus[index].progress = Progress::of_record(&section.progress).map_err(|what| Error::impossible(&name, what))?;
            vm.vcpus[index].backend.restore(from.take(&format!("vcpu/{number}/backend"), VERSION)?);
            let mut cpu = Cpu::new(model, number, record.cpu_count, machine::extension_of(model));
            take_cpu(from, &format!("cpu/{number}"), &mut cpu)?;
            if take_freedoms(from, &format!("cpu/{number}"), &mut cpu, vm.memory.size())? != by_steps.is_some() {
                return Err(Error::impossible(format!("cpu/{number}"), "a processor that is observed without a schedule, or not with one"));
            }
            if !cpu.rust_host {
                return Err(Error::impossible(format!("cpu/{number}"), "a processor whose host is no Rust program"));
            }
            if !is_ready(&mut cpu) {
                return Err(Error::impossible(format!("cpu/{number}"), "a processor whose virtualization is off"));
            }
            if cpu.logs_deliveries() != record.options.deliveries {
                return Err(Error::impossible(
                    format!("cpu/{number}"),
                    "a log of deliveries that nobody takes, or none where one is wanted",
                ));
            }
            if section.unhandled && cpu.guest_mode {
                return Err(Error::impossible(&name, "an exit of a guest that is still entered"));
            }
            vm.cpus[index] = cpu;
            if section.stage.as_ref().is_some_and(|stage| !stage.is_possible(&slots)) {
                return Err(Error::impossible(&name, "work of the hypervisor that there cannot be"));
            }
            let needs_lock = section.unhandled && section.stage.as_ref().is_some_and(Stage::needs_lock);
            waits.push((section.waits, needs_lock));
            (vm.vcpus[index].waits, vm.vcpus[index].granted) = (section.waits.map(Wait::Lock), section.granted);
            if section.unhandled {
                unhandled.push((index, section.stage.unwrap_or(Stage::Begin)));
            }
        }
        take_cpu(from, "emulator", vm.emulator.processor())?;
        let memory_size = vm.memory.size();
        take_freedoms(from, "emulator", vm.emulator.processor(), memory_size)?;
        vm.emulator.processor().observe(by_steps.is_some());
        vm.code = take_code(from, &mut vm.memory)?;
        vm.code.compile(record.options.compile);
        if record.unfinished.is_some_and(|turn| turn.number >= vm.vcpus.len()) || !record.pauses.is_possible(vm.vcpus.len()) {
            return Err(Error::impossible(HYPERVISOR, "a turn or a pause of a virtual CPU that there is not"));
        }
        if !record.lock.is_possible(&waits) {
            return Err(Error::impossible(HYPERVISOR, "a lock of virtual CPUs that there are not, or that do not wait for it"));
        }
        let ram = |frame: &u64| frame.checked_mul(4096).is_some_and(|address| slots.is_ram(address));
        if record.dirty.as_ref().is_some_and(|frames| !frames.iter().all(ram)) {
            return Err(Error::impossible(HYPERVISOR, "a dirty log of pages that there are not"));
        }
        vm.dirty = record.dirty.map(DirtyLog::of);
        let table = |number| CpuidTable::new(&guest, number, record.cpu_count, record.features, record.options.hyperv);
        vm.common = Common {
            guest_model,
            guest_features: guest.features(),
            levelling,
            cpuid: (0..record.cpu_count).map(table).collect(),
            slots,
            board: take_board(from, record.cpu_count)?,
            policy: record.policy,
            options: record.options,
            statistics: record.statistics,
            pauses: record.pauses,
            unfinished: record.unfinished,
            interleaving: record.interleaving,
            serial: record.serial.0,
            instructions: record.instructions,
            tsc: record.tsc,
            look: record.look,
            lock: record.lock,
            frontier: by_steps.as_ref().map_or(0, |record| record.frontier),
            watches_steps: by_steps.as_ref().is_some_and(|record| record.watched),
            schedule: by_steps.map(|record| record.schedule),
            writes: Vec::new(),
            write_limit: None,
        };
        for (number, stage) in unhandled {
            // What the exit was is read once more: nothing has touched the control structure since.
            let kept = vm.vcpus[number].backend.record();
            let report = vm.silicon(number, |backend, cpu| backend.report(cpu));
            vm.vcpus[number].backend.restore(kept);
            vm.vcpus[number].job = Some(Job { report, stage });
        }
        Ok(vm)
    }
}

/// Whether a processor is as this hypervisor leaves its processors: virtualization on, and a VMCS current.
fn is_ready(cpu: &mut Cpu) -> bool {
    let svme = cpu.efer.svme() || cpu.guest_mode;
    let ready = cpu.with_extension(|extension, _| match extension.as_any().downcast_ref::<vmx::Vmx>() {
        Some(vmx) => vmx.operation() != vmx::Operation::Off && vmx.current_pointer().is_some(),
        None => svme,
    });
    ready.unwrap_or(false)
}

impl AnyVm {
    /// Writes the guest with its host; only between runs.
    ///
    /// # Errors
    /// The operating system's.
    pub fn checkpoint<W: Write>(&mut self, writer: &mut Writer<W>) -> Result<(), Error> {
        match self {
            Self::Vmx(vm) => vm.checkpoint(writer),
            Self::Svm(vm) => vm.checkpoint(writer),
        }
    }

    /// The guest of a checkpoint.
    ///
    /// # Errors
    /// Sections are missing, or of a state that cannot be.
    pub fn restore(from: &mut Checkpoint) -> Result<Self, Error> {
        let record: VmRecord = from.take(HYPERVISOR, VERSION)?;
        Ok(match model_of(HYPERVISOR, &record.model)?.vendor {
            Vendor::Intel => Self::Vmx(Vm::restore(from, record)?),
            Vendor::Amd => Self::Svm(Vm::restore(from, record)?),
        })
    }
}
