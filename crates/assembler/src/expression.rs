//! Expressions: parsed once into postfix order, evaluated again in every layout pass.
//!
//! Modelled: 64-bit wrapping arithmetic as in nasm (`/` and `%` unsigned, `//` and `%%` signed), forward references,
//! registers as symbolic terms inside brackets, and whether a value moves with the program (a label does, the
//! difference of two labels does not), which decides how short an operand may be encoded. Postfix order keeps
//! evaluation free of recursion, so a hostile expression cannot exhaust the stack.

use crate::diagnostics::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::registers;
use iced_x86::Register;
use std::collections::BTreeMap;
use std::ops::Range;

/// How deep parentheses may nest.
const MAX_DEPTH: usize = 64;

/// An operator with two operands, named by its mark.
type Binary = &'static str;

/// One step of a postfix expression.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Number(i64),
    Name(usize),
    Here,
    Start,
    Register(Register),
    Negate,
    Invert,
    Not,
    Binary(Binary),
}

/// An expression in postfix order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Expression {
    steps: Vec<Step>,
    pub(crate) span: Range<usize>,
}

/// The names of a program; expressions hold their numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: BTreeMap<String, usize>,
    texts: Vec<String>,
}

impl Names {
    /// The number of a name, given at its first mention.
    pub(crate) fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.numbers.insert(text.to_owned(), self.texts.len());
        self.texts.push(text.to_owned());
        self.texts.len() - 1
    }

    /// The name with this number.
    pub(crate) fn text(&self, number: usize) -> &str {
        &self.texts[number]
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// All names by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }
}

/// What a name stands for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Defined nowhere.
    Undefined,
    /// A label, and its address once a pass has placed it.
    Label(Option<u64>),
    /// A constant, and its value and count of addresses in it once a pass has found them.
    Constant(Option<(i64, i32)>),
}

/// What an expression is evaluated against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The meaning of each name, by number.
    pub(crate) meanings: &'a [Meaning],
    /// `$`: where the statement starts.
    pub(crate) here: u64,
    /// `$$`: where the program starts.
    pub(crate) start: u64,
}

/// A register in a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) register: Register,
    pub(crate) factor: i64,
    /// Whether a multiplication was written: `[ebp*1+ecx]` asks for ebp as the index.
    pub(crate) scaled: bool,
}

/// What an expression amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// The number, wrapped to 64 bits.
    pub(crate) number: i64,
    /// How many addresses of the program are summed in it: 1 for a label, 0 for a difference of labels.
    pub(crate) addresses: i32,
    /// Whether everything in it is known yet.
    pub(crate) unknown: bool,
    /// Registers, inside brackets.
    pub(crate) terms: Vec<Term>,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The name with this number is defined nowhere.
    Undefined(usize),
    /// A divisor is zero.
    DivisionByZero,
    /// A register stands where only a number can.
    Register,
}

impl Expression {
    /// The number 0, for what was not written.
    pub(crate) fn zero() -> Self {
        Self { steps: vec![Step::Number(0)], span: 0..0 }
    }

    /// Whether the value can change from pass to pass: it holds a name, `$` or `$$`.
    pub(crate) fn moves(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Name(_) | Step::Here | Step::Start))
    }

    /// The value under `scope`.
    pub(crate) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Trouble> {
        let mut stack: Vec<Value> = Vec::with_capacity(4);
        for step in &self.steps {
            let value = match step {
                Step::Number(number) => Value { number: *number, ..Value::default() },
                Step::Here => Value { number: scope.here as i64, addresses: 1, ..Value::default() },
                Step::Start => Value { number: scope.start as i64, addresses: 1, ..Value::default() },
                Step::Register(register) => {
                    let term = Term { register: *register, factor: 1, scaled: false };
                    Value { terms: vec![term], ..Value::default() }
                }
                Step::Name(name) => match scope.meanings.get(*name).copied().unwrap_or(Meaning::Undefined) {
                    Meaning::Undefined => return Err(Trouble::Undefined(*name)),
                    Meaning::Label(address) => {
                        Value { number: address.unwrap_or(scope.here) as i64, addresses: 1, unknown: address.is_none(), terms: Vec::new() }
                    }
                    Meaning::Constant(value) => {
                        let (number, addresses) = value.unwrap_or((0, 0));
                        Value { number, addresses, unknown: value.is_none(), terms: Vec::new() }
                    }
                },
                Step::Negate => {
                    let mut value = stack.pop().unwrap_or_default();
                    value.scale(-1);
                    value
                }
                Step::Invert | Step::Not => {
                    let value = stack.pop().unwrap_or_default();
                    if !value.terms.is_empty() {
                        return Err(Trouble::Register);
                    }
                    let number = if *step == Step::Invert { !value.number } else { i64::from(value.number == 0) };
                    Value { number, unknown: value.unknown, ..Value::default() }
                }
                Step::Binary(operator) => {
                    let right = stack.pop().unwrap_or_default();
                    let left = stack.pop().unwrap_or_default();
                    combine(operator, left, right)?
                }
            };
            stack.push(value);
        }
        let mut value = stack.pop().unwrap_or_default();
        value.terms.retain(|term| term.factor != 0);
        Ok(value)
    }
}

