//! Which encodings a mnemonic can mean.
//!
//! Modelled: every mnemonic of iced-x86's tables, the condition-code synonyms of SDM Vol. 2 Appendix B "EFLAGS Condition
//! Codes", and nasm's further names (`retw`, `pushfw`, `iret` by mode, comparison predicates). Not modelled: MVEX.

use crate::Bits;
use iced_x86::{Code, DecoderOptions, EncodingKind};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a mnemonic means.
#[derive(Clone, Debug)]
pub(crate) struct Meaning {
    /// The name under which the tables have it.
    pub(crate) canonical: &'static str,
    /// Its encodings, in the order of preference.
    pub(crate) codes: &'static [Code],
    /// Further encodings that share the name in nasm.
    pub(crate) more: &'static [Code],
    /// The operand size, in bits, that the name itself fixes.
    pub(crate) operand_size: Option<u32>,
    /// The predicate of an SSE comparison that the name itself fixes.
    pub(crate) predicate: Option<u8>,
}

/// The prefixes that are written as words before a mnemonic.
pub(crate) const PREFIXES: [&str; 24] = [
    "lock", "rep", "repe", "repz", "repne", "repnz", "a16", "a32", "a64", "o16", "o32", "o64", "rex.w", "bnd", "notrack", "xacquire",
    "xrelease", "es", "cs", "ss", "ds", "fs", "gs", "wait",
];

/// The directives.
pub(crate) const DIRECTIVES: [&str; 19] = [
    "db", "dw", "dd", "dq", "resb", "resw", "resd", "resq", "times", "align", "alignb", "bits", "use16", "use32", "use64", "org", "equ",
    "default", "section",
];

fn table() -> &'static BTreeMap<String, Vec<Code>> {
    static TABLE: OnceLock<BTreeMap<String, Vec<Code>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: BTreeMap<String, Vec<Code>> = BTreeMap::new();
        for code in Code::values() {
            let info = code.op_code();
            let somewhere = info.mode16() || info.mode32() || info.mode64();
            // What a decoder takes only when told to is of processors long gone (the 80486's first CMPXCHG, Cyrix), or of
            // Knights Corner, whose POPCNT would be one byte shorter. Opcode 0F was `pop cs` on the 8086 only.
            let alive = info.decoder_option() == DecoderOptions::NONE && code != Code::Popw_CS;
            let usable = info.is_instruction() && somewhere && alive;
            if usable && info.encoding() != EncodingKind::MVEX {
                table.entry(format!("{:?}", code.mnemonic()).to_ascii_lowercase()).or_default().push(code);
            }
        }
        table
    })
}

/// Every mnemonic, with the synonyms left out: what a misspelt one is compared with.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    table().keys().map(String::as_str)
}

/// What `name`, in lower case, means in this mode, if it is a mnemonic.
pub(crate) fn meaning(name: &str, bits: Bits) -> Option<Meaning> {
    if name.len() > 24 {
        return None;
    }
    let (name, operand_size) = by_mode(name, bits);
    let (name, predicate) = comparison(name).map_or((name, None), |(name, predicate)| (name, Some(predicate)));
    let spelled = synonym(name);
    let (canonical, codes) = table().get_key_value(spelled.as_deref().unwrap_or(name))?;
    let more: &[Code] = match canonical.as_str() {
        // SDM Vol. 2 "MOVSX/MOVSXD": nasm writes both as `movsx`.
        "movsx" => &[Code::Movsxd_r64_rm32],
        _ => &[],
    };
    Some(Meaning { canonical, codes, more, operand_size, predicate })
}

/// Names whose operand size follows from the mode, or that name it in a suffix of their own.
fn by_mode(name: &str, bits: Bits) -> (&str, Option<u32>) {
    let by_bits = |names: [&'static str; 3]| names[bits as usize];
    match name {
        "iret" => (by_bits(["iret", "iretd", "iretd"]), None),
        "iretw" => ("iret", None),
        "pushf" => (by_bits(["pushf", "pushfd", "pushfq"]), None),
        "popf" => (by_bits(["popf", "popfd", "popfq"]), None),
        "pushfw" => ("pushf", None),
        "popfw" => ("popf", None),
        "pusha" => (by_bits(["pusha", "pushad", "pushad"]), None),
        "popa" => (by_bits(["popa", "popad", "popad"]), None),
        "pushaw" => ("pusha", None),
        "popaw" => ("popa", None),
        "retn" => ("ret", None),
        "retw" | "retnw" => ("ret", Some(16)),
        "retd" | "retnd" => ("ret", Some(32)),
        "retq" | "retnq" => ("ret", Some(64)),
        "retfw" => ("retf", Some(16)),
        "retfd" => ("retf", Some(32)),
        "retfq" => ("retf", Some(64)),
        "sal" => ("shl", None),
        "xlat" => ("xlatb", None),
        "pmulhrwa" => ("pmulhrw", None),
        "loopz" => ("loope", None),
        "loopnz" => ("loopne", None),
        "fwait" => ("wait", None),
        "int01" | "icebp" => ("int1", None),
        "int03" => ("int3", None),
        "ud2a" => ("ud2", None),
        "ud2b" => ("ud1", None),
        _ => (name, None),
    }
}

/// `cmpltps` and its kind: the comparison itself and its predicate (SDM Vol. 2 "CMPPS", table of pseudo-ops).
fn comparison(name: &str) -> Option<(&'static str, u8)> {
    const PREDICATES: [&str; 8] = ["eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord"];
    const SUFFIXES: [(&str, &str, &str); 4] =
        [("ps", "cmpps", "vcmpps"), ("pd", "cmppd", "vcmppd"), ("ss", "cmpss", "vcmpss"), ("sd", "cmpsd", "vcmpsd")];
    let (rest, vector) = name.strip_prefix('v').map_or((name, false), |rest| (rest, true));
    let rest = rest.strip_prefix("cmp")?;
    for (suffix, legacy, vex) in SUFFIXES {
        if let Some(at) = rest.strip_suffix(suffix).and_then(|word| PREDICATES.iter().position(|&p| p == word)) {
            return Some((if vector { vex } else { legacy }, at as u8));
        }
    }
    None
}

/// The spelling iced-x86 uses for a condition-code synonym.
fn synonym(name: &str) -> Option<String> {
    if let Some(condition) = name.strip_prefix("cmp").and_then(|rest| rest.strip_suffix("xadd")) {
        let canonical = match condition {
            "a" => "nbe",
            "ae" | "nc" => "nb",
            "c" | "nae" => "b",
            "na" => "be",
            "e" => "z",
            "ne" => "nz",
            "pe" => "p",
            "po" => "np",
            "nge" => "l",
            "ge" => "nl",
            "ng" => "le",
            "g" => "nle",
            _ => return None,
        };
        return Some(format!("cmp{canonical}xadd"));
    }
    for family in ["cmov", "set", "j"] {
        let Some(condition) = name.strip_prefix(family) else {
            continue;
        };
        let canonical = match condition {
            "z" => "e",
            "nz" => "ne",
            "c" | "nae" => "b",
            "nc" | "nb" => "ae",
            "na" => "be",
            "nbe" => "a",
            "pe" => "p",
            "po" => "np",
            "nge" => "l",
            "nl" => "ge",
            "ng" => "le",
            "nle" => "g",
            _ => continue,
        };
        return Some(format!("{family}{canonical}"));
    }
    None
}
