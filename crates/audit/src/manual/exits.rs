//! Exits: of VMX by reason, of SVM by code.

use super::{Answer, Unknown, bits, bits_line, hexadecimal, number};
use crate::bits::BitNames;
use crate::spelling::plain;
use crate::twins::SAME_EXIT;
use isa::svm::ExitCode;
use isa::vmx::{
    ApicAccessQualification, ControlRegisterQualification, DebugQualification, EptViolationQualification, ExitReason, IoQualification,
    MovDrQualification, TaskSwitchQualification,
};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One exit as the tables have it.
enum Row {
    Reason(ExitReason),
    Code(ExitCode, &'static isa::svm::exit_code::ExitCodeRow),
}

impl Row {
    fn code(code: ExitCode) -> Option<Self> {
        code.row().map(|row| Self::Code(code, row))
    }

    fn number(&self) -> u64 {
        match *self {
            Self::Reason(reason) => reason as u64,
            Self::Code(code, _) => code.0,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Reason(reason) => format!("{reason:?}"),
            Self::Code(_, row) => row.name.to_owned(),
        }
    }

    const fn title(&self) -> &'static str {
        match self {
            Self::Reason(reason) => reason.name(),
            Self::Code(_, row) => row.meaning,
        }
    }

    const fn linux(&self) -> Option<&'static str> {
        match self {
            Self::Reason(reason) => reason.kvm_name(),
            Self::Code(_, row) => row.trace_name,
        }
    }

    /// The exits of the other vendor that tell of the same event.
    fn counterparts(&self) -> Vec<Self> {
        match self {
            Self::Reason(reason) => SAME_EXIT
                .iter()
                .filter(|(row, _)| row == reason)
                .flat_map(|(_, codes)| *codes)
                .filter_map(|&code| Self::code(code))
                .collect(),
            Self::Code(code, _) => {
                SAME_EXIT.iter().filter(|(_, same)| same.contains(code)).map(|&(reason, _)| Self::Reason(reason)).collect()
            }
        }
    }

    /// The bit of the VMCB's INTERCEPTS that asks for it, from the first word's bit 0. The table of VMX does not say which control does.
    fn intercept_bit(&self) -> Option<usize> {
        match self {
            Self::Reason(_) => None,
            Self::Code(code, _) => code.intercept_bit(),
        }
    }

    /// How it is reported, where that is not the number alone.
    const fn reported(&self) -> Option<&'static str> {
        match self {
            Self::Reason(ExitReason::EntryFailureInvalidGuestState) => {
                Some("reported as 0x80000021; `trapline explain` of the VMCS says which rule of SDM 27.3.1 is broken")
            }
            Self::Reason(ExitReason::EntryFailureMsrLoading) => {
                Some("reported as 0x80000022; the exit qualification is the number of the MSR in the list, from 1")
            }
            _ => None,
        }
    }

    /// The word that tells more, and its bits.
    fn information(&self) -> Option<(&'static str, BitNames)> {
        Some(match self {
            Self::Reason(reason) => match *reason {
                ExitReason::ExceptionOrNmi => ("exit qualification for #DB", BitNames::probe(64, DebugQualification::from_bits)),
                ExitReason::TaskSwitch => ("exit qualification", BitNames::probe(64, TaskSwitchQualification::from_bits)),
                ExitReason::ControlRegisterAccess => ("exit qualification", BitNames::probe(64, ControlRegisterQualification::from_bits)),
                ExitReason::MovDr => ("exit qualification", BitNames::probe(64, MovDrQualification::from_bits)),
                ExitReason::IoInstruction => ("exit qualification", BitNames::probe(64, IoQualification::from_bits)),
                ExitReason::ApicAccess => ("exit qualification", BitNames::probe(64, ApicAccessQualification::from_bits)),
                ExitReason::EptViolation => ("exit qualification", BitNames::probe(64, EptViolationQualification::from_bits)),
                _ => return None,
            },
            Self::Code(code, _) => match *code {
                ExitCode::IOIO => ("EXITINFO1", BitNames::probe(64, isa::svm::IoInfo::from_bits)),
                ExitCode::NPF => ("EXITINFO1", BitNames::probe(64, isa::svm::NestedPageFaultInfo::from_bits)),
                ExitCode::TASK_SWITCH => ("EXITINFO2", BitNames::probe(64, isa::svm::TaskSwitchInfo::from_bits)),
                ExitCode::CR0_WRITE | ExitCode::CR3_WRITE | ExitCode::CR4_WRITE | ExitCode::CR0_READ | ExitCode::CR3_READ => {
                    ("EXITINFO1, with decode assists", BitNames::probe(64, isa::svm::CrInfo::from_bits))
                }
                _ => return None,
            },
        })
    }

    fn describe(&self, out: &mut String) {
        let (number, title) = (self.number(), self.title());
        let _ = match self {
            Self::Reason(_) => writeln!(out, "VMX  exit reason {number} ({number:#x}): {title}"),
            Self::Code(code, _) => writeln!(out, "SVM  exit code {} {}: {title}", code_number(*code).trim(), self.name()),
        };
        if let Some(name) = self.linux() {
            let _ = writeln!(out, "     Linux prints {name}");
        }
        if let Some(bit) = self.intercept_bit() {
            let _ = writeln!(out, "     asked for by bit {} of INTERCEPTS[{}], VMCB offset {:03X}h", bit % 32, bit / 32, bit / 32 * 4);
        }
        if let Some(reported) = self.reported() {
            let _ = writeln!(out, "     {reported}");
        }
        if let Some((word, names)) = self.information() {
            bits_line(word, &names, out);
        }
    }

    /// Names the counterparts, those of an exit code that are not shown themselves.
    fn name_counterparts(&self, shown: &[Self], out: &mut String) {
        let others = self.counterparts();
        match self {
            Self::Reason(_) if others.is_empty() => {}
            Self::Reason(_) => {
                let names: Vec<String> = others.iter().map(Self::name).collect();
                let _ = writeln!(out, "     on SVM: {}", names.join(", "));
            }
            Self::Code(..) => {
                for other in others.iter().filter(|other| !shown.iter().any(|row| row.is(other))) {
                    let _ = writeln!(out, "     on VMX: exit reason {}, {}", other.number(), other.title());
                }
            }
        }
    }

    const fn vendor(&self) -> &'static str {
        match self {
            Self::Reason(_) => "VMX",
            Self::Code(..) => "SVM",
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.vendor() == other.vendor() && self.number() == other.number()
    }

    fn line(&self) -> String {
        let linux = self.linux().unwrap_or_default();
        match self {
            Self::Reason(_) => format!("  {:>3}  {:<46} {linux}\n", self.number(), self.title()),
            Self::Code(code, row) => format!("  {}  {:<32} {linux:<26} {}\n", code_number(*code), row.name, row.meaning),
        }
    }

    fn columns(&self) -> Value {
        let counterpart = |row: &Self| json!({ "number": hexadecimal(row.number()), "name": row.name(), "title": row.title() });
        json!({
            "vendor": self.vendor(),
            "number": hexadecimal(self.number()),
            "name": self.name(),
            "title": self.title(),
            "linux": self.linux(),
            "reported": self.reported(),
            "counterparts": self.counterparts().iter().map(counterpart).collect::<Vec<_>>(),
            "intercept": self.intercept_bit().map(|bit| {
                json!({ "word": format!("INTERCEPTS[{}]", bit / 32), "offset": hexadecimal(bit as u64 / 32 * 4), "bit": bit % 32 })
            }),
            "information": self.information().map(|(word, names)| json!({ "word": word, "bits": bits(&names) })),
        })
    }
}

