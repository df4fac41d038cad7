//! Hostile text never panics, and what the disassembler writes the assembler reads.

use assembler::{Bits, Options, assemble, disassemble};
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Formatter, Instruction, Mnemonic, NasmFormatter, OpKind};
use proptest::prelude::*;
use std::collections::BTreeSet;

const MODES: [Bits; 3] = [Bits::Sixteen, Bits::ThirtyTwo, Bits::SixtyFour];

fn small(bits: Bits) -> Options {
    Options { bits, max_output: 4096, ..Options::default() }
}

/// Words and marks of the language, so that random text gets past the lexer.
fn token() -> impl Strategy<Value = String> {
    let words = [
        "mov",
        "add",
        "jmp",
        "call",
        "loop",
        "push",
        "lea",
        "imul",
        "shl",
        "vmread",
        "invept",
        "xchg",
        "fadd",
        "movaps",
        "rep",
        "lock",
        "o16",
        "a32",
        "o64",
        "rex.w",
        "times",
        "db",
        "dw",
        "dd",
        "dq",
        "resb",
        "resq",
        "align",
        "org",
        "bits",
        "equ",
        "default",
        "rel",
        "abs",
        "eax",
        "rax",
        "al",
        "r8",
        "sp",
        "bx",
        "si",
        "xmm0",
        "st0",
        "cr0",
        "fs",
        "ds",
        "byte",
        "word",
        "dword",
        "qword",
        "ptr",
        "short",
        "near",
        "far",
        "strict",
        "to",
        "nosplit",
        "$",
        "$$",
        "a",
        "b",
        ".c",
        "a:",
        "b:",
        ".c:",
        "0",
        "1",
        "2",
        "5",
        "16",
        "0x80",
        "0xffffffff",
        "0xffffffffffffffff",
        "0x7fffffffffffffff",
        "-1",
        "'a'",
        "\"text\"",
        "`\\n`",
        "1.5",
        "[",
        "]",
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        "%",
        "//",
        "%%",
        "<<",
        ">>",
        "&",
        "|",
        "^",
        "~",
        "!",
        ",",
        ":",
        "=",
        "\n",
        "\n",
        "\n",
        ";",
        "#",
        "{",
        "}",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

/// Statements that are mostly right, so that random programs get as far as layout.
fn statement() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", ".d"]);
    let number = prop::sample::select(vec!["0", "1", "127", "128", "-128", "-129", "0x1000", "$", "$$", "a", "b-a", "c"]);
    let shape = prop::sample::select(vec![
        "N:",
        "jmp N",
        "jz V",
        "loop N",
        "call V",
        "times V nop",
        "times V jmp N",
        "resb V",
        "align V",
        "N equ V",
        "db V, V",
        "dq V",
        "mov eax, V",
        "add ebx, V",
        "push V",
        "mov eax, [ebx+V]",
        "lea ecx, [V]",
        "jmp V:V",
        "org V",
        "mov eax, [V*ecx+V]",
        "times V resq V",
        "lea rax, [rel V]",
    ]);
    (shape, name, number.clone(), number)
        .prop_map(|(shape, name, first, second)| shape.replace('N', name).replacen('V', first, 1).replace('V', second))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in ".{0,200}", mode in 0usize..3) {
        check(&text, MODES[mode]);
    }

    #[test]
    fn any_tokens(tokens in prop::collection::vec(token(), 0..40), mode in 0usize..3) {
        check(&tokens.join(" "), MODES[mode]);
    }

    #[test]
    fn any_statements(lines in prop::collection::vec(statement(), 0..30), mode in 0usize..3) {
        check(&lines.join("\n"), MODES[mode]);
    }
}

/// Whatever comes out is within its limits and consistent with itself.
fn check(text: &str, bits: Bits) {
    match assemble(text, &small(bits)) {
        Ok(program) => {
            assert!(program.bytes.len() <= 4096);
            let listed: usize = program.lines.iter().map(|entry| entry.len).sum();
            assert_eq!(listed, program.bytes.len());
            let _ = assembler::listing(&program, text);
        }
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= 20);
            for fault in faults {
                assert!(fault.line >= 1 && fault.column >= 1);
                assert!(fault.render("text", text).contains(&fault.message));
            }
        }
    }
}

