//! Makes test cases: a random encoding of a random instruction, and registers that let its memory operand fall into the scratch memory.

use crate::state::{Case, DATA, DATA_BYTES, Fpu, Random, Registers, SLOT};
use iced_x86::{
    Code, CpuidFeature as F, Decoder, DecoderOptions, EncodingKind, FlowControl, Formatter, Instruction, IntelFormatter, MandatoryPrefix,
    Mnemonic as M, OpCodeOperandKind, OpCodeTableKind, OpKind, Register,
};

const RCX: usize = 1;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// The instruction-set extensions whose instructions are compared.
const EXTENSIONS: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::X64,
    F::CMOV,
    F::CX8,
    F::CMPXCHG16B,
    F::BMI1,
    F::BMI2,
    F::ADX,
    F::MOVBE,
    F::POPCNT,
    F::LZCNT,
    F::MULTIBYTENOP,
    F::CLFSH,
    F::PREFETCHW,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::AES,
    F::PCLMULQDQ,
    F::MMX,
    F::FPU,
    F::FPU287,
    F::FPU387,
    F::PAUSE,
];

/// Instructions that a user program may execute, but whose result is not a matter of the program alone, or that need more than a scratch
/// memory: system registers, ports, selectors, saved states. They have tests of their own.
const EXCLUDED: &[M] = &[
    M::In,
    M::Out,
    M::Insb,
    M::Insw,
    M::Insd,
    M::Outsb,
    M::Outsw,
    M::Outsd,
    M::Cpuid,
    M::Rdtsc,
    M::Lar,
    M::Lsl,
    M::Verr,
    M::Verw,
    M::Sldt,
    M::Str,
    M::Smsw,
    M::Sgdt,
    M::Sidt,
    M::Pushf,
    M::Pushfq,
    M::Popf,
    M::Popfq,
    M::Cli,
    M::Sti,
    M::Hlt,
    M::Rdpmc,
    M::Lfs,
    M::Lgs,
    M::Lss,
    M::Ldmxcsr,
    M::Rdmsr,
    M::Wrmsr,
    M::Loadall,
    M::Ud0,
    M::Ud1,
    M::Ud2,
    M::Umov,
    M::Wait,
    M::Lmsw,
    M::Clts,
    M::Invd,
    M::Wbinvd,
    M::Invlpg,
];

/// The codes to choose from.
pub fn codes(only: &[String]) -> Vec<Code> {
    Code::values()
        .filter(|code| eligible(*code) && (only.is_empty() || only.contains(&format!("{:?}", code.mnemonic()).to_lowercase())))
        .collect()
}

fn eligible(code: Code) -> bool {
    let op = code.op_code();
    let kinds = op.op_kinds();
    let foreign = |kind: &OpCodeOperandKind| {
        use OpCodeOperandKind as K;
        matches!(
            kind,
            K::seg_reg | K::cr_reg | K::dr_reg | K::tr_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs | K::sti_opcode | K::st0
        )
    };
    op.is_instruction()
        && op.mode64()
        && op.intel_decoder64()
        && matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && !op.fwait()
        && !op.must_be_cpl0()
        && op.decoder_option() == DecoderOptions::NONE
        && code.flow_control() == FlowControl::Next
        && code.cpuid_features().iter().all(|feature| EXTENSIONS.contains(feature))
        && !EXCLUDED.contains(&code.mnemonic())
        && !kinds.iter().any(foreign)
}

