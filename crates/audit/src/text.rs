//! An assessment as text for a person in a hurry: the answer, then each broken rule with its bits, then what could not be decided.
//!
//! Modelled: one form for both vendors, 110 columns wide where names allow. Not modelled: colours are the caller's ([`Paint`]).

use crate::assess::{Assessment, Finding, Reading, Undecided, behind_controls};
use crate::position;
use crate::rule::{Outcome, Settings};
use crate::state::Source;
use crate::vmx_rules::qualification_words;
use models::Vendor;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Puts text into a colour: the code of ANSI X3.64, the text.
pub type Paint<'a> = &'a dyn Fn(&str, &str) -> String;

/// Columns of a paragraph.
const WIDTH: usize = 108;

/// What the structure is called.
pub const fn structure(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Intel => "VMCS",
        Vendor::Amd => "VMCB",
    }
}

/// What follows from a broken rule, in words, with the words of the qualification.
pub fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::EntryFailure { qualification } if qualification != 0 => format!("{outcome} ({})", qualification_words(qualification)),
        _ => outcome.to_string(),
    }
}

/// How many broken rules are shown with their bits unless more is asked for: the first is the answer, and a screen has few lines.
pub const SHOWN: usize = 6;

/// How many undecided rules are listed unless more is asked for.
const UNDECIDED_SHOWN: usize = 12;

/// The report. `text` is what was read, for line numbers; `most` is how many broken rules are shown with their bits, the others by name.
pub fn report(assessment: &Assessment, text: &str, most: usize, paint: Paint<'_>) -> String {
    let mut out = String::new();
    head(assessment, paint, &mut out);
    let (shown, rest) = assessment.broken.split_at(assessment.broken.len().min(most));
    for (index, finding) in shown.iter().enumerate() {
        let note = match assessment.undecided_before() {
            _ if index > 0 || assessment.broken.len() + assessment.undecided.len() == 1 => String::new(),
            0 => "   <- hardware stops here".to_owned(),
            before => format!("   <- hardware stops here, or at one of {before} undecided rules before"),
        };
        rule(index + 1, finding, &note, assessment, text, paint, &mut out);
    }
    if !rest.is_empty() {
        let _ = writeln!(out, "\nand {} more, in the machine's order (--verbose shows their bits):", rest.len());
        for (index, finding) in rest.iter().enumerate() {
            let _ = writeln!(out, "{:>3}. {}: {}", shown.len() + index + 1, paint("1", finding.rule.id), finding.rule.rule);
        }
    }
    if !assessment.elsewhere.is_empty() {
        let _ = writeln!(
            out,
            "\nThe processor that recorded exit reason {} accepted the controls and the host state, so what follows only tells that it \
             is\nnot a {}:",
            behind_controls(assessment.recorded).unwrap_or("0x80000021"),
            assessment.cpu.name
        );
        for (index, finding) in assessment.elsewhere.iter().enumerate() {
            rule(assessment.broken.len() + index + 1, finding, "", assessment, text, paint, &mut out);
        }
    }
    undecided(assessment, most == usize::MAX, &mut out);
    for remark in &assessment.remarks {
        let _ = writeln!(out, "\nnote: {remark}");
    }
    out
}

fn head(assessment: &Assessment, paint: Paint<'_>, out: &mut String) {
    let broken = assessment.broken.len() + assessment.elsewhere.len();
    let counts = format!(
        "{broken} rule{} broken, {} not decidable, on {}",
        if broken == 1 { "" } else { "s" },
        assessment.undecided.len(),
        assessment.cpu.name
    );
    match assessment.broken.first() {
        Some(first) => {
            let _ = writeln!(out, "{}: {}", paint("1;31", "INVALID"), outcome(first.rule.outcome));
            let _ = writeln!(out, "because of {}: {}", paint("1", first.rule.id), first.rule.rule);
        }
        None if assessment.undecided.is_empty() => {
            let _ = writeln!(out, "{}: no rule of {} entry is broken", paint("1;32", "VALID"), structure(assessment.vendor));
        }
        None => {
            let word = paint("1;33", "NO RULE BROKEN");
            let _ = writeln!(out, "{word} of those that this {} can decide", assessment.source.name());
        }
    }
    let _ = writeln!(out, "({counts})");
    if let Some(recorded) = assessment.recorded {
        let agrees = assessment.broken.first().is_some_and(|first| first.rule.outcome == recorded);
        let word = if agrees { "as recorded" } else { "recorded" };
        let _ = writeln!(out, "({word} in the {}: {})", structure(assessment.vendor), outcome(recorded));
    }
}

