//! The words of AMD SVM: the VMCB and what its fields mean, exit codes, permission maps, capability bits.
//!
//! Manual: APM volume 2, chapter 15 "Secure Virtual Machine" and appendix B "VMCB Layout"; the revision is pinned
//! in docs/manuals.md.
//!
//! What is modelled: every field of the control area and of the state save area of a guest without encrypted
//! state, every exit code of appendix C, the formats of EVENTINJ, EXITINTINFO, EXITINFO1 and EXITINFO2, the
//! virtual-interrupt word, TLB_CONTROL, the clean bits, CPUID leaf 8000_000A, the SVM MSRs, the two permission maps.
//!
//! What is not: the save area of SEV-ES guests (the VMSA), the reverse map table, AVIC's tables, IBS state.
//! Nothing here has state or behaviour: that is the `svm` crate's.

pub mod attributes;
pub mod control;
pub mod cpuid;
pub mod event;
pub mod exit_code;
pub mod exit_info;
pub mod field;
pub mod intercept;
pub mod layout;
pub mod msr;
pub mod permission_map;
pub mod vmcb;

pub use attributes::SegmentAttributes;
pub use control::{CleanBits, NestedControl, TlbControl, VirtualExtensions, VirtualInterrupt};
pub use cpuid::SvmFeatures;
pub use event::{EventInformation, EventType};
pub use exit_code::ExitCode;
pub use exit_info::{CrInfo, DrInfo, IoInfo, NestedPageFaultInfo, TaskSwitchInfo};
pub use field::VmcbField;
pub use intercept::Intercepts;
pub use permission_map::{IoPermissions, MsrPermissions};
pub use vmcb::{ControlArea, SaveArea, SegmentRegister, VMCB_SIZE, Vmcb};
