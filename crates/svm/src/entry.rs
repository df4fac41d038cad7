//! VMRUN: saves the host, checks the VMCB, loads the guest.
//!
//! What is modelled: APM vol 2, 15.5 "VMRUN Instruction": the order is save, load controls, check, load guest, set GIF; 15.16 "TLB Control";
//! 15.20 "Event Injection"; 15.21 "Interrupt and Local APIC Support"; 15.25.4 "Nested Paging and VMRUN/#VMEXIT"; 15.30.5 "TSC Ratio MSR".
//!
//! Decisions of ours: EFER.LMA follows from LME and PG whatever the VMCB says. A reserved TLB_CONTROL does nothing. A software interrupt or
//! a breakpoint that is injected returns to NRIP where next RIP is offered, else to RIP. Reserved control bits are ignored.

use cpu::state::{Activity, Cpu, Shadow, TscScale, VirtualInterrupt};
use cpu::trap::{Event, EventKind};
use isa::control::{Cr0, Cr4, Efer};
use isa::debug::{Dr6, Dr7};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::TableRegister;
use isa::svm::{EventInformation, EventType, ExitCode, SvmFeatures, TlbControl};
use zerocopy::IntoBytes;

use crate::check::{self, Check, Limits};
use crate::instructions::canonical;
use crate::npt::NestedRoot;
use crate::{AddressFault, Svm};

/// The segments that VMRUN and #VMEXIT switch, in the order of their numbers and of the save area: ES, CS, SS, DS.
pub(crate) const SWITCHED: [Segment; 4] = [Segment::Es, Segment::Cs, Segment::Ss, Segment::Ds];

/// What became of a VMRUN.
#[derive(Clone, Copy, Debug)]
pub enum Vmrun {
    /// The guest is loaded.
    Entered,
    /// The VMCB breaks this rule: #VMEXIT with VMEXIT_INVALID at once.
    Invalid(&'static Check),
}

impl Svm {
    /// VMRUN by a host in Rust: loads the guest of the VMCB at a physical address. The next run of the processor executes it, until an
    /// intercepted event ends the run.
    ///
    /// # Errors
    /// The address is not that of a page of physical memory.
    pub fn vmrun(&mut self, cpu: &mut Cpu, vmcb: u64) -> Result<Vmrun, AddressFault> {
        self.check_address(cpu, vmcb)?;
        Ok(self.enter(cpu, vmcb))
    }

