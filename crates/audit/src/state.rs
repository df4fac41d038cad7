//! A control structure that was read: the values, which of them the reading held, and where.
//!
//! Modelled: what every reader needs to fill one in and every report to tell of it. Not modelled: the forms themselves.

use crate::rule::Silicon;
use crate::spelling::{did_you_mean, is_plain_of, plain};
use crate::{linux, processor, svm_rules, vmx_rules};
use isa::svm::VMCB_SIZE;
use isa::vmx::VmcsField;
use models::{CpuModel, Vendor};
use std::ops::Range;
use vmx::checks::MsrLoad;
use zerocopy::IntoBytes as _;

/// The longest list of MSRs that IA32_VMX_MISC can recommend.
const LONGEST_MSR_LIST: usize = 4096;

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What is wrong, in words.
    pub message: String,
    /// Where in the text.
    pub place: Range<usize>,
}

impl ReadError {
    pub(crate) fn new(place: Range<usize>, message: impl Into<String>) -> ReadError {
        ReadError { message: message.into(), place }
    }
}

/// What form a control structure was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// JSON.
    Document,
    /// The text that Linux or Xen prints.
    Dump,
    /// A machine of ours.
    Machine,
}

impl Source {
    /// What a report calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Document => "document",
            Source::Dump => "dump",
            Source::Machine => "machine",
        }
    }
}

/// A VMCS or VMCB with what belongs to it, on a processor.
#[derive(Debug)]
pub struct State {
    /// The processor's vendor.
    pub vendor: Vendor,
    /// The processor.
    pub cpu: &'static CpuModel,
    /// What it was read from.
    pub source: Source,
    /// What to say about the reading beside the assessment: a line of a dump that was not understood, a dump that stops early.
    pub remarks: Vec<String>,
    pub(crate) silicon: Box<dyn Silicon>,
    /// For each word, whether the reading held it.
    pub(crate) known: Vec<bool>,
    /// For each word, where it stands.
    pub(crate) places: Vec<Option<Range<usize>>>,
    /// The entries of the VM-entry MSR-load list that the reading held, and where they stand.
    pub(crate) msr_loads: Vec<(MsrLoad, Range<usize>)>,
    /// The first of them that breaks a rule.
    pub(crate) stopped_at: Option<MsrLoad>,
}

impl State {
    /// A control structure of which nothing is known yet.
    ///
    /// # Errors
    /// The processor has not that vendor's extension.
    pub fn new(vendor: Vendor, cpu: Option<&'static CpuModel>, source: Source) -> Result<State, ReadError> {
        let cpu = cpu.unwrap_or(models::default_for(vendor));
        let silicon: Box<dyn Silicon> = match (vendor, &cpu.vmx, cpu.svm) {
            (Vendor::Intel, Some(capabilities), _) => Box::new(vmx_rules::Vmcs::new(cpu, processor::vmx(cpu, capabilities))),
            (Vendor::Amd, _, Some(capabilities)) => Box::new(svm_rules::Vmcb::new(cpu, capabilities.features)),
            (Vendor::Intel, None, _) => return Err(ReadError::new(0..0, format!("this is a VMCS, and {} has no VMX", cpu.name))),
            (Vendor::Amd, _, None) => return Err(ReadError::new(0..0, format!("this is a VMCB, and {} has no SVM", cpu.name))),
        };
        let words = silicon.words().len();
        Ok(State {
            vendor,
            cpu,
            source,
            remarks: Vec::new(),
            silicon,
            known: vec![false; words],
            places: vec![None; words],
            msr_loads: Vec::new(),
            stopped_at: None,
        })
    }

    /// A control structure on Trapline's own silicon of a CPU model, which offers no more than it does; all fields known and of assumed values.
    ///
    /// # Errors
    /// The processor has no extension of that vendor.
    pub fn on_machine(cpu: &'static CpuModel) -> Result<State, ReadError> {
        let mut state = State::new(cpu.vendor, Some(cpu), Source::Machine)?;
        state.silicon = match (&cpu.vmx, cpu.svm) {
            (Some(designed), _) => Box::new(vmx_rules::Vmcs::on_machine(cpu, vmx::capabilities::offered(designed))),
            (_, Some(designed)) => Box::new(svm_rules::Vmcb::on_machine(cpu, svm::capability::offered(designed).features)),
            (None, None) => state.silicon,
        };
        state.complete();
        Ok(state)
    }

    /// The VMCS with which the last VM entry of a processor of ours was refused, with everything else that its rules looked at.
    pub fn refused_by_vmx(cpu: &'static CpuModel, silicon: &vmx::Vmx) -> Option<State> {
        let refused = silicon.refused()?;
        let mut state = State::on_machine(cpu).ok()?;
        state.silicon = Box::new(vmx_rules::Vmcs::refused(cpu, silicon.capabilities().clone(), refused));
        state.known.fill(true);
        Some(state)
    }

