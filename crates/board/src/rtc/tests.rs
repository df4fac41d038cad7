//! Tests of the real-time clock: calendar, interrupts, formats.

use super::*;

fn clock(start: DateTime) -> Rtc {
    Rtc::new(start, 3 << 30, 5 << 30, 4)
}

fn read(rtc: &mut Rtc, register: u8) -> u8 {
    rtc.select(register);
    rtc.read()
}

fn write(rtc: &mut Rtc, register: u8, value: u8) {
    rtc.select(register);
    rtc.write(value);
}

fn shown(rtc: &mut Rtc) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|register| read(rtc, register))
}

#[test]
fn time_passes_with_the_crystal() {
    let start = DateTime { year: 2027, month: 12, day: 31, hour: 23, minute: 59, second: 58 };
    for (seconds, expected) in [
        (0, [0x20, 0x27, 0x12, 0x31, 6, 0x23, 0x59, 0x58]),
        (1, [0x20, 0x27, 0x12, 0x31, 6, 0x23, 0x59, 0x59]),
        (2, [0x20, 0x28, 0x01, 0x01, 7, 0x00, 0x00, 0x00]),
        (2 + 59 * 86_400, [0x20, 0x28, 0x02, 0x29, 3, 0x00, 0x00, 0x00]),
        (2 + 60 * 86_400, [0x20, 0x28, 0x03, 0x01, 4, 0x00, 0x00, 0x00]),
        (2 + 146_097 * 86_400, [0x24, 0x28, 0x01, 0x01, 7, 0x00, 0x00, 0x00]),
    ] {
        let mut rtc = clock(start);
        rtc.advance(seconds * SECOND + 5);
        assert_eq!(shown(&mut rtc), expected, "after {seconds} s");
    }
}

#[test]
fn weekdays() {
    for (year, month, day, expected) in [(2026, 1, 1, 5), (2000, 2, 29, 3), (1970, 1, 1, 5), (2024, 12, 1, 1), (1999, 12, 25, 7)] {
        assert_eq!(DateTime { year, month, day, ..DateTime::default() }.weekday(), expected, "{year}-{month}-{day}");
    }
}

#[test]
fn formats() {
    let start = DateTime { hour: 12, minute: 34, second: 56, ..DateTime::default() };
    for (register_b, hours) in [(0x02, [0x12, 0x13, 0x00]), (0x06, [12, 13, 0]), (0x00, [0x92, 0x81, 0x12]), (0x04, [0x8c, 0x81, 12])] {
        let mut rtc = clock(start);
        write(&mut rtc, 0x0b, register_b);
        let now = [12, 13, 24].map(|hour| {
            // The registers are not converted by a change of format: the program writes them again.
            let time = DateTime { hour: hour % 24, minute: 0, second: 0, ..DateTime::default() };
            rtc.store_time(&time, 5);
            read(&mut rtc, 4)
        });
        assert_eq!(now, hours, "{register_b:#x}");
        assert_eq!(rtc.time().hour, 0);
    }
}

#[test]
fn update_flag_and_interrupt_at_the_second() {
    let mut rtc = clock(DateTime::default());
    write(&mut rtc, 0x0b, 0x12);
    assert_eq!(rtc.next_event(), Some(SECOND));
    for (tick, expected) in [(SECOND - 74, 0x26), (SECOND - 73, 0xa6), (SECOND - 1, 0xa6), (SECOND, 0x26)] {
        rtc.advance(tick);
        assert_eq!(read(&mut rtc, 0x0a), expected, "{tick}");
        assert_eq!(rtc.interrupt(), tick == SECOND);
    }
    assert_eq!(rtc.next_event(), None, "the line is up already");
    assert_eq!(read(&mut rtc, 0x0c) & 0x90, 0x90);
    assert!(!rtc.interrupt());
    assert_eq!(rtc.next_event(), Some(2 * SECOND));
    write(&mut rtc, 0x0b, 0x92);
    assert_eq!(read(&mut rtc, 0x0b), 0x82, "SET clears UIE");
    rtc.advance(10 * SECOND);
    assert_eq!(read(&mut rtc, 0), 1, "SET stops the update");
}

