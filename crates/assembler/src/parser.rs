//! Lines to statements: labels, constants, directives, prefixes, mnemonics and operands.
//!
//! Modelled: the language described at the top of the crate. Not modelled: a preprocessor, sections, and several
//! instructions on one line.

use crate::Bits;
use crate::diagnostics::{self, Diagnostic, Faults};
use crate::directives::{self, Data, Fill};
use crate::encode::{self, Prefixes};
use crate::expression::{Cursor, Expression, ExpressionParser, Names, qualify};
use crate::lexer::{self, TokenKind};
use crate::mnemonics::{self, Meaning};
use crate::operand::{Operand, OperandParser};
use crate::registers;
use std::collections::BTreeMap;
use std::ops::Range;

/// A statement and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) kind: StatementKind,
    pub(crate) span: Range<usize>,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub(crate) enum StatementKind {
    Label(usize),
    Constant(usize, Expression),
    Origin(Expression),
    /// Something that takes space, so many times.
    Emit {
        count: Option<Expression>,
        body: Body,
    },
}

/// What takes space.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Instruction(Box<InstructionStatement>),
    Data(Data),
    Reserve { width: usize, count: Expression },
    Align { boundary: Expression, fill: Fill },
}

/// An instruction as written.
#[derive(Clone, Debug)]
pub(crate) struct InstructionStatement {
    pub(crate) bits: Bits,
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    pub(crate) meaning: Meaning,
    pub(crate) prefixes: Prefixes,
    pub(crate) operands: Vec<Operand>,
}

/// A parsed source.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) statements: Vec<Statement>,
    pub(crate) names: Names,
    /// Which names are labels (true) and which constants (false).
    pub(crate) defined: BTreeMap<usize, bool>,
}

struct Parser<'s> {
    text: &'s str,
    out: Source,
    bits: Bits,
    default_relative: bool,
    /// The label that local names belong to.
    parent: String,
    /// The line of each definition, for duplicates.
    defined_at: BTreeMap<usize, usize>,
    line: usize,
    has_origin: bool,
}

/// Parses a whole source; faults go to `faults`, and what could be read is returned.
pub(crate) fn parse(text: &str, bits: Bits, faults: &mut Faults) -> Source {
    let mut parser = Parser {
        text,
        out: Source::default(),
        bits,
        default_relative: false,
        parent: String::new(),
        defined_at: BTreeMap::new(),
        line: 0,
        has_origin: false,
    };
    let mut start = 0;
    for line in text.split('\n') {
        parser.line += 1;
        if let Err(fault) = parser.line(start..start + line.len()) {
            faults.push(fault);
        }
        if faults.is_full() {
            break;
        }
        start += line.len() + 1;
    }
    parser.out
}

