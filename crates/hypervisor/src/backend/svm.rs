//! A virtual CPU on SVM: what its VMCB says, reached as the memory that it is.
//!
//! Modelled: nested or shadow paging, one ASID for each virtual CPU, permission maps, masking of physical interrupts with V_TPR for CR8, TSC offset
//! and ratio, NMI blocking by an IRET intercept. FS, GS, LDTR, TR and the MSRs of system calls stay in the processor between two entries,
//! since the Rust host uses none of them; VMLOAD and VMSAVE move them when registers are loaded or saved.
//! Not used: AVIC, virtual GIF, clean bits.

mod guest_state;

use super::shadowed::Shadowed;
use super::{Backend, EntryRefused, Setup, TscSetting, Unfit, Window};
use crate::exit::{Exit, ExitInfo, Port, Report, TaskSwitch};
use crate::mmu::nested::Format;
use crate::state::Registers;
use ::svm::{Svm, Vmrun};
use cpu::extension::Extension;
use cpu::state::{Cpu, Shadow};
use cpu::trap::{Access, Event, EventKind, TaskSwitchSource};
use guest_state::{fill_save_area, read_save_area};
use isa::control::Efer;
use isa::msr;
use isa::register::Gpr;
use isa::rflags::Rflags;
use isa::svm::control::{InterruptState, NestedControl, TlbControl, VirtualInterrupt};
use isa::svm::{
    ControlArea, CrInfo, EventInformation, EventType, ExitCode, Intercepts, IoInfo, MsrPermissions, NestedPageFaultInfo, SaveArea,
    TaskSwitchInfo, Vmcb, exit_info,
};
use models::{CpuModel, Vendor};
use serde::{Deserialize, Serialize};
use std::mem::offset_of;
use trace::Name;
use zerocopy::IntoBytes;

/// Entries of nested tables: present, writable, user; page size.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const PAGE_SIZE: u64 = 1 << 7;

/// Where the save area begins in the VMCB.
const SAVE: u64 = offset_of!(Vmcb, save) as u64;

/// The place of a field of the control area or of the save area in the VMCB.
macro_rules! place {
    (control.$field:ident) => {
        offset_of!(ControlArea, $field) as u64
    };
    (save.$field:ident) => {
        SAVE + offset_of!(SaveArea, $field) as u64
    };
}

/// What is always intercepted, besides the exceptions that the policy asks for.
const ALWAYS: &[ExitCode] = &[
    ExitCode::INTR,
    ExitCode::NMI,
    ExitCode::INIT,
    ExitCode::CPUID,
    ExitCode::HLT,
    ExitCode::INVD,
    ExitCode::WBINVD,
    ExitCode::IOIO,
    ExitCode::MSR,
    ExitCode::RDPMC,
    ExitCode::FERR_FREEZE,
    ExitCode::SHUTDOWN,
    ExitCode::VMRUN,
    ExitCode::VMMCALL,
    ExitCode::VMLOAD,
    ExitCode::VMSAVE,
    ExitCode::STGI,
    ExitCode::CLGI,
    ExitCode::SKINIT,
    ExitCode::INVLPGA,
    ExitCode::MONITOR,
    ExitCode::MWAIT,
    ExitCode::RDPRU,
    ExitCode::XSETBV,
    ExitCode::TASK_SWITCH,
    ExitCode::CR0_SEL_WRITE,
    ExitCode::CR4_WRITE,
    ExitCode::CR8_WRITE,
];

/// What is intercepted besides under shadow paging.
const WITH_SHADOW_PAGING: &[ExitCode] = &[ExitCode::CR3_READ, ExitCode::CR3_WRITE, ExitCode::INVLPG, ExitCode::INVPCID, ExitCode::EXCP_PF];

