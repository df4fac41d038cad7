//! The models against themselves: what CPUID says in one place must agree with what it says in another.

use isa::cpuid::{CpuidResult, Feature};
use isa::vmx::{AllowedSettings, CapabilityMsr, VmxCapabilities};
use models::{CpuModel, CpuidContext, MODELS, Vendor, default_for, find};

fn processor(apic_id: u32, cpu_count: u32) -> CpuidContext {
    CpuidContext { apic_id, cpu_count, ..CpuidContext::default() }
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned()
}

#[test]
fn models_are_found_by_name_and_the_error_lists_them() {
    for model in MODELS {
        assert_eq!(find(model.name).unwrap().name, model.name);
        assert_eq!(model.costs.name, model.name, "a model has the costs of its own processor");
    }
    assert_eq!(find("i486").unwrap_err().to_string(), "no CPU model `i486`; there are merom, k8-rev-f, skylake-server, zen3");
    for vendor in [Vendor::Intel, Vendor::Amd] {
        assert_eq!(default_for(vendor).vendor, vendor);
    }
}

#[test]
fn vendor_brand_and_signature_are_read_as_software_reads_them() {
    let rows = [
        ("merom", "GenuineIntel", "Intel(R) Core(TM)2 CPU         T7200  @ 2.00GHz", (6, 0x0f, 6)),
        ("k8-rev-f", "AuthenticAMD", "AMD Athlon(tm) 64 X2 Dual Core Processor 4600+", (0xf, 0x43, 2)),
        ("skylake-server", "GenuineIntel", "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", (6, 0x55, 4)),
        ("zen3", "AuthenticAMD", "AMD EPYC 7313 16-Core Processor", (0x19, 1, 1)),
    ];
    for (name, vendor, brand, identity) in rows {
        let model = find(name).unwrap();
        let leaf = |leaf| model.cpuid(leaf, 0, &processor(0, 1));
        let first = leaf(0);
        assert_eq!(text(&[first.ebx, first.edx, first.ecx]), vendor);
        let words: Vec<u32> = (0x8000_0002..=0x8000_0004).map(leaf).flat_map(|l| [l.eax, l.ebx, l.ecx, l.edx]).collect();
        assert_eq!(text(&words), brand);
        assert!(model.brand.len() < 48, "the string ends with a zero");
        assert_eq!(leaf(1).eax, model.signature());
        assert_eq!(model.family_model_stepping(), identity, "{name}");
    }
}

#[test]
fn leaves_out_of_range_are_answered_as_each_vendor_does() {
    let context = processor(1, 2);
    for model in MODELS {
        for leaf in [model.maximum_basic_leaf + 1, 0x4000_0000, 0x7fff_ffff, model.maximum_extended_leaf + 1, u32::MAX] {
            let expected = match model.vendor {
                Vendor::Intel => model.cpuid(model.maximum_basic_leaf, 0, &context),
                Vendor::Amd => CpuidResult::default(),
            };
            assert_eq!(model.cpuid(leaf, 0, &context), expected, "{} leaf {leaf:#x}", model.name);
        }
    }
    let skylake = find("skylake-server").unwrap();
    assert_eq!(skylake.cpuid(0x4000_0000, 0, &context).eax, 2100, "leaf 16H shows through");
}

#[test]
fn the_highest_leaves_hold_every_feature_reported() {
    for model in MODELS {
        for &feature in model.cpuid_features {
            let (leaf, ..) = feature.place();
            let highest = if leaf < 0x8000_0000 { model.maximum_basic_leaf } else { model.maximum_extended_leaf };
            assert!(leaf <= highest, "{}: {feature:?} is in leaf {leaf:#x}", model.name);
            assert!(model.has(feature), "{}: {feature:?}", model.name);
        }
        let listed: u128 = model.cpuid_features.iter().fold(0, |set, feature| set | feature.bit());
        let from_svm = Feature::Nrips.bit();
        assert_eq!(model.features() & !from_svm, listed & !from_svm, "{}: CPUID reports what is listed", model.name);
        assert!(model.cpuid_features.is_sorted(), "{}: features are listed in order, each once", model.name);
    }
}

