//! Accesses to control registers.
//!
//! Modelled: CR8 as the priority of the virtual local APIC; the others by executing the instruction on the spare processor, whose rules
//! they are.

use super::PROTECTION;
use crate::backend::Backend;
use crate::exit::Report;
use crate::mmu::Paging;
use crate::run::Stop;
use crate::vm::Vm;
use iced_x86::Mnemonic;
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
        // APM 15.33.1 "MOV CRx/DRx Intercepts": without decode assists the register is found by decoding.
        let gpr = gpr.or_else(|| self.decode_control(vcpu));
        let index = gpr.map(|gpr| usize::from(gpr & 15));
        let Some(index) = index.filter(|_| number == 8) else {
            if let Some(index) = index.filter(|_| write) {
                self.emit(vcpu, sink, Event::ControlRegister { write, number, value: self.cpus[vcpu].regs[index] });
            }
            self.emulate(vcpu, sink, false)?;
            if self.mmu.paging() == Paging::Shadow {
                // Whatever the guest means to be forgotten with it.
                self.silicon(vcpu, |backend, cpu| backend.flush(cpu));
            }
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

    /// The general register of the MOV to or from a control register at RIP; `None` for another instruction.
    fn decode_control(&mut self, vcpu: usize) -> Option<u8> {
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        let (bytes, count) = self.emulator.fetch(&mut self.memory, &mut self.code).ok()?;
        let bits = if registers.is_64bit() { 64 } else { 32 };
        let instruction = cpu::block::decoder_at(bits, &bytes[..count], registers.rip, self.model.decode_rules()).decode();
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        let gpr = if to.is_cr() { from } else { to };
        (instruction.mnemonic() == Mnemonic::Mov && (to.is_cr() || from.is_cr())).then(|| gpr.number() as u8)
    }
}