/// A virtual CPU on SVM.
#[derive(Clone, Debug)]
pub struct SvmBackend {
    vmcb: u64,
    rip: u64,
    intercepts: Intercepts,
    injected: (u32, u32),
    /// NMIs are blocked; the IRET that ends it is intercepted.
    nmi_blocked: bool,
    virtual_interrupt: VirtualInterrupt,
    flush: TlbControl,
    scales_tsc: bool,
    flush_by_asid: bool,
    /// The upper halves of SYSENTER_ESP and SYSENTER_EIP, for a guest that expects them; AMD's registers have none.
    sysenter_high: Option<[u64; 2]>,
    /// Under shadow paging: what the guest has and the processor has not.
    shadowed: Option<Shadowed>,
}

/// What a checkpoint keeps of a virtual CPU beside its VMCB.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SvmBackendRecord {
    rip: u64,
    intercepts: [u32; 6],
    injected: (u32, u32),
    nmi_blocked: bool,
    virtual_interrupt: u64,
    tlb_control: u8,
    sysenter_high: Option<[u64; 2]>,
    #[serde(default)]
    shadowed: Option<Shadowed>,
}

/// Lets a closure use the silicon of a processor that has it.
fn with<T>(cpu: &mut Cpu, call: impl FnOnce(&mut Svm, &mut Cpu) -> T) -> Option<T> {
    cpu.with_extension(|extension, cpu| extension.as_any().downcast_mut::<Svm>().map(|svm| call(svm, cpu)))?
}

/// One bit stands for two kinds of blocking; as in KVM it is taken for the one that blocks more.
fn shadow_of(state: InterruptState) -> Shadow {
    if state.interrupt_shadow() { Shadow::MovSs } else { Shadow::None }
}

fn nested_page(address: u64, large: bool, writable: bool) -> u64 {
    address | PRESENT | USER | if writable { WRITABLE } else { 0 } | if large { PAGE_SIZE } else { 0 }
}

fn nested_table(address: u64) -> u64 {
    address | PRESENT | WRITABLE | USER
}

impl SvmBackend {
    #[inline]
    fn read(&self, cpu: &Cpu, place: u64) -> u64 {
        cpu.physical_page(self.vmcb).map_or(u64::MAX, |page| page.read_u64(place as usize))
    }

    fn write(&self, cpu: &mut Cpu, place: u64, value: u64) {
        cpu.write_physical(self.vmcb + place, 8, value);
    }

    /// The whole block.
    fn block(&self, cpu: &Cpu) -> Box<Vmcb> {
        let mut vmcb = Box::new(Vmcb::zeroed());
        cpu.read_physical_bytes(self.vmcb, vmcb.as_mut_bytes());
        vmcb
    }

    fn set_intercept(&mut self, cpu: &mut Cpu, code: ExitCode, intercept: bool) {
        if self.intercepts.contains(code) != intercept {
            self.intercepts.set(code, intercept);
            self.write_intercepts(cpu);
        }
    }

    fn write_intercepts(&self, cpu: &mut Cpu) {
        cpu.write_physical_bytes(self.vmcb + place!(control.intercepts), self.intercepts.as_bytes());
    }

    fn set_virtual_interrupt(&mut self, cpu: &mut Cpu, word: VirtualInterrupt) {
        if word != self.virtual_interrupt {
            self.virtual_interrupt = word;
            self.write(cpu, place!(control.virtual_interrupt), word.into_bits());
        }
    }

    fn interrupt_state(&self, cpu: &Cpu) -> InterruptState {
        InterruptState::from_bits(self.read(cpu, place!(control.interrupt_state)))
    }

    fn save_word(&self, cpu: &Cpu, place: u64) -> u64 {
        self.read(cpu, place)
    }
}

impl Backend for SvmBackend {
    const VENDOR: Vendor = Vendor::Amd;
    const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
    type Record = SvmBackendRecord;

