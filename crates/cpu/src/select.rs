//! From a decoded instruction to its handler: one table of mnemonics, operand forms and widths.
//!
//! Selection happens once, when a block is built. Frequent instructions get a handler made from their semantics for exactly their form; all
//! others a function; what is neither stops the run when it is reached.

use crate::block::Mode;
use crate::compile::Meaning;
use crate::direct::{branch, field, function, fused, operation, slow_operation};
use crate::insn::{Handler, Insn};
use crate::interpretation::{Branch, Operation};
use crate::liveness::is_immediate;
use crate::operand::{gpr_number, is_high_byte};
use crate::semantics::arithmetic::{Adc, Add, And, Binary, Cmp, DEC, INC, NEG, NOT, Or, Sbb, Sub, Test, Unary, Xor};
use crate::semantics::bits::{BT, BTC, BTR, BTS, BitTest};
use crate::semantics::branch::{Call, CallIndirect, Jcc, Jump, JumpIndirect, Return};
use crate::semantics::double::{DoubleMemory, DoubleRegister, LoadLow, LoadWhole, MoveLow, MoveWhole, StoreLow, XorWhole};
use crate::semantics::moves::{Cmov, Exchange, ExchangeRegisters, Extend, ExtendAccumulator, FillSign, Lea, Mov, Nothing, Set, SwapBytes};
use crate::semantics::multiply::{Imul, Wide};
use crate::semantics::place::{Any, Imm, Mem, RegA, RegB};
use crate::semantics::shift::{ROL, ROR, SAR, SHL, SHR, ShiftByCl, ShiftImmediate};
use crate::semantics::stack::{Leave, Pop, Push};
use crate::state::{Cpu, ZERO_REGISTER};
use crate::system::{Flow, Function};
use crate::trap::{Outcome, Trap};
use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// What selection found.
pub(crate) struct Chosen {
    pub handler: Handler,
    /// For `direct::function`; otherwise never called.
    pub function: Function,
    /// What the compiler makes of it.
    pub meaning: Meaning,
    /// The handler is a terminator: it uses the links in the next slot.
    pub terminates: bool,
    /// Its cost in ticks.
    pub cost: u32,
}

/// The operand forms that handlers are made for. Letters: register, immediate, memory, indexed memory; destination first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    RegReg,
    RegImm,
    RegMem,
    RegIdx,
    MemReg,
    IdxReg,
    MemImm,
    IdxImm,
    /// A single register.
    Reg,
    /// A single memory operand.
    Mem,
    /// A single indexed memory operand.
    Idx,
    /// Anything else: segments with a base, address sizes, high bytes, legacy modes.
    Other,
}

/// #UD: bytes that are no instruction, and instructions that the model lacks.
pub(crate) fn undefined(_: &mut Cpu, _: &Instruction) -> Outcome<Flow> {
    Err(Trap::UD)
}

/// A valid instruction that Trapline does not model.
fn not_modelled(_: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    Err(Trap::not_modelled(format!("the instruction {:?}", instruction.mnemonic())))
}

/// Whether nothing may follow an instruction in its block.
pub(crate) fn ends_block(instruction: &Instruction) -> bool {
    if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
        return true;
    }
    crate::system::find(instruction).is_some_and(|entry| entry.ends_block)
}

/// A number of a register that a slot can name.
fn slot_register(register: Register) -> Option<u8> {
    if register.is_xmm() {
        Some((register as u32 - Register::XMM0 as u32) as u8)
    } else if register.is_gpr() && !is_high_byte(register) {
        Some(gpr_number(register))
    } else {
        None
    }
}

