//! The loop around the handlers: finds blocks, accounts for time, takes traps and events to where they belong.
//!
//! **Time.** A run goes on until a time in ticks. A block is entered only if the budget covers all of it; else it is stepped, one
//! instruction at a time, while the budget is positive. So an event at time T is recognised at the first instruction boundary at or after T,
//! whichever way instructions were executed.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`: it calls handlers (see `direct`).
#![expect(unsafe_code, reason = "calls handlers on blocks that the code cache owns")]

use crate::bus::Environment;
use crate::direct::{block_of, enter};
use crate::insn::{Header, Insn};
use crate::last_branches::BTF;
use crate::state::{Activity, Cpu, Shadow};
use crate::trap::{Exit, Intercept, NotModelled, Trap};
use iced_x86::{Formatter, Instruction, IntelFormatter};
use isa::debug::{BreakpointKind, Dr6};
use isa::rflags::Rflags;
use models::Vendor;

/// The most ticks, and so the most instructions, between two returns of the handlers to the engine. See `direct` on the stack.
pub const SLICE_INSTRUCTIONS: u64 = 1 << 16;

/// Why the handlers came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum StopCode {
    /// The next block is not known; `rip` says where, `link` who asks.
    Miss,
    /// The next block is known: `next`. Only without optimisation, see `direct` on the stack.
    Next,
    /// The budget does not cover the block at `rip`.
    Budget,
    /// An instruction asked to leave behind it.
    Left,
    /// An instruction did not complete; `trap` says why.
    Trap,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunExit {
    /// The time is up.
    Time,
    /// The instruction limit is reached.
    Instructions,
    /// Nothing to do until an event from outside (HLT, wait-for-SIPI).
    Idle,
    /// A device or another processor must be looked at.
    Attention,
    /// A VM exit reached a host in Rust.
    HostEntry,
    /// A triple fault, or another shutdown.
    Shutdown,
    /// Something is not modelled.
    NotModelled(Box<NotModelled>),
}

impl Cpu {
    /// Runs until `until` (ticks), or until `instructions` instructions have been begun since power-up, or something else ends the run.
    pub fn run(&mut self, environment: &mut Environment<'_>, until: u64, instructions: u64) -> RunExit {
        self.with_environment(environment, |cpu| cpu.run_inside(until, instructions))
    }

    fn run_inside(&mut self, until: u64, instructions: u64) -> RunExit {
        let start = self.now();
        self.slice_end = start;
        self.budget = 0;
        self.environment().drop_written_code();
        self.forget_old_blocks();
        self.stop = StopCode::Left;
        let mut held = self.pending_debug;
        loop {
            let mut from = std::ptr::null_mut();
            let mut next = None;
            match self.stop {
                StopCode::Miss => from = std::mem::replace(&mut self.link, std::ptr::null_mut()),
                StopCode::Next => next = Some(self.next),
                StopCode::Budget => {}
                StopCode::Trap => {
                    let trap = self.trap.take().expect("a handler that traps says why");
                    // SDM vol 3, 18.3.1.2 "Data Memory and I/O Breakpoint Exception Conditions": these are traps. What did not complete meets
                    // its breakpoints again when it is restarted; what waited before it still waits.
                    self.pending_debug = held;
                    if let Err(exit) = self.take_trap(trap) {
                        return exit;
                    }
                    self.stop = StopCode::Left;
                }
                StopCode::Left => {}
            }
            if self.stop == StopCode::Left || self.leave {
                self.leave = false;
                self.stop = StopCode::Left;
                from = std::ptr::null_mut();
                next = None;
                if self.environment().bus.attention() || self.deliveries_are_full() {
                    return RunExit::Attention;
                }
                match self.boundary() {
                    Ok(()) => {}
                    Err(exit) => return exit,
                }
                if self.leave {
                    // Something was delivered: in front of the handler's first instruction is another boundary.
                    continue;
                }
                if self.activity != Activity::Active {
                    return RunExit::Idle;
                }
                // Delivery of an event may have touched code or asked for another look.
                if self.environment().memory.has_code_writes() {
                    self.environment().drop_written_code();
                }
                self.forget_old_blocks();
                self.leave = false;
            }
            let now = self.now();
            let mut left = until.saturating_sub(now);
            if left == 0 {
                return RunExit::Time;
            }
            if let Some(event) = self.next_event() {
                if event <= now {
                    self.leave = true;
                    continue;
                }
                left = left.min(event - now);
            }
            if self.retired >= instructions {
                return RunExit::Instructions;
            }
            self.environment().code.compiler.collect();
            let slice = left.min(instructions - self.retired).min(SLICE_INSTRUCTIONS);
            self.slice_end = self.now() + slice;
            self.budget = slice as i64;
            held = self.pending_debug;
            if self.steps() {
                self.step();
                continue;
            }
            // Without instruction breakpoints nobody can tell that RF is cleared in front of the next instruction rather than behind it.
            if self.system_flags().rf() {
                self.set_resume_flag(false);
            }
            let mut known = self.jumps.find(self.rip, self.context);
            if known.is_none() && next.is_none() && self.awaits_context() {
                // The walk for this fetch may be all that a context waits for which knows the code at RIP.
                if !self.fetch_awaited()
                    && let Err(trap) = self.fetch_place()
                {
                    self.fetch_failed(trap);
                    continue;
                }
                known = self.jumps.find(self.rip, self.context);
            }
            let found = match (next.or(known), self.jumps.find_any(self.rip)) {
                (Some(entry), _) => Ok(entry),
                (None, Some(entry)) => self.find_block_again(entry),
                (None, None) => self.find_block(false),
            };
            match found {
                Ok(entry) => {
                    if next.is_none() && (known.is_none() || !from.is_null()) {
                        self.remember(entry, from);
                    }
                    // SAFETY: entries are in the code cache, and the header precedes them; see `direct`.
                    let fits = |entry: *const Insn, budget| i64::from(unsafe { (*entry.sub(1).cast::<Header>()).cost }) <= budget;
                    if fits(entry, self.budget) {
                        // SAFETY: as above.
                        unsafe { enter(self, entry) };
                        continue;
                    }
                    if self.is_current(entry) {
                        self.step();
                        continue;
                    }
                    // The jump cache knows it from before its bytes were overwritten. Its place counts as decoded from now on, as it
                    // would without the jump cache.
                    match self.find_block(false) {
                        // SAFETY: as above.
                        Ok(entry) if fits(entry, self.budget) => unsafe { enter(self, entry) },
                        Ok(_) => self.step(),
                        Err(trap) => self.fetch_failed(trap),
                    }
                }
                Err(trap) => self.fetch_failed(trap),
            }
        }
    }

