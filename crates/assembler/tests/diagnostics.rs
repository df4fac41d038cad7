//! What a wrong program is told: every message with its line and caret.

use assembler::{Bits, Options, assemble};

/// The rendered faults of a source, one after the other.
fn faults(bits: Bits, source: &str) -> String {
    let options = Options { bits, max_output: 1 << 16, ..Options::default() };
    let faults = assemble(source, &options).expect_err("the source is wrong");
    faults.iter().map(|fault| fault.render("guest.asm", source)).collect::<Vec<_>>().join("\n")
}

#[test]
fn names() {
    insta::assert_snapshot!(faults(
        Bits::SixtyFour,
        "start:\n\tvmcal\n  mvo eax, 5\n  jmp strat\n  mov eax, [count]\nstart: nop\n  .loop: nop\nrax: nop\n\
         limit equ other + 1\nother equ limit\n  eax\n  frobnicate 1, 2\n"
    ));
}

#[test]
fn a_constant_defined_by_itself() {
    insta::assert_snapshot!(faults(Bits::SixtyFour, "limit equ other + 1\nother equ limit\n  dd limit\n"));
}

#[test]
fn operands() {
    insta::assert_snapshot!(faults(
        Bits::SixtyFour,
        "mov [rax], 1\ninc [rbx+8]\nmov eax, rbx\nmov eax, word [rbx]\nlea 5, eax\nvmcall eax\nvmread rax\n\
         mov r8b, ah\nmov rax, [rax+rbx+rcx]\nmov rax, [rsp*2]\nmov rax, [rax+ebx]\nmov rax, [rip+5]\n\
         mov rax, [al]\npush 5, 6\njmp far rax\nmovzx eax, [rax]\nenter 5\n"
    ));
}

#[test]
fn modes() {
    insta::assert_snapshot!(faults(
        Bits::ThirtyTwo,
        "mov rax, 1\nswapgs\nmov eax, [r8]\nbits 64\npusha\nmov eax, cr0\na16 nop\nmov eax, [bx]\nbits 48\n"
    ));
}

#[test]
fn numbers() {
    insta::assert_snapshot!(faults(
        Bits::ThirtyTwo,
        "mov al, 256\nadd eax, 0x100000000\nmov ax, -40000\nint 300\ndb 256, -129\ndw 0x12345\n\
         mov eax, [ebx+0x123456789]\ndb 1 / 0\nresb -5\ntimes -1 nop\nalign 3\nmov eax, byte 300\nout 256, al\n"
    ));
}

#[test]
fn far_away() {
    insta::assert_snapshot!(faults(
        Bits::ThirtyTwo,
        "jmp short end\nloop end\njecxz end\njz end\ntimes 200 nop\nend:\njmp short end - 200\n"
    ));
}

#[test]
fn syntax() {
    insta::assert_snapshot!(faults(
        Bits::SixtyFour,
        "mov eax,\nmov eax [ebx]\nmov eax, (1 + 2\nmov eax, [ebx\ndb 'open\ndb `\\q`\nmov eax, 0x\nmov eax, 12ab\n\
         %define X 1\nlock\nsection .text\nmov eax, €\n@ bits\ndb\nvaddps zmm0{k1}, zmm1, zmm2\nmov eax, 1.5\n"
    ));
}

#[test]
fn limits() {
    insta::assert_snapshot!(faults(Bits::SixtyFour, "nop\ntimes 70000 db 0\n"));
    insta::assert_snapshot!(faults(Bits::SixtyFour, "times 0x7fffffffffffffff resq 0x7fffffffffffffff\n"));
    insta::assert_snapshot!(faults(Bits::SixtyFour, "a: times 1 - (b - a) db 0\nb:\n"));
    let deep = format!("mov eax, {}1", "(".repeat(100));
    insta::assert_snapshot!(faults(Bits::SixtyFour, &deep));
}

#[test]
fn at_most_twenty() {
    let source = "bad\n".repeat(1000);
    assert_eq!(assemble(&source, &Options::default()).expect_err("it is wrong").len(), 20);
}

#[test]
fn line_column_and_span_point_at_the_fault() {
    let source = "nop\n  mov eax, [größe]\n";
    let faults = assemble("nop\n  mov eax, [missing]\n", &Options::default()).expect_err("it is wrong");
    assert_eq!((faults[0].line, faults[0].column, faults[0].span.clone()), (2, 13, 16..23));
    // A letter that is none of the language's is pointed at by character, not by byte.
    let faults = assemble(source, &Options::default()).expect_err("it is wrong");
    assert_eq!((faults[0].line, faults[0].column), (2, 15));
}

#[test]
fn hostile_programs_end_soon() {
    // Each would take for ever, or all memory, if nothing were bounded.
    let chain: String = (0..3000).map(|n| format!("l{n}: jmp l{}\n times 124 nop\n", n + 1)).collect();
    let copies = "more than 262144 copies of instructions that depend on their own address";
    let cases = [
        ("times 0xffffffff jmp $\n".to_owned(), Err(copies)),
        ("times 0xffffffffffff nop\n".to_owned(), Err("the program grows beyond 16777216 bytes")),
        ("align 1 << 62\nnop\nalign 1 << 62\n".to_owned(), Err("the program grows beyond 16777216 bytes")),
        (format!("x equ {}1\n dd x\n", "1+".repeat(200_000)), Ok(4)),
        (format!("x equ {}1\n dd x\n", "-".repeat(200_000)), Ok(4)),
        (format!("mov eax, [{}eax]\n", "eax+".repeat(50_000)), Err("these registers make no address")),
        (format!("{}nop\n", "a16 ".repeat(50_000)), Ok(2)),
        (format!("{chain}l3000:\n"), Ok(378_000)),
        ("times 200000 jmp forward\n".repeat(40) + "forward:\n", Err(copies)),
    ];
    for (program, expected) in cases {
        let outcome = assemble(&program, &Options { bits: Bits::ThirtyTwo, ..Options::default() });
        let outcome = outcome.map(|program| program.bytes.len()).map_err(|faults| faults[0].message.clone());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{}", &program[..16]);
    }
}
