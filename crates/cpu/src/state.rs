//! The processor's state: everything an instruction can see, and what the engine keeps beside it.
//!
//! The fields that handlers touch in every instruction come first, so that they share cache lines. Architectural state is public: the
//! silicon loads and saves it whole. Methods keep the parts consistent that depend on each other (`set_cr3` flushes, `set_cs` changes the
//! privilege level and the decoding mode).

use crate::apic::LocalApic;
use crate::bus::Environment;
use crate::context::Contexts;
use crate::delivery::KnownGates;
use crate::extension::{Extension, Interception};
use crate::flags;
use crate::insn::Insn;
use crate::last_branches::LastBranches;
use crate::paging::KnownWalks;
use crate::system::descriptor::KnownSegments;
use crate::tlb::{FetchPage, JumpCache, SoftwareTlb, Tlb, Translation};
use crate::trap::{Event, Trap};
use isa::control::{Cr0, Cr4, Efer};
use isa::cpuid::Feature;
use isa::debug::{Dr6, Dr7};
use isa::register::{Gpr, Segment};
use isa::rflags::{self, Rflags};
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use models::{CpuModel, Vendor};
use timing::TICKS_PER_CYCLE;

mod fork;
mod place;
mod plain;
mod record;

pub use crate::context::ContextMark;
use place::place;
pub use plain::{Activity, FpuState, Msrs, Shadow, TscScale, VirtualInterrupt};
pub use record::*;

/// Index of the register that is always zero: the missing base or index of an address.
pub(crate) const ZERO_REGISTER: u8 = 16;

