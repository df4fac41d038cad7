//! The words of the x86 manuals: registers, flags, descriptors, paging entries, exceptions, MSRs, CPUID.
//!
//! What is modelled: the *formats*. Nothing here holds state or decides anything, so that the silicon and the hypervisor share words and
//! no code. The manuals and their revisions are pinned in `docs/manuals.md`; sections are cited as number and title.

pub mod apic;
pub mod control;
pub mod cpuid;
pub mod debug;
pub mod exception;
pub mod msr;
pub mod paging;
pub mod register;
pub mod rflags;
pub mod segment;
pub mod svm;
pub mod vmx;
