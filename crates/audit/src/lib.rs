//! The auditor: which rules of VM entry or VMRUN a VMCS or VMCB breaks, all of them, and a manual of the silicon's tables.
//!
//! Modelled: the rules themselves are rows of the crates `vmx` and `svm`, which the machine obeys; this crate reads a control structure from
//! JSON ([`document`]) or from the text that Linux prints when an entry failed ([`dump`]), evaluates every row, works out from the row alone
//! which bits are wrong and what would be legal ([`repair`]), and tells ([`text`], [`json_lines`], [`sarif`]); [`manual`] shows the tables. A reading may lack fields: a rule whose
//! verdict hangs on one of those is undecided, never broken.
//! Not modelled: what follows a successful entry.

pub mod assess;
pub mod bits;
pub mod boundary;
pub mod document;
pub mod dump;
pub mod json_lines;
pub mod manual;
pub mod processor;
pub mod reference;
pub mod repair;
pub mod rule;
pub mod sarif;
pub mod spelling;
pub mod state;
pub mod text;

mod linux;
mod svm_rules;
mod twins;
mod vmx_rules;

pub use assess::{Assessment, Finding, Mark, Undecided, assess};
pub use rule::{Outcome, Rule, Silicon, Verdict, Word};
pub use state::{ReadError, Source, State};

use models::{CpuModel, Vendor};
use std::ops::Range;

/// The largest text that is read, in bytes.
pub const MAX_SIZE: usize = json::MAX_SIZE;

/// What a text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A VMCS or VMCB as JSON.
    Document(Vendor),
    /// The text that Linux prints of a VMCS or VMCB.
    Dump(Vendor),
    /// JSON without either: perhaps a scenario.
    OtherJson,
    /// Nothing of these.
    Unknown,
}

/// Says what a text holds, by what stands in it.
pub fn recognise(text: &str) -> Content {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('{') || start.starts_with("//") {
        return match json::parse(text) {
            Ok(root) if has(&root, "vmcs") => Content::Document(Vendor::Intel),
            Ok(root) if has(&root, "vmcb") => Content::Document(Vendor::Amd),
            Ok(_) => Content::OtherJson,
            // The reader of documents shows where it is malformed.
            Err(_) if text.contains("\"vmcs\"") => Content::Document(Vendor::Intel),
            Err(_) if text.contains("\"vmcb\"") => Content::Document(Vendor::Amd),
            Err(_) => Content::OtherJson,
        };
    }
    dump::vendor(text).map_or(Content::Unknown, Content::Dump)
}

/// Whether an object has a member of that name, in any case: the reader says how it is to be written.
fn has(root: &json::Node, name: &str) -> bool {
    matches!(&root.kind, json::NodeKind::Object(members) if members.iter().any(|member| member.key.eq_ignore_ascii_case(name)))
}

/// Reads a control structure from a text, whatever its form.
///
/// # Errors
/// Says what is wrong and where.
pub fn read(text: &str, cpu: Option<&'static CpuModel>) -> Result<State, ReadError> {
    if text.len() > MAX_SIZE {
        return Err(ReadError::new(0..0, format!("the text has {} bytes; at most {MAX_SIZE} are read", text.len())));
    }
    match recognise(text) {
        Content::Document(vendor) => document::read(text, vendor, cpu),
        Content::Dump(vendor) => dump::read(text, vendor, cpu),
        Content::OtherJson => Err(ReadError::new(0..0, "this JSON has neither a member `vmcs` nor `vmcb`")),
        Content::Unknown if text.contains("hardware error 0x") || text.contains("entry failed") => Err(ReadError::new(
            0..0,
            "this tells that an entry failed, not with what: load kvm_intel with `dump_invalid_vmcs=1`, or kvm_amd with `dump_invalid_vmcb=1`, and \
             give what the kernel then logs",
        )),
        Content::Unknown => Err(ReadError::new(
            0..0,
            "this is neither JSON with a member `vmcs` or `vmcb` nor the text that Linux prints of a VMCS (`*** Guest State ***`) or a VMCB \
             (`VMCB State Save Area:`)",
        )),
    }
}

/// Line and column, both from 1, of a place in a text.
pub fn position(text: &str, place: &Range<usize>) -> (usize, usize) {
    let before = text.get(..place.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
