//! The tables as a manual at hand: exits, fields, checks and MSRs, both vendors' words together where both have one.
//!
//! Modelled: every row of the tables of `isa`, `vmx` and `svm`, found by name or number however it is spelled; [`crate::reference`]
//! has the pages for the book. Not modelled: what the silicon does beyond what the tables say.

use crate::bits::BitNames;
use crate::rule::Rule;
use crate::spelling::{did_you_mean, plain};
use crate::text::{listed, outcome, wrapped};
use crate::twins::{SAME_EXIT, twin};
use crate::{svm_rules, vmx_rules};
use isa::svm::{ExitCode, VmcbField};
use isa::vmx::{
    ApicAccessQualification, CapabilityMsr, ControlBit, ControlRegisterQualification, ControlWord, DebugQualification,
    EptViolationQualification, ExitReason, FieldArea, FieldWidth, IoQualification, MovDrQualification, TaskSwitchQualification, VmcsField,
};
use std::fmt::Write as _;

/// Nothing has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

impl Unknown {
    /// Says what is near it, or else where all are listed. `kind` is the word behind `trapline explain`.
    fn new<'a>(kind: &str, query: &str, names: impl Iterator<Item = &'a str>) -> Self {
        let near = match did_you_mean(query, names) {
            near if near.is_empty() => format!(" `trapline explain {kind}` lists all there are."),
            near => near,
        };
        let what = if kind == "msr" { "MSR" } else { kind };
        Self(format!("there is no {what} `{}`.{near}", crate::state::cut(query)))
    }
}

/// Columns of a paragraph.
const WIDTH: usize = 104;

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_suffix(['h', 'H']).filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit())) {
        return u64::from_str_radix(digits, 16).ok();
    }
    text.parse().ok()
}

fn exit_code_names(row: &isa::svm::exit_code::ExitCodeRow) -> [&'static str; 3] {
    [row.name, row.name.trim_start_matches("VMEXIT_"), row.trace_name.unwrap_or(row.name)]
}

/// What an exit is: by its number or name of either vendor, or the name that Linux prints; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn exit(query: Option<&str>) -> Result<String, Unknown> {
    let Some(query) = query else { return Ok(exits_listed()) };
    let wanted = plain(query);
    let by_number = number(query);
    // The exit-reason field carries flags above bit 15.
    let reasons: Vec<ExitReason> = ExitReason::ALL
        .iter()
        .copied()
        .filter(|&reason| match by_number {
            Some(number) => number & !(1 << 31) == reason as u64,
            None => {
                plain(reason.name()) == wanted
                    || reason.kvm_name().is_some_and(|name| plain(name) == wanted)
                    || plain(&format!("{reason:?}")) == wanted
            }
        })
        .collect();
    let codes: Vec<ExitCode> = ExitCode::ALL
        .iter()
        .filter(|(code, row)| match by_number {
            // Linux printed 32 bits of it once.
            Some(number) => code.0 == number || number == 0xffff_ffff && *code == ExitCode::INVALID,
            None => exit_code_names(row).iter().any(|name| plain(name) == wanted),
        })
        .map(|(code, _)| *code)
        .collect();
    if reasons.is_empty() && codes.is_empty() {
        let names = ExitReason::ALL.iter().flat_map(|reason| [Some(reason.name()), reason.kvm_name()]).flatten();
        let names = names.chain(ExitCode::ALL.iter().flat_map(|(_, row)| exit_code_names(row)));
        return Err(Unknown::new("exit", query, names));
    }
    let mut out = String::new();
    for &reason in &reasons {
        describe_reason(reason, &mut out);
        let same: Vec<ExitCode> = SAME_EXIT.iter().filter(|(row, _)| *row == reason).flat_map(|(_, codes)| *codes).copied().collect();
        if by_number.is_none() {
            for code in same.iter().filter(|code| !codes.contains(code)) {
                describe_code(*code, &mut out);
            }
        } else if !same.is_empty() {
            let names: Vec<String> = same.iter().filter_map(|code| code.name()).map(str::to_owned).collect();
            let _ = writeln!(out, "     on SVM: {}", names.join(", "));
        }
    }
    for &code in &codes {
        describe_code(code, &mut out);
        for (reason, _) in SAME_EXIT.iter().filter(|(reason, same)| same.contains(&code) && !reasons.contains(reason)) {
            if by_number.is_none() {
                describe_reason(*reason, &mut out);
            } else {
                let _ = writeln!(out, "     on VMX: exit reason {}, {}", *reason as u16, reason.name());
            }
        }
    }
    Ok(out)
}

