//! A processor, memory and an assembler: what the tests of system behaviour run on.
#![allow(dead_code, reason = "each test file uses a part of it")]

use assembler::Bits;
use cpu::block::CodeCache;
use cpu::bus::{Bus, Environment};
use cpu::trap::{Outcome, Trap};
use cpu::{Cpu, RunExit};
use isa::control::{Cr0, Cr4, Efer};
use isa::register::{Gpr, Segment};
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use memory::Memory;
use models::CpuModel;

/// No devices, and a note of what the local APIC sent.
#[derive(Debug, Default)]
pub struct Quiet {
    pub sent: Vec<cpu::apic::IcrMessage>,
    pub ended: Vec<u8>,
}

impl Bus for Quiet {
    fn port_read(&mut self, _: u16, width: u8, _: u64) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(width))
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32, _: u64) {}
    fn memory_read(&mut self, _: u64, _: u8, _: u64) -> u64 {
        u64::MAX
    }
    fn memory_write(&mut self, _: u64, _: u8, _: u64, _: u64) {}
    fn send(&mut self, _: u32, message: cpu::apic::IcrMessage, _: u64) {
        self.sent.push(message);
    }
    fn end_of_interrupt(&mut self, vector: u8) {
        self.ended.push(vector);
    }
    fn acknowledge(&mut self) -> u8 {
        0x77
    }
    fn attention(&self) -> bool {
        false
    }
}

/// Top-level page table of 64-bit machines; 1 GiB identity-mapped with 2-MiB pages, but the first 2 MiB by 4-KiB pages at `PAGES`.
pub const ROOT: u64 = 0x1000;
/// Entries of the first 2 MiB.
pub const PAGES: u64 = 0x4000;
pub const GDT: u64 = 0x5000;
pub const IDT: u64 = 0x6000;
pub const TSS: u64 = 0x7000;
/// Handler of vector `v` is a HLT at `HANDLERS + 16 * v`.
pub const HANDLERS: u64 = 0x8000;
/// Stack of level 0 that the TSS names; IST1 is 0x400 below.
pub const INNER_STACK: u64 = 0xb000;
pub const STACK: u64 = 0xc000;
pub const CODE: u64 = 0x1_0000;

/// Selectors of the GDT: level 0 code and data, level 3 data and code (in SYSRET's order), TSS, compatibility code.
pub const CODE_0: u16 = 0x08;
pub const DATA_0: u16 = 0x10;
pub const CODE32_3: u16 = 0x1b;
pub const DATA_3: u16 = 0x23;
pub const CODE_3: u16 = 0x2b;
pub const TASK: u16 = 0x30;

pub struct Machine {
    pub cpu: Box<Cpu>,
    pub memory: Memory,
    pub code: CodeCache,
    pub bus: Quiet,
    pub symbols: std::collections::BTreeMap<String, u64>,
}

fn segment(selector: u16, base: u64, limit: u32, attributes: u32) -> SegmentRegister {
    SegmentRegister { selector: Selector::from_bits(selector), base, limit, attributes: Attributes::from_bits(attributes) }
}

impl Machine {
    fn bare(model: &'static CpuModel, bits: Bits, source: &str) -> Self {
        let program = assembler::assemble(source, &assembler::Options { origin: CODE, bits, ..Default::default() })
            .unwrap_or_else(|errors| panic!("{errors:?}"));
        let mut memory = Memory::new(16 << 20);
        memory.write(CODE, &program.bytes).unwrap();
        let mut cpu = Cpu::new(model, 0, 1, None);
        cpu.rip = CODE;
        cpu.set_gpr(Gpr::Rsp, STACK);
        for vector in 0..256 {
            memory.write(HANDLERS + 16 * vector, &[0xf4]).unwrap();
        }
        Self { cpu, memory, code: CodeCache::new(), bus: Quiet::default(), symbols: program.symbols }
    }

    /// 64-bit mode at level 0.
    pub fn long(source: &str) -> Self {
        Self::long_on(&models::SKYLAKE_SERVER, source)
    }

    pub fn long_on(model: &'static CpuModel, source: &str) -> Self {
        let mut machine = Self::bare(model, Bits::SixtyFour, source);
        let memory = &mut machine.memory;
        memory.write_u64(ROOT, 0x2007).unwrap();
        memory.write_u64(0x2000, 0x3007).unwrap();
        memory.write_u64(0x3000, PAGES | 7).unwrap();
        for page in 0..512 {
            memory.write_u64(PAGES + 8 * page, page << 12 | 7).unwrap();
            if page > 0 {
                memory.write_u64(0x3000 + 8 * page, page << 21 | 0x87).unwrap();
            }
        }
        let gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
        for (index, descriptor) in gdt.into_iter().enumerate() {
            memory.write_u64(GDT + 8 * index as u64, descriptor).unwrap();
        }
        memory.write_u64(GDT + u64::from(TASK), 0x0000_8900_0000_0067 | (TSS & 0xff_ffff) << 16).unwrap();
        memory.write_u64(TSS + 4, INNER_STACK).unwrap();
        memory.write_u64(TSS + 0x24, INNER_STACK - 0x400).unwrap();
        for vector in 0..256 {
            let dpl = if (3..=4).contains(&vector) || vector == 0x80 { 0xee } else { 0x8e };
            let handler = HANDLERS + 16 * vector;
            memory.write_u64(IDT + 16 * vector, handler & 0xffff | u64::from(CODE_0) << 16 | dpl << 40).unwrap();
        }
        let cpu = &mut machine.cpu;
        cpu.cr0 = Cr0::from_bits(0x8001_0011);
        cpu.cr3 = ROOT;
        cpu.cr4 = Cr4::from_bits(0x6a0);
        cpu.efer = Efer::from_bits(0xd01);
        cpu.gdtr = TableRegister { base: GDT, limit: 0x3f };
        cpu.idtr = TableRegister { base: IDT, limit: 0xfff };
        cpu.tr = segment(TASK, TSS, 0x67, 0x8b);
        cpu.segments = [segment(DATA_0, 0, u32::MAX, 0xc093); 6];
        cpu.segments[Segment::Cs.number()] = segment(CODE_0, 0, u32::MAX, 0xa09b);
        cpu.context_changed();
        machine
    }

