//! What the documentation shows is what the command prints, and its links lead somewhere.
//!
//! `UPDATE_DOCS=1 cargo test --package trapline --test readme` writes examples anew that changed for a reason; read what it wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pages whose examples are run.
const WITH_EXAMPLES: [&str; 8] = [
    "README.md",
    "docs/checkpoints.md",
    "docs/explain.md",
    "docs/explore.md",
    "docs/interleavings.md",
    "docs/migration.md",
    "docs/story.md",
    "docs/tour.md",
];

/// Where examples write files; in this test it is a directory of its own, empty in front of the first example of a page.
const OUT: &str = "out/";

/// How an example invokes the command.
const PROMPTS: [&str; 2] = ["$ trapline ", "$ cargo run --release -- "];

/// Stands, on a line of its own, for any lines.
const ANYTHING: &str = "...";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two levels below the root").to_owned()
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The fenced blocks of a page: line number, language, lines.
fn blocks(text: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, Vec<&str>)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((number + 1, language, Vec::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.2.push(line);
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// Whether the lines are those shown.
fn matches(shown: &[&str], lines: &[&str]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((&ANYTHING, rest)) => (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..])),
        Some((line, rest)) => lines.split_first().is_some_and(|(first, others)| first == line && matches(rest, others)),
    }
}

/// Lines without spaces at their ends, and without empty lines at the end.
fn tidy<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = lines.map(str::trim_end).collect();
    while lines.last() == Some(&"") {
        lines.pop();
    }
    lines
}

#[test]
fn every_example_prints_what_is_shown() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    let mut run = 0;
    for page in WITH_EXAMPLES {
        let text = read(&root().join(page));
        let mut updated = text.clone();
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(page.replace('/', "-"));
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).expect("a directory in the folder for tests");
        let out = format!("{}/", out.display());
        for (number, language, lines) in blocks(&text) {
            let Some((command, shown)) = lines.split_first().filter(|_| language == "console") else { continue };
            let Some(arguments) = PROMPTS.iter().find_map(|prompt| command.strip_prefix(prompt)) else { continue };
            let output = Command::new(env!("CARGO_BIN_EXE_trapline"))
                .args(arguments.split_whitespace().map(|argument| argument.replacen(OUT, &out, usize::from(argument.starts_with(OUT)))))
                .env("NO_COLOR", "1")
                .current_dir(root())
                .output()
                .expect("the command runs");
            let printed = String::from_utf8_lossy(&output.stdout).replace(&out, OUT);
            let (shown, printed) = (tidy(shown.iter().copied()), tidy(printed.lines()));
            run += 1;
            if update && !shown.contains(&ANYTHING) {
                let block = |lines: &[&str]| format!("{command}\n{}\n```", lines.join("\n"));
                updated = updated.replacen(&block(&shown), &block(&printed), 1);
                continue;
            }
            assert!(
                matches(&shown, &printed),
                "{page}:{number}: `{arguments}` is shown to print\n{}\nand prints\n{}\n{}",
                shown.join("\n"),
                printed.join("\n"),
                String::from_utf8_lossy(&output.stderr),
            );
        }
        if updated != text {
            fs::write(root().join(page), updated).expect("the page can be written");
        }
    }
    assert!(run >= WITH_EXAMPLES.len(), "only {run} examples were found");
}

/// Targets of the links of a page that lead into the repository.
fn links(text: &str) -> Vec<&str> {
    let outside = |target: &str| target.starts_with('#') || target.contains("://") || target.starts_with("mailto:");
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')')
                && !outside(target)
            {
                found.push(target.split('#').next().unwrap_or(target));
            }
        }
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs")).expect("docs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages {
        let folder = page.parent().expect("a page lies in a folder").to_owned();
        for target in links(&read(&page)) {
            count += 1;
            if !folder.join(target).exists() {
                broken.push(format!("{} -> {target}", page.strip_prefix(root()).unwrap_or(&page).display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 10, "only {count} links were found");
}

#[test]
fn every_scenario_shown_passes() {
    let text = read(&root().join("README.md"));
    let mut run = 0;
    for (number, _, lines) in blocks(&text).into_iter().filter(|(_, language, _)| *language == "json") {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{number}.json"));
        fs::write(&file, lines.join("\n")).expect("a file in the folder for tests");
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).arg("run").arg(&file).output().expect("the command runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "README.md:{number}\n{printed}\n{}", String::from_utf8_lossy(&output.stderr));
        run += 1;
    }
    assert_eq!(run, 1, "the README shows one scenario");
}

/// Whether a word occurs in a text with nothing of a word around it.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].chars().next_back().is_some_and(inside) && !text[at + word.len()..].chars().next().is_some_and(inside))
}

/// In a cell of a table of the tour, a path is followed by names that occur in that file.
#[test]
fn the_tour_names_what_is_there() {
    let text = read(&root().join("docs/tour.md"));
    let mut wrong = Vec::new();
    let mut names = 0;
    for cell in text.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('|')) {
        let spans: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let Some((path, rest)) = spans.split_first().filter(|(first, _)| first.ends_with(".rs")) else { continue };
        let Ok(source) = fs::read_to_string(root().join("crates").join(path)) else {
            wrong.push(format!("there is no {path}"));
            continue;
        };
        for name in rest {
            names += 1;
            if !has_word(&source, name) {
                wrong.push(format!("{path} has no {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(names > 40, "only {names} names were found");
}

#[test]
fn an_ellipsis_stands_for_any_lines_and_nothing_else_does() {
    let lines = ["one", "two", "three"];
    assert!(matches(&["one", "...", "three"], &lines));
    assert!(matches(&["one", "two", "three", "..."], &lines));
    assert!(matches(&["..."], &[]));
    assert!(!matches(&["one", "three"], &lines));
    assert!(!matches(&["one", "...", "two"], &lines));
    assert!(!matches(&["on", "..."], &lines));
}