/// Rules of the manuals between features: the second needs the first.
#[test]
fn features_bring_what_they_need() {
    let needs = [
        (Feature::Fpu, Feature::Fxsr),
        (Feature::Fxsr, Feature::Sse),
        (Feature::Sse, Feature::Sse2),
        (Feature::Apic, Feature::X2apic),
        (Feature::Apic, Feature::TscDeadline),
        (Feature::Tsc, Feature::Rdtscp),
        (Feature::Pae, Feature::Nx),
        (Feature::Pae, Feature::LongMode),
        (Feature::LongMode, Feature::Page1gb),
        (Feature::LongMode, Feature::Pcid),
        (Feature::LongMode, Feature::Fsgsbase),
        (Feature::LongMode, Feature::Lahf64),
        (Feature::Pse, Feature::Pse36),
        (Feature::Mmx, Feature::Sse),
        (Feature::Sse2, Feature::Sse3),
        (Feature::Sse3, Feature::Ssse3),
        (Feature::Ssse3, Feature::Sse41),
        (Feature::Sse41, Feature::Sse42),
        (Feature::Sse41, Feature::Aes),
        (Feature::Xsave, Feature::Xsaveopt),
        (Feature::Svm, Feature::Nrips),
        (Feature::Mce, Feature::Mca),
        (Feature::Pat, Feature::Mtrr),
        (Feature::Xsave, Feature::Pku),
    ];
    for model in MODELS {
        for (first, second) in needs {
            assert!(!model.has(second) || model.has(first), "{}: {second:?} without {first:?}", model.name);
        }
        assert!(!model.has(Feature::Avx), "{}: AVX is not modelled", model.name);
        assert_eq!(model.has(Feature::Vmx), model.vmx.is_some(), "{}", model.name);
        assert_eq!(model.has(Feature::Svm), model.svm.is_some(), "{}", model.name);
        assert_eq!(model.vmx.is_some(), model.vendor == Vendor::Intel);
        assert_eq!(model.svm.is_some(), model.vendor == Vendor::Amd);
        assert!(model.features() & Feature::Hypervisor.bit() == 0, "{}: bare silicon has no hypervisor bit", model.name);
    }
}

#[test]
fn what_the_old_processors_lack() {
    for name in ["merom", "k8-rev-f"] {
        let model = find(name).unwrap();
        for feature in [
            Feature::Sse41,
            Feature::Page1gb,
            Feature::X2apic,
            Feature::Pcid,
            Feature::Xsave,
            Feature::Movbe,
            Feature::Smep,
            Feature::Pku,
            Feature::InvariantTsc,
        ] {
            assert!(!model.has(feature), "{name}: {feature:?}");
        }
    }
    assert!(!find("merom").unwrap().has(Feature::Rdtscp));
    assert!(!find("merom").unwrap().vmx.as_ref().unwrap().has_secondary());
    let k8 = find("k8-rev-f").unwrap();
    let leaf = k8.cpuid(0x8000_000a, 0, &processor(0, 1));
    assert_eq!(leaf, CpuidResult { eax: 1, ebx: 64, ecx: 0, edx: 0 });
    let zen3 = find("zen3").unwrap();
    assert!(zen3.has(Feature::Nrips));
    assert_eq!(zen3.cpuid(0x8000_000a, 0, &processor(0, 1)).edx, 0x3_94ff);
}

#[test]
fn leaf_1_follows_the_machine() {
    for model in MODELS {
        let alone = model.cpuid(1, 0, &processor(0, 1));
        assert_eq!((alone.edx >> 28 & 1, alone.ebx >> 16 & 0xff, alone.ebx >> 24), (0, 1, 0), "{}", model.name);
        let third = model.cpuid(1, 0, &processor(2, 3));
        let logical = if model.vendor == Vendor::Intel { 4 } else { 3 };
        assert_eq!((third.edx >> 28 & 1, third.ebx >> 16 & 0xff, third.ebx >> 24), (1, logical, 2), "{}", model.name);
        assert_eq!(third.ebx >> 8 & 0xff, 8, "CLFLUSH flushes 64 bytes");
        let off = model.cpuid(1, 0, &CpuidContext { apic_enabled: false, ..processor(0, 1) });
        assert_eq!(alone.edx ^ off.edx, 1 << 9, "{}: a disabled APIC is not reported", model.name);
        let osxsave = model.cpuid(1, 0, &CpuidContext { osxsave: true, ..processor(0, 1) });
        assert_eq!(alone.ecx ^ osxsave.ecx, 1 << 27);
    }
}

