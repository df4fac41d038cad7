//! The command line: subcommands, options and their help, as one set of types.

use clap::{Args, Parser, Subcommand, ValueEnum};
use scenario::run::Compile;
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
    /// More: the table of VM exits and the final registers.
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
    /// Boot an ELF or multiboot image, or flat code.
    Boot(Boot),
    /// Move the guest of a scenario live to another CPU model in the middle of its run, and tell what that was like.
    Migrate(Migrate),
    /// Assemble a file, and print a listing or write the code.
    Asm(Asm),
    /// Measure how fast this machine simulates.
    Bench(Bench),
    /// Say which rules of VM entry or VMRUN a VMCS or VMCB breaks: from JSON, or from what Linux printed when an entry failed.
    Explain(Explain),
    /// Print the JSON Schema of scenario files.
    Schema(Schema),
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
    /// Write the trace there as NDJSON; with several machines, one file after the other.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Directories or files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// How many scenarios run at the same time; the default is one per CPU of the host.
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Where the reviewed traces are; the default is the directory `snapshots` beside the first path.
    #[arg(long, value_name = "DIR")]
    pub snapshots: Option<PathBuf>,
    /// Accept the traces of this run as the reviewed ones.
    #[arg(long)]
    pub accept: bool,
    /// Only scenarios and machines whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
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
    /// Write the serial output there instead of to the standard output.
    #[arg(long, value_name = "FILE")]
    pub serial: Option<PathBuf>,
    /// The vendor, when no CPU model is given.
    #[arg(long, value_enum, conflicts_with = "cpu")]
    pub vendor: Option<VendorName>,
    /// The CPU model.
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// How many CPUs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vcpus: u32,
    /// How much RAM, for example 64M.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = size)]
    pub memory: u64,
    /// The hypercall policy, or `none` for the bare machine.
    #[arg(long, value_name = "POLICY", default_value = "none")]
    pub hypervisor: String,
    /// Write the trace there as NDJSON (`-` for text on the standard output).
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
    /// Treat the image as flat code, loaded at this address.
    #[arg(long, value_name = "ADDRESS", value_parser = number)]
    pub flat: Option<u64>,
    /// The environment flat code starts in.
    #[arg(long, value_name = "MODE", default_value = "long64", requires = "flat")]
    pub mode: String,
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
    #[arg(long, value_name = "MODEL")]
    pub to: String,
    /// The hypercall policy there; the default is the one so far.
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Only machines whose name (`zen3.trap-and-patch`) contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// When the move begins: `cycle:N`, `exit:N`, `instruction:N`, `hypercall:N` or `label:NAME`; the default is the middle of the run.
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub at: Option<serde_json::Value>,
    /// How memory travels.
    #[arg(long, value_enum, default_value_t = MoveModeName::PreCopy)]
    pub mode: MoveModeName,
    /// Bits a second of the link.
    #[arg(long, value_name = "BITS", default_value = "10G")]
    pub bandwidth: String,
    /// From one end of the link to the other.
    #[arg(long, value_name = "TIME", default_value = "50us")]
    pub latency: String,
    /// What a frame may take beyond the latency.
    #[arg(long, value_name = "TIME", default_value = "0ns")]
    pub jitter: String,
    /// Chooses jitter and random faults.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The longest pause that is allowed.
    #[arg(long, value_name = "TIME", default_value = "300ms")]
    pub downtime: String,
    /// The most rounds of pre-copy.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// What is done about a guest that writes faster than its memory travels.
    #[arg(long, value_enum, default_value_t = ConvergeName::Throttle)]
    pub converge: ConvergeName,
    /// Something that goes wrong, such as `drop@commit`, `cut=2ms@ram:3`, `source-dies@commit`, `out-of-memory=100`; may be given several times.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<String>,
    /// Write the trace there as NDJSON.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// How code is executed.
    #[command(flatten)]
    pub tiers: Tiers,
}

/// How memory travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MoveModeName {
    /// In rounds, while the guest runs at the source.
    PreCopy,
    /// One pass before the hand-over, and the rest after it.
    PostCopy,
}

/// What is done about a guest that does not converge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvergeName {
    /// It is held for a growing share of the time; after the last round the move is given up.
    Throttle,
    /// After the last round the move is given up.
    GiveUp,
    /// After the last round it is paused, however long the rest takes.
    Pause,
    /// After the last round it is handed over, and the rest follows.
    PostCopy,
}

impl ConvergeName {
    /// As in scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::GiveUp => "give-up",
            Self::Pause => "pause",
            Self::PostCopy => "post-copy",
        }
    }
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
    #[arg(long, value_name = "MODEL")]
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
    /// The assembly text.
    pub file: PathBuf,
    /// Address of the first byte.
    #[arg(long, value_name = "ADDRESS", default_value = "0", value_parser = number)]
    pub origin: u64,
    /// Size of operands and addresses at the start.
    #[arg(long, value_name = "BITS", default_value_t = 64, value_parser = bits)]
    pub bits: u32,
    /// Write the code there instead of a listing to the standard output.
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

fn size(text: &str) -> Result<u64, String> {
    scenario::quantity::Size::parse(text).map(|size| size.0).ok_or_else(|| format!("write {}", scenario::quantity::SIZE_FORMAT))
}

fn number(text: &str) -> Result<u64, String> {
    scenario::quantity::parse_number(text).ok_or_else(|| "write a number such as 4096 or 0x1000".to_owned())
}

/// A moment as the script of a scenario has it.
fn moment(text: &str) -> Result<serde_json::Value, String> {
    let wrong = || "write cycle:N, exit:N, instruction:N, hypercall:N or label:NAME".to_owned();
    let (kind, value) = text.split_once(':').ok_or_else(wrong)?;
    match kind {
        "cycle" | "exit" | "instruction" | "hypercall" => {
            let value = scenario::quantity::parse_number(value).ok_or_else(wrong)?;
            Ok(serde_json::json!({ kind: value }))
        }
        "label" if !value.is_empty() => Ok(serde_json::json!({ "label": value })),
        _ => Err(wrong()),
    }
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
