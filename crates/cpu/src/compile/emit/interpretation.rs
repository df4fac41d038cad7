//! What each step of an instruction's semantics becomes in compiled code.

use super::flags::Flags;
use super::memory::Access;
use super::{Cut, Emitter, Next, Reason, integer, xmm_at};
use crate::insn::Insn;
use crate::interpretation::{DoubleOperation, FlagRule, Interpretation};
use crate::operand::{gpr_number, is_high_byte, mask};
use crate::semantics::status;
use crate::state::ZERO_REGISTER;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F64, I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, InstructionData, MemFlagsData, Opcode, Value};
use iced_x86::OpKind;

impl Interpretation for Emitter<'_, '_> {
    type Value = Value;
    type Double = Value;
    type Stop = Cut;
    type Next = Next;

    fn constant<const W: u32>(&mut self, value: u64) -> Value {
        self.builder.ins().iconst(integer(W), (value & mask(W)) as i64)
    }

    fn register(&mut self, number: u8) -> Value {
        if number == ZERO_REGISTER {
            return self.k(0);
        }
        if self.plan.used >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.registers[usize::from(number)]
    }

    fn set_register(&mut self, number: u8, value: Value) {
        if self.plan.written >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.registers[usize::from(number)] = self.fit(value, I64);
    }

    fn load<const W: u32>(&mut self, address: Value) -> Result<Value, Cut> {
        Ok(self.access(address, W, false, Access::Load).expect("a load has a result"))
    }

    fn load_for_update<const W: u32>(&mut self, address: Value) -> Result<Value, Cut> {
        Ok(self.access(address, W, true, Access::Load).expect("a load has a result"))
    }

    fn store<const W: u32>(&mut self, address: Value, value: Value) -> Result<(), Cut> {
        if let Some(target) = self.target {
            self.secure(target);
        }
        let value = self.fit(value, integer(W));
        self.access(address, W, true, Access::Store(value));
        Ok(())
    }

    fn operand<const W: u32>(&mut self, _: &Insn, operand: u32, update: bool) -> Result<Value, Cut> {
        let instruction = self.instruction;
        match instruction.op_kind(operand) {
            OpKind::Register if instruction.op_register(operand).is_gpr() => Ok(self.read(instruction.op_register(operand))),
            OpKind::Register => Err(Cut),
            OpKind::Memory => {
                let address = self.address();
                if !update {
                    return self.load::<W>(address);
                }
                let host = self.writable(address, W);
                self.update = Some((operand, host));
                Ok(self.builder.ins().load(integer(W), self.guest, host, 0))
            }
            _ => Ok(self.constant::<W>(instruction.immediate(operand))),
        }
    }

    fn set_operand<const W: u32>(&mut self, _: &Insn, operand: u32, value: Value) -> Result<(), Cut> {
        let instruction = self.instruction;
        match (instruction.op_kind(operand), self.update) {
            (OpKind::Register, _) => {
                let register = instruction.op_register(operand);
                if is_high_byte(register) {
                    let number = gpr_number(register);
                    let old = self.register(number);
                    let others = self.builder.ins().band_imm_s(old, !0xff00);
                    let value = self.fit(value, I64);
                    let value = self.builder.ins().ishl_imm_u(value, 8);
                    let value = self.builder.ins().bor(others, value);
                    self.set_register(number, value);
                } else {
                    crate::semantics::place::write_register::<Self, W>(self, gpr_number(register), value);
                }
                Ok(())
            }
            (_, Some((updated, host))) if updated == operand => {
                self.store_host(host, value, W);
                Ok(())
            }
            _ => {
                let address = self.address();
                self.store::<W>(address, value)
            }
        }
    }

    fn truncate<const W: u32>(&mut self, value: Value) -> Value {
        self.fit(value, integer(W))
    }

    fn zero_extend<const W: u32>(&mut self, value: Value) -> Value {
        let narrow = if self.builder.func.dfg.value_type(value).bits() > W { self.fit(value, integer(W)) } else { value };
        self.fit(narrow, I64)
    }

    fn sign_extend<const W: u32>(&mut self, value: Value) -> Value {
        let narrow = self.fit(value, integer(W));
        if W == 64 { narrow } else { self.builder.ins().sextend(I64, narrow) }
    }

