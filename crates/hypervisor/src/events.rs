//! Events on their way to a virtual CPU: who gets them, and what the next entry injects.
//!
//! Modelled: the order in which KVM injects (an interrupted event, an exception, an NMI, an interrupt), windows for what cannot be taken
//! yet, INIT and start-up messages, interrupts from the I/O APIC and the 8259, exceptions that meet exceptions.
//! Not modelled: SMI.

use crate::backend::{Backend, Window};
use crate::vcpu::Activity;
use crate::vm::{KICK_VECTOR, Vm};
use cpu::apic::{Accepted, Effects, IcrMessage, Lint};
use cpu::trap::{Event, EventKind, Exception};
use isa::apic::{ApicMessage, DeliveryMode};
use isa::exception::{Class, Vector};
use isa::register::Segment;
use isa::segment::Selector;
use timing::TICKS_PER_CYCLE;
use trace::Sink;

impl<B: Backend> Vm<B> {
    /// Messages of the I/O APIC, and the line of the 8259.
    pub(crate) fn pass_board_interrupts(&mut self) {
        let now = self.cpus.iter().map(|cpu| cpu.now()).min().unwrap_or(0);
        if self.common.board.has_messages() {
            let messages: Vec<ApicMessage> = self.common.board.take_messages().collect();
            for message in messages {
                let targets = cpu::apic::routing::targets(&message, self.vcpus.iter().map(|vcpu| &vcpu.software.apic));
                for target in targets {
                    self.reach(target, now);
                    self.deliver(target, &message);
                }
            }
        }
        let line = self.common.board.extint();
        let before = self.vcpus[0].software.apic.extint();
        let accepted = self.vcpus[0].software.apic.set_lint(Lint::Lint0, line);
        let ready = self.vcpus[0].software.apic.extint() && !before;
        if ready || !matches!(accepted, Accepted::Ignored | Accepted::ExtInt) {
            self.reach(0, now);
            self.accepted(0, accepted);
            self.kick(0, KICK_VECTOR);
        }
    }

    /// Fetches a virtual CPU out of its guest, as soon as it runs again.
    pub(crate) fn kick(&mut self, vcpu: usize, vector: u8) {
        if self.cpus[vcpu].guest_mode {
            let apic = &mut self.cpus[vcpu].apic;
            let destination = apic.id();
            apic.accept(&ApicMessage { destination, logical: false, mode: DeliveryMode::Fixed, vector, level: false });
        }
    }

    /// A message reaches a virtual local APIC; whether that took it.
    pub(crate) fn deliver(&mut self, vcpu: usize, message: &ApicMessage) -> bool {
        let accepted = self.vcpus[vcpu].software.apic.accept(message);
        self.accepted(vcpu, accepted);
        accepted != Accepted::Ignored
    }

    pub(crate) fn accepted(&mut self, vcpu: usize, accepted: Accepted) {
        let software = &mut self.vcpus[vcpu].software;
        match accepted {
            Accepted::Ignored | Accepted::Smi | Accepted::ExtInt => return,
            Accepted::Interrupt => {}
            Accepted::Nmi => software.nmis = (software.nmis + 1).min(2),
            Accepted::Init => software.init = true,
            Accepted::Startup(vector) if software.activity == Activity::WaitForSipi || software.init => software.sipi = Some(vector),
            Accepted::Startup(_) => return,
        }
        self.kick(vcpu, KICK_VECTOR);
        self.common.look = true;
    }

    /// What a write to a virtual local APIC causes elsewhere.
    pub(crate) fn apply_effects(&mut self, vcpu: usize, effects: Effects) {
        if let Some(message) = effects.message {
            self.send(vcpu, &message);
        }
        if let Some(vector) = effects.end_of_interrupt {
            self.common.board.end_of_interrupt(vector);
            self.common.look = true;
        }
    }

    /// An interprocessor interrupt.
    fn send(&mut self, sender: usize, message: &IcrMessage) {
        let now = self.cpus[sender].now();
        let targets = cpu::apic::routing::ipi_targets(message, sender, self.vcpus.iter().map(|vcpu| &vcpu.software.apic));
        for target in targets {
            self.reach(target, now);
            self.deliver(target, &message.message);
        }
    }

    /// INIT and start-up messages, which are taken outside of the guest only.
    #[inline(always)]
    pub(crate) fn take_signals(&mut self, vcpu: usize) {
        let software = &self.vcpus[vcpu].software;
        if software.init || software.sipi.is_some() {
            self.take_waiting_signals(vcpu);
        }
    }

    fn take_waiting_signals(&mut self, vcpu: usize) {
        if std::mem::take(&mut self.vcpus[vcpu].software.init) {
            let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            self.emulator.init(&mut registers);
            self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
            let software = &mut self.vcpus[vcpu].software;
            software.apic.init();
            software.activity = if vcpu == 0 { Activity::Running } else { Activity::WaitForSipi };
            (software.exception, software.requeued, software.nmis, software.completion) = (None, None, 0, None);
        }
        let software = &mut self.vcpus[vcpu].software;
        if software.activity != Activity::WaitForSipi {
            software.sipi = None;
            return;
        }
        if let Some(page) = software.sipi.take() {
            software.activity = Activity::Running;
            let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            let cs = &mut registers.segments[Segment::Cs as usize];
            cs.selector = Selector::from_bits(u16::from(page) << 8);
            cs.base = u64::from(page) << 12;
            registers.rip = 0;
            self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
        }
    }

