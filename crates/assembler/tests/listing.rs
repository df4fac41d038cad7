//! The text for people: listings, disassembly, and what a program knows about its addresses.

use assembler::{Bits, Options, assemble, disassemble, listing};

const GUEST: &str = "; A guest of both vendors.
bits 16
org 0x7c00
PORT equ 0xf4
start:
        mov     ax, 5
        vmcall
.again: jc      .again
        vmmcall
        out     PORT, al
        jmp     0x8:start
text:   db      'hello, world', 10, 0
        times 40 db 0xcc
        align   16
end:
";

#[test]
fn a_listing_shows_address_bytes_and_source() {
    let program = assemble(GUEST, &Options::default()).expect("it assembles");
    insta::assert_snapshot!(listing(&program, GUEST));
}

#[test]
fn a_disassembly_can_be_read_and_assembled() {
    let program = assemble(GUEST, &Options::default()).expect("it assembles");
    insta::assert_snapshot!(disassemble(&program.bytes[..0x12], program.origin, Bits::Sixteen));
    // Not an instruction, an instruction cut off, and a 64-bit one.
    insta::assert_snapshot!(disassemble(
        &[0x0f, 0x04, 0x74, 0x10, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf0, 0x0f],
        0x1000,
        Bits::SixtyFour
    ));
}

#[test]
fn symbols_constants_and_lines() {
    let program = assemble(GUEST, &Options::default()).expect("it assembles");
    let symbols: Vec<(&str, u64)> = program.symbols.iter().map(|(name, &address)| (name.as_str(), address)).collect();
    assert_eq!(symbols, [("end", 0x7c50), ("start", 0x7c00), ("start.again", 0x7c06), ("text", 0x7c12)]);
    assert_eq!(program.constants["PORT"], 0xf4);
    assert_eq!(program.line_at(0x7bff), None);
    assert_eq!(program.line_at(0x7c00), Some(6));
    assert_eq!(program.line_at(0x7c02), Some(6));
    assert_eq!(program.line_at(0x7c03), Some(7));
    assert_eq!(program.line_at(0x7c50), None);
    assert_eq!(program.label_at(0x7c0b), Some(("start.again", 5)));
    assert_eq!(program.label_at(0x7bff), None);
}

#[test]
fn what_nasm_does_not_take() {
    let cases: [(Bits, &str, &[u8]); 12] = [
        (Bits::SixtyFour, "vmrun rax", &[0x0f, 0x01, 0xd8]),
        (Bits::SixtyFour, "vmload eax", &[0x67, 0x0f, 0x01, 0xda]),
        (Bits::ThirtyTwo, "vmsave eax", &[0x0f, 0x01, 0xdb]),
        (Bits::ThirtyTwo, "skinit eax", &[0x0f, 0x01, 0xde]),
        (Bits::SixtyFour, "sysretq", &[0x48, 0x0f, 0x07]),
        (Bits::SixtyFour, "sysexitq", &[0x48, 0x0f, 0x35]),
        (Bits::SixtyFour, "rex.w nop", &[0x48, 0x90]),
        (Bits::SixtyFour, "mov eax, dword ptr [rbx] # a comment", &[0x8b, 0x03]),
        (Bits::SixtyFour, "x = 5\nadd eax, x", &[0x83, 0xc0, 0x05]),
        (Bits::SixtyFour, "dd gdt >> 4, gdt & 3\ngdt:", &[0, 0, 0, 0, 0, 0, 0, 0]),
        (Bits::ThirtyTwo, "fld st(3)", &[0xd9, 0xc3]),
        (Bits::SixtyFour, "align 4, 0xaa\nnop\nalign 4, 0xaa", &[0x90, 0xaa, 0xaa, 0xaa]),
    ];
    for (bits, source, expected) in cases {
        let program = assemble(source, &Options { bits, ..Options::default() }).unwrap_or_else(|faults| panic!("{source}: {faults:?}"));
        assert_eq!(program.bytes, expected, "{source}");
    }
}

#[test]
fn the_origin_is_the_options_unless_the_source_says() {
    let options = Options { origin: 0xffff_8000_0000_0000, ..Options::default() };
    let program = assemble("nop\nhere: dq here, $$", &options).expect("it assembles");
    assert_eq!((program.origin, program.symbols["here"]), (options.origin, options.origin + 1));
    assert_eq!(program.bytes[1..9], (options.origin + 1).to_le_bytes());
    assert_eq!(assemble("org 0x100\nnop", &options).expect("it assembles").origin, 0x100);
}
