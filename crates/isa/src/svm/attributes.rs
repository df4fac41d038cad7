//! Segment attributes as the VMCB packs them: 12 bits of the descriptor without the limit between them.
//!
//! Manual: APM volume 2, 15.5.1 "Basic Operation", "Segment State in the VMCB", and 4.7 "Legacy Segment Descriptors".
//! What is modelled: the packed form and its conversion from and to [`crate::segment::Attributes`], the one form
//! that a segment register holds. What is not: the descriptor itself.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::segment::Attributes;

/// The attributes of a segment: descriptor bits 47:40 in bits 7:0, descriptor bits 55:52 in bits 11:8.
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SegmentAttributes {
    /// Type, 4 bits.
    #[bits(4)]
    pub segment_type: u8,
    /// S: a code or data segment, not a system segment.
    pub user: bool,
    /// Descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// P: present.
    pub present: bool,
    /// AVL: the software's own bit.
    pub available: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D or B: 32-bit default.
    pub default_big: bool,
    /// G: the limit counts 4 KiB.
    pub granularity: bool,
    #[bits(4)]
    __: u8,
}

/// The packed form has no "unusable": a segment that is not present stands for it, so P of an unusable one is lost.
impl From<Attributes> for SegmentAttributes {
    #[inline]
    fn from(attributes: Attributes) -> Self {
        let bits = attributes.into_bits();
        let packed = Self::from_bits((bits & 0xff | bits >> 4 & 0xf00) as u16);
        packed.with_present(packed.present() && !attributes.unusable())
    }
}

/// What is not present is unusable.
impl From<SegmentAttributes> for Attributes {
    #[inline]
    fn from(packed: SegmentAttributes) -> Self {
        let bits = u32::from(packed.into_bits());
        Self::from_bits(bits & 0xff | (bits & 0xf00) << 4).with_unusable(!packed.present())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_64_bit_code_is_0xa9b() {
        let code =
            SegmentAttributes::new().with_segment_type(0xb).with_user(true).with_present(true).with_long(true).with_granularity(true);
        assert_eq!(code.into_bits(), 0xa9b);
    }

    #[test]
    fn every_packed_form_survives_the_way_there_and_back() {
        for bits in 0..0x1000 {
            let packed = SegmentAttributes::from_bits(bits);
            assert_eq!(SegmentAttributes::from(Attributes::from(packed)), packed);
        }
    }

    #[test]
    fn only_the_present_bit_of_an_unusable_segment_is_lost() {
        for bits in (0..0x1_0000).filter(|bits| bits & 0xf00 == 0) {
            for unusable in [false, true] {
                let attributes = Attributes::from_bits(bits).with_unusable(unusable);
                let expected = attributes.with_p(attributes.p() && !unusable);
                let expected = expected.with_unusable(!expected.p());
                assert_eq!(Attributes::from(SegmentAttributes::from(attributes)), expected);
            }
        }
    }
}
