//! JSON text to a tree in which every value, key and character knows where it stood.
//!
//! serde_json tells the place of a syntax error only; a scenario's author must be shown the place of every other mistake as well. The
//! grammar is RFC 8259, and `//` comments to the end of a line are allowed. Depth and size are bounded, because files may be hostile.
//! Not modelled: numbers beyond what `serde_json::Number` keeps (integers of 64 bits, and floating point).

use serde_json::{Map, Number, Value};
use std::ops::Range;

/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;
/// The largest text that is read, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// A value and the bytes of the text it stands in.
#[derive(Clone, Debug)]
pub struct Node {
    /// From its first byte to after its last.
    pub span: Range<usize>,
    /// What it is.
    pub kind: NodeKind,
}

/// The value of a [`Node`].
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// Any number.
    Number(Number),
    /// A string, its escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Node>),
    /// An object, its members in the order of the text; keys are unique.
    Object(Vec<Member>),
}

/// A key of an object and its value.
#[derive(Clone, Debug)]
pub struct Member {
    /// The key, its escapes resolved.
    pub key: String,
    /// Where the key stands, quotes included.
    pub key_span: Range<usize>,
    /// Its value.
    pub value: Node,
}

/// Why a text is no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    /// What is wrong, in words.
    pub message: String,
    /// Where.
    pub span: Range<usize>,
    /// An earlier place that matters: the first of two equal keys.
    pub related: Option<Range<usize>>,
}

impl Node {
    /// What the value is called in messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null => "null",
            NodeKind::Boolean(_) => "a boolean",
            NodeKind::Number(number) if number.is_f64() => match number.as_f64() {
                Some(value) if value.abs() >= 9.3e18 => "a number beyond 64 bits",
                Some(value) if value.fract() == 0.0 => "a number with an exponent or a fraction",
                _ => "a number with a fraction",
            },
            NodeKind::Number(_) => "an integer",
            NodeKind::String(_) => "a string",
            NodeKind::Array(_) => "an array",
            NodeKind::Object(_) => "an object",
        }
    }

    /// The member of an object with this key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.value),
            _ => None,
        }
    }

    /// The element of an array at this index.
    pub fn element(&self, index: usize) -> Option<&Node> {
        match &self.kind {
            NodeKind::Array(elements) => elements.get(index),
            _ => None,
        }
    }

    /// The same value without its places.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Boolean(value) => Value::Bool(*value),
            NodeKind::Number(value) => Value::Number(value.clone()),
            NodeKind::String(value) => Value::String(value.clone()),
            NodeKind::Array(elements) => Value::Array(elements.iter().map(Node::to_value).collect()),
            NodeKind::Object(members) => {
                Value::Object(members.iter().map(|member| (member.key.clone(), member.value.to_value())).collect::<Map<_, _>>())
            }
        }
    }
}

/// Where the bytes `range` of a string's resolved text stand in `source`, if `span` is that string with its quotes.
pub fn inside_string(source: &str, span: &Range<usize>, range: Range<usize>) -> Range<usize> {
    let body = span.start + 1..span.end.saturating_sub(1).max(span.start + 1);
    let mut resolved = 0;
    let mut at = body.start;
    let mut start = None;
    let raw = source.as_bytes();
    while at < body.end {
        if resolved >= range.start && start.is_none() {
            start = Some(at);
        }
        if resolved >= range.end {
            break;
        }
        let (raw_length, resolved_length) = match (raw[at], raw.get(at + 1)) {
            (b'\\', Some(b'u')) => match source.get(at..body.end).and_then(unicode_escape) {
                Some((character, length)) => (length, character.len_utf8()),
                None => (6, 1),
            },
            (b'\\', _) => (2, 1),
            _ => (1, 1),
        };
        at += raw_length;
        resolved += resolved_length;
    }
    let at = at.min(body.end);
    let start = start.unwrap_or(at);
    start..at.max(start)
}

/// The character of `\uXXXX`, or of a surrogate pair of them, at the start of `text`, and how many bytes it takes there.
fn unicode_escape(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, 6));
    }
    let pair = [first, unit(6)?];
    let character = char::decode_utf16(pair).next()?.ok()?;
    Some((character, 12))
}

