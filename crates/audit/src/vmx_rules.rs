//! The rules of VM entry as the auditor sees them: the rows of `vmx::checks`, and before them what VMPTRLD, VMLAUNCH and VMRESUME look at first.
//!
//! Modelled: SDM 27.1 "Basic VM-Entry Checks" and 27.2, 27.3.1 and 27.4 through their rows; what WRMSR takes is asked of a processor of the model.
//! Not modelled: the lists of VM exit.

use crate::bits::BitNames;
use crate::processor;
use crate::rule::{Outcome, Rule, Settings, Silicon, Verdict, Word};
use cpu::state::Cpu;
use isa::control::{Cr0, Cr4, Efer};
use isa::vmx::{AllowedSettings, InvalidGuestStateQualification, VmInstructionError, VmcsField, VmxCapabilities};
use models::CpuModel;
use std::sync::LazyLock;
use vmx::Vmx;
use vmx::checks::{Check, Entry, Facts, MsrLoad, Phase, PhaseOutcome};
use vmx::vmcs::Fields;

/// What is looked at beside the fields, in the order of the words behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Revision,
    Launched,
    Vmresume,
    MovSs,
    LinkedRevision,
    VirtualTpr,
    Pdpte(usize),
    LongMode,
    CurrentVmcs,
    MsrNumber,
    MsrIndex,
    MsrReserved,
    MsrValue,
}

/// The name, the title, the bits, and whether the usual value of a processor may be taken for granted.
const EXTRAS: [(Extra, &str, &str, u64, bool); 16] = [
    (Extra::Revision, "region.revision", "Revision identifier, bytes 3:0 of the VMCS region", 0xffff_ffff, true),
    (Extra::Launched, "region.launched", "Launch state of the VMCS: 0 clear, 1 launched", 1, true),
    (Extra::Vmresume, "entry.vmresume", "The instruction: 0 VMLAUNCH, 1 VMRESUME", 1, true),
    (Extra::MovSs, "entry.mov_ss_blocking", "Whether MOV SS blocks events at the instruction", 1, true),
    (Extra::LinkedRevision, "memory.link_pointer_revision", "The four bytes at the VMCS link pointer", 0xffff_ffff, false),
    (Extra::VirtualTpr, "memory.virtual_tpr", "Byte 080H of the virtual-APIC page", 0xff, false),
    (Extra::Pdpte(0), "memory.pdptes[0]", "PDPTE0 in memory at the guest's CR3", u64::MAX, false),
    (Extra::Pdpte(1), "memory.pdptes[1]", "PDPTE1 in memory at the guest's CR3", u64::MAX, false),
    (Extra::Pdpte(2), "memory.pdptes[2]", "PDPTE2 in memory at the guest's CR3", u64::MAX, false),
    (Extra::Pdpte(3), "memory.pdptes[3]", "PDPTE3 in memory at the guest's CR3", u64::MAX, false),
    (Extra::LongMode, "processor.long_mode", "IA32_EFER.LMA of the processor that enters", 1, true),
    (Extra::CurrentVmcs, "processor.current_vmcs", "Physical address of the current VMCS", u64::MAX, true),
    // Of the entry at which loading stops. A list that is not there counts as good.
    (Extra::MsrNumber, "memory.entry_msr_load.number", "The entry of the VM-entry MSR-load list, counted from 1", 0xffff_ffff, true),
    (Extra::MsrIndex, "memory.entry_msr_load.index", "Bits 31:0 of that entry: the MSR", 0xffff_ffff, true),
    (Extra::MsrReserved, "memory.entry_msr_load.reserved", "Bits 63:32 of that entry", 0xffff_ffff, true),
    (Extra::MsrValue, "memory.entry_msr_load.value", "Bits 127:64 of that entry: the value", u64::MAX, true),
];