fn exits_listed() -> String {
    let mut out = String::from("VMX exit reasons\n");
    for reason in ExitReason::ALL {
        let _ = writeln!(out, "  {:>3}  {:<46} {}", *reason as u16, reason.name(), reason.kvm_name().unwrap_or_default());
    }
    out += "SVM exit codes\n";
    for (code, row) in ExitCode::ALL {
        let _ = writeln!(out, "  {}  {:<32} {:<26} {}", code_number(*code), row.name, row.trace_name.unwrap_or_default(), row.meaning);
    }
    out
}

pub(crate) fn code_number(code: ExitCode) -> String {
    // The highest codes are small negative numbers.
    if code.0 > u64::MAX - 16 { format!("{:>5}", code.0 as i64) } else { format!("{:>4X}h", code.0) }
}

fn describe_reason(reason: ExitReason, out: &mut String) {
    let _ = writeln!(out, "VMX  exit reason {} ({:#x}): {}", reason as u16, reason as u16, reason.name());
    if let Some(name) = reason.kvm_name() {
        let _ = writeln!(out, "     Linux prints {name}");
    }
    match reason {
        ExitReason::EntryFailureInvalidGuestState => {
            let _ = writeln!(out, "     reported as 0x80000021; `trapline explain` of the VMCS says which rule of SDM 27.3.1 is broken");
        }
        ExitReason::EntryFailureMsrLoading => {
            let _ = writeln!(out, "     reported as 0x80000022; the exit qualification is the number of the MSR in the list, from 1");
        }
        _ => {}
    }
    let names = match reason {
        ExitReason::ExceptionOrNmi => Some(("for #DB", BitNames::probe(64, DebugQualification::from_bits))),
        ExitReason::TaskSwitch => Some(("", BitNames::probe(64, TaskSwitchQualification::from_bits))),
        ExitReason::ControlRegisterAccess => Some(("", BitNames::probe(64, ControlRegisterQualification::from_bits))),
        ExitReason::MovDr => Some(("", BitNames::probe(64, MovDrQualification::from_bits))),
        ExitReason::IoInstruction => Some(("", BitNames::probe(64, IoQualification::from_bits))),
        ExitReason::ApicAccess => Some(("", BitNames::probe(64, ApicAccessQualification::from_bits))),
        ExitReason::EptViolation => Some(("", BitNames::probe(64, EptViolationQualification::from_bits))),
        _ => None,
    };
    if let Some((when, names)) = names {
        bits_line(&format!("exit qualification{}{when}", if when.is_empty() { "" } else { " " }), &names, out);
    }
}

fn describe_code(code: ExitCode, out: &mut String) {
    let Some(row) = code.row() else { return };
    let _ = writeln!(out, "SVM  exit code {} {}: {}", code_number(code).trim(), row.name, row.meaning);
    if let Some(name) = row.trace_name {
        let _ = writeln!(out, "     Linux prints {name}");
    }
    if let Some(bit) = code.intercept_bit() {
        let _ = writeln!(out, "     asked for by bit {} of INTERCEPTS[{}], VMCB offset {:03X}h", bit % 32, bit / 32, bit / 32 * 4);
    }
    let names = match code {
        ExitCode::IOIO => Some(("EXITINFO1", BitNames::probe(64, isa::svm::IoInfo::from_bits))),
        ExitCode::NPF => Some(("EXITINFO1", BitNames::probe(64, isa::svm::NestedPageFaultInfo::from_bits))),
        ExitCode::TASK_SWITCH => Some(("EXITINFO2", BitNames::probe(64, isa::svm::TaskSwitchInfo::from_bits))),
        ExitCode::CR0_WRITE | ExitCode::CR3_WRITE | ExitCode::CR4_WRITE | ExitCode::CR0_READ | ExitCode::CR3_READ => {
            Some(("EXITINFO1, with decode assists", BitNames::probe(64, isa::svm::CrInfo::from_bits)))
        }
        _ => None,
    };
    if let Some((word, names)) = names {
        bits_line(word, &names, out);
    }
}

