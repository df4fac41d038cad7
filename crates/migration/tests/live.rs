//! Moves of a guest that notices when anything of it is lost.

mod common;

use common::{COUNTER, LIMITS, MODELS, counter, goes_on, guest_of, levelled_guest_of, other, quick};
use hypervisor::guest_cpu::Levelling;
use hypervisor::{Limits, Moment, Options, Paging, Stop};
use migration::{AnyFault, At, Convergence, Ending, Fate, LinkSettings, Mend, Mended, MissingFeatures, Mode, Settings, check, migrate};
use models::{MEROM, SKYLAKE_SERVER, ZEN3};
use trace::Record;

fn lines(trace: &[Record]) -> Vec<String> {
    trace.iter().map(|record| format!("{}: {}", record.event.kind().name(), record.text())).collect()
}

#[test]
fn a_guest_arrives_and_goes_on_in_both_directions_and_back() {
    for model in MODELS {
        let mut vm = counter(model);
        let mut count = vm.registers(0).gprs[12];
        let mut here = model;
        for session in 1..4 {
            let to = other(here);
            let mut trace: Vec<Record> = Vec::new();
            let outcome = migrate(vm, &Settings { session, ..quick(to) }, &LIMITS, &mut trace);
            assert_eq!(outcome.ending, Ending::Moved, "{}", lines(&trace).join("\n"));
            let report = &outcome.report;
            assert!(report.rounds[0].pages == 512 && report.paused_pages > 0 && report.state_bytes > 0, "{report:#?}");
            let pause = report.nanoseconds(report.downtime().unwrap());
            assert!(pause > 0 && pause <= quick(to).downtime, "{report:#?}");
            assert!(lines(&trace).iter().any(|line| line.starts_with("trapline_migrate: ")));
            vm = outcome.vm.unwrap();
            assert_eq!(vm.model().name, to.name);
            let next = goes_on(&mut vm, "after the move");
            assert!(next > count);
            (count, here) = (next, to);
        }
    }
}

#[test]
fn nothing_of_a_move_depends_on_anything_but_its_settings() {
    let run = || {
        let mut trace: Vec<Record> = Vec::new();
        let settings = Settings {
            link: LinkSettings { jitter: 20_000, ..quick(MODELS[1]).link },
            faults: vec![AnyFault::parse("drop@random:200000").unwrap()],
            ..quick(MODELS[1])
        };
        let outcome = migrate(counter(MODELS[0]), &settings, &LIMITS, &mut trace);
        (lines(&trace), outcome.report)
    };
    let (trace, report) = run();
    assert_eq!((trace, report.clone()), run());
    assert!(report.repeats > 0, "{report:#?}");
}

#[test]
fn memory_follows_a_guest_that_was_handed_over_early() {
    for model in MODELS {
        for prefault in [true, false] {
            let mut vm = guest_of(COUNTER, model, 1, Options { prefault, ..Options::default() });
            let pause = vm.pause_at(Moment::Instruction(5000));
            assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
            let mut trace: Vec<Record> = Vec::new();
            let settings = Settings { mode: Mode::PostCopy, ..quick(other(model)) };
            let outcome = migrate(vm, &settings, &LIMITS, &mut trace);
            assert_eq!(outcome.ending, Ending::Moved, "{}", lines(&trace).join("\n"));
            let report = &outcome.report;
            assert_eq!(report.rounds.len(), 1);
            assert!(report.fetched > 0 && report.waited > 0 && report.pushed > 0, "{report:#?}");
            let mut vm = outcome.vm.unwrap();
            assert_eq!(vm.absent_pages(), 0);
            goes_on(&mut vm, "after post-copy");
        }
    }
}

