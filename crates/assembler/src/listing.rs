//! Text for people: a listing of what was assembled, and bytes back to assembly.
//!
//! Modelled: both outputs can be fed to the assembler again, the listing's source column and the disassembly's text
//! column. Not modelled: labels in the disassembly.

use crate::{Bits, Program};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter, OpCodeOperandKind, OpKind, Register};
use std::fmt::Write as _;

/// How many bytes a listing line shows before it goes on below.
const BYTES_PER_LINE: usize = 8;
/// How many lines of bytes one statement may take before the rest is only counted.
const LINES_PER_STATEMENT: usize = 4;

/// Address, bytes and source of every line that made bytes.
///
/// `source` must be the text the program was assembled from.
pub fn listing(program: &Program, source: &str) -> String {
    let mut out = String::new();
    let mut entries = program.lines.iter().peekable();
    for (index, text) in source.split('\n').enumerate() {
        let text = text.trim_end();
        let mut shown = false;
        while let Some(entry) = entries.next_if(|entry| entry.line == index + 1) {
            let start = entry.address.wrapping_sub(program.origin) as usize;
            let end = start.saturating_add(entry.len).min(program.bytes.len());
            let bytes = program.bytes.get(start..end).unwrap_or_default();
            for (row, chunk) in bytes.chunks(BYTES_PER_LINE).enumerate() {
                let address = entry.address.wrapping_add((row * BYTES_PER_LINE) as u64);
                if row == LINES_PER_STATEMENT {
                    let _ = writeln!(out, "{address:016x}  ... {} bytes more", bytes.len() - row * BYTES_PER_LINE);
                    break;
                }
                let text = if shown { "" } else { text };
                let line = format!("{address:016x}  {:<24} {text}", hex(chunk));
                let _ = writeln!(out, "{}", line.trim_end());
                shown = true;
            }
        }
        if !shown {
            let _ = writeln!(out, "{}", format!("{:43} {text}", "").trim_end());
        }
    }
    out
}

/// Address, bytes and text of every instruction in `bytes`, which begin at `ip`.
///
/// What is no instruction is shown as `db`.
pub fn disassemble(bytes: &[u8], ip: u64, bits: Bits) -> String {
    let mut out = String::new();
    let mut formatter = formatter();
    let mut decoder = Decoder::with_ip(bits.width(), bytes, ip, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        let chunk = &bytes[start..decoder.position()];
        let text = format(&mut formatter, &instruction, chunk, bits);
        let _ = writeln!(out, "{:016x}  {:<31} {text}", instruction.ip(), hex(chunk));
    }
    out
}

/// The formatter whose text this assembler reads.
fn formatter() -> NasmFormatter {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(true);
    options.set_space_after_operand_separator(true);
    options.set_rip_relative_addresses(false);
    options.set_show_branch_size(true);
    options.set_branch_leading_zeros(false);
    options.set_use_pseudo_ops(false);
    formatter
}

/// The text of one instruction whose bytes are `chunk`.
fn format(formatter: &mut NasmFormatter, instruction: &Instruction, chunk: &[u8], bits: Bits) -> String {
    let data = || {
        let bytes: Vec<String> = chunk.iter().map(|byte| format!("{byte:#04x}")).collect();
        format!("db {}", bytes.join(", "))
    };
    if instruction.is_invalid() {
        return data();
    }
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    if matches!(instruction.mnemonic(), Mnemonic::Reservednop | Mnemonic::Undoc) {
        // These have no name in nasm that would give the same bytes.
        return format!("{} ; {text}", data());
    }
    if let Some(at) = text.find("[dword rel ") {
        // Relative to EIP: the address-size prefix says so.
        text.replace_range(at + 1..at + 7, "");
        text.insert_str(0, "a32 ");
        return text;
    }
    let has_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    let plain_index = instruction.memory_index() != Register::None && !instruction.memory_index().is_vector_register();
    if has_memory && instruction.memory_base() == Register::None && !text.starts_with("xlat") {
        let displacement = u64::from(instruction.memory_displ_size()) * 8;
        let word = match displacement {
            // Without a base the default segment is DS; as a base the register could mean SS.
            _ if plain_index => "nosplit ",
            16 if bits != Bits::Sixteen => "word ",
            32 if bits == Bits::Sixteen => "dword ",
            64 if instruction.op_kinds().any(|kind| kind == OpKind::Memory) && is_offset(instruction) => "qword ",
            _ => "",
        };
        if let Some(at) = text.find('[')
            && !text[at..].starts_with(&format!("[{word}"))
        {
            text.insert_str(at + 1, word);
        }
        let narrow = displacement == 32 && bits == Bits::SixtyFour && !text.starts_with("a32 ");
        if narrow && !plain_index && instruction.memory_index() == Register::None {
            text.insert_str(0, "a32 ");
        }
    }
    text
}

/// Whether the memory operand is a bare offset of full width, as only some moves have.
fn is_offset(instruction: &Instruction) -> bool {
    instruction.code().op_code().op_kinds().contains(&OpCodeOperandKind::mem_offs)
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}