/// A random encoding of a code, if the random bytes happen to be one.
fn encode(code: Code, random: &mut Random) -> Option<Candidate> {
    let op = code.op_code();
    let mut bytes = Vec::new();
    if op.address_size() == 32 || (op.address_size() == 0 && random.one_in(10)) {
        bytes.push(0x67);
    }
    let opcode = op.op_code() + if random.one_in(2) { random.below(8) as u32 } else { 0 };
    if op.encoding() == EncodingKind::VEX {
        let map = match op.table() {
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            OpCodeTableKind::T0F3A => 3,
            _ => return None,
        };
        let prefix = match op.mandatory_prefix() {
            MandatoryPrefix::P66 => 1,
            MandatoryPrefix::PF3 => 2,
            MandatoryPrefix::PF2 => 3,
            _ => 0,
        };
        let vvvv = random.below(16) as u8;
        bytes.extend_from_slice(&[0xc4, (random.next() as u8 & 0xe0) | map, (op.w() as u8) << 7 | vvvv << 3 | prefix, opcode as u8]);
    } else {
        if op.can_use_lock_prefix() && random.one_in(4) {
            bytes.push(0xf0);
        }
        if op.can_use_rep_prefix() && random.one_in(2) {
            bytes.push(0xf3);
        } else if op.can_use_repne_prefix() && random.one_in(2) {
            bytes.push(0xf2);
        }
        if op.operand_size() == 16 {
            bytes.push(0x66);
        }
        match op.mandatory_prefix() {
            MandatoryPrefix::P66 => bytes.push(0x66),
            MandatoryPrefix::PF3 => bytes.push(0xf3),
            MandatoryPrefix::PF2 => bytes.push(0xf2),
            _ => {}
        }
        let wide = op.operand_size() == 64 && !op.default_op_size64() || op.w() == 1;
        if wide || random.one_in(2) {
            bytes.push(0x40 | u8::from(wide) << 3 | random.below(8) as u8);
        }
        match op.table() {
            OpCodeTableKind::Normal => {}
            OpCodeTableKind::T0F => bytes.push(0x0f),
            OpCodeTableKind::T0F38 => bytes.extend_from_slice(&[0x0f, 0x38]),
            OpCodeTableKind::T0F3A => bytes.extend_from_slice(&[0x0f, 0x3a]),
            _ => return None,
        }
        if op.op_code_len() == 2 {
            bytes.push((opcode >> 8) as u8);
        }
        bytes.push(opcode as u8);
    }
    let mut modrm = random.next() as u8;
    if random.one_in(2) {
        modrm |= 0xc0;
    }
    if op.is_group() {
        modrm = modrm & !0x38 | (op.group_index() as u8) << 3;
    }
    bytes.push(modrm);
    for _ in 0..13 {
        bytes.push(if random.one_in(4) { random.value() as u8 } else { random.next() as u8 });
    }
    bytes.truncate(15);
    let candidate = Candidate::decode(bytes, SLOT)?;
    (candidate.instruction.code() == code).then_some(candidate)
}

/// An encoded instruction.
struct Candidate {
    bytes: Vec<u8>,
    instruction: Instruction,
    /// Where in the bytes the displacement is, and its size; zero if there is none.
    displacement: (usize, usize),
}

