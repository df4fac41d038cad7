//! A processor's state as a record: what a checkpoint keeps of it, in groups with the names that KVM gives them.
//!
//! What is modelled: nothing of the architecture. The record holds all that decides what instructions do and what they cost; the caches of the
//! host are left out and begin empty (see the fields of [`Cpu`], where the line is drawn). A record may come from anywhere: what no processor
//! can be in is refused, and everything else is a state like any other.

use crate::apic::LocalApic;
use crate::delivery::log::Delivery;
use crate::extension::Interception;
use crate::last_branches::LastBranches;
use crate::state::{Activity, Cpu, FpuState, Msrs, Shadow, TscScale, VirtualInterrupt};
use crate::tlb::TlbRecord;
use crate::trap::{Event, Trap};
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::debug::{Dr6, Dr7};
use isa::rflags::Rflags;
use isa::segment::{SegmentRegister, TableRegister};
use serde::{Deserialize, Serialize};

/// General-purpose registers, RIP and RFLAGS: `struct kvm_regs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is the register it names")]
pub struct Regs {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Segment, table and control registers: `struct kvm_sregs2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is the register it names")]
pub struct Sregs {
    pub es: SegmentRegister,
    pub cs: SegmentRegister,
    pub ss: SegmentRegister,
    pub ds: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub tr: SegmentRegister,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: Cr0,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: Cr4,
    pub efer: Efer,
    /// The page-directory-pointer-table entries of PAE paging.
    pub pdptrs: [u64; 4],
    pub cpl: u8,
}

/// Debug registers: `struct kvm_debugregs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is the register it names")]
pub struct DebugRegs {
    pub db: [u64; 4],
    pub dr6: Dr6,
    pub dr7: Dr7,
}

/// Extended control registers: `struct kvm_xcrs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "it is the register it names")]
pub struct Xcrs {
    pub xcr0: u64,
}

/// x87, SSE and protection-key state: `struct kvm_xsave`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xsave {
    /// x87 state.
    pub fpu: FpuState,
    /// XMM0 to XMM15, low half first.
    pub xmm: [[u64; 2]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// PKRU.
    pub pkru: u32,
}

/// Model-specific registers: `struct kvm_msrs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrsRecord {
    /// Plain ones.
    pub plain: Msrs,
    /// Last-branch records.
    pub last_branches: LastBranches,
    /// The time-stamp counter as a function of time.
    pub tsc: TscScale,
}

/// What waits, what blocks it and what is on its way: `struct kvm_vcpu_events`, and `struct kvm_mp_state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuEvents {
    /// What the processor is doing.
    pub activity: Activity,
    /// Blocking by STI or MOV SS.
    pub shadow: Shadow,
    /// The instruction before set it.
    pub shadow_set: bool,
    /// Blocking by NMI.
    pub nmi_blocked: bool,
    /// An IRET ended blocking by NMI and has not completed.
    pub iret_unblocked_nmi: bool,
    /// NMIs wait.
    pub nmi_pending: bool,
    /// A system-management interrupt waits.
    pub smi_pending: bool,
    /// An INIT signal waits.
    pub init_pending: bool,
    /// A start-up message waits.
    pub sipi_pending: Option<u8>,
    /// The FERR# pin as it was last driven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub numeric_error: bool,
    /// The IGNNE# pin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_numeric_error: bool,
    /// DR6 bits of debug exceptions that wait.
    pub pending_debug: u64,
    /// No single-step trap follows the instruction before.
    pub trace_cancelled: bool,
    /// Something was completed under the monitor trap flag.
    pub monitor_pending: bool,
    /// A repeated instruction has iterations left.
    pub again: bool,
    /// An instruction is executed by itself.
    pub stepping: bool,
    /// What a task switch raised in the new task.
    pub task_fault: Option<Trap>,
    /// The event that is delivered.
    pub delivering: Option<Event>,
    /// The event that VM entry injects.
    pub inject: Option<Event>,
    /// Deliveries that nobody has taken yet, if they are logged.
    pub deliveries: Option<Vec<Delivery>>,
    /// Their log is full.
    pub deliveries_full: bool,
}

