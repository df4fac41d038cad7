//! The virtual machine control block: 4 KiB of memory that tells VMRUN what to run and #VMEXIT where to save it.
//!
//! Manual: APM volume 2, appendix B "VMCB Layout", table B-1 "VMCB Layout, Control Area" and table B-2 "VMCB Layout,
//! State Save Area".
//!
//! What is modelled: both areas as structures whose offsets the compiler checks. Fields of extensions that the
//! silicon does not offer (AVIC, SEV, IBS, LBR stack) have their place and their name, so that a dump shows them.
//! What is not: the save area of guests with encrypted state.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::attributes::SegmentAttributes;
use super::control::{CleanBits, InterruptState, NestedControl, TlbControl, VirtualExtensions, VirtualInterrupt};
use super::event::EventInformation;
use super::exit_code::ExitCode;
use super::intercept::Intercepts;
use super::layout::layout;

/// Bytes of a VMCB, which is also its alignment.
pub const VMCB_SIZE: usize = 0x1000;

layout! {
    /// The control area: what VMRUN reads as orders, and what #VMEXIT writes as its report.
    pub struct ControlArea, size 0x400 {
        /// The six intercept words; bit index == exit code.
        0x000 intercepts: Intercepts = "INTERCEPTS",
        /// Reserved, should be zero.
        0x018 reserved_018: [u8; 0x03c - 0x018],
        /// PAUSEs closer together than this many cycles count as one loop.
        0x03c pause_filter_threshold: u16 = "PAUSE_FILTER_THRESHOLD",
        /// PAUSEs to let pass before one is intercepted.
        0x03e pause_filter_count: u16 = "PAUSE_FILTER_COUNT",
        /// Physical address of the I/O permission map; bits 11:0 are ignored.
        0x040 iopm_base_pa: u64 = "IOPM_BASE_PA",
        /// Physical address of the MSR permission map; bits 11:0 are ignored.
        0x048 msrpm_base_pa: u64 = "MSRPM_BASE_PA",
        /// Added to the time-stamp counter when the guest reads it.
        0x050 tsc_offset: u64 = "TSC_OFFSET",
        /// The guest's address space identifier; zero is the host's and illegal.
        0x058 guest_asid: u32 = "GUEST_ASID",
        /// What VMRUN flushes from the TLB.
        0x05c tlb_control: TlbControl = "TLB_CONTROL",
        /// Bit 0 ALLOW_LARGER_RAP, bit 1 CLEAR_RAP.
        0x05d return_address_predictor: u8 = "ERAPS_CONTROL",
        /// Reserved, should be zero.
        0x05e reserved_05e: [u8; 0x060 - 0x05e],
        /// V_TPR, V_IRQ, V_GIF, V_NMI and their controls.
        0x060 virtual_interrupt: VirtualInterrupt = "V_INTR",
        /// The interrupt shadow of the guest.
        0x068 interrupt_state: InterruptState = "INTERRUPT_SHADOW",
        /// Why the guest stopped.
        0x070 exit_code: ExitCode = "EXITCODE",
        /// First word of detail, by exit code.
        0x078 exit_info_1: u64 = "EXITINFO1",
        /// Second word of detail, by exit code.
        0x080 exit_info_2: u64 = "EXITINFO2",
        /// The event whose delivery the exit interrupted.
        0x088 exit_int_info: EventInformation = "EXITINTINFO",
        /// Nested paging and the SEV enables.
        0x090 nested_control: NestedControl = "NP_CONTROL",
        /// Guest physical address of the AVIC's APIC page.
        0x098 avic_apic_bar: u64 = "AVIC_APIC_BAR",
        /// Guest physical address of the GHCB.
        0x0a0 ghcb: u64 = "GHCB_PA",
        /// The event that VMRUN delivers before the guest's first instruction.
        0x0a8 event_injection: EventInformation = "EVENTINJ",
        /// Root of the nested page table.
        0x0b0 n_cr3: u64 = "N_CR3",
        /// LBR virtualization and virtual VMLOAD and VMSAVE.
        0x0b8 virtual_extensions: VirtualExtensions = "VIRT_EXT",
        /// Which parts the software has not changed since the last #VMEXIT.
        0x0c0 clean: CleanBits = "VMCB_CLEAN",
        /// Reserved, should be zero.
        0x0c4 reserved_0c4: [u8; 0x0c8 - 0x0c4],
        /// Address of the next instruction after the one intercepted; zero where it is not defined.
        0x0c8 next_rip: u64 = "NRIP",
        /// How many of the instruction bytes are valid, 0 to 15.
        0x0d0 bytes_fetched: u8 = "BYTES_FETCHED",
        /// The bytes at CS:RIP when a page fault or a nested page fault was intercepted.
        0x0d1 instruction_bytes: [u8; 15] = "GUEST_INSTRUCTION_BYTES",
        /// Physical address of the AVIC backing page.
        0x0e0 avic_backing_page: u64 = "AVIC_BACKING_PAGE",
        /// Reserved, should be zero.
        0x0e8 reserved_0e8: [u8; 0x0f0 - 0x0e8],
        /// Physical address of the AVIC logical table.
        0x0f0 avic_logical_table: u64 = "AVIC_LOGICAL_TABLE",
        /// Physical address of the AVIC physical table and its last index.
        0x0f8 avic_physical_table: u64 = "AVIC_PHYSICAL_TABLE",
        /// Reserved, should be zero.
        0x100 reserved_100: [u8; 0x108 - 0x100],
        /// Physical address of the save area of a guest with encrypted state.
        0x108 vmsa: u64 = "VMSA_PA",
        /// RAX at VMGEXIT.
        0x110 vmgexit_rax: u64 = "VMGEXIT_RAX",
        /// CPL at VMGEXIT.
        0x118 vmgexit_cpl: u8 = "VMGEXIT_CPL",
        /// Reserved, should be zero.
        0x119 reserved_119: [u8; 0x120 - 0x119],
        /// Bus locks the guest may take before one exits.
        0x120 bus_lock_threshold: u16 = "BUS_LOCK_THRESHOLD_COUNTER",
        /// Reserved, should be zero, but for words of SEV-SNP that are not named here.
        0x122 reserved_122: [u8; 0x3e0 - 0x122],
        /// The hypervisor's own: the processor never touches it.
        0x3e0 reserved_for_host: [u8; 0x400 - 0x3e0] = "RESERVED_FOR_HOST",
    }
}

