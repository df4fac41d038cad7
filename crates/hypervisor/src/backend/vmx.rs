//! A virtual CPU on VMX: what its VMCS says, reached by VMREAD and VMWRITE alone.
//!
//! Modelled: 64-bit host, EPT or shadow paging, VPID, unrestricted guest (and life without it, in `restricted`), virtual NMIs, an MSR bitmap,
//! unconditional I/O exiting, TSC offset and scaling. Under shadow paging a processor needs none of what came after 2006: where there are no
//! virtual NMIs, NMIs count as blocked until the guest takes interrupts again, as KVM's `soft_vnmi_blocked` has it; where EFER and PAT are not in
//! the VMCS, the software switches them.
//! Not used: TPR shadow and APIC virtualization (CR8 and the APIC page exit), the preemption timer, MSR lists.

mod controls;
mod guest_state;
mod restricted;

pub(crate) use restricted::{IDENTITY_MAP, identity_map};

use super::shadowed::Shadowed;
use super::{Backend, EntryRefused, Setup, TscSetting, Unfit, Window};
use crate::exit::{Exit, ExitInfo, Port, Report, TaskSwitch};
use crate::mmu::nested::Format;
use crate::state::{AMD_EFER, Registers};
use ::vmx::{EntryOutcome, Vmx};
use controls::{capabilities, entry_controls, exit_controls, nested_capabilities, pin_based, primary, secondary, write_msr_bitmap};
use cpu::state::{Cpu, Shadow};
use cpu::trap::{Access, Event, EventKind, TaskSwitchSource};
use guest_state::{GUEST_CR0, GUEST_CR4, exists, load_fields, save_fields, shadow_of};
use isa::control::{Cr0, Efer};
use isa::debug::Dr6;
use isa::register::Gpr;
use isa::rflags::Rflags;
use isa::segment::Attributes;
use isa::vmx::VmcsField as F;
use isa::vmx::{
    ControlRegisterAccessType, ControlRegisterQualification, EptEntry, EptPointer, EptViolationQualification, ExitReason, ExitReasonField,
    Interruptibility, InterruptionInformation, InterruptionType, InveptType, InvvpidType, IoQualification, PinBasedControls,
    PrimaryControls, SecondaryControls, TaskSwitchQualification,
};
use models::{CpuModel, Vendor};
use restricted::{Restricted, refuses};
use serde::{Deserialize, Serialize};
use trace::Name;

/// Index of the entry of the page-modification log that is written first.
const LAST_LOG_ENTRY: u64 = 511;
/// The vector of #PF.
const PAGE_FAULT: u32 = 14;

/// A virtual CPU on VMX.
#[derive(Clone, Debug)]
pub struct VmxBackend {
    launched: bool,
    rip: u64,
    primary: PrimaryControls,
    /// The EPT pointer, with nested paging.
    eptp: Option<u64>,
    /// The guest's VPID, where the processor has such.
    vpid: Option<u16>,
    /// Host-physical page of the page-modification log.
    log: u64,
    injected: (u32, u32),
    scales_tsc: bool,
    /// Without unrestricted guests: what the guest has and the processor has not.
    restricted: Option<Restricted>,
    /// Under shadow paging: the same for the registers of paging.
    shadowed: Option<Shadowed>,
    /// Whether NMIs are blocked, where the processor does not know.
    nmi_blocked: Option<bool>,
}

/// What a checkpoint keeps of a virtual CPU beside its VMCS.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmxBackendRecord {
    launched: bool,
    rip: u64,
    primary: PrimaryControls,
    injected: (u32, u32),
    restricted: Option<Restricted>,
    #[serde(default)]
    shadowed: Option<Shadowed>,
    #[serde(default)]
    nmi_blocked: Option<bool>,
}

/// Lets a closure use the silicon of a processor that has it.
fn with<T>(cpu: &mut Cpu, call: impl FnOnce(&mut Vmx, &mut Cpu) -> T) -> Option<T> {
    Vmx::with(cpu, call)
}

/// VMREAD of a field that the processor has.
fn read(vmx: &mut Vmx, cpu: &mut Cpu, field: F) -> u64 {
    let value = vmx.vmread(cpu, field);
    debug_assert!(value.is_ok(), "VMREAD of {}: {value:?}", field.name());
    value.unwrap_or(0)
}

/// VMWRITE of a field that the processor has.
fn write(vmx: &mut Vmx, cpu: &mut Cpu, field: F, value: u64) {
    let done = vmx.vmwrite(cpu, field, value);
    debug_assert!(done.is_ok(), "VMWRITE of {}: {done:?}", field.name());
}

