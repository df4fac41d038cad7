//! Checkpoints of booted guests: a run that is cut at many moments, each time written, dropped, read and gone on from, is the run that nobody
//! cut: serial output, trace, counts, cycles, registers. On the bare machine and under the hypervisor, with one processor and with three.

use assembler::{Bits, Options, Program, assemble};
use cpu::block::Compile;
use scenario::boot::{BootOptions, Booted, Kind, RestoreOptions, boot, model};
use scenario::checkpoint::Checkpoint;
use scenario::file::{Mode, Paging, Policy};
use scenario::host::Until;
use scenario::run::Report;
use trace::{Format, Sink, Writer};

const LOAD: u64 = 0x10000;

/// The guest.
fn program(constants: &str) -> Program {
    let source = include_str!("guest.asm").to_owned() + constants;
    assemble(&source, &Options { origin: LOAD, bits: Bits::SixtyFour, ..Options::default() }).expect("it assembles")
}

/// A machine with the guest, which goes so many rounds of so many turns.
fn machine(cpu: &str, policy: Policy, paging: Option<Paging>, vcpus: u32, rounds: u32, turns: u32) -> BootOptions {
    // Under a hypervisor an interrupt takes longer than the shorter of the two.
    let period = if policy == Policy::None { 60 } else { 900 };
    let (others, numbers) = (turns / 2, format!("\nCPUS equ {vcpus}\nROUNDS equ {rounds}\nTURNS equ {turns}\nPERIOD equ {period}\n"));
    let constants = format!("{numbers}AP_TURNS equ {others}\n");
    BootOptions {
        image: program(&constants).bytes,
        name: "guest".to_owned(),
        kind: Kind::Flat { base: LOAD, mode: Mode::Long64 },
        command_line: String::new(),
        modules: Vec::new(),
        cpu: model(Some(cpu), None).expect("there is such a model"),
        policy,
        paging,
        vcpus,
        memory: 1 << 20,
        deliveries: true,
        max_instructions: 50_000_000,
        max_cycles: 100_000_000,
        compile: Compile::After(4),
    }
}

/// Every machine that is asked here, small: model, policy, paging, processors.
fn machines() -> Vec<BootOptions> {
    let mut machines = Vec::new();
    for vcpus in [1, 3] {
        for cpu in ["skylake-server", "zen3"] {
            machines.push(machine(cpu, Policy::None, None, vcpus, 6, 150));
            machines.push(machine(cpu, Policy::TrapAndPatch, None, vcpus, 6, 150));
        }
        machines.push(machine("merom", Policy::TrapAndPatch, Some(Paging::Shadow), vcpus, 4, 60));
        machines.push(machine("k8-rev-f", Policy::TrapAndPatch, Some(Paging::Shadow), vcpus, 4, 60));
    }
    machines
}

/// What a run tells: its trace, where somebody looks, serial output, and the report.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    trace: Vec<u8>,
    serial: Vec<u8>,
    report: String,
}

fn text(report: &Report) -> String {
    format!("{:#}\n{:?}", report.to_json(), report.summary)
}

/// The whole run, cut nowhere.
fn whole(options: &BootOptions, watched: bool) -> Told {
    let mut told = Told::default();
    let mut writer = Writer::new(&mut told.trace, Format::Text);
    let sink = watched.then_some(&mut writer as &mut dyn Sink);
    told.report = text(&boot(options, &mut told.serial, sink).expect("it can be booted"));
    writer.finish().expect("memory takes everything");
    told
}

/// The run, cut wherever `next` says, which is told of how far it is; and how often.
fn cut(options: &BootOptions, watched: bool, mut next: impl FnMut(&Booted) -> Option<Until>) -> (Told, u32) {
    let (mut told, mut cuts) = (Told::default(), 0);
    let mut writer = Writer::new(&mut told.trace, Format::Text);
    let mut booted = Booted::new(options, watched).expect("it can be booted");
    let report = loop {
        let sink = watched.then_some(&mut writer as &mut dyn Sink);
        if let Some(report) = booted.run(next(&booted), &mut told.serial, sink).expect("a vector takes everything") {
            break report;
        }
        cuts += 1;
        booted = through_a_checkpoint(&mut booted, watched);
    };
    told.report = text(&report);
    writer.finish().expect("memory takes everything");
    (told, cuts)
}

