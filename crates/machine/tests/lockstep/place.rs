//! Where generated programs run: address spaces, handlers, an APIC timer, one or two processors.
//!
//! Code, data, stacks and tables are mapped where they lie in RAM, but for the data: it consists of fewer pages than it seems, in another
//! order in each address space, some of it shared with the code, read-only, or absent until a page fault brings it in. The handler of page
//! faults maps what was absent, makes writable what was not, and sends all others back to the main loop, as the other handlers do.

use crate::choices::Choices;
use crate::program::{Program, generate};
use cpu::apic::register;
use cpu::state::Activity;
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use machine::{Machine, MachineConfig};
use std::sync::OnceLock;

/// Where a program lies, and where else.
pub const CODE: u64 = 0x10_0000;
pub const CODE_ALIAS: u64 = 0x18_0000;
pub const CODE_BYTES: u64 = 0x8000;
/// The data, in pages.
pub const DATA: u64 = 0x20_0000;
pub const DATA_PAGES: u64 = 16;
/// Stacks and variables of the processors, 64 KiB for each: the stack below 4000H, that of handlers below 8000H, variables behind.
const AREAS: u64 = 0x30_0000;
const HANDLERS: u64 = 0x40_0000;
const IDT: u64 = 0x40_1000;
const GDT: u64 = 0x40_2000;
const TSS: u64 = 0x40_3000;
/// Addresses of the functions.
pub const TABLE: u64 = CODE + CODE_BYTES - 0x200;
/// How many functions and address spaces there are.
pub const FUNCTIONS: u64 = 8;
pub const SPACES: u64 = 3;
const SPACE: u64 = 0x41_0000;
const KERNEL_TABLE: u64 = 0x42_0000;
const HIGH_DIRECTORY: u64 = 0x42_1000;
pub const MEMORY: u64 = 0x43_0000;

/// The root table of an address space; the other tables of its own follow.
pub fn space(number: u64) -> u64 {
    SPACE + number * 0x5000
}

/// Where the entry for a page of data is.
pub fn data_entry(number: u64, page: u64) -> u64 {
    space(number) + 0x4000 + 8 * page
}

const HANDLER_TEXT: &str = "
    page:
        push rax
        push rcx
        push rdx
        mov rax, cr2
        mov rcx, rax
        sub rcx, 0x200000
        cmp rcx, 0x10000
        jae other
        shr rcx, 12
        mov rdx, cr3
        and rdx, -4096
        add rdx, 0x4000
        test byte [rsp+24], 1
        jnz denied
        or byte [rdx+rcx*8], 1
        jmp resume
    denied:
        test byte [rsp+24], 2
        jz other
        test byte [rdx+rcx*8], 2
        jnz other
        or byte [rdx+rcx*8], 3
        invlpg [rax]
    resume:
        pop rdx
        pop rcx
        pop rax
        add rsp, 8
        iretq
    other:
        add rsp, 24
    coded:
        add rsp, 8
    plain:
        mov rbx, rsp
        and rbx, -65536
        inc qword [rbx+0x8008]
        mov rax, 0x100000
        mov [rsp], rax
        lea rax, [rbx+0x3f00]
        mov [rsp+24], rax
        and qword [rsp+16], 0x8d5
        or qword [rsp+16], 0x202
        iretq
    timer:
        push rax
        push rcx
        push rdx
        mov ecx, 0xfee00000
        mov dword [rcx+0xb0], 0
        rdtsc
        imul eax, eax, 1103515245
        shr eax, 24
        add eax, 3
        mov [rcx+0x380], eax
        pop rdx
        pop rcx
        pop rax
        iretq
    signal:
        push rcx
        mov ecx, 0xfee00000
        mov dword [rcx+0xb0], 0
        pop rcx
        iretq
    called:
        not rax
        iretq
    single:
        and dword [rsp+16], -257
        iretq
    breakpoint:
        iretq";

struct Handlers {
    code: Vec<u8>,
    gates: Vec<(u64, u64)>,
}

