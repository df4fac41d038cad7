//! CPUID leaf 8000_000A: the revision of SVM, how many ASIDs, and which extensions.
//!
//! Manual: APM volume 3, appendix E.4.9 "Function 8000_000A" "SVM Features"; APM volume 2, 15.4 "Enabling SVM".
//! What is modelled: the bits. Which of them a CPU model offers is the model's and the silicon's.

use bitfield_struct::bitfield;

/// The leaf.
pub const SVM_LEAF: u32 = 0x8000_000a;
/// The revision that EAX bits 7:0 report.
pub const SVM_REVISION: u8 = 1;

/// EDX of leaf 8000_000A.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SvmFeatures {
    /// NP, bit 0: nested paging.
    pub nested_paging: bool,
    /// LbrVirt, bit 1: LBR virtualization.
    pub lbr_virtualization: bool,
    /// SVML, bit 2: SVM lock.
    pub svm_lock: bool,
    /// NRIPS, bit 3: next RIP saved on #VMEXIT.
    pub next_rip_save: bool,
    /// TscRateMsr, bit 4: MSR based TSC ratio.
    pub tsc_rate_msr: bool,
    /// VmcbClean, bit 5: VMCB clean bits.
    pub vmcb_clean: bool,
    /// FlushByAsid, bit 6: TLB_CONTROL can flush one guest.
    pub flush_by_asid: bool,
    /// DecodeAssists, bit 7.
    pub decode_assists: bool,
    /// PmcVirt, bit 8: PMC virtualization.
    pub pmc_virtualization: bool,
    __: bool,
    /// PauseFilter, bit 10.
    pub pause_filter: bool,
    __: bool,
    /// PauseFilterThreshold, bit 12.
    pub pause_filter_threshold: bool,
    /// AVIC, bit 13.
    pub avic: bool,
    __: bool,
    /// VMSAVEvirt, bit 15: virtual VMLOAD and VMSAVE.
    pub virtual_vmload_vmsave: bool,
    /// VGIF, bit 16.
    pub virtual_gif: bool,
    /// GMET, bit 17.
    pub gmet: bool,
    /// x2AVIC, bit 18.
    pub x2avic: bool,
    /// SSSCheck, bit 19.
    pub supervisor_shadow_stack_check: bool,
    /// SpecCtrl, bit 20: SPEC_CTRL is virtualized.
    pub spec_ctrl_virtualization: bool,
    /// ROGPT, bit 21.
    pub read_only_guest_page_tables: bool,
    __: bool,
    /// HOST_MCE_OVERRIDE, bit 23.
    pub host_mce_override: bool,
    /// TlbiCtl, bit 24: INVLPGB and TLBSYNC in guests.
    pub tlbi_control: bool,
    /// VNMI, bit 25.
    pub virtual_nmi: bool,
    /// IbsVirt, bit 26.
    pub ibs_virtualization: bool,
    /// ExtLvtAvicAccessChg, bit 27.
    pub extended_lvt_avic_access: bool,
    /// NestedVirtVmcbAddrChk, bit 28: VMRUN, VMLOAD and VMSAVE check the VMCB's guest physical address.
    pub vmcb_address_check: bool,
    /// BusLockThreshold, bit 29.
    pub bus_lock_threshold: bool,
    /// IdleHltIntercept, bit 30.
    pub idle_hlt_intercept: bool,
    __: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_appendix_e_has_them() {
        let cases = [
            (SvmFeatures::new().with_next_rip_save(true), 3),
            (SvmFeatures::new().with_decode_assists(true), 7),
            (SvmFeatures::new().with_pause_filter(true), 10),
            (SvmFeatures::new().with_virtual_gif(true), 16),
            (SvmFeatures::new().with_virtual_nmi(true), 25),
            (SvmFeatures::new().with_idle_hlt_intercept(true), 30),
        ];
        for (features, bit) in cases {
            assert_eq!(features.into_bits(), 1 << bit);
        }
    }
}
