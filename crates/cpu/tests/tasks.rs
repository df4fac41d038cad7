//! Hardware task switches: what they save and load, in which order they check, and to which task a fault belongs.

mod common;

use common::{CODE_0, DATA_0, DATA_3, GDT, IDT, Machine, STACK, TASK, TSS};
use cpu::RunExit;
use isa::control::{Cr0, Cr4};
use isa::debug::Dr7;
use isa::register::{Gpr, Segment};

/// The task to be switched to, and the one behind the task gates of #DB and of the exceptions that a switch can raise.
const NEXT: u16 = 0x38;
const FAULTS: u16 = 0x40;
/// A free descriptor.
const FREE: u16 = 0x48;
const NEXT_TSS: u64 = 0x7200;
const FAULTS_TSS: u64 = 0x7400;
const NEXT_STACK: u64 = 0xd000;
const FAULTS_STACK: u64 = 0xe000;

const BUSY: u64 = 1 << 41;
const NT: u32 = 1 << 14;

/// Offsets in a TSS.
const CR3: u64 = 0x1c;
const EIP: u64 = 0x20;
const EFLAGS: u64 = 0x24;
const EAX: u64 = 0x28;
const ESP: u64 = 0x38;
const ES: u64 = 0x48;
const CS: u64 = 0x4c;
const SS: u64 = 0x50;
const DS: u64 = 0x54;
const FS: u64 = 0x58;
const GS: u64 = 0x5c;
const LDT: u64 = 0x60;
const TRAP: u64 = 0x64;

/// A machine with two more tasks: `next` begins at the label of that name, the other is a HLT, behind task gates for #DB, #DF, #TS, #NP, #SS
/// and #GP.
fn machine(source: &str) -> Machine {
    let mut machine = Machine::protected(&format!("{source}\n faults: hlt"));
    let entries = [(NEXT_TSS, "next", NEXT_STACK), (FAULTS_TSS, "faults", FAULTS_STACK)];
    for (index, (base, label, stack)) in entries.into_iter().enumerate() {
        let eip = machine.symbol(label) as u32;
        let words = [
            (EIP, eip),
            (EFLAGS, 2),
            (ESP, stack as u32),
            (ES, DATA_0.into()),
            (CS, CODE_0.into()),
            (SS, DATA_0.into()),
            (DS, DATA_0.into()),
            (FS, 0),
            (GS, 0),
            (LDT, 0),
        ];
        for (offset, word) in words {
            machine.memory.write_u32(base + offset, word).unwrap();
        }
        let place = GDT + u64::from(NEXT) + 8 * index as u64;
        machine.memory.write_u64(place, 0x0000_8900_0000_0067 | base << 16).unwrap();
    }
    for vector in [1, 8, 10, 11, 12, 13] {
        machine.memory.write_u64(IDT + 8 * vector, 0x0000_8500_0000_0000 | u64::from(FAULTS) << 16).unwrap();
    }
    machine.memory.write_u64(GDT + u64::from(TASK), 0x0000_8b00_0000_0067 | TSS << 16).unwrap();
    machine
}

fn descriptor(machine: &Machine, selector: u16) -> u64 {
    machine.memory.read_u64(GDT + u64::from(selector)).unwrap()
}

fn word(machine: &Machine, at: u64) -> u32 {
    machine.memory.read_u32(at).unwrap()
}

fn is_busy(machine: &Machine, selector: u16) -> bool {
    descriptor(machine, selector) & BUSY != 0
}