/// The handlers, with the gates that lead to them.
fn handlers() -> &'static Handlers {
    static HANDLERS_ONCE: OnceLock<Handlers> = OnceLock::new();
    HANDLERS_ONCE.get_or_init(|| {
        let options = assembler::Options { origin: HANDLERS, ..assembler::Options::default() };
        let program = assembler::assemble(HANDLER_TEXT, &options).expect("the handlers assemble");
        let at = |name: &str| *program.symbols.get(name).expect("a label of the handlers");
        let gates = (0..32)
            .map(|vector| {
                let name = match vector {
                    1 => "single",
                    3 => "breakpoint",
                    14 => "page",
                    8 | 10 | 11 | 12 | 13 | 17 | 21 | 29 | 30 => "coded",
                    _ => "plain",
                };
                (vector, at(name))
            })
            .chain([(0x40, at("timer")), (0x41, at("signal")), (0x80, at("called"))])
            .collect();
        Handlers { code: program.bytes, gates }
    })
}

/// A machine that can be made twice.
pub struct Case {
    program: Program,
    model: usize,
    cpu_count: u32,
    user: bool,
    timer: u32,
    schedule: u64,
    data: u64,
}

impl Case {
    pub fn new(choices: &mut Choices<'_>) -> Self {
        // The two models with everything, twice as often as those with little.
        let model = choices.pick(&[2, 3, 2, 3, 0, 1]);
        let (user, second) = (choices.one_in(4), choices.one_in(4));
        let timer = choices.pick(&[0, 20, 90, 1000]);
        let (schedule, data) = (choices.below(256), choices.below(256));
        Self { model, cpu_count: 1 + u32::from(second), user, timer, schedule, data, program: generate(choices, user) }
    }

    /// The bytes of the program, from [`CODE`] on.
    pub fn code(&self) -> &[u8] {
        &self.program.code
    }

    /// The machine, in front of the first instruction of the main loop.
    pub fn machine(&self) -> Machine {
        let model = models::MODELS[self.model];
        let mut machine = Machine::new(&MachineConfig { model, cpu_count: self.cpu_count, memory_size: MEMORY, seed: self.schedule });
        self.fill(&mut machine);
        for number in 0..self.cpu_count {
            self.start(&mut machine, number);
        }
        machine
    }

