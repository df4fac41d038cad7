//! Tests of the 8254: waves and counts at exact pulses.

use super::*;

/// The output of counter 2 at ticks 0 to `length` - 1 as a string, after the writes at their ticks. Port 4 is the gate.
fn wave(writes: &[(u64, u8, u8)], length: u64) -> String {
    let mut pit = Pit::default();
    pit.set_speaker_gate(true, 0);
    let mut wave = String::new();
    for tick in 0..length {
        for (_, port, value) in writes.iter().filter(|(at, ..)| *at == tick) {
            match port {
                4 => pit.set_speaker_gate(*value != 0, tick),
                port => pit.write(*port, *value, tick),
            }
        }
        wave.push(if pit.speaker(tick) { '#' } else { '_' });
    }
    wave
}

/// Control words of counter 2, low byte only.
const MODE: [u8; 6] = [0x90, 0x92, 0x94, 0x96, 0x98, 0x9a];

#[test]
fn waves_of_the_datasheet() {
    for (name, writes, expected) in [
        ("mode 0: low for N + 1", vec![(0, 3, MODE[0]), (0, 2, 4)], "_____#####"),
        ("mode 0: a gate holds the count", vec![(0, 3, MODE[0]), (0, 2, 3), (2, 4, 0), (4, 4, 1)], "______####"),
        ("mode 0: a new count starts again", vec![(0, 3, MODE[0]), (0, 2, 3), (2, 2, 2)], "_____#####"),
        ("mode 0: two bytes", vec![(0, 3, 0xb0), (0, 2, 2), (3, 2, 0)], "______####"),
        ("mode 1: a trigger makes a pulse of N", vec![(0, 3, MODE[1]), (0, 2, 3), (1, 4, 0), (2, 4, 1)], "###___####"),
        ("mode 1: retriggered", vec![(0, 3, MODE[1]), (0, 2, 3), (1, 4, 0), (2, 4, 1), (3, 4, 0), (4, 4, 1)], "###_____##"),
        ("mode 2: low for one pulse in N", vec![(0, 3, MODE[2]), (0, 2, 3)], "###_##_##_##_"),
        ("mode 2: a new count waits for the end", vec![(0, 3, MODE[2]), (0, 2, 4), (2, 2, 2)], "####_#_#_#_"),
        ("mode 2: the gate restarts it", vec![(0, 3, MODE[2]), (0, 2, 3), (3, 4, 0), (5, 4, 1)], "########_##_"),
        ("mode 3: even", vec![(0, 3, MODE[3]), (0, 2, 4)], "###__##__##__"),
        ("mode 3: odd", vec![(0, 3, MODE[3]), (0, 2, 5)], "####__###__###__"),
        ("mode 3: a new count waits for the half", vec![(0, 3, MODE[3]), (0, 2, 6), (2, 2, 2)], "####_#_#_#"),
        ("mode 4: a strobe after N + 1", vec![(0, 3, MODE[4]), (0, 2, 3)], "####_#####"),
        ("mode 4: rewritten", vec![(0, 3, MODE[4]), (0, 2, 3), (2, 2, 3)], "######_###"),
        ("mode 5: a strobe N after the trigger", vec![(0, 3, MODE[5]), (0, 2, 3), (1, 4, 0), (2, 4, 1)], "######_###"),
        ("mode 6 is 2", vec![(0, 3, 0x9c), (0, 2, 2)], "##_#_#_"),
    ] {
        assert_eq!(wave(&writes, expected.len() as u64), expected, "{name}");
    }
}

fn count(pit: &mut Pit, tick: u64) -> u16 {
    pit.write(3, 0x80, tick);
    u16::from(pit.read(2, tick)) | u16::from(pit.read(2, tick)) << 8
}

#[test]
fn counts_at_exact_pulses() {
    for (control, counts) in [
        // Mode 0 counts through zero and wraps.
        (0xb0, [(1, 5), (2, 4), (5, 1), (6, 0), (7, 0xffff), (0x1_0006, 0)]),
        (0xb1, [(1, 5), (2, 4), (5, 1), (6, 0), (7, 0x9999), (10_006, 0)]),
        (0xb4, [(1, 5), (2, 4), (5, 1), (6, 5), (7, 4), (10_006, 5)]),
        (0xb6, [(1, 4), (2, 2), (3, 0), (4, 4), (5, 2), (6, 4)]),
    ] {
        let mut pit = Pit::default();
        pit.set_speaker_gate(true, 0);
        pit.write(3, control, 0);
        pit.write(2, 5, 0);
        pit.write(2, 0, 0);
        for (tick, expected) in counts {
            assert_eq!(count(&mut pit, tick), expected, "control {control:#x} at {tick}");
        }
    }
}

#[test]
fn latches_hold_and_read_back_shows_status() {
    let mut pit = Pit::default();
    pit.write(3, 0x34, 0);
    pit.write(0, 0x34, 0);
    pit.write(3, 0xe2, 0);
    assert_eq!(pit.read(0, 0), 0xf4, "output high, null count, two bytes, mode 2");
    pit.write(0, 0x12, 0);
    pit.write(3, 0xc2, 1);
    pit.write(3, 0x00, 9);
    assert_eq!(pit.read(0, 10), 0xb4, "the status comes first");
    assert_eq!((pit.read(0, 11), pit.read(0, 12)), (0x34, 0x12), "the first latch holds");
    assert_eq!((pit.read(0, 0x35), pit.read(0, 0x35)), (0, 0x12), "unlatched reads follow the count");
    assert_eq!(pit.read(3, 0x35), 0xff);
}

#[test]
fn bcd_counts_by_tens() {
    let mut pit = Pit::default();
    pit.write(3, 0x35, 0);
    pit.write(0, 0x00, 0);
    pit.write(0, 0x01, 0);
    pit.write(3, 0x00, 2);
    assert_eq!((pit.read(0, 2), pit.read(0, 2)), (0x99, 0x00));
    assert!(!pit.advance(100));
    assert!(!pit.interrupt());
    assert!(pit.advance(101));
    assert!(pit.interrupt());
}

#[test]
fn long_silences_are_skipped_without_losing_the_phase() {
    for mode in [0x14, 0x16] {
        let mut all = Pit::default();
        all.write(3, mode, 0);
        all.write(0, 7, 0);
        let mut jump = all.clone();
        for tick in 0..10_000 {
            all.advance(tick);
        }
        assert!(jump.advance(9_999));
        assert_eq!(all.interrupt(), jump.interrupt(), "{mode:#x}");
        assert_eq!(all.next_event(), jump.next_event(), "{mode:#x}");
        assert!(jump.advance(u64::MAX - 100));
    }
}
