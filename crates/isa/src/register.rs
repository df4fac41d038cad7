//! The names and numbers of the general-purpose and segment registers.
//!
//! What is modelled: the encodings of SDM vol 2, 2.1.5 "Addressing-Mode Encoding of ModR/M and SIB Bytes" and REX extensions.

use serde::{Deserialize, Serialize};

macro_rules! registers {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $text] $variant = $number),* }
        impl $name {
            /// All of them in order of their encoding.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The register with this encoding, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The encoding.
            pub const fn number(self) -> usize { self as usize }

            /// The manual's name in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The register with this lower-case name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|register| register.name() == name)
            }
        }
    };
}

registers! {
    /// The sixteen general-purpose registers, by their 64-bit names.
    Gpr {
        Rax = 0 "rax", Rcx = 1 "rcx", Rdx = 2 "rdx", Rbx = 3 "rbx", Rsp = 4 "rsp", Rbp = 5 "rbp", Rsi = 6 "rsi", Rdi = 7 "rdi",
        R8 = 8 "r8", R9 = 9 "r9", R10 = 10 "r10", R11 = 11 "r11", R12 = 12 "r12", R13 = 13 "r13", R14 = 14 "r14", R15 = 15 "r15",
    }
}

registers! {
    /// The six segment registers, in the order of their encoding in the Sreg field.
    Segment { Es = 0 "es", Cs = 1 "cs", Ss = 2 "ss", Ds = 3 "ds", Fs = 4 "fs", Gs = 5 "gs" }
}