/// One logical processor.
///
/// Its fields are of three kinds. **State** is what a processor is; it decides what instructions do and what they cost, and a fork or a
/// checkpoint takes it along: everything that is not said to be one of the others. A **cache** of the host's only spares the way to what the
/// state says, and is empty in a fork. What belongs to the **run** in progress means nothing between two runs.
#[repr(C)]
pub struct Cpu {
    /// RAX to R15 by encoding, and a seventeenth that is always zero.
    pub regs: [u64; 17],
    /// Offset of the next instruction in CS.
    pub rip: u64,
    /// First word of the lazy status flags, see [`crate::flags`].
    pub(crate) flag_result: u64,
    /// Second word of the lazy status flags.
    pub(crate) flag_aux: u64,
    /// Ticks left in the slice, as if the whole block that executes were already paid.
    pub(crate) budget: i64,
    /// Cache: which address space and privilege the software TLB's entries must have: see [`crate::tlb`].
    pub(crate) context: u64,
    /// Cache: how code was decoded when `context` was chosen; it follows from the state.
    pub(crate) code_mode: crate::block::Mode,
    /// Instructions begun (counted by the block).
    pub(crate) retired: u64,
    /// Run, like the following seven: why control came back from the handlers to the engine.
    pub(crate) stop: crate::engine::StopCode,
    /// Whether the handlers must return to the engine after the present instruction. Between runs without effect: each begins with a look.
    pub(crate) leave: bool,
    /// Where the engine is to write the entry of the block found for `rip`.
    pub(crate) link: *mut *const Insn,
    /// The block to go on with, when `stop` is `Next`.
    pub(crate) next: *const Insn,
    /// The instruction that ended, when `stop` is `Trap`.
    pub(crate) stopped_at: *const Insn,
    /// What ended it.
    pub(crate) trap: Option<Trap>,
    /// The outside, during a run.
    pub(crate) environment: *mut Environment<'static>,
    /// XMM0 to XMM15, low half first.
    pub xmm: [[u64; 2]; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// Run, and cache.
    pub(crate) handover: crate::compile::Handover,
    /// Cache.
    pub(crate) software_tlb: SoftwareTlb,
    /// Cache.
    pub(crate) jumps: JumpCache,

    /// RFLAGS but for the six status flags.
    pub(crate) system_flags: u64,
    /// Segment registers by encoding.
    pub segments: [SegmentRegister; 6],
    /// LDTR.
    pub ldtr: SegmentRegister,
    /// TR.
    pub tr: SegmentRegister,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: u64,
    /// PKRU: two bits for each protection key, access disable and write disable.
    pub pkru: u32,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: Dr6,
    /// DR7.
    pub dr7: Dr7,
    /// The page-directory-pointer-table entries of PAE paging, loaded with CR3.
    pub pdptes: [u64; 4],
    /// Current privilege level.
    pub cpl: u8,
    /// Plain MSRs.
    pub msrs: Msrs,
    /// Last-branch records.
    pub last_branches: LastBranches,
    /// x87 state.
    pub fpu: FpuState,
    /// The local APIC.
    pub apic: LocalApic,

    /// What the processor is doing.
    pub activity: Activity,
    /// Blocking by STI or MOV SS; consumed by the next instruction.
    pub shadow: Shadow,
    /// The present instruction set `shadow`.
    pub(crate) shadow_set: bool,
    /// The present instruction must not be followed by a single-step trap: it delivered an event.
    pub(crate) trace_cancelled: bool,
    /// An instruction or an event's delivery was completed under the monitor trap flag.
    pub(crate) monitor_pending: bool,
    /// The present instruction is a repeated one with iterations left.
    pub(crate) again: bool,
    /// One instruction is executed by itself. Its budget is its own cost, which says nothing of the time left.
    pub(crate) stepping: bool,
    /// Blocking by NMI.
    pub nmi_blocked: bool,
    /// The present instruction is an IRET that ended blocking by NMI and then did not complete.
    pub iret_unblocked_nmi: bool,
    /// NMIs waiting (more than one merge).
    pub nmi_pending: bool,
    /// A system-management interrupt waits.
    pub smi_pending: bool,
    /// An INIT signal waits.
    pub init_pending: bool,
    /// A start-up IPI waits.
    pub sipi_pending: Option<u8>,
    /// The FERR# pin as it was last driven: an x87 error is pending and CR0.NE clear.
    pub(crate) numeric_error: bool,
    /// The IGNNE# pin: x87 errors are ignored while CR0.NE is clear.
    pub ignore_numeric_error: bool,
    /// DR6 bits of debug exceptions that wait for the instruction boundary.
    pub pending_debug: u64,
    /// What a task switch by an instruction raised in the new task: taken before anything else there.
    pub(crate) task_fault: Option<Trap>,
    /// The event being delivered through the IDT, while it is.
    pub delivering: Option<Event>,
    /// An event that VM entry injects: delivered before the next instruction.
    pub inject: Option<Event>,
    /// The log of deliveries is full: whoever wants it has to take it before the processor goes on.
    pub(crate) deliveries_full: bool,
    /// The log of deliveries, if somebody wants one.
    pub(crate) deliveries: Option<Vec<crate::delivery::log::Delivery>>,

    /// A guest runs: `interception` applies.
    pub guest_mode: bool,
    /// VM exits of this processor end the run for a host in Rust.
    pub rust_host: bool,
    /// What is intercepted.
    pub interception: Interception,
    /// Guest-physical addresses are translated by the extension.
    pub nested_paging: bool,
    /// Tag of TLB entries: VPID or ASID; zero for the host.
    pub address_space: u32,
    /// The silicon holds all events (SVM's GIF clear).
    pub events_held: bool,
    /// When set, this and not RFLAGS.IF says whether physical interrupts are recognised (SVM's V_INTR_MASKING: the host's IF).
    pub physical_interrupt_flag: Option<bool>,
    /// A virtual interrupt for the guest.
    pub virtual_interrupt: Option<VirtualInterrupt>,
    /// CR8 reads and writes go here instead of to the APIC (VMX TPR shadow, SVM V_TPR); the silicon takes it back at exit.
    pub virtual_tpr: Option<u8>,
    /// The page of physical memory to which the silicon virtualizes accesses (VMX's APIC-access page).
    pub apic_access_page: Option<u64>,
    /// The register of the virtual APIC that the present instruction wrote: the silicon does behind it what follows.
    pub apic_write: Option<u16>,
    /// The silicon has an interrupt for the guest, to be asked for when the guest can take it.
    pub virtual_interrupt_recognized: bool,
    /// The time in ticks at which the preemption timer exits.
    pub preemption_deadline: Option<u64>,
    /// State of the generator behind RDRAND and RDSEED, see `system::integer::random`. A run that wants other numbers sets another seed.
    pub random: u64,
    /// The processor's own time-stamp counter.
    pub tsc: TscScale,
    /// The guest's view of it, in guest mode.
    pub guest_tsc: TscScale,

    /// The model it is.
    pub model: &'static CpuModel,
    /// Whose rules it follows where the vendors differ: the model's, but on a hypervisor's spare processor for a guest that was told of another.
    pub vendor: Vendor,
    /// Behind nested paging the page-directory-pointer-table entries of PAE paging are read by every walk, as SVM has it, and not held in
    /// registers.
    pub walks_pdptes: bool,
    /// Features in force, one bit per [`Feature`].
    pub features: u128,
    /// Its number, which is its initial APIC ID.
    pub number: u32,
    /// How many processors the machine has.
    pub cpu_count: u32,
    /// State of an observed processor: see [`crate::freedom`].
    pub(crate) freedoms: Option<Box<crate::freedom::Freedoms>>,
    /// The number of what it fetches instead of what memory holds; zero for memory itself.
    pub(crate) view: u32,
    /// How many such numbers it had.
    pub(crate) views: u32,
    /// The silicon: state, but for the marks of contexts in it, which are void where the contexts are.
    pub(crate) extension: Option<Box<dyn Extension>>,
    /// The architectural TLB: state, because what it holds is not walked for.
    pub(crate) tlb: Tlb,
    /// Cache: see [`FetchPage`].
    pub(crate) fetch_page: FetchPage,
    /// Cache: where what is kept under a context came from.
    pub(crate) contexts: Contexts,
    /// Run: what the last walk found.
    pub(crate) walked: Translation,
    /// Cache: what the last gates were found to be.
    pub(crate) known_gates: KnownGates,
    /// Cache: what the last descriptors were found to be.
    pub(crate) known_segments: KnownSegments,
    /// Cache: what the last walks found. A walk that is known is charged as one that is made.
    pub(crate) known_walks: KnownWalks,
    /// Time at which the budget is used up, in ticks. With `budget` it is the time, which is state.
    pub(crate) slice_end: u64,
    /// Ticks that went by while it did not execute instructions.
    pub(crate) idle: u64,
    /// Cache: the state of memory that pointers in the software TLB are good for.
    pub(crate) memory_generation: u64,
    /// Cache: the state of the code cache that pointers in the jump cache are good for.
    pub(crate) code_generation: u64,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Cpu {} at {:04x}:{:016x}", self.number, self.segment(Segment::Cs).selector.into_bits(), self.rip)
    }
}

