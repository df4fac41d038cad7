//! Checks on the guest's control registers, debug registers and MSRs.
//!
//! Modelled: SDM 27.3.1.1. No CPU model of ours loads IA32_PERF_GLOBAL_CTRL, IA32_BNDCFGS, IA32_RTIT_CTL, IA32_LBR_CTL, UINV, CET state or PKRS:
//! the machine refuses the control first. Their rules are for the auditor, who is given the VMCS of processors that do. Not modelled: FRED.

use crate::checks::{Entry, checks, is_pat, is_s_cet};
use isa::control::Cr0;
use isa::paging::is_canonical;
use isa::vmx::VmcsField;

/// Bits of IA32_DEBUGCTL that are not reserved. SDM 18.4.1 "IA32_DEBUGCTL MSR".
const DEBUGCTL_DEFINED: u64 = 0xffc3;

/// Bits of IA32_BNDCFGS that are reserved. SDM volume 1, appendix E.3 "Intel MPX Configuration Registers".
const BNDCFGS_RESERVED: u64 = 0xffc;

/// Bits of IA32_RTIT_CTL that are not reserved. SDM 33.2.8 "Trace Packets and Enabling MSRs".
const RTIT_CTL_DEFINED: u64 = 0x0180_ffff_8f7b_ffff;

/// Bits of IA32_LBR_CTL that are not reserved. SDM 19.1.2 "LBR Configuration and Enabling".
const LBR_CTL_DEFINED: u64 = 0x007f_000f;

