//! The checks of VM entry: what a row is, what it may look at, and which phase a failure belongs to.
//!
//! Modelled: the checks of SDM 27.2 "Checks on VMX Controls and Host-State Area", 27.3.1 "Checks on the Guest State Area" and 27.4 "Loading
//! MSRs", one row for each rule. A row says whether a rule holds, never what happens if it does not: that is the [`Phase`]'s, so that no row can answer with
//! another phase's error. The SDM lets a processor check in any order within a group; the order of the rows is ours.
//! Not modelled: checks of features that no CPU model offers; the check of the control words themselves then fails first.

pub mod controls;
pub mod guest;
pub mod host_state;
pub mod msr_loading;

use crate::vmcs::Fields;
use isa::control::{Cr0, Cr4, Efer};
use isa::segment::{Attributes, Selector};
use isa::vmx::{
    EntryControls, ExitControls, InterruptionInformation, InvalidGuestStateQualification, PinBasedControls, PrimaryControls,
    SecondaryControls, SecondaryExitControls, TertiaryControls, VmInstructionError, VmcsField, VmxCapabilities,
};
use serde::{Deserialize, Serialize};

/// One rule of VM entry.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name of the rule, unique among all checks.
    pub id: &'static str,
    /// Where the manual says it, SDM volume 3: section and title.
    pub section: &'static str,
    /// The rule in one sentence.
    pub rule: &'static str,
    /// The fields that the rule looks at.
    pub reads: &'static [VmcsField],
    /// Whether the rule has something to say here.
    pub applies: fn(&Entry<'_>) -> bool,
    /// Whether the rule is obeyed, where it applies.
    pub holds: fn(&Entry<'_>) -> bool,
    /// What to do about it, or which mistake it often is; empty where the rule says it all.
    pub hint: &'static str,
}

impl Check {
    /// Whether the rule is broken.
    pub fn fails(&self, entry: &Entry<'_>) -> bool {
        (self.applies)(entry) && !(self.holds)(entry)
    }
}

/// A table of checks: the section, then for each rule its id, its sentence, the fields it reads, when it applies, what must hold, and what to
/// do about it.
macro_rules! checks {
    ($(#[$doc:meta])* $name:ident, $section:literal; $(
        $id:expr, $rule:expr, [$($field:ident)*] $(, if $applies:expr)? => $holds:expr $(, hint $hint:literal)?;
    )*) => {
        $(#[$doc])*
        pub const $name: &[$crate::checks::Check] = &[$($crate::checks::Check {
            id: $id,
            section: $section,
            rule: $rule,
            reads: &[$(isa::vmx::VmcsField::$field,)*],
            applies: $crate::checks::optional!(|_| true $(, $applies)?),
            holds: $holds,
            hint: $crate::checks::optional!("" $(, $hint)?),
        },)*];
    };
}

/// What is given, or else the default.
macro_rules! optional {
    ($default:expr) => {
        $default
    };
    ($default:expr, $given:expr) => {
        $given
    };
}

pub(crate) use {checks, optional};

/// A group of checks with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Phase {
    /// VM-execution, VM-exit and VM-entry control fields.
    Controls,
    /// Host-state area.
    HostState,
    /// Guest control registers, debug registers and MSRs.
    GuestControlRegisters,
    /// Guest segment registers.
    GuestSegments,
    /// Guest descriptor-table registers.
    GuestTables,
    /// Guest RIP, RFLAGS and SSP.
    GuestRipRflags,
    /// Guest non-register state but for the VMCS link pointer.
    GuestNonRegister,
    /// VMCS link pointer.
    GuestLinkPointer,
    /// Guest page-directory-pointer-table entries.
    GuestPdptes,
    /// Entries of the VM-entry MSR-load list.
    MsrLoading,
}

/// What follows from a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseOutcome {
    /// VMLAUNCH or VMRESUME ends with VMfailValid and this error.
    FailValid(VmInstructionError),
    /// A VM exit with reason 33, bit 31 set, and this qualification.
    InvalidGuestState(InvalidGuestStateQualification),
    /// A VM exit with reason 34, bit 31 set, and the number of the list's entry as qualification.
    MsrLoading,
}

impl Phase {
    /// Every phase, in the order in which the processor checks them.
    pub const ALL: &[Phase] = &[
        Phase::Controls,
        Phase::HostState,
        Phase::GuestControlRegisters,
        Phase::GuestSegments,
        Phase::GuestTables,
        Phase::GuestRipRflags,
        Phase::GuestNonRegister,
        Phase::GuestLinkPointer,
        Phase::GuestPdptes,
        Phase::MsrLoading,
    ];

