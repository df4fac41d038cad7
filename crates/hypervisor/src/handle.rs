//! What the hypervisor does about an exit: one handler for each kind, all of them the same for both vendors.

mod call;
mod control;
mod cpuid;
mod memory;
pub(crate) mod msr;
mod port;
mod refused;
mod shadow;
mod task;

use crate::backend::Backend;
use crate::emulator::Step;
use crate::exit::{Exit, Report};
use crate::mmu::Paging;
use crate::run::Stop;
use crate::state::Registers;
use crate::vcpu::Activity;
use crate::vm::Vm;
use cpu::apic::register;
use cpu::state::Shadow;
use cpu::trap::{Exception, Trap};
use isa::debug::Dr6;
use isa::exception::{PageFaultCode, Vector};
use isa::register::Segment;
use models::DecodeRules;
use trace::{ByteString, Event, Name, Sink};

/// KVM's numbers of exits to user space.
pub(crate) mod userspace {
    /// Port I/O.
    pub const IO: (&str, u32) = ("KVM_EXIT_IO", 2);
    /// A hypercall.
    pub const HYPERCALL: (&str, u32) = ("KVM_EXIT_HYPERCALL", 3);
    /// An access to memory that is no RAM.
    pub const MMIO: (&str, u32) = ("KVM_EXIT_MMIO", 6);
    /// A triple fault.
    pub const SHUTDOWN: (&str, u32) = ("KVM_EXIT_SHUTDOWN", 8);
    /// VM entry failed.
    pub const FAIL_ENTRY: (&str, u32) = ("KVM_EXIT_FAIL_ENTRY", 9);
    /// The hypervisor gave up.
    pub const INTERNAL_ERROR: (&str, u32) = ("KVM_EXIT_INTERNAL_ERROR", 17);
}

/// #UD.
pub(crate) const UNDEFINED: Exception = Exception::plain(Vector::InvalidOpcode);
/// #GP(0).
pub(crate) const PROTECTION: Exception = Exception::with_code(Vector::GeneralProtection, 0);

/// #DB of a single step.
pub(crate) fn single_step() -> Exception {
    Exception::debug(Dr6::new().with_bs(true).into_bits())
}

/// The mode in the words of `kvm_emulate_insn`.
pub(crate) fn mode_name(registers: &Registers) -> &'static str {
    if !registers.cr0.pe() {
        "real"
    } else if registers.rflags.vm() {
        "vm16"
    } else if registers.is_64bit() {
        "prot64"
    } else if registers.segments[Segment::Cs as usize].attributes.db() {
        "prot32"
    } else {
        "prot16"
    }
}

/// Length of the instruction at the start of some bytes, as far as it can be told.
pub(crate) fn instruction_length(registers: &Registers, rules: DecodeRules, bytes: &[u8]) -> Option<u8> {
    let bits = match mode_name(registers) {
        "prot64" => 64,
        "prot32" => 32,
        _ => 16,
    };
    let instruction = cpu::block::decoder_at(bits, bytes, registers.rip, rules).decode();
    (!instruction.is_invalid()).then_some(instruction.len() as u8)
}

