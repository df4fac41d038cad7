//! The command line: subcommands, options and their help, as one set of types.

use crate::input::is_standard;
use crate::words;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use scenario::file::{Converge, Mend, Mode, MoveMode, Paging, Policy};
use scenario::run::{Compile, OTHER_VENDOR};
use std::path::PathBuf;

/// A deterministic, cycle-approximate simulator of x86 virtualization.
#[derive(Debug, Parser)]
#[command(name = "trapline", version, after_help = crate::exit::HELP, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How results are written.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// When to use colours; `NO_COLOR` in the environment means never, unless `always` is given.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More: of a run the table of VM exits and the final registers, of a test what passed, of a search the schedule, of a list what it leaves out.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a scenario, print its trace and whether its expectations came true.
    Run(Run),
    /// Run every scenario of a directory tree, in parallel, against expectations and snapshots.
    Test(Test),
    /// Search the interleavings of a scenario's CPUs for one that breaks what it promises.
    Explore(Explore),
    /// Boot an ELF or multiboot image, or flat code.
    Boot(Boot),
    /// Move the guest of a scenario live to another CPU model in the middle of its run, and tell what that was like.
    Migrate(Migrate),
    /// Run a scenario up to a moment, and write it to a file from which it goes on as if nothing had happened (of a booted guest: `boot
    /// --checkpoint`).
    Checkpoint(Checkpoint),
    /// Go on from a checkpoint: the rest of the trace, and whether the scenario's expectations came true; or the rest of a booted guest's run.
    Restore(Restore),
    /// Show what is in a checkpoint: its sections, a section, a field of a section, memory.
    Inspect(Inspect),
    /// Say where two checkpoints differ, field by field and byte by byte.
    Diff(Diff),
    /// Assemble a file, and print a listing or write the code.
    Asm(Asm),
    /// Measure how fast this machine simulates.
    Bench(Bench),
    /// Say which rules of VM entry or VMRUN a VMCS or VMCB breaks: from JSON, or from what Linux printed when an entry failed.
    Explain(Explain),
    /// Say what a move from one CPU model to another would cost a guest: all state, features, behaviour, and what levelling would mend.
    Ledger(Ledger),
    /// Print the JSON Schema of scenario files.
    Schema(Schema),
}

/// Options of `ledger`.
#[derive(Debug, Args)]
pub struct Ledger {
    /// The CPU model that the guest comes from.
    #[arg(value_parser = words::model(&[]))]
    pub from: String,
    /// The CPU model that it goes to.
    #[arg(value_parser = words::model(&[]), hide_possible_values = true)]
    pub to: String,
    /// The CPU model that the guest's CPUID tells of; the default is the first.
    #[arg(long, value_name = "MODEL", value_parser = words::model(&[]), hide_possible_values = true)]
    pub guest_cpu: Option<String>,
    /// Tell the guest only of features that this model has, too; may be given several times.
    #[arg(long, value_name = "MODEL", value_parser = words::model(&[]), hide_possible_values = true)]
    pub common: Vec<String>,
    /// Do not tell the guest of this feature; may be given several times.
    #[arg(long, value_name = "FEATURE")]
    pub without: Vec<String>,
    /// The vendor's name that the guest is told, twelve characters.
    #[arg(long, value_name = "NAME")]
    pub vendor: Option<String>,
}

