//! The SVM hardware of a processor as a record: what a checkpoint keeps of it.
//!
//! What is modelled: everything of SVM that lies in the processor and not in memory: GIF, the host behind VMRUN, the areas of the VMCB whose
//! guest runs and what clean bits keep of them, the PAUSE filter. What follows from these is found anew: limits of the checks, the translation of the intercept words,
//! contexts of the engine.

use std::collections::BTreeMap;

use cpu::state::{Cpu, Impossible};
use isa::svm::layout::Field;
use isa::svm::msr::{TscRatio, VmCr};
use isa::svm::{CleanBits, ControlArea, SaveArea};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use crate::address_space::Contexts;
use crate::intercept::Translator;
use crate::last_branches::Records;
use crate::npt::NestedRoot;
use crate::pause::PauseFilter;
use crate::{Host, Svm, check};

/// An area of a VMCB: the words that are not zero, by the manual's name of the field; the later words of a longer field as `NAME+8`, and a
/// word that no field has as `+0x18`.
pub type AreaRecord = BTreeMap<String, u64>;

/// The SVM hardware of a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SvmRecord {
    /// VM_CR.
    pub vm_cr: u64,
    /// VM_HSAVE_PA.
    pub hsave_pa: u64,
    /// TSC Ratio.
    pub tsc_ratio: u64,
    /// The global interrupt flag.
    pub gif: bool,
    /// Physical address of the VMCB whose guest runs, or ran last.
    pub vmcb: u64,
    /// The VMCB of which the areas are what a #VMEXIT left: what clean bits let VMRUN keep.
    pub kept: Option<u64>,
    /// The clean bits that the last VMRUN obeyed.
    pub clean: u32,
    /// The save area holds last-branch registers of the VMCB that is kept.
    pub branches_kept: bool,
    /// Its control area as it was at VMRUN and then at #VMEXIT.
    pub control: AreaRecord,
    /// Its save area, likewise.
    pub save: AreaRecord,
    /// The nested tables of the guest.
    pub nested: Option<NestedRoot>,
    /// The host behind VMRUN.
    pub host: Host,
    /// Its last-branch records, while the guest has its own.
    pub host_branches: Option<Records>,
    /// The filter in front of the PAUSE intercept.
    pub pause_filter: PauseFilter,
    /// How many #VMEXITs there were.
    pub exits: u64,
    /// The rule that the last VMRUN broke.
    pub last_failure: Option<String>,
}

/// Names and places of the words of an area, in ascending order.
fn words(fields: &'static [Field], size: usize) -> impl Iterator<Item = (String, std::ops::Range<usize>)> {
    let mut at = 0;
    let mut rest = fields.iter().peekable();
    std::iter::from_fn(move || {
        if at >= size {
            return None;
        }
        while rest.next_if(|field| field.offset + field.size <= at).is_some() {}
        let (name, end) = match rest.peek() {
            Some(field) if field.offset == at => (field.name.to_owned(), (at + 8).min(field.offset + field.size)),
            Some(field) if field.offset < at => (format!("{}+{}", field.name, at - field.offset), (at + 8).min(field.offset + field.size)),
            next => (format!("+{at:#x}"), (at + 8).min(next.map_or(size, |field| field.offset))),
        };
        let range = at..end;
        at = end;
        Some((name, range))
    })
}

fn area_record(fields: &'static [Field], bytes: &[u8]) -> AreaRecord {
    let value = |range: std::ops::Range<usize>| bytes[range].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    words(fields, bytes.len()).map(|(name, range)| (name, value(range))).filter(|(_, value)| *value != 0).collect()
}

