//! Integer and string instructions of generated programs.

use crate::writer::Width::{Byte, Double, Quad, Word};
use crate::writer::{FREE, Place, Writer};

impl Writer<'_, '_> {
    pub(crate) fn arithmetic(&mut self) {
        let width = self.width();
        let operation = self.choices.below(8) as u8;
        match self.choices.below(8) {
            0 | 1 => {
                let (register, place) = (self.register(width), self.place(width));
                self.sized(width, operation << 3, register, place, &[]);
            }
            2 | 3 => {
                let (register, place) = (self.register(width), self.place(width));
                self.sized(width, operation << 3 | 2, register, place, &[]);
            }
            4 => {
                let (place, immediate) = (self.place(width), self.immediate(width));
                self.sized(width, 0x80, operation, place, &immediate);
            }
            5 if width != Byte => {
                let (place, immediate) = (self.place(width), self.choices.below(256) as u8);
                self.encode(None, width, &[0x83], operation, place, &[immediate]);
            }
            6 => {
                let (register, place) = (self.register(width), self.place(width));
                self.sized(width, 0x84, register, place, &[]);
            }
            _ => {
                // An immediate that a store may change.
                let register = self.choices.pick(&FREE);
                let immediate = self.immediate(Double);
                self.encode(None, Double, &[0x81], operation, Place::Register(register), &immediate);
                let at = self.code.len() - 4;
                self.patches.push(at);
            }
        }
    }

    pub(crate) fn moves(&mut self) {
        let width = self.width();
        match self.choices.below(9) {
            0 | 1 => {
                let (register, place) = (self.register(width), self.place(width));
                self.sized(width, 0x88, register, place, &[]);
            }
            2 | 3 => {
                let (register, place) = (self.register(width), self.place(width));
                self.sized(width, 0x8a, register, place, &[]);
            }
            4 => {
                let (place, immediate) = (self.place(width), self.immediate(width));
                self.sized(width, 0xc6, 0, place, &immediate);
            }
            5 => {
                let register = self.choices.pick(&FREE);
                let opcode = self.choices.pick(&[0xb6, 0xb7, 0xbe, 0xbf]);
                let width = self.choices.pick(&[Double, Quad, Word]);
                // The source of the byte forms may be SIL or DIL without REX, which are then DH and BH: both are fine.
                let place = self.place(Quad);
                self.encode(None, width, &[0x0f, opcode], register, place, &[]);
            }
            6 => {
                let (register, place) = (self.choices.pick(&FREE), self.place(Quad));
                let width = self.choices.pick(&[Double, Quad]);
                self.encode(None, width, &[0x63], register, place, &[]);
            }
            7 => {
                let (register, place) = (self.choices.pick(&FREE), self.memory());
                let width = self.choices.pick(&[Double, Quad, Word]);
                self.encode(None, width, &[0x8d], register, place, &[]);
            }
            _ => {
                let register = self.choices.pick(&FREE);
                let value = self.choices.word();
                self.emit(&[0x48 | register >> 3, 0xb8 | register & 7]);
                self.emit(&value.to_le_bytes());
            }
        }
    }

    pub(crate) fn shift(&mut self) {
        let width = self.width();
        let operation = self.choices.below(8) as u8;
        let place = self.place(width);
        match self.choices.below(6) {
            0 => self.sized(width, 0xd0, operation, place, &[]),
            1 | 2 => self.sized(width, 0xd2, operation, place, &[]),
            3 => {
                // MOV CL, imm8: counts of zero, and around the widths.
                let count = self.choices.pick(&[0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 255]);
                self.emit(&[0xb1, count]);
                self.sized(width, 0xd2, operation, place, &[]);
            }
            4 => {
                let (register, count) = (self.register(Quad), self.choices.below(70) as u8);
                let opcode = self.choices.pick(&[0xa4, 0xac]);
                let width = if width == Byte { Quad } else { width };
                self.encode(None, width, &[0x0f, opcode], register, place, &[count]);
            }
            _ => {
                let count = self.choices.below(70) as u8;
                self.sized(width, 0xc0, operation, place, &[count]);
            }
        }
    }

    pub(crate) fn unary(&mut self) {
        let width = self.width();
        let place = self.place(width);
        match self.choices.below(8) {
            0 | 1 => self.sized(width, 0xfe, 0, place, &[]),
            2 | 3 => self.sized(width, 0xfe, 1, place, &[]),
            4 => self.sized(width, 0xf6, 3, place, &[]),
            5 => self.sized(width, 0xf6, 2, place, &[]),
            // MUL and IMUL; division mostly of a small dividend.
            6 => {
                let operation = self.choices.pick(&[4, 5]);
                self.sized(width, 0xf6, operation, place, &[]);
            }
            _ => {
                // XOR EDX, EDX; OR CL, 1.
                self.emit(&[0x31, 0xd2, 0x80, 0xc9, 1]);
                let operation = self.choices.pick(&[6, 7]);
                self.sized(width, 0xf6, operation, Place::Register(1), &[]);
            }
        }
    }

