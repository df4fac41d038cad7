//! The instructions of SVM.
//!
//! What is modelled: VMRUN, VMLOAD, VMSAVE, VMMCALL, STGI, CLGI and INVLPGA, APM vol 3, chapter 4 "System Instruction Reference", with their
//! exceptions and, behind those of privilege, their intercepts. SKINIT is in `secure_startup.rs`.

use cpu::extension::Completion;
use cpu::state::{Activity, Cpu};
use cpu::trap::{Access, Exit, Intercept, Outcome, Trap, VendorInstruction};
use isa::cpuid::Feature;
use isa::register::{Gpr, Segment};
use zerocopy::IntoBytes;

use crate::entry::Vmrun;
use crate::memory::PhysicalTables;
use crate::npt::Walk;
use crate::{AddressFault, Svm};

/// What VMLOAD reads and VMSAVE writes: ranges of the state save area, first byte and end. APM vol 3, "VMLOAD": FS, GS; LDTR; TR; STAR to
/// SYSENTER_EIP.
const MOVED: [std::ops::Range<usize>; 4] = [0x040..0x060, 0x070..0x080, 0x090..0x0a0, 0x200..0x240];

/// Where the state save area starts in the VMCB.
pub(crate) const SAVE_AREA: u64 = 0x400;

/// A base or an address in the canonical form that VMRUN and VMLOAD give it: APM 15.5.1, "bits 63:48 take the value of bit 47".
pub(crate) const fn canonical(address: u64) -> u64 {
    ((address as i64) << 16 >> 16) as u64
}