#[test]
fn extended_features_differ_by_vendor_and_mode() {
    for model in MODELS {
        let long = model.cpuid(0x8000_0001, 0, &processor(0, 2));
        let legacy = model.cpuid(0x8000_0001, 0, &CpuidContext { in_64_bit_mode: false, ..processor(0, 2) });
        let one = model.cpuid(1, 0, &processor(0, 2));
        match model.vendor {
            Vendor::Intel => {
                assert_eq!(long.edx ^ legacy.edx, 1 << 11, "{}: SYSCALL is told in 64-bit mode only", model.name);
                assert_eq!(long.eax, 0);
                assert_eq!(long.edx & 0x3ff, 0);
            }
            Vendor::Amd => {
                assert_eq!(long, legacy);
                assert_eq!(long.eax, model.signature());
                assert_eq!(long.edx & 0x0183_f3ff, one.edx & 0x0183_f3ff, "{}: repeated bits", model.name);
                assert_eq!(long.ecx >> 1 & 1, 1, "CmpLegacy");
            }
        }
    }
}

#[test]
fn the_address_widths_are_told_where_the_model_has_them() {
    for (name, physical) in [("merom", 36), ("k8-rev-f", 40), ("skylake-server", 46), ("zen3", 48)] {
        let answer = find(name).unwrap().cpuid(0x8000_0008, 0, &processor(0, 1));
        assert_eq!((answer.eax & 0xff, answer.eax >> 8 & 0xff), (physical, 48), "{name}");
    }
    let zen3 = find("zen3").unwrap().cpuid(0x8000_0008, 0, &processor(0, 3));
    assert_eq!(zen3.ecx, 2 | 2 << 12, "three cores, two bits of APIC ID");
}

#[test]
fn the_state_components_are_those_that_xcr0_can_have() {
    for model in MODELS {
        let leaf = model.cpuid(0xd, 0, &processor(0, 1));
        if model.has(Feature::Xsave) {
            let (offset, all) = (model.pkru_offset(), processor(0, 1));
            assert_eq!(leaf, CpuidResult { eax: 0x203, ebx: 576, ecx: offset + 8, edx: 0 }, "{}", model.name);
            let enabled = model.cpuid(0xd, 0, &CpuidContext { xcr0: 0x203, ..all });
            assert_eq!(enabled.ebx, enabled.ecx, "{}: everything enabled", model.name);
            assert_eq!(model.cpuid(0xd, 9, &all), CpuidResult { eax: 8, ebx: offset, ecx: 0, edx: 0 });
            assert_eq!(model.cpuid(0xd, 1, &processor(0, 1)), CpuidResult::default());
            assert_eq!(model.cpuid(0xd, 2, &processor(0, 1)), CpuidResult::default(), "no AVX component");
        } else {
            assert!(model.maximum_basic_leaf < 0xd, "{}: leaf 0DH is out of range", model.name);
        }
        assert_eq!(model.supported_cr4().osxsave(), model.has(Feature::Xsave));
    }
}

#[test]
fn topology_has_one_thread_in_each_core() {
    for name in ["skylake-server", "zen3"] {
        let model = find(name).unwrap();
        let threads = model.cpuid(0xb, 0, &processor(5, 6));
        assert_eq!(threads, CpuidResult { eax: 0, ebx: 1, ecx: 0x100, edx: 5 }, "{name}");
        let cores = model.cpuid(0xb, 1, &processor(5, 6));
        assert_eq!(cores, CpuidResult { eax: 3, ebx: 6, ecx: 0x201, edx: 5 }, "{name}");
        let beyond = model.cpuid(0xb, 7, &processor(5, 6));
        assert_eq!(beyond, CpuidResult { eax: 0, ebx: 0, ecx: 7, edx: 5 }, "{name}");
    }
    let unit = find("zen3").unwrap().cpuid(0x8000_001e, 0, &processor(5, 6));
    assert_eq!(unit, CpuidResult { eax: 5, ebx: 5, ecx: 0, edx: 0 });
}

#[test]
fn caches_have_the_sizes_they_are_sold_with() {
    let size = |answer: CpuidResult| (answer.ebx >> 22).wrapping_add(1) * ((answer.ebx & 0xfff) + 1) * (answer.ecx + 1) / 1024;
    let rows: [(&str, u32, &[u32]); 3] =
        [("merom", 4, &[32, 32, 4096]), ("skylake-server", 4, &[32, 32, 1024, 22528]), ("zen3", 0x8000_001d, &[32, 32, 512, 32768])];
    for (name, leaf, sizes) in rows {
        let model = find(name).unwrap();
        for (subleaf, &kbytes) in sizes.iter().enumerate() {
            assert_eq!(size(model.cpuid(leaf, subleaf as u32, &processor(0, 1))), kbytes, "{name} cache {subleaf}");
        }
        let end = model.cpuid(leaf, sizes.len() as u32, &processor(0, 1));
        assert_eq!(end.eax & 0x1f, 0, "{name}: the list ends with a null type");
    }
    let k8 = find("k8-rev-f").unwrap();
    assert_eq!(k8.cpuid(0x8000_0005, 0, &processor(0, 1)).ecx, 0x4002_0140, "64 KBytes, 2 ways, 64-byte lines");
    assert_eq!(k8.cpuid(0x8000_0006, 0, &processor(0, 1)).ecx, 0x0200_8140, "512 KBytes, 16 ways");
    assert_eq!(find("merom").unwrap().cpuid(0x8000_0006, 0, &processor(0, 1)).ecx, 0x1000_8040, "4 MBytes, 16 ways");
}

