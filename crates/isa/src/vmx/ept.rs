//! Words of the extended page tables, and of the instructions that invalidate translations.
//!
//! Modelled: the EPT pointer, the entries of every level, the types and descriptors of INVEPT and INVVPID.
//! Not modelled: the walk itself, which is in the `vmx` crate; sub-page permissions and page-write control are named, no more.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Extended-page-table pointer, SDM 25.6.11 "Extended-Page-Table Pointer (EPTP)".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct EptPointer {
    /// Memory type of the EPT paging structures: 0 uncacheable, 6 write-back.
    #[bits(3)]
    pub memory_type: u8,
    /// Page-walk length less one.
    #[bits(3)]
    pub walk_length_minus_one: u8,
    /// Accessed and dirty flags are enabled.
    pub accessed_dirty: bool,
    /// Access rights for supervisor shadow-stack pages are enforced.
    pub supervisor_shadow_stack: bool,
    /// Reserved; VM entry checks it to be 0.
    #[bits(4)]
    pub reserved: u8,
    /// Bits 63:12 of the physical address of the top table; bits past the physical-address width are reserved.
    #[bits(52)]
    pub frame: u64,
}

impl EptPointer {
    /// Physical address of the top table.
    pub const fn table(self) -> u64 {
        self.frame() << 12
    }
}

/// Entry of any EPT table, SDM 29.3.2 "EPT Translation Mechanism". Which bits mean something depends on level and capabilities.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct EptEntry {
    /// Read access.
    pub read: bool,
    /// Write access.
    pub write: bool,
    /// Execute access (with mode-based execute control: for supervisor-mode linear addresses).
    pub execute: bool,
    /// Memory type of a page; reserved in an entry that refers to a table.
    #[bits(3)]
    pub memory_type: u8,
    /// Ignore PAT memory type, of a page; reserved in an entry that refers to a table.
    pub ignore_pat: bool,
    /// The entry maps a page of 1 GiB or 2 MiB (levels 3 and 2); reserved in level 4, ignored in level 1.
    pub large_page: bool,
    /// Accessed, where the EPT pointer enables the flags.
    pub accessed: bool,
    /// Dirty, of a page, where the EPT pointer enables the flags.
    pub dirty: bool,
    /// Execute access for user-mode linear addresses, with mode-based execute control.
    pub user_execute: bool,
    __: bool,
    /// Bits 51:12 of the physical address of the table or page; bits past the physical-address width are reserved.
    #[bits(40)]
    pub frame: u64,
    #[bits(5)]
    __: u8,
    /// Verify guest paging, of a page.
    pub verify_guest_paging: bool,
    /// Paging-write access, of a page.
    pub paging_write: bool,
    __: bool,
    /// Supervisor shadow stack, of a page.
    pub supervisor_shadow_stack: bool,
    /// Sub-page write permissions, of a 4 KiB page.
    pub sub_page_write: bool,
    __: bool,
    /// Suppress #VE, of a page.
    pub suppress_ve: bool,
}

impl EptEntry {
    /// True where any access is allowed; an entry without is not present.
    ///
    /// SDM 29.3.2 "EPT Translation Mechanism".
    pub const fn present(self, mode_based_execute_control: bool) -> bool {
        self.into_bits() & 7 != 0 || mode_based_execute_control && self.user_execute()
    }

    /// Physical address of the table or page, before any cut to the size of a large page.
    pub const fn address(self) -> u64 {
        self.frame() << 12
    }
}

macro_rules! invalidation_types {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[repr(u64)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)*
        }

        impl $name {
            /// The type with this number; `None` where there is none.
            pub const fn from_number(number: u64) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }
        }
    };
}

invalidation_types! {
    /// INVEPT type, SDM volume 3 chapter 31 "INVEPT - Invalidate Translations Derived from EPT".
    InveptType {
        /// Mappings associated with bits 51:12 of the EPT pointer in the descriptor.
        SingleContext = 1;
        /// Mappings associated with all EPT pointers.
        AllContext = 2;
    }
}

invalidation_types! {
    /// INVVPID type, SDM volume 3 chapter 31 "INVVPID - Invalidate Translations Based on VPID".
    InvvpidType {
        /// Linear mappings of one address for one VPID.
        IndividualAddress = 0;
        /// All mappings of one VPID.
        SingleContext = 1;
        /// All mappings of all VPIDs but 0.
        AllContext = 2;
        /// All mappings of one VPID but its global translations.
        SingleContextRetainingGlobals = 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ept_pointer_as_hypervisors_write_it() {
        let pointer = EptPointer::from_bits(0x1234_505e);
        assert_eq!((pointer.memory_type(), pointer.walk_length_minus_one()), (6, 3));
        assert!(pointer.accessed_dirty());
        assert_eq!(pointer.table(), 0x1234_5000);
    }

    #[test]
    fn the_places_of_entry_bits() {
        assert_eq!(EptEntry::new().with_large_page(true).into_bits(), 1 << 7);
        assert_eq!(EptEntry::new().with_user_execute(true).into_bits(), 1 << 10);
        assert_eq!(EptEntry::new().with_verify_guest_paging(true).into_bits(), 1 << 57);
        assert_eq!(EptEntry::new().with_supervisor_shadow_stack(true).into_bits(), 1 << 60);
        assert_eq!(EptEntry::new().with_suppress_ve(true).into_bits(), 1 << 63);
        assert_eq!(EptEntry::from_bits(u64::MAX).address(), 0xf_ffff_ffff_f000);
    }

    #[test]
    fn user_execute_makes_present_only_with_mode_based_control() {
        let entry = EptEntry::new().with_user_execute(true);
        assert!(entry.present(true) && !entry.present(false));
        assert!(EptEntry::new().with_write(true).present(false));
    }
}