    /// The rules of the phase, in the order in which the processor checks them.
    pub const fn checks(self) -> &'static [Check] {
        match self {
            Phase::Controls => controls::CHECKS,
            Phase::HostState => host_state::CHECKS,
            Phase::GuestControlRegisters => guest::control_registers::CHECKS,
            Phase::GuestSegments => guest::segments::CHECKS,
            Phase::GuestTables => guest::tables::CHECKS,
            Phase::GuestRipRflags => guest::rip_rflags::CHECKS,
            Phase::GuestNonRegister => guest::non_register::CHECKS,
            Phase::GuestLinkPointer => guest::non_register::LINK_POINTER_CHECKS,
            Phase::GuestPdptes => guest::pdpte::CHECKS,
            Phase::MsrLoading => msr_loading::CHECKS,
        }
    }

    /// What a broken rule of the phase leads to.
    ///
    /// SDM 27.2 "Checks on VMX Controls and Host-State Area" and 27.8 "VM-Entry Failures During or After Loading Guest State".
    pub const fn outcome(self) -> PhaseOutcome {
        match self {
            Phase::Controls => PhaseOutcome::FailValid(VmInstructionError::EntryInvalidControlFields),
            Phase::HostState => PhaseOutcome::FailValid(VmInstructionError::EntryInvalidHostStateFields),
            Phase::GuestLinkPointer => PhaseOutcome::InvalidGuestState(InvalidGuestStateQualification::VmcsLinkPointer),
            Phase::GuestPdptes => PhaseOutcome::InvalidGuestState(InvalidGuestStateQualification::Pdptes),
            Phase::MsrLoading => PhaseOutcome::MsrLoading,
            Phase::GuestControlRegisters | Phase::GuestSegments | Phase::GuestTables | Phase::GuestRipRflags | Phase::GuestNonRegister => {
                PhaseOutcome::InvalidGuestState(InvalidGuestStateQualification::Unspecified)
            }
        }
    }

    /// The first rule of the phase that is broken.
    pub fn first_failure(self, entry: &Entry<'_>) -> Option<&'static Check> {
        self.checks().iter().find(|check| check.fails(entry))
    }
}

/// Every broken rule of every phase, which no hardware can tell: for explaining a failed entry.
pub fn all_failures<'a>(entry: &'a Entry<'_>) -> impl Iterator<Item = (Phase, &'static Check)> + 'a {
    Phase::ALL.iter().flat_map(|&phase| phase.checks().iter().map(move |check| (phase, check))).filter(|(_, check)| check.fails(entry))
}

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases(u16);

impl Phases {
    /// All of them.
    pub const ALL: Phases = Phases((1 << Phase::ALL.len()) - 1);

    /// The controls alone.
    pub const CONTROLS: Phases = Phases(1 << Phase::Controls as u8);

    /// The phases with a rule that reads the field.
    pub const fn reading(field: VmcsField) -> Phases {
        Phases(READ_BY[field.index()])
    }

    /// The bits of a field that any rule looks at: those that change at almost every VM exit are in none.
    pub const fn looked_at(field: VmcsField) -> u64 {
        match field {
            VmcsField::GuestRip => 0xffff_ffff_0000_0000,
            VmcsField::GuestRflags => !isa::rflags::STATUS,
            _ => u64::MAX,
        }
    }

    /// Whether the phase is in the set.
    pub const fn contains(self, phase: Phase) -> bool {
        self.0 >> phase as u8 & 1 != 0
    }

    /// Whether no phase is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds every phase of another set.
    pub const fn add(&mut self, other: Phases) {
        self.0 |= other.0;
    }

    /// Takes a phase out.
    pub const fn remove(&mut self, phase: Phase) {
        self.0 &= !(1 << phase as u8);
    }
}

/// For each field, the phases that must be checked again after it changed. A cache of the tables, so it changes no result.
static READ_BY: [u16; VmcsField::COUNT] = {
    let mut read_by = [0; VmcsField::COUNT];
    let mut phase = 0;
    while phase < Phase::ALL.len() {
        let checks = Phase::ALL[phase].checks();
        let mut row = 0;
        while row < checks.len() {
            let mut field = 0;
            while field < checks[row].reads.len() {
                read_by[checks[row].reads[field].index()] |= 1 << phase;
                field += 1;
            }
            row += 1;
        }
        phase += 1;
    }
    read_by
};

/// What the checks need to know beside the VMCS and the capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Width of physical addresses in bits.
    pub physical_address_width: u8,
    /// IA32_EFER.LMA at the time of VM entry.
    pub host_long_mode: bool,
    /// IA32_EFER bits that the processor does not have.
    pub efer_reserved: u64,
    /// IA32_DEBUGCTL bits that the processor does not have.
    pub debugctl_reserved: u64,
    /// IA32_PERF_GLOBAL_CTRL bits that the processor does not have.
    pub perf_global_ctrl_reserved: u64,
    /// Physical address of the current VMCS.
    pub current_vmcs: u64,
    /// The first four bytes at the VMCS link pointer; zero where the pointer is none.
    pub linked_revision: u32,
    /// Virtual task-priority register of the virtual-APIC page; zero without "use TPR shadow".
    pub virtual_tpr: u8,
    /// The page-directory-pointer-table entries in memory at the guest's CR3, where PAE paging without EPT makes entry load them.
    pub pdptes: [u64; 4],
}

