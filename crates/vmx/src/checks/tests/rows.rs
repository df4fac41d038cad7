//! The rows: `id [setup] => what breaks it; further changes`.

use super::*;

pub(super) fn control_rows() -> Vec<Row> {
    let execution: &[Row] = rows! {
        "pin-based-allowed" => PinBasedControls = 1; capabilities |c| c.pin_based.set_may_be_one(!1);
        "primary-allowed" => PrimaryProcessorBasedControls = 1 << 4; capabilities |c| c.primary.set_may_be_one(!(1 << 4));
        "secondary-allowed" [&[ACTIVATE]] => SecondaryProcessorBasedControls = 1 << 29; capabilities |c| c.secondary.set_may_be_one(!(1 << 29));
        "tertiary-allowed" [&[(F::PrimaryProcessorBasedControls, 1 << 17)]] => TertiaryProcessorBasedControls = 1 << 5; capabilities |c| c.tertiary = 0xf;
        "cr3-target-count" => Cr3TargetCount = 5;
        "io-bitmap-a-address" [&[(F::PrimaryProcessorBasedControls, 1 << 25)]] => IoBitmapAAddress = 0x1001;
        "io-bitmap-b-address" [&[(F::PrimaryProcessorBasedControls, 1 << 25)]] => IoBitmapBAddress = 1 << 46;
        "msr-bitmap-address" [&[(F::PrimaryProcessorBasedControls, 1 << 28)]] => MsrBitmapAddress = 0x800;
        "virtual-apic-address" [&[(F::PrimaryProcessorBasedControls, 1 << 21)]] => VirtualApicAddress = 0x10;
        "tpr-threshold-reserved" [&[(F::PrimaryProcessorBasedControls, 1 << 21)]] => TprThreshold = 0x10;
        "tpr-threshold-above-virtual-tpr" [&[(F::PrimaryProcessorBasedControls, 1 << 21), (F::TprThreshold, 8)]] => TprThreshold = 9;
        "apic-virtualization-needs-tpr-shadow" [&[ACTIVATE]] => SecondaryProcessorBasedControls = 1 << 8;
        "virtual-nmis-need-nmi-exiting" => PinBasedControls = 1 << 5;
        "nmi-window-needs-virtual-nmis" => PrimaryProcessorBasedControls = 1 << 22;
        "apic-access-address" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1)]] => ApicAccessAddress = 1;
        "x2apic-excludes-apic-accesses" [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 4)]]
            => SecondaryProcessorBasedControls = 1 << 4 | 1;
        "interrupt-delivery-needs-external-interrupt-exiting"
            [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 9), (F::PinBasedControls, 1)]]
            => PinBasedControls = 0;
        "posted-interrupts-need-delivery"
            [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 9), (F::PinBasedControls, 1 << 7 | 1)]]
            => SecondaryProcessorBasedControls = 0;
        "posted-interrupts-need-acknowledge"
            [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 9), (F::PinBasedControls, 1 << 7 | 1)]]
            => PrimaryExitControls = 1 << 9;
        "posted-interrupt-vector"
            [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 9), (F::PinBasedControls, 1 << 7 | 1)]]
            => PostedInterruptNotificationVector = 0x100;
        "posted-interrupt-descriptor-address"
            [&[(F::PrimaryProcessorBasedControls, 1 << 31 | 1 << 21), (F::SecondaryProcessorBasedControls, 1 << 9), (F::PinBasedControls, 1 << 7 | 1)]]
            => PostedInterruptDescriptorAddress = 0x20;
        "vpid-not-zero" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 5), (F::VirtualProcessorIdentifier, 1)]]
            => VirtualProcessorIdentifier = 0;
        "eptp-memory-type" [EPT] => EptPointer = 0x1_0018;
        "eptp-walk-length" [EPT] => EptPointer = 0x1_0026;
        "eptp-accessed-dirty" [EPT] => EptPointer = 0x1_005e;
        "eptp-supervisor-shadow-stack" [EPT] => EptPointer = 0x1_009e;
        "eptp-reserved" [EPT] => EptPointer = 0x1_011e;
        "pml-needs-ept" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 17 | 2)]] => SecondaryProcessorBasedControls = 1 << 17;
        "pml-address" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 17 | 2)]] => PmlAddress = 8;
        "unrestricted-guest-needs-ept" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 7 | 2)]] => SecondaryProcessorBasedControls = 1 << 7;
        "mode-based-execute-needs-ept" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 22 | 2)]] => SecondaryProcessorBasedControls = 1 << 22;
        "sub-page-write-needs-ept" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 23 | 2)]] => SecondaryProcessorBasedControls = 1 << 23;
        "sub-page-table-address" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 23 | 2)]] => SubPagePermissionTablePointer = 1 << 50;
        "vm-functions-allowed" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 13 | 2)]] => VmFunctionControls = 2;
        "eptp-switching-needs-ept" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 13 | 2), (F::VmFunctionControls, 1)]]
            => SecondaryProcessorBasedControls = 1 << 13;
        "eptp-list-address" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 13 | 2), (F::VmFunctionControls, 1)]] => EptpListAddress = 4;
        "vmread-bitmap-address" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 14)]] => VmreadBitmapAddress = 1;
        "vmwrite-bitmap-address" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 14)]] => VmwriteBitmapAddress = 1;
        "virtualization-exception-address" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 18)]] => VirtualizationExceptionInformationAddress = 1;
        "pt-guest-physical-needs-ept"
            [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 24 | 2), (F::EntryControls, 1 << 9 | 1 << 2 | 1 << 15 | 1 << 18), (F::PrimaryExitControls, 1 << 9 | 1 << 15 | 1 << 25)]]
            => SecondaryProcessorBasedControls = 1 << 24;
        "pt-guest-physical-needs-rtit"
            [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 24 | 2), (F::EntryControls, 1 << 9 | 1 << 2 | 1 << 15 | 1 << 18), (F::PrimaryExitControls, 1 << 9 | 1 << 15 | 1 << 25)]]
            => PrimaryExitControls = 1 << 9 | 1 << 15;
        "tsc-multiplier-not-zero" [&[ACTIVATE, (F::SecondaryProcessorBasedControls, 1 << 25), (F::TscMultiplier, 1 << 48)]] => TscMultiplier = 0;
    };
    let exit: &[Row] = rows! {
        "exit-allowed" => PrimaryExitControls = 1 << 9 | 1; capabilities |c| c.exit.set_may_be_one(!1);
        "secondary-exit-allowed" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 31)]] => SecondaryExitControls = 1; capabilities |c| c.secondary_exit = 8;
        "save-timer-needs-timer" => PrimaryExitControls = 1 << 9 | 1 << 22;
        "exit-msr-store-list" [&[(F::ExitMsrStoreCount, 2), (F::ExitMsrStoreAddress, 0x1010)]] => ExitMsrStoreAddress = 0x1008;
        "exit-msr-load-list" [&[(F::ExitMsrLoadCount, 2), (F::ExitMsrLoadAddress, (1 << 46) - 32)]] => ExitMsrLoadAddress = (1 << 46) - 16;
    };
    let entry: &[Row] = rows! {
        "entry-allowed" => EntryControls = 1 << 9 | 1 << 15 | 1; capabilities |c| c.entry.set_may_be_one(!1);
        "injected-type-defined" [&[(F::EntryInterruptionInformation, event(0, 32))]] => EntryInterruptionInformation = event(1, 32);
        "injected-mtf-supported" [&[(F::EntryInterruptionInformation, event(7, 0))]] =>
            ; breaking_capabilities |c| c.primary.set_may_be_one(!(1 << 27));
        "injected-nmi-vector" [&[(F::EntryInterruptionInformation, event(2, 2))]] => EntryInterruptionInformation = event(2, 3);
        "injected-exception-vector" [&[(F::EntryInterruptionInformation, event(3, 31))]] => EntryInterruptionInformation = event(3, 32);
        "injected-other-vector" [&[(F::EntryInterruptionInformation, event(7, 0))]] => EntryInterruptionInformation = event(7, 1);
        "injected-error-code-type" [&[(F::EntryInterruptionInformation, event(3, 13) | 1 << 11)]]
            => EntryInterruptionInformation = event(0, 13) | 1 << 11;
        "injected-error-code-mode"
            [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 7 | 2), (F::EntryInterruptionInformation, event(3, 13) | 1 << 11)]]
            => GuestCr0 = 0x30, EntryControls = 0, GuestCsAccessRights = 0xc09b;
        "injected-error-code-vector" [&[(F::EntryInterruptionInformation, event(3, 14) | 1 << 11)]] => EntryInterruptionInformation = event(3, 14);
        "injected-reserved" [&[(F::EntryInterruptionInformation, event(0, 32))]] => EntryInterruptionInformation = event(0, 32) | 1 << 20;
        "injected-error-code-reserved" [&[(F::EntryInterruptionInformation, event(3, 13) | 1 << 11), (F::EntryExceptionErrorCode, 0xffff)]]
            => EntryExceptionErrorCode = 0x1_0000;
        "injected-instruction-length" [&[(F::EntryInterruptionInformation, event(4, 0x80)), (F::EntryInstructionLength, 15)]]
            => EntryInstructionLength = 16;
        "entry-msr-load-list" [&[(F::EntryMsrLoadCount, 1), (F::EntryMsrLoadAddress, 0x2000)]] => EntryMsrLoadAddress = 0x2004;
        "entry-not-to-smm" => EntryControls = 1 << 9 | 1 << 15 | 1 << 2 | 1 << 10;
    };
    [execution, exit, entry].into_iter().flatten().copied().collect()
}

