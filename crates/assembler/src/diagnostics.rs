//! What the assembler says about a faulty source: where, what, and how to mend it.
//!
//! Modelled: a byte span with its line and column, a message, an optional help line, a plain renderer with a caret, and
//! the search for the nearest known name. Not modelled: warnings (a program is right or it is refused) and colour.

use std::fmt::Write as _;
use std::ops::Range;

/// How many diagnostics one run reports before it falls silent.
pub(crate) const LIMIT: usize = 20;

/// How much of a long source line the renderer shows, in characters.
const SHOWN_WIDTH: usize = 160;

/// One fault in a source, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The faulty bytes of the source.
    pub span: Range<usize>,
    /// The line the span begins on, counted from 1.
    pub line: usize,
    /// The column the span begins at, in characters, counted from 1.
    pub column: usize,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// How to mend it, where that is known.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A fault at `span`; its line and column are filled in by [`Diagnostic::locate`].
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, line: 0, column: 0, message: message.into(), help: None }
    }

    /// The same fault with advice.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Fills in line and column from the source the span points into.
    pub(crate) fn locate(&mut self, source: &str) {
        let start = floor_boundary(source, self.span.start);
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        self.column = source[line_start..start].chars().count() + 1;
    }

    /// The fault as a compiler prints it: message, place, source line, carets, help.
    ///
    /// `source` must be the text that was assembled; with another text the carets point at nonsense but nothing panics.
    pub fn render(&self, file_name: &str, source: &str) -> String {
        let start = floor_boundary(source, self.span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let end = floor_boundary(source, self.span.end).clamp(start, line_end);
        // A tab is shown as one space so that the carets stay below what they mean.
        let show = |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let lead = show(&source[line_start..start]);
        let marked = show(&source[start..end]);
        let rest = show(source[end..line_end].trim_end());
        let skipped = lead.chars().count().saturating_sub(SHOWN_WIDTH / 2);
        let lead: String = lead.chars().skip(skipped).collect();
        let text: String = format!("{lead}{marked}{rest}").chars().take(SHOWN_WIDTH).collect();
        let carets = marked.chars().count().clamp(1, SHOWN_WIDTH - lead.chars().count().min(SHOWN_WIDTH - 1));
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let mut out = String::new();
        let _ = writeln!(out, "error: {}", self.message);
        let _ = writeln!(out, "{gutter}--> {file_name}:{}:{}", self.line, self.column);
        let _ = writeln!(out, "{gutter} |");
        let _ = writeln!(out, "{}", format!("{number} | {text}").trim_end());
        let _ = writeln!(out, "{gutter} | {}{}", " ".repeat(lead.chars().count()), "^".repeat(carets));
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{gutter} = help: {}", help.replace('\n', &format!("\n{gutter}         ")));
        }
        out
    }
}

/// The nearest character boundary at or below `at`.
fn floor_boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The faults of one run, at most [`LIMIT`] of them.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Diagnostic>,
}

impl Faults {
    /// Adds a fault unless the limit is reached.
    pub(crate) fn push(&mut self, fault: Diagnostic) {
        if !self.is_full() && !self.list.contains(&fault) {
            self.list.push(fault);
        }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether further faults would be dropped, so that work can stop.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= LIMIT
    }

    /// The faults in source order, each with line and column.
    pub(crate) fn finish(mut self, source: &str) -> Vec<Diagnostic> {
        self.list.sort_by_key(|fault| (fault.span.start, fault.span.end));
        for fault in &mut self.list {
            fault.locate(source);
        }
        self.list
    }
}

/// The known name nearest to `wanted`, if it is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.len() > 32 {
        return None;
    }
    let allowed = if wanted.len() <= 3 { 1 } else { 2 };
    let mut best: Option<(usize, &'a str)> = None;
    for name in known {
        if name.len().abs_diff(wanted.len()) > allowed {
            continue;
        }
        let distance = edit_distance(wanted, name);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// How many single-byte insertions, removals, replacements and swaps of neighbours turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
