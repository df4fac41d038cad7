//! A guest in a state that VM entry refuses: its instructions are emulated, one after the other, until the state is valid.
//!
//! Modelled: KVM's emulation of invalid guest state, which knows no exits: hypercalls of either vendor go to the patcher, whose "patch, then
//! execute it again" leads to the same emulation for ever (E31); instructions that exit go to the handlers of their exits; events of real
//! mode are delivered by software; an exception in protected mode ends the run, as KVM gives up there.
//! Not modelled: VMCALL in real mode, which KVM would execute in virtual-8086 mode, and the policies of 2007, which had nothing like it.

use super::{mode_name, userspace};
use crate::backend::Backend;
use crate::emulator::Step;
use crate::exit::{Exit, ExitInfo, Port, Report};
use crate::policy::checked;
use crate::policy::patch::{Decoded, Kind, decode};
use crate::run::Stop;
use crate::state::Registers;
use crate::vm::Vm;
use cpu::state::Shadow;
use cpu::trap::{Event, EventKind, Trap};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use isa::register::Gpr;
use trace::{Name, Sink};

/// The reason in the kernel's words, though no exit happens.
const REASON: Name = Name::Text("INVALID_STATE");

impl<B: Backend> Vm<B> {
    /// Emulates one instruction, or delivers one event.
    pub(crate) fn emulate_refused(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.common.policy.is_of_2007() {
            return Err(self.not_modelled(vcpu, "guest state that VM entry refuses, under a policy of 2007"));
        }
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        if self.deliver_refused(vcpu, &registers, sink)? {
            return Ok(());
        }
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_decode);
        self.begin_emulation(vcpu, &registers);
        let (bytes, count) = match self.emulator.fetch(&mut self.memory, &mut self.code) {
            Ok(fetched) => fetched,
            Err(Trap::Exception(exception)) => {
                self.queue_exception(vcpu, exception);
                return Ok(());
            }
            Err(_) => return Err(self.give_up(vcpu, sink)),
        };
        let bits = match mode_name(&registers) {
            "prot64" => 64,
            "prot32" => 32,
            _ => 16,
        };
        let bytes = &bytes[..count];
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        let decoded = decode(bytes, registers.is_64bit());
        let call = matches!(decoded.kind, Kind::Vmcall | Kind::Vmmcall);
        let length = if call { decoded.length } else { instruction.len() };
        self.emit_emulation(vcpu, &registers, &bytes[..length.min(count)], sink);
        let (rip, rcx) = (registers.rip, registers.gprs[Gpr::Rcx.number()]);
        self.common.instructions += 1;
        if call && decoded.kind == Kind::Vmcall && !registers.cr0.pe() {
            return Err(self.not_modelled(vcpu, "VMCALL in real mode without unrestricted guests"));
        } else if call {
            self.fix_refused(vcpu, registers, decoded, sink)?;
            self.do_stages(vcpu, sink)?;
        } else if let Some(exit) = Self::exit_of(&registers, &instruction) {
            let info = ExitInfo { reason: REASON, failed_entry: true, info1: 0, info2: 0, intr_info: 0, error_code: 0 };
            self.handle(vcpu, &Report { exit, rip, length: Some(length as u8), info }, sink)?;
        } else {
            self.step_emulation(vcpu, registers, sink)?;
        }
        self.common.pauses.completed(vcpu);
        self.check_refused(vcpu, rip, rcx)
    }

    /// Whether the guest goes on: without exits nothing else would tell.
    fn check_refused(&mut self, vcpu: usize, rip: u64, rcx: u64) -> Result<(), Stop> {
        let still =
            self.vcpus[vcpu].backend.rip() == rip && self.cpus[vcpu].gpr(Gpr::Rcx) == rcx && self.vcpus[vcpu].software.exception.is_none();
        if !still {
            self.vcpus[vcpu].progress.moved();
        } else if self.vcpus[vcpu].progress.stuck(rip, rcx, REASON) >= self.common.options.livelock {
            return Err(Stop::Livelock { vcpu: vcpu as u32, rip, reason: "INVALID_STATE".to_owned() });
        }
        Ok(())
    }

    /// A hypercall: the emulator has no other way than to patch it and try again.
    fn fix_refused(&mut self, vcpu: usize, registers: Registers, decoded: Decoded, sink: &mut dyn Sink) -> Result<(), Stop> {
        match checked(&registers, decoded, false) {
            Some(exception) => {
                self.queue_exception(vcpu, exception);
                Ok(())
            }
            None => self.fix_hypercall(vcpu, registers, decoded.kind, (decoded.length as u8, false), sink),
        }
    }

    /// The exit that an instruction would have; `None` for one that the spare processor executes, or refuses.
    fn exit_of(registers: &Registers, instruction: &Instruction) -> Option<Exit> {
        let supervisor = registers.cpl == 0;
        let ports = registers.cpl <= registers.rflags.iopl();
        let port = |wide: bool, input: bool| {
            let number = if wide { registers.gprs[Gpr::Rdx.number()] as u16 } else { u16::from(instruction.immediate8()) };
            let accumulator = if input { instruction.op0_register() } else { instruction.op1_register() };
            Exit::Port(Port { port: number, width: accumulator.size() as u8, input, string: false })
        };
        Some(match instruction.mnemonic() {
            Mnemonic::Cpuid => Exit::Cpuid,
            Mnemonic::Hlt if supervisor => Exit::Halt,
            Mnemonic::Rdmsr if supervisor => Exit::Msr { write: false },
            Mnemonic::Wrmsr if supervisor => Exit::Msr { write: true },
            Mnemonic::Invd | Mnemonic::Wbinvd if supervisor => Exit::CacheFlush,
            Mnemonic::In if ports => port(instruction.op1_kind() == OpKind::Register, true),
            Mnemonic::Out if ports => port(instruction.op0_kind() == OpKind::Register, false),
            Mnemonic::Mov if supervisor && instruction.op0_register() == Register::CR8 => {
                Exit::Control { register: 8, write: true, gpr: Some(instruction.op1_register().number() as u8) }
            }
            Mnemonic::Mov if supervisor && instruction.op1_register() == Register::CR8 => {
                Exit::Control { register: 8, write: false, gpr: Some(instruction.op0_register().number() as u8) }
            }
            _ => return None,
        })
    }

    /// Delivers an event that the guest would take now. Whether there was one.
    fn deliver_refused(&mut self, vcpu: usize, registers: &Registers, sink: &mut dyn Sink) -> Result<bool, Stop> {
        let real = !registers.cr0.pe();
        let interrupt = self.has_interrupt(vcpu);
        let software = &mut self.vcpus[vcpu].software;
        if !real {
            // Interrupts wait for a valid state; an exception cannot.
            let fails = software.exception.is_some() || software.requeued.is_some();
            return if fails { Err(self.give_up(vcpu, sink)) } else { Ok(false) };
        }
        let open = registers.shadow == Shadow::None && registers.rflags.r#if();
        let event = if let Some(event) = software.requeued.take() {
            event
        } else if let Some(exception) = software.exception.take() {
            Event { kind: EventKind::Exception, vector: exception.vector as u8, error_code: None, length: 0 }
        } else if software.nmis > 0 && !registers.nmi_blocked && registers.shadow != Shadow::MovSs {
            software.nmis -= 1;
            Event { kind: EventKind::Nmi, vector: 2, error_code: None, length: 0 }
        } else if open && interrupt {
            Event { kind: EventKind::External, vector: self.take_interrupt(vcpu), error_code: None, length: 0 }
        } else {
            return Ok(false);
        };
        self.tell_injection(vcpu, &event, false, sink);
        let costs = self.model.costs;
        self.charge(vcpu, &costs.inject_event);
        self.begin_emulation(vcpu, registers);
        match self.emulator.deliver(&mut self.memory, &mut self.code, event) {
            Step::Done { .. } => {
                let mut registers = registers.clone();
                self.emulator.end(&mut registers);
                registers.nmi_blocked |= event.kind == EventKind::Nmi;
                self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
                Ok(true)
            }
            // There is no worse exception than one of real mode's table that is too short: SDM 21.1.4 "Interrupt and Exception Handling".
            _ => {
                self.leave_to_userspace(vcpu, userspace::SHUTDOWN, sink);
                Err(Stop::TripleFault { vcpu: vcpu as u32 })
            }
        }
    }

    /// KVM's end of an emulation that cannot go on.
    fn give_up(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Stop {
        self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
        Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 }
    }
}
