//! `trapline inspect` and `trapline diff`: what is in a stream, and where two of them differ.

use crate::arguments::{Diff, Inspect};
use crate::exit::Exit;
use crate::output::Output;
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use stream::contents::{Contents, Differences, dump};
use stream::{Form, PAGE_BYTES, Value, tree};

/// Differences of each kind that are shown; `--verbose` shows all.
const SHOWN: usize = 20;
/// Bytes of a page that are shown from an address on.
const DUMPED: usize = 256;

/// Reads a stream; the message says what is wrong with it, and what came before that is there.
fn read(path: &Path) -> Result<(Contents, Option<String>), String> {
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let (contents, error) = Contents::read(BufReader::new(file));
    Ok((contents, error.map(|error| format!("{}: {error}", path.display()))))
}

/// A value as JSON: numbers that can exceed 2^53 are strings in hexadecimal.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Integer(number) => {
            let number = i128::from(*number);
            if (-(1 << 53)..=1 << 53).contains(&number) { json!(number as i64) } else { json!(format!("{number:#x}")) }
        }
        Value::Text(text) => json!(text),
        Value::Bool(flag) => json!(flag),
        Value::Float(number) => json!(number),
        Value::Bytes(bytes) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Array(list) => list.iter().map(to_json).collect(),
        Value::Map(map) => {
            let name = |key: &Value| key.as_text().map_or_else(|| tree::text(key).trim_end().to_owned(), str::to_owned);
            map.iter().map(|(key, value)| (name(key), to_json(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Null => serde_json::Value::Null,
        other => json!(tree::text(other).trim_end()),
    }
}

/// Shows a stream, a section of it or a field of that.
pub fn inspect(arguments: &Inspect, output: &Output) -> Exit {
    let (contents, broken) = match read(&arguments.file) {
        Ok(read) => read,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    let shown = match &arguments.section {
        None => Ok(overview(&contents, output)),
        Some(name) => section(&contents, name, output),
    };
    let whole = shown.is_ok() && broken.is_none();
    match shown {
        Ok(text) => output.print(&text),
        Err(message) => output.error(message),
    }
    if let Some(message) = &broken {
        output.error(message);
    }
    if whole { Exit::Success } else { Exit::Invalid }
}

fn overview(contents: &Contents, output: &Output) -> String {
    if output.json() {
        let rows: Vec<_> = contents
            .sections
            .iter()
            .map(|row| {
                json!({ "name": row.name, "version": row.version, "form": row.form.to_string(), "optional": row.optional, "count": row.count,
                    "bytes": row.raw, "stored": row.stored, "checksum": format!("{:#010x}", row.checksum) })
            })
            .collect();
        return format!("{:#}\n", json!({ "schema_version": 1, "format": stream::FORMAT, "sections": rows }));
    }
    let mut text = format!("{:<24} {:>7} {:>12} {:>12}  {:<10}  holds\n", "section", "version", "bytes", "stored", "checksum");
    for row in &contents.sections {
        let holds = match row.form {
            Form::Pages => format!("{} pages in {} sections", row.raw / PAGE_BYTES as u64, row.count),
            form => form.to_string(),
        };
        let optional = if row.optional { ", may be skipped" } else { "" };
        text +=
            &format!("{:<24} {:>7} {:>12} {:>12}  {:#010x}  {holds}{optional}\n", row.name, row.version, row.raw, row.stored, row.checksum);
    }
    let (raw, stored) = contents.sections.iter().fold((0, 0), |(raw, stored), row| (raw + row.raw, stored + row.stored));
    text += &format!("{:<24} {:>7} {raw:>12} {stored:>12}\n", "in all", "");
    text
}

fn section(contents: &Contents, text: &str, output: &Output) -> Result<String, String> {
    let (name, path) = contents.find(text)?;
    if let Some(pages) = contents.pages.get(name) {
        if path.is_empty() {
            let frames: Vec<u64> = pages.keys().copied().collect();
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for frame in frames {
                match runs.last_mut() {
                    Some((_, end)) if *end == frame => *end += 1,
                    _ => runs.push((frame, frame + 1)),
                }
            }
            let size = PAGE_BYTES as u64;
            if output.json() {
                let runs: Vec<_> = runs.iter().map(|(first, end)| json!([format!("{:#x}", first * size), end - first])).collect();
                return Ok(format!("{:#}\n", json!({ "schema_version": 1, "section": name, "pages": runs })));
            }
            let line = |(first, end): &(u64, u64)| format!("{:#010x} to {:#010x}  {} pages\n", first * size, end * size - 1, end - first);
            return Ok(runs.iter().map(line).collect::<String>() + &format!("`{name}.ADDRESS` shows the bytes there\n"));
        }
        let address =
            scenario::quantity::parse_number(&path).ok_or_else(|| format!("`{path}` is no address; {name}.0x1000 shows a page"))?;
        let (frame, offset) = (address / PAGE_BYTES as u64, (address % PAGE_BYTES as u64) as usize & !15);
        let value = |name: &str, path: &str| {
            u64::try_from(i128::from(tree::find(&contents.values.get(name)?.tree().ok()?, path).ok()?.as_integer()?)).ok()
        };
        if let Some(size) = value("memory", "size").filter(|size| address >= *size) {
            return Err(format!("there is no memory at {address:#x}; it ends at {size:#x}"));
        }
        let zero = [0; PAGE_BYTES];
        let page = pages.get(&frame).map_or(&zero, |page| &**page);
        let bytes = &page[offset..(offset + DUMPED).min(PAGE_BYTES)];
        let first = frame * PAGE_BYTES as u64 + offset as u64;
        if output.json() {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{:#}\n", json!({ "schema_version": 1, "section": name, "address": format!("{first:#x}"), "bytes": hex })));
        }
        let text = dump(first, bytes);
        return Ok(if text.is_empty() { format!("{first:#010x}  {} bytes, all zero\n", bytes.len()) } else { text });
    }
    let value =
        contents.values.get(name).ok_or_else(|| format!("section `{name}` cannot be read"))?.tree().map_err(|error| error.to_string())?;
    let value = tree::find(&value, &path).map_err(|error| format!("section `{name}`: {error}"))?;
    if output.json() {
        return Ok(format!("{:#}\n", json!({ "schema_version": 1, "section": name, "path": path, "value": to_json(value) })));
    }
    // Text is shown as it is: the scenario itself, for example.
    Ok(value.as_text().map_or_else(|| tree::text(value), |text| format!("{}\n", text.trim_end())))
}

/// Says where two streams differ.
pub fn diff(arguments: &Diff, output: &Output) -> Exit {
    let read_whole = |path: &Path| match read(path)? {
        (contents, None) => Ok(contents),
        (_, Some(message)) => Err(message),
    };
    let compared = read_whole(&arguments.one)
        .and_then(|one| Ok((one, read_whole(&arguments.other)?)))
        .and_then(|(one, other)| one.differences(&other).map_err(|error| error.to_string()));
    let differences = match compared {
        Ok(differences) => differences,
        Err(message) => {
            output.error(message);
            return Exit::Invalid;
        }
    };
    output.print(&told(&differences, output));
    if differences.is_empty() { Exit::Success } else { Exit::Failed }
}

fn bytes(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 16 { format!(" ... ({} bytes)", bytes.len()) } else { String::new() };
    shown.join(" ") + &more
}

fn told(differences: &Differences, output: &Output) -> String {
    if output.json() {
        let values: Vec<_> = differences
            .values
            .iter()
            .map(|(section, it)| json!({ "section": section, "path": it.path, "one": it.one, "other": it.other }))
            .collect();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let memory: Vec<_> = differences
            .memory
            .iter()
            .map(|(section, it)| {
                json!({ "section": section, "address": format!("{:#x}", it.address), "one": hex(&it.one), "other": hex(&it.other) })
            })
            .collect();
        let same = differences.is_empty();
        return format!("{:#}\n", json!({ "schema_version": 1, "same": same, "values": values, "memory": memory }));
    }
    if output.quiet {
        return String::new();
    }
    if differences.is_empty() {
        return "the same\n".to_owned();
    }
    let most = if output.verbose { usize::MAX } else { SHOWN };
    let nothing = || "nothing".to_owned();
    let mut text = String::new();
    for (section, it) in differences.values.iter().take(most) {
        let path = if it.path.is_empty() { section.clone() } else { format!("{section}.{}", it.path) };
        let (one, other) = (it.one.clone().unwrap_or_else(nothing), it.other.clone().unwrap_or_else(nothing));
        text += &format!("{}: {one} -> {other}\n", output.paint("1", &path));
    }
    for (section, it) in differences.memory.iter().take(most) {
        let place = output.paint("1", &format!("{section} {:#x}", it.address));
        text += &format!("{place}: {} -> {}\n", bytes(&it.one), bytes(&it.other));
    }
    for (what, count) in [("values", differences.values.len()), ("places in memory", differences.memory.len())] {
        if count > most {
            text += &format!("... and {} more {what}; --verbose shows all\n", count - most);
        }
    }
    text
}
