//! Which pages a guest has written, as the hypervisor's dirty log tells it, against memory itself.

mod common;

use common::{Guest, Side, Story, VENDORS};
use hypervisor::{Moment, Options, Paging, Stop};
use std::collections::BTreeSet;

/// Every way in which writes are told.
fn ways() -> Vec<(&'static str, Side, Options)> {
    let plain = Options::default();
    let [intel, amd] = VENDORS;
    vec![
        ("page-modification log", intel, plain),
        ("write protection on Intel", intel, Options { page_modification_log: false, ..plain }),
        ("write protection on AMD", amd, plain),
        ("page-modification log, mapped by faults", intel, Options { prefault: false, ..plain }),
        ("write protection on AMD, mapped by faults", amd, Options { prefault: false, ..plain }),
    ]
}

fn story(text: &str, side: &Side, options: Options, cpus: u32) -> Story {
    Guest { options, cpus, ..Guest::new(text) }.on(side)
}

fn content(story: &mut Story) -> Vec<Vec<u8>> {
    (0..4096).map(|frame| story.bytes(frame << 12, 4096)).collect()
}

/// Runs to the next hypercall and compares the log with what changed. The answer is the log.
fn step(story: &mut Story, before: &mut Vec<Vec<u8>>, name: &str) -> BTreeSet<u64> {
    let calls = story.vm().statistics().hypercalls + 1;
    let pause = story.vm().pause_at(Moment::Hypercall(calls));
    assert_eq!(story.run(), Stop::Paused(pause), "{name}: {}", story.text());
    let mut trace = std::mem::take(&mut story.trace);
    let log: BTreeSet<u64> = story.vm().take_dirty_log(&mut trace).unwrap().frames.into_iter().collect();
    story.trace = trace;
    let after = content(story);
    let changed: BTreeSet<u64> = (0..4096).filter(|frame| before[*frame as usize] != after[*frame as usize]).collect();
    assert!(changed.is_subset(&log), "{name}: changed {changed:x?}, logged {log:x?}");
    *before = after;
    log
}

fn start(story: &mut Story) {
    let mut trace = std::mem::take(&mut story.trace);
    story.vm().start_dirty_log(&mut trace).unwrap();
    story.trace = trace;
}

/// Writes one more page in each round, in a different order, and some twice.
const WRITER: &str = r"
        mov r12d, 1
    round:
        mov rdi, 0x400000
        mov ecx, r12d
    page:
        add qword ptr [rdi + rcx * 8], 1
        mov byte ptr [rdi + 0xfff], cl
        add rdi, 0x3000
        loop page
        inc r12d
        mov eax, 1
        NATIVE
        jmp round
";

#[test]
fn every_written_page_is_in_the_log_and_no_other() {
    for (name, side, options) in ways() {
        let mut story = story(WRITER, &side, options, 1);
        start(&mut story);
        let mut before = content(&mut story);
        for round in 1..6_u64 {
            let log = step(&mut story, &mut before, name);
            let data: BTreeSet<u64> = log.iter().copied().filter(|frame| *frame >= 0x400).collect();
            let expected: BTreeSet<u64> = (0..round).map(|page| 0x400 + 3 * page).collect();
            assert_eq!(data, expected, "{name}, round {round}");
            // Beside them only the guest's own tables, whose flags the processor sets.
            assert!(log.len() <= data.len() + 8, "{name}: {log:x?}");
        }
        let protects = name.starts_with("write");
        assert_eq!(story.count("fast_page_fault") > 0, protects, "{name}: {}", story.text());
        assert_eq!(story.count("kvm_mmu_split_huge_page") > 0, options.prefault, "{name}: the RAM was mapped by large pages");
    }
}

