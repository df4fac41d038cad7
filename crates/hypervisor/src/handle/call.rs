//! Hypercalls by the vendor's own instruction, and what each of them does.

use super::userspace;
use crate::backend::Backend;
use crate::exit::Report;
use crate::hypercall::{self, Handler, errno};
use crate::policy::Policy;
use crate::run::Stop;
use crate::vcpu::Completion;
use crate::vm::Vm;
use isa::apic::DeliveryMode;
use isa::register::Gpr;
use trace::{Event, Sink};

/// ICR bit 11: a logical destination. SDM 11.6.1 "Interrupt Command Register (ICR)".
const ICR_LOGICAL: u64 = 1 << 11;
/// ICR bits 19:18: a shorthand.
const ICR_SHORTHAND: u64 = 3 << 18;
/// Bytes of the structure that CLOCK_PAIRING writes.
const CLOCK_PAIRING_BYTES: usize = 64;

/// What a call returns.
enum Answer {
    /// This, now.
    Value(i64),
    /// User space answers; its answer is this.
    Userspace(i64),
}

impl<B: Backend> Vm<B> {
    /// The native instruction.
    pub(super) fn native_hypercall(&mut self, vcpu: usize, report: &Report, sink: &mut dyn Sink) -> Result<(), Stop> {
        let length = report.length.unwrap_or(3);
        match self.common.policy {
            Policy::HypercallPage => self.page_call(vcpu, length, sink),
            Policy::Classic2007 => {
                // The commit moves RIP first, and then makes the call.
                self.skip(vcpu, Some(length))?;
                let result = self.classic_call(vcpu, sink);
                self.cpus[vcpu].set_gpr(Gpr::Rax, result);
                Ok(())
            }
            _ => self.call(vcpu, length, sink),
        }
    }

    /// A hypercall as KVM of today answers it. RIP moves on by `length`.
    pub(crate) fn call(&mut self, vcpu: usize, length: u8, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.hyperv_calls() {
            return self.hyperv_call(vcpu, length, sink);
        }
        let costs = self.model.costs;
        self.charge(vcpu, &costs.hypercall_handler);
        self.common.statistics.hypercalls += 1;
        let cpu = &self.cpus[vcpu];
        let raw = [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].map(|register| cpu.gpr(register));
        let [nr, a0, a1, a2, a3] = raw;
        self.emit(vcpu, sink, Event::Hypercall { nr, a0, a1, a2, a3 });
        let (wide, cpl) = self.silicon(vcpu, |backend, cpu| (backend.is_64bit(cpu), backend.cpl(cpu)));
        let [nr, arguments @ ..] = if wide { raw } else { raw.map(|value| value & 0xffff_ffff) };
        let answer = if cpl == 0 { self.answer(vcpu, nr, arguments, wide) } else { Answer::Value(errno::EPERM) };
        let narrow = |value: i64| if wide { value as u64 } else { u64::from(value as u32) };
        match answer {
            Answer::Value(value) => {
                self.cpus[vcpu].set_gpr(Gpr::Rax, narrow(value));
                self.skip(vcpu, Some(length))
            }
            Answer::Userspace(value) => {
                self.leave_to_userspace(vcpu, userspace::HYPERCALL, sink);
                self.vcpus[vcpu].software.completion = Some(Completion { result: narrow(value), length });
                Ok(())
            }
        }
    }

    /// Does what user space's answer asks for, on the way back into the guest.
    pub(crate) fn complete_userspace(&mut self, vcpu: usize) {
        if let Some(completion) = self.vcpus[vcpu].software.completion.take() {
            self.cpus[vcpu].set_gpr(Gpr::Rax, completion.result);
            // The length is known, so nothing has to be decoded and nothing can fail.
            let _ = self.skip(vcpu, Some(completion.length));
        }
    }

