//! Chooses among a mnemonic's encodings the one nasm -O2 would: the shortest, and among equals the first.
//!
//! Modelled: shortest immediates and displacements, the operand size that needs no prefix where operands name none,
//! operands that may be left out or swapped, and messages that say which forms exist. Not modelled: nasm's warnings; a
//! number that does not fit is refused instead of cut.

use crate::Bits;
use crate::encode::{self, Encoded, Prefixes};
use crate::matching::{self, Context, Miss};
use crate::mnemonics::Meaning;
use crate::operand::{Argument, ArgumentValue, Number, Reach};
use crate::registers;
use iced_x86::{Code, Encoder, Instruction, MemorySize, Mnemonic, OpCodeOperandKind, Register};
use std::collections::BTreeSet;

/// How many existing forms a message lists.
const SHOWN_FORMS: usize = 8;

/// An instruction to encode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) bits: Bits,
    pub(crate) name: &'a str,
    pub(crate) meaning: &'a Meaning,
    pub(crate) prefixes: Prefixes,
    pub(crate) arguments: &'a [Argument],
    pub(crate) address: u64,
    /// The length below which it must not fall, so that layout settles.
    pub(crate) floor: usize,
}

/// Why no encoding fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// The operand at fault; none means the instruction.
    pub(crate) operand: Option<usize>,
    /// Whether another value of the same operands could be encoded, as a later layout pass may find.
    pub(crate) by_value: bool,
}

impl Refusal {
    fn new(message: String, operand: Option<usize>) -> Self {
        Self { message, help: None, operand, by_value: false }
    }
}

/// One way to encode a request, before the shortest is chosen.
struct Candidate {
    instruction: Instruction,
    address_size: Option<u32>,
    natural: Encoded,
}

/// Encodes the request.
pub(crate) fn select(encoder: &mut Encoder, request: &Request<'_>) -> Result<Encoded, Refusal> {
    let bits = request.bits;
    let codes = || request.meaning.codes.iter().chain(request.meaning.more).copied().filter(|&code| exists(code, bits));
    if codes().next().is_none() {
        let mut refusal = Refusal::new(format!("`{}` does not exist in {}-bit mode", request.name, bits.width()), None);
        refusal.help = Some("this line's mode is that of the last `bits` directive".to_owned());
        return Err(refusal);
    }
    let has_near_form = codes().any(|code| code.op_code().op_kinds().iter().any(|&kind| matching::is_near_branch(kind)));
    let sized = request.meaning.operand_size.or(request.prefixes.operand_size).is_some();
    let context = Context { bits, address: request.address, has_near_form, sized, address_size: request.prefixes.address_size };
    let mut misses = Vec::new();
    let mut fits: Vec<(Instruction, Option<u32>)> = Vec::new();
    for variant in variants(request) {
        for code in codes() {
            match matching::fit(code, &variant.arguments, &context) {
                Ok(instruction) => fits.push((instruction, variant.address_size)),
                Err(miss) => misses.push((miss, code)),
            }
        }
    }
    settle_memory_size(request, &mut fits)?;
    let plain = Prefixes { operand_size: None, ..request.prefixes };
    let mut candidates = Vec::with_capacity(fits.len());
    for (instruction, address_size) in fits {
        let prefixes = Prefixes { address_size: address_size.or(plain.address_size), ..plain };
        match encode::encode(encoder, &instruction, &prefixes, bits, request.address) {
            Ok(natural) => candidates.push(Candidate { instruction, address_size, natural }),
            Err(text) => misses.push((Miss::Encoder(text), instruction.code())),
        }
    }
    let mut found: Vec<Encoded> = Vec::with_capacity(candidates.len());
    let mut prefixes = request.prefixes;
    if let Some(wanted) = request.meaning.operand_size.or(request.prefixes.operand_size) {
        let has = |candidate: &Candidate| candidate.instruction.code().op_code().operand_size() == wanted;
        if candidates.iter().any(has) {
            candidates.retain(has);
        } else if wanted == 64 {
            prefixes.rex_w = true;
        }
        // Encoding once more with the prefix as written adds it where the instruction has no such size by itself.
        prefixes.operand_size = Some(wanted);
        for candidate in &candidates {
            let prefixes = Prefixes { address_size: candidate.address_size.or(prefixes.address_size), ..prefixes };
            match encode::encode(encoder, &candidate.instruction, &prefixes, bits, request.address) {
                Ok(encoded) => found.push(encoded),
                Err(text) => misses.push((Miss::Encoder(text), candidate.instruction.code())),
            }
        }
    } else {
        if candidates.iter().any(|candidate| !candidate.natural.has_operand_size) {
            candidates.retain(|candidate| !candidate.natural.has_operand_size);
        }
        // `add ax, -1` has two forms of four bytes: nasm takes the one with the sign-extended byte.
        let extends = |candidate: &Candidate| {
            let kinds = candidate.instruction.code().op_code().op_kinds();
            kinds.contains(&OpCodeOperandKind::imm8sex16)
        };
        candidates.sort_by_key(|candidate| !extends(candidate));
        found.extend(candidates.iter().map(|candidate| candidate.natural));
    }
    let shortest = found.iter().filter(|encoded| encoded.len() >= request.floor).min_by_key(|encoded| encoded.len());
    let longest = || found.iter().rev().max_by_key(|encoded| encoded.len());
    match shortest.or_else(longest) {
        Some(encoded) => Ok(*encoded),
        None => Err(refusal(request, &misses, codes().collect(), has_near_form)),
    }
}

