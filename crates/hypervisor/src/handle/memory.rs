//! Nested page faults: pages to be mapped, and accesses to devices.
//!
//! Modelled: pages of slots are mapped; everything else is executed on the spare processor with the local APIC, the I/O APIC and user space
//! behind it. Not modelled: instructions fetched from devices, which end the run as they do under KVM.

use super::{port, userspace};
use crate::backend::Backend;
use crate::emulator::{Devices, Step};
use crate::exit::Report;
use crate::run::Stop;
use crate::steps::Stage;
use crate::vm::Vm;
use board::Board;
use cpu::apic::{Effects, LocalApic, register};
use cpu::trap::{Access, EventKind, Exception};
use isa::apic::{ApicMessage, DeliveryMode};
use isa::exception::{Class, Vector};
use trace::{Event, Name, Sink};

/// Names of the local APIC's registers in `kvm_apic`, as the kernel has them, by offset in the page.
const APIC_NAMES: &[(u32, &str)] = &[
    (register::ID, "APIC_ID"),
    (register::VERSION, "APIC_LVR"),
    (register::TPR, "APIC_TASKPRI"),
    (register::PPR, "APIC_PROCPRI"),
    (register::EOI, "APIC_EOI"),
    (register::LDR, "APIC_LDR"),
    (register::DFR, "APIC_DFR"),
    (register::SVR, "APIC_SPIV"),
    (register::ISR, "APIC_ISR"),
    (register::TMR, "APIC_TMR"),
    (register::IRR, "APIC_IRR"),
    (register::ESR, "APIC_ESR"),
    (register::ICR_LOW, "APIC_ICR"),
    (register::ICR_HIGH, "APIC_ICR2"),
    (register::LVT_TIMER, "APIC_LVTT"),
    (0x330, "APIC_LVTTHMR"),
    (0x340, "APIC_LVTPC"),
    (register::LVT_LINT0, "APIC_LVT0"),
    (register::LVT_LINT1, "APIC_LVT1"),
    (register::LVT_ERROR, "APIC_LVTERR"),
    (register::TIMER_INITIAL_COUNT, "APIC_TMICT"),
    (register::TIMER_CURRENT_COUNT, "APIC_TMCCT"),
    (register::TIMER_DIVIDE, "APIC_TDCR"),
    (register::SELF_IPI, "APIC_SELF_IPI"),
];

/// The name of a register of the local APIC.
pub(super) fn apic_name(offset: u32) -> Name {
    APIC_NAMES.iter().find(|(at, _)| *at == offset).map_or(Name::Code(offset.into()), |(_, name)| Name::Text(name))
}

/// The guest's devices, for the time of one instruction.
struct GuestDevices<'a> {
    apic: &'a mut LocalApic,
    board: &'a mut Board,
    sink: &'a mut dyn Sink,
    vcpu: u32,
    now: u64,
    effects: Vec<Effects>,
    userspace: bool,
    touched: bool,
}

impl GuestDevices<'_> {
    fn emit(&mut self, event: Event) {
        self.touched = true;
        self.sink.emit(self.now, self.vcpu, event);
    }

    fn leave(&mut self, (name, number): (&'static str, u32)) {
        self.userspace = true;
        self.emit(Event::UserspaceExit { reason: Name::Text(name), number });
    }

    fn apic_offset(&self, address: u64) -> Option<u32> {
        let page = self.apic.page()?;
        (address >> 12 == page >> 12).then_some((address & 0xfff) as u32)
    }
}

impl Devices for GuestDevices<'_> {
    fn read(&mut self, gpa: u64, width: u8) -> u64 {
        let value = if let Some(offset) = self.apic_offset(gpa) {
            let value = u64::from(self.apic.read(offset & !0xf, self.now)).checked_shr(8 * (offset & 0xf)).unwrap_or(0);
            self.emit(Event::Apic { write: false, register: apic_name(offset & !0xf), value });
            value
        } else if let Some(value) = self.board.mmio_read(gpa, width, self.now) {
            value
        } else {
            self.leave(userspace::MMIO);
            u64::MAX
        };
        let value = value & u64::MAX >> (64 - 8 * u32::from(width.clamp(1, 8)));
        self.emit(Event::Mmio { write: false, length: width, gpa, value });
        value
    }

    fn write(&mut self, gpa: u64, width: u8, value: u64) {
        self.emit(Event::Mmio { write: true, length: width, gpa, value });
        if let Some(offset) = self.apic_offset(gpa) {
            self.emit(Event::Apic { write: true, register: apic_name(offset), value });
            // SDM 11.4.1 "The Local APIC Block Diagram": registers are written as 32 bits at 16-byte boundaries; what is not is ignored.
            if offset & 0xf == 0 && width == 4 {
                let effects = self.apic.write(offset, value as u32, self.now);
                self.effects.push(effects);
            }
        } else if !self.board.mmio_write(gpa, width, value, self.now) {
            self.leave(userspace::MMIO);
        }
    }

    fn port_read(&mut self, port: u16, width: u8) -> u32 {
        if !port::in_kernel(port) {
            self.leave(userspace::IO);
        }
        let value = self.board.port_read(port, width, self.now);
        self.emit(Event::PortIo { write: false, port, size: width, count: 1, value });
        value
    }

    fn port_write(&mut self, port: u16, width: u8, value: u32) {
        self.emit(Event::PortIo { write: true, port, size: width, count: 1, value });
        if !port::in_kernel(port) {
            self.leave(userspace::IO);
        }
        self.board.port_write(port, width, value, self.now);
    }
}

