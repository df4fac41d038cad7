//! The rows of every cost table, declared once: enums, struct, iteration and printed table come from this list.
//!
//! Three groups: instruction classes (in ticks, chosen by the decoder), events of the silicon (in cycles, added where they happen) and
//! work of the hypervisor's software (in cycles). An instruction's row is what it costs when nothing else happens; the events it causes
//! (a page walk, a VM exit, a device access) come on top.

use crate::cost::Cost;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// The part of the machine a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// A class of instructions.
    Instruction,
    /// Something that happens in the silicon beside or inside an instruction.
    Event,
    /// Work of the hypervisor's software.
    Software,
}

/// One row of a model's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The group it belongs to.
    pub group: Group,
    /// Its name, as in the struct and in a scenario's overrides.
    pub name: &'static str,
    /// What is counted, in one sentence.
    pub doc: &'static str,
    /// The model's number.
    pub cost: Cost,
}

macro_rules! row_enum {
    ($(#[$meta:meta])* $name:ident { $( $(#[doc = $doc:literal])+ $field:ident $variant:ident; )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )* }

        impl $name {
            /// Every one, in table order.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The row's name.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => stringify!($field), )* }
            }

            /// What the row counts.
            pub fn doc(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc),+).trim_start(), )* }
            }
        }
    };
}