    /// Protected mode at level 0, without paging, with 32-bit segments of the same selectors.
    pub fn protected(source: &str) -> Self {
        let mut machine = Self::bare(&models::SKYLAKE_SERVER, Bits::ThirtyTwo, source);
        let memory = &mut machine.memory;
        let gdt = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0x00cf_fb00_0000_ffff];
        for (index, descriptor) in gdt.into_iter().enumerate() {
            memory.write_u64(GDT + 8 * index as u64, descriptor).unwrap();
        }
        memory.write_u64(GDT + u64::from(TASK), 0x0000_8900_0000_0067 | TSS << 16).unwrap();
        memory.write_u64(TSS + 4, INNER_STACK | u64::from(DATA_0) << 32).unwrap();
        for vector in 0..256 {
            let dpl = if vector == 0x80 { 0xee } else { 0x8e };
            let handler = HANDLERS + 16 * vector;
            memory.write_u64(IDT + 8 * vector, handler & 0xffff | u64::from(CODE_0) << 16 | dpl << 40).unwrap();
        }
        let cpu = &mut machine.cpu;
        cpu.cr0 = Cr0::from_bits(0x11);
        cpu.gdtr = TableRegister { base: GDT, limit: 0x4f };
        cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
        cpu.tr = segment(TASK, TSS, 0x67, 0x8b);
        cpu.segments = [segment(DATA_0, 0, u32::MAX, 0xc093); 6];
        cpu.segments[Segment::Cs.number()] = segment(CODE_0, 0, u32::MAX, 0xc09b);
        cpu.context_changed();
        machine
    }

    /// Real-address mode, CS based at [`CODE`] so that offsets begin at zero; the source must say `org 0`.
    pub fn real(source: &str) -> Self {
        let mut machine = Self::bare(&models::SKYLAKE_SERVER, Bits::Sixteen, source);
        let cpu = &mut machine.cpu;
        cpu.segments = [SegmentRegister::real_mode(0); 6];
        cpu.segments[Segment::Cs.number()] = segment((CODE >> 4) as u16, CODE, 0xffff, 0x9b);
        cpu.rip = 0;
        cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
        cpu.context_changed();
        machine
    }

    /// Makes the program run at level 3 (64-bit and 32-bit machines alike).
    pub fn into_user(mut self) -> Self {
        let long = self.cpu.long_mode();
        self.cpu.segments = [segment(DATA_3, 0, u32::MAX, 0xc0f3); 6];
        self.cpu.segments[Segment::Cs.number()] = segment(CODE_3, 0, u32::MAX, if long { 0xa0fb } else { 0xc0fb });
        self.cpu.cpl = 3;
        self.cpu.context_changed();
        self
    }

    pub fn symbol(&self, name: &str) -> u64 {
        self.symbols[name]
    }

    pub fn run(&mut self) -> RunExit {
        self.run_for(100_000)
    }

    pub fn run_for(&mut self, instructions: u64) -> RunExit {
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut self.bus };
        let limit = self.cpu.instructions() + instructions;
        self.cpu.run(&mut environment, u64::MAX / 2, limit)
    }

    /// Runs to a HLT and says which: the vector if it is a handler's.
    pub fn run_to_handler(&mut self) -> Option<u64> {
        let exit = self.run();
        assert_eq!(exit, RunExit::Idle, "at {:#x}", self.cpu.rip);
        let place = self.cpu.rip.wrapping_sub(1);
        (HANDLERS..HANDLERS + 0x1000).contains(&place).then(|| (place - HANDLERS) / 16)
    }

    pub fn with<T>(&mut self, call: impl FnOnce(&mut Cpu) -> T) -> T {
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut self.bus };
        self.cpu.with_environment(&mut environment, call)
    }

    /// The 64-bit words on top of the stack.
    pub fn stack(&self, words: u64) -> Vec<u64> {
        let rsp = self.cpu.gpr(Gpr::Rsp);
        (0..words).map(|word| self.memory.read_u64(rsp + 8 * word).unwrap()).collect()
    }

    /// The 32-bit words on top of the stack.
    pub fn stack32(&self, words: u64) -> Vec<u64> {
        let rsp = self.cpu.gpr(Gpr::Rsp);
        (0..words).map(|word| u64::from(self.memory.read_u32(rsp + 4 * word).unwrap())).collect()
    }
}

/// The exception of an outcome: vector and error code.
pub fn fault<T: std::fmt::Debug>(outcome: Outcome<T>) -> Option<(u8, Option<u32>)> {
    match outcome {
        Ok(_) => None,
        Err(Trap::Exception(exception)) => Some((exception.vector as u8, exception.error_code)),
        Err(other) => panic!("{other:?}"),
    }
}
