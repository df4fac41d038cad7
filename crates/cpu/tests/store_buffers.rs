//! Stores that wait in the store buffer of an observed processor: what it sees of them itself, what others see, and what empties the buffer.

mod common;

use common::{Machine, PAGES};
use cpu::RunExit;
use cpu::freedom::{BUFFER_ENTRIES, Part, Touch};
use isa::register::Gpr;
use models::{CpuModel, SKYLAKE_SERVER, ZEN3};

const X: u64 = 0x9_0000;

/// A program that is observed from its first instruction on.
fn observed(model: &'static CpuModel, source: &str) -> Machine {
    let mut machine = Machine::long_on(model, source);
    machine.cpu.observe(true);
    machine
}

/// One step; the store in it waits, if it is the first one that does.
fn buffered_step(machine: &mut Machine) {
    machine.cpu.buffer_store();
    step(machine);
    assert!(machine.cpu.could_buffer());
}

fn step(machine: &mut Machine) {
    machine.cpu.emptied();
    machine.cpu.take_accesses();
    assert_eq!(machine.run_for(1), RunExit::Instructions);
}

/// What others see of 8 bytes.
fn seen(machine: &Machine, at: u64) -> u64 {
    machine.memory.read_u64(at).unwrap()
}

#[test]
fn a_store_that_waits_is_seen_by_its_processor_alone_and_stores_leave_in_order() {
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        let mut machine =
            observed(model, "mov dword [0x90000], 1\n mov dword [0x90040], 2\n mov dword [0x90000], 3\n mov eax, [0x90000]\n hlt");
        buffered_step(&mut machine);
        for _ in 0..3 {
            step(&mut machine);
        }
        assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.buffered_stores().count()), (3, 3), "those behind it wait as well");
        let states: Vec<(u64, u64)> = (0..4)
            .map(|number| {
                if number > 0 {
                    machine.with(cpu::Cpu::drain_store);
                }
                (seen(&machine, X), seen(&machine, X + 0x40))
            })
            .collect();
        assert_eq!(states, [(0, 0), (1, 0), (1, 2), (3, 2)]);
        assert!(!machine.cpu.buffers_stores());
    }
}

#[test]
fn a_load_sees_the_own_bytes_over_those_of_memory() {
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        let source =
            "mov word [0x90002], 0x1111\n mov byte [0x90003], 0x22\n mov rax, [0x90000]\n mov rbx, [0x8ffff]\n movdqu xmm0, [0x8fffe]
            movq rcx, xmm0\n add word [0x90003], 1\n movzx edx, word [0x90003]\n hlt";
        let mut machine = observed(model, source);
        machine.memory.write_u64(X, 0x8877_6655_4433_2200).unwrap();
        machine.memory.write(X - 2, &[0xbb, 0xaa]).unwrap();
        buffered_step(&mut machine);
        for _ in 0..7 {
            step(&mut machine);
        }
        assert_eq!(machine.cpu.gpr(Gpr::Rax), 0x8877_6655_2211_2200);
        assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0x7766_5522_1122_00aa);
        assert_eq!(machine.cpu.gpr(Gpr::Rcx), 0x6655_2211_2200_aabb);
        assert_eq!(machine.cpu.gpr(Gpr::Rdx), 0x5523, "a read-modify-write that is not locked waits as well");
        assert_eq!(seen(&machine, X), 0x8877_6655_4433_2200);
        machine.with(cpu::Cpu::drain_stores);
        assert_eq!(seen(&machine, X), 0x8877_6655_2311_2200);
    }
}

/// What comes behind a store that waits, whether it empties the buffer, and whether it is the last instruction.
#[test]
fn what_the_manuals_say_empties_the_buffer_does() {
    const ROWS: [(&str, bool); 22] = [
        ("mfence", true),
        ("lock inc dword [0x90080]", true),
        ("xchg [0x90080], ecx", true),
        ("lock cmpxchg [0x90080], ecx", true),
        ("cpuid", true),
        ("out 0x80, al", true),
        ("in al, 0x60", true),
        ("outsb", true),
        ("mov rcx, cr3\n mov cr3, rcx", true),
        ("invlpg [0x90000]", true),
        ("int3", true),
        ("ud2", true),
        ("mov al, [0x3fff0000]", true),
        ("mov ecx, 0xfee00020\n mov eax, [rcx]", true),
        ("hlt", true),
        ("sfence", false),
        ("lfence", false),
        ("pause", false),
        ("xchg ecx, edx", false),
        ("cmpxchg [0x90080], ecx", false),
        ("mov eax, [0x90080]", false),
        ("push rax\n call next\n next: ret", false),
    ];
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        for (what, empties) in ROWS {
            let mut machine = observed(model, &format!("mov dword [0x90000], 1\n {what}\n nop\n nop\n nop\n nop"));
            // The local APIC, a page that there is not: everything else is mapped to itself.
            machine.memory.write_u64(0x2018, 0xd003).unwrap();
            machine.memory.write_u64(0xd000 + 8 * 0x1f7, 0xfee0_0093).unwrap();
            machine.memory.write_u64(0x3000 + 8 * 0x1ff, 0).unwrap();
            buffered_step(&mut machine);
            let length = what.lines().count() as u64;
            machine.cpu.emptied();
            machine.run_for(length);
            let name = format!("{what} on {}", model.name);
            assert_eq!(machine.cpu.emptied().is_some(), empties, "{name}");
            assert_eq!(seen(&machine, X) == 1, empties, "{name}");
            assert_eq!(machine.cpu.buffers_stores(), !empties, "{name}");
        }
    }
}

