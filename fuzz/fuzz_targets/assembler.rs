//! Any text as assembly: bytes or diagnostics that point into the text.
#![no_main]

use assembler::{Bits, Options, assemble};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for bits in [Bits::Sixteen, Bits::ThirtyTwo, Bits::SixtyFour] {
        let options = Options { bits, max_output: 1 << 16, ..Options::default() };
        match assemble(text, &options) {
            Ok(program) => assert!(program.bytes.len() <= 1 << 16),
            Err(diagnostics) => {
                assert!(!diagnostics.is_empty());
                for diagnostic in diagnostics {
                    assert!(diagnostic.span.end <= text.len());
                    let _ = diagnostic.render("fuzz.asm", text);
                }
            }
        }
    }
});