pub(super) fn host_rows() -> Vec<Row> {
    let rows: &[Row] = rows! {
        "host-cr0" => HostCr0 = 0x8001_0013;
        "host-cr4" => HostCr4 = 0x20;
        "host-cr4-cet" [&[(F::HostCr4, 0x80_2020)]] => HostCr0 = 0x8000_0033;
        "host-cr3" => HostCr3 = 1 << 46;
        "host-sysenter-esp" => HostSysenterEsp = 1 << 47;
        "host-sysenter-eip" => HostSysenterEip = 1 << 63;
        "host-perf-global-ctrl" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 12), (F::HostPerfGlobalCtrl, 0x7_0000_000f)]]
            => HostPerfGlobalCtrl = 0x10;
        "host-s-cet" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 28), (F::HostSCet, 0x43f)]] => HostSCet = 0xc00;
        "host-ssp-aligned" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 28), (F::HostSsp, 0x1008)]] => HostSsp = 0x1002;
        "host-interrupt-ssp-table" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 28)]] => HostInterruptSspTableAddress = 1 << 50;
        "host-pkrs" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 29), (F::HostPkrs, 0xffff_ffff)]] => HostPkrs = 1 << 32;
        "host-32-bit-cet" [HOST_32_BIT, &[(F::PrimaryExitControls, 1 << 15 | 1 << 28)]] => HostSsp = 1 << 32;
            setup_facts |f| f.host_long_mode = false;
        "host-64-bit-cet" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 28), (F::HostSCet, 0x1000)]] => HostSCet = 1 << 50;
        "host-pat" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 19), (F::HostPat, 0x0007_0406_0007_0406)]] => HostPat = 2;
        "host-efer-reserved" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 21), (F::HostEfer, 0x500)]] => HostEfer = 0x502;
        "host-efer-lma" [&[(F::PrimaryExitControls, 1 << 9 | 1 << 21), (F::HostEfer, 0x500)]] => HostEfer = 0x400;
        "host-es-selector" => HostEsSelector = 1;
        "host-cs-selector" => HostCsSelector = 0xc;
        "host-ss-selector" => HostSsSelector = 0x13;
        "host-ds-selector" => HostDsSelector = 4;
        "host-fs-selector" => HostFsSelector = 4;
        "host-gs-selector" => HostGsSelector = 4;
        "host-tr-selector" => HostTrSelector = 0x1c;
        "host-cs-not-null" => HostCsSelector = 0;
        "host-tr-not-null" => HostTrSelector = 0;
        "host-ss-not-null" [HOST_32_BIT] => HostSsSelector = 0; setup_facts |f| f.host_long_mode = false;
        "host-fs-base" => HostFsBase = 1 << 50;
        "host-gs-base" => HostGsBase = 1 << 50;
        "host-gdtr-base" => HostGdtrBase = 1 << 50;
        "host-idtr-base" => HostIdtrBase = 1 << 50;
        "host-tr-base" => HostTrBase = 1 << 50;
        "host-32-bit-at-entry" [HOST_32_BIT] => PrimaryExitControls = 1 << 9; setup_facts |f| f.host_long_mode = false;
        "host-64-bit-at-entry" [PAE_GUEST] => PrimaryExitControls = 1 << 15;
        "host-32-bit-guest" [HOST_32_BIT] => EntryControls = 1 << 9, GuestCsAccessRights = 0xa09b;
            setup_facts |f| f.host_long_mode = false, also &["host-32-bit-at-entry"];
        "host-32-bit-cr4-pcide" [HOST_32_BIT] => HostCr4 = 0x2_2020; setup_facts |f| f.host_long_mode = false;
        "host-32-bit-rip" [HOST_32_BIT] => HostRip = 1 << 32; setup_facts |f| f.host_long_mode = false;
        "host-64-bit-cr4-pae" => HostCr4 = 0x2000;
        "host-64-bit-rip" => HostRip = 1 << 47;
    };
    rows.to_vec()
}

