//! What the source tells of its guest before it sends any of it, and whether a destination takes it.
//!
//! Modelled: a destination refuses a guest that its processors cannot run, one that was told of features or of address bits that they lack, one
//! that is too large, and memory that would have to follow the guest where it runs under shadow paging.
//! Not modelled: what a destination is short of because of its other guests, but for the fault `out-of-memory`.

use crate::fault::{AnyFault, HostFault};
use crate::live::{Convergence, Mode, Settings};
use crate::protocol::{Offer, VERSION};
use hypervisor::ledger::{self, Verdict};
use hypervisor::{AnyVm, Paging};
use isa::cpuid::Feature;
use models::CpuModel;
use serde::Serialize;

/// What a destination does about features that a guest was told of and that its processors lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingFeatures {
    /// It refuses the guest, as libvirt does before QEMU hears of it. Those that the hypervisor provides are not missing.
    #[default]
    Refuse,
    /// It takes the guest, which finds out when it uses them; the ledger tells which.
    Accept,
}

/// What a move would come to, before it is made.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What the source would say.
    pub offer: Offer,
    /// Why the destination would refuse it.
    pub refusal: Option<String>,
    /// What would be lost on the way, and there.
    pub ledger: ledger::Check,
}

/// Asks what a move would come to. The guest does not notice.
pub fn check(vm: &mut AnyVm, settings: &Settings) -> Check {
    let offer = Offer::of(vm, settings);
    let refusal = Destination::new(settings, vm.options().paging).judge(&offer).err();
    Check { offer, refusal, ledger: vm.check(settings.to) }
}

impl Offer {
    /// What is said of a guest.
    pub(crate) fn of(vm: &AnyVm, settings: &Settings) -> Self {
        let guest = vm.guest_cpu();
        let features = guest.features();
        Self {
            version: VERSION,
            from: vm.model().name.to_owned(),
            guest: guest.model.name.to_owned(),
            features: Feature::ALL.iter().filter(|feature| features & feature.bit() != 0).map(|feature| feature.name()).collect(),
            address_bits: guest.physical_address_bits(),
            cpus: vm.cpu_count(),
            pages: vm.ram().iter().map(|range| (range.end - range.start) >> 12).sum(),
            post_copy: settings.mode == Mode::PostCopy || settings.convergence == Convergence::PostCopy,
        }
    }
}

/// Who is asked.
pub(crate) struct Destination<'s> {
    model: &'static CpuModel,
    paging: Option<Paging>,
    missing: MissingFeatures,
    faults: &'s [AnyFault],
}

impl<'s> Destination<'s> {
    /// The host of a move, with the paging that user space gives the guest on both sides.
    pub fn new(settings: &'s Settings, paging: Option<Paging>) -> Self {
        Self { model: settings.to, paging, missing: settings.missing_features, faults: &settings.faults }
    }

    /// Whether a guest can be taken. The error is the reason for a refusal.
    pub fn judge(&self, offer: &Offer) -> Result<(), String> {
        if offer.version > VERSION {
            return Err(format!("protocol version {}, and {VERSION} is the newest known here", offer.version));
        }
        hypervisor::check_model(self.model, self.paging).map_err(|error| error.to_string())?;
        if offer.pages == 0 || offer.pages > hypervisor::MAXIMUM_MEMORY >> 12 {
            return Err(format!("{} pages of memory", offer.pages));
        }
        if offer.post_copy && hypervisor::shadows(self.model, self.paging) {
            return Err("memory cannot follow the guest there, which runs under shadow paging: move it by pre-copy".to_owned());
        }
        for fault in self.faults {
            if let AnyFault::Host(HostFault::Refuse { feature }) = fault
                && offer.features.contains(feature)
            {
                return Err(format!("the guest was told of the feature {feature}, which is not offered here"));
            }
        }
        match self.missing {
            MissingFeatures::Refuse => self.judge_features(offer),
            MissingFeatures::Accept => Ok(()),
        }
    }

    fn judge_features(&self, offer: &Offer) -> Result<(), String> {
        let mut told = 0;
        for name in &offer.features {
            told |=
                Feature::from_name(name).ok_or_else(|| format!("the guest was told of the feature {name}, which nobody knows here"))?.bit();
        }
        let lost = ledger::lacking(told, self.model).filter(|(_, verdict, _)| *verdict == Verdict::Lost);
        let mut lost: Vec<String> = lost.map(|(feature, ..)| feature.name()).collect();
        if offer.address_bits > self.model.physical_address_bits {
            lost.push(format!("{} bits of physical addresses", offer.address_bits));
        }
        if lost.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the guest was told of {}, which {} lacks: level its CPUID, or have it taken all the same",
            lost.join(", "),
            self.model.name
        ))
    }
}
