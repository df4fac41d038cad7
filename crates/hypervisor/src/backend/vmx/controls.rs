//! The controls that the hypervisor asks of VMX, and the capabilities that it relies on.

use super::super::Unfit;
use cpu::state::Cpu;
use isa::vmx::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, VmxCapabilities};
use models::CpuModel;

/// The capabilities, of whatever kind. SDM A.3.2 "Primary Processor-Based VM-Execution Controls": the first processors with VMX have all that
/// shadow paging needs.
pub(super) fn capabilities(model: &'static CpuModel) -> Result<&'static VmxCapabilities, Unfit> {
    let capabilities = model.vmx.as_ref().ok_or(Unfit::NoExtension(model.name))?;
    for (control, feature) in [
        (PrimaryControls::USE_MSR_BITMAPS, "MSR bitmaps"),
        (PrimaryControls::INVLPG_EXITING, "exits of INVLPG"),
        (PrimaryControls::UNCONDITIONAL_IO_EXITING, "unconditional I/O exits"),
    ] {
        if !capabilities.may_be_one(control) {
            return Err(Unfit::Lacks { model: model.name, feature });
        }
    }
    Ok(capabilities)
}

/// The capabilities that matter for nested paging, checked.
pub(super) fn nested_capabilities(model: &'static CpuModel) -> Result<&'static VmxCapabilities, Unfit> {
    let capabilities = capabilities(model)?;
    if !capabilities.may_be_one(SecondaryControls::ENABLE_EPT) {
        return Err(Unfit::NoNestedPaging(model.name));
    }
    for (control, feature) in [
        (SecondaryControls::UNRESTRICTED_GUEST, "unrestricted guests"),
        (SecondaryControls::ENABLE_VPID, "VPIDs"),
        (PinBasedControls::VIRTUAL_NMIS, "virtual NMIs"),
        (ExitControls::LOAD_IA32_EFER, "loading of IA32_EFER at VM exits"),
        (EntryControls::LOAD_IA32_EFER, "loading of IA32_EFER at VM entries"),
        (EntryControls::LOAD_IA32_PAT, "loading of IA32_PAT at VM entries"),
    ] {
        if !capabilities.may_be_one(control) {
            return Err(Unfit::Lacks { model: model.name, feature });
        }
    }
    Ok(capabilities)
}

/// The pin-based controls; without virtual NMIs the hypervisor keeps track of their blocking by itself.
pub(super) fn pin_based() -> PinBasedControls {
    PinBasedControls::default().with_external_interrupt_exiting(true).with_nmi_exiting(true).with_virtual_nmis(true)
}

/// The primary controls as the hypervisor wants them, adjusted to what the processor offers.
pub(super) fn primary(offered: &VmxCapabilities, shadow: bool) -> PrimaryControls {
    let wanted = PrimaryControls::default()
        .with_hlt_exiting(true)
        .with_rdpmc_exiting(true)
        .with_mwait_exiting(true)
        .with_monitor_exiting(true)
        .with_use_tsc_offsetting(true)
        .with_cr8_load_exiting(true)
        .with_cr8_store_exiting(true)
        .with_unconditional_io_exiting(true)
        .with_use_msr_bitmaps(true)
        .with_invlpg_exiting(shadow)
        .with_cr3_load_exiting(shadow)
        .with_cr3_store_exiting(shadow)
        .with_activate_secondary_controls(true);
    PrimaryControls::from_bits(offered.primary.adjust(wanted.into_bits()))
}

pub(super) fn secondary(offered: &VmxCapabilities, nested: bool) -> SecondaryControls {
    SecondaryControls::default()
        .with_enable_ept(nested)
        .with_enable_vpid(true)
        .with_unrestricted_guest(true)
        .with_enable_rdtscp(true)
        .with_enable_invpcid(true)
        .with_wbinvd_exiting(true)
        .with_enable_xsaves_xrstors(offered.may_be_one(SecondaryControls::ENABLE_XSAVES_XRSTORS))
        .with_use_tsc_scaling(offered.may_be_one(SecondaryControls::USE_TSC_SCALING))
}

pub(super) fn exit_controls() -> ExitControls {
    ExitControls::default()
        .with_host_address_space_size(true)
        .with_acknowledge_interrupt_on_exit(true)
        .with_save_debug_controls(true)
        .with_save_ia32_efer(true)
        .with_load_ia32_efer(true)
        .with_save_ia32_pat(true)
        .with_load_ia32_pat(true)
}

pub(super) fn entry_controls(long_mode: bool) -> EntryControls {
    EntryControls::default()
        .with_load_debug_controls(true)
        .with_load_ia32_efer(true)
        .with_load_ia32_pat(true)
        .with_ia32e_mode_guest(long_mode)
}

/// SDM 25.6.9 "MSR-Bitmap Address": read low, read high, write low, write high, one KiB each; a set bit exits.
pub(super) fn write_msr_bitmap(cpu: &mut Cpu, bitmap: u64, passed: &[u32]) {
    let mut bits = [0xff_u8; 4096];
    for &msr in passed {
        let (base, index) = match msr {
            0..0x2000 => (0, msr),
            0xc000_0000..0xc000_2000 => (0x400, msr - 0xc000_0000),
            _ => continue,
        };
        for half in [base, base + 0x800] {
            bits[half + (index / 8) as usize] &= !(1 << (index % 8));
        }
    }
    cpu.write_physical_bytes(bitmap, &bits);
}
