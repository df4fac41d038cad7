//! The table of events: one row gives an event's name, its fields in order, and its line of text.
//!
//! Names, fields and order of the `kvm_*` rows are those of Linux KVM's trace points (arch/x86/kvm/trace.h and
//! include/trace/events/kvm.h, 6.12), so that whoever reads `trace-cmd report` can read a run; `kvm_entry` carries the interruption
//! information that 6.14 added to it. Times are simulated cycles.

use crate::value::{ByteString, Exception, Flag, Name, direction, hexadecimal, optional_hexadecimal};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// Version of the NDJSON, in its header line; it rises when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

macro_rules! events {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident = $name:literal {
            $( $(#[$attribute:meta])* $field:ident : $type:ty ),* $(,)?
        } |$vcpu:ident| $text:literal $(, $argument:expr)*;
    )+) => {
        /// Something that happened in a run.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(tag = "event")]
        pub enum Event {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name)]
                $variant { $( $(#[$attribute])* $field: $type ),* },
            )+
        }

        /// Which event it is, without its fields.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Kind {
            /// Every kind of event, in the order of the table.
            pub const ALL: &[Kind] = &[ $( Kind::$variant ),+ ];

            /// The name a trace shows, for example `kvm_exit`.
            pub fn name(self) -> &'static str {
                match self { $( Kind::$variant => $name ),+ }
            }
        }

        impl Event {
            /// Which event it is.
            pub fn kind(&self) -> Kind {
                match self { $( Event::$variant { .. } => Kind::$variant ),+ }
            }

            fn write_text(&self, f: &mut fmt::Formatter<'_>, vcpu: u32) -> fmt::Result {
                match self {
                    $( Event::$variant { $( $field ),* } => {
                        let $vcpu = vcpu;
                        let _ = $vcpu;
                        // A pattern binds every field; a row whose text leaves one to the NDJSON alone is still a full row.
                        $( let _ = $field; )*
                        write!(f, $text $(, $argument)*)
                    } ),+
                }
            }
        }
    };
}