    /// Whether instructions must be executed one by one now.
    fn steps(&self) -> bool {
        self.system_flags().tf()
            || self.shadow != Shadow::None
            || self.interception.has(Intercept::MonitorTrap)
            || self.watches_branches()
            || self.is_observed()
            || (self.dr7.enables() != 0 && self.has_code_breakpoint())
    }

    fn has_code_breakpoint(&self) -> bool {
        (0..4).any(|index| matches!(self.dr7.breakpoint(index), Some((BreakpointKind::Execute, _))))
    }

    /// Executes one instruction. Exactly as a block would, with the duties of single-stepping around it.
    fn step(&mut self) {
        let rf = self.system_flags().rf();
        // SDM vol 3, 6.8.3: behind MOV SS and POP SS breakpoints are held back. AMD's processors take them.
        if !rf
            && (self.shadow != Shadow::MovSs || self.vendor == Vendor::Amd)
            && let Some(bits) = self.code_breakpoints()
        {
            self.trap = Some(Trap::Exception(crate::trap::Exception::debug(bits)));
            self.stop = StopCode::Trap;
            return;
        }
        let mut trace = self.system_flags().tf();
        let watched = self.watches_branches().then_some(self.msrs.debugctl & BTF != 0);
        let from = self.rip;
        let monitored = self.guest_mode && self.interception.has(Intercept::MonitorTrap);
        self.shadow_set = false;
        self.trace_cancelled = false;
        self.again = false;
        let mut found = self.find_single();
        if let Ok(entry) = found
            && self.buffers_stores()
            && self.drain_fetched(entry)
        {
            // It was decoded from bytes that this processor had changed.
            self.environment().drop_written_code();
            self.forget_old_blocks();
            found = self.find_single();
        }
        match found {
            Ok(entry) => {
                // SAFETY: the entry was just found in the code cache, and the header precedes it; see `direct`.
                let cost = i64::from(unsafe { (*entry.sub(1).cast::<Header>()).cost });
                // SAFETY: as above.
                let instruction =
                    (watched.is_some() || self.is_observed()).then(|| unsafe { *block_of(entry).instruction((*entry).number) });
                if let Some(instruction) = instruction.as_ref().filter(|_| self.is_observed()) {
                    // SAFETY: as above.
                    let (physical, second) = unsafe { block_of(entry).place() };
                    self.note_instruction(instruction, self.linear_rip(), physical, second);
                }
                // With a budget of exactly this instruction's cost, whatever block follows cannot be entered.
                self.slice_end = self.slice_end.wrapping_add_signed(cost - self.budget);
                self.budget = cost;
                self.stepping = true;
                // SAFETY: as above.
                unsafe { enter(self, entry) };
                self.stepping = false;
                if self.stop == StopCode::Trap {
                    return;
                }
                self.stop = StopCode::Left;
                self.link = std::ptr::null_mut();
                if instruction.as_ref().is_some_and(crate::freedom::serializes) {
                    self.serialize();
                }
                if let Some(instruction) = instruction.filter(|_| watched.is_some()) {
                    let branched = self.branched(&instruction, from);
                    trace &= branched || watched == Some(false);
                }
            }
            Err(trap) => return self.fetch_failed(trap),
        }
        // The instruction completed.
        if !self.shadow_set {
            self.shadow = Shadow::None;
        }
        self.monitor_pending |= monitored;
        // SDM vol 3, 18.3.1.1 "Instruction-Breakpoint Exception Condition": RF stays set between the iterations of a repeated instruction.
        if rf || self.again {
            self.set_resume_flag(self.again);
        }
        if trace && !self.trace_cancelled {
            self.pending_debug |= Dr6::new().with_bs(true).into_bits();
        }
    }