#[test]
fn shadow_tables_tell_writes_by_faults() {
    for side in VENDORS {
        let name = side.model.name;
        let mut story = story(WRITER, &side, Options { paging: Some(Paging::Shadow), ..Options::default() }, 1);
        start(&mut story);
        let mut before = content(&mut story);
        for round in 1..6_u64 {
            let log = step(&mut story, &mut before, name);
            let data: BTreeSet<u64> = log.iter().copied().filter(|frame| *frame >= 0x400).collect();
            let expected: BTreeSet<u64> = (0..round).map(|page| 0x400 + 3 * page).collect();
            assert_eq!(data, expected, "{name}, round {round}");
            // Beside them only the guest's own tables, whose flags the hypervisor sets.
            assert!(log.len() <= data.len() + 8, "{name}: {log:x?}");
        }
    }
}

#[test]
fn a_full_log_exits_and_loses_nothing() {
    let text = r"
        mov rdi, 0x400000
        mov ecx, 1200
    page:
        mov [rdi], rcx
        add rdi, 0x1000
        loop page
        mov eax, 1
        NATIVE
        hlt
    ";
    for (name, side, options) in ways() {
        let mut story = story(text, &side, options, 1);
        start(&mut story);
        let mut before = content(&mut story);
        let log = step(&mut story, &mut before, name);
        assert_eq!(log.iter().filter(|frame| (0x400..0x400 + 1200).contains(*frame)).count(), 1200, "{name}");
        let full = story.exits().iter().filter(|reason| *reason == "PML_FULL").count();
        assert_eq!(full, if name == "page-modification log" { 2 } else { 0 }, "{name}: {:?}", story.exits());
    }
}

#[test]
fn what_software_writes_for_the_guest_is_in_the_log() {
    // CLOCK_PAIRING writes memory in the hypervisor, the foreign call has its text patched, and the script writes as a device does.
    let text = "mov eax, 9\n mov ebx, 0x500000\n xor ecx, ecx\n site: FOREIGN\n hlt";
    for (name, side, options) in ways() {
        let mut story = story(text, &side, options, 1);
        let site = story.label("site");
        start(&mut story);
        let mut before = content(&mut story);
        story.vm().write_memory(0x60_0ffe, &[1, 2, 3]).unwrap();
        let log = step(&mut story, &mut before, name);
        for frame in [0x500, 0x600, 0x601, site >> 12] {
            assert!(log.contains(&frame), "{name}: {frame:#x} is not in {log:x?}");
        }
    }
}

#[test]
fn two_processors_write_into_one_log() {
    // Both write their own pages and one that they share; the second is started by the first.
    let text = r"
        mov eax, 0xfee00000
        mov dword ptr [rax + 0x300], 0x000c4500
        mov dword ptr [rax + 0x300], 0x000c4608
        mov rdi, 0x400000
    own:
        lock inc qword ptr [rdi]
        lock inc qword ptr [0x700000]
        cmp qword ptr [0x700008], 0
        je own
        mov eax, 1
        NATIVE
        jmp own
    ";
    for (name, side, options) in ways() {
        let mut story = story(text, &side, options, 2);
        // In real mode at 0x8000: counts in pages of its own and tells the first that it lives.
        let bytes = assembler::assemble(
            "mov ax, 0x5000\n mov ds, ax\n again: inc word ptr [0x10]\n mov bx, 0x7000\n inc word ptr [bx]\n jmp again",
            &assembler::Options { origin: 0x8000, bits: assembler::Bits::Sixteen, ..assembler::Options::default() },
        )
        .unwrap();
        story.vm().write_memory(0x8000, &bytes.bytes).unwrap();
        start(&mut story);
        let mut before = content(&mut story);
        let mut trace = std::mem::take(&mut story.trace);
        for turn in 1..5 {
            let pause = story.vm().pause_at(Moment::Instruction(40_000 * turn));
            let limits = hypervisor::Limits { instructions: 1_000_000, ..hypervisor::Limits::NONE };
            assert_eq!(story.vm().run(&mut trace, &limits), Stop::Paused(pause), "{name}");
            let log: BTreeSet<u64> = story.vm().take_dirty_log(&mut trace).unwrap().frames.into_iter().collect();
            let after = content(&mut story);
            let changed: BTreeSet<u64> = (0..4096).filter(|frame| before[*frame as usize] != after[*frame as usize]).collect();
            assert!(changed.is_subset(&log), "{name}: changed {changed:x?}, logged {log:x?}");
            if turn > 1 {
                for frame in [0x400, 0x700, 0x50, 0x57] {
                    assert!(log.contains(&frame), "{name}, turn {turn}: {frame:#x} is not in {log:x?}");
                }
            }
            before = after;
        }
    }
}