/// Whether a mode has an encoding.
fn exists(code: Code, bits: Bits) -> bool {
    let info = code.op_code();
    match bits {
        Bits::Sixteen => info.mode16(),
        Bits::ThirtyTwo => info.mode32(),
        Bits::SixtyFour => info.mode64(),
    }
}

/// The operands in one of the ways they can be read.
struct Variant {
    arguments: Vec<Argument>,
    /// The address size that an operand which is not encoded asks for.
    address_size: Option<u32>,
}

/// The ways to read the operands, in the order of nasm's preference.
fn variants(request: &Request<'_>) -> Vec<Variant> {
    let canonical = request.meaning.canonical;
    let mut arguments = request.arguments.to_vec();
    let number = |value: i64| Argument {
        value: ArgumentValue::Number(Number { value, address: false, unknown: false }),
        size: None,
        strict: false,
        reach: None,
        to: false,
        origin: 0,
    };
    let register = |register: Register, like: &Argument| Argument { value: ArgumentValue::Register(register), ..*like };
    // `add [ebx], word 5`: the number's size is the memory's.
    if let [memory, immediate] = &mut arguments[..]
        && matches!((&memory.value, &immediate.value), (ArgumentValue::Memory(_), ArgumentValue::Number(_)))
        && memory.size.is_none()
        && !immediate.strict
    {
        memory.size = immediate.size.take();
    }
    if let Some(predicate) = request.meaning.predicate {
        arguments.push(number(i64::from(predicate)));
    }
    if let Some((shorter, address_size)) = drop_implied(canonical, &arguments) {
        return vec![Variant { arguments: shorter, address_size }];
    }
    let mut ways = Vec::new();
    match (canonical, &arguments[..]) {
        // SDM Vol. 2 "AAM", "AAD": the number base is 10 unless said.
        ("aam" | "aad", []) => ways.push(vec![number(10)]),
        ("xchg", [first, second]) => ways.push(vec![*second, *first]),
        ("imul", [first, second]) if matches!(second.value, ArgumentValue::Number(_)) => {
            ways.push(vec![*first, *first, *second]);
        }
        ("mov", [first, second]) => {
            // A 32-bit write clears the upper half (SDM Vol. 1 "General-Purpose Registers in 64-Bit Mode").
            if let (ArgumentValue::Register(wide), ArgumentValue::Number(value)) = (first.value, second.value) {
                let free = !second.strict && matches!(second.size, None | Some(8)) && !value.address;
                if wide.is_gpr64() && free && u32::try_from(value.value).is_ok() && first.size.is_none() {
                    let narrow = register(Register::EAX + wide.number() as u32, first);
                    ways.push(vec![narrow, Argument { size: None, ..*second }]);
                }
            }
        }
        _ => {}
    }
    let x87 = canonical.starts_with('f');
    match &arguments[..] {
        [one] if x87 => {
            if let ArgumentValue::Register(sti) = one.value
                && sti.is_st()
            {
                let top = register(Register::ST0, one);
                if !one.to {
                    ways.push(vec![*one]);
                    ways.push(vec![top, *one]);
                }
                ways.push(vec![*one, top]);
            }
        }
        [] if x87 => {
            let top = Argument { value: ArgumentValue::Register(Register::ST0), ..number(0) };
            let next = Argument { value: ArgumentValue::Register(Register::ST1), ..number(0) };
            ways.push(Vec::new());
            ways.push(vec![top, next]);
            ways.push(vec![next, top]);
            ways.push(vec![next]);
        }
        _ => {}
    }
    let swapped = match (canonical, &arguments[..]) {
        ("test", [first, second]) => Some(vec![*second, *first]),
        _ => None,
    };
    ways.push(arguments);
    ways.extend(swapped);
    ways.into_iter().map(|arguments| Variant { arguments, address_size: None }).collect()
}

