//! What the processors that the CPU models are named after can do beyond what the models offer: a VMCS of a real hypervisor uses it.
//!
//! Modelled: control words, CR4 and EFER. A model of Trapline leaves out what Trapline does not do; an auditor that did so too would call a good
//! VMCS bad. Sources: CPUID of the processors themselves, as the collection InstLatx64 has it (files GenuineIntel0050654_SkylakeXeon_20,
//! AuthenticAMD0A00F11_K19_Milan_CPUID1, GenuineIntel00006F6_Merom, AuthenticAMD0040F33_K8_Windsor); the controls of `skylake-server` as Linux
//! lists them of a Xeon Gold 6148 in /proc/cpuinfo (`vmx flags`); EFER.LMSLE, which no CPUID bit tells of, from the BIOS and Kernel Developer's
//! Guide of K8, revision D and later.
//! Not modelled: steppings and microcode that differ.

use isa::control::{Cr4, Efer};
use isa::vmx::{
    AllowedSettings, ControlBit, ControlWord, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls,
    VmxCapabilities,
};
use models::CpuModel;

/// What one processor has beyond its model.
struct Beyond {
    model: &'static str,
    controls: &'static [ControlBit],
    cr4: Cr4,
    efer: Efer,
    /// Bits of IA32_PERF_GLOBAL_CTRL: one for each counter.
    counters: u64,
}

/// What every processor since 1999 with these extensions has in CR4.
const COMMON: Cr4 = Cr4::new()
    .with_vme(true)
    .with_pvi(true)
    .with_tsd(true)
    .with_de(true)
    .with_pse(true)
    .with_pae(true)
    .with_mce(true)
    .with_pge(true)
    .with_pce(true)
    .with_osfxsr(true)
    .with_osxmmexcpt(true);

/// The features of the twenty-tens.
const MODERN: Cr4 = COMMON.with_fsgsbase(true).with_pcide(true).with_osxsave(true).with_smep(true).with_smap(true).with_pke(true);

static TABLE: [Beyond; 4] = [
    Beyond { model: "merom", controls: &[], cr4: COMMON.with_vmxe(true), efer: Efer::new(), counters: 0x7_0000_0003 },
    Beyond { model: "k8-rev-f", controls: &[], cr4: COMMON, efer: Efer::new().with_lmsle(true), counters: 0 },
    Beyond {
        model: "skylake-server",
        controls: &[
            PinBasedControls::PROCESS_POSTED_INTERRUPTS,
            PrimaryControls::USE_TPR_SHADOW,
            PrimaryControls::ACTIVATE_SECONDARY_CONTROLS,
            SecondaryControls::VIRTUALIZE_APIC_ACCESSES,
            SecondaryControls::VIRTUALIZE_X2APIC_MODE,
            SecondaryControls::APIC_REGISTER_VIRTUALIZATION,
            SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY,
            SecondaryControls::PAUSE_LOOP_EXITING,
            SecondaryControls::RDRAND_EXITING,
            SecondaryControls::ENABLE_INVPCID,
            SecondaryControls::ENABLE_VM_FUNCTIONS,
            SecondaryControls::VMCS_SHADOWING,
            SecondaryControls::RDSEED_EXITING,
            SecondaryControls::ENABLE_PML,
            SecondaryControls::EPT_VIOLATION_VE,
            SecondaryControls::CONCEAL_VMX_FROM_PT,
            SecondaryControls::ENABLE_XSAVES_XRSTORS,
            SecondaryControls::MODE_BASED_EXECUTE_CONTROL_FOR_EPT,
            SecondaryControls::USE_TSC_SCALING,
            ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL,
            ExitControls::CLEAR_IA32_BNDCFGS,
            ExitControls::CONCEAL_VMX_FROM_PT,
            EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL,
            EntryControls::LOAD_IA32_BNDCFGS,
            EntryControls::CONCEAL_VMX_FROM_PT,
        ],
        cr4: MODERN.with_vmxe(true).with_smxe(true),
        efer: Efer::new(),
        // Three fixed ones, and eight general ones where hyper-threading is off.
        counters: 0x7_0000_00ff,
    },
    Beyond { model: "zen3", controls: &[], cr4: MODERN.with_umip(true).with_cet(true), efer: Efer::new(), counters: 0 },
];

fn row(cpu: &CpuModel) -> Option<&'static Beyond> {
    TABLE.iter().find(|row| row.model == cpu.name)
}

/// The bits of CR4 that the real processor has.
pub fn cr4(cpu: &CpuModel) -> u64 {
    cpu.supported_cr4().into_bits() | row(cpu).map_or(0, |row| row.cr4.into_bits())
}

/// The bits of EFER that the real processor has.
pub fn efer(cpu: &CpuModel) -> u64 {
    cpu.supported_efer().into_bits() | row(cpu).map_or(0, |row| row.efer.into_bits())
}

/// The bits of IA32_PERF_GLOBAL_CTRL that the real processor has.
pub fn counters(cpu: &CpuModel) -> u64 {
    row(cpu).map_or(0, |row| row.counters)
}

/// The capabilities of the real processor, from those of its model.
pub fn vmx(cpu: &CpuModel, model: &VmxCapabilities) -> VmxCapabilities {
    let beyond = |word: ControlWord| {
        let controls = row(cpu).map_or(&[][..], |row| row.controls);
        controls.iter().filter(|control| control.word == word).fold(0u32, |bits, control| bits | 1 << control.bit)
    };
    let more = |settings: AllowedSettings, word| settings.with_may_be_one(settings.may_be_one() | beyond(word));
    VmxCapabilities {
        pin_based: more(model.pin_based, ControlWord::PinBased),
        primary: more(model.primary, ControlWord::Primary),
        secondary: more(model.secondary, ControlWord::Secondary),
        exit: more(model.exit, ControlWord::Exit),
        entry: more(model.entry, ControlWord::Entry),
        cr4_fixed1: model.cr4_fixed1 | cr4(cpu),
        ..model.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_row() {
        for cpu in models::MODELS {
            assert!(row(cpu).is_some(), "{}", cpu.name);
        }
    }

    #[test]
    fn a_real_processor_has_what_its_model_has() {
        let cpu = &models::SKYLAKE_SERVER;
        let model = cpu.vmx.clone().unwrap();
        let real = vmx(cpu, &model);
        assert_eq!(model.secondary.may_be_one() & !real.secondary.may_be_one(), 0);
        assert!(real.may_be_one(SecondaryControls::PAUSE_LOOP_EXITING));
        assert!(Cr4::from_bits(real.cr4_fixed1).mce());
    }
}
