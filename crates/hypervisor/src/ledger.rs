//! The ledger of a move: what a vendor's processors cannot carry of a virtual CPU, and what a guest will miss there.
//!
//! Modelled: for every row of the table of state ([`crate::state::ROWS`]) where it is kept on either vendor and what is lost there; for
//! every feature of a guest's CPUID who provides it and what it means where that is missing; for what both vendors have and do differently,
//! who stands in. A row is told only where it applies: to the registers at hand, to what the guest was told, to the two models.
//! Not modelled: what a guest has remembered of a former host besides its CPUID (errata, calibrated delays).

use crate::guest_cpu::GuestCpu;
use crate::state::{ROWS, Registers};
use crate::vcpu::Software;
use isa::cpuid::Feature;
use memory::Memory;
use models::{CpuModel, Vendor};
use serde::Serialize;
use std::fmt;

/// Who keeps a state while its guest is on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// The VMCS, or the VMCB.
    Block,
    /// The processor itself; the hypervisor loads it.
    Processor,
    /// The hypervisor: the guest's accesses exit.
    Software,
}

impl Keeper {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Block => "control block",
            Self::Processor => "processor",
            Self::Software => "software",
        }
    }
}

/// Whether the state crosses to a processor of a model, in words where it does not.
type Loss = fn(&Move<'_>) -> Option<String>;

/// What a vendor makes of a row of the table.
#[derive(Clone, Copy, Debug)]
pub enum Carry {
    /// It keeps it as it is.
    Exact(Keeper),
    /// It keeps it with a loss, for a reason, where the function says so. Its words are the details.
    Narrowed(Keeper, &'static str, Loss),
    /// It does not keep it where the function says so, with a consequence.
    Absent(&'static str, Loss),
}

impl Carry {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Narrowed(..) => "narrowed",
            Self::Absent(..) => "absent",
        }
    }

    /// Why it is not exact.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Exact(_) => None,
            Self::Narrowed(_, reason, _) | Self::Absent(reason, _) => Some(reason),
        }
    }

    /// Who keeps it, if somebody does.
    pub const fn keeper(self) -> Option<Keeper> {
        match self {
            Self::Exact(keeper) | Self::Narrowed(keeper, ..) => Some(keeper),
            Self::Absent(..) => None,
        }
    }
}

/// A virtual CPU that is about to move.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// Its registers.
    pub registers: &'a Registers,
    /// What software keeps of it.
    pub software: &'a Software,
    /// What the guest was told of its processor.
    pub guest: &'a GuestCpu,
    /// The model that it comes from.
    pub from: &'static CpuModel,
    /// The model that it goes to.
    pub to: &'static CpuModel,
    /// It will run under shadow paging there, where the hypervisor keeps what nested paging leaves to the processor.
    pub to_shadow: bool,
    /// The guest's memory.
    pub memory: &'a Memory,
}

impl Move<'_> {
    /// What is lost of a value in a register of 32 bits that has no upper half for this guest.
    pub(crate) fn half(&self, value: u64) -> Option<String> {
        let low = value & 0xffff_ffff;
        (value != low && self.guest.vendor() == Vendor::Amd).then(|| format!("{value:#x} becomes {low:#x}"))
    }

    /// Which page-directory-pointer-table entries are not as memory has them.
    pub(crate) fn changed_pdptes(&self) -> Option<String> {
        if self.to_shadow || !self.registers.pae_paging() {
            return None;
        }
        let table = self.registers.cr3 & 0xffff_ffe0;
        let mut changes = Vec::new();
        for (index, cached) in self.registers.pdptes.iter().enumerate() {
            let mut bytes = [0; 8];
            let stored = self.memory.read(table + index as u64 * 8, &mut bytes).map_or(u64::MAX, |()| u64::from_le_bytes(bytes));
            if stored != *cached {
                changes.push(format!("entry {index} {cached:#x} becomes {stored:#x}"));
            }
        }
        (!changes.is_empty()).then(|| changes.join(", "))
    }

    /// What is lost now.
    pub fn losses(&self) -> Vec<Entry> {
        let entry = |row: &crate::state::Row| {
            let carry = row.carry(self.to.vendor);
            let (verdict, reason, loss) = match carry {
                Carry::Exact(_) => return None,
                Carry::Narrowed(_, reason, loss) => (Verdict::Narrowed, reason, loss),
                Carry::Absent(reason, loss) => (Verdict::Lost, reason, loss),
            };
            let detail = loss(self)?;
            Some(Entry { vcpu: None, tag: row.tag, subject: row.name.to_owned(), verdict, reason: reason.to_owned(), detail })
        };
        ROWS.iter().filter_map(entry).collect()
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is lost; somebody else does it, or it takes longer.
    Emulated,
    /// Something of it is lost, or it is done otherwise.
    Narrowed,
    /// It is lost.
    Lost,
}

