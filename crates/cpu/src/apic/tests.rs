//! Tests of the local APIC against the rules of the manual.

use isa::apic::{ApicMessage, BROADCAST, DeliveryMode};

use super::register::*;
use super::*;

/// Software-enabled, with spurious vector 0xff.
fn enabled(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id, id == 0, Features { cycles_per_bus_clock: 1, ..Features::default() });
    apic.write(SVR, 0x1ff, 0);
    apic
}

fn x2apic(id: u32) -> LocalApic {
    let mut apic = enabled(id);
    apic.set_base(apic.base() | BASE_X2APIC).unwrap();
    apic
}

fn fixed(vector: u8, level: bool) -> ApicMessage {
    ApicMessage { destination: 0, logical: false, mode: DeliveryMode::Fixed, vector, level }
}

/// Writes ESR and reads what was collected.
fn errors(apic: &mut LocalApic) -> u32 {
    apic.write(ESR, 0, 0);
    apic.read(ESR, 0)
}

#[test]
fn state_after_power_up() {
    let mut apic = LocalApic::new(3, false, Features::default());
    for (offset, expected) in [
        (ID, 0x0300_0000),
        (VERSION, 0x0005_0014),
        (TPR, 0),
        (PPR, 0),
        (LDR, 0),
        (DFR, 0xffff_ffff),
        (SVR, 0xff),
        (ISR, 0),
        (ISR + 0x70, 0),
        (IRR + 0x30, 0),
        (ESR, 0),
        (ICR_LOW, 0),
        (LVT_TIMER, 0x1_0000),
        (LVT_LINT0, 0x1_0000),
        (LVT_ERROR, 0x1_0000),
        (TIMER_CURRENT_COUNT, 0),
        (TIMER_DIVIDE, 0),
    ] {
        assert_eq!(apic.read(offset, 0), expected, "{offset:#x}");
    }
    assert_eq!(apic.base(), 0xfee0_0800);
    assert_eq!(LocalApic::new(0, true, Features::default()).base(), 0xfee0_0900);
    assert_eq!(errors(&mut apic), 0);
}

#[test]
fn reserved_bits_and_places_in_xapic_mode() {
    let mut apic = enabled(0);
    for register in REGISTERS.iter().filter(|register| register.xapic == Access::Both && register.offset != ICR_LOW) {
        let before = apic.clone();
        apic.write(register.offset, u32::MAX, 0);
        let expected = match register.offset {
            DFR => u32::MAX,
            // Bits 18:17 both set are allowed to be written.
            _ => register.writable,
        };
        assert_eq!(apic.read(register.offset, 0), expected, "{}", register.name);
        apic = before;
    }
    for (offset, illegal) in [
        (0x000, true),
        (0x010, true),
        (0x040, true),
        (0x090, true),
        (0x0c0, true),
        (0x2f0, true),
        (0x3f0, true),
        (0x400, true),
        (0x084, true),
        (0xff0, true),
        (PPR, false),
        (EOI, false),
        (VERSION, false),
    ] {
        let mut read = apic.clone();
        assert_eq!(read.read(offset, 0) != 0, offset == VERSION, "{offset:#x}");
        assert_eq!(errors(&mut read), if illegal { 0x80 } else { 0 }, "{offset:#x}");
        apic.write(offset, 0, 0);
        assert_eq!(errors(&mut apic), if illegal { 0x80 } else { 0 }, "{offset:#x}");
    }
}

#[test]
fn x2apic_registers_check_access_and_reserved_bits() {
    let mut apic = x2apic(0x123);
    assert_eq!(apic.read_msr(0x802, 0), Ok(0x123), "32-bit identifier");
    assert_eq!(apic.read_msr(0x80d, 0), Ok(0x0012_0008), "derived logical identifier");
    for msr in 0x800..0x900_u32 {
        let offset = (msr - 0x800) << 4;
        let access = register::at(offset).map_or(Access::None, |register| register.x2apic);
        assert_eq!(apic.clone().read_msr(msr, 0).is_ok(), access.readable(), "read {msr:#x}");
        assert_eq!(apic.clone().write_msr(msr, 0, 0).is_ok(), access.writable(), "write {msr:#x}");
        for bit in 0..64 {
            let wide = offset == ICR_LOW && bit >= 32;
            let register = register::at(offset);
            let writable = register.is_some_and(|register| (register.writable | register.read_only_bits()) as u64 >> bit & 1 != 0);
            let expected = access.writable() && (wide || bit < 32 && writable);
            assert_eq!(apic.clone().write_msr(msr, 1 << bit, 0).is_ok(), expected, "write {msr:#x} bit {bit}");
        }
    }
    assert_eq!(enabled(0).read_msr(0x802, 0), Err(GeneralProtection), "not in xAPIC mode");
    assert_eq!(apic.read_msr(u32::MAX, 0), Err(GeneralProtection));
}