/// Options of `schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// Print the reference of all keys as Markdown instead, as in docs/scenarios.md.
    #[arg(long)]
    pub reference: bool,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The scenario.
    pub file: PathBuf,
    /// Only machines whose name (`zen3.trap-and-patch`) contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Write the trace there as NDJSON; with several machines, one after the other.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub trace: Option<PathBuf>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// Options of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The scenario whose guest is moved; moves of its own script are left out.
    pub file: PathBuf,
    /// The CPU model to move to.
    #[arg(long, value_name = "MODEL", default_value = OTHER_VENDOR, value_parser = words::model(BESIDES))]
    pub to: String,
    /// Only machines whose name (`zen3.trap-and-patch`) contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// When: exit:N, cycle:N, instruction:N, hypercall:N, label:NAME or address:N, the last two also with :PASS; the default is half of the guest's instructions.
    #[arg(long, value_name = "MOMENT")]
    pub at: Option<String>,
    /// Do not move: say whether the destination would take the guest at that moment, and what would be lost.
    #[arg(long)]
    pub check: bool,
    /// Tell the guest from its start only of features that both models have.
    #[arg(long)]
    pub level: bool,
    /// Have a guest taken that was told of features that the destination lacks.
    #[arg(long)]
    pub accept_missing_features: bool,
    /// The hypercall policy at the destination; the default is the one so far.
    #[arg(long, value_name = "POLICY", value_parser = words::parser::<Policy>(&[]))]
    pub policy: Option<Policy>,
    /// How memory travels: in rounds while the guest runs at the source, or mostly while it runs at the destination.
    #[arg(long, value_parser = words::parser::<MoveMode>(&["pause"]), default_value = "pre-copy")]
    pub mode: MoveMode,
    /// Bits a second of the link, for example 100M; the default is 10G.
    #[arg(long, value_name = "BITS")]
    pub bandwidth: Option<String>,
    /// From one end of the link to the other, for example 1ms; the default is 50us.
    #[arg(long, value_name = "TIME")]
    pub latency: Option<String>,
    /// What a frame may take beyond that; the default is 0ns.
    #[arg(long, value_name = "TIME")]
    pub jitter: Option<String>,
    /// Chooses jitter and random faults; the default is 1.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The longest pause that is allowed; the default is 300ms.
    #[arg(long, value_name = "TIME")]
    pub downtime: Option<String>,
    /// The most rounds of pre-copy; the default is 30.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// What is done about a guest that writes faster than its memory travels.
    #[arg(long, value_parser = words::parser::<Converge>(&[]), default_value = "throttle")]
    pub converge: Converge,
    /// Hold virtual CPUs for so many percent of the time from the start, so that a guest of few instructions is not over before its memory has travelled.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=99))]
    pub throttle: Option<u8>,
    /// Something that goes wrong, such as drop@commit, cut=2ms@ram:3, source-dies@commit or out-of-memory=100; may be given several times.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<String>,
    /// What a person does if the guest is stranded.
    #[arg(long, value_parser = words::parser::<Mend>(&[]))]
    pub mend: Option<Mend>,
    /// Write the trace there as NDJSON; with several machines, one after the other.
    #[arg(long, value_name = "FILE", conflicts_with = "check", value_parser = file())]
    pub trace: Option<PathBuf>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// Options of `checkpoint`.
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// The scenario.
    pub file: PathBuf,
    /// The machine whose name (`zen3.trap-and-patch`) contains this; a scenario of several needs it.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// When: exit:N, cycle:N, instruction:N, hypercall:N, label:NAME or address:N, the last two also with :PASS.
    #[arg(long, value_name = "MOMENT")]
    pub at: String,
    /// Where to write it.
    #[arg(short, long, value_name = "FILE", value_parser = file())]
    pub output: PathBuf,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The checkpoint.
    pub file: PathBuf,
    /// Write the trace from there on as NDJSON (of a booted guest, `-` for text on the standard output).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Another checkpoint on the way.
    #[command(flatten)]
    pub cut: Cut,
    /// Of a booted guest: write the serial output from there on there instead of to the standard output.
    #[arg(long, value_name = "FILE")]
    pub serial: Option<PathBuf>,
    /// Of a booted guest under a hypervisor: let the trace tell also of what its CPUs deliver through its own IDT.
    #[arg(long, requires = "trace")]
    pub deliveries: bool,
    /// Of a booted guest: give up after so many instructions since its start; the default is the limit it was booted with.
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// Of a booted guest: give up after so many cycles of simulated time since its start.
    #[arg(long, value_name = "N")]
    pub max_cycles: Option<u64>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// A checkpoint on the way of a run.