impl Verdict {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Narrowed => "narrowed",
            Self::Lost => "lost",
        }
    }
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Of which virtual CPU; `None` where it concerns all, or there is only one.
    pub vcpu: Option<u32>,
    /// The row of the table of state, or the area: `feature`, `behaviour`, `time`.
    pub tag: &'static str,
    /// What.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// Why, or what follows.
    pub reason: String,
    /// The values at hand, if there are any.
    pub detail: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vcpu) = self.vcpu {
            write!(formatter, "vcpu {vcpu}: ")?;
        }
        write!(formatter, "{} {}: {}", self.subject, self.verdict.word(), self.reason)?;
        if !self.detail.is_empty() {
            write!(formatter, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// Who provides a feature to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// The processor executes instructions.
    Instructions,
    /// The processor has a bit of a control register, or of a paging entry.
    Control,
    /// The hypervisor.
    Hypervisor,
    /// Nobody: it says how the processor does something. What follows where it does not.
    Description(&'static str),
}

const fn provider(feature: Feature) -> Provider {
    use Provider::{Control, Description, Hypervisor, Instructions};
    match feature {
        Feature::Apic
        | Feature::X2apic
        | Feature::TscDeadline
        | Feature::Arat
        | Feature::Hypervisor
        | Feature::Mce
        | Feature::Mca
        | Feature::Mtrr
        | Feature::TscAdjust
        | Feature::Topoext
        // No guest can set it, whatever the processor has.
        | Feature::EferLmsleUnsupported
        // Whether the counter keeps its rate is told apart, by the models' frequencies.
        | Feature::InvariantTsc => Hypervisor,
        Feature::FdpExceptionsOnly => Description("every x87 instruction updates the data pointer, not only unmasked exceptions"),
        Feature::FcsFdsDeprecated => Description("FCS and FDS are saved as the x87 unit has them, not as zero"),
        Feature::XsaveErrorPointers => Description("FXSAVE and XSAVE save the x87 pointers as Intel's processors do"),
        // They have no effect beside speed.
        Feature::Erms => Hypervisor,
        Feature::Vme
        | Feature::De
        | Feature::Pse
        | Feature::Pae
        | Feature::Pge
        | Feature::Pse36
        | Feature::Pat
        | Feature::Pcid
        | Feature::Fsgsbase
        | Feature::Smep
        | Feature::Smap
        | Feature::Umip
        | Feature::Pku
        | Feature::La57
        | Feature::Nx
        | Feature::Page1gb
        | Feature::LongMode
        | Feature::Ffxsr
        | Feature::Tce => Control,
        _ => Instructions,
    }
}

/// What follows for a guest that was told of a feature, where the processor lacks it; nothing where the hypervisor provides it.
const fn consequence(feature: Feature) -> Option<(Verdict, &'static str)> {
    match provider(feature) {
        Provider::Hypervisor => None,
        Provider::Instructions => Some((Verdict::Lost, "instructions are #UD there, or others")),
        Provider::Control => Some((Verdict::Lost, "bits of control registers or paging entries are reserved there")),
        Provider::Description(follows) => Some((Verdict::Narrowed, follows)),
    }
}

/// What a guest was told of and misses on processors of a model.
fn missing(guest: &GuestCpu, to: &CpuModel) -> impl Iterator<Item = (Feature, Verdict, &'static str)> {
    lacking(guest.features(), to)
}

/// Which of these features ([`Feature::bit`] each) processors of a model lack, and what follows for a guest that was told of them; not those that
/// the hypervisor provides.
pub fn lacking(features: u128, to: &CpuModel) -> impl Iterator<Item = (Feature, Verdict, &'static str)> {
    let lacking = features & !to.features() & !Feature::Hypervisor.bit();
    let with_consequence = |feature: Feature| consequence(feature).map(|(verdict, follows)| (feature, verdict, follows));
    Feature::ALL.iter().copied().filter(move |feature| lacking & feature.bit() != 0).filter_map(with_consequence)
}

/// One entry for each feature that a guest was told of and misses on processors of a model.
pub fn missing_features(guest: &GuestCpu, to: &CpuModel) -> Vec<(Feature, Entry)> {
    let entry = |(feature, verdict, follows): (Feature, Verdict, &str)| {
        let reason = format!("the guest's CPUID tells of it and {} lacks it: {follows}", to.name);
        let subject = format!("feature {}", feature.name());
        (feature, Entry { vcpu: None, tag: "feature", subject, verdict, reason, detail: String::new() })
    };
    missing(guest, to).map(entry).collect()
}

/// The same in as few sentences as there are consequences.
pub(crate) fn missing_in_words(guest: &GuestCpu, to: &CpuModel) -> Vec<String> {
    let mut sentences: Vec<(Verdict, &str, Vec<String>)> = Vec::new();
    for (feature, verdict, follows) in missing(guest, to) {
        match sentences.iter_mut().find(|(_, known, _)| *known == follows) {
            Some((.., names)) => names.push(feature.name()),
            None => sentences.push((verdict, follows, vec![feature.name()])),
        }
    }
    let words = |(verdict, follows, names): (Verdict, &str, Vec<String>)| {
        let names = names.join(", ");
        format!("{names} {}: the guest's CPUID tells of what {} lacks: {follows}", verdict.word(), to.name)
    };
    sentences.into_iter().map(words).collect()
}

/// Something that both vendors do, and do differently.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// What.
    pub subject: &'static str,
    /// The case of docs/migration-cases.md that shows it.
    pub case: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What happens.
    pub reason: &'static str,
    applies: fn(&GuestCpu, &CpuModel) -> bool,
}

/// An Intel-compatible guest on an AMD processor.
fn intel_on_amd(guest: &GuestCpu, to: &CpuModel) -> bool {
    guest.vendor() == Vendor::Intel && to.vendor == Vendor::Amd
}

/// An AMD-compatible guest on an Intel processor.
fn amd_on_intel(guest: &GuestCpu, to: &CpuModel) -> bool {
    guest.vendor() == Vendor::Amd && to.vendor == Vendor::Intel
}

/// What both vendors do differently.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        subject: "hypercalls",
        case: "M1",
        verdict: Verdict::Emulated,
        reason: "the guest's instruction is foreign, and the hypervisor's policy decides what becomes of it",
        applies: |guest, to| guest.vendor() != to.vendor,
    },
    Difference {
        subject: "SYSENTER in long mode",
        case: "M4",
        verdict: Verdict::Emulated,
        reason: "#UD on AMD: in compatibility mode the hypervisor emulates it, with an exit a call; in 64-bit mode the guest gets #UD",
        applies: |guest, to| guest.has(Feature::Sep) && intel_on_amd(guest, to),
    },
    Difference {
        subject: "SYSCALL outside of 64-bit mode",
        case: "M4",
        verdict: Verdict::Emulated,
        reason: "#UD on Intel: the hypervisor emulates it, with an exit a call",
        applies: |guest, to| guest.has(Feature::Syscall) && amd_on_intel(guest, to),
    },
    Difference {
        subject: "SYSCALL in compatibility mode",
        case: "M5",
        verdict: Verdict::Narrowed,
        reason: "AMD executes it, and nothing makes it the #UD that an Intel-compatible guest expects",
        applies: |guest, to| guest.has(Feature::Syscall) && intel_on_amd(guest, to),
    },
    Difference {
        subject: "SYSRET",
        case: "M28",
        verdict: Verdict::Narrowed,
        reason: "AMD leaves the attributes of SS as they are: a stack segment that was unusable stays so in 32-bit user code",
        applies: |guest, to| guest.has(Feature::Syscall) && intel_on_amd(guest, to),
    },
    Difference {
        subject: "null selectors",
        case: "M28",
        verdict: Verdict::Narrowed,
        reason: "AMD leaves the base of FS and GS as it is when a null selector is loaded, where Intel clears it",
        applies: intel_on_amd,
    },
    Difference {
        subject: "breakpoints behind MOV SS",
        case: "M27",
        verdict: Verdict::Narrowed,
        reason: "Intel holds back code breakpoints there, AMD does not",
        applies: |guest, to| guest.vendor() != to.vendor,
    },
    Difference {
        subject: "areas of XSAVE",
        case: "M22",
        verdict: Verdict::Narrowed,
        reason: "PKRU lies at another offset than the guest's CPUID says, and in areas that it has saved already",
        applies: |guest, to| guest.has(Feature::Pku) && guest.has(Feature::Xsave) && guest.model.pkru_offset() != to.pkru_offset(),
    },
    Difference {
        subject: "physical addresses",
        case: "M23",
        verdict: Verdict::Narrowed,
        reason: "the processor has more address bits than the guest was told of, and takes reserved bits of its paging entries for addresses",
        applies: |guest, to| to.physical_address_bits > guest.physical_address_bits(),
    },
    Difference {
        subject: "physical addresses",
        case: "M23",
        verdict: Verdict::Lost,
        reason: "the processor has fewer address bits than the guest was told of: they are reserved in its paging entries",
        applies: |guest, to| to.physical_address_bits < guest.physical_address_bits(),
    },
    Difference {
        subject: "features that are not told of",
        case: "M24",
        verdict: Verdict::Narrowed,
        reason: "the processor has 1-GiB pages and takes the entry for one, where the guest expects a reserved bit",
        applies: |guest, to| to.has(Feature::Page1gb) && !guest.has(Feature::Page1gb),
    },
];

