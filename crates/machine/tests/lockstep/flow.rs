//! The stack, branches, loops and calls of generated programs.

use crate::place::TABLE;
use crate::writer::Width::Double;
use crate::writer::{FREE, Writer};

impl Writer<'_, '_> {
    pub(crate) fn stack(&mut self) {
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
    pub(crate) fn jump_back(&mut self, opcode: &[u8], to: usize) {
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

    pub(crate) fn branch(&mut self) {
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

    pub(crate) fn repeat(&mut self) {
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
    pub(crate) fn switch(&mut self) {
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
    pub(crate) fn call(&mut self) {
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
}
