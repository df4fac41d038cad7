//! Exceptions: vectors, error codes, classes.
//!
//! What is modelled: SDM vol 3, 6.3 "Sources of Interrupts" to 6.15 "Exception and Interrupt Reference"; APM vol 2, 8.2 "Vectors".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

macro_rules! vectors {
    ($($variant:ident = $number:literal $mnemonic:literal $error:literal $class:ident $doc:literal;)*) => {
        /// An exception vector, 0 to 31.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Vector { $(#[doc = $doc] $variant = $number),* }
        impl Vector {
            /// Every vector with an assigned meaning.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The exception with this number, if one is assigned.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The manual's mnemonic, as `#UD`.
            pub const fn mnemonic(self) -> &'static str {
                match self { $(Self::$variant => $mnemonic),* }
            }

            /// Whether delivery pushes an error code (in protected mode).
            pub const fn has_error_code(self) -> bool {
                match self { $(Self::$variant => $error),* }
            }

            /// The class that decides whether a second exception becomes a double fault.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class),* }
            }
        }
    };
}

/// SDM vol 3, Table 6-4 "Interrupt and Exception Classes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May be handled serially with any other.
    Benign,
    /// Two of them make a double fault.
    Contributory,
    /// A page fault, or a virtualization exception.
    PageFault,
    /// A double fault: any contributory exception or page fault during its delivery is a shutdown.
    DoubleFault,
}

vectors! {
    DivideError = 0 "#DE" false Contributory "Divide error.";
    Debug = 1 "#DB" false Benign "Debug exception.";
    Nmi = 2 "NMI" false Benign "Non-maskable interrupt.";
    Breakpoint = 3 "#BP" false Benign "Breakpoint (INT3).";
    Overflow = 4 "#OF" false Benign "Overflow (INTO).";
    BoundRange = 5 "#BR" false Benign "BOUND range exceeded.";
    InvalidOpcode = 6 "#UD" false Benign "Invalid opcode.";
    DeviceNotAvailable = 7 "#NM" false Benign "Device not available.";
    DoubleFault = 8 "#DF" true DoubleFault "Double fault.";
    CoprocessorOverrun = 9 "#MP" false Benign "Coprocessor segment overrun (not raised since the 486).";
    InvalidTss = 10 "#TS" true Contributory "Invalid TSS.";
    SegmentNotPresent = 11 "#NP" true Contributory "Segment not present.";
    StackFault = 12 "#SS" true Contributory "Stack-segment fault.";
    GeneralProtection = 13 "#GP" true Contributory "General protection.";
    PageFault = 14 "#PF" true PageFault "Page fault.";
    MathFault = 16 "#MF" false Benign "x87 floating-point error.";
    AlignmentCheck = 17 "#AC" true Benign "Alignment check.";
    MachineCheck = 18 "#MC" false Benign "Machine check.";
    SimdFloatingPoint = 19 "#XM" false Benign "SIMD floating-point exception.";
    Virtualization = 20 "#VE" false PageFault "Virtualization exception.";
    ControlProtection = 21 "#CP" true Contributory "Control protection.";
    HypervisorInjection = 28 "#HV" false Benign "Hypervisor injection (AMD).";
    VmmCommunication = 29 "#VC" true Contributory "VMM communication (AMD).";
    Security = 30 "#SX" true Contributory "Security exception (AMD).";
}

/// The error code of a page fault. SDM vol 3, 4.7 "Page-Fault Exceptions".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFaultCode {
    /// The translation existed and was refused; clear when an entry was not present.
    pub present: bool,
    /// The access was a write.
    pub write: bool,
    /// The access was made in user mode.
    pub user: bool,
    /// A reserved bit was set in an entry.
    pub reserved: bool,
    /// The access was an instruction fetch (with NX or SMEP enabled).
    pub fetch: bool,
    /// A protection key refused the access.
    pub key: bool,
    #[bits(26)]
    __: u32,
}

/// The selector part of an error code. SDM vol 3, 6.13 "Error Code".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SelectorCode {
    /// The fault arose while delivering an event external to the program.
    pub ext: bool,
    /// The index refers to a gate in the IDT.
    pub idt: bool,
    /// The index refers to the LDT rather than the GDT.
    pub ti: bool,
    /// Index of the descriptor.
    #[bits(13)]
    pub index: u16,
    #[bits(16)]
    __: u16,
}
