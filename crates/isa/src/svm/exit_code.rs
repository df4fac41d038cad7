//! Why a guest stopped: every exit code, its manual name and the name the Linux kernel prints.
//!
//! Manual: APM volume 2, appendix C "SVM Intercept Exit Codes". Codes below C0h are bit indices into the six
//! intercept words. The kernel's names are those of the `kvm_exit` trace event; a code that has none prints as hex.
//!
//! What is modelled: the complete table. What is not: codes that the manual reserves for software.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EXITCODE at offset 070h: 64 bits, of which software may write any, so an open number with names.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct ExitCode(pub u64);

/// What is known of one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodeRow {
    /// The manual's name, `VMEXIT_CPUID`.
    pub name: &'static str,
    /// The kernel's name in `kvm_exit`, `cpuid`; nothing where it prints hex.
    pub trace_name: Option<&'static str>,
    /// What happened, in a few words.
    pub meaning: &'static str,
}

macro_rules! exit_codes {
    ($( $number:literal $constant:ident $name:literal $trace:expr, $meaning:literal; )*) => {
        impl ExitCode {
            $(
                #[doc = concat!($name, ": ", $meaning, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// Every code of appendix C in numeric order, with what is known of it.
            pub const ALL: &'static [(Self, ExitCodeRow)] = &[
                $( (Self::$constant, ExitCodeRow { name: $name, trace_name: $trace, meaning: $meaning }), )*
            ];
        }
    };
}

