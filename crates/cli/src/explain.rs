//! `trapline explain`: which rules of an entry a VMCS or VMCB breaks.

use crate::arguments::Explain;
use crate::exit::Exit;
use crate::output::Output;
use audit::ReadError;
use scenario::diagnostic::{Diagnostic, Diagnostics, Source};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Explains what the arguments name.
pub fn explain(arguments: &Explain, output: &Output) -> Exit {
    let (name, text) = match read(&arguments.file) {
        Ok(read) => read,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    let cpu = match arguments.cpu.as_deref().map(models::find).transpose() {
        Ok(cpu) => cpu,
        Err(error) => {
            output.error(error);
            return Exit::Invalid;
        }
    };
    let mut state = match audit::read(&text, cpu) {
        Ok(state) => state,
        Err(error) => {
            output.complain(&complaint(&name, text, error).render(output.error_colours));
            return Exit::Invalid;
        }
    };
    let assessment = audit::assess(&mut state);
    if output.json() {
        output.print(&audit::json_lines::lines(&assessment, &text));
    } else if !output.quiet || !assessment.valid() {
        let most = if output.verbose { usize::MAX } else { audit::text::SHOWN };
        output.print(&audit::text::report(&assessment, &text, most, &|code, text| output.paint(code, text)));
    }
    if assessment.valid() { Exit::Success } else { Exit::Failed }
}

/// The name to show and the text. A log may hold bytes that are no UTF-8: they are no part of what is looked for.
fn read(file: &Path) -> Result<(String, String), String> {
    let (name, bytes) = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let limit = audit::MAX_SIZE as u64 + 1;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
        ("standard input".to_owned(), read.map(|_| bytes))
    } else {
        (file.display().to_string(), scenario::load::read_bounded(file))
    };
    let bytes = bytes.map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok((name, String::from_utf8_lossy(&bytes).into_owned()))
}

fn complaint(name: &str, text: String, error: ReadError) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    if error.place.is_empty() {
        diagnostics.push(Diagnostic::without_place(format!("{name}: {error}")));
    } else {
        let source = Arc::new(Source { name: name.to_owned(), text });
        diagnostics.push(Diagnostic::new(&source, error.place, error.message));
    }
    diagnostics
}