impl Value {
    /// Multiplies number, addresses and registers alike.
    fn scale(&mut self, factor: i64) {
        self.number = self.number.wrapping_mul(factor);
        // More than a few addresses in a sum mean nothing; saturation keeps that meaningless instead of wrong.
        self.addresses = self.addresses.saturating_mul(factor.clamp(-16, 16) as i32);
        for term in &mut self.terms {
            term.factor = term.factor.wrapping_mul(factor);
            term.scaled = true;
        }
    }

    /// Adds another value, register by register.
    fn add(&mut self, other: Value) {
        self.number = self.number.wrapping_add(other.number);
        self.addresses = self.addresses.saturating_add(other.addresses);
        self.unknown |= other.unknown;
        for term in other.terms {
            match self.terms.iter_mut().find(|mine| mine.register == term.register) {
                Some(mine) => {
                    mine.factor = mine.factor.wrapping_add(term.factor);
                    mine.scaled |= term.scaled;
                }
                None => self.terms.push(term),
            }
        }
    }
}

/// Applies a binary operator.
fn combine(operator: Binary, mut left: Value, mut right: Value) -> Result<Value, Trouble> {
    match operator {
        "+" => {
            left.add(right);
            return Ok(left);
        }
        "-" => {
            right.scale(-1);
            left.add(right);
            return Ok(left);
        }
        "*" if !left.terms.is_empty() || !right.terms.is_empty() => {
            let (mut sum, factor) = if right.terms.is_empty() { (left, right) } else { (right, left) };
            if !factor.terms.is_empty() {
                return Err(Trouble::Register);
            }
            sum.scale(factor.number);
            sum.unknown |= factor.unknown;
            return Ok(sum);
        }
        _ => {}
    }
    if !left.terms.is_empty() || !right.terms.is_empty() {
        return Err(Trouble::Register);
    }
    let unknown = left.unknown || right.unknown;
    let (a, b) = (left.number, right.number);
    let (ua, ub) = (a as u64, b as u64);
    let divides = matches!(operator, "/" | "%" | "//" | "%%");
    if divides && b == 0 {
        return if unknown { Ok(Value { unknown, ..Value::default() }) } else { Err(Trouble::DivisionByZero) };
    }
    let number = match operator {
        "*" => a.wrapping_mul(b),
        "/" => (ua / ub) as i64,
        "%" => (ua % ub) as i64,
        "//" => a.wrapping_div(b),
        "%%" => a.wrapping_rem(b),
        "<<" => ua.checked_shl(u32::try_from(ub).unwrap_or(u32::MAX)).unwrap_or(0) as i64,
        ">>" => ua.checked_shr(u32::try_from(ub).unwrap_or(u32::MAX)).unwrap_or(0) as i64,
        "&" => a & b,
        "^" => a ^ b,
        _ => a | b,
    };
    Ok(Value { number, unknown, ..Value::default() })
}

/// How tightly a binary operator binds; the marks that are none have no entry.
fn precedence(mark: &str) -> Option<u8> {
    Some(match mark {
        "|" => 1,
        "^" => 2,
        "&" => 3,
        "<<" | ">>" => 4,
        "+" | "-" => 5,
        "*" | "/" | "//" | "%" | "%%" => 6,
        _ => return None,
    })
}

/// Reads tokens of one line from left to right.
#[derive(Debug)]
pub(crate) struct Cursor<'a, 't> {
    pub(crate) tokens: &'t [Token<'a>],
    pub(crate) at: usize,
    /// Where the line ends, for faults about something missing.
    pub(crate) end: usize,
}

impl<'a, 't> Cursor<'a, 't> {
    /// The next token without taking it.
    pub(crate) fn peek(&self) -> Option<&'t TokenKind<'a>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// The token `ahead` places after the next one.
    pub(crate) fn peek_at(&self, ahead: usize) -> Option<&'t TokenKind<'a>> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    /// The next token's place, or the end of the line.
    pub(crate) fn span(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end..self.end, |token| token.span.clone())
    }

    /// From `start` to the end of the token taken last.
    pub(crate) fn since(&self, start: usize) -> Range<usize> {
        let end = self.at.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(start, |token| token.span.end);
        start..end.max(start)
    }

    /// Takes the next token if it is this mark.
    pub(crate) fn take_mark(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Some(TokenKind::Mark(next)) if *next == mark);
        self.at += usize::from(found);
        found
    }

    /// Takes the next token if it is this word, in any case.
    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(TokenKind::Word(next)) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    /// Whether the line ends here.
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// What stands here, for a message.
    pub(crate) fn shown(&self, source: &str) -> String {
        let span = self.span();
        if span.is_empty() { "the end of the line".to_owned() } else { format!("`{}`", &source[span]) }
    }
}