fn bits_line(what: &str, names: &BitNames, out: &mut String) {
    let item = |name: &crate::bits::BitName| match name.width {
        1 => format!("{} {}", name.low, name.name),
        _ => format!("{}:{} {}", name.low + name.width - 1, name.low, name.name),
    };
    let items: Vec<String> = names.0.iter().map(item).collect();
    if items.is_empty() {
        return;
    }
    let _ = writeln!(out, "     {what}:");
    for line in listed(&items, WIDTH - 7) {
        let _ = writeln!(out, "       {line}");
    }
}

/// What a field of the VMCS or a word of the VMCB is: by its name, title, encoding or offset; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn field(query: Option<&str>) -> Result<String, Unknown> {
    let Some(query) = query else { return Ok(fields_listed()) };
    let wanted = plain(query);
    let by_number = number(query);
    let fields: Vec<VmcsField> = VmcsField::ALL
        .iter()
        .copied()
        .filter(|field| match by_number {
            Some(number) => number & !1 == u64::from(field.encoding()),
            None => {
                [field.identifier(), field.name()].iter().any(|name| plain(name) == wanted)
                    || crate::linux::vmcs_field(query) == Some(*field)
            }
        })
        .collect();
    let mut words: Vec<&VmcbField> = VmcbField::all()
        .iter()
        .filter(|word| match by_number {
            Some(number) => number == word.offset as u64,
            None => plain(&word.name) == wanted || plain(&word.name) == plain(&crate::linux::vmcb_word(query)),
        })
        .collect();
    // A part of a name such as CS or CR4 stands for every field that has it, if nothing is called so.
    if fields.is_empty() && words.is_empty() {
        words =
            VmcbField::all().iter().filter(|word| word.name.split(['.', '[']).next().is_some_and(|name| plain(name) == wanted)).collect();
    }
    if fields.is_empty() && words.is_empty() {
        let names = VmcsField::ALL.iter().map(|field| field.identifier()).chain(VmcbField::all().iter().map(|word| word.name.as_str()));
        return Err(Unknown::new("field", query, names));
    }
    let mut out = String::new();
    for &field in &fields {
        describe_field(field, &mut out);
        if by_number.is_none()
            && let Some(twin) = twin(field)
            && !words.contains(&twin)
        {
            describe_word(twin, &mut out);
        }
    }
    for word in &words {
        describe_word(word, &mut out);
        if by_number.is_none() && words.len() == 1 {
            for &field in VmcsField::ALL.iter().filter(|&&field| twin(field) == Some(*word) && !fields.contains(&field)) {
                describe_field(field, &mut out);
            }
        }
    }
    Ok(out)
}

pub(crate) const fn width_words(width: FieldWidth) -> &'static str {
    match width {
        FieldWidth::Word => "16 bits",
        FieldWidth::Doubleword => "32 bits",
        FieldWidth::Quadword => "64 bits",
        FieldWidth::Natural => "natural width",
    }
}

const fn area_words(area: FieldArea) -> &'static str {
    match area {
        FieldArea::Control => "control field",
        FieldArea::ExitInformation => "VM-exit information",
        FieldArea::Guest => "guest state",
        FieldArea::Host => "host state",
    }
}

pub(crate) fn requirement(field: VmcsField) -> String {
    let names: Vec<String> = field.requires_one_of().iter().filter_map(|bit| bit.name()).map(|name| format!("\"{name}\"")).collect();
    names.join(" or ")
}

fn describe_field(field: VmcsField, out: &mut String) {
    let _ = writeln!(
        out,
        "VMX  {} ({}), encoding {:#06x}, {}, {}",
        field.identifier(),
        field.name(),
        field.encoding(),
        width_words(field.width()),
        area_words(field.area())
    );
    if !field.requires_one_of().is_empty() {
        let _ = writeln!(out, "     exists where the processor allows {}", requirement(field));
    }
    bits_line("bits", &BitNames::vmcs(field), out);
    readers(vmx_rules::rules(), field.index(), out);
}

