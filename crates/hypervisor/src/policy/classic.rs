//! The commit of 2007, to the letter: #UD is intercepted, the instruction emulated; a hypercall drops every mapping, is patched and made,
//! all in one exit, and the emulator's write-back loses the result.

use super::patch::{AsWho, Kind, WriteFailure, decode};
use crate::backend::Backend;
use crate::handle::{UNDEFINED, instruction_length};
use crate::hypercall::errno;
use crate::run::Stop;
use crate::state::Registers;
use crate::vm::Vm;
use isa::exception::Vector;
use isa::register::Gpr;
use trace::{Event, Sink};

impl<B: Backend> Vm<B> {
    /// #UD: whatever the emulator can decode is emulated, everything else is the guest's #UD.
    pub(super) fn classic_undefined(&mut self, vcpu: usize, registers: Registers, sink: &mut dyn Sink) -> Result<(), Stop> {
        let Ok((bytes, count)) = self.emulator.fetch(&mut self.memory, &mut self.code) else {
            self.queue_exception(vcpu, UNDEFINED);
            return Ok(());
        };
        let bytes = &bytes[..count];
        let decoded = decode(bytes, registers.is_64bit());
        let call = matches!(decoded.kind, Kind::Vmcall | Kind::Vmmcall);
        let length = if call { decoded.length } else { instruction_length(&registers, bytes).map_or(count, usize::from) };
        self.emit_emulation(vcpu, &registers, &bytes[..length.min(count)], sink);
        if !call {
            return self.classic_emulate(vcpu, registers, sink);
        }
        // kvm->lock is taken here; then no other virtual CPU can have a mapping until the patch is written.
        let mappings = self.zap();
        let costs = self.model.costs;
        self.charge(vcpu, &costs.mmu_zap);
        self.emit(vcpu, sink, Event::Zap { mappings });
        self.charge(vcpu, &costs.patch_write);
        match self.write_text(vcpu, registers.rip, &B::HYPERCALL, AsWho::Nobody, sink) {
            Ok(()) => {}
            // -EFAULT leaves the emulator before its write-back: RIP stays, and the page fault is on its way.
            Err(WriteFailure::Fault(exception)) => {
                self.queue_exception(vcpu, exception);
                return Ok(());
            }
            Err(WriteFailure::Userspace) => return Ok(()),
            Err(WriteFailure::Unwalkable) => return Err(self.unwalkable(vcpu)),
        }
        // The call stores its result in RAX; the write-back of registers read before the call then puts the number there again.
        let _lost = self.classic_call(vcpu, sink);
        self.charge(vcpu, &costs.emulate_execute);
        let rip = registers.rip.wrapping_add(length as u64);
        let rip = if registers.is_64bit() { rip } else { rip & 0xffff_ffff };
        self.silicon(vcpu, |backend, cpu| backend.set_rip(cpu, rip));
        Ok(())
    }

    /// Any other instruction. What the emulator fails at is #UD.
    fn classic_emulate(&mut self, vcpu: usize, registers: Registers, sink: &mut dyn Sink) -> Result<(), Stop> {
        self.step_emulation(vcpu, registers, sink)?;
        let software = &mut self.vcpus[vcpu].software;
        if software.exception.is_some_and(|exception| exception.vector != Vector::Debug) {
            software.exception = Some(UNDEFINED);
        }
        Ok(())
    }

    /// The call: the mechanism was there, and not one hypercall. No check of the privilege level.
    pub(crate) fn classic_call(&mut self, vcpu: usize, sink: &mut dyn Sink) -> u64 {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.hypercall_handler);
        self.common.statistics.hypercalls += 1;
        let cpu = &self.cpus[vcpu];
        let [nr, a0, a1, a2, a3] = [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].map(|register| cpu.gpr(register));
        self.emit(vcpu, sink, Event::Hypercall { nr, a0, a1, a2, a3 });
        // Arguments are cut to 32 bits by EFER.LMA alone, which no call is there to see. The result itself is never cut.
        errno::ENOSYS as u64
    }
}
