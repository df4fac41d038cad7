//! Fits operands to one encoding's operand kinds and fills in an iced-x86 instruction.
//!
//! Modelled: every operand kind of iced-x86's tables but JMPE's. Not modelled: EVEX masks, broadcast and rounding.

use crate::Bits;
use crate::operand::{Argument, ArgumentValue, Memory, Number, Reach};
use iced_x86::{Code, EncodingKind, Instruction, MemorySize, Mnemonic, OpCodeInfo, OpCodeOperandKind, OpKind, Register};

/// Why an encoding does not fit, from the farthest miss to the nearest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Miss {
    /// Another number of operands.
    Count,
    /// This operand is of another kind.
    Kind(usize),
    /// This operand is of another size.
    Size(usize),
    /// This operand's number does not fit.
    Range(usize),
    /// A short branch does not reach; the number says by how much the target is away, in bytes.
    Reach(usize, i64),
    /// The encoder refuses, in its words.
    Encoder(String),
}

/// What an instruction is matched in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) bits: Bits,
    /// Where the instruction starts.
    pub(crate) address: u64,
    /// Whether the mnemonic has a near form beside the short one.
    pub(crate) has_near_form: bool,
    /// Whether a prefix or the name asks for an operand size.
    pub(crate) sized: bool,
    /// The address size a prefix asks for, in bits.
    pub(crate) address_size: Option<u32>,
}

/// The instruction of `code` with `arguments`.
pub(crate) fn fit(code: Code, arguments: &[Argument], context: &Context) -> Result<Instruction, Miss> {
    let info = code.op_code();
    let kinds = info.op_kinds();
    // In 64-bit mode opcode 90 is NOP and would not clear the upper half of rax as `xchg eax, eax` does.
    let eax = |argument: &Argument| matches!(argument.value, ArgumentValue::Register(Register::EAX));
    if code == Code::Xchg_r32_EAX && context.bits == Bits::SixtyFour && arguments.iter().all(eax) {
        return Err(Miss::Kind(0));
    }
    // LOOP with another counter is chosen by name or prefix, never because it reaches a byte farther.
    let counts = matches!(info.mnemonic(), Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne);
    if counts && info.address_size() != context.bits.width() {
        return Err(Miss::Count);
    }
    // `fadd to st0` is the form that names st(i) first.
    if arguments.iter().any(|argument| argument.to) && kinds.first() != Some(&OpCodeOperandKind::sti_opcode) {
        return Err(Miss::Kind(0));
    }
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let is_string = kinds.iter().any(|&kind| implied_memory(kind));
    let mut rest = arguments;
    for (at, &kind) in kinds.iter().enumerate() {
        let at = at as u32;
        if implied_memory(kind) {
            set_implied_memory(&mut instruction, at, kind, context.bits);
            continue;
        }
        if let (true, true, Some(register)) = (is_string, arguments.is_empty(), fixed_register(kind)) {
            instruction.set_op_kind(at, OpKind::Register);
            instruction.set_op_register(at, register);
            continue;
        }
        let (argument, after) = rest.split_first().ok_or(Miss::Count)?;
        rest = after;
        operand(&mut instruction, at, kind, info, argument, context)?;
    }
    if rest.is_empty() { Ok(instruction) } else { Err(Miss::Count) }
}

fn implied_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::seg_rSI | K::es_rDI | K::seg_rDI | K::seg_rBX_al)
}

fn set_implied_memory(instruction: &mut Instruction, at: u32, kind: OpCodeOperandKind, bits: Bits) {
    use OpCodeOperandKind as K;
    let by_bits = |kinds: [OpKind; 3]| kinds[bits as usize];
    let kind = match kind {
        K::seg_rSI => by_bits([OpKind::MemorySegSI, OpKind::MemorySegESI, OpKind::MemorySegRSI]),
        K::es_rDI => by_bits([OpKind::MemoryESDI, OpKind::MemoryESEDI, OpKind::MemoryESRDI]),
        K::seg_rDI => by_bits([OpKind::MemorySegDI, OpKind::MemorySegEDI, OpKind::MemorySegRDI]),
        _ => {
            instruction.set_memory_base([Register::BX, Register::EBX, Register::RBX][bits as usize]);
            instruction.set_memory_index(Register::AL);
            OpKind::Memory
        }
    };
    instruction.set_op_kind(at, kind);
}

/// The register an operand kind stands for by itself.
pub(crate) fn fixed_register(kind: OpCodeOperandKind) -> Option<Register> {
    use OpCodeOperandKind as K;
    Some(match kind {
        K::es => Register::ES,
        K::cs => Register::CS,
        K::ss => Register::SS,
        K::ds => Register::DS,
        K::fs => Register::FS,
        K::gs => Register::GS,
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::dx => Register::DX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        K::st0 => Register::ST0,
        _ => return None,
    })
}