#[test]
fn jmp_leaves_a_task_for_good() {
    let mut machine = machine(
        "mov eax, 0x11111111
         mov esi, 0x66666666
         stc
         jmp 0x38:0x12345
         back:
         next: hlt",
    );
    machine.memory.write_u32(NEXT_TSS + EAX, 0x2222_2222).unwrap();
    machine.memory.write_u32(NEXT_TSS + EFLAGS, 0x46).unwrap();
    machine.memory.write_u32(NEXT_TSS + GS, DATA_3.into()).unwrap();
    machine.cpu.dr7 = Dr7::from_bits(0x7ff);
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!(machine.cpu.rip, machine.symbol("next") + 1);
    let cpu = &machine.cpu;
    assert_eq!((cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rsi), cpu.gpr(Gpr::Rsp)), (0x2222_2222, 0, NEXT_STACK));
    assert_eq!((cpu.rflags().into_bits(), cpu.cr0.ts(), cpu.dr7.into_bits()), (0x46, true, 0x6aa));
    assert_eq!(cpu.segment(Segment::Gs).selector.into_bits(), DATA_3);
    assert_eq!((cpu.tr.selector.into_bits(), cpu.tr.base, cpu.tr.limit, cpu.tr.attributes.kind()), (NEXT, NEXT_TSS, 0x67, 11));
    assert_eq!((is_busy(&machine, TASK), is_busy(&machine, NEXT)), (false, true));
    let saved = [EIP, EFLAGS, EAX, EAX + 24, ESP, CS, SS, DS].map(|offset| u64::from(word(&machine, TSS + offset)));
    let (code, data) = (CODE_0.into(), DATA_0.into());
    assert_eq!(saved, [machine.symbol("back"), 3, 0x1111_1111, 0x6666_6666, STACK, code, data, data]);
    assert_eq!(word(&machine, NEXT_TSS), 0, "no link");
}

#[test]
fn call_nests_a_task_and_iret_goes_back() {
    let mut machine = machine(
        "mov ebx, 1
         call 0x38:0
         inc ebx
         hlt
         next: pushfd
         pop edx
         mov eax, 0x77
         iretd
         again: hlt",
    );
    assert_eq!(machine.run_for(5), RunExit::Instructions);
    assert_eq!((machine.cpu.tr.selector.into_bits(), machine.cpu.gpr(Gpr::Rdx) as u32), (NEXT, NT | 2));
    assert_eq!((is_busy(&machine, TASK), is_busy(&machine, NEXT), word(&machine, NEXT_TSS)), (true, true, TASK.into()));
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.tr.selector.into_bits(), machine.cpu.gpr(Gpr::Rbx), machine.cpu.gpr(Gpr::Rax)), (TASK, 2, 0));
    assert_eq!((is_busy(&machine, TASK), is_busy(&machine, NEXT)), (true, false));
    assert_eq!(u64::from(word(&machine, NEXT_TSS + EIP)), machine.symbol("again"), "the next CALL goes on behind IRET");
    assert_eq!(word(&machine, NEXT_TSS + EFLAGS), 2, "NT is clear in the task that IRET left");
    assert_eq!(machine.cpu.rflags().into_bits(), 2);
}

#[test]
fn a_task_gate_in_the_idt_saves_where_the_event_struck() {
    // Program; EIP and EFLAGS saved (RF for faults); error code on the new stack.
    let rows = [("here: mov eax, 0xfff8\n mov ds, ax", "here", 5, 0x1_0002, Some(0xfff8)), ("int 9\n here:", "here", 0, 2, None)];
    for (source, label, distance, flags, code) in rows {
        let mut machine = machine(&format!("{source}\n hlt\n next: hlt"));
        machine.memory.write_u64(IDT + 8 * 9, 0x0000_8500_0000_0000 | u64::from(FAULTS) << 16).unwrap();
        assert_eq!(machine.run(), RunExit::Idle, "{source}");
        assert_eq!(machine.cpu.tr.selector.into_bits(), FAULTS, "{source}");
        assert_eq!(u64::from(word(&machine, TSS + EIP)), machine.symbol(label) + distance, "{source}");
        assert_eq!(word(&machine, TSS + EFLAGS), flags, "{source}");
        assert_eq!(word(&machine, FAULTS_TSS), TASK.into(), "{source}");
        let pushed = (machine.cpu.gpr(Gpr::Rsp) < FAULTS_STACK).then(|| word(&machine, FAULTS_STACK - 4));
        assert_eq!(pushed, code, "{source}");
    }
}

#[test]
fn the_trap_flag_of_a_tss_is_a_debug_exception_before_the_first_instruction() {
    let mut machine = machine("jmp 0x38:0\n next: inc eax\n hlt");
    machine.memory.write_u32(NEXT_TSS + TRAP, 1).unwrap();
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.tr.selector.into_bits(), machine.cpu.dr6.bt()), (FAULTS, true));
    assert_eq!((u64::from(word(&machine, NEXT_TSS + EIP)), word(&machine, NEXT_TSS + EAX)), (machine.symbol("next"), 0));
}

