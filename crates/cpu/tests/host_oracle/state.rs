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
    pub fpu: Fpu,
}

/// x87 state as FXSAVE64 stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fpu {
    pub control: u16,
    pub status: u16,
    /// One bit per physical register, set when it holds something.
    pub tag: u8,
    pub opcode: u16,
    pub instruction: u64,
    pub data: u64,
    /// ST(0) to ST(7).
    pub stack: [u128; 8],
}

impl Fpu {
    /// The first 160 bytes of an FXSAVE area.
    pub fn to_image(&self) -> [u8; 160] {
        let mut image = [0; 160];
        image[0..2].copy_from_slice(&self.control.to_le_bytes());
        image[2..4].copy_from_slice(&self.status.to_le_bytes());
        image[4] = self.tag;
        image[6..8].copy_from_slice(&self.opcode.to_le_bytes());
        image[8..16].copy_from_slice(&self.instruction.to_le_bytes());
        image[16..24].copy_from_slice(&self.data.to_le_bytes());
        for (register, place) in self.stack.iter().zip(image[32..].chunks_mut(16)) {
            place[..10].copy_from_slice(&register.to_le_bytes()[..10]);
        }
        image
    }

    /// From the first 160 bytes of an FXSAVE area.
    pub fn from_image(image: &[u8; 160]) -> Self {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let wide = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| image[at + byte]));
        Self {
            control: word(0),
            status: word(2),
            tag: image[4],
            opcode: word(6),
            instruction: wide(8),
            data: wide(16),
            stack: std::array::from_fn(|number| {
                u128::from_le_bytes(std::array::from_fn(|byte| if byte < 10 { image[32 + 16 * number + byte] } else { 0 }))
            }),
        }
    }
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
    /// A transcendental x87 function: the last bit of a result may differ, and which way it was rounded.
    pub transcendental: bool,
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

    /// An x87 register, with a liking for interesting numbers: any exponent, or one near those of the other registers.
    pub fn extended(&mut self) -> u128 {
        let sign = u128::from(self.below(2)) << 79;
        let exponent = match self.below(8) {
            0 => 0,
            1 => 0x7fff,
            2 => [1, 2, 0x3ffe, 0x3fff, 0x4000, 0x7ffe, 0x3c00, 0x43ff, 0x3f80, 0x407f, 0x403e, 0x403d][self.below(12) as usize],
            3 => self.below(0x8000),
            4 => 0x3fff - 0x40 + self.below(0x80),
            _ => 0x3fff - 8 + self.below(16),
        };
        let integer = if exponent == 0 && !self.one_in(4) || self.one_in(32) { 0 } else { 1u64 << 63 };
        let fraction = match self.below(6) {
            0 => 0,
            1 => 1 << self.below(63),
            2 => u64::MAX << self.below(64),
            3 => self.next() << self.below(64),
            4 => 0xffff_ffff_ffff_f800 | self.below(0x1000),
            _ => self.next(),
        } & !(1 << 63);
        sign | u128::from(exponent) << 64 | u128::from(integer | fraction)
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
