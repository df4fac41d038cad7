//! Structured random programs in 64-bit mode, for comparing tiers.
//!
//! A program is a table of functions that a main loop calls in turn for ever. Functions are made of loops, branches on every condition,
//! calls and jumps through tables, arithmetic of every width, memory operands of every form, stores into code, double-precision arithmetic
//! and system instructions. R12, RBP and R14 point into the data, R13 is a small index, R15 counts loops; the rest is free.

use crate::choices::Choices;
use crate::place::{CODE, CODE_ALIAS, CODE_BYTES, DATA, DATA_PAGES, FUNCTIONS, SPACES, TABLE, data_entry, space};

/// What a program needs of its surroundings.
pub struct Program {
    /// The bytes at [`CODE`].
    pub code: Vec<u8>,
    /// Addresses of the functions, for the table at [`TABLE`].
    pub functions: Vec<u64>,
}

/// Registers that a program may use for anything.
const FREE: [u8; 10] = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11];
/// Statements of a program at most.
const MAXIMUM_STATEMENTS: u32 = 400;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Byte,
    Word,
    Double,
    Quad,
}
use Width::{Byte, Double, Quad, Word};

/// A register or memory operand. Registers 16 to 19 are AH, CH, DH and BH.
#[derive(Clone, Copy)]
enum Place {
    Register(u8),
    Memory { segment: Option<u8>, narrow: bool, base: Base, index: Option<(u8, u8)>, displacement: i32 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    None,
    Instruction,
    Register(u8),
}

/// Writes a program.
struct Writer<'c, 'b> {
    choices: &'c mut Choices<'b>,
    code: Vec<u8>,
    functions: Vec<u64>,
    /// Offsets of immediates that stores may change.
    patches: Vec<usize>,
    user: bool,
    statements: u32,
    depth: u32,
}

/// Makes a program. A program of user mode leaves system instructions alone.
pub fn generate(choices: &mut Choices<'_>, user: bool) -> Program {
    let mut writer = Writer { choices, code: Vec::new(), functions: Vec::new(), patches: Vec::new(), user, statements: 0, depth: 0 };
    writer.main_loop();
    for _ in 0..FUNCTIONS {
        writer.function();
    }
    Program { code: writer.code, functions: writer.functions }
}

impl Writer<'_, '_> {
    fn here(&self) -> u64 {
        CODE + self.code.len() as u64
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn full(&self) -> bool {
        self.statements >= MAXIMUM_STATEMENTS || self.choices.exhausted() || self.code.len() + 600 > CODE_BYTES as usize
    }

    /// Calls the functions in turn. Comes back to its beginning after every fault that ends a function.
    fn main_loop(&mut self) {
        // MOV RBX, RSP; AND RBX, -65536; MOV RAX, [RBX+8000H]; INC QWORD [RBX+8000H]; AND EAX, FUNCTIONS-1.
        self.emit(&[
            0x48, 0x89, 0xe3, 0x48, 0x81, 0xe3, 0, 0, 0xff, 0xff, 0x48, 0x8b, 0x83, 0, 0x80, 0, 0, 0x48, 0xff, 0x83, 0, 0x80, 0, 0,
        ]);
        self.emit(&[0x83, 0xe0, FUNCTIONS as u8 - 1]);
        // MOV R12D, DATA+offset; MOV EBP, ...; MOV R14D, ...; MOV R13D, index; CLD; CALL [RAX*8+TABLE]; JMP back.
        for (opcode, range) in [(&[0x41, 0xbc][..], 0x2000), (&[0xbd], 0x8000), (&[0x41, 0xbe], 0x6000)] {
            let value = DATA + self.choices.below(range);
            self.emit(opcode);
            self.emit(&(value as u32).to_le_bytes());
        }
        let index = self.choices.below(0x400) as u32;
        self.emit(&[0x41, 0xbd]);
        self.emit(&index.to_le_bytes());
        self.emit(&[0xfc, 0xff, 0x14, 0xc5]);
        self.emit(&(TABLE as u32).to_le_bytes());
        self.jump_back(&[0xe9], 0);
    }

    fn function(&mut self) {
        match self.choices.below(4) {
            // Towards the end of a page, so that instructions, blocks and loops cross it.
            1 if self.code.len() + 0x2000 < CODE_BYTES as usize => {
                let end = (self.code.len() | 0xfff) - self.choices.below(60) as usize;
                self.code.resize(end.max(self.code.len()), 0xcc);
            }
            2 => self.code.resize(self.code.len().next_multiple_of(64), 0x90),
            _ => {}
        }
        self.functions.push(self.here());
        let count = self.choices.below(10) + 2;
        for _ in 0..count {
            self.statement();
        }
        match self.choices.below(8) {
            // RET imm16 would leave the main loop's stack pointer elsewhere, which it stands.
            0 => self.emit(&[0xc2, 8, 0]),
            _ => self.emit(&[0xc3]),
        }
    }

    fn body(&mut self, most: u64) {
        self.depth += 1;
        for _ in 0..=self.choices.below(most) {
            self.statement();
        }
        self.depth -= 1;
    }

    fn statement(&mut self) {
        if self.full() {
            return;
        }
        self.statements += 1;
        let nested = self.depth < 3;
        match self.choices.below(32) {
            0..=4 => self.arithmetic(),
            5 | 6 => self.moves(),
            7 | 8 => self.shift(),
            9 => self.unary(),
            10 | 11 => self.conditional(),
            12 => self.odd_integer(),
            13 => self.stack(),
            14 | 15 if nested => self.branch(),
            16..=19 if nested => self.repeat(),
            20 if nested => self.switch(),
            21 => self.call(),
            22 | 23 => self.rewrite(),
            24 | 25 => self.doubles(),
            26 => self.vector(),
            27 => self.string(),
            28 => self.pointers(),
            29 if !self.user => self.paging(),
            30 => self.system(),
            31 if self.choices.one_in(8) => self.noise(),
            _ => self.arithmetic(),
        }
    }

    fn width(&mut self) -> Width {
        self.choices.pick(&[Double, Quad, Byte, Word, Quad, Double])
    }

    fn register(&mut self, width: Width) -> u8 {
        if width == Byte && self.choices.one_in(3) { 16 + self.choices.below(4) as u8 } else { self.choices.pick(&FREE) }
    }

    fn memory(&mut self) -> Place {
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
    fn place(&mut self, width: Width) -> Place {
        if self.choices.below(2) == 0 { Place::Register(self.register(width)) } else { self.memory() }
    }

    /// An instruction with a ModRM byte. `opcode` is that of the byte form where `by_width` tells to set its lowest bit for others.
    fn encode(&mut self, prefix: Option<u8>, width: Width, opcode: &[u8], register: u8, place: Place, immediate: &[u8]) {
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
    fn sized(&mut self, width: Width, opcode: u8, register: u8, place: Place, immediate: &[u8]) {
        self.encode(None, width, &[opcode | u8::from(width != Byte)], register, place, immediate);
    }

    fn immediate(&mut self, width: Width) -> Vec<u8> {
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

    fn arithmetic(&mut self) {
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

    fn moves(&mut self) {
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

    fn shift(&mut self) {
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

    fn unary(&mut self) {
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
    fn conditional(&mut self) {
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

    fn odd_integer(&mut self) {
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

    fn first(&self) -> u8 {
        FREE[self.code.len() % FREE.len()]
    }

    fn plain_memory(&self) -> Place {
        Place::Memory {
            segment: None,
            narrow: false,
            base: Base::Register(14),
            index: None,
            displacement: (self.code.len() as i32) & 0x7f8,
        }
    }

    fn push(&mut self, register: u8) {
        if register >= 8 {
            self.emit(&[0x41]);
        }
        self.emit(&[0x50 | register & 7]);
    }

    fn pop(&mut self, register: u8) {
        if register >= 8 {
            self.emit(&[0x41]);
        }
        self.emit(&[0x58 | register & 7]);
    }

    fn stack(&mut self) {
        match self.choices.below(7) {
            0 | 1 => {
                let (one, other) = (self.choices.pick(&FREE), self.choices.pick(&FREE));
                self.push(one);
                self.body(2);
                self.pop(other);
            }
            2 => {
                // PUSH mem; POP mem.
                let (from, to) = (self.memory(), self.memory());
                self.encode(None, Double, &[0xff], 6, from, &[]);
                self.encode(None, Double, &[0x8f], 0, to, &[]);
            }
            3 => {
                let immediate = self.immediate(Double);
                self.emit(&[0x68]);
                self.emit(&immediate);
                let register = self.choices.pick(&FREE);
                self.pop(register);
            }
            4 => {
                // PUSHFQ; AND QWORD [RSP], status flags; POPFQ.
                self.emit(&[0x9c, 0x48, 0x81, 0x24, 0x24, 0xd5, 0x0a, 0, 0, 0x9d]);
            }
            5 => {
                // PUSH reg; AND DWORD [RSP], flags; OR DWORD [RSP], IF; POPFQ, sometimes with TF.
                let register = self.choices.pick(&FREE);
                let flags = if self.choices.one_in(6) { 0xd5 | 0x900 } else { 0x8d5 };
                self.push(register);
                self.emit(&[0x81, 0x24, 0x24]);
                self.emit(&u32::to_le_bytes(flags));
                self.emit(&[0x81, 0x0c, 0x24, 0, 2, 0, 0, 0x9d]);
            }
            _ => {
                // ENTER; body; LEAVE, with RBP made a pointer into the data again.
                self.emit(&[0xc8, 0x20, 0, 0]);
                self.body(2);
                self.emit(&[0xc9]);
            }
        }
    }

    /// A jump to what is already there.
    fn jump_back(&mut self, opcode: &[u8], to: usize) {
        self.emit(opcode);
        let relative = to as i32 - (self.code.len() as i32 + 4);
        self.emit(&relative.to_le_bytes());
    }

    fn jump_ahead(&mut self, opcode: &[u8]) -> usize {
        self.emit(opcode);
        self.emit(&[0; 4]);
        self.code.len()
    }

    fn land(&mut self, from: usize) {
        let relative = (self.code.len() - from) as u32;
        self.code[from - 4..from].copy_from_slice(&relative.to_le_bytes());
    }

    fn branch(&mut self) {
        match self.choices.below(4) {
            0 => self.unary(),
            1 => self.shift(),
            2 => self.arithmetic(),
            _ => {}
        }
        let code = self.choices.below(16) as u8;
        let around = self.jump_ahead(&[0x0f, 0x80 | code]);
        self.body(3);
        if self.choices.below(2) == 0 {
            let end = self.jump_ahead(&[0xe9]);
            self.land(around);
            self.body(3);
            self.land(end);
        } else {
            self.land(around);
        }
    }

    fn repeat(&mut self) {
        let count = match self.choices.below(4) {
            0 => self.choices.below(6) as u32 + 1,
            1 | 2 => self.choices.below(40) as u32 + 1,
            _ => self.choices.below(300) as u32 + 1,
        };
        let kind = self.choices.below(6);
        // PUSH R15; MOV R15D, count.
        self.emit(&[0x41, 0x57, 0x41, 0xbf]);
        self.emit(&if kind == 2 { 0 } else { count }.to_le_bytes());
        let top = self.code.len();
        self.body(5);
        match kind {
            // DEC R15; JNZ.
            0 | 1 => {
                self.emit(&[0x49, 0xff, 0xcf]);
                self.jump_back(&[0x0f, 0x85], top);
            }
            // INC R15D; CMP R15D, count; JB.
            2 => {
                self.emit(&[0x41, 0xff, 0xc7, 0x41, 0x81, 0xff]);
                self.emit(&count.to_le_bytes());
                self.jump_back(&[0x0f, 0x82], top);
            }
            // SUB R15D, 1; JA, which leaves the loop at zero as well.
            3 => {
                self.emit(&[0x41, 0x83, 0xef, 1]);
                self.jump_back(&[0x0f, 0x87], top);
            }
            // MOV ECX, R15D; DEC R15D; LOOP or JRCXZ over a jump back.
            4 => {
                self.emit(&[0x44, 0x89, 0xf9, 0x41, 0xff, 0xcf, 0xe2, 2, 0xeb, 5]);
                self.jump_back(&[0xe9], top);
            }
            _ => {
                self.emit(&[0x41, 0xff, 0xcf, 0x44, 0x89, 0xf9, 0xe3, 5]);
                self.jump_back(&[0xe9], top);
            }
        }
        // ADD R14, imm8 in between: loops over the data. POP R15.
        self.emit(&[0x41, 0x5f]);
    }

    /// A jump through a table that stands in the code.
    fn switch(&mut self) {
        let register = self.choices.pick(&[0, 1, 2, 3, 6, 7]);
        // AND reg, 3; LEA R11, [RIP+table]; JMP [R11+reg*8].
        self.emit(&[0x83, 0xe0 | register, 3, 0x4c, 0x8d, 0x1d]);
        let by_register = self.choices.below(2) == 0;
        let jump: &[u8] = if by_register {
            &[0x4d, 0x8b, 0x1c, 0xc3 | register << 3, 0x41, 0xff, 0xe3]
        } else {
            &[0x41, 0xff, 0x24, 0xc3 | register << 3]
        };
        self.emit(&(jump.len() as u32).to_le_bytes());
        self.emit(jump);
        let table = self.code.len();
        self.code.resize(table + 32, 0);
        let mut ends = Vec::new();
        for case in 0..4 {
            let here = self.here();
            self.code[table + case * 8..][..8].copy_from_slice(&here.to_le_bytes());
            self.body(2);
            if case < 3 {
                ends.push(self.jump_ahead(&[0xe9]));
            }
        }
        for end in ends {
            self.land(end);
        }
    }

    /// A call of an earlier function, so that calls come to an end.
    fn call(&mut self) {
        let count = self.functions.len() as u64;
        if count < 2 {
            return self.stack();
        }
        let target = self.functions[self.choices.below(count - 1) as usize];
        match self.choices.below(4) {
            0 | 1 => {
                self.emit(&[0xe8]);
                let relative = target.wrapping_sub(self.here() + 4) as u32;
                self.emit(&relative.to_le_bytes());
            }
            2 => {
                // MOV EAX, target; CALL RAX.
                self.emit(&[0xb8]);
                self.emit(&(target as u32).to_le_bytes());
                self.emit(&[0xff, 0xd0]);
            }
            _ => {
                // AND EBX, mask of earlier functions; CALL [RBX*8+TABLE].
                let mask = (count.next_power_of_two() / 2).max(1) - 1;
                self.emit(&[0x83, 0xe3, mask.min(count - 2) as u8 & mask as u8, 0xff, 0x14, 0xdd]);
                self.emit(&(TABLE as u32).to_le_bytes());
            }
        }
    }

    /// Stores into code.
    fn rewrite(&mut self) {
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

    fn doubles(&mut self) {
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

    fn vector(&mut self) {
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

    fn string(&mut self) {
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

    /// Moves the pointers.
    fn pointers(&mut self) {
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
    fn paging(&mut self) {
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

    fn system(&mut self) {
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
    fn noise(&mut self) {
        let bytes = self.choices.word().to_le_bytes();
        let count = self.choices.below(8) as usize + 1;
        self.emit(&bytes[..count]);
    }
}
