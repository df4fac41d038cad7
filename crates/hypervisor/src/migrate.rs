//! The move of a running guest to processors of another model, possibly the other vendor's.
//!
//! Modelled: every virtual CPU is fetched out of its guest and saved as a record that belongs to no vendor; the destination is built anew
//! and loads it; memory, board, virtual local APICs, pending events and time go on as they are. What a vendor cannot carry is in the
//! ledger, sentence by sentence, and a restored record is read back and compared, so that nothing is lost without being told.
//! Copying memory over a link while the guest runs is the business of the crate `migration`. Not modelled: guests that are hypervisors themselves.

use crate::any::shadows;
use crate::backend::{Backend, TscSetting, Unfit};
use crate::guest_cpu::GuestCpu;
use crate::ledger::{self, Check, Entry, Move};
use crate::run::Stop;
use crate::state::is_software;
use crate::vcpu::{Software, VcpuRecord};
use crate::vm::{Common, CreateError, Vm};
use memory::Memory;
use models::{CpuModel, Vendor};
use trace::{Event, Sink};

/// A guest could not be moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrationError {
    /// The destination cannot run guests.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A virtual CPU could not be brought out of its guest; the run would have ended so.
    #[error("virtual CPUs could not be paused: {0:?}")]
    NotPaused(Stop),
    /// The destination could not be built.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// Everything of a guest, between two hosts.
pub(crate) struct Parcel {
    pub records: Vec<VcpuRecord>,
    pub memory: Memory,
    pub common: Common,
    pub now: u64,
}