    fn fill(&self, machine: &mut Machine) {
        let memory = &mut machine.memory;
        let mut put = |address: u64, value: u64| memory.write_u64(address, value).expect("it lies in RAM");
        let user = if self.user { 4 } else { 0 };
        for number in 0..SPACES {
            let root = space(number);
            put(root, (root + 0x1000) | 7);
            put(root + 0x1000, (root + 0x2000) | 7);
            put(root + 0x1018, HIGH_DIRECTORY | 7);
            put(root + 0x2000, (root + 0x3000) | 7);
            put(root + 0x2008, (root + 0x4000) | 7);
            put(root + 0x2010, KERNEL_TABLE | 7);
            for page in 0..CODE_BYTES >> 12 {
                let own = CODE + (page << 12);
                put(root + 0x3000 + 8 * (own >> 12), own | 3 | user);
                put(root + 0x3000 + 8 * ((CODE_ALIAS >> 12) + page), own | 3 | user);
            }
            for page in 0..DATA_PAGES {
                let (frame, rights) = match page {
                    8..=9 => (DATA + ((page - 8) << 12), 3),
                    10 => (CODE + CODE_BYTES - 0x1000, 3),
                    11 | 13 => (DATA + (page << 12), 2),
                    12 => (DATA + (page << 12), 1),
                    14 => (DATA + (14 << 12), 0x103),
                    15 => (CODE + 0x1000, 3),
                    _ => (DATA + (((page + 3 * number) % 8) << 12), 3),
                };
                put(data_entry(number, page), frame | rights | user);
            }
            for page in 0..u64::from(self.cpu_count) * 16 {
                let own = AREAS + (page << 12);
                put(root + 0x4000 + 8 * ((own >> 12) & 511), own | 3 | user);
            }
        }
        for page in 0..0x30 {
            put(KERNEL_TABLE + 8 * page, (HANDLERS + (page << 12)) | 3);
        }
        // The APIC's registers: a large page, uncached.
        put(HIGH_DIRECTORY + 8 * 0x1f7, 0xfee0_0000 | 0x9b);
        for (vector, handler) in &handlers().gates {
            let kind = if *vector == 0x80 || *vector == 3 { 0xee01 } else { 0x8e01 };
            put(IDT + 16 * vector, handler & 0xffff | 8 << 16 | kind << 32 | (handler >> 16 & 0xffff) << 48);
            put(IDT + 16 * vector + 8, handler >> 32);
        }
        let descriptors = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
        for (number, descriptor) in descriptors.into_iter().enumerate() {
            put(GDT + 8 * number as u64, descriptor);
        }
        for number in 0..u64::from(self.cpu_count) {
            // The first stack of the interrupt stack table; the same for interrupts from user mode.
            put(TSS + 0x80 * number + 4, AREAS + 0x1_0000 * number + 0x8000);
            put(TSS + 0x80 * number + 36, AREAS + 0x1_0000 * number + 0x8000);
        }
        let mut random = Choices::seeded(self.data);
        let numbers = [0.0, -0.0, 1.0, -1.5, 3e-310, -5e-324, 2.3e-308, 1e300, -1e-160, f64::INFINITY, f64::NAN, 7.25, 1e-200, f64::MAX];
        for place in 0..8 * 512u64 {
            let value = match random.below(4) {
                0 => random.word(),
                1 => random.below(100),
                _ => f64::to_bits(random.pick(&numbers)),
            };
            put(DATA + 8 * place, value);
        }
        for (number, function) in self.program.functions.iter().enumerate() {
            put(TABLE + 8 * number as u64, *function);
        }
        let handlers = handlers();
        memory.write(HANDLERS, &handlers.code).expect("it lies in RAM");
        memory.write(CODE, &self.program.code).expect("it lies in RAM");
    }

    fn start(&self, machine: &mut Machine, number: u32) {
        let cpu = &mut machine.cpus[number as usize];
        let has = |feature| cpu.has(feature);
        let controls = u64::from(has(Feature::Fsgsbase)) << 16 | u64::from(has(Feature::Pcid)) << 17;
        cpu.cr0 = Cr0::from_bits(0x8001_0033);
        cpu.cr4 = Cr4::from_bits(0x6b0 | controls);
        cpu.cr3 = space(0);
        cpu.efer = Efer::from_bits(0xd00);
        let segment = |selector, attributes| SegmentRegister {
            selector: Selector::from_bits(selector),
            base: 0,
            limit: u32::MAX,
            attributes: Attributes::from_bits(attributes),
        };
        let (code, data) =
            if self.user { (segment(0x23, 0xa0fb), segment(0x1b, 0xc0f3)) } else { (segment(8, 0xa09b), segment(0x10, 0xc093)) };
        cpu.segments = [data; 6];
        cpu.segments[1] = code;
        cpu.segments[4].base = DATA + 0x7f0;
        cpu.segments[5].base = DATA + 0x2000;
        cpu.cpl = if self.user { 3 } else { 0 };
        cpu.gdtr = TableRegister { base: GDT, limit: 0x27 };
        cpu.idtr = TableRegister { base: IDT, limit: 0xfff };
        cpu.tr = SegmentRegister { base: TSS + 0x80 * u64::from(number), limit: 0x67, ..segment(0x28, 0x8b) };
        cpu.set_rflags(isa::rflags::Rflags::from_bits(0x202));
        cpu.flush_tlb();
        cpu.rip = CODE;
        cpu.regs[4] = AREAS + 0x1_0000 * u64::from(number) + 0x3f00;
        cpu.activity = Activity::Active;
        let program = [
            (register::SVR, 0x1ff),
            (register::LVT_TIMER, 0x40),
            (register::TIMER_DIVIDE, 0xb),
            (register::TIMER_INITIAL_COUNT, self.timer),
        ];
        for (register, value) in program {
            cpu.apic.write(register, value, 0);
        }
    }
}
