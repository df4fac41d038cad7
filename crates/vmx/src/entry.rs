//! VM entry: the checks in their order, loading of the guest, and the event to inject.
//!
//! Modelled: SDM chapter 27 "VM Entries": basic checks, checks of controls and host state, checks and loading of guest state, MSR loading,
//! event injection, the VMX-preemption timer, interrupt and NMI windows by what the core intercepts. A check that held is not repeated
//! while nothing it reads has changed ([`crate::vmcs::Vmcs::unchecked`]); that is memory of a pure function and changes no result.
//! Not modelled: entry to SMM.

use crate::address_space::AddressSpaces;
use crate::checks::{Entry, Facts, MsrLoad, Phase, PhaseOutcome, guest::pdpte::pae_paging};
use crate::exit::VIRTUAL_TPR;
use crate::intercept::{Intercepts, PauseLoop};
use crate::segments::load_all;
use crate::silicon::{NO_VMCS, Operation, Refused, VmFail, Vmx};
use crate::vmcs::LaunchState;
use cpu::extension::AfterExit;
use cpu::state::{Activity, Cpu, Shadow, TscScale};
use cpu::trap::{Event, EventKind, Exit};
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::debug::Dr7;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::TableRegister;
use isa::vmx::{
    ActivityState, EptPointer, ExitReason, Interruptibility, InterruptionInformation, InterruptionType, PendingDebugExceptions,
    VmInstructionError, VmcsField,
};
use timing::TICKS_PER_CYCLE;

/// What came of a VM entry that did not fail as an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryOutcome {
    /// The guest runs.
    Entered,
    /// There was a VM exit at once: the entry failed because of guest state or MSRs, or a pending MTF VM exit was injected.
    Exited(AfterExit),
}

/// Bits of CR0 that VM entry and VM exit leave as they are: ET, NW, CD and all that are reserved. SDM 27.3.2.1, 28.5.1.
pub(crate) const CR0_KEPT: u64 = !Cr0::DEFINED | 0x6000_0010;

impl Vmx {
    /// VMLAUNCH.
    ///
    /// # Errors
    /// [`VmFail`] as the instruction reports it.
    pub fn vmlaunch(&mut self, cpu: &mut Cpu) -> Result<EntryOutcome, VmFail> {
        self.enter(cpu, LaunchState::Clear)
    }

    /// VMRESUME.
    ///
    /// # Errors
    /// [`VmFail`] as the instruction reports it.
    pub fn vmresume(&mut self, cpu: &mut Cpu) -> Result<EntryOutcome, VmFail> {
        self.enter(cpu, LaunchState::Launched)
    }

    fn enter(&mut self, cpu: &mut Cpu, wanted: LaunchState) -> Result<EntryOutcome, VmFail> {
        if let Err(fail) = self.check_instruction(cpu, wanted) {
            cpu.charge(cpu.model.costs.vm_entry_failed.ticks.into());
            return Err(fail);
        }
        let facts = self.facts(cpu);
        if let Some(outcome) = self.check(&facts) {
            self.refuse(facts, MsrLoad::default());
            return match outcome {
                PhaseOutcome::FailValid(error) => {
                    cpu.charge(cpu.model.costs.vm_entry_failed.ticks.into());
                    Err(self.fail(error))
                }
                PhaseOutcome::MsrLoading => Ok(self.entry_failure(cpu, ExitReason::EntryFailureMsrLoading, 0)),
                PhaseOutcome::InvalidGuestState(qualification) => {
                    self.contexts.leave_host(cpu);
                    cpu.charge(cpu.model.costs.vm_entry.ticks.into());
                    Ok(self.entry_failure(cpu, ExitReason::EntryFailureInvalidGuestState, qualification as u64))
                }
            };
        }
        self.refused = None;
        let begun = cpu.now();
        cpu.charge(cpu.model.costs.vm_entry.ticks.into());
        self.contexts.leave_host(cpu);
        self.load_guest(cpu, &facts);
        if let Err(bad) = self.load_msrs(cpu, VmcsField::EntryMsrLoadAddress, VmcsField::EntryMsrLoadCount) {
            self.refuse(facts, bad);
            return Ok(self.entry_failure(cpu, ExitReason::EntryFailureMsrLoading, bad.number.into()));
        }
        self.current.launch_state = LaunchState::Launched;
        Ok(self.start_guest(cpu, &facts, begun))
    }

    /// Keeps what a VM entry was refused with.
    fn refuse(&mut self, facts: Facts, msr_load: MsrLoad) {
        self.refused = Some(Box::new(Refused { fields: self.current.fields().clone(), facts, msr_load }));
    }