impl Parser<'_> {
    fn line(&mut self, range: Range<usize>) -> Result<(), Diagnostic> {
        let end = self.text[range.clone()].trim_end().len() + range.start;
        let mut tokens = match lexer::tokens(self.text, range.clone()) {
            Ok(tokens) => tokens,
            Err(fault) => {
                // The labels before the fault are defined all the same, so that no use of them is called wrong.
                if let Ok(before) = lexer::tokens(self.text, range.start..fault.span.start) {
                    let _ = self.labels(&mut Cursor { tokens: &before, at: 0, end });
                }
                return Err(fault);
            }
        };
        // `[bits 32]` is the same as `bits 32`.
        let bracketed = matches!(
            (tokens.first().map(|token| &token.kind), tokens.last().map(|token| &token.kind)),
            (Some(TokenKind::Mark("[")), Some(TokenKind::Mark("]")))
        );
        if bracketed {
            tokens.pop();
            tokens.remove(0);
        }
        let mut cursor = Cursor { tokens: &tokens, at: 0, end };
        self.labels(&mut cursor)?;
        if cursor.is_done() {
            return Ok(());
        }
        let start = cursor.span().start;
        if let Some(kind) = self.statement(&mut cursor)? {
            self.finished(&cursor)?;
            let span = cursor.since(start);
            self.out.statements.push(Statement { kind, span, line: self.line });
        } else {
            self.finished(&cursor)?;
        }
        Ok(())
    }

    fn finished(&self, cursor: &Cursor<'_, '_>) -> Result<(), Diagnostic> {
        if cursor.is_done() {
            return Ok(());
        }
        Err(Diagnostic::new(cursor.span(), format!("expected the end of the line, found {}", cursor.shown(self.text))))
    }

    /// Labels at the start of the line: with a colon, or before something that is no mnemonic's operand.
    fn labels(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<(), Diagnostic> {
        while let Some(&TokenKind::Word(word)) = cursor.peek() {
            let span = cursor.span();
            let colon = matches!(cursor.peek_at(1), Some(TokenKind::Mark(":")));
            let ahead = 1 + usize::from(colon);
            let constant = match cursor.peek_at(ahead) {
                Some(TokenKind::Mark("=")) => true,
                Some(TokenKind::Word(next)) => next.eq_ignore_ascii_case("equ"),
                _ => false,
            };
            if constant {
                let name = self.define(word, span.clone(), false)?;
                cursor.at += ahead + 1;
                let value = self.expression(cursor)?;
                let span = cursor.since(span.start);
                self.finished(cursor)?;
                let kind = StatementKind::Constant(name, value);
                self.out.statements.push(Statement { kind, span, line: self.line });
                return Ok(());
            }
            let bare = !colon
                && !self.is_statement(word)
                && match cursor.peek_at(1) {
                    Some(&TokenKind::Word(next)) => self.is_statement(next),
                    _ => false,
                };
            if !colon && !bare {
                return Ok(());
            }
            let name = self.define(word, span.clone(), true)?;
            self.out.statements.push(Statement { kind: StatementKind::Label(name), span, line: self.line });
            cursor.at += ahead;
        }
        Ok(())
    }

    /// Whether a statement can begin with this word.
    fn is_statement(&self, word: &str) -> bool {
        let lower = word.to_ascii_lowercase();
        mnemonics::DIRECTIVES.contains(&lower.as_str())
            || mnemonics::PREFIXES.contains(&lower.as_str())
            || mnemonics::meaning(&lower, self.bits).is_some()
    }

    fn define(&mut self, word: &str, span: Range<usize>, label: bool) -> Result<usize, Diagnostic> {
        let reserved = registers::by_name(word).is_some() || registers::size_word(word).is_some();
        if reserved || word.starts_with('$') {
            return Err(Diagnostic::new(span, format!("`{word}` is a reserved word and cannot be defined")));
        }
        if word.starts_with('.') && self.parent.is_empty() {
            return Err(Diagnostic::new(span, format!("local name `{word}` has no label before it to belong to"))
                .with_help("a name that begins with a dot belongs to the last label without one"));
        }
        let name = self.out.names.number(&qualify(word, &self.parent));
        if let Some(first) = self.defined_at.insert(name, self.line) {
            self.defined_at.insert(name, first);
            let text = self.out.names.text(name);
            return Err(
                Diagnostic::new(span, format!("`{text}` is defined twice")).with_help(format!("it was first defined on line {first}"))
            );
        }
        self.out.defined.insert(name, label);
        if label && !word.starts_with('.') {
            word.clone_into(&mut self.parent);
        }
        Ok(name)
    }

    fn expressions(&mut self) -> ExpressionParser<'_> {
        ExpressionParser { source: self.text, names: &mut self.out.names, parent: &self.parent, registers: false }
    }

    fn expression(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Expression, Diagnostic> {
        self.expressions().parse(cursor)
    }

    /// The statement at the cursor; none for directives that only change the parser.
    fn statement(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Option<StatementKind>, Diagnostic> {
        let span = cursor.span();
        let Some(&TokenKind::Word(word)) = cursor.peek() else {
            let mut fault =
                Diagnostic::new(span, format!("expected a label, a directive or a mnemonic, found {}", cursor.shown(self.text)));
            if matches!(cursor.peek(), Some(TokenKind::Mark("%"))) {
                fault = fault.with_help("there is no preprocessor: `name equ expression` defines a constant");
            }
            return Err(fault);
        };
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "bits" => {
                cursor.at += 1;
                let value = cursor.peek().cloned();
                let number_span = cursor.span();
                cursor.at += 1;
                self.bits = match value {
                    Some(TokenKind::Number(16)) => Bits::Sixteen,
                    Some(TokenKind::Number(32)) => Bits::ThirtyTwo,
                    Some(TokenKind::Number(64)) => Bits::SixtyFour,
                    _ => return Err(Diagnostic::new(number_span, "`bits` takes 16, 32 or 64")),
                };
            }
            "use16" => (self.bits, cursor.at) = (Bits::Sixteen, cursor.at + 1),
            "use32" => (self.bits, cursor.at) = (Bits::ThirtyTwo, cursor.at + 1),
            "use64" => (self.bits, cursor.at) = (Bits::SixtyFour, cursor.at + 1),
            "default" => {
                cursor.at += 1;
                self.default_relative = if cursor.take_word("rel") {
                    true
                } else if cursor.take_word("abs") {
                    false
                } else {
                    return Err(Diagnostic::new(cursor.span(), "`default` takes `rel` or `abs`"));
                };
            }
            "org" => {
                cursor.at += 1;
                let value = self.expression(cursor)?;
                if self.has_origin {
                    return Err(Diagnostic::new(span, "a program has one `org` only")
                        .with_help("to fill up to an address, write `times address-($-$$) db 0`"));
                }
                self.has_origin = true;
                return Ok(Some(StatementKind::Origin(value)));
            }
            "section" | "segment" | "global" | "extern" | "incbin" | "istruc" | "struc" | "cpu" | "absolute" => {
                return Err(Diagnostic::new(span, format!("`{lower}` is not supported"))
                    .with_help("a program is one flat piece of code and data: see `org`, `align` and `times`"));
            }
            "times" => {
                cursor.at += 1;
                let count = self.expression(cursor)?;
                let body = self.body(cursor)?;
                return Ok(Some(StatementKind::Emit { count: Some(count), body }));
            }
            _ => {
                let body = self.body(cursor)?;
                return Ok(Some(StatementKind::Emit { count: None, body }));
            }
        }
        Ok(None)
    }

    /// Something that takes space.
    fn body(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Body, Diagnostic> {
        let Some(&TokenKind::Word(word)) = cursor.peek() else {
            let found = cursor.shown(self.text);
            return Err(Diagnostic::new(cursor.span(), format!("expected an instruction or data, found {found}")));
        };
        let lower = word.to_ascii_lowercase();
        if let Some(width) = lower.strip_prefix('d').and_then(directives::item_width) {
            cursor.at += 1;
            return Ok(Body::Data(Data::parse(width, &mut self.expressions(), cursor)?));
        }
        if let Some(width) = lower.strip_prefix("res").and_then(directives::item_width) {
            cursor.at += 1;
            return Ok(Body::Reserve { width, count: self.expression(cursor)? });
        }
        if lower == "align" || lower == "alignb" {
            cursor.at += 1;
            let boundary = self.expression(cursor)?;
            let mut fill = Fill::Nops;
            if cursor.take_mark(",") {
                // nasm writes `align 16, db 0`, others `align 16, 0`.
                let spelled = cursor.take_word("db") || cursor.take_word("resb");
                let nop = !spelled && cursor.take_word("nop");
                fill = if nop { Fill::Nops } else { Fill::Byte(self.expression(cursor)?) };
            } else if lower == "alignb" {
                fill = Fill::Byte(Expression::zero());
            }
            return Ok(Body::Align { boundary, fill });
        }
        self.instruction(cursor)
    }

    fn instruction(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Body, Diagnostic> {
        let mut prefixes = Prefixes::default();
        loop {
            let span = cursor.span();
            let Some(&TokenKind::Word(word)) = cursor.peek() else {
                let found = cursor.shown(self.text);
                return Err(Diagnostic::new(span, format!("expected a mnemonic after the prefix, found {found}"))
                    .with_help("a prefix by itself can be written with `db`"));
            };
            let name = word.to_ascii_lowercase();
            if name == "wait" || !mnemonics::PREFIXES.contains(&name.as_str()) {
                return self.mnemonic(cursor, name, span, prefixes);
            }
            set_prefix(&mut prefixes, &name, self.bits).map_err(|message| Diagnostic::new(span, message))?;
            cursor.at += 1;
        }
    }

    fn mnemonic(
        &mut self,
        cursor: &mut Cursor<'_, '_>,
        name: String,
        name_span: Range<usize>,
        prefixes: Prefixes,
    ) -> Result<Body, Diagnostic> {
        let Some(meaning) = mnemonics::meaning(&name, self.bits) else {
            return Err(unknown(&self.text[name_span.clone()], &name, name_span));
        };
        cursor.at += 1;
        let (bits, default_relative) = (self.bits, self.default_relative);
        let mut parser = OperandParser { expressions: self.expressions(), bits, default_relative };
        let operands = parser.parse_all(cursor)?;
        // nasm's `fadd` without operands pops, as `faddp` does.
        let popping = ["fadd", "fmul", "fsub", "fsubr", "fdiv", "fdivr"].contains(&name.as_str());
        let meaning = match mnemonics::meaning(&format!("{name}p"), bits) {
            Some(pops) if popping && operands.is_empty() => pops,
            _ => meaning,
        };
        let statement = InstructionStatement { bits, name, name_span, meaning, prefixes, operands };
        Ok(Body::Instruction(Box::new(statement)))
    }
}

/// The fault for a word that begins no statement.
fn unknown(shown: &str, name: &str, span: Range<usize>) -> Diagnostic {
    let known = mnemonics::names().chain(mnemonics::DIRECTIVES).chain(mnemonics::PREFIXES);
    let mut fault = Diagnostic::new(span, format!("unknown mnemonic or directive `{shown}`"));
    if registers::by_name(name).is_some() {
        fault = fault.with_help("a register cannot begin a statement");
    } else if let Some(near) = diagnostics::nearest(name, known) {
        fault = fault.with_help(format!("did you mean `{near}`? A label is written `{shown}:`"));
    } else {
        fault = fault.with_help(format!("a label is written `{shown}:`"));
    }
    fault
}

/// Notes a prefix word; the fault is a message.
fn set_prefix(prefixes: &mut Prefixes, name: &str, bits: Bits) -> Result<(), String> {
    let segment = |name: &str| registers::by_name(name).and_then(encode::segment_prefix);
    let clash = || format!("`{name}` contradicts an earlier prefix");
    let set = |slot: &mut Option<u8>, byte: u8| match slot.replace(byte) {
        Some(earlier) if earlier != byte => Err(clash()),
        _ => Ok(()),
    };
    let size = |slot: &mut Option<u32>, bits: u32| match slot.replace(bits) {
        Some(earlier) if earlier != bits => Err(clash()),
        _ => Ok(()),
    };
    match name {
        "lock" => prefixes.lock = true,
        "rep" | "repe" | "repz" | "xrelease" => set(&mut prefixes.repeat, 0xf3)?,
        "repne" | "repnz" | "bnd" | "xacquire" => set(&mut prefixes.repeat, 0xf2)?,
        "notrack" => set(&mut prefixes.segment, 0x3e)?,
        "o16" => size(&mut prefixes.operand_size, 16)?,
        "o32" => size(&mut prefixes.operand_size, 32)?,
        "a16" if bits != Bits::SixtyFour => size(&mut prefixes.address_size, 16)?,
        "a32" => size(&mut prefixes.address_size, 32)?,
        "a64" if bits == Bits::SixtyFour => size(&mut prefixes.address_size, 64)?,
        "o64" if bits == Bits::SixtyFour => size(&mut prefixes.operand_size, 64)?,
        "rex.w" if bits == Bits::SixtyFour => prefixes.rex_w = true,
        "a16" | "a64" | "o64" | "rex.w" => {
            return Err(format!("prefix `{name}` does not exist in {}-bit mode", bits.width()));
        }
        _ => set(&mut prefixes.segment, segment(name).unwrap_or_default())?,
    }
    Ok(())
}
