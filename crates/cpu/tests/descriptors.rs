//! Gates and segment descriptors that change between two uses: the second use is of the new bytes, with all checks, as if there had been none.

mod common;

use common::{CODE, CODE_0, CODE_3, DATA_3, GDT, HANDLERS, IDT, Machine, PAGES, STACK, TSS};
use cpu::RunExit;
use isa::register::{Gpr, Segment};
use isa::segment::Selector;

/// A change of something that delivery or IRET depends on.
type Change = (&'static str, fn(&mut Machine));

fn gate(machine: &mut Machine, vector: u64, change: impl FnOnce(u64) -> u64) {
    let at = IDT + 16 * vector;
    let old = machine.memory.read_u64(at).unwrap();
    machine.memory.write_u64(at, change(old)).unwrap();
}

fn descriptor(machine: &mut Machine, selector: u16, change: impl FnOnce(u64) -> u64) {
    let at = GDT + u64::from(selector & !7);
    let old = machine.memory.read_u64(at).unwrap();
    machine.memory.write_u64(at, change(old)).unwrap();
}

/// Attribute bits of a descriptor or gate at their places.
const ACCESSED: u64 = 1 << 40;
const CONFORMING: u64 = 1 << 42;
const CODE_SEGMENT: u64 = 1 << 43;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const WIDE: u64 = 1 << 54;
const DPL: u64 = 3 << 45;

/// What must agree: registers, segments, flags, stack and tables.
fn outcome(machine: &mut Machine) -> impl PartialEq + std::fmt::Debug + use<> {
    let exit = machine.run_for(1000);
    let cpu = &machine.cpu;
    let mut tables = vec![0; 0x40];
    machine.memory.read(GDT, &mut tables).unwrap();
    let top = cpu.gpr(Gpr::Rsp);
    let stack: Vec<u64> = (0..7).map(|word| machine.memory.read_u64(top + 8 * word).unwrap_or(0)).collect();
    (exit, cpu.regs[..16].to_vec(), (cpu.rip, cpu.cpl, cpu.rflags().into_bits()), cpu.segments, tables, stack)
}

/// Runs a program up to its second event, changes something, and goes on; the same for a machine that never had the first event.
fn compare(source: &str, user: bool, changes: &[Change]) {
    for (name, change) in changes {
        let machine = || {
            let machine = Machine::long(source);
            let mut machine = if user { machine.into_user() } else { machine };
            // The handler of both gates returns; those of faults halt.
            for vector in [3, 0x80] {
                machine.memory.write(HANDLERS + 16 * vector, &[0x48, 0xcf]).unwrap();
            }
            machine
        };
        let mut warm = machine();
        while warm.cpu.rip != warm.symbol("second") {
            assert!(warm.cpu.instructions() < 100, "{name}");
            warm.run_for(1);
        }
        let mut cold = machine();
        cold.cpu.rip = cold.symbol("second");
        (cold.cpu.regs, cold.cpu.segments) = (warm.cpu.regs, warm.cpu.segments);
        for machine in [&mut warm, &mut cold] {
            change(machine);
        }
        assert_eq!(outcome(&mut warm), outcome(&mut cold), "{name}");
    }
}

const AT_DELIVERY: &[Change] = &[
    ("nothing", |_| {}),
    ("gate not present", |machine| gate(machine, 3, |old| old & !PRESENT)),
    ("gate of another type", |machine| gate(machine, 3, |old| old & !(15 << 40) | 12 << 40)),
    ("trap gate", |machine| gate(machine, 3, |old| old | 1 << 40)),
    ("gate with a stack of its own", |machine| gate(machine, 3, |old| old | 1 << 32)),
    ("gate of level 0", |machine| gate(machine, 3, |old| old & !DPL)),
    ("gate to the null selector", |machine| gate(machine, 3, |old| old & !(0xffff << 16))),
    ("gate to data", |machine| gate(machine, 3, |old| old ^ (8 ^ 0x10) << 16)),
    ("gate to user code", |machine| gate(machine, 3, |old| old ^ (8 ^ 0x28) << 16)),
    ("gate to another place", |machine| gate(machine, 3, |old| old + 0x20)),
    ("gate to no canonical address", |machine| machine.memory.write_u64(IDT + 16 * 3 + 8, 0x1234).unwrap()),
    ("code not accessed", |machine| descriptor(machine, CODE_0, |old| old & !ACCESSED)),
    ("code not present", |machine| descriptor(machine, CODE_0, |old| old & !PRESENT)),
    ("code of an outer level", |machine| descriptor(machine, CODE_0, |old| old | DPL)),
    ("conforming code", |machine| descriptor(machine, CODE_0, |old| old | CONFORMING)),
    ("data", |machine| descriptor(machine, CODE_0, |old| old & !CODE_SEGMENT)),
    ("code not of 64 bits", |machine| descriptor(machine, CODE_0, |old| old & !LONG)),
    ("code of 64 and 32 bits", |machine| descriptor(machine, CODE_0, |old| old | WIDE)),
    ("another limit and the available bit", |machine| descriptor(machine, CODE_0, |old| old ^ 0x0010_0000_0000_00ff)),
    ("the table ends before the code", |machine| machine.cpu.gdtr.limit = 0xe),
    ("another table", |machine| {
        let mut bytes = [0; 0x40];
        machine.memory.read(GDT, &mut bytes).unwrap();
        machine.memory.write(GDT + 0x800, &bytes).unwrap();
        machine.cpu.gdtr.base = GDT + 0x800;
        descriptor(machine, CODE_0, |old| old & !PRESENT);
    }),
    ("the same table, not present where it was", |machine| {
        machine.cpu.gdtr.base = GDT + 0x800;
    }),
    ("the gates end before it", |machine| machine.cpu.idtr.limit = 0x3e),
    ("other gates", |machine| machine.cpu.idtr.base = IDT + 0x10),
    ("gates on another page", |machine| {
        let mut bytes = vec![0; 0x1000];
        machine.memory.read(IDT, &mut bytes).unwrap();
        machine.memory.write(0x20_0000, &bytes).unwrap();
        gate(machine, 3, |old| old & !PRESENT);
        machine.memory.write_u64(PAGES + 8 * (IDT >> 12), 0x20_0007).unwrap();
        machine.cpu.flush_tlb();
    }),
    ("no stack", |machine| {
        machine.memory.write_u64(TSS + 4, 0x7000_0000).unwrap();
        machine.cpu.set_gpr(Gpr::Rsp, 0x7000_0000);
    }),
    ("a stack over two pages", |machine| {
        machine.memory.write_u64(TSS + 4, 0xb010).unwrap();
        machine.cpu.set_gpr(Gpr::Rsp, 0xb010);
    }),
    ("a stack over two pages of which one is missing", |machine| {
        machine.memory.write_u64(TSS + 4, 0xb010).unwrap();
        machine.cpu.set_gpr(Gpr::Rsp, 0xb010);
        machine.memory.write_u64(PAGES + 8 * 0xa, 0).unwrap();
        machine.cpu.flush_tlb();
    }),
];

#[test]
fn a_gate_or_its_segment_changes_between_two_exceptions() {
    for user in [false, true] {
        compare("int3\n second: int3\n hlt", user, AT_DELIVERY);
    }
}

#[test]
fn a_gate_that_passed_for_one_kind_of_event_is_checked_for_another() {
    // #UD at level 3 may use a gate of level 0, INT 6 may not; at level 0 both may.
    let handler = [0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf]; // add qword [rsp], 2; iretq
    let machine = || {
        let mut machine = Machine::long("ud2\n here: int 6\n hlt");
        machine.memory.write(HANDLERS + 16 * 6, &handler).unwrap();
        machine
    };
    let mut user = machine().into_user();
    assert_eq!(user.run_to_handler(), Some(13));
    assert_eq!(user.stack(2), [6 * 8 + 2, user.symbol("here")]);
    // The handler skips two bytes more than INT has: it ends behind the HLT.
    let mut supervisor = machine();
    supervisor.memory.write(CODE + 4, &[0x90, 0x90, 0xf4]).unwrap();
    assert_eq!(supervisor.run_to_handler(), None);
    assert_eq!(supervisor.cpu.rip, CODE + 7);
}

const AT_RETURN: &[Change] = &[
    ("nothing", |_| {}),
    ("code not accessed", |machine| descriptor(machine, CODE_3, |old| old & !ACCESSED)),
    ("code not present", |machine| descriptor(machine, CODE_3, |old| old & !PRESENT)),
    ("code of level 0", |machine| descriptor(machine, CODE_3, |old| old & !DPL)),
    ("conforming code", |machine| descriptor(machine, CODE_3, |old| old | CONFORMING)),
    ("data in place of code", |machine| descriptor(machine, CODE_3, |old| old & !CODE_SEGMENT)),
    ("code not of 64 bits", |machine| descriptor(machine, CODE_3, |old| old & !LONG | WIDE)),
    ("code of 64 and 32 bits", |machine| descriptor(machine, CODE_3, |old| old | WIDE)),
    ("stack not accessed", |machine| descriptor(machine, DATA_3, |old| old & !ACCESSED)),
    ("stack not present", |machine| descriptor(machine, DATA_3, |old| old & !PRESENT)),
    ("stack not writable", |machine| descriptor(machine, DATA_3, |old| old & !(1 << 41))),
    ("stack of level 0", |machine| descriptor(machine, DATA_3, |old| old & !DPL)),
    ("stack with another limit", |machine| descriptor(machine, DATA_3, |old| old ^ 0xff)),
    ("code in place of the stack", |machine| descriptor(machine, DATA_3, |old| old | CODE_SEGMENT)),
    ("the table ends before the code", |machine| machine.cpu.gdtr.limit = 0x2e),
    ("the table ends before the stack", |machine| machine.cpu.gdtr.limit = 0x26),
    ("null code", |machine| frame(machine, 1, 3)),
    ("code with another level", |machine| frame(machine, 1, u64::from(CODE_3) & !3)),
    ("a return inwards", |machine| frame(machine, 1, u64::from(CODE_0))),
    ("a null stack for level 3", |machine| frame(machine, 4, 3)),
    ("a stack with another level", |machine| frame(machine, 4, u64::from(DATA_3) & !3)),
    ("no canonical address", |machine| frame(machine, 0, 1 << 47)),
    ("other flags", |machine| frame(machine, 2, 0x0004_0ad7)),
    ("another stack pointer", |machine| frame(machine, 3, STACK - 0x80)),
    ("data segments of level 0", |machine| {
        for segment in [Segment::Ds, Segment::Es, Segment::Gs] {
            let register = &mut machine.cpu.segments[segment.number()];
            register.selector = Selector::from_bits(0x10);
            register.attributes.set_dpl(0);
        }
    }),
];

/// Changes a word of the frame that IRET is about to pop.
fn frame(machine: &mut Machine, word: u64, value: u64) {
    let top = machine.cpu.gpr(Gpr::Rsp);
    machine.memory.write_u64(top + 8 * word, value).unwrap();
}

#[test]
fn a_segment_changes_between_two_returns() {
    for (name, change) in AT_RETURN {
        let machine = |source: &str| {
            let mut machine = Machine::long(source).into_user();
            machine.memory.write(HANDLERS + 16 * 0x80, &[0x48, 0xcf]).unwrap();
            machine
        };
        // The second return, and the same one as the first.
        let mut warm = machine("int 0x80\n int 0x80\n hlt");
        warm.run_for(3);
        let mut cold = machine("nop\n nop\n int 0x80\n hlt");
        cold.cpu.rip = CODE + 2;
        cold.run_for(1);
        for machine in [&mut warm, &mut cold] {
            assert_eq!(machine.cpu.rip, HANDLERS + 16 * 0x80, "{name}");
            change(machine);
        }
        // What halts in the end must not depend on where the programs' own HLT lies: both are four bytes behind the start.
        assert_eq!(outcome(&mut warm), outcome(&mut cold), "{name}");
    }
}

#[test]
fn returns_within_level_0_take_the_descriptors_as_they_are() {
    let changes: &[Change] = &[
        ("nothing", |_| {}),
        ("code not accessed", |machine| descriptor(machine, CODE_0, |old| old & !ACCESSED)),
        ("code not present", |machine| descriptor(machine, CODE_0, |old| old & !PRESENT)),
        ("a null stack", |machine| frame(machine, 4, 0)),
        ("stack not accessed", |machine| descriptor(machine, common::DATA_0, |old| old & !ACCESSED)),
        ("stack not writable", |machine| descriptor(machine, common::DATA_0, |old| old & !(1 << 41))),
        ("a return outwards", |machine| {
            frame(machine, 1, u64::from(CODE_3));
            frame(machine, 4, u64::from(DATA_3));
        }),
    ];
    for (name, change) in changes {
        let machine = || {
            let mut machine = Machine::long("int3\n int3\n hlt");
            machine.memory.write(HANDLERS + 16 * 3, &[0x48, 0xcf]).unwrap();
            machine
        };
        let mut warm = machine();
        warm.run_for(3);
        let mut cold = machine();
        cold.cpu.rip = CODE + 1;
        cold.run_for(1);
        for machine in [&mut warm, &mut cold] {
            change(machine);
        }
        assert_eq!(outcome(&mut warm), outcome(&mut cold), "{name}");
    }
}

#[test]
fn the_accessed_flag_is_set_each_time_it_was_cleared() {
    let mut machine = Machine::long("again: int 0x80\n jmp again").into_user();
    machine.memory.write(HANDLERS + 16 * 0x80, &[0x48, 0xcf]).unwrap();
    let tables = [CODE_0, CODE_3, DATA_3];
    for round in 0..4 {
        for selector in tables {
            descriptor(&mut machine, selector, |old| old & !ACCESSED);
        }
        machine.run_for(3);
        for selector in tables {
            descriptor(&mut machine, selector, |old| {
                assert_ne!(old & ACCESSED, 0, "{selector:#x} in round {round}");
                old
            });
        }
    }
}

#[test]
fn a_return_to_the_same_level_leaves_the_data_segments_alone() {
    // SDM vol 2, IRET: only a return to an outer level makes data segments null. A user program may have one of level 0 after SYSRET.
    let mut machine =
        Machine::long("mov rax, rsp\n push 0x23\n push rax\n pushfq\n push 0x2b\n lea rbx, [rel there]\n push rbx\n iretq\n there: hlt")
            .into_user();
    machine.cpu.segments[Segment::Ds.number()].attributes.set_dpl(0);
    let before = machine.cpu.segments;
    assert_eq!(machine.run_to_handler(), Some(13));
    assert_eq!(machine.stack(2)[1], machine.symbol("there"));
    assert_eq!(machine.cpu.segments[Segment::Ds.number()], before[Segment::Ds.number()]);
}

#[test]
fn smap_keeps_the_processor_from_tables_on_user_pages_whatever_was_read_before() {
    // SDM vol 3, 4.6.1 "Determination of Access Rights": implicit supervisor-mode accesses to user pages are refused even with RFLAGS.AC set.
    let source = format!("stac\n mov rax, [{IDT:#x}]\n mov rax, [{GDT:#x}]\n mov rax, [{HANDLERS:#x}]\n int3");
    for (user_tables, expected) in [(false, RunExit::Idle), (true, RunExit::Shutdown)] {
        let mut machine = Machine::long(&source);
        for page in [GDT, IDT] {
            machine.memory.write_u64(PAGES + 8 * (page >> 12), page | if user_tables { 7 } else { 3 }).unwrap();
        }
        machine.cpu.cr4.set_smap(true);
        machine.cpu.context_changed();
        assert_eq!(machine.run(), expected, "{user_tables}");
    }
}

#[test]
fn another_processor_changes_the_tables_by_ordinary_stores() {
    let source = format!(
        "again: int3
         inc ebx
         jmp again
         other: btr qword [{gate:#x}], 47
         hlt
         other_code: btr qword [{code:#x}], 40
         hlt",
        gate = IDT + 16 * 3,
        code = GDT + u64::from(CODE_0)
    );
    let mut machine = Machine::long(&source);
    machine.memory.write(HANDLERS + 16 * 3, &[0x48, 0xcf]).unwrap();
    machine.run_for(40);
    let mut second = Machine::long(&source).cpu;
    second.rip = machine.symbol("other_code");
    std::mem::swap(&mut machine.cpu, &mut second);
    assert_eq!(machine.run_to_handler(), None);
    std::mem::swap(&mut machine.cpu, &mut second);
    let code = GDT + u64::from(CODE_0);
    assert_eq!(machine.memory.read_u64(code).unwrap() & ACCESSED, 0);
    machine.run_for(4);
    assert_ne!(machine.memory.read_u64(code).unwrap() & ACCESSED, 0, "delivery sets the accessed flag again");
    second.rip = machine.symbol("other");
    second.activity = cpu::state::Activity::Active;
    std::mem::swap(&mut machine.cpu, &mut second);
    assert_eq!(machine.run_to_handler(), None);
    std::mem::swap(&mut machine.cpu, &mut second);
    assert_eq!(machine.run_to_handler(), Some(11), "the gate is no longer present");
    assert_eq!(machine.stack(1)[0], 3 * 8 + 2);
}
