//! Numbers as a scenario writes them: decimal, hexadecimal in a string, with a unit, or by the name of a label.
//!
//! JSON has no hexadecimal and loses integers above 2^53 in many readers, so every number that is an address, a value or a size may be
//! a string. Digits may be grouped with `_`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A size in bytes: an integer, or a string with a unit, for example `"16M"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A 64-bit value or address: an integer, a string such as `"0x1000"` or `"-1000"`, or a label of the guest with an offset, `"site+3"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A number; negative ones in two's complement.
    Number(u64),
    /// A label of the guest and what is added to it.
    Label {
        /// The label's name.
        name: String,
        /// Added to its address, wrapping.
        offset: u64,
    },
}

/// One text or a list of lines; assembly is either, because JSON strings cannot span lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(pub Vec<String>);

/// Reads digits, decimal or hexadecimal, possibly negative.
pub fn parse_number(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => (rest, 16),
        None => (digits, 10),
    };
    if digits.starts_with('_') || digits.starts_with('+') || digits.len() > 80 {
        return None;
    }
    let magnitude = u64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    match negative {
        false => Some(magnitude),
        true if magnitude <= 1 << 63 => Some(magnitude.wrapping_neg()),
        true => None,
    }
}

impl Size {
    /// Reads `"4096"`, `"0x1000"`, `"4K"`, `"16M"`, `"1G"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, shift) = match text.char_indices().last()? {
            (at, 'K' | 'k') => (&text[..at], 10),
            (at, 'M' | 'm') => (&text[..at], 20),
            (at, 'G' | 'g') => (&text[..at], 30),
            _ => (text, 0),
        };
        if digits.starts_with('-') {
            return None;
        }
        let number = parse_number(digits)?;
        let bytes = number.checked_mul(1 << shift)?;
        Some(Self(bytes))
    }
}

impl Quantity {
    /// Reads a number, or a label with an optional `+offset` or `-offset`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(number) = parse_number(text) {
            return Some(Self::Number(number));
        }
        let (name, offset) = match text.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')) {
            Some((at, sign)) => {
                let magnitude = parse_number(text[at + 1..].trim()).filter(|_| !text[at + 1..].trim().starts_with('-'))?;
                (text[..at].trim(), if sign == '-' { magnitude.wrapping_neg() } else { magnitude })
            }
            None => (text, 0),
        };
        let first_fits = name.chars().next().is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | '.' | '$' | '?' | '@'));
        let rest_fits = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '?' | '@' | '#' | '~'));
        (first_fits && rest_fits && name.len() <= 256).then(|| Self::Label { name: name.to_owned(), offset })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Number(number) => write!(f, "{number:#x}"),
            Quantity::Label { name, offset: 0 } => f.write_str(name),
            Quantity::Label { name, offset } if *offset > i64::MAX as u64 => {
                write!(f, "{name}-{:#x}", offset.wrapping_neg())
            }
            Quantity::Label { name, offset } => write!(f, "{name}+{offset:#x}"),
        }
    }
}

/// What a [`Size`] looks like, for messages.
pub const SIZE_FORMAT: &str = "a size: 65536, \"0x10000\", \"64K\", \"16M\" or \"1G\"";
/// What a [`Quantity`] looks like, for messages.
pub const QUANTITY_FORMAT: &str = "a number such as 4096, \"0x1000\" or \"-1\", or a label of the guest such as \"site\" or \"site+3\"";

macro_rules! number_or_text {
    ($type:ident, $expecting:expr, $from_integer:expr, $name:literal, $format:literal, $minimum:expr, $description:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl Visitor<'_> for Reader {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        Ok($from_integer(number))
                    }
                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        if number < $minimum {
                            return Err(E::custom($expecting));
                        }
                        Ok($from_integer(number as u64))
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).ok_or_else(|| E::custom($expecting))
                    }
                }
                deserializer.deserialize_any(Reader)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": $description,
                    "type": ["integer", "string"],
                    "minimum": $minimum,
                    "format": $format,
                })
            }
        }
    };
}

number_or_text!(
    Size,
    SIZE_FORMAT,
    Size,
    "Size",
    "size",
    0_i64,
    "A size in bytes: an integer, or a string with a unit: \"64K\", \"16M\", \"1G\"."
);
number_or_text!(
    Quantity,
    QUANTITY_FORMAT,
    Quantity::Number,
    "Quantity",
    "quantity",
    i64::MIN,
    "A 64-bit value or address: an integer, a string such as \"0x1000\" or \"-1000\", or a label of the guest with an offset: \"site\", \"site+3\"."
);

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Lines;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of lines")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Lines, E> {
                Ok(Lines(vec![text.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut elements: A) -> Result<Lines, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = elements.next_element()? {
                    lines.push(line);
                }
                Ok(Lines(lines))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for Lines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Lines {
    fn schema_name() -> Cow<'static, str> {
        "Lines".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One text, or a list of lines.",
            "type": ["string", "array"],
            "items": { "type": "string" },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let label = |name: &str, offset: u64| Some(Quantity::Label { name: name.into(), offset });
        for (text, expected) in [
            ("16", Some(Quantity::Number(16))),
            ("0x10", Some(Quantity::Number(16))),
            ("0xffff_ffff_ffff_ffff", Some(Quantity::Number(u64::MAX))),
            ("-1", Some(Quantity::Number(u64::MAX))),
            ("-9223372036854775808", Some(Quantity::Number(1 << 63))),
            ("-9223372036854775809", None),
            ("0x1_0000_0000_0000_0000", None),
            ("site", label("site", 0)),
            (".loop", label(".loop", 0)),
            ("site+3", label("site", 3)),
            ("site - 0x10", label("site", 16_u64.wrapping_neg())),
            ("site+", None),
            ("site+-1", None),
            ("4K", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(Quantity::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("4K", Some(4096)),
            ("16M", Some(16 << 20)),
            ("1G", Some(1 << 30)),
            ("-4K", None),
            ("K", None),
            ("99999999999G", None),
        ] {
            assert_eq!(Size::parse(text).map(|size| size.0), expected, "{text}");
        }
    }
}
