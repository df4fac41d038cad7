//! The six intercept words, whose bit indices are exit codes.
//!
//! Manual: APM volume 2, appendix B, table B-1, offsets 000h to 014h; appendix C "SVM Intercept Exit Codes".
//! What is modelled: all six words through one rule, exit code == 32 * word + bit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::exit_code::ExitCode;

/// The intercept words at offset 000h: CR accesses, DR accesses, exceptions, and three words of instructions and events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Intercepts(pub [u32; 6]);

impl Intercepts {
    /// Whether the words ask for this exit; never for a code that is not an intercept bit.
    #[must_use]
    pub const fn contains(&self, code: ExitCode) -> bool {
        match code.intercept_bit() {
            Some(bit) => self.0[bit / 32] >> (bit % 32) & 1 != 0,
            None => false,
        }
    }

    /// Sets or clears the bit of an exit code; does nothing for a code that is not an intercept bit.
    pub const fn set(&mut self, code: ExitCode, intercept: bool) {
        if let Some(bit) = code.intercept_bit() {
            let mask = 1 << (bit % 32);
            if intercept {
                self.0[bit / 32] |= mask;
            } else {
                self.0[bit / 32] &= !mask;
            }
        }
    }

    /// The same words with the bit of an exit code set.
    #[must_use]
    pub const fn with(mut self, code: ExitCode) -> Self {
        self.set(code, true);
        self
    }

    /// Bits 15:0: reads of CR0 to CR15.
    #[must_use]
    pub const fn cr_reads(&self) -> u16 {
        self.0[0] as u16
    }

    /// Bits 15:0: writes of CR0 to CR15.
    #[must_use]
    pub const fn cr_writes(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    /// Bits 15:0: reads of DR0 to DR15.
    #[must_use]
    pub const fn dr_reads(&self) -> u16 {
        self.0[1] as u16
    }

    /// Bits 15:0: writes of DR0 to DR15.
    #[must_use]
    pub const fn dr_writes(&self) -> u16 {
        (self.0[1] >> 16) as u16
    }

    /// Bits 31:0: exception vectors 0 to 31.
    #[must_use]
    pub const fn exceptions(&self) -> u32 {
        self.0[2]
    }

    /// Every exit code that is asked for, in numeric order.
    pub fn iter(&self) -> impl Iterator<Item = ExitCode> {
        (0..192).map(ExitCode).filter(|code| self.contains(*code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_its_own_bit() {
        for (code, _) in ExitCode::ALL {
            let words = Intercepts::default().with(*code);
            match code.intercept_bit() {
                Some(bit) => {
                    assert_eq!(bit as u64, code.0);
                    assert_eq!(words.iter().collect::<Vec<_>>(), [*code]);
                }
                None => assert_eq!(words, Intercepts::default()),
            }
        }
    }

    #[test]
    fn words_are_where_table_b_1_has_them() {
        let cases = [
            (ExitCode::CR0_WRITE, 0, 16),
            (ExitCode::DR7_READ, 1, 7),
            (ExitCode::EXCP_UD, 2, 6),
            (ExitCode::INTR, 3, 0),
            (ExitCode::CPUID, 3, 18),
            (ExitCode::SHUTDOWN, 3, 31),
            (ExitCode::VMRUN, 4, 0),
            (ExitCode::VMMCALL, 4, 1),
            (ExitCode::CR0_WRITE_TRAP, 4, 16),
            (ExitCode::INVLPGB, 5, 0),
            (ExitCode::IDLE_HLT, 5, 6),
        ];
        for (code, word, bit) in cases {
            assert_eq!(Intercepts::default().with(code).0[word], 1 << bit, "{code}");
        }
    }
}
