//! A catalogue of cases: every one is shown by a scenario that says so with `shows`, or says why it is not.

use scenario::load::Scenario;
use scenario::snapshot;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Why a case has no scenario.
pub enum Status {
    /// It has.
    Shown,
    /// What would be needed.
    Missing(&'static str),
}

/// A catalogue and its page.
pub struct Catalogue {
    /// Before the numbers of its cases.
    pub letter: char,
    /// Name, what happens, whether it is shown.
    pub cases: &'static [(&'static str, &'static str, Status)],
    /// The page, from the root of the repository.
    pub page: &'static str,
    /// What stands above its table.
    pub head: &'static str,
    /// Where its scenarios are, those that show other cases as well.
    pub directory: &'static str,
    /// The test that writes the page.
    pub test: &'static str,
}

fn root(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory)
}

impl Catalogue {
    /// Names of the scenarios by the case of this catalogue that they show.
    fn shown(&self) -> BTreeMap<String, Vec<String>> {
        let root = root("scenarios");
        let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in snapshot::scenario_files(&root).expect("there is a corpus") {
            let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            for case in scenario.file.shows.into_iter().filter(|case| case.starts_with(self.letter)) {
                shown.entry(case).or_default().push(snapshot::story_name(&root, &file));
            }
        }
        shown
    }

    /// Every case is shown or says why not, and nothing else is shown.
    pub fn check_cases(&self) {
        let shown = self.shown();
        let mut wrong = String::new();
        for case in shown.keys() {
            if !self.cases.iter().any(|(name, ..)| name == case) {
                let _ = writeln!(wrong, "{:?} show {case}, which is no case of the catalogue", shown[case]);
            }
        }
        for (name, _, status) in self.cases {
            match (status, shown.get(*name)) {
                (Status::Shown, None) => writeln!(wrong, "no scenario shows {name}").expect("a String takes all"),
                (Status::Missing(_), Some(scenarios)) => {
                    writeln!(wrong, "{scenarios:?} show {name} after all").expect("a String takes all")
                }
                _ => {}
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    /// A file named after a case shows it.
    pub fn check_names(&self) {
        let mut named = 0;
        for file in snapshot::scenario_files(&root(self.directory)).expect("there are scenarios") {
            let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name
                .strip_prefix(self.letter.to_ascii_lowercase())
                .and_then(|rest| rest.split('-').next())
                .and_then(|digits| digits.parse::<u32>().ok());
            let Some(number) = number else { continue };
            named += 1;
            let scenario = Scenario::load(&file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            assert!(scenario.file.shows.contains(&format!("{}{number}", self.letter)), "{} does not show what it says", file.display());
        }
        assert!(named > 10, "{named} scenarios are named after cases");
    }

    /// The page is the table with the scenarios.
    pub fn check_page(&self) {
        let shown = self.shown();
        let command = format!("UPDATE_DOCS=1 cargo test -p trapline-scenario --test {}", self.test);
        let mut page =
            format!("{}\nThis page is written by a test: `{command}`.\n\n| case | what happens | scenarios |\n|---|---|---|\n", self.head);
        for (name, what, status) in self.cases {
            let scenarios = shown.get(*name).map(|list| list.iter().map(|story| format!("`{story}`")).collect::<Vec<_>>().join(", "));
            let cell = match status {
                Status::Shown => scenarios.unwrap_or_default(),
                Status::Missing(why) => format!("none: {why}"),
            };
            let _ = writeln!(page, "| {name} | {what} | {cell} |");
        }
        let file = root(self.page);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &page).expect("the page can be written");
        }
        let current = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(current == page, "{} is not current: {command}", self.page);
    }
}