    /// The checks before those of the VMCS's contents. SDM 27.1 "Basic VM-Entry Checks".
    fn check_instruction(&mut self, cpu: &Cpu, wanted: LaunchState) -> Result<(), VmFail> {
        if self.current_pointer == NO_VMCS || self.current_is_shadow {
            return Err(VmFail::Invalid);
        }
        if cpu.shadow == Shadow::MovSs {
            return Err(self.fail(VmInstructionError::EntryEventsBlockedByMovSs));
        }
        if self.current.launch_state != wanted {
            return Err(self.fail(match wanted {
                LaunchState::Clear => VmInstructionError::VmlaunchNonClearVmcs,
                LaunchState::Launched => VmInstructionError::VmresumeNonLaunchedVmcs,
            }));
        }
        Ok(())
    }

    /// What the checks need to know that the VMCS does not hold.
    pub fn facts(&self, cpu: &mut Cpu) -> Facts {
        let fields = self.current.fields();
        let mut facts = Facts {
            physical_address_width: cpu.model.physical_address_bits,
            host_long_mode: cpu.efer.lma(),
            efer_reserved: self.efer_reserved,
            debugctl_reserved: !cpu.model.last_branches.debugctl,
            // There are no performance counters; nor is there a control that would load the register.
            perf_global_ctrl_reserved: u64::MAX,
            current_vmcs: self.current_pointer,
            ..Facts::default()
        };
        let link = fields.get(VmcsField::VmcsLinkPointer);
        if link != u64::MAX {
            facts.linked_revision = cpu.read_physical(link & !0xfff, 4) as u32;
        }
        if fields.primary().use_tpr_shadow() {
            facts.virtual_tpr = cpu.read_physical(fields.get(VmcsField::VirtualApicAddress) + VIRTUAL_TPR, 1) as u8;
        }
        let view = Entry { fields, capabilities: &self.capabilities, facts, msr_load: MsrLoad::default() };
        if pae_paging(&view) && !fields.secondary().enable_ept() {
            // SDM 4.4.1 "PDPTE Registers": 32-byte aligned at CR3.
            let table = fields.get(VmcsField::GuestCr3) & 0xffff_ffe0;
            facts.pdptes = [0, 8, 16, 24].map(|offset| cpu.read_physical(table + offset, 8));
        }
        facts
    }

    /// Makes the checks that have to be made; the outcome of the first rule that is broken.
    fn check(&mut self, facts: &Facts) -> Option<PhaseOutcome> {
        let unchecked = self.current.unchecked(facts);
        if unchecked.is_empty() {
            return None;
        }
        for &phase in Phase::ALL.iter().filter(|&&phase| unchecked.contains(phase)) {
            let view =
                Entry { fields: self.current.fields(), capabilities: &self.capabilities, facts: *facts, msr_load: MsrLoad::default() };
            if phase.first_failure(&view).is_some() {
                return Some(phase.outcome());
            }
            self.current.set_checked(phase);
        }
        None
    }