    /// What the checks compare with. All of it but the host's paging is the processor's, and worked out once.
    fn limits<'a>(limits: &'a mut Option<Limits>, features: SvmFeatures, host_paging: bool, cpu: &Cpu) -> &'a Limits {
        let limits = limits.get_or_insert_with(|| Limits {
            physical_bits: u32::from(cpu.model.physical_address_bits),
            pdpte_reserved: cpu.pdpte_reserved(),
            cr4: cpu.model.supported_cr4().into_bits(),
            efer: cpu.model.supported_efer().into_bits(),
            long_mode: cpu.has(isa::cpuid::Feature::LongMode),
            host_paging,
            features,
        });
        limits.host_paging = host_paging;
        limits
    }

    const fn host_cr0(&self) -> Cr0 {
        Cr0::from_bits(self.host.cr0)
    }

    /// The format of the nested tables: that of the host's own paging.
    fn nested_root(&self, cpu: &Cpu) -> NestedRoot {
        let (cr4, efer) = (Cr4::from_bits(self.host.cr4), Efer::from_bits(self.host.efer));
        let levels = if cpu.rust_host || efer.lma() {
            4
        } else if cr4.pae() {
            3
        } else {
            2
        };
        NestedRoot {
            n_cr3: self.control.n_cr3,
            levels,
            no_execute: cpu.rust_host || efer.nxe(),
            tells_fetches: cpu.rust_host || efer.nxe() || cr4.smep(),
            page_size_extensions: cr4.pse(),
            physical_bits: u32::from(cpu.model.physical_address_bits),
            gigabyte_pages: cpu.has(isa::cpuid::Feature::Page1gb),
            execute_trap: self.capabilities.features.gmet() && self.control.nested_control.gmet_enable(),
        }
    }

    /// Keeps the state that #VMEXIT loads again; `rip` is that of the instruction behind VMRUN.
    pub(crate) fn save_host(&mut self, cpu: &Cpu, rip: u64) {
        let host = &mut self.host;
        for (place, segment) in host.segments.iter_mut().zip(SWITCHED) {
            place.clone_from(cpu.segment(segment));
        }
        host.gdtr = cpu.gdtr;
        host.idtr = cpu.idtr;
        host.efer = cpu.efer.into_bits();
        host.cr0 = cpu.cr0.into_bits();
        host.cr3 = cpu.cr3;
        host.cr4 = cpu.cr4.into_bits();
        host.rflags = cpu.rflags().into_bits();
        host.rip = rip;
        host.rsp = cpu.gpr(Gpr::Rsp);
        host.rax = cpu.gpr(Gpr::Rax);
    }

    /// Reads the VMCB, checks it and loads the guest. On failure EXITCODE is written and nothing loaded.
    pub(crate) fn enter(&mut self, cpu: &mut Cpu, vmcb: u64) -> Vmrun {
        self.vmcb = vmcb;
        self.contexts.leave_host(cpu);
        self.read_vmcb(cpu);
        // Only a #VMEXIT leaves something to keep.
        self.kept = None;
        // A host in Rust counts as one in long mode.
        let host_paging = cpu.rust_host || self.host_cr0().pg();
        let pdptes = self.pdptes(cpu);
        let limits = Self::limits(&mut self.limits, self.capabilities.features, host_paging, cpu);
        let entry = check::Entry { control: &self.control, save: &self.save, pdptes, limits };
        self.last_failure = check::first_failure(&entry);
        if let Some(check) = self.last_failure {
            cpu.charge(cpu.model.costs.vm_entry_failed.ticks());
            self.refuse(cpu);
            return Vmrun::Invalid(check);
        }
        cpu.charge(cpu.model.costs.vm_entry.ticks());
        self.load_controls(cpu);
        self.load_guest(cpu);
        if let Some(entries) = pdptes {
            cpu.pdptes = entries;
        }
        self.load_last_branches(cpu);
        self.load_pause_filter();
        self.contexts.enter_guest(cpu, self.nested);
        self.inject(cpu);
        // APM 15.5.1: "VMRUN sets GIF".
        self.gif = true;
        cpu.events_held = false;
        Vmrun::Entered
    }

    /// Everything of the control area but EVENTINJ.
    fn load_controls(&mut self, cpu: &mut Cpu) {
        let control = &self.control;
        let virtual_interrupt = control.virtual_interrupt;
        let features = self.capabilities.features;

        let asid = control.guest_asid;
        if control.tlb_control != TlbControl::DO_NOTHING {
            self.contexts.forget();
        }
        match control.tlb_control {
            TlbControl::FLUSH_ALL => {
                cpu.tlb().flush_all();
                cpu.charge(cpu.model.costs.tlb_flush.ticks());
            }
            TlbControl::FLUSH_GUEST if features.flush_by_asid() => {
                cpu.tlb().flush_address_space(asid);
                cpu.charge(cpu.model.costs.tlb_flush.ticks());
            }
            TlbControl::FLUSH_GUEST_NON_GLOBAL if features.flush_by_asid() => {
                cpu.tlb().flush_non_global(asid);
                cpu.charge(cpu.model.costs.tlb_flush.ticks());
            }
            _ => {}
        }
        cpu.address_space = asid;

        let mut scale = TscScale { offset: control.tsc_offset, ..TscScale::IDENTITY };
        if features.tsc_rate_msr() {
            // APM vol 2, 15.30.5 "TSC Ratio MSR": 8.32 fixed point.
            scale.ratio = self.tsc_ratio.into_bits() << (TscScale::FRACTION_BITS - 32);
        }
        cpu.guest_tsc = scale;

        cpu.virtual_interrupt = self.presented_interrupt();
        let masking = virtual_interrupt.v_intr_masking();
        // APM 15.21.1: with V_INTR_MASKING the host's IF masks physical interrupts, and CR8 is V_TPR.
        let host_flag = cpu.rust_host || Rflags::from_bits(self.host.rflags).r#if();
        cpu.physical_interrupt_flag = masking.then_some(host_flag);
        cpu.virtual_tpr = masking.then(|| virtual_interrupt.v_tpr() << 4);

        let pending = cpu.virtual_interrupt.is_some();
        cpu.interception = self.translator.translate(&control.intercepts, pending);
        cpu.shadow = if control.interrupt_state.interrupt_shadow() { Shadow::Sti } else { Shadow::None };
        cpu.guest_mode = true;

        self.nested = (features.nested_paging() && control.nested_control.np_enable()).then(|| self.nested_root(cpu));
        cpu.nested_paging = self.nested.is_some();
    }

    /// The virtual interrupt of the control area as the core sees it. APM 15.21.1: it is taken if V_INTR_PRIO is above V_TPR or V_IGN_TPR is
    /// set; APM 15.33: and if the virtual GIF, where there is one, is set.
    pub(crate) fn presented_interrupt(&self) -> Option<VirtualInterrupt> {
        let word = self.control.virtual_interrupt;
        // With V_INTR_MASKING the guest can change V_TPR by writing CR8: the core compares. Without, V_TPR is a constant.
        let ignored = word.v_ign_tpr();
        let passes = ignored || word.v_intr_masking() || word.v_intr_prio() > word.v_tpr() & 0xf;
        word.v_irq().then(|| VirtualInterrupt {
            vector: word.v_intr_vector(),
            allowed: passes && (!self.has_virtual_gif() || word.v_gif()),
            priority: if ignored { 16 } else { word.v_intr_prio() },
        })
    }

    /// The state save area.
    fn load_guest(&mut self, cpu: &mut Cpu) {
        let save = &self.save;
        let cr0 = Cr0::from_bits(save.cr0);
        let efer = Efer::from_bits(save.efer);
        cpu.cr0 = cr0.with_et(true);
        cpu.cr2 = save.cr2;
        cpu.cr3 = save.cr3;
        cpu.cr4 = Cr4::from_bits(save.cr4);
        cpu.efer = efer.with_lma(efer.lme() && cr0.pg());
        cpu.dr6 = Dr6::from_bits(save.dr6);
        cpu.dr7 = Dr7::from_bits(save.dr7);
        if self.nested.is_some() {
            self.host.pat = std::mem::replace(&mut cpu.msrs.pat, save.g_pat);
        }
        for (segment, from) in SWITCHED.iter().zip([&save.es, &save.cs, &save.ss, &save.ds]) {
            let to = &mut cpu.segments[*segment as usize];
            from.load_into(to);
            // The bases of these four have 32 bits; long mode does not use them.
            to.base &= 0xffff_ffff;
        }
        cpu.gdtr = TableRegister { base: canonical(save.gdtr.base), limit: save.gdtr.limit as u16 };
        cpu.idtr = TableRegister { base: canonical(save.idtr.base), limit: save.idtr.limit as u16 };
        let rflags = Rflags::from_bits(save.rflags);
        // Table B-2, CPL: "If the guest is real-mode then the CPL is forced to 0; if the guest is virtual-mode then the CPL is forced to 3".
        cpu.cpl = if !cr0.pe() {
            0
        } else if rflags.vm() {
            3
        } else {
            save.cpl & 3
        };
        cpu.set_rflags(rflags);
        cpu.rip = save.rip;
        cpu.set_gpr(Gpr::Rsp, save.rsp);
        cpu.set_gpr(Gpr::Rax, save.rax);
        cpu.pending_debug = 0;
        cpu.activity = Activity::Active;
    }

    /// The page-directory-pointer entries that the guest of the VMCB will hold in registers: those of legacy PAE mode. With nested paging
    /// each walk reads them instead, APM 15.25.10 "Legacy PAE Mode".
    fn pdptes(&self, cpu: &Cpu) -> Option<[u64; 4]> {
        let (cr0, cr4, efer) = (Cr0::from_bits(self.save.cr0), Cr4::from_bits(self.save.cr4), Efer::from_bits(self.save.efer));
        let nested = self.capabilities.features.nested_paging() && self.control.nested_control.np_enable();
        (cr0.pg() && cr4.pae() && !efer.lme() && !nested).then(|| read_pdptes(cpu, self.save.cr3))
    }

    /// APM 15.20 "Event Injection".
    fn inject(&mut self, cpu: &mut Cpu) {
        let information = self.control.event_injection;
        cpu.inject = None;
        if !information.valid() {
            return;
        }
        cpu.charge(cpu.model.costs.event_injection.ticks());
        let vector = information.vector();
        let (kind, vector) = match information.event_type() {
            EventType::Nmi => (EventKind::Nmi, 2),
            EventType::Exception if matches!(vector, 3 | 4) => (EventKind::SoftwareException, vector),
            EventType::Exception => (EventKind::Exception, vector),
            EventType::SoftwareInterrupt => (EventKind::SoftwareInterrupt, vector),
            EventType::Interrupt | EventType::Reserved => (EventKind::External, vector),
        };
        let mut length = 0;
        if self.capabilities.features.next_rip_save() && matches!(kind, EventKind::SoftwareException | EventKind::SoftwareInterrupt) {
            let behind = self.control.next_rip.wrapping_sub(cpu.rip);
            match u8::try_from(behind) {
                // As a length, so that RIP is still the instruction's if the delivery exits.
                Ok(bytes @ 0..=15) => length = bytes,
                _ => cpu.rip = self.control.next_rip,
            }
        }
        let error_code = information.error_code_valid().then(|| information.error_code());
        cpu.inject = Some(Event { kind, vector, error_code, length });
    }

    /// VMEXIT_INVALID: the exit code is written, GIF cleared; no guest state was loaded, so none is saved.
    fn refuse(&mut self, cpu: &mut Cpu) {
        self.exits += 1;
        let words = [ExitCode::INVALID.0, 0, 0, EventInformation::new().into_bits()];
        cpu.write_physical_bytes(self.vmcb + 0x070, words.as_bytes());
        self.gif = false;
        cpu.events_held = true;
    }
}

/// The four entries of the table that a value of CR3 points to in PAE mode.
pub(crate) fn read_pdptes(cpu: &Cpu, cr3: u64) -> [u64; 4] {
    [0, 8, 16, 24].map(|offset| cpu.read_physical((cr3 & 0xffff_ffe0) + offset, 8))
}
