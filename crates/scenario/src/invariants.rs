//! What must hold of hypercalls and their patches at every step, whatever the interleaving.
//!
//! Modelled: the invariants that the scheme itself promises. They are looked at by steps ([`hypervisor::Step`]), so a scenario that states
//! them is run by a schedule. What happens is taken from the trace's own events and from the memory accesses of each step, so the checks
//! know nothing of how the hypervisor comes to its decisions.

use crate::file::{Invariant, Policy};
use cpu::block::decoder_at;
use cpu::freedom::{Executed, Touch};
use hypervisor::{AnyVm, Registers, Step, StepKind};
use isa::register::Gpr;
use memory::Memory;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trace::{ByteString, Event, Record};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What happened instead.
    pub detail: String,
    /// On which virtual CPU.
    pub vcpu: u32,
}

/// What a virtual CPU is in the middle of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    /// Where the foreign instruction is that is being patched.
    patching: Option<u64>,
    /// Whether it has prefixes.
    prefixed: bool,
    /// Bytes written, and of them those that changed.
    written: u64,
    changed: u64,
    /// The places, guest-physical.
    pieces: Vec<(u64, u64)>,
    /// A hypercall was made.
    called: bool,
}

/// What a checkpoint keeps of what is known; memory as it was loaded follows from the scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorRecord {
    wanted: Vec<Invariant>,
    own: Vec<u64>,
    calls: Vec<Call>,
    before: Vec<Option<Box<Registers>>>,
    /// Virtual CPU, address, how often.
    patched: Vec<(u32, u64, u64)>,
    board: u64,
}

/// What is known of a run so far.
#[derive(Clone, Debug)]
pub struct Monitor {
    wanted: Vec<Invariant>,
    policy: Policy,
    /// Memory as it was loaded.
    loaded: Memory,
    rules: models::DecodeRules,
    native: [u8; 3],
    /// Bytes of pages with code that the guest has written itself.
    own: BTreeSet<u64>,
    calls: Vec<Call>,
    /// Registers at the last exit.
    before: Vec<Option<Box<Registers>>>,
    /// How often each virtual CPU was trapped at an instruction whose patch succeeded.
    patched: BTreeMap<(u32, u64), u64>,
    /// What the board was asked for, folded into one number: its state follows from it.
    board: u64,
}

/// The most bytes of own code that are remembered; a guest that writes more is not held to [`Invariant::IntactText`].
const MOST_OWN: usize = 1 << 16;

impl Monitor {
    /// A monitor for a guest that was just loaded. It begins the dirty log.
    pub fn new(wanted: &[Invariant], policy: Policy, vm: &mut AnyVm) -> Self {
        vm.memory_mut().start_dirty_log();
        let count = vm.cpu_count() as usize;
        Self {
            wanted: wanted.to_vec(),
            policy,
            loaded: vm.memory_mut().snapshot(),
            rules: vm.model().decode_rules(),
            native: vm.hypercall_bytes(),
            own: BTreeSet::new(),
            calls: vec![Call::default(); count],
            before: vec![None; count],
            patched: BTreeMap::new(),
            board: 0,
        }
    }

    /// What a checkpoint keeps.
    pub fn record(&self) -> MonitorRecord {
        MonitorRecord {
            wanted: self.wanted.clone(),
            own: self.own.iter().copied().collect(),
            calls: self.calls.clone(),
            before: self.before.clone(),
            patched: self.patched.iter().map(|((vcpu, site), count)| (*vcpu, *site, *count)).collect(),
            board: self.board,
        }
    }

