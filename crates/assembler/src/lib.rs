//! Intel-syntax assembly text to machine code, over iced-x86's instruction tables.
//!
//! Modelled: nasm's language as far as a flat program needs it, in 16, 32 and 64 bits, with the encodings `nasm -O2`
//! would choose. Not modelled: sections, macros, EVEX decorators, and anything that reads another file.
//!
//! # The language
//! One statement per line: `label: mnemonic operand, operand ; comment` (or `# comment`).
//!
//! | what | how |
//! |---|---|
//! | labels | `name:`, and `.name:`, which belongs to the last label without a dot |
//! | constants | `name equ expression`, `name = expression` |
//! | data | `db`, `dw`, `dd`, `dq` with numbers, `'strings'`, and in `dd` and `dq` floating-point numbers |
//! | space | `resb`, `resw`, `resd`, `resq` (zeroes), `align 16`, `align 16, 0`, `times 3 nop` |
//! | mode | `bits 16`, `bits 32`, `bits 64`, `org 0x7c00`, `default rel`, `default abs` |
//! | numbers | `255 0xff 0ffh 0b1111_1111 11111111b 377o 'a'`, `$` (this statement), `$$` (the start) |
//! | operators | `+ - * / // % %% << >> & \| ^ ~ ! ( )`; `/` and `%` are unsigned, `//` and `%%` signed |
//! | memory | `dword [fs:ebx+ecx*4+8]`, `es:[di]`, `[rel label]`, `[byte ebx+8]` |
//! | branches | `jmp short x`, `jmp near x`, `jmp 8:x`, `jmp far [x]` |
//! | prefixes | `lock rep repe repne a16 a32 o16 o32 o64 rex.w bnd notrack` and the segment registers |
//!
//! ```
//! let program = assembler::assemble("again: vmmcall\n jmp again", &assembler::Options::default()).unwrap();
//! assert_eq!(program.bytes, [0x0f, 0x01, 0xd9, 0xeb, 0xfb]);
//! ```

mod diagnostics;
mod directives;
mod encode;
mod expression;
mod layout;
mod lexer;
mod listing;
mod matching;
mod mnemonics;
mod operand;
mod parser;
mod registers;
mod select;

pub use diagnostics::Diagnostic;
pub use listing::{disassemble, listing};

use std::collections::BTreeMap;

/// The longest source that is looked at, in bytes.
const MAX_SOURCE: usize = 4 << 20;

/// The mode code is assembled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bits {
    /// 16-bit: real mode, virtual-8086 mode, and 16-bit code segments.
    Sixteen = 0,
    /// 32-bit: protected and compatibility mode.
    ThirtyTwo = 1,
    /// 64-bit mode.
    #[default]
    SixtyFour = 2,
}

impl Bits {
    /// The mode as a number of bits.
    pub fn width(self) -> u32 {
        16 << self as u32
    }
}

/// How a source is assembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address of the first byte, unless the source says `org`.
    pub origin: u64,
    /// The mode until the source says `bits`.
    pub bits: Bits,
    /// The most bytes a program may have.
    pub max_output: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { origin: 0, bits: Bits::SixtyFour, max_output: 16 << 20 }
    }
}

/// The bytes one source line made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEntry {
    /// The address of the first of them.
    pub address: u64,
    /// How many there are; never 0.
    pub len: usize,
    /// The source line, counted from 1.
    pub line: usize,
}

/// An assembled program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The address of the first byte.
    pub origin: u64,
    /// The machine code and data.
    pub bytes: Vec<u8>,
    /// The address of every label; a local label has its full name, `label.local`.
    pub symbols: BTreeMap<String, u64>,
    /// The value of every `equ`, wrapped to 64 bits.
    pub constants: BTreeMap<String, i64>,
    /// Which line made which bytes, in the order of addresses.
    pub lines: Vec<LineEntry>,
}

impl Program {
    /// The source line, counted from 1, that made the byte at `address`.
    pub fn line_at(&self, address: u64) -> Option<usize> {
        let after = self.lines.partition_point(|entry| entry.address <= address);
        let entry = self.lines.get(after.checked_sub(1)?)?;
        (address - entry.address < entry.len as u64).then_some(entry.line)
    }

    /// The label at or below `address` that is nearest to it, and the distance in bytes.
    pub fn label_at(&self, address: u64) -> Option<(&str, u64)> {
        let below = self.symbols.iter().filter(|&(_, &label)| label <= address);
        below.max_by_key(|&(_, &label)| label).map(|(name, &label)| (name.as_str(), address - label))
    }
}

/// Assembles a source.
///
/// # Errors
/// Every fault found, in source order, at most 20 of them. Faults in reading a line are all found before names and
/// operands are looked at.
pub fn assemble(source: &str, options: &Options) -> Result<Program, Vec<Diagnostic>> {
    let mut faults = diagnostics::Faults::default();
    if source.len() > MAX_SOURCE {
        let message = format!("the source is longer than {MAX_SOURCE} bytes");
        faults.push(Diagnostic::new(0..0, message));
        return Err(faults.finish(source));
    }
    let parsed = parser::parse(source, options.bits, &mut faults);
    let program = layout::run(source, &parsed, options, &mut faults);
    match program {
        Some(program) if faults.is_empty() => Ok(program),
        _ => Err(faults.finish(source)),
    }
}
