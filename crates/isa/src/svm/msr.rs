//! The bits of SVM's MSRs; their numbers are in [`crate::msr`].
//!
//! Manual: APM volume 2, 15.30 "SVM Related MSRs" and 15.30.5 "TSC Ratio MSR (C000_0104h)".
//! What is modelled: VM_CR and TSC Ratio. What is not: SVM_KEY's protocol, which is the `svm` crate's if at all.

use bitfield_struct::bitfield;

/// VM_CR, C001_0114h; APM 15.30.1 "VM_CR MSR (C001_0114h)".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct VmCr {
    /// DPD, bit 0: disables external hardware debug.
    pub dpd: bool,
    /// R_INIT, bit 1: an INIT becomes the exception #SX.
    pub r_init: bool,
    /// DIS_A20M, bit 2: no A20 masking.
    pub dis_a20m: bool,
    /// LOCK, bit 3: writes to LOCK and SVMDIS are ignored.
    pub lock: bool,
    /// SVMDIS, bit 4: EFER.SVME cannot be set.
    pub svmdis: bool,
    #[bits(59)]
    __: u64,
}

/// TSC Ratio, C000_0104h: an unsigned fixed-point number 8.32.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TscRatio {
    /// FRAC, bits 31:0.
    pub fraction: u32,
    /// INT, bits 39:32.
    pub integer: u8,
    #[bits(24)]
    __: u32,
}

impl TscRatio {
    /// 1.0, the value at reset.
    pub const ONE: Self = Self::new().with_integer(1);

    /// A count multiplied by the ratio; modulo 2^64, as the counter is.
    #[must_use]
    pub const fn scale(self, count: u64) -> u64 {
        let ratio = self.into_bits() & 0xff_ffff_ffff;
        ((count as u128 * ratio as u128) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_scales() {
        assert_eq!(TscRatio::ONE.scale(u64::MAX), u64::MAX);
        assert_eq!(TscRatio::new().with_fraction(1 << 31).scale(1001), 500);
        assert_eq!(TscRatio::new().with_integer(2).with_fraction(1 << 30).scale(100), 225);
    }

    #[test]
    fn vm_cr_bits() {
        assert_eq!(VmCr::new().with_lock(true).with_svmdis(true).into_bits(), 0x18);
    }
}