#[test]
fn periodic_rates() {
    for (rate, period) in [(1, 128), (2, 256), (3, 4), (6, 32), (15, 16_384)] {
        let mut rtc = clock(DateTime::default());
        write(&mut rtc, 0x0a, 0x20 | rate);
        write(&mut rtc, 0x0b, 0x42);
        assert_eq!(rtc.next_event(), Some(period), "{rate}");
        rtc.advance(period - 1);
        assert!(!rtc.interrupt());
        rtc.advance(period);
        assert!(rtc.interrupt());
        assert_eq!(read(&mut rtc, 0x0c), 0xc0);
    }
    let mut rtc = clock(DateTime::default());
    write(&mut rtc, 0x0a, 0x20);
    write(&mut rtc, 0x0b, 0x42);
    assert_eq!(rtc.next_event(), None, "rate 0 is none");
}

#[test]
fn alarms_match_every_field_or_ignore_it() {
    for (alarm, seconds) in [
        ([0x00, 0x00, 0x10], Some(10)),
        ([0x00, 0x01, 0x00], Some(60)),
        ([0x00, 0x00, 0x00], Some(86_400)),
        ([0xff, 0xff, 0x30], Some(30)),
        ([0xff, 0xff, 0xff], Some(1)),
        ([0xc0, 0x59, 0x00], Some(59 * 60)),
        ([0x24, 0x00, 0x00], None),
    ] {
        let mut rtc = clock(DateTime::default());
        for (register, value) in [5, 3, 1].into_iter().zip(alarm) {
            write(&mut rtc, register, value);
        }
        write(&mut rtc, 0x0b, 0x22);
        assert_eq!(rtc.next_event(), seconds.map(|seconds| seconds * SECOND), "{alarm:x?}");
        if let Some(seconds) = seconds {
            rtc.advance(seconds * SECOND - 1);
            assert!(!rtc.interrupt());
            rtc.advance(seconds * SECOND);
            assert!(rtc.interrupt());
            assert_eq!(read(&mut rtc, 0x0c) & 0xa0, 0xa0);
        }
    }
}

#[test]
fn divider_reset_starts_with_half_a_second() {
    let mut rtc = clock(DateTime::default());
    rtc.advance(1000);
    write(&mut rtc, 0x0a, 0x60);
    rtc.advance(10 * SECOND + 77);
    assert_eq!(read(&mut rtc, 0), 0);
    write(&mut rtc, 0x0a, 0x26);
    rtc.advance(10 * SECOND + 77 + SECOND / 2 - 1);
    assert_eq!(read(&mut rtc, 0), 0);
    rtc.advance(10 * SECOND + 77 + SECOND / 2);
    assert_eq!(read(&mut rtc, 0), 1);
}

#[test]
fn memory_sizes() {
    let mut rtc = clock(DateTime::default());
    let mut word = |low| u16::from(read(&mut rtc, low)) | u16::from(read(&mut rtc, low + 1)) << 8;
    assert_eq!([word(0x15), word(0x17), word(0x30), word(0x34)], [640, 0xffff, 0xffff, 0xbf00]);
    assert_eq!([word(0x5b), word(0x5d)], [0x4000, 1]);
    assert_eq!(read(&mut rtc, 0x5f), 3);
}

#[test]
fn hostile_registers_never_panic() {
    for value in 0..=0xff {
        for register_b in [0, 2, 4, 6] {
            let mut rtc = clock(DateTime::default());
            for register in 0..128 {
                write(&mut rtc, register, value);
            }
            write(&mut rtc, 0x0a, 0x2f);
            write(&mut rtc, 0x0b, register_b | 0x70);
            rtc.advance(1 << 30);
            let _ = rtc.next_event();
            rtc.advance(u64::MAX);
            let _ = rtc.next_event();
        }
    }
}