impl Candidate {
    fn decode(mut bytes: Vec<u8>, ip: u64) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, &bytes, ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        bytes.truncate(instruction.len());
        Some(Self { bytes, instruction, displacement: (offsets.displacement_offset(), offsets.displacement_size()) })
    }

    fn has_memory(&self) -> bool {
        (0..self.instruction.op_count()).any(|operand| {
            !matches!(self.instruction.op_kind(operand), OpKind::Register) && !is_immediate(self.instruction.op_kind(operand))
        })
    }

    /// Chooses registers, or changes the displacement, so that the memory operand lies in the middle of the scratch memory. `false` if it
    /// cannot be.
    fn place_operand(&mut self, registers: &mut Registers, random: &mut Random) -> bool {
        let instruction = self.instruction;
        if !(0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory) {
            return true;
        }
        if !matches!(instruction.memory_segment(), Register::DS | Register::SS | Register::ES | Register::CS) {
            return false;
        }
        let mut target = DATA + DATA_BYTES as u64 / 4 + random.below(DATA_BYTES as u64 / 2);
        if random.one_in(2) {
            target &= !15;
        }
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let number = |register: Register| register.full_register() as usize - Register::RAX as usize;
        // BT and its kin reach far with a register index: it must be small, and no part of the address.
        if matches!(instruction.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && instruction.op1_kind() == OpKind::Register {
            let bits = number(instruction.op1_register());
            if [base, index].iter().any(|register| register.is_gpr() && number(*register) == bits) {
                return false;
            }
            let width = instruction.op1_register().size() * 8;
            let small = random.below(8000).wrapping_sub(4000);
            let mask = u64::MAX >> (64 - width);
            registers.gpr[bits] = small & mask | random.next() & !mask;
        }
        if instruction.is_ip_rel_memory_operand() || base == Register::None && index == Register::None {
            let value = if instruction.is_ip_rel_memory_operand() { target.wrapping_sub(instruction.next_ip()) } else { target };
            let (at, size) = self.displacement;
            if size < 4 {
                return false;
            }
            self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            let Some(changed) = Self::decode(self.bytes.clone(), SLOT) else { return false };
            *self = changed;
            return true;
        }
        if base != Register::None && index != Register::None && number(base) == number(index) {
            return false;
        }
        // The stack must stay where it is.
        let far = index != Register::None || instruction.memory_displ_size() > 1 || base == Register::ESP;
        if instruction.is_stack_instruction() && base.full_register() == Register::RSP && far {
            return false;
        }
        let address_bits = [base, index].into_iter().find(|register| *register != Register::None).map_or(8, Register::size) * 8;
        let mask = u64::MAX >> (64 - if index == Register::AL { 64 } else { address_bits.max(32) });
        let displacement = instruction.memory_displacement64();
        if base == Register::None {
            let scale = u64::from(instruction.memory_index_scale());
            let wanted = target.wrapping_sub(displacement) & mask;
            let value = wanted / scale;
            if value * scale != wanted && scale > 8 {
                return false;
            }
            registers.gpr[number(index)] = value;
            return true;
        }
        let scaled = if index == Register::None {
            0
        } else {
            let value = registers.gpr[number(index)];
            let value = if index.size() == 1 { value & 0xff } else { value & mask };
            value.wrapping_mul(instruction.memory_index_scale().into())
        };
        let garbage = if mask == u64::MAX || random.one_in(2) { 0 } else { random.next() & !mask };
        registers.gpr[number(base)] = target.wrapping_sub(scaled).wrapping_sub(displacement) & mask | garbage;
        true
    }

    /// Values that the instruction needs in fixed registers.
    fn place_implicit(&mut self, registers: &mut Registers, random: &mut Random) {
        let instruction = self.instruction;
        let middle = |random: &mut Random| DATA + DATA_BYTES as u64 / 4 + random.below(DATA_BYTES as u64 / 2);
        let narrow = (0..instruction.op_count())
            .any(|operand| matches!(instruction.op_kind(operand), OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI));
        let garbage = if narrow && random.one_in(2) { random.next() << 32 } else { 0 };
        if instruction.is_string_instruction() {
            registers.gpr[RSI] = middle(random) | garbage;
            registers.gpr[RDI] =
                if random.one_in(2) { middle(random) } else { registers.gpr[RSI].wrapping_add(random.below(40)).wrapping_sub(20) };
            registers.gpr[RDI] = registers.gpr[RDI] & 0xffff_ffff | garbage;
            if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
                let most = if random.one_in(4) { 200 } else { 12 };
                registers.gpr[RCX] = random.below(most) | garbage;
            }
        }
        match instruction.mnemonic() {
            M::Maskmovdqu | M::Maskmovq => registers.gpr[RDI] = middle(random) | garbage,
            M::Enter | M::Leave => registers.gpr[RBP] = middle(random),
            // Lengths of strings, mostly within a register.
            M::Pcmpestri | M::Pcmpestri64 | M::Pcmpestrm | M::Pcmpestrm64 => {
                let operands = [instruction.memory_base(), instruction.memory_index()].map(Register::full_register);
                for (number, register) in [(0, Register::RAX), (2, Register::RDX)] {
                    if random.below(4) != 0 && !operands.contains(&register) {
                        registers.gpr[number] = random.below(18).wrapping_sub(random.below(18));
                    }
                }
            }
            // Most dividends overflow: make the upper half small more often than not.
            M::Div | M::Idiv
                if [instruction.memory_base(), instruction.memory_index()]
                    .iter()
                    .any(|register| register.full_register() == Register::RDX) => {}
            M::Div if random.below(4) != 0 => registers.gpr[2] = random.below(3),
            M::Idiv if random.below(4) != 0 => registers.gpr[2] = (registers.gpr[0] as i64 >> 63) as u64,
            M::Cmpxchg if instruction.op0_kind() == OpKind::Register && random.one_in(2) => {
                let number = instruction.op0_register().full_register() as usize - Register::RAX as usize;
                registers.gpr[0] = registers.gpr[number];
            }
            _ => {}
        }
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn start(random: &mut Random) -> Registers {
    let mut gpr = std::array::from_fn(|_| random.value());
    // Equal operands are more frequent than chance would have them.
    for _ in 0..4 {
        gpr[random.below(16) as usize] = gpr[random.below(16) as usize];
    }
    gpr[RSP] = DATA + DATA_BYTES as u64 / 2 + random.below(64);
    let status = random.next() & 0x8d5;
    let direction = if random.one_in(4) { 0x400 } else { 0 };
    // All exceptions masked mostly; any rounding, flush-to-zero and denormals-are-zeros mode.
    let mxcsr = match random.below(4) {
        0 | 1 => 0x1f80,
        2 => 0x1f80 | random.next() as u32 & 0xe07f,
        _ => random.next() as u32 & 0xffff,
    };
    let mut xmm = std::array::from_fn(|_| [random.half(), random.half()]);
    // Strings of few different bytes, so that some are found in others.
    if random.one_in(8) {
        let mut text = || u64::from_le_bytes(std::array::from_fn(|_| [0, 1, 2, 3, 0x80, 1, 2, 0xff][random.below(8) as usize]));
        xmm = std::array::from_fn(|_| [text(), text()]);
    }
    Registers { gpr, rflags: 0x202 | status | direction, mxcsr, xmm, fpu: start_fpu(random) }
}

/// x87 state: mostly as a program has it, with some registers in use, everything masked, any precision and rounding.
fn start_fpu(random: &mut Random) -> Fpu {
    let control = match random.below(4) {
        0 => 0x37f,
        1 | 2 => 0x7f | random.next() as u16 & 0xf00,
        _ => 0x40 | random.next() as u16 & 0xf3f,
    };
    let mut status = random.next() as u16 & 0x7f00;
    // Exceptions of before, pending if they are not masked.
    if random.one_in(4) {
        status |= random.next() as u16 & if random.one_in(4) { 0x7f } else { control & 0x3f };
    }
    if status & !control & 0x3f != 0 {
        status |= 0x8080;
    }
    let tag = if random.one_in(2) { 0xff } else { random.next() as u8 };
    let (opcode, instruction, data) = (random.next() as u16 & 0x7ff, SLOT, DATA);
    let mut stack = std::array::from_fn(|_| random.extended());
    if random.one_in(4) {
        // What MMX left.
        stack = std::array::from_fn(|_| 0xffff << 64 | u128::from(random.half()));
    }
    Fpu { control, status, tag, opcode, instruction, data, stack }
}

/// Whether the instruction may leave the flags that it writes as they were: a shift by zero, a repetition of no iteration.
fn may_keep_flags(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd)
        || instruction.has_rep_prefix()
        || instruction.has_repne_prefix()
}

