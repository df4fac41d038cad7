//! Exceptions and interrupts: which, with what on the stack, through which gates; and when they come.

mod common;

use common::{CODE, CODE_0, CODE_3, DATA_0, DATA_3, GDT, HANDLERS, IDT, INNER_STACK, Machine, STACK};
use cpu::RunExit;
use cpu::state::Shadow;
use isa::apic::{ApicMessage, DeliveryMode};
use isa::register::{Gpr, Segment};

fn interrupt(vector: u8) -> ApicMessage {
    ApicMessage { destination: 0, logical: false, mode: DeliveryMode::Fixed, vector, level: false }
}

/// A 64-bit machine whose APIC takes interrupts.
fn with_apic(source: &str) -> Machine {
    let mut machine = Machine::long(source);
    machine.cpu.apic.set_virtual_wire();
    machine
}

#[test]
fn exceptions_of_64_bit_code() {
    // Program, level, vector, error code; the frame's RIP is at `here`.
    let rows: &[(&str, u8, u64, Option<u64>)] = &[
        ("here: ud2", 0, 6, None),
        ("here: ud2", 3, 6, None),
        ("xor ecx, ecx\n here: div ecx", 0, 0, None),
        ("int3\n here:", 0, 3, None),
        ("int3\n here:", 3, 3, None),
        ("int 0x80\n here:", 3, 0x80, None),
        ("int 0x81\n here:", 0, 0x81, None),
        // The gate's privilege level is 0: #GP names it.
        ("here: int 0x81", 3, 13, Some(0x81 * 8 + 2)),
        ("here: hlt", 3, 13, Some(0)),
        ("here: cli", 3, 13, Some(0)),
        ("here: mov cr0, rax", 3, 13, Some(0)),
        ("mov ecx, 0x12345\n here: rdmsr", 0, 13, Some(0)),
        ("mov rax, 1 << 47\n here: mov ebx, [rax]", 0, 13, Some(0)),
        ("mov rbp, 1 << 47\n here: mov ebx, [rbp]", 0, 12, Some(0)),
        ("mov rsp, 1 << 47\n here: pop rax", 3, 12, Some(0)),
        ("mov rsp, (1 << 47) + 8\n here: push rax", 3, 12, Some(0)),
        ("mov rax, 1 << 47\n here: jmp rax", 0, 13, Some(0)),
        ("here: mov eax, [0x70000000]", 0, 14, Some(0)),
        ("here: mov [0x70000000], eax", 3, 14, Some(6)),
        ("mov eax, 0x4c\n here: mov ds, eax", 0, 13, Some(0x4c)),
        ("mov eax, 0x48\n here: mov ss, eax", 0, 13, Some(0x48)),
        ("mov eax, 0x23\n here: mov ss, eax", 0, 13, Some(0x20)),
        ("here: clac", 3, 6, None),
        ("here: lmsw ax", 3, 13, Some(0)),
        ("mov dx, 0x13\n here: ltr dx", 0, 13, Some(0x10)),
    ];
    for &(source, level, vector, code) in rows {
        let mut machine = Machine::long(source);
        if level == 3 {
            machine = machine.into_user();
        }
        assert_eq!(machine.run_to_handler(), Some(vector), "{source}");
        let frame = machine.stack(6);
        let frame = if let Some(code) = code {
            assert_eq!(frame[0], code, "{source}");
            &frame[1..]
        } else {
            &frame[..5]
        };
        let (cs, ss) = if level == 3 { (CODE_3, DATA_3) } else { (CODE_0, DATA_0) };
        assert_eq!((frame[0], frame[1], frame[4]), (machine.symbol("here"), u64::from(cs), u64::from(ss)), "{source}");
        let resume = frame[2] >> 16 & 1 == 1;
        assert_eq!(resume, !matches!(vector, 3 | 0x80 | 0x81), "faults push RF: {source}");
        if level == 3 {
            let words = if code.is_some() { 6 } else { 5 };
            assert_eq!(machine.cpu.gpr(Gpr::Rsp), INNER_STACK - 8 * words);
            assert_eq!(machine.cpu.segment(Segment::Ss).selector.into_bits(), 0);
        }
        assert_eq!(machine.cpu.cpl, 0);
    }
}

