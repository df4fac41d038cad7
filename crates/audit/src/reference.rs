//! The reference pages of the book, generated from the tables.
//!
//! Modelled: all exits, all fields, all checks, of both vendors. Not modelled: prose.

use crate::manual::{code_number, requirement, width_words, word_names};
use crate::text::outcome;
use crate::twins::{SAME_EXIT, twin};
use crate::{svm_rules, vmx_rules};
use isa::svm::{ExitCode, VmcbField};
use isa::vmx::{ExitReason, VmcsField};
use std::fmt::Write as _;

/// The page of all exits, for the book.
pub fn exits() -> String {
    let mut out = String::from(
        "# Exits\n\nGenerated from `isa/src/vmx/exit_reason.rs` and `isa/src/svm/exit_code.rs`; `trapline explain exit NAME` shows one.\n\n\
         ## VMX basic exit reasons\n\n| number | SDM appendix C | Linux | SVM |\n|---|---|---|---|\n",
    );
    for reason in ExitReason::ALL {
        let same: Vec<&str> =
            SAME_EXIT.iter().filter(|(row, _)| row == reason).flat_map(|(_, codes)| *codes).filter_map(|code| code.name()).collect();
        let _ = writeln!(out, "| {} | {} | {} | {} |", *reason as u16, reason.name(), reason.kvm_name().unwrap_or(""), same.join(", "));
    }
    out += "\n## SVM exit codes\n\n| code | APM appendix C | Linux | what |\n|---|---|---|---|\n";
    for (code, row) in ExitCode::ALL {
        let _ = writeln!(out, "| {} | {} | {} | {} |", code_number(*code).trim(), row.name, row.trace_name.unwrap_or(""), row.meaning);
    }
    out
}

/// The page of all fields, for the book.
pub fn fields() -> String {
    let mut out = String::from(
        "# Fields\n\nGenerated from `isa/src/vmx/field.rs` and `isa/src/svm/vmcb.rs`; `trapline explain field NAME` shows one with its bits and \
         the checks that read it.\n\n## VMCS\n\n| encoding | name | title | width | needs | VMCB |\n|---|---|---|---|---|---|\n",
    );
    for &field in VmcsField::ALL {
        let twin = twin(field).map_or("", |word| word.name.as_str());
        let (name, title, width) = (field.identifier(), field.name(), width_words(field.width()));
        let _ = writeln!(out, "| {:#06x} | {name} | {title} | {width} | {} | {twin} |", field.encoding(), requirement(field));
    }
    out += "\n## VMCB\n\n| offset | name | bits |\n|---|---|---|\n";
    for word in VmcbField::all() {
        let _ = writeln!(out, "| {:03X}h | {} | {} |", word.offset, word.name, 8 * word.bytes);
    }
    out
}

/// The page of all checks, for the book.
pub fn checks() -> String {
    let mut out = String::from(
        "# Checks\n\nGenerated from the tables of `vmx/src/checks` and `svm/src/check.rs`, in the machine's order; `trapline explain check ID` shows \
         one.\n",
    );
    let mut section = "";
    for rule in [vmx_rules::rules(), svm_rules::rules()].into_iter().flatten() {
        if rule.section != section {
            section = rule.section;
            let _ = write!(out, "\n## {}, {section}\n\n{}.\n\n| id | rule | reads |\n|---|---|---|\n", rule.manual, outcome(rule.outcome));
        }
        let _ = writeln!(out, "| {} | {} | {} |", rule.id, rule.rule.replace('|', "\\|"), word_names(rule).join(", "));
    }
    out
}
