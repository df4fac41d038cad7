//! The names of the bits of a word, as the formats of the crate `isa` have them.
//!
//! Modelled: the names are those of the formats' own members, read from what they print of themselves, so that there is no second list; the
//! control words of VMX bring their table. Not modelled: words without a format have no names.

use isa::control::{Cr0, Cr4, Efer};
use isa::debug::{Dr6, Dr7};
use isa::rflags::Rflags;
use isa::segment::{Attributes, Selector};
use isa::svm::{EventInformation, ExitCode, NestedControl, SegmentAttributes, VirtualExtensions, VirtualInterrupt};
use isa::vmx::{ControlBit, ControlWord, EptPointer, Interruptibility, InterruptionInformation, PendingDebugExceptions, VmcsField};
use std::fmt::Debug;

/// One named run of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitName {
    /// The lowest bit.
    pub low: u32,
    /// How many bits.
    pub width: u32,
    /// The name.
    pub name: String,
}

/// The named bits of a word, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitNames(pub Vec<BitName>);

impl BitNames {
    /// The run that holds a bit.
    pub fn of(&self, bit: u32) -> Option<&BitName> {
        self.0.iter().find(|name| (name.low..name.low + name.width).contains(&bit))
    }

    /// A format's own names: what it prints of each single bit differs from what it prints of none in one member.
    pub(crate) fn probe<T: Debug>(bits: u32, format: impl Fn(u64) -> T) -> BitNames {
        Self::named(bits, format, false)
    }

    /// The same for a register, whose flags have short names.
    fn register<T: Debug>(bits: u32, format: impl Fn(u64) -> T) -> BitNames {
        Self::named(bits, format, true)
    }

    fn named<T: Debug>(bits: u32, format: impl Fn(u64) -> T, register: bool) -> BitNames {
        let members = |value: u64| -> Vec<String> {
            let text = format!("{:?}", format(value));
            let inside = text.split_once('{').map_or("", |(_, rest)| rest).trim_end_matches('}');
            inside.split(", ").map(|member| member.trim().to_owned()).collect()
        };
        let none = members(0);
        let mut names: Vec<BitName> = Vec::new();
        for bit in 0..bits {
            let some = members(1 << bit);
            let changed = none.iter().zip(&some).find(|(before, after)| before != after);
            let Some((member, _)) = changed.map(|(_, after)| after.split_once(':').unwrap_or((after, ""))) else { continue };
            let name = spoken(member, register);
            match names.last_mut() {
                Some(last) if last.name == name && last.low + last.width == bit => last.width += 1,
                _ => names.push(BitName { low: bit, width: 1, name }),
            }
        }
        BitNames(names)
    }

    fn control_word(word: ControlWord) -> BitNames {
        let name = |bit: u8| ControlBit { word, bit }.name().map(|name| BitName { low: bit.into(), width: 1, name: format!("\"{name}\"") });
        BitNames((0..64).filter_map(name).collect())
    }

    /// The intercepts of one of the six words: each is an exit code.
    pub(crate) fn intercepts(word: u32) -> BitNames {
        let name = |bit| ExitCode(u64::from(word * 32 + bit)).row().map(|row| BitName { low: bit, width: 1, name: row.name.to_owned() });
        BitNames((0..32).filter_map(name).collect())
    }

    /// The names of the bits of a VMCS field.
    pub fn vmcs(field: VmcsField) -> BitNames {
        use VmcsField as F;
        match field {
            F::PinBasedControls => Self::control_word(ControlWord::PinBased),
            F::PrimaryProcessorBasedControls => Self::control_word(ControlWord::Primary),
            F::SecondaryProcessorBasedControls => Self::control_word(ControlWord::Secondary),
            F::TertiaryProcessorBasedControls => Self::control_word(ControlWord::Tertiary),
            F::PrimaryExitControls => Self::control_word(ControlWord::Exit),
            F::SecondaryExitControls => Self::control_word(ControlWord::SecondaryExit),
            F::EntryControls => Self::control_word(ControlWord::Entry),
            F::VmFunctionControls => Self::control_word(ControlWord::VmFunction),
            F::GuestCr0 | F::HostCr0 | F::Cr0GuestHostMask | F::Cr0ReadShadow => Self::register(64, Cr0::from_bits),
            F::GuestCr4 | F::HostCr4 | F::Cr4GuestHostMask | F::Cr4ReadShadow => Self::register(64, Cr4::from_bits),
            F::GuestEfer | F::HostEfer => Self::register(64, Efer::from_bits),
            F::GuestRflags => Self::register(64, Rflags::from_bits),
            F::GuestDr7 => Self::register(64, Dr7::from_bits),
            F::EptPointer => Self::probe(64, EptPointer::from_bits),
            F::GuestInterruptibilityState => Self::probe(32, |bits| Interruptibility::from_bits(bits as u32)),
            F::GuestPendingDebugExceptions => Self::probe(64, PendingDebugExceptions::from_bits),
            F::EntryInterruptionInformation | F::ExitInterruptionInformation | F::IdtVectoringInformation => {
                Self::probe(32, |bits| InterruptionInformation::from_bits(bits as u32))
            }
            _ if field.name().ends_with("access rights") => Self::register(32, |bits| Attributes::from_bits(bits as u32)),
            _ if field.name().ends_with("selector") => Self::register(16, |bits| Selector::from_bits(bits as u16)),
            _ => BitNames::default(),
        }
    }