    /// The VMCB with which the last VMRUN of a processor of ours was refused.
    pub fn refused_by_svm(cpu: &'static CpuModel, silicon: &svm::Svm) -> Option<State> {
        let refused = silicon.refused()?;
        let mut state = State::on_machine(cpu).ok()?;
        let mut block = svm_rules::Vmcb::on_machine(cpu, silicon.capabilities().features);
        block.load(refused.as_bytes().try_into().ok()?);
        state.silicon = Box::new(block);
        Some(state)
    }

    /// A VMCB of these bytes, all of it known.
    ///
    /// # Errors
    /// The processor has no SVM.
    pub fn vmcb(bytes: &[u8; VMCB_SIZE], cpu: Option<&'static CpuModel>, source: Source) -> Result<State, ReadError> {
        let mut state = State::new(Vendor::Amd, cpu, source)?;
        let features = state.cpu.svm.map(|capabilities| capabilities.features).unwrap_or_default();
        let mut block = svm_rules::Vmcb::new(state.cpu, features);
        block.load(bytes);
        state.silicon = Box::new(block);
        state.complete();
        Ok(state)
    }

    /// The number of the word with this name, however it is spelled: `GuestCr4`, `guest_cr4`, "Guest CR4", `0x6804`, `CS.ATTRIB`.
    pub fn find(&self, name: &str) -> Option<usize> {
        let wanted = plain(name);
        let words = self.silicon.words();
        if self.vendor == Vendor::Intel
            && let Some(digits) = wanted.strip_prefix("0x")
            && let Ok(encoding) = u16::from_str_radix(digits, 16)
        {
            return VmcsField::from_encoding(encoding).map(VmcsField::index);
        }
        let called = |wanted: &str| words.iter().position(|word| is_plain_of(wanted, &word.name) || is_plain_of(wanted, &word.title));
        called(&wanted).or_else(|| match self.vendor {
            Vendor::Intel => linux::vmcs_field(name).map(VmcsField::index),
            Vendor::Amd => called(&plain(&linux::vmcb_word(name))),
        })
    }

    /// Sets a word that the reading holds.
    ///
    /// # Errors
    /// There is no word of that name, or the value does not fit.
    pub fn set(&mut self, name: &str, value: u64, place: Range<usize>) -> Result<(), ReadError> {
        // Linux has the two halves of V_INTR apart.
        let half = match (self.vendor, plain(&linux::vmcb_word(name)).as_str()) {
            (Vendor::Amd, "intctl") => Some(0),
            (Vendor::Amd, "intvector") => Some(32),
            _ => None,
        };
        if let Some(shift) = half {
            if value >> 32 != 0 {
                return Err(ReadError::new(place, format!("{} has 32 bits; {value:#x} does not fit", cut(name))));
            }
            let others = self.known("V_INTR").unwrap_or(0) & !(0xffff_ffff << shift);
            return self.set("V_INTR", others | value << shift, place);
        }
        let Some(word) = self.find(name) else {
            let names = self.silicon.words().iter().map(|word| word.name.as_str());
            return Err(ReadError::new(place, format!("there is no field `{}`.{}", cut(name), did_you_mean(name, names))));
        };
        let row = &self.silicon.words()[word];
        if value & !row.mask != 0 {
            let bits = row.mask.count_ones();
            return Err(ReadError::new(
                place,
                format!("{} has {bits} bit{}; {value:#x} does not fit", row.name, if bits == 1 { "" } else { "s" }),
            ));
        }
        self.silicon.set(word, value);
        self.known[word] = true;
        self.places[word] = Some(place);
        Ok(())
    }

    /// Adds an entry of the VM-entry MSR-load list.
    ///
    /// # Errors
    /// The list is longer than any processor recommends.
    pub fn add_msr_load(&mut self, index: u32, reserved: u32, value: u64, place: Range<usize>) -> Result<(), ReadError> {
        if self.msr_loads.len() >= LONGEST_MSR_LIST {
            return Err(ReadError::new(place, format!("no processor recommends a list of more than {LONGEST_MSR_LIST} MSRs")));
        }
        let number = self.msr_loads.len() as u32 + 1;
        self.msr_loads.push((MsrLoad { number, index, reserved, value, refused: false }, place));
        Ok(())
    }

    /// Takes every field that the reading did not hold for known, with the value it has. What lies in memory stays unknown.
    pub fn complete(&mut self) {
        let fields = self.silicon.fields();
        self.known[..fields].fill(true);
    }

    /// Value of a word that the reading held.
    pub fn known(&self, name: &str) -> Option<u64> {
        let word = self.find(name)?;
        self.known[word].then(|| self.silicon.get(word))
    }
}

/// A name from a hostile text, short enough to be shown.
pub(crate) fn cut(name: &str) -> String {
    let mut short: String = name.chars().take(60).map(|character| if character.is_control() { ' ' } else { character }).collect();
    if short.len() < name.len() && name.chars().count() > 60 {
        short.push_str("...");
    }
    short
}