    fn add<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        let sum = self.builder.ins().iadd(a, b);
        if W == 64 {
            if let Some(by) = self.known(b) {
                self.note_distance(sum, a, by);
            } else if let Some(by) = self.known(a) {
                self.note_distance(sum, b, by);
            }
        }
        sum
    }

    fn subtract<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        let difference = self.builder.ins().isub(a, b);
        if W == 64
            && let Some(by) = self.known(b)
        {
            self.note_distance(difference, a, by.wrapping_neg());
        }
        difference
    }

    fn multiply<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().imul(a, b)
    }

    fn multiply_high(&mut self, a: Value, b: Value, signed: bool) -> Value {
        if signed { self.builder.ins().smulhi(a, b) } else { self.builder.ins().umulhi(a, b) }
    }

    fn and<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().band(a, b)
    }

    fn or<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().bor(a, b)
    }

    fn xor<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().bxor(a, b)
    }

    fn not<const W: u32>(&mut self, a: Value) -> Value {
        let a = self.fit(a, integer(W));
        self.builder.ins().bnot(a)
    }

    fn shift<const W: u32>(&mut self, rule: FlagRule, a: Value, count: Value) -> Value {
        let own = integer(W);
        let a = self.fit(a, own);
        match rule {
            FlagRule::RotateLeft => self.builder.ins().rotl(a, count),
            FlagRule::RotateRight => self.builder.ins().rotr(a, count),
            // The host's narrow shifts take the count modulo the width; the guest's shift everything out.
            _ if W < 32 => {
                let a = if rule == FlagRule::ShiftArithmetic { self.builder.ins().sextend(I32, a) } else { self.fit(a, I32) };
                let wide = self.shift::<32>(rule, a, count);
                self.fit(wide, own)
            }
            FlagRule::ShiftLeft => self.builder.ins().ishl(a, count),
            FlagRule::ShiftRight => self.builder.ins().ushr(a, count),
            _ => self.builder.ins().sshr(a, count),
        }
    }

    fn differ(&mut self, a: Value, b: Value) -> Value {
        let kind = self.builder.func.dfg.value_type(a);
        let b = self.fit(b, kind);
        self.builder.ins().icmp(IntCC::NotEqual, a, b)
    }

    fn select(&mut self, condition: Value, yes: Value, no: Value) -> Value {
        let kind = self.builder.func.dfg.value_type(yes);
        let no = self.fit(no, kind);
        self.builder.ins().select(condition, yes, no)
    }

    fn swap_bytes<const W: u32>(&mut self, a: Value) -> Value {
        let a = self.fit(a, integer(W));
        self.builder.ins().bswap(a)
    }

    fn set_flags<const W: u32>(&mut self, rule: FlagRule, a: Value, b: Value, result: Value) {
        let before = self.state.flags;
        self.state.flags = self.new_flags(Flags::Set { rule, width: W, a, b, result, before });
    }

    fn set_flags_if<const W: u32>(&mut self, condition: Value, rule: FlagRule, a: Value, b: Value, result: Value) {
        let otherwise = self.state.flags;
        self.set_flags::<W>(rule, a, b, result);
        let then = self.state.flags;
        self.state.flags = self.new_flags(Flags::Either { condition, then, otherwise });
    }

    fn carry(&mut self) -> Value {
        self.condition(2)
    }

    fn condition(&mut self, code: u8) -> Value {
        if let Flags::Set { rule, width, a, b, result, .. } = self.flags[self.state.flags]
            && let Some(condition) = self.direct_condition(code, rule, width, a, b, result)
        {
            return condition;
        }
        let words = self.words(self.state.flags);
        // Kept, so that the next one who asks need not make them again.
        self.state.flags = self.new_flags(Flags::Words(words.0, words.1));
        let condition = status::condition(self, code, words);
        self.fit(condition, I8)
    }

    fn double(&mut self, number: u8) -> Value {
        if self.plan.used_low >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.low[usize::from(number)]
    }

    fn set_double(&mut self, number: u8, value: Value) {
        if self.plan.written_low >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.low[usize::from(number)] = value;
    }

    fn xmm_half(&mut self, number: u8, half: u8) -> Value {
        if half == 1 {
            return self.load_own(I64, xmm_at(number.into(), 1));
        }
        let value = self.double(number);
        self.bits_of(value)
    }

    fn set_xmm_half(&mut self, number: u8, half: u8, value: Value) {
        let value = self.fit(value, I64);
        if half == 1 {
            return self.store_own(value, xmm_at(number.into(), 1));
        }
        let value = self.double_from_bits(value);
        self.set_double(number, value);
    }

    fn double_from_bits(&mut self, value: Value) -> Value {
        let double = self.builder.ins().bitcast(F64, MemFlagsData::new(), value);
        self.bits.insert(double, value);
        double
    }

    /// As `sse::double::fast_double`, whose conditions on MXCSR the door has checked.
    fn double_arithmetic(&mut self, _: &Insn, kind: DoubleOperation, a: Value, b: Value) -> Result<Value, Cut> {
        let result = match kind {
            DoubleOperation::Add => self.builder.ins().fadd(a, b),
            DoubleOperation::Subtract => self.builder.ins().fsub(a, b),
            DoubleOperation::Multiply => self.builder.ins().fmul(a, b),
            DoubleOperation::Divide => self.builder.ins().fdiv(a, b),
        };
        // An infinity or NaN among the operands shows in the result (or makes a quotient of zero), a denormal need not.
        for operand in [a, b] {
            if !self.plain.contains(&operand) {
                self.demand_no_denormal(operand);
                self.plain.push(operand);
            }
        }
        let bits = self.bits_of(result);
        let doubled = self.builder.ins().ishl_imm_u(bits, 1);
        let least = self.k(2 << 53);
        let offset = self.builder.ins().isub(doubled, least);
        let range = self.k(0x7fd << 53);
        let normal = self.builder.ins().icmp(IntCC::UnsignedLessThan, offset, range);
        if matches!(kind, DoubleOperation::Add | DoubleOperation::Subtract) {
            self.demand_or_zero(normal, doubled);
        } else {
            self.demand(normal, Reason::Plain);
        }
        self.plain.push(result);
        Ok(result)
    }

    fn branch(&mut self, _: &Insn, condition: Value) -> Next {
        Next::Branches(condition)
    }

    fn jump(&mut self, _: &Insn) -> Next {
        Next::Goes
    }

    fn jump_to(&mut self, _: &Insn, target: Value) -> Result<Next, Cut> {
        self.target = Some(target);
        Ok(Next::Computed(target))
    }

    fn next_rip(&mut self, _: &Insn) -> u64 {
        self.next_rip
    }
}

