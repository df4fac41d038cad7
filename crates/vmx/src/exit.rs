//! VM exit: what happened, the guest saved, the host loaded.
//!
//! Modelled: SDM chapter 28 "VM Exits": exit reason, qualification, interruption and IDT-vectoring information, instruction length and
//! information, saving of guest state, MSR lists, loading of host state, VMX aborts. Not modelled: SMM VM exits, enclave bits.

use crate::entry::{CR0_KEPT, EntryOutcome};
use crate::exit_information::Information;
use crate::segments::save_all;
use crate::silicon::{Operation, Vmx};
use crate::vmcs::ABORT_INDICATOR;
use cpu::extension::{AfterExit, Interception};
use cpu::state::{Activity, Cpu, Shadow, TscScale};
use cpu::trap::Exit;
use isa::control::{Cr0, Cr4};
use isa::debug::Dr7;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use isa::vmx::{ActivityState, ExitReason, ExitReasonField, Interruptibility, PendingDebugExceptions, VmcsField};

/// Offset of the virtual task-priority register in the virtual-APIC page. SDM 30.1.1 "Virtualized APIC Registers".
pub(crate) const VIRTUAL_TPR: u64 = 0x80;

/// Why a VM exit could not be completed, as the VMX-abort indicator holds it. SDM 28.7 "VMX Aborts".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Abort {
    /// Saving guest MSRs failed.
    SavingMsrs = 1,
    /// Host PDPTEs are not valid.
    HostPdptes = 2,
    /// Loading host MSRs failed.
    LoadingMsrs = 4,
    /// The guest has entered IA-32e mode, and "host address-space size" is 0.
    HostAddressSpaceSize = 6,
}

impl Vmx {
    /// Makes a VM exit of an event of the guest.
    pub(crate) fn vm_exit(&mut self, cpu: &mut Cpu, exit: Exit) -> AfterExit {
        self.exits += 1;
        self.contexts.leave_guest(cpu, self.ept);
        let exit = match exit {
            Exit::ExternalInterrupt { vector: None } if self.current.fields().exit().acknowledge_interrupt_on_exit() => {
                Exit::ExternalInterrupt { vector: Some(cpu.acknowledge_interrupt()) }
            }
            other => other,
        };
        let information = Information::of(cpu, &exit, &self.capabilities, self.current.fields());
        self.record(ExitReasonField::exit(information.reason), &information);
        // SDM 28.2.1: each VM exit clears the valid bit of the VM-entry interruption-information field.
        let event = self.current.fields().entry_event();
        self.current.set(VmcsField::EntryInterruptionInformation, event.with_valid(false).into_bits().into());
        self.save_guest(cpu, &information);
        self.save_virtual_tpr(cpu);
        // What is stored of the time-stamp counter is the processor's own, not the guest's view of it.
        cpu.guest_tsc = TscScale::IDENTITY;
        if self.store_msrs(cpu).is_err() {
            return self.abort(cpu, Abort::SavingMsrs);
        }
        // SDM 28.5.6 "Updating Non-Register State": an NMI that exits blocks NMIs, other exits leave their blocking alone. With "virtual
        // NMIs" what blocked the guest was none of the processor's.
        let blocked = cpu.nmi_blocked && !self.current.fields().pin_based().virtual_nmis();
        self.return_to_host(cpu, blocked || matches!(exit, Exit::Nmi))
    }

    /// Ends a VM entry that failed after its checks of controls and host state. SDM 27.8 "VM-Entry Failures During or After Loading
    /// Guest State": no guest state is saved, and only reason and qualification are written.
    pub(crate) fn entry_failure(&mut self, cpu: &mut Cpu, reason: ExitReason, qualification: u64) -> EntryOutcome {
        self.current.set(VmcsField::ExitReason, ExitReasonField::failed_entry(reason).into_bits().into());
        self.current.set(VmcsField::ExitQualification, qualification);
        self.host_features = cpu.features;
        let nmi_blocked = cpu.nmi_blocked;
        EntryOutcome::Exited(self.return_to_host(cpu, nmi_blocked))
    }

