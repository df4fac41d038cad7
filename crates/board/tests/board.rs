//! The board as a machine sees it: ports, lines, time, and hostile accesses.

use board::{Board, BoardConfig, DeliveryMode, Outcome, ResetCause};
use proptest::prelude::*;

/// One cycle of this board is one pulse of the 8254.
fn board() -> Board {
    // 3579545 / 3 pulses a second are 3579545 cycles in three.
    Board::new(&BoardConfig { cycles_per_second: 3_579_545, ..BoardConfig::default() })
}

fn out(board: &mut Board, writes: &[(u16, u8)], now: u64) {
    for (port, value) in writes {
        board.port_write(*port, 1, u32::from(*value), now);
    }
}

/// Both controllers in the usual place, everything masked but what `mask` leaves.
fn start_pic(board: &mut Board, mask: u16) {
    out(
        board,
        &[
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 4),
            (0x21, 1),
            (0x21, mask as u8),
            (0xa0, 0x11),
            (0xa1, 0x28),
            (0xa1, 2),
            (0xa1, 1),
            (0xa1, (mask >> 8) as u8),
        ],
        0,
    );
}

#[test]
fn ports_without_a_device_read_as_ones() {
    let mut board = board();
    for port in [0x00, 0xe9, 0x1f0, 0x2f8, 0x514, 0xcfc, 0xf4, 0xffff] {
        assert_eq!(board.port_read(port, 1, 0), 0xff, "{port:#x}");
        assert_eq!(board.port_read(port, 4, 0), 0xffff_ffff, "{port:#x}");
    }
    assert_eq!(board.mmio_read(0xfed0_0000, 4, 0), None);
    assert!(!board.mmio_write(0xfee0_0000, 4, 0, 0));
    assert_eq!(board.port_read(0x3fd, 1, 0), 0x60);
    assert_eq!(board.port_read(0x3fd, 2, 0), 0xb060, "a word is two bytes at consecutive ports");
}

#[test]
fn ways_to_end_a_run() {
    let write = |port, width, value| vec![(port, width, value)];
    let reset = |cause| Some(Outcome::Reset { cause });
    for (writes, expected) in [
        (write(0xf4, 1, 0x1ff), Some(Outcome::DebugExit { code: 0xff })),
        (write(0xf4, 2, 0x1_0000), Some(Outcome::DebugExit { code: 0 })),
        (write(0xf4, 4, 0x1234_5678), Some(Outcome::DebugExit { code: 0x1234_5678 })),
        ("Shutdown".bytes().map(|letter| (0x8900, 1, u32::from(letter))).collect(), Some(Outcome::Shutdown)),
        (write(0x64, 1, 0xfe), reset(ResetCause::KeyboardController)),
        (write(0xcf9, 1, 0x02), None),
        (write(0xcf9, 1, 0x06), reset(ResetCause::ResetControl)),
        (write(0x92, 1, 0x02), None),
        (write(0x92, 1, 0x03), reset(ResetCause::SystemControl)),
        (write(0x80, 1, 0x55), None),
        (vec![(0xf4, 1, 1), (0xf4, 1, 2)], Some(Outcome::DebugExit { code: 1 })),
    ] {
        let mut board = board();
        for (port, width, value) in &writes {
            board.port_write(*port, *width, *value, 0);
        }
        assert_eq!(board.outcome(), expected, "{writes:x?}");
    }
}

#[test]
fn timer_interrupts_through_the_8259_at_exact_cycles() {
    let mut board = board();
    start_pic(&mut board, 0xfffe);
    out(&mut board, &[(0x43, 0x34), (0x40, 100), (0x40, 0)], 0);
    // Loaded at pulse 1, low at pulse 100, high again at 101: three cycles each.
    let mut seen = Vec::new();
    for _ in 0..4 {
        let next = board.next_event().unwrap();
        board.advance(next - 1);
        let before = board.extint();
        board.advance(next);
        seen.push((next, before, board.extint()));
        if board.extint() {
            assert_eq!(board.acknowledge(), 0x20);
            board.port_write(0x20, 1, 0x20, next);
        }
    }
    assert_eq!(seen, [(3, false, false), (300, false, false), (303, false, true), (600, false, false)]);
}

#[test]
fn a_timer_nobody_hears_makes_no_events_and_is_not_lost() {
    let mut board = board();
    start_pic(&mut board, 0xffff);
    out(&mut board, &[(0x43, 0x34), (0x40, 100), (0x40, 0)], 0);
    assert_eq!(board.next_event(), None);
    board.advance(1_000_000);
    assert!(!board.extint());
    out(&mut board, &[(0x21, 0xfe)], 1_000_000);
    assert!(board.extint(), "the 8259 kept the edge behind its mask");
    assert!(board.next_event().unwrap() > 1_000_000);
}

