//! Instruction operands: as written, and as values once names have addresses.
//!
//! Modelled: registers, numbers, far pointers, and memory with segment, base, index, scale and displacement, normalised
//! as nasm does (`[eax*3]` becomes `[eax+eax*2]`, `[eax+esp]` puts esp in the base). Not modelled: EVEX decorators.

use crate::Bits;
use crate::diagnostics::Diagnostic;
use crate::expression::{Cursor, Expression, ExpressionParser, Scope, Term, Trouble};
use crate::lexer::TokenKind;
use crate::registers;
use iced_x86::Register;
use std::ops::Range;

/// How far a branch was said to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Short,
    Near,
    Far,
}

/// An operand as written.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) kind: OperandKind,
    pub(crate) span: Range<usize>,
    /// The size word before it, in bytes.
    pub(crate) size: Option<u16>,
    /// `strict`: the size word is the size of the encoded field.
    pub(crate) strict: bool,
    pub(crate) reach: Option<Reach>,
    /// `to`, of the x87 instructions.
    pub(crate) to: bool,
}

/// What an operand is.
#[derive(Clone, Debug)]
pub(crate) enum OperandKind {
    Register(Register),
    Number(Expression),
    FarPointer { selector: Expression, offset: Expression },
    Memory(MemoryOperand),
}

/// Brackets as written.
#[derive(Clone, Debug)]
pub(crate) struct MemoryOperand {
    pub(crate) segment: Option<Register>,
    pub(crate) address: Expression,
    /// The size word inside the brackets: of the displacement, in bytes.
    pub(crate) displacement_size: Option<u16>,
    /// `rel` or `abs`; the default is resolved when parsing.
    pub(crate) relative: Relative,
    pub(crate) no_split: bool,
}

/// How an address without registers is meant in 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relative {
    /// `abs`, or the default.
    Never,
    /// `default rel`: where it is an address of the program and not behind FS or GS.
    Labels,
    /// `rel`.
    Always,
}

/// An operand with its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument {
    pub(crate) value: ArgumentValue,
    pub(crate) size: Option<u16>,
    pub(crate) strict: bool,
    pub(crate) reach: Option<Reach>,
    pub(crate) to: bool,
    /// Which written operand it comes from.
    pub(crate) origin: usize,
}

/// The value of an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ArgumentValue {
    Register(Register),
    Number(Number),
    FarPointer { selector: i64, offset: Number },
    Memory(Memory),
}

/// A number operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) value: i64,
    /// Whether it moves with the program, so that nasm encodes it in full width.
    pub(crate) address: bool,
    pub(crate) unknown: bool,
}

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) segment: Option<Register>,
    pub(crate) base: Register,
    pub(crate) index: Register,
    pub(crate) scale: u32,
    pub(crate) displacement: Number,
    pub(crate) displacement_size: Option<u16>,
    /// Relative to RIP.
    pub(crate) relative: bool,
    /// The width of the address, in bits.
    pub(crate) address_size: u32,
}

impl Operand {
    /// Whether its encoding depends on where the instruction stands.
    pub(crate) fn moves(&self) -> bool {
        match &self.kind {
            OperandKind::Register(_) => false,
            OperandKind::Number(expression) => expression.moves(),
            OperandKind::FarPointer { selector, offset } => selector.moves() || offset.moves(),
            OperandKind::Memory(memory) => memory.address.moves() || memory.relative == Relative::Always,
        }
    }

    /// The operand's value under `scope`.
    pub(crate) fn evaluate(&self, scope: &Scope<'_>, bits: Bits, origin: usize) -> Result<Argument, AddressFault> {
        let value = match &self.kind {
            OperandKind::Register(register) => ArgumentValue::Register(*register),
            OperandKind::Number(expression) => ArgumentValue::Number(number(expression, scope)?),
            OperandKind::FarPointer { selector, offset } => {
                let selector = number(selector, scope)?;
                ArgumentValue::FarPointer { selector: selector.value, offset: number(offset, scope)? }
            }
            OperandKind::Memory(memory) => ArgumentValue::Memory(memory.evaluate(scope, bits)?),
        };
        Ok(Argument { value, size: self.size, strict: self.strict, reach: self.reach, to: self.to, origin })
    }
}

