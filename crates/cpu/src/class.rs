//! Which cost class an instruction belongs to: one table of mnemonics, refined by where the operands are.
//!
//! What is modelled: a row of the cost table for every instruction that Trapline executes; a test holds the two together. What an
//! instruction costs beyond its row (elements of a string, device accesses, page walks) is charged where it happens.

use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind};
use timing::InstructionClass as Class;

/// The class of an instruction. What has no row of its own counts as a system instruction.
pub(crate) fn of(instruction: &Instruction) -> Class {
    known(instruction).unwrap_or(Class::SystemOther)
}

/// Where the memory operand is, if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    None,
    Source,
    Destination,
}

impl Memory {
    fn of(instruction: &Instruction) -> Self {
        let is_memory = |operand: u32| instruction.op_kind(operand) == OpKind::Memory;
        if instruction.op_count() > 0 && is_memory(0) {
            Self::Destination
        } else if (1..instruction.op_count()).any(is_memory) {
            Self::Source
        } else {
            Self::None
        }
    }
}

/// Size of the first operand in bytes.
fn operand_bytes(instruction: &Instruction) -> usize {
    match instruction.op_kind(0) {
        OpKind::Register => instruction.op_register(0).size(),
        _ => instruction.memory_size().size(),
    }
}

/// The class, if a row below names it.
fn known(instruction: &Instruction) -> Option<Class> {
    if instruction.has_lock_prefix() {
        return Some(Class::Atomic);
    }
    let memory = Memory::of(instruction);
    // The class of an instruction on registers, where one with memory is a load-op or a read-modify-write.
    let operation = |registers: Class| match memory {
        Memory::None => registers,
        Memory::Source => Class::LoadOp,
        Memory::Destination => Class::ReadModifyWrite,
    };
    let compare = |registers: Class| if memory == Memory::None { registers } else { Class::LoadOp };
    let sse_move = match memory {
        Memory::None => Class::SseMove,
        Memory::Source => Class::SseLoad,
        Memory::Destination => Class::SseStore,
    };
    if let Some(class) = flow(instruction) {
        return Some(class);
    }
    if instruction.is_string_instruction() {
        return Some(string(instruction));
    }
    Some(match instruction.mnemonic() {
        M::Nop | M::Endbr32 | M::Endbr64 | M::Reservednop => Class::Nop,
        M::Mov if touches_system_register(instruction) => system_move(instruction),
        M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo | M::Movnti => match memory {
            Memory::None => Class::RegisterMove,
            Memory::Source => Class::Load,
            Memory::Destination => Class::Store,
        },
        M::Lea => Class::Lea,
        M::Add | M::Sub | M::And | M::Or | M::Xor | M::Inc | M::Dec | M::Neg | M::Not => operation(Class::Alu),
        M::Cmp | M::Test => compare(Class::Alu),
        M::Adc | M::Sbb | M::Adcx | M::Adox => operation(Class::AluCarry),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror => {
            if instruction.op_kind(1) == OpKind::Register {
                Class::ShiftByCl
            } else {
                operation(Class::Shift)
            }
        }
        M::Shld | M::Shrd => Class::DoubleShift,
        M::Rcl | M::Rcr => Class::RotateThroughCarry,
        M::Mul | M::Imul | M::Mulx => {
            if operand_bytes(instruction) == 8 {
                Class::Multiply64
            } else {
                Class::Multiply32
            }
        }
        M::Div | M::Idiv => match operand_bytes(instruction) {
            1 => Class::Divide8,
            2 => Class::Divide16,
            4 => Class::Divide32,
            _ => Class::Divide64,
        },
        M::Push if is_segment(instruction, 0) => Class::Push,
        M::Pop if is_segment(instruction, 0) => Class::SegmentLoad,
        M::Push => Class::Push,
        M::Pop => Class::Pop,
        M::Pushf | M::Pushfd | M::Pushfq => Class::PushFlags,
        M::Popf | M::Popfd | M::Popfq => Class::PopFlags,
        M::Pusha | M::Pushad | M::Popa | M::Popad | M::Enter | M::Leave => Class::StackFrame,
        mnemonic if (M::Cmova..=M::Cmovs).contains(&mnemonic) => compare(Class::ConditionalMove),
        mnemonic if (M::Seta..=M::Sets).contains(&mnemonic) => {
            if memory == Memory::None {
                Class::SetCondition
            } else {
                Class::Store
            }
        }
        M::Bt => compare(Class::BitTest),
        M::Bts | M::Btr | M::Btc => operation(Class::BitTest),
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt => Class::BitScan,
        M::Popcnt => Class::PopulationCount,
        M::Bswap | M::Movbe => Class::ByteSwap,
        M::Andn | M::Bextr | M::Blsi | M::Blsmsk | M::Blsr | M::Bzhi => Class::BitManipulation,
        M::Rorx | M::Sarx | M::Shlx | M::Shrx | M::Pdep | M::Pext => Class::BitManipulation,
        M::Crc32 => Class::Crc,
        // XCHG with memory locks without being told to.
        M::Xchg if memory == Memory::None => Class::Exchange,
        M::Xchg => Class::Atomic,
        M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b | M::Xadd => Class::CompareExchange,
        M::Clc | M::Stc | M::Cmc | M::Cld | M::Std | M::Lahf | M::Sahf => Class::FlagControl,
        M::Cli | M::Sti | M::Clac | M::Stac => Class::InterruptFlag,
        M::Aaa | M::Aad | M::Aam | M::Aas | M::Daa | M::Das | M::Bound | M::Xlatb | M::Arpl | M::Salc => Class::LegacyArithmetic,
        M::Movaps | M::Movapd | M::Movups | M::Movupd | M::Movdqa | M::Movdqu | M::Movss | M::Movsd => sse_move,
        M::Movlps | M::Movlpd | M::Movhps | M::Movhpd | M::Movlhps | M::Movhlps => sse_move,
        M::Movddup | M::Movntdqa | M::Lddqu | M::Movdq2q | M::Movq2dq => sse_move,
        M::Movntps | M::Movntpd | M::Movntdq | M::Maskmovdqu | M::Movntq | M::Maskmovq | M::Movntss | M::Movntsd => Class::SseStore,
        M::Movd | M::Movq => {
            let between =
                (0..2).any(|operand| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_gpr());
            if between { Class::SseTransfer } else { sse_move }
        }
        M::Movmskps | M::Movmskpd | M::Pmovmskb | M::Pextrw | M::Pinsrw => Class::SseTransfer,
        M::Pextrb | M::Pextrd | M::Pextrq | M::Extractps | M::Pinsrb | M::Pinsrd | M::Pinsrq | M::Ptest => Class::SseTransfer,
        M::Paddb | M::Paddw | M::Paddd | M::Paddq | M::Paddsb | M::Paddsw | M::Paddusb | M::Paddusw => Class::SseInteger,
        M::Psubb | M::Psubw | M::Psubd | M::Psubq | M::Psubsb | M::Psubsw | M::Psubusb | M::Psubusw => Class::SseInteger,
        M::Pcmpeqb | M::Pcmpeqw | M::Pcmpeqd | M::Pcmpgtb | M::Pcmpgtw | M::Pcmpgtd => Class::SseInteger,
        M::Pminub | M::Pmaxub | M::Pminsw | M::Pmaxsw | M::Pavgb | M::Pavgw | M::Psadbw => Class::SseInteger,
        M::Pand | M::Pandn | M::Por | M::Pxor | M::Andps | M::Andpd | M::Andnps | M::Andnpd => Class::SseInteger,
        M::Orps | M::Orpd | M::Xorps | M::Xorpd => Class::SseInteger,
        M::Psllw | M::Pslld | M::Psllq | M::Psrlw | M::Psrld | M::Psrlq | M::Psraw | M::Psrad => Class::SseInteger,
        M::Pabsb | M::Pabsw | M::Pabsd | M::Psignb | M::Psignw | M::Psignd | M::Pcmpeqq | M::Pcmpgtq => Class::SseInteger,
        M::Pminsb | M::Pmaxsb | M::Pminuw | M::Pmaxuw | M::Pminsd | M::Pmaxsd | M::Pminud | M::Pmaxud => Class::SseInteger,
        M::Blendps | M::Blendpd | M::Blendvps | M::Blendvpd | M::Pblendvb | M::Pblendw => Class::SseInteger,
        M::Pmullw | M::Pmulhw | M::Pmulhuw | M::Pmuludq | M::Pmaddwd => Class::SseIntegerMultiply,
        M::Pmulhrsw | M::Pmaddubsw | M::Pmuldq | M::Pmulld | M::Phminposuw => Class::SseIntegerMultiply,
        M::Pshufb | M::Palignr | M::Insertps | M::Movsldup | M::Movshdup | M::Packusdw | M::Pshufw | M::Extrq | M::Insertq => {
            Class::SseShuffle
        }
        M::Pmovsxbw | M::Pmovsxbd | M::Pmovsxbq | M::Pmovsxwd | M::Pmovsxwq | M::Pmovsxdq => Class::SseShuffle,
        M::Pmovzxbw | M::Pmovzxbd | M::Pmovzxbq | M::Pmovzxwd | M::Pmovzxwq | M::Pmovzxdq => Class::SseShuffle,
        M::Phaddw | M::Phaddd | M::Phaddsw | M::Phsubw | M::Phsubd | M::Phsubsw | M::Mpsadbw => Class::SseHorizontal,
        M::Haddps | M::Haddpd | M::Hsubps | M::Hsubpd | M::Dpps | M::Dppd => Class::SseHorizontal,
        M::Addsubps | M::Addsubpd | M::Roundps | M::Roundpd | M::Roundss | M::Roundsd => Class::SseFpAdd,
        M::Pcmpestri | M::Pcmpestri64 | M::Pcmpestrm | M::Pcmpestrm64 | M::Pcmpistri | M::Pcmpistrm => Class::SseString,
        M::Aesenc | M::Aesenclast | M::Aesdec | M::Aesdeclast | M::Aesimc | M::Aeskeygenassist => Class::SseCryptography,
        M::Pclmulqdq => Class::SseCryptography,
        M::Pslldq | M::Psrldq | M::Pshufd | M::Pshufhw | M::Pshuflw | M::Shufps | M::Shufpd => Class::SseShuffle,
        M::Packsswb | M::Packssdw | M::Packuswb | M::Unpcklps | M::Unpcklpd | M::Unpckhps | M::Unpckhpd => Class::SseShuffle,
        M::Punpcklbw | M::Punpcklwd | M::Punpckldq | M::Punpcklqdq => Class::SseShuffle,
        M::Punpckhbw | M::Punpckhwd | M::Punpckhdq | M::Punpckhqdq => Class::SseShuffle,
        M::Addps | M::Addpd | M::Addss | M::Addsd | M::Subps | M::Subpd | M::Subss | M::Subsd => Class::SseFpAdd,
        M::Minps | M::Minpd | M::Minss | M::Minsd | M::Maxps | M::Maxpd | M::Maxss | M::Maxsd => Class::SseFpAdd,
        M::Cmpps | M::Cmppd | M::Cmpss | M::Cmpsd => Class::SseFpAdd,
        M::Mulps | M::Mulpd | M::Mulss | M::Mulsd => Class::SseFpMultiply,
        M::Divps | M::Divss => Class::SseFpDivide32,
        M::Divpd | M::Divsd => Class::SseFpDivide64,
        M::Sqrtps | M::Sqrtss | M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss => Class::SseFpSqrt32,
        M::Sqrtpd | M::Sqrtsd => Class::SseFpSqrt64,
        M::Comiss | M::Comisd | M::Ucomiss | M::Ucomisd => Class::SseCompare,
        M::Cvtss2sd | M::Cvtsd2ss | M::Cvtsi2ss | M::Cvtsi2sd | M::Cvtss2si | M::Cvtsd2si | M::Cvttss2si | M::Cvttsd2si => {
            Class::SseConvert
        }
        M::Cvtps2pd | M::Cvtpd2ps | M::Cvtdq2ps | M::Cvtdq2pd | M::Cvtps2dq | M::Cvttps2dq | M::Cvtpd2dq | M::Cvttpd2dq => {
            Class::SseConvert
        }
        M::Cvtpi2ps | M::Cvtpi2pd | M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi => Class::SseConvert,
        M::Fninit | M::Finit | M::Fnstcw | M::Fstcw | M::Fldcw | M::Fnstsw | M::Fstsw | M::Fnclex | M::Fclex | M::Wait => Class::FpuControl,
        M::Ldmxcsr | M::Stmxcsr | M::Emms => Class::FpuControl,
        M::Fld | M::Fst | M::Fstp if memory == Memory::None => Class::X87Move,
        M::Fxch | M::Fchs | M::Fabs | M::Ffree | M::Ffreep | M::Fincstp | M::Fdecstp | M::Fnop | M::Fstpnce => Class::X87Move,
        M::Fld1 | M::Fldl2t | M::Fldl2e | M::Fldpi | M::Fldlg2 | M::Fldln2 | M::Fldz => Class::X87Move,
        M::Fcmovb | M::Fcmove | M::Fcmovbe | M::Fcmovu | M::Fcmovnb | M::Fcmovne | M::Fcmovnbe | M::Fcmovnu => Class::X87Move,
        M::Fld | M::Fild => Class::X87Load,
        M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp => Class::X87Store,
        M::Fadd | M::Faddp | M::Fiadd | M::Fsub | M::Fsubp | M::Fisub | M::Fsubr | M::Fsubrp | M::Fisubr => Class::X87Add,
        M::Fcom | M::Fcomp | M::Fcompp | M::Ficom | M::Ficomp | M::Fucom | M::Fucomp | M::Fucompp => Class::X87Add,
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip | M::Ftst | M::Fxam => Class::X87Add,
        M::Fmul | M::Fmulp | M::Fimul => Class::X87Multiply,
        M::Fdiv | M::Fdivp | M::Fidiv | M::Fdivr | M::Fdivrp | M::Fidivr | M::Fsqrt | M::Fprem | M::Fprem1 => Class::X87Divide,
        M::Frndint | M::Fscale | M::Fxtract | M::Fbld | M::Fbstp => Class::X87Microcoded,
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fptan | M::Fpatan | M::Fsin | M::Fcos | M::Fsincos => Class::X87Transcendental,
        M::Fnstenv | M::Fstenv | M::Fldenv | M::Fnsave | M::Fsave | M::Frstor => Class::X87Environment,
        M::Fxsave | M::Fxsave64 | M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 => Class::SaveState,
        M::Xsavec | M::Xsavec64 | M::Xsaves | M::Xsaves64 => Class::SaveState,
        M::Fxrstor | M::Fxrstor64 | M::Xrstor | M::Xrstor64 | M::Xrstors | M::Xrstors64 => Class::RestoreState,
        M::Lfence => Class::LoadFence,
        M::Sfence => Class::StoreFence,
        M::Mfence => Class::MemoryFence,
        M::Cpuid => Class::Cpuid,
        M::Rdtsc | M::Rdtscp => Class::Rdtsc,
        M::Rdpmc => Class::Rdpmc,
        M::Rdmsr => Class::Rdmsr,
        M::Wrmsr => Class::Wrmsr,
        M::Xgetbv | M::Rdpkru | M::Wrpkru => Class::Xgetbv,
        M::Xsetbv => Class::Xsetbv,
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Swapgs => Class::SegmentBase,
        M::Clts | M::Smsw | M::Lmsw => Class::MovCr,
        M::Invlpg => Class::Invlpg,
        M::Invpcid => Class::Invpcid,
        M::Clflush | M::Clflushopt | M::Clwb | M::Prefetch | M::Prefetchw | M::Prefetchwt1 => Class::CacheLine,
        M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchnta => Class::CacheLine,
        M::Invd | M::Wbinvd => Class::CacheFlush,
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Sgdt | M::Sidt | M::Sldt | M::Str => Class::DescriptorTable,
        M::Lar | M::Lsl | M::Verr | M::Verw => Class::DescriptorTable,
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => Class::SegmentLoad,
        M::In | M::Out => Class::PortIo,
        M::Hlt => Class::Hlt,
        M::Pause => Class::Pause,
        // What the manuals call system instructions and no row tells apart. Instructions of VMX and SVM charge their own events.
        M::Rdrand | M::Rdseed | M::Rdpid | M::Rdpru | M::Monitor | M::Mwait | M::Rsm | M::Getsec | M::Encls => Class::SystemOther,
        M::Ud0 | M::Ud1 | M::Ud2 => Class::SystemOther,
        M::Vmcall | M::Vmlaunch | M::Vmresume | M::Vmxoff | M::Vmxon | M::Vmclear | M::Vmptrld | M::Vmptrst => Class::SystemOther,
        M::Vmread | M::Vmwrite | M::Vmfunc | M::Invept | M::Invvpid => Class::SystemOther,
        M::Vmmcall | M::Vmrun | M::Vmload | M::Vmsave | M::Stgi | M::Clgi | M::Skinit | M::Invlpga | M::Invlpgb => Class::SystemOther,
        // What later processors take for no operation, such as FENI.
        _ if is_x87(instruction) => Class::FpuControl,
        _ => return None,
    })
}

