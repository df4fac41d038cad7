//! What is wrong with a scenario, shown as a compiler shows it: file, line, caret, hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The most diagnostics of one file that are kept; the rest is only counted.
pub const MAX_DIAGNOSTICS: usize = 50;

/// A text that diagnostics point into: a scenario or the assembly file beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name as messages show it.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// One mistake, or one remark on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one line.
    pub message: String,
    /// The text it is in; `None` when there is no text, as for a file that cannot be read.
    pub source: Option<Arc<Source>>,
    /// Where in that text.
    pub span: Range<usize>,
    /// Words beside the caret; may be empty.
    pub label: String,
    /// A second place that matters, with its words.
    pub related: Option<(Range<usize>, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(source: &Arc<Source>, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), source: Some(Arc::clone(source)), span, label: String::new(), related: None, hint: None }
    }

    /// A mistake without a place in a text.
    pub fn without_place(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, span: 0..0, label: String::new(), related: None, hint: None }
    }

    /// Adds words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, words: impl Into<String>) -> Self {
        self.related = Some((span, words.into()));
        self
    }

    /// Line and column of its place, both from 1; columns count characters.
    pub fn position(&self) -> Option<(usize, usize)> {
        let source = self.source.as_ref()?;
        let start = floor(&source.text, self.span.start);
        let line_start = source.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = source.text[..start].matches('\n').count() + 1;
        Some((line, source.text[line_start..start].chars().count() + 1))
    }

    /// The text for a terminal, with colours or without.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let mut group = match &self.source {
            None => Group::with_title(Level::ERROR.primary_title(self.message.as_str())),
            Some(source) => {
                let window = Window::around(&source.text, &self.span);
                let mut snippet = Snippet::source(window.text)
                    .line_start(window.line)
                    .path(source.name.as_str())
                    .fold(true)
                    .annotation(AnnotationKind::Primary.span(window.place(&self.span)).label(self.label.as_str()));
                if let Some((span, words)) = &self.related
                    && window.covers(span)
                {
                    snippet = snippet.annotation(AnnotationKind::Context.span(window.place(span)).label(words.as_str()));
                }
                Level::ERROR.primary_title(self.message.as_str()).element(snippet)
            }
        };
        if let Some((span, words)) = &self.related
            && let Some(source) = &self.source
            && !Window::around(&source.text, &self.span).covers(span)
        {
            let line = source.text[..floor(&source.text, span.start)].matches('\n').count() + 1;
            group = group.element(Level::NOTE.message(format!("{words} on line {line}")));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let mut text = renderer.render(&[group]);
        text.push('\n');
        text
    }
}

/// The largest character boundary not after `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// The part of a source that is shown: a few lines, and of a very long line only the surroundings of the place.
struct Window<'a> {
    text: &'a str,
    start: usize,
    line: usize,
}

impl<'a> Window<'a> {
    /// Bytes shown on each side of the place.
    const REACH: usize = 400;

    fn around(source: &'a str, span: &Range<usize>) -> Self {
        let first = floor(source, span.start);
        let line_start = source[..first].rfind('\n').map_or(0, |at| at + 1);
        let start = floor(source, line_start.max(first.saturating_sub(Self::REACH)));
        let line_end = source[first..].find('\n').map_or(source.len(), |at| first + at);
        let end = floor(source, line_end.min(first + 2 * Self::REACH));
        Self { text: &source[start..end.max(start)], start, line: source[..line_start].matches('\n').count() + 1 }
    }

    fn covers(&self, span: &Range<usize>) -> bool {
        span.start >= self.start && span.start < self.start + self.text.len()
    }

    fn place(&self, span: &Range<usize>) -> Range<usize> {
        let place = |at: usize| floor(self.text, at.saturating_sub(self.start));
        let (start, end) = (place(span.start), place(span.end));
        start..end.max(start)
    }
}

/// Everything that is wrong with a scenario; never empty when returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// The first [`MAX_DIAGNOSTICS`] of them, in the order they were found.
    pub list: Vec<Diagnostic>,
    /// How many more there were.
    pub more: usize,
}

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < MAX_DIAGNOSTICS {
            self.list.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them for a terminal, an empty line between two.
    pub fn render(&self, colours: bool) -> String {
        let mut text: Vec<String> = self.list.iter().map(|diagnostic| diagnostic.render(colours)).collect();
        if self.more > 0 {
            text.push(format!("and {} more errors\n", self.more));
        }
        text.join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic], more: 0 }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The word of `known` nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["memory", "registers", "serial", "trace"];
        assert_eq!(nearest("registres", known), Some("registers"));
        assert_eq!(nearest("Memroy", known), Some("memory"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_place_in_a_line_of_megabytes_is_shown_in_a_few() {
        let source = Arc::new(Source { name: "x.json".into(), text: "\u{e9}".repeat(2_000_000) });
        for at in [0, 1, 1_999_999, 4_000_000, 5_000_000] {
            let text = Diagnostic::new(&source, at..at + 9, "here").render(false);
            assert!(text.len() < 5000, "{}", text.len());
        }
    }
}
