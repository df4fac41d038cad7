//! The numbers of model-specific registers.
//!
//! What is modelled: SDM vol 4; APM vol 2, appendix A "MSR Cross-Reference". One table gives constants and names.

macro_rules! msrs {
    ($($name:ident = $number:literal $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u32 = $number;)*

        /// Every register of this table with its name.
        pub const ALL: &[(u32, &str)] = &[$(($number, stringify!($name))),*];

        /// For every register of this table, in its order, what it is in a few words.
        pub const DESCRIPTIONS: &[(u32, &str)] = &[$(($number, $doc)),*];

        /// The manual's name of a register, if this table has it.
        pub fn name(number: u32) -> Option<&'static str> {
            ALL.iter().find(|row| row.0 == number).map(|row| row.1)
        }
    };
}

msrs! {
    IA32_TIME_STAMP_COUNTER = 0x10 "Time stamp counter.";
    IA32_PLATFORM_ID = 0x17 "Platform identification.";
    IA32_APIC_BASE = 0x1b "Local APIC base, enable, x2APIC enable, bootstrap flag.";
    IA32_FEATURE_CONTROL = 0x3a "Lock bit and VMX enables.";
    IA32_TSC_ADJUST = 0x3b "Adjustment of the time stamp counter.";
    IA32_SPEC_CTRL = 0x48 "Speculation control.";
    IA32_PRED_CMD = 0x49 "Prediction command.";
    IA32_BIOS_UPDT_TRIG = 0x79 "Microcode update trigger.";
    IA32_BIOS_SIGN_ID = 0x8b "Microcode revision.";
    IA32_MPERF = 0xe7 "Cycles at the frequency of the time stamp counter, out of halts.";
    IA32_APERF = 0xe8 "Cycles of the processor's clock, out of halts.";
    IA32_MTRRCAP = 0xfe "MTRR capability.";
    IA32_ARCH_CAPABILITIES = 0x10a "Enumeration of architectural features.";
    IA32_SYSENTER_CS = 0x174 "CS of SYSENTER.";
    IA32_SYSENTER_ESP = 0x175 "RSP of SYSENTER.";
    IA32_SYSENTER_EIP = 0x176 "RIP of SYSENTER.";
    IA32_MCG_CAP = 0x179 "Machine-check capability.";
    IA32_MCG_STATUS = 0x17a "Machine-check status.";
    IA32_MCG_CTL = 0x17b "Machine-check control.";
    IA32_MISC_ENABLE = 0x1a0 "Miscellaneous enables.";
    MSR_LBR_SELECT = 0x1c8 "Which branches are not recorded.";
    MSR_LASTBRANCH_TOS = 0x1c9 "Number of the newest last-branch record.";
    IA32_DEBUGCTL = 0x1d9 "Debug control.";
    LASTBRANCHFROMIP = 0x1db "Source of the last branch (AMD).";
    LASTBRANCHTOIP = 0x1dc "Target of the last branch (AMD).";
    MSR_LER_FROM_LIP = 0x1dd "Source of the last branch before the last exception or interrupt.";
    MSR_LER_TO_LIP = 0x1de "Target of the last branch before the last exception or interrupt.";
    IA32_MTRR_PHYSBASE0 = 0x200 "First variable-range MTRR base; bases and masks alternate.";
    IA32_MTRR_PHYSMASK9 = 0x213 "Last variable-range MTRR mask of the processors here.";
    IA32_MTRR_FIX64K_00000 = 0x250 "Fixed-range MTRR.";
    IA32_MTRR_FIX16K_80000 = 0x258 "Fixed-range MTRR.";
    IA32_MTRR_FIX16K_A0000 = 0x259 "Fixed-range MTRR.";
    IA32_MTRR_FIX4K_C0000 = 0x268 "First of eight fixed-range MTRRs.";
    IA32_MTRR_FIX4K_F8000 = 0x26f "Last of them.";
    IA32_PAT = 0x277 "Page attribute table.";
    IA32_MTRR_DEF_TYPE = 0x2ff "Default memory type.";
    IA32_PERF_GLOBAL_CTRL = 0x38f "Performance counter global control.";
    IA32_MC0_CTL = 0x400 "Control of machine-check bank 0; status, address and miscellaneous follow, then the next bank.";
    IA32_MC31_MISC = 0x47f "The last register of the last machine-check bank there can be.";
    IA32_VMX_BASIC = 0x480 "VMX: revision, region size, memory type.";
    IA32_VMX_PINBASED_CTLS = 0x481 "VMX: pin-based controls.";
    IA32_VMX_PROCBASED_CTLS = 0x482 "VMX: primary processor-based controls.";
    IA32_VMX_EXIT_CTLS = 0x483 "VMX: VM-exit controls.";
    IA32_VMX_ENTRY_CTLS = 0x484 "VMX: VM-entry controls.";
    IA32_VMX_MISC = 0x485 "VMX: miscellaneous data.";
    IA32_VMX_CR0_FIXED0 = 0x486 "VMX: CR0 bits fixed to 1.";
    IA32_VMX_CR0_FIXED1 = 0x487 "VMX: CR0 bits that may be 1.";
    IA32_VMX_CR4_FIXED0 = 0x488 "VMX: CR4 bits fixed to 1.";
    IA32_VMX_CR4_FIXED1 = 0x489 "VMX: CR4 bits that may be 1.";
    IA32_VMX_VMCS_ENUM = 0x48a "VMX: highest VMCS field index.";
    IA32_VMX_PROCBASED_CTLS2 = 0x48b "VMX: secondary processor-based controls.";
    IA32_VMX_EPT_VPID_CAP = 0x48c "VMX: EPT and VPID capabilities.";
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48d "VMX: pin-based controls, defaults told.";
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48e "VMX: primary processor-based controls, defaults told.";
    IA32_VMX_TRUE_EXIT_CTLS = 0x48f "VMX: VM-exit controls, defaults told.";
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490 "VMX: VM-entry controls, defaults told.";
    IA32_VMX_VMFUNC = 0x491 "VMX: VM functions.";
    IA32_TSC_DEADLINE = 0x6e0 "TSC-deadline target of the APIC timer.";
    IA32_X2APIC_FIRST = 0x800 "First register of the x2APIC range.";
    IA32_X2APIC_LAST = 0x8ff "Last register of the x2APIC range.";
    IA32_XSS = 0xda0 "Supervisor state components of XSAVES.";
    IA32_EFER = 0xc000_0080 "Extended feature enables.";
    IA32_STAR = 0xc000_0081 "Selectors of SYSCALL and SYSRET, and EIP in legacy mode (AMD).";
    IA32_LSTAR = 0xc000_0082 "RIP of SYSCALL in 64-bit mode.";
    IA32_CSTAR = 0xc000_0083 "RIP of SYSCALL in compatibility mode (AMD).";
    IA32_FMASK = 0xc000_0084 "RFLAGS bits that SYSCALL clears.";
    MPERF_READ_ONLY = 0xc000_00e7 "IA32_MPERF at a number where it cannot be written (AMD).";
    APERF_READ_ONLY = 0xc000_00e8 "IA32_APERF likewise (AMD).";
    IA32_FS_BASE = 0xc000_0100 "Base of FS.";
    IA32_GS_BASE = 0xc000_0101 "Base of GS.";
    IA32_KERNEL_GS_BASE = 0xc000_0102 "What SWAPGS exchanges with the base of GS.";
    IA32_TSC_AUX = 0xc000_0103 "Auxiliary value of RDTSCP.";
    TSC_RATIO = 0xc000_0104 "Guest TSC ratio (AMD), 8.32 fixed point.";
    PERF_CTL0 = 0xc001_0000 "First of four performance event-select registers (AMD).";
    PERF_CTL3 = 0xc001_0003 "Last of them.";
    PERF_CTR0 = 0xc001_0004 "First of four performance event counters (AMD).";
    PERF_CTR3 = 0xc001_0007 "Last of them.";
    SYSCFG = 0xc001_0010 "System configuration (AMD).";
    HWCR = 0xc001_0015 "Hardware configuration (AMD).";
    VM_CR = 0xc001_0114 "SVM: lock and disable bits (AMD).";
    IGNNE = 0xc001_0115 "SVM: ignore numeric error (AMD).";
    SMM_CTL = 0xc001_0116 "SVM: system management mode control (AMD).";
    VM_HSAVE_PA = 0xc001_0117 "SVM: physical address of the host save area (AMD).";
    SVM_KEY = 0xc001_0118 "SVM: the key that unlocks VM_CR (AMD).";
    DE_CFG = 0xc001_1029 "Decode configuration (AMD).";
}
