//! What is looked at between two instructions: pending traps, timers, interrupts, signals to start and stop.
//!
//! What is modelled: the order of SDM vol 3, Table 6-2 "Priority Among Concurrent Events", with the places that 26.2 "Other Causes of VM
//! Exits" gives to the events of VMX, and APM vol 2, 15.17 "Global Interrupt Flag" and 15.21 "Interrupt and Local APIC Support"; the local
//! APIC's registers as memory, and its messages. What is not: system management interrupts and machine checks.

use crate::apic::{Accepted, Effects, Lint, LocalSource};
use crate::engine::RunExit;
use crate::state::{Activity, Cpu, Shadow, VirtualInterrupt};
use crate::trap::{Event, EventKind, Exception, Exit, Intercept, Trap};
use isa::apic::ApicMessage;
use isa::debug::Dr6;
use isa::exception::Vector;
use isa::register::Segment;
use isa::segment::{SegmentRegister, Selector};
use timing::TICKS_PER_CYCLE;

/// Offset of the EOI register in the local APIC's page.
const END_OF_INTERRUPT: u32 = 0xb0;

impl Cpu {
    /// What happens at an instruction boundary. At most one event is delivered: the handler's first instruction is another boundary.
    pub(crate) fn boundary(&mut self) -> Result<(), RunExit> {
        let cycles = self.cycles();
        self.apic.advance(cycles);
        let quiet = self.is_quiet();
        if quiet && !cfg!(debug_assertions) {
            return Ok(());
        }
        let before = (self.leave, self.rip, self.activity);
        let outcome = self.take_what_waits();
        debug_assert!(!quiet || outcome.is_ok() && before == (self.leave, self.rip, self.activity), "is_quiet knows of everything");
        outcome
    }

    fn take_what_waits(&mut self) -> Result<(), RunExit> {
        if let Some(trap) = self.task_fault.take() {
            return self.raise(trap, None);
        }
        if let Some(register) = self.apic_write.take()
            && let Some(Some(exit)) = self.with_extension(|extension, cpu| extension.complete_apic_write(cpu, register))
        {
            return self.leave_guest(exit);
        }
        if let Some(event) = self.inject.take() {
            let blocked = self.nmi_blocked;
            let outcome = self.deliver_event(event);
            if event.kind == EventKind::Nmi && self.model.vendor == models::Vendor::Amd {
                // APM vol 2, 15.20: "An injected NMI does not block delivery of further NMIs".
                self.nmi_blocked = blocked;
            }
            return outcome;
        }
        if self.signals()? {
            return Ok(());
        }
        if !matches!(self.activity, Activity::Active | Activity::Halted) {
            return Ok(());
        }
        if self.interception.tpr_threshold != 0 && self.virtual_tpr.is_some_and(|tpr| tpr >> 4 < self.interception.tpr_threshold) {
            return self.leave_guest(Exit::TprBelowThreshold);
        }
        if self.guest_mode && self.monitor_pending && self.interception.has(Intercept::MonitorTrap) {
            return self.leave_guest(Exit::MonitorTrap);
        }
        if self.pending_debug != 0 && self.take_pending_debug()? {
            return Ok(());
        }
        if self.guest_mode && self.preemption_deadline.is_some_and(|deadline| deadline <= self.now()) {
            return self.leave_guest(Exit::PreemptionTimer);
        }
        if self.events_held {
            return Ok(());
        }
        // System management mode is not modelled: it is as if its handler returned at once.
        if std::mem::take(&mut self.smi_pending) && self.guest_mode && self.interception.has(Intercept::Smi) {
            return self.leave_guest(Exit::Smi);
        }
        if self.take_nmi()? {
            return Ok(());
        }
        self.take_interrupt()
    }

