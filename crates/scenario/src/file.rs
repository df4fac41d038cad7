//! The types of a scenario file; the JSON Schema, the reference in docs/scenarios.md and the checks of [`crate::schema`] come from them.
//!
//! A type here says what a file may contain, not whether it makes sense: that is decided in [`crate::load`], which knows the models,
//! the guest's labels and the memory. Unknown keys are errors everywhere.

mod moves;
mod steps;

pub use moves::{Converge, Link, Mend, MigrateAction, MissingFeatures, MoveExpectation, MoveMode, MoveOutcome};
pub use steps::{Invariant, Part, Turn};

use crate::quantity::{Lines, Quantity, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A story about a guest on one or several machines, and what must hold at its end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The JSON Schema of this file, for editors; `trapline schema` prints it.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// A short name.
    pub title: String,
    /// One sentence: what a reader learns from this scenario.
    pub teaches: String,
    /// The cases of docs/edge-cases.md and docs/migration-cases.md and the mechanisms of docs/mechanisms.md that it shows: `"E7"`, `"M2"`,
    /// `"posted-interrupts"`.
    #[serde(default)]
    pub shows: Vec<String>,
    /// The machine the guest starts on.
    #[serde(default)]
    pub machine: Machine,
    /// Lists of what to vary: the scenario runs once for every combination. A key here replaces the one of `machine` or `hypervisor`.
    #[serde(default)]
    pub matrix: Matrix,
    /// The program, and how it starts.
    pub guest: Guest,
    /// The hypervisor between guest and machine.
    #[serde(default)]
    pub hypervisor: Hypervisor,
    /// Whether the trace tells of the exceptions and interrupts that CPUs deliver through the guest's own IDT. The default is true on the bare
    /// machine, where there is little else to tell, and false under a hypervisor.
    #[serde(default)]
    pub deliveries: Option<bool>,
    /// What happens to the machine while the guest runs.
    #[serde(default)]
    pub script: Vec<Step>,
    /// The interleaving of the CPUs, as `trapline explore` writes it: who takes how many steps. Where it ends, a CPU goes on until it waits, and
    /// then the next one. Without it, CPUs take turns in the order of simulated time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<Turn>,
    /// What must hold at every step. `trapline explore` looks for schedules that break it, and by default at all but `whole-patches`; `run` looks
    /// at those that stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invariants: Option<Vec<Invariant>>,
    /// When to give up on a guest that does not stop.
    #[serde(default)]
    pub limits: Limits,
    /// What must hold at the end, on every machine.
    #[serde(default)]
    pub expect: Expect,
    /// What must hold on some of the machines, besides `expect`.
    #[serde(default)]
    pub cases: Vec<Case>,
}

/// The machine a guest starts on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The CPU model, by name; it decides the vendor, the features and what everything costs. `matrix.cpu` may name several instead.
    #[serde(default)]
    pub cpu: Option<String>,
    /// How many CPUs. The default is 1.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub vcpus: Option<u32>,
    /// How much RAM, from address 0 on. The default is 16M.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Perturbs the order in which several CPUs take turns. The default, 0, is the plain order of simulated time.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Lists of what to vary.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// CPU models.
    #[serde(default)]
    pub cpu: Vec<String>,
    /// Hypercall policies.
    #[serde(default)]
    pub policy: Vec<Policy>,
    /// Seeds.
    #[serde(default)]
    pub seed: Vec<u64>,
}

/// The program, and how it starts. Exactly one of `assembly`, `file`, `flat`, `elf` and `multiboot` is present.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Assembly text in Intel syntax, inline.
    #[serde(default)]
    pub assembly: Option<Lines>,
    /// An assembly file beside the scenario.
    #[serde(default)]
    pub file: Option<String>,
    /// A file of raw machine code beside the scenario.
    #[serde(default)]
    pub flat: Option<String>,
    /// A 64-bit ELF executable beside the scenario.
    #[serde(default)]
    pub elf: Option<String>,
    /// A multiboot (version 1) image beside the scenario.
    #[serde(default)]
    pub multiboot: Option<String>,
    /// Where assembly or flat code is loaded, and where it starts. The default is 0x10000.
    #[serde(default)]
    pub load: Option<Quantity>,
    /// The environment assembly or flat code starts in. The default is `long64`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Which CPUs run from the start. The default is `first`.
    #[serde(default)]
    pub start: Option<Start>,
    /// Handlers of interrupts and exceptions: the environment builds a table that leads vector `"14"` or `"0x20"` to a label or address.
    #[serde(default)]
    pub handlers: BTreeMap<String, Quantity>,
    /// Constants the assembly text can use, besides those that every guest has.
    #[serde(default)]
    pub constants: BTreeMap<String, Quantity>,
    /// The command line of a multiboot image.
    #[serde(default)]
    pub command_line: Option<String>,
    /// Files handed to a multiboot image as modules.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// The environment a program starts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// 16-bit real mode.
    Real16,
    /// 32-bit protected mode, flat segments, no paging.
    Protected32,
    /// 64-bit mode, the first 4 GiB mapped to themselves.
    #[default]
    Long64,
}

