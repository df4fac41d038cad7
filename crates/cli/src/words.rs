//! Options whose values are words of scenario files: what they are and mean is told there alone.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use scenario::schema::{self, Word};

/// Reads the words of a type, but for some.
pub fn parser<T: Word>(without: &'static [&'static str]) -> impl TypedValueParser<Value = T> {
    let words = schema::words::<T>().into_iter().filter(|(word, _)| !without.contains(&word.as_str()));
    // They live as long as the command, which makes each parser once.
    let values = words.map(|(word, meaning)| PossibleValue::new(&*word.leak()).help(&*meaning.trim_end_matches('.').to_owned().leak()));
    PossibleValuesParser::new(values).try_map(|word| serde_json::from_value(word.into()))
}
