//! A guest: a program of random steps, with the tables and handlers that let every fault be noted and gone on from.

use crate::tables::{self, Content, USER_CODE, USER_STACK};
use crate::{Mode, Random};
use cpu::state::Cpu;
use hypervisor::Registers;
use isa::control::{Cr0, Cr4, Efer};
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use models::CpuModel;

/// Where the program is.
const CODE: u64 = 0x10_0000;
const GDT: u64 = 0x14_0000;
const TSS: u64 = 0x14_0800;
const IDT: u64 = 0x14_1000;
/// Stacks grow down from here: the program's, and in 64-bit mode that of #PF and #DF.
const STACK: u64 = 0x15_1000;
const SAFE_STACK: u64 = 0x15_3000;
/// What the handlers note: four words of eight bytes for each step.
pub const LOG: u64 = 0x16_0000;
/// Steps of a program.
const STEPS: u64 = 60;

/// A guest.
pub struct Program {
    /// Its memory.
    pub memory: Vec<u8>,
    /// Where it begins.
    pub registers: Registers,
    /// What it is told to do.
    pub text: String,
    /// How many entries its log has.
    pub entries: usize,
}

/// The user's part: functions that end with INT 80H, at fixed distances.
const USER_TEXT: &str = r"
    mov BX, [AX]
    int 0x80
    align 16
    mov [AX], CX
    int 0x80
    align 16
    add [AX], CX
    int 0x80
    align 16
    call AX
    int 0x80
    align 16
    lock xadd [AX], CX
    int 0x80
    align 16
";

/// An access of a step: its text as supervisor, and the number of the user's function.
const ACCESSES: [(&str, u64); 5] =
    [("mov BX, [AX]", 0), ("mov [AX], CX", 1), ("add [AX], CX", 2), ("call AX", 3), ("lock xadd [AX], CX", 4)];

struct Writer<'a> {
    mode: Mode,
    content: Content,
    model: &'static CpuModel,
    random: &'a mut Random,
    text: String,
    /// Steps so far.
    step: u64,
    write_protect: bool,
}