    fn nested_format(model: &'static CpuModel) -> Result<Format, Unfit> {
        let svm = model.svm.ok_or(Unfit::NoExtension(model.name))?;
        if !svm.features.nested_paging() {
            return Err(Unfit::NoNestedPaging(model.name));
        }
        let largest = if model.has(isa::cpuid::Feature::Page1gb) { 30 } else { 21 };
        Ok(Format { table: nested_table, page: nested_page, largest, writable: WRITABLE, dirty: isa::paging::DIRTY, large: PAGE_SIZE })
    }

    fn fit_for_shadow_paging(model: &'static CpuModel) -> Result<(), Unfit> {
        model.svm.map(drop).ok_or(Unfit::NoExtension(model.name))
    }

    fn create(cpu: &mut Cpu, setup: &Setup) -> Result<Self, Unfit> {
        let model = cpu.model;
        let features = model.svm.ok_or(Unfit::NoExtension(model.name))?.features;
        let (vmcb, host_save, msrpm, iopm) =
            (setup.pages.start, setup.pages.start + 0x1000, setup.pages.start + 0x2000, setup.pages.start + 0x4000);
        cpu.rust_host = true;
        cpu.efer = cpu.efer.with_svme(true);
        let enabled = with(cpu, |svm, cpu| svm.write_msr(cpu, msr::VM_HSAVE_PA, host_save));
        if !matches!(enabled, Some(Some(Ok(())))) {
            return Err(Unfit::Refused(format!("VM_HSAVE_PA does not take {host_save:#x}")));
        }
        write_permission_maps(cpu, msrpm, iopm, setup.passed_msrs);

        let mut intercepts = Intercepts::default();
        for &code in ALWAYS {
            intercepts.set(code, true);
        }
        let shadow = setup.nested_root.is_none();
        for &code in WITH_SHADOW_PAGING {
            intercepts.set(code, shadow);
        }
        let virtual_interrupt = VirtualInterrupt::new().with_v_intr_masking(true);
        let mut block = Box::new(Vmcb::zeroed());
        block.control.intercepts = intercepts;
        block.control.iopm_base_pa = iopm;
        block.control.msrpm_base_pa = msrpm;
        block.control.guest_asid = setup.number + 1;
        block.control.virtual_interrupt = virtual_interrupt;
        block.control.nested_control = NestedControl::new().with_np_enable(!shadow);
        block.control.n_cr3 = setup.nested_root.unwrap_or(0);
        cpu.write_physical_bytes(vmcb, block.as_bytes());
        Ok(Self {
            vmcb,
            rip: 0,
            intercepts,
            injected: (0, 0),
            nmi_blocked: false,
            virtual_interrupt,
            flush: TlbControl::FLUSH_ALL,
            scales_tsc: features.tsc_rate_msr(),
            flush_by_asid: features.flush_by_asid(),
            sysenter_high: (setup.guest_vendor == Vendor::Intel).then_some([0; 2]),
            shadowed: shadow.then(Shadowed::new),
        })
    }

    fn destroy(self, cpu: &mut Cpu) {
        cpu.efer = cpu.efer.with_svme(false);
    }

    /// VMRUN takes every state that a guest can bring about.
    fn record(&self) -> SvmBackendRecord {
        let Self {
            vmcb: _,
            rip,
            intercepts,
            injected,
            nmi_blocked,
            virtual_interrupt,
            flush,
            scales_tsc: _,
            flush_by_asid: _,
            sysenter_high,
            shadowed,
        } = self;
        SvmBackendRecord {
            rip: *rip,
            intercepts: intercepts.0,
            injected: *injected,
            nmi_blocked: *nmi_blocked,
            virtual_interrupt: virtual_interrupt.into_bits(),
            tlb_control: flush.0,
            sysenter_high: *sysenter_high,
            shadowed: *shadowed,
        }
    }

