//! Integer instructions that have no handler of their own.

use super::Entry;
use iced_x86::Instruction;

/// The function of an instruction of this module.
pub(crate) fn find(_: &Instruction) -> Option<Entry> {
    None
}