    fn answer(&mut self, vcpu: usize, number: u64, arguments: [u64; 4], wide: bool) -> Answer {
        let Some(row) = hypercall::find(self.common.policy, number) else { return Answer::Value(errno::ENOSYS) };
        let offered = row.feature.is_none_or(|bit| self.common.cpuid[vcpu].has_hypervisor_feature(bit));
        if self.common.options.enforce_features && !offered {
            return Answer::Value(errno::ENOSYS);
        }
        let [a0, a1, ..] = arguments;
        Answer::Value(match row.handler {
            Handler::Null => 0,
            Handler::KickCpu => {
                let costs = self.model.costs;
                self.charge(vcpu, &costs.hypercall_kick);
                let now = self.cpus[vcpu].now();
                if let Some(target) = self.vcpus.iter().position(|other| u64::from(other.software.apic.id()) == a1) {
                    self.wake(target, now);
                }
                0
            }
            Handler::ClockPairing => self.clock_pairing(vcpu, a0, a1),
            Handler::SendIpi => self.send_ipis(vcpu, arguments, wide),
            // There is no other work on the host's processors to yield to.
            Handler::SchedYield => 0,
            Handler::MapGpaRange => return self.map_gpa_range(a0, a1),
        })
    }

    /// The host's clock is that of the simulation: it begins at zero with it.
    fn clock_pairing(&mut self, vcpu: usize, address: u64, kind: u64) -> i64 {
        if kind != 0 {
            return errno::EOPNOTSUPP;
        }
        let (cycles, hertz) = (self.cpus[vcpu].cycles(), self.model.tsc_hz.max(1));
        let nanoseconds = u128::from(cycles % hertz) * 1_000_000_000 / u128::from(hertz);
        let mut bytes = [0; CLOCK_PAIRING_BYTES];
        bytes[..8].copy_from_slice(&(cycles / hertz).to_le_bytes());
        bytes[8..16].copy_from_slice(&(nanoseconds as u64).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.guest_tsc(vcpu).to_le_bytes());
        let end = address.checked_add(CLOCK_PAIRING_BYTES as u64);
        if self.must_wait(address, CLOCK_PAIRING_BYTES as u64) {
            return errno::EFAULT;
        }
        let writable = self.common.slots.at(address).is_some_and(|slot| !slot.read_only && end.is_some_and(|end| end <= slot.end));
        if writable && self.memory.write(address, &bytes).is_ok() { 0 } else { errno::EFAULT }
    }

    /// A 128-bit bitmap (64-bit outside of 64-bit mode) of APIC IDs from the third argument on; the fourth is the ICR.
    fn send_ipis(&mut self, vcpu: usize, [low, high, first, icr]: [u64; 4], wide: bool) -> i64 {
        if icr & (ICR_LOGICAL | ICR_SHORTHAND) != 0 {
            return errno::EINVAL;
        }
        let Some(mode @ (DeliveryMode::Fixed | DeliveryMode::LowestPriority | DeliveryMode::Nmi)) =
            DeliveryMode::from_code((icr >> 8) as u8)
        else {
            return 0;
        };
        let now = self.cpus[vcpu].now();
        let bits = if wide { 64 } else { 32 };
        let mut reached = 0;
        for (bitmap, base) in [(low, first), (high, first.saturating_add(bits))] {
            for bit in (0..bits).filter(|bit| bitmap >> bit & 1 != 0) {
                let target = base.checked_add(bit).and_then(|target| u32::try_from(target).ok());
                if target.is_some_and(|target| self.send_one(target, mode, icr as u8, now)) {
                    reached += 1;
                }
            }
        }
        reached
    }

    /// An address and a number of pages. User space has nothing to convert and agrees.
    fn map_gpa_range(&mut self, address: u64, pages: u64) -> Answer {
        if !self.common.options.exit_hypercall {
            return Answer::Value(errno::ENOSYS);
        }
        let end = pages.checked_mul(4096).and_then(|bytes| address.checked_add(bytes));
        if address & 0xfff != 0 || pages == 0 || end.is_none() {
            return Answer::Value(errno::EINVAL);
        }
        Answer::Userspace(0)
    }
}