/// What the silicon has told the core of the guest that runs, or of there being none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestRecord {
    /// A guest runs.
    pub guest_mode: bool,
    /// VM exits end the run for a host in Rust.
    pub rust_host: bool,
    /// What is intercepted.
    pub interception: Interception,
    /// Guest-physical addresses are translated.
    pub nested_paging: bool,
    /// Tag of TLB entries.
    pub address_space: u32,
    /// The silicon holds all events.
    pub events_held: bool,
    /// What says whether physical interrupts are recognised.
    pub physical_interrupt_flag: Option<bool>,
    /// A virtual interrupt.
    pub virtual_interrupt: Option<VirtualInterrupt>,
    /// Where CR8 goes.
    pub virtual_tpr: Option<u8>,
    /// The APIC-access page.
    pub apic_access_page: Option<u64>,
    /// The register of the virtual APIC that was written.
    pub apic_write: Option<u16>,
    /// The silicon has an interrupt for the guest.
    pub virtual_interrupt_recognized: bool,
    /// When the preemption timer exits, in ticks.
    pub preemption_deadline: Option<u64>,
    /// The guest's view of the time-stamp counter.
    pub tsc: TscScale,
    /// Features in force, one bit each.
    pub features: u128,
}

/// Time and what counts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The time in ticks.
    pub now: u64,
    /// Instructions begun.
    pub instructions: u64,
    /// State of the generator behind RDRAND and RDSEED.
    pub random: u64,
    /// Ticks that went by while it did not execute instructions.
    #[serde(default, skip_serializing_if = "super::plain::is_zero")]
    pub idle: u64,
}

/// A processor's state, but for its silicon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each type says what it is")]
pub struct CpuRecord {
    pub regs: Regs,
    pub sregs: Sregs,
    pub debugregs: DebugRegs,
    pub xcrs: Xcrs,
    pub xsave: Xsave,
    pub msrs: MsrsRecord,
    pub vcpu_events: VcpuEvents,
    pub lapic: LocalApic,
    pub guest: GuestRecord,
    pub progress: Progress,
    pub tlb: TlbRecord,
}

/// A record of a state that no processor can be in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: no processor of this model can be in this state; the record is damaged or was made by hand")]
pub struct Impossible(pub String);

/// Refuses what does not hold.
fn want(holds: bool, what: &str) -> Result<(), Impossible> {
    if holds { Ok(()) } else { Err(Impossible(what.to_owned())) }
}

