//! Delivery of one event through the interrupt vector table or the IDT.
//!
//! What is modelled: SDM vol 3, 6.12 "Exception and Interrupt Handling", 6.14 "Exception and Interrupt Handling in 64-bit Mode", 21.1.4
//! "Interrupt and Exception Handling" in real-address mode and 21.3.1.1 "Handling an Interrupt or Exception Through a Protected-Mode Trap or
//! Interrupt Gate" in virtual-8086 mode: interrupt and trap gates of 16, 32 and 64 bits, stack switches through the TSS and the IST, error
//! codes, the image of RFLAGS; task gates lead to `delivery/task.rs`.

use super::task::TaskSwitch;
use crate::access::Privilege;
use crate::operand::mask;
use crate::state::{Activity, Cpu, Shadow};
use crate::system::descriptor::{Stack, privilege_of};
use crate::system::virtual_8086::SAVED;
use crate::trap::{Event, EventKind, Intercept, Outcome, TaskSwitchSource, Trap};
use isa::exception::{SelectorCode, Vector};
use isa::paging::is_canonical;
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{Descriptor, Gate, SegmentRegister, Selector, system};

/// Where a gate leads, checked.
#[derive(Clone, Copy, Debug)]
struct Target {
    code: SegmentRegister,
    rip: u64,
    /// Privilege level of the handler.
    level: u8,
    /// Bytes of each word pushed.
    bytes: u8,
    /// An interrupt gate, which clears IF.
    masks: bool,
    ist: u8,
}

/// The flags that delivery clears, and the one that an interrupt gate clears as well. SDM vol 3, 6.12.1.3 "Flag Usage By Exception- or
/// Interrupt-Handler Procedure".
const CLEARED: u64 = Rflags::new().with_tf(true).with_nt(true).with_rf(true).with_vm(true).into_bits();
const INTERRUPTS: u64 = Rflags::new().with_if(true).into_bits();

/// What the checks of a gate depend on beside its bytes and those of the code segment's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Circumstances {
    long: bool,
    v86: bool,
    cpl: u8,
    /// INT n, INT3 or INTO, for which the gate's DPL counts.
    by_program: bool,
}

#[derive(Clone, Copy, Debug)]
struct KnownGate {
    gate: Gate,
    circumstances: Circumstances,
    descriptor: Descriptor,
    target: Target,
}

/// Where the last gates led, one for each vector modulo 32. Whether a gate passes and where it leads depends on its bytes, the circumstances
/// and the bytes of the descriptor alone: if all are the same, so is the target. Gate and descriptor are read each time.
#[derive(Debug)]
pub(crate) struct KnownGates([Option<KnownGate>; 32]);

impl KnownGates {
    pub(crate) const fn new() -> Self {
        Self([None; 32])
    }
}

impl Cpu {
    /// Delivers an event. On success the processor is at its handler; on `Err` nothing but memory below the stack has changed (or the
    /// fault is one of a new task), and `delivering` keeps the event for whoever handles the trap.
    pub(crate) fn deliver(&mut self, event: Event) -> Outcome {
        self.delivering = Some(event);
        self.log_event(&event);
        self.drain_stores();
        let from = self.rip;
        if event.kind == EventKind::Nmi {
            self.nmi_blocked = true;
        }
        if self.is_real() {
            self.deliver_real(&event)?;
        } else {
            self.deliver_protected(&event)?;
        }
        self.record_event(from);
        self.delivering = None;
        self.iret_unblocked_nmi = false;
        self.activity = Activity::Active;
        self.shadow = Shadow::None;
        self.trace_cancelled = true;
        self.monitor_pending = self.guest_mode && self.interception.has(Intercept::MonitorTrap);
        self.leave = true;
        Ok(())
    }

    /// RIP as it is pushed: behind the instruction for software events.
    pub(super) fn return_rip(&self, event: &Event) -> u64 {
        self.rip.wrapping_add(u64::from(event.length)) & mask(if self.is_64bit() { 64 } else { 32 })
    }

    /// RFLAGS as it is pushed.
    fn pushed_flags(&self, event: &Event) -> Rflags {
        self.rflags().with_rf(self.pushes_resume_flag(event))
    }