/// Why an operand has no value.
#[derive(Clone, Debug)]
pub(crate) enum AddressFault {
    /// An expression in it has none.
    Trouble(Trouble, Range<usize>),
    /// The registers in the brackets do not make an address.
    Address(Range<usize>, String, Option<&'static str>),
}

/// A number of an expression without registers.
fn number(expression: &Expression, scope: &Scope<'_>) -> Result<Number, AddressFault> {
    let trouble = |trouble| AddressFault::Trouble(trouble, expression.span.clone());
    let value = expression.evaluate(scope).map_err(trouble)?;
    if !value.terms.is_empty() {
        return Err(trouble(Trouble::Register));
    }
    Ok(Number { value: value.number, address: value.addresses != 0, unknown: value.unknown })
}

const NOT_AN_ADDRESS: &str = "an address is base + index*scale + displacement, with a scale of 1, 2, 4 or 8";
const SIXTEEN: &str = "16-bit addresses are made of one of bx, bp, and one of si, di, and a displacement";

impl MemoryOperand {
    fn evaluate(&self, scope: &Scope<'_>, bits: Bits) -> Result<Memory, AddressFault> {
        let span = &self.address.span;
        let value = self.address.evaluate(scope).map_err(|trouble| AddressFault::Trouble(trouble, span.clone()))?;
        let fault = |message: &str, help| AddressFault::Address(span.clone(), message.to_owned(), Some(help));
        for term in &value.terms {
            let r = term.register;
            if !(r.is_gpr16() || r.is_gpr32() || r.is_gpr64() || r.is_vector_register() && !r.is_mm()) {
                let name = format!("{r:?}").to_ascii_lowercase();
                return Err(fault(&format!("register `{name}` cannot stand in an address"), NOT_AN_ADDRESS));
            }
            if registers::needs_64_bit(r) && bits != Bits::SixtyFour {
                let name = format!("{r:?}").to_ascii_lowercase();
                return Err(fault(&format!("register `{name}` exists in 64-bit mode only"), "see `bits 64`"));
            }
        }
        let (base, index, scale) = if value.terms.iter().any(|term| term.register.is_gpr16()) {
            sixteen_bit(&value.terms).ok_or_else(|| fault("these registers make no 16-bit address", SIXTEEN))?
        } else {
            base_and_index(&value.terms, self.no_split).ok_or_else(|| fault("these registers make no address", NOT_AN_ADDRESS))?
        };
        let wide = |register: Register| (register.size() * 8) as u32;
        let plain = |register: Register| register != Register::None && !register.is_vector_register();
        if plain(base) && plain(index) && base.size() != index.size() {
            return Err(fault("base and index are of different sizes", NOT_AN_ADDRESS));
        }
        let address_size = match (plain(base), plain(index)) {
            (true, _) => wide(base),
            (_, true) => wide(index),
            _ => match self.displacement_size {
                Some(2) => 16,
                Some(4) if bits != Bits::SixtyFour => 32,
                Some(8) => 64,
                _ => bits.width(),
            },
        };
        if (address_size == 64) != (bits == Bits::SixtyFour) && (address_size == 64 || address_size == 16) {
            let message = format!("{address_size}-bit addresses do not exist in {}-bit mode", bits.width());
            if address_size == 64 || bits == Bits::SixtyFour {
                return Err(fault(&message, "see `bits`"));
            }
        }
        let bare = value.terms.is_empty();
        let behind_fs_gs = matches!(self.segment, Some(Register::FS | Register::GS));
        let relative = bits == Bits::SixtyFour
            && bare
            && self.displacement_size != Some(8)
            && match self.relative {
                Relative::Never => false,
                Relative::Labels => value.addresses != 0 && !behind_fs_gs,
                Relative::Always => true,
            };
        if self.relative == Relative::Always && !bare && bits == Bits::SixtyFour {
            return Err(fault("an address relative to RIP has no other register", "leave out `rel` or the register"));
        }
        Ok(Memory {
            segment: self.segment,
            base,
            index,
            scale,
            displacement: Number { value: value.number, address: value.addresses != 0, unknown: value.unknown },
            displacement_size: self.displacement_size,
            relative,
            address_size,
        })
    }
}

/// Base, index and scale of a 32- or 64-bit address, as nasm assigns them.
fn base_and_index(terms: &[Term], no_split: bool) -> Option<(Register, Register, u32)> {
    const NONE: Register = Register::None;
    let index_only = |term: &Term| term.register.is_vector_register();
    let is_stack = |register: Register| matches!(register, Register::ESP | Register::RSP);
    let scale = |factor: i64| matches!(factor, 1 | 2 | 4 | 8).then_some(factor as u32);
    let (base, index, scale) = match terms {
        [] => (NONE, NONE, 1),
        [one] if index_only(one) => (NONE, one.register, scale(one.factor)?),
        [one] => match one.factor {
            1 if no_split && one.scaled => (NONE, one.register, 1),
            1 => (one.register, NONE, 1),
            2 if !no_split => (one.register, one.register, 1),
            3 | 5 | 9 => (one.register, one.register, (one.factor - 1) as u32),
            factor => (NONE, one.register, scale(factor)?),
        },
        [first, second] => {
            let (base, index) = if index_only(second) || index_only(first) {
                if index_only(second) { (first, second) } else { (second, first) }
            } else if first.factor == 1 && second.factor == 1 {
                // The one that is not written as a product is the base; esp cannot be an index.
                let pair = if first.scaled { (second, first) } else { (first, second) };
                if is_stack(pair.1.register) { (pair.1, pair.0) } else { pair }
            } else if first.factor == 1 {
                (first, second)
            } else {
                (second, first)
            };
            if base.factor != 1 || index_only(base) {
                return None;
            }
            (base.register, index.register, scale(index.factor)?)
        }
        _ => return None,
    };
    (!is_stack(index)).then_some((base, index, scale))
}

/// Base and index of a 16-bit address (SDM Vol. 2 "16-Bit Addressing Forms with the ModR/M Byte").
fn sixteen_bit(terms: &[Term]) -> Option<(Register, Register, u32)> {
    use Register::{BP, BX, DI, SI};
    if terms.iter().any(|term| term.factor != 1) {
        return None;
    }
    let names: Vec<Register> = terms.iter().map(|term| term.register).collect();
    match names[..] {
        [base @ (BX | BP), index @ (SI | DI)] | [index @ (SI | DI), base @ (BX | BP)] => Some((base, index, 1)),
        [base @ (BX | BP | SI | DI)] => Some((base, Register::None, 1)),
        _ => None,
    }
}

/// Parses operands of one line.
#[derive(Debug)]
pub(crate) struct OperandParser<'n> {
    pub(crate) expressions: ExpressionParser<'n>,
    pub(crate) bits: Bits,
    /// `default rel` is in force.
    pub(crate) default_relative: bool,
}

