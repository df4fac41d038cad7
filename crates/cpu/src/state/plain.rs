//! The parts of a processor's state that are plain values: what it is doing, blocking, MSRs, x87 state, the scale of its time stamp.
//!
//! What is modelled: their formats and reset values. What changes them is elsewhere.

use serde::{Deserialize, Serialize};

/// What the processor is doing between instructions. SDM vol 3, 25.4.2 "Guest Non-Register State".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Active,
    /// In HLT.
    Halted,
    /// After a triple fault.
    Shutdown,
    /// An application processor after INIT.
    WaitForSipi,
}

/// Blocking of interrupts for one instruction. SDM vol 3, 25.4.2 "Guest Non-Register State".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shadow {
    /// No blocking.
    #[default]
    None,
    /// Blocking by STI.
    Sti,
    /// Blocking by MOV SS or POP SS.
    MovSs,
}

/// Model-specific registers that are plain storage to the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_MTRR_DEF_TYPE, the fixed ranges (64K, 16K, 16K, 8 of 4K), and base and mask of ten variable ranges.
    pub mtrr_def_type: u64,
    /// Fixed-range MTRRs.
    pub mtrr_fixed: [u64; 11],
    /// Variable-range MTRRs, base and mask.
    pub mtrr_variable: [u64; 20],
    /// IA32_MCG_STATUS.
    pub machine_check_status: u64,
    /// IA32_MCG_CTL.
    pub machine_check_control: u64,
    /// Control, status, address and miscellaneous register of each machine-check bank.
    pub machine_check: [[u64; 4]; 23],
    /// The performance counters of AMD, which stand still: PERF_CTL0 to 3 (never enabled), PERF_CTR0 to 3.
    pub performance: [u64; 8],
    /// SYSCFG, HWCR, DE_CFG of AMD.
    pub amd: [u64; 3],
    /// IGNNE of AMD: bit 0 is the signal that stands in for the pin where HWCR says so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ignne: u64,
    /// What IA32_MPERF is ahead of the cycles out of halts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mperf: u64,
    /// What IA32_APERF is ahead of the cycles out of halts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aperf: u64,
}

/// What a record leaves out of fields that it had not at first.
pub(crate) const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Msrs {
    /// Values after reset. SDM vol 3, Table 10-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT".
    pub const fn reset() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
            tsc_aux: 0,
            tsc_adjust: 0,
            misc_enable: 1,
            debugctl: 0,
            spec_ctrl: 0,
            xss: 0,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_variable: [0; 20],
            machine_check_status: 0,
            machine_check_control: 0,
            machine_check: [[0; 4]; 23],
            performance: [0; 8],
            amd: [0; 3],
            ignne: 0,
            mperf: 0,
            aperf: 0,
        }
    }
}

/// x87 state, whose registers MMX shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FpuState {
    /// Control word.
    pub control: u16,
    /// Status word.
    pub status: u16,
    /// Abridged tag word, as FXSAVE has it: bit N is set when physical register N holds something.
    pub tag: u8,
    /// Last opcode.
    pub opcode: u16,
    /// Last instruction pointer.
    pub instruction: u64,
    /// Last data pointer.
    pub data: u64,
    /// Selector of CS beside the last instruction pointer; zero where CPUID says that it is deprecated.
    pub instruction_segment: u16,
    /// Selector of the segment beside the last data pointer; zero likewise.
    pub data_segment: u16,
    /// The physical registers R0 to R7, eighty bits each: ST(i) is the one numbered TOP + i, MMi the low 64 bits of number i.
    pub registers: [u128; 8],
}

impl FpuState {
    /// As FNINIT leaves it.
    pub const fn initial() -> Self {
        Self {
            control: 0x37f,
            status: 0,
            tag: 0,
            opcode: 0,
            instruction: 0,
            data: 0,
            instruction_segment: 0,
            data_segment: 0,
            registers: [0; 8],
        }
    }

    /// TOP of the status word: the physical register that is ST(0).
    pub const fn top(&self) -> usize {
        (self.status >> 11 & 7) as usize
    }
}

/// The time-stamp counter as a function of time: `cycles * ratio + offset`, in guest mode applied a second time with the guest's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscScale {
    /// Added.
    pub offset: u64,
    /// 64-bit fixed point with [`TscScale::FRACTION_BITS`] fraction bits, which are enough for both vendors' formats.
    pub ratio: u64,
}

impl TscScale {
    /// The identity.
    pub const IDENTITY: Self = Self { offset: 0, ratio: 1 << Self::FRACTION_BITS };

    /// Fraction bits of the ratio, as in SDM vol 3, 26.3, "RDTSC"; SVM's TSC ratio has 16 fewer.
    pub const FRACTION_BITS: u32 = 48;

    /// Applies it.
    pub const fn apply(self, value: u64) -> u64 {
        (((value as u128 * self.ratio as u128) >> Self::FRACTION_BITS) as u64).wrapping_add(self.offset)
    }
}

/// A virtual interrupt that the silicon presents to its guest (SVM V_IRQ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualInterrupt {
    /// Its vector.
    pub vector: u8,
    /// Whether anything but the virtual TPR allows it.
    pub allowed: bool,
    /// Its priority, 0 to 15: taken if above the class of the virtual TPR, where there is one. 16 is above all.
    pub priority: u8,
}