/// The registers an instruction uses without encoding them, as manuals and nasm write them.
///
/// The first entry of a row is the register whose width is the address size, where there is one.
fn drop_implied(canonical: &str, arguments: &[Argument]) -> Option<(Vec<Argument>, Option<u32>)> {
    let registers: Vec<Register> = arguments
        .iter()
        .map(|argument| match argument.value {
            ArgumentValue::Register(register) => register,
            _ => Register::None,
        })
        .collect();
    use Register as R;
    let by_address = |register: Register| Some(register.size() as u32 * 8);
    match (canonical, &registers[..]) {
        ("vmrun" | "vmload" | "vmsave" | "clzero", &[rax @ (R::AX | R::EAX | R::RAX)])
        | ("invlpga", &[rax @ (R::AX | R::EAX | R::RAX), R::ECX])
        | ("monitor" | "monitorx", &[rax @ (R::AX | R::EAX | R::RAX), R::ECX, R::EDX]) => Some((Vec::new(), by_address(rax))),
        ("mwait", [R::EAX, R::ECX]) | ("mwaitx", [R::EAX, R::ECX] | [R::EAX, R::ECX, R::EBX]) | ("skinit", [R::EAX]) => {
            Some((Vec::new(), None))
        }
        ("loop" | "loope" | "loopne", &[R::None, counter @ (R::CX | R::ECX | R::RCX)]) => Some((vec![arguments[0]], by_address(counter))),
        ("blendvps" | "blendvpd" | "pblendvb" | "sha256rnds2", [_, _, R::XMM0]) => Some((arguments[..2].to_vec(), None)),
        _ => None,
    }
}

/// Refuses a memory operand whose size nothing fixes, or settles it where nasm has a default.
fn settle_memory_size(request: &Request<'_>, fits: &mut Vec<(Instruction, Option<u32>)>) -> Result<(), Refusal> {
    let memory = request.arguments.iter().find(|argument| matches!(argument.value, ArgumentValue::Memory(_)));
    let Some(memory) = memory.filter(|memory| memory.size.is_none()) else {
        return Ok(());
    };
    let size = |instruction: &Instruction| instruction.code().op_code().memory_size();
    if memory.reach == Some(Reach::Far) {
        if request.bits == Bits::SixtyFour && fits.iter().any(|(fit, _)| size(fit) == MemorySize::SegPtr64) {
            fits.retain(|(fit, _)| size(fit) == MemorySize::SegPtr64);
        }
        return Ok(());
    }
    let mut sizes: Vec<usize> = fits.iter().map(|(fit, _)| size(fit).size()).filter(|&size| size != 0).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let sized_by_immediate = request.arguments.iter().any(|other| other.size.is_some() && matches!(other.value, ArgumentValue::Number(_)));
    if sizes.len() < 2 || (sized_by_immediate && request.arguments.len() == 2) {
        return Ok(());
    }
    use Mnemonic as M;
    match fits[0].0.mnemonic() {
        // The size follows from the mode and needs no prefix.
        M::Jmp | M::Call | M::Fldenv | M::Fnstenv | M::Fstenv | M::Fnsave | M::Fsave | M::Frstor => Ok(()),
        // Of the extensions to 16 bits only that of a byte does anything.
        M::Movzx | M::Movsx if fits.iter().all(|(fit, _)| fit.op0_register().is_gpr16()) => {
            fits.retain(|(fit, _)| size(fit).size() == 1);
            Ok(())
        }
        M::Cvtsi2sd | M::Cvtsi2ss | M::Vcvtsi2sd | M::Vcvtsi2ss => {
            fits.retain(|(fit, _)| size(fit).size() == 4);
            Ok(())
        }
        _ => {
            let words: Vec<&str> = sizes.iter().filter_map(|&size| registers::size_name(size)).collect();
            let mut refusal = Refusal::new("the size of the memory operand is not known".to_owned(), Some(memory.origin));
            refusal.help = Some(format!("write one of {} before it", words.join(", ")));
            Err(refusal)
        }
    }
}

