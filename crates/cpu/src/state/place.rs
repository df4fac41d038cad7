//! A processor made where it stays.
//!
//! Its tables for the host (see [`crate::tlb`]) are most of it, a quarter of a megabyte, and begin empty. Made like any other value it would
//! be put together on the stack and copied; here the allocator gives memory of zeros, which is what empty tables consist of, and the other
//! fields are written into it. Pages of the tables that nobody uses are never touched.

#![expect(unsafe_code, reason = "a value is made of zeros and of its fields one by one")]

use super::Cpu;
use std::mem::MaybeUninit;

/// Memory of zeros for a processor.
pub(super) fn zeros() -> Box<MaybeUninit<Cpu>> {
    Box::new_zeroed()
}

/// The processor whose fields were written.
///
/// # Safety
/// Every field was written but those of which zeros are a value. [`place!`] sees to it.
pub(super) unsafe fn made(place: Box<MaybeUninit<Cpu>>) -> Box<Cpu> {
    // SAFETY: the caller's promise.
    unsafe { place.assume_init() }
}

/// A `Box<Cpu>` of fields, all but the two tables, which are empty.
macro_rules! place {
    ($($field:ident: $value:expr),+ $(,)?) => {{
        let mut place = $crate::state::place::zeros();
        let cpu = place.as_mut_ptr();
        $(
            let value = $value;
            #[expect(unsafe_code, reason = "see `state::place`")]
            // SAFETY: `cpu` points to memory for a `Cpu` that is this function's own; nothing is read.
            let () = unsafe { (&raw mut (*cpu).$field).write(value) };
        )+
        // A field that was left out would be missing here.
        let _ = |Cpu { software_tlb: _, jumps: _, $($field: _),+ }: Cpu| ();
        #[expect(unsafe_code, reason = "see `state::place`")]
        // SAFETY: all fields are written but the two tables, which are arrays of integers and raw pointers, and integers.
        let cpu = unsafe { $crate::state::place::made(place) };
        cpu
    }};
}
pub(super) use place;
