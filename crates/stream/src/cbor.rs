//! CBOR that may be decoded: a look at its shape before any of it is believed.
//!
//! The decoder would take a claimed length for granted here and there, and a tree of a few million empty arrays takes hundreds of times
//! their bytes. So the shape is checked first: every length within the bytes, nesting and number of items within bounds, one item and no more.

use crate::error::Problem;
use crate::{MAXIMUM_VALUE_DEPTH, MAXIMUM_VALUE_ITEMS};

fn malformed(at: usize, what: &str) -> Problem {
    Problem::Value(format!("malformed CBOR at byte {at} of the contents: {what}; it was damaged before its checksum was made"))
}

/// Checks the shape of one item that must be all of the bytes. RFC 8949, 3 "Specification of the CBOR Encoding".
pub(crate) fn check(bytes: &[u8]) -> Result<(), Problem> {
    // How many items each open array, map or tag still wants.
    let mut open: Vec<u64> = vec![1];
    let mut at = 0;
    let mut items = 0;
    while let Some(wanted) = open.last_mut() {
        if *wanted == 0 {
            open.pop();
            continue;
        }
        *wanted -= 1;
        items += 1;
        if items > MAXIMUM_VALUE_ITEMS {
            return Err(Problem::TooMuch { what: "data items", found: items, limit: MAXIMUM_VALUE_ITEMS });
        }
        let begin = at;
        let first = *bytes.get(at).ok_or_else(|| malformed(begin, "it ends too early"))?;
        at += 1;
        let (major, short) = (first >> 5, first & 0x1f);
        let argument = match short {
            0..24 => u64::from(short),
            24..28 => {
                let width = 1 << (short - 24);
                let field = bytes.get(at..at + width).ok_or_else(|| malformed(begin, "it ends too early"))?;
                at += width;
                field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            _ => return Err(malformed(begin, "an indefinite length, which is never written")),
        };
        let left = (bytes.len() - at) as u64;
        let inner = match major {
            0 | 1 | 7 => continue,
            2 | 3 if argument <= left => {
                at += argument as usize;
                continue;
            }
            4 if argument <= left => argument,
            5 if argument <= left / 2 => argument * 2,
            6 => 1,
            _ => return Err(malformed(begin, "a length beyond the end")),
        };
        if open.len() >= MAXIMUM_VALUE_DEPTH {
            return Err(Problem::TooMuch { what: "levels of nesting", found: open.len() as u64 + 1, limit: MAXIMUM_VALUE_DEPTH as u64 });
        }
        open.push(inner);
    }
    if at == bytes.len() { Ok(()) } else { Err(malformed(at, "bytes follow the value")) }
}