#[test]
fn the_timer_also_reaches_pin_2_of_the_io_apic() {
    let mut board = board();
    for (register, value) in [(0x15, 0x0300_0000), (0x14, 0x0030)] {
        assert!(board.mmio_write(0xfec0_0000, 4, register, 0));
        assert!(board.mmio_write(0xfec0_0010, 4, value, 0));
    }
    assert_eq!(board.mmio_read(0xfec0_0010, 4, 0), Some(0x0030));
    out(&mut board, &[(0x43, 0x30), (0x40, 9), (0x40, 0)], 0);
    board.advance(29);
    assert_eq!(board.take_messages().count(), 0);
    assert_eq!(board.next_event(), Some(30));
    board.advance(30);
    let messages: Vec<_> = board.take_messages().collect();
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].destination, messages[0].vector, messages[0].mode), (3, 0x30, DeliveryMode::Fixed));
    assert_eq!(board.next_event(), None, "mode 0 is over");
}

#[test]
fn the_8259_output_reaches_pin_0_as_extint() {
    let mut board = board();
    start_pic(&mut board, 0xffef);
    board.mmio_write(0xfec0_0000, 4, 0x10, 0);
    board.mmio_write(0xfec0_0010, 4, 0x700, 0);
    out(&mut board, &[(0x3fc, 0x08), (0x3f9, 0x02)], 0);
    assert!(board.extint());
    assert_eq!(board.take_messages().map(|message| message.mode).collect::<Vec<_>>(), [DeliveryMode::ExtInt]);
    assert_eq!(board.acknowledge(), 0x24);
}

#[test]
fn serial_echo_with_interrupts() {
    let mut board = board();
    start_pic(&mut board, 0xffef);
    out(&mut board, &[(0x3fc, 0x0b), (0x3f9, 0x01)], 0);
    assert!(!board.extint());
    board.serial_input(b"ok");
    let mut echoed = 0;
    while board.extint() {
        assert_eq!(board.acknowledge(), 0x24);
        while board.port_read(0x3fd, 1, 5) & 1 != 0 {
            let byte = board.port_read(0x3f8, 1, 5);
            board.port_write(0x3f8, 1, byte, 5);
            echoed += 1;
        }
        board.port_write(0x20, 1, 0x20, 5);
    }
    assert_eq!(echoed, 2);
    assert_eq!(board.serial_output(), b"ok");
}

#[test]
fn clock_interrupt_on_irq_8() {
    let mut board = Board::new(&BoardConfig { cycles_per_second: 32_768_000, ..BoardConfig::default() });
    start_pic(&mut board, 0xfefb);
    out(&mut board, &[(0x70, 0x0b), (0x71, 0x42)], 0);
    let next = board.next_event().unwrap();
    assert_eq!(next, 32_000, "rate 6 is 1024 Hz");
    board.advance(next);
    assert_eq!(board.acknowledge(), 0x28);
    out(&mut board, &[(0xa0, 0x20), (0x20, 0x20), (0x70, 0x0c)], next);
    board.advance(10 * next);
    assert!(!board.extint(), "the line stays up until register C is read");
    assert_eq!(board.port_read(0x71, 1, 10 * next), 0xc0);
    board.advance(11 * next);
    assert!(board.extint());
}

#[test]
fn speaker_gate_and_power_management_timer() {
    let mut board = board();
    out(&mut board, &[(0x61, 0x01), (0x43, 0xb0), (0x42, 4), (0x42, 0)], 0);
    assert_eq!(board.port_read(0x61, 1, 14) & 0x23, 0x01);
    assert_eq!(board.port_read(0x61, 1, 15) & 0x23, 0x21);
    assert_eq!(board.port_read(0x608, 4, 20), 20);
    assert_eq!(board.port_read(0x608, 4, (1 << 24) + 7), 7);
    assert_eq!(board.port_read(0x608, 2, (1 << 24) + 0x1234), 0x1234);
}