#[test]
fn a_log_that_ends_leaves_the_guest_as_it_was() {
    for (name, side, options) in ways() {
        let mut with = story(WRITER, &side, options, 1);
        start(&mut with);
        let mut before = content(&mut with);
        for _ in 0..3 {
            step(&mut with, &mut before, name);
        }
        let mut trace = Vec::new();
        with.vm().stop_dirty_log(&mut trace).unwrap();
        let faults = with.count("fast_page_fault");
        let calls = with.vm().statistics().hypercalls + 3;
        let pause = with.vm().pause_at(Moment::Hypercall(calls));
        assert_eq!(with.run(), Stop::Paused(pause));
        assert_eq!(with.count("fast_page_fault"), faults, "{name}: nothing is protected any more");
        let mut without = story(WRITER, &side, options, 1);
        let pause = without.vm().pause_at(Moment::Hypercall(calls));
        assert_eq!(without.run(), Stop::Paused(pause));
        assert_eq!(with.vm().registers(0), without.vm().registers(0), "{name}");
        assert!(content(&mut with) == content(&mut without), "{name}");
        assert!(with.vm().take_dirty_log(&mut trace).unwrap().frames.is_empty());
    }
}

#[test]
fn an_iret_that_faults_leaves_nmis_blocked() {
    // SDM 28.2.3 "Information About NMI Unblocking Due to IRET": the log protects the guest's tables, whose flags the IRET's walk sets; the
    // IRET has unblocked NMIs when that exits, and is executed again. A second NMI must wait for it.
    let text = r"
        lea rax, [handler]
        mov rdi, 0x300000
        mov word ptr [rdi + 0x20], ax
        mov word ptr [rdi + 0x22], cs
        mov word ptr [rdi + 0x24], 0x8e00
        shr rax, 16
        mov word ptr [rdi + 0x26], ax
        mov dword ptr [rdi + 0x28], 0
        mov word ptr [0x3ff000], 0xfff
        mov qword ptr [0x3ff002], rdi
        lidt [0x3ff000]
        mov eax, 1
        NATIVE
    wait:
        inc r13
        jmp wait
    handler:
        inc r14
        mov eax, 1
        NATIVE
        iretq
    ";
    for (name, side, options) in ways() {
        let mut story = story(text, &side, options, 1);
        let calls = story.vm().pause_at(Moment::Hypercall(1));
        assert_eq!(story.run(), Stop::Paused(calls), "{name}");
        start(&mut story);
        story.vm().nmi(0);
        let calls = story.vm().pause_at(Moment::Hypercall(2));
        assert_eq!(story.run(), Stop::Paused(calls), "{name}: {}", story.text());
        // In the handler: everything is clean again, and the next NMI waits.
        let mut trace = Vec::new();
        story.vm().take_dirty_log(&mut trace).unwrap();
        story.vm().nmi(0);
        let calls = story.vm().pause_at(Moment::Hypercall(3));
        assert_eq!(story.run(), Stop::Paused(calls), "{name}: {}", story.text());
        let registers = story.vm().registers(0);
        assert_eq!(registers.gprs[14], 2, "{name}");
        let instructions = story.vm().instructions();
        let pause = story.vm().pause_at(Moment::Instruction(instructions + 50));
        assert_eq!(story.run(), Stop::Paused(pause), "{name}: {}", story.text());
        assert_eq!(story.vm().registers(0).gprs[14], 2, "{name}: NMIs do not nest");
        assert!(story.vm().registers(0).gprs[13] > 0, "{name}");
    }
}
