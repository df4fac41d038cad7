//! A VMCS as the processor holds it: its fields, its launch state, and which checks it still has to pass.
//!
//! Modelled: the launch state of SDM 25.1 "Overview" and the parts of a VMCS region that software sees (revision identifier, abort
//! indicator). The format of the rest of the region is the processor's own: VMCLEAR writes the fields that the processor has to memory, in
//! the order of [`VmcsField::ALL`]; VMPTRLD reads them back, so a VMCS moves between processors and checkpoints with the memory it lies in.

use crate::checks::{Facts, Phases};
use isa::vmx::{
    EntryControls, ExitControls, InterruptionInformation, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls, VmcsField,
};
use serde::{Deserialize, Serialize};

/// Most bytes of a VMCS region; IA32_VMX_BASIC may report fewer.
pub const REGION_BYTES: usize = 4096;

/// Offset in the region of the VMX-abort indicator. SDM 25.2 "Format of the VMCS Region".
pub const ABORT_INDICATOR: u64 = 4;

/// Offset in the region of the launch state, where ours begins.
const LAUNCH_STATE: usize = 8;
/// Offset in the region of the first field.
const FIRST_FIELD: usize = 16;

/// Which fields a processor has.
pub type SupportedFields = [bool; VmcsField::COUNT];

/// The fields that a region holds, in their order.
fn stored(supported: &SupportedFields) -> impl Iterator<Item = VmcsField> {
    VmcsField::ALL.iter().copied().filter(|field| supported[field.index()])
}

/// Bytes that a region needs: each field takes its own width.
pub fn region_bytes(supported: &SupportedFields) -> usize {
    FIRST_FIELD + stored(supported).map(|field| usize::from(field.width().bytes())).sum::<usize>()
}

/// Launch state of a VMCS. SDM 25.1 "Overview".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchState {
    /// VMLAUNCH can enter with it.
    #[default]
    Clear,
    /// VMRESUME can enter with it.
    Launched,
}

/// Values of all fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Box<[u64; VmcsField::COUNT]>);

impl Default for Fields {
    fn default() -> Fields {
        Fields(Box::new([0; VmcsField::COUNT]))
    }
}

impl Serialize for Fields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        let values = Vec::<u64>::deserialize(deserializer)?;
        let count = values.len();
        let array = values.into_boxed_slice().try_into();
        array.map(Fields).map_err(|_| serde::de::Error::invalid_length(count, &"one value for each field of the VMCS"))
    }
}

impl Fields {
    /// Value of a field.
    #[inline]
    pub fn get(&self, field: VmcsField) -> u64 {
        self.0[field.index()]
    }

    /// Sets a field, cut to its width.
    #[inline]
    pub fn set(&mut self, field: VmcsField, value: u64) {
        self.0[field.index()] = value & field.width().mask();
    }

    /// Pin-based VM-execution controls.
    pub fn pin_based(&self) -> PinBasedControls {
        PinBasedControls::from_bits(self.get(VmcsField::PinBasedControls) as u32)
    }

    /// Primary processor-based VM-execution controls.
    pub fn primary(&self) -> PrimaryControls {
        PrimaryControls::from_bits(self.get(VmcsField::PrimaryProcessorBasedControls) as u32)
    }

    /// Secondary processor-based VM-execution controls; none where they are not activated.
    pub fn secondary(&self) -> SecondaryControls {
        if !self.primary().activate_secondary_controls() {
            return SecondaryControls::default();
        }
        SecondaryControls::from_bits(self.get(VmcsField::SecondaryProcessorBasedControls) as u32)
    }

    /// Tertiary processor-based VM-execution controls; none where they are not activated.
    pub fn tertiary(&self) -> TertiaryControls {
        if !self.primary().activate_tertiary_controls() {
            return TertiaryControls::default();
        }
        TertiaryControls::from_bits(self.get(VmcsField::TertiaryProcessorBasedControls))
    }

    /// Primary VM-exit controls.
    pub fn exit(&self) -> ExitControls {
        ExitControls::from_bits(self.get(VmcsField::PrimaryExitControls) as u32)
    }

    /// Secondary VM-exit controls; none where they are not activated.
    pub fn secondary_exit(&self) -> SecondaryExitControls {
        if !self.exit().activate_secondary_controls() {
            return SecondaryExitControls::default();
        }
        SecondaryExitControls::from_bits(self.get(VmcsField::SecondaryExitControls))
    }

    /// VM-entry controls.
    pub fn entry(&self) -> EntryControls {
        EntryControls::from_bits(self.get(VmcsField::EntryControls) as u32)
    }

    /// The event that VM entry is to inject.
    pub fn entry_event(&self) -> InterruptionInformation {
        InterruptionInformation::from_bits(self.get(VmcsField::EntryInterruptionInformation) as u32)
    }
}

/// A VMCS that is active on a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmcs {
    /// Launch state.
    pub launch_state: LaunchState,
    fields: Fields,
    unchecked: Phases,
    checked_with: Facts,
    controls_changed: bool,
}

/// Fields from which the core's interception follows, and what is kept with it.
const fn is_intercept_control(field: VmcsField) -> bool {
    matches!(
        field,
        VmcsField::PinBasedControls
            | VmcsField::PrimaryProcessorBasedControls
            | VmcsField::SecondaryProcessorBasedControls
            | VmcsField::ExceptionBitmap
            | VmcsField::PageFaultErrorCodeMask
            | VmcsField::PageFaultErrorCodeMatch
            | VmcsField::Cr0GuestHostMask
            | VmcsField::Cr0ReadShadow
            | VmcsField::Cr4GuestHostMask
            | VmcsField::Cr4ReadShadow
            | VmcsField::TprThreshold
            | VmcsField::ApicAccessAddress
    )
}

