//! CPUID.

use crate::backend::Backend;
use crate::cpuid::Running;
use crate::exit::Report;
use crate::run::Stop;
use crate::vm::Vm;
use cpu::apic::Mode;
use isa::register::Gpr;
use trace::{Event, Sink};

impl<B: Backend> Vm<B> {
    pub(super) fn cpuid(&mut self, vcpu: usize, report: &Report, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.cpuid_handler);
        let cpu = &self.cpus[vcpu];
        let (leaf, subleaf) = (cpu.gpr(Gpr::Rax) as u32, cpu.gpr(Gpr::Rcx) as u32);
        let apic_enabled = self.vcpus[vcpu].software.apic.mode() != Mode::Disabled;
        // Only these leaves show registers.
        let running = if matches!(leaf, 1 | 7 | 0xd) {
            let registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
            let cr4 = registers.cr4;
            Running { osxsave: cr4.osxsave(), ospke: cr4.pke(), xcr0: registers.xcr0, apic_enabled }
        } else {
            Running { apic_enabled, ..Running::default() }
        };
        let (value, found) = self.common.cpuid[vcpu].answer(leaf, subleaf, &running);
        let cpu = &mut self.cpus[vcpu];
        for (register, word) in [(Gpr::Rax, value.eax), (Gpr::Rbx, value.ebx), (Gpr::Rcx, value.ecx), (Gpr::Rdx, value.edx)] {
            cpu.set_gpr(register, word.into());
        }
        self.emit(
            vcpu,
            sink,
            Event::Cpuid {
                function: leaf,
                index: subleaf,
                rax: value.eax.into(),
                rbx: value.ebx.into(),
                rcx: value.ecx.into(),
                rdx: value.edx.into(),
                found,
            },
        );
        self.skip(vcpu, report.length)
    }
}