#[test]
fn a_page_fault_sets_cr2() {
    let mut machine = Machine::long("mov rax, [0x70001238]");
    assert_eq!(machine.run_to_handler(), Some(14));
    assert_eq!(machine.cpu.cr2, 0x7000_1238);
}

#[test]
fn an_interrupt_stack_table_entry_is_used_and_aligned() {
    let mut machine = Machine::long("sub rsp, 3\n ud2");
    let gate = machine.memory.read_u64(IDT + 16 * 6).unwrap();
    machine.memory.write_u64(IDT + 16 * 6, gate | 1 << 32).unwrap();
    assert_eq!(machine.run_to_handler(), Some(6));
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), INNER_STACK - 0x400 - 40);
    assert_eq!(machine.stack(4)[3], STACK - 3);
    let mut machine = Machine::long("sub rsp, 3\n ud2");
    assert_eq!(machine.run_to_handler(), Some(6));
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), STACK - 16 - 40);
}

#[test]
fn the_ladder_of_faults() {
    /// Program; last vector whose gate the IDT holds; gates that are made unusable; the handler reached, or a shutdown; the error code.
    type Row = (&'static str, u64, &'static [u64], Option<u64>, u64);
    let rows: &[Row] = &[
        // #UD is benign: the #NP for its gate is delivered alone, with EXT.
        ("ud2", 255, &[6], Some(11), 6 * 8 + 3),
        // INT n: no EXT.
        ("int 0x81", 255, &[0x81], Some(11), 0x81 * 8 + 2),
        // #GP's gate is missing: contributory on contributory.
        ("mov ecx, 0x12345\n rdmsr", 255, &[13], Some(8), 0),
        ("xor ecx, ecx\n div ecx", 255, &[0], Some(8), 0),
        // A page fault's gate is missing: #NP during #PF.
        ("mov eax, [0x70000000]", 255, &[14], Some(8), 0),
        // And #DF's as well.
        ("mov eax, [0x70000000]", 255, &[14, 8], None, 0),
        ("ud2", 255, &[6, 11, 8], None, 0),
        // The IDT ends before vector 6: #GP(6 * 8 + IDT + EXT), whose gate is missing, too.
        ("ud2", 5, &[], None, 0),
        ("int3", 2, &[], None, 0),
    ];
    for &(source, last, missing, expected, code) in rows {
        let mut machine = Machine::long(source);
        machine.cpu.idtr.limit = (16 * (last + 1) - 1) as u16;
        for vector in missing {
            let gate = machine.memory.read_u64(IDT + 16 * vector).unwrap();
            machine.memory.write_u64(IDT + 16 * vector, gate & !(1 << 47)).unwrap();
        }
        match expected {
            Some(vector) => {
                assert_eq!(machine.run_to_handler(), Some(vector), "{source}");
                assert_eq!(machine.stack(1)[0], code, "{source}");
            }
            None => assert_eq!(machine.run(), RunExit::Shutdown, "{source}"),
        }
    }
}

#[test]
fn a_malformed_gate_or_its_code_segment_is_refused() {
    // What is written into the gate of #UD; vector and error code that come instead.
    let gate = |selector: u16, attributes: u64| (HANDLERS + 0x60) | (u64::from(selector) << 16) | (attributes << 40);
    let rows = [
        (gate(CODE_0, 0x8f), 6, None),
        (gate(CODE_0, 0x85), 13, Some(6 * 8 + 3)),
        (gate(CODE_0, 0x86), 13, Some(6 * 8 + 3)),
        (gate(0, 0x8e), 13, Some(1)),
        (gate(DATA_0, 0x8e), 13, Some(0x11)),
        (gate(CODE_3 & !3, 0x8e), 13, Some(0x29)),
        (gate(0x7f8, 0x8e), 13, Some(0x7f9)),
    ];
    for (gate, vector, code) in rows {
        let mut machine = Machine::long("ud2");
        machine.memory.write_u64(IDT + 16 * 6, gate).unwrap();
        assert_eq!(machine.run_to_handler(), Some(vector), "{gate:#x}");
        if let Some(code) = code {
            assert_eq!(machine.stack(1)[0], code, "{gate:#x}");
        }
    }
}