/// Whether a register is of the class an operand kind takes.
fn takes(kind: OpCodeOperandKind, r: Register) -> bool {
    use OpCodeOperandKind as K;
    match kind {
        K::r8_or_mem | K::r8_reg | K::r8_opcode => r.is_gpr8(),
        K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => r.is_gpr16(),
        K::r32_or_mem | K::r32_or_mem_mpx | K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => r.is_gpr32(),
        K::r64_or_mem | K::r64_or_mem_mpx | K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => r.is_gpr64(),
        K::seg_reg => r.is_segment_register(),
        K::k_or_mem | K::k_reg | K::kp1_reg | K::k_rm | K::k_vvvv => r.is_k(),
        K::mm_or_mem | K::mm_reg | K::mm_rm => r.is_mm(),
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmmp3_vvvv | K::xmm_is4 | K::xmm_is5 => r.is_xmm(),
        K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => r.is_ymm(),
        K::zmm_or_mem | K::zmm_reg | K::zmm_rm | K::zmm_vvvv | K::zmmp3_vvvv => r.is_zmm(),
        K::cr_reg => r.is_cr(),
        K::dr_reg => r.is_dr(),
        K::tr_reg => r.is_tr(),
        K::bnd_or_mem_mpx | K::bnd_reg => r.is_bnd(),
        K::sti_opcode => r.is_st(),
        K::tmm_reg | K::tmm_rm | K::tmm_vvvv => r.is_tmm(),
        kind => fixed_register(kind) == Some(r),
    }
}

/// The register to encode where nasm accepts another size: a selector is 16 bits wide whatever register holds it.
fn resized(code: Code, kind: OpCodeOperandKind, register: Register) -> Option<Register> {
    use OpCodeOperandKind as K;
    let to_32 = |r: Register| (r.is_gpr16() || r.is_gpr64()).then(|| Register::EAX + r.number() as u32);
    match (code, kind) {
        (Code::Mov_Sreg_r32m16, K::r32_or_mem) => to_32(register),
        (Code::Mov_r32m16_Sreg | Code::Sldt_r32m16, K::r32_or_mem) if register.is_gpr64() => to_32(register),
        (Code::Arpl_r32m16_r32, K::r32_or_mem | K::r32_reg) if register.is_gpr16() => to_32(register),
        (
            Code::Ltr_r32m16
            | Code::Lldt_r32m16
            | Code::Verr_r32m16
            | Code::Verw_r32m16
            | Code::Lmsw_r32m16
            | Code::Pinsrw_xmm_r32m16_imm8
            | Code::Pinsrw_mm_r32m16_imm8
            | Code::Lar_r32_r32m16
            | Code::Lsl_r32_r32m16,
            K::r32_or_mem,
        ) if register.is_gpr16() => to_32(register),
        (Code::Lar_r64_r64m16 | Code::Lsl_r64_r64m16, K::r64_or_mem) if register.is_gpr16() || register.is_gpr32() => {
            Some(Register::RAX + register.number() as u32)
        }
        _ => None,
    }
}

fn is_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::mem_offs
            | K::mem
            | K::mem_mpx
            | K::mem_mib
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y
            | K::mem_vsib32z
            | K::mem_vsib64z
            | K::sibmem
            | K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r32_or_mem_mpx
            | K::r64_or_mem
            | K::r64_or_mem_mpx
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::zmm_or_mem
            | K::bnd_or_mem_mpx
            | K::k_or_mem
    )
}

/// Whether the kind is a branch target.
pub(crate) fn is_branch(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::br16_1 | K::br32_1 | K::br64_1 | K::br16_2 | K::br32_4 | K::br64_4 | K::xbegin_2 | K::xbegin_4)
}

/// Whether the kind is a branch target with a 16- or 32-bit displacement.
pub(crate) fn is_near_branch(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::br16_2 | K::br32_4 | K::br64_4)
}