/// Status flags as bits of RFLAGS, from iced-x86's numbering.
fn rflags(bits: u32) -> u64 {
    use iced_x86::RflagsBits as R;
    [(R::CF, 0), (R::PF, 2), (R::AF, 4), (R::ZF, 6), (R::SF, 7), (R::OF, 11)]
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(0, |all, (_, place)| all | 1 << place)
}

/// Whether an instruction may stand in a sequence: registers only, and the stack pointer left alone.
fn fits_sequence(candidate: &Candidate) -> bool {
    let instruction = &candidate.instruction;
    let touches_stack = (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).full_register() == Register::RSP
    });
    !is_approximation(instruction.mnemonic())
        && !is_transcendental(instruction.mnemonic())
        && !candidate.has_memory()
        && !touches_stack
        && !instruction.is_stack_instruction()
        && !matches!(instruction.mnemonic(), M::Maskmovdqu | M::Maskmovq)
}

fn is_approximation(mnemonic: M) -> bool {
    matches!(mnemonic, M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss)
}

fn is_transcendental(mnemonic: M) -> bool {
    matches!(mnemonic, M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fptan | M::Fpatan | M::Fsin | M::Fcos | M::Fsincos)
}

/// A test of one instruction, or of a few.
pub fn case(codes: &[Code], random: &mut Random) -> Case {
    loop {
        let count = if random.one_in(4) { 2 + random.below(5) } else { 1 };
        if let Some(case) = attempt(codes, random, count as usize) {
            return case;
        }
    }
}