#[test]
fn a_guest_that_writes_too_fast_is_throttled_or_given_up() {
    // Writes 200 pages as fast as it can.
    let text = r"
    round:
        mov rdi, 0x120000
        mov ecx, 200
    page:
        inc qword ptr [rdi]
        add rdi, 0x1000
        loop page
        inc r12
        jmp round
    ";
    let model = MODELS[0];
    let slow = LinkSettings { bits_per_second: 10_000_000_000, latency: 5_000, ..LinkSettings::default() };
    let base = Settings { link: slow, downtime: 30_000, rounds: 6, ..Settings::new(MODELS[1]) };
    let try_it = |settings: &Settings| {
        let mut vm = guest_of(text, model, 1, Options::default());
        let pause = vm.pause_at(Moment::Instruction(50_000));
        assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
        migrate(vm, settings, &LIMITS, &mut trace::Ignore)
    };
    let given_up = try_it(&Settings { convergence: Convergence::GiveUp, ..base.clone() });
    assert_eq!(given_up.ending, Ending::Stayed, "{:#?}", given_up.report);
    assert!(given_up.report.ending.contains("after 6 rounds") && given_up.report.paused.is_none());
    let mut vm = given_up.vm.unwrap();
    assert_eq!(vm.model().name, model.name);
    goes_on(&mut vm, "given up");

    let paused = try_it(&Settings { convergence: Convergence::Pause, ..base.clone() });
    assert_eq!(paused.ending, Ending::Moved);
    assert!(paused.report.nanoseconds(paused.report.downtime().unwrap()) > base.downtime);

    let followed = try_it(&Settings { convergence: Convergence::PostCopy, ..base.clone() });
    assert_eq!(followed.ending, Ending::Moved);
    assert!(followed.report.pushed + followed.report.fetched > 100, "{:#?}", followed.report);

    let throttled = try_it(&Settings { convergence: Convergence::Throttle, rounds: 40, ..base });
    assert_eq!(throttled.ending, Ending::Moved, "{:#?}", throttled.report);
    let shares: Vec<u8> = throttled.report.rounds.iter().map(|round| round.throttle).collect();
    assert!(shares.is_sorted() && shares.last().is_some_and(|share| *share >= 20), "{shares:?}");
    goes_on(&mut throttled.vm.unwrap(), "throttled");
}

#[test]
fn two_processors_move_together() {
    // The second is started in real mode; both count up in one place.
    let text = r"
        mov eax, 0xfee00000
        mov dword ptr [rax + 0x300], 0x000c4500
        mov dword ptr [rax + 0x300], 0x000c4608
    again:
        lock inc qword ptr [0x180000]
        inc r12
        cmp r12, 0
        jne again
        hlt
    ";
    let second = assembler::assemble(
        "xor ax, ax\n mov ds, ax\n again: lock inc word ptr [0x5000]\n inc ebx\n jmp again",
        &assembler::Options { origin: 0x8000, bits: assembler::Bits::Sixteen, ..assembler::Options::default() },
    )
    .unwrap();
    for mode in [Mode::PreCopy, Mode::PostCopy] {
        for model in MODELS {
            let mut vm = guest_of(text, model, 2, Options::default());
            vm.write_memory(0x8000, &second.bytes).unwrap();
            let pause = vm.pause_at(Moment::Instruction(20_000));
            assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
            let outcome = migrate(vm, &Settings { mode, ..quick(other(model)) }, &LIMITS, &mut trace::Ignore);
            assert_eq!(outcome.ending, Ending::Moved, "{:#?}", outcome.report);
            let mut vm = outcome.vm.unwrap();
            let ebx = vm.registers(1).gprs[3];
            goes_on(&mut vm, "two processors");
            assert!(vm.registers(1).gprs[3] > ebx, "the second goes on as well");
            let mut bytes = [0; 8];
            vm.read_memory(0x18_0000, &mut bytes).unwrap();
            let count = vm.registers(0).gprs[12];
            assert!(u64::from_le_bytes(bytes).abs_diff(count) <= 1, "every count is in memory");
        }
    }
}