impl Svm {
    /// Executes an instruction of SVM in the name of the program that runs.
    pub(crate) fn instruction(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion> {
        let operation = instruction.operation;
        let exit = Trap::Exit(Exit::Instruction { intercept: operation, length: instruction.length });
        if operation == Intercept::Vmmcall {
            // APM vol 3, "VMMCALL": #UD if not intercepted, at any privilege level.
            return Err(if cpu.guest_mode && cpu.interception.has(operation) { exit } else { Trap::UD });
        }
        // APM 15.4 "Enabling SVM": SKINIT and STGI need either EFER.SVME or the feature SKINIT.
        let without_svme = matches!(operation, Intercept::Stgi | Intercept::Skinit) && cpu.has(Feature::Skinit);
        if !(cpu.efer.svme() || without_svme) || !cpu.is_protected() || !is_offered(cpu, operation) {
            return Err(Trap::UD);
        }
        if cpu.cpl != 0 {
            return Err(Trap::GP0);
        }
        if cpu.guest_mode && cpu.interception.has(operation) {
            return Err(exit);
        }
        let costs = &cpu.model.costs;
        match operation {
            Intercept::Vmrun => {
                let next = cpu.rip.wrapping_add(u64::from(instruction.length));
                let next = if cpu.is_64bit() { next } else { next & 0xffff_ffff };
                let vmcb = address(cpu, instruction);
                self.check_address(cpu, vmcb)?;
                self.save_host(cpu, next);
                match self.enter(cpu, vmcb) {
                    Vmrun::Entered => {}
                    Vmrun::Invalid(_) if self.load_host(cpu) => {}
                    Vmrun::Invalid(_) => cpu.activity = Activity::Shutdown,
                }
                Ok(Completion::Entered)
            }
            Intercept::Vmload => {
                cpu.charge(costs.vmload.ticks());
                let vmcb = self.virtual_vmcb(cpu, instruction, Access::Read)?;
                self.vmload(cpu, vmcb)?;
                Ok(Completion::Next)
            }
            Intercept::Vmsave => {
                cpu.charge(costs.vmsave.ticks());
                let vmcb = self.virtual_vmcb(cpu, instruction, Access::Write)?;
                self.vmsave(cpu, vmcb)?;
                Ok(Completion::Next)
            }
            Intercept::Stgi | Intercept::Clgi => {
                let set = operation == Intercept::Stgi;
                cpu.charge(if set { costs.stgi.ticks() } else { costs.clgi.ticks() });
                if cpu.guest_mode && self.has_virtual_gif() {
                    self.control.virtual_interrupt.set_v_gif(set);
                    cpu.virtual_interrupt = self.presented_interrupt();
                } else if set {
                    self.stgi(cpu);
                } else {
                    self.clgi(cpu);
                }
                Ok(Completion::Next)
            }
            Intercept::Skinit => {
                self.skinit(cpu)?;
                Ok(Completion::Entered)
            }
            _ => {
                cpu.charge(costs.invlpga.ticks());
                let linear = address(cpu, instruction);
                let asid = cpu.gpr(Gpr::Rcx) as u32;
                self.invlpga(cpu, linear, asid);
                Ok(Completion::Next)
            }
        }
    }

    /// The physical address of the VMCB that VMLOAD or VMSAVE names. APM 15.33.1 "Virtual VMLOAD and VMSAVE": where the guest may execute them
    /// by itself, its address is translated by the nested tables; outside 64-bit mode it exits instead.
    fn virtual_vmcb(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction, access: Access) -> Outcome<u64> {
        let address = address(cpu, instruction);
        let is_virtual =
            cpu.guest_mode && self.capabilities.features.virtual_vmload_vmsave() && self.control.virtual_extensions.virtual_vmload_vmsave();
        let Some(root) = self.nested.filter(|_| is_virtual) else { return Ok(address) };
        if !cpu.is_64bit() {
            return Err(Trap::Exit(Exit::Instruction { intercept: instruction.operation, length: instruction.length }));
        }
        self.check_address(cpu, address)?;
        let walk = Walk { access, table_walk: false, user: false, linear: None };
        match root.translate(&mut PhysicalTables(cpu), address, walk) {
            Ok(page) => Ok(page.physical),
            Err(fault) => Err(Trap::Exit(Exit::Nested(fault))),
        }
    }

    /// #GP(0) of VMRUN, VMLOAD and VMSAVE: the address is not page-aligned, or past the end of physical addresses.
    pub(crate) fn check_address(&self, cpu: &Cpu, vmcb: u64) -> Result<(), AddressFault> {
        if vmcb & 0xfff != 0 || vmcb >> u32::from(cpu.model.physical_address_bits) != 0 {
            return Err(AddressFault { vmcb });
        }
        Ok(())
    }

    /// VMLOAD: loads FS, GS, LDTR, TR and the MSRs of system calls from a VMCB.
    ///
    /// # Errors
    /// The address is not that of a page of physical memory: #GP(0) for machine code.
    pub fn vmload(&mut self, cpu: &mut Cpu, vmcb: u64) -> Result<(), AddressFault> {
        self.check_address(cpu, vmcb)?;
        for range in MOVED {
            if let Some(bytes) = self.save.as_mut_bytes().get_mut(range.clone()) {
                cpu.read_physical_bytes(vmcb + SAVE_AREA + range.start as u64, bytes);
            }
        }
        let save = &self.save;
        let segment = |mut segment: isa::svm::SegmentRegister| -> isa::segment::SegmentRegister {
            segment.base = canonical(segment.base);
            segment.into()
        };
        cpu.segments[Segment::Fs as usize] = segment(save.fs);
        cpu.segments[Segment::Gs as usize] = segment(save.gs);
        cpu.ldtr = segment(save.ldtr);
        cpu.tr = segment(save.tr);
        cpu.msrs.star = save.star;
        cpu.msrs.lstar = canonical(save.lstar);
        cpu.msrs.cstar = canonical(save.cstar);
        cpu.msrs.fmask = save.sfmask & 0xffff_ffff;
        cpu.msrs.kernel_gs_base = canonical(save.kernel_gs_base);
        cpu.msrs.sysenter_cs = save.sysenter_cs;
        // The registers have 32 bits. APM vol 2, 6.1.2 "SYSENTER and SYSEXIT".
        cpu.msrs.sysenter_esp = save.sysenter_esp & 0xffff_ffff;
        cpu.msrs.sysenter_eip = save.sysenter_eip & 0xffff_ffff;
        Ok(())
    }

    /// VMSAVE: stores into a VMCB what VMLOAD loads.
    ///
    /// # Errors
    /// The address is not that of a page of physical memory: #GP(0) for machine code.
    pub fn vmsave(&mut self, cpu: &mut Cpu, vmcb: u64) -> Result<(), AddressFault> {
        self.check_address(cpu, vmcb)?;
        let save = &mut self.save;
        save.fs = (*cpu.segment(Segment::Fs)).into();
        save.gs = (*cpu.segment(Segment::Gs)).into();
        save.ldtr = cpu.ldtr.into();
        save.tr = cpu.tr.into();
        save.star = cpu.msrs.star;
        save.lstar = cpu.msrs.lstar;
        save.cstar = cpu.msrs.cstar;
        save.sfmask = cpu.msrs.fmask;
        save.kernel_gs_base = cpu.msrs.kernel_gs_base;
        save.sysenter_cs = cpu.msrs.sysenter_cs;
        save.sysenter_esp = cpu.msrs.sysenter_esp;
        save.sysenter_eip = cpu.msrs.sysenter_eip;
        for range in MOVED {
            if let Some(bytes) = self.save.as_bytes().get(range.clone()) {
                cpu.write_physical_bytes(vmcb + SAVE_AREA + range.start as u64, bytes);
            }
        }
        Ok(())
    }

    /// Whether the guest that runs has a global interrupt flag of its own. APM 15.33 "Virtual GIF".
    pub(crate) const fn has_virtual_gif(&self) -> bool {
        self.capabilities.features.virtual_gif() && self.control.virtual_interrupt.v_gif_enable()
    }

    /// STGI: sets the global interrupt flag; what was held is taken at the next boundary. APM 15.17 "Global Interrupt Flag, STGI and CLGI
    /// Instructions".
    pub fn stgi(&mut self, cpu: &mut Cpu) {
        self.gif = true;
        cpu.events_held = false;
    }

    /// CLGI: clears the global interrupt flag; interrupts, NMIs and INIT are held.
    pub fn clgi(&mut self, cpu: &mut Cpu) {
        self.gif = false;
        cpu.events_held = true;
    }

    /// INVLPGA: removes a page from the TLB of an ASID; zero is the host's.
    pub fn invlpga(&mut self, cpu: &mut Cpu, linear: u64, asid: u32) {
        cpu.tlb().flush_linear(linear, asid);
        self.contexts.forget();
        cpu.context_changed();
    }
}

/// Whether the instruction is one of SVM that this processor has.
fn is_offered(cpu: &Cpu, operation: Intercept) -> bool {
    operation == Intercept::Skinit && cpu.has(Feature::Skinit)
        || matches!(
            operation,
            Intercept::Vmrun | Intercept::Vmload | Intercept::Vmsave | Intercept::Stgi | Intercept::Clgi | Intercept::Invlpga
        )
}

/// rAX at the instruction's address size.
fn address(cpu: &Cpu, instruction: &VendorInstruction) -> u64 {
    let rax = cpu.gpr(Gpr::Rax);
    match instruction.address_bits {
        16 => rax & 0xffff,
        32 => rax & 0xffff_ffff,
        _ => rax,
    }
}
