//! The log of deliveries: what it holds, and that a guest that does nothing but raise interrupts cannot make it grow for ever.

use board::loader::{FlatOptions, Kind, LoadOptions, Mode};
use cpu::trap::EventKind;
use cpu::{Delivered, Delivery};
use machine::{Limits, Machine, MachineConfig, Stop};

/// A machine with flat code in real mode at 0x7c00.
fn machine(source: &str) -> Machine {
    let options = assembler::Options { origin: 0x7c00, bits: assembler::Bits::Sixteen, ..assembler::Options::default() };
    let program = assembler::assemble(source, &options).expect("the source is right");
    let memory_size = 4 << 20;
    let flat = FlatOptions { base: 0x7c00, entry: None, mode: Mode::Real16 };
    let image = board::loader::load(&program.bytes, &LoadOptions { kind: Kind::Flat, memory_size, flat, ..LoadOptions::default() });
    let mut machine = Machine::new(&MachineConfig { model: &models::ZEN3, cpu_count: 1, memory_size, seed: 0 });
    machine::load_image(&image.expect("flat code fits"), &mut machine.memory, 0, &mut machine.cpus[0]).expect("it fits");
    machine
}

const LIMITS: Limits = Limits { instructions: 20_000, cycles: 1_000_000_000 };
/// INT 0x60, whose handler is INT 0x60.
const ENDLESS: &str = "mov word [0x180], again\n mov word [0x182], 0\n mov ax, 0x2000\n mov ss, ax\n mov sp, 0\n again: int 0x60";

#[test]
fn a_full_log_ends_the_run_until_somebody_takes_it() {
    let mut machine = machine(ENDLESS);
    machine.cpus[0].log_deliveries(true);
    let (mut taken, mut before) = (0, 0);
    let stop = loop {
        let stop = machine.run(&LIMITS);
        let deliveries = machine.cpus[0].take_deliveries();
        assert!(deliveries.len() < 5000, "{}", deliveries.len());
        for delivery in &deliveries {
            let Delivery { cycle, rip, guest: false, what: Delivered::Event { event, cr2: None } } = *delivery else {
                panic!("{delivery:?}")
            };
            assert_eq!((event.kind, event.vector), (EventKind::SoftwareInterrupt, 0x60));
            assert!(cycle > before && rip > 0x7c00, "{delivery:?}");
            before = cycle;
        }
        taken += deliveries.len();
        if stop != Stop::Deliveries {
            break stop;
        }
    };
    assert_eq!(stop, Stop::InstructionLimit);
    assert!(taken > 15_000, "{taken}");
}

#[test]
fn without_a_log_the_same_guest_runs_in_one_go_to_the_same_end() {
    let (mut plain, mut logged) = (machine(ENDLESS), machine(ENDLESS));
    assert_eq!(plain.run(&LIMITS), Stop::InstructionLimit);
    assert!(plain.cpus[0].take_deliveries().is_empty());
    logged.cpus[0].log_deliveries(true);
    while logged.run(&LIMITS) == Stop::Deliveries {
        logged.cpus[0].take_deliveries();
    }
    assert_eq!((plain.cpus[0].cycles(), plain.cpus[0].regs), (logged.cpus[0].cycles(), logged.cpus[0].regs));
}