/// The linear address of an instruction in a code segment with this base.
pub const fn linear_rip(is_64bit: bool, base: u64, rip: u64) -> u64 {
    if is_64bit { rip } else { base.wrapping_add(rip) & 0xffff_ffff }
}

impl Cpu {
    /// A processor after power-up. Number 0 is the bootstrap processor; all others wait for a start-up IPI.
    pub fn new(model: &'static CpuModel, number: u32, cpu_count: u32, extension: Option<Box<dyn Extension>>) -> Box<Self> {
        let mut cpu = place! {
            regs: [0; 17],
            rip: 0,
            flag_result: 1,
            flag_aux: 0,
            budget: 0,
            context: 0,
            code_mode: crate::block::Mode::default(),
            retired: 0,
            stop: crate::engine::StopCode::Miss,
            leave: false,
            link: std::ptr::null_mut(),
            next: std::ptr::null(),
            stopped_at: std::ptr::null(),
            trap: None,
            environment: std::ptr::null_mut(),
            xmm: [[0; 2]; 16],
            mxcsr: 0x1f80,
            handover: crate::compile::Handover::new(),
            system_flags: 2,
            segments: [SegmentRegister::real_mode(0); 6],
            ldtr: SegmentRegister::null(Selector::new()),
            tr: SegmentRegister::null(Selector::new()),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            cr0: Cr0::new(),
            cr2: 0,
            cr3: 0,
            cr4: Cr4::new(),
            efer: Efer::new(),
            xcr0: 1,
            pkru: 0,
            dr: [0; 4],
            dr6: Dr6::from_bits(Dr6::RESET),
            dr7: Dr7::from_bits(Dr7::RESET),
            pdptes: [0; 4],
            cpl: 0,
            msrs: Msrs::reset(),
            last_branches: LastBranches::default(),
            fpu: FpuState::initial(),
            apic: LocalApic::new(number, number == 0, crate::apic::Features::of(model)),
            activity: Activity::Active,
            shadow: Shadow::None,
            shadow_set: false,
            trace_cancelled: false,
            monitor_pending: false,
            again: false,
            stepping: false,
            nmi_blocked: false,
            iret_unblocked_nmi: false,
            nmi_pending: false,
            smi_pending: false,
            init_pending: false,
            sipi_pending: None,
            numeric_error: false,
            ignore_numeric_error: false,
            pending_debug: 0,
            task_fault: None,
            delivering: None,
            inject: None,
            deliveries_full: false,
            deliveries: None,
            guest_mode: false,
            rust_host: false,
            interception: Interception::default(),
            nested_paging: false,
            address_space: 0,
            events_held: false,
            physical_interrupt_flag: None,
            virtual_interrupt: None,
            virtual_tpr: None,
            apic_access_page: None,
            apic_write: None,
            virtual_interrupt_recognized: false,
            preemption_deadline: None,
            random: u64::from(number),
            tsc: TscScale::IDENTITY,
            guest_tsc: TscScale::IDENTITY,
            model: model,
            vendor: model.vendor,
            walks_pdptes: model.vendor == Vendor::Amd,
            features: model.features(),
            number: number,
            cpu_count: cpu_count,
            freedoms: None,
            view: 0,
            views: 0,
            extension: extension,
            tlb: Tlb::new(),
            fetch_page: FetchPage::NONE,
            contexts: Contexts::new(),
            walked: Translation::NONE,
            known_gates: KnownGates::new(),
            known_segments: KnownSegments::new(),
            known_walks: KnownWalks::new(),
            slice_end: 0,
            idle: 0,
            memory_generation: 0,
            code_generation: 0,
        };
        cpu.reset();
        if number != 0 {
            cpu.activity = Activity::WaitForSipi;
        }
        cpu
    }

