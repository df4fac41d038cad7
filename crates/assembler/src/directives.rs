//! Data and space: `db` and its kind, `resb` and its kind, `align`.
//!
//! Modelled: numbers of 1, 2, 4 and 8 bytes, strings padded to a multiple of the item, floating-point numbers of 4 and 8
//! bytes, zero-filled space, alignment of the address (nasm aligns the offset, which is the same for aligned origins).
//! Not modelled: 10- and 16-byte items, uninitialised items (`?`), `incbin` and sections.

use crate::diagnostics::Diagnostic;
use crate::expression::{Cursor, Expression, ExpressionParser};
use crate::lexer::TokenKind;

/// One item of a data directive.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Text(Vec<u8>),
    Number(Expression),
    Float(f64),
}

/// A data directive.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    /// The size of an item, in bytes.
    pub(crate) width: usize,
    pub(crate) items: Vec<Item>,
}

/// What fills the gap before an aligned address.
#[derive(Clone, Debug)]
pub(crate) enum Fill {
    /// One-byte NOPs, nasm's default.
    Nops,
    Byte(Expression),
}

/// The item width of `db`, `resb` and the like.
pub(crate) fn item_width(letter: &str) -> Option<usize> {
    Some(match letter {
        "b" => 1,
        "w" => 2,
        "d" => 4,
        "q" => 8,
        _ => return None,
    })
}

impl Data {
    /// Parses the items behind a data directive.
    pub(crate) fn parse(width: usize, expressions: &mut ExpressionParser<'_>, cursor: &mut Cursor<'_, '_>) -> Result<Self, Diagnostic> {
        let mut items = Vec::new();
        loop {
            let ends = matches!(cursor.peek_at(1), None | Some(TokenKind::Mark(",")));
            let negative = matches!(cursor.peek(), Some(TokenKind::Mark("-")));
            match (cursor.peek(), cursor.peek_at(1)) {
                (Some(TokenKind::Text(text)), _) if ends => {
                    items.push(Item::Text(text.clone()));
                    cursor.at += 1;
                }
                (Some(TokenKind::Float(float)), _) if ends && width >= 4 => {
                    items.push(Item::Float(*float));
                    cursor.at += 1;
                }
                (Some(_), Some(TokenKind::Float(float))) if negative && width >= 4 => {
                    items.push(Item::Float(-float));
                    cursor.at += 2;
                }
                _ => items.push(Item::Number(expressions.parse(cursor)?)),
            }
            if !cursor.take_mark(",") {
                return Ok(Self { width, items });
            }
        }
    }

    /// The size in bytes, which no value changes.
    pub(crate) fn size(&self) -> u64 {
        let sizes = self.items.iter().map(|item| match item {
            Item::Text(text) => text.len().next_multiple_of(self.width),
            Item::Number(_) | Item::Float(_) => self.width,
        });
        sizes.sum::<usize>() as u64
    }
}

/// Whether a number can be stored in `width` bytes, signed or unsigned.
pub(crate) fn fits(number: i64, width: usize) -> bool {
    match width {
        1 => (-0x80..=0xff).contains(&number),
        2 => (-0x8000..=0xffff).contains(&number),
        4 => (-0x8000_0000..=0xffff_ffff).contains(&number),
        _ => true,
    }
}
