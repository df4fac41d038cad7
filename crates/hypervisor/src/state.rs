//! What a virtual CPU consists of: one table of its registers, with what each vendor can carry.
//!
//! Modelled: every register that a guest can see and that lies in the processor, the VMCS or the VMCB. From the table come the type
//! [`Registers`], the difference between two of them, and the ledger of a move to another vendor. What lies in software (local APIC,
//! pending events) moves as it is, since no vendor has a say in it; see [`crate::vcpu::Software`].
//! Not modelled, because no processor model has it: AVX state, protection keys, CET, performance counters.

use cpu::state::{Activity, Cpu, FpuState, Msrs, Shadow};
use isa::control::{Cr0, Cr4, Efer};
use isa::debug::{Dr6, Dr7};
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{SegmentRegister, TableRegister};
use models::Vendor;
use serde::{Deserialize, Serialize};

/// Whether a vendor's control block and processor can hold a register of the guest.
#[derive(Clone, Copy, Debug)]
pub enum Carry {
    /// As it is.
    Exact,
    /// With a loss, where the condition holds for the registers at hand.
    Narrowed(&'static str, fn(&Registers) -> bool),
    /// Not at all, which matters where the condition holds.
    Absent(&'static str, fn(&Registers) -> bool),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in records and ledgers.
    pub tag: &'static str,
    /// What an Intel processor makes of it.
    pub vmx: Carry,
    /// What an AMD processor makes of it.
    pub svm: Carry,
    differs: fn(&Registers, &Registers) -> bool,
}

macro_rules! vcpu_state {
    ($($(#[doc = $doc:literal])+ $tag:ident: $type:ty, vmx $vmx:expr, svm $svm:expr;)*) => {
        /// The registers of a virtual CPU, in no vendor's format.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Registers {
            $($(#[doc = $doc])+ pub $tag: $type,)*
        }

        /// The table, one row for each field of [`Registers`].
        pub const ROWS: &[Row] = &[$(Row {
            tag: stringify!($tag),
            vmx: { use Carry::*; $vmx },
            svm: { use Carry::*; $svm },
            differs: |a, b| a.$tag != b.$tag,
        }),*];
    };
}

vcpu_state! {
    /// RAX to R15, in the order of their encodings.
    gprs: [u64; 16], vmx Exact, svm Exact;
    /// RIP.
    rip: u64, vmx Exact, svm Exact;
    /// RFLAGS.
    rflags: Rflags, vmx Exact, svm Exact;
    /// The six segment registers in the order of their encodings.
    segments: [SegmentRegister; 6],
        vmx Narrowed("usable data segments must be marked accessed, G must follow from the limit", |r| r.segments.iter().any(|s| fit_vmx(*s) != *s)),
        svm Narrowed("there is no bit for unusable: P is clear instead", |r| r.segments.iter().any(|s| s.attributes.unusable() && s.attributes.p()));
    /// LDTR.
    ldtr: SegmentRegister, vmx Exact,
        svm Narrowed("there is no bit for unusable: P is clear instead", |r| r.ldtr.attributes.unusable() && r.ldtr.attributes.p());
    /// TR.
    tr: SegmentRegister,
        vmx Narrowed("VM entry takes a busy TSS only", |r| fit_vmx_tr(r.tr) != r.tr),
        svm Exact;
    /// GDTR.
    gdtr: TableRegister, vmx Exact, svm Exact;
    /// IDTR.
    idtr: TableRegister, vmx Exact, svm Exact;
    /// CR0 as the guest sees it.
    cr0: Cr0, vmx Exact, svm Exact;
    /// CR2.
    cr2: u64, vmx Exact, svm Exact;
    /// CR3.
    cr3: u64, vmx Exact, svm Exact;
    /// CR4 as the guest sees it.
    cr4: Cr4, vmx Exact, svm Exact;
    /// EFER as the guest sees it.
    efer: Efer,
        vmx Narrowed("LMSLE, FFXSR and TCE exist on AMD only and are cleared", |r| r.efer.lmsle() || r.efer.ffxsr() || r.efer.tce()),
        svm Exact;
    /// Page-directory-pointer-table entries of PAE paging.
    pdptes: [u64; 4], vmx Exact,
        svm Narrowed("they are read again from the table at CR3", |r| r.pae_paging());
    /// Current privilege level.
    cpl: u8,
        vmx Narrowed("it is the DPL of SS", |r| r.cpl != r.segments[Segment::Ss as usize].attributes.dpl() && r.cr0.pe() && !r.rflags.vm()),
        svm Exact;
    /// DR0 to DR3.
    dr: [u64; 4], vmx Exact, svm Exact;
    /// DR6.
    dr6: Dr6, vmx Exact, svm Exact;
    /// DR7.
    dr7: Dr7, vmx Exact, svm Exact;
    /// Blocking of interrupts for one instruction.
    shadow: Shadow, vmx Exact,
        svm Narrowed("one bit stands for STI and MOV SS: MOV SS comes back as STI", |r| r.shadow == Shadow::MovSs);
    /// Debug exceptions that wait for the end of the interrupt shadow.
    pending_debug: u64, vmx Exact,
        svm Absent("there is no field for pending debug exceptions", |r| r.pending_debug != 0);
    /// Blocking by NMI.
    nmi_blocked: bool, vmx Exact,
        svm Narrowed("the hypervisor itself remembers it, and waits for IRET", |r| r.nmi_blocked);
    /// Model-specific registers.
    msrs: Msrs,
        vmx Absent("SYSCFG, HWCR and DE_CFG exist on AMD only", |r| r.msrs.amd != [0; 3]),
        svm Narrowed("SYSENTER takes 32 bits of ESP and EIP outside long mode", |r| (r.msrs.sysenter_esp | r.msrs.sysenter_eip) >> 32 != 0);
    /// XCR0.
    xcr0: u64, vmx Exact, svm Exact;
    /// XMM registers, low half first.
    xmm: [[u64; 2]; 16], vmx Exact, svm Exact;
    /// SSE control and status.
    mxcsr: u32, vmx Exact, svm Exact;
    /// x87 state.
    fpu: FpuState, vmx Exact, svm Exact;
}

impl Registers {
    /// The state of a processor itself: of one that runs a guest now, or of one that never was a host.
    pub fn of(cpu: &Cpu) -> Self {
        let mut gprs = [0; 16];
        gprs.copy_from_slice(&cpu.regs[..16]);
        Self {
            gprs,
            rip: cpu.rip,
            rflags: cpu.rflags(),
            segments: cpu.segments,
            ldtr: cpu.ldtr,
            tr: cpu.tr,
            gdtr: cpu.gdtr,
            idtr: cpu.idtr,
            cr0: cpu.cr0,
            cr2: cpu.cr2,
            cr3: cpu.cr3,
            cr4: cpu.cr4,
            efer: cpu.efer,
            pdptes: cpu.pdptes,
            cpl: cpu.cpl,
            dr: cpu.dr,
            dr6: cpu.dr6,
            dr7: cpu.dr7,
            shadow: cpu.shadow,
            pending_debug: cpu.pending_debug,
            nmi_blocked: cpu.nmi_blocked,
            msrs: cpu.msrs.clone(),
            xcr0: cpu.xcr0,
            xmm: cpu.xmm,
            mxcsr: cpu.mxcsr,
            fpu: cpu.fpu.clone(),
        }
    }

    /// Puts the state into a processor.
    pub fn put(&self, cpu: &mut Cpu) {
        cpu.regs[..16].copy_from_slice(&self.gprs);
        cpu.rip = self.rip;
        cpu.segments = self.segments;
        cpu.ldtr = self.ldtr;
        cpu.tr = self.tr;
        cpu.gdtr = self.gdtr;
        cpu.idtr = self.idtr;
        cpu.cr0 = self.cr0;
        cpu.cr2 = self.cr2;
        cpu.cr3 = self.cr3;
        cpu.cr4 = self.cr4;
        cpu.efer = self.efer;
        cpu.pdptes = self.pdptes;
        cpu.cpl = self.cpl;
        cpu.set_rflags(self.rflags);
        cpu.dr6 = self.dr6;
        cpu.dr7 = self.dr7;
        cpu.shadow = self.shadow;
        cpu.pending_debug = self.pending_debug;
        cpu.nmi_blocked = self.nmi_blocked;
        self.put_shared(cpu);
        cpu.activity = Activity::Active;
        cpu.flush_tlb();
    }

    /// Puts into a processor what neither a VMCS nor a VMCB holds: the software switches it.
    pub fn put_shared(&self, cpu: &mut Cpu) {
        cpu.dr = self.dr;
        cpu.msrs.clone_from(&self.msrs);
        cpu.xcr0 = self.xcr0;
        cpu.xmm = self.xmm;
        cpu.mxcsr = self.mxcsr;
        cpu.fpu.clone_from(&self.fpu);
    }

    /// Gets from a processor what [`Self::put_shared`] puts.
    pub fn get_shared(&mut self, cpu: &Cpu) {
        self.dr = cpu.dr;
        self.msrs.clone_from(&cpu.msrs);
        self.xcr0 = cpu.xcr0;
        self.xmm = cpu.xmm;
        self.mxcsr = cpu.mxcsr;
        self.fpu.clone_from(&cpu.fpu);
    }

    /// 64-bit mode.
    pub fn is_64bit(&self) -> bool {
        self.efer.lma() && self.segments[Segment::Cs as usize].attributes.l()
    }

    /// PAE paging, in which the processor holds page-directory-pointer-table entries.
    pub fn pae_paging(&self) -> bool {
        self.cr0.pg() && self.cr4.pae() && !self.efer.lma()
    }

    /// The linear address of the next instruction.
    pub fn linear_rip(&self) -> u64 {
        linear_rip(self.is_64bit(), self.segments[Segment::Cs as usize].base, self.rip)
    }

    /// The names of the rows in which two states differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        ROWS.iter().filter(|row| (row.differs)(self, other)).map(|row| row.tag).collect()
    }

    /// What a vendor cannot carry of this state: one sentence for each row.
    pub fn ledger(&self, vendor: Vendor) -> Vec<String> {
        let carry = |row: &Row| if vendor == Vendor::Intel { row.vmx } else { row.svm };
        ROWS.iter()
            .filter_map(|row| match carry(row) {
                Carry::Exact => None,
                Carry::Narrowed(reason, applies) => applies(self).then(|| format!("{} narrowed: {reason}", row.tag)),
                Carry::Absent(reason, applies) => applies(self).then(|| format!("{} lost: {reason}", row.tag)),
            })
            .collect()
    }
}

/// The linear address of an instruction.
pub(crate) fn linear_rip(is_64bit: bool, base: u64, rip: u64) -> u64 {
    if is_64bit { rip } else { base.wrapping_add(rip) & 0xffff_ffff }
}

/// A segment register as VM entry accepts it. SDM 27.3.1.2 "Checks on Guest Segment Registers": what is not present is unusable, usable
/// segments are accessed, and G follows from the limit.
pub(crate) fn fit_vmx(mut segment: SegmentRegister) -> SegmentRegister {
    let mut attributes = segment.attributes;
    if attributes.unusable() || !attributes.p() {
        segment.attributes = attributes.with_unusable(true);
        return segment;
    }
    if attributes.s() {
        attributes = attributes.with_kind(attributes.kind() | 1);
    }
    segment.attributes = fit_granularity(attributes, segment.limit);
    segment
}

/// TR as VM entry accepts it: a busy TSS.
pub(crate) fn fit_vmx_tr(mut segment: SegmentRegister) -> SegmentRegister {
    let attributes = segment.attributes.with_kind(segment.attributes.kind() | 2).with_unusable(false).with_p(true).with_s(false);
    segment.attributes = fit_granularity(attributes, segment.limit);
    segment
}

fn fit_granularity(attributes: isa::segment::Attributes, limit: u32) -> isa::segment::Attributes {
    if limit & 0xfff != 0xfff {
        attributes.with_g(false)
    } else if limit >> 20 != 0 {
        attributes.with_g(true)
    } else {
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Registers {
        Registers::of(&Cpu::new(&models::ZEN3, 0, 1, None))
    }

    #[test]
    fn a_state_goes_through_a_processor_unchanged() {
        let mut state = fresh();
        state.gprs[3] = 7;
        state.msrs.star = 5;
        state.xmm[2] = [1, 2];
        state.rflags = state.rflags.with_cf(true);
        let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None);
        state.put(&mut cpu);
        assert_eq!(state.differences(&Registers::of(&cpu)), Vec::<&str>::new());
    }

    #[test]
    fn differences_are_named_by_row() {
        let (one, mut two) = (fresh(), fresh());
        two.rip ^= 1;
        two.cr2 = 9;
        assert_eq!(one.differences(&two), ["rip", "cr2"]);
    }

    #[test]
    fn the_ledger_tells_only_what_is_lost_in_this_state() {
        let mut state = fresh();
        state.segments[0].attributes = state.segments[0].attributes.with_kind(3);
        assert_eq!(state.ledger(Vendor::Amd), Vec::<String>::new());
        state.pending_debug = 1 << 14;
        state.shadow = Shadow::MovSs;
        let ledger = state.ledger(Vendor::Amd);
        assert_eq!(ledger.len(), 2, "{ledger:?}");
        assert!(ledger[1].starts_with("pending_debug lost"));
        state.efer = state.efer.with_ffxsr(true);
        assert!(state.ledger(Vendor::Intel).iter().any(|line| line.starts_with("efer narrowed")));
    }
}
