//! Checks on the host-state area.
//!
//! Modelled: SDM 27.2.2 to 27.2.4. No CPU model of ours loads IA32_PERF_GLOBAL_CTRL, CET state or PKRS: the machine refuses the control first. Their
//! rules are for the auditor, who is given the VMCS of processors that do. Not modelled: FRED.

use super::{Check, Entry, checks, is_pat, is_s_cet};
use isa::control::{Cr4, Efer};
use isa::paging::is_canonical;
use isa::vmx::VmcsField;

/// All checks of the phase, in our order.
pub const CHECKS: &[Check] = &{
    let mut all = [REGISTERS[0]; REGISTERS.len() + SEGMENTS.len() + ADDRESS_SPACE.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < REGISTERS.len() {
            REGISTERS[index]
        } else if index < REGISTERS.len() + SEGMENTS.len() {
            SEGMENTS[index - REGISTERS.len()]
        } else {
            ADDRESS_SPACE[index - REGISTERS.len() - SEGMENTS.len()]
        };
        index += 1;
    }
    all
};

checks! {
    /// Control registers and MSRs.
    REGISTERS, "27.2.2 Checks on Host Control Registers, MSRs, and SSP";

    "host-cr0", "CR0 has no bit that VMX operation does not support", [HostCr0]
        => |e| {
            // CD and NW are never checked, because VM exit does not change them.
            let unchecked = isa::control::Cr0::new().with_cd(true).with_nw(true).into_bits();
            let (cr0, fixed0) = (e.get(VmcsField::HostCr0), e.capabilities.cr0_fixed0 & !unchecked);
            cr0 & fixed0 == fixed0 && cr0 & !(e.capabilities.cr0_fixed1 | unchecked) == 0
        },
        hint "Read CR0 after VMXON and write that.";
    "host-cr4", "CR4 has no bit that VMX operation does not support", [HostCr4]
        => |e| {
            let cr4 = e.get(VmcsField::HostCr4);
            cr4 & e.capabilities.cr4_fixed0 == e.capabilities.cr4_fixed0 && cr4 & !e.capabilities.cr4_fixed1 == 0
        },
        hint "Read CR4 after VMXON and write that: VMXE is then 1.";
    "host-cr4-cet", "With CR4.CET, CR0.WP is 1", [HostCr0 HostCr4], if |e| Cr4::from_bits(e.get(VmcsField::HostCr4)).cet()
        => |e| e.get(VmcsField::HostCr0) >> 16 & 1 != 0;
    "host-cr3", "CR3 has no bit beyond the physical-address width", [HostCr3]
        => |e| e.get(VmcsField::HostCr3).checked_shr(u32::from(e.facts.physical_address_width)).unwrap_or(0) == 0;
    "host-sysenter-esp", "IA32_SYSENTER_ESP is canonical", [HostSysenterEsp]
        => |e| is_canonical(e.get(VmcsField::HostSysenterEsp));
    "host-sysenter-eip", "IA32_SYSENTER_EIP is canonical", [HostSysenterEip]
        => |e| is_canonical(e.get(VmcsField::HostSysenterEip));
    "host-perf-global-ctrl", "Reserved bits of IA32_PERF_GLOBAL_CTRL are 0", [PrimaryExitControls HostPerfGlobalCtrl],
        if |e| e.exit().load_ia32_perf_global_ctrl()
        => |e| e.get(VmcsField::HostPerfGlobalCtrl) & e.facts.perf_global_ctrl_reserved == 0,
        hint "One bit for each counter that CPUID leaf 0AH counts: general ones from bit 0, fixed ones from bit 32.";
    "host-pat", "Each byte of IA32_PAT is a memory type", [PrimaryExitControls HostPat], if |e| e.exit().load_ia32_pat()
        => |e| is_pat(e.get(VmcsField::HostPat));
    "host-efer-reserved", "Reserved bits of IA32_EFER are 0", [PrimaryExitControls HostEfer], if |e| e.exit().load_ia32_efer()
        => |e| e.get(VmcsField::HostEfer) & e.facts.efer_reserved == 0;
    "host-efer-lma", "IA32_EFER.LMA and LME are each that of \"host address-space size\"", [PrimaryExitControls HostEfer],
        if |e| e.exit().load_ia32_efer()
        => |e| {
            let efer = Efer::from_bits(e.get(VmcsField::HostEfer));
            let size = e.exit().host_address_space_size();
            efer.lma() == size && efer.lme() == size
        },
        hint "Read IA32_EFER and write that, or do not load it.";
    "host-s-cet", "Reserved bits of IA32_S_CET are 0, and SUPPRESS and TRACKER are not both 1", [PrimaryExitControls HostSCet],
        if |e| e.exit().load_cet_state()
        => |e| is_s_cet(e.get(VmcsField::HostSCet));
    "host-ssp-aligned", "Bits 1:0 of SSP are 0", [PrimaryExitControls HostSsp], if |e| e.exit().load_cet_state()
        => |e| e.get(VmcsField::HostSsp) & 3 == 0;
    "host-interrupt-ssp-table", "IA32_INTERRUPT_SSP_TABLE_ADDR is canonical", [PrimaryExitControls HostInterruptSspTableAddress],
        if |e| e.exit().load_cet_state()
        => |e| is_canonical(e.get(VmcsField::HostInterruptSspTableAddress));
    "host-pkrs", "Bits 63:32 of IA32_PKRS are 0", [PrimaryExitControls HostPkrs], if |e| e.exit().load_pkrs()
        => |e| e.get(VmcsField::HostPkrs) >> 32 == 0;
}

