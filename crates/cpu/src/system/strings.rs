//! String instructions and port input and output.

use super::Entry;
use iced_x86::Instruction;

/// The function of an instruction of this module.
pub(crate) fn find(_: &Instruction) -> Option<Entry> {
    None
}
