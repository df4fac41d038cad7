//! VM-instruction error numbers.
//!
//! Modelled: all numbers of SDM 31.4 "VM Instruction Error Numbers", with the manual's text.

use serde::{Deserialize, Serialize};

macro_rules! instruction_errors {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// Why a VMX instruction ended with VMfailValid, SDM 31.4 "VM Instruction Error Numbers".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
        #[repr(u32)]
        pub enum VmInstructionError {
            $(#[doc = concat!($text, ".")] #[error($text)] $name = $number,)*
        }

        impl VmInstructionError {
            /// Every error, in ascending order.
            pub const ALL: &[VmInstructionError] = &[$(VmInstructionError::$name,)*];

            /// The number that the VM-instruction error field holds.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The manual's text.
            pub const fn text(self) -> &'static str {
                match self { $(VmInstructionError::$name => $text,)* }
            }

            /// The error with this number; `None` where the number is reserved.
            pub const fn from_number(number: u32) -> Option<VmInstructionError> {
                match number { $($number => Some(VmInstructionError::$name),)* _ => None }
            }
        }
    };
}

instruction_errors! {
    VmcallInVmxRoot = 1, "VMCALL executed in VMX root operation";
    VmclearInvalidAddress = 2, "VMCLEAR with invalid physical address";
    VmclearVmxonPointer = 3, "VMCLEAR with VMXON pointer";
    VmlaunchNonClearVmcs = 4, "VMLAUNCH with non-clear VMCS";
    VmresumeNonLaunchedVmcs = 5, "VMRESUME with non-launched VMCS";
    VmresumeAfterVmxoff = 6, "VMRESUME after VMXOFF (VMXOFF and VMXON between VMLAUNCH and VMRESUME)";
    EntryInvalidControlFields = 7, "VM entry with invalid control field(s)";
    EntryInvalidHostStateFields = 8, "VM entry with invalid host-state field(s)";
    VmptrldInvalidAddress = 9, "VMPTRLD with invalid physical address";
    VmptrldVmxonPointer = 10, "VMPTRLD with VMXON pointer";
    VmptrldIncorrectRevision = 11, "VMPTRLD with incorrect VMCS revision identifier";
    UnsupportedVmcsComponent = 12, "VMREAD/VMWRITE from/to unsupported VMCS component";
    VmwriteReadOnlyComponent = 13, "VMWRITE to read-only VMCS component";
    VmxonInVmxRoot = 15, "VMXON executed in VMX root operation";
    EntryInvalidExecutiveVmcsPointer = 16, "VM entry with invalid executive-VMCS pointer";
    EntryNonLaunchedExecutiveVmcs = 17, "VM entry with non-launched executive VMCS";
    EntryExecutiveVmcsPointerNotVmxonPointer = 18,
        "VM entry with executive-VMCS pointer not VMXON pointer (when attempting to deactivate the dual-monitor treatment of SMIs and SMM)";
    VmcallNonClearVmcs = 19, "VMCALL with non-clear VMCS (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    VmcallInvalidExitControlFields = 20, "VMCALL with invalid VM-exit control fields";
    VmcallIncorrectMsegRevision = 22,
        "VMCALL with incorrect MSEG revision identifier (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    VmxoffUnderDualMonitor = 23, "VMXOFF under dual-monitor treatment of SMIs and SMM";
    VmcallInvalidSmmMonitorFeatures = 24,
        "VMCALL with invalid SMM-monitor features (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    EntryInvalidExecutionControlsInExecutiveVmcs = 25,
        "VM entry with invalid VM-execution control fields in executive VMCS (when attempting to return from SMM)";
    EntryEventsBlockedByMovSs = 26, "VM entry with events blocked by MOV SS";
    InvalidInvalidationOperand = 28, "Invalid operand to INVEPT/INVVPID";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        for number in 0..64 {
            match VmInstructionError::from_number(number) {
                Some(error) => assert_eq!(error.number(), number),
                None => assert!(!VmInstructionError::ALL.iter().any(|error| error.number() == number)),
            }
        }
        assert_eq!(VmInstructionError::ALL.len(), 25);
    }

    #[test]
    fn the_message_is_the_manual_s_text() {
        assert_eq!(VmInstructionError::EntryInvalidControlFields.to_string(), "VM entry with invalid control field(s)");
        assert_eq!(VmInstructionError::EntryInvalidControlFields.text(), "VM entry with invalid control field(s)");
    }
}