/// The words of a VMCS and of what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Vmcs {
    words: Vec<Word>,
    fields: Fields,
    facts: Facts,
    capabilities: VmxCapabilities,
    revision: u32,
    launched: bool,
    vmresume: bool,
    mov_ss: bool,
    msr_load: MsrLoad,
    cpu: &'static CpuModel,
    /// Trapline's own processor, which has no MSR beyond its model's.
    own: bool,
}

/// A rule that is no row of `vmx::checks`: one of the instructions before the contents of the VMCS matter.
struct Basic {
    rule: Rule,
    /// Whether it applies and whether it then holds.
    says: fn(&Vmcs) -> (bool, bool),
}

struct Table {
    rules: Vec<Rule>,
    basic: Vec<Basic>,
    checks: Vec<&'static Check>,
}

fn instruction_error(instruction: &'static str, error: VmInstructionError) -> Outcome {
    Outcome::VmFailValid { instruction, error: error.number(), meaning: error.text() }
}

fn basic_rules() -> Vec<Basic> {
    let word = |extra: &Extra| VmcsField::COUNT + EXTRAS.iter().position(|row| row.0 == *extra).unwrap_or_default();
    let row = |id, section, rule, hint, reads: &[Extra], outcome, says| Basic {
        rule: Rule { id, manual: "SDM vol 3", section, rule, hint, outcome, reads: reads.iter().map(word).collect() },
        says,
    };
    vec![
        row(
            "vmptrld-revision",
            "25.2 Format of the VMCS Region",
            "The VMCS region starts with the revision identifier of IA32_VMX_BASIC, with bit 31 clear for an ordinary VMCS",
            "Write IA32_VMX_BASIC[30:0] to offset 0 of the region before VMPTRLD; VMCLEAR does not do it.",
            &[Extra::Revision],
            instruction_error("VMPTRLD", VmInstructionError::VmptrldIncorrectRevision),
            |v: &Vmcs| (true, v.revision == v.capabilities.basic.revision()),
        ),
        row(
            "entry-mov-ss",
            "27.1 Basic VM-Entry Checks",
            "MOV SS or POP SS does not block events at the instruction",
            "The instruction in front of VMLAUNCH or VMRESUME loads SS: put another one between them.",
            &[Extra::MovSs],
            instruction_error("VM entry", VmInstructionError::EntryEventsBlockedByMovSs),
            |v| (true, !v.mov_ss),
        ),
        row(
            "vmlaunch-clear",
            "27.1 Basic VM-Entry Checks",
            "VMLAUNCH finds the launch state of the VMCS clear",
            "Execute VMCLEAR first, or VMRESUME instead.",
            &[Extra::Vmresume, Extra::Launched],
            instruction_error("VMLAUNCH", VmInstructionError::VmlaunchNonClearVmcs),
            |v| (!v.vmresume, !v.launched),
        ),
        row(
            "vmresume-launched",
            "27.1 Basic VM-Entry Checks",
            "VMRESUME finds the launch state of the VMCS launched",
            "The first entry after VMCLEAR, and after a move to another processor, is VMLAUNCH.",
            &[Extra::Vmresume, Extra::Launched],
            instruction_error("VMRESUME", VmInstructionError::VmresumeNonLaunchedVmcs),
            |v| (v.vmresume, v.launched),
        ),
    ]
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let basic = basic_rules();
    let mut rules: Vec<Rule> = basic.iter().map(|row| row.rule.clone()).collect();
    let mut checks = Vec::new();
    for phase in Phase::ALL {
        let outcome = match phase.outcome() {
            PhaseOutcome::FailValid(error) => instruction_error("VM entry", error),
            PhaseOutcome::MsrLoading => Outcome::MsrLoading,
            PhaseOutcome::InvalidGuestState(qualification) => Outcome::EntryFailure { qualification: qualification as u64 },
        };
        for check in phase.checks() {
            rules.push(Rule {
                id: check.id,
                manual: "SDM vol 3",
                section: check.section,
                rule: check.rule,
                hint: check.hint,
                outcome,
                reads: check.reads.iter().map(|field| field.index()).collect(),
            });
            checks.push(check);
        }
    }
    Table { rules, basic, checks }
});

