//! Byte-for-byte comparison with nasm, where nasm is installed.
//!
//! Each line of tests/corpus/*.asm is a case; `|` in it separates source lines. All cases of a mode are assembled as one
//! program, so that one run of nasm is enough, and every case has a label, so that a difference names its case.

use assembler::{Bits, Options, assemble};
use std::path::Path;
use std::process::Command;

/// nasm's bytes for a source; none where nasm is not installed.
fn nasm(name: &str, source: &str) -> Option<Vec<u8>> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (input, output) = (directory.join(format!("{name}.asm")), directory.join(format!("{name}.bin")));
    std::fs::write(&input, source).expect("the temporary directory of the tests is writable");
    let run = Command::new("nasm").args(["-f", "bin", "-O2", "-w-all", "-o"]).arg(&output).arg(&input).output();
    let Ok(run) = run else {
        println!("note: nasm is not installed, nothing is compared with it");
        return None;
    };
    assert!(run.status.success(), "nasm refuses the corpus:\n{}", String::from_utf8_lossy(&run.stderr));
    Some(std::fs::read(&output).expect("nasm has written its output"))
}

/// Fails at the first difference, with a little of what surrounds it.
fn compare(ours: &[u8], theirs: &[u8]) {
    let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
    if let Some(at) = at.or((ours.len() != theirs.len()).then_some(ours.len().min(theirs.len()))) {
        let window = |bytes: &[u8]| format!("{:02x?}", &bytes[at.saturating_sub(8)..bytes.len().min(at + 16)]);
        panic!("differs from nasm at byte {at:#x}:\nours   {}\ntheirs {}", window(ours), window(theirs));
    }
}

fn compare_corpus(name: &str, bits: Bits, corpus: &str) {
    let width = bits.width();
    let mut source = format!("bits {width}\norg 0x7c00\n");
    let cases: Vec<&str> = corpus.lines().filter(|line| !line.is_empty()).collect();
    for (number, case) in cases.iter().enumerate() {
        source.push_str(&format!("case{number}:\n{}\n", case.replace('|', "\n")));
    }
    let ours = match assemble(&source, &Options { bits, ..Options::default() }) {
        Ok(program) => program,
        Err(faults) => {
            let text: Vec<String> = faults.iter().map(|fault| fault.render("corpus", &source)).collect();
            panic!("{}", text.join("\n"));
        }
    };
    let Some(theirs) = nasm(name, &source) else {
        return;
    };
    for (number, case) in cases.iter().enumerate() {
        let start = (ours.symbols[&format!("case{number}")] - 0x7c00) as usize;
        let end = ours.symbols.get(&format!("case{}", number + 1)).map_or(ours.bytes.len(), |&end| (end - 0x7c00) as usize);
        let theirs = &theirs[start.min(theirs.len())..end.min(theirs.len())];
        assert_eq!(format!("{:02x?}", &ours.bytes[start..end]), format!("{theirs:02x?}"), "case `{case}` in {width} bits");
    }
    assert_eq!(ours.bytes.len(), theirs.len());
}

#[test]
fn corpus_of_16_bits() {
    compare_corpus("corpus-16", Bits::Sixteen, include_str!("corpus/16.asm"));
}

#[test]
fn corpus_of_32_bits() {
    compare_corpus("corpus-32", Bits::ThirtyTwo, include_str!("corpus/32.asm"));
}

#[test]
fn corpus_of_64_bits() {
    compare_corpus("corpus-64", Bits::SixtyFour, include_str!("corpus/64.asm"));
}

#[test]
fn a_boot_sector_from_real_to_long_mode() {
    let source = include_str!("corpus/boot.asm");
    let ours = assemble(source, &Options { bits: Bits::Sixteen, ..Options::default() }).expect("it assembles");
    assert_eq!(ours.bytes.len(), 512);
    assert_eq!(ours.bytes[510..], [0x55, 0xaa]);
    if let Some(theirs) = nasm("boot", source) {
        compare(&ours.bytes, &theirs);
    }
}

#[test]
fn branches_around_the_reach_of_the_short_form() {
    // Each gap moves the branches before it, so that a wrong guess in an early pass shows.
    let mut source = "bits 64\norg 0x1000\n".to_owned();
    for number in 0..300 {
        let gap = (number * 37) % 61;
        let (near, far) = ((number + 3) % 300, (number + 41) % 300);
        source.push_str(&format!("l{number}: jz l{near}\n times {gap} nop\n jmp l{far}\n lea rax, [rbx+l{near}-l{number}]\n"));
    }
    let ours = assemble(&source, &Options::default()).expect("it assembles");
    if let Some(theirs) = nasm("branches", &source) {
        compare(&ours.bytes, &theirs);
    }
}
