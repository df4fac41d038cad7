//! The host that will have the guest: what has arrived, and the guest that is made of it.

use crate::fault::HostFault;
use crate::wire::message_of;
use hypervisor::live::Departure;
use hypervisor::{AnyVm, Policy, VcpuRecord};
use memory::Memory;
use models::CpuModel;
use std::collections::BTreeSet;
use stream::{Content, Section};
use trace::Sink;

/// What has arrived.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    memory: Option<Memory>,
    /// Pages stored.
    stored: BTreeSet<u64>,
    parts: Vec<Section>,
    /// The guest, as soon as it could run.
    pub vm: Option<AnyVm>,
    /// The pages that are still missing (post-copy).
    pub missing: BTreeSet<u64>,
    pub ledger: Vec<String>,
    /// Bytes of parts.
    pub state_bytes: u64,
}

impl Incoming {
    /// Stores a piece. The error is why it cannot be stored.
    pub fn store(&mut self, section: Section, now: u64, size: u64, faults: &[HostFault]) -> Result<u64, String> {
        if message_of(&section) == "state" {
            self.state_bytes += section.stored_bytes();
            self.parts.push(section);
            return Ok(0);
        }
        let batch = section.pages(1).map_err(|error| error.to_string())?;
        let limit = faults.iter().find_map(|fault| match fault {
            HostFault::OutOfMemory { pages } => Some(*pages),
            _ => None,
        });
        let mut waited = 0;
        for (frame, content) in batch.pages() {
            if frame << 12 >= size {
                return Err(format!("page {frame:#x} lies behind the end of memory"));
            }
            let mut bytes = [0; 4096];
            match content {
                Content::Zero => {}
                Content::Data(data) => bytes = *data,
                Content::Same(source) => self.read(source, &mut bytes)?,
            }
            self.stored.insert(frame);
            if limit.is_some_and(|limit| self.stored.len() as u64 > limit) {
                return Err(format!("there is no memory for more than {} pages", self.stored.len() - 1));
            }
            if let Some(vm) = &mut self.vm {
                self.missing.remove(&frame);
                waited += vm.supply_page(frame, &bytes, now).map_err(|error| error.to_string())?;
                continue;
            }
            let memory = self.memory.get_or_insert_with(|| Memory::new(size));
            if content == Content::Zero {
                memory.forget(frame, frame + 1);
            } else {
                memory.write(frame << 12, &bytes).map_err(|error| error.to_string())?;
            }
        }
        Ok(waited)
    }

    fn read(&self, frame: u64, into: &mut [u8]) -> Result<(), String> {
        let read = match (&self.vm, &self.memory) {
            (Some(vm), _) => vm.read_memory(frame << 12, into),
            (None, Some(memory)) => memory.read(frame << 12, into),
            (None, None) => return Err(format!("page {frame:#x} has not arrived")),
        };
        read.map_err(|error| error.to_string())
    }

    /// Makes the guest of what has arrived; it does not run yet.
    pub fn prepare(
        &mut self,
        mut departure: Departure,
        model: &'static CpuModel,
        policy: Option<Policy>,
        size: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), String> {
        let told = |error: stream::Error| error.to_string();
        let mut records: Vec<VcpuRecord> = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            let name = part.name().rsplit('/').next().unwrap_or_default().to_owned();
            match name.as_str() {
                "board" => departure.set_board(part.decode(1).map_err(told)?),
                "slots" => departure.set_slots(part.decode(1).map_err(told)?),
                "missing" => {
                    let ranges: Vec<(u64, u64)> = part.decode(1).map_err(told)?;
                    for (first, end) in ranges {
                        if end > size >> 12 || first >= end {
                            return Err("missing pages that are no memory".to_owned());
                        }
                        self.missing.extend(first..end);
                    }
                }
                _ => records.push(part.decode(1).map_err(told)?),
            }
        }
        departure.set_records(records)?;
        let mut memory = self.memory.take().unwrap_or_else(|| Memory::new(size));
        for frame in &self.missing {
            // What was sent before the guest wrote it again.
            memory.forget(*frame, frame + 1);
        }
        let (mut vm, ledger) = AnyVm::arrive(departure, memory, model, policy, sink).map_err(|error| error.to_string())?;
        if !self.missing.is_empty() {
            vm.set_absent_pages(self.missing.clone()).map_err(|error| error.to_string())?;
        }
        self.ledger = ledger;
        self.vm = Some(vm);
        Ok(())
    }
}
