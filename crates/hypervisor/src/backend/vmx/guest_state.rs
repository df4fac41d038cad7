//! Registers into the guest-state area of the VMCS, and out of it.

use super::controls::entry_controls;
use super::{read, write};
use crate::state::{Registers, fit_vmx, fit_vmx_tr, fitted};
use ::vmx::Vmx;
use cpu::state::{Cpu, Shadow};
use isa::control::{Cr0, Cr4, Efer};
use isa::debug::Dr7;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use isa::vmx::VmcsField as F;
use isa::vmx::{Interruptibility, PendingDebugExceptions, PinBasedControls};

/// Bits of CR4 that the guest owns: those that change neither paging nor what the hypervisor has to know of.
pub(super) const GUEST_CR4: u64 = Cr4::new()
    .with_pvi(true)
    .with_tsd(true)
    .with_de(true)
    .with_pge(true)
    .with_pce(true)
    .with_osfxsr(true)
    .with_osxmmexcpt(true)
    .with_fsgsbase(true)
    .into_bits();
/// Bits of CR0 that the guest owns.
pub(super) const GUEST_CR0: u64 = Cr0::new().with_ts(true).into_bits();
/// Bits of CR0 that the guest sees, but that the processor does not get: caches are not modelled.
pub(super) const CACHE_BITS: u64 = Cr0::new().with_cd(true).with_nw(true).into_bits();

/// The VMCS fields of the segment registers: selector, base, limit, access rights.
pub(super) const SEGMENTS: [[F; 4]; 6] = [
    [F::GuestEsSelector, F::GuestEsBase, F::GuestEsLimit, F::GuestEsAccessRights],
    [F::GuestCsSelector, F::GuestCsBase, F::GuestCsLimit, F::GuestCsAccessRights],
    [F::GuestSsSelector, F::GuestSsBase, F::GuestSsLimit, F::GuestSsAccessRights],
    [F::GuestDsSelector, F::GuestDsBase, F::GuestDsLimit, F::GuestDsAccessRights],
    [F::GuestFsSelector, F::GuestFsBase, F::GuestFsLimit, F::GuestFsAccessRights],
    [F::GuestGsSelector, F::GuestGsBase, F::GuestGsLimit, F::GuestGsAccessRights],
];
pub(super) const LDTR: [F; 4] = [F::GuestLdtrSelector, F::GuestLdtrBase, F::GuestLdtrLimit, F::GuestLdtrAccessRights];
pub(super) const TR: [F; 4] = [F::GuestTrSelector, F::GuestTrBase, F::GuestTrLimit, F::GuestTrAccessRights];
pub(super) const PDPTES: [F; 4] = [F::GuestPdpte0, F::GuestPdpte1, F::GuestPdpte2, F::GuestPdpte3];

pub(super) fn shadow_of(state: Interruptibility) -> Shadow {
    if state.blocking_by_mov_ss() {
        Shadow::MovSs
    } else if state.blocking_by_sti() {
        Shadow::Sti
    } else {
        Shadow::None
    }
}

pub(super) fn load_segment(vmx: &mut Vmx, cpu: &mut Cpu, fields: [F; 4], segment: &SegmentRegister) {
    write(vmx, cpu, fields[0], segment.selector.into_bits().into());
    write(vmx, cpu, fields[1], segment.base);
    write(vmx, cpu, fields[2], segment.limit.into());
    write(vmx, cpu, fields[3], segment.attributes.into_bits().into());
}

pub(super) fn save_segment(vmx: &mut Vmx, cpu: &mut Cpu, fields: [F; 4]) -> SegmentRegister {
    SegmentRegister {
        selector: Selector::from_bits(read(vmx, cpu, fields[0]) as u16),
        base: read(vmx, cpu, fields[1]),
        limit: read(vmx, cpu, fields[2]) as u32,
        attributes: Attributes::from_bits(read(vmx, cpu, fields[3]) as u32),
    }
}

/// Whether the processor has a field.
pub(super) fn exists(vmx: &Vmx, field: F) -> bool {
    vmx.capabilities().has_field(field)
}

