//! Names that a person writes: compared without case and separators, and the nearest one for "did you mean".
//!
//! Modelled: Levenshtein distance over short names. Not modelled: anything about long texts; they are cut.

/// Longest name that is compared, in characters.
const LONGEST: usize = 64;

/// The characters of a name without what people write differently: case, spaces, `_`, `-`, `/` and quotation marks.
fn characters(name: &str) -> impl Iterator<Item = char> {
    let dropped = |character: char| matches!(character, ' ' | '_' | '-' | '/' | '"' | '(' | ')');
    name.chars().take(4 * LONGEST).filter(move |&character| !dropped(character)).flat_map(char::to_lowercase)
}

/// A name without what people write differently.
pub fn plain(name: &str) -> String {
    characters(name).collect()
}

/// Whether this is what a name is without what people write differently.
pub fn is_plain_of(plain: &str, name: &str) -> bool {
    characters(name).eq(plain.chars())
}

/// The number of single-character changes between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, left) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

/// The names most like what was written, the most alike first: those that contain it, and those a few typing errors away.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let written = plain(written);
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let candidate = plain(name);
            let errors = distance(&written, &candidate);
            let contained = written.len() >= 3 && candidate.contains(&written);
            let score = if contained && errors > 0 { 1 + (candidate.len() - written.len()) / 16 } else { errors };
            (contained || errors <= 1 + written.chars().count() / 4).then_some((score, name))
        })
        .collect();
    scored.sort();
    scored.dedup_by(|a, b| a.1 == b.1);
    let best = scored.first().map_or(0, |(score, _)| *score);
    scored.retain(|(score, _)| *score == best);
    scored.into_iter().take(most).map(|(_, name)| name).collect()
}

/// The sentence that goes with [`nearest`], with a space in front; empty if nothing is near.
pub fn did_you_mean<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near: Vec<String> = nearest(written, names, 3).iter().map(|name| format!("`{name}`")).collect();
    match near.split_last() {
        None => String::new(),
        Some((only, [])) => format!(" Did you mean {only}?"),
        Some((last, others)) => format!(" Did you mean {} or {last}?", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_and_parts_are_found() {
        let names = ["GuestCr0", "GuestCr4", "HostCr4", "EptPointer", "GuestRip"];
        assert_eq!(nearest("guest_cr4", names.into_iter(), 1), ["GuestCr4"]);
        assert_eq!(nearest("EptPionter", names.into_iter(), 3), ["EptPointer"]);
        assert_eq!(nearest("cr4", names.into_iter(), 2), ["GuestCr4", "HostCr4"]);
        assert_eq!(nearest("completely different", names.into_iter(), 3), [""; 0]);
        assert_eq!(did_you_mean("GuestRp", names.into_iter()), " Did you mean `GuestRip`?");
    }
}