fn rule(number: usize, finding: &Finding, note: &str, assessment: &Assessment, text: &str, paint: Paint<'_>, out: &mut String) {
    let row = &finding.rule;
    let _ = writeln!(out, "\n{number}. {}{note}\n   {}, {}", paint("1", row.id), row.manual, row.section);
    for line in wrapped(&format!("{}.", row.rule), WIDTH) {
        let _ = writeln!(out, "   {line}");
    }
    let marked = finding.reads.iter().filter(|reading| reading.mark.is_some()).count();
    if marked > 1 {
        let words = if finding.together { "both of these must change" } else { "a change of any one of these is enough" };
        let _ = writeln!(out, "   ({words})");
    }
    for reading in finding.reads.iter().filter(|reading| reading.mark.is_some() || marked == 0) {
        word(reading, assessment, text, paint, out);
    }
    let others: Vec<String> = finding
        .reads
        .iter()
        .filter(|reading| reading.mark.is_none() && marked > 0)
        .map(|reading| format!("{} = {:#x}{}", reading.name, reading.value, if reading.known { "" } else { " (assumed)" }))
        .collect();
    if !others.is_empty() {
        for (index, line) in listed(&others, WIDTH - 5).into_iter().enumerate() {
            let _ = writeln!(out, "   {}{line}", if index == 0 { "with " } else { "     " });
        }
    }
    if !row.hint.is_empty() {
        for (index, line) in wrapped(row.hint, WIDTH - 6).into_iter().enumerate() {
            let label = if index == 0 { paint("36", "hint:") } else { "     ".to_owned() };
            let _ = writeln!(out, "   {label} {line}");
        }
    }
}

/// One word: its value, its bits with the wrong ones marked, what would be legal.
fn word(reading: &Reading, assessment: &Assessment, text: &str, paint: Paint<'_>, out: &mut String) {
    let place = reading.place.as_ref().filter(|_| assessment.source != Source::Machine).map(|place| position(text, place).0);
    let place = match (place, reading.known) {
        (Some(line), _) => format!("   line {line}"),
        (None, false) => "   assumed".to_owned(),
        (None, true) => String::new(),
    };
    let _ = writeln!(out, "   {} = {}{place}", reading.name, paint("1", &format!("{:#x}", reading.value)));
    let Some(mark) = &reading.mark else { return };
    if mark.bits == 0 {
        let _ = writeln!(out, "     not legal; {:#x} would be, for example", mark.nearest);
        return;
    }
    let bits = shown_bits(reading.value | mark.bits, reading.mask);
    let _ = writeln!(out, "     {}", binary(reading.value, bits));
    let _ = writeln!(out, "     {}", paint("1;31", carets(mark.bits, bits).trim_end()));
    if let Some((low, name, values)) = &mark.choices {
        let there = reading.value >> low & ((1 << reading.names.of(*low).map_or(1, |run| run.width)) - 1);
        let values: Vec<String> = values.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "     {name} is {there}; legal here: {}", values.join(", "));
        return;
    }
    for (high, low) in runs(mark.bits, &reading.names) {
        let _ = writeln!(out, "     {}", bit_line(reading, mark.settings.map(|settings| settings.must), high, low));
    }
    let _ = match mark.settings {
        Some(Settings { must, may, source }) => {
            writeln!(out, "     {} allows, by {source}: must be 1: {must:#x}, may be 1: {may:#x}", assessment.cpu.name)
        }
        None => writeln!(out, "     nearest value that obeys this rule: {:#x}", mark.nearest),
    };
}

fn bit_line(reading: &Reading, must: Option<u64>, high: u32, low: u32) -> String {
    let bits = if high == low { format!("bit {low}") } else { format!("bits {high}:{low}") };
    let name = reading.names.of(low).map(|name| format!(", {},", name.name)).unwrap_or_default();
    let value = reading.value >> low & (u64::MAX >> (63 - (high - low)));
    let is = if high == low { format!(" is {value}") } else { format!(" = {value:#x}") };
    let reserved = if name.is_empty() && !reading.names.0.is_empty() { " (reserved)" } else { "" };
    match must {
        Some(must) if high == low => format!("{bits}{name}{reserved}{is}, must be {}", must >> low & 1),
        Some(must) => format!("{bits}{name}{reserved}{is}, must be {}", if must >> low & 1 == 1 { "ones" } else { "zero" }),
        None => format!("{bits}{name}{reserved}{is}"),
    }
}