fn operand(
    instruction: &mut Instruction,
    at: u32,
    kind: OpCodeOperandKind,
    info: &OpCodeInfo,
    argument: &Argument,
    context: &Context,
) -> Result<(), Miss> {
    let origin = argument.origin;
    match &argument.value {
        ArgumentValue::Register(register) => {
            let code = info.code();
            let chosen = if takes(kind, *register) { Some(*register) } else { resized(code, kind, *register) };
            let far = argument.reach == Some(Reach::Far);
            let chosen = chosen.filter(|_| !far).ok_or(Miss::Kind(origin))?;
            let sized = |bytes: u16| usize::from(bytes) == register.size() || register.is_segment_register();
            if !argument.size.is_none_or(sized) {
                return Err(Miss::Size(origin));
            }
            instruction.set_op_kind(at, OpKind::Register);
            instruction.set_op_register(at, chosen);
            Ok(())
        }
        ArgumentValue::Memory(memory) if is_memory(kind) => memory_operand(instruction, at, kind, info, argument, memory, context),
        ArgumentValue::Number(number) if is_branch(kind) => branch(instruction, at, kind, argument, *number, context),
        ArgumentValue::Number(number) => immediate(instruction, at, kind, argument, *number),
        ArgumentValue::FarPointer { selector, offset } => far_pointer(instruction, at, kind, argument, *selector, *offset),
        ArgumentValue::Memory(_) => Err(Miss::Kind(origin)),
    }
}

/// The size word that selects a far pointer in memory: that of its offset.
pub(crate) fn far_offset_size(size: MemorySize) -> Option<u16> {
    match size {
        MemorySize::SegPtr16 => Some(2),
        MemorySize::SegPtr32 => Some(4),
        MemorySize::SegPtr64 => Some(8),
        _ => None,
    }
}

fn memory_operand(
    instruction: &mut Instruction,
    at: u32,
    kind: OpCodeOperandKind,
    info: &OpCodeInfo,
    argument: &Argument,
    memory: &Memory,
    context: &Context,
) -> Result<(), Miss> {
    use OpCodeOperandKind as K;
    let origin = argument.origin;
    let size = info.memory_size();
    let branches = matches!(info.mnemonic(), Mnemonic::Jmp | Mnemonic::Call);
    let far = far_offset_size(size).filter(|_| branches);
    if far.is_some() != (argument.reach == Some(Reach::Far)) {
        return Err(Miss::Kind(origin));
    }
    if let Some(bytes) = argument.size {
        let wanted = far.map_or(size.size(), usize::from);
        if wanted != 0 && wanted != usize::from(bytes) {
            return Err(Miss::Size(origin));
        }
    }
    let index_fits = match kind {
        K::mem_vsib32x | K::mem_vsib64x => memory.index.is_xmm(),
        K::mem_vsib32y | K::mem_vsib64y => memory.index.is_ymm(),
        K::mem_vsib32z | K::mem_vsib64z => memory.index.is_zmm(),
        _ => !memory.index.is_vector_register(),
    };
    if !index_fits {
        return Err(Miss::Kind(origin));
    }
    let number = memory.displacement;
    let bare = memory.base == Register::None && memory.index == Register::None;
    // A prefix decides the width of an address that no register decides.
    let address_size = context.address_size.filter(|_| bare && !memory.relative).unwrap_or(memory.address_size);
    let full_size = address_size / 8;
    let full_64 = memory.displacement_size == Some(8) && bare;
    if kind == K::mem_offs {
        // In 64-bit mode the offset is 8 bytes: never the shortest, so it is taken where it was asked for.
        if !bare || memory.relative || (address_size == 64 && !full_64) {
            return Err(Miss::Kind(origin));
        }
    } else if full_64 {
        return Err(Miss::Kind(origin));
    }
    let fits = number.unknown
        || match address_size {
            16 => (-0x8000..=0xffff).contains(&number.value),
            32 => (-0x8000_0000..=0xffff_ffff).contains(&number.value),
            _ => memory.relative || kind == K::mem_offs || i32::try_from(number.value).is_ok(),
        };
    if !fits {
        return Err(Miss::Range(origin));
    }
    // The number that the processor adds, wrapped to the width of the address.
    let wrapped = match address_size {
        16 => i64::from(number.value as i16),
        32 => i64::from(number.value as i32),
        _ => number.value,
    };
    let displacement_size = if memory.relative {
        let narrow = context.address_size == Some(32);
        instruction.set_memory_base(if narrow { Register::EIP } else { Register::RIP });
        if narrow { 4 } else { 8 }
    } else if bare {
        full_size
    } else {
        instruction.set_memory_base(memory.base);
        instruction.set_memory_index(memory.index);
        instruction.set_memory_index_scale(memory.scale);
        match memory.displacement_size {
            Some(1) if i8::try_from(wrapped).is_err() => return Err(Miss::Range(origin)),
            Some(1) => 1,
            Some(_) => full_size,
            None if number.address => full_size,
            None if wrapped == 0 && memory.base != Register::None => 0,
            None if memory.base == Register::None && !memory.index.is_vector_register() => full_size,
            None if info.encoding() == EncodingKind::EVEX => 1,
            None if i8::try_from(wrapped).is_ok() => 1,
            None => full_size,
        }
    };
    instruction.set_memory_displ_size(displacement_size);
    let displacement = match (number.unknown && memory.relative, address_size) {
        (true, _) => context.address,
        (_, 16) => u64::from(wrapped as u16),
        (_, 32) => u64::from(wrapped as u32),
        _ => wrapped as u64,
    };
    instruction.set_memory_displacement64(displacement);
    instruction.set_segment_prefix(memory.segment.unwrap_or(Register::None));
    instruction.set_op_kind(at, OpKind::Memory);
    Ok(())
}

