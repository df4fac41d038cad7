//! How processors fall asleep and wake: what ends a run, and what a start-up message does.

use assembler::Bits;
use board::loader::{FlatOptions, Kind, LoadOptions, Mode};
use isa::register::Segment;
use machine::{Limits, Machine, MachineConfig, Stop};

/// A machine with flat code at 0x10000, or at 0x7c00 in real mode.
fn machine(source: &str, mode: Mode, cpu_count: u32) -> Machine {
    let (bits, base) = if mode == Mode::Real16 { (Bits::Sixteen, 0x7c00) } else { (Bits::SixtyFour, 0x1_0000) };
    let options = assembler::Options { origin: base, bits, ..assembler::Options::default() };
    let program = assembler::assemble(source, &options).expect("the source is right");
    let memory_size = 4 << 20;
    let flat = FlatOptions { base, entry: None, mode };
    let image = board::loader::load(&program.bytes, &LoadOptions { kind: Kind::Flat, memory_size, flat, ..LoadOptions::default() });
    let model = &models::SKYLAKE_SERVER;
    let mut machine = Machine::new(&MachineConfig { model, cpu_count, memory_size, seed: 0 });
    machine::load_image(&image.expect("flat code fits"), &mut machine.memory, 0, &mut machine.cpus[0]).expect("it fits");
    machine
}

#[test]
fn a_final_halt_ends_the_run_though_a_timer_ticks() {
    let ticking = "mov al, 0x34\n out 0x43, al\n mov al, 0xff\n out 0x40, al\n out 0x40, al\n cli\n hlt";
    let mut machine = machine(ticking, Mode::Real16, 2);
    assert_eq!(machine.run(&Limits { instructions: 1000, cycles: 1_000_000_000 }), Stop::Halted);
}

#[test]
fn init_and_start_up_in_one_breath_start_a_processor() {
    let source = "
        mov edi, 0x8000
        mov byte [rdi], 0xf4
        mov ebp, 0xfee00000
        mov dword [rbp + 0xf0], 0x1ff
        mov dword [rbp + 0x310], 1 << 24
        mov dword [rbp + 0x300], 0x4500
        mov dword [rbp + 0x300], 0x4608
        hlt";
    let mut machine = machine(source, Mode::Long64, 2);
    assert_eq!(machine.run(&Limits { instructions: 1000, cycles: 1_000_000_000 }), Stop::Halted);
    let started = &machine.cpus[1];
    assert_eq!((started.segment(Segment::Cs).base, started.rip), (0x8000, 1));
}