/// A segment or descriptor-table register as the save area holds it: 16 bytes.
///
/// For GDTR and IDTR the selector and attributes are reserved and only limit bits 15:0 count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SegmentRegister {
    /// The selector.
    pub selector: u16,
    /// Descriptor attributes, packed to 12 bits.
    pub attributes: SegmentAttributes,
    /// The limit in bytes, granularity already applied.
    pub limit: u32,
    /// The base address.
    pub base: u64,
}

const _: () = {
    assert!(core::mem::offset_of!(SegmentRegister, selector) == 0);
    assert!(core::mem::offset_of!(SegmentRegister, attributes) == 2);
    assert!(core::mem::offset_of!(SegmentRegister, limit) == 4);
    assert!(core::mem::offset_of!(SegmentRegister, base) == 8);
    assert!(size_of::<SegmentRegister>() == 16);
};

impl SegmentRegister {
    /// Takes over a register, field by field: a #VMEXIT does it ten times, and a value that is built and then copied is slower.
    #[inline]
    pub fn set(&mut self, segment: &crate::segment::SegmentRegister) {
        self.selector = segment.selector.into_bits();
        self.attributes = segment.attributes.into();
        self.limit = segment.limit;
        self.base = segment.base;
    }

    /// Loads a register from here, field by field.
    #[inline]
    pub fn load_into(&self, segment: &mut crate::segment::SegmentRegister) {
        segment.selector = crate::segment::Selector::from_bits(self.selector);
        segment.attributes = self.attributes.into();
        segment.limit = self.limit;
        segment.base = self.base;
    }
}

impl From<crate::segment::SegmentRegister> for SegmentRegister {
    fn from(segment: crate::segment::SegmentRegister) -> Self {
        Self { selector: segment.selector.into_bits(), attributes: segment.attributes.into(), limit: segment.limit, base: segment.base }
    }
}

impl From<SegmentRegister> for crate::segment::SegmentRegister {
    fn from(segment: SegmentRegister) -> Self {
        Self {
            selector: crate::segment::Selector::from_bits(segment.selector),
            base: segment.base,
            limit: segment.limit,
            attributes: segment.attributes.into(),
        }
    }
}

impl From<crate::segment::TableRegister> for SegmentRegister {
    fn from(table: crate::segment::TableRegister) -> Self {
        Self { limit: u32::from(table.limit), base: table.base, ..Self::default() }
    }
}