#[test]
fn a_guest_whose_run_ends_meanwhile_is_not_moved() {
    // Halts for good while memory travels: it is moved asleep.
    let mut vm = guest_of("mov ecx, 50000\n wait: loop wait\n cli\n hlt", MODELS[0], 1, Options::default());
    let pause = vm.pause_at(Moment::Instruction(100));
    assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
    let outcome = migrate(vm, &quick(MODELS[1]), &LIMITS, &mut trace::Ignore);
    assert_eq!(outcome.ending, Ending::Moved);
    assert_eq!(outcome.vm.unwrap().run(&mut trace::Ignore, &LIMITS), Stop::Halted);
    // Meets the limit of a run.
    let limits = Limits { instructions: 8000, ..LIMITS };
    let outcome = migrate(counter(MODELS[0]), &quick(MODELS[1]), &limits, &mut trace::Ignore);
    assert_eq!(outcome.ending, Ending::Over(Stop::InstructionLimit));
    goes_on(&mut outcome.vm.unwrap(), "after the limit");
}

// ---- Faults ------------------------------------------------------------------------------------------------------------------------------

/// All placements and all kinds are a bigger sweep: `TRAPLINE_FAULTS=full cargo test --release -p trapline-migration --test live`.
fn full() -> bool {
    std::env::var("TRAPLINE_FAULTS").is_ok_and(|size| size == "full")
}

fn with_faults(mode: Mode, faults: &[&str]) -> migration::Outcome {
    let faults = faults.iter().map(|fault| AnyFault::parse(fault).unwrap()).collect();
    migrate(counter(MODELS[0]), &Settings { mode, faults, ..quick(MODELS[1]) }, &LIMITS, &mut trace::Ignore)
}

/// Whatever happened: where the guest runs it has everything, and it runs at one place at most.
fn nothing_is_lost(outcome: migration::Outcome, what: &str) -> Ending {
    let ending = outcome.ending.clone();
    match &ending {
        Ending::Moved | Ending::MovedInDoubt => {
            let mut vm = outcome.vm.unwrap_or_else(|| panic!("{what}: no guest"));
            assert_eq!(vm.model().name, MODELS[1].name, "{what}");
            goes_on(&mut vm, what);
        }
        Ending::Stayed => {
            let mut vm = outcome.vm.unwrap_or_else(|| panic!("{what}: no guest"));
            assert_eq!(vm.model().name, MODELS[0].name, "{what}");
            goes_on(&mut vm, what);
        }
        Ending::Stranded => {}
        Ending::Over(stop) => panic!("{what}: {stop:?}"),
    }
    ending
}

/// How often each message is sent in a move without faults.
fn placements(mode: Mode) -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    for message in migration::wire::MESSAGES {
        // A fault behind the last one never strikes.
        let mut nth = 1;
        while nth < if full() { 64 } else { 8 } {
            let outcome = with_faults(mode, &[&format!("duplicate@{message}:{nth}")]);
            if !outcome.report.marks.iter().any(|mark| mark.at == At::Link) {
                break;
            }
            found.push((message, nth));
            nth = if full() || nth == 1 { nth + 1 } else { nth * 4 };
        }
    }
    found
}