pub(super) fn guest_rows() -> Vec<Row> {
    let registers: &[Row] = rows! {
        "guest-cr0-fixed" => GuestCr0 = 0x8001_0013;
        "guest-cr0-pg-needs-pe" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 7 | 2)], PAE_GUEST] => GuestCr0 = 0x8001_0032;
        "guest-cr4-fixed" => GuestCr4 = 0x20;
        "guest-cr4-cet" [&[(F::GuestCr4, 0x80_2020)]] => GuestCr0 = 0x8000_0033;
        "guest-debugctl" => GuestDebugctl = 4;
        "guest-ia32e-paging" => GuestCr4 = 0x2000;
        "guest-pcide-needs-ia32e" [PAE_GUEST] => GuestCr4 = 0x2_2020;
        "guest-cr3" => GuestCr3 = 1 << 63;
        "guest-dr7" => GuestDr7 = 1 << 32;
        "guest-sysenter-esp" => GuestSysenterEsp = 1 << 47;
        "guest-sysenter-eip" => GuestSysenterEip = 1 << 47;
        "guest-pat" [&[(F::EntryControls, 1 << 9 | 1 << 14)]] => GuestPat = 3;
        "guest-perf-global-ctrl" [&[(F::EntryControls, 1 << 9 | 1 << 13), (F::GuestPerfGlobalCtrl, 0x7_0000_000f)]]
            => GuestPerfGlobalCtrl = 1 << 35;
        "guest-bndcfgs-reserved" [&[(F::EntryControls, 1 << 9 | 1 << 16), (F::GuestBndcfgs, 0x1003)]] => GuestBndcfgs = 4;
        "guest-bndcfgs-base" [&[(F::EntryControls, 1 << 9 | 1 << 16)]] => GuestBndcfgs = 1 << 50;
        "guest-rtit-ctl" [&[(F::EntryControls, 1 << 9 | 1 << 18), (F::GuestRtitCtl, 0x2000)]] => GuestRtitCtl = 1 << 18;
        "guest-s-cet" [&[(F::EntryControls, 1 << 9 | 1 << 20), (F::GuestSCet, 0x83f)]] => GuestSCet = 0x40;
        "guest-s-cet-base" [&[(F::EntryControls, 1 << 9 | 1 << 20), (F::GuestSCet, 0x1000)]] => GuestSCet = 1 << 50;
        "guest-interrupt-ssp-table" [&[(F::EntryControls, 1 << 9 | 1 << 20)]] => GuestInterruptSspTableAddress = 1 << 50;
        "guest-lbr-ctl" [&[(F::EntryControls, 1 << 9 | 1 << 21), (F::GuestLbrCtl, 0x7f_000f)]] => GuestLbrCtl = 0x10;
        "guest-pkrs" [&[(F::EntryControls, 1 << 9 | 1 << 22), (F::GuestPkrs, 0xffff_ffff)]] => GuestPkrs = 1 << 32;
        "guest-uinv" [&[(F::EntryControls, 1 << 9 | 1 << 19), (F::GuestUinv, 0xff)]] => GuestUinv = 0x100;
        "guest-efer-reserved" => GuestEfer = 0x502;
        "guest-efer-lma" [&[(F::EntryControls, 1 << 15), (F::GuestCsAccessRights, 0xc09b), (F::GuestEfer, 0)]] => GuestEfer = 0x500;
        "guest-efer-lme" [&[(F::EntryControls, 1 << 15), (F::GuestCsAccessRights, 0xc09b), (F::GuestEfer, 0)]] => GuestEfer = 0x100;
    };
    let segments: &[Row] = rows! {
        "guest-tr-ti" => GuestTrSelector = 0x1c;
        "guest-ldtr-ti" => GuestLdtrSelector = 4;
        "guest-ss-rpl" => GuestCsSelector = 9;
        "guest-cs-type" => GuestCsAccessRights = 0xa098;
        "guest-ss-type" => GuestSsAccessRights = 0xc091;
        "guest-es-type" => GuestEsAccessRights = 0xc092;
        "guest-ds-type" => GuestDsAccessRights = 0xc099;
        "guest-fs-type" => GuestFsAccessRights = 0xc092;
        "guest-gs-type" => GuestGsAccessRights = 0xc092;
        "guest-cs-dpl" => GuestCsAccessRights = 0xa0bb;
        "guest-ss-dpl-rpl" [&[(F::GuestCsAccessRights, 0xa09f)]] => GuestSsAccessRights = 0xc0b3;
        "guest-ss-dpl-zero" [EPT, &[(F::SecondaryProcessorBasedControls, 1 << 7 | 2)], PAE_GUEST, &[(F::GuestCsAccessRights, 0xc093)]]
            => GuestSsAccessRights = 0xc0b3;
        "guest-es-dpl" => GuestEsSelector = 0x13;
        "guest-ds-dpl" => GuestDsSelector = 0x13;
        "guest-fs-dpl" => GuestFsSelector = 0x13;
        "guest-gs-dpl" => GuestGsSelector = 0x13;
        "guest-cs-l-db" => GuestCsAccessRights = 0xe09b;
        "guest-tr-base" => GuestTrBase = 1 << 50;
        "guest-tr-type" => GuestTrAccessRights = 0x83;
        "guest-tr-s" => GuestTrAccessRights = 0x9b;
        "guest-tr-present" => GuestTrAccessRights = 0x0b;
        "guest-tr-reserved" => GuestTrAccessRights = 0x18b;
        "guest-tr-granularity" => GuestTrAccessRights = 0x808b;
        "guest-tr-usable" => GuestTrAccessRights = 0x1_008b;
        "guest-ldtr-base" => GuestLdtrBase = 1 << 50;
        "guest-ldtr-type" => GuestLdtrAccessRights = 0x83;
        "guest-ldtr-s" => GuestLdtrAccessRights = 0x92;
        "guest-ldtr-present" => GuestLdtrAccessRights = 0x02;
        "guest-ldtr-reserved" => GuestLdtrAccessRights = 0x2_0082;
        "guest-ldtr-granularity" => GuestLdtrLimit = 0x10_0fff;
        "guest-gdtr-base" => GuestGdtrBase = 1 << 50;
        "guest-idtr-base" => GuestIdtrBase = 1 << 50;
        "guest-gdtr-limit" => GuestGdtrLimit = 0x1_0000;
        "guest-idtr-limit" => GuestIdtrLimit = 0x1_0000;
        "guest-rip-32-bit" [PAE_GUEST] => GuestRip = 1 << 32;
        "guest-rip-64-bit" => GuestRip = 1 << 48;
        "guest-rflags-reserved" => GuestRflags = 0x20a;
        "guest-rflags-fixed" => GuestRflags = 0x200;
        "guest-rflags-vm" => ; breaking VIRTUAL_8086;
        "guest-ssp-aligned" [&[(F::EntryControls, 1 << 9 | 1 << 20), (F::GuestSsp, 0x1008)]] => GuestSsp = 0x1001;
        "guest-ssp-32-bit" [PAE_GUEST, &[(F::EntryControls, 1 << 20), (F::GuestSsp, 0x1008)]] => GuestSsp = 1 << 32;
        "guest-ssp-64-bit" [&[(F::EntryControls, 1 << 9 | 1 << 20), (F::GuestSsp, 0x1008)]] => GuestSsp = 1 << 50;
        "guest-rflags-if" [&[(F::EntryInterruptionInformation, event(0, 32))]] => GuestRflags = 2;
    };
    let others: &[Row] = rows! {
        "guest-activity-supported" => GuestActivityState = 4;
        "guest-activity-hlt-dpl" [&[(F::GuestActivityState, 1)]]
            => GuestCsAccessRights = 0xa0ff, GuestSsAccessRights = 0xc0f3, GuestSsSelector = 0x13, GuestCsSelector = 11;
        "guest-activity-blocking" [&[(F::GuestInterruptibilityState, 1)]] => GuestActivityState = 2;
        "guest-activity-injection" [&[(F::GuestActivityState, 1), (F::EntryInterruptionInformation, event(0, 32))]]
            => EntryInterruptionInformation = event(3, 6);
        "guest-interruptibility-reserved" => GuestInterruptibilityState = 1 << 5;
        "guest-interruptibility-both" => GuestInterruptibilityState = 3;
        "guest-interruptibility-sti-if" [&[(F::GuestInterruptibilityState, 1)]] => GuestRflags = 2;
        "guest-interruptibility-external" [&[(F::EntryInterruptionInformation, event(0, 32))]] => GuestInterruptibilityState = 1;
        "guest-interruptibility-nmi-mov-ss" [&[(F::EntryInterruptionInformation, event(2, 2))]] => GuestInterruptibilityState = 2;
        "guest-interruptibility-smi" => GuestInterruptibilityState = 4;
        "guest-interruptibility-virtual-nmi" [&[(F::PinBasedControls, 1 << 3 | 1 << 5), (F::EntryInterruptionInformation, event(2, 2))]]
            => GuestInterruptibilityState = 8;
        "guest-interruptibility-enclave" => GuestInterruptibilityState = 16;
        "guest-pending-debug-reserved" => GuestPendingDebugExceptions = 1 << 13;
        "guest-pending-debug-single-step" [&[(F::GuestInterruptibilityState, 2)]] => GuestRflags = 0x302;
        "link-pointer-address" [&[(F::VmcsLinkPointer, 0x6000)]] => VmcsLinkPointer = 0x6001;
        "link-pointer-revision" [&[(F::VmcsLinkPointer, 0x6000)]] => ; breaking_facts |f| f.linked_revision = 0x8000_1234;
        "link-pointer-current" [&[(F::VmcsLinkPointer, 0x6000)]] => VmcsLinkPointer = 0x5000;
        "guest-pdpte-0" [PAE_GUEST] => ; breaking_facts |f| f.pdptes[0] = 3;
        "guest-pdpte-1" [PAE_GUEST] => ; breaking_facts |f| f.pdptes[1] = 0x21;
        "guest-pdpte-2" [PAE_GUEST, EPT] => GuestPdpte2 = 1 << 46 | 1;
        "guest-pdpte-3" [PAE_GUEST, EPT] => GuestPdpte3 = 0x101;
    };
    [registers, segments, others].into_iter().flatten().copied().collect()
}

