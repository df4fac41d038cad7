//! The segment registers of a guest in its VMCS: which fields hold which register.
//!
//! Modelled: SDM 25.4.1 "Guest Register State", one table for loading and saving. Not modelled: nothing of it.

use crate::vmcs::Vmcs;
use cpu::state::Cpu;
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector};
use isa::vmx::VmcsField;

/// The four fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFields {
    selector: VmcsField,
    base: VmcsField,
    limit: VmcsField,
    rights: VmcsField,
}

macro_rules! segment_fields {
    ($selector:ident $base:ident $limit:ident $rights:ident) => {
        SegmentFields { selector: VmcsField::$selector, base: VmcsField::$base, limit: VmcsField::$limit, rights: VmcsField::$rights }
    };
}

/// The fields of each segment register.
const SEGMENTS: [(Segment, SegmentFields); 6] = [
    (Segment::Es, segment_fields!(GuestEsSelector GuestEsBase GuestEsLimit GuestEsAccessRights)),
    (Segment::Cs, segment_fields!(GuestCsSelector GuestCsBase GuestCsLimit GuestCsAccessRights)),
    (Segment::Ss, segment_fields!(GuestSsSelector GuestSsBase GuestSsLimit GuestSsAccessRights)),
    (Segment::Ds, segment_fields!(GuestDsSelector GuestDsBase GuestDsLimit GuestDsAccessRights)),
    (Segment::Fs, segment_fields!(GuestFsSelector GuestFsBase GuestFsLimit GuestFsAccessRights)),
    (Segment::Gs, segment_fields!(GuestGsSelector GuestGsBase GuestGsLimit GuestGsAccessRights)),
];

/// The fields of LDTR.
const LDTR: SegmentFields = segment_fields!(GuestLdtrSelector GuestLdtrBase GuestLdtrLimit GuestLdtrAccessRights);
/// The fields of TR.
const TR: SegmentFields = segment_fields!(GuestTrSelector GuestTrBase GuestTrLimit GuestTrAccessRights);

/// Does something with the fields and the register of each row, written out so that the compiler knows the fields.
macro_rules! for_each {
    ($cpu:ident $($row:literal)*, |$fields:ident, $register:ident| $do:expr) => {
        $({
            const ROW: (Segment, SegmentFields) = SEGMENTS[$row];
            let ($fields, $register) = (ROW.1, &mut $cpu.segments[ROW.0 as usize]);
            $do;
        })*
        {
            let ($fields, $register) = (LDTR, &mut $cpu.ldtr);
            $do;
        }
        {
            let ($fields, $register) = (TR, &mut $cpu.tr);
            $do;
        }
    };
}

/// Loads every segment register, LDTR and TR.
pub(crate) fn load_all(vmcs: &Vmcs, cpu: &mut Cpu) {
    for_each!(cpu 0 1 2 3 4 5, |fields, register| *register = fields.load(vmcs));
}

/// Saves every segment register, LDTR and TR.
pub(crate) fn save_all(vmcs: &mut Vmcs, cpu: &mut Cpu) {
    for_each!(cpu 0 1 2 3 4 5, |fields, register| fields.save(vmcs, register));
}

impl SegmentFields {
    /// The register that the fields describe.
    #[inline(always)]
    fn load(self, vmcs: &Vmcs) -> SegmentRegister {
        SegmentRegister {
            selector: Selector::from_bits(vmcs.get(self.selector) as u16),
            base: vmcs.get(self.base),
            limit: vmcs.get(self.limit) as u32,
            attributes: Attributes::from_bits(vmcs.get(self.rights) as u32),
        }
    }

    /// Describes a register in the fields.
    #[inline(always)]
    fn save(self, vmcs: &mut Vmcs, register: &SegmentRegister) {
        // From one exit to the next most registers stay what they are.
        if self.load(vmcs) == *register {
            return;
        }
        vmcs.set(self.selector, register.selector.into_bits().into());
        vmcs.set(self.base, register.base);
        vmcs.set(self.limit, register.limit.into());
        vmcs.set(self.rights, register.attributes.into_bits().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_survives_its_fields() {
        let register = SegmentRegister {
            selector: Selector::from_bits(0x2b),
            base: 0x7fff_1234_5678,
            limit: 0xffff_ffff,
            attributes: Attributes::from_bits(0xc0f3),
        };
        let mut vmcs = Vmcs::default();
        for fields in SEGMENTS.into_iter().map(|(_, fields)| fields).chain([LDTR, TR]) {
            fields.save(&mut vmcs, &register);
        }
        for fields in SEGMENTS.into_iter().map(|(_, fields)| fields).chain([LDTR, TR]) {
            assert_eq!(fields.load(&vmcs), register);
        }
    }
}