fn describe_word(word: &VmcbField, out: &mut String) {
    let bits = 8 * word.bytes;
    let _ = writeln!(out, "SVM  {}, VMCB offset {:03X}h, {bits} bits", word.name, word.offset);
    bits_line("bits", &BitNames::vmcb(&word.name), out);
    if let Some(number) = VmcbField::all().iter().position(|other| other == word) {
        readers(svm_rules::rules(), number, out);
    }
}

fn readers(rules: &[Rule], word: usize, out: &mut String) {
    let ids: Vec<String> = rules.iter().filter(|rule| rule.reads.contains(&word)).map(|rule| rule.id.to_owned()).collect();
    if ids.is_empty() {
        return;
    }
    let _ = writeln!(out, "     read by the checks:");
    for line in listed(&ids, WIDTH - 7) {
        let _ = writeln!(out, "       {line}");
    }
}

fn fields_listed() -> String {
    let mut out = String::from("VMCS\n");
    for field in VmcsField::ALL {
        let _ = writeln!(out, "  {:#06x}  {:<42} {}", field.encoding(), field.identifier(), field.name());
    }
    out += "VMCB\n";
    for word in VmcbField::all() {
        let _ = writeln!(out, "  {:03X}h  {:<28} {} bits", word.offset, word.name, 8 * word.bytes);
    }
    out
}

/// What a rule of entry says: by its id; all of them without one.
///
/// # Errors
/// There is none of that name.
pub fn check(query: Option<&str>) -> Result<String, Unknown> {
    let both = || [vmx_rules::rules(), svm_rules::rules()].into_iter().flatten();
    let Some(query) = query else {
        let mut out = String::new();
        let mut section = "";
        for rule in both() {
            if rule.section != section {
                section = rule.section;
                let _ = writeln!(out, "{}, {section}", rule.manual);
            }
            let _ = writeln!(out, "  {:<44} {}", rule.id, rule.rule);
        }
        return Ok(out);
    };
    let mut out = String::new();
    for rule in both().filter(|rule| plain(rule.id) == plain(query)) {
        describe_rule(rule, &mut out);
    }
    if out.is_empty() {
        return Err(Unknown::new("check", query, both().map(|rule| rule.id)));
    }
    Ok(out)
}

pub(crate) fn word_names(rule: &Rule) -> Vec<String> {
    let vmx = rule.manual.starts_with("SDM");
    let name = |&word: &usize| match vmx {
        true => VmcsField::ALL.get(word).map_or_else(|| vmx_rules::extra_name(word), |field| field.identifier().to_owned()),
        false => VmcbField::all().get(word).map_or_else(String::new, |field| field.name.clone()),
    };
    rule.reads.iter().map(name).collect()
}

fn describe_rule(rule: &Rule, out: &mut String) {
    let _ = writeln!(out, "{}   {}, {}", rule.id, rule.manual, rule.section);
    for line in wrapped(&format!("{}.", rule.rule), WIDTH) {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "  broken: {}", outcome(rule.outcome));
    for (index, line) in listed(&word_names(rule), WIDTH - 9).into_iter().enumerate() {
        let _ = writeln!(out, "  {}{line}", if index == 0 { "reads: " } else { "       " });
    }
    if !rule.hint.is_empty() {
        for (index, line) in wrapped(rule.hint, WIDTH - 8).into_iter().enumerate() {
            let _ = writeln!(out, "  {}{line}", if index == 0 { "hint: " } else { "      " });
        }
    }
}

/// What a model-specific register is, and what each CPU model has in it at power-up: by its name or number; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn msr(query: Option<&str>) -> Result<String, Unknown> {
    let Some(query) = query else {
        let mut out = String::new();
        for ((number, name), (_, description)) in isa::msr::ALL.iter().zip(isa::msr::DESCRIPTIONS) {
            let _ = writeln!(out, "{number:#10x}  {name:<30} {description}");
        }
        return Ok(out);
    };
    let wanted = plain(query);
    let by_number = number(query);
    let without_prefix = |name: &str| plain(name).trim_start_matches("ia32").to_owned();
    let found: Vec<usize> = (0..isa::msr::ALL.len())
        .filter(|&index| {
            let (number, name) = isa::msr::ALL[index];
            match by_number {
                Some(wanted) => wanted == u64::from(number),
                None => plain(name) == wanted || without_prefix(name) == wanted.trim_start_matches("msr").trim_start_matches("ia32"),
            }
        })
        .collect();
    if found.is_empty() {
        return Err(Unknown::new("msr", query, isa::msr::ALL.iter().map(|(_, name)| *name)));
    }
    let mut out = String::new();
    for index in found {
        let ((number, name), (_, description)) = (isa::msr::ALL[index], isa::msr::DESCRIPTIONS[index]);
        let _ = writeln!(out, "{name} ({number:#x}): {description}");
        for cpu in models::MODELS {
            if let Some(value) = cpu.msr(number) {
                let _ = writeln!(out, "  {:<16} {value:#018x}", cpu.name);
                controls_of(number, value, &mut out);
            }
        }
    }
    Ok(out)
}

