//! Hostile machine code: whatever bytes run, in whatever mode and on whatever model, the run ends by itself or at its limit.

use board::loader::{FlatOptions, Kind, LoadOptions, Mode, load};
use cpu::random::split_mix_64;
use machine::{Limits, Machine, MachineConfig, Stop, load_image};

const MEMORY: u64 = 16 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        split_mix_64(&mut self.0)
    }

    /// Bytes that decode to something more often than plain noise does: many two-byte opcodes and system instructions.
    fn code(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < 96 {
            let word = self.next();
            match word % 5 {
                0 => bytes.push(0x0f),
                1 => bytes.extend([0x0f, 0x01, (word >> 8) as u8 | 0xc0]),
                2 => bytes.push([0x66, 0xf0, 0xf2, 0xf3, 0x48, 0x4c, 0x2e, 0x64][(word >> 8) as usize % 8]),
                _ => {}
            }
            bytes.extend_from_slice(&word.to_le_bytes()[2..2 + (word >> 56) as usize % 6]);
        }
        bytes
    }
}

fn run(code: &[u8], mode: Mode, model: usize, cpu_count: u32) -> Stop {
    let options = LoadOptions {
        kind: Kind::Flat,
        memory_size: MEMORY,
        flat: FlatOptions { base: 0x1_0000, mode, ..FlatOptions::default() },
        ..LoadOptions::default()
    };
    let image = load(code, &options).expect("a flat image of a hundred bytes fits");
    let model = models::MODELS[model % models::MODELS.len()];
    let mut machine = Machine::new(&MachineConfig { model, cpu_count, memory_size: MEMORY, seed: 0 });
    load_image(&image, &mut machine.memory, 0, &mut machine.cpus[0]).expect("the image lies inside memory");
    machine.run(&Limits { instructions: 5_000, cycles: 50_000_000 })
}

#[test]
fn any_bytes_end_in_a_stop() {
    let cases = std::env::var("TRAPLINE_HOSTILE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(600u64);
    let seed = std::env::var("TRAPLINE_HOSTILE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    let mut random = Random(seed);
    let mut kinds = std::collections::BTreeMap::<&str, u64>::new();
    for case in 0..cases {
        let code = random.code();
        let mode = [Mode::Real16, Mode::Protected32, Mode::Long64][case as usize % 3];
        let stop = run(&code, mode, (case / 3) as usize, 1 + (case / 12) as u32 % 2);
        *kinds
            .entry(match stop {
                Stop::Outcome(_) => "outcome",
                Stop::Halted => "halted",
                Stop::Shutdown { .. } => "shutdown",
                Stop::InstructionLimit | Stop::CycleLimit => "limit",
                Stop::Deliveries => unreachable!("nobody asked for a log"),
                Stop::NotModelled { .. } => "not modelled",
            })
            .or_default() += 1;
    }
    assert!(kinds.len() >= 3, "the cases are too much alike: {kinds:?}");
}
