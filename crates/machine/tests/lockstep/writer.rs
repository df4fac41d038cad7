//! One instruction of a generated program: its operands and its bytes.

use crate::choices::Choices;
use crate::place::{CODE, CODE_BYTES, DATA, DATA_PAGES};

/// Registers that a program may use for anything.
pub const FREE: [u8; 10] = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11];
/// Statements of a program at most.
const MAXIMUM_STATEMENTS: u32 = 400;

/// The width of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Byte,
    Word,
    Double,
    Quad,
}
use Width::{Byte, Double, Quad, Word};

/// A register or memory operand. Registers 16 to 19 are AH, CH, DH and BH.
#[derive(Clone, Copy)]
pub enum Place {
    Register(u8),
    Memory { segment: Option<u8>, narrow: bool, base: Base, index: Option<(u8, u8)>, displacement: i32 },
}

/// Where an address begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Base {
    None,
    Instruction,
    Register(u8),
}

/// Writes a program.
pub struct Writer<'c, 'b> {
    pub choices: &'c mut Choices<'b>,
    pub code: Vec<u8>,
    pub functions: Vec<u64>,
    /// Offsets of immediates that stores may change.
    pub patches: Vec<usize>,
    pub user: bool,
    pub statements: u32,
    pub depth: u32,
}

impl Writer<'_, '_> {
    pub(crate) fn here(&self) -> u64 {
        CODE + self.code.len() as u64
    }

