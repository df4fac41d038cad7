//! Checks on the guest's segment registers.
//!
//! Modelled: SDM 27.3.1.2, complete. The rules of ES, DS, FS and GS are written once and repeated by a macro.

use crate::checks::{Entry, checks};
use isa::paging::is_canonical;
use isa::vmx::VmcsField;

/// Bits 11:8 and 31:17 of access rights.
const RESERVED: u64 = 0xfffe_0f00;

/// Access rights of every segment in virtual-8086 mode.
const VIRTUAL_8086_RIGHTS: u64 = 0xf3;

macro_rules! segment_checks {
    ($($letters:literal $upper:literal $selector:ident $base:ident $limit:ident $rights:ident $high_base:expr;)*) => {
        checks! {
            /// All checks of the phase, in our order.
            CHECKS, "27.3.1.2 Checks on Guest Segment Registers";

            "guest-tr-ti", "TI of TR is 0", [GuestTrSelector] => |e| !e.selector(VmcsField::GuestTrSelector).ti();
            "guest-ldtr-ti", "TI of a usable LDTR is 0", [GuestLdtrSelector GuestLdtrAccessRights],
                if |e| !e.rights(VmcsField::GuestLdtrAccessRights).unusable()
                => |e| !e.selector(VmcsField::GuestLdtrSelector).ti();
            "guest-ss-rpl", "RPL of SS is that of CS",
                [GuestSsSelector GuestCsSelector GuestRflags PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| !e.virtual_8086() && !e.secondary().unrestricted_guest()
                => |e| e.selector(VmcsField::GuestSsSelector).rpl() == e.selector(VmcsField::GuestCsSelector).rpl(),
                hint "Both selectors carry the privilege level; after SYSCALL emulation set both.";

            $(concat!("guest-", $letters, "-base-virtual-8086"),
                concat!("In virtual-8086 mode, the base of ", $upper, " is its selector times 16"),
                [GuestRflags $selector $base], if |e| e.virtual_8086()
                => |e| e.get(VmcsField::$base) == e.get(VmcsField::$selector) << 4;)*
            "guest-tr-base", "The base of TR is canonical", [GuestTrBase] => |e| is_canonical(e.get(VmcsField::GuestTrBase));
            "guest-ldtr-base", "The base of a usable LDTR is canonical", [GuestLdtrBase GuestLdtrAccessRights], if ldtr_usable
                => |e| is_canonical(e.get(VmcsField::GuestLdtrBase));
            $(concat!("guest-", $letters, "-base"), concat!("The base of ", $upper, " is an address that its mode can have"),
                [$base $rights]
                => $high_base,
                hint "Above bit 31 the bases of CS, SS, DS and ES are zero, those of FS and GS canonical.";)*
            $(concat!("guest-", $letters, "-limit-virtual-8086"),
                concat!("In virtual-8086 mode, the limit of ", $upper, " is 0xffff"),
                [GuestRflags $limit], if |e| e.virtual_8086()
                => |e| e.get(VmcsField::$limit) == 0xffff;)*
            $(concat!("guest-", $letters, "-rights-virtual-8086"),
                concat!("In virtual-8086 mode, the access rights of ", $upper, " are 0xf3"),
                [GuestRflags $rights], if |e| e.virtual_8086()
                => |e| e.get(VmcsField::$rights) == VIRTUAL_8086_RIGHTS;)*

            "guest-cs-type", "The type of CS is 9, 11, 13 or 15, or 3 for an unrestricted guest",
                [GuestRflags GuestCsAccessRights PrimaryProcessorBasedControls SecondaryProcessorBasedControls], if |e| !e.virtual_8086()
                => |e| match e.rights(VmcsField::GuestCsAccessRights).kind() {
                    9 | 11 | 13 | 15 => true,
                    3 => e.secondary().unrestricted_guest(),
                    _ => false,
                },
                hint "A loaded code segment is accessed: bit 0 of the type is 1, as in 0x9b.";
            "guest-ss-type", "The type of a usable SS is 3 or 7", [GuestRflags GuestSsAccessRights],
                if |e| checked(e, VmcsField::GuestSsAccessRights)
                => |e| matches!(e.rights(VmcsField::GuestSsAccessRights).kind(), 3 | 7);
            "guest-es-type", "A usable ES is accessed, and readable if code", [GuestRflags GuestEsAccessRights],
                if |e| checked(e, VmcsField::GuestEsAccessRights)
                => |e| is_readable_and_accessed(e, VmcsField::GuestEsAccessRights);
            "guest-ds-type", "A usable DS is accessed, and readable if code", [GuestRflags GuestDsAccessRights],
                if |e| checked(e, VmcsField::GuestDsAccessRights)
                => |e| is_readable_and_accessed(e, VmcsField::GuestDsAccessRights);
            "guest-fs-type", "A usable FS is accessed, and readable if code", [GuestRflags GuestFsAccessRights],
                if |e| checked(e, VmcsField::GuestFsAccessRights)
                => |e| is_readable_and_accessed(e, VmcsField::GuestFsAccessRights);
            "guest-gs-type", "A usable GS is accessed, and readable if code", [GuestRflags GuestGsAccessRights],
                if |e| checked(e, VmcsField::GuestGsAccessRights)
                => |e| is_readable_and_accessed(e, VmcsField::GuestGsAccessRights);
            $(concat!("guest-", $letters, "-s"), concat!("S of a usable ", $upper, " is 1"),
                [GuestRflags $rights], if |e| checked(e, VmcsField::$rights)
                => |e| e.rights(VmcsField::$rights).s();)*
            "guest-cs-dpl", "DPL of CS is 0 (type 3), that of SS (not conforming) or not above it (conforming)",
                [GuestRflags GuestCsAccessRights GuestSsAccessRights], if |e| !e.virtual_8086()
                => |e| {
                    let cs = e.rights(VmcsField::GuestCsAccessRights);
                    let ss = e.rights(VmcsField::GuestSsAccessRights);
                    match cs.kind() {
                        3 => cs.dpl() == 0,
                        9 | 11 => cs.dpl() == ss.dpl(),
                        13 | 15 => cs.dpl() <= ss.dpl(),
                        _ => true,
                    }
                };
            "guest-ss-dpl-rpl", "DPL of SS is its RPL",
                [GuestRflags GuestSsAccessRights GuestSsSelector PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| !e.virtual_8086() && !e.secondary().unrestricted_guest()
                => |e| e.rights(VmcsField::GuestSsAccessRights).dpl() == e.selector(VmcsField::GuestSsSelector).rpl(),
                hint "DPL of SS is the guest's privilege level, and so is RPL.";
            "guest-ss-dpl-zero", "DPL of SS is 0 in real-address mode and where CS has type 3",
                [GuestRflags GuestSsAccessRights GuestCsAccessRights GuestCr0],
                if |e| !e.virtual_8086() && (e.rights(VmcsField::GuestCsAccessRights).kind() == 3 || !e.cr0().pe())
                => |e| e.rights(VmcsField::GuestSsAccessRights).dpl() == 0;
            "guest-es-dpl", "DPL of a usable ES is not below its RPL",
                [GuestRflags GuestEsAccessRights GuestEsSelector PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| privilege_checked(e, VmcsField::GuestEsAccessRights)
                => |e| e.rights(VmcsField::GuestEsAccessRights).dpl() >= e.selector(VmcsField::GuestEsSelector).rpl();
            "guest-ds-dpl", "DPL of a usable DS is not below its RPL",
                [GuestRflags GuestDsAccessRights GuestDsSelector PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| privilege_checked(e, VmcsField::GuestDsAccessRights)
                => |e| e.rights(VmcsField::GuestDsAccessRights).dpl() >= e.selector(VmcsField::GuestDsSelector).rpl();
            "guest-fs-dpl", "DPL of a usable FS is not below its RPL",
                [GuestRflags GuestFsAccessRights GuestFsSelector PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| privilege_checked(e, VmcsField::GuestFsAccessRights)
                => |e| e.rights(VmcsField::GuestFsAccessRights).dpl() >= e.selector(VmcsField::GuestFsSelector).rpl();
            "guest-gs-dpl", "DPL of a usable GS is not below its RPL",
                [GuestRflags GuestGsAccessRights GuestGsSelector PrimaryProcessorBasedControls SecondaryProcessorBasedControls],
                if |e| privilege_checked(e, VmcsField::GuestGsAccessRights)
                => |e| e.rights(VmcsField::GuestGsAccessRights).dpl() >= e.selector(VmcsField::GuestGsSelector).rpl();
            $(concat!("guest-", $letters, "-present"), concat!("A usable ", $upper, " is present"),
                [GuestRflags $rights], if |e| checked(e, VmcsField::$rights)
                => |e| e.rights(VmcsField::$rights).p();)*
            $(concat!("guest-", $letters, "-reserved"), concat!("Reserved access rights of a usable ", $upper, " are 0"),
                [GuestRflags $rights], if |e| checked(e, VmcsField::$rights)
                => |e| e.get(VmcsField::$rights) & RESERVED == 0;)*
            "guest-cs-l-db", "In an IA-32e mode guest, a 64-bit CS has D/B 0", [GuestRflags GuestCsAccessRights EntryControls],
                if |e| !e.virtual_8086() && e.entry().ia32e_mode_guest() && e.rights(VmcsField::GuestCsAccessRights).l()
                => |e| !e.rights(VmcsField::GuestCsAccessRights).db(),
                hint "64-bit code has L 1 and D/B 0: access rights 0xa09b.";
            $(concat!("guest-", $letters, "-granularity"), concat!("G of a usable ", $upper, " agrees with its limit"),
                [GuestRflags $rights $limit], if |e| checked(e, VmcsField::$rights)
                => |e| granularity(e, VmcsField::$rights, VmcsField::$limit),
                hint "G 1 needs ones in bits 11:0 of the limit, and a limit above 0xfffff needs G 1.";)*

            "guest-tr-type", "The type of TR is that of a busy TSS, of 64 bits in an IA-32e mode guest", [GuestTrAccessRights EntryControls]
                => |e| match e.rights(VmcsField::GuestTrAccessRights).kind() {
                    11 => true,
                    3 => !e.entry().ia32e_mode_guest(),
                    _ => false,
                },
                hint "LTR marks the TSS busy: the access rights are 0x8b, not the descriptor's 0x89.";
            "guest-tr-s", "S of TR is 0", [GuestTrAccessRights] => |e| !e.rights(VmcsField::GuestTrAccessRights).s();
            "guest-tr-present", "TR is present", [GuestTrAccessRights] => |e| e.rights(VmcsField::GuestTrAccessRights).p();
            "guest-tr-reserved", "Reserved access rights of TR are 0", [GuestTrAccessRights]
                => |e| e.get(VmcsField::GuestTrAccessRights) & RESERVED == 0;
            "guest-tr-granularity", "G of TR agrees with its limit", [GuestTrAccessRights GuestTrLimit]
                => |e| granularity(e, VmcsField::GuestTrAccessRights, VmcsField::GuestTrLimit);
            "guest-tr-usable", "TR is usable", [GuestTrAccessRights] => |e| !e.rights(VmcsField::GuestTrAccessRights).unusable(),
                hint "TR cannot be unusable, even in a guest that never loaded it: access rights 0x8b, limit 0x67.";

            "guest-ldtr-type", "The type of a usable LDTR is 2", [GuestLdtrAccessRights], if ldtr_usable
                => |e| e.rights(VmcsField::GuestLdtrAccessRights).kind() == 2,
                hint "A guest without an LDT has the access rights 0x10000, which is unusable.";
            "guest-ldtr-s", "S of a usable LDTR is 0", [GuestLdtrAccessRights], if ldtr_usable
                => |e| !e.rights(VmcsField::GuestLdtrAccessRights).s();
            "guest-ldtr-present", "A usable LDTR is present", [GuestLdtrAccessRights], if ldtr_usable
                => |e| e.rights(VmcsField::GuestLdtrAccessRights).p(),
                hint "A guest without an LDT has the access rights 0x10000, which is unusable.";
            "guest-ldtr-reserved", "Reserved access rights of a usable LDTR are 0", [GuestLdtrAccessRights], if ldtr_usable
                => |e| e.get(VmcsField::GuestLdtrAccessRights) & RESERVED == 0;
            "guest-ldtr-granularity", "G of a usable LDTR agrees with its limit", [GuestLdtrAccessRights GuestLdtrLimit], if ldtr_usable
                => |e| granularity(e, VmcsField::GuestLdtrAccessRights, VmcsField::GuestLdtrLimit);
        }
    };
}

segment_checks! {
    "cs" "CS" GuestCsSelector GuestCsBase GuestCsLimit GuestCsAccessRights |e| e.get(VmcsField::GuestCsBase) >> 32 == 0;
    "ss" "SS" GuestSsSelector GuestSsBase GuestSsLimit GuestSsAccessRights
        |e| e.rights(VmcsField::GuestSsAccessRights).unusable() || e.get(VmcsField::GuestSsBase) >> 32 == 0;
    "ds" "DS" GuestDsSelector GuestDsBase GuestDsLimit GuestDsAccessRights
        |e| e.rights(VmcsField::GuestDsAccessRights).unusable() || e.get(VmcsField::GuestDsBase) >> 32 == 0;
    "es" "ES" GuestEsSelector GuestEsBase GuestEsLimit GuestEsAccessRights
        |e| e.rights(VmcsField::GuestEsAccessRights).unusable() || e.get(VmcsField::GuestEsBase) >> 32 == 0;
    "fs" "FS" GuestFsSelector GuestFsBase GuestFsLimit GuestFsAccessRights |e| is_canonical(e.get(VmcsField::GuestFsBase));
    "gs" "GS" GuestGsSelector GuestGsBase GuestGsLimit GuestGsAccessRights |e| is_canonical(e.get(VmcsField::GuestGsBase));
}

/// Whether the access rights of a segment register are checked: outside virtual-8086 mode, for CS always, for the others if usable.
fn checked(e: &Entry<'_>, rights: VmcsField) -> bool {
    !e.virtual_8086() && (rights == VmcsField::GuestCsAccessRights || !e.rights(rights).unusable())
}

/// Whether DPL and RPL of a data segment are compared: not for an unrestricted guest, and not for conforming code.
fn privilege_checked(e: &Entry<'_>, rights: VmcsField) -> bool {
    checked(e, rights) && !e.secondary().unrestricted_guest() && e.rights(rights).kind() <= 11
}

fn is_readable_and_accessed(e: &Entry<'_>, rights: VmcsField) -> bool {
    let kind = e.rights(rights).kind();
    kind & 1 != 0 && (kind & 8 == 0 || kind & 2 != 0)
}

/// If any of bits 11:0 of the limit is 0, G is 0; if any of bits 31:20 is 1, G is 1.
fn granularity(e: &Entry<'_>, rights: VmcsField, limit: VmcsField) -> bool {
    let limit = e.get(limit);
    let g = e.rights(rights).g();
    (limit & 0xfff == 0xfff || !g) && (limit >> 20 == 0 || g)
}

fn ldtr_usable(e: &Entry<'_>) -> bool {
    !e.rights(VmcsField::GuestLdtrAccessRights).unusable()
}