pub(super) fn msr_rows() -> Vec<Row> {
    let rows: &[Row] = rows! {
        "msr-load-count" [MSR_LIST] => ; setup_msr |m| m.number = 512, breaking_msr |m| m.number = 513;
        "msr-load-base" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.index = 0xc000_0100;
        "msr-load-x2apic" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.index = 0x80b;
        "msr-load-smm" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.index = 0x9b;
        "msr-load-microcode" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.index = 0x79;
        "msr-load-reserved" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.reserved = 1;
        "msr-load-value" [MSR_LIST] => ; setup_msr |m| *m = STAR, breaking_msr |m| m.refused = true;
    };
    rows.to_vec()
}

const MSR_LIST: &[(F, u64)] = &[(F::EntryMsrLoadCount, 1), (F::EntryMsrLoadAddress, 0x2000)];

/// An entry that loads IA32_STAR.
const STAR: MsrLoad = MsrLoad { number: 1, index: 0xc000_0081, reserved: 0, value: 0, refused: false };

/// The rules that all six segment registers share.
pub(super) fn segment_rows(segment: &'static str) -> Vec<Row> {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let (base, limit, rights, normal) = match segment {
        "cs" => (F::GuestCsBase, F::GuestCsLimit, F::GuestCsAccessRights, 0xa09b),
        "ss" => (F::GuestSsBase, F::GuestSsLimit, F::GuestSsAccessRights, 0xc093),
        "ds" => (F::GuestDsBase, F::GuestDsLimit, F::GuestDsAccessRights, 0xc093),
        "es" => (F::GuestEsBase, F::GuestEsLimit, F::GuestEsAccessRights, 0xc093),
        "fs" => (F::GuestFsBase, F::GuestFsLimit, F::GuestFsAccessRights, 0xc093),
        _ => (F::GuestGsBase, F::GuestGsLimit, F::GuestGsAccessRights, 0xc093),
    };
    let row = |rule: &str, setup: &'static [&'static [(F, u64)]], field: F, value: u64| Row {
        id: leak(format!("guest-{segment}-{rule}")),
        setup,
        breaking: Box::leak(Box::new([(field, value)])),
        ..ROW
    };
    vec![
        row("base-virtual-8086", &[VIRTUAL_8086, LEGACY], base, 0x180),
        row("limit-virtual-8086", &[VIRTUAL_8086, LEGACY], limit, 0xfffe),
        row("rights-virtual-8086", &[VIRTUAL_8086, LEGACY], rights, 0x93),
        row("base", &[], base, 1 << 48),
        row("s", &[], rights, normal & !0x10),
        row("present", &[], rights, normal & !0x80),
        row("reserved", &[], rights, normal | 0x400),
        row("granularity", &[], rights, normal & !0x8000),
    ]
}
