//! The consistency checks of VMRUN, one row a rule; a VMCB that breaks any of them exits at once with VMEXIT_INVALID.
//!
//! What is modelled: APM vol 2, 15.5.1 "Basic Operation", "Canonicalization and Consistency Checks"; 15.20 "Event Injection"; 15.25.3
//! "Enabling Nested Paging" and 15.25.4 "Nested Paging and VMRUN/#VMEXIT"; 15.21.10 "NMI Virtualization". The manual gives one outcome to all of
//! them and no order: ours is the order of the rows, and [`all_failures`] names every broken rule, which hardware cannot.
//!
//! What is not: checks of features that the silicon does not offer (SEV, AVIC), and of U_CET, which is no field. Their enables are refused by a row each where
//! running on without the feature would be a lie about what protects the guest; other controls that are not offered are reserved bits, which
//! VMRUN ignores.

use isa::control::{Cr0, Cr4, Efer};
use isa::svm::{ControlArea, EventType, ExitCode, SaveArea, SvmFeatures};

/// What the checks compare a VMCB with: the processor's limits and the state of the host that executes VMRUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of a physical address, MAXPHYADDR.
    pub physical_bits: u32,
    /// Bits of a present page-directory-pointer entry that must be zero.
    pub pdpte_reserved: u64,
    /// Bits of CR4 that the processor lets software set.
    pub cr4: u64,
    /// Bits of EFER that the processor lets software set, LMA included.
    pub efer: u64,
    /// The processor has long mode.
    pub long_mode: bool,
    /// CR0.PG of the host.
    pub host_paging: bool,
    /// The SVM features that are offered.
    pub features: SvmFeatures,
}

/// All that a rule may look at.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The control area.
    pub control: &'a ControlArea,
    /// The state save area.
    pub save: &'a SaveArea,
    /// The page-directory-pointer entries in memory, in legacy PAE mode without nested paging.
    pub pdptes: Option<[u64; 4]>,
    /// The processor and the host.
    pub limits: &'a Limits,
}