/// What a guest meets differently on processors of a model.
pub fn differences(guest: &GuestCpu, to: &CpuModel) -> Vec<Entry> {
    let applies = |row: &&Difference| (row.applies)(guest, to);
    let entry = |row: &Difference| Entry {
        vcpu: None,
        tag: "behaviour",
        subject: row.subject.to_owned(),
        verdict: row.verdict,
        reason: row.reason.to_owned(),
        detail: row.case.to_owned(),
    };
    DIFFERENCES.iter().filter(applies).map(entry).collect()
}

/// What a guest meets differently there, as one sentence; nothing where there is nothing, or where the hypervisor sees to it.
pub(crate) fn done_differently(guest: &GuestCpu, to: &CpuModel) -> Option<String> {
    let lossy = |row: &&Difference| row.verdict != Verdict::Emulated && (row.applies)(guest, to);
    let names: Vec<String> = DIFFERENCES.iter().filter(lossy).map(|row| format!("{} ({})", row.subject, row.case)).collect();
    (!names.is_empty()).then(|| format!("done differently there: {}", names.join(", ")))
}

/// Whether a model can scale the time-stamp counter of its guests.
pub(crate) fn scales(model: &CpuModel) -> bool {
    match model.vendor {
        Vendor::Intel => model.vmx.as_ref().is_some_and(|vmx| vmx.may_be_one(isa::vmx::SecondaryControls::USE_TSC_SCALING)),
        Vendor::Amd => model.svm.is_some_and(|svm| svm.features.tsc_rate_msr()),
    }
}