#[test]
fn protected_mode_switches_stacks_through_the_tss() {
    let mut machine = Machine::protected("int 0x80\n here:").into_user();
    assert_eq!(machine.run_to_handler(), Some(0x80));
    let here = machine.symbol("here");
    assert_eq!(machine.stack32(5), [here, u64::from(CODE_3), 2, STACK, u64::from(DATA_3)]);
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), INNER_STACK - 20);
    assert_eq!(machine.cpu.segment(Segment::Ss).selector.into_bits(), DATA_0);
    // At the same level only three words are pushed, on the same stack.
    let mut machine = Machine::protected("int 0x80\n here:");
    assert_eq!(machine.run_to_handler(), Some(0x80));
    assert_eq!(machine.stack32(3), [machine.symbol("here"), u64::from(CODE_0), 2]);
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), STACK - 12);
}

#[test]
fn a_bad_inner_stack_is_an_invalid_tss() {
    // SS0 in the TSS: the fault it makes (during a software interrupt: no EXT).
    for (ss, vector, code) in [(0, 10, 0), (DATA_3, 10, 0x20), (CODE_0, 10, 8), (0x7f8, 10, 0x7f8)] {
        let mut machine = Machine::protected("int 0x80").into_user();
        machine.memory.write_u32(common::TSS + 8, u32::from(ss)).unwrap();
        // The fault's own delivery needs a stack: its gate leads to conforming code, which stays at level 3.
        machine.memory.write_u64(GDT + 0x38, 0x00cf_9f00_0000_ffff).unwrap();
        machine.memory.write_u64(IDT + 8 * vector, (CODE + 0x100) & 0xffff | (CODE >> 16) << 48 | 0x38 << 16 | 0x8e << 40).unwrap();
        machine.memory.write(CODE + 0x100, &[0xeb, 0xfe]).unwrap();
        assert_eq!(machine.run_for(10), RunExit::Instructions);
        assert_eq!((machine.cpu.rip, machine.cpu.cpl), (CODE + 0x100, 3), "{ss:#x}");
        assert_eq!(machine.stack32(1), [code], "{ss:#x}");
    }
}

#[test]
fn real_mode_uses_the_vector_table() {
    let mut machine = Machine::real("org 0\n sti\n nop\n int 0x21\n here: hlt");
    machine.memory.write_u32(4 * 0x21, (HANDLERS as u32 >> 4) << 16 | 0x10).unwrap();
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.segment(Segment::Cs).base, machine.cpu.rip), (HANDLERS, 0x11));
    let words: Vec<u16> = (0..3).map(|word| machine.memory.read_u16(STACK - 6 + 2 * word).unwrap()).collect();
    assert_eq!(words, [machine.symbol("here") as u16, (CODE >> 4) as u16, 0x202]);
    assert!(!machine.cpu.rflags().r#if());
}

#[test]
fn single_stepping_traps_behind_each_instruction() {
    let source = "pushfq\n or dword [rsp], 0x100\n popfq\n nop\n here: nop";
    let mut machine = Machine::long(source);
    assert_eq!(machine.run_to_handler(), Some(1));
    // The instruction behind POPF is the first that is stepped.
    assert_eq!(machine.stack(1)[0], machine.symbol("here"));
    assert!(machine.cpu.dr6.bs() && !machine.cpu.rflags().tf());
}

#[test]
fn breakpoints_report_in_dr6() {
    // Code breakpoint 1 at `here`: a fault. Data breakpoint 0: a trap behind the write.
    let rows = [
        ("mov eax, here\n mov dr1, rax\n mov eax, 0x404\n mov dr7, rax\n nop\n here: nop", 2u64),
        ("mov eax, 0x20000\n mov dr0, rax\n mov eax, 0xd0402\n mov dr7, rax\n mov [0x20002], al\n here: nop", 1),
    ];
    for (source, bits) in rows {
        let mut machine = Machine::long(source);
        assert_eq!(machine.run_to_handler(), Some(1), "{source}");
        assert_eq!((machine.stack(1)[0], machine.cpu.dr6.into_bits() & 0xf), (machine.symbol("here"), bits), "{source}");
    }
    // General detection.
    let mut machine = Machine::long("mov eax, 0x2400\n mov dr7, rax\n here: mov rax, dr0");
    assert_eq!(machine.run_to_handler(), Some(1));
    assert!(machine.cpu.dr6.bd() && !machine.cpu.dr7.gd());
    assert_eq!(machine.stack(1)[0], machine.symbol("here"));
}