#[test]
fn a_tss_of_16_bits() {
    let mut machine = machine("mov eax, 0x12345678\n jmp 0x38:0\n back:\n next: hlt");
    // IP, FLAGS, AX to DI, ES, CS, SS, DS, LDT at 0x0e.
    let ip = machine.symbol("next") as u16;
    // Its code lies at 64 KiB and more: a descriptor with that base.
    let code = 0x0000_9b01_0000_ffffu64;
    machine.memory.write_u64(GDT + u64::from(FREE), code).unwrap();
    let words = [ip, 0x46, 0xaaaa, 1, 2, 3, 0xd000, 5, 6, 7, DATA_0, FREE, DATA_0, DATA_0, 0];
    for (index, word) in words.into_iter().enumerate() {
        machine.memory.write(NEXT_TSS + 0x0e + 2 * index as u64, &word.to_le_bytes()).unwrap();
    }
    machine.memory.write_u64(GDT + u64::from(NEXT), 0x0000_8100_0000_002b | NEXT_TSS << 16).unwrap();
    assert_eq!(machine.run(), RunExit::Idle);
    let cpu = &machine.cpu;
    assert_eq!((cpu.gpr(Gpr::Rax), cpu.gpr(Gpr::Rdi), cpu.gpr(Gpr::Rsp), cpu.rflags().into_bits()), (0xaaaa, 7, 0xd000, 0x46));
    assert_eq!((cpu.tr.attributes.kind(), cpu.code_bits(), cpu.rip), (3, 16, u64::from(ip) + 1));
    assert!(!cpu.segment(Segment::Fs).is_usable() && !cpu.segment(Segment::Gs).is_usable());
    assert_eq!(u64::from(word(&machine, TSS + EIP)), machine.symbol("back"));
}

#[test]
fn a_task_of_virtual_8086_mode() {
    let mut machine = machine("jmp 0x38:0\n next: hlt");
    for (offset, word) in [(EFLAGS, 0x2_0002), (CS, 0x1800), (EIP, 5), (SS, 0x200), (ES, 0x300), (DS, 3), (ESP, 0x800)] {
        machine.memory.write_u32(NEXT_TSS + offset, word).unwrap();
    }
    machine.memory.write(0x1_8000 + 5, &[0x90]).unwrap();
    assert_eq!(machine.run_for(1), RunExit::Instructions);
    let cpu = &machine.cpu;
    assert_eq!((cpu.is_v86(), cpu.cpl, cpu.rip, cpu.segment(Segment::Cs).base), (true, 3, 5, 0x1_8000));
    assert_eq!(cpu.segment(Segment::Ds).base, 0x30);
}

#[test]
fn a_task_has_its_own_address_space() {
    let mut machine = machine("mov eax, [0x400000]\n jmp 0x38:0\n next: mov ebx, [0x400000]\n hlt");
    // Two directories of 4-MiB pages that differ in the second entry.
    for (directory, second) in [(0x2000, 0x40_0087), (0x3000, 0x80_0087)] {
        machine.memory.write_u32(directory, 0x87).unwrap();
        machine.memory.write_u32(directory + 4, second).unwrap();
    }
    machine.memory.write_u32(0x40_0000, 0x1111).unwrap();
    machine.memory.write_u32(0x80_0000, 0x2222).unwrap();
    machine.memory.write_u32(NEXT_TSS + CR3, 0x3000).unwrap();
    machine.cpu.cr3 = 0x2000;
    machine.cpu.cr4 = Cr4::new().with_pse(true);
    machine.cpu.cr0 = Cr0::from_bits(0x8000_0011);
    machine.cpu.context_changed();
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((word(&machine, TSS + EAX), machine.cpu.gpr(Gpr::Rbx), machine.cpu.cr3), (0x1111, 0x2222, 0x3000));
}

/// Changes one thing of a machine.
type Change = fn(&mut Machine);

fn set_next(machine: &mut Machine, descriptor: u64) {
    machine.memory.write_u64(GDT + u64::from(NEXT), descriptor | NEXT_TSS << 16).unwrap();
}