    fn restore(&mut self, record: SvmBackendRecord) {
        let SvmBackendRecord { rip, intercepts, injected, nmi_blocked, virtual_interrupt, tlb_control, sysenter_high, shadowed } = record;
        self.shadowed = self.shadowed.and(shadowed.or(self.shadowed));
        self.rip = rip;
        self.intercepts = Intercepts(intercepts);
        self.injected = injected;
        self.nmi_blocked = nmi_blocked;
        self.virtual_interrupt = VirtualInterrupt::from_bits(virtual_interrupt);
        self.flush = TlbControl(tlb_control);
        self.sysenter_high = sysenter_high;
    }

    fn refuses(&mut self, _cpu: &mut Cpu) -> bool {
        false
    }

    fn enter(&mut self, cpu: &mut Cpu) -> Result<bool, EntryRefused> {
        self.injected = (0, 0);
        let (rax, rsp) = (cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rsp));
        // Not `write_physical_pieces`, which a round trip would pay with a hundred host instructions more.
        let together = cpu.write_physical_page(self.vmcb, |page| {
            page.write(place!(save.rax) as usize, &rax.to_le_bytes());
            page.write(place!(save.rsp) as usize, &rsp.to_le_bytes());
        });
        if !together {
            self.write(cpu, place!(save.rax), rax);
            self.write(cpu, place!(save.rsp), rsp);
        }
        let flush = std::mem::take(&mut self.flush);
        let flushed = flush != TlbControl::DO_NOTHING;
        if flushed {
            cpu.write_physical_bytes(self.vmcb + place!(control.tlb_control), flush.as_bytes());
        }
        let vmcb = self.vmcb;
        let outcome = with(cpu, |svm, cpu| {
            cpu.charge(cpu.model.costs.clgi.ticks());
            svm.clgi(cpu);
            svm.vmrun(cpu, vmcb)
        });
        if flushed {
            cpu.write_physical_bytes(self.vmcb + place!(control.tlb_control), TlbControl::DO_NOTHING.as_bytes());
        }
        match outcome {
            Some(Ok(Vmrun::Entered)) => Ok(true),
            Some(Ok(Vmrun::Invalid(_))) => Ok(false),
            Some(Err(fault)) => Err(EntryRefused(fault.to_string())),
            None => Err(EntryRefused("the processor has no SVM".to_owned())),
        }
    }

    fn report(&mut self, cpu: &mut Cpu) -> Report {
        with(cpu, |svm, cpu| {
            cpu.charge(cpu.model.costs.stgi.ticks());
            svm.stgi(cpu);
        });
        let page = cpu.physical_page(self.vmcb);
        let read = |place: u64| page.map_or(u64::MAX, |page| page.read_u64(place as usize));
        let code = ExitCode(read(place!(control.exit_code)));
        let (info1, info2) = (read(place!(control.exit_info_1)), read(place!(control.exit_info_2)));
        let event = EventInformation::from_bits(read(place!(control.exit_int_info)));
        self.virtual_interrupt = VirtualInterrupt::from_bits(read(place!(control.virtual_interrupt)));
        let next = read(place!(control.next_rip));
        self.rip = read(place!(save.rip));
        let (rax, rsp) = (read(place!(save.rax)), read(place!(save.rsp)));
        cpu.set_gpr(Gpr::Rax, rax);
        cpu.set_gpr(Gpr::Rsp, rsp);
        let info = ExitInfo {
            reason: code.trace_name().map_or(Name::Code(code.0), Name::Text),
            failed_entry: false,
            info1,
            info2,
            intr_info: event.low(),
            error_code: event.error_code(),
        };
        let length = (next != 0).then(|| next.wrapping_sub(self.rip) as u8).filter(|length| (1..=15).contains(length));
        Report { exit: self.classify(code, info1, info2, event), rip: self.rip, length, info }
    }

    fn rip(&self) -> u64 {
        self.rip
    }

    fn set_rip(&mut self, cpu: &mut Cpu, rip: u64) {
        self.rip = rip;
        self.write(cpu, place!(save.rip), rip);
    }

    fn rflags(&mut self, cpu: &mut Cpu) -> Rflags {
        Rflags::from_bits(self.save_word(cpu, place!(save.rflags)))
    }

    fn is_64bit(&mut self, cpu: &mut Cpu) -> bool {
        let efer = Efer::from_bits(self.save_word(cpu, place!(save.efer)));
        let cs = self.save_word(cpu, place!(save.cs));
        let attributes: isa::segment::Attributes = isa::svm::SegmentAttributes::from_bits((cs >> 16) as u16).into();
        efer.lma() && attributes.l()
    }

    fn long_mode(&mut self, cpu: &mut Cpu) -> bool {
        Efer::from_bits(self.save_word(cpu, place!(save.efer))).lma()
    }

    fn cpl(&mut self, cpu: &mut Cpu) -> u8 {
        cpu.read_physical(self.vmcb + place!(save.cpl), 1) as u8
    }

    fn interrupted(&mut self, cpu: &mut Cpu) -> Option<Event> {
        let information = EventInformation::from_bits(self.read(cpu, place!(control.exit_int_info)));
        if !information.valid() {
            return None;
        }
        let kind = match information.event_type() {
            EventType::Interrupt => EventKind::External,
            EventType::Nmi => {
                // It was not taken after all; injecting it again blocks again.
                self.nmi_blocked = false;
                EventKind::Nmi
            }
            // INT3 and INTO, and INT n: RIP is still at the instruction, which is executed again.
            EventType::Exception if matches!(information.vector(), 3 | 4) => return None,
            EventType::SoftwareInterrupt | EventType::Reserved => return None,
            EventType::Exception => EventKind::Exception,
        };
        let error_code = information.error_code_valid().then(|| information.error_code());
        Some(Event { kind, vector: information.vector(), error_code, length: 0 })
    }

    fn window(&mut self, cpu: &mut Cpu) -> Window {
        let shadow = self.interrupt_state(cpu).interrupt_shadow();
        let interrupts = self.rflags(cpu).r#if();
        Window { interrupt: interrupts && !shadow, nmi: !shadow && !self.nmi_blocked }
    }

    fn request_window(&mut self, cpu: &mut Cpu, wanted: Window) {
        self.set_intercept(cpu, ExitCode::VINTR, wanted.interrupt);
        let word = if wanted.interrupt {
            // APM 15.21.1 "Virtual Interrupts": a dummy that is never taken, because VINTR is intercepted; its vector says nothing.
            self.virtual_interrupt.with_v_irq(true).with_v_intr_prio(0xf).with_v_ign_tpr(true).with_v_intr_vector(0)
        } else {
            self.virtual_interrupt.with_v_irq(false).with_v_intr_prio(0).with_v_ign_tpr(false)
        };
        self.set_virtual_interrupt(cpu, word);
        self.set_intercept(cpu, ExitCode::IRET, self.nmi_blocked);
    }

    fn inject(&mut self, cpu: &mut Cpu, event: &Event) {
        let kind = match event.kind {
            EventKind::External => EventType::Interrupt,
            EventKind::Nmi => EventType::Nmi,
            EventKind::SoftwareInterrupt => EventType::SoftwareInterrupt,
            EventKind::Exception | EventKind::PrivilegedSoftware | EventKind::SoftwareException => EventType::Exception,
        };
        let mut information = EventInformation::event(kind, event.vector);
        if let Some(code) = event.error_code {
            information = information.with_error_code_valid(true).with_error_code(code);
        }
        if event.kind == EventKind::Nmi {
            self.nmi_blocked = true;
            self.set_intercept(cpu, ExitCode::IRET, true);
        }
        if event.length != 0 {
            self.write(cpu, place!(control.next_rip), self.rip.wrapping_add(event.length.into()));
        }
        self.write(cpu, place!(control.event_injection), information.into_bits());
        self.injected = (information.low(), information.error_code());
    }

    fn injected(&self) -> (u32, u32) {
        self.injected
    }

    fn set_exception_state(&mut self, cpu: &mut Cpu, address: Option<u64>, debug: u64) {
        if let Some(address) = address {
            self.write(cpu, place!(save.cr2), address);
        }
        if debug != 0 {
            let dr6 = self.read(cpu, place!(save.dr6)) | debug;
            self.write(cpu, place!(save.dr6), dr6);
        }
    }

    fn shadow(&mut self, cpu: &mut Cpu) -> Shadow {
        shadow_of(self.interrupt_state(cpu))
    }

    fn set_shadow(&mut self, cpu: &mut Cpu, shadow: Shadow) {
        let state = self.interrupt_state(cpu).with_interrupt_shadow(shadow != Shadow::None);
        self.write(cpu, place!(control.interrupt_state), state.into_bits());
    }

    fn intercept_exceptions(&mut self, cpu: &mut Cpu, vectors: u32) {
        self.intercepts.0[2] = vectors;
        self.intercepts.set(ExitCode::EXCP_PF, self.shadowed.is_some() || self.intercepts.contains(ExitCode::EXCP_PF));
        self.write_intercepts(cpu);
    }

    fn flush(&mut self, _cpu: &mut Cpu) {
        self.flush = if self.flush_by_asid { TlbControl::FLUSH_GUEST } else { TlbControl::FLUSH_ALL };
    }

    fn invalidate(&mut self, cpu: &mut Cpu, linear: u64) {
        let asid = cpu.read_physical(self.vmcb + place!(control.guest_asid), 4) as u32;
        with(cpu, |svm, cpu| svm.invlpga(cpu, linear, asid));
    }

    fn paging_changed(&mut self) -> bool {
        self.shadowed.as_mut().is_some_and(|shadowed| std::mem::take(&mut shadowed.changed))
    }

    fn set_root(&mut self, cpu: &mut Cpu, root: u64) {
        if let Some(shadowed) = &mut self.shadowed {
            shadowed.root = root;
            self.write(cpu, place!(save.cr3), root);
            Backend::flush(self, cpu);
        }
    }

    fn set_tsc(&mut self, cpu: &mut Cpu, setting: TscSetting) -> bool {
        self.write(cpu, place!(control.tsc_offset), setting.offset);
        if self.scales_tsc {
            with(cpu, |svm, cpu| svm.write_msr(cpu, msr::TSC_RATIO, setting.ratio));
        }
        self.scales_tsc || setting.ratio == 1 << 32
    }

    fn task_priority(&mut self, _cpu: &mut Cpu) -> Option<u8> {
        Some(self.virtual_interrupt.v_tpr() & 0xf)
    }

    fn set_task_priority(&mut self, cpu: &mut Cpu, class: u8) {
        self.set_virtual_interrupt(cpu, self.virtual_interrupt.with_v_tpr(class & 0xf));
    }

    fn logs_writes(_model: &'static CpuModel) -> bool {
        false
    }

    fn log_writes(&mut self, _cpu: &mut Cpu, _on: bool) {}

    fn take_logged(&mut self, _cpu: &mut Cpu) -> Vec<u64> {
        Vec::new()
    }

    fn load(&mut self, cpu: &mut Cpu, registers: &Registers) {
        self.rip = registers.rip;
        self.nmi_blocked = registers.nmi_blocked;
        registers.put_shared(cpu);
        if let Some(high) = &mut self.sysenter_high {
            *high = [registers.msrs.sysenter_esp, registers.msrs.sysenter_eip].map(|value| value & !0xffff_ffff);
        }
        cpu.regs[..16].copy_from_slice(&registers.gprs);
        let mut block = self.block(cpu);
        match &mut self.shadowed {
            Some(shadowed) => {
                let real = shadowed.hide(registers);
                fill_save_area(&mut block.save, &real);
                // APM 15.8.1 "State Saved on Exit" knows no shadow of a control register: what the guest would see otherwise is intercepted.
                // Of writes the selective intercept of CR0 compares with the processor's own value, which would not do then.
                let (cr0, cr4) = (real.cr0 != registers.cr0, real.cr4 != registers.cr4);
                for (code, differs) in [(ExitCode::CR0_READ, cr0), (ExitCode::CR0_WRITE, cr0), (ExitCode::CR4_READ, cr4)] {
                    self.intercepts.set(code, differs);
                }
                block.control.intercepts = self.intercepts;
            }
            None => fill_save_area(&mut block.save, registers),
        }
        block.control.interrupt_state = InterruptState::new().with_interrupt_shadow(registers.shadow != Shadow::None);
        cpu.write_physical_bytes(self.vmcb, block.as_bytes());
        self.set_intercept(cpu, ExitCode::IRET, self.nmi_blocked);
        let vmcb = self.vmcb;
        cpu.charge(cpu.model.costs.vmload.ticks());
        with(cpu, |svm, cpu| svm.vmload(cpu, vmcb));
        // Translations of another address space, or of other modes, may not outlive what they were made for.
        Backend::flush(self, cpu);
    }

    fn save(&mut self, cpu: &mut Cpu) -> Registers {
        let vmcb = self.vmcb;
        cpu.charge(cpu.model.costs.vmsave.ticks());
        with(cpu, |svm, cpu| svm.vmsave(cpu, vmcb));
        let block = self.block(cpu);
        let mut registers = Registers::of(cpu);
        let pat = registers.msrs.pat;
        read_save_area(&block.save, &mut registers);
        if let Some([esp, eip]) = self.sysenter_high {
            registers.msrs.sysenter_esp |= esp;
            registers.msrs.sysenter_eip |= eip;
        }
        if self.shadowed.is_some() {
            // APM 15.25.9 "Combining Memory Types": G_PAT is part of nested paging; without it the guest has the processor's own.
            registers.msrs.pat = pat;
            self.show(&mut registers);
        } else if registers.pae_paging() {
            // APM 15.25.10 "Legacy PAE Mode": every walk reads them; guest-physical addresses are host-physical ones.
            registers.pdptes = [0, 8, 16, 24].map(|offset| cpu.read_physical((registers.cr3 & 0xffff_ffe0) + offset, 8));
        }
        if !registers.pae_paging() {
            registers.pdptes = [0; 4];
        }
        registers.shadow = shadow_of(block.control.interrupt_state);
        registers.nmi_blocked = self.nmi_blocked;
        registers.pending_debug = 0;
        registers
    }

    /// With nested paging the processor has what the guest wrote.
    fn show(&self, registers: &mut Registers) {
        if let Some(shadowed) = &self.shadowed {
            shadowed.show(registers);
            registers.cr4 = shadowed.cr4;
        }
    }

    fn explain(&mut self, cpu: &mut Cpu) -> Vec<String> {
        with(cpu, |svm, _| {
            svm.last_failure().map(|check| vec![format!("{} ({}: {})", check.rule, check.id, check.section)]).unwrap_or_default()
        })
        .unwrap_or_default()
    }
}

