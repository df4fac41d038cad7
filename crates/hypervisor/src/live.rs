//! A guest on its way between two hosts: what the first gives, and the second makes a guest of, while the first still has it.
//!
//! Modelled: the guest's state beside its memory, copied while it is paused, in parts that can be sent: a record of each virtual CPU, the
//! board, the memory slots. What user space gives both sides by itself is not sent: the configuration, the script's moments, the counts.
//! Memory is the business of whoever moves the guest (`dirty`, `absent`).

use crate::any::AnyVm;
use crate::backend::Backend;
use crate::migrate::{MigrationError, Parcel};
use crate::mmu::nested::Slots;
use crate::policy::Policy;
use crate::run::Stop;
use crate::vcpu::VcpuRecord;
use crate::vm::{Common, Vm};
use board::Board;
use memory::Memory;
use models::CpuModel;
use std::ops::Range;
use trace::Sink;

/// A paused guest's state, without its memory.
#[derive(Clone, Debug)]
pub struct Departure {
    from: &'static CpuModel,
    records: Vec<VcpuRecord>,
    common: Common,
    now: u64,
}

impl Departure {
    /// What each virtual CPU consists of.
    pub fn records(&self) -> &[VcpuRecord] {
        &self.records
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.common.board
    }

    /// The memory slots.
    pub fn slots(&self) -> &Slots {
        &self.common.slots
    }

    /// Replaces the virtual CPUs by what has arrived.
    ///
    /// # Errors
    /// There are more or fewer.
    pub fn set_records(&mut self, records: Vec<VcpuRecord>) -> Result<(), String> {
        if records.len() != self.records.len() {
            return Err(format!("{} virtual CPUs have arrived of {}", records.len(), self.records.len()));
        }
        self.records = records;
        Ok(())
    }

    /// Replaces the board by what has arrived.
    pub fn set_board(&mut self, board: Board) {
        self.common.board = board;
    }

    /// Replaces the memory slots by what has arrived.
    pub fn set_slots(&mut self, slots: Slots) {
        self.common.slots = slots;
    }
}

impl<B: Backend> Vm<B> {
    /// Pauses every virtual CPU and copies its state. The guest stays here, and can go on as if nothing had happened.
    ///
    /// # Errors
    /// A virtual CPU could not be fetched out of its guest.
    pub fn depart(&mut self, sink: &mut dyn Sink) -> Result<Departure, Stop> {
        self.pause_all(sink)?;
        let costs = self.model.costs;
        let mut records = Vec::with_capacity(self.vcpus.len());
        for vcpu in 0..self.vcpus.len() {
            self.charge(vcpu, &costs.migrate_save);
            self.complete_userspace(vcpu);
            let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            records.push(VcpuRecord { registers, software: self.vcpus[vcpu].software.clone() });
        }
        self.collect_serial();
        let now = self.cpus.iter().map(|cpu| cpu.now()).max().unwrap_or(0);
        let mut common = self.common.clone();
        common.instructions = self.instructions();
        common.unfinished = None;
        Ok(Departure { from: self.model, records, common, now })
    }

    /// Guest-physical addresses of RAM.
    pub fn ram(&self) -> Vec<Range<u64>> {
        self.common.slots.ram_ranges().collect()
    }
}

impl AnyVm {
    /// Makes a guest of what has arrived, on processors of a model. Its memory is what is in `memory`. Also one sentence for each loss.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub fn arrive(
        departure: Departure,
        memory: Memory,
        model: &'static CpuModel,
        policy: Option<Policy>,
        sink: &mut dyn Sink,
    ) -> Result<(Self, Vec<String>), MigrationError> {
        let Departure { from, records, common, now } = departure;
        Self::unpack(Parcel { records, memory, common, now }, from, model, policy, sink)
    }
}