macro_rules! cost_model {
    (
        instruction { $($instruction:tt)* }
        event { $($event:tt)* }
        software { $($software:tt)* }
    ) => {
        row_enum! {
            /// A class of instructions with one cost. The decoder gives each instruction exactly one.
            InstructionClass { $($instruction)* }
        }
        row_enum! {
            /// Something the silicon does that costs time beyond the instruction that caused it.
            Event { $($event)* }
        }
        row_enum! {
            /// A piece of work of the hypervisor's software.
            SoftwareWork { $($software)* }
        }
        cost_model! { @struct { $($instruction)* } { $($event)* } { $($software)* } }
    };
    (@struct
        { $( $(#[doc = $idoc:literal])+ $ifield:ident $ivariant:ident; )* }
        { $( $(#[doc = $edoc:literal])+ $efield:ident $evariant:ident; )* }
        { $( $(#[doc = $sdoc:literal])+ $sfield:ident $svariant:ident; )* }
    ) => {
        /// One processor model's costs: every row, each with its source.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct CostModel {
            /// The name by which it is found, the same as its processor model's.
            pub name: &'static str,
            /// The processor, in words.
            pub title: &'static str,
            $( $(#[doc = $idoc])+ pub $ifield: Cost, )*
            $( $(#[doc = $edoc])+ pub $efield: Cost, )*
            $( $(#[doc = $sdoc])+ pub $sfield: Cost, )*
        }

        impl CostModel {
            /// What one instruction of that class costs.
            pub const fn instruction(&self, class: InstructionClass) -> &Cost {
                match class { $( InstructionClass::$ivariant => &self.$ifield, )* }
            }

            /// What that event costs.
            pub const fn event(&self, event: Event) -> &Cost {
                match event { $( Event::$evariant => &self.$efield, )* }
            }

            /// What that piece of the hypervisor's work costs.
            pub const fn software(&self, work: SoftwareWork) -> &Cost {
                match work { $( SoftwareWork::$svariant => &self.$sfield, )* }
            }

            /// The row of that name, for change.
            pub(crate) fn row_mut(&mut self, name: &str) -> Option<&mut Cost> {
                match name {
                    $( stringify!($ifield) => Some(&mut self.$ifield), )*
                    $( stringify!($efield) => Some(&mut self.$efield), )*
                    $( stringify!($sfield) => Some(&mut self.$sfield), )*
                    _ => None,
                }
            }
        }
    };
}

impl CostModel {
    /// Every row in table order.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let instructions = InstructionClass::ALL.iter().map(|&row| Row {
            group: Group::Instruction,
            name: row.name(),
            doc: row.doc(),
            cost: *self.instruction(row),
        });
        let events = Event::ALL.iter().map(|&row| Row { group: Group::Event, name: row.name(), doc: row.doc(), cost: *self.event(row) });
        let software = SoftwareWork::ALL.iter().map(|&row| Row {
            group: Group::Software,
            name: row.name(),
            doc: row.doc(),
            cost: *self.software(row),
        });
        instructions.chain(events).chain(software)
    }
}

/// As a map from row name to cost, with `name` and `title` in front.
impl Serialize for CostModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("title", self.title)?;
        for row in self.rows() {
            map.serialize_entry(row.name, &row.cost)?;
        }
        map.end()
    }
}

cost_model! {
    instruction {
        /// NOP and its long forms.
        nop Nop;
        /// MOV, MOVZX, MOVSX, CBW family: register or immediate to register.
        register_move RegisterMove;
        /// MOV, MOVZX, MOVSX from memory.
        load Load;
        /// MOV of a register or an immediate to memory.
        store Store;
        /// An ALU instruction with a memory source, CMP and TEST with memory included.
        load_op LoadOp;
        /// An ALU instruction with a memory destination, without LOCK.
        read_modify_write ReadModifyWrite;
        /// ADD, SUB, AND, OR, XOR, CMP, TEST, INC, DEC, NEG, NOT on registers.
        alu Alu;
        /// ADC, SBB, ADCX, ADOX on registers.
        alu_carry AluCarry;
        /// LEA of any form.
        lea Lea;
        /// SHL, SHR, SAR, ROL, ROR by one or by an immediate.
        shift Shift;
        /// SHL, SHR, SAR, ROL, ROR by CL.
        shift_by_cl ShiftByCl;
        /// SHLD and SHRD.
        double_shift DoubleShift;
        /// RCL and RCR.
        rotate_through_carry RotateThroughCarry;
        /// MUL and IMUL of 8, 16 or 32 bits.
        multiply32 Multiply32;
        /// MUL, IMUL and MULX of 64 bits.
        multiply64 Multiply64;
        /// DIV and IDIV of 8 bits.
        divide8 Divide8;
        /// DIV and IDIV of 16 bits.
        divide16 Divide16;
        /// DIV and IDIV of 32 bits.
        divide32 Divide32;
        /// DIV and IDIV of 64 bits.
        divide64 Divide64;
        /// A direct jump, conditional or not, LOOP and JCXZ included, predicted.
        branch Branch;
        /// A near indirect jump, predicted.
        branch_indirect BranchIndirect;
        /// A near CALL, direct or indirect, predicted.
        call Call;
        /// A near RET, predicted.
        near_return NearReturn;
        /// PUSH of a general register, an immediate or memory.
        push Push;
        /// POP to a general register or memory.
        pop Pop;
        /// PUSHF.
        push_flags PushFlags;
        /// POPF.
        pop_flags PopFlags;
        /// PUSHA, POPA, ENTER and LEAVE.
        stack_frame StackFrame;
        /// CMOVcc.
        conditional_move ConditionalMove;
        /// SETcc.
        set_condition SetCondition;
        /// BT, BTS, BTR, BTC on a register.
        bit_test BitTest;
        /// BSF, BSR, TZCNT, LZCNT.
        bit_scan BitScan;
        /// POPCNT.
        population_count PopulationCount;
        /// BSWAP and MOVBE on a register's worth of data.
        byte_swap ByteSwap;
        /// ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, RORX, SARX, SHLX, SHRX, PDEP, PEXT.
        bit_manipulation BitManipulation;
        /// CRC32.
        crc Crc;
        /// XCHG between registers.
        exchange Exchange;
        /// CMPXCHG, CMPXCHG8B, CMPXCHG16B and XADD without LOCK.
        compare_exchange CompareExchange;
        /// Any instruction with LOCK, and XCHG with memory: a line in the first-level cache.
        atomic Atomic;
        /// CLC, STC, CMC, CLD, STD, LAHF, SAHF.
        flag_control FlagControl;
        /// CLI, STI, CLAC, STAC.
        interrupt_flag InterruptFlag;
        /// AAA, AAD, AAM, AAS, DAA, DAS, BOUND, XLAT, ARPL.
        legacy_arithmetic LegacyArithmetic;
        /// What a string instruction costs before its first element.
        string_setup StringSetup;
        /// Each element of MOVS, STOS, LODS, SCAS, CMPS.
        string_element StringElement;
        /// SSE moves between XMM registers.
        sse_move SseMove;
        /// SSE moves from memory.
        sse_load SseLoad;
        /// SSE moves to memory.
        sse_store SseStore;
        /// SSE moves between XMM and general registers.
        sse_transfer SseTransfer;
        /// Packed integer add, subtract, compare, logic and shift; FP logic.
        sse_integer SseInteger;
        /// Packed integer multiply.
        sse_integer_multiply SseIntegerMultiply;
        /// Shuffles, packs and unpacks.
        sse_shuffle SseShuffle;
        /// FP add, subtract, minimum, maximum and packed compare.
        sse_fp_add SseFpAdd;
        /// FP multiply.
        sse_fp_multiply SseFpMultiply;
        /// Single-precision divide.
        sse_fp_divide32 SseFpDivide32;
        /// Double-precision divide.
        sse_fp_divide64 SseFpDivide64;
        /// Single-precision square root; RCPSS, RSQRTSS and their packed forms.
        sse_fp_sqrt32 SseFpSqrt32;
        /// Double-precision square root.
        sse_fp_sqrt64 SseFpSqrt64;
        /// COMISS, UCOMISS, COMISD, UCOMISD.
        sse_compare SseCompare;
        /// Conversions.
        sse_convert SseConvert;
        /// Horizontal sums, dot products and sums of differences between lanes: HADDPS, PHADDW, DPPS, MPSADBW and their kin.
        sse_horizontal SseHorizontal;
        /// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
        sse_string SseString;
        /// AES instructions and PCLMULQDQ.
        sse_cryptography SseCryptography;
        /// FNINIT, FNSTCW, FLDCW, FNSTSW, FNCLEX, LDMXCSR, STMXCSR, EMMS.
        fpu_control FpuControl;
        /// x87 moves between registers, signs and constants: FLD ST(i), FXCH, FCHS, FABS, FCMOVcc, FLD1, FFREE, FINCSTP and their kin.
        x87_move X87Move;
        /// x87 loads from memory: FLD, FILD.
        x87_load X87Load;
        /// x87 stores to memory: FST, FSTP, FIST, FISTP, FISTTP.
        x87_store X87Store;
        /// x87 addition, subtraction and comparison, FTST and FXAM.
        x87_add X87Add;
        /// x87 multiplication.
        x87_multiply X87Multiply;
        /// x87 division, FSQRT, FPREM, FPREM1.
        x87_divide X87Divide;
        /// FRNDINT, FSCALE, FXTRACT, FBLD, FBSTP.
        x87_microcoded X87Microcoded;
        /// F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS, FSINCOS.
        x87_transcendental X87Transcendental;
        /// FSTENV, FLDENV, FSAVE, FRSTOR.
        x87_environment X87Environment;
        /// FXSAVE, XSAVE.
        save_state SaveState;
        /// FXRSTOR, XRSTOR.
        restore_state RestoreState;
        /// LFENCE.
        load_fence LoadFence;
        /// SFENCE.
        store_fence StoreFence;
        /// MFENCE.
        memory_fence MemoryFence;
        /// CPUID.
        cpuid Cpuid;
        /// RDTSC and RDTSCP.
        rdtsc Rdtsc;
        /// RDPMC.
        rdpmc Rdpmc;
        /// RDMSR.
        rdmsr Rdmsr;
        /// WRMSR.
        wrmsr Wrmsr;
        /// XGETBV.
        xgetbv Xgetbv;
        /// XSETBV.
        xsetbv Xsetbv;
        /// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE, SWAPGS.
        segment_base SegmentBase;
        /// MOV to and from CR0, CR2, CR4, CR8, and CLTS, SMSW, LMSW.
        mov_cr MovCr;
        /// MOV to CR3, with the invalidation it does.
        cr3_write Cr3Write;
        /// MOV to and from a debug register.
        mov_dr MovDr;
        /// INVLPG.
        invlpg Invlpg;
        /// INVPCID.
        invpcid Invpcid;
        /// CLFLUSH and prefetches.
        cache_line CacheLine;
        /// INVD, WBINVD.
        cache_flush CacheFlush;
        /// LGDT, LIDT, LLDT, LTR and their stores; LAR, LSL, VERR, VERW.
        descriptor_table DescriptorTable;
        /// A move or pop to a segment register, LDS family.
        segment_load SegmentLoad;
        /// Far CALL, far JMP, far RET, without a task switch.
        far_transfer FarTransfer;
        /// INT n, INT3, INTO, without the delivery (see `exception_delivery`).
        software_interrupt SoftwareInterrupt;
        /// IRET of any mode.
        iret Iret;
        /// SYSCALL.
        syscall Syscall;
        /// SYSRET.
        sysret Sysret;
        /// SYSENTER.
        sysenter Sysenter;
        /// SYSEXIT.
        sysexit Sysexit;
        /// IN, OUT, without the device (see `device_access`).
        port_io PortIo;
        /// HLT, until the processor is asleep.
        hlt Hlt;
        /// PAUSE.
        pause Pause;
        /// Any other system instruction.
        system_other SystemOther;
    }
    event {
        /// A translation found in the TLB: what it costs beyond the access.
        tlb_hit TlbHit;
        /// Each level of a page walk: one paging-structure entry read from cache.
        page_walk_level PageWalkLevel;
        /// Each level of a nested walk: one EPT or nested-page-table entry read from cache.
        nested_walk_level NestedWalkLevel;
        /// Setting an accessed or dirty flag in a paging-structure entry.
        accessed_dirty_update AccessedDirtyUpdate;
        /// Delivery of an exception or software interrupt through a gate of the IDT, to the first instruction of the handler.
        exception_delivery ExceptionDelivery;
        /// Acknowledge and delivery of an external interrupt or NMI through the IDT.
        interrupt_delivery InterruptDelivery;
        /// A hardware task switch through a TSS.
        task_switch TaskSwitch;
        /// A store into code that is cached as decoded: pipeline flush on the storing CPU.
        self_modifying_code SelfModifyingCode;
        /// An access to a register of the local APIC through memory.
        apic_access ApicAccess;
        /// An access to a device on the board, through a port or through memory.
        device_access DeviceAccess;
        /// From the write of the interrupt command register to the interrupt's arrival at the other CPU.
        ipi_latency IpiLatency;
        /// Waking from HLT.
        halt_wake HaltWake;
        /// A VM exit (#VMEXIT on AMD), from the end of the guest's instruction to the host's first; lists of MSRs not included.
        vm_exit VmExit;
        /// A VM entry (VMLAUNCH, VMRESUME; VMRUN on AMD), successful or not; lists of MSRs not included.
        vm_entry VmEntry;
        /// A VM-entry instruction that ends at once with VMfail, or VMRUN with VMEXIT_INVALID.
        vm_entry_failed VmEntryFailed;
        /// Delivery of an injected event during VM entry, beyond the gate itself.
        event_injection EventInjection;
        /// Each entry of a VM-entry or VM-exit MSR-load or MSR-store list.
        msr_list_entry MsrListEntry;
        /// VMREAD.
        vmread Vmread;
        /// VMWRITE.
        vmwrite Vmwrite;
        /// VMPTRLD.
        vmptrld Vmptrld;
        /// VMPTRST.
        vmptrst Vmptrst;
        /// VMCLEAR.
        vmclear Vmclear;
        /// VMXON.
        vmxon Vmxon;
        /// VMXOFF.
        vmxoff Vmxoff;
        /// INVEPT.
        invept Invept;
        /// INVVPID.
        invvpid Invvpid;
        /// VMLOAD.
        vmload Vmload;
        /// VMSAVE.
        vmsave Vmsave;
        /// STGI.
        stgi Stgi;
        /// CLGI.
        clgi Clgi;
        /// INVLPGA.
        invlpga Invlpga;
        /// SKINIT.
        skinit Skinit;
        /// The flush of an address space on VM entry or VMRUN (TLB_CONTROL; an untagged TLB).
        tlb_flush TlbFlush;
    }
    software {
        /// From the hypervisor's first instruction after an exit to the handler, and from the handler back to the entry: registers saved
        /// and loaded, exit reason read, pending work looked at.
        exit_dispatch ExitDispatch;
        /// A hypercall handler that returns at once.
        hypercall_handler HypercallHandler;
        /// Kicking another virtual CPU, beyond `hypercall_handler`.
        hypercall_kick HypercallKick;
        /// Fetching and decoding a guest instruction for emulation.
        emulate_decode EmulateDecode;
        /// Executing and writing back a decoded instruction.
        emulate_execute EmulateExecute;
        /// Writing the right hypercall instruction over the foreign one: translation and three bytes.
        patch_write PatchWrite;
        /// Removing every shadow or nested mapping, as the scheme of 2007 did before it patched.
        mmu_zap MmuZap;
        /// From the release of a mutex to the going on of a thread that slept for it.
        mutex_hand_over MutexHandOver;
        /// From the release of a spinning lock to the going on of a processor that spun for it.
        spin_lock_hand_over SpinLockHandOver;
        /// Mapping one page in a nested page table after a violation.
        nested_fault_fix NestedFaultFix;
        /// Letting the guest write a page again that the dirty log protects: the page noted down, one entry of the nested tables changed without a
        /// lock.
        dirty_fault_fix DirtyFaultFix;
        /// Dividing a large nested mapping into the 512 of the next size, so that writes can be told apart.
        large_page_split LargePageSplit;
        /// Taking one entry out of the page-modification log: its memory slot found, its bit set.
        modification_log_entry ModificationLogEntry;
        /// Looking at 64 pages' worth of the dirty log.
        dirty_log_word DirtyLogWord;
        /// Taking one dirty page out of the log, and arming its entry of the nested tables again.
        dirty_log_page DirtyLogPage;
        /// Mapping one page in a shadow page table, or finding that the fault is the guest's.
        shadow_fault_fix ShadowFaultFix;
        /// CPUID handler.
        cpuid_handler CpuidHandler;
        /// RDMSR and WRMSR handler.
        msr_handler MsrHandler;
        /// Control-register and debug-register handler.
        control_register_handler ControlRegisterHandler;
        /// Port I/O or MMIO that a device model in the kernel answers.
        io_in_kernel IoInKernel;
        /// Port I/O or MMIO that has to leave for user space and come back.
        io_in_userspace IoInUserspace;
        /// Putting an event into the VMCS or VMCB for the next entry.
        inject_event InjectEvent;
        /// Putting a halted virtual CPU to sleep and waking it.
        halt_and_wake HaltAndWake;
        /// Forwarding an interrupt or NMI that arrived while the guest ran to the host's handler.
        host_interrupt HostInterrupt;
        /// Pausing one virtual CPU for migration and saving its record.
        migrate_save MigrateSave;
        /// Loading a record into a virtual CPU of the destination.
        migrate_load MigrateLoad;
        /// Copying one 4-KByte page to the destination.
        migrate_page MigratePage;
        /// Finding that a page is zero, so that it need not be copied.
        zero_page_check ZeroPageCheck;
        /// A world switch to user space and back that does nothing else (KVM_RUN returning).
        userspace_round_trip UserspaceRoundTrip;
    }
}
