//! What a virtual CPU consists of: one table of all of it, with what each vendor can carry.
//!
//! Modelled: every register that a guest can see and that lies in the processor, the VMCS or the VMCB; every MSR that is a guest's own; and
//! what lies in software (local APIC, events on their way; [`crate::vcpu::Software`]), which moves as it is but for the events that a
//! vendor's format cannot hold. From the table come the type [`Registers`], the difference between two of them, and the ledger of a move
//! ([`crate::ledger`]).
//! Not modelled, because no processor model has it: AVX state, CET, counting performance counters.

use crate::ledger::{Carry, Move};
use crate::vcpu::{Software, VcpuRecord};
use cpu::last_branches::LastBranches;
use cpu::state::{Activity, Cpu, FpuState, Msrs, Shadow};
use cpu::trap::{Event, EventKind};
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::debug::{Dr6, Dr7};
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, TableRegister};
use models::Vendor;
use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in records: the field.
    pub tag: &'static str,
    /// Its name for people, the manuals' where they have one.
    pub name: &'static str,
    /// What an Intel processor and the hypervisor on it make of it.
    pub vmx: Carry,
    /// What an AMD processor and the hypervisor on it make of it.
    pub svm: Carry,
    pub(crate) differs: Differs,
}

/// How two of it are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Differs {
    /// It is a register.
    Registers(fn(&Registers, &Registers) -> bool),
    /// It is in software.
    Software(fn(&Software, &Software) -> bool),
}