    /// Loads the guest-state area. SDM 27.3.2 "Loading Guest State".
    fn load_guest(&mut self, cpu: &mut Cpu, facts: &Facts) {
        let vmcs = &self.current;
        let (entry, secondary) = (vmcs.fields().entry(), vmcs.fields().secondary());
        cpu.cr0 = Cr0::from_bits(cpu.cr0.into_bits() & CR0_KEPT | vmcs.get(VmcsField::GuestCr0) & !CR0_KEPT);
        cpu.cr3 = vmcs.get(VmcsField::GuestCr3);
        cpu.cr4 = Cr4::from_bits(vmcs.get(VmcsField::GuestCr4));
        if entry.load_debug_controls() {
            cpu.dr7 = Dr7::from_bits(vmcs.get(VmcsField::GuestDr7) & 0xffff_2fff | 0x400);
            cpu.msrs.debugctl = vmcs.get(VmcsField::GuestDebugctl);
        }
        cpu.msrs.sysenter_cs = vmcs.get(VmcsField::GuestSysenterCs);
        cpu.msrs.sysenter_esp = vmcs.get(VmcsField::GuestSysenterEsp);
        cpu.msrs.sysenter_eip = vmcs.get(VmcsField::GuestSysenterEip);
        if entry.load_ia32_pat() {
            cpu.msrs.pat = vmcs.get(VmcsField::GuestPat);
        }
        let long = entry.ia32e_mode_guest();
        cpu.efer = if entry.load_ia32_efer() {
            Efer::from_bits(vmcs.get(VmcsField::GuestEfer))
        } else if cpu.cr0.pg() {
            cpu.efer.with_lma(long).with_lme(long)
        } else {
            cpu.efer.with_lma(long)
        };
        load_all(vmcs, cpu);
        cpu.gdtr = TableRegister { base: vmcs.get(VmcsField::GuestGdtrBase), limit: vmcs.get(VmcsField::GuestGdtrLimit) as u16 };
        cpu.idtr = TableRegister { base: vmcs.get(VmcsField::GuestIdtrBase), limit: vmcs.get(VmcsField::GuestIdtrLimit) as u16 };
        cpu.rip = vmcs.get(VmcsField::GuestRip);
        cpu.set_gpr(Gpr::Rsp, vmcs.get(VmcsField::GuestRsp));
        cpu.set_rflags(Rflags::from_bits(vmcs.get(VmcsField::GuestRflags)));
        cpu.cpl = cpu.segment(Segment::Ss).attributes.dpl();
        let view = Entry { fields: vmcs.fields(), capabilities: &self.capabilities, facts: *facts, msr_load: MsrLoad::default() };
        if pae_paging(&view) {
            let fields = [VmcsField::GuestPdpte0, VmcsField::GuestPdpte1, VmcsField::GuestPdpte2, VmcsField::GuestPdpte3];
            cpu.pdptes = if secondary.enable_ept() { fields.map(|field| vmcs.get(field)) } else { facts.pdptes };
        }
        let interruptibility = Interruptibility::from_bits(vmcs.get(VmcsField::GuestInterruptibilityState) as u32);
        cpu.shadow = match (interruptibility.blocking_by_sti(), interruptibility.blocking_by_mov_ss()) {
            (false, false) => Shadow::None,
            (true, _) => Shadow::Sti,
            (false, true) => Shadow::MovSs,
        };
        cpu.nmi_blocked = interruptibility.blocking_by_nmi();
        cpu.activity = match ActivityState::from_number(vmcs.get(VmcsField::GuestActivityState)) {
            Some(ActivityState::Hlt) => Activity::Halted,
            Some(ActivityState::Shutdown) => Activity::Shutdown,
            Some(ActivityState::WaitForSipi) => Activity::WaitForSipi,
            Some(ActivityState::Active) | None => Activity::Active,
        };
        let pending = PendingDebugExceptions::from_bits(vmcs.get(VmcsField::GuestPendingDebugExceptions));
        let breakpoints = if pending.enabled_breakpoint() { u64::from(pending.breakpoints()) } else { 0 };
        cpu.pending_debug = breakpoints | u64::from(pending.single_step()) << 14;
    }

    /// Puts the VM-execution controls in force and injects the event. SDM 27.6 "Event Injection", 27.7 "Special Features of VM Entry".
    fn start_guest(&mut self, cpu: &mut Cpu, facts: &Facts, begun: u64) -> EntryOutcome {
        self.operation = Operation::NonRoot;
        self.pauses = PauseLoop::default();
        cpu.guest_mode = true;
        if self.current.take_controls_changed() || self.intercepts.owner != self.current_pointer {
            self.intercepts = Intercepts::of(self.current_pointer, self.current.fields());
        }
        cpu.interception.clone_from(&self.intercepts.interception);
        let fields = self.current.fields();
        let (pin, primary, secondary) = (fields.pin_based(), fields.primary(), fields.secondary());
        self.host_features = cpu.features;
        for (enabled, feature) in [
            (secondary.enable_rdtscp(), Feature::Rdtscp),
            (secondary.enable_invpcid(), Feature::Invpcid),
            (secondary.enable_xsaves_xrstors(), Feature::Xsaves),
        ] {
            if !enabled {
                cpu.features &= !feature.bit();
            }
        }
        cpu.guest_tsc = TscScale::IDENTITY;
        if primary.use_tsc_offsetting() {
            cpu.guest_tsc.offset = fields.get(VmcsField::TscOffset);
            if secondary.use_tsc_scaling() {
                cpu.guest_tsc.ratio = fields.get(VmcsField::TscMultiplier);
            }
        }
        // SDM 26.2 "Other Causes of VM Exits": interrupts that exit do so whatever the guest's RFLAGS.IF says.
        cpu.physical_interrupt_flag = pin.external_interrupt_exiting().then_some(true);
        // SDM 30.3 "Virtualizing CR8-Based TPR Accesses": CR8 is bits 7:4 of the virtual task-priority register, at offset 80H.
        cpu.virtual_tpr = primary.use_tpr_shadow().then_some(facts.virtual_tpr);
        self.enter_virtual_apic(cpu);
        let fields = self.current.fields();
        let timer = pin.activate_vmx_preemption_timer();
        let count = fields.get(VmcsField::VmxPreemptionTimerValue);
        cpu.preemption_deadline = timer.then(|| self.preemption_deadline(cpu, count, begun));
        self.enter_address_space(cpu);
        self.contexts.enter_guest(cpu, self.ept);

        let event = self.current.fields().entry_event();
        if !event.valid() {
            return EntryOutcome::Entered;
        }
        cpu.charge(cpu.model.costs.event_injection.ticks.into());
        let Some(kind) = event_kind(event) else {
            // A pending MTF VM exit: it comes before the guest's first instruction.
            return EntryOutcome::Exited(self.vm_exit(cpu, Exit::MonitorTrap));
        };
        let code = event.error_code_valid().then(|| self.current.get(VmcsField::EntryExceptionErrorCode) as u32);
        let length = if event.interruption_type().is_software() { self.current.get(VmcsField::EntryInstructionLength) as u8 } else { 0 };
        cpu.inject = Some(Event { kind, vector: event.vector(), error_code: code, length });
        // SDM 27.6.2 "Injection of Pending MTF VM Exits" and 27.7.2 "Activity State": an injected event wakes the guest.
        cpu.activity = Activity::Active;
        EntryOutcome::Entered
    }