/// Fills the operand fields of a slot and finds the form and the width in bits.
fn operands(instruction: &Instruction, mode: Mode, insn: &mut Insn) -> (Form, u32) {
    let count = instruction.op_count();
    let kind = |operand: u32| if operand < count { Some(instruction.op_kind(operand)) } else { None };
    let width = match kind(0) {
        Some(OpKind::Register) => instruction.op_register(0).size() as u32 * 8,
        Some(OpKind::Memory) => instruction.memory_size().size() as u32 * 8,
        _ => u32::from(mode.bits),
    };
    if let Some(operand) = (0..count).rev().find(|operand| is_immediate(instruction.op_kind(*operand))) {
        insn.immediate = instruction.immediate(operand);
    }
    let mut registers = true;
    let mut name = |operand: u32, place: &mut u8| {
        if kind(operand) == Some(OpKind::Register) {
            match slot_register(instruction.op_register(operand)) {
                Some(number) => *place = number,
                None => registers = false,
            }
        }
    };
    name(0, &mut insn.a);
    name(1, &mut insn.b);
    name(2, &mut insn.c);
    let has_memory = (0..count).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let indexed = if has_memory {
        match flat_address(instruction, mode, insn) {
            Some(indexed) => indexed,
            None => return (Form::Other, width),
        }
    } else {
        false
    };
    if !registers {
        return (Form::Other, width);
    }
    let form = match (kind(0), kind(1)) {
        (Some(OpKind::Register), Some(OpKind::Register)) => Form::RegReg,
        (Some(OpKind::Register), Some(OpKind::Memory)) => [Form::RegMem, Form::RegIdx][usize::from(indexed)],
        (Some(OpKind::Memory), Some(OpKind::Register)) => [Form::MemReg, Form::IdxReg][usize::from(indexed)],
        (Some(OpKind::Register), Some(other)) if is_immediate(other) => Form::RegImm,
        (Some(OpKind::Memory), Some(other)) if is_immediate(other) => [Form::MemImm, Form::IdxImm][usize::from(indexed)],
        (Some(OpKind::Register), None) => Form::Reg,
        (Some(OpKind::Memory), None) => [Form::Mem, Form::Idx][usize::from(indexed)],
        _ => Form::Other,
    };
    (form, width)
}

/// Whether the memory operand is a flat 64-bit address, and if so whether it has an index.
fn flat_address(instruction: &Instruction, mode: Mode, insn: &mut Insn) -> Option<bool> {
    if mode.bits != 64 || matches!(instruction.memory_segment(), Register::FS | Register::GS) {
        return None;
    }
    if instruction.is_ip_rel_memory_operand() {
        if instruction.memory_base() != Register::RIP {
            return None;
        }
        let address = instruction.ip_rel_memory_address();
        insn.displacement = i32::try_from(address as i64).ok()?;
        return Some(false);
    }
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if [base, index].into_iter().any(|register| register != Register::None && !register.is_gpr64())
        || (base == Register::None && index == Register::None && instruction.memory_displ_size() == 4 && mode.bits != 64)
    {
        return None;
    }
    insn.displacement = i32::try_from(instruction.memory_displacement64() as i64).ok()?;
    insn.base = if base == Register::None { ZERO_REGISTER } else { gpr_number(base) };
    insn.index = if index == Register::None { ZERO_REGISTER } else { gpr_number(index) };
    insn.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    Some(index != Register::None)
}

/// A run-time width becomes a const one.
macro_rules! widths {
    ($width:expr, $W:ident => $value:expr) => {
        match $width {
            8 => {
                const $W: u32 = 8;
                $value
            }
            16 => {
                const $W: u32 = 16;
                $value
            }
            32 => {
                const $W: u32 = 32;
                $value
            }
            _ => {
                const $W: u32 = 64;
                $value
            }
        }
    };
}

/// Widths of 16 bits and more.
macro_rules! wide_widths {
    ($width:expr, $W:ident => $value:expr) => {
        match $width {
            16 => {
                const $W: u32 = 16;
                $value
            }
            32 => {
                const $W: u32 = 32;
                $value
            }
            _ => {
                const $W: u32 = 64;
                $value
            }
        }
    };
}