fn get(cpu: &mut Cpu, field: F) -> u64 {
    let value = Vmx::vmread_of(cpu, field);
    debug_assert!(value.is_ok(), "VMREAD of {}: {value:?}", field.name());
    value.unwrap_or(0)
}

fn set(cpu: &mut Cpu, field: F, value: u64) {
    let done = Vmx::vmwrite_of(cpu, field, value);
    debug_assert!(done.is_ok(), "VMWRITE of {}: {done:?}", field.name());
}

/// EPT entries are write-back (memory type 6).
fn ept_page(address: u64, large: bool, writable: bool) -> u64 {
    EptEntry::new()
        .with_read(true)
        .with_write(writable)
        .with_execute(true)
        .with_memory_type(6)
        .with_ignore_pat(true)
        .with_large_page(large)
        .with_frame(address >> 12)
        .into_bits()
}

fn ept_table(address: u64) -> u64 {
    EptEntry::new().with_read(true).with_write(true).with_execute(true).with_frame(address >> 12).into_bits()
}

impl Backend for VmxBackend {
    const VENDOR: Vendor = Vendor::Intel;
    const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xc1];
    type Record = VmxBackendRecord;

    fn nested_format(model: &'static CpuModel) -> Result<Format, Unfit> {
        let ept = nested_capabilities(model)?.ept_vpid;
        let largest = if ept.pages_1_gib() {
            30
        } else if ept.pages_2_mib() {
            21
        } else {
            12
        };
        let writable = EptEntry::new().with_write(true).into_bits();
        let (dirty, large) = (EptEntry::new().with_dirty(true).into_bits(), EptEntry::new().with_large_page(true).into_bits());
        Ok(Format { table: ept_table, page: ept_page, largest, writable, dirty, large })
    }

    fn fit_for_shadow_paging(model: &'static CpuModel) -> Result<(), Unfit> {
        capabilities(model).map(drop)
    }

    fn create(cpu: &mut Cpu, setup: &Setup) -> Result<Self, Unfit> {
        let model = cpu.model;
        let offered = capabilities(model)?;
        let (vmxon, vmcs, bitmap) = (setup.pages.start, setup.pages.start + 0x1000, setup.pages.start + 0x2000);
        let refused = |fail: ::vmx::VmFail| Unfit::Refused(fail.to_string());
        write_msr_bitmap(cpu, bitmap, setup.passed_msrs);

        let eptp = setup.nested_root.map(|root| {
            EptPointer::new()
                .with_memory_type(6)
                .with_walk_length_minus_one(3)
                .with_accessed_dirty(offered.ept_vpid.accessed_dirty())
                .with_frame(root >> 12)
                .into_bits()
        });
        let (nested, unrestricted) = (eptp.is_some(), eptp.is_some() && !setup.restricted);
        let vpid = offered.may_be_one(SecondaryControls::ENABLE_VPID).then_some(setup.number as u16 + 1);
        let scales_tsc = offered.may_be_one(SecondaryControls::USE_TSC_SCALING);
        let primary = primary(offered, !nested);
        let secondary = offered.secondary.adjust(secondary(offered, nested).with_unrestricted_guest(unrestricted).into_bits());
        let fields = [
            (F::PinBasedControls, u64::from(offered.pin_based.adjust(pin_based().into_bits()))),
            (F::PrimaryProcessorBasedControls, u64::from(primary.into_bits())),
            (F::PrimaryExitControls, u64::from(offered.exit.adjust(exit_controls().into_bits()))),
            (F::EntryControls, u64::from(offered.entry.adjust(entry_controls(false).into_bits()))),
            (F::ExceptionBitmap, 0),
            (F::MsrBitmapAddress, bitmap),
            (F::VmcsLinkPointer, u64::MAX),
            (F::Cr0GuestHostMask, !GUEST_CR0),
            (F::Cr4GuestHostMask, !GUEST_CR4),
        ];
        let optional = [
            (F::SecondaryProcessorBasedControls, u64::from(secondary)),
            (F::EptPointer, eptp.unwrap_or(0)),
            (F::VirtualProcessorIdentifier, vpid.unwrap_or(0).into()),
        ];
        let entered = with(cpu, |vmx, cpu| {
            vmx.prepare_rust_host(cpu);
            let revision = u64::from(vmx.capabilities().basic.revision());
            cpu.write_physical(vmxon, 4, revision);
            cpu.write_physical(vmcs, 4, revision);
            vmx.vmxon(cpu, vmxon)?;
            vmx.vmclear(cpu, vmcs)?;
            vmx.vmptrld(cpu, vmcs)?;
            vmx.write_host_state(cpu)?;
            for (field, value) in fields {
                vmx.vmwrite(cpu, field, value)?;
            }
            for (field, value) in optional {
                if exists(vmx, field) {
                    vmx.vmwrite(cpu, field, value)?;
                }
            }
            if scales_tsc {
                vmx.vmwrite(cpu, F::TscMultiplier, 1 << 48)?;
            }
            Ok(())
        });
        entered.ok_or(Unfit::NoExtension(model.name))?.map_err(refused)?;
        Ok(Self {
            launched: false,
            rip: 0,
            primary,
            eptp,
            vpid,
            log: setup.pages.start + 0x3000,
            injected: (0, 0),
            scales_tsc,
            restricted: (nested && setup.restricted).then(Restricted::default),
            shadowed: (!nested).then(Shadowed::new),
            nmi_blocked: (!offered.may_be_one(PinBasedControls::VIRTUAL_NMIS)).then_some(false),
        })
    }

    fn destroy(self, cpu: &mut Cpu) {
        with(cpu, |vmx, cpu| vmx.vmxoff(cpu));
    }

    fn record(&self) -> VmxBackendRecord {
        let Self { launched, rip, primary, eptp: _, vpid: _, log: _, injected, scales_tsc: _, restricted, shadowed, nmi_blocked } = self;
        VmxBackendRecord {
            launched: *launched,
            rip: *rip,
            primary: *primary,
            injected: *injected,
            restricted: *restricted,
            shadowed: *shadowed,
            nmi_blocked: *nmi_blocked,
        }
    }

    fn restore(&mut self, record: VmxBackendRecord) {
        let VmxBackendRecord { launched, rip, primary, injected, restricted, shadowed, nmi_blocked } = record;
        // Whether there are such things is the processor's affair, and not the record's.
        let shadowed = self.shadowed.and(shadowed.or(self.shadowed));
        let nmi_blocked = self.nmi_blocked.map(|blocked| nmi_blocked.unwrap_or(blocked));
        *self = Self { launched, rip, primary, injected, restricted, shadowed, nmi_blocked, ..*self };
    }

    fn refuses(&mut self, cpu: &mut Cpu) -> bool {
        (self.restricted.is_some() || self.shadowed.is_some()) && refuses(&self.save(cpu))
    }

    fn enter(&mut self, cpu: &mut Cpu) -> Result<bool, EntryRefused> {
        self.injected = (0, 0);
        let launched = self.launched;
        match with(cpu, |vmx, cpu| if launched { vmx.vmresume(cpu) } else { vmx.vmlaunch(cpu) }) {
            Some(Ok(EntryOutcome::Entered)) => {
                self.launched = true;
                Ok(true)
            }
            Some(Ok(EntryOutcome::Exited(_))) => Ok(false),
            Some(Err(fail)) => Err(EntryRefused(fail.to_string())),
            None => Err(EntryRefused("the processor has no VMX".to_owned())),
        }
    }

    fn report(&mut self, cpu: &mut Cpu) -> Report {
        with(cpu, |vmx, cpu| self.read_report(vmx, cpu)).unwrap_or(Report {
            exit: Exit::Vendor(u64::MAX),
            rip: self.rip,
            length: None,
            info: ExitInfo { reason: Name::Code(u64::MAX), failed_entry: true, info1: 0, info2: 0, intr_info: 0, error_code: 0 },
        })
    }

    fn rip(&self) -> u64 {
        self.rip
    }

    fn set_rip(&mut self, cpu: &mut Cpu, rip: u64) {
        self.rip = rip;
        set(cpu, F::GuestRip, rip);
    }

    fn rflags(&mut self, cpu: &mut Cpu) -> Rflags {
        Rflags::from_bits(get(cpu, F::GuestRflags))
    }

    fn is_64bit(&mut self, cpu: &mut Cpu) -> bool {
        let long_mode = self.long_mode(cpu);
        with(cpu, |vmx, cpu| long_mode && Attributes::from_bits(read(vmx, cpu, F::GuestCsAccessRights) as u32).l()).unwrap_or(false)
    }

    fn long_mode(&mut self, cpu: &mut Cpu) -> bool {
        // Under shadow paging every change of it exits, and not every processor has the field.
        self.shadowed.as_ref().map_or_else(|| Efer::from_bits(get(cpu, F::GuestEfer)), |shadowed| shadowed.efer).lma()
    }

    fn cpl(&mut self, cpu: &mut Cpu) -> u8 {
        with(cpu, |vmx, cpu| {
            if !Cr0::from_bits(read(vmx, cpu, F::GuestCr0)).pe() {
                0
            } else if Rflags::from_bits(read(vmx, cpu, F::GuestRflags)).vm() {
                3
            } else {
                Attributes::from_bits(read(vmx, cpu, F::GuestSsAccessRights) as u32).dpl()
            }
        })
        .unwrap_or(0)
    }

    fn interrupted(&mut self, cpu: &mut Cpu) -> Option<Event> {
        let event = with(cpu, |vmx, cpu| {
            let information = InterruptionInformation::from_bits(read(vmx, cpu, F::IdtVectoringInformation) as u32);
            if !information.valid() {
                return None;
            }
            let kind = match information.interruption_type() {
                InterruptionType::ExternalInterrupt => EventKind::External,
                InterruptionType::Nmi => EventKind::Nmi,
                InterruptionType::HardwareException => EventKind::Exception,
                InterruptionType::SoftwareInterrupt => EventKind::SoftwareInterrupt,
                InterruptionType::PrivilegedSoftwareException => EventKind::PrivilegedSoftware,
                InterruptionType::SoftwareException => EventKind::SoftwareException,
                InterruptionType::Reserved | InterruptionType::OtherEvent => return None,
            };
            if kind != EventKind::Exception {
                // SDM 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP": the fault on its way set RF, which is no part of this event.
                let rflags = Rflags::from_bits(read(vmx, cpu, F::GuestRflags));
                write(vmx, cpu, F::GuestRflags, rflags.with_rf(false).into_bits());
            }
            if kind == EventKind::Nmi {
                // It will block NMIs again when it is injected; while it is marked as blocking, VM entry refuses it.
                let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
                write(vmx, cpu, F::GuestInterruptibilityState, state.with_blocking_by_nmi(false).into_bits().into());
            }
            let error_code = information.error_code_valid().then(|| read(vmx, cpu, F::IdtVectoringErrorCode) as u32);
            let software = information.interruption_type().is_software();
            let length = if software { read(vmx, cpu, F::ExitInstructionLength) as u8 } else { 0 };
            Some(Event { kind, vector: information.vector(), error_code, length })
        })?;
        if event.is_some_and(|event| event.kind == EventKind::Nmi) {
            self.nmi_blocked = self.nmi_blocked.map(|_| false);
        }
        event
    }

    fn window(&mut self, cpu: &mut Cpu) -> Window {
        let blocked = self.nmi_blocked == Some(true);
        with(cpu, |vmx, cpu| {
            let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
            let shadow = state.blocking_by_sti() || state.blocking_by_mov_ss();
            let interrupts = Rflags::from_bits(read(vmx, cpu, F::GuestRflags)).r#if();
            Window { interrupt: interrupts && !shadow, nmi: !shadow && !state.blocking_by_nmi() && !blocked }
        })
        .unwrap_or(Window { interrupt: false, nmi: false })
    }

    fn request_window(&mut self, cpu: &mut Cpu, wanted: Window) {
        let primary = if self.nmi_blocked.is_some() {
            // Nothing tells when NMIs are possible again: that is taken to be when interrupts are.
            self.primary.with_interrupt_window_exiting(wanted.interrupt || wanted.nmi)
        } else {
            self.primary.with_interrupt_window_exiting(wanted.interrupt).with_nmi_window_exiting(wanted.nmi)
        };
        if primary != self.primary {
            self.primary = primary;
            set(cpu, F::PrimaryProcessorBasedControls, primary.into_bits().into());
        }
    }

    fn inject(&mut self, cpu: &mut Cpu, event: &Event) {
        let kind = match event.kind {
            EventKind::External => InterruptionType::ExternalInterrupt,
            EventKind::Nmi => InterruptionType::Nmi,
            EventKind::Exception => InterruptionType::HardwareException,
            EventKind::SoftwareInterrupt => InterruptionType::SoftwareInterrupt,
            EventKind::PrivilegedSoftware => InterruptionType::PrivilegedSoftwareException,
            EventKind::SoftwareException => InterruptionType::SoftwareException,
        };
        let injected = with(cpu, |vmx, cpu| {
            // SDM 27.2.1.3 "VM-Entry Control Fields": no error code is delivered in real-address mode, and it has 16 bits.
            let protected = event.error_code.is_some() && Cr0::from_bits(read(vmx, cpu, F::GuestCr0)).pe();
            let error_code = event.error_code.filter(|_| protected).map(|code| code & 0xffff);
            let information = InterruptionInformation::event(kind, event.vector, error_code.is_some());
            write(vmx, cpu, F::EntryInterruptionInformation, information.into_bits().into());
            if let Some(code) = error_code {
                write(vmx, cpu, F::EntryExceptionErrorCode, code.into());
            }
            if kind.is_software() {
                write(vmx, cpu, F::EntryInstructionLength, event.length.into());
            }
            (information.into_bits(), error_code.unwrap_or(0))
        });
        self.injected = injected.unwrap_or((0, 0));
        if event.kind == EventKind::Nmi {
            self.nmi_blocked = self.nmi_blocked.map(|_| true);
        }
    }

    fn injected(&self) -> (u32, u32) {
        self.injected
    }

    fn set_exception_state(&mut self, cpu: &mut Cpu, address: Option<u64>, debug: u64) {
        // Neither CR2 nor DR6 is in the VMCS: the processor has the guest's.
        cpu.cr2 = address.unwrap_or(cpu.cr2);
        cpu.dr6 = Dr6::from_bits(cpu.dr6.into_bits() | debug);
    }

    fn shadow(&mut self, cpu: &mut Cpu) -> Shadow {
        shadow_of(Interruptibility::from_bits(get(cpu, F::GuestInterruptibilityState) as u32))
    }

    fn set_shadow(&mut self, cpu: &mut Cpu, shadow: Shadow) {
        with(cpu, |vmx, cpu| {
            let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
            let state = state.with_blocking_by_sti(shadow == Shadow::Sti).with_blocking_by_mov_ss(shadow == Shadow::MovSs);
            write(vmx, cpu, F::GuestInterruptibilityState, state.into_bits().into());
        });
    }

    fn intercept_exceptions(&mut self, cpu: &mut Cpu, vectors: u32) {
        // With mask and match zero every page fault exits. SDM 25.6.3 "Exception Bitmap".
        let faults = if self.shadowed.is_some() { 1 << PAGE_FAULT } else { 0 };
        set(cpu, F::ExceptionBitmap, (vectors | faults).into());
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        let (eptp, vpid) = (self.eptp, self.vpid);
        with(cpu, |vmx, cpu| {
            let done = match (eptp, vpid) {
                (Some(eptp), _) => vmx.invept(cpu, InveptType::SingleContext as u64, [eptp, 0]),
                (None, Some(vpid)) => vmx.invvpid(cpu, InvvpidType::SingleContext as u64, [vpid.into(), 0]),
                // SDM 29.4.3.1 "Operations that Invalidate Cached Mappings": without VPIDs every VM entry does it.
                (None, None) => Ok(()),
            };
            debug_assert!(done.is_ok(), "INVEPT or INVVPID: {done:?}");
        });
    }

    fn invalidate(&mut self, cpu: &mut Cpu, linear: u64) {
        let Some(vpid) = self.vpid else { return };
        with(cpu, |vmx, cpu| {
            let done = vmx.invvpid(cpu, InvvpidType::IndividualAddress as u64, [vpid.into(), linear]);
            debug_assert!(done.is_ok(), "INVVPID: {done:?}");
        });
    }

    fn paging_changed(&mut self) -> bool {
        self.shadowed.as_mut().is_some_and(|shadowed| std::mem::take(&mut shadowed.changed))
    }

    fn set_root(&mut self, cpu: &mut Cpu, root: u64) {
        if let Some(shadowed) = &mut self.shadowed {
            shadowed.root = root;
            set(cpu, F::GuestCr3, root);
            self.flush(cpu);
        }
    }

    fn set_tsc(&mut self, cpu: &mut Cpu, setting: TscSetting) -> bool {
        let scales = self.scales_tsc;
        with(cpu, |vmx, cpu| {
            write(vmx, cpu, F::TscOffset, setting.offset);
            if scales {
                write(vmx, cpu, F::TscMultiplier, setting.ratio << 16);
            }
        });
        scales || setting.ratio == 1 << 32
    }

    fn task_priority(&mut self, _cpu: &mut Cpu) -> Option<u8> {
        None
    }

    fn set_task_priority(&mut self, _cpu: &mut Cpu, _class: u8) {}

    fn logs_writes(model: &'static CpuModel) -> bool {
        let has = |vmx: &isa::vmx::VmxCapabilities| vmx.may_be_one(SecondaryControls::ENABLE_PML) && vmx.ept_vpid.accessed_dirty();
        model.vmx.as_ref().is_some_and(has)
    }

    /// SDM 29.3.6 "Page-Modification Logging".
    fn log_writes(&mut self, cpu: &mut Cpu, on: bool) {
        let log = self.log;
        with(cpu, |vmx, cpu| {
            if on {
                write(vmx, cpu, F::PmlAddress, log);
                write(vmx, cpu, F::PmlIndex, LAST_LOG_ENTRY);
            }
            let secondary = SecondaryControls::from_bits(read(vmx, cpu, F::SecondaryProcessorBasedControls) as u32);
            write(vmx, cpu, F::SecondaryProcessorBasedControls, secondary.with_enable_pml(on).into_bits().into());
        });
    }

    /// The index counts down; it is that of the entry to be written next, and wraps around to 0xffff behind the last.
    fn take_logged(&mut self, cpu: &mut Cpu) -> Vec<u64> {
        let log = self.log;
        with(cpu, |vmx, cpu| {
            let index = read(vmx, cpu, F::PmlIndex);
            if index == LAST_LOG_ENTRY {
                return Vec::new();
            }
            write(vmx, cpu, F::PmlIndex, LAST_LOG_ENTRY);
            let first = if index > LAST_LOG_ENTRY { 0 } else { index + 1 };
            (first..=LAST_LOG_ENTRY).rev().map(|entry| cpu.read_physical(log + entry * 8, 8)).collect()
        })
        .unwrap_or_default()
    }

    fn load(&mut self, cpu: &mut Cpu, registers: &Registers) {
        // A guest comes from AMD: what the processor lacks it finds cleared, whoever keeps EFER for it.
        let mut cleared;
        let registers = if registers.efer.into_bits() & AMD_EFER == 0 {
            registers
        } else {
            cleared = registers.clone();
            cleared.efer = Efer::from_bits(registers.efer.into_bits() & !AMD_EFER);
            &cleared
        };
        self.rip = registers.rip;
        let host = (cpu.msrs.pat, cpu.msrs.sysenter_cs, cpu.msrs.sysenter_esp, cpu.msrs.sysenter_eip);
        registers.put_shared(cpu);
        // Those are in the VMCS, and the processor has the host's.
        (cpu.msrs.pat, cpu.msrs.sysenter_cs, cpu.msrs.sysenter_esp, cpu.msrs.sysenter_eip) = host;
        if with(cpu, |vmx, _| exists(vmx, F::GuestPat)) == Some(false) {
            cpu.msrs.pat = registers.msrs.pat;
        }
        self.nmi_blocked = self.nmi_blocked.map(|_| registers.nmi_blocked);
        cpu.msrs.debugctl = 0;
        cpu.regs[..16].copy_from_slice(&registers.gprs);
        cpu.cr2 = registers.cr2;
        cpu.dr6 = registers.dr6;
        if let Some(shadowed) = &mut self.shadowed {
            let real = shadowed.hide(registers);
            with(cpu, |vmx, cpu| load_fields(vmx, cpu, registers, &real, true));
            return;
        }
        let Some(restricted) = &mut self.restricted else {
            with(cpu, |vmx, cpu| load_fields(vmx, cpu, registers, registers, false));
            return;
        };
        let was_off = restricted.paging_off;
        let real = restricted.hide(registers);
        let off = restricted.paging_off;
        with(cpu, |vmx, cpu| load_fields(vmx, cpu, registers, &real, true));
        let primary = self.primary.with_cr3_load_exiting(off).with_cr3_store_exiting(off);
        if primary != self.primary {
            self.primary = primary;
            set(cpu, F::PrimaryProcessorBasedControls, primary.into_bits().into());
        }
        if was_off != off {
            self.flush(cpu);
        }
    }

    fn save(&mut self, cpu: &mut Cpu) -> Registers {
        let mut registers = Registers::of(cpu);
        with(cpu, |vmx, cpu| save_fields(vmx, cpu, &mut registers));
        self.show(&mut registers);
        if !registers.pae_paging() {
            registers.pdptes = [0; 4];
        }
        registers.nmi_blocked = self.nmi_blocked.unwrap_or(registers.nmi_blocked);
        registers
    }

    fn show(&self, registers: &mut Registers) {
        if let Some(restricted) = &self.restricted {
            restricted.show(registers);
        }
        if let Some(shadowed) = &self.shadowed {
            shadowed.show(registers);
        }
    }

    fn explain(&mut self, cpu: &mut Cpu) -> Vec<String> {
        with(cpu, |vmx, cpu| {
            vmx.explain(cpu).into_iter().map(|(_, check)| format!("{} ({}: {})", check.rule, check.id, check.section)).collect()
        })
        .unwrap_or_default()
    }
}