/// Which CPUs run from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The first; the others wait for INIT and SIPI, as after a reset.
    #[default]
    First,
    /// All of them, in the same environment; RDI holds the number of the CPU.
    All,
}

/// The hypervisor between guest and machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hypervisor {
    /// What happens to hypercalls, or `none` for the bare machine. The default is `trap-and-patch`.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// The CPU model that the guest's CPUID tells of, whatever it runs on. The default is the model it starts on.
    #[serde(default)]
    pub guest_cpu: Option<String>,
    /// What is taken away from the CPUID of that model, so that the guest can move.
    #[serde(default)]
    pub levelling: Levelling,
    /// KVM's parameter `force_emulation_prefix`: `ud2` and the letters `kvm` before an instruction have it emulated. The default is false.
    #[serde(default)]
    pub force_emulation_prefix: Option<bool>,
    /// Whether user space has asked for the exit of the hypercall MAP_GPA_RANGE. The default is true.
    #[serde(default)]
    pub exit_hypercall: Option<bool>,
    /// Whether hypercalls whose feature the guest's CPUID lacks are refused. The default is false.
    #[serde(default)]
    pub enforce_features: Option<bool>,
    /// Bits left out of the feature leaf 0x40000001.
    #[serde(default)]
    pub hidden_features: Option<Quantity>,
    /// Whether the guest is shown a piece of Hyper-V's interface: its leaves of CPUID at 0x40000000, KVM's at 0x40000100, and the page for its
    /// hypercalls. The default is false.
    #[serde(default)]
    pub hyperv: Option<bool>,
    /// KVM's parameter `unrestricted_guest`: if false, guests on Intel machines are emulated in real mode and in the states between the modes.
    /// The default is true.
    #[serde(default)]
    pub unrestricted_guest: Option<bool>,
    /// Whether the processor walks the guest's own tables behind nested ones, or shadow tables instead of them. The default is nested paging
    /// where the CPU model has it (EPT or NPT), else shadow paging.
    #[serde(default)]
    pub paging: Option<Paging>,
    /// Whether all memory is mapped at the start, rather than when it is touched, under nested paging. The default is true.
    #[serde(default)]
    pub prefault: Option<bool>,
}

/// How the guest's CPUID is narrowed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Levelling {
    /// CPU models: the guest is told of features that all of them have, and of the narrowest physical addresses.
    #[serde(default)]
    pub common: Vec<String>,
    /// Features that it is not told of, by name: `sse4a`, `page1gb`.
    #[serde(default)]
    pub remove: Vec<String>,
    /// The twelve characters of the vendor's name. `AuthenticAMD` and `HygonGenuine` make an AMD-compatible guest, any other name an
    /// Intel-compatible one.
    #[serde(default)]
    #[schemars(length(equal = 12))]
    pub vendor: Option<String>,
}

/// What the processor walks for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// EPT or NPT.
    Nested,
    /// Tables of the hypervisor that stand for the guest's.
    Shadow,
}

impl From<Paging> for hypervisor::Paging {
    fn from(paging: Paging) -> Self {
        match paging {
            Paging::Nested => Self::Nested,
            Paging::Shadow => Self::Shadow,
        }
    }
}