    /// Whether an interrupt waits at a virtual local APIC.
    pub(crate) fn has_interrupt(&self, vcpu: usize) -> bool {
        let apic = &self.vcpus[vcpu].software.apic;
        apic.extint() || apic.highest_pending().is_some()
    }

    /// Takes the interrupt that waits.
    pub(crate) fn take_interrupt(&mut self, vcpu: usize) -> u8 {
        let apic = &mut self.vcpus[vcpu].software.apic;
        if !apic.extint() {
            return apic.acknowledge();
        }
        let vector = self.common.board.acknowledge();
        let line = self.common.board.extint();
        self.vcpus[vcpu].software.apic.set_lint(Lint::Lint0, line);
        self.common.look = true;
        vector
    }

    /// Queues an exception of the guest. One that meets another becomes a double fault as the processor would make one of them.
    pub(crate) fn queue_exception(&mut self, vcpu: usize, exception: Exception) {
        let software = &mut self.vcpus[vcpu].software;
        let requeued = software.requeued.filter(|event| event.kind == EventKind::Exception);
        let first = software.exception.map(|first| first.vector).or_else(|| requeued.and_then(|event| Vector::from_number(event.vector)));
        let double = match first.map(Vector::class) {
            Some(Class::Contributory) => exception.vector.class() == Class::Contributory,
            Some(Class::PageFault) => matches!(exception.vector.class(), Class::Contributory | Class::PageFault),
            _ => false,
        };
        if requeued.is_some() {
            software.requeued = None;
        }
        software.exception = Some(if double { Exception::with_code(Vector::DoubleFault, 0) } else { exception });
    }

    /// Injects what waits, one event, and asks for a window if more does.
    pub(crate) fn inject_pending(&mut self, vcpu: usize, sink: &mut dyn Sink) {
        let interrupt = self.has_interrupt(vcpu);
        let software = &self.vcpus[vcpu].software;
        let priority = software.apic.cr8();
        let quiet = software.requeued.is_none() && software.exception.is_none() && software.nmis == 0 && !interrupt;
        if priority != software.told_priority {
            self.vcpus[vcpu].software.told_priority = priority;
            self.silicon(vcpu, |backend, cpu| backend.set_task_priority(cpu, priority));
        }
        if quiet && !self.vcpus[vcpu].software.window_wanted {
            return;
        }
        let window = self.silicon(vcpu, |backend, cpu| backend.window(cpu));
        if let Some(event) = self.vcpus[vcpu].software.requeued.take() {
            self.inject(vcpu, &event, true, sink);
        } else if let Some(exception) = self.vcpus[vcpu].software.exception.take() {
            self.inject_exception(vcpu, &exception, sink);
        } else if self.vcpus[vcpu].software.nmis > 0 && window.nmi {
            self.vcpus[vcpu].software.nmis -= 1;
            self.inject(vcpu, &Event { kind: EventKind::Nmi, vector: 2, error_code: None, length: 0 }, false, sink);
        } else if interrupt && window.interrupt {
            let vector = self.take_interrupt(vcpu);
            self.inject(vcpu, &Event { kind: EventKind::External, vector, error_code: None, length: 0 }, false, sink);
        }
        let software = &self.vcpus[vcpu].software;
        let wanted = Window { interrupt: self.has_interrupt(vcpu), nmi: software.nmis > 0 };
        self.vcpus[vcpu].software.window_wanted = wanted.interrupt || wanted.nmi;
        self.silicon(vcpu, |backend, cpu| backend.request_window(cpu, wanted));
    }

    fn inject_exception(&mut self, vcpu: usize, exception: &Exception, sink: &mut dyn Sink) {
        let address = (exception.vector == Vector::PageFault).then_some(exception.address);
        let debug = exception.debug;
        self.silicon(vcpu, |backend, cpu| backend.set_exception_state(cpu, address, debug));
        let event = Event { kind: EventKind::Exception, vector: exception.vector as u8, error_code: exception.error_code, length: 0 };
        self.inject(vcpu, &event, false, sink);
    }

    fn inject(&mut self, vcpu: usize, event: &Event, reinjected: bool, sink: &mut dyn Sink) {
        self.tell_injection(vcpu, event, reinjected, sink);
        let costs = self.model.costs;
        self.charge(vcpu, &costs.inject_event);
        self.silicon(vcpu, |backend, cpu| backend.inject(cpu, event));
    }

    /// The line of an injection.
    pub(crate) fn tell_injection(&self, vcpu: usize, event: &Event, reinjected: bool, sink: &mut dyn Sink) {
        match event.kind {
            EventKind::External | EventKind::SoftwareInterrupt => {
                let software = event.kind == EventKind::SoftwareInterrupt;
                self.emit(vcpu, sink, trace::Event::InjectInterrupt { vector: event.vector, software, reinjected });
            }
            EventKind::Nmi => {}
            EventKind::Exception | EventKind::PrivilegedSoftware | EventKind::SoftwareException => {
                self.emit(vcpu, sink, trace::Event::InjectException { vector: event.vector, error_code: event.error_code, reinjected });
            }
        }
    }

    /// The time of a virtual CPU in cycles, for its devices.
    pub(crate) fn device_time(&self, vcpu: usize) -> u64 {
        self.cpus[vcpu].now() / TICKS_PER_CYCLE
    }

    /// Wakes a virtual CPU for a kick of another.
    pub(crate) fn wake(&mut self, vcpu: usize, now: u64) {
        self.reach(vcpu, now);
        self.vcpus[vcpu].software.kicked = true;
        self.common.look = true;
    }
}