    fn record(&mut self, reason: ExitReasonField, information: &Information) {
        let vmcs = &mut self.current;
        vmcs.set(VmcsField::ExitReason, reason.into_bits().into());
        vmcs.set(VmcsField::ExitQualification, information.qualification);
        vmcs.set(VmcsField::ExitInterruptionInformation, information.interruption.into_bits().into());
        vmcs.set(VmcsField::ExitInterruptionErrorCode, information.error_code.into());
        vmcs.set(VmcsField::IdtVectoringInformation, information.idt_vectoring.into_bits().into());
        vmcs.set(VmcsField::IdtVectoringErrorCode, information.idt_vectoring_error_code.into());
        vmcs.set(VmcsField::ExitInstructionLength, information.instruction_length.into());
        vmcs.set(VmcsField::ExitInstructionInformation, information.instruction.into_bits().into());
        if let Some(linear) = information.guest_linear {
            vmcs.set(VmcsField::GuestLinearAddress, linear);
        }
        if let Some(physical) = information.guest_physical {
            vmcs.set(VmcsField::GuestPhysicalAddress, physical);
        }
    }

    /// Writes the virtual task-priority register back to the virtual-APIC page.
    fn save_virtual_tpr(&self, cpu: &mut Cpu) {
        if let Some(tpr) = cpu.virtual_tpr.take() {
            cpu.write_physical(self.current.get(VmcsField::VirtualApicAddress) + VIRTUAL_TPR, 1, tpr.into());
        }
    }

    /// Saves the guest-state area. SDM 28.3 "Saving Guest State".
    fn save_guest(&mut self, cpu: &mut Cpu, information: &Information) {
        let exit = self.current.fields().exit();
        let timer = exit.save_vmx_preemption_timer_value().then(|| match information.reason {
            ExitReason::PreemptionTimerExpired => 0,
            _ => self.preemption_count(cpu),
        });
        let ept = self.current.fields().secondary().enable_ept();
        let store_lma = self.capabilities.misc.store_efer_lma();
        let vmcs = &mut self.current;
        vmcs.set(VmcsField::GuestCr0, cpu.cr0.into_bits());
        vmcs.set(VmcsField::GuestCr3, cpu.cr3);
        vmcs.set(VmcsField::GuestCr4, cpu.cr4.into_bits());
        vmcs.set(VmcsField::GuestSysenterCs, cpu.msrs.sysenter_cs);
        vmcs.set(VmcsField::GuestSysenterEsp, cpu.msrs.sysenter_esp);
        vmcs.set(VmcsField::GuestSysenterEip, cpu.msrs.sysenter_eip);
        if exit.save_debug_controls() {
            vmcs.set(VmcsField::GuestDr7, cpu.dr7.into_bits());
            vmcs.set(VmcsField::GuestDebugctl, cpu.msrs.debugctl);
        }
        if exit.save_ia32_pat() {
            vmcs.set(VmcsField::GuestPat, cpu.msrs.pat);
        }
        if exit.save_ia32_efer() {
            vmcs.set(VmcsField::GuestEfer, cpu.efer.into_bits());
        }
        if store_lma {
            let entry = vmcs.fields().entry().with_ia32e_mode_guest(cpu.efer.lma());
            vmcs.set(VmcsField::EntryControls, entry.into_bits().into());
        }
        save_all(vmcs, cpu);
        vmcs.set(VmcsField::GuestGdtrBase, cpu.gdtr.base);
        vmcs.set(VmcsField::GuestGdtrLimit, cpu.gdtr.limit.into());
        vmcs.set(VmcsField::GuestIdtrBase, cpu.idtr.base);
        vmcs.set(VmcsField::GuestIdtrLimit, cpu.idtr.limit.into());
        vmcs.set(VmcsField::GuestRip, cpu.rip);
        vmcs.set(VmcsField::GuestRsp, cpu.gpr(Gpr::Rsp));
        let rflags = cpu.rflags();
        vmcs.set(VmcsField::GuestRflags, information.resume.apply(rflags).into_bits());

        let activity = match cpu.activity {
            Activity::Active => ActivityState::Active,
            Activity::Halted => ActivityState::Hlt,
            Activity::Shutdown => ActivityState::Shutdown,
            Activity::WaitForSipi => ActivityState::WaitForSipi,
        };
        vmcs.set(VmcsField::GuestActivityState, activity as u64);
        let interruptibility = Interruptibility::new()
            .with_blocking_by_sti(cpu.shadow == Shadow::Sti)
            .with_blocking_by_mov_ss(cpu.shadow == Shadow::MovSs)
            .with_blocking_by_nmi(cpu.nmi_blocked);
        vmcs.set(VmcsField::GuestInterruptibilityState, interruptibility.into_bits().into());
        vmcs.set(VmcsField::GuestPendingDebugExceptions, pending_debug(cpu, rflags, information.reason).into_bits());
        if let Some(count) = timer {
            vmcs.set(VmcsField::VmxPreemptionTimerValue, count);
        }
        // SDM 28.3.4 "Saving Non-Register State": PDPTEs are saved with EPT where the guest uses PAE paging.
        if ept && cpu.cr0.pg() && cpu.cr4.pae() && !cpu.efer.lma() {
            let fields = [VmcsField::GuestPdpte0, VmcsField::GuestPdpte1, VmcsField::GuestPdpte2, VmcsField::GuestPdpte3];
            for (field, value) in fields.into_iter().zip(cpu.pdptes) {
                vmcs.set(field, value);
            }
        }
    }

