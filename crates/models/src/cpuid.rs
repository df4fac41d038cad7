//! What CPUID answers on a processor of a model.
//!
//! What is modelled: SDM vol 2, "CPUID"; APM vol 3, appendix E "Obtaining Processor Information Via the CPUID Instruction". Feature
//! words come from the model's list of features; vendor, brand, topology, caches, address widths and state components are computed; what
//! follows from nothing else is a row of the model. Topology: one package, one thread in each core, APIC IDs from zero.
//!
//! Leaves outside the range: Intel answers with the highest basic leaf, AMD with zeros; 4000_0000 and up are outside, since no hypervisor
//! answers here.
//!
//! What is not: TLB geometry (AMD 8000_0005 and 8000_0006 report none), thermal and performance leaves, SGX, processor trace.

use crate::cache::{Cache, CacheKind};
use crate::model::{CpuModel, Vendor};
use isa::control::xcr0;
use isa::cpuid::{CpuidResult, Feature, Output};
use isa::svm::cpuid::{SVM_LEAF, SVM_REVISION};

/// A leaf that is a constant of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidRow {
    /// EAX at the instruction. Any subleaf gets the same answer.
    pub leaf: u32,
    /// The answer.
    pub value: CpuidResult,
    /// What the numbers say.
    pub doc: &'static str,
}

/// What CPUID's answer depends on besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidContext {
    /// The processor's initial APIC ID.
    pub apic_id: u32,
    /// Processors in the machine, at least one.
    pub cpu_count: u32,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub ospke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_APIC_BASE bit 11: the local APIC is globally enabled.
    pub apic_enabled: bool,
    /// The processor is in 64-bit mode (IA32_EFER.LMA and CS.L).
    pub in_64_bit_mode: bool,
}

impl Default for CpuidContext {
    /// The only processor of a machine, in 64-bit mode, without XSAVE.
    fn default() -> Self {
        Self { apic_id: 0, cpu_count: 1, osxsave: false, ospke: false, xcr0: xcr0::X87, apic_enabled: true, in_64_bit_mode: true }
    }
}

/// Where the extended leaves begin.
const EXTENDED: u32 = 0x8000_0000;
/// Features of leaf 1's EDX that AMD repeats in EDX of leaf 8000_0001: bits 0 to 9, 12 to 17, 23 and 24 (APM vol 3, E.4.2).
const REPEATED_BY_AMD: u32 = 0x0183_f3ff;
/// Leaf 1, ECX: the operating system has set CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 7, ECX: the operating system has set CR4.PKE.
const OSPKE: u32 = 1 << 4;
/// Leaf 1, EDX: EBX has the number of logical processors.
const HTT: u32 = 1 << 28;
/// Leaf 8000_0001, ECX (AMD): the logical processors are cores.
const CMP_LEGACY: u32 = 1 << 1;
/// Bytes of the legacy region and the header of an XSAVE area (SDM vol 1, 13.4.1 and 13.4.2).
const XSAVE_LEGACY_AND_HEADER: u32 = 512 + 64;
/// Bytes of the state component PKRU.
const PKRU_BYTES: u32 = 8;

impl CpuModel {
    /// What CPUID answers for `leaf` (EAX) and `subleaf` (ECX).
    pub fn cpuid(&self, leaf: u32, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        let inside = leaf <= self.maximum_basic_leaf || (EXTENDED..=self.maximum_extended_leaf).contains(&leaf);
        if inside {
            return self.leaf(leaf, subleaf, context);
        }
        match self.vendor {
            // SDM vol 2, "CPUID": "If a value entered for CPUID.EAX is higher than the maximum input value for basic or extended
            // function for that processor then the data for the highest basic information leaf is returned."
            Vendor::Intel => self.leaf(self.maximum_basic_leaf, subleaf, context),
            // APM vol 3, "CPUID": a function that is not implemented returns zeros.
            Vendor::Amd => CpuidResult::default(),
        }
    }

