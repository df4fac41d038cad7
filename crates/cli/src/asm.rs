//! `trapline asm`: assembly text to a listing or to bytes.

use crate::arguments::Asm;
use crate::exit::Exit;
use crate::input::is_standard;
use crate::output::{Output, Standard};
use assembler::{Bits, Options};
use scenario::diagnostic::{Diagnostic, Diagnostics, Source};
use std::io::Write;
use std::sync::Arc;

/// Assembles the file.
pub fn asm(arguments: &Asm, output: &Output) -> Exit {
    let standard = is_standard(&arguments.file);
    let name = if standard { "standard input".to_owned() } else { arguments.file.display().to_string() };
    let read = if standard { crate::input::standard(scenario::load::MAX_FILE) } else { scenario::load::read_bounded(&arguments.file) };
    let text = match read.map_err(|error| error.to_string()).and_then(scenario::load::text) {
        Ok(text) => text,
        Err(error) => {
            output.error(format_args!("cannot read {name}: {error}"));
            return Exit::Invalid;
        }
    };
    let bits = match arguments.bits {
        16 => Bits::Sixteen,
        32 => Bits::ThirtyTwo,
        _ => Bits::SixtyFour,
    };
    let options = Options { origin: arguments.origin, bits, ..Options::default() };
    let program = match assembler::assemble(&text, &options) {
        Ok(program) => program,
        Err(mistakes) => {
            let source = Arc::new(Source { name, text });
            let mut diagnostics = Diagnostics::default();
            for mistake in mistakes {
                diagnostics.push(Diagnostic::new(&source, mistake.span, mistake.message).maybe_hint(mistake.help));
            }
            if output.json() {
                let list: Vec<_> = diagnostics
                    .list
                    .iter()
                    .map(|diagnostic| {
                        let (line, column) = diagnostic.position().unwrap_or_default();
                        serde_json::json!({ "line": line, "column": column, "message": diagnostic.message, "hint": diagnostic.hint })
                    })
                    .collect();
                output.print(&format!("{:#}\n", serde_json::json!({ "schema_version": 1, "errors": list })));
            } else {
                output.complain(&diagnostics.render(output.error_colours));
            }
            return Exit::Invalid;
        }
    };
    match &arguments.output {
        Some(path) if is_standard(path) => {
            if output.json() {
                output.error("with --format json the standard output has the report alone: name a file instead of `-`");
                return Exit::Invalid;
            }
            // What goes wrong there is told at the end of the command.
            let _ = Standard.write_all(&program.bytes);
        }
        Some(path) => {
            if let Err(error) = std::fs::write(path, &program.bytes) {
                output.error(format_args!("cannot write {}: {error}", path.display()));
                return Exit::Invalid;
            }
        }
        None => {}
    }
    if output.json() {
        let bytes: String = program.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let labels: std::collections::BTreeMap<_, _> =
            program.symbols.iter().map(|(name, address)| (name, format!("{address:#x}"))).collect();
        let document = serde_json::json!({
            "schema_version": 1,
            "origin": format!("{:#x}", program.origin),
            "bytes": bytes,
            "labels": labels,
        });
        output.print(&format!("{document:#}\n"));
    } else if arguments.output.is_none() {
        output.print(&assembler::listing(&program, &text));
    }
    Exit::Success
}
