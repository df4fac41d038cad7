//! What generated programs do to their surroundings: stores into code, moved pointers, other translations, system instructions.

use crate::place::{CODE, CODE_ALIAS, CODE_BYTES, DATA, DATA_PAGES, SPACES, data_entry, space};
use crate::writer::Width::{Byte, Double, Quad};
use crate::writer::{Base, FREE, Place, Writer};

impl Writer<'_, '_> {
    /// Stores into code.
    pub(crate) fn rewrite(&mut self) {
        let alias = self.choices.pick(&[CODE, CODE_ALIAS, CODE]);
        let register = self.choices.pick(&FREE);
        let (offset, width) = match self.choices.below(24) {
            // Beside code, where nothing is executed: into the padding of the table behind the program.
            0..=5 => (CODE_BYTES - 8 * (1 + self.choices.below(16)), Quad),
            6 => (self.choices.below(self.code.len() as u64), Byte),
            _ if self.patches.is_empty() => (CODE_BYTES - 64, Double),
            number => {
                let patch = self.patches[self.choices.below(self.patches.len() as u64) as usize] as u64;
                if number < 20 { (patch, Double) } else { (patch + self.choices.below(4), Byte) }
            }
        };
        let place = Place::Memory { segment: None, narrow: false, base: Base::None, index: None, displacement: (alias + offset) as i32 };
        self.sized(width, 0x88, register, place, &[]);
    }

    /// Moves the pointers.
    pub(crate) fn pointers(&mut self) {
        match self.choices.below(6) {
            // ADD R14, imm8; AND R14D back into the data is left to the main loop.
            0 | 1 => {
                let step = self.choices.below(64) as u8;
                self.emit(&[0x49, 0x83, 0xc6, step]);
            }
            2 => {
                let index = self.choices.below(0x1000) as u32;
                self.emit(&[0x41, 0xbd]);
                self.emit(&index.to_le_bytes());
            }
            3 => {
                let base = (DATA + self.choices.below(0x4000)) as u32;
                self.emit(&[0x41, 0xbe]);
                self.emit(&base.to_le_bytes());
            }
            4 => {
                // INC R13D; AND R13D, 0FFFH.
                self.emit(&[0x41, 0xff, 0xc5, 0x41, 0x81, 0xe5, 0xff, 0x0f, 0, 0]);
            }
            // MOV EAX, base; WRFSBASE RAX or WRGSBASE RAX.
            _ => {
                let base = (DATA + self.choices.below(0x2000)) as u32;
                self.emit(&[0xb8]);
                self.emit(&base.to_le_bytes());
                let which = self.choices.pick(&[0xd0, 0xd8]);
                self.emit(&[0xf3, 0x48, 0x0f, 0xae, which]);
            }
        }
    }

    /// Changes translations.
    pub(crate) fn paging(&mut self) {
        let page = self.choices.below(DATA_PAGES);
        let (which, entry) = (self.choices.below(SPACES), self.choices.below(DATA_PAGES));
        let at = data_entry(which, entry) as u32;
        match self.choices.below(8) {
            0..=2 => {
                // MOV EAX, table; MOV CR3, RAX.
                self.emit(&[0xb8]);
                self.emit(&(space(which) as u32).to_le_bytes());
                self.emit(&[0x0f, 0x22, 0xd8]);
            }
            3 => {
                // MOV EAX, table; ADD EAX, PCID; BTS RAX, 63; MOV CR3, RAX.
                self.emit(&[0xb8]);
                self.emit(&(space(which) as u32 + which as u32).to_le_bytes());
                if self.choices.below(2) == 0 {
                    self.emit(&[0x48, 0x0f, 0xba, 0xe8, 63]);
                }
                self.emit(&[0x0f, 0x22, 0xd8]);
            }
            4 => self.invalidate(page),
            5 | 6 => {
                // XOR BYTE [entry], bit: present, writable, accessed or dirty.
                let bit = self.choices.pick(&[1, 2, 0x20, 0x40]);
                self.emit(&[0x80, 0x34, 0x25]);
                self.emit(&at.to_le_bytes());
                self.emit(&[bit]);
                if self.choices.below(3) > 0 {
                    self.invalidate(entry);
                }
            }
            _ => {
                // MOV RAX, [one entry]; XCHG RAX, [another].
                let other = data_entry(which, page) as u32;
                self.emit(&[0x48, 0x8b, 0x04, 0x25]);
                self.emit(&at.to_le_bytes());
                self.emit(&[0x48, 0x87, 0x04, 0x25]);
                self.emit(&other.to_le_bytes());
                if self.choices.below(3) > 0 {
                    self.invalidate(page);
                }
            }
        }
    }

    fn invalidate(&mut self, page: u64) {
        self.emit(&[0x0f, 0x01, 0x3c, 0x25]);
        self.emit(&((DATA + (page << 12)) as u32).to_le_bytes());
    }

    pub(crate) fn system(&mut self) {
        let kinds: &[&[u8]] = &[
            // RDTSC; PAUSE; MFENCE; INT 80H; INT3; CPUID (of leaf 0); RDTSCP; NOP; RDFSBASE RAX.
            &[0x0f, 0x31],
            &[0xf3, 0x90],
            &[0x0f, 0xae, 0xf0],
            &[0xcd, 0x80],
            &[0xcc],
            &[0x31, 0xc0, 0x0f, 0xa2],
            &[0x0f, 0x01, 0xf9],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0xf3, 0x48, 0x0f, 0xae, 0xc0],
            // From here on for the supervisor. CLI; STI; CLTS; SWAPGS twice; MOV RAX, CR0 and back; MOV AL, 1 and OUT 80H, AL; IN AL, 80H.
            &[0xfa],
            &[0xfb],
            &[0x0f, 0x06],
            &[0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8],
            &[0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0],
            &[0xb0, 1, 0xe6, 0x80],
            &[0xe4, 0x80],
            // The timer's present count; its initial count; an interrupt to all others.
            &[0xbb, 0x90, 0x03, 0xe0, 0xfe, 0x8b, 0x03],
            &[0xbb, 0x80, 0x03, 0xe0, 0xfe, 0xc7, 0x03, 40, 0, 0, 0],
            &[0xbb, 0, 0x03, 0xe0, 0xfe, 0xc7, 0x03, 0x41, 0x40, 0x0c, 0],
            // STI; HLT, which the timer ends.
            &[0xfb, 0xf4],
            // PUSHFQ; MOV EAX, CR0 XOR WP.
            &[0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xf8, 16, 0x0f, 0x22, 0xc0],
        ];
        let bytes = self.choices.pick(&kinds[..if self.user { 9 } else { kinds.len() }]);
        self.emit(bytes);
    }

    /// Bytes without sense.
    pub(crate) fn noise(&mut self) {
        let bytes = self.choices.word().to_le_bytes();
        let count = self.choices.below(8) as usize + 1;
        self.emit(&bytes[..count]);
    }
}