    /// Power-up state. SDM vol 3, Table 10-1; APM vol 2, 14.1.3 "Processor Initialization State".
    pub fn reset(&mut self) {
        self.init();
        self.cr0 = Cr0::from_bits(0x6000_0010);
        self.msrs = Msrs::reset();
        self.msrs.misc_enable = self.model.msr(isa::msr::IA32_MISC_ENABLE).unwrap_or(0);
        self.last_branches = LastBranches::default();
        self.fpu = FpuState { control: 0x40, tag: 0xff, ..FpuState::initial() };
        self.mxcsr = 0x1f80;
        self.xmm = [[0; 2]; 16];
        self.xcr0 = 1;
        self.pkru = 0;
        self.efer = Efer::new();
    }

    /// State after an INIT signal: what reset does, less the MSRs, the caches, the FPU and the XMM registers.
    pub fn init(&mut self) {
        self.regs = [0; 17];
        self.regs[Gpr::Rdx.number()] = u64::from(self.model.signature());
        self.rip = 0xfff0;
        self.set_rflags(Rflags::from_bits(2));
        self.segments = [SegmentRegister::real_mode(0); 6];
        self.segments[Segment::Cs.number()] = SegmentRegister {
            selector: Selector::from_bits(0xf000),
            base: 0xffff_0000,
            limit: 0xffff,
            attributes: Attributes::from_bits(0x9b),
        };
        self.ldtr = SegmentRegister { attributes: Attributes::from_bits(0x82), limit: 0xffff, ..SegmentRegister::null(Selector::new()) };
        self.tr = SegmentRegister { attributes: Attributes::from_bits(0x8b), limit: 0xffff, ..SegmentRegister::null(Selector::new()) };
        self.gdtr = TableRegister { base: 0, limit: 0xffff };
        self.idtr = TableRegister { base: 0, limit: 0xffff };
        self.cr0 = Cr0::from_bits(0x10 | self.cr0.into_bits() & 0x6000_0000);
        self.cr2 = 0;
        self.cr3 = 0;
        self.cr4 = Cr4::new();
        self.efer = Efer::new();
        self.dr = [0; 4];
        self.dr6 = Dr6::from_bits(Dr6::RESET);
        self.dr7 = Dr7::from_bits(Dr7::RESET);
        self.pdptes = [0; 4];
        self.cpl = 0;
        self.activity = Activity::Active;
        self.shadow = Shadow::None;
        self.nmi_blocked = false;
        self.nmi_pending = false;
        self.smi_pending = false;
        self.init_pending = false;
        self.sipi_pending = None;
        self.pending_debug = 0;
        self.task_fault = None;
        self.delivering = None;
        self.inject = None;
        self.flush_tlb();
    }