    /// The feature bits of a leaf, before anything is computed into it.
    pub(crate) fn feature_words(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let mut words = CpuidResult::default();
        for feature in self.cpuid_features {
            let (at, sub, output, bit) = feature.place();
            if (at, sub) == (leaf, subleaf) {
                let word = match output {
                    Output::Eax => &mut words.eax,
                    Output::Ebx => &mut words.ebx,
                    Output::Ecx => &mut words.ecx,
                    Output::Edx => &mut words.edx,
                };
                *word |= 1 << bit;
            }
        }
        if let (SVM_LEAF, Some(svm)) = (leaf, self.svm) {
            words.edx |= svm.features.into_bits();
        }
        words
    }

    /// A leaf inside the range.
    fn leaf(&self, leaf: u32, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        if let Some(row) = self.cpuid_rows.iter().find(|row| row.leaf == leaf) {
            return row.value;
        }
        let intel = self.vendor == Vendor::Intel;
        let count = context.cpu_count.max(1);
        match leaf {
            0 => self.vendor_leaf(self.maximum_basic_leaf, true),
            1 => self.leaf_1(count, context),
            4 if intel => {
                self.caches.get(subleaf as usize).map_or_else(CpuidResult::default, |cache| cache.parameters(core_ids(count), true))
            }
            7 if subleaf != 0 => CpuidResult::default(),
            7 => {
                let words = self.feature_words(7, 0);
                CpuidResult { ecx: words.ecx | if context.ospke { OSPKE } else { 0 }, ..words }
            }
            0xb => topology(count, subleaf, context.apic_id),
            0xd if self.has(Feature::Xsave) => self.leaf_d(subleaf, context.xcr0),
            EXTENDED => self.vendor_leaf(self.maximum_extended_leaf, !intel),
            0x8000_0001 => self.leaf_8000_0001(count, context),
            0x8000_0002..=0x8000_0004 => self.brand_leaf(leaf - 0x8000_0002),
            0x8000_0005 if !intel => CpuidResult {
                ecx: self.cache(1, CacheKind::Data).map_or(0, |cache| cache.amd_level_1()),
                edx: self.cache(1, CacheKind::Instruction).map_or(0, |cache| cache.amd_level_1()),
                ..CpuidResult::default()
            },
            0x8000_0006 => CpuidResult {
                ecx: self.cache(2, CacheKind::Unified).map_or(0, |cache| cache.level_2(u32::from(!intel))),
                edx: if intel { 0 } else { self.cache(3, CacheKind::Unified).map_or(0, |cache| cache.amd_level_3()) },
                ..CpuidResult::default()
            },
            0x8000_0008 => CpuidResult {
                eax: u32::from(self.physical_address_bits) | u32::from(self.linear_address_bits) << 8,
                ebx: self.feature_words(leaf, 0).ebx,
                ecx: if intel { 0 } else { (count - 1).min(0xff) | core_ids(count).trailing_zeros().min(0xf) << 12 },
                // The highest ECX of RDPRU: APERF.
                edx: if self.has(Feature::Rdpru) { 1 << 16 } else { 0 },
            },
            SVM_LEAF => self.svm.map_or_else(CpuidResult::default, |svm| CpuidResult {
                eax: u32::from(SVM_REVISION),
                ebx: svm.asids,
                ..self.feature_words(SVM_LEAF, 0)
            }),
            0x8000_001d if self.has(Feature::Topoext) => {
                self.caches.get(subleaf as usize).map_or_else(CpuidResult::default, |cache| cache.parameters(core_ids(count), false))
            }
            // Extended APIC ID; the compute unit (here: the core) with its one thread; node 0 of one.
            0x8000_001e if self.has(Feature::Topoext) => {
                CpuidResult { eax: context.apic_id, ebx: context.apic_id & 0xff, ..CpuidResult::default() }
            }
            _ => self.feature_words(leaf, subleaf),
        }
    }

    /// The highest leaf, and the vendor's name in EBX, EDX, ECX.
    fn vendor_leaf(&self, maximum: u32, named: bool) -> CpuidResult {
        let name = if named { self.vendor.signature() } else { &[0; 12] };
        let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
        CpuidResult { eax: maximum, ebx: word(0), ecx: word(8), edx: word(4) }
    }