/// A run-time condition code becomes a const one.
macro_rules! conditions {
    ($code:expr, $C:ident => $value:expr) => {
        conditions!(@ $code, $C, $value, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $code:expr, $C:ident, $value:expr, $($number:literal)*) => {
        match $code { $($number => { const $C: u8 = $number; $value })* _ => unreachable!("a condition code has four bits") }
    };
}

/// A handler, and what the compiler makes of the instruction. The handler is made for one operand form; the compiler looks at operands
/// itself, so one meaning serves all forms.
struct Found {
    handler: Handler,
    meaning: Meaning,
}

/// A handler whose instruction the compiler takes for `O`.
fn means<O: Operation>(handler: Handler) -> Found {
    Found { handler, meaning: Meaning::operation::<O>() }
}

/// The same type for handler and compiler.
fn both<O: Operation>() -> Found {
    means::<O>(op::<O>())
}

fn op<O: Operation>() -> Handler {
    operation::<O>
}

fn slow<O: Operation>() -> Handler {
    slow_operation::<O>
}

fn end<B: Branch, G: Branch>() -> Found {
    Found { handler: branch::<B>, meaning: Meaning::branch::<G>() }
}

/// A two-operand ALU instruction in every form.
macro_rules! binary {
    ($f:ident, $form:expr, $width:expr, $flags:expr) => {
        widths!($width, W => means::<Binary<$f, Any<W, 0>, Any<W, 1>, W, true>>(match ($form, $flags) {
            (Form::RegReg, true) => op::<Binary<$f, RegA<W>, RegB<W>, W, true>>(),
            (Form::RegReg, false) => op::<Binary<$f, RegA<W>, RegB<W>, W, false>>(),
            (Form::RegImm, true) => op::<Binary<$f, RegA<W>, Imm<W>, W, true>>(),
            (Form::RegImm, false) => op::<Binary<$f, RegA<W>, Imm<W>, W, false>>(),
            (Form::RegMem, true) => op::<Binary<$f, RegA<W>, Mem<W, false>, W, true>>(),
            (Form::RegMem, false) => op::<Binary<$f, RegA<W>, Mem<W, false>, W, false>>(),
            (Form::RegIdx, true) => op::<Binary<$f, RegA<W>, Mem<W, true>, W, true>>(),
            (Form::RegIdx, false) => op::<Binary<$f, RegA<W>, Mem<W, true>, W, false>>(),
            (Form::MemReg, _) => op::<Binary<$f, Mem<W, false>, RegB<W>, W, true>>(),
            (Form::IdxReg, _) => op::<Binary<$f, Mem<W, true>, RegB<W>, W, true>>(),
            (Form::MemImm, _) => op::<Binary<$f, Mem<W, false>, Imm<W>, W, true>>(),
            (Form::IdxImm, _) => op::<Binary<$f, Mem<W, true>, Imm<W>, W, true>>(),
            _ => slow::<Binary<$f, Any<W, 0>, Any<W, 1>, W, true>>(),
        }))
    };
}

macro_rules! unary {
    ($k:ident, $form:expr, $width:expr) => {
        widths!($width, W => means::<Unary<$k, Any<W, 0>, W>>(match $form {
            Form::Reg => op::<Unary<$k, RegA<W>, W>>(),
            Form::Mem => op::<Unary<$k, Mem<W, false>, W>>(),
            Form::Idx => op::<Unary<$k, Mem<W, true>, W>>(),
            _ => slow::<Unary<$k, Any<W, 0>, W>>(),
        }))
    };
}

macro_rules! shift {
    ($k:ident, $instruction:expr, $insn:expr, $form:expr, $width:expr, $flags:expr) => {{
        if $instruction.op_kind(1) == OpKind::Register {
            widths!($width, W => means::<ShiftByCl<$k, Any<W, 0>, W>>(match $form {
                Form::RegReg => op::<ShiftByCl<$k, RegA<W>, W>>(),
                Form::MemReg => op::<ShiftByCl<$k, Mem<W, false>, W>>(),
                _ => slow::<ShiftByCl<$k, Any<W, 0>, W>>(),
            }))
        } else {
            $insn.immediate &= if $width == 64 { 63 } else { 31 };
            if $insn.immediate == 0 {
                // Nothing is shifted and no flag changes, but memory is written and a 32-bit register zero-extended.
                widths!($width, W => means::<Mov<Any<W, 0>, Any<W, 0>>>(match $form {
                    Form::RegImm => op::<Mov<RegA<W>, RegA<W>>>(),
                    _ => slow::<Mov<Any<W, 0>, Any<W, 0>>>(),
                }))
            } else {
                widths!($width, W => means::<ShiftImmediate<$k, Any<W, 0>, W, true>>(match ($form, $flags) {
                    (Form::RegImm, true) => op::<ShiftImmediate<$k, RegA<W>, W, true>>(),
                    (Form::RegImm, false) => op::<ShiftImmediate<$k, RegA<W>, W, false>>(),
                    (Form::MemImm, _) => op::<ShiftImmediate<$k, Mem<W, false>, W, true>>(),
                    _ => slow::<ShiftImmediate<$k, Any<W, 0>, W, true>>(),
                }))
            }
        }
    }};
}

macro_rules! bit_test {
    ($k:ident, $form:expr, $width:expr) => {
        wide_widths!($width, W => match $form {
            Form::RegReg => both::<BitTest<$k, W, false>>(),
            Form::RegImm => both::<BitTest<$k, W, true>>(),
            _ => return None,
        })
    };
}

macro_rules! extend {
    ($signed:literal, $instruction:expr, $form:expr, $width:expr) => {{
        let from = match $instruction.op_kind(1) {
            OpKind::Register => $instruction.op_register(1).size() as u32 * 8,
            _ => $instruction.memory_size().size() as u32 * 8,
        };
        // The narrower source is a const width of its own.
        macro_rules! from {
            ($W:ident, $S:literal) => {
                means::<Extend<Any<$S, 1>, $W, $signed>>(match $form {
                    Form::RegReg => op::<Extend<RegB<$S>, $W, $signed>>(),
                    Form::RegMem => op::<Extend<Mem<$S, false>, $W, $signed>>(),
                    Form::RegIdx => op::<Extend<Mem<$S, true>, $W, $signed>>(),
                    _ => slow::<Extend<Any<$S, 1>, $W, $signed>>(),
                })
            };
        }
        wide_widths!($width, W => match from {
            8 => from!(W, 8),
            16 => from!(W, 16),
            _ => from!(W, 32),
        })
    }};
}

macro_rules! double {
    ($k:literal, $form:expr) => {
        match $form {
            Form::RegReg => both::<DoubleRegister<$k>>(),
            form => means::<DoubleMemory<$k, Any<64, 1>>>(match form {
                Form::RegMem => op::<DoubleMemory<$k, Mem<64, false>>>(),
                Form::RegIdx => op::<DoubleMemory<$k, Mem<64, true>>>(),
                _ => slow::<DoubleMemory<$k, Any<64, 1>>>(),
            }),
        }
    };
}

/// The handler made from semantics, if the instruction has them in this form; and whether it is a terminator.
fn semantic(instruction: &Instruction, mode: Mode, flags: bool, insn: &mut Insn) -> Option<(Found, bool)> {
    if let Some(found) = near_branch(instruction, mode, insn) {
        return Some((found, true));
    }
    let (form, width) = operands(instruction, mode, insn);
    if instruction.has_lock_prefix() && form == Form::Other && !matches!(instruction.op0_kind(), OpKind::Memory) {
        return None;
    }
    let found = match instruction.mnemonic() {
        M::Add => binary!(Add, form, width, flags),
        M::Adc => binary!(Adc, form, width, true),
        M::Sub => binary!(Sub, form, width, flags),
        M::Sbb => binary!(Sbb, form, width, true),
        M::Cmp => binary!(Cmp, form, width, true),
        M::And => binary!(And, form, width, flags),
        M::Test => binary!(Test, form, width, true),
        M::Or => binary!(Or, form, width, flags),
        M::Xor => binary!(Xor, form, width, flags),
        M::Inc => unary!(INC, form, width),
        M::Dec => unary!(DEC, form, width),
        M::Neg => unary!(NEG, form, width),
        M::Not => unary!(NOT, form, width),
        M::Shl | M::Sal => shift!(SHL, instruction, insn, form, width, flags),
        M::Shr => shift!(SHR, instruction, insn, form, width, flags),
        M::Sar => shift!(SAR, instruction, insn, form, width, flags),
        M::Rol => shift!(ROL, instruction, insn, form, width, true),
        M::Ror => shift!(ROR, instruction, insn, form, width, true),
        M::Mov => return mov(instruction, form, width).map(|found| (found, false)),
        M::Movzx => extend!(false, instruction, form, width),
        M::Movsx | M::Movsxd => extend!(true, instruction, form, width),
        M::Lea if instruction.memory_segment() != Register::None => match form {
            Form::RegMem => wide_widths!(width, W => both::<Lea<W, false>>()),
            Form::RegIdx => wide_widths!(width, W => both::<Lea<W, true>>()),
            _ => return None,
        },
        M::Imul => imul(instruction, form, width)?,
        M::Mul => widths!(width, W => means::<Wide<Any<W, 0>, W, false>>(match form {
            Form::Reg => op::<Wide<RegA<W>, W, false>>(),
            Form::Mem => op::<Wide<Mem<W, false>, W, false>>(),
            _ => slow::<Wide<Any<W, 0>, W, false>>(),
        })),
        M::Bt => bit_test!(BT, form, width),
        M::Bts => bit_test!(BTS, form, width),
        M::Btr => bit_test!(BTR, form, width),
        M::Btc => bit_test!(BTC, form, width),
        M::Xchg => widths!(width, W => match form {
            Form::RegReg => both::<ExchangeRegisters<W>>(),
            _ => means::<Exchange<W>>(slow::<Exchange<W>>()),
        }),
        M::Bswap if width == 32 => both::<SwapBytes<32>>(),
        M::Bswap if width == 64 => both::<SwapBytes<64>>(),
        M::Cbw => both::<ExtendAccumulator<16>>(),
        M::Cwde => both::<ExtendAccumulator<32>>(),
        M::Cdqe => both::<ExtendAccumulator<64>>(),
        M::Cwd => both::<FillSign<16>>(),
        M::Cdq => both::<FillSign<32>>(),
        M::Cqo => both::<FillSign<64>>(),
        M::Nop
        | M::Lfence
        | M::Sfence
        | M::Mfence
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetch
        | M::Reservednop
        | M::Endbr64
        | M::Endbr32 => both::<Nothing>(),
        M::Push if mode.bits == 64 => match form {
            Form::Reg if width == 64 => means::<Push<Any<64, 0>>>(op::<Push<RegA<64>>>()),
            Form::Mem if width == 64 => means::<Push<Any<64, 0>>>(op::<Push<Mem<64, false>>>()),
            _ if matches!(instruction.code(), iced_x86::Code::Pushq_imm8 | iced_x86::Code::Pushq_imm32) => both::<Push<Imm<64>>>(),
            _ => return None,
        },
        M::Pop if mode.bits == 64 && form == Form::Reg && width == 64 => both::<Pop>(),
        M::Leave if mode.bits == 64 && instruction.code() == iced_x86::Code::Leaveq => both::<Leave>(),
        mnemonic if is_cmov(mnemonic) => {
            insn.c = instruction.condition_code() as u8 - 1;
            wide_widths!(width, W => means::<Cmov<Any<W, 1>, W>>(match form {
                Form::RegReg => op::<Cmov<RegB<W>, W>>(),
                Form::RegMem => op::<Cmov<Mem<W, false>, W>>(),
                _ => slow::<Cmov<Any<W, 1>, W>>(),
            }))
        }
        mnemonic if (M::Seta..=M::Sets).contains(&mnemonic) => {
            insn.c = instruction.condition_code() as u8 - 1;
            means::<Set<Any<8, 0>>>(match form {
                Form::Reg => op::<Set<RegA<8>>>(),
                Form::Mem => op::<Set<Mem<8, false>>>(),
                _ => slow::<Set<Any<8, 0>>>(),
            })
        }
        _ if mode.sse => sse(instruction, form, insn)?,
        _ => return None,
    };
    Some((found, false))
}

fn is_cmov(mnemonic: M) -> bool {
    (M::Cmova..=M::Cmovs).contains(&mnemonic)
}

fn mov(instruction: &Instruction, form: Form, width: u32) -> Option<Found> {
    // Moves to and from segment, control and debug registers are functions.
    for operand in 0..2 {
        if instruction.op_kind(operand) == OpKind::Register && !instruction.op_register(operand).is_gpr() {
            return None;
        }
    }
    Some(widths!(width, W => means::<Mov<Any<W, 0>, Any<W, 1>>>(match form {
        Form::RegReg => op::<Mov<RegA<W>, RegB<W>>>(),
        Form::RegImm => op::<Mov<RegA<W>, Imm<W>>>(),
        Form::RegMem => op::<Mov<RegA<W>, Mem<W, false>>>(),
        Form::RegIdx => op::<Mov<RegA<W>, Mem<W, true>>>(),
        Form::MemReg => op::<Mov<Mem<W, false>, RegB<W>>>(),
        Form::IdxReg => op::<Mov<Mem<W, true>, RegB<W>>>(),
        Form::MemImm => op::<Mov<Mem<W, false>, Imm<W>>>(),
        Form::IdxImm => op::<Mov<Mem<W, true>, Imm<W>>>(),
        _ => slow::<Mov<Any<W, 0>, Any<W, 1>>>(),
    })))
}

fn imul(instruction: &Instruction, form: Form, width: u32) -> Option<Found> {
    Some(match instruction.op_count() {
        1 => widths!(width, W => means::<Wide<Any<W, 0>, W, true>>(match form {
            Form::Reg => op::<Wide<RegA<W>, W, true>>(),
            Form::Mem => op::<Wide<Mem<W, false>, W, true>>(),
            _ => slow::<Wide<Any<W, 0>, W, true>>(),
        })),
        2 => wide_widths!(width, W => means::<Imul<Any<W, 1>, W, false>>(match form {
            Form::RegReg => op::<Imul<RegB<W>, W, false>>(),
            Form::RegMem => op::<Imul<Mem<W, false>, W, false>>(),
            Form::RegIdx => op::<Imul<Mem<W, true>, W, false>>(),
            _ => slow::<Imul<Any<W, 1>, W, false>>(),
        })),
        _ => wide_widths!(width, W => means::<Imul<Any<W, 1>, W, true>>(match form {
            Form::RegReg => op::<Imul<RegB<W>, W, true>>(),
            Form::RegMem => op::<Imul<Mem<W, false>, W, true>>(),
            _ => slow::<Imul<Any<W, 1>, W, true>>(),
        })),
    })
}

fn sse(instruction: &Instruction, form: Form, insn: &mut Insn) -> Option<Found> {
    let xmm = |operand: u32| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_xmm();
    if instruction.op_count() != 2 {
        return None;
    }
    Some(match instruction.mnemonic() {
        M::Addsd => double!(0, form),
        M::Subsd => double!(1, form),
        M::Mulsd => double!(2, form),
        M::Divsd => double!(3, form),
        M::Movsd | M::Movq if xmm(0) && !xmm(1) => means::<LoadLow<Any<64, 1>, 64>>(match form {
            Form::RegMem => op::<LoadLow<Mem<64, false>, 64>>(),
            Form::RegIdx => op::<LoadLow<Mem<64, true>, 64>>(),
            Form::RegReg => op::<LoadLow<RegB<64>, 64>>(),
            _ => slow::<LoadLow<Any<64, 1>, 64>>(),
        }),
        M::Movsd | M::Movq if xmm(1) && !xmm(0) => means::<StoreLow<Any<64, 0>, 64>>(match form {
            Form::MemReg => op::<StoreLow<Mem<64, false>, 64>>(),
            Form::IdxReg => op::<StoreLow<Mem<64, true>, 64>>(),
            Form::RegReg => op::<StoreLow<RegA<64>, 64>>(),
            _ => slow::<StoreLow<Any<64, 0>, 64>>(),
        }),
        // The string instruction has the same name.
        M::Movsd if form == Form::RegReg => both::<MoveLow>(),
        M::Movss | M::Movd if xmm(0) && !xmm(1) => means::<LoadLow<Any<32, 1>, 32>>(match form {
            Form::RegMem => op::<LoadLow<Mem<32, false>, 32>>(),
            Form::RegIdx => op::<LoadLow<Mem<32, true>, 32>>(),
            Form::RegReg => op::<LoadLow<RegB<32>, 32>>(),
            _ => slow::<LoadLow<Any<32, 1>, 32>>(),
        }),
        M::Movss | M::Movd if xmm(1) && !xmm(0) => means::<StoreLow<Any<32, 0>, 32>>(match form {
            Form::MemReg => op::<StoreLow<Mem<32, false>, 32>>(),
            Form::IdxReg => op::<StoreLow<Mem<32, true>, 32>>(),
            Form::RegReg => op::<StoreLow<RegA<32>, 32>>(),
            _ => slow::<StoreLow<Any<32, 0>, 32>>(),
        }),
        M::Movaps | M::Movapd | M::Movdqa | M::Movups | M::Movupd | M::Movdqu if form == Form::RegReg => both::<MoveWhole>(),
        M::Movups | M::Movupd | M::Movdqu if form == Form::RegMem => both::<LoadWhole<false>>(),
        M::Movups | M::Movupd | M::Movdqu if form == Form::RegIdx => both::<LoadWhole<true>>(),
        M::Xorps | M::Xorpd | M::Pxor if form == Form::RegReg && xmm(0) => {
            debug_assert!(insn.a < 16 && insn.b < 16);
            both::<XorWhole>()
        }
        _ => return None,
    })
}

/// The terminators with handlers of their own.
fn near_branch(instruction: &Instruction, mode: Mode, insn: &mut Insn) -> Option<Found> {
    if instruction.is_jcc_short_or_near() {
        // In 16-bit code the target is truncated and checked against CS's limit when it is fetched, as for every fetch.
        return Some(conditions!(instruction.condition_code() as u8 - 1, C => end::<Jcc<C>, Jcc<C>>()));
    }
    if instruction.is_jmp_short_or_near() {
        return Some(end::<Jump, Jump>());
    }
    if mode.bits != 64 {
        return None;
    }
    if instruction.is_call_near() && instruction.op0_kind() == OpKind::NearBranch64 {
        return Some(end::<Call, Call>());
    }
    if matches!(instruction.code(), iced_x86::Code::Retnq | iced_x86::Code::Retnq_imm16) {
        insn.immediate = if instruction.op_count() == 1 { instruction.immediate(0) } else { 0 };
        return Some(end::<Return, Return>());
    }
    let indirect_jump = instruction.code() == iced_x86::Code::Jmp_rm64;
    if indirect_jump || instruction.code() == iced_x86::Code::Call_rm64 {
        return Some(match (operands(instruction, mode, insn).0, indirect_jump) {
            (Form::Reg, true) => end::<JumpIndirect<RegA<64>>, JumpIndirect<Any<64, 0>>>(),
            (Form::Mem, true) => end::<JumpIndirect<Mem<64, false>>, JumpIndirect<Any<64, 0>>>(),
            (Form::Idx, true) => end::<JumpIndirect<Mem<64, true>>, JumpIndirect<Any<64, 0>>>(),
            (_, true) => end::<JumpIndirect<Any<64, 0>>, JumpIndirect<Any<64, 0>>>(),
            (Form::Reg, false) => end::<CallIndirect<RegA<64>>, CallIndirect<Any<64, 0>>>(),
            (Form::Mem, false) => end::<CallIndirect<Mem<64, false>>, CallIndirect<Any<64, 0>>>(),
            (Form::Idx, false) => end::<CallIndirect<Mem<64, true>>, CallIndirect<Any<64, 0>>>(),
            (_, false) => end::<CallIndirect<Any<64, 0>>, CallIndirect<Any<64, 0>>>(),
        });
    }
    None
}

/// Whether an instruction is #UD in real-address and virtual-8086 mode: those with VEX prefixes (SDM vol 2, 2.3.1 "Instruction Format") and
/// those that look at descriptors.
fn needs_protection(instruction: &Instruction) -> bool {
    let looks = matches!(instruction.mnemonic(), M::Arpl | M::Lar | M::Lsl | M::Verr | M::Verw | M::Lldt | M::Ltr | M::Sldt | M::Str);
    looks || instruction.code().encoding() != EncodingKind::Legacy
}

/// Chooses the handler of an instruction and fills its slot.
pub(crate) fn choose(cpu: &Cpu, instruction: &Instruction, mode: Mode, flags: bool, insn: &mut Insn) -> Chosen {
    let cost = cpu.model.costs.instruction(crate::class::of(instruction)).ticks;
    let plain = |function: Function| Chosen { handler: crate::direct::function, function, meaning: Meaning::NONE, terminates: false, cost };
    if instruction.is_invalid() || !crate::features::supports(cpu, instruction) || !mode.protected && needs_protection(instruction) {
        return plain(undefined);
    }
    if let Some((Found { handler, meaning }, terminates)) = semantic(instruction, mode, flags, insn) {
        return Chosen { handler, function: undefined, meaning, terminates, cost };
    }
    match crate::system::find(instruction) {
        Some(entry) => Chosen { handler: field_access(instruction, mode, insn).unwrap_or(function), ..plain(entry.function) },
        None => plain(not_modelled),
    }
}

/// The handler of VMREAD and VMWRITE of 64-bit registers, the form in which hypervisors execute them most.
fn field_access(instruction: &Instruction, mode: Mode, insn: &mut Insn) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        M::Vmread => field::<false>,
        M::Vmwrite => field::<true>,
        _ => return None,
    };
    (mode.bits == 64 && operands(instruction, mode, insn).0 == Form::RegReg).then_some(handler)
}