impl Writer<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// Drops everything that the processor may hold, global pages included.
    fn flush(&mut self) {
        self.line("mov AX, cr4\nxor AX, 0x80\nmov cr4, AX\nxor AX, 0x80\nmov cr4, AX\nmov AX, cr3\nmov cr3, AX");
    }

    /// Begins a step: where a fault goes on, and which step it is.
    fn begin(&mut self) {
        let step = self.step;
        self.line(format!("; step {step}\nmov SI, after_{step}\nmov BP, {:#x}", LOG + 32 * step));
    }

    fn end(&mut self) {
        let step = self.step;
        self.line(format!("after_{step}:\nmov SP, {STACK:#x}\nmov [BP+24], BX"));
        self.step += 1;
    }

    fn access(&mut self) {
        let mode = self.mode;
        let linear = tables::window(mode, self.random);
        let executes = !self.content.anything;
        let (supervisor, function) = loop {
            let access = self.random.pick(&ACCESSES);
            if access.1 != 3 || executes {
                break access;
            }
        };
        let offset = match function {
            3 => 0xff0,
            // Over the end of a page, now and then.
            _ if self.random.chance(8) && !executes => 0xffd,
            _ => self.random.below(0x7e) * 32,
        };
        let value = self.random.word() & 0x7f7f_7f7f;
        self.begin();
        self.line(format!("mov AX, {:#x}\nmov CX, {value:#x}", linear + offset));
        if self.random.chance(45) {
            let target = USER_CODE + 16 * function;
            if mode == Mode::Level4 {
                self.line(format!(
                    "push 0x1b\npush {:#x}\npush 0x3002\npush 0x23\nmov rdx, {target:#x}\npush rdx\niretq",
                    USER_STACK + 0x800
                ));
            } else {
                self.line(format!("push 0x1b\npush {:#x}\npush 0x3002\npush 0x23\npush {target:#x}\niretd", USER_STACK + 0x800));
            }
        } else {
            self.line(supervisor);
        }
        self.end();
        if function != 0 && self.content.anything {
            // It may have written to a table.
            self.flush();
        }
    }

    /// A change of an entry, with the invalidation that it needs.
    fn change(&mut self) {
        let mode = self.mode;
        let (place, level) = tables::place(mode, self.random);
        let width = if mode == Mode::Bits32 { 4 } else { 8 };
        let entry = tables::entry(mode, level, place / width % 8, self.content, self.random);
        self.begin();
        match self.random.below(4) {
            // More rights need no invalidation. (That of the user is one less for the supervisor, with SMEP and SMAP.)
            0 => self.line(format!("mov AX, {place:#x}\nor byte [AX], 2")),
            _ if mode == Mode::Pae => {
                self.line(format!("mov AX, {place:#x}\nmov dword [AX], {:#x}\nmov dword [AX+4], {:#x}", entry as u32, entry >> 32));
                self.flush();
            }
            _ if width == 4 => {
                self.line(format!("mov AX, {place:#x}\nmov dword [AX], {:#x}", entry as u32));
                self.flush();
            }
            _ => {
                self.line(format!("mov rax, {place:#x}\nmov rcx, {entry:#x}\nmov [rax], rcx"));
                if self.content.tree && level == 1 && self.random.chance(60) {
                    self.invalidate_all_of(place);
                } else {
                    self.flush();
                }
            }
        }
        self.line("xor BX, BX");
        self.end();
    }

    /// INVLPG of every address that an entry of a lowest table can map in a tree.
    fn invalidate_all_of(&mut self, place: u64) {
        let page = place / 8 % 512;
        for high in 0..2_u64 {
            for middle in 0..4_u64 {
                let linear = 0x80_0000_0000 + (high << 30) + (middle << 21) + (page << 12);
                self.line(format!("mov rax, {linear:#x}\ninvlpg [rax]"));
            }
        }
    }

    /// A change of what paging depends on.
    fn switch(&mut self) {
        let long = self.mode == Mode::Level4;
        self.begin();
        match self.random.below(7) {
            0 | 1 => {
                let number = self.random.below(2);
                self.line(format!("mov AX, {:#x}\nmov cr3, AX", tables::root(self.mode, number)));
            }
            2 => {
                self.write_protect = !self.write_protect;
                self.line("mov AX, cr0\nxor AX, 0x10000\nmov cr0, AX");
            }
            3 if self.content.no_execute => self.line("mov ecx, 0xc0000080\nrdmsr\nxor eax, 0x800\nwrmsr"),
            4 if self.model.supported_cr4().smep() => {
                let bits = self.random.pick(&[1 << 20, 1 << 21, 3 << 20]) & self.model.supported_cr4().into_bits();
                self.line(format!("mov AX, cr4\nxor AX, {bits:#x}\nmov cr4, AX"));
            }
            5 if self.model.supported_cr4().smap() => {
                let word = self.random.pick(&["stac", "clac"]);
                self.line(word);
            }
            6 if self.mode == Mode::Bits32 => self.line("mov AX, cr4\nxor AX, 0x10\nmov cr4, AX"),
            6 if !long && !self.content.anything => {
                // A look at memory without paging.
                self.line("mov AX, cr0\nand AX, 0x7fffffff\nmov cr0, AX\nadd dword [0x400010], 1\nadd dword [0x200000], 0");
                self.line("or AX, 0x80000000\nmov cr0, AX");
            }
            _ => self.line("nop"),
        }
        self.flush();
        self.line("xor BX, BX");
        self.end();
    }

    /// Events on a stack in the window: the processor itself writes there.
    fn event(&mut self) {
        if self.mode != Mode::Level4 || self.content.anything {
            return self.access();
        }
        let linear = tables::window(self.mode, self.random) + 0x800;
        self.begin();
        self.line(format!("mov rsp, {linear:#x}\nxor ebx, ebx\nint 0x81"));
        self.end();
    }
}

fn put(memory: &mut [u8], address: u64, bytes: &[u8]) {
    memory[address as usize..][..bytes.len()].copy_from_slice(bytes);
}

/// The words of a mode for the registers in a text.
fn spell(text: &str, mode: Mode) -> String {
    let prefix = if mode == Mode::Level4 { "r" } else { "e" };
    ["AX", "BX", "CX", "SI", "BP", "SP"]
        .iter()
        .fold(text.to_owned(), |text, name| text.replace(name, &format!("{prefix}{}", name.to_lowercase())))
}

fn assemble(text: &str, mode: Mode, origin: u64) -> assembler::Program {
    let bits = if mode == Mode::Level4 { assembler::Bits::SixtyFour } else { assembler::Bits::ThirtyTwo };
    assembler::assemble(text, &assembler::Options { origin, bits, ..assembler::Options::default() })
        .unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"))
}