/// What happens to the guest's clocks; `clocks` is how many cycles its devices count to a second.
pub fn clocks(guest: &GuestCpu, clocks: u64, to: &CpuModel) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut tell = |subject: &str, reason: String| {
        let (subject, detail) = (subject.to_owned(), String::new());
        entries.push(Entry { vcpu: None, tag: "time", subject, verdict: Verdict::Narrowed, reason, detail });
    };
    if guest.model.tsc_hz != to.tsc_hz && !scales(to) {
        let reason = format!("{} cannot scale it, so that it runs at {} Hz instead of {}", to.name, to.tsc_hz, guest.model.tsc_hz);
        tell("time-stamp counter", reason);
    }
    if clocks != to.tsc_hz {
        let reason = format!(
            "they go on counting {clocks} cycles to a second, {} has {}, so that the guest's seconds change their length",
            to.name, to.tsc_hz
        );
        tell("device clocks", reason);
    }
    entries
}

/// What a move would cost, before it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The model that the guest is on.
    pub from: &'static str,
    /// The model that it would go to.
    pub to: &'static str,
    /// Why the processors there cannot run it at all.
    pub unfit: Option<String>,
    /// What would be lost at this moment.
    pub now: Vec<Entry>,
    /// What might be lost, given what the guest was told of its processor.
    pub possible: Vec<Entry>,
    /// Features that its CPUID would have to be without.
    pub levelling: Vec<String>,
}

