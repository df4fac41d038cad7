//! The functions of this module, executed one by one on a processor in 64-bit mode.

mod availability;
mod conversion;
mod float;
mod integer;
mod mmx;
mod moves;
mod save;

use crate::block::CodeCache;
use crate::bus::{Environment, NoDevices};
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use isa::control::{Cr0, Cr4, Efer};
use isa::register::{Gpr, Segment};
use isa::segment::{Attributes, SegmentRegister, Selector};
use memory::Memory;

/// Where RSI points: aligned to a page.
pub(crate) const DATA: u64 = 0x3000;

/// A processor and its memory.
pub(crate) struct Bench {
    pub cpu: Box<Cpu>,
    memory: Memory,
    code: CodeCache,
}

impl Bench {
    /// 64-bit mode without paging (which no processor has, but these instructions do not care), SSE and XSAVE enabled, RSI = [`DATA`].
    pub fn new() -> Self {
        let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
        cpu.cr0 = Cr0::from_bits(0x11).with_ne(true);
        cpu.cr4 = Cr4::new().with_osfxsr(true).with_osxmmexcpt(true).with_osxsave(true);
        cpu.efer = Efer::new().with_lme(true).with_lma(true);
        for segment in Segment::ALL {
            let attributes = Attributes::from_bits(if *segment == Segment::Cs { 0xa09b } else { 0xc093 });
            cpu.segments[*segment as usize] = SegmentRegister { selector: Selector::from_bits(8), base: 0, limit: u32::MAX, attributes };
        }
        cpu.xcr0 = 3;
        cpu.set_gpr(Gpr::Rsi, DATA);
        cpu.set_gpr(Gpr::Rdi, DATA);
        Self { cpu, memory: Memory::new(1 << 20), code: CodeCache::new() }
    }

    /// Executes one instruction.
    pub fn run(&mut self, bytes: &[u8]) -> Outcome {
        self.run_in(64, bytes)
    }

    /// Executes one instruction of 16-, 32- or 64-bit code.
    pub fn run_in(&mut self, bits: u32, bytes: &[u8]) -> Outcome {
        let instruction = decode_in(bits, bytes);
        let entry = super::find(&instruction)
            .or_else(|| crate::x87::find(&instruction))
            .unwrap_or_else(|| panic!("no function for {:?} ({bytes:02x?})", instruction.mnemonic()));
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut NoDevices };
        let flow = self.cpu.with_environment(&mut environment, |cpu| (entry.function)(cpu, &instruction))?;
        assert_eq!(flow, crate::system::Flow::Next);
        Ok(())
    }

    fn xmm(&self, number: usize) -> u128 {
        u128::from(self.cpu.xmm[number][1]) << 64 | u128::from(self.cpu.xmm[number][0])
    }

    fn set_xmm(&mut self, number: usize, value: u128) {
        self.cpu.xmm[number] = [value as u64, (value >> 64) as u64];
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.memory.write(address, bytes).expect("inside memory");
    }

    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(address, &mut bytes).expect("inside memory");
        bytes
    }

    /// `bytes` with XMM0 = a and XMM1 = b: XMM0 afterwards.
    fn binary(&mut self, bytes: &[u8], a: u128, b: u128) -> Outcome<u128> {
        self.set_xmm(0, a);
        self.set_xmm(1, b);
        self.run(bytes)?;
        Ok(self.xmm(0))
    }
}

fn decode(bytes: &[u8]) -> Instruction {
    decode_in(64, bytes)
}

fn decode_in(bits: u32, bytes: &[u8]) -> Instruction {
    let instruction = Decoder::with_ip(bits, bytes, 0x1000, DecoderOptions::NONE).decode();
    assert!(!instruction.is_invalid() && instruction.len() == bytes.len(), "{bytes:02x?} is {instruction:?}");
    instruction
}

/// Deterministic pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

const GP0: Outcome<()> = Err(Trap::GP0);
