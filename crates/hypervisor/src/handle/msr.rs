//! RDMSR and WRMSR.
//!
//! Modelled: what the virtual local APIC, the time-stamp counter and EFER need; every other register by executing the instruction on the
//! spare processor, whose rules it is. Those of [`passed`] never exit: the silicon or the processor itself keeps them for the guest.

use super::PROTECTION;
use super::memory::apic_name;
use crate::backend::Backend;
use crate::exit::Report;
use crate::hyperv;
use crate::policy::{HYPERCALL_PAGE_MSR, Policy};
use crate::run::Stop;
use crate::vm::Vm;
use cpu::state::TscScale;
use isa::control::Efer;
use isa::cpuid::Feature;
use isa::msr;
use isa::register::Gpr;
use models::Vendor;
use trace::{Event, Sink};

/// MSRs that a guest accesses without an exit. AMD's SYSENTER registers have 32 bits: for a guest that expects 64 the hypervisor keeps the
/// upper halves.
pub(crate) const fn passed(host: Vendor, guest: Vendor) -> &'static [u32] {
    match (host, guest) {
        (Vendor::Amd, Vendor::Intel) => PASSED,
        _ => PASSED_WITH_SYSENTER,
    }
}

/// With the addresses of SYSENTER, which the silicon keeps as the guest expects.
const PASSED_WITH_SYSENTER: &[u32] = &{
    let mut all = [0; PASSED.len() + 2];
    let mut index = 0;
    while index < PASSED.len() {
        all[index] = PASSED[index];
        index += 1;
    }
    all[index] = msr::IA32_SYSENTER_ESP;
    all[index + 1] = msr::IA32_SYSENTER_EIP;
    all
};

/// Those that always are. IA32_TSC_AUX is not among them: what its upper half does is for the guest's vendor to say.
const PASSED: &[u32] = &[
    msr::IA32_SYSENTER_CS,
    msr::IA32_PAT,
    msr::IA32_STAR,
    msr::IA32_LSTAR,
    msr::IA32_CSTAR,
    msr::IA32_FMASK,
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_KERNEL_GS_BASE,
];

/// What came of an access.
enum Answer {
    /// It was done; the value that was read.
    Done(u64),
    /// #GP(0).
    Refused,
    /// The register is the spare processor's to handle.
    Ordinary,
}

