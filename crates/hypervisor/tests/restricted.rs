//! Guests without the control "unrestricted guest": stories of real mode, and random bytes.

mod common;

use board::loader::{FlatOptions, Kind, LoadOptions, Mode, load};
use common::{Guest, VENDORS};
use cpu::random::split_mix_64;
use hypervisor::{AnyVm, Limits, Options, Policy, Stop, VmConfig};
use models::SKYLAKE_SERVER;
use trace::Record;

const RESTRICTED: fn() -> Options = || Options { unrestricted_guest: false, ..Options::default() };

/// A timer interrupt, an exception, INT n and HLT in real mode: the emulator delivers them, and the handlers see what a processor shows them.
#[test]
fn events_of_real_mode_are_delivered_by_software() {
    let source = r"
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        mov word [6*4], undefined
        mov word [6*4+2], 0
        mov word [0x60*4], soft
        mov word [0x60*4+2], 0
        mov word [8*4], tick
        mov word [8*4+2], 0
        db 0x0f, 0x0b
        after: int 0x60
        mov al, 0x11
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0x30
        out 0x43, al
        mov al, 0xff
        out 0x40, al
        out 0x40, al
        sti
        hlt
        cli
        mov eax, 0x40000000
        cpuid
        hlt
        undefined: pop word [0x5000]
        push after
        iret
        soft: inc bp
        iret
        tick: inc si
        mov al, 0x20
        out 0x20, al
        iret
    ";
    let mut story = Guest { mode: Mode::Real16, options: RESTRICTED(), ..Guest::new(source) }.on(&VENDORS[0]);
    assert_eq!(story.run(), Stop::Halted, "{}", story.text());
    let undefined = story.label("after") as u16 - 2;
    assert_eq!(story.bytes(0x5000, 2), undefined.to_le_bytes(), "IP of the undefined opcode");
    let registers = story.vm().registers(0);
    assert_eq!(registers.gprs[1] as u32, u32::from_le_bytes(*b"VMKV"), "the middle of the hypervisor's signature");
    assert_eq!((registers.gprs[5] & 0xffff, registers.gprs[6] & 0xffff), (1, 1), "{}", story.text());
    assert_eq!(story.exits().len(), 0, "nothing of it exits");
}

/// Guests that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        split_mix_64(&mut self.0)
    }

    fn code(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < 96 {
            let word = self.next();
            match word % 6 {
                0 => bytes.push(0x0f),
                1 => bytes.extend([0x0f, 0x01, (word >> 8) as u8 | 0xc0]),
                2 => bytes.push([0x66, 0xf0, 0xf2, 0xf3, 0x67, 0x2e, 0x64, 0xf4][(word >> 8) as usize % 8]),
                // MOV CR0, EAX with PE set: the states between the modes.
                3 => bytes.extend([0x0f, 0x20, 0xc0, 0x34, 0x01, 0x0f, 0x22, 0xc0]),
                _ => {}
            }
            bytes.extend_from_slice(&word.to_le_bytes()[2..2 + (word >> 56) as usize % 6]);
        }
        bytes
    }
}

#[test]
fn random_guests_end_and_end_again_alike() {
    let mut random = Random(7);
    for number in 0..120_u32 {
        let code = random.code();
        let mode = if number % 4 == 3 { Mode::Protected32 } else { Mode::Real16 };
        let policy = [Policy::TrapAndPatch, Policy::QuirkOff, Policy::Direct, Policy::Classic2007][number as usize % 4];
        let run = || {
            let options = LoadOptions {
                kind: Kind::Flat,
                memory_size: 2 << 20,
                flat: FlatOptions { base: 0x7c00, mode, ..FlatOptions::default() },
                ..LoadOptions::default()
            };
            let config = VmConfig { memory_size: 2 << 20, policy, options: RESTRICTED(), cpu_count: 2, ..VmConfig::new(&SKYLAKE_SERVER) };
            let mut vm = AnyVm::new(&config).expect("a machine");
            vm.load(&load(&code, &options).expect("any bytes are flat code")).expect("they fit");
            let mut trace: Vec<Record> = Vec::new();
            let stop = vm.run(&mut trace, &Limits { instructions: 2000, cycles: 20_000_000, exits: 2000 });
            (stop, trace, vm.registers(0))
        };
        let first = run();
        if number % 16 == 0 {
            assert_eq!(first, run(), "guest {number}");
        }
    }
}
