//! Places every statement: repeated passes until no address changes, then one that keeps the bytes.
//!
//! Modelled: branch relaxation to a fixpoint. Instructions only grow from pass to pass, so they settle; what is sized by
//! an expression may not, and is then refused. Time and memory are bounded: by the number of passes, by the size of the
//! output, and by how often an instruction that depends on its own address may be repeated.

use crate::diagnostics::{self, Diagnostic, Faults};
use crate::directives::{self, Data, Fill, Item};
use crate::encode::Encoded;
use crate::expression::{Expression, Meaning, Scope, Trouble, Value};
use crate::operand::AddressFault;
use crate::parser::{Body, InstructionStatement, Source, StatementKind};
use crate::select::{self, Request};
use crate::{LineEntry, Options, Program};
use iced_x86::Encoder;
use std::ops::Range;

/// After so many passes every instruction that still grows takes its longest form.
const PATIENT_PASSES: usize = 24;
/// After so many passes the program is refused.
const MAX_PASSES: usize = 64;
/// How many copies of position-dependent instructions `times` may make in one program.
const MAX_RELATIVE_COPIES: u64 = 1 << 18;
/// A floor no instruction reaches: the longest form is taken.
const LONGEST: usize = 16;

/// What layout remembers of a statement from pass to pass.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// An instruction whose bytes depend on nothing.
    fixed: Option<Encoded>,
    /// The least length of each further pass.
    floor: usize,
    /// Where the pass before placed it.
    place: u64,
}

struct Layout<'s> {
    text: &'s str,
    source: &'s Source,
    limit: u64,
    origin: u64,
    /// As the pass before left them, so that all distances are of one layout.
    meanings: Vec<Meaning>,
    /// As this pass finds them.
    next_meanings: Vec<Meaning>,
    memories: Vec<Memory>,
    encoders: [Encoder; 3],
    pass: usize,
    /// Whether the bytes are kept and every value has to fit.
    last: bool,
    relative_copies: u64,
    bytes: Vec<u8>,
    lines: Vec<LineEntry>,
}

/// Places and encodes a parsed source.
pub(crate) fn run(text: &str, source: &Source, options: &Options, faults: &mut Faults) -> Option<Program> {
    let mut meanings = vec![Meaning::Undefined; source.names.len()];
    for (&name, &label) in &source.defined {
        meanings[name] = if label { Meaning::Label(None) } else { Meaning::Constant(None) };
    }
    let mut layout = Layout {
        text,
        source,
        limit: options.max_output as u64,
        origin: options.origin,
        next_meanings: meanings.clone(),
        meanings,
        memories: vec![Memory::default(); source.statements.len()],
        encoders: [Encoder::new(16), Encoder::new(32), Encoder::new(64)],
        pass: 0,
        last: false,
        relative_copies: 0,
        bytes: Vec::new(),
        lines: Vec::new(),
    };
    layout.find_origin(faults);
    if !faults.is_empty() {
        // What could be read is still looked at once, for the faults in it.
        layout.pass(faults);
    }
    while faults.is_empty() {
        let changed = layout.pass(faults);
        if !faults.is_empty() {
            break;
        }
        if layout.last {
            return Some(layout.finish());
        }
        layout.pass += 1;
        if !changed {
            layout.check_constants(faults);
            layout.last = true;
        } else if layout.pass >= MAX_PASSES {
            faults.push(
                Diagnostic::new(0..0, format!("the addresses do not settle within {MAX_PASSES} passes"))
                    .with_help("a size that depends on labels behind it can chase itself: see `times`, `resb` and `align`"),
            );
        }
    }
    None
}

