//! What an instruction starts from and what it leaves, on either side.

use cpu::random::split_mix_64;

/// Where everything lies, on the host and in the simulated machine.
pub const BASE: u64 = 0x2000_0000;
/// The instructions under test.
pub const SLOT: u64 = BASE + 0xc00;
/// Room for them.
pub const SLOT_BYTES: usize = 0x100;
/// The scratch memory of their operands.
pub const DATA: u64 = BASE + 0x2000;
/// Its size.
pub const DATA_BYTES: usize = 0x2000;
/// The whole mapping.
pub const TOTAL_BYTES: usize = 0x4000;

/// Registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub mxcsr: u32,
    pub xmm: [[u64; 2]; 16],
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub registers: Registers,
    pub memory: Vec<u8>,
    /// Vector of the exception and offset of its instruction from the slot.
    pub fault: Option<Fault>,
}

/// How the instructions ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub offset: u64,
}

/// As far as a signal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// #DE and #XM.
    Arithmetic,
    /// #UD.
    Undefined,
    /// #GP, #SS, #PF, #AC.
    Memory,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Case {
    pub bytes: Vec<u8>,
    pub text: String,
    /// The instruction to blame in a summary.
    pub name: String,
    pub registers: Registers,
    pub memory: Vec<u8>,
    /// The result is an approximation that every processor makes in its own way.
    pub approximate: bool,
    /// Status flags that are undefined at the end.
    pub undefined: u64,
    /// Status flags that are undefined somewhere in between.
    pub once_undefined: u64,
}

/// Numbers that look random.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        split_mix_64(&mut self.0)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// An integer with a liking for edges.
    pub fn value(&mut self) -> u64 {
        let width = [8, 16, 32, 64][self.below(4) as usize];
        let mask = u64::MAX >> (64 - width);
        match self.below(8) {
            0 => self.below(4),
            1 => 0u64.wrapping_sub(self.below(4)),
            2 => (1 << (width - 1)) - 1,
            3 => 1 << (width - 1),
            4 => 1 << self.below(64),
            5 => self.next() & mask,
            6 => (self.next() as i64 >> self.below(64)) as u64,
            _ => self.next(),
        }
    }

    /// Half an XMM register, with a liking for interesting floating-point numbers.
    pub fn half(&mut self) -> u64 {
        const SINGLES: [u32; 16] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x3f00_0000,
            0x4b00_0001,
        ];
        const DOUBLES: [u64; 18] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0xc1e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
            0x380f_ffff_e000_0000,
            0x47ef_ffff_f000_0000,
        ];
        match self.below(6) {
            0 => u64::from(SINGLES[self.below(16) as usize]) << 32 | u64::from(SINGLES[self.below(16) as usize]),
            1 => DOUBLES[self.below(18) as usize],
            // A double of moderate size, and two singles of the same kind.
            2 => self.next() & 0x801f_ffff_ffff_ffff | (0x3e0 + self.below(0x40)) << 52,
            3 => {
                let single = |bits: u64, exponent: u64| bits & 0x807f_ffff | (0x70 + exponent) << 23;
                let (low, high) = (self.next(), self.next());
                single(low, self.below(0x20)) | single(high, self.below(0x20)) << 32
            }
            4 => self.value(),
            _ => self.next(),
        }
    }
}
