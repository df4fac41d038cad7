//! Last-branch records, and single-stepping on branches.
//!
//! What is modelled: SDM vol 3, 18.4 "Last Branch, Interrupt, and Exception Recording Overview" and APM vol 2, 13.1.1 "Software-Debug
//! Resources": IA32_DEBUGCTL.LBR and BTF, the stack of records, its filter and call-stack mode, the last branch before the last exception or
//! interrupt, the clearing of both flags by #DB. Addresses are offsets in CS. VM entries and VM exits are no branches. While LBR or BTF is
//! set, the engine executes instruction by instruction ([`crate::engine`]), so nothing of this costs anything at other times.
//! What is not: branch trace messages and stores; a mispredicted branch is never reported, because no branch is predicted. A conditional
//! branch to the instruction behind it counts as not taken.

use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::{FlowControl, Instruction, Mnemonic as M};
use isa::msr;
use isa::paging::is_canonical;
use serde::{Deserialize, Serialize};

/// IA32_DEBUGCTL.LBR: branches are recorded.
pub const LBR: u64 = 1;
/// IA32_DEBUGCTL.BTF: RFLAGS.TF makes #DB after branches only.
pub const BTF: u64 = 2;

/// Most records of any model.
const MOST: usize = 32;

/// The bits of MSR_LBR_SELECT. SDM vol 3, 18.9.2 "Filtering of Last Branch Records".
mod select {
    pub const CPL_EQ_0: u64 = 1 << 0;
    pub const CPL_NEQ_0: u64 = 1 << 1;
    pub const JCC: u64 = 1 << 2;
    pub const NEAR_REL_CALL: u64 = 1 << 3;
    pub const NEAR_IND_CALL: u64 = 1 << 4;
    pub const NEAR_RET: u64 = 1 << 5;
    pub const NEAR_IND_JMP: u64 = 1 << 6;
    pub const NEAR_REL_JMP: u64 = 1 << 7;
    pub const FAR_BRANCH: u64 = 1 << 8;
    pub const EN_CALLSTACK: u64 = 1 << 9;
    pub const DEFINED: u64 = (1 << 10) - 1;
}

/// A branch: where it was and where it led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// RIP of the branch; for interrupts that of the instruction that did not execute.
    pub from: u64,
    /// RIP behind it.
    pub to: u64,
    /// Cycles since the record before, at most 65,535.
    pub cycles: u16,
}

/// The records of a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBranches {
    records: [Branch; MOST],
    /// Number of the newest record.
    top: u8,
    select: u64,
    /// The last branch before the last exception or interrupt.
    pub before_exception: Branch,
    /// Time of the newest record in cycles.
    recorded_at: u64,
}

impl LastBranches {
    /// Whether a processor whose stack has so many records can have these.
    pub(crate) fn is_possible(&self, depth: u8) -> bool {
        usize::from(self.top) < MOST && self.top < depth.max(1)
    }

    /// The newest record.
    pub const fn newest(&self) -> Branch {
        self.records[self.top as usize]
    }

    /// Replaces the newest record, as silicon does that loads one for a guest.
    pub const fn set_newest(&mut self, branch: Branch) {
        self.records[self.top as usize] = branch;
    }

    /// Bits of MSR_LBR_SELECT, one of which keeps a branch of this kind to this privilege level out of the stack.
    const fn refuses(&self, kind: u64, level: u8) -> bool {
        let privilege = if level == 0 { select::CPL_EQ_0 } else { select::CPL_NEQ_0 };
        self.select & (kind | privilege) != 0
    }

    fn push(&mut self, depth: u8, mut branch: Branch, now: u64) {
        branch.cycles = u16::try_from(now.saturating_sub(self.recorded_at)).unwrap_or(u16::MAX);
        self.recorded_at = now;
        self.top = (self.top + 1) & (depth - 1);
        self.set_newest(branch);
    }
}

/// What kind of branch an instruction is, as a bit of [`select`]; `None` for what is no branch, and for what is recorded as an event.
fn kind_of(instruction: &Instruction) -> Option<u64> {
    let far =
        instruction.is_jmp_far() || instruction.is_jmp_far_indirect() || instruction.is_call_far() || instruction.is_call_far_indirect();
    Some(match instruction.flow_control() {
        _ if far => select::FAR_BRANCH,
        FlowControl::ConditionalBranch => select::JCC,
        FlowControl::UnconditionalBranch => select::NEAR_REL_JMP,
        FlowControl::IndirectBranch => select::NEAR_IND_JMP,
        FlowControl::IndirectCall => select::NEAR_IND_CALL,
        FlowControl::Call | FlowControl::Return => match instruction.mnemonic() {
            M::Call => select::NEAR_REL_CALL,
            M::Ret => select::NEAR_RET,
            M::Retf | M::Iret | M::Iretd | M::Iretq | M::Syscall | M::Sysret | M::Sysretq | M::Sysenter | M::Sysexit | M::Sysexitq => {
                select::FAR_BRANCH
            }
            // VM entries.
            _ => return None,
        },
        _ => return None,
    })
}