    /// Makes the stores of this processor visible if an instruction that it is about to execute is one that they change. Whether it did.
    fn drain_fetched(&mut self, entry: *const Insn) -> bool {
        // SAFETY: the entry was just found in the code cache, and the header precedes it; see `direct`.
        let (length, (physical, second)) = unsafe { (block_of(entry).instruction((*entry).number).len() as u64, block_of(entry).place()) };
        let first = second.map_or(length, |_| length.min(0x1000 - (physical & 0xfff)));
        self.drain_met(physical, first) || second.is_some_and(|second| self.drain_met(second, length - first))
    }

    /// Sets or clears RFLAGS.RF.
    pub(crate) fn set_resume_flag(&mut self, value: bool) {
        self.system_flags = Rflags::from_bits(self.system_flags).with_rf(value).into_bits();
    }

    /// DR6 bits of the instruction breakpoints at RIP.
    fn code_breakpoints(&self) -> Option<u64> {
        let linear = self.linear_rip();
        let hits = (0..4u32)
            .filter(|index| matches!(self.dr7.breakpoint(*index), Some((BreakpointKind::Execute, _))))
            .filter(|index| self.dr[*index as usize] == linear)
            .fold(0, |bits, index| bits | 1 << index);
        (hits != 0).then_some(hits)
    }

    /// An instruction could not even be fetched.
    fn fetch_failed(&mut self, trap: Trap) {
        self.stopped_at = std::ptr::null();
        self.trap = Some(trap);
        self.stop = StopCode::Trap;
    }

    /// Puts a found block into the jump cache and into the link of whoever jumped to it.
    fn remember(&mut self, entry: *const Insn, from: *mut *const Insn) {
        self.jumps.remember(self.rip, self.context, entry);
        if from.is_null() {
            return;
        }
        // SAFETY: the link lies in a block that ended a moment ago and that only `tidy_code` frees, which was not called since; `direct`
        // asks for a link only where it may stay.
        unsafe {
            if block_of(entry).may_be_linked() {
                *from = entry;
            }
        }
    }

    /// Frees stale blocks if there are many, and forgets entries that are void.
    fn forget_old_blocks(&mut self) {
        self.environment().tidy_code();
        let generation = self.environment().code.generation();
        if generation != self.code_generation {
            self.code_generation = generation;
            self.jumps.clear();
            self.handover.forget();
            self.link = std::ptr::null_mut();
        }
    }

    /// Takes a trap to whoever handles it: the program's handler, the silicon, or the end of the run.
    fn take_trap(&mut self, trap: Trap) -> Result<(), RunExit> {
        let instruction = self.stopped_instruction();
        let trap = match trap {
            Trap::NotModelled(mut what) => {
                self.describe(&mut what, instruction);
                return Err(RunExit::NotModelled(what));
            }
            other => other,
        };
        match self.raise(trap, instruction.as_ref()) {
            Err(RunExit::NotModelled(mut what)) => {
                self.describe(&mut what, instruction);
                Err(RunExit::NotModelled(what))
            }
            other => other,
        }
    }

    fn stopped_instruction(&mut self) -> Option<Instruction> {
        let at = std::mem::replace(&mut self.stopped_at, std::ptr::null());
        // SAFETY: set by a handler that returned a moment ago; its block was not freed since.
        (!at.is_null()).then(|| unsafe { *block_of(at).instruction((*at).number) })
    }

    fn describe(&mut self, what: &mut NotModelled, instruction: Option<Instruction>) {
        what.rip = self.rip;
        if let Some(instruction) = instruction {
            IntelFormatter::new().format(&instruction, &mut what.text);
            what.bytes = self.instruction_bytes(&instruction);
        }
    }

    /// Lets the silicon make a VM exit.
    pub(crate) fn leave_guest(&mut self, exit: Exit) -> Result<(), RunExit> {
        use crate::extension::AfterExit;
        self.leave = true;
        self.monitor_pending = false;
        self.serialize();
        self.drain_stores();
        // The silicon may save that the guest was halted; the host never is.
        let halted = self.activity == Activity::Halted;
        let after = self.with_extension(|extension, cpu| extension.exit(cpu, exit));
        self.iret_unblocked_nmi = false;
        if halted {
            self.charge(self.model.costs.halt_wake.ticks());
        }
        if matches!(after, Some(AfterExit::MachineCode | AfterExit::RustHost)) {
            self.activity = Activity::Active;
        }
        match after {
            Some(AfterExit::MachineCode) => Ok(()),
            Some(AfterExit::RustHost) => Err(RunExit::HostEntry),
            Some(AfterExit::Shutdown) | None => {
                self.activity = Activity::Shutdown;
                Err(RunExit::Shutdown)
            }
        }
    }
}