#[rustfmt::skip]
exit_codes! {
    0x000 CR0_READ "VMEXIT_CR0_READ" Some("read_cr0"), "read of CR0";
    0x001 CR1_READ "VMEXIT_CR1_READ" None, "read of CR1";
    0x002 CR2_READ "VMEXIT_CR2_READ" Some("read_cr2"), "read of CR2";
    0x003 CR3_READ "VMEXIT_CR3_READ" Some("read_cr3"), "read of CR3";
    0x004 CR4_READ "VMEXIT_CR4_READ" Some("read_cr4"), "read of CR4";
    0x005 CR5_READ "VMEXIT_CR5_READ" None, "read of CR5";
    0x006 CR6_READ "VMEXIT_CR6_READ" None, "read of CR6";
    0x007 CR7_READ "VMEXIT_CR7_READ" None, "read of CR7";
    0x008 CR8_READ "VMEXIT_CR8_READ" Some("read_cr8"), "read of CR8";
    0x009 CR9_READ "VMEXIT_CR9_READ" None, "read of CR9";
    0x00a CR10_READ "VMEXIT_CR10_READ" None, "read of CR10";
    0x00b CR11_READ "VMEXIT_CR11_READ" None, "read of CR11";
    0x00c CR12_READ "VMEXIT_CR12_READ" None, "read of CR12";
    0x00d CR13_READ "VMEXIT_CR13_READ" None, "read of CR13";
    0x00e CR14_READ "VMEXIT_CR14_READ" None, "read of CR14";
    0x00f CR15_READ "VMEXIT_CR15_READ" None, "read of CR15";
    0x010 CR0_WRITE "VMEXIT_CR0_WRITE" Some("write_cr0"), "write of CR0";
    0x011 CR1_WRITE "VMEXIT_CR1_WRITE" None, "write of CR1";
    0x012 CR2_WRITE "VMEXIT_CR2_WRITE" Some("write_cr2"), "write of CR2";
    0x013 CR3_WRITE "VMEXIT_CR3_WRITE" Some("write_cr3"), "write of CR3";
    0x014 CR4_WRITE "VMEXIT_CR4_WRITE" Some("write_cr4"), "write of CR4";
    0x015 CR5_WRITE "VMEXIT_CR5_WRITE" None, "write of CR5";
    0x016 CR6_WRITE "VMEXIT_CR6_WRITE" None, "write of CR6";
    0x017 CR7_WRITE "VMEXIT_CR7_WRITE" None, "write of CR7";
    0x018 CR8_WRITE "VMEXIT_CR8_WRITE" Some("write_cr8"), "write of CR8";
    0x019 CR9_WRITE "VMEXIT_CR9_WRITE" None, "write of CR9";
    0x01a CR10_WRITE "VMEXIT_CR10_WRITE" None, "write of CR10";
    0x01b CR11_WRITE "VMEXIT_CR11_WRITE" None, "write of CR11";
    0x01c CR12_WRITE "VMEXIT_CR12_WRITE" None, "write of CR12";
    0x01d CR13_WRITE "VMEXIT_CR13_WRITE" None, "write of CR13";
    0x01e CR14_WRITE "VMEXIT_CR14_WRITE" None, "write of CR14";
    0x01f CR15_WRITE "VMEXIT_CR15_WRITE" None, "write of CR15";
    0x020 DR0_READ "VMEXIT_DR0_READ" Some("read_dr0"), "read of DR0";
    0x021 DR1_READ "VMEXIT_DR1_READ" Some("read_dr1"), "read of DR1";
    0x022 DR2_READ "VMEXIT_DR2_READ" Some("read_dr2"), "read of DR2";
    0x023 DR3_READ "VMEXIT_DR3_READ" Some("read_dr3"), "read of DR3";
    0x024 DR4_READ "VMEXIT_DR4_READ" Some("read_dr4"), "read of DR4";
    0x025 DR5_READ "VMEXIT_DR5_READ" Some("read_dr5"), "read of DR5";
    0x026 DR6_READ "VMEXIT_DR6_READ" Some("read_dr6"), "read of DR6";
    0x027 DR7_READ "VMEXIT_DR7_READ" Some("read_dr7"), "read of DR7";
    0x028 DR8_READ "VMEXIT_DR8_READ" None, "read of DR8";
    0x029 DR9_READ "VMEXIT_DR9_READ" None, "read of DR9";
    0x02a DR10_READ "VMEXIT_DR10_READ" None, "read of DR10";
    0x02b DR11_READ "VMEXIT_DR11_READ" None, "read of DR11";
    0x02c DR12_READ "VMEXIT_DR12_READ" None, "read of DR12";
    0x02d DR13_READ "VMEXIT_DR13_READ" None, "read of DR13";
    0x02e DR14_READ "VMEXIT_DR14_READ" None, "read of DR14";
    0x02f DR15_READ "VMEXIT_DR15_READ" None, "read of DR15";
    0x030 DR0_WRITE "VMEXIT_DR0_WRITE" Some("write_dr0"), "write of DR0";
    0x031 DR1_WRITE "VMEXIT_DR1_WRITE" Some("write_dr1"), "write of DR1";
    0x032 DR2_WRITE "VMEXIT_DR2_WRITE" Some("write_dr2"), "write of DR2";
    0x033 DR3_WRITE "VMEXIT_DR3_WRITE" Some("write_dr3"), "write of DR3";
    0x034 DR4_WRITE "VMEXIT_DR4_WRITE" Some("write_dr4"), "write of DR4";
    0x035 DR5_WRITE "VMEXIT_DR5_WRITE" Some("write_dr5"), "write of DR5";
    0x036 DR6_WRITE "VMEXIT_DR6_WRITE" Some("write_dr6"), "write of DR6";
    0x037 DR7_WRITE "VMEXIT_DR7_WRITE" Some("write_dr7"), "write of DR7";
    0x038 DR8_WRITE "VMEXIT_DR8_WRITE" None, "write of DR8";
    0x039 DR9_WRITE "VMEXIT_DR9_WRITE" None, "write of DR9";
    0x03a DR10_WRITE "VMEXIT_DR10_WRITE" None, "write of DR10";
    0x03b DR11_WRITE "VMEXIT_DR11_WRITE" None, "write of DR11";
    0x03c DR12_WRITE "VMEXIT_DR12_WRITE" None, "write of DR12";
    0x03d DR13_WRITE "VMEXIT_DR13_WRITE" None, "write of DR13";
    0x03e DR14_WRITE "VMEXIT_DR14_WRITE" None, "write of DR14";
    0x03f DR15_WRITE "VMEXIT_DR15_WRITE" None, "write of DR15";
    0x040 EXCP_DE "VMEXIT_EXCP0" Some("DE excp"), "exception #DE";
    0x041 EXCP_DB "VMEXIT_EXCP1" Some("DB excp"), "exception #DB";
    0x042 EXCP_NMI "VMEXIT_EXCP2" None, "vector 2";
    0x043 EXCP_BP "VMEXIT_EXCP3" Some("BP excp"), "exception #BP";
    0x044 EXCP_OF "VMEXIT_EXCP4" Some("OF excp"), "exception #OF";
    0x045 EXCP_BR "VMEXIT_EXCP5" Some("BR excp"), "exception #BR";
    0x046 EXCP_UD "VMEXIT_EXCP6" Some("UD excp"), "exception #UD";
    0x047 EXCP_NM "VMEXIT_EXCP7" Some("NM excp"), "exception #NM";
    0x048 EXCP_DF "VMEXIT_EXCP8" Some("DF excp"), "exception #DF";
    0x049 EXCP_9 "VMEXIT_EXCP9" None, "exception vector 9, reserved";
    0x04a EXCP_TS "VMEXIT_EXCP10" Some("TS excp"), "exception #TS";
    0x04b EXCP_NP "VMEXIT_EXCP11" Some("NP excp"), "exception #NP";
    0x04c EXCP_SS "VMEXIT_EXCP12" Some("SS excp"), "exception #SS";
    0x04d EXCP_GP "VMEXIT_EXCP13" Some("GP excp"), "exception #GP";
    0x04e EXCP_PF "VMEXIT_EXCP14" Some("PF excp"), "exception #PF";
    0x04f EXCP_15 "VMEXIT_EXCP15" None, "exception vector 15, reserved";
    0x050 EXCP_MF "VMEXIT_EXCP16" Some("MF excp"), "exception #MF";
    0x051 EXCP_AC "VMEXIT_EXCP17" Some("AC excp"), "exception #AC";
    0x052 EXCP_MC "VMEXIT_EXCP18" Some("MC excp"), "exception #MC";
    0x053 EXCP_XF "VMEXIT_EXCP19" Some("XF excp"), "exception #XF";
    0x054 EXCP_20 "VMEXIT_EXCP20" None, "exception vector 20, reserved";
    0x055 EXCP_CP "VMEXIT_EXCP21" None, "exception #CP";
    0x056 EXCP_22 "VMEXIT_EXCP22" None, "exception vector 22, reserved";
    0x057 EXCP_23 "VMEXIT_EXCP23" None, "exception vector 23, reserved";
    0x058 EXCP_24 "VMEXIT_EXCP24" None, "exception vector 24, reserved";
    0x059 EXCP_25 "VMEXIT_EXCP25" None, "exception vector 25, reserved";
    0x05a EXCP_26 "VMEXIT_EXCP26" None, "exception vector 26, reserved";
    0x05b EXCP_27 "VMEXIT_EXCP27" None, "exception vector 27, reserved";
    0x05c EXCP_HV "VMEXIT_EXCP28" None, "exception #HV";
    0x05d EXCP_VC "VMEXIT_EXCP29" None, "exception #VC";
    0x05e EXCP_SX "VMEXIT_EXCP30" None, "exception #SX";
    0x05f EXCP_31 "VMEXIT_EXCP31" None, "exception vector 31, reserved";
    0x060 INTR "VMEXIT_INTR" Some("interrupt"), "physical maskable interrupt";
    0x061 NMI "VMEXIT_NMI" Some("nmi"), "non-maskable interrupt";
    0x062 SMI "VMEXIT_SMI" Some("smi"), "system management interrupt";
    0x063 INIT "VMEXIT_INIT" Some("init"), "INIT";
    0x064 VINTR "VMEXIT_VINTR" Some("vintr"), "virtual maskable interrupt about to be taken";
    0x065 CR0_SEL_WRITE "VMEXIT_CR0_SEL_WRITE" Some("cr0_sel_write"), "write of CR0 that changes bits other than TS and MP";
    0x066 IDTR_READ "VMEXIT_IDTR_READ" Some("read_idtr"), "SIDT";
    0x067 GDTR_READ "VMEXIT_GDTR_READ" Some("read_gdtr"), "SGDT";
    0x068 LDTR_READ "VMEXIT_LDTR_READ" Some("read_ldtr"), "SLDT";
    0x069 TR_READ "VMEXIT_TR_READ" Some("read_rt"), "STR; the kernel's spelling";
    0x06a IDTR_WRITE "VMEXIT_IDTR_WRITE" Some("write_idtr"), "LIDT";
    0x06b GDTR_WRITE "VMEXIT_GDTR_WRITE" Some("write_gdtr"), "LGDT";
    0x06c LDTR_WRITE "VMEXIT_LDTR_WRITE" Some("write_ldtr"), "LLDT";
    0x06d TR_WRITE "VMEXIT_TR_WRITE" Some("write_rt"), "LTR; the kernel's spelling";
    0x06e RDTSC "VMEXIT_RDTSC" Some("rdtsc"), "RDTSC";
    0x06f RDPMC "VMEXIT_RDPMC" Some("rdpmc"), "RDPMC";
    0x070 PUSHF "VMEXIT_PUSHF" Some("pushf"), "PUSHF";
    0x071 POPF "VMEXIT_POPF" Some("popf"), "POPF";
    0x072 CPUID "VMEXIT_CPUID" Some("cpuid"), "CPUID";
    0x073 RSM "VMEXIT_RSM" Some("rsm"), "RSM";
    0x074 IRET "VMEXIT_IRET" Some("iret"), "IRET";
    0x075 SWINT "VMEXIT_SWINT" Some("swint"), "software interrupt, INTn";
    0x076 INVD "VMEXIT_INVD" Some("invd"), "INVD";
    0x077 PAUSE "VMEXIT_PAUSE" Some("pause"), "PAUSE";
    0x078 HLT "VMEXIT_HLT" Some("hlt"), "HLT";
    0x079 INVLPG "VMEXIT_INVLPG" Some("invlpg"), "INVLPG";
    0x07a INVLPGA "VMEXIT_INVLPGA" Some("invlpga"), "INVLPGA";
    0x07b IOIO "VMEXIT_IOIO" Some("io"), "IN, OUT, INS or OUTS that the I/O permission map refuses";
    0x07c MSR "VMEXIT_MSR" Some("msr"), "RDMSR or WRMSR that the MSR permission map refuses";
    0x07d TASK_SWITCH "VMEXIT_TASK_SWITCH" Some("task_switch"), "task switch";
    0x07e FERR_FREEZE "VMEXIT_FERR_FREEZE" Some("ferr_freeze"), "floating-point legacy interrupt freeze";
    0x07f SHUTDOWN "VMEXIT_SHUTDOWN" Some("shutdown"), "shutdown, as after a triple fault";
    0x080 VMRUN "VMEXIT_VMRUN" Some("vmrun"), "VMRUN";
    0x081 VMMCALL "VMEXIT_VMMCALL" Some("hypercall"), "VMMCALL";
    0x082 VMLOAD "VMEXIT_VMLOAD" Some("vmload"), "VMLOAD";
    0x083 VMSAVE "VMEXIT_VMSAVE" Some("vmsave"), "VMSAVE";
    0x084 STGI "VMEXIT_STGI" Some("stgi"), "STGI";
    0x085 CLGI "VMEXIT_CLGI" Some("clgi"), "CLGI";
    0x086 SKINIT "VMEXIT_SKINIT" Some("skinit"), "SKINIT";
    0x087 RDTSCP "VMEXIT_RDTSCP" Some("rdtscp"), "RDTSCP";
    0x088 ICEBP "VMEXIT_ICEBP" Some("icebp"), "INT1";
    0x089 WBINVD "VMEXIT_WBINVD" Some("wbinvd"), "WBINVD or WBNOINVD";
    0x08a MONITOR "VMEXIT_MONITOR" Some("monitor"), "MONITOR or MONITORX";
    0x08b MWAIT "VMEXIT_MWAIT" Some("mwait"), "MWAIT or MWAITX";
    0x08c MWAIT_CONDITIONAL "VMEXIT_MWAIT_CONDITIONAL" None, "MWAIT or MWAITX with the monitor armed";
    0x08d XSETBV "VMEXIT_XSETBV" Some("xsetbv"), "XSETBV";
    0x08e RDPRU "VMEXIT_RDPRU" None, "RDPRU";
    0x08f EFER_WRITE_TRAP "VMEXIT_EFER_WRITE_TRAP" Some("write_efer_trap"), "write of EFER, after it";
    0x090 CR0_WRITE_TRAP "VMEXIT_CR0_WRITE_TRAP" Some("write_cr0_trap"), "write of CR0, after it";
    0x091 CR1_WRITE_TRAP "VMEXIT_CR1_WRITE_TRAP" None, "write of CR1, after it";
    0x092 CR2_WRITE_TRAP "VMEXIT_CR2_WRITE_TRAP" None, "write of CR2, after it";
    0x093 CR3_WRITE_TRAP "VMEXIT_CR3_WRITE_TRAP" None, "write of CR3, after it";
    0x094 CR4_WRITE_TRAP "VMEXIT_CR4_WRITE_TRAP" Some("write_cr4_trap"), "write of CR4, after it";
    0x095 CR5_WRITE_TRAP "VMEXIT_CR5_WRITE_TRAP" None, "write of CR5, after it";
    0x096 CR6_WRITE_TRAP "VMEXIT_CR6_WRITE_TRAP" None, "write of CR6, after it";
    0x097 CR7_WRITE_TRAP "VMEXIT_CR7_WRITE_TRAP" None, "write of CR7, after it";
    0x098 CR8_WRITE_TRAP "VMEXIT_CR8_WRITE_TRAP" Some("write_cr8_trap"), "write of CR8, after it";
    0x099 CR9_WRITE_TRAP "VMEXIT_CR9_WRITE_TRAP" None, "write of CR9, after it";
    0x09a CR10_WRITE_TRAP "VMEXIT_CR10_WRITE_TRAP" None, "write of CR10, after it";
    0x09b CR11_WRITE_TRAP "VMEXIT_CR11_WRITE_TRAP" None, "write of CR11, after it";
    0x09c CR12_WRITE_TRAP "VMEXIT_CR12_WRITE_TRAP" None, "write of CR12, after it";
    0x09d CR13_WRITE_TRAP "VMEXIT_CR13_WRITE_TRAP" None, "write of CR13, after it";
    0x09e CR14_WRITE_TRAP "VMEXIT_CR14_WRITE_TRAP" None, "write of CR14, after it";
    0x09f CR15_WRITE_TRAP "VMEXIT_CR15_WRITE_TRAP" None, "write of CR15, after it";
    0x0a0 INVLPGB "VMEXIT_INVLPGB" None, "INVLPGB";
    0x0a1 INVLPGB_ILLEGAL "VMEXIT_INVLPGB_ILLEGAL" None, "INVLPGB that is illegal in a guest";
    0x0a2 INVPCID "VMEXIT_INVPCID" Some("invpcid"), "INVPCID";
    0x0a3 MCOMMIT "VMEXIT_MCOMMIT" None, "MCOMMIT";
    0x0a4 TLBSYNC "VMEXIT_TLBSYNC" None, "TLBSYNC";
    0x0a5 BUSLOCK "VMEXIT_BUSLOCK" None, "bus lock, with the threshold counter at zero";
    0x0a6 IDLE_HLT "VMEXIT_IDLE_HLT" None, "HLT with no virtual interrupt pending";
    0x400 NPF "VMEXIT_NPF" Some("npf"), "nested page fault";
    0x401 AVIC_INCOMPLETE_IPI "VMEXIT_AVIC_INCOMPLETE_IPI" Some("avic_incomplete_ipi"), "AVIC: the IPI could not be delivered to all targets";
    0x402 AVIC_NOACCEL "VMEXIT_AVIC_NOACCEL" Some("avic_unaccelerated_access"), "AVIC: access to a register it does not accelerate";
    0x403 VMGEXIT "VMEXIT_VMGEXIT" Some("vmgexit"), "VMGEXIT";
    0xffff_ffff_ffff_fffc INVALID_PMC "VMEXIT_INVALID_PMC" None, "illegal PMC state in the VMCB";
    0xffff_ffff_ffff_fffd IDLE_REQUIRED "VMEXIT_IDLE_REQUIRED" None, "the other thread was not idle";
    0xffff_ffff_ffff_fffe BUSY "VMEXIT_BUSY" None, "the save area of the guest was in use";
    0xffff_ffff_ffff_ffff INVALID "VMEXIT_INVALID" Some("invalid_guest_state"), "the VMCB failed VMRUN's consistency checks";
}