fn through_a_checkpoint(booted: &mut Booted, watched: bool) -> Booted {
    let mut bytes = Vec::new();
    booted.checkpoint(&mut bytes).expect("memory takes everything");
    let options = RestoreOptions { compile: Compile::After(4), watched, deliveries: true, max_instructions: None, max_cycles: None };
    Booted::restore(Checkpoint::read(bytes.as_slice()).expect("it is whole"), &options).expect("it is possible")
}

/// A generator of numbers below a bound (xorshift64).
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % bound
    }
}

#[test]
fn a_run_that_is_cut_is_the_run_that_nobody_cut() {
    let (mut cuts, count) = (0, machines().len() as u32);
    let turn = program("\nCPUS equ 1\nROUNDS equ 1\nTURNS equ 1\nPERIOD equ 1\nAP_TURNS equ 1\n").symbols["turn"];
    for (seed, options) in machines().iter().enumerate() {
        let name = format!("{} with {} processors", options.cpu.name, options.vcpus);
        let expected = whole(options, true);
        assert!(expected.serial.len() > 4 && expected.trace.len() > 400, "{name}: {}", expected.report);
        let mut random = random(seed as u64 + 1);
        let (told, these) = cut(options, true, |booted| {
            let totals = booted.totals();
            Some(match random(5) {
                0 if options.policy != Policy::None => Until::Exit(totals.exits + 1 + random(3)),
                1 => Until::Cycle(totals.cycles + 1 + random(3000)),
                2 => Until::Address { address: turn, pass: 1 + random(20) },
                3 => Until::Instruction(totals.instructions + 1 + random(700)),
                _ => Until::Instruction(totals.instructions + 1 + random(5)),
            })
        });
        cuts += these;
        assert_eq!(String::from_utf8_lossy(&told.trace), String::from_utf8_lossy(&expected.trace), "{name}");
        assert_eq!(told, expected, "{name}");
    }
    assert!(cuts > 30 * count, "only {cuts} cuts of {count} guests");
}

/// Longer runs, without anybody who looks: code is compiled, and output is handed on in slices that end elsewhere in a run that is cut.
#[test]
fn slices_and_cuts_show_nowhere_in_a_long_run() {
    for (cpu, policy) in [("skylake-server", Policy::None), ("zen3", Policy::TrapAndPatch)] {
        let options = machine(cpu, policy, None, 3, 12, 30_000);
        let expected = whole(&options, false);
        let mut random = random(7);
        let (told, cuts) =
            cut(&options, false, |booted| Some(Until::Instruction(booted.totals().instructions + 100_000 + random(900_000))));
        assert_eq!(told, expected, "{cpu}");
        assert!(cuts >= 3, "{cuts} cuts of {cpu}: {}", expected.report);
    }
}

/// Whoever looks changes nothing: the same run with and without a trace, and a trace that begins at a checkpoint of a run without one.
#[test]
fn a_trace_can_begin_at_a_checkpoint() {
    for options in machines() {
        let name = format!("{} with {} processors", options.cpu.name, options.vcpus);
        let (watched, quiet) = (whole(&options, true), whole(&options, false));
        let end = |told: &Told| {
            let report: serde_json::Value = serde_json::from_str(told.report.rsplit_once('\n').expect("two lines").0).expect("JSON");
            ["stop", "instructions", "cycles", "registers", "serial"].map(|key| report[key].clone())
        };
        assert_eq!(end(&watched), end(&quiet), "{name}");
        let mut booted = Booted::new(&options, false).expect("it can be booted");
        let mut serial = Vec::new();
        assert!(booted.run(Some(Until::Instruction(1500)), &mut serial, None).expect("a vector takes everything").is_none());
        let mut rest = Vec::new();
        let mut writer = Writer::new(&mut rest, Format::Text);
        let report = through_a_checkpoint(&mut booted, true).run(None, &mut serial, Some(&mut writer));
        let report = report.expect("a vector takes everything").expect("it comes to its end");
        writer.finish().expect("memory takes everything");
        assert_eq!(serial, watched.serial, "{name}");
        assert_eq!(report.cycles.to_string(), end(&watched)[2], "{name}");
        let (rest, all) = (String::from_utf8_lossy(&rest), String::from_utf8_lossy(&watched.trace));
        assert!(all.ends_with(&*rest) && rest.lines().count() > 5, "{name}:\n{rest}\n---\n{all}");
    }
}
