//! Checks on the guest's descriptor-table registers.
//!
//! Modelled: SDM 27.3.1.3, complete.

use crate::checks::checks;
use isa::paging::is_canonical;
use isa::vmx::VmcsField;

checks! {
    /// All checks of the phase, in our order.
    CHECKS, "27.3.1.3 Checks on Guest Descriptor-Table Registers";

    "guest-gdtr-base", "The base of GDTR is canonical", [GuestGdtrBase] => |e| is_canonical(e.get(VmcsField::GuestGdtrBase));
    "guest-idtr-base", "The base of IDTR is canonical", [GuestIdtrBase] => |e| is_canonical(e.get(VmcsField::GuestIdtrBase));
    "guest-gdtr-limit", "Bits 31:16 of the limit of GDTR are 0", [GuestGdtrLimit] => |e| e.get(VmcsField::GuestGdtrLimit) >> 16 == 0;
    "guest-idtr-limit", "Bits 31:16 of the limit of IDTR are 0", [GuestIdtrLimit] => |e| e.get(VmcsField::GuestIdtrLimit) >> 16 == 0;
}
