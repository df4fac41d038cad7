//! The packed words of the control area: virtual interrupts, interrupt shadow, nested paging, TLB control, clean bits.
//!
//! Manual: APM volume 2, appendix B, table B-1 "VMCB Layout, Control Area"; the section of each word is beside it.
//! What is modelled: every bit the table names. What is not: what the bits do, which is the `svm` crate's.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset 060h: virtual interrupts, the virtual global interrupt flag and virtual NMIs.
///
/// APM 15.21.1 "Virtual Interrupts", 15.33 "Virtual GIF" and 15.21.10 "NMI Virtualization".
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VirtualInterrupt {
    /// V_TPR, bits 7:0: the guest's task priority; bits 3:0 are CR8.
    pub v_tpr: u8,
    /// V_IRQ, bit 8: a virtual interrupt is pending.
    pub v_irq: bool,
    /// VGIF, bit 9: the value of the virtual global interrupt flag.
    pub v_gif: bool,
    __: bool,
    /// V_NMI, bit 11: a virtual NMI is pending.
    pub v_nmi: bool,
    /// V_NMI_MASK, bit 12: virtual NMIs are masked.
    pub v_nmi_mask: bool,
    #[bits(3)]
    __: u8,
    /// V_INTR_PRIO, bits 19:16: priority of the virtual interrupt.
    #[bits(4)]
    pub v_intr_prio: u8,
    /// V_IGN_TPR, bit 20: the virtual interrupt ignores the task priority.
    pub v_ign_tpr: bool,
    #[bits(3)]
    __: u8,
    /// V_INTR_MASKING, bit 24: RFLAGS.IF and CR8 of the guest rule virtual interrupts only.
    pub v_intr_masking: bool,
    /// AMD Virtual GIF enabled, bit 25.
    pub v_gif_enable: bool,
    /// V_NMI_ENABLE, bit 26.
    pub v_nmi_enable: bool,
    #[bits(3)]
    __: u8,
    /// x2AVIC enable, bit 30.
    pub x2avic_enable: bool,
    /// AVIC enable, bit 31.
    pub avic_enable: bool,
    /// V_INTR_VECTOR, bits 39:32.
    pub v_intr_vector: u8,
    #[bits(24)]
    __: u32,
}

/// Offset 068h: what blocks interrupts in the guest.
///
/// APM 15.21.5 "Interrupt Shadows".
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct InterruptState {
    /// INTERRUPT_SHADOW, bit 0: the guest is in the shadow of STI or of a load of SS.
    pub interrupt_shadow: bool,
    /// GUEST_INTERRUPT_MASK, bit 1: RFLAGS.IF of a guest with encrypted state.
    pub guest_interrupt_mask: bool,
    #[bits(62)]
    __: u64,
}

/// Offset 090h: nested paging and the enables of encrypted guests.
///
/// APM 15.25 "Nested Paging".
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NestedControl {
    /// NP_ENABLE, bit 0: nested paging.
    pub np_enable: bool,
    /// Secure encrypted virtualization, bit 1.
    pub sev_enable: bool,
    /// Encrypted state, bit 2.
    pub sev_es_enable: bool,
    /// Guest mode execute trap, bit 3.
    pub gmet_enable: bool,
    /// Supervisor shadow stack check, bit 4.
    pub sss_check_enable: bool,
    /// Virtual transparent encryption, bit 5.
    pub vte_enable: bool,
    /// Read-only guest page tables, bit 6.
    pub rogpt_enable: bool,
    /// INVLPGB and TLBSYNC in the guest, bit 7.
    pub invlpgb_tlbsync_enable: bool,
    #[bits(56)]
    __: u64,
}

/// Offset 0B8h: LBR virtualization and virtual VMLOAD and VMSAVE.
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VirtualExtensions {
    /// LBR_VIRTUALIZATION_ENABLE, bit 0; APM 15.23 "Last Branch Record Virtualization".
    pub lbr_virtualization: bool,
    /// Virtual VMLOAD and VMSAVE, bit 1; APM 15.33.1 "Virtual VMLOAD and VMSAVE".
    pub virtual_vmload_vmsave: bool,
    /// IBS virtualization, bit 2.
    pub ibs_virtualization: bool,
    /// PMC virtualization, bit 3.
    pub pmc_virtualization: bool,
    #[bits(60)]
    __: u64,
}

