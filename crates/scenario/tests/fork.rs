//! A machine that is forked goes on exactly as it would have: same trace, same cycles, same state.
//!
//! Each story of the corpus is told twice, interrupted at the same moments: once by one machine from beginning to end, once by a chain of
//! machines, each of them a fork of the one before it, which is dropped. What only speeds a machine up is lost at every link of the chain.

use scenario::host::{Host, Pause, Totals, Until};
use scenario::lead::{Lead, Led};
use scenario::load::{Directory, Scenario};
use scenario::run::{Options, run_on};
use scenario::snapshot;
use std::path::Path;
use trace::Sink;

/// A machine that is interrupted at random instructions.
struct Interrupted {
    forks: bool,
    random: u64,
    left: u32,
}

impl Interrupted {
    fn new(forks: bool, seed: u64) -> Self {
        Self { forks, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: 24 }
    }

    /// How many instructions until the next interruption: few at the beginning, where stories happen, and ever more.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        1 + self.random % (4 << (24 - self.left))
    }
}

impl Lead for Interrupted {
    fn run(&mut self, host: &mut Box<dyn Host>, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        loop {
            if self.left == 0 {
                return host.run(limits, until, sink);
            }
            let instructions = host.totals().instructions + self.next();
            let bounds = Totals { instructions: instructions.min(limits.instructions), ..*limits };
            let pause = host.run(&bounds, until, sink);
            if self.forks {
                *host = host.fork();
            }
            self.left -= 1;
            match pause {
                Pause::Limit(scenario::file::Stop::InstructionLimit) if bounds.instructions < limits.instructions => {}
                other => return other,
            }
        }
    }
}

#[test]
fn a_chain_of_forks_tells_the_same_story() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let (mut stories, mut wrong) = (0u64, String::new());
    for file in snapshot::scenario_files(&root).expect("there is a corpus") {
        let text = std::fs::read_to_string(&file).expect("a scenario is text");
        let directory = Directory(file.parent().expect("a scenario lies in a directory").to_owned());
        let scenario = Scenario::parse(&file.display().to_string(), text, &directory).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for variant in &scenario.variants {
            stories += 1;
            let [once, chain] = [false, true].map(|forks| {
                let seed = stories;
                let report = run_on(&scenario, variant, &Options::default(), None, |host| {
                    Box::new(Led { host, lead: Interrupted::new(forks, seed) })
                });
                format!("{}{:?}{}", report.snapshot(&scenario), report.registers, report.failures)
            });
            if once != chain {
                let (at, (left, right)) =
                    once.lines().zip(chain.lines()).enumerate().find(|(_, (left, right))| left != right).unwrap_or((0, ("", "")));
                wrong += &format!("{} on {}, line {at}:\n  {left}\n  {right}\n", file.display(), variant.name());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(stories > 200, "only {stories} stories were told");
}