    /// Whether RF is set in the image of RFLAGS that an event pushes: for faults, so that an instruction breakpoint is not met a second time; never for
    /// what an instruction generates, which has cleared it before. SDM vol 3, 18.3.1.1 "Instruction-Breakpoint Exception Condition".
    pub fn pushes_resume_flag(&self, event: &Event) -> bool {
        if matches!(event.kind, EventKind::SoftwareInterrupt | EventKind::SoftwareException | EventKind::PrivilegedSoftware) {
            return false;
        }
        let fault = event.kind == EventKind::Exception
            && !matches!(
                Vector::from_number(event.vector),
                Some(Vector::Debug | Vector::Breakpoint | Vector::Overflow | Vector::DoubleFault | Vector::MachineCheck)
            );
        self.rflags().rf() || fault
    }

    fn deliver_real(&mut self, event: &Event) -> Outcome {
        let offset = u64::from(event.vector) * 4;
        if offset + 3 > u64::from(self.idtr.limit) {
            return Err(Trap::gp(idt_code(event)));
        }
        let entry = self.load_system(self.table_address(self.idtr.base.wrapping_add(offset)), 4)?;
        let mut stack = self.current_stack();
        stack.push(self, 2, self.rflags().into_bits())?;
        stack.push(self, 2, u64::from(self.segment(Segment::Cs).selector.into_bits()))?;
        stack.push(self, 2, self.return_rip(event))?;
        self.set_stack_pointer(stack.pointer, stack.bits);
        let flags = self.rflags();
        self.set_rflags(flags.with_if(false).with_tf(false).with_ac(false).with_rf(false));
        let code = self.real_code(Selector::from_bits((entry >> 16) as u16));
        self.set_code(code, entry & 0xffff, self.cpl);
        Ok(())
    }

    fn deliver_protected(&mut self, event: &Event) -> Outcome {
        let long = self.long_mode();
        let Some(target) = self.gate(event, long)? else { return Ok(()) };
        let external = event.external();
        let same_level = target.level == self.cpl;
        let (old_ss, old_rsp) = (self.segment(Segment::Ss).selector, self.regs[4]);
        let mut new_ss = None;
        let mut stack = if long {
            let pointer =
                if target.ist != 0 || !same_level { self.long_stack_pointer(target.level, target.ist, external)? } else { old_rsp };
            if !same_level {
                // SDM vol 3, 6.14.4 "Stack Switching in IA-32e Mode": SS is loaded with a null selector.
                let selector = Selector::new().with_rpl(target.level);
                let mut null = SegmentRegister::null(selector);
                null.attributes.set_dpl(target.level);
                new_ss = Some(null);
            }
            let segment = new_ss.unwrap_or(*self.segment(Segment::Ss));
            Stack { segment, pointer: pointer & !0xf, bits: 64, flat: true, privilege: privilege_of(target.level), fault: 0 }
        } else if same_level {
            self.current_stack()
        } else {
            let stack = self.inner_stack(target.level, external)?;
            new_ss = Some(stack.segment);
            stack
        };
        let v86 = self.is_v86();
        if v86 {
            for segment in SAVED.into_iter().rev() {
                stack.push(self, target.bytes, u64::from(self.segment(segment).selector.into_bits()))?;
            }
        }
        let words = [
            u64::from(old_ss.into_bits()),
            old_rsp,
            self.pushed_flags(event).into_bits(),
            u64::from(self.segment(Segment::Cs).selector.into_bits()),
            self.return_rip(event),
            u64::from(event.error_code.unwrap_or(0)),
        ];
        let first = if long || !same_level { 0 } else { 2 };
        let end = if event.error_code.is_some() { 6 } else { 5 };
        stack.push_all(self, target.bytes, &words[first..end])?;
        if v86 {
            for segment in SAVED {
                self.segments[segment.number()] = SegmentRegister::null(Selector::new());
            }
        }
        if let Some(segment) = new_ss {
            self.segments[Segment::Ss.number()] = segment;
        }
        // The status flags stay.
        self.system_flags &= !if target.masks { CLEARED | INTERRUPTS } else { CLEARED };
        self.set_code(target.code, target.rip, target.level);
        if v86 {
            self.privilege_changed();
        }
        self.set_stack_pointer(stack.pointer, stack.bits);
        Ok(())
    }

    /// Delivers an event through a task gate.
    fn enter_task(&mut self, event: &Event, selector: Selector) -> Outcome {
        let switch = TaskSwitch {
            selector,
            source: TaskSwitchSource::Gate,
            back: self.return_rip(event),
            flags: self.pushed_flags(event),
            length: event.length,
            error_code: event.error_code,
        };
        match self.switch_tasks(&switch)? {
            None => Ok(()),
            // Where an instruction is the cause, RIP would be taken back to it.
            Some(trap) if event.external() == 0 || event.kind == EventKind::PrivilegedSoftware => {
                self.task_fault = Some(trap);
                Ok(())
            }
            Some(trap) => Err(trap),
        }
    }

