//! Basic exit reasons, and the exit-reason field that holds one.
//!
//! Modelled: the numbers of SDM Appendix C "VMX Basic Exit Reasons", each with the manual's name and, where it has one, the name that the
//! Linux kernel prints in `kvm_exit`. Not modelled: reasons that a later manual than docs/manuals.md pins may add.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

macro_rules! exit_reasons {
    ($($name:ident = $number:literal, $manual:literal $(, $kvm:literal)?;)*) => {
        /// Basic exit reason, SDM Appendix C "VMX Basic Exit Reasons".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u16)]
        pub enum ExitReason {
            $(#[doc = concat!($manual, ".")] $name = $number,)*
        }

        impl ExitReason {
            /// Every basic exit reason, in ascending order.
            pub const ALL: &[ExitReason] = &[$(ExitReason::$name,)*];

            /// The manual's name.
            pub const fn name(self) -> &'static str {
                match self { $(ExitReason::$name => $manual,)* }
            }

            /// The name in the kernel's `kvm_exit` event; `None` where the kernel prints the number.
            pub const fn kvm_name(self) -> Option<&'static str> {
                const NONE: Option<&str> = None;
                match self { $(ExitReason::$name => { let name = NONE; $(let _ = name; let name = Some($kvm);)? name })* }
            }
        }

        impl TryFrom<u16> for ExitReason {
            type Error = UnknownExitReason;

            fn try_from(number: u16) -> Result<ExitReason, UnknownExitReason> {
                match number { $($number => Ok(ExitReason::$name),)* _ => Err(UnknownExitReason(number)) }
            }
        }
    };
}

/// A number that is no basic exit reason of SDM Appendix C "VMX Basic Exit Reasons".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no basic exit reason of VMX")]
pub struct UnknownExitReason(pub u16);

exit_reasons! {
    ExceptionOrNmi = 0, "Exception or non-maskable interrupt (NMI)", "EXCEPTION_NMI";
    ExternalInterrupt = 1, "External interrupt", "EXTERNAL_INTERRUPT";
    TripleFault = 2, "Triple fault", "TRIPLE_FAULT";
    InitSignal = 3, "INIT signal", "INIT_SIGNAL";
    StartUpIpi = 4, "Start-up IPI (SIPI)", "SIPI_SIGNAL";
    IoSmi = 5, "I/O system-management interrupt (SMI)";
    OtherSmi = 6, "Other SMI";
    InterruptWindow = 7, "Interrupt window", "INTERRUPT_WINDOW";
    NmiWindow = 8, "NMI window", "NMI_WINDOW";
    TaskSwitch = 9, "Task switch", "TASK_SWITCH";
    Cpuid = 10, "CPUID", "CPUID";
    Getsec = 11, "GETSEC";
    Hlt = 12, "HLT", "HLT";
    Invd = 13, "INVD", "INVD";
    Invlpg = 14, "INVLPG", "INVLPG";
    Rdpmc = 15, "RDPMC", "RDPMC";
    Rdtsc = 16, "RDTSC", "RDTSC";
    Rsm = 17, "RSM";
    Vmcall = 18, "VMCALL", "VMCALL";
    Vmclear = 19, "VMCLEAR", "VMCLEAR";
    Vmlaunch = 20, "VMLAUNCH", "VMLAUNCH";
    Vmptrld = 21, "VMPTRLD", "VMPTRLD";
    Vmptrst = 22, "VMPTRST", "VMPTRST";
    Vmread = 23, "VMREAD", "VMREAD";
    Vmresume = 24, "VMRESUME", "VMRESUME";
    Vmwrite = 25, "VMWRITE", "VMWRITE";
    Vmxoff = 26, "VMXOFF", "VMOFF";
    Vmxon = 27, "VMXON", "VMON";
    ControlRegisterAccess = 28, "Control-register accesses", "CR_ACCESS";
    MovDr = 29, "MOV DR", "DR_ACCESS";
    IoInstruction = 30, "I/O instruction", "IO_INSTRUCTION";
    Rdmsr = 31, "RDMSR", "MSR_READ";
    Wrmsr = 32, "WRMSR", "MSR_WRITE";
    EntryFailureInvalidGuestState = 33, "VM-entry failure due to invalid guest state", "INVALID_STATE";
    EntryFailureMsrLoading = 34, "VM-entry failure due to MSR loading", "MSR_LOAD_FAIL";
    Mwait = 36, "MWAIT", "MWAIT_INSTRUCTION";
    MonitorTrapFlag = 37, "Monitor trap flag", "MONITOR_TRAP_FLAG";
    Monitor = 39, "MONITOR", "MONITOR_INSTRUCTION";
    Pause = 40, "PAUSE", "PAUSE_INSTRUCTION";
    EntryFailureMachineCheck = 41, "VM-entry failure due to machine-check event", "MCE_DURING_VMENTRY";
    TprBelowThreshold = 43, "TPR below threshold", "TPR_BELOW_THRESHOLD";
    ApicAccess = 44, "APIC access", "APIC_ACCESS";
    VirtualizedEoi = 45, "Virtualized EOI", "EOI_INDUCED";
    GdtrOrIdtrAccess = 46, "Access to GDTR or IDTR", "GDTR_IDTR";
    LdtrOrTrAccess = 47, "Access to LDTR or TR", "LDTR_TR";
    EptViolation = 48, "EPT violation", "EPT_VIOLATION";
    EptMisconfiguration = 49, "EPT misconfiguration", "EPT_MISCONFIG";
    Invept = 50, "INVEPT", "INVEPT";
    Rdtscp = 51, "RDTSCP", "RDTSCP";
    PreemptionTimerExpired = 52, "VMX-preemption timer expired", "PREEMPTION_TIMER";
    Invvpid = 53, "INVVPID", "INVVPID";
    WbinvdOrWbnoinvd = 54, "WBINVD or WBNOINVD", "WBINVD";
    Xsetbv = 55, "XSETBV", "XSETBV";
    ApicWrite = 56, "APIC write", "APIC_WRITE";
    Rdrand = 57, "RDRAND", "RDRAND";
    Invpcid = 58, "INVPCID", "INVPCID";
    Vmfunc = 59, "VMFUNC", "VMFUNC";
    Encls = 60, "ENCLS", "ENCLS";
    Rdseed = 61, "RDSEED", "RDSEED";
    PageModificationLogFull = 62, "Page-modification log full", "PML_FULL";
    Xsaves = 63, "XSAVES", "XSAVES";
    Xrstors = 64, "XRSTORS", "XRSTORS";
    Pconfig = 65, "PCONFIG";
    SppRelatedEvent = 66, "SPP-related event";
    Umwait = 67, "UMWAIT", "UMWAIT";
    Tpause = 68, "TPAUSE", "TPAUSE";
    Loadiwkey = 69, "LOADIWKEY";
    Enclv = 70, "ENCLV";
    EnqcmdPasidTranslationFailure = 72, "ENQCMD PASID translation failure";
    EnqcmdsPasidTranslationFailure = 73, "ENQCMDS PASID translation failure";
    BusLock = 74, "Bus lock", "BUS_LOCK";
    InstructionTimeout = 75, "Instruction timeout", "NOTIFY";
    Seamcall = 76, "SEAMCALL";
    Tdcall = 77, "TDCALL";
    Rdmsrlist = 78, "RDMSRLIST";
    Wrmsrlist = 79, "WRMSRLIST";
}