events! {
    /// A virtual CPU left guest mode. On Intel `info1` is the exit qualification, `info2` the IDT-vectoring information, `intr_info` the
    /// VM-exit interruption information and `error_code` its error code; on AMD EXITINFO1, EXITINFO2, EXITINTINFO and its error code.
    Exit = "kvm_exit" {
        /// The exit reason in the kernel's words: `VMCALL`, `hypercall`.
        reason: Name,
        /// Whether it is a VM entry that failed its checks (bit 31 of Intel's exit reason).
        failed_entry: bool,
        /// RIP of the guest.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// See the event.
        #[serde(serialize_with = "hexadecimal")] info1: u64,
        /// See the event.
        #[serde(serialize_with = "hexadecimal")] info2: u64,
        /// See the event.
        #[serde(serialize_with = "hexadecimal")] intr_info: u32,
        /// See the event.
        #[serde(serialize_with = "hexadecimal")] error_code: u32,
    } |vcpu| "vcpu {vcpu} reason {reason}{} rip {rip:#x} info1 {info1:#018x} info2 {info2:#018x} intr_info {intr_info:#010x} error_code {error_code:#010x}",
        Flag(*failed_entry, "FAILED_VMENTRY");

    /// A virtual CPU enters guest mode.
    Entry = "kvm_entry" {
        /// RIP of the guest.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// What the entry injects: Intel's VM-entry interruption information, bits 31:0 of AMD's EVENTINJ.
        #[serde(serialize_with = "hexadecimal")] intr_info: u32,
        /// The error code it injects with it.
        #[serde(serialize_with = "hexadecimal")] error_code: u32,
    } |vcpu| "vcpu {vcpu}, rip {rip:#x} intr_info {intr_info:#010x} error_code {error_code:#010x}";

    /// A hypercall reached the hypervisor; registers before any masking to 32 bits.
    Hypercall = "kvm_hypercall" {
        /// The number, RAX.
        #[serde(serialize_with = "hexadecimal")] nr: u64,
        /// First argument, RBX.
        #[serde(serialize_with = "hexadecimal")] a0: u64,
        /// Second argument, RCX.
        #[serde(serialize_with = "hexadecimal")] a1: u64,
        /// Third argument, RDX.
        #[serde(serialize_with = "hexadecimal")] a2: u64,
        /// Fourth argument, RSI.
        #[serde(serialize_with = "hexadecimal")] a3: u64,
    } |vcpu| "nr {nr:#x} a0 {a0:#x} a1 {a1:#x} a2 {a2:#x} a3 {a3:#x}";

    /// A hypercall of Hyper-V's interface reached the hypervisor.
    HypervHypercall = "kvm_hv_hypercall" {
        /// The code of the call.
        #[serde(serialize_with = "hexadecimal")] code: u64,
        /// Arguments are in registers.
        fast: bool,
        /// Words of a header of variable size.
        #[serde(serialize_with = "hexadecimal")] var_cnt: u64,
        /// Repetitions.
        #[serde(serialize_with = "hexadecimal")] rep_cnt: u64,
        /// Number of the first.
        #[serde(serialize_with = "hexadecimal")] idx: u64,
        /// Guest-physical address of the input.
        #[serde(rename = "in", serialize_with = "hexadecimal")] input: u64,
        /// Guest-physical address of the output.
        #[serde(rename = "out", serialize_with = "hexadecimal")] output: u64,
    } |vcpu| "code {code:#x} {} var_cnt {var_cnt:#x} rep_cnt {rep_cnt:#x} idx {idx:#x} in {input:#x} out {output:#x}",
        if *fast { "fast" } else { "slow" };

    /// What the call came to.
    HypervHypercallDone = "kvm_hv_hypercall_done" {
        /// The result value: a status, and the repetitions that were done.
        #[serde(serialize_with = "hexadecimal")] result: u64,
    } |vcpu| "result {result:#x}";

    /// The hypervisor decoded an instruction of the guest in order to emulate it: the line that marks a patch.
    EmulateInstruction = "kvm_emulate_insn" {
        /// Base of the code segment.
        #[serde(serialize_with = "hexadecimal")] cs_base: u64,
        /// RIP of the instruction.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// Its bytes.
        bytes: ByteString,
        /// `real`, `vm16`, `prot16`, `prot32` or `prot64`.
        mode: &'static str,
        /// Whether it could not be emulated.
        failed: bool,
    } |vcpu| "{cs_base:x}:{rip:x}:{bytes} ({mode}){}", Flag(*failed, "failed");

    /// The hypervisor will inject an exception.
    InjectException = "kvm_inj_exception" {
        /// Its vector.
        vector: u8,
        /// Its error code, if it has one.
        #[serde(serialize_with = "optional_hexadecimal")] error_code: Option<u32>,
        /// Whether the same exception had been interrupted in its delivery.
        reinjected: bool,
    } |vcpu| "{}{}", Exception(*vector, *error_code), Flag(*reinjected, "[reinjected]");

    /// The hypervisor will inject an interrupt.
    InjectInterrupt = "kvm_inj_virq" {
        /// Its vector.
        #[serde(serialize_with = "hexadecimal")] vector: u8,
        /// Whether an `INT n` of the guest raised it.
        software: bool,
        /// Whether the same interrupt had been interrupted in its delivery.
        reinjected: bool,
    } |vcpu| "{} {vector:#x}{}", if *software { "Soft/INTn" } else { "IRQ" }, Flag(*reinjected, "[reinjected]");

    /// The guest touched an address that the hypervisor has to map, or a page fault it intercepts.
    PageFault = "kvm_page_fault" {
        /// RIP of the guest.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// The faulting address: guest-physical with nested paging, linear with shadow paging.
        #[serde(serialize_with = "hexadecimal")] address: u64,
        /// Why, as the silicon told it.
        #[serde(serialize_with = "hexadecimal")] error_code: u64,
    } |vcpu| "vcpu {vcpu} rip {rip:#x} address {address:#018x} error_code {error_code:#x}";

    /// The hypervisor lets the guest write a page again that its dirty log protected; no lock is taken for it.
    FastPageFault = "fast_page_fault" {
        /// The faulting address: guest-physical with nested paging.
        #[serde(serialize_with = "hexadecimal")] gva: u64,
        /// Why, in bits of a page fault's error code.
        #[serde(serialize_with = "hexadecimal")] error_code: u64,
        /// Host-physical address of the entry.
        #[serde(serialize_with = "hexadecimal")] sptep: u64,
        /// What the entry was.
        #[serde(serialize_with = "hexadecimal")] old: u64,
        /// What it is.
        #[serde(serialize_with = "hexadecimal")] new: u64,
        /// Whether another CPU had done it already.
        spurious: bool,
    } |vcpu| "vcpu {vcpu} gva {gva:x} error_code {} sptep {sptep:#x} old {old:#x} new {new:x} spurious {} fixed 1",
        FaultFlags(*error_code), u8::from(*spurious);

    /// The hypervisor divided a large mapping, so that its dirty log can tell small pages apart.
    SplitHugePage = "kvm_mmu_split_huge_page" {
        /// First guest-physical address of the mapping, in pages.
        #[serde(serialize_with = "hexadecimal")] gfn: u64,
        /// The entry.
        #[serde(serialize_with = "hexadecimal")] spte: u64,
        /// 2 for 2 MiB, 3 for 1 GiB.
        level: u32,
    } |vcpu| "gfn {gfn:x} spte {spte:x} level {level} errno 0";

    /// The dirty log of the guest's memory was started, read or ended.
    DirtyLog = "trapline_dirty_log" {
        /// `start`, `read` or `stop`.
        action: &'static str,
        /// How writes are told: `page-modification log` or `write protection`.
        by: &'static str,
        /// Pages that were written since the last time.
        pages: u64,
        /// What that costs whoever asked, in cycles; it is no virtual CPU's time.
        cycles: u64,
    } |vcpu| "{action}, by {by}, pages {pages} cycles {cycles}";

    /// A virtual CPU waits for a page of its memory that is still on another host.
    PageWait = "trapline_page_wait" {
        /// The page, by number.
        #[serde(serialize_with = "hexadecimal")] gfn: u64,
    } |vcpu| "vcpu {vcpu} gfn {gfn:x}";

    /// Of a live move: a pass over the memory that the guest had written is over.
    Round = "trapline_round" {
        /// Its number, from one.
        round: u32,
        /// Pages sent.
        pages: u64,
        /// Bytes that they took on the link.
        bytes: u64,
        /// Cycles until the destination had them.
        cycles: u64,
        /// Pages written meanwhile.
        remaining: u64,
        /// Pages written in a second.
        dirty_rate: u64,
        /// Nanoseconds that the guest would be paused for the rest.
        downtime: u64,
        /// Percent of the time for which virtual CPUs are held.
        throttle: u8,
    } |vcpu| "{round} pages {pages} bytes {bytes} cycles {cycles} remaining {remaining} dirty {dirty_rate}/s expected downtime {} us throttle {throttle}%",
        downtime / 1000;

    /// Of a live move: what one side says or does.
    Handover = "trapline_handover" {
        /// `source`, `destination` or `both`.
        side: &'static str,
        /// What.
        what: String,
    } |vcpu| "{side}: {what}";

    /// Of a live move: something went wrong on the link.
    LinkFault = "trapline_link" {
        /// `drop`, `cut` and so on.
        what: &'static str,
        /// The message that was struck.
        message: String,
    } |vcpu| "{what} {message}";

    /// The guest accessed a model-specific register.
    Msr = "kvm_msr" {
        /// WRMSR rather than RDMSR.
        write: bool,
        /// Number of the register.
        #[serde(serialize_with = "hexadecimal")] ecx: u32,
        /// Its value.
        #[serde(serialize_with = "hexadecimal")] data: u64,
        /// Whether the access raises #GP.
        fault: bool,
    } |vcpu| "msr_{} {ecx:x} = {data:#x}{}", direction(*write), Flag(*fault, "(#GP)");

    /// The guest accessed a control register.
    ControlRegister = "kvm_cr" {
        /// Written rather than read.
        write: bool,
        /// Number of the register.
        number: u8,
        /// Its value.
        #[serde(serialize_with = "hexadecimal")] value: u64,
    } |vcpu| "cr_{} {number:x} = {value:#x}", direction(*write);

    /// The guest executed CPUID.
    Cpuid = "kvm_cpuid" {
        /// The leaf, EAX.
        #[serde(serialize_with = "hexadecimal")] function: u32,
        /// The subleaf, ECX.
        #[serde(serialize_with = "hexadecimal")] index: u32,
        /// Answer.
        #[serde(serialize_with = "hexadecimal")] rax: u64,
        /// Answer.
        #[serde(serialize_with = "hexadecimal")] rbx: u64,
        /// Answer.
        #[serde(serialize_with = "hexadecimal")] rcx: u64,
        /// Answer.
        #[serde(serialize_with = "hexadecimal")] rdx: u64,
        /// Whether the leaf exists.
        found: bool,
    } |vcpu| "func {function:x} idx {index:x} rax {rax:x} rbx {rbx:x} rcx {rcx:x} rdx {rdx:x}, cpuid entry {}",
        if *found { "found" } else { "not found" };

    /// The guest accessed an I/O port.
    PortIo = "kvm_pio" {
        /// OUT rather than IN.
        write: bool,
        /// The port.
        #[serde(serialize_with = "hexadecimal")] port: u16,
        /// Bytes of one access: 1, 2 or 4.
        size: u8,
        /// Accesses, above one for the string forms.
        count: u32,
        /// The (first) value.
        #[serde(serialize_with = "hexadecimal")] value: u32,
    } |vcpu| "pio_{} at {port:#x} size {size} count {count} val {value:#x}", direction(*write);

    /// The guest accessed memory that is no RAM.
    Mmio = "kvm_mmio" {
        /// A write rather than a read.
        write: bool,
        /// Bytes of the access.
        length: u8,
        /// The guest-physical address.
        #[serde(serialize_with = "hexadecimal")] gpa: u64,
        /// The value, little-endian.
        #[serde(serialize_with = "hexadecimal")] value: u64,
    } |vcpu| "mmio {} len {length} gpa {gpa:#x} val {value:#x}", direction(*write);

    /// The guest accessed its local APIC.
    Apic = "kvm_apic" {
        /// A write rather than a read.
        write: bool,
        /// The register, `APIC_EOI` and so on.
        register: Name,
        /// Its value.
        #[serde(serialize_with = "hexadecimal")] value: u64,
    } |vcpu| "apic_{} {register} = {value:#x}", direction(*write);

    /// Control would pass to the user-space half of the hypervisor.
    UserspaceExit = "kvm_userspace_exit" {
        /// `KVM_EXIT_HYPERCALL` and so on.
        reason: Name,
        /// Its number.
        number: u32,
    } |vcpu| "reason {reason} ({number})";

    /// The hypervisor rewrote bytes of the guest's text.
    Patch = "trapline_patch" {
        /// Guest-physical address of the first byte.
        #[serde(serialize_with = "hexadecimal")] gpa: u64,
        /// What stood there.
        old: ByteString,
        /// What stands there now.
        new: ByteString,
    } |vcpu| "gpa {gpa:#x} {old} -> {new}";

    /// A virtual CPU's thread has to wait for a lock of the hypervisor.
    ContentionBegin = "contention_begin" {
        /// The lock, by its name in the kernel's source.
        lock: &'static str,
        /// What kind it is and how it is to be taken: `MUTEX`, `SPIN|READ`, `SPIN|WRITE`.
        flags: &'static str,
    } |vcpu| "{lock} (flags={flags})";

    /// It has the lock.
    ContentionEnd = "contention_end" {
        /// The lock, by its name in the kernel's source.
        lock: &'static str,
    } |vcpu| "{lock} (ret=0)";

    /// Something that a scenario says must hold at every step does not.
    Violation = "trapline_violation" {
        /// The invariant, as scenarios name it.
        invariant: String,
        /// What happened instead.
        detail: String,
    } |vcpu| "{invariant}: {detail}";

    /// The hypervisor dropped every mapping of guest memory, as the commit of 2007 does under its lock.
    Zap = "trapline_zap" {
        /// How many leaf mappings went.
        mappings: u64,
    } |vcpu| "mappings {mappings}";

    /// The machine moved to another CPU model.
    Migrate = "trapline_migrate" {
        /// CPU model it came from.
        from: String,
        /// CPU model it goes on with.
        to: String,
        /// What could not be carried, or only with a change; one sentence each.
        ledger: Vec<String>,
    } |vcpu| "from {from} to {to}{}", Ledger(ledger);

    /// An event of the scenario's script took place.
    Script = "trapline_script" {
        /// When, in the script's own words.
        at: String,
        /// What was done.
        action: String,
    } |vcpu| "at {at}: {action}";

    /// The run is over.
    Stop = "trapline_stop" {
        /// Why.
        reason: String,
    } |vcpu| "{reason}";

    /// On a machine whose guest is itself a hypervisor: the silicon left guest mode. Fields as in `kvm_exit`.
    SiliconExit = "vm_exit" {
        /// The exit reason.
        reason: Name,
        /// Whether it is a VM entry that failed its checks.
        failed_entry: bool,
        /// RIP of the guest that exited.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// As in `kvm_exit`.
        #[serde(serialize_with = "hexadecimal")] info1: u64,
        /// As in `kvm_exit`.
        #[serde(serialize_with = "hexadecimal")] info2: u64,
        /// As in `kvm_exit`.
        #[serde(serialize_with = "hexadecimal")] intr_info: u32,
        /// As in `kvm_exit`.
        #[serde(serialize_with = "hexadecimal")] error_code: u32,
    } |vcpu| "cpu {vcpu} reason {reason}{} rip {rip:#x} info1 {info1:#018x} info2 {info2:#018x} intr_info {intr_info:#010x} error_code {error_code:#010x}",
        Flag(*failed_entry, "FAILED_VMENTRY");

    /// On a machine whose guest is itself a hypervisor: the silicon entered guest mode.
    SiliconEntry = "vm_entry" {
        /// RIP of the guest that is entered.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// What the entry injects.
        #[serde(serialize_with = "hexadecimal")] intr_info: u32,
        /// The error code it injects with it.
        #[serde(serialize_with = "hexadecimal")] error_code: u32,
    } |vcpu| "cpu {vcpu}, rip {rip:#x} intr_info {intr_info:#010x} error_code {error_code:#010x}";

    /// The CPU delivers an exception through the guest's own IDT, or tries to: the next one may tell that it could not. Exceptions of INT3,
    /// INTO and INT1 are among them.
    Exception = "exception" {
        /// Its vector.
        vector: u8,
        /// Its error code, if it has one.
        #[serde(serialize_with = "optional_hexadecimal")] error_code: Option<u32>,
        /// RIP that the handler will see.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
        /// CR2, for a page fault.
        #[serde(serialize_with = "optional_hexadecimal")] cr2: Option<u64>,
    } |vcpu| "{} rip {rip:#x}{}", Exception(*vector, *error_code), FaultAddress(*cr2);

    /// The CPU takes an interrupt through the guest's own IDT, or tries to.
    Interrupt = "interrupt" {
        /// Where it comes from: `IRQ`, `NMI`, or `Soft/INTn`, as in `kvm_inj_virq`.
        source: &'static str,
        /// Its vector.
        #[serde(serialize_with = "hexadecimal")] vector: u8,
        /// RIP that the handler will return to.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
    } |vcpu| "{source} {vector:#x} rip {rip:#x}";

    /// No handler could be reached: the CPU shuts down.
    TripleFault = "triple_fault" {
        /// RIP at the last fault.
        #[serde(serialize_with = "hexadecimal")] rip: u64,
    } |vcpu| "rip {rip:#x}";
}