#[test]
fn transitions_of_the_base_register() {
    let (off, on, both, extended) = (0, BASE_ENABLE, BASE_ENABLE | BASE_X2APIC, BASE_X2APIC);
    for (path, last, allowed) in [
        (vec![], on, true),
        (vec![], off, true),
        (vec![], both, true),
        (vec![], extended, false),
        (vec![both], on, false),
        (vec![both], off, true),
        (vec![both], extended, false),
        (vec![both], both, true),
        (vec![both, off], on, true),
        (vec![both, off], both, false),
        (vec![off], extended, false),
    ] {
        let mut apic = enabled(1);
        for step in &path {
            apic.set_base(DEFAULT_BASE | step).unwrap();
        }
        let before = apic.base();
        assert_eq!(apic.set_base(DEFAULT_BASE | last).is_ok(), allowed, "{path:x?} then {last:#x}");
        assert_eq!(apic.base(), if allowed { DEFAULT_BASE | last } else { before });
    }
    for bit in [0, 7, 9, 46, 63] {
        assert_eq!(enabled(0).set_base(DEFAULT_BASE | BASE_ENABLE | 1 << bit), Err(GeneralProtection), "bit {bit}");
    }
    let mut old = LocalApic::new(0, true, Features { x2apic: false, ..Features::default() });
    assert_eq!(old.set_base(DEFAULT_BASE | both), Err(GeneralProtection));
    let mut apic = enabled(0);
    apic.write(TPR, 0x20, 0);
    apic.set_base(0x1234_5000 | on).unwrap();
    assert_eq!(apic.page(), Some(0x1234_5000));
    apic.set_base(DEFAULT_BASE | off).unwrap();
    assert_eq!((apic.page(), apic.mode(), apic.matches(0, false)), (None, Mode::Disabled, false));
    apic.set_base(DEFAULT_BASE | on).unwrap();
    assert_eq!((apic.read(TPR, 0), apic.read(SVR, 0)), (0, 0xff), "as after power-up");
}

#[test]
fn priorities() {
    for (in_service, task, priority, pending, taken) in [
        (None, 0x00, 0x00, 0x31, true),
        (None, 0x2f, 0x2f, 0x31, true),
        (None, 0x30, 0x30, 0x3f, false),
        (None, 0xff, 0xff, 0xff, false),
        (Some(0x45), 0x20, 0x40, 0x4f, false),
        (Some(0x45), 0x20, 0x40, 0x50, true),
        (Some(0x45), 0x47, 0x47, 0x50, true),
        (Some(0x45), 0x50, 0x50, 0x50, false),
    ] {
        let mut apic = enabled(0);
        if let Some(vector) = in_service {
            apic.accept(&fixed(vector, false));
            assert_eq!(apic.acknowledge(), vector);
        }
        apic.write(TPR, task, 0);
        assert_eq!(apic.read(PPR, 0), priority);
        assert_eq!(apic.cr8(), (task >> 4) as u8);
        apic.accept(&fixed(pending, false));
        assert_eq!(apic.highest_pending(), taken.then_some(pending), "{in_service:x?} {task:#x} {pending:#x}");
        assert_eq!(apic.acknowledge(), if taken { pending } else { 0xff }, "spurious when none");
        assert_eq!(apic.requested(pending), !taken);
    }
    let mut apic = enabled(0);
    apic.set_cr8(0xa);
    assert_eq!((apic.read(TPR, 0), apic.task_priority()), (0xa0, 0xa0));
}

#[test]
fn ends_of_interrupts_nest_and_only_levels_are_broadcast() {
    let mut apic = enabled(0);
    for (vector, level) in [(0x31, true), (0x52, false), (0x73, true)] {
        assert_eq!(apic.accept(&fixed(vector, level)), Accepted::Interrupt);
        assert_eq!(apic.acknowledge(), vector);
    }
    assert_eq!(apic.read(ISR + 0x10, 0), 1 << 0x11);
    assert_eq!(apic.read(TMR + 0x30, 0), 1 << 0x13);
    let ended: Vec<_> = (0..4).map(|_| apic.write(EOI, 0, 0).end_of_interrupt).collect();
    assert_eq!(ended, [Some(0x73), None, Some(0x31), None]);
    apic.accept(&fixed(0x73, false));
    assert_eq!(apic.read(TMR + 0x30, 0), 0, "the trigger mode follows the last acceptance");
}

