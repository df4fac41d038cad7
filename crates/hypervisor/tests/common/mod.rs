//! Small guests in assembly text, on either vendor.
#![allow(dead_code, reason = "each test file uses a part of it")]

use board::loader::{FlatOptions, Kind, LoadOptions, Mode, load};
use hypervisor::guest_cpu::Levelling;
use hypervisor::{AnyVm, Limits, Options, Policy, Stop, VmConfig};
use models::{CpuModel, SKYLAKE_SERVER, ZEN3};
use trace::Record;

/// Where guests are loaded.
pub const BASE: u64 = 0x10_0000;

/// The two vendors, each with its own hypercall instruction and the other's.
pub const VENDORS: [Side; 2] = [
    Side {
        model: &SKYLAKE_SERVER,
        native: "vmcall",
        foreign: "vmmcall",
        call_reason: "VMCALL",
        ud_reason: "EXCEPTION_NMI",
        bytes: [0x0f, 0x01, 0xc1],
    },
    Side { model: &ZEN3, native: "vmmcall", foreign: "vmcall", call_reason: "hypercall", ud_reason: "UD excp", bytes: [0x0f, 0x01, 0xd9] },
];

/// One vendor.
#[derive(Clone, Copy)]
pub struct Side {
    pub model: &'static CpuModel,
    pub native: &'static str,
    pub foreign: &'static str,
    pub call_reason: &'static str,
    pub ud_reason: &'static str,
    pub bytes: [u8; 3],
}

/// A guest and its trace.
pub struct Story {
    pub vm: Option<AnyVm>,
    pub trace: Vec<Record>,
    pub symbols: std::collections::BTreeMap<String, u64>,
}

/// How a guest is built.
#[derive(Clone)]
pub struct Guest<'a> {
    pub source: &'a str,
    pub mode: Mode,
    pub cpus: u32,
    pub policy: Policy,
    pub options: Options,
    pub guest_model: Option<&'static CpuModel>,
    pub levelling: Levelling,
    pub seed: u64,
}

impl<'a> Guest<'a> {
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            mode: Mode::Long64,
            cpus: 1,
            policy: Policy::TrapAndPatch,
            options: Options::default(),
            guest_model: None,
            levelling: Levelling::NONE,
            seed: 0,
        }
    }

    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Loads it on a vendor. `NATIVE` and `FOREIGN` in the text are the vendor's words.
    pub fn on(&self, side: &Side) -> Story {
        let text = self.source.replace("NATIVE", side.native).replace("FOREIGN", side.foreign);
        let bits = match self.mode {
            Mode::Real16 => assembler::Bits::Sixteen,
            Mode::Protected32 => assembler::Bits::ThirtyTwo,
            Mode::Long64 => assembler::Bits::SixtyFour,
        };
        let origin = if self.mode == Mode::Real16 { 0x8000 } else { BASE };
        let program = assembler::assemble(&text, &assembler::Options { origin, bits, ..assembler::Options::default() })
            .unwrap_or_else(|faults| panic!("{faults:#?}"));
        let config = VmConfig {
            cpu_count: self.cpus,
            policy: self.policy,
            options: self.options,
            guest_model: self.guest_model,
            levelling: self.levelling,
            seed: self.seed,
            ..VmConfig::new(side.model)
        };
        let mut vm = AnyVm::new(&config).unwrap();
        let flat = FlatOptions { base: origin, entry: None, mode: self.mode };
        let image =
            load(&program.bytes, &LoadOptions { kind: Kind::Flat, memory_size: config.memory_size, flat, ..LoadOptions::default() })
                .unwrap();
        vm.load(&image).unwrap();
        Story { vm: Some(vm), trace: Vec::new(), symbols: program.symbols }
    }
}

impl Story {
    pub fn vm(&mut self) -> &mut AnyVm {
        self.vm.as_mut().unwrap()
    }

    pub fn run(&mut self) -> Stop {
        let limits = Limits { instructions: 1_000_000, exits: 100_000, ..Limits::NONE };
        let vm = self.vm.as_mut().unwrap();
        vm.run(&mut self.trace, &limits)
    }

    pub fn rax(&mut self) -> u64 {
        self.vm().registers(0).gprs[0]
    }

    /// Reasons of the exits, in order.
    pub fn exits(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for record in &self.trace {
            if let trace::Event::Exit { reason, .. } = record.event {
                reasons.push(reason.to_string());
            }
        }
        reasons
    }

    /// The lines of the trace, less cycle and CPU.
    pub fn lines(&self) -> Vec<String> {
        self.trace.iter().map(|record| format!("{}: {}", record.event.kind().name(), record.text())).collect()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    pub fn count(&self, name: &str) -> usize {
        self.trace.iter().filter(|record| record.event.kind().name() == name).count()
    }

    pub fn label(&self, name: &str) -> u64 {
        self.symbols[name]
    }

    pub fn bytes(&mut self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.vm().read_memory(address, &mut bytes).unwrap();
        bytes
    }

    pub fn migrate(&mut self, model: &'static CpuModel) -> Vec<String> {
        let vm = self.vm.take().unwrap();
        let (vm, ledger) = vm.migrate(model, None, &mut self.trace).unwrap();
        self.vm = Some(vm);
        ledger
    }
}