    /// Signature, initial APIC ID, CLFLUSH line size, features.
    fn leaf_1(&self, count: u32, context: &CpuidContext) -> CpuidResult {
        let words = self.feature_words(1, 0);
        let line = if self.has(Feature::Clfsh) { self.caches.first().map_or(0, |cache| cache.line_bytes / 8) } else { 0 };
        // Intel counts the IDs set aside for the package, AMD the processors.
        let logical = if self.vendor == Vendor::Intel { core_ids(count) } else { count };
        let mut edx = words.edx;
        if count > 1 {
            edx |= HTT;
        }
        if !context.apic_enabled {
            edx &= !(1 << Feature::Apic.place().3);
        }
        CpuidResult {
            eax: self.signature,
            ebx: line << 8 | logical.min(0xff) << 16 | (context.apic_id & 0xff) << 24,
            ecx: words.ecx | if context.osxsave { OSXSAVE } else { 0 },
            edx,
        }
    }

    /// State components of XSAVE: x87 and SSE, both in the legacy region, and PKRU where the processor has protection keys. XSAVEOPT and its
    /// kin are features of their own.
    fn leaf_d(&self, subleaf: u32, enabled: u64) -> CpuidResult {
        let keys = self.has(Feature::Pku);
        let size = |components: u64| if components & xcr0::PKRU != 0 { self.pkru_offset() + PKRU_BYTES } else { XSAVE_LEGACY_AND_HEADER };
        let all = xcr0::X87 | xcr0::SSE | if keys { xcr0::PKRU } else { 0 };
        match subleaf {
            0 => CpuidResult { eax: all as u32, ebx: size(enabled & all), ecx: size(all), edx: 0 },
            9 if keys => CpuidResult { eax: PKRU_BYTES, ebx: self.pkru_offset(), ..CpuidResult::default() },
            _ => self.feature_words(0xd, subleaf),
        }
    }

    /// Where PKRU lies in an XSAVE area of the standard format, in bytes: behind the components that the real processors have before it,
    /// whether they are modelled or not.
    #[must_use]
    pub const fn pkru_offset(&self) -> u32 {
        match self.vendor {
            // Behind AVX, MPX and AVX-512.
            Vendor::Intel => 2688,
            // Behind AVX.
            Vendor::Amd => 2432,
        }
    }

    /// Extended features.
    fn leaf_8000_0001(&self, count: u32, context: &CpuidContext) -> CpuidResult {
        let mut words = self.feature_words(0x8000_0001, 0);
        match self.vendor {
            // SDM vol 2, "CPUID", leaf 80000001H: SYSCALL/SYSRET are reported in 64-bit mode only.
            Vendor::Intel => {
                if !context.in_64_bit_mode {
                    words.edx &= !(1 << Feature::Syscall.place().3);
                }
            }
            Vendor::Amd => {
                words.eax = self.signature;
                words.edx |= self.leaf_1(count, context).edx & REPEATED_BY_AMD;
                if count > 1 {
                    words.ecx |= CMP_LEGACY;
                }
            }
        }
        words
    }

    /// Sixteen characters of the brand string.
    fn brand_leaf(&self, part: u32) -> CpuidResult {
        let mut text = [0u8; 48];
        let length = self.brand.len().min(47);
        text[..length].copy_from_slice(&self.brand.as_bytes()[..length]);
        let word = |index: usize| {
            let at = part as usize * 16 + index * 4;
            u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]])
        };
        CpuidResult { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) }
    }

    /// The cache of a level and kind.
    fn cache(&self, level: u8, kind: CacheKind) -> Option<&Cache> {
        self.caches.iter().find(|cache| (cache.level, cache.kind) == (level, kind))
    }
}

/// APIC IDs set aside for the cores of the package: the count, rounded up to a power of two.
fn core_ids(count: u32) -> u32 {
    count.checked_next_power_of_two().unwrap_or(1 << 31)
}

/// Leaf 0BH: level 0 is the threads of a core (one), level 1 the cores of the package.
fn topology(count: u32, subleaf: u32, apic_id: u32) -> CpuidResult {
    const SMT: u32 = 1;
    const CORE: u32 = 2;
    let level = subleaf & 0xff;
    let (shift, processors, kind) = match subleaf {
        0 => (0, 1, SMT),
        1 => (core_ids(count).trailing_zeros(), count.min(0xffff), CORE),
        _ => (0, 0, 0),
    };
    CpuidResult { eax: shift, ebx: processors, ecx: level | kind << 8, edx: apic_id }
}