#[test]
fn illegal_vectors_and_the_error_interrupt() {
    let mut apic = enabled(0);
    apic.write(LVT_ERROR, 0xe0, 0);
    assert_eq!(apic.accept(&fixed(0x0f, false)), Accepted::Ignored);
    assert!(apic.requested(0xe0));
    assert_eq!(apic.acknowledge(), 0xe0);
    assert_eq!(apic.write(ICR_LOW, 0x05, 0).message, None);
    assert!(!apic.requested(0xe0), "not armed until ESR is written");
    assert_eq!(apic.read(ESR, 0), 0, "errors show after a write");
    assert_eq!(errors(&mut apic), 0x60);
    assert_eq!(errors(&mut apic), 0);
    apic.write(LVT_TIMER, 0x03, 0);
    apic.write(TIMER_INITIAL_COUNT, 1, 0);
    apic.advance(10);
    assert!(apic.requested(0xe0));
    assert_eq!(errors(&mut apic), 0x40, "an illegal vector in the LVT");
    let mut apic = x2apic(0);
    assert_eq!(apic.write_msr(0x83f, 0x0f, 0).unwrap().message, None);
    apic.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(apic.read_msr(0x828, 0), Ok(0x40));
}

#[test]
fn software_disable_masks_and_keeps_what_is_pending() {
    let mut apic = enabled(0);
    apic.write(LVT_TIMER, 0x40, 0);
    apic.accept(&fixed(0x50, false));
    apic.write(SVR, 0xff, 0);
    assert_eq!(apic.read(LVT_TIMER, 0), 0x1_0040);
    apic.write(LVT_TIMER, 0x41, 0);
    assert_eq!(apic.read(LVT_TIMER, 0), 0x1_0041, "masks cannot be cleared");
    assert!(apic.requested(0x50));
    for (mode, expected) in [
        (DeliveryMode::Fixed, Accepted::Ignored),
        (DeliveryMode::LowestPriority, Accepted::Ignored),
        (DeliveryMode::Smi, Accepted::Smi),
        (DeliveryMode::Nmi, Accepted::Nmi),
        (DeliveryMode::Init, Accepted::Init),
        (DeliveryMode::Startup, Accepted::Startup(0x60)),
    ] {
        assert_eq!(apic.accept(&ApicMessage { mode, ..fixed(0x60, false) }), expected, "{mode:?}");
    }
}

#[test]
fn init_keeps_identifier_and_mode() {
    let mut apic = x2apic(0x25);
    apic.write_msr(0x808, 0x40, 0).unwrap();
    apic.init();
    assert_eq!(apic.mode(), Mode::X2apic);
    assert_eq!((apic.read_msr(0x802, 0), apic.read_msr(0x80d, 0)), (Ok(0x25), Ok(0x0002_0020)));
    assert_eq!((apic.read_msr(0x808, 0), apic.read_msr(0x80f, 0)), (Ok(0), Ok(0xff)));
}