/// The message for a request that nothing fits, from the nearest miss.
fn refusal(request: &Request<'_>, misses: &[(Miss, Code)], mut codes: Vec<Code>, has_near_form: bool) -> Refusal {
    let nearest = misses.iter().map(|(miss, _)| miss).max().cloned().unwrap_or(Miss::Count);
    if nearest != Miss::Count {
        // Only the forms that come as near as any are of help.
        codes.retain(|code| misses.iter().any(|(miss, missed)| missed == code && *miss == nearest));
    }
    let mut forms: Vec<String> = codes.iter().map(|code| form(*code)).collect();
    let mut seen = BTreeSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    let count = request.arguments.len();
    let more = forms.len().saturating_sub(SHOWN_FORMS);
    forms.truncate(SHOWN_FORMS);
    let mut listed = format!("`{}` exists as\n{}", request.name, forms.join("\n"));
    if more > 0 {
        listed.push_str(&format!("\nand {more} more"));
    }
    let name = request.name;
    match nearest {
        Miss::Count => {
            let noun = if count == 1 { "operand" } else { "operands" };
            let message = match count {
                0 => format!("`{name}` needs operands"),
                count => format!("`{name}` does not take {count} {noun}"),
            };
            Refusal { help: Some(listed), ..Refusal::new(message, None) }
        }
        Miss::Kind(operand) => {
            let message = match count {
                1 => format!("`{name}` does not take this operand"),
                _ => format!("`{name}` does not take these operands together"),
            };
            let operand = (count == 1).then_some(operand);
            Refusal { help: Some(listed), ..Refusal::new(message, operand) }
        }
        Miss::Size(operand) => {
            let message = format!("an operand of this size does not fit the others of `{name}`");
            Refusal { help: Some(listed), ..Refusal::new(message, Some(operand)) }
        }
        Miss::Range(operand) => {
            let argument = request.arguments.iter().find(|argument| argument.origin == operand);
            let help = argument.filter(|argument| matches!(argument.value, ArgumentValue::Memory(_))).map(|_| DISPLACEMENT.to_owned());
            let message = match argument.and_then(shown_value) {
                Some(value) => format!("{value} does not fit this operand of `{name}`"),
                None => format!("the number does not fit this operand of `{name}`"),
            };
            Refusal { by_value: true, help, ..Refusal::new(message, Some(operand)) }
        }
        Miss::Reach(operand, distance) => {
            let message = format!("the target is {distance} bytes away, a short branch reaches -128 to 127");
            let help = match has_near_form {
                true => "leave out `short` for the form that reaches everywhere",
                false => "it has no longer form: let it branch to a `jmp` close by",
            };
            let help = Some(help.to_owned());
            Refusal { by_value: true, help, ..Refusal::new(message, Some(operand)) }
        }
        Miss::Encoder(text) => {
            // The encoder numbers operands in front of its sentence; the caret says it better.
            let text = text.split_once(": ").filter(|(lead, _)| lead.starts_with("Operand")).map_or(&text[..], |t| t.1);
            Refusal { by_value: true, ..Refusal::new(format!("`{name}` cannot be encoded: {text}"), None) }
        }
    }
}

/// What is said of a displacement that does not fit.
const DISPLACEMENT: &str = "a displacement has 32 bits, with a sign in 64-bit addresses; a larger one goes into a register";

/// The number in an operand, for a message.
fn shown_value(argument: &Argument) -> Option<String> {
    let value = match argument.value {
        ArgumentValue::Number(number) => number.value,
        ArgumentValue::Memory(memory) => memory.displacement.value,
        ArgumentValue::FarPointer { offset, .. } => offset.value,
        ArgumentValue::Register(_) => return None,
    };
    Some(shown_number(value))
}

/// A number as a message writes it.
pub(crate) fn shown_number(value: i64) -> String {
    if (-0xf_ffff..0x1000).contains(&value) { value.to_string() } else { format!("{value:#x}") }
}

/// One form as the manuals write it, in lower case.
fn form(code: Code) -> String {
    let text = code.op_code().instruction_string();
    let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
    format!("{} {operands}", name.to_ascii_lowercase()).trim_end().to_owned()
}

/// Whether any encoding of the mnemonic holds a distance from the instruction itself.
pub(crate) fn is_relative(meaning: &Meaning) -> bool {
    let relative = |kind: &OpCodeOperandKind| matching::is_branch(*kind);
    meaning.codes.iter().any(|code| code.op_code().op_kinds().iter().any(relative))
}
