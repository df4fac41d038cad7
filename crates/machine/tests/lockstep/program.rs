//! Structured random programs in 64-bit mode, for comparing tiers.
//!
//! A program is a table of functions that a main loop calls in turn for ever. Functions are made of loops, branches on every condition,
//! calls and jumps through tables, arithmetic of every width, memory operands of every form, stores into code, double-precision arithmetic
//! and system instructions. R12, RBP and R14 point into the data, R13 is a small index, R15 counts loops; the rest is free.

use crate::choices::Choices;
use crate::place::{CODE_BYTES, DATA, FUNCTIONS, TABLE};
use crate::writer::Writer;

/// What a program needs of its surroundings.
pub struct Program {
    /// The bytes at `CODE`.
    pub code: Vec<u8>,
    /// Addresses of the functions, for the table at `TABLE`.
    pub functions: Vec<u64>,
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

    pub(crate) fn body(&mut self, most: u64) {
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
}