impl Emitter<'_, '_> {
    /// The 64 bits of a double-precision value.
    fn bits_of(&mut self, value: Value) -> Value {
        if let Some(bits) = self.bits.get(&value) {
            return *bits;
        }
        // Not noted: another way to where the value is wanted again need not come through here.
        self.builder.ins().bitcast(I64, MemFlagsData::new(), value)
    }

    /// The number that a value is, if it is a constant.
    pub(super) fn known(&self, value: Value) -> Option<i64> {
        let inst = self.builder.func.dfg.value_def(value).inst()?;
        match self.builder.func.dfg.insts[inst] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits()),
            _ => None,
        }
    }

    /// Leaves in front of the instruction at hand if a number is denormal.
    pub(super) fn demand_no_denormal(&mut self, number: Value) {
        let bits = self.bits_of(number);
        let exponent = self.builder.ins().band_imm_u(bits, 0x7ff << 52);
        let normal = self.builder.ins().icmp_imm_s(IntCC::NotEqual, exponent, 0);
        let doubled = self.builder.ins().ishl_imm_u(bits, 1);
        self.demand_or_zero(normal, doubled);
    }

    /// Leaves in front of the instruction at hand unless a condition holds or, which is rare, a number without its sign is zero.
    fn demand_or_zero(&mut self, condition: Value, magnitude: Value) {
        let (rare, on) = (self.cold_block(), self.builder.create_block());
        self.builder.ins().brif(condition, on, &[], rare, &[]);
        self.builder.switch_to_block(rare);
        let zero = self.builder.ins().icmp_imm_s(IntCC::Equal, magnitude, 0);
        let exit = self.exit(Reason::Plain);
        self.builder.ins().brif(zero, on, &[], exit, &[]);
        self.builder.switch_to_block(on);
    }
}