/// Offset 05Ch: what VMRUN flushes from the TLB.
///
/// APM 15.16.1 "TLB Flush". Other encodings are reserved, so this is the raw byte with names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct TlbControl(pub u8);

impl TlbControl {
    /// Do nothing.
    pub const DO_NOTHING: Self = Self(0);
    /// Flush the entire TLB, all ASIDs, global and non-global pages.
    pub const FLUSH_ALL: Self = Self(1);
    /// Flush this guest's TLB entries; needs FlushByAsid.
    pub const FLUSH_GUEST: Self = Self(3);
    /// Flush this guest's non-global TLB entries; needs FlushByAsid.
    pub const FLUSH_GUEST_NON_GLOBAL: Self = Self(7);

    /// Whether the manual defines this encoding on a processor with or without FlushByAsid.
    #[must_use]
    pub const fn is_defined(self, flush_by_asid: bool) -> bool {
        matches!(self, Self::DO_NOTHING | Self::FLUSH_ALL)
            || flush_by_asid && matches!(self, Self::FLUSH_GUEST | Self::FLUSH_GUEST_NON_GLOBAL)
    }
}

/// Offset 0C0h: the parts of the VMCB that the software has not changed since the last #VMEXIT.
///
/// APM 15.15.3 "VMCB Clean Field". A set bit allows the processor to use what it has cached; it never has to.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CleanBits {
    /// I, bit 0: intercept words, TSC offset, pause filter.
    pub intercepts: bool,
    /// IOPM, bit 1: IOPM_BASE and MSRPM_BASE.
    pub permission_maps: bool,
    /// ASID, bit 2.
    pub asid: bool,
    /// TPR, bit 3: the words at offset 060h.
    pub virtual_interrupt: bool,
    /// NP, bit 4: NCR3, G_PAT, NP_ENABLE.
    pub nested_paging: bool,
    /// CRx, bit 5: CR0, CR3, CR4, EFER.
    pub control_registers: bool,
    /// DRx, bit 6: DR6, DR7.
    pub debug_registers: bool,
    /// DT, bit 7: GDT and IDT limit and base.
    pub descriptor_tables: bool,
    /// SEG, bit 8: CS, DS, SS, ES and CPL.
    pub segments: bool,
    /// CR2, bit 9.
    pub cr2: bool,
    /// LBR, bit 10: DbgCtl and the last-branch registers.
    pub last_branch: bool,
    /// AVIC, bit 11.
    pub avic: bool,
    /// CET, bit 12: S_CET, SSP, ISST_ADDR.
    pub cet: bool,
    #[bits(19)]
    __: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_table_b_1_has_them() {
        let cases: [(u64, u64); 8] = [
            (VirtualInterrupt::new().with_v_irq(true).into_bits(), 1 << 8),
            (VirtualInterrupt::new().with_v_gif(true).into_bits(), 1 << 9),
            (VirtualInterrupt::new().with_v_nmi_mask(true).into_bits(), 1 << 12),
            (VirtualInterrupt::new().with_v_ign_tpr(true).into_bits(), 1 << 20),
            (VirtualInterrupt::new().with_v_intr_masking(true).into_bits(), 1 << 24),
            (VirtualInterrupt::new().with_avic_enable(true).into_bits(), 1 << 31),
            (VirtualInterrupt::new().with_v_intr_vector(0x41).into_bits(), 0x41 << 32),
            (u64::from(CleanBits::new().with_cet(true).into_bits()), 1 << 12),
        ];
        for (left, right) in cases {
            assert_eq!(left, right);
        }
    }

    #[test]
    fn flush_by_asid_defines_two_more_encodings() {
        let defined = |feature| (0..=255).filter(|raw| TlbControl(*raw).is_defined(feature)).collect::<Vec<u8>>();
        assert_eq!(defined(false), [0, 1]);
        assert_eq!(defined(true), [0, 1, 3, 7]);
    }
}