/// The exit-reason field, SDM 25.9.1 "Basic VM-Exit Information".
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReasonField {
    /// Number of the basic exit reason; see [`ExitReasonField::reason`].
    pub basic: u16,
    #[bits(9)]
    __: u16,
    /// A shadow stack was prematurely busy when the exit happened.
    pub shadow_stack_prematurely_busy: bool,
    /// A bus lock was asserted (VMM bus-lock detection).
    pub bus_lock_asserted: bool,
    /// The exit happened in enclave mode.
    pub enclave_mode: bool,
    /// A pending MTF VM exit was there (SMM VM exits only).
    pub pending_mtf: bool,
    /// The exit came from VMX root operation (SMM VM exits only).
    pub from_vmx_root: bool,
    __: bool,
    /// VM-entry failure: the guest did not run.
    pub entry_failure: bool,
}

impl ExitReasonField {
    /// The field of an ordinary exit.
    pub const fn exit(reason: ExitReason) -> ExitReasonField {
        ExitReasonField::new().with_basic(reason as u16)
    }

    /// The field of a failed VM entry.
    pub const fn failed_entry(reason: ExitReason) -> ExitReasonField {
        ExitReasonField::exit(reason).with_entry_failure(true)
    }

    /// The basic exit reason.
    ///
    /// # Errors
    /// [`UnknownExitReason`] where the low 16 bits are no reason of the manual's.
    pub fn reason(self) -> Result<ExitReason, UnknownExitReason> {
        ExitReason::try_from(self.basic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        assert!(ExitReason::ALL.is_sorted_by(|a, b| a < b));
        for number in 0..=u16::MAX {
            match ExitReason::try_from(number) {
                Ok(reason) => assert_eq!(reason as u16, number),
                Err(error) => assert!(!ExitReason::ALL.iter().any(|reason| *reason as u16 == error.0)),
            }
        }
    }

    #[test]
    fn the_kernel_s_names_are_those_of_its_trace() {
        let named = ["EXCEPTION_NMI", "VMCALL", "EPT_VIOLATION", "VMOFF", "MSR_LOAD_FAIL", "NOTIFY"];
        for name in named {
            assert_eq!(ExitReason::ALL.iter().filter(|reason| reason.kvm_name() == Some(name)).count(), 1, "{name}");
        }
        assert_eq!(ExitReason::Getsec.kvm_name(), None);
    }

    #[test]
    fn a_failed_entry_has_bit_31() {
        let field = ExitReasonField::failed_entry(ExitReason::EntryFailureInvalidGuestState);
        assert_eq!(field.into_bits(), 0x8000_0021);
        assert_eq!(field.reason(), Ok(ExitReason::EntryFailureInvalidGuestState));
    }
}