fn branch(
    instruction: &mut Instruction,
    at: u32,
    kind: OpCodeOperandKind,
    argument: &Argument,
    number: Number,
    context: &Context,
) -> Result<(), Miss> {
    use OpCodeOperandKind as K;
    let origin = argument.origin;
    let short = matches!(kind, K::br16_1 | K::br32_1 | K::br64_1);
    // As in nasm, a bare number is taken for far away: only addresses of the program are measured.
    let measured = number.address || number.unknown || argument.reach == Some(Reach::Short);
    let near_size = argument.size.is_some() && argument.reach != Some(Reach::Short);
    match argument.reach {
        Some(Reach::Far) => return Err(Miss::Kind(origin)),
        Some(Reach::Short) if !short => return Err(Miss::Kind(origin)),
        Some(Reach::Near) if short => return Err(Miss::Kind(origin)),
        _ if short && context.has_near_form && (!measured || argument.strict || near_size) => {
            return Err(Miss::Kind(origin));
        }
        _ => {}
    }
    let sizes: &[u16] = match kind {
        K::br16_1 | K::br16_2 | K::xbegin_2 => &[2],
        K::br32_1 | K::br32_4 | K::xbegin_4 => &[4],
        _ => &[4, 8],
    };
    if argument.size.is_some_and(|size| !sizes.contains(&size)) {
        return Err(Miss::Size(origin));
    }
    // A branch of another operand size cuts the instruction pointer: only who asks for it gets it.
    let is_16 = matches!(kind, K::br16_1 | K::br16_2);
    let xbegin = matches!(kind, K::xbegin_2 | K::xbegin_4);
    if !xbegin && argument.size.is_none() && !context.sized && is_16 != (context.bits == Bits::Sixteen) {
        return Err(Miss::Kind(origin));
    }
    let target = if number.unknown { context.address } else { number.value as u64 };
    if short {
        // Counted from the end of the shortest form; the encoder has the last word.
        let distance = (target as i64).wrapping_sub(context.address as i64).wrapping_sub(2);
        let distance = if context.bits == Bits::Sixteen { i64::from(distance as i16) } else { distance };
        if !(-0x88..=0x88).contains(&distance) {
            return Err(Miss::Reach(origin, distance));
        }
    }
    match kind {
        K::xbegin_2 | K::xbegin_4 => {
            let made = Instruction::with_xbegin(context.bits.width(), target);
            let made = made.map_err(|error| Miss::Encoder(error.to_string()))?;
            if made.code() != instruction.code() {
                return Err(Miss::Kind(origin));
            }
            *instruction = made;
        }
        K::br16_1 | K::br16_2 => {
            instruction.set_op_kind(at, OpKind::NearBranch16);
            instruction.set_near_branch16(target as u16);
        }
        K::br32_1 | K::br32_4 => {
            instruction.set_op_kind(at, OpKind::NearBranch32);
            instruction.set_near_branch32(target as u32);
        }
        _ => {
            instruction.set_op_kind(at, OpKind::NearBranch64);
            instruction.set_near_branch64(target);
        }
    }
    Ok(())
}

fn far_pointer(
    instruction: &mut Instruction,
    at: u32,
    kind: OpCodeOperandKind,
    argument: &Argument,
    selector: i64,
    offset: Number,
) -> Result<(), Miss> {
    use OpCodeOperandKind as K;
    let origin = argument.origin;
    let (size, limit) = match kind {
        K::farbr2_2 => (2, 0xffff),
        K::farbr4_2 => (4, 0xffff_ffff),
        _ => return Err(Miss::Kind(origin)),
    };
    if argument.size.is_some_and(|wanted| wanted != size) {
        return Err(Miss::Size(origin));
    }
    if !(0..=0xffff).contains(&selector) || !(offset.unknown || (0..=limit).contains(&offset.value)) {
        return Err(Miss::Range(origin));
    }
    instruction.set_far_branch_selector(selector as u16);
    if size == 2 {
        instruction.set_op_kind(at, OpKind::FarBranch16);
        instruction.set_far_branch16(offset.value as u16);
    } else {
        instruction.set_op_kind(at, OpKind::FarBranch32);
        instruction.set_far_branch32(offset.value as u32);
    }
    Ok(())
}