#[test]
fn one_fault_at_every_message_loses_nothing() {
    for mode in [Mode::PreCopy, Mode::PostCopy] {
        let places = placements(mode);
        for expected in ["offer", "accept", "ram", "state", "round", "received", "stop", "ready", "commit", "running", "ack"] {
            assert!(places.iter().any(|(message, _)| *message == expected), "{mode:?}: {expected} is never sent: {places:?}");
        }
        for (at, (message, nth)) in places.iter().enumerate() {
            let kinds = ["drop", "duplicate", "delay=300us", "reorder", "truncate", "corrupt", "cut=200us", "cut"];
            for (index, kind) in kinds.iter().enumerate() {
                // A small run takes every kind at the hand-over, and one kind after the other elsewhere.
                let matters = matches!(*message, "stop" | "ready" | "commit" | "running");
                if !full() && !matters && index % 8 != at % 8 {
                    continue;
                }
                let fault = format!("{kind}@{message}:{nth}");
                let what = format!("{mode:?} {fault}");
                let ending = nothing_is_lost(with_faults(mode, &[&fault]), &what);
                if *kind == "cut" {
                    // Before the commit the source goes on; behind it nobody knows, and with post-copy memory is missing.
                    let expected: &[Ending] = match (*message, mode) {
                        ("offer" | "accept" | "round" | "received" | "stop" | "ready", _) => &[Ending::Stayed],
                        ("commit", _) => &[Ending::Stranded],
                        ("running", Mode::PreCopy) => &[Ending::MovedInDoubt],
                        ("running" | "want" | "finish", Mode::PostCopy) => &[Ending::Stranded, Ending::MovedInDoubt],
                        _ => &[Ending::Stayed, Ending::Stranded, Ending::MovedInDoubt, Ending::Moved],
                    };
                    assert!(expected.contains(&ending), "{what}: {ending:?}");
                } else {
                    assert_eq!(ending, Ending::Moved, "{what}");
                }
            }
        }
    }
}

#[test]
fn hosts_die_at_every_message() {
    for (fault, expected) in [
        ("source-dies@offer", Ending::Stranded),
        ("source-dies@ram", Ending::Stranded),
        ("source-dies@stop", Ending::Stranded),
        ("source-dies-after@stop", Ending::Stranded),
        ("source-dies@commit", Ending::Stranded),
        ("source-dies-after@commit", Ending::MovedInDoubt),
        ("destination-dies@accept", Ending::Stayed),
        ("destination-dies-after@accept", Ending::Stayed),
        ("destination-dies@received", Ending::Stayed),
        ("destination-dies@ready", Ending::Stayed),
        ("destination-dies-after@ready", Ending::Stranded),
        ("destination-dies@running", Ending::Stranded),
    ] {
        let outcome = with_faults(Mode::PreCopy, &[fault]);
        let words = outcome.report.ending.clone();
        assert_eq!(nothing_is_lost(outcome, fault), expected, "{fault}: {words}");
        if fault == "source-dies@commit" {
            assert!(words.contains("was never told to run it"), "{words}");
        }
    }
}

/// A move that is stranded without help, and what a person makes of it.
fn helped(mode: Mode, faults: &[&str], mend: Mend) -> migration::Outcome {
    let faults = faults.iter().map(|fault| AnyFault::parse(fault).unwrap()).collect();
    migrate(counter(MODELS[0]), &Settings { mode, faults, mend: Some(mend), ..quick(MODELS[1]) }, &LIMITS, &mut trace::Ignore)
}

