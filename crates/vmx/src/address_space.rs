//! Which cached translations belong together: the tags that VPIDs and EPT pointers give to entries of the TLB.
//!
//! Modelled: SDM 29.4 "Caching Translation Information". Linear mappings are tagged by VPID, combined mappings by VPID and EPT root
//! (bits 51:12 of the EPT pointer); each pair that a VM entry used gets a number that the core's TLB knows. Number 0 is the host's: VPID 0
//! without EPT. Not modelled: guest-physical mappings apart from combined ones, so INVVPID removes no more than it must.

use cpu::state::Impossible;
use cpu::tlb::Tlb;
use serde::{Deserialize, Serialize};

/// Most pairs that are remembered.
const MOST: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    vpid: u16,
    /// Root of EPT, or `None` without EPT.
    ept_root: Option<u64>,
}

/// The numbers given so far.
#[derive(Clone, Debug, Default)]
pub struct AddressSpaces {
    /// The pair with number `index + 1`.
    pairs: Vec<Pair>,
    /// Index of the pair that was asked for last.
    last: usize,
}

/// The pairs in order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSpacesRecord(Vec<Pair>);

impl AddressSpaces {
    /// What a checkpoint keeps.
    pub(crate) fn record(&self) -> AddressSpacesRecord {
        AddressSpacesRecord(self.pairs.clone())
    }

    /// The numbers as they were given.
    pub(crate) fn of_record(record: &AddressSpacesRecord) -> Result<Self, Impossible> {
        if record.0.len() > MOST {
            return Err(Impossible(format!("{} address spaces", record.0.len())));
        }
        Ok(Self { pairs: record.0.clone(), last: 0 })
    }

    /// Whether no new pair can be remembered: then all are to be forgotten, with what is cached of them.
    pub fn is_full(&self) -> bool {
        self.pairs.len() >= MOST
    }

    /// The number of a pair; a new one where the pair is new.
    pub fn number(&mut self, vpid: u16, ept_root: Option<u64>) -> u32 {
        let pair = Pair { vpid, ept_root };
        if pair == (Pair { vpid: 0, ept_root: None }) {
            return 0;
        }
        if self.pairs.get(self.last) != Some(&pair) {
            self.last = self.pairs.iter().position(|known| *known == pair).unwrap_or_else(|| {
                self.pairs.push(pair);
                self.pairs.len() - 1
            });
        }
        self.last as u32 + 1
    }

    fn select(&self, belongs: impl Fn(&Pair) -> bool) -> impl Iterator<Item = u32> {
        self.pairs.iter().enumerate().filter(move |(_, pair)| belongs(pair)).map(|(index, _)| index as u32 + 1)
    }

    /// Numbers of the address spaces with this VPID.
    pub fn with_vpid(&self, vpid: u16) -> impl Iterator<Item = u32> {
        self.select(move |pair| pair.vpid == vpid)
    }

    /// Numbers of the address spaces with a VPID that is not 0.
    pub fn with_any_vpid(&self) -> impl Iterator<Item = u32> {
        self.select(|pair| pair.vpid != 0)
    }

    /// Numbers of the address spaces with this EPT root.
    pub fn with_ept_root(&self, root: u64) -> impl Iterator<Item = u32> {
        self.select(move |pair| pair.ept_root == Some(root))
    }

    /// Numbers of the address spaces with any EPT.
    pub fn with_any_ept(&self) -> impl Iterator<Item = u32> {
        self.select(|pair| pair.ept_root.is_some())
    }

    /// Removes what is cached for VPID 0, the host's included, as VM entries and VM exits without "enable VPID" do.
    ///
    /// SDM 29.4.3.1 "Operations that Invalidate Cached Mappings".
    pub fn flush_vpid_0(&self, tlb: &mut Tlb) {
        tlb.flush_address_space(0);
        for number in self.with_vpid(0) {
            tlb.flush_address_space(number);
        }
    }
}