    /// Readers of flags, mostly right behind writers.
    pub(crate) fn conditional(&mut self) {
        if self.choices.below(3) > 0 {
            match self.choices.below(3) {
                0 => self.arithmetic(),
                1 => self.shift(),
                _ => self.unary(),
            }
        }
        for _ in 0..=self.choices.below(3) {
            let code = self.choices.below(16) as u8;
            match self.choices.below(8) {
                0 | 1 => {
                    let place = self.place(Byte);
                    self.encode(None, Byte, &[0x0f, 0x90 | code], 0, place, &[]);
                }
                2 | 3 => {
                    let width = self.choices.pick(&[Word, Double, Quad]);
                    let (register, place) = (self.register(width), self.place(width));
                    self.encode(None, width, &[0x0f, 0x40 | code], register, place, &[]);
                }
                4 => {
                    let width = self.width();
                    let operation = self.choices.pick(&[0x10, 0x18, 0x12, 0x1a]);
                    let (register, place) = (self.register(width), self.place(width));
                    self.sized(width, operation, register, place, &[]);
                }
                5 => {
                    let single = self.choices.pick(&[0xf5, 0xf8, 0xf9, 0x9f, 0x9e]);
                    self.emit(&[single]);
                }
                6 => {
                    let width = self.width();
                    let (operation, place) = (self.choices.pick(&[2, 3]), self.place(width));
                    self.sized(width, 0xd0, operation, place, &[]);
                }
                _ => {
                    // PUSHFQ; POP reg.
                    let register = self.choices.pick(&FREE);
                    self.emit(&[0x9c]);
                    self.pop(register);
                }
            }
        }
    }

    pub(crate) fn odd_integer(&mut self) {
        let width = self.choices.pick(&[Word, Double, Quad]);
        let (register, place) = (self.register(width), self.place(width));
        match self.choices.below(14) {
            0 | 1 => self.encode(None, width, &[0x0f, 0xaf], register, place, &[]),
            2 => {
                let immediate = self.immediate(width);
                self.encode(None, width, &[0x69], register, place, &immediate);
            }
            3 => {
                let immediate = self.choices.below(256) as u8;
                self.encode(None, width, &[0x6b], register, place, &[immediate]);
            }
            4 => {
                let opcode = self.choices.pick(&[0xa3, 0xab, 0xb3, 0xbb]);
                self.encode(None, width, &[0x0f, opcode], register, Place::Register(self.first()), &[]);
            }
            5 => {
                let (operation, bit) = (self.choices.below(4) as u8 + 4, self.choices.below(64) as u8);
                self.encode(None, width, &[0x0f, 0xba], operation, place, &[bit]);
            }
            6 => {
                let opcode = self.choices.pick(&[0xbc, 0xbd]);
                let prefix = self.choices.pick(&[None, Some(0xf3)]);
                self.encode(prefix, width, &[0x0f, opcode], register, place, &[]);
            }
            7 => self.encode(Some(0xf3), width, &[0x0f, 0xb8], register, place, &[]),
            8 => {
                let width = self.width();
                self.sized(width, 0x86, register, place, &[]);
            }
            9 => {
                let width = self.width();
                let opcode = self.choices.pick(&[0xb0, 0xc0]) | u8::from(width != Byte);
                self.encode(None, width, &[0x0f, opcode], register, place, &[]);
            }
            10 => {
                let register = self.choices.pick(&FREE);
                let wide = self.choices.pick(&[0x40, 0x48]);
                self.emit(&[wide | register >> 3, 0x0f, 0xc8 | register & 7]);
            }
            11 => {
                let prefix = self.choices.pick(&[0x66, 0x48, 0x40]);
                let opcode = self.choices.pick(&[0x98, 0x99]);
                self.emit(&[prefix, opcode]);
            }
            12 if matches!(place, Place::Memory { .. }) => {
                // A locked operation.
                let operation = self.choices.below(7) as u8;
                self.emit(&[0xf0]);
                self.sized(width, operation << 3, register, place, &[]);
            }
            _ => {
                let opcode = self.choices.pick(&[0xf0, 0xf1]);
                self.encode(None, width, &[0x0f, 0x38, opcode], register, self.plain_memory(), &[]);
            }
        }
    }

    pub(crate) fn string(&mut self) {
        // LEA RSI, [data]; LEA RDI, [data]; MOV ECX, count; perhaps STD.
        let (from, to) = (self.memory(), self.memory());
        for (register, mut place) in [(6, from), (7, to)] {
            if let Place::Memory { segment, .. } = &mut place {
                *segment = None;
            }
            self.encode(None, Quad, &[0x8d], register, place, &[]);
        }
        let count = self.choices.pick(&[0, 1, 3, 17, 64, 600]);
        self.emit(&[0xb9]);
        self.emit(&u32::to_le_bytes(count));
        let down = self.choices.one_in(4);
        if down {
            self.emit(&[0xfd]);
        }
        let prefix: &[u8] = self.choices.pick(&[&[0xf3], &[0xf2], &[]]);
        self.emit(prefix);
        let width: &[u8] = self.choices.pick(&[&[], &[0x48], &[0x66]]);
        self.emit(width);
        let opcode = self.choices.pick(&[0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf]);
        self.emit(&[opcode]);
        if down {
            self.emit(&[0xfc]);
        }
    }
}