impl<B: Backend> Vm<B> {
    /// Handles an exit. An error ends the run.
    pub(crate) fn handle(&mut self, vcpu: usize, report: &Report, sink: &mut dyn Sink) -> Result<(), Stop> {
        match report.exit {
            Exit::Hypercall => self.native_hypercall(vcpu, report, sink),
            Exit::Exception { vector: 6, .. } => self.undefined_opcode(vcpu, sink),
            Exit::Exception { vector: 14, error_code, detail } if self.mmu.paging() == Paging::Shadow => {
                self.shadow_fault(vcpu, report, detail, PageFaultCode::from_bits(error_code.unwrap_or(0)), sink)
            }
            Exit::Exception { vector, error_code, detail } => {
                let vector = Vector::from_number(vector).unwrap_or(Vector::GeneralProtection);
                let (address, debug) = if vector == Vector::PageFault { (detail, 0) } else { (0, detail) };
                self.queue_exception(vcpu, Exception { vector, error_code, address, debug });
                Ok(())
            }
            Exit::Cpuid => self.cpuid(vcpu, report, sink),
            Exit::Halt => self.halt(vcpu, report),
            Exit::Port(port) => self.port(vcpu, report, port, sink),
            Exit::Msr { write } => self.msr(vcpu, report, write, sink),
            Exit::Control { register, write, gpr } => self.control(vcpu, report, (register, write, gpr), sink),
            Exit::NestedFault { malformed: true, guest_physical, .. } => {
                Err(self.not_modelled(vcpu, &format!("a nested table entry for {guest_physical:#x} that the processor refuses")))
            }
            Exit::NestedFault { guest_physical, access, writes, error_code, .. } => {
                self.nested_fault(vcpu, report, guest_physical, (access, writes), error_code, sink)
            }
            Exit::Invalidate { linear } => self.invalidate(vcpu, report, linear, sink),
            // What waits is injected at the entry.
            Exit::InterruptWindow | Exit::NmiWindow => Ok(()),
            // Every exit empties the log.
            Exit::LogFull => Ok(()),
            Exit::Iret | Exit::Xsetbv => self.emulate(vcpu, sink, false),
            Exit::ExternalInterrupt | Exit::Nmi => {
                self.host_interrupt(vcpu);
                Ok(())
            }
            Exit::Shutdown => {
                self.leave_to_userspace(vcpu, userspace::SHUTDOWN, sink);
                Err(Stop::TripleFault { vcpu: vcpu as u32 })
            }
            Exit::CacheFlush => self.skip(vcpu, report.length),
            Exit::NotOffered => {
                self.queue_exception(vcpu, UNDEFINED);
                Ok(())
            }
            Exit::PerformanceCounter => {
                self.queue_exception(vcpu, PROTECTION);
                Ok(())
            }
            // What the guest gets on Intel, where VMX fixes CR0.NE to 1. KVM leaves the guest frozen.
            Exit::NumericError => {
                self.queue_exception(vcpu, Exception::plain(Vector::MathFault));
                Ok(())
            }
            Exit::EntryFailure => {
                self.leave_to_userspace(vcpu, userspace::FAIL_ENTRY, sink);
                let reasons = self.silicon(vcpu, |backend, cpu| backend.explain(cpu));
                Err(Stop::EntryFailure { vcpu: vcpu as u32, reasons })
            }
            Exit::TaskSwitch(switch) => self.task_switch(vcpu, report, switch, sink),
            Exit::Vendor(number) => Err(self.not_modelled(vcpu, &format!("a VM exit of kind {number:#x}"))),
        }
    }