/// Every rule of VMX.
pub(crate) fn rules() -> &'static [Rule] {
    &TABLE.rules
}

/// The name of a word that is no field.
pub(crate) fn extra_name(word: usize) -> String {
    EXTRAS.get(word - VmcsField::COUNT).map(|row| row.1.to_owned()).unwrap_or_default()
}

impl Vmcs {
    /// A VMCS of assumed values on a processor with these capabilities.
    pub(crate) fn new(cpu: &'static CpuModel, capabilities: VmxCapabilities) -> Vmcs {
        let revision = capabilities.basic.revision();
        let mut words: Vec<Word> = VmcsField::ALL
            .iter()
            .map(|&field| Word {
                name: field.identifier().to_owned(),
                title: field.name().to_owned(),
                mask: field.width().mask(),
                assumed: match field {
                    VmcsField::VmcsLinkPointer => u64::MAX,
                    VmcsField::GuestRflags => 2,
                    _ => 0,
                },
                environment: field.area() == isa::vmx::FieldArea::ExitInformation,
            })
            .collect();
        for (extra, name, title, mask, environment) in EXTRAS {
            let assumed = match extra {
                Extra::Revision | Extra::LinkedRevision => revision.into(),
                Extra::VirtualTpr => 0xff,
                Extra::LongMode => 1,
                Extra::CurrentVmcs => u64::MAX,
                Extra::Launched | Extra::Vmresume | Extra::MovSs | Extra::Pdpte(_) => 0,
                Extra::MsrNumber | Extra::MsrIndex | Extra::MsrReserved | Extra::MsrValue => 0,
            };
            words.push(Word { name: name.to_owned(), title: title.to_owned(), mask, assumed, environment });
        }
        let facts = Facts {
            physical_address_width: cpu.physical_address_bits,
            efer_reserved: !processor::efer(cpu),
            // The other bits of the register are no part of the models.
            debugctl_reserved: 0,
            perf_global_ctrl_reserved: !processor::counters(cpu),
            ..Facts::default()
        };
        let mut vmcs = Vmcs {
            words,
            fields: Fields::default(),
            facts,
            capabilities,
            revision,
            launched: false,
            vmresume: false,
            mov_ss: false,
            msr_load: MsrLoad::default(),
            cpu,
            own: false,
        };
        for word in 0..vmcs.words.len() {
            vmcs.set(word, vmcs.words[word].assumed);
        }
        vmcs
    }

    /// The same on Trapline's own silicon, which has no bits of EFER beyond its model's.
    pub(crate) fn on_machine(cpu: &'static CpuModel, capabilities: VmxCapabilities) -> Vmcs {
        let mut vmcs = Vmcs::new(cpu, capabilities);
        vmcs.facts.efer_reserved = !cpu.supported_efer().into_bits();
        vmcs.facts.debugctl_reserved = !cpu.last_branches.debugctl;
        vmcs.facts.perf_global_ctrl_reserved = u64::MAX;
        vmcs.own = true;
        vmcs
    }

    /// The VMCS that a processor of ours refused.
    pub(crate) fn refused(cpu: &'static CpuModel, capabilities: VmxCapabilities, refused: &vmx::Refused) -> Vmcs {
        let mut vmcs = Vmcs::on_machine(cpu, capabilities);
        vmcs.fields = refused.fields.clone();
        vmcs.facts = refused.facts;
        vmcs.msr_load = refused.msr_load;
        vmcs
    }

