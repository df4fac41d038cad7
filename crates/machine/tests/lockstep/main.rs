//! Whichever tier runs, the machine passes through the same states: twins, one without the compiler, compared after every slice.
//!
//! `TRAPLINE_LOCKSTEP_CASES` and `TRAPLINE_LOCKSTEP_SEED` make it more; a failure names the seed of its case. `TRAPLINE_LOCKSTEP_AFTER` says
//! when machines that are forked compile.

mod choices;
mod flow;
mod hosted;
mod integers;
mod place;
mod program;
mod surroundings;
mod twins;
mod vectors;
mod writer;

use board::loader::{FlatOptions, Kind, LoadOptions, Mode, load};
use choices::Choices;
use machine::{Machine, MachineConfig, load_image};
use place::Case;
use std::collections::BTreeMap;
use twins::{Twins, lockstep};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Structured programs.
#[test]
fn generated_programs_run_alike() {
    let first = setting("TRAPLINE_LOCKSTEP_SEED", 1);
    let (mut made, mut refused, mut slices) = (0, 0, 0);
    let mut ends = BTreeMap::<String, u64>::new();
    for seed in first..first + setting("TRAPLINE_LOCKSTEP_CASES", 60) {
        let mut choices = Choices::seeded(seed);
        let case = Case::new(&mut choices);
        // For a disassembler.
        if let Ok(path) = std::env::var("TRAPLINE_LOCKSTEP_CODE") {
            std::fs::write(path, case.code()).expect("the file can be written");
        }
        let after = [1, 2, 5, 50][seed as usize % 4];
        let (twins, stop, count) =
            lockstep(|| case.machine(), after, seed, 60_000).unwrap_or_else(|text| panic!("seed {seed}, compiled after {after}: {text}"));
        slices += count;
        let regions = twins.compiled.code.compiled_regions();
        made += regions.0;
        refused += regions.1;
        let end = format!("{stop:?}");
        *ends.entry(end.split([' ', '(']).next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!("{slices} slices, {made} regions, {refused} refused, {ends:?}");
    assert_eq!(refused, 0, "the plan promises what can be compiled");
    assert!(made > 0 || !cfg!(feature = "compiler"), "nothing was compiled");
    assert!(ends.get("InstructionLimit") > ends.get("NotModelled"), "most programs go on for ever: {ends:?}");
}

/// Programs in a guest, with VM entries and VM exits in between: whether code is compiled, and whatever is kept from entry to entry.
#[test]
fn guests_of_a_small_hypervisor_run_alike() {
    let first = setting("TRAPLINE_LOCKSTEP_SEED", 1);
    let (mut exits, mut on) = (0, 0);
    let count = setting("TRAPLINE_LOCKSTEP_CASES", 60);
    for seed in first..first + count {
        let case = Case::new(&mut Choices::seeded(seed));
        let make = || hosted::hosted(&case, &mut Choices::seeded(!seed));
        let after = [1, 2, 5, 50][seed as usize % 4];
        let mut twins = if seed % 3 == 0 { Twins::forking(make, after) } else { Twins::new(make, after) };
        let ran = twins.run(&mut Choices::seeded(seed), 30_000);
        let (stop, _) = ran.unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        exits += hosted::exits(&twins.interpreted);
        on += u64::from(matches!(stop, machine::Stop::InstructionLimit));
    }
    println!("{exits} exits, {on} of {count} guests run on");
    assert!(exits > 20 * count && on > count / 2, "{exits} exits, {on} of {count} guests run on");
}

/// What is kept to be fast decides nothing: not when a walk is made and charged, not what it finds, not what a store into code costs.
#[test]
fn a_machine_that_is_forked_again_and_again_runs_alike() {
    let first = setting("TRAPLINE_LOCKSTEP_SEED", 1);
    for seed in first..first + setting("TRAPLINE_LOCKSTEP_CASES", 60) {
        let case = Case::new(&mut Choices::seeded(seed));
        let after = setting("TRAPLINE_LOCKSTEP_AFTER", [u64::from(u32::MAX), 1, 5][seed as usize % 3]);
        let mut twins = Twins::forking(|| case.machine(), after as u32);
        twins.run(&mut Choices::seeded(seed), 30_000).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
    }
}

/// The same programs out of bytes, as the fuzz target `tiers` makes them.
#[test]
fn programs_out_of_bytes_run_alike() {
    let first = setting("TRAPLINE_LOCKSTEP_SEED", 1);
    for seed in first..first + setting("TRAPLINE_LOCKSTEP_CASES", 60) / 4 {
        let mut choices = Choices::seeded(seed);
        let bytes: Vec<u8> = (0..100 * (1 + seed % 16)).map(|_| choices.word() as u8).collect();
        let case = Case::new(&mut Choices::given(&bytes));
        lockstep(|| case.machine(), 2, seed, 20_000).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
    }
}

/// Bytes that decode to something more often than plain noise does, repeated by a jump back to the beginning.
fn noise(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 96 {
        match choices.below(5) {
            0 => bytes.push(0x0f),
            1 => bytes.push(choices.pick(&[0x66, 0xf0, 0xf2, 0xf3, 0x48, 0x4c, 0x64])),
            _ => {}
        }
        let word = choices.word().to_le_bytes();
        bytes.extend_from_slice(&word[..choices.below(6) as usize]);
    }
    bytes.extend([0xeb, 0x80]);
    bytes
}

/// Code without sense, in every mode and on every model.
#[test]
fn any_bytes_run_alike() {
    let first = setting("TRAPLINE_LOCKSTEP_SEED", 1);
    for seed in first..first + setting("TRAPLINE_LOCKSTEP_CASES", 60) * 4 {
        let mut choices = Choices::seeded(seed);
        let code = noise(&mut choices);
        let mode = choices.pick(&[Mode::Long64, Mode::Long64, Mode::Protected32, Mode::Real16]);
        let flat = FlatOptions { base: 0x1_0000, mode, ..FlatOptions::default() };
        let memory_size = 4 << 20;
        let image = load(&code, &LoadOptions { kind: Kind::Flat, memory_size, flat, ..LoadOptions::default() }).expect("it fits");
        let (model, cpu_count) = (models::MODELS[seed as usize % models::MODELS.len()], 1 + seed as u32 / 8 % 2);
        let make = || {
            let mut machine = Machine::new(&MachineConfig { model, cpu_count, memory_size, seed: 0 });
            load_image(&image, &mut machine.memory, 0, &mut machine.cpus[0]).expect("the image lies inside memory");
            machine
        };
        lockstep(make, 1 + seed as u32 % 2, seed, 5_000).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
    }
}