impl Cpu {
    /// Whether branches are recorded or stepped on.
    #[inline]
    pub(crate) const fn watches_branches(&self) -> bool {
        self.msrs.debugctl & (LBR | BTF) != 0
    }

    /// Behind an instruction that completed: records it if it was a taken branch. Returns whether it was one.
    pub(crate) fn branched(&mut self, instruction: &Instruction, from: u64) -> bool {
        let Some(kind) = kind_of(instruction) else { return false };
        if kind == select::JCC && self.rip == instruction.next_ip() {
            return false;
        }
        if self.msrs.debugctl & LBR == 0 {
            return true;
        }
        if self.last_branches.select & select::EN_CALLSTACK != 0 && kind == select::NEAR_RET {
            // SDM vol 3, 18.11 "Last Branch, Call Stack, Interrupt, and Exception Recording for Processors based on Haswell
            // Microarchitecture": a return takes the record of its call away.
            let depth = self.model.last_branches.depth;
            self.last_branches.top = self.last_branches.top.wrapping_sub(1) & (depth - 1);
            return true;
        }
        self.record_branch(kind, from);
        true
    }

    /// Behind the delivery of an event: records it, and the last branch before it.
    pub(crate) fn record_event(&mut self, from: u64) {
        if self.msrs.debugctl & LBR != 0 {
            self.last_branches.before_exception = self.last_branches.newest();
            self.record_branch(select::FAR_BRANCH, from);
        }
    }

    fn record_branch(&mut self, kind: u64, from: u64) {
        if !self.last_branches.refuses(kind, self.cpl) {
            let (depth, now) = (self.model.last_branches.depth, self.cycles());
            self.last_branches.push(depth, Branch { from, to: self.rip, cycles: 0 }, now);
        }
    }

    /// Writes IA32_DEBUGCTL as WRMSR does.
    pub(crate) fn write_debugctl(&mut self, value: u64) -> Outcome {
        if value & !self.model.last_branches.debugctl != 0 {
            return Err(Trap::GP0);
        }
        self.msrs.debugctl = value;
        self.leave = true;
        Ok(())
    }

    /// The field that an MSR of the records shows; `None` where the model has no such MSR.
    fn record_msr(&mut self, index: u32) -> Option<Field<'_>> {
        let model = &self.model.last_branches;
        let within = |first: u32| index.checked_sub(first).filter(|number| *number < u32::from(model.depth)).map(|number| number as usize);
        let records = &mut self.last_branches.records;
        if let Some(number) = within(model.from) {
            return Some(Field::Address(&mut records[number].from));
        }
        if let Some(number) = within(model.to) {
            return Some(Field::Address(&mut records[number].to));
        }
        if let Some(number) = model.info.and_then(within) {
            return Some(Field::Cycles(&mut records[number].cycles));
        }
        match index {
            msr::MSR_LER_FROM_LIP => Some(Field::Address(&mut self.last_branches.before_exception.from)),
            msr::MSR_LER_TO_LIP => Some(Field::Address(&mut self.last_branches.before_exception.to)),
            _ if model.top == Some(index) => Some(Field::Top(&mut self.last_branches.top, model.depth)),
            _ if model.select == Some(index) => Some(Field::Select(&mut self.last_branches.select)),
            _ => None,
        }
    }

    /// RDMSR of the records; `None` where the model has no such MSR.
    pub(crate) fn read_record_msr(&mut self, index: u32) -> Option<u64> {
        Some(match self.record_msr(index)? {
            Field::Address(value) | Field::Select(value) => *value,
            Field::Cycles(value) => u64::from(*value),
            Field::Top(value, _) => u64::from(*value),
        })
    }

    /// WRMSR of the records; `None` where the model has no such MSR.
    pub(crate) fn write_record_msr(&mut self, index: u32, value: u64) -> Option<Outcome> {
        let writable = self.model.last_branches.writable;
        let (allowed, place): (bool, Field<'_>) = match self.record_msr(index)? {
            field @ Field::Address(_) => (is_canonical(value), field),
            field @ Field::Cycles(_) => (value >> 16 == 0, field),
            field @ Field::Top(_, depth) => (value < u64::from(depth), field),
            field @ Field::Select(_) => (value & !select::DEFINED == 0, field),
        };
        if !writable || !allowed {
            return Some(Err(Trap::GP0));
        }
        match place {
            Field::Address(place) | Field::Select(place) => *place = value,
            Field::Cycles(place) => *place = value as u16,
            Field::Top(place, _) => *place = value as u8,
        }
        Some(Ok(()))
    }
}

/// A field of the records behind an MSR.
enum Field<'a> {
    Address(&'a mut u64),
    Cycles(&'a mut u16),
    /// And how many records there are.
    Top(&'a mut u8, u8),
    Select(&'a mut u64),
}
