//! The tree of reviewed traces, and its comparison with what a run printed.
//!
//! The files are insta's: a YAML header between two lines `---`, then the text. `cargo insta review` works on them through the test
//! `corpus` of this crate, which lies beside them; `trapline test` only reads them, or accepts a run as a whole.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// The most scenarios of one tree, and the deepest it may be.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;
/// The line of the header by which a reviewed trace is known.
const SOURCE: &str = "\nsource: crates/scenario/../../snapshots/corpus.rs\n";

/// Every scenario at or below a path, in the order of their names. Files that are named `*.schema.json` are no scenarios.
pub fn scenario_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        std::fs::metadata(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut waiting = vec![(path.to_owned(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && depth < MAX_DEPTH {
                waiting.push((path, depth + 1));
            } else if name.ends_with(".json") && !name.ends_with(".schema.json") {
                files.push(path);
            }
            if files.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} scenarios")));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A tree of scenarios and its tree of reviewed traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trees {
    /// The root of the scenarios: they are named from here.
    pub scenarios: PathBuf,
    /// The root of the traces.
    pub snapshots: PathBuf,
}

impl Trees {
    /// The trees that a path is about: the nearest directory at or above it that has `snapshots` beside itself, so that a part of a tree has the
    /// names that it has in the whole. Where there is none, the path is the root (of a file, the directory it lies in).
    ///
    /// # Errors
    /// The path is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let whole = path.canonicalize()?;
        let directory = if whole.is_dir() { &*whole } else { whole.parent().unwrap_or(&whole) };
        let beside = |root: &Path| root.parent().map(|parent| parent.join("snapshots"));
        // Right below the root of the file system lies somebody else's.
        let there =
            |root: &&Path| root.parent().is_some_and(|parent| parent.parent().is_some()) && beside(root).is_some_and(|it| it.is_dir());
        let root = directory.ancestors().find(there).unwrap_or(directory);
        Ok(Self { scenarios: root.to_owned(), snapshots: shown(beside(root).unwrap_or_else(|| root.join("snapshots"))) })
    }

    /// The same with traces that lie elsewhere.
    ///
    /// # Errors
    /// The path is not there.
    pub fn with(path: &Path, snapshots: PathBuf) -> io::Result<Self> {
        let whole = path.canonicalize()?;
        let root = match whole.is_dir() {
            true => whole,
            // Of a single file the directory it lies in is its theme.
            false => whole.ancestors().nth(2).unwrap_or(&whole).to_owned(),
        };
        Ok(Self { scenarios: root, snapshots })
    }

    /// The name of a scenario in its tree.
    pub fn name(&self, file: &Path) -> String {
        story_name(&self.scenarios, &file.canonicalize().unwrap_or_else(|_| file.to_owned()))
    }

    /// The reviewed traces of scenarios at or below a path that no run belongs to any more, in the order of their names. `made` knows the traces
    /// that do.
    ///
    /// # Errors
    /// The operating system's.
    pub fn orphans(&self, path: &Path, made: &dyn Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
        let whole = path.canonicalize()?;
        let mut waiting = match whole.strip_prefix(&self.scenarios) {
            Ok(relative) if whole.is_dir() => vec![(self.snapshots.join(relative), 0)],
            _ => Vec::new(),
        };
        let mut orphans = Vec::new();
        while let Some((directory, depth)) = waiting.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() && depth < MAX_DEPTH {
                    waiting.push((path, depth + 1));
                } else if path.extension().is_some_and(|extension| extension == "snap") && !made(&path) {
                    // Other tests may keep theirs in the same tree.
                    let ours = std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with("---\n") && text.contains(SOURCE));
                    orphans.extend(ours.then_some(path));
                }
            }
        }
        orphans.sort();
        Ok(orphans)
    }
}

/// A path as messages show it: from the working directory, where it lies below that.
fn shown(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    match here {
        Ok(here) => path.strip_prefix(here).map(Path::to_owned).unwrap_or(path),
        Err(_) => path,
    }
}

/// The name of a scenario: its path below the tree's root, without its extension, for example `edge-cases/e07-read-only-text`.
pub fn story_name(root: &Path, file: &Path) -> String {
    let relative = match file.strip_prefix(root) {
        Ok(relative) if !relative.as_os_str().is_empty() => relative.to_owned(),
        // A single file: its theme is the directory it lies in.
        _ => {
            let theme = file.parent().and_then(Path::file_name);
            let name = file.file_name().unwrap_or_default();
            theme.map(|theme| Path::new(theme).join(name)).unwrap_or_else(|| PathBuf::from(name))
        }
    };
    let parts: Vec<_> = relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("/")
}

/// Where the reviewed trace of a scenario on a machine is kept.
pub fn path(snapshots: &Path, story: &str, variant: &str) -> PathBuf {
    snapshots.join(format!("{story}.{variant}.snap"))
}

/// How a run's text compares with the reviewed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal.
    Equal,
    /// There is no reviewed one.
    Missing(PathBuf),
    /// They differ; the lines as a difference.
    Different(PathBuf, String),
    /// This run was accepted.
    Accepted,
    /// A file could not be read or written.
    Broken(String),
}