impl Layout<'_> {
    fn find_origin(&mut self, faults: &mut Faults) {
        let meanings = vec![Meaning::Undefined; self.source.names.len()];
        for statement in &self.source.statements {
            let StatementKind::Origin(expression) = &statement.kind else {
                continue;
            };
            let scope = Scope { meanings: &meanings, here: 0, start: 0 };
            match expression.evaluate(&scope) {
                Ok(value) if !expression.moves() => self.origin = value.number as u64,
                Err(trouble @ Trouble::DivisionByZero) => faults.push(self.trouble(&trouble, &expression.span)),
                _ => faults.push(Diagnostic::new(expression.span.clone(), "`org` takes a plain number")),
            }
        }
    }

    /// One walk over all statements; whether any address or constant changed.
    fn pass(&mut self, faults: &mut Faults) -> bool {
        let source = self.source;
        let mut changed = false;
        let mut address = self.origin;
        self.relative_copies = 0;
        for (index, statement) in source.statements.iter().enumerate() {
            if faults.is_full() {
                break;
            }
            let here = if self.pass == 0 { address } else { self.memories[index].place };
            changed |= self.pass == 0 || here != address;
            self.memories[index].place = address;
            match &statement.kind {
                StatementKind::Origin(_) => {}
                StatementKind::Label(name) => changed |= self.set(*name, Meaning::Label(Some(address))),
                StatementKind::Constant(name, expression) => match self.evaluate(expression, here) {
                    Ok(value) if value.unknown => {}
                    Ok(value) => {
                        let meaning = Meaning::Constant(Some((value.number, value.addresses)));
                        changed |= self.set(*name, meaning);
                    }
                    Err(fault) => faults.push(fault),
                },
                StatementKind::Emit { count, body } => {
                    let size = self.emit(index, count.as_ref(), body, here, address);
                    let size = match size {
                        Ok(size) => size,
                        Err(fault) => {
                            faults.push(fault);
                            continue;
                        }
                    };
                    let used = address.wrapping_sub(self.origin).saturating_add(size);
                    if used > self.limit || self.origin.checked_add(used).is_none() {
                        let message = format!("the program grows beyond {} bytes", self.limit);
                        let message = if used > self.limit { message } else { "the program grows beyond the last address".to_owned() };
                        faults.push(Diagnostic::new(statement.span.clone(), message));
                        return changed;
                    }
                    if self.last && size > 0 {
                        self.lines.push(LineEntry { address, len: size as usize, line: statement.line });
                    }
                    address += size;
                }
            }
        }
        self.meanings.clone_from(&self.next_meanings);
        changed
    }

    fn set(&mut self, name: usize, meaning: Meaning) -> bool {
        let changed = self.meanings[name] != meaning;
        self.next_meanings[name] = meaning;
        changed
    }

    /// Once nothing changes, a constant that is still unknown is defined by itself.
    fn check_constants(&self, faults: &mut Faults) {
        for statement in &self.source.statements {
            if let StatementKind::Constant(name, _) = &statement.kind
                && self.meanings[*name] == Meaning::Constant(None)
            {
                let text = self.source.names.text(*name);
                faults.push(Diagnostic::new(statement.span.clone(), format!("`{text}` is defined by itself")));
            }
        }
    }

    fn scope(&self, here: u64) -> Scope<'_> {
        Scope { meanings: &self.meanings, here, start: self.origin }
    }

    fn evaluate(&self, expression: &Expression, here: u64) -> Result<Value, Diagnostic> {
        let value = expression.evaluate(&self.scope(here)).map_err(|trouble| self.trouble(&trouble, &expression.span))?;
        if value.terms.is_empty() { Ok(value) } else { Err(self.trouble(&Trouble::Register, &expression.span)) }
    }

    fn trouble(&self, trouble: &Trouble, span: &Range<usize>) -> Diagnostic {
        match trouble {
            Trouble::DivisionByZero => Diagnostic::new(span.clone(), "division by zero"),
            Trouble::Register => Diagnostic::new(span.clone(), "a register cannot be calculated with like this")
                .with_help("an address is base + index*scale + displacement"),
            Trouble::Undefined(name) => {
                let text = self.source.names.text(*name);
                // The span is the whole expression: point at the name itself where it stands in it as written.
                let local = text.rfind('.').map_or(text, |dot| &text[dot..]);
                let written = |name: &str| self.text[span.clone()].find(name).map(|at| (span.start + at, name.len()));
                let place = written(text).or_else(|| written(local));
                let place = place.map_or(span.clone(), |(at, len)| at..at + len);
                let fault = Diagnostic::new(place, format!("`{text}` is not defined"));
                let defined = self.source.names.iter().enumerate();
                let defined = defined.filter(|(number, _)| self.source.defined.contains_key(number)).map(|pair| pair.1);
                match diagnostics::nearest(text, defined) {
                    Some(near) => fault.with_help(format!("did you mean `{near}`?")),
                    None => fault,
                }
            }
        }
    }

    /// A number of copies or bytes: never negative, and zero while unknown.
    fn count(&self, expression: &Expression, here: u64, what: &str) -> Result<u64, Diagnostic> {
        let value = self.evaluate(expression, here)?;
        match u64::try_from(value.number) {
            Ok(count) if !value.unknown => Ok(count),
            Ok(_) => Ok(0),
            // Addresses may still move; only the last pass knows.
            Err(_) if !self.last && expression.moves() => Ok(0),
            Err(_) => Err(Diagnostic::new(expression.span.clone(), format!("{what} is negative: {}", value.number))),
        }
    }

    /// The size of a statement whose `$` is `here`; its bytes are kept in the last pass, at `address`.
    fn emit(&mut self, index: usize, count: Option<&Expression>, body: &Body, here: u64, address: u64) -> Result<u64, Diagnostic> {
        let copies = match count {
            Some(count) => self.count(count, here, "the number of copies")?,
            None => 1,
        };
        let room = self.limit.saturating_sub(address.wrapping_sub(self.origin));
        match body {
            Body::Instruction(instruction) => self.emit_instruction(index, instruction, copies, here, room),
            Body::Data(data) => {
                let size = data.size().saturating_mul(copies);
                // Names in it must exist even where it is not kept.
                let once = self.data(data, here)?;
                self.keep(&once, size, room);
                Ok(size)
            }
            Body::Reserve { width, count } => {
                let size = self.count(count, here, "the reserved size")?.saturating_mul(*width as u64);
                let size = size.saturating_mul(copies);
                self.keep(&[0], size, room);
                Ok(size)
            }
            Body::Align { boundary, fill } => {
                let size = self.alignment(boundary, address)?;
                let byte = match fill {
                    Fill::Nops => 0x90,
                    Fill::Byte(expression) => {
                        let value = self.evaluate(expression, here)?;
                        self.check_fits(&value, 1, expression)?;
                        value.number as u8
                    }
                };
                self.keep(&[byte], size, room);
                Ok(size)
            }
        }
    }

    fn alignment(&self, boundary: &Expression, address: u64) -> Result<u64, Diagnostic> {
        let value = self.evaluate(boundary, address)?;
        match u64::try_from(value.number) {
            Ok(step) if step.is_power_of_two() => Ok(address.wrapping_neg() & (step - 1)),
            _ if value.unknown || (!self.last && boundary.moves()) => Ok(0),
            _ => Err(Diagnostic::new(boundary.span.clone(), format!("{} is not a power of two", value.number))),
        }
    }

    /// Appends `pattern` over and over until `size` bytes are written, if this is the last pass and there is room.
    fn keep(&mut self, pattern: &[u8], size: u64, room: u64) {
        if self.last && size <= room {
            self.bytes.extend(pattern.iter().copied().cycle().take(size as usize));
        }
    }

    fn check_fits(&self, value: &Value, width: usize, expression: &Expression) -> Result<(), Diagnostic> {
        if (expression.moves() && !self.last) || directives::fits(value.number, width) {
            return Ok(());
        }
        let noun = if width == 1 { "byte" } else { "bytes" };
        let number = crate::select::shown_number(value.number);
        Err(Diagnostic::new(expression.span.clone(), format!("{number} does not fit in {width} {noun}")))
    }

    /// The bytes of a data directive, once.
    fn data(&self, data: &Data, address: u64) -> Result<Vec<u8>, Diagnostic> {
        let mut bytes = Vec::new();
        for item in &data.items {
            let length = bytes.len();
            match item {
                Item::Text(text) => {
                    bytes.extend_from_slice(text);
                    bytes.resize(length + text.len().next_multiple_of(data.width), 0);
                }
                Item::Number(expression) => {
                    let value = self.evaluate(expression, address)?;
                    self.check_fits(&value, data.width, expression)?;
                    bytes.extend_from_slice(&value.number.to_le_bytes()[..data.width]);
                }
                Item::Float(float) if data.width == 4 => bytes.extend_from_slice(&(*float as f32).to_le_bytes()),
                Item::Float(float) => bytes.extend_from_slice(&float.to_le_bytes()),
            }
        }
        Ok(bytes)
    }

    fn emit_instruction(
        &mut self,
        index: usize,
        instruction: &InstructionStatement,
        copies: u64,
        address: u64,
        room: u64,
    ) -> Result<u64, Diagnostic> {
        if let Some(encoded) = self.memories[index].fixed {
            let size = copies.saturating_mul(encoded.len() as u64);
            self.keep(encoded.bytes(), size, room);
            return Ok(size);
        }
        let relative = select::is_relative(&instruction.meaning) || instruction.operands.iter().any(crate::operand::Operand::moves);
        if !relative {
            let encoded = self.encode(instruction, address, address, 0)?;
            self.memories[index].fixed = Some(encoded);
            let size = copies.saturating_mul(encoded.len() as u64);
            self.keep(encoded.bytes(), size, room);
            return Ok(size);
        }
        self.relative_copies = self.relative_copies.saturating_add(copies.saturating_sub(1));
        if self.relative_copies > MAX_RELATIVE_COPIES {
            return Err(Diagnostic::new(
                instruction.name_span.clone(),
                format!("more than {MAX_RELATIVE_COPIES} copies of instructions that depend on their own address"),
            ));
        }
        let mut size = 0;
        let mut floor = self.memories[index].floor;
        for _ in 0..copies.max(1) {
            let place = address.wrapping_add(size);
            // `$` is where the statement starts, for every copy, as in nasm.
            let least = floor;
            let encoded = self.encode(instruction, address, place, least)?;
            if encoded.len() > least && self.pass > PATIENT_PASSES {
                floor = LONGEST;
            } else if copies == 1 {
                floor = floor.max(encoded.len());
            }
            if copies == 0 {
                break;
            }
            self.keep(encoded.bytes(), encoded.len() as u64, room.saturating_sub(size));
            size += encoded.len() as u64;
        }
        self.memories[index].floor = floor;
        Ok(size)
    }

    /// Encodes one instruction whose `$` is `here` and which stands at `place`.
    fn encode(&mut self, instruction: &InstructionStatement, here: u64, place: u64, floor: usize) -> Result<Encoded, Diagnostic> {
        let mut arguments = Vec::with_capacity(instruction.operands.len());
        for (origin, operand) in instruction.operands.iter().enumerate() {
            let scope = Scope { meanings: &self.meanings, here, start: self.origin };
            match operand.evaluate(&scope, instruction.bits, origin) {
                Ok(argument) => arguments.push(argument),
                Err(AddressFault::Trouble(trouble, span)) => {
                    return Err(self.trouble(&trouble, &span));
                }
                Err(AddressFault::Address(span, message, help)) => {
                    let fault = Diagnostic::new(span, message);
                    return Err(match help {
                        Some(help) => fault.with_help(help),
                        None => fault,
                    });
                }
            }
        }
        let request = Request {
            bits: instruction.bits,
            name: &instruction.name,
            meaning: &instruction.meaning,
            prefixes: instruction.prefixes,
            arguments: &arguments,
            address: place,
            floor,
        };
        let encoder = &mut self.encoders[instruction.bits as usize];
        let moves = instruction.operands.iter().any(crate::operand::Operand::moves);
        let outcome = match select::select(encoder, &request) {
            // A value that does not fit yet may fit once everything is placed.
            Err(refusal) if refusal.by_value && moves && !self.last => {
                let mut waiting = arguments.clone();
                waiting.iter_mut().for_each(crate::operand::Argument::forget);
                select::select(encoder, &Request { arguments: &waiting, ..request })
            }
            outcome => outcome,
        };
        outcome.map_err(|refusal| {
            let span = refusal.operand.and_then(|at| instruction.operands.get(at)).map(|operand| operand.span.clone());
            let last = instruction.operands.last().map_or(instruction.name_span.end, |operand| operand.span.end);
            let whole = instruction.name_span.start..last;
            let fault = Diagnostic::new(span.unwrap_or(whole), refusal.message);
            match refusal.help {
                Some(help) => fault.with_help(help),
                None => fault,
            }
        })
    }

    fn finish(self) -> Program {
        let mut program = Program { origin: self.origin, bytes: self.bytes, lines: self.lines, ..Program::default() };
        for &name in self.source.defined.keys() {
            let text = self.source.names.text(name).to_owned();
            match self.meanings[name] {
                Meaning::Label(Some(address)) => {
                    program.symbols.insert(text, address);
                }
                Meaning::Constant(Some((value, _))) => {
                    program.constants.insert(text, value);
                }
                _ => {}
            }
        }
        program
    }
}
