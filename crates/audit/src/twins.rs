//! Which words of the two vendors tell of the same thing: exits and fields.
//!
//! Modelled: the one table of it. Not modelled: how far the meanings agree; a pair is where a reader looks next.

use crate::spelling::plain;
use isa::svm::{ExitCode, VmcbField};
use isa::vmx::{ExitReason, VmcsField};

/// Which exit codes of SVM tell of the same event as an exit reason of VMX.
pub(crate) const SAME_EXIT: &[(ExitReason, &[ExitCode])] = &[
    (ExitReason::ExceptionOrNmi, &[ExitCode::EXCP_DE, ExitCode::EXCP_DB, ExitCode::EXCP_GP, ExitCode::EXCP_PF, ExitCode::NMI]),
    (ExitReason::ExternalInterrupt, &[ExitCode::INTR]),
    (ExitReason::TripleFault, &[ExitCode::SHUTDOWN]),
    (ExitReason::InitSignal, &[ExitCode::INIT]),
    (ExitReason::IoSmi, &[ExitCode::SMI]),
    (ExitReason::OtherSmi, &[ExitCode::SMI]),
    (ExitReason::InterruptWindow, &[ExitCode::VINTR]),
    (ExitReason::TaskSwitch, &[ExitCode::TASK_SWITCH]),
    (ExitReason::Cpuid, &[ExitCode::CPUID]),
    (ExitReason::Hlt, &[ExitCode::HLT, ExitCode::IDLE_HLT]),
    (ExitReason::Invd, &[ExitCode::INVD]),
    (ExitReason::Invlpg, &[ExitCode::INVLPG]),
    (ExitReason::Rdpmc, &[ExitCode::RDPMC]),
    (ExitReason::Rdtsc, &[ExitCode::RDTSC]),
    (ExitReason::Rsm, &[ExitCode::RSM]),
    (ExitReason::Vmcall, &[ExitCode::VMMCALL]),
    (ExitReason::Vmlaunch, &[ExitCode::VMRUN]),
    (ExitReason::Vmresume, &[ExitCode::VMRUN]),
    (
        ExitReason::ControlRegisterAccess,
        &[
            ExitCode::CR0_READ,
            ExitCode::CR3_READ,
            ExitCode::CR0_WRITE,
            ExitCode::CR3_WRITE,
            ExitCode::CR4_WRITE,
            ExitCode::CR8_WRITE,
            ExitCode::CR0_SEL_WRITE,
        ],
    ),
    (ExitReason::MovDr, &[ExitCode::DR0_READ, ExitCode::DR7_READ, ExitCode::DR0_WRITE, ExitCode::DR7_WRITE]),
    (ExitReason::IoInstruction, &[ExitCode::IOIO]),
    (ExitReason::Rdmsr, &[ExitCode::MSR]),
    (ExitReason::Wrmsr, &[ExitCode::MSR]),
    (ExitReason::EntryFailureInvalidGuestState, &[ExitCode::INVALID]),
    (ExitReason::Mwait, &[ExitCode::MWAIT, ExitCode::MWAIT_CONDITIONAL]),
    (ExitReason::Monitor, &[ExitCode::MONITOR]),
    (ExitReason::Pause, &[ExitCode::PAUSE]),
    (ExitReason::ApicAccess, &[ExitCode::AVIC_NOACCEL]),
    (ExitReason::ApicWrite, &[ExitCode::AVIC_NOACCEL]),
    (ExitReason::GdtrOrIdtrAccess, &[ExitCode::IDTR_READ, ExitCode::GDTR_READ, ExitCode::IDTR_WRITE, ExitCode::GDTR_WRITE]),
    (ExitReason::LdtrOrTrAccess, &[ExitCode::LDTR_READ, ExitCode::TR_READ, ExitCode::LDTR_WRITE, ExitCode::TR_WRITE]),
    (ExitReason::EptViolation, &[ExitCode::NPF]),
    (ExitReason::EptMisconfiguration, &[ExitCode::NPF]),
    (ExitReason::Rdtscp, &[ExitCode::RDTSCP]),
    (ExitReason::WbinvdOrWbnoinvd, &[ExitCode::WBINVD]),
    (ExitReason::Xsetbv, &[ExitCode::XSETBV]),
    (ExitReason::Invpcid, &[ExitCode::INVPCID]),
    (ExitReason::BusLock, &[ExitCode::BUSLOCK]),
];

