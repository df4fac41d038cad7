//! A machine that is forked goes on exactly as it would have: same trace, same cycles, same state.
//!
//! Each story of the corpus is told twice, interrupted at the same moments: once by one machine from beginning to end, once by a chain of
//! machines, each of them a fork of the one before it, which is dropped. What only speeds a machine up is lost at every link of the chain.

use scenario::file::{Access, Policy};
use scenario::host::{Host, Pause, Totals, Until};
use scenario::load::{Directory, Scenario};
use scenario::register::Place;
use scenario::run::{Options, run_on};
use scenario::snapshot;
use scenario::verdict::Registers;
use std::ops::Range;
use std::path::Path;
use trace::Sink;

/// A machine that is interrupted at random instructions.
struct Interrupted {
    host: Box<dyn Host>,
    forks: bool,
    random: u64,
    left: u32,
}

impl Interrupted {
    fn new(host: Box<dyn Host>, forks: bool, seed: u64) -> Self {
        Self { host, forks, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: 24 }
    }

    /// How many instructions until the next interruption: few at the beginning, where stories happen, and ever more.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        1 + self.random % (4 << (24 - self.left))
    }
}

impl Host for Interrupted {
    fn run(&mut self, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        loop {
            if self.left == 0 {
                return self.host.run(limits, until, sink);
            }
            let instructions = self.host.totals().instructions + self.next();
            let bounds = Totals { instructions: instructions.min(limits.instructions), ..*limits };
            let pause = self.host.run(&bounds, until, sink);
            if self.forks {
                self.host = self.host.fork();
            }
            self.left -= 1;
            match pause {
                Pause::Limit(scenario::file::Stop::InstructionLimit) if bounds.instructions < limits.instructions => {}
                other => return other,
            }
        }
    }
    fn interrupt_at(&mut self, moment: Option<Until>) {
        self.host.interrupt_at(moment);
    }
    fn checkpoint(&mut self, writer: &mut stream::Writer<&mut dyn std::io::Write>) -> Result<(), scenario::checkpoint::Error> {
        self.host.checkpoint(writer)
    }
    fn totals(&self) -> Totals {
        self.host.totals()
    }
    fn model(&self) -> Option<&'static models::CpuModel> {
        self.host.model()
    }
    fn vcpus(&self) -> u32 {
        self.host.vcpus()
    }
    fn refused_entries(&mut self) -> Vec<(u32, audit::State)> {
        self.host.refused_entries()
    }
    fn registers(&mut self, vcpu: u32) -> Registers {
        self.host.registers(vcpu)
    }
    fn set_register(&mut self, place: Place, value: u64) {
        self.host.set_register(place, value);
    }
    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.host.read_memory(address, into)
    }
    fn write_memory(&mut self, address: u64, from: &[u8]) -> bool {
        self.host.write_memory(address, from)
    }
    fn protect(&mut self, range: Range<u64>, access: Access) -> Result<(), String> {
        self.host.protect(range, access)
    }
    fn take_serial(&mut self) -> Vec<u8> {
        self.host.take_serial()
    }
    fn serial_input(&mut self, bytes: &[u8]) {
        self.host.serial_input(bytes);
    }
    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        self.host.interrupt(vcpu, vector);
    }
    fn nmi(&mut self, vcpu: u32) {
        self.host.nmi(vcpu);
    }
    fn exception(&mut self, vcpu: u32, vector: u8, error_code: Option<u32>, address: u64) {
        self.host.exception(vcpu, vector, error_code, address);
    }
    fn counter_overflow(&mut self, vcpu: u32) {
        self.host.counter_overflow(vcpu);
    }
    fn hold(&mut self, cycles: u64, sink: &mut dyn Sink) -> Result<(), String> {
        self.host.hold(cycles, sink)
    }
    fn fork(&mut self) -> Box<dyn Host> {
        Box::new(Self { host: self.host.fork(), ..*self })
    }
    fn migrate(&mut self, to: &'static models::CpuModel, policy: Policy, sink: &mut dyn Sink) -> Result<(), String> {
        self.host.migrate(to, policy, sink)
    }
    fn move_live(
        &mut self,
        settings: &migration::Settings,
        limits: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(migration::Report, Option<Pause>), String> {
        self.host.move_live(settings, limits, sink)
    }
    fn check_move(&mut self, settings: &migration::Settings) -> Result<migration::Check, String> {
        self.host.check_move(settings)
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
                let report = run_on(&scenario, variant, &Options::default(), None, |host| Box::new(Interrupted::new(host, forks, seed)));
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