macro_rules! vcpu_state {
    (
        registers { $($(#[doc = $doc:literal])+ $tag:ident: $type:ty = $name:literal, vmx $vmx:expr, svm $svm:expr;)* }
        msrs { $($msr:ident = $msr_name:literal, vmx $msr_vmx:expr, svm $msr_svm:expr;)* }
        software { $($soft:ident = $soft_name:literal, vmx $soft_vmx:expr, svm $soft_svm:expr;)* }
    ) => {
        /// The registers of a virtual CPU, in no vendor's format.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Registers {
            $($(#[doc = $doc])+ pub $tag: $type,)*
            /// Model-specific registers.
            pub msrs: Msrs,
        }

        /// The table: one row for each field of [`Registers`], of the [`Msrs`] in it, and of [`Software`].
        pub const ROWS: &[Row] = {
            use crate::ledger::{Carry::*, Keeper::*};
            &[
            $(Row {
                tag: stringify!($tag),
                name: $name,
                vmx: $vmx,
                svm: $svm,
                differs: Differs::Registers(|a, b| a.$tag != b.$tag),
            },)*
            $(Row {
                tag: concat!("msrs.", stringify!($msr)),
                name: $msr_name,
                vmx: $msr_vmx,
                svm: $msr_svm,
                differs: Differs::Registers(|a, b| a.msrs.$msr != b.msrs.$msr),
            },)*
            $(Row {
                tag: concat!("software.", stringify!($soft)),
                name: $soft_name,
                vmx: $soft_vmx,
                svm: $soft_svm,
                differs: Differs::Software(|a, b| a.$soft != b.$soft),
            },)*
            ]
        };
    };
}

vcpu_state! {
    registers {
        /// RAX to R15, in the order of their encodings.
        gprs: [u64; 16] = "RAX to R15", vmx Exact(Processor), svm Exact(Processor);
        /// RIP.
        rip: u64 = "RIP", vmx Exact(Block), svm Exact(Block);
        /// RFLAGS.
        rflags: Rflags = "RFLAGS", vmx Exact(Block), svm Exact(Block);
        /// The six segment registers in the order of their encodings.
        segments: [SegmentRegister; 6] = "segment registers",
            vmx Narrowed(Block, "usable segments must be marked accessed, G must follow from the limit, and the DPL of SS be the CPL", |m| {
                changed_segments(m.registers, |index| fitted(m.registers, index))
            }),
            svm Narrowed(Block, "there is no bit for unusable: P is clear instead, and what is left of SS follows from the CPL", |m| {
                changed_segments(m.registers, |index| through_vmcb(m.registers, index))
            });
        /// LDTR.
        ldtr: SegmentRegister = "LDTR",
            vmx Narrowed(Block, "what is not present is unusable, and G must follow from the limit", |m| when(fit_vmx(m.registers.ldtr) != m.registers.ldtr)),
            svm Narrowed(Block, "there is no bit for unusable: P is clear instead", |m| when(absent(m.registers.ldtr) != m.registers.ldtr));
        /// TR.
        tr: SegmentRegister = "TR",
            vmx Narrowed(Block, "VM entry takes a busy TSS only", |m| when(fit_vmx_tr(m.registers.tr) != m.registers.tr)),
            svm Exact(Block);
        /// GDTR.
        gdtr: TableRegister = "GDTR", vmx Exact(Block), svm Exact(Block);
        /// IDTR.
        idtr: TableRegister = "IDTR", vmx Exact(Block), svm Exact(Block);
        /// CR0 as the guest sees it.
        cr0: Cr0 = "CR0", vmx Exact(Block), svm Exact(Block);
        /// CR2.
        cr2: u64 = "CR2", vmx Exact(Processor), svm Exact(Block);
        /// CR3.
        cr3: u64 = "CR3", vmx Exact(Block), svm Exact(Block);
        /// CR4 as the guest sees it.
        cr4: Cr4 = "CR4",
            vmx Absent("the processor lacks bits that are set, and VM entry refuses them", lacking_cr4),
            svm Absent("the processor lacks bits that are set, and VMRUN refuses them", lacking_cr4);
        /// EFER as the guest sees it.
        efer: Efer = "EFER",
            vmx Narrowed(Block, "FFXSR, LMSLE and TCE exist on AMD only and are cleared", |m| {
                let lost = m.registers.efer.into_bits() & AMD_EFER;
                (lost != 0).then(|| format!("{lost:#x} of {:#x}", m.registers.efer.into_bits()))
            }),
            svm Absent("the processor lacks bits that are set, and VMRUN refuses them", |m| {
                let lacking = m.registers.efer.into_bits() & !m.to.supported_efer().into_bits();
                (lacking != 0).then(|| format!("{lacking:#x}"))
            });
        /// Page-directory-pointer-table entries of PAE paging.
        pdptes: [u64; 4] = "PDPTEs", vmx Exact(Block),
            svm Narrowed(Processor, "they are read again from the table at CR3, which has other values by now", |m| m.changed_pdptes());
        /// Current privilege level.
        cpl: u8 = "CPL", vmx Exact(Block), svm Exact(Block);
        /// DR0 to DR3.
        dr: [u64; 4] = "DR0 to DR3", vmx Exact(Processor), svm Exact(Processor);
        /// DR6.
        dr6: Dr6 = "DR6", vmx Exact(Processor), svm Exact(Block);
        /// DR7.
        dr7: Dr7 = "DR7", vmx Exact(Block), svm Exact(Block);
        /// Blocking of interrupts for one instruction.
        shadow: Shadow = "interrupt shadow", vmx Exact(Block),
            svm Narrowed(Block, "one bit stands for STI and MOV SS: STI comes back as MOV SS, which blocks more", |m| when(m.registers.shadow == Shadow::Sti));
        /// Debug exceptions that wait for the end of the interrupt shadow.
        pending_debug: u64 = "pending debug exceptions", vmx Exact(Block),
            svm Absent("there is no field for them: they never come", |m| {
                (m.registers.pending_debug != 0).then(|| format!("{:#x}", m.registers.pending_debug))
            });
        /// Blocking by NMI.
        nmi_blocked: bool = "blocking by NMI", vmx Exact(Block), svm Exact(Software);
        /// XCR0.
        xcr0: u64 = "XCR0",
            vmx Absent("the processor lacks the state component PKRU, and XSETBV refuses it", lacking_xcr0),
            svm Absent("the processor lacks the state component PKRU, and XSETBV refuses it", lacking_xcr0);
        /// PKRU: two bits for each protection key.
        pkru: u32 = "PKRU",
            vmx Absent("the processor has no protection keys: pages are open that it closes", lacking_pkru),
            svm Absent("the processor has no protection keys: pages are open that it closes", lacking_pkru);
        /// XMM registers, low half first.
        xmm: [[u64; 2]; 16] = "XMM0 to XMM15", vmx Exact(Processor), svm Exact(Processor);
        /// SSE control and status.
        mxcsr: u32 = "MXCSR", vmx Exact(Processor), svm Exact(Processor);
        /// x87 state.
        fpu: FpuState = "x87 state", vmx Exact(Processor), svm Exact(Processor);
        /// Last-branch records.
        last_branches: LastBranches = "last-branch records",
            vmx Narrowed(Processor, "the processor goes on with a stack of another depth", other_depth),
            svm Narrowed(Processor, "the processor goes on with a stack of another depth", other_depth);
    }
    msrs {
        star = "IA32_STAR", vmx Exact(Processor), svm Exact(Block);
        lstar = "IA32_LSTAR", vmx Exact(Processor), svm Exact(Block);
        cstar = "IA32_CSTAR", vmx Exact(Processor), svm Exact(Block);
        fmask = "IA32_FMASK", vmx Exact(Processor), svm Exact(Block);
        kernel_gs_base = "IA32_KERNEL_GS_BASE", vmx Exact(Processor), svm Exact(Block);
        sysenter_cs = "IA32_SYSENTER_CS", vmx Exact(Block), svm Exact(Block);
        sysenter_esp = "IA32_SYSENTER_ESP", vmx Exact(Block), svm Narrowed(Block, HALF, |m| m.half(m.registers.msrs.sysenter_esp));
        sysenter_eip = "IA32_SYSENTER_EIP", vmx Exact(Block), svm Narrowed(Block, HALF, |m| m.half(m.registers.msrs.sysenter_eip));
        pat = "IA32_PAT", vmx Exact(Block), svm Exact(Block);
        tsc_aux = "IA32_TSC_AUX", vmx Exact(Processor), svm Exact(Processor);
        tsc_adjust = "IA32_TSC_ADJUST", vmx Exact(Software), svm Exact(Software);
        misc_enable = "IA32_MISC_ENABLE", vmx Exact(Software), svm Exact(Software);
        debugctl = "IA32_DEBUGCTL",
            vmx Narrowed(Block, "bits that the processor lacks are cleared", |m| {
                let lost = m.registers.msrs.debugctl & !m.to.last_branches.debugctl;
                (lost != 0).then(|| format!("{lost:#x}"))
            }),
            svm Exact(Processor);
        spec_ctrl = "IA32_SPEC_CTRL", vmx Exact(Processor), svm Exact(Processor);
        xss = "IA32_XSS", vmx Exact(Processor), svm Exact(Processor);
        mtrr_def_type = "IA32_MTRR_DEF_TYPE", vmx Exact(Software), svm Exact(Software);
        mtrr_fixed = "fixed-range MTRRs", vmx Exact(Software), svm Exact(Software);
        mtrr_variable = "variable-range MTRRs", vmx Exact(Software), svm Exact(Software);
        machine_check_status = "IA32_MCG_STATUS", vmx Exact(Software), svm Exact(Software);
        machine_check_control = "IA32_MCG_CTL", vmx Exact(Software), svm Exact(Software);
        machine_check = "machine-check banks", vmx Exact(Software), svm Exact(Software);
        performance = "PERF_CTL and PERF_CTR", vmx Exact(Software), svm Exact(Software);
        amd = "SYSCFG, HWCR, DE_CFG", vmx Exact(Software), svm Exact(Software);
        ignne = "IGNNE", vmx Exact(Software), svm Exact(Software);
        mperf = "IA32_MPERF", vmx Exact(Processor), svm Exact(Processor);
        aperf = "IA32_APERF", vmx Exact(Processor), svm Exact(Processor);
    }
    software {
        apic = "local APIC, with TPR and timer", vmx Exact(Software), svm Exact(Software);
        activity = "running, halted, waiting for SIPI", vmx Exact(Software), svm Exact(Software);
        requeued = "event in delivery",
            vmx Narrowed(Software, "what INT n, INT3, INTO and INT1 began is begun again, and error codes have 16 bits", |m| in_delivery(m, true)),
            svm Narrowed(Software, "what INT n, INT3, INTO and INT1 began is begun again", |m| in_delivery(m, false));
        exception = "exception to be injected",
            vmx Narrowed(Block, "error codes have 16 bits", |m| m.software.exception.and_then(|exception| wide(exception.error_code))),
            svm Exact(Block);
        nmis = "NMIs that wait", vmx Exact(Software), svm Exact(Software);
        init = "INIT that waits", vmx Exact(Software), svm Exact(Software);
        sipi = "SIPI that waits", vmx Exact(Software), svm Exact(Software);
        kicked = "kick of KICK_CPU", vmx Exact(Software), svm Exact(Software);
        completion = "answer of user space", vmx Exact(Software), svm Exact(Software);
        hypercall_area = "hypercall page of before 2007", vmx Exact(Software), svm Exact(Software);
        hyperv = "Hyper-V's GUEST_OS_ID and HYPERCALL", vmx Exact(Software), svm Exact(Software);
    }
}

/// Bits of EFER that no Intel processor has.
pub(crate) const AMD_EFER: u64 = Efer::new().with_lmsle(true).with_ffxsr(true).with_tce(true).into_bits();

/// Why SYSENTER's registers lose their upper halves.
const HALF: &str = "AMD's register has 32 bits, and the hypervisor keeps the upper half for Intel-compatible guests only";

fn when(condition: bool) -> Option<String> {
    condition.then(String::new)
}

fn lacking_cr4(m: &Move<'_>) -> Option<String> {
    let lacking = m.registers.cr4.into_bits() & !m.to.supported_cr4().into_bits();
    (lacking != 0).then(|| format!("{lacking:#x} of {:#x}", m.registers.cr4.into_bits()))
}

fn lacking_xcr0(m: &Move<'_>) -> Option<String> {
    when(m.registers.xcr0 & isa::control::xcr0::PKRU != 0 && !m.to.has(Feature::Pku))
}

fn lacking_pkru(m: &Move<'_>) -> Option<String> {
    (m.registers.pkru != 0 && !m.to.has(Feature::Pku)).then(|| format!("{:#x}", m.registers.pkru))
}

fn other_depth(m: &Move<'_>) -> Option<String> {
    let (old, new) = (m.guest.model.last_branches.depth, m.to.last_branches.depth);
    let used = m.registers.msrs.debugctl & cpu::last_branches::LBR != 0 || m.registers.last_branches != LastBranches::default();
    (used && old != new).then(|| format!("{new} instead of {old}"))
}

/// An error code that sixteen bits do not hold.
fn wide(code: Option<u32>) -> Option<String> {
    code.filter(|code| code >> 16 != 0).map(|code| format!("{code:#x} becomes {:#x}", code & 0xffff))
}

fn in_delivery(m: &Move<'_>, narrow: bool) -> Option<String> {
    let event = m.software.requeued?;
    if is_software(&event) {
        return Some(format!("vector {:#x}", event.vector));
    }
    if narrow { wide(event.error_code) } else { None }
}

/// Whether an instruction began the event, so that executing it again begins it again.
pub(crate) const fn is_software(event: &Event) -> bool {
    matches!(event.kind, EventKind::SoftwareInterrupt | EventKind::SoftwareException | EventKind::PrivilegedSoftware)
}

/// The segment registers that `fit` changes, with their attributes before and behind it.
fn changed_segments(registers: &Registers, fit: impl Fn(usize) -> SegmentRegister) -> Option<String> {
    let changes: Vec<String> = Segment::ALL
        .iter()
        .filter_map(|segment| {
            let (old, new) = (registers.segments[segment.number()], fit(segment.number()));
            let attributes = (old.attributes.into_bits(), new.attributes.into_bits());
            (old != new).then(|| format!("{} {:#x} becomes {:#x}", segment.name(), attributes.0, attributes.1))
        })
        .collect();
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// A segment register that went where there is no bit for unusable. APM vol 2, 15.5.1, attributes of the VMCB: what is not present is unusable.
fn absent(mut segment: SegmentRegister) -> SegmentRegister {
    let attributes = segment.attributes;
    let present = attributes.p() && !attributes.unusable();
    segment.attributes = attributes.with_p(present).with_unusable(!present);
    segment
}

/// The same for one of the six. Of a stack segment that is unusable the privilege level and nothing else counts.
fn through_vmcb(registers: &Registers, index: usize) -> SegmentRegister {
    let mut segment = absent(registers.segments[index]);
    if index == Segment::Ss as usize && segment.attributes.unusable() {
        segment.attributes = segment.attributes.with_db(false).with_dpl(registers.cpl);
    }
    segment
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
            pkru: cpu.pkru,
            xmm: cpu.xmm,
            mxcsr: cpu.mxcsr,
            fpu: cpu.fpu.clone(),
            last_branches: cpu.last_branches.clone(),
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
        cpu.set_pkru(self.pkru);
        cpu.xmm = self.xmm;
        cpu.mxcsr = self.mxcsr;
        cpu.fpu.clone_from(&self.fpu);
        cpu.last_branches.clone_from(&self.last_branches);
    }

    /// Gets from a processor what [`Self::put_shared`] puts.
    pub fn get_shared(&mut self, cpu: &Cpu) {
        self.dr = cpu.dr;
        self.msrs.clone_from(&cpu.msrs);
        self.xcr0 = cpu.xcr0;
        self.pkru = cpu.pkru;
        self.xmm = cpu.xmm;
        self.mxcsr = cpu.mxcsr;
        self.fpu.clone_from(&cpu.fpu);
        self.last_branches.clone_from(&cpu.last_branches);
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
        cpu::state::linear_rip(self.is_64bit(), self.segments[Segment::Cs as usize].base, self.rip)
    }

    /// The names of the rows in which two states differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differs = |row: &&Row| matches!(row.differs, Differs::Registers(differs) if differs(self, other));
        ROWS.iter().filter(differs).map(|row| row.tag).collect()
    }
}

impl VcpuRecord {
    /// The names of the rows in which two records differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differs = |row: &&Row| match row.differs {
            Differs::Registers(differs) => differs(&self.registers, &other.registers),
            Differs::Software(differs) => differs(&self.software, &other.software),
        };
        ROWS.iter().filter(differs).map(|row| row.tag).collect()
    }
}

impl Row {
    /// What a vendor makes of it.
    pub const fn carry(&self, vendor: Vendor) -> Carry {
        match vendor {
            Vendor::Intel => self.vmx,
            Vendor::Amd => self.svm,
        }
    }
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

/// A data or code segment as VM entry takes it. SDM 27.3.1.2 "Checks on Guest Segment Registers": in virtual-8086 mode each has the form
/// of that mode; the DPL of SS is the privilege level.
pub(crate) fn fitted(registers: &Registers, index: usize) -> SegmentRegister {
    let segment = registers.segments[index];
    if registers.rflags.vm() && registers.cr0.pe() {
        let base = u64::from(segment.selector.into_bits()) << 4;
        return SegmentRegister { base, limit: 0xffff, attributes: Attributes::from_bits(0xf3), ..segment };
    }
    let mut segment = fit_vmx(segment);
    if index == Segment::Ss as usize {
        let level = if registers.cr0.pe() { registers.cpl } else { 0 };
        segment.attributes = segment.attributes.with_dpl(level);
    }
    segment
}

/// TR as VM entry accepts it: a busy TSS.
pub(crate) fn fit_vmx_tr(mut segment: SegmentRegister) -> SegmentRegister {
    let attributes = segment.attributes.with_kind(segment.attributes.kind() | 2).with_unusable(false).with_p(true).with_s(false);
    segment.attributes = fit_granularity(attributes, segment.limit);
    segment
}

fn fit_granularity(attributes: Attributes, limit: u32) -> Attributes {
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
    use std::collections::BTreeSet;

    fn fresh() -> Registers {
        Registers::of(&Cpu::new(&models::ZEN3, 0, 1, None))
    }

    /// What the software of a virtual CPU keeps for itself: every host tells its silicon anew.
    const OWN: [&str; 2] = ["software.told_priority", "software.window_wanted"];

    #[test]
    fn every_field_has_one_row() {
        let (mut registers, mut software) = (fresh(), Software::new(cpu::apic::LocalApic::new(0, true, cpu::apic::Features::default()), 0));
        // Records leave out what came later and is zero.
        (registers.msrs.ignne, registers.msrs.mperf, registers.msrs.aperf) = (1, 1, 1);
        software.hyperv.guest_os_id = 1;
        let record = serde_json::to_value(VcpuRecord { registers, software }).unwrap();
        let keys = |value: &serde_json::Value, prefix: &str| -> BTreeSet<String> {
            value.as_object().unwrap().keys().map(|key| format!("{prefix}{key}")).collect()
        };
        let mut fields = keys(&record["registers"], "");
        assert!(fields.remove("msrs"));
        fields.extend(keys(&record["registers"]["msrs"], "msrs."));
        fields.extend(keys(&record["software"], "software."));
        let rows: Vec<String> = ROWS.iter().map(|row| row.tag.to_owned()).chain(OWN.map(str::to_owned)).collect();
        assert_eq!(rows.len(), fields.len());
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), fields);
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
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
}