impl Entry<'_> {
    const fn cr0(&self) -> Cr0 {
        Cr0::from_bits(self.save.cr0)
    }

    const fn cr4(&self) -> Cr4 {
        Cr4::from_bits(self.save.cr4)
    }

    const fn efer(&self) -> Efer {
        Efer::from_bits(self.save.efer)
    }

    /// Long mode will be active: LMA follows from LME and PG whatever the VMCB says of LMA.
    const fn long_mode_active(&self) -> bool {
        self.efer().lme() && self.cr0().pg()
    }

    const fn nested_paging(&self) -> bool {
        self.limits.features.nested_paging() && self.control.nested_control.np_enable()
    }

    /// A table of `size` bytes at a page-aligned address lies below the end of the physical address space. One that just reaches the end
    /// does not, as processors have it.
    const fn fits(&self, base: u64, size: u64) -> bool {
        match (base & !0xfff).checked_add(size) {
            Some(end) => end < 1 << self.limits.physical_bits,
            None => false,
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// A name, unique and stable.
    pub id: &'static str,
    /// Where the manual says it, APM volume 2: section and title.
    pub section: &'static str,
    /// The rule, as what must hold.
    pub rule: &'static str,
    /// The VMCB fields it reads, by the names of [`isa::svm::VmcbField`].
    pub reads: &'static [&'static str],
    /// Whether the rule concerns this entry.
    pub applies: fn(&Entry<'_>) -> bool,
    /// Whether it holds, where it applies.
    pub holds: fn(&Entry<'_>) -> bool,
    /// What to do about it, or which mistake it often is; empty where the rule says it all.
    pub hint: &'static str,
}

/// The table of checks: for each section of the manual its rules, and for each rule its id, its sentence, the fields it reads, when it
/// applies, what must hold, and what to do about it.
macro_rules! checks {
    ($($section:literal { $(
        $id:literal, $rule:literal, [$($field:literal)*] $(, if $applies:expr)? => $holds:expr $(, hint $hint:literal)?;
    )* })*) => {
        /// The rules, in the order in which [`first_failure`] looks.
        pub static CHECKS: &[Check] = &[$($(Check {
            id: $id,
            section: $section,
            rule: $rule,
            reads: &[$($field,)*],
            applies: optional!(|_| true $(, $applies)?),
            holds: $holds,
            hint: optional!("" $(, $hint)?),
        },)*)*];
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

checks! {
    "15.5.1 Canonicalization and Consistency Checks" {
        "efer-svme", "EFER.SVME is one", ["EFER"]
            => |e| e.efer().svme(),
            hint "The guest's EFER keeps SVME 1 in the VMCB; intercept EFER to hide it from the guest.";
        "efer-reserved", "No MBZ bit of EFER is set", ["EFER"]
            => |e| e.save.efer & !(e.limits.efer | LONG_MODE_BITS) == 0,
            hint "Build EFER from what the guest may set, not from a copy of another processor's.";
        "efer-long-mode-supported", "EFER.LMA and EFER.LME are zero on a processor without long mode",
            ["EFER"], if |e| !e.limits.long_mode
            => |e| e.save.efer & LONG_MODE_BITS == 0;
        "cr0-nw-without-cd", "CR0.NW is zero when CR0.CD is zero", ["CR0"], if |e| !e.cr0().cd()
            => |e| !e.cr0().nw(),
            hint "NW 1 with CD 0 is no cache mode.";
        "cr0-high", "CR0[63:32] are zero", ["CR0"]
            => |e| e.save.cr0 >> 32 == 0,
            hint "CR0 has 32 bits; a sign-extended 32-bit value has ones above them.";
        "cr3-reserved", "No MBZ bit of CR3 is set", ["CR3"]
            => |e| e.save.cr3 >> e.limits.physical_bits == 0;
        "pdpte-reserved", "No MBZ bit is set in a present page-directory-pointer entry that CR3 points to, in legacy PAE mode without nested paging",
            ["CR3" "CR0" "CR4" "EFER"], if |e| e.pdptes.is_some()
            => |e| e.pdptes.is_none_or(|entries| entries.iter().all(|entry| entry & 1 == 0 || entry & e.limits.pdpte_reserved == 0));
        "cr4-reserved", "No MBZ bit of CR4 is set", ["CR4"]
            => |e| e.save.cr4 & !e.limits.cr4 == 0,
            hint "Check the guest's write of CR4 against CPUID before it reaches the VMCB.";
        "cr4-cet-without-wp", "CR4.CET is zero when CR0.WP is zero", ["CR4" "CR0"], if |e| !e.cr0().wp()
            => |e| !e.cr4().cet();
        "s-cet-reserved", "No reserved bit of S_CET is set", ["S_CET"], if |e| Cr4::from_bits(e.limits.cr4).cet()
            => |e| e.save.s_cet & !S_CET_DEFINED == 0;
        "dr6-high", "DR6[63:32] are zero", ["DR6"]
            => |e| e.save.dr6 >> 32 == 0,
            hint "DR6 starts as 0xffff0ff0: a sign-extended copy has ones above bit 31.";
        "dr7-high", "DR7[63:32] are zero", ["DR7"]
            => |e| e.save.dr7 >> 32 == 0,
            hint "DR7 starts as 0x400.";
        "long-mode-needs-pae", "CR4.PAE is one when EFER.LME and CR0.PG are both one", ["EFER" "CR0" "CR4"], if |e| e.long_mode_active()
            => |e| e.cr4().pae(),
            hint "EFER.LME and CR0.PG make long mode; CR4.PAE comes first.";
        "long-mode-needs-protection", "CR0.PE is one when EFER.LME and CR0.PG are both one", ["EFER" "CR0"], if |e| e.long_mode_active()
            => |e| e.cr0().pe(),
            hint "Paging needs CR0.PE.";
        "cs-long-and-default", "EFER.LME, CR0.PG, CR4.PAE, CS.L and CS.D are not all one",
            ["EFER" "CR0" "CR4" "CS.ATTRIB"], if |e| e.long_mode_active() && e.cr4().pae()
            => |e| !(e.save.cs.attributes.long() && e.save.cs.attributes.default_big()),
            hint "64-bit code has L 1 and D 0: attributes 0xa9b.";
        "vmrun-intercept", "The VMRUN intercept is set", ["INTERCEPTS[4]"]
            => |e| e.control.intercepts.contains(ExitCode::VMRUN),
            hint "Set bit 0 of the intercept word at offset 010h, whatever the guest may do with SVM.";
        "iopm-address", "The I/O permission map, two pages and a byte, ends below the maximum physical address",
            ["IOPM_BASE_PA"]
            => |e| e.fits(e.control.iopm_base_pa, 0x2001),
            hint "Physical address of 12 KiB, below the end of physical memory.";
        "msrpm-address", "The MSR permission map ends below the maximum physical address",
            ["MSRPM_BASE_PA"]
            => |e| e.fits(e.control.msrpm_base_pa, isa::svm::permission_map::MSRPM_SIZE),
            hint "Physical address of 8 KiB, below the end of physical memory.";
        "asid-zero", "The guest's ASID is not zero", ["GUEST_ASID"]
            => |e| e.control.guest_asid != 0,
            hint "ASID 0 is the host's; guests have 1 to CPUID 8000_000A EBX less 1.";
    }
    "15.20 Event Injection" {
        "event-type", "TYPE in EVENTINJ is not a reserved value", ["EVENTINJ"], if |e| e.control.event_injection.valid()
            => |e| e.control.event_injection.event_type() != EventType::Reserved,
            hint "Types are 0 INTR, 2 NMI, 3 exception, 4 software interrupt.";
        "event-vector", "An exception in EVENTINJ has the vector of an exception: 31 or less, and not 2",
            ["EVENTINJ"], if |e| e.control.event_injection.valid() && e.control.event_injection.event_type() == EventType::Exception
            => |e| e.control.event_injection.vector() < 32 && e.control.event_injection.vector() != 2,
            hint "An NMI is injected as type 2, not as exception 2.";
        "event-mode", "An exception in EVENTINJ is one that the guest's mode has: no #OF or #BR in 64-bit mode",
            ["EVENTINJ" "EFER" "CR0" "CS.ATTRIB"],
            if |e| e.control.event_injection.valid()
                && e.control.event_injection.event_type() == EventType::Exception
                && e.long_mode_active()
                && e.save.cs.attributes.long()
            => |e| !matches!(e.control.event_injection.vector(), 4 | 5),
            hint "INTO and BOUND do not exist in 64-bit mode.";
    }
    "15.25.3 Enabling Nested Paging" {
        "nested-host-paging", "The host has paging enabled when NP_ENABLE is one", ["NP_CONTROL"], if |e| e.nested_paging()
            => |e| e.limits.host_paging,
            hint "Turn paging on in the host first.";
    }
    "15.25.4 Nested Paging and VMRUN/#VMEXIT" {
        "ncr3-reserved", "No MBZ bit of nCR3 is set", ["NP_CONTROL" "N_CR3"], if |e| e.nested_paging()
            => |e| e.control.n_cr3 >> e.limits.physical_bits == 0,
            hint "Physical address of the nested page table; bits beyond the processor's width are zero.";
        "g-pat", "Every field of G_PAT has a supported type and no reserved bit", ["NP_CONTROL" "G_PAT"], if |e| e.nested_paging()
            => |e| is_pat(e.save.g_pat),
            hint "At reset PAT is 0007040600070406h; a zeroed G_PAT makes all memory uncacheable.";
    }
    "15.21.10 NMI Virtualization" {
        "virtual-nmi-needs-intercept", "NMIs are intercepted when V_NMI_ENABLE is one",
            ["V_INTR" "INTERCEPTS[3]"], if |e| e.limits.features.virtual_nmi() && e.control.virtual_interrupt.v_nmi_enable()
            => |e| e.control.intercepts.contains(ExitCode::NMI);
    }
    "15.34.1 Determining Support for SEV" {
        "sev-not-offered", "Encryption is not asked of a processor that does not offer it", ["NP_CONTROL"]
            => |e| !e.control.nested_control.sev_enable() && !e.control.nested_control.sev_es_enable();
    }
    "15.29.3 Enabling AVIC" {
        "avic-not-offered", "AVIC is not asked of a processor that does not offer it", ["V_INTR"], if |e| !e.limits.features.avic()
            => |e| !e.control.virtual_interrupt.avic_enable() && !e.control.virtual_interrupt.x2avic_enable();
    }
}

/// Whether every byte is the type of a PAT field: 0, 1, or 4 to 7. All eight at once: nothing above bit 2, and bit 1 not without bit 2.
const fn is_pat(value: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    value & !(7 * ONES) == 0 && value >> 1 & !(value >> 2) & ONES == 0
}

/// Bits of S_CET that are not reserved: SH_STK_EN and WR_SHSTK_EN. APM vol 2, 18.13 "Shadow Stack MSRs".
const S_CET_DEFINED: u64 = 3;

/// EFER.LME and EFER.LMA, which have a rule of their own.
const LONG_MODE_BITS: u64 = Efer::new().with_lme(true).with_lma(true).into_bits();

/// The first rule that is broken: VMRUN exits with VMEXIT_INVALID.
#[must_use]
pub fn first_failure(entry: &Entry<'_>) -> Option<&'static Check> {
    CHECKS.iter().find(|check| (check.applies)(entry) && !(check.holds)(entry))
}

/// Every rule that is broken, in the order of the rows.
pub fn all_failures<'a>(entry: &'a Entry<'a>) -> impl Iterator<Item = &'static Check> + 'a {
    CHECKS.iter().filter(|check| (check.applies)(entry) && !(check.holds)(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isa::svm::{EventInformation, Intercepts, Vmcb, VmcbField};
    use zerocopy::IntoBytes as _;

    type Break = fn(&mut ControlArea, &mut SaveArea, &mut Limits, &mut Option<[u64; 4]>);

    /// A 64-bit guest with nested paging and everything intercepted that a rule looks at.
    fn valid() -> (ControlArea, SaveArea, Limits) {
        let limits = Limits {
            physical_bits: 48,
            pdpte_reserved: 0xfff0_0000_0000_01e6,
            cr4: 0x00f7_0fff,
            efer: 0xd01,
            long_mode: true,
            host_paging: true,
            features: SvmFeatures::new().with_nested_paging(true).with_virtual_nmi(true),
        };
        let mut control = ControlArea::zeroed();
        control.intercepts = Intercepts::default().with(ExitCode::VMRUN).with(ExitCode::IOIO).with(ExitCode::MSR).with(ExitCode::NMI);
        control.iopm_base_pa = 0xffff_ffff_d000;
        control.msrpm_base_pa = 0xffff_ffff_d000;
        control.guest_asid = 1;
        control.event_injection = EventInformation::exception(14, Some(0));
        control.nested_control = control.nested_control.with_np_enable(true);
        control.virtual_interrupt = control.virtual_interrupt.with_v_nmi_enable(true);
        let mut save = SaveArea::zeroed();
        save.efer = 0x1500;
        save.cr0 = 0x8000_0011;
        save.cr4 = 0x20;
        save.cr3 = 0xffff_ffff_f000;
        save.dr6 = 0xffff_0ff0;
        save.dr7 = 0x400;
        save.g_pat = 0x0007_0406_0007_0406;
        save.cs.attributes = save.cs.attributes.with_long(true);
        (control, save, Limits { efer: limits.efer | 0x1000, ..limits })
    }

    /// For every rule, the smallest change that breaks it.
    const BREAKS: &[(&str, Break)] = &[
        ("efer-svme", |_, s, _, _| s.efer &= !0x1000),
        ("efer-reserved", |_, s, _, _| s.efer |= 1 << 20),
        ("efer-long-mode-supported", |_, s, l, _| {
            l.long_mode = false;
            s.cr0 = 0x11;
        }),
        ("cr0-nw-without-cd", |_, s, _, _| s.cr0 |= 1 << 29),
        ("cr0-high", |_, s, _, _| s.cr0 |= 1 << 32),
        ("cr3-reserved", |_, s, _, _| s.cr3 |= 1 << 48),
        ("pdpte-reserved", |_, _, _, p| *p = Some([0x1e6, 1, 0x8000_0000_0000_0001, 0])),
        ("cr4-reserved", |_, s, _, _| s.cr4 |= 1 << 15),
        ("cr4-cet-without-wp", |_, s, l, _| {
            l.cr4 |= 1 << 23;
            s.cr4 |= 1 << 23;
        }),
        ("s-cet-reserved", |_, s, l, _| {
            l.cr4 |= 1 << 23;
            s.s_cet = 4;
        }),
        ("dr6-high", |_, s, _, _| s.dr6 |= 1 << 32),
        ("dr7-high", |_, s, _, _| s.dr7 |= 1 << 63),
        ("long-mode-needs-pae", |_, s, _, _| s.cr4 &= !0x20),
        ("long-mode-needs-protection", |_, s, _, _| s.cr0 &= !1),
        ("cs-long-and-default", |_, s, _, _| s.cs.attributes = s.cs.attributes.with_default_big(true)),
        ("vmrun-intercept", |c, _, _, _| c.intercepts.set(ExitCode::VMRUN, false)),
        ("iopm-address", |c, _, _, _| c.iopm_base_pa += 0x1000),
        ("msrpm-address", |c, _, _, _| c.msrpm_base_pa = u64::MAX),
        ("asid-zero", |c, _, _, _| c.guest_asid = 0),
        ("event-type", |c, _, _, _| c.event_injection = EventInformation::from_bits(0x8000_0530)),
        ("event-vector", |c, _, _, _| c.event_injection = EventInformation::exception(2, None)),
        ("event-mode", |c, _, _, _| c.event_injection = EventInformation::exception(5, None)),
        ("nested-host-paging", |_, _, l, _| l.host_paging = false),
        ("ncr3-reserved", |c, _, _, _| c.n_cr3 = 1 << 48),
        ("g-pat", |_, s, _, _| s.g_pat = 0x0007_0406_0207_0406),
        ("virtual-nmi-needs-intercept", |c, _, _, _| c.intercepts.set(ExitCode::NMI, false)),
        ("sev-not-offered", |c, _, _, _| c.nested_control = c.nested_control.with_sev_enable(true)),
        ("avic-not-offered", |c, _, _, _| c.virtual_interrupt = c.virtual_interrupt.with_avic_enable(true)),
    ];

    #[test]
    fn a_valid_vmcb_passes() {
        let (control, save, limits) = valid();
        let entry = Entry { control: &control, save: &save, pdptes: None, limits: &limits };
        assert_eq!(first_failure(&entry).map(|check| check.id), None);
    }

    #[test]
    fn each_rule_can_be_broken_alone() {
        let ids: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
        let broken: Vec<_> = BREAKS.iter().map(|(id, _)| *id).collect();
        assert_eq!(broken, ids, "one break a rule, in the order of the rules");
        for (id, change) in BREAKS {
            let (mut control, mut save, mut limits) = valid();
            let mut pdptes = None;
            change(&mut control, &mut save, &mut limits, &mut pdptes);
            let entry = Entry { control: &control, save: &save, pdptes, limits: &limits };
            assert_eq!(all_failures(&entry).map(|check| check.id).collect::<Vec<_>>(), [*id]);
            assert_eq!(first_failure(&entry).map(|check| check.id), Some(*id));
        }
    }

    #[test]
    fn a_byte_of_the_pat_is_a_type() {
        for place in 0..8 {
            for byte in 0..=255_u64 {
                assert_eq!(is_pat(0x0007_0406_0007_0406 & !(0xff << (8 * place)) | byte << (8 * place)), matches!(byte, 0 | 1 | 4..=7));
            }
        }
    }

    #[test]
    fn rules_read_fields_that_exist() {
        for check in CHECKS {
            for name in check.reads {
                assert!(VmcbField::find(name).is_some(), "{} reads {name}", check.id);
            }
        }
    }

    /// What a person is told of a rule rests on `reads`: a field that a row does not list must not change what it says.
    #[test]
    fn a_check_looks_at_no_field_that_it_does_not_list() {
        let (control, save, limits) = valid();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..60 {
            let mut vmcb = Vmcb { control, save };
            for field in VmcbField::all() {
                match random() % 3 {
                    0 => field.set(vmcb.as_mut_bytes(), random()),
                    1 => {
                        let flipped = field.get(vmcb.as_bytes()) ^ 1 << (random() % 64);
                        field.set(vmcb.as_mut_bytes(), flipped);
                    }
                    _ => {}
                }
            }
            for check in CHECKS {
                let say = |vmcb: &Vmcb| {
                    let entry = Entry { control: &vmcb.control, save: &vmcb.save, pdptes: None, limits: &limits };
                    ((check.applies)(&entry), (check.applies)(&entry) && !(check.holds)(&entry))
                };
                let said = say(&vmcb);
                for field in VmcbField::all().iter().filter(|field| !check.reads.contains(&field.name.as_str())) {
                    let mut changed = vmcb;
                    field.set(changed.as_mut_bytes(), random());
                    assert_eq!(say(&changed), said, "{} looks at {}", check.id, field.name);
                }
            }
        }
    }

    #[test]
    fn reserved_event_types_and_vectors_are_refused() {
        let (mut control, save, limits) = valid();
        for kind in 0..8_u64 {
            for vector in 0..=255_u64 {
                control.event_injection = EventInformation::from_bits(1 << 31 | kind << 8 | vector);
                // The guest is one of 64 bits.
                let legal = match kind {
                    0 | 2 | 4 => true,
                    3 => vector < 32 && !matches!(vector, 2 | 4 | 5),
                    _ => false,
                };
                let entry = Entry { control: &control, save: &save, pdptes: None, limits: &limits };
                assert_eq!(first_failure(&entry).is_none(), legal, "type {kind} vector {vector}");
            }
        }
    }
}