    /// What WRMSR says of a value in the guest that the VMCS describes: whether it is #GP; nothing if the model has no such MSR.
    fn refuses(&self, entry: &MsrLoad) -> Option<bool> {
        let mut cpu = Cpu::new(self.cpu, 0, 1, Some(Box::new(Vmx::new(&self.capabilities))));
        cpu.cr0 = Cr0::from_bits(self.fields.get(VmcsField::GuestCr0));
        cpu.cr4 = Cr4::from_bits(self.fields.get(VmcsField::GuestCr4));
        let long = self.fields.entry().ia32e_mode_guest();
        cpu.efer = if self.fields.entry().load_ia32_efer() {
            Efer::from_bits(self.fields.get(VmcsField::GuestEfer))
        } else {
            Efer::new().with_lma(long).with_lme(long)
        };
        let exists = cpu.read_msr(entry.index).is_ok();
        let refused = cpu.write_msr(entry.index, entry.value).is_err();
        (exists || !refused || self.own).then_some(refused)
    }
}

impl Silicon for Vmcs {
    fn words(&self) -> &[Word] {
        &self.words
    }

    fn fields(&self) -> usize {
        VmcsField::COUNT
    }

    fn rules(&self) -> &[Rule] {
        rules()
    }

    fn get(&self, word: usize) -> u64 {
        if let Some(&field) = VmcsField::ALL.get(word) {
            return self.fields.get(field);
        }
        match EXTRAS.get(word - VmcsField::COUNT).map(|row| row.0) {
            Some(Extra::Revision) => self.revision.into(),
            Some(Extra::Launched) => self.launched.into(),
            Some(Extra::Vmresume) => self.vmresume.into(),
            Some(Extra::MovSs) => self.mov_ss.into(),
            Some(Extra::LinkedRevision) => self.facts.linked_revision.into(),
            Some(Extra::VirtualTpr) => self.facts.virtual_tpr.into(),
            Some(Extra::Pdpte(index)) => self.facts.pdptes[index],
            Some(Extra::LongMode) => self.facts.host_long_mode.into(),
            Some(Extra::CurrentVmcs) => self.facts.current_vmcs,
            Some(Extra::MsrNumber) => self.msr_load.number.into(),
            Some(Extra::MsrIndex) => self.msr_load.index.into(),
            Some(Extra::MsrReserved) => self.msr_load.reserved.into(),
            Some(Extra::MsrValue) => self.msr_load.value,
            None => 0,
        }
    }

    fn set(&mut self, word: usize, value: u64) {
        if let Some(&field) = VmcsField::ALL.get(word) {
            self.fields.set(field, value);
            return;
        }
        match EXTRAS.get(word - VmcsField::COUNT).map(|row| row.0) {
            Some(Extra::Revision) => self.revision = value as u32,
            Some(Extra::Launched) => self.launched = value & 1 != 0,
            Some(Extra::Vmresume) => self.vmresume = value & 1 != 0,
            Some(Extra::MovSs) => self.mov_ss = value & 1 != 0,
            Some(Extra::LinkedRevision) => self.facts.linked_revision = value as u32,
            Some(Extra::VirtualTpr) => self.facts.virtual_tpr = value as u8,
            Some(Extra::Pdpte(index)) => self.facts.pdptes[index] = value,
            Some(Extra::LongMode) => self.facts.host_long_mode = value & 1 != 0,
            Some(Extra::CurrentVmcs) => self.facts.current_vmcs = value,
            Some(Extra::MsrNumber) => self.msr_load.number = value as u32,
            Some(Extra::MsrIndex) => self.msr_load.index = value as u32,
            Some(Extra::MsrReserved) => self.msr_load.reserved = value as u32,
            Some(Extra::MsrValue) => self.msr_load.value = value,
            None => {}
        }
    }