impl Cpu {
    /// The state; only between runs.
    pub fn record(&self) -> CpuRecord {
        // A new field of `Cpu` has to be placed here: in the record, or among the caches.
        let Self {
            regs,
            rip,
            flag_result: _,
            flag_aux: _,
            system_flags: _,
            budget: _,
            slice_end: _,
            idle,
            retired,
            xmm,
            mxcsr,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            xcr0,
            pkru,
            dr,
            dr6,
            dr7,
            pdptes,
            cpl,
            msrs,
            last_branches,
            fpu,
            apic,
            activity,
            shadow,
            shadow_set,
            trace_cancelled,
            monitor_pending,
            again,
            stepping,
            nmi_blocked,
            iret_unblocked_nmi,
            nmi_pending,
            smi_pending,
            init_pending,
            sipi_pending,
            numeric_error,
            ignore_numeric_error,
            pending_debug,
            task_fault,
            delivering,
            inject,
            deliveries_full,
            deliveries,
            guest_mode,
            rust_host,
            interception,
            nested_paging,
            address_space,
            events_held,
            physical_interrupt_flag,
            virtual_interrupt,
            virtual_tpr,
            apic_access_page,
            apic_write,
            virtual_interrupt_recognized,
            preemption_deadline,
            random,
            tsc,
            guest_tsc,
            features,
            tlb,
            // What it is made of, which whoever makes it anew knows.
            model: _,
            vendor: _,
            walks_pdptes: _,
            number: _,
            cpu_count: _,
            extension: _,
            // Of the run in progress.
            stop: _,
            leave: _,
            link: _,
            next: _,
            stopped_at: _,
            trap: _,
            environment: _,
            walked: _,
            // Caches of the host.
            context: _,
            code_mode: _,
            handover: _,
            software_tlb: _,
            freedoms: _,
            view: _,
            views: _,
            jumps: _,
            fetch_page: _,
            contexts: _,
            known_gates: _,
            known_segments: _,
            known_walks: _,
            memory_generation: _,
            code_generation: _,
        } = self;
        let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, _] = *regs;
        let [es, cs, ss, ds, fs, gs] = *segments;
        let (rip, rflags) = (*rip, self.rflags().into_bits());
        CpuRecord {
            regs: Regs { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags },
            sregs: Sregs {
                es,
                cs,
                ss,
                ds,
                fs,
                gs,
                ldtr: *ldtr,
                tr: *tr,
                gdtr: *gdtr,
                idtr: *idtr,
                cr0: *cr0,
                cr2: *cr2,
                cr3: *cr3,
                cr4: *cr4,
                efer: *efer,
                pdptrs: *pdptes,
                cpl: *cpl,
            },
            debugregs: DebugRegs { db: *dr, dr6: *dr6, dr7: *dr7 },
            xcrs: Xcrs { xcr0: *xcr0 },
            xsave: Xsave { fpu: fpu.clone(), xmm: *xmm, mxcsr: *mxcsr, pkru: *pkru },
            msrs: MsrsRecord { plain: msrs.clone(), last_branches: last_branches.clone(), tsc: *tsc },
            vcpu_events: VcpuEvents {
                activity: *activity,
                shadow: *shadow,
                shadow_set: *shadow_set,
                nmi_blocked: *nmi_blocked,
                iret_unblocked_nmi: *iret_unblocked_nmi,
                nmi_pending: *nmi_pending,
                smi_pending: *smi_pending,
                init_pending: *init_pending,
                sipi_pending: *sipi_pending,
                numeric_error: *numeric_error,
                ignore_numeric_error: *ignore_numeric_error,
                pending_debug: *pending_debug,
                trace_cancelled: *trace_cancelled,
                monitor_pending: *monitor_pending,
                again: *again,
                stepping: *stepping,
                task_fault: task_fault.clone(),
                delivering: *delivering,
                inject: *inject,
                deliveries: deliveries.clone(),
                deliveries_full: *deliveries_full,
            },
            lapic: apic.clone(),
            guest: GuestRecord {
                guest_mode: *guest_mode,
                rust_host: *rust_host,
                interception: interception.clone(),
                nested_paging: *nested_paging,
                address_space: *address_space,
                events_held: *events_held,
                physical_interrupt_flag: *physical_interrupt_flag,
                virtual_interrupt: *virtual_interrupt,
                virtual_tpr: *virtual_tpr,
                apic_access_page: *apic_access_page,
                apic_write: *apic_write,
                virtual_interrupt_recognized: *virtual_interrupt_recognized,
                preemption_deadline: *preemption_deadline,
                tsc: *guest_tsc,
                features: *features,
            },
            progress: Progress { now: self.now(), instructions: *retired, random: *random, idle: *idle },
            tlb: tlb.record(),
        }
    }

    /// Takes up the state of a record, on a processor that was just made. The caches of the host are empty then.
    ///
    /// # Errors
    /// The record is of a state that no processor of this model can be in; this one is of no use then.
    pub fn restore(&mut self, record: &CpuRecord) -> Result<(), Impossible> {
        let CpuRecord { regs, sregs, debugregs, xcrs, xsave, msrs, vcpu_events, lapic, guest, progress, tlb } = record;
        want(sregs.cpl <= 3, "a privilege level above 3")?;
        want(xsave.fpu.registers.iter().all(|register| register >> 80 == 0), "an x87 register of more than 80 bits")?;
        want(guest.features & !(self.model.features() | Feature::Hypervisor.bit()) == 0, "features that the model lacks")?;
        want(progress.idle <= progress.now, "more time in halts than there was")?;
        want(progress.now <= i64::MAX as u64 && progress.instructions < 1 << 48, "a time that no run reaches")?;
        want(regs.rflags == Rflags::from_bits(regs.rflags).normalized().into_bits(), "reserved bits of RFLAGS")?;
        let r = regs;
        self.regs = [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, 0];
        self.rip = regs.rip;
        self.segments = [sregs.es, sregs.cs, sregs.ss, sregs.ds, sregs.fs, sregs.gs];
        (self.ldtr, self.tr, self.gdtr, self.idtr) = (sregs.ldtr, sregs.tr, sregs.gdtr, sregs.idtr);
        (self.cr0, self.cr2, self.cr3, self.cr4, self.efer) = (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer);
        (self.pdptes, self.cpl) = (sregs.pdptrs, sregs.cpl);
        self.set_rflags(Rflags::from_bits(regs.rflags));
        (self.dr, self.dr6, self.dr7) = (debugregs.db, debugregs.dr6, debugregs.dr7);
        self.xcr0 = xcrs.xcr0;
        self.fpu = xsave.fpu.clone();
        (self.xmm, self.mxcsr, self.pkru) = (xsave.xmm, xsave.mxcsr, xsave.pkru);
        self.msrs = msrs.plain.clone();
        want(msrs.last_branches.is_possible(self.model.last_branches.depth), "a stack of last branches deeper than the model's")?;
        self.last_branches = msrs.last_branches.clone();
        self.tsc = msrs.tsc;
        let events = vcpu_events;
        (self.activity, self.shadow, self.shadow_set) = (events.activity, events.shadow, events.shadow_set);
        (self.nmi_blocked, self.iret_unblocked_nmi, self.nmi_pending) = (events.nmi_blocked, events.iret_unblocked_nmi, events.nmi_pending);
        (self.smi_pending, self.init_pending, self.sipi_pending) = (events.smi_pending, events.init_pending, events.sipi_pending);
        (self.numeric_error, self.ignore_numeric_error) = (events.numeric_error, events.ignore_numeric_error);
        (self.pending_debug, self.trace_cancelled) = (events.pending_debug, events.trace_cancelled);
        (self.monitor_pending, self.again, self.stepping) = (events.monitor_pending, events.again, events.stepping);
        want(!events.deliveries_full || events.deliveries.is_some(), "a log of deliveries that is full and not kept")?;
        self.task_fault = events.task_fault.clone();
        (self.delivering, self.inject) = (events.delivering, events.inject);
        (self.deliveries, self.deliveries_full) = (events.deliveries.clone(), events.deliveries_full);
        want(lapic.is_possible(crate::apic::Features::of(self.model)), "a local APIC of another model")?;
        self.apic = lapic.clone();
        self.guest_mode = guest.guest_mode;
        self.rust_host = guest.rust_host;
        self.interception = guest.interception.clone();
        (self.nested_paging, self.address_space) = (guest.nested_paging, guest.address_space);
        (self.events_held, self.physical_interrupt_flag) = (guest.events_held, guest.physical_interrupt_flag);
        (self.virtual_interrupt, self.virtual_tpr) = (guest.virtual_interrupt, guest.virtual_tpr);
        (self.apic_access_page, self.apic_write) = (guest.apic_access_page, guest.apic_write);
        self.virtual_interrupt_recognized = guest.virtual_interrupt_recognized;
        self.preemption_deadline = guest.preemption_deadline;
        self.guest_tsc = guest.tsc;
        self.features = guest.features;
        self.random = progress.random;
        self.retired = progress.instructions;
        self.set_now(progress.now);
        self.idle = progress.idle;
        self.tlb.restore(tlb)?;
        self.software_tlb.clear();
        self.context_changed();
        Ok(())
    }
}
