//! The words of Intel VMX: VMCS fields, control words, exit reasons and the formats around them; no state.
//!
//! Modelled: the formats of SDM volume 3, chapters 25 to 28 and appendices A to C. Not modelled: SMM monitors, enclaves and FRED beyond
//! the names of their bits. The silicon that gives these words their effect is the `vmx` crate.

pub mod capability;
pub mod control;
pub mod ept;
pub mod event;
pub mod exit_reason;
pub mod field;
pub mod instruction_error;
pub mod instruction_information;
pub mod qualification;
pub mod state;

pub use capability::{AllowedSettings, CapabilityMsr, EptVpidCapabilities, VmcsEnum, VmxBasic, VmxCapabilities, VmxMisc};
pub use control::{
    ControlBit, ControlWord, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls, VmFunctionControls,
};
pub use ept::{EptEntry, EptPointer, InveptType, InvvpidType};
pub use event::{InterruptionInformation, InterruptionType};
pub use exit_reason::{ExitReason, ExitReasonField, UnknownExitReason};
pub use field::{FieldAccess, FieldArea, FieldWidth, VmcsField};
pub use instruction_error::VmInstructionError;
pub use instruction_information::{DescriptorTableInstruction, InstructionInformation, LdtrOrTrInstruction};
pub use qualification::{
    ApicAccessQualification, ApicAccessType, ControlRegisterAccessType, ControlRegisterQualification, DebugQualification,
    EptViolationQualification, InvalidGuestStateQualification, IoQualification, MovDrQualification, TaskSwitchQualification,
    TaskSwitchSource,
};
pub use state::{ActivityState, Interruptibility, PendingDebugExceptions};