impl Program {
    /// A guest for a model; a `portable` one has no entries whose meaning depends on the width of physical addresses.
    pub fn new(random: &mut Random, mode: Mode, model: &'static CpuModel, portable: bool) -> Self {
        let content = Content {
            portable,
            anything: random.chance(50),
            tree: random.chance(40),
            gigabytes: mode == Mode::Level4 && model.has(isa::cpuid::Feature::Page1gb),
            no_execute: mode != Mode::Bits32 && model.has(isa::cpuid::Feature::Nx),
        };
        let content = Content { gigabytes: content.gigabytes && content.anything, ..content };
        let mut writer = Writer { mode, content, model, random, text: String::new(), step: 0, write_protect: true };
        while writer.step < STEPS {
            match writer.random.below(12) {
                0..=6 => writer.access(),
                7 | 8 => writer.change(),
                9 | 10 => writer.switch(),
                _ => writer.event(),
            }
        }
        // Every fault is noted at RBP: the error code and CR2, or the vector. An end of a user's function goes on like a fault, unnoted.
        writer.line("hlt");
        writer.line("handle_code:\npop BX\nmov [BP+8], BX\nmov BX, cr2\nmov [BP+16], BX\nmov BX, 0xfa17\nmov SP, 0x151000\njmp SI");
        writer.line("handle_plain:\nmov BX, 0xbad\nmov [BP+8], BX\nmov SP, 0x151000\njmp SI");
        writer.line("handle_user:\nmov SP, 0x151000\njmp SI");
        writer.line("handle_event:\nmov BX, 0xe7e7\nmov SP, 0x151000\njmp SI");
        let (steps, text) = (writer.step, spell(&writer.text, mode));
        let program = assemble(&text, mode, CODE);
        let user = assemble(&spell(USER_TEXT, mode), mode, USER_CODE);
        let mut memory = vec![0; tables::RAM as usize];
        put(&mut memory, CODE, &program.bytes);
        put(&mut memory, USER_CODE, &user.bytes);
        tables::build(&mut memory, mode, content, random);
        let registers = environment(&mut memory, mode, model, &program);
        Self { memory, registers, text, entries: steps as usize }
    }
}

/// Descriptor tables, and the registers that the program begins with.
fn environment(memory: &mut [u8], mode: Mode, model: &'static CpuModel, program: &assembler::Program) -> Registers {
    let long = mode == Mode::Level4;
    let code: u64 = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let tss = 0x0000_8b00_0000_0067 | (TSS & 0xff_ffff) << 16;
    for (index, descriptor) in [0, code, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, code | 0x6000 << 32, tss, 0].into_iter().enumerate()
    {
        put(memory, GDT + 8 * index as u64, &u64::to_le_bytes(descriptor));
    }
    if long {
        put(memory, TSS + 4, &STACK.to_le_bytes());
        put(memory, TSS + 0x24, &SAFE_STACK.to_le_bytes());
    } else {
        put(memory, TSS + 4, &(STACK as u32).to_le_bytes());
        put(memory, TSS + 8, &16_u32.to_le_bytes());
    }
    for vector in 0..0x82_u64 {
        let name = match vector {
            8 | 10..=14 | 17 | 21 => "handle_code",
            0x80 => "handle_user",
            0x81 => "handle_event",
            _ => "handle_plain",
        };
        let handler = program.symbols[name];
        let safe = if long && matches!(vector, 8 | 14) { 1 << 32 } else { 0 };
        let gate = handler & 0xffff | 8 << 16 | 0xee00 << 32 | (handler >> 16 & 0xffff) << 48 | safe;
        if long {
            put(memory, IDT + 16 * vector, &gate.to_le_bytes());
        } else {
            put(memory, IDT + 8 * vector, &gate.to_le_bytes());
        }
    }
    let segment = |selector: u16, rights: u32, base: u64, limit: u32| SegmentRegister {
        selector: Selector::from_bits(selector),
        base,
        limit,
        attributes: Attributes::from_bits(rights),
    };
    let mut cpu = Cpu::new(model, 0, 1, None);
    cpu.reset();
    let mut registers = Registers::of(&cpu);
    // Data segments are the user's, so that IRET to it leaves them.
    registers.segments = [segment(0x1b, 0xc0f3, 0, u32::MAX); 6];
    registers.segments[Segment::Ss as usize] = segment(16, 0xc093, 0, u32::MAX);
    registers.segments[Segment::Cs as usize] = segment(8, if long { 0xa09b } else { 0xc09b }, 0, u32::MAX);
    registers.tr = segment(40, 0x8b, TSS, 0x67);
    registers.gdtr = TableRegister { base: GDT, limit: 0x37 };
    registers.idtr = TableRegister { base: IDT, limit: 0xfff };
    registers.cr0 = Cr0::new().with_pe(true).with_et(true).with_ne(true).with_wp(true).with_pg(true);
    registers.cr4 = Cr4::new().with_pae(mode != Mode::Bits32).with_pse(mode == Mode::Bits32).with_pge(true);
    registers.efer = Efer::new().with_lme(long).with_lma(long).with_nxe(mode != Mode::Bits32);
    registers.cr3 = tables::root(mode, 0);
    if mode == Mode::Pae {
        for (index, entry) in registers.pdptes.iter_mut().enumerate() {
            let at = registers.cr3 as usize + 8 * index;
            *entry = u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        }
    }
    registers.gprs[4] = STACK;
    registers.rip = CODE;
    registers
}
