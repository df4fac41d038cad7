//! Guests of random bytes, in every mode, on both vendors, bare and under every policy: each run ends with a reason and never with a panic, and
//! the same guest ends the same way again.
//!
//! `GUESTS=100000 cargo test -p trapline-scenario --test hostile_guests` searches longer.

use scenario::boot::{BootOptions, Kind, boot, model};
use scenario::file::{Mode, Policy, Vendor};

/// xorshift64: the guests are the same on every host.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Openings of instructions that reach the system's corners; random operands follow.
const INTERESTING: &[&[u8]] = &[
    &[0x0f, 0x01],
    &[0x0f, 0x01, 0xc1],
    &[0x0f, 0x01, 0xd9],
    &[0x0f, 0x00],
    &[0x0f, 0x22],
    &[0x0f, 0x20],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0x0f, 0xa2],
    &[0x0f, 0xc7],
    &[0x0f, 0xae],
    &[0x66, 0x0f],
    &[0xf3, 0x0f],
    &[0xf3],
    &[0xf0],
    &[0x8e],
    &[0xcd],
    &[0xcf],
    &[0x48, 0xcf],
    &[0xea],
    &[0xff],
    &[0x9d],
    &[0xe6],
    &[0xec],
    &[0x6c],
    &[0x6f],
    &[0xf4],
    &[0xfb, 0xf4],
    &[0xb9],
    &[0xb8],
];

fn guest(random: &mut Random) -> Vec<u8> {
    let length = 16 + random.below(200);
    let mut bytes = Vec::new();
    while bytes.len() < length {
        if random.below(3) == 0 {
            bytes.extend_from_slice(INTERESTING[random.below(INTERESTING.len())]);
        }
        for _ in 0..random.below(6) {
            bytes.push(random.next() as u8);
        }
    }
    bytes
}

#[test]
fn guests_of_random_bytes_end_with_a_reason() {
    let count = std::env::var("GUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    let mut random = Random(0x5eed_0f7a_1ace_0001);
    let policies = [
        Policy::None,
        Policy::TrapAndPatch,
        Policy::Classic2007,
        Policy::SkipFirstCall,
        Policy::HypercallPage,
        Policy::PatchOrUd,
        Policy::QuirkOff,
        Policy::Direct,
    ];
    for number in 0..count {
        let image = guest(&mut random);
        let options = BootOptions {
            image,
            name: String::new(),
            kind: Kind::Flat {
                base: 0x8000 + 0x8000 * u64::from(number % 3 != 2),
                mode: [Mode::Long64, Mode::Protected32, Mode::Real16][number % 3],
            },
            command_line: String::new(),
            modules: Vec::new(),
            cpu: model(None, Some([Vendor::Intel, Vendor::Amd][random.below(2)])).expect("both vendors have a model"),
            policy: policies[random.below(policies.len())],
            paging: None,
            vcpus: 1 + random.below(3) as u32,
            memory: 2 << 20,
            max_instructions: 3000,
            deliveries: number % 2 == 0,
            max_cycles: 50_000_000,
            compile: cpu::block::Compile::After(1 + number as u32 % 3),
        };
        let run = || {
            let mut trace = trace::Transcript::new(0);
            let report = boot(&options, &mut Vec::new(), Some(&mut trace)).expect("any bytes make flat code");
            (report.stop, report.detail, report.registers, report.cycles, trace.hash())
        };
        let first = run();
        if number % 8 == 0 {
            assert_eq!(first, run(), "guest {number}, {options:?}");
        }
    }
}