impl ExitCode {
    /// The exit code of reading CRn, `n` below 16.
    #[must_use]
    pub const fn cr_read(n: u8) -> Self {
        Self(Self::CR0_READ.0 + (n & 15) as u64)
    }

    /// The exit code of writing CRn, `n` below 16.
    #[must_use]
    pub const fn cr_write(n: u8) -> Self {
        Self(Self::CR0_WRITE.0 + (n & 15) as u64)
    }

    /// The exit code of reading DRn, `n` below 16.
    #[must_use]
    pub const fn dr_read(n: u8) -> Self {
        Self(Self::DR0_READ.0 + (n & 15) as u64)
    }

    /// The exit code of writing DRn, `n` below 16.
    #[must_use]
    pub const fn dr_write(n: u8) -> Self {
        Self(Self::DR0_WRITE.0 + (n & 15) as u64)
    }

    /// The exit code of an exception, `vector` below 32.
    #[must_use]
    pub const fn exception(vector: u8) -> Self {
        Self(Self::EXCP_DE.0 + (vector & 31) as u64)
    }

    /// The vector of an exception intercept.
    #[must_use]
    pub const fn exception_vector(self) -> Option<u8> {
        if self.0 >= Self::EXCP_DE.0 && self.0 < Self::INTR.0 { Some((self.0 - Self::EXCP_DE.0) as u8) } else { None }
    }