    /// A general-purpose register.
    #[inline]
    pub fn gpr(&self, register: Gpr) -> u64 {
        self.regs[register.number()]
    }

    /// Sets a general-purpose register.
    #[inline]
    pub fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.regs[register.number()] = value;
    }

    /// A segment register.
    #[inline]
    pub fn segment(&self, segment: Segment) -> &SegmentRegister {
        &self.segments[segment as usize]
    }

    /// RFLAGS, all bits.
    pub fn rflags(&self) -> Rflags {
        Rflags::from_bits(self.system_flags | flags::status(self.flag_result, self.flag_aux))
    }

    /// Sets RFLAGS; reserved bits take their fixed values.
    pub fn set_rflags(&mut self, value: Rflags) {
        let bits = value.normalized().into_bits();
        let old = self.system_flags;
        (self.flag_result, self.flag_aux) = flags::from_status(bits);
        self.system_flags = bits & !rflags::STATUS;
        const ALIGNMENT_CHECK: u64 = Rflags::new().with_ac(true).into_bits();
        const VIRTUAL_8086: u64 = Rflags::new().with_vm(true).into_bits();
        // AC decides what SMAP and alignment checks allow.
        if (old ^ bits) & ALIGNMENT_CHECK != 0 && (self.cr4.smap() || self.cr0.am()) {
            self.context_changed();
        } else if (old ^ bits) & VIRTUAL_8086 != 0 {
            self.privilege_changed();
        }
    }

    /// Sets the status flags in `mask`, bits at their places in RFLAGS; the others stay.
    pub(crate) fn set_status(&mut self, mask: u64, bits: u64) {
        let old = flags::status(self.flag_result, self.flag_aux);
        (self.flag_result, self.flag_aux) = flags::from_status(old & !mask | bits & mask);
    }

    /// Sets all six status flags, bits at their places in RFLAGS.
    #[inline]
    pub fn set_all_status(&mut self, bits: u64) {
        (self.flag_result, self.flag_aux) = flags::from_status(bits & rflags::STATUS);
    }

    /// The system part of RFLAGS, without collecting the status flags.
    #[inline]
    pub fn system_flags(&self) -> Rflags {
        Rflags::from_bits(self.system_flags)
    }

    /// Whether the model has a feature and nothing has taken it away.
    #[inline]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// Long mode is active.
    #[inline]
    pub fn long_mode(&self) -> bool {
        self.efer.lma()
    }

    /// 64-bit mode: long mode with a 64-bit code segment.
    #[inline]
    pub fn is_64bit(&self) -> bool {
        self.efer.lma() && self.segments[Segment::Cs as usize].attributes.l()
    }

    /// The linear address of the next instruction.
    pub fn linear_rip(&self) -> u64 {
        linear_rip(self.is_64bit(), self.segment(Segment::Cs).base, self.rip)
    }

    /// Default operand and address size of code: 16, 32 or 64 bits.
    pub fn code_bits(&self) -> u32 {
        if self.is_64bit() {
            64
        } else if self.segments[Segment::Cs as usize].attributes.db() {
            32
        } else {
            16
        }
    }

    /// Real-address mode.
    pub fn is_real(&self) -> bool {
        !self.cr0.pe()
    }

    /// Virtual-8086 mode.
    pub fn is_v86(&self) -> bool {
        self.system_flags().vm()
    }

    /// Segments are 64 KiB from 16 times their selector, without descriptors: real-address and virtual-8086 mode.
    pub fn has_8086_segments(&self) -> bool {
        self.is_real() || self.is_v86()
    }

    /// Protected mode proper: neither real-address nor virtual-8086 mode.
    pub fn is_protected(&self) -> bool {
        self.cr0.pe() && !self.is_v86()
    }

    /// Width of the stack pointer: 16, 32 or 64 bits.
    pub fn stack_bits(&self) -> u32 {
        if self.is_64bit() {
            64
        } else if self.segments[Segment::Ss as usize].attributes.db() {
            32
        } else {
            16
        }
    }

    /// The time in ticks. Exact at instruction boundaries and inside the functions that instructions call.
    pub fn now(&self) -> u64 {
        self.slice_end.wrapping_sub(self.budget as u64)
    }

    /// The time in cycles.
    pub fn cycles(&self) -> u64 {
        self.now() / TICKS_PER_CYCLE
    }

    /// The time in cycles without that in which it was halted, waited or was shut down.
    pub fn unhalted_cycles(&self) -> u64 {
        self.now().saturating_sub(self.idle) / TICKS_PER_CYCLE
    }

    /// Sets the time; only between runs.
    pub fn set_now(&mut self, ticks: u64) {
        if self.activity != Activity::Active {
            self.idle += ticks.saturating_sub(self.now());
        }
        self.slice_end = ticks;
        self.budget = 0;
    }

    /// Instructions begun since power-up.
    pub fn instructions(&self) -> u64 {
        self.retired
    }

    /// Charges time for something dynamic.
    #[inline]
    pub fn charge(&mut self, ticks: u64) {
        self.budget = self.budget.saturating_sub_unsigned(ticks);
    }

    /// What RDTSC reads now.
    pub fn time_stamp(&self) -> u64 {
        let own = self.tsc.apply(self.cycles());
        if self.guest_mode { self.guest_tsc.apply(own) } else { own }
    }

    /// Makes the engine look at what waits behind the present instruction.
    pub const fn look_around(&mut self) {
        self.leave = true;
    }

    /// Forgets every cached translation of every address space, as a reset or a write of CR0.PG does.
    pub fn flush_tlb(&mut self) {
        self.tlb.flush_all();
        self.software_tlb.epoch += 1;
        self.context_changed();
    }

    /// The architectural TLB.
    pub fn tlb(&mut self) -> &mut Tlb {
        &mut self.tlb
    }

    /// The extension by itself.
    #[inline]
    pub fn extension_mut(&mut self) -> Option<&mut (dyn Extension + 'static)> {
        self.extension.as_deref_mut()
    }

    /// Runs a closure with the extension taken out, so that it may use the whole processor.
    ///
    /// Returns `None` when the model has no extension.
    pub fn with_extension<T>(&mut self, call: impl FnOnce(&mut dyn Extension, &mut Self) -> T) -> Option<T> {
        let mut extension = self.extension.take()?;
        let result = call(&mut *extension, self);
        self.extension = Some(extension);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_scaled_with_all_fraction_bits() {
        assert_eq!(TscScale::IDENTITY.apply(u64::MAX), u64::MAX);
        let half_and_a_little = TscScale { offset: 7, ratio: (1 << 47) + 1 };
        assert_eq!(half_and_a_little.apply(1 << 50), (1 << 49) + 4 + 7);
    }
}
