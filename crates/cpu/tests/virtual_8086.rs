//! Virtual-8086 mode: its entry and its exits, the instructions that IOPL and CR4.VME rule, what does not exist there.

mod common;

use common::{CODE, CODE_0, DATA_0, GDT, HANDLERS, IDT, INNER_STACK, Machine, TSS};
use cpu::RunExit;
use isa::control::Cr4;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;

/// Selector of CS, DS, ES, FS and GS of the program in virtual-8086 mode.
const SEGMENTS: [u16; 5] = [(CODE >> 4) as u16, 0x200, 0x300, 0x400, 0x500];
/// Its stack.
const STACK: u64 = 0x4000;
const VM: u64 = 1 << 17;
const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;
const IF: u64 = 1 << 9;

/// A program in virtual-8086 mode, entered by IRET with these flags, which ends by UD2.
fn v86(flags: u64, source: &str) -> Machine {
    let [cs, ds, es, fs, gs] = SEGMENTS;
    let mut machine = Machine::protected(&format!(
        "org {CODE:#x}
         push {gs}
         push {fs}
         push {ds}
         push {es}
         push 0
         push {STACK:#x}
         push {:#x}
         push {cs}
         push begin - {CODE:#x}
         iretd
         bits 16
         begin: {source}
         ud2",
        flags | VM | 2
    ));
    // A bitmap of ports that allows those below 0x100, behind a redirection bitmap that sends all interrupts but 0x21 to the monitor.
    machine.memory.write(TSS + 0x66, &0x88u16.to_le_bytes()).unwrap();
    machine.memory.write(TSS + 0x68, &[0xff; 32]).unwrap();
    machine.memory.write(TSS + 0x68 + 4, &[!2]).unwrap();
    machine.memory.write(TSS + 0x88, &[0; 32]).unwrap();
    machine.memory.write(TSS + 0x88 + 32, &[0xff; 8]).unwrap();
    machine.cpu.tr.limit = 0x88 + 36;
    machine
}

fn with_vme(mut machine: Machine) -> Machine {
    machine.cpu.cr4 = Cr4::new().with_vme(true);
    machine
}

/// Where the program was when it left: CS:IP, flags, and the vector and error code with which it did.
fn leave(machine: &mut Machine) -> (u64, Option<u32>) {
    let vector = machine.run_to_handler().expect("a handler");
    let has_code = matches!(vector, 8 | 10..=14 | 17);
    let code = has_code.then(|| machine.stack32(1)[0] as u32);
    if has_code {
        let rsp = machine.cpu.gpr(Gpr::Rsp);
        machine.cpu.set_gpr(Gpr::Rsp, rsp + 4);
    }
    (vector, code)
}

#[test]
fn an_exception_leaves_all_segments_on_the_stack_and_the_data_segments_null() {
    let mut machine = v86(IF, "mov sp, 0x3000");
    assert_eq!(leave(&mut machine), (6, None));
    let frame = machine.stack32(9);
    let [cs, ds, es, fs, gs] = SEGMENTS.map(u64::from);
    let ip = frame[0];
    assert_eq!(frame[1..], [cs, VM | IF | 1 << 16 | 2, 0x3000, 0, es, ds, fs, gs]);
    assert_eq!(machine.memory.read(CODE + ip, &mut [0; 2]).map(|()| CODE + ip), Ok(machine.symbol("begin") + 3));
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), INNER_STACK - 36);
    let cpu = &machine.cpu;
    assert!([Segment::Ds, Segment::Es, Segment::Fs, Segment::Gs].iter().all(|segment| !cpu.segment(*segment).is_usable()));
    assert_eq!((cpu.cpl, cpu.is_v86(), cpu.segment(Segment::Cs).selector.into_bits()), (0, false, CODE_0));
    assert_eq!(cpu.segment(Segment::Ss).selector.into_bits(), DATA_0);
}

#[test]
fn iret_goes_back_to_where_the_exception_came_from() {
    // The handler of #UD skips the first UD2.
    let mut machine = v86(IF, "mov ax, ds\n ud2\n mov bx, gs\n mov cx, 0x1234");
    let handler = assembler::assemble(
        "add dword [esp], 2\n mov dword [ss:0x500], 1\n iretd",
        &assembler::Options { bits: assembler::Bits::ThirtyTwo, ..Default::default() },
    )
    .unwrap();
    machine.memory.write(HANDLERS + 6 * 16, &handler.bytes).unwrap();
    assert_eq!(machine.run_for(16), RunExit::Instructions);
    assert!(machine.cpu.is_v86());
    let [cs, ds, _, _, gs] = SEGMENTS;
    assert_eq!((machine.cpu.gpr(Gpr::Rax) & 0xffff, machine.cpu.gpr(Gpr::Rbx)), (u64::from(ds), u64::from(gs)));
    let code = machine.cpu.segment(Segment::Cs);
    assert_eq!((code.selector.into_bits(), code.base, code.limit, code.attributes.into_bits()), (cs, CODE, 0xffff, 0xf3));
}

#[test]
fn segments_are_sixteen_times_their_selectors() {
    let mut machine = v86(
        0,
        "mov ax, 0x1234
         mov es, ax
         mov byte [es:5], 0x77
         push 0x2345
         pop fs
         lds si, [cs:far_pointer - 0x10000]
         call 0x0800:0
         far_pointer: dw 0x11, 0x3456",
    );
    // The far CALL goes to a HLT, which is #GP(0).
    assert_eq!(leave(&mut machine), (13, Some(0)));
    let frame = machine.stack32(9);
    assert_eq!((frame[0], frame[1]), (0, 0x800));
    assert_eq!((frame[5], frame[6], frame[7], machine.cpu.gpr(Gpr::Rsi)), (0x1234, 0x3456, 0x2345, 0x11));
    assert_eq!(machine.memory.read_u8(0x12345), Ok(0x77));
    assert_eq!(machine.memory.read_u16(STACK - 2), Ok(SEGMENTS[0]), "the far CALL pushed CS");
}

/// What became of a program: it went on to UD2, or took another exception.
type Ending = (u64, Option<u32>);
const ON: Ending = (6, None);
const GP0: Ending = (13, Some(0));

#[test]
fn iopl_and_vme_rule_the_interrupt_flag() {
    // Program; IOPL 3; IOPL 0; IOPL 0 with CR4.VME.
    let rows: [(&str, Ending, Ending, Ending); 15] = [
        ("cli", ON, GP0, ON),
        ("sti", ON, GP0, ON),
        ("pushf", ON, GP0, ON),
        ("pushfd", ON, GP0, GP0),
        ("push 2\n popf", ON, GP0, ON),
        ("push 0x102\n popf\n nop", (1, None), GP0, GP0),
        ("push dword 2\n popfd", ON, GP0, GP0),
        ("push 2\n push cs\n push next - 0x10000\n iret\n next:", ON, GP0, ON),
        ("push dword 2\n push word 0\n push cs\n push dword next - 0x10000\n iretd\n next:", ON, GP0, GP0),
        ("int 0x80", (0x80, None), GP0, GP0),
        ("int 0x22", (13, Some(0x22 * 8 + 2)), GP0, GP0),
        ("int3", (13, Some(3 * 8 + 2)), (13, Some(3 * 8 + 2)), (13, Some(3 * 8 + 2))),
        ("int1", (1, None), (1, None), (1, None)),
        ("in al, 0x80", ON, ON, ON),
        ("in ax, 0xff", GP0, GP0, GP0),
    ];
    for (source, high, low, extended) in rows {
        assert_eq!(leave(&mut v86(3 << 12, source)), high, "{source} with IOPL 3");
        assert_eq!(leave(&mut v86(0, source)), low, "{source} with IOPL 0");
        assert_eq!(leave(&mut with_vme(v86(0, source))), extended, "{source} with IOPL 0 and VME");
    }
}

#[test]
fn with_vme_the_virtual_interrupt_flag_stands_in_for_the_real_one() {
    let flags_after = |flags: u64, source: &str| {
        let mut machine = with_vme(v86(flags, source));
        let ending = leave(&mut machine);
        (ending, machine.stack32(3)[2] & (IF | VIF | VIP | 3 << 12), machine.cpu.gpr(Gpr::Rax) & 0xffff)
    };
    assert_eq!(flags_after(IF | VIF, "cli"), (ON, IF, 0));
    assert_eq!(flags_after(IF, "sti"), (ON, IF | VIF, 0));
    assert_eq!(flags_after(IF | VIP, "sti"), (GP0, IF | VIP, 0));
    assert_eq!(flags_after(IF, "pushf\n pop ax"), (ON, IF, 0x3002), "IOPL shows as 3, IF as VIF");
    assert_eq!(flags_after(VIF, "pushf\n pop ax"), (ON, VIF, 0x3202));
    assert_eq!(flags_after(0, "push 0x202\n popf"), (ON, VIF, 0));
    assert_eq!(flags_after(VIP, "push 0x202\n popf"), (GP0, VIP, 0));
    assert_eq!(flags_after(IF | VIF | VIP, "push 2\n popf"), (ON, IF | VIP, 0));
    // With IOPL 3 there is no need for it.
    assert_eq!(flags_after(IF | 3 << 12, "cli"), (ON, 3 << 12, 0));
}

#[test]
fn with_vme_the_redirection_bitmap_chooses_between_program_and_monitor() {
    for (iopl, pushed, after) in [(0, 0x3202, VIF), (3 << 12, 0x3002, IF)] {
        // Vector 0x21 leads to 0900:0010, where the flags are as the program's handler finds them.
        let mut machine = with_vme(v86(iopl | VIF, "int 0x21"));
        machine.memory.write_u32(0x21 * 4, 0x0900_0010).unwrap();
        machine.memory.write(0x9010, &[0x0f, 0x0b]).unwrap();
        assert_eq!(leave(&mut machine), ON);
        let frame = machine.stack32(4);
        assert_eq!((frame[0], frame[1], frame[2] & IF), (0x10, 0x900, 0));
        assert_eq!(frame[2] & VIF, VIF & !after, "cleared where it stands in");
        let saved = [6, 4, 2].map(|below| machine.memory.read_u16(STACK - below).unwrap());
        let begin = (machine.symbol("begin") - CODE) as u16;
        assert_eq!(saved, [begin + 2, SEGMENTS[0], pushed]);
    }
    // Beyond the limit of the TSS there is no bitmap.
    let mut machine = with_vme(v86(3 << 12, "int 0x21"));
    machine.cpu.tr.limit = 0x67;
    assert_eq!(leave(&mut machine), GP0);
}

#[test]
fn protected_mode_virtual_interrupts() {
    let rows = [
        (false, 0, "cli", (13, Some(0)), 0),
        (true, 0, "sti", ON, VIF),
        (true, VIP, "sti", GP0, VIP),
        (true, VIF | VIP, "cli", ON, VIP),
        (true, VIF | 3 << 12, "cli", ON, VIF),
    ];
    for (pvi, flags, source, ending, after) in rows {
        let mut machine = Machine::protected(&format!("{source}\n ud2")).into_user();
        machine.cpu.cr4 = Cr4::new().with_pvi(pvi);
        machine.cpu.set_rflags(Rflags::from_bits(flags));
        assert_eq!((leave(&mut machine), machine.cpu.rflags().into_bits() & (VIF | VIP)), (ending, after), "{source} {flags:#x}");
    }
}

#[test]
fn what_does_not_exist_in_virtual_8086_mode() {
    let undefined = ["lar ax, bx", "lsl ax, bx", "verr ax", "verw ax", "lldt ax", "ltr ax", "sldt ax", "str ax", "arpl ax, bx", "clac"];
    for source in undefined {
        let mut machine = v86(3 << 12, source);
        assert_eq!(leave(&mut machine), ON, "{source}");
        assert_eq!(machine.stack32(1)[0], machine.symbol("begin") - CODE, "{source}");
    }
    let forbidden =
        ["hlt", "lgdt [0]", "lidt [0]", "mov eax, cr0", "mov cr3, eax", "clts", "lmsw ax", "invlpg [0]", "wbinvd", "rdmsr", "wrmsr"];
    for source in forbidden {
        assert_eq!(leave(&mut v86(3 << 12, source)), GP0, "{source}");
    }
    for source in ["sgdt [0]", "sidt [0]", "smsw ax", "cpuid", "rdtsc"] {
        let mut machine = v86(0, source);
        assert_eq!(leave(&mut machine), ON, "{source}");
        assert_ne!(machine.stack32(1)[0], machine.symbol("begin") - CODE, "{source} goes on");
    }
    // ANDN ax, bx, cx has a VEX prefix.
    let mut machine = v86(0, "db 0xc4, 0xe2, 0x60, 0xf2, 0xc1");
    assert_eq!(leave(&mut machine), ON);
    assert_eq!(machine.stack32(1)[0], machine.symbol("begin") - CODE);
}

#[test]
fn arpl_raises_the_requested_privilege() {
    let mut machine = Machine::protected(
        "mov eax, 0x1230
         mov ebx, 0x4562
         arpl ax, bx
         setz cl
         arpl ax, bx
         setz ch
         hlt",
    );
    assert_eq!(machine.run(), RunExit::Idle);
    assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.gpr(Gpr::Rcx)), (0x1232, 1));
}

#[test]
fn handlers_run_at_level_0_in_a_segment_that_does_not_conform() {
    // Descriptors at selector 0x48: conforming code of level 0, code of level 3.
    for descriptor in [0x00cf_9f00_0000_ffffu64, 0x00cf_fb00_0000_ffff] {
        let mut machine = v86(0, "int1");
        machine.memory.write_u64(GDT + 0x48, descriptor).unwrap();
        machine.memory.write(IDT + 8 + 2, &0x48u16.to_le_bytes()).unwrap();
        // INT1 counts as an external event.
        assert_eq!(leave(&mut machine), (13, Some(0x49)), "{descriptor:#x}");
    }
}