    /// The bit index in the intercept words, which is the code itself; nothing for codes that are no intercept.
    #[must_use]
    pub const fn intercept_bit(self) -> Option<usize> {
        if self.0 < 192 { Some(self.0 as usize) } else { None }
    }

    /// The row of this code; nothing for a number that the manual does not define.
    #[must_use]
    pub fn row(self) -> Option<&'static ExitCodeRow> {
        let index = Self::ALL.binary_search_by_key(&self, |(code, _)| *code).ok()?;
        Self::ALL.get(index).map(|(_, row)| row)
    }

    /// The manual's name, `VMEXIT_CPUID`.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// The kernel's name, `cpuid`.
    #[must_use]
    pub fn trace_name(self) -> Option<&'static str> {
        self.row().and_then(|row| row.trace_name)
    }
}

/// As the kernel's trace prints it: the name, or hex for a code without one.
impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trace_name() {
            Some(name) => f.pad(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// As the manual names it.
impl fmt::Debug for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ExitCode({:#x})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_rises_and_is_complete_below_a7() {
        assert!(ExitCode::ALL.is_sorted_by(|(a, _), (b, _)| a < b));
        for number in 0..0xa7 {
            assert!(ExitCode(number).row().is_some(), "{number:#x} has no row");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ExitCode::ALL.iter().map(|(_, row)| row.name).collect();
        names.extend(ExitCode::ALL.iter().filter_map(|(_, row)| row.trace_name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn codes_print_as_the_kernel_does() {
        let cases: [(u64, &str); 12] = [
            (0x03, "read_cr3"),
            (0x05, "0x5"),
            (0x46, "UD excp"),
            (0x4e, "PF excp"),
            (0x69, "read_rt"),
            (0x72, "cpuid"),
            (0x7b, "io"),
            (0x81, "hypercall"),
            (0x8c, "0x8c"),
            (0x400, "npf"),
            (0x404, "0x404"),
            (u64::MAX, "invalid_guest_state"),
        ];
        for (code, text) in cases {
            assert_eq!(ExitCode(code).to_string(), text);
        }
    }

    #[test]
    fn families_are_arithmetic() {
        assert_eq!(ExitCode::cr_write(3), ExitCode::CR3_WRITE);
        assert_eq!(ExitCode::dr_read(7), ExitCode::DR7_READ);
        assert_eq!(ExitCode::exception(14), ExitCode::EXCP_PF);
        assert_eq!(ExitCode::EXCP_PF.exception_vector(), Some(14));
        assert_eq!(ExitCode::INTR.exception_vector(), None);
    }
}
