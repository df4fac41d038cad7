//! A virtual CPU as software keeps it: its local APIC, what it waits for, and the events that wait for it.

use crate::checkpoint::ProgressRecord;
use crate::hyperv::HyperV;
use crate::state::Registers;
use crate::steps::{Job, Stage, Wait};
use cpu::apic::LocalApic;
use cpu::trap::{Event, Exception};
use serde::{Deserialize, Serialize};
use trace::Name;

/// What a virtual CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// It runs, or could.
    Running,
    /// It executed HLT and waits for an interrupt or a kick.
    Halted,
    /// After INIT it waits for a start-up message.
    WaitForSipi,
}

/// What is to be done when user space has answered: the result goes to RAX and RIP moves on, at the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// RAX.
    pub result: u64,
    /// Bytes to move RIP by.
    pub length: u8,
}

/// The part of a virtual CPU that no vendor has a say in. A move to another processor takes it along as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Software {
    /// The local APIC.
    pub apic: LocalApic,
    /// What it is doing.
    pub activity: Activity,
    /// An event whose delivery was interrupted by an exit.
    pub requeued: Option<Event>,
    /// An exception to inject.
    pub exception: Option<Exception>,
    /// NMIs that wait; more than two merge.
    pub nmis: u8,
    /// An INIT signal waits.
    pub init: bool,
    /// A start-up message waits.
    pub sipi: Option<u8>,
    /// It was kicked while it did not wait: the next HLT ends at once.
    pub kicked: bool,
    /// What user space owes it.
    pub completion: Option<Completion>,
    /// The page that the guest registered for hypercalls before 2007's change (guest-physical).
    pub hypercall_area: Option<u64>,
    /// Registers of Hyper-V's interface.
    #[serde(default, skip_serializing_if = "HyperV::is_unused")]
    pub hyperv: HyperV,
    /// CR8 as it was last told to the silicon.
    pub told_priority: u8,
    /// An exit is asked for as soon as the guest can take something.
    pub window_wanted: bool,
}

impl Software {
    /// A virtual CPU after power-up; all but the first wait to be started.
    pub fn new(apic: LocalApic, number: u32) -> Self {
        Self {
            apic,
            activity: if number == 0 { Activity::Running } else { Activity::WaitForSipi },
            requeued: None,
            exception: None,
            nmis: 0,
            init: false,
            sipi: None,
            kicked: false,
            completion: None,
            hypercall_area: None,
            hyperv: HyperV::default(),
            told_priority: 0,
            window_wanted: false,
        }
    }
}

/// Whether a virtual CPU goes anywhere: consecutive exits at one place, for one reason, after which RIP and RCX are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    rip: u64,
    rcx: u64,
    reason: Name,
    count: u64,
}

impl Progress {
    pub const fn new() -> Self {
        Self { rip: 0, rcx: 0, reason: Name::Code(0), count: 0 }
    }

    /// Notes an exit that left RIP where it was; how many times in a row that happened.
    pub fn stuck(&mut self, rip: u64, rcx: u64, reason: Name) -> u64 {
        if (self.rip, self.rcx, self.reason) == (rip, rcx, reason) {
            self.count += 1;
        } else {
            *self = Self { rip, rcx, reason, count: 1 };
        }
        self.count
    }

    /// What a checkpoint keeps.
    pub fn record(&self) -> ProgressRecord {
        ProgressRecord { rip: self.rip, rcx: self.rcx, reason: self.reason.to_string(), count: self.count }
    }

    /// Takes that up.
    pub fn of_record(record: &ProgressRecord) -> Result<Self, String> {
        let reason = machine::watch::reason(&record.reason).ok_or_else(|| format!("`{}` is no reason of an exit", record.reason))?;
        Ok(Self { rip: record.rip, rcx: record.rcx, reason, count: record.count })
    }

    /// The guest went on.
    pub fn moved(&mut self) {
        self.count = 0;
    }
}

/// A virtual CPU.
#[derive(Clone, Debug)]
pub(crate) struct Vcpu<B> {
    pub backend: B,
    pub software: Software,
    pub progress: Progress,
    /// An exit that was told of, and how far its handling is.
    pub job: Option<Job>,
    /// What the piece of handling at hand leaves for later.
    pub next: Option<Stage>,
    /// What its thread waits for.
    pub waits: Option<Wait>,
    /// It has waited for the lock around the mappings, and has it now.
    pub granted: bool,
}

/// A virtual CPU in no vendor's format: what a move carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuRecord {
    /// Its registers.
    pub registers: Registers,
    /// The rest.
    pub software: Software,
}