#[test]
fn the_time_stamp_leaf_gives_the_models_frequency() {
    let model = find("skylake-server").unwrap();
    let clock = model.cpuid(0x15, 0, &processor(0, 1));
    assert_eq!(u64::from(clock.ecx) * u64::from(clock.ebx) / u64::from(clock.eax), model.tsc_hz);
    assert_eq!(u64::from(model.cpuid(0x16, 0, &processor(0, 1)).eax) * 1_000_000, model.tsc_hz);
}

fn words(vmx: &VmxCapabilities) -> [(&'static str, AllowedSettings, u32); 4] {
    [
        ("pin-based", vmx.pin_based, VmxCapabilities::PIN_BASED_DEFAULT1),
        ("primary", vmx.primary, VmxCapabilities::PRIMARY_DEFAULT1),
        ("exit", vmx.exit, VmxCapabilities::EXIT_DEFAULT1),
        ("entry", vmx.entry, VmxCapabilities::ENTRY_DEFAULT1),
    ]
}

#[test]
fn what_must_be_one_may_be_one() {
    for model in MODELS {
        let Some(vmx) = &model.vmx else { continue };
        for (word, settings, default1) in words(vmx) {
            assert_eq!(settings.must_be_one() & !settings.may_be_one(), 0, "{} {word}", model.name);
            assert_eq!(default1 & !settings.may_be_one(), 0, "{} {word}: the default1 class may always be 1", model.name);
            assert_eq!(settings.must_be_one() & !default1, 0, "{} {word}: nothing else must be", model.name);
            if !vmx.basic.true_controls() {
                assert_eq!(settings.must_be_one(), default1, "{} {word}: without TRUE MSRs the class is fixed", model.name);
            }
        }
        assert_eq!(vmx.cr0_fixed0 & !vmx.cr0_fixed1, 0);
        assert_eq!(vmx.cr4_fixed0 & !vmx.cr4_fixed1, 0, "{}: VMXE must be able to be 1", model.name);
        assert_eq!(vmx.cr4_fixed1, model.supported_cr4().into_bits());
        assert!((1..=4096).contains(&vmx.basic.region_size()));
        assert_eq!(vmx.misc.msr_list_limit(), 0);
    }
}

#[test]
fn vmx_controls_need_each_other_as_the_manual_says() {
    use isa::vmx::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
    for model in MODELS {
        let Some(vmx) = &model.vmx else { continue };
        let needs = [
            (SecondaryControls::ENABLE_EPT, SecondaryControls::UNRESTRICTED_GUEST),
            (PinBasedControls::NMI_EXITING, PinBasedControls::VIRTUAL_NMIS),
            (PinBasedControls::VIRTUAL_NMIS, PrimaryControls::NMI_WINDOW_EXITING),
            (PinBasedControls::ACTIVATE_VMX_PREEMPTION_TIMER, ExitControls::SAVE_VMX_PREEMPTION_TIMER_VALUE),
        ];
        for (first, second) in needs {
            assert!(!vmx.may_be_one(second) || vmx.may_be_one(first), "{}: {:?} needs {:?}", model.name, second.name(), first.name());
        }
        assert_eq!(vmx.may_be_one(SecondaryControls::ENABLE_RDTSCP), model.has(Feature::Rdtscp));
        assert_eq!(vmx.may_be_one(SecondaryControls::ENABLE_INVPCID), model.has(Feature::Invpcid));
        assert_eq!(vmx.may_be_one(SecondaryControls::ENABLE_VPID), vmx.ept_vpid.invvpid());
        assert_eq!(vmx.may_be_one(SecondaryControls::ENABLE_EPT), vmx.ept_vpid.invept());
        assert_eq!(vmx.misc.store_efer_lma(), vmx.may_be_one(SecondaryControls::UNRESTRICTED_GUEST), "SDM A.6, bit 5");
        for (word, settings, default1) in words(vmx) {
            let unnamed = settings.may_be_one() & !default1;
            let names = match word {
                "pin-based" => PinBasedControls::NAMES,
                "primary" => PrimaryControls::NAMES,
                "exit" => ExitControls::NAMES,
                _ => isa::vmx::EntryControls::NAMES,
            };
            let named = names.iter().fold(0u32, |bits, (bit, _)| bits | 1 << bit);
            assert_eq!(unnamed & !named, 0, "{} {word}: reserved bits", model.name);
        }
    }
}

/// The values that real processors of the kind report, where nothing is left out of ours.
#[test]
fn capability_msrs_as_software_reads_them() {
    let rows = [
        ("merom", CapabilityMsr::Basic, 0x0018_0400_0000_0007),
        ("merom", CapabilityMsr::PinBased, 0x0000_001f_0000_0016),
        ("merom", CapabilityMsr::Primary, 0x77b9_fffe_0401_e172),
        ("merom", CapabilityMsr::Exit, 0x0003_ffff_0003_6dff & !(1 << (32 + 12))),
        ("merom", CapabilityMsr::Entry, 0x0000_13ff_0000_11ff),
        ("skylake-server", CapabilityMsr::Basic, 0x00d8_0400_0000_0004),
        ("skylake-server", CapabilityMsr::PinBased, 0x0000_00ff_0000_0016),
        ("skylake-server", CapabilityMsr::Primary, 0xfff9_fffe_0401_e172),
        ("skylake-server", CapabilityMsr::TruePrimary, 0xfff9_fffe_0400_6172),
        ("skylake-server", CapabilityMsr::TrueExit, 0x007f_efff_0003_6dfb),
        ("skylake-server", CapabilityMsr::TrueEntry, 0x0000_d3ff_0000_11fb),
        ("skylake-server", CapabilityMsr::Secondary, 0x0247_7fff_0000_0000),
        ("skylake-server", CapabilityMsr::VmcsEnum, 0x32),
        ("skylake-server", CapabilityMsr::EptVpid, 0x0000_0f01_0673_4141),
    ];
    for (name, msr, value) in rows {
        assert_eq!(find(name).unwrap().msr(msr.number()), Some(value), "{name} {}: {value:#018x}", msr.name());
    }
    assert_eq!(find("merom").unwrap().msr(CapabilityMsr::EptVpid.number()), None);
    assert_eq!(find("zen3").unwrap().msr(CapabilityMsr::Basic.number()), None);
    assert_eq!(find("zen3").unwrap().msr(isa::msr::VM_CR), Some(0));
    assert_eq!(find("merom").unwrap().msr(isa::msr::IA32_FEATURE_CONTROL), Some(0));
}

#[test]
fn efer_has_the_bits_of_each_processor() {
    // SVME and FFXSR on AMD, TCE on Zen 3.
    for (name, expected) in [("merom", 0xd01), ("skylake-server", 0xd01), ("k8-rev-f", 0x5d01), ("zen3", 0xdd01)] {
        assert_eq!(find(name).unwrap().supported_efer().into_bits(), expected, "{name}");
    }
}

/// CPUID's arguments come from guests: every one is answered, without a panic on overflow.
#[test]
fn any_leaf_and_any_machine_is_answered() {
    let numbers = [0, 1, 2, 3, 4, 5, 7, 0xb, 0xd, 0x15, 0x16, 0x17, 0xff, 0x7fff_ffff, 0x8000_0000, 0x8000_0006, 0x8000_0008, u32::MAX];
    for model in MODELS {
        for leaf in numbers.into_iter().chain(0x8000_0000..0x8000_0030) {
            for subleaf in numbers {
                for cpu_count in [0, 1, 2, 255, 4096, u32::MAX] {
                    let context = CpuidContext { apic_id: u32::MAX, cpu_count, osxsave: true, xcr0: u64::MAX, ..CpuidContext::default() };
                    std::hint::black_box(model.cpuid(leaf, subleaf, &context));
                }
            }
        }
    }
}

#[test]
fn summaries() {
    for model in MODELS {
        insta::assert_snapshot!(format!("model-{}", model.name), model.summary(2));
    }
}

#[test]
fn a_model_is_exported_as_json() {
    for model in MODELS {
        let json = serde_json::to_value(CpuModel::export(model, 1)).unwrap();
        assert_eq!(json["name"], model.name);
        assert_eq!(json["costs"]["name"], model.name);
        assert_eq!(json["features"].as_array().unwrap().len(), model.features().count_ones() as usize);
        assert_eq!(json["cpuid"][0]["leaf"], "00000000");
        assert_eq!(json["vmx_controls"].as_array().unwrap().is_empty(), model.vmx.is_none());
    }
}
