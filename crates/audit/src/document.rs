//! A VMCS or VMCB as JSON.
//!
//! Modelled: an object with a member `vmcs` or `vmcb` of field names and values; beside it `cpu`, `complete`, and what the rules read outside
//! of the structure: `region`, `entry`, `memory`, `processor`. Nested objects and arrays spell composite names (`{"CS": {"ATTRIB": 1}}` is
//! `CS.ATTRIB`, `{"INTERCEPTS": [0, 1]}` is `INTERCEPTS[1]`). A number is a JSON integer or a string such as `"0x80000021"`; `vmcb` may also be
//! the 4096 bytes as a string of hexadecimal digits. Every mistake knows where it stands.
//! Not modelled: MSR lists and page tables in memory.

use crate::spelling::did_you_mean;
use crate::state::{ReadError, Source, State, cut};
use isa::svm::VMCB_SIZE;
use json::{Node, NodeKind};
use models::{CpuModel, Vendor};

/// The members of the document beside the structure itself.
const MEMBERS: [&str; 9] = ["$schema", "vmcs", "vmcb", "cpu", "complete", "region", "entry", "memory", "processor"];

/// Deepest nesting of composite names.
const DEEPEST: usize = 4;

/// Reads a document.
///
/// # Errors
/// Says what is wrong and where.
pub fn read(text: &str, vendor: Vendor, cpu: Option<&'static CpuModel>) -> Result<State, ReadError> {
    let root = json::parse(text).map_err(|error| ReadError::new(error.span, error.message))?;
    let NodeKind::Object(members) = &root.kind else { return Err(ReadError::new(root.span, "an object is wanted")) };
    for member in members {
        if !MEMBERS.contains(&member.key.as_str()) {
            let near = did_you_mean(&member.key, MEMBERS.into_iter());
            return Err(ReadError::new(member.key_span.clone(), format!("there is no member `{}`.{near}", cut(&member.key))));
        }
    }
    let (wanted, other) = match vendor {
        Vendor::Intel => ("vmcs", "vmcb"),
        Vendor::Amd => ("vmcb", "vmcs"),
    };
    if let Some(second) = root.get(other) {
        return Err(ReadError::new(second.span.clone(), "a document holds either `vmcs` or `vmcb`"));
    }
    let cpu = match (cpu, root.get("cpu")) {
        (Some(cpu), _) => Some(cpu),
        (None, Some(node)) => Some(model(node)?),
        (None, None) => None,
    };
    let Some(structure) = root.get(wanted) else { return Err(ReadError::new(root.span, format!("there is no member `{wanted}`"))) };
    let mut state = match &structure.kind {
        NodeKind::String(digits) if vendor == Vendor::Amd => {
            let bytes = page(digits).ok_or_else(|| {
                ReadError::new(structure.span.clone(), format!("{VMCB_SIZE} bytes are wanted, as {} hexadecimal digits", 2 * VMCB_SIZE))
            })?;
            State::vmcb(&bytes, cpu, Source::Document)?
        }
        NodeKind::Object(_) => State::new(vendor, cpu, Source::Document)?,
        _ => return Err(ReadError::new(structure.span.clone(), format!("an object of fields is wanted, not {}", structure.describe()))),
    };
    if matches!(structure.kind, NodeKind::Object(_)) {
        fields(&mut state, structure, "", 0)?;
    }
    for group in ["region", "entry", "memory", "processor"] {
        if let Some(node) = root.get(group) {
            fields(&mut state, node, group, 0)?;
        }
    }
    match root.get("complete").map(|node| (&node.kind, node)) {
        None | Some((NodeKind::Boolean(false), _)) => {}
        Some((NodeKind::Boolean(true), _)) => state.complete(),
        Some((_, node)) => return Err(ReadError::new(node.span.clone(), format!("true or false is wanted, not {}", node.describe()))),
    }
    Ok(state)
}

fn model(node: &Node) -> Result<&'static CpuModel, ReadError> {
    let NodeKind::String(name) = &node.kind else {
        return Err(ReadError::new(node.span.clone(), format!("the name of a CPU model is wanted, not {}", node.describe())));
    };
    models::find(&cut(name)).map_err(|error| ReadError::new(node.span.clone(), error.to_string()))
}

/// Sets what a tree of names holds.
fn fields(state: &mut State, node: &Node, path: &str, depth: usize) -> Result<(), ReadError> {
    if depth > DEEPEST {
        return Err(ReadError::new(node.span.clone(), "no field is nested so deep"));
    }
    match &node.kind {
        NodeKind::Object(members) => {
            for member in members {
                let name = if path.is_empty() { member.key.clone() } else { format!("{path}.{}", member.key) };
                let place = member.key_span.start..member.value.span.end;
                match number(&member.value)? {
                    Some(value) => state.set(&name, value, place)?,
                    None => fields(state, &member.value, &name, depth + 1)?,
                }
            }
        }
        NodeKind::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let name = format!("{path}[{index}]");
                match number(element)? {
                    Some(value) => state.set(&name, value, element.span.clone())?,
                    None => fields(state, element, &name, depth + 1)?,
                }
            }
        }
        _ => return Err(ReadError::new(node.span.clone(), format!("a number is wanted, not {}", node.describe()))),
    }
    Ok(())
}

/// The number that a value is; nothing for an object or array.
fn number(node: &Node) -> Result<Option<u64>, ReadError> {
    let wrong = || ReadError::new(node.span.clone(), "write a number from 0 to 2^64 - 1, such as 4096 or \"0x1000\"");
    match &node.kind {
        NodeKind::Object(_) | NodeKind::Array(_) => Ok(None),
        NodeKind::Boolean(value) => Ok(Some(u64::from(*value))),
        NodeKind::Number(value) => value.as_u64().map(Some).ok_or_else(wrong),
        NodeKind::String(text) => {
            let digits: String = text.trim().chars().filter(|&character| character != '_').collect();
            let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
                None => digits.parse(),
            };
            value.map(Some).map_err(|_| wrong())
        }
        NodeKind::Null => Err(wrong()),
    }
}

/// The bytes of a page from hexadecimal digits, white space between them ignored.
fn page(digits: &str) -> Option<Box<[u8; VMCB_SIZE]>> {
    let mut bytes = Vec::with_capacity(VMCB_SIZE);
    let mut high = None;
    for character in digits.chars().filter(|character| !character.is_whitespace()) {
        let digit = character.to_digit(16)? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(upper) => bytes.push(upper << 4 | digit),
        }
        if bytes.len() > VMCB_SIZE {
            return None;
        }
    }
    if high.is_some() {
        return None;
    }
    bytes.into_boxed_slice().try_into().ok()
}