    /// Reads and checks the gate of an event and the code segment behind it; nothing is left to do behind a task gate.
    fn gate(&mut self, event: &Event, long: bool) -> Outcome<Option<Target>> {
        let bytes = if long { 16 } else { 8 };
        let offset = u64::from(event.vector) * bytes;
        if offset + bytes - 1 > u64::from(self.idtr.limit) {
            return Err(Trap::gp(idt_code(event)));
        }
        let at = self.table_address(self.idtr.base.wrapping_add(offset));
        let mut words = [0; 2];
        if !(long && self.load_words(at, &mut words, Privilege::Implicit)) {
            words[0] = self.load_system(at, 8)?;
            words[1] = if long { self.load_system(at.wrapping_add(8), 8)? } else { 0 };
        }
        let gate = Gate { low: words[0], high: words[1] };
        let by_program = matches!(event.kind, EventKind::SoftwareInterrupt | EventKind::SoftwareException);
        let circumstances = Circumstances { long, v86: self.is_v86(), cpl: self.cpl, by_program };
        let slot = usize::from(event.vector & 31);
        let known = self.known_gates.0[slot].is_some_and(|known| known.gate == gate && known.circumstances == circumstances);
        if !known {
            self.check_gate(event, gate, circumstances)?;
        }
        let kind = gate.attributes().kind();
        if kind == system::TASK_GATE {
            return self.enter_task(event, gate.selector()).map(|()| None);
        }
        let external = event.external();
        let selector = gate.selector();
        let code = selector.error_code() | external;
        let found = self.find_descriptor(selector, || Trap::gp(code))?;
        if known
            && let Some(known) = &self.known_gates.0[slot]
            && known.descriptor == found.descriptor
        {
            return Ok(Some(known.target));
        }
        let attributes = found.descriptor.attributes();
        let mode_fits = !long || attributes.l() && !attributes.db();
        if !attributes.is_code() || attributes.dpl() > self.cpl || !mode_fits {
            return Err(Trap::gp(code));
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        // Virtual-8086 mode is left for level 0 only.
        if self.is_v86() && (attributes.is_conforming() || attributes.dpl() != 0) {
            return Err(Trap::gp(code));
        }
        let level = if attributes.is_conforming() { self.cpl } else { attributes.dpl() };
        let wide = kind == system::INTERRUPT_GATE || kind == system::TRAP_GATE;
        let rip = if wide { gate.offset() } else { gate.offset() & 0xffff };
        let inside = if long { is_canonical(rip) } else { rip <= u64::from(found.descriptor.limit()) };
        if !inside {
            return Err(Trap::gp(external));
        }
        let segment = self.access_descriptor(selector.with_rpl(level), found)?;
        let target = Target {
            code: segment,
            rip,
            level,
            bytes: if long {
                8
            } else if wide {
                4
            } else {
                2
            },
            masks: kind & 1 == 0,
            ist: if long { gate.ist() } else { 0 },
        };
        let KnownGates(gates) = &mut self.known_gates;
        gates[slot] = found.descriptor.is_accessed().then_some(KnownGate { gate, circumstances, descriptor: found.descriptor, target });
        Ok(Some(target))
    }

    /// Checks a gate by itself.
    fn check_gate(&self, event: &Event, gate: Gate, circumstances: Circumstances) -> Outcome {
        let Circumstances { long, cpl, by_program, .. } = circumstances;
        let code = idt_code(event);
        let attributes = gate.attributes();
        let kind = attributes.kind();
        let allowed = match kind {
            system::INTERRUPT_GATE | system::TRAP_GATE => true,
            system::INTERRUPT_GATE16 | system::TRAP_GATE16 | system::TASK_GATE => !long,
            _ => false,
        };
        if attributes.s() || !allowed || by_program && attributes.dpl() < cpl {
            return Err(Trap::gp(code));
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        if kind != system::TASK_GATE && gate.selector().is_null() {
            return Err(Trap::gp(event.external()));
        }
        Ok(())
    }
}

/// The error code that names a gate of the IDT.
fn idt_code(event: &Event) -> u32 {
    SelectorCode::new().with_ext(event.external() != 0).with_idt(true).with_index(u16::from(event.vector)).into_bits()
}
