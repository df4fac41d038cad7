//! The named words of a VMCB, each small enough for one number: what a rule reads, a dump shows and a person asks for.
//!
//! Modelled: every named field of both areas, from the tables of [`super::vmcb`]: a segment register is four words (`CS.ATTRIB`), the intercepts
//! are six (`INTERCEPTS[4]`), anything else longer than eight bytes is words of eight (`PERF_CTL_CTR[0]`), the last of them perhaps shorter.
//! Not modelled: reserved bytes, which have no name.

use super::layout::Field;
use super::vmcb::{ControlArea, SaveArea};
use std::sync::LazyLock;

/// One word of a VMCB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmcbField {
    /// The manual's name, with the part of a composite field.
    pub name: String,
    /// Bytes from the start of the VMCB.
    pub offset: usize,
    /// Width in bytes, 1 to 8.
    pub bytes: usize,
}

/// Offset of the state save area in a VMCB.
const SAVE_AREA: usize = 0x400;

/// The parts of a segment register in the save area: name, offset, bytes. APM volume 2, appendix B, table B-2.
const SEGMENT_PARTS: [(&str, usize, usize); 4] = [("SELECTOR", 0, 2), ("ATTRIB", 2, 2), ("LIMIT", 4, 4), ("BASE", 8, 8)];

static ALL: LazyLock<Vec<VmcbField>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for field in ControlArea::FIELDS {
        words(field, 0, &mut all);
    }
    for field in SaveArea::FIELDS {
        words(field, SAVE_AREA, &mut all);
    }
    all
});

fn words(field: &Field, area: usize, all: &mut Vec<VmcbField>) {
    let start = area + field.offset;
    if field.size <= 8 {
        all.push(VmcbField { name: field.name.to_owned(), offset: start, bytes: field.size });
    } else if field.size == 16 {
        let part = |(part, offset, bytes)| VmcbField { name: format!("{}.{part}", field.name), offset: start + offset, bytes };
        all.extend(SEGMENT_PARTS.map(part));
    } else {
        let step = if field.name == "INTERCEPTS" { 4 } else { 8 };
        let word = |(index, offset): (usize, usize)| VmcbField {
            name: format!("{}[{index}]", field.name),
            offset: start + offset,
            bytes: step.min(field.size - offset),
        };
        all.extend((0..field.size).step_by(step).enumerate().map(word));
    }
}

impl VmcbField {
    /// Every word, by rising offset.
    #[must_use]
    pub fn all() -> &'static [VmcbField] {
        &ALL
    }

    /// The word of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static VmcbField> {
        ALL.iter().find(|field| field.name == name)
    }

    /// The bits that the word can hold.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes)
    }

    /// The word's value in the bytes of a VMCB; zero where they end before it.
    #[must_use]
    pub fn get(&self, vmcb: &[u8]) -> u64 {
        let bytes = vmcb.get(self.offset..self.offset + self.bytes).unwrap_or_default();
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// Sets the word in the bytes of a VMCB, cut to its width; does nothing where they end before it.
    pub fn set(&self, vmcb: &mut [u8], value: u64) {
        if let Some(bytes) = vmcb.get_mut(self.offset..self.offset + self.bytes) {
            for (place, byte) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *place = byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::Vmcb;
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn words_rise_and_names_are_unique() {
        assert!(ALL.is_sorted_by(|a, b| a.offset + a.bytes <= b.offset));
        let mut names: Vec<_> = ALL.iter().map(|field| &field.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn parts_are_where_the_structure_has_them() {
        let mut vmcb = Vmcb::zeroed();
        vmcb.save.cs.attributes = vmcb.save.cs.attributes.with_long(true);
        vmcb.save.tr.limit = 0x1234_5678;
        vmcb.control.intercepts.0[4] = 1;
        vmcb.control.guest_asid = 9;
        for (name, value) in [("CS.ATTRIB", 0x200), ("TR.LIMIT", 0x1234_5678), ("INTERCEPTS[4]", 1), ("GUEST_ASID", 9)] {
            assert_eq!(VmcbField::find(name).unwrap().get(vmcb.as_bytes()), value, "{name}");
        }
    }

    #[test]
    fn a_word_is_set_and_nothing_beside_it() {
        for field in VmcbField::all() {
            let mut bytes = vec![0; crate::svm::VMCB_SIZE];
            field.set(&mut bytes, u64::MAX);
            assert_eq!(field.get(&bytes), field.mask(), "{}", field.name);
            assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), field.bytes);
            assert!(Vmcb::read_from_bytes(&bytes).is_ok());
        }
    }
}