#[test]
fn a_code_breakpoint_is_met_behind_the_end_of_the_address_space() {
    // Outside of 64-bit mode a linear address has 32 bits, whatever base and offset come to (SDM vol 3, 3.3.1).
    let mut machine = Machine::protected("mov eax, 1\n nop\n nop");
    machine.cpu.segments[Segment::Cs.number()].base = 0xffff_0000;
    machine.cpu.rip = CODE + 0x1_0000;
    machine.cpu.dr[1] = CODE + 5;
    machine.cpu.dr7 = isa::debug::Dr7::from_bits(0x404);
    machine.cpu.context_changed();
    assert_eq!(machine.run_to_handler(), Some(1));
    assert_eq!(machine.cpu.dr6.into_bits() & 0xf, 2);
}

#[test]
fn interrupts_come_when_they_may() {
    // Program, and the symbol at which an interrupt that is pending from the start arrives.
    let rows = [
        ("sti\n nop\n here: nop\n hlt", Some("here")),
        ("nop\n nop\n hlt", None),
        ("sti\n cli\n nop\n hlt", None),
        ("mov eax, ss\n sti\n mov ss, eax\n nop\n here: hlt", Some("here")),
        ("pushfq\n or dword [rsp], 0x200\n popfq\n here: nop\n hlt", Some("here")),
    ];
    for (source, expected) in rows {
        let mut machine = with_apic(source);
        machine.cpu.accept(&interrupt(0x41));
        match expected {
            Some(symbol) => {
                assert_eq!(machine.run_to_handler(), Some(0x41), "{source}");
                assert_eq!(machine.stack(1)[0], machine.symbol(symbol), "{source}");
                assert!(machine.cpu.apic.in_service(0x41) && !machine.cpu.interrupt_pending());
            }
            None => {
                assert_eq!(machine.run_to_handler(), None, "{source}");
                assert!(machine.cpu.interrupt_pending(), "{source}");
            }
        }
        assert_eq!(machine.cpu.shadow, Shadow::None);
    }
}

#[test]
fn a_halted_processor_wakes_for_an_interrupt_that_it_takes() {
    let mut machine = with_apic("sti\n hlt\n here: nop\n hlt");
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!(machine.cpu.rip, machine.symbol("here"));
    assert_eq!(machine.run(), RunExit::Idle);
    machine.cpu.accept(&interrupt(0x50));
    assert_eq!(machine.run_to_handler(), Some(0x50));
    assert_eq!(machine.stack(1)[0], machine.symbol("here"));
    // With IF clear it sleeps on.
    let mut machine = with_apic("hlt\n nop\n hlt");
    assert_eq!(machine.run(), RunExit::Idle);
    machine.cpu.accept(&interrupt(0x50));
    let rip = machine.cpu.rip;
    assert_eq!((machine.run(), machine.cpu.rip), (RunExit::Idle, rip));
}

#[test]
fn an_nmi_blocks_others_until_iret() {
    let mut machine = with_apic("nop\n here: nop\n hlt");
    machine.memory.write(HANDLERS + 0x20, &[0xff, 0xc3, 0x48, 0xcf]).unwrap(); // inc ebx; iretq
    let nmi = ApicMessage { mode: DeliveryMode::Nmi, ..interrupt(0) };
    machine.cpu.accept(&nmi);
    assert_eq!(machine.run_for(1), RunExit::Instructions);
    assert!(machine.cpu.nmi_blocked);
    machine.cpu.accept(&nmi);
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!((machine.cpu.gpr(Gpr::Rbx), machine.cpu.nmi_blocked), (2, false));
}

#[test]
fn the_shadow_of_sti_holds_back_an_nmi() {
    let mut machine = with_apic("sti\n inc ecx\n inc ecx\n cli\n hlt");
    machine.memory.write(HANDLERS + 0x20, &[0x89, 0xca, 0x48, 0xcf]).unwrap(); // mov edx, ecx; iretq
    assert_eq!(machine.run_for(1), RunExit::Instructions);
    machine.cpu.accept(&ApicMessage { mode: DeliveryMode::Nmi, ..interrupt(0) });
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!((machine.cpu.gpr(Gpr::Rdx), machine.cpu.gpr(Gpr::Rcx)), (1, 2));
}