impl<B: Backend> Vm<B> {
    /// One instruction on the spare processor, with the devices of a virtual CPU.
    pub(super) fn step_with_devices(&mut self, vcpu: usize, sink: &mut dyn Sink) -> (Step, Vec<Effects>) {
        let now = self.cpus[vcpu].cycles();
        let mut devices = GuestDevices {
            apic: &mut self.vcpus[vcpu].software.apic,
            board: &mut self.common.board,
            sink,
            vcpu: vcpu as u32,
            now,
            effects: Vec::new(),
            userspace: false,
            touched: false,
        };
        let step = self.emulator.step(&mut self.memory, &mut self.code, &mut devices);
        let (effects, userspace, touched) = (devices.effects, devices.userspace, devices.touched);
        let costs = self.model.costs;
        if touched {
            self.charge(vcpu, if userspace { &costs.io_in_userspace } else { &costs.io_in_kernel });
            self.common.look = true;
        }
        (step, effects)
    }

    /// A guest-physical address could not be used.
    pub(super) fn nested_fault(
        &mut self,
        vcpu: usize,
        report: &Report,
        guest_physical: u64,
        (access, writes): (Access, bool),
        error_code: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        self.emit(vcpu, sink, Event::PageFault { rip: report.rip, address: guest_physical, error_code });
        let slot = self.common.slots.at(guest_physical).copied();
        match slot {
            Some(slot) if !slot.read_only && writes && self.allow_logged_write(vcpu, guest_physical, access, sink) => Ok(()),
            Some(slot) if !(slot.read_only && access == Access::Write) => {
                self.lock_mappings(vcpu, self.fault_hold(), sink);
                self.later(vcpu, Stage::Map { slot, guest_physical, writes });
                Ok(())
            }
            _ if access == Access::Fetch => {
                self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 })
            }
            _ => self.emulate_access(vcpu, sink),
        }
    }

    /// Software makes the access that the processor cannot make: that of an instruction, or of an event on its way.
    pub(super) fn emulate_access(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        match self.vcpus[vcpu].software.requeued.take() {
            None => self.emulate(vcpu, sink, true),
            Some(event) => self.deliver_by_software(vcpu, event, sink),
        }
    }

    /// Delivers an event on the spare processor, because the processor's own delivery meets what only software can access.
    fn deliver_by_software(&mut self, vcpu: usize, event: cpu::trap::Event, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_execute);
        let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        match self.emulator.deliver(&mut self.memory, &mut self.code, event) {
            Step::Done { .. } => {
                self.emulator.end(&mut registers);
                registers.nmi_blocked |= event.kind == EventKind::Nmi;
                self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
                Ok(())
            }
            Step::Fault(exception) => {
                self.vcpus[vcpu].software.requeued = Some(event);
                self.fault_of_guest(vcpu, exception, sink)
            }
            Step::NotModelled(what) => Err(Stop::NotModelled { vcpu: vcpu as u32, what }),
            Step::Failed => {
                self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 })
            }
        }
    }

    /// A fault that is the guest's own, met perhaps on the way of an event, which is over with it: SDM vol 3, Table 6-5 "Conditions for
    /// Generating a Double Fault". RIP is that of an instruction that will be executed again, or where an outside event came.
    pub(super) fn fault_of_guest(&mut self, vcpu: usize, exception: Exception, sink: &mut dyn Sink) -> Result<(), Stop> {
        let software = &mut self.vcpus[vcpu].software;
        let event = software.requeued;
        let double = event.is_some_and(|event| event.kind == EventKind::Exception && event.vector == Vector::DoubleFault as u8);
        if double && exception.vector.class() != Class::Benign {
            self.leave_to_userspace(vcpu, userspace::SHUTDOWN, sink);
            return Err(Stop::TripleFault { vcpu: vcpu as u32 });
        }
        self.queue_exception(vcpu, exception);
        self.vcpus[vcpu].software.requeued = None;
        if event.is_some_and(|event| event.kind == EventKind::Nmi) {
            // It was taken, and its handler never reached: the IRET of another's ends its blocking.
            let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            registers.nmi_blocked = true;
            self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
        }
        Ok(())
    }

    /// An interrupt that a hypercall sends to one virtual CPU; whether it was accepted.
    pub(super) fn send_one(&mut self, target: u32, mode: DeliveryMode, vector: u8, now: u64) -> bool {
        let Some(index) = self.vcpus.iter().position(|vcpu| vcpu.software.apic.id() == target) else { return false };
        self.reach(index, now);
        self.deliver(index, &ApicMessage { destination: target, logical: false, mode, vector, level: false })
    }
}
