//! A model as text and as data for tools.
//!
//! What is modelled: everything a reader may want to compare between models: identity, features by name, every CPUID leaf, every
//! capability MSR, each VMX control by name, and the cost table. It is all derived; nothing is listed twice.

use crate::cache::Cache;
use crate::cpuid::CpuidContext;
use crate::model::{CpuModel, Vendor};
use core::fmt::Write as _;
use isa::cpuid::{CpuidResult, Feature};
use isa::vmx::{AllowedSettings, CapabilityMsr, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use serde::Serialize;
use timing::CostModel;

/// One answer of CPUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuidDump {
    /// EAX at the instruction, in hexadecimal.
    pub leaf: String,
    /// ECX at the instruction.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX in hexadecimal.
    pub registers: [String; 4],
}

/// The settings of one VMX control word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlDump {
    /// The word.
    pub word: &'static str,
    /// Names of the controls that may be 1 or 0.
    pub free: Vec<&'static str>,
    /// Names of the controls that must be 1.
    pub fixed: Vec<&'static str>,
}

/// Everything about a model, for a JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct ModelExport {
    /// The name by which it is found.
    pub name: &'static str,
    /// The processor, in words.
    pub title: &'static str,
    /// Who made it.
    pub vendor: Vendor,
    /// The year it was first sold.
    pub year: u16,
    /// Cycles of the time stamp counter in a second.
    pub tsc_hz: u64,
    /// Width of a physical address, in bits.
    pub physical_address_bits: u8,
    /// Width of a linear address, in bits.
    pub linear_address_bits: u8,
    /// Family, model and stepping.
    pub family_model_stepping: (u32, u32, u32),
    /// The brand string.
    pub brand: &'static str,
    /// Names of the features that CPUID reports.
    pub features: Vec<String>,
    /// Its caches.
    pub caches: &'static [Cache],
    /// Every leaf of the bootstrap processor of a machine with the given number of processors.
    pub cpuid: Vec<CpuidDump>,
    /// Name and value at power-up, in hexadecimal, of each MSR that is the model's own.
    pub msrs: Vec<(String, String)>,
    /// VMX controls by word; empty without VMX.
    pub vmx_controls: Vec<ControlDump>,
    /// Costs with their sources.
    pub costs: &'static CostModel,
}

impl CpuModel {
    /// Everything about the model, as its bootstrap processor in a machine of `cpu_count` processors has it.
    pub fn export(&self, cpu_count: u32) -> ModelExport {
        ModelExport {
            name: self.name,
            title: self.title,
            vendor: self.vendor,
            year: self.year,
            tsc_hz: self.tsc_hz,
            physical_address_bits: self.physical_address_bits,
            linear_address_bits: self.linear_address_bits,
            family_model_stepping: self.family_model_stepping(),
            brand: self.brand,
            features: Feature::ALL.iter().filter(|&&feature| self.has(feature)).map(|feature| format!("{feature:?}")).collect(),
            caches: self.caches,
            cpuid: self.cpuid_dump(&CpuidContext { cpu_count, ..CpuidContext::default() }),
            msrs: self.msr_dump(),
            vmx_controls: self.control_dump(),
            costs: self.costs,
        }
    }

    /// A page of text about the model: identity, features, CPUID, MSRs, VMX controls.
    pub fn summary(&self, cpu_count: u32) -> String {
        let export = self.export(cpu_count);
        let (family, model, stepping) = export.family_model_stepping;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {} ({})", export.name, export.title, export.year);
        let _ = writeln!(text, "  brand     {}", export.brand);
        let _ = writeln!(text, "  identity  family {family:#x} model {model:#x} stepping {stepping:#x}");
        let _ = writeln!(
            text,
            "  clock     {} Hz; addresses {} bits physical, {} linear",
            export.tsc_hz, export.physical_address_bits, export.linear_address_bits
        );
        let _ = writeln!(text, "  features  {}", export.features.join(" "));
        let or_none = |names: String| if names.is_empty() { "none".to_owned() } else { names };
        let _ = writeln!(text, "CPUID of processor 0 of {cpu_count}");
        for row in &export.cpuid {
            let _ = writeln!(text, "  {} {}  {}", row.leaf, row.subleaf, row.registers.join(" "));
        }
        let _ = writeln!(text, "MSRs");
        for (name, value) in &export.msrs {
            let _ = writeln!(text, "  {name:<28} {value}");
        }
        for word in &export.vmx_controls {
            let _ = writeln!(text, "VMX {} controls", word.word);
            let _ = writeln!(text, "  free   {}", or_none(word.free.join(", ")));
            let _ = writeln!(text, "  fixed  {}", or_none(word.fixed.join(", ")));
        }
        text
    }

    /// Every leaf that is not all zeros, with the subleaves that have an answer of their own.
    fn cpuid_dump(&self, context: &CpuidContext) -> Vec<CpuidDump> {
        let leaves = (0..=self.maximum_basic_leaf).chain(0x8000_0000..=self.maximum_extended_leaf);
        leaves
            .flat_map(|leaf| (0..subleaves(leaf)).map(move |subleaf| (leaf, subleaf)))
            .map(|(leaf, subleaf)| (leaf, subleaf, self.cpuid(leaf, subleaf, context)))
            .filter(|(_, _, answer)| *answer != CpuidResult::default())
            .map(|(leaf, subleaf, answer)| CpuidDump {
                leaf: format!("{leaf:08x}"),
                subleaf,
                registers: [answer.eax, answer.ebx, answer.ecx, answer.edx].map(|register| format!("{register:08x}")),
            })
            .collect()
    }

    /// The model's own MSRs in ascending order.
    fn msr_dump(&self) -> Vec<(String, String)> {
        let mut numbers: Vec<u32> = self.msrs.iter().map(|row| row.number).collect();
        numbers.extend(CapabilityMsr::ALL.iter().map(|msr| msr.number()));
        numbers.sort_unstable();
        numbers
            .into_iter()
            .filter_map(|number| self.msr(number).map(|value| (number, value)))
            .map(|(number, value)| {
                let name = CapabilityMsr::from_number(number).map(CapabilityMsr::name).or_else(|| isa::msr::name(number));
                (name.map_or_else(|| format!("{number:#x}"), str::to_owned), format!("{value:016x}"))
            })
            .collect()
    }

    /// The controls of each word by name.
    fn control_dump(&self) -> Vec<ControlDump> {
        let Some(vmx) = &self.vmx else { return Vec::new() };
        let dump = |word, settings: AllowedSettings, names: &[(u8, &'static str)]| {
            let named = |bits: u32| names.iter().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name).collect();
            ControlDump {
                word,
                free: named(settings.may_be_one() & !settings.must_be_one()),
                fixed: named(settings.may_be_one() & settings.must_be_one()),
            }
        };
        let mut words = vec![
            dump("pin-based", vmx.pin_based, PinBasedControls::NAMES),
            dump("primary processor-based", vmx.primary, PrimaryControls::NAMES),
        ];
        if vmx.has_secondary() {
            words.push(dump("secondary processor-based", vmx.secondary, SecondaryControls::NAMES));
        }
        words.push(dump("VM-exit", vmx.exit, ExitControls::NAMES));
        words.push(dump("VM-entry", vmx.entry, EntryControls::NAMES));
        words
    }
}

/// How many subleaves are worth showing: all those of the leaves that have them here.
const fn subleaves(leaf: u32) -> u32 {
    match leaf {
        4 | 0x8000_001d => 4,
        0xb => 2,
        0xd => 2,
        _ => 1,
    }
}