/// Decodes one instruction that has a text of its own.
fn decode(bytes: &[u8], bits: Bits, ip: u64) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(bits.width(), bytes, ip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// What an instruction means, without the ways in which equal instructions are written differently.
fn meaning(instruction: &Instruction) -> String {
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    // The formatter names the address size of some forms of a move only.
    if let Some(rest) = text.strip_prefix("a32 ").filter(|rest| rest.contains('[')) {
        text = rest.to_owned();
    }
    // Writing 32 bits of a register clears the others, so `mov rax, 1` is `mov eax, 1`.
    if matches!(instruction.code(), Code::Mov_r32_imm32 | Code::Mov_rm32_imm32 | Code::Mov_rm64_imm32 | Code::Mov_r64_imm64)
        && instruction.op0_kind() == OpKind::Register
    {
        text = format!("mov {:?}, {:#x}", instruction.op0_register().full_register(), instruction.immediate(1));
    }
    // Exchanging a register with itself has two encodings, of which one is called NOP.
    if instruction.mnemonic() == Mnemonic::Xchg && instruction.op0_register() == instruction.op1_register() {
        text = "nop".to_owned();
    }
    // C0 /6 is an undocumented twin of C0 /4 (SHL), and only 16 bits of a selector count.
    let mut text = text.replacen("sal ", "shl ", 1);
    let selector = instruction.op_count() == 2
        && instruction.mnemonic() == Mnemonic::Mov
        && (instruction.op0_register().is_segment_register() || instruction.op1_register().is_segment_register());
    if (selector || instruction.mnemonic() == Mnemonic::Sldt) && !text.contains('[') {
        let number = |at| instruction.op_register(at).number();
        text = format!("selector {} {}", number(0), if selector { number(1) } else { 0 });
    }
    if instruction.mnemonic() == Mnemonic::Xchg && !text.contains('[') && text != "nop" {
        let mut registers = [instruction.op0_register(), instruction.op1_register()];
        registers.sort();
        text = format!("xchg {registers:?}");
    }
    text
}

/// Whether text can carry the instruction: its prefixes are all meant, and nothing in it is EVEX.
fn has_text(instruction: &Instruction, bytes: &[u8]) -> bool {
    let info = instruction.code().op_code();
    let evex = matches!(info.encoding(), EncodingKind::EVEX | EncodingKind::MVEX);
    // A repeated prefix is not in the text, and a meaningless one lengthens a branch, which then reaches farther.
    let is_prefix = |byte: &&u8| matches!(byte, 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
    let prefixes: Vec<&u8> = bytes.iter().take_while(is_prefix).collect();
    let unique: BTreeSet<_> = prefixes.iter().collect();
    let branch = matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let rex = prefixes.is_empty() && matches!(bytes[0], 0x40..=0x4f);
    !evex && unique.len() == prefixes.len() && !(branch && (!prefixes.is_empty() || rex))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disassembly_assembles_to_the_same_instruction(bytes in prop::array::uniform15(any::<u8>()), mode in 0usize..3) {
        let (bits, ip) = (MODES[mode], 0x1000);
        let Some(instruction) = decode(&bytes, bits, ip) else { return Ok(()) };
        let bytes = &bytes[..instruction.len()];
        if !has_text(&instruction, bytes) {
            return Ok(());
        }
        let listed = disassemble(bytes, ip, bits);
        let text = &listed[19 + (bytes.len() * 3 - 1).max(31)..];
        let options = Options { origin: ip, bits, ..Options::default() };
        let program = assemble(text, &options).map_err(|faults| {
            let rendered: Vec<String> = faults.iter().map(|fault| fault.render("text", text)).collect();
            TestCaseError::fail(format!("{bits:?} {bytes:02x?} {text}{}", rendered.join("\n")))
        })?;
        let again = decode(&program.bytes, bits, ip);
        let same = again.as_ref().map(meaning);
        prop_assert_eq!(same, Some(meaning(&instruction)), "{:?} {:02x?} {:02x?} {}", bits, bytes, program.bytes, text);
        prop_assert_eq!(again.map(|again| again.len()), Some(program.bytes.len()));
    }
}
