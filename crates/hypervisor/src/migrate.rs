//! The move of a running guest to processors of another model, possibly the other vendor's.
//!
//! Modelled: every virtual CPU is fetched out of its guest and saved as a record that belongs to no vendor; the destination is built anew
//! and loads it; memory, board, virtual local APICs, pending events and time go on as they are. What a vendor cannot carry is in the
//! ledger, sentence by sentence, and a restored record is read back and compared, so that nothing is lost without being told.
//! Copying memory over a link while the guest runs is the business of the crate `migration`. Not modelled: guests that are hypervisors themselves.

use crate::backend::{Backend, TscSetting, Unfit};
use crate::run::Stop;
use crate::vcpu::VcpuRecord;
use crate::vm::{Common, CreateError, Vm};
use isa::cpuid::Feature;
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

/// The ratio of two frequencies with 32 fraction bits.
fn ratio(guest: u64, host: u64) -> u64 {
    u64::try_from((u128::from(guest) << 32) / u128::from(host.max(1))).unwrap_or(u64::MAX)
}

/// Whether a model can scale the time-stamp counter of its guests.
fn scales(model: &CpuModel) -> bool {
    match model.vendor {
        Vendor::Intel => model.vmx.as_ref().is_some_and(|vmx| vmx.may_be_one(isa::vmx::SecondaryControls::USE_TSC_SCALING)),
        Vendor::Amd => model.svm.is_some_and(|svm| svm.features.tsc_rate_msr()),
    }
}

impl<B: Backend> Vm<B> {
    /// Fetches every virtual CPU out of its guest.
    pub(crate) fn pause_all(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
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

    /// Builds the guest on processors of a model. The ledger gets what the move cost.
    pub(crate) fn unpack(mut parcel: Parcel, model: &'static CpuModel, ledger: &mut Vec<String>) -> Result<Self, CreateError> {
        let several = parcel.records.len() > 1;
        for (number, record) in parcel.records.iter_mut().enumerate() {
            let prefix = if several { format!("vcpu {number}: ") } else { String::new() };
            ledger.extend(record.registers.ledger(model.vendor).into_iter().map(|line| format!("{prefix}{line}")));
            // The silicon is told anew.
            record.software.told_priority = 0;
            record.software.window_wanted = true;
        }
        ledger.extend(missing_features(parcel.common.guest_features, model));
        set_time(&mut parcel, model, ledger);
        let (software, registers): (Vec<_>, Vec<_>) =
            parcel.records.iter().map(|record| (record.software.clone(), record.registers.clone())).unzip();
        let mut vm = Self::assemble(model, parcel.common, software, registers, parcel.memory, parcel.now)?;
        let costs = model.costs;
        for (vcpu, record) in parcel.records.iter().enumerate() {
            vm.charge(vcpu, &costs.migrate_load);
            let restored = vm.silicon(vcpu, |backend, cpu| backend.save(cpu));
            let prefix = if several { format!("vcpu {vcpu}: ") } else { String::new() };
            for tag in record.registers.differences(&restored) {
                // What the table foretold is in the ledger already.
                let told = ledger.iter().any(|line| line.starts_with(&format!("{prefix}{tag} ")));
                if !told {
                    ledger.push(format!("{prefix}{tag} changed in its new form"));
                }
            }
        }
        vm.common.statistics.migrations += 1;
        Ok(vm)
    }

    /// Tells of the move.
    pub(crate) fn emit_migration(&self, from: &'static CpuModel, ledger: &[String], sink: &mut dyn Sink) {
        let event = Event::Migrate { from: from.name.to_owned(), to: self.model.name.to_owned(), ledger: ledger.to_vec() };
        self.emit(0, sink, event);
    }
}

/// Features that the guest was told of and that the processors do not have.
fn missing_features(guest: u128, model: &CpuModel) -> Vec<String> {
    let host = model.features() | Feature::Hypervisor.bit();
    Feature::ALL
        .iter()
        .filter(|feature| guest & feature.bit() != 0 && host & feature.bit() == 0)
        .map(|feature| format!("feature {feature:?}: the guest's CPUID tells of it, {} lacks it", model.name))
        .collect()
}

/// Lets the guest's time-stamp counter go on at its own rate, if the processors can.
fn set_time(parcel: &mut Parcel, model: &'static CpuModel, ledger: &mut Vec<String>) {
    let guest_hertz = parcel.common.guest_model.tsc_hz;
    let old = parcel.common.tsc;
    let cycles = parcel.now / timing::TICKS_PER_CYCLE;
    let scaled = |setting: TscSetting| ((u128::from(cycles) * u128::from(setting.ratio)) >> 32) as u64;
    let value = scaled(old).wrapping_add(old.offset);
    let mut new = TscSetting { offset: 0, ratio: ratio(guest_hertz, model.tsc_hz) };
    if new.ratio != 1 << 32 && !scales(model) {
        ledger.push(format!(
            "time-stamp counter: {} cannot scale it, so that it runs at {} Hz instead of {guest_hertz}",
            model.name, model.tsc_hz
        ));
        new.ratio = 1 << 32;
    }
    new.offset = value.wrapping_sub(scaled(new));
    parcel.common.tsc = new;
    let clocks = parcel.common.board.config().cycles_per_second;
    if clocks != model.tsc_hz {
        ledger.push(format!(
            "device clocks: they go on counting {clocks} cycles to a second, {} has {}, so that the guest's seconds change their length",
            model.name, model.tsc_hz
        ));
    }
}