#[derive(Debug, Args)]
pub struct Cut {
    /// Write the run to this file when the moment of `--at` comes, and go on; `trapline restore` goes on from there once more.
    #[arg(long, value_name = "FILE", requires = "at", value_parser = file())]
    pub checkpoint: Option<PathBuf>,
    /// When: exit:N, cycle:N, instruction:N, hypercall:N, since the guest's start, label:NAME or address:N, the last two also with :PASS.
    #[arg(long, value_name = "MOMENT", requires = "checkpoint")]
    pub at: Option<String>,
    /// Do not go on behind that.
    #[arg(long, requires = "checkpoint")]
    pub stop: bool,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The checkpoint, or any other stream.
    pub file: PathBuf,
    /// A section (`cpu/0/sregs`), a field of one (`cpu/0/sregs.cs.base`) or memory at an address (`memory/pages.0x10000`).
    pub section: Option<String>,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// One checkpoint, or any other stream.
    pub one: PathBuf,
    /// The other.
    pub other: PathBuf,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Directories or files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// How many scenarios run at the same time; the default is one per CPU of the host.
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Where the reviewed traces are; the default is the directory `snapshots` beside the path, or beside the nearest directory above it that
    /// has one.
    #[arg(long, value_name = "DIR")]
    pub snapshots: Option<PathBuf>,
    /// Accept the traces of this run as the reviewed ones, and remove those that no run belongs to any more.
    #[arg(long)]
    pub accept: bool,
    /// Ask instead whether each guest survives a move to this CPU model and back, at every exit and before random instructions: it must come to
    /// the same end.
    #[arg(long = "move", value_name = "MODEL", conflicts_with = "accept", value_parser = words::model(BESIDES))]
    pub move_to: Option<String>,
    /// With `--move`: how many exits and how many instructions at most are tried one by one; one more journey moves at every exit.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "move_to")]
    pub moves: u64,
    /// With `--move`: so many live moves of each guest besides, over links on which random things go wrong.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "move_to")]
    pub faults: u64,
    /// Only scenarios and machines whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Take every run through a checkpoint at every VM exit, and at random instructions in between: traces and verdicts must be the same.
    #[arg(long, conflicts_with = "accept")]
    pub cut: bool,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// How `explore` is used.
const EXPLORE_EXAMPLES: &str = "Examples:
  trapline explore scenarios/smp/lock-naive.json
      looks for an order of the CPUs in which the lock loses a wake-up, on every machine of the scenario
  trapline explore scenarios/smp/lock-naive.json --only zen3 -o lost.json && trapline run lost.json
      writes the shortest one found as a scenario of its own, and replays it
  trapline explore scenarios/smp/lock-correct.json --preemptions 12
      goes on until no interleaving is left, and says so
  trapline explore scenarios/smp/two-pages.json --only merom --format json
      the same for programs: what was found, and how far it was looked

docs/explore.md says what is searched, and what the numbers mean.";

/// Options of `explore`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXPLORE_EXAMPLES}\n\n{}", crate::exit::HELP))]
pub struct Explore {
    /// The scenario.
    pub file: PathBuf,
    /// Only machines whose name (`zen3.trap-and-patch`) contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The most preemptions of a schedule, uses of a freedom included, that are searched exhaustively.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub preemptions: u32,
    /// The most runs on each machine; what the exhaustive search leaves of them are random ones.
    #[arg(long, value_name = "RUNS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub budget: u64,
    /// Of the random runs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Which stores of the guest may wait in a CPU's store buffer while it goes on.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = StoreBuffers::BeforeLoads)]
    pub store_buffers: StoreBuffers,
    /// How many runs are made at the same time; the default is one per CPU of the host. The result does not depend on it.
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Write the first violation there, as a scenario that replays it.
    #[arg(short, long, value_name = "FILE", value_parser = file())]
    pub output: Option<PathBuf>,
}

/// Which stores may wait in a store buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreBuffers {
    /// None: every store is visible at once.
    Off,
    /// Those behind which a load of other shared memory comes: where it can be seen.
    BeforeLoads,
    /// All to shared memory: finds no more, and takes longer.
    Everywhere,
}