impl From<SegmentRegister> for crate::segment::TableRegister {
    fn from(segment: SegmentRegister) -> Self {
        Self { base: segment.base, limit: segment.limit as u16 }
    }
}

layout! {
    /// The state save area: the guest's registers that VMRUN loads and #VMEXIT stores.
    ///
    /// FS, GS, LDTR, TR and the MSRs from STAR to SYSENTER_EIP (without CR2) belong to VMLOAD and VMSAVE, see
    /// APM 15.5.2 "VMSAVE and VMLOAD Instructions".
    pub struct SaveArea, size 0xc00 {
        /// ES.
        0x000 es: SegmentRegister = "ES",
        /// CS.
        0x010 cs: SegmentRegister = "CS",
        /// SS.
        0x020 ss: SegmentRegister = "SS",
        /// DS.
        0x030 ds: SegmentRegister = "DS",
        /// FS; VMLOAD and VMSAVE.
        0x040 fs: SegmentRegister = "FS",
        /// GS; VMLOAD and VMSAVE.
        0x050 gs: SegmentRegister = "GS",
        /// GDTR.
        0x060 gdtr: SegmentRegister = "GDTR",
        /// LDTR; VMLOAD and VMSAVE.
        0x070 ldtr: SegmentRegister = "LDTR",
        /// IDTR.
        0x080 idtr: SegmentRegister = "IDTR",
        /// TR; VMLOAD and VMSAVE.
        0x090 tr: SegmentRegister = "TR",
        /// Reserved.
        0x0a0 reserved_0a0: [u8; 0x0cb - 0x0a0],
        /// The guest's privilege level, forced to 0 in real mode and to 3 in virtual-8086 mode.
        0x0cb cpl: u8 = "CPL",
        /// Reserved.
        0x0cc reserved_0cc: [u8; 0x0d0 - 0x0cc],
        /// EFER.
        0x0d0 efer: u64 = "EFER",
        /// Reserved.
        0x0d8 reserved_0d8: [u8; 0x0e0 - 0x0d8],
        /// PERF_CTL0, PERF_CTR0 to PERF_CTL5, PERF_CTR5, with PMC virtualization.
        0x0e0 performance_counters: [u64; 12] = "PERF_CTL_CTR",
        /// Reserved.
        0x140 reserved_140: [u8; 0x148 - 0x140],
        /// CR4.
        0x148 cr4: u64 = "CR4",
        /// CR3.
        0x150 cr3: u64 = "CR3",
        /// CR0.
        0x158 cr0: u64 = "CR0",
        /// DR7.
        0x160 dr7: u64 = "DR7",
        /// DR6.
        0x168 dr6: u64 = "DR6",
        /// RFLAGS.
        0x170 rflags: u64 = "RFLAGS",
        /// RIP.
        0x178 rip: u64 = "RIP",
        /// Reserved.
        0x180 reserved_180: [u8; 0x1c0 - 0x180],
        /// Instructions retired, with PMC virtualization.
        0x1c0 instructions_retired: u64 = "INSTR_RETIRED_CTR",
        /// Overflow status, with PMC virtualization.
        0x1c8 performance_global_status: u64 = "PERF_CTR_GLOBAL_STS",
        /// Global enables, with PMC virtualization.
        0x1d0 performance_global_control: u64 = "PERF_CTR_GLOBAL_CTL",
        /// RSP.
        0x1d8 rsp: u64 = "RSP",
        /// Supervisor shadow-stack control.
        0x1e0 s_cet: u64 = "S_CET",
        /// Shadow-stack pointer.
        0x1e8 ssp: u64 = "SSP",
        /// Interrupt shadow-stack table address.
        0x1f0 isst_addr: u64 = "ISST_ADDR",
        /// RAX; the other general registers are the software's to switch.
        0x1f8 rax: u64 = "RAX",
        /// STAR; VMLOAD and VMSAVE.
        0x200 star: u64 = "STAR",
        /// LSTAR; VMLOAD and VMSAVE.
        0x208 lstar: u64 = "LSTAR",
        /// CSTAR; VMLOAD and VMSAVE.
        0x210 cstar: u64 = "CSTAR",
        /// SFMASK; VMLOAD and VMSAVE.
        0x218 sfmask: u64 = "SFMASK",
        /// KernelGSBase; VMLOAD and VMSAVE.
        0x220 kernel_gs_base: u64 = "KERNEL_GS_BASE",
        /// SYSENTER_CS; VMLOAD and VMSAVE.
        0x228 sysenter_cs: u64 = "SYSENTER_CS",
        /// SYSENTER_ESP; VMLOAD and VMSAVE.
        0x230 sysenter_esp: u64 = "SYSENTER_ESP",
        /// SYSENTER_EIP; VMLOAD and VMSAVE.
        0x238 sysenter_eip: u64 = "SYSENTER_EIP",
        /// CR2.
        0x240 cr2: u64 = "CR2",
        /// Reserved.
        0x248 reserved_248: [u8; 0x268 - 0x248],
        /// The guest's PAT, used only with nested paging.
        0x268 g_pat: u64 = "G_PAT",
        /// DebugCtl, with LBR virtualization.
        0x270 debug_control: u64 = "DBGCTL",
        /// LastBranchFromIP, with LBR virtualization.
        0x278 last_branch_from: u64 = "BR_FROM",
        /// LastBranchToIP, with LBR virtualization.
        0x280 last_branch_to: u64 = "BR_TO",
        /// LastIntFromIP, with LBR virtualization.
        0x288 last_exception_from: u64 = "LASTEXCPFROM",
        /// LastIntToIP, with LBR virtualization.
        0x290 last_exception_to: u64 = "LASTEXCPTO",
        /// Debug extension control, with LBR stack virtualization.
        0x298 debug_extension_control: u64 = "DBGEXTNCTL",
        /// Reserved.
        0x2a0 reserved_2a0: [u8; 0x2e0 - 0x2a0],
        /// The guest's SPEC_CTRL, where the processor virtualizes it.
        0x2e0 spec_ctrl: u64 = "SPEC_CTRL",
        /// Reserved, but for the LBR stack and IBS, which are not modelled.
        0x2e8 reserved_2e8: [u8; 0xc00 - 0x2e8],
    }
}