#[test]
fn a_person_helps_a_stranded_guest_on_and_nothing_is_lost() {
    use Ending::{Moved, MovedInDoubt, Stayed, Stranded};
    use Mend::{DestinationIsOff, Reconnect, SourceIsOff};
    for (mode, fault, mend, expected) in [
        (Mode::PreCopy, "cut@commit", Reconnect, Moved),
        (Mode::PreCopy, "cut@commit", SourceIsOff, MovedInDoubt),
        (Mode::PreCopy, "cut@commit", DestinationIsOff, Stayed),
        (Mode::PreCopy, "cut@running", Reconnect, Moved),
        (Mode::PreCopy, "source-dies@commit", SourceIsOff, MovedInDoubt),
        (Mode::PreCopy, "destination-dies@running", DestinationIsOff, Stayed),
        (Mode::PostCopy, "cut@commit", Reconnect, Moved),
        (Mode::PostCopy, "cut@running", Reconnect, Moved),
        (Mode::PostCopy, "cut@want", Reconnect, Moved),
        // The guest goes back in time, to the pause.
        (Mode::PostCopy, "cut@want", DestinationIsOff, Stayed),
        (Mode::PostCopy, "destination-dies-after@want", DestinationIsOff, Stayed),
        // Nobody can help where what is needed is off, or was never there.
        (Mode::PreCopy, "source-dies@stop", SourceIsOff, Stranded),
        (Mode::PreCopy, "source-dies@stop", Reconnect, Stranded),
        (Mode::PreCopy, "source-dies@commit", DestinationIsOff, Stranded),
        (Mode::PostCopy, "cut@commit", SourceIsOff, Stranded),
        (Mode::PostCopy, "source-dies@finish", Reconnect, Stranded),
    ] {
        let what = format!("{mode:?} {fault} {mend:?}");
        let outcome = helped(mode, &[fault], mend);
        let (words, mended) = (outcome.report.ending.clone(), outcome.report.mended);
        assert_eq!(nothing_is_lost(outcome, &what), expected, "{what}: {words}");
        let was = if fault == "cut@running" && mode == Mode::PreCopy { Fate::MovedInDoubt } else { Fate::Stranded };
        assert_eq!(mended, (expected != Stranded).then_some(Mended { how: mend, was }), "{what}: {words}");
    }
    // Nobody is asked for help where none is needed.
    let outcome = helped(Mode::PreCopy, &["cut@ready"], DestinationIsOff);
    assert_eq!((&outcome.ending, outcome.report.mended), (&Stayed, None));
}

#[test]
fn a_guest_that_is_held_from_the_start_has_executed_little_when_its_memory_has_travelled() {
    let travelled = |throttle| {
        let vm = counter(MODELS[0]);
        let before = vm.instructions();
        let outcome = migrate(vm, &Settings { throttle, ..quick(MODELS[1]) }, &LIMITS, &mut trace::Ignore);
        assert_eq!(outcome.ending, Ending::Moved, "{}", outcome.report.ending);
        assert!(outcome.report.rounds.iter().all(|round| round.throttle >= throttle), "{:#?}", outcome.report.rounds);
        let mut vm = outcome.vm.unwrap();
        let executed = vm.instructions() - before;
        goes_on(&mut vm, "held from the start");
        executed
    };
    let (free, half, little) = (travelled(0), travelled(50), travelled(99));
    // What it executes behind the hand-over, it executes freely.
    assert!(little > 0 && little * 5 < half && half * 2 < free, "{free} {half} {little}");
}

#[test]
fn a_destination_that_cannot_or_will_not_says_so_and_the_guest_stays() {
    for (fault, word) in
        [("out-of-memory=100", "no memory for more than 100 pages"), ("refuse=sse2", "refuses"), ("out-of-memory=0", "no memory")]
    {
        let outcome = with_faults(Mode::PreCopy, &[fault]);
        let words = outcome.report.ending.clone();
        assert!(words.contains(word), "{words}");
        assert_eq!(nothing_is_lost(outcome, fault), Ending::Stayed, "{fault}");
    }
}

