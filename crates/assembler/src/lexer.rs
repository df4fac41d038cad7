//! Cuts one source line into words, numbers, strings and punctuation.
//!
//! Modelled: nasm's number notations, three kinds of quotes (escapes in back quotes only), `;` and `#` comments.
//! Not modelled: line continuation and the preprocessor.

use crate::diagnostics::Diagnostic;
use std::ops::Range;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind<'a> {
    /// A name, mnemonic, register, keyword, `$` or `$$`.
    Word(&'a str),
    /// An integer.
    Number(u64),
    /// A number with a decimal point or exponent.
    Float(f64),
    /// The bytes between quotes.
    Text(Vec<u8>),
    /// An operator or separator.
    Mark(&'static str),
}

/// A token and the bytes of the source it stands on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind<'a>,
    pub(crate) span: Range<usize>,
}

/// Operators and separators, longer ones first.
const MARKS: [&str; 23] =
    ["<<", ">>", "//", "%%", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "(", ")", "[", "]", ",", ":", "=", "{", "}"];

/// The tokens of the line at `range` of `source`, or the first thing in it that is no token.
pub(crate) fn tokens(source: &str, range: Range<usize>) -> Result<Vec<Token<'_>>, Diagnostic> {
    let bytes = source.as_bytes();
    let mut at = range.start;
    let mut found = Vec::new();
    while at < range.end {
        let start = at;
        let byte = bytes[at];
        let kind = match byte {
            b';' | b'#' => break,
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                at = number_end(bytes, at, range.end);
                number(&source[start..at]).ok_or_else(|| {
                    Diagnostic::new(start..at, format!("`{}` is not a number that fits in 64 bits", &source[start..at]))
                        .with_help("numbers are written 255, 0xff, 0ffh, 0b1111_1111, 11111111b, 377o or 1.5")
                })?
            }
            b'\'' | b'"' => {
                let length = bytes[at + 1..range.end].iter().position(|&other| other == byte);
                let length = length.ok_or_else(|| open_quote(start, range.end))?;
                at += length + 2;
                TokenKind::Text(bytes[start + 1..at - 1].to_vec())
            }
            b'`' => {
                let (text, end) = escaped(bytes, at, range.end)?;
                at = end;
                TokenKind::Text(text)
            }
            b'$' => {
                at += 1 + usize::from(bytes.get(at + 1) == Some(&b'$') && at + 1 < range.end);
                TokenKind::Word(&source[start..at])
            }
            _ if is_word_start(byte) => {
                while at < range.end && is_word_part(bytes[at]) {
                    at += 1;
                }
                TokenKind::Word(&source[start..at])
            }
            _ => {
                let Some(mark) = MARKS.iter().find(|mark| bytes[at..range.end].starts_with(mark.as_bytes())) else {
                    let shown = source[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(Diagnostic::new(start..start + shown.len_utf8(), format!("unexpected character {shown:?}")));
                };
                at += mark.len();
                TokenKind::Mark(mark)
            }
        };
        found.push(Token { kind, span: start..at });
    }
    Ok(found)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'.' | b'?' | b'@')
}

fn is_word_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'?' | b'@' | b'$')
}

fn open_quote(start: usize, end: usize) -> Diagnostic {
    Diagnostic::new(start..end, "the closing quote is missing on this line")
}

/// Where the number that starts at `at` ends: `1.5e-3` has a sign inside, nothing else does.
fn number_end(bytes: &[u8], mut at: usize, end: usize) -> usize {
    let start = at;
    let mut float = false;
    while at < end {
        let byte = bytes[at];
        if byte == b'.' {
            float = true;
        } else if (byte == b'-' || byte == b'+') && float && matches!(bytes[at - 1], b'e' | b'E') && at > start {
            // The exponent's sign.
        } else if !(byte.is_ascii_alphanumeric() || byte == b'_') {
            break;
        }
        at += 1;
    }
    at
}

/// The value of a number as nasm reads it, if it is one.
fn number(text: &str) -> Option<TokenKind<'static>> {
    let clean: String = text.chars().filter(|&c| c != '_').collect::<String>().to_ascii_lowercase();
    if clean.contains('.') {
        return clean.parse().ok().map(TokenKind::Float);
    }
    let whole = |digits: &str, radix: u32| -> Option<TokenKind<'static>> {
        // `from_str_radix` would take a sign, which is an operator here.
        (digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) && !digits.is_empty())
            .then(|| u64::from_str_radix(digits, radix).ok().map(TokenKind::Number))
            .flatten()
    };
    let with_prefix = |radix: u32| clean.get(2..).and_then(|digits| whole(digits, radix));
    let with_suffix = |radix: u32| clean.get(..clean.len() - 1).and_then(|digits| whole(digits, radix));
    let by_prefix = match clean.get(..2) {
        Some("0x" | "0h") => with_prefix(16),
        Some("0b" | "0y") => with_prefix(2),
        Some("0o" | "0q") => with_prefix(8),
        Some("0d" | "0t") => with_prefix(10),
        _ => None,
    };
    let by_suffix = || match clean.as_bytes().last()? {
        b'h' => with_suffix(16),
        b'b' | b'y' => with_suffix(2),
        b'o' | b'q' => with_suffix(8),
        b'd' | b't' => with_suffix(10),
        _ => None,
    };
    by_prefix.or_else(by_suffix).or_else(|| whole(&clean, 10))
}

/// The bytes of a back-quoted string, with C escapes, and where it ends.
fn escaped(bytes: &[u8], start: usize, end: usize) -> Result<(Vec<u8>, usize), Diagnostic> {
    let mut at = start + 1;
    let mut text = Vec::new();
    while at < end {
        match bytes[at] {
            b'`' => return Ok((text, at + 1)),
            b'\\' if at + 1 < end => {
                at += 2;
                text.push(match bytes[at - 1] {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'0' => 0,
                    b'a' => 7,
                    b'b' => 8,
                    b'v' => 11,
                    b'f' => 12,
                    b'e' => 27,
                    quoted @ (b'\\' | b'\'' | b'"' | b'`' | b'?') => quoted,
                    b'x' => {
                        let digits = bytes[at..end].iter().take(2).take_while(|byte| byte.is_ascii_hexdigit());
                        let digits: String = digits.map(|&byte| char::from(byte)).collect();
                        let value = u8::from_str_radix(&digits, 16)
                            .map_err(|_| Diagnostic::new(at - 2..at, "`\\x` needs one or two hexadecimal digits"))?;
                        at += digits.len();
                        value
                    }
                    _ => {
                        return Err(Diagnostic::new(at - 2..at, "unknown escape in a back-quoted string")
                            .with_help("known are \\n \\r \\t \\0 \\a \\b \\v \\f \\e \\xNN \\\\ \\' \\\" \\` \\?"));
                    }
                });
            }
            byte => {
                text.push(byte);
                at += 1;
            }
        }
    }
    Err(open_quote(start, end))
}
