//! `trapline asm`: assembly text to a listing or to bytes.

use crate::arguments::Asm;
use crate::exit::Exit;
use crate::output::Output;
use assembler::{Bits, Options};
use scenario::diagnostic::{Diagnostic, Diagnostics, Source};
use std::sync::Arc;

/// Assembles the file.
pub fn asm(arguments: &Asm, output: &Output) -> Exit {
    let name = arguments.file.display().to_string();
    let text = match scenario::load::read_bounded(&arguments.file).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            output.error(format_args!("{name} is no UTF-8 text"));
            return Exit::Invalid;
        }
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
    if let Some(path) = &arguments.output
        && let Err(error) = std::fs::write(path, &program.bytes)
    {
        output.error(format_args!("cannot write {}: {error}", path.display()));
        return Exit::Invalid;
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
