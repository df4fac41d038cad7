//! Accesses to control registers.
//!
//! Modelled: CR8 as the priority of the virtual local APIC; the others by executing the instruction on the spare processor, whose rules
//! they are.

use super::PROTECTION;
use crate::backend::Backend;
use crate::exit::Report;
use crate::run::Stop;
use crate::vm::Vm;
use trace::{Event, Sink};

impl<B: Backend> Vm<B> {
    /// `(register, write, gpr)` as in [`crate::exit::Exit::Control`].
    pub(super) fn control(
        &mut self,
        vcpu: usize,
        report: &Report,
        (number, write, gpr): (u8, bool, Option<u8>),
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.control_register_handler);
        let index = gpr.map(|gpr| usize::from(gpr & 15));
        let Some(index) = index.filter(|_| number == 8) else {
            if let Some(index) = index.filter(|_| write) {
                self.emit(vcpu, sink, Event::ControlRegister { write, number, value: self.cpus[vcpu].regs[index] });
            }
            self.emulate(vcpu, sink, false)?;
            if let Some(index) = index.filter(|_| !write) {
                self.emit(vcpu, sink, Event::ControlRegister { write, number, value: self.cpus[vcpu].regs[index] });
            }
            return Ok(());
        };
        let value = if write { self.cpus[vcpu].regs[index] } else { self.vcpus[vcpu].software.apic.cr8().into() };
        self.emit(vcpu, sink, Event::ControlRegister { write, number, value });
        if !write {
            self.cpus[vcpu].regs[index] = value;
        } else if value > 0xf {
            self.queue_exception(vcpu, PROTECTION);
            return Ok(());
        } else {
            self.vcpus[vcpu].software.apic.set_cr8(value as u8);
        }
        self.skip(vcpu, report.length)
    }
}
