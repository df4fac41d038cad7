//! The guests that are timed: one row of a table each, their code in the files beside this one.

use assembler::{Bits, Options};
use scenario::boot::{BootOptions, Kind};
use scenario::environment::CONSTANTS;
use scenario::file::{Mode, Policy};
use scenario::run::Compile;

/// Where the code is loaded.
const LOAD: u64 = 0x1_0000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Instructions of the guest.
    Instructions,
    /// Turns of its loop; each has one event of the kind that its group is named after.
    Turns,
}

/// Rows that are measured alike.
pub struct Group {
    /// What is counted, in words.
    pub title: &'static str,
    /// The same.
    pub counted: Counted,
    /// What every row is measured on.
    pub columns: [Column; 2],
    pub workloads: &'static [Workload],
}

/// A machine.
#[derive(Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub cpu: &'static str,
    /// Without the compiler.
    pub interpreted: bool,
}

/// One guest.
pub struct Workload {
    /// What stands in the table.
    pub name: &'static str,
    /// The machine code of each column, as text. It takes the number of its turns from the constant `TURNS`, and halts after them.
    pub sources: [&'static str; 2],
    pub policy: Policy,
}

const fn bare(name: &'static str, source: &'static str) -> Workload {
    Workload { name, sources: [source; 2], policy: Policy::None }
}

const fn hosted(name: &'static str, source: &'static str) -> Workload {
    Workload { name, sources: [source; 2], policy: Policy::TrapAndPatch }
}

const TIERS: [Column; 2] =
    [Column { title: "compiled", cpu: "zen3", interpreted: false }, Column { title: "interpreted", cpu: "zen3", interpreted: true }];
const VENDORS: [Column; 2] =
    [Column { title: "Intel", cpu: "skylake-server", interpreted: false }, Column { title: "AMD", cpu: "zen3", interpreted: false }];

/// Everything that is timed, in the order of the report.
pub const GROUPS: &[Group] = &[
    Group {
        title: "Instructions a second",
        counted: Counted::Instructions,
        columns: TIERS,
        workloads: &[
            bare("integers", include_str!("integers.asm")),
            bare("memory, 32 MiB", include_str!("memory.asm")),
            bare("calls", include_str!("calls.asm")),
            bare("indirect jumps", include_str!("dispatch.asm")),
            bare("doubles", include_str!("doubles.asm")),
        ],
    },
    Group {
        title: "Exceptions a second",
        counted: Counted::Turns,
        columns: TIERS,
        workloads: &[bare("#UD and IRETQ", include_str!("exceptions.asm"))],
    },
    Group {
        title: "VM exits a second",
        counted: Counted::Turns,
        columns: VENDORS,
        workloads: &[
            hosted("hypercall", include_str!("hypercall.asm")),
            hosted("CPUID", include_str!("cpuid.asm")),
            hosted("port output", include_str!("port.asm")),
            // The scenarios' guests that are hypervisors themselves.
            Workload {
                name: "to a hypervisor in the guest",
                sources: [include_str!("../../../../scenarios/bare/vmx.asm"), include_str!("../../../../scenarios/bare/svm.asm")],
                policy: Policy::None,
            },
        ],
    },
];

impl Workload {
    /// The machine of a column with this guest, which makes so many turns.
    ///
    /// # Errors
    /// The text does not assemble, or there is no such model.
    pub fn machine(&self, column: usize, columns: &[Column; 2], turns: u64, compile: Compile) -> Result<BootOptions, String> {
        let mut source = self.sources[column].to_owned();
        for (name, value) in CONSTANTS.iter().copied().chain([("TURNS", turns)]) {
            source += &format!("\n{name} equ {value:#x}");
        }
        source.push('\n');
        let options = Options { origin: LOAD, bits: Bits::SixtyFour, ..Options::default() };
        let program = assembler::assemble(&source, &options).map_err(|mistakes| format!("{}: {mistakes:?}", self.name))?;
        let Column { cpu, interpreted, .. } = columns[column];
        Ok(BootOptions {
            image: program.bytes,
            name: self.name.to_owned(),
            kind: Kind::Flat { base: LOAD, mode: Mode::Long64 },
            command_line: String::new(),
            modules: Vec::new(),
            cpu: scenario::boot::model(Some(cpu), None)?,
            policy: self.policy,
            paging: None,
            vcpus: 1,
            memory: 64 << 20,
            deliveries: false,
            max_instructions: u64::MAX,
            max_cycles: u64::MAX,
            compile: if interpreted { Compile::Never } else { compile },
        })
    }
}
