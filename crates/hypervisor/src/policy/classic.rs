//! The commit of 2007, to the letter: #UD is intercepted, and every instruction that the emulator of that day can decode is emulated
//! ([`super::decoder_2007`]); a hypercall drops every mapping, is patched and made, all in one exit, and the emulator's write-back loses the
//! result.
//!
//! An emulated instruction moves RIP on and does nothing else that instructions do: the interrupt shadow stays, and no single step traps.

use super::decoder_2007::{self, Decoded, Mode, Verdict};
use super::patch::{AsWho, TextWrite, Then, WriteFailure};
use crate::backend::Backend;
use crate::handle::{UNDEFINED, mode_name};
use crate::hypercall::errno;
use crate::locks::Hold;
use crate::mmu::Paging;
use crate::run::Stop;
use crate::state::Registers;
use crate::steps::Stage;
use crate::vm::Vm;
use cpu::trap::NotModelled;
use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};
use isa::register::Gpr;
use trace::{Event, Sink};

impl<B: Backend> Vm<B> {
    /// #UD: whatever the emulator can decode is emulated, everything else is the guest's #UD.
    pub(super) fn classic_undefined(&mut self, vcpu: usize, registers: Registers, sink: &mut dyn Sink) -> Result<(), Stop> {
        let mode = match mode_name(&registers) {
            "prot64" => Mode::SixtyFour,
            "prot32" => Mode::ThirtyTwo,
            _ => Mode::Sixteen,
        };
        let (bytes, count) = self.emulator.fetch(&mut self.memory, &mut self.code).unwrap_or_default();
        let Decoded { verdict, length } = decoder_2007::decode(&bytes[..count], mode);
        self.emit_emulation(vcpu, &registers, &bytes[..length], sink);
        match verdict {
            Verdict::Refused => self.queue_exception(vcpu, UNDEFINED),
            // The guest meets the fault of the fetch by itself.
            Verdict::Truncated => {}
            Verdict::Hypercall => return self.classic_hypercall(vcpu, registers, length, sink),
            Verdict::NotModelled(what) => return Err(unmodelled(vcpu, &registers, mode, (what, &bytes[..count], length))),
            Verdict::Nothing => self.classic_go_on(vcpu, &registers, length),
            Verdict::ReadControl { number, to } => {
                let value = match number {
                    0 => registers.cr0.into_bits(),
                    2 => registers.cr2,
                    3 => registers.cr3,
                    4 => registers.cr4.into_bits(),
                    _ => 0,
                };
                self.classic_set(vcpu, to, value);
                self.classic_go_on(vcpu, &registers, length);
            }
            Verdict::Move { from, to, bytes } => {
                let (old, new) = (registers.gprs[to.number()], registers.gprs[from.number()]);
                let value = match bytes {
                    2 => old & !0xffff | new & 0xffff,
                    4 => new & 0xffff_ffff,
                    _ => new,
                };
                self.classic_set(vcpu, to, value);
                self.classic_go_on(vcpu, &registers, length);
            }
        }
        Ok(())
    }

    /// The two foreign calls, and the native one where it raises #UD.
    fn classic_hypercall(&mut self, vcpu: usize, registers: Registers, length: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        // With kvm->lock no other virtual CPU can have a mapping, once they are dropped, until the patch is written.
        self.lock_mappings(vcpu, Hold::Exclusive, sink);
        self.later(vcpu, Stage::Zap(Box::new(registers), length));
        Ok(())
    }

    /// Drops every mapping; the patch is next.
    pub(crate) fn classic_zap(&mut self, vcpu: usize, registers: Registers, length: usize, sink: &mut dyn Sink) {
        let mappings = self.zap();
        if self.mmu.paging() == Paging::Shadow {
            self.kick_others(vcpu);
        }
        let costs = self.model.costs;
        self.charge(vcpu, &costs.mmu_zap);
        self.emit(vcpu, sink, Event::Zap { mappings });
        let then = Then::Call { length };
        self.later(vcpu, Stage::Write(Box::new(TextWrite { registers, bytes: B::HYPERCALL, done: 0, as_who: AsWho::Nobody, then })));
    }

    /// Behind the patch.
    pub(super) fn call_patched(
        &mut self,
        vcpu: usize,
        registers: &Registers,
        outcome: Result<(), WriteFailure>,
        length: usize,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        self.unlock_mappings(vcpu);
        match outcome {
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
        self.classic_go_on(vcpu, registers, length);
        Ok(())
    }

    /// Moves RIP behind an emulated instruction.
    fn classic_go_on(&mut self, vcpu: usize, registers: &Registers, length: usize) {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_execute);
        let rip = registers.rip.wrapping_add(length as u64);
        let rip = if registers.is_64bit() { rip } else { rip & 0xffff_ffff };
        self.silicon(vcpu, |backend, cpu| backend.set_rip(cpu, rip));
    }

    /// Sets a general register of a guest that exited.
    fn classic_set(&mut self, vcpu: usize, register: Gpr, value: u64) {
        self.silicon(vcpu, |backend, cpu| {
            let mut registers = backend.save(cpu);
            registers.gprs[register.number()] = value;
            backend.load(cpu, &registers);
        });
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

/// The stop for an instruction whose emulation is not modelled.
fn unmodelled(vcpu: usize, registers: &Registers, mode: Mode, (what, bytes, least): (&str, &[u8], usize)) -> Stop {
    let bits = match mode {
        Mode::Sixteen => 16,
        Mode::ThirtyTwo => 32,
        Mode::SixtyFour => 64,
    };
    // The processor refuses it; its text is that of what it would be.
    let instruction = Decoder::new(bits, bytes, DecoderOptions::NO_INVALID_CHECK).decode();
    let mut text = String::new();
    IntelFormatter::new().format(&instruction, &mut text);
    let length = instruction.len().clamp(least, bytes.len().max(least)).min(bytes.len());
    let what = NotModelled { what: what.to_owned(), bytes: bytes[..length].to_vec(), text, rip: registers.rip };
    Stop::NotModelled { vcpu: vcpu as u32, what: Box::new(what) }
}
