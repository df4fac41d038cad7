//! The two permission maps: one bit a port, two bits an MSR.
//!
//! Manual: APM volume 2, 15.10.1 "I/O Permissions Map" and 15.11 "MSR Intercepts", table 15-8 "MSR Ranges Covered by
//! MSRPM".
//! What is modelled: where the bits lie, and what an access outside the map means. The maps stay in guest memory:
//! reading them is the caller's.

/// Bytes of the I/O permission map: three pages, of which the third holds the bits past port FFFFh.
pub const IOPM_SIZE: u64 = 0x3000;
/// Bytes of the MSR permission map: two pages.
pub const MSRPM_SIZE: u64 = 0x2000;

/// Where in the I/O permission map the bits of an access lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPermissions {
    /// Byte offset of the first of the two bytes that hold the bits.
    pub offset: u64,
    /// The bits within the two bytes, as a little-endian word.
    pub mask: u16,
}

impl IoPermissions {
    /// The bits of an access of `size` bytes (1, 2 or 4) at `port`.
    ///
    /// An access past FFFFh uses the bits after the last port's: the map has three pages for that.
    #[must_use]
    pub const fn of(port: u16, size: u8) -> Self {
        let size = if size > 4 { 4 } else { size };
        Self { offset: port as u64 / 8, mask: ((1 << size) - 1) << (port % 8) }
    }

    /// Whether the access is intercepted, given the two bytes at [`Self::offset`].
    #[must_use]
    pub const fn intercepts(self, bytes: [u8; 2]) -> bool {
        u16::from_le_bytes(bytes) & self.mask != 0
    }
}

/// Where in the MSR permission map the bits of an MSR lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrPermissions {
    /// Byte offset.
    pub offset: u64,
    /// The bit within the byte for RDMSR; the bit for WRMSR is the next.
    pub read_bit: u8,
}

impl MsrPermissions {
    /// The first MSR and the first byte of each range: 2000h MSRs, 2 KiB.
    pub const RANGES: [(u32, u64); 3] = [(0x0000_0000, 0x0000), (0xc000_0000, 0x0800), (0xc001_0000, 0x1000)];

    /// The bits of an MSR; nothing outside the ranges, where every access is intercepted.
    ///
    /// APM 15.11: "If the MSR Intercept is enabled, accesses to MSRs outside of the ranges cause a #VMEXIT".
    #[must_use]
    pub fn of(msr: u32) -> Option<Self> {
        Self::RANGES.iter().find_map(|(first, base)| {
            let index = u64::from(msr.checked_sub(*first)?);
            (index < 0x2000).then(|| Self { offset: base + index / 4, read_bit: (index % 4) as u8 * 2 })
        })
    }

    /// Whether a read or a write is intercepted, given the byte at [`Self::offset`].
    #[must_use]
    pub const fn intercepts(self, byte: u8, write: bool) -> bool {
        byte >> (self.read_bit + write as u8) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_take_one_bit_a_byte() {
        assert_eq!(IoPermissions::of(0, 1), IoPermissions { offset: 0, mask: 1 });
        assert_eq!(IoPermissions::of(0x3fd, 1), IoPermissions { offset: 0x7f, mask: 1 << 5 });
        assert_eq!(IoPermissions::of(0x3ff, 4), IoPermissions { offset: 0x7f, mask: 0b111_1000_0000 });
        let last = IoPermissions::of(0xffff, 4);
        assert_eq!(last.offset, 0x1fff);
        assert!(last.intercepts([0, 1]), "the access wraps into the third page");
        assert!(!last.intercepts([0x7f, 0xf8]));
    }

    #[test]
    fn msrs_take_two_bits() {
        let cases = [
            (0x0000_0010, Some((0x004, 0))),
            (0x0000_01d9, Some((0x076, 2))),
            (0x0000_1fff, Some((0x7ff, 6))),
            (0x0000_2000, None),
            (0xc000_0080, Some((0x820, 0))),
            (0xc000_2000, None),
            (0xc001_0117, Some((0x1045, 6))),
            (0xc001_1fff, Some((0x17ff, 6))),
            (0xc001_2000, None),
            (0x4000_0000, None),
            (0xffff_ffff, None),
        ];
        for (msr, expected) in cases {
            let expected = expected.map(|(offset, read_bit)| MsrPermissions { offset, read_bit });
            assert_eq!(MsrPermissions::of(msr), expected, "{msr:#x}");
        }
        let efer = MsrPermissions::of(0xc000_0080).unwrap();
        assert!(efer.intercepts(0b01, false) && !efer.intercepts(0b01, true));
        assert!(efer.intercepts(0b10, true) && !efer.intercepts(0b10, false));
    }
}