#[test]
fn a_guest_that_was_told_of_more_than_the_destination_has_is_refused_or_taken_with_a_loss() {
    for (from, to) in [(&ZEN3, &SKYLAKE_SERVER), (&SKYLAKE_SERVER, &MEROM)] {
        let untold = || levelled_guest_of(COUNTER, from, 1, Options::default(), Levelling::NONE);
        let settings = quick(to);
        let told = check(&mut untold(), &settings);
        let refusal = told.refusal.unwrap_or_else(|| panic!("{}", told.ledger.levelling.join(", ")));
        assert!(refusal.contains(&format!("which {} lacks", to.name)), "{refusal}");
        // What the ledger would have levelled away is what is refused, and nothing that the hypervisor provides.
        for name in refusal.split("told of ").nth(1).unwrap().split(", which").next().unwrap().split(", ") {
            assert!(told.ledger.levelling.iter().any(|known| known == name) || name.ends_with("bits of physical addresses"), "{name}");
        }
        let outcome = migrate(untold(), &settings, &LIMITS, &mut trace::Ignore);
        assert_eq!(outcome.ending, Ending::Stayed);
        assert!(outcome.report.ending.contains(&refusal) && outcome.report.rounds.is_empty(), "{}", outcome.report.ending);
        goes_on(&mut outcome.vm.unwrap(), "refused");

        let settings = Settings { missing_features: MissingFeatures::Accept, ..settings };
        assert_eq!(check(&mut untold(), &settings).refusal, None);
        let outcome = migrate(untold(), &settings, &LIMITS, &mut trace::Ignore);
        assert_eq!(outcome.ending, Ending::Moved);
        assert!(outcome.report.ledger.iter().any(|line| line.contains("lost")), "{:?}", outcome.report.ledger);
    }
    // What the processors do differently is no reason, and what both models have is enough.
    let differs = check(&mut levelled_guest_of(COUNTER, &SKYLAKE_SERVER, 1, Options::default(), Levelling::NONE), &quick(&ZEN3));
    assert!(differs.refusal.is_none() && !differs.ledger.levelling.is_empty(), "{differs:?}");
    for model in MODELS {
        assert_eq!(check(&mut counter(model), &quick(other(model))).refusal, None);
    }
}

#[test]
fn memory_does_not_follow_to_shadow_tables() {
    let options = Options { paging: Some(Paging::Shadow), ..Options::default() };
    for (settings, taken) in [
        (Settings { mode: Mode::PostCopy, ..quick(MODELS[1]) }, false),
        (Settings { convergence: Convergence::PostCopy, ..quick(MODELS[1]) }, false),
        (quick(MODELS[1]), true),
    ] {
        let mut vm = guest_of(COUNTER, MODELS[0], 1, options);
        let pause = vm.pause_at(Moment::Instruction(5000));
        assert_eq!(vm.run(&mut trace::Ignore, &LIMITS), Stop::Paused(pause));
        let outcome = migrate(vm, &settings, &LIMITS, &mut trace::Ignore);
        assert_eq!(outcome.ending == Ending::Moved, taken, "{}", outcome.report.ending);
        assert!(taken || outcome.report.ending.contains("under shadow paging"), "{}", outcome.report.ending);
        goes_on(&mut outcome.vm.unwrap(), "shadow paging");
    }
}

#[test]
fn moments_that_come_on_the_way_are_told() {
    let mut vm = counter(MODELS[0]);
    let soon = vm.pause_at(Moment::Instruction(vm.instructions() + 100));
    let late = vm.pause_at(Moment::Instruction(100_000_000));
    let outcome = migrate(vm, &quick(MODELS[1]), &LIMITS, &mut trace::Ignore);
    assert_eq!((outcome.ending, outcome.passed), (Ending::Moved, vec![soon]));
    assert_ne!(soon, late);
}

#[test]
fn many_random_faults_lose_nothing() {
    for seed in 0..if full() { 200 } else { 8 } {
        let faults: Vec<AnyFault> = ["drop", "duplicate", "delay=100us", "reorder", "truncate", "corrupt", "cut=100us"]
            .iter()
            .map(|kind| AnyFault::parse(&format!("{kind}@random:15000")).unwrap())
            .collect();
        let mode = if seed % 2 == 0 { Mode::PreCopy } else { Mode::PostCopy };
        let link = LinkSettings { seed, jitter: 3000, ..quick(MODELS[1]).link };
        let outcome = migrate(counter(MODELS[0]), &Settings { mode, faults, link, ..quick(MODELS[1]) }, &LIMITS, &mut trace::Ignore);
        let what = format!("seed {seed}: {}", outcome.report.ending);
        let ending = nothing_is_lost(outcome, &what);
        assert_eq!(ending, Ending::Moved, "{what}");
    }
}