checks! {
    /// Segment and descriptor-table registers.
    SEGMENTS, "27.2.3 Checks on Host Segment and Descriptor-Table Registers";

    "host-es-selector", "RPL and TI of ES are 0", [HostEsSelector] => |e| e.get(VmcsField::HostEsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8: user selectors such as 0x2b have RPL 3.";
    "host-cs-selector", "RPL and TI of CS are 0", [HostCsSelector] => |e| e.get(VmcsField::HostCsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8.";
    "host-ss-selector", "RPL and TI of SS are 0", [HostSsSelector] => |e| e.get(VmcsField::HostSsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8.";
    "host-ds-selector", "RPL and TI of DS are 0", [HostDsSelector] => |e| e.get(VmcsField::HostDsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8: user selectors such as 0x2b have RPL 3.";
    "host-fs-selector", "RPL and TI of FS are 0", [HostFsSelector] => |e| e.get(VmcsField::HostFsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8.";
    "host-gs-selector", "RPL and TI of GS are 0", [HostGsSelector] => |e| e.get(VmcsField::HostGsSelector) & 7 == 0,
        hint "AND the selector with 0xfff8.";
    "host-tr-selector", "RPL and TI of TR are 0", [HostTrSelector] => |e| e.get(VmcsField::HostTrSelector) & 7 == 0,
        hint "AND the selector with 0xfff8.";
    "host-cs-not-null", "The selector of CS is not 0", [HostCsSelector] => |e| e.get(VmcsField::HostCsSelector) != 0;
    "host-tr-not-null", "The selector of TR is not 0", [HostTrSelector] => |e| e.get(VmcsField::HostTrSelector) != 0,
        hint "The host has no task register: build a TSS, put its descriptor into the GDT and execute LTR before (firmware loads none).";
    "host-ss-not-null", "The selector of SS is not 0 where the host is not in 64-bit mode", [HostSsSelector PrimaryExitControls],
        if |e| !e.exit().host_address_space_size()
        => |e| e.get(VmcsField::HostSsSelector) != 0;
    "host-fs-base", "The base of FS is canonical", [HostFsBase] => |e| is_canonical(e.get(VmcsField::HostFsBase)),
        hint "Read IA32_FS_BASE and write that.";
    "host-gs-base", "The base of GS is canonical", [HostGsBase] => |e| is_canonical(e.get(VmcsField::HostGsBase)),
        hint "Read IA32_GS_BASE and write that.";
    "host-gdtr-base", "The base of GDTR is canonical", [HostGdtrBase] => |e| is_canonical(e.get(VmcsField::HostGdtrBase));
    "host-idtr-base", "The base of IDTR is canonical", [HostIdtrBase] => |e| is_canonical(e.get(VmcsField::HostIdtrBase));
    "host-tr-base", "The base of TR is canonical", [HostTrBase] => |e| is_canonical(e.get(VmcsField::HostTrBase)),
        hint "Put the base together from all four parts of the 16-byte TSS descriptor.";
}

checks! {
    /// Rules about 64-bit and 32-bit hosts.
    ADDRESS_SPACE, "27.2.4 Checks Related to Address-Space Size";

    "host-32-bit-at-entry", "A processor outside IA-32e mode enters no IA-32e mode guest and returns to no 64-bit host",
        [PrimaryExitControls EntryControls], if |e| !e.facts.host_long_mode
        => |e| !e.entry().ia32e_mode_guest() && !e.exit().host_address_space_size();
    "host-64-bit-at-entry", "A processor in IA-32e mode returns to a 64-bit host", [PrimaryExitControls], if |e| e.facts.host_long_mode
        => |e| e.exit().host_address_space_size(),
        hint "Set bit 9 of the VM-exit controls where the host runs in 64-bit mode.";
    "host-32-bit-guest", "A 32-bit host has no IA-32e mode guest", [PrimaryExitControls EntryControls], if host_is_32_bit
        => |e| !e.entry().ia32e_mode_guest();
    "host-32-bit-cr4-pcide", "A 32-bit host has CR4.PCIDE 0", [PrimaryExitControls HostCr4], if host_is_32_bit
        => |e| !Cr4::from_bits(e.get(VmcsField::HostCr4)).pcide();
    "host-32-bit-rip", "A 32-bit host has bits 63:32 of RIP 0", [PrimaryExitControls HostRip], if host_is_32_bit
        => |e| e.get(VmcsField::HostRip) >> 32 == 0;
    "host-32-bit-cet", "A 32-bit host has bits 63:32 of IA32_S_CET and SSP 0", [PrimaryExitControls HostSCet HostSsp],
        if |e| host_is_32_bit(e) && e.exit().load_cet_state()
        => |e| (e.get(VmcsField::HostSCet) | e.get(VmcsField::HostSsp)) >> 32 == 0;
    "host-64-bit-cr4-pae", "A 64-bit host has CR4.PAE 1", [PrimaryExitControls HostCr4], if |e| e.exit().host_address_space_size()
        => |e| Cr4::from_bits(e.get(VmcsField::HostCr4)).pae();
    "host-64-bit-rip", "A 64-bit host has a canonical RIP", [PrimaryExitControls HostRip], if |e| e.exit().host_address_space_size()
        => |e| is_canonical(e.get(VmcsField::HostRip)),
        hint "RIP is the virtual address of the exit handler, with bits 63:47 all equal.";
    "host-64-bit-cet", "A 64-bit host has canonical addresses in IA32_S_CET and SSP", [PrimaryExitControls HostSCet HostSsp],
        if |e| e.exit().host_address_space_size() && e.exit().load_cet_state()
        => |e| is_canonical(e.get(VmcsField::HostSCet)) && is_canonical(e.get(VmcsField::HostSsp));
}

fn host_is_32_bit(e: &Entry<'_>) -> bool {
    !e.exit().host_address_space_size()
}
