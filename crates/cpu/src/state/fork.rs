//! A second processor that goes on exactly as the first.
//!
//! What is modelled: nothing of the architecture. What a processor *is* (registers, pending events, the architectural TLB, the silicon of its
//! vendor, its time) is copied; what the host keeps so that it need not ask the state again begins empty. The line between the two is drawn at
//! the fields of [`Cpu`]: a cache may only ever say what the state would say, at no charge, so that whoever has it and whoever has it not
//! are charged the same. A test forks machines at random moments and compares.

use crate::bus::Environment;
use crate::context::Contexts;
use crate::delivery::KnownGates;
use crate::engine::StopCode;
use crate::paging::KnownWalks;
use crate::state::Cpu;
use crate::state::place::place;
use crate::system::descriptor::KnownSegments;
use crate::tlb::{FetchPage, Translation};
use crate::trap::Access;
use isa::register::Segment;

impl Cpu {
    /// A processor in the same state, at the same time, with no host-side cache filled; only between runs.
    ///
    /// Its memory and decoded code are to be forks, too: [`memory::Memory::snapshot`], [`crate::block::CodeCache::fork`].
    pub fn fork(&self) -> Box<Self> {
        debug_assert!(self.environment.is_null() && self.trap.is_none(), "a fork during a run");
        debug_assert_eq!(self.check_caches(), Ok(()), "a cache that knows more than the TLB would make a fork more expensive");
        let mut fork = place! {
            regs: self.regs,
            rip: self.rip,
            flag_result: self.flag_result,
            flag_aux: self.flag_aux,
            budget: self.budget,
            context: 0,
            code_mode: self.code_mode,
            retired: self.retired,
            stop: StopCode::Left,
            leave: self.leave,
            link: std::ptr::null_mut(),
            next: std::ptr::null(),
            stopped_at: std::ptr::null(),
            trap: None,
            environment: std::ptr::null_mut::<Environment<'static>>(),
            xmm: self.xmm,
            mxcsr: self.mxcsr,
            handover: crate::compile::Handover::new(),
            system_flags: self.system_flags,
            segments: self.segments,
            ldtr: self.ldtr,
            tr: self.tr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer,
            xcr0: self.xcr0,
            pkru: self.pkru,
            dr: self.dr,
            dr6: self.dr6,
            dr7: self.dr7,
            pdptes: self.pdptes,
            cpl: self.cpl,
            msrs: self.msrs.clone(),
            last_branches: self.last_branches.clone(),
            fpu: self.fpu.clone(),
            apic: self.apic.clone(),
            activity: self.activity,
            shadow: self.shadow,
            shadow_set: self.shadow_set,
            trace_cancelled: self.trace_cancelled,
            numeric_error: self.numeric_error,
            ignore_numeric_error: self.ignore_numeric_error,
            monitor_pending: self.monitor_pending,
            again: self.again,
            stepping: self.stepping,
            nmi_blocked: self.nmi_blocked,
            iret_unblocked_nmi: self.iret_unblocked_nmi,
            nmi_pending: self.nmi_pending,
            smi_pending: self.smi_pending,
            init_pending: self.init_pending,
            sipi_pending: self.sipi_pending,
            pending_debug: self.pending_debug,
            task_fault: self.task_fault.clone(),
            delivering: self.delivering,
            inject: self.inject,
            deliveries_full: self.deliveries_full,
            deliveries: self.deliveries.clone(),
            guest_mode: self.guest_mode,
            rust_host: self.rust_host,
            interception: self.interception.clone(),
            nested_paging: self.nested_paging,
            address_space: self.address_space,
            events_held: self.events_held,
            physical_interrupt_flag: self.physical_interrupt_flag,
            virtual_interrupt: self.virtual_interrupt,
            virtual_tpr: self.virtual_tpr,
            apic_access_page: self.apic_access_page,
            apic_write: self.apic_write,
            virtual_interrupt_recognized: self.virtual_interrupt_recognized,
            preemption_deadline: self.preemption_deadline,
            random: self.random,
            tsc: self.tsc,
            guest_tsc: self.guest_tsc,
            model: self.model,
            vendor: self.vendor,
            walks_pdptes: self.walks_pdptes,
            features: self.features,
            number: self.number,
            cpu_count: self.cpu_count,
            freedoms: self.freedoms.clone(),
            view: self.view,
            views: self.views,
            extension: self.extension.as_ref().map(|extension| extension.duplicate()),
            tlb: self.tlb.clone(),
            fetch_page: FetchPage::NONE,
            contexts: Contexts::new(),
            walked: Translation::NONE,
            known_gates: KnownGates::new(),
            known_segments: KnownSegments::new(),
            known_walks: KnownWalks::behind(&self.known_walks),
            slice_end: self.slice_end,
            idle: self.idle,
            memory_generation: 0,
            code_generation: 0,
        };
        // Marks of contexts that the silicon holds are void: they are of another epoch.
        fork.software_tlb.epoch = self.software_tlb.epoch + 1;
        let leave = fork.leave;
        fork.context_changed();
        fork.leave = leave;
        fork
    }

    /// Whether what the caches in front of the architectural TLB would serve now, it would serve as well, without a walk. For tests: it
    /// looks at every place.
    ///
    /// # Errors
    /// Says what the TLB does not know.
    pub fn check_caches(&self) -> Result<(), String> {
        if !self.cr0.pg() && !self.nested_paging {
            return Ok(());
        }
        let (table, privilege) = (&self.software_tlb, self.privilege());
        let halves = [(&table.read, Access::Read), (&table.write, Access::Write)];
        for (entries, access) in halves {
            for entry in entries.iter().filter(|entry| entry.tag & 0xfff == self.context) {
                if self.cached(entry.tag & !0xfff, access, privilege).is_none() {
                    return Err(format!("{access:?} at {:#x} is cached, and not in the TLB", entry.tag & !0xfff));
                }
            }
        }
        let base = if self.is_64bit() { 0 } else { self.segment(Segment::Cs).base };
        let width = if self.is_64bit() { u64::MAX } else { 0xffff_ffff };
        for entry in self.jumps.entries.iter().filter(|entry| entry.context == self.context && !entry.entry.is_null()) {
            let linear = base.wrapping_add(entry.rip) & width;
            if self.cached(linear, Access::Fetch, privilege).is_none() {
                return Err(format!("code at {linear:#x} is cached, and not in the TLB"));
            }
        }
        Ok(())
    }
}