    /// Time in ticks at which a preemption timer of this count expires. SDM 26.5.1 "VMX-Preemption Timer". It counts from the moment at which the
    /// entry begins to load the guest: 27.7.4 leaves open when in an entry the counting begins, and on processors an entry takes some of it.
    fn preemption_deadline(&self, cpu: &Cpu, count: u64, begun: u64) -> u64 {
        let rate = u32::from(self.capabilities.misc.preemption_timer_rate());
        let started = cpu.tsc.apply(begun / TICKS_PER_CYCLE);
        let end = (started >> rate).wrapping_add(count) << rate;
        let cycles = if count == 0 { 0 } else { end.wrapping_sub(started) };
        begun.saturating_add(cycles.saturating_mul(TICKS_PER_CYCLE)).max(cpu.now())
    }

    /// What the timer would count now, to be saved at VM exit.
    pub(crate) fn preemption_count(&self, cpu: &Cpu) -> u64 {
        let rate = u32::from(self.capabilities.misc.preemption_timer_rate());
        let left = cpu.preemption_deadline.unwrap_or(0).saturating_sub(cpu.now()) / TICKS_PER_CYCLE;
        let now = cpu.tsc.apply(cpu.cycles());
        (now.wrapping_add(left) >> rate).wrapping_sub(now >> rate)
    }

    /// Selects translations of the guest: VPID and EPT. SDM 29.4.3.1 "Operations that Invalidate Cached Mappings".
    pub(crate) fn enter_address_space(&mut self, cpu: &mut Cpu) {
        let fields = self.current.fields();
        let secondary = fields.secondary();
        self.ept = EptPointer::from_bits(fields.get(VmcsField::EptPointer));
        cpu.nested_paging = secondary.enable_ept();
        let root = secondary.enable_ept().then(|| self.ept.table());
        let vpid = if secondary.enable_vpid() { fields.get(VmcsField::VirtualProcessorIdentifier) as u16 } else { 0 };
        if self.address_spaces.is_full() {
            self.address_spaces = AddressSpaces::default();
            cpu.tlb().flush_all();
            self.contexts.forget();
        }
        cpu.address_space = self.address_spaces.number(vpid, root);
        if vpid == 0 {
            self.flush_vpid_0(cpu);
        }
    }
}

impl Vmx {
    /// Removes what is cached for VPID 0, as VM entries and VM exits without "enable VPID" do.
    pub(crate) fn flush_vpid_0(&mut self, cpu: &mut Cpu) {
        self.address_spaces.flush_vpid_0(cpu.tlb());
        self.contexts.flushed();
    }
}

/// The core's word for the kind of an injected event; `None` for a pending MTF VM exit.
fn event_kind(event: InterruptionInformation) -> Option<EventKind> {
    match event.interruption_type() {
        InterruptionType::ExternalInterrupt => Some(EventKind::External),
        InterruptionType::Nmi => Some(EventKind::Nmi),
        InterruptionType::HardwareException => Some(EventKind::Exception),
        InterruptionType::SoftwareInterrupt => Some(EventKind::SoftwareInterrupt),
        InterruptionType::PrivilegedSoftwareException => Some(EventKind::PrivilegedSoftware),
        InterruptionType::SoftwareException => Some(EventKind::SoftwareException),
        InterruptionType::OtherEvent | InterruptionType::Reserved => None,
    }
}