    /// Loads the host and its MSRs, and gives the processor back to it. SDM 28.5 "Loading Host State".
    fn return_to_host(&mut self, cpu: &mut Cpu, nmi_blocked: bool) -> AfterExit {
        // What is saved of timers and counters is as the exit begins; the time that the exit takes comes behind it.
        cpu.charge(cpu.model.costs.vm_exit.ticks.into());
        self.operation = Operation::Root;
        let vmcs = &self.current;
        let exit = vmcs.fields().exit();
        let vpid = vmcs.fields().secondary().enable_vpid();
        let wide = exit.host_address_space_size();
        if cpu.efer.lma() && !wide {
            return self.abort(cpu, Abort::HostAddressSpaceSize);
        }

        cpu.guest_mode = false;
        cpu.interception = Interception::default();
        cpu.features = self.host_features;
        cpu.guest_tsc = TscScale::IDENTITY;
        cpu.physical_interrupt_flag = None;
        cpu.preemption_deadline = None;
        cpu.apic_access_page = None;
        cpu.apic_write = None;
        cpu.virtual_interrupt_recognized = false;
        cpu.nested_paging = false;
        cpu.address_space = 0;
        cpu.delivering = None;
        cpu.inject = None;
        cpu.pending_debug = 0;
        cpu.activity = Activity::Active;
        cpu.shadow = Shadow::None;
        cpu.nmi_blocked = nmi_blocked;

        cpu.cr0 = Cr0::from_bits(cpu.cr0.into_bits() & CR0_KEPT | vmcs.get(VmcsField::HostCr0) & !CR0_KEPT);
        cpu.cr3 = vmcs.get(VmcsField::HostCr3);
        let cr4 = Cr4::from_bits(vmcs.get(VmcsField::HostCr4));
        cpu.cr4 = if wide { cr4.with_pae(true) } else { cr4.with_pcide(false) };
        cpu.dr7 = Dr7::from_bits(Dr7::RESET);
        cpu.msrs.debugctl = 0;
        cpu.msrs.sysenter_cs = vmcs.get(VmcsField::HostSysenterCs);
        cpu.msrs.sysenter_esp = vmcs.get(VmcsField::HostSysenterEsp);
        cpu.msrs.sysenter_eip = vmcs.get(VmcsField::HostSysenterEip);
        if exit.load_ia32_pat() {
            cpu.msrs.pat = vmcs.get(VmcsField::HostPat);
        }
        if exit.load_ia32_efer() {
            cpu.efer = isa::control::Efer::from_bits(vmcs.get(VmcsField::HostEfer));
        }
        cpu.efer = cpu.efer.with_lma(wide).with_lme(wide);

        let data = |selector: VmcsField, base: u64| {
            let selector = Selector::from_bits(vmcs.get(selector) as u16);
            let unusable = selector.into_bits() == 0;
            SegmentRegister { selector, base, limit: u32::MAX, attributes: HOST_DATA.with_unusable(unusable) }
        };
        cpu.segments[Segment::Cs as usize] = SegmentRegister {
            selector: Selector::from_bits(vmcs.get(VmcsField::HostCsSelector) as u16),
            base: 0,
            limit: u32::MAX,
            attributes: HOST_CODE.with_l(wide).with_db(!wide),
        };
        cpu.segments[Segment::Ss as usize] = data(VmcsField::HostSsSelector, 0);
        cpu.segments[Segment::Ds as usize] = data(VmcsField::HostDsSelector, 0);
        cpu.segments[Segment::Es as usize] = data(VmcsField::HostEsSelector, 0);
        cpu.segments[Segment::Fs as usize] = data(VmcsField::HostFsSelector, vmcs.get(VmcsField::HostFsBase));
        cpu.segments[Segment::Gs as usize] = data(VmcsField::HostGsSelector, vmcs.get(VmcsField::HostGsBase));
        cpu.tr = SegmentRegister {
            selector: Selector::from_bits(vmcs.get(VmcsField::HostTrSelector) as u16),
            base: vmcs.get(VmcsField::HostTrBase),
            limit: 0x67,
            attributes: Attributes::from_bits(0x8b),
        };
        cpu.ldtr = SegmentRegister::null(Selector::new());
        cpu.gdtr = TableRegister { base: vmcs.get(VmcsField::HostGdtrBase), limit: 0xffff };
        cpu.idtr = TableRegister { base: vmcs.get(VmcsField::HostIdtrBase), limit: 0xffff };
        cpu.cpl = 0;
        cpu.rip = vmcs.get(VmcsField::HostRip);
        cpu.set_gpr(Gpr::Rsp, vmcs.get(VmcsField::HostRsp));
        cpu.set_rflags(Rflags::from_bits(2));
        if !vpid {
            self.flush_vpid_0(cpu);
        }
        self.contexts.enter_host(cpu);

        // SDM 28.5.4 "Checking and Loading Host Page-Directory-Pointer-Table Entries".
        if cpu.cr0.pg() && cpu.cr4.pae() && !wide {
            let table = cpu.cr3 & 0xffff_ffe0;
            let pdptes = [0, 8, 16, 24].map(|offset| cpu.read_physical(table + offset, 8));
            let beyond = u64::MAX.checked_shl(u32::from(cpu.model.physical_address_bits)).unwrap_or(0);
            if pdptes.iter().any(|entry| entry & 1 != 0 && entry & (0x1e6 | beyond) != 0) {
                return self.abort(cpu, Abort::HostPdptes);
            }
            cpu.pdptes = pdptes;
        }
        if self.load_msrs(cpu, VmcsField::ExitMsrLoadAddress, VmcsField::ExitMsrLoadCount).is_err() {
            return self.abort(cpu, Abort::LoadingMsrs);
        }
        if cpu.rust_host { AfterExit::RustHost } else { AfterExit::MachineCode }
    }