    /// The names of the bits of a word of a VMCB.
    pub fn vmcb(name: &str) -> BitNames {
        match name {
            "CR0" => Self::register(64, Cr0::from_bits),
            "CR4" => Self::register(64, Cr4::from_bits),
            "EFER" => Self::register(64, Efer::from_bits),
            "RFLAGS" => Self::register(64, Rflags::from_bits),
            "DR6" => Self::register(64, Dr6::from_bits),
            "DR7" => Self::register(64, Dr7::from_bits),
            "V_INTR" => Self::probe(64, VirtualInterrupt::from_bits),
            "NP_CONTROL" => Self::probe(64, NestedControl::from_bits),
            "VIRT_EXT" => Self::probe(64, VirtualExtensions::from_bits),
            "EVENTINJ" | "EXITINTINFO" => Self::probe(64, EventInformation::from_bits),
            _ => match (name.strip_prefix("INTERCEPTS["), name.rsplit_once('.')) {
                (Some(rest), _) => rest.trim_end_matches(']').parse().map(Self::intercepts).unwrap_or_default(),
                (_, Some((_, "ATTRIB"))) => Self::probe(16, |bits| SegmentAttributes::from_bits(bits as u16)),
                (_, Some((_, "SELECTOR"))) => Self::register(16, |bits| Selector::from_bits(bits as u16)),
                _ => BitNames::default(),
            },
        }
    }
}

/// Words that a person writes in capitals.
const CAPITALS: [&str; 21] = [
    "nmi", "sti", "mov", "ss", "smi", "np", "sev", "es", "iret", "v", "avic", "x2avic", "lbr", "vmload", "vmsave", "tpr", "gif", "irq",
    "cr8", "pmc", "dpl",
];

/// A member's name as a person says it: a flag of a register in capitals, `segment_type` as "segment type".
fn spoken(member: &str, register: bool) -> String {
    let member = member.trim_start_matches("r#");
    match member {
        "kind" => "type".to_owned(),
        "fixed" => "always 1".to_owned(),
        "unusable" => member.to_owned(),
        _ if register && !member.contains('_') => member.to_uppercase(),
        _ => {
            let word = |word: &str| if CAPITALS.contains(&word) { word.to_uppercase() } else { word.to_owned() };
            member.split('_').map(word).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_formats() {
        let name = |names: &BitNames, bit| names.of(bit).map(|name| name.name.clone()).unwrap_or_default();
        for (field, bit, expected) in [
            (VmcsField::GuestCr4, 13, "VMXE"),
            (VmcsField::GuestCr0, 31, "PG"),
            (VmcsField::GuestRflags, 9, "IF"),
            (VmcsField::GuestEfer, 10, "LMA"),
            (VmcsField::PinBasedControls, 5, "\"virtual NMIs\""),
            (VmcsField::GuestTrAccessRights, 1, "type"),
            (VmcsField::GuestTrAccessRights, 16, "unusable"),
            (VmcsField::GuestCsSelector, 0, "RPL"),
            (VmcsField::GuestSsAccessRights, 5, "DPL"),
            (VmcsField::GuestInterruptibilityState, 0, "blocking by STI"),
        ] {
            assert_eq!(name(&BitNames::vmcs(field), bit), expected, "{field}");
        }
        for (word, bit, expected) in
            [("EFER", 12, "SVME"), ("INTERCEPTS[4]", 0, "VMEXIT_VMRUN"), ("CS.ATTRIB", 9, "long"), ("NP_CONTROL", 0, "NP enable")]
        {
            assert_eq!(name(&BitNames::vmcb(word), bit), expected, "{word}");
        }
    }
}