#[test]
fn the_apic_timer_interrupts_at_its_cycle() {
    let source = "mov rax, 0xfee00000
        mov dword [rax + 0xf0], 0x10f
        mov dword [rax + 0x320], 0x60
        mov dword [rax + 0x3e0], 0xb
        mov dword [rax + 0x380], 100
        sti
        again: jmp again";
    let mut machine = Machine::long(source);
    // The device page lies above what is mapped.
    machine.memory.write_u64(0x2018, 0xc000_0087).unwrap();
    assert_eq!(machine.run_to_handler(), Some(0x60));
    assert!(machine.cpu.cycles() > 100 * 21 && machine.cpu.cycles() < 100 * 21 + 4000, "{}", machine.cpu.cycles());
}

#[test]
fn a_write_of_icr_sends_a_message() {
    let source = "mov rax, 0xfee00000\n mov dword [rax + 0x310], 0x01000000\n mov dword [rax + 0x300], 0x4500\n hlt";
    let mut machine = Machine::long(source);
    machine.memory.write_u64(0x2018, 0xc000_0087).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.bus.sent.len(), 1);
    assert_eq!((machine.bus.sent[0].message.destination, machine.bus.sent[0].message.mode), (1, DeliveryMode::Init));
}

#[test]
fn init_and_start_up_signals_restart_a_processor() {
    let mut machine = Machine::real("org 0\n hlt");
    let message = |mode, vector| ApicMessage { mode, ..interrupt(vector) };
    machine.cpu.apic.set_base(0xfee0_0800).unwrap();
    machine.cpu.accept(&message(DeliveryMode::Init, 0));
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!(machine.cpu.activity, cpu::state::Activity::WaitForSipi);
    machine.cpu.accept(&message(DeliveryMode::Startup, (CODE >> 12) as u8));
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.segment(Segment::Cs).base, machine.cpu.rip), (CODE, 1));
    assert_eq!(machine.cpu.segment(Segment::Cs).selector.into_bits(), (CODE >> 4) as u16);
}

#[test]
fn int1_takes_the_data_breakpoints_with_it_that_a_load_of_ss_held_back() {
    let mut machine = Machine::long("mov ss, [word_in_memory]\n int1\n nop\n word_in_memory: dw 0x10");
    machine.cpu.dr[0] = machine.symbol("word_in_memory");
    // Breakpoint 0 watches reads and writes of two bytes.
    machine.cpu.dr7 = isa::debug::Dr7::from_bits(0x7_0402);
    machine.cpu.context_changed();
    assert_eq!(machine.run_to_handler(), Some(1));
    assert_eq!((machine.cpu.dr6.into_bits() & 0xf, machine.cpu.pending_debug), (1, 0));
}

#[test]
fn an_instruction_that_faults_leaves_no_data_breakpoint_behind() {
    // The first read meets the breakpoint, the second faults: nothing completed, so there is no trap. The restarted instruction will meet it
    // again, and trap once.
    let mut machine = Machine::long("mov rdi, 0x800000000000\n mov esi, watched\n here: cmpsb\n watched: db 0");
    machine.cpu.dr[0] = machine.symbol("watched");
    machine.cpu.dr7 = isa::debug::Dr7::from_bits(0x3_0402);
    machine.cpu.context_changed();
    assert_eq!(machine.run_to_handler(), Some(13));
    assert_eq!((machine.stack(2)[1], machine.cpu.dr6.into_bits() & 0xf, machine.cpu.pending_debug), (machine.symbol("here"), 0, 0));
}

/// SDM vol 3, 18.3.1.1: what an instruction generates pushes RF clear, for the instruction has cleared it; faults push it set.
#[test]
fn software_interrupts_push_rf_clear_and_faults_push_it_set() {
    for (source, words, pushed) in [("int 0x81", 3, 0), ("int3", 3, 0), ("ud2", 3, 1)] {
        let mut machine = Machine::long(source);
        let flags = machine.cpu.rflags().with_rf(true);
        machine.cpu.set_rflags(flags);
        // Instructions are executed one by one here, with the duties around each.
        machine.cpu.shadow = Shadow::Sti;
        assert!(machine.run_to_handler().is_some(), "{source}");
        assert_eq!(machine.stack(words)[2] >> 16 & 1, pushed, "{source}");
    }
}