/// What is lost of every virtual CPU.
fn losses(
    records: &[VcpuRecord],
    guest: &GuestCpu,
    from: &'static CpuModel,
    (to, to_shadow): (&'static CpuModel, bool),
    memory: &Memory,
) -> Vec<Entry> {
    let several = records.len() > 1;
    let of = |(number, record): (usize, &VcpuRecord)| {
        let losses = Move { registers: &record.registers, software: &record.software, guest, from, to, to_shadow, memory }.losses();
        losses.into_iter().map(move |entry| Entry { vcpu: several.then_some(number as u32), ..entry })
    };
    records.iter().enumerate().flat_map(of).collect()
}

/// What software has of a virtual CPU, as the destination takes it.
fn prepare(software: &mut Software, to: Vendor) {
    // The silicon is told anew.
    software.told_priority = 0;
    software.window_wanted = true;
    // KVM_GET_VCPU_EVENTS has no instruction length: what an instruction began is begun again, for RIP is still at the instruction.
    software.requeued = software.requeued.filter(|event| !is_software(event));
    if to == Vendor::Intel {
        // SDM vol 3, 27.2.1.3 "VM-Entry Control Fields": bits 31:16 of an error code are zero.
        let narrow = |code: &mut Option<u32>| *code = code.map(|code| code & 0xffff);
        software.requeued.iter_mut().for_each(|event| narrow(&mut event.error_code));
        software.exception.iter_mut().for_each(|exception| narrow(&mut exception.error_code));
    }
}

/// The ratio of two frequencies with 32 fraction bits.
fn ratio(guest: u64, host: u64) -> u64 {
    u64::try_from((u128::from(guest) << 32) / u128::from(host.max(1))).unwrap_or(u64::MAX)
}

impl<B: Backend> Vm<B> {
    /// Fetches every virtual CPU out of its guest.
    pub(crate) fn pause_all(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        self.common.unfinished = None;
        for vcpu in 0..self.vcpus.len() {
            self.fetch_out_traced(vcpu, sink)?;
        }
        Ok(())
    }

    /// Holds every virtual CPU for so many cycles, as user space does that stops its threads: the guest's time goes on, and its timers and
    /// devices with it; what they have for it waits.
    ///
    /// # Errors
    /// A virtual CPU could not be fetched out of its guest.
    pub fn hold(&mut self, cycles: u64, sink: &mut dyn Sink) -> Result<(), Stop> {
        self.pause_all(sink)?;
        let now = self.cpus.iter().map(|cpu| cpu.now()).max().unwrap_or(0);
        let then = now.saturating_add(cycles.saturating_mul(timing::TICKS_PER_CYCLE));
        for cpu in &mut self.cpus {
            cpu.set_now(then);
        }
        self.advance(then);
        Ok(())
    }

    /// Takes the guest off its host. Every virtual CPU must be out of it.
    pub(crate) fn pack(mut self) -> Parcel {
        let mut records = Vec::with_capacity(self.vcpus.len());
        let costs = self.model.costs;
        for vcpu in 0..self.vcpus.len() {
            self.charge(vcpu, &costs.migrate_save);
            self.complete_userspace(vcpu);
            let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            records.push(VcpuRecord { registers, software: self.vcpus[vcpu].software.clone() });
        }
        let now = self.cpus.iter().map(|cpu| cpu.now()).max().unwrap_or(0);
        self.common.instructions = self.instructions();
        for (vcpu, mut cpu) in self.vcpus.into_iter().zip(self.cpus) {
            let mut devices = crate::emulator::NoDevices;
            let mut bus = crate::emulator::DeviceBus(&mut devices);
            let mut environment = cpu::bus::Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus };
            cpu.with_environment(&mut environment, |cpu| vcpu.backend.destroy(cpu));
        }
        Parcel { records, memory: self.memory, common: self.common, now }
    }

    /// What a move would cost at this moment. The guest does not notice.
    pub fn check(&mut self, to: &'static CpuModel) -> Check {
        let records: Vec<VcpuRecord> = (0..self.vcpus.len())
            .map(|vcpu| VcpuRecord { registers: self.registers(vcpu as u32), software: self.vcpus[vcpu].software.clone() })
            .collect();
        let guest = self.common.guest();
        let now = losses(&records, &guest, self.model, (to, shadows(to, self.common.options.paging)), &self.memory);
        let (possible, levelling) = ledger::possible(&guest, self.common.board.config().cycles_per_second, to);
        let unfit = crate::any::check_model(to, self.common.options.paging).err().map(|error| error.to_string());
        Check { from: self.model.name, to: to.name, unfit, now, possible, levelling }
    }

    /// Builds the guest on processors of a model. The ledger gets what the move cost.
    pub(crate) fn unpack(
        mut parcel: Parcel,
        from: &'static CpuModel,
        model: &'static CpuModel,
        told: &mut Vec<String>,
    ) -> Result<Self, CreateError> {
        let guest = parcel.common.guest();
        let losses = losses(&parcel.records, &guest, from, (model, shadows(model, parcel.common.options.paging)), &parcel.memory);
        let clocks = ledger::clocks(&guest, parcel.common.board.config().cycles_per_second, model);
        told.extend(losses.iter().map(ToString::to_string));
        told.extend(ledger::missing_in_words(&guest, model));
        told.extend(clocks.iter().map(ToString::to_string));
        told.extend(ledger::done_differently(&guest, model));
        for record in &mut parcel.records {
            prepare(&mut record.software, model.vendor);
        }
        set_time(&mut parcel, model);
        let (software, registers): (Vec<_>, Vec<_>) =
            parcel.records.iter().map(|record| (record.software.clone(), record.registers.clone())).unzip();
        let mut vm = Self::assemble(model, parcel.common, software, registers, parcel.memory, parcel.now)?;
        let costs = model.costs;
        let several = parcel.records.len() > 1;
        for (vcpu, record) in parcel.records.iter().enumerate() {
            vm.charge(vcpu, &costs.migrate_load);
            let restored = vm.silicon(vcpu, |backend, cpu| backend.save(cpu));
            let number = several.then_some(vcpu as u32);
            for tag in record.registers.differences(&restored) {
                // What the table foretold is in the ledger already.
                if !losses.iter().any(|entry| (entry.vcpu, entry.tag) == (number, tag)) {
                    let prefix = number.map_or_else(String::new, |number| format!("vcpu {number}: "));
                    told.push(format!("{prefix}{tag} changed in its new form"));
                }
            }
        }
        vm.common.statistics.migrations += 1;
        Ok(vm)
    }

    /// Tells of the move, and of what the hypervisor does at once behind it.
    pub(crate) fn emit_migration(&mut self, from: &'static CpuModel, ledger: &[String], sink: &mut dyn Sink) {
        let event = Event::Migrate { from: from.name.to_owned(), to: self.model.name.to_owned(), ledger: ledger.to_vec() };
        self.emit(0, sink, event);
        self.renew_hypercall_page(sink);
    }
}

/// Lets the guest's time-stamp counter go on at its own rate, if the processors can.
fn set_time(parcel: &mut Parcel, model: &'static CpuModel) {
    let old = parcel.common.tsc;
    let cycles = parcel.now / timing::TICKS_PER_CYCLE;
    let scaled = |setting: TscSetting| ((u128::from(cycles) * u128::from(setting.ratio)) >> 32) as u64;
    let value = scaled(old).wrapping_add(old.offset);
    let mut new = TscSetting { offset: 0, ratio: ratio(parcel.common.guest_model.tsc_hz, model.tsc_hz) };
    if !ledger::scales(model) {
        new.ratio = 1 << 32;
    }
    new.offset = value.wrapping_sub(scaled(new));
    parcel.common.tsc = new;
}
