//! CPUID: the answer, and the feature bits that the core looks at.
//!
//! What is modelled: SDM vol 2, "CPUID"; APM vol 3, appendix E "Obtaining Processor Information Via the CPUID Instruction".

use serde::{Deserialize, Serialize};

/// The four registers a CPUID leaf returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Which register of a leaf holds a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

macro_rules! features {
    ($($variant:ident $leaf:literal $subleaf:literal $output:ident $bit:literal $doc:literal;)*) => {
        /// A feature that CPUID reports with one bit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Feature { $(#[doc = $doc] $variant),* }
        impl Feature {
            /// Every feature in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Where the bit is: leaf, subleaf, register, bit number.
            pub const fn place(self) -> (u32, u32, Output, u32) {
                match self { $(Self::$variant => ($leaf, $subleaf, Output::$output, $bit)),* }
            }

            /// Its name in files: in small letters.
            pub fn name(self) -> String {
                match self { $(Self::$variant => stringify!($variant)),* }.to_ascii_lowercase()
            }

            /// The feature of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|feature| feature.name() == name)
            }

            /// The set with this feature alone.
            pub const fn bit(self) -> u128 { 1 << self as u32 }
        }
    };
}

features! {
    Fpu 1 0 Edx 0 "x87 unit on chip.";
    Vme 1 0 Edx 1 "Virtual-8086 mode extensions.";
    De 1 0 Edx 2 "Debugging extensions.";
    Pse 1 0 Edx 3 "Page size extensions.";
    Tsc 1 0 Edx 4 "Time stamp counter.";
    Msr 1 0 Edx 5 "RDMSR and WRMSR.";
    Pae 1 0 Edx 6 "Physical address extension.";
    Mce 1 0 Edx 7 "Machine-check exception.";
    Cx8 1 0 Edx 8 "CMPXCHG8B.";
    Apic 1 0 Edx 9 "Local APIC.";
    Sep 1 0 Edx 11 "SYSENTER and SYSEXIT.";
    Mtrr 1 0 Edx 12 "Memory type range registers.";
    Pge 1 0 Edx 13 "Global pages.";
    Mca 1 0 Edx 14 "Machine-check architecture.";
    Cmov 1 0 Edx 15 "Conditional moves.";
    Pat 1 0 Edx 16 "Page attribute table.";
    Pse36 1 0 Edx 17 "36-bit page size extension.";
    Clfsh 1 0 Edx 19 "CLFLUSH.";
    Mmx 1 0 Edx 23 "MMX.";
    Fxsr 1 0 Edx 24 "FXSAVE and FXRSTOR.";
    Sse 1 0 Edx 25 "SSE.";
    Sse2 1 0 Edx 26 "SSE2.";
    Sse3 1 0 Ecx 0 "SSE3.";
    Pclmulqdq 1 0 Ecx 1 "Carry-less multiplication.";
    Monitor 1 0 Ecx 3 "MONITOR and MWAIT.";
    Vmx 1 0 Ecx 5 "Virtual machine extensions.";
    Ssse3 1 0 Ecx 9 "SSSE3.";
    Cx16 1 0 Ecx 13 "CMPXCHG16B.";
    Pcid 1 0 Ecx 17 "Process-context identifiers.";
    Sse41 1 0 Ecx 19 "SSE4.1.";
    Sse42 1 0 Ecx 20 "SSE4.2.";
    X2apic 1 0 Ecx 21 "x2APIC mode.";
    Movbe 1 0 Ecx 22 "MOVBE.";
    Popcnt 1 0 Ecx 23 "POPCNT.";
    TscDeadline 1 0 Ecx 24 "TSC-deadline mode of the APIC timer.";
    Aes 1 0 Ecx 25 "AES instructions.";
    Xsave 1 0 Ecx 26 "XSAVE, XRSTOR, XGETBV, XSETBV.";
    Avx 1 0 Ecx 28 "AVX.";
    Rdrand 1 0 Ecx 30 "RDRAND.";
    Hypervisor 1 0 Ecx 31 "Running under a hypervisor.";
    Arat 6 0 Eax 2 "The APIC timer always runs.";
    Fsgsbase 7 0 Ebx 0 "RDFSBASE and its kin.";
    TscAdjust 7 0 Ebx 1 "IA32_TSC_ADJUST.";
    Bmi1 7 0 Ebx 3 "First set of bit manipulation instructions.";
    FdpExceptionsOnly 7 0 Ebx 6 "The x87 data pointer is updated by unmasked exceptions only.";
    Smep 7 0 Ebx 7 "Supervisor-mode execution prevention.";
    Bmi2 7 0 Ebx 8 "Second set of bit manipulation instructions.";
    Erms 7 0 Ebx 9 "Enhanced REP MOVSB and STOSB.";
    Invpcid 7 0 Ebx 10 "INVPCID.";
    FcsFdsDeprecated 7 0 Ebx 13 "FCS and FDS are saved as zero.";
    Rdseed 7 0 Ebx 18 "RDSEED.";
    Adx 7 0 Ebx 19 "ADCX and ADOX.";
    Smap 7 0 Ebx 20 "Supervisor-mode access prevention.";
    Clflushopt 7 0 Ebx 23 "CLFLUSHOPT.";
    Clwb 7 0 Ebx 24 "CLWB.";
    Umip 7 0 Ecx 2 "User-mode instruction prevention.";
    Pku 7 0 Ecx 3 "Protection keys for user pages.";
    La57 7 0 Ecx 16 "57-bit linear addresses.";
    Rdpid 7 0 Ecx 22 "RDPID.";
    Xsaveopt 0xd 1 Eax 0 "XSAVEOPT.";
    Xsavec 0xd 1 Eax 1 "XSAVEC.";
    Xsaves 0xd 1 Eax 3 "XSAVES, XRSTORS.";
    Syscall 0x8000_0001 0 Edx 11 "SYSCALL and SYSRET.";
    Nx 0x8000_0001 0 Edx 20 "No-execute pages.";
    MmxExtensions 0x8000_0001 0 Edx 22 "AMD's extensions to MMX, which SSE has, too.";
    Ffxsr 0x8000_0001 0 Edx 25 "Fast FXSAVE (AMD).";
    Page1gb 0x8000_0001 0 Edx 26 "1-GiB pages.";
    Rdtscp 0x8000_0001 0 Edx 27 "RDTSCP.";
    LongMode 0x8000_0001 0 Edx 29 "Long mode.";
    Lahf64 0x8000_0001 0 Ecx 0 "LAHF and SAHF in 64-bit mode.";
    Svm 0x8000_0001 0 Ecx 2 "Secure virtual machine (AMD).";
    AltMovCr8 0x8000_0001 0 Ecx 4 "LOCK MOV CR0 is MOV CR8 (AMD).";
    Lzcnt 0x8000_0001 0 Ecx 5 "LZCNT.";
    Sse4a 0x8000_0001 0 Ecx 6 "SSE4A (AMD).";
    Prefetchw 0x8000_0001 0 Ecx 8 "PREFETCH and PREFETCHW.";
    Skinit 0x8000_0001 0 Ecx 12 "SKINIT, and STGI without EFER.SVME (AMD).";
    Topoext 0x8000_0001 0 Ecx 22 "Leaves 8000_001D and 8000_001E exist (AMD).";
    InvariantTsc 0x8000_0007 0 Edx 8 "The time stamp counter runs at one rate in every state.";
    XsaveErrorPointers 0x8000_0008 0 Ebx 2 "FXSAVE and XSAVE always save the x87 pointers (AMD).";
    Nrips 0x8000_000a 0 Edx 3 "Next RIP saved at #VMEXIT (AMD).";
    // From here on in the order in which they came: records of processors hold sets of features by number.
    Tce 0x8000_0001 0 Ecx 17 "Translation cache extension: EFER.TCE (AMD).";
    EferLmsleUnsupported 0x8000_0008 0 Ebx 20 "EFER.LMSLE must be zero (AMD).";
    EffectiveFrequency 6 0 Ecx 0 "IA32_MPERF and IA32_APERF.";
    EffectiveFrequencyReadOnly 0x8000_0007 0 Edx 10 "MPERF and APERF can be read at numbers where they cannot be written (AMD).";
    Rdpru 0x8000_0008 0 Ebx 4 "RDPRU (AMD).";
}