    /// Goes on from there with a guest of this policy, and memory as it was loaded.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn restore(record: MonitorRecord, policy: Policy, loaded: Memory, vm: &AnyVm) -> Result<Self, &'static str> {
        let MonitorRecord { wanted, own, calls, before, patched, board } = record;
        let count = vm.cpu_count() as usize;
        // A step may add 15 bytes to what is just below the bound.
        if calls.len() != count || before.len() != count || own.len() > MOST_OWN + 4096 {
            return Err("a monitor of other virtual CPUs than there are, or of more than it remembers");
        }
        let near = |call: &Call| call.written < 1 << 56 && call.changed < 1 << 56;
        let pieces = calls.iter().flat_map(|call| &call.pieces);
        if !calls.iter().all(near) || !pieces.clone().all(|(start, bytes)| start.checked_add(*bytes).is_some()) {
            return Err("a monitor of patches that cannot be");
        }
        if patched.iter().any(|(_, _, times)| *times >= 1 << 56)
            || calls.iter().any(|call| call.patching.is_some_and(|site| site >= u64::MAX - 3))
        {
            return Err("a monitor of patches that cannot be");
        }
        Ok(Self {
            wanted,
            policy,
            loaded,
            rules: vm.model().decode_rules(),
            native: vm.hypercall_bytes(),
            own: own.into_iter().collect(),
            calls,
            before,
            patched: patched.into_iter().map(|(vcpu, site, times)| ((vcpu, site), times)).collect(),
            board,
        })
    }

    /// Memory as it was loaded.
    pub fn loaded(&self) -> &Memory {
        &self.loaded
    }

    /// Feeds what it remembers into a hasher: states that differ in it have different futures for it.
    pub fn fingerprint(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (&self.own, &self.calls, &self.patched, self.board).hash(into);
        for (vcpu, registers) in self.before.iter().enumerate().filter_map(|(vcpu, before)| Some((vcpu, before.as_ref()?))) {
            (vcpu, format!("{registers:?}")).hash(into);
        }
    }

    fn wants(&self, invariant: Invariant) -> bool {
        self.wanted.contains(&invariant)
    }

    /// Whether foreign hypercalls are patched at all.
    fn patches(&self) -> bool {
        matches!(self.policy, Policy::Classic2007 | Policy::SkipFirstCall | Policy::TrapAndPatch | Policy::PatchOrUd)
    }

    /// Looks at a step that was taken, and at what it told.
    pub fn look(&mut self, vm: &mut AnyVm, step: &Step, events: &[Record]) -> Vec<Violation> {
        let mut found = Vec::new();
        if let Some(executed) = &step.executed {
            self.executed(step.vcpu, executed, &mut found);
        }
        if matches!(step.kind, StepKind::Guest | StepKind::Rest | StepKind::Drain) && self.own.len() < MOST_OWN {
            for access in &step.accesses {
                if matches!(access.touch, Touch::Write { .. } | Touch::Buffered) && vm.memory().has_code(access.physical >> 12) {
                    self.own.extend(access.physical..access.physical + access.length);
                }
            }
        }
        for record in events {
            self.told(vm, record, &mut found);
        }
        let waits = vm.next_piece(step.vcpu).is_some();
        if step.kind == StepKind::Host && !waits {
            self.handled(vm, step.vcpu, &mut found);
        }
        found.retain(|violation| self.wants(violation.invariant));
        found
    }

    fn executed(&mut self, vcpu: u32, executed: &Executed, found: &mut Vec<Violation>) {
        let length = usize::from(executed.length);
        let bytes = &executed.bytes[..length];
        let first = executed.second.map_or(length, |_| length.min(0x1000 - (executed.physical & 0xfff) as usize));
        let mut places = Vec::with_capacity(length);
        places.extend((0..first as u64).map(|at| executed.physical + at));
        if let Some(second) = executed.second {
            places.extend((0..(length - first) as u64).map(|at| second + at));
        }
        for (other, call) in self.calls.iter().enumerate().filter(|(_, call)| call.written > 0) {
            let half = call.written < 3 && other as u32 != vcpu;
            let meets = |(start, bytes): &(u64, u64)| places.iter().any(|place| (*start..start + bytes).contains(place));
            let site = call.patching.is_some_and(|site| executed.linear < site + 3 && site < executed.linear + length as u64);
            if half && (site || call.pieces.iter().any(meets)) {
                let detail = format!(
                    "CPU {vcpu} executes {} at {:#x} while {} of the 3 bytes of CPU {other}'s patch are written",
                    ByteString::new(bytes),
                    executed.linear,
                    call.written
                );
                found.push(Violation { invariant: Invariant::WholePatches, detail, vcpu });
            }
        }
        let mut loaded = [0; 15];
        let readable = places.iter().zip(&mut loaded).all(|(place, byte)| self.loaded.read_u8(*place).map(|value| *byte = value).is_ok());
        if !readable || loaded[..length] == *bytes || self.own.len() >= MOST_OWN {
            return;
        }
        if places.iter().zip(&loaded).zip(bytes).all(|((place, old), new)| old == new || self.own.contains(place)) {
            return;
        }
        // The whole native instruction in place of a whole foreign one is what a patch is.
        let old = self.instruction_as_loaded(executed);
        let prefixes = length.saturating_sub(3);
        let patched = old.len() == length && length >= 3 && old[..prefixes] == bytes[..prefixes];
        if patched && old[prefixes..prefixes + 2] == self.native[..2] && bytes[prefixes..] == self.native {
            return;
        }
        let detail = format!(
            "CPU {vcpu} executes {} at {:#x}, where the guest has {}",
            ByteString::new(bytes),
            executed.linear,
            ByteString::new(&old)
        );
        found.push(Violation { invariant: Invariant::IntactText, detail, vcpu });
    }

    /// The instruction that was loaded where one is executed.
    fn instruction_as_loaded(&self, executed: &Executed) -> Vec<u8> {
        let mut bytes = [0; 15];
        let in_page = (0x1000 - (executed.physical & 0xfff)) as usize;
        let first = in_page.min(15);
        let _ = self.loaded.read(executed.physical, &mut bytes[..first]);
        let next = executed.second.map_or((executed.physical | 0xfff) + 1, |second| second & !0xfff);
        let _ = self.loaded.read(next, &mut bytes[first..]);
        let instruction = decoder_at(64, &bytes, executed.linear, self.rules).decode();
        bytes[..instruction.len().clamp(1, 15)].to_vec()
    }

    fn told(&mut self, vm: &mut AnyVm, record: &Record, found: &mut Vec<Violation>) {
        let vcpu = record.vcpu;
        let Some(call) = self.calls.get_mut(vcpu as usize) else { return };
        match &record.event {
            Event::Exit { .. } => self.before[vcpu as usize] = Some(Box::new(vm.registers(vcpu))),
            Event::Hypercall { .. } => call.called = true,
            Event::EmulateInstruction { rip, bytes, .. } => {
                let bytes = bytes.as_slice();
                let call_bytes = bytes.len() >= 3 && matches!(bytes[bytes.len() - 3..], [0x0f, 0x01, 0xc1 | 0xd9]);
                let locked = bytes.first() == Some(&0xf0);
                if call_bytes && !locked {
                    *call = Call { patching: Some(*rip), prefixed: bytes.len() > 3, ..Call::default() };
                    let earlier = self.patched.get(&(vcpu, *rip)).copied().unwrap_or(0);
                    if self.patches() && earlier > 0 {
                        let detail = format!("CPU {vcpu} is trapped again by the hypercall at {rip:#x}, which was patched for it");
                        found.push(Violation { invariant: Invariant::OneTrapPerSite, detail, vcpu });
                    }
                }
            }
            Event::Patch { gpa, old, new } => {
                let (old, new) = (old.as_slice(), new.as_slice());
                call.written += new.len() as u64;
                call.changed += old.iter().zip(new).filter(|(old, new)| old != new).count() as u64;
                call.pieces.push((*gpa, new.len() as u64));
                if !vm.memory().is_dirty(gpa >> 12) {
                    let detail = format!("the page of the patch at {gpa:#x} is not in the dirty log");
                    found.push(Violation { invariant: Invariant::PatchedPagesDirty, detail, vcpu });
                }
            }
            Event::PortIo { port, value, write, .. } => self.asked((u64::from(*port), u64::from(*value), *write)),
            Event::Mmio { gpa, value, write, .. } => self.asked((*gpa, *value, *write)),
            _ => {}
        }
    }

    fn asked(&mut self, access: (u64, u64, bool)) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.board, access).hash(&mut hasher);
        self.board = hasher.finish();
    }

    /// The hypervisor is through with an exit.
    fn handled(&mut self, vm: &mut AnyVm, vcpu: u32, found: &mut Vec<Violation>) {
        let call = std::mem::take(&mut self.calls[vcpu as usize]);
        let before = self.before[vcpu as usize].take();
        if let Some(before) = before.filter(|_| call.called || call.patching.is_some()) {
            Self::compare(&before, vm.registers(vcpu), &call, vcpu, found);
        }
        let Some(site) = call.patching.filter(|_| self.patches()) else { return };
        if call.written == 3 {
            *self.patched.entry((vcpu, site)).or_default() += 1;
            if !call.prefixed && call.changed > 1 {
                let detail = format!("the patch at {site:#x} changed {} bytes", call.changed);
                found.push(Violation { invariant: Invariant::OneByteChanges, detail, vcpu });
            }
        } else if !call.prefixed && call.changed > 0 {
            let detail = format!("the patch at {site:#x} failed, and changed {} bytes", call.changed);
            found.push(Violation { invariant: Invariant::FailedPatchChangesNothing, detail, vcpu });
        }
    }

    /// Registers behind an exit with those before: a call may change RAX and RIP, a patch RIP where it goes on, and both end the shadow.
    fn compare(before: &Registers, mut now: Registers, call: &Call, vcpu: u32, found: &mut Vec<Violation>) {
        let moved = now.rip.wrapping_sub(before.rip);
        let mut allowed = before.clone();
        (allowed.rip, allowed.shadow) = (now.rip, now.shadow);
        (allowed.rflags, now.rflags) = (allowed.rflags.with_rf(false), now.rflags.with_rf(false));
        if call.called {
            allowed.gprs[Gpr::Rax.number()] = now.gprs[Gpr::Rax.number()];
        }
        let mut differ = allowed.differences(&now);
        if moved > 15 {
            differ.push("rip");
        }
        if !differ.is_empty() {
            let detail = format!("the exit at {:#x} changed {}", before.rip, differ.join(", "));
            found.push(Violation { invariant: Invariant::RegistersKept, detail, vcpu });
        }
    }
}