/// The controls that a capability MSR allows, by name.
fn controls_of(number: u32, value: u64, out: &mut String) {
    let Some(capability) = CapabilityMsr::from_number(number) else { return };
    let word = match capability {
        CapabilityMsr::PinBased | CapabilityMsr::TruePinBased => ControlWord::PinBased,
        CapabilityMsr::Primary | CapabilityMsr::TruePrimary => ControlWord::Primary,
        CapabilityMsr::Secondary => ControlWord::Secondary,
        CapabilityMsr::Exit | CapabilityMsr::TrueExit => ControlWord::Exit,
        CapabilityMsr::Entry | CapabilityMsr::TrueEntry => ControlWord::Entry,
        _ => return,
    };
    let (must, may) = (value as u32, (value >> 32) as u32);
    let named = |mask: u32| -> Vec<String> {
        let bits = (0..32u8).filter(|bit| mask >> bit & 1 != 0);
        bits.filter_map(|bit| ControlBit { word, bit }.name().map(|name| format!("{bit} {name}"))).collect()
    };
    for (what, mask) in [("must be 1", must), ("may be 0 or 1", may & !must)] {
        let items = named(mask);
        if !items.is_empty() {
            let _ = writeln!(out, "    {what}:");
            for line in listed(&items, WIDTH - 6) {
                let _ = writeln!(out, "      {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_found_by_any_of_their_names() {
        for query in ["48", "0x30", "EPT violation", "ept_violation", "EPT_VIOLATION"] {
            assert!(exit(Some(query)).unwrap().contains("EPT violation"), "{query}");
        }
        for query in ["npf", "VMEXIT_NPF", "0x400", "400h"] {
            let text = exit(Some(query)).unwrap();
            assert!(text.contains("VMEXIT_NPF") && text.contains("EPT violation"), "{query}: {text}");
        }
        assert!(exit(Some("0x80000021")).unwrap().contains("invalid guest state"));
        assert!(exit(Some("-1")).is_err());
        assert!(exit(Some("0xffffffff")).unwrap().contains("VMEXIT_INVALID"));
        assert!(exit(Some("ept violatoin")).unwrap_err().to_string().contains("Did you mean"));
    }

    #[test]
    fn fields_of_both_vendors_stand_together() {
        let text = field(Some("guest_cr4")).unwrap();
        assert!(text.contains("0x6804") && text.contains("VMCB offset 548h") && text.contains("guest-cr4-fixed"), "{text}");
        for query in ["0x6804", "CR4", "Guest CR4"] {
            assert!(field(Some(query)).unwrap().contains("Guest CR4"), "{query}");
        }
        assert!(field(Some("GuestCr5")).unwrap_err().to_string().contains("`GuestCr4`"));
    }

    #[test]
    fn msrs_and_checks_are_found() {
        for query in ["IA32_VMX_PROCBASED_CTLS2", "vmx_procbased_ctls2", "0x48b", "MSR_IA32_VMX_PROCBASED_CTLS2"] {
            assert!(msr(Some(query)).unwrap().contains("enable EPT"), "{query}");
        }
        assert!(check(Some("asid_zero")).unwrap().contains("VMEXIT_INVALID"));
        assert_eq!(msr(Some("zzz")).unwrap_err().to_string(), "there is no MSR `zzz`. `trapline explain msr` lists all there are.");
        assert!(check(Some("asid-zer")).unwrap_err().to_string().contains("`asid-zero`"));
        for all in [exit(None), field(None), check(None), msr(None)] {
            assert!(all.unwrap().lines().count() > 60);
        }
    }
}
