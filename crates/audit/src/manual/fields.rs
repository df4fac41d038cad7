//! Fields of the VMCS and words of the VMCB.

use super::{Answer, Unknown, WIDTH, bits, bits_line, hexadecimal, number};
use crate::bits::BitNames;
use crate::rule::Rule;
use crate::spelling::plain;
use crate::text::listed;
use crate::twins::twin;
use crate::{svm_rules, vmx_rules};
use isa::svm::VmcbField;
use isa::vmx::{FieldArea, FieldWidth, VmcsField};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One field as the tables have it.
enum Row {
    Vmcs(VmcsField),
    Vmcb(&'static VmcbField),
}

impl Row {
    fn name(&self) -> &'static str {
        match self {
            Self::Vmcs(field) => field.identifier(),
            Self::Vmcb(word) => &word.name,
        }
    }

    fn bits(&self) -> BitNames {
        match self {
            Self::Vmcs(field) => BitNames::vmcs(*field),
            Self::Vmcb(word) => BitNames::vmcb(&word.name),
        }
    }

    /// The rules of entry that read it.
    fn checks(&self) -> Vec<&'static str> {
        let (rules, number): (&[Rule], _) = match self {
            Self::Vmcs(field) => (vmx_rules::rules(), Some(field.index())),
            Self::Vmcb(word) => (svm_rules::rules(), VmcbField::all().iter().position(|other| other == *word)),
        };
        rules.iter().filter(|rule| number.is_some_and(|number| rule.reads.contains(&number))).map(|rule| rule.id).collect()
    }

    fn describe(&self, out: &mut String) {
        match self {
            Self::Vmcs(field) => {
                let (encoding, width, area) = (field.encoding(), width_words(field.width()), area_words(field.area()));
                let _ = writeln!(out, "VMX  {} ({}), encoding {encoding:#06x}, {width}, {area}", self.name(), field.name());
                if !field.requires_one_of().is_empty() {
                    let _ = writeln!(out, "     exists where the processor allows {}", requirement(*field));
                }
            }
            Self::Vmcb(word) => {
                let _ = writeln!(out, "SVM  {}, VMCB offset {:03X}h, {} bits", self.name(), word.offset, 8 * word.bytes);
            }
        }
        bits_line("bits", &self.bits(), out);
        let checks: Vec<String> = self.checks().into_iter().map(str::to_owned).collect();
        if checks.is_empty() {
            return;
        }
        let _ = writeln!(out, "     read by the checks:");
        for line in listed(&checks, WIDTH - 7) {
            let _ = writeln!(out, "       {line}");
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Vmcs(field) => format!("  {:#06x}  {:<42} {}\n", field.encoding(), self.name(), field.name()),
            Self::Vmcb(word) => format!("  {:03X}h  {:<28} {} bits\n", word.offset, self.name(), 8 * word.bytes),
        }
    }

    fn columns(&self, twins: &[(VmcsField, &'static VmcbField)]) -> Value {
        let (bits, checks) = (bits(&self.bits()), self.checks());
        match self {
            Self::Vmcs(field) => {
                let counterparts = twins.iter().filter(|(vmx, _)| vmx == field).map(|(_, svm)| svm.name.as_str());
                json!({
                    "vendor": "VMX",
                    "encoding": format!("{:#06x}", field.encoding()),
                    "offset": null,
                    "name": self.name(),
                    "title": field.name(),
                    "width": match field.width() {
                        FieldWidth::Word => 16,
                        FieldWidth::Doubleword => 32,
                        FieldWidth::Quadword | FieldWidth::Natural => 64,
                    },
                    "natural_width": field.width() == FieldWidth::Natural,
                    "area": area_words(field.area()),
                    "requires_one_of": field.requires_one_of().iter().filter_map(|bit| bit.name()).collect::<Vec<_>>(),
                    "counterparts": counterparts.collect::<Vec<_>>(),
                    "bits": bits,
                    "checks": checks,
                })
            }
            Self::Vmcb(word) => {
                let counterparts = twins.iter().filter(|(_, svm)| svm == word).map(|(vmx, _)| vmx.identifier());
                json!({
                    "vendor": "SVM",
                    "encoding": null,
                    "offset": hexadecimal(word.offset as u64),
                    "name": self.name(),
                    "title": null,
                    "width": 8 * word.bytes,
                    "natural_width": false,
                    "area": null,
                    "requires_one_of": [],
                    "counterparts": counterparts.collect::<Vec<_>>(),
                    "bits": bits,
                    "checks": checks,
                })
            }
        }
    }
}

fn columns<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Value> {
    let twins: Vec<(VmcsField, &VmcbField)> = VmcsField::ALL.iter().filter_map(|&field| Some((field, twin(field)?))).collect();
    rows.map(|row| row.columns(&twins)).collect()
}

/// What a field of the VMCS or a word of the VMCB is: by its name, title, encoding or offset; all of them without a name.
///
/// # Errors
/// There is none of that name.
pub fn field(query: Option<&str>) -> Result<Answer, Unknown> {
    let Some(query) = query else { return Ok(all()) };
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
    let mut words: Vec<&'static VmcbField> = VmcbField::all()
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
    let mut rows = Vec::new();
    for &field in &fields {
        rows.push(Row::Vmcs(field));
        if by_number.is_none() {
            rows.extend(twin(field).filter(|twin| !words.contains(twin)).map(Row::Vmcb));
        }
    }
    for &word in &words {
        rows.push(Row::Vmcb(word));
        if by_number.is_none() && words.len() == 1 {
            let same = VmcsField::ALL.iter().filter(|&&field| twin(field) == Some(word) && !fields.contains(&field));
            rows.extend(same.map(|&field| Row::Vmcs(field)));
        }
    }
    let mut text = String::new();
    for row in &rows {
        row.describe(&mut text);
    }
    Ok(Answer { text, rows: columns(rows.iter()) })
}

fn all() -> Answer {
    let vmcs: Vec<Row> = VmcsField::ALL.iter().map(|&field| Row::Vmcs(field)).collect();
    let vmcb: Vec<Row> = VmcbField::all().iter().map(Row::Vmcb).collect();
    let lines = |rows: &[Row]| rows.iter().map(Row::line).collect::<String>();
    Answer { text: format!("VMCS\n{}VMCB\n{}", lines(&vmcs), lines(&vmcb)), rows: columns(vmcs.iter().chain(&vmcb)) }
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