#[test]
fn a_fetch_and_a_page_walk_see_the_own_stores() {
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        // `mov eax, 1` becomes `mov eax, 2`.
        let mut machine = observed(model, "mov byte [site + 1], 2\n nop\n site: mov eax, 1\n hlt");
        let site = machine.symbol("site");
        buffered_step(&mut machine);
        step(&mut machine);
        assert!(machine.cpu.buffers_stores(), "a fetch of other bytes leaves it alone");
        step(&mut machine);
        assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.buffers_stores()), (2, false));
        assert_eq!(machine.memory.read_u8(site + 1).unwrap(), 2);

        // The page behind X is mapped to X, and was never walked to.
        let entry = PAGES + 8 * ((X + 0x1000) >> 12);
        let mut machine = observed(model, &format!("mov dword [{entry:#x}], {:#x}\n mov eax, [0x91000]\n hlt", X | 7));
        machine.memory.write_u64(X, 0x1234).unwrap();
        machine.memory.write_u64(X + 0x1000, 0x5678).unwrap();
        buffered_step(&mut machine);
        step(&mut machine);
        assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.buffers_stores()), (0x1234, false));
        assert_eq!(seen(&machine, entry) & !0x20, X | 7);
    }
}

#[test]
fn a_store_that_is_torn_leaves_in_two_parts() {
    // Over a cache line, which neither vendor promises to be whole.
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        for (part, states) in [(Part::Low, [0, 0x2211, 0x4433_2211]), (Part::High, [0, 0x4433_0000, 0x4433_2211])] {
            let mut machine = observed(model, "mov dword [0x9003e], 0x44332211\n mov eax, [0x9003e]\n hlt");
            machine.cpu.split_store(part);
            buffered_step(&mut machine);
            assert!(machine.cpu.could_split() && !machine.cpu.holds_back());
            step(&mut machine);
            assert_eq!(machine.cpu.gpr(Gpr::Rax), 0x4433_2211);
            let seen: Vec<u64> = (0..3)
                .map(|number| {
                    if number > 0 {
                        machine.with(cpu::Cpu::drain_store);
                    }
                    machine.memory.read_u32(X + 0x3e).unwrap().into()
                })
                .collect();
            assert_eq!(seen, states);
        }
    }
}

#[test]
fn a_store_over_two_pages_waits_as_one() {
    let mut machine = observed(&SKYLAKE_SERVER, "mov dword [0x90ffe], 0x44332211\n hlt");
    buffered_step(&mut machine);
    assert_eq!(machine.cpu.buffered_stores().count(), 1);
    let (accesses, _) = machine.cpu.take_accesses();
    assert!(accesses.iter().all(|access| !matches!(access.touch, Touch::Write { .. })), "nobody sees it: {accesses:?}");
    machine.with(cpu::Cpu::drain_store);
    assert_eq!(machine.memory.read_u32(X + 0xffe).unwrap(), 0x4433_2211);
    let written: u64 = machine.cpu.take_accesses().0.iter().map(|access| access.length).sum();
    assert_eq!(written, 4);
}

#[test]
fn a_full_buffer_lets_its_oldest_store_go() {
    let mut machine = observed(&ZEN3, "mov ecx, 100\n again: mov [0x90000 + rcx * 8], rcx\n dec ecx\n jnz again\n hlt");
    step(&mut machine);
    machine.cpu.buffer_store();
    assert_eq!(machine.run_for(2 * 99 + 99 + 1), RunExit::Instructions);
    assert_eq!(machine.cpu.buffered_stores().count(), BUFFER_ENTRIES - 1, "there is always place for a torn one");
    assert_eq!((seen(&machine, X + 800), seen(&machine, X + 8)), (100, 0));
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!(seen(&machine, X + 8), 1);
}

#[test]
fn what_waits_is_kept_by_a_record_and_refused_where_it_cannot_be() {
    let mut machine = observed(&ZEN3, "mov dword [0x90000], 1\n hlt");
    buffered_step(&mut machine);
    let record = machine.cpu.freedom_record().unwrap();
    assert_eq!(record.buffer, [vec![(X, 1), (X + 1, 0), (X + 2, 0), (X + 3, 0)]]);
    let mut other = Machine::long_on(&ZEN3, "hlt");
    let refusal = |other: &mut Machine, change: &dyn Fn(&mut cpu::freedom::FreedomRecord)| {
        let mut record = record.clone();
        change(&mut record);
        other.cpu.restore_freedoms(&record, 16 << 20).unwrap_err()
    };
    // Nothing waits outside of a guest: a VM exit empties the buffer.
    assert!(refusal(&mut other, &|_| ()).contains("empties"));
    other.cpu.guest_mode = true;
    assert!(refusal(&mut other, &|record| record.held.push((X, 1))).contains("empties"));
    assert!(refusal(&mut other, &|record| record.buffer[0][0].0 = 16 << 20).contains("none to memory"));
    assert!(refusal(&mut other, &|record| record.buffer = vec![vec![(X, 1)]; BUFFER_ENTRIES + 1]).contains("more than it holds"));
    assert!(refusal(&mut other, &|record| record.buffer.push(Vec::new())).contains("none to memory"));
    other.cpu.restore_freedoms(&record, 16 << 20).unwrap();
    assert_eq!(other.cpu.freedom_record().unwrap(), record);
}