impl Check {
    /// Whether nothing is lost, now or later: what is emulated is not lost.
    pub fn is_safe(&self) -> bool {
        let kept = |entry: &Entry| entry.verdict == Verdict::Emulated;
        self.unfit.is_none() && self.now.iter().chain(&self.possible).all(kept)
    }
}

/// A cell of the printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// `exact`, `narrowed` or `absent`.
    pub carry: &'static str,
    /// Who keeps it, if somebody does.
    pub keeper: Option<Keeper>,
    /// Why it is not exact: the reason, or the consequence.
    pub reason: Option<&'static str>,
}

impl From<Carry> for Cell {
    fn from(carry: Carry) -> Self {
        Self { carry: carry.word(), keeper: carry.keeper(), reason: carry.reason() }
    }
}

/// A row of the printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TableRow {
    /// The field of the record.
    pub tag: &'static str,
    /// Its name.
    pub name: &'static str,
    /// On the model that the guest comes from.
    pub from: Cell,
    /// On the model that it goes to.
    pub to: Cell,
}

/// The whole ledger of two models, without a guest at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// The model that the guest comes from.
    pub from: &'static str,
    /// The model that it goes to.
    pub to: &'static str,
    /// The model that it was told of.
    pub guest_cpu: &'static str,
    /// The vendor's name that it was told.
    pub guest_vendor: String,
    /// Why the processors there cannot run it at all.
    pub unfit: Option<String>,
    /// All state of a virtual CPU.
    pub rows: Vec<TableRow>,
    /// Features that only the first model has.
    pub only_from: Vec<String>,
    /// Features that only the second model has.
    pub only_to: Vec<String>,
    /// What the guest may find different.
    pub possible: Vec<Entry>,
    /// Features that its CPUID would have to be without.
    pub levelling: Vec<String>,
}

/// The ledger of two models for a guest that was told of a processor.
pub fn table(guest: &GuestCpu, from: &'static CpuModel, to: &'static CpuModel) -> Table {
    let names = |set: u128| Feature::ALL.iter().filter(|feature| set & feature.bit() != 0).map(|feature| feature.name()).collect();
    let row = |row: &crate::state::Row| TableRow {
        tag: row.tag,
        name: row.name,
        from: row.carry(from.vendor).into(),
        to: row.carry(to.vendor).into(),
    };
    let (possible, levelling) = possible(guest, from.tsc_hz, to);
    Table {
        from: from.name,
        to: to.name,
        guest_cpu: guest.model.name,
        guest_vendor: String::from_utf8_lossy(&guest.signature()).into_owned(),
        unfit: crate::any::check_model(to, None).err().map(|error| error.to_string()),
        rows: ROWS.iter().map(row).collect(),
        only_from: names(from.features() & !to.features()),
        only_to: names(to.features() & !from.features()),
        possible,
        levelling,
    }
}