/// What a hypervisor does about hypercalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// There is no hypervisor: the guest runs on the bare machine.
    None,
    /// A page with the host's instruction, written when the guest asks for it: what 2007 replaced.
    HypercallPage,
    /// The commit of 2007: intercept #UD, drop every mapping, patch and call in one exit.
    #[serde(rename = "classic-2007")]
    Classic2007,
    /// KVM from 2008 or 2009 to 2015: as today, but on Intel a patched VMMCALL is skipped, and the first call lost.
    SkipFirstCall,
    /// KVM of today: intercept #UD, patch, let the guest execute the instruction again.
    #[default]
    TrapAndPatch,
    /// As proposed in 2021: where the patch fails the guest gets #UD.
    PatchOrUd,
    /// No patching: a foreign hypercall is #UD.
    QuirkOff,
    /// The foreign hypercall is executed in place, and nothing is patched.
    Direct,
}

/// Something that happens to the machine at a moment of the run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When.
    pub at: Moment,
    /// What, in this order.
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

/// A moment of a run. Exactly one of `exit`, `cycle`, `instruction`, `hypercall` and `label` is present.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// After this many VM exits of all CPUs.
    #[serde(default)]
    pub exit: Option<u64>,
    /// When the simulated time of the machine reaches this cycle.
    #[serde(default)]
    pub cycle: Option<u64>,
    /// After this many instructions of all CPUs.
    #[serde(default)]
    pub instruction: Option<u64>,
    /// After this many hypercalls.
    #[serde(default)]
    pub hypercall: Option<u64>,
    /// Before the instruction at this label or address is executed.
    #[serde(default)]
    pub label: Option<Quantity>,
    /// With `label`: the how-manieth time a CPU comes by. The default is 1.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub pass: Option<u64>,
}

/// What a script does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Moves the machine to another CPU model, possibly of the other vendor.
    Migrate(MigrateAction),
    /// Raises an interrupt at the local APIC of a CPU.
    Interrupt(InterruptAction),
    /// Raises a non-maskable interrupt.
    Nmi(NmiAction),
    /// Raises an exception at the next VM entry, as user space can.
    Exception(ExceptionAction),
    /// An overflow of a performance counter, signalled to the local APIC of a CPU.
    CounterOverflow(NmiAction),
    /// Writes guest-physical memory, as a device would.
    Write(WriteAction),
    /// Changes what the guest may do with a range of its memory: a read-only or missing memory slot.
    Protect(ProtectAction),
    /// Changes a register of a CPU.
    Register(RegisterAction),
    /// Sends bytes to the serial port.
    SerialInput(String),
    /// Holds every CPU for a while, as a monitor's `stop` and `cont` do: time goes on, timers and devices with it.
    Pause(PauseAction),
    /// Writes the whole run as a checkpoint of this name, forgets the machine, and goes on from what was written: nothing but the line that tells of
    /// it may show that. `trapline checkpoint` writes one to a file.
    Checkpoint(String),
    /// Ends the run.
    Stop(String),
}

/// Which interrupt.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterruptAction {
    /// The CPU. The default is 0.
    #[serde(default)]
    pub vcpu: u32,
    /// The vector.
    #[schemars(range(min = 16, max = 255))]
    pub vector: u8,
}

/// Which exception.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExceptionAction {
    /// The CPU. The default is 0.
    #[serde(default)]
    pub vcpu: u32,
    /// The vector.
    #[schemars(range(min = 0, max = 31))]
    pub vector: u8,
    /// The error code. The default is none.
    #[serde(default)]
    pub error_code: Option<Quantity>,
    /// What CR2 gets, for a page fault. The default is 0.
    #[serde(default)]
    pub address: Option<Quantity>,
}

/// Which CPU.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NmiAction {
    /// The CPU. The default is 0.
    #[serde(default)]
    pub vcpu: u32,
}

/// What is written where.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteAction {
    /// Guest-physical address.
    pub address: Quantity,
    /// The bytes in hexadecimal, for example `"0f 01 c1"`.
    pub bytes: String,
}

/// Which memory, and what remains allowed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectAction {
    /// Guest-physical address of the first page.
    pub address: Quantity,
    /// Size, in whole pages.
    pub size: Size,
    /// What the guest may do there.
    pub access: Access,
}

/// What a guest may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nothing: there is no memory.
    None,
    /// Read and execute.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// Which register.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterAction {
    /// The register, for example `rax`, or `cpu1.rax` for another CPU than the first.
    pub name: String,
    /// Its new value.
    pub value: Quantity,
}