    /// Writes the VMX-abort indicator and shuts the processor down.
    fn abort(&mut self, cpu: &mut Cpu, why: Abort) -> AfterExit {
        // Whoever exits has a current VMCS, at an address that VMPTRLD took; checkpoints are held to that as well.
        cpu.write_physical(self.current_pointer + ABORT_INDICATOR, 4, why as u64);
        self.operation = Operation::Root;
        cpu.guest_mode = false;
        cpu.interception = Interception::default();
        AfterExit::Shutdown
    }
}

/// What an exit for `reason` saves of pending debug exceptions: nothing, but for exits that come between an instruction and its #DB. SDM
/// 28.3.4 "Saving Non-Register State".
fn pending_debug(cpu: &Cpu, rflags: Rflags, reason: ExitReason) -> PendingDebugExceptions {
    let held_back = cpu.shadow == Shadow::MovSs;
    let comes_between = matches!(
        reason,
        ExitReason::InitSignal
            | ExitReason::IoSmi
            | ExitReason::OtherSmi
            | ExitReason::TprBelowThreshold
            | ExitReason::VirtualizedEoi
            | ExitReason::ApicWrite
            | ExitReason::MonitorTrapFlag
    );
    if !held_back && !comes_between {
        return PendingDebugExceptions::new();
    }
    let breakpoints = (cpu.pending_debug & 0xf) as u8;
    // Where MOV SS blocks, BS says whether the program single-steps: VM entry checks that it does.
    let steps = held_back && rflags.tf() && cpu.msrs.debugctl & cpu::last_branches::BTF == 0;
    PendingDebugExceptions::new()
        .with_breakpoints(breakpoints)
        .with_enabled_breakpoint(breakpoints != 0)
        .with_single_step(cpu.pending_debug >> 14 & 1 != 0 || steps)
}

/// Attributes of CS after a VM exit but for its size: execute/read, accessed, present, granular. SDM 28.5.2.
const HOST_CODE: Attributes = Attributes::from_bits(0x809b);
/// Attributes of the other segment registers after a VM exit: read/write, accessed, present, 32-bit, granular.
const HOST_DATA: Attributes = Attributes::from_bits(0xc093);
