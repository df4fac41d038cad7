//! #UD as KVM of today handles it: decode, check, patch, and let the guest execute the instruction again.
//!
//! Modelled besides: the slip of its predecessors from 2008 or 2009 to 2015 (`skip-first-call`), which let RIP go on behind a VMMCALL that
//! they had patched on Intel. Those before 2013 also dropped every mapping, as the commit of 2007 did; that is not modelled again here.

use super::Policy;
use super::patch::{AsWho, Decoded, Kind, TextWrite, Then, WriteFailure, decode};
use crate::backend::Backend;
use crate::handle::{PROTECTION, UNDEFINED, instruction_length, single_step};
use crate::run::Stop;
use crate::state::Registers;
use crate::steps::Stage;
use crate::vm::Vm;
use cpu::state::Shadow;
use cpu::trap::Exception;
use models::Vendor;
use trace::Sink;

/// KVM's forced emulation prefix: UD2 and the letters `kvm`.
const FORCED_EMULATION: [u8; 5] = [0x0f, 0x0b, b'k', b'v', b'm'];

impl<B: Backend> Vm<B> {
    /// #UD of the guest.
    pub(crate) fn undefined_opcode(&mut self, vcpu: usize, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.emulate_decode);
        let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        if self.common.policy == Policy::Classic2007 {
            return self.classic_undefined(vcpu, registers, sink);
        }
        let mut fetched = self.emulator.fetch(&mut self.memory, &mut self.code);
        let mut forced = false;
        if self.common.options.force_emulation_prefix
            && let Ok((bytes, count)) = &fetched
            && bytes[..*count].starts_with(&FORCED_EMULATION)
        {
            forced = true;
            registers.rip = registers.rip.wrapping_add(FORCED_EMULATION.len() as u64);
            self.begin_emulation(vcpu, &registers);
            fetched = self.emulator.fetch(&mut self.memory, &mut self.code);
        }
        let Ok((bytes, count)) = fetched else {
            self.emit_emulation(vcpu, &registers, &[], sink);
            self.queue_exception(vcpu, UNDEFINED);
            return Ok(());
        };
        let bytes = &bytes[..count];
        let decoded = decode(bytes, registers.is_64bit());
        let call = matches!(decoded.kind, Kind::Vmcall | Kind::Vmmcall);
        let length =
            if call { decoded.length } else { instruction_length(&registers, self.model.decode_rules(), bytes).map_or(count, usize::from) };
        self.emit_emulation(vcpu, &registers, &bytes[..length.min(count)], sink);
        match checked(&registers, decoded, forced) {
            Some(exception) => {
                self.queue_exception(vcpu, exception);
                Ok(())
            }
            None if call => self.fix_hypercall(vcpu, registers, decoded.kind, (length as u8, forced), sink),
            None => {
                if decoded.kind == Kind::Sysexit {
                    // KVM's emulator asks nobody's vendor before it.
                    self.emulator.follow(Vendor::Intel);
                }
                self.step_emulation(vcpu, registers, sink)
            }
        }
    }

    /// Makes a foreign hypercall a native one, by whatever the policy says.
    pub(crate) fn fix_hypercall(
        &mut self,
        vcpu: usize,
        registers: Registers,
        kind: Kind,
        (length, forced): (u8, bool),
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        match self.common.policy {
            Policy::QuirkOff | Policy::HypercallPage => {
                self.queue_exception(vcpu, UNDEFINED);
                return Ok(());
            }
            Policy::Direct => {
                if forced {
                    self.silicon(vcpu, |backend, cpu| backend.set_rip(cpu, registers.rip));
                }
                return self.call(vcpu, length, sink);
            }
            Policy::Classic2007 | Policy::SkipFirstCall | Policy::TrapAndPatch | Policy::PatchOrUd => {}
        }
        let then = Then::Retry { kind, length, forced };
        self.later(vcpu, Stage::Write(Box::new(TextWrite { registers, bytes: B::HYPERCALL, done: 0, as_who: AsWho::Guest, then })));
        Ok(())
    }

    /// Behind the patch.
    pub(super) fn retry_patched(
        &mut self,
        vcpu: usize,
        mut registers: Registers,
        outcome: Result<(), WriteFailure>,
        (kind, length, forced): (Kind, u8, bool),
    ) -> Result<(), Stop> {
        match outcome {
            Ok(()) => {
                let costs = self.model.costs;
                self.charge(vcpu, &costs.emulate_execute);
                let traces = registers.rflags.tf();
                let skips = skips(self.common.policy, kind);
                if skips {
                    let rip = registers.rip.wrapping_add(length.into());
                    registers.rip = if registers.is_64bit() { rip } else { rip & 0xffff_ffff };
                }
                if forced || skips || registers.shadow != Shadow::None || registers.rflags.rf() {
                    // The emulated instruction ends the shadow and clears RF, although RIP stays before the hypercall (but see `skips`).
                    registers.shadow = Shadow::None;
                    registers.rflags = registers.rflags.with_rf(false);
                    self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
                }
                if traces {
                    self.queue_exception(vcpu, single_step());
                }
                Ok(())
            }
            Err(WriteFailure::Fault(_)) if self.common.policy == Policy::PatchOrUd => {
                self.queue_exception(vcpu, UNDEFINED);
                Ok(())
            }
            Err(WriteFailure::Fault(exception)) => {
                self.queue_exception(vcpu, exception);
                Ok(())
            }
            Err(WriteFailure::Userspace) => Ok(()),
            Err(WriteFailure::Unwalkable) => Err(self.unwalkable(vcpu)),
        }
    }
}

/// Whether RIP goes on behind a hypercall that was patched. Until 2015 KVM's emulator had two functions: that of VMCALL put RIP back, that of
/// VMMCALL forgot to.
fn skips(policy: Policy, kind: Kind) -> bool {
    policy == Policy::SkipFirstCall && kind == Kind::Vmmcall
}

/// The checks before an instruction's own handler, in KVM's order.
pub(crate) fn checked(registers: &Registers, decoded: Decoded, forced: bool) -> Option<Exception> {
    let protected = registers.cr0.pe() && !registers.rflags.vm();
    match decoded.kind {
        Kind::Unknown if !forced => Some(UNDEFINED),
        Kind::Vmcall | Kind::Vmmcall if decoded.lock => Some(UNDEFINED),
        Kind::Vmmcall if !protected => Some(UNDEFINED),
        // KVM's emulator has "not been tested" with SYSENTER and SYSEXIT in 64-bit mode; of the two it refuses the first there.
        Kind::Sysenter if registers.is_64bit() => Some(UNDEFINED),
        Kind::Vmcall if registers.cpl != 0 => Some(PROTECTION),
        _ => None,
    }
}
