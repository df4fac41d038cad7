//! The MSRs of SVM.
//!
//! What is modelled: APM vol 2, 15.30 "SVM Related MSRs": VM_CR with its lock, VM_HSAVE_PA, TSC Ratio, SMM_CTL as the bits that software
//! finds there (IGNNE is the core's); R_INIT, by which an INIT becomes #SX (15.28 "Security Exception (#SX)"). What is not: SVM_KEY, which unlocks nothing here
//! (writes are accepted and forgotten, reads give zero, as the manual says of reads).

use cpu::state::Cpu;
use cpu::trap::{Outcome, Trap};
use isa::control::Efer;
use isa::msr;
use isa::svm::msr::{TscRatio, VmCr};

use crate::Svm;

/// Bits of VM_CR that software may write; the others must be zero.
const VM_CR_WRITABLE: u64 = VmCr::new().with_dpd(true).with_r_init(true).with_dis_a20m(true).with_lock(true).with_svmdis(true).into_bits();

impl Svm {
    /// Reads an MSR of SVM; nothing if it is not one.
    pub(crate) fn msr_read(&self, index: u32) -> Option<Outcome<u64>> {
        match index {
            msr::VM_CR => Some(Ok(self.vm_cr.into_bits())),
            msr::VM_HSAVE_PA => Some(Ok(self.hsave_pa)),
            msr::SVM_KEY if self.capabilities.features.svm_lock() => Some(Ok(0)),
            msr::SMM_CTL => Some(Ok(0)),
            msr::TSC_RATIO if self.capabilities.features.tsc_rate_msr() => Some(Ok(self.tsc_ratio.into_bits())),
            _ => None,
        }
    }

    /// Writes an MSR of SVM; nothing if it is not one.
    pub(crate) fn msr_write(&mut self, cpu: &Cpu, index: u32, value: u64) -> Option<Outcome> {
        match index {
            msr::VM_CR => Some(self.write_vm_cr(cpu, value)),
            msr::VM_HSAVE_PA => Some(self.write_hsave_pa(cpu, value)),
            msr::SVM_KEY if self.capabilities.features.svm_lock() => Some(Ok(())),
            msr::SMM_CTL => Some(Ok(())),
            msr::TSC_RATIO if self.capabilities.features.tsc_rate_msr() => Some(self.write_tsc_ratio(value)),
            // APM 15.4 "Enabling SVM": EFER.SVME cannot be set while VM_CR.SVMDIS is. All else of EFER is the core's.
            msr::IA32_EFER if self.vm_cr.svmdis() && Efer::from_bits(value).svme() => Some(Err(Trap::GP0)),
            _ => None,
        }
    }

    /// APM 15.30.1 "VM_CR MSR (C001_0114h)": LOCK makes LOCK and SVMDIS read-only; SVMDIS cannot be set while EFER.SVME is set.
    fn write_vm_cr(&mut self, cpu: &Cpu, value: u64) -> Outcome {
        if value & !VM_CR_WRITABLE != 0 {
            return Err(Trap::GP0);
        }
        let mut new = VmCr::from_bits(value);
        if self.vm_cr.lock() {
            new = new.with_lock(true).with_svmdis(self.vm_cr.svmdis());
        }
        if new.svmdis() && !self.vm_cr.svmdis() && cpu.efer.svme() {
            return Err(Trap::GP0);
        }
        self.vm_cr = new;
        Ok(())
    }

    /// APM 15.30.4 "VM_HSAVE_PA MSR (C001_0117h)": #GP for an address that is not page-aligned or too large.
    fn write_hsave_pa(&mut self, cpu: &Cpu, value: u64) -> Outcome {
        if value & 0xfff != 0 || value >> u32::from(cpu.model.physical_address_bits) != 0 {
            return Err(Trap::GP0);
        }
        self.hsave_pa = value;
        Ok(())
    }

    /// APM 15.30.5 "TSC Ratio MSR (C000_0104h)": bits 63:40 are reserved, MBZ.
    fn write_tsc_ratio(&mut self, value: u64) -> Outcome {
        if value >> 40 != 0 {
            return Err(Trap::GP0);
        }
        self.tsc_ratio = TscRatio::from_bits(value);
        Ok(())
    }
}