/// Parses expressions; `parent` is the label that local names belong to.
#[derive(Debug)]
pub(crate) struct ExpressionParser<'n> {
    pub(crate) source: &'n str,
    pub(crate) names: &'n mut Names,
    pub(crate) parent: &'n str,
    /// Whether registers may stand in the expression: inside brackets only.
    pub(crate) registers: bool,
}

impl ExpressionParser<'_> {
    /// An expression at the cursor.
    pub(crate) fn parse(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Expression, Diagnostic> {
        let start = cursor.span().start;
        let mut steps = Vec::new();
        self.climb(cursor, 1, 0, &mut steps)?;
        Ok(Expression { steps, span: cursor.since(start) })
    }

    fn climb(&mut self, cursor: &mut Cursor<'_, '_>, least: u8, depth: usize, steps: &mut Vec<Step>) -> Result<(), Diagnostic> {
        self.operand(cursor, depth, steps)?;
        while let Some(TokenKind::Mark(mark)) = cursor.peek() {
            let Some(tightness) = precedence(mark).filter(|&tightness| tightness >= least) else {
                break;
            };
            cursor.at += 1;
            self.climb(cursor, tightness + 1, depth, steps)?;
            steps.push(Step::Binary(mark));
        }
        Ok(())
    }

    fn operand(&mut self, cursor: &mut Cursor<'_, '_>, depth: usize, steps: &mut Vec<Step>) -> Result<(), Diagnostic> {
        let mut signs = Vec::new();
        while let Some(TokenKind::Mark(mark)) = cursor.peek() {
            match *mark {
                "-" => signs.push(Step::Negate),
                "~" => signs.push(Step::Invert),
                "!" => signs.push(Step::Not),
                "+" => {}
                _ => break,
            }
            cursor.at += 1;
        }
        let span = cursor.span();
        match cursor.peek() {
            Some(TokenKind::Number(number)) => steps.push(Step::Number(*number as i64)),
            Some(TokenKind::Text(text)) if (1..=8).contains(&text.len()) => {
                let mut bytes = [0; 8];
                bytes[..text.len()].copy_from_slice(text);
                steps.push(Step::Number(i64::from_le_bytes(bytes)));
            }
            Some(TokenKind::Text(_)) => {
                return Err(Diagnostic::new(span, "a character constant holds 1 to 8 bytes")
                    .with_help("longer strings go into `db`, `dw`, `dd` or `dq`"));
            }
            Some(TokenKind::Float(_)) => {
                return Err(Diagnostic::new(span, "a floating-point number cannot stand here")
                    .with_help("it can stand alone in `dd` (32 bits) and `dq` (64 bits)"));
            }
            Some(TokenKind::Word("$")) => steps.push(Step::Here),
            Some(TokenKind::Word("$$")) => steps.push(Step::Start),
            Some(TokenKind::Word(word)) => {
                if let Some(register) = registers::by_name(word) {
                    if !self.registers {
                        return Err(Diagnostic::new(span, format!("register `{word}` cannot stand in a constant"))
                            .with_help("only an address in brackets may mix registers and numbers"));
                    }
                    if matches!(register, Register::RIP | Register::EIP) {
                        return Err(Diagnostic::new(span, format!("`{word}` cannot be written in an address"))
                            .with_help("write `[rel label]` for an address relative to the instruction pointer"));
                    }
                    steps.push(Step::Register(register));
                } else {
                    let name = qualify(word, self.parent);
                    steps.push(Step::Name(self.names.number(&name)));
                }
            }
            Some(TokenKind::Mark("(")) => {
                if depth >= MAX_DEPTH {
                    return Err(Diagnostic::new(span, format!("parentheses nest deeper than {MAX_DEPTH}")));
                }
                cursor.at += 1;
                self.climb(cursor, 1, depth + 1, steps)?;
                if !matches!(cursor.peek(), Some(TokenKind::Mark(")"))) {
                    return Err(Diagnostic::new(cursor.span(), format!("expected `)`, found {}", cursor.shown(self.source))));
                }
            }
            _ => {
                return Err(Diagnostic::new(span, format!("expected an expression, found {}", cursor.shown(self.source))));
            }
        }
        cursor.at += 1;
        steps.extend(signs.into_iter().rev());
        Ok(())
    }
}

/// The full name of a label: a local one, `.name`, belongs to the label before it.
pub(crate) fn qualify(word: &str, parent: &str) -> String {
    if word.starts_with('.') { format!("{parent}{word}") } else { word.to_owned() }
}