/// How many bits of a number are worth showing: all up to the highest that matters, in whole bytes.
fn shown_bits(matters: u64, mask: u64) -> u32 {
    let highest = (64 - matters.leading_zeros()).div_ceil(8) * 8;
    highest.clamp(8, (64 - mask.leading_zeros()).div_ceil(4).max(2) * 4)
}

fn binary(value: u64, bits: u32) -> String {
    let mut text = String::new();
    for bit in (0..bits).rev() {
        text.push(if value >> bit & 1 != 0 { '1' } else { '0' });
        if bit % 4 == 0 && bit != 0 {
            text.push('_');
        }
    }
    text
}

fn carets(marked: u64, bits: u32) -> String {
    let mut text = String::new();
    for bit in (0..bits).rev() {
        text.push(if marked >> bit & 1 != 0 { '^' } else { ' ' });
        if bit % 4 == 0 && bit != 0 {
            text.push(' ');
        }
    }
    text
}

/// Runs of marked bits from the highest: neighbours without a name of their own, or within one name, go together.
pub(crate) fn runs(marked: u64, names: &crate::bits::BitNames) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for bit in (0..64).rev().filter(|bit| marked >> bit & 1 != 0) {
        match runs.last_mut() {
            Some(run) if run.1 == bit + 1 && names.of(bit) == names.of(bit + 1) => run.1 = bit,
            _ => runs.push((bit, bit)),
        }
    }
    runs
}

fn undecided(assessment: &Assessment, all: bool, out: &mut String) {
    if assessment.undecided.is_empty() {
        return;
    }
    // What only memory can decide is as likely the cause as anything: it is told in full.
    let (memory, others): (Vec<&Undecided>, Vec<&Undecided>) =
        assessment.undecided.iter().partition(|undecided| undecided.missing.iter().all(|name| name.starts_with("memory.")));
    for undecided in memory {
        let row = &undecided.rule;
        let _ = writeln!(out, "\nPerhaps {}: it hangs on {}\n   {}, {}", row.id, undecided.missing.join(", "), row.manual, row.section);
        for line in wrapped(&format!("{}. {}", row.rule, row.hint), WIDTH) {
            let _ = writeln!(out, "   {line}");
        }
    }
    if others.is_empty() {
        return;
    }
    if others.len() > UNDECIDED_SHOWN && !all {
        let words: Vec<String> = assessment.assumed.iter().map(|assumed| assumed.name.clone()).collect();
        let (shown, rest) = words.split_at(words.len().min(UNDECIDED_SHOWN));
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let text = format!(
            "{} rules are not decidable, because this {} does not hold {}{more} (--verbose lists them).",
            others.len(),
            assessment.source.name(),
            shown.join(", ")
        );
        let _ = writeln!(out);
        for line in wrapped(&text, WIDTH) {
            let _ = writeln!(out, "{line}");
        }
        return;
    }
    let mut by_words: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for undecided in others {
        let described = |name: &String| {
            let value = assessment.assumed.iter().find(|assumed| assumed.name == *name).map_or(0, |assumed| assumed.value);
            if value == 0 { name.clone() } else { format!("{name} (taken as {value:#x})") }
        };
        let words: Vec<String> = undecided.missing.iter().map(described).collect();
        by_words.entry(words.join(", ")).or_default().push(undecided.rule.id);
    }
    let _ =
        writeln!(out, "\nNot decidable, because this {} does not hold (taken as 0 where nothing else is said):", assessment.source.name());
    for (words, rules) in by_words {
        for (index, line) in wrapped(&format!("{words}: {}", rules.join(", ")), WIDTH - 4).into_iter().enumerate() {
            let _ = writeln!(out, "   {}{line}", if index == 0 { "" } else { "  " });
        }
    }
}

/// A paragraph in lines of at most so many columns; a longer word stands alone.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A list in lines of at most so many columns, no item broken.
pub(crate) fn listed(items: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let item = if index + 1 < items.len() { format!("{item},") } else { item.clone() };
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + item.chars().count() <= width => {
                line.push(' ');
                line.push_str(&item);
            }
            _ => lines.push(item),
        }
    }
    lines
}