impl From<StoreBuffers> for scenario::explore::StoreBuffers {
    fn from(which: StoreBuffers) -> Self {
        match which {
            StoreBuffers::Off => Self::Off,
            StoreBuffers::BeforeLoads => Self::BeforeLoads,
            StoreBuffers::Everywhere => Self::Everywhere,
        }
    }
}

/// Options of `boot`.
#[derive(Debug, Args)]
pub struct Boot {
    /// The image.
    pub image: PathBuf,
    /// The command line of a multiboot image.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub append: String,
    /// A file handed to a multiboot image as a module; may be given several times.
    #[arg(long = "module", value_name = "FILE")]
    pub modules: Vec<PathBuf>,
    /// Write the serial output there instead of to the standard output (`-`).
    #[arg(long, value_name = "FILE")]
    pub serial: Option<PathBuf>,
    /// What the guest finds at its serial port, from its start on: this file, or the whole standard input (`-`).
    #[arg(long, value_name = "FILE")]
    pub serial_input: Option<PathBuf>,
    /// The vendor, when no CPU model is given; the default is Intel.
    #[arg(long, value_enum, conflicts_with = "cpu")]
    pub vendor: Option<VendorName>,
    /// The CPU model; the default is the modern one of the vendor.
    #[arg(long, value_name = "MODEL", value_parser = words::model(&[]))]
    pub cpu: Option<String>,
    /// How many CPUs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vcpus: u32,
    /// How much RAM, for example 64M.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = size)]
    pub memory: u64,
    /// Run it under the hypervisor, with this policy of hypercalls, or on the bare machine.
    #[arg(long, value_name = "POLICY", default_value = "none", value_parser = words::parser::<Policy>(&[]))]
    pub hypervisor: Policy,
    /// What the processor walks for a guest of the hypervisor. The default is nested paging where the CPU model has it.
    #[arg(long, value_name = "KIND", requires = "hypervisor", value_parser = words::parser::<Paging>(&[]))]
    pub paging: Option<Paging>,
    /// Write the trace there as NDJSON (`-` for text on the standard output, between what the guest writes to its serial port).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Let the trace of a guest under a hypervisor tell also of the exceptions and interrupts that its CPUs deliver through its own IDT; on the
    /// bare machine it always does.
    #[arg(long, requires = "trace")]
    pub deliveries: bool,
    /// Give up after so many instructions.
    #[arg(long, value_name = "N", default_value_t = 20_000_000_000)]
    pub max_instructions: u64,
    /// Give up after so many cycles of simulated time: a guest may sleep for ever while a timer ticks.
    #[arg(long, value_name = "N", default_value_t = 10_000_000_000_000)]
    pub max_cycles: u64,
    /// A checkpoint on the way.
    #[command(flatten)]
    pub cut: Cut,
    /// Treat the image as flat code, loaded at this address.
    #[arg(long, value_name = "ADDRESS", value_parser = number)]
    pub flat: Option<u64>,
    /// The environment flat code starts in.
    #[arg(long, default_value = "long64", requires = "flat", value_parser = words::parser::<Mode>(&[]))]
    pub mode: Mode,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = crate::exit::HELP)]
pub struct Explain {
    /// What to look up instead.
    #[command(subcommand)]
    pub manual: Option<Manual>,
    /// The VMCS or VMCB; `-` is the standard input. The form is recognised: JSON, or the text of dump_vmcs or dump_vmcb within a log.
    #[arg(required = true)]
    pub file: Option<PathBuf>,
    /// The CPU model whose capabilities count; the default is the modern one of the vendor.
    #[arg(long, value_name = "MODEL", value_parser = words::model(&[]))]
    pub cpu: Option<String>,
}

/// The tables as a manual: one row, or all of them.
#[derive(Debug, Subcommand)]
pub enum Manual {
    /// An exit, by the number or name that either vendor or Linux gives it.
    Exit(Row),
    /// A field of the VMCS or the VMCB, by name, encoding or offset.
    Field(Row),
    /// A rule of VM entry or VMRUN, by its id.
    Check(Row),
    /// A model-specific register, by name or number.
    Msr(Row),
}