    pub(crate) fn emit(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    pub(crate) fn full(&self) -> bool {
        self.statements >= MAXIMUM_STATEMENTS || self.choices.exhausted() || self.code.len() + 600 > CODE_BYTES as usize
    }

    pub(crate) fn width(&mut self) -> Width {
        self.choices.pick(&[Double, Quad, Byte, Word, Quad, Double])
    }

    pub(crate) fn register(&mut self, width: Width) -> u8 {
        if width == Byte && self.choices.one_in(3) { 16 + self.choices.below(4) as u8 } else { self.choices.pick(&FREE) }
    }

    pub(crate) fn memory(&mut self) -> Place {
        let displacement = match self.choices.below(6) {
            0 | 1 => self.choices.below(256) as i32,
            2 => self.choices.below(0x8000) as i32,
            // Around the end of a page.
            3 => (self.choices.below(10) as i32 + 1) * 0x1000 - self.choices.below(12) as i32,
            4 => -(self.choices.below(128) as i32),
            _ => self.choices.below(DATA_PAGES << 12) as i32,
        };
        let mut place = (None, false, Base::Register(12), None, displacement);
        match self.choices.below(14) {
            0 | 1 => {}
            2 | 3 => place.2 = Base::Register(5),
            4 => place.2 = Base::Register(14),
            5 => place = (None, false, Base::Instruction, None, (DATA as i32).wrapping_add(displacement)),
            6 => place = (None, self.choices.one_in(3), Base::None, None, (DATA as i32).wrapping_add(displacement)),
            7 => place.3 = Some((13, self.choices.below(4) as u8)),
            8 => place = (None, false, Base::None, Some((13, self.choices.below(4) as u8)), DATA as i32 + displacement),
            9 => place = (Some(0x64), false, Base::None, None, displacement & 0x3fff),
            10 => place = (Some(0x65), false, Base::Register(13), None, displacement & 0xff8),
            11 => place = (None, true, Base::Register(12), Some((13, self.choices.below(4) as u8)), displacement),
            12 => place = (Some(0x64), self.choices.one_in(2), Base::Register(13), Some((13, 1)), displacement & 0xfff),
            // Anything at all, mostly a fault.
            _ if self.choices.one_in(6) => place.2 = Base::Register(self.choices.pick(&FREE)),
            _ => place.2 = Base::Register(14),
        }
        let (segment, narrow, base, index, displacement) = place;
        Place::Memory { segment, narrow, base, index, displacement }
    }

    /// A register or, as often, memory.
    pub(crate) fn place(&mut self, width: Width) -> Place {
        if self.choices.below(2) == 0 { Place::Register(self.register(width)) } else { self.memory() }
    }

    /// An instruction with a ModRM byte. `opcode` is that of the byte form where `by_width` tells to set its lowest bit for others.
    pub(crate) fn encode(&mut self, prefix: Option<u8>, width: Width, opcode: &[u8], register: u8, place: Place, immediate: &[u8]) {
        let mut rex = if width == Quad { 0x48 } else { 0 };
        let mut tail = Vec::new();
        let mut relative = None;
        let extended = |number: u8, bit: u8| if number < 16 && number & 8 != 0 { 0x40 | bit } else { 0 };
        rex |= extended(register, 4);
        let place_register = match place {
            Place::Register(number) => {
                rex |= extended(number, 1);
                Some(number)
            }
            Place::Memory { base, index, .. } => {
                if let Base::Register(number) = base {
                    rex |= extended(number, 1);
                }
                if let Some((number, _)) = index {
                    rex |= extended(number, 2);
                }
                None
            }
        };
        // SIL and DIL are reached with a REX prefix only, AH to BH only without.
        let wants_rex = |number: u8| width == Byte && (4..8).contains(&number);
        let plain = |number: u8| if number >= 16 { number - 16 } else { number };
        if rex == 0 && place_register.is_some_and(wants_rex)
            || rex == 0 && prefix.is_none() && opcode[0] != 0x0f && wants_rex(register) && place_register.is_some()
        {
            rex = 0x40;
        }
        let number_of = |number: u8| match number {
            16.. if rex == 0 => number - 16 + 4,
            _ => plain(number) & 7,
        };
        let field = number_of(register) << 3;
        match place {
            Place::Register(number) => tail.push(0xc0 | field | number_of(number)),
            Place::Memory { base, index, displacement, .. } => {
                let small = i8::try_from(displacement).is_ok() && base != Base::None && base != Base::Instruction;
                let mode = if base == Base::None || base == Base::Instruction {
                    0
                } else if small {
                    0x40
                } else {
                    0x80
                };
                match (base, index) {
                    (Base::Instruction, _) => {
                        tail.push(field | 5);
                        relative = Some(tail.len());
                    }
                    (Base::Register(number), None) if number & 7 != 4 => tail.push(mode | field | number & 7),
                    _ => {
                        tail.push(mode | field | 4);
                        let (index, scale) = index.map_or((4, 0), |(index, scale)| (index & 7, scale));
                        let base = if let Base::Register(number) = base { number & 7 } else { 5 };
                        tail.push(scale << 6 | index << 3 | base);
                    }
                }
                if small { tail.push(displacement as i8 as u8) } else { tail.extend_from_slice(&displacement.to_le_bytes()) }
            }
        }
        tail.extend_from_slice(immediate);
        if let Place::Memory { segment, narrow, .. } = place {
            self.code.extend(segment);
            if narrow {
                self.code.push(0x67);
            }
        }
        self.code.extend(prefix);
        if width == Word && prefix.is_none() {
            self.code.push(0x66);
        }
        if rex != 0 {
            self.code.push(rex);
        }
        self.emit(opcode);
        let start = self.code.len();
        self.code.extend_from_slice(&tail);
        if let Some(at) = relative {
            let at = start + at;
            let target = u32::from_le_bytes(self.code[at..at + 4].try_into().expect("four bytes"));
            let relative = target.wrapping_sub(self.here() as u32);
            self.code[at..at + 4].copy_from_slice(&relative.to_le_bytes());
        }
    }

    /// An instruction whose opcode's lowest bit is clear for bytes and set for other widths.
    pub(crate) fn sized(&mut self, width: Width, opcode: u8, register: u8, place: Place, immediate: &[u8]) {
        self.encode(None, width, &[opcode | u8::from(width != Byte)], register, place, immediate);
    }

    pub(crate) fn immediate(&mut self, width: Width) -> Vec<u8> {
        let word = match self.choices.below(4) {
            0 => self.choices.below(4) as u32,
            1 => self.choices.pick(&[0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]),
            _ => self.choices.below(1 << 32) as u32,
        };
        word.to_le_bytes()[..match width {
            Byte => 1,
            Word => 2,
            _ => 4,
        }]
            .to_vec()
    }

    pub(crate) fn first(&self) -> u8 {
        FREE[self.code.len() % FREE.len()]
    }

    pub(crate) fn plain_memory(&self) -> Place {
        Place::Memory {
            segment: None,
            narrow: false,
            base: Base::Register(14),
            index: None,
            displacement: (self.code.len() as i32) & 0x7f8,
        }
    }

    pub(crate) fn push(&mut self, register: u8) {
        if register >= 8 {
            self.emit(&[0x41]);
        }
        self.emit(&[0x50 | register & 7]);
    }

    pub(crate) fn pop(&mut self, register: u8) {
        if register >= 8 {
            self.emit(&[0x41]);
        }
        self.emit(&[0x58 | register & 7]);
    }
}