fn is_x87(instruction: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    instruction
        .cpuid_features()
        .iter()
        .any(|feature| matches!(feature, F::FPU | F::FPU287 | F::FPU287XL_ONLY | F::FPU387 | F::FPU387SL_ONLY))
}

/// Jumps, calls, returns and interrupts.
fn flow(instruction: &Instruction) -> Option<Class> {
    Some(match instruction.mnemonic() {
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => Class::Branch,
        M::Int | M::Int1 | M::Int3 | M::Into => Class::SoftwareInterrupt,
        M::Iret | M::Iretd | M::Iretq => Class::Iret,
        M::Syscall => Class::Syscall,
        M::Sysret | M::Sysretq => Class::Sysret,
        M::Sysenter => Class::Sysenter,
        M::Sysexit | M::Sysexitq => Class::Sysexit,
        M::Jmp if is_far(instruction) => Class::FarTransfer,
        M::Call if is_far(instruction) => Class::FarTransfer,
        M::Retf => Class::FarTransfer,
        M::Call => Class::Call,
        M::Ret => Class::NearReturn,
        M::Jmp if instruction.flow_control() == FlowControl::IndirectBranch => Class::BranchIndirect,
        M::Jmp => Class::Branch,
        _ if instruction.is_jcc_short_or_near() => Class::Branch,
        _ => return None,
    })
}

fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far() || instruction.is_jmp_far_indirect() || instruction.is_call_far() || instruction.is_call_far_indirect()
}

/// Strings: with a repetition the setup, and every element where it is done; without, the element and what it does to memory.
fn string(instruction: &Instruction) -> Class {
    match instruction.mnemonic() {
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => Class::PortIo,
        _ if instruction.has_rep_prefix() || instruction.has_repne_prefix() => Class::StringSetup,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Class::Load,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq | M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Class::LoadOp,
        _ => Class::Store,
    }
}

fn is_segment(instruction: &Instruction, operand: u32) -> bool {
    instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_segment_register()
}

fn touches_system_register(instruction: &Instruction) -> bool {
    (0..2).any(|operand| instruction.op_kind(operand) == OpKind::Register && !instruction.op_register(operand).is_gpr())
}

/// MOV to and from segment, control and debug registers.
fn system_move(instruction: &Instruction) -> Class {
    use iced_x86::Register;
    let registers = [0, 1].map(|operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand),
        _ => Register::None,
    });
    if registers[0].is_segment_register() {
        Class::SegmentLoad
    } else if registers[1].is_segment_register() {
        match Memory::of(instruction) {
            Memory::None => Class::RegisterMove,
            _ => Class::Store,
        }
    } else if registers[0] == Register::CR3 {
        Class::Cr3Write
    } else if registers.iter().any(|register| register.is_cr()) {
        Class::MovCr
    } else {
        Class::MovDr
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_modelled_instruction_has_a_class_of_its_own() {
        let mut missing = BTreeSet::new();
        crate::encodings::for_each_modelled(|instruction| {
            if known(instruction).is_none() {
                missing.insert(format!("{:?}", instruction.mnemonic()));
            }
        });
        assert!(missing.is_empty(), "modelled, but without a cost class: {missing:?}");
    }

    fn class(bytes: &[u8]) -> Class {
        of(&iced_x86::Decoder::new(64, bytes, iced_x86::DecoderOptions::NONE).decode())
    }

    #[test]
    fn where_the_operands_are_decides() {
        let rows: [(&str, &[u8], Class); 16] = [
            ("mov eax,ecx", &[0x89, 0xc8], Class::RegisterMove),
            ("mov eax,[rcx]", &[0x8b, 0x01], Class::Load),
            ("mov [rcx],eax", &[0x89, 0x01], Class::Store),
            ("add eax,[rcx]", &[0x03, 0x01], Class::LoadOp),
            ("add [rcx],eax", &[0x01, 0x01], Class::ReadModifyWrite),
            ("cmp [rcx],eax", &[0x39, 0x01], Class::LoadOp),
            ("lock add [rcx],eax", &[0xf0, 0x01, 0x01], Class::Atomic),
            ("xchg [rcx],eax", &[0x87, 0x01], Class::Atomic),
            ("div rcx", &[0x48, 0xf7, 0xf1], Class::Divide64),
            ("rep movsb", &[0xf3, 0xa4], Class::StringSetup),
            ("movsd dword", &[0xa5], Class::Store),
            ("movsd xmm0,xmm1", &[0xf2, 0x0f, 0x10, 0xc1], Class::SseMove),
            ("mov cr3,rax", &[0x0f, 0x22, 0xd8], Class::Cr3Write),
            ("mov rax,cr3", &[0x0f, 0x20, 0xd8], Class::MovCr),
            ("mov ds,eax", &[0x8e, 0xd8], Class::SegmentLoad),
            ("jmp rax", &[0xff, 0xe0], Class::BranchIndirect),
        ];
        for (text, bytes, expected) in rows {
            assert_eq!(class(bytes), expected, "{text}");
        }
    }
}