impl OperandParser<'_> {
    /// The comma-separated operands up to the end of the line.
    pub(crate) fn parse_all(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Vec<Operand>, Diagnostic> {
        let mut operands = Vec::new();
        if cursor.is_done() {
            return Ok(operands);
        }
        loop {
            operands.push(self.parse(cursor)?);
            if cursor.is_done() {
                return Ok(operands);
            }
            if !cursor.take_mark(",") {
                let mut fault = Diagnostic::new(
                    cursor.span(),
                    format!("expected `,` or the end of the line, found {}", cursor.shown(self.expressions.source)),
                );
                if matches!(cursor.peek(), Some(TokenKind::Mark("{"))) {
                    fault = fault.with_help("EVEX decorators are not supported: write the bytes with `db`");
                }
                return Err(fault);
            }
        }
    }

    fn parse(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Operand, Diagnostic> {
        let start = cursor.span().start;
        let (mut size, mut strict, mut reach, mut to) = (None, false, None, false);
        while let Some(TokenKind::Word(word)) = cursor.peek() {
            match word.to_ascii_lowercase().as_str() {
                "strict" => strict = true,
                "short" => reach = Some(Reach::Short),
                "near" => reach = Some(Reach::Near),
                "far" => reach = Some(Reach::Far),
                "to" => to = true,
                "ptr" if size.is_some() => {}
                word => match registers::size_word(word) {
                    Some(bytes) if size.is_none_or(|earlier| earlier == bytes) => size = Some(bytes),
                    Some(_) => {
                        return Err(Diagnostic::new(cursor.span(), "a second size contradicts the first"));
                    }
                    None => break,
                },
            }
            cursor.at += 1;
        }
        let kind = self.parse_kind(cursor)?;
        Ok(Operand { kind, span: cursor.since(start), size, strict, reach, to })
    }

    fn parse_kind(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<OperandKind, Diagnostic> {
        if matches!(cursor.peek(), Some(TokenKind::Mark("["))) {
            return self.parse_memory(cursor, None);
        }
        let span = cursor.span();
        if let Some(TokenKind::Word(word)) = cursor.peek()
            && let Some(mut register) = registers::by_name(word)
        {
            cursor.at += 1;
            if register.is_segment_register() && cursor.take_mark(":") {
                return self.parse_memory(cursor, Some(register));
            }
            if word.eq_ignore_ascii_case("st") && cursor.take_mark("(") {
                let numbered = match cursor.peek() {
                    Some(TokenKind::Number(number)) => registers::stack_register(*number),
                    _ => None,
                };
                cursor.at += 1;
                register = numbered
                    .filter(|_| cursor.take_mark(")"))
                    .ok_or_else(|| Diagnostic::new(cursor.since(span.start), "x87 registers are st(0) to st(7)"))?;
            }
            if registers::needs_64_bit(register) && self.bits != Bits::SixtyFour {
                return Err(Diagnostic::new(span, format!("register `{word}` exists in 64-bit mode only"))
                    .with_help(format!("this line is assembled for {}-bit mode; see `bits 64`", self.bits.width())));
            }
            return Ok(OperandKind::Register(register));
        }
        self.expressions.registers = false;
        let first = self.expressions.parse(cursor)?;
        if cursor.take_mark(":") {
            let offset = self.expressions.parse(cursor)?;
            return Ok(OperandKind::FarPointer { selector: first, offset });
        }
        Ok(OperandKind::Number(first))
    }

    fn parse_memory(&mut self, cursor: &mut Cursor<'_, '_>, outer: Option<Register>) -> Result<OperandKind, Diagnostic> {
        let open = cursor.span();
        if !cursor.take_mark("[") {
            let found = cursor.shown(self.expressions.source);
            return Err(Diagnostic::new(open, format!("expected `[` after the segment override, found {found}"))
                .with_help("a memory operand is written `[segment:address]` or `segment:[address]`"));
        }
        let mut memory = MemoryOperand {
            segment: outer,
            address: Expression::default(),
            displacement_size: None,
            relative: if self.default_relative { Relative::Labels } else { Relative::Never },
            no_split: false,
        };
        while let Some(TokenKind::Word(word)) = cursor.peek() {
            match word.to_ascii_lowercase().as_str() {
                "rel" => memory.relative = Relative::Always,
                "abs" => memory.relative = Relative::Never,
                "nosplit" => memory.no_split = true,
                lower => {
                    let override_follows = matches!(cursor.peek_at(1), Some(TokenKind::Mark(":")));
                    let segment = registers::by_name(lower).filter(|register| register.is_segment_register());
                    if let (Some(segment), true) = (segment, override_follows) {
                        if memory.segment.is_some_and(|earlier| earlier != segment) {
                            return Err(Diagnostic::new(cursor.span(), "a second segment contradicts the first"));
                        }
                        memory.segment = Some(segment);
                        cursor.at += 1;
                    } else if let Some(bytes @ (1 | 2 | 4 | 8)) = registers::size_word(lower) {
                        memory.displacement_size = Some(bytes);
                    } else {
                        break;
                    }
                }
            }
            cursor.at += 1;
        }
        self.expressions.registers = true;
        memory.address = self.expressions.parse(cursor)?;
        if !cursor.take_mark("]") {
            let found = cursor.shown(self.expressions.source);
            return Err(Diagnostic::new(cursor.span(), format!("expected `]`, found {found}")));
        }
        Ok(OperandKind::Memory(memory))
    }
}

impl Argument {
    /// Marks every number in it as unknown, so that any encoding it could have fits.
    pub(crate) fn forget(&mut self) {
        let unknown = Number { value: 0, address: false, unknown: true };
        match &mut self.value {
            ArgumentValue::Register(_) => {}
            ArgumentValue::Number(number) => *number = Number { address: number.address, ..unknown },
            ArgumentValue::FarPointer { offset, .. } => *offset = unknown,
            ArgumentValue::Memory(memory) => {
                memory.displacement = Number { address: memory.displacement.address, ..unknown };
            }
        }
    }
}