    /// Tells of an exit to user space and charges it.
    pub(crate) fn leave_to_userspace(&mut self, vcpu: usize, (name, number): (&'static str, u32), sink: &mut dyn Sink) {
        self.emit(vcpu, sink, Event::UserspaceExit { reason: Name::Text(name), number });
        let costs = self.model.costs;
        self.charge(vcpu, &costs.userspace_round_trip);
    }

    /// Moves RIP behind the instruction that exited, which ends its interrupt shadow; a single step traps there.
    pub(crate) fn skip(&mut self, vcpu: usize, length: Option<u8>) -> Result<(), Stop> {
        let length = match length {
            Some(length) => length,
            None => self.decode_length(vcpu)?,
        };
        let traces = self.silicon(vcpu, |backend, cpu| {
            let old = backend.rip();
            let mut new = old.wrapping_add(length.into());
            // RIP wraps at 32 bits outside of 64-bit mode.
            if (old ^ new) >> 32 != 0 && !backend.is_64bit(cpu) {
                new &= 0xffff_ffff;
            }
            backend.set_rip(cpu, new);
            if backend.shadow(cpu) != Shadow::None {
                backend.set_shadow(cpu, Shadow::None);
            }
            backend.rflags(cpu).tf()
        });
        if traces {
            self.queue_exception(vcpu, single_step());
        }
        Ok(())
    }

    /// The length of the instruction at RIP, where the silicon did not tell.
    pub(crate) fn decode_length(&mut self, vcpu: usize) -> Result<u8, Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_decode);
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        let length = match self.emulator.fetch(&mut self.memory, &mut self.code) {
            Ok((bytes, count)) => instruction_length(&registers, self.model.decode_rules(), &bytes[..count]),
            Err(_) => None,
        };
        length.ok_or_else(|| self.not_modelled(vcpu, "an exit of an instruction that cannot be decoded"))
    }

    /// Readies the spare processor.
    pub(crate) fn begin_emulation(&mut self, vcpu: usize, registers: &Registers) {
        let tsc = self.guest_tsc_scale();
        self.emulator.begin(registers, self.common.guest_features, self.cpus[vcpu].now(), tsc);
    }

    /// Executes the instruction at RIP on the spare processor, devices included. `told` has it announced as KVM's emulator does.
    pub(crate) fn emulate(&mut self, vcpu: usize, sink: &mut dyn Sink, told: bool) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_decode);
        let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        if told {
            match self.emulator.fetch(&mut self.memory, &mut self.code) {
                Ok((bytes, count)) => {
                    let length = instruction_length(&registers, self.model.decode_rules(), &bytes[..count]).map_or(count, usize::from);
                    self.emit_emulation(vcpu, &registers, &bytes[..length.min(count)], sink);
                }
                Err(Trap::Exception(exception)) => {
                    self.queue_exception(vcpu, exception);
                    return Ok(());
                }
                Err(_) => {
                    self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                    return Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 });
                }
            }
        }
        self.step_emulation(vcpu, registers, sink)
    }

    /// The line that marks an emulation.
    pub(crate) fn emit_emulation(&self, vcpu: usize, registers: &Registers, bytes: &[u8], sink: &mut dyn Sink) {
        let cs_base = if registers.is_64bit() { 0 } else { registers.segments[Segment::Cs as usize].base };
        let mode = mode_name(registers);
        self.emit(
            vcpu,
            sink,
            Event::EmulateInstruction { cs_base, rip: registers.rip, bytes: ByteString::new(bytes), mode, failed: false },
        );
    }

    /// Executes what the spare processor was readied for, and takes over what it did.
    pub(crate) fn step_emulation(&mut self, vcpu: usize, mut registers: Registers, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_execute);
        let (step, effects) = self.step_with_devices(vcpu, sink);
        match step {
            Step::Done { debug } => {
                self.emulator.end(&mut registers);
                registers.shadow = if debug.is_some() { Shadow::None } else { registers.shadow };
                self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
                for effect in effects {
                    self.apply_effects(vcpu, effect);
                }
                if let Some(debug) = debug {
                    self.queue_exception(vcpu, debug);
                }
                Ok(())
            }
            Step::Fault(exception) => {
                self.queue_exception(vcpu, exception);
                Ok(())
            }
            Step::NotModelled(what) => Err(Stop::NotModelled { vcpu: vcpu as u32, what }),
            Step::Failed => {
                self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 })
            }
        }
    }

    /// HLT.
    fn halt(&mut self, vcpu: usize, report: &Report) -> Result<(), Stop> {
        self.skip(vcpu, report.length)?;
        let costs = self.model.costs;
        self.charge(vcpu, &costs.halt_and_wake);
        let software = &mut self.vcpus[vcpu].software;
        if !std::mem::take(&mut software.kicked) {
            software.activity = Activity::Halted;
        }
        Ok(())
    }

    /// A physical interrupt that arrived while the guest ran: the host's handler takes it and ends it.
    fn host_interrupt(&mut self, vcpu: usize) {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.host_interrupt);
        let now = self.device_time(vcpu);
        let apic = &mut self.cpus[vcpu].apic;
        while apic.highest_pending().is_some() {
            apic.acknowledge();
            apic.write(register::EOI, 0, now);
        }
        // One that the VM exit acknowledged is in service.
        apic.write(register::EOI, 0, now);
    }
}
