//! Building VMX capabilities from the names of controls.
//!
//! What is modelled: SDM appendix A "VMX Capability Reporting Facility": a model names the controls it allows, and the default1 class
//! is added here, so that no model can forbid what the manual reports as fixed.

use isa::vmx::{AllowedSettings, ControlBit, ControlWord};

/// The settings of one control word: `must` are the bits that have to be 1; a bit may be 1 if it must, is in `default1`, or is listed.
///
/// A control of another word in the list does not compile.
pub(crate) const fn settings(word: ControlWord, must: u32, default1: u32, controls: &[ControlBit]) -> AllowedSettings {
    let mut may = must | default1;
    let mut index = 0;
    while index < controls.len() {
        assert!(controls[index].word as u8 == word as u8, "a control of another word");
        may |= 1 << controls[index].bit;
        index += 1;
    }
    AllowedSettings::new().with_must_be_one(must).with_may_be_one(may)
}
