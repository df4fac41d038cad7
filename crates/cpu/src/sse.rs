//! SSE and SSE2, MXCSR, FXSAVE and XSAVE.

pub(crate) mod double;

use crate::system::Entry;
use iced_x86::Instruction;

/// The function of an SSE, MXCSR or state-saving instruction that has no handler of its own.
pub(crate) fn find(_: &Instruction) -> Option<Entry> {
    None
}