/// Puts a selector into the new TSS, and its descriptor at the free place of the GDT.
fn load(machine: &mut Machine, offset: u64, selector: u16, descriptor: u64) {
    machine.memory.write_u64(GDT + u64::from(FREE), descriptor).unwrap();
    machine.memory.write_u32(NEXT_TSS + offset, selector.into()).unwrap();
}

#[test]
fn each_check_raises_its_fault_in_the_task_it_belongs_to() {
    const OLD: u16 = TASK;
    const NEW: u16 = NEXT;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const CODE: u64 = 0x00cf_9b00_0000_ffff;
    // What; the change; vector, error code, the task that takes it.
    let rows: [(&str, Change, u64, u32, u16); 26] = [
        ("TSS absent", |m| set_next(m, 0x0000_0900_0000_0067), 11, 0x38, OLD),
        ("TSS busy", |m| set_next(m, 0x0000_8b00_0000_0067), 13, 0x38, OLD),
        ("TSS an LDT", |m| set_next(m, 0x0000_8200_0000_0067), 13, 0x38, OLD),
        ("TSS a data segment", |m| set_next(m, DATA & !0xffff_ffff), 13, 0x38, OLD),
        ("TSS too short", |m| set_next(m, 0x0000_8900_0000_0066), 10, 0x38, OLD),
        ("TSS of 16 bits too short", |m| set_next(m, 0x0000_8100_0000_002a), 10, 0x38, OLD),
        ("LDT outside", |m| load(m, LDT, 0xfff8, 0), 10, 0xfff8, NEW),
        ("LDT in the LDT", |m| load(m, LDT, FREE | 4, 0x0000_8200_0000_ffff), 10, 0x4c, NEW),
        ("LDT no LDT", |m| load(m, LDT, FREE, DATA), 10, 0x48, NEW),
        ("LDT absent", |m| load(m, LDT, FREE, 0x0000_0200_0000_ffff), 10, 0x48, NEW),
        ("CS null", |m| load(m, CS, 0, 0), 10, 0, NEW),
        ("CS in an LDT that there is not", |m| load(m, CS, FREE | 4, CODE), 10, 0x4c, NEW),
        ("CS data", |m| load(m, CS, DATA_0, 0), 10, DATA_0 as u32, NEW),
        ("CS of another level", |m| load(m, CS, FREE | 3, CODE), 10, 0x48, NEW),
        ("CS conforming above", |m| load(m, CS, FREE, 0x00cf_ff00_0000_ffff), 10, 0x48, NEW),
        ("CS absent", |m| load(m, CS, FREE, CODE & !(1 << 47)), 11, 0x48, NEW),
        ("SS null", |m| load(m, SS, 0, 0), 10, 0, NEW),
        ("SS code", |m| load(m, SS, CODE_0, 0), 10, CODE_0 as u32, NEW),
        ("SS read-only", |m| load(m, SS, FREE, DATA & !(1 << 41)), 10, 0x48, NEW),
        ("SS of another level", |m| load(m, SS, DATA_3, 0), 10, 0x20, NEW),
        ("SS absent", |m| load(m, SS, FREE, DATA & !(1 << 47)), 12, 0x48, NEW),
        ("DS outside", |m| load(m, DS, 0x1230, 0), 10, 0x1230, NEW),
        ("ES a TSS", |m| load(m, ES, FAULTS, 0), 10, FAULTS as u32, NEW),
        ("FS above", |m| load(m, FS, DATA_0 | 3, 0), 10, DATA_0 as u32, NEW),
        ("GS absent", |m| load(m, GS, FREE, DATA & !(1 << 47)), 11, 0x48, NEW),
        ("EIP beyond the limit", |m| load(m, CS, FREE, 0x0040_9b00_0000_ffff), 13, 0, NEW),
    ];
    for (what, change, vector, code, task) in rows {
        for jumps in [true, false] {
            let instruction = if jumps { "jmp" } else { "call" };
            let mut machine = machine(&format!("here: {instruction} 0x38:0\n next: hlt"));
            change(&mut machine);
            // Only this vector has the gate; another is a triple fault.
            for other in [1, 8, 10, 11, 12, 13].into_iter().filter(|other| *other != vector) {
                machine.memory.write_u64(IDT + 8 * other, 0).unwrap();
            }
            machine.cpu.gdtr.limit = 0x4f;
            assert_eq!(machine.run(), RunExit::Idle, "{what}, {instruction}");
            assert_eq!((machine.cpu.tr.selector.into_bits(), word(&machine, FAULTS_STACK - 4)), (FAULTS, code), "{what}");
            assert_eq!(word(&machine, FAULTS_TSS), task.into(), "{what}, {instruction}");
            let (tss, label) = if task == OLD { (TSS, "here") } else { (NEXT_TSS, "next") };
            assert_eq!(u64::from(word(&machine, tss + EIP)), machine.symbol(label), "{what}, {instruction}");
            assert_eq!(is_busy(&machine, TASK), task == OLD || !jumps, "{what}, {instruction}");
        }
    }
}