#[test]
fn commands_send_valid_combinations_only() {
    let message = |destination, logical, mode, vector| ApicMessage { destination, logical, mode, vector, level: false };
    for (high, low, expected) in [
        (0x0200_0000, 0x0_0031, Some((message(2, false, DeliveryMode::Fixed, 0x31), Shorthand::None))),
        (0x0300_0000, 0x0_0931, Some((message(3, true, DeliveryMode::LowestPriority, 0x31), Shorthand::None))),
        (0xff00_0000, 0x0_0400, Some((message(BROADCAST, false, DeliveryMode::Nmi, 0), Shorthand::None))),
        (0x0100_0000, 0x0_4500, Some((message(1, false, DeliveryMode::Init, 0), Shorthand::None))),
        (0x0100_0000, 0x0_c500, Some((message(1, false, DeliveryMode::Init, 0), Shorthand::None))),
        (0x0100_0000, 0x0_8500, None),
        (0x0100_0000, 0x0_0608, Some((message(1, false, DeliveryMode::Startup, 8), Shorthand::None))),
        (0, 0x4_0041, Some((message(0, false, DeliveryMode::Fixed, 0x41), Shorthand::OneSelf))),
        (0, 0x4_0400, Some((message(0, false, DeliveryMode::Nmi, 0), Shorthand::OneSelf))),
        (0, 0x4_4500, Some((message(0, false, DeliveryMode::Init, 0), Shorthand::OneSelf))),
        (0, 0x8_0041, Some((message(0, false, DeliveryMode::Fixed, 0x41), Shorthand::AllIncludingSelf))),
        (0, 0x8_0500, None),
        (0, 0xc_4500, Some((message(0, false, DeliveryMode::Init, 0), Shorthand::AllExcludingSelf))),
        (0, 0xc_0200, Some((message(0, false, DeliveryMode::Smi, 0), Shorthand::AllExcludingSelf))),
        (0, 0x0_0341, None),
        (0, 0x0_0741, None),
        (0, 0x0_000f, None),
    ] {
        let mut apic = enabled(0);
        apic.write(ICR_HIGH, high, 0);
        let sent = apic.write(ICR_LOW, low, 0).message.map(|sent| (sent.message, sent.shorthand));
        assert_eq!(sent, expected, "{high:#x} {low:#x}");
        assert_eq!((apic.read(ICR_HIGH, 0), apic.read(ICR_LOW, 0)), (high, low));
    }
    let mut apic = x2apic(7);
    let sent = apic.write_msr(0x830, 0x0001_0234_0000_0031, 0).unwrap().message.unwrap();
    assert_eq!(sent.message.destination, 0x0001_0234);
    assert_eq!(apic.read_msr(0x830, 0), Ok(0x0001_0234_0000_0031));
    let sent = apic.write_msr(0x83f, 0x77, 0).unwrap().message.unwrap();
    assert_eq!((sent.shorthand, sent.message.vector), (Shorthand::OneSelf, 0x77));
}

#[test]
fn destinations() {
    let flat = |id: u32, logical: u32| {
        let mut apic = enabled(id);
        apic.write(LDR, logical << 24, 0);
        apic
    };
    let cluster = |id, logical| {
        let mut apic = flat(id, logical);
        apic.write(DFR, 0, 0);
        apic
    };
    for (apic, destination, logical, expected) in [
        (flat(2, 0), 2, false, true),
        (flat(2, 0), 3, false, false),
        (flat(2, 0), 0xff, false, true),
        (flat(2, 0), BROADCAST, true, true),
        (flat(2, 0x04), 0x06, true, true),
        (flat(2, 0x04), 0x0a, true, false),
        (flat(2, 0x00), 0x7f, true, false),
        (cluster(2, 0x12), 0x13, true, true),
        (cluster(2, 0x12), 0x11, true, false),
        (cluster(2, 0x12), 0x23, true, false),
        (x2apic(0x25), 0x25, false, true),
        (x2apic(0x25), 0xff, false, false),
        (x2apic(0x25), BROADCAST, false, true),
        (x2apic(0x25), 0x0002_0030, true, true),
        (x2apic(0x25), 0x0002_0010, true, false),
        (x2apic(0x25), 0x0003_0020, true, false),
    ] {
        assert_eq!(apic.matches(destination, logical), expected, "{} {destination:#x} {logical}", apic.id());
    }
}

#[test]
fn routing_of_shorthands_and_lowest_priority() {
    let mut apics = [enabled(0), enabled(1), enabled(2), enabled(3)];
    for (apic, priority) in apics.iter_mut().zip([0x30, 0x20, 0x20, 0x00]) {
        apic.write(TPR, priority, 0);
    }
    apics[3].write(SVR, 0xff, 0);
    let send = |apics: &mut [LocalApic; 4], high, low| {
        apics[1].write(ICR_HIGH, high, 0);
        let message = apics[1].write(ICR_LOW, low, 0).message.unwrap();
        routing::ipi_targets(&message, 1, apics.iter())
    };
    for (high, low, expected) in [
        (0x0200_0000, 0x0_0040, vec![2]),
        (0xff00_0000, 0x0_0040, vec![0, 1, 2, 3]),
        (0, 0x4_0040, vec![1]),
        (0, 0x8_0040, vec![0, 1, 2, 3]),
        (0, 0xc_0040, vec![0, 2, 3]),
        (0xff00_0000, 0x0_0140, vec![1]),
        (0, 0xc_0140, vec![2]),
        (0x0900_0000, 0x0_0040, vec![]),
    ] {
        assert_eq!(send(&mut apics, high, low), expected, "{high:#x} {low:#x}");
    }
    let message = ApicMessage { destination: 2, ..fixed(0x40, true) };
    assert_eq!(routing::targets(&message, &apics), [2]);
}