fn fill_area(fields: &'static [Field], record: &AreaRecord, bytes: &mut [u8]) -> Result<(), Impossible> {
    bytes.fill(0);
    let mut left = record.len();
    for (name, range) in words(fields, bytes.len()) {
        let Some(value) = record.get(&name) else { continue };
        left -= 1;
        let width = range.len();
        if width < 8 && value >> (8 * width) != 0 {
            return Err(Impossible(format!("{value:#x} in {name} of a VMCB, which has {width} bytes")));
        }
        bytes[range].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    if left == 0 { Ok(()) } else { Err(Impossible("words of a VMCB that it does not have".to_owned())) }
}

impl Svm {
    /// The state; only between runs.
    #[must_use]
    pub fn to_record(&self) -> SvmRecord {
        // A new field has to be placed: in the record, or among what follows from it.
        let Self {
            vm_cr,
            hsave_pa,
            tsc_ratio,
            gif,
            vmcb,
            kept,
            clean,
            branches_kept,
            control,
            save,
            nested,
            host,
            host_branches,
            pause_filter,
            exits,
            last_failure,
            // From the model.
            capabilities: _,
            limits: _,
            // From the control area.
            translator: _,
            // Caches of the host.
            contexts: _,
        } = self;
        SvmRecord {
            vm_cr: vm_cr.into_bits(),
            hsave_pa: *hsave_pa,
            tsc_ratio: tsc_ratio.into_bits(),
            gif: *gif,
            vmcb: *vmcb,
            kept: *kept,
            clean: clean.into_bits(),
            branches_kept: *branches_kept,
            control: area_record(ControlArea::FIELDS, control.as_bytes()),
            save: area_record(SaveArea::FIELDS, save.as_bytes()),
            nested: *nested,
            host: *host,
            host_branches: *host_branches,
            pause_filter: *pause_filter,
            exits: *exits,
            last_failure: last_failure.map(|check| check.id.to_owned()),
        }
    }

    /// Takes up the state of a record, on a processor that was just made and whose own record was taken up already.
    ///
    /// # Errors
    /// The record is of a state that SVM cannot be in.
    pub fn restore(&mut self, cpu: &Cpu, record: &SvmRecord) -> Result<(), Impossible> {
        if record.nested.is_some_and(|nested| !(2..=4).contains(&nested.levels) || nested.physical_bits > 52) {
            return Err(Impossible("nested tables of a format that there is not".to_owned()));
        }
        if cpu.nested_paging && (record.nested.is_none() || !cpu.guest_mode) {
            return Err(Impossible("nested paging without nested tables, or without a guest".to_owned()));
        }
        // No processor lives to count so many, and a counter that ran over would be a defect of ours.
        if record.exits >> 62 != 0 {
            return Err(Impossible(format!("{:#x} exits", record.exits)));
        }
        if record.vmcb & 0xfff != 0 || record.vmcb >> 52 != 0 {
            return Err(Impossible(format!("a VMCB at {:#x}", record.vmcb)));
        }
        if record.kept.is_some_and(|kept| kept != record.vmcb) {
            return Err(Impossible("another VMCB is kept than the one whose guest ran last".to_owned()));
        }
        let find = |id: &String| {
            let found = check::CHECKS.iter().find(|check| check.id == id);
            found.ok_or_else(|| Impossible(format!("a broken rule `{id}`, which there is not")))
        };
        self.last_failure = record.last_failure.as_ref().map(find).transpose()?;
        let mut bytes = [0; size_of::<ControlArea>()];
        fill_area(ControlArea::FIELDS, &record.control, &mut bytes)?;
        *self.control = ControlArea::read_from_bytes(&bytes).unwrap_or_else(|_| ControlArea::zeroed());
        let mut bytes = [0; size_of::<SaveArea>()];
        fill_area(SaveArea::FIELDS, &record.save, &mut bytes)?;
        *self.save = SaveArea::read_from_bytes(&bytes).unwrap_or_else(|_| SaveArea::zeroed());
        self.vm_cr = VmCr::from_bits(record.vm_cr);
        self.hsave_pa = record.hsave_pa;
        self.tsc_ratio = TscRatio::from_bits(record.tsc_ratio);
        self.gif = record.gif;
        self.vmcb = record.vmcb;
        self.kept = record.kept;
        self.clean = CleanBits::from_bits(record.clean);
        self.branches_kept = record.branches_kept;
        self.nested = record.nested;
        self.host = record.host;
        self.host_branches = record.host_branches;
        self.pause_filter = record.pause_filter;
        self.exits = record.exits;
        self.limits = None;
        self.translator = Translator::new();
        self.contexts = Contexts::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_an_area_is_in_its_record() {
        let check = |fields, size: usize| {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8 + 1).collect();
            let record = area_record(fields, &bytes);
            let mut again = vec![0xee; size];
            fill_area(fields, &record, &mut again).unwrap();
            assert_eq!(bytes, again);
        };
        check(ControlArea::FIELDS, size_of::<ControlArea>());
        check(SaveArea::FIELDS, size_of::<SaveArea>());
        let mut control = ControlArea::zeroed();
        control.guest_asid = 7;
        assert_eq!(area_record(ControlArea::FIELDS, control.as_bytes()), AreaRecord::from([("GUEST_ASID".to_owned(), 7)]));
    }

    #[test]
    fn words_that_do_not_exist_or_do_not_fit_are_refused() {
        let mut bytes = [0; size_of::<ControlArea>()];
        for (name, value) in [("NO_SUCH_FIELD", 1), ("GUEST_ASID", 1 << 32)] {
            assert!(fill_area(ControlArea::FIELDS, &AreaRecord::from([(name.to_owned(), value)]), &mut bytes).is_err(), "{name}");
        }
    }
}