/// VMWRITE of a field that not every processor has.
fn write_optional(vmx: &mut Vmx, cpu: &mut Cpu, field: F, value: u64) {
    if exists(vmx, field) {
        write(vmx, cpu, field, value);
    }
}

/// Loads the guest's registers; where they differ, the processor gets those of `real`, and the shadows show the guest's own.
pub(super) fn load_fields(vmx: &mut Vmx, cpu: &mut Cpu, registers: &Registers, real: &Registers, restricted: bool) {
    let (fixed_cr0, fixed_cr4, entry) = {
        let fixed = vmx.capabilities();
        (fixed.cr0_fixed0, fixed.cr4_fixed0, fixed.entry)
    };
    let cr0 = registers.cr0.into_bits();
    // With unrestricted guests PE and PG are the guest's.
    let free = if restricted { Cr0::new() } else { Cr0::new().with_pe(true).with_pg(true) };
    let fixed_cr0 = fixed_cr0 & !free.into_bits();
    write(vmx, cpu, F::GuestCr0, real.cr0.into_bits() & !CACHE_BITS | fixed_cr0);
    write(vmx, cpu, F::Cr0ReadShadow, cr0);
    let cr4 = registers.cr4.into_bits();
    write(vmx, cpu, F::GuestCr4, real.cr4.into_bits() | fixed_cr4);
    write(vmx, cpu, F::Cr4ReadShadow, cr4);
    write(vmx, cpu, F::GuestCr3, real.cr3);
    let efer = real.efer.with_svme(false);
    if exists(vmx, F::GuestEfer) {
        write(vmx, cpu, F::GuestEfer, efer.into_bits());
    } else {
        // SDM 27.3.2.1 "Loading Guest Control Registers, Debug Registers, and MSRs": VM entry sets LMA and LME, the software the rest.
        cpu.efer = cpu.efer.with_sce(efer.sce()).with_nxe(efer.nxe());
    }
    write(vmx, cpu, F::EntryControls, entry.adjust(entry_controls(efer.lma()).into_bits()).into());
    for (field, value) in PDPTES.into_iter().zip(registers.pdptes) {
        write_optional(vmx, cpu, field, value);
    }
    for (index, fields) in SEGMENTS.into_iter().enumerate() {
        load_segment(vmx, cpu, fields, &fitted(registers, index));
    }
    load_segment(vmx, cpu, LDTR, &fit_vmx(registers.ldtr));
    load_segment(vmx, cpu, TR, &fit_vmx_tr(registers.tr));
    write(vmx, cpu, F::GuestGdtrBase, registers.gdtr.base);
    write(vmx, cpu, F::GuestGdtrLimit, registers.gdtr.limit.into());
    write(vmx, cpu, F::GuestIdtrBase, registers.idtr.base);
    write(vmx, cpu, F::GuestIdtrLimit, registers.idtr.limit.into());
    write(vmx, cpu, F::GuestRip, registers.rip);
    write(vmx, cpu, F::GuestRsp, registers.gprs[Gpr::Rsp.number()]);
    write(vmx, cpu, F::GuestRflags, registers.rflags.normalized().into_bits());
    write(vmx, cpu, F::GuestDr7, registers.dr7.into_bits() & 0xffff_ffff);
    write(vmx, cpu, F::GuestDebugctl, registers.msrs.debugctl & cpu.model.last_branches.debugctl);
    write_optional(vmx, cpu, F::GuestPat, registers.msrs.pat);
    write(vmx, cpu, F::GuestSysenterCs, registers.msrs.sysenter_cs);
    write(vmx, cpu, F::GuestSysenterEsp, registers.msrs.sysenter_esp);
    write(vmx, cpu, F::GuestSysenterEip, registers.msrs.sysenter_eip);
    // Without virtual NMIs this bit blocks the host's own.
    let virtual_nmis = vmx.capabilities().may_be_one(PinBasedControls::VIRTUAL_NMIS);
    let state = Interruptibility::new()
        .with_blocking_by_sti(registers.shadow == Shadow::Sti)
        .with_blocking_by_mov_ss(registers.shadow == Shadow::MovSs)
        .with_blocking_by_nmi(registers.nmi_blocked && virtual_nmis);
    write(vmx, cpu, F::GuestInterruptibilityState, state.into_bits().into());
    write(vmx, cpu, F::GuestActivityState, 0);
    // SDM 27.3.1.5 "Checks on Guest Non-Register State": in a shadow with TF set, the single step must be pending.
    let steps = registers.shadow != Shadow::None && registers.rflags.tf();
    let breakpoints = (registers.pending_debug & 0xf) as u8;
    let pending = PendingDebugExceptions::new()
        .with_breakpoints(breakpoints)
        .with_enabled_breakpoint(breakpoints != 0)
        .with_single_step(registers.pending_debug >> 14 & 1 != 0 || steps);
    write(vmx, cpu, F::GuestPendingDebugExceptions, pending.into_bits());
}

