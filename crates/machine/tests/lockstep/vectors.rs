//! Double-precision arithmetic and XMM registers in generated programs.

use crate::place::DATA;
use crate::writer::Width::{Double, Quad};
use crate::writer::{Base, FREE, Place, Writer};

impl Writer<'_, '_> {
    pub(crate) fn doubles(&mut self) {
        for _ in 0..=self.choices.below(4) {
            let (register, other) = (self.choices.below(6) as u8, self.choices.below(6) as u8);
            // Addresses that are multiples of eight hold numbers.
            let place = match self.choices.below(3) {
                0 => Place::Register(other),
                1 => Place::Memory {
                    segment: None,
                    narrow: false,
                    base: Base::None,
                    index: None,
                    displacement: (DATA + 8 * self.choices.below(0xe00)) as i32,
                },
                _ => self.memory(),
            };
            match self.choices.below(16) {
                0..=5 => {
                    let opcode = self.choices.pick(&[0x58, 0x5c, 0x59, 0x5e]);
                    self.encode(Some(0xf2), Double, &[0x0f, opcode], register, place, &[]);
                }
                6 | 7 => self.encode(Some(0xf2), Double, &[0x0f, 0x10], register, place, &[]),
                8 => self.encode(Some(0xf2), Double, &[0x0f, 0x11], register, place, &[]),
                9 => {
                    let opcode = self.choices.pick(&[0x51, 0x5d, 0x5f]);
                    self.encode(Some(0xf2), Double, &[0x0f, opcode], register, place, &[]);
                }
                10 => {
                    let opcode = self.choices.pick(&[0x2e, 0x2f]);
                    self.encode(Some(0x66), Double, &[0x0f, opcode], register, place, &[]);
                }
                11 => {
                    let (width, place) = (self.choices.pick(&[Double, Quad]), self.place(Quad));
                    self.encode(Some(0xf2), width, &[0x0f, 0x2a], register, place, &[]);
                }
                12 => {
                    let (width, opcode) = (self.choices.pick(&[Double, Quad]), self.choices.pick(&[0x2c, 0x2d]));
                    let general = self.choices.pick(&FREE);
                    self.encode(Some(0xf2), width, &[0x0f, opcode], general, place, &[]);
                }
                13 => {
                    let (width, opcode, general) = (self.choices.pick(&[Double, Quad]), self.choices.pick(&[0x6e, 0x7e]), self.place(Quad));
                    self.encode(Some(0x66), width, &[0x0f, opcode], register, general, &[]);
                }
                14 => self.encode(None, Double, &[0x0f, self.aligned_move()], register, Place::Register(other), &[]),
                // The status flags of MXCSR set: the arithmetic of the inline path.
                _ => {
                    // PUSH imm32; LDMXCSR [RSP]; POP RAX.
                    let value = self.choices.pick(&[0x1fa0u32, 0x1f80, 0x1fbf, 0x1fa1, 0x3fa0, 0x9fe0, 0x1f20]);
                    self.emit(&[0x68]);
                    self.emit(&value.to_le_bytes());
                    self.emit(&[0x0f, 0xae, 0x14, 0x24, 0x58]);
                }
            }
        }
    }

    fn aligned_move(&self) -> u8 {
        [0x28, 0x10, 0x57, 0x54][self.code.len() % 4]
    }

    pub(crate) fn vector(&mut self) {
        let (register, other) = (self.choices.below(6) as u8, self.choices.below(6) as u8);
        let place = self.memory();
        match self.choices.below(8) {
            0 => self.encode(None, Double, &[0x0f, 0x10], register, place, &[]),
            1 => self.encode(None, Double, &[0x0f, 0x11], register, place, &[]),
            2 => {
                let opcode = self.choices.pick(&[0xef, 0xfe, 0xd4, 0xeb, 0x14, 0x6c, 0xfa]);
                self.encode(Some(0x66), Double, &[0x0f, opcode], register, Place::Register(other), &[]);
            }
            3 => self.encode(Some(0xf3), Double, &[0x0f, 0x7e], register, place, &[]),
            4 => self.encode(Some(0x66), Double, &[0x0f, 0xd6], register, place, &[]),
            5 => {
                let opcode = self.choices.pick(&[0x12, 0x13, 0x16, 0x17]);
                self.encode(Some(0x66), Double, &[0x0f, opcode], register, place, &[]);
            }
            6 => {
                let order = self.choices.below(256) as u8;
                self.encode(Some(0x66), Double, &[0x0f, 0x70], register, Place::Register(other), &[order]);
            }
            // STMXCSR.
            _ => self.encode(None, Double, &[0x0f, 0xae], 3, place, &[]),
        }
    }
}