fn immediate(instruction: &mut Instruction, at: u32, kind: OpCodeOperandKind, argument: &Argument, number: Number) -> Result<(), Miss> {
    use OpCodeOperandKind as K;
    let origin = argument.origin;
    if argument.reach.is_some() {
        return Err(Miss::Kind(origin));
    }
    // The width of the encoded field and of the operand it is extended to, in bytes.
    let (field, meaning) = match kind {
        K::imm8 | K::imm8_const_1 | K::imm4_m2z => (1, 1),
        K::imm8sex16 => (1, 2),
        K::imm8sex32 => (1, 4),
        K::imm8sex64 => (1, 8),
        K::imm16 => (2, 2),
        K::imm32 => (4, 4),
        K::imm32sex64 => (4, 8),
        K::imm64 => (8, 8),
        _ => return Err(Miss::Kind(origin)),
    };
    if let Some(size) = argument.size {
        // `push dword 5` is how nasm's users write the 64-bit push of a 32-bit number.
        let pushed = meaning == 8 && size == 4 && instruction.mnemonic() == Mnemonic::Push;
        if size != field && (argument.strict || size != meaning && !pushed) {
            return Err(Miss::Size(origin));
        }
    }
    let value = number.value;
    let fits_meaning = match meaning {
        1 => (-0x80..=0xff).contains(&value),
        2 => (-0x8000..=0xffff).contains(&value),
        4 => (-0x8000_0000..=0xffff_ffff).contains(&value),
        _ => true,
    };
    // The value as the operand sees it: 0xffff is -1 to a 16-bit instruction.
    let seen = match meaning {
        2 => i64::from(value as i16),
        4 => i64::from(value as i32),
        _ => value,
    };
    let shortened = field < meaning;
    let fits_field = match field {
        1 if shortened => i8::try_from(seen).is_ok(),
        4 if shortened => i32::try_from(seen).is_ok(),
        _ => true,
    };
    if shortened && field == 1 && !number.unknown && (number.address || !fits_meaning || !fits_field) {
        // A wider form exists and will say what does not fit.
        let asked = argument.size == Some(1);
        return Err(if asked { Miss::Range(origin) } else { Miss::Kind(origin) });
    }
    if kind == K::imm8_const_1 && (number.value != 1 || number.unknown || number.address) {
        return Err(Miss::Kind(origin));
    }
    if kind == K::imm4_m2z && !(0..16).contains(&value) {
        return Err(Miss::Range(origin));
    }
    let fits = fits_meaning && fits_field;
    if !(number.unknown || fits) {
        return Err(Miss::Range(origin));
    }
    // `mov rax, label` is the full 64-bit form unless a size says otherwise, as in nasm.
    let moves_64 = instruction.code() == Code::Mov_rm64_imm32 && argument.size != Some(4);
    if moves_64 && number.address && instruction.op0_kind() == OpKind::Register {
        return Err(Miss::Kind(origin));
    }
    let second =
        (0..at).any(|earlier| matches!(instruction.op_kind(earlier), OpKind::Immediate8 | OpKind::Immediate16 | OpKind::Immediate32));
    match kind {
        K::imm8sex16 => {
            instruction.set_op_kind(at, OpKind::Immediate8to16);
            instruction.set_immediate8to16(seen as i16);
        }
        K::imm8sex32 => {
            instruction.set_op_kind(at, OpKind::Immediate8to32);
            instruction.set_immediate8to32(seen as i32);
        }
        K::imm8sex64 => {
            instruction.set_op_kind(at, OpKind::Immediate8to64);
            instruction.set_immediate8to64(seen);
        }
        K::imm16 => {
            instruction.set_op_kind(at, OpKind::Immediate16);
            instruction.set_immediate16(value as u16);
        }
        K::imm32 => {
            instruction.set_op_kind(at, OpKind::Immediate32);
            instruction.set_immediate32(value as u32);
        }
        K::imm32sex64 => {
            instruction.set_op_kind(at, OpKind::Immediate32to64);
            instruction.set_immediate32to64(value);
        }
        K::imm64 => {
            instruction.set_op_kind(at, OpKind::Immediate64);
            instruction.set_immediate64(value as u64);
        }
        _ if second => {
            instruction.set_op_kind(at, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(value as u8);
        }
        _ => {
            instruction.set_op_kind(at, OpKind::Immediate8);
            instruction.set_immediate8(value as u8);
        }
    }
    Ok(())
}