fn attempt(codes: &[Code], random: &mut Random, count: usize) -> Option<Case> {
    let mut registers = start(random);
    let mut memory = vec![0; DATA_BYTES];
    for chunk in memory.chunks_mut(8) {
        chunk.copy_from_slice(&if random.one_in(2) { random.half() } else { random.value() }.to_le_bytes());
    }
    // Numbers of double extended precision, where they are not by chance.
    if random.one_in(4) {
        for chunk in memory.chunks_mut(16) {
            chunk[..10].copy_from_slice(&random.extended().to_le_bytes()[..10]);
        }
    }
    let mut formatter = IntelFormatter::new();
    let (mut bytes, mut text, mut name) = (Vec::new(), String::new(), String::new());
    let (mut undefined, mut once_undefined) = (0, 0);
    let (mut approximate, mut transcendental) = (false, false);
    let mut made = 0;
    for _ in 0..400 {
        if made == count {
            break;
        }
        let code = codes[random.below(codes.len() as u64) as usize];
        let Some(mut candidate) = (0..20).find_map(|_| encode(code, random)) else { continue };
        if count > 1 {
            if !fits_sequence(&candidate) || rflags(candidate.instruction.rflags_read()) & undefined != 0 {
                continue;
            }
        } else {
            if !candidate.place_operand(&mut registers, random) {
                continue;
            }
            candidate.place_implicit(&mut registers, random);
        }
        let instruction = &candidate.instruction;
        if instruction.mnemonic() == M::Enter {
            let length = candidate.bytes.len();
            candidate.bytes[length - 2] &= 3;
            candidate = Candidate::decode(candidate.bytes, SLOT)?;
        }
        let instruction = &candidate.instruction;
        if !may_keep_flags(instruction) {
            undefined &= !rflags(instruction.rflags_modified());
        }
        undefined |= rflags(instruction.rflags_undefined());
        once_undefined |= undefined;
        approximate |= is_approximation(instruction.mnemonic());
        transcendental |= is_transcendental(instruction.mnemonic());
        if made > 0 {
            text.push_str("; ");
            name.push('+');
        }
        formatter.format(instruction, &mut text);
        name.push_str(&format!("{:?}", instruction.code()));
        bytes.extend_from_slice(&candidate.bytes);
        made += 1;
    }
    (made == count).then_some(Case { bytes, text, name, registers, memory, approximate, transcendental, undefined, once_undefined })
}
