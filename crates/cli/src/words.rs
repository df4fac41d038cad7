//! Options whose values are words of scenario files: what they are and mean is told there alone.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use models::MODELS;
use scenario::schema::{self, Word};

/// Reads the words of a type, but for some.
pub fn parser<T: Word>(without: &'static [&'static str]) -> impl TypedValueParser<Value = T> {
    let words = schema::words::<T>().into_iter().filter(|(word, _)| !without.contains(&word.as_str()));
    // They live as long as the command, which makes each parser once.
    let values = words.map(|(word, meaning)| PossibleValue::new(&*word.leak()).help(&*meaning.trim_end_matches('.').to_owned().leak()));
    PossibleValuesParser::new(values).try_map(|word| serde_json::from_value(word.into()))
}

/// Reads the name of a CPU model, or one of some words besides, each with what it means.
pub fn model(besides: &'static [(&'static str, &'static str)]) -> PossibleValuesParser {
    let models = MODELS.iter().map(|model| (model.name, model.title));
    PossibleValuesParser::new(models.chain(besides.iter().copied()).map(|(word, meaning)| PossibleValue::new(word).help(meaning)))
}
