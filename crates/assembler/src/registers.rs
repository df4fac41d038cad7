//! Register names and operand-size words.
//!
//! Modelled: every register iced-x86 knows, under nasm's names (`r8b`, `st0` or `st(0)`). Not modelled: aliases of other
//! assemblers.

use iced_x86::Register;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The register of this name, in any case.
pub(crate) fn by_name(name: &str) -> Option<Register> {
    static TABLE: OnceLock<BTreeMap<String, Register>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table = BTreeMap::new();
        for register in Register::values().filter(|&register| register != Register::None) {
            let mut name = format!("{register:?}").to_ascii_lowercase();
            if name.starts_with("dontuse") {
                continue;
            }
            // iced-x86 follows Intel's `r8l`, nasm AMD's `r8b`; both are accepted.
            if register.is_gpr8() && name.starts_with('r') {
                table.insert(name.clone(), register);
                name = name.replace('l', "b");
            }
            table.insert(name, register);
        }
        table.insert("st".to_owned(), Register::ST0);
        table
    });
    if name.len() > 6 {
        return None;
    }
    table.get(&name.to_ascii_lowercase()).copied()
}

/// The x87 register `st(number)`.
pub(crate) fn stack_register(number: u64) -> Option<Register> {
    (number < 8).then(|| Register::ST0 + number as u32)
}

/// How many bytes a size word stands for.
pub(crate) fn size_word(word: &str) -> Option<u16> {
    Some(match word.to_ascii_lowercase().as_str() {
        "byte" => 1,
        "word" => 2,
        "dword" => 4,
        "fword" => 6,
        "qword" => 8,
        "tword" | "tbyte" => 10,
        "oword" | "dqword" | "xmmword" => 16,
        "yword" | "ymmword" => 32,
        "zword" | "zmmword" => 64,
        _ => return None,
    })
}

/// The word for a size in bytes, where there is one.
pub(crate) fn size_name(bytes: usize) -> Option<&'static str> {
    Some(match bytes {
        1 => "byte",
        2 => "word",
        4 => "dword",
        6 => "fword",
        8 => "qword",
        10 => "tword",
        16 => "oword",
        32 => "yword",
        64 => "zword",
        _ => return None,
    })
}

/// Whether the register exists in 64-bit mode only.
pub(crate) fn needs_64_bit(register: Register) -> bool {
    use Register as R;
    let number = register.number();
    register.is_gpr64()
        || matches!(register, R::SPL | R::BPL | R::SIL | R::DIL)
        || ((register.is_gpr() || register.is_vector_register()) && !register.is_mm() && number > 7)
}