#[test]
fn one_shot_and_periodic_at_exact_cycles() {
    for (divide, cycles) in [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1001, 64), (0b1010, 128), (0b1011, 1)] {
        let mut apic = LocalApic::new(0, true, Features { cycles_per_bus_clock: 3, ..Features::default() });
        apic.write(SVR, 0x1ff, 0);
        let count = 3 * cycles;
        apic.write(TIMER_DIVIDE, divide, 0);
        apic.write(LVT_TIMER, 0x40, 0);
        apic.write(TIMER_INITIAL_COUNT, 10, 100);
        assert_eq!(apic.next_event(), Some(100 + 10 * count), "{divide:#b}");
        assert_eq!(apic.read(TIMER_CURRENT_COUNT, 100 + count - 1), 10);
        assert_eq!(apic.read(TIMER_CURRENT_COUNT, 100 + count), 9);
        assert!(!apic.advance(100 + 10 * count - 1));
        assert!(apic.advance(100 + 10 * count));
        assert_eq!((apic.acknowledge(), apic.next_event(), apic.read(TIMER_CURRENT_COUNT, 1 << 40)), (0x40, None, 0));
    }
    let mut apic = enabled(0);
    apic.write(TIMER_DIVIDE, 0b1011, 0);
    apic.write(LVT_TIMER, 0x2_0040, 0);
    apic.write(TIMER_INITIAL_COUNT, 100, 0);
    assert!(apic.advance(100));
    assert_eq!((apic.next_event(), apic.read(TIMER_CURRENT_COUNT, 130)), (Some(200), 70));
    assert!(apic.advance(100_000_050));
    assert_eq!(apic.next_event(), Some(100_000_100), "the phase is kept over a long silence");
    apic.write(LVT_TIMER, 0x3_0040, 100_000_050);
    assert_eq!(apic.next_event(), None, "masked");
    apic.acknowledge();
    assert!(!apic.advance(100_000_500));
    assert_eq!(apic.read(TIMER_CURRENT_COUNT, 100_000_530), 70, "but it goes on counting");
    apic.write(TIMER_INITIAL_COUNT, 0, 100_000_530);
    apic.write(LVT_TIMER, 0x2_0040, 100_000_530);
    assert_eq!(apic.next_event(), None, "zero stops it");
}

#[test]
fn deadlines_of_the_time_stamp_counter() {
    let mut apic = enabled(0);
    apic.set_tsc_deadline(500, 0, 0);
    assert_eq!(apic.tsc_deadline(0), 0, "ignored in another mode");
    apic.write(LVT_TIMER, 0x4_0040, 0);
    apic.write(TIMER_INITIAL_COUNT, 5, 0);
    assert_eq!(apic.read(TIMER_INITIAL_COUNT, 0), 0, "ignored in this mode");
    apic.set_tsc_deadline(1_500, 1_000, 20);
    assert_eq!((apic.next_event(), apic.tsc_deadline(20)), (Some(520), 1_500));
    apic.tsc_changed(1_400, 30);
    assert_eq!(apic.next_event(), Some(130));
    assert!(apic.advance(130));
    assert_eq!((apic.tsc_deadline(130), apic.next_event(), apic.acknowledge()), (0, None, 0x40));
    apic.write(EOI, 0, 130);
    apic.set_tsc_deadline(7, 1_000, 140);
    assert_eq!(apic.highest_pending(), Some(0x40), "a time that has passed expires at once");
    apic.acknowledge();
    apic.set_tsc_deadline(2_000, 1_000, 150);
    apic.set_tsc_deadline(0, 1_000, 150);
    assert_eq!(apic.next_event(), None, "zero disarms");
    apic.set_tsc_deadline(2_000, 1_000, 150);
    apic.write(LVT_TIMER, 0x0_0040, 150);
    assert_eq!((apic.next_event(), apic.tsc_deadline(150)), (None, 0), "leaving the mode disarms");
    let mut old = LocalApic::new(0, true, Features { tsc_deadline: false, ..Features::default() });
    old.write(LVT_TIMER, 0x4_0040, 0);
    assert_eq!(old.read(LVT_TIMER, 0), 0x1_0040, "the bit is reserved without the feature");
}