/// What might be lost, and which features a guest would have to be without for it not to be.
pub(crate) fn possible(guest: &GuestCpu, device_clocks: u64, to: &CpuModel) -> (Vec<Entry>, Vec<String>) {
    let missing = missing_features(guest, to);
    let mut levelling: Vec<String> = missing.iter().map(|(feature, _)| feature.name()).collect();
    if DIFFERENCES.iter().any(|row| row.case == "M22" && (row.applies)(guest, to)) {
        levelling.push(Feature::Pku.name());
    }
    let mut entries: Vec<Entry> = missing.into_iter().map(|(_, entry)| entry).collect();
    entries.extend(differences(guest, to));
    entries.extend(clocks(guest, device_clocks, to));
    (entries, levelling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_cpu::Levelling;
    use crate::vcpu::Software;
    use cpu::apic::LocalApic;
    use cpu::state::{Cpu, Shadow};
    use cpu::trap::{Event, EventKind, Exception};
    use isa::exception::Vector;
    use models::{SKYLAKE_SERVER, ZEN3};

    fn software() -> Software {
        Software::new(LocalApic::new(0, true, cpu::apic::Features::default()), 0)
    }

    fn losses(registers: &Registers, software: &Software, guest: &GuestCpu, to: &'static CpuModel) -> Vec<String> {
        let memory = Memory::new(0);
        let from = guest.model;
        Move { registers, software, guest, from, to, to_shadow: false, memory: &memory }.losses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_lost_in_this_state_is_told() {
        let (guest, quiet) = (GuestCpu::of(&ZEN3), software());
        let mut state = Registers::of(&Cpu::new(&ZEN3, 0, 1, None));
        state.segments[0].attributes = state.segments[0].attributes.with_kind(3);
        assert_eq!(losses(&state, &quiet, &guest, &ZEN3), Vec::<String>::new());
        state.pending_debug = 1 << 14;
        state.shadow = Shadow::Sti;
        state.msrs.sysenter_eip = 0xffff_ffff_8000_1234;
        equal(
            &losses(&state, &quiet, &guest, &ZEN3),
            &[
                "interrupt shadow narrowed: one bit stands for STI and MOV SS: STI comes back as MOV SS, which blocks more",
                "pending debug exceptions lost: there is no field for them: they never come (0x4000)",
                "IA32_SYSENTER_EIP narrowed: AMD's register has 32 bits, and the hypervisor keeps the upper half for Intel-compatible \
                 guests only (0xffffffff80001234 becomes 0x80001234)",
            ],
        );
        // For a guest of Intel's kind the upper half is kept.
        assert_eq!(losses(&state, &quiet, &GuestCpu::of(&SKYLAKE_SERVER), &ZEN3).len(), 2);
        state.efer = state.efer.with_ffxsr(true);
        assert!(losses(&state, &quiet, &guest, &SKYLAKE_SERVER).iter().any(|line| line.starts_with("EFER narrowed")));
    }

    fn equal(lines: &[String], expected: &[&str]) {
        assert_eq!(lines, expected);
    }

    #[test]
    fn events_in_flight_are_told() {
        let guest = GuestCpu::of(&ZEN3);
        let state = Registers::of(&Cpu::new(&ZEN3, 0, 1, None));
        let mut software = software();
        software.requeued = Some(Event { kind: EventKind::SoftwareInterrupt, vector: 0x80, error_code: None, length: 2 });
        software.exception = Some(Exception::with_code(Vector::PageFault, 0x8000_0005));
        let lines = losses(&state, &software, &guest, &SKYLAKE_SERVER);
        assert!(lines.iter().any(|line| line.contains("begun again") && line.contains("vector 0x80")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("0x80000005 becomes 0x5")), "{lines:?}");
        assert_eq!(losses(&state, &software, &guest, &ZEN3).len(), 1);
    }

    #[test]
    fn a_guest_that_is_told_of_the_common_features_misses_none() {
        for (model, to) in [(&SKYLAKE_SERVER, &ZEN3), (&ZEN3, &SKYLAKE_SERVER)] {
            assert!(!missing_features(&GuestCpu::of(model), to).is_empty());
            let levelled = GuestCpu { model, levelling: Levelling::NONE.common(to) };
            assert_eq!(missing_features(&levelled, to), Vec::new());
            // Every feature has a name that leads back.
            let (_, names) = possible(&GuestCpu::of(model), to.tsc_hz, to);
            for name in names {
                assert!(Feature::from_name(&name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn cases_are_those_of_the_catalogue() {
        for row in DIFFERENCES {
            let number: Option<u32> = row.case.strip_prefix('M').and_then(|digits| digits.parse().ok());
            assert!(number.is_some_and(|number| (1..=32).contains(&number)), "{}", row.case);
        }
    }
}