impl Comparison {
    /// Whether nothing is to be said.
    pub fn good(&self) -> bool {
        matches!(self, Comparison::Equal | Comparison::Accepted)
    }

    /// One word for reports.
    pub fn word(&self) -> &'static str {
        match self {
            Comparison::Equal => "equal",
            Comparison::Missing(_) => "missing",
            Comparison::Different(..) => "different",
            Comparison::Accepted => "accepted",
            Comparison::Broken(_) => "broken",
        }
    }

    /// What is to be said, empty when nothing; `paint` colours a text by an ANSI code.
    pub fn explain(&self, paint: &dyn Fn(&str, &str) -> String) -> String {
        match self {
            Comparison::Equal | Comparison::Accepted => String::new(),
            Comparison::Missing(path) => format!("there is no reviewed trace {}; `--accept` takes this one\n", path.display()),
            Comparison::Broken(message) => format!("{message}\n"),
            Comparison::Different(path, difference) => {
                let mut text = format!("the trace differs from the reviewed one, {}:\n", path.display());
                for line in difference.lines() {
                    let code = match line.as_bytes().first() {
                        Some(b'+') => "32",
                        Some(b'-') => "31",
                        _ => "2",
                    };
                    let _ = writeln!(text, "{}", paint(code, line));
                }
                text
            }
        }
    }
}

/// The text of a snapshot file, without its header.
fn body(file: &str) -> &str {
    let after = file.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    after.map_or(file, |(_, body)| body)
}

/// Compares a run's text with the reviewed one.
pub fn compare(path: &Path, text: &str) -> Comparison {
    match std::fs::read_to_string(path) {
        Ok(file) if body(&file).trim_end() == text.trim_end() => Comparison::Equal,
        Ok(file) => Comparison::Different(path.to_owned(), difference(body(&file).trim_end(), text.trim_end())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Comparison::Missing(path.to_owned()),
        Err(error) => Comparison::Broken(format!("cannot read {}: {error}", path.display())),
    }
}

/// Writes a run's text as the reviewed one, in the form insta writes it.
pub fn accept(path: &Path, text: &str) -> Comparison {
    if compare(path, text) == Comparison::Equal {
        return Comparison::Equal;
    }
    let file = format!("---{SOURCE}---\n{}\n", text.trim_end());
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, file));
    match written {
        Ok(()) => Comparison::Accepted,
        Err(error) => Comparison::Broken(format!("cannot write {}: {error}", path.display())),
    }
}

/// Lines around a difference that are shown for orientation, and the most lines shown in all.
const CONTEXT: usize = 3;
const MAX_SHOWN: usize = 60;

/// The difference of two texts, line by line: ` ` common, `-` only in the first, `+` only in the second.
///
/// A longest common subsequence of the part between the common beginning and end; where that part is large, it is shown as replaced whole.
pub fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (left, right) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut lines: Vec<(char, &str)> = old[start.saturating_sub(CONTEXT)..start].iter().map(|line| (' ', *line)).collect();
    if left.len() * right.len() > 1_000_000 {
        lines.extend(left.iter().map(|line| ('-', *line)));
        lines.extend(right.iter().map(|line| ('+', *line)));
    } else {
        let mut length = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
        for i in (0..left.len()).rev() {
            for j in (0..right.len()).rev() {
                length[i][j] = if left[i] == right[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < left.len() || j < right.len() {
            if i < left.len() && j < right.len() && left[i] == right[j] {
                lines.push((' ', left[i]));
                (i, j) = (i + 1, j + 1);
            } else if i < left.len() && (j == right.len() || length[i + 1][j] >= length[i][j + 1]) {
                lines.push(('-', left[i]));
                i += 1;
            } else {
                lines.push(('+', right[j]));
                j += 1;
            }
        }
    }
    lines.extend(old[old.len() - end..].iter().take(CONTEXT).map(|line| (' ', *line)));
    let mut text = String::new();
    for (mark, line) in lines.iter().take(MAX_SHOWN) {
        let _ = writeln!(text, "{mark} {line}");
    }
    if lines.len() > MAX_SHOWN {
        let _ = writeln!(text, "  ... {} more lines", lines.len() - MAX_SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_small() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh";
        let new = "a\nb\nc\nd\nE\nf\nx\ng\nh";
        assert_eq!(difference(old, new), "  b\n  c\n  d\n- e\n+ E\n  f\n+ x\n  g\n  h\n");
        assert_eq!(difference(old, old), "  f\n  g\n  h\n");
        assert_eq!(difference("", "a"), "+ a\n");
    }

    #[test]
    fn names_come_from_paths() {
        let name = |root: &str, file: &str| story_name(Path::new(root), Path::new(file));
        assert_eq!(name("scenarios", "scenarios/smp/meeting.json"), "smp/meeting");
        assert_eq!(name("scenarios/smp/meeting.json", "scenarios/smp/meeting.json"), "smp/meeting");
        assert_eq!(path(Path::new("s"), "smp/a.b", "zen3.none"), Path::new("s/smp/a.b.zen3.none.snap"));
    }

    #[test]
    fn headers_are_skipped() {
        assert_eq!(body("---\nsource: x\nexpression: y\n---\ntext\n---\n"), "text\n---\n");
        assert_eq!(body("text"), "text");
    }
}