pub(super) fn save_fields(vmx: &mut Vmx, cpu: &mut Cpu, registers: &mut Registers) {
    let view = |guest: u64, shadow: u64, owned: u64| guest & owned | shadow & !owned;
    let (cr0, cr0_shadow) = (read(vmx, cpu, F::GuestCr0), read(vmx, cpu, F::Cr0ReadShadow));
    registers.cr0 = Cr0::from_bits(view(cr0, cr0_shadow, GUEST_CR0));
    let (cr4, cr4_shadow) = (read(vmx, cpu, F::GuestCr4), read(vmx, cpu, F::Cr4ReadShadow));
    registers.cr4 = Cr4::from_bits(view(cr4, cr4_shadow, GUEST_CR4));
    registers.cr3 = read(vmx, cpu, F::GuestCr3);
    if exists(vmx, F::GuestEfer) {
        registers.efer = Efer::from_bits(read(vmx, cpu, F::GuestEfer));
    }
    if exists(vmx, PDPTES[0]) {
        registers.pdptes = PDPTES.map(|field| read(vmx, cpu, field));
    }
    registers.segments = SEGMENTS.map(|fields| save_segment(vmx, cpu, fields));
    registers.ldtr = save_segment(vmx, cpu, LDTR);
    registers.tr = save_segment(vmx, cpu, TR);
    let table =
        |vmx: &mut Vmx, cpu: &mut Cpu, base, limit| TableRegister { base: read(vmx, cpu, base), limit: read(vmx, cpu, limit) as u16 };
    registers.gdtr = table(vmx, cpu, F::GuestGdtrBase, F::GuestGdtrLimit);
    registers.idtr = table(vmx, cpu, F::GuestIdtrBase, F::GuestIdtrLimit);
    registers.rip = read(vmx, cpu, F::GuestRip);
    registers.gprs[Gpr::Rsp.number()] = read(vmx, cpu, F::GuestRsp);
    registers.rflags = Rflags::from_bits(read(vmx, cpu, F::GuestRflags));
    registers.cpl = if !registers.cr0.pe() {
        0
    } else if registers.rflags.vm() {
        3
    } else {
        registers.segments[Segment::Ss as usize].attributes.dpl()
    };
    registers.dr7 = Dr7::from_bits(read(vmx, cpu, F::GuestDr7));
    registers.msrs.debugctl = read(vmx, cpu, F::GuestDebugctl);
    if exists(vmx, F::GuestPat) {
        registers.msrs.pat = read(vmx, cpu, F::GuestPat);
    }
    registers.msrs.sysenter_cs = read(vmx, cpu, F::GuestSysenterCs);
    registers.msrs.sysenter_esp = read(vmx, cpu, F::GuestSysenterEsp);
    registers.msrs.sysenter_eip = read(vmx, cpu, F::GuestSysenterEip);
    let state = Interruptibility::from_bits(read(vmx, cpu, F::GuestInterruptibilityState) as u32);
    registers.shadow = shadow_of(state);
    registers.nmi_blocked = state.blocking_by_nmi();
    let pending = PendingDebugExceptions::from_bits(read(vmx, cpu, F::GuestPendingDebugExceptions));
    registers.pending_debug = u64::from(pending.breakpoints()) | u64::from(pending.single_step()) << 14;
}