/// How long.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseAction {
    /// Cycles of simulated time.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub cycles: u64,
}

/// When to give up.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Instructions of all CPUs. The default is 10 million.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub instructions: Option<u64>,
    /// Cycles of simulated time. The default is 100 thousand million.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub cycles: Option<u64>,
    /// VM exits. There is no default.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub exits: Option<u64>,
}

/// What must hold at the end.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Why the run stops.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The byte the guest wrote to the debug exit.
    #[serde(default)]
    pub exit_code: Option<u32>,
    /// Registers by name: `rax`, or `cpu1.rax` for another CPU than the first.
    #[serde(default)]
    pub registers: BTreeMap<String, Quantity>,
    /// Pieces of guest-physical memory.
    #[serde(default)]
    pub memory: Vec<MemoryExpectation>,
    /// The whole output of the serial port.
    #[serde(default)]
    pub serial: Option<String>,
    /// Texts that occur in the output of the serial port.
    #[serde(default)]
    pub serial_contains: Vec<String>,
    /// How many VM exits there are of each of these reasons, by the kernel's name: `VMCALL`, `hypercall`.
    #[serde(default)]
    pub exits: BTreeMap<String, u64>,
    /// How many events there are of each of these kinds: `kvm_hypercall`, `trapline_patch`.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
    /// Texts that occur in lines of the trace, in this order, each in a later line than the one before.
    #[serde(default)]
    pub trace: Vec<String>,
    /// Texts that occur in no line of the trace.
    #[serde(default)]
    pub trace_lacks: Vec<String>,
    /// The numbers of all hypercalls, in order.
    #[serde(default)]
    pub hypercalls: Option<Vec<Quantity>>,
    /// The guest-physical addresses the hypervisor patched, in order.
    #[serde(default)]
    pub patched: Option<Vec<Quantity>>,
    /// The `invariants` that do not hold. Without it, all of them must.
    #[serde(default)]
    pub violations: Option<Vec<Invariant>>,
    /// What came of each live move, in order.
    #[serde(default)]
    pub moves: Option<Vec<MoveExpectation>>,
}

/// Why a run stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Every CPU halted with interrupts off, or with nothing that could ever wake it.
    Halted,
    /// The guest wrote to the debug exit port 0xf4.
    DebugExit,
    /// The guest wrote `Shutdown` to port 0x8900.
    Shutdown,
    /// A CPU met a fault while delivering a double fault.
    TripleFault,
    /// The guest asked for a reset.
    Reset,
    /// The limit of instructions was reached.
    InstructionLimit,
    /// The limit of cycles was reached.
    CycleLimit,
    /// The limit of VM exits was reached.
    ExitLimit,
    /// The guest used something that is not modelled.
    Unsupported,
    /// A VM entry failed its checks.
    EntryFailure,
    /// The user-space half of the hypervisor would have to act, and has no part for it.
    UserspaceExit,
    /// A CPU exits, or is emulated, for ever at one place.
    Livelock,
    /// Behind a live move that failed nobody may run the guest.
    Stranded,
    /// The script ended it.
    Script,
}

/// A piece of guest-physical memory. Exactly one of `bytes`, `text`, `dword` and `qword` is present.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryExpectation {
    /// Guest-physical address.
    pub address: Quantity,
    /// Bytes in hexadecimal, for example `"0f 01 c1"`.
    #[serde(default)]
    pub bytes: Option<String>,
    /// Characters.
    #[serde(default)]
    pub text: Option<String>,
    /// A 32-bit number, little-endian.
    #[serde(default)]
    pub dword: Option<Quantity>,
    /// A 64-bit number, little-endian.
    #[serde(default)]
    pub qword: Option<Quantity>,
}

/// Expectations for some of the machines.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Which machines.
    pub when: When,
    /// What must hold there.
    pub expect: Expect,
}

/// Which machines of the matrix; every key that is present must fit.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The vendor of the CPU model the guest starts on.
    #[serde(default)]
    pub vendor: Option<Vendor>,
    /// The CPU model the guest starts on.
    #[serde(default)]
    pub cpu: Option<String>,
    /// One of these policies.
    #[serde(default)]
    pub policy: Vec<Policy>,
    /// The seed.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Whose virtualization extension a CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// VMX.
    Intel,
    /// SVM.
    Amd,
}