fn exit_code_names(row: &isa::svm::exit_code::ExitCodeRow) -> [&'static str; 3] {
    [row.name, row.name.trim_start_matches("VMEXIT_"), row.trace_name.unwrap_or(row.name)]
}

/// What an exit is: by its number or name of either vendor, or the name that Linux prints; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn exit(query: Option<&str>) -> Result<Answer, Unknown> {
    let Some(query) = query else { return Ok(all()) };
    let wanted = plain(query);
    // The highest codes are small negative numbers, and shown as such.
    let by_number = number(query).or_else(|| query.trim().parse::<i64>().ok().map(i64::cast_unsigned));
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
    let mut rows = Vec::new();
    for &reason in &reasons {
        let row = Row::Reason(reason);
        let others = row.counterparts();
        rows.push(row);
        if by_number.is_none() {
            rows.extend(others.into_iter().filter(|other| !codes.iter().any(|code| code.0 == other.number())));
        }
    }
    for row in codes.iter().filter_map(|&code| Row::code(code)) {
        let others = row.counterparts();
        rows.push(row);
        if by_number.is_none() {
            rows.extend(others.into_iter().filter(|other| !reasons.iter().any(|&reason| reason as u64 == other.number())));
        }
    }
    let mut text = String::new();
    for row in &rows {
        row.describe(&mut text);
        if by_number.is_some() {
            row.name_counterparts(&rows, &mut text);
        }
    }
    Ok(Answer { text, rows: rows.iter().map(Row::columns).collect() })
}

fn all() -> Answer {
    let reasons: Vec<Row> = ExitReason::ALL.iter().map(|&reason| Row::Reason(reason)).collect();
    let codes: Vec<Row> = ExitCode::ALL.iter().map(|(code, row)| Row::Code(*code, row)).collect();
    let lines = |rows: &[Row]| rows.iter().map(Row::line).collect::<String>();
    Answer {
        text: format!("VMX exit reasons\n{}SVM exit codes\n{}", lines(&reasons), lines(&codes)),
        rows: reasons.iter().chain(&codes).map(Row::columns).collect(),
    }
}

pub(crate) fn code_number(code: ExitCode) -> String {
    // The highest codes are small negative numbers.
    if code.0 > u64::MAX - 16 { format!("{:>5}", code.0 as i64) } else { format!("{:>4X}h", code.0) }
}