/// Reads a whole text.
pub fn parse(text: &str) -> Result<Node, JsonError> {
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0 };
    if text.len() > MAX_SIZE {
        return Err(parser.error(0..0, format!("the file has {} bytes; at most {MAX_SIZE} are read", text.len())));
    }
    if text.starts_with('\u{feff}') {
        parser.at = '\u{feff}'.len_utf8();
    }
    let node = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error_here("text after the end of the JSON value"));
    }
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, span: Range<usize>, message: impl Into<String>) -> JsonError {
        JsonError { message: message.into(), span, related: None }
    }

    /// An error about the character at the cursor.
    fn error_here(&self, message: impl Into<String>) -> JsonError {
        let length = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        self.error(self.at..self.at + length, message)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'/' if self.bytes.get(self.at + 1) == Some(&b'/') => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, JsonError> {
        self.space();
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(self.error_here(format!("nested more than {MAX_DEPTH} deep")));
        }
        let kind = match self.peek() {
            None => return Err(self.error_here("the file ends where a value should stand")),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => NodeKind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
        };
        Ok(Node { span: start..self.at, kind })
    }

    fn word(&mut self) -> Result<NodeKind, JsonError> {
        let start = self.at;
        let length = self.text[start..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.text.len() - start);
        let kind = match &self.text[start..start + length] {
            "null" => NodeKind::Null,
            "true" => NodeKind::Boolean(true),
            "false" => NodeKind::Boolean(false),
            "" => return Err(self.error_here("a value should stand here")),
            word => {
                let shown: String = word.chars().take(20).collect();
                return Err(self.error(start..start + length, format!("`{shown}` is no JSON value; strings need double quotes")));
            }
        };
        self.at += length;
        Ok(kind)
    }

    fn number(&mut self) -> Result<NodeKind, JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')) {
            self.at += 1;
        }
        let span = start..self.at;
        let text = &self.text[span.clone()];
        serde_json::from_str::<Number>(text).map(NodeKind::Number).map_err(|_| {
            let what =
                if text.starts_with("0x") { "JSON has no hexadecimal numbers; write it as a string" } else { "this is no JSON number" };
            self.error(span, what)
        })
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let run = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
                self.at += 1;
            }
            text += &self.text[run..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    let character = match self.bytes.get(self.at + 1) {
                        Some(b'"') => '"',
                        Some(b'\\') => '\\',
                        Some(b'/') => '/',
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => match unicode_escape(&self.text[self.at..]) {
                            Some((character, length)) => {
                                self.at += length - 2;
                                character
                            }
                            None => {
                                return Err(self.error(self.at..self.at + 2, "`\\u` needs four hexadecimal digits that make a character"));
                            }
                        },
                        _ => {
                            return Err(self.error(self.at..self.at + 1, "unknown escape in a string"));
                        }
                    };
                    self.at += 2;
                    text.push(character);
                }
                Some(b'\n' | b'\r') | None => {
                    return Err(self.error(start..self.at, "this string has no closing quote on its line"));
                }
                Some(_) => {
                    return Err(self.error_here("control characters must be escaped in a string"));
                }
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<NodeKind, JsonError> {
        self.at += 1;
        let mut elements = Vec::new();
        loop {
            self.space();
            if self.peek() == Some(b']') {
                if elements.is_empty() {
                    break;
                }
                return Err(self.error_here("a value should follow the comma"));
            }
            elements.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error_here("expected `,` or `]`")),
            }
        }
        self.at += 1;
        Ok(NodeKind::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Result<NodeKind, JsonError> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        let mut keys = std::collections::BTreeMap::new();
        loop {
            self.space();
            if self.peek() == Some(b'}') && members.is_empty() {
                break;
            }
            if self.peek() != Some(b'"') {
                return Err(self.error_here("expected a key in double quotes"));
            }
            let start = self.at;
            let key = self.string()?;
            let key_span = start..self.at;
            if let Some(first) = keys.insert(key.clone(), key_span.clone()) {
                let shown: String = key.chars().take(40).collect();
                return Err(JsonError { message: format!("duplicate key `{shown}`"), span: key_span, related: Some(first) });
            }
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error_here("expected `:` after the key"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            members.push(Member { key, key_span, value });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error_here("expected `,` or `}`")),
            }
        }
        self.at += 1;
        Ok(NodeKind::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_with_serde_json() {
        for text in [
            r#"{"a": [1, -2, 3.5, 1e3, true, false, null], "b": {"c": "x\n\u00e9\ud83d\ude00\"\\"}, "": []}"#,
            "[18446744073709551615, -9223372036854775808]",
            "\"\"",
            " {} ",
        ] {
            let value: Value = serde_json::from_str(text).expect("the example is JSON");
            assert_eq!(parse(text).expect("the example is JSON").to_value(), value);
        }
    }

    #[test]
    fn what_serde_json_refuses_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "0x10",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "tru",
            "1 2",
            "[1 2]",
            "\"\t\"",
            "-",
            "1.",
            "nul l",
        ] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
            let error = parse(text).expect_err(text);
            assert!(error.span.end <= text.len(), "{text}: {error:?}");
        }
    }

    #[test]
    fn duplicate_keys_show_both_places() {
        let error = parse(r#"{"a": 1, "a": 2}"#).expect_err("the key stands twice");
        assert_eq!((error.span, error.related), (9..12, Some(1..4)));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).expect_err("too deep").message.contains("nested more than"));
    }

    #[test]
    fn places_inside_a_string_count_escapes() {
        let text = r#"["ab\u00e9c\n\ud83d\ude00z"]"#;
        let node = parse(text).expect("JSON");
        let string = node.element(0).expect("one element");
        let NodeKind::String(resolved) = &string.kind else { panic!("a string") };
        for (wanted, raw) in [("ab", "ab"), ("\u{e9}", "\\u00e9"), ("c", "c"), ("\n", "\\n"), ("\u{1f600}", "\\ud83d\\ude00"), ("z", "z")] {
            let at = resolved.find(wanted).expect("in the string");
            let range = inside_string(text, &string.span, at..at + wanted.len());
            assert_eq!(&text[range], raw);
        }
    }

    #[test]
    fn comments_are_space() {
        assert_eq!(parse("// a story\n[1, // one\n2]").expect("JSON").to_value(), serde_json::json!([1, 2]));
    }
}