/// The whole block, as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Vmcb {
    /// Orders and report.
    pub control: ControlArea,
    /// The guest's registers.
    pub save: SaveArea,
}

const _: () = {
    assert!(core::mem::offset_of!(Vmcb, control) == 0x000);
    assert!(core::mem::offset_of!(Vmcb, save) == 0x400);
    assert!(size_of::<Vmcb>() == VMCB_SIZE);
};

impl Vmcb {
    /// All bytes zero.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows follow appendix B: rising, not overlapping, inside the area.
    fn is_ordered(fields: &[super::super::layout::Field], size: usize) {
        let mut end = 0;
        for field in fields {
            assert!(field.offset >= end, "{} starts inside the field before it", field.name);
            end = field.offset + field.size;
        }
        assert!(end <= size);
    }

    #[test]
    fn fields_rise_and_do_not_overlap() {
        is_ordered(ControlArea::FIELDS, 0x400);
        is_ordered(SaveArea::FIELDS, 0xc00);
    }

    #[test]
    fn fields_are_found_in_raw_bytes() {
        let mut page = vec![0; VMCB_SIZE];
        page[0x40..0x48].copy_from_slice(&0x1234_5000_u64.to_le_bytes());
        page[0x58..0x5c].copy_from_slice(&7_u32.to_le_bytes());
        page[0x5c] = 3;
        page[0x400 + 0x10..0x400 + 0x12].copy_from_slice(&8_u16.to_le_bytes());
        page[0x400 + 0x1f8..0x400 + 0x200].copy_from_slice(&0xfeed_u64.to_le_bytes());
        let vmcb = Vmcb::read_from_bytes(&page).unwrap();
        assert_eq!(vmcb.control.iopm_base_pa, 0x1234_5000);
        assert_eq!(vmcb.control.guest_asid, 7);
        assert_eq!(vmcb.control.tlb_control, TlbControl::FLUSH_GUEST);
        assert_eq!(vmcb.save.cs.selector, 8);
        assert_eq!(vmcb.save.rax, 0xfeed);
        assert_eq!(vmcb.as_bytes(), page);
    }

    #[test]
    fn changes_are_named_in_order() {
        let before = SaveArea::zeroed();
        let mut after = before;
        after.rip = 3;
        after.cs.base = 1;
        let names: Vec<_> = after.changed_since(&before).map(|field| field.name).collect();
        assert_eq!(names, ["CS", "RIP"]);
        assert!(format!("{after:?}").contains("RIP: 0x3"));
    }
}