impl VmxBackend {
    /// After an exit, without virtual NMIs: their blocking counts as over once the guest takes interrupts, and what the VMCS says of it is the
    /// host's own.
    fn track_nmis(&mut self, vmx: &mut Vmx, cpu: &mut Cpu) {
        let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
        if Rflags::from_bits(read(vmx, cpu, F::GuestRflags)).r#if() && shadow_of(state) == Shadow::None {
            self.nmi_blocked = Some(false);
        }
        write(vmx, cpu, F::GuestInterruptibilityState, state.with_blocking_by_nmi(false).into_bits().into());
    }

    /// Reads what tells of an exit: never more than the reason needs.
    fn read_report(&mut self, vmx: &mut Vmx, cpu: &mut Cpu) -> Report {
        let field = ExitReasonField::from_bits(read(vmx, cpu, F::ExitReason) as u32);
        let qualification = read(vmx, cpu, F::ExitQualification);
        if self.nmi_blocked.is_some() {
            self.track_nmis(vmx, cpu);
        }
        self.rip = read(vmx, cpu, F::GuestRip);
        cpu.regs[Gpr::Rsp.number()] = read(vmx, cpu, F::GuestRsp);
        let reason = field.reason();
        let failed_entry = field.entry_failure();
        let name = match reason {
            Ok(reason) => reason.kvm_name().map_or(Name::Code(reason as u64), Name::Text),
            Err(unknown) => Name::Code(unknown.0.into()),
        };
        let mut info = ExitInfo { reason: name, failed_entry, info1: qualification, info2: 0, intr_info: 0, error_code: 0 };
        if failed_entry {
            return Report { exit: Exit::EntryFailure, rip: self.rip, length: None, info };
        }
        info.info2 = read(vmx, cpu, F::IdtVectoringInformation);
        let interruption = InterruptionInformation::from_bits(read(vmx, cpu, F::ExitInterruptionInformation) as u32);
        info.intr_info = interruption.into_bits();
        if interruption.valid() && interruption.error_code_valid() {
            info.error_code = read(vmx, cpu, F::ExitInterruptionErrorCode) as u32;
        }
        let Ok(reason) = reason else {
            return Report { exit: Exit::Vendor(field.basic().into()), rip: self.rip, length: None, info };
        };
        // SDM 28.2.3 "Information About NMI Unblocking Due to IRET": an IRET that faulted will be executed again, with NMIs as blocked as before.
        let unblocked = match reason {
            ExitReason::ExceptionOrNmi => interruption.nmi_unblocking_due_to_iret() && u32::from(interruption.vector()) == PAGE_FAULT,
            ExitReason::EptViolation | ExitReason::PageModificationLogFull => {
                EptViolationQualification::from_bits(qualification).nmi_unblocking_due_to_iret()
            }
            _ => false,
        };
        if unblocked && self.nmi_blocked.is_none() && info.info2 >> 31 == 0 {
            let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
            write(vmx, cpu, F::GuestInterruptibilityState, state.with_blocking_by_nmi(true).into_bits().into());
        }
        let exit = classify(vmx, cpu, reason, qualification, interruption, info.error_code);
        let length = has_length(reason).then(|| read(vmx, cpu, F::ExitInstructionLength) as u8);
        Report { exit, rip: self.rip, length, info }
    }
}