/// An entry of the VM-entry MSR-load list, and what WRMSR says of it. SDM Table 25-13 "Format of an MSR Entry".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsrLoad {
    /// Which entry, counted from 1: the exit qualification if it breaks a rule. 0 is none.
    pub number: u32,
    /// Bits 31:0, the MSR.
    pub index: u32,
    /// Bits 63:32.
    pub reserved: u32,
    /// Bits 127:64, the value.
    pub value: u64,
    /// WRMSR at privilege level 0 of the value would be #GP.
    pub refused: bool,
}

/// Everything a check may look at.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Fields of the current VMCS.
    pub fields: &'a Fields,
    /// What the processor offers.
    pub capabilities: &'a VmxCapabilities,
    /// The rest.
    pub facts: Facts,
    /// The entry of the VM-entry MSR-load list that is looked at; none while number is 0.
    pub msr_load: MsrLoad,
}

impl Entry<'_> {
    /// Value of a field.
    pub fn get(&self, field: VmcsField) -> u64 {
        self.fields.get(field)
    }

    /// Pin-based VM-execution controls.
    pub fn pin_based(&self) -> PinBasedControls {
        self.fields.pin_based()
    }

    /// Primary processor-based VM-execution controls.
    pub fn primary(&self) -> PrimaryControls {
        self.fields.primary()
    }

    /// Secondary processor-based VM-execution controls; none where they are not activated.
    pub fn secondary(&self) -> SecondaryControls {
        self.fields.secondary()
    }

    /// Tertiary processor-based VM-execution controls; none where they are not activated.
    pub fn tertiary(&self) -> TertiaryControls {
        self.fields.tertiary()
    }

    /// Primary VM-exit controls.
    pub fn exit(&self) -> ExitControls {
        self.fields.exit()
    }

    /// Secondary VM-exit controls; none where they are not activated.
    pub fn secondary_exit(&self) -> SecondaryExitControls {
        self.fields.secondary_exit()
    }

    /// VM-entry controls.
    pub fn entry(&self) -> EntryControls {
        self.fields.entry()
    }

    /// The event to inject.
    pub fn event(&self) -> InterruptionInformation {
        self.fields.entry_event()
    }

    /// CR0 of the guest.
    pub fn cr0(&self) -> Cr0 {
        Cr0::from_bits(self.get(VmcsField::GuestCr0))
    }

    /// CR4 of the guest.
    pub fn cr4(&self) -> Cr4 {
        Cr4::from_bits(self.get(VmcsField::GuestCr4))
    }

    /// IA32_EFER in the guest-state area.
    pub fn guest_efer(&self) -> Efer {
        Efer::from_bits(self.get(VmcsField::GuestEfer))
    }

    /// Whether the guest will be in virtual-8086 mode.
    pub fn virtual_8086(&self) -> bool {
        self.get(VmcsField::GuestRflags) >> 17 & 1 != 0
    }

    /// Access rights in a field.
    pub fn rights(&self, field: VmcsField) -> Attributes {
        Attributes::from_bits(self.get(field) as u32)
    }

    /// Selector in a field.
    pub fn selector(&self, field: VmcsField) -> Selector {
        Selector::from_bits(self.get(field) as u16)
    }

    /// Whether an address has no bit beyond the physical-address width, or beyond 32 bits where IA32_VMX_BASIC bit 48 says so.
    pub fn within_physical_width(&self, address: u64) -> bool {
        let width = if self.capabilities.basic.addresses_limited_to_32_bits() { 32 } else { self.facts.physical_address_width };
        address.checked_shr(u32::from(width)).unwrap_or(0) == 0
    }

    /// Whether a field holds the physical address of a 4 KiB page.
    pub fn is_page_address(&self, field: VmcsField) -> bool {
        let address = self.get(field);
        address & 0xfff == 0 && self.within_physical_width(address)
    }

    /// Whether a list of MSRs of this many entries of 16 bytes lies at an aligned address, all of it within the physical-address width.
    pub fn is_msr_list(&self, address: VmcsField, count: VmcsField) -> bool {
        let first = self.get(address);
        let last = (self.get(count) * 16).checked_sub(1).and_then(|bytes| first.checked_add(bytes));
        first & 0xf == 0 && self.within_physical_width(first) && last.is_some_and(|last| self.within_physical_width(last))
    }
}

/// Whether a value of IA32_S_CET has no reserved bit (9:6), and not both SUPPRESS (10) and TRACKER (11). SDM volume 1, 17.3.
pub fn is_s_cet(value: u64) -> bool {
    value & 0x3c0 == 0 && value & 0xc00 != 0xc00
}

/// Whether every byte of an IA32_PAT value is a memory type. SDM 12.12.2 "IA32_PAT MSR".
pub fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests;