static INTERCEPT_CONTROLS: [bool; VmcsField::COUNT] = {
    let mut controls = [false; VmcsField::COUNT];
    let mut index = 0;
    while index < controls.len() {
        controls[index] = is_intercept_control(VmcsField::ALL[index]);
        index += 1;
    }
    controls
};

impl Default for Vmcs {
    fn default() -> Vmcs {
        Vmcs {
            launch_state: LaunchState::Clear,
            fields: Fields::default(),
            unchecked: Phases::ALL,
            checked_with: Facts::default(),
            controls_changed: true,
        }
    }
}

impl Vmcs {
    /// Reads a VMCS from the bytes of its region.
    pub fn from_region(bytes: &[u8; REGION_BYTES], supported: &SupportedFields) -> Vmcs {
        let mut vmcs = Vmcs::default();
        if bytes[LAUNCH_STATE] & 1 != 0 {
            vmcs.launch_state = LaunchState::Launched;
        }
        let mut rest = &bytes[FIRST_FIELD..];
        for field in stored(supported) {
            let (value, behind) = rest.split_at(field.width().bytes().into());
            vmcs.fields.set(field, value.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)));
            rest = behind;
        }
        vmcs
    }

    /// The bytes behind the revision identifier and the abort indicator, as VMCLEAR writes them to offset [`Vmcs::DATA`].
    pub fn to_region(&self, supported: &SupportedFields) -> Vec<u8> {
        let mut bytes = vec![0; FIRST_FIELD - LAUNCH_STATE];
        bytes[0] = u8::from(self.launch_state == LaunchState::Launched);
        for field in stored(supported) {
            bytes.extend(&self.fields.get(field).to_le_bytes()[..field.width().bytes().into()]);
        }
        bytes
    }

    /// Offset in the region of what [`Vmcs::to_region`] gives.
    pub const DATA: u64 = LAUNCH_STATE as u64;

    /// Value of a field.
    #[inline]
    pub fn get(&self, field: VmcsField) -> u64 {
        self.fields.get(field)
    }

    /// Sets a field, cut to its width, and remembers which checks must be made again.
    #[inline]
    pub fn set(&mut self, field: VmcsField, value: u64) {
        let value = value & field.width().mask();
        let change = self.fields.get(field) ^ value;
        if change != 0 {
            self.fields.set(field, value);
            if change & Phases::looked_at(field) != 0 {
                self.unchecked.add(Phases::reading(field));
            }
            self.controls_changed |= INTERCEPT_CONTROLS[field.index()];
        }
    }

    /// Whether a control that says what is intercepted has changed since this was last asked.
    pub fn take_controls_changed(&mut self) -> bool {
        std::mem::take(&mut self.controls_changed)
    }

    /// All fields.
    #[inline]
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The phases with a rule that may have been broken since it last held, given these facts.
    pub fn unchecked(&mut self, facts: &Facts) -> Phases {
        if self.checked_with != *facts {
            // The virtual TPR, which every exit may change, matters to the controls alone.
            let same = Facts { virtual_tpr: facts.virtual_tpr, ..self.checked_with } == *facts;
            self.unchecked.add(if same { Phases::CONTROLS } else { Phases::ALL });
            self.checked_with = *facts;
        }
        self.unchecked
    }

    /// Remembers that every rule of a phase holds.
    pub fn set_checked(&mut self, phase: crate::checks::Phase) {
        self.unchecked.remove(phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Phase;

    #[test]
    fn a_region_carries_the_whole_vmcs() {
        let mut vmcs = Vmcs { launch_state: LaunchState::Launched, ..Vmcs::default() };
        for (number, &field) in VmcsField::ALL.iter().enumerate() {
            vmcs.set(field, 0x0101_0101_0101_0101 * (number as u64 + 1));
        }
        let supported = [true; VmcsField::COUNT];
        let mut region = [0xee; REGION_BYTES];
        let data = vmcs.to_region(&supported);
        region[Vmcs::DATA as usize..][..data.len()].copy_from_slice(&data);
        let read = Vmcs::from_region(&region, &supported);
        assert_eq!(read.fields(), vmcs.fields());
        assert_eq!(read.launch_state, LaunchState::Launched);
    }

    #[test]
    fn a_change_asks_for_the_phases_that_read_the_field() {
        let mut vmcs = Vmcs::default();
        let facts = Facts { physical_address_width: 46, ..Facts::default() };
        for &phase in Phase::ALL {
            assert!(vmcs.unchecked(&facts).contains(phase));
            vmcs.set_checked(phase);
        }
        assert!(vmcs.unchecked(&facts).is_empty());
        vmcs.set(VmcsField::GuestRip, 0);
        assert!(vmcs.unchecked(&facts).is_empty(), "the value is the same");
        vmcs.set(VmcsField::GuestRip, 5);
        assert!(vmcs.unchecked(&facts).is_empty(), "no rule looks at the low half of RIP");
        vmcs.set(VmcsField::GuestRip, 5 << 32);
        assert!(vmcs.unchecked(&facts).contains(Phase::GuestRipRflags));
        assert!(!vmcs.unchecked(&facts).contains(Phase::GuestSegments));
        let others = Facts { host_long_mode: true, ..facts };
        assert_eq!(vmcs.unchecked(&others), Phases::ALL);
    }
}