/// The neutral word for an exit.
fn classify(
    vmx: &mut Vmx,
    cpu: &mut Cpu,
    reason: ExitReason,
    qualification: u64,
    interruption: InterruptionInformation,
    error_code: u32,
) -> Exit {
    match reason {
        ExitReason::Vmcall => Exit::Hypercall,
        ExitReason::ExceptionOrNmi if interruption.interruption_type() == InterruptionType::Nmi => Exit::Nmi,
        ExitReason::ExceptionOrNmi => Exit::Exception {
            vector: interruption.vector(),
            error_code: interruption.error_code_valid().then_some(error_code),
            detail: qualification,
        },
        ExitReason::ExternalInterrupt => Exit::ExternalInterrupt,
        ExitReason::TripleFault => Exit::Shutdown,
        ExitReason::InterruptWindow => Exit::InterruptWindow,
        ExitReason::NmiWindow => Exit::NmiWindow,
        ExitReason::Cpuid => Exit::Cpuid,
        ExitReason::Hlt => Exit::Halt,
        ExitReason::Invd | ExitReason::WbinvdOrWbnoinvd => Exit::CacheFlush,
        ExitReason::Rdpmc => Exit::PerformanceCounter,
        ExitReason::Rdmsr => Exit::Msr { write: false },
        ExitReason::Wrmsr => Exit::Msr { write: true },
        ExitReason::Xsetbv => Exit::Xsetbv,
        ExitReason::IoInstruction => {
            let io = IoQualification::from_bits(qualification);
            Exit::Port(Port { port: io.port(), width: io.size(), input: io.input(), string: io.string() })
        }
        ExitReason::ControlRegisterAccess => {
            let access = ControlRegisterQualification::from_bits(qualification);
            let mov = matches!(access.access_type(), ControlRegisterAccessType::MovToCr | ControlRegisterAccessType::MovFromCr);
            Exit::Control {
                register: access.register(),
                write: access.access_type() != ControlRegisterAccessType::MovFromCr,
                gpr: mov.then_some(access.general_register()),
            }
        }
        ExitReason::Invlpg => Exit::Invalidate { linear: Some(qualification) },
        ExitReason::Invpcid => Exit::Invalidate { linear: None },
        ExitReason::EptViolation | ExitReason::EptMisconfiguration => {
            let violation = EptViolationQualification::from_bits(qualification);
            let access = if violation.write() {
                Access::Write
            } else if violation.fetch() {
                Access::Fetch
            } else {
                Access::Read
            };
            Exit::NestedFault {
                guest_physical: read(vmx, cpu, F::GuestPhysicalAddress),
                access,
                writes: violation.write(),
                error_code: qualification,
                malformed: reason == ExitReason::EptMisconfiguration,
            }
        }
        ExitReason::PageModificationLogFull => Exit::LogFull,
        ExitReason::TaskSwitch => {
            let task = TaskSwitchQualification::from_bits(qualification);
            let source = match task.source() {
                isa::vmx::TaskSwitchSource::Call => TaskSwitchSource::Call,
                isa::vmx::TaskSwitchSource::Iret => TaskSwitchSource::Iret,
                isa::vmx::TaskSwitchSource::Jmp => TaskSwitchSource::Jump,
                isa::vmx::TaskSwitchSource::TaskGateInIdt => TaskSwitchSource::Gate,
            };
            let event = InterruptionInformation::from_bits(read(vmx, cpu, F::IdtVectoringInformation) as u32);
            let outside = event.valid() && !event.interruption_type().is_software();
            let code = (outside && event.error_code_valid()).then(|| read(vmx, cpu, F::IdtVectoringErrorCode) as u32);
            Exit::TaskSwitch(TaskSwitch {
                selector: task.selector(),
                source,
                by_instruction: source != TaskSwitchSource::Gate || !outside,
                error_code: code,
                resume_flag: Rflags::from_bits(read(vmx, cpu, F::GuestRflags)).rf(),
            })
        }
        ExitReason::Vmclear
        | ExitReason::Vmlaunch
        | ExitReason::Vmptrld
        | ExitReason::Vmptrst
        | ExitReason::Vmread
        | ExitReason::Vmresume
        | ExitReason::Vmwrite
        | ExitReason::Vmxoff
        | ExitReason::Vmxon
        | ExitReason::Invept
        | ExitReason::Invvpid
        | ExitReason::Vmfunc
        | ExitReason::Monitor
        | ExitReason::Mwait
        | ExitReason::Getsec => Exit::NotOffered,
        other => Exit::Vendor(other as u64),
    }
}

/// Whether the VM-exit instruction length is defined. SDM 28.2.5 "Information for VM Exits Due to Instruction Execution".
fn has_length(reason: ExitReason) -> bool {
    matches!(
        reason,
        ExitReason::Vmcall
            | ExitReason::Cpuid
            | ExitReason::Hlt
            | ExitReason::Invd
            | ExitReason::WbinvdOrWbnoinvd
            | ExitReason::Rdpmc
            | ExitReason::Rdmsr
            | ExitReason::Wrmsr
            | ExitReason::Xsetbv
            | ExitReason::IoInstruction
            | ExitReason::TaskSwitch
            | ExitReason::ControlRegisterAccess
            | ExitReason::Invlpg
            | ExitReason::Invpcid
    )
}