/// Whether an instruction is executed rather than refused.
#[cfg(test)]
pub(crate) fn is_modelled(cpu: &Cpu, instruction: &Instruction, mode: Mode) -> bool {
    let mut insn = crate::block::BLANK;
    crate::features::supports(cpu, instruction)
        && (semantic(instruction, mode, true, &mut insn).is_some() || crate::system::find(instruction).is_some())
}

/// A handler for a comparison and the conditional jump behind it.
pub(crate) fn fuse(first: &Instruction, last: &Instruction, insn: &mut Insn) -> Option<Handler> {
    if !last.is_jcc_short_or_near() || std::ptr::fn_addr_eq(insn.handler, function as Handler) {
        return None;
    }
    let mode = Mode { bits: 64, protected: true, ..Mode::default() };
    if last.code_size() != iced_x86::CodeSize::Code64 {
        return None;
    }
    let mut scratch = *insn;
    let (form, width) = operands(first, mode, &mut scratch);
    // Each row becomes sixteen handlers, so only pairs that compiled code is full of are here.
    macro_rules! pairs {
        ($code:ident, $($mnemonic:ident $form:ident $width:literal: $f:ident, $d:ty, $s:ty;)*) => {
            match (first.mnemonic(), form, width) {
                $((M::$mnemonic, Form::$form, $width) => {
                    conditions!($code, C => fused::<Binary<$f, $d, $s, $width, true>, Jcc<C>>)
                })*
                _ => return None,
            }
        };
    }
    let code = last.condition_code() as u8 - 1;
    Some(pairs! {
        code,
        Cmp RegReg 32: Cmp, RegA<32>, RegB<32>;
        Cmp RegReg 64: Cmp, RegA<64>, RegB<64>;
        Cmp RegImm 8: Cmp, RegA<8>, Imm<8>;
        Cmp RegImm 32: Cmp, RegA<32>, Imm<32>;
        Cmp RegImm 64: Cmp, RegA<64>, Imm<64>;
        Cmp RegMem 64: Cmp, RegA<64>, Mem<64, false>;
        Cmp MemImm 8: Cmp, Mem<8, false>, Imm<8>;
        Cmp MemImm 32: Cmp, Mem<32, false>, Imm<32>;
        Test RegReg 8: Test, RegA<8>, RegB<8>;
        Test RegReg 32: Test, RegA<32>, RegB<32>;
        Test RegReg 64: Test, RegA<64>, RegB<64>;
        Test RegImm 8: Test, RegA<8>, Imm<8>;
        Sub RegImm 32: Sub, RegA<32>, Imm<32>;
        Sub RegImm 64: Sub, RegA<64>, Imm<64>;
        Add RegImm 64: Add, RegA<64>, Imm<64>;
    })
}