    fn verdict(&self, rule: usize) -> Verdict {
        let (applies, holds) = match (TABLE.basic.get(rule), rule.checked_sub(TABLE.basic.len()).and_then(|row| TABLE.checks.get(row))) {
            (Some(basic), _) => (basic.says)(self),
            (None, Some(check)) => {
                let mut entry =
                    Entry { fields: &self.fields, capabilities: &self.capabilities, facts: self.facts, msr_load: self.msr_load };
                // A processor is asked only where its answer is the question: what may not be in a list at all is not written.
                if check.id == "msr-load-value" && self.msr_load.number != 0 && Phase::MsrLoading.first_failure(&entry).is_none() {
                    entry.msr_load.refused = self.refuses(&self.msr_load) == Some(true);
                }
                let applies = (check.applies)(&entry);
                (applies, applies && (check.holds)(&entry))
            }
            (None, None) => (false, false),
        };
        match (applies, holds) {
            (false, _) => Verdict::NotApplicable,
            (true, true) => Verdict::Holds,
            (true, false) => Verdict::Broken,
        }
    }

    fn learn(&mut self) -> Vec<&'static str> {
        // Controls and host state were checked, and found good, before the guest's state was refused.
        let (mut learned, fields, capabilities) = (Vec::new(), &self.fields, &mut self.capabilities);
        let words = [
            ("pin-based controls", &mut capabilities.pin_based, VmcsField::PinBasedControls),
            ("primary processor-based controls", &mut capabilities.primary, VmcsField::PrimaryProcessorBasedControls),
            ("secondary processor-based controls", &mut capabilities.secondary, VmcsField::SecondaryProcessorBasedControls),
            ("VM-exit controls", &mut capabilities.exit, VmcsField::PrimaryExitControls),
            ("VM-entry controls", &mut capabilities.entry, VmcsField::EntryControls),
        ];
        for (name, settings, field) in words {
            let used = fields.get(field) as u32;
            if used & !settings.may_be_one() != 0 {
                learned.push(name);
                settings.set_may_be_one(settings.may_be_one() | used);
            }
        }
        if fields.tertiary().into_bits() & !capabilities.tertiary != 0 {
            learned.push("tertiary processor-based controls");
            capabilities.tertiary |= fields.tertiary().into_bits();
        }
        if fields.get(VmcsField::HostCr4) & !capabilities.cr4_fixed1 != 0 {
            learned.push("CR4");
            capabilities.cr4_fixed1 |= fields.get(VmcsField::HostCr4);
        }
        if fields.exit().load_ia32_efer() && fields.get(VmcsField::HostEfer) & self.facts.efer_reserved != 0 {
            learned.push("IA32_EFER");
            self.facts.efer_reserved &= !fields.get(VmcsField::HostEfer);
        }
        learned
    }

    fn look_at_msr(&mut self, entry: &MsrLoad) -> bool {
        self.msr_load = *entry;
        entry.number == 0 || self.refuses(entry).is_some()
    }

    fn bit_names(&self, word: usize) -> BitNames {
        VmcsField::ALL.get(word).map(|&field| BitNames::vmcs(field)).unwrap_or_default()
    }

    fn settings(&self, rule: usize, word: usize) -> Option<Settings> {
        let capabilities = &self.capabilities;
        let named = capabilities.basic.true_controls();
        let allowed = |settings: AllowedSettings, plain: &'static str, exact: &'static str| {
            Some(Settings {
                must: settings.must_be_one().into(),
                may: settings.may_be_one().into(),
                source: if named { exact } else { plain },
            })
        };
        if rules().get(rule)?.id == "vmptrld-revision" {
            let revision = capabilities.basic.revision().into();
            return Some(Settings { must: revision, may: revision, source: "IA32_VMX_BASIC" });
        }
        let field = *VmcsField::ALL.get(word)?;
        match (rules().get(rule)?.id, field) {
            ("pin-based-allowed", VmcsField::PinBasedControls) => {
                allowed(capabilities.pin_based, "IA32_VMX_PINBASED_CTLS", "IA32_VMX_TRUE_PINBASED_CTLS")
            }
            ("primary-allowed", VmcsField::PrimaryProcessorBasedControls) => {
                allowed(capabilities.primary, "IA32_VMX_PROCBASED_CTLS", "IA32_VMX_TRUE_PROCBASED_CTLS")
            }
            ("secondary-allowed", VmcsField::SecondaryProcessorBasedControls) => {
                allowed(capabilities.secondary, "IA32_VMX_PROCBASED_CTLS2", "IA32_VMX_PROCBASED_CTLS2")
            }
            ("tertiary-allowed", VmcsField::TertiaryProcessorBasedControls) => {
                Some(Settings { must: 0, may: capabilities.tertiary, source: "IA32_VMX_PROCBASED_CTLS3" })
            }
            ("exit-allowed", VmcsField::PrimaryExitControls) => allowed(capabilities.exit, "IA32_VMX_EXIT_CTLS", "IA32_VMX_TRUE_EXIT_CTLS"),
            ("secondary-exit-allowed", VmcsField::SecondaryExitControls) => {
                Some(Settings { must: 0, may: capabilities.secondary_exit, source: "IA32_VMX_EXIT_CTLS2" })
            }
            ("entry-allowed", VmcsField::EntryControls) => allowed(capabilities.entry, "IA32_VMX_ENTRY_CTLS", "IA32_VMX_TRUE_ENTRY_CTLS"),
            ("vm-functions-allowed", VmcsField::VmFunctionControls) => {
                Some(Settings { must: 0, may: capabilities.vm_functions, source: "IA32_VMX_VMFUNC" })
            }
            ("host-cr0", VmcsField::HostCr0) => {
                Some(Settings { must: capabilities.cr0_fixed0, may: capabilities.cr0_fixed1, source: "IA32_VMX_CR0_FIXED0 and FIXED1" })
            }
            ("guest-cr0-fixed", VmcsField::GuestCr0) => {
                let free = if self.fields.secondary().unrestricted_guest() { 0x8000_0001 } else { 0 };
                let unchecked = 0x6000_0000;
                Some(Settings {
                    must: capabilities.cr0_fixed0 & !free & !unchecked,
                    may: capabilities.cr0_fixed1 | unchecked,
                    source: "IA32_VMX_CR0_FIXED0 and FIXED1",
                })
            }
            ("host-cr4", VmcsField::HostCr4) | ("guest-cr4-fixed", VmcsField::GuestCr4) => {
                Some(Settings { must: capabilities.cr4_fixed0, may: capabilities.cr4_fixed1, source: "IA32_VMX_CR4_FIXED0 and FIXED1" })
            }
            ("host-efer-reserved", VmcsField::HostEfer) | ("guest-efer-reserved", VmcsField::GuestEfer) => {
                Some(Settings { must: 0, may: !self.facts.efer_reserved, source: "the bits of IA32_EFER that the processor has" })
            }
            ("host-perf-global-ctrl", VmcsField::HostPerfGlobalCtrl) | ("guest-perf-global-ctrl", VmcsField::GuestPerfGlobalCtrl) => {
                Some(Settings { must: 0, may: !self.facts.perf_global_ctrl_reserved, source: "the counters that the processor has" })
            }
            _ => None,
        }
    }
}

/// What the exit qualification of a failed entry says, in words.
pub(crate) fn qualification_words(qualification: u64) -> &'static str {
    match qualification {
        q if q == InvalidGuestStateQualification::Pdptes as u64 => "loading the PDPTEs",
        q if q == InvalidGuestStateQualification::VmcsLinkPointer as u64 => "the VMCS link pointer",
        _ => "no part named",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_keeps_what_it_is_given() {
        let cpu = &models::SKYLAKE_SERVER;
        let mut vmcs = Vmcs::new(cpu, cpu.vmx.clone().unwrap());
        for word in 0..vmcs.words().len() {
            vmcs.set(word, u64::MAX);
            assert_eq!(vmcs.get(word), vmcs.words()[word].mask, "{}", vmcs.words()[word].name);
        }
    }
}
