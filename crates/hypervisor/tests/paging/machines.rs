//! The machines that a guest runs on.

use crate::Random;
use crate::program::{LOG, Program};
use crate::tables::RAM;
use hypervisor::{AnyVm, Limits, Moment, Options, Paging, Policy, Registers, VmConfig};
use isa::rflags::Rflags;
use machine::{Machine, MachineConfig};
use models::CpuModel;
use trace::Record;

/// Where a guest's run led.
pub struct End {
    pub stop: String,
    pub registers: Seen,
    pub log: Vec<[u64; 4]>,
    pub memory: Vec<u8>,
    trace: Vec<Record>,
}

/// The registers that are compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    gprs: [u64; 16],
    rip: u64,
    rflags: u64,
    control: [u64; 5],
    pdptes: [u64; 4],
}

impl End {
    fn new(stop: String, registers: &Registers, entries: usize, memory: Vec<u8>, trace: Vec<Record>) -> Self {
        let Registers { cr0, cr2, cr3, cr4, efer, .. } = *registers;
        let word = |address: usize| u64::from_le_bytes(memory[address..address + 8].try_into().unwrap());
        let log = (0..entries).map(|entry| [0, 8, 16, 24].map(|at| word(LOG as usize + 32 * entry + at))).collect();
        let in_registers = registers.pae_paging();
        let seen = Seen {
            gprs: registers.gprs,
            rip: registers.rip,
            rflags: Rflags::into_bits(registers.rflags),
            control: [cr0.into_bits(), cr2, cr3, cr4.into_bits(), efer.into_bits()],
            pdptes: if in_registers { registers.pdptes } else { [0; 4] },
        };
        Self { stop, registers: seen, log, memory, trace }
    }

    /// The last lines of the trace.
    pub fn tail(&self) -> String {
        let first = self.trace.len().saturating_sub(24);
        let lines = self.trace[first..].iter().map(|record| format!("{}: {}", record.event.kind().name(), record.text()));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The bare machine.
pub fn bare(model: &'static CpuModel, program: &Program) -> End {
    let mut machine = Machine::new(&MachineConfig { model, cpu_count: 1, memory_size: RAM, seed: 0 });
    machine.memory.write(0, &program.memory).unwrap();
    // What firmware does to the local APIC has no part in this.
    program.registers.put(&mut machine.cpus[0]);
    let stop = machine.run(&machine::Limits { instructions: 200_000, ..machine::Limits::NONE });
    let stop = if stop == machine::Stop::Halted { "halted".to_owned() } else { format!("{stop:?}") };
    let mut memory = vec![0; RAM as usize];
    machine.memory.read(0, &mut memory).unwrap();
    End::new(stop, &Registers::of(&machine.cpus[0]), program.entries, memory, Vec::new())
}

/// A guest of the hypervisor.
pub fn hypervised(model: &'static CpuModel, program: &Program, paging: Paging, shadow_pages: u32) -> End {
    let options = Options { paging: Some(paging), shadow_pages, ..Options::default() };
    let config = VmConfig { memory_size: RAM, policy: Policy::TrapAndPatch, options, ..VmConfig::new(model) };
    let mut vm = AnyVm::new(&config).unwrap();
    vm.write_memory(0, &program.memory).unwrap();
    vm.set_registers(0, &program.registers);
    let mut trace: Vec<Record> = Vec::new();
    let stop = vm.run(&mut trace, &Limits { instructions: 400_000, exits: 200_000, ..Limits::NONE });
    let stop = if stop == hypervisor::Stop::Halted { "halted".to_owned() } else { format!("{stop:?}") };
    let mut memory = vec![0; RAM as usize];
    vm.read_memory(0, &mut memory).unwrap();
    let registers = vm.registers(0);
    End::new(stop, &registers, program.entries, memory, trace)
}

/// A guest of the hypervisor that is moved from host to host.
pub fn moved(hosts: &[&'static CpuModel], program: &Program, random: &mut Random) -> End {
    let mut vm = AnyVm::new(&VmConfig { memory_size: RAM, ..VmConfig::new(hosts[0]) }).unwrap();
    vm.write_memory(0, &program.memory).unwrap();
    vm.set_registers(0, &program.registers);
    let mut trace: Vec<Record> = Vec::new();
    let limits = Limits { instructions: 400_000, exits: 200_000, ..Limits::NONE };
    let mut moment = 0;
    for host in &hosts[1..] {
        moment += random.below(150);
        let pause = vm.pause_at(Moment::Instruction(moment));
        if vm.run(&mut trace, &limits) != hypervisor::Stop::Paused(pause) {
            break;
        }
        (vm, _) = vm.migrate(host, None, &mut trace).unwrap();
    }
    let stop = vm.run(&mut trace, &limits);
    let stop = if stop == hypervisor::Stop::Halted { "halted".to_owned() } else { format!("{stop:?}") };
    let mut memory = vec![0; RAM as usize];
    vm.read_memory(0, &mut memory).unwrap();
    let registers = vm.registers(0);
    End::new(stop, &registers, program.entries, memory, trace)
}