#[test]
fn lint_pins() {
    let mut apic = LocalApic::new(0, true, Features::default());
    assert_eq!(apic.set_lint(Lint::Lint0, true), Accepted::Ignored);
    assert!(!apic.extint(), "masked after power-up");
    apic.set_virtual_wire();
    assert!(apic.extint());
    assert_eq!(apic.set_lint(Lint::Lint1, true), Accepted::Nmi);
    assert_eq!(apic.set_lint(Lint::Lint1, true), Accepted::Ignored, "an edge");
    apic.write(LVT_LINT0, 0x1_0700, 0);
    assert!(!apic.extint());
    apic.write(LVT_LINT0, 0x0_8055, 0);
    assert_eq!(apic.acknowledge(), 0x55, "level-triggered, and high already");
    assert_eq!(apic.read(LVT_LINT0, 0), 0xc055, "remote IRR");
    assert_eq!(apic.set_lint(Lint::Lint0, true), Accepted::Ignored);
    apic.write(EOI, 0, 0);
    assert!(apic.requested(0x55), "again after the end of interrupt");
    apic.acknowledge();
    apic.set_lint(Lint::Lint0, false);
    apic.write(EOI, 0, 0);
    assert!(!apic.requested(0x55));
    apic.set_base(DEFAULT_BASE).unwrap();
    assert_eq!(apic.set_lint(Lint::Lint0, true), Accepted::ExtInt);
    assert!(apic.extint(), "disabled: the pin is INTR");
}

#[test]
fn thermal_and_performance_interrupts() {
    let mut apic = enabled(0);
    for (entry, expected, after) in [
        (0x0_0060, Accepted::Interrupt, 0x1_0060),
        (0x0_0400, Accepted::Nmi, 0x1_0400),
        (0x0_0200, Accepted::Smi, 0x1_0200),
        (0x0_0700, Accepted::Ignored, 0x1_0700),
        (0x1_0060, Accepted::Ignored, 0x1_0060),
    ] {
        apic.write(LVT_PERFORMANCE, entry, 0);
        assert_eq!(apic.raise(LocalSource::Performance), expected, "{entry:#x}");
        assert_eq!(apic.read(LVT_PERFORMANCE, 0), after, "masked by itself");
    }
    apic.write(LVT_THERMAL, 0x61, 0);
    assert_eq!(apic.raise(LocalSource::Thermal), Accepted::Interrupt);
    assert_eq!(apic.read(LVT_THERMAL, 0), 0x61);
}

#[test]
fn a_saved_apic_goes_on_the_same_way() {
    let mut apic = enabled(0);
    apic.write(LVT_TIMER, 0x2_0040, 0);
    apic.write(TIMER_INITIAL_COUNT, 33, 0);
    apic.accept(&fixed(0x80, true));
    let mut copy: LocalApic = serde_json::from_str(&serde_json::to_string(&apic).unwrap()).unwrap();
    assert_eq!(apic, copy);
    for now in (0..500).step_by(13) {
        assert_eq!((apic.advance(now), apic.next_event()), (copy.advance(now), copy.next_event()));
    }
}

#[test]
fn any_register_writes_never_panic() {
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..200 {
        let bus = if round & 1 == 0 { u32::MAX } else { 1 };
        let mut apic = LocalApic::new(round, true, Features { cycles_per_bus_clock: bus, ..Features::default() });
        let mut now = 0_u64;
        for _ in 0..200 {
            let value = next();
            now = now.saturating_add(next() >> (next() & 63));
            match next() % 8 {
                0 => drop(apic.set_base(DEFAULT_BASE | value & 0xd00)),
                1 | 2 => drop(apic.write_msr(0x800 + (next() & 0xff) as u32, value >> (next() & 63), now)),
                3 => drop(apic.read_msr(0x800 + (next() & 0xff) as u32, now)),
                4 => {
                    apic.accept(&fixed(value as u8, value & 0x100 != 0));
                    apic.acknowledge();
                }
                5 => {
                    apic.read((next() & 0xff0) as u32, now);
                    apic.set_tsc_deadline(value, next(), now);
                }
                _ => drop(apic.write((next() & 0x3f0) as u32, value as u32, now)),
            }
            assert!(apic.next_event().is_none_or(|next| next > now), "{:?} at {now}", apic.next_event());
            assert!(!(0..16).any(|vector| apic.requested(vector)));
        }
    }
}