/// Which row.
#[derive(Debug, Args)]
pub struct Row {
    /// Its name or number; without one, all are listed.
    #[arg(allow_negative_numbers = true)]
    pub name: Vec<String>,
}

/// How code is executed. Nothing but the speed of a run depends on it.
#[derive(Debug, Args)]
pub struct Tiers {
    /// Compile a block of code when it was entered so often, or never; by default hot code is compiled while the guest runs on. Nothing but
    /// the speed of a run depends on it.
    #[arg(long, value_name = "COUNT|never", value_parser = compile)]
    pub compile_after: Option<Compile>,
}

impl Tiers {
    /// When code is compiled.
    pub fn compile(&self) -> Compile {
        self.compile_after.unwrap_or_default()
    }
}

fn compile(text: &str) -> Result<Compile, String> {
    match text.parse() {
        _ if text == "never" => Ok(Compile::Never),
        Ok(entries @ 1..) => Ok(Compile::After(entries)),
        _ => Err("write a number from 1, or `never`".to_owned()),
    }
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Scenarios to measure, each on its machines; without any, the guests that are built in.
    pub files: Vec<PathBuf>,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The host's time for one number, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub seconds: f64,
    /// Compare with an earlier report, written with `--format json`: above ×1.00 is faster (for a time, slower).
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.001 to 3600".to_owned()),
    }
}

/// Options of `asm`.
#[derive(Debug, Args)]
pub struct Asm {
    /// The assembly text; `-` is the standard input.
    pub file: PathBuf,
    /// Address of the first byte.
    #[arg(long, value_name = "ADDRESS", default_value = "0", value_parser = number)]
    pub origin: u64,
    /// Size of operands and addresses at the start.
    #[arg(long, value_name = "BITS", default_value_t = 64, value_parser = bits)]
    pub bits: u32,
    /// Write the code there (`-`: to the standard output) instead of a listing.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Human,
    /// One JSON document (`test`: one per line and machine; `explain`: one per line and finding).
    Json,
    /// SARIF 2.1.0, of `explain` only.
    Sarif,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A vendor on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VendorName {
    /// VMX.
    Intel,
    /// SVM.
    Amd,
}

/// What `other-vendor` means, beside the names of CPU models.
const BESIDES: &[(&str, &str)] = &[(OTHER_VENDOR, "The modern one of the vendor that the guest is not on")];

/// A file to write to, where the standard output has something else.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match is_standard(&path) {
        true => Err("the standard output has the report; name a file (`./-` if it is to have this name, /dev/stdout with --quiet)"),
        false => Ok(path),
    })
}

/// The most threads that are started.
const MAX_JOBS: usize = 1024;

fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs @ 1..=MAX_JOBS) => Ok(jobs),
        _ => Err(format!("write a number from 1 to {MAX_JOBS}")),
    }
}

fn size(text: &str) -> Result<u64, String> {
    scenario::quantity::Size::parse(text).map(|size| size.0).ok_or_else(|| format!("write {}", scenario::quantity::SIZE_FORMAT))
}

fn number(text: &str) -> Result<u64, String> {
    scenario::quantity::parse_number(text).ok_or_else(|| "write a number such as 4096 or 0x1000".to_owned())
}

fn bits(text: &str) -> Result<u32, String> {
    match text {
        "16" => Ok(16),
        "32" => Ok(32),
        "64" => Ok(64),
        _ => Err("16, 32 or 64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn code_is_compiled_after_a_number_of_entries_or_never() {
        use super::{Compile, compile};
        for (text, meant) in [("1", Compile::After(1)), ("3000", Compile::After(3000)), ("never", Compile::Never)] {
            assert_eq!(compile(text), Ok(meant));
        }
        for text in ["0", "-1", "", "always", "4294967296"] {
            assert!(compile(text).is_err(), "{text}");
        }
    }
}