/// SDM vol 1, D.2.1.2: FERR# is latched as IRQ13; port 0F0H clears the latch and asserts IGNNE# for as long as the error lasts.
#[test]
fn an_x87_error_is_irq13_until_port_f0_and_ignored_from_then_on() {
    let mut board = board();
    start_pic(&mut board, 0);
    out(&mut board, &[(0xf0, 0)], 10);
    assert!(!board.ignores_numeric_error() && !board.extint(), "nothing is pending");
    board.set_numeric_error(true);
    assert!(board.extint() && !board.ignores_numeric_error());
    board.set_numeric_error(false);
    assert!(board.extint(), "the latch stays");
    assert_eq!(board.acknowledge(), 0x2d);
    out(&mut board, &[(0xf0, 0), (0xa0, 0x20), (0x20, 0x20)], 20);
    assert!(!board.ignores_numeric_error(), "the error was over by then");
    board.set_numeric_error(true);
    assert_eq!(board.acknowledge(), 0x2d);
    out(&mut board, &[(0xf0, 0)], 30);
    assert!(board.ignores_numeric_error());
    board.set_numeric_error(false);
    assert!(!board.ignores_numeric_error());
}

#[test]
fn software_drives_the_lines_that_no_device_has() {
    // (line, whether its level reaches the 8259 pair)
    for (irq, free) in [(0, false), (1, true), (2, false), (4, false), (8, false), (11, true), (13, true), (15, true)] {
        let mut board = board();
        start_pic(&mut board, 0);
        let port = 0x2000 + irq;
        board.port_write(port, 4, 1, 10);
        assert_eq!(board.extint(), free, "line {irq}");
        if free {
            assert_eq!(board.acknowledge(), 0x20 + irq as u8, "line {irq}");
            board.port_write(port, 1, 0, 20);
            assert!(!board.extint(), "line {irq}");
        }
    }
}

#[test]
fn fw_cfg_and_pci_through_ports() {
    let mut board = Board::new(&BoardConfig { cpu_count: 2, ram_size: 0x2000_0000, ..BoardConfig::default() });
    board.port_write(0x510, 2, 3, 0);
    let ram: Vec<u32> = (0..8).map(|_| board.port_read(0x511, 1, 0)).collect();
    assert_eq!(ram, [0, 0, 0, 0x20, 0, 0, 0, 0]);
    board.port_write(0xcf8, 4, 0x8000_0003, 0);
    assert_eq!(board.port_read(0xcf8, 4, 0), 0x8000_0000);
    assert_eq!(board.port_read(0xcfc, 2, 0), 0xffff);
}

#[test]
fn a_saved_board_goes_on_the_same_way() {
    let mut board = board();
    start_pic(&mut board, 0);
    out(&mut board, &[(0x43, 0x36), (0x40, 50), (0x40, 0), (0x3f8, b'x')], 0);
    board.advance(77);
    let mut copy: Board = serde_json::from_str(&serde_json::to_string(&board).unwrap()).unwrap();
    assert_eq!(board, copy);
    for now in (100..1000).step_by(7) {
        board.advance(now);
        copy.advance(now);
        assert_eq!((board.extint(), board.next_event()), (copy.extint(), copy.next_event()));
    }
}

const PORTS: &[u16] = &[
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xf4, 0x3f8, 0x3f9, 0x3fa,
    0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x510, 0x511, 0x608, 0xcf8, 0xcf9, 0xcfc, 0x8900, 0xffff,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Whatever a guest does to the ports: no panic, time goes forward, and jumping over events gives the lines that visiting each gives.
    #[test]
    fn any_accesses(
        accesses in prop::collection::vec((0..PORTS.len() + 2, 0_u8..6, any::<u32>(), 0_u64..5_000, any::<bool>()), 1..150),
        speed in prop::sample::select(vec![0_u64, 1_000_000, 3_579_545, 3_000_000_000, u64::MAX]),
    ) {
        let mut board = Board::new(&BoardConfig { cycles_per_second: speed, ..BoardConfig::default() });
        let mut now = 0;
        for (which, width, value, step, write) in accesses {
            now += step;
            match (PORTS.get(which), write) {
                (Some(port), true) => board.port_write(*port, width, value, now),
                (Some(port), false) => { board.port_read(*port, width, now); }
                (None, true) => { board.mmio_write(0xfec0_0000 + u64::from(which as u32 & 1) * 0x10, width, u64::from(value), now); }
                (None, false) => { board.mmio_read(0xfec0_0010, width, now); }
            }
            prop_assert!(board.next_event().is_none_or(|next| next > now), "an event in the past: {:?} at {now}", board.next_event());
            if board.extint() && value & 1 != 0 {
                board.acknowledge();
            }
            board.end_of_interrupt(value as u8);
            board.take_messages().for_each(drop);
        }
        board.advance(u64::MAX);
    }
}