checks! {
    /// All checks of the phase, in our order.
    CHECKS, "27.3.1.1 Checks on Guest Control Registers, Debug Registers, and MSRs";

    "guest-cr0-fixed", "CR0 has no bit that VMX operation does not support; an unrestricted guest may have PE and PG 0",
        [GuestCr0 PrimaryProcessorBasedControls SecondaryProcessorBasedControls]
        => |e| {
            // CD and NW are never checked, because VM entry does not change them.
            let unchecked = Cr0::new().with_cd(true).with_nw(true).into_bits();
            let cr0 = e.get(VmcsField::GuestCr0);
            let fixed0 = guest_cr0_fixed0(e) & !unchecked;
            cr0 & fixed0 == fixed0 && cr0 & !(e.capabilities.cr0_fixed1 | unchecked) == 0
        },
        hint "OR with IA32_VMX_CR0_FIXED0, which has NE, and AND with FIXED1; PE or PG 0 needs \"unrestricted guest\".";
    "guest-cr0-pg-needs-pe", "With CR0.PG, CR0.PE is 1", [GuestCr0], if |e| e.cr0().pg() => |e| e.cr0().pe();
    "guest-cr4-fixed", "CR4 has no bit that VMX operation does not support", [GuestCr4]
        => |e| {
            let cr4 = e.get(VmcsField::GuestCr4);
            cr4 & e.capabilities.cr4_fixed0 == e.capabilities.cr4_fixed0 && cr4 & !e.capabilities.cr4_fixed1 == 0
        },
        hint "VMXE stays 1 in the guest's real CR4; the guest/host mask and the read shadow hide it.";
    "guest-cr4-cet", "With CR4.CET, CR0.WP is 1", [GuestCr0 GuestCr4], if |e| e.cr4().cet() => |e| e.cr0().wp();
    "guest-debugctl", "Reserved bits of IA32_DEBUGCTL are 0", [EntryControls GuestDebugctl], if |e| e.entry().load_debug_controls()
        => |e| e.get(VmcsField::GuestDebugctl) & (!DEBUGCTL_DEFINED | e.facts.debugctl_reserved) == 0;
    "guest-ia32e-paging", "An IA-32e mode guest has CR0.PG and CR4.PAE 1", [EntryControls GuestCr0 GuestCr4],
        if |e| e.entry().ia32e_mode_guest()
        => |e| e.cr0().pg() && e.cr4().pae(),
        hint "\"IA-32e mode guest\" is for a guest that has paging on in long mode; clear it when the guest turns paging off.";
    "guest-pcide-needs-ia32e", "A guest outside IA-32e mode has CR4.PCIDE 0", [EntryControls GuestCr4],
        if |e| !e.entry().ia32e_mode_guest()
        => |e| !e.cr4().pcide();
    "guest-cr3", "CR3 has no bit beyond the physical-address width", [GuestCr3]
        => |e| e.get(VmcsField::GuestCr3).checked_shr(u32::from(e.facts.physical_address_width)).unwrap_or(0) == 0,
        hint "Bit 63 of a value for MOV to CR3 only says what to flush; it is not stored.";
    "guest-dr7", "Bits 63:32 of DR7 are 0", [EntryControls GuestDr7], if |e| e.entry().load_debug_controls()
        => |e| e.get(VmcsField::GuestDr7) >> 32 == 0;
    "guest-sysenter-esp", "IA32_SYSENTER_ESP is canonical", [GuestSysenterEsp] => |e| is_canonical(e.get(VmcsField::GuestSysenterEsp));
    "guest-sysenter-eip", "IA32_SYSENTER_EIP is canonical", [GuestSysenterEip] => |e| is_canonical(e.get(VmcsField::GuestSysenterEip));
    "guest-perf-global-ctrl", "Reserved bits of IA32_PERF_GLOBAL_CTRL are 0", [EntryControls GuestPerfGlobalCtrl],
        if |e| e.entry().load_ia32_perf_global_ctrl()
        => |e| e.get(VmcsField::GuestPerfGlobalCtrl) & e.facts.perf_global_ctrl_reserved == 0,
        hint "One bit for each counter that CPUID leaf 0AH counts: general ones from bit 0, fixed ones from bit 32.";
    "guest-pat", "Each byte of IA32_PAT is a memory type", [EntryControls GuestPat], if |e| e.entry().load_ia32_pat()
        => |e| is_pat(e.get(VmcsField::GuestPat));
    "guest-efer-reserved", "Reserved bits of IA32_EFER are 0", [EntryControls GuestEfer], if |e| e.entry().load_ia32_efer()
        => |e| e.get(VmcsField::GuestEfer) & e.facts.efer_reserved == 0;
    "guest-efer-lma", "IA32_EFER.LMA is that of \"IA-32e mode guest\"", [EntryControls GuestEfer], if |e| e.entry().load_ia32_efer()
        => |e| e.guest_efer().lma() == e.entry().ia32e_mode_guest(),
        hint "Follow every change of the guest's mode with both: the control and IA32_EFER.LMA.";
    "guest-efer-lme", "With CR0.PG, IA32_EFER.LME is IA32_EFER.LMA", [EntryControls GuestEfer GuestCr0],
        if |e| e.entry().load_ia32_efer() && e.cr0().pg()
        => |e| e.guest_efer().lme() == e.guest_efer().lma(),
        hint "LMA is set by the processor when paging goes on with LME 1; with paging on, copy one to the other.";
    "guest-bndcfgs-reserved", "Bits 11:2 of IA32_BNDCFGS are 0", [EntryControls GuestBndcfgs], if |e| e.entry().load_ia32_bndcfgs()
        => |e| e.get(VmcsField::GuestBndcfgs) & BNDCFGS_RESERVED == 0;
    "guest-bndcfgs-base", "The linear address in bits 63:12 of IA32_BNDCFGS is canonical", [EntryControls GuestBndcfgs],
        if |e| e.entry().load_ia32_bndcfgs()
        => |e| is_canonical(e.get(VmcsField::GuestBndcfgs) & !0xfff);
    "guest-rtit-ctl", "Reserved bits of IA32_RTIT_CTL are 0", [EntryControls GuestRtitCtl], if |e| e.entry().load_ia32_rtit_ctl()
        => |e| e.get(VmcsField::GuestRtitCtl) & !RTIT_CTL_DEFINED == 0;
    "guest-s-cet", "Reserved bits of IA32_S_CET are 0, and SUPPRESS and TRACKER are not both 1", [EntryControls GuestSCet],
        if |e| e.entry().load_cet_state()
        => |e| is_s_cet(e.get(VmcsField::GuestSCet));
    "guest-s-cet-base", "The linear address in IA32_S_CET is canonical", [EntryControls GuestSCet], if |e| e.entry().load_cet_state()
        => |e| is_canonical(e.get(VmcsField::GuestSCet));
    "guest-interrupt-ssp-table", "IA32_INTERRUPT_SSP_TABLE_ADDR is canonical", [EntryControls GuestInterruptSspTableAddress],
        if |e| e.entry().load_cet_state()
        => |e| is_canonical(e.get(VmcsField::GuestInterruptSspTableAddress));
    "guest-lbr-ctl", "Reserved bits of IA32_LBR_CTL are 0", [EntryControls GuestLbrCtl], if |e| e.entry().load_guest_ia32_lbr_ctl()
        => |e| e.get(VmcsField::GuestLbrCtl) & !LBR_CTL_DEFINED == 0;
    "guest-pkrs", "Bits 63:32 of IA32_PKRS are 0", [EntryControls GuestPkrs], if |e| e.entry().load_pkrs()
        => |e| e.get(VmcsField::GuestPkrs) >> 32 == 0;
    "guest-uinv", "Bits 15:8 of UINV are 0", [EntryControls GuestUinv], if |e| e.entry().load_uinv()
        => |e| e.get(VmcsField::GuestUinv) >> 8 == 0;
}

/// Bits of CR0 that must be 1 for this guest.
fn guest_cr0_fixed0(e: &Entry<'_>) -> u64 {
    let free = if e.secondary().unrestricted_guest() { Cr0::new().with_pe(true).with_pg(true).into_bits() } else { 0 };
    e.capabilities.cr0_fixed0 & !free
}