impl<B: Backend> Vm<B> {
    pub(super) fn msr(&mut self, vcpu: usize, report: &Report, write: bool, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.msr_handler);
        let cpu = &self.cpus[vcpu];
        let index = cpu.gpr(Gpr::Rcx) as u32;
        let value = cpu.gpr(Gpr::Rdx) << 32 | cpu.gpr(Gpr::Rax) & 0xffff_ffff;
        let answer = if write { self.write_msr(vcpu, index, value, sink) } else { self.read_msr(vcpu, index, sink) };
        let (data, fault) = match answer {
            Answer::Done(read) => {
                if !write {
                    let cpu = &mut self.cpus[vcpu];
                    cpu.set_gpr(Gpr::Rax, read & 0xffff_ffff);
                    cpu.set_gpr(Gpr::Rdx, read >> 32);
                }
                self.skip(vcpu, report.length)?;
                (if write { value } else { read }, false)
            }
            Answer::Refused => {
                self.queue_exception(vcpu, PROTECTION);
                (if write { value } else { 0 }, true)
            }
            Answer::Ordinary => {
                self.emulate(vcpu, sink, false)?;
                let fault = self.vcpus[vcpu].software.exception.is_some();
                let cpu = &self.cpus[vcpu];
                let read = cpu.gpr(Gpr::Rdx) << 32 | cpu.gpr(Gpr::Rax) & 0xffff_ffff;
                let seen = if fault { 0 } else { read };
                (if write { value } else { seen }, fault)
            }
        };
        self.emit(vcpu, sink, Event::Msr { write, ecx: index, data, fault });
        Ok(())
    }

    /// The guest's time-stamp counter now.
    pub(super) fn guest_tsc(&self, vcpu: usize) -> u64 {
        let cpu = &self.cpus[vcpu];
        self.guest_tsc_scale().apply(cpu.tsc.apply(cpu.cycles()))
    }

    /// What makes the guest's time-stamp counter out of the processor's.
    pub(super) fn guest_tsc_scale(&self) -> TscScale {
        let setting = self.common.tsc;
        TscScale { offset: setting.offset, ratio: setting.ratio << (TscScale::FRACTION_BITS - 32) }
    }

    fn read_msr(&mut self, vcpu: usize, index: u32, sink: &mut dyn Sink) -> Answer {
        let now = self.device_time(vcpu);
        match index {
            msr::IA32_TIME_STAMP_COUNTER => Answer::Done(self.guest_tsc(vcpu)),
            msr::IA32_APIC_BASE => Answer::Done(self.vcpus[vcpu].software.apic.base()),
            msr::IA32_TSC_DEADLINE if self.has_deadline() => Answer::Done(self.vcpus[vcpu].software.apic.tsc_deadline(now)),
            msr::IA32_X2APIC_FIRST..=msr::IA32_X2APIC_LAST => match self.vcpus[vcpu].software.apic.read_msr(index, now) {
                Ok(value) => {
                    self.emit(vcpu, sink, Event::Apic { write: false, register: apic_name((index - 0x800) << 4), value });
                    Answer::Done(value)
                }
                Err(_) => Answer::Refused,
            },
            msr::IA32_EFER => Answer::Done(self.silicon(vcpu, |backend, cpu| backend.save(cpu)).efer.into_bits()),
            HYPERCALL_PAGE_MSR if self.common.policy == Policy::HypercallPage => {
                Answer::Done(self.vcpus[vcpu].software.hypercall_area.unwrap_or(0))
            }
            hyperv::GUEST_OS_ID | hyperv::HYPERCALL => self.read_hyperv(index).map_or(Answer::Refused, Answer::Done),
            _ if is_hidden(index) => Answer::Refused,
            _ => Answer::Ordinary,
        }
    }

    fn write_msr(&mut self, vcpu: usize, index: u32, value: u64, sink: &mut dyn Sink) -> Answer {
        let now = self.device_time(vcpu);
        match index {
            msr::IA32_TIME_STAMP_COUNTER => {
                let offset = self.common.tsc.offset.wrapping_add(value.wrapping_sub(self.guest_tsc(vcpu)));
                self.set_tsc_offset(offset);
                Answer::Done(value)
            }
            msr::IA32_APIC_BASE => match self.vcpus[vcpu].software.apic.set_base(value) {
                Ok(()) => Answer::Done(value),
                Err(_) => Answer::Refused,
            },
            msr::IA32_TSC_DEADLINE if self.has_deadline() => {
                let tsc = self.guest_tsc(vcpu);
                self.vcpus[vcpu].software.apic.set_tsc_deadline(value, tsc, now);
                self.common.look = true;
                Answer::Done(value)
            }
            msr::IA32_X2APIC_FIRST..=msr::IA32_X2APIC_LAST => {
                self.emit(vcpu, sink, Event::Apic { write: true, register: apic_name((index - 0x800) << 4), value });
                match self.vcpus[vcpu].software.apic.write_msr(index, value, now) {
                    Ok(effects) => {
                        self.apply_effects(vcpu, effects);
                        self.common.look = true;
                        Answer::Done(value)
                    }
                    Err(_) => Answer::Refused,
                }
            }
            msr::IA32_EFER => self.write_efer(vcpu, Efer::from_bits(value)),
            HYPERCALL_PAGE_MSR if self.common.policy == Policy::HypercallPage => {
                if self.register_hypercall_page(vcpu, value, sink) {
                    Answer::Done(value)
                } else {
                    Answer::Refused
                }
            }
            hyperv::GUEST_OS_ID | hyperv::HYPERCALL => {
                if self.write_hyperv(vcpu, index, value, sink) {
                    Answer::Done(value)
                } else {
                    Answer::Refused
                }
            }
            _ if is_hidden(index) => Answer::Refused,
            _ => Answer::Ordinary,
        }
    }

    fn has_deadline(&self) -> bool {
        self.common.guest_features & Feature::TscDeadline.bit() != 0
    }

    /// Sets the offset of the guest's time-stamp counter on every processor, so that they stay in step.
    fn set_tsc_offset(&mut self, offset: u64) {
        self.common.tsc.offset = offset;
        let setting = self.common.tsc;
        for vcpu in 0..self.vcpus.len() {
            if self.cpus[vcpu].guest_mode {
                self.cpus[vcpu].guest_tsc.offset = offset;
            }
            self.silicon(vcpu, |backend, cpu| backend.set_tsc(cpu, setting));
            let (tsc, now) = (self.guest_tsc(vcpu), self.device_time(vcpu));
            self.vcpus[vcpu].software.apic.tsc_changed(tsc, now);
        }
    }

    /// SDM vol 3, 2.2.1 "Extended Feature Enable Register"; APM vol 2, 3.1.7 "Extended Feature Enable Register (EFER)": reserved bits and a
    /// change of LME with paging on are #GP(0). Reserved is what the guest was not told of, and what the processor at hand lacks
    /// (KVM's `efer_reserved_bits`): behind a move to Intel the bits that AMD alone has.
    fn write_efer(&mut self, vcpu: usize, value: Efer) -> Answer {
        let told = models::efer_of(self.common.guest_features).into_bits() | Efer::new().with_lma(true).into_bits();
        let allowed = told & self.cpus[vcpu].model.supported_efer().into_bits();
        let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        let old = registers.efer;
        if value.into_bits() & !allowed != 0 || registers.cr0.pg() && value.lme() != old.lme() {
            return Answer::Refused;
        }
        registers.efer = value.with_lma(old.lma());
        self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
        Answer::Done(value.into_bits())
    }
}

/// Registers of VMX and SVM, and the counters of the effective frequency, which the guest's CPUID does not tell of.
fn is_hidden(index: u32) -> bool {
    let virtualization =
        matches!(index, msr::IA32_FEATURE_CONTROL | msr::IA32_VMX_BASIC..=0x493 | msr::VM_CR..=msr::SVM_KEY | msr::TSC_RATIO);
    let frequency = matches!(index, msr::IA32_MPERF | msr::IA32_APERF | msr::MPERF_READ_ONLY | msr::APERF_READ_ONLY);
    virtualization || frequency
}