    /// Whether nothing is set that anything in [`Self::take_what_waits`] looks at: the usual case in one test.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.activity == Activity::Active
            && (!self.guest_mode || self.is_guest_quiet())
            && !self.nmi_pending
            && !self.smi_pending
            && !self.init_pending
            && self.pending_debug == 0
            && self.interception.tpr_threshold == 0
            && self.sipi_pending.is_none()
            && self.inject.is_none()
            && self.task_fault.is_none()
            && self.virtual_interrupt.is_none()
            && !(self.physical_interrupt_flag.unwrap_or(self.system_flags().r#if()) && self.interrupt_pending())
    }

    /// The same of what only guests have.
    #[inline]
    fn is_guest_quiet(&self) -> bool {
        self.apic_write.is_none()
            && !self.monitor_pending
            && self.preemption_deadline.is_none()
            && !self.virtual_interrupt_recognized
            && !self.interception.has(Intercept::NmiWindow)
            && !self.interception.has(Intercept::InterruptWindow)
    }

    /// INIT and start-up signals. Returns whether one was taken.
    fn signals(&mut self) -> Result<bool, RunExit> {
        if self.activity == Activity::WaitForSipi {
            // An INIT while waiting changes nothing, also when the start-up signal has come behind it already.
            self.init_pending = false;
        }
        if self.init_pending {
            let blocked = self.extension.as_ref().is_some_and(|extension| extension.blocks_init(self));
            if self.guest_mode && self.interception.has(Intercept::Init) {
                self.init_pending = false;
                return self.leave_guest(Exit::Init).map(|()| true);
            }
            if !blocked && self.extension.as_ref().is_some_and(|extension| extension.redirects_init()) {
                // APM vol 2, 15.28 "Security Exception (#SX)": error code 1, and the INIT is no longer pending.
                self.init_pending = false;
                self.activity = Activity::Active;
                return self.raise(Trap::Exception(Exception::with_code(Vector::Security, 1)), None).map(|()| true);
            }
            if !blocked {
                // A start-up signal that has come by now came behind the INIT.
                let behind = self.sipi_pending;
                self.init();
                self.sipi_pending = behind;
                self.apic.init();
                let bootstrap = self.apic.base() & crate::apic::BASE_BOOTSTRAP != 0;
                self.activity = if bootstrap { Activity::Active } else { Activity::WaitForSipi };
                return Ok(true);
            }
        }
        match (self.activity, self.sipi_pending.take()) {
            (Activity::WaitForSipi, Some(vector)) if self.guest_mode => {
                self.leave_guest(Exit::Sipi { vector })?;
                Ok(true)
            }
            (Activity::WaitForSipi, Some(vector)) => {
                // SDM vol 3, 9.4.4.2 "Typical AP Initialization Sequence": execution starts at 000VV000H in real-address mode.
                let mut cs = SegmentRegister::real_mode(u16::from(vector) << 8);
                cs.selector = Selector::from_bits(u16::from(vector) << 8);
                self.segments[Segment::Cs.number()] = cs;
                self.rip = 0;
                self.activity = Activity::Active;
                self.context_changed();
                Ok(true)
            }
            // A start-up signal at any other time is lost.
            _ if self.activity == Activity::Shutdown => Err(RunExit::Shutdown),
            _ => Ok(false),
        }
    }

    /// Debug traps of the instruction before. Returns whether they were delivered.
    fn take_pending_debug(&mut self) -> Result<bool, RunExit> {
        let single_step = Dr6::new().with_bs(true).into_bits();
        if self.shadow == Shadow::MovSs {
            // SDM vol 3, 6.8.3 "Masking Exceptions and Interrupts When Switching Stacks": no trap between the two loads of a stack;
            // single-stepping goes on behind the next instruction by itself, data breakpoints wait.
            self.pending_debug &= !single_step;
            return Ok(false);
        }
        if self.events_held {
            // APM vol 2, 15.17: without GIF, breakpoint matches are discarded, single-step traps are not.
            self.pending_debug &= single_step;
        }
        let bits = std::mem::take(&mut self.pending_debug);
        if bits == 0 {
            return Ok(false);
        }
        self.activity = Activity::Active;
        self.raise(Trap::Exception(Exception::debug(bits)), None).map(|()| true)
    }

    fn take_nmi(&mut self) -> Result<bool, RunExit> {
        let unblocked = self.shadow != Shadow::MovSs;
        let allowed = !self.nmi_blocked && unblocked;
        if self.guest_mode && self.interception.virtual_nmis && self.nmi_pending && unblocked {
            // The guest's blocking is of virtual NMIs; the processor's own exits all the same.
            self.nmi_pending = false;
            return self.leave_guest(Exit::Nmi).map(|()| true);
        }
        if self.guest_mode && self.interception.has(Intercept::NmiWindow) && allowed {
            return self.leave_guest(Exit::NmiWindow).map(|()| true);
        }
        if !(self.nmi_pending && allowed) {
            return Ok(false);
        }
        if self.guest_mode && self.interception.has(Intercept::Nmi) {
            self.nmi_pending = false;
            return self.leave_guest(Exit::Nmi).map(|()| true);
        }
        if self.shadow == Shadow::Sti {
            // SDM vol 2, "STI": NMIs may be inhibited behind an STI, too, and are on the processors here. Exits are not.
            return Ok(false);
        }
        self.nmi_pending = false;
        self.wake();
        self.deliver_event(Event { kind: EventKind::Nmi, vector: Vector::Nmi as u8, error_code: None, length: 0 }).map(|()| true)
    }

    fn take_interrupt(&mut self) -> Result<(), RunExit> {
        if self.shadow != Shadow::None {
            return Ok(());
        }
        let flag = self.system_flags().r#if();
        let window = self.guest_mode && flag && self.interception.has(Intercept::InterruptWindow);
        if window && self.virtual_interrupt.is_none() {
            return self.leave_guest(Exit::InterruptWindow);
        }
        if self.virtual_interrupt_recognized && flag {
            // SDM vol 3, 30.2.2 "Virtual-Interrupt Delivery": in front of external interrupts.
            self.wake();
            let vector = self.with_extension(|extension, cpu| extension.deliver_virtual_interrupt(cpu)).unwrap_or(0);
            return self.deliver_event(Event { kind: EventKind::External, vector, error_code: None, length: 0 });
        }
        if self.physical_interrupt_flag.unwrap_or(flag) && self.interrupt_pending() {
            if self.guest_mode && self.interception.posts_interrupts {
                self.leave = true;
                return match self.with_extension(|extension, cpu| extension.external_interrupt(cpu)).flatten() {
                    Some(exit) => self.leave_guest(exit),
                    None => Ok(()),
                };
            }
            if self.guest_mode && self.interception.has(Intercept::ExternalInterrupt) {
                return self.leave_guest(Exit::ExternalInterrupt { vector: None });
            }
            self.wake();
            let vector = self.acknowledge_interrupt();
            return self.deliver_event(Event { kind: EventKind::External, vector, error_code: None, length: 0 });
        }
        let passes =
            |interrupt: &VirtualInterrupt| interrupt.allowed && flag && self.virtual_tpr.is_none_or(|tpr| interrupt.priority > tpr >> 4);
        if let Some(interrupt) = self.virtual_interrupt.filter(passes) {
            if window {
                return self.leave_guest(Exit::InterruptWindow);
            }
            self.virtual_interrupt = None;
            self.wake();
            return self.deliver_event(Event { kind: EventKind::External, vector: interrupt.vector, error_code: None, length: 0 });
        }
        Ok(())
    }

    /// Ends HLT.
    fn wake(&mut self) {
        if self.activity == Activity::Halted {
            self.activity = Activity::Active;
            self.charge(self.model.costs.halt_wake.ticks());
        }
    }

    /// Delivers an event that comes from outside the program, or by injection.
    fn deliver_event(&mut self, event: Event) -> Result<(), RunExit> {
        self.charge(self.model.costs.interrupt_delivery.ticks());
        self.leave = true;
        match self.deliver(event) {
            Ok(()) => Ok(()),
            Err(trap) => self.raise(trap, None),
        }
    }

    /// Whether the local APIC or the 8259 has a maskable interrupt for this processor, whatever RFLAGS.IF says.
    pub fn interrupt_pending(&self) -> bool {
        self.apic.highest_pending().is_some() || self.apic.extint()
    }

    /// Takes the interrupt that [`Self::interrupt_pending`] reports: its vector, in service from now on. The silicon calls it for
    /// "acknowledge interrupt on exit".
    pub fn acknowledge_interrupt(&mut self) -> u8 {
        if self.apic.highest_pending().is_none() && self.apic.extint() {
            return self.environment().bus.acknowledge();
        }
        self.apic.acknowledge()
    }

    /// Ends the interrupt in service at the local APIC, as the silicon does for an interrupt that it has handled itself.
    pub fn end_of_interrupt(&mut self) {
        let now = self.cycles();
        let effects = self.apic.write(END_OF_INTERRUPT, 0, now);
        self.apic_effects(effects);
    }

    /// A message of the interrupt bus that addresses this processor's local APIC.
    pub fn accept(&mut self, message: &ApicMessage) {
        let accepted = self.apic.accept(message);
        self.note(accepted);
    }

    /// Drives a local interrupt pin.
    pub fn set_lint(&mut self, pin: Lint, high: bool) {
        let accepted = self.apic.set_lint(pin, high);
        self.note(accepted);
    }

    /// Signals an overflow of a performance counter to the local APIC, as a counter would.
    pub fn counter_overflow(&mut self) {
        let accepted = self.apic.raise(LocalSource::Performance);
        self.note(accepted);
    }

    fn note(&mut self, accepted: Accepted) {
        match accepted {
            Accepted::Nmi => self.nmi_pending = true,
            Accepted::Init => {
                self.init_pending = true;
                self.sipi_pending = None;
            }
            Accepted::Startup(vector) => self.sipi_pending = Some(vector),
            Accepted::Smi => self.smi_pending = true,
            // The APIC keeps interrupts; ExtINT lasts as long as the pin.
            Accepted::Interrupt | Accepted::ExtInt | Accepted::Ignored => {}
        }
        self.leave = true;
    }

    /// The time in ticks of the next event that this processor makes itself: its APIC timer, the guest's preemption timer.
    pub fn next_event(&self) -> Option<u64> {
        let timer = self.apic.next_event().map(|cycle| cycle.saturating_mul(TICKS_PER_CYCLE));
        let preemption = self.preemption_deadline.filter(|_| self.guest_mode);
        timer.into_iter().chain(preemption).min()
    }

    /// Whether a run would do something now: the processor executes, or something waits that wakes it.
    pub fn is_runnable(&self) -> bool {
        let interrupt = || {
            let enabled = self.physical_interrupt_flag.unwrap_or(self.system_flags().r#if());
            let exits = self.guest_mode && self.interception.has(Intercept::ExternalInterrupt);
            (enabled || exits) && self.interrupt_pending()
        };
        let timer = || self.next_event().is_some_and(|event| event <= self.now());
        match self.activity {
            Activity::Active => true,
            Activity::Halted => {
                let virtual_interrupt = self.virtual_interrupt_recognized && self.system_flags().r#if();
                self.inject.is_some()
                    || virtual_interrupt
                    || self.init_pending
                    || (self.nmi_pending && !self.nmi_blocked)
                    || (self.smi_pending && self.guest_mode)
                    || interrupt()
                    || timer()
            }
            Activity::WaitForSipi => self.sipi_pending.is_some(),
            Activity::Shutdown => false,
        }
    }

    /// Whether it sleeps so deeply that no timer and no device wakes it: halted with interrupts off, or waiting for a start-up signal.
    pub fn is_deaf(&self) -> bool {
        let sleeps = match self.activity {
            Activity::Active => false,
            Activity::Halted => !self.guest_mode && !self.system_flags().r#if(),
            Activity::WaitForSipi | Activity::Shutdown => true,
        };
        sleeps && !self.is_runnable()
    }

    /// Offset in the local APIC's register page, if a physical address lies in it.
    pub(crate) fn apic_offset(&self, physical: u64) -> Option<u32> {
        (self.apic.page() == Some(physical & !0xfff)).then_some((physical & 0xfff) as u32)
    }

    /// Reads from the register page: 32 bits wide; narrower reads get their part, the rest of a wider one is zero.
    pub(crate) fn apic_load(&mut self, offset: u32, bytes: u8) -> u64 {
        self.charge(self.model.costs.apic_access.ticks());
        let now = self.cycles();
        let value = u64::from(self.apic.read(offset & !3, now)) >> (8 * (offset & 3));
        value & crate::operand::mask(u32::from(bytes) * 8)
    }

    /// Writes to the register page. Accesses that are not 32 bits wide and aligned are undefined there (SDM vol 3, 11.4.1): ignored.
    pub(crate) fn apic_store(&mut self, offset: u32, bytes: u8, value: u64) {
        self.charge(self.model.costs.apic_access.ticks());
        if offset & 3 == 0 && bytes >= 4 {
            let now = self.cycles();
            let effects = self.apic.write(offset, value as u32, now);
            self.apic_effects(effects);
        }
    }

    /// Sends out what a write to an APIC register causes.
    pub(crate) fn apic_effects(&mut self, effects: Effects) {
        self.leave = true;
        let (number, now) = (self.number, self.cycles());
        if let Some(message) = effects.message {
            self.environment().bus.send(number, message, now);
        }
        if let Some(vector) = effects.end_of_interrupt {
            self.environment().bus.end_of_interrupt(vector);
        }
    }
}
