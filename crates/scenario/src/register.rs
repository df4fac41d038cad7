//! The registers a scenario may name, in expectations and in its script.

use isa::register::{Gpr, Segment};
use std::fmt;

/// A register of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A general-purpose register, all 64 bits.
    Gpr(Gpr),
    /// The low 32 bits of a general-purpose register; only to compare.
    Low(Gpr),
    /// The instruction pointer.
    Rip,
    /// The flags.
    Rflags,
    /// A control register: 0, 2, 3 or 4.
    Control(u8),
    /// IA32_EFER.
    Efer,
    /// The selector of a segment register.
    Selector(Segment),
    /// The current privilege level; only to compare.
    Cpl,
}

/// A register of one of the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the CPU.
    pub vcpu: u32,
    /// Its register.
    pub register: Register,
}

/// The 32-bit names of the general-purpose registers, in the order of their encoding.
const LOW_NAMES: [&str; 16] =
    ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"];

impl Register {
    /// Every register, with general-purpose registers first.
    pub fn all() -> impl Iterator<Item = Register> {
        Gpr::ALL
            .iter()
            .map(|gpr| Register::Gpr(*gpr))
            .chain(Gpr::ALL.iter().map(|gpr| Register::Low(*gpr)))
            .chain([Register::Rip, Register::Rflags, Register::Efer, Register::Cpl])
            .chain([0, 2, 3, 4].map(Register::Control))
            .chain(Segment::ALL.iter().map(|segment| Register::Selector(*segment)))
    }

    /// Its lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Register::Gpr(gpr) => gpr.name(),
            Register::Low(gpr) => LOW_NAMES[gpr.number()],
            Register::Rip => "rip",
            Register::Rflags => "rflags",
            Register::Control(0) => "cr0",
            Register::Control(2) => "cr2",
            Register::Control(3) => "cr3",
            Register::Control(_) => "cr4",
            Register::Efer => "efer",
            Register::Selector(segment) => segment.name(),
            Register::Cpl => "cpl",
        }
    }

    /// The register of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|register| register.name() == name)
    }
}

impl Place {
    /// Reads `rax`, or `cpu1.rax`.
    pub fn parse(text: &str) -> Option<Self> {
        let (vcpu, name) = match text.split_once('.') {
            Some((cpu, name)) => {
                let digits = cpu.strip_prefix("cpu")?;
                if digits.starts_with('+') {
                    return None;
                }
                (digits.parse().ok()?, name)
            }
            None => (0, text),
        };
        Some(Self { vcpu, register: Register::from_name(name)? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vcpu {
            0 => f.write_str(self.register.name()),
            vcpu => write!(f, "cpu{vcpu}.{}", self.register.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for register in Register::all() {
            assert_eq!(Register::from_name(register.name()), Some(register));
            let place = Place { vcpu: 3, register };
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for text in ["", "rxx", "cpu.rax", "cpux.rax", "cpu-1.rax", "cpu+1.rax", "RAX", "cpu99999999999.rax"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
