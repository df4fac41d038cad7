//! The tables as a manual at hand: exits, fields, checks and MSRs, both vendors' words together where both have one.
//!
//! Modelled: every row of the tables of `isa`, `vmx` and `svm`, found by name or number however it is spelled, as rows for programs and as
//! the text that is made from those; [`crate::reference`] has the pages for the book. Not modelled: what the silicon does beyond what the
//! tables say.

mod checks;
mod exits;
mod fields;
mod msrs;

pub use checks::check;
pub use exits::exit;
pub use fields::field;
pub use msrs::msr;

pub(crate) use checks::word_names;
pub(crate) use exits::code_number;
pub(crate) use fields::{requirement, width_words};

use crate::bits::BitNames;
use crate::spelling::did_you_mean;
use crate::text::listed;
use serde_json::{Value, json};
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

/// What a table says: the same rows for people and for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For programs: one object a row, with the table's columns. Numbers that the manuals write in hexadecimal are strings such as
    /// `"0x4822"`, because JSON's are not exact beyond 2^53; a column that a row has nothing for is null or empty.
    pub rows: Vec<Value>,
}

/// Columns of a paragraph.
const WIDTH: usize = 104;

fn hexadecimal(value: u64) -> String {
    format!("{value:#x}")
}

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

/// The columns of named bits.
fn bits(names: &BitNames) -> Vec<Value> {
    names.0.iter().map(|bit| json!({ "low": bit.low, "width": bit.width, "name": bit.name })).collect()
}