struct Ledger<'a>(&'a [String]);

impl fmt::Display for Ledger<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            write!(f, "{} {entry}", if index == 0 { "," } else { ";" })?;
        }
        Ok(())
    }
}

/// Bits of a page fault's error code as the kernel's `fast_page_fault` names them; what has no name is left as a number.
struct FaultFlags(u64);

impl fmt::Display for FaultFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut between = "";
        for (bit, name) in ["P", "W", "U", "RSVD", "F"].into_iter().enumerate() {
            if left & 1 << bit != 0 {
                write!(f, "{between}{name}")?;
                between = "|";
                left &= !(1 << bit);
            }
        }
        if left != 0 { write!(f, "{between}{left:#x}") } else { Ok(()) }
    }
}

struct FaultAddress(Option<u64>);

impl fmt::Display for FaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, " cr2 {address:#x}"),
            None => Ok(()),
        }
    }
}

/// An event with its place in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Simulated cycle of the CPU it happened on.
    pub cycle: u64,
    /// Number of that CPU.
    pub vcpu: u32,
    /// What happened.
    pub event: Event,
}

impl Record {
    /// The text after `name: `, for example `vcpu 0 reason VMCALL rip 0x1000 ...`.
    pub fn text(&self) -> impl fmt::Display + '_ {
        struct Text<'a>(&'a Record);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.event.write_text(f, self.0.vcpu)
            }
        }
        Text(self)
    }

    /// One line of NDJSON, without its newline.
    pub fn to_json(&self) -> String {
        let mut line = String::new();
        // Every field type of the table serialises infallibly, and a String takes every write.
        let event = serde_json::to_string(&self.event).unwrap_or_default();
        let _ = write!(line, "{{\"cycle\":{},\"vcpu\":{},{}", self.cycle, self.vcpu, event.strip_prefix('{').unwrap_or("}"));
        line
    }
}

/// The canonical line: cycle right-aligned in 14 columns, CPU in brackets, the event's name and its text.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14} [{}] {}: ", self.cycle, self.vcpu, self.event.kind().name())?;
        self.event.write_text(f, self.vcpu)
    }
}
