//! Any bytes as a guest's code, on both vendors and in all three entry modes: the run ends by itself or at its limit.
#![no_main]

use board::loader::{FlatOptions, Kind, LoadOptions, Mode, load};
use libfuzzer_sys::fuzz_target;
use machine::{Limits, Machine, MachineConfig, load_image};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, code)) = input.split_first() else { return };
    let model = models::MODELS[usize::from(choice) % models::MODELS.len()];
    let mode = [Mode::Real16, Mode::Protected32, Mode::Long64][usize::from(choice >> 4) % 3];
    let options = LoadOptions {
        kind: Kind::Flat,
        memory_size: 16 << 20,
        flat: FlatOptions { base: 0x1_0000, mode, ..FlatOptions::default() },
        ..LoadOptions::default()
    };
    let Ok(image) = load(code, &options) else { return };
    let mut machine =
        Machine::new(&MachineConfig { model, cpu_count: 1 + u32::from(choice >> 6) % 2, memory_size: options.memory_size, seed: 0 });
    if load_image(&image, &mut machine.memory, 0, &mut machine.cpus[0]).is_ok() {
        machine.run(&Limits { instructions: 20_000, cycles: 10_000_000 });
    }
});