#[test]
fn a_tss_that_cannot_take_the_state_is_not_left() {
    let mut machine = machine("jmp 0x38:0\n next: hlt");
    machine.cpu.tr.limit = 0x5e;
    machine.memory.write_u64(IDT + 8 * 10, 0x0000_8e00_0008_0000 | (common::HANDLERS + 16 * 10)).unwrap();
    assert_eq!(machine.run_to_handler(), Some(10));
    assert_eq!((machine.stack32(2), machine.cpu.tr.selector.into_bits()), (vec![TASK.into(), common::CODE], TASK));
}

#[test]
fn the_selector_of_a_far_transfer_and_the_link_of_iret_are_checked_first() {
    let rows = [
        ("jmp 0x3b:0", 13, 0x38),
        ("jmp 0x58:0", 13, 0x58),
        ("call 0x48:0", 13, 0x60),
        ("call 0x4b:0", 13, 0x48),
        ("pushfd\n or dword [esp], 0x4000\n popfd\n iretd", 10, 0x38),
    ];
    for (source, vector, code) in rows {
        let mut machine = machine(&format!("{source}\n next: hlt"));
        // A task gate whose TSS is outside the GDT; the link leads to a task that is not busy.
        machine.memory.write_u64(GDT + u64::from(FREE), 0x0000_8500_0060_0000).unwrap();
        machine.memory.write_u32(TSS, NEXT.into()).unwrap();
        for other in [1, 8, 10, 11, 12, 13].into_iter().filter(|other| *other != vector) {
            machine.memory.write_u64(IDT + 8 * other, 0).unwrap();
        }
        assert_eq!(machine.run(), RunExit::Idle, "{source}");
        assert_eq!((word(&machine, FAULTS_STACK - 4), word(&machine, FAULTS_TSS)), (code, TASK.into()), "{source}");
    }
}

#[test]
fn a_fault_of_the_new_task_while_an_exception_is_delivered_makes_a_double_fault() {
    // #GP goes to a task without a stack segment; #DF has the task of faults. An interrupt in its place is #TS with EXT.
    let mut machine = machine("mov eax, 0xfff8\n mov ds, ax\n next: hlt");
    machine.memory.write_u64(IDT + 8 * 13, 0x0000_8500_0000_0000 | u64::from(NEXT) << 16).unwrap();
    machine.memory.write_u32(NEXT_TSS + SS, 0).unwrap();
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.tr.selector.into_bits(), word(&machine, FAULTS_TSS)), (FAULTS, NEXT.into()));
    assert_eq!(word(&machine, FAULTS_STACK - 4), 0, "the error code of #DF");
    assert_eq!(word(&machine, NEXT_TSS + EIP), machine.symbol("next") as u32);
}

#[test]
fn there_are_no_task_switches_in_long_mode() {
    for (source, code) in [("db 0xff, 0x2d, 0, 0, 0, 0\n dd 0\n dw 0x30", 0x30), ("pushfq\n or dword [rsp], 0x4000\n popfq\n iretq", 0)] {
        let mut machine = Machine::long(source);
        assert_eq!(machine.run_to_handler(), Some(13), "{source}");
        assert_eq!(machine.stack(1), [code], "{source}");
    }
}