impl SvmBackend {
    /// The neutral word for an exit.
    fn classify(&self, code: ExitCode, info1: u64, info2: u64, event: EventInformation) -> Exit {
        if let Some(vector) = code.exception_vector() {
            let with_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
            return Exit::Exception { vector, error_code: with_code.then_some(info1 as u32), detail: if vector == 14 { info2 } else { 0 } };
        }
        match code {
            ExitCode::VMMCALL => Exit::Hypercall,
            ExitCode::INTR => Exit::ExternalInterrupt,
            ExitCode::NMI => Exit::Nmi,
            ExitCode::SHUTDOWN => Exit::Shutdown,
            ExitCode::VINTR => Exit::InterruptWindow,
            ExitCode::IRET => Exit::Iret,
            ExitCode::CPUID => Exit::Cpuid,
            ExitCode::HLT => Exit::Halt,
            ExitCode::INVD | ExitCode::WBINVD => Exit::CacheFlush,
            ExitCode::RDPMC => Exit::PerformanceCounter,
            ExitCode::XSETBV => Exit::Xsetbv,
            ExitCode::FERR_FREEZE => Exit::NumericError,
            ExitCode::MSR => Exit::Msr { write: info1 == exit_info::MSR_WRITE },
            ExitCode::IOIO => {
                let io = IoInfo::from_bits(info1);
                Exit::Port(Port { port: io.port(), width: io.size(), input: io.input(), string: io.string() })
            }
            ExitCode::INVLPG => Exit::Invalidate { linear: (info1 != 0).then_some(info1) },
            ExitCode::INVPCID => Exit::Invalidate { linear: None },
            ExitCode::NPF => {
                let fault = NestedPageFaultInfo::from_bits(info1);
                let access = if fault.page_table_walk() {
                    Access::Read
                } else if fault.write() {
                    Access::Write
                } else if fault.instruction_fetch() {
                    Access::Fetch
                } else {
                    Access::Read
                };
                let writes = fault.write();
                Exit::NestedFault { guest_physical: info2, access, writes, error_code: info1, malformed: fault.reserved_bit() }
            }
            ExitCode::TASK_SWITCH => {
                let task = TaskSwitchInfo::from_bits(info2);
                let source = if task.iret() {
                    TaskSwitchSource::Iret
                } else if task.jump() {
                    TaskSwitchSource::Jump
                } else if event.valid() {
                    TaskSwitchSource::Gate
                } else {
                    TaskSwitchSource::Call
                };
                // APM 15.20: INT3 and INTO come as exceptions.
                let software = match event.event_type() {
                    EventType::SoftwareInterrupt => true,
                    EventType::Exception => matches!(event.vector(), 3 | 4),
                    _ => false,
                };
                Exit::TaskSwitch(TaskSwitch {
                    selector: info1 as u16,
                    source,
                    by_instruction: source != TaskSwitchSource::Gate || software,
                    error_code: task.has_error_code().then(|| task.error_code()),
                    resume_flag: task.resume_flag(),
                })
            }
            ExitCode::CR0_SEL_WRITE => self.control(0, true, info1),
            ExitCode(number @ 0..=15) => self.control(number as u8, false, info1),
            ExitCode(number @ 16..=31) => self.control(number as u8 - 16, true, info1),
            ExitCode::VMRUN
            | ExitCode::VMLOAD
            | ExitCode::VMSAVE
            | ExitCode::STGI
            | ExitCode::CLGI
            | ExitCode::SKINIT
            | ExitCode::INVLPGA
            | ExitCode::MONITOR
            | ExitCode::MWAIT
            | ExitCode::RDPRU => Exit::NotOffered,
            ExitCode::INVALID => Exit::EntryFailure,
            other => Exit::Vendor(other.0),
        }
    }

    fn control(&self, register: u8, write: bool, info1: u64) -> Exit {
        let info = CrInfo::from_bits(info1);
        Exit::Control { register, write, gpr: info.mov().then_some(info.register()) }
    }
}

/// APM 15.10.1 "I/O Permissions Map", 15.11 "MSR Intercepts": a set bit exits.
fn write_permission_maps(cpu: &mut Cpu, msrpm: u64, iopm: u64, passed: &[u32]) {
    let mut bits = vec![0xff_u8; 0x2000];
    for place in passed.iter().filter_map(|&msr| MsrPermissions::of(msr)) {
        if let Some(byte) = bits.get_mut(place.offset as usize) {
            *byte &= !(3 << place.read_bit);
        }
    }
    cpu.write_physical_bytes(msrpm, &bits);
    cpu.write_physical_bytes(iopm, &[0xff; 0x3000]);
}