/// Which word of a VMCB holds what a VMCS field does, where the names do not say it.
const SAME_FIELD: &[(VmcsField, &str)] = &[
    (VmcsField::VirtualProcessorIdentifier, "GUEST_ASID"),
    (VmcsField::IoBitmapAAddress, "IOPM_BASE_PA"),
    (VmcsField::IoBitmapBAddress, "IOPM_BASE_PA"),
    (VmcsField::MsrBitmapAddress, "MSRPM_BASE_PA"),
    (VmcsField::TscOffset, "TSC_OFFSET"),
    (VmcsField::EptPointer, "N_CR3"),
    (VmcsField::ExceptionBitmap, "INTERCEPTS[2]"),
    (VmcsField::PrimaryProcessorBasedControls, "INTERCEPTS[3]"),
    (VmcsField::PinBasedControls, "INTERCEPTS[3]"),
    (VmcsField::EntryInterruptionInformation, "EVENTINJ"),
    (VmcsField::EntryExceptionErrorCode, "EVENTINJ"),
    (VmcsField::IdtVectoringInformation, "EXITINTINFO"),
    (VmcsField::IdtVectoringErrorCode, "EXITINTINFO"),
    (VmcsField::ExitReason, "EXITCODE"),
    (VmcsField::ExitQualification, "EXITINFO1"),
    (VmcsField::GuestPhysicalAddress, "EXITINFO2"),
    (VmcsField::ExitInstructionLength, "NRIP"),
    (VmcsField::GuestInterruptibilityState, "INTERRUPT_SHADOW"),
    (VmcsField::GuestPat, "G_PAT"),
    (VmcsField::GuestDebugctl, "DBGCTL"),
    (VmcsField::PleGap, "PAUSE_FILTER_THRESHOLD"),
    (VmcsField::PleWindow, "PAUSE_FILTER_COUNT"),
    (VmcsField::GuestInterruptSspTableAddress, "ISST_ADDR"),
    (VmcsField::VirtualApicAddress, "AVIC_BACKING_PAGE"),
    (VmcsField::ApicAccessAddress, "AVIC_APIC_BAR"),
];

/// The word of a VMCB that holds what a VMCS field does.
pub(crate) fn twin(field: VmcsField) -> Option<&'static VmcbField> {
    if let Some((_, name)) = SAME_FIELD.iter().find(|(same, _)| *same == field) {
        return VmcbField::find(name);
    }
    let name = field.identifier().strip_prefix("Guest")?;
    let part = [("Selector", "SELECTOR"), ("AccessRights", "ATTRIB"), ("Limit", "LIMIT"), ("Base", "BASE")];
    let wanted = part
        .iter()
        .find_map(|(vmx, svm)| name.strip_suffix(vmx).map(|segment| format!("{segment}.{svm}")))
        .unwrap_or_else(|| name.to_owned());
    VmcbField::all().iter().find(|field| plain(&field.name) == plain(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_twin_that_is_written_down_exists() {
        for (_, name) in SAME_FIELD {
            assert!(VmcbField::find(name).is_some(), "{name}");
        }
        assert_eq!(twin(VmcsField::GuestCsAccessRights).unwrap().name, "CS.ATTRIB");
        assert_eq!(twin(VmcsField::GuestSysenterEsp).unwrap().name, "SYSENTER_ESP");
        assert_eq!(twin(VmcsField::HostCr0), None);
    }
}
