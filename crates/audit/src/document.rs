//! A VMCS or VMCB as JSON.
//!
//! Modelled: an object with a member `vmcs` or `vmcb` of field names and values; beside it `cpu`, `complete`, and what the rules read outside
//! of the structure: `region`, `entry`, `memory`, `processor`. Nested objects and arrays spell composite names (`{"CS": {"ATTRIB": 1}}` is
//! `CS.ATTRIB`, `{"INTERCEPTS": [0, 1]}` is `INTERCEPTS[1]`). A number is a JSON integer or a string such as `"0x80000021"`, `"80000021h"` or `"0b101"`; `vmcb` may also be
//! the 4096 bytes as a string of hexadecimal digits. Every mistake knows where it stands.
//! `memory.entry_msr_load` is the VM-entry MSR-load list: objects with `index`, `value`, perhaps `reserved`. Not modelled: other lists, page tables.

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
            let rest = (group == "memory").then(|| msr_list(&mut state, node)).transpose()?.flatten();
            let node = rest.as_ref().unwrap_or(node);
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

/// Reads the VM-entry MSR-load list, if the object holds one; gives the object without it. A list that is there says how long it is.
fn msr_list(state: &mut State, memory: &Node) -> Result<Option<Node>, ReadError> {
    let (NodeKind::Object(members), Some(list)) = (&memory.kind, memory.get("entry_msr_load")) else { return Ok(None) };
    let NodeKind::Array(entries) = &list.kind else {
        return Err(ReadError::new(list.span.clone(), format!("an array of entries is wanted, not {}", list.describe())));
    };
    for entry in entries {
        let NodeKind::Object(parts) = &entry.kind else {
            let wanted = "an entry is an object such as {\"index\": \"0xc0000082\", \"value\": 0}";
            return Err(ReadError::new(entry.span.clone(), wanted));
        };
        let (mut index, mut reserved, mut value) = (None, 0, None);
        for part in parts {
            let Some(number) = number(&part.value)? else {
                return Err(ReadError::new(part.value.span.clone(), format!("a number is wanted, not {}", part.value.describe())));
            };
            let narrow = |number: u64| u32::try_from(number).map_err(|_| ReadError::new(part.value.span.clone(), "this has 32 bits"));
            match part.key.as_str() {
                "index" => index = Some(narrow(number)?),
                "reserved" => reserved = narrow(number)?,
                "value" => value = Some(number),
                other => {
                    let near = did_you_mean(other, ["index", "reserved", "value"].into_iter());
                    return Err(ReadError::new(part.key_span.clone(), format!("an entry has no `{}`.{near}", cut(other))));
                }
            }
        }
        let (Some(index), Some(value)) = (index, value) else {
            return Err(ReadError::new(entry.span.clone(), "an entry has an `index` and a `value`"));
        };
        state.add_msr_load(index, reserved, value, entry.span.clone())?;
    }
    if state.known("EntryMsrLoadCount").is_none() {
        state.set("EntryMsrLoadCount", entries.len() as u64, list.span.clone())?;
    }
    let rest = members.iter().filter(|member| member.key != "entry_msr_load").cloned().collect();
    Ok(Some(Node { kind: NodeKind::Object(rest), ..memory.clone() }))
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
            let digits = digits.to_ascii_lowercase();
            let value = match (digits.strip_prefix("0x"), digits.strip_prefix("0b"), digits.strip_suffix('h')) {
                (Some(hexadecimal), _, _) | (None, None, Some(hexadecimal)) => u64::from_str_radix(hexadecimal, 16),
                (None, Some(binary), _) => u64::from_str_radix(binary, 2),
                (None, None, None) => digits.parse(),
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
