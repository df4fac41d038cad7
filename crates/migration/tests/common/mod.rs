//! A guest that notices when anything of it was lost.
#![allow(dead_code, reason = "each test file uses a part of it")]

use board::loader::{FlatOptions, Kind, LoadOptions, Mode as Start, load};
use hypervisor::guest_cpu::Levelling;
use hypervisor::{AnyVm, Limits, Moment, Options, Stop, VmConfig};
use migration::{LinkSettings, Settings};
use models::{CpuModel, SKYLAKE_SERVER, ZEN3};

/// Where the guest is loaded: behind the page tables that the loader makes.
const BASE: u64 = 0x10_0000;

/// Counts in R12, writes each count to one of eight pages, and stops when a page has not what was written there eight counts ago.
pub const COUNTER: &str = r"
        mov rdi, 0x180000
    again:
        inc r12
        mov rax, r12
        and eax, 7
        shl rax, 12
        mov rbx, [rdi + rax]
        lea rcx, [r12 - 8]
        cmp r12, 8
        jbe first
        cmp rbx, rcx
        jne lost
    first:
        mov [rdi + rax], r12
        mov ecx, 40
    rest:
        loop rest
        jmp again
    lost:
        cli
        hlt
";

/// The other vendor's model.
pub fn other(model: &'static CpuModel) -> &'static CpuModel {
    if model.name == SKYLAKE_SERVER.name { &ZEN3 } else { &SKYLAKE_SERVER }
}

pub const MODELS: [&CpuModel; 2] = [&SKYLAKE_SERVER, &ZEN3];

/// A guest that is told of what both models have.
pub fn guest_of(text: &str, model: &'static CpuModel, cpus: u32, options: Options) -> AnyVm {
    levelled_guest_of(text, model, cpus, options, MODELS.iter().fold(Levelling::NONE, |levelling, model| levelling.common(model)))
}

pub fn levelled_guest_of(text: &str, model: &'static CpuModel, cpus: u32, options: Options, levelling: Levelling) -> AnyVm {
    let assembly = assembler::Options { origin: BASE, bits: assembler::Bits::SixtyFour, ..assembler::Options::default() };
    let program = assembler::assemble(text, &assembly).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let config = VmConfig { cpu_count: cpus, memory_size: 2 << 20, options, levelling, ..VmConfig::new(model) };
    let mut vm = AnyVm::new(&config).unwrap();
    let flat = FlatOptions { base: BASE, entry: None, mode: Start::Long64 };
    let image =
        load(&program.bytes, &LoadOptions { kind: Kind::Flat, memory_size: config.memory_size, flat, ..LoadOptions::default() }).unwrap();
    vm.load(&image).unwrap();
    vm
}

/// The counter, after some thousand instructions.
pub fn counter(model: &'static CpuModel) -> AnyVm {
    let mut vm = guest_of(COUNTER, model, 1, Options::default());
    let pause = vm.pause_at(Moment::Instruction(5000));
    assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
    vm
}

pub const LIMITS: Limits = Limits { instructions: 200_000_000, cycles: 2_000_000_000, exits: u64::MAX };

/// A move over a quick link, which takes few cycles.
pub fn quick(to: &'static CpuModel) -> Settings {
    let link = LinkSettings { bits_per_second: 40_000_000_000, latency: 5_000, jitter: 0, seed: 1 };
    Settings { link, downtime: 100_000, ..Settings::new(to) }
}

/// The guest's own count; it must go on, and must not have found anything lost.
pub fn goes_on(vm: &mut AnyVm, what: &str) -> u64 {
    let before = vm.registers(0).gprs[12];
    let instructions = vm.instructions() + 20_000;
    let pause = vm.pause_at(Moment::Instruction(instructions));
    let stop = vm.run(&mut trace::Ignore, &Limits { instructions: u64::MAX, ..LIMITS });
    assert_eq!(stop, Stop::Paused(pause), "{what}");
    let after = vm.registers(0).gprs[12];
    assert!(after > before + 20, "{what}: {before} {after}");
    after
}
